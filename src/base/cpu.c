/* CPU feature detection, through the compiler's runtime where there is one. */
#include "base/cpu.h"

#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/os.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#if DBT_X86_64
/* Tiles of int8, and the system's leave to use them. */
static bool has_amx_int8(void) {
    unsigned a = 0, b, c, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 3) == 3 && dbt_os_allow_tiles();
}
#endif

uint64_t dbt_cpu_isa(uint64_t mask) {
    if (mask == 0) mask = ~(uint64_t)0;
    uint64_t isa = 0;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) {
        isa |= DIBIT_ISA_AVX2;
        unsigned a = 0, b, c, d;
        if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1)) isa |= DIBIT_ISA_AVX_VNNI;
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
        isa |= DIBIT_ISA_AVX512;
        if (__builtin_cpu_supports("avx512vnni")) isa |= DIBIT_ISA_AVX512_VNNI;
        if (__builtin_cpu_supports("avx512vbmi")) isa |= DIBIT_ISA_AVX512_VBMI;
    }
#if DBT_X86_64
    if (mask & DIBIT_ISA_AMX_INT8 && has_amx_int8()) isa |= DIBIT_ISA_AMX_INT8;
#endif
#elif defined(__aarch64__)
    enum { HWCAP_ASIMDDP_BIT = 20, HWCAP2_I8MM_BIT = 13 }; /* Linux's asm/hwcap.h */
    isa |= DIBIT_ISA_NEON;
    if (dbt_os_hwcap(0) >> HWCAP_ASIMDDP_BIT & 1) isa |= DIBIT_ISA_NEON_DOT;
    if (dbt_os_hwcap(1) >> HWCAP2_I8MM_BIT & 1) isa |= DIBIT_ISA_NEON_I8MM;
#elif defined(__wasm_simd128__)
    isa |= DIBIT_ISA_WASM_SIMD; /* a module with SIMD only loads where there is SIMD */
#if defined(__wasm_relaxed_simd__)
    isa |= DIBIT_ISA_WASM_RELAXED_SIMD;
#endif
#endif
    return isa & mask;
}

uint64_t dibit_cpu_isa(void) { return dbt_cpu_isa(0); }

void dbt_cpu_isa_text(uint64_t isa, char text[128]) {
    static const struct {
        uint64_t bit;
        const char *name;
    } names[] = {
        {DIBIT_ISA_AVX2, "avx2"},
        {DIBIT_ISA_AVX_VNNI, "avx-vnni"},
        {DIBIT_ISA_AVX512, "avx512"},
        {DIBIT_ISA_AVX512_VNNI, "avx512-vnni"},
        {DIBIT_ISA_AVX512_VBMI, "avx512-vbmi"},
        {DIBIT_ISA_AMX_INT8, "amx-int8"},
        {DIBIT_ISA_NEON, "neon"},
        {DIBIT_ISA_NEON_DOT, "neon-dot"},
        {DIBIT_ISA_NEON_I8MM, "neon-i8mm"},
        {DIBIT_ISA_WASM_SIMD, "wasm-simd"},
        {DIBIT_ISA_WASM_RELAXED_SIMD, "wasm-relaxed-simd"},
    };
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!(isa & names[i].bit)) continue;
        const int n = snprintf(text + used, 128 - used, "%s%s", used ? " " : "", names[i].name);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used == 0) snprintf(text, 128, "portable");
}

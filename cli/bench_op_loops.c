/* Loops at the machine's limits, for bench_op_limits.c: those that read do nothing else, and those that
 * multiply read nothing and keep eight or more independent sums in registers. */
#include "bench_op_loops.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* Keeps the compiler from computing a loop once, or not at all. */
#define SINK(x) __asm__ volatile("" ::"r"(x) : "memory")

/* ---- Reading ---- */

static void read_portable(const uint8_t *data, uint64_t bytes) {
    uint64_t sum[8] = {0};
    for (uint64_t i = 0; i < bytes; i += sizeof sum) {
        const uint64_t *const at = (const void *)(data + i);
        for (int j = 0; j < 8; j++) sum[j] += at[j];
    }
    SINK(sum);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void read_avx2(const uint8_t *data, uint64_t bytes) {
    __m256i sum[8] = {_mm256_setzero_si256()};
    for (uint64_t i = 0; i < bytes; i += sizeof sum) {
        const __m256i *const at = (const void *)(data + i);
        for (int j = 0; j < 8; j++) sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(at + j));
    }
    SINK(sum);
}

__attribute__((target("avx512f"))) static void read_avx512(const uint8_t *data, uint64_t bytes) {
    __m512i sum[8] = {_mm512_setzero_si512()};
    for (uint64_t i = 0; i < bytes; i += sizeof sum) {
        const __m512i *const at = (const void *)(data + i);
        for (int j = 0; j < 8; j++) sum[j] = _mm512_xor_si512(sum[j], _mm512_load_si512(at + j));
    }
    SINK(sum);
}
#endif

/* ---- Products: n rounds of 8 or more instructions ---- */

/* Makes the compiler believe that x, in a vector register, is new in each round. */
#define RENEW_X86(x) __asm__ volatile("" : "+v"(x))
#define RENEW_ARM(x) __asm__ volatile("" : "+w"(x))

static void float_portable(int64_t n) {
    float sum[32] = {0}, a[32];
    for (int j = 0; j < 32; j++) a[j] = 1e-3f * (float)j;
    for (int64_t i = 0; i < n; i++) {
        for (int j = 0; j < 32; j++) sum[j] = sum[j] + a[j] * a[j];
        SINK(a);
    }
    SINK(sum);
}

static void int8_portable(int64_t n) {
    int8_t a[64], b[64];
    uint32_t sum = 0; /* it wraps */
    for (int j = 0; j < 64; j++) a[j] = b[j] = (int8_t)j;
    for (int64_t i = 0; i < n; i++) {
        SINK(a);
        for (int j = 0; j < 64; j++) sum += (uint32_t)(a[j] * b[j]);
    }
    SINK(&sum);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void float_avx2(int64_t n) {
    __m256 sum[12], a = _mm256_set1_ps(1e-3f);
    for (int j = 0; j < 12; j++) sum[j] = a;
    for (int64_t i = 0; i < n; i++) {
        RENEW_X86(a);
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) sum[j] = _mm256_fmadd_ps(a, a, sum[j]);
    }
    SINK(sum);
}

__attribute__((target("avx512f"))) static void float_avx512(int64_t n) {
    __m512 sum[12], a = _mm512_set1_ps(1e-3f);
    for (int j = 0; j < 12; j++) sum[j] = a;
    for (int64_t i = 0; i < n; i++) {
        RENEW_X86(a);
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) sum[j] = _mm512_fmadd_ps(a, a, sum[j]);
    }
    SINK(sum);
}

__attribute__((target("avx2"))) static void int8_avx2(int64_t n) {
    __m256i sum[8], a = _mm256_set1_epi8(3);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int j = 0; j < 8; j++) sum[j] = a;
    for (int64_t i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            RENEW_X86(a);
            sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(_mm256_maddubs_epi16(a, a), ones));
        }
    }
    SINK(sum);
}

__attribute__((target("avx2,avxvnni"))) static void int8_avx_vnni(int64_t n) {
    __m256i sum[12], a = _mm256_set1_epi8(3);
    for (int j = 0; j < 12; j++) sum[j] = a;
    for (int64_t i = 0; i < n; i++) {
        RENEW_X86(a);
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) sum[j] = _mm256_dpbusd_avx_epi32(sum[j], a, a);
    }
    SINK(sum);
}

__attribute__((target("avx512f,avx512vnni"))) static void int8_avx512_vnni(int64_t n) {
    __m512i sum[12], a = _mm512_set1_epi32(3);
    for (int j = 0; j < 12; j++) sum[j] = a;
    for (int64_t i = 0; i < n; i++) {
        RENEW_X86(a);
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) sum[j] = _mm512_dpbusd_epi32(sum[j], a, a);
    }
    SINK(sum);
}

/* The kernel has given the process leave to use tiles where DIBIT_ISA_AMX_INT8 is among its features. */
__attribute__((target("amx-tile,amx-int8"))) static void int8_amx(int64_t n) {
    /* Static: gcc 12 thinks that no more than 8 bytes of it are read. */
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_release();
}
#elif defined(__aarch64__)
static void float_neon(int64_t n) {
    float32x4_t sum[12], a = vdupq_n_f32(1e-3f);
    for (int j = 0; j < 12; j++) sum[j] = a;
    for (int64_t i = 0; i < n; i++) {
        RENEW_ARM(a);
        for (int j = 0; j < 12; j++) sum[j] = vfmaq_f32(sum[j], a, a);
    }
    SINK(sum);
}

static void int8_neon(int64_t n) {
    int32x4_t sum[8];
    int8x16_t a = vdupq_n_s8(3);
    for (int j = 0; j < 8; j++) sum[j] = vdupq_n_s32(0);
    for (int64_t i = 0; i < n; i++) {
        for (int j = 0; j < 8; j++) {
            RENEW_ARM(a);
            const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(a));
            sum[j] = vpadalq_s16(sum[j], vmlal_high_s8(low, a, a));
        }
    }
    SINK(sum);
}

__attribute__((target("arch=armv8.2-a+dotprod"))) static void int8_neon_dot(int64_t n) {
    int32x4_t sum[12];
    int8x16_t a = vdupq_n_s8(3);
    for (int j = 0; j < 12; j++) sum[j] = vdupq_n_s32(0);
    for (int64_t i = 0; i < n; i++) {
        RENEW_ARM(a);
        for (int j = 0; j < 12; j++) sum[j] = vdotq_s32(sum[j], a, a);
    }
    SINK(sum);
}

__attribute__((target("arch=armv8.2-a+i8mm"))) static void int8_neon_i8mm(int64_t n) {
    int32x4_t sum[12];
    int8x16_t a = vdupq_n_s8(3);
    for (int j = 0; j < 12; j++) sum[j] = vdupq_n_s32(0);
    for (int64_t i = 0; i < n; i++) {
        RENEW_ARM(a);
        for (int j = 0; j < 12; j++) sum[j] = vmmlaq_s32(sum[j], a, a);
    }
    SINK(sum);
}
#endif

/* ---- Which of them this machine has ---- */

const bench_loop bench_loops[] = {
#if defined(__x86_64__)
    {"float, avx512", DIBIT_ISA_AVX512, float_avx512, 12 * 16, false},
    {"float, avx2", DIBIT_ISA_AVX2, float_avx2, 12 * 8, false},
    {"int8, amx-int8", DIBIT_ISA_AMX_INT8, int8_amx, 4 * 16 * 16 * 64, true},
    {"int8, avx512-vnni", DIBIT_ISA_AVX512_VNNI, int8_avx512_vnni, 12 * 64, true},
    {"int8, avx-vnni", DIBIT_ISA_AVX_VNNI, int8_avx_vnni, 12 * 32, true},
    {"int8, avx2", DIBIT_ISA_AVX2, int8_avx2, 8 * 32, true},
#elif defined(__aarch64__)
    {"float, neon", DIBIT_ISA_NEON, float_neon, 12 * 4, false},
    {"int8, neon-i8mm", DIBIT_ISA_NEON_I8MM, int8_neon_i8mm, 12 * 32, true},
    {"int8, neon-dot", DIBIT_ISA_NEON_DOT, int8_neon_dot, 12 * 16, true},
    {"int8, neon", DIBIT_ISA_NEON, int8_neon, 8 * 16, true},
#endif
    {"float, plain C", 0, float_portable, 32, false},
    {"int8, plain C", 0, int8_portable, 64, true},
};
const size_t bench_loop_count = sizeof bench_loops / sizeof bench_loops[0];

bench_read bench_reader(uint64_t isa) {
#if defined(__x86_64__)
    if (isa & DIBIT_ISA_AVX512) return read_avx512;
    if (isa & DIBIT_ISA_AVX2) return read_avx2;
#endif
    (void)isa;
    return read_portable;
}

/* The only file with compiler extensions besides the SIMD files. */
#ifndef DBT_BASE_COMPILER_H
#define DBT_BASE_COMPILER_H

#if defined(__clang__)
#define DBT_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define DBT_UNROLL _Pragma("GCC unroll 16") /* a loop of up to 16 rounds, before it */
#else
#define DBT_UNROLL
#endif

#if defined(__GNUC__)
#define DBT_PRINTF(format_index, first_index)                                                      \
    __attribute__((format(printf, format_index, first_index)))
#define DBT_UNUSED __attribute__((unused))
#define DBT_NOINLINE __attribute__((noinline))
#define DBT_ALWAYS_INLINE inline __attribute__((always_inline))
#define DBT_LIKELY(x) __builtin_expect(!!(x), 1)
#define DBT_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define DBT_PREFETCH(p) __builtin_prefetch(p)
#else
#define DBT_PRINTF(format_index, first_index)
#define DBT_UNUSED
#define DBT_NOINLINE
#define DBT_ALWAYS_INLINE inline
#define DBT_LIKELY(x) (x)
#define DBT_UNLIKELY(x) (x)
#define DBT_PREFETCH(p) ((void)(p))
#endif

/* The architecture that is compiled for, 0 or 1. */
#if defined(__x86_64__)
#define DBT_X86_64 1
#else
#define DBT_X86_64 0
#endif

#if defined(__wasm__)
#define DBT_WASM 1
#else
#define DBT_WASM 0
#endif

#endif

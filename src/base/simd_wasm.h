/* Four floats at a time in WebAssembly, for the kernels of that family: loads that end anywhere, half
 * floats, sums, and the operations that relaxed SIMD has a better instruction for. */
#ifndef DBT_BASE_SIMD_WASM_H
#define DBT_BASE_SIMD_WASM_H

#if defined(__wasm_simd128__)
#include <string.h>
#include <wasm_simd128.h>

#include "dibit/dibit.h"

#define DBT_WASM_INLINE static inline __attribute__((always_inline))

/* a * b + c: with relaxed SIMD rounded once or twice, as the machine has it; else twice. */
#if defined(__wasm_relaxed_simd__)
#define dbt_wasm_madd wasm_f32x4_relaxed_madd
#define dbt_wasm_swizzle wasm_i8x16_relaxed_swizzle /* indices are below 16, or -1 */
#else
DBT_WASM_INLINE v128_t dbt_wasm_madd(v128_t a, v128_t b, v128_t c) {
    return wasm_f32x4_add(wasm_f32x4_mul(a, b), c);
}
#define dbt_wasm_swizzle wasm_i8x16_swizzle
#endif

/* v, of which clang knows nothing. Where it knows that integers are not negative, it converts them to floats
 * by the unsigned conversion, which is ten instructions on x86. */
DBT_WASM_INLINE v128_t dbt_wasm_unknown(v128_t v) {
    volatile v128_t kept = v;
    return kept;
}

/* x[0 .. n), n <= 4, zeros after them. */
DBT_WASM_INLINE v128_t dbt_wasm_load_some(const float *x, int64_t n) {
    float few[4] = {0};
    if (n >= 4) return wasm_v128_load(x);
    memcpy(few, x, (size_t)n * sizeof *few);
    return wasm_v128_load(few);
}

DBT_WASM_INLINE float dbt_wasm_sum(v128_t v) {
    v = wasm_f32x4_add(v, wasm_i32x4_shuffle(v, v, 2, 3, 2, 3));
    return wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 1);
}

/* The sums of four vectors, as one of four. */
DBT_WASM_INLINE v128_t dbt_wasm_sum4(v128_t a, v128_t b, v128_t c, v128_t d) {
    const v128_t ab =
        wasm_f32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
    const v128_t cd =
        wasm_f32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
    return wasm_f32x4_add(wasm_i64x2_shuffle(ab, cd, 0, 2), wasm_i64x2_shuffle(ab, cd, 1, 3));
}

/* Half floats in the low halves of four lanes. Subnormal ones too: the product with 2^112 moves the
 * exponent, and what had the largest gets float's largest. */
DBT_WASM_INLINE v128_t dbt_wasm_from_half(v128_t h) {
    const v128_t sign = wasm_v128_and(h, wasm_i32x4_splat(0x8000));
    const v128_t rest = wasm_v128_and(h, wasm_i32x4_splat(0x7fff));
    const v128_t value = wasm_f32x4_mul(wasm_i32x4_shl(rest, 13), wasm_f32x4_splat(0x1p112f));
    const v128_t special =
        wasm_v128_and(wasm_i32x4_gt(rest, wasm_i32x4_splat(0x7bff)), wasm_i32x4_splat(0x7f800000));
    return wasm_v128_or(wasm_v128_or(value, special), wasm_i32x4_shl(sign, 16));
}

/* Four elements at any address. */
DBT_WASM_INLINE v128_t dbt_wasm_load4(const uint8_t *x, dibit_type type) {
    if (type == DIBIT_TYPE_FLOAT) return wasm_v128_load(x);
    const v128_t v = wasm_u32x4_load16x4(x);
    return type == DIBIT_TYPE_FLOAT16 ? dbt_wasm_from_half(v) : wasm_i32x4_shl(v, 16);
}

#endif
#endif

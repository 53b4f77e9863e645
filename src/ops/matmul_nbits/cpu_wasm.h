/* What the wasm kernels of MatMulNBits share: layouts of int8 activations, and codes of widths that fill no
 * vector. */
#ifndef DBT_OPS_MATMUL_NBITS_CPU_WASM_H
#define DBT_OPS_MATMUL_NBITS_CPU_WASM_H

#include "base/simd_wasm.h"
#include "ops/matmul_nbits/cpu_kernels.h"

#if defined(__wasm_simd128__)

#if defined(__wasm_relaxed_simd__)
#define DBT_WASM_RELAXED 1
#define DBT_WASM_DOT_BYTES wasm_i32x4_relaxed_dot_i8x16_i7x16_add
#else
#define DBT_WASM_RELAXED 0
#define DBT_WASM_DOT_BYTES(a, codes, sum) ((void)(a), (void)(codes), (sum)) /* never used */
#endif

/* out[k] is lane k of each of the four. */
DBT_WASM_INLINE void dbt_wasm_turn(const v128_t *v, v128_t *out) {
    const v128_t a = wasm_i32x4_shuffle(v[0], v[1], 0, 4, 1, 5);
    const v128_t b = wasm_i32x4_shuffle(v[2], v[3], 0, 4, 1, 5);
    const v128_t c = wasm_i32x4_shuffle(v[0], v[1], 2, 6, 3, 7);
    const v128_t d = wasm_i32x4_shuffle(v[2], v[3], 2, 6, 3, 7);
    out[0] = wasm_i64x2_shuffle(a, b, 0, 2);
    out[1] = wasm_i64x2_shuffle(a, b, 1, 3);
    out[2] = wasm_i64x2_shuffle(c, d, 0, 2);
    out[3] = wasm_i64x2_shuffle(c, d, 1, 3);
}

/* Planes of bytes in a vector of B, as the activations lie. */
DBT_WASM_INLINE int dbt_wasm_planes(uint32_t bits) { return bits == 2 ? 4 : bits == 4 ? 2 : 1; }

/* Whether products are of bytes, not of 16 bits. */
DBT_WASM_INLINE bool dbt_wasm_by_bytes(uint32_t bits) { return DBT_WASM_RELAXED && bits < 8; }

/* 8 codes of 1, 3, 5, 6 or 7 bits in 16 bits each: two bytes per code, and a product for a shift. */
DBT_WASM_INLINE v128_t dbt_wasm_shorts8(v128_t bytes, const uint32_t bits) {
    const int n = (int)bits;
#define TWO(i) (int8_t)((i) * n / 8), (int8_t)((i) * n / 8 + 1)
    const v128_t pairs =
        wasm_i8x16_make(TWO(0), TWO(1), TWO(2), TWO(3), TWO(4), TWO(5), TWO(6), TWO(7));
#undef TWO
#define UP(i) (int16_t)(256 >> ((i) * n % 8))
    const v128_t up = wasm_i16x8_make(UP(0), UP(1), UP(2), UP(3), UP(4), UP(5), UP(6), UP(7));
#undef UP
    return wasm_u16x8_shr(wasm_i16x8_mul(dbt_wasm_swizzle(bytes, pairs), up), 8);
}

/* The same 16 codes, a byte each, from 2 * bits bytes at b. Reads 16 - bits bytes too many. */
DBT_WASM_INLINE v128_t dbt_wasm_bytes16(const uint8_t *b, const uint32_t bits) {
    const v128_t all = wasm_u8x16_narrow_i16x8(dbt_wasm_shorts8(wasm_v128_load(b), bits),
                                               dbt_wasm_shorts8(wasm_v128_load(b + bits), bits));
    return wasm_v128_and(all, wasm_i8x16_splat((int8_t)((1 << bits) - 1)));
}

/* dot - zero_point * sum, of 4 blocks, with float zero points. In double, since the two parts may cancel. */
v128_t dbt_wasm_apply_float_zero_points(v128_t dots, v128_t zero_points, v128_t sums);

/* As dbt_nbits_decode_blocks, into row i of the task's scratch. Returns the scales, which may be where they lie in
 * the model. */
const float *dbt_wasm_decode_blocks(const dbt_nbits_task *t, int64_t n, int64_t i);

#endif
#endif

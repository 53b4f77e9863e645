/* The loops of attention in WebAssembly: register blocks of 2 queries by 4 keys for scores, of 3 queries
 * by 8 elements for the weighted sum of values. */
#include "base/half.h"
#include "base/math.h"
#include "base/simd_wasm.h"
#include "dibit/dibit.h"
#include "ops/attention_core/attention_kernels.h"

/* The dots of `rows` (1 or 2) queries with `keys` (1 or 4) keys; elements past a multiple of 4 one by one. */
DBT_WASM_INLINE void scores_block(const float *q, const float *k, size_t k_stride, const int rows,
                                  const int keys, size_t dim, float *x) {
    v128_t sums[2][4];
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        DBT_UNROLL
        for (int t = 0; t < 4; t++) sums[r][t] = wasm_f32x4_splat(0);
    }
    size_t d = 0;
    for (; d + 4 <= dim; d += 4) {
        v128_t query[2];
        DBT_UNROLL
        for (int r = 0; r < rows; r++) query[r] = wasm_v128_load(q + (size_t)r * dim + d);
        DBT_UNROLL
        for (int t = 0; t < keys; t++) {
            const v128_t key = wasm_v128_load(k + (size_t)t * k_stride + d);
            DBT_UNROLL
            for (int r = 0; r < rows; r++) sums[r][t] = dbt_wasm_madd(query[r], key, sums[r][t]);
        }
    }
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        float out[4];
        wasm_v128_store(out, dbt_wasm_sum4(sums[r][0], sums[r][1], sums[r][2], sums[r][3]));
        DBT_UNROLL
        for (int t = 0; t < keys; t++) {
            for (size_t e = d; e < dim; e++) {
                out[t] += q[(size_t)r * dim + e] * k[(size_t)t * k_stride + e];
            }
            x[r * DBT_ATTENTION_TILE + t] = out[t];
        }
    }
}

static void scores(const float *q, const float *k, int64_t k_stride, int64_t rows, int64_t keys,
                   int64_t dim, float *x) {
    const size_t stride = (size_t)k_stride, n = (size_t)dim;
    int64_t t = 0;
    for (; t + 4 <= keys; t += 4) {
        const float *const at = k + t * k_stride;
        int64_t r = 0;
        for (; r + 2 <= rows; r += 2) {
            scores_block(q + r * dim, at, stride, 2, 4, n, x + r * DBT_ATTENTION_TILE + t);
        }
        if (r < rows)
            scores_block(q + r * dim, at, stride, 1, 4, n, x + r * DBT_ATTENTION_TILE + t);
    }
    for (; t < keys; t++) {
        for (int64_t r = 0; r < rows; r++) {
            scores_block(q + r * dim, k + t * k_stride, stride, 1, 1, n,
                         x + r * DBT_ATTENTION_TILE + t);
        }
    }
}

/* `rows` (1 or 3) queries, `vectors` (1 or 2) times 4 elements. */
DBT_WASM_INLINE void accumulate_block(const float *x, const float *v, size_t v_stride,
                                      const int rows, const int vectors, int64_t keys, size_t dim,
                                      float *acc) {
    v128_t sums[3][2];
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        DBT_UNROLL
        for (int i = 0; i < vectors; i++)
            sums[r][i] = wasm_v128_load(acc + (size_t)r * dim + 4 * i);
    }
    for (int64_t t = 0; t < keys; t++, x++, v += v_stride) {
        v128_t value[2];
        DBT_UNROLL
        for (int i = 0; i < vectors; i++) value[i] = wasm_v128_load(v + 4 * i);
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            const v128_t p = wasm_v128_load32_splat(x + r * DBT_ATTENTION_TILE);
            DBT_UNROLL
            for (int i = 0; i < vectors; i++) sums[r][i] = dbt_wasm_madd(p, value[i], sums[r][i]);
        }
    }
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        DBT_UNROLL
        for (int i = 0; i < vectors; i++)
            wasm_v128_store(acc + (size_t)r * dim + 4 * i, sums[r][i]);
    }
}

DBT_WASM_INLINE void accumulate_rows(const float *x, const float *v, size_t v_stride,
                                     const int rows, int64_t keys, size_t dim, float *acc) {
    size_t d = 0;
    for (; d + 8 <= dim; d += 8) {
        accumulate_block(x, v + d, v_stride, rows, 2, keys, dim, acc + d);
    }
    if (d + 4 <= dim) {
        accumulate_block(x, v + d, v_stride, rows, 1, keys, dim, acc + d);
        d += 4;
    }
    for (int64_t t = 0; t < keys && d < dim; t++) {
        for (int r = 0; r < rows; r++) {
            const float p = x[r * DBT_ATTENTION_TILE + t];
            for (size_t e = d; e < dim; e++) {
                acc[(size_t)r * dim + e] += p * v[(size_t)t * v_stride + e];
            }
        }
    }
}

static void accumulate(const float *x, const float *v, int64_t v_stride, int64_t rows, int64_t keys,
                       int64_t dim, float *acc) {
    const size_t stride = (size_t)v_stride, n = (size_t)dim;
    int64_t r = 0;
    for (; r + 3 <= rows; r += 3) {
        accumulate_rows(x + r * DBT_ATTENTION_TILE, v, stride, 3, keys, n, acc + r * dim);
    }
    for (; r < rows; r++) {
        accumulate_rows(x + r * DBT_ATTENTION_TILE, v, stride, 1, keys, n, acc + r * dim);
    }
}

static float exponentials(float *x, int64_t n, float top) {
    for (int64_t i = 0; i < n; i++) x[i] = dbt_expf(x[i] - top);
    return dbt_sum(x, n);
}

static void unpack_half(const uint16_t *h, int64_t n, float *x) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        wasm_v128_store(x + i, dbt_wasm_load4((const uint8_t *)(h + i), DIBIT_TYPE_FLOAT16));
    }
    for (; i < n; i++) x[i] = dbt_half_to_float(h[i]);
}

const dbt_attention_kernel dbt_attention_wasm = {.name = "wasm",
                                                 .isa = DIBIT_ISA_WASM_SIMD,
                                                 .scores = scores,
                                                 .accumulate = accumulate,
                                                 .exponentials = exponentials,
                                                 .unpack_half = unpack_half};

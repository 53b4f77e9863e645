/* The loops of attention for NEON: register blocks of 4 queries by 4 keys for scores, of 4 queries by 16
 * elements for the weighted sum of values. */
#include <arm_neon.h>

#include "base/half.h"
#include "base/math.h"
#include "dibit/dibit.h"
#include "ops/attention_core/attention_kernels.h"

enum { ROWS = 4 };

/* The dots of `rows` (1 or ROWS) queries with `keys` (1 or 4) keys; elements past a multiple of 4 one by
 * one. */
static DBT_ALWAYS_INLINE void scores_block(const float *q, const float *k, int64_t k_stride,
                                           const int rows, const int keys, int64_t dim, float *x) {
    float32x4_t sums[ROWS][4];
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        DBT_UNROLL
        for (int t = 0; t < keys; t++) sums[r][t] = vdupq_n_f32(0.0f);
    }
    int64_t d = 0;
    for (; d + 4 <= dim; d += 4) {
        float32x4_t key[4];
        DBT_UNROLL
        for (int t = 0; t < keys; t++) key[t] = vld1q_f32(k + t * k_stride + d);
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            const float32x4_t query = vld1q_f32(q + r * dim + d);
            DBT_UNROLL
            for (int t = 0; t < keys; t++) sums[r][t] = vfmaq_f32(sums[r][t], query, key[t]);
        }
    }
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        DBT_UNROLL
        for (int t = 0; t < keys; t++) {
            float sum = vaddvq_f32(sums[r][t]);
            for (int64_t e = d; e < dim; e++) sum += q[r * dim + e] * k[t * k_stride + e];
            x[r * DBT_ATTENTION_TILE + t] = sum;
        }
    }
}

static void scores(const float *q, const float *k, int64_t k_stride, int64_t rows, int64_t keys,
                   int64_t dim, float *x) {
    int64_t t = 0;
    for (; t + 4 <= keys; t += 4) {
        const float *const at = k + t * k_stride;
        int64_t r = 0;
        for (; r + ROWS <= rows; r += ROWS)
            scores_block(q + r * dim, at, k_stride, ROWS, 4, dim, x + r * DBT_ATTENTION_TILE + t);
        for (; r < rows; r++)
            scores_block(q + r * dim, at, k_stride, 1, 4, dim, x + r * DBT_ATTENTION_TILE + t);
    }
    for (; t < keys; t++) {
        for (int64_t r = 0; r < rows; r++) {
            scores_block(q + r * dim, k + t * k_stride, k_stride, 1, 1, dim,
                         x + r * DBT_ATTENTION_TILE + t);
        }
    }
}

/* `rows` (1 or ROWS) queries, `vectors` (1 or 4) times 4 elements. */
static DBT_ALWAYS_INLINE void accumulate_block(const float *x, const float *v, int64_t v_stride,
                                               const int rows, const int vectors, int64_t keys,
                                               int64_t dim, float *acc) {
    float32x4_t sums[ROWS][4];
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        DBT_UNROLL
        for (int i = 0; i < vectors; i++) sums[r][i] = vld1q_f32(acc + r * dim + 4 * i);
    }
    for (int64_t t = 0; t < keys; t++) {
        float32x4_t value[4];
        DBT_UNROLL
        for (int i = 0; i < vectors; i++) value[i] = vld1q_f32(v + t * v_stride + 4 * i);
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            const float p = x[r * DBT_ATTENTION_TILE + t];
            DBT_UNROLL
            for (int i = 0; i < vectors; i++) sums[r][i] = vfmaq_n_f32(sums[r][i], value[i], p);
        }
    }
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        DBT_UNROLL
        for (int i = 0; i < vectors; i++) vst1q_f32(acc + r * dim + 4 * i, sums[r][i]);
    }
}

static DBT_ALWAYS_INLINE void accumulate_rows(const float *x, const float *v, int64_t v_stride,
                                              const int rows, int64_t keys, int64_t dim,
                                              float *acc) {
    int64_t d = 0;
    for (; d + 16 <= dim; d += 16)
        accumulate_block(x, v + d, v_stride, rows, 4, keys, dim, acc + d);
    for (; d + 4 <= dim; d += 4) accumulate_block(x, v + d, v_stride, rows, 1, keys, dim, acc + d);
    for (int64_t t = 0; t < keys && d < dim; t++) {
        for (int r = 0; r < rows; r++) {
            const float p = x[r * DBT_ATTENTION_TILE + t];
            for (int64_t e = d; e < dim; e++) acc[r * dim + e] += p * v[t * v_stride + e];
        }
    }
}

static void accumulate(const float *x, const float *v, int64_t v_stride, int64_t rows, int64_t keys,
                       int64_t dim, float *acc) {
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        accumulate_rows(x + r * DBT_ATTENTION_TILE, v, v_stride, ROWS, keys, dim, acc + r * dim);
    for (; r < rows; r++)
        accumulate_rows(x + r * DBT_ATTENTION_TILE, v, v_stride, 1, keys, dim, acc + r * dim);
}

/* dbt_expf in vectors, for x <= 0 (or NaN): below -87 the result is 0. */
static DBT_ALWAYS_INLINE float32x4_t exp4(float32x4_t x) {
    const float32x4_t magic = vdupq_n_f32(0x1.8p23f);
    const float32x4_t shifted = vfmaq_n_f32(magic, x, 1.44269504088896341f);
    const float32x4_t n = vsubq_f32(shifted, magic);
    const float32x4_t r = vfmaq_n_f32(vfmaq_n_f32(x, n, -0.693359375f), n, 2.12194440e-4f);
    static const float c[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                              1.6666665459e-1f, 5.0000001201e-1f};
    float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
    DBT_UNROLL
    for (int i = 0; i < 5; i++) p = vfmaq_f32(vdupq_n_f32(c[i]), p, r);
    p = vaddq_f32(vfmaq_f32(r, p, vmulq_f32(r, r)), vdupq_n_f32(1.0f));
    /* 2^n: n goes into the exponent of p, which is near 1. */
    const int32x4_t scaled =
        vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23));
    const uint32x4_t low = vcltq_f32(x, vdupq_n_f32(-87.0f));
    const uint32x4_t y = vbicq_u32(vreinterpretq_u32_s32(scaled), low);
    return vbslq_f32(vceqq_f32(x, x), vreinterpretq_f32_u32(y), x); /* NaN passes */
}

static float exponentials(float *x, int64_t n, float top) {
    float32x4_t sums = vdupq_n_f32(0.0f);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t e = exp4(vsubq_f32(vld1q_f32(x + i), vdupq_n_f32(top)));
        vst1q_f32(x + i, e);
        sums = vaddq_f32(sums, e);
    }
    float sum = vaddvq_f32(sums);
    for (; i < n; i++) {
        x[i] = dbt_expf(x[i] - top);
        sum += x[i];
    }
    return sum;
}

static void unpack_half(const uint16_t *h, int64_t n, float *x) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(x + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h + i))));
    for (; i < n; i++) x[i] = dbt_half_to_float(h[i]);
}

const dbt_attention_kernel dbt_attention_neon = {.name = "neon",
                                                 .isa = DIBIT_ISA_NEON,
                                                 .scores = scores,
                                                 .accumulate = accumulate,
                                                 .exponentials = exponentials,
                                                 .unpack_half = unpack_half};

/* The loops of attention for AVX2, FMA and F16C: register blocks of 3 queries by 4 keys for scores,
 * of 3 queries by 16 elements for the weighted sum of values. */
#include <immintrin.h>

#include "base/half.h"
#include "base/math.h"
#include "dibit/dibit.h"
#include "ops/attention_core/attention_kernels.h"

#define INLINE static inline __attribute__((always_inline))

/* The sums of four vectors, as one of four. */
INLINE __m128 sum4(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

/* The dots of `rows` (1 to 3) queries with 4 keys; elements past a multiple of 8 one by one. */
INLINE void scores_block(const float *q, const float *k, int64_t k_stride, int rows, int64_t dim,
                         float *x) {
    __m256 acc[3][4];
    for (int r = 0; r < rows; r++) {
        for (int t = 0; t < 4; t++) acc[r][t] = _mm256_setzero_ps();
    }
    int64_t d = 0;
    for (; d + 8 <= dim; d += 8) {
        __m256 key[4];
        for (int t = 0; t < 4; t++) key[t] = _mm256_loadu_ps(k + t * k_stride + d);
        for (int r = 0; r < rows; r++) {
            const __m256 query = _mm256_loadu_ps(q + r * dim + d);
            for (int t = 0; t < 4; t++) acc[r][t] = _mm256_fmadd_ps(query, key[t], acc[r][t]);
        }
    }
    for (int r = 0; r < rows; r++) {
        float sum[4];
        _mm_storeu_ps(sum, sum4(acc[r][0], acc[r][1], acc[r][2], acc[r][3]));
        for (int t = 0; t < 4; t++) {
            for (int64_t e = d; e < dim; e++) sum[t] += q[r * dim + e] * k[t * k_stride + e];
            x[r * DBT_ATTENTION_TILE + t] = sum[t];
        }
    }
}

INLINE void scores_one(const float *q, const float *k, int64_t dim, float *x) {
    __m256 acc = _mm256_setzero_ps();
    int64_t d = 0;
    for (; d + 8 <= dim; d += 8) {
        acc = _mm256_fmadd_ps(_mm256_loadu_ps(q + d), _mm256_loadu_ps(k + d), acc);
    }
    const __m256 zero = _mm256_setzero_ps();
    float sum = _mm_cvtss_f32(sum4(acc, zero, zero, zero));
    for (; d < dim; d++) sum += q[d] * k[d];
    *x = sum;
}

static void scores(const float *q, const float *k, int64_t k_stride, int64_t rows, int64_t keys,
                   int64_t dim, float *x) {
    int64_t t = 0;
    for (; t + 4 <= keys; t += 4) {
        const float *const at = k + t * k_stride;
        int64_t r = 0;
        for (; r + 3 <= rows; r += 3) {
            scores_block(q + r * dim, at, k_stride, 3, dim, x + r * DBT_ATTENTION_TILE + t);
        }
        if (rows - r == 2) {
            scores_block(q + r * dim, at, k_stride, 2, dim, x + r * DBT_ATTENTION_TILE + t);
        } else if (rows - r == 1) {
            scores_block(q + r * dim, at, k_stride, 1, dim, x + r * DBT_ATTENTION_TILE + t);
        }
    }
    for (; t < keys; t++) {
        for (int64_t r = 0; r < rows; r++) {
            scores_one(q + r * dim, k + t * k_stride, dim, x + r * DBT_ATTENTION_TILE + t);
        }
    }
}

/* `rows` (1 to 3) queries, `vectors` (1 or 2) times 8 elements. */
INLINE void accumulate_block(const float *x, const float *v, int64_t v_stride, int rows,
                             int vectors, int64_t keys, int64_t dim, float *acc) {
    __m256 sum[3][2];
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < vectors; i++) sum[r][i] = _mm256_loadu_ps(acc + r * dim + 8 * i);
    }
    for (int64_t t = 0; t < keys; t++) {
        __m256 value[2];
        for (int i = 0; i < vectors; i++) value[i] = _mm256_loadu_ps(v + t * v_stride + 8 * i);
        for (int r = 0; r < rows; r++) {
            const __m256 p = _mm256_broadcast_ss(x + r * DBT_ATTENTION_TILE + t);
            for (int i = 0; i < vectors; i++) sum[r][i] = _mm256_fmadd_ps(p, value[i], sum[r][i]);
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < vectors; i++) _mm256_storeu_ps(acc + r * dim + 8 * i, sum[r][i]);
    }
}

INLINE void accumulate_rows(const float *x, const float *v, int64_t v_stride, int rows,
                            int64_t keys, int64_t dim, float *acc) {
    int64_t d = 0;
    for (; d + 16 <= dim; d += 16) {
        accumulate_block(x, v + d, v_stride, rows, 2, keys, dim, acc + d);
    }
    for (; d + 8 <= dim; d += 8) {
        accumulate_block(x, v + d, v_stride, rows, 1, keys, dim, acc + d);
    }
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
    for (; r + 3 <= rows; r += 3) {
        accumulate_rows(x + r * DBT_ATTENTION_TILE, v, v_stride, 3, keys, dim, acc + r * dim);
    }
    for (; r < rows; r++) {
        accumulate_rows(x + r * DBT_ATTENTION_TILE, v, v_stride, 1, keys, dim, acc + r * dim);
    }
}

/* dbt_expf in vectors, for x <= 0 (or NaN): below -87 the result is 0. */
INLINE __m256 exp8(__m256 x) {
    const __m256 magic = _mm256_set1_ps(0x1.8p23f);
    const __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(1.44269504088896341f), magic);
    const __m256 n = _mm256_sub_ps(shifted, magic);
    const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f),
                                      _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x));
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
    /* 2^n: n goes into the exponent of p, which is near 1. */
    const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p),
                                            _mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
    const __m256 low = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_LT_OQ);
    const __m256 y = _mm256_andnot_ps(low, _mm256_castsi256_ps(scaled));
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)); /* NaN passes */
}

static float exponentials(float *x, int64_t n, float top) {
    const __m256 tops = _mm256_set1_ps(top);
    __m256 sums = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), tops));
        _mm256_storeu_ps(x + i, e);
        sums = _mm256_add_ps(sums, e);
    }
    const __m256 zero = _mm256_setzero_ps();
    float sum = _mm_cvtss_f32(sum4(sums, zero, zero, zero));
    for (; i < n; i++) {
        x[i] = dbt_expf(x[i] - top);
        sum += x[i];
    }
    return sum;
}

static void unpack_half(const uint16_t *h, int64_t n, float *x) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i half = _mm_loadu_si128((const __m128i *)(const void *)(h + i));
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(half));
    }
    for (; i < n; i++) x[i] = dbt_half_to_float(h[i]);
}

const dbt_attention_kernel dbt_attention_avx2 = {.name = "avx2",
                                                 .isa = DIBIT_ISA_AVX2,
                                                 .scores = scores,
                                                 .accumulate = accumulate,
                                                 .exponentials = exponentials,
                                                 .unpack_half = unpack_half};

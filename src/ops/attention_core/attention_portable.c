/* The loops of attention in plain C, in a shape that compilers turn into SIMD code. */
#include "base/half.h"
#include "base/math.h"
#include "ops/attention_core/attention_kernels.h"

enum { LANES = 8 };

static float dot(const float *a, const float *b, int64_t n) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) lanes[l] += a[i + l] * b[i + l];
    }
    for (int l = 0; i + l < n; l++) lanes[l] += a[i + l] * b[i + l];
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
           ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

static void scores(const float *q, const float *k, int64_t k_stride, int64_t rows, int64_t keys,
                   int64_t dim, float *x) {
    for (int64_t t = 0; t < keys; t++) {
        for (int64_t r = 0; r < rows; r++) {
            x[r * DBT_ATTENTION_TILE + t] = dot(q + r * dim, k + t * k_stride, dim);
        }
    }
}

static void accumulate(const float *x, const float *v, int64_t v_stride, int64_t rows, int64_t keys,
                       int64_t dim, float *acc) {
    for (int64_t t = 0; t < keys; t++) {
        for (int64_t r = 0; r < rows; r++) {
            const float p = x[r * DBT_ATTENTION_TILE + t];
            for (int64_t d = 0; d < dim; d++) acc[r * dim + d] += p * v[t * v_stride + d];
        }
    }
}

static float exponentials(float *x, int64_t n, float top) {
    for (int64_t i = 0; i < n; i++) x[i] = dbt_expf(x[i] - top);
    return dbt_sum(x, n);
}

static void unpack_half(const uint16_t *h, int64_t n, float *x) {
    for (int64_t i = 0; i < n; i++) x[i] = dbt_half_to_float(h[i]);
}

const dbt_attention_kernel dbt_attention_portable = {.name = "portable",
                                                     .scores = scores,
                                                     .accumulate = accumulate,
                                                     .exponentials = exponentials,
                                                     .unpack_half = unpack_half};

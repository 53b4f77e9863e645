/* MatMulNBits as its contract says it, one element after the other: the definition of correct. */
#include "ops/matmul_nbits/matmul_nbits.h"

#include <math.h>

static double zero_point(const dbt_matmul_nbits *p, int64_t n, int64_t g) {
    if (p->zero_point_type == DIBIT_TYPE_UNDEFINED) return (double)(1u << (p->bits - 1));
    if (p->zero_point_type != DIBIT_TYPE_UINT8) {
        return (double)dbt_float_at(p->zero_points, p->zero_point_type, n * p->k_blocks + g);
    }
    const uint8_t *const row = (const uint8_t *)p->zero_points + n * dbt_nbits_zero_row_bytes(p);
    return (double)dbt_code_at(row, p->bits, g);
}

static double weight(const dbt_matmul_nbits *p, int64_t n, int64_t k) {
    const int64_t g = p->g_idx ? p->g_idx[k] : k / p->block_size;
    const uint32_t code = dbt_code_at(p->b + n * dbt_nbits_row_bytes(p), p->bits, k);
    const double scale = (double)dbt_float_at(p->scales, p->scale_type, n * p->k_blocks + g);
    return ((double)code - zero_point(p, n, g)) * scale;
}

/* Adds elements [k, k + count) of row m; a holds them as the activations' mode has them. */
static void add_elements(const dbt_matmul_nbits *p, int64_t m, int64_t k, int64_t count,
                         const double *a, double *y, double *s) {
    for (int64_t n = 0; n < p->N; n++) {
        for (int64_t i = 0; i < count; i++) {
            const double term = a[i] * weight(p, n, k + i);
            y[m * p->N + n] += term;
            if (s) s[m * p->N + n] += fabs(term);
        }
    }
}

void dbt_matmul_nbits_ref(const dbt_matmul_nbits *p, double *y, double *s) {
    for (int64_t m = 0; m < p->M; m++) {
        for (int64_t n = 0; n < p->N; n++) {
            const double bias = p->bias ? (double)p->bias[n] : 0.0;
            y[m * p->N + n] = bias;
            if (s) s[m * p->N + n] = fabs(bias);
        }
        for (int64_t begin = 0; begin < p->K; begin += p->block_size) {
            const int64_t rest = p->K - begin,
                          end = begin + (rest < p->block_size ? rest : p->block_size);
            const float *const row = p->a + m * p->K;
            float scale = 1.0f, inverse = 0.0f;
            if (p->int8_activations)
                inverse = dbt_nbits_int8_scale(row + begin, end - begin, &scale);
            double a[256];
            for (int64_t k = begin; k < end; k += 256) {
                const int64_t count = end - k < 256 ? end - k : 256;
                for (int64_t i = 0; i < count; i++) {
                    a[i] = (double)row[k + i];
                    if (p->int8_activations) {
                        const float q = inverse > 0.0f ? nearbyintf(row[k + i] * inverse) : 0.0f;
                        a[i] = (double)scale * (double)q;
                    }
                }
                add_elements(p, m, k, count, a, y, s);
            }
        }
    }
}

double dbt_nbits_gamma(const dbt_matmul_nbits *p) {
    /* K products and sums, and for each block's term: scale, zero point, s, and their product. */
    const double n = (double)p->K + 8.0, u = 0x1p-24;
    return n * u < 0.5 ? n * u / (1.0 - n * u) : 1.0;
}

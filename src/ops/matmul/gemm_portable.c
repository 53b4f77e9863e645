/* Float matrix products in plain C, with inner loops over columns that compilers vectorise. */
#include "ops/matmul/gemm_kernels.h"

enum { COLUMNS = 64 };

void dbt_gemm_portable_few_rows(const dbt_gemm_part *part) {
    const dbt_gemm *const g = part->g;
    for (int64_t n = part->n_begin; n < part->n_end; n += COLUMNS) {
        const int64_t columns = part->n_end - n < COLUMNS ? part->n_end - n : COLUMNS;
        float sums[GEMM_FEW_ROWS][COLUMNS] = {{0}};
        for (int64_t k = 0; k < g->K; k++) {
            float b[COLUMNS];
            for (int64_t i = 0; i < columns; i++)
                b[i] = dbt_float_at(part->b, g->b_type, k * g->b_k + n + i);
            for (int64_t m = part->m_begin; m < part->m_end; m++) {
                const float a = part->a[m * g->a_m + k * g->a_k];
                float *const sum = sums[m - part->m_begin];
                for (int64_t i = 0; i < columns; i++) sum[i] += a * b[i];
            }
        }
        for (int64_t m = part->m_begin; m < part->m_end; m++) {
            memcpy(part->y + m * g->N + n, sums[m - part->m_begin],
                   (size_t)columns * sizeof(float));
        }
    }
}

void dbt_gemm_portable_few_rows_transposed(const dbt_gemm_part *part) {
    const dbt_gemm *const g = part->g;
    for (int64_t n = part->n_begin; n < part->n_end; n++) {
        const uint8_t *const b = part->b + n * g->b_n * 4;
        for (int64_t m = part->m_begin; m < part->m_end; m++) {
            const float *const a = part->a + m * g->a_m;
            float lanes[16] = {0};
            int64_t k = 0;
            for (; k + 16 <= g->K; k += 16) {
                float v[16];
                memcpy(v, b + k * 4, sizeof v);
                for (int i = 0; i < 16; i++) lanes[i] += a[k + i] * v[i];
            }
            for (int i = 0; k + i < g->K; i++)
                lanes[i] += a[k + i] * dbt_float_at(b, DIBIT_TYPE_FLOAT, k + i);
            for (int width = 8; width > 0; width /= 2) {
                for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
            }
            part->y[m * g->N + n] = lanes[0];
        }
    }
}

void dbt_gemm_portable_pack(const dbt_gemm_part *part, int64_t k, int64_t n_k, int64_t n,
                            float *panel) {
    const dbt_gemm *const g = part->g;
    for (int64_t s = 0; s < GEMM_N; s += GEMM_STRIP, panel += n_k * GEMM_STRIP) {
        const int64_t left = part->n_end - n - s, columns = left < GEMM_STRIP ? left : GEMM_STRIP;
        if (columns <= 0) return;
        for (int64_t i = 0; i < n_k; i++) {
            float *const row = panel + i * GEMM_STRIP;
            const int64_t at = (k + i) * g->b_k + (n + s) * g->b_n;
            for (int64_t j = 0; j < columns; j++)
                row[j] = dbt_float_at(part->b, g->b_type, at + j * g->b_n);
            for (int64_t j = columns; j < GEMM_STRIP; j++) row[j] = 0.0f;
        }
    }
}

void dbt_gemm_portable_strip(const dbt_gemm *g, const float *a, int64_t rows, int64_t n_k,
                             const float *strip, float *y, int64_t columns, bool first) {
    for (int64_t m = 0; m < rows; m++) {
        float sums[GEMM_STRIP] = {0};
        for (int64_t k = 0; k < n_k; k++) {
            const float v = a[m * g->a_m + k * g->a_k];
            for (int i = 0; i < GEMM_STRIP; i++) sums[i] += v * strip[k * GEMM_STRIP + i];
        }
        for (int64_t i = 0; i < columns; i++) {
            y[m * g->N + i] = first ? sums[i] : y[m * g->N + i] + sums[i];
        }
    }
}

/* Float matrix products with AVX2, FMA and F16C. */
#include <immintrin.h>

#include "ops/matmul/gemm_kernels.h"

static inline __m256i first_lanes(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n < 8 ? n : 8)), lane);
}

static inline float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* 8 elements at any address. */
static inline __m256 load8(const uint8_t *b, dibit_type type) {
    if (type == DIBIT_TYPE_FLOAT) return _mm256_loadu_ps((const float *)(const void *)b);
    const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)b);
    if (type == DIBIT_TYPE_FLOAT16) return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* ---- Few rows: long runs of B's rows, four at a time, add to sums that stay in the first cache ---- */

enum { RUN = 512 };

/* Adds a[r] * b[r] of n_rows rows to sums, a row after the other. */
static inline void add_rows(const uint8_t *const b[4], const int n_rows, dibit_type type,
                            int64_t columns, const float a[4], float *sums) {
    const int64_t size = type == DIBIT_TYPE_FLOAT ? 4 : 2;
    __m256 v[4];
    for (int r = 0; r < n_rows; r++) v[r] = _mm256_set1_ps(a[r]);
    int64_t i = 0;
    for (; i + 8 <= columns; i += 8) {
        __m256 sum = _mm256_load_ps(sums + i);
        for (int r = 0; r < n_rows; r++)
            sum = _mm256_fmadd_ps(v[r], load8(b[r] + i * size, type), sum);
        _mm256_store_ps(sums + i, sum);
    }
    for (; i < columns; i++) {
        for (int r = 0; r < n_rows; r++)
            sums[i] = __builtin_fmaf(a[r], dbt_float_at(b[r], type, i), sums[i]);
    }
}

static inline void few_rows(const dbt_gemm_part *part, const dibit_type type) {
    const dbt_gemm *const g = part->g;
    const int64_t size = type == DIBIT_TYPE_FLOAT ? 4 : 2;
    for (int64_t n = part->n_begin; n < part->n_end; n += RUN) {
        const int64_t columns = part->n_end - n < RUN ? part->n_end - n : RUN;
        _Alignas(32) float sums[GEMM_FEW_ROWS][RUN];
        memset(sums, 0, sizeof sums);
        for (int64_t k = 0, n_rows; k < g->K; k += n_rows) {
            n_rows = g->K - k >= 4 ? 4 : 1;
            const uint8_t *b[4];
            for (int64_t r = 0; r < n_rows; r++) b[r] = part->b + ((k + r) * g->b_k + n) * size;
            for (int64_t m = part->m_begin; m < part->m_end; m++) {
                float a[4];
                for (int64_t r = 0; r < n_rows; r++) a[r] = part->a[m * g->a_m + (k + r) * g->a_k];
                if (n_rows == 4) {
                    add_rows(b, 4, type, columns, a, sums[m - part->m_begin]);
                } else {
                    add_rows(b, 1, type, columns, a, sums[m - part->m_begin]);
                }
            }
        }
        for (int64_t m = part->m_begin; m < part->m_end; m++) {
            memcpy(part->y + m * g->N + n, sums[m - part->m_begin],
                   (size_t)columns * sizeof(float));
        }
    }
}

void dbt_gemm_avx2_few_rows(const dbt_gemm_part *part) {
    if (part->g->b_type == DIBIT_TYPE_FLOAT) {
        few_rows(part, DIBIT_TYPE_FLOAT);
    } else if (part->g->b_type == DIBIT_TYPE_FLOAT16) {
        few_rows(part, DIBIT_TYPE_FLOAT16);
    } else {
        few_rows(part, DIBIT_TYPE_BFLOAT16);
    }
}

void dbt_gemm_avx2_few_rows_transposed(const dbt_gemm_part *part) {
    const dbt_gemm *const g = part->g;
    for (int64_t n = part->n_begin; n < part->n_end; n++) {
        const float *const b = (const float *)(const void *)part->b + n * g->b_n;
        for (int64_t m = part->m_begin; m < part->m_end; m++) {
            const float *const a = part->a + m * g->a_m;
            __m256 even = _mm256_setzero_ps(), odd = even;
            int64_t k = 0;
            for (; k + 16 <= g->K; k += 16) {
                even = _mm256_fmadd_ps(_mm256_loadu_ps(a + k), _mm256_loadu_ps(b + k), even);
                odd = _mm256_fmadd_ps(_mm256_loadu_ps(a + k + 8), _mm256_loadu_ps(b + k + 8), odd);
            }
            for (; k < g->K; k += 8) {
                const __m256i valid = first_lanes(g->K - k);
                even = _mm256_fmadd_ps(_mm256_maskload_ps(a + k, valid),
                                       _mm256_maskload_ps(b + k, valid), even);
            }
            part->y[m * g->N + n] = sum8(_mm256_add_ps(even, odd));
        }
    }
}

/* ---- Many rows ---- */

void dbt_gemm_avx2_pack(const dbt_gemm_part *part, int64_t k, int64_t n_k, int64_t n,
                        float *panel) {
    const dbt_gemm *const g = part->g;
    const bool whole = part->n_end - n >= GEMM_N;
    if (g->b_n != 1 || g->b_type == DIBIT_TYPE_DOUBLE || !whole) {
        dbt_gemm_portable_pack(part, k, n_k, n, panel);
        return;
    }
    const int64_t size = g->b_type == DIBIT_TYPE_FLOAT ? 4 : 2;
    for (int64_t i = 0; i < n_k; i++) {
        const uint8_t *const row = part->b + ((k + i) * g->b_k + n) * size;
        for (int s = 0; s < GEMM_N / GEMM_STRIP; s++) {
            float *const out = panel + (s * n_k + i) * GEMM_STRIP;
            _mm256_store_ps(out, load8(row + s * GEMM_STRIP * size, g->b_type));
            _mm256_store_ps(out + 8, load8(row + (s * GEMM_STRIP + 8) * size, g->b_type));
        }
    }
}

static inline void strip_rows(const dbt_gemm *g, const float *a, const int rows, int64_t n_k,
                              const float *strip, float *y, int64_t columns, bool first) {
    __m256 sums[6][2];
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    for (int64_t k = 0; k < n_k; k++) {
        const __m256 b0 = _mm256_load_ps(strip + k * GEMM_STRIP),
                     b1 = _mm256_load_ps(strip + k * GEMM_STRIP + 8);
        for (int r = 0; r < rows; r++) {
            const __m256 v = _mm256_broadcast_ss(a + r * g->a_m + k * g->a_k);
            sums[r][0] = _mm256_fmadd_ps(v, b0, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(v, b1, sums[r][1]);
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int h = 0; h < 2; h++) {
            const __m256i valid = first_lanes(columns - 8 * h);
            float *const at = y + r * g->N + 8 * h;
            if (columns <= 8 * h) continue;
            const __m256 sum =
                first ? sums[r][h] : _mm256_add_ps(_mm256_maskload_ps(at, valid), sums[r][h]);
            _mm256_maskstore_ps(at, valid, sum);
        }
    }
}

void dbt_gemm_avx2_strip(const dbt_gemm *g, const float *a, int64_t rows, int64_t n_k,
                         const float *strip, float *y, int64_t columns, bool first) {
    for (; rows >= 6; rows -= 6, a += 6 * g->a_m, y += 6 * g->N)
        strip_rows(g, a, 6, n_k, strip, y, columns, first);
    switch (rows) {
    case 5: strip_rows(g, a, 5, n_k, strip, y, columns, first); return;
    case 4: strip_rows(g, a, 4, n_k, strip, y, columns, first); return;
    case 3: strip_rows(g, a, 3, n_k, strip, y, columns, first); return;
    case 2: strip_rows(g, a, 2, n_k, strip, y, columns, first); return;
    case 1: strip_rows(g, a, 1, n_k, strip, y, columns, first); return;
    default: return;
    }
}

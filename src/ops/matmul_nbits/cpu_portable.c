/* MatMulNBits in plain C, shaped so that compilers vectorise the inner loops: a row of B is unpacked
 * once, to bytes or to floats, and then meets every row of A. */
#include "ops/matmul_nbits/cpu_kernels.h"

/* Codes minus `offset` into out: as bytes they have to fit int8, so 8-bit codes lose 128. Writes a
 * multiple of 8 codes, none of which needs bytes past the row. */
static inline void unpack_codes(const uint8_t *b, int64_t n, uint32_t bits, int8_t *out) {
    const uint64_t mask = (1u << bits) - 1;
    const int offset = bits == 8 ? 128 : 0;
    for (int64_t i = 0; i < n; i += 8, b += bits) {
        uint64_t word = 0;
        for (uint32_t j = 0; j < bits; j++) word |= (uint64_t)b[j] << (8 * j);
        for (uint32_t j = 0; j < 8; j++) {
            out[i + j] = (int8_t)((int)(word >> (bits * j) & mask) - offset);
        }
    }
}

static inline int32_t dot_int8(const int8_t *a, const int8_t *b, int64_t n) {
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (int32_t)a[i] * (int32_t)b[i];
    return sum;
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline float int8_element(const dbt_nbits_task *t, int64_t m, int32_t offset) {
    const dbt_matmul_nbits *const p = t->p;
    const dbt_nbits_activations *const act = t->activations;
    const int8_t *const q = act->q + m * act->row_bytes, *const codes = t->rows;
    const float *const a_scale = act->scale + m * act->blocks_stride;
    const int32_t *const a_sum = act->sum + m * act->blocks_stride;
    const bool float_zero_points = dbt_nbits_float_zero_points(p);
    float y = 0.0f;
    for (int64_t g = 0; g < p->k_blocks; g++) {
        const int64_t k = g * p->block_size;
        const int32_t dot = dot_int8(q + k, codes + k, least(p->block_size, p->K - k));
        float term;
        if (float_zero_points) {
            /* In double, since the two parts may cancel. */
            const double zero_point = (double)((const float *)t->zero_points)[g] - offset;
            term = (float)((double)dot - zero_point * (double)a_sum[g]);
        } else {
            const int32_t zero_point = ((const int32_t *)t->zero_points)[g] - offset;
            term = (float)(dot - zero_point * a_sum[g]);
        }
        y += a_scale[g] * t->scales[g] * term;
    }
    return y;
}

static inline void run_int8(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    for (int64_t n = t->n_begin; n < t->n_end; n++) {
        unpack_codes(p->b + n * dbt_nbits_row_bytes(p), p->K, bits, t->rows);
        dbt_nbits_decode_blocks(p, n, t->scales, t->zero_points);
        const float bias = p->bias ? p->bias[n] : 0.0f;
        for (int64_t m = t->m_begin; m < t->m_end; m++) {
            p->y[m * p->N + n] = int8_element(t, m, bits == 8 ? 128 : 0) + bias;
        }
    }
}

/* (code - zero point) * scale of a row. */
static inline void unpack_floats(const dbt_nbits_task *t, const uint8_t *b, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const float *const zero_points = t->zero_points;
    float *const w = t->rows;
    for (int64_t k = 0; k < p->K; k += 64, b += 8 * bits) {
        const int64_t count = least(64, p->K - k);
        int8_t codes[64];
        unpack_codes(b, count, bits, codes);
        if (p->g_idx) {
            for (int64_t i = 0; i < count; i++) {
                const int32_t g = p->g_idx[k + i];
                w[k + i] =
                    ((float)(codes[i] + (bits == 8 ? 128 : 0)) - zero_points[g]) * t->scales[g];
            }
            continue;
        }
        for (int64_t i = 0; i < count;) {
            const int64_t g = (k + i) / p->block_size;
            const int64_t end = least(count, (g + 1) * p->block_size - k);
            const float zero_point = zero_points[g], scale = t->scales[g];
            for (; i < end; i++) {
                w[k + i] = ((float)(codes[i] + (bits == 8 ? 128 : 0)) - zero_point) * scale;
            }
        }
    }
}

static inline float dot_float(const float *a, const float *w, int64_t n) {
    float lanes[16] = {0};
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) {
        for (int j = 0; j < 16; j++) lanes[j] += a[k + j] * w[k + j];
    }
    for (int j = 0; k + j < n; j++) lanes[j] += a[k + j] * w[k + j];
    for (int width = 8; width > 0; width /= 2) {
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
    }
    return lanes[0];
}

static inline void run_float(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    for (int64_t n = t->n_begin; n < t->n_end; n++) {
        dbt_nbits_decode_blocks(p, n, t->scales, t->zero_points);
        unpack_floats(t, p->b + n * dbt_nbits_row_bytes(p), bits);
        const float bias = p->bias ? p->bias[n] : 0.0f;
        for (int64_t m = t->m_begin; m < t->m_end; m++) {
            p->y[m * p->N + n] = dot_float(p->a + m * p->K, t->rows, p->K) + bias;
        }
    }
}

#define SUFFIX portable
#define FORMS(RUN) RUN(int8) RUN(float)
#include "ops/matmul_nbits/cpu_widths_tmpl.h"

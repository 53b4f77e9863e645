/* MatMulNBits with int8 activations on Arm: one source for plain NEON, dot products and matrix products.
 *
 * Strips of LANES rows of B (cpu_strip_tmpl.h): of a word, a shift and a mask leave 4 codes of each row,
 * a byte each, which are what a dot product takes. At 2 and 4 bits they are not neighbours, and A comes in
 * their order (DBT_NBITS_PLANES(4, 4) and (4, 2)); at 8 bits they are, and elsewhere 4 neighbours are spread. Sums
 * of a block are exact; then zero points and scales come, for LANES rows at once.
 *
 * More rows of A than MANY_ROWS: the strip's codes are unpacked once, [K / 4][LANES][4] bytes.
 *
 * The file defines int8_sums, of FEW_ROWS or MANY_ROWS rows of A; add_codes, of 16 codes of each row;
 * and dots_of, a row's sums. */
#include "ops/matmul_nbits/cpu_strip_tmpl.h"

/* Codes 4 * i to 4 * i + 3 of a unit, or what stands in A's order in their place; 8 bits minus 128. */
static DBT_ALWAYS_INLINE vu four_codes(const vu *words, const int i, const uint32_t bits) {
    const vu mask = (vu){0} + ((1u << bits) - 1) * 0x01010101u;
    if (bits == 8) return words[i] ^ 0x80808080u;
    if (bits == 4) return words[i / 2] >> (i % 2 * 4) & mask;
    if (bits == 2) return words[i / 4] >> (i % 4 * 2) & mask;
    const uint32x4_t v = (uint32x4_t)code_of(words, i, 4 * bits);
    const uint32x4_t pairs =
        vbslq_u32(vdupq_n_u32(0xffff), v, (uint32x4_t)((vu)v << (16 - 2 * bits)));
    return (vu)vbslq_u32(vdupq_n_u32(0xff00ff), pairs, (uint32x4_t)((vu)pairs << (8 - bits))) &
           mask;
}

/* The first or the second 16 codes of each row of a unit. */
static DBT_ALWAYS_INLINE void half_of_codes(const vu *words, bool second, vu out[4],
                                            const uint32_t bits) {
    if (second) {
        DBT_UNROLL
        for (int i = 0; i < 4; i++) out[i] = four_codes(words, 4 + i, bits);
    } else {
        DBT_UNROLL
        for (int i = 0; i < 4; i++) out[i] = four_codes(words, i, bits);
    }
}

/* dot - zero_point * sum_a, of a block of LANES rows. */
static DBT_ALWAYS_INLINE float32x4_t apply_zero_points(int32x4_t dots, float32x4_t zero_points,
                                                       int32_t a_sum, const int offset,
                                                       bool floats) {
    if (!floats) {
        const int32x4_t z = vsubq_s32(vcvtq_s32_f32(zero_points), vdupq_n_s32(offset));
        return vcvtq_f32_s32(vmlsq_n_s32(dots, z, a_sum));
    }
    /* In double, since the two parts may cancel. */
    const float64x2_t sum = vdupq_n_f64(a_sum), down = vdupq_n_f64(offset);
    const float64x2_t low = vsubq_f64(vcvt_f64_f32(vget_low_f32(zero_points)), down),
                      high = vsubq_f64(vcvt_high_f64_f32(zero_points), down);
    const float64x2_t dots_low = vcvtq_f64_s64(vmovl_s32(vget_low_s32(dots))),
                      dots_high = vcvtq_f64_s64(vmovl_high_s32(dots));
    return vcombine_f32(vcvt_f32_f64(vfmsq_f64(dots_low, low, sum)),
                        vcvt_f32_f64(vfmsq_f64(dots_high, high, sum)));
}

/* A strip and what is known of it. */
typedef struct int8_strip {
    strip codes;
    int64_t n;
    const float *scales, *zero_points; /* [blocks_stride][LANES] */
    const vu *unpacked;                /* [row_stride / 4], or NULL */
} int8_strip;

/* Elements [m, m + rows) of the strip's columns of Y. `only` 1: row m alone, which stands for all. */
static DBT_ALWAYS_INLINE void int8_rows(const dbt_nbits_task *t, const int8_strip *b, int64_t m,
                                        const bool only, const int rows, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const dbt_nbits_activations *const act = t->activations;
    const int64_t a_stride = only ? 0 : act->row_bytes,
                  blocks_stride = only ? 0 : act->blocks_stride;
    const int8_t *const a = act->q + m * act->row_bytes;
    const bool floats = dbt_nbits_float_zero_points(p);
    vu words[CHUNK / 32 * 8];
    float32x4_t y[MANY_ROWS];
    int8_sums sums = {0};
    for (int r = 0; r < rows; r++) y[r] = vdupq_n_f32(0.0f);
    for (int64_t g = 0, k = 0; g < p->k_blocks; g++) {
        const int64_t end = least((g + 1) * p->block_size, p->K);
        for (; k < end; k += HALF) {
            vu codes[4];
            if (b->unpacked) {
                memcpy(codes, b->unpacked + k / 4, sizeof codes);
            } else {
                if (k % CHUNK == 0)
                    load_words(&b->codes, k / 8 * bits, CHUNK / 8 * (int64_t)bits, words);
                half_of_codes(words + k % CHUNK / UNIT * bits, k % UNIT != 0, codes, bits);
            }
            add_codes(&sums, codes, a + k, a_stride, rows);
        }
        const float32x4_t scale = vld1q_f32(b->scales + g * LANES),
                          zero_points = vld1q_f32(b->zero_points + g * LANES);
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            const int64_t at = m * act->blocks_stride + r * blocks_stride + g;
            const float32x4_t term = apply_zero_points(dots_of(&sums, r), zero_points, act->sum[at],
                                                       bits == 8 ? 128 : 0, floats);
            y[r] = vfmaq_f32(y[r], vmulq_n_f32(scale, act->scale[at]), term);
        }
        sums = (int8_sums){0};
    }
    for (int r = 0; r < rows && !(only && r > 0); r++) {
        for (int64_t i = 0; i < b->codes.count; i++) {
            const int64_t n = b->n + i;
            p->y[(m + r) * p->N + n] = ((const float *)&y[r])[i] + (p->bias ? p->bias[n] : 0.0f);
        }
    }
}

static DBT_ALWAYS_INLINE void unpack_codes(const strip *b, int64_t K, vu *out,
                                           const uint32_t bits) {
    vu words[CHUNK / 32 * 8];
    for (int64_t k = 0; k < K; k += HALF, out += 4) {
        if (k % CHUNK == 0) load_words(b, k / 8 * bits, CHUNK / 8 * (int64_t)bits, words);
        half_of_codes(words + k % CHUNK / UNIT * bits, k % UNIT != 0, out, bits);
    }
}

static DBT_ALWAYS_INLINE void run_int8(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    for (int64_t n = t->n_begin; n < t->n_end; n += LANES) {
        int8_strip b = {.codes = strip_of(p->b, dbt_nbits_row_bytes(p), n, p->N),
                        .n = n,
                        .scales = t->scales,
                        .zero_points = t->zero_points};
        decode_strip(t, n, t->scales, t->zero_points);
        if (t->m_end - t->m_begin > MANY_ROWS) {
            unpack_codes(&b.codes, p->K, t->rows, bits);
            b.unpacked = t->rows;
        }
        for (int64_t m = t->m_begin; m < t->m_end;) {
            if (t->m_end - m >= MANY_ROWS) {
                int8_rows(t, &b, m, false, MANY_ROWS, bits);
                m += MANY_ROWS;
            } else {
                const int64_t n_rows = least(FEW_ROWS, t->m_end - m);
                int8_rows(t, &b, m, n_rows < FEW_ROWS, FEW_ROWS, bits);
                m += n_rows;
            }
        }
    }
}

#define FORMS(RUN) RUN(int8)
#include "ops/matmul_nbits/cpu_widths_tmpl.h"

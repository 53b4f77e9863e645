/* MatMulNBits with float activations: one source for every instruction set, included by a file that defines
 * its vectors and then the kernels' SUFFIX.
 *
 * FEW ROWS OF A (matvec): codes of a strip (cpu_strip_tmpl.h) meet broadcast elements of A in registers;
 * scales come once a block.
 * MANY ROWS, or g_idx (tile): strips become floats, [k][LANES] of a part of K, which stay in the first
 * cache while all rows of A meet them.
 *
 * The file defines what cpu_strip_tmpl.h asks for; STRIPS and ROWS, the tile that fits its registers; and
 * multiply_add(a, b, c) = a * b + c, rounded once. */
#include "ops/matmul_nbits/cpu_strip_tmpl.h"

enum { PANEL_K = 192 /* rows of panels */, MATVEC_ROWS = 4 };

/* The first `count` of LANES floats at any address. */
typedef vf vf_anywhere __attribute__((aligned(4)));
static inline vf load_some(const float *at, int64_t count) {
    if (count >= LANES) return *(const vf_anywhere *)(const void *)at;
    vf v = {0};
    memcpy(&v, at, (size_t)count * sizeof *at);
    return v;
}

static inline void store_some(float *at, vf v, int64_t count) {
    if (count >= LANES) {
        *(vf_anywhere *)(void *)at = v;
    } else {
        memcpy(at, &v, (size_t)count * sizeof *at);
    }
}

/* ---- Few rows of A ---- */

/* Sums of products of a block so far; several of a row, since each waits for the one before. */
typedef struct block_sums {
    vf of[MATVEC_ROWS][4];
} block_sums;

/* Adds codes [16 * half, 16 * half + 16) of a unit times a[r][...]. With g_idx codes are scaled here, by the
 * scales and zero points of the blocks that it names. */
static DBT_ALWAYS_INLINE void add_half(const vu *words, const int half, const float *zero_points,
                                       const float *scales, const int32_t *g_idx,
                                       const float *const *a, block_sums *sums, const int rows,
                                       const int n_sums, const uint32_t bits) {
    const vf zero_point = load(zero_points);
    DBT_UNROLL
    for (int i = 0; i < 2; i++) {
        DBT_UNROLL
        for (int j = 0; j < 8; j++) {
            const int k = HALF * half + 8 * i + j;
            vf w = floats_of_codes(code_of(words, k, bits), bits);
            if (g_idx) {
                const int64_t g = (int64_t)g_idx[k] * LANES;
                w = (w - load(zero_points + g)) * load(scales + g);
            } else {
                w -= zero_point;
            }
            DBT_UNROLL
            for (int r = 0; r < rows; r++) {
                vf *const sum = &sums->of[r][j % n_sums];
                *sum = multiply_add(splat(a[r][k]), w, *sum);
            }
        }
    }
}

static DBT_ALWAYS_INLINE void end_block(block_sums *sums, vf scale, vf *y, const int rows,
                                        const int n_sums) {
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        vf sum = sums->of[r][0];
        DBT_UNROLL
        for (int s = 1; s < n_sums; s++) sum += sums->of[r][s];
        y[r] = multiply_add(scale, sum, y[r]);
        DBT_UNROLL
        for (int s = 0; s < n_sums; s++) sums->of[r][s] = (vf){0};
    }
}

/* Elements [m, m + n_rows) of Y's columns from n on; the last row stands for those that are missing up
 * to `rows`. */
static DBT_ALWAYS_INLINE void few_rows(const dbt_nbits_task *t, int64_t n, int64_t m,
                                       int64_t n_rows, const int rows, const bool g_idx,
                                       const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int n_sums = rows == 1 ? 4 : 2;
    const strip b = strip_of(p->b, dbt_nbits_row_bytes(p), n, p->N);
    const float *zero_point = (const float *)t->zero_points, *scale = t->scales;
    const float *a[MATVEC_ROWS];
    const int32_t *groups = g_idx ? p->g_idx : NULL;
    float tail[MATVEC_ROWS][UNIT];
    int32_t groups_tail[UNIT] = {0};
    block_sums sums = {0};
    vf y[MATVEC_ROWS] = {{0}};
    for (int r = 0; r < rows; r++) a[r] = p->a + (m + least(r, n_rows - 1)) * p->K;
    int64_t left = g_idx ? INT64_MAX : p->block_size; /* in this block */
    for (int64_t chunk = 0; chunk < p->K; chunk += CHUNK) {
        vu words[CHUNK / 32 * 8];
        load_words(&b, chunk / 8 * bits, CHUNK / 8 * (int)bits, words);
        const int64_t end = least(CHUNK, p->K - chunk);
        for (int64_t k = 0; k < end; k += UNIT) {
            if (end - k < UNIT) { /* codes past K meet zeros */
                for (int r = 0; r < rows; r++) {
                    memset(tail[r], 0, sizeof tail[r]);
                    memcpy(tail[r], a[r], (size_t)(end - k) * sizeof(float));
                    a[r] = tail[r];
                }
                if (g_idx) {
                    memcpy(groups_tail, groups, (size_t)(end - k) * sizeof *groups);
                    groups = groups_tail;
                }
            }
            DBT_UNROLL
            for (int half = 0; half < 2; half++) {
                if (left == 0) {
                    end_block(&sums, load(scale), y, rows, n_sums);
                    scale += LANES;
                    zero_point += LANES;
                    left = p->block_size;
                }
                add_half(words + k / 32 * bits, half, zero_point, scale, groups, a, &sums, rows,
                         n_sums, bits);
                left -= HALF;
            }
            for (int r = 0; r < rows; r++) a[r] += UNIT;
            if (g_idx) groups += UNIT;
        }
    }
    end_block(&sums, g_idx ? splat(1.0f) : load(scale), y, rows, n_sums);
    const vf bias = p->bias ? load_some(p->bias + n, b.count) : (vf){0};
    for (int r = 0; r < rows && r < n_rows; r++)
        store_some(p->y + (m + r) * p->N + n, y[r] + bias, b.count);
}

static DBT_ALWAYS_INLINE void run_float_matvec(const dbt_nbits_task *t, const uint32_t bits) {
    for (int64_t n = t->n_begin; n < t->n_end; n += LANES) {
        decode_strip(t, n, t->scales, t->zero_points);
        for (int64_t m = t->m_begin; m < t->m_end; m += MATVEC_ROWS) {
            const int64_t left = least(t->m_end - m, MATVEC_ROWS);
            if (left == 1) {
                few_rows(t, n, m, left, 1, false, bits);
            } else if (left == 2) {
                few_rows(t, n, m, left, 2, false, bits);
            } else {
                few_rows(t, n, m, left, MATVEC_ROWS, false, bits);
            }
        }
    }
}

/* ---- Many rows of A ---- */

/* A part of Y: rows x (strips * LANES), of which `columns` exist, and what it is the product of. */
typedef struct tile {
    const float *a;      /* [rows, n_k], a_stride apart */
    const float *panels; /* [strips][n_k][LANES], panel_stride apart */
    float *y;
    const float *bias;
    int64_t a_stride, panel_stride, y_stride, n_k, columns;
    bool first; /* sets Y instead of adding to it */
} tile;

static DBT_ALWAYS_INLINE void multiply(const tile *t, const int rows, const int strips) {
    vf sums[ROWS][STRIPS];
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        DBT_UNROLL
        for (int s = 0; s < strips; s++) sums[r][s] = (vf){0};
    }
    const float *panel = t->panels;
    for (int64_t k = 0; k < t->n_k; k++, panel += LANES) {
        vf w[STRIPS];
        DBT_UNROLL
        for (int s = 0; s < strips; s++) w[s] = load(panel + s * t->panel_stride);
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            const vf a = splat(t->a[r * t->a_stride + k]);
            DBT_UNROLL
            for (int s = 0; s < strips; s++) sums[r][s] = multiply_add(a, w[s], sums[r][s]);
        }
    }
    DBT_UNROLL
    for (int s = 0; s < strips; s++) {
        const int64_t columns = t->columns - s * LANES;
        const vf bias = t->bias ? load_some(t->bias + s * LANES, columns) : (vf){0};
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            float *const y = t->y + r * t->y_stride + s * LANES;
            const vf sum = sums[r][s] + (t->first ? bias : load_some(y, columns));
            store_some(y, sum, columns);
        }
    }
}

static DBT_ALWAYS_INLINE int multiply_rows(const tile *t, int64_t rows, const int strips) {
    if (rows >= ROWS) {
        multiply(t, ROWS, strips);
        return ROWS;
    }
    if (rows >= 4) {
        multiply(t, 4, strips);
        return 4;
    }
    if (rows >= 2) {
        multiply(t, 2, strips);
        return 2;
    }
    multiply(t, 1, strips);
    return 1;
}

static DBT_NOINLINE void multiply_all(tile t, int64_t rows) {
    for (int n; rows > 0; rows -= n, t.a += n * t.a_stride, t.y += n * t.y_stride) {
        for (int64_t r = ROWS; r < least(rows, 2 * ROWS); r++) { /* the next round's */
            for (int64_t k = 0; k < t.n_k; k += 16) DBT_PREFETCH(t.a + r * t.a_stride + k);
        }
        if (STRIPS == 3 && t.columns > 2 * LANES) {
            n = multiply_rows(&t, rows, 3);
        } else if (t.columns > LANES) {
            n = multiply_rows(&t, rows, 2);
        } else {
            n = multiply_rows(&t, rows, 1);
        }
    }
}

static void tile_columns(const dbt_nbits_task *t, int64_t n, int64_t columns) {
    const dbt_matmul_nbits *const p = t->p;
    const int64_t panel_k = least(PANEL_K, (p->K + 7) / 8 * 8);
    unpacking strips[STRIPS];
    for (int s = 0; s * LANES < columns; s++) {
        float *const scales = t->scales + s * LANES * t->blocks_stride;
        float *const zero_points = (float *)t->zero_points + s * LANES * t->blocks_stride;
        decode_strip(t, n + s * LANES, scales, zero_points);
        strips[s] = (unpacking){strip_of(p->b, dbt_nbits_row_bytes(p), n + s * LANES, p->N), scales,
                                zero_points, p->g_idx, p->block_size};
    }
    for (int64_t k = 0; k < p->K; k += PANEL_K) {
        const int64_t n_k = least(PANEL_K, p->K - k);
        float *const panels = t->rows;
        for (int s = 0; s * LANES < columns; s++)
            unpack_bits[p->bits](&strips[s], k, n_k, panels + s * LANES * panel_k);
        multiply_all((tile){.a = p->a + t->m_begin * p->K + k,
                            .panels = panels,
                            .y = p->y + t->m_begin * p->N + n,
                            .bias = p->bias ? p->bias + n : NULL,
                            .a_stride = p->K,
                            .panel_stride = panel_k * LANES,
                            .y_stride = p->N,
                            .n_k = n_k,
                            .columns = columns,
                            .first = k == 0},
                     t->m_end - t->m_begin);
    }
}

/* One row of A with g_idx is worth no panels. Else the width is looked up where codes are. */
static DBT_ALWAYS_INLINE void run_float_tile(const dbt_nbits_task *t, const uint32_t bits) {
    if (t->p->g_idx && t->m_end - t->m_begin == 1) {
        for (int64_t n = t->n_begin; n < t->n_end; n += LANES) {
            decode_strip(t, n, t->scales, t->zero_points);
            few_rows(t, n, t->m_begin, 1, 1, true, bits);
        }
        return;
    }
    for (int64_t n = t->n_begin; n < t->n_end; n += STRIPS * LANES)
        tile_columns(t, n, least(STRIPS * LANES, t->n_end - n));
}

#define FORMS(RUN) RUN(float_tile) RUN(float_matvec)
#include "ops/matmul_nbits/cpu_widths_tmpl.h"

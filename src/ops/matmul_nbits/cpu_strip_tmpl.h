/* MatMulNBits with float activations: one source for every instruction set, included by a file that
 * defines its vectors (below) and then names the kernels' SUFFIX.
 *
 * A STRIP is LANES rows of B, a lane each. Rows are bit streams: their 32-bit words are transposed, so
 * that vector w holds word w of every row; then one shift and one mask give code k of LANES rows at
 * once, whatever the width, the block size and the place of a block's end:
 *
 *     row 0  |w0|w1|w2|..      words   w0: |r0|r1|r2|..|      code k = (word[k * bits / 32] >> shift) & mask
 *     row 1  |w0|w1|w2|..  ->          w1: |r0|r1|r2|..|
 *
 * Scales, packed and float zero points are rows of bits, too, and become [k_blocks][LANES] floats in
 * the same way, so that a block's are one load, and with g_idx those of any k are.
 *
 * FEW ROWS OF A (matvec): codes meet broadcast elements of A in registers; scales come once a block.
 * MANY ROWS, or g_idx (tile): strips become floats, [k][LANES] of a chunk of K, which stay in the first
 * cache while all rows of A meet them.
 *
 * The file defines LANES; vf and vu, vectors of floats and of uint32_t that may alias; STRIPS and ROWS,
 * the tile that fits its registers; multiply_add(a, b, c) = a * b + c, rounded once; floats_of_halves,
 * of the low 16 bits of lanes; floats_of_codes(v, bits), of the low `bits` bits of lanes; and
 * transpose_words(at, stride, out): words 0 to 3 of LANES rows that are `stride` bytes apart. */

enum {
    CHUNK = 256, /* codes of a row that are transposed at a time */
    STAGE_STRIDE = CHUNK + 64,
    PANEL_K = 192, /* rows of panels */
    UNIT = 32,     /* codes that fill whole words */
    HALF = 16,     /* codes that are in one block */
    MATVEC_ROWS = 4
};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static DBT_ALWAYS_INLINE vf splat(float v) { return v - (vf){0}; }
static DBT_ALWAYS_INLINE vf load(const float *at) { return *(const vf *)(const void *)at; }
static DBT_ALWAYS_INLINE void store(float *at, vf v) { *(vf *)(void *)at = v; }

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

/* ---- Rows to words ---- */

/* LANES rows of a tensor that lie behind each other, of which the first `count` exist. */
typedef struct strip {
    const uint8_t *rows, *end; /* end: of the tensor, up to which may be read */
    int64_t row_bytes, count;
} strip;

static inline strip strip_of(const void *data, int64_t row_bytes, int64_t n, int64_t n_rows) {
    const uint8_t *const rows = (const uint8_t *)data + n * row_bytes;
    return (strip){rows, rows + (n_rows - n) * row_bytes, row_bytes, least(LANES, n_rows - n)};
}

/* `bytes` (a multiple of 32, up to CHUNK) bytes of each row from byte `first` on, as words. What is past
 * a row's end may be anything. Rows are copied first: reading them a few bytes at a time would lose
 * their lines to each other where they are a multiple of 4 KB apart. */
static DBT_NOINLINE void load_words(const strip *s, int64_t first, int64_t bytes, vu *words) {
    typedef uint8_t line __attribute__((vector_size(64), aligned(1), may_alias));
    _Alignas(64) uint8_t stage[LANES * STAGE_STRIDE];
    const uint8_t *from = s->rows + first;
    const int64_t row_bytes = s->row_bytes, lines = (bytes + 63) / 64 * 64;
    if (lines <= s->end - from - (LANES - 1) * row_bytes) {
        for (uint8_t *to = stage; to < stage + sizeof stage;
             to += STAGE_STRIDE, from += row_bytes) {
            for (int64_t i = 0; i < lines; i += 64) {
                DBT_PREFETCH(from + LANES * row_bytes + i);
                *(line *)(to + i) = *(const line *)(from + i);
            }
        }
    } else {
        const int64_t n = least(row_bytes - first, bytes);
        memset(stage, 0, sizeof stage);
        for (int r = 0; r < s->count && n > 0; r++)
            memcpy(stage + r * STAGE_STRIDE, from + r * row_bytes, (size_t)n);
    }
    for (int64_t i = 0; i < bytes; i += 16) transpose_words(stage + i, STAGE_STRIDE, words + i / 4);
}

/* Code i of a unit; bits above it are anything. */
static DBT_ALWAYS_INLINE vu code_of(const vu *words, const int i, const uint32_t bits) {
    const uint32_t at = (uint32_t)i * bits, shift = at % 32;
    if (shift == 0) return words[at / 32];
    if (shift + bits <= 32) return words[at / 32] >> shift;
    return words[at / 32] >> shift | words[at / 32 + 1] << (32 - shift);
}

/* ---- Codes to floats ---- */

/* Codes of a strip and what they are multiplied with: rows of LANES floats, one a block. */
typedef struct unpacking {
    strip codes;
    const float *scales, *zero_points;
    const int32_t *g_idx;
    int64_t block_size;
} unpacking;

/* Codes [k, k + n_k), n_k at most CHUNK, as floats: out is [n_k rounded up to 8][LANES]. */
static DBT_ALWAYS_INLINE void unpack(const unpacking *u, int64_t k, int64_t n_k, float *out,
                                     const bool g_idx, const uint32_t bits) {
    vu words[CHUNK / 32 * 8];
    load_words(&u->codes, k / 8 * bits, (n_k * bits + 255) / 256 * 32, words);
    for (int64_t unit = 0; unit < n_k; unit += UNIT) {
        int32_t groups[UNIT] = {0};
        if (g_idx) memcpy(groups, u->g_idx + k + unit, (size_t)least(UNIT, n_k - unit) * 4);
        DBT_UNROLL
        for (int i = 0; i < UNIT; i += 8) {
            if (unit + i >= n_k) break;
            int64_t g = (k + unit + i) / u->block_size;
            DBT_UNROLL
            for (int j = 0; j < 8; j++) {
                if (g_idx) g = groups[i + j];
                const vf code =
                    floats_of_codes(code_of(words + unit / 32 * bits, i + j, bits), bits);
                store(out + (unit + i + j) * LANES,
                      (code - load(u->zero_points + g * LANES)) * load(u->scales + g * LANES));
            }
        }
    }
}

#define UNPACK(bits)                                                                               \
    static DBT_NOINLINE void unpack_##bits(const unpacking *u, int64_t k, int64_t n_k,             \
                                           float *out) {                                           \
        if (u->g_idx) {                                                                            \
            unpack(u, k, n_k, out, true, bits);                                                    \
        } else {                                                                                   \
            unpack(u, k, n_k, out, false, bits);                                                   \
        }                                                                                          \
    }
UNPACK(1)
UNPACK(2)
UNPACK(3)
UNPACK(4)
UNPACK(5)
UNPACK(6)
UNPACK(7)
UNPACK(8)
#undef UNPACK
static void (*const unpack_bits[])(const unpacking *, int64_t, int64_t, float *) = {
    NULL, unpack_1, unpack_2, unpack_3, unpack_4, unpack_5, unpack_6, unpack_7, unpack_8};

/* ---- Scales and zero points: [blocks_stride][LANES] ---- */

static void floats_of_rows(const dbt_nbits_task *t, const void *data, dibit_type type, int64_t n,
                           float *out) {
    enum { BYTES = CHUNK };
    const int size = type == DIBIT_TYPE_FLOAT ? 4 : 2;
    const int64_t k_blocks = t->p->k_blocks;
    const strip s = strip_of(data, k_blocks * size, n, t->p->N);
    for (int64_t g = 0; g < k_blocks;) {
        vu words[BYTES / 4];
        load_words(&s, g * size, BYTES, words);
        for (int w = 0; w < BYTES / 4 && g < k_blocks; w++) {
            if (type == DIBIT_TYPE_FLOAT) {
                store(out + g++ * LANES, (vf)words[w]);
                continue;
            }
            const bool half = type == DIBIT_TYPE_FLOAT16; /* there is room for an even number */
            store(out + g++ * LANES, half ? floats_of_halves(words[w]) : (vf)(words[w] << 16));
            store(out + g++ * LANES,
                  half ? floats_of_halves(words[w] >> 16) : (vf)(words[w] >> 16 << 16));
        }
    }
    for (int64_t g = k_blocks; g < t->blocks_stride; g++) store(out + g * LANES, (vf){0});
}

/* Of the rows of B from n on. Zeros fill scales; what fills zero points is finite. */
static DBT_NOINLINE void decode_strip(const dbt_nbits_task *t, int64_t n, float *scales,
                                      float *zero_points) {
    const dbt_matmul_nbits *const p = t->p;
    floats_of_rows(t, p->scales, p->scale_type, n, scales);
    if (dbt_nbits_float_zero_points(p)) {
        floats_of_rows(t, p->zero_points, p->zero_point_type, n, zero_points);
    } else if (p->zero_points) {
        const vf zero = {0}, one = splat(1.0f);
        const unpacking u = {.codes =
                                 strip_of(p->zero_points, dbt_nbits_zero_row_bytes(p), n, p->N),
                             .scales = (const float *)&one,
                             .zero_points = (const float *)&zero,
                             .block_size = INT64_MAX};
        for (int64_t g = 0; g < t->blocks_stride; g += CHUNK)
            unpack_bits[p->bits](&u, g, least(CHUNK, t->blocks_stride - g),
                                 zero_points + g * LANES);
    } else {
        for (int64_t g = 0; g < t->blocks_stride; g++)
            store(zero_points + g * LANES, splat((float)(1u << (p->bits - 1))));
    }
}

/* ---- Few rows of A ---- */

/* Sums of products of a block so far; several of a row, since each waits for the one before. */
typedef struct block_sums {
    vf of[MATVEC_ROWS][4];
} block_sums;

/* Adds codes [16 * half, 16 * half + 16) of a unit times a[r][...]. */
static DBT_ALWAYS_INLINE void add_half(const vu *words, const int half, vf zero_point,
                                       const float *const *a, block_sums *sums, const int rows,
                                       const int n_sums, const uint32_t bits) {
    DBT_UNROLL
    for (int i = 0; i < 2; i++) {
        DBT_UNROLL
        for (int j = 0; j < 8; j++) {
            const int k = HALF * half + 8 * i + j;
            const vf w = floats_of_codes(code_of(words, k, bits), bits) - zero_point;
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
                                       int64_t n_rows, const int rows, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int n_sums = rows == 1 ? 4 : 2;
    const strip b = strip_of(p->b, dbt_nbits_row_bytes(p), n, p->N);
    const float *zero_point = (const float *)t->zero_points, *scale = t->scales;
    const float *a[MATVEC_ROWS];
    float tail[MATVEC_ROWS][UNIT];
    block_sums sums = {0};
    vf y[MATVEC_ROWS] = {{0}};
    for (int r = 0; r < rows; r++) a[r] = p->a + (m + least(r, n_rows - 1)) * p->K;
    int64_t left = p->block_size; /* in this block */
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
            }
            DBT_UNROLL
            for (int half = 0; half < 2; half++) {
                if (left == 0) {
                    end_block(&sums, load(scale), y, rows, n_sums);
                    scale += LANES;
                    zero_point += LANES;
                    left = p->block_size;
                }
                add_half(words + k / 32 * bits, half, load(zero_point), a, &sums, rows, n_sums,
                         bits);
                left -= HALF;
            }
            for (int r = 0; r < rows; r++) a[r] += UNIT;
        }
    }
    end_block(&sums, load(scale), y, rows, n_sums);
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
                few_rows(t, n, m, left, 1, bits);
            } else if (left == 2) {
                few_rows(t, n, m, left, 2, bits);
            } else {
                few_rows(t, n, m, left, MATVEC_ROWS, bits);
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

/* The width is looked up where codes are. */
static DBT_ALWAYS_INLINE void run_float_tile(const dbt_nbits_task *t, const uint32_t bits) {
    (void)bits;
    for (int64_t n = t->n_begin; n < t->n_end; n += STRIPS * LANES)
        tile_columns(t, n, least(STRIPS * LANES, t->n_end - n));
}

#define FORMS(RUN) RUN(float_tile) RUN(float_matvec)
#include "ops/matmul_nbits/cpu_widths_tmpl.h"

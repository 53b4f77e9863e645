/* MatMulNBits in WebAssembly for several rows of int8 activations. Rows of B are unpacked a tile at a time,
 * so that a vector's lanes are rows of B: each lane has a row's four codes (with relaxed SIMD) or two
 * (without), which meet the same activations of a row of A in all lanes. A block's sums are then lanes of
 * vectors, and scales and zero points apply to them as they are, with nothing to add up across.
 *
 * A word, four bytes of a row of B, gives a word of codes per plane, for activations that lie in planes
 * (dbt_nbits_activations): codes of the same word and plane are neighbours there, too. Both are laid out in
 * steps, in the order of words and then planes:
 *     relaxed   a step is a word of each row of the tile, and of each of ROWS rows of A, a byte each. The zero
 *               point's share is what a block's sum begins with: a product of 16 bits, so of blocks up to 256.
 *     else      (and with 8 bits, larger blocks or float zero points) even and odd bytes are steps of their own, in
 *               16 bits; what B has then is the difference code - zero point. */
#include "ops/matmul_nbits/cpu_wasm.h"

enum {
    ROWS = 4,    /* of A, at a time */
    COLUMNS = 8, /* of B, at a time: two vectors */
    TILE = 192,  /* rows of B that are unpacked, and meet the same layout of A */
    QUAD = 4,    /* rows that are laid out together */
};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* One tile of rows of B. */
typedef struct tile {
    const dbt_nbits_task *t;
    int64_t n_begin, n_end, rows; /* rows: with those past n_end, of which nothing comes */
    int64_t words, block_words;   /* of a row, of a block */
    bool by_bytes;                /* as above */
    int64_t steps;                /* of a row */
    uint8_t *b;                   /* [rows / COLUMNS, steps, COLUMNS] words */
    uint8_t *a;                   /* [steps, ROWS] words */
    float *scales;                /* [k_blocks, rows] */
    void *zero_points;            /* [k_blocks, rows] int32, or float */
} tile;

/* ---- B ---- */

/* Decodes four rows at a time into the second part of the task's scratch, and turns them. Zero points of bytes
 * are kept as their negatives in 16 bits: with A's sums they make what a block's sum begins with. */
static void load_blocks(const tile *tile) {
    const dbt_nbits_task *const t = tile->t;
    const int64_t stride = t->blocks_stride, rows = tile->rows;
    const v128_t low = wasm_i32x4_splat(0xffff);
    for (int64_t i = 0; i < tile->n_end - tile->n_begin; i += QUAD) {
        const float *scales[QUAD];
        const int32_t *const from = (const int32_t *)t->zero_points + (rows + i) * stride;
        for (int j = 0; j < QUAD; j++) {
            const int64_t n = least(tile->n_begin + i + j, tile->n_end - 1);
            scales[j] = dbt_wasm_decode_blocks(t, n, rows + i + j);
        }
        for (int64_t g = 0; g < t->p->k_blocks; g += 4) {
            v128_t s[QUAD], z[QUAD], turned[2][4];
            for (int j = 0; j < QUAD; j++) {
                s[j] = wasm_v128_load(scales[j] + g);
                z[j] = wasm_v128_load(from + j * stride + g);
            }
            dbt_wasm_turn(s, turned[0]);
            dbt_wasm_turn(z, turned[1]);
            for (int k = 0; k < 4; k++) {
                v128_t zero_points = turned[1][k];
                if (tile->by_bytes) zero_points = wasm_v128_and(wasm_i32x4_neg(zero_points), low);
                wasm_v128_store(tile->scales + (g + k) * rows + i, turned[0][k]);
                wasm_v128_store((int32_t *)tile->zero_points + (g + k) * rows + i, zero_points);
            }
        }
    }
}

/* 16 bytes of codes in planes, number i of a row of row_bytes bytes. */
DBT_WASM_INLINE v128_t load_codes(const uint8_t *row, int64_t i, int64_t row_bytes,
                                  const uint32_t bits) {
    const bool odd = bits != 2 && bits != 4 && bits != 8;
    const int64_t at = i * (odd ? 2 * (int64_t)bits : 16), left = row_bytes - at;
    const int64_t read = odd ? 16 + (int64_t)bits : 16;
    uint8_t few[32] = {0};
    if (left < read) memcpy(few, row + at, (size_t)left);
    const uint8_t *const b = left < read ? few : row + at;
    return odd ? dbt_wasm_bytes16(b, bits) : wasm_v128_load(b);
}

DBT_WASM_INLINE void unpack_quad(const tile *tile, int64_t first, const uint32_t bits) {
    const dbt_matmul_nbits *const p = tile->t->p;
    const int64_t row_bytes = dbt_nbits_row_bytes(p);
    const int planes = dbt_wasm_planes(bits);
    const bool by_bytes = tile->by_bytes;
    const bool subtract = !by_bytes && !dbt_nbits_float_zero_points(p);
    const v128_t mask = wasm_i8x16_splat((int8_t)(planes > 1 ? (1 << bits) - 1 : -1));
    const v128_t low = wasm_i16x8_splat(0xff);
    enum { STEP = COLUMNS * 4 }; /* bytes */
    const uint8_t *rows[QUAD];
    for (int i = 0; i < QUAD; i++)
        rows[i] = p->b + least(tile->n_begin + first + i, tile->n_end - 1) * row_bytes;
    uint8_t *out = tile->b + first / COLUMNS * tile->steps * STEP + first % COLUMNS * 4;
    for (int64_t word = 0; word < tile->words; word += 4) {
        v128_t vectors[QUAD], words[4];
        DBT_UNROLL
        for (int i = 0; i < QUAD; i++) vectors[i] = load_codes(rows[i], word / 4, row_bytes, bits);
        dbt_wasm_turn(vectors, words);
        DBT_UNROLL
        for (int k = 0; k < 4; k++) {
            v128_t zero_points = wasm_i32x4_splat(0);
            const int64_t block = (word + k) / tile->block_words;
            if (subtract && block < p->k_blocks) {
                zero_points =
                    wasm_v128_load((const int32_t *)tile->zero_points + block * tile->rows + first);
                zero_points = wasm_v128_or(zero_points, wasm_i32x4_shl(zero_points, 16));
            }
            DBT_UNROLL
            for (int j = 0; j < planes; j++) {
                v128_t codes = words[k];
                if (planes > 1)
                    codes = wasm_v128_and(wasm_u16x8_shr(codes, (uint32_t)j * bits), mask);
                if (by_bytes) {
                    wasm_v128_store(out, codes);
                    out += STEP;
                } else {
                    const v128_t even = wasm_v128_and(codes, low), odd = wasm_u16x8_shr(codes, 8);
                    wasm_v128_store(out, wasm_i16x8_sub(even, zero_points));
                    wasm_v128_store(out + STEP, wasm_i16x8_sub(odd, zero_points));
                    out += 2 * STEP;
                }
            }
        }
    }
}

/* ---- A ---- */

/* ROWS rows of A from m on; what is past the last is the last again. */
DBT_WASM_INLINE void lay_out_rows(const tile *tile, int64_t m, const int planes,
                                  const bool by_bytes) {
    const dbt_nbits_activations *const act = tile->t->activations;
    const int8_t *rows[QUAD];
    for (int r = 0; r < QUAD; r++) {
        rows[r] = act->q + least(m + r, tile->t->m_end - 1) * act->row_bytes;
    }
    const int step = ROWS * 4 * (by_bytes ? 1 : 2);
    for (int64_t word = 0; word < tile->words; word += 4) {
        const int64_t at = (word >> 3) * 32 * planes + (word & 7) * 4;
        uint8_t *const out = tile->a + word * planes * step;
        for (int j = 0; j < planes; j++) {
            v128_t vectors[QUAD], words[4];
            for (int r = 0; r < QUAD; r++) vectors[r] = wasm_v128_load(rows[r] + at + 32 * j);
            dbt_wasm_turn(vectors, words);
            for (int k = 0; k < 4; k++) {
                uint8_t *const to = out + (k * planes + j) * step;
                if (by_bytes) {
                    wasm_v128_store(to, words[k]);
                } else {
                    wasm_v128_store(to, wasm_i16x8_shr(wasm_i16x8_shl(words[k], 8), 8));
                    wasm_v128_store(to + step / 2, wasm_i16x8_shr(words[k], 8));
                }
            }
        }
    }
}

/* ---- The product ----
 * Sums are nearly all that lives in registers through the loop over steps: of more, V8 would keep some in memory. So
 * a round has two steps (of more, LLVM would move all loads to its top), and Y waits in memory. */

typedef v128_t sums_of[ROWS][2];

DBT_WASM_INLINE void add_step(const uint8_t *b, const uint8_t *a, const bool by_bytes,
                              sums_of sums) {
    const v128_t b0 = wasm_v128_load(b), b1 = wasm_v128_load(b + 16);
    DBT_UNROLL
    for (int r = 0; r < ROWS; r++) {
        const v128_t x = wasm_v128_load32_splat(a + 4 * r);
        if (by_bytes) {
            sums[r][0] = DBT_WASM_DOT_BYTES(x, b0, sums[r][0]);
            sums[r][1] = DBT_WASM_DOT_BYTES(x, b1, sums[r][1]);
        } else {
            sums[r][0] = wasm_i32x4_add(sums[r][0], wasm_i32x4_dot_i16x8(x, b0));
            sums[r][1] = wasm_i32x4_add(sums[r][1], wasm_i32x4_dot_i16x8(x, b1));
        }
    }
}

/* Adds a block with float zero points to y [ROWS, COLUMNS]; its sums and their scales follow, of the same shape. A
 * function, since a call beside the sums would keep those in memory. */
static DBT_NOINLINE void add_floats(float *y, const float *zero_points,
                                    const int32_t *const *a_sums, int64_t g) {
    for (int i = 0; i < ROWS * COLUMNS; i += 4) {
        const v128_t dots = wasm_v128_load(y + ROWS * COLUMNS + i);
        const v128_t term =
            dbt_wasm_apply_float_zero_points(dots, wasm_v128_load(zero_points + i % COLUMNS),
                                             wasm_v128_load32_splat(a_sums[i / COLUMNS] + g));
        wasm_v128_store(y + i, dbt_wasm_madd(wasm_v128_load(y + 2 * ROWS * COLUMNS + i), term,
                                             wasm_v128_load(y + i)));
    }
}

/* Elements [m, m + ROWS) of columns [first, first + COLUMNS) of the tile, as far as there are any. */
DBT_WASM_INLINE void multiply(const tile *tile, int64_t m, int64_t first, const bool by_bytes) {
    const dbt_nbits_task *const t = tile->t;
    const dbt_matmul_nbits *const p = t->p;
    const dbt_nbits_activations *const act = t->activations;
    const bool floats = !by_bytes && dbt_nbits_float_zero_points(p);
    const int64_t block_steps = p->block_size / 4 * (by_bytes ? 1 : 2);
    const uint8_t *b = tile->b + first * 4 * tile->steps, *a = tile->a;
    const float *a_scales[ROWS], *scales = tile->scales + first;
    const int32_t *a_sums[ROWS], *zero_points = (const int32_t *)tile->zero_points + first;
    DBT_UNROLL
    for (int r = 0; r < ROWS; r++) {
        const int64_t row = least(m + r, t->m_end - 1) * act->blocks_stride;
        a_scales[r] = act->scale + row;
        a_sums[r] = act->sum + row;
    }
    float *const y = t->y;
    memset(y, 0, ROWS * COLUMNS * sizeof *y);
    int64_t left = tile->steps;
    for (int64_t g = 0; g < p->k_blocks; g++) {
        sums_of sums;
        DBT_UNROLL
        for (int r = 0; r < ROWS; r++) {
            sums[r][0] = sums[r][1] = wasm_i32x4_splat(0);
            if (!by_bytes) continue;
            const v128_t sum = wasm_v128_load32_splat(a_sums[r] + g);
            sums[r][0] = wasm_i32x4_dot_i16x8(sum, wasm_v128_load(zero_points));
            sums[r][1] = wasm_i32x4_dot_i16x8(sum, wasm_v128_load(zero_points + 4));
        }
        for (int64_t i = least(block_steps, left) / 2; i > 0; i--) { /* both are even */
            DBT_UNROLL
            for (int u = 0; u < 2; u++)
                add_step(b + u * COLUMNS * 4, a + u * ROWS * 4, by_bytes, sums);
            b += 2 * COLUMNS * 4;
            a += 2 * ROWS * 4;
        }
        left -= block_steps;
        DBT_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const v128_t a_scale = wasm_v128_load32_splat(a_scales[r] + g);
            DBT_UNROLL
            for (int c = 0; c < 2; c++) {
                float *const at = y + r * COLUMNS + 4 * c;
                const v128_t scale = wasm_f32x4_mul(a_scale, wasm_v128_load(scales + 4 * c));
                if (floats) { /* what add_floats makes floats of */
                    wasm_v128_store(at + ROWS * COLUMNS, sums[r][c]);
                    wasm_v128_store(at + 2 * ROWS * COLUMNS, scale);
                } else {
                    const v128_t term = wasm_f32x4_convert_i32x4(sums[r][c]);
                    wasm_v128_store(at, dbt_wasm_madd(scale, term, wasm_v128_load(at)));
                }
            }
        }
        if (floats) add_floats(y, (const float *)zero_points, a_sums, g);
        scales += tile->rows;
        zero_points += tile->rows;
    }
    const int64_t n = tile->n_begin + first, columns = least(COLUMNS, tile->n_end - n);
    DBT_UNROLL
    for (int r = 0; r < ROWS; r++) {
        if (m + r >= t->m_end) break;
        float *const to = p->y + (m + r) * p->N + n;
        for (int64_t c = 0; c < columns; c++)
            to[c] = y[r * COLUMNS + c] + (p->bias ? p->bias[n + c] : 0.0f);
    }
}

/* The same code for all widths. */
static DBT_NOINLINE void multiply_16(const tile *tile, int64_t m, int64_t first) {
    multiply(tile, m, first, false);
}
#if DBT_WASM_RELAXED
static DBT_NOINLINE void multiply_bytes(const tile *tile, int64_t m, int64_t first) {
    multiply(tile, m, first, true);
}
#else
#define multiply_bytes multiply_16
#endif

DBT_WASM_INLINE void run_int8_tile(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int planes = dbt_wasm_planes(bits);
    const bool by_bytes =
        dbt_wasm_by_bytes(bits) && p->block_size <= 256 && !dbt_nbits_float_zero_points(p);
    tile tile = {.t = t,
                 .by_bytes = by_bytes,
                 .rows = TILE,
                 .b = t->rows,
                 .scales = t->scales,
                 .zero_points = t->zero_points};
    tile.words = (p->K + 16 * planes - 1) / (16 * planes) * 4;
    tile.block_words = p->block_size / (4 * planes);
    tile.steps = tile.words * planes * (by_bytes ? 1 : 2);
    tile.a = tile.b + 2 * tile.rows * t->row_stride;
    for (tile.n_begin = t->n_begin; tile.n_begin < t->n_end; tile.n_begin = tile.n_end) {
        tile.n_end = least(tile.n_begin + tile.rows, t->n_end);
        load_blocks(&tile);
        for (int64_t first = 0; tile.n_begin + first < tile.n_end; first += QUAD)
            unpack_quad(&tile, first, bits);
        for (int64_t m = t->m_begin; m < t->m_end; m += ROWS) {
            lay_out_rows(&tile, m, planes, by_bytes);
            for (int64_t first = 0; tile.n_begin + first < tile.n_end; first += COLUMNS) {
                if (by_bytes) {
                    multiply_bytes(&tile, m, first);
                } else {
                    multiply_16(&tile, m, first);
                }
            }
        }
    }
}

#define SUFFIX wasm
#define FORMS(RUN) RUN(int8_tile)
#include "ops/matmul_nbits/cpu_widths_tmpl.h"

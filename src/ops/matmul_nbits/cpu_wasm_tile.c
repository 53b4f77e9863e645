/* MatMulNBits in WebAssembly for several rows of int8 activations. Rows of B are unpacked a strip at a time, which
 * stays in the nearest cache while all rows of A meet it. A vector's lanes are rows of B: each lane has a row's four
 * codes (with relaxed SIMD) or two (without), which meet the same activations of a row of A in all lanes. A block's
 * sums are then lanes of vectors, and scales and zero points apply to them as they are, with nothing to add up across.
 *
 * A word, four bytes of a row of B, gives a word of codes per plane, for activations that lie in planes
 * (dbt_nbits_activations): codes of the same word and plane are neighbours there, too. Both are laid out in
 * steps, in the order of words and then planes:
 *     relaxed   a step is a word of each row of the strip, and of each of ROWS rows of A, a byte each. A byte of B
 *               is code - zero point + most, where most is the largest code: 0 to 126. A block's sums begin with
 *               -most times the sum of A.
 *     else      (and with 8 bits) even and odd bytes are steps of their own, in 16 bits, of which B's are code - zero
 *               point.
 * Zero points stay apart, and what B has are codes, if they are floats; and in bytes with 7 bits, where sums begin
 * with -zero point times the sum of A. */
#include <assert.h>

#include "ops/matmul_nbits/cpu_wasm.h"

enum {
    ROWS = 4,    /* of A, at a time */
    COLUMNS = 8, /* a strip, rows of B: two vectors */
    QUAD = 4,    /* rows that are laid out together */
    LINE = 64,   /* bytes of a cache line, or fewer */
};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* What a block has beside codes. */
typedef struct b_block {
    float scales[COLUMNS];
    int32_t add[COLUMNS]; /* to a word's codes: the same for each of them */
    int32_t
        begin[COLUMNS]; /* a block's sums, times the sum of A; if zero points are apart, in bytes */
    float zero_points[COLUMNS]; /* if they are floats */
} b_block;
typedef struct a_block {
    float scales[ROWS];
    int32_t sums[ROWS]; /* in bytes times -most, if zero points are not apart */
} a_block;

/* A strip, and all rows of A of the task; they lie in the scratch for rows, scales and zero points. */
typedef struct strip {
    const dbt_nbits_task *t;
    int64_t n_begin, columns; /* columns: not past the task's last */
    int64_t groups;           /* of rows of A */
    int64_t words;            /* of a row of B */
    int64_t steps, block_steps;
    uint8_t *b;        /* [steps, COLUMNS] words */
    uint8_t *a;        /* [groups, steps, ROWS] words */
    b_block *b_blocks; /* [k_blocks] */
    a_block *a_blocks; /* [groups, blocks_stride] */
    bool by_bytes, apart;
    struct {
        const uint8_t *codes, *scales;
        int64_t codes_step, scales_step;
    } next; /* see look_ahead */
} strip;

/* ---- B ---- */

/* Decodes four rows at a time into the task's scratch, and turns them. */
DBT_WASM_INLINE void load_blocks(const strip *s, const uint32_t bits) {
    const dbt_nbits_task *const t = s->t;
    const bool by_bytes = dbt_wasm_by_bytes(bits), floats = dbt_nbits_float_zero_points(t->p);
    const int64_t k_blocks = t->p->k_blocks, stride = t->blocks_stride;
    const v128_t most = wasm_i32x4_splat(by_bytes ? (1 << bits) - 1 : 0);
    const v128_t added = wasm_i32x4_splat(s->apart ? 0 : 0xffff);
    const v128_t copies = wasm_i32x4_splat(by_bytes ? 0x1010101 : 0x10001);
    const v128_t integer = wasm_i32x4_splat(floats ? 0 : -1);
    for (int64_t i = 0; i < COLUMNS; i += QUAD) {
        const float *scales[QUAD];
        const int32_t *const from = (const int32_t *)t->zero_points + i * stride;
        b_block *to = s->b_blocks;
        for (int j = 0; j < QUAD; j++)
            scales[j] = dbt_wasm_decode_blocks(t, s->n_begin + least(i + j, s->columns - 1), i + j);
        for (int64_t g = 0; g < k_blocks; g += 4) {
            v128_t v[QUAD], z[QUAD], turned[2][4];
            DBT_UNROLL
            for (int j = 0; j < QUAD; j++) {
                v[j] = wasm_v128_load(scales[j] + g);
                z[j] = wasm_v128_load(from + j * stride + g);
            }
            dbt_wasm_turn(v, turned[0]);
            dbt_wasm_turn(z, turned[1]);
            DBT_UNROLL
            for (int k = 0; k < 4; k++, to++) {
                const v128_t add = wasm_v128_and(wasm_i32x4_sub(most, turned[1][k]), added);
                wasm_v128_store(to->scales + i, turned[0][k]);
                wasm_v128_store(to->add + i, wasm_i32x4_mul(add, copies));
                if (!s->apart) continue;
                wasm_v128_store(to->begin + i,
                                wasm_i32x4_neg(wasm_v128_and(turned[1][k], integer)));
                wasm_v128_store(to->zero_points + i, turned[1][k]);
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

/* Rows [first, first + QUAD) of the strip; what is past its last is that again. */
DBT_WASM_INLINE void unpack_quad(const strip *s, int64_t first, const uint32_t bits) {
    enum { STEP = COLUMNS * 4 }; /* bytes */
    const dbt_matmul_nbits *const p = s->t->p;
    const int64_t row_bytes = dbt_nbits_row_bytes(p), n_words = s->words;
    const int planes = dbt_wasm_planes(bits);
    const b_block *const blocks = s->b_blocks;
    int shift = 0; /* from a word to its block */
    while (4 * planes << shift < p->block_size) shift++;
    const v128_t mask = dbt_wasm_unknown(wasm_i8x16_splat((int8_t)((1u << bits) - 1)));
    const uint8_t *rows[QUAD];
    for (int i = 0; i < QUAD; i++)
        rows[i] = p->b + (s->n_begin + least(first + i, s->columns - 1)) * row_bytes;
    uint8_t *out = s->b + 4 * first;
    for (int64_t word = 0; word < n_words; word += 4) {
        v128_t vectors[QUAD], words[4];
        DBT_UNROLL
        for (int i = 0; i < QUAD; i++) vectors[i] = load_codes(rows[i], word / 4, row_bytes, bits);
        dbt_wasm_turn(vectors, words);
        DBT_UNROLL
        for (int k = 0; k < 4; k++) {
            const v128_t add = wasm_v128_load(blocks[(word + k) >> shift].add + first);
            DBT_UNROLL
            for (int j = 0; j < planes; j++) {
                v128_t codes = words[k];
                if (planes > 1)
                    codes = wasm_v128_and(wasm_u16x8_shr(codes, (uint32_t)j * bits), mask);
                if (dbt_wasm_by_bytes(bits)) {
                    wasm_v128_store(out, wasm_i8x16_add(codes, add));
                } else {
                    const v128_t even = wasm_v128_and(codes, wasm_i16x8_splat(0xff));
                    wasm_v128_store(out, wasm_i16x8_add(even, add));
                    out += STEP;
                    wasm_v128_store(out, wasm_i16x8_add(wasm_u16x8_shr(codes, 8), add));
                }
                out += STEP;
            }
        }
    }
}

/* No machine foresees how rows that are read side by side go on. So with each block of this strip's products a part
 * of the next strip's bytes is read, of which nothing comes but that they are near by then. */
static void look_ahead(strip *s) {
    const dbt_nbits_task *const t = s->t;
    const dbt_matmul_nbits *const p = t->p;
    const int64_t n = s->n_begin + s->columns, rows = least(COLUMNS, t->n_end - n);
    const int64_t row_bytes = dbt_nbits_row_bytes(p), parts = s->groups * p->k_blocks;
    const int64_t scales_bytes = p->k_blocks * dbt_nbits_float_bytes(p->scale_type);
    s->next.codes = p->b + (rows ? n * row_bytes : 0);
    s->next.codes_step = rows * row_bytes / parts;
    s->next.scales = (const uint8_t *)p->scales + (rows ? n * scales_bytes : 0);
    s->next.scales_step = rows * scales_bytes / parts;
}

/* ---- A ---- */

/* Rows of A of group `group`; what is past the last is the last again. */
DBT_WASM_INLINE void lay_out_rows(const strip *s, int64_t group, const uint32_t bits) {
    enum { STEP = ROWS * 4 }; /* bytes */
    const bool by_bytes = dbt_wasm_by_bytes(bits);
    const int planes = dbt_wasm_planes(bits);
    const int32_t times = by_bytes && !s->apart ? 1 - (1 << bits) : 1;
    const dbt_nbits_task *const t = s->t;
    const dbt_nbits_activations *const act = t->activations;
    a_block *const blocks = s->a_blocks + group * t->blocks_stride;
    const int8_t *rows[QUAD];
    for (int r = 0; r < QUAD; r++) {
        const int64_t m = least(t->m_begin + ROWS * group + r, t->m_end - 1);
        rows[r] = act->q + m * act->row_bytes;
        for (int64_t g = 0; g < t->p->k_blocks; g++) {
            blocks[g].scales[r] = act->scale[m * act->blocks_stride + g];
            blocks[g].sums[r] = times * act->sum[m * act->blocks_stride + g];
        }
    }
    uint8_t *const out = s->a + group * s->steps * STEP;
    for (int64_t word = 0; word < s->words; word += 4) {
        const int64_t at = (word >> 3) * 32 * planes + (word & 7) * 4;
        for (int j = 0; j < planes; j++) {
            v128_t vectors[QUAD], words[4];
            for (int r = 0; r < QUAD; r++) vectors[r] = wasm_v128_load(rows[r] + at + 32 * j);
            dbt_wasm_turn(vectors, words);
            for (int k = 0; k < 4; k++) {
                const int64_t step = (word + k) * planes + j;
                if (by_bytes) {
                    wasm_v128_store(out + step * STEP, words[k]);
                } else {
                    const v128_t even = wasm_i16x8_shr(wasm_i16x8_shl(words[k], 8), 8);
                    wasm_v128_store(out + 2 * step * STEP, even);
                    wasm_v128_store(out + (2 * step + 1) * STEP, wasm_i16x8_shr(words[k], 8));
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
static DBT_NOINLINE void add_floats(float *y, const float *zero_points, const int32_t *a_sums) {
    for (int i = 0; i < ROWS * COLUMNS; i += 4) {
        const v128_t dots = wasm_v128_load(y + ROWS * COLUMNS + i);
        const v128_t term =
            dbt_wasm_apply_float_zero_points(dots, wasm_v128_load(zero_points + i % COLUMNS),
                                             wasm_v128_load32_splat(a_sums + i / COLUMNS));
        wasm_v128_store(y + i, dbt_wasm_madd(wasm_v128_load(y + 2 * ROWS * COLUMNS + i), term,
                                             wasm_v128_load(y + i)));
    }
}

/* The product of group `group` to the task's y [ROWS, COLUMNS], of which it takes three times as much. */
DBT_WASM_INLINE void multiply(const strip *s, int64_t group, const bool by_bytes,
                              const bool apart) {
    const dbt_nbits_task *const t = s->t;
    const bool floats = apart && dbt_nbits_float_zero_points(t->p);
    const int64_t k_blocks = t->p->k_blocks, block_steps = s->block_steps;
    const int64_t codes_step = s->next.codes_step, scales_step = s->next.scales_step;
    const volatile uint8_t *next_codes = s->next.codes + group * k_blocks * codes_step;
    const volatile uint8_t *next_scales = s->next.scales + group * k_blocks * scales_step;
    const uint8_t *b = s->b, *a = s->a + group * s->steps * ROWS * 4;
    const b_block *b_block = s->b_blocks;
    const a_block *a_block = s->a_blocks + group * t->blocks_stride;
    float *const y = t->y;
    memset(y, 0, ROWS * COLUMNS * sizeof *y);
    int64_t left = s->steps;
    for (int64_t g = 0; g < k_blocks; g++, a_block++, b_block++) {
        for (int64_t i = 0; i < codes_step; i += LINE) (void)next_codes[i];
        (void)*next_scales; /* COLUMNS floats at most */
        next_codes += codes_step;
        next_scales += scales_step;
        /* Else Y would be kept in registers, and sums in memory. */
        __asm__ volatile("" ::: "memory");
        sums_of sums;
        DBT_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const v128_t sum = wasm_v128_load32_splat(a_block->sums + r);
            DBT_UNROLL
            for (int c = 0; c < 2; c++) {
                sums[r][c] = !by_bytes ? wasm_i32x4_splat(0)
                             : !apart  ? sum
                                      : wasm_i32x4_mul(sum, wasm_v128_load(b_block->begin + 4 * c));
            }
        }
        for (int64_t i = least(block_steps, left) / 2; i > 0; i--) { /* both are even */
            DBT_UNROLL
            for (int u = 0; u < 2; u++)
                add_step(b + u * COLUMNS * 4, a + u * ROWS * 4, by_bytes, sums);
            b += 2 * COLUMNS * 4;
            a += 2 * ROWS * 4;
        }
        left -= block_steps;
        const v128_t scales[] = {wasm_v128_load(b_block->scales),
                                 wasm_v128_load(b_block->scales + 4)};
        DBT_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const v128_t a_scale = wasm_v128_load32_splat(a_block->scales + r);
            DBT_UNROLL
            for (int c = 0; c < 2; c++) {
                float *const at = y + r * COLUMNS + 4 * c;
                const v128_t scale = wasm_f32x4_mul(a_scale, scales[c]);
                if (floats) { /* what add_floats makes floats of */
                    wasm_v128_store(at + ROWS * COLUMNS, sums[r][c]);
                    wasm_v128_store(at + 2 * ROWS * COLUMNS, scale);
                } else {
                    const v128_t term = wasm_f32x4_convert_i32x4(sums[r][c]);
                    wasm_v128_store(at, dbt_wasm_madd(scale, term, wasm_v128_load(at)));
                }
            }
        }
        if (floats) add_floats(y, b_block->zero_points, a_block->sums);
    }
}

/* The same code for all widths. */
static DBT_NOINLINE void multiply_16(const strip *s, int64_t group) {
    multiply(s, group, false, true);
}
#if DBT_WASM_RELAXED
static DBT_NOINLINE void multiply_bytes(const strip *s, int64_t group) {
    multiply(s, group, true, false);
}
static DBT_NOINLINE void multiply_bytes_apart(const strip *s, int64_t group) {
    multiply(s, group, true, true);
}
#else
#define multiply_bytes multiply_16
#define multiply_bytes_apart multiply_16
#endif

/* All rows of A with the strip. */
static void multiply_strip(const strip *s) {
    const dbt_nbits_task *const t = s->t;
    const dbt_matmul_nbits *const p = t->p;
    const bool whole = s->columns == COLUMNS;
    float bias[COLUMNS] = {0};
    if (p->bias) memcpy(bias, p->bias + s->n_begin, (size_t)s->columns * sizeof *bias);
    for (int64_t group = 0; group < s->groups; group++) {
        if (!s->by_bytes) {
            multiply_16(s, group);
        } else if (s->apart) {
            multiply_bytes_apart(s, group);
        } else {
            multiply_bytes(s, group);
        }
        const int64_t m = t->m_begin + ROWS * group;
        for (int64_t r = 0; r < least(ROWS, t->m_end - m); r++) {
            float *const y = t->y + r * COLUMNS, *const to = p->y + (m + r) * p->N + s->n_begin;
            for (int c = 0; c < COLUMNS; c += 4)
                wasm_v128_store((whole ? to : y) + c,
                                wasm_f32x4_add(wasm_v128_load(y + c), wasm_v128_load(bias + c)));
            if (!whole) memcpy(to, y, (size_t)s->columns * sizeof *to);
        }
    }
}

DBT_WASM_INLINE void run_int8_tile(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int planes = dbt_wasm_planes(bits),
              per_byte = dbt_wasm_by_bytes(bits) ? 1 : 2; /* steps */
    assert(t->n_tile >= 2 * (COLUMNS + DBT_NBITS_M_CHUNK) &&
           t->m_end - t->m_begin <= DBT_NBITS_M_CHUNK);
    strip s = {
        .t = t,
        .groups = (t->m_end - t->m_begin + ROWS - 1) / ROWS,
        .words = (p->K + 16 * planes - 1) / (16 * planes) * 4,
        .block_steps = p->block_size / 4 * per_byte,
        .b = t->rows,
        .b_blocks = (b_block *)(void *)(t->scales + COLUMNS * t->blocks_stride),
        .a_blocks = (a_block *)(void *)((float *)t->zero_points + COLUMNS * t->blocks_stride),
        .by_bytes = dbt_wasm_by_bytes(bits),
        .apart = dbt_nbits_float_zero_points(p) || (dbt_wasm_by_bytes(bits) && bits == 7),
    };
    s.steps = s.words * planes * per_byte;
    s.a = s.b + s.steps * COLUMNS * 4;
    for (int64_t group = 0; group < s.groups; group++) lay_out_rows(&s, group, bits);
    for (s.n_begin = t->n_begin; s.n_begin < t->n_end; s.n_begin += s.columns) {
        s.columns = least(COLUMNS, t->n_end - s.n_begin);
        load_blocks(&s, bits);
        for (int64_t first = 0; first < COLUMNS; first += QUAD) unpack_quad(&s, first, bits);
        look_ahead(&s);
        multiply_strip(&s);
    }
}

#define SUFFIX wasm
#define FORMS(RUN) RUN(int8_tile)
#include "ops/matmul_nbits/cpu_widths_tmpl.h"

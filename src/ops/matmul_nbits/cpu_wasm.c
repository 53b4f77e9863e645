/* MatMulNBits in WebAssembly, with SIMD or with relaxed SIMD, reading B where it lies. Built as
 * cpu_avx2.c is: there are the layouts; here is what 128 bits change.
 *
 * INT8 ACTIVATIONS. 16 bytes of B are one vector; shifts and masks make planes of it.
 *     relaxed   a plane is 16 codes, a byte each, at most 127 for up to 7 bits, so that
 *               i32x4.relaxed_dot_i8x16_i7x16_add is exact on every machine. The activations lie as
 *               dbt_nbits_activations says.
 *     else      a plane is 8 codes in 16 bits, for i32x4.dot_i16x8. The activations are widened into
 *               the same order, once for a task when it has few rows.
 * 8 bits take the second way in both. Odd widths are unpacked to bytes first, and are then one of both.
 * Four 32-bit lanes of sums are 4, 2 or 1 block; `lanes` vectors become one of 4 blocks' sums.
 *
 * FLOAT ACTIVATIONS. Four codes become floats where they lie in a word: code l of a vector is masked in
 * place, which is code * 2^(bits * l), exact, and so is the zero point times the same; what the lane
 * has too much is taken out of a block's sum at its end, together with the scale. */
#include "base/simd_wasm.h"
#include "ops/matmul_nbits/cpu_kernels.h"

#if defined(__wasm_relaxed_simd__)
#define RELAXED 1
#else
#define RELAXED 0
#endif

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Codes ---- */

/* The bit places of four codes in a word, as masks and as factors. */
typedef struct places {
    v128_t masks, to_top,
        down; /* integers: the mask; what moves it to lane 3's place; 1 / 2^place */
} places;

DBT_WASM_INLINE places places_of(const uint32_t bits) {
    const uint32_t mask = (1u << bits) - 1;
    const uint32_t n = bits;
#define DOWN(l) (1.0f / (float)(1u << (n * (l))))
    return (places){
        dbt_wasm_unknown(wasm_u32x4_make(mask, mask << n, mask << 2 * n, mask << 3 * n)),
        wasm_u32x4_make(1u << 3 * n, 1u << 2 * n, 1u << n, 1u),
        wasm_f32x4_make(DOWN(0), DOWN(1), DOWN(2), DOWN(3))};
#undef DOWN
}

/* 8 codes: the word of the first four, and of the others; what a word has above them is garbage. Reads 4
 * bytes up to 4 bits, else 8. */
typedef struct words {
    v128_t low, high;
} words;

DBT_WASM_INLINE words words8(const uint8_t *b, const uint32_t bits) {
    const v128_t low = wasm_v128_load32_splat(b);
    if (bits <= 4) return (words){low, wasm_i32x4_shr(low, 4 * bits)};
    return (words){low, wasm_i32x4_shr(wasm_v128_load32_splat(b + bits / 2), 4 * bits % 8)};
}

/* Four codes as integers. */
DBT_WASM_INLINE v128_t integers(v128_t word, places at, const uint32_t bits) {
    return wasm_u32x4_shr(wasm_i32x4_mul(wasm_v128_and(word, at.masks), at.to_top), 3 * bits);
}

/* Four codes as floats, each times 2 to its place. 8 bits have no place in a word that a float holds, and
 * are floats as they are. */
DBT_WASM_INLINE v128_t placed4(v128_t word, places at, const uint32_t bits) {
    const v128_t bytes =
        wasm_i8x16_make(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3, -1, -1, -1);
    return wasm_f32x4_convert_i32x4(bits == 8 ? dbt_wasm_swizzle(word, bytes)
                                              : wasm_v128_and(word, at.masks));
}

DBT_WASM_INLINE v128_t floats_of(v128_t word, places at, const uint32_t bits) {
    const v128_t placed = placed4(word, at, bits);
    return bits == 8 ? placed : wasm_f32x4_mul(placed, at.down);
}

/* 8 codes of 1, 3, 5, 6 or 7 bits in 16 bits each: two bytes per code, and a product for a shift. */
DBT_WASM_INLINE v128_t shorts8(v128_t bytes, const uint32_t bits) {
    const int n = (int)bits;
#define TWO(i) (int8_t)((i) * n / 8), (int8_t)((i) * n / 8 + 1)
    const v128_t pairs =
        wasm_i8x16_make(TWO(0), TWO(1), TWO(2), TWO(3), TWO(4), TWO(5), TWO(6), TWO(7));
#undef TWO
#define UP(i) (int16_t)(256 >> ((i) * n % 8))
    const v128_t up = wasm_i16x8_make(UP(0), UP(1), UP(2), UP(3), UP(4), UP(5), UP(6), UP(7));
#undef UP
    return wasm_u16x8_shr(wasm_i16x8_mul(dbt_wasm_swizzle(bytes, pairs), up), 8);
}

/* The same 16 codes, a byte each, from 2 * bits bytes at b. Reads 16 - bits bytes too many. */
DBT_WASM_INLINE v128_t bytes16(const uint8_t *b, const uint32_t bits) {
    const v128_t all = wasm_u8x16_narrow_i16x8(shorts8(wasm_v128_load(b), bits),
                                               shorts8(wasm_v128_load(b + bits), bits));
    return wasm_v128_and(all, wasm_i8x16_splat((int8_t)((1 << bits) - 1)));
}

/* Row n of B, readable for `bytes` bytes: itself, or a copy where that would leave B. */
static inline const uint8_t *readable_row(const dbt_nbits_task *t, int64_t n, int64_t bytes) {
    const dbt_matmul_nbits *const p = t->p;
    const int64_t row_bytes = dbt_nbits_row_bytes(p), left = (p->N - n) * row_bytes;
    const uint8_t *const row = p->b + n * row_bytes;
    if (bytes <= left) return row;
    memcpy(t->bounce, row, (size_t)left);
    memset(t->bounce + left, 0, (size_t)(bytes - left));
    return t->bounce;
}

/* ---- Scales and zero points, 4 blocks at a time ---- */

/* Elements [i, i + n) of an unaligned array, n <= 4; zeros after them. */
DBT_WASM_INLINE v128_t floats4(const void *data, dibit_type type, int64_t i, int64_t n) {
    const size_t size = type == DIBIT_TYPE_FLOAT ? 4 : 2;
    const uint8_t *const at = (const uint8_t *)data + i * (int64_t)size;
    uint8_t few[16] = {0};
    if (n < 4) memcpy(few, at, (size_t)n * size);
    return dbt_wasm_load4(n < 4 ? few : at, type);
}

/* Whether 4 scales at a time can be read where they lie. */
static inline bool scales_in_place(const dbt_matmul_nbits *p) {
    return p->scale_type == DIBIT_TYPE_FLOAT && p->k_blocks % 4 == 0;
}

/* The scales of row n of B, which is row i of the tile. */
static inline const float *scales_of(const dbt_nbits_task *t, int64_t n, int64_t i) {
    return scales_in_place(t->p) ? (const float *)t->p->scales + n * t->p->k_blocks
                                 : t->scales + i * t->blocks_stride;
}

/* As dbt_nbits_decode_blocks, for row i of the tile; scales only where they have to. */
DBT_WASM_INLINE void decode_blocks(const dbt_nbits_task *t, int64_t n, int64_t i,
                                   const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int64_t first = n * p->k_blocks;
    float *const scales = t->scales + i * t->blocks_stride;
    float *const zero_points = (float *)t->zero_points + i * t->blocks_stride;
    if (!scales_in_place(p)) {
        for (int64_t g = 0; g < p->k_blocks; g += 4) {
            wasm_v128_store(scales + g, floats4(p->scales, p->scale_type, first + g,
                                                least(4, p->k_blocks - g)));
        }
        for (int64_t g = p->k_blocks; g % 8; g++) scales[g] = 0.0f;
    }
    const bool floats = dbt_nbits_float_zero_points(p), as_float = floats || !p->int8_activations;
    if (floats) {
        for (int64_t g = 0; g < p->k_blocks; g += 4) {
            wasm_v128_store(zero_points + g, floats4(p->zero_points, p->zero_point_type, first + g,
                                                     least(4, p->k_blocks - g)));
        }
    } else if (!p->zero_points) {
        const v128_t z = wasm_i32x4_splat(1 << (bits - 1));
        for (int64_t g = 0; g < p->k_blocks; g += 4) {
            wasm_v128_store(zero_points + g, as_float ? wasm_f32x4_convert_i32x4(z) : z);
        }
    } else {
        const places at = places_of(bits);
        const uint8_t *row = (const uint8_t *)p->zero_points + n * dbt_nbits_zero_row_bytes(p);
        int64_t left = (p->N - n) * dbt_nbits_zero_row_bytes(p); /* bytes that may be read */
        v128_t *out = (v128_t *)(void *)zero_points;
        /* 8 codes take `bits` bytes. */
        for (int64_t g = 0; g < p->k_blocks; g += 8, row += bits, left -= bits, out += 2) {
            uint8_t few[8] = {0};
            if (left < 8) memcpy(few, row, (size_t)left);
            const words w = words8(left < 8 ? few : row, bits);
            out[0] = as_float ? floats_of(w.low, at, bits) : integers(w.low, at, bits);
            out[1] = as_float ? floats_of(w.high, at, bits) : integers(w.high, at, bits);
        }
    }
}

/* ---- Int8 activations ---- */

enum {
    INT8_ROWS = 4,
    INT8_COLUMNS = 2
}; /* rows of A that share the unpacking, of B the loads of A */

/* Planes of bytes in a vector of B, as the activations lie. */
DBT_WASM_INLINE int interleave_of(uint32_t bits) { return bits == 2 ? 4 : bits == 4 ? 2 : 1; }

/* Whether products are of bytes, not of 16 bits. */
DBT_WASM_INLINE bool by_bytes(uint32_t bits) { return RELAXED && bits < 8; }

/* Rows of A as the products want them, `stride` bytes apart. */
typedef struct rows_of_a {
    const uint8_t *data;
    size_t stride;
} rows_of_a;

#if RELAXED
#define DOT_BYTES wasm_i32x4_relaxed_dot_i8x16_i7x16_add
#else
#define DOT_BYTES(a, codes, sum) ((void)(a), (sum)) /* never used */
#endif

/* Bytes from a plane of a vector's activations to the next. */
DBT_WASM_INLINE int plane_bytes(uint32_t bits) { return by_bytes(bits) ? 32 : 16; }

/* The activations of vector v, in a row of A. */
DBT_WASM_INLINE size_t activations_at(size_t v, uint32_t bits) {
    const size_t planes = (size_t)interleave_of(bits);
    return by_bytes(bits) ? 32 * planes * (v >> 1) + 16 * (v & 1) : 32 * planes * v;
}

/* The mask of a plane's codes, once for all vectors: V8 would make the constant anew for each. */
DBT_WASM_INLINE v128_t plane_mask(uint32_t bits) {
    const int width = bits == 2 || bits == 4 ? (int)bits : 8; /* of a code in a vector of B */
    return dbt_wasm_unknown(by_bytes(bits) ? wasm_i8x16_splat((int8_t)((1 << width) - 1))
                                           : wasm_i16x8_splat((int16_t)((1 << width) - 1)));
}

typedef v128_t sums_of[INT8_COLUMNS][INT8_ROWS][4];

/* Adds the products of a vector of each of `columns` rows of B with `rows` rows of A to sums[..][..][at]. */
DBT_WASM_INLINE void add_vector(const uint8_t *const *b, const int columns, const uint8_t *const *a,
                                const int rows, const uint32_t bits, v128_t mask, sums_of sums,
                                const int at) {
    const uint32_t width = interleave_of(bits) == 1 ? 8 : bits;
    const int planes = by_bytes(bits) ? interleave_of(bits) : 2 * interleave_of(bits);
    v128_t packed[INT8_COLUMNS];
    DBT_UNROLL
    for (int c = 0; c < columns; c++) packed[c] = wasm_v128_load(b[c]);
    DBT_UNROLL
    for (int j = 0; j < planes; j++) {
        v128_t codes[INT8_COLUMNS];
        DBT_UNROLL
        for (int c = 0; c < columns; c++) {
            codes[c] = wasm_u16x8_shr(packed[c], (uint32_t)j * width);
            if (by_bytes(bits) ? planes > 1 : j + 1 < planes) {
                codes[c] = wasm_v128_and(codes[c], mask);
            }
        }
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            const v128_t q = wasm_v128_load(a[r] + j * plane_bytes(bits));
            DBT_UNROLL
            for (int c = 0; c < columns; c++) {
                v128_t *const sum = &sums[c][r][at];
                *sum = by_bytes(bits) ? DOT_BYTES(q, codes[c], *sum)
                                      : wasm_i32x4_add(*sum, wasm_i32x4_dot_i16x8(q, codes[c]));
            }
        }
    }
}

/* Row m of A in 16 bits: the even bytes of each plane, and after all planes the odd ones. */
DBT_WASM_INLINE void widen_row(const dbt_nbits_activations *act, int64_t m, const uint32_t bits,
                               uint8_t *out) {
    const int planes = interleave_of(bits);
    const int8_t *const q = act->q + m * act->row_bytes;
    for (int64_t v = 0; v < act->row_bytes / (16 * planes); v++, out += 32 * planes) {
        const int8_t *const at = q + 32 * planes * (v >> 1) + 16 * (v & 1);
        DBT_UNROLL
        for (int j = 0; j < planes; j++) {
            const v128_t x = wasm_v128_load(at + 32 * j);
            wasm_v128_store(out + 16 * j, wasm_i16x8_shr(wasm_i16x8_shl(x, 8), 8));
            wasm_v128_store(out + 16 * (j + planes), wasm_i16x8_shr(x, 8));
        }
    }
}

/* `lanes` vectors, in which a block takes `lanes` lanes, to the sums of 4 blocks. */
DBT_WASM_INLINE v128_t block_sums(const v128_t *v, const int lanes) {
#define ADD_PAIRS(a, b)                                                                            \
    wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7))
    if (lanes == 1) return v[0];
    const v128_t low = ADD_PAIRS(v[0], v[1]);
    if (lanes == 2) return low;
    const v128_t high = ADD_PAIRS(v[2], v[3]);
    return ADD_PAIRS(low, high);
#undef ADD_PAIRS
}

/* dot - zero_point * sum_a, of 4 blocks. In double, since the two parts may cancel; one function, since
 * it is rare and long. */
static DBT_NOINLINE v128_t apply_float_zero_points(v128_t dots, v128_t z, v128_t sums) {
#define TERM(dots, z, sums)                                                                        \
    wasm_f32x4_demote_f64x2_zero(wasm_f64x2_sub(                                                   \
        wasm_f64x2_convert_low_i32x4(dots),                                                        \
        wasm_f64x2_mul(wasm_f64x2_promote_low_f32x4(z), wasm_f64x2_convert_low_i32x4(sums))))
#define HIGH(v) wasm_i64x2_shuffle(v, v, 1, 1)
    return wasm_i64x2_shuffle(TERM(dots, z, sums), TERM(HIGH(dots), HIGH(z), HIGH(sums)), 0, 2);
#undef HIGH
#undef TERM
}

DBT_WASM_INLINE v128_t apply_zero_points(v128_t dots, const void *zero_points,
                                         const int32_t *a_sums, const bool floats) {
    const v128_t sums = wasm_v128_load(a_sums), z = wasm_v128_load(zero_points);
    if (floats) return apply_float_zero_points(dots, z, sums);
    return wasm_f32x4_convert_i32x4(wasm_i32x4_sub(dots, wasm_i32x4_mul(z, sums)));
}

/* Elements [m, m + rows) of columns [n, n + columns) of Y, or, unless `all`, of column n alone; b are
 * those rows of B, or each is row n; i is the first's place in the tile. `single`: a vector of B has one
 * block or more, so that each is a vector of sums. */
DBT_WASM_INLINE void int8_elements(const dbt_nbits_task *t, const uint8_t *const *b,
                                   const int columns, bool all, rows_of_a a, int64_t n, int64_t i,
                                   int64_t m, const int rows, const uint32_t bits, const int lanes,
                                   const bool single) {
    const dbt_matmul_nbits *const p = t->p;
    const dbt_nbits_activations *const act = t->activations;
    const size_t codes = 16 * (size_t)interleave_of(bits);
    const size_t n_vectors = ((size_t)p->K + codes - 1) / codes;
    const size_t per_sum = single ? 1 : (size_t)p->block_size / codes;
    const size_t k_blocks = (size_t)p->k_blocks;
    const bool float_zero_points = dbt_nbits_float_zero_points(p);
    const v128_t mask = plane_mask(bits);
    const float *scales[INT8_COLUMNS], *zero_points[INT8_COLUMNS], *a_scales[INT8_ROWS];
    const int32_t *a_sums[INT8_ROWS];
    v128_t y[INT8_COLUMNS][INT8_ROWS];
    DBT_UNROLL
    for (int c = 0; c < columns; c++) {
        const int64_t next = all ? c : 0;
        scales[c] = scales_of(t, n + next, i + next);
        zero_points[c] = (const float *)t->zero_points + (i + next) * t->blocks_stride;
        DBT_UNROLL
        for (int r = 0; r < rows; r++) y[c][r] = wasm_f32x4_splat(0);
    }
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        a_scales[r] = act->scale + (m + r) * act->blocks_stride;
        a_sums[r] = act->sum + (m + r) * act->blocks_stride;
    }
    size_t vector = 0;
    for (size_t g = 0; g < k_blocks; g += 4) {
        sums_of v;
        DBT_UNROLL
        for (int j = 0; j < lanes; j++) {
            DBT_UNROLL
            for (int c = 0; c < columns; c++) {
                DBT_UNROLL
                for (int r = 0; r < rows; r++) v[c][r][j] = wasm_i32x4_splat(0);
            }
            /* A's rows are filled with zeros as far as single vectors go. */
            const size_t first = single ? g / 4 * (size_t)lanes + (size_t)j : vector;
            const size_t end = single                        ? first + 1
                               : first + per_sum < n_vectors ? first + per_sum
                                                             : n_vectors;
            for (vector = first; vector < end; vector++) {
                const uint8_t *at_a[INT8_ROWS], *at_b[INT8_COLUMNS];
                DBT_UNROLL
                for (int r = 0; r < rows; r++) {
                    at_a[r] = a.data + (size_t)r * a.stride + activations_at(vector, bits);
                }
                DBT_UNROLL
                for (int c = 0; c < columns; c++) at_b[c] = b[c] + 16 * vector;
                add_vector(at_b, columns, at_a, rows, bits, mask, v, j);
            }
        }
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            const v128_t a_scale = wasm_v128_load(a_scales[r] + g);
            DBT_UNROLL
            for (int c = 0; c < columns; c++) {
                const v128_t term =
                    apply_zero_points(block_sums(v[c][r], lanes), zero_points[c] + g, a_sums[r] + g,
                                      float_zero_points);
                const v128_t scale = wasm_f32x4_mul(a_scale, wasm_v128_load(scales[c] + g));
                y[c][r] = dbt_wasm_madd(scale, term, y[c][r]);
            }
        }
    }
    DBT_UNROLL
    for (int c = 0; c < columns && (c == 0 || all); c++) {
        const float bias = p->bias ? p->bias[n + c] : 0.0f;
        DBT_UNROLL
        for (int r = 0; r < rows; r++) p->y[(m + r) * p->N + n + c] = dbt_wasm_sum(y[c][r]) + bias;
    }
}

/* The tile of rows of B with all rows of A. `wide` has room for INT8_ROWS rows of A in 16 bits; it holds
 * them already when `widened`. `unpacked`: the tile's rows, a byte a code, t->row_stride apart. */
DBT_WASM_INLINE void multiply_tile(const dbt_nbits_task *t, int64_t n_begin, int64_t n_end,
                                   const uint8_t *unpacked, uint8_t *wide, bool widened,
                                   const uint32_t bits, const int lanes, const bool single) {
    const dbt_nbits_activations *const act = t->activations;
    const int64_t row_bytes = dbt_nbits_row_bytes(t->p), bytes = t->row_stride * bits / 8;
    for (int64_t m = t->m_begin; m < t->m_end;) {
        const int rows = t->m_end - m >= INT8_ROWS ? INT8_ROWS : 1;
        rows_of_a a = {(const uint8_t *)act->q + m * act->row_bytes, (size_t)act->row_bytes};
        if (!by_bytes(bits)) {
            a.data = wide + (widened ? (m - t->m_begin) * 2 * act->row_bytes : 0);
            a.stride = 2 * (size_t)act->row_bytes;
            for (int r = 0; r < rows && !widened; r++)
                widen_row(act, m + r, bits, wide + (size_t)r * a.stride);
        }
        for (int64_t n = n_begin; n < n_end;) {
            const int64_t i = n - n_begin;
            /* There is one place for a row that has to be copied. */
            const bool two = n + 1 < n_end && (unpacked || (t->p->N - n - 1) * row_bytes >= bytes);
            const uint8_t *b[INT8_COLUMNS];
            b[0] = unpacked ? unpacked + i * t->row_stride : readable_row(t, n, bytes);
            b[1] = two ? b[0] + (unpacked ? t->row_stride : row_bytes) : b[0];
            if (rows < INT8_ROWS) {
                int8_elements(t, b, INT8_COLUMNS, two, a, n, i, m, 1, bits, lanes, single);
                n += two ? INT8_COLUMNS : 1;
            } else if (by_bytes(bits)) {
                int8_elements(t, b, INT8_COLUMNS, two, a, n, i, m, INT8_ROWS, bits, lanes, single);
                n += two ? INT8_COLUMNS : 1;
            } else { /* the sums of two columns would not stay in registers */
                int8_elements(t, b, 1, two, a, n, i, m, INT8_ROWS, bits, lanes, single);
                n++;
            }
        }
        m += rows;
    }
}

/* The same code for all widths that were unpacked first: their bytes are at most 127. */
static DBT_NOINLINE void multiply_bytes(const dbt_nbits_task *t, int64_t n_begin, int64_t n_end,
                                        const uint8_t *unpacked, uint8_t *wide, bool widened) {
    multiply_tile(t, n_begin, n_end, unpacked, wide, widened, 7, 4, false);
}

DBT_WASM_INLINE void unpack_row(const dbt_nbits_task *t, int64_t n, uint8_t *out,
                                const uint32_t bits) {
    const int64_t K = t->p->K;
    const uint8_t *const b = readable_row(t, n, (K + 31) / 32 * 4 * bits + 16);
    for (int64_t k = 0; k < K; k += 16) wasm_v128_store(out + k, bytes16(b + k / 8 * bits, bits));
}

DBT_WASM_INLINE void run_int8(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const bool odd = bits != 2 && bits != 4 && bits != 8;
    const int64_t lanes = p->block_size / (4 * interleave_of(bits));
    /* Half of the room for rows is for A. */
    const int64_t tile = t->n_tile / 2;
    uint8_t *const rows = t->rows, *const wide = rows + tile * t->row_stride;
    const bool widened = !by_bytes(bits) && t->m_end - t->m_begin <= INT8_ROWS;
    for (int64_t m = t->m_begin; m < t->m_end && widened; m++) {
        widen_row(t->activations, m, bits, wide + (m - t->m_begin) * 2 * t->activations->row_bytes);
    }
    for (int64_t begin = t->n_begin; begin < t->n_end; begin += tile) {
        const int64_t end = least(begin + tile, t->n_end);
        for (int64_t n = begin; n < end; n++) {
            decode_blocks(t, n, n - begin, bits);
            if (odd) unpack_row(t, n, rows + (n - begin) * t->row_stride, bits);
        }
        if (odd) {
            multiply_bytes(t, begin, end, rows, wide, widened);
        } else if (bits == 2 && lanes == 1) {
            multiply_tile(t, begin, end, NULL, wide, widened, bits, 1, true);
        } else if (bits != 8 && lanes == 2) {
            multiply_tile(t, begin, end, NULL, wide, widened, bits, 2, true);
        } else if (bits != 8 && lanes == 4) {
            multiply_tile(t, begin, end, NULL, wide, widened, bits, 4, true);
        } else {
            multiply_tile(t, begin, end, NULL, wide, widened, bits, 4, false);
        }
    }
}

/* ---- Float activations, one row of A ---- */

DBT_WASM_INLINE float float_element(const dbt_nbits_task *t, const uint8_t *b, const float *a,
                                    const float *scales, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const places at = places_of(bits);
    const v128_t down = bits == 8 ? wasm_f32x4_splat(1) : at.down;
    const v128_t up = wasm_f32x4_div(wasm_f32x4_splat(1), down);
    v128_t y = wasm_f32x4_splat(0);
    for (int64_t g = 0; g < p->k_blocks; g++) {
        const int64_t end = least(p->K, (g + 1) * p->block_size);
        const v128_t zero_point =
            wasm_f32x4_mul(wasm_v128_load32_splat((const float *)t->zero_points + g), up);
        v128_t even = wasm_f32x4_splat(0), odd = even;
        int64_t k = g * p->block_size;
        const uint8_t *code = b + k / 8 * bits;
        for (; k + 8 <= end; k += 8, code += bits) {
            const words w = words8(code, bits);
            even = dbt_wasm_madd(wasm_v128_load(a + k),
                                 wasm_f32x4_sub(placed4(w.low, at, bits), zero_point), even);
            odd = dbt_wasm_madd(wasm_v128_load(a + k + 4),
                                wasm_f32x4_sub(placed4(w.high, at, bits), zero_point), odd);
        }
        if (k < end) {
            const words w = words8(code, bits);
            even = dbt_wasm_madd(dbt_wasm_load_some(a + k, end - k),
                                 wasm_f32x4_sub(placed4(w.low, at, bits), zero_point), even);
            if (end - k > 4) {
                odd = dbt_wasm_madd(dbt_wasm_load_some(a + k + 4, end - k - 4),
                                    wasm_f32x4_sub(placed4(w.high, at, bits), zero_point), odd);
            }
        }
        const v128_t scale = wasm_f32x4_mul(wasm_v128_load32_splat(scales + g), down);
        y = dbt_wasm_madd(scale, wasm_f32x4_add(even, odd), y);
    }
    return dbt_wasm_sum(y);
}

static inline int64_t float_readable_bytes(const dbt_matmul_nbits *p, uint32_t bits) {
    return (p->K + 7) / 8 * bits + 8;
}

DBT_WASM_INLINE void run_float_matvec(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    for (int64_t n = t->n_begin; n < t->n_end; n++) {
        decode_blocks(t, n, 0, bits);
        const float *const scales = scales_of(t, n, 0);
        const uint8_t *const b = readable_row(t, n, float_readable_bytes(p, bits));
        const float bias = p->bias ? p->bias[n] : 0.0f;
        for (int64_t m = t->m_begin; m < t->m_end; m++) {
            p->y[m * p->N + n] = float_element(t, b, p->a + m * p->K, scales, bits) + bias;
        }
    }
}

/* ---- Float activations, many rows of A ---- */

DBT_WASM_INLINE v128_t gather4(const float *values, const int32_t *g, int64_t n) {
    return wasm_f32x4_make(values[g[0]], n > 1 ? values[g[1]] : 0.0f, n > 2 ? values[g[2]] : 0.0f,
                           n > 3 ? values[g[3]] : 0.0f);
}

/* Row n of B as floats, up to a multiple of 8. What is past K is never multiplied. */
DBT_WASM_INLINE void unpack_floats(const dbt_nbits_task *t, int64_t n, float *w,
                                   const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const places at = places_of(bits);
    decode_blocks(t, n, 0, bits);
    const float *const scales = scales_of(t, n, 0), *const zero_points = t->zero_points;
    const uint8_t *b = readable_row(t, n, float_readable_bytes(p, bits));
    for (int64_t k = 0; k < p->K; k += 8, b += bits) {
        const words both = words8(b, bits);
        for (int h = 0; h < 2; h++) {
            const int64_t first = k + 4 * h;
            if (first >= p->K) break;
            v128_t zero_point, scale;
            if (p->g_idx) {
                zero_point = gather4(zero_points, p->g_idx + first, p->K - first);
                scale = gather4(scales, p->g_idx + first, p->K - first);
            } else {
                const int64_t g = k / p->block_size;
                zero_point = wasm_v128_load32_splat(zero_points + g);
                scale = wasm_v128_load32_splat(scales + g);
            }
            const v128_t v = floats_of(h ? both.high : both.low, at, bits);
            wasm_v128_store(w + first, wasm_f32x4_mul(wasm_f32x4_sub(v, zero_point), scale));
        }
    }
}

/* y[r, c] = sum_k a[r, k] * w[c, k] + bias[c] for rows x 4 elements. */
DBT_WASM_INLINE void dot_block(const float *a, int64_t a_stride, const float *w, int64_t w_stride,
                               int64_t K, const int rows, const float *bias, float *y,
                               int64_t y_stride) {
    v128_t sums[2][4];
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        DBT_UNROLL
        for (int c = 0; c < 4; c++) sums[r][c] = wasm_f32x4_splat(0);
    }
    int64_t k = 0;
    for (; k + 4 <= K; k += 4) {
        DBT_UNROLL
        for (int c = 0; c < 4; c++) {
            const v128_t u = wasm_v128_load(w + c * w_stride + k);
            DBT_UNROLL
            for (int r = 0; r < rows; r++) {
                sums[r][c] = dbt_wasm_madd(wasm_v128_load(a + r * a_stride + k), u, sums[r][c]);
            }
        }
    }
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        float out[4];
        wasm_v128_store(out, dbt_wasm_sum4(sums[r][0], sums[r][1], sums[r][2], sums[r][3]));
        for (int c = 0; c < 4; c++) {
            for (int64_t i = k; i < K; i++) out[c] += a[r * a_stride + i] * w[c * w_stride + i];
            y[r * y_stride + c] = out[c] + (bias ? bias[c] : 0.0f);
        }
    }
}

static float dot_one(const float *a, const float *w, int64_t K) {
    v128_t sum = wasm_f32x4_splat(0);
    int64_t k = 0;
    for (; k + 4 <= K; k += 4)
        sum = dbt_wasm_madd(wasm_v128_load(a + k), wasm_v128_load(w + k), sum);
    float y = dbt_wasm_sum(sum);
    for (; k < K; k++) y += a[k] * w[k];
    return y;
}

/* The rows of A of this task with `columns` (up to 4) unpacked rows of B. */
static void dot_columns(const dbt_nbits_task *t, int64_t n, int columns, const float *w) {
    const dbt_matmul_nbits *const p = t->p;
    const float *const bias = p->bias ? p->bias + n : NULL;
    for (int64_t m = t->m_begin; m < t->m_end;) {
        const float *const a = p->a + m * p->K;
        float *const y = p->y + m * p->N + n;
        if (columns < 4) {
            for (int c = 0; c < columns; c++) {
                y[c] = dot_one(a, w + c * t->row_stride, p->K) + (bias ? bias[c] : 0.0f);
            }
            m++;
        } else if (t->m_end - m >= 2) {
            dot_block(a, p->K, w, t->row_stride, p->K, 2, bias, y, p->N);
            m += 2;
        } else {
            dot_block(a, p->K, w, t->row_stride, p->K, 1, bias, y, p->N);
            m++;
        }
    }
}

DBT_WASM_INLINE void run_float_tile(const dbt_nbits_task *t, const uint32_t bits) {
    for (int64_t n = t->n_begin; n < t->n_end; n += 4) {
        const int columns = (int)least(4, t->n_end - n);
        float *const w = t->rows;
        for (int c = 0; c < columns; c++) unpack_floats(t, n + c, w + c * t->row_stride, bits);
        dot_columns(t, n, columns, w);
    }
}

#define SUFFIX wasm
#define FORMS(RUN) RUN(int8) RUN(float_tile) RUN(float_matvec)
#include "ops/matmul_nbits/cpu_widths_tmpl.h"

/* MatMulNBits in WebAssembly, with SIMD or with relaxed SIMD, reading B where it lies. Built as
 * cpu_avx2.c is: there are the layouts; here is what 128 bits change.
 *
 * INT8 ACTIVATIONS. 16 bytes of B are one vector; shifts and masks make planes of it.
 *     relaxed   a plane is 16 codes, a byte each, at most 127 for up to 7 bits, so that
 *               i32x4.relaxed_dot_i8x16_i7x16_add is exact on every machine. The activations lie as
 *               dbt_nbits_activations says.
 *     else      a plane is 8 codes in 16 bits, for i32x4.dot_i16x8. The activations are widened into
 *               the same order.
 * 8 bits take the second way in both. Odd widths are unpacked to bytes first, and are then one of both.
 * Four 32-bit lanes of sums are 4, 2 or 1 block; `lanes` vectors become one of 4 blocks' sums. More rows of A
 * are cpu_wasm_tile.c's.
 *
 * FLOAT ACTIVATIONS. Four codes become floats where they lie in a word: code l of a vector is masked in
 * place, which is code * 2^(bits * l), exact, and so is the zero point times the same; what the lane
 * has too much is taken out of a block's sum at its end, together with the scale. */
#include "ops/matmul_nbits/cpu_wasm.h"

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Codes ---- */

/* The bit places of four codes in a word, as masks and as factors. Of factors that it knows clang makes shifts, which
 * wasm has not for each lane by itself. */
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
        dbt_wasm_unknown(wasm_u32x4_make(1u << 3 * n, 1u << 2 * n, 1u << n, 1u)),
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
    const size_t size = (size_t)dbt_nbits_float_bytes(type);
    const uint8_t *const at = (const uint8_t *)data + i * (int64_t)size;
    uint8_t few[16] = {0};
    if (n < 4) memcpy(few, at, (size_t)n * size);
    return dbt_wasm_load4(n < 4 ? few : at, type);
}

/* Whether 4 scales at a time can be read where they lie. */
static inline bool scales_in_place(const dbt_matmul_nbits *p) {
    return p->scale_type == DIBIT_TYPE_FLOAT && p->k_blocks % 4 == 0;
}

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

const float *dbt_wasm_decode_blocks(const dbt_nbits_task *t, int64_t n, int64_t i) {
    switch (t->p->bits) {
#define WIDTH(bits)                                                                                \
    case bits: decode_blocks(t, n, i, bits); break;
        WIDTH(1)
        WIDTH(2)
        WIDTH(3)
        WIDTH(4)
        WIDTH(5)
        WIDTH(6)
        WIDTH(7)
        WIDTH(8)
#undef WIDTH
    }
    return scales_in_place(t->p) ? (const float *)t->p->scales + n * t->p->k_blocks
                                 : t->scales + i * t->blocks_stride;
}

/* ---- Rounding activations ---- */

/* 16 elements, rounded to nearest even; adds them to *sum. A float near 1.5 * 2^23 has no bits for a fraction, and its
 * lowest ones are an integer. */
DBT_WASM_INLINE v128_t round16(const v128_t *a, v128_t by, v128_t *sum) {
    const v128_t magic = wasm_f32x4_splat(0x1.8p23f);
    v128_t v[4];
    DBT_UNROLL
    for (int i = 0; i < 4; i++) {
        v[i] = wasm_i32x4_sub(wasm_f32x4_add(wasm_f32x4_mul(a[i], by), magic), magic);
        *sum = wasm_i32x4_add(*sum, v[i]);
    }
    return wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(v[0], v[1]),
                                   wasm_i16x8_narrow_i32x4(v[2], v[3]));
}

/* n elements to q, which has room for a multiple of 16; zeros after them. */
static void quantize_block(const float *a, int64_t n, int8_t *q, float *scale, int32_t *sum) {
    v128_t most = wasm_i32x4_splat(0), total = most; /* as bits: ordered like the values */
    for (int64_t i = 0; i < n; i += 4) {
        const v128_t v = dbt_wasm_load_some(a + i, n - i);
        most = wasm_i32x4_max(most, wasm_v128_and(v, wasm_i32x4_splat(0x7fffffff)));
    }
    float of_lanes[4];
    wasm_v128_store(of_lanes, most);
    const float inverse = dbt_nbits_int8_scale(of_lanes, 4, scale);
    for (int64_t i = 0; i < n; i += 16) {
        v128_t v[4];
        DBT_UNROLL
        for (int j = 0; j < 4; j++) {
            const int64_t left = n - i - 4 * j;
            v[j] = left > 0 && inverse > 0.0f ? dbt_wasm_load_some(a + i + 4 * j, left)
                                              : wasm_f32x4_splat(0.0f);
        }
        wasm_v128_store(q + i, round16(v, wasm_f32x4_splat(inverse), &total));
    }
    *sum = wasm_i32x4_extract_lane(total, 0) + wasm_i32x4_extract_lane(total, 1) +
           wasm_i32x4_extract_lane(total, 2) + wasm_i32x4_extract_lane(total, 3);
}

void dbt_nbits_quantize_row_wasm(const dbt_matmul_nbits *p, uint32_t order, int64_t row_bytes,
                                 const float *a, int8_t *q, float *scale, int32_t *sum) {
    for (int64_t g = 0; g < p->k_blocks; g++) {
        const int64_t k = g * p->block_size;
        quantize_block(a + k, least(p->block_size, p->K - k), q + k, &scale[g], &sum[g]);
    }
    memset(q + p->K, 0, (size_t)(row_bytes - p->K));
    if (order == DBT_NBITS_PLANES(32, 4)) {
        const v128_t by4 = wasm_i8x16_make(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        for (int64_t k = 0; k < row_bytes; k += 128) {
            v128_t planes[2][4];
            for (int h = 0; h < 2; h++) {
                v128_t v[4];
                for (int i = 0; i < 4; i++)
                    v[i] = dbt_wasm_swizzle(wasm_v128_load(q + k + 64 * h + 16 * i), by4);
                dbt_wasm_turn(v, planes[h]);
            }
            for (int j = 0; j < 4; j++) {
                wasm_v128_store(q + k + 32 * j, planes[0][j]);
                wasm_v128_store(q + k + 32 * j + 16, planes[1][j]);
            }
        }
    } else if (order == DBT_NBITS_PLANES(32, 2)) {
        const v128_t by2 = wasm_i8x16_make(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        for (int64_t k = 0; k < row_bytes; k += 64) {
            v128_t v[4];
            for (int i = 0; i < 4; i++)
                v[i] = dbt_wasm_swizzle(wasm_v128_load(q + k + 16 * i), by2);
            for (int i = 0; i < 2; i++) {
                wasm_v128_store(q + k + 16 * i, wasm_i64x2_shuffle(v[2 * i], v[2 * i + 1], 0, 2));
                wasm_v128_store(q + k + 32 + 16 * i,
                                wasm_i64x2_shuffle(v[2 * i], v[2 * i + 1], 1, 3));
            }
        }
    }
}

/* ---- Int8 activations, one row of A ---- */

enum { INT8_COLUMNS = 2 }; /* rows of B that share the loads of A */

/* Bytes from a plane of a vector's activations to the next. */
DBT_WASM_INLINE int plane_bytes(uint32_t bits) { return dbt_wasm_by_bytes(bits) ? 32 : 16; }

/* The activations of vector v, in a row of A. */
DBT_WASM_INLINE size_t activations_at(size_t v, uint32_t bits) {
    const size_t planes = (size_t)dbt_wasm_planes(bits);
    return dbt_wasm_by_bytes(bits) ? 32 * planes * (v >> 1) + 16 * (v & 1) : 32 * planes * v;
}

/* The mask of a plane's codes, once for all vectors: V8 would make the constant anew for each. */
DBT_WASM_INLINE v128_t plane_mask(uint32_t bits) {
    const int width = bits == 2 || bits == 4 ? (int)bits : 8; /* of a code in a vector of B */
    return dbt_wasm_unknown(dbt_wasm_by_bytes(bits)
                                ? wasm_i8x16_splat((int8_t)((1 << width) - 1))
                                : wasm_i16x8_splat((int16_t)((1 << width) - 1)));
}

typedef v128_t sums_of[INT8_COLUMNS][4];

/* Adds the products of a vector of each of INT8_COLUMNS rows of B with the row of A to sums[..][at]. */
DBT_WASM_INLINE void add_vector(const uint8_t *const *b, const uint8_t *a, const uint32_t bits,
                                v128_t mask, sums_of sums, const int at) {
    const bool by_bytes = dbt_wasm_by_bytes(bits);
    const uint32_t width = dbt_wasm_planes(bits) == 1 ? 8 : bits;
    const int planes = by_bytes ? dbt_wasm_planes(bits) : 2 * dbt_wasm_planes(bits);
    v128_t packed[INT8_COLUMNS];
    DBT_UNROLL
    for (int c = 0; c < INT8_COLUMNS; c++) packed[c] = wasm_v128_load(b[c]);
    DBT_UNROLL
    for (int j = 0; j < planes; j++) {
        const v128_t q = wasm_v128_load(a + j * plane_bytes(bits));
        DBT_UNROLL
        for (int c = 0; c < INT8_COLUMNS; c++) {
            v128_t codes = wasm_u16x8_shr(packed[c], (uint32_t)j * width);
            if (by_bytes ? planes > 1 : j + 1 < planes) codes = wasm_v128_and(codes, mask);
            v128_t *const sum = &sums[c][at];
            *sum = by_bytes ? DBT_WASM_DOT_BYTES(q, codes, *sum)
                            : wasm_i32x4_add(*sum, wasm_i32x4_dot_i16x8(q, codes));
        }
    }
}

/* Row m of A in 16 bits: the even bytes of each plane, and after all planes the odd ones. */
DBT_WASM_INLINE void widen_row(const dbt_nbits_activations *act, int64_t m, const uint32_t bits,
                               uint8_t *out) {
    const int planes = dbt_wasm_planes(bits);
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

/* One function, since it is rare and long. */
DBT_NOINLINE v128_t dbt_wasm_apply_float_zero_points(v128_t dots, v128_t z, v128_t sums) {
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
    if (floats) return dbt_wasm_apply_float_zero_points(dots, z, sums);
    return wasm_f32x4_convert_i32x4(wasm_i32x4_sub(dots, wasm_i32x4_mul(z, sums)));
}

/* Columns n and n + 1 of row m of Y, or, unless `two`, column n alone; b are those rows of B, or each is row
 * n; i is the first's place in the tile. `single`: a vector of B has one block or more, so that each is a
 * vector of sums. */
DBT_WASM_INLINE void int8_elements(const dbt_nbits_task *t, const uint8_t *const *b, bool two,
                                   const uint8_t *a, const float *const *tile_scales, int64_t n,
                                   int64_t i, int64_t m, const uint32_t bits, const int lanes,
                                   const bool single) {
    const dbt_matmul_nbits *const p = t->p;
    const dbt_nbits_activations *const act = t->activations;
    const size_t codes = 16 * (size_t)dbt_wasm_planes(bits);
    const size_t n_vectors = ((size_t)p->K + codes - 1) / codes;
    const size_t per_sum = single ? 1 : (size_t)p->block_size / codes;
    const size_t k_blocks = (size_t)p->k_blocks;
    const bool float_zero_points = dbt_nbits_float_zero_points(p);
    const v128_t mask = plane_mask(bits);
    const float *const a_scales = act->scale + m * act->blocks_stride;
    const int32_t *const a_sums = act->sum + m * act->blocks_stride;
    const float *scales[INT8_COLUMNS], *zero_points[INT8_COLUMNS];
    v128_t y[INT8_COLUMNS];
    DBT_UNROLL
    for (int c = 0; c < INT8_COLUMNS; c++) {
        const int64_t row = i + (two ? c : 0);
        scales[c] = tile_scales[row];
        zero_points[c] = (const float *)t->zero_points + row * t->blocks_stride;
        y[c] = wasm_f32x4_splat(0);
    }
    size_t vector = 0;
    for (size_t g = 0; g < k_blocks; g += 4) {
        sums_of v;
        DBT_UNROLL
        for (int j = 0; j < lanes; j++) {
            v[0][j] = v[1][j] = wasm_i32x4_splat(0);
            /* A's rows are filled with zeros as far as single vectors go. */
            const size_t first = single ? g / 4 * (size_t)lanes + (size_t)j : vector;
            const size_t end = single                        ? first + 1
                               : first + per_sum < n_vectors ? first + per_sum
                                                             : n_vectors;
            for (vector = first; vector < end; vector++) {
                const uint8_t *const at_b[] = {b[0] + 16 * vector, b[1] + 16 * vector};
                add_vector(at_b, a + activations_at(vector, bits), bits, mask, v, j);
            }
        }
        const v128_t a_scale = wasm_v128_load(a_scales + g);
        DBT_UNROLL
        for (int c = 0; c < INT8_COLUMNS; c++) {
            const v128_t term = apply_zero_points(block_sums(v[c], lanes), zero_points[c] + g,
                                                  a_sums + g, float_zero_points);
            const v128_t scale = wasm_f32x4_mul(a_scale, wasm_v128_load(scales[c] + g));
            y[c] = dbt_wasm_madd(scale, term, y[c]);
        }
    }
    for (int c = 0; c < (two ? 2 : 1); c++) {
        p->y[m * p->N + n + c] = dbt_wasm_sum(y[c]) + (p->bias ? p->bias[n + c] : 0.0f);
    }
}

enum { INT8_TILE = 8 }; /* rows of B: half of the room for rows is for A */

/* The tile of rows of B with all rows of A. `wide` has room for a row of A in 16 bits, or holds the task's only
 * one. `unpacked`: the tile's rows, a byte a code, t->row_stride apart. */
DBT_WASM_INLINE void multiply_tile(const dbt_nbits_task *t, int64_t n_begin, int64_t n_end,
                                   const float *const *scales, const uint8_t *unpacked,
                                   uint8_t *wide, const uint32_t bits, const int lanes,
                                   const bool single) {
    const dbt_nbits_activations *const act = t->activations;
    const int64_t row_bytes = dbt_nbits_row_bytes(t->p), bytes = t->row_stride * bits / 8;
    for (int64_t m = t->m_begin; m < t->m_end; m++) {
        const uint8_t *a = (const uint8_t *)act->q + m * act->row_bytes;
        if (!dbt_wasm_by_bytes(bits)) {
            if (t->m_end - t->m_begin > 1 || n_begin == t->n_begin) widen_row(act, m, bits, wide);
            a = wide;
        }
        for (int64_t n = n_begin; n < n_end;) {
            const int64_t i = n - n_begin;
            /* There is one place for a row that has to be copied. */
            const bool two = n + 1 < n_end && (unpacked || (t->p->N - n - 1) * row_bytes >= bytes);
            const uint8_t *b[INT8_COLUMNS];
            b[0] = unpacked ? unpacked + i * t->row_stride : readable_row(t, n, bytes);
            b[1] = two ? b[0] + (unpacked ? t->row_stride : row_bytes) : b[0];
            int8_elements(t, b, two, a, scales, n, i, m, bits, lanes, single);
            n += two ? 2 : 1;
        }
    }
}

/* The same code for all widths that were unpacked first: their bytes are at most 127. */
static DBT_NOINLINE void multiply_bytes(const dbt_nbits_task *t, int64_t n_begin, int64_t n_end,
                                        const float *const *scales, const uint8_t *unpacked,
                                        uint8_t *wide) {
    multiply_tile(t, n_begin, n_end, scales, unpacked, wide, 7, 4, false);
}

DBT_WASM_INLINE void unpack_row(const dbt_nbits_task *t, int64_t n, uint8_t *out,
                                const uint32_t bits) {
    const int64_t K = t->p->K;
    const uint8_t *const b = readable_row(t, n, (K + 31) / 32 * 4 * bits + 16);
    for (int64_t k = 0; k < K; k += 16) {
        wasm_v128_store(out + k, dbt_wasm_bytes16(b + k / 8 * bits, bits));
    }
}

DBT_WASM_INLINE void run_int8(const dbt_nbits_task *t, const uint32_t bits) {
    const bool odd = bits != 2 && bits != 4 && bits != 8;
    const int64_t lanes = t->p->block_size / (4 * dbt_wasm_planes(bits));
    uint8_t *const rows = t->rows, *const wide = rows + INT8_TILE * t->row_stride;
    for (int64_t begin = t->n_begin; begin < t->n_end; begin += INT8_TILE) {
        const int64_t end = least(begin + INT8_TILE, t->n_end);
        const float *scales[INT8_TILE];
        for (int64_t n = begin; n < end; n++) {
            scales[n - begin] = dbt_wasm_decode_blocks(t, n, n - begin);
            if (odd) unpack_row(t, n, rows + (n - begin) * t->row_stride, bits);
        }
        if (odd) {
            multiply_bytes(t, begin, end, scales, rows, wide);
        } else if (bits == 2 && lanes == 1) {
            multiply_tile(t, begin, end, scales, NULL, wide, bits, 1, true);
        } else if (bits != 8 && lanes == 2) {
            multiply_tile(t, begin, end, scales, NULL, wide, bits, 2, true);
        } else if (bits != 8 && lanes == 4) {
            multiply_tile(t, begin, end, scales, NULL, wide, bits, 4, true);
        } else {
            multiply_tile(t, begin, end, scales, NULL, wide, bits, 4, false);
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
        const float *const scales = dbt_wasm_decode_blocks(t, n, 0);
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
    const float *const scales = dbt_wasm_decode_blocks(t, n, 0), *const zero_points =
                                                                     t->zero_points;
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

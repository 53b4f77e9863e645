/* Few rows of A, int8: B is read where it lies and never written down. PRODUCTS sums are made side by side: of one
 * row of A with rows of B that are far from each other, since that many streams keep more of memory's answers
 * under way than one would; or of four rows of A with one of B, whose codes are then unpacked once.
 *
 * A lane of a group's product holds 4 * planes neighbouring codes, so a block takes block_size / (4 * planes)
 * of them. `lanes` vectors (all VL lanes of a vector if the block is larger) hold VL blocks and are added up
 * pairwise to one vector of VL block sums, which is put in order; zero points and scales are applied to it at once.
 *
 *     2 bits, block 32, VL 16    v0 |b0 b0|b1 b1|...|b7 b7|    v1 |b8 b8|...|b15 b15|
 *                                -> |b0|b1|...|b15|
 */
/* AHEAD: bytes of a stream that are asked for early. Weights that no cache holds then take 0.7 of the time, and a
 * token of a small model 0.8 to 0.9 when the first bytes of each stream are asked for, too. */
enum { PRODUCTS = DBT_NBITS_STREAMS, AHEAD = 2048 };

/* Groups of this loop: with two planes of 3 bits, too, half as many lanes of a block are left to be added up. */
static DBT_ALWAYS_INLINE int row_planes(uint32_t bits) { return bits == 3 ? 2 : planes_of(bits); }
static DBT_ALWAYS_INLINE vi load_row_group(const uint8_t *b, int64_t left, uint32_t bits) {
#if defined(__AVX512VBMI__)
    if (bits == 3) return v_sixteens(b, left);
#endif
    return load_group(b, left, bits);
}
static DBT_ALWAYS_INLINE vi row_plane_of(vi group, int j, uint32_t bits) {
#if defined(__AVX512VBMI__)
    if (bits == 3) return v_plane_of_sixteens(group, j);
#endif
    return plane_of(group, j, bits);
}

/* What is multiplied: one row of A with rows n[] of B, or rows m[] of A with one row of B. */
typedef struct operands {
    const dbt_matmul_nbits *p;
    const uint8_t *b[PRODUCTS];
    float *blocks; /* see decode_rows */
    const int8_t *a[PRODUCTS];
    const float *a_scale[PRODUCTS];
    const int32_t *a_sum[PRODUCTS];
    int64_t n[PRODUCTS], m[PRODUCTS];
    int64_t bytes; /* of a row of B that meet activations */
    int64_t lanes, per_vector;
} operands;

/* ---- Scales and zero points of the rows of B, as floats: [ceil(k_blocks / VL), rows, 2, VL] ---- */

static DBT_ALWAYS_INLINE float *scales_at(float *blocks, int64_t g, int r, const int rows) {
    return blocks + 2 * (g * rows + r * VL);
}
static DBT_ALWAYS_INLINE float *zero_points_at(float *blocks, int64_t g, int r, const int rows) {
    return scales_at(blocks, g, r, rows) + VL;
}

/* Of an array [N, k_blocks], to out; zeros fill the last vector. */
static DBT_ALWAYS_INLINE void decode_floats(const operands *o, const void *data, dibit_type type,
                                            float *out, const int rows) {
    const int64_t count = o->p->k_blocks;
    int64_t g = 0;
    for (; g + VL <= count; g += VL) {
        DBT_UNROLL
        for (int r = 0; r < rows; r++)
            vf_store(scales_at(out, g, r, rows), v_floats(data, type, o->n[r] * count + g, VL));
    }
    if (g == count) return;
    DBT_UNROLL
    for (int r = 0; r < rows; r++)
        vf_store(scales_at(out, g, r, rows), v_floats(data, type, o->n[r] * count + g, count - g));
}
static DBT_ALWAYS_INLINE void decode_any(const operands *o, const void *data, dibit_type type,
                                         float *out, const int rows) {
    if (type == DIBIT_TYPE_FLOAT) decode_floats(o, data, DIBIT_TYPE_FLOAT, out, rows);
    if (type == DIBIT_TYPE_FLOAT16) decode_floats(o, data, DIBIT_TYPE_FLOAT16, out, rows);
    if (type == DIBIT_TYPE_BFLOAT16) decode_floats(o, data, DIBIT_TYPE_BFLOAT16, out, rows);
}
/* some: what follows a row need not have the 16 bytes that are read at once. */
static DBT_ALWAYS_INLINE void decode_codes(const operands *o, float *out, const uint32_t bits,
                                           const int rows, const bool some) {
    const dbt_matmul_nbits *const p = o->p;
    const int64_t row_bytes = dbt_nbits_zero_row_bytes(p);
    const uint8_t *const codes = p->zero_points;
    int64_t at = 0;
    for (int64_t g = 0; g < p->k_blocks; g += VL, at += VL / 8 * (int64_t)bits) {
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            const int64_t left = some ? (p->N - o->n[r]) * row_bytes - at : 16;
            const vi v = v_codes32(codes + o->n[r] * row_bytes + at, left, bits);
            vf_store(scales_at(out, g, r, rows), vf_of_int(v));
        }
    }
}
/* The first `rows` rows n[] of B, of which none is behind the next. */
static DBT_ALWAYS_INLINE void decode_rows(const operands *o, const uint32_t bits, const int rows) {
    const dbt_matmul_nbits *const p = o->p;
    float *const zero_points = zero_points_at(o->blocks, 0, 0, rows);
    decode_any(o, p->scales, p->scale_type, o->blocks, rows);
    if (!p->zero_points) return; /* run_int8_matvec has filled them */
    if (dbt_nbits_float_zero_points(p)) {
        decode_any(o, p->zero_points, p->zero_point_type, zero_points, rows);
    } else if ((p->N - 1 - o->n[rows - 1]) * dbt_nbits_zero_row_bytes(p) >= 16) {
        decode_codes(o, zero_points, bits, rows, false);
    } else {
        decode_codes(o, zero_points, bits, rows, true);
    }
}

#if defined(__AVX512F__)
#include "ops/matmul_nbits/cpu_int8_tail_tmpl.h"
#endif

/* Adds group `group` to sums; some: it may lie past the row's end, in whole or in part. */
static DBT_ALWAYS_INLINE void add_group(const operands *o, int64_t group, vi *sums,
                                        const uint32_t bits, const bool one_row, const bool some) {
    const int64_t at = group * group_bytes(row_planes(bits), bits), left = o->bytes - at;
    if (some && left <= 0) return;
    vi x[PRODUCTS], a = v_zero();
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) {
        x[r] = r == 0 || one_row ? load_row_group(o->b[r] + at, some ? left : VB, bits) : x[0];
        if (r == 0 || one_row) v_keep(x[r]);
        if (!some && (r == 0 || one_row)) DBT_PREFETCH(o->b[r] + at + AHEAD);
    }
    DBT_UNROLL
    for (int j = 0; j < row_planes(bits); j++) {
        DBT_UNROLL
        for (int r = 0; r < PRODUCTS; r++) {
            if (r == 0 || !one_row)
                a = v_load(o->a[r] + group * group_codes(row_planes(bits)) + j * VB);
            if (r == 0 && one_row) v_keep(a);
            sums[r] = v_dot(sums[r], row_plane_of(x[r], j, bits), a);
        }
    }
}

/* ---- Sums of VL blocks, whose first group is `group` ---- */

/* Of so many lanes each, all of which lie in the row. */
static DBT_ALWAYS_INLINE void sums1(const operands *o, int64_t group, vi *sums, const uint32_t bits,
                                    const bool one_row) {
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) sums[r] = v_zero();
    add_group(o, group, sums, bits, one_row, false);
}
#define SUMS(lanes, half, add)                                                                     \
    static DBT_ALWAYS_INLINE void sums##lanes(const operands *o, int64_t group, vi *sums,          \
                                              const uint32_t bits, const bool one_row) {           \
        vi more[PRODUCTS];                                                                         \
        sums##half(o, group, sums, bits, one_row);                                                 \
        sums##half(o, group + half, more, bits, one_row);                                          \
        DBT_UNROLL                                                                                 \
        for (int r = 0; r < PRODUCTS; r++) sums[r] = add(sums[r], more[r]);                        \
    }
SUMS(2, 1, v_add_near)
SUMS(4, 2, v_add_near)
SUMS(8, 4, v_add_far)
SUMS(16, 8, v_add_far)
#undef SUMS
/* Of any number of lanes, wherever the row ends. */
static DBT_ALWAYS_INLINE void sums_of_any(const operands *o, int64_t group, vi *sums,
                                          const uint32_t bits, const bool one_row) {
    vi v[VL][PRODUCTS];
    for (int64_t j = 0; j < o->lanes; j++) {
        DBT_UNROLL
        for (int r = 0; r < PRODUCTS; r++) sums[r] = v_zero();
        for (int64_t i = 0; i < o->per_vector; i++)
            add_group(o, group++, sums, bits, one_row, true);
        DBT_UNROLL
        for (int r = 0; r < PRODUCTS; r++) v[j][r] = sums[r];
    }
    for (int64_t n = o->lanes / 2; n > 0; n /= 2) {
        for (int64_t j = 0; j < n; j++) {
            DBT_UNROLL
            for (int r = 0; r < PRODUCTS; r++) v[j][r] = v_add_pairs(v[2 * j][r], v[2 * j + 1][r]);
        }
    }
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) sums[r] = v[0][r];
}

/* Adds the blocks [g, g + VL), whose sums are given, to y. narrow: see narrow_sums. */
static DBT_ALWAYS_INLINE void add_blocks(const operands *o, int64_t g, const vi *sums, vf *y,
                                         const bool one_row, const bool narrow) {
    const int rows = one_row ? PRODUCTS : 1;
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) {
        const int a = one_row ? 0 : r, b = one_row ? r : 0;
        const vf scale = vf_load(scales_at(o->blocks, g, b, rows));
        const vf zero_points = vf_load(zero_points_at(o->blocks, g, b, rows));
        const vf term = apply_float(sums[r], zero_points, v_load(o->a_sum[a] + g), narrow);
        y[r] = vf_fma(vf_mul(vf_load(o->a_scale[a] + g), scale), term, y[r]);
    }
}

/* The sums of the blocks [g, g + VL). */
static DBT_ALWAYS_INLINE void sums_of(const operands *o, int64_t group, vi *sums,
                                      const uint32_t bits, const bool one_row, const int lanes) {
    if (lanes == 1) sums1(o, group, sums, bits, one_row);
    if (lanes == 2) sums2(o, group, sums, bits, one_row);
    if (lanes == 4) sums4(o, group, sums, bits, one_row);
    if (lanes == 8) sums8(o, group, sums, bits, one_row);
    if (lanes == 16) sums16(o, group, sums, bits, one_row);
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) sums[r] = v_in_order(sums[r], lanes);
}
/* Adds the blocks [0, whole) to y. Where registers allow it, a vector of sums waits for the next one's loads and
 * dot products to be under way, so that the latency of what is done with it is hidden. */
static DBT_ALWAYS_INLINE void add_whole(const operands *o, int64_t whole, vf *y,
                                        const uint32_t bits, const bool one_row, const int lanes) {
    vi sums[PRODUCTS], next[PRODUCTS];
    int64_t g = 0, group = 0;
    if (whole == 0) return;
    if (lanes > 4) {
        for (; g < whole; g += VL, group += lanes) {
            sums_of(o, group, sums, bits, one_row, lanes);
            add_blocks(o, g, sums, y, one_row, true);
        }
        return;
    }
    sums_of(o, 0, sums, bits, one_row, lanes);
    for (; g + VL < whole; g += VL) {
        group += lanes;
        sums_of(o, group, next, bits, one_row, lanes);
        add_blocks(o, g, sums, y, one_row, true);
        DBT_UNROLL
        for (int r = 0; r < PRODUCTS; r++) sums[r] = next[r];
    }
    add_blocks(o, g, sums, y, one_row, true);
}

/* The products: what vectors of whole blocks there are by the loop for so many lanes, if there is one, and the
 * rest by that for any. */
static DBT_ALWAYS_INLINE void dot_rows(const operands *o, const uint32_t bits, const bool one_row) {
    const dbt_matmul_nbits *const p = o->p;
    const int64_t whole = p->K / p->block_size / VL * VL;
    int64_t g = whole;
    vf sums_of_y[PRODUCTS];
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) sums_of_y[r] = vf_zero();
    if (o->per_vector > 1) {
        g = 0;
    } else if (row_planes(bits) == 4 && o->lanes == 1) {
        add_whole(o, whole, sums_of_y, bits, one_row, 1);
    } else if (row_planes(bits) > 1 && o->lanes == 2) {
        add_whole(o, whole, sums_of_y, bits, one_row, 2);
    } else if (o->lanes == 4) {
        add_whole(o, whole, sums_of_y, bits, one_row, 4);
    } else if (o->lanes == 8) {
        add_whole(o, whole, sums_of_y, bits, one_row, 8);
    } else {
        add_whole(o, whole, sums_of_y, bits, one_row, 16);
    }
    __m128 rest = _mm_setzero_ps();
#if defined(__AVX512F__)
    if (one_row && is_tail(o, g, bits)) {
        rest = dot_tail(o, g, bits);
        g = p->k_blocks;
    }
#endif
    for (; g < p->k_blocks; g += VL) {
        vi sums[PRODUCTS];
        sums_of_any(o, g / VL * o->lanes * o->per_vector, sums, bits, one_row);
        add_blocks(o, g, sums, sums_of_y, one_row, narrow_sums(p));
    }
    float y[PRODUCTS];
    const __m128 whole_of_y = v_sums(sums_of_y[0], sums_of_y[1], sums_of_y[2], sums_of_y[3]);
    _mm_storeu_ps(y, _mm_add_ps(whole_of_y, rest));
    for (int r = 0; r < PRODUCTS; r++) {
        const int64_t m = o->m[one_row ? 0 : r], n = o->n[one_row ? r : 0];
        p->y[m * p->N + n] = y[r] + (p->bias ? p->bias[n] : 0.0f);
    }
}

static DBT_ALWAYS_INLINE void set_a(operands *o, int r, const dbt_nbits_activations *act,
                                    int64_t m) {
    o->m[r] = m;
    o->a[r] = act->q + m * act->row_bytes;
    o->a_scale[r] = act->scale + m * act->blocks_stride;
    o->a_sum[r] = act->sum + m * act->blocks_stride;
}
static DBT_ALWAYS_INLINE void set_b(operands *o, int r, int64_t n) {
    o->n[r] = n;
    o->b[r] = o->p->b + n * dbt_nbits_row_bytes(o->p);
}

static inline void ask_for(const void *data, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) DBT_PREFETCH((const uint8_t *)data + at);
}
/* Asks for the beginning of each stream, of `step` rows: what lies before it did not. */
static DBT_NOINLINE void ask_for_streams(const dbt_nbits_task *t, int64_t step) {
    const dbt_matmul_nbits *const p = t->p;
    const int64_t row_bytes = dbt_nbits_row_bytes(p), scale_bytes = dbt_nbits_scale_row_bytes(p);
    const int64_t zero_bytes = dbt_nbits_zero_point_row_bytes(p);
    for (int64_t n = t->n_begin; n < t->n_end; n += step) {
        ask_for(p->b + n * row_bytes, least(step * row_bytes, AHEAD));
        ask_for((const uint8_t *)p->scales + n * scale_bytes, least(step * scale_bytes, AHEAD));
        if (zero_bytes > 0)
            ask_for((const uint8_t *)p->zero_points + n * zero_bytes,
                    least(step * zero_bytes, AHEAD));
    }
}

static DBT_ALWAYS_INLINE void run_int8_matvec(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int64_t lanes = p->block_size / (4 * row_planes(bits));
    const int64_t groups =
        (p->K + group_codes(row_planes(bits)) - 1) / group_codes(row_planes(bits));
    const int64_t step = (t->n_end - t->n_begin + PRODUCTS - 1) / PRODUCTS;
    operands o = {.p = p,
                  .blocks = t->scales,
                  .bytes =
                      least(dbt_nbits_row_bytes(p), groups * group_bytes(row_planes(bits), bits)),
                  .lanes = least(lanes, VL),
                  .per_vector = lanes > VL ? lanes / VL : 1};
    if (!p->zero_points) {
        for (int64_t i = VL; i < 2 * PRODUCTS * t->blocks_stride; i += 2 * VL)
            vf_store(t->scales + i, vf_set((float)(1 << (bits - 1))));
    }
    if (t->m_end - t->m_begin > 2) {
        ask_for_streams(t, t->n_end - t->n_begin);
        for (int64_t n = t->n_begin; n < t->n_end; n++) {
            set_b(&o, 0, n);
            decode_rows(&o, bits, 1);
            for (int64_t m = t->m_begin; m < t->m_end; m += PRODUCTS) {
                for (int r = 0; r < PRODUCTS; r++)
                    set_a(&o, r, t->activations, least(m + r, t->m_end - 1));
                dot_rows(&o, bits, false);
            }
        }
        return;
    }
    ask_for_streams(t, step);
    for (int64_t i = 0; i < step; i++) {
        for (int r = 0; r < PRODUCTS; r++)
            set_b(&o, r, least(t->n_begin + r * step + i, t->n_end - 1));
        decode_rows(&o, bits, PRODUCTS);
        for (int64_t m = t->m_begin; m < t->m_end; m++) {
            set_a(&o, 0, t->activations, m);
            dot_rows(&o, bits, true);
        }
    }
}

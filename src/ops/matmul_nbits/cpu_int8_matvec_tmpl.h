/* Few rows of A, int8: B is read where it lies and never written down. PRODUCTS sums are made side by side: of one
 * row of A with rows of B that are far from each other, since that many streams keep more of memory's answers
 * under way than one would; or of four rows of A with one of B, whose codes are then unpacked once.
 *
 * A lane of a group's product holds 4 * planes neighbouring codes, so a block takes block_size / (4 * planes)
 * of them. `lanes` vectors (all VL lanes of a vector if the block is larger) hold VL blocks and are added up
 * pairwise to one vector of VL block sums; zero points and scales are applied to it at once.
 *
 *     2 bits, block 32, VL 16    v0 |b0 b0|b1 b1|...|b7 b7|    v1 |b8 b8|...|b15 b15|
 *                                -> |b0|b1|...|b15|
 */
/* AHEAD: bytes of a stream that are asked for early. Weights that no cache holds then take 0.7 of the time. */
enum { PRODUCTS = 4, AHEAD = 1024 };

/* What is multiplied: rows n[] of B with rows m[] of A. All rows of one of the two are the same: its first entry
 * stands for all. */
typedef struct operands {
    const dbt_matmul_nbits *p;
    const uint8_t *b[PRODUCTS];
    const int8_t *a[PRODUCTS];
    const float *a_scale[PRODUCTS];
    const int32_t *a_sum[PRODUCTS];
    int64_t n[PRODUCTS], m[PRODUCTS];
    int64_t bytes; /* of a row of B that meet activations */
    int64_t lanes, per_vector;
} operands;

#if defined(__AVX512F__)
#include "ops/matmul_nbits/cpu_int8_tail_tmpl.h"
#endif

/* Adds group `group` to sums; some: it may lie past the row's end, in whole or in part. */
static DBT_ALWAYS_INLINE void add_group(const operands *o, int64_t group, vi *sums,
                                        const uint32_t bits, const bool one_row, const bool some) {
    const int64_t at = group * group_bytes(bits), left = o->bytes - at;
    if (some && left <= 0) return;
    vi x[PRODUCTS], a = v_zero();
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) {
        x[r] = r == 0 || one_row ? load_group(o->b[r] + at, some ? left : VB, bits) : x[0];
        if (!some && (r == 0 || one_row)) DBT_PREFETCH(o->b[r] + at + AHEAD);
    }
    DBT_UNROLL
    for (int j = 0; j < planes_of(bits); j++) {
        DBT_UNROLL
        for (int r = 0; r < PRODUCTS; r++) {
            if (r == 0 || !one_row) a = v_load(o->a[r] + group * group_codes(bits) + j * VB);
            sums[r] = v_dot(sums[r], plane_of(x[r], j, bits), a);
        }
    }
}

/* Sums of VL blocks, whose first group is `group`, of 1, 2 or 4 lanes each; all of them lie in the row. */
static DBT_ALWAYS_INLINE void sums1(const operands *o, int64_t group, vi *sums, const uint32_t bits,
                                    const bool one_row) {
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) sums[r] = v_zero();
    add_group(o, group, sums, bits, one_row, false);
}
static DBT_ALWAYS_INLINE void sums2(const operands *o, int64_t group, vi *sums, const uint32_t bits,
                                    const bool one_row) {
    vi more[PRODUCTS];
    sums1(o, group, sums, bits, one_row);
    sums1(o, group + 1, more, bits, one_row);
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) sums[r] = v_add_pairs(sums[r], more[r]);
}
static DBT_ALWAYS_INLINE void sums4(const operands *o, int64_t group, vi *sums, const uint32_t bits,
                                    const bool one_row) {
    vi more[PRODUCTS];
    sums2(o, group, sums, bits, one_row);
    sums2(o, group + 2, more, bits, one_row);
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) sums[r] = v_add_pairs(sums[r], more[r]);
}
/* v[0 .. n) to sums: the vectors of VL blocks' lanes, pair by pair. */
static DBT_ALWAYS_INLINE void add_up(vi (*v)[PRODUCTS], int64_t n, vi *sums) {
    for (n /= 2; n > 0; n /= 2) {
        for (int64_t j = 0; j < n; j++) {
            DBT_UNROLL
            for (int r = 0; r < PRODUCTS; r++) v[j][r] = v_add_pairs(v[2 * j][r], v[2 * j + 1][r]);
        }
    }
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) sums[r] = v[0][r];
}
/* The same of 4, 8 or 16 lanes. */
static DBT_ALWAYS_INLINE void sums_of_fours(const operands *o, int64_t group, vi *sums,
                                            const uint32_t bits, const bool one_row) {
    vi v[VL / 4][PRODUCTS];
    for (int64_t j = 0; j < o->lanes / 4; j++) sums4(o, group + 4 * j, v[j], bits, one_row);
    add_up(v, o->lanes / 4, sums);
}
/* The same of any number of lanes, wherever the row ends. */
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
    add_up(v, o->lanes, sums);
}

/* Adds the blocks [g, g + VL), whose sums are given, to y; some: they may lie past the last one. */
static DBT_ALWAYS_INLINE void add_blocks(const operands *o, int64_t g, const vi *sums, vf *y,
                                         const uint32_t bits, const bool one_row, const bool some) {
    const dbt_matmul_nbits *const p = o->p;
    const int64_t left = some ? p->k_blocks - g : VL;
    vf scale = vf_zero(), a_scale = vf_zero();
    vi zero_points = v_zero(), a_sum = v_zero();
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) {
        if (r == 0 || one_row) {
            scale = v_floats(p->scales, p->scale_type, o->n[r] * p->k_blocks + g, left);
            zero_points = zero_points_of(p, o->n[r], g, left, bits);
        }
        if (r == 0 || !one_row) {
            a_scale = vf_load(o->a_scale[r] + g);
            a_sum = v_load(o->a_sum[r] + g);
        }
        vf term;
        if (dbt_nbits_float_zero_points(p)) {
            term = apply_float(sums[r], vf_of_bits(zero_points), a_sum, narrow_sums(p));
        } else if (narrow_sums(p)) {
            term = vf_of_int(v_sub32(sums[r], v_mul_halves(zero_points, a_sum)));
        } else {
            term = vf_of_int(v_sub32(sums[r], v_mul32(zero_points, a_sum)));
        }
        y[r] = vf_fma(vf_mul(a_scale, scale), term, y[r]);
    }
}

/* Adds the blocks [0, whole) to y; lanes: 1, 2, or 4 for any number of fours. */
static DBT_ALWAYS_INLINE void add_whole(const operands *o, int64_t whole, vf *y,
                                        const uint32_t bits, const bool one_row, const int lanes) {
    vi sums[PRODUCTS];
    int64_t group = 0;
    for (int64_t g = 0; g < whole; g += VL, group += o->lanes) {
        if (lanes == 1) sums1(o, group, sums, bits, one_row);
        if (lanes == 2) sums2(o, group, sums, bits, one_row);
        if (lanes == 4) sums_of_fours(o, group, sums, bits, one_row);
        add_blocks(o, g, sums, y, bits, one_row, false);
    }
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
    if (planes_of(bits) == 4 && o->lanes == 1) {
        add_whole(o, whole, sums_of_y, bits, one_row, 1);
    } else if (planes_of(bits) > 1 && o->lanes == 2) {
        add_whole(o, whole, sums_of_y, bits, one_row, 2);
    } else if (o->lanes >= 4 && o->per_vector == 1) {
        add_whole(o, whole, sums_of_y, bits, one_row, 4);
    } else {
        g = 0;
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
        add_blocks(o, g, sums, sums_of_y, bits, one_row, true);
    }
    float y[PRODUCTS];
    const __m128 whole_of_y = v_sums(sums_of_y[0], sums_of_y[1], sums_of_y[2], sums_of_y[3]);
    _mm_storeu_ps(y, _mm_add_ps(whole_of_y, rest));
    for (int r = 0; r < PRODUCTS; r++)
        p->y[o->m[r] * p->N + o->n[r]] = y[r] + (p->bias ? p->bias[o->n[r]] : 0.0f);
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

static DBT_ALWAYS_INLINE void run_int8_matvec(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int64_t lanes = p->block_size / (4 * planes_of(bits));
    const int64_t groups = (p->K + group_codes(bits) - 1) / group_codes(bits);
    const int64_t step = (t->n_end - t->n_begin + PRODUCTS - 1) / PRODUCTS;
    operands o = {.p = p,
                  .bytes = least(dbt_nbits_row_bytes(p), groups * group_bytes(bits)),
                  .lanes = least(lanes, VL),
                  .per_vector = lanes > VL ? lanes / VL : 1};
    if (t->m_end - t->m_begin > 2) {
        for (int64_t n = t->n_begin; n < t->n_end; n++) {
            for (int r = 0; r < PRODUCTS; r++) set_b(&o, r, n);
            for (int64_t m = t->m_begin; m < t->m_end; m += PRODUCTS) {
                for (int r = 0; r < PRODUCTS; r++)
                    set_a(&o, r, t->activations, least(m + r, t->m_end - 1));
                dot_rows(&o, bits, false);
            }
        }
        return;
    }
    for (int64_t i = 0; i < step; i++) {
        for (int r = 0; r < PRODUCTS; r++)
            set_b(&o, r, least(t->n_begin + r * step + i, t->n_end - 1));
        for (int64_t m = t->m_begin; m < t->m_end; m++) {
            for (int r = 0; r < PRODUCTS; r++) set_a(&o, r, t->activations, m);
            dot_rows(&o, bits, true);
        }
    }
}

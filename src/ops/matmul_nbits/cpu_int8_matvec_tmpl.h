/* One row of A, int8: B is read where it lies and never written down. STREAMS rows of B, far from each other,
 * are multiplied side by side: that many streams keep more of memory's answers under way than one would.
 *
 * A lane of a group's product holds 4 * planes neighbouring codes, so a block takes block_size / (4 * planes)
 * of them. `lanes` vectors (all VL lanes of a vector if the block is larger) hold VL blocks and are added up
 * pairwise to one vector of VL block sums; zero points and scales are applied to it at once.
 *
 *     2 bits, block 32, VL 16    v0 |b0 b0|b1 b1|...|b7 b7|    v1 |b8 b8|...|b15 b15|
 *                                -> |b0|b1|...|b15|
 */
enum { STREAMS = 4 };

/* What is multiplied: rows n[] of B with row m of A. */
typedef struct operands {
    const dbt_matmul_nbits *p;
    const uint8_t *b[STREAMS];
    int64_t n[STREAMS];
    const int8_t *a;
    const float *a_scale;
    const int32_t *a_sum;
    int64_t bytes; /* of a row of B that meet activations */
    int64_t lanes, per_vector;
} operands;

/* Adds group `group` to sums; some: it may lie past the row's end, in whole or in part. */
static DBT_ALWAYS_INLINE void add_group(const operands *o, int64_t group, vi *sums,
                                        const uint32_t bits, const bool some) {
    const int64_t at = group * group_bytes(bits), left = o->bytes - at;
    if (some && left <= 0) return;
    const int8_t *const a = o->a + group * group_codes(bits);
    vi x[STREAMS];
    DBT_UNROLL
    for (int r = 0; r < STREAMS; r++) x[r] = load_group(o->b[r] + at, some ? left : VB, bits);
    DBT_UNROLL
    for (int j = 0; j < planes_of(bits); j++) {
        const vi v = v_load(a + j * VB);
        DBT_UNROLL
        for (int r = 0; r < STREAMS; r++) sums[r] = v_dot(sums[r], plane_of(x[r], j, bits), v);
    }
}

/* Sums of VL blocks, whose first group is `group`, of 1, 2 or 4 lanes each; all of them lie in the row. */
static DBT_ALWAYS_INLINE void sums1(const operands *o, int64_t group, vi *sums,
                                    const uint32_t bits) {
    DBT_UNROLL
    for (int r = 0; r < STREAMS; r++) sums[r] = v_zero();
    add_group(o, group, sums, bits, false);
}
static DBT_ALWAYS_INLINE void sums2(const operands *o, int64_t group, vi *sums,
                                    const uint32_t bits) {
    vi more[STREAMS];
    sums1(o, group, sums, bits);
    sums1(o, group + 1, more, bits);
    DBT_UNROLL
    for (int r = 0; r < STREAMS; r++) sums[r] = v_add_pairs(sums[r], more[r]);
}
static DBT_ALWAYS_INLINE void sums4(const operands *o, int64_t group, vi *sums,
                                    const uint32_t bits) {
    vi more[STREAMS];
    sums2(o, group, sums, bits);
    sums2(o, group + 2, more, bits);
    DBT_UNROLL
    for (int r = 0; r < STREAMS; r++) sums[r] = v_add_pairs(sums[r], more[r]);
}
/* The same of any number of lanes, wherever the row ends. */
static DBT_ALWAYS_INLINE void sums_of_any(const operands *o, int64_t group, vi *sums,
                                          const uint32_t bits) {
    vi v[VL][STREAMS];
    for (int64_t j = 0; j < o->lanes; j++) {
        DBT_UNROLL
        for (int r = 0; r < STREAMS; r++) sums[r] = v_zero();
        for (int64_t i = 0; i < o->per_vector; i++) add_group(o, group++, sums, bits, true);
        DBT_UNROLL
        for (int r = 0; r < STREAMS; r++) v[j][r] = sums[r];
    }
    for (int64_t n = o->lanes / 2; n > 0; n /= 2) {
        for (int64_t j = 0; j < n; j++) {
            DBT_UNROLL
            for (int r = 0; r < STREAMS; r++) v[j][r] = v_add_pairs(v[2 * j][r], v[2 * j + 1][r]);
        }
    }
    DBT_UNROLL
    for (int r = 0; r < STREAMS; r++) sums[r] = v[0][r];
}

/* Adds the blocks [g, g + VL), whose sums are given, to y; some: they may lie past the last one. */
static DBT_ALWAYS_INLINE void add_blocks(const operands *o, int64_t g, const vi *sums, vf *y,
                                         const uint32_t bits, const bool some) {
    const dbt_matmul_nbits *const p = o->p;
    const vf a_scale = vf_load(o->a_scale + g);
    const vi a_sum = v_load(o->a_sum + g);
    const int64_t left = some ? p->k_blocks - g : VL;
    DBT_UNROLL
    for (int r = 0; r < STREAMS; r++) {
        const vf scale =
            v_floats(p->scales, p->scale_type, o->n[r] * p->k_blocks + g, left);
        const vi zero_points = zero_points_of(p, o->n[r], g, left, bits);
        vf term;
        if (dbt_nbits_float_zero_points(p)) {
            term = v_apply_float(sums[r], vf_of_bits(zero_points), a_sum);
        } else if (narrow_sums(p)) {
            term = vf_of_int(v_sub32(sums[r], v_mul_halves(zero_points, a_sum)));
        } else {
            term = vf_of_int(v_sub32(sums[r], v_mul32(zero_points, a_sum)));
        }
        y[r] = vf_fma(vf_mul(a_scale, scale), term, y[r]);
    }
}

/* Adds the blocks [0, whole) of `lanes` lanes each, a constant, to y. */
static DBT_ALWAYS_INLINE void add_whole(const operands *o, int64_t whole, vf *y,
                                        const uint32_t bits, const int lanes) {
    vi sums[STREAMS];
    int64_t group = 0;
    for (int64_t g = 0; g < whole; g += VL, group += lanes) {
        if (lanes == 1) sums1(o, group, sums, bits);
        if (lanes == 2) sums2(o, group, sums, bits);
        if (lanes == 4) sums4(o, group, sums, bits);
        add_blocks(o, g, sums, y, bits, false);
    }
}

/* Elements n[] of row m of Y: what vectors of whole blocks there are by the loop for so many lanes, if there is
 * one, and the rest by that for any. */
static DBT_ALWAYS_INLINE void dot_rows(const operands *o, float *y, const uint32_t bits) {
    const int64_t whole = o->p->K / o->p->block_size / VL * VL;
    int64_t g = whole;
    vf sums_of_y[STREAMS];
    DBT_UNROLL
    for (int r = 0; r < STREAMS; r++) sums_of_y[r] = vf_zero();
    if (planes_of(bits) == 4 && o->lanes == 1) {
        add_whole(o, whole, sums_of_y, bits, 1);
    } else if (planes_of(bits) > 1 && o->lanes == 2) {
        add_whole(o, whole, sums_of_y, bits, 2);
    } else if (o->lanes == 4) {
        add_whole(o, whole, sums_of_y, bits, 4);
    } else {
        g = 0;
    }
    for (; g < o->p->k_blocks; g += VL) {
        vi sums[STREAMS];
        sums_of_any(o, g / VL * o->lanes * o->per_vector, sums, bits);
        add_blocks(o, g, sums, sums_of_y, bits, true);
    }
    _mm_storeu_ps(y, v_sums(sums_of_y[0], sums_of_y[1], sums_of_y[2], sums_of_y[3]));
}

static DBT_ALWAYS_INLINE void run_int8_matvec(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const dbt_nbits_activations *const act = t->activations;
    const int64_t row_bytes = dbt_nbits_row_bytes(p), lanes = p->block_size / (4 * planes_of(bits));
    const int64_t groups = (p->K + group_codes(bits) - 1) / group_codes(bits);
    const int64_t step = (t->n_end - t->n_begin + STREAMS - 1) / STREAMS;
    operands o = {.p = p,
                  .bytes = least(row_bytes, groups * group_bytes(bits)),
                  .lanes = least(lanes, VL),
                  .per_vector = lanes > VL ? lanes / VL : 1};
    for (int64_t i = 0; i < step; i++) {
        for (int r = 0; r < STREAMS; r++) {
            o.n[r] = least(t->n_begin + r * step + i, t->n_end - 1);
            o.b[r] = p->b + o.n[r] * row_bytes;
        }
        for (int64_t m = t->m_begin; m < t->m_end; m++) {
            float y[STREAMS];
            o.a = act->q + m * act->row_bytes;
            o.a_scale = act->scale + m * act->blocks_stride;
            o.a_sum = act->sum + m * act->blocks_stride;
            dot_rows(&o, y, bits);
            for (int r = 0; r < STREAMS; r++)
                p->y[m * p->N + o.n[r]] = y[r] + (p->bias ? p->bias[o.n[r]] : 0.0f);
        }
    }
}

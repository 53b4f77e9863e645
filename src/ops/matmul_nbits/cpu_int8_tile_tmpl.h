/* Many rows of A, int8: TILE_N rows of B are unpacked once, to bytes that lie as dot products want them, and
 * then meet all rows of A of the task. A lane is a row of B and so a column of Y:
 *
 *     w [quad, 2, VB]    vector v: |n0 n0 n0 n0|n1 n1 n1 n1|...    four codes of each of VL rows of B
 *
 * Quads are numbered as A's order has them (DBT_NBITS_PLANES(4, planes)): VL rows are loaded, a group of each, and
 * transposed as 32-bit lanes; then plane j of lane d is quad d * planes + j. Scales and zero points of the
 * tile are transposed to [k_blocks, TILE_N] too, so that a block's sums become floats without a sum over lanes. */
enum { TILE_N = 2 * VL };

/* ---- Unpacking ---- */

/* `count` (at most VL) of what v holds after a transposition, as rows of TILE_N lanes. */
static DBT_ALWAYS_INLINE void store_lanes(vi *v, void *out, int64_t count) {
    v_transpose(v);
    for (int64_t j = 0; j < count; j++) v_store((int32_t *)out + j * TILE_N, v[j]);
}

/* What is added to dots for zero points: see tile_rows. */
static DBT_ALWAYS_INLINE vi tile_zero_points(const dbt_matmul_nbits *p, int64_t n, int64_t g,
                                             uint32_t bits) {
    const vi v = zero_points_of(p, n, g, p->k_blocks - g, bits);
    if (dbt_nbits_float_zero_points(p) || !narrow_sums(p)) return v;
    return v_and(v_sub32(v_zero(), v), v_set32(0xffff));
}

/* Rows [n, n + VL) of B, or the last one again and again, to vector `half` of each quad. The next VL rows are asked for
 * early: hardware does not foresee so many streams. */
static DBT_ALWAYS_INLINE void unpack_rows(const dbt_nbits_task *t, int64_t n, int half,
                                          const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int64_t row_bytes = dbt_nbits_row_bytes(p), planes = planes_of(bits);
    const int64_t bytes = (p->K * (int64_t)bits + 7) / 8;
    const uint8_t *const scales = p->scales;
    const int64_t scale_bytes = dbt_nbits_float_bytes(p->scale_type);
    vi v[VL];
    uint8_t *w = (uint8_t *)t->rows + half * VB;
    for (int64_t at = 0; at < bytes; at += group_bytes(planes_of(bits), bits)) {
        for (int64_t i = 0; i < VL; i++) {
            const uint8_t *const from = p->b + least(n + i, p->N - 1) * row_bytes + at;
            DBT_PREFETCH(from + VL * row_bytes);
            v[i] = load_group(from, bytes - at, bits);
        }
        v_transpose(v);
        const int64_t last = least(VL, (p->K - at / bits * 8 + 4 * planes - 1) / (4 * planes));
        for (int64_t d = 0; d < last; d++) {
            DBT_UNROLL
            for (int j = 0; j < planes; j++, w += 2 * VB) v_store(w, plane_of(v[d], j, bits));
        }
    }
    for (int64_t g = 0; g < p->k_blocks; g += VL) {
        const int64_t left = p->k_blocks - g, count = least(left, VL), to = g * TILE_N + half * VL;
        for (int64_t i = 0; i < VL; i++) {
            const int64_t first = least(n + i, p->N - 1) * p->k_blocks + g;
            DBT_PREFETCH(scales + (first + VL * p->k_blocks) * scale_bytes);
            v[i] = vf_bits(v_floats(p->scales, p->scale_type, first, left));
        }
        store_lanes(v, t->scales + to, count);
        for (int64_t i = 0; i < VL; i++)
            v[i] = tile_zero_points(p, least(n + i, p->N - 1), g, bits);
        store_lanes(v, (int32_t *)t->zero_points + to, count);
    }
}

/* ---- Multiplying ---- */

/* What a block needs to become floats. */
typedef struct block {
    const int32_t *a_sum; /* of the first row, as a_scale */
    const float *a_scale;
    int64_t stride;             /* from one row to the next */
    const int32_t *zero_points; /* [TILE_N], as scales */
    const float *scales;
    bool floats, narrow; /* zero points; see narrow_sums */
} block;

/* Adds VL sums of row r to y. narrow: integer zero points, and sums of 16 bits. */
static DBT_ALWAYS_INLINE void add_sums(const block *b, int64_t r, vi sums, const int half, float *y,
                                       const bool narrow) {
    const vi a_sum = v_broadcast32(b->a_sum + r * b->stride);
    const vi zero_points = v_load(b->zero_points + half * VL);
    vf term;
    if (narrow) { /* low halves are minus zero points, high ones 0 */
        term = vf_of_int(v_add_halves(sums, zero_points, a_sum));
    } else if (!b->floats) {
        term = vf_of_int(v_sub32(sums, v_mul32(zero_points, a_sum)));
    } else {
        term = apply_float(sums, vf_of_bits(zero_points), a_sum, b->narrow);
    }
    term = vf_mul(term, vf_load(b->scales + half * VL));
    y += r * TILE_N + half * VL;
    vf_store(y, vf_fma(term, vf_set(b->a_scale[r * b->stride]), vf_load(y)));
}

/* Adds the product of one block, `quads` quads at w and at a, to y [rows, TILE_N]. Sums have names of their
 * own, since gcc 12 would keep an array of them in memory. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
static DBT_ALWAYS_INLINE void multiply_block(const uint8_t *w, const int8_t *a, int64_t stride,
                                             int64_t quads, const block *b, float *y,
                                             const int rows, const bool narrow) {
#define BEGIN(r) vi low##r = v_zero(), high##r = v_zero();
#define ADD(r)                                                                                     \
    if (r < rows) {                                                                                \
        const vi v = v_broadcast32(a + r * stride);                                                \
        low##r = v_dot(low##r, w0, v);                                                             \
        high##r = v_dot(high##r, w1, v);                                                           \
    }
#define END(r)                                                                                     \
    if (r < rows) {                                                                                \
        add_sums(b, r, low##r, 0, y, narrow);                                                      \
        add_sums(b, r, high##r, 1, y, narrow);                                                     \
    }
    EACH_ROW(BEGIN)
    do {
        const vi w0 = v_load(w), w1 = v_load(w + VB);
        EACH_ROW(ADD)
        a += 4;
        w += 2 * VB;
    } while (--quads > 0);
    EACH_ROW(END)
#undef BEGIN
#undef ADD
#undef END
}

/* Elements [m, m + rows) x [n, n + TILE_N) of Y. */
static DBT_ALWAYS_INLINE void tile_rows(const dbt_nbits_task *t, int64_t m, int64_t n,
                                        int64_t planes, const int rows, const bool narrow) {
    const dbt_matmul_nbits *const p = t->p;
    const dbt_nbits_activations *const act = t->activations;
    const int64_t k_blocks = p->k_blocks, block_size = p->block_size, K = p->K;
    const int8_t *a = act->q + m * act->row_bytes;
    const uint8_t *w = t->rows;
    float *const y = t->y;
    block b = {.a_sum = act->sum + m * act->blocks_stride,
               .a_scale = act->scale + m * act->blocks_stride,
               .stride = act->blocks_stride,
               .zero_points = t->zero_points,
               .scales = t->scales,
               .floats = dbt_nbits_float_zero_points(p),
               .narrow = narrow_sums(p)};
    memset(y, 0, (size_t)rows * TILE_N * sizeof *y);
    for (int64_t g = 0; g < k_blocks; g++) {
        const int64_t left = (K - g * block_size + 4 * planes - 1) / (4 * planes) * planes;
        const int64_t quads = least(block_size / 4, left);
        multiply_block(w, a, act->row_bytes, quads, &b, y, rows, narrow);
        a += block_size;
        w += block_size * TILE_N;
        b.a_sum++;
        b.a_scale++;
        b.zero_points += TILE_N;
        b.scales += TILE_N;
    }
    for (int r = 0; r < rows; r++) {
        for (int v = 0; v < 2 && n + v * VL < p->N; v++) {
            const int64_t first = n + v * VL, count = least(VL, p->N - first);
            vf sum = vf_load(y + r * TILE_N + v * VL);
            if (p->bias) sum = vf_add(sum, vf_load_some(p->bias + first, count));
            vf_store_some(p->y + (m + r) * p->N + first, sum, count);
        }
    }
}

static DBT_ALWAYS_INLINE void multiply(const dbt_nbits_task *t, int64_t n, int64_t planes,
                                       const bool narrow) {
    int64_t m = t->m_begin;
    for (; m + TILE_ROWS <= t->m_end; m += TILE_ROWS) tile_rows(t, m, n, planes, TILE_ROWS, narrow);
    if (TILE_ROWS > 4 && m + 4 <= t->m_end) {
        tile_rows(t, m, n, planes, 4, narrow);
        m += 4;
    }
    if (m + 2 <= t->m_end) {
        tile_rows(t, m, n, planes, 2, narrow);
        m += 2;
    }
    if (m < t->m_end) tile_rows(t, m, n, planes, 1, narrow);
}
/* The same code for all widths. */
static DBT_NOINLINE void multiply_tile(const dbt_nbits_task *t, int64_t n, int64_t planes) {
    if (!dbt_nbits_float_zero_points(t->p) && narrow_sums(t->p)) {
        multiply(t, n, planes, true);
    } else {
        multiply(t, n, planes, false);
    }
}

static DBT_ALWAYS_INLINE void run_int8_tile(const dbt_nbits_task *t, const uint32_t bits) {
    for (int64_t n = t->n_begin; n < t->n_end; n += TILE_N) {
        for (int half = 0; half < 2; half++) unpack_rows(t, n + half * VL, half, bits);
        multiply_tile(t, n, planes_of(bits));
    }
}

/* MatMulNBits with AMX, int8 activations of several rows. TILE_N rows of B are unpacked to bytes, a piece of K after
 * the other, and meet all tiles of A of the task (DBT_NBITS_TILES):
 *
 *     w [slab, TILE_N, 64]        64 codes of each row of B: rows of a product's first operand
 *     q [quad, 16, 4]             columns of a tile of A: its second operand, as it lies in memory
 *     C [TILE_N, 16]              exact sums of a group, which is `parts` blocks: a vector is a row of B
 *
 * A product takes 16, 32 or 64 codes, a group is one product or several slabs of them. Sums go through memory, as
 * tiles and vectors share no register: while a group is multiplied, that before it is stored, and the one before
 * that becomes floats.
 *
 * Integer zero points are taken off while unpacking where codes are narrower than 8 bits, and absent ones always;
 * those of 8 bits would not leave a signed byte. */
#include "ops/matmul_nbits/cpu_vec512_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_tmpl.h"

enum {
    TILE_N = 16,
    COLUMNS = DBT_NBITS_TILE_ROWS,
    TILES = DBT_NBITS_M_CHUNK / COLUMNS,
    BLOCKS = 64,  /* the most of a piece of K */
    PIECE = 1024, /* its codes, if a block has no more: TILE_N rows of them fit the first cache */
};

/* How sums become floats: SIGNED ones have no zero points any more; the others, of unsigned codes, lose zero points
 * times sums of activations, integers or floats, both narrow or not (narrow_sums). */
enum { SIGNED, SHORT, LONG, FLOAT, DOUBLE };

static int mode_of(const dbt_matmul_nbits *p) {
    if (dbt_nbits_float_zero_points(p)) return narrow_sums(p) ? FLOAT : DOUBLE;
    if (!p->zero_points || p->bits < 8) return SIGNED;
    return narrow_sums(p) ? SHORT : LONG;
}

/* A piece of K, of TILE_N rows of B. */
typedef struct piece {
    const uint8_t *w;      /* unpacked, or codes of 8 bits where they lie in B */
    const uint8_t *ahead;  /* in that case what follows it, else NULL */
    int64_t w_row, w_slab; /* bytes from one row of B to the next, and from 64 codes to the next */
    uint8_t *unpacked;
    int64_t n, k, slabs;   /* the first row and code, and how many times 64 codes */
    int64_t first, blocks; /* the first block, and how many */
    int64_t width;         /* codes of a product that tiles are configured for, or 0 */
    /* Zero points, SIGNED: four times a byte; SHORT: negated, the low half; else as they are. */
    _Alignas(64) float scales[TILE_N][BLOCKS];
    int32_t zero_points[TILE_N][BLOCKS];
    float y[TILES][TILE_N][COLUMNS];
} piece;

/* ---- Unpacking ---- */

/* As zero_points_of, where g is not a multiple of 8. */
static DBT_NOINLINE vi odd_zero_points(const dbt_matmul_nbits *p, int64_t n, int64_t g) {
    const uint8_t *const row = (const uint8_t *)p->zero_points + n * dbt_nbits_zero_row_bytes(p);
    int32_t z[VL] = {0};
    for (int64_t i = 0; i < least(VL, p->k_blocks - g); i++)
        z[i] = (int32_t)dbt_code_at(row, p->bits, g + i);
    return v_load(z);
}

static DBT_ALWAYS_INLINE void decode_zero_points(const dbt_matmul_nbits *p, piece *c,
                                                 const uint32_t bits, int mode) {
    const bool odd = c->first % 8 != 0 && !dbt_nbits_float_zero_points(p);
    for (int64_t r = 0; r < TILE_N; r++) {
        const int64_t n = least(c->n + r, p->N - 1);
        for (int64_t i = 0; i < c->blocks; i += VL) {
            const int64_t g = c->first + i, left = p->k_blocks - g;
            vi v = odd ? odd_zero_points(p, n, g) : zero_points_of(p, n, g, left, bits);
            if (mode == SIGNED)
                v = _mm512_shuffle_epi8(v,
                                        _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
            if (mode == SHORT) v = v_and(v_sub32(v_zero(), v), v_set32(0xffff));
            v_store(&c->zero_points[r][i], v);
        }
    }
}

static DBT_ALWAYS_INLINE void decode_scales(const dbt_matmul_nbits *p, piece *c,
                                            const dibit_type type) {
    const int64_t bytes = dbt_nbits_float_bytes(type);
    for (int64_t r = 0; r < TILE_N; r++) {
        const int64_t first = least(c->n + r, p->N - 1) * p->k_blocks + c->first;
        for (int64_t i = 0; i < c->blocks; i += VL) {
            const int64_t left = p->k_blocks - c->first - i;
            DBT_PREFETCH((const uint8_t *)p->scales + (first + i + TILE_N * p->k_blocks) * bytes);
            vf_store(&c->scales[r][i], v_floats(p->scales, type, first + i, left));
        }
    }
}

static DBT_NOINLINE void decode_any_scales(const dbt_matmul_nbits *p, piece *c) {
    if (p->scale_type == DIBIT_TYPE_FLOAT) {
        decode_scales(p, c, DIBIT_TYPE_FLOAT);
    } else if (p->scale_type == DIBIT_TYPE_FLOAT16) {
        decode_scales(p, c, DIBIT_TYPE_FLOAT16);
    } else {
        decode_scales(p, c, DIBIT_TYPE_BFLOAT16);
    }
}

/* Zero points of a slab's codes; z: of the row's blocks, of 1 << shift codes. */
static DBT_ALWAYS_INLINE vi slab_zero_points(const int32_t *z, int64_t slab, int shift) {
    if (shift >= 6) return v_set32(z[slab >> (shift - 6)]);
    z += slab << (6 - shift);
    if (shift == 5) return _mm512_mask_set1_epi32(v_set32(z[0]), 0xff00, z[1]);
    const vi v = _mm512_mask_set1_epi32(v_set32(z[0]), 0xf0, z[1]);
    return _mm512_mask_set1_epi32(_mm512_mask_set1_epi32(v, 0xf00, z[2]), 0xf000, z[3]);
}

/* What becomes of zero points while unpacking: nothing, all are the same, or packed ones of blocks of 16, of 32 or of
 * more. */
enum { KEEP, MIDDLE, OF_16, OF_32, OF_MORE };

static DBT_ALWAYS_INLINE void unpack_row(const dbt_matmul_nbits *p, const piece *c, int64_t r,
                                         const uint32_t bits, const int zero_points) {
    const int64_t n = least(c->n + r, p->N - 1), row_bytes = dbt_nbits_row_bytes(p);
    const int64_t at = n * row_bytes + c->k / 8 * (int64_t)bits, step = 8 * (int64_t)bits;
    const uint8_t *b = p->b + at;
    const int64_t left = p->N * row_bytes - at;
    const int64_t whole = left < VB ? 0 : least(c->slabs, (left - VB) / step + 1);
    uint8_t *w = c->unpacked + r * VB;
    const int32_t *const z = c->zero_points[r];
    const int shift = __builtin_ctzll((uint64_t)p->block_size);
    int64_t s = 0;
    for (int64_t i = 0; i < c->slabs * step; i += VB) DBT_PREFETCH(b + TILE_N * row_bytes + i);
#define UNPACK(codes)                                                                              \
    {                                                                                              \
        vi v = codes;                                                                              \
        if (zero_points == MIDDLE) v = _mm512_sub_epi8(v, v_set8(1 << (bits - 1)));                \
        if (zero_points == OF_16) v = _mm512_sub_epi8(v, slab_zero_points(z, s, 4));               \
        if (zero_points == OF_32) v = _mm512_sub_epi8(v, slab_zero_points(z, s, 5));               \
        if (zero_points == OF_MORE) v = _mm512_sub_epi8(v, slab_zero_points(z, s, shift));         \
        v_store(w, v);                                                                             \
        w += TILE_N * VB;                                                                          \
        b += step;                                                                                 \
        s++;                                                                                       \
    }
    while (s + 4 <= whole) {
        DBT_UNROLL
        for (int j = 0; j < 4; j++) UNPACK(v_spread(v_load(b), bits))
    }
    while (s < c->slabs) UNPACK(v_codes(b, left - s * step, bits))
#undef UNPACK
}

/* Where the piece's codes are: codes of 8 bits that keep their zero points stay in B for few rows of A, unless a slab
 * would end behind B. */
static void place(const dbt_nbits_task *t, piece *c, int mode) {
    const dbt_matmul_nbits *const p = t->p;
    const int64_t row_bytes = dbt_nbits_row_bytes(p), end = c->n + TILE_N;
    c->w = c->unpacked;
    c->ahead = NULL;
    c->w_row = VB;
    c->w_slab = TILE_N * VB;
    if (p->bits < 8 || mode == SIGNED || t->m_end - t->m_begin > 2 * COLUMNS || end > p->N) return;
    if ((end - 1) * row_bytes + c->k + c->slabs * VB > p->N * row_bytes) return;
    c->w = p->b + c->n * row_bytes + c->k;
    c->ahead = c->w + TILE_N * row_bytes;
    c->w_row = row_bytes;
    c->w_slab = VB;
}

static DBT_ALWAYS_INLINE void unpack(const dbt_matmul_nbits *p, piece *c, const uint32_t bits) {
    const int mode = mode_of(p);
    decode_any_scales(p, c);
    if (p->zero_points) decode_zero_points(p, c, bits, mode);
    if (bits == 8 && c->w != c->unpacked) return;
    const int zero_points = mode != SIGNED        ? KEEP
                            : !p->zero_points     ? MIDDLE
                            : p->block_size == 16 ? OF_16
                            : p->block_size == 32 ? OF_32
                                                  : OF_MORE;
#define TRY(kind)                                                                                  \
    if (zero_points == kind) {                                                                     \
        for (int64_t r = 0; r < TILE_N; r++) unpack_row(p, c, r, bits, kind);                      \
    }
    TRY(KEEP)
    TRY(MIDDLE)
    TRY(OF_16)
    TRY(OF_32)
    TRY(OF_MORE)
#undef TRY
}

/* ---- Multiplying ---- */

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Registers 0, 1: sums; 4, 6: rows of B; 5, 7: columns of A. Static: gcc 12 thinks that no more than 8 bytes of a
 * configuration are read. */
#define CONFIG(width)                                                                              \
    {.palette = 1,                                                                                 \
     .row_bytes = {64, 64, 0, 0, width, 64, width, 64},                                            \
     .rows = {TILE_N, TILE_N, 0, 0, TILE_N, width / 4, TILE_N, width / 4}}
static const tile_config configs[] = {CONFIG(16), CONFIG(32), CONFIG(64)};

/* A vector's lanes: the scales of one row of B that a group's columns have. */
static DBT_ALWAYS_INLINE vf of_parts(const void *at, const int parts) {
    if (parts == 1) return vf_of_bits(v_broadcast32(at));
    if (parts == 4) return _mm512_broadcast_f32x4(_mm_loadu_ps(at));
    double two;
    memcpy(&two, at, sizeof two);
    return _mm512_castpd_ps(_mm512_set1_pd(two));
}

/* Sums of one row of B as floats, without its scale and the activations'. */
static DBT_ALWAYS_INLINE vf to_floats(vi sums, const int32_t *zero_points, vi a_sum, const int mode,
                                      const int parts) {
    if (mode == SIGNED) return vf_of_int(sums);
    const vf z = of_parts(zero_points, parts);
    if (mode == SHORT) return vf_of_int(v_add_halves(sums, vf_bits(z), a_sum));
    if (mode == LONG) return vf_of_int(v_sub32(sums, v_mul32(vf_bits(z), a_sum)));
    return apply_float(sums, z, a_sum, mode == FLOAT);
}

/* Asks early for codes that are multiplied where they lie. */
static DBT_ALWAYS_INLINE void prefetch_rows(const piece *c, int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += VB) {
        DBT_UNROLL
        for (int64_t r = 0; r < TILE_N; r++) DBT_PREFETCH(c->ahead + r * c->w_row + at);
    }
}

/* Sums have names of their own, since gcc 12 would keep an array of them in memory. */
#define EACH_ROW(DO)                                                                               \
    DO(0)                                                                                          \
    DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

/* Adds what a tile of A and the piece give to y [TILE_N, COLUMNS]; q, a_scale and a_sum begin with the piece. */
static DBT_ALWAYS_INLINE void multiply_tile(const piece *c, int64_t group_codes, const int8_t *q,
                                            const float *a_scale, const int32_t *a_sum, float *y,
                                            const int mode, const int parts) {
    _Alignas(64) int32_t sums[2][TILE_N * COLUMNS];
    const uint8_t *const w = c->w;
    const uint64_t w_row = (uint64_t)c->w_row, w_slab = (uint64_t)c->w_slab;
    const int64_t groups = (c->blocks + parts - 1) / parts, codes = c->slabs * VB;
#define BEGIN(r) vf y##r = vf_load(y + r * COLUMNS);
#define END(r) vf_store(y + r * COLUMNS, y##r);
    /* The operands of a group's first product into registers A and B. */
#define LOAD(A, B, g)                                                                              \
    {                                                                                              \
        const uint64_t at = (uint64_t)(least(g, groups - 1) * group_codes);                        \
        _tile_loadd(A, w + at / VB * w_slab + at % VB, w_row);                                     \
        _tile_loadd(B, q + at * COLUMNS, VB);                                                      \
    }
#define MULTIPLY(C, A, B)                                                                          \
    if (mode == SIGNED) {                                                                          \
        _tile_dpbssd(C, A, B);                                                                     \
    } else {                                                                                       \
        _tile_dpbusd(C, A, B);                                                                     \
    }
#define PRODUCT(C, A, B, g)                                                                        \
    {                                                                                              \
        const int64_t end = least(((g) + 1) * group_codes, codes);                                 \
        _tile_zero(C);                                                                             \
        MULTIPLY(C, A, B)                                                                          \
        for (int64_t at = (g) * group_codes + VB; at < end; at += VB) {                            \
            _tile_loadd(A, w + (uint64_t)at / VB * w_slab, w_row);                                 \
            _tile_loadd(B, q + at * COLUMNS, VB);                                                  \
            MULTIPLY(C, A, B)                                                                      \
        }                                                                                          \
    }
#define ADD(r)                                                                                     \
    {                                                                                              \
        const vf term =                                                                            \
            to_floats(v_load(from + r * COLUMNS), zero_points + r * BLOCKS, sum, mode, parts);     \
        y##r = vf_fma(vf_mul(term, of_parts(scales + r * BLOCKS, parts)), scale, y##r);            \
    }
#define APPLY(g, i)                                                                                \
    {                                                                                              \
        const int32_t *const from = sums[i];                                                       \
        const vf scale = vf_load(a_scale + (g) * COLUMNS);                                         \
        const vi sum = v_load(a_sum + (g) * COLUMNS);                                              \
        const float *const scales = c->scales[0] + (g) * parts;                                    \
        const int32_t *const zero_points = c->zero_points[0] + (g) * parts;                        \
        EACH_ROW(ADD)                                                                              \
    }
    EACH_ROW(BEGIN)
    LOAD(4, 5, 0)
    for (int64_t g = 0; g < groups + 2; g += 2) {
        if (c->ahead) prefetch_rows(c, g * group_codes, least((g + 2) * group_codes, codes));
        if (g < groups) PRODUCT(0, 4, 5, g)
        if (g > 0 && g <= groups) _tile_stored(1, sums[1], VB);
        LOAD(6, 7, g + 1)
        if (g > 0) APPLY(g - 2, 0)
        if (g + 1 < groups) PRODUCT(1, 6, 7, g + 1)
        if (g < groups) _tile_stored(0, sums[0], VB);
        LOAD(4, 5, g + 2)
        if (g > 0 && g <= groups) APPLY(g - 1, 1)
    }
    EACH_ROW(END)
#undef BEGIN
#undef END
#undef LOAD
#undef MULTIPLY
#undef PRODUCT
#undef ADD
#undef APPLY
}

static DBT_NOINLINE void multiply_mode(const piece *c, int64_t group_codes, const int8_t *q,
                                       const float *a_scale, const int32_t *a_sum, float *y,
                                       int mode, int64_t parts) {
#define TRY(m, n)                                                                                  \
    if (mode == m && parts == n) {                                                                 \
        multiply_tile(c, group_codes, q, a_scale, a_sum, y, m, n);                                 \
        return;                                                                                    \
    }
    TRY(SIGNED, 1)
    TRY(SIGNED, 2)
    TRY(SIGNED, 4)
    TRY(SHORT, 1)
    TRY(SHORT, 2)
    TRY(SHORT, 4)
    TRY(FLOAT, 1)
    TRY(FLOAT, 2)
    TRY(FLOAT, 4)
    TRY(LONG, 1) /* of blocks that share no tile */
    TRY(DOUBLE, 1)
#undef TRY
}

/* y of one tile, whose rows begin with m, to Y. */
static DBT_NOINLINE void store_y(const dbt_matmul_nbits *p, int64_t m, int64_t n, const float *y) {
    const int64_t rows = least(COLUMNS, p->M - m), parts = dbt_nbits_parts(p, rows);
    const int64_t count = least(TILE_N, p->N - n);
    const vf bias = p->bias ? vf_load_some(p->bias + n, count) : vf_zero();
    vi v[VL];
    for (int i = 0; i < VL; i++) v[i] = v_load(y + i * COLUMNS);
    v_transpose(v);
    for (int64_t r = 0; r < rows; r++) {
        vf sum = vf_of_bits(v[r * parts]);
        for (int64_t j = 1; j < parts; j++) sum = vf_add(sum, vf_of_bits(v[r * parts + j]));
        if (p->bias) sum = vf_add(sum, bias);
        vf_store_some(p->y + (m + r) * p->N + n, sum, count);
    }
}

/* All tiles of A of the task with a piece of TILE_N rows of B. */
static DBT_NOINLINE void multiply(const dbt_nbits_task *t, piece *c, int mode) {
    const dbt_matmul_nbits *const p = t->p;
    const dbt_nbits_activations *const act = t->activations;
    __asm__ volatile("" ::: "memory"); /* the compiler does not know what tiles are loaded from */
    for (int64_t m = t->m_begin, i = 0; m < t->m_end; m += COLUMNS, i++) {
        const int64_t parts = dbt_nbits_parts(p, p->M - m), group_codes = parts * p->block_size;
        const int64_t width = least(group_codes, VB);
        if (c->width != width) _tile_loadconfig(&configs[width / 32]);
        c->width = width;
        const int64_t at = m * act->blocks_stride + c->first / parts * COLUMNS;
        float *const y = c->y[i][0];
        if (c->k == 0) memset(y, 0, sizeof c->y[i]);
        multiply_mode(c, group_codes, act->q + m * act->row_bytes + c->k * COLUMNS, act->scale + at,
                      act->sum + at, y, mode, parts);
        if (c->first + c->blocks == p->k_blocks) store_y(p, m, c->n, y);
    }
}

static DBT_ALWAYS_INLINE void run_int8_tile(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int mode = mode_of(p);
    const int64_t most = p->block_size > PIECE ? 1 : least(BLOCKS, PIECE / p->block_size);
    piece c;
    c.unpacked = t->rows;
    c.width = 0;
    for (c.n = t->n_begin; c.n < t->n_end; c.n += TILE_N) {
        for (c.first = 0; c.first < p->k_blocks; c.first += most) {
            c.k = c.first * p->block_size;
            c.blocks = least(most, p->k_blocks - c.first);
            c.slabs = (least(c.blocks * p->block_size, p->K - c.k) + VB - 1) / VB;
            place(t, &c, mode);
            unpack(p, &c, bits);
            multiply(t, &c, mode);
        }
    }
    _tile_release();
}

#define SUFFIX avx512amx
#define FORMS(RUN) RUN(int8_tile)
#include "ops/matmul_nbits/cpu_widths_tmpl.h"

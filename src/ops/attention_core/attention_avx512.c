/* The loops of attention for AVX512. Many queries: sums of outer products, register blocks of 6 queries by
 * 64 columns, for scores over a transposed copy of the keys. Few queries (decoding): dots over the keys
 * where they lie, float16 unpacked in registers, so that the cache is read once and nothing is written. */
#include <immintrin.h>

#include "dibit/dibit.h"
#include "ops/attention_core/attention_kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, COLUMNS = 4, ROWS = 6 }; /* of a register block: COLUMNS vectors, ROWS rows */
enum { FEW_ROWS = 8 };                      /* up to here dots are faster than transposing */

INLINE __mmask16 mask_of(int64_t n) {
    return n >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1u);
}

INLINE __m512 load(const void *data, int64_t at, bool half) {
    if (!half) return _mm512_loadu_ps((const float *)data + at);
    const void *const from = (const uint16_t *)data + at;
    return _mm512_cvtph_ps(_mm256_loadu_si256(from));
}

/* Elements [at, at + 16) that are in the mask, the others 0; not read. */
INLINE __m512 load_masked(const void *data, int64_t at, bool half, __mmask16 mask) {
    if (!half) return _mm512_maskz_loadu_ps(mask, (const float *)data + at);
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)data + at));
}

/* ---- Outer products ----
 *
 * c[r] = (add ? c[r] : 0) + sum over i < depth of a[r][i] * b[i], for `rows` rows of `vectors` vectors; with
 * `tail` of one, which has the elements of `mask`. */
typedef struct outer_args {
    const float *a;
    const void *b; /* float or float16 */
    float *c;
    int64_t a_stride, b_stride, c_stride, depth;
    __mmask16 mask;
    bool add;
} outer_args;

INLINE void outer(const outer_args *o, int rows, int vectors, bool half, bool tail) {
    __m512 acc[ROWS][COLUMNS];
    for (int r = 0; r < rows; r++) {
        const float *const c = o->c + r * o->c_stride;
        for (int i = 0; i < vectors; i++) {
            acc[r][i] = !o->add ? _mm512_setzero_ps()
                        : tail  ? load_masked(c, 0, false, o->mask)
                                : load(c, LANES * i, false);
        }
    }
    for (int64_t k = 0; k < o->depth; k++) {
        __m512 b[COLUMNS];
        for (int i = 0; i < vectors; i++) {
            const int64_t at = k * o->b_stride + LANES * i;
            b[i] = tail ? load_masked(o->b, at, half, o->mask) : load(o->b, at, half);
        }
        for (int r = 0; r < rows; r++) {
            const __m512 a = _mm512_set1_ps(o->a[r * o->a_stride + k]);
            for (int i = 0; i < vectors; i++) acc[r][i] = _mm512_fmadd_ps(a, b[i], acc[r][i]);
        }
    }
    for (int r = 0; r < rows; r++) {
        float *const c = o->c + r * o->c_stride;
        for (int i = 0; i < vectors; i++) {
            if (tail) {
                _mm512_mask_storeu_ps(c, o->mask, acc[r][i]);
            } else {
                _mm512_storeu_ps(c + LANES * i, acc[r][i]);
            }
        }
    }
}

INLINE void outer_rows(outer_args o, int64_t rows, int vectors, bool half, bool tail) {
    for (; rows >= ROWS; rows -= ROWS) {
        outer(&o, ROWS, vectors, half, tail);
        o.a += ROWS * o.a_stride;
        o.c += ROWS * o.c_stride;
    }
    switch (rows) {
    case 5: outer(&o, 5, vectors, half, tail); break;
    case 4: outer(&o, 4, vectors, half, tail); break;
    case 3: outer(&o, 3, vectors, half, tail); break;
    case 2: outer(&o, 2, vectors, half, tail); break;
    case 1: outer(&o, 1, vectors, half, tail); break;
    default: break;
    }
}

/* ---- Scores ---- */

/* The sums of four vectors, as one of four. */
INLINE __m128 sum4(__m512 a, __m512 b, __m512 c, __m512 d) {
    const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), /* halves: a, b */
                                    _mm512_shuffle_f32x4(a, b, 0xee));
    const __m512 cd =
        _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    const __m512 abcd = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), /* quarters: a, b, c, d */
                                      _mm512_shuffle_f32x4(ab, cd, 0xdd));
    const __m512 pairs = _mm512_add_ps(abcd, _mm512_permute_ps(abcd, 0x4e));
    const __m512 sums = _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, sums));
}

/* The dots of `rows` (1 to 4) queries with 4 keys, of which the last ones may be the same. */
INLINE void dots(const float *q, const void *k, const int64_t at[4], int rows, int64_t dim,
                 bool half, float *x, __mmask8 keys) {
    __m512 acc[4][4];
    for (int r = 0; r < rows; r++) {
        for (int t = 0; t < 4; t++) acc[r][t] = _mm512_setzero_ps();
    }
    int64_t d = 0;
    for (; dim - d >= LANES; d += LANES) {
        __m512 key[4];
        for (int t = 0; t < 4; t++) key[t] = load(k, at[t] + d, half);
        for (int r = 0; r < rows; r++) {
            const __m512 query = load(q + r * dim, d, false);
            for (int t = 0; t < 4; t++) acc[r][t] = _mm512_fmadd_ps(query, key[t], acc[r][t]);
        }
    }
    const __mmask16 mask = mask_of(dim - d);
    for (int r = 0; r < rows && mask; r++) {
        const __m512 query = load_masked(q + r * dim, d, false, mask);
        for (int t = 0; t < 4; t++) {
            const __m512 key = load_masked(k, at[t] + d, half, mask);
            acc[r][t] = _mm512_fmadd_ps(query, key, acc[r][t]);
        }
    }
    for (int r = 0; r < rows; r++) {
        _mm_mask_storeu_ps(x + r * DBT_ATTENTION_TILE, keys,
                           sum4(acc[r][0], acc[r][1], acc[r][2], acc[r][3]));
    }
}

INLINE void scores_few(const float *q, const void *k, int64_t k_stride, int64_t rows, int64_t keys,
                       int64_t dim, bool half, float *x) {
    for (int64_t t = 0; t < keys; t += 4) {
        int64_t at[4];
        for (int i = 0; i < 4; i++) at[i] = (t + i < keys ? t + i : keys - 1) * k_stride;
        const __mmask8 mask = keys - t >= 4 ? 0xf : (__mmask8)((1u << (keys - t)) - 1u);
        int64_t r = 0;
        for (; rows - r >= 4; r += 4) {
            dots(q + r * dim, k, at, 4, dim, half, x + r * DBT_ATTENTION_TILE + t, mask);
        }
        const float *const rest = q + r * dim;
        float *const to = x + r * DBT_ATTENTION_TILE + t;
        switch (rows - r) {
        case 3: dots(rest, k, at, 3, dim, half, to, mask); break;
        case 2: dots(rest, k, at, 2, dim, half, to, mask); break;
        case 1: dots(rest, k, at, 1, dim, half, to, mask); break;
        default: break;
        }
    }
}

/* 16 keys by 16 elements: row i of the result has element i of each key. */
INLINE void transpose16(__m512 m[16]) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(m[i], m[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(m[i], m[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* m[i + j]: element j of each quarter, of 4 keys */
        const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
        const __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
        m[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        m[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        m[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        m[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int j = 0; j < 4; j++) {
        const __m512 low = _mm512_shuffle_f32x4(m[j], m[4 + j], 0x88);
        const __m512 high = _mm512_shuffle_f32x4(m[j], m[4 + j], 0xdd);
        const __m512 low2 = _mm512_shuffle_f32x4(m[8 + j], m[12 + j], 0x88);
        const __m512 high2 = _mm512_shuffle_f32x4(m[8 + j], m[12 + j], 0xdd);
        t[j] = _mm512_shuffle_f32x4(low, low2, 0x88);
        t[8 + j] = _mm512_shuffle_f32x4(low, low2, 0xdd);
        t[4 + j] = _mm512_shuffle_f32x4(high, high2, 0x88);
        t[12 + j] = _mm512_shuffle_f32x4(high, high2, 0xdd);
    }
    for (int i = 0; i < 16; i++) m[i] = t[i];
}

/* Elements [0, dim) of each key to out: [dim rounded up to 16][DBT_ATTENTION_TILE], 0 past the last key. */
static void transpose(const float *k, int64_t k_stride, int64_t keys, int64_t dim, float *out) {
    for (int64_t d = 0; d < dim; d += LANES) {
        const __mmask16 mask = mask_of(dim - d);
        for (int64_t t = 0; t < DBT_ATTENTION_TILE; t += LANES) {
            __m512 m[16];
            for (int64_t i = 0; i < LANES; i++) {
                m[i] = t + i < keys ? load_masked(k + (t + i) * k_stride, d, false, mask)
                                    : _mm512_setzero_ps();
            }
            transpose16(m);
            for (int64_t i = 0; i < LANES; i++) {
                _mm512_storeu_ps(out + (d + i) * DBT_ATTENTION_TILE + t, m[i]);
            }
        }
    }
}

static void scores(const float *q, const float *k, int64_t k_stride, int64_t rows, int64_t keys,
                   int64_t dim, float *x) {
    if (rows <= FEW_ROWS) {
        scores_few(q, k, k_stride, rows, keys, dim, false, x);
        return;
    }
    enum { DEPTH = 64 };
    float columns[DEPTH * DBT_ATTENTION_TILE];
    for (int64_t d = 0; d < dim; d += DEPTH) {
        const int64_t depth = dim - d < DEPTH ? dim - d : DEPTH;
        transpose(k + d, k_stride, keys, depth, columns);
        const outer_args o = {.a = q + d,
                              .b = columns,
                              .c = x,
                              .a_stride = dim,
                              .b_stride = DBT_ATTENTION_TILE,
                              .c_stride = DBT_ATTENTION_TILE,
                              .depth = depth,
                              .add = d > 0};
        outer_rows(o, rows, COLUMNS, false, false);
    }
}

static void scores_half(const float *q, const uint16_t *k, int64_t k_stride, int64_t rows,
                        int64_t keys, int64_t dim, float *x) {
    scores_few(q, k, k_stride, rows, keys, dim, true, x);
}

/* ---- The weighted sum of values ---- */

INLINE void accumulate_any(const float *x, const void *v, int64_t v_stride, int64_t rows,
                           int64_t keys, int64_t dim, bool half, float *acc) {
    const int64_t bytes = half ? 2 : 4;
    outer_args o = {.a = x,
                    .a_stride = DBT_ATTENTION_TILE,
                    .b_stride = v_stride,
                    .c_stride = dim,
                    .depth = keys,
                    .add = true};
    int64_t d = 0;
    for (; dim - d >= COLUMNS * LANES; d += COLUMNS * LANES) {
        o.b = (const char *)v + d * bytes;
        o.c = acc + d;
        outer_rows(o, rows, COLUMNS, half, false);
    }
    for (; d < dim; d += LANES) {
        o.b = (const char *)v + d * bytes;
        o.c = acc + d;
        o.mask = mask_of(dim - d);
        outer_rows(o, rows, 1, half, true);
    }
}

static void accumulate(const float *x, const float *v, int64_t v_stride, int64_t rows, int64_t keys,
                       int64_t dim, float *acc) {
    accumulate_any(x, v, v_stride, rows, keys, dim, false, acc);
}

static void accumulate_half(const float *x, const uint16_t *v, int64_t v_stride, int64_t rows,
                            int64_t keys, int64_t dim, float *acc) {
    accumulate_any(x, v, v_stride, rows, keys, dim, true, acc);
}

/* ---- The softmax ---- */

/* dbt_expf in vectors, for x <= 0 (or NaN, which passes). */
INLINE __m512 exp16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x); /* in this order NaN passes */
    const __m512 magic = _mm512_set1_ps(0x1.8p23f);
    const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504088896341f), magic);
    const __m512 n = _mm512_sub_ps(shifted, magic);
    const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f),
                                      _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x));
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

static float exponentials(float *x, int64_t n, float top) {
    const __m512 tops = _mm512_set1_ps(top);
    __m512 sums = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = mask_of(n - i);
        const __m512 e = exp16(_mm512_sub_ps(load_masked(x, i, false, mask), tops));
        _mm512_mask_storeu_ps(x + i, mask, e);
        sums = _mm512_mask_add_ps(sums, mask, sums, e);
    }
    return _mm512_reduce_add_ps(sums);
}

static float largest(const float *x, int64_t n) {
    __m512 most = _mm512_set1_ps(x[0]);
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = mask_of(n - i);
        most = _mm512_mask_max_ps(most, mask, load_masked(x, i, false, mask),
                                  most); /* keeps most for NaN */
    }
    return _mm512_reduce_max_ps(most);
}

static void unpack_half(const uint16_t *h, int64_t n, float *x) {
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = mask_of(n - i);
        _mm512_mask_storeu_ps(x + i, mask, load_masked(h, i, true, mask));
    }
}

const dbt_attention_kernel dbt_attention_avx512 = {.name = "avx512",
                                                   .isa = DIBIT_ISA_AVX2 | DIBIT_ISA_AVX512,
                                                   .few_rows = FEW_ROWS,
                                                   .scores = scores,
                                                   .scores_half = scores_half,
                                                   .accumulate = accumulate,
                                                   .accumulate_half = accumulate_half,
                                                   .exponentials = exponentials,
                                                   .largest = largest,
                                                   .unpack_half = unpack_half};

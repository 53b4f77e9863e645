/* MatMulNBits with int8 activations, AVX2, FMA and F16C, reading B where it lies.
 *
 * 32 bytes of B at 2 bits are 128 codes; shifted right by 2 j and masked, byte i is
 * code 4 i + j. The activations are stored in that order (dbt_nbits_activations), so unpacking is a
 * shift and a mask. Sums of a vector's four-byte groups are 32-bit lanes; a block takes `lanes` of
 * them (all 8 if it is large), so that `lanes` vectors hold 8 blocks, which are reduced to one vector of
 * 8 block sums. Zero points and scales are then applied to 8 blocks at once.
 *
 *     2 bits, block 32, lanes 2    v0 |b0 b0|b1 b1|b2 b2|b3 b3|  v1 |b4 b4|b5 b5|b6 b6|b7 b7|
 *                                  -> |b0|b1|b2|b3|b4|b5|b6|b7|
 *
 * Loads may run over the end of a row of B, but not of B: the last rows are copied first. */
#include <immintrin.h>

#include "ops/matmul_nbits/cpu_kernels.h"

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* All ones in the first n of 8 lanes. */
static inline __m256i first_lanes(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)least(n, 8)), lane);
}

/* ---- Codes ---- */

/* 8 codes from `bits` bytes at b. Reads 4 bytes up to 4 bits, else 8. */
static DBT_ALWAYS_INLINE __m256i codes8(const uint8_t *b, const uint32_t bits) {
    const int n = (int)bits;
    if (bits == 8) return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)b));
    const __m256i mask = _mm256_set1_epi32((1 << n) - 1);
    if (bits <= 4) {
        int32_t word;
        memcpy(&word, b, 4);
        const __m256i shifts = _mm256_setr_epi32(0, n, 2 * n, 3 * n, 4 * n, 5 * n, 6 * n, 7 * n);
        return _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(word), shifts), mask);
    }
    /* Each lane takes the two bytes that its code may touch. */
#define TWO(i) (char)((i) * n / 8), (char)((i) * n / 8 + 1), -1, -1
    const __m256i bytes =
        _mm256_setr_epi8(TWO(0), TWO(1), TWO(2), TWO(3), TWO(4), TWO(5), TWO(6), TWO(7));
#undef TWO
    const __m256i shifts = _mm256_setr_epi32(0, n % 8, 2 * n % 8, 3 * n % 8, 4 * n % 8, 5 * n % 8,
                                             6 * n % 8, 7 * n % 8);
    const __m256i all =
        _mm256_broadcastsi128_si256(_mm_loadl_epi64((const __m128i *)(const void *)b));
    return _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(all, bytes), shifts), mask);
}

/* 32 codes, a byte each, from 4 * bits bytes at b, of 1, 3, 5, 6 or 7 bits. Reads 16 - bits bytes too
 * many. Eight codes fill a 128-bit lane: two bytes per code, then a product instead of the shift by a
 * variable that 16-bit lanes do not have. */
static DBT_ALWAYS_INLINE __m256i codes32(const uint8_t *b, const uint32_t bits) {
    const int n = (int)bits;
#define TWO(i) (char)((i) * n / 8), (char)((i) * n / 8 + 1)
    const __m256i bytes = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(TWO(0), TWO(1), TWO(2), TWO(3), TWO(4), TWO(5), TWO(6), TWO(7)));
#undef TWO
#define UP(i) (short)(256 >> ((i) * n % 8))
    const __m256i up = _mm256_broadcastsi128_si256(
        _mm_setr_epi16(UP(0), UP(1), UP(2), UP(3), UP(4), UP(5), UP(6), UP(7)));
#undef UP
#define LANES(low, high)                                                                           \
    _mm256_inserti128_si256(                                                                       \
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(low))),             \
        _mm_loadu_si128((const __m128i *)(const void *)(high)), 1)
    __m256i x = LANES(b, b + 2 * n), y = LANES(b + n, b + 3 * n);
#undef LANES
    x = _mm256_srli_epi16(_mm256_mullo_epi16(_mm256_shuffle_epi8(x, bytes), up), 8);
    y = _mm256_srli_epi16(_mm256_mullo_epi16(_mm256_shuffle_epi8(y, bytes), up), 8);
    return _mm256_and_si256(_mm256_packus_epi16(x, y), _mm256_set1_epi8((char)((1 << n) - 1)));
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

/* ---- Scales and zero points, 8 blocks at a time ---- */

/* Elements [i, i + n) of an unaligned array, n <= 8; zeros after them. */
static inline __m256 floats8(const void *data, dibit_type type, int64_t i, int64_t n) {
    const uint8_t *const at = (const uint8_t *)data + i * dbt_nbits_float_bytes(type);
    if (type == DIBIT_TYPE_FLOAT) {
        return _mm256_maskload_ps((const float *)(const void *)at, first_lanes(n));
    }
    uint8_t few[16] = {0};
    if (n < 8) memcpy(few, at, (size_t)n * 2);
    const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(n < 8 ? few : at));
    if (type == DIBIT_TYPE_FLOAT16) return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* As dbt_nbits_decode_blocks, with int8 activations. */
static DBT_ALWAYS_INLINE void decode_blocks(const dbt_matmul_nbits *p, int64_t n, float *scales,
                                            void *zero_points, const uint32_t bits) {
    const int64_t first = n * p->k_blocks, zero_row_bytes = dbt_nbits_zero_row_bytes(p);
    for (int64_t g = 0; g < p->k_blocks; g += 8) {
        const int64_t count = least(8, p->k_blocks - g);
        _mm256_store_ps(scales + g, floats8(p->scales, p->scale_type, first + g, count));
        if (dbt_nbits_float_zero_points(p)) {
            const __m256 z = floats8(p->zero_points, p->zero_point_type, first + g, count);
            _mm256_store_ps((float *)zero_points + g, z);
            continue;
        }
        __m256i z = _mm256_set1_epi32(1 << (bits - 1));
        if (p->zero_points) {
            /* 8 codes take `bits` bytes. */
            const uint8_t *const row = (const uint8_t *)p->zero_points + n * zero_row_bytes;
            const int64_t at = g / 8 * bits, left = (p->N - n) * zero_row_bytes - at;
            uint8_t few[8] = {0};
            if (left < 8) memcpy(few, row + at, (size_t)left);
            z = codes8(left < 8 ? few : row + at, bits);
        }
        _mm256_store_si256((__m256i *)zero_points + g / 8, z);
    }
}

/* ---- Int8 activations ---- */

enum { INT8_ROWS = 4 }; /* rows of A that share the unpacking */

/* Codes per 32 bytes of activations' plane: bytes i of planes hold code interleave * i + plane. */
static DBT_ALWAYS_INLINE int interleave_of(uint32_t bits) {
    return bits == 2 ? 4 : bits == 4 ? 2 : 1;
}

/* Multiplies one group of codes with a group of each of `rows` rows of A and adds 8 lanes of sums. */
static DBT_ALWAYS_INLINE void add_group(const uint8_t *b, const int8_t *a, int64_t a_stride,
                                        const int rows, const uint32_t bits, const bool unpacked,
                                        __m256i *sums, const int sums_stride) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int planes = interleave_of(bits);
    const __m256i packed = bits == 2 || bits == 4 || bits == 8 || unpacked
                               ? _mm256_loadu_si256((const __m256i *)(const void *)b)
                               : codes32(b, bits);
    __m256i codes[4];
    const __m256i mask = _mm256_set1_epi8((char)(bits < 8 ? (1 << bits) - 1 : 0));
    DBT_UNROLL
    for (int j = 0; j < planes; j++) {
        codes[j] =
            planes == 1 ? packed : _mm256_and_si256(_mm256_srli_epi16(packed, j * (int)bits), mask);
    }
    /* 8-bit codes are taken as code - 128, and products as |code| * (a with its sign): a pair of
     * products fits 16 bits. */
    const __m256i centred = _mm256_xor_si256(packed, _mm256_set1_epi8(-128));
    const __m256i size = _mm256_abs_epi8(centred);
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        const __m256i *const at = (const __m256i *)(const void *)(a + r * a_stride);
        __m256i pairs;
        if (bits == 8) {
            pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(_mm256_loadu_si256(at), centred));
        } else {
            pairs = _mm256_maddubs_epi16(codes[0], _mm256_loadu_si256(at));
            DBT_UNROLL
            for (int j = 1; j < planes; j++) {
                pairs = _mm256_add_epi16(
                    pairs, _mm256_maddubs_epi16(codes[j], _mm256_loadu_si256(at + j)));
            }
        }
        sums[r * sums_stride] =
            _mm256_add_epi32(sums[r * sums_stride], _mm256_madd_epi16(pairs, ones));
    }
}

/* `lanes` vectors, in which a block takes `lanes` lanes, to the sums of 8 blocks. */
static DBT_ALWAYS_INLINE __m256i block_sums(const __m256i *v, const int lanes) {
    if (lanes == 1) return v[0];
    if (lanes == 2) return _mm256_permute4x64_epi64(_mm256_hadd_epi32(v[0], v[1]), 0xd8);
    const __m256i low =
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    if (lanes == 4) {
        return _mm256_permutevar8x32_epi32(low, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    }
    const __m256i high =
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                            _mm256_permute2x128_si256(low, high, 0x31));
}

/* dot - zero_point * sum_a, of 8 blocks. */
static DBT_ALWAYS_INLINE __m256 apply_zero_points(__m256i dots, const void *zero_points,
                                                  const int32_t *a_sums, const int offset,
                                                  const bool floats) {
    const __m256i sums = _mm256_load_si256((const __m256i *)(const void *)a_sums);
    if (!floats) {
        const __m256i z = _mm256_sub_epi32(_mm256_load_si256((const __m256i *)zero_points),
                                           _mm256_set1_epi32(offset));
        return _mm256_cvtepi32_ps(_mm256_sub_epi32(dots, _mm256_mullo_epi32(z, sums)));
    }
    /* In double, since the two parts may cancel. */
    __m128 halves[2];
    for (int h = 0; h < 2; h++) {
        const __m256d z =
            _mm256_sub_pd(_mm256_cvtps_pd(_mm_load_ps((const float *)zero_points + 4 * h)),
                          _mm256_set1_pd(offset));
        const __m256d s = _mm256_cvtepi32_pd(h ? _mm256_extracti128_si256(sums, 1)
                                               : _mm256_castsi256_si128(sums));
        const __m256d d = _mm256_cvtepi32_pd(h ? _mm256_extracti128_si256(dots, 1)
                                               : _mm256_castsi256_si128(dots));
        halves[h] = _mm256_cvtpd_ps(_mm256_fnmadd_pd(z, s, d));
    }
    return _mm256_set_m128(halves[1], halves[0]);
}

/* Elements [m, m + rows) of column n of Y; b is row n of B, i its place in the tile. */
static DBT_ALWAYS_INLINE void int8_elements(const dbt_nbits_task *t, const uint8_t *b, int64_t n,
                                            int64_t i, int64_t m, const int rows,
                                            const uint32_t bits, const int lanes,
                                            const bool unpacked) {
    const dbt_matmul_nbits *const p = t->p;
    const dbt_nbits_activations *const act = t->activations;
    const int64_t codes = 32 * interleave_of(bits), group_bytes = unpacked ? 32 : codes * bits / 8;
    const int64_t n_groups = (p->K + codes - 1) / codes;
    const int64_t per_vector = lanes == 8 ? p->block_size / codes : 1;
    const bool float_zero_points = dbt_nbits_float_zero_points(p);
    const int8_t *const a = act->q + m * act->row_bytes;
    const float *const scales = t->scales + i * t->blocks_stride;
    const float *const zero_points = (const float *)t->zero_points + i * t->blocks_stride;
    __m256 y[INT8_ROWS];
    DBT_UNROLL
    for (int r = 0; r < rows; r++) y[r] = _mm256_setzero_ps();
    for (int64_t g = 0, group = 0; g < p->k_blocks; g += 8) {
        __m256i v[INT8_ROWS][8];
        DBT_UNROLL
        for (int j = 0; j < lanes; j++) {
            DBT_UNROLL
            for (int r = 0; r < rows; r++) v[r][j] = _mm256_setzero_si256();
            int64_t left = least(per_vector, n_groups - group);
            for (; left > 0; left--, group++) {
                add_group(b + group * group_bytes, a + group * codes, act->row_bytes, rows, bits,
                          unpacked, &v[0][j], 8);
                if (lanes < 8) left = 1; /* per_vector is 1 */
            }
        }
        const __m256 scale = _mm256_load_ps(scales + g);
        DBT_UNROLL
        for (int r = 0; r < rows; r++) {
            const int64_t at = (m + r) * act->blocks_stride + g;
            const __m256 term =
                apply_zero_points(block_sums(v[r], lanes), zero_points + g, act->sum + at,
                                  bits == 8 ? 128 : 0, float_zero_points);
            y[r] =
                _mm256_fmadd_ps(_mm256_mul_ps(_mm256_load_ps(act->scale + at), scale), term, y[r]);
        }
    }
    const float bias = p->bias ? p->bias[n] : 0.0f;
    DBT_UNROLL
    for (int r = 0; r < rows; r++) p->y[(m + r) * p->N + n] = sum8(y[r]) + bias;
}

static inline int64_t int8_readable_bytes(const dbt_matmul_nbits *p, uint32_t bits) {
    const int64_t codes = 32 * interleave_of(bits);
    return (p->K + codes - 1) / codes * (codes * bits / 8) + 16;
}

static DBT_ALWAYS_INLINE void multiply_tile(const dbt_nbits_task *t, int64_t n_begin, int64_t n_end,
                                            const uint32_t bits, const int lanes,
                                            const bool unpacked) {
    const int64_t bytes = int8_readable_bytes(t->p, bits);
    for (int64_t m = t->m_begin; m < t->m_end;) {
        const bool many = t->m_end - m >= INT8_ROWS;
        for (int64_t n = n_begin; n < n_end; n++) {
            const int64_t i = n - n_begin;
            const uint8_t *const b =
                unpacked ? (const uint8_t *)t->rows + i * t->row_stride : readable_row(t, n, bytes);
            if (many) {
                int8_elements(t, b, n, i, m, INT8_ROWS, bits, lanes, unpacked);
            } else {
                int8_elements(t, b, n, i, m, 1, bits, lanes, unpacked);
            }
        }
        m += many ? INT8_ROWS : 1;
    }
}

/* The same code for all widths that were unpacked first: their bytes are at most 127. */
static DBT_NOINLINE void multiply_bytes(const dbt_nbits_task *t, int64_t n_begin, int64_t n_end) {
    if (t->p->block_size == 16) {
        multiply_tile(t, n_begin, n_end, 7, 4, true);
    } else {
        multiply_tile(t, n_begin, n_end, 7, 8, true);
    }
}

static DBT_ALWAYS_INLINE void run_int8(const dbt_nbits_task *t, const uint32_t bits) {
    const dbt_matmul_nbits *const p = t->p;
    const int64_t lanes = p->block_size / (4 * interleave_of(bits));
    for (int64_t begin = t->n_begin; begin < t->n_end; begin += t->n_tile) {
        const int64_t end = least(begin + t->n_tile, t->n_end);
        for (int64_t n = begin; n < end; n++) {
            decode_blocks(p, n, t->scales + (n - begin) * t->blocks_stride,
                          (float *)t->zero_points + (n - begin) * t->blocks_stride, bits);
        }
        if (bits != 2 && bits != 4 && bits != 8) {
            const int64_t bytes = int8_readable_bytes(p, bits);
            for (int64_t n = begin; n < end; n++) {
                const uint8_t *const b = readable_row(t, n, bytes);
                uint8_t *const out = (uint8_t *)t->rows + (n - begin) * t->row_stride;
                for (int64_t k = 0; k < p->K; k += 32) {
                    _mm256_store_si256((__m256i *)(void *)(out + k),
                                       codes32(b + k / 8 * bits, bits));
                }
            }
            multiply_bytes(t, begin, end);
        } else if (bits == 2 && lanes == 1) {
            multiply_tile(t, begin, end, bits, 1, false);
        } else if (bits != 8 && lanes == 2) {
            multiply_tile(t, begin, end, bits, 2, false);
        } else if (lanes == 4) {
            multiply_tile(t, begin, end, bits, 4, false);
        } else {
            multiply_tile(t, begin, end, bits, 8, false);
        }
    }
}

#define SUFFIX avx2
#define FORMS(RUN) RUN(int8)
#include "ops/matmul_nbits/cpu_widths_tmpl.h"

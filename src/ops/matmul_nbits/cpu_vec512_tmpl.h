/* Vectors of 64 bytes for the templates of int8 kernels: AVX512 (F, BW, VL, DQ) and VNNI. A file that is
 * compiled with VBMI too has v_codes for every width, else for 8 bits alone. */
#include <immintrin.h>

#include "ops/matmul_nbits/cpu_kernels.h"

typedef __m512i vi;
typedef __m512 vf;
enum {
    VB = 64,      /* bytes */
    VL = 16,      /* 32-bit lanes */
    TILE_ROWS = 8 /* rows of A whose sums with two vectors of columns stay in registers */
};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline vi v_zero(void) { return _mm512_setzero_si512(); }
static inline vi v_load(const void *at) { return _mm512_loadu_si512(at); }
static inline void v_store(void *at, vi v) { _mm512_storeu_si512(at, v); }
static inline vi v_set8(int x) { return _mm512_set1_epi8((char)x); }
static inline vi v_set32(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi v_broadcast32(const void *at) {
    int32_t x;
    memcpy(&x, at, 4);
    return _mm512_set1_epi32(x);
}
static inline vi v_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi v_sub32(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi v_add32(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi v_mul32(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
/* Adds sums of two products of 16-bit halves. */
static inline vi v_add_halves(vi sum, vi a, vi b) { return _mm512_dpwssd_epi32(sum, a, b); }
/* Adds sums of four products of unsigned with signed bytes. Not the intrinsic: gcc 12 moves each sum to
 * another register and back in every round of a loop, since the intrinsic's type is not vi. */
static DBT_ALWAYS_INLINE vi v_dot(vi sum, vi unsigned_bytes, vi signed_bytes) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "vm"(signed_bytes));
    return sum;
}
#define v_shift_right16(v, by) _mm512_srli_epi16(v, (unsigned)(by))

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *at) { return _mm512_loadu_ps(at); }
static inline void vf_store(float *at, vf v) { _mm512_storeu_ps(at, v); }
static inline vf vf_of_int(vi v) { return _mm512_cvtepi32_ps(v); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
/* c - a * b, rounded once. */
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vi vf_bits(vf v) { return _mm512_castps_si512(v); }
static inline vf vf_of_bits(vi v) { return _mm512_castsi512_ps(v); }

static inline __mmask16 first16(int64_t n) { return (__mmask16)((1u << least(n, 16)) - 1); }
static inline __mmask64 first64(int64_t n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

/* The first n floats at `at`, to it; n of 0 to VL. */
static inline void vf_store_some(float *at, vf v, int64_t n) {
    _mm512_mask_storeu_ps(at, first16(n), v);
}
static inline vf vf_load_some(const float *at, int64_t n) {
    return _mm512_maskz_loadu_ps(first16(n), at);
}
/* The first n bytes (of VB at most), then zeros. */
static inline vi v_load_some(const uint8_t *at, int64_t n) {
    return _mm512_maskz_loadu_epi8(first64(n), at);
}

/* Elements [i, i + n) of an unaligned array of FLOAT, FLOAT16 or BFLOAT16, n <= VL; zeros after them. */
static DBT_ALWAYS_INLINE vf v_floats(const void *data, dibit_type type, int64_t i, int64_t n) {
    const uint8_t *const at = (const uint8_t *)data + i * dbt_nbits_float_bytes(type);
    if (type == DIBIT_TYPE_FLOAT) {
        return n >= VL ? _mm512_loadu_ps(at) : _mm512_maskz_loadu_ps(first16(n), at);
    }
    const __m256i v = n >= VL ? _mm256_loadu_si256((const __m256i *)(const void *)at)
                              : _mm256_maskz_loadu_epi16(first16(n), at);
    if (type == DIBIT_TYPE_FLOAT16) return _mm512_cvtph_ps(v);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

/* VL codes, a 32-bit lane each, from 2 * bits bytes at b, of which `left` may be read. */
static DBT_ALWAYS_INLINE vi v_codes32(const uint8_t *b, int64_t left, const uint32_t bits) {
    const int n = (int)bits;
    const __m128i v = left >= 16 ? _mm_loadu_si128((const __m128i *)(const void *)b)
                                 : _mm_maskz_loadu_epi8((__mmask16)first64(left), b);
    if (bits == 8) return _mm512_cvtepu8_epi32(v);
    const vi mask = _mm512_set1_epi32((1 << n) - 1);
    if (bits <= 2) { /* the first lane has them all */
        const vi shifts = _mm512_setr_epi32(0, n, 2 * n, 3 * n, 4 * n, 5 * n, 6 * n, 7 * n, 8 * n,
                                            9 * n, 10 * n, 11 * n, 12 * n, 13 * n, 14 * n, 15 * n);
        return _mm512_and_si512(_mm512_srlv_epi32(_mm512_broadcastd_epi32(v), shifts), mask);
    }
    /* Each lane takes the two bytes that its code may touch. */
#define TWO(i) (int)((unsigned)((i) * n / 8) | (unsigned)((i) * n / 8 + 1) << 8 | 0x80800000u)
    const vi bytes =
        _mm512_setr_epi32(TWO(0), TWO(1), TWO(2), TWO(3), TWO(4), TWO(5), TWO(6), TWO(7), TWO(8),
                          TWO(9), TWO(10), TWO(11), TWO(12), TWO(13), TWO(14), TWO(15));
#undef TWO
#define SHIFT(i) ((i) * n % 8)
    const vi shifts = _mm512_setr_epi32(SHIFT(0), SHIFT(1), SHIFT(2), SHIFT(3), SHIFT(4), SHIFT(5),
                                        SHIFT(6), SHIFT(7), SHIFT(8), SHIFT(9), SHIFT(10),
                                        SHIFT(11), SHIFT(12), SHIFT(13), SHIFT(14), SHIFT(15));
#undef SHIFT
    const vi two = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(v), bytes);
    return _mm512_and_si512(_mm512_srlv_epi32(two, shifts), mask);
}

/* VB codes, a byte each, of the 8 * bits bytes that v begins with. A quadword takes the `bits` bytes of its eight
 * codes; then one instruction shifts each code to its byte. */
static DBT_ALWAYS_INLINE vi v_spread(vi v, const uint32_t bits) {
    if (bits == 8) return v;
#if defined(__AVX512VBMI__)
    const long long n = (long long)bits;
#define EIGHT(j) (0x0706050403020100ll + (j) * n * 0x0101010101010101ll)
    const vi bytes = _mm512_setr_epi64(EIGHT(0), EIGHT(1), EIGHT(2), EIGHT(3), EIGHT(4), EIGHT(5),
                                       EIGHT(6), EIGHT(7));
#undef EIGHT
    const vi shifts = _mm512_set1_epi64(n << 8 | 2 * n << 16 | 3 * n << 24 | 4 * n << 32 |
                                        5 * n << 40 | 6 * n << 48 | 7 * n << 56);
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(bytes, v)),
                            _mm512_set1_epi8((char)((1 << n) - 1)));
#else
    return v_zero();
#endif
}

#if defined(__AVX512VBMI__)
/* 2 * VB codes of 3 bits, from 48 bytes at b of which `left` may be read: a quadword has the six bytes of 16 of
 * them, and plane j has codes 2 * i + j, a byte each. */
static DBT_ALWAYS_INLINE vi v_sixteens(const uint8_t *b, int64_t left) {
#define SIX(q) (0x0706050403020100ll + (q) * 6 * 0x0101010101010101ll)
    const vi bytes =
        _mm512_setr_epi64(SIX(0), SIX(1), SIX(2), SIX(3), SIX(4), SIX(5), SIX(6), SIX(7));
#undef SIX
    return _mm512_permutexvar_epi8(bytes, v_load_some(b, least(left, 48)));
}
static DBT_ALWAYS_INLINE vi v_plane_of_sixteens(vi v, int j) {
    const vi shifts =
        _mm512_set1_epi64(0x2a241e18120c0600ll + (long long)j * 3 * 0x0101010101010101ll);
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, v), _mm512_set1_epi8(7));
}
#endif

/* VB codes, a byte each, from 8 * bits bytes at b, of which `left` may be read. */
static DBT_ALWAYS_INLINE vi v_codes(const uint8_t *b, int64_t left, const uint32_t bits) {
    if (bits == 8) return left >= VB ? v_load(b) : v_load_some(b, left);
    if (bits == 1) {
        uint64_t ones = 0;
        if (left >= 8) {
            memcpy(&ones, b, 8);
        } else {
            memcpy(&ones, b, (size_t)left);
        }
        return _mm512_maskz_set1_epi8(ones, 1);
    }
    return v_spread(v_load_some(b, least(left, 8 * (int64_t)bits)), bits);
}

/* Sums of neighbouring lanes: those of a, then those of b. */
static inline vi v_add_pairs(vi a, vi b) {
    const vi even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const vi odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_add_epi32(_mm512_permutex2var_epi32(a, even, b),
                            _mm512_permutex2var_epi32(a, odd, b));
}

/* Sums of neighbouring lanes within each 128 bits: those of a, then those of b. Where a processor has four
 * units for vectors, all do this, and two what crosses 128 bits. */
static inline vi v_add_near(vi a, vi b) {
    const __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}
/* Sums of neighbouring 128 bits, lane by lane: those of a, then those of b. */
static inline vi v_add_far(vi a, vi b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}
/* The sums of blocks of so many lanes, which v_add_near twice and then v_add_far have made of as many vectors, one
 * behind the other. */
static DBT_ALWAYS_INLINE vi v_in_order(vi v, const int lanes) {
    const vi of2 = _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const vi of4 = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const vi of8 = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    if (lanes == 2) return _mm512_permutexvar_epi32(of2, v);
    if (lanes == 4) return _mm512_permutexvar_epi32(of4, v);
    if (lanes == 8) return _mm512_permutexvar_epi32(of8, v);
    return v;
}

/* dots - zero_points * sums, in double: see apply_float. */
static DBT_ALWAYS_INLINE vf v_apply_float(vi dots, vf zero_points, vi sums) {
    __m256 halves[2];
    DBT_UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256 z =
            h ? _mm512_extractf32x8_ps(zero_points, 1) : _mm512_castps512_ps256(zero_points);
        const __m256i s = h ? _mm512_extracti32x8_epi32(sums, 1) : _mm512_castsi512_si256(sums);
        const __m256i d = h ? _mm512_extracti32x8_epi32(dots, 1) : _mm512_castsi512_si256(dots);
        const __m512d zero_point = _mm512_cvtps_pd(z);
        halves[h] = _mm512_cvtpd_ps(
            _mm512_fnmadd_pd(zero_point, _mm512_cvtepi32_pd(s), _mm512_cvtepi32_pd(d)));
    }
    return _mm512_insertf32x8(_mm512_castps256_ps512(halves[0]), halves[1], 1);
}

/* The sums of the lanes of four vectors. */
static inline __m128 v_sums(vf a, vf b, vf c, vf d) {
    const vf ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const vf cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const vf v = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m256 w = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
}

/* Lane i of vector j becomes lane j of vector i. */
static DBT_NOINLINE void v_transpose(vi v[VL]) {
    vi w[VL];
    DBT_UNROLL
    for (int i = 0; i < 8; i++) { /* pairs of rows */
        w[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        w[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    DBT_UNROLL
    for (int i = 0; i < 4; i++) { /* fours: v[4 i + c] has column c of every 128 bits */
        v[4 * i + 0] = _mm512_unpacklo_epi64(w[4 * i], w[4 * i + 2]);
        v[4 * i + 1] = _mm512_unpackhi_epi64(w[4 * i], w[4 * i + 2]);
        v[4 * i + 2] = _mm512_unpacklo_epi64(w[4 * i + 1], w[4 * i + 3]);
        v[4 * i + 3] = _mm512_unpackhi_epi64(w[4 * i + 1], w[4 * i + 3]);
    }
    DBT_UNROLL
    for (int c = 0; c < 4; c++) {
        const vi low0 = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);
        const vi high0 = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);
        const vi low1 = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);
        const vi high1 = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
        w[c] = _mm512_shuffle_i32x4(low0, low1, 0x88);
        w[4 + c] = _mm512_shuffle_i32x4(high0, high1, 0x88);
        w[8 + c] = _mm512_shuffle_i32x4(low0, low1, 0xdd);
        w[12 + c] = _mm512_shuffle_i32x4(high0, high1, 0xdd);
    }
    DBT_UNROLL
    for (int i = 0; i < VL; i++) v[i] = w[i];
}

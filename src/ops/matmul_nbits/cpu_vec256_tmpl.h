/* Vectors of 32 bytes for the templates of int8 kernels of 2, 4 and 8 bits: AVX2, FMA, F16C and AVX-VNNI. */
#include <immintrin.h>

#include "ops/matmul_nbits/cpu_kernels.h"

typedef __m256i vi;
typedef __m256 vf;
enum {
    VB = 32,      /* bytes */
    VL = 8,       /* 32-bit lanes */
    TILE_ROWS = 4 /* rows of A whose sums with two vectors of columns stay in registers */
};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline vi v_zero(void) { return _mm256_setzero_si256(); }
static inline vi v_load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }
static inline void v_store(void *at, vi v) { _mm256_storeu_si256((__m256i *)at, v); }
static inline vi v_set8(int x) { return _mm256_set1_epi8((char)x); }
static inline vi v_set32(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi v_broadcast32(const void *at) {
    int32_t x;
    memcpy(&x, at, 4);
    return _mm256_set1_epi32(x);
}
static inline vi v_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi v_sub32(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi v_mul32(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
/* Adds sums of two products of 16-bit halves. */
static inline vi v_add_halves(vi sum, vi a, vi b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
/* Adds sums of four products of unsigned with signed bytes; not the intrinsic, as in cpu_vec512_tmpl.h. */
static DBT_ALWAYS_INLINE vi v_dot(vi sum, vi unsigned_bytes, vi signed_bytes) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(unsigned_bytes), "xm"(signed_bytes));
    return sum;
}
#define v_shift_right16(v, by) _mm256_srli_epi16(v, by)

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *at) { return _mm256_loadu_ps(at); }
static inline void vf_store(float *at, vf v) { _mm256_storeu_ps(at, v); }
static inline vf vf_of_int(vi v) { return _mm256_cvtepi32_ps(v); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
/* c - a * b, rounded once. */
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vi vf_bits(vf v) { return _mm256_castps_si256(v); }
static inline vf vf_of_bits(vi v) { return _mm256_castsi256_ps(v); }

/* All ones in the first n of VL lanes. */
static inline vi first_lanes(int64_t n) {
    const vi lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)least(n, VL)), lane);
}
/* The first n floats at `at`, to it; n of 0 to VL. */
static inline void vf_store_some(float *at, vf v, int64_t n) {
    _mm256_maskstore_ps(at, first_lanes(n), v);
}
static inline vf vf_load_some(const float *at, int64_t n) {
    return _mm256_maskload_ps(at, first_lanes(n));
}
/* The first n bytes (of VB at most), then zeros. */
static inline vi v_load_some(const uint8_t *at, int64_t n) {
    if (n >= VB) return v_load(at);
    if (n % 4 == 0) return _mm256_maskload_epi32((const int *)(const void *)at, first_lanes(n / 4));
    uint8_t few[VB] = {0};
    memcpy(few, at, (size_t)n);
    return v_load(few);
}
/* Likewise of 16 bytes. */
static inline __m128i load16_some(const uint8_t *at, int64_t n) {
    if (n >= 16) return _mm_loadu_si128((const __m128i *)(const void *)at);
    uint8_t few[16] = {0};
    memcpy(few, at, (size_t)n);
    return _mm_loadu_si128((const __m128i *)(const void *)few);
}

/* Elements [i, i + n) of an unaligned array of FLOAT, FLOAT16 or BFLOAT16, n <= VL; zeros after them. */
static DBT_ALWAYS_INLINE vf v_floats(const void *data, dibit_type type, int64_t i, int64_t n) {
    const uint8_t *const at = (const uint8_t *)data + i * dbt_nbits_float_bytes(type);
    if (type == DIBIT_TYPE_FLOAT) {
        return n >= VL ? _mm256_loadu_ps((const float *)(const void *)at)
                       : vf_load_some((const float *)(const void *)at, n);
    }
    const __m128i v = load16_some(at, 2 * n);
    if (type == DIBIT_TYPE_FLOAT16) return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* VL codes, a 32-bit lane each, from `bits` bytes at b, of which `left` may be read: each lane takes the two
 * bytes that its code may touch. */
static DBT_ALWAYS_INLINE vi v_codes32(const uint8_t *b, int64_t left, const uint32_t bits) {
    const int n = (int)bits;
    const __m128i v = load16_some(b, left);
    if (bits == 8) return _mm256_cvtepu8_epi32(v);
#define TWO(i) (char)((i) * n / 8), (char)((i) * n / 8 + 1), -1, -1
    const vi bytes =
        _mm256_setr_epi8(TWO(0), TWO(1), TWO(2), TWO(3), TWO(4), TWO(5), TWO(6), TWO(7));
#undef TWO
    const vi shifts = _mm256_setr_epi32(0, n % 8, 2 * n % 8, 3 * n % 8, 4 * n % 8, 5 * n % 8,
                                        6 * n % 8, 7 * n % 8);
    const vi two = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(v), bytes);
    return _mm256_and_si256(_mm256_srlv_epi32(two, shifts), v_set32((1 << n) - 1));
}

/* VB codes of 8 bits at b, of which `left` bytes may be read. */
static DBT_ALWAYS_INLINE vi v_codes(const uint8_t *b, int64_t left, const uint32_t bits) {
    (void)bits;
    return v_load_some(b, left);
}

/* Sums of neighbouring lanes: those of a, then those of b. */
static inline vi v_add_pairs(vi a, vi b) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
}

/* Sums of neighbouring lanes within each 128 bits: those of a, then those of b. */
static inline vi v_add_near(vi a, vi b) { return _mm256_hadd_epi32(a, b); }
/* Sums of neighbouring 128 bits, lane by lane: those of a, then those of b. */
static inline vi v_add_far(vi a, vi b) {
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                            _mm256_permute2x128_si256(a, b, 0x31));
}
/* The sums of blocks of so many lanes, which v_add_near twice and then v_add_far have made of as many vectors, one
 * behind the other. */
static DBT_ALWAYS_INLINE vi v_in_order(vi v, const int lanes) {
    if (lanes == 2) return _mm256_permute4x64_epi64(v, 0xd8);
    if (lanes == 4)
        return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    return v;
}

/* dots - zero_points * sums, in double: see apply_float. */
static DBT_ALWAYS_INLINE vf v_apply_float(vi dots, vf zero_points, vi sums) {
    __m128 halves[2];
    DBT_UNROLL
    for (int h = 0; h < 2; h++) {
        const __m128 z =
            h ? _mm256_extractf128_ps(zero_points, 1) : _mm256_castps256_ps128(zero_points);
        const __m128i s = h ? _mm256_extracti128_si256(sums, 1) : _mm256_castsi256_si128(sums);
        const __m128i d = h ? _mm256_extracti128_si256(dots, 1) : _mm256_castsi256_si128(dots);
        halves[h] = _mm256_cvtpd_ps(
            _mm256_fnmadd_pd(_mm256_cvtps_pd(z), _mm256_cvtepi32_pd(s), _mm256_cvtepi32_pd(d)));
    }
    return _mm256_set_m128(halves[1], halves[0]);
}

/* The sums of the lanes of four vectors. */
static inline __m128 v_sums(vf a, vf b, vf c, vf d) {
    const vf v = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

/* Lane i of vector j becomes lane j of vector i. */
static DBT_NOINLINE void v_transpose(vi v[VL]) {
    vi w[VL];
    DBT_UNROLL
    for (int i = 0; i < 4; i++) { /* pairs of rows */
        w[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        w[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    DBT_UNROLL
    for (int i = 0; i < 2; i++) { /* fours: v[4 i + c] has column c of every 128 bits */
        v[4 * i + 0] = _mm256_unpacklo_epi64(w[4 * i], w[4 * i + 2]);
        v[4 * i + 1] = _mm256_unpackhi_epi64(w[4 * i], w[4 * i + 2]);
        v[4 * i + 2] = _mm256_unpacklo_epi64(w[4 * i + 1], w[4 * i + 3]);
        v[4 * i + 3] = _mm256_unpackhi_epi64(w[4 * i + 1], w[4 * i + 3]);
    }
    DBT_UNROLL
    for (int c = 0; c < 4; c++) {
        w[c] = _mm256_permute2x128_si256(v[c], v[4 + c], 0x20);
        w[4 + c] = _mm256_permute2x128_si256(v[c], v[4 + c], 0x31);
    }
    DBT_UNROLL
    for (int i = 0; i < VL; i++) v[i] = w[i];
}

/* MatMulNBits with float activations and AVX2, FMA and F16C: the vectors of cpu_strip_tmpl.h, 8 lanes. */
#include <immintrin.h>

#include "ops/matmul_nbits/cpu_kernels.h"

enum { LANES = 8, STRIPS = 2, ROWS = 6 };
typedef float vf __attribute__((vector_size(32), may_alias));
typedef uint32_t vu __attribute__((vector_size(32), may_alias));

static DBT_ALWAYS_INLINE vf multiply_add(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps(a, b, c); }

static DBT_ALWAYS_INLINE vf floats_of_halves(vu v) {
    const __m256i low = (__m256i)(v & 0xffff), packed = _mm256_packus_epi32(low, low);
    return (vf)_mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}

/* Up to 3 bits from a table, whose index is the low 3 bits. */
static DBT_ALWAYS_INLINE vf floats_of_codes(vu v, const uint32_t bits) {
    if (bits > 3) return (vf)_mm256_cvtepi32_ps((__m256i)(v & ((1u << bits) - 1)));
    const int mask = (1 << bits) - 1;
    const __m256 table = {0.0f,
                          (float)(1 & mask),
                          (float)(2 & mask),
                          (float)(3 & mask),
                          (float)(4 & mask),
                          (float)(5 & mask),
                          (float)(6 & mask),
                          (float)(7 & mask)};
    return (vf)_mm256_permutevar8x32_ps(table, (__m256i)v);
}

static DBT_ALWAYS_INLINE void transpose_words(const uint8_t *at, int64_t stride, vu out[4]) {
    __m256i rows[4]; /* 128-bit lane l of rows[r]: row 4 * l + r */
    for (int r = 0; r < 4; r++) {
#define ROW(l) _mm_loadu_si128((const __m128i *)(const void *)(at + (4 * (l) + r) * stride))
        rows[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(ROW(0)), ROW(1), 1);
#undef ROW
    }
    const __m256i a = _mm256_unpacklo_epi32(rows[0], rows[1]),
                  b = _mm256_unpackhi_epi32(rows[0], rows[1]),
                  c = _mm256_unpacklo_epi32(rows[2], rows[3]),
                  d = _mm256_unpackhi_epi32(rows[2], rows[3]);
    out[0] = (vu)_mm256_unpacklo_epi64(a, c);
    out[1] = (vu)_mm256_unpackhi_epi64(a, c);
    out[2] = (vu)_mm256_unpacklo_epi64(b, d);
    out[3] = (vu)_mm256_unpackhi_epi64(b, d);
}

#define SUFFIX avx2
#include "ops/matmul_nbits/cpu_float_tmpl.h"

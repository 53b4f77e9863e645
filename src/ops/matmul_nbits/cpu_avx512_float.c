/* MatMulNBits with float activations and AVX512: the vectors of cpu_strip_tmpl.h, 16 lanes. */
#include <immintrin.h>

#include "ops/matmul_nbits/cpu_kernels.h"

enum { LANES = 16, STRIPS = 3, ROWS = 8 };
typedef float vf __attribute__((vector_size(64), may_alias));
typedef uint32_t vu __attribute__((vector_size(64), may_alias));

static DBT_ALWAYS_INLINE vf multiply_add(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps(a, b, c); }

static DBT_ALWAYS_INLINE vf floats_of_halves(vu v) {
    return (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)v));
}

/* Up to 5 bits from a table, whose index is the low 4 or 5 bits. */
static DBT_ALWAYS_INLINE vf floats_of_codes(vu v, const uint32_t bits) {
    if (bits > 5) {
        return (vf)_mm512_cvtepi32_ps((__m512i)(v & ((1u << bits) - 1)));
    }
    const int mask = (1 << bits) - 1;
#define ENTRIES(i)                                                                                 \
    (float)((i) & mask), (float)((i + 1) & mask), (float)((i + 2) & mask), (float)((i + 3) & mask)
    const __m512 low = {ENTRIES(0), ENTRIES(4), ENTRIES(8), ENTRIES(12)};
    const __m512 high = {ENTRIES(16), ENTRIES(20), ENTRIES(24), ENTRIES(28)};
#undef ENTRIES
    return (vf)(bits == 5 ? _mm512_permutex2var_ps(low, (__m512i)v, high)
                          : _mm512_permutexvar_ps((__m512i)v, low));
}

static DBT_ALWAYS_INLINE void transpose_words(const uint8_t *at, int64_t stride, vu out[4]) {
    __m512i rows[4]; /* 128-bit lane l of rows[r]: row 4 * l + r */
    for (int r = 0; r < 4; r++) {
#define ROW(l) _mm_loadu_si128((const __m128i *)(const void *)(at + (4 * (l) + r) * stride))
        __m512i v = _mm512_castsi128_si512(ROW(0));
        v = _mm512_inserti32x4(v, ROW(1), 1);
        v = _mm512_inserti32x4(v, ROW(2), 2);
        rows[r] = _mm512_inserti32x4(v, ROW(3), 3);
#undef ROW
    }
    const __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]),
                  b = _mm512_unpackhi_epi32(rows[0], rows[1]),
                  c = _mm512_unpacklo_epi32(rows[2], rows[3]),
                  d = _mm512_unpackhi_epi32(rows[2], rows[3]);
    out[0] = (vu)_mm512_unpacklo_epi64(a, c);
    out[1] = (vu)_mm512_unpackhi_epi64(a, c);
    out[2] = (vu)_mm512_unpacklo_epi64(b, d);
    out[3] = (vu)_mm512_unpackhi_epi64(b, d);
}

#define SUFFIX avx512
#include "ops/matmul_nbits/cpu_float_tmpl.h"

/* MatMulNBits with AVX512 and VNNI, int8 activations of 2-, 4- and 8-bit codes; and how such activations are
 * rounded. */
#include "ops/matmul_nbits/cpu_vec512_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_matvec_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_tile_tmpl.h"

/* ---- Activations ---- */

/* Rounds n values to nearest even; returns their sum. */
static inline int32_t round_block(const float *a, int64_t n, float inverse, int8_t *q) {
    const vf by = vf_set(inverse);
    vi sum = v_zero();
    for (int64_t i = 0; i < n; i += VL) {
        const __mmask16 some = first16(n - i);
        const vi v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(some, a + i), by));
        sum = _mm512_add_epi32(sum, v);
        _mm512_mask_cvtepi32_storeu_epi8(q + i, some, v);
    }
    return _mm512_reduce_add_epi32(sum);
}

static inline float largest_of(const float *a, int64_t n) {
    const vi size = v_set32(0x7fffffff);
    vi most = v_zero();
    for (int64_t i = 0; i < n; i += VL) {
        const vi v = _mm512_maskz_loadu_epi32(first16(n - i), a + i);
        most = _mm512_max_epi32(most, v_and(v, size));
    }
    return dbt_bits_to_float((uint32_t)_mm512_reduce_max_epi32(most));
}

static inline void quantize_row(const dbt_matmul_nbits *p, const float *a, int8_t *q, float *scale,
                                int32_t *sum) {
    for (int64_t g = 0; g < p->k_blocks; g++) {
        const int64_t k = g * p->block_size, n = least(p->block_size, p->K - k);
        const float most = largest_of(a + k, n);
        const float inverse = dbt_nbits_int8_scale(&most, 1, &scale[g]);
        sum[g] = 0;
        if (inverse > 0.0f) {
            sum[g] = round_block(a + k, n, inverse, q + k);
        } else {
            memset(q + k, 0, (size_t)n);
        }
    }
}

/* Bytes of each 16 as a shuffle has them. */
static inline vi within16(vi v, __m128i bytes) {
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(bytes));
}
/* Every second byte, every fourth. */
static inline __m128i by2(void) {
    return _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
}
static inline __m128i by4(void) {
    return _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}

/* Planes of 4 bytes. */
static inline void order_quads(int8_t *q, int64_t n, __m128i bytes) {
    for (int64_t k = 0; k < n; k += 64) v_store(q + k, within16(v_load(q + k), bytes));
}
/* Planes of 64 bytes. */
static inline void order_planes2(int8_t *q, int64_t n) {
    const vi low = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const vi high = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    for (int64_t k = 0; k < n; k += 128) {
        const vi a = within16(v_load(q + k), by2()), b = within16(v_load(q + k + 64), by2());
        v_store(q + k, _mm512_permutex2var_epi64(a, low, b));
        v_store(q + k + 64, _mm512_permutex2var_epi64(a, high, b));
    }
}
static inline void order_planes4(int8_t *q, int64_t n) {
    /* Of two vectors: plane 0, then plane 1 (and likewise 2, 3), half a vector each. */
    const vi low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    const vi high = _mm512_add_epi32(low, v_set32(2));
    for (int64_t k = 0; k < n; k += 256) {
        vi v[4];
        for (int i = 0; i < 4; i++) v[i] = within16(v_load(q + k + 64 * i), by4());
        const vi a01 = _mm512_permutex2var_epi32(v[0], low, v[1]);
        const vi a23 = _mm512_permutex2var_epi32(v[0], high, v[1]);
        const vi b01 = _mm512_permutex2var_epi32(v[2], low, v[3]);
        const vi b23 = _mm512_permutex2var_epi32(v[2], high, v[3]);
        v_store(q + k, _mm512_shuffle_i64x2(a01, b01, 0x44));
        v_store(q + k + 64, _mm512_shuffle_i64x2(a01, b01, 0xee));
        v_store(q + k + 128, _mm512_shuffle_i64x2(a23, b23, 0x44));
        v_store(q + k + 192, _mm512_shuffle_i64x2(a23, b23, 0xee));
    }
}

void dbt_nbits_quantize_row_avx512(const dbt_matmul_nbits *p, uint32_t order, int64_t row_bytes,
                                   const float *a, int8_t *q, float *scale, int32_t *sum) {
    quantize_row(p, a, q, scale, sum);
    memset(q + p->K, 0, (size_t)(row_bytes - p->K));
    if (order == DBT_NBITS_PLANES(4, 2)) {
        order_quads(q, row_bytes,
                    _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    }
    if (order == DBT_NBITS_PLANES(4, 4)) order_quads(q, row_bytes, by4());
    if (order == DBT_NBITS_PLANES(64, 2)) order_planes2(q, row_bytes);
    if (order == DBT_NBITS_PLANES(64, 4)) order_planes4(q, row_bytes);
}

/* ---- Activations in tiles ---- */

/* 64 elements from k on of a row; inverse [] is of the blocks (of 1 << shift) from `first` on. */
static inline void round_slab(const dbt_matmul_nbits *p, const float *row, int64_t k,
                              const float *inverse, int64_t first, int shift, int8_t *q) {
    for (int64_t i = 0; i < VB; i += VL) {
        const float by = k + i < p->K ? inverse[((k + i) >> shift) - first] : 0.0f;
        const __mmask16 some = by > 0.0f ? first16(p->K - k - i) : 0;
        const vf v = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, row + k + i), vf_set(by));
        _mm_store_si128((__m128i *)(void *)(q + i), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
    }
}

/* Which quads of the 64 elements from k on are of blocks g with g % parts == part. */
static inline __mmask16 quads_of(int64_t k, int shift, int64_t parts, int64_t part) {
    unsigned mask = 0;
    for (int64_t i = 0; i < VB; i += VL)
        mask |= (((k + i) >> shift) & (parts - 1)) == part ? 15u << (i / 4) : 0;
    return (__mmask16)mask;
}

void dbt_nbits_quantize_tile_avx512(const dbt_matmul_nbits *p, int64_t tile, int64_t k_begin,
                                    int64_t k_end, int8_t *q, float *scale, int32_t *sum) {
    enum { ROWS = DBT_NBITS_TILE_ROWS };
    const float *const a = p->a + tile * ROWS * p->K;
    const int64_t rows = least(ROWS, p->M - tile * ROWS), parts = dbt_nbits_parts(p, rows);
    const int64_t block_size = p->block_size, group = parts * block_size;
    const int shift = __builtin_ctzll((uint64_t)block_size);
    const int64_t first = k_begin >> shift;
    float inverse[ROWS][ROWS];
    _Alignas(64) int8_t slab[ROWS][VB];
    for (int64_t k = k_begin; k < k_end; k += group) {
        vf_store(scale + k / group * ROWS, vf_zero());
        v_store(sum + k / group * ROWS, v_zero());
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t g = first, k = k_begin; k < k_end; g++, k += block_size) {
            const float most = largest_of(a + r * p->K + k, least(block_size, p->K - k));
            float *const to = scale + g / parts * ROWS + r * parts + g % parts;
            inverse[r][g - first] = dbt_nbits_int8_scale(&most, 1, to);
        }
    }
    const vi ones = v_set8(1);
    for (int64_t k = k_begin; k < k_end; k += VB) {
        vi v[ROWS];
        for (int64_t i = 0; i < ROWS; i++) v[i] = v_zero();
        for (int64_t r = 0; r < rows; r++)
            round_slab(p, a + r * p->K, k, inverse[r], first, shift, slab[r]);
        for (int64_t j = 0; j < parts; j++) {
            const __mmask16 quads = quads_of(k, shift, parts, j);
            for (int64_t r = 0; r < rows; r++)
                v[r * parts + j] = _mm512_maskz_loadu_epi32(quads, slab[r]);
        }
        v_transpose(v);
        int32_t *to = sum + k / group * ROWS;
        for (int64_t i = 0, left = group - k % group; i < VB; i += 4, left -= 4) {
            v_store(q + (k + i) * ROWS, v[i / 4]);
            if (k + i >= k_end) continue;
            if (left == 0) {
                left = group;
                to += ROWS;
            }
            v_store(to, v_dot(v_load(to), ones, v[i / 4]));
        }
    }
}

#define SUFFIX avx512vnni
#define FORMS(RUN) RUN(int8_matvec) RUN(int8_tile)
#define BITS 2
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 4
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 8
#include "ops/matmul_nbits/cpu_tmpl.h"

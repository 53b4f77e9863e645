/* MatMulNBits with int8 activations and NEON that every 64-bit Arm has: long multiplications in place of
 * dot products. */
#include "ops/matmul_nbits/cpu_neon_tmpl.h"

enum { FEW_ROWS = 1, MANY_ROWS = 4 };
typedef struct int8_sums {
    int32x4_t of[MANY_ROWS];
} int8_sums;

/* Two products of bytes fit 16 bits: |code| <= 128, |a| <= 127. */
static DBT_ALWAYS_INLINE int32x4_t dot(int32x4_t sum, vu codes, int8x16_t a) {
    const int8x16_t b = (int8x16_t)codes;
    const int16x8_t low = vmull_s8(vget_low_s8(b), vget_low_s8(a)), high = vmull_high_s8(b, a);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}

static DBT_ALWAYS_INLINE void add_codes(int8_sums *sums, const vu codes[4], const int8_t *a,
                                        int64_t a_stride, const int rows) {
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        const int32x4_t v = vreinterpretq_s32_s8(vld1q_s8(a + r * a_stride));
#define ADD(i) sums->of[r] = dot(sums->of[r], codes[i], vreinterpretq_s8_s32(vdupq_laneq_s32(v, i)))
        ADD(0);
        ADD(1);
        ADD(2);
        ADD(3);
#undef ADD
    }
}

static DBT_ALWAYS_INLINE int32x4_t dots_of(const int8_sums *sums, int r) { return sums->of[r]; }

#define SUFFIX neon
#include "ops/matmul_nbits/cpu_neon_int8_tmpl.h"

/* MatMulNBits with int8 activations and Arm's products of 2 x 8 by 8 x 2 bytes (FEAT_I8MM). */
#include "ops/matmul_nbits/cpu_neon_tmpl.h"

enum { FEW_ROWS = 2, MANY_ROWS = 4 };
typedef struct int8_sums {
    int32x4_t of[MANY_ROWS]; /* of[2 * i + j]: rows 2 i, 2 i + 1 of A with rows 2 j, 2 j + 1 of B */
} int8_sums;

static DBT_ALWAYS_INLINE void add_codes(int8_sums *sums, const vu codes[4], const int8_t *a,
                                        int64_t a_stride, const int rows) {
    DBT_UNROLL
    for (int i = 0; i < 2; i++) {
        /* 8 bytes of two rows of B */
        const uint32x4_t x = (uint32x4_t)codes[2 * i], y = (uint32x4_t)codes[2 * i + 1];
        const int8x16_t low = vreinterpretq_s8_u32(vzip1q_u32(x, y)),
                        high = vreinterpretq_s8_u32(vzip2q_u32(x, y));
        DBT_UNROLL
        for (int r = 0; r < rows; r += 2) {
            const int8_t *const at = a + r * a_stride + 8 * i;
            const int8x16_t v = vcombine_s8(vld1_s8(at), vld1_s8(at + a_stride));
            sums->of[r] = vmmlaq_s32(sums->of[r], v, low);
            sums->of[r + 1] = vmmlaq_s32(sums->of[r + 1], v, high);
        }
    }
}

static DBT_ALWAYS_INLINE int32x4_t dots_of(const int8_sums *sums, int r) {
    const int64x2_t low = vreinterpretq_s64_s32(sums->of[r / 2 * 2]),
                    high = vreinterpretq_s64_s32(sums->of[r / 2 * 2 + 1]);
    return vreinterpretq_s32_s64(r % 2 ? vzip2q_s64(low, high) : vzip1q_s64(low, high));
}

#define SUFFIX neoni8mm
#include "ops/matmul_nbits/cpu_neon_int8_tmpl.h"

/* MatMulNBits with int8 activations and Arm's dot products (FEAT_DotProd). */
#include "ops/matmul_nbits/cpu_neon_tmpl.h"

enum { FEW_ROWS = 1, MANY_ROWS = 4 };
typedef struct int8_sums {
    int32x4_t of[MANY_ROWS];
} int8_sums;

static DBT_ALWAYS_INLINE void add_codes(int8_sums *sums, const vu codes[4], const int8_t *a,
                                        int64_t a_stride, const int rows) {
    DBT_UNROLL
    for (int r = 0; r < rows; r++) {
        const int8x16_t v = vld1q_s8(a + r * a_stride);
#define ADD(i) sums->of[r] = vdotq_laneq_s32(sums->of[r], (int8x16_t)codes[i], v, i)
        ADD(0);
        ADD(1);
        ADD(2);
        ADD(3);
#undef ADD
    }
}

static DBT_ALWAYS_INLINE int32x4_t dots_of(const int8_sums *sums, int r) { return sums->of[r]; }

#define SUFFIX neondot
#include "ops/matmul_nbits/cpu_neon_int8_tmpl.h"

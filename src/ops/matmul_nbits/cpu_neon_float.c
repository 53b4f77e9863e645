/* MatMulNBits with float activations and NEON. */
#include "ops/matmul_nbits/cpu_neon_tmpl.h"

enum { STRIPS = 3, ROWS = 8 };

static DBT_ALWAYS_INLINE vf multiply_add(vf a, vf b, vf c) {
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

#define SUFFIX neon
#include "ops/matmul_nbits/cpu_float_tmpl.h"

/* The vectors of cpu_strip_tmpl.h for NEON: 4 lanes. */

#include <arm_neon.h>

#include "ops/matmul_nbits/cpu_kernels.h"

enum { LANES = 4 };
typedef float vf __attribute__((vector_size(16), may_alias));
typedef uint32_t vu __attribute__((vector_size(16), may_alias));

static DBT_ALWAYS_INLINE vf floats_of_halves(vu v) {
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32((uint32x4_t)v)));
}

static DBT_ALWAYS_INLINE vf floats_of_codes(vu v, const uint32_t bits) {
    return (vf)vcvtq_f32_u32((uint32x4_t)(v & ((1u << bits) - 1)));
}

static DBT_ALWAYS_INLINE void transpose_words(const uint8_t *at, int64_t stride, vu out[4]) {
    uint32x4_t r[4];
    for (int i = 0; i < 4; i++) r[i] = vreinterpretq_u32_u8(vld1q_u8(at + i * stride));
    const uint64x2_t even_low = vreinterpretq_u64_u32(vtrn1q_u32(r[0], r[1])),
                     odd_low = vreinterpretq_u64_u32(vtrn2q_u32(r[0], r[1])),
                     even_high = vreinterpretq_u64_u32(vtrn1q_u32(r[2], r[3])),
                     odd_high = vreinterpretq_u64_u32(vtrn2q_u32(r[2], r[3]));
    out[0] = (vu)vtrn1q_u64(even_low, even_high);
    out[1] = (vu)vtrn1q_u64(odd_low, odd_high);
    out[2] = (vu)vtrn2q_u64(even_low, even_high);
    out[3] = (vu)vtrn2q_u64(odd_low, odd_high);
}

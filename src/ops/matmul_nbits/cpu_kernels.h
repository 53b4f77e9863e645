/* Prototypes of the listed kernels. */
#ifndef DBT_OPS_MATMUL_NBITS_CPU_KERNELS_H
#define DBT_OPS_MATMUL_NBITS_CPU_KERNELS_H

#include "ops/matmul_nbits/matmul_nbits.h"

#define KERNEL(name, isa, bits, int8, min_m, n_tile, order, g_idx)                                 \
    void name(const dbt_nbits_task *task);
#include "ops/matmul_nbits/cpu_kernels.inc"
#undef KERNEL

/* Row `a` of A rounded, in the kernel's order: q [row_bytes], scale and sum [k_blocks]. */
void dbt_nbits_quantize_row_avx512(const dbt_matmul_nbits *p, uint32_t order, int64_t row_bytes,
                                   const float *a, int8_t *q, float *scale, int32_t *sum);

#endif

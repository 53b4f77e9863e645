/* Prototypes of the listed kernels. */
#ifndef DBT_OPS_MATMUL_NBITS_CPU_KERNELS_H
#define DBT_OPS_MATMUL_NBITS_CPU_KERNELS_H

#include "ops/matmul_nbits/matmul_nbits.h"

#define KERNEL(name, isa, bits, int8, min_m, n_tile, interleave, g_idx)                            \
    void name(const dbt_nbits_task *task);
#include "ops/matmul_nbits/cpu_kernels.inc"
#undef KERNEL

#endif

/* Prototypes of the listed kernels. */
#ifndef DBT_OPS_MATMUL_GEMM_KERNELS_H
#define DBT_OPS_MATMUL_GEMM_KERNELS_H

#include "ops/matmul/gemm.h"

#define KERNEL(name, isa)                                                                          \
    void name##_few_rows(const dbt_gemm_part *part);                                               \
    void name##_few_rows_transposed(const dbt_gemm_part *part);                                    \
    void name##_pack(const dbt_gemm_part *part, int64_t k, int64_t n_k, int64_t n, float *panel);  \
    void name##_strip(const dbt_gemm *g, const float *a, int64_t rows, int64_t n_k,                \
                      const float *strip, float *y, int64_t columns, bool first);
#include "ops/matmul/gemm_kernels.inc"
#undef KERNEL

#endif

/* MatMul, Gemm and FusedMatMul as the products that gemm.h computes, for both sides. */
#ifndef DBT_OPS_MATMUL_H
#define DBT_OPS_MATMUL_H

#include "ops/matmul/gemm.h"
#include "ops/op.h"

typedef struct dbt_matmul_attrs { /* of Gemm and FusedMatMul; MatMul has none */
    int64_t transA, transB, transBatchA, transBatchB;
    float alpha, beta;
} dbt_matmul_attrs;

/* BAD_INPUT when the inputs' dims do not fit together. Where tensors have no data (on a device) the
 * product has none either; beta is 0 when there is no C. */
dibit_status dbt_matmul_problem(const dbt_cpu_call *call, dbt_gemm *g);

dibit_status dbt_matmul_encode(const dbt_gpu_call *call);
/* Records g, whose pointers do not count: the operands lie at the beginning of these buffers. c: NULL where
 * beta is 0. */
dibit_status dbt_gemm_record(const dbt_gpu_call *call, const dbt_gemm *g, dbt_hal_buffer *a,
                             dbt_hal_buffer *b, dbt_hal_buffer *c, dbt_hal_buffer *y);
const char *dbt_matmul_refuses(const dbt_node *node, const dbt_hal *hal);

#endif

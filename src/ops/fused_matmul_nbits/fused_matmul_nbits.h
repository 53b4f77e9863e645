/* dibit.FusedMatMulNBits: MatMulNBits with what comes before and after it in a transformer's layer, made by
 * plan/rewrite_fuse.c so that a device needs one dispatch for them.
 *
 *   x = A, or the RMS norm of A's rows: A / sqrt(mean(A^2) + epsilon) * gain      gain [K] given
 *   h = x W^T + bias
 *   y = h, or h + residual                                                        residual given,
 *       or gate(h) * (x W2^T + bias2)                                             or gate not none
 *
 * Inputs 0 to 5 are MatMulNBits's, but for g_idx. With a gate W2's B, scales, zero_points and bias are inputs
 * dbt_fused_second of W's, read where their file has them, which the CPU does; or W's have W2's N rows too, from
 * row dbt_fused_second_row(N) on, so that a device has both products' weights in one buffer; what lies
 * between is not read. All but A and the residual are constants. */
#ifndef DBT_OPS_FUSED_MATMUL_NBITS_H
#define DBT_OPS_FUSED_MATMUL_NBITS_H

#include "ops/matmul_nbits/nbits_gpu.h"
#include "ops/matmul_nbits/nbits_op.h"

typedef enum dbt_fused_gate {
    DBT_FUSED_GATE_NONE,
    DBT_FUSED_GATE_SILU,
    DBT_FUSED_GATE_GELU_TANH
} dbt_fused_gate;

typedef struct dbt_fused_nbits_attrs {
    dbt_nbits_attrs nbits; /* first: code for MatMulNBits reads it */
    float epsilon;
    int64_t gate; /* dbt_fused_gate */
} dbt_fused_nbits_attrs;

enum {
    DBT_FUSED_GAIN = DBT_NBITS_INPUTS,
    DBT_FUSED_RESIDUAL,
    DBT_FUSED_SECOND, /* W2's B, and so on */
    DBT_FUSED_INPUTS = DBT_FUSED_SECOND + DBT_NBITS_INPUTS - DBT_NBITS_B
};

/* W2's input for W's. */
static inline uint32_t dbt_fused_second(uint32_t input) {
    return DBT_FUSED_SECOND + input - DBT_NBITS_B;
}

static inline int64_t dbt_fused_second_row(int64_t n) {
    return (n + DBT_NBITS_GPU_ROW_STEP - 1) / DBT_NBITS_GPU_ROW_STEP * DBT_NBITS_GPU_ROW_STEP;
}

/* BAD_INPUT unless a residual, if there is one, has y's count. */
dibit_status dbt_fused_check_residual(const dibit_tensor *const *in, uint32_t n_inputs,
                                      const dibit_tensor *y, dibit_error *error);
/* fused_gpu.c */
const char *dbt_fused_gpu_refuses(const dbt_node *node, const dbt_hal *hal);
dibit_status dbt_fused_gpu_prepare(dbt_gpu_prepare *prepare);
dibit_status dbt_fused_gpu_encode(const dbt_gpu_call *call);

#endif

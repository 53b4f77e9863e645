/* What the two sides of the MatMulNBits op share: op.c, which runs it on the CPU, and nbits_gpu_op.c. */
#ifndef DBT_OPS_MATMUL_NBITS_NBITS_OP_H
#define DBT_OPS_MATMUL_NBITS_NBITS_OP_H

#include "ops/matmul_nbits/matmul_nbits.h"
#include "ops/op.h"

typedef struct dbt_nbits_attrs {
    int64_t K, N, bits, block_size, accuracy_level, weight_prepacked;
} dbt_nbits_attrs;

enum {
    DBT_NBITS_A,
    DBT_NBITS_B,
    DBT_NBITS_SCALES,
    DBT_NBITS_ZERO_POINTS,
    DBT_NBITS_G_IDX,
    DBT_NBITS_BIAS,
    DBT_NBITS_INPUTS
};

/* The node's problem without memory and without M: what attributes and the inputs' types say. */
dbt_matmul_nbits dbt_nbits_node_problem(const dbt_node *node, dibit_activations activations,
                                        const char **why);
/* The input, or NULL where it is absent. */
static inline const dbt_value *dbt_nbits_input(const dbt_node *node, uint32_t i) {
    return i < node->n_inputs ? node->inputs[i] : NULL;
}
dibit_status dbt_nbits_infer(dbt_infer *infer);
/* BAD_FILE when input i is known to have another count than MatMulNBits's input `as` must have. */
dibit_status dbt_nbits_infer_count(const dbt_infer *infer, uint32_t i, uint32_t as);
void dbt_nbits_describe(const dbt_node *node, char *text, size_t size);
/* OUT_OF_RANGE unless all K of g_idx are blocks. */
dibit_status dbt_nbits_check_g_idx(const dbt_nbits_attrs *attrs, const int32_t *g_idx,
                                   dibit_error *error);

/* ---- nbits_gpu_op.c: the op's functions ---- */

const char *dbt_nbits_gpu_refuses(const dbt_node *node, const dbt_hal *hal);
dibit_status dbt_nbits_gpu_prepare(dbt_gpu_prepare *prepare);
dibit_status dbt_nbits_gpu_encode(const dbt_gpu_call *call);
void dbt_nbits_gpu_release(void *prepared, dbt_gpu *gpu);

#endif

/* Mixture of experts: com.microsoft MoE (float weights) and QMoE (2, 4 or 8 bits).
 *
 * For every token, `k` of `experts` are chosen by its router logits; each computes
 *     h = activation(fc1 x + b1)               or, with fc3,  activation(fc1 x + b1) * (fc3 x + b3)
 *     h = G * sigmoid(alpha G) * (L + beta),   swiglu: G = min(fc1 x, limit), L = fc3 x clamped to
 *                                              +-limit; with swiglu_fusion fc1's rows hold both
 * and the output is the sum of (fc2 h + b2) by routing weight, experts in ascending order.
 *
 * ROUTING follows ONNX Runtime's CPU kernels, also where MoE and QMoE differ: the largest logits
 * win, of equal ones the later expert. MoE weighs by the softmax over all experts, normalized over
 * the chosen ones with normalize_routing_weights; QMoE by the softmax over the chosen ones, or by
 * the chosen columns of router_weights, normalized on request. Experts without weight (QMoE: up to
 * 1e-8) do not run. use_sparse_mixer is SparseMixer's inference (Phi-3.5-MoE), as CUDA has it: the
 * CPU kernels ignore it.
 *
 * QUANTIZED WEIGHTS are MatMulNBits' layout, one matrix an expert, or one scale per row when there
 * is no block_size; then zero points are packed along the rows. Activations become int8 where ONNX
 * Runtime does that: block-wise 4 bits at accuracy_level 4, block-wise 8 bits at every level. */
#ifndef DBT_OPS_MOE_MOE_H
#define DBT_OPS_MOE_MOE_H

#include "ops/matmul_nbits/matmul_nbits.h"
#include "ops/op.h"

enum { DBT_MOE_FLOAT, DBT_MOE_QUANTIZED };

typedef enum dbt_moe_activation {
    DBT_MOE_RELU,
    DBT_MOE_GELU,
    DBT_MOE_SILU,
    DBT_MOE_IDENTITY,
    DBT_MOE_SWIGLU
} dbt_moe_activation;

typedef struct dbt_moe_attrs {
    const char *activation_type, *quant_type;
    float activation_alpha, activation_beta, swiglu_limit;
    int64_t k, normalize_routing_weights, swiglu_fusion, use_sparse_mixer;
    int64_t accuracy_level, block_size, weights_prepacked;
    int64_t expert_weight_bits, fc1_expert_weight_bits, fc2_expert_weight_bits,
        fc3_expert_weight_bits; /* the last three may be DBT_ATTR_ABSENT */
} dbt_moe_attrs;

/* False when the name is none of the five. */
bool dbt_moe_activation_of(const char *name, dbt_moe_activation *out);

/* Inputs of fc1, fc2, fc3; those of QMoE that MoE has not are absent there (DBT_MOE_NONE). */
enum { DBT_MOE_NONE = 255 };
typedef struct dbt_moe_inputs {
    uint8_t weight, scale, bias, zero_point;
} dbt_moe_inputs;
const dbt_moe_inputs *dbt_moe_inputs_of(const dbt_node *node); /* [3] */

/* The width of fc1's, fc2's or fc3's codes. */
uint32_t dbt_moe_bits(const dbt_moe_attrs *attrs, int which);

/* One projection of all experts: [experts, n, k]. */
typedef struct dbt_moe_fc {
    int64_t n, k;
    const float *weights;                            /* MoE */
    dbt_matmul_nbits nbits;                          /* QMoE: expert 0's, without M, a, y, bias */
    uint64_t b_bytes, scale_bytes, zero_point_bytes; /* from one expert to the next */
    const float *bias;                               /* [experts, n] or NULL */
} dbt_moe_fc;

/* What the weights' shapes say. */
typedef struct dbt_moe_weights {
    int64_t experts, hidden, inter;
    bool fused; /* fc1 has 2 * inter rows */
    bool has_fc3;
    dbt_moe_fc fc[3]; /* shapes, strides and, where they are there, pointers */
} dbt_moe_weights;

/* From the inputs that are not NULL: BAD_INPUT when they do not fit each other. Everything that
 * depends on weights, scales and zero points is set; biases too when they are there. */
dibit_status dbt_moe_read_weights(const dbt_node *node, const dibit_tensor *const *in,
                                  uint32_t n_inputs, dbt_moe_weights *out, dibit_error *error);

/* ---- moe_route.c: routes of one token, k of them, and how far their weights can be off ------- */

typedef struct dbt_moe_route {
    int32_t expert;
    float weight, error;
} dbt_moe_route;
/* taken has room for one flag an expert. */
void dbt_moe_route_token(const dbt_moe_attrs *attrs, bool quantized, const float *logits,
                         const float *router_weights, int64_t experts, uint8_t *taken,
                         dbt_moe_route *out);

/* ---- moe_cpu.c, moe_bound.c ---- */

typedef struct dbt_moe_job {
    const dbt_cpu_call *call;
    const dbt_moe_attrs *attrs;
    dbt_moe_activation activation;
    bool quantized;
    dbt_moe_weights weights;
    const float *x, *router, *router_weights;
    int64_t tokens;
    /* Scratch. */
    uint8_t *taken;              /* [experts] */
    dbt_moe_route *routes;       /* [tokens, k] */
    int64_t *list;               /* routes by expert, then token: [tokens * k] */
    int64_t *first;              /* [experts + 1]: where an expert's begin in the list */
    float *a, *c1, *c3, *h, *c2; /* [tokens, hidden | n1 | inter | inter | hidden] */
    double *exact;               /* for bounds: 8 arrays of max(n1, hidden) */
    void *nbits;                 /* scratch of the multiplications */
    uint64_t bytes;              /* of all scratch */
} dbt_moe_job;

dibit_status dbt_moe_make_job(const dbt_cpu_call *call, dbt_moe_job *job);
/* Expert e's matrix for nbits functions; M 1 and no bias. */
dbt_matmul_nbits dbt_moe_expert(const dbt_moe_fc *fc, int64_t e);

dibit_status dbt_moe_cpu_prepare(dbt_cpu_prepare *prepare);
uint64_t dbt_moe_cpu_scratch(const dbt_cpu_call *call);
dibit_status dbt_moe_cpu_run(const dbt_cpu_call *call);
dibit_status dbt_moe_cpu_bound(const dbt_cpu_call *call, float *const *bound);

#endif

/* ai.onnx Attention, opset 23 on: queries, keys and values as [batch, heads, tokens, dim] or
 * [batch, tokens, heads * dim], a mask (bool, or added), an optional cache, or (24) keys and values
 * that are the cache, of which nonpad_kv_seqlen says how much counts. Query s stands behind the
 * past's keys; with nonpad_kv_seqlen the last query stands at the last key that counts. Soft cap
 * comes before the mask; a query for which everything is masked gives zeros. */
#ifndef DBT_OPS_ONNX_ATTENTION_H
#define DBT_OPS_ONNX_ATTENTION_H

#include "ops/attention_core/attention_kv.h"

typedef struct dbt_onnx_attention_attrs {
    int64_t is_causal, q_num_heads, kv_num_heads, qk_matmul_output_mode, softmax_precision;
    float scale, softcap;
    int64_t left_window_size, right_window_size; /* since 25 */
} dbt_onnx_attention_attrs;

enum {
    DBT_ATT_Q,
    DBT_ATT_K,
    DBT_ATT_V,
    DBT_ATT_MASK,
    DBT_ATT_PAST_K,
    DBT_ATT_PAST_V,
    DBT_ATT_NONPAD,
    DBT_ATT_INPUTS
};

/* ---- What a run is to do, as its dims and lengths say, on any device (onnx_attention_shape.c) ---- */

typedef struct dbt_onnx_attention_step {
    const dbt_onnx_attention_attrs *a;
    const dibit_tensor *const *in; /* [n_inputs]; NULL where absent */
    uint32_t n_inputs;
    int64_t batch, queries, keys, q_heads, kv_heads, k_dim, v_dim, v_keys;
    dbt_kv_desc k_desc, v_desc;
} dbt_onnx_attention_step;

/* One batch row. */
typedef struct dbt_onnx_attention_row {
    int64_t first_query, n_keys;
} dbt_onnx_attention_row;

void dbt_onnx_attention_read(const dbt_onnx_attention_attrs *a, const dibit_tensor *const *in,
                             uint32_t n_inputs, dbt_onnx_attention_step *step);
/* Refuses what does not fit. has_states: no past input counts. */
dibit_status dbt_onnx_attention_check(const dbt_onnx_attention_step *step, bool has_states,
                                      dibit_error *error);
/* For a cache of such lengths. */
dibit_status dbt_onnx_attention_plan(const dbt_onnx_attention_step *step, int64_t b,
                                     int64_t k_length, int64_t v_length,
                                     dbt_onnx_attention_row *row, dibit_error *error);
/* Strides of batch, head and token of [B, H, S, D] or [B, S, H * D]. */
void dbt_onnx_attention_strides(const dibit_tensor *t, int64_t heads, int64_t dim,
                                int64_t stride[3]);
/* Of batch, head, query and key. */
void dbt_onnx_attention_mask_strides(const dibit_tensor *mask, int64_t stride[4]);
float dbt_onnx_attention_scale(const dbt_onnx_attention_step *step);
/* What attention_core calls left and right. */
void dbt_onnx_attention_window(const dbt_node *node, int64_t *left, int64_t *right);

uint64_t dbt_onnx_attention_scratch(const dbt_cpu_call *call);
dibit_status dbt_onnx_attention_run(const dbt_cpu_call *call);
dibit_status dbt_onnx_attention_bound(const dbt_cpu_call *call, float *const *bound);
dibit_status dbt_onnx_attention_gpu_encode(const dbt_gpu_call *call);
const char *dbt_onnx_attention_gpu_refuses(const dbt_node *node, const dbt_hal *hal);

#endif

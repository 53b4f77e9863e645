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

uint64_t dbt_onnx_attention_scratch(const dbt_cpu_call *call);
dibit_status dbt_onnx_attention_run(const dbt_cpu_call *call);
dibit_status dbt_onnx_attention_bound(const dbt_cpu_call *call, float *const *bound);

#endif

/* com.microsoft GroupQueryAttention: queries, keys and values of S new tokens; the keys and values are
 * appended to the cache, and every query attends to the cache.
 *
 * For batch row b, T = seqlens_k[b] + 1 tokens are valid after the step. In a first prompt
 * (S = total_sequence_length) the past is empty and tokens from T on are padding; otherwise the past
 * is what the cache holds, T - S. Token s stands at position past + s.
 *
 * Padding behaves as in ONNX Runtime: its keys are written behind the valid ones when there is room
 * (and not attended to), its queries attend to the valid keys, the rest of present is zero. With a
 * local window float32 padding sees the valid keys in its own window, perhaps none, and float16
 * padding the last ones.
 *
 * A windowed cache (sliding_window_cache) of capacity C for a window W holds, after T tokens, the last
 *     L(T) = T when T <= C, else T - G * ceil((T - C) / G), G = C - W + 1
 * tokens, oldest first. */
#ifndef DBT_OPS_GROUP_QUERY_ATTENTION_H
#define DBT_OPS_GROUP_QUERY_ATTENTION_H

#include "ops/attention_core/attention_kv.h"

typedef struct dbt_gqa_attrs {
    int64_t num_heads, kv_num_heads;
    float scale, softcap;
    int64_t do_rotary, rotary_interleaved;
    int64_t local_window_size, smooth_softmax, qk_output, sliding_window_cache, causal;
    float qk_norm_epsilon;
    const char *k_quant_type, *v_quant_type;
} dbt_gqa_attrs;

enum {
    DBT_GQA_QUERY,
    DBT_GQA_KEY,
    DBT_GQA_VALUE,
    DBT_GQA_PAST_KEY,
    DBT_GQA_PAST_VALUE,
    DBT_GQA_SEQLENS_K,
    DBT_GQA_TOTAL,
    DBT_GQA_COS,
    DBT_GQA_SIN,
    DBT_GQA_POSITION_IDS,
    DBT_GQA_BIAS,
    DBT_GQA_SINK,
    DBT_GQA_K_SCALE,
    DBT_GQA_V_SCALE,
    DBT_GQA_Q_NORM,
    DBT_GQA_K_NORM,
    DBT_GQA_INPUTS
};

uint64_t dbt_gqa_cpu_scratch(const dbt_cpu_call *call);
dibit_status dbt_gqa_cpu_run(const dbt_cpu_call *call);
dibit_status dbt_gqa_cpu_bound(const dbt_cpu_call *call, float *const *bound);

/* L(T) of a windowed cache. */
static inline int64_t dbt_gqa_resident(int64_t total, int64_t capacity, int64_t window) {
    if (total <= capacity) return total;
    const int64_t step = capacity - window + 1;
    return total - step * ((total - capacity + step - 1) / step);
}

#endif

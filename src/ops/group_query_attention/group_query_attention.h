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

/* ---- What a run is to do, as its dims and lengths say, on any device (gqa_plan.c) ---- */

typedef struct dbt_gqa_step {
    const dbt_gqa_attrs *a;
    const dibit_tensor *const *in; /* [n_inputs]; NULL where absent */
    uint32_t n_inputs;
    int64_t batch, queries, heads, kv_heads, dim, rotary_half;
    int64_t
        q_parts; /* heads that a token of the query input has, those of keys and values included */
    bool packed, window;
    int64_t
        stage_capacity; /* rows of a stage: what queries see of the old tokens, and the new ones */
    int64_t total;      /* of total_sequence_length, once checked */
} dbt_gqa_step;

/* How one batch row's tokens go into the cache. */
typedef struct dbt_gqa_plan {
    int64_t past, valid; /* tokens before the step, and new ones that are no padding */
    int64_t append_at;   /* index in the span where new token 0 goes */
    int64_t writable;    /* new tokens that are stored */
    int64_t held;        /* windowed: tokens in the cache before the step */
    int64_t length;      /* of the state afterwards */
    int64_t drop;        /* windowed: how many of the oldest leave before the step */
    int64_t staged;      /* windowed: old tokens copied to the stage, or -1: in place */
} dbt_gqa_plan;

/* The cache of one batch row. */
typedef struct dbt_gqa_cache {
    int64_t k_length, v_length, capacity;
    bool is_state; /* not tensors of the caller's */
} dbt_gqa_cache;

static inline const dibit_tensor *dbt_gqa_in(const dbt_gqa_step *step, uint32_t i) {
    return i < step->n_inputs ? step->in[i] : NULL;
}
/* From dims alone. */
void dbt_gqa_read(const dbt_gqa_attrs *a, const dibit_tensor *const *in, uint32_t n_inputs,
                  dbt_gqa_step *step);
/* Of keys (state 0) or values (1). */
dbt_kv_desc dbt_gqa_kv_desc(const dbt_gqa_step *step, uint32_t state);
/* Reads the total; refuses what does not fit. has_state: no past input counts. */
dibit_status dbt_gqa_check(dbt_gqa_step *step, bool has_state, dibit_error *error);
dibit_status dbt_gqa_plan_row(const dbt_gqa_step *step, int64_t b, const dbt_gqa_cache *cache,
                              dbt_gqa_plan *plan, dibit_error *error);
/* Where token s of batch row b stands, for its rotary embedding. */
int64_t dbt_gqa_position(const dbt_gqa_step *step, const dbt_gqa_plan *plan, int64_t b, int64_t s);
/* Refuses positions of batch row b without angles. */
dibit_status dbt_gqa_check_positions(const dbt_gqa_step *step, const dbt_gqa_plan *plan, int64_t b,
                                     dibit_error *error);
/* How many rows of a cache the run has written, padding included. */
static inline int64_t dbt_gqa_written(const dbt_gqa_step *step, const dbt_gqa_plan *plan) {
    return step->window ? plan->length : plan->append_at + plan->writable;
}
/* Scale and window: what attention_core calls them. */
float dbt_gqa_scale(const dbt_gqa_step *step);
static inline int64_t dbt_gqa_left(const dbt_gqa_attrs *a) {
    return a->local_window_size > 0 ? a->local_window_size - 1 : -1;
}

uint64_t dbt_gqa_cpu_scratch(const dbt_cpu_call *call);
dibit_status dbt_gqa_cpu_run(const dbt_cpu_call *call);
dibit_status dbt_gqa_cpu_bound(const dbt_cpu_call *call, float *const *bound);
dibit_status dbt_gqa_gpu_encode(const dbt_gpu_call *call);
const char *dbt_gqa_gpu_refuses(const dbt_node *node, const dbt_hal *hal);

/* L(T) of a windowed cache. */
static inline int64_t dbt_gqa_resident(int64_t total, int64_t capacity, int64_t window) {
    if (total <= capacity) return total;
    const int64_t step = capacity - window + 1;
    return total - step * ((total - capacity + step - 1) / step);
}

#endif

/* com.microsoft MultiHeadAttention and Attention: every head has keys of its own; masks add
 * mask_filter_value to scores. MultiHeadAttention gets queries, keys and values (or all in one, or
 * keys with values) and adds a bias; Attention makes them from one input by a matrix.
 *
 * Masks, by rank: 1: [batch] lengths; [2 * batch] ends, then starts (Attention alone); [3 * batch +
 * 2] lengths, then offsets that say the same. 2: [batch, total]; 3: [batch, queries, total]; 4:
 * [batch, 1, most, most], of which query s takes row past + s (Attention alone). */
#ifndef DBT_OPS_MHA_H
#define DBT_OPS_MHA_H

#include "ops/attention_core/attention_kv.h"

typedef struct dbt_mha_attrs {
    int64_t num_heads, unidirectional;
    float scale, mask_filter_value;
    /* Attention alone */
    int64_t do_rotary, past_present_share_buffer;
    dbt_attr_ints qkv_hidden_sizes;
} dbt_mha_attrs;

enum { DBT_MHA_MULTI_HEAD, DBT_MHA_ATTENTION }; /* op kinds */

enum {
    DBT_MHA_QUERY,
    DBT_MHA_KEY,
    DBT_MHA_VALUE,
    DBT_MHA_BIAS,
    DBT_MHA_MASK,
    DBT_MHA_TERM,
    DBT_MHA_PAST_KEY,
    DBT_MHA_PAST_VALUE,
    DBT_MHA_PAST_LENGTH,
    DBT_MHA_INDIRECTION,
    DBT_MHA_INPUTS
};
enum {
    DBT_ATTN_INPUT,
    DBT_ATTN_WEIGHTS,
    DBT_ATTN_BIAS,
    DBT_ATTN_MASK,
    DBT_ATTN_PAST,
    DBT_ATTN_TERM,
    DBT_ATTN_PAST_LENGTH,
    DBT_ATTN_INPUTS
};

static inline const dibit_tensor *dbt_mha_in(const dbt_cpu_call *c, uint32_t i) {
    return i < c->n_inputs ? c->in[i] : NULL;
}
static inline dibit_tensor *dbt_mha_out(const dbt_cpu_call *c, uint32_t i) {
    return i < c->n_outputs ? c->out[i] : NULL;
}

typedef struct dbt_mha_shape {
    int64_t batch, queries, past, total;
} dbt_mha_shape;

/* Floats of scratch for the mask as a term. */
uint64_t dbt_mha_mask_floats(const dibit_tensor *mask, const dbt_mha_shape *shape);
/* Makes the term; BAD_INPUT when the mask does not fit. */
dibit_status dbt_mha_mask(const dbt_cpu_call *call, const dibit_tensor *mask,
                          const dbt_mha_shape *shape, float *floats, dbt_attention_term *term);
/* The attention_bias input as a term; NULL: none. */
dibit_status dbt_mha_bias_term(const dbt_cpu_call *call, const dibit_tensor *bias,
                               const dbt_mha_shape *shape, dbt_attention_term *term);

uint64_t dbt_mha_cpu_scratch(const dbt_cpu_call *call);
dibit_status dbt_mha_cpu_run(const dbt_cpu_call *call);
dibit_status dbt_mha_cpu_bound(const dbt_cpu_call *call, float *const *bound);
uint64_t dbt_attn_cpu_scratch(const dbt_cpu_call *call);
dibit_status dbt_attn_cpu_run(const dbt_cpu_call *call);
dibit_status dbt_attn_cpu_bound(const dbt_cpu_call *call, float *const *bound);

#endif

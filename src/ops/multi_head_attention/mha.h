/* com.microsoft MultiHeadAttention and Attention: every head has keys of its own; masks add
 * mask_filter_value to scores. MultiHeadAttention gets queries, keys and values (or all in one, or
 * keys with values) and adds a bias; Attention makes them from one input by a matrix.
 *
 * Masks, by rank: 1: [batch] lengths; [2 * batch] ends, then starts (Attention alone); [3 * batch +
 * 2] lengths, then offsets that say the same. 2: [batch, total]; 3: [batch, queries, total]; 4:
 * [batch, 1, most, most], of which query s takes row past + s (Attention alone). */
#ifndef DBT_OPS_MHA_H
#define DBT_OPS_MHA_H

#include "ops/attention_core/attention_gpu.h"
#include "ops/attention_core/attention_kv.h"
#include "ops/matmul/gemm.h"

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
dibit_status dbt_mha_check_mask(const dbt_node *node, const dibit_tensor *mask,
                                const dbt_mha_shape *shape, dibit_error *error);
/* The attention_bias input as a term; NULL: none. */
dibit_status dbt_mha_bias_term(const dbt_cpu_call *call, const dibit_tensor *bias,
                               const dbt_mha_shape *shape, dbt_attention_term *term);
dibit_status dbt_mha_bias_strides(const dbt_mha_attrs *a, const dibit_tensor *bias,
                                  const dbt_mha_shape *shape, int64_t stride[4],
                                  dibit_error *error);
/* Mask input i on a device: the term of batch row 0, and the stride of batch rows. */
dibit_status dbt_mha_gpu_mask(const dbt_gpu_call *call, uint32_t i, const dbt_mha_shape *shape,
                              dbt_gpu_term *term, int64_t *batch_stride);
/* attention_bias input i, likewise. */
dibit_status dbt_mha_gpu_bias(const dbt_gpu_call *call, uint32_t i, const dbt_mha_shape *shape,
                              dbt_gpu_term *term, int64_t *batch_stride);

/* ---- What a run of MultiHeadAttention is to do, as its dims say, on any device (mha_shape.c) ---- */

/* Rows of heads in an input: batch row b, head h, token t at base + the strides' multiples. */
typedef struct dbt_mha_rows {
    uint32_t input;
    int64_t base, stride[3];
} dbt_mha_rows;

typedef struct dbt_mha_step {
    const dbt_mha_attrs *a;
    const dibit_tensor *const *in; /* [n_inputs]; NULL where absent */
    uint32_t n_inputs;
    int64_t heads, keys, k_dim, v_dim;
    dbt_mha_shape shape;
    dbt_mha_rows q, k, v;
    bool has_bias, kv_bias; /* queries get a bias; keys and values too */
    dbt_kv_desc k_desc, v_desc;
} dbt_mha_step;

void dbt_mha_read(const dbt_mha_attrs *a, const dibit_tensor *const *in, uint32_t n_inputs,
                  dbt_mha_step *step);
/* Refuses what does not fit. has_states: no past input counts. */
dibit_status dbt_mha_check(const dbt_mha_step *step, bool has_states, dibit_error *error);
/* Refuses caches that differ, or, where a mask or bias has columns for them, are not as long as past. */
dibit_status dbt_mha_check_lengths(const dbt_mha_step *step, int64_t k_length, int64_t v_length,
                                   bool has_columns, dibit_error *error);
/* What a run of Attention is to do (contrib_attention_shape.c). */
typedef struct dbt_attn_step {
    const dbt_mha_attrs *a;
    const dibit_tensor *const *in; /* [n_inputs]; NULL where absent */
    uint32_t n_inputs;
    int64_t heads, inner, k_width, v_width, width, k_dim, v_dim;
    dbt_mha_shape shape;
} dbt_attn_step;

void dbt_attn_read(const dbt_mha_attrs *a, const dibit_tensor *const *in, uint32_t n_inputs,
                   dbt_attn_step *step);
/* Refuses what does not fit. cached: keys and values lie in past or present. */
dibit_status dbt_attn_check(const dbt_attn_step *step, bool cached, dibit_error *error);
/* [batch * queries, width], without the operands. */
dbt_gemm dbt_attn_projection(const dbt_attn_step *step);

float dbt_mha_scale(const dbt_mha_attrs *a, int64_t k_dim);

uint64_t dbt_mha_cpu_scratch(const dbt_cpu_call *call);
dibit_status dbt_mha_cpu_run(const dbt_cpu_call *call);
dibit_status dbt_mha_cpu_bound(const dbt_cpu_call *call, float *const *bound);
dibit_status dbt_mha_gpu_encode(const dbt_gpu_call *call);
const char *dbt_mha_gpu_refuses(const dbt_node *node, const dbt_hal *hal);
dibit_status dbt_attn_gpu_encode(const dbt_gpu_call *call);
uint64_t dbt_attn_cpu_scratch(const dbt_cpu_call *call);
dibit_status dbt_attn_cpu_run(const dbt_cpu_call *call);
dibit_status dbt_attn_cpu_bound(const dbt_cpu_call *call, float *const *bound);

#endif

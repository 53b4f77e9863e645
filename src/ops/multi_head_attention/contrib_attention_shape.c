/* What a run of com.microsoft Attention is to do, from dims alone: the same for every device. */
#include "ops/multi_head_attention/mha.h"

static const dibit_tensor *in(const dbt_attn_step *s, uint32_t i) {
    return i < s->n_inputs ? s->in[i] : NULL;
}

void dbt_attn_read(const dbt_mha_attrs *a, const dibit_tensor *const *inputs, uint32_t n_inputs,
                   dbt_attn_step *s) {
    *s = (dbt_attn_step){.a = a, .in = inputs, .n_inputs = n_inputs};
    const dibit_tensor *const x = in(s, DBT_ATTN_INPUT), *const past = in(s, DBT_ATTN_PAST);
    s->heads = a->num_heads;
    s->inner = x->dims[2];
    s->width = in(s, DBT_ATTN_WEIGHTS)->dims[1];
    s->k_width = a->qkv_hidden_sizes.v ? a->qkv_hidden_sizes.v[0] : s->width / 3;
    s->v_width = s->width - 2 * s->k_width;
    s->k_dim = s->k_width / s->heads;
    s->v_dim = s->v_width / s->heads;
    s->shape = (dbt_mha_shape){x->dims[0], x->dims[1], past ? past->dims[3] : 0, 0};
    s->shape.total = s->shape.past + s->shape.queries;
}

dibit_status dbt_attn_check(const dbt_attn_step *s, bool cached, dibit_error *error) {
    const dibit_tensor *const weights = in(s, DBT_ATTN_WEIGHTS);
    const dibit_tensor *const bias = in(s, DBT_ATTN_BIAS), *const past = in(s, DBT_ATTN_PAST);
    DBT_FAIL_IF(weights->dims[0] != s->inner || s->k_dim < 1 || s->v_dim < 1 ||
                    s->k_dim * s->heads != s->k_width || s->v_dim * s->heads != s->v_width ||
                    (cached && s->k_dim != s->v_dim) || (bias && bias->dims[0] != s->width),
                error, DIBIT_BAD_INPUT,
                "weights [%lld, %lld] or their bias do not fit an input of %lld and %lld heads",
                (long long)weights->dims[0], (long long)s->width, (long long)s->inner,
                (long long)s->heads);
    DBT_FAIL_IF(past && (past->dims[0] != 2 || past->dims[1] != s->shape.batch ||
                         past->dims[2] != s->heads || past->dims[4] != s->k_dim),
                error, DIBIT_BAD_INPUT, "past does not fit batch %lld and %lld heads of %lld",
                (long long)s->shape.batch, (long long)s->heads, (long long)s->k_dim);
    return DIBIT_OK;
}

dbt_gemm dbt_attn_projection(const dbt_attn_step *s) {
    return (dbt_gemm){.M = s->shape.batch * s->shape.queries,
                      .N = s->width,
                      .K = s->inner,
                      .n_batches = 1,
                      .a_m = s->inner,
                      .a_k = 1,
                      .b_type = DIBIT_TYPE_FLOAT,
                      .b_k = s->width,
                      .b_n = 1,
                      .c_n = 1,
                      .alpha = 1.0f,
                      .beta = in(s, DBT_ATTN_BIAS) ? 1.0f : 0.0f};
}

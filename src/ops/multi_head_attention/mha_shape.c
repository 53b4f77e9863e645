/* What a run of MultiHeadAttention is to do, from dims alone: the same for every device. */
#include <math.h>

#include "ops/multi_head_attention/mha.h"

static const dibit_tensor *in(const dbt_mha_step *s, uint32_t i) {
    return i < s->n_inputs ? s->in[i] : NULL;
}

/* Part i of n parts in [B, T, H, n, D], or (n 1) of [B, T, H * D]. */
static dbt_mha_rows packed(const dbt_mha_step *s, uint32_t input, int64_t dim, int64_t i,
                           int64_t n) {
    const int64_t token = s->heads * n * dim;
    return (dbt_mha_rows){input, i * dim, {s->in[input]->dims[1] * token, n * dim, token}};
}
static dbt_mha_rows by_head(const dbt_mha_step *s, uint32_t input) {
    const int64_t *const d = s->in[input]->dims;
    return (dbt_mha_rows){input, 0, {d[1] * d[2] * d[3], d[2] * d[3], d[3]}};
}

void dbt_mha_read(const dbt_mha_attrs *a, const dibit_tensor *const *inputs, uint32_t n_inputs,
                  dbt_mha_step *s) {
    *s = (dbt_mha_step){.a = a, .in = inputs, .n_inputs = n_inputs, .heads = a->num_heads};
    const dibit_tensor *const q = in(s, DBT_MHA_QUERY), *const k = in(s, DBT_MHA_KEY);
    const dibit_tensor *const v = in(s, DBT_MHA_VALUE), *const past = in(s, DBT_MHA_PAST_KEY);
    const bool all = q->rank == 5, pair = k && k->rank == 5, heads_first = k && k->rank == 4;
    s->k_dim = all ? q->dims[4] : q->dims[2] / s->heads;
    s->keys = all ? q->dims[1] : k->dims[heads_first ? 2 : 1];
    s->v_dim = all           ? s->k_dim
               : pair        ? k->dims[4]
               : heads_first ? v->dims[3]
                             : v->dims[2] / s->heads;
    s->q = packed(s, DBT_MHA_QUERY, s->k_dim, 0, all ? 3 : 1);
    s->k = all           ? packed(s, DBT_MHA_QUERY, s->k_dim, 1, 3)
           : heads_first ? by_head(s, DBT_MHA_KEY)
                         : packed(s, DBT_MHA_KEY, s->k_dim, 0, pair ? 2 : 1);
    s->v = all           ? packed(s, DBT_MHA_QUERY, s->k_dim, 2, 3)
           : heads_first ? by_head(s, DBT_MHA_VALUE)
           : pair        ? packed(s, DBT_MHA_KEY, s->k_dim, 1, 2)
                         : packed(s, DBT_MHA_VALUE, s->v_dim, 0, 1);
    s->has_bias = in(s, DBT_MHA_BIAS) != NULL;
    s->kv_bias = s->has_bias && !heads_first; /* keys of an encoder got their bias before */
    s->shape = (dbt_mha_shape){q->dims[0], q->dims[1], past ? past->dims[2] : 0, 0};
    s->shape.total = s->shape.past + s->keys;
    s->k_desc = (dbt_kv_desc){.state = 0,
                              .past = DBT_MHA_PAST_KEY,
                              .present = 1,
                              .batch = s->shape.batch,
                              .heads = s->heads,
                              .dim = s->k_dim,
                              .appended = s->keys};
    s->v_desc = s->k_desc;
    s->v_desc.state = 1;
    s->v_desc.past = DBT_MHA_PAST_VALUE;
    s->v_desc.present = 2;
    s->v_desc.dim = s->v_dim;
}

dibit_status dbt_mha_check(const dbt_mha_step *s, bool has_states, dibit_error *error) {
    const dibit_tensor *const q = in(s, DBT_MHA_QUERY), *const k = in(s, DBT_MHA_KEY);
    const dibit_tensor *const v = in(s, DBT_MHA_VALUE), *const bias = in(s, DBT_MHA_BIAS);
    const int64_t h = s->heads, b = s->shape.batch;
    bool fit = s->k_dim > 0 && s->v_dim > 0;
    if (q->rank == 5) {
        fit = fit && q->dims[2] == h && q->dims[3] == 3;
    } else {
        fit = fit && q->dims[2] == h * s->k_dim && k->dims[0] == b;
    }
    if (k && k->rank == 3) {
        fit = fit && k->dims[2] == h * s->k_dim && v->dims[2] == h * s->v_dim && v->dims[0] == b &&
              v->dims[1] == s->keys;
    } else if (k && k->rank == 4) {
        fit = fit && k->dims[1] == h && k->dims[3] == s->k_dim && v->dims[0] == b &&
              v->dims[1] == h && v->dims[2] == s->keys;
    } else if (k) {
        fit = fit && k->dims[2] == h && k->dims[3] == 2 && k->dims[4] == s->k_dim;
    }
    DBT_FAIL_IF(!fit, error, DIBIT_BAD_INPUT, "query, key and value do not fit each other");
    DBT_FAIL_IF(bias && bias->dims[0] != h * (2 * s->k_dim + s->v_dim), error, DIBIT_BAD_INPUT,
                "the bias must have %lld elements, got %lld",
                (long long)(h * (2 * s->k_dim + s->v_dim)), (long long)bias->dims[0]);
    for (uint32_t i = DBT_MHA_PAST_KEY; i <= DBT_MHA_PAST_VALUE; i++) {
        const dibit_tensor *const past = in(s, i);
        if (!past || has_states) continue;
        DBT_FAIL_IF(past->dims[0] != b || past->dims[1] != h || past->dims[2] != s->shape.past ||
                        past->dims[3] != (i == DBT_MHA_PAST_KEY ? s->k_dim : s->v_dim),
                    error, DIBIT_BAD_INPUT, "input %u does not fit batch %lld and %lld heads",
                    (unsigned)i, (long long)b, (long long)h);
    }
    return DIBIT_OK;
}

dibit_status dbt_mha_check_lengths(const dbt_mha_step *s, int64_t k_length, int64_t v_length,
                                   bool has_columns, dibit_error *error) {
    DBT_FAIL_IF(v_length != k_length || (has_columns && k_length + s->keys != s->shape.total),
                error, DIBIT_BAD_INPUT, "the cache holds %lld keys and %lld values, not %lld",
                (long long)k_length, (long long)v_length, (long long)s->shape.past);
    return DIBIT_OK;
}

float dbt_mha_scale(const dbt_mha_attrs *a, int64_t k_dim) {
    return a->scale == 0.0f ? 1.0f / sqrtf((float)k_dim) : a->scale;
}

/* What a run of ai.onnx Attention is to do, from dims and lengths: the same for every device. */
#include <math.h>

#include "ops/attention/onnx_attention.h"

static const dibit_tensor *in(const dbt_onnx_attention_step *s, uint32_t i) {
    return i < s->n_inputs ? s->in[i] : NULL;
}

void dbt_onnx_attention_strides(const dibit_tensor *t, int64_t heads, int64_t dim,
                                int64_t stride[3]) {
    const int64_t tokens = t->dims[t->rank - 2];
    stride[0] = heads * tokens * dim;
    stride[1] = t->rank == 4 ? tokens * dim : dim;
    stride[2] = t->rank == 4 ? dim : heads * dim;
}

void dbt_onnx_attention_mask_strides(const dibit_tensor *mask, int64_t stride[4]) {
    int64_t size = 1;
    for (int32_t i = 0; i < 4; i++) {
        const int32_t axis = mask->rank - 1 - i;
        const int64_t n = axis < 0 ? 1 : mask->dims[axis];
        /* A short last axis forbids what it leaves out, even one of 1. */
        stride[3 - i] = n == 1 && i > 0 ? 0 : size;
        size *= n;
    }
}

void dbt_onnx_attention_read(const dbt_onnx_attention_attrs *a, const dibit_tensor *const *inputs,
                             uint32_t n_inputs, dbt_onnx_attention_step *s) {
    const dibit_tensor *const q = inputs[DBT_ATT_Q], *const k = inputs[DBT_ATT_K];
    const dibit_tensor *const v = inputs[DBT_ATT_V];
    *s = (dbt_onnx_attention_step){.a = a, .in = inputs, .n_inputs = n_inputs};
    s->batch = q->dims[0];
    s->queries = q->dims[q->rank - 2];
    s->keys = k->dims[k->rank - 2];
    s->v_keys = v->dims[v->rank - 2];
    s->q_heads = q->rank == 4 ? q->dims[1] : a->q_num_heads;
    s->kv_heads = k->rank == 4 ? k->dims[1] : a->kv_num_heads;
    s->k_dim = q->dims[q->rank - 1] / (q->rank == 4 ? 1 : s->q_heads);
    s->v_dim = v->dims[v->rank - 1] / (v->rank == 4 ? 1 : s->kv_heads);
    s->k_desc = (dbt_kv_desc){0, DBT_ATT_PAST_K, 1, s->batch, s->kv_heads, s->k_dim, s->keys};
    s->v_desc = (dbt_kv_desc){1, DBT_ATT_PAST_V, 2, s->batch, s->kv_heads, s->v_dim, s->keys};
}

static dibit_status check_kv(const dbt_onnx_attention_step *s, uint32_t i, int64_t dim,
                             bool has_states, dibit_error *error) {
    const uint32_t p = i - DBT_ATT_K + DBT_ATT_PAST_K;
    const dibit_tensor *const t = in(s, i), *const past = in(s, p);
    const int64_t heads = t->rank == 4 ? t->dims[1] : s->kv_heads;
    const int64_t width = t->rank == 4 ? t->dims[3] * heads : t->dims[2];
    const bool fits = t->dims[0] == s->batch && heads == s->kv_heads && width == heads * dim;
    DBT_FAIL_IF(!fits, error, DIBIT_BAD_INPUT,
                "input %u does not fit a batch of %lld and %lld heads of %lld", (unsigned)i,
                (long long)s->batch, (long long)s->kv_heads, (long long)dim);
    if (!past || has_states || dbt_tensor_count(past) == 0) return DIBIT_OK;
    const bool past_fits =
        past->dims[0] == s->batch && past->dims[1] == heads && past->dims[3] == dim;
    DBT_FAIL_IF(!past_fits, error, DIBIT_BAD_INPUT,
                "input %u does not fit a batch of %lld and %lld heads of %lld", (unsigned)p,
                (long long)s->batch, (long long)heads, (long long)dim);
    return DIBIT_OK;
}

dibit_status dbt_onnx_attention_check(const dbt_onnx_attention_step *s, bool has_states,
                                      dibit_error *error) {
    DBT_FAIL_IF(s->kv_heads < 1 || s->q_heads % s->kv_heads != 0, error, DIBIT_BAD_INPUT,
                "%lld query heads are no multiple of %lld key heads", (long long)s->q_heads,
                (long long)s->kv_heads);
    DBT_FAIL_IF(s->v_keys != s->keys, error, DIBIT_BAD_INPUT, "%lld keys but %lld values",
                (long long)s->keys, (long long)s->v_keys);
    DBT_TRY(check_kv(s, DBT_ATT_K, s->k_dim, has_states, error));
    DBT_TRY(check_kv(s, DBT_ATT_V, s->v_dim, has_states, error));
    const dibit_tensor *const mask = in(s, DBT_ATT_MASK), *const nonpad = in(s, DBT_ATT_NONPAD);
    const int64_t want[] = {s->batch, s->q_heads, s->queries};
    for (int32_t i = 0; mask && i < mask->rank - 1; i++) {
        const int64_t n = want[3 - (mask->rank - 1 - i)];
        DBT_FAIL_IF(mask->dims[i] != 1 && mask->dims[i] != n, error, DIBIT_BAD_INPUT,
                    "dim %d of attn_mask is %lld, not 1 or %lld", (int)i, (long long)mask->dims[i],
                    (long long)n);
    }
    DBT_FAIL_IF(nonpad && nonpad->dims[0] != s->batch, error, DIBIT_BAD_INPUT,
                "nonpad_kv_seqlen must have %lld elements", (long long)s->batch);
    return DIBIT_OK;
}

dibit_status dbt_onnx_attention_plan(const dbt_onnx_attention_step *s, int64_t b, int64_t k_length,
                                     int64_t v_length, dbt_onnx_attention_row *row,
                                     dibit_error *error) {
    const dibit_tensor *const nonpad = in(s, DBT_ATT_NONPAD), *const mask = in(s, DBT_ATT_MASK);
    DBT_FAIL_IF(v_length != k_length, error, DIBIT_BAD_INPUT,
                "%lld keys but %lld values in the cache", (long long)k_length, (long long)v_length);
    *row = (dbt_onnx_attention_row){k_length, k_length + s->keys};
    if (nonpad) {
        const int64_t n = ((const int64_t *)nonpad->data)[b];
        DBT_FAIL_IF(n < 0 || n > s->keys, error, DIBIT_OUT_OF_RANGE,
                    "nonpad_kv_seqlen[%lld] is %lld, outside of [0, %lld]", (long long)b,
                    (long long)n, (long long)s->keys);
        *row = (dbt_onnx_attention_row){n - s->queries, n};
    }
    if (mask && mask->dims[mask->rank - 1] < row->n_keys) {
        row->n_keys = mask->dims[mask->rank - 1];
    }
    return DIBIT_OK;
}

float dbt_onnx_attention_scale(const dbt_onnx_attention_step *s) {
    return isnan(s->a->scale) ? 1.0f / sqrtf((float)s->k_dim) : s->a->scale;
}

void dbt_onnx_attention_window(const dbt_node *node, int64_t *left, int64_t *right) {
    const dbt_onnx_attention_attrs *const a = node->attrs;
    const bool windows = node->opset >= 25;
    *left = windows ? a->left_window_size : -1;
    *right = a->is_causal == 1 ? 0 : windows ? a->right_window_size : -1;
}

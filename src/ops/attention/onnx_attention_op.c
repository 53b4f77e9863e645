/* ai.onnx Attention: schema, checks, shapes. */
#include <math.h>
#include <stddef.h>

#include "ops/attention/onnx_attention.h"

#define ATTR_INT(field, default_)                                                                  \
    {.name = #field,                                                                               \
     .kind = DBT_ATTR_INT,                                                                         \
     .offset = offsetof(dbt_onnx_attention_attrs, field),                                          \
     .i = default_}

/* The windows come last: before opset 25 the table ends ahead of them. */
static const dbt_attr_def attrs[] = {
    ATTR_INT(is_causal, 0),
    ATTR_INT(q_num_heads, DBT_ATTR_ABSENT),
    ATTR_INT(kv_num_heads, DBT_ATTR_ABSENT),
    ATTR_INT(qk_matmul_output_mode, 0),
    ATTR_INT(softmax_precision, DBT_ATTR_ABSENT),
    {.name = "scale",
     .kind = DBT_ATTR_FLOAT,
     .offset = offsetof(dbt_onnx_attention_attrs, scale),
     .f = NAN},
    {.name = "softcap",
     .kind = DBT_ATTR_FLOAT,
     .offset = offsetof(dbt_onnx_attention_attrs, softcap)},
    ATTR_INT(left_window_size, -1),
    ATTR_INT(right_window_size, -1),
};
enum { N_ATTRS = sizeof attrs / sizeof *attrs, N_WINDOW_ATTRS = 2 };

static bool has(const dbt_infer *f, uint32_t i) { return i < f->n_inputs && f->in[i]; }

static dibit_status check_attrs(const dbt_infer *f, const dbt_onnx_attention_attrs *a) {
    DBT_FAIL_IF(a->qk_matmul_output_mode < 0 || a->qk_matmul_output_mode > 3, f->error,
                DIBIT_BAD_FILE, "qk_matmul_output_mode must be 0 to 3, got %lld",
                (long long)a->qk_matmul_output_mode);
    DBT_FAIL_IF(isinf(a->scale) || !isfinite(a->softcap) || a->softcap < 0, f->error,
                DIBIT_BAD_FILE, "scale %g and softcap %g must be finite, softcap not negative",
                (double)a->scale, (double)a->softcap);
    const bool windows = f->node->opset >= 25;
    DBT_FAIL_IF(windows && (a->left_window_size < -1 || a->right_window_size < -1 ||
                            a->left_window_size > INT32_MAX || a->right_window_size > INT32_MAX),
                f->error, DIBIT_BAD_FILE,
                "left_window_size %lld or right_window_size %lld is wrong",
                (long long)a->left_window_size, (long long)a->right_window_size);
    return DIBIT_OK;
}

static dibit_status check_inputs(const dbt_infer *f) {
    DBT_TRY(dbt_infer_rank(f, DBT_ATT_Q, 3, 4));
    const int32_t rank = f->in[DBT_ATT_Q]->shape.rank;
    for (uint32_t i = DBT_ATT_Q; i <= DBT_ATT_V; i++) {
        DBT_TRY(dbt_infer_type(f, i, DBT_TYPES_FLOAT));
        DBT_TRY(dbt_infer_rank(f, i, rank, rank));
        DBT_TRY(dbt_infer_dim(f, i, 0, f->in[DBT_ATT_Q]->shape.dims[0]));
    }
    for (uint32_t i = DBT_ATT_PAST_K; i <= DBT_ATT_PAST_V; i++) {
        DBT_TRY(dbt_infer_same_type(f, i, i - DBT_ATT_PAST_K + DBT_ATT_K));
        DBT_TRY(dbt_infer_rank(f, i, 4, 4));
    }
    DBT_FAIL_IF(has(f, DBT_ATT_PAST_K) != has(f, DBT_ATT_PAST_V), f->error, DIBIT_BAD_FILE,
                "past_key and past_value come together or not at all");
    DBT_FAIL_IF(has(f, DBT_ATT_NONPAD) && has(f, DBT_ATT_PAST_K), f->error, DIBIT_BAD_FILE,
                "nonpad_kv_seqlen and past_key exclude each other");
    DBT_TRY(dbt_infer_type(f, DBT_ATT_NONPAD, DBT_TYPE_BIT(DIBIT_TYPE_INT64)));
    DBT_TRY(dbt_infer_rank(f, DBT_ATT_NONPAD, 1, 1));
    DBT_TRY(dbt_infer_type(f, DBT_ATT_MASK, DBT_TYPES_FLOAT | DBT_TYPES_BOOL));
    return dbt_infer_rank(f, DBT_ATT_MASK, 1, 4);
}

/* Heads, tokens and elements of a head of input i. */
static dibit_status split(const dbt_infer *f, uint32_t i, int64_t attr, dbt_dim *heads,
                          dbt_dim *tokens, dbt_dim *dim) {
    const dbt_shape *const s = &f->in[i]->shape;
    if (s->rank == 4) {
        *heads = s->dims[1];
        *tokens = s->dims[2];
        *dim = s->dims[3];
        return DIBIT_OK;
    }
    DBT_FAIL_IF(attr == DBT_ATTR_ABSENT || attr < 1 || attr > INT32_MAX, f->error, DIBIT_BAD_FILE,
                "inputs of rank 3 need positive q_num_heads and kv_num_heads");
    int64_t width;
    DBT_FAIL_IF(dbt_dim_is_const(f->dims, s->dims[2], &width) && (width < 1 || width % attr != 0),
                f->error, DIBIT_BAD_FILE,
                "the last dim %lld of input %u is not a multiple of %lld heads", (long long)width,
                (unsigned)i, (long long)attr);
    *heads = dbt_dim_const(f->dims, attr);
    *tokens = s->dims[1];
    *dim = dbt_dim_apply(f->dims, DBT_DIM_DIV, s->dims[2], *heads);
    return DIBIT_OK;
}

static dibit_status infer_attention(dbt_infer *f) {
    const dbt_onnx_attention_attrs *const a = f->attrs;
    DBT_TRY(check_attrs(f, a));
    DBT_TRY(check_inputs(f));
    dbt_dim q_heads, kv_heads, v_heads, queries, keys, v_keys, dim, k_dim, v_dim;
    DBT_TRY(split(f, DBT_ATT_Q, a->q_num_heads, &q_heads, &queries, &dim));
    DBT_TRY(split(f, DBT_ATT_K, a->kv_num_heads, &kv_heads, &keys, &k_dim));
    DBT_TRY(split(f, DBT_ATT_V, a->kv_num_heads, &v_heads, &v_keys, &v_dim));
    int64_t n_q, n_kv;
    DBT_FAIL_IF(dbt_dim_is_const(f->dims, q_heads, &n_q) &&
                    dbt_dim_is_const(f->dims, kv_heads, &n_kv) && (n_kv < 1 || n_q % n_kv != 0),
                f->error, DIBIT_BAD_FILE, "%lld query heads are no multiple of %lld key heads",
                (long long)n_q, (long long)n_kv);
    const dbt_dim batch = f->in[DBT_ATT_Q]->shape.dims[0];
    dbt_dim past = dbt_dim_const(f->dims, 0);
    if (has(f, DBT_ATT_PAST_K)) {
        past = f->in[DBT_ATT_PAST_K]->shape.dims[2];
        for (uint32_t i = DBT_ATT_PAST_K; i <= DBT_ATT_PAST_V; i++) {
            DBT_TRY(dbt_infer_dim(f, i, 0, batch));
            DBT_TRY(dbt_infer_dim(f, i, 1, kv_heads));
            DBT_TRY(dbt_infer_dim(f, i, 2, past));
            DBT_TRY(dbt_infer_dim(f, i, 3, i == DBT_ATT_PAST_K ? k_dim : v_dim));
        }
    }
    const dbt_dim total = dbt_dim_apply(f->dims, DBT_DIM_ADD, past, keys);
    const dbt_shape flat = {3,
                            {batch, queries, dbt_dim_apply(f->dims, DBT_DIM_MUL, q_heads, v_dim)}};
    const dbt_shape split_heads = {4, {batch, q_heads, queries, v_dim}};
    dbt_infer_output(f, 0, f->in[DBT_ATT_Q]->type,
                     f->in[DBT_ATT_Q]->shape.rank == 4 ? &split_heads : &flat);
    const dbt_shape k = {4, {batch, kv_heads, total, k_dim}},
                    v = {4, {batch, kv_heads, total, v_dim}};
    const dbt_shape qk = {4, {batch, q_heads, queries, total}};
    dbt_infer_output(f, 1, f->in[DBT_ATT_K]->type, &k);
    dbt_infer_output(f, 2, f->in[DBT_ATT_V]->type, &v);
    dbt_infer_output(f, 3, f->in[DBT_ATT_Q]->type, &qk);
    return DIBIT_OK;
}

static const dbt_state_pair states[] = {{DBT_ATT_PAST_K, 1}, {DBT_ATT_PAST_V, 2}};

#define ATTENTION(since_, until_, inputs_, n_attrs_)                                               \
    {.domain = "",                                                                                 \
     .name = "Attention",                                                                          \
     .since = since_,                                                                              \
     .until = until_,                                                                              \
     .min_inputs = 3,                                                                              \
     .max_inputs = inputs_,                                                                        \
     .min_outputs = 1,                                                                             \
     .max_outputs = 4,                                                                             \
     .host_inputs = 1u << DBT_ATT_NONPAD,                                                          \
     .attrs = attrs,                                                                               \
     .n_attrs = n_attrs_,                                                                          \
     .attrs_bytes = sizeof(dbt_onnx_attention_attrs),                                              \
     .states = states,                                                                             \
     .n_states = 2,                                                                                \
     .infer = infer_attention,                                                                     \
     .cpu_scratch = dbt_onnx_attention_scratch,                                                    \
     .cpu_run = dbt_onnx_attention_run,                                                            \
     .cpu_bound = dbt_onnx_attention_bound,                                                        \
     .gpu_encode = dbt_onnx_attention_gpu_encode,                                                  \
     .gpu_refuses = dbt_onnx_attention_gpu_refuses}

const dbt_op dbt_attention_ops[] = {
    ATTENTION(23, 23, DBT_ATT_INPUTS - 1, N_ATTRS - N_WINDOW_ATTRS),
    ATTENTION(24, 24, DBT_ATT_INPUTS, N_ATTRS - N_WINDOW_ATTRS),
    ATTENTION(25, 0, DBT_ATT_INPUTS, N_ATTRS),
    {0},
};

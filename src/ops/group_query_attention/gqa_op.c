/* GroupQueryAttention: schema, checks, shapes. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "ops/group_query_attention/group_query_attention.h"

#define ATTR_INT(field, required_, default_)                                                       \
    {.name = #field,                                                                               \
     .kind = DBT_ATTR_INT,                                                                         \
     .required = required_,                                                                        \
     .offset = offsetof(dbt_gqa_attrs, field),                                                     \
     .i = default_}
#define ATTR_FLOAT(field, default_)                                                                \
    {.name = #field,                                                                               \
     .kind = DBT_ATTR_FLOAT,                                                                       \
     .offset = offsetof(dbt_gqa_attrs, field),                                                     \
     .f = default_}
#define ATTR_STRING(field, default_)                                                               \
    {.name = #field,                                                                               \
     .kind = DBT_ATTR_STRING,                                                                      \
     .offset = offsetof(dbt_gqa_attrs, field),                                                     \
     .s = default_}

static const dbt_attr_def attrs[] = {
    ATTR_INT(num_heads, true, 0),
    ATTR_INT(kv_num_heads, true, 0),
    ATTR_FLOAT(scale, 0.0f),
    ATTR_FLOAT(softcap, 0.0f),
    ATTR_INT(do_rotary, false, 0),
    ATTR_INT(rotary_interleaved, false, 0),
    ATTR_INT(local_window_size, false, -1),
    ATTR_INT(smooth_softmax, false, 0),
    ATTR_INT(qk_output, false, 0),
    ATTR_INT(sliding_window_cache, false, 0),
    ATTR_INT(causal, false, 1),
    ATTR_FLOAT(qk_norm_epsilon, 1e-6f),
    ATTR_STRING(k_quant_type, "NONE"),
    ATTR_STRING(v_quant_type, "NONE"),
    {.name = "kv_cache_bit_width", .kind = DBT_ATTR_IGNORED}, /* of quantized caches alone */
};

static dibit_status check_attrs(const dbt_infer *f, const dbt_gqa_attrs *a) {
    DBT_FAIL_IF(a->num_heads < 1 || a->kv_num_heads < 1 || a->num_heads > INT32_MAX ||
                    a->num_heads % a->kv_num_heads != 0,
                f->error, DIBIT_BAD_FILE,
                "num_heads %lld must be a positive multiple of kv_num_heads %lld",
                (long long)a->num_heads, (long long)a->kv_num_heads);
    DBT_FAIL_IF(
        strcmp(a->k_quant_type, "NONE") != 0 || strcmp(a->v_quant_type, "NONE") != 0, f->error,
        DIBIT_UNSUPPORTED,
        "quantized keys and values (k_quant_type '%s', v_quant_type '%s') are not supported",
        a->k_quant_type, a->v_quant_type);
    DBT_FAIL_IF(!isfinite(a->scale) || !isfinite(a->softcap) || a->softcap < 0, f->error,
                DIBIT_BAD_FILE, "scale %g and softcap %g must be finite, softcap not negative",
                (double)a->scale, (double)a->softcap);
    DBT_FAIL_IF(a->causal != 0 && a->causal != 1, f->error, DIBIT_BAD_FILE,
                "causal must be 0 or 1, got %lld", (long long)a->causal);
    DBT_FAIL_IF(a->qk_output < 0 || a->qk_output > 2, f->error, DIBIT_BAD_FILE,
                "qk_output must be 0, 1 or 2, got %lld", (long long)a->qk_output);
    DBT_FAIL_IF(a->local_window_size != -1 &&
                    (a->local_window_size < 1 || a->local_window_size > INT32_MAX),
                f->error, DIBIT_BAD_FILE, "local_window_size must be -1 or positive, got %lld",
                (long long)a->local_window_size);
    DBT_FAIL_IF(a->causal == 0 && a->local_window_size != -1, f->error, DIBIT_BAD_FILE,
                "local_window_size must be -1 when causal is 0, got %lld",
                (long long)a->local_window_size);
    DBT_FAIL_IF(a->sliding_window_cache == 1 && a->local_window_size < 1, f->error, DIBIT_BAD_FILE,
                "sliding_window_cache needs local_window_size");
    return DIBIT_OK;
}

static bool has(const dbt_infer *f, uint32_t i) { return i < f->n_inputs && f->in[i]; }

static dibit_status check_inputs(const dbt_infer *f, const dbt_gqa_attrs *a) {
    DBT_TRY(dbt_infer_type(f, DBT_GQA_QUERY, DBT_TYPES_FLOAT & ~DBT_TYPE_BIT(DIBIT_TYPE_DOUBLE)));
    static const uint8_t like_query[] = {DBT_GQA_KEY,    DBT_GQA_VALUE, DBT_GQA_COS,
                                         DBT_GQA_SIN,    DBT_GQA_BIAS,  DBT_GQA_SINK,
                                         DBT_GQA_Q_NORM, DBT_GQA_K_NORM};
    for (size_t i = 0; i < sizeof like_query; i++) {
        DBT_TRY(dbt_infer_same_type(f, like_query[i], DBT_GQA_QUERY));
    }
    DBT_FAIL_IF(has(f, DBT_GQA_K_SCALE) || has(f, DBT_GQA_V_SCALE), f->error, DIBIT_UNSUPPORTED,
                "inputs k_scale and v_scale belong to a quantized cache, which is not supported");
    for (uint32_t i = DBT_GQA_PAST_KEY; i <= DBT_GQA_PAST_VALUE; i++) {
        DBT_TRY(dbt_infer_type(f, i, DBT_TYPES_FLOAT & ~DBT_TYPE_BIT(DIBIT_TYPE_DOUBLE)));
        DBT_TRY(dbt_infer_rank(f, i, 4, 4));
        DBT_TRY(dbt_infer_dim(f, i, 1, dbt_dim_const(f->dims, a->kv_num_heads)));
    }
    static const uint8_t pairs[][2] = {{DBT_GQA_KEY, DBT_GQA_VALUE},
                                       {DBT_GQA_PAST_KEY, DBT_GQA_PAST_VALUE},
                                       {DBT_GQA_COS, DBT_GQA_SIN},
                                       {DBT_GQA_Q_NORM, DBT_GQA_K_NORM}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        DBT_FAIL_IF(has(f, pairs[i][0]) != has(f, pairs[i][1]), f->error, DIBIT_BAD_FILE,
                    "inputs %u and %u come together or not at all", (unsigned)pairs[i][0],
                    (unsigned)pairs[i][1]);
    }
    DBT_FAIL_IF(!has(f, DBT_GQA_SEQLENS_K) || !has(f, DBT_GQA_TOTAL), f->error, DIBIT_BAD_FILE,
                "inputs seqlens_k and total_sequence_length are missing");
    DBT_FAIL_IF(a->do_rotary == 1 && !has(f, DBT_GQA_COS), f->error, DIBIT_BAD_FILE,
                "do_rotary is 1 but cos_cache and sin_cache are missing");
    DBT_FAIL_IF(a->sliding_window_cache == 1 && !has(f, DBT_GQA_PAST_KEY), f->error, DIBIT_BAD_FILE,
                "sliding_window_cache needs past_key and past_value");
    for (uint32_t i = DBT_GQA_SEQLENS_K; i <= DBT_GQA_TOTAL; i++) {
        DBT_TRY(dbt_infer_type(f, i, DBT_TYPE_BIT(DIBIT_TYPE_INT32)));
    }
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_SEQLENS_K, 1, 2));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_TOTAL, 0, 1));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_QUERY, 3, 3));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_KEY, 3, 3));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_VALUE, 3, 3));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_COS, 2, 2));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_SIN, 2, 2));
    DBT_TRY(dbt_infer_type(f, DBT_GQA_POSITION_IDS, DBT_TYPE_BIT(DIBIT_TYPE_INT64)));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_POSITION_IDS, 2, 2));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_BIAS, 4, 4));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_SINK, 1, 1));
    DBT_TRY(dbt_infer_dim(f, DBT_GQA_SINK, 0, dbt_dim_const(f->dims, a->num_heads)));
    DBT_TRY(dbt_infer_rank(f, DBT_GQA_Q_NORM, 1, 1));
    return dbt_infer_rank(f, DBT_GQA_K_NORM, 1, 1);
}

/* The length of present: what the cache holds now, or will. */
static dibit_status present_length(const dbt_infer *f, const dbt_gqa_attrs *a, dbt_dim *out) {
    const bool past = has(f, DBT_GQA_PAST_KEY);
    const dbt_dim past_length =
        past ? f->in[DBT_GQA_PAST_KEY]->shape.dims[2] : dbt_dim_const(f->dims, 0);
    if (a->sliding_window_cache == 1) {
        int64_t capacity;
        DBT_FAIL_IF(dbt_dim_is_const(f->dims, past_length, &capacity) &&
                        capacity < a->local_window_size,
                    f->error, DIBIT_BAD_FILE,
                    "the windowed cache holds %lld tokens, local_window_size is %lld",
                    (long long)capacity, (long long)a->local_window_size);
        *out = past_length;
        return DIBIT_OK;
    }
    const dbt_value *const total = f->in[DBT_GQA_TOTAL];
    if (!total->contents || total->contents[0] == DBT_DIM_NONE) {
        *out = dbt_infer_fresh(f);
        return DIBIT_OK;
    }
    DBT_FAIL_IF(dbt_infer_contents_count(f, total) != 1, f->error, DIBIT_BAD_FILE,
                "total_sequence_length must have one element");
    int64_t value;
    DBT_FAIL_IF(dbt_dim_is_const(f->dims, total->contents[0], &value) && value < 0, f->error,
                DIBIT_BAD_INPUT, "total_sequence_length is %lld", (long long)value);
    *out = past ? dbt_dim_apply(f->dims, DBT_DIM_MAX, past_length, total->contents[0])
                : total->contents[0];
    return DIBIT_OK;
}

static dibit_status infer_gqa(dbt_infer *f) {
    const dbt_gqa_attrs *const a = f->attrs;
    DBT_TRY(check_attrs(f, a));
    DBT_TRY(check_inputs(f, a));
    const dbt_shape *const q = &f->in[DBT_GQA_QUERY]->shape;
    const bool packed = !has(f, DBT_GQA_KEY);
    const int64_t parts = packed ? a->num_heads + 2 * a->kv_num_heads : a->num_heads;
    int64_t width;
    DBT_FAIL_IF(dbt_dim_is_const(f->dims, q->dims[2], &width) && (width < 1 || width % parts != 0),
                f->error, DIBIT_BAD_FILE,
                "the query's last dim %lld is not a multiple of %lld heads", (long long)width,
                (long long)parts);
    const dbt_dim head_dim =
        dbt_dim_apply(f->dims, DBT_DIM_DIV, q->dims[2], dbt_dim_const(f->dims, parts));
    const dbt_dim kv_heads = dbt_dim_const(f->dims, a->kv_num_heads);
    const dbt_dim kv_width = dbt_dim_apply(f->dims, DBT_DIM_MUL, head_dim, kv_heads);
    for (uint32_t i = DBT_GQA_KEY; i <= DBT_GQA_VALUE; i++) {
        DBT_TRY(dbt_infer_dim(f, i, 0, q->dims[0]));
        DBT_TRY(dbt_infer_dim(f, i, 1, q->dims[1]));
        DBT_TRY(dbt_infer_dim(f, i, 2, kv_width));
        DBT_TRY(dbt_infer_dim(f, i + DBT_GQA_PAST_KEY - DBT_GQA_KEY, 0, q->dims[0]));
        DBT_TRY(dbt_infer_dim(f, i + DBT_GQA_PAST_KEY - DBT_GQA_KEY, 3, head_dim));
    }
    DBT_TRY(dbt_infer_dim(f, DBT_GQA_Q_NORM, 0, head_dim));
    DBT_TRY(dbt_infer_dim(f, DBT_GQA_K_NORM, 0, head_dim));
    const dbt_dim heads = dbt_dim_const(f->dims, a->num_heads);
    const dbt_shape y = {
        3, {q->dims[0], q->dims[1], dbt_dim_apply(f->dims, DBT_DIM_MUL, head_dim, heads)}};
    dbt_infer_output(f, 0, f->in[DBT_GQA_QUERY]->type, &y);

    dbt_shape present = {4, {q->dims[0], kv_heads, 0, head_dim}};
    DBT_TRY(present_length(f, a, &present.dims[2]));
    const dibit_type cache_type =
        f->in[has(f, DBT_GQA_PAST_KEY) ? DBT_GQA_PAST_KEY : DBT_GQA_QUERY]->type;
    dbt_infer_output(f, 1, cache_type, &present);
    dbt_infer_output(f, 2, cache_type, &present);
    if (f->n_outputs > 3 && f->out[3]) {
        DBT_FAIL_IF(a->qk_output == 0, f->error, DIBIT_BAD_FILE,
                    "output_qk is wanted but qk_output is 0");
        const dbt_value *const total = f->in[DBT_GQA_TOTAL];
        const dbt_shape qk = {4,
                              {q->dims[0], heads, q->dims[1],
                               total->contents ? total->contents[0] : dbt_infer_fresh(f)}};
        dbt_infer_output(f, 3, f->in[DBT_GQA_QUERY]->type, &qk);
    }
    return DIBIT_OK;
}

static dbt_state_kind state_kind(const dbt_node *node) {
    const dbt_gqa_attrs *const a = node->attrs;
    return a->sliding_window_cache == 1 ? DBT_STATE_WINDOW : DBT_STATE_APPEND;
}

static const dbt_state_pair states[] = {{DBT_GQA_PAST_KEY, 1}, {DBT_GQA_PAST_VALUE, 2}};

const dbt_op dbt_group_query_attention_ops[] = {
    {.domain = "com.microsoft",
     .name = "GroupQueryAttention",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = DBT_GQA_INPUTS,
     .min_outputs = 1,
     .max_outputs = 4,
     .host_inputs = 1u << DBT_GQA_SEQLENS_K | 1u << DBT_GQA_TOTAL | 1u << DBT_GQA_POSITION_IDS,
     .attrs = attrs,
     .n_attrs = sizeof attrs / sizeof *attrs,
     .attrs_bytes = sizeof(dbt_gqa_attrs),
     .states = states,
     .n_states = 2,
     .infer = infer_gqa,
     .cpu_scratch = dbt_gqa_cpu_scratch,
     .cpu_run = dbt_gqa_cpu_run,
     .cpu_bound = dbt_gqa_cpu_bound,
     .state_kind = state_kind,
     .gpu_encode = dbt_gqa_gpu_encode,
     .gpu_refuses = dbt_gqa_gpu_refuses},
    {0},
};

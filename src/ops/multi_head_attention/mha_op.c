/* MultiHeadAttention and Attention of com.microsoft: schemas, checks, shapes. */
#include <math.h>
#include <stddef.h>

#include "ops/multi_head_attention/mha.h"

#define ATTR(field, kind_, ...)                                                                    \
    {.name = #field, .kind = kind_, .offset = offsetof(dbt_mha_attrs, field), __VA_ARGS__}

static const dbt_attr_def mha_attrs[] = {
    ATTR(num_heads, DBT_ATTR_INT, .required = true),
    ATTR(unidirectional, DBT_ATTR_INT, .i = 0),
    ATTR(scale, DBT_ATTR_FLOAT, .f = 0.0f),
    ATTR(mask_filter_value, DBT_ATTR_FLOAT, .f = -10000.0f),
};
static const dbt_attr_def attention_attrs[] = {
    ATTR(num_heads, DBT_ATTR_INT, .required = true),
    ATTR(unidirectional, DBT_ATTR_INT, .i = 0),
    ATTR(scale, DBT_ATTR_FLOAT, .f = 0.0f),
    ATTR(mask_filter_value, DBT_ATTR_FLOAT, .f = -10000.0f),
    ATTR(do_rotary, DBT_ATTR_INT, .i = 0),
    ATTR(past_present_share_buffer, DBT_ATTR_INT, .i = 0),
    ATTR(qkv_hidden_sizes, DBT_ATTR_INTS, .i = 0),
    {.name = "rotary_embedding_dim", .kind = DBT_ATTR_IGNORED}, /* of do_rotary alone */
};

static bool has(const dbt_infer *f, uint32_t i) { return i < f->n_inputs && f->in[i]; }

static dibit_status check_attrs(const dbt_infer *f, const dbt_mha_attrs *a) {
    DBT_FAIL_IF(a->num_heads < 1 || a->num_heads > INT32_MAX, f->error, DIBIT_BAD_FILE,
                "num_heads must be positive, got %lld", (long long)a->num_heads);
    DBT_FAIL_IF(!isfinite(a->scale) || isnan(a->mask_filter_value), f->error, DIBIT_BAD_FILE,
                "scale %g or mask_filter_value %g is wrong", (double)a->scale,
                (double)a->mask_filter_value);
    return DIBIT_OK;
}

static dibit_status check_float(const dbt_infer *f, uint32_t i, int32_t lowest, int32_t highest) {
    DBT_TRY(dbt_infer_type(f, i, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_same_type(f, i, 0));
    return dbt_infer_rank(f, i, lowest, highest);
}

/* A dim divided by the heads; BAD_FILE when known not to be a multiple. */
static dibit_status per_head(const dbt_infer *f, dbt_dim width, int64_t heads, dbt_dim *out) {
    int64_t known;
    DBT_FAIL_IF(dbt_dim_is_const(f->dims, width, &known) && (known < 1 || known % heads != 0),
                f->error, DIBIT_BAD_FILE, "a width of %lld is not a multiple of %lld heads",
                (long long)known, (long long)heads);
    *out = dbt_dim_apply(f->dims, DBT_DIM_DIV, width, dbt_dim_const(f->dims, heads));
    return DIBIT_OK;
}

/* ---- MultiHeadAttention ---- */

static dibit_status check_mha_inputs(const dbt_infer *f) {
    DBT_TRY(check_float(f, DBT_MHA_QUERY, 3, 5));
    const int32_t q_rank = f->in[DBT_MHA_QUERY]->shape.rank;
    DBT_FAIL_IF(q_rank == 4, f->error, DIBIT_BAD_FILE,
                "the query's rank must be 3, or 5 when packed");
    DBT_FAIL_IF((q_rank == 5) == has(f, DBT_MHA_KEY), f->error, DIBIT_BAD_FILE,
                "a packed query comes without key, another one with it");
    DBT_TRY(check_float(f, DBT_MHA_KEY, 3, 5));
    const int32_t k_rank = has(f, DBT_MHA_KEY) ? f->in[DBT_MHA_KEY]->shape.rank : 5;
    DBT_FAIL_IF((k_rank == 5) == has(f, DBT_MHA_VALUE), f->error, DIBIT_BAD_FILE,
                "a packed key comes without value, another one with it");
    DBT_TRY(check_float(f, DBT_MHA_VALUE, k_rank, k_rank));
    DBT_TRY(check_float(f, DBT_MHA_BIAS, 1, 1));
    DBT_TRY(dbt_infer_type(f, DBT_MHA_MASK, DBT_TYPE_BIT(DIBIT_TYPE_INT32)));
    DBT_TRY(dbt_infer_rank(f, DBT_MHA_MASK, 1, 3));
    DBT_TRY(check_float(f, DBT_MHA_TERM, 4, 4));
    DBT_TRY(check_float(f, DBT_MHA_PAST_KEY, 4, 4));
    DBT_TRY(check_float(f, DBT_MHA_PAST_VALUE, 4, 4));
    DBT_FAIL_IF(has(f, DBT_MHA_PAST_KEY) != has(f, DBT_MHA_PAST_VALUE), f->error, DIBIT_BAD_FILE,
                "past_key and past_value come together or not at all");
    DBT_FAIL_IF(has(f, DBT_MHA_PAST_LENGTH) || has(f, DBT_MHA_INDIRECTION), f->error,
                DIBIT_UNSUPPORTED,
                "past_sequence_length and cache_indirection (shared buffers) are not supported");
    return DIBIT_OK;
}

static dibit_status infer_mha(dbt_infer *f) {
    const dbt_mha_attrs *const a = f->attrs;
    DBT_TRY(check_attrs(f, a));
    DBT_TRY(check_mha_inputs(f));
    const dbt_shape *const q = &f->in[DBT_MHA_QUERY]->shape;
    const dbt_dim heads = dbt_dim_const(f->dims, a->num_heads);
    dbt_dim dim = q->rank == 5 ? q->dims[4] : DBT_DIM_NONE, v_dim = dim, keys = q->dims[1];
    if (q->rank == 5) {
        DBT_TRY(dbt_infer_dim(f, DBT_MHA_QUERY, 2, heads));
        DBT_TRY(dbt_infer_dim(f, DBT_MHA_QUERY, 3, dbt_dim_const(f->dims, 3)));
    } else {
        DBT_TRY(per_head(f, q->dims[2], a->num_heads, &dim));
        const dbt_shape *const k = &f->in[DBT_MHA_KEY]->shape;
        keys = k->dims[k->rank == 4 ? 2 : 1];
        v_dim = k->rank == 5   ? k->dims[4]
                : k->rank == 4 ? f->in[DBT_MHA_VALUE]->shape.dims[3]
                               : dim;
        if (k->rank == 3) {
            DBT_TRY(dbt_infer_dim(f, DBT_MHA_KEY, 2, q->dims[2]));
            DBT_TRY(per_head(f, f->in[DBT_MHA_VALUE]->shape.dims[2], a->num_heads, &v_dim));
        } else {
            DBT_TRY(dbt_infer_dim(f, DBT_MHA_KEY, k->rank == 4 ? 1 : 2, heads));
            DBT_TRY(dbt_infer_dim(f, DBT_MHA_KEY, k->rank == 4 ? 3 : 4, dim));
        }
    }
    dbt_dim past = dbt_dim_const(f->dims, 0);
    if (has(f, DBT_MHA_PAST_KEY)) past = f->in[DBT_MHA_PAST_KEY]->shape.dims[2];
    const dbt_dim total = dbt_dim_apply(f->dims, DBT_DIM_ADD, past, keys), batch = q->dims[0];
    const dbt_shape y = {3, {batch, q->dims[1], dbt_dim_apply(f->dims, DBT_DIM_MUL, heads, v_dim)}};
    const dbt_shape k = {4, {batch, heads, total, dim}}, v = {4, {batch, heads, total, v_dim}};
    const dbt_shape qk = {4, {batch, heads, q->dims[1], total}};
    const dibit_type type = f->in[DBT_MHA_QUERY]->type;
    dbt_infer_output(f, 0, type, &y);
    dbt_infer_output(f, 1, type, &k);
    dbt_infer_output(f, 2, type, &v);
    dbt_infer_output(f, 3, type, &qk);
    return DIBIT_OK;
}

/* ---- Attention ---- */

static dibit_status infer_attention(dbt_infer *f) {
    const dbt_mha_attrs *const a = f->attrs;
    DBT_TRY(check_attrs(f, a));
    DBT_FAIL_IF(a->do_rotary != 0, f->error, DIBIT_UNSUPPORTED, "do_rotary is not supported");
    DBT_FAIL_IF(a->past_present_share_buffer != 0 || has(f, DBT_ATTN_PAST_LENGTH), f->error,
                DIBIT_UNSUPPORTED, "past_present_share_buffer is not supported");
    DBT_TRY(check_float(f, DBT_ATTN_INPUT, 3, 3));
    DBT_TRY(check_float(f, DBT_ATTN_WEIGHTS, 2, 2));
    DBT_TRY(check_float(f, DBT_ATTN_BIAS, 1, 1));
    DBT_TRY(dbt_infer_type(f, DBT_ATTN_MASK, DBT_TYPE_BIT(DIBIT_TYPE_INT32)));
    DBT_TRY(dbt_infer_rank(f, DBT_ATTN_MASK, 1, 4));
    DBT_TRY(check_float(f, DBT_ATTN_PAST, 5, 5));
    DBT_TRY(check_float(f, DBT_ATTN_TERM, 4, 4));
    const dbt_shape *const x = &f->in[DBT_ATTN_INPUT]->shape, *const w =
                                                                  &f->in[DBT_ATTN_WEIGHTS]->shape;
    DBT_TRY(dbt_infer_dim(f, DBT_ATTN_WEIGHTS, 0, x->dims[2]));
    DBT_TRY(dbt_infer_dim(f, DBT_ATTN_BIAS, 0, w->dims[1]));
    dbt_dim dim, v_width;
    if (a->qkv_hidden_sizes.v) {
        const int64_t *const sizes = a->qkv_hidden_sizes.v;
        const bool three = a->qkv_hidden_sizes.n == 3;
        for (uint32_t i = 0; i < 3; i++) {
            DBT_FAIL_IF(!three || sizes[i] < 1 || sizes[i] > INT32_MAX || sizes[0] != sizes[1],
                        f->error, DIBIT_BAD_FILE,
                        "qkv_hidden_sizes must be three positive sizes, the first two the same");
        }
        DBT_TRY(dbt_infer_dim(f, DBT_ATTN_WEIGHTS, 1,
                              dbt_dim_const(f->dims, sizes[0] + sizes[1] + sizes[2])));
        DBT_TRY(per_head(f, dbt_dim_const(f->dims, sizes[0]), a->num_heads, &dim));
        v_width = dbt_dim_const(f->dims, sizes[2]);
    } else {
        int64_t width;
        DBT_FAIL_IF(dbt_dim_is_const(f->dims, w->dims[1], &width) && width % 3 != 0, f->error,
                    DIBIT_BAD_FILE, "the weights' width %lld is not a multiple of 3",
                    (long long)width);
        v_width = dbt_dim_apply(f->dims, DBT_DIM_DIV, w->dims[1], dbt_dim_const(f->dims, 3));
        DBT_TRY(per_head(f, v_width, a->num_heads, &dim));
    }
    dbt_dim v_dim;
    DBT_TRY(per_head(f, v_width, a->num_heads, &v_dim));
    const dbt_dim heads = dbt_dim_const(f->dims, a->num_heads);
    dbt_dim total = x->dims[1];
    if (has(f, DBT_ATTN_PAST)) {
        const dbt_shape *const past = &f->in[DBT_ATTN_PAST]->shape;
        DBT_TRY(dbt_infer_dim(f, DBT_ATTN_PAST, 0, dbt_dim_const(f->dims, 2)));
        DBT_TRY(dbt_infer_dim(f, DBT_ATTN_PAST, 1, x->dims[0]));
        DBT_TRY(dbt_infer_dim(f, DBT_ATTN_PAST, 2, heads));
        DBT_TRY(dbt_infer_dim(f, DBT_ATTN_PAST, 4, dim));
        total = dbt_dim_apply(f->dims, DBT_DIM_ADD, past->dims[3], total);
    }
    const bool cached = has(f, DBT_ATTN_PAST) || (f->n_outputs > 1 && f->out[1]);
    int64_t k_known, v_known;
    DBT_FAIL_IF(cached && dbt_dim_is_const(f->dims, dim, &k_known) &&
                    dbt_dim_is_const(f->dims, v_dim, &v_known) && k_known != v_known,
                f->error, DIBIT_BAD_FILE,
                "past and present need keys and values of the same width");
    const dbt_shape y = {3, {x->dims[0], x->dims[1], v_width}};
    const dbt_shape present = {5, {dbt_dim_const(f->dims, 2), x->dims[0], heads, total, dim}};
    dbt_infer_output(f, 0, f->in[DBT_ATTN_INPUT]->type, &y);
    dbt_infer_output(f, 1, f->in[DBT_ATTN_INPUT]->type, &present);
    return DIBIT_OK;
}

static const dbt_state_pair mha_states[] = {{DBT_MHA_PAST_KEY, 1}, {DBT_MHA_PAST_VALUE, 2}};

const dbt_op dbt_multi_head_attention_ops[] = {
    {.domain = "com.microsoft",
     .name = "MultiHeadAttention",
     .since = 1,
     .kind = DBT_MHA_MULTI_HEAD,
     .min_inputs = 1,
     .max_inputs = DBT_MHA_INPUTS,
     .min_outputs = 1,
     .max_outputs = 4,
     .attrs = mha_attrs,
     .n_attrs = sizeof mha_attrs / sizeof *mha_attrs,
     .attrs_bytes = sizeof(dbt_mha_attrs),
     .states = mha_states,
     .n_states = 2,
     .infer = infer_mha,
     .cpu_scratch = dbt_mha_cpu_scratch,
     .cpu_run = dbt_mha_cpu_run,
     .cpu_bound = dbt_mha_cpu_bound,
     .gpu_encode = dbt_mha_gpu_encode,
     .gpu_refuses = dbt_mha_gpu_refuses},
    {.domain = "com.microsoft",
     .name = "Attention",
     .since = 1,
     .kind = DBT_MHA_ATTENTION,
     .min_inputs = 2,
     .max_inputs = DBT_ATTN_INPUTS,
     .min_outputs = 1,
     .max_outputs = 2,
     .attrs = attention_attrs,
     .n_attrs = sizeof attention_attrs / sizeof *attention_attrs,
     .attrs_bytes = sizeof(dbt_mha_attrs),
     .infer = infer_attention,
     .cpu_scratch = dbt_attn_cpu_scratch,
     .cpu_run = dbt_attn_cpu_run,
     .cpu_bound = dbt_attn_cpu_bound,
     .gpu_encode = dbt_attn_gpu_encode},
    {0},
};

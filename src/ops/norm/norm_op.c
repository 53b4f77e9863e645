/* Schemas and inference of the normalization ops. */
#include "ops/norm/norm.h"

#define FIELD(field) .name = #field, .offset = offsetof(dbt_norm_attrs, field)
#define EPSILON(value) {FIELD(epsilon), .kind = DBT_ATTR_FLOAT, .f = (value)}
#define AXIS {FIELD(axis), .kind = DBT_ATTR_INT, .i = -1}

static const dbt_attr_def layer_attrs[] = {
    AXIS, EPSILON(1e-5f), {.name = "stash_type", .kind = DBT_ATTR_IGNORED}};
static const dbt_attr_def skip_attrs[] = {EPSILON(1e-12f)};
static const dbt_attr_def embed_attrs[] = {EPSILON(1e-12f),
                                           {.name = "mask_index_type", .kind = DBT_ATTR_IGNORED}};
static const dbt_attr_def instance_attrs[] = {EPSILON(1e-5f)};
static const dbt_attr_def group_attrs[] = {
    EPSILON(1e-5f),
    {FIELD(num_groups), .kind = DBT_ATTR_INT, .required = true},
    {.name = "stash_type", .kind = DBT_ATTR_IGNORED}};
static const dbt_attr_def batch_attrs[] = {EPSILON(1e-5f),
                                           {FIELD(training_mode), .kind = DBT_ATTR_INT},
                                           {.name = "momentum", .kind = DBT_ATTR_IGNORED},
                                           {.name = "spatial", .kind = DBT_ATTR_IGNORED}};
static const dbt_attr_def lp_attrs[] = {AXIS, {FIELD(p), .kind = DBT_ATTR_INT, .i = 2}};

dibit_status dbt_norm_infer_gain(const dbt_infer *infer, uint32_t i) {
    if (i >= infer->n_inputs || !infer->in[i]) return DIBIT_OK;
    const dbt_shape *const x = &infer->in[0]->shape, *const g = &infer->in[i]->shape;
    DBT_TRY(dbt_infer_type(infer, i, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_rank(infer, i, 0, x->rank));
    int64_t got, want;
    for (int32_t k = 1; k <= g->rank; k++) {
        if (!dbt_dim_is_const(infer->dims, g->dims[g->rank - k], &got) || got == 1 ||
            !dbt_dim_is_const(infer->dims, x->dims[x->rank - k], &want) || got == want) {
            continue;
        }
        return dbt_fail(infer->error, DIBIT_BAD_FILE,
                        "dim %d of input %u ('%s') must be %lld, got %lld", (int)(g->rank - k),
                        (unsigned)i, infer->in[i]->name, (long long)want, (long long)got);
    }
    return DIBIT_OK;
}

static dibit_status infer_rows(dbt_infer *infer) {
    const dbt_norm_attrs *const attrs = infer->attrs;
    const uint16_t kind = infer->node->op->kind;
    const bool skips = kind == DBT_NORM_SKIP_LAYER || kind == DBT_NORM_SKIP_RMS;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    for (uint32_t i = 1; i < infer->n_inputs; i++) DBT_TRY(dbt_norm_infer_gain(infer, i));
    const dbt_shape *const x = &infer->in[0]->shape;
    int32_t axis;
    DBT_TRY(dbt_infer_axis(infer, skips ? -1 : attrs->axis, x->rank, "axis", &axis));
    dbt_shape one = *x;
    for (int32_t i = axis; i < x->rank; i++) one.dims[i] = dbt_dim_const(infer->dims, 1);
    dbt_infer_output(infer, 0, infer->in[0]->type, x);
    dbt_infer_output(infer, 1, DIBIT_TYPE_FLOAT, &one);
    dbt_infer_output(infer, 2, DIBIT_TYPE_FLOAT, &one);
    dbt_infer_output(infer, 3, infer->in[0]->type, x);
    return DIBIT_OK;
}

static bool is_rowwise(const dbt_node *node) {
    const dbt_norm_attrs *const attrs = node->attrs;
    const int32_t rank = node->inputs[0]->shape.rank;
    if (node->op->kind == DBT_NORM_SKIP_LAYER || node->op->kind == DBT_NORM_SKIP_RMS) {
        return node->inputs[1]->shape.rank == rank;
    }
    return attrs->axis == -1 || attrs->axis == rank - 1;
}

#define ATTRS(table)                                                                               \
    .attrs = table, .n_attrs = sizeof(table) / sizeof *(table),                                    \
    .attrs_bytes = sizeof(dbt_norm_attrs)
#define ROWS(domain_, name_, since_, kind_, in_lo, in_hi, out_hi, table)                           \
    {.domain = domain_,                                                                            \
     .name = name_,                                                                                \
     .since = since_,                                                                              \
     .kind = kind_,                                                                                \
     .min_inputs = in_lo,                                                                          \
     .max_inputs = in_hi,                                                                          \
     .min_outputs = 1,                                                                             \
     .max_outputs = out_hi,                                                                        \
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,                                                    \
     ATTRS(table),                                                                                 \
     .infer = infer_rows,                                                                          \
     .is_rowwise = is_rowwise,                                                                     \
     .cpu_run = dbt_norm_cpu_run,                                                                  \
     .cpu_bound = dbt_norm_cpu_bound,                                                              \
     .gpu_encode = dbt_norm_encode}
#define CHANNELS(name_, since_, until_, kind_, n_in, table, what, encode_)                         \
    {.domain = "",                                                                                 \
     .name = name_,                                                                                \
     .since = since_,                                                                              \
     .until = until_,                                                                              \
     .kind = kind_,                                                                                \
     .min_inputs = n_in,                                                                           \
     .max_inputs = n_in,                                                                           \
     .min_outputs = 1,                                                                             \
     .max_outputs = 1,                                                                             \
     .flags = DBT_OP_IN_PLACE,                                                                     \
     ATTRS(table),                                                                                 \
     .infer = dbt_norm_##what##_infer,                                                             \
     .cpu_run = dbt_norm_##what##_run,                                                             \
     .cpu_bound = dbt_norm_##what##_bound,                                                         \
     .gpu_encode = encode_}

const dbt_op dbt_norm_ops[] = {
    /* ONNX has LayerNormalization since 17; ONNX Runtime's optimizer writes it at any opset. */
    ROWS("", "LayerNormalization", 1, DBT_NORM_LAYER, 2, 3, 3, layer_attrs),
    ROWS("", "SimplifiedLayerNormalization", 1, DBT_NORM_RMS, 2, 2, 2, layer_attrs),
    ROWS("com.microsoft", "SimplifiedLayerNormalization", 1, DBT_NORM_RMS, 2, 2, 2, layer_attrs),
    ROWS("", "RMSNormalization", 23, DBT_NORM_RMS, 2, 2, 1, layer_attrs),
    ROWS("com.microsoft", "SkipLayerNormalization", 1, DBT_NORM_SKIP_LAYER, 3, 5, 4, skip_attrs),
    ROWS("com.microsoft", "SkipSimplifiedLayerNormalization", 1, DBT_NORM_SKIP_RMS, 3, 4, 4,
         skip_attrs),
    {.domain = "com.microsoft",
     .name = "EmbedLayerNormalization",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 9,
     .min_outputs = 1,
     .max_outputs = 3,
     ATTRS(embed_attrs),
     .infer = dbt_norm_embed_infer,
     .cpu_run = dbt_norm_embed_run,
     .cpu_bound = dbt_norm_embed_bound,
     .gpu_encode = dbt_norm_embed_encode},
    CHANNELS("InstanceNormalization", 6, 0, DBT_NORM_INSTANCE, 3, instance_attrs, group,
             dbt_norm_group_encode),
    CHANNELS("GroupNormalization", 18, 20, DBT_NORM_GROUP_18, 3, group_attrs, group,
             dbt_norm_group_encode),
    CHANNELS("GroupNormalization", 21, 0, DBT_NORM_GROUP, 3, group_attrs, group,
             dbt_norm_group_encode),
    CHANNELS("BatchNormalization", 7, 0, 0, 5, batch_attrs, batch, NULL),
    CHANNELS("LpNormalization", 1, 0, 0, 1, lp_attrs, lp, NULL),
    {.name = NULL},
};

/* Clip: limits as attributes (opset 6) or as scalar inputs (11), which are applied as Max and then
 * Min, so that the upper limit wins and NaN stays. */
#include <float.h>

#include "ops/elementwise/unary.h"

typedef struct clip_attrs {
    float min, max;
} clip_attrs;

static const dbt_attr_def attrs_6[] = {
    {.name = "min", .kind = DBT_ATTR_FLOAT, .offset = offsetof(clip_attrs, min), .f = -FLT_MAX},
    {.name = "max", .kind = DBT_ATTR_FLOAT, .offset = offsetof(clip_attrs, max), .f = FLT_MAX},
};

static dibit_status infer_contents(const dbt_infer *infer) {
    const dbt_value *const x = infer->in[0];
    if (!x->contents || !dbt_host_type(x->type)) return DIBIT_OK;
    const int64_t n = dbt_infer_contents_count(infer, x);
    dbt_dim contents[DBT_MAX_CONTENTS];
    for (int64_t k = 0; k < n && k < DBT_MAX_CONTENTS; k++) contents[k] = x->contents[k];
    for (uint32_t i = 1; i < infer->n_inputs; i++) {
        if (!infer->in[i]) continue;
        if (!infer->in[i]->contents) return DIBIT_OK;
        for (int64_t k = 0; k < n && k < DBT_MAX_CONTENTS; k++) {
            contents[k] = dbt_dim_apply(infer->dims, i == 1 ? DBT_DIM_MAX : DBT_DIM_MIN,
                                        contents[k], infer->in[i]->contents[0]);
        }
    }
    return dbt_infer_set_contents(infer, contents, n);
}

static dibit_status infer_6(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_FLOAT));
    return dbt_infer_like_first(infer);
}

static dibit_status infer_11(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_NUMBER));
    for (uint32_t i = 1; i < infer->n_inputs; i++) {
        DBT_TRY(dbt_infer_same_type(infer, 0, i));
        DBT_TRY(dbt_infer_rank(infer, i, 0, 1));
        DBT_TRY(dbt_infer_dim(infer, i, 0, dbt_dim_const(infer->dims, 1)));
    }
    DBT_TRY(dbt_infer_like_first(infer));
    return infer_contents(infer);
}

static dibit_status run(const dbt_cpu_call *call) {
    const dibit_tensor *x = call->in[0];
    dibit_tensor *const y = call->out[0];
    const clip_attrs *const attrs = call->attrs;
    const dibit_tensor given[2] = {
        {.type = DIBIT_TYPE_FLOAT, .data = (void *)(uintptr_t)&attrs->min},
        {.type = DIBIT_TYPE_FLOAT, .data = (void *)(uintptr_t)&attrs->max},
    };
    for (uint32_t i = 0; i < 2; i++) {
        const dibit_tensor *limit = call->node->op->kind     ? &given[i]
                                    : i + 1 < call->n_inputs ? call->in[i + 1]
                                                             : NULL;
        if (!limit) continue;
        DBT_TRY(dbt_binary_run(i ? DBT_BINARY_MIN : DBT_BINARY_MAX, x, limit, y, call));
        x = y;
    }
    return x == y ? DIBIT_OK : dbt_cpu_view(call);
}

static dibit_status encode_6(const dbt_gpu_call *call) {
    const clip_attrs *const attrs = call->attrs;
    const dbt_unary_attrs limits = {.alpha = attrs->min, .beta = attrs->max};
    return dbt_unary_encode(call, DBT_UNARY_CLIP, &limits);
}

static dibit_status encode_11(const dbt_gpu_call *call) {
    const dbt_gpu_operand y = {call->out[0], call->out_buffers[0]};
    const uint64_t bytes = (uint64_t)dbt_tensor_count(y.t) * 4;
    const bool has_min = call->n_inputs > 1 && call->in[1];
    const bool has_max = call->n_inputs > 2 && call->in[2];
    dbt_gpu_operand x = {call->in[0], call->in_buffers[0]}, least = y;
    if (bytes == 0) return DIBIT_OK;
    if (!has_min && !has_max) return dbt_gpu_view(call);
    if (has_min) {
        if (has_max) DBT_TRY(dbt_gpu_scratch(call->gpu, 0, bytes, &least.buffer, call->error));
        DBT_TRY(dbt_binary_record(call, DBT_BINARY_MAX, x,
                                  (dbt_gpu_operand){call->in[1], call->in_buffers[1]}, least, 0));
        x = least;
    }
    if (!has_max) return DIBIT_OK;
    return dbt_binary_record(call, DBT_BINARY_MIN, x,
                             (dbt_gpu_operand){call->in[2], call->in_buffers[2]}, y, 0);
}

static const char *gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    return dbt_binary_refuses(DBT_BINARY_MAX, node->inputs[0]->type);
}

const dbt_op dbt_elementwise_clip_ops[] = {
    {.domain = "",
     .name = "Clip",
     .since = 6,
     .until = 10,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .kind = 1,
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,
     .attrs = attrs_6,
     .n_attrs = 2,
     .attrs_bytes = sizeof(clip_attrs),
     .infer = infer_6,
     .cpu_run = run,
     .gpu_encode = encode_6},
    {.domain = "",
     .name = "Clip",
     .since = 11,
     .min_inputs = 1,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,
     .infer = infer_11,
     .cpu_run = run,
     .gpu_encode = encode_11,
     .gpu_refuses = gpu_refuses},
    {0},
};

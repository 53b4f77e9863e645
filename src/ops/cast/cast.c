/* Cast, CastLike, Identity, and Dropout as it is in inference. */
#include "ops/cast/cast.h"

#include <string.h>

typedef struct cast_attrs {
    int64_t to;
} cast_attrs;

static const dbt_attr_def cast_defs[] = {
    {.name = "to", .kind = DBT_ATTR_INT, .required = true, .offset = offsetof(cast_attrs, to)},
    {.name = "saturate", .kind = DBT_ATTR_IGNORED}, /* both are about 8-bit floats alone */
    {.name = "round_mode", .kind = DBT_ATTR_IGNORED},
};

/* Integers to int32 and int64 keep their host value, to bool it becomes 0 or 1. */
static dibit_status cast_contents(const dbt_infer *infer) {
    const dbt_value *const x = infer->in[0];
    const dibit_type to = infer->out[0]->type;
    const bool exact = to == DIBIT_TYPE_INT64 || to == DIBIT_TYPE_INT32 || to == DIBIT_TYPE_BOOL;
    /* The dims of a uint64 cannot tell values from 2^63 on. */
    if (!x->contents || !(exact || to == x->type) || x->type == DIBIT_TYPE_UINT64) return DIBIT_OK;
    const int64_t n = dbt_infer_contents_count(infer, x);
    if (n > DBT_MAX_CONTENTS) return DIBIT_OK;
    dbt_dim contents[DBT_MAX_CONTENTS];
    for (int64_t k = 0; k < n; k++) {
        int64_t v;
        contents[k] = x->contents[k];
        if (to == DIBIT_TYPE_INT32 && dbt_dim_is_const(infer->dims, contents[k], &v) &&
            (v < INT32_MIN || v > INT32_MAX)) {
            return DIBIT_OK;
        }
        if (to == DIBIT_TYPE_BOOL) {
            const dbt_dim zero = dbt_dim_const(infer->dims, 0);
            contents[k] =
                dbt_dim_apply(infer->dims, DBT_DIM_EQUAL, zero,
                              dbt_dim_apply(infer->dims, DBT_DIM_EQUAL, zero, contents[k]));
        }
    }
    return dbt_infer_set_contents(infer, contents, n);
}

static dibit_status infer_cast(dbt_infer *infer) {
    const cast_attrs *const attrs = infer->attrs;
    const bool like = infer->node->op->kind;
    const dibit_type from = infer->in[0]->type;
    const dibit_type to = like ? infer->in[1]->type : (dibit_type)(attrs->to & 0xff);
    DBT_FAIL_IF(!like && (attrs->to <= 0 || attrs->to > DIBIT_TYPE_INT2), infer->error,
                DIBIT_BAD_FILE, "attribute 'to' is %lld, which is no type", (long long)attrs->to);
    DBT_FAIL_IF(!dbt_type_in(from, DBT_TYPES_VALUE) || !dbt_type_in(to, DBT_TYPES_VALUE),
                infer->error, DIBIT_UNSUPPORTED, "casting from %s to %s is not supported",
                dibit_type_name(from), dibit_type_name(to));
    dbt_infer_output(infer, 0, to, &infer->in[0]->shape);
    return cast_contents(infer);
}

typedef struct cast_call {
    const dibit_tensor *x, *y;
    dibit_type to;
    int64_t n, n_tasks;
} cast_call;

static void cast_task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const cast_call *const c = ctx;
    const int64_t begin = dbt_task_begin(c->n, c->n_tasks, i);
    const int64_t end = dbt_task_begin(c->n, c->n_tasks, i + 1);
    dbt_cast(c->x->type, (const char *)c->x->data + begin * (dibit_type_bits(c->x->type) / 8),
             c->to, (char *)c->y->data + begin * (dibit_type_bits(c->y->type) / 8), end - begin);
}

static dibit_status run_cast(const dbt_cpu_call *call) {
    cast_call c = {.x = call->in[0],
                   .y = call->out[0],
                   .to = call->node->outputs[0]->type,
                   .n = dbt_tensor_count(call->in[0])};
    c.n_tasks = dbt_task_count(c.n, 2);
    dbt_parallel_for(call->pool, c.n_tasks, cast_task, &c);
    return DIBIT_OK;
}

static dibit_status infer_identity(dbt_infer *infer) {
    DBT_FAIL_IF(!dbt_type_in(infer->in[0]->type, DBT_TYPES_VALUE), infer->error, DIBIT_UNSUPPORTED,
                "values of type %s are not supported", dibit_type_name(infer->in[0]->type));
    DBT_TRY(dbt_infer_like_first(infer));
    const dbt_value *const x = infer->in[0];
    if (!x->contents) return DIBIT_OK;
    return dbt_infer_set_contents(infer, x->contents, dbt_infer_contents_count(infer, x));
}

/* ---- Dropout ---- */

static const dbt_attr_def dropout_defs[] = {
    {.name = "ratio", .kind = DBT_ATTR_IGNORED},
    {.name = "seed", .kind = DBT_ATTR_IGNORED},
};

static dibit_status infer_dropout(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_type(infer, 2, DBT_TYPES_BOOL));
    int64_t training = 0;
    uint32_t n;
    bool known;
    DBT_TRY(dbt_infer_constants(infer, 2, 1, &training, &n, &known));
    DBT_FAIL_IF(!known || training, infer->error, DIBIT_UNSUPPORTED,
                "training_mode must be a constant false");
    DBT_TRY(dbt_infer_like_first(infer));
    dbt_infer_output(infer, 1, DIBIT_TYPE_BOOL, &infer->in[0]->shape);
    return DIBIT_OK;
}

static dibit_status run_dropout(const dbt_cpu_call *call) {
    if (call->n_outputs > 1 && call->out[1] && dbt_tensor_count(call->in[0]) > 0) {
        memset(call->out[1]->data, 1, (size_t)dbt_tensor_count(call->in[0]));
    }
    return dbt_cpu_view(call);
}

static const char *dropout_gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    return node->n_outputs > 1 && node->outputs[1] ? "the mask of a Dropout" : NULL;
}

const dbt_op dbt_cast_ops[] = {
    {.domain = "",
     .name = "Cast",
     .since = 6,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,
     .attrs = cast_defs,
     .n_attrs = 3,
     .attrs_bytes = sizeof(cast_attrs),
     .infer = infer_cast,
     .cpu_run = run_cast,
     .gpu_encode = dbt_cast_encode,
     .gpu_refuses = dbt_cast_refuses},
    {.domain = "",
     .name = "CastLike",
     .since = 15,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .kind = 1,
     .flags = DBT_OP_IN_PLACE,
     .attrs = cast_defs + 1,
     .n_attrs = 2,
     .infer = infer_cast,
     .cpu_run = run_cast,
     .gpu_encode = dbt_cast_encode,
     .gpu_refuses = dbt_cast_refuses},
    {.domain = "",
     .name = "Identity",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .flags = DBT_OP_ROWWISE | DBT_OP_VIEW,
     .infer = infer_identity,
     .cpu_run = dbt_cpu_view,
     .gpu_encode = dbt_gpu_view},
    /* Not a view: the mask has to be written. Before opset 10 the mask was no bool. */
    {.domain = "",
     .name = "Dropout",
     .since = 7,
     .until = 9,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,
     .attrs = dropout_defs,
     .n_attrs = 1,
     .infer = infer_dropout,
     .cpu_run = run_dropout,
     .gpu_encode = dbt_gpu_view,
     .gpu_refuses = dropout_gpu_refuses},
    {.domain = "",
     .name = "Dropout",
     .since = 10,
     .min_inputs = 1,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 2,
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,
     .attrs = dropout_defs,
     .n_attrs = 2,
     .infer = infer_dropout,
     .cpu_run = run_dropout,
     .gpu_encode = dbt_gpu_view,
     .gpu_refuses = dropout_gpu_refuses},
    {0},
};

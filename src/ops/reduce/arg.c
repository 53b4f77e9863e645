/* ArgMax and ArgMin: the place of the largest or smallest element along an axis. Of equal ones the
 * first, or with select_last_index the last. NaN is found only in the first place. */
#include "ops/op.h"

typedef struct arg_attrs {
    int64_t axis, keepdims, select_last_index;
} arg_attrs;

static const dbt_attr_def defs[] = {
    {.name = "axis", .kind = DBT_ATTR_INT, .offset = offsetof(arg_attrs, axis)},
    {.name = "keepdims", .kind = DBT_ATTR_INT, .i = 1, .offset = offsetof(arg_attrs, keepdims)},
    {.name = "select_last_index",
     .kind = DBT_ATTR_INT,
     .offset = offsetof(arg_attrs, select_last_index)},
};

static dibit_status infer(dbt_infer *infer) {
    const arg_attrs *const attrs = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_NUMBER));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape;
    int32_t axis;
    DBT_TRY(dbt_infer_axis(infer, attrs->axis, x->rank, "axis", &axis));
    DBT_FAIL_IF(dbt_dim_is(infer->dims, x->dims[axis], 0), infer->error, DIBIT_BAD_FILE,
                "axis %d has no elements to choose from", (int)axis);
    dbt_shape shape = {0};
    for (int32_t i = 0; i < x->rank; i++) {
        if (i != axis) {
            shape.dims[shape.rank++] = x->dims[i];
        } else if (attrs->keepdims) {
            shape.dims[shape.rank++] = dbt_dim_const(infer->dims, 1);
        }
    }
    dbt_infer_output(infer, 0, DIBIT_TYPE_INT64, &shape);
    return DIBIT_OK;
}

/* n elements `stride` apart. */
typedef int64_t (*arg_fn)(const void *x, int64_t n, int64_t stride, bool least, bool last);

#define ARG(name, T)                                                                               \
    static int64_t name(const void *x_, int64_t n, int64_t stride, bool least, bool last) {        \
        const T *const x = x_;                                                                     \
        int64_t best = 0;                                                                          \
        for (int64_t i = 1; i < n; i++) {                                                          \
            const T v = x[i * stride], b = x[best * stride];                                       \
            if ((least ? v < b : v > b) || (last && v == b)) best = i;                             \
        }                                                                                          \
        return best;                                                                               \
    }
ARG(arg_f32, float)
ARG(arg_i8, int8_t)
ARG(arg_i16, int16_t)
ARG(arg_i32, int32_t)
ARG(arg_i64, int64_t)
ARG(arg_u8, uint8_t)
ARG(arg_u16, uint16_t)
ARG(arg_u32, uint32_t)
ARG(arg_u64, uint64_t)

static arg_fn kernel_of(dibit_type type) {
    switch (type) {
    case DIBIT_TYPE_INT8: return arg_i8;
    case DIBIT_TYPE_INT16: return arg_i16;
    case DIBIT_TYPE_INT32: return arg_i32;
    case DIBIT_TYPE_INT64: return arg_i64;
    case DIBIT_TYPE_UINT8: return arg_u8;
    case DIBIT_TYPE_UINT16: return arg_u16;
    case DIBIT_TYPE_UINT32: return arg_u32;
    case DIBIT_TYPE_UINT64: return arg_u64;
    default: return arg_f32;
    }
}

typedef struct arg_call {
    arg_fn fn;
    const char *x; /* [outer, n, inner] */
    int64_t *y;    /* [outer, inner] */
    int64_t n, inner, outputs, element_bytes, n_tasks;
    bool least, last;
} arg_call;

static void task(void *ctx, int64_t t, uint32_t thread) {
    (void)thread;
    const arg_call *const c = ctx;
    const int64_t end = dbt_task_begin(c->outputs, c->n_tasks, t + 1);
    for (int64_t o = dbt_task_begin(c->outputs, c->n_tasks, t); o < end; o++) {
        const int64_t at = o / c->inner * c->n * c->inner + o % c->inner;
        c->y[o] = c->fn(c->x + at * c->element_bytes, c->n, c->inner, c->least, c->last);
    }
}

/* x as [outer, n, inner]. */
static dibit_status split(const dbt_node *node, const dibit_tensor *x, int64_t outputs,
                          dibit_error *error, int64_t *n, int64_t *inner) {
    const arg_attrs *const attrs = node->attrs;
    const int32_t axis = (int32_t)(attrs->axis < 0 ? attrs->axis + x->rank : attrs->axis);
    *n = x->dims[axis];
    *inner = 1;
    for (int32_t i = axis + 1; i < x->rank; i++) *inner *= x->dims[i];
    DBT_FAIL_IF(outputs > 0 && *n == 0, error, DIBIT_BAD_INPUT,
                "axis %d has no elements to choose from", (int)axis);
    return DIBIT_OK;
}

static dibit_status run(const dbt_cpu_call *call) {
    const arg_attrs *const attrs = call->attrs;
    const dibit_tensor *const x = call->in[0];
    arg_call c = {.fn = kernel_of(x->type),
                  .x = x->data,
                  .y = call->out[0]->data,
                  .outputs = dbt_tensor_count(call->out[0]),
                  .element_bytes = dibit_type_bits(x->type) / 8,
                  .least = call->node->op->kind,
                  .last = attrs->select_last_index != 0};
    DBT_TRY(split(call->node, x, c.outputs, call->error, &c.n, &c.inner));
    if (c.outputs == 0) return DIBIT_OK;
    c.n_tasks = dbt_task_count(c.outputs, c.n * 2);
    dbt_parallel_for(call->pool, c.n_tasks, task, &c);
    return DIBIT_OK;
}

/* struct Uniforms of arg.wgsl */
typedef struct arg_uniforms {
    uint32_t lines, n, inner;
} arg_uniforms;

static dibit_status encode(const dbt_gpu_call *call) {
    const arg_attrs *const attrs = call->attrs;
    const int64_t outputs = dbt_tensor_count(call->out[0]);
    int64_t n, inner;
    DBT_TRY(split(call->node, call->in[0], outputs, call->error, &n, &inner));
    const arg_uniforms uniforms = {(uint32_t)outputs, (uint32_t)n, (uint32_t)inner};
    const bool wide = n >= 64 && outputs < 65536;
    const dbt_shader_param params[4] = {{"TYPE", !dbt_type_is_float(call->node->inputs[0]->type)},
                                        {"LEAST", call->node->op->kind},
                                        {"LAST", attrs->select_last_index != 0},
                                        {"WIDE", wide}};
    const dbt_hal_binding bindings[2] = {{.buffer = call->in_buffers[0]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "arg.wgsl",
                                 .params = params,
                                 .n_params = 4,
                                 .bindings = bindings,
                                 .n_bindings = 2,
                                 .written = 1 << 1,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, wide ? outputs * 256 : outputs);
}

#define ARG_OP(name_, since_, until_, n_attrs_, least_)                                            \
    {.domain = "",                                                                                 \
     .name = (name_),                                                                              \
     .since = (since_),                                                                            \
     .until = (until_),                                                                            \
     .min_inputs = 1,                                                                              \
     .max_inputs = 1,                                                                              \
     .min_outputs = 1,                                                                             \
     .max_outputs = 1,                                                                             \
     .kind = (least_),                                                                             \
     .attrs = defs,                                                                                \
     .n_attrs = (n_attrs_),                                                                        \
     .attrs_bytes = sizeof(arg_attrs),                                                             \
     .infer = infer,                                                                               \
     .cpu_run = run,                                                                               \
     .gpu_encode = encode}

const dbt_op dbt_reduce_arg_ops[] = {
    ARG_OP("ArgMax", 1, 11, 2, 0),
    ARG_OP("ArgMax", 12, 0, 3, 0),
    ARG_OP("ArgMin", 1, 11, 2, 1),
    ARG_OP("ArgMin", 12, 0, 3, 1),
    {0},
};

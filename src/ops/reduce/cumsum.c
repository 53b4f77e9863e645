/* CumSum: y[i] = x[0] + ... + x[i] along an axis that is an input; exclusive leaves x[i] out, reverse
 * begins at the end. Floats are summed in order; integers wrap. */
#include <math.h>

#include "ops/op.h"

typedef struct cumsum_attrs {
    int64_t exclusive, reverse;
} cumsum_attrs;

static const dbt_attr_def defs[] = {
    {.name = "exclusive", .kind = DBT_ATTR_INT, .offset = offsetof(cumsum_attrs, exclusive)},
    {.name = "reverse", .kind = DBT_ATTR_INT, .offset = offsetof(cumsum_attrs, reverse)},
};

static const uint32_t types = DBT_TYPES_FLOAT | DBT_TYPES_INDEX | DBT_TYPE_BIT(DIBIT_TYPE_UINT32) |
                              DBT_TYPE_BIT(DIBIT_TYPE_UINT64);

static dibit_status infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, types));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_INDEX));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(infer, 1, 0, 1));
    DBT_TRY(dbt_infer_dim(infer, 1, 0, dbt_dim_const(infer->dims, 1)));
    int64_t given = 0;
    uint32_t n;
    bool known;
    int32_t axis;
    DBT_TRY(dbt_infer_constants(infer, 1, 1, &given, &n, &known));
    if (known) DBT_TRY(dbt_infer_axis(infer, given, infer->in[0]->shape.rank, "axis", &axis));
    return dbt_infer_like_first(infer);
}

typedef struct cumsum_call {
    dibit_type type;
    const void *x; /* [outer, n, inner] */
    void *y;
    int64_t outer, n, inner, n_tasks;
    bool exclusive, reverse, magnitude; /* magnitude: of |x|, for the bound */
} cumsum_call;

/* Column by column of the inner axes, so that in place works. */
#define CUMSUM(name, T, term)                                                                      \
    static void name(const cumsum_call *c, int64_t line) {                                         \
        const int64_t base = line / c->inner * c->n * c->inner + line % c->inner;                  \
        const T *const x = (const T *)c->x + base;                                                 \
        T *const y = (T *)c->y + base, sum = 0;                                                    \
        for (int64_t k = 0; k < c->n; k++) {                                                       \
            const int64_t i = (c->reverse ? c->n - 1 - k : k) * c->inner;                          \
            const T before = sum, v = x[i];                                                        \
            sum += term;                                                                           \
            y[i] = c->exclusive ? before : sum;                                                    \
        }                                                                                          \
    }
CUMSUM(cumsum_f32, float, c->magnitude ? fabsf(v) : v)
CUMSUM(cumsum_u32, uint32_t, v)
CUMSUM(cumsum_u64, uint64_t, v)

static void task(void *ctx, int64_t t, uint32_t thread) {
    (void)thread;
    const cumsum_call *const c = ctx;
    const int64_t lines = c->outer * c->inner;
    for (int64_t i = dbt_task_begin(lines, c->n_tasks, t);
         i < dbt_task_begin(lines, c->n_tasks, t + 1); i++) {
        if (c->type == DIBIT_TYPE_FLOAT) {
            cumsum_f32(c, i);
        } else if (dibit_type_bits(c->type) == 32) {
            cumsum_u32(c, i);
        } else {
            cumsum_u64(c, i);
        }
    }
}

static dibit_status make_call(const dbt_node *node, const dibit_tensor *const *in, dibit_tensor *y,
                              dibit_error *error, cumsum_call *out) {
    const dibit_tensor *const x = in[0], *const given = in[1];
    const cumsum_attrs *const attrs = node->attrs;
    DBT_FAIL_IF(dbt_tensor_count(given) != 1, error, DIBIT_BAD_INPUT,
                "the axis must be one number");
    int64_t axis = given->type == DIBIT_TYPE_INT64 ? *(const int64_t *)given->data
                                                   : *(const int32_t *)given->data;
    DBT_FAIL_IF(axis < -(int64_t)x->rank || axis >= x->rank, error, DIBIT_OUT_OF_RANGE,
                "axis %lld is out of range for rank %d", (long long)axis, (int)x->rank);
    if (axis < 0) axis += x->rank;
    cumsum_call c = {.type = x->type,
                     .x = x->data,
                     .y = y->data,
                     .outer = 1,
                     .n = x->dims[axis],
                     .inner = 1,
                     .exclusive = attrs->exclusive != 0,
                     .reverse = attrs->reverse != 0};
    for (int32_t i = 0; i < axis; i++) c.outer *= x->dims[i];
    for (int32_t i = (int32_t)axis + 1; i < x->rank; i++) c.inner *= x->dims[i];
    *out = c;
    return DIBIT_OK;
}

static dibit_status run(const dbt_cpu_call *call) {
    cumsum_call c;
    DBT_TRY(make_call(call->node, call->in, call->out[0], call->error, &c));
    c.n_tasks = dbt_task_count(c.outer * c.inner, c.n * 2);
    dbt_parallel_for(call->pool, c.n_tasks, task, &c);
    return DIBIT_OK;
}

/* gamma_n * sum |x| over what was summed. */
static dibit_status bound(const dbt_cpu_call *call, float *const *bounds) {
    if (!bounds[0]) return DIBIT_OK;
    cumsum_call c;
    DBT_TRY(make_call(call->node, call->in, call->out[0], call->error, &c));
    c.y = bounds[0];
    c.magnitude = true;
    for (int64_t i = 0; i < c.outer * c.inner; i++) cumsum_f32(&c, i);
    const int64_t count = dbt_tensor_count(call->out[0]);
    for (int64_t i = 0; i < count; i++) bounds[0][i] *= (float)c.n * 0x1p-24f;
    return DIBIT_OK;
}

/* struct Uniforms of cumsum.wgsl */
typedef struct cumsum_uniforms {
    uint32_t lines, n, inner, exclusive, reverse;
} cumsum_uniforms;

static dibit_status encode(const dbt_gpu_call *call) {
    cumsum_call c;
    DBT_TRY(make_call(call->node, call->in, call->out[0], call->error, &c));
    const cumsum_uniforms uniforms = {(uint32_t)(c.outer * c.inner), (uint32_t)c.n,
                                      (uint32_t)c.inner, c.exclusive, c.reverse};
    if (c.n == 0) return DIBIT_OK;
    const dbt_shader_param params[1] = {{"TYPE", !dbt_type_is_float(call->node->inputs[0]->type)}};
    const dbt_hal_binding bindings[2] = {{.buffer = call->in_buffers[0]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "cumsum.wgsl",
                                 .params = params,
                                 .n_params = 1,
                                 .bindings = bindings,
                                 .n_bindings = 2,
                                 .written = 1 << 1,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, uniforms.lines);
}

static const char *gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    return dbt_gpu_refuses_type(node->inputs[0]->type);
}

const dbt_op dbt_reduce_cumsum_ops[] = {
    {.domain = "",
     .name = "CumSum",
     .since = 11,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .flags = DBT_OP_IN_PLACE,
     .host_inputs = 2,
     .attrs = defs,
     .n_attrs = 2,
     .attrs_bytes = sizeof(cumsum_attrs),
     .infer = infer,
     .cpu_run = run,
     .cpu_bound = bound,
     .gpu_encode = encode,
     .gpu_refuses = gpu_refuses},
    {0},
};

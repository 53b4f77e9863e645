/* Softmax, LogSoftmax, Hardmax: over one axis since opset 13, before it over all axes from `axis` on.
 * A tensor is [outer, n, inner] here; the softmax runs over n. */
#include "base/math.h"
#include "ops/op.h"

typedef enum softmax_kind { SOFTMAX, LOG_SOFTMAX, HARDMAX } softmax_kind;

typedef struct softmax_attrs {
    int64_t axis;
} softmax_attrs;

static const dbt_attr_def attrs_1[] = {
    {.name = "axis", .kind = DBT_ATTR_INT, .offset = offsetof(softmax_attrs, axis), .i = 1},
};
static const dbt_attr_def attrs_13[] = {
    {.name = "axis", .kind = DBT_ATTR_INT, .offset = offsetof(softmax_attrs, axis), .i = -1},
};

static dibit_status infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    int32_t axis;
    const softmax_attrs *const attrs = infer->attrs;
    DBT_TRY(dbt_infer_axis(infer, attrs->axis, infer->in[0]->shape.rank, "axis", &axis));
    return dbt_infer_like_first(infer);
}

/* Columns that one step handles at once when inner > 1. */
enum { COLUMNS = 64 };

typedef struct softmax_call {
    const float *x; /* [outer, n, inner] */
    float *y;
    softmax_kind kind;
    int64_t outer, n, inner;
    int64_t blocks; /* column blocks of an outer index */
    int64_t n_tasks;
} softmax_call;

typedef struct axes_of {
    int64_t outer, n, inner;
} axes_of;

static axes_of split(const dbt_node *node, const dibit_tensor *t) {
    const softmax_attrs *const attrs = node->attrs;
    const int32_t axis = (int32_t)(attrs->axis < 0 ? attrs->axis + t->rank : attrs->axis);
    axes_of a = {1, 1, 1};
    for (int32_t i = 0; i < t->rank; i++) {
        if (i < axis) {
            a.outer *= t->dims[i];
        } else if (i == axis || node->opset < 13) {
            a.n *= t->dims[i];
        } else {
            a.inner *= t->dims[i];
        }
    }
    return a;
}

static softmax_call make_call(const dbt_cpu_call *call) {
    const axes_of a = split(call->node, call->in[0]);
    return (softmax_call){.x = call->in[0]->data,
                          .kind = (softmax_kind)call->node->op->kind,
                          .y = call->out[0]->data,
                          .outer = a.outer,
                          .n = a.n,
                          .inner = a.inner,
                          .blocks = (a.inner + COLUMNS - 1) / COLUMNS};
}

static void softmax_row(softmax_kind kind, const float *x, float *y, int64_t n) {
    const float max = dbt_max(x, n);
    if (kind == HARDMAX) {
        int64_t first = 0;
        while (first + 1 < n && x[first] != max) first++;
        for (int64_t i = 0; i < n; i++) y[i] = i == first ? 1.0f : 0.0f;
        return;
    }
    if (kind == SOFTMAX) {
        for (int64_t i = 0; i < n; i++) y[i] = dbt_expf(x[i] - max);
        const float scale = 1.0f / dbt_sum(y, n);
        for (int64_t i = 0; i < n; i++) y[i] *= scale;
        return;
    }
    /* The exponentials may not go to y: it may be the memory of x, which is read again. */
    float e[COLUMNS], sum = 0;
    for (int64_t i = 0; i < n; i += COLUMNS) {
        const int64_t m = n - i < COLUMNS ? n - i : COLUMNS;
        for (int64_t k = 0; k < m; k++) e[k] = dbt_expf(x[i + k] - max);
        sum += dbt_sum(e, m);
    }
    const float log_sum = logf(sum);
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - max) - log_sum;
}

/* The same for m <= COLUMNS columns side by side, n rows `stride` apart. */
static void softmax_columns(const softmax_call *c, const float *x, float *y, int64_t m) {
    const int64_t n = c->n, stride = c->inner;
    float max[COLUMNS], sum[COLUMNS];
    for (int64_t k = 0; k < m; k++) {
        max[k] = x[k];
        sum[k] = 0;
    }
    for (int64_t i = 1; i < n; i++) {
        for (int64_t k = 0; k < m; k++) {
            max[k] = max[k] < x[i * stride + k] ? x[i * stride + k] : max[k];
        }
    }
    if (c->kind == HARDMAX) {
        for (int64_t i = 0; i < n; i++) {
            for (int64_t k = 0; k < m; k++) {
                const bool hit = sum[k] == 0 && (x[i * stride + k] == max[k] || i == n - 1);
                y[i * stride + k] = hit ? 1.0f : 0.0f;
                sum[k] += y[i * stride + k];
            }
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < m; k++) {
            const float e = dbt_expf(x[i * stride + k] - max[k]);
            sum[k] += e;
            if (c->kind == SOFTMAX) y[i * stride + k] = e;
        }
    }
    for (int64_t k = 0; k < m; k++) sum[k] = c->kind == SOFTMAX ? 1.0f / sum[k] : logf(sum[k]);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < m; k++) {
            y[i * stride + k] = c->kind == SOFTMAX ? y[i * stride + k] * sum[k]
                                                   : (x[i * stride + k] - max[k]) - sum[k];
        }
    }
}

static void task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const softmax_call *const c = ctx;
    const int64_t units = c->outer * c->blocks;
    for (int64_t u = dbt_task_begin(units, c->n_tasks, i);
         u < dbt_task_begin(units, c->n_tasks, i + 1); u++) {
        const int64_t column = u % c->blocks * COLUMNS;
        const int64_t at = u / c->blocks * c->n * c->inner + column;
        if (c->inner == 1) {
            softmax_row(c->kind, c->x + at, c->y + at, c->n);
        } else {
            const int64_t left = c->inner - column;
            softmax_columns(c, c->x + at, c->y + at, left < COLUMNS ? left : COLUMNS);
        }
    }
}

static dibit_status run(const dbt_cpu_call *call) {
    softmax_call c = make_call(call);
    if (c.outer == 0 || c.n == 0 || c.inner == 0) return DIBIT_OK;
    const int64_t units = c.outer * c.blocks;
    c.n_tasks = dbt_task_count(units, c.n * (c.inner < COLUMNS ? c.inner : COLUMNS) * 8);
    dbt_parallel_for(call->pool, c.n_tasks, task, &c);
    return DIBIT_OK;
}

/* With d_i = max - x_i, rounded by u * d_i, e_i = exp(-d_i) has the relative error u * (d_i + 4); the
 * sum adds n * u and the mean of the e_j's errors; dividing adds 3 * u. log(sum) has the same relative
 * error as an absolute one, and roundings of its own. */
static dibit_status bound(const dbt_cpu_call *call, float *const *bounds) {
    const softmax_call c = make_call(call);
    const float u = 0x1p-24f;
    float *const b = bounds[0];
    for (int64_t at = 0; at < c.outer * c.inner; at++) {
        const int64_t begin = c.inner ? at / c.inner * c.n * c.inner + at % c.inner : 0;
        float max = -INFINITY, sum = 0, mean = 0;
        for (int64_t i = 0; i < c.n; i++) max = fmaxf(max, c.x[begin + i * c.inner]);
        for (int64_t i = 0; i < c.n; i++) {
            const float d = max - c.x[begin + i * c.inner], e = expf(-d);
            sum += e;
            if (e > 0) mean += d * e;
        }
        mean /= sum;
        for (int64_t i = 0; i < c.n; i++) {
            const int64_t k = begin + i * c.inner;
            const float d = max - c.x[k], y = fabsf(c.y[k]);
            const float shared = u * (mean + 8.0f + (float)c.n);
            /* Where d is large, or infinite as under a mask, y is 0. */
            b[k] = c.kind == SOFTMAX ? y * (shared + u * fminf(d, 128.0f)) + 0x1p-149f
                                     : shared + 4 * u * (y + d + fabsf(logf(sum)));
            if (c.kind == HARDMAX) b[k] = 0;
        }
    }
    return DIBIT_OK;
}

/* struct Uniforms of softmax.wgsl */
typedef struct softmax_uniforms {
    uint32_t lines, n, inner;
} softmax_uniforms;

static dibit_status encode(const dbt_gpu_call *call) {
    const axes_of a = split(call->node, call->in[0]);
    const softmax_kind kind = (softmax_kind)call->node->op->kind;
    const softmax_uniforms uniforms = {(uint32_t)(a.outer * a.inner), (uint32_t)a.n,
                                       (uint32_t)a.inner};
    if (uniforms.lines == 0 || a.n == 0) return DIBIT_OK;
    const bool rows = a.inner == 1 && kind != HARDMAX;
    const dbt_shader_param params[2] = {{"KIND", (int32_t)kind}, {"ROWS", rows}};
    const dbt_hal_binding bindings[2] = {{.buffer = call->in_buffers[0]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "softmax.wgsl",
                                 .params = params,
                                 .n_params = 2,
                                 .bindings = bindings,
                                 .n_bindings = 2,
                                 .written = 1 << 1,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch,
                               rows ? (int64_t)uniforms.lines * 256 : (int64_t)uniforms.lines);
}

/* Twice the CPU's and a division of 2.5 ulp; what is subnormal may become 0. */
static dibit_status gpu_bound(const dbt_cpu_call *call, float *const *bounds) {
    DBT_TRY(bound(call, bounds));
    const float *const y = call->out[0]->data;
    for (int64_t i = 0; i < dbt_tensor_count(call->out[0]); i++) {
        if (call->node->op->kind == HARDMAX) continue;
        bounds[0][i] = 2 * bounds[0][i] + 0x1p-22f * fabsf(y[i]) + 0x1p-126f;
    }
    return DIBIT_OK;
}

#define SOFTMAX_OP(name_, kind_, since_, until_, attrs_)                                           \
    {.domain = "",                                                                                 \
     .name = (name_),                                                                              \
     .since = (since_),                                                                            \
     .until = (until_),                                                                            \
     .min_inputs = 1,                                                                              \
     .max_inputs = 1,                                                                              \
     .min_outputs = 1,                                                                             \
     .max_outputs = 1,                                                                             \
     .kind = (kind_),                                                                              \
     .flags = DBT_OP_IN_PLACE,                                                                     \
     .attrs = (attrs_),                                                                            \
     .n_attrs = 1,                                                                                 \
     .attrs_bytes = sizeof(softmax_attrs),                                                         \
     .infer = infer,                                                                               \
     .cpu_run = run,                                                                               \
     .cpu_bound = bound,                                                                           \
     .gpu_encode = encode,                                                                         \
     .gpu_bound = gpu_bound}

const dbt_op dbt_softmax_ops[] = {
    SOFTMAX_OP("Softmax", SOFTMAX, 1, 12, attrs_1),
    SOFTMAX_OP("Softmax", SOFTMAX, 13, 0, attrs_13),
    SOFTMAX_OP("LogSoftmax", LOG_SOFTMAX, 1, 12, attrs_1),
    SOFTMAX_OP("LogSoftmax", LOG_SOFTMAX, 13, 0, attrs_13),
    SOFTMAX_OP("Hardmax", HARDMAX, 1, 12, attrs_1),
    SOFTMAX_OP("Hardmax", HARDMAX, 13, 0, attrs_13),
    {0},
};

/* Max, Min, Sum, Mean of one or more inputs, broadcast: x0 f x1 is written to y, then y f x2, ... */
#include <string.h>

#include "base/math.h"
#include "ops/elementwise/elementwise.h"

typedef enum variadic_kind {
    VARIADIC_MAX,
    VARIADIC_MIN,
    VARIADIC_SUM,
    VARIADIC_MEAN
} variadic_kind;

static dbt_binary_kind step_kind(const dbt_op *op) {
    return op->kind == VARIADIC_MAX   ? DBT_BINARY_MAX
           : op->kind == VARIADIC_MIN ? DBT_BINARY_MIN
                                      : DBT_BINARY_ADD;
}

static dibit_status infer(dbt_infer *infer) {
    const bool sums = infer->node->op->kind >= VARIADIC_SUM;
    dbt_shape shape = infer->in[0]->shape;
    for (uint32_t i = 0; i < infer->n_inputs; i++) {
        DBT_FAIL_IF(!infer->in[i], infer->error, DIBIT_BAD_FILE, "input %u is absent", (unsigned)i);
        DBT_TRY(dbt_infer_type(infer, i, sums ? DBT_TYPES_FLOAT : DBT_TYPES_NUMBER));
        DBT_TRY(dbt_infer_same_type(infer, 0, i));
        DBT_TRY(dbt_infer_broadcast(infer, &shape, &infer->in[i]->shape, &shape));
    }
    dbt_infer_output(infer, 0, infer->in[0]->type, &shape);
    return dbt_binary_contents(infer, step_kind(infer->node->op));
}

static dibit_status run(const dbt_cpu_call *call) {
    const dbt_binary_kind kind = step_kind(call->node->op);
    dibit_tensor *const y = call->out[0];
    if (call->n_inputs == 1) return dbt_cpu_view(call);
    DBT_TRY(dbt_binary_run(kind, call->in[0], call->in[1], y, call));
    for (uint32_t i = 2; i < call->n_inputs; i++) {
        DBT_TRY(dbt_binary_run(kind, y, call->in[i], y, call));
    }
    if (call->node->op->kind != VARIADIC_MEAN) return DIBIT_OK;
    const float count = (float)call->n_inputs;
    const dibit_tensor n = {.type = DIBIT_TYPE_FLOAT, .rank = 0, .data = (void *)(uintptr_t)&count};
    return dbt_binary_run(DBT_BINARY_DIV, y, &n, y, call);
}

typedef struct magnitude_call {
    const float *x;
    float *sum;
    int64_t step;
} magnitude_call;

static void add_magnitudes(const void *ctx, const int64_t *in, int64_t out, int64_t n) {
    const magnitude_call *const c = ctx;
    for (int64_t i = 0; i < n; i++) c->sum[out + i] += fabsf(c->x[in[0] + i * c->step]);
}

/* Sums: gamma_n * sum |x|; the division by n adds a rounding. Max and Min are exact. */
static dibit_status bound(const dbt_cpu_call *call, float *const *bounds) {
    const dibit_tensor *const y = call->out[0];
    const int64_t count = dbt_tensor_count(y);
    if (!bounds[0] || count == 0) return DIBIT_OK;
    memset(bounds[0], 0, (size_t)count * sizeof(float));
    if (call->node->op->kind < VARIADIC_SUM) return DIBIT_OK;
    const float n = (float)call->n_inputs;
    for (uint32_t i = 0; i < call->n_inputs; i++) {
        dbt_broadcast plan;
        DBT_TRY(dbt_broadcast_plan(y, &call->in[i], 1, &plan, call->error));
        const magnitude_call c = {call->in[i]->data, bounds[0], plan.step[0]};
        dbt_broadcast_for(&plan, NULL, 1, add_magnitudes, &c);
    }
    const float scale = 0x1p-24f * (call->node->op->kind == VARIADIC_MEAN ? (n + 1) / n : n);
    for (int64_t i = 0; i < count; i++) bounds[0][i] *= scale;
    return DIBIT_OK;
}

/* In steps, as on the CPU; what a step reads it may not write, so y and scratch take turns. */
static dibit_status encode(const dbt_gpu_call *call) {
    const uint32_t n = call->n_inputs;
    const dbt_gpu_operand y = {call->out[0], call->out_buffers[0]};
    if (n == 1) return dbt_gpu_view(call);
    dbt_gpu_operand a = {call->in[0], call->in_buffers[0]};
    const uint64_t bytes = (uint64_t)dbt_tensor_count(y.t) * 4;
    for (uint32_t i = 1; bytes > 0 && i < n; i++) {
        dbt_gpu_operand to = y;
        if (i + 1 < n) DBT_TRY(dbt_gpu_scratch(call->gpu, i & 1, bytes, &to.buffer, call->error));
        const bool shares = i + 1 == n && call->node->op->kind == VARIADIC_MEAN;
        DBT_TRY(dbt_binary_record(call, shares ? DBT_BINARY_ADD_SHARE : step_kind(call->node->op),
                                  a, (dbt_gpu_operand){call->in[i], call->in_buffers[i]}, to,
                                  (float)n));
        a = to;
    }
    return DIBIT_OK;
}

static const char *gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    return dbt_binary_refuses(step_kind(node->op), node->inputs[0]->type);
}

#define VARIADIC(name_, kind_)                                                                     \
    {.domain = "",                                                                                 \
     .name = (name_),                                                                              \
     .since = 6,                                                                                   \
     .min_inputs = 1,                                                                              \
     .max_inputs = DBT_VARIADIC,                                                                   \
     .min_outputs = 1,                                                                             \
     .max_outputs = 1,                                                                             \
     .kind = (kind_),                                                                              \
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,                                                    \
     .infer = infer,                                                                               \
     .cpu_run = run,                                                                               \
     .cpu_bound = bound,                                                                           \
     .gpu_encode = encode,                                                                         \
     .gpu_refuses = gpu_refuses}

const dbt_op dbt_elementwise_variadic_ops[] = {
    VARIADIC("Max", VARIADIC_MAX),
    VARIADIC("Min", VARIADIC_MIN),
    VARIADIC("Sum", VARIADIC_SUM),
    VARIADIC("Mean", VARIADIC_MEAN),
    {0},
};

/* The Reduce* ops on a device: a reduction's plan as uniforms of reduce.wgsl. */
#include "ops/reduce/reduce.h"

/* Integers from here on in reduce.wgsl's KIND. */
enum { INTEGERS = 20 };

const char *dbt_reduce_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    const dibit_type type = node->inputs[0]->type;
    if (dbt_type_is_float(type)) return NULL;
    switch ((dbt_reduce_kind)node->op->kind) {
    case DBT_REDUCE_MEAN:
    case DBT_REDUCE_L2:
    case DBT_REDUCE_LOG_SUM:
    case DBT_REDUCE_LOG_SUM_EXP: return "a mean, root or logarithm of integers";
    default: return dbt_gpu_refuses_type(type);
    }
}

/* struct Uniforms of reduce.wgsl */
typedef struct reduce_uniforms {
    uint32_t outputs, count, width, run, kept_rank, reduced_rank, mask, shift;
    uint32_t kept_dims[DIBIT_MAX_RANK], kept_strides[DIBIT_MAX_RANK];
    uint32_t reduced_dims[DIBIT_MAX_RANK], reduced_strides[DIBIT_MAX_RANK];
    int32_t first;
    uint32_t unused[3]; /* the struct's size is a multiple of a vec4's */
} reduce_uniforms;

static void put_dims(const dbt_reduce_dims *from, uint32_t *dims, uint32_t *strides) {
    for (int32_t d = 0; d < from->rank; d++) {
        dims[d] = (uint32_t)from->dims[d];
        strides[d] = (uint32_t)from->strides[d];
    }
}

dibit_status dbt_reduce_record(const dbt_gpu_call *call, const dbt_reduce_plan *plan) {
    const dibit_type type = call->node->inputs[0]->type;
    const uint16_t kind = call->node->op->kind;
    reduce_uniforms u = {.outputs = (uint32_t)plan->outputs,
                         .count = (uint32_t)plan->count,
                         .width = plan->columns ? (uint32_t)plan->n : 1,
                         .run = plan->columns ? 1 : (uint32_t)plan->n,
                         .kept_rank = (uint32_t)plan->kept.rank,
                         .reduced_rank = (uint32_t)plan->reduced.rank};
    if (u.outputs == 0) return DIBIT_OK;
    put_dims(&plan->kept, u.kept_dims, u.kept_strides);
    put_dims(&plan->reduced, u.reduced_dims, u.reduced_strides);
    const bool floats = dbt_type_is_float(type);
    if (!floats) {
        dbt_gpu_narrow(type, &u.mask, &u.shift);
        u.first = (int32_t)dbt_reduce_first((dbt_reduce_kind)kind, type);
    }
    /* A result to an invocation where there are many, or few elements in each. */
    const bool wide = u.count >= 64 && u.outputs < (plan->columns ? 1024 : 65536);
    const dbt_shader_param params[2] = {{"KIND", kind + (floats ? 0 : INTEGERS)}, {"WIDE", wide}};
    dbt_hal_buffer *x = call->in_buffers[0];
    if (!x) DBT_TRY(dbt_gpu_scratch(call->gpu, 0, 4, &x, call->error)); /* no element is read */
    const dbt_hal_binding bindings[2] = {{.buffer = x}, {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "reduce.wgsl",
                                 .params = params,
                                 .n_params = 2,
                                 .bindings = bindings,
                                 .n_bindings = 2,
                                 .written = 1 << 1,
                                 .uniforms = &u,
                                 .uniform_bytes = sizeof u};
    return dbt_gpu_record_over(call, &dispatch, wide ? plan->outputs * 256 : plan->outputs);
}

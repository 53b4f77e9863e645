/* Where: x where the condition is true, else y, broadcast. Elements are moved by their size. */
#include "ops/elementwise/elementwise.h"

static dibit_status infer_contents(const dbt_infer *infer, const dbt_shape *shape) {
    for (uint32_t i = 0; i < 3; i++) {
        if (!infer->in[i]->contents || !dbt_host_type(infer->in[i]->type)) return DIBIT_OK;
    }
    const int64_t n = dbt_infer_contents_count(infer, infer->out[0]);
    if (n > DBT_MAX_CONTENTS) return DIBIT_OK;
    dbt_dim contents[DBT_MAX_CONTENTS];
    for (int64_t k = 0; k < n; k++) {
        contents[k] = dbt_dim_select(infer->dims, dbt_contents_at(infer, infer->in[0], shape, k),
                                     dbt_contents_at(infer, infer->in[1], shape, k),
                                     dbt_contents_at(infer, infer->in[2], shape, k));
    }
    return dbt_infer_set_contents(infer, contents, n);
}

static dibit_status infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_BOOL));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_same_type(infer, 1, 2));
    dbt_shape shape;
    DBT_TRY(dbt_infer_broadcast(infer, &infer->in[1]->shape, &infer->in[2]->shape, &shape));
    DBT_TRY(dbt_infer_broadcast(infer, &infer->in[0]->shape, &shape, &shape));
    dbt_infer_output(infer, 0, infer->in[1]->type, &shape);
    return infer_contents(infer, &shape);
}

typedef struct where_call {
    const uint8_t *condition;
    const void *x, *y;
    void *out;
    uint32_t element_bytes;
    int64_t step[3];
} where_call;

#define SELECT(T)                                                                                  \
    do {                                                                                           \
        const T *const x = (const T *)c->x + in[1], *const y = (const T *)c->y + in[2];            \
        T *const to = (T *)c->out + out;                                                           \
        for (int64_t i = 0; i < n; i++) {                                                          \
            to[i] = condition[i * c->step[0]] ? x[i * c->step[1]] : y[i * c->step[2]];             \
        }                                                                                          \
    } while (0)

static void select_run(const void *ctx, const int64_t *in, int64_t out, int64_t n) {
    const where_call *const c = ctx;
    const uint8_t *const condition = c->condition + in[0];
    switch (c->element_bytes) {
    case 1: SELECT(uint8_t); break;
    case 2: SELECT(uint16_t); break;
    case 4: SELECT(uint32_t); break;
    default: SELECT(uint64_t); break;
    }
}

static dibit_status run(const dbt_cpu_call *call) {
    dbt_broadcast plan;
    DBT_TRY(dbt_broadcast_plan(call->out[0], call->in, 3, &plan, call->error));
    const where_call c = {.condition = call->in[0]->data,
                          .x = call->in[1]->data,
                          .y = call->in[2]->data,
                          .out = call->out[0]->data,
                          .element_bytes = dibit_type_bits(call->in[1]->type) / 8,
                          .step = {plan.step[0], plan.step[1], plan.step[2]}};
    dbt_broadcast_for(&plan, call->pool, 2, select_run, &c);
    return DIBIT_OK;
}

static dibit_status encode(const dbt_gpu_call *call) {
    dbt_broadcast plan;
    DBT_TRY(dbt_broadcast_plan(call->out[0], call->in, 3, &plan, call->error));
    const dbt_broadcast_words uniforms = dbt_broadcast_to_words(&plan);
    const dbt_hal_binding bindings[4] = {{.buffer = call->in_buffers[0]},
                                         {.buffer = call->in_buffers[1]},
                                         {.buffer = call->in_buffers[2]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "where.wgsl",
                                 .bindings = bindings,
                                 .n_bindings = 4,
                                 .written = 1 << 3,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, uniforms.count);
}

const dbt_op dbt_elementwise_where_ops[] = {
    {.domain = "",
     .name = "Where",
     .since = 9,
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .flags = DBT_OP_ROWWISE,
     .infer = infer,
     .cpu_run = run,
     .gpu_encode = encode},
    {0},
};

/* Gather, GatherElements and GatherND on a device. */
#include "ops/index/index.h"

/* struct Uniforms of gather.wgsl */
typedef struct gather_uniforms {
    uint32_t count, inner, rows, depth, x_batch, index_batch;
    uint32_t unused[2];
    uint32_t sizes[DIBIT_MAX_RANK], strides[DIBIT_MAX_RANK];
} gather_uniforms;

static dibit_status record_gather(const dbt_gpu_call *call, const dbt_gather_layout *layout,
                                  bool indices_by_batch) {
    const dibit_tensor *const x = call->in[0];
    const int64_t count = dbt_tensor_count(call->out[0]);
    if (count == 0) return DIBIT_OK;
    DBT_FAIL_IF(dbt_tensor_count(x) == 0, call->error, DIBIT_OUT_OF_RANGE,
                "there is nothing to gather from");
    const int32_t raw = dbt_gpu_raw(x->type);
    const int64_t vec = raw == 0 && layout->inner % 4 == 0 ? 4 : 1;
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(x->rank, x->dims, stride);
    gather_uniforms uniforms = {
        .count = (uint32_t)(count / vec),
        .inner = (uint32_t)(layout->inner / vec),
        .rows = (uint32_t)layout->rows,
        .depth = (uint32_t)layout->depth,
        .x_batch = (uint32_t)(dbt_dims_product(x->dims, layout->axis, x->rank) / vec),
        .index_batch = indices_by_batch ? (uint32_t)(layout->rows * layout->depth) : 0};
    for (int32_t k = 0; k < layout->depth; k++) {
        uniforms.sizes[k] = (uint32_t)x->dims[layout->axis + k];
        uniforms.strides[k] = (uint32_t)(stride[layout->axis + k] / vec);
    }
    const dbt_shader_param params[2] = {{"RAW", raw}, {"VEC", (int32_t)vec}};
    const dbt_hal_binding bindings[3] = {{.buffer = call->in_buffers[0]},
                                         {.buffer = call->in_buffers[1]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "gather.wgsl",
                                 .params = params,
                                 .n_params = 2,
                                 .bindings = bindings,
                                 .n_bindings = 3,
                                 .written = 1 << 2,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, uniforms.count);
}

const char *dbt_gather_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    return node->inputs[0]->constant ? dbt_gpu_refuses_raw(node->inputs[0]->type) : NULL;
}

dibit_status dbt_gather_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    dbt_gather_layout layout;
    DBT_TRY(dbt_gather_layout_of(&shapes, &layout));
    return record_gather(call, &layout, false);
}

dibit_status dbt_gather_nd_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    dbt_gather_layout layout;
    DBT_TRY(dbt_gather_nd_layout_of(&shapes, &layout));
    return record_gather(call, &layout, true);
}

/* struct Uniforms of gather_elements.wgsl */
typedef struct elements_uniforms {
    uint32_t count, rank, axis, size;
    uint32_t dims[DIBIT_MAX_RANK], strides[DIBIT_MAX_RANK];
} elements_uniforms;

dibit_status dbt_gather_elements_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    int32_t axis;
    DBT_TRY(dbt_gather_elements_check(&shapes, &axis));
    const int64_t count = dbt_tensor_count(indices);
    if (count == 0) return DIBIT_OK;
    DBT_FAIL_IF(dbt_tensor_count(x) == 0, call->error, DIBIT_OUT_OF_RANGE,
                "there is nothing to gather from");
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(x->rank, x->dims, stride);
    elements_uniforms uniforms = {.count = (uint32_t)count,
                                  .rank = (uint32_t)x->rank,
                                  .axis = (uint32_t)(x->rank - 1 - axis),
                                  .size = (uint32_t)x->dims[axis]};
    for (int32_t i = 0; i < x->rank; i++) {
        uniforms.dims[x->rank - 1 - i] = (uint32_t)indices->dims[i];
        uniforms.strides[x->rank - 1 - i] = (uint32_t)stride[i];
    }
    const dbt_hal_binding bindings[3] = {{.buffer = call->in_buffers[0]},
                                         {.buffer = call->in_buffers[1]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "gather_elements.wgsl",
                                 .bindings = bindings,
                                 .n_bindings = 3,
                                 .written = 1 << 2,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, count);
}

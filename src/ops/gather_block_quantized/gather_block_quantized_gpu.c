/* GatherBlockQuantized on a device. */
#include "ops/gather_block_quantized/gather_block_quantized.h"

/* struct Uniforms of gather_block_quantized.wgsl */
typedef struct gbq_uniforms {
    uint32_t count, n_indices, gather_dim, block_size, c1, q, c2, q_blocks, a_inner, q_outer;
    uint32_t quantized;
    int32_t zero_point;
    uint32_t zero_row, zero_row_stride;
} gbq_uniforms;

/* CODES and ZERO of the shader: constants are the file's, all else is one byte or code to a word. */
static int32_t form_of(const dibit_tensor *t, dibit_type declared) {
    if (t->type == DIBIT_TYPE_INT32) return declared == DIBIT_TYPE_UINT8 ? 3 : 4;
    return declared == DIBIT_TYPE_INT4 || declared == DIBIT_TYPE_INT2 ? 2 : 1;
}

dibit_status dbt_gbq_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    dbt_gbq_layout l;
    DBT_TRY(dbt_gbq_layout_of(&shapes, &l));
    const int64_t count = dbt_tensor_count(call->out[0]);
    if (count == 0) return DIBIT_OK;
    dbt_hal_buffer *in[DBT_GBQ_INPUTS] = {NULL};
    for (uint32_t i = 0; i < call->n_inputs; i++) {
        in[i] = call->in_buffers[i];
        if (call->in[i]) DBT_TRY(dbt_gpu_bindable(call, &in[i]));
    }
    const bool zeros = call->n_inputs > DBT_GBQ_ZERO_POINTS && call->in[DBT_GBQ_ZERO_POINTS];
    const gbq_uniforms uniforms = {.count = (uint32_t)count,
                                   .n_indices = (uint32_t)l.n_indices,
                                   .gather_dim = (uint32_t)l.gather_dim,
                                   .block_size = (uint32_t)l.block_size,
                                   .c1 = (uint32_t)l.c1,
                                   .q = (uint32_t)l.q,
                                   .c2 = (uint32_t)l.c2,
                                   .q_blocks = (uint32_t)l.q_blocks,
                                   .a_inner = (uint32_t)l.a_inner,
                                   .q_outer = (uint32_t)l.q_outer,
                                   .quantized = (uint32_t)l.where,
                                   .zero_point = l.default_zero_point,
                                   .zero_row = (uint32_t)l.zero_row,
                                   .zero_row_stride = (uint32_t)l.zero_row_stride};
    const dbt_shader_param params[4] = {
        {"BITS", (int32_t)l.bits},
        {"CODES", form_of(call->in[DBT_GBQ_DATA], l.declared)},
        {"ZERO", zeros ? form_of(call->in[DBT_GBQ_ZERO_POINTS], l.declared) : 0},
        {"RAW", dbt_gpu_raw(call->in[DBT_GBQ_SCALES]->type)}};
    const dbt_hal_binding bindings[5] = {{.buffer = in[DBT_GBQ_DATA]},
                                         {.buffer = in[DBT_GBQ_INDICES]},
                                         {.buffer = in[DBT_GBQ_SCALES]},
                                         {.buffer = in[DBT_GBQ_ZERO_POINTS]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "gather_block_quantized.wgsl",
                                 .params = params,
                                 .n_params = 4,
                                 .bindings = bindings,
                                 .n_bindings = 5,
                                 .written = 1 << 4,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, count);
}

/* LinearAttention on a device. */
#include "ops/linear_attention/linear_attention.h"

enum { COLUMNS = 64 /* of a workgroup */ };

/* struct Uniforms of linear_attention.wgsl */
typedef struct linear_uniforms {
    uint32_t columns, length, q_heads, k_heads, kv_heads, d_k, d_v, slots;
    uint32_t decay_width, beta_width, decay_by_row, past_at;
    float scale;
} linear_uniforms;

/* An output's buffer, or scratch for one that is empty or not wanted. */
static dibit_status output(const dbt_gpu_call *call, uint32_t o, int64_t count,
                           dbt_hal_buffer **out) {
    *out = o < call->n_outputs && call->out[o] ? call->out_buffers[o] : NULL;
    return *out ? DIBIT_OK
                : dbt_gpu_scratch(call->gpu, 1 + o, (uint64_t)count * 4, out, call->error);
}

dibit_status dbt_linear_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    dbt_linear_layout l;
    DBT_TRY(dbt_linear_layout_of(&shapes, &l));
    const int64_t columns = l.batch * l.kv_heads * l.d_v;
    if (columns == 0) return DIBIT_OK;
    const linear_uniforms uniforms = {.columns = (uint32_t)columns,
                                      .length = (uint32_t)l.length,
                                      .q_heads = (uint32_t)l.q_heads,
                                      .k_heads = (uint32_t)l.k_heads,
                                      .kv_heads = (uint32_t)l.kv_heads,
                                      .d_k = (uint32_t)l.d_k,
                                      .d_v = (uint32_t)l.d_v,
                                      .slots = (uint32_t)l.slots,
                                      .decay_width = (uint32_t)l.decay_width,
                                      .beta_width = (uint32_t)l.beta_width,
                                      .decay_by_row = l.decay_by_row,
                                      .past_at = (uint32_t)((l.slots - 1) * l.slot),
                                      .scale = l.scale};
    dbt_hal_buffer *in[6] = {NULL}, *state, *y;
    for (uint32_t i = 0; i < call->n_inputs; i++) {
        in[i] = call->in_buffers[i];
        if (call->in[i]) DBT_TRY(dbt_gpu_bindable(call, &in[i]));
    }
    const int64_t heads = l.q_heads > l.kv_heads ? l.q_heads : l.kv_heads;
    DBT_TRY(output(call, 0, l.batch * l.length * heads * l.d_v, &y));
    DBT_TRY(output(call, 1, l.slots * l.slot, &state));
    const dbt_shader_param params[3] = {
        {"PAST", in[DBT_LINEAR_PAST] != NULL}, {"DECAY", l.decays}, {"DELTA", l.deltas}};
    const dbt_hal_binding bindings[8] = {{.buffer = in[DBT_LINEAR_QUERY]},
                                         {.buffer = in[DBT_LINEAR_KEY]},
                                         {.buffer = in[DBT_LINEAR_VALUE]},
                                         {.buffer = in[DBT_LINEAR_PAST]},
                                         {.buffer = l.decays ? in[DBT_LINEAR_DECAY] : NULL},
                                         {.buffer = l.deltas ? in[DBT_LINEAR_BETA] : NULL},
                                         {.buffer = state},
                                         {.buffer = y}};
    dbt_gpu_dispatch dispatch = {.shader = "linear_attention.wgsl",
                                 .params = params,
                                 .n_params = 3,
                                 .bindings = bindings,
                                 .n_bindings = 8,
                                 .written = 1 << 6 | 1 << 7,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    DBT_TRY(dbt_gpu_grid(call->gpu, (uint64_t)((columns + COLUMNS - 1) / COLUMNS),
                         dispatch.workgroups, call->error));
    return dbt_gpu_record(call->gpu, &dispatch, call->error);
}

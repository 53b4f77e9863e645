/* Moving ops on a device that are strided copies: their plans (strided_copy.c) in strided_copy.wgsl. */
#include "ops/index/index.h"

/* struct Uniforms of strided_copy.wgsl */
typedef struct strided_uniforms {
    uint32_t count, rank, dst_at, src_at;
    uint32_t dims[DBT_STRIDED_MAX_RANK];
    uint32_t dst_strides[DBT_STRIDED_MAX_RANK];
    uint32_t src_strides[DBT_STRIDED_MAX_RANK];
} strided_uniforms;

/* Four elements along the last dim lie together on both sides, wherever they begin. */
static bool in_fours(const dbt_strided *s) {
    const int32_t last = s->rank - 1;
    bool fours = s->dims[last] % 4 == 0 && s->dst_stride[last] == 1 && s->src_stride[last] == 1 &&
                 s->dst_at % 4 == 0 && s->src_at % 4 == 0;
    for (int32_t i = 0; i < last; i++) {
        fours = fours && s->dst_stride[i] % 4 == 0 && s->src_stride[i] % 4 == 0;
    }
    return fours;
}

static dibit_status record_copy(const dbt_gpu_call *call, const dbt_strided *copy,
                                dbt_hal_buffer *dst, dbt_hal_buffer *src) {
    if (dbt_dims_product(copy->dims, 0, copy->rank) == 0) return DIBIT_OK;
    dbt_strided s;
    dbt_strided_simplify(copy, &s);
    const int64_t vec = in_fours(&s) ? 4 : 1;
    const int64_t count = dbt_dims_product(s.dims, 0, s.rank) / vec;
    strided_uniforms uniforms = {.count = (uint32_t)count,
                                 .rank = (uint32_t)s.rank,
                                 .dst_at = (uint32_t)(s.dst_at / vec),
                                 .src_at = (uint32_t)(s.src_at / vec)};
    for (int32_t d = 0; d < s.rank; d++) {
        const int32_t i = s.rank - 1 - d;
        uniforms.dims[d] = (uint32_t)(d == 0 ? s.dims[i] / vec : s.dims[i]);
        uniforms.dst_strides[d] = (uint32_t)(d == 0 ? s.dst_stride[i] : s.dst_stride[i] / vec);
        uniforms.src_strides[d] = (uint32_t)(d == 0 ? s.src_stride[i] : s.src_stride[i] / vec);
    }
    const dbt_shader_param params[1] = {{"VEC", (int32_t)vec}};
    const dbt_hal_binding bindings[2] = {{.buffer = src}, {.buffer = dst}};
    dbt_gpu_dispatch dispatch = {.shader = "strided_copy.wgsl",
                                 .params = params,
                                 .n_params = 1,
                                 .bindings = bindings,
                                 .n_bindings = 2,
                                 .written = 1 << 1,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, count);
}

dibit_status dbt_move_encode(const dbt_gpu_call *call, dbt_move_plan plan) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    dbt_strided copy = {.rank = 0};
    DBT_TRY(plan(&shapes, &copy));
    return record_copy(call, &copy, call->out_buffers[0], call->in_buffers[0]);
}

dibit_status dbt_slice_encode(const dbt_gpu_call *call) {
    return dbt_move_encode(call, dbt_slice_plan);
}
dibit_status dbt_transpose_encode(const dbt_gpu_call *call) {
    return dbt_move_encode(call, dbt_transpose_plan);
}
dibit_status dbt_tile_encode(const dbt_gpu_call *call) {
    return dbt_move_encode(call, dbt_tile_plan);
}
dibit_status dbt_expand_encode(const dbt_gpu_call *call) {
    return dbt_move_encode(call, dbt_expand_plan);
}
dibit_status dbt_blocks_encode(const dbt_gpu_call *call) {
    return dbt_move_encode(call, dbt_blocks_plan);
}

dibit_status dbt_concat_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    int32_t axis;
    int64_t at[DBT_VARIADIC];
    DBT_TRY(dbt_concat_starts(&shapes, &axis, at));
    for (uint32_t i = 0; i < call->n_inputs; i++) {
        dbt_strided copy = {.rank = 0};
        dbt_part_plan(call->out[0], call->in[i], axis, at[i], true, &copy);
        DBT_TRY(record_copy(call, &copy, call->out_buffers[0], call->in_buffers[i]));
    }
    return DIBIT_OK;
}

dibit_status dbt_split_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    int32_t axis;
    int64_t at[DBT_VARIADIC];
    DBT_TRY(dbt_split_starts(&shapes, &axis, at));
    for (uint32_t o = 0; o < call->n_outputs; o++) {
        if (!call->out[o]) continue;
        dbt_strided copy = {.rank = 0};
        dbt_part_plan(call->in[0], call->out[o], axis, at[o], false, &copy);
        DBT_TRY(record_copy(call, &copy, call->out_buffers[o], call->in_buffers[0]));
    }
    return DIBIT_OK;
}

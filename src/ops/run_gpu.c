/* Helpers that gpu_encode functions share. */
#include "ops/op.h"

dbt_cpu_call dbt_gpu_shapes(const dbt_gpu_call *call) {
    return (dbt_cpu_call){.node = call->node,
                          .attrs = call->attrs,
                          .n_inputs = call->n_inputs,
                          .n_outputs = call->n_outputs,
                          .in = call->in,
                          .out = call->out,
                          .error = call->error};
}

dibit_status dbt_gpu_copy_tensor(const dbt_gpu_call *call, const dibit_tensor *t,
                                 dbt_hal_buffer *from, dbt_hal_buffer *to) {
    const uint64_t bytes = (uint64_t)dbt_tensor_count(t) * 4;
    if (bytes == 0 || from == to) return DIBIT_OK;
    return dbt_gpu_copy(call->gpu, from, 0, to, 0, bytes, call->error);
}

dibit_status dbt_gpu_view(const dbt_gpu_call *call) {
    const int64_t n = dbt_tensor_count(call->in[0]), m = dbt_tensor_count(call->out[0]);
    DBT_FAIL_IF(n != m, call->error, DIBIT_BAD_INPUT,
                "%lld elements do not fit a shape of %lld elements", (long long)n, (long long)m);
    return dbt_gpu_copy_tensor(call, call->out[0], call->in_buffers[0], call->out_buffers[0]);
}

dibit_status dbt_gpu_record_over(const dbt_gpu_call *call, dbt_gpu_dispatch *dispatch, int64_t n) {
    if (n == 0) return DIBIT_OK;
    DBT_TRY(dbt_gpu_grid(call->gpu, ((uint64_t)n + 255) / 256, dispatch->workgroups, call->error));
    return dbt_gpu_record(call->gpu, dispatch, call->error);
}

const char *dbt_gpu_refuses_type(dibit_type type) {
    switch (type) {
    case DIBIT_TYPE_INT64:
    case DIBIT_TYPE_UINT64: return "int64 arithmetic";
    case DIBIT_TYPE_UINT32: return "uint32 arithmetic";
    default: return NULL;
    }
}

void dbt_gpu_narrow(dibit_type type, uint32_t *mask, uint32_t *shift) {
    const uint32_t bits = dibit_type_bits(type);
    const bool is_signed = dbt_type_in(type, DBT_TYPES_SIGNED | DBT_TYPE_BIT(DIBIT_TYPE_INT4) |
                                                 DBT_TYPE_BIT(DIBIT_TYPE_INT2));
    *mask = bits < 32 ? (1u << bits) - 1 : UINT32_MAX;
    *shift = bits < 32 && is_signed ? 32 - bits : 0;
}

dibit_status dbt_gpu_bindable(const dbt_gpu_call *call, dbt_hal_buffer **buffer) {
    return *buffer ? DIBIT_OK : dbt_gpu_scratch(call->gpu, 0, 4, buffer, call->error);
}

int32_t dbt_gpu_raw(dibit_type type) {
    switch (type) {
    case DIBIT_TYPE_FLOAT16: return 1;
    case DIBIT_TYPE_BFLOAT16: return 2;
    case DIBIT_TYPE_BOOL:
    case DIBIT_TYPE_UINT8: return 3;
    case DIBIT_TYPE_INT8: return 4;
    case DIBIT_TYPE_UINT16: return 5;
    case DIBIT_TYPE_INT16: return 6;
    case DIBIT_TYPE_UINT4: return 7;
    case DIBIT_TYPE_INT4: return 8;
    case DIBIT_TYPE_UINT2: return 9;
    case DIBIT_TYPE_INT2: return 10;
    default: return 0;
    }
}

const char *dbt_gpu_refuses_raw(dibit_type type) {
    switch (type) {
    case DIBIT_TYPE_DOUBLE: return "a constant of doubles";
    case DIBIT_TYPE_INT64:
    case DIBIT_TYPE_UINT64: return "a constant of 64-bit integers";
    default: return NULL;
    }
}

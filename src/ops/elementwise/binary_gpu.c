/* Binary elementwise ops on a device: which kernel of binary.wgsl a kind is. */
#include "ops/elementwise/elementwise.h"

/* OP of binary.wgsl; 0: no kernel. */
static const uint8_t float_kernels[DBT_BINARY_KINDS] = {
    [DBT_BINARY_ADD] = 1,         [DBT_BINARY_SUB] = 2,       [DBT_BINARY_MUL] = 3,
    [DBT_BINARY_DIV] = 4,         [DBT_BINARY_PRELU] = 5,     [DBT_BINARY_MAX] = 6,
    [DBT_BINARY_MIN] = 7,         [DBT_BINARY_BIAS_GELU] = 8, [DBT_BINARY_FAST_GELU] = 9,
    [DBT_BINARY_ADD_SHARE] = 10,  [DBT_BINARY_EQUAL] = 20,    [DBT_BINARY_LESS] = 21,
    [DBT_BINARY_LESS_EQUAL] = 22, [DBT_BINARY_GREATER] = 23,  [DBT_BINARY_GREATER_EQUAL] = 24,
};
static const uint8_t word_kernels[DBT_BINARY_KINDS] = {
    [DBT_BINARY_ADD] = 30,           [DBT_BINARY_SUB] = 31,         [DBT_BINARY_MUL] = 32,
    [DBT_BINARY_DIV] = 33,           [DBT_BINARY_PRELU] = 34,       [DBT_BINARY_MAX] = 35,
    [DBT_BINARY_MIN] = 36,           [DBT_BINARY_MOD] = 37,         [DBT_BINARY_FMOD] = 38,
    [DBT_BINARY_BIT_AND] = 39,       [DBT_BINARY_BIT_OR] = 40,      [DBT_BINARY_BIT_XOR] = 41,
    [DBT_BINARY_SHIFT_LEFT] = 42,    [DBT_BINARY_SHIFT_RIGHT] = 43, [DBT_BINARY_EQUAL] = 50,
    [DBT_BINARY_LESS] = 51,          [DBT_BINARY_LESS_EQUAL] = 52,  [DBT_BINARY_GREATER] = 53,
    [DBT_BINARY_GREATER_EQUAL] = 54, [DBT_BINARY_AND] = 55,         [DBT_BINARY_OR] = 56,
    [DBT_BINARY_XOR] = 57,
};

static uint8_t kernel_of(dbt_binary_kind kind, dibit_type type) {
    return dbt_type_in(type, DBT_TYPES_FLOAT) ? float_kernels[kind] : word_kernels[kind];
}

const char *dbt_binary_refuses(dbt_binary_kind kind, dibit_type type) {
    if (!kernel_of(kind, type)) return "the remainder of floats";
    const bool compares = kind >= DBT_BINARY_EQUAL && kind <= DBT_BINARY_GREATER_EQUAL;
    return compares && type == DIBIT_TYPE_INT64 ? NULL : dbt_gpu_refuses_type(type);
}

/* struct Uniforms of binary.wgsl */
typedef struct binary_uniforms {
    dbt_broadcast_words shape;
    float n;
    uint32_t mask, shift, bits;
} binary_uniforms;

dibit_status dbt_binary_record(const dbt_gpu_call *call, dbt_binary_kind kind, dbt_gpu_operand a,
                               dbt_gpu_operand b, dbt_gpu_operand y, float n) {
    const dibit_type type = call->node->inputs[0]->type; /* all integers are words here */
    dbt_broadcast plan;
    DBT_TRY(
        dbt_broadcast_plan(y.t, (const dibit_tensor *const[]){a.t, b.t}, 2, &plan, call->error));
    binary_uniforms uniforms = {
        .shape = dbt_broadcast_to_words(&plan), .n = n, .bits = dibit_type_bits(type)};
    dbt_gpu_narrow(type, &uniforms.mask, &uniforms.shift);
    const bool whole = plan.rank == 0 && plan.step[0] == 1 && plan.step[1] == 1;
    const uint32_t vec = whole && uniforms.shape.count % 4 == 0 ? 4 : 1;
    uniforms.shape.count /= vec;
    const dbt_shader_param params[2] = {{"OP", kernel_of(kind, type)}, {"VEC", (int32_t)vec}};
    const dbt_hal_binding bindings[3] = {
        {.buffer = a.buffer}, {.buffer = b.buffer}, {.buffer = y.buffer}};
    dbt_gpu_dispatch dispatch = {.shader = "binary.wgsl",
                                 .params = params,
                                 .n_params = 2,
                                 .bindings = bindings,
                                 .n_bindings = 3,
                                 .written = 1 << 2,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, uniforms.shape.count);
}

dibit_status dbt_binary_encode(const dbt_gpu_call *call, dbt_binary_kind kind) {
    return dbt_binary_record(call, kind, (dbt_gpu_operand){call->in[0], call->in_buffers[0]},
                             (dbt_gpu_operand){call->in[1], call->in_buffers[1]},
                             (dbt_gpu_operand){call->out[0], call->out_buffers[0]}, 0);
}

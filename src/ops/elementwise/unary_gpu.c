/* Unary elementwise ops on a device: which kernel of unary.wgsl a kind is, and how far it is off. */
#include <math.h>

#include "ops/elementwise/unary.h"

/* OP of unary.wgsl; 0: no kernel. */
static const uint8_t float_kernels[DBT_UNARY_KINDS] = {
    [DBT_UNARY_ABS] = 1,         [DBT_UNARY_NEG] = 2,
    [DBT_UNARY_SIGN] = 3,        [DBT_UNARY_FLOOR] = 4,
    [DBT_UNARY_CEIL] = 5,        [DBT_UNARY_ROUND] = 6,
    [DBT_UNARY_SQRT] = 7,        [DBT_UNARY_RECIPROCAL] = 8,
    [DBT_UNARY_EXP] = 9,         [DBT_UNARY_LOG] = 10,
    [DBT_UNARY_SIN] = 11,        [DBT_UNARY_COS] = 12,
    [DBT_UNARY_TAN] = 13,        [DBT_UNARY_TANH] = 14,
    [DBT_UNARY_SIGMOID] = 15,    [DBT_UNARY_HARD_SIGMOID] = 16,
    [DBT_UNARY_HARD_SWISH] = 17, [DBT_UNARY_RELU] = 18,
    [DBT_UNARY_LEAKY_RELU] = 19, [DBT_UNARY_THRESHOLDED_RELU] = 20,
    [DBT_UNARY_ELU] = 21,        [DBT_UNARY_SELU] = 22,
    [DBT_UNARY_CELU] = 23,       [DBT_UNARY_SOFTPLUS] = 24,
    [DBT_UNARY_SOFTSIGN] = 25,   [DBT_UNARY_MISH] = 26,
    [DBT_UNARY_SWISH] = 27,      [DBT_UNARY_ERF] = 28,
    [DBT_UNARY_GELU] = 29,       [DBT_UNARY_FAST_GELU] = 30,
    [DBT_UNARY_CLIP] = 31,       [DBT_UNARY_SQUARE] = 32,
    [DBT_UNARY_CUBE] = 33,       [DBT_UNARY_INVERSE_SQRT] = 34,
    [DBT_UNARY_IS_NAN] = 40,     [DBT_UNARY_IS_INF] = 41,
};
static const uint8_t word_kernels[DBT_UNARY_KINDS] = {
    [DBT_UNARY_ABS] = 50,  [DBT_UNARY_NEG] = 51,         [DBT_UNARY_SIGN] = 52,
    [DBT_UNARY_RELU] = 53, [DBT_UNARY_BITWISE_NOT] = 54, [DBT_UNARY_NOT] = 55,
};

static uint8_t kernel_of(dbt_unary_kind kind, dibit_type type) {
    return dbt_type_in(type, DBT_TYPES_FLOAT) ? float_kernels[kind] : word_kernels[kind];
}

const char *dbt_unary_refuses(dbt_unary_kind kind, dibit_type type) {
    if (!kernel_of(kind, type)) return "no accurate formula for it on a device";
    return dbt_gpu_refuses_type(type);
}

float dbt_unary_gpu_bound(dbt_unary_kind kind, const dbt_unary_attrs *p, float x, float y) {
    const float cpu = dbt_unary_bound(kind, p, x, y);
    /* The formulas are those of the CPU, with a division of 2.5 ulp where they divide; a root is an
     * inverse root of 2 ulp and a division, and the tangent divides what is off by 6 roundings. */
    const float extra = kind == DBT_UNARY_SQRT || kind == DBT_UNARY_TAN ? 12.0f : 4.0f;
    const float subnormal = 0x1p-126f; /* may become 0 */
    return cpu > 0 ? 2 * cpu + 0x1p-24f * extra * fabsf(y) + subnormal : subnormal;
}

/* struct Uniforms of unary.wgsl */
typedef struct unary_uniforms {
    uint32_t count;
    float alpha, beta;
    uint32_t mask, shift;
} unary_uniforms;

dibit_status dbt_unary_encode(const dbt_gpu_call *call, dbt_unary_kind kind,
                              const dbt_unary_attrs *attrs) {
    const dibit_type type = call->node->inputs[0]->type; /* all integers are words here */
    const int64_t count = dbt_tensor_count(call->out[0]), vec = count % 4 == 0 ? 4 : 1;
    unary_uniforms uniforms = {.count = (uint32_t)(count / vec)};
    if (attrs) {
        uniforms.alpha = attrs->alpha;
        uniforms.beta = attrs->beta;
    }
    if (kind == DBT_UNARY_IS_INF) {
        uniforms.alpha = attrs->detect_negative ? 1.0f : 0.0f;
        uniforms.beta = attrs->detect_positive ? 1.0f : 0.0f;
    }
    dbt_gpu_narrow(type, &uniforms.mask, &uniforms.shift);
    const dbt_shader_param params[2] = {{"OP", kernel_of(kind, type)}, {"VEC", (int32_t)vec}};
    const dbt_hal_binding bindings[2] = {{.buffer = call->in_buffers[0]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "unary.wgsl",
                                 .params = params,
                                 .n_params = 2,
                                 .bindings = bindings,
                                 .n_bindings = 2,
                                 .written = 1 << 1,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, count / vec);
}

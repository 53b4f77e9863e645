/* Cast and CastLike on a device: cast.wgsl, or a copy where the words are the same. */
#include <math.h>

#include "ops/cast/cast.h"

enum { FROM_FLOAT, FROM_WORD };
enum { TO_FLOAT, TO_FLOAT16, TO_BFLOAT16, TO_INTEGER, TO_BOOL };

/* A device's integers have 32 bits: floats beyond them have no place there. */
const char *dbt_cast_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    return dbt_type_is_float(node->inputs[0]->type) ? dbt_gpu_refuses_type(node->outputs[0]->type)
                                                    : NULL;
}

/* struct Uniforms of cast.wgsl */
typedef struct cast_uniforms {
    uint32_t count;
    int32_t low, high;
    float low_float, beyond;
    uint32_t mask, shift;
} cast_uniforms;

dibit_status dbt_cast_encode(const dbt_gpu_call *call) {
    const dibit_type from = call->node->inputs[0]->type, to = call->node->outputs[0]->type;
    const int64_t count = dbt_tensor_count(call->out[0]), vec = count % 4 == 0 ? 4 : 1;
    const int32_t source = dbt_type_is_float(from) ? FROM_FLOAT : FROM_WORD;
    const int32_t target = to == DIBIT_TYPE_FLOAT16    ? TO_FLOAT16
                           : to == DIBIT_TYPE_BFLOAT16 ? TO_BFLOAT16
                           : dbt_type_is_float(to)     ? TO_FLOAT
                           : to == DIBIT_TYPE_BOOL     ? TO_BOOL
                                                       : TO_INTEGER;
    if ((source == FROM_FLOAT && target == TO_FLOAT) ||
        (target == TO_INTEGER && source == FROM_WORD && dibit_type_bits(to) >= 32)) {
        return dbt_gpu_view(call);
    }
    cast_uniforms uniforms = {.count = (uint32_t)(count / vec)};
    if (target == TO_INTEGER) {
        /* Through int8, as on the CPU, for types of fewer bits. */
        const dibit_type whole = dbt_type_in(to, DBT_TYPES_SUBBYTE) ? DIBIT_TYPE_INT8 : to;
        const uint32_t bits = dibit_type_bits(whole);
        const bool is_signed = dbt_type_in(whole, DBT_TYPES_SIGNED);
        uniforms.low = is_signed ? (int32_t)(-(INT64_C(1) << (bits - 1))) : 0;
        uniforms.high = (int32_t)((INT64_C(1) << (is_signed ? bits - 1 : bits)) - 1);
        uniforms.low_float = (float)uniforms.low;
        uniforms.beyond = ldexpf(1, (int)(is_signed ? bits - 1 : bits));
        dbt_gpu_narrow(to, &uniforms.mask, &uniforms.shift);
    }
    const dbt_shader_param params[3] = {{"FROM", source}, {"TO", target}, {"VEC", (int32_t)vec}};
    const dbt_hal_binding bindings[2] = {{.buffer = call->in_buffers[0]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "cast.wgsl",
                                 .params = params,
                                 .n_params = 3,
                                 .bindings = bindings,
                                 .n_bindings = 2,
                                 .written = 1 << 1,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, count / vec);
}

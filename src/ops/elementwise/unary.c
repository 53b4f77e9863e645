/* Unary elementwise ops: table and inference; gelus with a bias too. Kernels: unary_cpu.c. */
#include "ops/elementwise/unary.h"

#include <string.h>

#include "base/math.h"

#define ALPHA(default_)                                                                            \
    {.name = "alpha",                                                                              \
     .kind = DBT_ATTR_FLOAT,                                                                       \
     .offset = offsetof(dbt_unary_attrs, alpha),                                                   \
     .f = (default_)}
#define BETA(name_, default_)                                                                      \
    {.name = (name_),                                                                              \
     .kind = DBT_ATTR_FLOAT,                                                                       \
     .offset = offsetof(dbt_unary_attrs, beta),                                                    \
     .f = (default_)}
static const dbt_attr_def hard_sigmoid_attrs[] = {ALPHA(0.2f), BETA("beta", 0.5f)};
static const dbt_attr_def selu_attrs[] = {ALPHA(1.67326319217681884765625f),
                                          BETA("gamma", 1.05070102214813232421875f)};
static const dbt_attr_def leaky_relu_attrs[] = {ALPHA(0.01f)};
static const dbt_attr_def quick_gelu_attrs[] = {ALPHA(1.702f)};
static const dbt_attr_def alpha_1_attrs[] = {ALPHA(1.0f)};
static const dbt_attr_def is_inf_attrs[] = {
    {.name = "detect_negative",
     .kind = DBT_ATTR_INT,
     .i = 1,
     .offset = offsetof(dbt_unary_attrs, detect_negative)},
    {.name = "detect_positive",
     .kind = DBT_ATTR_INT,
     .i = 1,
     .offset = offsetof(dbt_unary_attrs, detect_positive)},
};
static const dbt_attr_def gelu_attrs[] = {
    {.name = "approximate",
     .kind = DBT_ATTR_STRING,
     .s = "none",
     .offset = offsetof(dbt_unary_attrs, approximate)},
};

dbt_unary_kind dbt_unary_actual_kind(const dbt_node *node) {
    const dbt_unary_attrs *const attrs = node->attrs;
    const dbt_unary_kind kind = (dbt_unary_kind)node->op->kind;
    const bool tanh_form =
        kind == DBT_UNARY_GELU && node->op->n_attrs > 0 && strcmp(attrs->approximate, "tanh") == 0;
    return tanh_form ? DBT_UNARY_FAST_GELU : kind;
}

static dbt_dim unary_dim(dbt_dims *dims, dbt_unary_kind kind, dbt_dim x) {
    const dbt_dim zero = dbt_dim_const(dims, 0);
    switch (kind) {
    case DBT_UNARY_NEG: return dbt_dim_apply(dims, DBT_DIM_SUB, zero, x);
    case DBT_UNARY_RELU: return dbt_dim_apply(dims, DBT_DIM_MAX, x, zero);
    case DBT_UNARY_NOT: return dbt_dim_apply(dims, DBT_DIM_EQUAL, x, zero);
    case DBT_UNARY_ABS:
        return dbt_dim_apply(dims, DBT_DIM_MAX, x, dbt_dim_apply(dims, DBT_DIM_SUB, zero, x));
    default: return DBT_DIM_NONE;
    }
}

static dibit_status infer_contents(const dbt_infer *infer) {
    const dbt_value *const x = infer->in[0];
    if (!x->contents || !dbt_host_type(x->type)) return DIBIT_OK;
    const int64_t n = dbt_infer_contents_count(infer, x);
    if (n > DBT_MAX_CONTENTS) return DIBIT_OK;
    dbt_dim contents[DBT_MAX_CONTENTS];
    for (int64_t k = 0; k < n; k++) {
        contents[k] = unary_dim(infer->dims, (dbt_unary_kind)infer->node->op->kind, x->contents[k]);
        /* Only the lowest int32 has no negative. */
        if (x->type == DIBIT_TYPE_INT32 && dbt_dim_is(infer->dims, x->contents[k], INT32_MIN)) {
            return DIBIT_OK;
        }
    }
    return dbt_infer_set_contents(infer, contents, n);
}

static dibit_status infer(dbt_infer *infer) {
    const dbt_unary_kind kind = dbt_unary_actual_kind(infer->node);
    const dibit_type type = infer->in[0]->type;
    DBT_FAIL_IF(!dbt_type_in(type, DBT_TYPES_NUMBER | DBT_TYPES_BOOL) ||
                    !dbt_unary_kernel(kind, dbt_storage_type(type)),
                infer->error, DIBIT_BAD_FILE, "an input of type %s makes no sense for %s",
                dibit_type_name(type), infer->node->op->name);
    if (infer->node->op->attrs == gelu_attrs) {
        const dbt_unary_attrs *const attrs = infer->attrs;
        DBT_FAIL_IF(kind == DBT_UNARY_GELU && strcmp(attrs->approximate, "none") != 0, infer->error,
                    DIBIT_BAD_FILE, "attribute 'approximate' must be none or tanh, got '%s'",
                    attrs->approximate);
    }
    const bool to_bool = kind == DBT_UNARY_IS_NAN || kind == DBT_UNARY_IS_INF;
    dbt_infer_output(infer, 0, to_bool ? DIBIT_TYPE_BOOL : type, &infer->in[0]->shape);
    return infer_contents(infer);
}

static dibit_status run(const dbt_cpu_call *call) {
    return dbt_unary_run(dbt_unary_actual_kind(call->node), call->attrs, call);
}

static dibit_status bound_by(const dbt_cpu_call *call, float *const *bounds,
                             float (*of)(dbt_unary_kind, const dbt_unary_attrs *, float, float)) {
    if (!bounds[0]) return DIBIT_OK;
    const float *const x = call->in[0]->data, *const y = call->out[0]->data;
    const dbt_unary_kind kind = dbt_unary_actual_kind(call->node);
    for (int64_t i = 0; i < dbt_tensor_count(call->in[0]); i++) {
        bounds[0][i] = of(kind, call->attrs, x[i], y[i]);
    }
    return DIBIT_OK;
}

static dibit_status bound(const dbt_cpu_call *call, float *const *bounds) {
    return bound_by(call, bounds, dbt_unary_bound);
}

static dibit_status encode(const dbt_gpu_call *call) {
    return dbt_unary_encode(call, dbt_unary_actual_kind(call->node), call->attrs);
}

static const char *gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    return dbt_unary_refuses(dbt_unary_actual_kind(node), node->inputs[0]->type);
}

static dibit_status gpu_bound(const dbt_cpu_call *call, float *const *bounds) {
    return bound_by(call, bounds, dbt_unary_gpu_bound);
}

/* ---- FastGelu and BiasGelu: a bias of the last axis is added first ---- */

static bool has_bias(uint32_t n_inputs, const void *second) { return n_inputs > 1 && second; }

static dibit_status infer_bias(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_FLOAT));
    if (has_bias(infer->n_inputs, infer->n_inputs > 1 ? infer->in[1] : NULL)) {
        DBT_TRY(dbt_infer_same_type(infer, 0, 1));
        DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
        DBT_TRY(dbt_infer_rank(infer, 1, 1, 1));
        const dbt_shape *const x = &infer->in[0]->shape;
        DBT_TRY(dbt_infer_dim(infer, 1, 0, x->dims[x->rank - 1]));
    }
    return dbt_infer_like_first(infer);
}

static dibit_status run_bias(const dbt_cpu_call *call) {
    const bool fast = call->node->op->kind == DBT_UNARY_FAST_GELU;
    if (call->n_inputs > 1 && call->in[1]) {
        return dbt_binary_run(fast ? DBT_BINARY_FAST_GELU : DBT_BINARY_BIAS_GELU, call->in[0],
                              call->in[1], call->out[0], call);
    }
    return dbt_unary_run(fast ? DBT_UNARY_FAST_GELU : DBT_UNARY_GELU, call->attrs, call);
}

static dibit_status encode_bias(const dbt_gpu_call *call) {
    const bool fast = call->node->op->kind == DBT_UNARY_FAST_GELU;
    if (call->n_inputs > 1 && call->in[1]) {
        return dbt_binary_encode(call, fast ? DBT_BINARY_FAST_GELU : DBT_BINARY_BIAS_GELU);
    }
    return dbt_unary_encode(call, fast ? DBT_UNARY_FAST_GELU : DBT_UNARY_GELU, NULL);
}

/* The sum is rounded once, and gelu's slope is at most 1.13. */
static dibit_status bound_bias(const dbt_cpu_call *call, float *const *bounds) {
    if (!bounds[0]) return DIBIT_OK;
    const float *const x = call->in[0]->data, *const y = call->out[0]->data;
    const float *const bias = call->n_inputs > 1 && call->in[1] ? call->in[1]->data : NULL;
    const int64_t count = dbt_tensor_count(call->in[0]);
    const int64_t width = bias ? call->in[1]->dims[0] : 1;
    for (int64_t i = 0; i < count; i++) {
        const float s = x[i] + (bias ? bias[width == 1 ? 0 : i % width] : 0);
        bounds[0][i] = dbt_unary_bound((dbt_unary_kind)call->node->op->kind, NULL, s, y[i]) +
                       2 * 0x1p-24f * fabsf(s);
    }
    return DIBIT_OK;
}

#define COMMON(name_, kind_)                                                                       \
    .name = (name_), .min_inputs = 1, .max_inputs = 1, .min_outputs = 1, .max_outputs = 1,         \
    .kind = DBT_UNARY_##kind_, .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE, .infer = infer,          \
    .cpu_run = run, .cpu_bound = bound, .gpu_encode = encode, .gpu_refuses = gpu_refuses,          \
    .gpu_bound = gpu_bound
#define UNARY(name_, since_, kind_) {.domain = "", .since = (since_), COMMON(name_, kind_)}
#define UNARY_ATTRS(domain_, name_, since_, kind_, attrs_)                                         \
    {.domain = (domain_),                                                                          \
     .since = (since_),                                                                            \
     COMMON(name_, kind_),                                                                         \
     .attrs = (attrs_),                                                                            \
     .n_attrs = sizeof(attrs_) / sizeof *(attrs_),                                                 \
     .attrs_bytes = sizeof(dbt_unary_attrs)}

const dbt_op dbt_elementwise_unary_ops[] = {
    UNARY("Abs", 6, ABS),
    UNARY("Neg", 6, NEG),
    UNARY("Sign", 9, SIGN),
    UNARY("Floor", 6, FLOOR),
    UNARY("Ceil", 6, CEIL),
    UNARY("Round", 11, ROUND),
    UNARY("Sqrt", 6, SQRT),
    UNARY("Reciprocal", 6, RECIPROCAL),
    UNARY("Exp", 6, EXP),
    UNARY("Log", 6, LOG),
    UNARY("Sin", 7, SIN),
    UNARY("Cos", 7, COS),
    UNARY("Tan", 7, TAN),
    UNARY("Asin", 7, ASIN),
    UNARY("Acos", 7, ACOS),
    UNARY("Atan", 7, ATAN),
    UNARY("Sinh", 9, SINH),
    UNARY("Cosh", 9, COSH),
    UNARY("Tanh", 6, TANH),
    UNARY("Asinh", 9, ASINH),
    UNARY("Acosh", 9, ACOSH),
    UNARY("Atanh", 9, ATANH),
    UNARY("Sigmoid", 6, SIGMOID),
    UNARY("HardSwish", 14, HARD_SWISH),
    UNARY("Relu", 6, RELU),
    UNARY("Softplus", 1, SOFTPLUS),
    UNARY("Softsign", 1, SOFTSIGN),
    UNARY("Mish", 18, MISH),
    UNARY("Erf", 9, ERF),
    UNARY("IsNaN", 9, IS_NAN),
    UNARY("Not", 1, NOT),
    UNARY("BitwiseNot", 18, BITWISE_NOT),
    UNARY_ATTRS("", "HardSigmoid", 6, HARD_SIGMOID, hard_sigmoid_attrs),
    UNARY_ATTRS("", "LeakyRelu", 6, LEAKY_RELU, leaky_relu_attrs),
    UNARY_ATTRS("", "ThresholdedRelu", 10, THRESHOLDED_RELU, alpha_1_attrs),
    UNARY_ATTRS("", "Elu", 6, ELU, alpha_1_attrs),
    UNARY_ATTRS("", "Celu", 12, CELU, alpha_1_attrs),
    UNARY_ATTRS("", "Selu", 6, SELU, selu_attrs),
    UNARY_ATTRS("", "Gelu", 20, GELU, gelu_attrs),
    UNARY_ATTRS("", "Swish", 24, SWISH, alpha_1_attrs),
    UNARY_ATTRS("", "IsInf", 10, IS_INF, is_inf_attrs),
    UNARY_ATTRS("com.microsoft", "QuickGelu", 1, SWISH, quick_gelu_attrs),
    {.domain = "com.microsoft", .since = 1, COMMON("Gelu", GELU)},
    {.domain = "com.microsoft",
     .name = "FastGelu",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .kind = DBT_UNARY_FAST_GELU,
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,
     .infer = infer_bias,
     .cpu_run = run_bias,
     .cpu_bound = bound_bias,
     .gpu_encode = encode_bias},
    {.domain = "com.microsoft",
     .name = "BiasGelu",
     .since = 1,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .kind = DBT_UNARY_GELU,
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,
     .infer = infer_bias,
     .cpu_run = run_bias,
     .cpu_bound = bound_bias,
     .gpu_encode = encode_bias},
    {0},
};

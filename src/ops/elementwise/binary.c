/* Binary elementwise ops: table, inference, run. Kernels are in binary_cpu.c, Pow's in pow.c. */
#include <string.h>

#include "ops/elementwise/elementwise.h"

typedef struct binary_attrs {
    int64_t fmod;
    const char *direction;
} binary_attrs;

static const dbt_attr_def mod_attrs[] = {
    {.name = "fmod", .kind = DBT_ATTR_INT, .offset = offsetof(binary_attrs, fmod)},
};
static const dbt_attr_def shift_attrs[] = {
    {.name = "direction",
     .kind = DBT_ATTR_STRING,
     .required = true,
     .offset = offsetof(binary_attrs, direction)},
};

/* The kernel's kind: what the table says, or as an attribute asks. */
static dbt_binary_kind actual_kind(const dbt_node *node) {
    const binary_attrs *const attrs = node->attrs;
    const dbt_binary_kind kind = (dbt_binary_kind)node->op->kind;
    if (kind == DBT_BINARY_MOD && attrs->fmod) return DBT_BINARY_FMOD;
    if (kind == DBT_BINARY_SHIFT_LEFT && strcmp(attrs->direction, "RIGHT") == 0) {
        return DBT_BINARY_SHIFT_RIGHT;
    }
    return kind;
}

static bool gives_bool(dbt_binary_kind kind) {
    return kind >= DBT_BINARY_EQUAL && kind <= DBT_BINARY_XOR;
}

static dibit_status infer_types(const dbt_infer *infer, dbt_binary_kind kind) {
    DBT_TRY(dbt_infer_same_type(infer, 0, 1));
    const dibit_type type = infer->in[0]->type;
    DBT_FAIL_IF(!dbt_type_in(type, DBT_TYPES_NUMBER | DBT_TYPES_BOOL) ||
                    !dbt_binary_kernel(kind, dbt_storage_type(type)),
                infer->error, DIBIT_BAD_FILE, "inputs of type %s make no sense for %s",
                dibit_type_name(type), infer->node->op->name);
    return DIBIT_OK;
}

static dibit_status infer(dbt_infer *infer) {
    const dbt_binary_kind kind = actual_kind(infer->node);
    if (kind == DBT_BINARY_SHIFT_LEFT) {
        const binary_attrs *const attrs = infer->attrs;
        DBT_FAIL_IF(strcmp(attrs->direction, "LEFT") != 0, infer->error, DIBIT_BAD_FILE,
                    "attribute 'direction' must be LEFT or RIGHT, got '%s'", attrs->direction);
    }
    DBT_TRY(infer_types(infer, kind));
    dbt_shape shape;
    DBT_TRY(dbt_infer_broadcast(infer, &infer->in[0]->shape, &infer->in[1]->shape, &shape));
    /* The slope of PRelu is broadcast to X, never X to the slope. */
    if (kind == DBT_BINARY_PRELU) shape = infer->in[0]->shape;
    dbt_infer_output(infer, 0, gives_bool(kind) ? DIBIT_TYPE_BOOL : infer->in[0]->type, &shape);
    return dbt_binary_contents(infer, kind);
}

static dibit_status run(const dbt_cpu_call *call) {
    return dbt_binary_run(actual_kind(call->node), call->in[0], call->in[1], call->out[0], call);
}

static dibit_status encode(const dbt_gpu_call *call) {
    return dbt_binary_encode(call, actual_kind(call->node));
}

static const char *gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    return dbt_binary_refuses(actual_kind(node), node->inputs[0]->type);
}

#define BINARY(name_, since_, kind_)                                                               \
    {.domain = "",                                                                                 \
     .name = (name_),                                                                              \
     .since = (since_),                                                                            \
     .min_inputs = 2,                                                                              \
     .max_inputs = 2,                                                                              \
     .min_outputs = 1,                                                                             \
     .max_outputs = 1,                                                                             \
     .kind = (kind_),                                                                              \
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,                                                    \
     .infer = infer,                                                                               \
     .cpu_run = run,                                                                               \
     .gpu_encode = encode,                                                                         \
     .gpu_refuses = gpu_refuses}
#define BINARY_ATTRS(name_, since_, kind_, attrs_)                                                 \
    {.domain = "",                                                                                 \
     .name = (name_),                                                                              \
     .since = (since_),                                                                            \
     .min_inputs = 2,                                                                              \
     .max_inputs = 2,                                                                              \
     .min_outputs = 1,                                                                             \
     .max_outputs = 1,                                                                             \
     .kind = (kind_),                                                                              \
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,                                                    \
     .attrs = (attrs_),                                                                            \
     .n_attrs = 1,                                                                                 \
     .attrs_bytes = sizeof(binary_attrs),                                                          \
     .infer = infer,                                                                               \
     .cpu_run = run,                                                                               \
     .gpu_encode = encode,                                                                         \
     .gpu_refuses = gpu_refuses}

const dbt_op dbt_elementwise_binary_ops[] = {
    BINARY("Add", 7, DBT_BINARY_ADD),
    BINARY("Sub", 7, DBT_BINARY_SUB),
    BINARY("Mul", 7, DBT_BINARY_MUL),
    BINARY("Div", 7, DBT_BINARY_DIV),
    BINARY("PRelu", 7, DBT_BINARY_PRELU),
    BINARY("Equal", 7, DBT_BINARY_EQUAL),
    BINARY("Less", 7, DBT_BINARY_LESS),
    BINARY("LessOrEqual", 12, DBT_BINARY_LESS_EQUAL),
    BINARY("Greater", 7, DBT_BINARY_GREATER),
    BINARY("GreaterOrEqual", 12, DBT_BINARY_GREATER_EQUAL),
    BINARY("And", 7, DBT_BINARY_AND),
    BINARY("Or", 7, DBT_BINARY_OR),
    BINARY("Xor", 7, DBT_BINARY_XOR),
    BINARY("BitwiseAnd", 18, DBT_BINARY_BIT_AND),
    BINARY("BitwiseOr", 18, DBT_BINARY_BIT_OR),
    BINARY("BitwiseXor", 18, DBT_BINARY_BIT_XOR),
    BINARY_ATTRS("BitShift", 11, DBT_BINARY_SHIFT_LEFT, shift_attrs),
    BINARY_ATTRS("Mod", 10, DBT_BINARY_MOD, mod_attrs),
    {0},
};

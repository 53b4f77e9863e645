/* The elementwise family: unary.c, binary.c, variadic.c and where.c hold the ops; this is what they
 * share.
 *
 *   unary     y[i] = f(x[i])            binary   y = f(a, b), broadcast
 *   variadic  y = x0 f x1 f x2 ...      Where    y = condition ? x : y
 *
 * Integers wrap. Integer division and remainder by zero give 0. A bool is true when it is not 0. */
#ifndef DBT_OPS_ELEMENTWISE_H
#define DBT_OPS_ELEMENTWISE_H

#include "ops/elementwise/broadcast.h"

typedef enum dbt_binary_kind {
    DBT_BINARY_ADD,
    DBT_BINARY_SUB,
    DBT_BINARY_MUL,
    DBT_BINARY_DIV,
    DBT_BINARY_MOD,  /* sign of the divisor */
    DBT_BINARY_FMOD, /* sign of the dividend */
    DBT_BINARY_PRELU,
    DBT_BINARY_MAX,
    DBT_BINARY_MIN,
    DBT_BINARY_EQUAL,
    DBT_BINARY_LESS,
    DBT_BINARY_LESS_EQUAL,
    DBT_BINARY_GREATER,
    DBT_BINARY_GREATER_EQUAL,
    DBT_BINARY_AND,
    DBT_BINARY_OR,
    DBT_BINARY_XOR,
    DBT_BINARY_BIT_AND,
    DBT_BINARY_BIT_OR,
    DBT_BINARY_BIT_XOR,
    DBT_BINARY_SHIFT_LEFT,
    DBT_BINARY_SHIFT_RIGHT,
    DBT_BINARY_POW,       /* float base and exponent */
    DBT_BINARY_BIAS_GELU, /* float */
    DBT_BINARY_FAST_GELU, /* float */
    DBT_BINARY_ADD_SHARE, /* (a + b) / n: the last step of Mean, on a device alone */
    DBT_BINARY_KINDS
} dbt_binary_kind;

/* n elements; a and b advance by their steps (0 or 1). y may be the memory of a. */
typedef void (*dbt_binary_fn)(const void *a, const void *b, void *y, int64_t n, int64_t a_step,
                              int64_t b_step);
/* The kernel for a storage type, or NULL where there is none (binary_cpu.c). */
dbt_binary_fn dbt_binary_kernel(dbt_binary_kind kind, dibit_type type);
/* y = kernel(a, b), broadcast to y's shape. */
dibit_status dbt_binary_run(dbt_binary_kind kind, const dibit_tensor *a, const dibit_tensor *b,
                            dibit_tensor *y, const dbt_cpu_call *call);

/* Scalar operations of one element, for the split into tasks. */
int64_t dbt_binary_cost(dbt_binary_kind kind);

/* ---- On a device (binary_gpu.c) ---- */

typedef struct dbt_gpu_operand {
    const dibit_tensor *t;
    dbt_hal_buffer *buffer;
} dbt_gpu_operand;

/* Records y = f(a, b), broadcast to y's shape; n is ADD_SHARE's. */
dibit_status dbt_binary_record(const dbt_gpu_call *call, dbt_binary_kind kind, dbt_gpu_operand a,
                               dbt_gpu_operand b, dbt_gpu_operand y, float n);
/* The same for inputs 0 and 1 and output 0. */
dibit_status dbt_binary_encode(const dbt_gpu_call *call, dbt_binary_kind kind);
/* Why there is no kernel for a type, or NULL. */
const char *dbt_binary_refuses(dbt_binary_kind kind, dibit_type type);

/* ---- Host values (host_values.c): contents of integer outputs from contents of inputs ---- */

/* f(a, b); DBT_DIM_NONE where it cannot be expressed. */
dbt_dim dbt_binary_dim(dbt_dims *dims, dbt_binary_kind kind, dbt_dim a, dbt_dim b);
/* Whether the host value of an elementwise op on this type is a dim: int32 and int64 (others wrap too
 * soon), bool where the result is one. */
bool dbt_host_type(dibit_type type);
/* Contents of output 0 = kind applied over inputs 0 to n-1, broadcast; nothing when one is unknown.
 * Output 0's type and shape must be set. */
dibit_status dbt_binary_contents(const dbt_infer *infer, dbt_binary_kind kind);
/* The contents of `value` at the element that broadcasting to `shape` puts at `at`. */
dbt_dim dbt_contents_at(const dbt_infer *infer, const dbt_value *value, const dbt_shape *shape,
                        int64_t at);

#endif

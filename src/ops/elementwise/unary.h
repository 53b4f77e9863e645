/* The unary kernels by kind: unary.c chooses, unary_cpu.c computes. */
#ifndef DBT_OPS_ELEMENTWISE_UNARY_H
#define DBT_OPS_ELEMENTWISE_UNARY_H

#include "ops/elementwise/elementwise.h"

typedef struct dbt_unary_attrs {
    float alpha, beta;
    int64_t detect_negative, detect_positive;
    const char *approximate;
} dbt_unary_attrs;

/* X(KIND, cost, y_ulps, x_error, error, y): y is the formula in x, with the attributes in p. The
 * error is y_ulps * u * |y| + x_error * u * |x| + error * u, u = 2^-24. */
#define DBT_UNARY_FLOATS(X)                                                                        \
    X(ABS, 1, 0, 0, 0, fabsf(x))                                                                   \
    X(NEG, 1, 0, 0, 0, -x)                                                                         \
    X(SIGN, 1, 0, 0, 0, x > 0 ? 1.0f : x < 0 ? -1.0f : x)                                          \
    X(FLOOR, 1, 0, 0, 0, floorf(x))                                                                \
    X(CEIL, 1, 0, 0, 0, ceilf(x))                                                                  \
    X(ROUND, 1, 0, 0, 0, rintf(x))                                                                 \
    X(SQRT, 4, 1, 0, 0, sqrtf(x))                                                                  \
    X(RECIPROCAL, 2, 1, 0, 0, 1.0f / x)                                                            \
    X(EXP, 6, 4, 0, 0, dbt_expf(x))                                                                \
    X(LOG, 16, 4, 0, 0, logf(x))                                                                   \
    X(SIN, 16, 4, 0, 0, sinf(x))                                                                   \
    X(COS, 16, 4, 0, 0, cosf(x))                                                                   \
    X(TAN, 32, 4, 0, 0, tanf(x))                                                                   \
    X(ASIN, 16, 4, 0, 0, asinf(x))                                                                 \
    X(ACOS, 16, 4, 0, 0, acosf(x))                                                                 \
    X(ATAN, 16, 4, 0, 0, atanf(x))                                                                 \
    X(SINH, 32, 8, 0, 0, sinhf(x))                                                                 \
    X(COSH, 32, 8, 0, 0, coshf(x))                                                                 \
    X(TANH, 8, 4, 0, 0, dbt_tanhf(x))                                                              \
    X(ASINH, 32, 8, 0, 0, asinhf(x))                                                               \
    X(ACOSH, 32, 8, 0, 0, acoshf(x))                                                               \
    X(ATANH, 32, 8, 0, 0, atanhf(x))                                                               \
    X(SIGMOID, 8, 8, 0, 0, dbt_sigmoidf(x))                                                        \
    X(HARD_SIGMOID, 1, 4, 2 * fabsf(p->alpha), fabsf(p->beta), clamp01(p->alpha * x + p->beta))    \
    X(HARD_SWISH, 2, 4, 4, 0, x *clamp01(x * (1.0f / 6.0f) + 0.5f))                                \
    X(RELU, 1, 0, 0, 0, x < 0 ? 0.0f : x)                                                          \
    X(LEAKY_RELU, 1, 1, 0, 0, x < 0 ? p->alpha * x : x)                                            \
    X(THRESHOLDED_RELU, 1, 0, 0, 0, x > p->alpha ? x : 0.0f)                                       \
    X(ELU, 16, 8, 0, 0, x < 0 ? p->alpha * expm1f(x) : x)                                          \
    X(SELU, 16, 8, 0, 0, p->beta *(x < 0 ? p->alpha * expm1f(x) : x))                              \
    X(CELU, 16, 8, 1, 0, x < 0 ? p->alpha * expm1f(x / p->alpha) : x)                              \
    X(SOFTPLUS, 32, 8, 0, 0, (x > 0 ? x : 0.0f) + log1pf(dbt_expf(-fabsf(x))))                     \
    X(SOFTSIGN, 2, 4, 0, 0, x / (1.0f + fabsf(x)))                                                 \
    X(MISH, 12, 12, 0, 0, mish(x))                                                                 \
    X(SWISH, 8, 12, 1, 0, x *dbt_sigmoidf(p->alpha *x))                                            \
    X(ERF, 12, 4, 0, 0, dbt_erff(x))                                                               \
    X(GELU, 12, 8, 4, 0, dbt_gelu(x))                                                              \
    X(FAST_GELU, 12, 8, 8, 0, dbt_fast_gelu(x))

typedef enum dbt_unary_kind {
#define DBT_UNARY_ENUM(kind, ...) DBT_UNARY_##kind,
    DBT_UNARY_FLOATS(DBT_UNARY_ENUM)
#undef DBT_UNARY_ENUM
        DBT_UNARY_IS_NAN, /* float to bool */
    DBT_UNARY_IS_INF,
    DBT_UNARY_NOT,         /* bool */
    DBT_UNARY_BITWISE_NOT, /* integers */
    DBT_UNARY_CLIP,        /* from here on a device alone has kernels: Clip by attributes, */
    DBT_UNARY_SQUARE,      /* and Pow by 2, 3, -1/2 */
    DBT_UNARY_CUBE,
    DBT_UNARY_INVERSE_SQRT,
    DBT_UNARY_KINDS
} dbt_unary_kind;

/* What a node of a unary op computes: Gelu has two forms. */
dbt_unary_kind dbt_unary_actual_kind(const dbt_node *node);

typedef void (*dbt_unary_fn)(const dbt_unary_attrs *p, const void *x, void *y, int64_t n);
/* The kernel for a storage type, or NULL where there is none; and the fastest one. */
dbt_unary_fn dbt_unary_kernel(dbt_unary_kind kind, dibit_type type);
dbt_unary_fn dbt_unary_choose(dbt_unary_kind kind, dibit_type type, uint64_t isa);
/* Those of floats by kind, NULL where there is none: plain, and compiled for an instruction set. */
extern const dbt_unary_fn dbt_unary_floats[DBT_UNARY_KINDS];
extern const dbt_unary_fn dbt_unary_floats_avx2[DBT_UNARY_KINDS];
extern const dbt_unary_fn dbt_unary_floats_avx512[DBT_UNARY_KINDS];
/* y = f(x) of the same shape, in parallel. attrs are borrowed. */
dibit_status dbt_unary_run(dbt_unary_kind kind, const dbt_unary_attrs *attrs,
                           const dbt_cpu_call *call);
/* The bound of a float kind at x with the result y. */
float dbt_unary_bound(dbt_unary_kind kind, const dbt_unary_attrs *p, float x, float y);

/* ---- On a device (unary_gpu.c) ---- */

/* Records y = f(x) for input 0 and output 0; attrs may be NULL where the kind needs none. */
dibit_status dbt_unary_encode(const dbt_gpu_call *call, dbt_unary_kind kind,
                              const dbt_unary_attrs *attrs);
/* Why there is no kernel for a type, or NULL. */
const char *dbt_unary_refuses(dbt_unary_kind kind, dibit_type type);
/* As dbt_unary_bound. */
float dbt_unary_gpu_bound(dbt_unary_kind kind, const dbt_unary_attrs *p, float x, float y);

#endif

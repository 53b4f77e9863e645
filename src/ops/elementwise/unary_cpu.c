/* The kernels of unary elementwise ops: a loop per op, over floats, and per type where integers have
 * the op too. */
#include "dibit/dibit.h"
#define DBT_UNARY_TABLE dbt_unary_floats
#include "ops/elementwise/unary_tmpl.h"

#define KERNEL(name, T, R, expression)                                                             \
    static void name(const dbt_unary_attrs *p, const void *x_, void *y_, int64_t n) {              \
        (void)p;                                                                                   \
        const T *const xs = x_;                                                                    \
        R *const ys = y_;                                                                          \
        for (int64_t i = 0; i < n; i++) {                                                          \
            const T x = xs[i];                                                                     \
            ys[i] = (R)(expression);                                                               \
        }                                                                                          \
    }
KERNEL(float_IS_NAN, float, uint8_t, x != x)
KERNEL(float_IS_INF, float, uint8_t,
       (x == INFINITY && p->detect_positive) || (x == -INFINITY && p->detect_negative))
KERNEL(bool_NOT, uint8_t, uint8_t, !x)

#define SIGNED_KERNELS(T, W)                                                                       \
    KERNEL(T##_ABS, T, T, x < 0 ? (T)(0 - (W)x) : x)                                               \
    KERNEL(T##_NEG, T, T, 0 - (W)x)                                                                \
    KERNEL(T##_SIGN, T, T, (x > 0) - (x < 0))                                                      \
    KERNEL(T##_RELU, T, T, x > 0 ? x : 0)                                                          \
    KERNEL(T##_BITWISE_NOT, T, T, ~x)
#define UNSIGNED_KERNELS(T)                                                                        \
    KERNEL(T##_SAME, T, T, x)                                                                      \
    KERNEL(T##_SIGN, T, T, x > 0)                                                                  \
    KERNEL(T##_BITWISE_NOT, T, T, ~x)
SIGNED_KERNELS(int8_t, uint32_t)
SIGNED_KERNELS(int16_t, uint32_t)
SIGNED_KERNELS(int32_t, uint32_t)
SIGNED_KERNELS(int64_t, uint64_t)
UNSIGNED_KERNELS(uint8_t)
UNSIGNED_KERNELS(uint16_t)
UNSIGNED_KERNELS(uint32_t)
UNSIGNED_KERNELS(uint64_t)

#define SIGNED_ROW(T)                                                                              \
    {[DBT_UNARY_ABS] = T##_ABS,                                                                    \
     [DBT_UNARY_NEG] = T##_NEG,                                                                    \
     [DBT_UNARY_SIGN] = T##_SIGN,                                                                  \
     [DBT_UNARY_RELU] = T##_RELU,                                                                  \
     [DBT_UNARY_BITWISE_NOT] = T##_BITWISE_NOT}
#define UNSIGNED_ROW(T)                                                                            \
    {[DBT_UNARY_ABS] = T##_SAME,                                                                   \
     [DBT_UNARY_SIGN] = T##_SIGN,                                                                  \
     [DBT_UNARY_RELU] = T##_SAME,                                                                  \
     [DBT_UNARY_BITWISE_NOT] = T##_BITWISE_NOT}
static const dbt_unary_fn integer_kernels[8][DBT_UNARY_KINDS] = {
    SIGNED_ROW(int8_t),    SIGNED_ROW(int16_t),    SIGNED_ROW(int32_t),    SIGNED_ROW(int64_t),
    UNSIGNED_ROW(uint8_t), UNSIGNED_ROW(uint16_t), UNSIGNED_ROW(uint32_t), UNSIGNED_ROW(uint64_t),
};

dbt_unary_fn dbt_unary_kernel(dbt_unary_kind kind, dibit_type type) {
    static const dibit_type integers[8] = {DIBIT_TYPE_INT8,   DIBIT_TYPE_INT16, DIBIT_TYPE_INT32,
                                           DIBIT_TYPE_INT64,  DIBIT_TYPE_UINT8, DIBIT_TYPE_UINT16,
                                           DIBIT_TYPE_UINT32, DIBIT_TYPE_UINT64};
    if (type == DIBIT_TYPE_FLOAT && kind == DBT_UNARY_IS_NAN) return float_IS_NAN;
    if (type == DIBIT_TYPE_FLOAT && kind == DBT_UNARY_IS_INF) return float_IS_INF;
    if (type == DIBIT_TYPE_FLOAT) return dbt_unary_floats[kind];
    if (type == DIBIT_TYPE_BOOL) return kind == DBT_UNARY_NOT ? bool_NOT : NULL;
    for (int t = 0; t < 8; t++) {
        if (type == integers[t]) return integer_kernels[t][kind];
    }
    return NULL;
}

dbt_unary_fn dbt_unary_choose(dbt_unary_kind kind, dibit_type type, uint64_t isa) {
    dbt_unary_fn fn = NULL;
#if DBT_X86_64
    if (type == DIBIT_TYPE_FLOAT && isa & DIBIT_ISA_AVX2) {
        fn = (isa & DIBIT_ISA_AVX512 ? dbt_unary_floats_avx512 : dbt_unary_floats_avx2)[kind];
    }
#endif
    (void)isa;
    return fn ? fn : dbt_unary_kernel(kind, type);
}

static int64_t cost_of(dbt_unary_kind kind) {
    static const uint8_t costs[DBT_UNARY_KINDS] = {
#define COST(kind, cost, ...) [DBT_UNARY_##kind] = (cost),
        DBT_UNARY_FLOATS(COST)
#undef COST
    };
    return costs[kind] ? costs[kind] : 1;
}

float dbt_unary_bound(dbt_unary_kind kind, const dbt_unary_attrs *p, float x, float y) {
    const float u = 0x1p-24f;
    switch (kind) {
#define BOUND(kind, cost, y_ulps, x_error, error, formula)                                         \
    case DBT_UNARY_##kind:                                                                         \
        return u * ((float)(y_ulps) * fabsf(y) + (float)(x_error) * fabsf(x) + (float)(error)) +   \
               ((y_ulps) ? 0x1p-149f : 0.0f);
        DBT_UNARY_FLOATS(BOUND)
#undef BOUND
    default: return 0;
    }
}

typedef struct unary_call {
    dbt_unary_fn fn;
    const dbt_unary_attrs *attrs;
    const char *x;
    char *y;
    int64_t n, n_tasks, x_bytes, y_bytes;
} unary_call;

static void task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const unary_call *const c = ctx;
    const int64_t begin = dbt_task_begin(c->n, c->n_tasks, i);
    const int64_t end = dbt_task_begin(c->n, c->n_tasks, i + 1);
    c->fn(c->attrs, c->x + begin * c->x_bytes, c->y + begin * c->y_bytes, end - begin);
}

dibit_status dbt_unary_run(dbt_unary_kind kind, const dbt_unary_attrs *attrs,
                           const dbt_cpu_call *call) {
    const dibit_tensor *const x = call->in[0], *const y = call->out[0];
    unary_call c = {.fn = dbt_unary_choose(kind, x->type, call->options->isa),
                    .attrs = attrs,
                    .x = x->data,
                    .y = y->data,
                    .n = dbt_tensor_count(x),
                    .x_bytes = dibit_type_bits(x->type) / 8,
                    .y_bytes = dibit_type_bits(y->type) / 8};
    c.n_tasks = dbt_task_count(c.n, cost_of(kind));
    dbt_parallel_for(call->pool, c.n_tasks, task, &c);
    return DIBIT_OK;
}

/* The kernels of binary elementwise ops: one loop per op and type, written so that compilers
 * vectorise it, and the broadcast around it. */
#include "base/math.h"
#include "ops/elementwise/elementwise.h"
#include "ops/elementwise/formulas.h"

/* Three loops, so that the steps are constants: both advance, only a, only b. */
#define KERNEL(name, T, R, expression)                                                             \
    static void name(const void *a_, const void *b_, void *y_, int64_t n, int64_t a_step,          \
                     int64_t b_step) {                                                             \
        const T *const av = a_, *const bv = b_;                                                    \
        R *const y = y_;                                                                           \
        if (a_step && b_step) {                                                                    \
            for (int64_t i = 0; i < n; i++) {                                                      \
                const T a = av[i], b = bv[i];                                                      \
                y[i] = (R)(expression);                                                            \
            }                                                                                      \
        } else if (a_step) {                                                                       \
            const T b = *bv;                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                      \
                const T a = av[i];                                                                 \
                y[i] = (R)(expression);                                                            \
            }                                                                                      \
        } else {                                                                                   \
            const T a = *av;                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                      \
                const T b = bv[b_step ? i : 0];                                                    \
                y[i] = (R)(expression);                                                            \
            }                                                                                      \
        }                                                                                          \
    }

/* W is an unsigned type at least as wide as int: arithmetic in it wraps. */
#define INTEGER_KERNELS(s, T, W)                                                                   \
    KERNEL(add_##s, T, T, (W)a + (W)b)                                                             \
    KERNEL(sub_##s, T, T, (W)a - (W)b)                                                             \
    KERNEL(mul_##s, T, T, (W)a *(W)b)                                                              \
    KERNEL(max_##s, T, T, a > b ? a : b)                                                           \
    KERNEL(min_##s, T, T, a < b ? a : b)                                                           \
    COMPARE_KERNELS(s, T)
#define SIGNED_KERNELS(s, T, W)                                                                    \
    INTEGER_KERNELS(s, T, W)                                                                       \
    KERNEL(prelu_##s, T, T, a < 0 ? (T)((W)a * (W)b) : a)                                          \
    KERNEL(div_##s, T, T, b == 0 ? 0 : b == -1 ? (T)(0 - (W)a) : (T)(a / b))                       \
    KERNEL(fmod_##s, T, T, b == 0 || b == -1 ? 0 : a % b)                                          \
    KERNEL(mod_##s, T, T, b == 0 || b == -1 ? 0 : a % b + ((a % b != 0 && (a ^ b) < 0) ? b : 0))
#define UNSIGNED_KERNELS(s, T, W)                                                                  \
    INTEGER_KERNELS(s, T, W)                                                                       \
    KERNEL(prelu_##s, T, T, ((void)b, a))                                                          \
    KERNEL(div_##s, T, T, b == 0 ? 0 : a / b)                                                      \
    KERNEL(mod_##s, T, T, b == 0 ? 0 : a % b)                                                      \
    KERNEL(bit_and_##s, T, T, a &b)                                                                \
    KERNEL(bit_or_##s, T, T, a | b)                                                                \
    KERNEL(bit_xor_##s, T, T, a ^ b)                                                               \
    KERNEL(shift_left_##s, T, T, b < 8 * sizeof(T) ? (W)a << (b % (8 * sizeof(T))) : 0)            \
    KERNEL(shift_right_##s, T, T, b < 8 * sizeof(T) ? (W)a >> (b % (8 * sizeof(T))) : 0)
#define COMPARE_KERNELS(s, T)                                                                      \
    KERNEL(equal_##s, T, uint8_t, a == b)                                                          \
    KERNEL(less_##s, T, uint8_t, a < b)                                                            \
    KERNEL(less_equal_##s, T, uint8_t, a <= b)                                                     \
    KERNEL(greater_##s, T, uint8_t, a > b)                                                         \
    KERNEL(greater_equal_##s, T, uint8_t, a >= b)

SIGNED_KERNELS(i8, int8_t, uint32_t)
SIGNED_KERNELS(i16, int16_t, uint32_t)
SIGNED_KERNELS(i32, int32_t, uint32_t)
SIGNED_KERNELS(i64, int64_t, uint64_t)
UNSIGNED_KERNELS(u8, uint8_t, uint32_t)
UNSIGNED_KERNELS(u16, uint16_t, uint32_t)
UNSIGNED_KERNELS(u32, uint32_t, uint32_t)
UNSIGNED_KERNELS(u64, uint64_t, uint64_t)

KERNEL(equal_bool, uint8_t, uint8_t, !a == !b)
KERNEL(and_bool, uint8_t, uint8_t, a &&b)
KERNEL(or_bool, uint8_t, uint8_t, a || b)
KERNEL(xor_bool, uint8_t, uint8_t, !a != !b)

/* The remainder with the sign of the divisor, as Python has it. */
static float floor_mod(float a, float b) {
    const float r = fmodf(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

COMPARE_KERNELS(f32, float)
KERNEL(add_f32, float, float, a + b)
KERNEL(sub_f32, float, float, a - b)
KERNEL(mul_f32, float, float, a *b)
KERNEL(div_f32, float, float, a / b)
KERNEL(mod_f32, float, float, floor_mod(a, b))
KERNEL(fmod_f32, float, float, fmodf(a, b))
KERNEL(max_f32, float, float, a > b || a != a ? a : b)
KERNEL(min_f32, float, float, a < b || a != a ? a : b)
KERNEL(prelu_f32, float, float, a < 0 ? a * b : a)
KERNEL(pow_general, float, float, powf(a, b))
KERNEL(bias_gelu_f32, float, float, dbt_gelu(a + b))
KERNEL(fast_gelu_f32, float, float, dbt_fast_gelu(a + b))

/* Squares and cubes stand in every decomposed norm and gelu. */
static void pow_f32(const void *a, const void *b, void *y, int64_t n, int64_t a_step,
                    int64_t b_step) {
    const float *const x = a, exponent = *(const float *)b;
    float *const out = y;
    if (a_step && !b_step && exponent == 2.0f) {
        for (int64_t i = 0; i < n; i++) out[i] = x[i] * x[i];
    } else if (a_step && !b_step && exponent == 3.0f) {
        for (int64_t i = 0; i < n; i++) out[i] = x[i] * x[i] * x[i];
    } else {
        pow_general(a, b, y, n, a_step, b_step);
    }
}

enum { F32, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, TYPES };

static int type_index(dibit_type type) {
    switch (type) {
    case DIBIT_TYPE_FLOAT: return F32;
    case DIBIT_TYPE_INT8: return I8;
    case DIBIT_TYPE_INT16: return I16;
    case DIBIT_TYPE_INT32: return I32;
    case DIBIT_TYPE_INT64: return I64;
    case DIBIT_TYPE_UINT8: return U8;
    case DIBIT_TYPE_UINT16: return U16;
    case DIBIT_TYPE_UINT32: return U32;
    case DIBIT_TYPE_UINT64: return U64;
    case DIBIT_TYPE_BOOL: return BOOL;
    default: return TYPES;
    }
}

#define ROW_UNSIGNED(op) [U8] = op##_u8, [U16] = op##_u16, [U32] = op##_u32, [U64] = op##_u64
#define ROW_SIGNED(op) [I8] = op##_i8, [I16] = op##_i16, [I32] = op##_i32, [I64] = op##_i64
#define ROW_NUMBER(op) [F32] = op##_f32, ROW_SIGNED(op), ROW_UNSIGNED(op)
/* Bits do not care for the sign. */
#define ROW_BITS(op)                                                                               \
    [I8] = op##_u8, [I16] = op##_u16, [I32] = op##_u32, [I64] = op##_u64, ROW_UNSIGNED(op)

static const dbt_binary_fn kernels[DBT_BINARY_KINDS][TYPES] = {
    [DBT_BINARY_ADD] = {ROW_NUMBER(add)},
    [DBT_BINARY_SUB] = {ROW_NUMBER(sub)},
    [DBT_BINARY_MUL] = {ROW_NUMBER(mul)},
    [DBT_BINARY_DIV] = {ROW_NUMBER(div)},
    [DBT_BINARY_MOD] = {ROW_NUMBER(mod)},
    [DBT_BINARY_FMOD] = {[F32] = fmod_f32, ROW_SIGNED(fmod), ROW_UNSIGNED(mod)},
    [DBT_BINARY_PRELU] = {ROW_NUMBER(prelu)},
    [DBT_BINARY_MAX] = {ROW_NUMBER(max)},
    [DBT_BINARY_MIN] = {ROW_NUMBER(min)},
    [DBT_BINARY_EQUAL] = {ROW_NUMBER(equal), [BOOL] = equal_bool},
    [DBT_BINARY_LESS] = {ROW_NUMBER(less)},
    [DBT_BINARY_LESS_EQUAL] = {ROW_NUMBER(less_equal)},
    [DBT_BINARY_GREATER] = {ROW_NUMBER(greater)},
    [DBT_BINARY_GREATER_EQUAL] = {ROW_NUMBER(greater_equal)},
    [DBT_BINARY_AND] = {[BOOL] = and_bool},
    [DBT_BINARY_OR] = {[BOOL] = or_bool},
    [DBT_BINARY_XOR] = {[BOOL] = xor_bool},
    [DBT_BINARY_BIT_AND] = {ROW_BITS(bit_and)},
    [DBT_BINARY_BIT_OR] = {ROW_BITS(bit_or)},
    [DBT_BINARY_BIT_XOR] = {ROW_BITS(bit_xor)},
    [DBT_BINARY_SHIFT_LEFT] = {ROW_UNSIGNED(shift_left)},
    [DBT_BINARY_SHIFT_RIGHT] = {ROW_UNSIGNED(shift_right)},
    [DBT_BINARY_POW] = {[F32] = pow_f32},
    [DBT_BINARY_BIAS_GELU] = {[F32] = bias_gelu_f32},
    [DBT_BINARY_FAST_GELU] = {[F32] = fast_gelu_f32},
};

dbt_binary_fn dbt_binary_kernel(dbt_binary_kind kind, dibit_type type) {
    const int t = type_index(type);
    return t < TYPES ? kernels[kind][t] : NULL;
}

int64_t dbt_binary_cost(dbt_binary_kind kind) {
    switch (kind) {
    case DBT_BINARY_POW:
    case DBT_BINARY_MOD:
    case DBT_BINARY_FMOD: return 32;
    case DBT_BINARY_BIAS_GELU:
    case DBT_BINARY_FAST_GELU: return 12;
    default: return 1;
    }
}

typedef struct binary_call {
    dbt_binary_fn fn;
    const char *a, *b;
    char *y;
    int64_t in_bytes, out_bytes, a_step, b_step;
} binary_call;

static void binary_run(const void *ctx, const int64_t *in, int64_t out, int64_t n) {
    const binary_call *const c = ctx;
    c->fn(c->a + in[0] * c->in_bytes, c->b + in[1] * c->in_bytes, c->y + out * c->out_bytes, n,
          c->a_step, c->b_step);
}

dibit_status dbt_binary_run(dbt_binary_kind kind, const dibit_tensor *a, const dibit_tensor *b,
                            dibit_tensor *y, const dbt_cpu_call *call) {
    dbt_broadcast plan;
    DBT_TRY(dbt_broadcast_plan(y, (const dibit_tensor *const[]){a, b}, 2, &plan, call->error));
    const binary_call c = {.fn = dbt_binary_kernel(kind, a->type),
                           .a = a->data,
                           .b = b->data,
                           .y = y->data,
                           .in_bytes = dibit_type_bits(a->type) / 8,
                           .out_bytes = dibit_type_bits(y->type) / 8,
                           .a_step = plan.step[0],
                           .b_step = plan.step[1]};
    dbt_broadcast_for(&plan, call->pool, dbt_binary_cost(kind), binary_run, &c);
    return DIBIT_OK;
}

/* The loops of unary ops over floats, as a table by kind, in plain C that compilers turn into SIMD code.
 * Included once for each instruction set, with the table's name as DBT_UNARY_TABLE. Nothing is contracted to
 * fused products, so that all of them give the same bits. */
#include "ops/elementwise/formulas.h"
#include "ops/elementwise/unary.h"

static inline float clamp01(float x) {
    x = x < 0.0f ? 0.0f : x;
    return x > 1.0f ? 1.0f : x;
}

/* x tanh(log(1 + e^x)) = x e (e + 2) / (e (e + 2) + 2); from 20 on the fraction is 1. */
static inline float mish(float x) {
    const float e = dbt_expf(x > 20.0f ? 20.0f : x), t = e * (e + 2.0f);
    return x * (t / (t + 2.0f));
}

#define FLOAT_KERNEL(kind, cost, y_ulps, x_error, error, formula)                                  \
    static void float_##kind(const dbt_unary_attrs *p, const void *x_, void *y_, int64_t n) {      \
        (void)p;                                                                                   \
        const float *const xs = x_;                                                                \
        float *const ys = y_;                                                                      \
        for (int64_t i = 0; i < n; i++) {                                                          \
            const float x = xs[i];                                                                 \
            ys[i] = (formula);                                                                     \
        }                                                                                          \
    }
DBT_UNARY_FLOATS(FLOAT_KERNEL)
#undef FLOAT_KERNEL

const dbt_unary_fn DBT_UNARY_TABLE[DBT_UNARY_KINDS] = {
#define FLOAT_ROW(kind, ...) [DBT_UNARY_##kind] = float_##kind,
    DBT_UNARY_FLOATS(FLOAT_ROW)
#undef FLOAT_ROW
};

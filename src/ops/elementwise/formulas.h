/* Formulas that unary ops and their fused forms with a bias share. */
#ifndef DBT_OPS_ELEMENTWISE_FORMULAS_H
#define DBT_OPS_ELEMENTWISE_FORMULAS_H

#include "base/math.h"

/* x * Phi(x), Phi the normal distribution. */
static inline float dbt_gelu(float x) {
    return 0.5f * x * (1.0f + dbt_erff(x * 0.70710678118654752f));
}

/* Gelu with tanh in erf's place: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). */
static inline float dbt_fast_gelu(float x) {
    const float t = x * (0.79788456080286536f + 0.035677408136300125f * x * x);
    return 0.5f * x * (1.0f + dbt_tanhf(t));
}

#endif

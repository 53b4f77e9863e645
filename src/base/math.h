/* Elementary functions in float that compilers turn into SIMD code: no branches, no tables, no errno.
 * Errors are at most 2 ulp of float (tests/test_math.c). And sums and maxima in a fixed order. */
#ifndef DBT_BASE_MATH_H
#define DBT_BASE_MATH_H

#include <math.h>
#include <stdint.h>

#include "base/half.h"

/* e^x = 2^n * e^r with |r| <= ln(2)/2. The polynomial and the split of ln(2) are those of Cephes'
 * expf (Moshier, Methods and Programs for Mathematical Functions). */
static inline float dbt_expf(float x) {
    /* Beyond these the result is 0 or infinity; the comparisons let NaN pass. */
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const float magic = 0x1.8p23f; /* adding it rounds to an integer, kept in the low bits */
    const float shifted = x * 1.44269504088896341f + magic;
    const float n = shifted - magic;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    /* 2^n in two factors, so that neither over- nor underflows: n is -150 to 128. */
    const uint32_t biased = dbt_float_to_bits(shifted) - dbt_float_to_bits(magic) + 256u;
    const uint32_t half = biased >> 1;
    return p * dbt_bits_to_float((half - 1u) << 23) * dbt_bits_to_float((biased - half - 1u) << 23);
}

/* 1 / (1 + e^-x), without overflow on either side. */
static inline float dbt_sigmoidf(float x) {
    const float e = dbt_expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

/* Below 0.625 Cephes' tanhf polynomial, above 1 - 2 / (e^2x + 1). */
static inline float dbt_tanhf(float x) {
    const float z = x * x, a = fabsf(x);
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const float near = p * z * x + x;
    const float far = 1.0f - 2.0f / (dbt_expf(2.0f * a) + 1.0f);
    return a < 0.625f ? near : copysignf(far, x);
}

/* erf(x) = x + x P(x^2) below 0.9, 1 - e^-Q(|x|) above; it is 1 from 4 on. P and Q are weighted
 * minimax fits (Lawson's algorithm; largest errors 1.4e-8 and 1.9e-9, relative to erf). */
static inline float dbt_erff(float x) {
    const float z = x * x;
    float a = fabsf(x);
    a = a > 4.0f ? 4.0f : a;
    float p = -6.03445922024548e-4f;
    p = p * z + 5.001490470021963e-3f;
    p = p * z - 2.6772094890475273e-2f;
    p = p * z + 1.128196120262146e-1f;
    p = p * z - 3.761250674724579e-1f;
    p = p * z + 1.2837915122509003e-1f;
    float q = -2.0045031851623207e-4f;
    q = q * a + 3.0870551709085703e-3f;
    q = q * a - 2.2399812936782837e-2f;
    q = q * a + 1.0428616404533386e-1f;
    q = q * a + 6.367831826210022e-1f;
    q = q * a + 1.127909541130066f;
    q = q * a + 1.3983412645757198e-4f;
    return a < 0.9f ? x + x * p : copysignf(1.0f - dbt_expf(-q), x);
}

enum { DBT_LANES = 16 };

/* Sums in DBT_LANES partial sums: the order is part of the contract, on every machine. */
static inline float dbt_sum(const float *x, int64_t n) {
    float lanes[DBT_LANES] = {0};
    int64_t i = 0;
    for (; i + DBT_LANES <= n; i += DBT_LANES) {
        for (int k = 0; k < DBT_LANES; k++) lanes[k] += x[i + k];
    }
    for (int k = 0; i + k < n; k++) lanes[k] += x[i + k];
    for (int step = DBT_LANES / 2; step > 0; step /= 2) {
        for (int k = 0; k < step; k++) lanes[k] += lanes[k + step];
    }
    return lanes[0];
}

/* The largest of n >= 1 elements; NaN only if x[0] is or if nothing else is larger: callers that
 * care find NaN in what they compute from it. */
static inline float dbt_max(const float *x, int64_t n) {
    float lanes[DBT_LANES];
    for (int k = 0; k < DBT_LANES; k++) lanes[k] = x[0];
    int64_t i = 0;
    for (; i + DBT_LANES <= n; i += DBT_LANES) {
        for (int k = 0; k < DBT_LANES; k++) lanes[k] = lanes[k] < x[i + k] ? x[i + k] : lanes[k];
    }
    for (int k = 0; i + k < n; k++) lanes[k] = lanes[k] < x[i + k] ? x[i + k] : lanes[k];
    for (int step = DBT_LANES / 2; step > 0; step /= 2) {
        for (int k = 0; k < step; k++) {
            lanes[k] = lanes[k] < lanes[k + step] ? lanes[k + step] : lanes[k];
        }
    }
    return lanes[0];
}

#endif

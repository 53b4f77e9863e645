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

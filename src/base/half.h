/* float16 (IEEE 754 binary16) and bfloat16 conversions, to nearest, ties to even. */
#ifndef DBT_BASE_HALF_H
#define DBT_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float dbt_bits_to_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint32_t dbt_float_to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Both without branches, so that compilers make SIMD code of loops over them. */
static inline float dbt_half_to_float(uint16_t h) {
    const int32_t rest = h & 0x7fff;
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t small = dbt_float_to_bits((float)rest * 0x1p-24f); /* subnormals, exact */
    const uint32_t normal = ((uint32_t)rest << 13) + (112u << 23);
    const uint32_t high = (uint32_t)rest << 13 | 0x7f800000u; /* infinity, NaN */
    const uint32_t bits = rest < 0x0400 ? small : rest < 0x7c00 ? normal : high;
    return dbt_bits_to_float(sign | bits);
}

static inline uint16_t dbt_float_to_half(float f) {
    const uint32_t bits = dbt_float_to_bits(f);
    const int32_t rest = (int32_t)(bits & 0x7fffffffu);
    /* Below 2^-14: adding 2^-1's ulp grid (2^-24) lets the FPU round to nearest even. */
    const float grid = dbt_bits_to_float((uint32_t)rest) + 0.5f;
    const uint32_t small = dbt_float_to_bits(grid) - 0x3f000000u;
    const uint32_t normal =
        ((uint32_t)rest - (112u << 23) + 0xfffu + ((uint32_t)rest >> 13 & 1u)) >> 13;
    const uint32_t nan = 0x7e00u | ((uint32_t)rest >> 13 & 0x1ffu);
    uint32_t half = rest < 0x38800000 ? small : normal;
    half = rest < 0x477ff000 ? half : 0x7c00u; /* rounds to 65536 or more */
    half = rest > 0x7f800000 ? nan : half;
    return (uint16_t)((bits >> 16 & 0x8000u) | half);
}

static inline float dbt_bfloat16_to_float(uint16_t b) {
    return dbt_bits_to_float((uint32_t)b << 16);
}

static inline uint16_t dbt_float_to_bfloat16(float f) {
    const uint32_t bits = dbt_float_to_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#endif

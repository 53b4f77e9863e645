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

static inline float dbt_half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) return dbt_bits_to_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest >= 0x0400u) return dbt_bits_to_float(sign | ((rest << 13) + (112u << 23)));
    const float f = (float)rest * 0x1p-24f; /* zero and subnormals, exact */
    return dbt_bits_to_float(sign | dbt_float_to_bits(f));
}

static inline uint16_t dbt_float_to_half(float f) {
    const uint32_t bits = dbt_float_to_bits(f);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    const uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (rest >> 13 & 0x1ffu)); /* NaN */
    if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to 65536 or more */
    if (rest >= 0x38800000u) {
        const uint32_t odd = rest >> 13 & 1u;
        return (uint16_t)(sign | ((rest - (112u << 23) + 0xfffu + odd) >> 13));
    }
    /* Below 2^-14: adding 2^-1's ulp grid (2^-24) lets the FPU round to nearest even. */
    const float rounded = dbt_bits_to_float(rest) + 0.5f;
    return (uint16_t)(sign | (dbt_float_to_bits(rounded) - 0x3f000000u));
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

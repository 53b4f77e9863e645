/* Elements of packed tensors that lie in a file: any address, little-endian, low bits first. */
#ifndef DBT_BASE_PACKED_H
#define DBT_BASE_PACKED_H

#include "base/half.h"
#include "dibit/dibit.h"

/* Element i of an array of FLOAT, FLOAT16, BFLOAT16 or DOUBLE. */
static inline float dbt_float_at(const void *data, dibit_type type, int64_t i) {
    if (type == DIBIT_TYPE_FLOAT) {
        float f;
        memcpy(&f, (const uint8_t *)data + i * 4, 4);
        return f;
    }
    if (type == DIBIT_TYPE_DOUBLE) {
        double d;
        memcpy(&d, (const uint8_t *)data + i * 8, 8);
        return (float)d;
    }
    uint16_t h;
    memcpy(&h, (const uint8_t *)data + i * 2, 2);
    return type == DIBIT_TYPE_FLOAT16 ? dbt_half_to_float(h) : dbt_bfloat16_to_float(h);
}

/* Code i of a stream of codes of 1 to 8 bits. */
static inline uint32_t dbt_code_at(const uint8_t *stream, uint32_t bits, int64_t i) {
    const int64_t bit = i * bits;
    const uint32_t shift = (uint32_t)(bit & 7);
    uint32_t v = (uint32_t)stream[bit >> 3] >> shift;
    if (shift + bits > 8) v |= (uint32_t)stream[(bit >> 3) + 1] << (8 - shift);
    return v & ((1u << bits) - 1);
}

#endif

/* Integer types and scale layouts of the quantization ops. */
#include "ops/quantize/quantize.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/packed.h"

void dbt_quantize_range(dibit_type type, int32_t *low, int32_t *high) {
    const uint32_t bits = dibit_type_bits(type);
    const bool is_signed = dbt_type_in(type, DBT_TYPES_SIGNED | DBT_TYPE_BIT(DIBIT_TYPE_INT4) |
                                                 DBT_TYPE_BIT(DIBIT_TYPE_INT2));
    *low = is_signed ? (int32_t)(-(1ll << (bits - 1))) : 0;
    *high = (int32_t)((1ll << (is_signed ? bits - 1 : bits)) - 1);
}

int32_t dbt_quantize(float v, float scale, int32_t zero_point, int32_t low, int32_t high) {
    const float rounded = nearbyintf(v / scale) + (float)zero_point;
    if (!(rounded > (float)low)) return low;
    return rounded >= (float)high ? high : (int32_t)rounded;
}

void dbt_quantize_load(const void *data, dibit_type type, int64_t first, int64_t n, int32_t *out) {
    const uint8_t *const bytes = data;
    const uint32_t bits = dibit_type_bits(type);
    int32_t low, high;
    dbt_quantize_range(type, &low, &high);
    switch (bits) {
    case 8:
        for (int64_t i = 0; i < n; i++) out[i] = bytes[first + i];
        break;
    case 16:
        for (int64_t i = 0; i < n; i++) {
            uint16_t v;
            memcpy(&v, bytes + (first + i) * 2, 2);
            out[i] = v;
        }
        break;
    case 32: memcpy(out, bytes + first * 4, (size_t)n * 4); return;
    default:
        for (int64_t i = 0; i < n; i++) out[i] = (int32_t)dbt_code_at(bytes, bits, first + i);
    }
    if (low < 0) { /* flip the sign bit, then take it off */
        for (int64_t i = 0; i < n; i++) out[i] = (out[i] ^ -low) + low;
    }
}

void dbt_quantize_store(const int32_t *v, dibit_type type, int64_t first, int64_t n, void *data) {
    uint8_t *const bytes = data;
    if (dibit_type_bits(type) == 32) {
        memcpy(bytes + first * 4, v, (size_t)n * 4);
    } else if (dibit_type_bits(type) == 16) {
        for (int64_t i = 0; i < n; i++) {
            const uint16_t u = (uint16_t)v[i];
            memcpy(bytes + (first + i) * 2, &u, 2);
        }
    } else {
        for (int64_t i = 0; i < n; i++) bytes[first + i] = (uint8_t)v[i];
    }
}

dibit_status dbt_quantize_layout_of(const dibit_tensor *x, const dibit_tensor *scale, int64_t axis,
                                    int64_t block_size, dibit_error *error,
                                    dbt_quantize_layout *out) {
    const int64_t n_scales = dbt_tensor_count(scale);
    *out = (dbt_quantize_layout){.outer = 1, .axis = 1, .inner = 1, .block = 1};
    if (block_size == 0 && scale->rank <= 1 && n_scales == 1) { /* any axis */
        out->inner = dbt_tensor_count(x);
        return DIBIT_OK;
    }
    DBT_FAIL_IF(axis < -(int64_t)x->rank || axis >= x->rank, error, DIBIT_BAD_INPUT,
                "axis %" PRId64 " is out of range for rank %d", axis, (int)x->rank);
    if (axis < 0) axis += x->rank;
    for (int32_t i = 0; i < x->rank; i++)
        *(i < axis ? &out->outer : i == axis ? &out->axis : &out->inner) *= x->dims[i];
    if (block_size == 0) {
        DBT_FAIL_IF(scale->rank > 1 || n_scales != out->axis, error, DIBIT_BAD_INPUT,
                    "scales must be one value or %" PRId64 ", one for each index of axis %" PRId64
                    ", got %" PRId64,
                    out->axis, axis, n_scales);
        out->s_axis = 1;
        return DIBIT_OK;
    }
    DBT_FAIL_IF(scale->rank != x->rank, error, DIBIT_BAD_INPUT,
                "scales of blocks must have rank %d, got %d", (int)x->rank, (int)scale->rank);
    for (int32_t i = 0; i < x->rank; i++) {
        const int64_t want = i == axis ? (x->dims[i] + block_size - 1) / block_size : x->dims[i];
        DBT_FAIL_IF(scale->dims[i] != want, error, DIBIT_BAD_INPUT,
                    "dim %d of the scales must be %" PRId64 ", got %" PRId64, (int)i, want,
                    scale->dims[i]);
    }
    out->block = block_size;
    out->s_outer = scale->dims[axis] * out->inner;
    out->s_axis = out->inner;
    out->s_inner = 1;
    return DIBIT_OK;
}

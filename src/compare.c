/* Comparing an answer with the expected tensor, element by element: dibit/debug.h says by which bounds. A run with
 * noise is lost that is not finite where the plain one is; when all are, only equality passes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "base/half.h"
#include "dibit/debug.h"

enum { SPREAD_FACTOR = 4, ULPS = 2 };

int64_t dibit_tensor_count(const dibit_tensor *tensor) { return dbt_tensor_count(tensor); }

/* A 2- or 4-bit code; they are packed low bits first. */
static int packed_value(const dibit_tensor *tensor, int64_t i, int bits, bool is_signed) {
    const int per_byte = 8 / bits, mask = (1 << bits) - 1;
    const int code = ((const uint8_t *)tensor->data)[i / per_byte] >> (i % per_byte * bits) & mask;
    return is_signed && code > mask / 2 ? code - mask - 1 : code;
}

/* Calls macro X(type, C type) for the types whose elements are plain C numbers. */
#define PLAIN_TYPES(X)                                                                             \
    X(FLOAT, float)                                                                                \
    X(DOUBLE, double)                                                                              \
    X(INT8, int8_t)                                                                                \
    X(INT16, int16_t)                                                                              \
    X(INT32, int32_t)                                                                              \
    X(INT64, int64_t)                                                                              \
    X(UINT8, uint8_t)                                                                              \
    X(UINT16, uint16_t)                                                                            \
    X(UINT32, uint32_t)                                                                            \
    X(UINT64, uint64_t)                                                                            \
    X(BOOL, uint8_t)

double dibit_tensor_element(const dibit_tensor *tensor, int64_t i) {
    const uint8_t *data = tensor->data;
    switch (tensor->type) {
#define PLAIN_ELEMENT(type, c_type)                                                                \
    case DIBIT_TYPE_##type: {                                                                      \
        c_type value;                                                                              \
        memcpy(&value, data + (size_t)i * sizeof value, sizeof value);                             \
        return (double)value;                                                                      \
    }
        PLAIN_TYPES(PLAIN_ELEMENT)
#undef PLAIN_ELEMENT
    case DIBIT_TYPE_FLOAT16:
    case DIBIT_TYPE_BFLOAT16: {
        uint16_t bits;
        memcpy(&bits, data + (size_t)i * 2, 2);
        return tensor->type == DIBIT_TYPE_FLOAT16 ? (double)dbt_half_to_float(bits)
                                                  : (double)dbt_bfloat16_to_float(bits);
    }
    case DIBIT_TYPE_UINT4: return packed_value(tensor, i, 4, false);
    case DIBIT_TYPE_INT4: return packed_value(tensor, i, 4, true);
    case DIBIT_TYPE_UINT2: return packed_value(tensor, i, 2, false);
    case DIBIT_TYPE_INT2: return packed_value(tensor, i, 2, true);
    default: return data[i]; /* the 8-bit floats: their codes */
    }
}

void dibit_tensor_element_text(const dibit_tensor *tensor, int64_t i, char text[40]) {
    int64_t value;
    if (tensor->type == DIBIT_TYPE_INT64 || tensor->type == DIBIT_TYPE_UINT64) {
        memcpy(&value, (const char *)tensor->data + (size_t)i * 8, 8);
        if (tensor->type == DIBIT_TYPE_INT64)
            snprintf(text, 40, "%" PRId64, value);
        else
            snprintf(text, 40, "%" PRIu64, (uint64_t)value);
    } else {
        snprintf(text, 40, "%.9g", dibit_tensor_element(tensor, i));
    }
}

/* The relative distance of neighbouring numbers; 0 for types that compare exactly. */
static double type_ulp(dibit_type type) {
    switch (type) {
    case DIBIT_TYPE_FLOAT:
    case DIBIT_TYPE_DOUBLE: return 0x1p-23; /* arithmetic is float */
    case DIBIT_TYPE_FLOAT16: return 0x1p-10;
    case DIBIT_TYPE_BFLOAT16: return 0x1p-7;
    default: return 0;
    }
}

static bool same_bits(const dibit_tensor *a, const dibit_tensor *b, int64_t i) {
    if (a->type != DIBIT_TYPE_INT64 && a->type != DIBIT_TYPE_UINT64) {
        return dibit_tensor_element(a, i) == dibit_tensor_element(b, i);
    }
    return memcmp((const char *)a->data + (size_t)i * 8, (const char *)b->data + (size_t)i * 8,
                  8) == 0;
}

static bool same_dims(const dibit_tensor *a, const dibit_tensor *b) {
    bool same = a->type == b->type && a->rank == b->rank;
    for (int32_t i = 0; same && i < a->rank; i++) same = a->dims[i] == b->dims[i];
    return same;
}

bool dibit_tensor_equal(const dibit_tensor *a, const dibit_tensor *b) {
    if (!same_dims(a, b)) return false;
    const int64_t n = dbt_tensor_count(a);
    for (int64_t i = 0; i < n; i++) {
        if (!same_bits(a, b, i)) return false;
    }
    return true;
}

void dibit_tensor_index_text(const dibit_tensor *tensor, int64_t i, char text[160]) {
    int64_t index[DIBIT_MAX_RANK] = {0};
    for (int32_t axis = tensor->rank; axis-- > 0;) {
        if (tensor->dims[axis] <= 0) continue;
        index[axis] = i % tensor->dims[axis];
        i /= tensor->dims[axis];
    }
    size_t used = (size_t)snprintf(text, 160, "[");
    for (int32_t axis = 0; axis < tensor->rank; axis++) {
        used +=
            (size_t)snprintf(text + used, 160 - used, "%s%" PRId64, axis ? "," : "", index[axis]);
    }
    snprintf(text + used, 160 - used, "]");
}

void dibit_comparison_add_noise(dibit_comparison *c, const dibit_tensor *still,
                                const dibit_tensor *noisy) {
    if (type_ulp(still->type) == 0) return;
    bool lost = !same_dims(noisy, still);
    const int64_t n = lost ? 0 : dbt_tensor_count(still);
    for (int64_t i = 0; i < n; i++) {
        const double before = dibit_tensor_element(still, i),
                     moved = dibit_tensor_element(noisy, i);
        const double distance = fabs(moved - before);
        if (distance > c->spread && isfinite(distance)) c->spread = distance;
        lost = lost || (isfinite(before) && !isfinite(moved));
    }
    c->n_noisy++;
    c->n_lost += lost;
}

static void shape_text(const dibit_tensor *tensor, char text[200]) {
    size_t used = (size_t)snprintf(text, 200, "%s[", dibit_type_name(tensor->type));
    for (int32_t i = 0; i < tensor->rank; i++) {
        used +=
            (size_t)snprintf(text + used, 200 - used, "%s%" PRId64, i ? "," : "", tensor->dims[i]);
    }
    snprintf(text + used, 200 - used, "]");
}

static bool same_shape(const dibit_tensor *expected, const dibit_tensor *got, dibit_comparison *c) {
    const bool same = same_dims(expected, got);
    if (!same) {
        char want[200], have[200];
        shape_text(expected, want);
        shape_text(got, have);
        snprintf(c->problem, sizeof c->problem, "got %.80s, expected %.80s", have, want);
    }
    return same;
}

/* What noise says: the same for all elements. */
static double derived_bound(const dibit_tensor *expected, double spread) {
    const double ulp = type_ulp(expected->type);
    if (ulp == 0) return 0;
    double largest = 0;
    for (int64_t i = 0, n = dbt_tensor_count(expected); i < n; i++) {
        const double magnitude = fabs(dibit_tensor_element(expected, i));
        if (isfinite(magnitude) && magnitude > largest) largest = magnitude;
    }
    return SPREAD_FACTOR * spread + ULPS * ulp * largest;
}

void dibit_tensor_compare(const dibit_tensor *expected, const dibit_tensor *got_tensor, double rtol,
                          double atol, dibit_comparison *c) {
    if (!same_shape(expected, got_tensor, c)) return;
    const int64_t n = c->n_elements = dbt_tensor_count(expected);
    const double ulp = type_ulp(expected->type);
    const bool derived = rtol < 0 && atol < 0;
    const double bound = derived ? derived_bound(expected, c->spread) : 0;
    double worst_excess = -INFINITY;
    c->allowed = bound;
    for (int64_t i = 0; i < n; i++) {
        const double want = dibit_tensor_element(expected, i);
        const double got = dibit_tensor_element(got_tensor, i);
        double allowed = bound;
        if (!derived && ulp > 0) allowed = fmax(atol, 0) + fmax(rtol, 0) * fabs(want);
        double distance;
        if (same_bits(expected, got_tensor, i))
            distance = 0;
        else if (isnan(want) && isnan(got) && !derived)
            distance = 0;
        else if (!isfinite(want) || !isfinite(got))
            distance = INFINITY;
        else
            distance = fmax(fabs(got - want), ulp == 0 ? 1 : 0); /* of 64-bit integers: rounded */
        if (distance > allowed) c->n_wrong++;
        if (distance > 0) c->used = fmax(c->used, allowed > 0 ? distance / allowed : HUGE_VAL);
        if (distance - allowed > worst_excess) {
            worst_excess = distance - allowed;
            c->worst = distance;
            c->allowed = allowed;
            c->worst_index = i;
        }
    }
    if (c->n_wrong) {
        snprintf(c->problem, sizeof c->problem, "%" PRId64 " of %" PRId64 " elements are wrong",
                 c->n_wrong, n);
    } else if (derived && c->used > 0 && c->n_noisy && c->n_lost == c->n_noisy) {
        snprintf(c->problem, sizeof c->problem, "no bound: all %u runs with noise were lost",
                 (unsigned)c->n_noisy);
    }
}

/* Comparing an answer with the expected tensor, element by element.
 *
 * Without --rtol and --atol the bound is derived: check_run repeats the run with every node's outputs
 * moved at random within their rounding bounds; how far the answers spread says how far apart two
 * correct engines may be. An element may be off by
 *     SPREAD_FACTOR * (largest deviation of any noisy run over the tensor)
 *   + ULPS ulps, of the tensor's type, of its largest magnitude
 * which is a bound in norm: a single wrong element of a tensor stands out against it. A run
 * with noise is lost that is not finite where the plain one is; when all are, only equality passes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

enum { SPREAD_FACTOR = 4, ULPS = 2 };

int64_t check_count(const dibit_tensor *tensor) {
    int64_t n = 1;
    for (int32_t i = 0; i < tensor->rank; i++) n *= tensor->dims[i];
    return n;
}

static double half_value(uint16_t h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    double value;
    if (exponent == 31)
        value = mantissa ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexp(mantissa, -24);
    else
        value = ldexp(1024 + mantissa, exponent - 25);
    return h >> 15 ? -value : value;
}

static double bfloat16_value(uint16_t b) {
    const uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

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

double check_element(const dibit_tensor *tensor, int64_t i) {
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
        return tensor->type == DIBIT_TYPE_FLOAT16 ? half_value(bits) : bfloat16_value(bits);
    }
    case DIBIT_TYPE_UINT4: return packed_value(tensor, i, 4, false);
    case DIBIT_TYPE_INT4: return packed_value(tensor, i, 4, true);
    case DIBIT_TYPE_UINT2: return packed_value(tensor, i, 2, false);
    case DIBIT_TYPE_INT2: return packed_value(tensor, i, 2, true);
    default: return data[i]; /* the 8-bit floats: their codes */
    }
}

void check_element_text(const dibit_tensor *tensor, int64_t i, char text[40]) {
    int64_t value;
    if (tensor->type == DIBIT_TYPE_INT64 || tensor->type == DIBIT_TYPE_UINT64) {
        memcpy(&value, (const char *)tensor->data + (size_t)i * 8, 8);
        if (tensor->type == DIBIT_TYPE_INT64)
            snprintf(text, 40, "%" PRId64, value);
        else
            snprintf(text, 40, "%" PRIu64, (uint64_t)value);
    } else {
        snprintf(text, 40, "%.9g", check_element(tensor, i));
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
        return check_element(a, i) == check_element(b, i);
    }
    return memcmp((const char *)a->data + (size_t)i * 8, (const char *)b->data + (size_t)i * 8,
                  8) == 0;
}

static bool same_dims(const dibit_tensor *a, const dibit_tensor *b) {
    bool same = a->type == b->type && a->rank == b->rank;
    for (int32_t i = 0; same && i < a->rank; i++) same = a->dims[i] == b->dims[i];
    return same;
}

bool check_equal(const dibit_tensor *a, const dibit_tensor *b) {
    if (!same_dims(a, b)) return false;
    const int64_t n = check_count(a);
    for (int64_t i = 0; i < n; i++) {
        if (!same_bits(a, b, i)) return false;
    }
    return true;
}

void check_add_noise(const dibit_tensor *noisy, check_output *out) {
    if (type_ulp(out->got.type) == 0) return;
    bool lost = !same_dims(noisy, &out->still);
    const int64_t n = lost ? 0 : check_count(&out->still);
    for (int64_t i = 0; i < n; i++) {
        const double still = check_element(&out->still, i), moved = check_element(noisy, i);
        const double distance = fabs(moved - still);
        if (distance > out->spread && isfinite(distance)) out->spread = distance;
        lost = lost || (isfinite(still) && !isfinite(moved));
    }
    out->n_noisy++;
    out->n_lost += lost;
}

static void shape_text(const dibit_tensor *tensor, char text[160]) {
    size_t used = (size_t)snprintf(text, 160, "%s[", dibit_type_name(tensor->type));
    for (int32_t i = 0; i < tensor->rank; i++) {
        used +=
            (size_t)snprintf(text + used, 160 - used, "%s%" PRId64, i ? "," : "", tensor->dims[i]);
    }
    snprintf(text + used, 160 - used, "]");
}

static bool same_shape(const dibit_tensor *expected, check_output *out) {
    const bool same = same_dims(expected, &out->got);
    if (!same) {
        char want[160], got[160];
        shape_text(expected, want);
        shape_text(&out->got, got);
        snprintf(out->problem, sizeof out->problem, "got %.80s, expected %.80s", got, want);
    }
    return same;
}

void check_compare(const dibit_tensor *expected, const check_options *options, check_output *out) {
    if (!same_shape(expected, out)) return;
    const int64_t n = out->n_elements = check_count(expected);
    const double ulp = type_ulp(expected->type);
    const bool derived = options->rtol < 0 && options->atol < 0;
    double bound = 0;
    if (derived && ulp > 0) {
        double largest = 0;
        for (int64_t i = 0; i < n; i++) {
            const double magnitude = fabs(check_element(expected, i));
            if (isfinite(magnitude) && magnitude > largest) largest = magnitude;
        }
        bound = SPREAD_FACTOR * out->spread + ULPS * ulp * largest;
    }
    double worst_excess = -INFINITY;
    out->allowed = bound;
    for (int64_t i = 0; i < n; i++) {
        const double want = check_element(expected, i), got = check_element(&out->got, i);
        double allowed = bound;
        if (!derived && ulp > 0) {
            allowed = fmax(options->atol, 0) + fmax(options->rtol, 0) * fabs(want);
        }
        double distance;
        if (same_bits(expected, &out->got, i))
            distance = 0;
        else if (isnan(want) && isnan(got) && !derived)
            distance = 0;
        else if (!isfinite(want) || !isfinite(got))
            distance = INFINITY;
        else
            distance = fmax(fabs(got - want), ulp == 0 ? 1 : 0); /* of 64-bit integers: rounded */
        if (distance > allowed) out->n_wrong++;
        if (distance > 0) out->used = fmax(out->used, allowed > 0 ? distance / allowed : HUGE_VAL);
        if (distance - allowed > worst_excess) {
            worst_excess = distance - allowed;
            out->worst = distance;
            out->allowed = allowed;
            out->worst_index = i;
        }
    }
    if (out->n_wrong) {
        snprintf(out->problem, sizeof out->problem, "%" PRId64 " of %" PRId64 " elements are wrong",
                 out->n_wrong, n);
    } else if (derived && out->used > 0 && out->n_noisy && out->n_lost == out->n_noisy) {
        snprintf(out->problem, sizeof out->problem, "no bound: all %u runs with noise were lost",
                 (unsigned)out->n_noisy);
    }
}

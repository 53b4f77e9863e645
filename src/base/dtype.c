/* Element types: sizes, names, and conversion between a file's type and its storage type. */
#include "base/dtype.h"

#include "base/half.h"

static const struct {
    const char *name;
    uint8_t bits;
} types[] = {
    [DIBIT_TYPE_UNDEFINED] = {"undefined", 0},
    [DIBIT_TYPE_FLOAT] = {"float", 32},
    [DIBIT_TYPE_UINT8] = {"uint8", 8},
    [DIBIT_TYPE_INT8] = {"int8", 8},
    [DIBIT_TYPE_UINT16] = {"uint16", 16},
    [DIBIT_TYPE_INT16] = {"int16", 16},
    [DIBIT_TYPE_INT32] = {"int32", 32},
    [DIBIT_TYPE_INT64] = {"int64", 64},
    [DIBIT_TYPE_STRING] = {"string", 0},
    [DIBIT_TYPE_BOOL] = {"bool", 8},
    [DIBIT_TYPE_FLOAT16] = {"float16", 16},
    [DIBIT_TYPE_DOUBLE] = {"double", 64},
    [DIBIT_TYPE_UINT32] = {"uint32", 32},
    [DIBIT_TYPE_UINT64] = {"uint64", 64},
    [DIBIT_TYPE_COMPLEX64] = {"complex64", 64},
    [DIBIT_TYPE_COMPLEX128] = {"complex128", 128},
    [DIBIT_TYPE_BFLOAT16] = {"bfloat16", 16},
    [DIBIT_TYPE_FLOAT8E4M3FN] = {"float8e4m3fn", 8},
    [DIBIT_TYPE_FLOAT8E4M3FNUZ] = {"float8e4m3fnuz", 8},
    [DIBIT_TYPE_FLOAT8E5M2] = {"float8e5m2", 8},
    [DIBIT_TYPE_FLOAT8E5M2FNUZ] = {"float8e5m2fnuz", 8},
    [DIBIT_TYPE_UINT4] = {"uint4", 4},
    [DIBIT_TYPE_INT4] = {"int4", 4},
    [DIBIT_TYPE_FLOAT4E2M1] = {"float4e2m1", 4},
    [DIBIT_TYPE_FLOAT8E8M0] = {"float8e8m0", 8},
    [DIBIT_TYPE_UINT2] = {"uint2", 2},
    [DIBIT_TYPE_INT2] = {"int2", 2},
};

static bool known(dibit_type type) { return (size_t)type < sizeof types / sizeof types[0]; }

const char *dibit_type_name(dibit_type type) { return types[known(type) ? type : 0].name; }
uint32_t dibit_type_bits(dibit_type type) { return known(type) ? types[type].bits : 0; }

dibit_type dbt_storage_type(dibit_type type) {
    if (dbt_type_is_float(type)) return DIBIT_TYPE_FLOAT;
    if (type == DIBIT_TYPE_INT4 || type == DIBIT_TYPE_INT2) return DIBIT_TYPE_INT8;
    if (type == DIBIT_TYPE_UINT4 || type == DIBIT_TYPE_UINT2) return DIBIT_TYPE_UINT8;
    return type;
}

bool dbt_integers_to_words(dibit_type type, const void *storage, int32_t *words, int64_t count) {
    bool fit = true;
#define CONVERT(TYPE)                                                                              \
    for (int64_t i = 0; i < count; i++) {                                                          \
        const TYPE v = ((const TYPE *)storage)[i];                                                 \
        words[i] = (int32_t)v;                                                                     \
        fit = fit && (TYPE)words[i] == v && (v > 0) == (words[i] > 0);                             \
    }                                                                                              \
    return fit
    switch (type) {
    case DIBIT_TYPE_INT8: CONVERT(int8_t);
    case DIBIT_TYPE_INT16: CONVERT(int16_t);
    case DIBIT_TYPE_INT32: CONVERT(int32_t);
    case DIBIT_TYPE_INT64: CONVERT(int64_t);
    case DIBIT_TYPE_UINT16: CONVERT(uint16_t);
    case DIBIT_TYPE_UINT32: CONVERT(uint32_t);
    case DIBIT_TYPE_UINT64: CONVERT(uint64_t);
    default: CONVERT(uint8_t); /* bool too */
    }
#undef CONVERT
}

void dbt_words_to_integers(dibit_type type, const int32_t *words, void *storage, int64_t count) {
#define CONVERT(TYPE)                                                                              \
    for (int64_t i = 0; i < count; i++) ((TYPE *)storage)[i] = (TYPE)words[i];                     \
    break
    switch (type) {
    case DIBIT_TYPE_INT16:
    case DIBIT_TYPE_UINT16: CONVERT(uint16_t);
    case DIBIT_TYPE_INT32:
    case DIBIT_TYPE_UINT32: CONVERT(int32_t);
    case DIBIT_TYPE_INT64:
    case DIBIT_TYPE_UINT64: CONVERT(int64_t);
    default: CONVERT(uint8_t); /* int8 and bool too */
    }
#undef CONVERT
}

bool dbt_count(int32_t rank, const int64_t *dims, int64_t *count) {
    int64_t n = 1;
    bool empty = false;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] < 0) return false;
        if (dims[i] == 0) {
            empty = true;
        } else {
            if (n > INT64_MAX / dims[i]) return false;
            n *= dims[i];
        }
    }
    *count = empty ? 0 : n;
    return true;
}

bool dbt_packed_bytes(dibit_type type, uint64_t count, uint64_t *bytes) {
    uint64_t bits;
    if (!dbt_mul_u64(count, dibit_type_bits(type), &bits)) return false;
    *bytes = bits / 8 + (bits % 8 != 0);
    return true;
}

/* Elements of 2 or 4 bits, one to a byte, sign-extended for the signed types. */
static void unpack_subbyte(dibit_type type, const uint8_t *src, uint8_t *dst, int64_t count) {
    const unsigned bits = dibit_type_bits(type), mask = (1u << bits) - 1;
    const bool is_signed = type == DIBIT_TYPE_INT4 || type == DIBIT_TYPE_INT2;
    const unsigned sign = is_signed ? 1u << (bits - 1) : 0;
    for (int64_t i = 0; i < count; i++) {
        const uint64_t bit = (uint64_t)i * bits;
        const unsigned code = (unsigned)src[bit >> 3] >> (bit & 7) & mask;
        dst[i] = (uint8_t)((code ^ sign) - sign);
    }
}

static void pack_subbyte(dibit_type type, const uint8_t *src, uint8_t *dst, int64_t count) {
    const unsigned bits = dibit_type_bits(type), mask = (1u << bits) - 1;
    for (int64_t i = 0; i < count; i++) {
        const uint64_t bit = (uint64_t)i * bits;
        if ((bit & 7) == 0) dst[bit >> 3] = 0;
        dst[bit >> 3] = (uint8_t)(dst[bit >> 3] | (src[i] & mask) << (bit & 7));
    }
}

void dbt_unpack_elements(dibit_type type, const void *packed, void *storage, int64_t count) {
    const uint8_t *const bytes = packed;
    float *const f = storage;
    switch (type) {
    case DIBIT_TYPE_FLOAT16:
        for (int64_t i = 0; i < count; i++) {
            uint16_t h;
            memcpy(&h, bytes + i * 2, 2); /* files promise no alignment */
            f[i] = dbt_half_to_float(h);
        }
        return;
    case DIBIT_TYPE_BFLOAT16:
        for (int64_t i = 0; i < count; i++) {
            uint16_t h;
            memcpy(&h, bytes + i * 2, 2);
            f[i] = dbt_bfloat16_to_float(h);
        }
        return;
    case DIBIT_TYPE_DOUBLE:
        for (int64_t i = 0; i < count; i++) {
            double d;
            memcpy(&d, bytes + i * 8, 8);
            f[i] = (float)d;
        }
        return;
    case DIBIT_TYPE_INT4:
    case DIBIT_TYPE_UINT4:
    case DIBIT_TYPE_INT2:
    case DIBIT_TYPE_UINT2: unpack_subbyte(type, packed, storage, count); return;
    default:
        if (count > 0) memcpy(storage, packed, (size_t)count * (dibit_type_bits(type) / 8));
    }
}

void dbt_pack_elements(dibit_type type, const void *storage, void *packed, int64_t count) {
    uint8_t *const bytes = packed;
    const float *const f = storage;
    switch (type) {
    case DIBIT_TYPE_FLOAT16:
        for (int64_t i = 0; i < count; i++) {
            const uint16_t h = dbt_float_to_half(f[i]);
            memcpy(bytes + i * 2, &h, 2);
        }
        return;
    case DIBIT_TYPE_BFLOAT16:
        for (int64_t i = 0; i < count; i++) {
            const uint16_t h = dbt_float_to_bfloat16(f[i]);
            memcpy(bytes + i * 2, &h, 2);
        }
        return;
    case DIBIT_TYPE_DOUBLE:
        for (int64_t i = 0; i < count; i++) {
            const double d = (double)f[i];
            memcpy(bytes + i * 8, &d, 8);
        }
        return;
    case DIBIT_TYPE_INT4:
    case DIBIT_TYPE_UINT4:
    case DIBIT_TYPE_INT2:
    case DIBIT_TYPE_UINT2: pack_subbyte(type, storage, packed, count); return;
    default:
        if (count > 0) memcpy(packed, storage, (size_t)count * (dibit_type_bits(type) / 8));
    }
}

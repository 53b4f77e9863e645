/* NumPy's .npy format, versions 1 to 3:
 *
 *     93 'N' 'U' 'M' 'P' 'Y'  major minor  header_bytes (u16 in version 1, u32 after)  header  data
 *
 * header: a Python dict, {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }. Big-endian and
 * Fortran-order data is converted. Format: numpy.lib.format in NumPy's reference. */
#include <string.h>

#include "base/dtype.h"
#include "onnx/tensor_files.h"

typedef struct npy {
    const char *name; /* for errors */
    dibit_error *error;
    const char *at, *end; /* in the header */
    char descr[8];
    bool has_order, has_shape, is_fortran, too_many_dims;
    int32_t rank;
    int64_t dims[DIBIT_MAX_RANK];
} npy;

static void skip_space(npy *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n')) p->at++;
}

static bool take(npy *p, char c) {
    skip_space(p);
    if (p->at == p->end || *p->at != c) return false;
    p->at++;
    return true;
}

static bool take_word(npy *p, const char *word) {
    skip_space(p);
    const size_t n = strlen(word);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, word, n) != 0) return false;
    p->at += n;
    return true;
}

/* A quoted string of less than `size` characters, without escapes. */
static bool take_string(npy *p, char *out, size_t size) {
    skip_space(p);
    if (p->at == p->end || (*p->at != '\'' && *p->at != '"')) return false;
    const char quote = *p->at++;
    size_t n = 0;
    while (p->at < p->end && *p->at != quote && *p->at != '\\' && n + 1 < size) {
        out[n++] = *p->at++;
    }
    out[n] = 0;
    return take(p, quote);
}

static bool take_number(npy *p, int64_t *out) {
    skip_space(p);
    const char *const begin = p->at;
    *out = 0;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') {
        const int digit = *p->at++ - '0';
        if (*out > (INT64_MAX - digit) / 10) return false;
        *out = *out * 10 + digit;
    }
    return p->at > begin;
}

static bool take_shape(npy *p) {
    if (!take(p, '(')) return false;
    for (p->rank = 0; !take(p, ')');) {
        int64_t dim;
        if (!take_number(p, &dim)) return false;
        if (p->rank == DIBIT_MAX_RANK) {
            p->too_many_dims = true;
            return false;
        }
        p->dims[p->rank++] = dim;
        if (take(p, ',')) continue;
        if (p->rank == 1 || !take(p, ')')) return false; /* (3) is a number, (3,) a tuple */
        break;
    }
    return p->has_shape = true;
}

static bool take_header(npy *p) {
    char key[16];
    if (!take(p, '{')) return false;
    while (!take(p, '}')) {
        if (!take_string(p, key, sizeof key) || !take(p, ':')) return false;
        if (strcmp(key, "descr") == 0) {
            if (!take_string(p, p->descr, sizeof p->descr)) return false;
        } else if (strcmp(key, "fortran_order") == 0) {
            p->is_fortran = take_word(p, "True");
            if (!p->is_fortran && !take_word(p, "False")) return false;
            p->has_order = true;
        } else if (strcmp(key, "shape") == 0) {
            if (!take_shape(p)) return false;
        } else {
            return false;
        }
        if (!take(p, ',')) {
            if (take(p, '}')) break;
            return false;
        }
    }
    skip_space(p);
    return p->at == p->end && p->descr[0] && p->has_order && p->has_shape;
}

/* The type of a descr without its byte order. */
static dibit_type type_of(const char *descr) {
    static const struct {
        const char *descr;
        dibit_type type;
    } types[] = {
        {"f4", DIBIT_TYPE_FLOAT},     {"f8", DIBIT_TYPE_DOUBLE},     {"f2", DIBIT_TYPE_FLOAT16},
        {"i1", DIBIT_TYPE_INT8},      {"i2", DIBIT_TYPE_INT16},      {"i4", DIBIT_TYPE_INT32},
        {"i8", DIBIT_TYPE_INT64},     {"u1", DIBIT_TYPE_UINT8},      {"u2", DIBIT_TYPE_UINT16},
        {"u4", DIBIT_TYPE_UINT32},    {"u8", DIBIT_TYPE_UINT64},     {"b1", DIBIT_TYPE_BOOL},
        {"c8", DIBIT_TYPE_COMPLEX64}, {"c16", DIBIT_TYPE_COMPLEX128}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].descr, descr) == 0) return types[i].type;
    }
    return DIBIT_TYPE_UNDEFINED;
}

static void reverse(uint8_t *data, size_t number_bytes, uint64_t n) {
    for (uint64_t i = 0; i < n; i++, data += number_bytes) {
        for (size_t b = 0; b < number_bytes / 2; b++) {
            const uint8_t other = data[number_bytes - 1 - b];
            data[number_bytes - 1 - b] = data[b];
            data[b] = other;
        }
    }
}

/* From the first index varying fastest to the last one. */
static void from_fortran(const npy *p, const uint8_t *src, size_t element_bytes, int64_t count,
                         uint8_t *dst) {
    int64_t index[DIBIT_MAX_RANK] = {0}, strides[DIBIT_MAX_RANK], at = 0, stride = 1;
    for (int32_t i = 0; i < p->rank; i++) {
        strides[i] = stride;
        stride *= p->dims[i];
    }
    for (int64_t n = 0; n < count; n++, dst += element_bytes) {
        memcpy(dst, src + (size_t)at * element_bytes, element_bytes);
        for (int32_t i = p->rank - 1; i >= 0; i--) {
            at += strides[i];
            if (++index[i] < p->dims[i]) break;
            at -= strides[i] * p->dims[i];
            index[i] = 0;
        }
    }
}

static dibit_status read_data(const npy *p, const uint8_t *data, uint64_t bytes, dbt_arena *arena,
                              dibit_tensor *out) {
    const char order = p->descr[0];
    const dibit_type type = strchr("<>|=", order) ? type_of(p->descr + 1) : DIBIT_TYPE_UNDEFINED;
    DBT_FAIL_IF(type == DIBIT_TYPE_UNDEFINED, p->error, DIBIT_UNSUPPORTED,
                "'%s': elements of type '%s' are not supported", p->name, p->descr);
    int64_t count;
    uint64_t need;
    DBT_FAIL_IF(!dbt_count(p->rank, p->dims, &count) ||
                    !dbt_packed_bytes(type, (uint64_t)count, &need),
                p->error, DIBIT_TOO_LARGE, "'%s': its shape overflows 64 bits", p->name);
    DBT_FAIL_IF(bytes != need, p->error, DIBIT_BAD_FILE,
                "'%s': has %llu bytes of data, but its shape and type need %llu", p->name,
                (unsigned long long)bytes, (unsigned long long)need);
    *out = (dibit_tensor){.name = "", .type = type, .rank = p->rank};
    memcpy(out->dims, p->dims, sizeof out->dims);
    DBT_TRY(dbt_tensor_reserve(arena, need, out, p->error));
    if (p->is_fortran && p->rank > 1) {
        from_fortran(p, data, dibit_type_bits(type) / 8, count, out->data);
    } else {
        memcpy(out->data, data, (size_t)need);
    }
    const bool is_complex = type == DIBIT_TYPE_COMPLEX64 || type == DIBIT_TYPE_COMPLEX128;
    const size_t number_bytes = dibit_type_bits(type) / (is_complex ? 16 : 8);
    if (order == '>') reverse(out->data, number_bytes, need / number_bytes);
    return DIBIT_OK;
}

dibit_status dbt_npy_read(const uint8_t *data, uint64_t bytes, const char *name, dbt_arena *arena,
                          dibit_tensor *out, dibit_error *error) {
    DBT_FAIL_IF(bytes < 8 || memcmp(data, "\x93NUMPY", 6) != 0, error, DIBIT_BAD_FILE,
                "'%s': is no .npy file", name);
    const uint8_t major = data[6];
    DBT_FAIL_IF(major < 1 || major > 3, error, DIBIT_UNSUPPORTED, "'%s': .npy version %u.%u", name,
                major, data[7]);
    const uint64_t begin = major == 1 ? 10 : 12;
    uint64_t header_bytes = UINT64_MAX;
    if (bytes >= begin) {
        header_bytes = (uint64_t)data[8] | (uint64_t)data[9] << 8;
        if (major > 1) header_bytes |= (uint64_t)data[10] << 16 | (uint64_t)data[11] << 24;
    }
    DBT_FAIL_IF(bytes < begin || header_bytes > bytes - begin, error, DIBIT_BAD_FILE,
                "'%s': ends inside its header", name);
    npy p = {.name = name, .error = error, .at = (const char *)data + begin};
    p.end = p.at + header_bytes;
    if (!take_header(&p)) {
        DBT_FAIL_IF(p.too_many_dims, error, DIBIT_UNSUPPORTED, "'%s': more than %d dimensions",
                    name, DIBIT_MAX_RANK);
        return dbt_fail(error, DIBIT_BAD_FILE, "'%s': malformed header at byte %llu", name,
                        (unsigned long long)(p.at - (const char *)data));
    }
    return read_data(&p, data + begin + header_bytes, bytes - begin - header_bytes, arena, out);
}

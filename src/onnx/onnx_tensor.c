/* TensorProto -> dbt_constant. One pass finds which fields there are, then dims are checked, then
 * the one field that holds data is turned into the raw layout (or left where it lies). */
#include <string.h>

#include "onnx/onnx_fields.h"
#include "onnx/onnx_parse.h"

/* The typed data fields. */
enum { FLOATS, INT32S, STRINGS, INT64S, DOUBLES, UINT64S, N_TYPED };

static const struct {
    const char *name;
    uint32_t number;
    dbt_wire_type type;
} typed_fields[N_TYPED] = {
    [FLOATS] = {"float_data", TENSOR_FLOAT_DATA, DBT_WIRE_FIXED32},
    [INT32S] = {"int32_data", TENSOR_INT32_DATA, DBT_WIRE_VARINT},
    [STRINGS] = {"string_data", TENSOR_STRING_DATA, DBT_WIRE_BYTES},
    [INT64S] = {"int64_data", TENSOR_INT64_DATA, DBT_WIRE_VARINT},
    [DOUBLES] = {"double_data", TENSOR_DOUBLE_DATA, DBT_WIRE_FIXED64},
    [UINT64S] = {"uint64_data", TENSOR_UINT64_DATA, DBT_WIRE_VARINT},
};

typedef struct scan {
    uint32_t n_dims;
    uint64_t n_entries[N_TYPED];
    dbt_wire_field raw; /* bytes 0: none */
    bool is_external;
    const char *location;
    uint64_t offset, length;
    bool has_length;
} scan;

static int typed_field_of(dibit_type type) {
    switch (type) {
    case DIBIT_TYPE_FLOAT:
    case DIBIT_TYPE_COMPLEX64: return FLOATS;
    case DIBIT_TYPE_DOUBLE:
    case DIBIT_TYPE_COMPLEX128: return DOUBLES;
    case DIBIT_TYPE_INT64: return INT64S;
    case DIBIT_TYPE_UINT32:
    case DIBIT_TYPE_UINT64: return UINT64S;
    case DIBIT_TYPE_STRING: return STRINGS;
    default: return INT32S;
    }
}

static int typed_field_with(uint32_t number) {
    for (int i = 0; i < N_TYPED; i++) {
        if (typed_fields[i].number == number) return i;
    }
    return -1;
}

static dibit_status count_entries(const dbt_parse *p, const dbt_place *place,
                                  const dbt_wire_message *m, const dbt_wire_field *f, int i,
                                  uint64_t *n) {
    if (i == STRINGS) {
        ++*n;
        return dbt_parse_type(p, place, f, DBT_WIRE_BYTES, typed_fields[i].name);
    }
    dbt_wire_values values;
    uint64_t value;
    if (!dbt_wire_values_begin(m, f, typed_fields[i].type, &values)) {
        return dbt_parse_type(p, place, f, typed_fields[i].type, typed_fields[i].name);
    }
    while (dbt_wire_values_next(&values, &value)) ++*n;
    return dbt_parse_end(p, place, &values.message);
}

/* A decimal number as external data has it: digits alone. */
static bool parse_decimal(const char *text, uint64_t *out) {
    *out = 0;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        const uint64_t digit = (uint64_t)(*text - '0');
        if (*out > (UINT64_MAX - digit) / 10) return false;
        *out = *out * 10 + digit;
    }
    return true;
}

static dibit_status scan_external(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                                  scan *s) {
    const char *key, *value;
    DBT_TRY(dbt_parse_entry(p, place, m, &key, &value));
    if (strcmp(key, "location") == 0) s->location = value;
    uint64_t *const number = strcmp(key, "offset") == 0   ? &s->offset
                             : strcmp(key, "length") == 0 ? &s->length
                                                          : NULL;
    if (!number) return DIBIT_OK;
    if (!parse_decimal(value, number)) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "external data: '%s' is '%.40s', no number",
                              key, value);
    }
    if (number == &s->length) s->has_length = true;
    return DIBIT_OK;
}

static dibit_status scan_field(const dbt_parse *p, dbt_place *place, const dbt_wire_message *m,
                               const dbt_wire_field *f, dbt_constant *out, scan *s) {
    const int typed = typed_field_with(f->number);
    if (typed >= 0) return count_entries(p, place, m, f, typed, &s->n_entries[typed]);
    dbt_wire_values dims;
    uint64_t dim;
    switch (f->number) {
    case TENSOR_NAME:
        DBT_TRY(dbt_parse_string(p, place, f, "name", &out->name));
        place->name = out->name;
        return DIBIT_OK;
    case TENSOR_DATA_TYPE:
        DBT_TRY(dbt_parse_type(p, place, f, DBT_WIRE_VARINT, "data_type"));
        if (f->value > DIBIT_TYPE_INT2) {
            return dbt_parse_fail(p, place, DIBIT_UNSUPPORTED, "unknown data type %llu",
                                  (unsigned long long)f->value);
        }
        out->type = (dibit_type)f->value;
        return DIBIT_OK;
    case TENSOR_DIMS:
        if (!dbt_wire_values_begin(m, f, DBT_WIRE_VARINT, &dims)) {
            return dbt_parse_type(p, place, f, DBT_WIRE_VARINT, "dims");
        }
        while (dbt_wire_values_next(&dims, &dim)) {
            if (s->n_dims == DIBIT_MAX_RANK) {
                return dbt_parse_fail(p, place, DIBIT_UNSUPPORTED, "more than %d dimensions",
                                      DIBIT_MAX_RANK);
            }
            out->dims[s->n_dims++] = (int64_t)dim;
        }
        return dbt_parse_end(p, place, &dims.message);
    case TENSOR_RAW_DATA:
        s->raw = *f;
        return dbt_parse_type(p, place, f, DBT_WIRE_BYTES, "raw_data");
    case TENSOR_SEGMENT:
        return dbt_parse_fail(p, place, DIBIT_UNSUPPORTED, "is only a segment of a tensor");
    case TENSOR_EXTERNAL_DATA:
        DBT_TRY(dbt_parse_type(p, place, f, DBT_WIRE_BYTES, "external_data"));
        return scan_external(p, place, dbt_wire_inside(m, f), s);
    case TENSOR_DATA_LOCATION:
        DBT_TRY(dbt_parse_type(p, place, f, DBT_WIRE_VARINT, "data_location"));
        if (f->value > 1) {
            return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "unknown data_location %llu",
                                  (unsigned long long)f->value);
        }
        s->is_external = f->value == 1;
        return DIBIT_OK;
    default: return DIBIT_OK;
    }
}

/* count and bytes from type and dims. */
static dibit_status check_size(const dbt_parse *p, const dbt_place *place, dbt_constant *out) {
    for (int32_t i = 0; i < out->rank; i++) {
        if (out->dims[i] < 0) {
            return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "dimension %d is %lld", (int)i,
                                  (long long)out->dims[i]);
        }
    }
    if (out->type == DIBIT_TYPE_UNDEFINED) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "has no data type");
    }
    uint64_t bytes = 0;
    if (!dbt_count(out->rank, out->dims, &out->count) ||
        !dbt_packed_bytes(out->type, (uint64_t)out->count, &bytes)) {
        return dbt_parse_fail(p, place, DIBIT_TOO_LARGE, "its dimensions overflow 64 bits");
    }
    out->bytes = (dbt_bytes){.bytes = bytes};
    return DIBIT_OK;
}

static dibit_status read_strings(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                                 dbt_constant *out) {
    const char **strings;
    DBT_TRY(dbt_parse_array(p, place, (uint64_t)out->count, sizeof *strings, &strings));
    uint64_t n = 0;
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        if (f.number != TENSOR_STRING_DATA) continue;
        DBT_TRY(dbt_parse_text(p, place, &f, "string_data", &strings[n++]));
    }
    out->strings = strings;
    return DIBIT_OK;
}

/* Checks that an entry of int32_data or uint64_data fits the elements it stands for. */
static bool entry_fits(dibit_type type, int typed, uint64_t value) {
    if (typed == UINT64S) return type == DIBIT_TYPE_UINT64 || value <= UINT32_MAX;
    if (typed != INT32S || type == DIBIT_TYPE_INT32) return true;
    const int32_t v = (int32_t)(uint32_t)value;
    if (type == DIBIT_TYPE_BOOL) return v == 0 || v == 1;
    const int32_t limit = dibit_type_bits(type) == 16 ? 1 << 16 : 1 << 8;
    return v >= -limit / 2 && v < limit; /* writers differ in whether they extend the sign */
}

static dibit_status read_typed(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                               int typed, uint64_t n_entries, dbt_constant *out) {
    unsigned char *data;
    DBT_TRY(dbt_parse_array(p, place, out->bytes.bytes, 1, &data));
    const unsigned entry_bytes = (unsigned)(out->bytes.bytes / n_entries);
    unsigned char *at = data;
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        dbt_wire_values values;
        uint64_t value;
        if (f.number != typed_fields[typed].number) continue;
        if (!dbt_wire_values_begin(&m, &f, typed_fields[typed].type, &values)) continue;
        while (dbt_wire_values_next(&values, &value)) {
            if (!entry_fits(out->type, typed, value)) {
                return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "entry %llu of %s does not fit %s",
                                      (unsigned long long)(at - data) / entry_bytes,
                                      typed_fields[typed].name, dibit_type_name(out->type));
            }
            for (unsigned b = 0; b < entry_bytes; b++) *at++ = (unsigned char)(value >> (8 * b));
        }
    }
    out->data = data;
    return DIBIT_OK;
}

static dibit_status read_raw(const dbt_parse *p, const dbt_place *place, const scan *s,
                             dbt_constant *out) {
    if (out->type == DIBIT_TYPE_STRING) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "strings cannot be in raw_data");
    }
    if (s->raw.bytes != out->bytes.bytes) {
        return dbt_parse_fail(
            p, place, DIBIT_BAD_FILE, "raw_data has %llu bytes, but type and dims need %llu",
            (unsigned long long)s->raw.bytes, (unsigned long long)out->bytes.bytes);
    }
    out->bytes = (dbt_bytes){p->source, s->raw.at, s->raw.bytes};
    out->data = dbt_bytes_pointer(out->bytes);
    if (out->data || out->bytes.bytes >= DBT_ONNX_LAZY_BYTES) return DIBIT_OK;
    unsigned char *copy;
    DBT_TRY(dbt_parse_array(p, place, s->raw.bytes, 1, &copy));
    if (!dbt_wire_copy(p->wire, s->raw.at, s->raw.bytes, copy)) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "raw_data: %s", dbt_wire_not_resident);
    }
    out->data = copy;
    return DIBIT_OK;
}

static dibit_status add_external(dbt_parse *p, const dbt_place *place, const scan *s,
                                 dbt_constant *out) {
    if (!s->location) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "external data has no 'location'");
    }
    if (out->type == DIBIT_TYPE_STRING) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "strings cannot be in external data");
    }
    if (s->has_length && s->length != out->bytes.bytes) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE,
                              "external data has length %llu, but type and dims need %llu bytes",
                              (unsigned long long)s->length, (unsigned long long)out->bytes.bytes);
    }
    dbt_onnx_external *e;
    DBT_TRY(dbt_parse_array(p, place, 1, sizeof *e, &e));
    *e = (dbt_onnx_external){.next = p->externals,
                             .constant = out,
                             .where = dbt_parse_where(p, place),
                             .location = s->location,
                             .offset = s->offset};
    if (!e->where) return dbt_parse_fail_memory(p, place);
    p->externals = e;
    return DIBIT_OK;
}

/* Entries of the typed field that the tensor's elements take. */
static bool entries_needed(const dbt_constant *c, uint64_t *n) {
    const bool is_complex = c->type == DIBIT_TYPE_COMPLEX64 || c->type == DIBIT_TYPE_COMPLEX128;
    if (dbt_type_in(c->type, DBT_TYPES_SUBBYTE) || c->type == DIBIT_TYPE_FLOAT4E2M1) {
        *n = c->bytes.bytes; /* an entry is a byte with 2 or 4 elements */
        return true;
    }
    return dbt_mul_u64((uint64_t)c->count, is_complex ? 2 : 1, n);
}

dibit_status dbt_parse_tensor(dbt_parse *p, dbt_place *place, dbt_wire_message m,
                              dbt_constant *out) {
    scan s = {0};
    *out = (dbt_constant){.name = ""};
    dbt_wire_message first = m;
    dbt_wire_field f;
    while (dbt_wire_next(&first, &f)) DBT_TRY(scan_field(p, place, &first, &f, out, &s));
    DBT_TRY(dbt_parse_end(p, place, &first));
    out->rank = (int32_t)s.n_dims;
    DBT_TRY(check_size(p, place, out));

    int n_holders = (s.raw.bytes > 0) + s.is_external, typed = -1;
    for (int i = 0; i < N_TYPED; i++) {
        if (s.n_entries[i] == 0) continue;
        n_holders++;
        typed = i;
    }
    if (n_holders > 1) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "has its data in more than one field");
    }
    if (s.is_external) return add_external(p, place, &s, out);
    if (s.raw.bytes > 0) return read_raw(p, place, &s, out);
    if (typed < 0) {
        static const unsigned char nothing[1];
        if (out->count > 0) return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "has no data");
        out->data = nothing;
        return DIBIT_OK;
    }
    uint64_t needed = 0;
    if (typed != typed_field_of(out->type)) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "is of type %s, but has %s",
                              dibit_type_name(out->type), typed_fields[typed].name);
    }
    if (!entries_needed(out, &needed) || s.n_entries[typed] != needed) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE,
                              "%s has %llu entries, but type and dims need %llu",
                              typed_fields[typed].name, (unsigned long long)s.n_entries[typed],
                              (unsigned long long)needed);
    }
    if (typed == STRINGS) return read_strings(p, place, m, out);
    return read_typed(p, place, m, typed, needed, out);
}

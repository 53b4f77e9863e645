/* AttributeProto -> dbt_onnx_attr. The value has to be in the field that `type` names; where old
 * files give no type, the field that is there tells it. */
#include "base/half.h"
#include "onnx/onnx_fields.h"
#include "onnx/onnx_parse.h"

enum { TYPE_LAST = 14 }; /* TYPE_PROTOS */

/* The kind that each value field belongs to. */
static dbt_onnx_attr_kind kind_of_field(uint32_t number) {
    switch (number) {
    case ATTR_F: return DBT_ONNX_ATTR_FLOAT;
    case ATTR_I: return DBT_ONNX_ATTR_INT;
    case ATTR_S: return DBT_ONNX_ATTR_STRING;
    case ATTR_T: return DBT_ONNX_ATTR_TENSOR;
    case ATTR_G: return DBT_ONNX_ATTR_GRAPH;
    case ATTR_FLOATS: return DBT_ONNX_ATTR_FLOATS;
    case ATTR_INTS: return DBT_ONNX_ATTR_INTS;
    case ATTR_STRINGS: return DBT_ONNX_ATTR_STRINGS;
    default: return DBT_ONNX_ATTR_UNDEFINED;
    }
}

static const char *kind_name(dbt_onnx_attr_kind kind) {
    static const char *const names[] = {"undefined", "float",  "int",  "string",  "tensor",
                                        "graph",     "floats", "ints", "strings", "another type"};
    return names[kind];
}

static dibit_status count_values(const dbt_parse *p, const dbt_place *place,
                                 const dbt_wire_message *m, const dbt_wire_field *f,
                                 dbt_wire_type type, const char *field_name, uint32_t *n) {
    dbt_wire_values values;
    uint64_t value;
    if (!dbt_wire_values_begin(m, f, type, &values)) {
        return dbt_parse_type(p, place, f, type, field_name);
    }
    while (dbt_wire_values_next(&values, &value)) {
        if (*n == INT32_MAX) return dbt_parse_fail(p, place, DIBIT_TOO_LARGE, "too many values");
        ++*n;
    }
    return dbt_parse_end(p, place, &values.message);
}

/* What the first pass finds besides the scalars in *attr. */
typedef struct scan {
    uint32_t present; /* bit per kind whose field occurs */
    uint32_t n_floats, n_ints, n_strings;
    dbt_wire_field message; /* of t or g */
} scan;

static dibit_status scan_field(const dbt_parse *p, dbt_place *place, const dbt_wire_message *m,
                               const dbt_wire_field *f, dbt_onnx_attr *out, scan *s) {
    const dbt_onnx_attr_kind kind = kind_of_field(f->number);
    const bool repeated = s->present >> kind & 1;
    if (kind != DBT_ONNX_ATTR_UNDEFINED) s->present |= 1u << kind;
    switch (f->number) {
    case ATTR_NAME:
        DBT_TRY(dbt_parse_string(p, place, f, "name", &out->name));
        place->name = out->name;
        return DIBIT_OK;
    case ATTR_REF_ATTR_NAME: return dbt_parse_string(p, place, f, "ref_attr_name", &out->reference);
    case ATTR_TYPE:
        DBT_TRY(dbt_parse_type(p, place, f, DBT_WIRE_VARINT, "type"));
        if (f->value > TYPE_LAST) {
            return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "unknown attribute type %llu",
                                  (unsigned long long)f->value);
        }
        out->kind =
            f->value < DBT_ONNX_ATTR_OTHER ? (dbt_onnx_attr_kind)f->value : DBT_ONNX_ATTR_OTHER;
        return DIBIT_OK;
    case ATTR_F:
        DBT_TRY(dbt_parse_type(p, place, f, DBT_WIRE_FIXED32, "f"));
        out->f = dbt_bits_to_float((uint32_t)f->value);
        return DIBIT_OK;
    case ATTR_I:
        DBT_TRY(dbt_parse_type(p, place, f, DBT_WIRE_VARINT, "i"));
        out->i = (int64_t)f->value;
        return DIBIT_OK;
    case ATTR_S: return dbt_parse_text(p, place, f, "s", &out->s);
    case ATTR_T:
    case ATTR_G:
        if (repeated) {
            return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "has more than one %s",
                                  kind_name(kind));
        }
        s->message = *f;
        return dbt_parse_type(p, place, f, DBT_WIRE_BYTES, f->number == ATTR_T ? "t" : "g");
    case ATTR_FLOATS: return count_values(p, place, m, f, DBT_WIRE_FIXED32, "floats", &s->n_floats);
    case ATTR_INTS: return count_values(p, place, m, f, DBT_WIRE_VARINT, "ints", &s->n_ints);
    case ATTR_STRINGS: return dbt_parse_count(p, place, f, 0, "strings", &s->n_strings);
    default: return DIBIT_OK;
    }
}

/* The lists. The first pass has checked everything but the strings. */
static dibit_status read_lists(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                               const scan *s, dbt_onnx_attr *out) {
    float *floats;
    int64_t *ints;
    const char **strings;
    DBT_TRY(dbt_parse_array(p, place, s->n_floats, sizeof *floats, &floats));
    DBT_TRY(dbt_parse_array(p, place, s->n_ints, sizeof *ints, &ints));
    DBT_TRY(dbt_parse_array(p, place, s->n_strings, sizeof *strings, &strings));
    out->floats = floats;
    out->ints = ints;
    out->strings = strings;
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        dbt_wire_values values;
        uint64_t value;
        if (f.number == ATTR_STRINGS) {
            DBT_TRY(dbt_parse_text(p, place, &f, "strings", strings++));
        } else if (f.number == ATTR_INTS) {
            dbt_wire_values_begin(&m, &f, DBT_WIRE_VARINT, &values);
            while (dbt_wire_values_next(&values, &value)) *ints++ = (int64_t)value;
        } else if (f.number == ATTR_FLOATS) {
            dbt_wire_values_begin(&m, &f, DBT_WIRE_FIXED32, &values);
            while (dbt_wire_values_next(&values, &value)) {
                *floats++ = dbt_bits_to_float((uint32_t)value);
            }
        }
    }
    return DIBIT_OK;
}

/* Every value field that occurs must be the one of out->kind. */
static dibit_status check_kind(const dbt_parse *p, const dbt_place *place, const scan *s,
                               dbt_onnx_attr *out) {
    if (s->present && out->reference) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "has both a reference and a value");
    }
    for (int kind = DBT_ONNX_ATTR_FLOAT; kind <= DBT_ONNX_ATTR_STRINGS; kind++) {
        if (!(s->present >> kind & 1)) continue;
        if (out->kind == DBT_ONNX_ATTR_UNDEFINED) out->kind = (dbt_onnx_attr_kind)kind;
        if ((int)out->kind != kind) {
            return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "is of type %s, but has a value of %s",
                                  kind_name(out->kind), kind_name((dbt_onnx_attr_kind)kind));
        }
    }
    return DIBIT_OK;
}

dibit_status dbt_parse_attr(dbt_parse *p, const dbt_place *parent, uint32_t index,
                            dbt_wire_message m, dbt_onnx_attr *out) {
    dbt_place place = {parent, "attribute", "", index};
    *out = (dbt_onnx_attr){.name = "", .s = ""};
    scan s = {0};
    dbt_wire_message first = m;
    dbt_wire_field f;
    while (dbt_wire_next(&first, &f)) DBT_TRY(scan_field(p, &place, &first, &f, out, &s));
    DBT_TRY(dbt_parse_end(p, &place, &first));
    if (!out->name[0]) return dbt_parse_fail(p, &place, DIBIT_BAD_FILE, "has no name");
    DBT_TRY(check_kind(p, &place, &s, out));
    DBT_TRY(read_lists(p, &place, m, &s, out));
    out->count = s.n_floats + s.n_ints + s.n_strings; /* check_kind left at most one */
    if (out->reference) return DIBIT_OK;
    if (out->kind != DBT_ONNX_ATTR_TENSOR && out->kind != DBT_ONNX_ATTR_GRAPH) return DIBIT_OK;
    if (!s.present) {
        return dbt_parse_fail(p, &place, DIBIT_BAD_FILE, "is of type %s, but has no value",
                              kind_name(out->kind));
    }
    const dbt_wire_message inside = dbt_wire_inside(&m, &s.message);
    if (out->kind == DBT_ONNX_ATTR_TENSOR) {
        dbt_constant *tensor;
        DBT_TRY(dbt_parse_array(p, &place, 1, sizeof *tensor, &tensor));
        dbt_place inner = {&place, "tensor", "", 0};
        out->tensor = tensor;
        return dbt_parse_tensor(p, &inner, inside, tensor);
    }
    dbt_onnx_graph *graph;
    DBT_TRY(dbt_parse_array(p, &place, 1, sizeof *graph, &graph));
    out->graph = graph;
    return dbt_parse_graph(p, &place, inside, graph);
}

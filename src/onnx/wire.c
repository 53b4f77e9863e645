/* The protobuf wire format: varints, fields and packed values over runs of resident bytes. */
#include "onnx/wire.h"

#include <string.h>

const char dbt_wire_not_resident[] = "bytes that are needed were not read";

/* The resident byte at `at`, with *n contiguous ones from there on; NULL when there is none. */
static const uint8_t *span(dbt_wire *wire, uint64_t at, uint64_t *n) {
    if (wire->hint >= wire->n_runs || at < wire->runs[wire->hint].begin ||
        at >= wire->runs[wire->hint].end) {
        size_t lo = 0, hi = wire->n_runs; /* the first run that ends after `at` */
        while (lo < hi) {
            const size_t mid = lo + (hi - lo) / 2;
            if (wire->runs[mid].end > at) {
                hi = mid;
            } else {
                lo = mid + 1;
            }
        }
        if (lo == wire->n_runs || wire->runs[lo].begin > at) return NULL;
        wire->hint = lo;
    }
    const dbt_wire_run *const run = &wire->runs[wire->hint];
    *n = run->end - at;
    return run->data + (at - run->begin);
}

const uint8_t *dbt_wire_pointer(dbt_wire *wire, uint64_t at, uint64_t n) {
    uint64_t resident;
    const uint8_t *const p = span(wire, at, &resident);
    return p && resident >= n ? p : NULL;
}

bool dbt_wire_copy(dbt_wire *wire, uint64_t at, uint64_t n, void *dst) {
    unsigned char *out = dst;
    while (n > 0) {
        uint64_t resident;
        const uint8_t *const p = span(wire, at, &resident);
        if (!p) return false;
        const uint64_t part = resident < n ? resident : n;
        memcpy(out, p, (size_t)part);
        out += part;
        at += part;
        n -= part;
    }
    return true;
}

static bool fail(dbt_wire_message *m, const char *why) {
    m->wrong = why;
    return false;
}

static bool read_varint(dbt_wire_message *m, uint64_t *out) {
    uint64_t value = 0, resident = 0;
    const uint8_t *p = NULL;
    for (uint64_t i = 0; i < 10; i++) {
        if (i == m->end - m->at) return fail(m, "the message ends inside a varint");
        if (resident == 0) {
            p = span(m->wire, m->at + i, &resident);
            if (!p) return fail(m, dbt_wire_not_resident);
        }
        const uint8_t byte = *p++;
        resident--;
        if (i == 9 && byte > 1) return fail(m, "a varint has more than 64 bits");
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80)) {
            m->at += i + 1;
            *out = value;
            return true;
        }
    }
    return fail(m, "a varint has more than 64 bits");
}

static bool read_fixed(dbt_wire_message *m, unsigned n, uint64_t *out) {
    uint8_t bytes[8];
    if (m->end - m->at < n) return fail(m, "the message ends inside a number");
    if (!dbt_wire_copy(m->wire, m->at, n, bytes)) return fail(m, dbt_wire_not_resident);
    *out = 0;
    for (unsigned i = 0; i < n; i++) *out |= (uint64_t)bytes[i] << (8 * i);
    m->at += n;
    return true;
}

static bool read_field(dbt_wire_message *m, dbt_wire_field *field) {
    uint64_t tag;
    if (!read_varint(m, &tag)) return false;
    if (tag >> 3 == 0 || tag >> 32 != 0) return fail(m, "a field's number is out of range");
    *field = (dbt_wire_field){.number = (uint32_t)(tag >> 3), .type = (dbt_wire_type)(tag & 7)};
    switch (tag & 7) {
    case DBT_WIRE_VARINT: return read_varint(m, &field->value);
    case DBT_WIRE_FIXED64: return read_fixed(m, 8, &field->value);
    case DBT_WIRE_FIXED32: return read_fixed(m, 4, &field->value);
    case DBT_WIRE_BYTES:
        if (!read_varint(m, &field->bytes)) return false;
        if (field->bytes > m->end - m->at) {
            return fail(m, "a field's length goes beyond the end of its message");
        }
        field->at = m->at;
        m->at += field->bytes;
        return true;
    case 3:
    case 4: return fail(m, "a field is a group, which ONNX does not use");
    default: return fail(m, "a field has an unknown wire type");
    }
}

bool dbt_wire_next(dbt_wire_message *message, dbt_wire_field *field) {
    if (message->wrong || message->at == message->end) return false;
    const uint64_t begin = message->at;
    if (read_field(message, field)) return true;
    message->at = begin;
    return false;
}

dbt_wire_message dbt_wire_inside(const dbt_wire_message *message, const dbt_wire_field *field) {
    return (dbt_wire_message){message->wire, field->at, field->at + field->bytes, NULL};
}

bool dbt_wire_values_begin(const dbt_wire_message *message, const dbt_wire_field *field,
                           dbt_wire_type type, dbt_wire_values *values) {
    *values = (dbt_wire_values){.type = type};
    if (field->type == DBT_WIRE_BYTES) {
        values->message = dbt_wire_inside(message, field);
    } else {
        values->single = true;
        values->value = field->value;
    }
    return field->type == DBT_WIRE_BYTES || field->type == type;
}

bool dbt_wire_values_next(dbt_wire_values *values, uint64_t *value) {
    if (values->single) {
        values->single = false;
        *value = values->value;
        return true;
    }
    dbt_wire_message *const m = &values->message;
    if (m->wrong || m->at == m->end) return false;
    if (values->type == DBT_WIRE_VARINT) return read_varint(m, value);
    return read_fixed(m, values->type == DBT_WIRE_FIXED64 ? 8 : 4, value);
}

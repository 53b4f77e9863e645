/* Errors with their place, counting, and strings, for the files that parse messages. */
#include "onnx/onnx_parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "onnx/onnx_fields.h"

/* Names are cut so that the sentence after them stays readable. */
enum { NAME_SHOWN = 80, PLACES_SHOWN = 3, PLACE_BYTES = 400 };

static void print_place(const dbt_place *place, char text[PLACE_BYTES]) {
    const dbt_place *shown[PLACES_SHOWN];
    int n = 0;
    for (const dbt_place *at = place; at && n < PLACES_SHOWN; at = at->parent) shown[n++] = at;
    size_t used = 0;
    text[0] = 0;
    while (n-- > 0) {
        const char *const gap = used ? ": " : "";
        const int printed = shown[n]->name && shown[n]->name[0]
                                ? snprintf(text + used, PLACE_BYTES - used, "%s%s '%.*s'", gap,
                                           shown[n]->what, NAME_SHOWN, shown[n]->name)
                                : snprintf(text + used, PLACE_BYTES - used, "%s%s %u", gap,
                                           shown[n]->what, shown[n]->index);
        used += printed > 0 ? (size_t)printed : 0;
    }
}

const char *dbt_parse_where(const dbt_parse *p, const dbt_place *place) {
    char text[PLACE_BYTES];
    print_place(place, text);
    return dbt_arena_format(p->arena, "%s", text);
}

dibit_status dbt_parse_fail(const dbt_parse *p, const dbt_place *place, dibit_status status,
                            const char *format, ...) {
    if (!p->error) return status;
    char where[PLACE_BYTES], sentence[sizeof p->error->text];
    print_place(place, where);
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return dbt_fail(p->error, status, "'%.*s': %s%s%s", NAME_SHOWN, p->source->name, where,
                    where[0] ? ": " : "", sentence);
}

dibit_status dbt_parse_fail_memory(const dbt_parse *p, const dbt_place *place) {
    return dbt_parse_fail(p, place, DIBIT_OUT_OF_MEMORY, "out of memory");
}

dibit_status dbt_parse_end(const dbt_parse *p, const dbt_place *place, const dbt_wire_message *m) {
    if (!m->wrong) return DIBIT_OK;
    return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "malformed at byte %llu: %s",
                          (unsigned long long)m->at, m->wrong);
}

dibit_status dbt_parse_type(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                            dbt_wire_type type, const char *field_name) {
    if (f->type == type) return DIBIT_OK;
    return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "field '%s' has wire type %d instead of %d",
                          field_name, (int)f->type, (int)type);
}

dibit_status dbt_parse_count(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                             uint64_t min_bytes, const char *field_name, uint32_t *n) {
    DBT_TRY(dbt_parse_type(p, place, f, DBT_WIRE_BYTES, field_name));
    if (f->bytes < min_bytes) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "%s %u is empty", field_name, *n);
    }
    if (*n == INT32_MAX) {
        return dbt_parse_fail(p, place, DIBIT_TOO_LARGE, "more than %u of '%s'", *n, field_name);
    }
    ++*n;
    return DIBIT_OK;
}

dibit_status dbt_parse_array(const dbt_parse *p, const dbt_place *place, uint64_t n, size_t bytes,
                             void *out) {
    void *const array = n ? dbt_arena_array(p->arena, n, bytes) : NULL;
    if (n && !array) return dbt_parse_fail_memory(p, place);
    memcpy(out, &array, sizeof array); /* out is the address of a pointer of any type */
    return DIBIT_OK;
}

/* Unicode's table 3-7: no surrogates, no overlong forms, nothing above U+10FFFF. */
static bool is_utf8(const unsigned char *s) {
    while (*s) {
        if (*s < 0x80) {
            s++;
            continue;
        }
        const unsigned n = *s >= 0xf0 ? 3 : *s >= 0xe0 ? 2 : 1;
        const unsigned char lo = *s == 0xe0 ? 0xa0 : *s == 0xf0 ? 0x90 : 0x80;
        const unsigned char hi = *s == 0xed ? 0x9f : *s == 0xf4 ? 0x8f : 0xbf;
        if (*s < 0xc2 || *s > 0xf4 || s[1] < lo || s[1] > hi) return false;
        for (unsigned i = 2; i <= n; i++) {
            if ((s[i] & 0xc0) != 0x80) return false;
        }
        s += n + 1;
    }
    return true;
}

dibit_status dbt_parse_text(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                            const char *field_name, const char **out) {
    DBT_TRY(dbt_parse_type(p, place, f, DBT_WIRE_BYTES, field_name));
    if (f->bytes == 0) {
        *out = "";
        return DIBIT_OK;
    }
    char *const text = dbt_arena_alloc_aligned(p->arena, f->bytes + 1, 1);
    if (!text) return dbt_parse_fail_memory(p, place);
    if (!dbt_wire_copy(p->wire, f->at, f->bytes, text)) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "field '%s': %s", field_name,
                              dbt_wire_not_resident);
    }
    if (memchr(text, 0, (size_t)f->bytes)) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "field '%s' has a NUL in its text",
                              field_name);
    }
    *out = text;
    return DIBIT_OK;
}

dibit_status dbt_parse_string(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                              const char *field_name, const char **out) {
    const char *text;
    DBT_TRY(dbt_parse_text(p, place, f, field_name, &text));
    if (!is_utf8((const unsigned char *)text)) {
        return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "field '%s' is not UTF-8", field_name);
    }
    *out = text;
    return DIBIT_OK;
}

dibit_status dbt_parse_domain(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                              const char **out) {
    DBT_TRY(dbt_parse_string(p, place, f, "domain", out));
    if (strcmp(*out, "ai.onnx") == 0) *out = "";
    return DIBIT_OK;
}

dibit_status dbt_parse_entry(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                             const char **key, const char **value) {
    *key = *value = "";
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        if (f.number == ENTRY_KEY) DBT_TRY(dbt_parse_string(p, place, &f, "key", key));
        if (f.number == ENTRY_VALUE) DBT_TRY(dbt_parse_string(p, place, &f, "value", value));
    }
    return dbt_parse_end(p, place, &m);
}

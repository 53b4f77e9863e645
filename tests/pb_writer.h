/* A protobuf writer, to build model files (also malformed ones) by hand in tests. */
#ifndef DBT_TESTS_PB_WRITER_H
#define DBT_TESTS_PB_WRITER_H

#include "dbt_test.h"

typedef struct pb {
    uint8_t *data;
    size_t n, capacity;
} pb;

static inline void pb_raw(pb *p, const void *data, size_t n) {
    if (p->n + n > p->capacity) {
        p->capacity = (p->n + n) * 2 + 64;
        p->data = realloc(p->data, p->capacity);
        assert_non_null(p->data);
    }
    if (n) memcpy(p->data + p->n, data, n);
    p->n += n;
}

static inline void pb_free(pb *p) {
    free(p->data);
    *p = (pb){0};
}

static inline void pb_bare_varint(pb *p, uint64_t v) {
    do {
        const uint8_t byte = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        pb_raw(p, &byte, 1);
        v >>= 7;
    } while (v);
}

static inline void pb_tag(pb *p, uint32_t field, unsigned type) {
    pb_bare_varint(p, (uint64_t)field << 3 | type);
}

static inline void pb_varint(pb *p, uint32_t field, uint64_t v) {
    pb_tag(p, field, 0);
    pb_bare_varint(p, v);
}

static inline void pb_fixed(pb *p, uint64_t bits, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) {
        const uint8_t byte = (uint8_t)(bits >> (8 * i));
        pb_raw(p, &byte, 1);
    }
}

static inline void pb_bare_float(pb *p, float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    pb_fixed(p, bits, 4);
}

static inline void pb_float(pb *p, uint32_t field, float f) {
    pb_tag(p, field, 5);
    pb_bare_float(p, f);
}

static inline void pb_double(pb *p, uint32_t field, double f) {
    uint64_t bits;
    memcpy(&bits, &f, 8);
    pb_tag(p, field, 1);
    pb_fixed(p, bits, 8);
}

static inline void pb_bytes(pb *p, uint32_t field, const void *data, size_t n) {
    pb_tag(p, field, 2);
    pb_bare_varint(p, n);
    pb_raw(p, data, n);
}

static inline void pb_text(pb *p, uint32_t field, const char *text) {
    pb_bytes(p, field, text, strlen(text));
}

/* Appends `inner` as a field, and frees it. */
static inline void pb_message(pb *p, uint32_t field, pb *inner) {
    pb_bytes(p, field, inner->data, inner->n);
    pb_free(inner);
}

static inline void pb_entry(pb *p, uint32_t field, const char *key, const char *value) {
    pb entry = {0};
    pb_text(&entry, 1, key);
    pb_text(&entry, 2, value);
    pb_message(p, field, &entry);
}

#endif

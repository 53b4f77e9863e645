/* What the tests of the ONNX reader share: an allocator that counts and has a cap, loading from
 * bytes, and a model as text. */
#ifndef DBT_TESTS_ONNX_TEST_H
#define DBT_TESTS_ONNX_TEST_H

#include "onnx/onnx.h"
#include "onnx/onnx_fields.h"
#include "pb_writer.h"

typedef struct counter {
    uint64_t live, peak, cap; /* bytes; cap 0: none */
    uint64_t calls, fail_at;  /* fail_at n: the n-th allocation fails */
} counter;

static inline void *counter_alloc(void *user, size_t bytes, size_t alignment) {
    counter *const c = user;
    if (++c->calls == c->fail_at) return NULL;
    if (c->cap && c->live + bytes > c->cap) return NULL;
    c->live += bytes;
    if (c->live > c->peak) c->peak = c->live;
    return dbt_default_allocator.alloc(NULL, bytes, alignment);
}

static inline void counter_release(void *user, void *memory, size_t bytes) {
    counter *const c = user;
    c->live -= bytes;
    dbt_default_allocator.release(NULL, memory, bytes);
}

static inline dibit_allocator counter_allocator(counter *c) {
    return (dibit_allocator){counter_alloc, counter_release, c};
}

/* A loaded model and what has to be freed with it. */
typedef struct loaded {
    counter counter;
    dbt_source source;
    dbt_arena arena;
    dbt_onnx_reader *reader;
    const dbt_onnx_model *model;
    uint64_t polls;
    dibit_error error;
} loaded;

/* Loads with `desc`'s path and open_external; l->counter's caps are the caller's. */
static inline dibit_status load_source(loaded *l, dbt_onnx_reader_desc desc) {
    const dibit_allocator allocator = counter_allocator(&l->counter);
    dbt_arena_init(&l->arena, &allocator);
    desc.source = &l->source;
    desc.arena = &l->arena;
    dibit_status status = dbt_onnx_reader_create(&desc, &l->reader, &l->error);
    if (status == DIBIT_OK) {
        do {
            l->polls++;
            status = dbt_onnx_reader_poll(l->reader, &l->model, &l->error);
        } while (status == DIBIT_PENDING);
    }
    return status;
}

static inline dibit_status load_bytes(loaded *l, const void *data, size_t n) {
    dbt_source_from_buffer(data, n, "m.onnx", &l->source);
    return load_source(l, (dbt_onnx_reader_desc){0});
}

static inline void unload(loaded *l) {
    dbt_onnx_reader_destroy(&l->reader);
    dbt_arena_free(&l->arena);
    dbt_source_close(&l->source);
    assert_int_equal(l->counter.live, 0);
    *l = (loaded){0};
}

/* ---- A model as text ------------------------------------------------------------------------ */

typedef struct text {
    char *data;
    size_t n, capacity;
} text;

static inline void put(text *t, const char *format, ...) DBT_PRINTF(2, 3);
static inline void put(text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (t->n + (size_t)n + 1 > t->capacity) {
        t->capacity = (t->n + (size_t)n) * 2 + 256;
        t->data = realloc(t->data, t->capacity);
        assert_non_null(t->data);
    }
    va_start(args, format);
    vsnprintf(t->data + t->n, (size_t)n + 1, format, args);
    va_end(args);
    t->n += (size_t)n;
}

static inline void put_names(text *t, const char *what, const char *const *names, uint32_t n) {
    put(t, " %s(", what);
    for (uint32_t i = 0; i < n; i++) put(t, "%s'%s'", i ? "," : "", names[i]);
    put(t, ")");
}

static inline void put_constant(text *t, dbt_constant *c) {
    put(t, "'%s' %s[", c->name, dibit_type_name(c->type));
    for (int32_t i = 0; i < c->rank; i++) put(t, "%s%lld", i ? "," : "", (long long)c->dims[i]);
    put(t, "]");
    if (c->strings) {
        for (int64_t i = 0; i < c->count; i++) put(t, " \"%s\"", c->strings[i]);
        put(t, "\n");
        return;
    }
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    dbt_constant copy = *c;
    dibit_status status;
    while ((status = dbt_constant_load(&copy, &arena, NULL)) == DIBIT_PENDING) {
    }
    assert_int_equal(status, DIBIT_OK);
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    const unsigned char *const data = copy.data;
    for (uint64_t i = 0; i < c->bytes.bytes; i++) hash = (hash ^ data[i]) * 0x100000001b3u;
    put(t, " %llu:%016llx\n", (unsigned long long)c->bytes.bytes, (unsigned long long)hash);
    dbt_arena_free(&arena);
}

static inline void put_graph(text *t, const dbt_onnx_graph *g);

static inline void put_attr(text *t, const dbt_onnx_attr *a) {
    put(t, "  %s kind %d", a->name, (int)a->kind);
    if (a->reference) put(t, " ref %s", a->reference);
    if (a->kind == DBT_ONNX_ATTR_FLOAT) put(t, " %.9g", (double)a->f);
    if (a->kind == DBT_ONNX_ATTR_INT) put(t, " %lld", (long long)a->i);
    if (a->kind == DBT_ONNX_ATTR_STRING) put(t, " \"%s\"", a->s);
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->kind == DBT_ONNX_ATTR_FLOATS) put(t, " %.9g", (double)a->floats[i]);
        if (a->kind == DBT_ONNX_ATTR_INTS) put(t, " %lld", (long long)a->ints[i]);
        if (a->kind == DBT_ONNX_ATTR_STRINGS) put(t, " \"%s\"", a->strings[i]);
    }
    if (a->tensor) {
        dbt_constant c = *a->tensor;
        put(t, " ");
        put_constant(t, &c);
    } else {
        put(t, "\n");
    }
    if (a->graph) put_graph(t, a->graph);
}

static inline void put_nodes(text *t, const dbt_onnx_node *nodes, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const dbt_onnx_node *const node = &nodes[i];
        put(t, "node '%s' %s domain '%s' overload '%s'", node->name, node->op_type, node->domain,
            node->overload);
        put_names(t, "in", node->inputs, node->n_inputs);
        put_names(t, "out", node->outputs, node->n_outputs);
        put(t, "\n");
        for (uint32_t k = 0; k < node->n_attrs; k++) put_attr(t, &node->attrs[k]);
    }
}

static inline void put_infos(text *t, const char *what, const dbt_onnx_value_info *infos,
                             uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const dbt_onnx_value_info *const v = &infos[i];
        put(t, "%s '%s' %s", what, v->name, v->kind);
        if (v->is_tensor) put(t, " %s", dibit_type_name(v->type));
        if (v->is_tensor && v->rank >= 0) {
            put(t, "[");
            for (int32_t k = 0; k < v->rank; k++) {
                put(t, k ? "," : "");
                if (v->dims[k].param) {
                    put(t, "'%s'", v->dims[k].param);
                } else {
                    put(t, "%lld", (long long)v->dims[k].value);
                }
            }
            put(t, "]");
        }
        put(t, "\n");
    }
}

static inline void put_graph(text *t, const dbt_onnx_graph *g) {
    put(t, "graph '%s'\n", g->name);
    put_infos(t, "input", g->inputs, g->n_inputs);
    put_infos(t, "output", g->outputs, g->n_outputs);
    put_infos(t, "info", g->value_infos, g->n_value_infos);
    for (uint32_t i = 0; i < g->n_initializers; i++) {
        dbt_constant c = g->initializers[i];
        put(t, "init ");
        put_constant(t, &c);
    }
    put_nodes(t, g->nodes, g->n_nodes);
    put(t, "end\n");
}

static inline void put_opsets(text *t, const dbt_onnx_opset *opsets, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        put(t, "opset '%s' %lld\n", opsets[i].domain, (long long)opsets[i].version);
    }
}

static inline void put_model(text *t, const dbt_onnx_model *m) {
    put(t, "ir %lld producer '%s' '%s'\n", (long long)m->ir_version, m->producer_name,
        m->producer_version);
    put_opsets(t, m->opsets, m->n_opsets);
    for (uint32_t i = 0; i < m->n_metadata; i++) {
        put(t, "metadata '%s' '%s'\n", m->metadata[i].key, m->metadata[i].value);
    }
    for (uint32_t i = 0; i < m->n_functions; i++) {
        const dbt_onnx_function *const f = &m->functions[i];
        put(t, "function '%s' domain '%s' overload '%s'", f->name, f->domain, f->overload);
        put_names(t, "in", f->inputs, f->n_inputs);
        put_names(t, "out", f->outputs, f->n_outputs);
        put_names(t, "attrs", f->attr_names, f->n_attr_names);
        put(t, "\n");
        put_opsets(t, f->opsets, f->n_opsets);
        for (uint32_t k = 0; k < f->n_attr_defaults; k++) put_attr(t, &f->attr_defaults[k]);
        put_nodes(t, f->nodes, f->n_nodes);
    }
    put_graph(t, m->graph);
}

#endif

/* A model made up for `dibit trace`: one MatMulNBits with random weights, as the bytes of an .onnx file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"

/* ---- Protocol buffers: fields of a message, one after the other ---------------------------------- */

typedef struct message {
    char *data;
    size_t n, capacity;
} message;

static void append(void *user, const char *data, size_t n) {
    message *const m = user;
    if (m->n + n > m->capacity) {
        m->capacity = (m->n + n) * 2;
        char *const grown = dibit_cli_alloc(m->capacity, 1);
        if (m->n) memcpy(grown, m->data, m->n);
        free(m->data);
        m->data = grown;
    }
    if (n) memcpy(m->data + m->n, data, n);
    m->n += n;
}

static void varint(message *m, uint64_t v) {
    do {
        const char byte = (char)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        append(m, &byte, 1);
        v >>= 7;
    } while (v);
}

static void integer(message *m, uint32_t field, uint64_t v) {
    varint(m, field << 3);
    varint(m, v);
}

static void bytes(message *m, uint32_t field, const char *data, size_t n) {
    varint(m, field << 3 | 2);
    varint(m, n);
    append(m, data, n);
}

static void text(message *m, uint32_t field, const char *s) { bytes(m, field, s, strlen(s)); }

/* The part becomes a field, and is freed. */
static void nest(message *m, uint32_t field, message *part) {
    bytes(m, field, part->data, part->n);
    free(part->data);
    *part = (message){0};
}

/* ---- ONNX ------------------------------------------------------------------------------------- */

enum { GRAPH_NODE = 1, GRAPH_NAME = 2, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };

static void add_attribute(message *node, const char *name, uint64_t v) {
    enum { NAME = 1, I = 3, TYPE = 20, TYPE_INT = 2, NODE_ATTRIBUTE = 5 };
    message a = {0};
    text(&a, NAME, name);
    integer(&a, I, v);
    integer(&a, TYPE, TYPE_INT);
    nest(node, NODE_ATTRIBUTE, &a);
}

static void add_value(message *graph, uint32_t field, const char *name, uint64_t rows,
                      uint64_t columns) {
    const uint64_t dims[] = {rows, columns};
    message value = {0}, type = {0}, tensor = {0}, shape = {0};
    for (int i = 0; i < 2; i++) {
        message dim = {0};
        integer(&dim, 1, dims[i]);
        nest(&shape, 1, &dim);
    }
    integer(&tensor, 1, DIBIT_TYPE_FLOAT);
    nest(&tensor, 2, &shape);
    nest(&type, 1, &tensor);
    text(&value, 1, name);
    nest(&value, 2, &type);
    nest(graph, field, &value);
}

static void add_opset(message *model, const char *domain, uint64_t version) {
    message opset = {0};
    text(&opset, 1, domain);
    integer(&opset, 2, version);
    nest(model, 8, &opset);
}

/* ---- Weights ------------------------------------------------------------------------------------ */

typedef struct weights {
    const trace_sizes *s;
    message *graph, *node;
    uint64_t random, k_blocks;
    dibit_error *error;
} weights;

static uint64_t draw(weights *w) { /* xorshift64* */
    w->random ^= w->random >> 12;
    w->random ^= w->random << 25;
    w->random ^= w->random >> 27;
    return w->random * 0x2545f4914f6cdd1du >> 11;
}

/* An initializer, which is the node's next input. */
static bool add_constant(weights *w, const char *name, dibit_type type, uint64_t n, void *data) {
    const dibit_tensor t = {
        .name = name, .type = type, .rank = 1, .dims = {(int64_t)n}, .data = data};
    message part = {0};
    const bool ok = dibit_tensor_write(&t, append, &part, w->error) == DIBIT_OK;
    text(w->node, 1, name);
    nest(w->graph, GRAPH_INITIALIZER, &part);
    return ok;
}

static bool add_bytes(weights *w, const char *name, uint64_t n) {
    uint8_t *const data = dibit_cli_alloc((size_t)n, 1);
    for (uint64_t i = 0; i < n; i++) data[i] = (uint8_t)draw(w);
    const bool ok = add_constant(w, name, DIBIT_TYPE_UINT8, n, data);
    free(data);
    return ok;
}

/* Multiples of `step`, `values` of them from `first` on. */
static bool add_floats(weights *w, const char *name, dibit_type type, uint64_t n, float first,
                       float step, uint64_t values) {
    float *const floats = dibit_cli_alloc((size_t)n, sizeof *floats);
    void *const data = dibit_cli_alloc((size_t)n, sizeof *floats);
    for (uint64_t i = 0; i < n; i++) floats[i] = first + step * (float)(draw(w) % values);
    const dibit_tensor from = {
        .type = DIBIT_TYPE_FLOAT, .rank = 1, .dims = {(int64_t)n}, .data = floats};
    dibit_tensor to = {.type = type, .data = data, .bytes = n * sizeof *floats};
    const bool ok = dibit_tensor_convert(&from, &to, w->error) == DIBIT_OK &&
                    add_constant(w, name, type, n, data);
    free(data);
    free(floats);
    return ok;
}

static bool add_g_idx(weights *w) {
    int32_t *const data = dibit_cli_alloc(w->s->K, sizeof *data);
    for (uint32_t k = 0; k < w->s->K; k++) data[k] = (int32_t)(draw(w) % w->k_blocks);
    const bool ok = add_constant(w, "g_idx", DIBIT_TYPE_INT32, w->s->K, data);
    free(data);
    return ok;
}

static dibit_type type_of(const char *name) {
    static const dibit_type types[] = {DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT16, DIBIT_TYPE_BFLOAT16};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(dibit_type_name(types[i]), name) == 0) return types[i];
    }
    return DIBIT_TYPE_UNDEFINED;
}

static bool add_weights(weights *w) {
    const trace_sizes *const s = w->s;
    const uint64_t N = s->N, n_blocks = N * w->k_blocks;
    const dibit_type scales = type_of(s->scales), zero_points = type_of(s->zero_points);
    bool ok = add_bytes(w, "B", n_blocks * (s->block * (uint64_t)s->bits / 8)) &&
              add_floats(w, "scales", scales, n_blocks, -0.125f, 0x1p-6f, 17);
    if (strcmp(s->zero_points, "packed") == 0) {
        ok = ok && add_bytes(w, "zero_points", N * ((w->k_blocks * s->bits + 7) / 8));
    } else if (zero_points != DIBIT_TYPE_UNDEFINED) {
        ok = ok &&
             add_floats(w, "zero_points", zero_points, n_blocks, 0, 0.5f, UINT64_C(1) << s->bits);
    } else {
        text(w->node, 1, "");
    }
    if (s->g_idx) {
        ok = ok && add_g_idx(w);
    } else {
        text(w->node, 1, "");
    }
    if (s->bias) ok = ok && add_floats(w, "bias", DIBIT_TYPE_FLOAT, N, -1, 0.25f, 9);
    return ok;
}

char *trace_make_model(const trace_sizes *s, size_t *n_bytes, dibit_error *error) {
    enum { MODEL_IR_VERSION = 1, MODEL_GRAPH = 7 };
    message graph = {0}, node = {0}, model = {0};
    weights w = {.s = s,
                 .graph = &graph,
                 .node = &node,
                 .random = s->seed * 0x9e3779b97f4a7c15u + 1,
                 .k_blocks = (s->K + (uint64_t)s->block - 1) / s->block,
                 .error = error};
    text(&node, 1, "A");
    const bool ok = add_weights(&w);
    text(&node, 2, "Y");
    text(&node, 3, "node");
    text(&node, 4, "MatMulNBits");
    add_attribute(&node, "K", s->K);
    add_attribute(&node, "N", s->N);
    add_attribute(&node, "bits", s->bits);
    add_attribute(&node, "block_size", s->block);
    add_attribute(&node, "accuracy_level", 4);
    text(&node, 7, "com.microsoft");
    nest(&graph, GRAPH_NODE, &node);
    text(&graph, GRAPH_NAME, "trace");
    add_value(&graph, GRAPH_INPUT, "A", s->M, s->K);
    add_value(&graph, GRAPH_OUTPUT, "Y", s->M, s->N);
    integer(&model, MODEL_IR_VERSION, 10);
    nest(&model, MODEL_GRAPH, &graph);
    add_opset(&model, "", 21);
    add_opset(&model, "com.microsoft", 1);
    if (!ok) free(model.data);
    *n_bytes = model.n;
    return ok ? model.data : NULL;
}

/* Writes small ONNX models as bytes, for tests of everything behind the reader. */
#ifndef DBT_TESTS_MODEL_WRITER_H
#define DBT_TESTS_MODEL_WRITER_H

#include "dibit/dibit.h"
#include "onnx/onnx_fields.h"
#include "pb_writer.h"

/* Words of a string separated by blanks; "-" stands for an absent input. */
static inline void write_names(pb *message, uint32_t field, const char *names) {
    while (*names) {
        while (*names == ' ') names++;
        const size_t n = strcspn(names, " ");
        if (n == 1 && *names == '-') {
            pb_bytes(message, field, "", 0);
        } else if (n) {
            pb_bytes(message, field, names, n);
        }
        names += n;
    }
}

/* A tensor type "float 2 seq 64": the dims are numbers or symbols. NULL: no shape. */
static inline void write_value(pb *graph, uint32_t field, const char *name, dibit_type type,
                               const char *dims) {
    pb value = {0}, type_proto = {0}, tensor = {0}, shape = {0};
    while (dims && *dims) {
        while (*dims == ' ') dims++;
        const size_t n = strcspn(dims, " ");
        if (n == 0) break;
        pb dim = {0};
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)n, dims);
        if (word[0] >= '0' && word[0] <= '9') {
            pb_varint(&dim, 1, (uint64_t)atoll(word));
        } else {
            pb_text(&dim, 2, word);
        }
        pb_message(&shape, 1, &dim);
        dims += n;
    }
    pb_varint(&tensor, 1, (uint64_t)type);
    if (dims) pb_message(&tensor, 2, &shape);
    pb_message(&type_proto, 1, &tensor);
    pb_text(&value, 1, name);
    pb_message(&value, 2, &type_proto);
    pb_message(graph, field, &value);
}

static inline void graph_input(pb *graph, const char *name, dibit_type type, const char *dims) {
    write_value(graph, GRAPH_INPUT, name, type, dims);
}
static inline void graph_output(pb *graph, const char *name, dibit_type type, const char *dims) {
    write_value(graph, GRAPH_OUTPUT, name, type, dims);
}

static inline void graph_constant(pb *graph, const char *name, dibit_type type, int32_t rank,
                                  const int64_t *dims, const void *data) {
    pb tensor = {0};
    uint64_t count = 1;
    for (int32_t i = 0; i < rank; i++) {
        pb_varint(&tensor, 1, (uint64_t)dims[i]);
        count *= (uint64_t)dims[i];
    }
    pb_varint(&tensor, 2, (uint64_t)type);
    pb_text(&tensor, 8, name);
    pb_bytes(&tensor, 9, data, (size_t)((count * dibit_type_bits(type) + 7) / 8));
    pb_message(graph, GRAPH_INITIALIZER, &tensor);
}

static inline void graph_int64s(pb *graph, const char *name, int64_t n, const int64_t *v) {
    graph_constant(graph, name, DIBIT_TYPE_INT64, 1, &n, v);
}

static inline void attr_int(pb *attrs, const char *name, int64_t v) {
    pb a = {0};
    pb_text(&a, 1, name);
    pb_varint(&a, 3, (uint64_t)v);
    pb_varint(&a, 20, 2);
    pb_message(attrs, 5, &a);
}

static inline void attr_graph(pb *attrs, const char *name, pb *graph) {
    pb a = {0};
    pb_text(&a, 1, name);
    pb_message(&a, 6, graph);
    pb_varint(&a, 20, 5);
    pb_message(attrs, 5, &a);
}

/* attrs (made by attr_*, may be NULL) is used up. */
static inline void graph_node(pb *graph, const char *domain, const char *op, const char *inputs,
                              const char *outputs, pb *attrs) {
    pb node = {0};
    write_names(&node, 1, inputs);
    write_names(&node, 2, outputs);
    pb_text(&node, 4, op);
    if (domain[0]) pb_text(&node, 7, domain);
    if (attrs) {
        pb_raw(&node, attrs->data, attrs->n);
        pb_free(attrs);
    }
    pb_message(graph, GRAPH_NODE, &node);
}

static inline void write_opset(pb *message, uint32_t field, const char *domain, uint64_t version) {
    pb opset = {0};
    pb_text(&opset, 1, domain);
    pb_varint(&opset, 2, version);
    pb_message(message, field, &opset);
}

/* The model around a graph (used up): IR 10, opset 22 of ai.onnx, 1 of com.microsoft and "local".
 * functions (may be NULL) holds FunctionProto fields of the model, and is used up. */
static inline pb model_of(pb *graph, pb *functions) {
    pb model = {0};
    pb_varint(&model, 1, 10);
    pb_message(&model, 7, graph);
    write_opset(&model, 8, "", 22);
    write_opset(&model, 8, "com.microsoft", 1);
    write_opset(&model, 8, "local", 1);
    if (functions) {
        pb_raw(&model, functions->data, functions->n);
        pb_free(functions);
    }
    return model;
}

#endif

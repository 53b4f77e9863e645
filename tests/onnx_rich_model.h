/* A hand-built model that has every field that the reader looks at, and some that it skips. Used as
 * it is, streamed, truncated and mutated. */
#ifndef DBT_TESTS_ONNX_RICH_MODEL_H
#define DBT_TESTS_ONNX_RICH_MODEL_H

#include "onnx_test.h"

/* begin the message, append what the caller adds, close it with pb_message */
static inline pb tensor_begin(const char *name, uint64_t type, const int64_t *dims, size_t rank) {
    pb t = {0}, packed = {0};
    for (size_t i = 0; i < rank; i++) pb_bare_varint(&packed, (uint64_t)dims[i]);
    if (rank) pb_message(&t, TENSOR_DIMS, &packed);
    pb_varint(&t, TENSOR_DATA_TYPE, type);
    if (name) pb_text(&t, TENSOR_NAME, name);
    return t;
}

static inline pb attr_begin(const char *name, uint64_t type) {
    pb a = {0};
    pb_text(&a, ATTR_NAME, name);
    if (type) pb_varint(&a, ATTR_TYPE, type);
    return a;
}

static inline pb node_begin(const char *op_type, const char *input, const char *output) {
    pb n = {0};
    if (input) pb_text(&n, NODE_INPUT, input);
    if (output) pb_text(&n, NODE_OUTPUT, output);
    pb_text(&n, NODE_OP_TYPE, op_type);
    return n;
}

/* dims: n >= 0, or -1 for a parameter named "n", or -2 for nothing. */
static inline pb value_info(const char *name, uint64_t type, const int64_t *dims, size_t rank) {
    pb v = {0}, type_proto = {0}, tensor = {0}, shape = {0};
    for (size_t i = 0; i < rank; i++) {
        pb dim = {0};
        if (dims[i] >= 0) pb_varint(&dim, DIM_VALUE, (uint64_t)dims[i]);
        if (dims[i] == -1) pb_text(&dim, DIM_PARAM, "n");
        pb_text(&dim, 3, "DATA_BATCH"); /* denotation */
        pb_message(&shape, SHAPE_DIM, &dim);
    }
    pb_varint(&tensor, TENSOR_TYPE_ELEM, type);
    pb_message(&tensor, TENSOR_TYPE_SHAPE, &shape);
    pb_message(&type_proto, TYPE_TENSOR, &tensor);
    pb_text(&v, VALUE_INFO_NAME, name);
    pb_message(&v, VALUE_INFO_TYPE, &type_proto);
    return v;
}

static inline pb opset(const char *domain, uint64_t version) {
    pb o = {0};
    if (domain) pb_text(&o, OPSET_DOMAIN, domain);
    pb_varint(&o, OPSET_VERSION, version);
    return o;
}

static inline pb rich_attr_node(void) {
    pb node = node_begin("Everything", "x", "y");
    pb_text(&node, NODE_INPUT, "");
    pb_text(&node, NODE_INPUT, "w");
    pb_text(&node, NODE_OUTPUT, "z");
    pb_text(&node, NODE_NAME, "attrs");
    pb_text(&node, NODE_DOMAIN, "com.example");
    pb_text(&node, NODE_OVERLOAD, "fast");
    pb_text(&node, 6, "a doc string");
    pb a = attr_begin("f", DBT_ONNX_ATTR_FLOAT);
    pb_float(&a, ATTR_F, 1.5f);
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("i", DBT_ONNX_ATTR_INT);
    pb_varint(&a, ATTR_I, (uint64_t)-7);
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("s", DBT_ONNX_ATTR_STRING);
    pb_text(&a, ATTR_S, "text \xc3\xa9");
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("t", DBT_ONNX_ATTR_TENSOR);
    pb t = tensor_begin("inner", DIBIT_TYPE_INT64, (int64_t[]){2}, 1);
    pb_varint(&t, TENSOR_INT64_DATA, 5); /* unpacked, as protobuf allows */
    pb_varint(&t, TENSOR_INT64_DATA, (uint64_t)-6);
    pb_message(&a, ATTR_T, &t);
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("floats", DBT_ONNX_ATTR_FLOATS); /* unpacked, as proto2 writes it */
    pb_float(&a, ATTR_FLOATS, 0.25f);
    pb_float(&a, ATTR_FLOATS, -2.0f);
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("floats_packed", DBT_ONNX_ATTR_FLOATS);
    pb packed = {0};
    for (int i = 0; i < 3; i++) pb_bare_float(&packed, (float)i);
    pb_message(&a, ATTR_FLOATS, &packed);
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("ints", DBT_ONNX_ATTR_INTS);
    for (uint64_t i = 0; i < 2; i++) pb_bare_varint(&packed, i * 300);
    pb_message(&a, ATTR_INTS, &packed);
    pb_varint(&a, ATTR_INTS, (uint64_t)INT64_MIN);
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("strings", DBT_ONNX_ATTR_STRINGS);
    pb_text(&a, ATTR_STRINGS, "one");
    pb_text(&a, ATTR_STRINGS, "");
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("type_protos", 14);
    pb_bytes(&a, 15, "", 0);
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("untyped", 0); /* as IR version 1 had it */
    pb_varint(&a, ATTR_I, 3);
    pb_message(&node, NODE_ATTRIBUTE, &a);
    a = attr_begin("absent_zero", DBT_ONNX_ATTR_INT); /* as proto3 writers leave it out */
    pb_message(&node, NODE_ATTRIBUTE, &a);
    return node;
}

static inline pb rich_if_node(void) {
    pb node = node_begin("If", "c", "r"), a = attr_begin("then_branch", DBT_ONNX_ATTR_GRAPH);
    pb graph = {0}, t = tensor_begin("k", DIBIT_TYPE_FLOAT, NULL, 0);
    pb_float(&t, TENSOR_FLOAT_DATA, 2.5f);
    pb_text(&graph, GRAPH_NAME, "then");
    pb_message(&graph, GRAPH_INITIALIZER, &t);
    pb out = value_info("k", DIBIT_TYPE_FLOAT, NULL, 0);
    pb_message(&graph, GRAPH_OUTPUT, &out);
    pb_message(&a, ATTR_G, &graph);
    pb_message(&node, NODE_ATTRIBUTE, &a);
    return node;
}

static inline pb rich_function(void) {
    pb f = {0}, node = node_begin("Mul", "a", "b"), o = opset("", 17);
    pb a = attr_begin("alpha", DBT_ONNX_ATTR_FLOAT), ref = attr_begin("beta", DBT_ONNX_ATTR_FLOAT);
    pb_text(&ref, ATTR_REF_ATTR_NAME, "beta");
    pb_message(&node, NODE_ATTRIBUTE, &ref);
    pb_float(&a, ATTR_F, 0.5f);
    pb_text(&f, FUNCTION_NAME, "Everything");
    pb_text(&f, FUNCTION_DOMAIN, "com.example");
    pb_text(&f, FUNCTION_OVERLOAD, "fast");
    pb_text(&f, FUNCTION_INPUT, "a");
    pb_text(&f, FUNCTION_OUTPUT, "b");
    pb_text(&f, FUNCTION_ATTRIBUTE, "beta");
    pb_message(&f, FUNCTION_ATTRIBUTE_PROTO, &a);
    pb_message(&f, FUNCTION_NODE, &node);
    pb_message(&f, FUNCTION_OPSET_IMPORT, &o);
    return f;
}

/* big_bytes: the size of the initializer "big", in raw_data. */
static inline pb rich_model(size_t big_bytes) {
    pb m = {0}, g = {0}, part;
    pb_varint(&m, MODEL_IR_VERSION, 10);
    pb_text(&m, MODEL_PRODUCER_NAME, "hand");
    pb_text(&m, MODEL_PRODUCER_VERSION, "1.0");
    pb_text(&m, 6, "a doc string");
    part = opset("ai.onnx", 22);
    pb_message(&m, MODEL_OPSET_IMPORT, &part);
    part = opset("com.example", 1);
    pb_message(&m, MODEL_OPSET_IMPORT, &part);
    pb_entry(&m, MODEL_METADATA_PROPS, "key", "value");

    part = rich_attr_node();
    pb_message(&g, GRAPH_NODE, &part);
    part = rich_if_node();
    pb_message(&g, GRAPH_NODE, &part);
    pb_text(&g, GRAPH_NAME, "main");
    part = tensor_begin("w", DIBIT_TYPE_UINT8, (int64_t[]){1, 3}, 2);
    pb_bytes(&part, TENSOR_RAW_DATA, "\x01\x80\xff", 3);
    pb_message(&g, GRAPH_INITIALIZER, &part);
    part = tensor_begin("big", DIBIT_TYPE_INT8, (int64_t[]){(int64_t)big_bytes}, 1);
    uint8_t *const big = malloc(big_bytes + 1);
    for (size_t i = 0; i < big_bytes; i++) big[i] = (uint8_t)(i * 7 + i / 251);
    pb_bytes(&part, TENSOR_RAW_DATA, big, big_bytes);
    free(big);
    pb_message(&g, GRAPH_INITIALIZER, &part);
    part = tensor_begin("texts", DIBIT_TYPE_STRING, (int64_t[]){2}, 1);
    pb_text(&part, TENSOR_STRING_DATA, "a");
    pb_text(&part, TENSOR_STRING_DATA, "bc");
    pb_message(&g, GRAPH_INITIALIZER, &part);
    part = value_info("x", DIBIT_TYPE_FLOAT16, (int64_t[]){-1, 4, -2}, 3);
    pb_message(&g, GRAPH_INPUT, &part);
    part = value_info("z", DIBIT_TYPE_BOOL, NULL, 0);
    pb_message(&g, GRAPH_OUTPUT, &part);
    pb sequence = {0}, type = {0};
    part = (pb){0};
    pb_message(&type, TYPE_SEQUENCE, &sequence);
    pb_text(&part, VALUE_INFO_NAME, "list");
    pb_message(&part, VALUE_INFO_TYPE, &type);
    pb_message(&g, GRAPH_VALUE_INFO, &part);
    part = (pb){0};
    pb_text(&part, VALUE_INFO_NAME, "untyped");
    pb_message(&g, GRAPH_VALUE_INFO, &part);
    pb_message(&m, MODEL_GRAPH, &g);

    part = rich_function();
    pb_message(&m, MODEL_FUNCTIONS, &part);
    pb_double(&m, 99, 1.0); /* unknown fields of every wire type */
    pb_float(&m, 100, 1.0f);
    pb_varint(&m, 101, UINT64_MAX);
    pb_text(&m, 102, "unknown");
    return m;
}

#endif

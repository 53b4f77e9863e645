/* See onnx_write.h. A message stands behind its length: what writes it runs twice, at first into a sink
 * that only counts. So nothing is allocated, and payloads are not copied. */
#include "onnx/onnx_write.h"

#include <string.h>

#include "onnx/onnx_fields.h"
#include "onnx/wire.h"

typedef struct sink {
    dibit_write write; /* NULL: counts */
    void *user;
    uint64_t bytes;
} sink;

typedef void (*content)(sink *s, const void *thing);

static void put(sink *s, const void *data, uint64_t bytes) {
    s->bytes += bytes;
    if (s->write && bytes) s->write(s->user, data, (size_t)bytes);
}

static void put_varint(sink *s, uint64_t v) {
    char bytes[10];
    size_t n = 0;
    for (; v > 0x7f; v >>= 7) bytes[n++] = (char)((v & 0x7f) | 0x80);
    bytes[n++] = (char)v;
    put(s, bytes, n);
}

static void put_key(sink *s, uint32_t field, dbt_wire_type type) {
    put_varint(s, (uint64_t)field << 3 | type);
}

static void put_integer(sink *s, uint32_t field, int64_t v) {
    put_key(s, field, DBT_WIRE_VARINT);
    put_varint(s, (uint64_t)v);
}

static void put_fixed32(sink *s, float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    const char bytes[4] = {(char)bits, (char)(bits >> 8), (char)(bits >> 16), (char)(bits >> 24)};
    put(s, bytes, sizeof bytes);
}

static void put_bytes(sink *s, uint32_t field, const void *data, uint64_t bytes) {
    put_key(s, field, DBT_WIRE_BYTES);
    put_varint(s, bytes);
    put(s, data, bytes);
}

static void put_text(sink *s, uint32_t field, const char *text) {
    put_bytes(s, field, text, strlen(text));
}

/* A field that is left out where there is nothing to say. */
static void put_optional(sink *s, uint32_t field, const char *text) {
    if (text && text[0]) put_text(s, field, text);
}

static void put_message(sink *s, uint32_t field, content write, const void *thing) {
    sink counted = {0};
    write(&counted, thing);
    put_key(s, field, DBT_WIRE_BYTES);
    put_varint(s, counted.bytes);
    write(s, thing);
}

/* ---- Tensors ---- */

static void put_tensor(sink *s, const void *thing) {
    const dbt_constant *const c = thing;
    for (int32_t i = 0; i < c->rank; i++) put_integer(s, TENSOR_DIMS, c->dims[i]);
    put_integer(s, TENSOR_DATA_TYPE, c->type);
    put_optional(s, TENSOR_NAME, c->name);
    if (c->type == DIBIT_TYPE_STRING) {
        for (int64_t i = 0; i < c->count; i++) put_text(s, TENSOR_STRING_DATA, c->strings[i]);
    } else {
        put_bytes(s, TENSOR_RAW_DATA, c->data, c->bytes.bytes);
    }
}

/* ---- Values ---- */

static void put_dim(sink *s, const void *thing) {
    const dbt_onnx_dim *const dim = thing;
    if (dim->value >= 0) {
        put_integer(s, DIM_VALUE, dim->value);
    } else {
        put_optional(s, DIM_PARAM, dim->param);
    }
}

static void put_shape(sink *s, const void *thing) {
    const dbt_onnx_value_info *const info = thing;
    for (int32_t i = 0; i < info->rank; i++) put_message(s, SHAPE_DIM, put_dim, &info->dims[i]);
}

static void put_tensor_type(sink *s, const void *thing) {
    const dbt_onnx_value_info *const info = thing;
    put_integer(s, TENSOR_TYPE_ELEM, info->type);
    if (info->rank >= 0) put_message(s, TENSOR_TYPE_SHAPE, put_shape, info);
}

static void put_type(sink *s, const void *thing) {
    put_message(s, TYPE_TENSOR, put_tensor_type, thing);
}

static void put_value(sink *s, const void *thing) {
    const dbt_onnx_value_info *const info = thing;
    put_text(s, VALUE_INFO_NAME, info->name);
    if (info->is_tensor) put_message(s, VALUE_INFO_TYPE, put_type, info);
}

/* ---- Nodes and graphs ---- */

static void put_graph(sink *s, const void *thing);

static void put_attr(sink *s, const void *thing) {
    const dbt_onnx_attr *const a = thing;
    put_text(s, ATTR_NAME, a->name);
    put_optional(s, ATTR_REF_ATTR_NAME, a->reference);
    put_integer(s, ATTR_TYPE, a->kind);
    switch (a->kind) {
    case DBT_ONNX_ATTR_FLOAT:
        put_key(s, ATTR_F, DBT_WIRE_FIXED32);
        put_fixed32(s, a->f);
        return;
    case DBT_ONNX_ATTR_INT: put_integer(s, ATTR_I, a->i); return;
    case DBT_ONNX_ATTR_STRING:
        if (a->s) put_text(s, ATTR_S, a->s);
        return;
    case DBT_ONNX_ATTR_TENSOR:
        if (a->tensor) put_message(s, ATTR_T, put_tensor, a->tensor);
        return;
    case DBT_ONNX_ATTR_GRAPH:
        if (a->graph) put_message(s, ATTR_G, put_graph, a->graph);
        return;
    case DBT_ONNX_ATTR_FLOATS:
        for (uint32_t i = 0; i < a->count; i++) {
            put_key(s, ATTR_FLOATS, DBT_WIRE_FIXED32);
            put_fixed32(s, a->floats[i]);
        }
        return;
    case DBT_ONNX_ATTR_INTS:
        for (uint32_t i = 0; i < a->count; i++) put_integer(s, ATTR_INTS, a->ints[i]);
        return;
    case DBT_ONNX_ATTR_STRINGS:
        for (uint32_t i = 0; i < a->count; i++) put_text(s, ATTR_STRINGS, a->strings[i]);
        return;
    case DBT_ONNX_ATTR_UNDEFINED:
    case DBT_ONNX_ATTR_OTHER: return;
    }
}

static void put_node(sink *s, const void *thing) {
    const dbt_onnx_node *const node = thing;
    for (uint32_t i = 0; i < node->n_inputs; i++) put_text(s, NODE_INPUT, node->inputs[i]);
    for (uint32_t i = 0; i < node->n_outputs; i++) put_text(s, NODE_OUTPUT, node->outputs[i]);
    put_optional(s, NODE_NAME, node->name);
    put_text(s, NODE_OP_TYPE, node->op_type);
    put_optional(s, NODE_DOMAIN, node->domain);
    put_optional(s, NODE_OVERLOAD, node->overload);
    for (uint32_t i = 0; i < node->n_attrs; i++) {
        if (node->attrs[i].kind == DBT_ONNX_ATTR_OTHER) continue;
        put_message(s, NODE_ATTRIBUTE, put_attr, &node->attrs[i]);
    }
}

static void put_graph(sink *s, const void *thing) {
    const dbt_onnx_graph *const g = thing;
    for (uint32_t i = 0; i < g->n_nodes; i++) put_message(s, GRAPH_NODE, put_node, &g->nodes[i]);
    put_optional(s, GRAPH_NAME, g->name);
    for (uint32_t i = 0; i < g->n_initializers; i++) {
        put_message(s, GRAPH_INITIALIZER, put_tensor, &g->initializers[i]);
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        put_message(s, GRAPH_INPUT, put_value, &g->inputs[i]);
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        put_message(s, GRAPH_OUTPUT, put_value, &g->outputs[i]);
    }
    for (uint32_t i = 0; i < g->n_value_infos; i++) {
        put_message(s, GRAPH_VALUE_INFO, put_value, &g->value_infos[i]);
    }
}

/* ---- Files ---- */

static void put_opset(sink *s, const void *thing) {
    const dbt_onnx_opset *const opset = thing;
    put_text(s, OPSET_DOMAIN, opset->domain);
    put_integer(s, OPSET_VERSION, opset->version);
}

void dbt_onnx_write_model(const dbt_onnx_model *model, dibit_write write, void *user) {
    sink s = {.write = write, .user = user};
    put_integer(&s, MODEL_IR_VERSION, model->ir_version);
    put_optional(&s, MODEL_PRODUCER_NAME, model->producer_name);
    put_optional(&s, MODEL_PRODUCER_VERSION, model->producer_version);
    put_message(&s, MODEL_GRAPH, put_graph, model->graph);
    for (uint32_t i = 0; i < model->n_opsets; i++) {
        put_message(&s, MODEL_OPSET_IMPORT, put_opset, &model->opsets[i]);
    }
}

void dbt_onnx_write_tensor(const dbt_constant *tensor, dibit_write write, void *user) {
    sink s = {.write = write, .user = user};
    put_tensor(&s, tensor);
}

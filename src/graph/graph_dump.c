/* The graph as text: stable, one line a thing, for people and for golden tests. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph/graph.h"

typedef struct dumper {
    const dbt_graph *graph;
    dibit_write write;
    void *user;
} dumper;

static void put(const dumper *d, const char *format, ...) DBT_PRINTF(2, 3);
static void put(const dumper *d, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0) d->write(d->user, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

static void put_type(const dumper *d, const dbt_value *value) {
    put(d, "%s[", dibit_type_name(value->type));
    if (value->shape.rank < 0) put(d, "...");
    for (int32_t i = 0; i < value->shape.rank; i++) {
        char text[256];
        dbt_dim_text(d->graph->dims, value->shape.dims[i], text, sizeof text);
        put(d, "%s%s", i ? ", " : "", text);
    }
    put(d, "]");
}

static void put_contents(const dumper *d, const dbt_value *value) {
    if (!value->contents) return;
    int64_t n = 1, dim = 0;
    for (int32_t i = 0; i < value->shape.rank; i++) {
        dbt_dim_is_const(d->graph->dims, value->shape.dims[i], &dim);
        n *= dim;
    }
    put(d, " = {");
    for (int64_t i = 0; i < n; i++) {
        char text[256];
        dbt_dim_text(d->graph->dims, value->contents[i], text, sizeof text);
        put(d, "%s%s", i ? ", " : "", text);
    }
    put(d, "}");
}

static void put_attr(const dumper *d, const dbt_onnx_attr *a) {
    put(d, "%s=", a->name);
    switch (a->kind) {
    case DBT_ONNX_ATTR_FLOAT: put(d, "%.9g", (double)a->f); return;
    case DBT_ONNX_ATTR_INT: put(d, "%" PRId64, a->i); return;
    case DBT_ONNX_ATTR_STRING: put(d, "\"%s\"", a->s); return;
    case DBT_ONNX_ATTR_FLOATS:
    case DBT_ONNX_ATTR_INTS:
    case DBT_ONNX_ATTR_STRINGS:
        put(d, "[");
        for (uint32_t i = 0; i < a->count; i++) {
            put(d, "%s", i ? ", " : "");
            if (a->kind == DBT_ONNX_ATTR_FLOATS) put(d, "%.9g", (double)a->floats[i]);
            if (a->kind == DBT_ONNX_ATTR_INTS) put(d, "%" PRId64, a->ints[i]);
            if (a->kind == DBT_ONNX_ATTR_STRINGS) put(d, "\"%s\"", a->strings[i]);
        }
        put(d, "]");
        return;
    case DBT_ONNX_ATTR_TENSOR: put(d, "tensor"); return;
    default: put(d, "..."); return;
    }
}

static void put_node(const dumper *d, const dbt_node *node) {
    put(d, "node '%s' ", node->name);
    if (node->domain[0]) put(d, "%s.", node->domain);
    put(d, "%s(", node->op_type);
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        put(d, "%s%s", i ? ", " : "", node->inputs[i] ? node->inputs[i]->name : "-");
    }
    put(d, ")");
    for (uint32_t i = 0; i < node->n_onnx_attrs; i++) {
        put(d, " ");
        put_attr(d, &node->onnx_attrs[i]);
    }
    if (node->guard) put(d, " if %s%s", node->guard_value ? "" : "not ", node->guard->name);
    put(d, "\n");
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        if (!node->outputs[i]) continue;
        put(d, "  -> %s ", node->outputs[i]->name);
        put_type(d, node->outputs[i]);
        put_contents(d, node->outputs[i]);
        put(d, "\n");
    }
}

void dbt_graph_dump_node(const dbt_graph *graph, uint32_t node, dibit_write write, void *user) {
    const dumper d = {graph, write, user};
    put_node(&d, graph->nodes[node]);
}

void dbt_graph_dump(const dbt_graph *graph, dibit_write write, void *user) {
    const dumper d = {graph, write, user};
    put(&d, "ir %" PRId64 "\n", graph->model->ir_version);
    for (uint32_t i = 0; i < graph->model->n_opsets; i++) {
        const dbt_onnx_opset *const opset = &graph->model->opsets[i];
        put(&d, "opset %s %" PRId64 "\n", opset->domain[0] ? opset->domain : "ai.onnx",
            opset->version);
    }
    for (uint32_t i = 0; i < graph->n_inputs; i++) {
        put(&d, "input %s ", graph->inputs[i]->name);
        put_type(&d, graph->inputs[i]);
        put(&d, "\n");
    }
    for (uint32_t i = 0; i < graph->n_values; i++) {
        const dbt_value *const value = graph->values[i];
        if (!value->constant) continue;
        put(&d, "constant %s ", value->name);
        put_type(&d, value);
        put_contents(&d, value);
        put(&d, "\n");
    }
    for (uint32_t i = 0; i < graph->n_nodes; i++) put_node(&d, graph->nodes[i]);
    for (uint32_t i = 0; i < graph->n_outputs; i++) {
        put(&d, "output %s ", graph->output_names[i]);
        put_type(&d, graph->outputs[i]);
        put(&d, "\n");
    }
}

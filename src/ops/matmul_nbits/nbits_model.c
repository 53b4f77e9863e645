/* Lists a model's MatMulNBits nodes: straight from the file, without building its graph. */
#include "ops/matmul_nbits/nbits_model.h"

#include <stdlib.h>

#include "onnx/onnx.h"

/* The type of a constant by name, UNDEFINED when the graph computes it. */
static dibit_type constant_type(const dbt_onnx_graph *graph, const char *name) {
    for (uint32_t i = 0; i < graph->n_initializers; i++) {
        if (strcmp(graph->initializers[i].name, name) == 0) return graph->initializers[i].type;
    }
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dbt_onnx_node *const node = &graph->nodes[i];
        if (strcmp(node->op_type, "Constant") != 0 || node->n_outputs != 1) continue;
        if (strcmp(node->outputs[0], name) != 0 || node->n_attrs != 1 || !node->attrs[0].tensor)
            continue;
        return node->attrs[0].tensor->type;
    }
    return DIBIT_TYPE_UNDEFINED;
}

static bool has_input(const dbt_onnx_node *node, uint32_t i) {
    return i < node->n_inputs && node->inputs[i][0] != 0;
}

static nbits_config config_of(const dbt_onnx_graph *graph, const dbt_onnx_node *node) {
    nbits_config c = {.bits = 4, .scale_type = DIBIT_TYPE_FLOAT};
    for (uint32_t i = 0; i < node->n_attrs; i++) {
        const dbt_onnx_attr *const attr = &node->attrs[i];
        if (strcmp(attr->name, "K") == 0) c.K = attr->i;
        if (strcmp(attr->name, "N") == 0) c.N = attr->i;
        if (strcmp(attr->name, "bits") == 0) c.bits = (uint32_t)attr->i;
        if (strcmp(attr->name, "block_size") == 0) c.block_size = attr->i;
        if (strcmp(attr->name, "accuracy_level") == 0) c.accuracy_level = (int32_t)attr->i;
    }
    const dibit_type scales =
        has_input(node, 2) ? constant_type(graph, node->inputs[2]) : DIBIT_TYPE_UNDEFINED;
    if (scales != DIBIT_TYPE_UNDEFINED) c.scale_type = scales;
    if (has_input(node, 3)) c.zero_point_type = constant_type(graph, node->inputs[3]);
    c.g_idx = has_input(node, 4);
    c.bias = has_input(node, 5);
    return c;
}

static bool usable(const nbits_config *c) {
    return c->N > 0 && c->K > 0 && c->block_size >= 16 &&
           (c->block_size & (c->block_size - 1)) == 0 && c->bits >= 1 && c->bits <= 8 &&
           c->N < INT32_MAX && c->K < INT32_MAX;
}

static bool same(const nbits_config *a, const nbits_config *b) {
    return a->N == b->N && a->K == b->K && a->block_size == b->block_size && a->bits == b->bits &&
           a->scale_type == b->scale_type && a->zero_point_type == b->zero_point_type &&
           a->g_idx == b->g_idx && a->bias == b->bias && a->accuracy_level == b->accuracy_level;
}

static dibit_status list(const dbt_onnx_graph *graph, const char *path, nbits_config **out,
                         uint32_t *n, dibit_error *error) {
    nbits_config *const configs = calloc(graph->n_nodes ? graph->n_nodes : 1, sizeof *configs);
    if (!configs) return dbt_fail_memory(error, "configurations", graph->n_nodes * sizeof *configs);
    uint32_t count = 0;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dbt_onnx_node *const node = &graph->nodes[i];
        if (strcmp(node->op_type, "MatMulNBits") != 0) continue;
        const nbits_config c = config_of(graph, node);
        if (!usable(&c)) continue;
        uint32_t at = 0;
        while (at < count && !same(&configs[at], &c)) at++;
        if (at == count) configs[count++] = c;
        configs[at].n_nodes++;
    }
    if (count == 0) {
        free(configs);
        return dbt_fail(error, DIBIT_NOT_FOUND, "%s has no MatMulNBits nodes", path);
    }
    *out = configs;
    *n = count;
    return DIBIT_OK;
}

dibit_status nbits_model_configs(const char *path, nbits_config **out, uint32_t *n,
                                 dibit_error *error) {
    dbt_source source;
    DBT_TRY(dbt_source_open_file(path, path, &source, error));
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    const dbt_onnx_reader_desc desc = {.source = &source, .path = path, .arena = &arena};
    dbt_onnx_reader *reader = NULL;
    const dbt_onnx_model *model = NULL;
    dibit_status status = dbt_onnx_reader_create(&desc, &reader, error);
    if (status == DIBIT_OK) status = dbt_onnx_reader_poll(reader, &model, error);
    if (status == DIBIT_OK) status = list(model->graph, path, out, n, error);
    dbt_onnx_reader_destroy(&reader);
    dbt_arena_free(&arena);
    dbt_source_close(&source);
    return status;
}

/* Reads the small constants of a model while it loads, so that inference can look at them. */
#include "plan/scope.h"

static dibit_status load_graph_constants(const dbt_onnx_graph *graph, dbt_arena *arena, int depth,
                                         dibit_error *error);

static dibit_status load_node_constants(const dbt_onnx_node *nodes, uint32_t n, dbt_arena *arena,
                                        int depth, dibit_error *error) {
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t a = 0; a < nodes[i].n_attrs; a++) {
            const dbt_onnx_attr *const attr = &nodes[i].attrs[a];
            if (attr->tensor) {
                /* The reader's own memory: nothing else holds it while a model loads. */
                DBT_TRY(dbt_constant_load((dbt_constant *)(uintptr_t)attr->tensor, arena, error));
            }
            if (attr->graph && depth < DBT_MAX_DEPTH) {
                DBT_TRY(load_graph_constants(attr->graph, arena, depth + 1, error));
            }
        }
    }
    return DIBIT_OK;
}

static dibit_status load_graph_constants(const dbt_onnx_graph *graph, dbt_arena *arena, int depth,
                                         dibit_error *error) {
    for (uint32_t i = 0; i < graph->n_initializers; i++) {
        dbt_constant *const c = (dbt_constant *)(uintptr_t)&graph->initializers[i];
        if (c->bytes.bytes < DBT_SMALL_CONSTANT) DBT_TRY(dbt_constant_load(c, arena, error));
    }
    return load_node_constants(graph->nodes, graph->n_nodes, arena, depth, error);
}

dibit_status dbt_load_small_constants(const dbt_onnx_model *model, dbt_arena *arena,
                                      dibit_error *error) {
    for (uint32_t i = 0; i < model->n_functions; i++) {
        const dbt_onnx_function *const f = &model->functions[i];
        DBT_TRY(load_node_constants(f->nodes, f->n_nodes, arena, 0, error));
    }
    return load_graph_constants(model->graph, arena, 0, error);
}

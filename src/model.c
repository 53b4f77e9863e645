/* dibit_model: a source, what the reader found in it, and the checked graph. */
#include "model.h"

#include <string.h>

#include "plan/extract.h"

static dibit_status open_source(dibit_model *model, const dibit_model_desc *desc,
                                dibit_error *error) {
    const int given = (desc->path != NULL) + (desc->data != NULL) + (desc->source != NULL);
    DBT_FAIL_IF(given != 1, error, DIBIT_BAD_ARGUMENT,
                "exactly one of path, data and source must be set, got %d", given);
    const char *const given_name = desc->name ? desc->name : desc->path ? desc->path : "model";
    DBT_FAIL_IF(desc->source && !desc->source->read, error, DIBIT_BAD_ARGUMENT,
                "the source has no read function");
    char *const name = dbt_arena_string(&model->arena, given_name, strlen(given_name));
    if (!name) return dbt_fail_memory(error, "a name", strlen(given_name));
    if (desc->path) return dbt_source_open_file(desc->path, name, &model->source, error);
    if (desc->data) {
        dbt_source_from_buffer(desc->data, desc->data_bytes, name, &model->source);
    } else {
        dbt_source_from_callback(desc->source, name, &model->source);
    }
    return DIBIT_OK;
}

static dibit_status open_reader(dibit_model *model, const dibit_model_desc *desc,
                                dibit_error *error) {
    char *path = NULL;
    if (desc->path) {
        path = dbt_arena_string(&model->arena, desc->path, strlen(desc->path));
        if (!path) return dbt_fail_memory(error, "a name", strlen(desc->path));
    }
    const dbt_onnx_reader_desc reader = {.source = &model->source,
                                         .path = path,
                                         .open_external = desc->open_external,
                                         .open_external_user = desc->open_external_user,
                                         .arena = &model->arena};
    return dbt_onnx_reader_create(&reader, &model->reader, error);
}

dibit_status dibit_model_begin(const dibit_model_desc *desc, dibit_model **out,
                               dibit_error *error) {
    DBT_FAIL_IF(!desc || !out, error, DIBIT_BAD_ARGUMENT, "desc and out must not be NULL");
    dbt_arena arena;
    dbt_arena_init(&arena, desc->allocator);
    dibit_model *model = dbt_arena_alloc(&arena, sizeof *model);
    if (!model) {
        if (desc->source && desc->source->close) desc->source->close(desc->source->user);
        return dbt_fail_memory(error, "a model", sizeof *model);
    }
    model->arena = arena;
    dibit_status status = open_source(model, desc, error);
    if (status == DIBIT_OK) status = open_reader(model, desc, error);
    if (status != DIBIT_OK) {
        if (!model->source.name && desc->source && desc->source->close) {
            desc->source->close(desc->source->user);
        }
        dibit_model_destroy(&model);
        return status;
    }
    *out = model;
    return DIBIT_OK;
}

dibit_status dibit_model_poll(dibit_model *model, dibit_error *error) {
    DBT_FAIL_IF(!model, error, DIBIT_BAD_ARGUMENT, "model must not be NULL");
    if (model->ready) return DIBIT_OK;
    if (!model->onnx) DBT_TRY(dbt_onnx_reader_poll(model->reader, &model->onnx, error));
    dibit_status status = dbt_load_small_constants(model->onnx, &model->arena, error);
    if (status == DIBIT_OK) {
        status = dbt_graph_build(model->onnx, &model->arena, NULL, &model->graph, error);
        if (status != DIBIT_OK) dbt_error_prefix(error, "'%s'", model->source.name);
    }
    model->ready = status == DIBIT_OK;
    return status;
}

dibit_status dibit_model_load(const dibit_model_desc *desc, dibit_model **out, dibit_error *error) {
    dibit_model *model = NULL;
    DBT_TRY(dibit_model_begin(desc, &model, error));
    dibit_status status;
    do status = dibit_model_poll(model, error);
    while (status == DIBIT_PENDING);
    if (status != DIBIT_OK) {
        dibit_model_destroy(&model);
        return status;
    }
    *out = model;
    return DIBIT_OK;
}

void dibit_model_destroy(dibit_model **model) {
    dibit_model *const m = model ? *model : NULL;
    if (!m) return;
    dbt_onnx_reader_destroy(&m->reader);
    dbt_source_close(&m->source);
    dbt_arena arena = m->arena; /* the model itself lies in it */
    dbt_arena_free(&arena);
    *model = NULL;
}

/* ---- Inputs and outputs ---- */

uint32_t dibit_model_input_count(const dibit_model *model) { return model->graph->n_inputs; }
uint32_t dibit_model_output_count(const dibit_model *model) { return model->graph->n_outputs; }

static void describe(const dbt_graph *graph, const dbt_value *value, const char *name,
                     dibit_value_info *info) {
    *info = (dibit_value_info){.name = name, .type = value->type, .rank = value->shape.rank};
    for (int32_t i = 0; i < value->shape.rank; i++) {
        info->dim_names[i] = "";
        if (dbt_dim_is_const(graph->dims, value->shape.dims[i], &info->dims[i])) continue;
        info->dims[i] = -1;
        const char *const symbol = dbt_dim_symbol_name(graph->dims, value->shape.dims[i]);
        if (symbol) info->dim_names[i] = symbol;
    }
}

dibit_status dibit_model_input(const dibit_model *model, uint32_t index, dibit_value_info *info) {
    if (index >= model->graph->n_inputs) return DIBIT_BAD_ARGUMENT;
    describe(model->graph, model->graph->inputs[index], model->graph->inputs[index]->name, info);
    return DIBIT_OK;
}

dibit_status dibit_model_output(const dibit_model *model, uint32_t index, dibit_value_info *info) {
    if (index >= model->graph->n_outputs) return DIBIT_BAD_ARGUMENT;
    describe(model->graph, model->graph->outputs[index], model->graph->output_names[index], info);
    return DIBIT_OK;
}

void dibit_model_dump(const dibit_model *model, dibit_write write, void *user) {
    dbt_graph_dump(model->graph, write, user);
}

dibit_status dibit_model_node(const dibit_model *model, uint32_t index, dibit_node_info *info) {
    if (index >= model->graph->n_nodes) return DIBIT_NOT_FOUND;
    const dbt_node *const node = model->graph->nodes[index];
    *info = (dibit_node_info){.name = node->name, .domain = node->domain, .op = node->op_type};
    if (node->op->describe) node->op->describe(node, info->config, sizeof info->config);
    return DIBIT_OK;
}

static dibit_status name_at(dbt_value *const *values, uint32_t n, uint32_t index,
                            const char **name) {
    if (index >= n) return DIBIT_NOT_FOUND;
    *name = values[index] ? values[index]->name : "";
    return DIBIT_OK;
}

dibit_status dibit_model_node_input(const dibit_model *model, uint32_t node, uint32_t index,
                                    const char **name) {
    if (node >= model->graph->n_nodes) return DIBIT_NOT_FOUND;
    const dbt_node *const n = model->graph->nodes[node];
    return name_at(n->inputs, n->n_inputs, index, name);
}

dibit_status dibit_model_node_output(const dibit_model *model, uint32_t node, uint32_t index,
                                     const char **name) {
    if (node >= model->graph->n_nodes) return DIBIT_NOT_FOUND;
    const dbt_node *const n = model->graph->nodes[node];
    return name_at(n->outputs, n->n_outputs, index, name);
}

dibit_status dibit_model_dump_node(const dibit_model *model, uint32_t node, dibit_write write,
                                   void *user) {
    if (node >= model->graph->n_nodes) return DIBIT_NOT_FOUND;
    dbt_graph_dump_node(model->graph, node, write, user);
    return DIBIT_OK;
}

dibit_status dibit_model_extract(const dibit_model *model, dibit_extract *what, dibit_write write,
                                 void *user, dibit_error *error) {
    DBT_FAIL_IF(!model || !what, error, DIBIT_BAD_ARGUMENT, "model and what must not be NULL");
    return dbt_extract(model->graph, what, write, user, error);
}

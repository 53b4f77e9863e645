/* A node of dibit_diff by itself: taken out of the model with its weights, given what the reference gave it, run. */
#include <stdio.h>
#include <string.h>

#include "diff.h"

/* ---- Taking a node out ----------------------------------------------------------------------- */

typedef struct writer {
    const dibit_allocator *allocator;
    dbt_diff_part *part;
} writer;

static void append(void *user, const char *data, size_t n) {
    const writer *const w = user;
    dbt_diff_part *const part = w->part;
    if (!part->no_memory && part->n_bytes + n > part->capacity) {
        const uint64_t capacity = (part->n_bytes + n) * 2;
        char *const grown = dbt_alloc(w->allocator, capacity, 16);
        part->no_memory = !grown;
        if (grown) {
            if (part->n_bytes) memcpy(grown, part->bytes, (size_t)part->n_bytes);
            dbt_release(w->allocator, part->bytes, part->capacity);
            part->bytes = grown;
            part->capacity = capacity;
        }
    }
    if (part->no_memory) return;
    memcpy(part->bytes + part->n_bytes, data, n);
    part->n_bytes += n;
}

/* What the node reads and makes, as the reference's last run had it. */
static dibit_status find_values(const dibit_diff *diff, uint32_t node, dbt_diff_part *part,
                                dibit_error *error) {
    typedef dibit_status (*name_of)(const dibit_model *, uint32_t, uint32_t, const char **);
    static const name_of sides[] = {dibit_model_node_input, dibit_model_node_output};
    uint32_t capacity = 0, n = 0;
    const char *name;
    for (int s = 0; s < 2; s++) {
        for (uint32_t i = 0; sides[s](diff->model, node, i, &name) == DIBIT_OK; i++) capacity++;
    }
    dbt_arena_init(&part->arena, &diff->allocator);
    dibit_tensor *const values = dbt_arena_array(&part->arena, capacity, sizeof *values);
    uint32_t *const index = dbt_arena_alloc(&part->arena, sizeof *index);
    if (!values || !index) return dbt_fail_memory(error, "a node", capacity * sizeof *values);
    *index = node;
    for (int s = 0; s < 2; s++) {
        for (uint32_t i = 0; sides[s](diff->model, node, i, &name) == DIBIT_OK; i++) {
            if (!name[0] || dibit_session_value(diff->reference, name, &values[n], NULL)) continue;
            values[n++].name = name;
        }
    }
    part->what = (dibit_extract){.nodes = index, .n_nodes = 1, .values = values, .n_values = n};
    return DIBIT_OK;
}

static dibit_status fill_inputs(const dibit_diff *diff, dbt_diff_part *part, dibit_error *error) {
    dibit_value_info info;
    DBT_TRY(dbt_tensors_create(&diff->allocator, dibit_model_input_count(part->model),
                               &part->inputs, error));
    for (uint32_t i = 0; dibit_model_input(part->model, i, &info) == DIBIT_OK; i++) {
        dibit_tensor value;
        DBT_TRY(dibit_session_value(diff->reference, info.name, &value, error));
        DBT_TRY(dbt_tensors_add_as(part->inputs, info.name, &value, info.type, error));
    }
    return DIBIT_OK;
}

static dibit_status take_out(const dibit_diff *diff, uint32_t node, dbt_diff_part *part,
                             dibit_error *error) {
    if (part->inputs) return DIBIT_OK;
    if (!part->what.nodes) DBT_TRY(find_values(diff, node, part, error));
    writer w = {&diff->allocator, part};
    DBT_TRY(dibit_model_extract(diff->model, &part->what, append, &w, error));
    if (part->no_memory) return dbt_fail_memory(error, "a node", part->n_bytes);
    DBT_TRY(dibit_model_load(&(dibit_model_desc){.data = part->bytes,
                                                 .data_bytes = part->n_bytes,
                                                 .allocator = &diff->allocator},
                             &part->model, error));
    return fill_inputs(diff, part, error);
}

void dbt_diff_free_part(dibit_diff *diff, dbt_diff_part *part) {
    dibit_session_destroy(&part->cpu);
    dibit_session_destroy(&part->tested);
    dibit_model_extract(diff->model, &part->what, NULL, NULL, NULL);
    dibit_model_destroy(&part->model);
    dibit_tensors_destroy(&part->inputs);
    dbt_release(&diff->allocator, part->bytes, part->capacity);
    if (part->arena.allocator.alloc) dbt_arena_free(&part->arena);
    *part = (dbt_diff_part){0};
}

/* ---- Running it ------------------------------------------------------------------------------ */

/* Once: a session that there is has run, or is running. */
static dibit_status run_part(dibit_diff *diff, bool tested, dibit_error *error) {
    dbt_diff_part *const part = &diff->part;
    dibit_session **const session = tested ? &part->tested : &part->cpu;
    const dibit_session_desc desc = {.device = tested ? diff->desc.device : diff->desc.cpu,
                                     .activations = diff->desc.activations,
                                     .keep_values = true,
                                     .no_fusion = true,
                                     .no_proof = diff->desc.no_proof,
                                     .keep_bounds = !tested};
    const dibit_run run = {.inputs = part->inputs->tensors, .n_inputs = part->inputs->count};
    DBT_TRY(dbt_diff_open(part->model, &desc, session, error));
    return dbt_diff_run(diff, *session, &run, error);
}

/* Up to where the CPU has its answer; a failure there is no fault of the device. */
static dibit_status run_on_cpu(dibit_diff *diff, uint32_t index, dibit_error *error) {
    DBT_TRY(take_out(diff, index, &diff->part, error));
    return diff->part.tested ? DIBIT_OK : run_part(diff, false, error);
}

dibit_status dbt_diff_alone(dibit_diff *diff, dbt_diff_pass *pass, uint32_t index) {
    dibit_diff_node_info *const node = &pass->nodes[index];
    if (!node->on_device && !node->fused) {
        snprintf(node->not_alone, sizeof node->not_alone, "on the CPU: %s", node->why);
        return DIBIT_OK;
    }
    dibit_error why;
    dibit_status status = run_on_cpu(diff, index, &why);
    if (status == DIBIT_PENDING) return status;
    if (status != DIBIT_OK) {
        snprintf(node->not_alone, sizeof node->not_alone, "%.280s", why.text);
    } else {
        status = run_part(diff, true, &why);
        if (status == DIBIT_PENDING) return status;
        if (status == DIBIT_OK) {
            dbt_diff_compare_part(diff, node, index);
        } else {
            dibit_model_node_output(diff->model, index, 0, &node->alone.value);
            snprintf(node->alone.problem, sizeof node->alone.problem, "%.190s", why.text);
            node->alone.wrong = true;
        }
    }
    diff->running = false;
    dbt_diff_free_part(diff, &diff->part);
    return DIBIT_OK;
}

dibit_status dbt_diff_keep(dibit_diff *diff, uint32_t index, dibit_error *error) {
    dbt_diff_part *const part = &diff->kept;
    DBT_TRY(take_out(diff, index, part, error));
    if (!diff->outputs) {
        const uint32_t n = dibit_model_output_count(part->model);
        diff->outputs = dbt_arena_array(&part->arena, n, sizeof *diff->outputs);
        if (!diff->outputs) return dbt_fail_memory(error, "outputs", n * sizeof *diff->outputs);
        dibit_value_info info;
        for (uint32_t i = 0; dibit_model_output(part->model, i, &info) == DIBIT_OK; i++) {
            diff->outputs[diff->n_outputs++].name = info.name;
        }
    }
    const dibit_session_desc desc = {.device = diff->desc.cpu,
                                     .activations = diff->desc.activations};
    const dibit_run run = {.inputs = part->inputs->tensors,
                           .n_inputs = part->inputs->count,
                           .outputs = diff->outputs,
                           .n_outputs = diff->n_outputs};
    DBT_TRY(dbt_diff_open(part->model, &desc, &part->cpu, error));
    return dbt_diff_run(diff, part->cpu, &run, error);
}

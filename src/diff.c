/* dibit_diff: the order of the work, and the public calls. */
#include "diff.h"

#include <string.h>

#include "base/os.h"

enum { SLICE_NS = 2000000, NOISE_RUNS = 6, TOKENS = 5 };

dibit_status dbt_diff_open(dibit_model *model, const dibit_session_desc *desc,
                           dibit_session **session, dibit_error *error) {
    if (!*session) DBT_TRY(dibit_session_begin(model, desc, session, error));
    return dibit_session_poll(*session, error);
}

dibit_status dbt_diff_run(dibit_diff *diff, dibit_session *session, const dibit_run *run,
                          dibit_error *error) {
    if (!diff->running) {
        diff->run = *run;
        DBT_TRY(dibit_run_begin(session, &diff->run, error));
        diff->running = true;
    }
    const dibit_status status = dibit_run_poll(session, error);
    diff->running = status == DIBIT_PENDING;
    return status;
}

/* ---- The stages ------------------------------------------------------------------------------- */

static dbt_diff_pass *pass_of(dibit_diff *diff) { return &diff->passes[diff->n_passes - 1]; }

static dibit_status open_reference(dibit_diff *diff, dibit_error *error) {
    return dbt_diff_open(diff->model,
                         &(dibit_session_desc){.device = diff->desc.cpu,
                                               .activations = diff->desc.activations,
                                               .keep_values = true,
                                               .no_fusion = true},
                         &diff->reference, error);
}

static dibit_status open_tested(dibit_diff *diff, dibit_error *error) {
    return dbt_diff_open(diff->model,
                         &(dibit_session_desc){.device = diff->desc.device,
                                               .activations = diff->desc.activations,
                                               .keep_values = true,
                                               .no_fusion = diff->desc.no_fusion,
                                               .no_proof = diff->desc.no_proof},
                         &diff->tested, error);
}

static dibit_status begin_pass(dibit_diff *diff, dibit_error *error) {
    const dibit_diff_desc *const desc = &diff->desc;
    dbt_diff_pass pass = {.info = {.name = diff->n_passes ? "step" : "prompt", .first = -1},
                          .inputs = desc->inputs,
                          .n_inputs = desc->n_inputs};
    if (!desc->inputs) {
        DBT_TRY(diff->n_passes ? dbt_tensors_make_step(diff->reference, desc->tokens, desc->seed,
                                                       &pass.made, error)
                               : dibit_tensors_make_up(diff->reference, desc->tokens, desc->seed,
                                                       &pass.made, error));
        pass.inputs = pass.made->tensors;
        pass.n_inputs = pass.made->count;
    }
    const uint64_t bytes = diff->n_nodes * sizeof *pass.nodes;
    pass.nodes = dbt_alloc(&diff->allocator, bytes, 16);
    if (!pass.nodes) {
        dibit_tensors_destroy(&pass.made);
        return dbt_fail_memory(error, "a comparison", bytes);
    }
    memset(pass.nodes, 0, (size_t)bytes);
    dbt_diff_find_places(diff, &pass);
    diff->passes[diff->n_passes++] = pass;
    return DIBIT_OK;
}

static dibit_status run_pass(dibit_diff *diff, dibit_session *session, dibit_error *error) {
    const dbt_diff_pass *const pass = pass_of(diff);
    const dibit_run run = {.inputs = pass->inputs, .n_inputs = pass->n_inputs};
    return dbt_diff_run(diff, session, &run, error);
}

/* One session, whose noise begins anew with each run. */
static dibit_status run_with_noise(dibit_diff *diff, dibit_error *error) {
    const dibit_session_desc desc = {.device = diff->desc.cpu,
                                     .activations = diff->desc.activations,
                                     .keep_values = true,
                                     .noise_seed = 1};
    if (diff->at == 0 && !diff->running && !diff->noisy) DBT_TRY(dbt_diff_list_values(diff, error));
    DBT_TRY(dbt_diff_open(diff->model, &desc, &diff->noisy, error));
    if (!diff->running) diff->noisy->exec.noise = diff->at + 1;
    DBT_TRY(run_pass(diff, diff->noisy, error));
    dbt_diff_add_noise(diff);
    return DIBIT_OK;
}

/* The next stage, or the next part of this one. */
static void go_on(dibit_diff *diff, uint32_t parts, dbt_diff_stage next) {
    if (++diff->at < parts) return;
    diff->at = 0;
    diff->stage = next;
}

/* Another pass, or the end. */
static dbt_diff_stage after_pass(const dibit_diff *diff) {
    return diff->desc.decode && diff->n_passes == 1 ? DBT_DIFF_INPUTS : DBT_DIFF_DONE;
}

static dibit_status compare_alone(dibit_diff *diff) {
    dbt_diff_pass *const pass = pass_of(diff);
    DBT_TRY(dbt_diff_alone(diff, pass, diff->at));
    diff->done++;
    go_on(diff, diff->n_nodes, after_pass(diff));
    if (diff->stage == DBT_DIFF_ALONE) return DIBIT_OK;
    dbt_diff_find_first(diff, pass);
    const bool keeps = diff->desc.keep_case && !diff->kept.model && pass->info.first >= 0;
    if (keeps) diff->stage = DBT_DIFF_CASE;
    return DIBIT_OK;
}

/* A part of the work. OK: there is more to do; PENDING: there is something to wait for. */
static dibit_status advance(dibit_diff *diff, dibit_error *error) {
    switch (diff->stage) {
    case DBT_DIFF_REFERENCE:
        DBT_TRY(open_reference(diff, error));
        go_on(diff, 1, DBT_DIFF_TESTED);
        break;
    case DBT_DIFF_TESTED:
        DBT_TRY(open_tested(diff, error));
        go_on(diff, 1, DBT_DIFF_INPUTS);
        break;
    case DBT_DIFF_INPUTS:
        DBT_TRY(begin_pass(diff, error));
        go_on(diff, 1, DBT_DIFF_RUN_REFERENCE);
        return DIBIT_OK;
    case DBT_DIFF_RUN_REFERENCE:
        DBT_TRY(run_pass(diff, diff->reference, error));
        go_on(diff, 1, DBT_DIFF_RUN_TESTED);
        break;
    case DBT_DIFF_RUN_TESTED:
        DBT_TRY(run_pass(diff, diff->tested, error));
        go_on(diff, 1, DBT_DIFF_NOISE);
        break;
    case DBT_DIFF_NOISE:
        DBT_TRY(run_with_noise(diff, error));
        go_on(diff, diff->desc.noise_runs, DBT_DIFF_CHAIN);
        if (diff->stage == DBT_DIFF_CHAIN) dibit_session_destroy(&diff->noisy);
        break;
    case DBT_DIFF_CHAIN:
        if (diff->at < diff->n_values)
            dbt_diff_compare_value(diff, pass_of(diff), &diff->values[diff->at]);
        go_on(diff, diff->n_values, diff->n_nodes ? DBT_DIFF_ALONE : after_pass(diff));
        if (diff->stage != DBT_DIFF_CHAIN) dbt_diff_free_values(diff);
        return DIBIT_OK;
    case DBT_DIFF_ALONE: return compare_alone(diff);
    case DBT_DIFF_CASE:
        DBT_TRY(dbt_diff_keep(diff, (uint32_t)pass_of(diff)->info.first, error));
        diff->stage = after_pass(diff);
        return DIBIT_OK;
    case DBT_DIFF_DONE: return DIBIT_OK;
    }
    diff->done++;
    return DIBIT_OK;
}

/* ---- The public calls --------------------------------------------------------------------------- */

static dibit_status check_desc(const dibit_diff_desc *desc, dibit_error *error) {
    DBT_FAIL_IF(!desc->device || !desc->cpu, error, DIBIT_BAD_ARGUMENT,
                "device and cpu must not be NULL");
    DBT_FAIL_IF(desc->cpu->gpu, error, DIBIT_BAD_ARGUMENT, "the reference has to be a CPU");
    DBT_FAIL_IF(!desc->device->gpu, error, DIBIT_BAD_ARGUMENT, "the CPU is the reference itself");
    DBT_FAIL_IF(desc->decode && desc->inputs, error, DIBIT_BAD_ARGUMENT,
                "a step can only follow a prompt that is made up");
    for (uint32_t i = 0; i < desc->n_references; i++) {
        DBT_FAIL_IF(!desc->references[i].name, error, DIBIT_BAD_ARGUMENT,
                    "reference %u has no name", (unsigned)i);
    }
    return DIBIT_OK;
}

dibit_status dibit_diff_begin(dibit_model *model, const dibit_diff_desc *desc, dibit_diff **out,
                              dibit_error *error) {
    DBT_FAIL_IF(!model || !desc || !out, error, DIBIT_BAD_ARGUMENT,
                "model, desc and out must not be NULL");
    DBT_FAIL_IF(!model->ready, error, DIBIT_BAD_STATE, "the model is not loaded yet");
    DBT_TRY(check_desc(desc, error));
    const dibit_allocator *const allocator = &model->arena.allocator;
    dibit_diff *const diff = dbt_alloc(allocator, sizeof *diff, 16);
    if (!diff) return dbt_fail_memory(error, "a comparison", sizeof *diff);
    *diff = (dibit_diff){.allocator = *allocator, .model = model, .desc = *desc};
    if (!diff->desc.tokens) diff->desc.tokens = TOKENS;
    if (!diff->desc.noise_runs) diff->desc.noise_runs = NOISE_RUNS;
    dibit_node_info node;
    while (dibit_model_node(model, diff->n_nodes, &node) == DIBIT_OK) diff->n_nodes++;
    *out = diff;
    return DIBIT_OK;
}

dibit_status dibit_diff_poll(dibit_diff *diff, dibit_error *error) {
    DBT_FAIL_IF(!diff, error, DIBIT_BAD_ARGUMENT, "diff must not be NULL");
    const uint64_t end = dbt_os_nanoseconds() + SLICE_NS;
    while (diff->stage != DBT_DIFF_DONE) {
        DBT_TRY(advance(diff, error));
        if (diff->stage != DBT_DIFF_DONE && dbt_os_nanoseconds() >= end) return DIBIT_PENDING;
    }
    return DIBIT_OK;
}

void dibit_diff_destroy(dibit_diff **diff) {
    dibit_diff *const d = diff ? *diff : NULL;
    if (!d) return;
    dbt_diff_free_part(d, &d->part);
    dbt_diff_free_part(d, &d->kept);
    dbt_diff_free_values(d);
    dibit_session_destroy(&d->noisy);
    dibit_session_destroy(&d->tested);
    dibit_session_destroy(&d->reference);
    for (uint32_t i = 0; i < d->n_passes; i++) {
        dibit_tensors_destroy(&d->passes[i].made);
        dbt_release(&d->allocator, d->passes[i].nodes, d->n_nodes * sizeof *d->passes[i].nodes);
    }
    const dibit_allocator allocator = d->allocator;
    dbt_release(&allocator, d, sizeof *d);
    *diff = NULL;
}

void dibit_diff_get_info(const dibit_diff *diff, dibit_diff_info *info) {
    const uint32_t passes = diff->desc.decode ? 2 : 1;
    *info = (dibit_diff_info){.n_nodes = diff->n_nodes,
                              .n_passes = diff->n_passes,
                              .done = diff->done,
                              .total = 2 + passes * (2 + diff->desc.noise_runs + diff->n_nodes)};
}

dibit_status dibit_diff_pass(const dibit_diff *diff, uint32_t index, dibit_diff_pass_info *info) {
    if (index >= diff->n_passes) return DIBIT_NOT_FOUND;
    *info = diff->passes[index].info;
    return DIBIT_OK;
}

const dibit_diff_node_info *dibit_diff_node(const dibit_diff *diff, uint32_t pass, uint32_t node) {
    if (pass >= diff->n_passes || node >= diff->n_nodes) return NULL;
    return &diff->passes[pass].nodes[node];
}

dibit_status dibit_diff_get_case(const dibit_diff *diff, dibit_diff_case *out) {
    if (!diff->outputs || diff->stage != DBT_DIFF_DONE) return DIBIT_NOT_FOUND;
    *out = (dibit_diff_case){.model = diff->kept.bytes,
                             .model_bytes = diff->kept.n_bytes,
                             .inputs = diff->kept.inputs->tensors,
                             .n_inputs = diff->kept.inputs->count,
                             .outputs = diff->outputs,
                             .n_outputs = diff->n_outputs};
    return DIBIT_OK;
}

/* A generator: what it needs of a model, its memory, its runs. */
#include "lm/generator.h"

#include <stdlib.h>

#include "base/half.h"

enum { DEFAULT_CHUNK = 512 };

/* ---- Memory, from the generator's allocator ---- */

static void *default_alloc(void *user, size_t bytes, size_t alignment) {
    (void)user;
    (void)alignment; /* nothing here is wider than malloc's alignment */
    return malloc(bytes);
}

static void default_release(void *user, void *memory, size_t bytes) {
    (void)user;
    (void)bytes;
    free(memory);
}

void *dbt_generator_take(dibit_generator *g, size_t count, size_t bytes) {
    const dibit_allocator *a = g->desc.allocator;
    if (count > SIZE_MAX / 2 / bytes) return NULL;
    return a->alloc(a->user, (count + !count) * bytes, sizeof(uint64_t));
}

void dbt_generator_give(dibit_generator *g, void *memory, size_t count, size_t bytes) {
    const dibit_allocator *a = g->desc.allocator;
    if (memory) a->release(a->user, memory, (count + !count) * bytes);
}

/* Grows without keeping the content, by half at least: decoding adds one element a token. */
static bool reserve_ids(dibit_generator *g, int64_t **data, size_t *capacity, size_t count) {
    if (count <= *capacity) return true;
    const size_t grown = count + count / 2;
    int64_t *fresh = dbt_generator_take(g, grown, sizeof **data);
    if (!fresh) return false;
    dbt_generator_give(g, *data, *capacity, sizeof **data);
    *data = fresh;
    *capacity = grown;
    return true;
}

/* ---- Create ---- */

static dibit_status check_ids_input(const dibit_value_info *info, dibit_error *error) {
    DBT_LM_FAIL_IF(info->type != DIBIT_TYPE_INT64 || (info->rank != 2 && info->rank != -1), error,
                   DIBIT_UNSUPPORTED, "input '%s' is %s of rank %d, not int64 of rank 2",
                   info->name, dibit_type_name(info->type), (int)info->rank);
    return DIBIT_OK;
}

static bool is_past(const dibit_session *session, const char *name) {
    const char *past, *present;
    for (uint32_t i = 0; dibit_session_state_pair(session, i, &past, &present) == DIBIT_OK; i++) {
        if (strcmp(past, name) == 0) return true;
    }
    return false;
}

static dibit_status check_model(dibit_generator *g, dibit_error *error) {
    dibit_model *model = g->desc.model;
    dibit_value_info info;
    bool has_ids = false, has_logits = false;
    for (uint32_t i = 0; i < dibit_model_input_count(model); i++) {
        if (dibit_model_input(model, i, &info) != DIBIT_OK) continue;
        bool *known = !strcmp(info.name, "input_ids")        ? &has_ids
                      : !strcmp(info.name, "attention_mask") ? &g->has_mask
                      : !strcmp(info.name, "position_ids")   ? &g->has_positions
                                                             : NULL;
        if (known) {
            DBT_TRY(check_ids_input(&info, error));
            *known = true;
            continue;
        }
        DBT_LM_FAIL_IF(!is_past(g->desc.session, info.name), error, DIBIT_UNSUPPORTED,
                       "input '%s' is none that text generation knows", info.name);
    }
    DBT_LM_FAIL_IF(!has_ids, error, DIBIT_UNSUPPORTED, "the model has no input 'input_ids'");
    for (uint32_t i = 0; i < dibit_model_output_count(model); i++) {
        if (dibit_model_output(model, i, &info) != DIBIT_OK || strcmp(info.name, "logits") != 0)
            continue;
        has_logits = true;
        if (info.rank == 3 && info.dims[2] > 0 && info.dims[2] < INT32_MAX)
            g->vocabulary = (uint32_t)info.dims[2];
    }
    DBT_LM_FAIL_IF(!has_logits, error, DIBIT_UNSUPPORTED, "the model has no output 'logits'");
    return DIBIT_OK;
}

dibit_status dibit_generator_create(const dibit_generator_desc *desc, dibit_generator **out,
                                    dibit_error *error) {
    static const dibit_allocator default_allocator = {default_alloc, default_release, NULL};
    DBT_LM_FAIL_IF(!desc || !desc->model || !desc->session || !out, error, DIBIT_BAD_ARGUMENT,
                   "dibit_generator_create takes a model and a session");
    dibit_generator probe = {.desc = *desc};
    if (probe.desc.max_chunk == 0) probe.desc.max_chunk = DEFAULT_CHUNK;
    DBT_TRY(check_model(&probe, error));
    const bool custom = desc->allocator && desc->allocator->alloc;
    const dibit_allocator *a = custom ? desc->allocator : &default_allocator;
    /* The allocator's copy lies behind the generator. */
    dibit_generator *g = a->alloc(a->user, sizeof *g + sizeof *a, sizeof(uint64_t));
    if (!g) return dbt_lm_fail_memory(error);
    *g = probe;
    dibit_allocator *copy = (dibit_allocator *)(g + 1);
    *copy = *a;
    g->desc.allocator = copy;
    *out = g;
    return DIBIT_OK;
}

void dibit_generator_destroy(dibit_generator **generator) {
    if (!generator || !*generator) return;
    dibit_generator *g = *generator;
    dibit_generator_cancel(g);
    dbt_generator_give(g, g->batch, g->batch_capacity, sizeof *g->batch);
    dbt_generator_give(g, g->states, g->batch_capacity, sizeof *g->states);
    dbt_generator_give(g, g->settings, g->batch_capacity, sizeof *g->settings);
    dbt_generator_give(g, g->chosen, g->batch_capacity, sizeof *g->chosen);
    dbt_generator_give(g, g->ids, g->ids_capacity, sizeof *g->ids);
    dbt_generator_give(g, g->positions, g->positions_capacity, sizeof *g->positions);
    dbt_generator_give(g, g->mask, g->mask_capacity, sizeof *g->mask);
    dbt_generator_give(g, g->logits, g->vocabulary, sizeof *g->logits);
    dbt_generator_give(g, g->choices, g->vocabulary, sizeof *g->choices);
    const dibit_allocator a = *g->desc.allocator;
    a.release(a.user, g, sizeof *g + sizeof a);
    *generator = NULL;
}

uint32_t dibit_generator_vocabulary(const dibit_generator *g) { return g->vocabulary; }

dibit_status dbt_generator_reserve_batch(dibit_generator *g, uint32_t n, dibit_error *error) {
    if (n <= g->batch_capacity) return DIBIT_OK;
    uint32_t *batch = dbt_generator_take(g, n, sizeof *batch);
    dibit_state **states = dbt_generator_take(g, n, sizeof *states);
    dibit_sample *settings = dbt_generator_take(g, n, sizeof *settings);
    int64_t *chosen = dbt_generator_take(g, n, sizeof *chosen);
    if (!batch || !states || !settings || !chosen) {
        dbt_generator_give(g, batch, n, sizeof *batch);
        dbt_generator_give(g, states, n, sizeof *states);
        dbt_generator_give(g, settings, n, sizeof *settings);
        dbt_generator_give(g, chosen, n, sizeof *chosen);
        return dbt_lm_fail_memory(error);
    }
    dbt_generator_give(g, g->batch, g->batch_capacity, sizeof *g->batch);
    dbt_generator_give(g, g->states, g->batch_capacity, sizeof *g->states);
    dbt_generator_give(g, g->settings, g->batch_capacity, sizeof *g->settings);
    dbt_generator_give(g, g->chosen, g->batch_capacity, sizeof *g->chosen);
    g->batch = batch;
    g->states = states;
    g->settings = settings;
    g->chosen = chosen;
    g->batch_capacity = n;
    return DIBIT_OK;
}

/* ---- One run ---- */

dibit_status dbt_generator_check_ids(const dibit_generator *g, const int64_t *ids, size_t n,
                                     dibit_error *error) {
    for (size_t i = 0; i < n; i++) {
        DBT_LM_FAIL_IF(ids[i] < 0 || (g->vocabulary && ids[i] >= g->vocabulary), error,
                       DIBIT_OUT_OF_RANGE, "token %lld at position %zu is not in the vocabulary",
                       (long long)ids[i], i);
    }
    return DIBIT_OK;
}

static dibit_tensor ids_tensor(const char *name, int64_t *data, int64_t rows, int64_t columns) {
    return (dibit_tensor){
        .name = name, .type = DIBIT_TYPE_INT64, .rank = 2, .dims = {rows, columns}, .data = data};
}

/* Prepares g->run to feed n tokens to each of g->states[0 .. n_batch); the caller fills g->ids, the first
 * input. */
dibit_status dbt_generator_prepare_run(dibit_generator *g, size_t n, uint32_t last_rows,
                                       dibit_error *error) {
    uint64_t longest = 0;
    for (uint32_t b = 0; b < g->n_batch; b++) {
        const uint64_t length = dibit_state_length(g->states[b]);
        if (length > longest) longest = length;
    }
    const size_t columns = (size_t)longest + n;
    if (!reserve_ids(g, &g->ids, &g->ids_capacity, g->n_batch * n) ||
        (g->has_positions &&
         !reserve_ids(g, &g->positions, &g->positions_capacity, g->n_batch * n)) ||
        (g->has_mask && !reserve_ids(g, &g->mask, &g->mask_capacity, g->n_batch * columns)))
        return dbt_lm_fail_memory(error);
    for (uint32_t b = 0; b < g->n_batch; b++) {
        const size_t length = (size_t)dibit_state_length(g->states[b]);
        for (size_t i = 0; g->has_positions && i < n; i++)
            g->positions[b * n + i] = (int64_t)(length + i);
        for (size_t i = 0; g->has_mask && i < columns; i++)
            g->mask[b * columns + i] = i < length + n;
    }
    const int64_t rows = g->n_batch;
    uint32_t n_inputs = 0;
    g->n_fed = n;
    g->inputs[n_inputs++] = ids_tensor("input_ids", g->ids, rows, (int64_t)n);
    if (g->has_mask)
        g->inputs[n_inputs++] = ids_tensor("attention_mask", g->mask, rows, (int64_t)columns);
    if (g->has_positions)
        g->inputs[n_inputs++] = ids_tensor("position_ids", g->positions, rows, (int64_t)n);
    g->output = (dibit_tensor){.name = "logits"};
    g->run = (dibit_run){.inputs = g->inputs,
                         .outputs = &g->output,
                         .states = g->states,
                         .n_inputs = n_inputs,
                         .n_outputs = 1,
                         .n_states = g->n_batch,
                         .last_rows = last_rows};
    return DIBIT_OK;
}

/* Checks the logits of a run [n_batch, rows, V], and makes the room that depends on V. */
dibit_status dbt_generator_accept_logits(dibit_generator *g, int64_t rows, dibit_error *error) {
    const dibit_tensor *t = &g->output;
    DBT_LM_FAIL_IF((t->type != DIBIT_TYPE_FLOAT && t->type != DIBIT_TYPE_FLOAT16) || t->rank != 3 ||
                       t->dims[0] != g->n_batch || t->dims[1] != rows || t->dims[2] <= 0 ||
                       t->dims[2] >= INT32_MAX || (g->vocabulary && t->dims[2] != g->vocabulary),
                   error, DIBIT_UNSUPPORTED,
                   "output 'logits' is %s of rank %d, not float or float16 [batch, rows, "
                   "vocabulary]",
                   dibit_type_name(t->type), (int)t->rank);
    g->vocabulary = (uint32_t)t->dims[2];
    if (!g->logits) g->logits = dbt_generator_take(g, g->vocabulary, sizeof *g->logits);
    if (!g->choices) g->choices = dbt_generator_take(g, g->vocabulary, sizeof *g->choices);
    return g->logits && g->choices ? DIBIT_OK : dbt_lm_fail_memory(error);
}

/* Copies row i of the logits, counted over the batch, to g->logits. */
void dbt_generator_read_row(dibit_generator *g, size_t i) {
    const size_t n = g->vocabulary;
    if (g->output.type == DIBIT_TYPE_FLOAT) {
        memcpy(g->logits, (const float *)g->output.data + i * n, n * sizeof(float));
        return;
    }
    const uint16_t *half = (const uint16_t *)g->output.data + i * n;
    for (size_t k = 0; k < n; k++) g->logits[k] = dbt_half_to_float(half[k]);
}

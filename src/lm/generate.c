/* The generation loop: tokens in, tokens out, over states. Public engine interface and libc alone:
 * also built for the browser.
 *
 * A generation is a chain of runs. Prompts are fed first, sequence by sequence in chunks; the last
 * chunk's logits give the first token. Then every run feeds the last token of each sequence that
 * goes on. poll moves the current run, or takes its logits and begins the next.
 *
 * Where the session's device chooses tokens, it does. Then a run has tokens to collect when it is
 * over, and the next may begin ahead of that, if it certainly feeds the same sequences unless one of
 * them stops: two runs are uncollected at most. A run ahead that was one too many is taken back from
 * the states; one that fails is forgotten, and begun again after the tokens before it are known. */
#include <math.h>
#include <stdlib.h>

#include "base/half.h"
#include "lm/lm_base.h"
#include "lm/sampler.h"

enum { DEFAULT_CHUNK = 512 };

/* What a sequence needs besides what the caller sees. */
typedef struct track {
    size_t fed; /* tokens of the prompt */
    uint64_t random;
    uint64_t random_before; /* the run that was begun last */
    uint64_t *seen;         /* bits, for the repetition penalty; NULL: none */
} track;

struct dibit_generator {
    dibit_generator_desc desc;
    bool has_mask, has_positions;
    uint32_t vocabulary; /* 0: not known yet */

    bool active, running; /* a generation; one of its runs */
    bool one_by_one;      /* the model cannot take states of different lengths together */
    dibit_generation generation;
    track *tracks; /* [generation.n_sequences] */

    uint32_t *batch; /* [n_sequences]: those that the run feeds */
    dibit_state **states;
    uint32_t n_batch, next; /* next: where one by one goes on */
    uint32_t batch_capacity;

    int64_t *ids, *positions, *mask; /* of the run: [n_batch, S], the same, [n_batch, past + S] */
    size_t ids_capacity, positions_capacity, mask_capacity;
    size_t n_fed; /* S */
    dibit_tensor inputs[3], output;
    dibit_run run;

    bool samples, ahead;    /* in this generation: the device chooses tokens; runs begin ahead */
    uint32_t n_uncollected; /* runs that are over but for their tokens; all of the same batch */
    size_t uncollected_fed; /* tokens that they fed each sequence */
    dibit_sample *settings; /* [batch_capacity] */
    int64_t *chosen;        /* [batch_capacity] */

    float *logits;       /* [vocabulary], one row */
    dbt_choice *choices; /* [vocabulary] */
};

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

static void *take(dibit_generator *g, size_t count, size_t bytes) {
    const dibit_allocator *a = g->desc.allocator;
    if (count > SIZE_MAX / 2 / bytes) return NULL;
    return a->alloc(a->user, (count + !count) * bytes, sizeof(uint64_t));
}

static void give(dibit_generator *g, void *memory, size_t count, size_t bytes) {
    const dibit_allocator *a = g->desc.allocator;
    if (memory) a->release(a->user, memory, (count + !count) * bytes);
}

/* Grows without keeping the content, by half at least: decoding adds one element a token. */
static bool reserve_ids(dibit_generator *g, int64_t **data, size_t *capacity, size_t count) {
    if (count <= *capacity) return true;
    const size_t grown = count + count / 2;
    int64_t *fresh = take(g, grown, sizeof **data);
    if (!fresh) return false;
    give(g, *data, *capacity, sizeof **data);
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

static void free_tracks(dibit_generator *g) {
    if (!g->tracks) return;
    for (uint32_t i = 0; i < g->generation.n_sequences; i++)
        give(g, g->tracks[i].seen, g->vocabulary / 64 + 1, sizeof(uint64_t));
    give(g, g->tracks, g->generation.n_sequences, sizeof *g->tracks);
    g->tracks = NULL;
}

void dibit_generator_destroy(dibit_generator **generator) {
    if (!generator || !*generator) return;
    dibit_generator *g = *generator;
    dibit_generator_cancel(g);
    give(g, g->batch, g->batch_capacity, sizeof *g->batch);
    give(g, g->states, g->batch_capacity, sizeof *g->states);
    give(g, g->settings, g->batch_capacity, sizeof *g->settings);
    give(g, g->chosen, g->batch_capacity, sizeof *g->chosen);
    give(g, g->ids, g->ids_capacity, sizeof *g->ids);
    give(g, g->positions, g->positions_capacity, sizeof *g->positions);
    give(g, g->mask, g->mask_capacity, sizeof *g->mask);
    give(g, g->logits, g->vocabulary, sizeof *g->logits);
    give(g, g->choices, g->vocabulary, sizeof *g->choices);
    const dibit_allocator a = *g->desc.allocator;
    a.release(a.user, g, sizeof *g + sizeof a);
    *generator = NULL;
}

uint32_t dibit_generator_vocabulary(const dibit_generator *g) { return g->vocabulary; }

/* ---- One run ---- */

static dibit_tensor ids_tensor(const char *name, int64_t *data, int64_t rows, int64_t columns) {
    return (dibit_tensor){
        .name = name, .type = DIBIT_TYPE_INT64, .rank = 2, .dims = {rows, columns}, .data = data};
}

/* Prepares g->run to feed n tokens to each of g->states[0 .. n_batch); the caller fills g->ids, the first
 * input. */
static dibit_status prepare_run(dibit_generator *g, size_t n, uint32_t last_rows,
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
static dibit_status accept_logits(dibit_generator *g, int64_t rows, dibit_error *error) {
    const dibit_tensor *t = &g->output;
    DBT_LM_FAIL_IF((t->type != DIBIT_TYPE_FLOAT && t->type != DIBIT_TYPE_FLOAT16) || t->rank != 3 ||
                       t->dims[0] != g->n_batch || t->dims[1] != rows || t->dims[2] <= 0 ||
                       t->dims[2] >= INT32_MAX || (g->vocabulary && t->dims[2] != g->vocabulary),
                   error, DIBIT_UNSUPPORTED,
                   "output 'logits' is %s of rank %d, not float or float16 [batch, rows, "
                   "vocabulary]",
                   dibit_type_name(t->type), (int)t->rank);
    g->vocabulary = (uint32_t)t->dims[2];
    if (!g->logits) g->logits = take(g, g->vocabulary, sizeof *g->logits);
    if (!g->choices) g->choices = take(g, g->vocabulary, sizeof *g->choices);
    return g->logits && g->choices ? DIBIT_OK : dbt_lm_fail_memory(error);
}

/* Copies row i of the logits, counted over the batch, to g->logits. */
static void read_row(dibit_generator *g, size_t i) {
    const size_t n = g->vocabulary;
    if (g->output.type == DIBIT_TYPE_FLOAT) {
        memcpy(g->logits, (const float *)g->output.data + i * n, n * sizeof(float));
        return;
    }
    const uint16_t *half = (const uint16_t *)g->output.data + i * n;
    for (size_t k = 0; k < n; k++) g->logits[k] = dbt_half_to_float(half[k]);
}

/* ---- Begin ---- */

static dibit_status check_ids(const dibit_generator *g, const int64_t *ids, size_t n,
                              dibit_error *error) {
    for (size_t i = 0; i < n; i++) {
        DBT_LM_FAIL_IF(ids[i] < 0 || (g->vocabulary && ids[i] >= g->vocabulary), error,
                       DIBIT_OUT_OF_RANGE, "token %lld at position %zu is not in the vocabulary",
                       (long long)ids[i], i);
    }
    return DIBIT_OK;
}

static dibit_status check_sequence(const dibit_generator *g, const dibit_generation *generation,
                                   uint32_t index, dibit_error *error) {
    const dibit_sequence *s = &generation->sequences[index];
    DBT_LM_FAIL_IF(!s->state || !s->prompt || !s->n_prompt || !s->tokens || !s->max_tokens, error,
                   DIBIT_BAD_ARGUMENT, "sequence %u lacks a state, a prompt or room for tokens",
                   (unsigned)index);
    for (uint32_t i = 0; i < index; i++)
        DBT_LM_FAIL_IF(generation->sequences[i].state == s->state, error, DIBIT_BAD_ARGUMENT,
                       "sequences %u and %u have the same state", (unsigned)i, (unsigned)index);
    DBT_TRY(dbt_sampling_check(&s->sampling, error));
    DBT_TRY(check_ids(g, s->prompt, s->n_prompt, error));
    const uint64_t length = dibit_state_length(s->state);
    DBT_LM_FAIL_IF(
        g->desc.context_length && length + s->n_prompt > g->desc.context_length, error,
        DIBIT_CAPACITY, "%llu tokens and a prompt of %zu are more than the context of %llu",
        (unsigned long long)length, s->n_prompt, (unsigned long long)g->desc.context_length);
    return DIBIT_OK;
}

static dibit_status reserve_batch(dibit_generator *g, uint32_t n, dibit_error *error) {
    if (n <= g->batch_capacity) return DIBIT_OK;
    uint32_t *batch = take(g, n, sizeof *batch);
    dibit_state **states = take(g, n, sizeof *states);
    dibit_sample *settings = take(g, n, sizeof *settings);
    int64_t *chosen = take(g, n, sizeof *chosen);
    if (!batch || !states || !settings || !chosen) {
        give(g, batch, n, sizeof *batch);
        give(g, states, n, sizeof *states);
        give(g, settings, n, sizeof *settings);
        give(g, chosen, n, sizeof *chosen);
        return dbt_lm_fail_memory(error);
    }
    give(g, g->batch, g->batch_capacity, sizeof *g->batch);
    give(g, g->states, g->batch_capacity, sizeof *g->states);
    give(g, g->settings, g->batch_capacity, sizeof *g->settings);
    give(g, g->chosen, g->batch_capacity, sizeof *g->chosen);
    g->batch = batch;
    g->states = states;
    g->settings = settings;
    g->chosen = chosen;
    g->batch_capacity = n;
    return DIBIT_OK;
}

/* Whether the device can choose the tokens of all sequences. */
static void choose_sampler(dibit_generator *g) {
    dibit_session_info info;
    dibit_session_get_info(g->desc.session, &info);
    g->samples = info.samples;
    for (uint32_t i = 0; i < g->generation.n_sequences; i++) {
        const dibit_sampling *s = &g->generation.sequences[i].sampling;
        const bool penalty = s->repetition_penalty > 0 && s->repetition_penalty != 1;
        const bool top_k = s->top_k >= 1 && s->top_k <= DIBIT_SAMPLE_MAX_TOP_K;
        if (penalty || (s->temperature > 0 && !top_k)) g->samples = false;
    }
    g->ahead = g->samples && info.runs_ahead;
}

dibit_status dibit_generator_begin(dibit_generator *g, const dibit_generation *generation,
                                   dibit_error *error) {
    DBT_LM_FAIL_IF(g->active, error, DIBIT_BAD_STATE, "a generation is under way already");
    DBT_LM_FAIL_IF(!generation || !generation->sequences || !generation->n_sequences, error,
                   DIBIT_BAD_ARGUMENT, "a generation needs a sequence");
    for (uint32_t i = 0; i < generation->n_sequences; i++)
        DBT_TRY(check_sequence(g, generation, i, error));
    DBT_TRY(reserve_batch(g, generation->n_sequences, error));
    track *tracks = take(g, generation->n_sequences, sizeof *tracks);
    if (!tracks) return dbt_lm_fail_memory(error);
    for (uint32_t i = 0; i < generation->n_sequences; i++) {
        dibit_sequence *s = &generation->sequences[i];
        tracks[i] = (track){.random = s->sampling.seed};
        s->n_tokens = 0;
        s->finish = DIBIT_FINISH_NONE;
        s->stop_token = -1;
    }
    g->tracks = tracks;
    g->generation = *generation;
    g->active = true;
    g->running = false;
    g->n_uncollected = 0;
    g->uncollected_fed = 0;
    choose_sampler(g);
    g->next = 0;
    return DIBIT_OK;
}

/* ---- Poll ---- */

/* Gives the next run its batch: one sequence whose prompt is not fed, or all that go on. False when
 * there is nothing left to do. *n is how many tokens each gets. */
static bool choose_batch(dibit_generator *g, size_t *n) {
    const dibit_generation *all = &g->generation;
    g->n_batch = 0;
    for (uint32_t i = 0; i < all->n_sequences; i++) {
        const size_t left = all->sequences[i].n_prompt - g->tracks[i].fed;
        if (left == 0 || all->sequences[i].finish != DIBIT_FINISH_NONE) continue;
        g->batch[g->n_batch++] = i;
        *n = left < g->desc.max_chunk ? left : g->desc.max_chunk;
        return true;
    }
    *n = 1;
    for (uint32_t k = 0; k < all->n_sequences; k++) {
        const uint32_t i = (g->next + k) % all->n_sequences;
        if (all->sequences[i].finish != DIBIT_FINISH_NONE) continue;
        g->batch[g->n_batch++] = i;
        if (!g->one_by_one) continue;
        g->next = i + 1;
        break;
    }
    return g->n_batch > 0;
}

/* The run's outputs: none while more of a prompt is to come, else logits, or tokens from the device. */
static void prepare_outputs(dibit_generator *g) {
    const dibit_sequence *first = &g->generation.sequences[g->batch[0]];
    const size_t fed = g->tracks[g->batch[0]].fed;
    if (fed < first->n_prompt && fed + g->n_fed < first->n_prompt) {
        g->run.n_outputs = 0;
        return;
    }
    if (!g->samples) return;
    g->run.n_outputs = 0;
    g->run.sample = g->settings;
    for (uint32_t b = 0; b < g->n_batch; b++) {
        const dibit_sampling *s = &g->generation.sequences[g->batch[b]].sampling;
        track *t = &g->tracks[g->batch[b]];
        t->random_before = t->random;
        g->settings[b] = (dibit_sample){
            .temperature = s->temperature, .top_k = s->top_k, .top_p = s->top_p, .min_p = s->min_p};
        if (s->temperature > 0) g->settings[b].random = (float)dbt_sampler_random(&t->random);
    }
}

static dibit_status begin_run(dibit_generator *g, dibit_error *error) {
    size_t n;
    choose_batch(g, &n);
    for (uint32_t b = 0; b < g->n_batch; b++)
        g->states[b] = g->generation.sequences[g->batch[b]].state;
    DBT_TRY(prepare_run(g, n, 1, error));
    prepare_outputs(g);
    for (uint32_t b = 0; b < g->n_batch; b++) {
        const dibit_sequence *s = &g->generation.sequences[g->batch[b]];
        const track *t = &g->tracks[g->batch[b]];
        const int64_t *from =
            t->fed < s->n_prompt ? s->prompt + t->fed : s->tokens + s->n_tokens - 1;
        memcpy(g->ids + b * n, from, n * sizeof *from);
    }
    return dibit_run_begin(g->desc.session, &g->run, error);
}

/* Every sequence of the last run goes on for certain, unless it stops, and no other one does. */
static bool can_run_ahead(const dibit_generator *g) {
    const dibit_generation *all = &g->generation;
    if (!g->ahead || g->n_uncollected != 1) return false;
    uint32_t n_going = 0;
    for (uint32_t i = 0; i < all->n_sequences; i++) {
        const dibit_sequence *s = &all->sequences[i];
        if (s->finish != DIBIT_FINISH_NONE) continue;
        n_going++;
        if (g->tracks[i].fed < s->n_prompt || s->n_tokens + 1 >= s->max_tokens) return false;
        if (g->desc.context_length && dibit_state_length(s->state) >= g->desc.context_length)
            return false;
    }
    for (uint32_t b = 0; b < g->n_batch; b++) {
        if (all->sequences[g->batch[b]].finish != DIBIT_FINISH_NONE) return false;
    }
    return n_going == g->n_batch;
}

/* The tokens that the last run has chosen go in. */
static dibit_status begin_run_ahead(dibit_generator *g, dibit_error *error) {
    DBT_TRY(prepare_run(g, 1, 1, error));
    prepare_outputs(g);
    g->run.inputs++; /* the ids */
    g->run.n_inputs--;
    g->run.feed = true;
    return dibit_run_begin(g->desc.session, &g->run, error);
}

/* Takes back from a sequence's state what uncollected runs have fed it. They are of models whose states
 * can be cut, or the prompt's last. */
static void rewind_state(const dibit_generator *g, const dibit_sequence *s) {
    if (g->uncollected_fed == 0) return;
    (void)dibit_state_truncate(s->state, dibit_state_length(s->state) - g->uncollected_fed, NULL);
}

static void mark_seen(track *t, const int64_t *ids, size_t n, uint32_t vocabulary) {
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= 0 && ids[i] < vocabulary) t->seen[ids[i] / 64] |= 1ull << ids[i] % 64;
    }
}

/* The set of tokens so far, made when the first logits have told how many there are. */
static dibit_status make_seen(dibit_generator *g, const dibit_sequence *s, track *t,
                              dibit_error *error) {
    const float penalty = s->sampling.repetition_penalty;
    if (t->seen || penalty == 0 || penalty == 1) return DIBIT_OK;
    const size_t words = g->vocabulary / 64 + 1;
    t->seen = take(g, words, sizeof *t->seen);
    if (!t->seen) return dbt_lm_fail_memory(error);
    memset(t->seen, 0, words * sizeof *t->seen);
    if (s->past) mark_seen(t, s->past, s->n_past, g->vocabulary);
    mark_seen(t, s->prompt, s->n_prompt, g->vocabulary);
    return DIBIT_OK;
}

/* Sequence i's next token. CANCELLED: on_token said so. */
static dibit_status take_token(dibit_generator *g, uint32_t i, int64_t token, dibit_error *error) {
    dibit_sequence *s = &g->generation.sequences[i];
    track *t = &g->tracks[i];
    DBT_LM_FAIL_IF(token < 0, error, DIBIT_OUT_OF_RANGE, "the model's logits are not numbers");
    for (size_t k = 0; k < s->n_stop; k++) {
        if (s->stop[k] != token) continue;
        s->stop_token = token;
        s->finish = DIBIT_FINISH_STOP;
        rewind_state(g, s);
        return DIBIT_OK;
    }
    s->tokens[s->n_tokens++] = token;
    if (t->seen) mark_seen(t, &s->tokens[s->n_tokens - 1], 1, g->vocabulary);
    if (s->n_tokens == s->max_tokens)
        s->finish = DIBIT_FINISH_LENGTH;
    else if (g->desc.context_length && g->n_uncollected == 0 &&
             dibit_state_length(s->state) >= g->desc.context_length)
        s->finish = DIBIT_FINISH_CONTEXT;
    if (!g->generation.on_token || g->generation.on_token(g->generation.on_token_user, i, token))
        return DIBIT_OK;
    return dbt_lm_fail(error, DIBIT_CANCELLED, "the generation was cancelled");
}

/* Chooses sequence i's next token from row b of the logits; -1 when they are not numbers. */
static dibit_status choose_token(dibit_generator *g, uint32_t i, size_t b, int64_t *token,
                                 dibit_error *error) {
    const dibit_sequence *s = &g->generation.sequences[i];
    track *t = &g->tracks[i];
    DBT_TRY(make_seen(g, s, t, error));
    read_row(g, b);
    uint32_t id;
    const dbt_sampler sampler = {&s->sampling, &t->random, t->seen, g->choices};
    *token = dbt_sample(&sampler, g->logits, g->vocabulary, &id) ? (int64_t)id : -1;
    return DIBIT_OK;
}

static dibit_status end_run(dibit_generator *g, dibit_error *error) {
    for (uint32_t b = 0; b < g->n_batch; b++) {
        track *t = &g->tracks[g->batch[b]];
        if (t->fed < g->generation.sequences[g->batch[b]].n_prompt) t->fed += g->n_fed;
    }
    if (g->run.sample) {
        g->n_uncollected++;
        g->uncollected_fed += g->n_fed;
        return DIBIT_OK;
    }
    if (g->run.n_outputs == 0) return DIBIT_OK;
    DBT_TRY(accept_logits(g, 1, error));
    for (uint32_t b = 0; b < g->n_batch; b++) {
        int64_t token;
        DBT_TRY(choose_token(g, g->batch[b], b, &token, error));
        DBT_TRY(take_token(g, g->batch[b], token, error));
    }
    return DIBIT_OK;
}

/* The tokens of the oldest run, once the device has them. */
static dibit_status collect(dibit_generator *g, dibit_error *error) {
    DBT_TRY(dibit_run_tokens(g->desc.session, g->chosen, g->n_batch, error));
    g->n_uncollected--;
    g->uncollected_fed = g->n_uncollected; /* a run ahead feeds one token */
    for (uint32_t b = 0; b < g->n_batch; b++) {
        const uint32_t i = g->batch[b];
        if (g->generation.sequences[i].finish != DIBIT_FINISH_NONE) continue;
        DBT_TRY(take_token(g, i, g->chosen[b], error));
    }
    return DIBIT_OK;
}

static bool all_finished(const dibit_generator *g) {
    for (uint32_t i = 0; i < g->generation.n_sequences; i++) {
        if (g->generation.sequences[i].finish == DIBIT_FINISH_NONE) return false;
    }
    return true;
}

static dibit_status begin_next(dibit_generator *g, dibit_error *error) {
    const dibit_status status = begin_run(g, error);
    if (status != DIBIT_BAD_INPUT || g->n_batch == 1 || g->one_by_one) return status;
    g->one_by_one = true; /* caches that are not addressed by row need equal lengths */
    return begin_run(g, error);
}

/* A run ahead failed: what it would have fed is fed again when the tokens before it are known. */
static void give_up_ahead(dibit_generator *g) {
    g->ahead = false;
    for (uint32_t b = 0; b < g->n_batch; b++)
        g->tracks[g->batch[b]].random = g->tracks[g->batch[b]].random_before;
}

/* Moves the run under way to its end. */
static dibit_status finish_run(dibit_generator *g, dibit_error *error) {
    const dibit_status status = dibit_run_poll(g->desc.session, error);
    if (status == DIBIT_PENDING) return DIBIT_PENDING;
    g->running = false;
    if (status == DIBIT_OK) return end_run(g, error);
    if (g->n_uncollected == 0) return status;
    give_up_ahead(g);
    return DIBIT_OK;
}

static dibit_status advance(dibit_generator *g, dibit_error *error) {
    if (!g->running && g->n_uncollected == 0) {
        DBT_TRY(begin_next(g, error));
        g->running = true;
    }
    if (g->running) DBT_TRY(finish_run(g, error));
    if (can_run_ahead(g)) {
        g->running = begin_run_ahead(g, error) == DIBIT_OK;
        if (g->running) {
            DBT_TRY(finish_run(g, error));
        } else {
            give_up_ahead(g);
        }
    }
    if (g->n_uncollected > 0) DBT_TRY(collect(g, error));
    return all_finished(g) ? DIBIT_OK : DIBIT_PENDING;
}

dibit_status dibit_generator_poll(dibit_generator *g, dibit_error *error) {
    DBT_LM_FAIL_IF(!g->active, error, DIBIT_BAD_STATE, "no generation is under way");
    const dibit_status status = advance(g, error);
    if (status != DIBIT_PENDING) dibit_generator_cancel(g);
    return status;
}

void dibit_generator_cancel(dibit_generator *g) {
    if (!g || !g->active) return;
    if (g->running || g->n_uncollected > 0) dibit_run_cancel(g->desc.session);
    for (uint32_t b = 0; g->n_uncollected > 0 && b < g->n_batch; b++) {
        const dibit_sequence *s = &g->generation.sequences[g->batch[b]];
        if (s->finish == DIBIT_FINISH_NONE) rewind_state(g, s);
    }
    for (uint32_t i = 0; i < g->generation.n_sequences; i++) {
        if (g->generation.sequences[i].finish == DIBIT_FINISH_NONE)
            g->generation.sequences[i].finish = DIBIT_FINISH_CANCELLED;
    }
    free_tracks(g);
    g->active = g->running = false;
}

dibit_status dibit_generator_run(dibit_generator *g, const dibit_generation *generation,
                                 dibit_error *error) {
    DBT_TRY(dibit_generator_begin(g, generation, error));
    dibit_status status;
    do status = dibit_generator_poll(g, error);
    while (status == DIBIT_PENDING);
    return status;
}

/* ---- Score ---- */

/* -ln softmax(g->logits)[token] */
static double surprise(const dibit_generator *g, int64_t token) {
    float top = -INFINITY;
    for (uint32_t i = 0; i < g->vocabulary; i++) top = g->logits[i] > top ? g->logits[i] : top;
    double sum = 0;
    for (uint32_t i = 0; i < g->vocabulary; i++) sum += exp((double)g->logits[i] - (double)top);
    return log(sum) + (double)top - (double)g->logits[token];
}

static dibit_status score_all(dibit_generator *g, const dibit_score *score, dibit_error *error) {
    /* 128 rows until the first logits have told how wide they are. */
    size_t chunk = g->desc.max_chunk < 128 ? g->desc.max_chunk : 128;
    for (size_t done = 0; done + 1 < score->n_tokens;) {
        if (g->vocabulary) {
            const size_t fits = (32u << 20) / sizeof(float) / g->vocabulary;
            chunk = fits == 0 ? 1 : fits < g->desc.max_chunk ? fits : g->desc.max_chunk;
        }
        const size_t left = score->n_tokens - 1 - done, n = left < chunk ? left : chunk;
        DBT_TRY(prepare_run(g, n, 0, error));
        memcpy(g->ids, score->tokens + done, n * sizeof *g->ids);
        DBT_TRY(dibit_session_run(g->desc.session, &g->run, error));
        DBT_TRY(accept_logits(g, (int64_t)n, error));
        for (size_t i = 0; i < n; i++, done++) {
            const int64_t token = score->tokens[done + 1];
            DBT_LM_FAIL_IF(token >= g->vocabulary, error, DIBIT_OUT_OF_RANGE,
                           "token %lld at position %zu is not in the vocabulary", (long long)token,
                           done + 1);
            read_row(g, i);
            score->nll[done] = surprise(g, token);
        }
    }
    return DIBIT_OK;
}

dibit_status dibit_generator_score(dibit_generator *g, const dibit_score *score,
                                   dibit_error *error) {
    DBT_LM_FAIL_IF(g->active, error, DIBIT_BAD_STATE, "a generation is under way");
    DBT_LM_FAIL_IF(!score || !score->tokens || score->n_tokens < 2 || !score->nll, error,
                   DIBIT_BAD_ARGUMENT, "a score needs two tokens and room for the result");
    DBT_TRY(check_ids(g, score->tokens, score->n_tokens, error));
    DBT_TRY(reserve_batch(g, 1, error));
    dibit_state *state = NULL;
    DBT_TRY(dibit_state_create(g->desc.session, &(dibit_state_desc){.capacity = score->n_tokens},
                               &state, error));
    g->states[0] = state;
    g->n_batch = 1;
    const dibit_status status = score_all(g, score, error);
    dibit_state_destroy(&state);
    return status;
}

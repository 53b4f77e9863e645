/* The generation loop: tokens in, tokens out, over states.
 *
 * A generation is a chain of runs. A sequence's text is its past, its prompt and its tokens, and its state
 * holds so many of the first of them. Prompts are fed first, sequence by sequence in chunks; the last
 * chunk's logits give the first token. Then every run feeds the last token of each sequence that
 * goes on. poll moves the current run, or takes its logits and begins the next.
 *
 * Where the session's device chooses tokens, it does. Then a run has tokens to collect when it is
 * over, and the next may begin ahead of that, if it certainly feeds the same sequences unless one of
 * them stops: two runs are uncollected at most. A run ahead that was one too many is taken back from
 * the states; one that fails is forgotten, and begun again after the tokens before it are known.
 *
 * A session that leaves its device loses its states. Emptied, they hold none of their texts, which are fed
 * again like prompts; tokens were drawn by their number, so the rest is what it would have been. */
#include "lm/generator.h"

static void free_tracks(dibit_generator *g) {
    if (!g->tracks) return;
    for (uint32_t i = 0; i < g->generation.n_sequences; i++)
        dbt_generator_give(g, g->tracks[i].seen, g->vocabulary / 64 + 1, sizeof(uint64_t));
    dbt_generator_give(g, g->tracks, g->generation.n_sequences, sizeof *g->tracks);
    g->tracks = NULL;
}

/* ---- Begin ---- */

/* The tokens of a state with `held` of them are known: it can be filled again. */
static bool has_past(const dibit_sequence *s, uint64_t held) {
    return held == 0 || (s->past && s->n_past == held);
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
    DBT_TRY(dbt_generator_check_ids(g, s->prompt, s->n_prompt, error));
    const uint64_t length = dibit_state_length(s->state);
    DBT_LM_FAIL_IF(
        dibit_state_is_lost(s->state) && !has_past(s, length), error, DIBIT_DEVICE_LOST,
        "the state of sequence %u was lost with its device, and `past` does not have its "
        "%llu tokens",
        (unsigned)index, (unsigned long long)length);
    DBT_LM_FAIL_IF(
        g->desc.context_length && length + s->n_prompt > g->desc.context_length, error,
        DIBIT_CAPACITY, "%llu tokens and a prompt of %zu are more than the context of %llu",
        (unsigned long long)length, s->n_prompt, (unsigned long long)g->desc.context_length);
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
    DBT_TRY(dbt_generator_reserve_batch(g, generation->n_sequences, error));
    dbt_track *tracks = dbt_generator_take(g, generation->n_sequences, sizeof *tracks);
    if (!tracks) return dbt_lm_fail_memory(error);
    for (uint32_t i = 0; i < generation->n_sequences; i++) {
        dibit_sequence *s = &generation->sequences[i];
        tracks[i] = (dbt_track){.start = dibit_state_length(s->state)};
        s->n_tokens = 0;
        s->finish = DIBIT_FINISH_NONE;
        s->stop_token = -1;
    }
    g->tracks = tracks;
    g->generation = *generation;
    g->active = true;
    choose_sampler(g);
    g->next = 0;
    return DIBIT_OK;
}

/* ---- Poll ---- */

/* Tokens of sequence i's text, as far as it is known. */
static uint64_t text_length(const dibit_generator *g, uint32_t i) {
    const dibit_sequence *s = &g->generation.sequences[i];
    return g->tracks[i].start + s->n_prompt + s->n_tokens;
}

static void copy_text(const dibit_generator *g, uint32_t i, size_t from, size_t n, int64_t *to) {
    const dibit_sequence *s = &g->generation.sequences[i];
    const size_t prompt = (size_t)g->tracks[i].start, tokens = prompt + s->n_prompt;
    for (size_t k = from; k < from + n; k++)
        *to++ = k < prompt   ? s->past[k]
                : k < tokens ? s->prompt[k - prompt]
                             : s->tokens[k - tokens];
}

/* How much of its text sequence i is to be fed before decoding goes on: a prompt that gives its first token;
 * after a loss all; nothing when it merely waits for its next token. */
static size_t left_to_read(const dibit_generator *g, uint32_t i) {
    const dibit_sequence *s = &g->generation.sequences[i];
    const bool all = s->finish == DIBIT_FINISH_NONE || s->finish == DIBIT_FINISH_STOP;
    const uint64_t wanted = text_length(g, i) - !all, held = dibit_state_length(s->state);
    const bool waits = s->finish == DIBIT_FINISH_NONE && s->n_tokens > 0;
    return held + waits < wanted ? (size_t)(wanted - held) : 0;
}

/* Gives the next run its batch: one sequence that has text to be read, or all that go on. *n is how many
 * tokens each gets. */
static void choose_batch(dibit_generator *g, size_t *n) {
    const dibit_generation *all = &g->generation;
    g->n_batch = 0;
    for (uint32_t i = 0; i < all->n_sequences; i++) {
        const size_t left = left_to_read(g, i);
        if (left == 0) continue;
        g->batch[g->n_batch++] = i;
        *n = left < g->desc.max_chunk ? left : g->desc.max_chunk;
        return;
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
}

/* The run's outputs: none while more of a text is to come, else logits, or tokens from the device. */
static void prepare_outputs(dibit_generator *g) {
    const dibit_sequence *first = &g->generation.sequences[g->batch[0]];
    if (first->finish != DIBIT_FINISH_NONE ||
        dibit_state_length(first->state) + g->n_fed < text_length(g, g->batch[0])) {
        g->run.n_outputs = 0;
        return;
    }
    if (!g->samples) return;
    g->run.n_outputs = 0;
    g->run.sample = g->settings;
    for (uint32_t b = 0; b < g->n_batch; b++) {
        const dibit_sequence *s = &g->generation.sequences[g->batch[b]];
        const dibit_sampling *o = &s->sampling;
        g->settings[b] = (dibit_sample){
            .temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .min_p = o->min_p};
        if (o->temperature > 0)
            g->settings[b].random =
                (float)dbt_sampler_random(o->seed, s->n_tokens + g->n_uncollected);
    }
}

static dibit_status begin_run(dibit_generator *g, dibit_error *error) {
    size_t n;
    choose_batch(g, &n);
    for (uint32_t b = 0; b < g->n_batch; b++)
        g->states[b] = g->generation.sequences[g->batch[b]].state;
    DBT_TRY(dbt_generator_prepare_run(g, n, 1, error));
    prepare_outputs(g);
    for (uint32_t b = 0; b < g->n_batch; b++) {
        const size_t held = (size_t)dibit_state_length(g->states[b]);
        copy_text(g, g->batch[b], held, n, g->ids + b * n);
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
        if (left_to_read(g, i) || s->n_tokens + 1 >= s->max_tokens) return false;
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
    DBT_TRY(dbt_generator_prepare_run(g, 1, 1, error));
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

static void mark_seen(dbt_track *t, const int64_t *ids, size_t n, uint32_t vocabulary) {
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= 0 && ids[i] < vocabulary) t->seen[ids[i] / 64] |= 1ull << ids[i] % 64;
    }
}

/* The set of tokens so far, made when the first logits have told how many there are. */
static dibit_status make_seen(dibit_generator *g, const dibit_sequence *s, dbt_track *t,
                              dibit_error *error) {
    const float penalty = s->sampling.repetition_penalty;
    if (t->seen || penalty == 0 || penalty == 1) return DIBIT_OK;
    const size_t words = g->vocabulary / 64 + 1;
    t->seen = dbt_generator_take(g, words, sizeof *t->seen);
    if (!t->seen) return dbt_lm_fail_memory(error);
    memset(t->seen, 0, words * sizeof *t->seen);
    if (s->past) mark_seen(t, s->past, s->n_past, g->vocabulary);
    mark_seen(t, s->prompt, s->n_prompt, g->vocabulary);
    mark_seen(t, s->tokens, s->n_tokens, g->vocabulary);
    return DIBIT_OK;
}

/* Sequence i's next token. CANCELLED: on_token said so. */
static dibit_status take_token(dibit_generator *g, uint32_t i, int64_t token, dibit_error *error) {
    dibit_sequence *s = &g->generation.sequences[i];
    dbt_track *t = &g->tracks[i];
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
    dbt_track *t = &g->tracks[i];
    DBT_TRY(make_seen(g, s, t, error));
    dbt_generator_read_row(g, b);
    uint32_t id;
    const dbt_sampler sampler = {&s->sampling, dbt_sampler_random(s->sampling.seed, s->n_tokens),
                                 t->seen, g->choices};
    *token = dbt_sample(&sampler, g->logits, g->vocabulary, &id) ? (int64_t)id : -1;
    return DIBIT_OK;
}

static dibit_status end_run(dibit_generator *g, dibit_error *error) {
    if (g->run.sample) {
        g->n_uncollected++;
        g->uncollected_fed += g->n_fed;
        return DIBIT_OK;
    }
    if (g->run.n_outputs == 0) return DIBIT_OK;
    DBT_TRY(dbt_generator_accept_logits(g, 1, error));
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
        if (g->generation.sequences[i].finish == DIBIT_FINISH_NONE || left_to_read(g, i))
            return false;
    }
    return true;
}

static dibit_status begin_next(dibit_generator *g, dibit_error *error) {
    const dibit_status status = begin_run(g, error);
    if (status != DIBIT_BAD_INPUT || g->n_batch == 1 || g->one_by_one) return status;
    g->one_by_one = true; /* caches that are not addressed by row need equal lengths */
    return begin_run(g, error);
}

/* Moves the run under way to its end. */
static dibit_status finish_run(dibit_generator *g, dibit_error *error) {
    const dibit_status status = dibit_run_poll(g->desc.session, error);
    if (status == DIBIT_PENDING) return DIBIT_PENDING;
    g->running = false;
    if (status == DIBIT_OK) return end_run(g, error);
    if (g->n_uncollected == 0) return status;
    g->ahead = false; /* what it would have fed is fed again */
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
        g->ahead = g->running;
        if (g->running) DBT_TRY(finish_run(g, error));
    }
    if (g->n_uncollected > 0) DBT_TRY(collect(g, error));
    return all_finished(g) ? DIBIT_OK : DIBIT_PENDING;
}

/* Ends runs, and takes back what they fed beyond the tokens that are known. */
static void forget_runs(dibit_generator *g) {
    if (g->running || g->n_uncollected > 0) dibit_run_cancel(g->desc.session);
    for (uint32_t b = 0; g->n_uncollected > 0 && b < g->n_batch; b++) {
        const dibit_sequence *s = &g->generation.sequences[g->batch[b]];
        if (s->finish == DIBIT_FINISH_NONE) rewind_state(g, s);
    }
    g->running = false;
    g->n_uncollected = 0;
    g->uncollected_fed = 0;
}

/* Empties the states that were lost with a device, so that their texts are fed again. */
static dibit_status restore_states(dibit_generator *g, dibit_error *error) {
    bool lost = false;
    for (uint32_t i = 0; i < g->generation.n_sequences; i++) {
        dibit_state *state = g->generation.sequences[i].state;
        if (!dibit_state_is_lost(state)) continue;
        DBT_TRY(dibit_state_truncate(state, 0, error));
        lost = true;
    }
    if (lost) choose_sampler(g);
    return DIBIT_OK;
}

/* Whether the CPU can take over after `status`: of each sequence the whole text has to be known. */
static bool can_start_over(const dibit_generator *g, dibit_status status) {
    if (!dibit_session_may_leave(g->desc.session, status)) return false;
    for (uint32_t i = 0; i < g->generation.n_sequences; i++)
        if (!has_past(&g->generation.sequences[i], g->tracks[i].start)) return false;
    return true;
}

dibit_status dibit_generator_poll(dibit_generator *g, dibit_error *error) {
    DBT_LM_FAIL_IF(!g->active, error, DIBIT_BAD_STATE, "no generation is under way");
    dibit_error why = {DIBIT_OK, ""};
    dibit_status status = dibit_session_poll(g->desc.session, &why); /* planned anew? */
    if (status == DIBIT_OK) status = restore_states(g, &why);
    if (status == DIBIT_OK) status = advance(g, &why);
    if (status == DIBIT_OK || status == DIBIT_PENDING) {
        if (status == DIBIT_OK) dibit_generator_cancel(g);
        return status;
    }
    if (can_start_over(g, status)) {
        forget_runs(g);
        status = dibit_session_leave_device(g->desc.session, &why, &why);
        if (status == DIBIT_OK) return DIBIT_PENDING;
    }
    dibit_generator_cancel(g);
    return dbt_lm_fail(error, status, "%s", why.text);
}

void dibit_generator_cancel(dibit_generator *g) {
    if (!g || !g->active) return;
    forget_runs(g);
    for (uint32_t i = 0; i < g->generation.n_sequences; i++) {
        if (g->generation.sequences[i].finish == DIBIT_FINISH_NONE)
            g->generation.sequences[i].finish = DIBIT_FINISH_CANCELLED;
    }
    free_tracks(g);
    g->active = false;
}

dibit_status dibit_generator_run(dibit_generator *g, const dibit_generation *generation,
                                 dibit_error *error) {
    DBT_TRY(dibit_generator_begin(g, generation, error));
    dibit_status status;
    do status = dibit_generator_poll(g, error);
    while (status == DIBIT_PENDING);
    return status;
}

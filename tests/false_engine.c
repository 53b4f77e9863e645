/* The false engine: see false_engine.h. */
#include "dbt_test.h"

#include "base/half.h"
#include "false_engine.h"

false_engine_kind engine;

/* Whether the device fails at this call. */
static bool fails(dibit_session *session, dibit_error *error) {
    if (session->left || !session->loses_at) return false;
    const uint32_t n = ++session->n_calls;
    if (n < session->loses_at ||
        (n > session->loses_at && session->fails_with != DIBIT_DEVICE_LOST))
        return false;
    snprintf(error->text, sizeof error->text, "the false device failed");
    session->run = NULL;
    return true;
}

bool dibit_session_may_leave(const dibit_session *session, dibit_status status) {
    return session->may_leave && !session->left && status == session->fails_with;
}

dibit_status dibit_session_leave_device(dibit_session *session, const dibit_error *why,
                                        dibit_error *error) {
    (void)error;
    assert_string_equal(why->text, "the false device failed");
    assert_null(session->run);
    session->left = true;
    session->n_unread = 0;
    for (int i = 0; i < 4 && session->states[i]; i++) {
        session->states[i]->lost = true;
        memset(session->states[i]->tokens, -1, sizeof session->states[i]->tokens);
    }
    return DIBIT_OK;
}

dibit_status dibit_session_poll(dibit_session *session, dibit_error *error) {
    (void)error;
    if (!session->left || session->n_planning == 0) return DIBIT_OK;
    session->n_planning--;
    return DIBIT_PENDING;
}

bool dibit_state_is_lost(const dibit_state *state) { return state->lost; }

static float false_logit(const int64_t *tokens, uint64_t n, uint32_t id) {
    uint64_t h = 0xcbf29ce484222325u;
    for (uint64_t i = 0; i < n; i++) h = (h ^ (uint64_t)tokens[i]) * 0x100000001b3u;
    h = (h ^ id) * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    return (float)(h * 0xd6e8feb86659fd93u >> 54) / 64 - 8; /* exact in float16 */
}

void false_row(const int64_t *tokens, uint64_t n, float row[VOCABULARY]) {
    for (uint32_t id = 0; id < VOCABULARY; id++) row[id] = false_logit(tokens, n, id);
}

static dibit_status fill(dibit_value_info *info, const char *name, dibit_type type, int32_t rank) {
    *info = (dibit_value_info){.name = name, .type = type, .rank = rank, .dims = {-1, -1, -1}};
    return DIBIT_OK;
}

uint32_t dibit_model_input_count(const dibit_model *model) { return model->extra_input ? 5 : 4; }
uint32_t dibit_model_output_count(const dibit_model *model) {
    (void)model;
    return 2;
}
dibit_status dibit_model_input(const dibit_model *model, uint32_t index, dibit_value_info *info) {
    const char *names[] = {"input_ids", "attention_mask", "position_ids", "past",
                           model->extra_input};
    return fill(info, names[index], DIBIT_TYPE_INT64, 2);
}
dibit_status dibit_model_output(const dibit_model *model, uint32_t index, dibit_value_info *info) {
    return fill(info, index || model->no_logits ? "present" : "logits", DIBIT_TYPE_FLOAT, 3);
}
dibit_status dibit_session_state_pair(const dibit_session *session, uint32_t index,
                                      const char **past, const char **present) {
    (void)session;
    *past = "past";
    *present = "present";
    return index ? DIBIT_NOT_FOUND : DIBIT_OK;
}
uint64_t dibit_state_length(const dibit_state *state) { return state->length; }
dibit_status dibit_state_create(dibit_session *session, const dibit_state_desc *desc,
                                dibit_state **out, dibit_error *error) {
    (void)session, (void)desc, (void)error;
    *out = calloc(1, sizeof **out);
    return *out ? DIBIT_OK : DIBIT_OUT_OF_MEMORY;
}
void dibit_state_destroy(dibit_state **state) {
    free(*state);
    *state = NULL;
}

dibit_status dibit_state_truncate(dibit_state *state, uint64_t length, dibit_error *error) {
    (void)error;
    assert_true(length <= state->length);
    if (state->lost) assert_int_equal(length, 0);
    state->lost = false;
    state->length = length;
    return DIBIT_OK;
}
void dibit_session_get_info(const dibit_session *session, dibit_session_info *out) {
    *out = (dibit_session_info){.samples = engine >= SAMPLES && !session->left,
                                .runs_ahead = engine == RUNS_AHEAD && !session->left};
}

dibit_status dibit_run_begin(dibit_session *session, const dibit_run *run, dibit_error *error) {
    assert_null(session->run);
    if (fails(session, error)) return session->fails_with;
    for (uint32_t b = 0; b < run->n_states; b++) assert_false(run->states[b]->lost);
    if (session->left) assert_true(!run->sample && session->n_planning == 0);
    if (run->feed) {
        assert_int_equal(engine, RUNS_AHEAD);
        assert_true(session->n_unread > 0);
        if (++session->n_fed == session->fails_fed && !session->fails_late) return DIBIT_CAPACITY;
    }
    for (uint32_t b = 1; session->equal_lengths && b < run->n_states; b++)
        if (run->states[b]->length != run->states[0]->length) return DIBIT_BAD_INPUT;
    session->run = run;
    return DIBIT_OK;
}

static void check_inputs(const dibit_run *run, int64_t s) {
    uint64_t longest = 0;
    for (uint32_t b = 0; b < run->n_states; b++)
        if (run->states[b]->length > longest) longest = run->states[b]->length;
    const dibit_tensor *mask = &run->inputs[!run->feed], *positions = mask + 1;
    assert_string_equal(mask->name, "attention_mask");
    assert_string_equal(positions->name, "position_ids");
    assert_int_equal(mask->dims[0], run->n_states);
    assert_int_equal(mask->dims[1], (int64_t)longest + s);
    for (uint32_t b = 0; b < run->n_states; b++) {
        const uint64_t length = run->states[b]->length;
        for (int64_t i = 0; i < mask->dims[1]; i++)
            assert_int_equal(((const int64_t *)mask->data)[b * mask->dims[1] + i],
                             i < (int64_t)length + s);
        for (int64_t i = 0; i < s; i++)
            assert_int_equal(((const int64_t *)positions->data)[b * s + i], (int64_t)length + i);
    }
}

/* As the device does, from the definition: of the best top_k the share top_p, without those below
 * min_p; the best first. */
static int64_t false_choice(const dibit_sample *s, const float *row) {
    int64_t best[DIBIT_SAMPLE_MAX_TOP_K];
    const uint32_t k = s->temperature > 0 ? s->top_k : 1;
    double weights[DIBIT_SAMPLE_MAX_TOP_K], total = 0, kept = 0;
    if (isnan(row[0])) return -1;
    for (uint32_t n = 0; n < k; n++) {
        best[n] = -1;
        for (int64_t i = 0; i < VOCABULARY; i++) {
            bool taken = false;
            for (uint32_t m = 0; m < n; m++) taken = taken || best[m] == i;
            if (!taken && (best[n] < 0 || row[i] > row[best[n]])) best[n] = i;
        }
        if (k == 1) return best[0];
        weights[n] = exp((double)((row[best[n]] - row[best[0]]) / s->temperature));
        total += weights[n];
    }
    uint32_t count = 0;
    while (count < k && (count == 0 || s->top_p <= 0 || kept < (double)s->top_p * total) &&
           (s->min_p <= 0 || weights[count] >= (double)s->min_p))
        kept += weights[count++];
    double left = (double)s->random * kept;
    uint32_t i = 0;
    while ((left -= weights[i]) >= 0 && i + 1 < count) i++;
    return best[i];
}

dibit_status dibit_run_tokens(dibit_session *session, int64_t *tokens, uint32_t n,
                              dibit_error *error) {
    assert_null(session->run);
    assert_true(session->n_unread > 0);
    if (fails(session, error)) return session->fails_with;
    if (session->random && dbt_test_random(&session->random) % 3) return DIBIT_PENDING;
    memcpy(tokens, session->chosen[--session->n_unread], n * sizeof *tokens);
    return DIBIT_OK;
}

/* The tokens that run feeds [n_states, *s]. */
static const int64_t *fed_tokens(const dibit_session *session, const dibit_run *run, int64_t *s) {
    static int64_t fed[MAX_BATCH];
    *s = 1;
    memcpy(fed, session->chosen[0], sizeof fed);
    if (run->feed) return fed;
    const dibit_tensor *ids = &run->inputs[0];
    assert_string_equal(ids->name, "input_ids");
    assert_int_equal(ids->dims[0], run->n_states);
    *s = ids->dims[1];
    return ids->data;
}

dibit_status dibit_run_poll(dibit_session *session, dibit_error *error) {
    const dibit_run *run = session->run;
    assert_non_null(run);
    if (fails(session, error)) return session->fails_with;
    if (session->random && dbt_test_random(&session->random) % 3) return DIBIT_PENDING;
    if (run->feed && session->n_fed == session->fails_fed) {
        session->run = NULL;
        return DIBIT_CAPACITY;
    }
    int64_t s;
    const int64_t *const ids = fed_tokens(session, run, &s);
    check_inputs(run, s);
    if (run->sample) {
        assert_int_equal(run->n_outputs, 0);
        assert_true(++session->n_unread <= MAX_UNREAD);
        memmove(session->chosen[1], session->chosen[0],
                sizeof session->chosen - sizeof session->chosen[0]);
        if (session->n_unread > session->most_unread) session->most_unread = session->n_unread;
    }
    const int64_t rows = run->last_rows ? run->last_rows : s;
    free(session->logits);
    session->logits = malloc((size_t)(run->n_states * rows) * VOCABULARY * sizeof(float));
    assert_non_null(session->logits);
    for (uint32_t b = 0; b < run->n_states; b++) {
        dibit_state *state = run->states[b];
        for (int64_t i = 0; i < s; i++) {
            state->tokens[state->length++] = ids[b * s + i];
            if (i < s - rows) continue;
            const int64_t at = (b * rows + i - (s - rows)) * VOCABULARY;
            float row[VOCABULARY];
            false_row(state->tokens, state->length, row);
            for (int64_t v = 0; v < VOCABULARY; v++) {
                if (session->not_numbers) row[v] = NAN;
                if (run->sample && v == VOCABULARY - 1)
                    session->chosen[0][b] = false_choice(&run->sample[b], row);
                if (session->logits_type == DIBIT_TYPE_FLOAT)
                    ((float *)session->logits)[at + v] = row[v];
                else
                    ((uint16_t *)session->logits)[at + v] = dbt_float_to_half(row[v]);
            }
        }
    }
    if (run->n_outputs)
        run->outputs[0] = (dibit_tensor){.name = "logits",
                                         .type = session->logits_type,
                                         .rank = 3,
                                         .dims = {run->n_states, rows, VOCABULARY},
                                         .data = session->logits};
    session->n_runs++;
    if (rows > session->most_rows) session->most_rows = (uint32_t)rows;
    if (run->n_states > session->widest_batch) session->widest_batch = run->n_states;
    if (s > session->largest_chunk) session->largest_chunk = s;
    session->run = NULL;
    return DIBIT_OK;
}

void dibit_run_cancel(dibit_session *session) {
    session->run = NULL;
    session->n_unread = 0;
    session->n_cancelled++;
}

dibit_status dibit_session_run(dibit_session *session, const dibit_run *run, dibit_error *error) {
    dibit_status status = dibit_run_begin(session, run, error);
    if (status) return status;
    do status = dibit_run_poll(session, error);
    while (status == DIBIT_PENDING);
    return status;
}

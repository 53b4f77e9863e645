/* Judging texts: how likely the model finds each token. */
#include "lm/generator.h"

#include <math.h>

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
        DBT_TRY(dbt_generator_prepare_run(g, n, 0, error));
        memcpy(g->ids, score->tokens + done, n * sizeof *g->ids);
        DBT_TRY(dibit_session_run(g->desc.session, &g->run, error));
        DBT_TRY(dbt_generator_accept_logits(g, (int64_t)n, error));
        for (size_t i = 0; i < n; i++, done++) {
            const int64_t token = score->tokens[done + 1];
            DBT_LM_FAIL_IF(token >= g->vocabulary, error, DIBIT_OUT_OF_RANGE,
                           "token %lld at position %zu is not in the vocabulary", (long long)token,
                           done + 1);
            dbt_generator_read_row(g, i);
            score->nll[done] = surprise(g, token);
        }
    }
    return DIBIT_OK;
}

/* In a state of its own. */
static dibit_status score_once(dibit_generator *g, const dibit_score *score, dibit_error *error) {
    dibit_state *state = NULL;
    DBT_TRY(dibit_state_create(g->desc.session, &(dibit_state_desc){.capacity = score->n_tokens},
                               &state, error));
    g->states[0] = state;
    g->n_batch = 1;
    const dibit_status status = score_all(g, score, error);
    dibit_state_destroy(&state);
    return status;
}

dibit_status dibit_generator_score(dibit_generator *g, const dibit_score *score,
                                   dibit_error *error) {
    DBT_LM_FAIL_IF(g->active, error, DIBIT_BAD_STATE, "a generation is under way");
    DBT_LM_FAIL_IF(!score || !score->tokens || score->n_tokens < 2 || !score->nll, error,
                   DIBIT_BAD_ARGUMENT, "a score needs two tokens and room for the result");
    DBT_TRY(dbt_generator_check_ids(g, score->tokens, score->n_tokens, error));
    DBT_TRY(dbt_generator_reserve_batch(g, 1, error));
    dibit_session *const session = g->desc.session;
    for (;;) {
        dibit_error why = {DIBIT_OK, ""};
        dibit_status status;
        do status = dibit_session_poll(session, &why);
        while (status == DIBIT_PENDING);
        if (status == DIBIT_OK) status = score_once(g, score, &why);
        if (status == DIBIT_OK) return status;
        if (!dibit_session_may_leave(session, status))
            return dbt_lm_fail(error, status, "%s", why.text);
        DBT_TRY(dibit_session_leave_device(session, &why, error));
    }
}

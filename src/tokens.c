/* Tokens that the device chooses: a run's settings in, its tokens out, in the order of the runs. */
#include "model.h"
#include "ops/sample/sample.h"

dibit_status dbt_tokens_check(const dibit_session *session, const dibit_run *run,
                              dibit_error *error) {
    const dbt_plan *const plan = session->plan;
    const dbt_tokens *const tokens = &session->tokens;
    DBT_FAIL_IF(run->sample && plan->token < 0, error, DIBIT_UNSUPPORTED,
                "this session's device does not choose tokens");
    DBT_FAIL_IF(run->sample && tokens->n == DBT_MAX_UNREAD, error, DIBIT_BAD_STATE,
                "the tokens of %d runs have not been read", DBT_MAX_UNREAD);
    DBT_FAIL_IF(run->feed && plan->fed < 0, error, DIBIT_UNSUPPORTED,
                "this session's runs cannot take the tokens of the run before");
    DBT_FAIL_IF(run->feed && tokens->batch == 0, error, DIBIT_BAD_STATE,
                "the run before has chosen no tokens");
    return DIBIT_OK;
}

dibit_status dbt_tokens_feed(dibit_session *session, const dibit_run *run, dibit_error *error) {
    const int64_t batch = session->tokens.batch;
    session->tokens.batch = 0;
    session->exec.feeds = run->feed;
    if (!run->feed) return DIBIT_OK;
    return dbt_exec_bind_dims(&session->exec, session->plan->fed, (int64_t[]){batch, 1}, error);
}

dibit_status dbt_tokens_bind(dibit_session *session, const dibit_run *run, dibit_error *error) {
    if (!run->sample) return DIBIT_OK;
    dbt_plan_tensor *const settings = &session->plan->tensors[session->plan->settings];
    const int64_t batch = settings->t.dims[0];
    DBT_FAIL_IF(settings->bytes == UINT64_MAX, error, DIBIT_BAD_INPUT,
                "the number of sequences cannot be told from the inputs");
    dbt_block *const block = &session->tokens.settings;
    if (!dbt_block_reserve(block, &session->exec.allocator, settings->bytes + 1)) {
        return dbt_fail_memory(error, "settings of tokens", settings->bytes);
    }
    settings->t.data = block->data;
    for (int64_t b = 0; b < batch; b++) {
        const dibit_sample *const s = &run->sample[b];
        float *const row = (float *)block->data + b * DBT_SAMPLE_SETTINGS;
        row[0] = s->temperature;
        row[1] = (float)s->top_k;
        row[2] = s->top_p;
        row[3] = s->min_p;
        row[4] = s->random;
        dbt_sample_row checked;
        DBT_TRY(dbt_sample_settings(&settings->t, b, &checked, error));
    }
    return DIBIT_OK;
}

dibit_status dbt_tokens_read(dibit_session *session, dibit_error *error) {
    const dbt_plan *const plan = session->plan;
    dbt_tokens *const tokens = &session->tokens;
    if (!session->run->sample) {
        const bool reads = session->run->n_outputs > 0; /* which has made the device begin */
        return plan->options.gpu && !reads ? dbt_gpu_submit(plan->options.gpu, error) : DIBIT_OK;
    }
    const dbt_plan_tensor *const token = &plan->tensors[plan->token];
    /* All that are free, so that later runs find them made. */
    for (uint32_t i = tokens->n; i < DBT_MAX_UNREAD; i++) {
        dbt_block *const words = &tokens->reads[(tokens->first + i) % DBT_MAX_UNREAD].words;
        if (!dbt_block_reserve(words, &session->exec.allocator, token->bytes + 1)) {
            return dbt_fail_memory(error, "tokens", token->bytes);
        }
    }
    const uint32_t slot = (tokens->first + tokens->n) % DBT_MAX_UNREAD;
    DBT_TRY(dbt_gpu_read(plan->options.gpu, token->buffer, 0, tokens->reads[slot].words.data,
                         token->bytes, &tokens->reads[slot].ticket, error));
    tokens->batch = tokens->reads[slot].batch = token->t.dims[0];
    tokens->n++;
    return DIBIT_OK;
}

dibit_status dibit_run_tokens(dibit_session *session, int64_t *ids, uint32_t n,
                              dibit_error *error) {
    DBT_FAIL_IF(!session || !ids, error, DIBIT_BAD_ARGUMENT, "session and ids must not be NULL");
    dbt_tokens *const tokens = &session->tokens;
    DBT_FAIL_IF(tokens->n == 0, error, DIBIT_BAD_STATE, "all tokens have been read");
    const int64_t batch = tokens->reads[tokens->first].batch;
    DBT_FAIL_IF(batch != n, error, DIBIT_BAD_ARGUMENT, "the run chose %lld tokens, not %u",
                (long long)batch, (unsigned)n);
    const dibit_status status =
        dbt_gpu_poll(session->plan->options.gpu, tokens->reads[tokens->first].ticket, error);
    if (status == DIBIT_PENDING) return status;
    const int32_t *const words = tokens->reads[tokens->first].words.data;
    tokens->first = (tokens->first + 1) % DBT_MAX_UNREAD;
    tokens->n--;
    for (int64_t b = 0; status == DIBIT_OK && b < batch; b++) ids[b] = words[b];
    return status;
}

void dbt_tokens_forget(dibit_session *session) {
    dbt_tokens *const tokens = &session->tokens;
    for (; tokens->n > 0; tokens->n--) {
        dbt_hal *const hal = dbt_gpu_hal(session->plan->options.gpu);
        hal->calls->cancel(hal, tokens->reads[tokens->first].ticket);
        tokens->first = (tokens->first + 1) % DBT_MAX_UNREAD;
    }
}

void dbt_tokens_free(dibit_session *session) {
    if (!session->plan) return;
    dbt_tokens_forget(session);
    const dibit_allocator *const allocator = &session->exec.allocator;
    for (uint32_t i = 0; i < DBT_MAX_UNREAD; i++) {
        dbt_block_free(&session->tokens.reads[i].words, allocator);
    }
    dbt_block_free(&session->tokens.settings, allocator);
}

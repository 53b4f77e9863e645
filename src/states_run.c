/* How a run reads and extends states.
 *
 * A run never spoils a state: appended rows lie behind the length that counts, a window that evicts
 * works on a copy, and replaced tensors are taken over only when the run has succeeded. */
#include "states.h"

#include <string.h>

/* ---- A run ---- */

static dibit_status check_states(const dibit_session *session, const dibit_run *run,
                                 dibit_error *error) {
    DBT_FAIL_IF(session->plan->n_states == 0, error, DIBIT_UNSUPPORTED,
                "the model has no past inputs with present outputs");
    for (uint32_t b = 0; b < run->n_states; b++) {
        DBT_FAIL_IF(!run->states[b] || run->states[b]->session != session, error,
                    DIBIT_BAD_ARGUMENT, "state %u is not one of this session's", (unsigned)b);
        DBT_TRY(dbt_state_check(run->states[b], error));
        for (uint32_t k = 0; k < b; k++) {
            DBT_FAIL_IF(run->states[k] == run->states[b], error, DIBIT_BAD_ARGUMENT,
                        "states %u and %u are the same", (unsigned)k, (unsigned)b);
        }
    }
    return DIBIT_OK;
}

/* The past tensor of a REPLACE pair: the state's own memory, or rows gathered from all states. */
static dibit_status bind_replaced(dibit_session *session, int32_t i, const dibit_run *run,
                                  dibit_error *error) {
    dbt_plan_tensor *const past = &session->plan->tensors[session->plan->states[i].past];
    dbt_state_part *const first = &run->states[0]->parts[i];
    int64_t dims[DIBIT_MAX_RANK];
    memcpy(dims, first->dims, sizeof dims);
    dims[0] = run->n_states;
    DBT_TRY(dbt_exec_bind_dims(&session->exec, session->plan->states[i].past, dims, error));
    past->t.data = first->data.data;
    if (run->n_states == 1) return DIBIT_OK;
    const uint64_t bytes = dbt_state_replaced_bytes(session, i, first->dims);
    dbt_block *const gathered = &session->plan->states[i].gathered;
    if (!dbt_block_reserve(gathered, &session->exec.allocator, bytes * run->n_states + 1)) {
        return dbt_fail_memory(error, past->value->name, bytes * run->n_states);
    }
    for (uint32_t b = 0; b < run->n_states; b++) {
        const dbt_state_part *const part = &run->states[b]->parts[i];
        DBT_FAIL_IF(memcmp(part->dims, first->dims, sizeof part->dims) != 0, error, DIBIT_BAD_INPUT,
                    "states of different lengths cannot run together through '%s'",
                    past->value->name);
        if (bytes) memcpy((char *)gathered->data + b * bytes, part->data.data, (size_t)bytes);
    }
    past->t.data = gathered->data;
    return DIBIT_OK;
}

dibit_status dbt_states_bind(dibit_session *session, const dibit_run *run, dibit_error *error) {
    DBT_TRY(check_states(session, run, error));
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        if (session->plan->states[i].kind == DBT_STATE_REPLACE) {
            DBT_TRY(bind_replaced(session, i, run, error));
            continue;
        }
        int64_t dims[DIBIT_MAX_RANK], longest = 0;
        const dbt_state_part *const first = &run->states[0]->parts[i];
        memcpy(dims, first->dims, sizeof dims);
        for (uint32_t b = 0; b < run->n_states; b++) {
            const int64_t length = run->states[b]->parts[i].length;
            if (length > longest) longest = length;
        }
        dims[0] = run->n_states;
        dims[2] = session->plan->states[i].kind == DBT_STATE_WINDOW ? first->capacity : longest;
        DBT_TRY(dbt_exec_bind_dims(&session->exec, session->plan->states[i].past, dims, error));
        session->plan->tensors[session->plan->states[i].past].t.data = NULL;
    }
    return DIBIT_OK;
}

static dibit_status make_room(dibit_session *session, int32_t i, dibit_state *state, int64_t tokens,
                              dibit_error *error) {
    dbt_state_part *const part = &state->parts[i];
    if (session->plan->states[i].kind == DBT_STATE_WINDOW) {
        if (part->length + tokens <= part->capacity) return DIBIT_OK;
        const uint64_t bytes =
            dbt_state_part_bytes(session, i, part); /* it will evict: on a copy */
        if (dbt_state_on_device(session, i)) {
            dbt_gpu *const gpu = session->plan->options.gpu;
            if (!part->spare_buffer) {
                DBT_TRY(dbt_gpu_buffer_create(gpu, bytes, &part->spare_buffer, error));
            }
            return dbt_gpu_copy(gpu, part->buffer, 0, part->spare_buffer, 0, bytes, error);
        }
        if (!dbt_block_reserve(&part->spare, &session->allocator, bytes)) {
            return dbt_fail_memory(error, dbt_state_past(session, i)->value->name, bytes);
        }
        memcpy(part->spare.data, part->data.data, (size_t)bytes);
        return DIBIT_OK;
    }
    const int64_t wanted = part->length + tokens, max = (int64_t)state->max_capacity;
    DBT_FAIL_IF(wanted > max, error, DIBIT_CAPACITY,
                "the state holds %lld of at most %lld tokens, %lld more do not fit",
                (long long)part->length, (long long)max, (long long)tokens);
    int64_t capacity = part->capacity > 0 ? part->capacity : DBT_STATE_CAPACITY;
    while (capacity < wanted) capacity *= 2;
    return dbt_state_grow(session, i, part, capacity < max ? capacity : max, error);
}

dibit_status dbt_states_begin(dibit_session *session, const dibit_run *run, dibit_error *error) {
    dbt_exec *const exec = &session->exec;
    const int32_t n_pairs = session->plan->n_states;
    const int64_t tokens = dbt_exec_dim(exec, session->plan->sequence);
    DBT_FAIL_IF(tokens < 0 || tokens > INT32_MAX, error, DIBIT_BAD_INPUT,
                "the number of tokens cannot be told from the inputs");
    const uint64_t bytes = (uint64_t)n_pairs * run->n_states * sizeof(dbt_state_row);
    if (!dbt_block_reserve(&exec->state_rows_block, &exec->allocator, bytes)) {
        return dbt_fail_memory(error, "states", bytes);
    }
    exec->state_rows = exec->state_rows_block.data;
    exec->batch = run->n_states;
    for (int32_t i = 0; i < n_pairs; i++) {
        for (uint32_t b = 0; b < run->n_states; b++) {
            dbt_state_part *const part = &run->states[b]->parts[i];
            dbt_state_row *const row = &exec->state_rows[i * (int32_t)run->n_states + (int32_t)b];
            *row = (dbt_state_row){0};
            if (session->plan->states[i].kind == DBT_STATE_REPLACE) continue;
            DBT_TRY(make_room(session, i, run->states[b], tokens, error));
            const bool evicts = session->plan->states[i].kind == DBT_STATE_WINDOW &&
                                part->length + tokens > part->capacity;
            void *const rows = dbt_state_on_device(session, i)
                                   ? (void *)(evicts ? part->spare_buffer : part->buffer)
                                   : (evicts ? part->spare.data : part->data.data);
            *row = (dbt_state_row){rows, part->length, part->capacity};
        }
    }
    /* So that taking over replaced tensors after the run cannot fail. */
    for (int32_t i = 0; i < n_pairs; i++) {
        if (session->plan->states[i].kind != DBT_STATE_REPLACE) continue;
        const dbt_plan_tensor *const present =
            &session->plan->tensors[session->plan->states[i].present];
        DBT_FAIL_IF(present->bytes == UINT64_MAX, error, DIBIT_UNSUPPORTED,
                    "the size of '%s' depends on data", present->value->name);
        DBT_FAIL_IF(present->t.dims[0] != run->n_states, error, DIBIT_UNSUPPORTED,
                    "dim 0 of '%s' is %lld, not the number of states", present->value->name,
                    (long long)present->t.dims[0]);
        for (uint32_t b = 0; b < run->n_states; b++) {
            dbt_state_part *const part = &run->states[b]->parts[i];
            const uint64_t need = present->bytes / run->n_states;
            if (!dbt_block_reserve(&part->spare, &session->allocator, need * 2 + 1)) {
                return dbt_fail_memory(error, present->value->name, need);
            }
        }
    }
    return DIBIT_OK;
}

static void take_replaced(dibit_session *session, int32_t i, const dibit_run *run) {
    const dbt_plan_tensor *const present =
        &session->plan->tensors[session->plan->states[i].present];
    const uint64_t bytes = present->bytes / run->n_states;
    for (uint32_t b = 0; b < run->n_states; b++) {
        dbt_state_part *const part = &run->states[b]->parts[i];
        memcpy(part->dims + 1, present->t.dims + 1, sizeof part->dims - sizeof *part->dims);
        for (int32_t d = present->t.rank; d < DIBIT_MAX_RANK; d++) part->dims[d] = 0;
        const dbt_block old = part->data;
        part->data = part->spare;
        part->spare = old;
        if (bytes) memcpy(part->data.data, (char *)present->t.data + b * bytes, (size_t)bytes);
    }
}

void dbt_states_commit(dibit_session *session, const dibit_run *run) {
    const dbt_plan *const plan = session->plan;
    const dbt_exec *const exec = &session->exec;
    for (uint32_t b = 0; b < run->n_states; b++) {
        run->states[b]->length += (uint64_t)exec->dims[plan->sequence];
    }
    for (int32_t i = plan->n_states; i-- > 0;) {
        if (plan->states[i].kind == DBT_STATE_REPLACE) {
            take_replaced(session, i, run);
            continue;
        }
        for (uint32_t b = 0; b < run->n_states; b++) {
            dbt_state_part *const part = &run->states[b]->parts[i];
            const dbt_state_row *const row =
                &exec->state_rows[i * (int32_t)run->n_states + (int32_t)b];
            if (dbt_state_on_device(session, i) && row->data == part->spare_buffer) {
                dbt_hal_buffer *const old = part->buffer;
                part->buffer = part->spare_buffer;
                part->spare_buffer = old;
            } else if (row->data == part->spare.data) {
                const dbt_block old = part->data;
                part->data = part->spare;
                part->spare = old;
            }
            part->length = row->length;
            if (plan->states[i].kind == DBT_STATE_APPEND)
                run->states[b]->length = (uint64_t)row->length;
        }
    }
}

dibit_status dibit_session_state_pair(const dibit_session *session, uint32_t index,
                                      const char **past, const char **present) {
    const dbt_plan *const plan = session->plan;
    if (index >= (uint32_t)plan->n_states) return DIBIT_NOT_FOUND;
    *past = plan->tensors[plan->states[index].past].value->name;
    for (uint32_t o = 0; o < plan->graph->n_outputs; o++) {
        if (plan->outputs[o] == plan->states[index].present)
            *present = plan->graph->output_names[o];
    }
    return DIBIT_OK;
}

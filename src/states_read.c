/* What a state holds of one pair, as the tensor that the model would give. */
#include "states.h"

#include <string.h>

/* A part's content: n pieces of so many bytes, one every `stride` bytes. */
typedef struct pieces {
    uint64_t n, bytes, stride;
} pieces;

/* The rows that count after `length` tokens, or -1; 0 where there is no axis of rows. */
static int64_t rows_after(const dibit_state *state, int32_t i, uint64_t length) {
    const dbt_plan_state *const pair = &state->session->plan->states[i];
    const dbt_state_part *const part = &state->parts[i];
    if (length < state->length) return dbt_state_rows_left(state, i, (int64_t)length);
    if (pair->kind != DBT_STATE_REPLACE) return part->length;
    return pair->axis >= 0 ? part->dims[pair->axis] : 0;
}

/* Fills in out's type, rank and dims, and tells where its elements are. */
static pieces describe(const dibit_state *state, int32_t i, int64_t rows, dibit_tensor *out) {
    const dibit_session *const session = state->session;
    const dbt_plan_state *const pair = &session->plan->states[i];
    const dbt_state_part *const part = &state->parts[i];
    const dibit_tensor *const past = &dbt_state_past(session, i)->t;
    const bool replaced = pair->kind == DBT_STATE_REPLACE;
    const int32_t axis = replaced ? pair->axis : 2;
    out->type = past->type;
    out->rank = past->rank;
    memcpy(out->dims, part->dims, sizeof part->dims);
    if (axis < 0) {
        const uint64_t bytes = dbt_state_replaced_bytes(session, i, part->dims);
        return (pieces){1, bytes, bytes};
    }
    uint64_t inner = dibit_type_bits(past->type) / 8, n = 1;
    for (int32_t d = axis + 1; d < past->rank; d++) inner *= (uint64_t)part->dims[d];
    for (int32_t d = 1; d < axis; d++) n *= (uint64_t)part->dims[d];
    out->dims[axis] = rows;
    return (pieces){n, (uint64_t)rows * inner,
                    (uint64_t)(replaced ? part->dims[axis] : part->capacity) * inner};
}

void dbt_state_stop_reading(dibit_state *state) {
    dbt_state_reading *const r = &state->reading;
    if (r->active) {
        dbt_hal *const hal = dbt_gpu_hal(state->session->plan->options.gpu);
        hal->calls->cancel(hal, r->ticket);
    }
    dbt_block_free(&r->block, &state->session->allocator);
    *r = (dbt_state_reading){0};
}

dibit_status dbt_state_read_device(dibit_state *state, int32_t i, uint64_t bytes, void **data,
                                   dibit_error *error) {
    dbt_gpu *const gpu = state->session->plan->options.gpu;
    dbt_state_reading *const r = &state->reading;
    DBT_FAIL_IF(r->active && r->pair != i, error, DIBIT_BAD_STATE,
                "another part of the state is being read");
    if (r->active && r->bytes != bytes) dbt_state_stop_reading(state); /* it has grown since */
    if (!r->active) {
        if (!dbt_block_reserve(&r->block, &state->session->allocator, bytes)) {
            return dbt_fail_memory(error, "a state", bytes);
        }
        DBT_TRY(
            dbt_gpu_read(gpu, state->parts[i].buffer, 0, r->block.data, bytes, &r->ticket, error));
        r->active = true;
        r->pair = i;
        r->bytes = bytes;
    }
    const dibit_status status = dbt_gpu_poll(gpu, r->ticket, error);
    if (status == DIBIT_PENDING) return status;
    r->active = false;
    *data = r->block.data;
    return status;
}

static void gather(const void *from, const pieces *p, dibit_tensor *out) {
    for (uint64_t k = 0; k < p->n; k++) {
        memcpy((char *)out->data + k * p->bytes, (const char *)from + k * p->stride,
               (size_t)p->bytes);
    }
}

dibit_status dibit_state_read(dibit_state *state, uint32_t index, uint64_t length,
                              dibit_tensor *out, dibit_error *error) {
    DBT_FAIL_IF(!state || !out, error, DIBIT_BAD_ARGUMENT, "state and out must not be NULL");
    DBT_TRY(dbt_state_check(state, error));
    const dibit_session *const session = state->session;
    DBT_FAIL_IF(index >= (uint32_t)session->plan->n_states, error, DIBIT_NOT_FOUND,
                "the model has %d past inputs, none of number %u", (int)session->plan->n_states,
                (unsigned)index);
    DBT_FAIL_IF(length > state->length, error, DIBIT_BAD_ARGUMENT,
                "the state holds %llu tokens, not %llu", (unsigned long long)state->length,
                (unsigned long long)length);
    const int32_t i = (int32_t)index;
    const int64_t rows = rows_after(state, i, length);
    DBT_FAIL_IF(rows < 0, error, DIBIT_UNSUPPORTED,
                "'%s' no longer holds what it held after %llu tokens",
                dbt_state_past(session, i)->value->name, (unsigned long long)length);
    const pieces p = describe(state, i, rows, out);
    const uint64_t bytes = p.n * p.bytes;
    if (!out->data) {
        out->bytes = bytes;
        return DIBIT_OK;
    }
    DBT_FAIL_IF(out->bytes < bytes, error, DIBIT_TOO_LARGE,
                "'%s' takes %llu bytes, there is room for %llu",
                dbt_state_past(session, i)->value->name, (unsigned long long)bytes,
                (unsigned long long)out->bytes);
    out->bytes = bytes;
    if (bytes == 0) return DIBIT_OK;
    if (!dbt_state_on_device(session, i)) {
        const bool begun = session->plan->states[i].axis >= 0 || length > 0;
        if (begun || session->plan->states[i].kind != DBT_STATE_REPLACE) {
            gather(state->parts[i].data.data, &p, out);
        } else {
            memset(out->data, 0, (size_t)bytes); /* a convolution before its first token */
        }
        return DIBIT_OK;
    }
    void *content = NULL;
    const dibit_status status = dbt_state_read_device(state, i, p.n * p.stride, &content, error);
    if (status == DIBIT_OK) gather(content, &p, out);
    if (status != DIBIT_PENDING) dbt_state_stop_reading(state);
    return status;
}

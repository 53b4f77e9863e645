/* dibit_state: the past of one sequence: create, fork, truncate.
 *
 * A state belongs to its session's plan. When the session leaves its device (session.c), states lose what
 * they held and all their memory, but keep their length until they are truncated to nothing. */
#include "states.h"

#include <string.h>

/* ---- Geometry ---- */

const dbt_plan_tensor *dbt_state_past(const dibit_session *session, int32_t i) {
    return &session->plan->tensors[session->plan->states[i].past];
}

bool dbt_state_on_device(const dibit_session *session, int32_t i) {
    return session->plan->states[i].on_device;
}

static uint64_t element_bytes(const dibit_session *session, int32_t i) {
    return dibit_type_bits(dbt_state_past(session, i)->t.type) / 8;
}

uint64_t dbt_state_row_bytes(const dibit_session *session, int32_t i, const dbt_state_part *part) {
    return (uint64_t)part->dims[3] * element_bytes(session, i);
}

uint64_t dbt_state_replaced_bytes(const dibit_session *session, int32_t i, const int64_t *dims) {
    uint64_t bytes = element_bytes(session, i);
    for (int32_t d = 1; d < dbt_state_past(session, i)->t.rank; d++) {
        if (!dbt_mul_u64(bytes, (uint64_t)dims[d], &bytes)) return UINT64_MAX;
    }
    return bytes;
}

uint64_t dbt_state_rows_bytes(const dibit_session *session, int32_t i, const dbt_state_part *part,
                              int64_t rows) {
    uint64_t bytes;
    return dbt_mul_u64(dbt_state_row_bytes(session, i, part), (uint64_t)part->dims[1], &bytes) &&
                   dbt_mul_u64(bytes, (uint64_t)rows, &bytes)
               ? bytes
               : UINT64_MAX;
}

/* A dim of past, which its present shares: models may name it there and let inference find it here. */
static bool known_dim(const dibit_session *session, int32_t i, int32_t d, int64_t *value) {
    const dbt_plan *const plan = session->plan;
    const dbt_shape *const present = &plan->tensors[plan->states[i].present].value->shape;
    return dbt_dim_is_const(plan->graph->dims, dbt_state_past(session, i)->value->shape.dims[d],
                            value) ||
           (d < present->rank && dbt_dim_is_const(plan->graph->dims, present->dims[d], value));
}

dibit_status dbt_state_init_dims(const dibit_session *session, int32_t i, dbt_state_part *part,
                                 dibit_error *error) {
    const dbt_value *const past = dbt_state_past(session, i)->value;
    const dbt_plan_state *const pair = &session->plan->states[i];
    const bool rows = pair->kind != DBT_STATE_REPLACE;
    DBT_FAIL_IF(past->shape.rank < 2 || (rows && past->shape.rank != 4), error, DIBIT_UNSUPPORTED,
                "past input '%s' has rank %d, which is not supported", past->name,
                (int)past->shape.rank);
    part->dims[0] = 1;
    for (int32_t d = 1; d < past->shape.rank; d++) {
        if (d == pair->axis) continue;
        DBT_FAIL_IF(!known_dim(session, i, d, &part->dims[d]) || part->dims[d] > INT32_MAX, error,
                    DIBIT_UNSUPPORTED, "dim %d of past input '%s' must be a number", (int)d,
                    past->name);
    }
    return DIBIT_OK;
}

uint64_t dbt_state_part_bytes(const dibit_session *session, int32_t i, const dbt_state_part *part) {
    if (session->plan->states[i].kind == DBT_STATE_REPLACE) {
        return dbt_state_replaced_bytes(session, i, part->dims);
    }
    return dbt_state_rows_bytes(session, i, part, part->capacity);
}

/* ---- Memory ---- */

dibit_status dbt_state_reserve(const dibit_session *session, int32_t i, dbt_block *block,
                               uint64_t bytes, dibit_error *error) {
    const char *const name = dbt_state_past(session, i)->value->name;
    DBT_FAIL_IF(bytes > session->exec.workspace_limit, error, DIBIT_TOO_LARGE,
                "the state of '%s' is larger than this machine's memory", name);
    return dbt_block_reserve(block, &session->allocator, bytes + 1)
               ? DIBIT_OK
               : dbt_fail_memory(error, name, bytes);
}

static dibit_status grow_on_device(const dibit_session *session, int32_t i, dbt_state_part *part,
                                   int64_t capacity, dibit_error *error) {
    dbt_gpu *const gpu = session->plan->options.gpu;
    const uint64_t row = dbt_state_row_bytes(session, i, part), heads = (uint64_t)part->dims[1];
    const uint64_t bytes = dbt_state_rows_bytes(session, i, part, capacity);
    dbt_hal_buffer *grown = NULL;
    DBT_TRY(dbt_gpu_buffer_create(gpu, bytes > 0 ? bytes : 1, &grown, error));
    for (uint64_t h = 0; part->length > 0 && h < heads; h++) {
        const dibit_status status =
            dbt_gpu_copy(gpu, part->buffer, h * (uint64_t)part->capacity * row, grown,
                         h * (uint64_t)capacity * row, (uint64_t)part->length * row, error);
        if (status != DIBIT_OK) {
            dbt_gpu_buffer_destroy(gpu, grown);
            return status;
        }
    }
    dbt_gpu_buffer_destroy(gpu, part->buffer);
    part->buffer = grown;
    part->capacity = capacity;
    return DIBIT_OK;
}

dibit_status dbt_state_grow(const dibit_session *session, int32_t i, dbt_state_part *part,
                            int64_t capacity, dibit_error *error) {
    if (capacity <= part->capacity) return DIBIT_OK;
    if (dbt_state_on_device(session, i)) return grow_on_device(session, i, part, capacity, error);
    const dibit_allocator *const allocator = &session->allocator;
    const uint64_t row = dbt_state_row_bytes(session, i, part), heads = (uint64_t)part->dims[1];
    dbt_block grown = {0};
    DBT_TRY(dbt_state_reserve(session, i, &grown, dbt_state_rows_bytes(session, i, part, capacity),
                              error));
    for (uint64_t h = 0; part->length > 0 && h < heads; h++) {
        memcpy((char *)grown.data + h * (uint64_t)capacity * row,
               (const char *)part->data.data + h * (uint64_t)part->capacity * row,
               (size_t)((uint64_t)part->length * row));
    }
    dbt_block_free(&part->data, allocator);
    part->data = grown;
    part->capacity = capacity;
    return DIBIT_OK;
}

static dibit_status init_part(const dibit_session *session, int32_t i, uint64_t capacity,
                              dbt_state_part *part, dibit_error *error) {
    DBT_TRY(dbt_state_init_dims(session, i, part, error));
    const dbt_plan_state *const pair = &session->plan->states[i];
    if (pair->kind == DBT_STATE_APPEND) {
        return dbt_state_grow(session, i, part, (int64_t)capacity, error);
    }
    if (pair->kind == DBT_STATE_WINDOW) {
        return dbt_state_grow(session, i, part, pair->window + DBT_STATE_WINDOW_SLACK, error);
    }
    const uint64_t bytes = dbt_state_replaced_bytes(session, i, part->dims);
    DBT_TRY(dbt_state_reserve(session, i, &part->data, bytes, error));
    memset(part->data.data, 0, (size_t)bytes);
    return DIBIT_OK;
}

static void free_parts(dibit_state *state) {
    const dibit_session *const session = state->session;
    const dibit_allocator *const allocator = &session->allocator;
    if (!state->parts) return;
    dbt_state_stop_reading(state);
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        dbt_block_free(&state->parts[i].data, allocator);
        dbt_block_free(&state->parts[i].spare, allocator);
        if (!dbt_state_on_device(session, i)) continue;
        dbt_gpu_buffer_destroy(session->plan->options.gpu, state->parts[i].buffer);
        dbt_gpu_buffer_destroy(session->plan->options.gpu, state->parts[i].spare_buffer);
    }
    dbt_release(allocator, state->parts, (uint64_t)session->plan->n_states * sizeof *state->parts);
    state->parts = NULL;
}

static dibit_status make_parts(dibit_state *state, dibit_error *error) {
    const uint64_t bytes = (uint64_t)state->session->plan->n_states * sizeof(dbt_state_part);
    state->parts = dbt_alloc(&state->session->allocator, bytes, 16);
    if (!state->parts) return dbt_fail_memory(error, "a state", bytes);
    memset(state->parts, 0, (size_t)bytes);
    return DIBIT_OK;
}

void dbt_state_free(dibit_state *state) {
    const dibit_allocator *const allocator = &state->session->allocator;
    free_parts(state);
    *state->link = state->next;
    if (state->next) state->next->link = state->link;
    dbt_release(allocator, state, sizeof *state);
}

dibit_status dbt_state_new(dibit_session *session, dibit_state **out, dibit_error *error) {
    dibit_state *const state = dbt_alloc(&session->allocator, sizeof *state, 16);
    if (!state) return dbt_fail_memory(error, "a state", sizeof *state);
    *state = (dibit_state){.session = session, .max_capacity = INT64_MAX};
    const dibit_status status = make_parts(state, error);
    if (status != DIBIT_OK) {
        dbt_release(&session->allocator, state, sizeof *state);
        return status;
    }
    state->link = &session->states;
    state->next = session->states;
    if (state->next) state->next->link = &state->next;
    session->states = state;
    *out = state;
    return DIBIT_OK;
}

static dibit_status init_parts(dibit_state *state, uint64_t capacity, dibit_error *error) {
    if (capacity > state->max_capacity) capacity = state->max_capacity;
    for (int32_t i = 0; i < state->session->plan->n_states; i++) {
        DBT_TRY(init_part(state->session, i, capacity, &state->parts[i], error));
    }
    return DIBIT_OK;
}

dibit_status dibit_state_create(dibit_session *session, const dibit_state_desc *desc,
                                dibit_state **out, dibit_error *error) {
    static const dibit_state_desc defaults = {0};
    DBT_FAIL_IF(!session || !out, error, DIBIT_BAD_ARGUMENT, "session and out must not be NULL");
    DBT_FAIL_IF(!session->ready, error, DIBIT_BAD_STATE, "the session is not ready yet");
    DBT_FAIL_IF(session->plan->n_states == 0, error, DIBIT_UNSUPPORTED,
                "the model has no past inputs with present outputs");
    if (!desc) desc = &defaults;
    dibit_state *state;
    DBT_TRY(dbt_state_new(session, &state, error));
    if (desc->max_capacity && desc->max_capacity < INT64_MAX) {
        state->max_capacity = desc->max_capacity;
    }
    dibit_status status =
        init_parts(state, desc->capacity ? desc->capacity : DBT_STATE_CAPACITY, error);
    if (dibit_session_may_leave(session, status)) {
        free_parts(state);
        state->lost = true;
        status = DIBIT_OK;
    }
    if (status != DIBIT_OK) {
        dbt_state_free(state);
        return status;
    }
    *out = state;
    return DIBIT_OK;
}

void dibit_state_destroy(dibit_state **state) {
    if (!state || !*state) return;
    dbt_state_free(*state);
    *state = NULL;
}

uint64_t dibit_state_length(const dibit_state *state) { return state->length; }

bool dibit_state_is_lost(const dibit_state *state) { return state->lost; }

dibit_status dbt_state_check(const dibit_state *state, dibit_error *error) {
    DBT_FAIL_IF(state->lost, error, DIBIT_DEVICE_LOST,
                "what the state held, %llu tokens, was lost with the device",
                (unsigned long long)state->length);
    return DIBIT_OK;
}

void dbt_states_lose(dibit_session *session) {
    for (dibit_state *s = session->states; s; s = s->next) {
        free_parts(s);
        s->lost = true;
    }
}

/* Of a lost state: it becomes an empty one. */
static dibit_status revive(dibit_state *state, dibit_error *error) {
    DBT_TRY(make_parts(state, error));
    const dibit_status status = init_parts(state, DBT_STATE_CAPACITY, error);
    if (status != DIBIT_OK) {
        free_parts(state);
        return status;
    }
    state->lost = false;
    state->length = 0;
    return DIBIT_OK;
}

uint64_t dibit_state_capacity(const dibit_state *state) {
    if (state->lost) return 0;
    const dbt_plan *const plan = state->session->plan;
    for (int32_t i = 0; i < plan->n_states; i++) {
        if (plan->states[i].kind == DBT_STATE_APPEND) return (uint64_t)state->parts[i].capacity;
    }
    return state->max_capacity; /* windows and convolutions are never full */
}

/* ---- Fork and truncate ---- */

/* The part's content into `to`, which has none yet. */
static dibit_status copy_part(dibit_session *session, int32_t i, const dbt_state_part *from,
                              dbt_state_part *to, dibit_error *error) {
    const uint64_t bytes = dbt_state_part_bytes(session, i, from);
    to->length = from->length;
    to->capacity = from->capacity;
    memcpy(to->dims, from->dims, sizeof to->dims);
    if (dbt_state_on_device(session, i)) {
        dbt_gpu *const gpu = session->plan->options.gpu;
        DBT_TRY(dbt_gpu_buffer_create(gpu, bytes > 0 ? bytes : 1, &to->buffer, error));
        return bytes ? dbt_gpu_copy(gpu, from->buffer, 0, to->buffer, 0, bytes, error) : DIBIT_OK;
    }
    if (!dbt_block_reserve(&to->data, &session->allocator, bytes + 1)) {
        return dbt_fail_memory(error, "a state", bytes);
    }
    if (bytes) memcpy(to->data.data, from->data.data, (size_t)bytes);
    return DIBIT_OK;
}

dibit_status dibit_state_fork(const dibit_state *state, dibit_state **out, dibit_error *error) {
    DBT_FAIL_IF(!state || !out, error, DIBIT_BAD_ARGUMENT, "state and out must not be NULL");
    DBT_TRY(dbt_state_check(state, error));
    dibit_session *const session = state->session;
    dibit_state *copy;
    DBT_TRY(dbt_state_new(session, &copy, error));
    copy->length = state->length;
    copy->max_capacity = state->max_capacity;
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        const dibit_status status = copy_part(session, i, &state->parts[i], &copy->parts[i], error);
        if (status != DIBIT_OK) {
            dbt_state_free(copy);
            return status;
        }
    }
    *out = copy;
    return DIBIT_OK;
}

/* How many rows of a window hold after `total` tokens: ONNX Runtime's rule for windowed caches. */
static int64_t resident_rows(int64_t total, int64_t capacity, int64_t window) {
    if (total <= capacity) return total;
    const int64_t granule = capacity - window + 1;
    return total - granule * ((total - capacity + granule - 1) / granule);
}

int64_t dbt_state_rows_left(const dibit_state *state, int32_t i, int64_t length) {
    const dbt_plan_state *const pair = &state->session->plan->states[i];
    const dbt_state_part *const part = &state->parts[i];
    if (length == 0) return 0;
    const int64_t dropped = (int64_t)state->length - length;
    if (pair->kind == DBT_STATE_APPEND) {
        return part->length >= dropped ? part->length - dropped : -1;
    }
    if (pair->kind == DBT_STATE_WINDOW) {
        const int64_t rows = resident_rows(length, part->capacity, pair->window);
        return rows == part->length - dropped ? rows : -1;
    }
    return pair->axis >= 0 && part->dims[pair->axis] >= dropped ? part->dims[pair->axis] - dropped
                                                                : -1;
}

/* Keeps the first `rows` along the axis of a replaced tensor. */
static void shorten(const dibit_session *session, int32_t i, dbt_state_part *part, int64_t rows) {
    const int32_t axis = session->plan->states[i].axis, rank = dbt_state_past(session, i)->t.rank;
    const uint64_t total = dbt_state_replaced_bytes(session, i, part->dims);
    if (axis < 0) { /* a convolution: only the empty past is left */
        memset(part->data.data, 0, (size_t)total);
        return;
    }
    uint64_t inner = element_bytes(session, i), outer = 1;
    for (int32_t d = axis + 1; d < rank; d++) inner *= (uint64_t)part->dims[d];
    for (int32_t d = 1; d < axis; d++) outer *= (uint64_t)part->dims[d];
    const uint64_t old = (uint64_t)part->dims[axis] * inner, kept = (uint64_t)rows * inner;
    for (uint64_t o = 1; o < outer; o++) {
        memmove((char *)part->data.data + o * kept, (char *)part->data.data + o * old,
                (size_t)kept);
    }
    part->dims[axis] = rows;
}

dibit_status dibit_state_truncate(dibit_state *state, uint64_t length, dibit_error *error) {
    DBT_FAIL_IF(!state, error, DIBIT_BAD_ARGUMENT, "state must not be NULL");
    DBT_FAIL_IF(length > state->length, error, DIBIT_BAD_ARGUMENT,
                "the state holds %llu tokens, it cannot be cut to %llu",
                (unsigned long long)state->length, (unsigned long long)length);
    if (state->lost && length == 0) return revive(state, error);
    if (length == state->length) return DIBIT_OK;
    DBT_TRY(dbt_state_check(state, error));
    const dibit_session *const session = state->session;
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        DBT_FAIL_IF(dbt_state_rows_left(state, i, (int64_t)length) < 0, error, DIBIT_UNSUPPORTED,
                    "'%s' no longer holds what it held after %llu tokens",
                    dbt_state_past(session, i)->value->name, (unsigned long long)length);
    }
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        const int64_t rows = dbt_state_rows_left(state, i, (int64_t)length);
        if (session->plan->states[i].kind == DBT_STATE_REPLACE) {
            shorten(session, i, &state->parts[i], rows);
        } else {
            state->parts[i].length = rows;
        }
    }
    state->length = length;
    return DIBIT_OK;
}

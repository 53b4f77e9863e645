/* dibit_state: the past of one sequence, and how a run reads and extends it.
 *
 * A run never spoils a state: appended rows lie behind the length that counts, a window that evicts
 * works on a copy, and replaced tensors are taken over only when the run has succeeded. */
#include <string.h>

#include "model.h"

enum { DEFAULT_CAPACITY = 256, WINDOW_SLACK = 256 };

/* ---- Geometry ---- */

static const dbt_plan_tensor *past_of(const dibit_session *session, int32_t i) {
    return &session->plan->tensors[session->plan->states[i].past];
}

static uint64_t element_bytes(const dibit_session *session, int32_t i) {
    return dibit_type_bits(past_of(session, i)->t.type) / 8;
}

/* Bytes of one row of one head of an APPEND or WINDOW pair. */
static uint64_t row_bytes(const dibit_session *session, int32_t i, const dbt_state_part *part) {
    return (uint64_t)part->dims[3] * element_bytes(session, i);
}

/* Bytes of the tensor of a REPLACE pair; UINT64_MAX when they do not fit. */
static uint64_t replace_bytes(const dibit_session *session, int32_t i, const int64_t *dims) {
    uint64_t bytes = element_bytes(session, i);
    for (int32_t d = 1; d < past_of(session, i)->t.rank; d++) {
        if (!dbt_mul_u64(bytes, (uint64_t)dims[d], &bytes)) return UINT64_MAX;
    }
    return bytes;
}

/* Bytes of `rows` rows of all heads of an APPEND or WINDOW pair; UINT64_MAX when they do not fit. */
static uint64_t rows_bytes(const dibit_session *session, int32_t i, const dbt_state_part *part,
                           int64_t rows) {
    uint64_t bytes;
    return dbt_mul_u64(row_bytes(session, i, part), (uint64_t)part->dims[1], &bytes) &&
                   dbt_mul_u64(bytes, (uint64_t)rows, &bytes)
               ? bytes
               : UINT64_MAX;
}

/* A dim of past, which its present shares: models may name it there and let inference find it here. */
static bool known_dim(const dibit_session *session, int32_t i, int32_t d, int64_t *value) {
    const dbt_plan *const plan = session->plan;
    const dbt_shape *const present = &plan->tensors[plan->states[i].present].value->shape;
    return dbt_dim_is_const(plan->graph->dims, past_of(session, i)->value->shape.dims[d], value) ||
           (d < present->rank && dbt_dim_is_const(plan->graph->dims, present->dims[d], value));
}

/* The dims that do not grow must be known: they are what memory is laid out by. */
static dibit_status init_dims(const dibit_session *session, int32_t i, dbt_state_part *part,
                              dibit_error *error) {
    const dbt_value *const past = past_of(session, i)->value;
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

/* ---- Memory ---- */

/* A model that asks for more than the machine has must not bring it down. */
static dibit_status reserve(const dibit_session *session, int32_t i, dbt_block *block,
                            uint64_t bytes, dibit_error *error) {
    const char *const name = past_of(session, i)->value->name;
    DBT_FAIL_IF(bytes > session->exec.workspace_limit, error, DIBIT_TOO_LARGE,
                "the state of '%s' is larger than this machine's memory", name);
    return dbt_block_reserve(block, &session->arena.allocator, bytes + 1)
               ? DIBIT_OK
               : dbt_fail_memory(error, name, bytes);
}

static bool on_device(const dibit_session *session, int32_t i) {
    return session->plan->states[i].on_device;
}

static dibit_status grow_on_device(const dibit_session *session, int32_t i, dbt_state_part *part,
                                   int64_t capacity, dibit_error *error) {
    dbt_gpu *const gpu = session->plan->options.gpu;
    const uint64_t row = row_bytes(session, i, part), heads = (uint64_t)part->dims[1];
    const uint64_t bytes = rows_bytes(session, i, part, capacity);
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

/* Room for `capacity` rows a head; what is filled moves along. */
static dibit_status grow_part(const dibit_session *session, int32_t i, dbt_state_part *part,
                              int64_t capacity, dibit_error *error) {
    if (capacity <= part->capacity) return DIBIT_OK;
    if (on_device(session, i)) return grow_on_device(session, i, part, capacity, error);
    const dibit_allocator *const allocator = &session->arena.allocator;
    const uint64_t row = row_bytes(session, i, part), heads = (uint64_t)part->dims[1];
    dbt_block grown = {0};
    DBT_TRY(reserve(session, i, &grown, rows_bytes(session, i, part, capacity), error));
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
    DBT_TRY(init_dims(session, i, part, error));
    const dbt_plan_state *const pair = &session->plan->states[i];
    if (pair->kind == DBT_STATE_APPEND) {
        return grow_part(session, i, part, (int64_t)capacity, error);
    }
    if (pair->kind == DBT_STATE_WINDOW) {
        return grow_part(session, i, part, pair->window + WINDOW_SLACK, error);
    }
    const uint64_t bytes = replace_bytes(session, i, part->dims);
    DBT_TRY(reserve(session, i, &part->data, bytes, error));
    memset(part->data.data, 0, (size_t)bytes);
    return DIBIT_OK;
}

static void free_state(dibit_state *state) {
    const dibit_session *const session = state->session;
    const dibit_allocator *const allocator = &session->arena.allocator;
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        dbt_block_free(&state->parts[i].data, allocator);
        dbt_block_free(&state->parts[i].spare, allocator);
        if (!on_device(session, i)) continue;
        dbt_gpu_buffer_destroy(session->plan->options.gpu, state->parts[i].buffer);
        dbt_gpu_buffer_destroy(session->plan->options.gpu, state->parts[i].spare_buffer);
    }
    dbt_release(allocator, state->parts, (uint64_t)session->plan->n_states * sizeof *state->parts);
    dbt_release(allocator, state, sizeof *state);
}

/* A state whose parts have no memory yet. */
static dibit_status new_state(dibit_session *session, dibit_state **out, dibit_error *error) {
    const dibit_allocator *const allocator = &session->arena.allocator;
    const uint64_t bytes = (uint64_t)session->plan->n_states * sizeof(dbt_state_part);
    dibit_state *const state = dbt_alloc(allocator, sizeof *state, 16);
    dbt_state_part *const parts = dbt_alloc(allocator, bytes, 16);
    if (!state || !parts) {
        dbt_release(allocator, state, sizeof *state);
        dbt_release(allocator, parts, bytes);
        return dbt_fail_memory(error, "a state", sizeof *state + bytes);
    }
    memset(parts, 0, (size_t)bytes);
    *state = (dibit_state){.session = session, .parts = parts, .max_capacity = INT64_MAX};
    *out = state;
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
    DBT_TRY(new_state(session, &state, error));
    if (desc->max_capacity && desc->max_capacity < INT64_MAX) {
        state->max_capacity = desc->max_capacity;
    }
    uint64_t capacity = desc->capacity ? desc->capacity : DEFAULT_CAPACITY;
    if (capacity > state->max_capacity) capacity = state->max_capacity;
    dibit_status status = DIBIT_OK;
    for (int32_t i = 0; i < session->plan->n_states && status == DIBIT_OK; i++) {
        status = init_part(session, i, capacity, &state->parts[i], error);
    }
    if (status != DIBIT_OK) {
        free_state(state);
        return status;
    }
    *out = state;
    return DIBIT_OK;
}

void dibit_state_destroy(dibit_state **state) {
    if (!state || !*state) return;
    free_state(*state);
    *state = NULL;
}

uint64_t dibit_state_length(const dibit_state *state) { return state->length; }

uint64_t dibit_state_capacity(const dibit_state *state) {
    const dbt_plan *const plan = state->session->plan;
    for (int32_t i = 0; i < plan->n_states; i++) {
        if (plan->states[i].kind == DBT_STATE_APPEND) return (uint64_t)state->parts[i].capacity;
    }
    return state->max_capacity; /* windows and convolutions are never full */
}

/* ---- Fork and truncate ---- */

static uint64_t part_bytes(const dibit_session *session, int32_t i, const dbt_state_part *part) {
    if (session->plan->states[i].kind == DBT_STATE_REPLACE) {
        return replace_bytes(session, i, part->dims);
    }
    return rows_bytes(session, i, part, part->capacity);
}

/* The part's content into `to`, which has none yet. */
static dibit_status copy_part(dibit_session *session, int32_t i, const dbt_state_part *from,
                              dbt_state_part *to, dibit_error *error) {
    const uint64_t bytes = part_bytes(session, i, from);
    to->length = from->length;
    to->capacity = from->capacity;
    memcpy(to->dims, from->dims, sizeof to->dims);
    if (on_device(session, i)) {
        dbt_gpu *const gpu = session->plan->options.gpu;
        DBT_TRY(dbt_gpu_buffer_create(gpu, bytes > 0 ? bytes : 1, &to->buffer, error));
        return bytes ? dbt_gpu_copy(gpu, from->buffer, 0, to->buffer, 0, bytes, error) : DIBIT_OK;
    }
    if (!dbt_block_reserve(&to->data, &session->arena.allocator, bytes + 1)) {
        return dbt_fail_memory(error, "a state", bytes);
    }
    if (bytes) memcpy(to->data.data, from->data.data, (size_t)bytes);
    return DIBIT_OK;
}

dibit_status dibit_state_fork(const dibit_state *state, dibit_state **out, dibit_error *error) {
    DBT_FAIL_IF(!state || !out, error, DIBIT_BAD_ARGUMENT, "state and out must not be NULL");
    dibit_session *const session = state->session;
    dibit_state *copy;
    DBT_TRY(new_state(session, &copy, error));
    copy->length = state->length;
    copy->max_capacity = state->max_capacity;
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        const dibit_status status = copy_part(session, i, &state->parts[i], &copy->parts[i], error);
        if (status != DIBIT_OK) {
            free_state(copy);
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

/* The rows that are left of a part, or -1 when the shorter past is gone. */
static int64_t truncated_rows(const dibit_state *state, int32_t i, int64_t length) {
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
    const int32_t axis = session->plan->states[i].axis, rank = past_of(session, i)->t.rank;
    const uint64_t total = replace_bytes(session, i, part->dims);
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
    if (length == state->length) return DIBIT_OK;
    const dibit_session *const session = state->session;
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        DBT_FAIL_IF(truncated_rows(state, i, (int64_t)length) < 0, error, DIBIT_UNSUPPORTED,
                    "'%s' no longer holds what it held after %llu tokens",
                    past_of(session, i)->value->name, (unsigned long long)length);
    }
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        const int64_t rows = truncated_rows(state, i, (int64_t)length);
        if (session->plan->states[i].kind == DBT_STATE_REPLACE) {
            shorten(session, i, &state->parts[i], rows);
        } else {
            state->parts[i].length = rows;
        }
    }
    state->length = length;
    return DIBIT_OK;
}

/* ---- Export and import: a header, then for each part its length, dims and filled rows ---- */

enum { STATE_VERSION = 1 };
#define LONGEST ((uint64_t)1 << 62) /* so that no sum of lengths overflows */
static const char state_magic[8] = "DBTSTATE";

typedef struct cursor {
    char *out;      /* NULL: only count */
    const char *in; /* reading */
    uint64_t at, size;
    bool overrun;
} cursor;

static void transfer(cursor *c, void *data, uint64_t bytes) {
    if (c->overrun || (c->size - c->at < bytes && (c->in || c->out))) {
        c->overrun = true;
        return;
    }
    if (c->out && bytes) memcpy(c->out + c->at, data, (size_t)bytes);
    if (c->in && bytes) memcpy(data, c->in + c->at, (size_t)bytes);
    c->at += bytes;
}

/* The filled bytes of a part, head by head; `data` is its content. */
static void transfer_rows(cursor *c, const dibit_session *session, int32_t i,
                          const dbt_state_part *part, void *data) {
    if (session->plan->states[i].kind == DBT_STATE_REPLACE) {
        transfer(c, data, replace_bytes(session, i, part->dims));
        return;
    }
    const uint64_t row = row_bytes(session, i, part);
    for (int64_t h = 0; h < part->dims[1]; h++) {
        transfer(c, (char *)data + (uint64_t)(h * part->capacity) * row,
                 (uint64_t)part->length * row);
    }
}

/* A part's content in CPU memory, for as long as the block lives. */
static dibit_status content_of(const dibit_session *session, int32_t i, const dbt_state_part *part,
                               dbt_block *block, void **data, dibit_error *error) {
    *data = part->data.data;
    if (!on_device(session, i)) return DIBIT_OK;
    const uint64_t bytes = part_bytes(session, i, part);
    if (!dbt_block_reserve(block, &session->arena.allocator, bytes + 1)) {
        return dbt_fail_memory(error, "a state", bytes);
    }
    *data = block->data;
    if (part->length == 0 || bytes == 0) return DIBIT_OK;
    dbt_gpu *const gpu = session->plan->options.gpu;
    uint64_t ticket;
    DBT_TRY(dbt_gpu_read(gpu, part->buffer, 0, block->data, bytes, &ticket, error));
    dibit_status status;
    do status = dbt_gpu_hal(gpu)->calls->poll(dbt_gpu_hal(gpu), ticket, error);
    while (status == DIBIT_PENDING);
    return status;
}

typedef struct state_header {
    char magic[8];
    uint32_t version;
    int32_t n_parts;
    uint64_t length;
} state_header;

typedef struct part_header {
    int32_t kind, type;
    int64_t length;
    int64_t dims[DIBIT_MAX_RANK];
} part_header;

dibit_status dibit_state_export(const dibit_state *state, void *data, uint64_t *bytes,
                                dibit_error *error) {
    DBT_FAIL_IF(!state || !bytes, error, DIBIT_BAD_ARGUMENT, "state and bytes must not be NULL");
    const dibit_session *const session = state->session;
    cursor c = {.out = data, .size = *bytes};
    state_header header = {
        .version = STATE_VERSION, .n_parts = session->plan->n_states, .length = state->length};
    memcpy(header.magic, state_magic, sizeof header.magic);
    transfer(&c, &header, sizeof header);
    for (int32_t i = 0; i < session->plan->n_states; i++) {
        dbt_state_part *const part = &state->parts[i];
        part_header p = {.kind = (int32_t)session->plan->states[i].kind,
                         .type = (int32_t)past_of(session, i)->t.type,
                         .length = part->length};
        memcpy(p.dims, part->dims, sizeof p.dims);
        transfer(&c, &p, sizeof p);
        dbt_block block = {0};
        void *content = NULL;
        dibit_status status = DIBIT_OK;
        if (data) status = content_of(session, i, part, &block, &content, error);
        if (status == DIBIT_OK) transfer_rows(&c, session, i, part, content);
        dbt_block_free(&block, &session->arena.allocator);
        DBT_TRY(status);
    }
    DBT_FAIL_IF(c.overrun, error, DIBIT_TOO_LARGE, "the state does not fit into %llu bytes",
                (unsigned long long)*bytes);
    *bytes = c.at;
    return DIBIT_OK;
}

static dibit_status import_to_device(cursor *c, const dibit_session *session, int32_t i,
                                     const dbt_state_part *part, dibit_error *error) {
    const uint64_t bytes = part_bytes(session, i, part);
    dbt_block block = {0};
    if (!dbt_block_reserve(&block, &session->arena.allocator, bytes)) {
        return dbt_fail_memory(error, "a state", bytes);
    }
    transfer_rows(c, session, i, part, block.data);
    const dibit_status status =
        dbt_gpu_write(session->plan->options.gpu, part->buffer, 0, block.data, bytes, error);
    dbt_block_free(&block, &session->arena.allocator);
    return status;
}

static dibit_status import_part(cursor *c, const dibit_session *session, int32_t i,
                                dibit_state *state, dibit_error *error) {
    static const char *const bad = "the bytes are not a state of this model (part %d)";
    const dbt_plan_state *const pair = &session->plan->states[i];
    dbt_state_part *const part = &state->parts[i];
    part_header p = {0};
    transfer(c, &p, sizeof p);
    DBT_TRY(init_dims(session, i, part, error));
    const int64_t rows = pair->axis >= 0 ? p.dims[pair->axis] : 0;
    if (pair->kind == DBT_STATE_REPLACE && pair->axis >= 0) part->dims[pair->axis] = rows;
    DBT_FAIL_IF(c->overrun || p.kind != (int32_t)pair->kind || p.length < 0 || rows < 0 ||
                    (int32_t)past_of(session, i)->t.type != p.type ||
                    memcmp(p.dims, part->dims, sizeof p.dims) != 0,
                error, DIBIT_BAD_FILE, bad, (int)i);
    const bool replaced = pair->kind == DBT_STATE_REPLACE;
    const uint64_t bytes =
        replaced ? replace_bytes(session, i, part->dims) : rows_bytes(session, i, part, p.length);
    DBT_FAIL_IF(bytes > c->size - c->at, error, DIBIT_BAD_FILE, bad, (int)i);
    if (replaced) {
        DBT_TRY(reserve(session, i, &part->data, bytes, error));
    } else {
        int64_t capacity = pair->window + WINDOW_SLACK;
        if (pair->kind == DBT_STATE_APPEND) {
            capacity = p.length > DEFAULT_CAPACITY ? p.length : DEFAULT_CAPACITY;
        }
        DBT_FAIL_IF(p.length > capacity, error, DIBIT_BAD_FILE, bad, (int)i);
        DBT_TRY(grow_part(session, i, part, capacity, error));
        part->length = p.length;
    }
    if (!on_device(session, i)) {
        transfer_rows(c, session, i, part, part->data.data);
    } else {
        DBT_TRY(import_to_device(c, session, i, part, error));
    }
    DBT_FAIL_IF(c->overrun, error, DIBIT_BAD_FILE, bad, (int)i);
    return DIBIT_OK;
}

dibit_status dibit_state_import(dibit_session *session, const void *data, uint64_t bytes,
                                dibit_state **out, dibit_error *error) {
    DBT_FAIL_IF(!session || !data || !out, error, DIBIT_BAD_ARGUMENT,
                "session, data and out must not be NULL");
    cursor c = {.in = data, .size = bytes};
    state_header header = {0};
    transfer(&c, &header, sizeof header);
    DBT_FAIL_IF(c.overrun || memcmp(header.magic, state_magic, sizeof state_magic) != 0 ||
                    header.version != STATE_VERSION || header.n_parts != session->plan->n_states ||
                    header.n_parts == 0 || header.length > LONGEST,
                error, DIBIT_BAD_FILE, "the bytes are not a state of this model");
    dibit_state *state;
    DBT_TRY(new_state(session, &state, error));
    state->length = header.length;
    dibit_status status = DIBIT_OK;
    for (int32_t i = 0; i < session->plan->n_states && status == DIBIT_OK; i++) {
        status = import_part(&c, session, i, state, error);
    }
    if (status == DIBIT_OK && c.at != bytes) {
        status = dbt_fail(error, DIBIT_BAD_FILE, "the state has %llu bytes too many",
                          (unsigned long long)(bytes - c.at));
    }
    if (status != DIBIT_OK) {
        free_state(state);
        return status;
    }
    *out = state;
    return DIBIT_OK;
}

/* ---- A run ---- */

static dibit_status check_states(const dibit_session *session, const dibit_run *run,
                                 dibit_error *error) {
    DBT_FAIL_IF(session->plan->n_states == 0, error, DIBIT_UNSUPPORTED,
                "the model has no past inputs with present outputs");
    for (uint32_t b = 0; b < run->n_states; b++) {
        DBT_FAIL_IF(!run->states[b] || run->states[b]->session != session, error,
                    DIBIT_BAD_ARGUMENT, "state %u is not one of this session's", (unsigned)b);
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
    const uint64_t bytes = replace_bytes(session, i, first->dims);
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
        const uint64_t bytes = part_bytes(session, i, part); /* it will evict: on a copy */
        if (on_device(session, i)) {
            dbt_gpu *const gpu = session->plan->options.gpu;
            if (!part->spare_buffer) {
                DBT_TRY(dbt_gpu_buffer_create(gpu, bytes, &part->spare_buffer, error));
            }
            return dbt_gpu_copy(gpu, part->buffer, 0, part->spare_buffer, 0, bytes, error);
        }
        if (!dbt_block_reserve(&part->spare, &session->arena.allocator, bytes)) {
            return dbt_fail_memory(error, past_of(session, i)->value->name, bytes);
        }
        memcpy(part->spare.data, part->data.data, (size_t)bytes);
        return DIBIT_OK;
    }
    const int64_t wanted = part->length + tokens, max = (int64_t)state->max_capacity;
    DBT_FAIL_IF(wanted > max, error, DIBIT_CAPACITY,
                "the state holds %lld of at most %lld tokens, %lld more do not fit",
                (long long)part->length, (long long)max, (long long)tokens);
    int64_t capacity = part->capacity > 0 ? part->capacity : DEFAULT_CAPACITY;
    while (capacity < wanted) capacity *= 2;
    return grow_part(session, i, part, capacity < max ? capacity : max, error);
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
            void *const rows = on_device(session, i)
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
            if (!dbt_block_reserve(&part->spare, &session->arena.allocator, need * 2 + 1)) {
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
            if (on_device(session, i) && row->data == part->spare_buffer) {
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

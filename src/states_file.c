/* States as bytes, and back. */
#include "states.h"

#include <string.h>

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
        transfer(c, data, dbt_state_replaced_bytes(session, i, part->dims));
        return;
    }
    const uint64_t row = dbt_state_row_bytes(session, i, part);
    for (int64_t h = 0; h < part->dims[1]; h++) {
        transfer(c, (char *)data + (uint64_t)(h * part->capacity) * row,
                 (uint64_t)part->length * row);
    }
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

/* A part's header and rows; PENDING, with nothing taken, while its rows are on their way. */
static dibit_status export_part(cursor *c, dibit_state *state, int32_t i, dibit_error *error) {
    const dibit_session *const session = state->session;
    dbt_state_part *const part = &state->parts[i];
    part_header p = {.kind = (int32_t)session->plan->states[i].kind,
                     .type = (int32_t)dbt_state_past(session, i)->t.type,
                     .length = part->length};
    memcpy(p.dims, part->dims, sizeof p.dims);
    void *content = part->data.data;
    const bool reads = c->out && dbt_state_on_device(session, i) && part->length > 0;
    if (reads) {
        const uint64_t bytes = dbt_state_part_bytes(session, i, part);
        DBT_TRY(dbt_state_read_device(state, i, bytes, &content, error));
    }
    transfer(c, &p, sizeof p);
    transfer_rows(c, session, i, part, content);
    if (reads) dbt_state_stop_reading(state);
    return DIBIT_OK;
}

/* Goes on behind the parts that an earlier call has written. */
static dibit_status export_parts(cursor *c, dibit_state *state, dibit_error *error) {
    const int32_t n = state->session->plan->n_states;
    dbt_state_export *const e = &state->exporting;
    if (c->out && e->data == c->out && e->length == state->length) {
        c->at = e->at;
    } else {
        if (e->data) dbt_state_stop_reading(state);
        *e = (dbt_state_export){.data = c->out, .length = state->length, .at = c->at};
    }
    for (int32_t i = c->out ? e->parts : 0; i < n; i++) {
        DBT_TRY(export_part(c, state, i, error));
        if (c->overrun) break;
        e->parts = i + 1;
        e->at = c->at;
    }
    return DIBIT_OK;
}

dibit_status dibit_state_export(dibit_state *state, void *data, uint64_t *bytes,
                                dibit_error *error) {
    DBT_FAIL_IF(!state || !bytes, error, DIBIT_BAD_ARGUMENT, "state and bytes must not be NULL");
    DBT_TRY(dbt_state_check(state, error));
    cursor c = {.out = data, .size = data ? *bytes : 0};
    state_header header = {.version = STATE_VERSION,
                           .n_parts = state->session->plan->n_states,
                           .length = state->length};
    memcpy(header.magic, state_magic, sizeof header.magic);
    transfer(&c, &header, sizeof header);
    const dibit_status status = export_parts(&c, state, error);
    if (status == DIBIT_PENDING) return status;
    if (status != DIBIT_OK) dbt_state_stop_reading(state);
    state->exporting = (dbt_state_export){0};
    DBT_TRY(status);
    DBT_FAIL_IF(c.overrun, error, DIBIT_TOO_LARGE, "the state does not fit into %llu bytes",
                (unsigned long long)*bytes);
    *bytes = c.at;
    return DIBIT_OK;
}

static dibit_status import_to_device(cursor *c, const dibit_session *session, int32_t i,
                                     const dbt_state_part *part, dibit_error *error) {
    const uint64_t bytes = dbt_state_part_bytes(session, i, part);
    dbt_block block = {0};
    if (!dbt_block_reserve(&block, &session->allocator, bytes)) {
        return dbt_fail_memory(error, "a state", bytes);
    }
    memset(block.data, 0, (size_t)bytes); /* rows to come */
    transfer_rows(c, session, i, part, block.data);
    const dibit_status status =
        dbt_gpu_write(session->plan->options.gpu, part->buffer, 0, block.data, bytes, error);
    dbt_block_free(&block, &session->allocator);
    return status;
}

static dibit_status import_part(cursor *c, const dibit_session *session, int32_t i,
                                dibit_state *state, dibit_error *error) {
    static const char *const bad = "the bytes are not a state of this model (part %d)";
    const dbt_plan_state *const pair = &session->plan->states[i];
    dbt_state_part *const part = &state->parts[i];
    part_header p = {0};
    transfer(c, &p, sizeof p);
    DBT_TRY(dbt_state_init_dims(session, i, part, error));
    const int64_t rows = pair->axis >= 0 ? p.dims[pair->axis] : 0;
    if (pair->kind == DBT_STATE_REPLACE && pair->axis >= 0) part->dims[pair->axis] = rows;
    DBT_FAIL_IF(c->overrun || p.kind != (int32_t)pair->kind || p.length < 0 || rows < 0 ||
                    (int32_t)dbt_state_past(session, i)->t.type != p.type ||
                    memcmp(p.dims, part->dims, sizeof p.dims) != 0,
                error, DIBIT_BAD_FILE, bad, (int)i);
    const bool replaced = pair->kind == DBT_STATE_REPLACE;
    const uint64_t bytes = replaced ? dbt_state_replaced_bytes(session, i, part->dims)
                                    : dbt_state_rows_bytes(session, i, part, p.length);
    DBT_FAIL_IF(bytes > c->size - c->at, error, DIBIT_BAD_FILE, bad, (int)i);
    if (replaced) {
        DBT_TRY(dbt_state_reserve(session, i, &part->data, bytes, error));
    } else {
        int64_t capacity = pair->window + DBT_STATE_WINDOW_SLACK;
        if (pair->kind == DBT_STATE_APPEND) {
            capacity = p.length > DBT_STATE_CAPACITY ? p.length : DBT_STATE_CAPACITY;
        }
        DBT_FAIL_IF(p.length > capacity, error, DIBIT_BAD_FILE, bad, (int)i);
        DBT_TRY(dbt_state_grow(session, i, part, capacity, error));
        part->length = p.length;
    }
    if (!dbt_state_on_device(session, i)) {
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
    DBT_FAIL_IF(!session->ready, error, DIBIT_BAD_STATE, "the session is not ready yet");
    cursor c = {.in = data, .size = bytes};
    state_header header = {0};
    transfer(&c, &header, sizeof header);
    DBT_FAIL_IF(c.overrun || memcmp(header.magic, state_magic, sizeof state_magic) != 0 ||
                    header.version != STATE_VERSION || header.n_parts != session->plan->n_states ||
                    header.n_parts == 0 || header.length > LONGEST,
                error, DIBIT_BAD_FILE, "the bytes are not a state of this model");
    dibit_state *state;
    DBT_TRY(dbt_state_new(session, &state, error));
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
        dbt_state_free(state);
        return status;
    }
    *out = state;
    return DIBIT_OK;
}

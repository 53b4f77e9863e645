/* A walk over the messages of a file that comes through a callback. It reads pages as it meets bytes
 * that are not there, enters the messages on the way to tensors, and steps over raw_data of 64 KB and
 * more, so that what becomes resident is the model without its weights:
 *
 *     file    |tag len [graph: tag len [node ...] tag len [initializer: dims name raw_data.......]]|
 *     runs    |================================================================|            |=====|
 *
 * The walk keeps its own stack and position: a source may answer PENDING at any page, any number of
 * times, and nothing is walked or read twice. */
#include "onnx/onnx_fetch.h"

#include <string.h>

#include "onnx/onnx_fields.h"
#include "onnx/onnx_parse.h"

enum { FIRST_PAGE = 4096, LARGEST_PAGE = 65536 };

static const struct {
    dbt_fetch_kind in;
    uint32_t field;
    dbt_fetch_kind to;
} ways[] = {
    {DBT_FETCH_MODEL, MODEL_GRAPH, DBT_FETCH_GRAPH},
    {DBT_FETCH_MODEL, MODEL_FUNCTIONS, DBT_FETCH_FUNCTION},
    {DBT_FETCH_FUNCTION, FUNCTION_NODE, DBT_FETCH_NODE},
    {DBT_FETCH_FUNCTION, FUNCTION_ATTRIBUTE_PROTO, DBT_FETCH_ATTR},
    {DBT_FETCH_GRAPH, GRAPH_NODE, DBT_FETCH_NODE},
    {DBT_FETCH_GRAPH, GRAPH_INITIALIZER, DBT_FETCH_TENSOR},
    {DBT_FETCH_NODE, NODE_ATTRIBUTE, DBT_FETCH_ATTR},
    {DBT_FETCH_ATTR, ATTR_T, DBT_FETCH_TENSOR},
    {DBT_FETCH_ATTR, ATTR_G, DBT_FETCH_GRAPH},
};

void dbt_fetch_init(dbt_fetch *fetch, const dbt_source *source, dbt_fetch_kind root,
                    const dibit_allocator *allocator) {
    *fetch = (dbt_fetch){.source = source, .allocator = allocator, .next_bytes = FIRST_PAGE};
    fetch->depth = 1;
    fetch->stack[0].end = source->size;
    fetch->stack[0].kind = root;
}

void dbt_fetch_free(dbt_fetch *fetch) {
    for (size_t i = 0; i < fetch->wire.n_runs; i++) {
        const dbt_wire_run *const run = &fetch->runs[i];
        dbt_release(fetch->allocator, (void *)(uintptr_t)run->data, run->end - run->begin);
    }
    dbt_release(fetch->allocator, fetch->runs, fetch->runs_capacity * sizeof *fetch->runs);
    dbt_release(fetch->allocator, fetch->page, fetch->page_bytes);
    *fetch = (dbt_fetch){0};
}

static dibit_status reserve_run(dbt_fetch *fetch, dibit_error *error) {
    if (fetch->wire.n_runs < fetch->runs_capacity) return DIBIT_OK;
    const uint64_t capacity = fetch->runs_capacity ? fetch->runs_capacity * 2 : 16;
    dbt_wire_run *const fresh =
        dbt_alloc(fetch->allocator, capacity * sizeof *fresh, _Alignof(dbt_wire_run));
    if (!fresh) return dbt_fail_memory(error, "the model's structure", capacity * sizeof *fresh);
    if (fetch->runs) memcpy(fresh, fetch->runs, fetch->wire.n_runs * sizeof *fresh);
    dbt_release(fetch->allocator, fetch->runs, fetch->runs_capacity * sizeof *fetch->runs);
    fetch->runs = fresh;
    fetch->wire.runs = fresh;
    fetch->runs_capacity = capacity;
    return DIBIT_OK;
}

/* Reads one more page, which begins at `at`: after all runs so far. Pages grow while they follow
 * each other, and begin small again after a jump: what lies behind a weight is often only the name
 * of the next one. */
static dibit_status read_page(dbt_fetch *fetch, uint64_t at, dibit_error *error) {
    DBT_TRY(reserve_run(fetch, error));
    if (!fetch->page) {
        const dbt_wire_run *const last =
            fetch->wire.n_runs ? &fetch->runs[fetch->wire.n_runs - 1] : NULL;
        if (last && last->end != at) fetch->next_bytes = FIRST_PAGE;
        const uint64_t left = fetch->source->size - at;
        const uint64_t bytes = left < fetch->next_bytes ? left : fetch->next_bytes;
        fetch->page = dbt_alloc(fetch->allocator, bytes, 1);
        if (!fetch->page) return dbt_fail_memory(error, "the model's structure", bytes);
        fetch->page_at = at;
        fetch->page_bytes = bytes;
        if (fetch->next_bytes < LARGEST_PAGE) fetch->next_bytes *= 2;
    }
    DBT_TRY(dbt_source_read(fetch->source, fetch->page_at, fetch->page_bytes, fetch->page, error));
    fetch->runs[fetch->wire.n_runs++] =
        (dbt_wire_run){fetch->page_at, fetch->page_at + fetch->page_bytes, fetch->page};
    fetch->page = NULL;
    return DIBIT_OK;
}

static uint64_t resident_end(const dbt_fetch *fetch) {
    return fetch->wire.n_runs ? fetch->runs[fetch->wire.n_runs - 1].end : 0;
}

/* Goes over one field: into it, over it, or over it with a note to keep it. */
static dibit_status step(dbt_fetch *fetch, const dbt_wire_message *m, const dbt_wire_field *f,
                         dibit_error *error) {
    const dbt_fetch_kind kind = fetch->stack[fetch->depth - 1].kind;
    fetch->at = m->at;
    if (f->type != DBT_WIRE_BYTES) return DIBIT_OK;
    if (kind == DBT_FETCH_TENSOR && f->number == TENSOR_RAW_DATA &&
        f->bytes >= DBT_ONNX_LAZY_BYTES) {
        return DIBIT_OK;
    }
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (ways[i].in != kind || ways[i].field != f->number) continue;
        DBT_FAIL_IF(fetch->depth == DBT_FETCH_MAX_DEPTH, error, DIBIT_UNSUPPORTED,
                    "'%s': graphs are nested more than %d deep", fetch->source->name,
                    DBT_ONNX_MAX_GRAPH_DEPTH);
        fetch->stack[fetch->depth].kind = ways[i].to;
        fetch->stack[fetch->depth++].end = f->at + f->bytes;
        fetch->at = f->at;
        return DIBIT_OK;
    }
    fetch->keep_end = f->at + f->bytes;
    return DIBIT_OK;
}

dibit_status dbt_fetch_poll(dbt_fetch *fetch, dibit_error *error) {
    while (fetch->depth > 0) {
        const uint64_t resident = resident_end(fetch);
        if (fetch->page || resident < fetch->keep_end) {
            /* What is kept ends where the walk is, and the walk's position was resident before. */
            DBT_TRY(read_page(fetch, resident, error));
            continue;
        }
        dbt_wire_message m = {&fetch->wire, fetch->at, fetch->stack[fetch->depth - 1].end, NULL};
        dbt_wire_field f;
        if (dbt_wire_next(&m, &f)) {
            DBT_TRY(step(fetch, &m, &f, error));
        } else if (m.wrong == dbt_wire_not_resident) {
            DBT_TRY(read_page(fetch, resident > fetch->at ? resident : fetch->at, error));
        } else if (m.wrong) {
            return dbt_fail(error, DIBIT_BAD_FILE, "'%s': malformed at byte %llu: %s",
                            fetch->source->name, (unsigned long long)m.at, m.wrong);
        } else {
            fetch->at = fetch->stack[--fetch->depth].end;
        }
    }
    return DIBIT_OK;
}

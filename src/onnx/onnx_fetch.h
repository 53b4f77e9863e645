/* Makes resident what the parser needs of a source that is not mapped. Private to src/onnx. */
#ifndef DBT_ONNX_ONNX_FETCH_H
#define DBT_ONNX_ONNX_FETCH_H

#include "base/source.h"
#include "onnx/wire.h"

/* The messages that the walk enters: those that can hold a tensor, and tensors. */
typedef enum dbt_fetch_kind {
    DBT_FETCH_MODEL,
    DBT_FETCH_GRAPH,
    DBT_FETCH_FUNCTION,
    DBT_FETCH_NODE,
    DBT_FETCH_ATTR,
    DBT_FETCH_TENSOR
} dbt_fetch_kind;

enum { DBT_FETCH_MAX_DEPTH = 64 };

typedef struct dbt_fetch {
    const dbt_source *source;
    const dibit_allocator *allocator;
    dbt_wire wire; /* over `runs`: for the parser once the walk is done */
    dbt_wire_run *runs;
    uint64_t runs_capacity;
    uint8_t *page; /* being read: a callback that answered PENDING is asked for it again */
    uint64_t page_at, page_bytes;
    uint64_t next_bytes; /* how much to read at once */
    uint64_t at;         /* where the walk is */
    uint64_t keep_end;   /* everything before it has to be resident */
    uint32_t depth;
    struct {
        uint64_t end;
        dbt_fetch_kind kind;
    } stack[DBT_FETCH_MAX_DEPTH];
} dbt_fetch;

void dbt_fetch_init(dbt_fetch *fetch, const dbt_source *source, dbt_fetch_kind root,
                    const dibit_allocator *allocator);
/* PENDING when the source says so; call again. Malformed bytes end the walk with BAD_FILE. */
dibit_status dbt_fetch_poll(dbt_fetch *fetch, dibit_error *error);
void dbt_fetch_free(dbt_fetch *fetch);

#endif

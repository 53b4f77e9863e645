/* What the files that turn messages into structs share: where they are (for errors), strings, and
 * the external data that they meet. Private to src/onnx. */
#ifndef DBT_ONNX_ONNX_PARSE_H
#define DBT_ONNX_ONNX_PARSE_H

#include "onnx/onnx.h"
#include "onnx/wire.h"

/* Raw data from this size on is never read while loading; see the design of onnx_fetch.c. */
enum { DBT_ONNX_LAZY_BYTES = 64 * 1024 };
/* Graphs in attributes of nodes of graphs in attributes ...; bounds recursion here and elsewhere. */
enum { DBT_ONNX_MAX_GRAPH_DEPTH = 16 };

/* Where in the model we are: a list on the C stack, printed innermost last. */
typedef struct dbt_place {
    const struct dbt_place *parent;
    const char *what; /* "node", "initializer", ... */
    const char *name; /* "" or NULL: the index is printed */
    uint32_t index;
} dbt_place;

/* A tensor whose data lies in another file; a list in the arena. */
typedef struct dbt_onnx_external {
    struct dbt_onnx_external *next;
    dbt_constant *constant;
    const char *where; /* its place, as text */
    const char *location;
    uint64_t offset;
} dbt_onnx_external;

typedef struct dbt_parse {
    dbt_arena *arena;
    const dbt_source *source;
    dbt_wire *wire;
    dibit_error *error;
    dbt_onnx_external *externals; /* newest first */
    uint32_t graph_depth;
} dbt_parse;

/* "'file': node 'n': attribute 'a': sentence". */
dibit_status dbt_parse_fail(const dbt_parse *p, const dbt_place *place, dibit_status status,
                            const char *format, ...) DBT_PRINTF(4, 5);
dibit_status dbt_parse_fail_memory(const dbt_parse *p, const dbt_place *place);
/* "node 'n': attribute 'a'" in the arena; NULL when there is no memory. */
const char *dbt_parse_where(const dbt_parse *p, const dbt_place *place);

/* OK when the loop over a message's fields (or a field's values) ended where the message does. */
dibit_status dbt_parse_end(const dbt_parse *p, const dbt_place *place, const dbt_wire_message *m);
/* The field must have this wire type. */
dibit_status dbt_parse_type(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                            dbt_wire_type type, const char *field_name);
/* Counts an occurrence of a repeated string or message field. A message of fewer than min_bytes
 * lacks something that it must have: that keeps arrays of structs proportional to the file. */
dibit_status dbt_parse_count(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                             uint64_t min_bytes, const char *field_name, uint32_t *n);
/* A zeroed array in the arena; n 0 gives NULL. */
dibit_status dbt_parse_array(const dbt_parse *p, const dbt_place *place, uint64_t n, size_t bytes,
                             void *out);
/* UTF-8 without NUL, copied to the arena. */
dibit_status dbt_parse_string(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                              const char *field_name, const char **out);
/* Bytes without NUL (attributes and string tensors may hold anything else). */
dibit_status dbt_parse_text(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                            const char *field_name, const char **out);
/* A domain: "ai.onnx" becomes "". */
dibit_status dbt_parse_domain(const dbt_parse *p, const dbt_place *place, const dbt_wire_field *f,
                              const char **out);
/* A StringStringEntryProto. */
dibit_status dbt_parse_entry(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                             const char **key, const char **value);

/* onnx_tensor.c. place->name is filled in with the tensor's once it is known. */
dibit_status dbt_parse_tensor(dbt_parse *p, dbt_place *place, dbt_wire_message m,
                              dbt_constant *out);
/* onnx_read_graph.c */
dibit_status dbt_parse_graph(dbt_parse *p, const dbt_place *parent, dbt_wire_message m,
                             dbt_onnx_graph *out);
dibit_status dbt_parse_node(dbt_parse *p, const dbt_place *parent, uint32_t index,
                            dbt_wire_message m, dbt_onnx_node *out);
dibit_status dbt_parse_attr(dbt_parse *p, const dbt_place *parent, uint32_t index,
                            dbt_wire_message m, dbt_onnx_attr *out);

#endif

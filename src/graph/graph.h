/* The typed graph: values and nodes with resolved operators, parsed attributes, inferred types and
 * symbolic shapes. Made from what the reader found by plan/build.c (which needs the ops' inference),
 * changed by the planner's rewrites, dumped by graph_dump.c.
 *
 * Invariants of a built graph: nodes are in an order in which every input is defined before it is
 * used; every value has at most one producer; names of values are unique; no node has a subgraph
 * (If branches are inlined behind a guard, model-local functions are inlined). */
#ifndef DBT_GRAPH_GRAPH_H
#define DBT_GRAPH_GRAPH_H

#include "graph/dims.h"
#include "onnx/onnx.h"

typedef struct dbt_op dbt_op; /* ops/op.h */
typedef struct dbt_node dbt_node;

typedef struct dbt_shape {
    int32_t rank; /* -1: unknown */
    dbt_dim dims[DIBIT_MAX_RANK];
} dbt_shape;

/* Elements of integer values that are tracked symbolically (shapes, lengths, axes). */
enum { DBT_MAX_CONTENTS = 64 };

typedef struct dbt_value {
    const char *name;
    uint32_t id;     /* index in graph->values */
    dibit_type type; /* as the model says; stored as dbt_storage_type(type) */
    dbt_shape shape;
    dbt_constant *constant;  /* known at load time: initializer, Constant, folded; else NULL */
    const dbt_dim *contents; /* host value: one dim per element (row-major), or NULL. Only for
                                integer and bool values of at most DBT_MAX_CONTENTS elements whose
                                shape is constant; always set for constants of that kind */
    dbt_node *producer;      /* NULL for inputs and constants */
    bool is_input, is_output;
} dbt_value;

struct dbt_node {
    uint32_t id;
    const char *name; /* the model's, or made from the first output's; never "" */
    const char *domain, *op_type;
    const dbt_op *op;
    const void *attrs;               /* the op's attribute struct */
    const dbt_onnx_attr *onnx_attrs; /* as in the file, for the dump */
    uint32_t n_onnx_attrs;
    int32_t opset; /* of the op's domain, as the model imports it */
    uint32_t n_inputs, n_outputs;
    dbt_value **inputs;  /* NULL where an optional input is absent */
    dbt_value **outputs; /* NULL where an optional output is not wanted */
    dbt_value *guard;    /* bool scalar from an If: the node runs only when it equals guard_value */
    bool guard_value;
};

typedef struct dbt_graph {
    dbt_arena *arena;
    dbt_dims *dims;
    dbt_value **values;
    dbt_node **nodes;
    dbt_value **inputs, **outputs; /* inputs without a default, in the model's order */
    const char **output_names;     /* inside inlined functions a value has another name */
    uint32_t n_values, n_nodes, n_inputs, n_outputs;
    uint32_t values_capacity, nodes_capacity;
    uint64_t folded_bytes; /* of constants that nodes computed */
    const dbt_onnx_model *model;
    const char *shapeless; /* an input of unknown rank: then there are no nodes; NULL */
} dbt_graph;

/* Allocate from graph->arena and append to the graph; NULL: out of memory. Strings are borrowed. */
dbt_value *dbt_graph_add_value(dbt_graph *graph, const char *name);
dbt_node *dbt_graph_add_node(dbt_graph *graph, uint32_t n_inputs, uint32_t n_outputs);

/* The node stays in its place, and makes and reads nothing any more. */
void dbt_node_remove(dbt_node *node);
bool dbt_node_is_removed(const dbt_node *node);

/* How often each value is read, by nodes (guards count) and as an output of the graph: [n_values], in the
 * graph's arena. OUT_OF_MEMORY. */
dibit_status dbt_graph_count_uses(const dbt_graph *graph, uint32_t **out, dibit_error *error);

/* Text, a line for each input, constant, node and output. */
void dbt_graph_dump(const dbt_graph *graph, dibit_write write, void *user);
/* The lines of one node. */
void dbt_graph_dump_node(const dbt_graph *graph, uint32_t node, dibit_write write, void *user);

#endif

/* Names and scopes while a graph is built. Only plan/build*.c and plan/scope.c include this.
 *
 * A model-local function is inlined in a scope of its own (it sees nothing outside), a branch of an If
 * in a scope inside its parent's. */
#ifndef DBT_PLAN_SCOPE_H
#define DBT_PLAN_SCOPE_H

#include "plan/build.h"

enum {
    DBT_MAX_DEPTH = 32,      /* nested functions and branches */
    DBT_MAX_NODES = 1 << 20, /* after inlining */
};

typedef struct dbt_name_entry {
    uint32_t scope; /* 0: free */
    const char *name;
    dbt_value *value; /* NULL: known to be absent (a function's input that was not given) */
} dbt_name_entry;

typedef struct dbt_scope {
    const struct dbt_scope *parent; /* whose names are seen too, or NULL */
    uint32_t id;
    int depth;
    const char *prefix; /* of names: "" or "call/" */
    const dbt_onnx_opset *opsets;
    uint32_t n_opsets;
    const dbt_onnx_function *function; /* whose attribute references mean those of the call */
    const dbt_onnx_attr *call_attrs;
    uint32_t n_call_attrs;
    dbt_value *guard;
    bool guard_value;
} dbt_scope;

typedef struct dbt_builder {
    dbt_graph *graph;
    dbt_arena *arena;
    const dbt_onnx_model *model;
    const int32_t *input_ranks; /* NULL: none are given */
    dibit_error *error;
    bool placed; /* the error names its node */
    dbt_name_entry *names;
    uint32_t n_names, names_size, n_scopes;
} dbt_builder;

/* scope.c */
/* BAD_FILE when the scope has the name already. */
dibit_status dbt_scope_define(dbt_builder *b, const dbt_scope *s, const char *name,
                              dbt_value *value);
/* *out NULL for "" and for a function's input that was not given; BAD_FILE when nobody defined it. */
dibit_status dbt_scope_look_up(const dbt_builder *b, const dbt_scope *s, const char *name,
                               dbt_value **out);
bool dbt_scope_is_constant(const dbt_builder *b, const dbt_scope *s, const char *name);
const char *dbt_scope_prefixed(const dbt_builder *b, const dbt_scope *s, const char *name);
/* The node's name, or one made from its first output: never empty. NULL: out of memory. */
const char *dbt_scope_node_name(const dbt_builder *b, const dbt_scope *s,
                                const dbt_onnx_node *node);
dibit_status dbt_scope_new_value(dbt_builder *b, const dbt_scope *s, const char *name,
                                 dbt_value **out);
bool dbt_opset_of(const dbt_scope *s, const char *domain, int64_t *version);
dibit_status dbt_check_opsets(const dbt_builder *b, const dbt_onnx_opset *opsets, uint32_t n);
const dbt_onnx_attr *dbt_find_attr(const dbt_onnx_attr *attrs, uint32_t n, const char *name);
/* The node's attributes with references of a function body replaced by what the call gave. */
dibit_status dbt_resolve_attrs(const dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                               const dbt_onnx_attr **out, uint32_t *n_out);

/* build.c */
dibit_status dbt_build_nodes(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *nodes,
                             uint32_t n);
dibit_status dbt_build_initializers(dbt_builder *b, const dbt_scope *s,
                                    const dbt_onnx_graph *graph);

/* build_inline.c: what becomes of a call of a model-local function, and of an If. */
dibit_status dbt_build_call(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                            const dbt_onnx_function *f, const dbt_onnx_attr *attrs,
                            uint32_t n_attrs);
dibit_status dbt_build_if(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                          const dbt_onnx_attr *attrs, uint32_t n_attrs);

#endif

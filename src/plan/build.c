/* Builds the graph: one pass over the nodes in file order, each resolved, checked, inferred and, when
 * its inputs are small constants, folded.
 *
 * Names live in scopes. A model-local function is inlined in a scope of its own (it sees nothing
 * outside), a branch of an If in a scope inside its parent's. A branch chosen by a constant is
 * inlined alone; otherwise both are, their nodes guarded by the condition, and dibit.Select picks. */
#include "plan/build.h"

#include <string.h>

#include "ops/attrs.h"

enum {
    LOWEST_OPSET = 7,
    HIGHEST_OPSET = 25,
    MAX_DEPTH = 32,      /* nested functions and branches */
    MAX_NODES = 1 << 20, /* after inlining */
};

typedef struct name_entry {
    uint32_t scope; /* 0: free */
    const char *name;
    dbt_value *value; /* NULL: known to be absent (a function's input that was not given) */
} name_entry;

typedef struct scope {
    const struct scope *parent; /* whose names are seen too, or NULL */
    uint32_t id;
    int depth;
    const char *prefix; /* of names: "" or "call/" */
    const dbt_onnx_opset *opsets;
    uint32_t n_opsets;
    const dbt_onnx_function *function; /* whose attribute references mean those of `call` */
    const dbt_onnx_attr *call_attrs;
    uint32_t n_call_attrs;
    dbt_value *guard;
    bool guard_value;
} scope;

typedef struct builder {
    dbt_graph *graph;
    dbt_arena *arena;
    const dbt_onnx_model *model;
    dibit_error *error;
    bool placed; /* the error names its node */
    name_entry *names;
    uint32_t n_names, names_size, n_scopes;
} builder;

static dibit_status build_nodes(builder *b, const scope *s, const dbt_onnx_node *nodes, uint32_t n);

/* ---- Names ---- */

static uint32_t hash_name(uint32_t scope_id, const char *name) {
    uint32_t h = 2166136261u ^ scope_id * 2654435761u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

static name_entry *find_entry(const builder *b, uint32_t scope_id, const char *name) {
    if (b->names_size == 0) return NULL;
    uint32_t at = hash_name(scope_id, name) & (b->names_size - 1);
    for (; b->names[at].scope; at = (at + 1) & (b->names_size - 1)) {
        if (b->names[at].scope == scope_id && strcmp(b->names[at].name, name) == 0) {
            return &b->names[at];
        }
    }
    return &b->names[at];
}

static bool grow_names(builder *b) {
    const uint32_t size = b->names_size ? b->names_size * 2 : 256;
    name_entry *const old = b->names;
    const uint32_t old_size = b->names_size;
    b->names = dbt_arena_array(b->arena, size, sizeof *b->names);
    if (!b->names) return false;
    b->names_size = size;
    for (uint32_t i = 0; i < old_size; i++) {
        if (old[i].scope) *find_entry(b, old[i].scope, old[i].name) = old[i];
    }
    return true;
}

static dibit_status define(builder *b, const scope *s, const char *name, dbt_value *value) {
    if (b->n_names * 2 >= b->names_size && !grow_names(b)) {
        return dbt_fail_memory(b->error, "names", b->names_size * sizeof *b->names);
    }
    name_entry *const entry = find_entry(b, s->id, name);
    DBT_FAIL_IF(entry->scope, b->error, DIBIT_BAD_FILE, "value '%s' is defined twice", name);
    *entry = (name_entry){s->id, name, value};
    b->n_names++;
    return DIBIT_OK;
}

static dibit_status look_up(const builder *b, const scope *s, const char *name, dbt_value **out) {
    *out = NULL;
    if (!name[0]) return DIBIT_OK;
    for (const scope *in = s; in; in = in->parent) {
        const name_entry *const entry = find_entry(b, in->id, name);
        if (entry && entry->scope) {
            *out = entry->value;
            return DIBIT_OK;
        }
    }
    return dbt_fail(b->error, DIBIT_BAD_FILE,
                    "input '%s' is not defined before it is used (missing, cyclic or out of order)",
                    name);
}

static const char *prefixed(const builder *b, const scope *s, const char *name) {
    return s->prefix[0] ? dbt_arena_format(b->arena, "%s%s", s->prefix, name) : name;
}

static dibit_status new_value(builder *b, const scope *s, const char *name, dbt_value **out) {
    const char *const full = prefixed(b, s, name);
    *out = full ? dbt_graph_add_value(b->graph, full) : NULL;
    return *out ? DIBIT_OK : dbt_fail_memory(b->error, "a value", sizeof(dbt_value));
}

/* ---- Opsets and attributes ---- */

static bool opset_of(const scope *s, const char *domain, int64_t *version) {
    for (uint32_t i = 0; i < s->n_opsets; i++) {
        if (strcmp(s->opsets[i].domain, domain) == 0) {
            *version = s->opsets[i].version;
            return true;
        }
    }
    return false;
}

static dibit_status check_opsets(const builder *b, const dbt_onnx_opset *opsets, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const int64_t version = opsets[i].version;
        const bool onnx = opsets[i].domain[0] == 0;
        DBT_FAIL_IF(version < 1 || version > INT16_MAX, b->error, DIBIT_BAD_FILE,
                    "opset version %lld of domain '%s' makes no sense", (long long)version,
                    onnx ? "ai.onnx" : opsets[i].domain);
        DBT_FAIL_IF(onnx && (version < LOWEST_OPSET || version > HIGHEST_OPSET), b->error,
                    DIBIT_UNSUPPORTED, "opset %lld of ai.onnx is not supported (%d to %d are)",
                    (long long)version, LOWEST_OPSET, HIGHEST_OPSET);
    }
    return DIBIT_OK;
}

static const dbt_onnx_attr *find_attr(const dbt_onnx_attr *attrs, uint32_t n, const char *name) {
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(attrs[i].name, name) == 0) return &attrs[i];
    }
    return NULL;
}

/* The node's attributes with references of a function body replaced by what the call gave. */
static dibit_status resolve_attrs(const builder *b, const scope *s, const dbt_onnx_node *node,
                                  const dbt_onnx_attr **out, uint32_t *n_out) {
    *out = node->attrs;
    *n_out = node->n_attrs;
    bool any = false;
    for (uint32_t i = 0; i < node->n_attrs; i++) any = any || node->attrs[i].reference;
    if (!any) return DIBIT_OK;
    dbt_onnx_attr *const attrs = dbt_arena_array(b->arena, node->n_attrs, sizeof *attrs);
    if (!attrs) return dbt_fail_memory(b->error, "attributes", node->n_attrs * sizeof *attrs);
    uint32_t n = 0;
    for (uint32_t i = 0; i < node->n_attrs; i++) {
        const dbt_onnx_attr *a = &node->attrs[i];
        if (a->reference) {
            DBT_FAIL_IF(!s->function, b->error, DIBIT_BAD_FILE,
                        "attribute '%s' refers to '%s' outside of a function", a->name,
                        a->reference);
            const char *const name = a->name;
            const char *const reference = a->reference;
            a = find_attr(s->call_attrs, s->n_call_attrs, reference);
            if (!a) {
                a = find_attr(s->function->attr_defaults, s->function->n_attr_defaults, reference);
            }
            if (!a) continue; /* not given: absent in the body too */
            attrs[n] = *a;
            attrs[n].name = name;
            attrs[n++].reference = NULL;
        } else {
            attrs[n++] = *a;
        }
    }
    *out = attrs;
    *n_out = n;
    return DIBIT_OK;
}

/* ---- Constants ---- */

static dibit_status scalar_constant(const builder *b, dibit_type type, const void *data,
                                    uint64_t count, bool vector, dbt_constant **out) {
    dbt_constant *const c = dbt_arena_alloc(b->arena, sizeof *c);
    if (!c) return dbt_fail_memory(b->error, "a constant", sizeof *c);
    c->name = "";
    c->type = type;
    c->rank = vector;
    c->dims[0] = (int64_t)count;
    c->count = (int64_t)count;
    c->bytes.bytes = count * (dibit_type_bits(type) / 8);
    c->data = data;
    *out = c;
    return DIBIT_OK;
}

static dibit_status constant_of_node(const builder *b, const dbt_onnx_attr *attrs, uint32_t n,
                                     dbt_constant **out) {
    DBT_FAIL_IF(n != 1, b->error, DIBIT_BAD_FILE, "Constant must have one attribute, got %u",
                (unsigned)n);
    const dbt_onnx_attr *const a = &attrs[0];
    if (strcmp(a->name, "value") == 0 && a->kind == DBT_ONNX_ATTR_TENSOR) {
        *out = dbt_arena_alloc(b->arena, sizeof **out);
        if (!*out) return dbt_fail_memory(b->error, "a constant", sizeof **out);
        **out = *a->tensor;
        return DIBIT_OK;
    }
    if (strcmp(a->name, "value_float") == 0 && a->kind == DBT_ONNX_ATTR_FLOAT) {
        return scalar_constant(b, DIBIT_TYPE_FLOAT, &a->f, 1, false, out);
    }
    if (strcmp(a->name, "value_floats") == 0 && a->kind == DBT_ONNX_ATTR_FLOATS) {
        return scalar_constant(b, DIBIT_TYPE_FLOAT, a->floats, a->count, true, out);
    }
    if (strcmp(a->name, "value_int") == 0 && a->kind == DBT_ONNX_ATTR_INT) {
        return scalar_constant(b, DIBIT_TYPE_INT64, &a->i, 1, false, out);
    }
    if (strcmp(a->name, "value_ints") == 0 && a->kind == DBT_ONNX_ATTR_INTS) {
        return scalar_constant(b, DIBIT_TYPE_INT64, a->ints, a->count, true, out);
    }
    return dbt_fail(b->error, DIBIT_UNSUPPORTED, "attribute '%s' of Constant is not supported",
                    a->name);
}

/* ---- Operators ---- */

/* The node's name, or one made from its first output: never empty. */
static const char *name_of(const builder *b, const scope *s, const dbt_onnx_node *node) {
    const char *own = node->name;
    for (uint32_t i = 0; !own[0] && i < node->n_outputs; i++) own = node->outputs[i];
    return prefixed(b, s, own[0] ? own : node->op_type);
}

static uint32_t without_trailing_absent(const char *const *names, uint32_t n) {
    while (n > 0 && !names[n - 1][0]) n--;
    return n;
}

static dibit_status check_counts(const builder *b, const dbt_op *op, uint32_t n_in,
                                 uint32_t n_out) {
    DBT_FAIL_IF(n_in < op->min_inputs, b->error, DIBIT_BAD_FILE,
                "it has %u inputs, but needs at least %u", (unsigned)n_in,
                (unsigned)op->min_inputs);
    DBT_FAIL_IF(op->max_inputs != DBT_VARIADIC && n_in > op->max_inputs, b->error, DIBIT_BAD_FILE,
                "it has %u inputs, but takes at most %u", (unsigned)n_in, (unsigned)op->max_inputs);
    DBT_FAIL_IF(n_out < op->min_outputs, b->error, DIBIT_BAD_FILE,
                "it has %u outputs, but makes at least %u", (unsigned)n_out,
                (unsigned)op->min_outputs);
    DBT_FAIL_IF(op->max_outputs != DBT_VARIADIC && n_out > op->max_outputs, b->error,
                DIBIT_BAD_FILE, "it has %u outputs, but makes at most %u", (unsigned)n_out,
                (unsigned)op->max_outputs);
    return DIBIT_OK;
}

static dibit_status find_op(const builder *b, const scope *s, const dbt_onnx_node *node,
                            const dbt_op **out, int64_t *opset) {
    DBT_FAIL_IF(!opset_of(s, node->domain, opset), b->error, DIBIT_BAD_FILE,
                "the model imports no opset of domain '%s'",
                node->domain[0] ? node->domain : "ai.onnx");
    const dbt_op *any;
    *out = dbt_op_find(node->domain, node->op_type, *opset, &any);
    if (*out) return DIBIT_OK;
    return any ? dbt_fail(b->error, DIBIT_UNSUPPORTED,
                          "operator %s is not supported in opset %lld of '%s'", node->op_type,
                          (long long)*opset, node->domain[0] ? node->domain : "ai.onnx")
               : dbt_fail(b->error, DIBIT_UNSUPPORTED, "operator %s%s%s is not supported",
                          node->domain, node->domain[0] ? "." : "", node->op_type);
}

static dibit_status build_op(builder *b, const scope *s, const dbt_onnx_node *node,
                             const dbt_onnx_attr *attrs, uint32_t n_attrs) {
    const dbt_op *op;
    int64_t opset = 0;
    DBT_TRY(find_op(b, s, node, &op, &opset));
    const uint32_t n_in = without_trailing_absent(node->inputs, node->n_inputs);
    const uint32_t n_out = without_trailing_absent(node->outputs, node->n_outputs);
    DBT_TRY(check_counts(b, op, n_in, n_out));
    DBT_FAIL_IF(b->graph->n_nodes >= MAX_NODES, b->error, DIBIT_TOO_LARGE,
                "the model has more than %d nodes after inlining", MAX_NODES);
    dbt_node *const n = dbt_graph_add_node(b->graph, n_in, n_out);
    if (!n) return dbt_fail_memory(b->error, "a node", sizeof *n);
    n->name = name_of(b, s, node);
    if (!n->name) return dbt_fail_memory(b->error, "a name", 1);
    n->domain = node->domain;
    n->op_type = node->op_type;
    n->op = op;
    n->opset = (int32_t)opset;
    n->onnx_attrs = attrs;
    n->n_onnx_attrs = n_attrs;
    n->guard = s->guard;
    n->guard_value = s->guard_value;
    for (uint32_t i = 0; i < n_in; i++) {
        DBT_TRY(look_up(b, s, node->inputs[i], &n->inputs[i]));
        /* a name may stand for a function's input that the call leaves out */
        const bool is_required = i < op->min_inputs || op->max_inputs == DBT_VARIADIC;
        DBT_FAIL_IF(is_required && !n->inputs[i], b->error, DIBIT_BAD_FILE, "input %u is required",
                    (unsigned)i);
    }
    DBT_TRY(dbt_attrs_parse(op, attrs, n_attrs, b->arena, &n->attrs, b->error));
    for (uint32_t i = 0; i < n_out; i++) {
        if (!node->outputs[i][0]) continue;
        DBT_TRY(new_value(b, s, node->outputs[i], &n->outputs[i]));
        n->outputs[i]->producer = n;
        DBT_TRY(define(b, s, node->outputs[i], n->outputs[i]));
    }
    DBT_TRY(dbt_node_infer(b->graph, n, b->error));
    bool folded;
    DBT_TRY(dbt_fold_node(b->graph, n, &folded, b->error));
    if (folded) b->graph->n_nodes--; /* it is the last one */
    return DIBIT_OK;
}

static dibit_status build_constant(builder *b, const scope *s, const dbt_onnx_node *node,
                                   const dbt_onnx_attr *attrs, uint32_t n_attrs) {
    DBT_FAIL_IF(node->n_outputs != 1 || !node->outputs[0][0], b->error, DIBIT_BAD_FILE,
                "Constant must have one output");
    dbt_constant *constant;
    DBT_TRY(constant_of_node(b, attrs, n_attrs, &constant));
    dbt_value *value;
    DBT_TRY(new_value(b, s, node->outputs[0], &value));
    DBT_TRY(define(b, s, node->outputs[0], value));
    return dbt_value_set_constant(b->graph, value, constant, b->error);
}

/* ---- Model-local functions ---- */

static const dbt_onnx_function *find_function(const builder *b, const dbt_onnx_node *node) {
    for (uint32_t i = 0; i < b->model->n_functions; i++) {
        const dbt_onnx_function *const f = &b->model->functions[i];
        if (strcmp(f->name, node->op_type) == 0 && strcmp(f->domain, node->domain) == 0 &&
            strcmp(f->overload, node->overload) == 0) {
            return f;
        }
    }
    return NULL;
}

static dibit_status inner_scope(builder *b, const scope *outer, const char *name, scope *inner) {
    DBT_FAIL_IF(outer->depth >= MAX_DEPTH, b->error, DIBIT_UNSUPPORTED,
                "functions or branches are nested more than %d deep (or call themselves)",
                MAX_DEPTH);
    DBT_FAIL_IF(b->n_scopes >= MAX_NODES, b->error, DIBIT_TOO_LARGE,
                "the model has more than %d function calls and branches", MAX_NODES);
    inner->id = ++b->n_scopes;
    inner->depth = outer->depth + 1;
    inner->prefix = dbt_arena_format(b->arena, "%s/", name);
    inner->guard = outer->guard;
    inner->guard_value = outer->guard_value;
    return inner->prefix ? DIBIT_OK : dbt_fail_memory(b->error, "a name", strlen(name));
}

static dibit_status build_call(builder *b, const scope *s, const dbt_onnx_node *node,
                               const dbt_onnx_function *f, const dbt_onnx_attr *attrs,
                               uint32_t n_attrs) {
    DBT_FAIL_IF(node->n_inputs > f->n_inputs || node->n_outputs > f->n_outputs, b->error,
                DIBIT_BAD_FILE, "function %s has %u inputs and %u outputs, the call %u and %u",
                f->name, (unsigned)f->n_inputs, (unsigned)f->n_outputs, (unsigned)node->n_inputs,
                (unsigned)node->n_outputs);
    for (uint32_t i = 0; i < f->n_attr_names; i++) {
        DBT_FAIL_IF(!find_attr(attrs, n_attrs, f->attr_names[i]), b->error, DIBIT_BAD_FILE,
                    "attribute '%s' of function %s is missing", f->attr_names[i], f->name);
    }
    const char *const name = name_of(b, s, node);
    if (!name) return dbt_fail_memory(b->error, "a name", 1);
    scope inner = {.opsets = f->opsets,
                   .n_opsets = f->n_opsets,
                   .function = f,
                   .call_attrs = attrs,
                   .n_call_attrs = n_attrs};
    DBT_TRY(check_opsets(b, f->opsets, f->n_opsets));
    DBT_TRY(inner_scope(b, s, name, &inner));
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        dbt_value *value = NULL;
        if (i < node->n_inputs) DBT_TRY(look_up(b, s, node->inputs[i], &value));
        DBT_TRY(define(b, &inner, f->inputs[i], value));
    }
    DBT_TRY(build_nodes(b, &inner, f->nodes, f->n_nodes));
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        if (!node->outputs[i][0]) continue;
        dbt_value *value;
        DBT_TRY(look_up(b, &inner, f->outputs[i], &value));
        DBT_FAIL_IF(!value, b->error, DIBIT_BAD_FILE, "output '%s' of function %s has no value",
                    f->outputs[i], f->name);
        DBT_TRY(define(b, s, node->outputs[i], value));
    }
    return DIBIT_OK;
}

/* ---- If ---- */

static dibit_status build_branch(builder *b, const scope *s, const dbt_onnx_node *node,
                                 const dbt_onnx_graph *graph, const char *which, dbt_value *guard,
                                 bool guard_value, dbt_value **outputs) {
    DBT_FAIL_IF(graph->n_inputs != 0 || graph->n_outputs != node->n_outputs, b->error,
                DIBIT_BAD_FILE, "its %s has %u inputs and %u outputs instead of 0 and %u", which,
                (unsigned)graph->n_inputs, (unsigned)graph->n_outputs, (unsigned)node->n_outputs);
    const char *const own = name_of(b, s, node);
    const char *const name = own ? dbt_arena_format(b->arena, "%s/%s", own, which) : NULL;
    if (!name) return dbt_fail_memory(b->error, "a name", 1);
    scope inner = *s;
    inner.parent = s;
    DBT_TRY(inner_scope(b, s, name, &inner));
    if (guard) {
        inner.guard = guard;
        inner.guard_value = guard_value;
    }
    for (uint32_t i = 0; i < graph->n_initializers; i++) {
        dbt_value *value;
        dbt_constant *const copy = dbt_arena_alloc(b->arena, sizeof *copy);
        if (!copy) return dbt_fail_memory(b->error, "a constant", sizeof *copy);
        *copy = graph->initializers[i];
        DBT_TRY(new_value(b, &inner, copy->name, &value));
        DBT_TRY(define(b, &inner, copy->name, value));
        DBT_TRY(dbt_value_set_constant(b->graph, value, copy, b->error));
    }
    DBT_TRY(build_nodes(b, &inner, graph->nodes, graph->n_nodes));
    for (uint32_t i = 0; i < graph->n_outputs; i++) {
        DBT_TRY(look_up(b, &inner, graph->outputs[i].name, &outputs[i]));
        DBT_FAIL_IF(!outputs[i], b->error, DIBIT_BAD_FILE, "output '%s' of its %s has no value",
                    graph->outputs[i].name, which);
    }
    return DIBIT_OK;
}

/* A node dibit.Select(condition, a, b) that no file has. */
static dibit_status build_select(builder *b, const scope *s, const dbt_onnx_node *node,
                                 dbt_value *condition, dbt_value *yes, dbt_value *no,
                                 const char *name) {
    const dbt_op *any;
    dbt_node *const n = dbt_graph_add_node(b->graph, 3, 1);
    if (!n) return dbt_fail_memory(b->error, "a node", sizeof *n);
    n->name = name_of(b, s, node);
    if (!n->name) return dbt_fail_memory(b->error, "a name", 1);
    n->domain = "dibit";
    n->op_type = "Select";
    n->op = dbt_op_find("dibit", "Select", 1, &any);
    n->opset = 1;
    n->inputs[0] = condition;
    n->inputs[1] = yes;
    n->inputs[2] = no;
    DBT_TRY(new_value(b, s, name, &n->outputs[0]));
    n->outputs[0]->producer = n;
    DBT_TRY(define(b, s, name, n->outputs[0]));
    return dbt_node_infer(b->graph, n, b->error);
}

static dibit_status build_if(builder *b, const scope *s, const dbt_onnx_node *node,
                             const dbt_onnx_attr *attrs, uint32_t n_attrs) {
    const dbt_onnx_attr *const yes = find_attr(attrs, n_attrs, "then_branch");
    const dbt_onnx_attr *const no = find_attr(attrs, n_attrs, "else_branch");
    DBT_FAIL_IF(!yes || !no || yes->kind != DBT_ONNX_ATTR_GRAPH ||
                    no->kind != DBT_ONNX_ATTR_GRAPH || node->n_inputs != 1,
                b->error, DIBIT_BAD_FILE, "If needs a condition, a then_branch and an else_branch");
    dbt_value *condition;
    DBT_TRY(look_up(b, s, node->inputs[0], &condition));
    DBT_FAIL_IF(!condition || condition->type != DIBIT_TYPE_BOOL, b->error, DIBIT_BAD_FILE,
                "the condition of If must be a bool");
    dbt_value **const values = dbt_arena_array(b->arena, node->n_outputs, 2 * sizeof *values);
    if (!values) return dbt_fail_memory(b->error, "a branch", node->n_outputs * sizeof *values);
    dbt_value **const others = values + node->n_outputs;
    int64_t known;
    if (condition->contents && dbt_dim_is_const(b->graph->dims, condition->contents[0], &known)) {
        DBT_TRY(build_branch(b, s, node, known ? yes->graph : no->graph,
                             known ? "then_branch" : "else_branch", NULL, false, values));
        for (uint32_t i = 0; i < node->n_outputs; i++) {
            if (node->outputs[i][0]) DBT_TRY(define(b, s, node->outputs[i], values[i]));
        }
        return DIBIT_OK;
    }
    DBT_FAIL_IF(s->guard, b->error, DIBIT_UNSUPPORTED,
                "an If inside a branch of an If whose condition is not constant is not supported");
    DBT_TRY(build_branch(b, s, node, yes->graph, "then_branch", condition, true, values));
    DBT_TRY(build_branch(b, s, node, no->graph, "else_branch", condition, false, others));
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        if (!node->outputs[i][0]) continue;
        DBT_TRY(build_select(b, s, node, condition, values[i], others[i], node->outputs[i]));
    }
    return DIBIT_OK;
}

/* ---- Graphs ---- */

static dibit_status build_node(builder *b, const scope *s, const dbt_onnx_node *node) {
    const dbt_onnx_attr *attrs;
    uint32_t n_attrs;
    DBT_TRY(resolve_attrs(b, s, node, &attrs, &n_attrs));
    if (!node->domain[0]) {
        if (strcmp(node->op_type, "Constant") == 0)
            return build_constant(b, s, node, attrs, n_attrs);
        if (strcmp(node->op_type, "If") == 0) return build_if(b, s, node, attrs, n_attrs);
        const bool control =
            strcmp(node->op_type, "Loop") == 0 || strcmp(node->op_type, "Scan") == 0;
        DBT_FAIL_IF(control, b->error, DIBIT_UNSUPPORTED, "control flow by %s is not supported",
                    node->op_type);
    }
    const dbt_op *any;
    dbt_op_find(node->domain, node->op_type, 1, &any);
    const dbt_onnx_function *const f = any ? NULL : find_function(b, node);
    return f ? build_call(b, s, node, f, attrs, n_attrs) : build_op(b, s, node, attrs, n_attrs);
}

static dibit_status build_nodes(builder *b, const scope *s, const dbt_onnx_node *nodes,
                                uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const dibit_status status = build_node(b, s, &nodes[i]);
        if (status == DIBIT_OK) continue;
        if (b->placed) return status;
        b->placed = true; /* the innermost node's name holds the path to it */
        const char *const name = name_of(b, s, &nodes[i]);
        dbt_error_prefix(b->error, "node '%s' (%s)", name ? name : "", nodes[i].op_type);
        return status;
    }
    return DIBIT_OK;
}

static dibit_status build_input(builder *b, const scope *s, const dbt_onnx_value_info *info) {
    DBT_FAIL_IF(!info->is_tensor, b->error, DIBIT_UNSUPPORTED,
                "input '%s' is a %s, only tensors are supported", info->name, info->kind);
    DBT_FAIL_IF(!dbt_type_in(info->type, DBT_TYPES_VALUE), b->error, DIBIT_UNSUPPORTED,
                "input '%s' has type %s, which is not supported", info->name,
                dibit_type_name(info->type));
    DBT_FAIL_IF(info->rank < 0, b->error, DIBIT_UNSUPPORTED, "input '%s' has no shape", info->name);
    dbt_value *value;
    DBT_TRY(new_value(b, s, info->name, &value));
    DBT_TRY(define(b, s, info->name, value));
    value->type = info->type;
    value->is_input = true;
    value->shape.rank = info->rank;
    for (int32_t i = 0; i < info->rank; i++) {
        const dbt_onnx_dim *const d = &info->dims[i];
        if (d->value >= 0) {
            value->shape.dims[i] = dbt_dim_const(b->graph->dims, d->value);
        } else {
            const char *const name = d->param && d->param[0]
                                         ? d->param
                                         : dbt_arena_format(b->arena, "%s.%d", info->name, (int)i);
            value->shape.dims[i] = name ? dbt_dim_symbol(b->graph->dims, name) : DBT_DIM_NONE;
        }
        if (value->shape.dims[i] == DBT_DIM_NONE) return dbt_fail_memory(b->error, "dims", 1);
    }
    b->graph->inputs[b->graph->n_inputs++] = value;
    return DIBIT_OK;
}

static dibit_status build_output(builder *b, const scope *s, const dbt_onnx_value_info *info) {
    dbt_value *value;
    DBT_TRY(look_up(b, s, info->name, &value));
    DBT_FAIL_IF(!value, b->error, DIBIT_BAD_FILE, "output '%s' has no value", info->name);
    DBT_FAIL_IF(info->is_tensor && info->type != DIBIT_TYPE_UNDEFINED && info->type != value->type,
                b->error, DIBIT_BAD_FILE, "output '%s' is declared as %s, but is %s", info->name,
                dibit_type_name(info->type), dibit_type_name(value->type));
    value->is_output = true;
    b->graph->output_names[b->graph->n_outputs] = info->name;
    b->graph->outputs[b->graph->n_outputs++] = value;
    return DIBIT_OK;
}

static dibit_status build_graph(builder *b) {
    const dbt_onnx_graph *const g = b->model->graph;
    b->n_scopes = 1;
    const scope main = {
        .id = 1, .prefix = "", .opsets = b->model->opsets, .n_opsets = b->model->n_opsets};
    DBT_TRY(check_opsets(b, main.opsets, main.n_opsets));
    b->graph->inputs = dbt_arena_array(b->arena, g->n_inputs, sizeof *b->graph->inputs);
    b->graph->outputs = dbt_arena_array(b->arena, g->n_outputs, sizeof *b->graph->outputs);
    b->graph->output_names = dbt_arena_array(b->arena, g->n_outputs, sizeof(const char *));
    if (!b->graph->inputs || !b->graph->outputs || !b->graph->output_names) {
        return dbt_fail_memory(b->error, "the graph", 1);
    }
    for (uint32_t i = 0; i < g->n_initializers; i++) {
        dbt_value *value;
        dbt_constant *const copy = dbt_arena_alloc(b->arena, sizeof *copy);
        if (!copy) return dbt_fail_memory(b->error, "a constant", sizeof *copy);
        *copy = g->initializers[i];
        DBT_TRY(new_value(b, &main, copy->name, &value));
        DBT_TRY(define(b, &main, copy->name, value));
        DBT_TRY(dbt_value_set_constant(b->graph, value, copy, b->error));
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const name_entry *const entry = find_entry(b, main.id, g->inputs[i].name);
        if (entry && entry->scope && entry->value->constant) continue; /* it has a default */
        DBT_TRY(build_input(b, &main, &g->inputs[i]));
    }
    DBT_TRY(build_nodes(b, &main, g->nodes, g->n_nodes));
    for (uint32_t i = 0; i < g->n_outputs; i++) DBT_TRY(build_output(b, &main, &g->outputs[i]));
    DBT_FAIL_IF(g->n_outputs == 0, b->error, DIBIT_BAD_FILE, "the graph has no outputs");
    return DIBIT_OK;
}

dibit_status dbt_graph_build(const dbt_onnx_model *model, dbt_arena *arena, dbt_graph **out,
                             dibit_error *error) {
    dbt_graph *const graph = dbt_arena_alloc(arena, sizeof *graph);
    if (!graph) return dbt_fail_memory(error, "the graph", sizeof *graph);
    graph->arena = arena;
    graph->model = model;
    graph->dims = dbt_dims_create(arena);
    if (!graph->dims) return dbt_fail_memory(error, "the graph", 1);
    builder b = {.graph = graph, .arena = arena, .model = model, .error = error};
    DBT_TRY(build_graph(&b));
    *out = graph;
    return DIBIT_OK;
}

/* ---- Small constants ---- */

static dibit_status load_graph_constants(const dbt_onnx_graph *graph, dbt_arena *arena, int depth,
                                         dibit_error *error);

static dibit_status load_node_constants(const dbt_onnx_node *nodes, uint32_t n, dbt_arena *arena,
                                        int depth, dibit_error *error) {
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t a = 0; a < nodes[i].n_attrs; a++) {
            const dbt_onnx_attr *const attr = &nodes[i].attrs[a];
            if (attr->tensor) {
                /* The reader's own memory: nothing else holds it while a model loads. */
                DBT_TRY(dbt_constant_load((dbt_constant *)(uintptr_t)attr->tensor, arena, error));
            }
            if (attr->graph && depth < MAX_DEPTH) {
                DBT_TRY(load_graph_constants(attr->graph, arena, depth + 1, error));
            }
        }
    }
    return DIBIT_OK;
}

static dibit_status load_graph_constants(const dbt_onnx_graph *graph, dbt_arena *arena, int depth,
                                         dibit_error *error) {
    for (uint32_t i = 0; i < graph->n_initializers; i++) {
        dbt_constant *const c = (dbt_constant *)(uintptr_t)&graph->initializers[i];
        if (c->bytes.bytes < DBT_SMALL_CONSTANT) DBT_TRY(dbt_constant_load(c, arena, error));
    }
    return load_node_constants(graph->nodes, graph->n_nodes, arena, depth, error);
}

dibit_status dbt_load_small_constants(const dbt_onnx_model *model, dbt_arena *arena,
                                      dibit_error *error) {
    for (uint32_t i = 0; i < model->n_functions; i++) {
        const dbt_onnx_function *const f = &model->functions[i];
        DBT_TRY(load_node_constants(f->nodes, f->n_nodes, arena, 0, error));
    }
    return load_graph_constants(model->graph, arena, 0, error);
}

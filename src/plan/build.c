/* Builds the graph: one pass over the nodes in file order, each resolved, checked, inferred and, when
 * its inputs are small constants, folded. */
#include "plan/build.h"

#include <string.h>

#include "ops/attrs.h"
#include "plan/scope.h"

/* ---- Constants ---- */

static dibit_status scalar_constant(const dbt_builder *b, dibit_type type, const void *data,
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

static dibit_status constant_of_node(const dbt_builder *b, const dbt_onnx_attr *attrs, uint32_t n,
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

dibit_status dbt_build_initializers(dbt_builder *b, const dbt_scope *s,
                                    const dbt_onnx_graph *graph) {
    for (uint32_t i = 0; i < graph->n_initializers; i++) {
        dbt_value *value;
        dbt_constant *const copy = dbt_arena_alloc(b->arena, sizeof *copy);
        if (!copy) return dbt_fail_memory(b->error, "a constant", sizeof *copy);
        *copy = graph->initializers[i];
        DBT_TRY(dbt_scope_new_value(b, s, copy->name, &value));
        DBT_TRY(dbt_scope_define(b, s, copy->name, value));
        DBT_TRY(dbt_value_set_constant(b->graph, value, copy, b->error));
    }
    return DIBIT_OK;
}

/* ---- Operators ---- */

static uint32_t without_trailing_absent(const char *const *names, uint32_t n) {
    while (n > 0 && !names[n - 1][0]) n--;
    return n;
}

static dibit_status check_counts(const dbt_builder *b, const dbt_op *op, uint32_t n_in,
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

static dibit_status find_op(const dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                            const dbt_op **out, int64_t *opset) {
    DBT_FAIL_IF(!dbt_opset_of(s, node->domain, opset), b->error, DIBIT_BAD_FILE,
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

static dibit_status build_op(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                             const dbt_onnx_attr *attrs, uint32_t n_attrs) {
    const dbt_op *op;
    int64_t opset = 0;
    DBT_TRY(find_op(b, s, node, &op, &opset));
    const uint32_t n_in = without_trailing_absent(node->inputs, node->n_inputs);
    const uint32_t n_out = without_trailing_absent(node->outputs, node->n_outputs);
    DBT_TRY(check_counts(b, op, n_in, n_out));
    DBT_FAIL_IF(b->graph->n_nodes >= DBT_MAX_NODES, b->error, DIBIT_TOO_LARGE,
                "the model has more than %d nodes after inlining", DBT_MAX_NODES);
    dbt_node *const n = dbt_graph_add_node(b->graph, n_in, n_out);
    if (!n) return dbt_fail_memory(b->error, "a node", sizeof *n);
    n->name = dbt_scope_node_name(b, s, node);
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
        DBT_TRY(dbt_scope_look_up(b, s, node->inputs[i], &n->inputs[i]));
        /* a name may stand for a function's input that the call leaves out */
        const bool is_required = i < op->min_inputs || op->max_inputs == DBT_VARIADIC;
        DBT_FAIL_IF(is_required && !n->inputs[i], b->error, DIBIT_BAD_FILE, "input %u is required",
                    (unsigned)i);
    }
    DBT_TRY(dbt_attrs_parse(op, attrs, n_attrs, b->arena, &n->attrs, b->error));
    for (uint32_t i = 0; i < n_out; i++) {
        if (!node->outputs[i][0]) continue;
        DBT_TRY(dbt_scope_new_value(b, s, node->outputs[i], &n->outputs[i]));
        n->outputs[i]->producer = n;
        DBT_TRY(dbt_scope_define(b, s, node->outputs[i], n->outputs[i]));
    }
    DBT_TRY(dbt_node_infer(b->graph, n, b->error));
    bool folded;
    DBT_TRY(dbt_fold_node(b->graph, n, &folded, b->error));
    if (folded) b->graph->n_nodes--; /* it is the last one */
    return DIBIT_OK;
}

static dibit_status build_constant(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                                   const dbt_onnx_attr *attrs, uint32_t n_attrs) {
    DBT_FAIL_IF(node->n_outputs != 1 || !node->outputs[0][0], b->error, DIBIT_BAD_FILE,
                "Constant must have one output");
    dbt_constant *constant;
    DBT_TRY(constant_of_node(b, attrs, n_attrs, &constant));
    dbt_value *value;
    DBT_TRY(dbt_scope_new_value(b, s, node->outputs[0], &value));
    DBT_TRY(dbt_scope_define(b, s, node->outputs[0], value));
    return dbt_value_set_constant(b->graph, value, constant, b->error);
}

/* ---- Graphs ---- */

static const dbt_onnx_function *find_function(const dbt_builder *b, const dbt_onnx_node *node) {
    for (uint32_t i = 0; i < b->model->n_functions; i++) {
        const dbt_onnx_function *const f = &b->model->functions[i];
        if (strcmp(f->name, node->op_type) == 0 && strcmp(f->domain, node->domain) == 0 &&
            strcmp(f->overload, node->overload) == 0) {
            return f;
        }
    }
    return NULL;
}

static dibit_status build_node(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node) {
    const dbt_onnx_attr *attrs;
    uint32_t n_attrs;
    DBT_TRY(dbt_resolve_attrs(b, s, node, &attrs, &n_attrs));
    if (!node->domain[0]) {
        if (strcmp(node->op_type, "Constant") == 0)
            return build_constant(b, s, node, attrs, n_attrs);
        if (strcmp(node->op_type, "If") == 0) return dbt_build_if(b, s, node, attrs, n_attrs);
        const bool control =
            strcmp(node->op_type, "Loop") == 0 || strcmp(node->op_type, "Scan") == 0;
        DBT_FAIL_IF(control, b->error, DIBIT_UNSUPPORTED, "control flow by %s is not supported",
                    node->op_type);
    }
    const dbt_op *any;
    dbt_op_find(node->domain, node->op_type, 1, &any);
    const dbt_onnx_function *const f = any ? NULL : find_function(b, node);
    return f ? dbt_build_call(b, s, node, f, attrs, n_attrs) : build_op(b, s, node, attrs, n_attrs);
}

dibit_status dbt_build_nodes(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *nodes,
                             uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const dibit_status status = build_node(b, s, &nodes[i]);
        if (status == DIBIT_OK) continue;
        if (b->placed) return status;
        b->placed = true; /* the innermost node's name holds the path to it */
        const char *const name = dbt_scope_node_name(b, s, &nodes[i]);
        dbt_error_prefix(b->error, "node '%s' (%s)", name ? name : "", nodes[i].op_type);
        return status;
    }
    return DIBIT_OK;
}

/* A value of what the model says about it, and of this rank. */
static dibit_status declare(dbt_builder *b, const dbt_scope *s, const dbt_onnx_value_info *info,
                            int32_t rank, dbt_value **out) {
    dbt_value *value;
    DBT_TRY(dbt_scope_new_value(b, s, info->name, &value));
    DBT_TRY(dbt_scope_define(b, s, info->name, value));
    value->type = info->type;
    value->shape.rank = rank;
    for (int32_t i = 0; i < rank; i++) {
        const dbt_onnx_dim none = {.value = -1};
        const dbt_onnx_dim *const d = info->rank < 0 ? &none : &info->dims[i];
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
    *out = value;
    return DIBIT_OK;
}

static dibit_status build_input(dbt_builder *b, const dbt_scope *s,
                                const dbt_onnx_value_info *info) {
    DBT_FAIL_IF(!info->is_tensor, b->error, DIBIT_UNSUPPORTED,
                "input '%s' is a %s, only tensors are supported", info->name, info->kind);
    DBT_FAIL_IF(!dbt_type_in(info->type, DBT_TYPES_VALUE), b->error, DIBIT_UNSUPPORTED,
                "input '%s' has type %s, which is not supported", info->name,
                dibit_type_name(info->type));
    const uint32_t index = b->graph->n_inputs;
    const int32_t rank = info->rank < 0 && b->input_ranks ? b->input_ranks[index] : info->rank;
    DBT_FAIL_IF(rank < -1 || rank > DIBIT_MAX_RANK, b->error, DIBIT_BAD_ARGUMENT,
                "input '%s' cannot have rank %d", info->name, (int)rank);
    if (rank < 0 && !b->graph->shapeless) b->graph->shapeless = info->name;
    dbt_value *value;
    DBT_TRY(declare(b, s, info, rank, &value));
    value->is_input = true;
    b->graph->inputs[b->graph->n_inputs++] = value;
    return DIBIT_OK;
}

static dibit_status build_output(dbt_builder *b, const dbt_scope *s,
                                 const dbt_onnx_value_info *info) {
    dbt_value *value;
    if (b->graph->shapeless) {
        DBT_TRY(declare(b, s, info, info->rank, &value));
    } else {
        DBT_TRY(dbt_scope_look_up(b, s, info->name, &value));
    }
    DBT_FAIL_IF(!value, b->error, DIBIT_BAD_FILE, "output '%s' has no value", info->name);
    DBT_FAIL_IF(info->is_tensor && info->type != DIBIT_TYPE_UNDEFINED && info->type != value->type,
                b->error, DIBIT_BAD_FILE, "output '%s' is declared as %s, but is %s", info->name,
                dibit_type_name(info->type), dibit_type_name(value->type));
    value->is_output = true;
    b->graph->output_names[b->graph->n_outputs] = info->name;
    b->graph->outputs[b->graph->n_outputs++] = value;
    return DIBIT_OK;
}

static dibit_status build_graph(dbt_builder *b) {
    const dbt_onnx_graph *const g = b->model->graph;
    b->n_scopes = 1;
    const dbt_scope main = {
        .id = 1, .prefix = "", .opsets = b->model->opsets, .n_opsets = b->model->n_opsets};
    DBT_TRY(dbt_check_opsets(b, main.opsets, main.n_opsets));
    b->graph->inputs = dbt_arena_array(b->arena, g->n_inputs, sizeof *b->graph->inputs);
    b->graph->outputs = dbt_arena_array(b->arena, g->n_outputs, sizeof *b->graph->outputs);
    b->graph->output_names = dbt_arena_array(b->arena, g->n_outputs, sizeof(const char *));
    if (!b->graph->inputs || !b->graph->outputs || !b->graph->output_names) {
        return dbt_fail_memory(b->error, "the graph", 1);
    }
    DBT_TRY(dbt_build_initializers(b, &main, g));
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        if (dbt_scope_is_constant(b, &main, g->inputs[i].name)) continue; /* it has a default */
        DBT_TRY(build_input(b, &main, &g->inputs[i]));
    }
    if (!b->graph->shapeless) DBT_TRY(dbt_build_nodes(b, &main, g->nodes, g->n_nodes));
    for (uint32_t i = 0; i < g->n_outputs; i++) DBT_TRY(build_output(b, &main, &g->outputs[i]));
    DBT_FAIL_IF(g->n_outputs == 0, b->error, DIBIT_BAD_FILE, "the graph has no outputs");
    return DIBIT_OK;
}

dibit_status dbt_graph_build(const dbt_onnx_model *model, dbt_arena *arena,
                             const int32_t *input_ranks, dbt_graph **out, dibit_error *error) {
    dbt_graph *const graph = dbt_arena_alloc(arena, sizeof *graph);
    if (!graph) return dbt_fail_memory(error, "the graph", sizeof *graph);
    graph->arena = arena;
    graph->model = model;
    graph->dims = dbt_dims_create(arena);
    if (!graph->dims) return dbt_fail_memory(error, "the graph", 1);
    dbt_builder b = {
        .graph = graph, .arena = arena, .model = model, .input_ranks = input_ranks, .error = error};
    DBT_TRY(build_graph(&b));
    *out = graph;
    return DIBIT_OK;
}

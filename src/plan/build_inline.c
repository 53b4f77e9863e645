/* Inlining. A call of a model-local function becomes the function's nodes. A branch of an If that a
 * constant chooses is inlined alone; otherwise both are, their nodes guarded by the condition, and
 * dibit.Select picks. */
#include <string.h>

#include "plan/scope.h"

/* ---- Model-local functions ---- */

static dibit_status inner_scope(dbt_builder *b, const dbt_scope *outer, const char *name,
                                dbt_scope *inner) {
    DBT_FAIL_IF(outer->depth >= DBT_MAX_DEPTH, b->error, DIBIT_UNSUPPORTED,
                "functions or branches are nested more than %d deep (or call themselves)",
                DBT_MAX_DEPTH);
    DBT_FAIL_IF(b->n_scopes >= DBT_MAX_NODES, b->error, DIBIT_TOO_LARGE,
                "the model has more than %d function calls and branches", DBT_MAX_NODES);
    inner->id = ++b->n_scopes;
    inner->depth = outer->depth + 1;
    inner->prefix = dbt_arena_format(b->arena, "%s/", name);
    inner->guard = outer->guard;
    inner->guard_value = outer->guard_value;
    return inner->prefix ? DIBIT_OK : dbt_fail_memory(b->error, "a name", strlen(name));
}

dibit_status dbt_build_call(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                            const dbt_onnx_function *f, const dbt_onnx_attr *attrs,
                            uint32_t n_attrs) {
    DBT_FAIL_IF(node->n_inputs > f->n_inputs || node->n_outputs > f->n_outputs, b->error,
                DIBIT_BAD_FILE, "function %s has %u inputs and %u outputs, the call %u and %u",
                f->name, (unsigned)f->n_inputs, (unsigned)f->n_outputs, (unsigned)node->n_inputs,
                (unsigned)node->n_outputs);
    for (uint32_t i = 0; i < f->n_attr_names; i++) {
        DBT_FAIL_IF(!dbt_find_attr(attrs, n_attrs, f->attr_names[i]), b->error, DIBIT_BAD_FILE,
                    "attribute '%s' of function %s is missing", f->attr_names[i], f->name);
    }
    const char *const name = dbt_scope_node_name(b, s, node);
    if (!name) return dbt_fail_memory(b->error, "a name", 1);
    dbt_scope inner = {.opsets = f->opsets,
                       .n_opsets = f->n_opsets,
                       .function = f,
                       .call_attrs = attrs,
                       .n_call_attrs = n_attrs};
    DBT_TRY(dbt_check_opsets(b, f->opsets, f->n_opsets));
    DBT_TRY(inner_scope(b, s, name, &inner));
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        dbt_value *value = NULL;
        if (i < node->n_inputs) DBT_TRY(dbt_scope_look_up(b, s, node->inputs[i], &value));
        DBT_TRY(dbt_scope_define(b, &inner, f->inputs[i], value));
    }
    DBT_TRY(dbt_build_nodes(b, &inner, f->nodes, f->n_nodes));
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        if (!node->outputs[i][0]) continue;
        dbt_value *value;
        DBT_TRY(dbt_scope_look_up(b, &inner, f->outputs[i], &value));
        DBT_FAIL_IF(!value, b->error, DIBIT_BAD_FILE, "output '%s' of function %s has no value",
                    f->outputs[i], f->name);
        DBT_TRY(dbt_scope_define(b, s, node->outputs[i], value));
    }
    return DIBIT_OK;
}

/* ---- If ---- */

static dibit_status build_branch(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                                 const dbt_onnx_graph *graph, const char *which, dbt_value *guard,
                                 bool guard_value, dbt_value **outputs) {
    DBT_FAIL_IF(graph->n_inputs != 0 || graph->n_outputs != node->n_outputs, b->error,
                DIBIT_BAD_FILE, "its %s has %u inputs and %u outputs instead of 0 and %u", which,
                (unsigned)graph->n_inputs, (unsigned)graph->n_outputs, (unsigned)node->n_outputs);
    const char *const own = dbt_scope_node_name(b, s, node);
    const char *const name = own ? dbt_arena_format(b->arena, "%s/%s", own, which) : NULL;
    if (!name) return dbt_fail_memory(b->error, "a name", 1);
    dbt_scope inner = *s;
    inner.parent = s;
    DBT_TRY(inner_scope(b, s, name, &inner));
    if (guard) {
        inner.guard = guard;
        inner.guard_value = guard_value;
    }
    DBT_TRY(dbt_build_initializers(b, &inner, graph));
    DBT_TRY(dbt_build_nodes(b, &inner, graph->nodes, graph->n_nodes));
    for (uint32_t i = 0; i < graph->n_outputs; i++) {
        DBT_TRY(dbt_scope_look_up(b, &inner, graph->outputs[i].name, &outputs[i]));
        DBT_FAIL_IF(!outputs[i], b->error, DIBIT_BAD_FILE, "output '%s' of its %s has no value",
                    graph->outputs[i].name, which);
    }
    return DIBIT_OK;
}

/* A node dibit.Select(condition, a, b) that no file has. */
static dibit_status build_select(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                                 dbt_value *condition, dbt_value *yes, dbt_value *no,
                                 const char *name) {
    const dbt_op *any;
    dbt_node *const n = dbt_graph_add_node(b->graph, 3, 1);
    if (!n) return dbt_fail_memory(b->error, "a node", sizeof *n);
    n->name = dbt_scope_node_name(b, s, node);
    if (!n->name) return dbt_fail_memory(b->error, "a name", 1);
    n->domain = "dibit";
    n->op_type = "Select";
    n->op = dbt_op_find("dibit", "Select", 1, &any);
    n->opset = 1;
    n->inputs[0] = condition;
    n->inputs[1] = yes;
    n->inputs[2] = no;
    DBT_TRY(dbt_scope_new_value(b, s, name, &n->outputs[0]));
    n->outputs[0]->producer = n;
    DBT_TRY(dbt_scope_define(b, s, name, n->outputs[0]));
    return dbt_node_infer(b->graph, n, b->error);
}

dibit_status dbt_build_if(dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                          const dbt_onnx_attr *attrs, uint32_t n_attrs) {
    const dbt_onnx_attr *const yes = dbt_find_attr(attrs, n_attrs, "then_branch");
    const dbt_onnx_attr *const no = dbt_find_attr(attrs, n_attrs, "else_branch");
    DBT_FAIL_IF(!yes || !no || yes->kind != DBT_ONNX_ATTR_GRAPH ||
                    no->kind != DBT_ONNX_ATTR_GRAPH || node->n_inputs != 1,
                b->error, DIBIT_BAD_FILE, "If needs a condition, a then_branch and an else_branch");
    dbt_value *condition;
    DBT_TRY(dbt_scope_look_up(b, s, node->inputs[0], &condition));
    DBT_FAIL_IF(!condition || condition->type != DIBIT_TYPE_BOOL, b->error, DIBIT_BAD_FILE,
                "the condition of If must be a bool");
    int64_t size;
    for (int32_t i = 0; i < condition->shape.rank; i++) {
        DBT_FAIL_IF(dbt_dim_is_const(b->graph->dims, condition->shape.dims[i], &size) && size != 1,
                    b->error, DIBIT_BAD_FILE, "the condition of If must be one element");
    }
    dbt_value **const values = dbt_arena_array(b->arena, node->n_outputs, 2 * sizeof *values);
    if (!values) return dbt_fail_memory(b->error, "a branch", node->n_outputs * sizeof *values);
    dbt_value **const others = values + node->n_outputs;
    int64_t known;
    if (condition->contents && dbt_dim_is_const(b->graph->dims, condition->contents[0], &known)) {
        DBT_TRY(build_branch(b, s, node, known ? yes->graph : no->graph,
                             known ? "then_branch" : "else_branch", NULL, false, values));
        for (uint32_t i = 0; i < node->n_outputs; i++) {
            if (node->outputs[i][0]) DBT_TRY(dbt_scope_define(b, s, node->outputs[i], values[i]));
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

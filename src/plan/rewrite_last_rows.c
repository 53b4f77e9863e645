/* Lets a session ask for the last rows of an output only: dibit.LastRows goes in front of the nodes
 * that compute the output row by row (final norm, head, softcap), so that they see only those rows.
 *
 * A node can be moved behind the selection when its op is row-wise and all its outputs go to nodes
 * that are moved too, or are the graph output itself. */
#include <string.h>

#include "plan/plan.h"

typedef struct rewrite {
    dbt_graph *graph;
    dibit_error *error;
    dbt_dim rows;         /* S: the dim that becomes last_rows */
    bool *moved;          /* [n_nodes] */
    bool *pinned;         /* [n_values]: used by a node that is not moved, or a graph output */
    dbt_value **selected; /* [n_values]: what LastRows makes of it */
    int64_t *sample;      /* [dims]: values of dims, unresolved where a node has to run first */
} rewrite;

static bool has_rows(const rewrite *r, const dbt_value *value) {
    const int32_t rank = value->shape.rank;
    return !value->constant && rank >= 2 && value->shape.dims[rank - 2] == r->rows;
}

/* How many rows there are must be known when the run begins: the dim may not depend on what nodes
 * find out. */
static dibit_status sample_dims(rewrite *r) {
    const dbt_dims *const dims = r->graph->dims;
    const int32_t n = dbt_dims_count(dims);
    r->sample = dbt_arena_array(r->graph->arena, (uint64_t)n, sizeof *r->sample);
    if (!r->sample) return dbt_fail_memory(r->error, "dims", (uint64_t)n * sizeof *r->sample);
    dbt_dims_reset(dims, r->sample);
    for (int32_t d = 0; d < n; d++) {
        if (dbt_dim_symbol_name(dims, d) && !dbt_dim_is_fresh(dims, d)) r->sample[d] = 64;
    }
    dbt_dims_evaluate(dims, r->sample);
    return DIBIT_OK;
}

static bool is_candidate(const rewrite *r, const dbt_value *value) {
    return dbt_type_is_float(value->type) && value->shape.rank == 3 && value->producer &&
           !value->producer->guard && value->producer->op->n_states == 0 &&
           !dbt_dim_is_const(r->graph->dims, value->shape.dims[1], NULL) &&
           r->sample[value->shape.dims[1]] != DBT_DIM_UNRESOLVED;
}

/* From the last node to the first: a value is pinned as soon as somebody needs all its rows. */
static void find_moved(const rewrite *r) {
    const dbt_graph *const g = r->graph;
    for (uint32_t o = 0; o < g->n_outputs; o++) {
        const dbt_value *const value = g->outputs[o];
        if (!is_candidate(r, value) || !has_rows(r, value)) r->pinned[value->id] = true;
    }
    for (uint32_t n = g->n_nodes; n-- > 0;) {
        const dbt_node *const node = g->nodes[n];
        bool move = node->op->flags & DBT_OP_ROWWISE && !node->guard &&
                    (!node->op->is_rowwise || node->op->is_rowwise(node));
        for (uint32_t o = 0; o < node->n_outputs; o++) {
            const dbt_value *const value = node->outputs[o];
            if (value && (r->pinned[value->id] || !has_rows(r, value))) move = false;
        }
        r->moved[n] = move;
        for (uint32_t i = 0; i < node->n_inputs; i++) {
            if (!move && node->inputs[i]) r->pinned[node->inputs[i]->id] = true;
        }
        if (node->guard) r->pinned[node->guard->id] = true;
    }
}

/* The selected rows of a value; the LastRows node is appended to the graph. */
static dibit_status select_rows(const rewrite *r, dbt_value *value, dbt_value **out) {
    *out = r->selected[value->id];
    if (*out) return DIBIT_OK;
    dbt_graph *const g = r->graph;
    const dbt_op *any;
    dbt_node *const node = dbt_graph_add_node(g, 1, 1);
    if (!node) return dbt_fail_memory(r->error, "a node", sizeof *node);
    node->name = dbt_arena_format(g->arena, "%s/last_rows", value->name);
    node->domain = "dibit";
    node->op_type = "LastRows";
    node->op = dbt_op_find("dibit", "LastRows", 1, &any);
    node->opset = 1;
    node->inputs[0] = value;
    node->outputs[0] = node->name ? dbt_graph_add_value(g, node->name) : NULL;
    if (!node->outputs[0]) return dbt_fail_memory(r->error, "a value", sizeof(dbt_value));
    node->outputs[0]->producer = node;
    DBT_TRY(dbt_node_infer(g, node, r->error));
    *out = r->selected[value->id] = node->outputs[0];
    return DIBIT_OK;
}

/* Inputs of moved nodes that come from nodes that are not. */
static dibit_status redirect(const rewrite *r, uint32_t n_nodes) {
    dbt_graph *const g = r->graph;
    for (uint32_t n = 0; n < n_nodes; n++) {
        dbt_node *const node = g->nodes[n];
        for (uint32_t i = 0; r->moved[n] && i < node->n_inputs; i++) {
            dbt_value *const value = node->inputs[i];
            if (!value || !has_rows(r, value)) continue;
            if (value->producer && value->producer->id < n_nodes && r->moved[value->producer->id]) {
                continue;
            }
            DBT_TRY(select_rows(r, value, &node->inputs[i]));
        }
    }
    for (uint32_t o = 0; o < g->n_outputs; o++) {
        dbt_value *const value = g->outputs[o];
        if (!is_candidate(r, value) || !has_rows(r, value) || r->moved[value->producer->id])
            continue;
        DBT_TRY(select_rows(r, value, &g->outputs[o]));
        g->outputs[o]->is_output = true;
        value->is_output = false;
    }
    return DIBIT_OK;
}

/* Each LastRows node, which was appended, goes right behind the node that makes its input. */
static dibit_status reorder(const rewrite *r, uint32_t n_old) {
    dbt_graph *const g = r->graph;
    dbt_node **const sorted = dbt_arena_array(g->arena, g->n_nodes, sizeof *sorted);
    if (!sorted) return dbt_fail_memory(r->error, "nodes", g->n_nodes * sizeof *sorted);
    uint32_t n = 0;
    for (uint32_t k = n_old; k < g->n_nodes; k++) {
        if (!g->nodes[k]->inputs[0]->producer) sorted[n++] = g->nodes[k];
    }
    for (uint32_t i = 0; i < n_old; i++) {
        const dbt_node *const node = sorted[n++] = g->nodes[i];
        for (uint32_t o = 0; o < node->n_outputs; o++) {
            const dbt_value *const selected =
                node->outputs[o] ? r->selected[node->outputs[o]->id] : NULL;
            if (selected) sorted[n++] = selected->producer;
        }
    }
    memcpy(g->nodes, sorted, g->n_nodes * sizeof *sorted);
    for (uint32_t i = 0; i < g->n_nodes; i++) g->nodes[i]->id = i;
    return DIBIT_OK;
}

dibit_status dbt_rewrite_last_rows(dbt_graph *graph, dbt_dim *last_rows, dbt_dim *all_rows,
                                   dibit_error *error) {
    *last_rows = *all_rows = DBT_DIM_NONE;
    rewrite r = {.graph = graph, .error = error, .rows = DBT_DIM_NONE};
    DBT_TRY(sample_dims(&r));
    for (uint32_t o = 0; o < graph->n_outputs && r.rows == DBT_DIM_NONE; o++) {
        if (is_candidate(&r, graph->outputs[o])) r.rows = graph->outputs[o]->shape.dims[1];
    }
    if (r.rows == DBT_DIM_NONE) return DIBIT_OK;
    const uint32_t n_nodes = graph->n_nodes;
    r.moved = dbt_arena_array(graph->arena, n_nodes, sizeof *r.moved);
    r.pinned = dbt_arena_array(graph->arena, graph->n_values, sizeof *r.pinned);
    r.selected = dbt_arena_array(graph->arena, graph->n_values, sizeof *r.selected);
    dbt_node **const order = dbt_arena_array(graph->arena, n_nodes, sizeof *order);
    if (!r.moved || !r.pinned || !r.selected || !order)
        return dbt_fail_memory(error, "a rewrite", 1);
    memcpy(order, graph->nodes, n_nodes * sizeof *order);
    find_moved(&r);
    DBT_TRY(redirect(&r, n_nodes));
    if (graph->n_nodes == n_nodes) return DIBIT_OK;
    *last_rows = dbt_dim_own(graph->dims, "last_rows");
    *all_rows = r.rows;
    DBT_TRY(reorder(&r, n_nodes));
    for (uint32_t i = 0; i < n_nodes; i++) {
        if (r.moved[i]) DBT_TRY(dbt_node_infer(graph, order[i], error));
    }
    return DIBIT_OK;
}

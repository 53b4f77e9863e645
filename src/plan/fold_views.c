/* A view of a constant (Reshape, Squeeze, ...) is that constant with other dims: no step makes it, and a
 * device finds the same bytes. Models with tied embeddings read the head's weights this way. */
#include "plan/plan.h"

static bool constant_dims(const dbt_dims *dims, const dbt_shape *shape, int64_t *out) {
    for (int32_t i = 0; i < shape->rank; i++) {
        if (!dbt_dim_is_const(dims, shape->dims[i], &out[i])) return false;
    }
    return shape->rank >= 0;
}

dibit_status dbt_fold_views(dbt_graph *graph, dibit_error *error) {
    for (uint32_t n = 0; n < graph->n_nodes; n++) {
        const dbt_node *const node = graph->nodes[n];
        dbt_value *const y = node->n_outputs == 1 ? node->outputs[0] : NULL;
        if (!(node->op->flags & DBT_OP_VIEW) || node->guard || !y || y->constant || y->is_output ||
            !node->inputs[0]->constant) {
            continue;
        }
        const dbt_constant *const x = node->inputs[0]->constant;
        dbt_constant *const view = dbt_arena_alloc(graph->arena, sizeof *view);
        if (!view) return dbt_fail_memory(error, "a constant", sizeof *view);
        *view = *x;
        view->name = y->name;
        view->rank = y->shape.rank;
        int64_t count;
        if (!constant_dims(graph->dims, &y->shape, view->dims) ||
            !dbt_count(view->rank, view->dims, &count) || count != x->count) {
            continue;
        }
        y->constant = view;
    }
    return DIBIT_OK;
}

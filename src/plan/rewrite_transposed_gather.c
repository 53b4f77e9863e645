/* Gather(Transpose(W), ids) of a constant matrix W, as models with tied embeddings have it, becomes
 * Transpose(Gather(W, ids, axis 1)): a run moves the columns that it needs, not the whole matrix. */
#include "ops/index/index.h"
#include "plan/plan.h"

/* The Transpose before a Gather of rows; NULL when it has to stay. */
static dbt_node *find_transpose(const dbt_node *gather, const uint32_t *uses) {
    if (gather->op->infer != dbt_gather_infer || gather->guard) return NULL;
    const dbt_value *const table = gather->inputs[0];
    dbt_node *const transpose = table->producer;
    const int64_t axis = ((const dbt_axis_attrs *)gather->attrs)->axis;
    if (!transpose || transpose->op->infer != dbt_transpose_infer || transpose->guard ||
        table->shape.rank != 2 || uses[table->id] != 1 || (axis != 0 && axis != -2) ||
        gather->inputs[1]->shape.rank < 0 || gather->inputs[1]->shape.rank >= DIBIT_MAX_RANK) {
        return NULL;
    }
    const dbt_transpose_attrs *const a = transpose->attrs;
    if (a->perm.v && a->perm.v[0] == 0) return NULL;
    return transpose->inputs[0]->constant ? transpose : NULL;
}

/* The nodes keep their names; the Transpose, which nobody else waits for, moves behind the Gather. */
static dibit_status swap_nodes(dbt_graph *g, dbt_node *transpose, dbt_node *gather,
                               dibit_error *error) {
    const int32_t rank = gather->inputs[1]->shape.rank;
    dbt_axis_attrs *const gather_attrs = dbt_arena_alloc(g->arena, sizeof *gather_attrs);
    dbt_transpose_attrs *const attrs = dbt_arena_alloc(g->arena, sizeof *attrs);
    int64_t *const perm = dbt_arena_array(g->arena, (uint64_t)rank + 1, sizeof *perm);
    if (!gather_attrs || !attrs || !perm) return dbt_fail_memory(error, "attributes", 0);
    gather_attrs->axis = 1;
    for (int32_t i = 0; i < rank; i++) perm[i] = i + 1;
    perm[rank] = 0;
    attrs->perm = (dbt_attr_ints){perm, (uint32_t)rank + 1};

    dbt_value *const middle = transpose->outputs[0], *const y = gather->outputs[0];
    gather->attrs = gather_attrs;
    gather->inputs[0] = transpose->inputs[0];
    gather->outputs[0] = middle;
    middle->producer = gather;
    transpose->attrs = attrs;
    transpose->inputs[0] = middle;
    transpose->outputs[0] = y;
    y->producer = transpose;
    for (uint32_t n = transpose->id; n < gather->id; n++) {
        g->nodes[n] = g->nodes[n + 1];
    }
    g->nodes[gather->id] = transpose;
    for (uint32_t n = transpose->id, end = gather->id; n <= end; n++) g->nodes[n]->id = n;
    DBT_TRY(dbt_node_infer(g, gather, error));
    return dbt_node_infer(g, transpose, error);
}

dibit_status dbt_rewrite_transposed_gathers(dbt_graph *graph, dibit_error *error) {
    uint32_t *uses;
    DBT_TRY(dbt_graph_count_uses(graph, &uses, error));
    enum { MAX_REWRITES = 16 }; /* a model has one or two; each moves the nodes between */
    for (uint32_t n = 0, done = 0; n < graph->n_nodes && done < MAX_REWRITES; n++) {
        dbt_node *const gather = graph->nodes[n], *const transpose = find_transpose(gather, uses);
        if (!transpose) continue;
        DBT_TRY(swap_nodes(graph, transpose, gather, error));
        done++;
    }
    return DIBIT_OK;
}

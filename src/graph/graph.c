/* Growing a graph: values and nodes. */
#include "graph/graph.h"

#include <string.h>

/* The array with room for one more element, doubled when it is full; NULL: out of memory. */
static void *with_room(dbt_arena *arena, void *array, uint32_t count, uint32_t *capacity) {
    if (count < *capacity) return array;
    const uint32_t more = *capacity ? *capacity * 2 : 64;
    void **const grown = dbt_arena_array(arena, more, sizeof *grown);
    if (!grown) return NULL;
    if (count) memcpy(grown, array, count * sizeof *grown);
    *capacity = more;
    return grown;
}

dbt_value *dbt_graph_add_value(dbt_graph *graph, const char *name) {
    dbt_value *const value = dbt_arena_alloc(graph->arena, sizeof *value);
    dbt_value **const values =
        with_room(graph->arena, graph->values, graph->n_values, &graph->values_capacity);
    if (!value || !values) return NULL;
    value->name = name;
    value->id = graph->n_values;
    value->shape.rank = -1;
    graph->values = values;
    graph->values[graph->n_values++] = value;
    return value;
}

dbt_node *dbt_graph_add_node(dbt_graph *graph, uint32_t n_inputs, uint32_t n_outputs) {
    dbt_node *const node = dbt_arena_alloc(graph->arena, sizeof *node);
    dbt_node **const nodes =
        with_room(graph->arena, graph->nodes, graph->n_nodes, &graph->nodes_capacity);
    if (!node || !nodes) return NULL;
    node->inputs = dbt_arena_array(graph->arena, n_inputs, sizeof *node->inputs);
    node->outputs = dbt_arena_array(graph->arena, n_outputs, sizeof *node->outputs);
    if (!node->inputs || !node->outputs) return NULL;
    node->n_inputs = n_inputs;
    node->n_outputs = n_outputs;
    node->id = graph->n_nodes;
    graph->nodes = nodes;
    graph->nodes[graph->n_nodes++] = node;
    return node;
}

void dbt_node_remove(dbt_node *node) {
    for (uint32_t o = 0; o < node->n_outputs; o++) node->outputs[o] = NULL;
    node->n_inputs = 0;
}

bool dbt_node_is_removed(const dbt_node *node) {
    for (uint32_t o = 0; o < node->n_outputs; o++) {
        if (node->outputs[o]) return false;
    }
    return true;
}

dibit_status dbt_graph_count_uses(const dbt_graph *graph, uint32_t **out, dibit_error *error) {
    uint32_t *const n_uses = dbt_arena_array(graph->arena, graph->n_values, sizeof *n_uses);
    if (!n_uses) return dbt_fail_memory(error, "use counts", graph->n_values * sizeof *n_uses);
    for (uint32_t n = 0; n < graph->n_nodes; n++) {
        const dbt_node *const node = graph->nodes[n];
        for (uint32_t i = 0; i < node->n_inputs; i++) {
            if (node->inputs[i]) n_uses[node->inputs[i]->id]++;
        }
        if (node->guard) n_uses[node->guard->id]++;
    }
    for (uint32_t o = 0; o < graph->n_outputs; o++) n_uses[graph->outputs[o]->id]++;
    *out = n_uses;
    return DIBIT_OK;
}

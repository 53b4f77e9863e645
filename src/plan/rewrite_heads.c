/* GroupQueryAttention takes in the norms of queries and keys, and what takes them apart, on a device:
 *
 *     GQA(Reshape(Norm(Reshape(q))), Reshape(Norm(Reshape(k))), v)  ->  GQA(q, k, v, gains)
 *     GQA(Split(qkv))                                               ->  GQA(qkv)
 *
 * where the norm is an RMS norm of each head. */
#include <string.h>

#include "ops/group_query_attention/group_query_attention.h"
#include "ops/norm/norm.h"
#include "plan/plan.h"

enum { QUERIES, KEYS, VALUES, PARTS };

typedef struct rewrite {
    dbt_graph *graph;
    const dbt_fuse_options *options;
    uint32_t *n_uses;
    dibit_error *error;
} rewrite;

/* The norm between two Reshapes. */
typedef struct head_norm {
    dbt_node *before, *norm, *after;
} head_norm;

static dbt_node *only_maker(const rewrite *r, const dbt_value *value) {
    dbt_node *const node = value ? value->producer : NULL;
    const bool alone = node && !node->guard && r->n_uses[value->id] == 1 && !value->is_output;
    return alone ? node : NULL;
}

static bool last_dim(const rewrite *r, const dbt_value *value, int64_t *n) {
    const int32_t rank = value->shape.rank;
    return rank > 0 && dbt_dim_is_const(r->graph->dims, value->shape.dims[rank - 1], n);
}

static bool find_norm(const rewrite *r, const dbt_value *value, int64_t heads, head_norm *out) {
    int64_t width, dim;
    out->after = only_maker(r, value);
    if (!out->after || !dbt_node_is(out->after, "", "Reshape")) return false;
    out->norm = only_maker(r, out->after->inputs[0]);
    if (!out->norm || out->norm->op->cpu_run != dbt_norm_cpu_run ||
        out->norm->op->kind != DBT_NORM_RMS || out->norm->n_outputs > 1) {
        return false;
    }
    const dbt_value *const x = out->norm->inputs[0], *const gain = out->norm->inputs[1];
    const int64_t axis = ((const dbt_norm_attrs *)out->norm->attrs)->axis;
    out->before = only_maker(r, x);
    return out->before && dbt_node_is(out->before, "", "Reshape") &&
           dbt_values_alike(out->before->inputs[0], value) && last_dim(r, x, &dim) &&
           last_dim(r, value, &width) && width == heads * dim && gain->shape.rank == 1 &&
           gain->constant && gain->constant->count == dim && gain->type == value->type &&
           (axis == -1 || axis == x->shape.rank - 1);
}

static dibit_status take_norms(const rewrite *r, dbt_node *gqa) {
    dbt_arena *const arena = r->graph->arena;
    const dbt_gqa_attrs *const at = gqa->attrs;
    head_norm norms[VALUES];
    if ((gqa->n_inputs > DBT_GQA_Q_NORM && gqa->inputs[DBT_GQA_Q_NORM]) ||
        !find_norm(r, gqa->inputs[QUERIES], at->num_heads, &norms[QUERIES]) ||
        !find_norm(r, gqa->inputs[KEYS], at->kv_num_heads, &norms[KEYS])) {
        return DIBIT_OK;
    }
    const dbt_norm_attrs *const of_q = norms[QUERIES].norm->attrs;
    const dbt_norm_attrs *const of_k = norms[KEYS].norm->attrs;
    if (of_q->epsilon != of_k->epsilon) return DIBIT_OK;
    dbt_gqa_attrs *const attrs = dbt_arena_alloc(arena, sizeof *attrs);
    dbt_value **const inputs = dbt_arena_array(arena, DBT_GQA_INPUTS, sizeof *inputs);
    if (!attrs || !inputs) return dbt_fail_memory(r->error, "a node", sizeof *attrs);
    *attrs = *at;
    attrs->qk_norm_epsilon = of_q->epsilon;
    memcpy(inputs, gqa->inputs, gqa->n_inputs * sizeof *inputs);
    for (int i = 0; i < VALUES; i++) {
        inputs[i] = norms[i].before->inputs[0];
        inputs[DBT_GQA_Q_NORM + i] = norms[i].norm->inputs[1];
        gqa->name = dbt_arena_format(arena, "%s + %s", norms[i].norm->name, gqa->name);
        if (!gqa->name) return dbt_fail_memory(r->error, "a name", 1);
        dbt_node_remove(norms[i].before);
        dbt_node_remove(norms[i].norm);
        dbt_node_remove(norms[i].after);
    }
    gqa->attrs = attrs;
    gqa->inputs = inputs;
    gqa->n_inputs = DBT_GQA_INPUTS;
    return DIBIT_OK;
}

static dibit_status take_split(const rewrite *r, dbt_node *gqa) {
    int64_t all, width, sum = 0;
    dbt_node *const split = only_maker(r, gqa->inputs[QUERIES]);
    if (!split || !dbt_node_is(split, "", "Split") || split->n_outputs != PARTS ||
        split->inputs[0]->shape.rank != 3 || !last_dim(r, split->inputs[0], &all)) {
        return DIBIT_OK;
    }
    for (uint32_t i = 0; i < PARTS; i++) {
        if (only_maker(r, gqa->inputs[i]) != split || split->outputs[i] != gqa->inputs[i] ||
            !last_dim(r, gqa->inputs[i], &width)) {
            return DIBIT_OK;
        }
        sum += width;
    }
    if (sum != all) return DIBIT_OK; /* it splits another axis */
    gqa->name = dbt_arena_format(r->graph->arena, "%s + %s", split->name, gqa->name);
    if (!gqa->name) return dbt_fail_memory(r->error, "a name", 1);
    gqa->inputs[QUERIES] = split->inputs[0];
    gqa->inputs[KEYS] = gqa->inputs[VALUES] = NULL;
    dbt_node_remove(split);
    return DIBIT_OK;
}

dibit_status dbt_rewrite_heads(dbt_graph *graph, const dbt_fuse_options *options,
                               dibit_error *error) {
    rewrite r = {.graph = graph, .options = options, .error = error};
    DBT_TRY(dbt_graph_count_uses(graph, &r.n_uses, error));
    for (uint32_t n = 0; n < graph->n_nodes; n++) {
        dbt_node *const node = graph->nodes[n];
        if (!dbt_node_is(node, "com.microsoft", "GroupQueryAttention") || node->guard ||
            !node->inputs[KEYS] || !node->inputs[VALUES] || !options->takes(options->user, node)) {
            continue;
        }
        DBT_TRY(take_norms(&r, node));
        DBT_TRY(take_split(&r, node));
    }
    return DIBIT_OK;
}

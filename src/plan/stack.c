/* A stack of constants: the weights of several products, row after row in one buffer of the device, for
 * rewrite_fuse.c. Nothing is copied before plan/upload.c writes each part to its place. */
#include "plan/plan.h"

dbt_value *dbt_stack_constants(dbt_graph *graph, const char *name, const dbt_stack_part *parts,
                               uint32_t n) {
    dbt_value *const value = dbt_graph_add_value(graph, name);
    dbt_constant *const c = dbt_arena_alloc(graph->arena, sizeof *c);
    dbt_constant_part *const of = dbt_arena_array(graph->arena, n, sizeof *of);
    if (!value || !c || !of) return NULL;
    for (uint32_t i = 0; i < n; i++) {
        const dbt_constant *const part = parts[i].value->constant;
        const int64_t row = part->count / parts[i].rows;
        of[i] = (dbt_constant_part){.constant = part, .begin = parts[i].first_row * row};
        c->count = of[i].begin + part->count;
    }
    c->name = name;
    c->type = parts[0].value->type;
    c->rank = 1;
    c->dims[0] = c->count;
    c->parts = of;
    c->n_parts = n;
    (void)dbt_packed_bytes(c->type, (uint64_t)c->count, &c->bytes.bytes);
    value->type = c->type;
    value->shape.rank = 1;
    value->shape.dims[0] = dbt_dim_const(graph->dims, c->count);
    value->constant = c;
    return value;
}

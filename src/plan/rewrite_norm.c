/* RMS norms in their parts, as torch's exporters and older ones write them, become SimplifiedLayerNormalization:
 *
 *     Mul(gain, [Cast](x / sqrt(mean(x^2) + epsilon)))
 *
 * with x possibly a Cast; x^2 as Pow or Mul; the quotient as Div by the Sqrt, or as Mul by its Reciprocal, by
 * Div(1, Sqrt), or by Pow(-0.5) of the sum. A Cast back to 16 bits before the gain would round where the norm
 * does not. */
#include <string.h>

#include "ops/norm/norm.h"
#include "ops/reduce/reduce.h"
#include "plan/plan.h"

typedef struct rewrite {
    dbt_graph *graph;
    const dbt_op *norm;
    uint32_t *n_uses;
    dibit_error *error;
    dbt_node *parts[8]; /* of the norm that is looked at */
    uint32_t n_parts;
} rewrite;

/* The op that makes the value, for this reader alone: a part of the norm. NULL: it is another one. */
static const dbt_node *part(rewrite *r, const dbt_value *value, const char *op, uint32_t uses) {
    dbt_node *const node = value ? value->producer : NULL;
    if (!node || node->guard || node->op->domain[0] || strcmp(node->op->name, op) != 0 ||
        value->is_output || r->n_uses[value->id] != uses ||
        r->n_parts == sizeof r->parts / sizeof *r->parts) {
        return NULL;
    }
    r->parts[r->n_parts++] = node;
    return node;
}

/* A constant of one float. */
static bool scalar(const dbt_value *value, float *out) {
    const dbt_constant *const c = value->constant;
    if (!c || c->count != 1 || !c->data || dbt_storage_type(c->type) != DIBIT_TYPE_FLOAT)
        return false;
    dbt_unpack_elements(c->type, c->data, out, 1);
    return true;
}

static bool is_scalar(const dbt_value *value, float wanted) {
    float v;
    return scalar(value, &v) && v == wanted;
}

/* Whether the value is mean(x^2) + epsilon along the last axis. */
static bool is_mean_square(rewrite *r, const dbt_value *value, const dbt_value *x, float *epsilon) {
    const dbt_node *const add = part(r, value, "Add", 1);
    if (!add) return false;
    const bool first = scalar(add->inputs[0], epsilon);
    if (!first && !scalar(add->inputs[1], epsilon)) return false;
    const dbt_node *const mean = part(r, add->inputs[first ? 1 : 0], "ReduceMean", 1);
    if (!mean || dbt_reduce_only_axis(mean) != mean->inputs[0]->shape.rank - 1) return false;
    const dbt_node *node = part(r, mean->inputs[0], "Pow", 1);
    if (node) return node->inputs[0] == x && is_scalar(node->inputs[1], 2.0f);
    node = part(r, mean->inputs[0], "Mul", 1);
    return node && node->inputs[0] == x && node->inputs[1] == x;
}

/* Whether the value is 1 / sqrt(mean(x^2) + epsilon). */
static bool is_inverse_root(rewrite *r, const dbt_value *value, const dbt_value *x,
                            float *epsilon) {
    const dbt_node *node = part(r, value, "Reciprocal", 1);
    const dbt_value *root = node ? node->inputs[0] : NULL;
    if (!root && (node = part(r, value, "Div", 1)) && is_scalar(node->inputs[0], 1.0f)) {
        root = node->inputs[1];
    }
    if (!root && (node = part(r, value, "Pow", 1)) && is_scalar(node->inputs[1], -0.5f)) {
        return is_mean_square(r, node->inputs[0], x, epsilon);
    }
    node = root ? part(r, root, "Sqrt", 1) : NULL;
    return node && is_mean_square(r, node->inputs[0], x, epsilon);
}

/* What is normalised, when the value is that without a gain; else NULL. */
static dbt_value *find_x(rewrite *r, const dbt_value *value, float *epsilon) {
    r->n_parts = 0;
    const dbt_node *const cast = part(r, value, "Cast", 1);
    if (cast) value = cast->inputs[0];
    const dbt_node *node = part(r, value, "Div", 1);
    if (node) {
        const dbt_node *const root = part(r, node->inputs[1], "Sqrt", 1);
        return root && is_mean_square(r, root->inputs[0], node->inputs[0], epsilon)
                   ? node->inputs[0]
                   : NULL;
    }
    node = part(r, value, "Mul", 1);
    const uint32_t n_parts = r->n_parts;
    for (uint32_t i = 0; node && i < 2; i++) {
        r->n_parts = n_parts;
        if (is_inverse_root(r, node->inputs[1 - i], node->inputs[i], epsilon))
            return node->inputs[i];
    }
    return NULL;
}

static bool is_gain(const rewrite *r, const dbt_value *gain, const dbt_value *x) {
    int64_t n;
    const int32_t rank = x->shape.rank;
    return gain->constant && gain->shape.rank == 1 && rank > 0 &&
           dbt_dim_is_const(r->graph->dims, x->shape.dims[rank - 1], &n) &&
           gain->constant->count == n;
}

static dibit_status make_norm(rewrite *r, dbt_node *mul, dbt_value *x, dbt_value *gain,
                              float epsilon) {
    dbt_norm_attrs *const attrs = dbt_arena_alloc(r->graph->arena, sizeof *attrs);
    if (!attrs) return dbt_fail_memory(r->error, "a node", sizeof *attrs);
    *attrs = (dbt_norm_attrs){.axis = -1, .epsilon = epsilon};
    for (uint32_t i = 0; i < r->n_parts; i++) {
        mul->name = dbt_arena_format(r->graph->arena, "%s + %s", r->parts[i]->name, mul->name);
        if (!mul->name) return dbt_fail_memory(r->error, "a name", 1);
        dbt_node_remove(r->parts[i]);
    }
    mul->inputs[0] = x;
    mul->inputs[1] = gain;
    mul->attrs = attrs;
    mul->op = r->norm;
    mul->domain = r->norm->domain;
    mul->op_type = r->norm->name;
    return DIBIT_OK;
}

static dibit_status rewrite_mul(rewrite *r, dbt_node *mul) {
    const dbt_value *const y = mul->outputs[0];
    for (uint32_t i = 0; i < 2; i++) {
        float epsilon = 0;
        dbt_value *const gain = mul->inputs[i];
        dbt_value *x = find_x(r, mul->inputs[1 - i], &epsilon);
        if (!x || !is_gain(r, gain, x)) continue;
        const dbt_node *const cast = x->producer;
        if (x->type != y->type && cast && !cast->guard && strcmp(cast->op->name, "Cast") == 0) {
            x = cast->inputs[0]; /* the norm's sums are float whatever x is */
        }
        if (x->type == y->type && gain->type == y->type) return make_norm(r, mul, x, gain, epsilon);
    }
    return DIBIT_OK;
}

dibit_status dbt_rewrite_norms(dbt_graph *graph, dibit_error *error) {
    const dbt_op *any;
    rewrite r = {.graph = graph,
                 .norm = dbt_op_find("", "SimplifiedLayerNormalization", 1, &any),
                 .error = error};
    DBT_TRY(dbt_graph_count_uses(graph, &r.n_uses, error));
    for (uint32_t n = 0; n < graph->n_nodes; n++) {
        dbt_node *const node = graph->nodes[n];
        if (node->guard || node->n_inputs != 2 || node->op->domain[0] ||
            strcmp(node->op->name, "Mul") != 0) {
            continue;
        }
        DBT_TRY(rewrite_mul(&r, node));
    }
    return DIBIT_OK;
}

/* Fusion: MatMulNBits takes in the RMS norm before it, the residual addition behind it, and the gate of a
 * gated MLP, as dibit.FusedMatMulNBits. Only for nodes that go to a device, where each step costs a
 * dispatch.
 *
 *     Skip*Norm(r, MatMulNBits(x))            ->  s = Fused(x) + r; SimplifiedLayerNormalization(s)
 *     Add(r, MatMulNBits(x))                  ->  Fused(x) + r
 *     Mul(Silu(MatMulNBits(x)), MatMulNBits(x)) ->  Fused(x, both weights)
 *     MatMulNBits(SimplifiedLayerNormalization(x)) ->  Fused(x, gain)
 *
 * A node that took in others stands where the last of them stood, and has all their names. Nodes whose
 * outputs nobody reads any more stay in the graph; the planner drops them. */
#include <string.h>

#include "ops/elementwise/unary.h"
#include "ops/fused_matmul_nbits/fused_matmul_nbits.h"
#include "ops/norm/norm.h"
#include "plan/plan.h"

typedef struct fusion {
    dbt_graph *graph;
    const dbt_op *fused, *norm;
    uint32_t *n_uses; /* [n_values] */
    bool (*takes)(void *user, const dbt_node *node);
    void *user;
    dibit_error *error;
} fusion;

static bool is_op(const dbt_node *node, const char *domain, const char *name) {
    return strcmp(node->op->domain, domain) == 0 && strcmp(node->op->name, name) == 0;
}

static bool is_norm(const dbt_node *node) {
    return node->op->cpu_run == dbt_norm_cpu_run && node->op->kind == DBT_NORM_RMS;
}

static bool same_shape(const dbt_value *a, const dbt_value *b) {
    if (a->type != b->type || a->shape.rank < 0 || a->shape.rank != b->shape.rank) return false;
    for (int32_t i = 0; i < a->shape.rank; i++) {
        if (a->shape.dims[i] != b->shape.dims[i]) return false;
    }
    return true;
}

/* A MatMulNBits that the device takes, and that the fused op can be. */
static bool can_fuse(const fusion *f, const dbt_node *node) {
    if (node->op != f->fused && !is_op(node, "com.microsoft", "MatMulNBits")) return false;
    for (uint32_t i = DBT_NBITS_B; i < node->n_inputs; i++) {
        const dbt_value *const value = node->inputs[i];
        if (value && i == DBT_NBITS_G_IDX) return false;
        if (value && i != DBT_FUSED_RESIDUAL && !value->constant) return false;
    }
    return f->takes(f->user, node);
}

/* Such a node that makes the value for one reader; else NULL. */
static dbt_node *product_of(const fusion *f, const dbt_value *value) {
    dbt_node *const node = value ? value->producer : NULL;
    if (!node || node->guard || f->n_uses[value->id] != 1 || value->is_output) return NULL;
    return can_fuse(f, node) ? node : NULL;
}

static dbt_value *input(const dbt_node *node, uint32_t i) {
    return i < node->n_inputs ? node->inputs[i] : NULL;
}

/* Turns a MatMulNBits into the fused op, if it is not that already. */
static dibit_status make_fused(const fusion *f, dbt_node *node) {
    if (node->op == f->fused) return DIBIT_OK;
    dbt_arena *const arena = f->graph->arena;
    dbt_fused_nbits_attrs *const attrs = dbt_arena_alloc(arena, sizeof *attrs);
    dbt_value **const inputs = dbt_arena_array(arena, DBT_FUSED_INPUTS, sizeof *inputs);
    if (!attrs || !inputs) return dbt_fail_memory(f->error, "a node", sizeof *attrs);
    *attrs = (dbt_fused_nbits_attrs){.nbits = *(const dbt_nbits_attrs *)node->attrs};
    memcpy(inputs, node->inputs, node->n_inputs * sizeof *inputs);
    node->attrs = attrs;
    node->inputs = inputs;
    node->n_inputs = DBT_FUSED_INPUTS;
    node->op = f->fused;
    node->domain = f->fused->domain;
    node->op_type = f->fused->name;
    node->opset = 1;
    return DIBIT_OK;
}

static dibit_status take_name(const fusion *f, dbt_node *node, const dbt_node *from) {
    node->name = dbt_arena_format(f->graph->arena, "%s + %s", node->name, from->name);
    return node->name ? DIBIT_OK : dbt_fail_memory(f->error, "a name", 1);
}

/* The node moves to a later place; what stood between moves up. */
static void move_to(dbt_graph *g, dbt_node *node, uint32_t place) {
    for (uint32_t n = node->id; n < place; n++) {
        g->nodes[n] = g->nodes[n + 1];
        g->nodes[n]->id = n;
    }
    g->nodes[place] = node;
    node->id = place;
}

static void give_output(dbt_node *node, dbt_value *value) {
    node->outputs[0] = value;
    value->producer = node;
}

/* ---- Residual additions ---- */

/* Which of the two is a product that can take in the other. */
static dbt_node *find_addend(const fusion *f, const dbt_node *node, dbt_value **residual) {
    for (uint32_t i = 0; i < 2; i++) {
        dbt_value *const product = node->inputs[i], *const other = node->inputs[1 - i];
        dbt_node *const from = product_of(f, product);
        if (!from || !same_shape(product, other) || other->constant ||
            input(from, DBT_FUSED_RESIDUAL)) {
            continue;
        }
        *residual = other;
        return from;
    }
    return NULL;
}

static dibit_status fuse_add(const fusion *f, dbt_node *add) {
    dbt_value *residual;
    dbt_node *const product = find_addend(f, add, &residual);
    if (!product) return DIBIT_OK;
    DBT_TRY(make_fused(f, product));
    DBT_TRY(take_name(f, product, add));
    product->inputs[DBT_FUSED_RESIDUAL] = residual;
    give_output(product, add->outputs[0]);
    move_to(f->graph, product, add->id);
    add->outputs[0] = NULL;
    return DIBIT_OK;
}

/* The Skip norm becomes a plain one of the sum, which the product makes. */
static dibit_status fuse_skip(fusion *f, dbt_node *skip) {
    enum { GAIN = 2, BIAS = 3, SUM = 3 };
    dbt_graph *const g = f->graph;
    dbt_value *residual;
    dbt_node *const product = find_addend(f, skip, &residual);
    if (!product || input(skip, BIAS) || !f->takes(f->user, skip)) return DIBIT_OK;
    for (uint32_t o = 1; o < skip->n_outputs && o < SUM; o++) {
        if (skip->outputs[o]) return DIBIT_OK;
    }
    dbt_value *const unsummed = product->outputs[0];
    dbt_value *sum = skip->n_outputs > SUM ? skip->outputs[SUM] : NULL;
    dbt_norm_attrs *const attrs = dbt_arena_alloc(g->arena, sizeof *attrs);
    if (!attrs) return dbt_fail_memory(f->error, "a node", sizeof *attrs);
    *attrs = *(const dbt_norm_attrs *)skip->attrs;
    attrs->axis = -1;
    DBT_TRY(make_fused(f, product));
    DBT_TRY(take_name(f, product, skip));
    product->inputs[DBT_FUSED_RESIDUAL] = residual;
    if (sum) {
        give_output(product, sum);
    } else {
        sum = unsummed; /* the value that was the product alone becomes the sum */
    }
    move_to(g, product, skip->id - 1);
    skip->op = f->norm;
    skip->domain = f->norm->domain;
    skip->op_type = f->norm->name;
    skip->attrs = attrs;
    skip->inputs[1] = skip->inputs[GAIN];
    skip->inputs[0] = sum;
    skip->n_inputs = 2;
    skip->n_outputs = 1;
    return DIBIT_OK;
}

/* ---- Gates ---- */

/* The product under gate(h), which `gated` is: Mul(h, Sigmoid(h)) or Gelu(h, tanh). */
static dbt_node *find_gate(const fusion *f, const dbt_value *gated, dbt_fused_gate *gate) {
    const dbt_node *const node = gated->producer;
    if (!node || node->guard || f->n_uses[gated->id] != 1 || gated->is_output) return NULL;
    dbt_value *h = NULL;
    uint32_t uses = 1;
    if (is_op(node, "", "Mul")) {
        for (uint32_t i = 0; i < 2 && !h; i++) {
            const dbt_node *const sigmoid = node->inputs[i]->producer;
            if (sigmoid && is_op(sigmoid, "", "Sigmoid") && !sigmoid->guard &&
                f->n_uses[node->inputs[i]->id] == 1 && sigmoid->inputs[0] == node->inputs[1 - i]) {
                h = node->inputs[1 - i];
            }
        }
        uses = 2;
        *gate = DBT_FUSED_GATE_SILU;
    } else if (is_op(node, "", "Gelu")) {
        h = dbt_unary_actual_kind(node) == DBT_UNARY_FAST_GELU ? node->inputs[0] : NULL;
        *gate = DBT_FUSED_GATE_GELU_TANH;
    }
    if (!h || f->n_uses[h->id] != uses) return NULL;
    f->n_uses[h->id] = 1; /* its readers are all taken in */
    dbt_node *const product = product_of(f, h);
    f->n_uses[h->id] = uses;
    return product;
}

/* Both products read the same x and have weights of the same kind. */
static bool are_alike(const dbt_node *a, const dbt_node *b) {
    if (a->inputs[0] != b->inputs[0] || a == b) return false;
    if (memcmp(a->attrs, b->attrs, sizeof(dbt_nbits_attrs)) != 0) return false;
    for (uint32_t i = DBT_NBITS_B; i < DBT_NBITS_INPUTS; i++) {
        const dbt_value *const x = input(a, i), *const y = input(b, i);
        if (!x != !y || (x && x->type != y->type)) return false;
    }
    return true;
}

static dibit_status fuse_gate(const fusion *f, dbt_node *mul) {
    for (uint32_t i = 0; i < 2; i++) {
        dbt_fused_gate gate = DBT_FUSED_GATE_SILU;
        dbt_node *const first = find_gate(f, mul->inputs[i], &gate);
        dbt_node *const second = product_of(f, mul->inputs[1 - i]);
        if (!first || !second || first->op == f->fused || second->op == f->fused ||
            !are_alike(first, second) || !same_shape(mul->inputs[0], mul->inputs[1])) {
            continue;
        }
        DBT_TRY(make_fused(f, first));
        DBT_TRY(take_name(f, first, second));
        DBT_TRY(take_name(f, first, mul));
        ((dbt_fused_nbits_attrs *)(uintptr_t)first->attrs)->gate = gate;
        first->inputs[DBT_FUSED_B2] = second->inputs[DBT_NBITS_B];
        first->inputs[DBT_FUSED_SCALES2] = second->inputs[DBT_NBITS_SCALES];
        first->inputs[DBT_FUSED_ZERO_POINTS2] = input(second, DBT_NBITS_ZERO_POINTS);
        first->inputs[DBT_FUSED_BIAS2] = input(second, DBT_NBITS_BIAS);
        give_output(first, mul->outputs[0]);
        move_to(f->graph, first, mul->id);
        mul->outputs[0] = NULL;
        return DIBIT_OK;
    }
    return DIBIT_OK;
}

/* ---- Norms ---- */

static bool can_take_norm(const fusion *f, const dbt_node *node, const dbt_value *x) {
    if (node->guard || !can_fuse(f, node) || input(node, DBT_FUSED_GAIN)) return false;
    for (uint32_t i = 1; i < node->n_inputs; i++) {
        if (node->inputs[i] == x) return false;
    }
    return true;
}

/* Every reader of the norm normalizes for itself: a few rows, read once more. */
static dibit_status fuse_norm(const fusion *f, dbt_node *norm) {
    enum { MAX_READERS = 3 };
    dbt_graph *const g = f->graph;
    const dbt_value *const y = norm->outputs[0];
    const dbt_value *const gain = norm->inputs[1];
    const dbt_norm_attrs *const attrs = norm->attrs;
    const int32_t rank = norm->inputs[0]->shape.rank;
    int64_t n;
    if (norm->guard || !y || y->is_output || f->n_uses[y->id] > MAX_READERS ||
        norm->n_outputs > 1 || !gain->constant || gain->shape.rank != 1 || rank < 1 ||
        (attrs->axis != -1 && attrs->axis != rank - 1) ||
        !dbt_dim_is_const(g->dims, norm->inputs[0]->shape.dims[rank - 1], &n) ||
        gain->constant->count != n) {
        return DIBIT_OK;
    }
    dbt_node *readers[MAX_READERS];
    uint32_t n_readers = 0;
    for (uint32_t i = norm->id + 1; i < g->n_nodes && n_readers < f->n_uses[y->id]; i++) {
        if (g->nodes[i]->n_inputs && g->nodes[i]->inputs[0] == y) {
            if (!can_take_norm(f, g->nodes[i], y)) return DIBIT_OK;
            readers[n_readers++] = g->nodes[i];
        }
    }
    if (n_readers == 0 || n_readers != f->n_uses[y->id]) return DIBIT_OK;
    for (uint32_t i = 0; i < n_readers; i++) {
        DBT_TRY(make_fused(f, readers[i]));
        readers[i]->inputs[0] = norm->inputs[0];
        readers[i]->inputs[DBT_FUSED_GAIN] = norm->inputs[1];
        ((dbt_fused_nbits_attrs *)(uintptr_t)readers[i]->attrs)->epsilon = attrs->epsilon;
        readers[i]->name = dbt_arena_format(g->arena, "%s + %s", norm->name, readers[i]->name);
        if (!readers[i]->name) return dbt_fail_memory(f->error, "a name", 1);
    }
    norm->outputs[0] = NULL;
    return DIBIT_OK;
}

/* ---- All of it ---- */

dibit_status dbt_rewrite_fuse(dbt_graph *graph, const dbt_fuse_options *options,
                              dibit_error *error) {
    const dbt_op *any;
    fusion f = {.graph = graph,
                .fused = dbt_op_find("dibit", "FusedMatMulNBits", 1, &any),
                .norm = dbt_op_find("", "SimplifiedLayerNormalization", 1, &any),
                .n_uses = dbt_arena_array(graph->arena, graph->n_values, sizeof *f.n_uses),
                .takes = options->takes,
                .user = options->user,
                .error = error};
    if (!f.n_uses) return dbt_fail_memory(error, "use counts", graph->n_values * sizeof *f.n_uses);
    for (int pass = 0; pass < 3; pass++) {
        dbt_graph_count_uses(graph, f.n_uses);
        for (uint32_t n = 0; n < graph->n_nodes; n++) {
            dbt_node *const node = graph->nodes[n];
            if (node->guard || node->n_outputs == 0 || !node->outputs[0]) continue;
            if (pass == 0 && is_op(node, "com.microsoft", "SkipSimplifiedLayerNormalization")) {
                DBT_TRY(fuse_skip(&f, node));
            } else if (pass == 0 && is_op(node, "", "Add")) {
                DBT_TRY(fuse_add(&f, node));
            } else if (pass == 1 && is_op(node, "", "Mul")) {
                DBT_TRY(fuse_gate(&f, node));
            } else if (pass == 2 && is_norm(node)) {
                DBT_TRY(fuse_norm(&f, node));
            }
        }
    }
    return DIBIT_OK;
}

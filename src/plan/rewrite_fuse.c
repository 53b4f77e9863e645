/* Fusion: MatMulNBits takes in the RMS norm before it, the residual addition behind it, and the gate of a
 * gated MLP, as dibit.FusedMatMulNBits; those of queries, keys and values become one. For nodes that
 * go to a device, where each step costs a dispatch.
 *
 *     Skip*Norm(r, MatMulNBits(x))            ->  s = Fused(x) + r; SimplifiedLayerNormalization(s)
 *     Add(r, MatMulNBits(x))                  ->  Fused(x) + r
 *     Add(MatMulNBits(x), constant)           ->  MatMulNBits(x, bias)
 *     Mul(Silu(MatMulNBits(x)), MatMulNBits(x)) ->  Fused(x, both weights in a stack)
 *     GroupQueryAttention(MatMulNBits(x), MatMulNBits(x), MatMulNBits(x))
 *                                             ->  GroupQueryAttention(MatMulNBits(x, a stack))
 *     MatMulNBits(SimplifiedLayerNormalization(x)) ->  Fused(x, gain)
 *
 * On the CPU gates alone, whose products' weights are inputs of their own in place of a stack.
 *
 * A node that took in others stands where the last of them stood, and has all their names. Values inside a
 * fused step are gone: nodes that made nothing else stay in the graph without outputs. */
#include <string.h>

#include "ops/elementwise/unary.h"
#include "ops/fused_matmul_nbits/fused_matmul_nbits.h"
#include "ops/norm/norm.h"
#include "plan/plan.h"

typedef struct fusion {
    dbt_graph *graph;
    const dbt_op *fused, *norm;
    uint32_t *n_uses; /* [n_counted], of values that there were when the pass began */
    uint32_t n_counted;
    const dbt_fuse_options *options;
    dibit_error *error;
} fusion;

/* Steps cost little there, and weights are read where the file has them: only gates are worth a fusion. */
static bool on_cpu(const fusion *f) { return !f->options->takes; }

bool dbt_node_is(const dbt_node *node, const char *domain, const char *name) {
    return strcmp(node->op->domain, domain) == 0 && strcmp(node->op->name, name) == 0;
}

static bool is_norm(const dbt_node *node) {
    return node->op->cpu_run == dbt_norm_cpu_run && node->op->kind == DBT_NORM_RMS;
}

bool dbt_values_alike(const dbt_value *a, const dbt_value *b) {
    if (a->type != b->type || a->shape.rank < 0 || a->shape.rank != b->shape.rank) return false;
    for (int32_t i = 0; i < a->shape.rank; i++) {
        if (a->shape.dims[i] != b->shape.dims[i]) return false;
    }
    return true;
}

/* A MatMulNBits that the device takes, and that the fused op can be. */
static bool can_fuse(const fusion *f, const dbt_node *node) {
    if (node->op != f->fused && !dbt_node_is(node, "com.microsoft", "MatMulNBits")) return false;
    for (uint32_t i = DBT_NBITS_B; i < node->n_inputs; i++) {
        const dbt_value *const value = node->inputs[i];
        if (value && i == DBT_NBITS_G_IDX) return false;
        if (value && i != DBT_FUSED_RESIDUAL && !value->constant) return false;
    }
    return on_cpu(f) || f->options->takes(f->options->user, node);
}

/* Such a node that makes the value for one reader; else NULL. */
static dbt_node *product_of(const fusion *f, const dbt_value *value) {
    dbt_node *const node = value ? value->producer : NULL;
    if (!node || node->guard || value->id >= f->n_counted || f->n_uses[value->id] != 1 ||
        value->is_output) {
        return NULL;
    }
    return can_fuse(f, node) ? node : NULL;
}

static dbt_value *input(const dbt_node *node, uint32_t i) {
    return i < node->n_inputs ? node->inputs[i] : NULL;
}

/* The node gets so many inputs, the new ones absent. */
static dibit_status make_room(const fusion *f, dbt_node *node, uint32_t n) {
    if (node->n_inputs >= n) return DIBIT_OK;
    dbt_value **const inputs = dbt_arena_array(f->graph->arena, n, sizeof *inputs);
    if (!inputs) return dbt_fail_memory(f->error, "a node", n * sizeof *inputs);
    memcpy(inputs, node->inputs, node->n_inputs * sizeof *inputs);
    node->inputs = inputs;
    node->n_inputs = n;
    return DIBIT_OK;
}

/* Turns a MatMulNBits into the fused op, if it is not that already. */
static dibit_status make_fused(const fusion *f, dbt_node *node) {
    if (node->op == f->fused) return DIBIT_OK;
    dbt_arena *const arena = f->graph->arena;
    dbt_fused_nbits_attrs *const attrs = dbt_arena_alloc(arena, sizeof *attrs);
    DBT_TRY(make_room(f, node, DBT_FUSED_INPUTS));
    if (!attrs) return dbt_fail_memory(f->error, "a node", sizeof *attrs);
    *attrs = (dbt_fused_nbits_attrs){.nbits = *(const dbt_nbits_attrs *)node->attrs};
    node->attrs = attrs;
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

/* A value of that type and shape, which is called after a node. */
static dibit_status new_value_like(const fusion *f, const dbt_value *like, const char *node,
                                   dbt_value **out) {
    const char *const name = dbt_arena_format(f->graph->arena, "%s, fused", node);
    dbt_value *const value = name ? dbt_graph_add_value(f->graph, name) : NULL;
    if (!value) return dbt_fail_memory(f->error, "a value", sizeof *value);
    value->type = like->type;
    value->shape = like->shape;
    *out = value;
    return DIBIT_OK;
}

/* ---- Stacks of weights ---- */

static int64_t rows_of(const dbt_node *product) {
    return ((const dbt_nbits_attrs *)product->attrs)->N;
}

/* Products of the same x with weights of the same kind, which nobody else reads. */
static bool are_alike(const fusion *f, const dbt_node *a, const dbt_node *b) {
    dbt_nbits_attrs of_a = *(const dbt_nbits_attrs *)a->attrs;
    const dbt_nbits_attrs *const of_b = b->attrs;
    of_a.N = of_b->N;
    if (a == b || a->op == f->fused || b->op == f->fused || a->inputs[0] != b->inputs[0] ||
        memcmp(&of_a, of_b, sizeof of_a) != 0 || f->n_uses[b->inputs[DBT_NBITS_B]->id] != 1 ||
        f->n_uses[a->inputs[DBT_NBITS_B]->id] != 1) {
        return false;
    }
    for (uint32_t i = DBT_NBITS_B; i < DBT_NBITS_INPUTS; i++) {
        const dbt_value *const x = input(a, i), *const y = input(b, i);
        if (!x != !y || (x && x->type != y->type)) return false;
    }
    return true;
}

/* Whether the device can hold the stack, and write each part to its place. */
static bool can_stack(const fusion *f, dbt_node *const *products, const int64_t *first_rows,
                      uint32_t n) {
    for (uint32_t k = 0; k < n; k++) {
        for (uint32_t i = DBT_NBITS_B; i <= DBT_NBITS_ZERO_POINTS; i++) {
            const dbt_value *const value = input(products[k], i);
            if (!value) continue;
            const uint64_t bytes = value->constant->bytes.bytes;
            const uint64_t row = bytes / (uint64_t)rows_of(products[k]);
            const uint64_t begin = row * (uint64_t)first_rows[k];
            if (begin % DBT_HAL_ALIGNMENT != 0 || begin > f->options->max_buffer_bytes - bytes ||
                bytes > f->options->max_buffer_bytes) {
                return false;
            }
        }
    }
    return true;
}

/* The weights of all of them in the first one's place. */
static dibit_status stack(const fusion *f, dbt_node *const *products, const int64_t *first_rows,
                          uint32_t n) {
    enum { MOST = 3 };
    for (uint32_t i = DBT_NBITS_B; i < products[0]->n_inputs && i <= DBT_NBITS_BIAS; i++) {
        if (!products[0]->inputs[i]) continue;
        dbt_stack_part parts[MOST];
        const char *name = "";
        for (uint32_t k = 0; name && k < n; k++) {
            dbt_value *const value = products[k]->inputs[i];
            parts[k] = (dbt_stack_part){value, rows_of(products[k]), first_rows[k]};
            name = dbt_arena_format(f->graph->arena, "%s%s%s", name, k ? " + " : "", value->name);
        }
        dbt_value *const value = name ? dbt_stack_constants(f->graph, name, parts, n) : NULL;
        if (!value) return dbt_fail_memory(f->error, "a stack of weights", sizeof *value);
        products[0]->inputs[i] = value;
    }
    return DIBIT_OK;
}

/* ---- Queries, keys and values ---- */

/* Their projections become one, whose rows the attention reads as packed. */
static dibit_status fuse_qkv(const fusion *f, dbt_node *attention) {
    enum { PARTS = 3 };
    dbt_node *products[PARTS];
    int64_t first_rows[PARTS], rows = 0;
    for (uint32_t i = 0; i < PARTS; i++) {
        products[i] = product_of(f, input(attention, i));
        if (!products[i]) return DIBIT_OK;
        first_rows[i] = rows;
        rows += rows_of(products[i]);
    }
    if (!are_alike(f, products[0], products[1]) || !are_alike(f, products[0], products[2]) ||
        products[1] == products[2] || rows > INT32_MAX ||
        !can_stack(f, products, first_rows, PARTS)) {
        return DIBIT_OK;
    }
    dbt_node *const packed = products[0];
    dbt_nbits_attrs *const attrs = dbt_arena_alloc(f->graph->arena, sizeof *attrs);
    dbt_value *y = NULL;
    if (!attrs) return dbt_fail_memory(f->error, "a node", sizeof *attrs);
    DBT_TRY(new_value_like(f, packed->outputs[0], attention->name, &y));
    DBT_TRY(stack(f, products, first_rows, PARTS));
    *attrs = *(const dbt_nbits_attrs *)packed->attrs;
    attrs->N = rows;
    packed->attrs = attrs;
    y->shape.dims[y->shape.rank - 1] = dbt_dim_const(f->graph->dims, rows);
    DBT_TRY(take_name(f, packed, products[1]));
    DBT_TRY(take_name(f, packed, products[2]));
    give_output(packed, y);
    attention->inputs[0] = y;
    attention->inputs[1] = attention->inputs[2] = NULL;
    return DIBIT_OK;
}

/* ---- Residual additions ---- */

/* Which of the two is a product that can take in the other. */
static dbt_node *find_addend(const fusion *f, const dbt_node *node, dbt_value **residual) {
    for (uint32_t i = 0; i < 2; i++) {
        dbt_value *const product = node->inputs[i], *const other = node->inputs[1 - i];
        dbt_node *const from = product_of(f, product);
        if (!from || !dbt_values_alike(product, other) || other->constant ||
            input(from, DBT_FUSED_RESIDUAL)) {
            continue;
        }
        *residual = other;
        return from;
    }
    return NULL;
}

/* A constant that is added to each row of a product is its bias. */
static dibit_status fuse_bias(const fusion *f, dbt_node *add) {
    for (uint32_t i = 0; i < 2; i++) {
        dbt_node *const product = product_of(f, add->inputs[i]);
        dbt_value *const bias = add->inputs[1 - i];
        if (!product || !bias->constant || bias->shape.rank != 1 ||
            bias->type != add->inputs[i]->type || input(product, DBT_NBITS_BIAS) ||
            bias->constant->count != rows_of(product) ||
            !dbt_values_alike(add->inputs[i], add->outputs[0])) {
            continue;
        }
        DBT_TRY(make_room(f, product, DBT_NBITS_INPUTS));
        DBT_TRY(take_name(f, product, add));
        product->inputs[DBT_NBITS_BIAS] = bias;
        give_output(product, add->outputs[0]);
        dbt_node_remove(add);
        return DIBIT_OK;
    }
    return DIBIT_OK;
}

static dibit_status fuse_add(const fusion *f, dbt_node *add) {
    dbt_value *residual;
    dbt_node *const product = find_addend(f, add, &residual);
    if (!product) return fuse_bias(f, add);
    DBT_TRY(make_fused(f, product));
    DBT_TRY(take_name(f, product, add));
    product->inputs[DBT_FUSED_RESIDUAL] = residual;
    give_output(product, add->outputs[0]);
    move_to(f->graph, product, add->id);
    dbt_node_remove(add);
    return DIBIT_OK;
}

/* The Skip norm becomes a plain one of the sum, which the product makes. */
static dibit_status fuse_skip(fusion *f, dbt_node *skip) {
    enum { GAIN = 2, BIAS = 3, SUM = 3 };
    dbt_graph *const g = f->graph;
    dbt_value *residual;
    dbt_node *const product = find_addend(f, skip, &residual);
    if (!product || input(skip, BIAS) || !f->options->takes(f->options->user, skip))
        return DIBIT_OK;
    for (uint32_t o = 1; o < skip->n_outputs && o < SUM; o++) {
        if (skip->outputs[o]) return DIBIT_OK;
    }
    dbt_value *sum = skip->n_outputs > SUM ? skip->outputs[SUM] : NULL;
    if (!sum) DBT_TRY(new_value_like(f, product->outputs[0], skip->name, &sum));
    dbt_norm_attrs *const attrs = dbt_arena_alloc(g->arena, sizeof *attrs);
    if (!attrs) return dbt_fail_memory(f->error, "a node", sizeof *attrs);
    *attrs = *(const dbt_norm_attrs *)skip->attrs;
    attrs->axis = -1;
    DBT_TRY(make_fused(f, product));
    DBT_TRY(take_name(f, product, skip));
    product->inputs[DBT_FUSED_RESIDUAL] = residual;
    give_output(product, sum);
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
    if (dbt_node_is(node, "", "Mul")) {
        for (uint32_t i = 0; i < 2 && !h; i++) {
            const dbt_node *const sigmoid = node->inputs[i]->producer;
            if (sigmoid && dbt_node_is(sigmoid, "", "Sigmoid") && !sigmoid->guard &&
                f->n_uses[node->inputs[i]->id] == 1 && sigmoid->inputs[0] == node->inputs[1 - i]) {
                h = node->inputs[1 - i];
            }
        }
        uses = 2;
        *gate = DBT_FUSED_GATE_SILU;
    } else if (dbt_node_is(node, "", "Gelu")) {
        h = dbt_unary_actual_kind(node) == DBT_UNARY_FAST_GELU ? node->inputs[0] : NULL;
        *gate = DBT_FUSED_GATE_GELU_TANH;
    }
    if (!h || f->n_uses[h->id] != uses) return NULL;
    f->n_uses[h->id] = 1; /* its readers are all taken in */
    dbt_node *const product = product_of(f, h);
    f->n_uses[h->id] = uses;
    return product;
}

/* The second product's weights stay where they are. */
static void take_matrix(dbt_node *first, const dbt_node *second) {
    for (uint32_t i = DBT_NBITS_B; i <= DBT_NBITS_BIAS; i++) {
        first->inputs[dbt_fused_second(i)] = input(second, i);
    }
}

static dibit_status fuse_gate(const fusion *f, dbt_node *mul) {
    for (uint32_t i = 0; i < 2; i++) {
        dbt_fused_gate gate = DBT_FUSED_GATE_NONE;
        dbt_node *const first = find_gate(f, mul->inputs[i], &gate);
        dbt_node *const second = product_of(f, mul->inputs[1 - i]);
        if (!first || !second || !are_alike(f, first, second) ||
            !dbt_values_alike(mul->inputs[0], mul->inputs[1])) {
            continue;
        }
        dbt_node *const products[] = {first, second};
        const int64_t first_rows[] = {0, dbt_fused_second_row(rows_of(first))};
        if (!on_cpu(f) && !can_stack(f, products, first_rows, 2)) continue;
        DBT_TRY(make_fused(f, first));
        DBT_TRY(take_name(f, first, second));
        DBT_TRY(take_name(f, first, mul));
        ((dbt_fused_nbits_attrs *)(uintptr_t)first->attrs)->gate = gate;
        if (on_cpu(f)) {
            take_matrix(first, second);
        } else {
            DBT_TRY(stack(f, products, first_rows, 2));
        }
        give_output(first, mul->outputs[0]);
        move_to(f->graph, first, mul->id);
        dbt_node_remove(mul);
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
    dbt_node_remove(norm);
    return DIBIT_OK;
}

/* ---- All of it ---- */

/* Nodes go all of whose outputs had readers before and have none now. */
static void remove_unread(const fusion *f, uint32_t n_before, const uint32_t *before) {
    for (uint32_t n = f->graph->n_nodes; n-- > 0;) {
        dbt_node *const node = f->graph->nodes[n];
        bool unread = true;
        for (uint32_t o = 0; o < node->n_outputs; o++) {
            const dbt_value *const y = node->outputs[o];
            if (y && (y->id >= n_before || before[y->id] == 0 || f->n_uses[y->id] != 0)) {
                unread = false;
            }
        }
        if (!unread) continue;
        for (uint32_t i = 0; i < node->n_inputs; i++) {
            if (node->inputs[i]) f->n_uses[node->inputs[i]->id]--;
        }
        dbt_node_remove(node);
    }
}

static dibit_status count_uses(fusion *f) {
    f->n_counted = f->graph->n_values;
    return dbt_graph_count_uses(f->graph, &f->n_uses, f->error);
}

static dibit_status fuse_node(fusion *f, int pass, dbt_node *node) {
    if (on_cpu(f)) {
        return pass == 1 && dbt_node_is(node, "", "Mul") ? fuse_gate(f, node) : DIBIT_OK;
    }
    switch (pass) {
    case 0:
        if (dbt_node_is(node, "com.microsoft", "SkipSimplifiedLayerNormalization")) {
            return fuse_skip(f, node);
        }
        return dbt_node_is(node, "", "Add") ? fuse_add(f, node) : DIBIT_OK;
    case 1:
        if (dbt_node_is(node, "com.microsoft", "GroupQueryAttention")) return fuse_qkv(f, node);
        return dbt_node_is(node, "", "Mul") ? fuse_gate(f, node) : DIBIT_OK;
    default: return is_norm(node) ? fuse_norm(f, node) : DIBIT_OK;
    }
}

dibit_status dbt_rewrite_fuse(dbt_graph *graph, const dbt_fuse_options *options,
                              dibit_error *error) {
    const dbt_op *any;
    fusion f = {.graph = graph,
                .fused = dbt_op_find("dibit", "FusedMatMulNBits", 1, &any),
                .norm = dbt_op_find("", "SimplifiedLayerNormalization", 1, &any),
                .options = options,
                .error = error};
    DBT_TRY(count_uses(&f));
    const uint32_t *const before = f.n_uses;
    const uint32_t n_before = graph->n_values;
    for (int pass = 0; pass < 3; pass++) {
        DBT_TRY(count_uses(&f));
        for (uint32_t n = 0; n < graph->n_nodes; n++) {
            dbt_node *const node = graph->nodes[n];
            if (node->guard || dbt_node_is_removed(node) || !node->outputs[0]) continue;
            DBT_TRY(fuse_node(&f, pass, node));
        }
    }
    DBT_TRY(count_uses(&f));
    remove_unread(&f, n_before, before);
    return DIBIT_OK;
}

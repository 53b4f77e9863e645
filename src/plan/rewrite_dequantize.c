/* Weights that a DequantizeLinear makes for one MatMul or Gemm become MatMulNBits's: codes are read as they are,
 * 1/8 to 1/2 of the floats.
 *
 *     MatMul(A, DequantizeLinear(W [K, N], axis 0))              ->  MatMulNBits(A, W)
 *     MatMul(A, Transpose(DequantizeLinear(W [N, K], axis 1)))   ->  MatMulNBits(A, W)
 *     Gemm(A, DequantizeLinear(W), C)                            ->  MatMulNBits(A, W, bias C)
 *
 * W has 2, 4 or 8 bits, and blocks of a power of two from 16 on along K. Signed codes and zero points both gain
 * 2^(bits-1), so that their differences stay; all else stays as it is. Codes get their new layout when
 * they are loaded (matrix.c), except for those that have it in the file. */
#include <string.h>

#include "ops/index/index.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul_nbits/nbits_op.h"
#include "ops/quantize/quantize.h"
#include "plan/plan.h"

enum { W, SCALE, ZERO_POINT };

typedef struct rewrite {
    dbt_graph *graph;
    const dbt_op *nbits;
    uint32_t *n_uses, n_counted;
    dibit_error *error;
} rewrite;

/* The weights of a product. */
typedef struct weights {
    dbt_node *dequantize, *transpose; /* transpose may be NULL */
    int64_t K, N, k_blocks, block_size, bits;
    bool rows_are_n; /* W is [N, K] */
} weights;

bool dbt_dequantizes_weights(const dbt_node *node) {
    return strcmp(node->op->name, "DequantizeLinear") == 0 &&
           ((const dbt_quantize_attrs *)node->attrs)->block_size > 0 &&
           node->inputs[W]->shape.rank == 2;
}

static dbt_node *only_reader_of(const rewrite *r, const dbt_value *value) {
    dbt_node *const node = value->producer;
    const bool alone = value->id < r->n_counted && r->n_uses[value->id] == 1 && !value->is_output;
    return node && alone && !node->guard ? node : NULL;
}

static bool is_swap(const dbt_node *node) {
    if (node->op->infer != dbt_transpose_infer || node->inputs[0]->shape.rank != 2) return false;
    const dbt_transpose_attrs *const a = node->attrs;
    return !a->perm.v || (a->perm.n == 2 && a->perm.v[0] == 1);
}

static bool takes_blocks(const dbt_node *node, weights *w) {
    const dbt_quantize_attrs *const at = node->attrs;
    const dbt_value *const scale = node->inputs[SCALE];
    const dbt_value *const zero_point = node->n_inputs > ZERO_POINT ? node->inputs[2] : NULL;
    const dbt_constant *const c = node->inputs[W]->constant;
    if (!c || !scale->constant || (zero_point && !zero_point->constant)) return false;
    const int64_t k_axis = w->rows_are_n ? 1 : 0, axis = at->axis < 0 ? at->axis + 2 : at->axis;
    w->bits = dibit_type_bits(c->type);
    w->K = c->dims[k_axis];
    w->N = c->dims[1 - k_axis];
    w->block_size = at->block_size;
    w->k_blocks = (w->K + w->block_size - 1) / w->block_size;
    return axis == k_axis && w->K > 0 && w->N > 0 &&
           (w->bits == 2 || w->bits == 4 || w->bits == 8) && w->block_size >= 16 &&
           (w->block_size & (w->block_size - 1)) == 0 &&
           scale->constant->count == w->N * w->k_blocks &&
           (!zero_point || zero_point->constant->count == scale->constant->count) &&
           node->outputs[0]->type == scale->type;
}

static bool find_weights(const rewrite *r, const dbt_node *product, bool transposed, weights *w) {
    *w = (weights){.rows_are_n = transposed};
    dbt_node *node = only_reader_of(r, product->inputs[1]);
    if (node && is_swap(node)) {
        w->transpose = node;
        w->rows_are_n = !w->rows_are_n;
        node = only_reader_of(r, node->inputs[0]);
    }
    w->dequantize = node;
    return node && dbt_dequantizes_weights(node) && takes_blocks(node, w) &&
           product->inputs[0]->type == node->outputs[0]->type && product->inputs[0]->shape.rank > 0;
}

/* ---- The new constants ---- */

static dibit_status new_constant(const rewrite *r, const dbt_constant *like, dibit_type type,
                                 int64_t count, dbt_constant **c, dbt_value **out) {
    const char *const name =
        dbt_arena_format(r->graph->arena, "%s, as MatMulNBits reads it", like->name);
    dbt_value *const value = name ? dbt_graph_add_value(r->graph, name) : NULL;
    *c = dbt_arena_alloc(r->graph->arena, sizeof **c);
    if (!value || !*c) return dbt_fail_memory(r->error, "a constant", sizeof **c);
    **c = (dbt_constant){.name = name, .type = type, .rank = 1, .dims = {count}, .count = count};
    (void)dbt_packed_bytes(type, (uint64_t)count, &(*c)->bytes.bytes);
    value->type = type;
    value->shape = (dbt_shape){.rank = 1, .dims = {dbt_dim_const(r->graph->dims, count)}};
    value->constant = *c;
    *out = value;
    return DIBIT_OK;
}

/* Rows of `columns` elements for each n, from a matrix that lies as W does. */
static dibit_status new_matrix(const rewrite *r, const weights *w, const dbt_constant *from,
                               int64_t columns, bool codes, int64_t row_bytes, dbt_value **out) {
    const dibit_type type = codes ? DIBIT_TYPE_UINT8 : from->type;
    dbt_constant *c;
    dbt_constant_matrix *const m = dbt_arena_alloc(r->graph->arena, sizeof *m);
    if (!m) return dbt_fail_memory(r->error, "a constant", sizeof *m);
    *m = (dbt_constant_matrix){.from = from,
                               .rows = w->N,
                               .columns = columns,
                               .row_stride = w->rows_are_n ? columns : 1,
                               .column_stride = w->rows_are_n ? 1 : w->N,
                               .row_bytes = row_bytes,
                               .codes = codes};
    DBT_TRY(new_constant(r, from, type, codes ? w->N * row_bytes : from->count, &c, out));
    const bool is_there = w->rows_are_n && codes && row_bytes * 8 == columns * w->bits &&
                          (from->type == DIBIT_TYPE_UINT8 || from->type == DIBIT_TYPE_UINT4 ||
                           from->type == DIBIT_TYPE_UINT2);
    if (is_there) {
        c->bytes = from->bytes;
        c->data = from->data;
    } else {
        c->matrix = m;
    }
    return DIBIT_OK;
}

/* Without zero points signed codes are around 2^(bits-1), which is MatMulNBits's default, unsigned ones around 0. */
static dibit_status zero_points_of(const rewrite *r, const weights *w, dbt_value **out) {
    const dbt_node *const node = w->dequantize;
    const dbt_constant *const codes = node->inputs[W]->constant;
    const dbt_value *const given = node->n_inputs > ZERO_POINT ? node->inputs[ZERO_POINT] : NULL;
    const int64_t row_bytes = (w->k_blocks * w->bits + 7) / 8;
    int32_t low, high;
    *out = NULL;
    if (given) return new_matrix(r, w, given->constant, w->k_blocks, true, row_bytes, out);
    dbt_quantize_range(codes->type, &low, &high);
    if (low < 0) return DIBIT_OK;
    dbt_constant *c;
    DBT_TRY(new_constant(r, codes, DIBIT_TYPE_UINT8, w->N * row_bytes, &c, out));
    c->data = dbt_arena_alloc(r->graph->arena, c->bytes.bytes);
    return c->data ? DIBIT_OK : dbt_fail_memory(r->error, "zero points", c->bytes.bytes);
}

/* ---- The node ---- */

static dibit_status make_nbits(const rewrite *r, dbt_node *node, const weights *w,
                               dbt_value *bias) {
    dbt_arena *const arena = r->graph->arena;
    const dbt_node *const from = w->dequantize;
    dbt_nbits_attrs *const attrs = dbt_arena_alloc(arena, sizeof *attrs);
    dbt_value **const inputs = dbt_arena_array(arena, DBT_NBITS_INPUTS, sizeof *inputs);
    node->name = dbt_arena_format(arena, "%s + %s", from->name, node->name);
    if (!attrs || !inputs || !node->name) return dbt_fail_memory(r->error, "a node", sizeof *attrs);
    *attrs = (dbt_nbits_attrs){.K = w->K, .N = w->N, .bits = w->bits, .block_size = w->block_size};
    const int64_t row_bytes = w->k_blocks * (w->block_size * w->bits / 8);
    const dbt_constant *const scale = from->inputs[SCALE]->constant;
    inputs[DBT_NBITS_A] = node->inputs[0];
    inputs[DBT_NBITS_BIAS] = bias;
    DBT_TRY(
        new_matrix(r, w, from->inputs[W]->constant, w->K, true, row_bytes, &inputs[DBT_NBITS_B]));
    inputs[DBT_NBITS_SCALES] = from->inputs[SCALE];
    if (!w->rows_are_n) {
        DBT_TRY(new_matrix(r, w, scale, w->k_blocks, false,
                           w->k_blocks * (dibit_type_bits(scale->type) / 8),
                           &inputs[DBT_NBITS_SCALES]));
    }
    DBT_TRY(zero_points_of(r, w, &inputs[DBT_NBITS_ZERO_POINTS]));
    dbt_node_remove(w->dequantize);
    if (w->transpose) dbt_node_remove(w->transpose);
    node->attrs = attrs;
    node->inputs = inputs;
    node->n_inputs = DBT_NBITS_INPUTS;
    node->op = r->nbits;
    node->domain = r->nbits->domain;
    node->op_type = r->nbits->name;
    node->opset = 1;
    return DIBIT_OK;
}

static dibit_status rewrite_gemm(const rewrite *r, dbt_node *node) {
    const dbt_matmul_attrs *const at = node->attrs;
    dbt_value *const bias = node->n_inputs > 2 ? node->inputs[2] : NULL;
    weights w;
    if (at->transA || at->alpha != 1.0f || !find_weights(r, node, at->transB != 0, &w)) {
        return DIBIT_OK;
    }
    if (bias && (at->beta != 1.0f || bias->shape.rank != 1 || !bias->constant ||
                 bias->constant->count != w.N || bias->type != node->outputs[0]->type)) {
        return DIBIT_OK;
    }
    return make_nbits(r, node, &w, bias);
}

dibit_status dbt_rewrite_dequantize(dbt_graph *graph, dibit_error *error) {
    const dbt_op *any;
    rewrite r = {.graph = graph,
                 .nbits = dbt_op_find("com.microsoft", "MatMulNBits", 1, &any),
                 .n_counted = graph->n_values,
                 .error = error};
    DBT_TRY(dbt_graph_count_uses(graph, &r.n_uses, error));
    for (uint32_t n = 0; n < graph->n_nodes; n++) {
        dbt_node *const node = graph->nodes[n];
        weights w;
        if (node->guard || node->op->domain[0]) continue;
        if (strcmp(node->op->name, "MatMul") == 0 && find_weights(&r, node, false, &w)) {
            DBT_TRY(make_nbits(&r, node, &w, NULL));
        } else if (strcmp(node->op->name, "Gemm") == 0) {
            DBT_TRY(rewrite_gemm(&r, node));
        }
    }
    return DIBIT_OK;
}

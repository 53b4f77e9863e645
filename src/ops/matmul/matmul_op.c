/* MatMul, Gemm and com.microsoft FusedMatMul: shapes, and their way to gemm.h. Integer MatMul is done
 * here, in plain loops with wrap-around. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>

#include "ops/matmul/matmul.h"

enum { KIND_MATMUL, KIND_FUSED, KIND_GEMM };
enum { IN_A, IN_B, IN_C };

typedef dbt_matmul_attrs matmul_attrs;

static const dbt_attr_def fused_attrs[] = {
    {.name = "transA", .kind = DBT_ATTR_INT, .offset = offsetof(matmul_attrs, transA)},
    {.name = "transB", .kind = DBT_ATTR_INT, .offset = offsetof(matmul_attrs, transB)},
    {.name = "transBatchA", .kind = DBT_ATTR_INT, .offset = offsetof(matmul_attrs, transBatchA)},
    {.name = "transBatchB", .kind = DBT_ATTR_INT, .offset = offsetof(matmul_attrs, transBatchB)},
    {.name = "alpha", .kind = DBT_ATTR_FLOAT, .offset = offsetof(matmul_attrs, alpha), .f = 1.0f},
};
static const dbt_attr_def gemm_attrs[] = {
    {.name = "transA", .kind = DBT_ATTR_INT, .offset = offsetof(matmul_attrs, transA)},
    {.name = "transB", .kind = DBT_ATTR_INT, .offset = offsetof(matmul_attrs, transB)},
    {.name = "alpha", .kind = DBT_ATTR_FLOAT, .offset = offsetof(matmul_attrs, alpha), .f = 1.0f},
    {.name = "beta", .kind = DBT_ATTR_FLOAT, .offset = offsetof(matmul_attrs, beta), .f = 1.0f},
};

static matmul_attrs attrs_of(const dbt_node *node, const void *attrs) {
    if (node->op->kind == KIND_MATMUL) return (matmul_attrs){.alpha = 1.0f};
    return *(const matmul_attrs *)attrs;
}

#define INTEGERS                                                                                   \
    (DBT_TYPE_BIT(DIBIT_TYPE_INT32) | DBT_TYPE_BIT(DIBIT_TYPE_INT64) |                             \
     DBT_TYPE_BIT(DIBIT_TYPE_UINT32) | DBT_TYPE_BIT(DIBIT_TYPE_UINT64))

/* ---- Shapes ----
 * An operand's axes are its batch axes and two of its own: rows (M or K) and columns (K or N). A
 * vector is one row (A) or one column (B), whose axis of size 1 is not in the output. */

typedef struct operand {
    int32_t rank, n_batch;
    int32_t batch[DIBIT_MAX_RANK]; /* axes */
    int32_t row, column;           /* axes, -1: there is none */
} operand;

static operand operand_of(int32_t rank, bool is_b, bool transposed, bool batch_transposed) {
    operand o = {.rank = rank, .row = rank - 2, .column = rank - 1};
    if (rank == 1) {
        o.row = is_b ? 0 : -1;
        o.column = is_b ? -1 : 0;
        return o;
    }
    for (int32_t i = 0; i < rank - 2; i++) o.batch[o.n_batch++] = batch_transposed ? i + 1 : i;
    if (batch_transposed) o.row = 0;
    if (transposed) {
        const int32_t row = o.row;
        o.row = o.column;
        o.column = row;
    }
    return o;
}

static dibit_status infer_matmul(dbt_infer *in) {
    const bool fused = in->node->op->kind == KIND_FUSED;
    DBT_TRY(dbt_infer_type(in, IN_A, fused ? DBT_TYPES_FLOAT : DBT_TYPES_FLOAT | INTEGERS));
    DBT_TRY(dbt_infer_same_type(in, IN_A, IN_B));
    DBT_TRY(dbt_infer_rank(in, IN_A, 1, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(in, IN_B, 1, DIBIT_MAX_RANK));
    const matmul_attrs at = attrs_of(in->node, in->attrs);
    const dbt_shape *const a = &in->in[IN_A]->shape, *const b = &in->in[IN_B]->shape;
    DBT_FAIL_IF((at.transBatchA && a->rank < 3) || (at.transBatchB && b->rank < 3), in->error,
                DIBIT_BAD_FILE, "transBatchA and transBatchB need inputs of rank 3 or more");
    const operand oa = operand_of(a->rank, false, at.transA, at.transBatchA);
    const operand ob = operand_of(b->rank, true, at.transB, at.transBatchB);
    DBT_TRY(dbt_infer_dim(in, IN_B, ob.row, a->dims[oa.column]));
    dbt_shape batch_a = {.rank = oa.n_batch}, batch_b = {.rank = ob.n_batch}, out;
    for (int32_t i = 0; i < oa.n_batch; i++) batch_a.dims[i] = a->dims[oa.batch[i]];
    for (int32_t i = 0; i < ob.n_batch; i++) batch_b.dims[i] = b->dims[ob.batch[i]];
    DBT_TRY(dbt_infer_broadcast(in, &batch_a, &batch_b, &out));
    if (oa.row >= 0) out.dims[out.rank++] = a->dims[oa.row];
    if (ob.column >= 0) out.dims[out.rank++] = b->dims[ob.column];
    dbt_infer_output(in, 0, in->in[IN_A]->type, &out);
    return DIBIT_OK;
}

static dibit_status infer_gemm(dbt_infer *in) {
    DBT_TRY(dbt_infer_type(in, IN_A, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_same_type(in, IN_A, IN_B));
    DBT_TRY(dbt_infer_same_type(in, IN_A, IN_C));
    DBT_TRY(dbt_infer_rank(in, IN_A, 2, 2));
    DBT_TRY(dbt_infer_rank(in, IN_B, 2, 2));
    DBT_TRY(dbt_infer_rank(in, IN_C, 0, 2));
    const matmul_attrs at = attrs_of(in->node, in->attrs);
    const dbt_shape *const a = &in->in[IN_A]->shape, *const b = &in->in[IN_B]->shape;
    DBT_TRY(dbt_infer_dim(in, IN_B, at.transB ? 1 : 0, a->dims[at.transA ? 0 : 1]));
    const dbt_shape out = {.rank = 2,
                           .dims = {a->dims[at.transA ? 1 : 0], b->dims[at.transB ? 0 : 1]}};
    if (in->n_inputs > IN_C && in->in[IN_C]) {
        const dbt_shape *const c = &in->in[IN_C]->shape;
        for (int32_t i = 0; i < c->rank; i++) {
            if (dbt_dim_is(in->dims, c->dims[i], 1)) continue;
            DBT_TRY(dbt_infer_dim(in, IN_C, i, out.dims[2 - c->rank + i]));
        }
    }
    dbt_infer_output(in, 0, in->in[IN_A]->type, &out);
    return DIBIT_OK;
}

/* ---- The problem ---- */

static int64_t stride_of(const dibit_tensor *t, int32_t axis) {
    int64_t stride = 1;
    for (int32_t i = axis + 1; axis >= 0 && i < t->rank; i++) stride *= t->dims[i];
    return stride;
}
static int64_t dim_of(const dibit_tensor *t, int32_t axis) { return axis < 0 ? 1 : t->dims[axis]; }

/* Batch axes into g, with stride 0 where an operand repeats. */
static dibit_status set_batches(const dbt_cpu_call *call, const operand *oa, const operand *ob,
                                dbt_gemm *g) {
    const dibit_tensor *const a = call->in[IN_A], *const b = call->in[IN_B];
    g->batch_rank = oa->n_batch > ob->n_batch ? oa->n_batch : ob->n_batch;
    g->n_batches = 1;
    for (int32_t i = 0; i < g->batch_rank; i++) {
        const int32_t ia = i - (g->batch_rank - oa->n_batch),
                      ib = i - (g->batch_rank - ob->n_batch);
        const int64_t da = ia < 0 ? 1 : a->dims[oa->batch[ia]],
                      db = ib < 0 ? 1 : b->dims[ob->batch[ib]];
        DBT_FAIL_IF(da != db && da != 1 && db != 1, call->error, DIBIT_BAD_INPUT,
                    "batch dims do not broadcast: %" PRId64 " against %" PRId64, da, db);
        g->batch_dims[i] = da == 1 ? db : da;
        g->a_batch[i] = ia < 0 || da == 1 ? 0 : stride_of(a, oa->batch[ia]);
        g->b_batch[i] = ib < 0 || db == 1 ? 0 : stride_of(b, ob->batch[ib]);
        g->n_batches *= g->batch_dims[i];
    }
    return DIBIT_OK;
}

/* One matrix B for all batches of a dense A is one product with more rows. */
static void fold_batches(const operand *oa, dbt_gemm *g) {
    if (g->a_k != 1 || oa->row != oa->rank - 2 || oa->n_batch != g->batch_rank) return;
    for (int32_t i = 0; i < g->batch_rank; i++) {
        if (g->b_batch[i] != 0 || (g->a_batch[i] == 0 && g->batch_dims[i] != 1)) return;
    }
    g->M *= g->n_batches;
    g->n_batches = 1;
    g->batch_rank = 0;
}

static dibit_status set_c(const dbt_cpu_call *call, float beta, dbt_gemm *g) {
    const dibit_tensor *const c = call->n_inputs > IN_C ? call->in[IN_C] : NULL;
    if (!c || beta == 0.0f) return DIBIT_OK;
    const int64_t rows = c->rank == 2 ? c->dims[0] : 1,
                  columns = c->rank > 0 ? c->dims[c->rank - 1] : 1;
    DBT_FAIL_IF((rows != 1 && rows != g->M) || (columns != 1 && columns != g->N), call->error,
                DIBIT_BAD_INPUT,
                "C is %" PRId64 " x %" PRId64 ", which does not broadcast to %" PRId64
                " x %" PRId64,
                rows, columns, g->M, g->N);
    g->c = c->data;
    g->beta = beta;
    g->c_m = rows == 1 ? 0 : columns;
    g->c_n = columns == 1 ? 0 : 1;
    return DIBIT_OK;
}

dibit_status dbt_matmul_problem(const dbt_cpu_call *call, dbt_gemm *g) {
    const matmul_attrs at = attrs_of(call->node, call->attrs);
    const dibit_tensor *const a = call->in[IN_A], *const b = call->in[IN_B];
    const operand oa = operand_of(a->rank, false, at.transA, at.transBatchA);
    const operand ob = operand_of(b->rank, true, at.transB, at.transBatchB);
    DBT_FAIL_IF(a->dims[oa.column] != b->dims[ob.row], call->error, DIBIT_BAD_INPUT,
                "A has %" PRId64 " columns and B %" PRId64 " rows", a->dims[oa.column],
                b->dims[ob.row]);
    *g = (dbt_gemm){
        .M = dim_of(a, oa.row),
        .N = dim_of(b, ob.column),
        .K = a->dims[oa.column],
        .a = a->data,
        .a_m = stride_of(a, oa.row),
        .a_k = stride_of(a, oa.column),
        .b = b->data,
        .b_type = b->type,
        .b_k = stride_of(b, ob.row),
        .b_n = stride_of(b, ob.column),
        .alpha = at.alpha,
        .y = call->out[0]->data,
    };
    DBT_TRY(set_batches(call, &oa, &ob, g));
    if (call->node->op->kind == KIND_GEMM) DBT_TRY(set_c(call, at.beta, g));
    fold_batches(&oa, g);
    return DIBIT_OK;
}

/* ---- Integers ---- */

typedef struct integers {
    const dbt_gemm *g;
    const uint8_t *a; /* of b_type too */
    int64_t size;
} integers;

static uint64_t integer_at(const uint8_t *data, int64_t size, int64_t i) {
    if (size == 4) {
        uint32_t v;
        memcpy(&v, data + i * 4, 4);
        return v;
    }
    uint64_t v;
    memcpy(&v, data + i * 8, 8);
    return v;
}

static void integer_rows(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const integers *const c = ctx;
    const dbt_gemm *const g = c->g;
    int64_t batch = task / g->M, a = task % g->M * g->a_m, b = 0;
    for (int32_t i = g->batch_rank - 1; i >= 0; i--) {
        a += batch % g->batch_dims[i] * g->a_batch[i];
        b += batch % g->batch_dims[i] * g->b_batch[i];
        batch /= g->batch_dims[i];
    }
    for (int64_t n = 0; n < g->N; n++) {
        uint64_t sum = 0; /* wraps around as the type itself does */
        for (int64_t k = 0; k < g->K; k++) {
            sum += integer_at(c->a, c->size, a + k * g->a_k) *
                   integer_at(g->b, c->size, b + k * g->b_k + n * g->b_n);
        }
        if (c->size == 4) {
            ((uint32_t *)(void *)g->y)[task * g->N + n] = (uint32_t)sum;
        } else {
            ((uint64_t *)(void *)g->y)[task * g->N + n] = sum;
        }
    }
}

/* ---- Running ---- */

static uint64_t cpu_scratch(const dbt_cpu_call *call) {
    dbt_gemm g;
    dbt_cpu_call quiet = *call;
    quiet.error = NULL;
    if (dbt_matmul_problem(&quiet, &g) != DIBIT_OK || !dbt_type_is_float(g.b_type))
        return 0; /* cpu_run says why */
    return dbt_gemm_scratch_bytes(&g, dbt_pool_threads(call->pool));
}

static dibit_status cpu_run(const dbt_cpu_call *call) {
    dbt_gemm g;
    DBT_TRY(dbt_matmul_problem(call, &g));
    if (!dbt_type_is_float(g.b_type)) {
        integers c = {.g = &g, .a = call->in[IN_A]->data, .size = dibit_type_bits(g.b_type) / 8};
        dbt_parallel_for(call->pool, g.n_batches * g.M, integer_rows, &c);
        return DIBIT_OK;
    }
    dbt_gemm_run(&g, dbt_gemm_choose(call->options->isa), call->pool, call->scratch);
    return DIBIT_OK;
}

static dibit_status cpu_bound(const dbt_cpu_call *call, float *const *bound) {
    dbt_gemm g;
    DBT_TRY(dbt_matmul_problem(call, &g));
    if (!bound[0] || !dbt_type_is_float(g.b_type)) return DIBIT_OK;
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    const int64_t n = g.M * g.N;
    double *const y = dbt_arena_array(&arena, 2 * (uint64_t)n, sizeof *y);
    if (!y) {
        dbt_arena_free(&arena);
        return dbt_fail_memory(call->error, "a bound", 2 * (uint64_t)n * sizeof *y);
    }
    const double gamma = dbt_gemm_gamma(&g);
    for (int64_t batch = 0; batch < g.n_batches; batch++) {
        dbt_gemm_ref(&g, batch, y, y + n);
        for (int64_t i = 0; i < n; i++) bound[0][batch * n + i] = (float)(gamma * y[n + i]);
    }
    dbt_arena_free(&arena);
    return DIBIT_OK;
}

static dibit_status cpu_prepare(dbt_cpu_prepare *prepare) {
    if (dbt_type_is_float(prepare->node->inputs[IN_A]->type)) {
        prepare->kernel = dbt_gemm_choose(prepare->options->isa)->name;
    }
    return DIBIT_OK;
}

/* A row of the output has only one row of A, and weights. */
static bool is_rowwise(const dbt_node *node) {
    const matmul_attrs at = attrs_of(node, node->attrs);
    const dbt_value *const c = node->n_inputs > IN_C ? node->inputs[IN_C] : NULL;
    return node->inputs[IN_A]->shape.rank >= 2 && !at.transA && !at.transBatchA &&
           node->inputs[IN_B]->constant && node->inputs[IN_B]->shape.rank == 2 &&
           (!c || c->shape.rank <= 1);
}

#define COMMON                                                                                     \
    .min_outputs = 1, .max_outputs = 1, .flags = DBT_OP_ROWWISE, .raw_inputs = 1u << IN_B,         \
    .cpu_prepare = cpu_prepare, .cpu_scratch = cpu_scratch, .cpu_run = cpu_run,                    \
    .cpu_bound = cpu_bound, .is_rowwise = is_rowwise, .gpu_encode = dbt_matmul_encode,             \
    .gpu_refuses = dbt_matmul_refuses
#define ATTRS(table)                                                                               \
    .attrs = table, .n_attrs = sizeof table / sizeof table[0], .attrs_bytes = sizeof(matmul_attrs)

const dbt_op dbt_matmul_ops[] = {
    {.domain = "",
     .name = "MatMul",
     .since = 1,
     .min_inputs = 2,
     .max_inputs = 2,
     .kind = KIND_MATMUL,
     .infer = infer_matmul,
     COMMON},
    {.domain = "",
     .name = "Gemm",
     .since = 7,
     .min_inputs = 2,
     .max_inputs = 3,
     .kind = KIND_GEMM,
     .infer = infer_gemm,
     ATTRS(gemm_attrs),
     COMMON},
    {.domain = "com.microsoft",
     .name = "FusedMatMul",
     .since = 1,
     .min_inputs = 2,
     .max_inputs = 2,
     .kind = KIND_FUSED,
     .infer = infer_matmul,
     ATTRS(fused_attrs),
     COMMON},
    {0},
};

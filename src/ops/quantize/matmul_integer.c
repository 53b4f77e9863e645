/* MatMulInteger and QLinearMatMul: products of 8-bit matrices with zero points, numpy's shapes.
 *
 *     sum[m, n] = sum_k (A[m, k] - a_zero[m]) * (B[k, n] - b_zero[n])           as int32
 *     QLinearMatMul: y = saturate(round(sum * (a_scale[m] * b_scale[n] / y_scale)) + y_zero)
 *
 * A's parameters are one value or one per row, B's one or one per column; with batches also one per
 * row or column of each matrix. */
#include <inttypes.h>
#include <string.h>

#include "ops/quantize/quantize.h"

/* Input indices by kind; -1: not an input of that op. */
enum { A, A_SCALE, A_ZERO, B, B_SCALE, B_ZERO, Y_SCALE, Y_ZERO, N_ROLES };
static const int8_t roles[2][N_ROLES] = {
    {0, -1, 2, 1, -1, 3, -1, -1},
    {0, 1, 2, 3, 4, 5, 6, 7},
};

dibit_status dbt_matmul_integer_infer(dbt_infer *in) {
    const int8_t *const role = roles[in->node->op->kind];
    const uint32_t a = (uint32_t)role[A], b = (uint32_t)role[B];
    DBT_TRY(dbt_infer_type(in, a, DBT_QUANTIZE_8_BITS));
    DBT_TRY(dbt_infer_type(in, b, DBT_QUANTIZE_8_BITS));
    DBT_TRY(dbt_infer_same_type(in, a, (uint32_t)role[A_ZERO]));
    DBT_TRY(dbt_infer_same_type(in, b, (uint32_t)role[B_ZERO]));
    DBT_TRY(dbt_infer_rank(in, a, 1, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(in, b, 1, DIBIT_MAX_RANK));
    const dbt_shape *const sa = &in->in[a]->shape, *const sb = &in->in[b]->shape;
    DBT_TRY(dbt_infer_dim(in, b, sb->rank > 1 ? sb->rank - 2 : 0, sa->dims[sa->rank - 1]));
    dbt_shape batch_a = *sa, batch_b = *sb, out;
    batch_a.rank = sa->rank > 2 ? sa->rank - 2 : 0;
    batch_b.rank = sb->rank > 2 ? sb->rank - 2 : 0;
    DBT_TRY(dbt_infer_broadcast(in, &batch_a, &batch_b, &out));
    if (sa->rank > 1) out.dims[out.rank++] = sa->dims[sa->rank - 2];
    if (sb->rank > 1) out.dims[out.rank++] = sb->dims[sb->rank - 1];
    dibit_type type = DIBIT_TYPE_INT32;
    if (role[Y_ZERO] >= 0) {
        DBT_TRY(dbt_infer_type(in, (uint32_t)role[Y_ZERO], DBT_QUANTIZE_8_BITS));
        for (int i = 0; i < N_ROLES; i++) {
            if (i != A_SCALE && i != B_SCALE && i != Y_SCALE) continue;
            DBT_TRY(dbt_infer_type(in, (uint32_t)role[i], DBT_QUANTIZE_SCALES));
        }
        type = in->in[role[Y_ZERO]]->type;
    }
    dbt_infer_output(in, 0, type, &out);
    return DIBIT_OK;
}

typedef struct integer_call {
    const dibit_tensor *in[N_ROLES]; /* NULL where absent */
    dibit_tensor *y;
    int64_t M, N, K;
    int32_t batch_rank;
    int64_t dims[DIBIT_MAX_RANK], a_batch[DIBIT_MAX_RANK],
        b_batch[DIBIT_MAX_RANK]; /* in matrices */
    int64_t n_batches;
} integer_call;

/* Index into a parameter of A or B for element `i` of n in matrix `batch`. */
static int64_t parameter_index(const dibit_tensor *t, int64_t batch, int64_t n, int64_t i) {
    const int64_t count = dbt_tensor_count(t);
    return count == 1 ? 0 : count == n ? i : batch * n + i;
}

static int32_t zero_at(const integer_call *c, int role, int64_t batch, int64_t n, int64_t i) {
    const dibit_tensor *const t = c->in[role];
    if (!t) return 0;
    const int64_t at = parameter_index(t, batch, n, i);
    return t->type == DIBIT_TYPE_INT8 ? ((const int8_t *)t->data)[at]
                                      : ((const uint8_t *)t->data)[at];
}

static float scale_at(const integer_call *c, int role, int64_t batch, int64_t n, int64_t i) {
    const dibit_tensor *const t = c->in[role];
    return ((const float *)t->data)[parameter_index(t, batch, n, i)];
}

enum { COLUMNS = 128 };

/* sums[i] += a * (b[i] - zero[i]); sums wrap around. */
static inline void add_row(int32_t a, const uint8_t *b, const bool is_signed, const int32_t *zero,
                           int64_t n, uint32_t *sums) {
    for (int64_t i = 0; i < n; i++) {
        const int32_t v = is_signed ? (int32_t)(int8_t)b[i] : (int32_t)b[i];
        sums[i] += (uint32_t)(a * (v - zero[i]));
    }
}

static void store_sums(const integer_call *c, const uint32_t *sums, int64_t batch_a,
                       int64_t batch_b, int64_t m, int64_t n, int64_t columns, int64_t at) {
    if (!c->in[Y_ZERO]) {
        memcpy((uint32_t *)c->y->data + at, sums, (size_t)columns * sizeof *sums);
        return;
    }
    int32_t low, high;
    dbt_quantize_range(c->y->type, &low, &high);
    const int32_t zero = zero_at(c, Y_ZERO, 0, 1, 0);
    const float y_scale = scale_at(c, Y_SCALE, 0, 1, 0),
                a_scale = scale_at(c, A_SCALE, batch_a, c->M, m);
    for (int64_t i = 0; i < columns; i++) {
        const float scale = a_scale * scale_at(c, B_SCALE, batch_b, c->N, n + i) / y_scale;
        ((uint8_t *)c->y->data)[at + i] =
            (uint8_t)dbt_quantize((float)(int32_t)sums[i] * scale, 1.0f, zero, low, high);
    }
}

static void integer_row(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const integer_call *const c = ctx;
    const int64_t m = task % c->M;
    int64_t rest = task / c->M, batch_a = 0, batch_b = 0;
    for (int32_t i = c->batch_rank - 1; i >= 0; i--) {
        batch_a += rest % c->dims[i] * c->a_batch[i];
        batch_b += rest % c->dims[i] * c->b_batch[i];
        rest /= c->dims[i];
    }
    const uint8_t *const a = (const uint8_t *)c->in[A]->data + (batch_a * c->M + m) * c->K;
    const uint8_t *const b = (const uint8_t *)c->in[B]->data + batch_b * c->K * c->N;
    const bool a_signed = c->in[A]->type == DIBIT_TYPE_INT8,
               b_signed = c->in[B]->type == DIBIT_TYPE_INT8;
    const int32_t a_zero = zero_at(c, A_ZERO, batch_a, c->M, m);
    for (int64_t n = 0; n < c->N; n += COLUMNS) {
        const int64_t columns = c->N - n < COLUMNS ? c->N - n : COLUMNS;
        uint32_t sums[COLUMNS] = {0};
        int32_t zeros[COLUMNS];
        for (int64_t i = 0; i < columns; i++) zeros[i] = zero_at(c, B_ZERO, batch_b, c->N, n + i);
        for (int64_t k = 0; k < c->K; k++) {
            const int32_t v = (a_signed ? (int32_t)(int8_t)a[k] : (int32_t)a[k]) - a_zero;
            if (b_signed) {
                add_row(v, b + k * c->N + n, true, zeros, columns, sums);
            } else {
                add_row(v, b + k * c->N + n, false, zeros, columns, sums);
            }
        }
        store_sums(c, sums, batch_a, batch_b, m, n, columns, task * c->N + n);
    }
}

/* One value, n, or n for each matrix. */
static dibit_status check_parameter(const dbt_cpu_call *call, const integer_call *c, int role,
                                    int64_t n, int operand) {
    if (!c->in[role]) return DIBIT_OK;
    const int64_t count = dbt_tensor_count(c->in[role]),
                  own = operand == A ? c->M * c->K : c->K * c->N;
    const int64_t matrices = operand < 0 ? 1 : own > 0 ? dbt_tensor_count(c->in[operand]) / own : 0;
    DBT_FAIL_IF(count != 1 && count != n && count != n * matrices, call->error, DIBIT_BAD_INPUT,
                "input %d has %" PRId64 " values, expected 1 or %" PRId64,
                (int)roles[call->node->op->kind][role], count, n);
    return DIBIT_OK;
}

static dibit_status make_call(const dbt_cpu_call *call, integer_call *c) {
    *c = (integer_call){.y = call->out[0], .n_batches = 1};
    for (int i = 0; i < N_ROLES; i++) {
        const int8_t at = roles[call->node->op->kind][i];
        c->in[i] = at >= 0 && (uint32_t)at < call->n_inputs ? call->in[at] : NULL;
    }
    const dibit_tensor *const a = c->in[A], *const b = c->in[B];
    c->M = a->rank > 1 ? a->dims[a->rank - 2] : 1;
    c->K = a->dims[a->rank - 1];
    c->N = b->rank > 1 ? b->dims[b->rank - 1] : 1;
    const int64_t b_rows = b->dims[b->rank > 1 ? b->rank - 2 : 0];
    DBT_FAIL_IF(b_rows != c->K, call->error, DIBIT_BAD_INPUT,
                "A has %" PRId64 " columns and B %" PRId64 " rows", c->K, b_rows);
    const int32_t na = a->rank > 2 ? a->rank - 2 : 0, nb = b->rank > 2 ? b->rank - 2 : 0;
    c->batch_rank = na > nb ? na : nb;
    int64_t sa = 1, sb = 1;
    for (int32_t i = c->batch_rank - 1; i >= 0; i--) {
        const int32_t ia = i - (c->batch_rank - na), ib = i - (c->batch_rank - nb);
        const int64_t da = ia < 0 ? 1 : a->dims[ia], db = ib < 0 ? 1 : b->dims[ib];
        DBT_FAIL_IF(da != db && da != 1 && db != 1, call->error, DIBIT_BAD_INPUT,
                    "batch dims do not broadcast: %" PRId64 " against %" PRId64, da, db);
        c->dims[i] = da == 1 ? db : da;
        c->a_batch[i] = da == 1 ? 0 : sa;
        c->b_batch[i] = db == 1 ? 0 : sb;
        sa *= da;
        sb *= db;
        c->n_batches *= c->dims[i];
    }
    DBT_TRY(check_parameter(call, c, A_ZERO, c->M, A));
    DBT_TRY(check_parameter(call, c, A_SCALE, c->M, A));
    DBT_TRY(check_parameter(call, c, B_ZERO, c->N, B));
    DBT_TRY(check_parameter(call, c, B_SCALE, c->N, B));
    DBT_TRY(check_parameter(call, c, Y_ZERO, 1, -1));
    return check_parameter(call, c, Y_SCALE, 1, -1);
}

dibit_status dbt_matmul_integer_run(const dbt_cpu_call *call) {
    integer_call c;
    DBT_TRY(make_call(call, &c));
    dbt_parallel_for(call->pool, c.n_batches * c.M, integer_row, &c);
    return DIBIT_OK;
}

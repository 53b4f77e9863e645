/* Reductions of floats: sums in float, in an order that depends on the shape alone. */
#include "base/math.h"
#include "ops/reduce/reduce.h"

int64_t dbt_reduce_offset(const dbt_reduce_dims *dims, int64_t index) {
    int64_t offset = 0;
    for (int32_t d = 0; d < dims->rank; d++) {
        offset += index % dims->dims[d] * dims->strides[d];
        index /= dims->dims[d];
    }
    return offset;
}

dbt_reduce_plan dbt_reduce_make_plan(const dibit_tensor *x, uint32_t mask) {
    dbt_reduce_plan p = {.n = 1, .count = 1, .outputs = 1, .kept.count = 1, .reduced.count = 1};
    int64_t stride = 1;
    bool first = true, last_reduced = true;
    for (int32_t d = x->rank - 1; d >= 0; d--) {
        const int64_t dim = x->dims[d];
        const bool reduced = mask >> d & 1;
        *(reduced ? &p.count : &p.outputs) *= dim;
        if (dim == 1) continue;
        dbt_reduce_dims *const outer = reduced ? &p.reduced : &p.kept;
        const bool in_run =
            first || (reduced == last_reduced && outer->rank == 0 && reduced != p.columns);
        if (first) p.columns = !reduced;
        if (in_run) {
            p.n *= dim;
        } else if (reduced == last_reduced) {
            outer->dims[outer->rank - 1] *= dim;
        } else {
            outer->dims[outer->rank] = dim;
            outer->strides[outer->rank++] = stride;
        }
        first = false;
        last_reduced = reduced;
        stride *= dim;
    }
    for (int32_t i = 0; i < p.kept.rank; i++) p.kept.count *= p.kept.dims[i];
    for (int32_t i = 0; i < p.reduced.rank; i++) p.reduced.count *= p.reduced.dims[i];
    return p;
}

/* For every step a run over n contiguous elements, in DBT_LANES partial results, and columns: m
 * results side by side that each take one element. `a` is the partial result, v the element, s a
 * shift that only the exponential needs. */
#define STEP(name, init, step, combine)                                                            \
    static float name##_run(const float *x, int64_t n, float s) {                                  \
        (void)s;                                                                                   \
        float lanes[DBT_LANES];                                                                    \
        for (int k = 0; k < DBT_LANES; k++) lanes[k] = init;                                       \
        int64_t i = 0;                                                                             \
        for (; i + DBT_LANES <= n; i += DBT_LANES) {                                               \
            for (int k = 0; k < DBT_LANES; k++) {                                                  \
                const float a = lanes[k], v = x[i + k];                                            \
                lanes[k] = step;                                                                   \
            }                                                                                      \
        }                                                                                          \
        for (int k = 0; i + k < n; k++) {                                                          \
            const float a = lanes[k], v = x[i + k];                                                \
            lanes[k] = step;                                                                       \
        }                                                                                          \
        for (int half = DBT_LANES / 2; half > 0; half /= 2) {                                      \
            for (int k = 0; k < half; k++) {                                                       \
                const float a = lanes[k], v = lanes[k + half];                                     \
                lanes[k] = combine;                                                                \
            }                                                                                      \
        }                                                                                          \
        return lanes[0];                                                                           \
    }                                                                                              \
    static void name##_columns(const float *x, int64_t m, float *result, const float *shift) {     \
        (void)shift;                                                                               \
        for (int64_t k = 0; k < m; k++) {                                                          \
            const float a = result[k], v = x[k], s = shift[k];                                     \
            (void)s;                                                                               \
            result[k] = step;                                                                      \
        }                                                                                          \
    }                                                                                              \
    static float name##_combine(float a, float v) { return combine; }

STEP(sum, 0.0f, a + v, a + v)
STEP(magnitude, 0.0f, a + fabsf(v), a + v)
STEP(square, 0.0f, a + v * v, a + v)
STEP(exponential, 0.0f, a + dbt_expf(v - s), a + v)
STEP(product, 1.0f, a *v, a *v)
/* NaN wins. */
STEP(largest, -INFINITY, v > a || v != v ? v : a, v > a || v != v ? v : a)
STEP(smallest, INFINITY, v < a || v != v ? v : a, v < a || v != v ? v : a)

typedef struct reduce_step {
    float init;
    float (*run)(const float *x, int64_t n, float shift);
    void (*columns)(const float *x, int64_t m, float *result, const float *shift);
    float (*combine)(float a, float v);
} reduce_step;

#define ROW(init, name) {init, name##_run, name##_columns, name##_combine}
static const reduce_step steps[] = {
    [DBT_REDUCE_SUM] = ROW(0, sum),
    [DBT_REDUCE_MEAN] = ROW(0, sum),
    [DBT_REDUCE_MAX] = ROW(-INFINITY, largest),
    [DBT_REDUCE_MIN] = ROW(INFINITY, smallest),
    [DBT_REDUCE_PROD] = ROW(1, product),
    [DBT_REDUCE_L1] = ROW(0, magnitude),
    [DBT_REDUCE_L2] = ROW(0, square),
    [DBT_REDUCE_LOG_SUM] = ROW(0, sum),
    [DBT_REDUCE_LOG_SUM_EXP] = ROW(0, exponential),
    [DBT_REDUCE_SUM_SQUARE] = ROW(0, square),
};

enum { COLUMNS = 64 };

typedef struct reduce_call {
    dbt_reduce_kind kind;
    const dbt_reduce_plan *plan;
    const float *x;
    float *y;
    int64_t blocks, units, n_tasks;
} reduce_call;

/* One pass: result[k] over all parts of the reduced dims, for the m columns (or the run) at x. */
static void pass(const dbt_reduce_plan *p, const reduce_step *step, const float *x, int64_t m,
                 float *result, const float *shift) {
    for (int64_t k = 0; k < m; k++) result[k] = step->init;
    for (int64_t r = 0; r < p->reduced.count; r++) {
        const float *const part = x + dbt_reduce_offset(&p->reduced, r);
        if (p->columns) {
            step->columns(part, m, result, shift);
        } else {
            result[0] = step->combine(result[0], step->run(part, p->n, shift[0]));
        }
    }
}

static float finish(dbt_reduce_kind kind, float a, int64_t count, float shift) {
    switch (kind) {
    case DBT_REDUCE_MEAN: return a / (float)count;
    case DBT_REDUCE_L2: return sqrtf(a);
    case DBT_REDUCE_LOG_SUM: return logf(a);
    case DBT_REDUCE_LOG_SUM_EXP: return logf(a) + shift;
    default: return a;
    }
}

static void reduce_unit(const reduce_call *c, int64_t unit) {
    const dbt_reduce_plan *const p = c->plan;
    const int64_t outer = unit / c->blocks, column = unit % c->blocks * COLUMNS;
    const int64_t left = p->n - column, m = !p->columns ? 1 : left < COLUMNS ? left : COLUMNS;
    const float *const x = c->x + dbt_reduce_offset(&p->kept, outer) + column;
    float *const y = c->y + (p->columns ? outer * p->n + column : outer);
    float shift[COLUMNS] = {0}, result[COLUMNS];
    if (c->kind == DBT_REDUCE_LOG_SUM_EXP) {
        pass(p, &steps[DBT_REDUCE_MAX], x, m, result, shift);
        for (int64_t k = 0; k < m; k++) shift[k] = isfinite(result[k]) ? result[k] : 0.0f;
    }
    pass(p, &steps[c->kind], x, m, result, shift);
    for (int64_t k = 0; k < m; k++) y[k] = finish(c->kind, result[k], p->count, shift[k]);
}

static void task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const reduce_call *const c = ctx;
    for (int64_t u = dbt_task_begin(c->units, c->n_tasks, i);
         u < dbt_task_begin(c->units, c->n_tasks, i + 1); u++) {
        reduce_unit(c, u);
    }
}

void dbt_reduce_float(dbt_reduce_kind kind, const dbt_reduce_plan *plan, const float *x, float *y,
                      dbt_pool *pool) {
    if (plan->outputs == 0) return;
    reduce_call c = {.kind = kind,
                     .plan = plan,
                     .x = x,
                     .y = y,
                     .blocks = plan->columns ? (plan->n + COLUMNS - 1) / COLUMNS : 1};
    c.units = plan->kept.count * c.blocks;
    const int64_t cost = kind == DBT_REDUCE_LOG_SUM_EXP ? 10 : 1;
    c.n_tasks = dbt_task_count(c.units, plan->count * (plan->columns ? COLUMNS : 1) * cost);
    dbt_parallel_for(pool, c.n_tasks, task, &c);
}

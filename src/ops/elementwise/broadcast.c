/* Broadcasting at run time; see broadcast.h. */
#include "ops/elementwise/broadcast.h"

/* Longer runs are cut, so that one long row can be shared between threads. */
enum { MAX_RUN = 4096 };

static dibit_status check(const dibit_tensor *out, const dibit_tensor *in, uint32_t i,
                          dibit_error *error) {
    const int32_t shift = out->rank - in->rank;
    DBT_FAIL_IF(shift < 0, error, DIBIT_BAD_INPUT,
                "input %u has rank %d, more than the result's %d", (unsigned)i, (int)in->rank,
                (int)out->rank);
    for (int32_t d = 0; d < in->rank; d++) {
        const int64_t have = in->dims[d], want = out->dims[d + shift];
        DBT_FAIL_IF(have != want && have != 1, error, DIBIT_BAD_INPUT,
                    "shapes do not broadcast: dim %d of input %u is %lld, of the result %lld",
                    (int)d, (unsigned)i, (long long)have, (long long)want);
    }
    return DIBIT_OK;
}

/* Whether a dim with these strides goes on where a run, or the outer dim added last, ends. */
static bool continues_run(const dbt_broadcast *b, const int64_t *stride) {
    for (uint32_t i = 0; i < b->n_inputs; i++) {
        if (stride[i] != b->step[i] * b->n) return false;
    }
    return true;
}

static bool continues_outer(const dbt_broadcast *b, const int64_t *stride) {
    if (b->rank == 0) return false;
    const int32_t last = b->rank - 1;
    for (uint32_t i = 0; i < b->n_inputs; i++) {
        if (stride[i] != b->strides[i][last] * b->dims[last]) return false;
    }
    return true;
}

/* Outer dims are collected innermost first. */
static void add_dim(dbt_broadcast *b, int64_t dim, const int64_t *stride) {
    if (dim == 1) return;
    if (b->rank == 0 && b->n == 1) {
        b->n = dim;
        for (uint32_t i = 0; i < b->n_inputs; i++) b->step[i] = stride[i]; /* 1, or 0 */
    } else if (b->rank == 0 && continues_run(b, stride)) {
        b->n *= dim;
    } else if (continues_outer(b, stride)) {
        b->dims[b->rank - 1] *= dim;
    } else {
        for (uint32_t i = 0; i < b->n_inputs; i++) b->strides[i][b->rank] = stride[i];
        b->dims[b->rank++] = dim;
    }
}

dibit_status dbt_broadcast_plan(const dibit_tensor *out, const dibit_tensor *const *in, uint32_t n,
                                dbt_broadcast *b, dibit_error *error) {
    *b = (dbt_broadcast){.n_inputs = n, .n = 1, .rows = 1};
    for (uint32_t i = 0; i < n; i++) DBT_TRY(check(out, in[i], i, error));
    int64_t next[DBT_BROADCAST_INPUTS] = {1, 1, 1};
    for (int32_t d = out->rank - 1; d >= 0; d--) {
        int64_t stride[DBT_BROADCAST_INPUTS] = {0};
        for (uint32_t i = 0; i < n; i++) {
            const int32_t own = d - (out->rank - in[i]->rank);
            const int64_t dim = own < 0 ? 1 : in[i]->dims[own];
            stride[i] = dim == 1 ? 0 : next[i];
            next[i] *= dim;
        }
        if (out->dims[d] == 0) b->rows = 0;
        add_dim(b, out->dims[d], stride);
    }
    for (int32_t d = 0; d < b->rank && b->rows > 0; d++) b->rows *= b->dims[d];
    return DIBIT_OK;
}

typedef struct broadcast_call {
    const dbt_broadcast *b;
    dbt_broadcast_run run;
    const void *ctx;
    int64_t parts; /* of a run */
    int64_t n_tasks;
} broadcast_call;

static void task(void *ctx, int64_t t, uint32_t thread) {
    (void)thread;
    const broadcast_call *const c = ctx;
    const dbt_broadcast *const b = c->b;
    const int64_t units = b->rows * c->parts;
    const int64_t begin = dbt_task_begin(units, c->n_tasks, t);
    const int64_t end = dbt_task_begin(units, c->n_tasks, t + 1);
    int64_t row = begin / c->parts, part = begin % c->parts;
    int64_t index[DIBIT_MAX_RANK], base[DBT_BROADCAST_INPUTS] = {0};
    for (int64_t d = 0, rest = row; d < b->rank; d++) {
        index[d] = rest % b->dims[d];
        rest /= b->dims[d];
        for (uint32_t i = 0; i < b->n_inputs; i++) base[i] += index[d] * b->strides[i][d];
    }
    for (int64_t u = begin; u < end; u++) {
        const int64_t first = part * MAX_RUN;
        const int64_t n = b->n - first < MAX_RUN ? b->n - first : MAX_RUN;
        int64_t in[DBT_BROADCAST_INPUTS];
        for (uint32_t i = 0; i < DBT_BROADCAST_INPUTS; i++) in[i] = base[i] + first * b->step[i];
        c->run(c->ctx, in, row * b->n + first, n);
        if (++part < c->parts) continue;
        part = 0;
        row++;
        for (int32_t d = 0; d < b->rank; d++) {
            for (uint32_t i = 0; i < b->n_inputs; i++) base[i] += b->strides[i][d];
            if (++index[d] < b->dims[d]) break;
            for (uint32_t i = 0; i < b->n_inputs; i++) base[i] -= b->strides[i][d] * b->dims[d];
            index[d] = 0;
        }
    }
}

void dbt_broadcast_for(const dbt_broadcast *b, dbt_pool *pool, int64_t cost, dbt_broadcast_run run,
                       const void *ctx) {
    if (b->rows == 0 || b->n == 0) return;
    broadcast_call c = {.b = b, .run = run, .ctx = ctx, .parts = (b->n + MAX_RUN - 1) / MAX_RUN};
    const int64_t units = b->rows * c.parts;
    c.n_tasks = dbt_task_count(units, (b->n / c.parts + 1) * cost);
    dbt_parallel_for(pool, c.n_tasks, task, &c);
}

dbt_broadcast_words dbt_broadcast_to_words(const dbt_broadcast *b) {
    dbt_broadcast_words w = {
        .count = (uint32_t)(b->rows * b->n), .run = (uint32_t)b->n, .rank = (uint32_t)b->rank};
    for (uint32_t i = 0; i < b->n_inputs; i++) {
        w.step[i] = (uint32_t)b->step[i];
        for (int32_t d = 0; d < b->rank; d++) w.strides[d][i] = (uint32_t)b->strides[i][d];
    }
    for (int32_t d = 0; d < b->rank; d++) w.dims[d] = (uint32_t)b->dims[d];
    return w;
}

/* Reductions of integers and bools: plain loops. Sums and products wrap; means, roots and logarithms
 * are truncated. */
#include <math.h>

#include "ops/reduce/reduce.h"

/* An element as 64 bits: sign-extended, or zero-extended for unsigned types. */
static int64_t load(dibit_type type, const void *data, int64_t i) {
    switch (type) {
    case DIBIT_TYPE_INT8: return ((const int8_t *)data)[i];
    case DIBIT_TYPE_INT16: return ((const int16_t *)data)[i];
    case DIBIT_TYPE_INT32: return ((const int32_t *)data)[i];
    case DIBIT_TYPE_UINT16: return ((const uint16_t *)data)[i];
    case DIBIT_TYPE_UINT32: return ((const uint32_t *)data)[i];
    case DIBIT_TYPE_INT64:
    case DIBIT_TYPE_UINT64: return ((const int64_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
    }
}

static void store(dibit_type type, void *data, int64_t i, int64_t v) {
    switch (dibit_type_bits(type)) {
    case 8: ((uint8_t *)data)[i] = (uint8_t)v; break;
    case 16: ((uint16_t *)data)[i] = (uint16_t)v; break;
    case 32: ((uint32_t *)data)[i] = (uint32_t)v; break;
    default: ((uint64_t *)data)[i] = (uint64_t)v; break;
    }
}

static int64_t lowest(dibit_type type) {
    return dbt_type_in(type, DBT_TYPES_SIGNED) ? INT64_MIN >> (64 - dibit_type_bits(type)) : 0;
}

static int64_t highest(dibit_type type) {
    if (type == DIBIT_TYPE_BOOL) return 1;
    return dbt_type_in(type, DBT_TYPES_SIGNED)
               ? INT64_MAX >> (64 - dibit_type_bits(type))
               : (int64_t)(UINT64_MAX >> (64 - dibit_type_bits(type)));
}

/* The value as ordered in 64 unsigned bits, so that one comparison serves all types. */
static uint64_t ordered(dibit_type type, int64_t v) {
    return dbt_type_in(type, DBT_TYPES_SIGNED) ? (uint64_t)v ^ 1ull << 63 : (uint64_t)v;
}

static double as_double(dibit_type type, int64_t v) {
    return type == DIBIT_TYPE_UINT64 ? (double)(uint64_t)v : (double)v;
}

static int64_t truncated(dibit_type type, double v) {
    if (v != v) return 0;
    const double hi = as_double(type, highest(type)), lo = as_double(type, lowest(type));
    if (v >= hi) return highest(type);
    return v <= lo ? lowest(type) : type == DIBIT_TYPE_UINT64 ? (int64_t)(uint64_t)v : (int64_t)v;
}

typedef struct integer_call {
    dbt_reduce_kind kind;
    const dbt_reduce_plan *plan;
    dibit_type type;
    const void *x;
    void *y;
    int64_t n_tasks;
} integer_call;

int64_t dbt_reduce_first(dbt_reduce_kind kind, dibit_type type) {
    return kind == DBT_REDUCE_MAX    ? lowest(type)
           : kind == DBT_REDUCE_MIN  ? highest(type)
           : kind == DBT_REDUCE_PROD ? 1
                                     : 0;
}

static int64_t step(dbt_reduce_kind kind, dibit_type type, int64_t a, int64_t v) {
    const uint64_t ua = (uint64_t)a, uv = (uint64_t)v;
    const bool is_negative = v < 0 && dbt_type_in(type, DBT_TYPES_SIGNED);
    switch (kind) {
    case DBT_REDUCE_MAX: return ordered(type, v) > ordered(type, a) ? v : a;
    case DBT_REDUCE_MIN: return ordered(type, v) < ordered(type, a) ? v : a;
    case DBT_REDUCE_PROD: return (int64_t)(ua * uv);
    case DBT_REDUCE_L1: return (int64_t)(is_negative ? ua - uv : ua + uv);
    case DBT_REDUCE_L2:
    case DBT_REDUCE_SUM_SQUARE: return (int64_t)(ua + uv * uv);
    default: return (int64_t)(ua + uv);
    }
}

static int64_t finish(dbt_reduce_kind kind, dibit_type type, int64_t a, double exponentials,
                      int64_t count) {
    switch (kind) {
    case DBT_REDUCE_MEAN:
        if (count == 0) return 0;
        return type == DIBIT_TYPE_UINT64 ? (int64_t)((uint64_t)a / (uint64_t)count) : a / count;
    case DBT_REDUCE_L2: return truncated(type, sqrt(as_double(type, a)));
    case DBT_REDUCE_LOG_SUM: return truncated(type, log(as_double(type, a)));
    case DBT_REDUCE_LOG_SUM_EXP: return truncated(type, log(exponentials));
    default: return a;
    }
}

static void task(void *ctx, int64_t t, uint32_t thread) {
    (void)thread;
    const integer_call *const c = ctx;
    const dbt_reduce_plan *const p = c->plan;
    const int64_t end = dbt_task_begin(p->outputs, c->n_tasks, t + 1);
    const int64_t width = p->columns ? p->n : 1, n = p->columns ? 1 : p->n;
    for (int64_t o = dbt_task_begin(p->outputs, c->n_tasks, t); o < end; o++) {
        const int64_t base = dbt_reduce_offset(&p->kept, o / width) + o % width;
        int64_t a = dbt_reduce_first(c->kind, c->type);
        double exponentials = 0;
        for (int64_t r = 0; r < p->reduced.count; r++) {
            const int64_t at = base + dbt_reduce_offset(&p->reduced, r);
            for (int64_t i = 0; i < n; i++) {
                const int64_t v = load(c->type, c->x, at + i);
                a = step(c->kind, c->type, a, v);
                if (c->kind == DBT_REDUCE_LOG_SUM_EXP) exponentials += exp(as_double(c->type, v));
            }
        }
        store(c->type, c->y, o, finish(c->kind, c->type, a, exponentials, p->count));
    }
}

void dbt_reduce_integer(dbt_reduce_kind kind, const dbt_reduce_plan *plan, const dibit_tensor *x,
                        void *y, dbt_pool *pool) {
    if (plan->outputs == 0) return;
    integer_call c = {.kind = kind, .plan = plan, .type = x->type, .x = x->data, .y = y};
    c.n_tasks = dbt_task_count(plan->outputs, plan->count * 4);
    dbt_parallel_for(pool, c.n_tasks, task, &c);
}

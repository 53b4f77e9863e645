/* A persistent thread pool with one operation: a parallel for over task indices.
 *
 * Tasks must write disjoint outputs and must not depend on which thread runs them: results do not
 * depend on the number of threads as long as the split into tasks does not. */
#ifndef DBT_BASE_POOL_H
#define DBT_BASE_POOL_H

#include "base/arena.h"

typedef struct dbt_pool dbt_pool;

/* n_threads includes the calling thread; 0: dbt_os_cores(). */
dibit_status dbt_pool_create(const dibit_allocator *allocator, uint32_t n_threads, dbt_pool **out,
                             dibit_error *error);
void dbt_pool_destroy(dbt_pool **pool);
/* 1 for NULL. */
uint32_t dbt_pool_threads(const dbt_pool *pool);

/* Runs task(ctx, i, thread) for every i in [0, n_tasks), n_tasks below 2^32, on any thread; thread is in
 * [0, dbt_pool_threads) and no two tasks run with the same thread number at once (for scratch).
 * Returns when all are done. pool NULL or n_tasks 1: on the calling thread, no synchronisation. */
typedef void (*dbt_task)(void *ctx, int64_t i, uint32_t thread);
void dbt_parallel_for(dbt_pool *pool, int64_t n_tasks, dbt_task task, void *ctx);

/* ---- What comes next ----
 *
 * At a job's end threads wait for the last of them, and during what is no job for the caller, while memory has nothing
 * to do. What each of them reads first in a later job is asked for meanwhile: hints to the caches, nothing is read. */

enum { DBT_PREFETCH_SPANS = 24 };
typedef struct dbt_prefetch {
    struct {
        uintptr_t at;
        int64_t lines; /* that are left to be asked for */
    } spans[DBT_PREFETCH_SPANS];
    uint32_t n_spans, next; /* they take turns */
} dbt_prefetch;

/* One span more; what there is no room for is left out. */
void dbt_prefetch_add(dbt_prefetch *prefetch, const void *data, int64_t bytes);
/* Adds what thread `thread` of `n_threads` reads first. Called on that thread, before the job that is under way ends. */
typedef void (*dbt_prefetch_of)(const void *ctx, uint32_t thread, uint32_t n_threads,
                                dbt_prefetch *prefetch);
/* From the next job on; NULL: nothing. Pools of more than two threads ask for nothing. */
void dbt_pool_prefetch(dbt_pool *pool, dbt_prefetch_of of, const void *ctx);

/* What a job cannot do without: bytes of memory that are read or written at least once, and products
 * that are added up, in int8 or float. */
typedef struct dbt_work {
    uint64_t bytes, int8_products, float_products;
} dbt_work;
/* Adds to what the pool's jobs have had to do, which profiles set beside the time and the machine's
 * limits. Ops do so on the thread that calls dbt_parallel_for. NULL: nothing is counted. */
void dbt_pool_count(dbt_pool *pool, const dbt_work *work);
dbt_work dbt_pool_counted(const dbt_pool *pool);

/* How many tasks to split `n` units of work into, each of about `unit_cost` scalar operations: 1
 * when it is not worth waking anyone. Depends on n and cost only, never on the thread count. */
int64_t dbt_task_count(int64_t n, int64_t unit_cost);
/* The half-open range of units that task i of n_tasks covers. */
static inline int64_t dbt_task_begin(int64_t n, int64_t n_tasks, int64_t i) {
    return n / n_tasks * i + (i < n % n_tasks ? i : n % n_tasks);
}

#endif

/* The thread pool.
 *
 * One job at a time. The caller publishes it by setting `left` and counting `generation` up; workers that see a
 * new generation take tasks until none is left, and so does the caller, which then waits for what others took:
 * nobody waits for a worker that has not come, since the system may run it much later. Whoever takes a task keeps
 * the job from ending until it is done, so a job's fields are read by nobody after the call that made it has
 * returned; a worker that comes too late finds nothing left, or a task of the next job.
 *
 * A worker that has nothing to do spins for SPIN_NS, which covers the gaps between the steps of one
 * token, then sleeps: an idle pool costs nothing. The caller wakes only when somebody sleeps. Whoever
 * spins yields every few microseconds: the thread that it waits for may have been put on the same core. */
#include "base/pool.h"

#include <stdalign.h>
#include <stdatomic.h>

#include "base/compiler.h"
#include "base/os.h"

enum { SPIN_NS = 50000, LINE = 64 };
/* With more threads it is chance who takes which task, and what lies in another's cache is no nearer than memory:
 * a token took 1.02 times as long with 4 threads, 1.05 with 8 and 1.08 with 16. */
enum { PREFETCH_THREADS = 2 };
#if DBT_X86_64
enum { SPINS = 128 }; /* between yields; a pause takes up to 140 cycles */
#else
enum { SPINS = 1024 };
#endif

typedef struct worker {
    dbt_pool *pool;
    uint32_t index;
    dbt_os_thread *thread;
    dbt_prefetch prefetch;
} worker;

struct dbt_pool {
    dbt_arena arena;
    uint32_t n_threads;
    worker *workers; /* [n_threads - 1]: thread i is workers[i - 1], the caller is thread 0 */
    dbt_os_sleep *sleep;
    bool sleep_ready;
    uint32_t n_started;
    dbt_work counted;
    dbt_prefetch prefetch; /* the caller's */
    /* The job. Each part is in a line of its own: all threads write `left`, those that are done `unfinished`, and those
     * that wait look at `generation` all the time. */
    alignas(LINE) dbt_task task;
    void *ctx;
    int64_t n_tasks;
    dbt_prefetch_of prefetch_of;
    const void *prefetch_ctx;
    alignas(LINE) _Atomic int64_t left;        /* tasks that nobody has taken, or less than none */
    alignas(LINE) _Atomic uint32_t unfinished; /* tasks */
    alignas(LINE) _Atomic uint32_t generation; /* counts jobs; the last one is for stopping */
    _Atomic uint32_t sleepers;
    _Atomic bool stop;
};

static inline void relax(void) {
#if DBT_X86_64
    __builtin_ia32_pause();
#endif
}

/* ---- Asking memory while waiting ---- */

void dbt_prefetch_add(dbt_prefetch *prefetch, const void *data, int64_t bytes) {
    if (prefetch->n_spans == DBT_PREFETCH_SPANS || bytes <= 0) return;
    prefetch->spans[prefetch->n_spans].at = (uintptr_t)data;
    prefetch->spans[prefetch->n_spans++].lines = (bytes + LINE - 1) / LINE;
}

/* Asks for a line of the span whose turn it is. */
static void ask_for_line(dbt_prefetch *prefetch) {
    const uint32_t i = prefetch->next;
    DBT_PREFETCH((const void *)prefetch->spans[i].at);
    prefetch->spans[i].at += LINE;
    if (--prefetch->spans[i].lines > 0) {
        prefetch->next = i + 1;
    } else {
        prefetch->spans[i] = prefetch->spans[--prefetch->n_spans];
    }
    if (prefetch->next >= prefetch->n_spans) prefetch->next = 0;
}

static void find_prefetch(const dbt_pool *pool, uint32_t thread, dbt_prefetch *prefetch) {
    prefetch->n_spans = prefetch->next = 0;
    if (pool->prefetch_of) pool->prefetch_of(pool->prefetch_ctx, thread, pool->n_threads, prefetch);
}

/* ---- Waiting ---- */

/* Whether *word differs from `seen` within SPINS looks. */
static bool spin_until_not(const _Atomic uint32_t *word, uint32_t seen, dbt_prefetch *prefetch) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != seen) return true;
        if (prefetch->n_spans == 0) relax();
        for (int line = 0; line < 4 && prefetch->n_spans > 0; line++) ask_for_line(prefetch);
    }
    return false;
}

/* Task i is the one that was taken when n_tasks - i were left. */
static void take_tasks(dbt_pool *pool, uint32_t thread, dbt_prefetch *prefetch) {
    uint32_t n = 0;
    for (int64_t left; (left = atomic_fetch_sub(&pool->left, 1)) > 0; n++)
        pool->task(pool->ctx, pool->n_tasks - left, thread);
    if (n == 0) return;
    find_prefetch(pool, thread, prefetch);
    atomic_fetch_sub_explicit(&pool->unfinished, n, memory_order_release);
}

static void wait_for_job(dbt_pool *pool, uint32_t seen, dbt_prefetch *prefetch) {
    const uint64_t end = dbt_os_nanoseconds() + SPIN_NS;
    do {
        if (spin_until_not(&pool->generation, seen, prefetch)) return;
        dbt_os_yield();
    } while (dbt_os_nanoseconds() < end);
    atomic_fetch_add(&pool->sleepers, 1);
    dbt_os_sleep_wait(pool->sleep, &pool->generation, seen);
    atomic_fetch_sub(&pool->sleepers, 1);
}

static void worker_main(void *ctx) {
    worker *const w = ctx;
    dbt_pool *const pool = w->pool;
    for (uint32_t seen = 0;;) {
        wait_for_job(pool, seen, &w->prefetch);
        seen = atomic_load(&pool->generation);
        if (atomic_load(&pool->stop)) return;
        take_tasks(pool, w->index, &w->prefetch);
    }
}

static void publish(dbt_pool *pool) {
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) > 0) dbt_os_sleep_wake(pool->sleep);
}

static dibit_status start(dbt_pool *pool, dibit_error *error) {
    const uint32_t n = pool->n_threads - 1;
    pool->workers = dbt_arena_array(&pool->arena, n, sizeof *pool->workers);
    pool->sleep = dbt_arena_alloc(&pool->arena, dbt_os_sleep_bytes());
    if (!pool->workers || !pool->sleep)
        return dbt_fail_memory(error, "threads", n * sizeof(worker));
    pool->sleep_ready = dbt_os_sleep_init(pool->sleep);
    DBT_FAIL_IF(!pool->sleep_ready, error, DIBIT_OUT_OF_MEMORY, "cannot create a thread pool");
    for (uint32_t i = 0; i < n; i++) {
        worker *const w = &pool->workers[i];
        *w = (worker){.pool = pool,
                      .index = i + 1,
                      .thread = dbt_arena_alloc(&pool->arena, dbt_os_thread_bytes())};
        if (!w->thread) return dbt_fail_memory(error, "threads", dbt_os_thread_bytes());
        DBT_FAIL_IF(!dbt_os_thread_start(w->thread, worker_main, w), error, DIBIT_OUT_OF_MEMORY,
                    "cannot start thread %u of %u", (unsigned)i + 2, (unsigned)pool->n_threads);
        pool->n_started++;
    }
    return DIBIT_OK;
}

dibit_status dbt_pool_create(const dibit_allocator *allocator, uint32_t n_threads, dbt_pool **out,
                             dibit_error *error) {
    if (n_threads == 0) n_threads = dbt_os_cores();
    const uint32_t most = dbt_os_max_threads();
    if (n_threads > most) n_threads = most;
    dbt_arena arena;
    dbt_arena_init(&arena, allocator);
    dbt_pool *pool = dbt_arena_alloc_aligned(&arena, sizeof *pool, 64);
    if (!pool) {
        dbt_arena_free(&arena);
        return dbt_fail_memory(error, "a thread pool", sizeof *pool);
    }
    pool->arena = arena;
    pool->n_threads = n_threads;
    const dibit_status status = start(pool, error);
    if (status != DIBIT_OK) {
        dbt_pool_destroy(&pool);
        return status;
    }
    *out = pool;
    return DIBIT_OK;
}

void dbt_pool_destroy(dbt_pool **pool) {
    dbt_pool *const p = pool ? *pool : NULL;
    if (!p) return;
    atomic_store(&p->stop, true);
    if (p->sleep_ready) {
        publish(p);
        dbt_os_sleep_wake(p->sleep);
    }
    for (uint32_t i = 0; i < p->n_started; i++) dbt_os_thread_join(p->workers[i].thread);
    if (p->sleep_ready) dbt_os_sleep_free(p->sleep);
    dbt_arena arena = p->arena; /* the pool itself lies in it */
    dbt_arena_free(&arena);
    *pool = NULL;
}

uint32_t dbt_pool_threads(const dbt_pool *pool) { return pool ? pool->n_threads : 1; }

void dbt_pool_count(dbt_pool *pool, const dbt_work *work) {
    if (!pool) return;
    pool->counted.bytes += work->bytes;
    pool->counted.int8_products += work->int8_products;
    pool->counted.float_products += work->float_products;
}

dbt_work dbt_pool_counted(const dbt_pool *pool) { return pool ? pool->counted : (dbt_work){0}; }

void dbt_pool_prefetch(dbt_pool *pool, dbt_prefetch_of of, const void *ctx) {
    if (!pool || pool->n_threads > PREFETCH_THREADS) return;
    pool->prefetch_of = of;
    pool->prefetch_ctx = ctx;
}

void dbt_parallel_for(dbt_pool *pool, int64_t n_tasks, dbt_task task, void *ctx) {
    if (!pool || pool->n_threads == 1 || n_tasks <= 1) {
        for (int64_t i = 0; i < n_tasks; i++) task(ctx, i, 0);
        return;
    }
    pool->task = task;
    pool->ctx = ctx;
    pool->n_tasks = n_tasks;
    atomic_store_explicit(&pool->unfinished, (uint32_t)n_tasks, memory_order_relaxed);
    atomic_store(&pool->left, n_tasks);
    publish(pool);
    take_tasks(pool, 0, &pool->prefetch);
    for (uint32_t n; (n = atomic_load_explicit(&pool->unfinished, memory_order_acquire)) != 0;) {
        if (!spin_until_not(&pool->unfinished, n, &pool->prefetch)) dbt_os_yield();
    }
}

int64_t dbt_task_count(int64_t n, int64_t unit_cost) {
    enum { TASK_COST = 16384, MAX_TASKS = 256 }; /* a task should outlast its hand-over, ~1 us */
    if (n <= 1) return n;
    const double cost = (double)n * (double)(unit_cost > 0 ? unit_cost : 1);
    int64_t tasks = cost / TASK_COST >= MAX_TASKS ? MAX_TASKS : (int64_t)(cost / TASK_COST);
    if (tasks < 1) tasks = 1;
    return tasks < n ? tasks : n;
}

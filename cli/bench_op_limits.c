/* The machine's own limits: see bench_op_limits.h. Each figure is the best of several tries, since whatever
 * disturbs one makes it slower. */
#include "bench_op_limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/cpu.h"
#include "base/pool.h"
#include "bench_op_loops.h"
/* ---- Measuring ---- */

/* A task for each thread: so a core finds in its caches what it read in the round before. */
typedef struct job {
    bench_read read;
    uint8_t *data;
    uint64_t task_bytes; /* a multiple of 512 */
    int64_t rounds;
    void (*run)(int64_t n);
} job;

static void task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const job *const j = ctx;
    if (j->run) {
        j->run(j->rounds);
        return;
    }
    for (int64_t r = 0; r < j->rounds; r++)
        j->read(j->data + (uint64_t)i * j->task_bytes, j->task_bytes);
}

/* Seconds of the best of some tries of 10 ms or more; sets the rounds that it takes. */
static double best_seconds(job *j, dbt_pool *pool) {
    const int64_t n_tasks = dbt_pool_threads(pool);
    double best = 1e9;
    for (int tries = 0; tries < 8;) {
        const double start = dibit_cli_seconds();
        dbt_parallel_for(pool, n_tasks, task, j);
        const double took = dibit_cli_seconds() - start;
        if (took < 0.01 && tries == 0) {
            j->rounds *= 2;
            continue;
        }
        if (took < best) best = took;
        tries++;
    }
    return best;
}

static double products_per_second(const bench_loop *l, dbt_pool *pool) {
    job j = {.run = l->run, .rounds = 64};
    const double seconds = best_seconds(&j, pool);
    return (double)j.rounds * dbt_pool_threads(pool) * l->per_round / seconds;
}

/* data has room for `bytes` and is 64-byte aligned. */
static double bytes_per_second(uint8_t *data, uint64_t bytes, uint64_t isa, dbt_pool *pool) {
    const uint32_t n_tasks = dbt_pool_threads(pool);
    job j = {.read = bench_reader(isa), .data = data, .rounds = 1};
    j.task_bytes = bytes / n_tasks / 512 * 512;
    if (j.task_bytes == 0) j.task_bytes = 512;
    const double seconds = best_seconds(&j, pool);
    return (double)j.rounds * (double)n_tasks * (double)j.task_bytes / seconds;
}

/* At least as much as bytes_per_second reads for this number of threads. */
static uint8_t *make_data(uint64_t bytes, uint32_t threads) {
    const uint64_t least = (uint64_t)threads * 512;
    const uint64_t size = ((bytes > least ? bytes : least) + 4095) / 4096 * 4096;
    uint8_t *const data = aligned_alloc(4096, (size_t)size);
    if (data) memset(data, 1, (size_t)size);
    return data;
}

dibit_status bench_limits_measure(uint32_t threads, uint64_t isa, uint64_t bytes, bench_limits *out,
                                  dibit_error *error) {
    dbt_pool *pool;
    dibit_status status = dbt_pool_create(NULL, threads, &pool, error);
    if (status) return status;
    isa = dbt_cpu_isa(isa);
    *out = (bench_limits){0};
    uint8_t *const data = make_data(bytes, dbt_pool_threads(pool));
    if (data) {
        out->bytes = bytes_per_second(data, bytes, isa, pool);
    } else {
        status = dbt_fail_memory(error, "measuring", bytes);
    }
    for (size_t i = 0; i < bench_loop_count && !status; i++) {
        if ((bench_loops[i].isa & isa) != bench_loops[i].isa) continue;
        double *const best = bench_loops[i].int8 ? &out->int8_products : &out->float_products;
        const double got = products_per_second(&bench_loops[i], pool);
        if (got > *best) *best = got;
    }
    free(data);
    dbt_pool_destroy(&pool);
    return status;
}

/* ---- The table ---- */

static void report(json_t *rows, const char *name, const char *unit, double scale, double one,
                   double all) {
    if (rows) {
        json_array_append_new(rows,
                              json_pack("{s:s, s:s, s:f, s:f}", "limit", name, "unit", unit,
                                        "one_thread", one * scale, "all_threads", all * scale));
    } else {
        printf("%-24s %12.1f %12.1f  %s\n", name, one * scale, all * scale, unit);
        fflush(stdout);
    }
}

static void report_all(dbt_pool *one, dbt_pool *all, uint64_t isa, uint8_t *data, uint64_t most,
                       json_t *rows) {
    for (uint64_t bytes = UINT64_C(1) << 18; bytes <= most; bytes *= 4) {
        char name[40];
        const bool small = bytes < UINT64_C(1) << 20;
        snprintf(name, sizeof name, "read of %llu %s",
                 (unsigned long long)(bytes >> (small ? 10 : 20)), small ? "KB" : "MB");
        report(rows, name, "GB/s", 1e-9, bytes_per_second(data, bytes, isa, one),
               bytes_per_second(data, bytes, isa, all));
    }
    for (size_t i = 0; i < bench_loop_count; i++) {
        if ((bench_loops[i].isa & isa) != bench_loops[i].isa) continue;
        report(rows, bench_loops[i].name, "G products/s", 1e-9,
               products_per_second(&bench_loops[i], one),
               products_per_second(&bench_loops[i], all));
    }
}

static void print_caches(void) {
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE), l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (l2 > 0) printf("caches: L2 %ld KB a core, L3 %ld MB\n", l2 >> 10, l3 >> 20);
#endif
}

int bench_op_print_limits(const dibit_cli_common *common, uint32_t megabytes) {
    dibit_error error;
    dbt_pool *one = NULL, *all = NULL;
    const uint64_t isa = dbt_cpu_isa(common->isa), most = (uint64_t)megabytes << 20;
    uint8_t *data = NULL;
    int code = 0;
    if (dbt_pool_create(NULL, 1, &one, &error) ||
        dbt_pool_create(NULL, common->threads, &all, &error)) {
        code = dibit_cli_fail("bench-op", error.text);
    } else if (!(data = make_data(most, dbt_pool_threads(all)))) {
        code = dibit_cli_fail("bench-op", "out of memory");
    } else {
        json_t *const rows = common->json ? json_array() : NULL;
        if (!rows) {
            print_caches();
            printf("%-24s %12s %10u threads\n", "at most", "1 thread",
                   (unsigned)dbt_pool_threads(all));
        }
        report_all(one, all, isa, data, most, rows);
        if (rows) {
            json_dumpf(rows, stdout, JSON_INDENT(1));
            printf("\n");
        }
        json_decref(rows);
    }
    free(data);
    dbt_pool_destroy(&one);
    dbt_pool_destroy(&all);
    return code;
}

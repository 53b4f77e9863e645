/* dibit bench-op on a device: chains of layers, each of which reads what the one before it wrote, as in a
 * model. Time goes from the first dispatch's recording to the end of the last; the device's own timestamps
 * say how much of it the device was at work. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/os.h"
#include "bench_op.h"
#include "model.h"
#include "ops/matmul_nbits/nbits_gpu.h"

static const char *const verb = "bench-op";

enum { LAYERS = 32, MOST_LAYERS = 450 };

typedef struct bench bench;
struct bench {
    bench *checked; /* the same on a device whose shaders have checks; NULL */
    dibit_device *device;
    dbt_gpu *gpu;
    dbt_hal *hal;
    bench_op_chain chain;
    dbt_nbits_gpu_problem layers[LAYERS];
    dbt_hal_buffer *x[2]; /* [M, K] and [M, N], in turn */
    dibit_error error;
};

/* Microseconds a layer. */
typedef struct timing {
    double median, least, busy; /* busy: 0 without timestamps */
    double checked;             /* with checks in shaders, times as long: the median of pairs; 0 */
} timing;

/* ---- Buffers ---- */

static void ok(const bench *b, dibit_status status) {
    if (status != DIBIT_OK) exit(dibit_cli_fail(verb, b->error.text));
}

static dbt_hal_buffer *upload(bench *b, const void *data, uint64_t bytes) {
    dbt_hal_buffer *buffer = NULL;
    const uint64_t whole = bytes / 4 * 4;
    ok(b, dbt_gpu_buffer_create(b->gpu, (bytes + 3) / 4 * 4, &buffer, &b->error));
    ok(b, b->hal->calls->write(b->hal, buffer, 0, data, whole, &b->error));
    if (bytes > whole) {
        uint32_t rest = 0;
        memcpy(&rest, (const uint8_t *)data + whole, (size_t)(bytes - whole));
        ok(b, b->hal->calls->write(b->hal, buffer, whole, &rest, 4, &b->error));
    }
    return buffer;
}

/* Submits, and waits until the device has done everything: a word comes back. */
static void finish(bench *b, dbt_hal_buffer *buffer) {
    uint32_t word;
    uint64_t ticket;
    ok(b, dbt_gpu_read(b->gpu, buffer, 0, &word, sizeof word, &ticket, &b->error));
    dibit_status status;
    while ((status = b->hal->calls->poll(b->hal, ticket, &b->error)) == DIBIT_PENDING) continue;
    ok(b, status);
}

static void open_chain(bench *b, const nbits_config *config, int64_t most_m) {
    b->chain = bench_op_chain_make(config, most_m, false, LAYERS, 0);
    const dbt_matmul_nbits *const p = &b->chain.p;
    const uint64_t n_scales = (uint64_t)(p->N * p->k_blocks);
    const uint64_t zero_bytes = p->zero_point_type == DIBIT_TYPE_UINT8
                                    ? (uint64_t)(p->N * dbt_nbits_zero_row_bytes(p))
                                    : n_scales * dibit_type_bits(p->zero_point_type) / 8;
    dbt_hal_buffer *g_idx = NULL, *bias = NULL;
    if (p->g_idx) g_idx = upload(b, b->chain.g_idx, (uint64_t)p->K * 4);
    if (p->bias) bias = upload(b, b->chain.bias, (uint64_t)p->N * 4);
    for (uint32_t i = 0; i < LAYERS; i++) {
        const bench_op_layer *const layer = &b->chain.layers[i];
        dbt_nbits_gpu_problem *const problem = &b->layers[i];
        *problem = (dbt_nbits_gpu_problem){.p = *p, .g_idx = g_idx, .bias = bias};
        problem->b = upload(b, layer->b, (uint64_t)(p->N * dbt_nbits_row_bytes(p)));
        problem->scales = upload(b, layer->scales, n_scales * dibit_type_bits(p->scale_type) / 8);
        if (zero_bytes) problem->zero_points = upload(b, layer->zero_points, zero_bytes);
    }
    const uint64_t widest = (uint64_t)(p->N > p->K ? p->N : p->K);
    const uint64_t bytes = (uint64_t)most_m * widest * 4;
    for (int i = 0; i < 2; i++) ok(b, dbt_gpu_buffer_create(b->gpu, bytes, &b->x[i], &b->error));
}

static void close_chain(bench *b) {
    for (uint32_t i = 0; i < LAYERS; i++) {
        dbt_gpu_buffer_destroy(b->gpu, b->layers[i].b);
        dbt_gpu_buffer_destroy(b->gpu, b->layers[i].scales);
        dbt_gpu_buffer_destroy(b->gpu, b->layers[i].zero_points);
    }
    dbt_gpu_buffer_destroy(b->gpu, b->layers[0].g_idx);
    dbt_gpu_buffer_destroy(b->gpu, b->layers[0].bias);
    for (int i = 0; i < 2; i++) dbt_gpu_buffer_destroy(b->gpu, b->x[i]);
    bench_op_chain_free(&b->chain);
}

/* ---- Measuring ---- */

/* Seconds from recording the first of so many layers to the end of the last; A is the chain's at first. */
static double run(bench *b, const dbt_nbits_gpu_kernel *kernel, int64_t M, uint32_t n_layers) {
    const dbt_matmul_nbits *const p = &b->chain.p;
    const bool chained = p->N == p->K;
    ok(b,
       b->hal->calls->write(b->hal, b->x[0], 0, b->chain.a, (uint64_t)(M * p->K) * 4, &b->error));
    finish(b, b->x[0]);
    const uint64_t start = dbt_os_nanoseconds();
    for (uint32_t i = 0; i < n_layers; i++) {
        dbt_nbits_gpu_problem layer = b->layers[i % LAYERS];
        layer.p.M = M;
        layer.p.int8_activations = kernel->int8;
        layer.a = b->x[chained ? i % 2 : 0];
        layer.y = b->x[chained ? 1 - i % 2 : 1];
        ok(b, dbt_nbits_gpu_record(b->gpu, kernel, &layer, &b->error));
    }
    finish(b, b->x[0]);
    return (double)(dbt_os_nanoseconds() - start) * 1e-9;
}

/* Microseconds that the device has been at work, once it is done. */
static double busy(bench *b) {
    uint64_t ns;
    dibit_status status;
    while ((status = dbt_gpu_time_all(b->gpu, &ns, &b->error)) == DIBIT_PENDING) continue;
    ok(b, status);
    return (double)ns * 1e-3;
}

static timing measure(bench *b, const dbt_nbits_gpu_kernel *kernel, int64_t M) {
    enum { ROUNDS = 9 };
    bench *const checked = b->checked;
    run(b, kernel, M, LAYERS); /* compiles */
    if (checked) run(checked, kernel, M, LAYERS);
    const double first = run(b, kernel, M, LAYERS);
    uint32_t n_layers = LAYERS;
    while (2 * n_layers <= MOST_LAYERS && first * n_layers / LAYERS < 0.05) n_layers *= 2;
    double us[ROUNDS], busy_us[ROUNDS], ratios[ROUNDS] = {0};
    for (int i = 0; i < ROUNDS; i++) {
        const double before = busy(b);
        us[i] = run(b, kernel, M, n_layers) / n_layers * 1e6;
        busy_us[i] = (busy(b) - before) / n_layers;
        if (checked) ratios[i] = run(checked, kernel, M, n_layers) / n_layers * 1e6 / us[i];
    }
    qsort(us, ROUNDS, sizeof *us, bench_op_compare_doubles);
    qsort(busy_us, ROUNDS, sizeof *busy_us, bench_op_compare_doubles);
    qsort(ratios, ROUNDS, sizeof *ratios, bench_op_compare_doubles);
    return (timing){us[ROUNDS / 2], us[0], busy_us[ROUNDS / 2], ratios[ROUNDS / 2]};
}

/* ---- Reporting ---- */

static void report(const bench *b, const dbt_nbits_gpu_kernel *kernel, bool chosen, int64_t M,
                   timing t, json_t *rows) {
    const dbt_matmul_nbits *const p = &b->chain.p;
    const double gb = (double)b->chain.layer_bytes / t.median / 1e3;
    const double gflops = 2.0 * (double)M * (double)p->N * (double)p->K / t.median / 1e3;
    const char *const activations = kernel->int8 ? "int8" : "float";
    if (!rows) {
        printf("%6lld %6lld %6lld %4u %6lld %-8s %-6s %9.1f %9.1f %9.1f %8.1f %9.1f  %s\n",
               (long long)M, (long long)p->N, (long long)p->K, (unsigned)p->bits,
               (long long)p->block_size, bench_op_zp_name(p->zero_point_type), activations,
               t.median, t.least, t.busy, gb, gflops, kernel->name);
        if (b->checked) printf("%*s with checks %.2f times as long\n", 92, "", t.checked);
        fflush(stdout);
        return;
    }
    json_array_append_new(
        rows,
        json_pack("{s:s, s:b, s:I, s:I, s:I, s:i, s:I, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f}",
                  "kernel", kernel->name, "chosen", (int)chosen, "m", (json_int_t)M, "n",
                  (json_int_t)p->N, "k", (json_int_t)p->K, "bits", (int)p->bits, "block",
                  (json_int_t)p->block_size, "zero_points", bench_op_zp_name(p->zero_point_type),
                  "activations", activations, "us", t.median, "us_least", t.least, "us_busy",
                  t.busy, "gb_per_s", gb, "gflop_per_s", gflops, "checked_ratio", t.checked));
}

/* ---- Rows ---- */

static bool is_asked_for(const bench_op_options *o, const dbt_nbits_gpu_kernel *kernel,
                         const dbt_nbits_gpu_kernel *chosen, int64_t M) {
    if (o->kernel) return strcmp(o->kernel, kernel->name) == 0;
    /* A matvec goes through B for each m_rows of A. */
    if (kernel->software && o->all) return true;
    return o->all ? kernel->tile ? M > 4 : M <= 8 * (int64_t)kernel->m_rows : kernel == chosen;
}

static bool run_m(bench *b, const bench_op_options *o, int64_t M, bool int8, json_t *rows) {
    dbt_nbits_gpu_problem problem = b->layers[0];
    problem.p.M = M;
    problem.p.int8_activations = int8;
    if (int8 && problem.g_idx) return false;
    const dbt_nbits_gpu_kernel *const chosen = dbt_nbits_gpu_choose(&problem, b->hal, UINT64_MAX);
    bool ran = false;
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[i];
        if (!is_asked_for(o, kernel, chosen, M) || !dbt_nbits_gpu_fits(kernel, &problem, b->hal))
            continue;
        report(b, kernel, kernel == chosen, M, measure(b, kernel, M), rows);
        ran = true;
    }
    return ran;
}

static bool run_config(bench *b, const bench_op_options *o, const nbits_config *config,
                       json_t *rows) {
    static const int64_t some_m[] = {1, 8, 128, 1024};
    static const int64_t every_m[] = {1,  2,  4,  8,   12,  16,  24,  32,
                                      48, 64, 96, 128, 192, 256, 512, 1024};
    const int64_t *const ms = o->all ? every_m : some_m;
    const int n = o->m ? 1 : o->all ? sizeof every_m / sizeof *every_m : 4;
    bool ran = false;
    open_chain(b, config, o->m ? o->m : ms[n - 1]);
    if (b->checked) open_chain(b->checked, config, o->m ? o->m : ms[n - 1]);
    for (int i = 0; i < n; i++) {
        for (int int8 = 0; int8 < 2; int8++) {
            const dibit_activations other = int8 ? DIBIT_ACTIVATIONS_FLOAT : DIBIT_ACTIVATIONS_INT8;
            if (o->common.activations == other) continue;
            ran |= run_m(b, o, o->m ? o->m : ms[i], int8 != 0, rows);
        }
    }
    close_chain(b);
    if (b->checked) close_chain(b->checked);
    return ran;
}

/* 0, or after a sentence the exit code. */
static int open_bench(bench *b, const dibit_cli_common *common) {
    const char *why;
    if (dibit_cli_open_device(common, &b->device, &why, &b->error) != DIBIT_OK)
        return dibit_cli_fail(verb, b->error.text);
    b->gpu = b->device->gpu;
    if (!b->gpu) return dibit_cli_fail(verb, "there is no GPU to measure");
    b->hal = dbt_gpu_hal(b->gpu);
    ok(b, dbt_gpu_time(b->gpu, DBT_HAL_TIME_PASSES, &b->error));
    return 0;
}

static bool run_all(bench *b, const bench_op_options *o, const nbits_config *configs, uint32_t n) {
    json_t *const rows = o->common.json ? json_array() : NULL;
    if (!rows) {
        printf("matmul_nbits, %s; microseconds a layer\n", b->hal->name);
        printf("%6s %6s %6s %4s %6s %-8s %-6s %9s %9s %9s %8s %9s  %s\n", "M", "N", "K", "bits",
               "block", "zp", "act", "median", "least", "busy", "GB/s", "GFLOP/s", "kernel");
    }
    bool ran = false;
    for (uint32_t i = 0; i < n; i++) ran |= run_config(b, o, &configs[i], rows);
    if (rows) {
        json_dumpf(rows, stdout, JSON_INDENT(1));
        printf("\n");
    }
    json_decref(rows);
    return ran;
}

int bench_op_on_device(const bench_op_options *o, const nbits_config *configs, uint32_t n) {
    bench b = {.checked = NULL}, checked = {.checked = NULL};
    dibit_cli_common with_checks = o->common;
    with_checks.checked_shaders = true;
    int code = open_bench(&b, &o->common);
    if (code == 0 && o->checked_shaders) {
        b.checked = &checked;
        code = open_bench(&checked, &with_checks);
    }
    if (code == 0 && !run_all(&b, o, configs, n))
        code = dibit_cli_usage(verb, "no kernel fits (see --list)");
    dibit_device_destroy(&checked.device);
    dibit_device_destroy(&b.device);
    return code;
}

void bench_op_list_device_kernels(void) {
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        const dbt_nbits_gpu_kernel *const k = &dbt_nbits_gpu_kernels[i];
        printf("%-36s %-5s activations, from M %lld%s\n", k->name, k->int8 ? "int8" : "float",
               (long long)k->least_m, k->subgroups ? ", subgroups" : "");
    }
}

/* Where the time of a session went: see bench_profile.h. Shares are of the GPU's time where it was
 * measured, else of the CPU's; on a GPU that is the time to record a step. */
#include "bench_profile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
    const char *op, *name, *kernel;
    uint64_t runs, dispatches;
    double bytes, int8_products, float_products;
    double cpu, device; /* seconds */
} entry;

struct bench_profile {
    uint32_t runs, n_steps, n_ops;
    entry *steps, *ops;
    bool on_device; /* the device's times are known */
    bool has_limits;
    bench_limits limits;
};

static double seconds_of(const entry *e, bool on_device) { return on_device ? e->device : e->cpu; }

static int compare_device(const void *a, const void *b) {
    const double x = ((const entry *)a)->device, y = ((const entry *)b)->device;
    return (x < y) - (x > y);
}

static int compare_cpu(const void *a, const void *b) {
    const double x = ((const entry *)a)->cpu, y = ((const entry *)b)->cpu;
    return (x < y) - (x > y);
}

static void add_to_op(bench_profile *p, const entry *step) {
    uint32_t i = 0;
    while (i < p->n_ops && strcmp(p->ops[i].op, step->op) != 0) i++;
    if (i == p->n_ops) p->ops[p->n_ops++] = (entry){.op = step->op, .name = "", .kernel = ""};
    p->ops[i].runs += step->runs;
    p->ops[i].dispatches += step->dispatches;
    p->ops[i].cpu += step->cpu;
    p->ops[i].device += step->device;
    p->ops[i].bytes += step->bytes;
    p->ops[i].int8_products += step->int8_products;
    p->ops[i].float_products += step->float_products;
}

bench_profile *bench_profile_take(const dibit_session *session, uint32_t runs) {
    dibit_session_info info;
    dibit_session_get_info(session, &info);
    bench_profile *const p = dibit_cli_alloc(1, sizeof *p);
    p->runs = runs;
    p->steps = dibit_cli_alloc(info.n_steps, sizeof *p->steps);
    p->ops = dibit_cli_alloc(info.n_steps, sizeof *p->ops);
    dibit_step_info step;
    while (p->n_steps < info.n_steps && !dibit_session_step(session, p->n_steps, &step)) {
        entry *const e = &p->steps[p->n_steps++];
        *e = (entry){.op = step.op,
                     .name = step.name,
                     .kernel = step.kernel,
                     .runs = step.runs,
                     .dispatches = step.dispatches,
                     .cpu = step.seconds,
                     .device = step.device_seconds,
                     .bytes = (double)step.bytes,
                     .int8_products = (double)step.int8_products,
                     .float_products = (double)step.float_products};
        p->on_device |= e->device > 0;
        add_to_op(p, e);
    }
    int (*const compare)(const void *, const void *) = p->on_device ? compare_device : compare_cpu;
    qsort(p->steps, p->n_steps, sizeof *p->steps, compare);
    qsort(p->ops, p->n_ops, sizeof *p->ops, compare);
    return p;
}

static double total_seconds(const bench_profile *p) {
    double total = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) total += seconds_of(&p->ops[i], p->on_device);
    return total;
}

/* The sum of all operators. */
static entry total_of(const bench_profile *p) {
    entry total = {.op = "in all", .name = "", .kernel = ""};
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const entry *const e = &p->ops[i];
        total.runs += e->runs;
        total.dispatches += e->dispatches;
        total.cpu += e->cpu;
        total.device += e->device;
        total.bytes += e->bytes;
        total.int8_products += e->int8_products;
        total.float_products += e->float_products;
    }
    return total;
}

dibit_status bench_profile_measure_limits(bench_profile *p, uint32_t threads, uint64_t isa,
                                          dibit_error *error) {
    const entry total = total_of(p);
    if (p->on_device || total.bytes == 0) return DIBIT_OK;
    const dibit_status status =
        bench_limits_measure(threads, isa, (uint64_t)(total.bytes / p->runs), &p->limits, error);
    p->has_limits = status == DIBIT_OK;
    return status;
}

/* What the machine would need at least, in seconds, and which of its limits says so. */
static double least_seconds(const bench_profile *p, const entry *e, const char **bound) {
    const double bytes = e->bytes / p->limits.bytes;
    const double products =
        e->int8_products / p->limits.int8_products + e->float_products / p->limits.float_products;
    *bound = bytes >= products ? "bytes" : e->int8_products > e->float_products ? "int8" : "float";
    return bytes >= products ? bytes : products;
}

/* All figures for one run; the share of the limit that was reached is what it would take at least over
 * what it took. */
static void print_with_limits(const bench_profile *p, const entry *entries, uint32_t n) {
    const double runs = p->runs;
    const entry total = total_of(p);
    printf("%8s %10s %8s %10s %12s %14s\n", "share", "us", "steps", "MB", "M products",
           "of the limit");
    for (uint32_t i = 0; i < n; i++) {
        const entry *const e = &entries[i];
        if (e->runs == 0) continue;
        const char *bound;
        const double least = least_seconds(p, e, &bound);
        printf("%6.2f %% %10.1f %8.1f %10.3f %12.3f %6.1f %% %-5s  %-32s %-20s %s\n",
               total.cpu > 0 ? 100 * e->cpu / total.cpu : 0, 1e6 * e->cpu / runs,
               (double)e->runs / runs, 1e-6 * e->bytes / runs,
               1e-6 * (e->int8_products + e->float_products) / runs,
               e->cpu > 0 ? 100 * least / e->cpu : 0, bound, e->op, e->kernel, e->name);
    }
}

/* All figures for one run. */
static void print_entries(const bench_profile *p, const entry *entries, uint32_t n) {
    if (p->has_limits) {
        print_with_limits(p, entries, n);
        return;
    }
    const double total = total_seconds(p), runs = p->runs;
    printf("%8s %10s %10s %11s %8s\n", "share", "GPU us", "CPU us", "dispatches", "steps");
    for (uint32_t i = 0; i < n; i++) {
        const entry *const e = &entries[i];
        if (e->runs == 0) continue;
        printf("%6.2f %% %10.1f %10.1f %11.1f %8.1f  %-32s %-20s %s\n",
               total > 0 ? 100 * seconds_of(e, p->on_device) / total : 0, 1e6 * e->device / runs,
               1e6 * e->cpu / runs, (double)e->dispatches / runs, (double)e->runs / runs, e->op,
               e->kernel, e->name);
    }
}

void bench_profile_print(const bench_profile *p, const char *title) {
    printf("\n%s, by operator; means of %u runs\n", title, p->runs);
    if (p->has_limits) {
        printf("the limits: %.1f GB/s read of as many bytes, %.1f G int8 and %.1f G float "
               "products/s\n",
               1e-9 * p->limits.bytes, 1e-9 * p->limits.int8_products,
               1e-9 * p->limits.float_products);
    }
    print_entries(p, p->ops, p->n_ops);
    if (p->has_limits) {
        const entry total = total_of(p);
        print_entries(p, &total, 1);
    }
    printf("\n%s, by step, the 20 longest\n", title);
    print_entries(p, p->steps, p->n_steps < 20 ? p->n_steps : 20);
}

static json_t *entry_json(const bench_profile *p, const entry *e, double total) {
    const double runs = p->runs;
    json_t *const row = json_pack(
        "{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "op", e->op, "share",
        total > 0 ? seconds_of(e, p->on_device) / total : 0, "gpu_us", 1e6 * e->device / runs,
        "cpu_us", 1e6 * e->cpu / runs, "dispatches", (double)e->dispatches / runs, "steps",
        (double)e->runs / runs, "bytes", e->bytes / runs, "int8_products", e->int8_products / runs,
        "float_products", e->float_products / runs);
    if (p->has_limits && e->cpu > 0) {
        const char *bound;
        const double least = least_seconds(p, e, &bound);
        json_object_set_new(row, "of_the_limit", json_real(least / e->cpu));
        json_object_set_new(row, "limit", json_string(bound));
    }
    return row;
}

json_t *bench_profile_json(const bench_profile *p) {
    json_t *const rows = json_array();
    const double seconds = total_seconds(p);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        if (p->ops[i].runs > 0) json_array_append_new(rows, entry_json(p, &p->ops[i], seconds));
    }
    const entry total = total_of(p);
    json_t *const limits =
        !p->has_limits
            ? json_null()
            : json_pack("{s:f, s:f, s:f}", "bytes_per_s", p->limits.bytes, "int8_products_per_s",
                        p->limits.int8_products, "float_products_per_s", p->limits.float_products);
    return json_pack("{s:o, s:o, s:o}", "limits", limits, "ops", rows, "total",
                     entry_json(p, &total, seconds));
}

void bench_profile_free(bench_profile *p) {
    if (!p) return;
    free(p->steps);
    free(p->ops);
    free(p);
}

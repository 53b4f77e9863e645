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
    double cpu, device; /* seconds */
} entry;

struct bench_profile {
    uint32_t runs, n_steps, n_ops;
    entry *steps, *ops;
    bool on_device; /* the device's times are known */
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
                     .device = step.device_seconds};
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

/* All figures for one run. */
static void print_entries(const bench_profile *p, const entry *entries, uint32_t n) {
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
    print_entries(p, p->ops, p->n_ops);
    printf("\n%s, by step, the 20 longest\n", title);
    print_entries(p, p->steps, p->n_steps < 20 ? p->n_steps : 20);
}

json_t *bench_profile_json(const bench_profile *p) {
    json_t *const rows = json_array();
    const double total = total_seconds(p), runs = p->runs;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const entry *const e = &p->ops[i];
        if (e->runs == 0) continue;
        json_array_append_new(
            rows, json_pack("{s:s, s:f, s:f, s:f, s:f, s:f}", "op", e->op, "share",
                            total > 0 ? seconds_of(e, p->on_device) / total : 0, "gpu_us",
                            1e6 * e->device / runs, "cpu_us", 1e6 * e->cpu / runs, "dispatches",
                            (double)e->dispatches / runs, "steps", (double)e->runs / runs));
    }
    return rows;
}

void bench_profile_free(bench_profile *p) {
    if (!p) return;
    free(p->steps);
    free(p->ops);
    free(p);
}

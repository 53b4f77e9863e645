/* dibit tune: which kernels of MatMulNBits are fastest on this machine, as a file for --tune, or as lines
 * of the checked-in list. For each width, kind of activations and number of rows M, all kernels that fit
 * take turns over some sizes. One replaces the list's choice only where it won every round by MARGIN or
 * more, so that noise alone changes nothing; a rule holds up to the next M that was tried. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/cpu.h"
#include "bench_op.h"
#include "text.h"

static const char *const verb = "tune";

#define MARGIN 1.05     /* times as fast as the list's choice, in the worst round */
#define HOPELESS 1.3    /* times as slow as it in one try: not tried again */
#define LEAST_TIME 3e-3 /* seconds of one timing */

static const int64_t rows[] = {1, 2, 4, 8, 16, 32, 64, 256};
static const struct {
    int64_t N, K;
} sizes[] = {{1536, 576}, {576, 1536}, {2048, 2048}};
enum {
    N_ROWS = sizeof rows / sizeof rows[0],
    N_SIZES = sizeof sizes / sizeof sizes[0],
    MAX_KERNELS = 16,
    MAX_ROUNDS = 20,
    FEW_ROWS = 8,            /* up to here weights come from beyond the caches of a core ... */
    FEW_ROWS_MEGABYTES = 12, /* ... if they are as many as this */
};

typedef struct tune_options {
    dibit_cli_common common;
    uint32_t bits, m, rounds;
    const char *out, *list;
} tune_options;

/* ---- One width, kind of activations and M ---- */

typedef struct contest {
    const dbt_nbits_kernel *kernels[MAX_KERNELS]; /* the first is the list's choice */
    int n;
    double gain[MAX_KERNELS]
               [MAX_ROUNDS]; /* how often it is as fast as the first; mean over sizes */
} contest;

static double seconds_of(bench_op_chain *c, const dbt_nbits_kernel *kernel, dbt_pool *pool) {
    void *const scratch = bench_op_scratch(c, kernel, pool);
    double total = 0;
    int n = 0;
    for (; total < LEAST_TIME; n++) total += bench_op_pass(c, kernel, pool, scratch);
    free(scratch);
    return total / n;
}

/* The kernels that fit and are not far slower than the list's choice. Plain C is no match for others. */
static void find_kernels(contest *t, bench_op_chain *c, uint64_t isa, dbt_pool *pool) {
    const dbt_nbits_kernel *const choice = dbt_nbits_choose(&c->p, isa);
    t->kernels[t->n++] = choice;
    seconds_of(c, choice, pool); /* warms up */
    const double limit = HOPELESS * seconds_of(c, choice, pool);
    for (size_t i = 0; i < dbt_nbits_kernel_count && t->n < MAX_KERNELS; i++) {
        const dbt_nbits_kernel *const k = &dbt_nbits_kernels[i];
        if (k == choice || !dbt_nbits_kernel_fits(k, &c->p, isa) || (k->isa == 0 && choice->isa))
            continue;
        seconds_of(c, k, pool);
        if (seconds_of(c, k, pool) < limit) t->kernels[t->n++] = k;
    }
}

static contest hold(const tune_options *o, uint32_t bits, bool int8, int64_t M, dbt_pool *pool) {
    const uint64_t isa = dbt_cpu_isa(o->common.isa);
    contest t = {.n = 0};
    for (int s = 0; s < N_SIZES; s++) {
        const nbits_config config = {.N = sizes[s].N,
                                     .K = sizes[s].K,
                                     .block_size = 32,
                                     .bits = bits,
                                     .scale_type = DIBIT_TYPE_FLOAT,
                                     .zero_point_type = DIBIT_TYPE_UINT8,
                                     .accuracy_level = 4};
        bench_op_chain c =
            bench_op_chain_make(&config, M, int8, M > FEW_ROWS, (uint64_t)FEW_ROWS_MEGABYTES << 20);
        if (s == 0) find_kernels(&t, &c, isa, pool);
        for (uint32_t r = 0; r < o->rounds && t.n > 1; r++) {
            const double first = seconds_of(&c, t.kernels[0], pool);
            for (int k = 1; k < t.n; k++)
                t.gain[k][r] += log(first / seconds_of(&c, t.kernels[k], pool)) / N_SIZES;
        }
        bench_op_chain_free(&c);
    }
    return t;
}

typedef struct verdict {
    const dbt_nbits_kernel *kernel; /* NULL: the list's choice stays */
    const dbt_nbits_kernel *choice;
    double least, median; /* times as fast as the choice */
} verdict;

static const dbt_nbits_kernel *winner(const verdict *v) {
    return v->kernel ? v->kernel : v->choice;
}

static verdict judge(contest *t, uint32_t rounds) {
    verdict best = {.choice = t->kernels[0], .least = 1, .median = 1};
    for (int k = 1; k < t->n; k++) {
        qsort(t->gain[k], rounds, sizeof t->gain[k][0], bench_op_compare_doubles);
        const double least = exp(t->gain[k][0]), median = exp(t->gain[k][rounds / 2]);
        if (least >= MARGIN && median > best.median)
            best = (verdict){t->kernels[k], t->kernels[0], least, median};
    }
    return best;
}

/* ---- What is written ---- */

/* Rules where the winner changes. */
static void write_rules(FILE *file, uint32_t bits, bool int8, const verdict v[N_ROWS]) {
    const dbt_nbits_kernel *before = NULL;
    for (int i = 0; i < N_ROWS; i++) {
        if (v[i].kernel == before) continue;
        before = v[i].kernel;
        fprintf(file, "%u %s %lld %s\n", bits, int8 ? "int8" : "float", (long long)rows[i],
                before ? before->name : "default");
    }
}

/* A line of the list with another fifth argument: the first M. */
static void write_line(const char *list, const dbt_nbits_kernel *kernel, int64_t min_m) {
    char begin[100];
    snprintf(begin, sizeof begin, "KERNEL(%s,", kernel->name);
    const char *at = strstr(list, begin), *const line = at;
    for (int i = 0; at && i < 4; i++) at = strchr(at + (i > 0), ',');
    const char *const rest = at ? strchr(at + 1, ',') : NULL;
    if (!rest) {
        printf("/* %s is not in the list */\n", kernel->name);
        return;
    }
    printf("%.*s %lld%.*s\n", (int)(at + 1 - line), line, (long long)min_m,
           (int)strcspn(rest, "\n"), rest);
}

/* The lines in the order that makes dbt_nbits_choose take the winners: each from the first M that it
 * won on, larger ones first. A kernel that won twice stands there twice. */
static void write_lines(const char *list, const verdict v[N_ROWS]) {
    for (int i = N_ROWS - 1; i >= 0; i--) {
        const dbt_nbits_kernel *const k = winner(&v[i]);
        if (i == 0 || winner(&v[i - 1]) != k) write_line(list, k, rows[i]);
    }
}

static void report(uint32_t bits, bool int8, int64_t M, const verdict *v, json_t *json) {
    const char *const activations = int8 ? "int8" : "float";
    if (json) {
        json_array_append_new(
            json, json_pack("{s:i, s:s, s:I, s:s, s:s, s:f, s:f}", "bits", (int)bits, "activations",
                            activations, "m", (json_int_t)M, "choice", v->choice->name, "fastest",
                            winner(v)->name, "gain_least", v->least, "gain_median", v->median));
        return;
    }
    fprintf(stderr, "%u bits, %-5s, M %4lld: %s", (unsigned)bits, activations, (long long)M,
            v->choice->name);
    if (v->kernel)
        fprintf(stderr, " -> %s, %.2f times as fast (at least %.2f)", v->kernel->name, v->median,
                v->least);
    fprintf(stderr, "\n");
}

/* ---- The verb ---- */

static void tune_all(const tune_options *o, dbt_pool *pool, FILE *file, const char *list,
                     json_t *json) {
    char isa[128];
    dbt_cpu_isa_text(dbt_cpu_isa(o->common.isa), isa);
    if (file)
        fprintf(file,
                "dibit tune 1\n# %s; %u threads, %u rounds\n# bits activations first-M kernel\n",
                isa, (unsigned)dbt_pool_threads(pool), (unsigned)o->rounds);
    for (uint32_t bits = o->bits ? o->bits : 1; bits <= (o->bits ? o->bits : 8); bits++) {
        for (int int8 = 1; int8 >= 0; int8--) {
            verdict v[N_ROWS];
            if (o->common.activations == (int8 ? DIBIT_ACTIVATIONS_FLOAT : DIBIT_ACTIVATIONS_INT8))
                continue;
            for (int i = 0; i < N_ROWS; i++) {
                if (o->m && o->m != rows[i]) {
                    v[i] = (verdict){.kernel = NULL};
                    continue;
                }
                contest t = hold(o, bits, int8, rows[i], pool);
                v[i] = judge(&t, o->rounds);
                report(bits, int8, rows[i], &v[i], json);
            }
            if (file) write_rules(file, bits, int8, v);
            if (list) write_lines(list, v);
        }
    }
}

static int run_tune(const tune_options *o) {
    dibit_error error;
    dbt_pool *pool = NULL;
    dibit_text list = {0};
    FILE *file = NULL;
    json_t *const json = o->common.json ? json_array() : NULL;
    int code = 0;
    if (dbt_pool_create(NULL, o->common.threads, &pool, &error) ||
        (o->list && dibit_cli_read_text(o->list, &list, &error))) {
        code = dibit_cli_fail(verb, error.text);
    } else if (o->out && !(file = fopen(o->out, "w"))) {
        code = dibit_cli_fail(verb, "the file of --out cannot be written");
    } else {
        tune_all(o, pool, file ? file : o->list || json ? NULL : stdout, list.data, json);
        if (json) {
            json_dumpf(json, stdout, JSON_INDENT(1));
            printf("\n");
        }
        if (file && fclose(file))
            code = dibit_cli_fail(verb, "the file of --out cannot be written");
    }
    json_decref(json);
    dibit_text_free(&list);
    dbt_pool_destroy(&pool);
    return code;
}

int dibit_cli_tune(int argc, char **argv) {
    tune_options o = {.rounds = 5};
    const dibit_cli_option options[] = {
        {"out", 'o', "FILE", "write the file there (default: standard output)", DIBIT_CLI_STRING,
         &o.out},
        {"bits", 0, "N", "only this width, 1 to 8 (default: all)", DIBIT_CLI_U32, &o.bits},
        {"m", 'm', "N", "only so many rows of A: 1, 2, 4, 8, 16, 32, 64 or 256 (default: all)",
         DIBIT_CLI_U32, &o.m},
        {"rounds", 0, "N", "how often kernels take turns, 3 to 20 (default 5)", DIBIT_CLI_U32,
         &o.rounds},
        {"list", 0, "FILE", "print the lines that cpu_kernels.inc, this file, needs instead",
         DIBIT_CLI_STRING, &o.list},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    const dibit_cli_spec spec = {
        .arguments = "",
        .help =
            "Finds the fastest kernels of MatMulNBits for this machine's CPU, and writes a file "
            "for\n"
            "--tune or DIBIT_TUNE that says where they are others than those that would be chosen\n"
            "anyway: at least 5 % faster in every round. Takes minutes; leave the machine alone.\n",
        .options = options,
        .common = &o.common,
        .min_arguments = 0,
        .max_arguments = 0,
    };
    const int n = dibit_cli_parse(&spec, argc, argv);
    if (n < 0) return dibit_cli_exit_code(n);
    if (o.common.device != DIBIT_CLI_CPU) return dibit_cli_usage(verb, "it is for the CPU alone");
    if (o.common.tune) return dibit_cli_usage(verb, "it does not go with --tune");
    if (o.bits > 8) return dibit_cli_usage(verb, "--bits must be 1 to 8");
    if (o.m && o.list) return dibit_cli_usage(verb, "-m does not go with --list");
    if (o.rounds < 3 || o.rounds > MAX_ROUNDS)
        return dibit_cli_usage(verb, "--rounds must be 3 to %d", MAX_ROUNDS);
    return run_tune(&o);
}

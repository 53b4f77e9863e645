/* dibit bench-op: how fast single kernels are. The weights of a chain of layers are more than the caches
 * hold, as in a model: each repetition runs through all of them once. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/cpu.h"
#include "base/dtype.h"
#include "bench_op.h"
#include "bench_op_limits.h"

static const char *const verb = "bench-op";

/* ---- Data ---- */

static uint32_t random_state = 1;
static uint32_t next_random(void) { /* xorshift32 */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}

/* Random bytes, or n floats of the type near `size`. */
static uint8_t *random_bytes(uint64_t bytes) {
    uint8_t *const out = dibit_cli_alloc((size_t)bytes, 1);
    for (uint64_t i = 0; i < bytes; i++) out[i] = (uint8_t)(next_random() >> 9);
    return out;
}
static uint8_t *random_floats(uint64_t n, dibit_type type, float size) {
    float *const values = dibit_cli_alloc((size_t)n, sizeof *values);
    for (uint64_t i = 0; i < n; i++)
        values[i] = size * ((float)(next_random() >> 8) * 0x1p-24f + 0.5f);
    uint8_t *const out = dibit_cli_alloc((size_t)n, dibit_type_bits(type) / 8);
    dbt_pack_elements(type, values, out, (int64_t)n);
    free(values);
    return out;
}

bench_op_chain bench_op_chain_make(const nbits_config *c, int64_t M, bool int8, uint32_t n_layers,
                                   uint64_t bytes) {
    bench_op_chain out = {.p = {.M = M,
                                .N = c->N,
                                .K = c->K,
                                .block_size = c->block_size,
                                .bits = c->bits,
                                .k_blocks = (c->K + c->block_size - 1) / c->block_size,
                                .scale_type = c->scale_type,
                                .zero_point_type = c->zero_point_type,
                                .int8_activations = int8 && !c->g_idx}};
    const uint64_t n_scales = (uint64_t)(c->N * out.p.k_blocks);
    const uint64_t b_bytes = (uint64_t)(c->N * dbt_nbits_row_bytes(&out.p));
    const uint64_t zero_bytes = c->zero_point_type == DIBIT_TYPE_UINT8
                                    ? (uint64_t)(c->N * dbt_nbits_zero_row_bytes(&out.p))
                                    : n_scales * dibit_type_bits(c->zero_point_type) / 8;
    out.layer_bytes = dbt_nbits_weight_bytes(&out.p);
    const uint64_t layers = bytes / out.layer_bytes + 1;
    out.n_layers = n_layers                       ? n_layers
                   : layers > BENCH_OP_MAX_LAYERS ? BENCH_OP_MAX_LAYERS
                                                  : (uint32_t)layers;
    out.layers = dibit_cli_alloc(out.n_layers, sizeof *out.layers);
    /* Of a size that keeps what goes through all layers in range. */
    const double top = (double)(1u << c->bits) - 1, spread = top * (top + 2) / 6;
    const float size = (float)(1 / sqrt((double)c->K * spread));
    for (uint32_t i = 0; i < out.n_layers; i++) {
        out.layers[i] = (bench_op_layer){random_bytes(b_bytes),
                                         random_floats(n_scales, c->scale_type, size), NULL};
        if (c->zero_point_type == DIBIT_TYPE_UINT8) {
            out.layers[i].zero_points = random_bytes(zero_bytes);
        } else if (c->zero_point_type != DIBIT_TYPE_UNDEFINED) {
            out.layers[i].zero_points = random_floats(n_scales, c->zero_point_type, (float)top / 2);
        }
    }
    out.a = (float *)(void *)random_floats((uint64_t)(M * c->K), DIBIT_TYPE_FLOAT, 1.0f);
    out.bias = (float *)(void *)random_floats((uint64_t)c->N, DIBIT_TYPE_FLOAT, 1.0f);
    out.y = dibit_cli_alloc((size_t)(M * c->N), sizeof(float));
    out.g_idx = dibit_cli_alloc((size_t)c->K, sizeof(int32_t));
    for (int64_t k = 0; k < c->K; k++) out.g_idx[k] = (int32_t)(k / c->block_size);
    out.p.a = out.a;
    out.p.y = out.y;
    if (c->bias) out.p.bias = out.bias;
    if (c->g_idx) out.p.g_idx = out.g_idx;
    return out;
}

void bench_op_chain_free(bench_op_chain *c) {
    for (uint32_t i = 0; i < c->n_layers; i++) {
        free(c->layers[i].b);
        free(c->layers[i].scales);
        free(c->layers[i].zero_points);
    }
    free(c->layers);
    free(c->a);
    free(c->bias);
    free(c->y);
    free(c->g_idx);
}

/* ---- Measuring ---- */

typedef struct timing {
    double median, least; /* seconds a layer */
} timing;

int bench_op_compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void *bench_op_scratch(const bench_op_chain *c, const dbt_nbits_kernel *kernel, dbt_pool *pool) {
    const uint64_t bytes = dbt_nbits_scratch_bytes(&c->p, kernel, dbt_pool_threads(pool));
    void *const scratch = aligned_alloc(64, (size_t)(bytes + 64) / 64 * 64);
    if (!scratch) exit(dibit_cli_fail(verb, "out of memory"));
    return scratch;
}

double bench_op_pass(bench_op_chain *c, const dbt_nbits_kernel *kernel, dbt_pool *pool,
                     void *scratch) {
    const double start = dibit_cli_seconds();
    for (uint32_t i = 0; i < c->n_layers; i++) {
        c->p.b = c->layers[i].b;
        c->p.scales = c->layers[i].scales;
        c->p.zero_points = c->layers[i].zero_points;
        dbt_nbits_execute(&c->p, kernel, pool, scratch);
    }
    return dibit_cli_seconds() - start;
}

static timing measure(bench_op_chain *c, const dbt_nbits_kernel *kernel, dbt_pool *pool) {
    enum { MOST = 200 };
    void *const scratch = bench_op_scratch(c, kernel, pool);
    double seconds[MOST], total = 0;
    int n = 0;
    for (int round = -1; n < MOST && (n < 3 || total < 0.5); round++) { /* the first warms up */
        const double took = bench_op_pass(c, kernel, pool, scratch);
        if (round < 0) continue;
        total += took;
        seconds[n++] = took / c->n_layers;
    }
    free(scratch);
    qsort(seconds, (size_t)n, sizeof *seconds, bench_op_compare_doubles);
    return (timing){seconds[n / 2], seconds[0]};
}

/* ---- Reporting ---- */

const char *bench_op_zp_name(dibit_type type) {
    return type == DIBIT_TYPE_UNDEFINED ? "none"
           : type == DIBIT_TYPE_UINT8   ? "packed"
                                        : dibit_type_name(type);
}

static void report(const bench_op_chain *c, const dbt_nbits_kernel *kernel, timing t,
                   json_t *rows) {
    const dbt_matmul_nbits *const p = &c->p;
    const double gb = (double)c->layer_bytes / t.median / 1e9;
    const double gflops = 2.0 * (double)p->M * (double)p->N * (double)p->K / t.median / 1e9;
    if (!rows) {
        printf("%6lld %6lld %6lld %4u %6lld %-8s %-6s %11.1f %11.1f %8.2f %9.1f  %s\n",
               (long long)p->M, (long long)p->N, (long long)p->K, (unsigned)p->bits,
               (long long)p->block_size, bench_op_zp_name(p->zero_point_type),
               p->int8_activations ? "int8" : "float", t.median * 1e6, t.least * 1e6, gb, gflops,
               kernel->name);
        fflush(stdout);
        return;
    }
    json_array_append_new(
        rows, json_pack("{s:s, s:I, s:I, s:I, s:i, s:I, s:s, s:s, s:f, s:f, s:f, s:f}", "kernel",
                        kernel->name, "m", (json_int_t)p->M, "n", (json_int_t)p->N, "k",
                        (json_int_t)p->K, "bits", (int)p->bits, "block", (json_int_t)p->block_size,
                        "zero_points", bench_op_zp_name(p->zero_point_type), "activations",
                        p->int8_activations ? "int8" : "float", "us", t.median * 1e6, "us_least",
                        t.least * 1e6, "gb_per_s", gb, "gflop_per_s", gflops));
}

static int run_config(const bench_op_options *o, const nbits_config *config, dbt_pool *pool,
                      json_t *rows) {
    static const int64_t some_m[] = {1, 16, 128};
    const bool int8 =
        o->common.activations == DIBIT_ACTIVATIONS_INT8 ||
        (o->common.activations == DIBIT_ACTIVATIONS_AUTO && config->accuracy_level == 4);
    const uint64_t isa = dbt_cpu_isa(o->common.isa);
    bool ran = false;
    for (int i = 0; i < (o->m ? 1 : 3); i++) {
        bench_op_chain c = bench_op_chain_make(config, o->m ? (int64_t)o->m : some_m[i], int8, 0,
                                               (uint64_t)o->megabytes << 20);
        const dbt_nbits_kernel *const chosen = dbt_nbits_choose(&c.p, isa);
        for (size_t k = 0; k < dbt_nbits_kernel_count; k++) {
            const dbt_nbits_kernel *const kernel = &dbt_nbits_kernels[k];
            if (o->kernel ? strcmp(o->kernel, kernel->name) != 0 : !o->all && kernel != chosen)
                continue;
            if (!dbt_nbits_kernel_fits(kernel, &c.p, isa)) continue;
            report(&c, kernel, measure(&c, kernel, pool), rows);
            ran = true;
        }
        bench_op_chain_free(&c);
    }
    if (ran) return 0;
    return dibit_cli_usage(
        verb, "no kernel%s%s fits these bits, activations and CPU features (see --list)",
        o->kernel ? " of the name " : "", o->kernel ? o->kernel : "");
}

static void list_kernels(uint64_t isa) {
    for (size_t i = 0; i < dbt_nbits_kernel_count; i++) {
        const dbt_nbits_kernel *const kernel = &dbt_nbits_kernels[i];
        char text[128];
        dbt_cpu_isa_text(kernel->isa, text);
        printf("%-36s %u bits, %-5s activations, from M %lld%s, %s%s\n", kernel->name,
               (unsigned)kernel->bits, kernel->int8_activations ? "int8" : "float",
               (long long)kernel->min_m, kernel->g_idx ? ", g_idx" : "", text,
               (kernel->isa & isa) == kernel->isa ? "" : " (not on this machine)");
    }
}

/* ---- The verb ---- */

static int run_all(const bench_op_options *o, const nbits_config *configs, uint32_t n) {
    dbt_pool *pool = NULL;
    dibit_error error;
    if (dibit_cli_tune_cpu(&o->common, &error)) return dibit_cli_fail(verb, error.text);
    if (dbt_pool_create(NULL, o->common.threads, &pool, &error))
        return dibit_cli_fail(verb, error.text);
    json_t *const rows = o->common.json ? json_array() : NULL;
    if (!rows) {
        char text[128];
        dbt_cpu_isa_text(dbt_cpu_isa(o->common.isa), text);
        printf("matmul_nbits, %u threads, %s; microseconds a layer\n",
               (unsigned)dbt_pool_threads(pool), text);
        printf("%6s %6s %6s %4s %6s %-8s %-6s %11s %11s %8s %9s  %s\n", "M", "N", "K", "bits",
               "block", "zp", "act", "median", "least", "GB/s", "GFLOP/s", "kernel");
    }
    int code = 0;
    for (uint32_t i = 0; i < n && code == 0; i++) code = run_config(o, &configs[i], pool, rows);
    if (rows && code == 0) {
        json_dumpf(rows, stdout, JSON_INDENT(1));
        printf("\n");
    }
    json_decref(rows);
    dbt_pool_destroy(&pool);
    return code;
}

static bool zp_of(const char *name, dibit_type *out) {
    *out = strcmp(name, "packed") == 0    ? DIBIT_TYPE_UINT8
           : strcmp(name, "float") == 0   ? DIBIT_TYPE_FLOAT
           : strcmp(name, "float16") == 0 ? DIBIT_TYPE_FLOAT16
                                          : DIBIT_TYPE_UNDEFINED;
    return *out != DIBIT_TYPE_UNDEFINED || strcmp(name, "none") == 0;
}

/* What the options ask for, which is one configuration, or on a device 2, 3 and 4 bits; 0: wrong usage. */
static uint32_t configs_of(const bench_op_options *o, bool device, nbits_config configs[3]) {
    static const uint32_t some_bits[] = {2, 3, 4};
    const bool half = o->scales ? strcmp(o->scales, "float16") == 0 : device;
    dibit_type zero_point_type;
    if (o->n > INT32_MAX || o->k > INT32_MAX || o->bits > 8 || o->block < 16 ||
        (o->block & (o->block - 1)) != 0 || !zp_of(o->zp, &zero_point_type) ||
        (o->scales && !half && strcmp(o->scales, "float") != 0)) {
        return 0;
    }
    const uint32_t n = device && o->bits == 0 ? 3 : 1, size = device ? 4096 : 2048;
    for (uint32_t i = 0; i < n; i++) {
        configs[i] = (nbits_config){.N = o->n ? o->n : size,
                                    .K = o->k ? o->k : size,
                                    .block_size = o->block,
                                    .bits = o->bits ? o->bits : some_bits[i],
                                    .scale_type = half ? DIBIT_TYPE_FLOAT16 : DIBIT_TYPE_FLOAT,
                                    .zero_point_type = zero_point_type,
                                    .accuracy_level = 4};
    }
    return n;
}

int dibit_cli_bench_op(int argc, char **argv) {
    bench_op_options o = {.block = 32, .megabytes = UINT32_MAX, .zp = "packed"};
    const dibit_cli_option options[] = {
        {"m", 'm', "N", "rows of A (default: 1, 16 and 128; on a device 1, 8, 128 and 1024)",
         DIBIT_CLI_U32, &o.m},
        {"n", 0, "N", "rows of B (default 2048, on a device 4096)", DIBIT_CLI_U32, &o.n},
        {"k", 0, "N", "columns of A and B (likewise)", DIBIT_CLI_U32, &o.k},
        {"bits", 0, "N", "1 to 8 (default 2; on a device 2, 3 and 4)", DIBIT_CLI_U32, &o.bits},
        {"block", 0, "N", "block size (default 32)", DIBIT_CLI_U32, &o.block},
        {"zp", 0, "KIND", "none, packed (default), float or float16", DIBIT_CLI_STRING, &o.zp},
        {"scales", 0, "TYPE", "float (default), or float16 (default on a device)", DIBIT_CLI_STRING,
         &o.scales},
        {"kernel", 0, "NAME", "this kernel instead of the one that is chosen", DIBIT_CLI_STRING,
         &o.kernel},
        {"all", 0, NULL, "every kernel that fits", DIBIT_CLI_FLAG, &o.all},
        {"megabytes", 0, "N",
         "weights to go through (default 64; 0: one layer; on a device 32 layers); limits: to "
         "read at most (1024)",
         DIBIT_CLI_U32, &o.megabytes},
        {"from-model", 0, "FILE", "the configurations of a model", DIBIT_CLI_STRING, &o.from_model},
        {"checked-shaders", 0, NULL,
         "on a device: also with bounds checks and loop limits, in turn, and how much longer",
         DIBIT_CLI_FLAG, &o.checked_shaders},
        {"list", 0, NULL, "show the kernels", DIBIT_CLI_FLAG, &o.list},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    const dibit_cli_spec spec = {
        .arguments = "matmul_nbits|limits",
        .help = "Measures the kernels of MatMulNBits over a chain of layers with random weights.\n"
                "Activations are int8 unless --activations float, or auto with --from-model, where "
                "the\n"
                "accuracy_level says it. GB/s counts weights, scales and zero points, read once a "
                "layer.\n"
                "On a device layers depend on each other, and auto measures both activations.\n"
                "'limits' measures what the machine can do at most: bytes read a second, by size,\n"
                "and products added up a second, by CPU feature, with one thread and with all.\n",
        .options = options,
        .common = &o.common,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    const int n_arguments = dibit_cli_parse(&spec, argc, argv);
    if (n_arguments < 0) return dibit_cli_exit_code(n_arguments);
    const bool limits = strcmp(argv[1], "limits") == 0;
    if (o.megabytes == UINT32_MAX) o.megabytes = limits ? 1024 : 64;
    if (limits) return bench_op_print_limits(&o.common, o.megabytes);
    if (strcmp(argv[1], "matmul_nbits") != 0)
        return dibit_cli_usage(verb, "no such op: %s", argv[1]);
    const bool device = o.common.device != DIBIT_CLI_CPU;
    if (o.list) {
        if (device) bench_op_list_device_kernels();
        if (!device) list_kernels(dbt_cpu_isa(o.common.isa));
        return 0;
    }
    nbits_config of_options[3], *of_model = NULL;
    uint32_t n = configs_of(&o, device, of_options);
    if (n == 0) {
        return dibit_cli_usage(verb, "bits must be 1 to 8, block a power of two from 16, zp none, "
                                     "packed, float or float16, scales float or float16");
    }
    dibit_error error;
    if (o.from_model && nbits_model_configs(o.from_model, &of_model, &n, &error))
        return dibit_cli_fail(verb, error.text);
    const nbits_config *const configs = of_model ? of_model : of_options;
    const int code = device ? bench_op_on_device(&o, configs, n) : run_all(&o, configs, n);
    free(of_model);
    return code;
}

/* What bench_op.c, which measures on the CPU, bench_op_device.c and bench_op_tune.c share. */
#ifndef DIBIT_CLI_BENCH_OP_H
#define DIBIT_CLI_BENCH_OP_H

#include "cli.h"
#include "ops/matmul_nbits/nbits_model.h"

typedef struct bench_op_options {
    dibit_cli_common common;
    uint32_t m, n, k, bits, block, megabytes; /* m, n, k, bits 0: not given */
    const char *zp, *scales, *kernel, *from_model;
    bool list, all, checked_shaders;
} bench_op_options;

enum { BENCH_OP_MAX_LAYERS = 4096 };

typedef struct bench_op_layer {
    uint8_t *b, *scales, *zero_points;
} bench_op_layer;

typedef struct bench_op_chain {
    dbt_matmul_nbits p;
    bench_op_layer *layers;
    uint32_t n_layers;
    uint64_t layer_bytes; /* of weights, scales and zero points */
    float *a, *bias, *y;
    int32_t *g_idx;
} bench_op_chain;

/* Random weights: n_layers, or where that is 0 as many as go through `bytes`. */
bench_op_chain bench_op_chain_make(const nbits_config *c, int64_t M, bool int8, uint32_t n_layers,
                                   uint64_t bytes);
void bench_op_chain_free(bench_op_chain *c);

/* The kernel's scratch, to be freed; seconds of running it through all layers once. */
void *bench_op_scratch(const bench_op_chain *c, const dbt_nbits_kernel *kernel, dbt_pool *pool);
double bench_op_pass(bench_op_chain *c, const dbt_nbits_kernel *kernel, dbt_pool *pool,
                     void *scratch);

const char *bench_op_zp_name(dibit_type type);
int bench_op_compare_doubles(const void *a, const void *b);

/* bench_op_device.c: the same on the device that the options ask for, a row per bits, M and arithmetic. */
int bench_op_on_device(const bench_op_options *o, const nbits_config *configs, uint32_t n);
void bench_op_list_device_kernels(void);

#endif

/* numpy broadcasting of up to three tensors at run time: the shapes are merged into as few dims as
 * possible, and the work is cut into runs along the innermost one. Elementwise kernels call this. */
#ifndef DBT_OPS_ELEMENTWISE_BROADCAST_H
#define DBT_OPS_ELEMENTWISE_BROADCAST_H

#include "ops/op.h"

enum { DBT_BROADCAST_INPUTS = 3 };

typedef struct dbt_broadcast {
    uint32_t n_inputs;
    int64_t n;                          /* elements of a run; the output is contiguous */
    int64_t step[DBT_BROADCAST_INPUTS]; /* of each input along a run: 0 or 1 */
    int64_t rows;                       /* runs in all: the product of dims */
    int32_t rank;                       /* of the outer dims */
    int64_t dims[DIBIT_MAX_RANK];
    int64_t strides[DBT_BROADCAST_INPUTS][DIBIT_MAX_RANK]; /* elements; 0 where repeated */
} dbt_broadcast;

/* BAD_INPUT when an input does not fit the output's shape. */
dibit_status dbt_broadcast_plan(const dibit_tensor *out, const dibit_tensor *const *in, uint32_t n,
                                dbt_broadcast *b, dibit_error *error);

/* One run: n elements of the output from `out` on, of input i from in[i] on, in elements. */
typedef void (*dbt_broadcast_run)(const void *ctx, const int64_t *in, int64_t out, int64_t n);
/* Calls run for every part, in parallel; cost is scalar operations per element. */
void dbt_broadcast_for(const dbt_broadcast *b, dbt_pool *pool, int64_t cost, dbt_broadcast_run run,
                       const void *ctx);

/* The plan as broadcast.inc.wgsl has it in uniforms. */
typedef struct dbt_broadcast_words {
    uint32_t count, run, rank, unused;
    uint32_t step[4];
    uint32_t dims[DIBIT_MAX_RANK];
    uint32_t strides[DIBIT_MAX_RANK][4];
} dbt_broadcast_words;
dbt_broadcast_words dbt_broadcast_to_words(const dbt_broadcast *b);

#endif

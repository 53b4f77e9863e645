/* The Reduce* ops: reduce.c is table and inference, reduce_cpu.c computes floats, reduce_int.c
 * integers. arg.c has ArgMax and ArgMin, cumsum.c CumSum.
 *
 * A tensor's dims are merged into groups that are reduced and groups that are kept, in turns. The
 * innermost group is a run (reduced) or columns (kept); the others are the outer parts:
 *     x[kept outer..., reduced outer..., n]    whatever the order of the strides */
#ifndef DBT_OPS_REDUCE_H
#define DBT_OPS_REDUCE_H

#include "ops/op.h"

typedef enum dbt_reduce_kind {
    DBT_REDUCE_SUM,
    DBT_REDUCE_MEAN,
    DBT_REDUCE_MAX,
    DBT_REDUCE_MIN,
    DBT_REDUCE_PROD,
    DBT_REDUCE_L1,
    DBT_REDUCE_L2,
    DBT_REDUCE_LOG_SUM,
    DBT_REDUCE_LOG_SUM_EXP,
    DBT_REDUCE_SUM_SQUARE
} dbt_reduce_kind;

/* Outer dims innermost first; strides in elements. */
typedef struct dbt_reduce_dims {
    int32_t rank;
    int64_t dims[DIBIT_MAX_RANK], strides[DIBIT_MAX_RANK];
    int64_t count; /* their product */
} dbt_reduce_dims;

typedef struct dbt_reduce_plan {
    dbt_reduce_dims kept, reduced;
    bool columns;  /* the innermost group is kept */
    int64_t n;     /* its size */
    int64_t count; /* elements in one result */
    int64_t outputs;
} dbt_reduce_plan;

/* The one axis that a Reduce* node reduces, as a dim of size 1; -1 when it is not so, or not known. */
int32_t dbt_reduce_only_axis(const dbt_node *node);
/* mask: bit i: axis i is reduced. */
dbt_reduce_plan dbt_reduce_make_plan(const dibit_tensor *x, uint32_t mask);
/* The element that part `index` of the outer dims begins at. */
int64_t dbt_reduce_offset(const dbt_reduce_dims *dims, int64_t index);

void dbt_reduce_float(dbt_reduce_kind kind, const dbt_reduce_plan *plan, const float *x, float *y,
                      dbt_pool *pool);
/* Every integer type and bool (stored as uint8). */
void dbt_reduce_integer(dbt_reduce_kind kind, const dbt_reduce_plan *plan, const dibit_tensor *x,
                        void *y, dbt_pool *pool);
/* What a reduction of integers begins with. */
int64_t dbt_reduce_first(dbt_reduce_kind kind, dibit_type type);

/* On a device (reduce_gpu.c). */
dibit_status dbt_reduce_record(const dbt_gpu_call *call, const dbt_reduce_plan *plan);
const char *dbt_reduce_refuses(const dbt_node *node, const dbt_hal *hal);

#endif

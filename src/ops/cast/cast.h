/* Casts between storage types; cast.c calls it, cast_cpu.c computes.
 *
 * To integers floats are truncated and saturate, NaN gives 0; integers are cut to the low bits. To bool
 * everything but 0 is true. To float16 and bfloat16, which are stored as float, values are rounded to
 * nearest even. 2- and 4-bit integers lie one to a byte; they take the low bits of floats as well. */
#ifndef DBT_OPS_CAST_H
#define DBT_OPS_CAST_H

#include "ops/op.h"

/* n elements of storage type `from`; `to` is the declared type, stored as dbt_storage_type(to). x and
 * y may be the same memory when both are stored as float. */
void dbt_cast(dibit_type from, const void *x, dibit_type to, void *y, int64_t n);

/* cast_gpu.c */
dibit_status dbt_cast_encode(const dbt_gpu_call *call);
const char *dbt_cast_refuses(const dbt_node *node, const dbt_hal *hal);

#endif

/* Where a node's keys or values lie while it runs on a device: what attention_kv.h is on the CPU, one batch
 * row at a time. */
#ifndef DBT_OPS_ATTENTION_KV_GPU_H
#define DBT_OPS_ATTENTION_KV_GPU_H

#include "ops/attention_core/attention_gpu.h"
#include "ops/attention_core/attention_kv.h"

typedef struct dbt_gpu_kv {
    const dbt_gpu_call *call;
    dbt_kv_desc desc;
    dibit_type type;       /* of the rows */
    dbt_gpu_state_row row; /* of batch row b */
    int64_t b;
    bool in_scratch; /* nobody keeps the rows; the past is not there yet */
    bool is_output;  /* rows lie in the present output: all of it has to be written */
} dbt_gpu_kv;

/* Finds the rows of batch row b and records nothing. UNSUPPORTED for what shaders cannot read. */
dibit_status dbt_gpu_kv_open(const dbt_gpu_call *call, const dbt_kv_desc *desc, int64_t b,
                             dbt_gpu_kv *kv);
/* The past input to the front of rows in scratch. */
dibit_status dbt_gpu_kv_fill(const dbt_gpu_kv *kv);
/* The rows from index `first` on. */
dbt_gpu_rows dbt_gpu_kv_rows(const dbt_gpu_kv *kv, int64_t first);
/* Copies n rows of every head between buffers that are not the same. */
dibit_status dbt_gpu_kv_copy(const dbt_gpu_kv *kv, const dbt_gpu_rows *from, const dbt_gpu_rows *to,
                             int64_t n);
/* The oldest `drop` rows leave; the next `keep` take their place. */
dibit_status dbt_gpu_kv_drop(const dbt_gpu_kv *kv, int64_t drop, int64_t keep);
/* The op's state holds so many rows now. */
void dbt_gpu_kv_set_length(const dbt_gpu_kv *kv, int64_t length);

/* Why a device cannot keep the rows of the node's states, or NULL. */
const char *dbt_gpu_kv_refuses(const dbt_node *node, const dbt_hal *hal);

#endif

/* Where a node's keys or values lie while it runs: in the rows of a state, in its present output, or,
 * when nobody wants to keep them, in scratch. Ops append to them in place whichever it is. */
#ifndef DBT_OPS_ATTENTION_KV_H
#define DBT_OPS_ATTENTION_KV_H

#include "ops/attention_core/attention_core.h"

typedef struct dbt_kv_desc {
    uint32_t state;         /* index of the op's state pair */
    uint32_t past, present; /* the pair's input and output */
    int64_t batch, heads, dim;
    int64_t appended; /* rows that the run adds at most */
} dbt_kv_desc;

typedef struct dbt_kv {
    dibit_type type;
    int64_t dim;
    dbt_state_row *rows; /* [batch] */
    bool is_output;      /* rows lie in the present output: all of it has to be written */
} dbt_kv;

/* The element type of the rows that dbt_kv_open finds. */
dibit_type dbt_kv_type(const dbt_cpu_call *call, const dbt_kv_desc *desc);
/* Bytes of scratch that dbt_kv_open may use; UINT64_MAX when that overflows. */
uint64_t dbt_kv_scratch(const dbt_cpu_call *call, const dbt_kv_desc *desc);
/* Finds the rows. Without a state the past input is copied to their front. */
dibit_status dbt_kv_open(const dbt_cpu_call *call, const dbt_kv_desc *desc, void *scratch,
                         dbt_kv *kv);
/* Writes one row of `dim` elements. */
void dbt_kv_store(const dbt_kv *kv, const dbt_attention_span *span, int64_t head, int64_t index,
                  const float *x);
/* Writes tokens [0, n) of batch row b of x behind what the row holds, and says that it holds them.
 * bias, [heads, dim], is added when not NULL. row: dim floats of scratch. CAPACITY when they do not
 * fit. */
typedef struct dbt_kv_tokens {
    const float *x; /* dim contiguous elements; strides of batch, head and token in elements */
    int64_t stride[3];
    int64_t n;
    const float *bias;
} dbt_kv_tokens;
dibit_status dbt_kv_append(const dbt_kv *kv, int64_t b, int64_t heads, const dbt_kv_tokens *tokens,
                           float *row, dibit_error *error);
/* The whole of batch row b. */
dbt_attention_span dbt_kv_span(const dbt_kv *kv, int64_t b);
/* Zeroes indices [begin, capacity) of batch row b. */
void dbt_kv_clear(const dbt_kv *kv, int64_t b, int64_t heads, int64_t begin);

#endif

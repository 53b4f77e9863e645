/* Attention on a device, one batch row at a time: appends new tokens to a cache, attends to it. */
#ifndef DBT_OPS_ATTENTION_GPU_H
#define DBT_OPS_ATTENTION_GPU_H

#include "ops/op.h"

/* Scratch buffers (dbt_gpu_scratch) of the attention ops. */
enum {
    DBT_ATTENTION_SCRATCH_PARTS, /* partial results; the others are for ops to fill */
    DBT_ATTENTION_SCRATCH_Q,
    DBT_ATTENTION_SCRATCH_K,
    DBT_ATTENTION_SCRATCH_V,
    DBT_ATTENTION_SCRATCH_MOVE,
    DBT_ATTENTION_SCRATCH_POSITIONS,
    DBT_ATTENTION_SCRATCH_STAGE, /* of keys, then of values */
    DBT_ATTENTION_SCRATCH_MASK = DBT_ATTENTION_SCRATCH_STAGE
};

/* Rows of heads: row t of head h begins at element base + h * head + t * token. */
typedef struct dbt_gpu_rows {
    dbt_hal_buffer *buffer; /* NULL: absent, or empty */
    uint64_t base, head, token;
} dbt_gpu_rows;

/* Added to the score of head h, query s and key t: element base + h * head + s * query + t * column. */
typedef struct dbt_gpu_term {
    dbt_hal_buffer *buffer; /* of floats; NULL: none */
    uint64_t base, head, query, column;
} dbt_gpu_term;

/* As dbt_attention has it. */
typedef struct dbt_gpu_attention {
    int64_t heads, kv_heads, queries, k_dim, v_dim;
    dbt_gpu_rows q, k, v, y;
    dibit_type kv_type; /* float, or float16 in rows of even dims at even bases */
    int64_t n_keys, first_query;
    float scale, softcap;
    int64_t left, right;
    bool clamp_queries;
    dbt_gpu_term terms[2];
    bool has_sink;
    dbt_hal_buffer *sink; /* [heads], or NULL: 0 */
} dbt_gpu_attention;

dibit_status dbt_gpu_attend(dbt_gpu *gpu, const dbt_gpu_attention *a, dibit_error *error);

/* New tokens to where attention finds them. Queries and keys are normalised by q_norm and k_norm (root
 * mean square, over k_dim) and turn by their positions; or everything gets a bias. */
typedef struct dbt_gpu_append {
    int64_t tokens, heads, kv_heads, k_dim, v_dim;
    dbt_gpu_rows q, k, v;             /* floats; q.buffer or k.buffer NULL: not wanted */
    dbt_gpu_rows q_out, k_out, v_out; /* q_out in floats, the others in kv_type */
    dibit_type kv_type;
    int64_t stored; /* tokens whose keys and values are stored */
    int64_t
        rows; /* at least that: rows of keys and values that are written, with zeros from `stored` on */
    dbt_hal_buffer *cos, *sin; /* [positions, half] */
    int64_t half;              /* 0: nothing turns */
    bool interleaved;
    int64_t position;          /* of token 0; the others follow, unless there are positions */
    dbt_hal_buffer *positions; /* [tokens], or NULL */
    dbt_hal_buffer *q_norm, *k_norm;
    float epsilon;
    dbt_hal_buffer
        *bias; /* heads * k_dim of queries, then, if kv_bias, of keys and values; or NULL */
    bool kv_bias;
} dbt_gpu_append;

dibit_status dbt_gpu_append_tokens(dbt_gpu *gpu, const dbt_gpu_append *a, dibit_error *error);

/* Appends, and attends to the cache with the queries that come of it (attention->q is not looked at): in one
 * dispatch, where a token is decoded, in two otherwise. */
dibit_status dbt_gpu_append_and_attend(dbt_gpu *gpu, const dbt_gpu_append *append,
                                       const dbt_gpu_attention *attention, dibit_error *error);

/* A mask of integers or truths as a term: 0 where a key counts, else `filler`. Either lengths [batch],
 * then, with `starts`, where keys begin; or element b * batch_stride + (row + first_row) * row_stride + t
 * is above 0 where key t counts. */
typedef struct dbt_gpu_mask {
    dbt_hal_buffer *buffer;
    int64_t batch, rows, total;
    bool lengths, starts;
    int64_t batch_stride, row_stride, first_row;
    float filler;
} dbt_gpu_mask;

/* To scratch: [batch, rows, total]. */
dibit_status dbt_gpu_mask_term(dbt_gpu *gpu, const dbt_gpu_mask *mask, dbt_hal_buffer **out,
                               dibit_error *error);

#endif

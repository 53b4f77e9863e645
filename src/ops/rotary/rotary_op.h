/* The rotary ops: which inputs they have, and which token stands where. */
#ifndef DBT_OPS_ROTARY_OP_H
#define DBT_OPS_ROTARY_OP_H

#include "ops/op.h"

typedef struct dbt_rotary_attrs {
    int64_t interleaved, num_heads, rotary_embedding_dim, is_packed_batching;
    float scale;
    dbt_attr_ints mrope_section;
    int64_t mrope_layout;
} dbt_rotary_attrs;

enum { DBT_ROTARY_CONTRIB, DBT_ROTARY_ONNX, DBT_ROTARY_MULTIMODAL }; /* op kinds */
enum { DBT_ROTARY_SECTIONED, DBT_ROTARY_INTERLEAVED };               /* mrope_layout */

/* Which inputs: the contrib ops have position_ids second, ai.onnx last and optional. */
static inline uint32_t dbt_rotary_ids_input(const dbt_node *node) {
    return node->op->kind == DBT_ROTARY_ONNX ? 3 : 1;
}
static inline uint32_t dbt_rotary_cos_input(const dbt_node *node) {
    return node->op->kind == DBT_ROTARY_ONNX ? 1 : 2;
}

typedef struct dbt_rotary {
    const dbt_rotary_attrs *a;
    const int64_t *ids; /* NULL: the caches have a row for each token */
    int64_t ids_count, batch, tokens, heads, dim, half;
    int64_t head_stride, token_stride; /* elements; a batch row is tokens * heads * dim */
    int64_t streams;                   /* positions of a token: ids are [streams, batch, tokens] */
} dbt_rotary;

/* From the inputs' dims and the positions; refuses what does not fit. */
dibit_status dbt_rotary_read(const dbt_node *node, const dibit_tensor *const *in, uint32_t n_inputs,
                             dbt_rotary *r, dibit_error *error);

/* The row of the caches for token s of batch row b, where a token has one position. */
static inline int64_t dbt_rotary_position(const dbt_rotary *r, int64_t b, int64_t s) {
    if (!r->ids) return b * r->tokens + s;
    return r->ids_count == 1 ? r->ids[0] + s : r->ids[b * r->tokens + s];
}

dibit_status dbt_rotary_gpu_encode(const dbt_gpu_call *call);

#endif

/* Scaled dot-product attention over grouped heads: what every attention op runs in the end.
 *
 *     x[t] = softcap(scale * (q . k[t])) + terms[t]
 *     y = sum over visible t of softmax(x)[t] * v[t]
 *
 * Query head h reads key/value head h / (heads / kv_heads). Query s of batch row b stands at key index
 * p = first_query + s, and sees the keys in [0, n_keys) that are in [p - left, p + right]. A query
 * that sees no key, or only keys with a term of -infinity, gives zeros. A sink joins the softmax's
 * denominator as one more score without a value. */
#ifndef DBT_OPS_ATTENTION_CORE_H
#define DBT_OPS_ATTENTION_CORE_H

#include "ops/op.h"

/* Keys or values of one batch row: head h, index t at element h * head_stride + t * row_stride. */
typedef struct dbt_attention_span {
    const void *data;
    int64_t head_stride, row_stride;
} dbt_attention_span;

typedef struct dbt_attention_row {
    dbt_attention_span k, v;
    int64_t n_keys;
    int64_t first_query; /* key index of query 0; may be negative */
    int64_t term_offset; /* key index 0 is this column of the terms and of qk */
} dbt_attention_row;

/* Added to scores: [batch, heads, queries, columns], strides 0 where broadcast. */
typedef struct dbt_attention_term {
    const float *data; /* NULL: none */
    int64_t stride[4];
} dbt_attention_term;

typedef enum dbt_attention_qk {
    DBT_ATTENTION_QK_NONE,
    DBT_ATTENTION_QK_SCALED, /* scale * q . k */
    DBT_ATTENTION_QK_CAPPED, /* after the soft cap */
    DBT_ATTENTION_QK_SCORE,  /* what goes into the softmax */
    DBT_ATTENTION_QK_SOFTMAX
} dbt_attention_qk;

typedef struct dbt_attention {
    int64_t batch, heads, kv_heads, queries, k_dim, v_dim;
    const float *q; /* strides in elements of batch, head, query; k_dim is contiguous */
    int64_t q_stride[3];
    float *y; /* likewise with v_dim */
    int64_t y_stride[3];
    dibit_type k_type, v_type;     /* float, float16, bfloat16 or double */
    const dbt_attention_row *rows; /* [batch] */
    float scale, softcap;          /* softcap 0: none */
    int64_t left, right;           /* negative: no limit; causal: right 0 */
    bool clamp_queries;            /* a query beyond the last key stands where that key is */
    dbt_attention_term terms[2];
    bool has_sink;
    const float *sink; /* [heads], or NULL: 0 */
    dbt_attention_qk qk_kind;
    float *qk; /* [batch, heads, queries, qk_columns] */
    int64_t qk_columns;
    bool qk_all;     /* SCALED and CAPPED also for keys that are not seen: all columns are keys */
    float qk_unseen; /* what else stands there */
    uint64_t isa;
    dbt_pool *pool;
} dbt_attention;

/* The visible keys [*begin, *end) of query s in a row; begin <= end. */
static inline void dbt_attention_visible(const dbt_attention *a, const dbt_attention_row *row,
                                         int64_t s, int64_t *begin, int64_t *end) {
    int64_t at = row->first_query + s;
    if (a->clamp_queries && at >= row->n_keys) at = row->n_keys - 1;
    int64_t lo = 0, hi = row->n_keys;
    if (a->right >= 0 && at + a->right < hi - 1) hi = at + a->right + 1;
    if (a->left >= 0 && at - a->left > 0) lo = at - a->left;
    if (hi < 0) hi = 0;
    *begin = lo < hi ? lo : hi;
    *end = hi;
}

/* The definition, in double. bound, when not NULL, is laid out as y and gets how far y may be off
 * when everything is computed in float. */
void dbt_attention_ref(const dbt_attention *a, float *bound);
/* That bound alone, fast. Fails for lack of memory only. */
dibit_status dbt_attention_bound(const dbt_attention *a, float *bound, dibit_error *error);

/* Runs the fastest kernel for a->isa; scratch as dbt_attention_scratch says. Results depend neither
 * on the number of threads nor on how much of the sequence a call appends beyond rounding. */
uint64_t dbt_attention_scratch(const dbt_attention *a);
void dbt_attention_run(const dbt_attention *a, void *scratch);
/* attention_work.c: counts the work of a run for profiles. */
void dbt_attention_count(const dbt_attention *a);

/* ---- Scratch ---- */

/* Scratch is cut into pieces by adding to an offset; every piece is aligned to 64 bytes. Saturates. */
static inline uint64_t dbt_scratch_add(uint64_t *offset, uint64_t count, uint64_t bytes) {
    const uint64_t at = *offset;
    uint64_t size;
    if (!dbt_mul_u64(count, bytes, &size) || !dbt_add_u64(size, 63, &size) ||
        !dbt_add_u64(at, size & ~(uint64_t)63, offset)) {
        *offset = UINT64_MAX;
    }
    return at;
}
/* NULL when there is no scratch yet (its size is being computed). */
static inline void *dbt_scratch_piece(void *scratch, uint64_t at) {
    return scratch ? (char *)scratch + at : NULL;
}
static inline uint64_t dbt_scratch_product(int64_t a, int64_t b, int64_t c, int64_t d) {
    uint64_t p = (uint64_t)a;
    if (!dbt_mul_u64(p, (uint64_t)b, &p) || !dbt_mul_u64(p, (uint64_t)c, &p) ||
        !dbt_mul_u64(p, (uint64_t)d, &p)) {
        return UINT64_MAX;
    }
    return p;
}

#endif

/* What an instruction set contributes to attention: loops over a tile of keys. The tiling, the
 * masks and the softmax's bookkeeping are attention_core.c's. */
#ifndef DBT_OPS_ATTENTION_KERNELS_H
#define DBT_OPS_ATTENTION_KERNELS_H

#include <stdint.h>

#include "base/compiler.h"

enum {
    DBT_ATTENTION_TILE = 64, /* keys that are taken at once */
    DBT_ATTENTION_ROWS = 48  /* queries (of all heads that share keys) that are taken at once */
};

typedef struct dbt_attention_kernel {
    const char *name;
    uint64_t isa;
    /* x[r][t] = q[r] . k[t], for r in [0, rows), t in [0, keys).
     * q: [rows, dim]; k: [keys, dim], k_stride apart; x: [rows, DBT_ATTENTION_TILE] */
    void (*scores)(const float *q, const float *k, int64_t k_stride, int64_t rows, int64_t keys,
                   int64_t dim, float *x);
    /* acc[r] += sum over t of x[r][t] * v[t]; v: [keys, dim], v_stride apart; acc: [rows, dim] */
    void (*accumulate)(const float *x, const float *v, int64_t v_stride, int64_t rows, int64_t keys,
                       int64_t dim, float *acc);
    /* The same over float16 where it lies, for up to few_rows rows; NULL: it is unpacked first. */
    int64_t few_rows;
    void (*scores_half)(const float *q, const uint16_t *k, int64_t k_stride, int64_t rows,
                        int64_t keys, int64_t dim, float *x);
    void (*accumulate_half)(const float *x, const uint16_t *v, int64_t v_stride, int64_t rows,
                            int64_t keys, int64_t dim, float *acc);
    /* x[t] = e^(x[t] - top) for t in [0, n); returns their sum. */
    float (*exponentials)(float *x, int64_t n, float top);
    /* As dbt_max, and NULL: that. */
    float (*largest)(const float *x, int64_t n);
    void (*unpack_half)(const uint16_t *h, int64_t n, float *x);
} dbt_attention_kernel;

#define KERNEL(name, isa_) extern const dbt_attention_kernel name;
#include "ops/attention_core/attention_kernels.inc"
#undef KERNEL

/* The one that dbt_attention_run takes. */
const dbt_attention_kernel *dbt_attention_choose(uint64_t isa);

#endif

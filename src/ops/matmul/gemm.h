/* Float matrix products: Y = alpha * A B + beta * C for a batch of matrices of any strides. MatMul,
 * Gemm and FusedMatMul (matmul_op.c) are this with different shapes.
 *
 * SMALL M. B is read along its rows once, straight from where it lies: up to GEMM_FEW_ROWS rows of A
 * share the pass.
 * LARGE M. Panels of B, GEMM_K x GEMM_N, are converted to float and laid out as strips of GEMM_STRIP
 * columns, [GEMM_N / GEMM_STRIP][k][GEMM_STRIP] with zeros past N; then all rows of A meet them. */
#ifndef DBT_OPS_MATMUL_GEMM_H
#define DBT_OPS_MATMUL_GEMM_H

#include "base/packed.h"
#include "base/pool.h"

enum { GEMM_FEW_ROWS = 4, GEMM_K = 128, GEMM_N = 64, GEMM_STRIP = 16, GEMM_MAX_BATCH_RANK = 8 };

typedef struct dbt_gemm {
    int64_t M, N, K;
    int64_t n_batches;
    int32_t batch_rank;
    int64_t batch_dims[GEMM_MAX_BATCH_RANK];
    int64_t a_batch[GEMM_MAX_BATCH_RANK], b_batch[GEMM_MAX_BATCH_RANK]; /* strides, 0: broadcast */
    const float *a; /* [M, K] with a_m and a_k as strides */
    int64_t a_m, a_k;
    const void *b;     /* [K, N] with b_k and b_n as strides, at any address */
    dibit_type b_type; /* FLOAT, FLOAT16, BFLOAT16 or DOUBLE */
    int64_t b_k, b_n;
    const float *c; /* [M, N] with strides c_m and c_n (0: broadcast), or NULL */
    int64_t c_m, c_n;
    float alpha, beta;
    float *y; /* [batches, M, N] */
} dbt_gemm;

/* One batch's matrices, and which rows and columns of them a task computes. */
typedef struct dbt_gemm_part {
    const dbt_gemm *g;
    const float *a;
    const uint8_t *b;
    float *y;
    int64_t m_begin, m_end, n_begin, n_end;
} dbt_gemm_part;

typedef struct dbt_gemm_kernel {
    const char *name;
    uint64_t isa;
    /* Rows of at most GEMM_FEW_ROWS rows of A times all of B's rows; b_n is 1 and B no double. */
    void (*few_rows)(const dbt_gemm_part *part);
    /* Columns of B are contiguous (b_k 1), as are rows of A, and B is float. */
    void (*few_rows_transposed)(const dbt_gemm_part *part);
    /* Rows [k, k + n_k) and columns [n, n + GEMM_N) of B as strips. */
    void (*pack)(const dbt_gemm_part *part, int64_t k, int64_t n_k, int64_t n, float *panel);
    /* Adds a[rows, n_k] * strip to y[rows, columns]; with `first` y is set. columns <= GEMM_STRIP. */
    void (*strip)(const dbt_gemm *g, const float *a, int64_t rows, int64_t n_k, const float *strip,
                  float *y, int64_t columns, bool first);
} dbt_gemm_kernel;

extern const dbt_gemm_kernel dbt_gemm_kernels[]; /* best first, ended by an entry without a name */
const dbt_gemm_kernel *dbt_gemm_choose(uint64_t isa);
uint64_t dbt_gemm_scratch_bytes(const dbt_gemm *g, uint32_t n_threads);
void dbt_gemm_run(const dbt_gemm *g, const dbt_gemm_kernel *kernel, dbt_pool *pool, void *scratch);

/* One batch's result, and alpha * sum |a b| + |beta c|, in double; s may be NULL. */
void dbt_gemm_ref(const dbt_gemm *g, int64_t batch, double *y, double *s);
double dbt_gemm_gamma(const dbt_gemm *g);

#endif

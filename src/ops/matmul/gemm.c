/* Float matrix products: the split into tasks, the choice of a kernel, and the reference. */
#include "ops/matmul/gemm.h"

#include <math.h>

#include "ops/matmul/gemm_kernels.h"

const dbt_gemm_kernel dbt_gemm_kernels[] = {
#define KERNEL(name, isa)                                                                          \
    {#name, isa, name##_few_rows, name##_few_rows_transposed, name##_pack, name##_strip},
#include "ops/matmul/gemm_kernels.inc"
#undef KERNEL
    {0},
};

const dbt_gemm_kernel *dbt_gemm_choose(uint64_t isa) {
    const dbt_gemm_kernel *kernel = dbt_gemm_kernels;
    while ((kernel->isa & isa) != kernel->isa) kernel++; /* the portable one needs nothing */
    return kernel;
}

/* The element offsets of a batch's matrices. */
static void batch_offsets(const dbt_gemm *g, int64_t batch, int64_t *a, int64_t *b) {
    *a = *b = 0;
    for (int32_t i = g->batch_rank - 1; i >= 0; i--) {
        const int64_t at = batch % g->batch_dims[i];
        batch /= g->batch_dims[i];
        *a += at * g->a_batch[i];
        *b += at * g->b_batch[i];
    }
}

static int64_t element_bytes(dibit_type type) { return dibit_type_bits(type) / 8; }

static dbt_gemm_part part_of(const dbt_gemm *g, int64_t batch) {
    int64_t a, b;
    batch_offsets(g, batch, &a, &b);
    return (dbt_gemm_part){
        .g = g,
        .a = g->a + a,
        .b = (const uint8_t *)g->b + b * element_bytes(g->b_type),
        .y = g->y + batch * g->M * g->N,
    };
}

typedef struct execution {
    const dbt_gemm *g;
    const dbt_gemm_kernel *kernel;
    float *panels;             /* [threads][GEMM_K * GEMM_N] */
    int64_t m_chunk, n_m, n_n; /* chunks of rows and of columns */
    bool few_rows, transposed;
} execution;

static void add_c(const dbt_gemm_part *part) {
    const dbt_gemm *const g = part->g;
    if (g->alpha == 1.0f && !g->c) return;
    for (int64_t m = part->m_begin; m < part->m_end; m++) {
        float *const y = part->y + m * g->N;
        for (int64_t n = part->n_begin; n < part->n_end; n++) {
            y[n] = g->alpha * y[n] + (g->c ? g->beta * g->c[m * g->c_m + n * g->c_n] : 0.0f);
        }
    }
}

static void many_rows(const execution *e, const dbt_gemm_part *part, float *panel) {
    const dbt_gemm *const g = part->g;
    for (int64_t n = part->n_begin; n < part->n_end; n += GEMM_N) {
        for (int64_t k = 0; k < g->K; k += GEMM_K) {
            const int64_t n_k = g->K - k < GEMM_K ? g->K - k : GEMM_K;
            e->kernel->pack(part, k, n_k, n, panel);
            for (int64_t s = 0; s < GEMM_N && n + s < part->n_end; s += GEMM_STRIP) {
                const int64_t left = part->n_end - n - s;
                e->kernel->strip(g, part->a + part->m_begin * g->a_m + k * g->a_k,
                                 part->m_end - part->m_begin, n_k, panel + s * n_k,
                                 part->y + part->m_begin * g->N + n + s,
                                 left < GEMM_STRIP ? left : GEMM_STRIP, k == 0);
            }
        }
    }
}

static void gemm_task(void *ctx, int64_t i, uint32_t thread) {
    const execution *const e = ctx;
    const dbt_gemm *const g = e->g;
    dbt_gemm_part part = part_of(g, i / (e->n_m * e->n_n));
    const int64_t m = i / e->n_n % e->n_m, n = i % e->n_n, strips = (g->N + GEMM_N - 1) / GEMM_N;
    part.m_begin = m * e->m_chunk;
    part.m_end = part.m_begin + e->m_chunk < g->M ? part.m_begin + e->m_chunk : g->M;
    part.n_begin = dbt_task_begin(strips, e->n_n, n) * GEMM_N;
    part.n_end = dbt_task_begin(strips, e->n_n, n + 1) * GEMM_N;
    if (part.n_end > g->N) part.n_end = g->N;
    if (e->few_rows && e->transposed) {
        e->kernel->few_rows_transposed(&part);
    } else if (e->few_rows) {
        e->kernel->few_rows(&part);
    } else {
        many_rows(e, &part, e->panels + (int64_t)thread * GEMM_K * GEMM_N);
    }
    add_c(&part);
}

static execution execution_of(const dbt_gemm *g) {
    execution e = {.g = g, .m_chunk = GEMM_FEW_ROWS};
    e.transposed = g->b_k == 1 && g->b_n != 1;
    e.few_rows =
        g->M <= GEMM_FEW_ROWS && (e.transposed ? g->a_k == 1 && g->b_type == DIBIT_TYPE_FLOAT
                                               : g->b_n == 1 && g->b_type != DIBIT_TYPE_DOUBLE);
    if (!e.few_rows) e.m_chunk = 120; /* of A, 60 KB for GEMM_K columns */
    e.n_m = (g->M + e.m_chunk - 1) / e.m_chunk;
    const int64_t strips = (g->N + GEMM_N - 1) / GEMM_N;
    const int64_t rows = g->M < e.m_chunk ? g->M : e.m_chunk;
    e.n_n = dbt_task_count(strips, GEMM_N * g->K * (rows + 1) / 8);
    /* A single pass over B wants long runs of its rows, but some tasks for every core. */
    const int64_t runs = strips / 8 > 8 ? strips / 8 : 8;
    if (e.few_rows && e.n_n > runs) e.n_n = runs;
    return e;
}

uint64_t dbt_gemm_scratch_bytes(const dbt_gemm *g, uint32_t n_threads) {
    return execution_of(g).few_rows ? 0 : (uint64_t)n_threads * GEMM_K * GEMM_N * sizeof(float);
}

void dbt_gemm_run(const dbt_gemm *g, const dbt_gemm_kernel *kernel, dbt_pool *pool, void *scratch) {
    if (g->M == 0 || g->N == 0 || g->n_batches == 0) return;
    if (g->K == 0) memset(g->y, 0, (size_t)(g->n_batches * g->M * g->N) * sizeof *g->y);
    dbt_pool_count(pool,
                   &(dbt_work){.float_products = (uint64_t)(g->n_batches * g->M * g->N * g->K)});
    execution e = execution_of(g);
    e.kernel = kernel;
    e.panels = scratch;
    dbt_parallel_for(pool, g->n_batches * e.n_m * e.n_n, gemm_task, &e);
}

/* ---- The reference ---- */

void dbt_gemm_ref(const dbt_gemm *g, int64_t batch, double *y, double *s) {
    const dbt_gemm_part part = part_of(g, batch);
    for (int64_t m = 0; m < g->M; m++) {
        for (int64_t n = 0; n < g->N; n++) {
            double sum = 0.0, size = 0.0;
            for (int64_t k = 0; k < g->K; k++) {
                const double b = (double)dbt_float_at(part.b, g->b_type, k * g->b_k + n * g->b_n);
                const double term = (double)part.a[m * g->a_m + k * g->a_k] * b;
                sum += term;
                size += fabs(term);
            }
            const double c = g->c ? (double)g->beta * (double)g->c[m * g->c_m + n * g->c_n] : 0.0;
            y[m * g->N + n] = (double)g->alpha * sum + c;
            if (s) s[m * g->N + n] = fabs((double)g->alpha) * size + fabs(c);
        }
    }
}

double dbt_gemm_gamma(const dbt_gemm *g) {
    const double n = (double)g->K + 4.0,
                 u = 0x1p-24; /* K products and sums, alpha, beta, their sum */
    return n * u < 0.5 ? n * u / (1.0 - n * u) : 1.0;
}

/* ref.c's S, fast enough for noise runs over whole prompts: |A| and |W| as floats, W unpacked chunk by
 * chunk and once for many rows of A, multiplied by the float matrix product's kernels.
 *
 * What is rounded: an element of |A| once (s * q), one of |W| twice (code - zero point, * scale), then
 * K products and sums, the bias, and the last factor twice: less than n = K + 8 times in all. No term
 * is negative, so the float sum is at least S * (1 - n u) and, times 1 + gamma_n, at least S. */
#include <math.h>

#include "ops/matmul/gemm.h"
#include "ops/matmul_nbits/matmul_nbits.h"

enum { M_CHUNK = 1024, N_CHUNK = 512 };

typedef struct magnitudes {
    dbt_matmul_nbits p; /* zero points come as floats: it says float activations */
    bool int8_activations;
    float *a, *w;  /* [M_CHUNK, K], [N_CHUNK, K] */
    float *blocks; /* [threads, 2, blocks_stride]: scales, then zero points */
    int64_t blocks_stride;
    int64_t first, n_rows, n_tasks; /* the rows of A or of B that are being unpacked */
} magnitudes;

static void activations_of_row(const magnitudes *c, const float *row, float *out) {
    const int64_t K = c->p.K, block_size = c->p.block_size;
    if (!c->int8_activations) {
        for (int64_t k = 0; k < K; k++) out[k] = fabsf(row[k]);
        return;
    }
    for (int64_t k = 0; k < K;) {
        const int64_t end = K - k < block_size ? K : k + block_size;
        float scale;
        const float inverse = dbt_nbits_int8_scale(row + k, end - k, &scale);
        for (; k < end; k++) {
            const float q = inverse > 0.0f ? nearbyintf(row[k] * inverse) : 0.0f;
            out[k] = scale * fabsf(q);
        }
    }
}

static void weights_of_row(const magnitudes *c, int64_t n, float *blocks, float *out) {
    const dbt_matmul_nbits *const p = &c->p;
    float *const scales = blocks, *const zero_points = blocks + c->blocks_stride;
    const uint8_t *const b = p->b + n * dbt_nbits_row_bytes(p);
    dbt_nbits_decode_blocks(p, n, scales, zero_points);
    for (int64_t block = 0, k = 0; k < p->K; block++) {
        const int64_t end = p->K - k < p->block_size ? p->K : k + p->block_size;
        for (; k < end; k++) {
            const int64_t g = p->g_idx ? p->g_idx[k] : block;
            out[k] = fabsf(((float)dbt_code_at(b, p->bits, k) - zero_points[g]) * scales[g]);
        }
    }
}

static void activations_task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const magnitudes *const c = ctx;
    const int64_t end = dbt_task_begin(c->n_rows, c->n_tasks, i + 1);
    for (int64_t m = dbt_task_begin(c->n_rows, c->n_tasks, i); m < end; m++) {
        activations_of_row(c, c->p.a + (c->first + m) * c->p.K, c->a + m * c->p.K);
    }
}

static void weights_task(void *ctx, int64_t i, uint32_t thread) {
    const magnitudes *const c = ctx;
    float *const blocks = c->blocks + (int64_t)thread * 2 * c->blocks_stride;
    const int64_t end = dbt_task_begin(c->n_rows, c->n_tasks, i + 1);
    for (int64_t n = dbt_task_begin(c->n_rows, c->n_tasks, i); n < end; n++) {
        weights_of_row(c, c->first + n, blocks, c->w + n * c->p.K);
    }
}

static void unpack(magnitudes *c, int64_t first, int64_t n_rows, dbt_task task, dbt_pool *pool) {
    c->first = first;
    c->n_rows = n_rows;
    c->n_tasks = dbt_task_count(n_rows, 4 * c->p.K);
    dbt_parallel_for(pool, c->n_tasks, task, c);
}

/* y [M, N] of a chunk, plus bias, into its columns of s [M, p->N]. */
static void finish(const dbt_matmul_nbits *p, const dbt_gemm *g, int64_t first_n, float *s) {
    const float up = 1.0f + (float)dbt_nbits_gamma(p);
    for (int64_t m = 0; m < g->M; m++) {
        for (int64_t n = 0; n < g->N; n++) {
            const float bias = p->bias ? fabsf(p->bias[first_n + n]) : 0.0f;
            s[m * p->N + first_n + n] = (g->y[m * g->N + n] + bias) * up;
        }
    }
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static dibit_status in_chunks(const dbt_matmul_nbits *p, uint64_t isa, dbt_pool *pool,
                              dbt_arena *arena, float *s) {
    const uint32_t threads = dbt_pool_threads(pool);
    magnitudes c = {.p = *p, .int8_activations = p->int8_activations};
    c.p.int8_activations = false;
    c.blocks_stride = (p->k_blocks + 7) / 8 * 8;
    dbt_gemm g = {.M = least(p->M, M_CHUNK),
                  .N = least(p->N, N_CHUNK),
                  .K = p->K,
                  .n_batches = 1,
                  .a_m = p->K,
                  .a_k = 1,
                  .b_type = DIBIT_TYPE_FLOAT,
                  .b_k = 1,
                  .b_n = p->K,
                  .alpha = 1.0f};
    const uint64_t K = (uint64_t)p->K, M = (uint64_t)g.M, N = (uint64_t)g.N;
    g.a = c.a = dbt_arena_array(arena, M, K * sizeof *c.a);
    g.b = c.w = dbt_arena_array(arena, N, K * sizeof *c.w);
    g.y = dbt_arena_array(arena, M, N * sizeof *g.y);
    c.blocks = dbt_arena_array(arena, threads, 2 * (uint64_t)c.blocks_stride * sizeof *c.blocks);
    void *const panels = dbt_arena_alloc_aligned(arena, dbt_gemm_scratch_bytes(&g, threads), 64);
    if (!c.a || !c.w || !g.y || !c.blocks || !panels) return DIBIT_OUT_OF_MEMORY;
    for (int64_t m = 0; m < p->M; m += M_CHUNK) {
        g.M = least(p->M - m, M_CHUNK);
        unpack(&c, m, g.M, activations_task, pool);
        for (int64_t n = 0; n < p->N; n += N_CHUNK) {
            g.N = least(p->N - n, N_CHUNK);
            unpack(&c, n, g.N, weights_task, pool);
            dbt_gemm_run(&g, dbt_gemm_choose(isa), pool, panels);
            finish(p, &g, n, s + m * p->N);
        }
    }
    return DIBIT_OK;
}

dibit_status dbt_nbits_magnitudes(const dbt_matmul_nbits *p, uint64_t isa, dbt_pool *pool, float *s,
                                  dibit_error *error) {
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    const dibit_status status = in_chunks(p, isa, pool, &arena, s);
    dbt_arena_free(&arena);
    return status ? dbt_fail(error, status, "out of memory for a bound") : DIBIT_OK;
}

/* MatMulNBits on the CPU: the kernel list, the choice among it, int8 activations, and the split of Y
 * into tasks. */
#include <assert.h>

#include "dibit/dibit.h"
#include "ops/matmul_nbits/cpu_kernels.h"

const dbt_nbits_kernel dbt_nbits_kernels[] = {
#define KERNEL(name, isa, bits, int8, min_m, n_tile, order, g_idx)                                 \
    {#name, name, isa, bits, int8, min_m, n_tile, order, g_idx},
#include "ops/matmul_nbits/cpu_kernels.inc"
#undef KERNEL
};
const size_t dbt_nbits_kernel_count = sizeof dbt_nbits_kernels / sizeof dbt_nbits_kernels[0];

bool dbt_nbits_kernel_fits(const dbt_nbits_kernel *kernel, const dbt_matmul_nbits *p,
                           uint64_t isa) {
    return kernel->bits == p->bits && kernel->int8_activations == p->int8_activations &&
           (kernel->isa & isa) == kernel->isa && (!p->g_idx || kernel->g_idx);
}

const dbt_nbits_kernel *dbt_nbits_choose(const dbt_matmul_nbits *p, uint64_t isa) {
    const dbt_nbits_kernel *kernel = dbt_nbits_tuned(p);
    if (kernel && dbt_nbits_kernel_fits(kernel, p, isa)) return kernel;
    kernel = dbt_nbits_kernels;
    while (!dbt_nbits_kernel_fits(kernel, p, isa) || (kernel->min_m > p->M && !p->g_idx)) {
        kernel++;
        assert(kernel < dbt_nbits_kernels + dbt_nbits_kernel_count);
    }
    return kernel;
}

/* ---- Scratch ----
 * int8 activations (q, scale, sum), then per thread: rows, scales, zero points, y, bounce. */

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

typedef struct layout {
    int64_t row_stride, blocks_stride;
    uint64_t q, scale, sum, threads; /* offsets; threads is also the size of what is before it */
    uint64_t rows, scales, zero_points, y, bounce; /* offsets in a thread's part */
    uint64_t thread_bytes;
} layout;

/* Offsets are multiples of 64. */
static uint64_t put(uint64_t *at, int64_t count, uint64_t bytes) {
    const uint64_t here = *at;
    *at += ((uint64_t)count * bytes + 63) / 64 * 64;
    return here;
}

static layout layout_of(const dbt_matmul_nbits *p, const dbt_nbits_kernel *kernel) {
    layout l = {.row_stride = round_up(p->K, 256), .blocks_stride = round_up(p->k_blocks, 16)};
    uint64_t at = 0;
    const int64_t rows =
        kernel->order == DBT_NBITS_TILES ? round_up(p->M, DBT_NBITS_TILE_ROWS) : p->M;
    const int64_t int8_rows = p->int8_activations ? rows : 0;
    l.q = put(&at, int8_rows * l.row_stride, 1);
    l.scale = put(&at, int8_rows * l.blocks_stride, 4);
    l.sum = put(&at, int8_rows * l.blocks_stride, 4);
    l.threads = at;
    at = 0;
    l.rows = put(&at, kernel->n_tile * l.row_stride, p->int8_activations ? 1 : 4);
    l.scales = put(&at, kernel->n_tile * l.blocks_stride, 4);
    l.zero_points = put(&at, kernel->n_tile * l.blocks_stride, 4);
    l.y = put(&at, 8 * kernel->n_tile, 4);
    l.bounce = put(&at, l.row_stride * p->bits / 8 + 64, 1);
    l.thread_bytes = at;
    return l;
}

uint64_t dbt_nbits_scratch_bytes(const dbt_matmul_nbits *p, const dbt_nbits_kernel *kernel,
                                 uint32_t n_threads) {
    const layout l = layout_of(p, kernel);
    return l.threads + n_threads * l.thread_bytes;
}

/* ---- Int8 activations ---- */

typedef struct execution {
    const dbt_matmul_nbits *p;
    const dbt_nbits_pair *pair; /* NULL: p alone */
    const dbt_nbits_kernel *kernel;
    layout layout;
    dbt_nbits_activations activations;
    uint8_t *scratch;
    int64_t m_chunk, n_m_chunks, n_n_chunks, n_tiles, n_row_tasks;
    int64_t n_shares;                  /* chunks of a round */
    int64_t piece, k_pieces, n_pieces; /* of tiles of A: elements of K, and how many of them */
} execution;

/* Rounds to nearest even: the sum has no bits left for a fraction. */
static inline int8_t round_to_int8(float v) {
    return (int8_t)(int32_t)((v + 0x1.8p23f) - 0x1.8p23f);
}

static void quantize_block(const float *a, int64_t n, int8_t *q, float *scale, int32_t *sum) {
    const float inverse = dbt_nbits_int8_scale(a, n, scale);
    int32_t total = 0;
    if (inverse > 0.0f) {
        for (int64_t i = 0; i < n; i++) q[i] = round_to_int8(a[i] * inverse);
        for (int64_t i = 0; i < n; i++) total += q[i];
    } else {
        memset(q, 0, (size_t)n);
    }
    *sum = total;
}

/* Into planes: see DBT_NBITS_PLANES. */
static inline void order_group(int8_t *q, const int64_t plane, const int by) {
    int8_t group[256];
    memcpy(group, q, (size_t)(plane * by));
    for (int j = 0; j < by; j++) {
        for (int64_t i = 0; i < plane; i++) q[plane * j + i] = group[by * i + j];
    }
}

static void quantize_row_portable(const dbt_matmul_nbits *p, uint32_t order, int64_t row_bytes,
                                  const float *a, int8_t *q, float *scale, int32_t *sum) {
    for (int64_t g = 0; g < p->k_blocks; g++) {
        const int64_t k = g * p->block_size;
        const int64_t n = p->K - k < p->block_size ? p->K - k : p->block_size;
        quantize_block(a + k, n, q + k, &scale[g], &sum[g]);
    }
    memset(q + p->K, 0, (size_t)(row_bytes - p->K));
    if (order == DBT_NBITS_PLANES(32, 4)) {
        for (int64_t k = 0; k < row_bytes; k += 128) order_group(q + k, 32, 4);
    } else if (order == DBT_NBITS_PLANES(32, 2)) {
        for (int64_t k = 0; k < row_bytes; k += 64) order_group(q + k, 32, 2);
    } else if (order == DBT_NBITS_PLANES(4, 4)) {
        for (int64_t k = 0; k < row_bytes; k += 16) order_group(q + k, 4, 4);
    } else if (order == DBT_NBITS_PLANES(4, 2)) {
        for (int64_t k = 0; k < row_bytes; k += 8) order_group(q + k, 4, 2);
    }
}

static void quantize_row(const execution *e, int64_t m) {
    const dbt_matmul_nbits *const p = e->p;
    const layout *const l = &e->layout;
    const float *const a = p->a + m * p->K;
    int8_t *const q = (int8_t *)(e->scratch + l->q) + m * l->row_stride;
    float *const scale = (float *)(void *)(e->scratch + l->scale) + m * l->blocks_stride;
    int32_t *const sum = (int32_t *)(void *)(e->scratch + l->sum) + m * l->blocks_stride;
    for (int64_t g = p->k_blocks; g < l->blocks_stride; g++) {
        scale[g] = 0.0f;
        sum[g] = 0;
    }
#if DBT_X86_64
    if (e->kernel->isa & DIBIT_ISA_AVX512) {
        dbt_nbits_quantize_row_avx512(p, e->kernel->order, l->row_stride, a, q, scale, sum);
        return;
    }
#elif defined(__wasm_simd128__)
    if (e->kernel->isa & DIBIT_ISA_WASM_SIMD) {
        dbt_nbits_quantize_row_wasm(p, e->kernel->order, l->row_stride, a, q, scale, sum);
        return;
    }
#endif
    quantize_row_portable(p, e->kernel->order, l->row_stride, a, q, scale, sum);
}

static void quantize_task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const execution *const e = ctx;
    const int64_t n = e->p->M;
    const int64_t end = dbt_task_begin(n, e->n_row_tasks, i + 1);
    for (int64_t m = dbt_task_begin(n, e->n_row_tasks, i); m < end; m++) quantize_row(e, m);
}

#if DBT_X86_64
static void quantize_tile_task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const execution *const e = ctx;
    const dbt_matmul_nbits *const p = e->p;
    const layout *const l = &e->layout;
    const int64_t end = dbt_task_begin(e->n_pieces, e->n_row_tasks, i + 1);
    for (int64_t j = dbt_task_begin(e->n_pieces, e->n_row_tasks, i); j < end; j++) {
        const int64_t tile = j / e->k_pieces, row = tile * DBT_NBITS_TILE_ROWS;
        const int64_t k = j % e->k_pieces * e->piece;
        dbt_nbits_quantize_tile_avx512(
            p, tile, k, p->K - k < e->piece ? p->K : k + e->piece,
            (int8_t *)(e->scratch + l->q) + row * l->row_stride,
            (float *)(void *)(e->scratch + l->scale) + row * l->blocks_stride,
            (int32_t *)(void *)(e->scratch + l->sum) + row * l->blocks_stride);
    }
}

/* Tiles are split along K too, so that one of them keeps all threads busy. */
static void quantize_tiles(execution *e, dbt_pool *pool) {
    const dbt_matmul_nbits *const p = e->p;
    e->piece = p->block_size > 256 ? p->block_size : 256;
    e->k_pieces = (p->K + e->piece - 1) / e->piece;
    e->n_pieces = (p->M + DBT_NBITS_TILE_ROWS - 1) / DBT_NBITS_TILE_ROWS * e->k_pieces;
    e->n_row_tasks = dbt_task_count(e->n_pieces, 4 * DBT_NBITS_TILE_ROWS * e->piece);
    dbt_parallel_for(pool, e->n_row_tasks, quantize_tile_task, e);
}
#endif

static void quantize(execution *e, dbt_pool *pool) {
#if DBT_X86_64
    if (e->kernel->order == DBT_NBITS_TILES) {
        quantize_tiles(e, pool);
        return;
    }
#endif
    e->n_row_tasks = dbt_task_count(e->p->M, 4 * e->p->K);
    dbt_parallel_for(pool, e->n_row_tasks, quantize_task, e);
}

/* ---- Tasks ---- */

void dbt_nbits_decode_blocks(const dbt_matmul_nbits *p, int64_t n, float *scales,
                             void *zero_points) {
    const int64_t first = n * p->k_blocks;
    for (int64_t g = 0; g < p->k_blocks; g++) {
        scales[g] = dbt_float_at(p->scales, p->scale_type, first + g);
    }
    const bool floats = dbt_nbits_float_zero_points(p) || !p->int8_activations;
    float *const as_float = zero_points;
    int32_t *const as_int = zero_points;
    const uint8_t *const packed =
        (const uint8_t *)p->zero_points + (p->zero_points ? n * dbt_nbits_zero_row_bytes(p) : 0);
    for (int64_t g = 0; g < p->k_blocks; g++) {
        if (dbt_nbits_float_zero_points(p)) {
            as_float[g] = dbt_float_at(p->zero_points, p->zero_point_type, first + g);
            continue;
        }
        const int32_t zero_point = p->zero_points ? (int32_t)dbt_code_at(packed, p->bits, g)
                                                  : (int32_t)(1u << (p->bits - 1));
        if (floats) {
            as_float[g] = (float)zero_point;
        } else {
            as_int[g] = zero_point;
        }
    }
    for (int64_t g = p->k_blocks; g % 8 != 0; g++) {
        scales[g] = 0.0f;
        as_int[g] = 0; /* the bits of 0.0f too */
    }
}

/* ---- The split ----
 *
 * Threads end together when the last chunks are small, and streams of B are long when the first are large: a round
 * of chunks, one for each thread, takes three quarters of the tiles that are left, the last round all. */
static void split_tiles(execution *e, bool pair, int64_t n_threads) {
    enum { LEAST = 8192 }; /* cost of a chunk that outlasts its hand-over, some microseconds */
    const dbt_matmul_nbits *const p = e->p;
    e->m_chunk = DBT_NBITS_M_CHUNK;
    e->n_m_chunks = (p->M + e->m_chunk - 1) / e->m_chunk;
    e->n_tiles = (p->N + e->kernel->n_tile - 1) / e->kernel->n_tile;
    const int64_t rows = p->M < e->m_chunk ? p->M : e->m_chunk;
    /* A code of B costs about what three products with rows of A do. Y does not depend on the split. */
    const int64_t tile_cost = (pair ? 2 : 1) * e->kernel->n_tile * p->K * (rows + 3) / 16;
    const double most = (double)e->n_tiles * (double)tile_cost / LEAST;
    int64_t n = most < (double)n_threads ? (int64_t)most : n_threads;
    n = n > e->n_tiles ? e->n_tiles : n;
    e->n_shares = e->n_n_chunks = n > 1 ? n : 1;
    if (n <= 1) return;
    for (int64_t left = e->n_tiles - e->n_tiles * 3 / 4;
         left >= n && (double)left * (double)tile_cost >= (double)n * LEAST; left -= left * 3 / 4) {
        e->n_n_chunks += n;
    }
}

static int64_t chunk_begin(const execution *e, int64_t chunk) {
    if (chunk == e->n_n_chunks) return e->n_tiles;
    const int64_t round = chunk / e->n_shares, last = e->n_n_chunks / e->n_shares - 1;
    int64_t left = e->n_tiles;
    for (int64_t r = 0; r < round; r++) left -= left * 3 / 4;
    const int64_t taken = round == last ? left : left * 3 / 4;
    return e->n_tiles - left + taken * (chunk % e->n_shares) / e->n_shares;
}

/* The first bytes of the streams of rows [begin, end); returns how many of `most` are left. */
static int64_t prefetch_rows(const dbt_matmul_nbits *p, int64_t begin, int64_t end, int64_t most,
                             dbt_prefetch *prefetch) {
    const int64_t b_bytes = dbt_nbits_row_bytes(p), scale_bytes = dbt_nbits_scale_row_bytes(p);
    const int64_t zero_bytes = dbt_nbits_zero_point_row_bytes(p);
    const int64_t step = (end - begin + DBT_NBITS_STREAMS - 1) / DBT_NBITS_STREAMS;
    const int64_t room = most / DBT_NBITS_STREAMS / (b_bytes + scale_bytes + zero_bytes);
    const int64_t rows = room < step ? room : step;
    for (int64_t n = begin; n < end && rows > 0; n += step) {
        const int64_t here = end - n < rows ? end - n : rows;
        dbt_prefetch_add(prefetch, p->b + n * b_bytes, here * b_bytes);
        dbt_prefetch_add(prefetch, (const char *)p->scales + n * scale_bytes, here * scale_bytes);
        if (zero_bytes > 0)
            dbt_prefetch_add(prefetch, (const char *)p->zero_points + n * zero_bytes,
                             here * zero_bytes);
    }
    return most - rows * DBT_NBITS_STREAMS * (b_bytes + scale_bytes + zero_bytes);
}

void dbt_nbits_prefetch(const dbt_matmul_nbits *p, const dbt_matmul_nbits *second,
                        const dbt_nbits_kernel *kernel, uint32_t thread, uint32_t n_threads,
                        dbt_prefetch *prefetch) {
    enum { MAX_M = 4, MOST = 128 << 10 }; /* bytes: a part of a core's second cache */
    execution e = {.p = p, .kernel = kernel};
    if (p->M < 1 || p->M > MAX_M) return;
    split_tiles(&e, second != NULL, n_threads);
    if (thread >= e.n_n_chunks) return; /* chunks are taken in order */
    const int64_t begin = chunk_begin(&e, thread) * kernel->n_tile;
    const int64_t behind = chunk_begin(&e, thread + 1) * kernel->n_tile;
    const int64_t end = behind < p->N ? behind : p->N;
    const int64_t left = prefetch_rows(p, begin, end, MOST, prefetch);
    if (second) prefetch_rows(second, begin, end, left, prefetch);
}

static void multiply_task(void *ctx, int64_t i, uint32_t thread) {
    const execution *const e = ctx;
    const dbt_matmul_nbits *const p = e->p;
    const layout *const l = &e->layout;
    uint8_t *const scratch = e->scratch + l->threads + thread * l->thread_bytes;
    const int64_t m = i / e->n_n_chunks, n = i % e->n_n_chunks;
    dbt_nbits_task task = {
        .p = p,
        .activations = p->int8_activations ? &e->activations : NULL,
        .m_begin = m * e->m_chunk,
        .m_end = (m + 1) * e->m_chunk < p->M ? (m + 1) * e->m_chunk : p->M,
        .n_begin = chunk_begin(e, n) * e->kernel->n_tile,
        .n_end = chunk_begin(e, n + 1) * e->kernel->n_tile,
        .n_tile = e->kernel->n_tile,
        .rows = scratch + l->rows,
        .scales = (float *)(void *)(scratch + l->scales),
        .zero_points = scratch + l->zero_points,
        .y = (float *)(void *)(scratch + l->y),
        .bounce = scratch + l->bounce,
        .row_stride = l->row_stride,
        .blocks_stride = l->blocks_stride,
    };
    if (task.n_end > p->N) task.n_end = p->N;
    e->kernel->run(&task);
    if (!e->pair) return;
    task.p = e->pair->second;
    e->kernel->run(&task);
    e->pair->then(e->pair->ctx, task.m_begin, task.m_end, task.n_begin, task.n_end);
}

void dbt_nbits_execute(const dbt_matmul_nbits *p, const dbt_nbits_kernel *kernel, dbt_pool *pool,
                       void *scratch) {
    dbt_nbits_execute_pair(p, NULL, kernel, pool, scratch);
}

void dbt_nbits_execute_pair(const dbt_matmul_nbits *p, const dbt_nbits_pair *pair,
                            const dbt_nbits_kernel *kernel, dbt_pool *pool, void *scratch) {
    if (p->M == 0) return;
    dbt_nbits_count(p, pool);
    if (pair) dbt_nbits_count(pair->second, pool);
    execution e = {
        .p = p, .pair = pair, .kernel = kernel, .layout = layout_of(p, kernel), .scratch = scratch};
    if (p->int8_activations) {
        e.activations = (dbt_nbits_activations){
            .q = (const int8_t *)(e.scratch + e.layout.q),
            .scale = (const float *)(const void *)(e.scratch + e.layout.scale),
            .sum = (const int32_t *)(const void *)(e.scratch + e.layout.sum),
            .row_bytes = e.layout.row_stride,
            .blocks_stride = e.layout.blocks_stride,
        };
        quantize(&e, pool);
    }
    split_tiles(&e, pair != NULL, (int64_t)dbt_pool_threads(pool));
    dbt_parallel_for(pool, e.n_m_chunks * e.n_n_chunks, multiply_task, &e);
}

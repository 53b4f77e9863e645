/* Attention on the CPU, in one pass over the keys with a running maximum and sum per query.
 *
 * A unit of work is a block of at most DBT_ATTENTION_ROWS rows of one batch row and key/value head;
 * row i of the head is query i / group of its head i % group, so rows of a block see nearly the same
 * keys. When a head has a single block and many keys (decoding), the keys are split into at most
 * MAX_PARTS parts of their own, which are merged in order. Blocks and parts depend on shapes and
 * lengths alone, so results do not depend on threads. Queries are scaled where they are gathered. */
#include "ops/attention_core/attention_core.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/math.h"
#include "ops/attention_core/attention_kernels.h"

enum { MAX_PARTS = 16, PART_KEYS = 128 };

const dbt_attention_kernel *dbt_attention_choose(uint64_t isa) {
#define KERNEL(name, isa_)                                                                         \
    if ((isa & (isa_)) == (isa_)) return &name;
#include "ops/attention_core/attention_kernels.inc"
#undef KERNEL
    return NULL;
}

/* What a block or part has found: not yet divided by the sum. */
typedef struct partial {
    float *top, *sum; /* [rows] */
    float *acc;       /* [rows, v_dim] */
} partial;

typedef struct job {
    const dbt_attention *a;
    const dbt_attention_kernel *kernel;
    float (*largest)(const float *x, int64_t n);
    int64_t group, rows; /* rows of a head: group * queries */
    int64_t blocks, parts;
    int64_t units, tasks;
    float *threads; /* per thread: q, x, tile, partial */
    float *parts_memory;
    int64_t thread_floats, part_floats, q_floats, x_floats, tile_floats;
} job;

static int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

static int64_t partial_floats(int64_t rows, int64_t v_dim) {
    return 2 * padded(rows) + padded(rows * v_dim);
}

static partial partial_at(float *memory, int64_t rows) {
    return (partial){memory, memory + padded(rows), memory + 2 * padded(rows)};
}

static job make_job(const dbt_attention *a) {
    job j = {.a = a, .kernel = dbt_attention_choose(a->isa)};
    j.largest = j.kernel->largest ? j.kernel->largest : dbt_max;
    j.group = a->heads / a->kv_heads;
    j.rows = j.group * a->queries;
    j.blocks = (j.rows + DBT_ATTENTION_ROWS - 1) / DBT_ATTENTION_ROWS;
    j.parts = j.blocks == 1 ? MAX_PARTS : 1; /* at most */
    const int64_t rows = j.rows < DBT_ATTENTION_ROWS ? j.rows : DBT_ATTENTION_ROWS;
    const int64_t widest = a->k_dim > a->v_dim ? a->k_dim : a->v_dim;
    j.q_floats = padded(rows * a->k_dim);
    j.x_floats = padded(rows * DBT_ATTENTION_TILE);
    j.tile_floats = padded(DBT_ATTENTION_TILE * widest);
    j.part_floats = partial_floats(rows, a->v_dim);
    j.thread_floats = j.q_floats + j.x_floats + j.tile_floats + j.part_floats;
    j.units = a->batch * a->kv_heads * j.blocks * j.parts;
    return j;
}

uint64_t dbt_attention_scratch(const dbt_attention *a) {
    const job j = make_job(a);
    uint64_t bytes = 0;
    dbt_scratch_add(&bytes, (uint64_t)j.thread_floats * dbt_pool_threads(a->pool), sizeof(float));
    if (j.parts > 1) {
        dbt_scratch_add(&bytes, (uint64_t)j.units * (uint64_t)j.part_floats, sizeof(float));
    }
    return bytes;
}

/* ---- One block --------------------------------------------------------------------------------- */

typedef struct block {
    const job *j;
    const dbt_attention_row *row;
    int64_t b, kv, first, rows; /* rows [first, first + rows) of the head */
    int64_t begin[DBT_ATTENTION_ROWS], end[DBT_ATTENTION_ROWS]; /* visible keys of this part */
    int64_t lo, hi;                                             /* all of them */
    float *q, *x, *tile;
    partial out;
} block;

static int64_t head_of(const block *k, int64_t r) {
    return k->kv * k->j->group + (k->first + r) % k->j->group;
}
static int64_t query_of(const block *k, int64_t r) { return (k->first + r) / k->j->group; }

static bool is_split(const job *j, const dbt_attention_row *row) {
    return j->parts > 1 && row->n_keys > PART_KEYS;
}

/* How many keys a part of a batch row has. */
static int64_t part_size(const dbt_attention_row *row) {
    int64_t size = (row->n_keys + MAX_PARTS - 1) / MAX_PARTS;
    size = (size + DBT_ATTENTION_TILE - 1) / DBT_ATTENTION_TILE * DBT_ATTENTION_TILE;
    return size > PART_KEYS ? size : PART_KEYS;
}

/* The keys that part `part` of a batch row takes. */
static void part_keys(const job *j, const dbt_attention_row *row, int64_t part, int64_t *begin,
                      int64_t *end) {
    const int64_t size = is_split(j, row) ? part_size(row) : row->n_keys;
    *begin = part * size < row->n_keys ? part * size : row->n_keys;
    *end = *begin + size < row->n_keys ? *begin + size : row->n_keys;
}

static void gather(block *k, int64_t part) {
    const dbt_attention *const a = k->j->a;
    int64_t part_begin, part_end;
    part_keys(k->j, k->row, part, &part_begin, &part_end);
    k->lo = part_end;
    k->hi = part_begin;
    for (int64_t r = 0; r < k->rows; r++) {
        const int64_t h = head_of(k, r), s = query_of(k, r);
        const float *const q =
            a->q + k->b * a->q_stride[0] + h * a->q_stride[1] + s * a->q_stride[2];
        for (int64_t d = 0; d < a->k_dim; d++) k->q[r * a->k_dim + d] = q[d] * a->scale;
        dbt_attention_visible(a, k->row, s, &k->begin[r], &k->end[r]);
        if (k->begin[r] < part_begin) k->begin[r] = part_begin;
        if (k->end[r] > part_end) k->end[r] = part_end;
        if (k->begin[r] < k->end[r]) {
            if (k->begin[r] < k->lo) k->lo = k->begin[r];
            if (k->end[r] > k->hi) k->hi = k->end[r];
        }
        k->out.top[r] = -INFINITY;
        k->out.sum[r] = 0;
    }
    memset(k->out.acc, 0, (size_t)(k->rows * a->v_dim) * sizeof(float));
}

/* Keys or values [t, t + n) as floats, *stride apart. */
static const float *tile_of(const block *k, const dbt_attention_span *span, dibit_type type,
                            int64_t dim, int64_t t, int64_t n, int64_t *stride) {
    const int64_t at = k->kv * span->head_stride + t * span->row_stride;
    if (type == DIBIT_TYPE_FLOAT) {
        *stride = span->row_stride;
        return (const float *)span->data + at;
    }
    *stride = dim;
    const uint64_t bytes = dibit_type_bits(type) / 8;
    const char *const data = (const char *)span->data + (uint64_t)at * bytes;
    const bool dense = span->row_stride == dim;
    const int64_t pieces = dense ? 1 : n, size = dense ? n * dim : dim;
    for (int64_t i = 0; i < pieces; i++) {
        const void *const from = data + (uint64_t)(i * span->row_stride) * bytes;
        if (type == DIBIT_TYPE_FLOAT16) {
            k->j->kernel->unpack_half(from, size, k->tile + i * dim);
        } else {
            dbt_unpack_elements(type, from, k->tile + i * dim, size);
        }
    }
    return k->tile;
}

static void cap(float softcap, float *x, int64_t n) {
    for (int64_t i = 0; i < n && softcap > 0; i++) x[i] = softcap * tanhf(x[i] / softcap);
}

/* Dots to scores, for keys [t, t + n). */
static void finish_scores(const block *k, int64_t r, int64_t t, float *x, int64_t n) {
    const dbt_attention *const a = k->j->a;
    cap(a->softcap, x, n);
    for (int m = 0; m < 2; m++) {
        const dbt_attention_term *const term = &a->terms[m];
        if (!term->data) continue;
        const float *const bias =
            term->data + k->b * term->stride[0] + head_of(k, r) * term->stride[1] +
            query_of(k, r) * term->stride[2] + (k->row->term_offset + t) * term->stride[3];
        for (int64_t i = 0; i < n; i++) x[i] += bias[i * term->stride[3]];
    }
}

/* Scores of row r in a tile to weights relative to the row's new maximum. */
static void weigh(const block *k, int64_t r, int64_t t, int64_t n) {
    const int64_t v_dim = k->j->a->v_dim;
    float *const x = k->x + r * DBT_ATTENTION_TILE, *const acc = k->out.acc + r * v_dim;
    const int64_t begin = k->begin[r] > t ? k->begin[r] - t : 0;
    const int64_t end = k->end[r] < t + n ? k->end[r] - t : n;
    float top = k->out.top[r];
    if (begin < end) {
        finish_scores(k, r, t + begin, x + begin, end - begin);
        const float most = k->j->largest(x + begin, end - begin);
        if (!(most <= top)) top = most; /* NaN passes on */
    }
    if (begin >= end || top == -INFINITY) {
        memset(x, 0, (size_t)n * sizeof *x);
        return;
    }
    if (top != k->out.top[r] && k->out.sum[r] > 0) {
        const float shrink = dbt_expf(k->out.top[r] - top);
        k->out.sum[r] *= shrink;
        for (int64_t d = 0; d < v_dim; d++) acc[d] *= shrink;
    }
    k->out.top[r] = top;
    memset(x, 0, (size_t)begin * sizeof *x);
    k->out.sum[r] += k->j->kernel->exponentials(x + begin, end - begin, top);
    memset(x + end, 0, (size_t)(n - end) * sizeof *x);
}

/* Float16 that the kernel reads where it lies: element `t` of the head, or NULL. */
static const uint16_t *half_of(const block *k, const dbt_attention_span *span, dibit_type type,
                               int64_t t) {
    const dbt_attention_kernel *const kernel = k->j->kernel;
    if (type != DIBIT_TYPE_FLOAT16 || k->rows > kernel->few_rows) return NULL;
    return (const uint16_t *)span->data + k->kv * span->head_stride + t * span->row_stride;
}

static void score_tile(const block *k, int64_t t, int64_t n) {
    const dbt_attention *const a = k->j->a;
    const dbt_attention_span *const span = &k->row->k;
    const uint16_t *const half = half_of(k, span, a->k_type, t);
    if (half) {
        k->j->kernel->scores_half(k->q, half, span->row_stride, k->rows, n, a->k_dim, k->x);
        return;
    }
    int64_t stride;
    const float *const keys = tile_of(k, span, a->k_type, a->k_dim, t, n, &stride);
    k->j->kernel->scores(k->q, keys, stride, k->rows, n, a->k_dim, k->x);
}

static void accumulate_tile(const block *k, int64_t t, int64_t n) {
    const dbt_attention *const a = k->j->a;
    const dbt_attention_span *const span = &k->row->v;
    const uint16_t *const half = half_of(k, span, a->v_type, t);
    if (half) {
        k->j->kernel->accumulate_half(k->x, half, span->row_stride, k->rows, n, a->v_dim,
                                      k->out.acc);
        return;
    }
    int64_t stride;
    const float *const values = tile_of(k, span, a->v_type, a->v_dim, t, n, &stride);
    k->j->kernel->accumulate(k->x, values, stride, k->rows, n, a->v_dim, k->out.acc);
}

/* Asks for tile [t, t + n) where few queries read it once and straight from memory: the next tile is on its
 * way while this one is computed. (The CPU's own prefetching starts anew with every page.) */
static void prefetch_tile(const block *k, const dbt_attention_span *span, dibit_type type,
                          int64_t dim, int64_t t, int64_t n) {
    enum { LINE = 64 };
    if (k->rows > k->j->kernel->few_rows) return;
    const int64_t bytes = dibit_type_bits(type) / 8;
    const char *const first =
        (const char *)span->data + (k->kv * span->head_stride + t * span->row_stride) * bytes;
    for (int64_t i = 0; i < n; i++) {
        const char *const row = first + i * span->row_stride * bytes;
        for (int64_t at = 0; at < dim * bytes; at += LINE) DBT_PREFETCH(row + at);
    }
}

static void run_block(block *k, int64_t part) {
    const dbt_attention *const a = k->j->a;
    gather(k, part);
    for (int64_t t = k->lo; t < k->hi; t += DBT_ATTENTION_TILE) {
        const int64_t n = k->hi - t < DBT_ATTENTION_TILE ? k->hi - t : DBT_ATTENTION_TILE;
        const int64_t left = k->hi - t - n, next = left < n ? left : n;
        prefetch_tile(k, &k->row->v, a->v_type, a->v_dim, t, n);
        score_tile(k, t, n);
        prefetch_tile(k, &k->row->k, a->k_type, a->k_dim, t + n, next);
        for (int64_t r = 0; r < k->rows; r++) weigh(k, r, t, n);
        accumulate_tile(k, t, n);
    }
}

/* ---- Putting together --------------------------------------------------------------------------- */

/* Divides the sums and writes outputs; n partials of the same rows. */
static void write_rows(const block *k, const partial *parts, int64_t n) {
    const dbt_attention *const a = k->j->a;
    for (int64_t r = 0; r < k->rows; r++) {
        const int64_t h = head_of(k, r);
        const float sink = !a->has_sink ? -INFINITY : a->sink ? a->sink[h] : 0.0f;
        float top = sink;
        for (int64_t i = 0; i < n; i++) {
            if (!(parts[i].top[r] <= top)) top = parts[i].top[r];
        }
        float *const y =
            a->y + k->b * a->y_stride[0] + h * a->y_stride[1] + query_of(k, r) * a->y_stride[2];
        memset(y, 0, (size_t)a->v_dim * sizeof *y);
        if (top == -INFINITY) continue; /* nothing is visible */
        float sum = a->has_sink ? dbt_expf(sink - top) : 0.0f;
        for (int64_t i = 0; i < n; i++) {
            if (parts[i].top[r] == -INFINITY) continue;
            sum += parts[i].sum[r] * dbt_expf(parts[i].top[r] - top);
        }
        for (int64_t i = 0; i < n; i++) {
            if (parts[i].top[r] == -INFINITY) continue;
            const float share = dbt_expf(parts[i].top[r] - top) / sum;
            for (int64_t d = 0; d < a->v_dim; d++) y[d] += parts[i].acc[r * a->v_dim + d] * share;
        }
    }
}

static block block_of(const job *j, int64_t head, int64_t index) {
    const int64_t first = index * DBT_ATTENTION_ROWS;
    block k = {.j = j, .b = head / j->a->kv_heads, .kv = head % j->a->kv_heads, .first = first};
    k.row = &j->a->rows[k.b];
    k.rows = j->rows - first < DBT_ATTENTION_ROWS ? j->rows - first : DBT_ATTENTION_ROWS;
    return k;
}

static void run_unit(const job *j, int64_t unit, float *memory) {
    /* What may be small comes last, so that threads end together: the last part of a batch row, and of a causal
     * head the first block, which sees the fewest keys. */
    const int64_t n_blocks = j->units / j->parts, part = unit / n_blocks, rest = unit % n_blocks;
    const int64_t head = rest / j->blocks;
    block k = block_of(j, head, j->blocks - 1 - rest % j->blocks);
    const bool split = is_split(j, k.row);
    if (part > 0 && !split) return;
    k.q = memory;
    k.x = k.q + j->q_floats;
    k.tile = k.x + j->x_floats;
    k.out = partial_at(split ? j->parts_memory + (head * j->parts + part) * j->part_floats
                             : k.tile + j->tile_floats,
                       k.rows);
    run_block(&k, part);
    if (!split) write_rows(&k, &k.out, 1);
}

static void unit_task(void *ctx, int64_t i, uint32_t thread) {
    const job *const j = ctx;
    const int64_t end = dbt_task_begin(j->units, j->tasks, i + 1);
    for (int64_t u = dbt_task_begin(j->units, j->tasks, i); u < end; u++) {
        run_unit(j, u, j->threads + (int64_t)thread * j->thread_floats);
    }
}

static void merge_parts(const job *j) {
    for (int64_t head = 0; head < j->a->batch * j->a->kv_heads; head++) {
        const block k = block_of(j, head, 0);
        if (!is_split(j, k.row)) continue;
        partial parts[MAX_PARTS];
        for (int64_t i = 0; i < j->parts; i++) {
            parts[i] = partial_at(j->parts_memory + (head * j->parts + i) * j->part_floats, k.rows);
        }
        write_rows(&k, parts, j->parts);
    }
}

void dbt_attention_run(const dbt_attention *a, void *scratch) {
    assert(a->heads % a->kv_heads == 0);
    dbt_attention_count(a);
    if (a->qk_kind != DBT_ATTENTION_QK_NONE) {
        dbt_attention_ref(a, NULL);
        return;
    }
    job j = make_job(a);
    if (j.units == 0) return;
    j.threads = scratch;
    j.parts_memory = j.threads + j.thread_floats * (int64_t)dbt_pool_threads(a->pool);
    int64_t keys = 0, parts = 1;
    for (int64_t b = 0; b < a->batch; b++) {
        const int64_t n = a->rows[b].n_keys, size = part_size(&a->rows[b]);
        keys += n;
        if ((n + size - 1) / size > parts) parts = (n + size - 1) / size;
    }
    if (parts < j.parts) j.parts = parts;
    j.units = a->batch * a->kv_heads * j.blocks * j.parts;
    const double work =
        (double)keys * (double)(a->heads * a->queries) * (double)(a->k_dim + a->v_dim);
    const double cost = work / 2 / (double)j.units + 64; /* of SIMD code */
    j.tasks = dbt_task_count(j.units, cost < 1e15 ? (int64_t)cost : (int64_t)1e15);
    dbt_parallel_for(a->pool, j.tasks, unit_task, &j);
    if (j.parts > 1) merge_parts(&j);
}

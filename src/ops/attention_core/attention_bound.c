/* The bound of attention_ref.c, fast enough for noise runs over whole prompts: a score is computed once,
 * keys and values become doubles once for a block of queries, and the pool shares the blocks. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/packed.h"
#include "ops/attention_core/attention_core.h"

enum { BLOCK_QUERIES = 32, LANES = 4 };

typedef struct job {
    const dbt_attention *a;
    float *bound;
    int64_t n_blocks; /* of a batch row's key/value head */
    int64_t k_stride; /* k_dim rounded up to LANES */
    int64_t most_keys;
    double *memory; /* thread_doubles for each thread */
    int64_t thread_doubles;
} job;

/* Queries of one batch row and the heads that share keys; in a thread's memory. */
typedef struct block {
    const job *j;
    const dbt_attention_row *row;
    int64_t b, kv, first_key; /* that key is in front in k and v */
    double *k, *v;            /* [keys, k_stride] with zeros past k_dim, [keys, v_dim] magnitudes */
    double *x;                /* [keys]: scores, then weights */
    double *q, *sums;         /* [k_stride], [v_dim] */
} block;

/* Softmax's numerators of a query, from key `begin` on. */
typedef struct weights {
    int64_t begin, end;
    double sum;   /* with the sink's; 0 when nothing is visible */
    double error; /* in half an ulp of 1: how far a float score may be off */
} weights;

static double dot(const double *q, const double *k, int64_t n, double *size) {
    double sums[LANES] = {0}, sizes[LANES] = {0};
    for (int64_t d = 0; d < n; d += LANES) {
        for (int i = 0; i < LANES; i++) {
            const double product = q[d + i] * k[d + i];
            sums[i] += product;
            sizes[i] += fabs(product);
        }
    }
    *size = (sizes[0] + sizes[1]) + (sizes[2] + sizes[3]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static double with_terms(const block *k, int64_t h, int64_t s, int64_t t, double x) {
    for (int i = 0; i < 2; i++) {
        const dbt_attention_term *const m = &k->j->a->terms[i];
        if (!m->data) continue;
        x += (double)m->data[k->b * m->stride[0] + h * m->stride[1] + s * m->stride[2] +
                             (k->row->term_offset + t) * m->stride[3]];
    }
    return x;
}

static weights weigh(const block *k, int64_t h, int64_t s) {
    const dbt_attention *const a = k->j->a;
    const double scale = (double)a->scale, softcap = (double)a->softcap;
    const double sink = !a->has_sink ? (double)-INFINITY : a->sink ? (double)a->sink[h] : 0.0;
    const float *const q = a->q + k->b * a->q_stride[0] + h * a->q_stride[1] + s * a->q_stride[2];
    for (int64_t d = 0; d < a->k_dim; d++) k->q[d] = (double)q[d];
    weights w = {0};
    dbt_attention_visible(a, k->row, s, &w.begin, &w.end);
    double top = sink;
    for (int64_t t = w.begin; t < w.end; t++) {
        double size;
        const int64_t stride = k->j->k_stride;
        double x = scale * dot(k->q, k->k + (t - k->first_key) * stride, stride, &size);
        x = with_terms(k, h, s, t, softcap > 0 ? softcap * tanh(x / softcap) : x);
        k->x[t - w.begin] = x;
        if (x > top) top = x;
        /* gamma of the sum, and a few roundings of what follows */
        const double off =
            ((double)a->k_dim + 8) * size * fabs(scale) + (isfinite(x) ? 8 * fabs(x) : 0);
        if (off > w.error) w.error = off;
    }
    if (!(top > (double)-INFINITY)) return w; /* no key, or only forbidden ones */
    w.sum = exp(sink - top);
    for (int64_t t = 0; t < w.end - w.begin; t++) w.sum += k->x[t] = exp(k->x[t] - top);
    return w;
}

static void one_query(const block *k, int64_t h, int64_t s) {
    const dbt_attention *const a = k->j->a;
    const weights w = weigh(k, h, s);
    memset(k->sums, 0, (size_t)a->v_dim * sizeof *k->sums);
    for (int64_t t = w.begin; t < w.end && w.sum != 0; t++) {
        const double weight = k->x[t - w.begin] / w.sum;
        const double *const v = k->v + (t - k->first_key) * a->v_dim;
        for (int64_t d = 0; d < a->v_dim; d++) k->sums[d] += weight * v[d];
    }
    /* exp turns absolute error of scores (numerator and denominator) into relative error. */
    const double relative = expm1(2 * w.error * (double)FLT_EPSILON / 2) +
                            ((double)(w.end - w.begin) + 16) * (double)FLT_EPSILON;
    float *const bound =
        k->j->bound + k->b * a->y_stride[0] + h * a->y_stride[1] + s * a->y_stride[2];
    for (int64_t d = 0; d < a->v_dim; d++) {
        bound[d] = (float)(relative * k->sums[d] + (double)FLT_MIN);
    }
}

static double element(const void *data, dibit_type type, int64_t i) {
    return type == DIBIT_TYPE_DOUBLE ? ((const double *)data)[i]
                                     : (double)dbt_float_at(data, type, i);
}

static void convert(const block *k, int64_t end) {
    const dbt_attention *const a = k->j->a;
    const dbt_attention_span *const ks = &k->row->k, *const vs = &k->row->v;
    for (int64_t t = k->first_key; t < end; t++) {
        const int64_t k_at = k->kv * ks->head_stride + t * ks->row_stride;
        const int64_t v_at = k->kv * vs->head_stride + t * vs->row_stride;
        double *const key = k->k + (t - k->first_key) * k->j->k_stride;
        double *const value = k->v + (t - k->first_key) * a->v_dim;
        for (int64_t d = 0; d < a->k_dim; d++) key[d] = element(ks->data, a->k_type, k_at + d);
        for (int64_t d = 0; d < a->v_dim; d++) {
            value[d] = fabs(element(vs->data, a->v_type, v_at + d));
        }
    }
}

static void block_task(void *ctx, int64_t i, uint32_t thread) {
    const job *const j = ctx;
    const dbt_attention *const a = j->a;
    const int64_t group = a->heads / a->kv_heads, head = i / j->n_blocks;
    block k = {.j = j, .b = head / a->kv_heads, .kv = head % a->kv_heads};
    k.row = &a->rows[k.b];
    k.k = j->memory + (int64_t)thread * j->thread_doubles;
    k.v = k.k + j->most_keys * j->k_stride;
    k.x = k.v + j->most_keys * a->v_dim;
    k.q = k.x + j->most_keys;
    k.sums = k.q + j->k_stride;
    const int64_t first = i % j->n_blocks * BLOCK_QUERIES, left = a->queries - first;
    const int64_t last = first + (left < BLOCK_QUERIES ? left : BLOCK_QUERIES) - 1;
    int64_t end, unused;
    dbt_attention_visible(a, k.row, first, &k.first_key, &unused);
    dbt_attention_visible(a, k.row, last, &unused, &end);
    convert(&k, end);
    for (int64_t h = k.kv * group; h < (k.kv + 1) * group; h++) {
        for (int64_t s = first; s <= last; s++) one_query(&k, h, s);
    }
}

dibit_status dbt_attention_bound(const dbt_attention *a, float *bound, dibit_error *error) {
    job j = {.a = a, .bound = bound};
    j.n_blocks = (a->queries + BLOCK_QUERIES - 1) / BLOCK_QUERIES;
    j.k_stride = (a->k_dim + LANES - 1) / LANES * LANES;
    for (int64_t b = 0; b < a->batch; b++) {
        if (a->rows[b].n_keys > j.most_keys) j.most_keys = a->rows[b].n_keys;
    }
    j.thread_doubles = (j.most_keys + 1) * (j.k_stride + a->v_dim + 1);
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    const uint64_t bytes = (uint64_t)j.thread_doubles * sizeof *j.memory;
    j.memory = dbt_arena_array(&arena, dbt_pool_threads(a->pool), bytes);
    if (!j.memory) {
        dbt_arena_free(&arena);
        return dbt_fail_memory(error, "a bound", bytes);
    }
    dbt_parallel_for(a->pool, a->batch * a->kv_heads * j.n_blocks, block_task, &j);
    dbt_arena_free(&arena);
    return DIBIT_OK;
}

/* com.microsoft Attention on the CPU: one matrix product makes queries, keys and values of all heads;
 * attention_core does the rest. past and present are [2, batch, heads, tokens, dim]. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/matmul/gemm.h"
#include "ops/multi_head_attention/mha.h"

typedef struct attn {
    const dbt_cpu_call *call;
    dbt_attn_step step;
    bool cached;
    dbt_attention_row *rows;
    float *projected; /* [batch * queries, width] */
    float *mask, *cache;
    dbt_attention_term terms[2];
    void *gemm_scratch, *core;
    uint64_t bytes;
} attn;

static dbt_attention describe(const attn *m) {
    const dbt_cpu_call *const c = m->call;
    return (dbt_attention){
        .batch = m->step.shape.batch,
        .heads = m->step.heads,
        .kv_heads = m->step.heads,
        .queries = m->step.shape.queries,
        .k_dim = m->step.k_dim,
        .v_dim = m->step.v_dim,
        .q = m->projected,
        .q_stride = {m->step.shape.queries * m->step.width, m->step.k_dim, m->step.width},
        .y = c->out[0]->data,
        .y_stride = {m->step.shape.queries * m->step.v_width, m->step.v_dim, m->step.v_width},
        .k_type = DIBIT_TYPE_FLOAT,
        .v_type = DIBIT_TYPE_FLOAT,
        .rows = m->rows,
        .scale = dbt_mha_scale(m->step.a, m->step.k_dim),
        .left = -1,
        .right = m->step.a->unidirectional == 1 ? 0 : -1,
        .terms = {m->terms[0], m->terms[1]},
        .isa = c->options->isa,
        .pool = c->pool};
}

static dbt_gemm projection(const attn *m) {
    const dbt_cpu_call *const c = m->call;
    const dibit_tensor *const bias = dbt_mha_in(c, DBT_ATTN_BIAS);
    dbt_gemm g = dbt_attn_projection(&m->step);
    g.a = c->in[DBT_ATTN_INPUT]->data;
    g.b = c->in[DBT_ATTN_WEIGHTS]->data;
    g.c = bias ? bias->data : NULL;
    g.y = m->projected;
    return g;
}

static void lay_out(const dbt_cpu_call *c, attn *m) {
    const dibit_tensor *const past = dbt_mha_in(c, DBT_ATTN_PAST);
    const dibit_tensor *const mask = dbt_mha_in(c, DBT_ATTN_MASK);
    memset(m, 0, sizeof *m);
    m->call = c;
    dbt_attn_read(c->attrs, c->in, c->n_inputs, &m->step);
    m->cached = past || dbt_mha_out(c, 1);
    uint64_t at = 0;
    m->rows = dbt_scratch_piece(
        c->scratch, dbt_scratch_add(&at, (uint64_t)m->step.shape.batch, sizeof *m->rows));
    m->projected = dbt_scratch_piece(
        c->scratch,
        dbt_scratch_add(
            &at, dbt_scratch_product(m->step.shape.batch, m->step.shape.queries, m->step.width, 1),
            sizeof(float)));
    m->mask = dbt_scratch_piece(
        c->scratch, dbt_scratch_add(&at, dbt_mha_mask_floats(mask, &m->step.shape), sizeof(float)));
    const uint64_t held = dbt_scratch_product(2 * m->step.shape.batch, m->step.heads,
                                              m->step.shape.total, m->step.k_dim);
    const uint64_t cache_at =
        dbt_scratch_add(&at, m->cached && !dbt_mha_out(c, 1) ? held : 0, sizeof(float));
    m->cache =
        dbt_mha_out(c, 1) ? dbt_mha_out(c, 1)->data : dbt_scratch_piece(c->scratch, cache_at);
    const dbt_gemm gemm = projection(m);
    m->gemm_scratch = dbt_scratch_piece(
        c->scratch,
        dbt_scratch_add(&at, dbt_gemm_scratch_bytes(&gemm, dbt_pool_threads(c->pool)), 1));
    const dbt_attention core = describe(m);
    m->core = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, dbt_attention_scratch(&core), 1));
    m->bytes = at;
}

uint64_t dbt_attn_cpu_scratch(const dbt_cpu_call *call) {
    attn m;
    lay_out(call, &m);
    return m.bytes;
}

/* Past, then new rows, of keys (part 0) or values (1) to the cache. */
static void fill_cache(const attn *m, int64_t part) {
    const dibit_tensor *const past = dbt_mha_in(m->call, DBT_ATTN_PAST);
    const int64_t dim = m->step.k_dim, old = m->step.shape.past * dim,
                  all = m->step.shape.total * dim;
    for (int64_t i = 0; i < m->step.shape.batch * m->step.heads; i++) {
        const int64_t b = i / m->step.heads, h = i % m->step.heads,
                      row = part * m->step.shape.batch * m->step.heads + i;
        float *const to = m->cache + row * all;
        if (old > 0) memcpy(to, (const float *)past->data + row * old, (size_t)old * sizeof *to);
        for (int64_t s = 0; s < m->step.shape.queries; s++) {
            memcpy(to + old + s * dim,
                   m->projected + (b * m->step.shape.queries + s) * m->step.width +
                       (1 + part) * m->step.k_width + h * dim,
                   (size_t)dim * sizeof *to);
        }
    }
}

static void plan_rows(const attn *m) {
    for (int64_t b = 0; b < m->step.shape.batch; b++) {
        dbt_attention_row *const row = &m->rows[b];
        const float *const k =
            m->projected + b * m->step.shape.queries * m->step.width + m->step.k_width;
        *row = (dbt_attention_row){.k = {k, m->step.k_dim, m->step.width},
                                   .v = {k + m->step.k_width, m->step.v_dim, m->step.width},
                                   .n_keys = m->step.shape.total,
                                   .first_query = m->step.shape.past};
        if (!m->cached) continue;
        const int64_t head = m->step.shape.total * m->step.k_dim;
        row->k = (dbt_attention_span){m->cache + b * m->step.heads * head, head, m->step.k_dim};
        row->v = (dbt_attention_span){m->cache + (m->step.shape.batch + b) * m->step.heads * head,
                                      head, m->step.k_dim};
    }
}

static dibit_status make_terms(attn *m) {
    const dbt_cpu_call *const c = m->call;
    DBT_TRY(dbt_mha_mask(c, dbt_mha_in(c, DBT_ATTN_MASK), &m->step.shape, m->mask, &m->terms[0]));
    return dbt_mha_bias_term(c, dbt_mha_in(c, DBT_ATTN_TERM), &m->step.shape, &m->terms[1]);
}

dibit_status dbt_attn_cpu_run(const dbt_cpu_call *c) {
    attn m;
    lay_out(c, &m);
    DBT_TRY(dbt_attn_check(&m.step, m.cached, c->error));
    DBT_TRY(make_terms(&m));
    const dbt_gemm gemm = projection(&m);
    dbt_gemm_run(&gemm, dbt_gemm_choose(c->options->isa), c->pool, m.gemm_scratch);
    for (int64_t part = 0; part < 2 && m.cached; part++) fill_cache(&m, part);
    plan_rows(&m);
    const dbt_attention core = describe(&m);
    dbt_attention_run(&core, m.core);
    return DIBIT_OK;
}

static float largest(const float *x, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i]));
    return most;
}

/* Projections are off by `off` at most; scores by what that makes of q . k, on both sides; weights by
 * twice as much, relatively. */
dibit_status dbt_attn_cpu_bound(const dbt_cpu_call *c, float *const *bound) {
    attn m;
    lay_out(c, &m); /* projections, cache and rows lie in scratch as the run left them */
    DBT_TRY(make_terms(&m));
    const dbt_attention core = describe(&m);
    DBT_TRY(dbt_attention_bound(&core, bound[0], c->error));
    const int64_t tokens = m.step.shape.batch * m.step.shape.queries;
    const float *const x = c->in[DBT_ATTN_INPUT]->data;
    float sum = 0;
    for (int64_t t = 0; t < tokens; t++) {
        float row = 0;
        for (int64_t k = 0; k < m.step.inner; k++) row += fabsf(x[t * m.step.inner + k]);
        sum = fmaxf(sum, row);
    }
    const dibit_tensor *const bias = dbt_mha_in(c, DBT_ATTN_BIAS);
    const float size = sum * largest(c->in[DBT_ATTN_WEIGHTS]->data, m.step.inner * m.step.width) +
                       (bias ? largest(bias->data, m.step.width) : 0);
    const float off = ((float)m.step.inner + 2) * 0x1p-24f * size;
    float most = largest(m.projected, tokens * m.step.width);
    if (m.cached) {
        const int64_t n = 2 * m.step.shape.batch * m.step.heads * m.step.shape.total * m.step.k_dim;
        most = fmaxf(most, largest(m.cache, n));
    }
    const float score_off = fabsf(core.scale) * (float)m.step.k_dim * off * (2 * most + off);
    for (int64_t i = 0; i < tokens * m.step.v_width; i++) {
        bound[0][i] += off + expm1f(2 * score_off) * (most + off);
    }
    for (int64_t i = 0; bound[1] && i < dbt_tensor_count(c->out[1]); i++) bound[1][i] = off;
    return DIBIT_OK;
}

/* com.microsoft Attention on the CPU: one matrix product makes queries, keys and values of all heads;
 * attention_core does the rest. past and present are [2, batch, heads, tokens, dim]. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/matmul/gemm.h"
#include "ops/multi_head_attention/mha.h"

typedef struct attn {
    const dbt_cpu_call *call;
    const dbt_mha_attrs *a;
    int64_t heads, inner, k_width, v_width, width, k_dim, v_dim;
    dbt_mha_shape shape;
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
    return (dbt_attention){.batch = m->shape.batch,
                           .heads = m->heads,
                           .kv_heads = m->heads,
                           .queries = m->shape.queries,
                           .k_dim = m->k_dim,
                           .v_dim = m->v_dim,
                           .q = m->projected,
                           .q_stride = {m->shape.queries * m->width, m->k_dim, m->width},
                           .y = c->out[0]->data,
                           .y_stride = {m->shape.queries * m->v_width, m->v_dim, m->v_width},
                           .k_type = DIBIT_TYPE_FLOAT,
                           .v_type = DIBIT_TYPE_FLOAT,
                           .rows = m->rows,
                           .scale =
                               m->a->scale == 0.0f ? 1.0f / sqrtf((float)m->k_dim) : m->a->scale,
                           .left = -1,
                           .right = m->a->unidirectional == 1 ? 0 : -1,
                           .terms = {m->terms[0], m->terms[1]},
                           .isa = c->options->isa,
                           .pool = c->pool};
}

static dbt_gemm projection(const attn *m) {
    const dbt_cpu_call *const c = m->call;
    const dibit_tensor *const bias = dbt_mha_in(c, DBT_ATTN_BIAS);
    return (dbt_gemm){.M = m->shape.batch * m->shape.queries,
                      .N = m->width,
                      .K = m->inner,
                      .n_batches = 1,
                      .a = c->in[DBT_ATTN_INPUT]->data,
                      .a_m = m->inner,
                      .a_k = 1,
                      .b = c->in[DBT_ATTN_WEIGHTS]->data,
                      .b_type = DIBIT_TYPE_FLOAT,
                      .b_k = m->width,
                      .b_n = 1,
                      .c = bias ? bias->data : NULL,
                      .c_n = 1,
                      .alpha = 1.0f,
                      .beta = bias ? 1.0f : 0.0f,
                      .y = m->projected};
}

static void lay_out(const dbt_cpu_call *c, attn *m) {
    const dibit_tensor *const x = dbt_mha_in(c, DBT_ATTN_INPUT);
    const dibit_tensor *const past = dbt_mha_in(c, DBT_ATTN_PAST);
    const dibit_tensor *const mask = dbt_mha_in(c, DBT_ATTN_MASK);
    memset(m, 0, sizeof *m);
    m->call = c;
    m->a = c->attrs;
    m->heads = m->a->num_heads;
    m->inner = x->dims[2];
    m->width = dbt_mha_in(c, DBT_ATTN_WEIGHTS)->dims[1];
    m->k_width = m->a->qkv_hidden_sizes.v ? m->a->qkv_hidden_sizes.v[0] : m->width / 3;
    m->v_width = m->width - 2 * m->k_width;
    m->k_dim = m->k_width / m->heads;
    m->v_dim = m->v_width / m->heads;
    m->shape = (dbt_mha_shape){x->dims[0], x->dims[1], past ? past->dims[3] : 0, 0};
    m->shape.total = m->shape.past + m->shape.queries;
    m->cached = past || dbt_mha_out(c, 1);
    uint64_t at = 0;
    m->rows = dbt_scratch_piece(c->scratch,
                                dbt_scratch_add(&at, (uint64_t)m->shape.batch, sizeof *m->rows));
    m->projected = dbt_scratch_piece(
        c->scratch,
        dbt_scratch_add(&at, dbt_scratch_product(m->shape.batch, m->shape.queries, m->width, 1),
                        sizeof(float)));
    m->mask = dbt_scratch_piece(
        c->scratch, dbt_scratch_add(&at, dbt_mha_mask_floats(mask, &m->shape), sizeof(float)));
    const uint64_t held =
        dbt_scratch_product(2 * m->shape.batch, m->heads, m->shape.total, m->k_dim);
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
    const int64_t dim = m->k_dim, old = m->shape.past * dim, all = m->shape.total * dim;
    for (int64_t i = 0; i < m->shape.batch * m->heads; i++) {
        const int64_t b = i / m->heads, h = i % m->heads,
                      row = part * m->shape.batch * m->heads + i;
        float *const to = m->cache + row * all;
        if (old > 0) memcpy(to, (const float *)past->data + row * old, (size_t)old * sizeof *to);
        for (int64_t s = 0; s < m->shape.queries; s++) {
            memcpy(to + old + s * dim,
                   m->projected + (b * m->shape.queries + s) * m->width + (1 + part) * m->k_width +
                       h * dim,
                   (size_t)dim * sizeof *to);
        }
    }
}

static void plan_rows(const attn *m) {
    for (int64_t b = 0; b < m->shape.batch; b++) {
        dbt_attention_row *const row = &m->rows[b];
        const float *const k = m->projected + b * m->shape.queries * m->width + m->k_width;
        *row = (dbt_attention_row){.k = {k, m->k_dim, m->width},
                                   .v = {k + m->k_width, m->v_dim, m->width},
                                   .n_keys = m->shape.total,
                                   .first_query = m->shape.past};
        if (!m->cached) continue;
        const int64_t head = m->shape.total * m->k_dim;
        row->k = (dbt_attention_span){m->cache + b * m->heads * head, head, m->k_dim};
        row->v =
            (dbt_attention_span){m->cache + (m->shape.batch + b) * m->heads * head, head, m->k_dim};
    }
}

static dibit_status check_shapes(const attn *m) {
    const dbt_cpu_call *const c = m->call;
    const dibit_tensor *const bias = dbt_mha_in(c, DBT_ATTN_BIAS);
    const dibit_tensor *const past = dbt_mha_in(c, DBT_ATTN_PAST);
    DBT_FAIL_IF(dbt_mha_in(c, DBT_ATTN_WEIGHTS)->dims[0] != m->inner || m->k_dim < 1 ||
                    m->v_dim < 1 || m->k_dim * m->heads != m->k_width ||
                    m->v_dim * m->heads != m->v_width || (m->cached && m->k_dim != m->v_dim) ||
                    (bias && bias->dims[0] != m->width),
                c->error, DIBIT_BAD_INPUT,
                "weights [%lld, %lld] or their bias do not fit an input of %lld and %lld heads",
                (long long)dbt_mha_in(c, DBT_ATTN_WEIGHTS)->dims[0], (long long)m->width,
                (long long)m->inner, (long long)m->heads);
    DBT_FAIL_IF(past && (past->dims[0] != 2 || past->dims[1] != m->shape.batch ||
                         past->dims[2] != m->heads || past->dims[4] != m->k_dim),
                c->error, DIBIT_BAD_INPUT, "past does not fit batch %lld and %lld heads of %lld",
                (long long)m->shape.batch, (long long)m->heads, (long long)m->k_dim);
    return DIBIT_OK;
}

static dibit_status make_terms(attn *m) {
    const dbt_cpu_call *const c = m->call;
    DBT_TRY(dbt_mha_mask(c, dbt_mha_in(c, DBT_ATTN_MASK), &m->shape, m->mask, &m->terms[0]));
    return dbt_mha_bias_term(c, dbt_mha_in(c, DBT_ATTN_TERM), &m->shape, &m->terms[1]);
}

dibit_status dbt_attn_cpu_run(const dbt_cpu_call *c) {
    attn m;
    lay_out(c, &m);
    DBT_TRY(check_shapes(&m));
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
    const int64_t tokens = m.shape.batch * m.shape.queries;
    const float *const x = c->in[DBT_ATTN_INPUT]->data;
    float sum = 0;
    for (int64_t t = 0; t < tokens; t++) {
        float row = 0;
        for (int64_t k = 0; k < m.inner; k++) row += fabsf(x[t * m.inner + k]);
        sum = fmaxf(sum, row);
    }
    const dibit_tensor *const bias = dbt_mha_in(c, DBT_ATTN_BIAS);
    const float size = sum * largest(c->in[DBT_ATTN_WEIGHTS]->data, m.inner * m.width) +
                       (bias ? largest(bias->data, m.width) : 0);
    const float off = ((float)m.inner + 2) * 0x1p-24f * size;
    float most = largest(m.projected, tokens * m.width);
    if (m.cached) {
        const int64_t n = 2 * m.shape.batch * m.heads * m.shape.total * m.k_dim;
        most = fmaxf(most, largest(m.cache, n));
    }
    const float score_off = fabsf(core.scale) * (float)m.k_dim * off * (2 * most + off);
    for (int64_t i = 0; i < tokens * m.v_width; i++) {
        bound[0][i] += off + expm1f(2 * score_off) * (most + off);
    }
    for (int64_t i = 0; bound[1] && i < dbt_tensor_count(c->out[1]); i++) bound[1][i] = off;
    return DIBIT_OK;
}

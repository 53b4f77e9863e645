/* MultiHeadAttention on the CPU: finds queries, keys and values in whatever form they come, adds the
 * bias, appends to the cache; attention_core computes. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/multi_head_attention/mha.h"

typedef struct mha {
    const dbt_cpu_call *call;
    dbt_mha_step step;
    bool cached;
    dbt_kv kc, vc;
    dbt_attention_row *rows;
    float *biased, *mask, *row; /* scratch: q with its bias, the mask as a term, one head's row */
    dbt_attention_term terms[2];
    void *core;
    uint64_t kv_at[2], bytes;
} mha;

static const float *rows_at(const mha *m, const dbt_mha_rows *r) {
    const float *const x = m->call->in[r->input]->data;
    return x ? x + r->base : NULL;
}

/* The biases of queries (part 0), keys (1) or values (2), or NULL. */
static const float *bias_of(const mha *m, int part) {
    const dbt_mha_step *const s = &m->step;
    if (!(part == 0 ? s->has_bias : s->kv_bias)) return NULL;
    const float *const bias = m->call->in[DBT_MHA_BIAS]->data;
    return bias ? bias + part * s->heads * s->k_dim : NULL;
}

static dbt_attention describe(const mha *m) {
    const dbt_cpu_call *const c = m->call;
    const int64_t v_width = m->step.heads * m->step.v_dim;
    dbt_attention t = {.batch = m->step.shape.batch,
                       .heads = m->step.heads,
                       .kv_heads = m->step.heads,
                       .queries = m->step.shape.queries,
                       .k_dim = m->step.k_dim,
                       .v_dim = m->step.v_dim,
                       .q = rows_at(m, &m->step.q),
                       .y = c->out[0]->data,
                       .y_stride = {m->step.shape.queries * v_width, m->step.v_dim, v_width},
                       .k_type = m->cached ? m->kc.type : DIBIT_TYPE_FLOAT,
                       .v_type = m->cached ? m->vc.type : DIBIT_TYPE_FLOAT,
                       .rows = m->rows,
                       .scale = dbt_mha_scale(m->step.a, m->step.k_dim),
                       .left = -1,
                       .right = m->step.a->unidirectional == 1 ? 0 : -1,
                       .terms = {m->terms[0], m->terms[1]},
                       .isa = c->options->isa,
                       .pool = c->pool};
    memcpy(t.q_stride, m->step.q.stride, sizeof t.q_stride);
    if (m->biased) {
        t.q = m->biased;
        t.q_stride[0] = m->step.shape.queries * m->step.heads * m->step.k_dim;
        t.q_stride[1] = m->step.k_dim;
        t.q_stride[2] = m->step.heads * m->step.k_dim;
    }
    if (dbt_mha_out(c, 3)) {
        t.qk_kind = DBT_ATTENTION_QK_SCORE;
        t.qk = dbt_mha_out(c, 3)->data;
        t.qk_columns = dbt_mha_out(c, 3)->dims[3];
        t.qk_unseen = -FLT_MAX; /* as ONNX Runtime masks the future */
    }
    return t;
}

static void lay_out(const dbt_cpu_call *c, mha *m) {
    const dibit_tensor *const past = dbt_mha_in(c, DBT_MHA_PAST_KEY);
    const dibit_tensor *const mask = dbt_mha_in(c, DBT_MHA_MASK);
    memset(m, 0, sizeof *m);
    m->call = c;
    dbt_mha_read(c->attrs, c->in, c->n_inputs, &m->step);
    m->cached = (c->states && (c->states[0] || c->states[1])) || past || dbt_mha_out(c, 1) ||
                dbt_mha_out(c, 2) || dbt_mha_in(c, DBT_MHA_BIAS);
    uint64_t at = 0;
    m->rows = dbt_scratch_piece(
        c->scratch, dbt_scratch_add(&at, (uint64_t)m->step.shape.batch, sizeof *m->rows));
    const int64_t widest = m->step.k_dim > m->step.v_dim ? m->step.k_dim : m->step.v_dim;
    m->row = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, (uint64_t)widest, sizeof(float)));
    if (dbt_mha_in(c, DBT_MHA_BIAS)) {
        const uint64_t n = dbt_scratch_product(m->step.shape.batch, m->step.shape.queries,
                                               m->step.heads, m->step.k_dim);
        m->biased = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, n, sizeof(float)));
    }
    m->mask = dbt_scratch_piece(
        c->scratch, dbt_scratch_add(&at, dbt_mha_mask_floats(mask, &m->step.shape), sizeof(float)));
    for (int i = 0; i < 2 && m->cached; i++) {
        m->kv_at[i] =
            dbt_scratch_add(&at, dbt_kv_scratch(c, i ? &m->step.v_desc : &m->step.k_desc), 1);
    }
    const dbt_attention core = describe(m);
    m->core = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, dbt_attention_scratch(&core), 1));
    m->bytes = at;
}

uint64_t dbt_mha_cpu_scratch(const dbt_cpu_call *call) {
    mha m;
    lay_out(call, &m);
    return m.bytes;
}

static void add_query_bias(const mha *m) {
    const dbt_mha_step *const s = &m->step;
    const float *const q = rows_at(m, &s->q), *const bias = bias_of(m, 0);
    const int64_t width = s->heads * s->k_dim, queries = s->shape.queries;
    for (int64_t i = 0; i < s->shape.batch * queries; i++) {
        const float *const x = q + i / queries * s->q.stride[0] + i % queries * s->q.stride[2];
        for (int64_t h = 0; h < s->heads; h++) {
            for (int64_t d = 0; d < s->k_dim; d++) {
                m->biased[i * width + h * s->k_dim + d] =
                    x[h * s->q.stride[1] + d] + bias[h * s->k_dim + d];
            }
        }
    }
}

static dibit_status plan_rows(const mha *m) {
    const dbt_cpu_call *const c = m->call;
    dbt_kv_tokens k = {.x = rows_at(m, &m->step.k), .n = m->step.keys, .bias = bias_of(m, 1)};
    dbt_kv_tokens v = {.x = rows_at(m, &m->step.v), .n = m->step.keys, .bias = bias_of(m, 2)};
    memcpy(k.stride, m->step.k.stride, sizeof k.stride);
    memcpy(v.stride, m->step.v.stride, sizeof v.stride);
    for (int64_t b = 0; b < m->step.shape.batch; b++) {
        dbt_attention_row *const row = &m->rows[b];
        *row = (dbt_attention_row){.k = {k.x + b * k.stride[0], k.stride[1], k.stride[2]},
                                   .v = {v.x + b * v.stride[0], v.stride[1], v.stride[2]},
                                   .n_keys = m->step.keys};
        if (!m->cached) continue;
        row->first_query = m->kc.rows[b].length;
        row->n_keys = row->first_query + m->step.keys;
        const bool columns = m->terms[0].data || m->terms[1].data || dbt_mha_out(c, 3);
        DBT_TRY(dbt_mha_check_lengths(&m->step, row->first_query, m->vc.rows[b].length, columns,
                                      c->error));
        DBT_TRY(dbt_kv_append(&m->kc, b, m->step.heads, &k, m->row, c->error));
        DBT_TRY(dbt_kv_append(&m->vc, b, m->step.heads, &v, m->row, c->error));
        row->k = dbt_kv_span(&m->kc, b);
        row->v = dbt_kv_span(&m->vc, b);
    }
    return DIBIT_OK;
}

static dibit_status make_terms(mha *m) {
    const dbt_cpu_call *const c = m->call;
    DBT_TRY(dbt_mha_mask(c, dbt_mha_in(c, DBT_MHA_MASK), &m->step.shape, m->mask, &m->terms[0]));
    return dbt_mha_bias_term(c, dbt_mha_in(c, DBT_MHA_TERM), &m->step.shape, &m->terms[1]);
}

dibit_status dbt_mha_cpu_run(const dbt_cpu_call *c) {
    mha m;
    lay_out(c, &m);
    DBT_TRY(dbt_mha_check(&m.step, c->states != NULL, c->error));
    DBT_TRY(make_terms(&m));
    if (m.cached) {
        DBT_TRY(dbt_kv_open(c, &m.step.k_desc, (char *)c->scratch + m.kv_at[0], &m.kc));
        DBT_TRY(dbt_kv_open(c, &m.step.v_desc, (char *)c->scratch + m.kv_at[1], &m.vc));
    }
    DBT_TRY(plan_rows(&m));
    if (bias_of(&m, 0)) add_query_bias(&m);
    const dbt_attention core = describe(&m);
    dbt_attention_run(&core, m.core);
    return DIBIT_OK;
}

dibit_status dbt_mha_cpu_bound(const dbt_cpu_call *c, float *const *bound) {
    mha m;
    lay_out(c, &m); /* rows and biased queries lie in scratch as the run left them */
    DBT_TRY(make_terms(&m));
    m.kc.type = dbt_kv_type(c, &m.step.k_desc);
    m.vc.type = dbt_kv_type(c, &m.step.v_desc);
    const dbt_attention core = describe(&m);
    DBT_TRY(dbt_attention_bound(&core, bound[0], c->error));
    for (uint32_t i = 1; i < c->n_outputs; i++) {
        for (int64_t k = 0; bound[i] && k < dbt_tensor_count(c->out[i]); k++) {
            /* One addition; scores are rounded once from double, after inputs with one addition. */
            const float roundings = i < 3 ? 1.0f : 8.0f + 4.0f * (float)m.step.k_dim;
            bound[i][k] = roundings * 0x1p-24f * fabsf(((const float *)c->out[i]->data)[k]);
        }
    }
    return DIBIT_OK;
}

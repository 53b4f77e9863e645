/* MultiHeadAttention on the CPU: finds queries, keys and values in whatever form they come, adds the
 * bias, appends to the cache; attention_core computes. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/multi_head_attention/mha.h"

/* Rows of heads: strides of batch, head and token. */
typedef struct rows_of {
    const float *x;
    int64_t stride[3];
} rows_of;

typedef struct mha {
    const dbt_cpu_call *call;
    const dbt_mha_attrs *a;
    int64_t heads, keys, k_dim, v_dim;
    dbt_mha_shape shape;
    rows_of q, k, v;
    const float *bias[3]; /* of q, k and v, or NULL */
    bool cached;
    dbt_kv_desc k_desc, v_desc;
    dbt_kv kc, vc;
    dbt_attention_row *rows;
    float *biased, *mask, *row; /* scratch: q with its bias, the mask as a term, one head's row */
    dbt_attention_term terms[2];
    void *core;
    uint64_t kv_at[2], bytes;
} mha;

/* Part i of n parts in [B, T, H, n, D], or (n 1) of [B, T, H * D]. */
static rows_of packed(const dibit_tensor *t, int64_t heads, int64_t dim, int64_t i, int64_t n) {
    const float *const x = t->data;
    return (rows_of){x ? x + i * dim : NULL,
                     {t->dims[1] * heads * n * dim, n * dim, heads * n * dim}};
}
static rows_of by_head(const dibit_tensor *t) {
    return (rows_of){t->data,
                     {t->dims[1] * t->dims[2] * t->dims[3], t->dims[2] * t->dims[3], t->dims[3]}};
}

static void find_rows(mha *m) {
    const dibit_tensor *const q = dbt_mha_in(m->call, DBT_MHA_QUERY);
    const dibit_tensor *const k = dbt_mha_in(m->call, DBT_MHA_KEY);
    const dibit_tensor *const v = dbt_mha_in(m->call, DBT_MHA_VALUE);
    const bool all = q->rank == 5, pair = k && k->rank == 5, heads_first = k && k->rank == 4;
    m->k_dim = all ? q->dims[4] : q->dims[2] / m->heads;
    m->keys = all ? q->dims[1] : k->dims[heads_first ? 2 : 1];
    m->v_dim = all           ? m->k_dim
               : pair        ? k->dims[4]
               : heads_first ? v->dims[3]
                             : v->dims[2] / m->heads;
    m->q = packed(q, m->heads, m->k_dim, 0, all ? 3 : 1);
    m->k = all           ? packed(q, m->heads, m->k_dim, 1, 3)
           : heads_first ? by_head(k)
                         : packed(k, m->heads, m->k_dim, 0, pair ? 2 : 1);
    m->v = all           ? packed(q, m->heads, m->k_dim, 2, 3)
           : heads_first ? by_head(v)
           : pair        ? packed(k, m->heads, m->k_dim, 1, 2)
                         : packed(v, m->heads, m->v_dim, 0, 1);
    const dibit_tensor *const bias = dbt_mha_in(m->call, DBT_MHA_BIAS);
    if (!bias || !bias->data) return;
    m->bias[0] = bias->data;
    if (heads_first) return; /* keys of an encoder, projected with their bias before */
    m->bias[1] = m->bias[0] + m->heads * m->k_dim;
    m->bias[2] = m->bias[1] + m->heads * m->k_dim;
}

static dbt_attention describe(const mha *m) {
    const dbt_cpu_call *const c = m->call;
    const int64_t v_width = m->heads * m->v_dim;
    dbt_attention t = {.batch = m->shape.batch,
                       .heads = m->heads,
                       .kv_heads = m->heads,
                       .queries = m->shape.queries,
                       .k_dim = m->k_dim,
                       .v_dim = m->v_dim,
                       .q = m->q.x,
                       .y = c->out[0]->data,
                       .y_stride = {m->shape.queries * v_width, m->v_dim, v_width},
                       .k_type = m->cached ? m->kc.type : DIBIT_TYPE_FLOAT,
                       .v_type = m->cached ? m->vc.type : DIBIT_TYPE_FLOAT,
                       .rows = m->rows,
                       .scale = m->a->scale == 0.0f ? 1.0f / sqrtf((float)m->k_dim) : m->a->scale,
                       .left = -1,
                       .right = m->a->unidirectional == 1 ? 0 : -1,
                       .terms = {m->terms[0], m->terms[1]},
                       .isa = c->options->isa,
                       .pool = c->pool};
    memcpy(t.q_stride, m->q.stride, sizeof t.q_stride);
    if (m->biased) {
        t.q = m->biased;
        t.q_stride[0] = m->shape.queries * m->heads * m->k_dim;
        t.q_stride[1] = m->k_dim;
        t.q_stride[2] = m->heads * m->k_dim;
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
    const dibit_tensor *const q = dbt_mha_in(c, DBT_MHA_QUERY);
    const dibit_tensor *const past = dbt_mha_in(c, DBT_MHA_PAST_KEY);
    const dibit_tensor *const mask = dbt_mha_in(c, DBT_MHA_MASK);
    memset(m, 0, sizeof *m);
    m->call = c;
    m->a = c->attrs;
    m->heads = m->a->num_heads;
    find_rows(m);
    m->shape = (dbt_mha_shape){q->dims[0], q->dims[1], past ? past->dims[2] : 0, 0};
    m->shape.total = m->shape.past + m->keys;
    m->cached = (c->states && (c->states[0] || c->states[1])) || past || dbt_mha_out(c, 1) ||
                dbt_mha_out(c, 2) || dbt_mha_in(c, DBT_MHA_BIAS);
    m->k_desc = (dbt_kv_desc){0, DBT_MHA_PAST_KEY, 1, m->shape.batch, m->heads, m->k_dim, m->keys};
    m->v_desc =
        (dbt_kv_desc){1, DBT_MHA_PAST_VALUE, 2, m->shape.batch, m->heads, m->v_dim, m->keys};
    uint64_t at = 0;
    m->rows = dbt_scratch_piece(c->scratch,
                                dbt_scratch_add(&at, (uint64_t)m->shape.batch, sizeof *m->rows));
    const int64_t widest = m->k_dim > m->v_dim ? m->k_dim : m->v_dim;
    m->row = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, (uint64_t)widest, sizeof(float)));
    if (dbt_mha_in(c, DBT_MHA_BIAS)) {
        const uint64_t n =
            dbt_scratch_product(m->shape.batch, m->shape.queries, m->heads, m->k_dim);
        m->biased = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, n, sizeof(float)));
    }
    m->mask = dbt_scratch_piece(
        c->scratch, dbt_scratch_add(&at, dbt_mha_mask_floats(mask, &m->shape), sizeof(float)));
    for (int i = 0; i < 2 && m->cached; i++) {
        m->kv_at[i] = dbt_scratch_add(&at, dbt_kv_scratch(c, i ? &m->v_desc : &m->k_desc), 1);
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

static dibit_status check_shapes(const mha *m) {
    const dbt_cpu_call *const c = m->call;
    const dibit_tensor *const q = dbt_mha_in(c, DBT_MHA_QUERY), *const k =
                                                                    dbt_mha_in(c, DBT_MHA_KEY);
    const dibit_tensor *const v = dbt_mha_in(c, DBT_MHA_VALUE);
    const int64_t h = m->heads, b = m->shape.batch;
    bool fit = m->k_dim > 0 && m->v_dim > 0;
    if (q->rank == 5) {
        fit = fit && q->dims[2] == h && q->dims[3] == 3;
    } else {
        fit = fit && q->dims[2] == h * m->k_dim && k->dims[0] == b;
    }
    if (k && k->rank == 3) {
        fit = fit && k->dims[2] == h * m->k_dim && v->dims[2] == h * m->v_dim && v->dims[0] == b &&
              v->dims[1] == m->keys;
    } else if (k && k->rank == 4) {
        fit = fit && k->dims[1] == h && k->dims[3] == m->k_dim && v->dims[0] == b &&
              v->dims[1] == h && v->dims[2] == m->keys;
    } else if (k) {
        fit = fit && k->dims[2] == h && k->dims[3] == 2 && k->dims[4] == m->k_dim;
    }
    DBT_FAIL_IF(!fit, c->error, DIBIT_BAD_INPUT, "query, key and value do not fit each other");
    const dibit_tensor *const bias = dbt_mha_in(c, DBT_MHA_BIAS);
    DBT_FAIL_IF(bias && bias->dims[0] != h * (2 * m->k_dim + m->v_dim), c->error, DIBIT_BAD_INPUT,
                "the bias must have %lld elements, got %lld",
                (long long)(h * (2 * m->k_dim + m->v_dim)), (long long)bias->dims[0]);
    for (uint32_t i = DBT_MHA_PAST_KEY; i <= DBT_MHA_PAST_VALUE; i++) {
        const dibit_tensor *const past = dbt_mha_in(c, i);
        if (!past || c->states) continue;
        DBT_FAIL_IF(past->dims[0] != b || past->dims[1] != h || past->dims[2] != m->shape.past ||
                        past->dims[3] != (i == DBT_MHA_PAST_KEY ? m->k_dim : m->v_dim),
                    c->error, DIBIT_BAD_INPUT, "input %u does not fit batch %lld and %lld heads",
                    (unsigned)i, (long long)b, (long long)h);
    }
    return DIBIT_OK;
}

static void add_query_bias(const mha *m) {
    const int64_t width = m->heads * m->k_dim;
    for (int64_t i = 0; i < m->shape.batch * m->shape.queries; i++) {
        const float *const x =
            m->q.x + i / m->shape.queries * m->q.stride[0] + i % m->shape.queries * m->q.stride[2];
        for (int64_t h = 0; h < m->heads; h++) {
            for (int64_t d = 0; d < m->k_dim; d++) {
                m->biased[i * width + h * m->k_dim + d] =
                    x[h * m->q.stride[1] + d] + m->bias[0][h * m->k_dim + d];
            }
        }
    }
}

static dibit_status plan_rows(const mha *m) {
    const dbt_cpu_call *const c = m->call;
    dbt_kv_tokens k = {.x = m->k.x, .n = m->keys, .bias = m->bias[1]};
    dbt_kv_tokens v = {.x = m->v.x, .n = m->keys, .bias = m->bias[2]};
    memcpy(k.stride, m->k.stride, sizeof k.stride);
    memcpy(v.stride, m->v.stride, sizeof v.stride);
    for (int64_t b = 0; b < m->shape.batch; b++) {
        dbt_attention_row *const row = &m->rows[b];
        *row = (dbt_attention_row){.k = {k.x + b * k.stride[0], k.stride[1], k.stride[2]},
                                   .v = {v.x + b * v.stride[0], v.stride[1], v.stride[2]},
                                   .n_keys = m->keys};
        if (!m->cached) continue;
        row->first_query = m->kc.rows[b].length;
        row->n_keys = row->first_query + m->keys;
        const bool columns = m->terms[0].data || m->terms[1].data || dbt_mha_out(c, 3);
        DBT_FAIL_IF(
            m->vc.rows[b].length != row->first_query || (columns && row->n_keys != m->shape.total),
            c->error, DIBIT_BAD_INPUT, "the cache holds %lld keys and %lld values, not %lld",
            (long long)row->first_query, (long long)m->vc.rows[b].length, (long long)m->shape.past);
        DBT_TRY(dbt_kv_append(&m->kc, b, m->heads, &k, m->row, c->error));
        DBT_TRY(dbt_kv_append(&m->vc, b, m->heads, &v, m->row, c->error));
        row->k = dbt_kv_span(&m->kc, b);
        row->v = dbt_kv_span(&m->vc, b);
    }
    return DIBIT_OK;
}

static dibit_status make_terms(mha *m) {
    const dbt_cpu_call *const c = m->call;
    DBT_TRY(dbt_mha_mask(c, dbt_mha_in(c, DBT_MHA_MASK), &m->shape, m->mask, &m->terms[0]));
    return dbt_mha_bias_term(c, dbt_mha_in(c, DBT_MHA_TERM), &m->shape, &m->terms[1]);
}

dibit_status dbt_mha_cpu_run(const dbt_cpu_call *c) {
    mha m;
    lay_out(c, &m);
    DBT_TRY(check_shapes(&m));
    DBT_TRY(make_terms(&m));
    if (m.cached) {
        DBT_TRY(dbt_kv_open(c, &m.k_desc, (char *)c->scratch + m.kv_at[0], &m.kc));
        DBT_TRY(dbt_kv_open(c, &m.v_desc, (char *)c->scratch + m.kv_at[1], &m.vc));
    }
    DBT_TRY(plan_rows(&m));
    if (m.bias[0]) add_query_bias(&m);
    const dbt_attention core = describe(&m);
    dbt_attention_run(&core, m.core);
    return DIBIT_OK;
}

dibit_status dbt_mha_cpu_bound(const dbt_cpu_call *c, float *const *bound) {
    mha m;
    lay_out(c, &m); /* rows and biased queries lie in scratch as the run left them */
    DBT_TRY(make_terms(&m));
    m.kc.type = dbt_kv_type(c, &m.k_desc);
    m.vc.type = dbt_kv_type(c, &m.v_desc);
    const dbt_attention core = describe(&m);
    DBT_TRY(dbt_attention_bound(&core, bound[0], c->error));
    for (uint32_t i = 1; i < c->n_outputs; i++) {
        for (int64_t k = 0; bound[i] && k < dbt_tensor_count(c->out[i]); k++) {
            /* One addition; scores are rounded once from double, after inputs with one addition. */
            const float roundings = i < 3 ? 1.0f : 8.0f + 4.0f * (float)m.k_dim;
            bound[i][k] = roundings * 0x1p-24f * fabsf(((const float *)c->out[i]->data)[k]);
        }
    }
    return DIBIT_OK;
}

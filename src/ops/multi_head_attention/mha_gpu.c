/* MultiHeadAttention on a device: what mha_cpu.c does, one batch row after the other. */
#include "ops/attention_core/attention_kv_gpu.h"
#include "ops/multi_head_attention/mha.h"

typedef struct mha {
    const dbt_gpu_call *call;
    dbt_mha_step step;
    bool cached;
    dbt_gpu_term terms[2]; /* of batch row 0 */
    int64_t term_batch[2]; /* elements from one batch row to the next */
} mha;

static const dibit_tensor *in(const mha *m, uint32_t i) {
    return i < m->call->n_inputs ? m->call->in[i] : NULL;
}
static bool wants(const dbt_gpu_call *c, uint32_t i) { return i < c->n_outputs && c->out[i]; }
static bool has_states(const dbt_gpu_call *c) {
    return c->states && (c->states[0] || c->states[1]);
}

static dibit_status make_terms(mha *m) {
    const dbt_gpu_call *const c = m->call;
    const dbt_mha_shape *const shape = &m->step.shape;
    if (in(m, DBT_MHA_MASK)) {
        DBT_TRY(dbt_mha_gpu_mask(c, DBT_MHA_MASK, shape, &m->terms[0], &m->term_batch[0]));
    }
    if (!in(m, DBT_MHA_TERM)) return DIBIT_OK;
    return dbt_mha_gpu_bias(c, DBT_MHA_TERM, shape, &m->terms[1], &m->term_batch[1]);
}

static dbt_gpu_rows rows_at(const mha *m, const dbt_mha_rows *r, int64_t b) {
    return (dbt_gpu_rows){.buffer = m->call->in_buffers[r->input],
                          .base = (uint64_t)(r->base + b * r->stride[0]),
                          .head = (uint64_t)r->stride[1],
                          .token = (uint64_t)r->stride[2]};
}

/* One batch row: its caches, and the operands of attention. */
typedef struct row {
    int64_t b;
    dbt_gpu_kv k_cache, v_cache;
    dbt_gpu_attention attention;
} row;

static dibit_status check_row(const mha *m, row *r) {
    const dbt_gpu_call *const c = m->call;
    const dbt_mha_step *const s = &m->step;
    if (!m->cached) return DIBIT_OK;
    DBT_TRY(dbt_gpu_kv_open(c, &s->k_desc, r->b, &r->k_cache));
    DBT_TRY(dbt_gpu_kv_open(c, &s->v_desc, r->b, &r->v_cache));
    const dbt_gpu_state_row *const k = &r->k_cache.row, *const v = &r->v_cache.row;
    const bool columns = m->terms[0].buffer || m->terms[1].buffer;
    DBT_TRY(dbt_mha_check_lengths(s, k->length, v->length, columns, c->error));
    const int64_t capacity = k->capacity < v->capacity ? k->capacity : v->capacity;
    DBT_FAIL_IF(s->keys > capacity - k->length, c->error, DIBIT_CAPACITY,
                "the cache holds %lld tokens, %lld are needed", (long long)capacity,
                (long long)(k->length + s->keys));
    return DIBIT_OK;
}

/* New keys and values behind the past, the bias added to whatever gets it. */
static dibit_status append(const mha *m, row *r) {
    const dbt_gpu_call *const c = m->call;
    const dbt_mha_step *const s = &m->step;
    dbt_gpu_attention *const t = &r->attention;
    DBT_TRY(dbt_gpu_kv_fill(&r->k_cache));
    DBT_TRY(dbt_gpu_kv_fill(&r->v_cache));
    dbt_gpu_append a = {.tokens = s->shape.queries,
                        .heads = s->heads,
                        .kv_heads = s->heads,
                        .k_dim = s->k_dim,
                        .v_dim = s->v_dim,
                        .q = t->q,
                        .k = t->k,
                        .v = t->v,
                        .k_out = dbt_gpu_kv_rows(&r->k_cache, r->k_cache.row.length),
                        .v_out = dbt_gpu_kv_rows(&r->v_cache, r->v_cache.row.length),
                        .kv_type = r->k_cache.type,
                        .stored = s->keys,
                        .rows = s->keys,
                        .bias = s->has_bias ? c->in_buffers[DBT_MHA_BIAS] : NULL,
                        .kv_bias = s->kv_bias};
    if (s->has_bias) {
        const uint64_t dim = (uint64_t)s->k_dim, n = (uint64_t)(s->shape.queries * s->heads) * dim;
        a.q_out = (dbt_gpu_rows){.head = dim, .token = (uint64_t)s->heads * dim};
        DBT_TRY(dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_Q, n * sizeof(float), &a.q_out.buffer,
                                c->error));
        t->q = a.q_out;
    }
    DBT_TRY(dbt_gpu_append_tokens(c->gpu, &a, c->error));
    t->k = dbt_gpu_kv_rows(&r->k_cache, 0);
    t->v = dbt_gpu_kv_rows(&r->v_cache, 0);
    t->kv_type = r->k_cache.type;
    t->first_query = r->k_cache.row.length;
    t->n_keys = t->first_query + s->keys;
    dbt_gpu_kv_set_length(&r->k_cache, t->n_keys);
    dbt_gpu_kv_set_length(&r->v_cache, t->n_keys);
    return DIBIT_OK;
}

static dibit_status run_row(const mha *m, row *r) {
    const dbt_gpu_call *const c = m->call;
    const dbt_mha_step *const s = &m->step;
    const uint64_t width = (uint64_t)(s->heads * s->v_dim);
    const uint64_t first = (uint64_t)(r->b * s->shape.queries) * width;
    r->attention = (dbt_gpu_attention){.heads = s->heads,
                                       .kv_heads = s->heads,
                                       .queries = s->shape.queries,
                                       .k_dim = s->k_dim,
                                       .v_dim = s->v_dim,
                                       .q = rows_at(m, &s->q, r->b),
                                       .k = rows_at(m, &s->k, r->b),
                                       .v = rows_at(m, &s->v, r->b),
                                       .y = {c->out_buffers[0], first, (uint64_t)s->v_dim, width},
                                       .kv_type = DIBIT_TYPE_FLOAT,
                                       .n_keys = s->keys,
                                       .scale = dbt_mha_scale(s->a, s->k_dim),
                                       .left = -1,
                                       .right = s->a->unidirectional == 1 ? 0 : -1,
                                       .terms = {m->terms[0], m->terms[1]}};
    for (int i = 0; i < 2; i++) {
        r->attention.terms[i].base = (uint64_t)(r->b * m->term_batch[i]);
    }
    if (m->cached) DBT_TRY(append(m, r));
    return dbt_gpu_attend(c->gpu, &r->attention, c->error);
}

dibit_status dbt_mha_gpu_encode(const dbt_gpu_call *c) {
    mha m = {.call = c};
    dbt_mha_read(c->attrs, c->in, c->n_inputs, &m.step);
    m.cached =
        has_states(c) || in(&m, DBT_MHA_PAST_KEY) || wants(c, 1) || wants(c, 2) || m.step.has_bias;
    DBT_TRY(dbt_mha_check(&m.step, has_states(c), c->error));
    DBT_TRY(make_terms(&m));
    row r;
    for (int64_t b = 0; b < m.step.shape.batch; b++) { /* before anything is stored */
        r = (row){.b = b};
        DBT_TRY(check_row(&m, &r));
    }
    for (int64_t b = 0; b < m.step.shape.batch; b++) {
        r = (row){.b = b};
        DBT_TRY(check_row(&m, &r));
        DBT_TRY(run_row(&m, &r));
    }
    return DIBIT_OK;
}

const char *dbt_mha_gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    if (node->n_outputs > 3 && node->outputs[3]) return "scores as an output";
    return dbt_gpu_kv_refuses(node, hal);
}

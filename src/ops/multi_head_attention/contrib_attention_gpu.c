/* com.microsoft Attention on a device: one matrix product makes queries, keys and values of all heads; then
 * batch rows one after the other. Where there is a cache, [2, batch, heads, total, dim], a row's keys and
 * values are put together in scratch, and copied to present from there. */
#include "ops/attention_core/attention_gpu.h"
#include "ops/matmul/matmul.h"
#include "ops/multi_head_attention/mha.h"

enum { PROJECTED = DBT_ATTENTION_SCRATCH_Q };

typedef struct attn {
    const dbt_gpu_call *call;
    dbt_attn_step step;
    bool has_past, has_present;
    dbt_hal_buffer *projected; /* [batch * queries, width] */
    dbt_gpu_term terms[2];     /* of batch row 0 */
    int64_t term_batch[2];     /* elements from one batch row to the next */
} attn;

static dbt_hal_buffer *buffer(const attn *m, uint32_t i) {
    return i < m->call->n_inputs ? m->call->in_buffers[i] : NULL;
}
static const dibit_tensor *in(const attn *m, uint32_t i) {
    return i < m->call->n_inputs ? m->call->in[i] : NULL;
}

static dibit_status make_terms(attn *m) {
    const dbt_gpu_call *const c = m->call;
    const dbt_mha_shape *const shape = &m->step.shape;
    if (in(m, DBT_ATTN_MASK)) {
        DBT_TRY(dbt_mha_gpu_mask(c, DBT_ATTN_MASK, shape, &m->terms[0], &m->term_batch[0]));
    }
    if (!in(m, DBT_ATTN_TERM)) return DIBIT_OK;
    return dbt_mha_gpu_bias(c, DBT_ATTN_TERM, shape, &m->terms[1], &m->term_batch[1]);
}

static dibit_status project(attn *m) {
    const dbt_gpu_call *const c = m->call;
    const dbt_gemm g = dbt_attn_projection(&m->step);
    const uint64_t n = (uint64_t)(g.M * g.N);
    if (n == 0) return DIBIT_OK;
    DBT_TRY(dbt_gpu_scratch(c->gpu, PROJECTED, n * sizeof(float), &m->projected, c->error));
    return dbt_gemm_record(c, &g, buffer(m, DBT_ATTN_INPUT), buffer(m, DBT_ATTN_WEIGHTS),
                           buffer(m, DBT_ATTN_BIAS), m->projected);
}

/* Past and new rows of batch row b, in scratch and in present. */
static dibit_status fill_cache(const attn *m, int64_t b, dbt_gpu_attention *t) {
    const dbt_gpu_call *const c = m->call;
    const dbt_attn_step *const s = &m->step;
    const uint64_t dim = (uint64_t)s->k_dim, past = (uint64_t)s->shape.past * dim;
    const uint64_t head = (uint64_t)s->shape.total * dim, heads = (uint64_t)s->heads;
    dbt_gpu_append a = {.tokens = s->shape.queries,
                        .kv_heads = s->heads,
                        .k_dim = s->k_dim,
                        .v_dim = s->v_dim,
                        .k = t->k,
                        .v = t->v,
                        .kv_type = DIBIT_TYPE_FLOAT,
                        .stored = s->shape.queries,
                        .rows = s->shape.queries};
    dbt_gpu_rows *const to[] = {&t->k, &t->v}, *const added[] = {&a.k_out, &a.v_out};
    for (uint32_t part = 0; part < 2; part++) {
        *to[part] = (dbt_gpu_rows){.head = head, .token = dim};
        DBT_TRY(dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_K + part,
                                heads * head * sizeof(float), &to[part]->buffer, c->error));
        *added[part] = *to[part];
        added[part]->base = past;
        const uint64_t first = (part * (uint64_t)s->shape.batch + (uint64_t)b) * heads;
        for (uint64_t h = 0; h < heads && m->has_past && past > 0; h++) {
            DBT_TRY(dbt_gpu_copy(c->gpu, buffer(m, DBT_ATTN_PAST),
                                 (first + h) * past * sizeof(float), to[part]->buffer,
                                 h * head * sizeof(float), past * sizeof(float), c->error));
        }
    }
    DBT_TRY(dbt_gpu_append_tokens(c->gpu, &a, c->error));
    for (uint32_t part = 0; part < 2 && m->has_present; part++) {
        const uint64_t first = (part * (uint64_t)s->shape.batch + (uint64_t)b) * heads;
        DBT_TRY(dbt_gpu_copy(c->gpu, to[part]->buffer, 0, c->out_buffers[1],
                             first * head * sizeof(float), heads * head * sizeof(float), c->error));
    }
    return DIBIT_OK;
}

static dibit_status run_row(const attn *m, int64_t b) {
    const dbt_gpu_call *const c = m->call;
    const dbt_attn_step *const s = &m->step;
    const uint64_t token = (uint64_t)(b * s->shape.queries), width = (uint64_t)s->width;
    const uint64_t v_width = (uint64_t)s->v_width, k_dim = (uint64_t)s->k_dim;
    dbt_gpu_attention t = {
        .heads = s->heads,
        .kv_heads = s->heads,
        .queries = s->shape.queries,
        .k_dim = s->k_dim,
        .v_dim = s->v_dim,
        .q = {m->projected, token * width, k_dim, width},
        .k = {m->projected, token * width + (uint64_t)s->k_width, k_dim, width},
        .v = {m->projected, token * width + 2 * (uint64_t)s->k_width, (uint64_t)s->v_dim, width},
        .y = {c->out_buffers[0], token * v_width, (uint64_t)s->v_dim, v_width},
        .kv_type = DIBIT_TYPE_FLOAT,
        .n_keys = s->shape.total,
        .first_query = s->shape.past,
        .scale = dbt_mha_scale(s->a, s->k_dim),
        .left = -1,
        .right = s->a->unidirectional == 1 ? 0 : -1,
        .terms = {m->terms[0], m->terms[1]}};
    for (int i = 0; i < 2; i++) t.terms[i].base = (uint64_t)(b * m->term_batch[i]);
    if (m->has_past || m->has_present) DBT_TRY(fill_cache(m, b, &t));
    return dbt_gpu_attend(c->gpu, &t, c->error);
}

dibit_status dbt_attn_gpu_encode(const dbt_gpu_call *c) {
    attn m = {.call = c};
    dbt_attn_read(c->attrs, c->in, c->n_inputs, &m.step);
    m.has_past = in(&m, DBT_ATTN_PAST) != NULL;
    m.has_present = c->n_outputs > 1 && c->out[1] && c->out_buffers[1];
    DBT_TRY(dbt_attn_check(&m.step, m.has_past || m.has_present, c->error));
    DBT_TRY(make_terms(&m));
    DBT_TRY(project(&m));
    for (int64_t b = 0; b < m.step.shape.batch; b++) DBT_TRY(run_row(&m, b));
    return DIBIT_OK;
}

/* ai.onnx Attention on a device: what onnx_attention_cpu.c does, one batch row after the other. */
#include <math.h>

#include "ops/attention/onnx_attention.h"
#include "ops/attention_core/attention_kv_gpu.h"

typedef struct job {
    const dbt_gpu_call *call;
    dbt_onnx_attention_step step;
    bool cached;
    dbt_gpu_term mask;  /* of batch row 0 */
    int64_t mask_batch; /* elements from one batch row to the next */
} job;

/* One batch row. */
typedef struct row {
    int64_t b;
    dbt_gpu_kv k_cache, v_cache;
    dbt_onnx_attention_row plan;
} row;

static bool wants(const dbt_gpu_call *c, uint32_t i) { return i < c->n_outputs && c->out[i]; }
static bool has_states(const dbt_gpu_call *c) {
    return c->states && (c->states[0] || c->states[1]);
}

static dibit_status make_mask(job *j) {
    const dbt_gpu_call *const c = j->call;
    const dibit_tensor *const mask = DBT_ATT_MASK < c->n_inputs ? c->in[DBT_ATT_MASK] : NULL;
    if (!mask || dbt_tensor_count(mask) == 0) return DIBIT_OK; /* no keys then */
    int64_t stride[4];
    dbt_onnx_attention_mask_strides(mask, stride);
    j->mask = (dbt_gpu_term){.buffer = c->in_buffers[DBT_ATT_MASK],
                             .head = (uint64_t)stride[1],
                             .query = (uint64_t)stride[2],
                             .column = (uint64_t)stride[3]};
    j->mask_batch = stride[0];
    if (c->node->inputs[DBT_ATT_MASK]->type != DIBIT_TYPE_BOOL) return DIBIT_OK;
    const dbt_gpu_mask m = {.buffer = j->mask.buffer,
                            .batch = 1,
                            .rows = 1,
                            .total = dbt_tensor_count(mask),
                            .filler = -INFINITY};
    return dbt_gpu_mask_term(c->gpu, &m, &j->mask.buffer, c->error);
}

static dibit_status check_row(const job *j, row *r) {
    const dbt_gpu_call *const c = j->call;
    const dbt_onnx_attention_step *const s = &j->step;
    if (j->cached) {
        DBT_TRY(dbt_gpu_kv_open(c, &s->k_desc, r->b, &r->k_cache));
        DBT_TRY(dbt_gpu_kv_open(c, &s->v_desc, r->b, &r->v_cache));
    }
    const dbt_gpu_state_row *const k = &r->k_cache.row, *const v = &r->v_cache.row;
    DBT_TRY(dbt_onnx_attention_plan(s, r->b, k->length, v->length, &r->plan, c->error));
    const int64_t capacity = k->capacity < v->capacity ? k->capacity : v->capacity;
    DBT_FAIL_IF(j->cached && s->keys > capacity - k->length, c->error, DIBIT_CAPACITY,
                "the cache holds %lld tokens, %lld are needed", (long long)capacity,
                (long long)(k->length + s->keys));
    return DIBIT_OK;
}

static dbt_gpu_rows rows_at(const job *j, uint32_t input, int64_t heads, int64_t dim, int64_t b) {
    int64_t stride[3];
    dbt_onnx_attention_strides(j->step.in[input], heads, dim, stride);
    return (dbt_gpu_rows){.buffer = j->call->in_buffers[input],
                          .base = (uint64_t)(b * stride[0]),
                          .head = (uint64_t)stride[1],
                          .token = (uint64_t)stride[2]};
}

/* New keys and values behind the past. */
static dibit_status append(const job *j, const row *r, dbt_gpu_attention *t) {
    const dbt_onnx_attention_step *const s = &j->step;
    const int64_t length = r->k_cache.row.length;
    const dbt_gpu_append a = {.tokens = s->keys,
                              .kv_heads = s->kv_heads,
                              .k_dim = s->k_dim,
                              .v_dim = s->v_dim,
                              .k = t->k,
                              .v = t->v,
                              .k_out = dbt_gpu_kv_rows(&r->k_cache, length),
                              .v_out = dbt_gpu_kv_rows(&r->v_cache, length),
                              .kv_type = r->k_cache.type,
                              .stored = s->keys,
                              .rows = s->keys};
    DBT_TRY(dbt_gpu_kv_fill(&r->k_cache));
    DBT_TRY(dbt_gpu_kv_fill(&r->v_cache));
    DBT_TRY(dbt_gpu_append_tokens(j->call->gpu, &a, j->call->error));
    t->k = dbt_gpu_kv_rows(&r->k_cache, 0);
    t->v = dbt_gpu_kv_rows(&r->v_cache, 0);
    t->kv_type = r->k_cache.type;
    dbt_gpu_kv_set_length(&r->k_cache, length + s->keys);
    dbt_gpu_kv_set_length(&r->v_cache, length + s->keys);
    return DIBIT_OK;
}

static dibit_status run_row(const job *j, const row *r) {
    const dbt_gpu_call *const c = j->call;
    const dbt_onnx_attention_step *const s = &j->step;
    int64_t y[3];
    dbt_onnx_attention_strides(c->out[0], s->q_heads, s->v_dim, y);
    dbt_gpu_attention t = {
        .heads = s->q_heads,
        .kv_heads = s->kv_heads,
        .queries = s->queries,
        .k_dim = s->k_dim,
        .v_dim = s->v_dim,
        .q = rows_at(j, DBT_ATT_Q, s->q_heads, s->k_dim, r->b),
        .k = rows_at(j, DBT_ATT_K, s->kv_heads, s->k_dim, r->b),
        .v = rows_at(j, DBT_ATT_V, s->kv_heads, s->v_dim, r->b),
        .y = {c->out_buffers[0], (uint64_t)(r->b * y[0]), (uint64_t)y[1], (uint64_t)y[2]},
        .kv_type = DIBIT_TYPE_FLOAT,
        .n_keys = r->plan.n_keys,
        .first_query = r->plan.first_query,
        .scale = dbt_onnx_attention_scale(s),
        .softcap = s->a->softcap,
        .terms = {j->mask}};
    t.terms[0].base = (uint64_t)(r->b * j->mask_batch);
    dbt_onnx_attention_window(c->node, &t.left, &t.right);
    if (j->cached) DBT_TRY(append(j, r, &t));
    return dbt_gpu_attend(c->gpu, &t, c->error);
}

dibit_status dbt_onnx_attention_gpu_encode(const dbt_gpu_call *c) {
    job j = {.call = c};
    dbt_onnx_attention_read(c->attrs, c->in, c->n_inputs, &j.step);
    j.cached = has_states(c) || (DBT_ATT_PAST_K < c->n_inputs && c->in[DBT_ATT_PAST_K]) ||
               wants(c, 1) || wants(c, 2);
    DBT_TRY(dbt_onnx_attention_check(&j.step, has_states(c), c->error));
    DBT_TRY(make_mask(&j));
    for (int64_t b = 0; b < j.step.batch; b++) { /* before anything is stored */
        row r = {.b = b};
        DBT_TRY(check_row(&j, &r));
    }
    for (int64_t b = 0; b < j.step.batch; b++) {
        row r = {.b = b};
        DBT_TRY(check_row(&j, &r));
        DBT_TRY(run_row(&j, &r));
    }
    return DIBIT_OK;
}

const char *dbt_onnx_attention_gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    if (node->n_outputs > 3 && node->outputs[3]) return "scores as an output";
    return dbt_gpu_kv_refuses(node, hal);
}

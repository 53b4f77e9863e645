/* ai.onnx Attention on the CPU: strides and masks; attention_core computes. */
#include <math.h>
#include <string.h>

#include "ops/attention/onnx_attention.h"

typedef struct job {
    const dbt_cpu_call *call;
    dbt_onnx_attention_step step;
    bool cached; /* keys go through a cache: a state, or present is wanted, or past given */
    dbt_kv k, v;
    dbt_attention_row *rows;
    float *mask; /* a bool mask as terms */
    void *core;
    uint64_t kv_at[2], bytes;
} job;

static const dibit_tensor *in(const dbt_cpu_call *c, uint32_t i) {
    return i < c->n_inputs ? c->in[i] : NULL;
}
static dibit_tensor *out(const dbt_cpu_call *c, uint32_t i) {
    return i < c->n_outputs ? c->out[i] : NULL;
}

static void mask_term(const job *j, dbt_attention_term *term) {
    const dibit_tensor *const mask = in(j->call, DBT_ATT_MASK);
    if (!mask) return;
    term->data = mask->type == DIBIT_TYPE_BOOL ? j->mask : mask->data;
    dbt_onnx_attention_mask_strides(mask, term->stride);
}

static dbt_attention describe(const job *j) {
    const dbt_cpu_call *const c = j->call;
    const dbt_onnx_attention_attrs *const a = j->step.a;
    dbt_attention t = {.batch = j->step.batch,
                       .heads = j->step.q_heads,
                       .kv_heads = j->step.kv_heads,
                       .queries = j->step.queries,
                       .k_dim = j->step.k_dim,
                       .v_dim = j->step.v_dim,
                       .q = in(c, DBT_ATT_Q)->data,
                       .y = c->out[0]->data,
                       .k_type = j->cached ? j->k.type : DIBIT_TYPE_FLOAT,
                       .v_type = j->cached ? j->v.type : DIBIT_TYPE_FLOAT,
                       .rows = j->rows,
                       .scale = dbt_onnx_attention_scale(&j->step),
                       .softcap = a->softcap,
                       .isa = c->options->isa,
                       .pool = c->pool};
    dbt_onnx_attention_window(c->node, &t.left, &t.right);
    dbt_onnx_attention_strides(in(c, DBT_ATT_Q), j->step.q_heads, j->step.k_dim, t.q_stride);
    dbt_onnx_attention_strides(c->out[0], j->step.q_heads, j->step.v_dim, t.y_stride);
    mask_term(j, &t.terms[0]);
    if (out(c, 3)) {
        static const dbt_attention_qk kinds[] = {DBT_ATTENTION_QK_SCALED, DBT_ATTENTION_QK_CAPPED,
                                                 DBT_ATTENTION_QK_SCORE, DBT_ATTENTION_QK_SOFTMAX};
        t.qk_kind = kinds[a->qk_matmul_output_mode];
        t.qk = out(c, 3)->data;
        t.qk_columns = out(c, 3)->dims[3];
        t.qk_all = true;
        t.qk_unseen = t.qk_kind == DBT_ATTENTION_QK_SCORE ? -INFINITY : 0.0f;
    }
    return t;
}

static void lay_out(const dbt_cpu_call *c, job *j) {
    const dibit_tensor *const mask = in(c, DBT_ATT_MASK);
    memset(j, 0, sizeof *j);
    j->call = c;
    dbt_onnx_attention_read(c->attrs, c->in, c->n_inputs, &j->step);
    j->cached = (c->states && (c->states[0] || c->states[1])) || in(c, DBT_ATT_PAST_K) ||
                out(c, 1) || out(c, 2);
    uint64_t at = 0;
    j->rows = dbt_scratch_piece(c->scratch,
                                dbt_scratch_add(&at, (uint64_t)j->step.batch, sizeof *j->rows));
    if (mask && mask->type == DIBIT_TYPE_BOOL) {
        j->mask = dbt_scratch_piece(
            c->scratch, dbt_scratch_add(&at, (uint64_t)dbt_tensor_count(mask), sizeof(float)));
    }
    for (int i = 0; i < 2 && j->cached; i++) {
        j->kv_at[i] =
            dbt_scratch_add(&at, dbt_kv_scratch(c, i ? &j->step.v_desc : &j->step.k_desc), 1);
    }
    const dbt_attention core = describe(j);
    j->core = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, dbt_attention_scratch(&core), 1));
    j->bytes = at;
}

uint64_t dbt_onnx_attention_scratch(const dbt_cpu_call *call) {
    job j;
    lay_out(call, &j);
    return j.bytes;
}

/* ---- The run ------------------------------------------------------------------------------------ */

static dibit_status plan_rows(const job *j) {
    const dbt_cpu_call *const c = j->call;
    const dibit_tensor *const k = in(c, DBT_ATT_K), *const v = in(c, DBT_ATT_V);
    dbt_kv_tokens new_k = {.x = k->data, .n = j->step.keys},
                  new_v = {.x = v->data, .n = j->step.keys};
    dbt_onnx_attention_strides(k, j->step.kv_heads, j->step.k_dim, new_k.stride);
    dbt_onnx_attention_strides(v, j->step.kv_heads, j->step.v_dim, new_v.stride);
    for (int64_t b = 0; b < j->step.batch; b++) {
        dbt_attention_row *const row = &j->rows[b];
        *row = (dbt_attention_row){
            .k = {new_k.x + b * new_k.stride[0], new_k.stride[1], new_k.stride[2]},
            .v = {new_v.x + b * new_v.stride[0], new_v.stride[1], new_v.stride[2]},
        };
        const int64_t k_length = j->cached ? j->k.rows[b].length : 0;
        const int64_t v_length = j->cached ? j->v.rows[b].length : 0;
        dbt_onnx_attention_row plan;
        DBT_TRY(dbt_onnx_attention_plan(&j->step, b, k_length, v_length, &plan, c->error));
        row->first_query = plan.first_query;
        row->n_keys = plan.n_keys;
        if (j->cached) {
            DBT_FAIL_IF(out(c, 3) && k_length + j->step.keys != out(c, 3)->dims[3], c->error,
                        DIBIT_UNSUPPORTED, "qk_matmul_output of a ragged batch is not supported");
            DBT_TRY(dbt_kv_append(&j->k, b, j->step.kv_heads, &new_k, NULL, c->error));
            DBT_TRY(dbt_kv_append(&j->v, b, j->step.kv_heads, &new_v, NULL, c->error));
            row->k = dbt_kv_span(&j->k, b);
            row->v = dbt_kv_span(&j->v, b);
        }
    }
    return DIBIT_OK;
}

dibit_status dbt_onnx_attention_run(const dbt_cpu_call *c) {
    job j;
    lay_out(c, &j);
    DBT_TRY(dbt_onnx_attention_check(&j.step, c->states != NULL, c->error));
    char *const scratch = c->scratch;
    if (j.cached) {
        DBT_TRY(dbt_kv_open(c, &j.step.k_desc, scratch + j.kv_at[0], &j.k));
        DBT_TRY(dbt_kv_open(c, &j.step.v_desc, scratch + j.kv_at[1], &j.v));
    }
    DBT_TRY(plan_rows(&j));
    const dibit_tensor *const mask = in(c, DBT_ATT_MASK);
    for (int64_t i = 0; j.mask && i < dbt_tensor_count(mask); i++) {
        j.mask[i] = ((const uint8_t *)mask->data)[i] ? 0.0f : -INFINITY;
    }
    const dbt_attention core = describe(&j);
    dbt_attention_run(&core, j.core);
    return DIBIT_OK;
}

dibit_status dbt_onnx_attention_bound(const dbt_cpu_call *c, float *const *bound) {
    job j;
    lay_out(c, &j); /* rows and mask lie in scratch as the run left them */
    if (j.cached) {
        j.k.type = dbt_kv_type(c, &j.step.k_desc);
        j.v.type = dbt_kv_type(c, &j.step.v_desc);
    }
    const dbt_attention core = describe(&j);
    DBT_TRY(dbt_attention_bound(&core, bound[0], c->error));
    for (uint32_t i = 1; i < c->n_outputs; i++) {
        for (int64_t k = 0; bound[i] && k < dbt_tensor_count(c->out[i]); k++) {
            /* present is a copy; scores are rounded once from double. */
            bound[i][k] = i < 3 ? 0.0f : 0x1p-23f * fabsf(((const float *)c->out[i]->data)[k]);
        }
    }
    return DIBIT_OK;
}

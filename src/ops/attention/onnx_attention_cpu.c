/* ai.onnx Attention on the CPU: strides and masks; attention_core computes. */
#include <math.h>
#include <string.h>

#include "ops/attention/onnx_attention.h"

typedef struct job {
    const dbt_cpu_call *call;
    const dbt_onnx_attention_attrs *a;
    int64_t batch, queries, keys, q_heads, kv_heads, k_dim, v_dim, v_keys;
    bool cached; /* keys go through a cache: a state, or present is wanted, or past given */
    dbt_kv_desc k_desc, v_desc;
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

/* Strides of batch, head and token of [B, H, S, D] or [B, S, H * D]. */
static void strides(const dibit_tensor *t, int64_t heads, int64_t dim, int64_t stride[3]) {
    const int64_t tokens = t->dims[t->rank - 2];
    stride[0] = heads * tokens * dim;
    stride[1] = t->rank == 4 ? tokens * dim : dim;
    stride[2] = t->rank == 4 ? dim : heads * dim;
}

static void mask_term(const job *j, dbt_attention_term *term) {
    const dibit_tensor *const mask = in(j->call, DBT_ATT_MASK);
    if (!mask) return;
    term->data = mask->type == DIBIT_TYPE_BOOL ? j->mask : mask->data;
    int64_t size = 1;
    for (int32_t i = 0; i < 4; i++) {
        const int32_t axis = mask->rank - 1 - i;
        const int64_t n = axis < 0 ? 1 : mask->dims[axis];
        /* A short last axis forbids what it leaves out, even one of 1. */
        term->stride[3 - i] = n == 1 && i > 0 ? 0 : size;
        size *= n;
    }
}

static dbt_attention describe(const job *j) {
    const dbt_cpu_call *const c = j->call;
    const dbt_onnx_attention_attrs *const a = j->a;
    const bool windows = c->node->opset >= 25;
    dbt_attention t = {.batch = j->batch,
                       .heads = j->q_heads,
                       .kv_heads = j->kv_heads,
                       .queries = j->queries,
                       .k_dim = j->k_dim,
                       .v_dim = j->v_dim,
                       .q = in(c, DBT_ATT_Q)->data,
                       .y = c->out[0]->data,
                       .k_type = j->cached ? j->k.type : DIBIT_TYPE_FLOAT,
                       .v_type = j->cached ? j->v.type : DIBIT_TYPE_FLOAT,
                       .rows = j->rows,
                       .scale = isnan(a->scale) ? 1.0f / sqrtf((float)j->k_dim) : a->scale,
                       .softcap = a->softcap,
                       .left = windows ? a->left_window_size : -1,
                       .right = windows ? a->right_window_size : -1,
                       .isa = c->options->isa,
                       .pool = c->pool};
    if (a->is_causal == 1) t.right = 0;
    strides(in(c, DBT_ATT_Q), j->q_heads, j->k_dim, t.q_stride);
    strides(c->out[0], j->q_heads, j->v_dim, t.y_stride);
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
    const dibit_tensor *const q = in(c, DBT_ATT_Q), *const k = in(c, DBT_ATT_K);
    const dibit_tensor *const v = in(c, DBT_ATT_V), *const mask = in(c, DBT_ATT_MASK);
    memset(j, 0, sizeof *j);
    j->call = c;
    j->a = c->attrs;
    j->batch = q->dims[0];
    j->queries = q->dims[q->rank - 2];
    j->keys = k->dims[k->rank - 2];
    j->v_keys = v->dims[v->rank - 2];
    j->q_heads = q->rank == 4 ? q->dims[1] : j->a->q_num_heads;
    j->kv_heads = k->rank == 4 ? k->dims[1] : j->a->kv_num_heads;
    j->k_dim = q->dims[q->rank - 1] / (q->rank == 4 ? 1 : j->q_heads);
    j->v_dim = v->dims[v->rank - 1] / (v->rank == 4 ? 1 : j->kv_heads);
    j->cached = (c->states && (c->states[0] || c->states[1])) || in(c, DBT_ATT_PAST_K) ||
                out(c, 1) || out(c, 2);
    j->k_desc = (dbt_kv_desc){0, DBT_ATT_PAST_K, 1, j->batch, j->kv_heads, j->k_dim, j->keys};
    j->v_desc = (dbt_kv_desc){1, DBT_ATT_PAST_V, 2, j->batch, j->kv_heads, j->v_dim, j->keys};
    uint64_t at = 0;
    j->rows =
        dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, (uint64_t)j->batch, sizeof *j->rows));
    if (mask && mask->type == DIBIT_TYPE_BOOL) {
        j->mask = dbt_scratch_piece(
            c->scratch, dbt_scratch_add(&at, (uint64_t)dbt_tensor_count(mask), sizeof(float)));
    }
    for (int i = 0; i < 2 && j->cached; i++) {
        j->kv_at[i] = dbt_scratch_add(&at, dbt_kv_scratch(c, i ? &j->v_desc : &j->k_desc), 1);
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

static dibit_status check_kv(const job *j, uint32_t i, int64_t dim) {
    const dibit_tensor *const t = in(j->call, i), *const past =
                                                      in(j->call, i - DBT_ATT_K + DBT_ATT_PAST_K);
    const int64_t heads = t->rank == 4 ? t->dims[1] : j->kv_heads;
    const int64_t width = t->rank == 4 ? t->dims[3] * heads : t->dims[2];
    DBT_FAIL_IF(t->dims[0] != j->batch || heads != j->kv_heads || width != heads * dim,
                j->call->error, DIBIT_BAD_INPUT,
                "input %u does not fit a batch of %lld and %lld heads of %lld", (unsigned)i,
                (long long)j->batch, (long long)j->kv_heads, (long long)dim);
    DBT_FAIL_IF(past && past->data && !j->call->states &&
                    (past->dims[0] != j->batch || past->dims[1] != heads || past->dims[3] != dim),
                j->call->error, DIBIT_BAD_INPUT,
                "input %u does not fit a batch of %lld and %lld heads of %lld",
                (unsigned)(i - DBT_ATT_K + DBT_ATT_PAST_K), (long long)j->batch, (long long)heads,
                (long long)dim);
    return DIBIT_OK;
}

static dibit_status check_shapes(const job *j) {
    const dbt_cpu_call *const c = j->call;
    DBT_FAIL_IF(j->kv_heads < 1 || j->q_heads % j->kv_heads != 0, c->error, DIBIT_BAD_INPUT,
                "%lld query heads are no multiple of %lld key heads", (long long)j->q_heads,
                (long long)j->kv_heads);
    DBT_FAIL_IF(j->v_keys != j->keys, c->error, DIBIT_BAD_INPUT, "%lld keys but %lld values",
                (long long)j->keys, (long long)j->v_keys);
    DBT_TRY(check_kv(j, DBT_ATT_K, j->k_dim));
    DBT_TRY(check_kv(j, DBT_ATT_V, j->v_dim));
    const dibit_tensor *const mask = in(c, DBT_ATT_MASK);
    const int64_t want[] = {j->batch, j->q_heads, j->queries};
    for (int32_t i = 0; mask && i < mask->rank - 1; i++) {
        const int64_t n = want[3 - (mask->rank - 1 - i)];
        DBT_FAIL_IF(mask->dims[i] != 1 && mask->dims[i] != n, c->error, DIBIT_BAD_INPUT,
                    "dim %d of attn_mask is %lld, not 1 or %lld", (int)i, (long long)mask->dims[i],
                    (long long)n);
    }
    return DIBIT_OK;
}

static dibit_status plan_rows(const job *j) {
    const dbt_cpu_call *const c = j->call;
    const dibit_tensor *const k = in(c, DBT_ATT_K), *const v = in(c, DBT_ATT_V);
    const dibit_tensor *const nonpad = in(c, DBT_ATT_NONPAD), *const mask = in(c, DBT_ATT_MASK);
    dbt_kv_tokens new_k = {.x = k->data, .n = j->keys}, new_v = {.x = v->data, .n = j->keys};
    strides(k, j->kv_heads, j->k_dim, new_k.stride);
    strides(v, j->kv_heads, j->v_dim, new_v.stride);
    DBT_FAIL_IF(nonpad && nonpad->dims[0] != j->batch, c->error, DIBIT_BAD_INPUT,
                "nonpad_kv_seqlen must have %lld elements", (long long)j->batch);
    for (int64_t b = 0; b < j->batch; b++) {
        dbt_attention_row *const row = &j->rows[b];
        *row = (dbt_attention_row){
            .k = {new_k.x + b * new_k.stride[0], new_k.stride[1], new_k.stride[2]},
            .v = {new_v.x + b * new_v.stride[0], new_v.stride[1], new_v.stride[2]},
            .n_keys = j->keys};
        if (j->cached) {
            row->first_query = j->k.rows[b].length;
            DBT_FAIL_IF(j->v.rows[b].length != row->first_query, c->error, DIBIT_BAD_INPUT,
                        "%lld keys but %lld values in the cache", (long long)row->first_query,
                        (long long)j->v.rows[b].length);
            row->n_keys = row->first_query + j->keys;
            DBT_FAIL_IF(out(c, 3) && row->n_keys != out(c, 3)->dims[3], c->error, DIBIT_UNSUPPORTED,
                        "qk_matmul_output of a ragged batch is not supported");
            DBT_TRY(dbt_kv_append(&j->k, b, j->kv_heads, &new_k, NULL, c->error));
            DBT_TRY(dbt_kv_append(&j->v, b, j->kv_heads, &new_v, NULL, c->error));
            row->k = dbt_kv_span(&j->k, b);
            row->v = dbt_kv_span(&j->v, b);
        }
        if (nonpad) {
            const int64_t n = ((const int64_t *)nonpad->data)[b];
            DBT_FAIL_IF(n < 0 || n > j->keys, c->error, DIBIT_OUT_OF_RANGE,
                        "nonpad_kv_seqlen[%lld] is %lld, outside of [0, %lld]", (long long)b,
                        (long long)n, (long long)j->keys);
            row->n_keys = n;
            row->first_query = n - j->queries;
        }
        if (mask && mask->dims[mask->rank - 1] < row->n_keys) {
            row->n_keys = mask->dims[mask->rank - 1];
        }
    }
    return DIBIT_OK;
}

dibit_status dbt_onnx_attention_run(const dbt_cpu_call *c) {
    job j;
    lay_out(c, &j);
    DBT_TRY(check_shapes(&j));
    char *const scratch = c->scratch;
    if (j.cached) {
        DBT_TRY(dbt_kv_open(c, &j.k_desc, scratch + j.kv_at[0], &j.k));
        DBT_TRY(dbt_kv_open(c, &j.v_desc, scratch + j.kv_at[1], &j.v));
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
        j.k.type = dbt_kv_type(c, &j.k_desc);
        j.v.type = dbt_kv_type(c, &j.v_desc);
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

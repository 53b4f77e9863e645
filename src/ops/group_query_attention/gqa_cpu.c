/* GroupQueryAttention on the CPU: checks what only a run knows, normalises, turns and stores the new
 * tokens, evicts from windowed caches, and leaves the rest to attention_core. */
#include <math.h>
#include <string.h>

#include "ops/group_query_attention/group_query_attention.h"
#include "ops/rotary/rotary.h"

/* How one batch row's tokens go into the cache. */
typedef struct plan_row {
    int64_t past, valid; /* tokens before the step, and new ones that are no padding */
    int64_t append_at;   /* index in the span where new token 0 goes */
    int64_t writable;    /* new tokens that are stored */
    int64_t length;      /* of the state afterwards */
    int64_t drop;        /* windowed: how many of the oldest leave before the step */
    int64_t staged;      /* windowed: old tokens copied to the stage, or -1: in place */
} plan_row;

typedef struct gqa {
    const dbt_cpu_call *call;
    const dbt_gqa_attrs *a;
    int64_t batch, queries, heads, kv_heads, dim, rotary_half;
    bool packed, window;
    int64_t total; /* of total_sequence_length; only in a run */
    dbt_kv_desc k_desc, v_desc;
    dbt_kv k, v;
    plan_row *plan;
    dbt_attention_row *rows;
    float *q;   /* [batch, queries, heads, dim], or NULL: the input as it is */
    float *row; /* [threads, dim] */
    char *stage[2];
    int64_t stage_capacity;
    void *core;
    uint64_t kv_at[2];
    uint64_t bytes;
} gqa;

static const dibit_tensor *in(const dbt_cpu_call *c, uint32_t i) {
    return i < c->n_inputs ? c->in[i] : NULL;
}

static dbt_attention describe(const gqa *g) {
    const dbt_gqa_attrs *const a = g->a;
    const dbt_cpu_call *const c = g->call;
    const int64_t q_heads = g->q ? g->heads : g->packed ? g->heads + 2 * g->kv_heads : g->heads;
    const int64_t dim = g->dim;
    dbt_attention t = {.batch = g->batch,
                       .heads = g->heads,
                       .kv_heads = g->kv_heads,
                       .queries = g->queries,
                       .k_dim = dim,
                       .v_dim = dim,
                       .q = g->q ? g->q : in(c, DBT_GQA_QUERY)->data,
                       .q_stride = {g->queries * q_heads * dim, dim, q_heads * dim},
                       .y = c->out[0]->data,
                       .y_stride = {g->queries * g->heads * dim, dim, g->heads * dim},
                       .k_type = g->k.type,
                       .v_type = g->v.type,
                       .rows = g->rows,
                       .scale = a->scale == 0.0f ? 1.0f / sqrtf((float)dim) : a->scale,
                       .softcap = a->softcap,
                       .left = a->local_window_size > 0 ? a->local_window_size - 1 : -1,
                       .right = a->causal == 1 ? 0 : -1,
                       .clamp_queries = c->node->inputs[DBT_GQA_QUERY]->type == DIBIT_TYPE_FLOAT16,
                       .has_sink = a->smooth_softmax == 1 || in(c, DBT_GQA_SINK),
                       .isa = c->options->isa,
                       .pool = c->pool};
    if (in(c, DBT_GQA_SINK)) t.sink = in(c, DBT_GQA_SINK)->data;
    const dibit_tensor *const bias = in(c, DBT_GQA_BIAS);
    if (bias) {
        const int64_t columns = bias->dims[3], rows = bias->dims[2] * columns;
        t.terms[0] = (dbt_attention_term){bias->data,
                                          {bias->dims[0] == 1 ? 0 : bias->dims[1] * rows,
                                           bias->dims[1] == 1 ? 0 : rows, columns, 1}};
    }
    if (c->n_outputs > 3 && c->out[3]) {
        t.qk = c->out[3]->data;
        t.qk_columns = c->out[3]->dims[3];
        t.qk_kind = a->qk_output == 1 ? DBT_ATTENTION_QK_SCORE : DBT_ATTENTION_QK_SOFTMAX;
    }
    return t;
}

/* Sizes from dims alone, and where the pieces of scratch lie. */
static void lay_out(const dbt_cpu_call *c, gqa *g) {
    const dbt_gqa_attrs *const a = c->attrs;
    const dibit_tensor *const query = in(c, DBT_GQA_QUERY);
    memset(g, 0, sizeof *g);
    g->call = c;
    g->a = a;
    g->batch = query->dims[0];
    g->queries = query->dims[1];
    g->heads = a->num_heads;
    g->kv_heads = a->kv_num_heads;
    g->packed = !in(c, DBT_GQA_KEY);
    g->dim = query->dims[2] / (g->packed ? g->heads + 2 * g->kv_heads : g->heads);
    g->rotary_half = a->do_rotary == 1 ? in(c, DBT_GQA_COS)->dims[1] : 0;
    g->window = a->sliding_window_cache == 1;
    g->k_desc = (dbt_kv_desc){0, DBT_GQA_PAST_KEY, 1, g->batch, g->kv_heads, g->dim, g->queries};
    g->v_desc = (dbt_kv_desc){1, DBT_GQA_PAST_VALUE, 2, g->batch, g->kv_heads, g->dim, g->queries};
    /* A stage takes what queries of this step can see of the old tokens, and the new ones. */
    g->stage_capacity = g->window && g->queries > 1 ? a->local_window_size - 1 + g->queries : 0;

    uint64_t at = 0;
    g->plan =
        dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, (uint64_t)g->batch, sizeof *g->plan));
    g->rows =
        dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, (uint64_t)g->batch, sizeof *g->rows));
    g->row = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, dbt_pool_threads(c->pool),
                                                           (uint64_t)g->dim * sizeof(float)));
    const uint64_t tokens = dbt_scratch_product(g->batch, g->queries, g->heads, g->dim);
    if (g->rotary_half > 0 || in(c, DBT_GQA_Q_NORM)) {
        g->q = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, tokens, sizeof(float)));
    }
    const uint64_t staged = dbt_scratch_product(g->batch, g->kv_heads, g->stage_capacity, g->dim);
    for (int i = 0; i < 2; i++) {
        g->stage[i] = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, staged, sizeof(float)));
        g->kv_at[i] = dbt_scratch_add(&at, dbt_kv_scratch(c, i ? &g->v_desc : &g->k_desc), 1);
    }
    const dbt_attention core = describe(g);
    g->core = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, dbt_attention_scratch(&core), 1));
    g->bytes = at;
}

uint64_t dbt_gqa_cpu_scratch(const dbt_cpu_call *call) {
    gqa g;
    lay_out(call, &g);
    return g.bytes;
}

/* ---- Checks ---------------------------------------------------------------------------------- */

static dibit_status check_dims(const gqa *g, uint32_t input, int32_t rank, const int64_t *want) {
    const dibit_tensor *const t = in(g->call, input);
    if (!t) return DIBIT_OK;
    for (int32_t i = 0; i < rank; i++) {
        DBT_FAIL_IF(t->rank != rank || (want[i] >= 0 && t->dims[i] != want[i]), g->call->error,
                    DIBIT_BAD_INPUT, "dim %d of input %u must be %lld, got %lld", (int)i,
                    (unsigned)input, (long long)want[i], (long long)t->dims[i]);
    }
    return DIBIT_OK;
}

static dibit_status check_shapes(const gqa *g) {
    const dbt_cpu_call *const c = g->call;
    const int64_t parts = g->packed ? g->heads + 2 * g->kv_heads : g->heads;
    DBT_FAIL_IF(g->dim < 1 || g->dim * parts != in(c, DBT_GQA_QUERY)->dims[2], c->error,
                DIBIT_BAD_INPUT, "the query's last dim is not a multiple of %lld heads",
                (long long)parts);
    const int64_t kv[] = {g->batch, g->queries, g->kv_heads * g->dim};
    const int64_t past[] = {g->batch, g->kv_heads, -1, g->dim};
    for (uint32_t i = 0; i < 2; i++) {
        DBT_TRY(check_dims(g, DBT_GQA_KEY + i, 3, kv));
        if (!c->states || !c->states[i]) DBT_TRY(check_dims(g, DBT_GQA_PAST_KEY + i, 4, past));
        DBT_TRY(check_dims(g, DBT_GQA_Q_NORM + i, 1, &g->dim));
    }
    DBT_FAIL_IF(dbt_tensor_count(in(c, DBT_GQA_SEQLENS_K)) != g->batch, c->error, DIBIT_BAD_INPUT,
                "seqlens_k must have %lld elements", (long long)g->batch);
    DBT_FAIL_IF(dbt_tensor_count(in(c, DBT_GQA_TOTAL)) != 1, c->error, DIBIT_BAD_INPUT,
                "total_sequence_length must have one element");
    DBT_TRY(check_dims(g, DBT_GQA_SINK, 1, &g->heads));
    const dibit_tensor *const bias = in(c, DBT_GQA_BIAS);
    if (!bias) return DIBIT_OK;
    DBT_FAIL_IF((bias->dims[0] != 1 && bias->dims[0] != g->batch) ||
                    (bias->dims[1] != 1 && bias->dims[1] != g->heads) ||
                    bias->dims[2] != g->queries || bias->dims[3] < g->total,
                c->error, DIBIT_BAD_INPUT,
                "attention_bias [%lld, %lld, %lld, %lld] does not fit batch %lld, %lld heads, "
                "%lld queries and a total of %lld",
                (long long)bias->dims[0], (long long)bias->dims[1], (long long)bias->dims[2],
                (long long)bias->dims[3], (long long)g->batch, (long long)g->heads,
                (long long)g->queries, (long long)g->total);
    return DIBIT_OK;
}

static int64_t position(const gqa *g, int64_t b, int64_t s) {
    const dibit_tensor *const ids = in(g->call, DBT_GQA_POSITION_IDS);
    if (!ids) return g->plan[b].past + s;
    const int64_t *const p = ids->data;
    /* ONNX Runtime counts a first prompt's positions from the first id on. */
    return g->queries == g->total ? p[0] + s : p[b * g->queries + s];
}

static dibit_status check_rotary(const gqa *g) {
    const dbt_cpu_call *const c = g->call;
    if (g->a->do_rotary != 1) return DIBIT_OK;
    const dibit_tensor *const cos = in(c, DBT_GQA_COS), *const sin = in(c, DBT_GQA_SIN);
    DBT_FAIL_IF(cos->dims[0] != sin->dims[0] || cos->dims[1] != sin->dims[1] ||
                    2 * cos->dims[1] > g->dim,
                c->error, DIBIT_BAD_INPUT,
                "cos_cache [%lld, %lld] and sin_cache [%lld, %lld] do not fit a head of %lld",
                (long long)cos->dims[0], (long long)cos->dims[1], (long long)sin->dims[0],
                (long long)sin->dims[1], (long long)g->dim);
    const int64_t ids[] = {g->batch, g->queries};
    DBT_TRY(check_dims(g, DBT_GQA_POSITION_IDS, 2, ids));
    for (int64_t b = 0; b < g->batch; b++) {
        for (int64_t s = 0; s < g->queries; s++) {
            const int64_t p = position(g, b, s);
            DBT_FAIL_IF(p < 0 || p >= cos->dims[0], c->error, DIBIT_OUT_OF_RANGE,
                        "position %lld of token %lld is beyond cos_cache's %lld rows", (long long)p,
                        (long long)s, (long long)cos->dims[0]);
        }
    }
    return DIBIT_OK;
}

/* ---- Planning ---------------------------------------------------------------------------------- */

/* Tokens in the cache before the step. A session knows how long its states are, so there a chunk of
 * a ragged batch may be padded too; with a caller's own tensors only T - S can be meant. */
static int64_t past_of(const gqa *g, const dbt_state_row *row, int64_t total) {
    if (g->queries == g->total) return 0;
    const bool is_state = g->call->states && g->call->states[0] && !g->k.is_output;
    if (is_state && !g->window && total > row->length && total - row->length <= g->queries) {
        return row->length;
    }
    return total - g->queries;
}

static dibit_status plan_batch_row(const gqa *g, int64_t b, plan_row *p) {
    const dbt_cpu_call *const c = g->call;
    const dbt_state_row *const row = &g->k.rows[b];
    const int64_t total = (int64_t)((const int32_t *)in(c, DBT_GQA_SEQLENS_K)->data)[b] + 1;
    DBT_FAIL_IF(total < 1 || total > g->total, c->error, DIBIT_OUT_OF_RANGE,
                "seqlens_k[%lld] is %lld, outside of [0, %lld)", (long long)b,
                (long long)(total - 1), (long long)g->total);
    p->past = past_of(g, row, total);
    DBT_FAIL_IF(p->past < 0, c->error, DIBIT_OUT_OF_RANGE,
                "seqlens_k[%lld] is %lld, too small for %lld new tokens", (long long)b,
                (long long)(total - 1), (long long)g->queries);
    p->valid = total - p->past;
    p->staged = -1;
    int64_t held = p->past;
    if (g->window) {
        const int64_t w = g->a->local_window_size;
        DBT_FAIL_IF(row->capacity < w, c->error, DIBIT_BAD_INPUT,
                    "the windowed cache holds %lld tokens, local_window_size is %lld",
                    (long long)row->capacity, (long long)w);
        held = dbt_gqa_resident(p->past, row->capacity, w);
        p->length = dbt_gqa_resident(total, row->capacity, w);
        p->writable = p->valid;
        if (p->length >= p->valid - 1 + w || held + p->valid <= row->capacity) {
            p->drop = held + p->valid - p->length;
            p->append_at = held - p->drop;
        } else {
            p->append_at = p->staged = held < w - 1 ? held : w - 1;
        }
    } else {
        DBT_FAIL_IF(total > row->capacity, c->error, DIBIT_CAPACITY,
                    "the cache holds %lld tokens, %lld are needed", (long long)row->capacity,
                    (long long)total);
        const int64_t room = row->capacity - p->past;
        p->append_at = p->past;
        p->length = total;
        p->writable = g->queries < room ? g->queries : room;
    }
    DBT_FAIL_IF(held > row->length || held > g->v.rows[b].length, c->error, DIBIT_OUT_OF_RANGE,
                "seqlens_k[%lld] asks for %lld tokens of past, the cache holds %lld", (long long)b,
                (long long)held, (long long)row->length);
    return DIBIT_OK;
}

/* ---- New tokens -------------------------------------------------------------------------------- */

/* Windowed caches: makes room before the step, or copies what is still seen to the stage. */
static dbt_attention_span place_row(const gqa *g, const dbt_kv *kv, char *stage, int64_t b) {
    const plan_row *const p = &g->plan[b];
    const dbt_attention_span cache = dbt_kv_span(kv, b);
    const uint64_t row_bytes = (uint64_t)g->dim * (dibit_type_bits(kv->type) / 8);
    const int64_t capacity = kv->rows[b].capacity;
    if (p->staged < 0) {
        for (int64_t h = 0; h < g->kv_heads && p->drop > 0; h++) {
            char *const head = (char *)kv->rows[b].data + (uint64_t)(h * capacity) * row_bytes;
            memmove(head, head + (uint64_t)p->drop * row_bytes,
                    (size_t)((uint64_t)p->append_at * row_bytes));
        }
        return cache;
    }
    const dbt_attention_span span = {stage + (uint64_t)(b * g->kv_heads * g->stage_capacity) *
                                                 row_bytes,
                                     g->stage_capacity * g->dim, g->dim};
    const int64_t held = dbt_gqa_resident(p->past, capacity, g->a->local_window_size);
    for (int64_t h = 0; h < g->kv_heads && p->staged > 0; h++) {
        memcpy((char *)(uintptr_t)span.data + (uint64_t)(h * g->stage_capacity) * row_bytes,
               (char *)kv->rows[b].data + (uint64_t)(h * capacity + held - p->staged) * row_bytes,
               (size_t)((uint64_t)p->staged * row_bytes));
    }
    return span;
}

/* The last tokens of the stage into the cache. */
static void unstage(const gqa *g, const dbt_kv *kv, const dbt_attention_span *span, int64_t b) {
    const plan_row *const p = &g->plan[b];
    if (p->staged < 0) return;
    const uint64_t row_bytes = (uint64_t)g->dim * (dibit_type_bits(kv->type) / 8);
    const int64_t first = p->staged + p->valid - p->length;
    for (int64_t h = 0; h < g->kv_heads; h++) {
        memcpy((char *)kv->rows[b].data + (uint64_t)(h * kv->rows[b].capacity) * row_bytes,
               (const char *)span->data + (uint64_t)(h * g->stage_capacity + first) * row_bytes,
               (size_t)((uint64_t)p->length * row_bytes));
    }
}

static void rms_norm(const float *x, const float *weight, float epsilon, int64_t n, float *y) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    const float r = 1.0f / sqrtf(sum / (float)n + epsilon);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * r * weight[i];
}

/* Head row x of token s, normalised and turned, to y. */
static void turn(const gqa *g, int64_t b, int64_t s, const float *x, uint32_t norm, float *y) {
    const dibit_tensor *const weight = in(g->call, norm);
    if (weight) {
        rms_norm(x, weight->data, g->a->qk_norm_epsilon, g->dim, y);
        x = y;
    }
    const int64_t at = g->rotary_half > 0 ? position(g, b, s) * g->rotary_half : 0;
    const float *const cos = g->rotary_half > 0 ? in(g->call, DBT_GQA_COS)->data : NULL;
    const float *const sin = g->rotary_half > 0 ? in(g->call, DBT_GQA_SIN)->data : NULL;
    dbt_rotary_row(x, cos ? cos + at : NULL, sin ? sin + at : NULL, g->rotary_half, g->dim,
                   g->a->rotary_interleaved == 1, y);
}

static void one_token(const gqa *g, int64_t token, float *row) {
    const int64_t b = token / g->queries, s = token % g->queries, dim = g->dim;
    const int64_t q_width = g->heads * dim, kv_width = g->kv_heads * dim;
    const float *const query = in(g->call, DBT_GQA_QUERY)->data;
    const float *const q = query + token * (g->packed ? q_width + 2 * kv_width : q_width);
    const float *const k =
        g->packed ? q + q_width : (const float *)in(g->call, DBT_GQA_KEY)->data + token * kv_width;
    const float *const v = g->packed
                               ? k + kv_width
                               : (const float *)in(g->call, DBT_GQA_VALUE)->data + token * kv_width;
    for (int64_t h = 0; h < g->heads && g->q; h++) {
        turn(g, b, s, q + h * dim, DBT_GQA_Q_NORM, g->q + token * q_width + h * dim);
    }
    if (s >= g->plan[b].writable) return;
    const int64_t at = g->plan[b].append_at + s;
    for (int64_t h = 0; h < g->kv_heads; h++) {
        turn(g, b, s, k + h * dim, DBT_GQA_K_NORM, row);
        dbt_kv_store(&g->k, &g->rows[b].k, h, at, row);
        dbt_kv_store(&g->v, &g->rows[b].v, h, at, v + h * dim);
    }
}

static void token_task(void *ctx, int64_t i, uint32_t thread) {
    const gqa *const g = ctx;
    const int64_t n = g->batch * g->queries;
    const int64_t tasks = dbt_task_count(n, (g->heads + 2 * g->kv_heads) * g->dim);
    const int64_t end = dbt_task_begin(n, tasks, i + 1);
    for (int64_t t = dbt_task_begin(n, tasks, i); t < end; t++) {
        one_token(g, t, g->row + (int64_t)thread * g->dim);
    }
}

/* ---- The run ------------------------------------------------------------------------------------ */

dibit_status dbt_gqa_cpu_run(const dbt_cpu_call *c) {
    gqa g;
    lay_out(c, &g);
    g.total = *(const int32_t *)in(c, DBT_GQA_TOTAL)->data;
    DBT_TRY(check_shapes(&g));
    DBT_TRY(dbt_kv_open(c, &g.k_desc, (char *)c->scratch + g.kv_at[0], &g.k));
    DBT_TRY(dbt_kv_open(c, &g.v_desc, (char *)c->scratch + g.kv_at[1], &g.v));
    for (int64_t b = 0; b < g.batch; b++) {
        g.plan[b] = (plan_row){0};
        DBT_TRY(plan_batch_row(&g, b, &g.plan[b]));
    }
    DBT_TRY(check_rotary(&g));
    for (int64_t b = 0; b < g.batch; b++) {
        const plan_row *const p = &g.plan[b];
        g.rows[b] = (dbt_attention_row){.k = place_row(&g, &g.k, g.stage[0], b),
                                        .v = place_row(&g, &g.v, g.stage[1], b),
                                        .n_keys = p->append_at + p->valid,
                                        .first_query = p->append_at,
                                        .term_offset = p->past - p->append_at};
    }
    const int64_t n = g.batch * g.queries;
    dbt_parallel_for(c->pool, dbt_task_count(n, (g.heads + 2 * g.kv_heads) * g.dim), token_task,
                     &g);

    const dbt_attention core = describe(&g);
    dbt_attention_run(&core, g.core);

    for (int64_t b = 0; b < g.batch; b++) {
        const plan_row *const p = &g.plan[b];
        unstage(&g, &g.k, &g.rows[b].k, b);
        unstage(&g, &g.v, &g.rows[b].v, b);
        const int64_t end = g.window ? p->length : p->append_at + p->writable;
        if (g.k.is_output) dbt_kv_clear(&g.k, b, g.kv_heads, end);
        if (g.v.is_output) dbt_kv_clear(&g.v, b, g.kv_heads, end);
        g.k.rows[b].length = g.v.rows[b].length = p->length;
    }
    return DIBIT_OK;
}

dibit_status dbt_gqa_cpu_bound(const dbt_cpu_call *c, float *const *bound) {
    gqa g;
    lay_out(c, &g); /* rows, stages and turned queries lie in scratch as the run left them */
    g.k.type = dbt_kv_type(c, &g.k_desc);
    g.v.type = dbt_kv_type(c, &g.v_desc);
    const dbt_attention core = describe(&g);
    DBT_TRY(dbt_attention_bound(&core, bound[0], c->error));
    for (uint32_t i = 1; i < c->n_outputs; i++) {
        if (!bound[i]) continue;
        const float *const y = c->out[i]->data;
        const int64_t n = dbt_tensor_count(c->out[i]), width = i < 3 ? g.dim : 1;
        for (int64_t row = 0; row < n; row += width) {
            float most = 0;
            for (int64_t d = 0; d < width; d++) most = fmaxf(most, fabsf(y[row + d]));
            /* Keys: a norm sums dim squares, a turn two products. Scores are rounded once. */
            const float roundings = i < 3 ? (float)g.dim / 2 + 8 : 2;
            for (int64_t d = 0; d < width; d++) bound[i][row + d] = roundings * 0x1p-24f * most;
        }
    }
    return DIBIT_OK;
}

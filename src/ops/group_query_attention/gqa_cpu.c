/* GroupQueryAttention on the CPU: checks what only a run knows, normalises, turns and stores the new
 * tokens, evicts from windowed caches, and leaves the rest to attention_core. */
#include <math.h>
#include <string.h>

#include "ops/group_query_attention/group_query_attention.h"
#include "ops/rotary/rotary.h"

typedef struct gqa {
    const dbt_cpu_call *call;
    dbt_gqa_step step;
    dbt_kv_desc k_desc, v_desc;
    dbt_kv k, v;
    dbt_gqa_plan *plan;
    dbt_attention_row *rows;
    float *q;   /* [batch, queries, heads, dim], or NULL: the input as it is */
    float *row; /* [threads, dim] */
    char *stage[2];
    void *core;
    uint64_t kv_at[2];
    uint64_t bytes;
} gqa;

static const dibit_tensor *in(const dbt_cpu_call *c, uint32_t i) {
    return i < c->n_inputs ? c->in[i] : NULL;
}

static dbt_attention describe(const gqa *g) {
    const dbt_gqa_attrs *const a = g->step.a;
    const dbt_cpu_call *const c = g->call;
    const int64_t q_heads = g->q ? g->step.heads : g->step.q_parts;
    const int64_t dim = g->step.dim;
    dbt_attention t = {
        .batch = g->step.batch,
        .heads = g->step.heads,
        .kv_heads = g->step.kv_heads,
        .queries = g->step.queries,
        .k_dim = dim,
        .v_dim = dim,
        .q = g->q ? g->q : in(c, DBT_GQA_QUERY)->data,
        .q_stride = {g->step.queries * q_heads * dim, dim, q_heads * dim},
        .y = c->out[0]->data,
        .y_stride = {g->step.queries * g->step.heads * dim, dim, g->step.heads * dim},
        .k_type = g->k.type,
        .v_type = g->v.type,
        .rows = g->rows,
        .scale = dbt_gqa_scale(&g->step),
        .softcap = a->softcap,
        .left = dbt_gqa_left(a),
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
    memset(g, 0, sizeof *g);
    g->call = c;
    dbt_gqa_read(c->attrs, c->in, c->n_inputs, &g->step);
    g->k_desc = dbt_gqa_kv_desc(&g->step, 0);
    g->v_desc = dbt_gqa_kv_desc(&g->step, 1);
    uint64_t at = 0;
    g->plan = dbt_scratch_piece(c->scratch,
                                dbt_scratch_add(&at, (uint64_t)g->step.batch, sizeof *g->plan));
    g->rows = dbt_scratch_piece(c->scratch,
                                dbt_scratch_add(&at, (uint64_t)g->step.batch, sizeof *g->rows));
    g->row = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, dbt_pool_threads(c->pool),
                                                           (uint64_t)g->step.dim * sizeof(float)));
    const uint64_t tokens =
        dbt_scratch_product(g->step.batch, g->step.queries, g->step.heads, g->step.dim);
    if (g->step.rotary_half > 0 || in(c, DBT_GQA_Q_NORM)) {
        g->q = dbt_scratch_piece(c->scratch, dbt_scratch_add(&at, tokens, sizeof(float)));
    }
    const uint64_t staged =
        dbt_scratch_product(g->step.batch, g->step.kv_heads, g->step.stage_capacity, g->step.dim);
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

/* ---- New tokens -------------------------------------------------------------------------------- */

/* Windowed caches: makes room before the step, or copies what is still seen to the stage. */
static dbt_attention_span place_row(const gqa *g, const dbt_kv *kv, char *stage, int64_t b) {
    const dbt_gqa_plan *const p = &g->plan[b];
    const dbt_attention_span cache = dbt_kv_span(kv, b);
    const uint64_t row_bytes = (uint64_t)g->step.dim * (dibit_type_bits(kv->type) / 8);
    const int64_t capacity = kv->rows[b].capacity;
    if (p->staged < 0) {
        for (int64_t h = 0; h < g->step.kv_heads && p->drop > 0; h++) {
            char *const head = (char *)kv->rows[b].data + (uint64_t)(h * capacity) * row_bytes;
            memmove(head, head + (uint64_t)p->drop * row_bytes,
                    (size_t)((uint64_t)p->append_at * row_bytes));
        }
        return cache;
    }
    const dbt_attention_span span = {
        stage + (uint64_t)(b * g->step.kv_heads * g->step.stage_capacity) * row_bytes,
        g->step.stage_capacity * g->step.dim, g->step.dim};
    for (int64_t h = 0; h < g->step.kv_heads && p->staged > 0; h++) {
        memcpy((char *)(uintptr_t)span.data + (uint64_t)(h * g->step.stage_capacity) * row_bytes,
               (char *)kv->rows[b].data +
                   (uint64_t)(h * capacity + p->held - p->staged) * row_bytes,
               (size_t)((uint64_t)p->staged * row_bytes));
    }
    return span;
}

/* The last tokens of the stage into the cache. */
static void unstage(const gqa *g, const dbt_kv *kv, const dbt_attention_span *span, int64_t b) {
    const dbt_gqa_plan *const p = &g->plan[b];
    if (p->staged < 0) return;
    const uint64_t row_bytes = (uint64_t)g->step.dim * (dibit_type_bits(kv->type) / 8);
    const int64_t first = p->staged + p->valid - p->length;
    for (int64_t h = 0; h < g->step.kv_heads; h++) {
        memcpy((char *)kv->rows[b].data + (uint64_t)(h * kv->rows[b].capacity) * row_bytes,
               (const char *)span->data +
                   (uint64_t)(h * g->step.stage_capacity + first) * row_bytes,
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
        rms_norm(x, weight->data, g->step.a->qk_norm_epsilon, g->step.dim, y);
        x = y;
    }
    const int64_t at = g->step.rotary_half > 0
                           ? dbt_gqa_position(&g->step, &g->plan[b], b, s) * g->step.rotary_half
                           : 0;
    const float *const cos = g->step.rotary_half > 0 ? in(g->call, DBT_GQA_COS)->data : NULL;
    const float *const sin = g->step.rotary_half > 0 ? in(g->call, DBT_GQA_SIN)->data : NULL;
    dbt_rotary_row(x, cos ? cos + at : NULL, sin ? sin + at : NULL, g->step.rotary_half,
                   g->step.dim, g->step.a->rotary_interleaved == 1, y);
}

static void one_token(const gqa *g, int64_t token, float *row) {
    const int64_t b = token / g->step.queries, s = token % g->step.queries, dim = g->step.dim;
    const int64_t q_width = g->step.heads * dim, kv_width = g->step.kv_heads * dim;
    const float *const query = in(g->call, DBT_GQA_QUERY)->data;
    const float *const q = query + token * (g->step.packed ? q_width + 2 * kv_width : q_width);
    const float *const k = g->step.packed
                               ? q + q_width
                               : (const float *)in(g->call, DBT_GQA_KEY)->data + token * kv_width;
    const float *const v = g->step.packed
                               ? k + kv_width
                               : (const float *)in(g->call, DBT_GQA_VALUE)->data + token * kv_width;
    for (int64_t h = 0; h < g->step.heads && g->q; h++) {
        turn(g, b, s, q + h * dim, DBT_GQA_Q_NORM, g->q + token * q_width + h * dim);
    }
    if (s >= g->plan[b].writable) return;
    const int64_t at = g->plan[b].append_at + s;
    for (int64_t h = 0; h < g->step.kv_heads; h++) {
        turn(g, b, s, k + h * dim, DBT_GQA_K_NORM, row);
        dbt_kv_store(&g->k, &g->rows[b].k, h, at, row);
        dbt_kv_store(&g->v, &g->rows[b].v, h, at, v + h * dim);
    }
}

static void token_task(void *ctx, int64_t i, uint32_t thread) {
    const gqa *const g = ctx;
    const int64_t n = g->step.batch * g->step.queries;
    const int64_t tasks = dbt_task_count(n, (g->step.heads + 2 * g->step.kv_heads) * g->step.dim);
    const int64_t end = dbt_task_begin(n, tasks, i + 1);
    for (int64_t t = dbt_task_begin(n, tasks, i); t < end; t++) {
        one_token(g, t, g->row + (int64_t)thread * g->step.dim);
    }
}

/* ---- The run ------------------------------------------------------------------------------------ */

dibit_status dbt_gqa_cpu_run(const dbt_cpu_call *c) {
    gqa g;
    lay_out(c, &g);
    DBT_TRY(dbt_gqa_check(&g.step, c->states && c->states[0], c->error));
    DBT_TRY(dbt_kv_open(c, &g.k_desc, (char *)c->scratch + g.kv_at[0], &g.k));
    DBT_TRY(dbt_kv_open(c, &g.v_desc, (char *)c->scratch + g.kv_at[1], &g.v));
    for (int64_t b = 0; b < g.step.batch; b++) {
        const dbt_gqa_cache cache = {.k_length = g.k.rows[b].length,
                                     .v_length = g.v.rows[b].length,
                                     .capacity = g.k.rows[b].capacity,
                                     .is_state = c->states && c->states[0] && !g.k.is_output};
        DBT_TRY(dbt_gqa_plan_row(&g.step, b, &cache, &g.plan[b], c->error));
        DBT_TRY(dbt_gqa_check_positions(&g.step, &g.plan[b], b, c->error));
    }
    for (int64_t b = 0; b < g.step.batch; b++) {
        const dbt_gqa_plan *const p = &g.plan[b];
        g.rows[b] = (dbt_attention_row){.k = place_row(&g, &g.k, g.stage[0], b),
                                        .v = place_row(&g, &g.v, g.stage[1], b),
                                        .n_keys = p->append_at + p->valid,
                                        .first_query = p->append_at,
                                        .term_offset = p->past - p->append_at};
    }
    const int64_t n = g.step.batch * g.step.queries;
    dbt_parallel_for(c->pool, dbt_task_count(n, (g.step.heads + 2 * g.step.kv_heads) * g.step.dim),
                     token_task, &g);

    const dbt_attention core = describe(&g);
    dbt_attention_run(&core, g.core);

    for (int64_t b = 0; b < g.step.batch; b++) {
        const dbt_gqa_plan *const p = &g.plan[b];
        unstage(&g, &g.k, &g.rows[b].k, b);
        unstage(&g, &g.v, &g.rows[b].v, b);
        const int64_t end = dbt_gqa_written(&g.step, p);
        if (g.k.is_output) dbt_kv_clear(&g.k, b, g.step.kv_heads, end);
        if (g.v.is_output) dbt_kv_clear(&g.v, b, g.step.kv_heads, end);
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
        const int64_t n = dbt_tensor_count(c->out[i]), width = i < 3 ? g.step.dim : 1;
        for (int64_t row = 0; row < n; row += width) {
            float most = 0;
            for (int64_t d = 0; d < width; d++) most = fmaxf(most, fabsf(y[row + d]));
            /* Keys: a norm sums dim squares, a turn two products. Scores are rounded once. */
            const float roundings = i < 3 ? (float)g.step.dim / 2 + 8 : 2;
            for (int64_t d = 0; d < width; d++) bound[i][row + d] = roundings * 0x1p-24f * most;
        }
    }
    return DIBIT_OK;
}

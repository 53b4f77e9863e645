/* GroupQueryAttention on a device: what gqa_cpu.c does, one batch row after the other, with the shaders of
 * attention_core. Lengths and positions are known on the host, so nothing here waits for the device. */
#include "ops/attention_core/attention_kv_gpu.h"
#include "ops/group_query_attention/group_query_attention.h"

typedef struct gqa {
    const dbt_gpu_call *call;
    dbt_gqa_step step;
    dbt_kv_desc kv_desc[2];
} gqa;

/* One batch row: its caches, and where attention finds keys and values. */
typedef struct row {
    int64_t b;
    dbt_gqa_plan plan;
    dbt_gpu_kv cache[2];
    dbt_gpu_rows kv[2];
} row;

enum { KEYS, VALUES };

static dbt_hal_buffer *buffer(const gqa *g, uint32_t i) {
    return i < g->call->n_inputs ? g->call->in_buffers[i] : NULL;
}

/* ---- Caches ---- */

/* Finds the caches of batch row b and says what becomes of them; records nothing. */
static dibit_status plan_row(const gqa *g, int64_t b, row *r) {
    const dbt_gpu_call *const c = g->call;
    r->b = b;
    for (uint32_t i = 0; i < 2; i++) {
        DBT_TRY(dbt_gpu_kv_open(c, &g->kv_desc[i], b, &r->cache[i]));
    }
    const dbt_gpu_kv *const k = &r->cache[KEYS];
    const dbt_gqa_cache cache = {.k_length = k->row.length,
                                 .v_length = r->cache[VALUES].row.length,
                                 .capacity = k->row.capacity,
                                 .is_state = !k->in_scratch && !k->is_output};
    DBT_TRY(dbt_gqa_plan_row(&g->step, b, &cache, &r->plan, c->error));
    return dbt_gqa_check_positions(&g->step, &r->plan, b, c->error);
}

/* A stage in scratch that begins with the old rows that are still seen. */
static dibit_status stage_row(const gqa *g, row *r, uint32_t i) {
    const dbt_gpu_call *const c = g->call;
    const dbt_gpu_kv *const cache = &r->cache[i];
    dbt_gpu_kv stage = *cache;
    stage.row = (dbt_gpu_state_row){.capacity = g->step.stage_capacity};
    const uint64_t n = (uint64_t)(g->step.kv_heads * stage.row.capacity * g->step.dim);
    DBT_TRY(dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_STAGE + i,
                            n * dibit_type_bits(cache->type) / 8, &stage.row.buffer, c->error));
    r->kv[i] = dbt_gpu_kv_rows(&stage, 0);
    const dbt_gpu_rows seen = dbt_gpu_kv_rows(cache, r->plan.held - r->plan.staged);
    return dbt_gpu_kv_copy(cache, &seen, &r->kv[i], r->plan.staged);
}

static dibit_status place_row(const gqa *g, row *r) {
    for (uint32_t i = 0; i < 2; i++) {
        DBT_TRY(dbt_gpu_kv_fill(&r->cache[i]));
        if (r->plan.staged >= 0) {
            DBT_TRY(stage_row(g, r, i));
            continue;
        }
        r->kv[i] = dbt_gpu_kv_rows(&r->cache[i], 0);
        DBT_TRY(dbt_gpu_kv_drop(&r->cache[i], r->plan.drop, r->plan.append_at));
    }
    return DIBIT_OK;
}

/* ---- New tokens ---- */

/* Positions that do not follow each other go to a buffer. */
static dibit_status set_positions(const gqa *g, const row *r, dbt_gpu_append *a) {
    const dbt_gpu_call *const c = g->call;
    const dbt_gqa_step *const s = &g->step;
    if (a->half == 0 || s->queries == 0) return DIBIT_OK;
    a->position = dbt_gqa_position(s, &r->plan, r->b, 0);
    int64_t t = 1;
    while (t < s->queries && dbt_gqa_position(s, &r->plan, r->b, t) == a->position + t) t++;
    if (t == s->queries) return DIBIT_OK;
    DBT_TRY(dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_POSITIONS,
                            (uint64_t)s->queries * sizeof(int32_t), &a->positions, c->error));
    int32_t block[64];
    enum { BLOCK = sizeof block / sizeof *block };
    for (int64_t first = 0; first < s->queries; first += BLOCK) {
        const int64_t n = s->queries - first < BLOCK ? s->queries - first : BLOCK;
        for (int64_t i = 0; i < n; i++) {
            block[i] = (int32_t)dbt_gqa_position(s, &r->plan, r->b, first + i);
        }
        DBT_TRY(dbt_gpu_write(c->gpu, a->positions, (uint64_t)first * sizeof *block, block,
                              (uint64_t)n * sizeof *block, c->error));
    }
    return DIBIT_OK;
}

/* Queries as the input has them; keys (part 1) and values (2) likewise. */
static dbt_gpu_rows new_rows(const gqa *g, int64_t b, uint32_t part) {
    const dbt_gqa_step *const s = &g->step;
    const int64_t before = part == 0 ? 0 : part == 1 ? s->heads : s->heads + s->kv_heads;
    const int64_t parts = s->packed ? s->q_parts : part == 0 ? s->heads : s->kv_heads;
    return (dbt_gpu_rows){
        .buffer = buffer(g, s->packed ? DBT_GQA_QUERY : DBT_GQA_QUERY + part),
        .base = (uint64_t)((b * s->queries * parts + (s->packed ? before : 0)) * s->dim),
        .head = (uint64_t)s->dim,
        .token = (uint64_t)(parts * s->dim)};
}

static dibit_status describe_append(const gqa *g, const row *r, dbt_gpu_append *out) {
    const dbt_gqa_step *const s = &g->step;
    const uint64_t dim = (uint64_t)s->dim;
    dbt_gpu_append a = {.tokens = s->queries,
                        .heads = s->heads,
                        .kv_heads = s->kv_heads,
                        .k_dim = s->dim,
                        .v_dim = s->dim,
                        .q = new_rows(g, r->b, 0),
                        .k = new_rows(g, r->b, 1),
                        .v = new_rows(g, r->b, 2),
                        .k_out = r->kv[KEYS],
                        .v_out = r->kv[VALUES],
                        .kv_type = r->cache[KEYS].type,
                        .stored = r->plan.writable,
                        .rows = r->plan.writable,
                        .cos = buffer(g, DBT_GQA_COS),
                        .sin = buffer(g, DBT_GQA_SIN),
                        .half = s->rotary_half,
                        .interleaved = s->a->rotary_interleaved == 1,
                        .q_norm = buffer(g, DBT_GQA_Q_NORM),
                        .k_norm = buffer(g, DBT_GQA_K_NORM),
                        .epsilon = s->a->qk_norm_epsilon};
    a.k_out.base += (uint64_t)r->plan.append_at * dim;
    a.v_out.base += (uint64_t)r->plan.append_at * dim;
    if (r->cache[KEYS].is_output && r->plan.staged < 0) {
        a.rows = r->cache[KEYS].row.capacity - r->plan.append_at;
    }
    DBT_TRY(set_positions(g, r, &a));
    *out = a;
    return DIBIT_OK;
}

static dibit_status append_and_attend(const gqa *g, const row *r) {
    const dbt_gpu_call *const c = g->call;
    const dbt_gqa_step *const s = &g->step;
    const uint64_t width = (uint64_t)(s->heads * s->dim);
    dbt_gpu_attention a = {
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .queries = s->queries,
        .k_dim = s->dim,
        .v_dim = s->dim,
        .k = r->kv[KEYS],
        .v = r->kv[VALUES],
        .y = {c->out_buffers[0], (uint64_t)(r->b * s->queries) * width, (uint64_t)s->dim, width},
        .kv_type = r->cache[KEYS].type,
        .n_keys = r->plan.append_at + r->plan.valid,
        .first_query = r->plan.append_at,
        .scale = dbt_gqa_scale(s),
        .softcap = s->a->softcap,
        .left = dbt_gqa_left(s->a),
        .right = s->a->causal == 1 ? 0 : -1,
        .clamp_queries = c->node->inputs[DBT_GQA_QUERY]->type == DIBIT_TYPE_FLOAT16,
        .has_sink = s->a->smooth_softmax == 1 || buffer(g, DBT_GQA_SINK),
        .sink = buffer(g, DBT_GQA_SINK)};
    const dibit_tensor *const bias = dbt_gqa_in(s, DBT_GQA_BIAS);
    if (bias) {
        const uint64_t columns = (uint64_t)bias->dims[3], head = (uint64_t)bias->dims[2] * columns;
        const uint64_t b = bias->dims[0] == 1 ? 0 : (uint64_t)r->b;
        a.terms[0] = (dbt_gpu_term){.buffer = buffer(g, DBT_GQA_BIAS),
                                    .base = b * (uint64_t)bias->dims[1] * head +
                                            (uint64_t)(r->plan.past - r->plan.append_at),
                                    .head = bias->dims[1] == 1 ? 0 : head,
                                    .query = columns,
                                    .column = 1};
    }
    dbt_gpu_append fresh;
    DBT_TRY(describe_append(g, r, &fresh));
    return dbt_gpu_append_and_attend(c->gpu, &fresh, &a, c->error);
}

/* The stage's last rows into the cache, with zeros behind them where all of it is written. */
static dibit_status unstage(const gqa *g, const row *r) {
    if (r->plan.staged < 0) return DIBIT_OK;
    for (uint32_t i = 0; i < 2; i++) {
        dbt_gpu_rows last = r->kv[i];
        last.base += (uint64_t)((r->plan.staged + r->plan.valid - r->plan.length) * g->step.dim);
        const dbt_gpu_rows front = dbt_gpu_kv_rows(&r->cache[i], 0);
        DBT_TRY(dbt_gpu_kv_copy(&r->cache[i], &last, &front, r->plan.length));
    }
    if (!r->cache[KEYS].is_output) return DIBIT_OK;
    const dbt_gpu_append zeros = {.q = new_rows(g, r->b, 0),
                                  .kv_heads = g->step.kv_heads,
                                  .k_dim = g->step.dim,
                                  .v_dim = g->step.dim,
                                  .kv_type = r->cache[KEYS].type,
                                  .k_out = dbt_gpu_kv_rows(&r->cache[KEYS], r->plan.length),
                                  .v_out = dbt_gpu_kv_rows(&r->cache[VALUES], r->plan.length),
                                  .rows = r->cache[KEYS].row.capacity - r->plan.length};
    return dbt_gpu_append_tokens(g->call->gpu, &zeros, g->call->error);
}

/* ---- The op ---- */

static dibit_status run_row(const gqa *g, row *r) {
    DBT_TRY(place_row(g, r));
    DBT_TRY(append_and_attend(g, r));
    DBT_TRY(unstage(g, r));
    for (uint32_t i = 0; i < 2; i++) dbt_gpu_kv_set_length(&r->cache[i], r->plan.length);
    return DIBIT_OK;
}

dibit_status dbt_gqa_gpu_encode(const dbt_gpu_call *c) {
    gqa g = {.call = c};
    dbt_gqa_read(c->attrs, c->in, c->n_inputs, &g.step);
    for (uint32_t i = 0; i < 2; i++) g.kv_desc[i] = dbt_gqa_kv_desc(&g.step, i);
    DBT_TRY(dbt_gqa_check(&g.step, c->states && c->states[0], c->error));
    row r;
    for (int64_t b = 0; b < g.step.batch; b++) { /* before anything is stored */
        DBT_TRY(plan_row(&g, b, &r));
    }
    for (int64_t b = 0; b < g.step.batch; b++) {
        DBT_TRY(plan_row(&g, b, &r));
        DBT_TRY(run_row(&g, &r));
    }
    return DIBIT_OK;
}

const char *dbt_gqa_gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    const bool key = node->n_outputs > 1 && node->outputs[1];
    const bool value = node->n_outputs > 2 && node->outputs[2];
    if (key != value) return "present keys without values, or values without keys";
    if (node->n_outputs > 3 && node->outputs[3]) return "scores as an output";
    return dbt_gpu_kv_refuses(node, hal);
}

/* GroupQueryAttention on a device: what gqa_cpu.c does, one batch row after the other, with the shaders of
 * attention_core. Lengths and positions are known on the host, so nothing here waits for the device. */
#include "ops/attention_core/attention_gpu.h"
#include "ops/group_query_attention/group_query_attention.h"

typedef struct gqa {
    const dbt_gpu_call *call;
    dbt_gqa_step step;
    dibit_type type; /* of the cache's rows */
    bool is_output;  /* rows lie in present, which is written whole */
} gqa;

/* One batch row: its caches, and where attention finds keys and values. */
typedef struct row {
    int64_t b;
    dbt_gqa_plan plan;
    dbt_gpu_state_row cache[2];
    dbt_gpu_rows kv[2];
} row;

enum { KEYS, VALUES };

static dbt_hal_buffer *buffer(const gqa *g, uint32_t i) {
    return i < g->call->n_inputs ? g->call->in_buffers[i] : NULL;
}

static bool has_states(const dbt_gpu_call *c) {
    return c->states && c->states[KEYS] && c->states[VALUES];
}

static dibit_type row_type(const dbt_gpu_call *c) {
    const dbt_node *const node = c->node;
    if (node->n_inputs > DBT_GQA_PAST_KEY && node->inputs[DBT_GQA_PAST_KEY]) {
        return node->inputs[DBT_GQA_PAST_KEY]->type;
    }
    return has_states(c) ? node->outputs[1]->type : DIBIT_TYPE_FLOAT;
}

static uint64_t row_bytes(const gqa *g) {
    return (uint64_t)g->step.dim * dibit_type_bits(g->type) / 8;
}

/* ---- Caches ---- */

static int64_t past_length(const gqa *g) {
    const dibit_tensor *const past = dbt_gqa_in(&g->step, DBT_GQA_PAST_KEY);
    return past ? past->dims[2] : 0;
}

/* The cache of batch row r->b as it stands; without states it is made in scratch, by fill_row. */
static dibit_status open_row(const gqa *g, row *r) {
    const dbt_gpu_call *const c = g->call;
    for (uint32_t i = 0; i < 2 && has_states(c); i++) r->cache[i] = c->states[i][r->b];
    if (has_states(c)) return DIBIT_OK;
    const int64_t length = past_length(g), capacity = length + g->step.queries;
    for (uint32_t i = 0; i < 2; i++) {
        r->cache[i] = (dbt_gpu_state_row){.length = length, .capacity = capacity};
        const uint64_t bytes = (uint64_t)(g->step.kv_heads * capacity) * row_bytes(g);
        DBT_TRY(dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_K + i, bytes, &r->cache[i].buffer,
                                c->error));
    }
    return DIBIT_OK;
}

static dibit_status plan_row(const gqa *g, row *r) {
    const dbt_gqa_cache cache = {.k_length = r->cache[KEYS].length,
                                 .v_length = r->cache[VALUES].length,
                                 .capacity = r->cache[KEYS].capacity,
                                 .is_state = has_states(g->call) && !g->is_output};
    DBT_TRY(dbt_gqa_plan_row(&g->step, r->b, &cache, &r->plan, g->call->error));
    return dbt_gqa_check_positions(&g->step, &r->plan, r->b, g->call->error);
}

/* Copies `rows` rows of every head between two arrangements of rows. */
static dibit_status copy_rows(const gqa *g, const dbt_gpu_rows *from, const dbt_gpu_rows *to,
                              int64_t rows) {
    const uint64_t size = dibit_type_bits(g->type) / 8, bytes = (uint64_t)rows * row_bytes(g);
    for (uint64_t h = 0; h < (uint64_t)g->step.kv_heads && bytes > 0; h++) {
        DBT_TRY(dbt_gpu_copy(g->call->gpu, from->buffer, (from->base + h * from->head) * size,
                             to->buffer, (to->base + h * to->head) * size, bytes, g->call->error));
    }
    return DIBIT_OK;
}

/* Rows of a cache from row `first` on. */
static dbt_gpu_rows rows_of(const gqa *g, const dbt_gpu_state_row *cache, int64_t first) {
    const uint64_t dim = (uint64_t)g->step.dim;
    return (dbt_gpu_rows){.buffer = cache->buffer,
                          .base = cache->base + (uint64_t)first * dim,
                          .head = (uint64_t)cache->capacity * dim,
                          .token = dim};
}

static dibit_status fill_row(const gqa *g, const row *r, uint32_t i) {
    const uint64_t head = (uint64_t)(past_length(g) * g->step.dim);
    const dbt_gpu_rows past = {.buffer = buffer(g, DBT_GQA_PAST_KEY + i),
                               .base = (uint64_t)(r->b * g->step.kv_heads) * head,
                               .head = head};
    const dbt_gpu_rows front = rows_of(g, &r->cache[i], 0);
    return past.buffer ? copy_rows(g, &past, &front, past_length(g)) : DIBIT_OK;
}

/* Windowed caches: the oldest rows leave. Everything moves up by as many rows, whatever its head. */
static dibit_status drop_rows(const gqa *g, const row *r, uint32_t i) {
    const dbt_gpu_call *const c = g->call;
    if (r->plan.drop == 0 || r->plan.append_at == 0) return DIBIT_OK;
    const uint64_t rows = (uint64_t)(g->step.kv_heads * r->cache[i].capacity - r->plan.drop);
    const uint64_t bytes = rows * row_bytes(g), dropped = (uint64_t)r->plan.drop * row_bytes(g);
    const uint64_t at = r->cache[i].base * dibit_type_bits(g->type) / 8;
    dbt_hal_buffer *moved;
    DBT_TRY(dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_MOVE, bytes, &moved, c->error));
    DBT_TRY(dbt_gpu_copy(c->gpu, r->cache[i].buffer, at + dropped, moved, 0, bytes, c->error));
    return dbt_gpu_copy(c->gpu, moved, 0, r->cache[i].buffer, at, bytes, c->error);
}

/* A stage in scratch that begins with the old rows that are still seen. */
static dibit_status stage_row(const gqa *g, row *r, uint32_t i) {
    const dbt_gpu_call *const c = g->call;
    dbt_gpu_state_row stage = {.capacity = g->step.stage_capacity};
    const uint64_t bytes = (uint64_t)(g->step.kv_heads * stage.capacity) * row_bytes(g);
    DBT_TRY(
        dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_STAGE + i, bytes, &stage.buffer, c->error));
    r->kv[i] = rows_of(g, &stage, 0);
    const dbt_gpu_rows seen = rows_of(g, &r->cache[i], r->plan.held - r->plan.staged);
    return copy_rows(g, &seen, &r->kv[i], r->plan.staged);
}

static dibit_status place_row(const gqa *g, row *r) {
    for (uint32_t i = 0; i < 2; i++) {
        if (!has_states(g->call)) DBT_TRY(fill_row(g, r, i));
        r->kv[i] = rows_of(g, &r->cache[i], 0);
        DBT_TRY(r->plan.staged < 0 ? drop_rows(g, r, i) : stage_row(g, r, i));
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

/* Appends, and says where the finished queries are. */
static dibit_status append(const gqa *g, const row *r, dbt_gpu_rows *q) {
    const dbt_gpu_call *const c = g->call;
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
                        .kv_type = g->type,
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
    if (g->is_output && r->plan.staged < 0) a.rows = r->cache[KEYS].capacity - r->plan.append_at;
    DBT_TRY(set_positions(g, r, &a));
    *q = a.q;
    if (a.half > 0 || a.q_norm) {
        const uint64_t n = (uint64_t)(s->queries * s->heads) * dim;
        *q = (dbt_gpu_rows){.head = dim, .token = (uint64_t)s->heads * dim};
        DBT_TRY(dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_Q, n * sizeof(float), &q->buffer,
                                c->error));
        a.q_out = *q;
    }
    return dbt_gpu_append_tokens(c->gpu, &a, c->error);
}

static dibit_status attend(const gqa *g, const row *r, const dbt_gpu_rows *q) {
    const dbt_gpu_call *const c = g->call;
    const dbt_gqa_step *const s = &g->step;
    const uint64_t width = (uint64_t)(s->heads * s->dim);
    dbt_gpu_attention a = {
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .queries = s->queries,
        .k_dim = s->dim,
        .v_dim = s->dim,
        .q = *q,
        .k = r->kv[KEYS],
        .v = r->kv[VALUES],
        .y = {c->out_buffers[0], (uint64_t)(r->b * s->queries) * width, (uint64_t)s->dim, width},
        .kv_type = g->type,
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
    return dbt_gpu_attend(c->gpu, &a, c->error);
}

/* The stage's last rows into the cache, with zeros behind them where all of it is written. */
static dibit_status unstage(const gqa *g, const row *r) {
    if (r->plan.staged < 0) return DIBIT_OK;
    dbt_gpu_append zeros = {.q = new_rows(g, r->b, 0),
                            .kv_heads = g->step.kv_heads,
                            .k_dim = g->step.dim,
                            .v_dim = g->step.dim,
                            .kv_type = g->type,
                            .k_out = rows_of(g, &r->cache[KEYS], r->plan.length),
                            .v_out = rows_of(g, &r->cache[VALUES], r->plan.length),
                            .rows = r->cache[KEYS].capacity - r->plan.length};
    for (uint32_t i = 0; i < 2; i++) {
        dbt_gpu_rows last = r->kv[i];
        last.base += (uint64_t)((r->plan.staged + r->plan.valid - r->plan.length) * g->step.dim);
        const dbt_gpu_rows front = rows_of(g, &r->cache[i], 0);
        DBT_TRY(copy_rows(g, &last, &front, r->plan.length));
    }
    return g->is_output ? dbt_gpu_append_tokens(g->call->gpu, &zeros, g->call->error) : DIBIT_OK;
}

/* ---- The op ---- */

dibit_status dbt_gqa_gpu_encode(const dbt_gpu_call *c) {
    gqa g = {.call = c, .type = row_type(c)};
    dbt_gqa_read(c->attrs, c->in, c->n_inputs, &g.step);
    g.is_output = has_states(c) && c->n_outputs > 1 && c->out_buffers[1] && g.step.batch > 0 &&
                  c->out_buffers[1] == c->states[0][0].buffer;
    DBT_TRY(dbt_gqa_check(&g.step, has_states(c), c->error));
    DBT_FAIL_IF(g.type == DIBIT_TYPE_FLOAT16 && g.step.dim % 2 != 0, c->error, DIBIT_UNSUPPORTED,
                "float16 keys and values of %lld elements: an odd number", (long long)g.step.dim);
    for (int64_t b = 0; b < g.step.batch; b++) { /* nothing is recorded before all is checked */
        row r = {.b = b};
        DBT_TRY(open_row(&g, &r));
        DBT_TRY(plan_row(&g, &r));
    }
    for (int64_t b = 0; b < g.step.batch; b++) {
        row r = {.b = b};
        dbt_gpu_rows q;
        DBT_TRY(open_row(&g, &r));
        DBT_TRY(plan_row(&g, &r));
        DBT_TRY(place_row(&g, &r));
        DBT_TRY(append(&g, &r, &q));
        DBT_TRY(attend(&g, &r, &q));
        DBT_TRY(unstage(&g, &r));
        for (uint32_t i = 0; i < 2 && has_states(c); i++) c->states[i][b].length = r.plan.length;
    }
    return DIBIT_OK;
}

const char *dbt_gqa_gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    const uint32_t rows = DBT_TYPE_BIT(DIBIT_TYPE_FLOAT) | DBT_TYPE_BIT(DIBIT_TYPE_FLOAT16);
    for (uint32_t i = DBT_GQA_PAST_KEY; i <= DBT_GQA_PAST_VALUE && i < node->n_inputs; i++) {
        if (node->inputs[i] && !dbt_type_in(node->inputs[i]->type, rows)) {
            return "keys and values that are neither float nor float16";
        }
    }
    if (node->n_outputs > 1 && node->outputs[1] && !dbt_type_in(node->outputs[1]->type, rows)) {
        return "keys and values that are neither float nor float16";
    }
    const bool key = node->n_outputs > 1 && node->outputs[1];
    const bool value = node->n_outputs > 2 && node->outputs[2];
    if (key != value) return "present keys without values, or values without keys";
    if (node->n_outputs > 3 && node->outputs[3]) return "scores as an output";
    return hal->limits.max_bindings < 8 ? "fewer than 8 buffers in a dispatch" : NULL;
}

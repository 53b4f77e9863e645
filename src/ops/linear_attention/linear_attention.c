/* LinearAttention: its shapes, and the CPU. */
#include <float.h>
#include <string.h>

#include "base/math.h"
#include "ops/linear_attention/linear_attention.h"

typedef struct linear_attrs {
    const char *update_rule;
    float scale;
    int64_t q_num_heads, kv_num_heads, state_window;
} linear_attrs;

#define FIELD(field) .name = #field, .offset = offsetof(linear_attrs, field)
static const dbt_attr_def attr_defs[] = {
    {FIELD(update_rule), .kind = DBT_ATTR_STRING, .s = "gated_delta"},
    {FIELD(scale), .kind = DBT_ATTR_FLOAT},
    {FIELD(q_num_heads), .kind = DBT_ATTR_INT, .required = true},
    {FIELD(kv_num_heads), .kind = DBT_ATTR_INT, .required = true},
    {FIELD(state_window), .kind = DBT_ATTR_INT},
    {.name = "chunk_size", .kind = DBT_ATTR_IGNORED},
};

/* Which inputs a rule uses; false when there is no such rule. */
static bool rule_of(const char *name, bool *decays, bool *deltas) {
    static const char *const names[] = {"linear", "gated", "delta", "gated_delta"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *decays = i & 1;
        *deltas = i & 2;
        return true;
    }
    return false;
}

static bool has(const dbt_infer *infer, uint32_t i) { return i < infer->n_inputs && infer->in[i]; }

static dibit_status check_attrs(const dbt_infer *infer) {
    const linear_attrs *const a = infer->attrs;
    bool decays, deltas;
    DBT_FAIL_IF(!rule_of(a->update_rule, &decays, &deltas), infer->error, DIBIT_BAD_FILE,
                "attribute 'update_rule' must be linear, gated, delta or gated_delta, got '%s'",
                a->update_rule);
    DBT_FAIL_IF((decays && !has(infer, DBT_LINEAR_DECAY)) ||
                    (deltas && !has(infer, DBT_LINEAR_BETA)),
                infer->error, DIBIT_BAD_FILE, "update_rule '%s' needs %s", a->update_rule,
                decays && !has(infer, DBT_LINEAR_DECAY) ? "decay" : "beta");
    const int64_t q = a->q_num_heads, kv = a->kv_num_heads;
    DBT_FAIL_IF(q < 1 || kv < 1 || q > INT32_MAX || kv > INT32_MAX || (q % kv != 0 && kv % q != 0),
                infer->error, DIBIT_BAD_FILE, "%lld query heads do not go with %lld others",
                (long long)q, (long long)kv);
    DBT_FAIL_IF(a->state_window < 0 || a->state_window > 8, infer->error, DIBIT_BAD_FILE,
                "attribute 'state_window' must be 0 to 8, got %lld", (long long)a->state_window);
    return DIBIT_OK;
}

static dibit_status infer_linear(dbt_infer *infer) {
    const linear_attrs *const a = infer->attrs;
    dbt_dims *const dims = infer->dims;
    DBT_TRY(check_attrs(infer));
    const int32_t windowed = a->state_window > 0;
    for (uint32_t i = DBT_LINEAR_QUERY; i <= DBT_LINEAR_BETA; i++) {
        DBT_TRY(dbt_infer_type(infer, i, DBT_TYPES_FLOAT));
        const int32_t rank = i == DBT_LINEAR_PAST ? 4 + windowed : 3;
        DBT_TRY(dbt_infer_rank(infer, i, rank, rank));
    }
    const dbt_shape *const q = &infer->in[DBT_LINEAR_QUERY]->shape, *const v =
                                                                        &infer->in[DBT_LINEAR_VALUE]
                                                                             ->shape;
    const dbt_dim q_heads = dbt_dim_const(dims, a->q_num_heads);
    const dbt_dim kv_heads = dbt_dim_const(dims, a->kv_num_heads);
    const dbt_dim d_k = dbt_dim_apply(dims, DBT_DIM_DIV, q->dims[2], q_heads);
    const dbt_dim d_v = dbt_dim_apply(dims, DBT_DIM_DIV, v->dims[2], kv_heads);
    const dbt_dim heads = a->q_num_heads > a->kv_num_heads ? q_heads : kv_heads;
    const dbt_shape y = {3, {q->dims[0], q->dims[1], dbt_dim_apply(dims, DBT_DIM_MUL, heads, d_v)}};
    dbt_shape state = {4 + windowed, {0}};
    if (windowed) state.dims[0] = dbt_dim_const(dims, a->state_window);
    const dbt_dim last[4] = {q->dims[0], kv_heads, d_k, d_v};
    memcpy(state.dims + windowed, last, sizeof last);
    for (int32_t i = 0; i < state.rank; i++)
        DBT_TRY(dbt_infer_dim(infer, DBT_LINEAR_PAST, i, state.dims[i]));
    dbt_infer_output(infer, 0, infer->in[DBT_LINEAR_QUERY]->type, &y);
    dbt_infer_output(
        infer, 1, infer->in[has(infer, DBT_LINEAR_PAST) ? DBT_LINEAR_PAST : DBT_LINEAR_QUERY]->type,
        &state);
    return DIBIT_OK;
}

/* A window of states has the batch as its second axis: it is no state of one sequence. */
static dbt_state_kind state_kind(const dbt_node *node) {
    const linear_attrs *const a = node->attrs;
    return a->state_window > 0 ? DBT_STATE_NONE : DBT_STATE_REPLACE;
}

typedef struct linear_job {
    dbt_linear_layout l;
    const float *in[6];
    float *y, *present;           /* NULL where not wanted */
    float *y_bound, *state_bound; /* with `bounds` */
    bool bounds;
    float
        roundings; /* of `bounds`: behind a result, at first order, per magnitude of its summands */
    float *scratch; /* for every unit: S, magnitudes, e */
    int64_t n_tasks;
} linear_job;

dibit_status dbt_linear_layout_of(const dbt_cpu_call *call, dbt_linear_layout *out) {
    const linear_attrs *const a = call->attrs;
    const dibit_tensor *const q = call->in[DBT_LINEAR_QUERY];
    dbt_linear_layout l = {.batch = q->dims[0],
                           .length = q->dims[1],
                           .q_heads = a->q_num_heads,
                           .kv_heads = a->kv_num_heads,
                           .slots = a->state_window > 0 ? a->state_window : 1,
                           .d_k = q->dims[2] / a->q_num_heads,
                           .d_v = call->in[DBT_LINEAR_VALUE]->dims[2] / a->kv_num_heads};
    rule_of(a->update_rule, &l.decays, &l.deltas);
    int64_t width[6] = {0};
    for (uint32_t i = 0; i < call->n_inputs; i++) {
        if (!call->in[i]) continue;
        width[i] = call->in[i]->dims[2];
        DBT_FAIL_IF(i != DBT_LINEAR_PAST &&
                        (call->in[i]->dims[0] != l.batch || call->in[i]->dims[1] != l.length),
                    call->error, DIBIT_BAD_INPUT, "input %u must have the query's batch and length",
                    (unsigned)i);
    }
    const int64_t kv = l.kv_heads;
    l.k_heads = l.d_k > 0 ? width[DBT_LINEAR_KEY] / l.d_k : 0;
    l.decay_width = width[DBT_LINEAR_DECAY];
    l.beta_width = width[DBT_LINEAR_BETA];
    l.decay_by_row = l.decay_width != kv || l.d_k == 1;
    const bool fits = l.k_heads > 0 && width[DBT_LINEAR_QUERY] == l.d_k * l.q_heads &&
                      width[DBT_LINEAR_KEY] == l.d_k * l.k_heads && kv % l.k_heads == 0 &&
                      width[DBT_LINEAR_VALUE] == l.d_v * kv &&
                      (!l.decays || l.decay_width == kv || l.decay_width == kv * l.d_k) &&
                      (!l.deltas || l.beta_width == kv || l.beta_width == 1);
    DBT_FAIL_IF(!fits, call->error, DIBIT_BAD_INPUT,
                "the widths of query, key, value, decay and beta do not fit the heads");
    const dibit_tensor *const past =
        call->n_inputs > DBT_LINEAR_PAST ? call->in[DBT_LINEAR_PAST] : NULL;
    l.slot = l.batch * kv * l.d_k * l.d_v;
    DBT_FAIL_IF(past && dbt_tensor_count(past) != l.slots * l.slot, call->error, DIBIT_BAD_INPUT,
                "past_state must have %lld elements", (long long)(l.slots * l.slot));
    l.scale = a->scale != 0 ? a->scale : 1 / sqrtf((float)l.d_k);
    *out = l;
    return DIBIT_OK;
}

static dibit_status make_job(const dbt_cpu_call *call, linear_job *job) {
    *job = (linear_job){.scratch = call->scratch};
    DBT_TRY(dbt_linear_layout_of(call, &job->l));
    for (uint32_t i = 0; i < call->n_inputs; i++) {
        if (call->in[i]) job->in[i] = call->in[i]->data;
    }
    if (job->in[DBT_LINEAR_PAST]) job->in[DBT_LINEAR_PAST] += (job->l.slots - 1) * job->l.slot;
    job->y = call->out[0] ? call->out[0]->data : NULL;
    job->present = call->n_outputs > 1 && call->out[1] ? call->out[1]->data : NULL;
    return DIBIT_OK;
}

/* One unit's memory and where it stands. */
typedef struct unit {
    int64_t b, head;
    float *s, *magnitude, *e; /* [d_k, d_v] twice, [d_v] */
} unit;

static void decay(const linear_job *job, const unit *u, int64_t token) {
    const int64_t width = job->l.decay_width, d_k = job->l.d_k, d_v = job->l.d_v;
    const bool per_row = job->l.decay_by_row;
    const float *const g =
        job->in[DBT_LINEAR_DECAY] + token * width + u->head * (per_row ? d_k : 1);
    for (int64_t i = 0; i < d_k; i++) {
        const float factor = dbt_expf(g[per_row ? i : 0]);
        for (int64_t j = 0; j < d_v; j++) u->s[i * d_v + j] *= factor;
        for (int64_t j = 0; job->bounds && j < d_v; j++) u->magnitude[i * d_v + j] *= factor;
    }
}

static void update(const linear_job *job, const unit *u, int64_t token) {
    const int64_t d_k = job->l.d_k, d_v = job->l.d_v;
    const int64_t k_head = u->head / (job->l.kv_heads / job->l.k_heads);
    const float *const k = job->in[DBT_LINEAR_KEY] + (token * job->l.k_heads + k_head) * d_k;
    const float *const v = job->in[DBT_LINEAR_VALUE] + (token * job->l.kv_heads + u->head) * d_v;
    memcpy(u->e, v, (size_t)d_v * sizeof *v);
    if (job->l.deltas) {
        const float beta = job->in[DBT_LINEAR_BETA][token * job->l.beta_width +
                                                    (job->l.beta_width == 1 ? 0 : u->head)];
        for (int64_t j = 0; j < d_v; j++) u->e[j] = 0;
        for (int64_t i = 0; i < d_k; i++) {
            for (int64_t j = 0; j < d_v; j++) u->e[j] += k[i] * u->s[i * d_v + j];
        }
        for (int64_t j = 0; j < d_v; j++) u->e[j] = beta * (v[j] - u->e[j]);
    }
    for (int64_t i = 0; i < d_k; i++) {
        for (int64_t j = 0; j < d_v; j++) u->s[i * d_v + j] += k[i] * u->e[j];
        for (int64_t j = 0; job->bounds && j < d_v; j++) {
            u->magnitude[i * d_v + j] += fabsf(k[i] * u->e[j]);
        }
    }
}

static void read_out(const linear_job *job, const unit *u, int64_t token) {
    const int64_t d_k = job->l.d_k, d_v = job->l.d_v;
    const int64_t group = job->l.q_heads > job->l.kv_heads ? job->l.q_heads / job->l.kv_heads : 1;
    const int64_t shared = job->l.kv_heads > job->l.q_heads ? job->l.kv_heads / job->l.q_heads : 1;
    const float *const from = job->bounds ? u->magnitude : u->s;
    const float scale = job->bounds ? fabsf(job->l.scale) * job->roundings : job->l.scale;
    float *const to = job->bounds ? job->y_bound : job->y;
    for (int64_t m = 0; to && m < group; m++) {
        const int64_t q_head = group > 1 ? u->head * group + m : u->head / shared;
        const float *const q = job->in[DBT_LINEAR_QUERY] + (token * job->l.q_heads + q_head) * d_k;
        float *const y = to + (token * job->l.kv_heads * group + u->head * group + m) * d_v;
        for (int64_t j = 0; j < d_v; j++) y[j] = 0;
        for (int64_t i = 0; i < d_k; i++) {
            const float w = job->bounds ? fabsf(q[i]) : q[i];
            for (int64_t j = 0; j < d_v; j++) y[j] += w * from[i * d_v + j];
        }
        for (int64_t j = 0; j < d_v; j++) y[j] *= scale;
    }
}

/* What present holds of the state after `done` tokens. */
static void store(const linear_job *job, int64_t index, const unit *u, int64_t done) {
    const int64_t n = job->l.d_k * job->l.d_v;
    const int64_t at = job->l.slots - 1 - (job->l.length - done);
    if (at < 0 || !job->present) return;
    float *const to =
        (job->bounds ? job->state_bound : job->present) + at * job->l.slot + index * n;
    for (int64_t i = 0; i < n; i++)
        to[i] = job->bounds ? u->magnitude[i] * job->roundings : u->s[i];
}

static void run_unit(const linear_job *job, int64_t index) {
    const int64_t n = job->l.d_k * job->l.d_v;
    float *const memory = job->scratch + index * (2 * n + job->l.d_v);
    const unit u = {index / job->l.kv_heads, index % job->l.kv_heads, memory, memory + n,
                    memory + 2 * n};
    const float *const past = job->in[DBT_LINEAR_PAST];
    for (int64_t i = 0; i < n; i++) {
        u.s[i] = past ? past[index * n + i] : 0;
        if (job->bounds) u.magnitude[i] = fabsf(u.s[i]);
    }
    if (job->l.length == 0) store(job, index, &u, 0);
    for (int64_t t = 0; t < job->l.length; t++) {
        const int64_t token = u.b * job->l.length + t;
        if (job->l.decays) decay(job, &u, token);
        update(job, &u, token);
        read_out(job, &u, token);
        store(job, index, &u, t + 1);
    }
}

static void run_task(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const linear_job *const job = ctx;
    const int64_t units = job->l.batch * job->l.kv_heads;
    const int64_t end = dbt_task_begin(units, job->n_tasks, task + 1);
    for (int64_t u = dbt_task_begin(units, job->n_tasks, task); u < end; u++) run_unit(job, u);
}

static void run_all(linear_job *job, dbt_pool *pool, uint64_t present_count) {
    float *const present = job->bounds ? job->state_bound : job->present;
    if (present)
        memset(present, 0, (size_t)present_count * sizeof *present); /* slots of no token */
    const int64_t units = job->l.batch * job->l.kv_heads;
    if (units == 0) return;
    job->n_tasks = dbt_task_count(units, job->l.length * job->l.d_k * job->l.d_v * 4);
    dbt_parallel_for(pool, job->n_tasks, run_task, job);
}

static uint64_t present_count(const dbt_cpu_call *call) {
    return call->n_outputs > 1 && call->out[1] ? (uint64_t)dbt_tensor_count(call->out[1]) : 0;
}

static uint64_t linear_scratch(const dbt_cpu_call *call) {
    dbt_cpu_call quiet = *call;
    quiet.error = NULL;
    linear_job job;
    if (make_job(&quiet, &job)) return 0; /* cpu_run says why */
    return (uint64_t)(job.l.batch * job.l.kv_heads) *
           (uint64_t)(2 * job.l.d_k * job.l.d_v + job.l.d_v) * sizeof(float);
}

static dibit_status linear_run(const dbt_cpu_call *call) {
    linear_job job;
    DBT_TRY(make_job(call, &job));
    run_all(&job, call->pool, present_count(call));
    return DIBIT_OK;
}

/* of_token: roundings of S in a token, of FLT_EPSILON / 2 each. */
static dibit_status bound_of(const dbt_cpu_call *call, float *const *bound, int64_t of_token) {
    linear_job job;
    DBT_TRY(make_job(call, &job));
    job.bounds = true;
    job.roundings = (float)(job.l.d_k + job.l.length * of_token + 8 * of_token) * (FLT_EPSILON / 2);
    job.y_bound = bound[0];
    job.state_bound = call->n_outputs > 1 ? bound[1] : NULL;
    if (!job.state_bound) job.present = NULL;
    run_all(&job, call->pool, present_count(call));
    return DIBIT_OK;
}

static dibit_status linear_bound(const dbt_cpu_call *call, float *const *bound) {
    return bound_of(call, bound, 1);
}

/* A device's exponential is off by 4 roundings; the product with it and the sum are two more. */
static dibit_status gpu_bound(const dbt_cpu_call *call, float *const *bound) {
    return bound_of(call, bound, 6);
}

static const dbt_state_pair state_pairs[] = {{.past = DBT_LINEAR_PAST, .present = 1}};

const dbt_op dbt_linear_attention_ops[] = {
    {.domain = "com.microsoft",
     .name = "LinearAttention",
     .since = 1,
     .min_inputs = 3,
     .max_inputs = 6,
     .min_outputs = 1,
     .max_outputs = 2,
     .attrs = attr_defs,
     .n_attrs = sizeof attr_defs / sizeof *attr_defs,
     .attrs_bytes = sizeof(linear_attrs),
     .states = state_pairs,
     .n_states = 1,
     .infer = infer_linear,
     .cpu_scratch = linear_scratch,
     .cpu_run = linear_run,
     .cpu_bound = linear_bound,
     .gpu_encode = dbt_linear_encode,
     .gpu_bound = gpu_bound,
     .state_kind = state_kind},
    {.name = NULL},
};

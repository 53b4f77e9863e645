/* Running the experts: tokens are gathered by expert, multiplied, and added by routing weight. */
#include <math.h>
#include <string.h>

#include "base/math.h"
#include "ops/moe/moe.h"

/* ---- The job and its scratch ----------------------------------------------------------------- */

static int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }

/* Scratch that any kernel which may be chosen for up to `tokens` rows needs. */
static uint64_t nbits_bytes(const dbt_moe_job *job) {
    uint64_t most = 0;
    for (int f = 0; f < (job->weights.has_fc3 ? 3 : 2); f++) {
        dbt_matmul_nbits p = job->weights.fc[f].nbits;
        p.M = job->tokens;
        for (size_t i = 0; i < dbt_nbits_kernel_count; i++) {
            const dbt_nbits_kernel *const kernel = &dbt_nbits_kernels[i];
            if (!dbt_nbits_kernel_fits(kernel, &p, job->call->options->isa)) continue;
            const uint64_t bytes =
                dbt_nbits_scratch_bytes(&p, kernel, dbt_pool_threads(job->call->pool));
            most = bytes > most ? bytes : most;
        }
    }
    return most;
}

static void *take(dbt_moe_job *job, int64_t count, uint64_t bytes) {
    char *const base = job->call->scratch;
    void *const here = base ? base + job->bytes : NULL;
    job->bytes += ((uint64_t)count * bytes + 63) / 64 * 64;
    return here;
}

static void lay_out(dbt_moe_job *job) {
    const dbt_moe_weights *const w = &job->weights;
    const int64_t routes = job->tokens * job->attrs->k;
    job->taken = take(job, w->experts, 1);
    job->routes = take(job, routes, sizeof *job->routes);
    job->list = take(job, routes, sizeof *job->list);
    job->first = take(job, w->experts + 1, sizeof *job->first);
    job->a = take(job, job->tokens * w->hidden, sizeof *job->a);
    job->c1 = take(job, job->tokens * w->fc[0].n, sizeof *job->c1);
    job->c3 = take(job, w->has_fc3 ? job->tokens * w->inter : 0, sizeof *job->c3);
    job->h = take(job, job->tokens * w->inter, sizeof *job->h);
    job->c2 = take(job, job->tokens * w->hidden, sizeof *job->c2);
    job->exact = take(job, 8 * largest(w->fc[0].n, w->hidden), sizeof *job->exact);
    job->nbits = NULL;
    if (!job->quantized) return;
    const uint64_t bytes = nbits_bytes(job);
    job->nbits = take(job, 1, bytes);
}

dibit_status dbt_moe_make_job(const dbt_cpu_call *call, dbt_moe_job *job) {
    *job = (dbt_moe_job){.call = call,
                         .attrs = call->attrs,
                         .quantized = call->node->op->kind == DBT_MOE_QUANTIZED,
                         .activation = DBT_MOE_RELU};
    dbt_moe_activation_of(job->attrs->activation_type, &job->activation);
    dbt_moe_weights *const w = &job->weights;
    DBT_TRY(dbt_moe_read_weights(call->node, call->in, call->n_inputs, w, call->error));
    if (call->prepared) {
        const dbt_moe_weights *const prepared = call->prepared;
        for (int f = 0; f < 3; f++) {
            const float *const bias = w->fc[f].bias;
            w->fc[f] = prepared->fc[f];
            w->fc[f].bias = bias; /* may differ from run to run */
        }
    }
    const dibit_tensor *const x = call->in[0], *const router = call->in[1];
    const dibit_tensor *const weights = job->quantized && call->n_inputs > 14 ? call->in[14] : NULL;
    DBT_FAIL_IF(x->dims[x->rank - 1] != w->hidden, call->error, DIBIT_BAD_INPUT,
                "the input has %lld features, the experts take %lld",
                (long long)x->dims[x->rank - 1], (long long)w->hidden);
    job->tokens = dbt_tensor_count(x) / w->hidden;
    for (int i = 0; i < 2; i++) {
        const dibit_tensor *const t = i == 0 ? router : weights;
        DBT_FAIL_IF(t && (t->dims[0] != job->tokens || t->dims[1] != w->experts), call->error,
                    DIBIT_BAD_INPUT, "input %d must have the shape [%lld, %lld]", i == 0 ? 1 : 14,
                    (long long)job->tokens, (long long)w->experts);
    }
    job->x = x->data;
    job->router = router->data;
    job->router_weights = weights ? weights->data : NULL;
    lay_out(job);
    return DIBIT_OK;
}

/* What is wrong with the shapes is said by cpu_run. */
uint64_t dbt_moe_cpu_scratch(const dbt_cpu_call *call) {
    dbt_cpu_call quiet = *call;
    quiet.error = NULL;
    quiet.scratch = NULL;
    dbt_moe_job job;
    return dbt_moe_make_job(&quiet, &job) == DIBIT_OK ? job.bytes : 0;
}

/* ---- Multiplications ------------------------------------------------------------------------- */

dbt_matmul_nbits dbt_moe_expert(const dbt_moe_fc *fc, int64_t e) {
    dbt_matmul_nbits p = fc->nbits;
    p.b += (uint64_t)e * fc->b_bytes;
    p.scales = (const uint8_t *)p.scales + (uint64_t)e * fc->scale_bytes;
    if (p.zero_points) {
        p.zero_points = (const uint8_t *)p.zero_points + (uint64_t)e * fc->zero_point_bytes;
    }
    return p;
}

typedef struct dense {
    const float *a, *w, *bias;
    float *y;
    int64_t m, n, k, n_tasks;
} dense;

static float dot(const float *a, const float *b, int64_t n) {
    float lanes[DBT_LANES] = {0};
    int64_t i = 0;
    for (; i + DBT_LANES <= n; i += DBT_LANES) {
        for (int k = 0; k < DBT_LANES; k++) lanes[k] += a[i + k] * b[i + k];
    }
    for (int k = 0; i + k < n; k++) lanes[k] += a[i + k] * b[i + k];
    return dbt_sum(lanes, DBT_LANES);
}

static void dense_task(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const dense *const d = ctx;
    const int64_t end = dbt_task_begin(d->n, d->n_tasks, task + 1);
    for (int64_t n = dbt_task_begin(d->n, d->n_tasks, task); n < end; n++) {
        for (int64_t m = 0; m < d->m; m++) {
            const float v = dot(d->a + m * d->k, d->w + n * d->k, d->k);
            d->y[m * d->n + n] = d->bias ? v + d->bias[n] : v;
        }
    }
}

static void multiply(const dbt_moe_job *job, const dbt_moe_fc *fc, int64_t e, int64_t rows,
                     const float *a, float *y) {
    const float *const bias = fc->bias ? fc->bias + e * fc->n : NULL;
    if (job->quantized) {
        dbt_matmul_nbits p = dbt_moe_expert(fc, e);
        p.M = rows;
        p.a = a;
        p.y = y;
        p.bias = bias;
        dbt_nbits_execute(&p, dbt_nbits_choose(&p, job->call->options->isa), job->call->pool,
                          job->nbits);
        return;
    }
    dense d = {a, fc->weights + e * fc->n * fc->k, bias, y, rows, fc->n, fc->k, 0};
    d.n_tasks = dbt_task_count(fc->n, rows * fc->k);
    dbt_parallel_for(job->call->pool, d.n_tasks, dense_task, &d);
}

/* ---- Activations ----------------------------------------------------------------------------- */

static float activate(dbt_moe_activation kind, float x) {
    switch (kind) {
    case DBT_MOE_RELU: return x > 0 ? x : 0;
    case DBT_MOE_GELU: return 0.5f * x * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    case DBT_MOE_SILU: return x * dbt_sigmoidf(x);
    case DBT_MOE_IDENTITY:
    case DBT_MOE_SWIGLU: break;
    }
    return x;
}

static float swiglu(const dbt_moe_attrs *a, float g, float l) {
    g = g > a->swiglu_limit ? a->swiglu_limit : g;
    l = l > a->swiglu_limit ? a->swiglu_limit : l < -a->swiglu_limit ? -a->swiglu_limit : l;
    return g * dbt_sigmoidf(a->activation_alpha * g) * (l + a->activation_beta);
}

typedef struct activation_run {
    const dbt_moe_job *job;
    int64_t rows, n_tasks;
} activation_run;

static void activate_row(const dbt_moe_job *job, int64_t row) {
    const dbt_moe_weights *const w = &job->weights;
    const int64_t n = w->inter;
    const float *const c1 = job->c1 + row * w->fc[0].n, *const c3 = job->c3 + row * n;
    float *const h = job->h + row * n;
    if (job->activation != DBT_MOE_SWIGLU) {
        for (int64_t i = 0; i < n; i++) h[i] = activate(job->activation, c1[i]);
        for (int64_t i = 0; w->has_fc3 && i < n; i++) h[i] *= c3[i];
    } else if (!w->fused) {
        for (int64_t i = 0; i < n; i++) h[i] = swiglu(job->attrs, c1[i], c3[i]);
    } else if (job->attrs->swiglu_fusion == 1) {
        for (int64_t i = 0; i < n; i++) h[i] = swiglu(job->attrs, c1[2 * i], c1[2 * i + 1]);
    } else {
        for (int64_t i = 0; i < n; i++) h[i] = swiglu(job->attrs, c1[i], c1[n + i]);
    }
}

static void activate_task(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const activation_run *const run = ctx;
    const int64_t end = dbt_task_begin(run->rows, run->n_tasks, task + 1);
    for (int64_t r = dbt_task_begin(run->rows, run->n_tasks, task); r < end; r++) {
        activate_row(run->job, r);
    }
}

/* ---- The run --------------------------------------------------------------------------------- */

/* Routes every token, and lists the routes with a weight by expert and token. */
static void route(const dbt_moe_job *job) {
    const int64_t experts = job->weights.experts, k = job->attrs->k;
    for (int64_t e = 0; e <= experts; e++) job->first[e] = 0;
    for (int64_t t = 0; t < job->tokens; t++) {
        dbt_moe_route_token(job->attrs, job->quantized, job->router + t * experts,
                            job->router_weights ? job->router_weights + t * experts : NULL, experts,
                            job->taken, job->routes + t * k);
    }
    const int64_t routes = job->tokens * k;
    for (int64_t r = 0; r < routes; r++) {
        job->first[job->routes[r].expert + 1] += job->routes[r].weight != 0;
    }
    for (int64_t e = 0; e < experts; e++) job->first[e + 1] += job->first[e];
    for (int64_t r = 0; r < routes; r++) { /* moves each expert's begin to its end ... */
        if (job->routes[r].weight != 0) job->list[job->first[job->routes[r].expert]++] = r;
    }
    for (int64_t e = experts; e > 0; e--) job->first[e] = job->first[e - 1]; /* ... and back */
    job->first[0] = 0;
}

static void run_expert(const dbt_moe_job *job, int64_t e, float *y) {
    const dbt_moe_weights *const w = &job->weights;
    const int64_t *const list = job->list + job->first[e];
    const int64_t rows = job->first[e + 1] - job->first[e], k = job->attrs->k;
    for (int64_t r = 0; r < rows; r++) {
        memcpy(job->a + r * w->hidden, job->x + list[r] / k * w->hidden,
               (size_t)w->hidden * sizeof *job->a);
    }
    multiply(job, &w->fc[0], e, rows, job->a, job->c1);
    if (w->has_fc3) multiply(job, &w->fc[2], e, rows, job->a, job->c3);
    activation_run run = {job, rows, dbt_task_count(rows, w->inter * 30)};
    dbt_parallel_for(job->call->pool, run.n_tasks, activate_task, &run);
    multiply(job, &w->fc[1], e, rows, job->h, job->c2);
    for (int64_t r = 0; r < rows; r++) {
        float *const to = y + list[r] / k * w->hidden;
        const float *const from = job->c2 + r * w->hidden, weight = job->routes[list[r]].weight;
        for (int64_t i = 0; i < w->hidden; i++) to[i] += weight * from[i];
    }
}

dibit_status dbt_moe_cpu_run(const dbt_cpu_call *call) {
    dbt_moe_job job;
    DBT_TRY(dbt_moe_make_job(call, &job));
    if (job.tokens == 0) return DIBIT_OK;
    float *const y = call->out[0]->data;
    memset(y, 0, (size_t)(job.tokens * job.weights.hidden) * sizeof *y);
    route(&job);
    for (int64_t e = 0; e < job.weights.experts; e++) {
        if (job.first[e + 1] > job.first[e]) run_expert(&job, e, y);
    }
    return DIBIT_OK;
}

/* CausalConvWithState: a depthwise convolution over time that carries its last inputs along.
 *
 * For every batch row and channel, with v = state ++ input, s = (K - 1) * dilation values of state:
 *   output[t] = activation(bias + sum_j weight[j] * v[t + j * dilation]),   new state = last s of v
 * As ONNX Runtime's kernel, sums begin with the bias and run over j upwards. */
#include "ops/conv/conv.h"

#include <float.h>
#include <string.h>

#include "base/math.h"

#define HALF_EPS (FLT_EPSILON / 2)

enum { INPUT, WEIGHT, BIAS, PAST };

static bool has_silu(const dbt_causal_conv_attrs *attrs) {
    return strcmp(attrs->activation, "none") != 0;
}

static dibit_status check_attrs(const dbt_infer *infer) {
    const dbt_causal_conv_attrs *const a = infer->attrs;
    DBT_FAIL_IF(a->ndim < 1 || a->ndim > 3, infer->error, DIBIT_BAD_FILE,
                "attribute 'ndim' must be 1, 2 or 3, got %lld", (long long)a->ndim);
    DBT_FAIL_IF(a->ndim != 1, infer->error, DIBIT_UNSUPPORTED, "ndim %lld is not supported, only 1",
                (long long)a->ndim);
    DBT_FAIL_IF(a->dilation < 1 || a->dilation > INT32_MAX, infer->error, DIBIT_BAD_FILE,
                "attribute 'dilation' must be at least 1, got %lld", (long long)a->dilation);
    DBT_FAIL_IF(a->channels_last != 0 && a->channels_last != 1, infer->error, DIBIT_BAD_FILE,
                "attribute 'channels_last' must be 0 or 1, got %lld", (long long)a->channels_last);
    DBT_FAIL_IF(a->state_window < 0 || a->state_window > 8, infer->error, DIBIT_BAD_FILE,
                "attribute 'state_window' must be 0 to 8, got %lld", (long long)a->state_window);
    DBT_FAIL_IF(has_silu(a) && strcmp(a->activation, "silu") != 0 &&
                    strcmp(a->activation, "swish") != 0,
                infer->error, DIBIT_BAD_FILE,
                "attribute 'activation' must be none, silu or swish, got '%s'", a->activation);
    return DIBIT_OK;
}

dibit_status dbt_causal_conv_infer(dbt_infer *infer) {
    const dbt_causal_conv_attrs *const a = infer->attrs;
    dbt_dims *const dims = infer->dims;
    DBT_TRY(check_attrs(infer));
    for (uint32_t i = 0; i < infer->n_inputs; i++) {
        DBT_TRY(dbt_infer_type(infer, i, DBT_TYPES_FLOAT));
    }
    const int32_t windowed = a->state_window > 0;
    DBT_TRY(dbt_infer_rank(infer, INPUT, 3, a->channels_last ? DIBIT_MAX_RANK - windowed : 3));
    DBT_TRY(dbt_infer_rank(infer, WEIGHT, 3, 3));
    DBT_TRY(dbt_infer_rank(infer, BIAS, 1, 1));
    const dbt_shape *const x = &infer->in[INPUT]->shape;
    DBT_TRY(dbt_infer_rank(infer, PAST, x->rank + windowed, x->rank + windowed));
    dbt_dim channels = x->dims[1];
    if (a->channels_last) {
        channels = x->dims[2];
        for (int32_t i = 3; i < x->rank; i++) {
            channels = dbt_dim_apply(dims, DBT_DIM_MUL, channels, x->dims[i]);
        }
    }
    DBT_TRY(dbt_infer_dim(infer, WEIGHT, 0, channels));
    DBT_TRY(dbt_infer_dim(infer, WEIGHT, 1, dbt_dim_const(dims, 1)));
    DBT_TRY(dbt_infer_dim(infer, BIAS, 0, channels));
    const dbt_dim taps = infer->in[WEIGHT]->shape.dims[2];
    DBT_FAIL_IF(dbt_dim_is(dims, taps, 0), infer->error, DIBIT_BAD_FILE, "the kernel has no taps");
    dbt_shape present = {.rank = x->rank + windowed};
    memcpy(present.dims + windowed, x->dims, (size_t)x->rank * sizeof *x->dims);
    if (windowed) present.dims[0] = dbt_dim_const(dims, a->state_window);
    const dbt_dim before = dbt_dim_apply(dims, DBT_DIM_SUB, taps, dbt_dim_const(dims, 1));
    present.dims[windowed + (a->channels_last ? 1 : 2)] =
        dbt_dim_apply(dims, DBT_DIM_MUL, before, dbt_dim_const(dims, a->dilation));
    for (int32_t i = 0; i < present.rank; i++) {
        DBT_TRY(dbt_infer_dim(infer, PAST, i, present.dims[i]));
    }
    dbt_infer_output(infer, 0, infer->in[INPUT]->type, x);
    dbt_infer_output(infer, 1, infer->in[INPUT]->type, &present);
    return DIBIT_OK;
}

/* A window of states has the batch as its second axis: it is no state of one sequence. */
dbt_state_kind dbt_causal_conv_state_kind(const dbt_node *node) {
    const dbt_causal_conv_attrs *const a = node->attrs;
    return a->state_window > 0 ? DBT_STATE_NONE : DBT_STATE_REPLACE;
}

typedef struct causal_job {
    const dbt_cpu_call *call;
    const float *x, *weight, *bias, *past; /* past: slot W-1 */
    float *y, *present;
    float *bound; /* not NULL: computes y's bound only */
    int64_t batch, channels, length, taps, dilation, state_length, windows;
    bool silu, channels_last;
    int64_t n_tasks;
} causal_job;

static dibit_status make_job(const dbt_cpu_call *call, causal_job *job) {
    const dbt_causal_conv_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[INPUT], *const w = call->in[WEIGHT];
    const dibit_tensor *const bias = call->n_inputs > BIAS ? call->in[BIAS] : NULL;
    const dibit_tensor *const past = call->n_inputs > PAST ? call->in[PAST] : NULL;
    const dibit_tensor *const present = call->n_outputs > 1 ? call->out[1] : NULL;
    *job = (causal_job){.call = call,
                        .x = x->data,
                        .weight = w->data,
                        .dilation = a->dilation,
                        .batch = x->dims[0],
                        .taps = w->dims[2],
                        .windows = a->state_window,
                        .length = x->dims[a->channels_last ? 1 : 2],
                        .silu = has_silu(a),
                        .channels_last = a->channels_last != 0,
                        .y = call->out[0] ? call->out[0]->data : NULL,
                        .present = present ? present->data : NULL};
    job->channels = a->channels_last ? 1 : x->dims[1];
    for (int32_t i = 2; a->channels_last && i < x->rank; i++) job->channels *= x->dims[i];
    job->state_length = (job->taps - 1) * a->dilation;
    DBT_FAIL_IF(w->dims[0] != job->channels || w->dims[1] != 1 || job->taps < 1, call->error,
                DIBIT_BAD_INPUT, "the weight must be [%lld, 1, taps]", (long long)job->channels);
    if (bias) {
        DBT_FAIL_IF(bias->dims[0] != job->channels, call->error, DIBIT_BAD_INPUT,
                    "the bias must have %lld elements", (long long)job->channels);
        job->bias = bias->data;
    }
    if (!past) return DIBIT_OK;
    const int64_t slot = job->batch * job->channels * job->state_length;
    const int64_t slots = job->windows > 0 ? job->windows : 1;
    DBT_FAIL_IF(dbt_tensor_count(past) != slots * slot, call->error, DIBIT_BAD_INPUT,
                "past_state must have %lld elements, got %lld", (long long)(slots * slot),
                (long long)dbt_tensor_count(past));
    if (past->data) job->past = (const float *)past->data + (slots - 1) * slot;
    return DIBIT_OK;
}

/* One channel of one batch row: elements are `step` apart. */
typedef struct channel {
    const float *x, *past;
    int64_t step;
} channel;

/* v[i + state_length] */
static float value_at(const causal_job *job, const channel *c, int64_t i) {
    if (i >= 0) return c->x[i * c->step];
    return c->past ? c->past[(i + job->state_length) * c->step] : 0;
}

static void convolve(const causal_job *job, const channel *c, int64_t index, float *y) {
    const float *const w = job->weight + index * job->taps;
    const float bias = job->bias ? job->bias[index] : 0;
    for (int64_t t = 0; t < job->length; t++) {
        float sum = bias;
        for (int64_t j = 0; j < job->taps; j++) {
            sum += w[j] * value_at(job, c, t - job->state_length + j * job->dilation);
        }
        y[t * c->step] = job->silu ? sum * dbt_sigmoidf(sum) : sum;
    }
}

/* |silu'| <= 1.1; sigmoid and the product add at most 8 roundings. */
static void bound_channel(const causal_job *job, const channel *c, int64_t index, float *bound) {
    const float *const w = job->weight + index * job->taps;
    const float bias = job->bias ? fabsf(job->bias[index]) : 0;
    for (int64_t t = 0; t < job->length; t++) {
        float sum = bias;
        for (int64_t j = 0; j < job->taps; j++) {
            sum += fabsf(w[j] * value_at(job, c, t - job->state_length + j * job->dilation));
        }
        bound[t * c->step] = sum * HALF_EPS * (float)(job->taps + 1) * (job->silu ? 1.1f : 1) +
                             (job->silu ? sum * HALF_EPS * 8 : 0);
    }
}

/* The state after `end` positions. Front to back, so that it may lie where the past does. */
static void store_state(const causal_job *job, const channel *c, int64_t end, float *state) {
    for (int64_t s = 0; s < job->state_length; s++) {
        state[s * c->step] = value_at(job, c, end - job->state_length + s);
    }
}

static void run_channel(const causal_job *job, int64_t unit) {
    const int64_t b = unit / job->channels, index = unit % job->channels;
    const int64_t step = job->channels_last ? job->channels : 1;
    const int64_t x_first =
        b * job->channels * job->length + index * (job->channels_last ? 1 : job->length);
    const int64_t slot = job->channels * job->state_length;
    const int64_t first = index * (job->channels_last ? 1 : job->state_length);
    channel c = {job->x + x_first, job->past ? job->past + b * slot + first : NULL, step};
    if (job->bound) {
        bound_channel(job, &c, index, job->bound + x_first);
        return;
    }
    if (job->y) convolve(job, &c, index, job->y + x_first);
    if (job->present && job->windows == 0) {
        store_state(job, &c, job->length, job->present + b * slot + first);
    }
    for (int64_t k = 0; job->present && k < job->windows; k++) {
        float *const state = job->present + (k * job->batch + b) * slot + first;
        const int64_t end = job->length - (job->windows - 1 - k);
        if (end > 0 || k == job->windows - 1) {
            store_state(job, &c, end, state);
        } else { /* this call has no such position */
            for (int64_t s = 0; s < job->state_length; s++) state[s * step] = 0;
        }
    }
}

static void run_task(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const causal_job *const job = ctx;
    const int64_t units = job->batch * job->channels;
    const int64_t end = dbt_task_begin(units, job->n_tasks, task + 1);
    for (int64_t u = dbt_task_begin(units, job->n_tasks, task); u < end; u++) run_channel(job, u);
}

dibit_status dbt_causal_conv_run(const dbt_cpu_call *call) {
    causal_job job;
    DBT_TRY(make_job(call, &job));
    const int64_t units = job.batch * job.channels;
    if (units > 0) {
        job.n_tasks = dbt_task_count(units, job.length * (job.taps * 3 + (job.silu ? 20 : 0)));
        dbt_parallel_for(call->pool, job.n_tasks, run_task, &job);
    }
    return DIBIT_OK;
}

dibit_status dbt_causal_conv_bound(const dbt_cpu_call *call, float *const *bound) {
    causal_job job;
    DBT_TRY(make_job(call, &job));
    job.bound = bound[0];
    for (int64_t u = 0; bound[0] && u < job.batch * job.channels; u++) run_channel(&job, u);
    if (call->n_outputs > 1 && bound[1]) { /* copied, not computed */
        memset(bound[1], 0, (size_t)dbt_tensor_count(call->out[1]) * sizeof(float));
    }
    return DIBIT_OK;
}

/* ---- On a device ----------------------------------------------------------------------------- */

/* struct Uniforms of causal_conv.wgsl */
typedef struct causal_uniforms {
    uint32_t count, batch, channels, length, taps, dilation, state_length, windows, past_at;
    uint32_t channels_last;
} causal_uniforms;

/* Records one of the outputs: y, or the state. */
static dibit_status record_output(const dbt_gpu_call *call, const causal_job *job, bool state) {
    const int64_t count = dbt_tensor_count(call->out[state]);
    if (count == 0) return DIBIT_OK;
    const int64_t slots = job->windows > 0 ? job->windows : 1;
    const causal_uniforms uniforms = {
        .count = (uint32_t)count,
        .batch = (uint32_t)job->batch,
        .channels = (uint32_t)job->channels,
        .length = (uint32_t)job->length,
        .taps = (uint32_t)job->taps,
        .dilation = (uint32_t)job->dilation,
        .state_length = (uint32_t)job->state_length,
        .windows = (uint32_t)slots,
        .past_at = (uint32_t)((slots - 1) * job->batch * job->channels * job->state_length),
        .channels_last = job->channels_last};
    dbt_hal_buffer *x = call->in_buffers[INPUT];
    DBT_TRY(dbt_gpu_bindable(call, &x));
    dbt_hal_buffer *const past = call->n_inputs > PAST ? call->in_buffers[PAST] : NULL;
    dbt_hal_buffer *const bias = call->n_inputs > BIAS && !state ? call->in_buffers[BIAS] : NULL;
    const dbt_shader_param params[4] = {{"STATE", state},
                                        {"PAST", past != NULL},
                                        {"BIAS", bias != NULL},
                                        {"SILU", job->silu && !state}};
    const dbt_hal_binding bindings[5] = {{.buffer = x},
                                         {.buffer = past},
                                         {.buffer = state ? NULL : call->in_buffers[WEIGHT]},
                                         {.buffer = bias},
                                         {.buffer = call->out_buffers[state]}};
    dbt_gpu_dispatch dispatch = {.shader = "causal_conv.wgsl",
                                 .params = params,
                                 .n_params = 4,
                                 .bindings = bindings,
                                 .n_bindings = 5,
                                 .written = 1 << 4,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, count);
}

dibit_status dbt_causal_conv_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    causal_job job;
    DBT_TRY(make_job(&shapes, &job));
    if (call->out[0]) DBT_TRY(record_output(call, &job, false));
    if (call->n_outputs > 1 && call->out[1]) DBT_TRY(record_output(call, &job, true));
    return DIBIT_OK;
}

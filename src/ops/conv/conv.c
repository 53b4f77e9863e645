/* Conv: y[n, m, o...] = bias[m] + sum over c, k... of w[m, c, k...] * x[n, group's c, i...],
 * i = o * stride - pad + k * dilation along every spatial axis.
 *
 * Plain but not silly: for every output row along the last axis and every tap, one loop over the
 * positions at which the tap hits the input. */
#include "ops/conv/conv.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { SPATIAL = DIBIT_MAX_RANK - 2 };

/* ints[axis], or `otherwise` where the attribute is absent */
static int64_t attr_at(dbt_attr_ints ints, int32_t axis, int64_t otherwise) {
    return ints.v ? ints.v[axis] : otherwise;
}

static dibit_status check_ints(const dbt_infer *infer, dbt_attr_ints ints, const char *name,
                               int32_t n, int64_t lowest) {
    if (!ints.v) return DIBIT_OK;
    DBT_FAIL_IF(ints.n != (uint32_t)n, infer->error, DIBIT_BAD_FILE,
                "attribute '%s' must have %d elements, got %u", name, (int)n, (unsigned)ints.n);
    for (int32_t i = 0; i < n; i++) {
        DBT_FAIL_IF(ints.v[i] < lowest || ints.v[i] > INT32_MAX, infer->error, DIBIT_BAD_FILE,
                    "attribute '%s' has the element %lld, which makes no sense", name,
                    (long long)ints.v[i]);
    }
    return DIBIT_OK;
}

static bool pads_same(const dbt_conv_attrs *a) { return strncmp(a->auto_pad, "SAME_", 5) == 0; }

static dibit_status check_attrs(const dbt_infer *infer, int32_t spatial) {
    const dbt_conv_attrs *const a = infer->attrs;
    DBT_TRY(check_ints(infer, a->dilations, "dilations", spatial, 1));
    DBT_TRY(check_ints(infer, a->strides, "strides", spatial, 1));
    DBT_TRY(check_ints(infer, a->pads, "pads", 2 * spatial, 0));
    DBT_TRY(check_ints(infer, a->kernel_shape, "kernel_shape", spatial, 1));
    static const char *const known[] = {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"};
    bool ok = false;
    for (size_t i = 0; i < 4; i++) ok = ok || strcmp(a->auto_pad, known[i]) == 0;
    DBT_FAIL_IF(!ok, infer->error, DIBIT_BAD_FILE,
                "attribute 'auto_pad' must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, got '%s'",
                a->auto_pad);
    DBT_FAIL_IF(a->group < 1 || a->group > INT32_MAX, infer->error, DIBIT_BAD_FILE,
                "attribute 'group' must be at least 1, got %lld", (long long)a->group);
    return DIBIT_OK;
}

dibit_status dbt_conv_infer(dbt_infer *infer) {
    const dbt_conv_attrs *const a = infer->attrs;
    dbt_dims *const dims = infer->dims;
    for (uint32_t i = 0; i < infer->n_inputs; i++) {
        DBT_TRY(dbt_infer_type(infer, i, DBT_TYPES_FLOAT));
    }
    DBT_TRY(dbt_infer_rank(infer, 0, 3, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape;
    const int32_t spatial = x->rank - 2;
    DBT_TRY(dbt_infer_rank(infer, 1, x->rank, x->rank));
    DBT_TRY(dbt_infer_rank(infer, 2, 1, 1));
    DBT_TRY(check_attrs(infer, spatial));
    const dbt_shape *const w = &infer->in[1]->shape;
    DBT_TRY(dbt_infer_dim(infer, 2, 0, w->dims[0]));
    dbt_shape y = {.rank = x->rank, .dims = {x->dims[0], w->dims[0]}};
    const bool explicit_pads = strcmp(a->auto_pad, "NOTSET") == 0;
    for (int32_t i = 0; i < spatial; i++) {
        const dbt_dim stride = dbt_dim_const(dims, attr_at(a->strides, i, 1));
        if (pads_same(a)) {
            y.dims[i + 2] = dbt_dim_apply(dims, DBT_DIM_CEIL_DIV, x->dims[i + 2], stride);
            continue;
        }
        if (a->kernel_shape.v) {
            DBT_TRY(dbt_infer_dim(infer, 1, i + 2, dbt_dim_const(dims, a->kernel_shape.v[i])));
        }
        /* (x + pads - (kernel - 1) * dilation - 1) / stride + 1 */
        const int64_t pads =
            explicit_pads ? attr_at(a->pads, i, 0) + attr_at(a->pads, i + spatial, 0) : 0;
        const dbt_dim dilation = dbt_dim_const(dims, attr_at(a->dilations, i, 1));
        const dbt_dim reach = dbt_dim_apply(
            dims, DBT_DIM_MUL,
            dbt_dim_apply(dims, DBT_DIM_SUB, w->dims[i + 2], dbt_dim_const(dims, 1)), dilation);
        dbt_dim d = dbt_dim_apply(dims, DBT_DIM_ADD, x->dims[i + 2], dbt_dim_const(dims, pads - 1));
        d = dbt_dim_apply(dims, DBT_DIM_SUB, d, reach);
        int64_t last;
        DBT_FAIL_IF(dbt_dim_is_const(dims, d, &last) && last < 0, infer->error, DIBIT_BAD_FILE,
                    "the kernel is larger than the padded input along axis %d", (int)(i + 2));
        d = dbt_dim_apply(dims, DBT_DIM_DIV, d, stride);
        y.dims[i + 2] = dbt_dim_apply(dims, DBT_DIM_ADD, d, dbt_dim_const(dims, 1));
    }
    dbt_infer_output(infer, 0, infer->in[0]->type, &y);
    return DIBIT_OK;
}

typedef struct conv_job {
    const float *x, *w, *bias;
    float *y;
    bool magnitudes; /* sums |w * x| and |bias| instead */
    int32_t spatial;
    int64_t in[SPATIAL], out[SPATIAL], kernel[SPATIAL], stride[SPATIAL], dilation[SPATIAL],
        pad[SPATIAL];
    int64_t channels, filters, per_group; /* channels that a filter sees */
    int64_t in_size, out_size, taps;      /* products of in, out, kernel */
    int64_t rows, n_tasks;                /* output rows along the last axis */
    int64_t filters_per_group;
} conv_job;

static dibit_status make_axes(const dbt_cpu_call *call, conv_job *job) {
    const dbt_conv_attrs *const a = call->attrs;
    job->in_size = job->out_size = job->taps = 1;
    for (int32_t i = 0; i < job->spatial; i++) {
        job->in[i] = call->in[0]->dims[i + 2];
        job->out[i] = call->out[0]->dims[i + 2];
        job->kernel[i] = call->in[1]->dims[i + 2];
        job->stride[i] = attr_at(a->strides, i, 1);
        job->dilation[i] = attr_at(a->dilations, i, 1);
        const int64_t reach = (job->kernel[i] - 1) * job->dilation[i];
        int64_t end;
        if (pads_same(a)) {
            int64_t pads = (job->out[i] - 1) * job->stride[i] + reach + 1 - job->in[i];
            if (pads < 0) pads = 0;
            job->pad[i] = strcmp(a->auto_pad, "SAME_UPPER") == 0 ? pads / 2 : pads - pads / 2;
            end = pads - job->pad[i];
        } else {
            const bool given = strcmp(a->auto_pad, "NOTSET") == 0;
            job->pad[i] = given ? attr_at(a->pads, i, 0) : 0;
            end = given ? attr_at(a->pads, i + job->spatial, 0) : 0;
        }
        DBT_FAIL_IF(job->kernel[i] < 1 ||
                        (a->kernel_shape.v && a->kernel_shape.v[i] != job->kernel[i]),
                    call->error, DIBIT_BAD_INPUT, "the weight does not have the kernel's shape");
        DBT_FAIL_IF(job->in[i] + job->pad[i] + end < reach + 1, call->error, DIBIT_BAD_INPUT,
                    "the kernel is larger than the padded input along axis %d", (int)(i + 2));
        job->in_size *= job->in[i];
        job->out_size *= job->out[i];
        job->taps *= job->kernel[i];
    }
    return DIBIT_OK;
}

static dibit_status make_job(const dbt_cpu_call *call, conv_job *job) {
    const dbt_conv_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const w = call->in[1];
    const dibit_tensor *const bias = call->n_inputs > 2 ? call->in[2] : NULL;
    *job = (conv_job){.x = x->data,
                      .w = w->data,
                      .bias = bias ? bias->data : NULL,
                      .spatial = x->rank - 2,
                      .channels = x->dims[1],
                      .filters = w->dims[0],
                      .per_group = w->dims[1]};
    DBT_FAIL_IF(job->channels != job->per_group * a->group || job->filters % a->group != 0,
                call->error, DIBIT_BAD_INPUT,
                "%lld channels and a weight for %lld do not fit %lld groups of filters",
                (long long)job->channels, (long long)job->per_group, (long long)a->group);
    job->filters_per_group = job->filters / a->group;
    DBT_FAIL_IF(bias && bias->dims[0] != job->filters, call->error, DIBIT_BAD_INPUT,
                "the bias must have %lld elements", (long long)job->filters);
    DBT_TRY(make_axes(call, job));
    const int64_t width = job->out[job->spatial - 1];
    job->rows = width > 0 ? dbt_tensor_count(call->out[0]) / width : 0;
    job->n_tasks = dbt_task_count(job->rows, width * job->per_group * job->taps);
    return DIBIT_OK;
}

/* y[o] += w * x[o * stride + first] where that lies inside [0, n). */
static void add_tap(const conv_job *job, const float *x, int64_t first, float w, float *y) {
    const int32_t last = job->spatial - 1;
    const int64_t n = job->in[last], stride = job->stride[last];
    const int64_t begin = first < 0 ? (-first + stride - 1) / stride : 0;
    const int64_t hits = first < n ? (n - 1 - first) / stride + 1 : 0;
    const int64_t end = hits < job->out[last] ? hits : job->out[last];
    if (job->magnitudes) {
        for (int64_t o = begin; o < end; o++) y[o] += fabsf(w * x[o * stride + first]);
    } else {
        for (int64_t o = begin; o < end; o++) y[o] += w * x[o * stride + first];
    }
}

static void run_row(const conv_job *job, int64_t row) {
    const int32_t last = job->spatial - 1;
    const int64_t width = job->out[last], per_map = job->out_size / width;
    const int64_t map = row / per_map, n = map / job->filters, m = map % job->filters;
    int64_t at[SPATIAL] = {0}; /* the row's output coordinates, but the last */
    for (int64_t i = last - 1, left = row % per_map; i >= 0; i--) {
        at[i] = left % job->out[i];
        left /= job->out[i];
    }
    float *const y = job->y + row * width;
    const float bias = job->bias ? job->bias[m] : 0;
    for (int64_t o = 0; o < width; o++) y[o] = job->magnitudes ? fabsf(bias) : bias;
    for (int64_t c = 0; c < job->per_group; c++) {
        const int64_t channel = m / job->filters_per_group * job->per_group + c;
        const float *const x = job->x + (n * job->channels + channel) * job->in_size;
        const float *const w = job->w + (m * job->per_group + c) * job->taps;
        for (int64_t tap = 0; tap < job->taps; tap++) {
            int64_t left = tap / job->kernel[last], offset = 0, stride = job->in[last];
            bool inside = true;
            for (int32_t i = last - 1; i >= 0; i--) {
                const int64_t k = left % job->kernel[i];
                const int64_t p = at[i] * job->stride[i] - job->pad[i] + k * job->dilation[i];
                left /= job->kernel[i];
                inside = inside && p >= 0 && p < job->in[i];
                offset += p * stride;
                stride *= job->in[i];
            }
            const int64_t first = tap % job->kernel[last] * job->dilation[last] - job->pad[last];
            if (inside) add_tap(job, x + offset, first, w[tap], y);
        }
    }
}

static void run_task(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const conv_job *const job = ctx;
    const int64_t end = dbt_task_begin(job->rows, job->n_tasks, task + 1);
    for (int64_t r = dbt_task_begin(job->rows, job->n_tasks, task); r < end; r++) run_row(job, r);
}

dibit_status dbt_conv_run(const dbt_cpu_call *call) {
    conv_job job;
    DBT_TRY(make_job(call, &job));
    job.y = call->out[0]->data;
    if (job.rows > 0) dbt_parallel_for(call->pool, job.n_tasks, run_task, &job);
    return DIBIT_OK;
}

dibit_status dbt_conv_bound(const dbt_cpu_call *call, float *const *bound) {
    conv_job job;
    DBT_TRY(make_job(call, &job));
    job.y = bound[0];
    job.magnitudes = true;
    if (job.rows > 0) dbt_parallel_for(call->pool, job.n_tasks, run_task, &job);
    const float gamma = (float)(job.per_group * job.taps + 1) * (FLT_EPSILON / 2);
    for (int64_t i = 0; i < dbt_tensor_count(call->out[0]); i++) bound[0][i] *= gamma;
    return DIBIT_OK;
}

/* ---- On a device ----------------------------------------------------------------------------- */

enum { DEVICE_SPATIAL = 3 };

/* struct Uniforms of conv.wgsl */
typedef struct conv_uniforms {
    uint32_t count, channels, filters, per_group, filters_per_group, unused[3];
    uint32_t in[4], out[4], kernel[4], stride[4], dilation[4], pad[4]; /* vec3 */
} conv_uniforms;

const char *dbt_conv_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    return node->inputs[0]->shape.rank > DEVICE_SPATIAL + 2 ? "a convolution over more than 3 axes"
                                                            : NULL;
}

dibit_status dbt_conv_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    conv_job job;
    DBT_TRY(make_job(&shapes, &job));
    const int64_t count = dbt_tensor_count(call->out[0]);
    if (count == 0) return DIBIT_OK;
    conv_uniforms uniforms = {.count = (uint32_t)count,
                              .channels = (uint32_t)job.channels,
                              .filters = (uint32_t)job.filters,
                              .per_group = (uint32_t)job.per_group,
                              .filters_per_group = (uint32_t)job.filters_per_group};
    for (int32_t d = 0; d < DEVICE_SPATIAL; d++) {
        const int32_t i = d - (DEVICE_SPATIAL - job.spatial);
        uniforms.in[d] = i < 0 ? 1 : (uint32_t)job.in[i];
        uniforms.out[d] = i < 0 ? 1 : (uint32_t)job.out[i];
        uniforms.kernel[d] = i < 0 ? 1 : (uint32_t)job.kernel[i];
        uniforms.stride[d] = i < 0 ? 1 : (uint32_t)job.stride[i];
        uniforms.dilation[d] = i < 0 ? 1 : (uint32_t)job.dilation[i];
        uniforms.pad[d] = i < 0 ? 0 : (uint32_t)job.pad[i];
    }
    dbt_hal_buffer *x = call->in_buffers[0], *w = call->in_buffers[1];
    DBT_TRY(dbt_gpu_bindable(call, &x));
    DBT_TRY(dbt_gpu_bindable(call, &w));
    dbt_hal_buffer *const bias = call->n_inputs > 2 ? call->in_buffers[2] : NULL;
    const dbt_shader_param params[1] = {{"BIAS", bias != NULL}};
    const dbt_hal_binding bindings[4] = {
        {.buffer = x}, {.buffer = w}, {.buffer = bias}, {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "conv.wgsl",
                                 .params = params,
                                 .n_params = 1,
                                 .bindings = bindings,
                                 .n_bindings = 4,
                                 .written = 1 << 3,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, count);
}

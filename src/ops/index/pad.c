/* Pad: a frame around a tensor, constant or made from its own elements; negative pads crop. */
#include "ops/index/index.h"

typedef enum pad_mode { CONSTANT, REFLECT, EDGE, WRAP } pad_mode;

static dibit_status parse_mode(const char *name, pad_mode *out, dibit_error *error) {
    static const char *const names[] = {"constant", "reflect", "edge", "wrap"};
    for (int i = CONSTANT; i <= WRAP; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (pad_mode)i;
            return DIBIT_OK;
        }
    }
    return dbt_fail(error, DIBIT_BAD_FILE,
                    "attribute 'mode' must be constant, reflect, edge or wrap, got '%s'", name);
}

/* Pads as dims, two per axis of the input: *known false when the input or the axes are not. */
static dibit_status infer_pads(const dbt_infer *infer, dbt_dim before[DIBIT_MAX_RANK],
                               dbt_dim after[DIBIT_MAX_RANK], bool *known) {
    const dbt_pad_attrs *const a = infer->attrs;
    dbt_dims *const dims = infer->dims;
    const int32_t rank = infer->in[0]->shape.rank;
    const bool attr_form = infer->n_inputs == 1;
    int64_t n = a->pads.n, axes[DIBIT_MAX_RANK];
    uint32_t n_axes = (uint32_t)rank;
    *known = true;
    for (int32_t i = 0; i < rank; i++) {
        axes[i] = i;
        before[i] = after[i] = dbt_dim_const(dims, 0);
    }
    if (!attr_form) DBT_TRY(dbt_infer_list_length(infer, 1, 2 * DIBIT_MAX_RANK, &n));
    if (infer->n_inputs > 3 && infer->in[3]) {
        DBT_TRY(dbt_infer_type(infer, 3, DBT_TYPES_INDEX));
        DBT_TRY(dbt_infer_constants(infer, 3, DIBIT_MAX_RANK, axes, &n_axes, known));
    }
    if (n < 0 || !*known || (!attr_form && !infer->in[1]->contents)) {
        *known = false;
        return DIBIT_OK;
    }
    DBT_FAIL_IF(n != 2 * (int64_t)n_axes, infer->error, DIBIT_BAD_FILE, "%lld pads for %u axes",
                (long long)n, (unsigned)n_axes);
    for (uint32_t k = 0; k < n_axes; k++) {
        int32_t axis;
        DBT_TRY(dbt_infer_axis(infer, axes[k], rank, "axis", &axis));
        before[axis] = attr_form ? dbt_dim_const(dims, a->pads.v[k]) : infer->in[1]->contents[k];
        after[axis] = attr_form ? dbt_dim_const(dims, a->pads.v[k + n_axes])
                                : infer->in[1]->contents[k + n_axes];
    }
    return DIBIT_OK;
}

dibit_status dbt_pad_infer(dbt_infer *infer) {
    const dbt_pad_attrs *const a = infer->attrs;
    dbt_dims *const dims = infer->dims;
    pad_mode mode = CONSTANT;
    DBT_TRY(parse_mode(a->mode, &mode, infer->error));
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    if (infer->n_inputs > 2) DBT_TRY(dbt_infer_same_type(infer, 0, 2));
    DBT_FAIL_IF(infer->n_inputs == 1 && !a->pads.v, infer->error, DIBIT_BAD_FILE,
                "pads are missing");
    const dbt_shape *const x = &infer->in[0]->shape;
    dbt_dim before[DIBIT_MAX_RANK], after[DIBIT_MAX_RANK];
    bool known;
    DBT_TRY(infer_pads(infer, before, after, &known));
    dbt_shape y = {.rank = x->rank};
    for (int32_t i = 0; i < x->rank; i++) {
        if (!known) {
            y.dims[i] = dbt_infer_fresh(infer);
            continue;
        }
        int64_t b, e;
        DBT_FAIL_IF((dbt_dim_is_const(dims, before[i], &b) &&
                     (b > DBT_MAX_ELEMENTS || b < -DBT_MAX_ELEMENTS)) ||
                        (dbt_dim_is_const(dims, after[i], &e) &&
                         (e > DBT_MAX_ELEMENTS || e < -DBT_MAX_ELEMENTS)),
                    infer->error, DIBIT_TOO_LARGE, "the pads of axis %d", (int)i);
        y.dims[i] = dbt_dim_apply(dims, DBT_DIM_ADD, x->dims[i], before[i]);
        y.dims[i] = dbt_dim_apply(dims, DBT_DIM_ADD, y.dims[i], after[i]);
    }
    DBT_TRY(dbt_infer_sized(infer, 0, infer->in[0]->type, &y));
    const bool has_value = infer->n_inputs > 2 && infer->in[2];
    return mode != CONSTANT || has_value ? dbt_infer_moved_contents(infer, 1 | 4, dbt_pad_run)
                                         : DIBIT_OK;
}

/* Along one axis, output i shows input low + map(i - before), where the input that is left after
 * cropping is [low, low + length). */
typedef struct pad_axis {
    int64_t before, low, length;
} pad_axis;

static dibit_status read_pads(const dbt_cpu_call *call, pad_axis *axes) {
    const dbt_pad_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0];
    int64_t pads[2 * DIBIT_MAX_RANK], which[DIBIT_MAX_RANK], n, n_axes = x->rank,
                                                                dims[DIBIT_MAX_RANK];
    for (int32_t i = 0; i < x->rank; i++) {
        which[i] = i;
        axes[i] = (pad_axis){.length = x->dims[i]};
        dims[i] = x->dims[i];
    }
    if (call->n_inputs == 1) {
        n = a->pads.n;
        for (uint32_t i = 0; i < a->pads.n; i++) pads[i] = a->pads.v[i];
    } else {
        DBT_TRY(dbt_read_list(call, 1, 2 * DIBIT_MAX_RANK, pads, &n));
    }
    if (call->n_inputs > 3 && call->in[3]) {
        DBT_TRY(dbt_read_list(call, 3, DIBIT_MAX_RANK, which, &n_axes));
    }
    DBT_FAIL_IF(n != 2 * n_axes, call->error, DIBIT_BAD_INPUT, "%lld pads for %lld axes",
                (long long)n, (long long)n_axes);
    for (int64_t k = 0; k < n_axes; k++) {
        const int64_t i = which[k] < 0 ? which[k] + x->rank : which[k];
        const int64_t b = pads[k], e = pads[k + n_axes], limit = DBT_MAX_ELEMENTS;
        DBT_FAIL_IF(i < 0 || i >= x->rank || b > limit || b < -limit || e > limit || e < -limit,
                    call->error, DIBIT_BAD_INPUT, "pads %lld and %lld of axis %lld do not fit",
                    (long long)b, (long long)e, (long long)which[k]);
        dims[i] = x->dims[i] + b + e;
        axes[i].before = b > 0 ? b : 0;
        axes[i].low = b < 0 ? -b : 0;
        axes[i].length = x->dims[i] + (b < 0 ? b : 0) + (e < 0 ? e : 0);
        if (axes[i].length < 0) axes[i].length = 0;
    }
    return dbt_expect_dims(call, 0, x->rank, dims);
}

/* The input index that output i shows, or -1: the constant. */
static int64_t mapped(const pad_axis *axis, pad_mode mode, int64_t i) {
    const int64_t n = axis->length, period = 2 * (n - 1);
    i -= axis->before;
    if (i < 0 || i >= n) {
        switch (mode) {
        case CONSTANT: return -1;
        case EDGE: i = i < 0 ? 0 : n - 1; break;
        case WRAP: i = (i % n + n) % n; break;
        case REFLECT:
            i = n == 1 ? 0 : (i % period + period) % period;
            if (i >= n) i = period - i;
            break;
        }
    }
    return axis->low + i;
}

typedef struct pad_job {
    const dibit_tensor *x, *y;
    pad_axis axes[DIBIT_MAX_RANK];
    int64_t stride[DIBIT_MAX_RANK];
    char value[8];
    pad_mode mode;
    int64_t n_rows, n_tasks;
} pad_job;

static void pad_row(const pad_job *job, int64_t row, int64_t from) {
    const int32_t last = job->x->rank - 1;
    const pad_axis *const axis = &job->axes[last];
    const uint32_t bytes = dbt_element_bytes(job->y);
    const int64_t n = job->y->dims[last], inside_end = axis->before + axis->length;
    char *const dst = dbt_element(job->y, row * n);
    for (int64_t i = 0; i < n; i++) {
        if (from >= 0 && i == axis->before && axis->length > 0) {
            memcpy(dst + i * bytes, dbt_element(job->x, from + axis->low),
                   (size_t)axis->length * bytes);
            i = inside_end - 1;
            continue;
        }
        const int64_t at = from < 0 ? -1 : mapped(axis, job->mode, i);
        memcpy(dst + i * bytes, at < 0 ? job->value : dbt_element(job->x, from + at), bytes);
    }
}

static void pad_rows(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const pad_job *const job = ctx;
    const int32_t last = job->x->rank - 1;
    const int64_t end = dbt_task_begin(job->n_rows, job->n_tasks, task + 1);
    for (int64_t row = dbt_task_begin(job->n_rows, job->n_tasks, task); row < end; row++) {
        int64_t from = 0, rest = row;
        for (int32_t k = last; k-- > 0;) {
            const int64_t at = mapped(&job->axes[k], job->mode, rest % job->y->dims[k]);
            rest /= job->y->dims[k];
            from = at < 0 || from < 0 ? -1 : from + at * job->stride[k];
        }
        pad_row(job, row, from);
    }
}

/* What both sides need to know; axes has room for the input's rank. */
static dibit_status pad_layout(const dbt_cpu_call *call, pad_mode *mode, pad_axis *axes) {
    const dbt_pad_attrs *const a = call->attrs;
    DBT_TRY(parse_mode(a->mode, mode, call->error));
    DBT_TRY(read_pads(call, axes));
    if (dbt_tensor_count(call->out[0]) == 0) return DIBIT_OK;
    for (int32_t i = 0; i < call->in[0]->rank; i++) {
        DBT_FAIL_IF(*mode != CONSTANT && axes[i].length == 0, call->error, DIBIT_BAD_INPUT,
                    "nothing is left of axis %d to pad with", (int)i);
    }
    return DIBIT_OK;
}

dibit_status dbt_pad_run(const dbt_cpu_call *call) {
    const dbt_pad_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const y = call->out[0];
    pad_job job = {.x = x, .y = y};
    DBT_TRY(pad_layout(call, &job.mode, job.axes));
    if (dbt_tensor_count(y) == 0) return DIBIT_OK;
    if (x->rank == 0) return dbt_cpu_view(call);
    if (call->n_inputs > 2 && call->in[2] && dbt_tensor_count(call->in[2]) == 1) {
        memcpy(job.value, call->in[2]->data, dbt_element_bytes(y));
    } else if (call->n_inputs == 1 && y->type == DIBIT_TYPE_FLOAT) {
        memcpy(job.value, &a->value, sizeof a->value);
    }
    dbt_dense_strides(x->rank, x->dims, job.stride);
    const int64_t row = y->dims[x->rank - 1];
    job.n_rows = dbt_tensor_count(y) / row;
    job.n_tasks = dbt_task_count(job.n_rows, row);
    dbt_parallel_for(call->pool, job.n_tasks, pad_rows, &job);
    return DIBIT_OK;
}

/* ---- On a device ----------------------------------------------------------------------------- */

/* struct Uniforms of pad.wgsl */
typedef struct pad_uniforms {
    uint32_t count, rank;
    float value;
    uint32_t unused;
    uint32_t dims[DIBIT_MAX_RANK], strides[DIBIT_MAX_RANK];
    int32_t before[DIBIT_MAX_RANK], low[DIBIT_MAX_RANK], length[DIBIT_MAX_RANK];
} pad_uniforms;

dibit_status dbt_pad_encode(const dbt_gpu_call *call) {
    const dbt_pad_attrs *const a = call->attrs;
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    const dibit_tensor *const x = call->in[0], *const y = call->out[0];
    pad_mode mode = CONSTANT;
    pad_axis axes[DIBIT_MAX_RANK];
    DBT_TRY(pad_layout(&shapes, &mode, axes));
    const int64_t count = dbt_tensor_count(y);
    if (count == 0) return DIBIT_OK;
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(x->rank, x->dims, stride);
    /* An attribute's value is a float's; integers are padded with 0. */
    const bool own = call->n_inputs == 1 && y->type == DIBIT_TYPE_FLOAT;
    pad_uniforms uniforms = {
        .count = (uint32_t)count, .rank = (uint32_t)x->rank, .value = own ? a->value : 0};
    for (int32_t d = 0; d < x->rank; d++) {
        const int32_t i = x->rank - 1 - d;
        uniforms.dims[d] = (uint32_t)y->dims[i];
        uniforms.strides[d] = (uint32_t)stride[i];
        uniforms.before[d] = (int32_t)axes[i].before;
        uniforms.low[d] = (int32_t)axes[i].low;
        uniforms.length[d] = (int32_t)axes[i].length;
    }
    dbt_hal_buffer *const value =
        mode == CONSTANT && call->n_inputs > 2 ? call->in_buffers[2] : NULL;
    dbt_hal_buffer *from = call->in_buffers[0];
    DBT_TRY(dbt_gpu_bindable(call, &from));
    const dbt_shader_param params[2] = {{"MODE", (int32_t)mode}, {"VALUE", value != NULL}};
    const dbt_hal_binding bindings[3] = {
        {.buffer = from}, {.buffer = call->out_buffers[0]}, {.buffer = value}};
    dbt_gpu_dispatch dispatch = {.shader = "pad.wgsl",
                                 .params = params,
                                 .n_params = 2,
                                 .bindings = bindings,
                                 .n_bindings = value ? 3 : 2,
                                 .written = 1 << 1,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, count);
}

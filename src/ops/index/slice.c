/* Slice: numpy's basic slicing, with bounds from attributes (up to opset 9) or inputs. */
#include "ops/index/index.h"

/* Beyond any dim, and small enough that sums with dims do not overflow. */
#define BEYOND ((int64_t)1 << 48)

static int64_t clamped(int64_t v) { return v > BEYOND ? BEYOND : v < -BEYOND ? -BEYOND : v; }

/* The range along an axis of `size` that start, end and step select. */
static void resolve(int64_t start, int64_t end, int64_t step, int64_t size, int64_t *first,
                    int64_t *count) {
    start = clamped(start);
    end = clamped(end);
    if (start < 0) start += size;
    if (end < 0) end += size;
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
    start = start < 0 ? 0 : start;
    start = start > high ? high : start; /* -1 when nothing is there to walk backwards */
    end = end < low ? low : end > high ? high : end;
    const uint64_t stride = step > 0 ? (uint64_t)step : 0u - (uint64_t)step;
    const int64_t span = step > 0 ? end - start : start - end;
    *first = start;
    *count = span <= 0 ? 0 : (int64_t)(((uint64_t)span - 1) / stride) + 1;
}

/* ---- Inferring ------------------------------------------------------------------------------- */

/* A bound moved into [low, high]: negative ones count from the end. */
static dbt_dim bound(const dbt_infer *infer, dbt_dim v, dbt_dim size, int64_t low, dbt_dim high) {
    dbt_dims *const dims = infer->dims;
    const dbt_dim zero = dbt_dim_const(dims, 0), lowest = dbt_dim_const(dims, low);
    int64_t constant;
    if (dbt_dim_is_const(dims, v, &constant)) {
        v = dbt_dim_const(dims, clamped(constant));
        if (constant >= BEYOND) return high;
        if (constant <= -BEYOND) return lowest;
        if (constant == 0 && high == size) return zero;
    }
    const dbt_dim from_end = dbt_dim_apply(dims, DBT_DIM_ADD, v, size);
    v = dbt_dim_select(dims, dbt_dim_apply(dims, DBT_DIM_LESS, v, zero), from_end, v);
    v = dbt_dim_apply(dims, DBT_DIM_MAX, v, lowest);
    return dbt_dim_apply(dims, DBT_DIM_MIN, v, high);
}

static dbt_dim sliced_dim(const dbt_infer *infer, dbt_dim start, dbt_dim end, int64_t step,
                          dbt_dim size) {
    dbt_dims *const dims = infer->dims;
    int64_t s, e, n;
    if (dbt_dim_is_const(dims, start, &s) && dbt_dim_is_const(dims, end, &e) &&
        dbt_dim_is_const(dims, size, &n)) {
        int64_t first, count;
        resolve(s, e, step, n, &first, &count);
        return dbt_dim_const(dims, count);
    }
    const dbt_dim high =
        step > 0 ? size : dbt_dim_apply(dims, DBT_DIM_SUB, size, dbt_dim_const(dims, 1));
    start = bound(infer, start, size, 0, high);
    end = bound(infer, end, size, step > 0 ? 0 : -1, high);
    const dbt_dim span = step > 0 ? dbt_dim_apply(dims, DBT_DIM_SUB, end, start)
                                  : dbt_dim_apply(dims, DBT_DIM_SUB, start, end);
    const dbt_dim stride = dbt_dim_const(dims, step > 0 ? step : step < -BEYOND ? BEYOND : -step);
    const dbt_dim count = dbt_dim_apply(dims, DBT_DIM_CEIL_DIV, span, stride);
    if (step > 0 && dbt_dim_is(dims, start, 0)) return count; /* end is not negative */
    return dbt_dim_apply(dims, DBT_DIM_MAX, count, dbt_dim_const(dims, 0));
}

/* starts, ends, axes or steps of either form, as dims: NULL when they are not known. */
static dibit_status bounds(const dbt_infer *infer, uint32_t i, const dbt_attr_ints *attr,
                           dbt_dim storage[DIBIT_MAX_RANK], const dbt_dim **list, int64_t *n) {
    *list = NULL;
    if (attr && attr->v) {
        DBT_FAIL_IF(attr->n > DIBIT_MAX_RANK, infer->error, DIBIT_BAD_FILE,
                    "attribute %u of starts, ends, axes has %u elements", (unsigned)i - 1,
                    (unsigned)attr->n);
        for (uint32_t k = 0; k < attr->n; k++) storage[k] = dbt_dim_const(infer->dims, attr->v[k]);
        *n = attr->n;
        *list = storage;
        return DIBIT_OK;
    }
    DBT_TRY(dbt_infer_list_length(infer, i, DIBIT_MAX_RANK, n));
    if (i < infer->n_inputs && infer->in[i] && *n >= 0) *list = infer->in[i]->contents;
    return DIBIT_OK;
}

/* Which axis each entry is for; *known false when the axes are not constants. */
static dibit_status slice_axes(const dbt_infer *infer, const dbt_dim *list, bool given, int64_t n,
                               int32_t rank, int32_t *axes, bool *known) {
    bool seen[DIBIT_MAX_RANK] = {false};
    *known = true;
    for (int64_t k = 0; k < n; k++) {
        int64_t axis = k;
        if (given && (!list || !dbt_dim_is_const(infer->dims, list[k], &axis))) {
            *known = false;
            return DIBIT_OK;
        }
        DBT_TRY(dbt_infer_axis(infer, axis, rank, "axis", &axes[k]));
        DBT_FAIL_IF(seen[axes[k]], infer->error, DIBIT_BAD_FILE, "axis %d is given twice",
                    (int)axes[k]);
        seen[axes[k]] = true;
    }
    return DIBIT_OK;
}

dibit_status dbt_slice_infer(dbt_infer *infer) {
    const dbt_slice_attrs *const a = infer->attrs;
    const bool attr_form = infer->n_inputs == 1;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape;
    const dbt_attr_ints *const attrs[4] = {&a->starts, &a->ends, &a->axes, NULL};
    dbt_dim storage[4][DIBIT_MAX_RANK];
    const dbt_dim *list[4];
    int64_t n[4];
    DBT_FAIL_IF(attr_form && (!a->starts.v || !a->ends.v), infer->error, DIBIT_BAD_FILE,
                "starts and ends are missing");
    for (uint32_t i = 0; i < 4; i++) {
        DBT_TRY(bounds(infer, i + 1, attr_form ? attrs[i] : NULL, storage[i], &list[i], &n[i]));
    }
    const bool has_axes = attr_form ? a->axes.v != NULL : infer->n_inputs > 3 && infer->in[3];
    const bool has_steps = !attr_form && infer->n_inputs > 4 && infer->in[4];
    dbt_shape y = *x;
    if (n[0] < 0 || n[1] < 0 || n[2] < 0 || n[3] < 0) {
        dbt_infer_fresh_shape(infer, x->rank, &y);
        dbt_infer_output(infer, 0, infer->in[0]->type, &y);
        return DIBIT_OK;
    }
    DBT_FAIL_IF(n[0] != n[1] || (has_axes && n[2] != n[0]) || (has_steps && n[3] != n[0]),
                infer->error, DIBIT_BAD_FILE, "starts, ends, axes and steps differ in length");
    DBT_FAIL_IF(n[0] > x->rank, infer->error, DIBIT_BAD_FILE, "%lld axes to slice, the rank is %d",
                (long long)n[0], (int)x->rank);
    int32_t axes[DIBIT_MAX_RANK];
    bool known;
    DBT_TRY(slice_axes(infer, list[2], has_axes, n[0], x->rank, axes, &known));
    if (!known) dbt_infer_fresh_shape(infer, x->rank, &y);
    for (int64_t k = 0; known && k < n[0]; k++) {
        int64_t step = 1;
        const bool step_known =
            !has_steps || (list[3] && dbt_dim_is_const(infer->dims, list[3][k], &step));
        DBT_FAIL_IF(step == 0, infer->error, DIBIT_BAD_FILE, "a step of 0");
        y.dims[axes[k]] = step_known && list[0] && list[1]
                              ? sliced_dim(infer, list[0][k], list[1][k], step, x->dims[axes[k]])
                              : dbt_infer_fresh(infer);
    }
    dbt_infer_output(infer, 0, infer->in[0]->type, &y);
    return dbt_infer_moved_contents(infer, 1, dbt_slice_run);
}

/* ---- Running --------------------------------------------------------------------------------- */

typedef struct slice_values {
    int64_t starts[DIBIT_MAX_RANK], ends[DIBIT_MAX_RANK], axes[DIBIT_MAX_RANK],
        steps[DIBIT_MAX_RANK];
    int64_t n;
} slice_values;

static dibit_status read_values(const dbt_cpu_call *call, slice_values *v) {
    const dbt_slice_attrs *const a = call->attrs;
    int64_t n_ends, n_axes = 0, n_steps = 0;
    if (call->n_inputs == 1) {
        v->n = a->starts.n;
        n_ends = a->ends.n;
        n_axes = a->axes.n;
        for (uint32_t k = 0; k < a->starts.n; k++) v->starts[k] = a->starts.v[k];
        for (uint32_t k = 0; k < a->ends.n; k++) v->ends[k] = a->ends.v[k];
        for (uint32_t k = 0; k < a->axes.n; k++) v->axes[k] = a->axes.v[k];
    } else {
        DBT_TRY(dbt_read_list(call, 1, DIBIT_MAX_RANK, v->starts, &v->n));
        DBT_TRY(dbt_read_list(call, 2, DIBIT_MAX_RANK, v->ends, &n_ends));
        DBT_TRY(dbt_read_list(call, 3, DIBIT_MAX_RANK, v->axes, &n_axes));
        DBT_TRY(dbt_read_list(call, 4, DIBIT_MAX_RANK, v->steps, &n_steps));
    }
    DBT_FAIL_IF(n_ends != v->n || (n_axes != 0 && n_axes != v->n) ||
                    (n_steps != 0 && n_steps != v->n) || v->n > call->in[0]->rank,
                call->error, DIBIT_BAD_INPUT, "starts, ends, axes and steps do not fit");
    for (int64_t k = 0; k < v->n; k++) {
        if (n_axes == 0) v->axes[k] = k;
        if (n_steps == 0) v->steps[k] = 1;
    }
    return DIBIT_OK;
}

dibit_status dbt_slice_plan(const dbt_cpu_call *call, dbt_strided *copy) {
    const dibit_tensor *const x = call->in[0];
    slice_values v;
    DBT_TRY(read_values(call, &v));
    copy->rank = x->rank;
    memcpy(copy->dims, x->dims, (size_t)x->rank * sizeof *x->dims);
    dbt_dense_strides(x->rank, x->dims, copy->src_stride);
    for (int64_t k = 0; k < v.n; k++) {
        const int64_t axis = v.axes[k] < 0 ? v.axes[k] + x->rank : v.axes[k];
        DBT_FAIL_IF(axis < 0 || axis >= x->rank || v.steps[k] == 0, call->error, DIBIT_BAD_INPUT,
                    "axis %lld with step %lld does not fit rank %d", (long long)v.axes[k],
                    (long long)v.steps[k], (int)x->rank);
        int64_t first;
        resolve(v.starts[k], v.ends[k], v.steps[k], x->dims[axis], &first, &copy->dims[axis]);
        if (copy->dims[axis] <= 1) v.steps[k] = 1; /* never walked; may be too large to multiply */
        copy->src_at += first * copy->src_stride[axis];
        copy->src_stride[axis] *= v.steps[k];
    }
    DBT_TRY(dbt_expect_dims(call, 0, x->rank, copy->dims));
    dbt_dense_strides(x->rank, copy->dims, copy->dst_stride);
    return DIBIT_OK;
}

dibit_status dbt_slice_run(const dbt_cpu_call *call) { return dbt_move_run(call, dbt_slice_plan); }

/* ScatterElements and ScatterND: a copy of the data with elements replaced, or combined with
 * updates, where indices say. Updates are applied in order: of equal indices the last wins. */
#include <math.h>

#include "ops/index/index.h"

typedef enum reduction { NONE, ADD, MUL, MIN, MAX } reduction;

static dibit_status parse_reduction(const char *name, reduction *out, dibit_error *error) {
    static const char *const names[] = {"none", "add", "mul", "min", "max"};
    for (int i = NONE; i <= MAX; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (reduction)i;
            return DIBIT_OK;
        }
    }
    return dbt_fail(error, DIBIT_BAD_FILE,
                    "attribute 'reduction' must be none, add, mul, min or max, got '%s'", name);
}

/* Integers wrap around. */
#define COMBINE(type, wide)                                                                        \
    {                                                                                              \
        type a, b, r;                                                                              \
        memcpy(&a, dst, sizeof a);                                                                 \
        memcpy(&b, src, sizeof b);                                                                 \
        switch (how) {                                                                             \
        case ADD: r = (type)((wide)a + (wide)b); break;                                            \
        case MUL: r = (type)((wide)a * (wide)b); break;                                            \
        case MIN: r = b < a ? b : a; break;                                                        \
        default: r = b > a ? b : a; break;                                                         \
        }                                                                                          \
        memcpy(dst, &r, sizeof r);                                                                 \
    }                                                                                              \
    break

static void combine_float(reduction how, char *dst, const char *src) {
    float a, b, r;
    memcpy(&a, dst, sizeof a);
    memcpy(&b, src, sizeof b);
    switch (how) {
    case ADD: r = a + b; break;
    case MUL: r = a * b; break;
    case MIN: r = isnan(b) || b < a ? b : a; break;
    default: r = isnan(b) || b > a ? b : a; break;
    }
    memcpy(dst, &r, sizeof r);
}

static void combine(dibit_type type, reduction how, char *dst, const char *src) {
    switch (type) {
    case DIBIT_TYPE_FLOAT: combine_float(how, dst, src); break;
    case DIBIT_TYPE_UINT8: COMBINE(uint8_t, uint64_t);
    case DIBIT_TYPE_INT8: COMBINE(int8_t, uint64_t);
    case DIBIT_TYPE_UINT16: COMBINE(uint16_t, uint64_t);
    case DIBIT_TYPE_INT16: COMBINE(int16_t, uint64_t);
    case DIBIT_TYPE_UINT32: COMBINE(uint32_t, uint64_t);
    case DIBIT_TYPE_INT32: COMBINE(int32_t, uint64_t);
    case DIBIT_TYPE_UINT64: COMBINE(uint64_t, uint64_t);
    default: COMBINE(int64_t, uint64_t);
    }
}

static void apply(const dibit_tensor *y, int64_t at, const dibit_tensor *updates, int64_t from,
                  int64_t n, reduction how) {
    if (how == NONE) {
        memcpy(dbt_element(y, at), dbt_element(updates, from), (size_t)n * dbt_element_bytes(y));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        combine(y->type, how, dbt_element(y, at + i), dbt_element(updates, from + i));
    }
}

static dibit_status check_types(dbt_infer *infer, const char *name) {
    reduction how = NONE;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_INDEX));
    DBT_TRY(dbt_infer_same_type(infer, 0, 2));
    DBT_FAIL_IF(infer->in[0]->type == DIBIT_TYPE_BOOL && strcmp(name, "none") != 0, infer->error,
                DIBIT_UNSUPPORTED, "reduction '%s' of bools", name);
    return parse_reduction(name, &how, infer->error);
}

/* ---- ScatterElements ------------------------------------------------------------------------- */

dibit_status dbt_scatter_elements_infer(dbt_infer *infer) {
    const dbt_axis_attrs *const a = infer->attrs;
    DBT_TRY(check_types(infer, a->reduction));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    const int32_t rank = infer->in[0]->shape.rank;
    DBT_TRY(dbt_infer_rank(infer, 1, rank, rank));
    DBT_TRY(dbt_infer_rank(infer, 2, rank, rank));
    int32_t axis;
    DBT_TRY(dbt_infer_axis(infer, a->axis, rank, "axis", &axis));
    for (int32_t i = 0; i < rank; i++) {
        DBT_TRY(dbt_infer_dim(infer, 2, i, infer->in[1]->shape.dims[i]));
    }
    DBT_TRY(dbt_infer_like_first(infer));
    if (strcmp(a->reduction, "none") != 0) return DIBIT_OK;
    return dbt_infer_moved_contents(infer, 1 | 4, dbt_scatter_elements_run);
}

static dibit_status check_elements(const dbt_cpu_call *call, int32_t *axis) {
    const dbt_axis_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    const dibit_tensor *const updates = call->in[2];
    *axis = (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    DBT_TRY(dbt_expect_dims(call, 0, x->rank, x->dims));
    for (int32_t i = 0; i < x->rank; i++) {
        DBT_FAIL_IF(
            indices->dims[i] != updates->dims[i] || (i != *axis && indices->dims[i] > x->dims[i]),
            call->error, DIBIT_BAD_INPUT,
            "dim %d of data, indices and updates does not fit: %lld, %lld, %lld", (int)i,
            (long long)x->dims[i], (long long)indices->dims[i], (long long)updates->dims[i]);
    }
    return DIBIT_OK;
}

dibit_status dbt_scatter_elements_run(const dbt_cpu_call *call) {
    const dbt_axis_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    const dibit_tensor *const updates = call->in[2];
    dibit_tensor *const y = call->out[0];
    const int32_t rank = x->rank;
    int32_t axis;
    reduction how = NONE;
    DBT_TRY(parse_reduction(a->reduction, &how, call->error));
    DBT_TRY(check_elements(call, &axis));
    DBT_TRY(dbt_check_indices(call, indices, x->dims[axis], axis));
    DBT_TRY(dbt_cpu_view(call));
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(rank, x->dims, stride);
    const int64_t n = dbt_tensor_count(indices);
    for (int64_t i = 0; i < n; i++) {
        int64_t index = dbt_index_at(indices, i), at = 0, rest = i;
        if (index < 0) index += x->dims[axis];
        for (int32_t k = rank; k-- > 0;) {
            at += (k == axis ? index : rest % indices->dims[k]) * stride[k];
            rest /= indices->dims[k];
        }
        apply(y, at, updates, i, 1, how);
    }
    return DIBIT_OK;
}

/* ---- ScatterND ------------------------------------------------------------------------------- */

dibit_status dbt_scatter_nd_infer(dbt_infer *infer) {
    const dbt_axis_attrs *const a = infer->attrs;
    DBT_TRY(check_types(infer, a->reduction));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(infer, 1, 1, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape, *const indices = &infer->in[1]->shape;
    const int32_t last = indices->rank - 1;
    int64_t depth;
    DBT_TRY(dbt_infer_like_first(infer));
    if (!dbt_dim_is_const(infer->dims, indices->dims[last], &depth)) return DIBIT_OK;
    DBT_FAIL_IF(depth < 0 || depth > x->rank, infer->error, DIBIT_BAD_FILE,
                "indices of %lld coordinates do not fit data of rank %d", (long long)depth,
                (int)x->rank);
    const int32_t rank = last + x->rank - (int32_t)depth;
    DBT_TRY(dbt_infer_rank(infer, 2, rank, rank));
    for (int32_t i = 0; i < rank; i++) {
        DBT_TRY(
            dbt_infer_dim(infer, 2, i, i < last ? indices->dims[i] : x->dims[i - last + depth]));
    }
    if (strcmp(a->reduction, "none") != 0) return DIBIT_OK;
    return dbt_infer_moved_contents(infer, 1 | 4, dbt_scatter_nd_run);
}

static dibit_status check_nd(const dbt_cpu_call *call, int32_t *coordinates) {
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    const dibit_tensor *const updates = call->in[2];
    const int32_t last = indices->rank - 1;
    const int32_t depth =
        indices->dims[last] > DIBIT_MAX_RANK ? DIBIT_MAX_RANK + 1 : (int32_t)indices->dims[last];
    *coordinates = depth;
    DBT_TRY(dbt_expect_dims(call, 0, x->rank, x->dims));
    DBT_FAIL_IF(depth > x->rank || updates->rank != last + x->rank - depth, call->error,
                DIBIT_BAD_INPUT, "indices of %d coordinates do not fit data of rank %d", (int)depth,
                (int)x->rank);
    for (int32_t i = 0; i < updates->rank; i++) {
        const int64_t want = i < last ? indices->dims[i] : x->dims[i - last + depth];
        DBT_FAIL_IF(updates->dims[i] != want, call->error, DIBIT_BAD_INPUT,
                    "dim %d of the updates must be %lld, got %lld", (int)i, (long long)want,
                    (long long)updates->dims[i]);
    }
    return DIBIT_OK;
}

dibit_status dbt_scatter_nd_run(const dbt_cpu_call *call) {
    const dbt_axis_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    const dibit_tensor *const updates = call->in[2];
    int32_t depth;
    reduction how = NONE;
    DBT_TRY(parse_reduction(a->reduction, &how, call->error));
    DBT_TRY(check_nd(call, &depth));
    const int64_t n = dbt_dims_product(indices->dims, 0, indices->rank - 1);
    for (int64_t row = 0; row < n; row++) {
        for (int32_t k = 0; k < depth; k++) {
            const int64_t index = dbt_index_at(indices, row * depth + k);
            DBT_FAIL_IF(index < -x->dims[k] || index >= x->dims[k], call->error, DIBIT_OUT_OF_RANGE,
                        "index %lld is out of range for axis %d of size %lld", (long long)index,
                        (int)k, (long long)x->dims[k]);
        }
    }
    DBT_TRY(dbt_cpu_view(call));
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(x->rank, x->dims, stride);
    const int64_t inner = dbt_dims_product(x->dims, depth, x->rank);
    for (int64_t row = 0; row < n && inner > 0; row++) {
        int64_t at = 0;
        for (int32_t k = 0; k < depth; k++) {
            const int64_t index = dbt_index_at(indices, row * depth + k);
            at += (index < 0 ? index + x->dims[k] : index) * stride[k];
        }
        apply(call->out[0], at, updates, row * inner, inner, how);
    }
    return DIBIT_OK;
}

/* ---- On a device ----------------------------------------------------------------------------- */

/* struct Uniforms of scatter.wgsl */
typedef struct scatter_uniforms {
    uint32_t count, inner, rank, axis;
    uint32_t dims[DIBIT_MAX_RANK], sizes[DIBIT_MAX_RANK], strides[DIBIT_MAX_RANK];
} scatter_uniforms;

const char *dbt_scatter_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    const dbt_axis_attrs *const a = node->attrs;
    return strcmp(a->reduction, "none") != 0 ? "a scatter that combines" : NULL;
}

static dibit_status record_step(const dbt_gpu_call *call, int32_t step, bool nd,
                                scatter_uniforms *uniforms, int64_t n,
                                const dbt_hal_binding *bindings) {
    static const uint32_t n_bindings[3] = {1, 2, 4}, written[3] = {1 << 0, 1 << 0, 1 << 3};
    uniforms->count = (uint32_t)n;
    const dbt_shader_param params[2] = {{"STEP", step}, {"ND", nd}};
    dbt_gpu_dispatch dispatch = {.shader = "scatter.wgsl",
                                 .params = params,
                                 .n_params = 2,
                                 .bindings = bindings,
                                 .n_bindings = n_bindings[step],
                                 .written = written[step],
                                 .uniforms = uniforms,
                                 .uniform_bytes = sizeof *uniforms};
    return dbt_gpu_record_over(call, &dispatch, n);
}

static dibit_status record_scatter(const dbt_gpu_call *call, bool nd, int64_t n_updates,
                                   scatter_uniforms *uniforms) {
    const int64_t count = dbt_tensor_count(call->out[0]);
    if (count == 0 || n_updates == 0) return dbt_gpu_view(call);
    const int64_t n_slots = count / uniforms->inner;
    dbt_hal_buffer *slots;
    DBT_TRY(dbt_gpu_scratch(call->gpu, 0, (uint64_t)n_slots * 4, &slots, call->error));
    const dbt_hal_binding mark[2] = {{.buffer = slots}, {.buffer = call->in_buffers[1]}};
    const dbt_hal_binding pick[4] = {{.buffer = slots},
                                     {.buffer = call->in_buffers[0]},
                                     {.buffer = call->in_buffers[2]},
                                     {.buffer = call->out_buffers[0]}};
    DBT_TRY(record_step(call, 0, nd, uniforms, n_slots, mark));
    DBT_TRY(record_step(call, 1, nd, uniforms, n_updates, mark));
    return record_step(call, 2, nd, uniforms, count, pick);
}

dibit_status dbt_scatter_elements_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    int32_t axis;
    DBT_TRY(check_elements(&shapes, &axis));
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(x->rank, x->dims, stride);
    scatter_uniforms uniforms = {
        .inner = 1, .rank = (uint32_t)x->rank, .axis = (uint32_t)(x->rank - 1 - axis)};
    for (int32_t i = 0; i < x->rank; i++) {
        const int32_t d = x->rank - 1 - i;
        uniforms.dims[d] = (uint32_t)indices->dims[i];
        uniforms.sizes[d] = (uint32_t)x->dims[i];
        uniforms.strides[d] = (uint32_t)stride[i];
    }
    return record_scatter(call, false, dbt_tensor_count(indices), &uniforms);
}

dibit_status dbt_scatter_nd_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    int32_t depth;
    DBT_TRY(check_nd(&shapes, &depth));
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(depth, x->dims, stride); /* of slots */
    scatter_uniforms uniforms = {.inner = (uint32_t)dbt_dims_product(x->dims, depth, x->rank),
                                 .rank = (uint32_t)depth};
    for (int32_t i = 0; i < depth; i++) {
        uniforms.sizes[i] = (uint32_t)x->dims[i];
        uniforms.strides[i] = (uint32_t)stride[i];
    }
    return record_scatter(call, true, dbt_dims_product(indices->dims, 0, indices->rank - 1),
                          &uniforms);
}

/* Gather, GatherElements, GatherND: elements picked by indices. */
#include "ops/index/index.h"

/* ---- Gather: y[outer, i..., inner] = x[outer, indices[i...], inner] -------------------------- */

dibit_status dbt_gather_infer(dbt_infer *infer) {
    const dbt_axis_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_INDEX));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(infer, 1, 0, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape, *const indices = &infer->in[1]->shape;
    int32_t axis;
    DBT_TRY(dbt_infer_axis(infer, a->axis, x->rank, "axis", &axis));
    dbt_shape y = {.rank = x->rank - 1 + indices->rank};
    DBT_FAIL_IF(y.rank > DIBIT_MAX_RANK, infer->error, DIBIT_TOO_LARGE,
                "the output would have %d dims, at most %d are supported", (int)y.rank,
                DIBIT_MAX_RANK);
    int32_t r = 0;
    for (int32_t i = 0; i < axis; i++) y.dims[r++] = x->dims[i];
    for (int32_t i = 0; i < indices->rank; i++) y.dims[r++] = indices->dims[i];
    for (int32_t i = axis + 1; i < x->rank; i++) y.dims[r++] = x->dims[i];
    DBT_TRY(dbt_infer_sized(infer, 0, infer->in[0]->type, &y));
    return dbt_infer_moved_contents(infer, 1, dbt_gather_run);
}

/* Elements [at, at + n) of a constant as the file packs it. */
static void unpack_row(const dibit_tensor *x, int64_t at, int64_t n, dibit_type stored, char *dst) {
    const uint32_t bits = dibit_type_bits(x->type), dst_bytes = dibit_type_bits(stored) / 8;
    const char *const src = x->data;
    if (bits >= 8) {
        dbt_unpack_elements(x->type, src + at * (bits / 8), dst, n);
        return;
    }
    const int64_t per_byte = 8 / bits;
    for (; n > 0 && at % per_byte != 0; at++, n--, dst += dst_bytes) {
        const uint8_t code = (uint8_t)((uint8_t)src[at / per_byte] >> at % per_byte * bits);
        dbt_unpack_elements(x->type, &code, dst, 1);
    }
    dbt_unpack_elements(x->type, src + at / per_byte, dst, n);
}

typedef struct gather_job {
    const dibit_tensor *x, *indices;
    dibit_tensor *y;
    int64_t size, n_indices, inner, n_rows, n_tasks;
} gather_job;

static void gather_rows(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const gather_job *const job = ctx;
    const int64_t end = dbt_task_begin(job->n_rows, job->n_tasks, task + 1);
    const size_t row_bytes = (size_t)job->inner * dbt_element_bytes(job->y);
    for (int64_t row = dbt_task_begin(job->n_rows, job->n_tasks, task); row < end; row++) {
        int64_t index = dbt_index_at(job->indices, row % job->n_indices);
        if (index < 0) index += job->size;
        const int64_t from = (row / job->n_indices * job->size + index) * job->inner;
        char *const dst = dbt_element(job->y, row * job->inner);
        if (job->x->type == job->y->type) {
            memcpy(dst, dbt_element(job->x, from), row_bytes);
        } else {
            unpack_row(job->x, from, job->inner, job->y->type, dst);
        }
    }
}

dibit_status dbt_gather_layout_of(const dbt_cpu_call *call, dbt_gather_layout *out) {
    const dbt_axis_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    const int32_t axis = (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    int64_t dims[2 * DIBIT_MAX_RANK];
    int32_t r = 0;
    for (int32_t i = 0; i < axis; i++) dims[r++] = x->dims[i];
    for (int32_t i = 0; i < indices->rank; i++) dims[r++] = indices->dims[i];
    for (int32_t i = axis + 1; i < x->rank; i++) dims[r++] = x->dims[i];
    DBT_TRY(dbt_expect_dims(call, 0, r, dims));
    *out = (dbt_gather_layout){.axis = axis,
                               .depth = 1,
                               .batches = dbt_dims_product(x->dims, 0, axis),
                               .rows = dbt_tensor_count(indices),
                               .inner = dbt_dims_product(x->dims, axis + 1, x->rank)};
    return DIBIT_OK;
}

dibit_status dbt_gather_run(const dbt_cpu_call *call) {
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    dbt_gather_layout layout;
    DBT_TRY(dbt_gather_layout_of(call, &layout));
    DBT_TRY(dbt_check_indices(call, indices, x->dims[layout.axis], layout.axis));
    gather_job job = {.x = x,
                      .indices = indices,
                      .y = call->out[0],
                      .size = x->dims[layout.axis],
                      .n_indices = layout.rows,
                      .inner = layout.inner,
                      .n_rows = layout.batches * layout.rows};
    if (job.n_rows == 0 || job.inner == 0) return DIBIT_OK;
    job.n_tasks =
        dbt_task_count(job.n_rows, job.x->type == job.y->type ? job.inner / 8 + 8 : job.inner * 2);
    dbt_parallel_for(call->pool, job.n_tasks, gather_rows, &job);
    return DIBIT_OK;
}

/* ---- GatherElements: y[..., i, ...] = x[..., indices[..., i, ...], ...] ---------------------- */

dibit_status dbt_gather_elements_infer(dbt_infer *infer) {
    const dbt_axis_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_INDEX));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    const int32_t rank = infer->in[0]->shape.rank;
    DBT_TRY(dbt_infer_rank(infer, 1, rank, rank));
    int32_t axis;
    DBT_TRY(dbt_infer_axis(infer, a->axis, rank, "axis", &axis));
    dbt_infer_output(infer, 0, infer->in[0]->type, &infer->in[1]->shape);
    return dbt_infer_moved_contents(infer, 1, dbt_gather_elements_run);
}

typedef struct element_job {
    const dibit_tensor *x, *indices;
    dibit_tensor *y;
    int64_t stride[DIBIT_MAX_RANK];
    int64_t n, n_tasks;
    int32_t axis;
} element_job;

static void gather_elements(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const element_job *const job = ctx;
    const uint32_t bytes = dbt_element_bytes(job->x);
    const int64_t end = dbt_task_begin(job->n, job->n_tasks, task + 1);
    for (int64_t i = dbt_task_begin(job->n, job->n_tasks, task); i < end; i++) {
        int64_t index = dbt_index_at(job->indices, i), from = 0, rest = i;
        if (index < 0) index += job->x->dims[job->axis];
        for (int32_t k = job->indices->rank; k-- > 0;) {
            from += (k == job->axis ? index : rest % job->indices->dims[k]) * job->stride[k];
            rest /= job->indices->dims[k];
        }
        memcpy(dbt_element(job->y, i), dbt_element(job->x, from), bytes);
    }
}

dibit_status dbt_gather_elements_check(const dbt_cpu_call *call, int32_t *axis) {
    const dbt_axis_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    *axis = (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    DBT_TRY(dbt_expect_dims(call, 0, indices->rank, indices->dims));
    for (int32_t i = 0; i < x->rank; i++) {
        DBT_FAIL_IF(i != *axis && indices->dims[i] > x->dims[i], call->error, DIBIT_BAD_INPUT,
                    "dim %d of the indices is %lld, the data has only %lld", (int)i,
                    (long long)indices->dims[i], (long long)x->dims[i]);
    }
    return DIBIT_OK;
}

dibit_status dbt_gather_elements_run(const dbt_cpu_call *call) {
    element_job job = {.x = call->in[0], .indices = call->in[1], .y = call->out[0]};
    const dibit_tensor *const x = job.x;
    DBT_TRY(dbt_gather_elements_check(call, &job.axis));
    DBT_TRY(dbt_check_indices(call, job.indices, x->dims[job.axis], job.axis));
    job.n = dbt_tensor_count(job.indices);
    if (job.n == 0) return DIBIT_OK;
    dbt_dense_strides(x->rank, x->dims, job.stride);
    job.n_tasks = dbt_task_count(job.n, 8 * x->rank);
    dbt_parallel_for(call->pool, job.n_tasks, gather_elements, &job);
    return DIBIT_OK;
}

/* ---- GatherND: the last axis of the indices holds coordinates -------------------------------- */

dibit_status dbt_gather_nd_infer(dbt_infer *infer) {
    const dbt_gather_nd_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_INDEX));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(infer, 1, 1, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape, *const indices = &infer->in[1]->shape;
    const int32_t lower = x->rank < indices->rank ? x->rank : indices->rank;
    DBT_FAIL_IF(a->batch_dims < 0 || a->batch_dims >= lower, infer->error, DIBIT_BAD_FILE,
                "batch_dims %lld is out of range for ranks %d and %d", (long long)a->batch_dims,
                (int)x->rank, (int)indices->rank);
    int64_t depth;
    if (!dbt_dim_is_const(infer->dims, indices->dims[indices->rank - 1], &depth)) {
        return dbt_infer_unknown_rank(infer, infer->in[0]->type);
    }
    DBT_FAIL_IF(depth < 1 || depth > x->rank - a->batch_dims, infer->error, DIBIT_BAD_FILE,
                "indices of %lld coordinates do not fit data of rank %d with %lld batch dims",
                (long long)depth, (int)x->rank, (long long)a->batch_dims);
    dbt_shape y = {.rank = 0};
    const int32_t first = (int32_t)(a->batch_dims + depth);
    DBT_FAIL_IF(indices->rank - 1 + x->rank - first > DIBIT_MAX_RANK, infer->error, DIBIT_TOO_LARGE,
                "the output would have more than %d dims", DIBIT_MAX_RANK);
    for (int32_t i = 0; i < indices->rank - 1; i++) y.dims[y.rank++] = indices->dims[i];
    for (int32_t i = first; i < x->rank; i++) y.dims[y.rank++] = x->dims[i];
    DBT_TRY(dbt_infer_sized(infer, 0, infer->in[0]->type, &y));
    return dbt_infer_moved_contents(infer, 1, dbt_gather_nd_run);
}

dibit_status dbt_gather_nd_layout_of(const dbt_cpu_call *call, dbt_gather_layout *out) {
    const dbt_gather_nd_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    const int32_t batch = (int32_t)a->batch_dims, last = indices->rank - 1;
    const int64_t depth = indices->dims[last];
    const int32_t first = batch + (int32_t)depth;
    int64_t dims[2 * DIBIT_MAX_RANK];
    int32_t r = 0;
    for (int32_t i = 0; i < last; i++) dims[r++] = indices->dims[i];
    for (int32_t i = first; i < x->rank; i++) dims[r++] = x->dims[i];
    DBT_TRY(dbt_expect_dims(call, 0, r, dims));
    for (int32_t i = 0; i < batch; i++) {
        DBT_FAIL_IF(x->dims[i] != indices->dims[i], call->error, DIBIT_BAD_INPUT,
                    "batch dim %d differs: %lld and %lld", (int)i, (long long)x->dims[i],
                    (long long)indices->dims[i]);
    }
    *out = (dbt_gather_layout){.axis = batch,
                               .depth = (int32_t)depth,
                               .batches = dbt_dims_product(indices->dims, 0, batch),
                               .rows = dbt_dims_product(indices->dims, batch, last),
                               .inner = dbt_dims_product(x->dims, first, x->rank)};
    return DIBIT_OK;
}

dibit_status dbt_gather_nd_run(const dbt_cpu_call *call) {
    const dibit_tensor *const x = call->in[0], *const indices = call->in[1];
    dibit_tensor *const y = call->out[0];
    dbt_gather_layout layout;
    DBT_TRY(dbt_gather_nd_layout_of(call, &layout));
    const int32_t batch = layout.axis;
    const int64_t inner = layout.inner, batch_size = dbt_dims_product(x->dims, batch, x->rank);
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(x->rank, x->dims, stride);
    for (int64_t row = 0; row < layout.batches * layout.rows; row++) {
        int64_t from = row / layout.rows * batch_size;
        for (int32_t k = 0; k < layout.depth; k++) {
            const int64_t size = x->dims[batch + k];
            int64_t index = dbt_index_at(indices, row * layout.depth + k);
            DBT_FAIL_IF(index < -size || index >= size, call->error, DIBIT_OUT_OF_RANGE,
                        "index %lld is out of range for axis %d of size %lld", (long long)index,
                        (int)(batch + k), (long long)size);
            from += (index < 0 ? index + size : index) * stride[batch + k];
        }
        if (inner > 0) {
            memcpy(dbt_element(y, row * inner), dbt_element(x, from),
                   (size_t)inner * dbt_element_bytes(x));
        }
    }
    return DIBIT_OK;
}

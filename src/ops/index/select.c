/* TopK, OneHot, NonZero, Compress: elements chosen by their value, or by a mask. */
#include <math.h>

#include "base/half.h"
#include "ops/index/index.h"

/* ---- TopK: ties go to the lowest index, NaN counts as the largest ---------------------------- */

dibit_status dbt_topk_infer(dbt_infer *infer) {
    const dbt_topk_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_NUMBER));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    dbt_shape y = infer->in[0]->shape;
    int32_t axis;
    int64_t k = a->k, n;
    DBT_TRY(dbt_infer_axis(infer, a->axis, y.rank, "axis", &axis));
    dbt_dim kept = dbt_dim_const(infer->dims, k);
    if (infer->n_inputs > 1) {
        dbt_scalar scalar;
        DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_INDEX));
        DBT_TRY(dbt_infer_scalar(infer, 1, &scalar));
        kept = scalar.known ? scalar.dim : dbt_infer_fresh(infer);
    }
    if (dbt_dim_is_const(infer->dims, kept, &k)) {
        DBT_FAIL_IF(k < 0 || (dbt_dim_is_const(infer->dims, y.dims[axis], &n) && k > n),
                    infer->error, DIBIT_BAD_FILE, "k is %lld, axis %d has not as many elements",
                    (long long)k, (int)axis);
    }
    y.dims[axis] = kept;
    dbt_infer_output(infer, 0, infer->in[0]->type, &y);
    dbt_infer_output(infer, 1, DIBIT_TYPE_INT64, &y);
    return DIBIT_OK;
}

/* An element as an integer of the same order. */
static int64_t order_key(const dibit_tensor *x, int64_t i) {
    const char *const at = dbt_element(x, i);
    if (x->type == DIBIT_TYPE_FLOAT) {
        float f;
        memcpy(&f, at, sizeof f);
        if (isnan(f)) return INT64_MAX;
        const uint32_t bits = dbt_float_to_bits(f), rest = bits & 0x7fffffffu;
        return bits >> 31 ? -(int64_t)rest : (int64_t)rest;
    }
    int64_t v = 0;
    memcpy(&v, at, dbt_element_bytes(x));
    switch (x->type) {
    case DIBIT_TYPE_INT8: return (int8_t)v;
    case DIBIT_TYPE_INT16: return (int16_t)v;
    case DIBIT_TYPE_INT32: return (int32_t)v;
    case DIBIT_TYPE_UINT64: return (int64_t)((uint64_t)v ^ (uint64_t)1 << 63);
    default: return v;
    }
}

typedef struct topk_entry {
    int64_t key, index;
} topk_entry;

/* a comes before b in the result. Keys are inverted when the smallest are wanted. */
static bool before(topk_entry a, topk_entry b) {
    return a.key != b.key ? a.key > b.key : a.index < b.index;
}

/* The heap's root is the entry that comes last. */
static void sift_down(topk_entry *heap, int64_t n, int64_t at) {
    for (;;) {
        int64_t last = at;
        for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++) {
            if (before(heap[last], heap[child])) last = child;
        }
        if (last == at) return;
        const topk_entry swap = heap[at];
        heap[at] = heap[last];
        heap[last] = swap;
        at = last;
    }
}

typedef struct topk_job {
    const dibit_tensor *x;
    dibit_tensor *values, *indices;
    topk_entry *scratch; /* [threads, k] */
    int64_t n, k, inner, n_rows, n_tasks;
    bool largest;
} topk_job;

static void topk_row(const topk_job *job, topk_entry *heap, int64_t row) {
    const int64_t outer = row / job->inner, lane = row % job->inner, k = job->k;
    for (int64_t i = 0; i < job->n; i++) {
        const int64_t key = order_key(job->x, (outer * job->n + i) * job->inner + lane);
        const topk_entry entry = {job->largest ? key : ~key, i};
        if (i < k) {
            heap[i] = entry;
            if (i == k - 1) {
                for (int64_t at = k / 2; at-- > 0;) sift_down(heap, k, at);
            }
        } else if (before(entry, heap[0])) {
            heap[0] = entry;
            sift_down(heap, k, 0);
        }
    }
    for (int64_t rest = k; rest > 0; rest--) {
        const topk_entry last = heap[0];
        heap[0] = heap[rest - 1];
        sift_down(heap, rest - 1, 0);
        const int64_t to = (outer * k + rest - 1) * job->inner + lane;
        const int64_t from = (outer * job->n + last.index) * job->inner + lane;
        if (job->values) {
            memcpy(dbt_element(job->values, to), dbt_element(job->x, from),
                   dbt_element_bytes(job->x));
        }
        if (job->indices) memcpy(dbt_element(job->indices, to), &last.index, sizeof last.index);
    }
}

static void topk_rows(void *ctx, int64_t task, uint32_t thread) {
    const topk_job *const job = ctx;
    const int64_t end = dbt_task_begin(job->n_rows, job->n_tasks, task + 1);
    for (int64_t row = dbt_task_begin(job->n_rows, job->n_tasks, task); row < end; row++) {
        topk_row(job, job->scratch + (int64_t)thread * job->k, row);
    }
}

static const dibit_tensor *any_output(const dbt_cpu_call *call) {
    return call->out[0] ? call->out[0] : call->n_outputs > 1 ? call->out[1] : NULL;
}

static int32_t topk_axis(const dbt_cpu_call *call) {
    const dbt_topk_attrs *const a = call->attrs;
    return (int32_t)(a->axis < 0 ? a->axis + call->in[0]->rank : a->axis);
}

uint64_t dbt_topk_scratch(const dbt_cpu_call *call) {
    const dibit_tensor *const y = any_output(call);
    uint64_t bytes = 0;
    if (!y || !dbt_mul_u64((uint64_t)y->dims[topk_axis(call)],
                           sizeof(topk_entry) * dbt_pool_threads(call->pool), &bytes)) {
        return 0;
    }
    return bytes;
}

dibit_status dbt_topk_run(const dbt_cpu_call *call) {
    const dbt_topk_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const y = any_output(call);
    if (!y) return DIBIT_OK;
    const int32_t axis = topk_axis(call);
    topk_job job = {.x = x,
                    .values = call->out[0],
                    .indices = call->n_outputs > 1 ? call->out[1] : NULL,
                    .scratch = call->scratch,
                    .n = x->dims[axis],
                    .k = y->dims[axis],
                    .inner = dbt_dims_product(x->dims, axis + 1, x->rank),
                    .largest = a->largest != 0};
    int64_t dims[DIBIT_MAX_RANK], k = a->k, n_k;
    memcpy(dims, x->dims, sizeof dims);
    DBT_TRY(dbt_read_list(call, 1, 1, &k, &n_k));
    dims[axis] = k;
    DBT_TRY(dbt_expect_dims(call, call->out[0] ? 0 : 1, x->rank, dims));
    DBT_FAIL_IF(k < 0 || k > job.n, call->error, DIBIT_OUT_OF_RANGE,
                "k is %lld, axis %d has %lld elements", (long long)k, (int)axis, (long long)job.n);
    if (dbt_tensor_count(y) == 0) return DIBIT_OK;
    job.n_rows = dbt_dims_product(x->dims, 0, axis) * job.inner;
    job.n_tasks = dbt_task_count(job.n_rows, 4 * job.n);
    dbt_parallel_for(call->pool, job.n_tasks, topk_rows, &job);
    return DIBIT_OK;
}

/* ---- OneHot ---------------------------------------------------------------------------------- */

dibit_status dbt_one_hot_infer(dbt_infer *infer) {
    const dbt_axis_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_NUMBER));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_NUMBER));
    DBT_TRY(dbt_infer_type(infer, 2, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK - 1));
    DBT_TRY(dbt_infer_rank(infer, 2, 1, 1));
    DBT_TRY(dbt_infer_dim(infer, 2, 0, dbt_dim_const(infer->dims, 2)));
    const dbt_shape *const x = &infer->in[0]->shape;
    dbt_shape y = {.rank = x->rank + 1};
    int32_t axis;
    DBT_TRY(dbt_infer_axis(infer, a->axis, y.rank, "axis", &axis));
    dbt_scalar depth;
    DBT_TRY(dbt_infer_scalar(infer, 1, &depth));
    if (depth.is_float && depth.known) {
        DBT_FAIL_IF(!(depth.f >= 0 && depth.f <= (float)DBT_MAX_ELEMENTS), infer->error,
                    DIBIT_TOO_LARGE, "depth is %g", (double)depth.f);
        depth.dim = dbt_dim_const(infer->dims, (int64_t)depth.f);
    }
    for (int32_t i = 0, from = 0; i < y.rank; i++) {
        if (i != axis) {
            y.dims[i] = x->dims[from++];
        } else {
            y.dims[i] = depth.known ? depth.dim : dbt_infer_fresh(infer);
        }
    }
    return dbt_infer_sized(infer, 0, infer->in[2]->type, &y);
}

/* Element i as a class: fractions are cut, what no int64 holds matches no class. */
static int64_t class_of(const dibit_tensor *x, int64_t i) {
    if (x->type != DIBIT_TYPE_FLOAT) {
        const int64_t key = order_key(x, i);
        return x->type == DIBIT_TYPE_UINT64 ? (key >= 0 ? INT64_MAX : key - INT64_MIN) : key;
    }
    float f;
    memcpy(&f, dbt_element(x, i), sizeof f);
    return f > -9e18f && f < 9e18f ? (int64_t)f : INT64_MAX;
}

dibit_status dbt_one_hot_run(const dbt_cpu_call *call) {
    const dbt_axis_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const values = call->in[2];
    dibit_tensor *const y = call->out[0];
    const int32_t axis = (int32_t)(a->axis < 0 ? a->axis + y->rank : a->axis);
    const int64_t depth = y->dims[axis], n = dbt_tensor_count(x);
    const int64_t inner = dbt_dims_product(x->dims, axis, x->rank);
    const uint32_t bytes = dbt_element_bytes(y);
    DBT_FAIL_IF(dbt_tensor_count(values) != 2 || dbt_tensor_count(y) != n * depth, call->error,
                DIBIT_BAD_INPUT, "the inputs' dims do not fit together");
    for (int64_t i = 0; i < n; i++) {
        int64_t on = class_of(x, i);
        if (on < 0 && on >= -depth) on += depth;
        for (int64_t c = 0; c < depth; c++) {
            memcpy(dbt_element(y, (i / inner * depth + c) * inner + i % inner),
                   dbt_element(values, c == on), bytes);
        }
    }
    return DIBIT_OK;
}

/* ---- NonZero --------------------------------------------------------------------------------- */

static bool is_zero(const dibit_tensor *x, int64_t i) {
    static const char zeros[8];
    if (x->type != DIBIT_TYPE_FLOAT) {
        return memcmp(dbt_element(x, i), zeros, dbt_element_bytes(x)) == 0;
    }
    float f;
    memcpy(&f, dbt_element(x, i), sizeof f);
    return f == 0.0f;
}

static int64_t count_non_zero(const dibit_tensor *x, int64_t n) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) found += !is_zero(x, i);
    return found;
}

dibit_status dbt_non_zero_infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_NUMBER | DBT_TYPES_BOOL));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    const int32_t rank = infer->in[0]->shape.rank;
    const dibit_tensor *const x = infer->tensors ? infer->tensors[0] : NULL;
    const dbt_dim found = x ? dbt_dim_const(infer->dims, count_non_zero(x, dbt_tensor_count(x)))
                            : dbt_infer_fresh(infer);
    const dbt_shape y = {.rank = 2,
                         .dims = {dbt_dim_const(infer->dims, rank > 0 ? rank : 1), found}};
    dbt_infer_output(infer, 0, DIBIT_TYPE_INT64, &y);
    return DIBIT_OK;
}

dibit_status dbt_non_zero_run(const dbt_cpu_call *call) {
    const dibit_tensor *const x = call->in[0];
    dibit_tensor *const y = call->out[0];
    const int64_t n = dbt_tensor_count(x), found = count_non_zero(x, n);
    const int64_t dims[2] = {x->rank > 0 ? x->rank : 1, found};
    DBT_TRY(dbt_expect_dims(call, 0, 2, dims));
    int64_t *const coordinates = y->data; /* [rank, found] */
    for (int64_t i = 0, k = 0; i < n; i++) {
        if (is_zero(x, i)) continue;
        int64_t rest = i;
        if (x->rank == 0) coordinates[k] = 0;
        for (int32_t axis = x->rank; axis-- > 0;) {
            coordinates[axis * found + k] = rest % x->dims[axis];
            rest /= x->dims[axis];
        }
        k++;
    }
    return DIBIT_OK;
}

/* ---- Compress -------------------------------------------------------------------------------- */

dibit_status dbt_compress_infer(dbt_infer *infer) {
    const dbt_axis_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_BOOL));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(infer, 1, 1, 1));
    dbt_shape y = infer->in[0]->shape;
    const dibit_tensor *const mask = infer->tensors ? infer->tensors[1] : NULL;
    int32_t axis = 0;
    if (a->axis != DBT_ATTR_ABSENT) {
        DBT_TRY(dbt_infer_axis(infer, a->axis, y.rank, "axis", &axis));
    } else {
        y.rank = 1;
    }
    y.dims[axis] = mask ? dbt_dim_const(infer->dims, count_non_zero(mask, dbt_tensor_count(mask)))
                        : dbt_infer_fresh(infer);
    dbt_infer_output(infer, 0, infer->in[0]->type, &y);
    return DIBIT_OK;
}

dibit_status dbt_compress_run(const dbt_cpu_call *call) {
    const dbt_axis_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const mask = call->in[1];
    const bool flat = a->axis == DBT_ATTR_ABSENT;
    const int32_t axis = flat ? 0 : (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    const int64_t n = dbt_tensor_count(mask), size = flat ? dbt_tensor_count(x) : x->dims[axis];
    const int64_t outer = flat ? 1 : dbt_dims_product(x->dims, 0, axis);
    const int64_t inner = flat ? 1 : dbt_dims_product(x->dims, axis + 1, x->rank);
    int64_t dims[DIBIT_MAX_RANK];
    memcpy(dims, x->dims, sizeof dims);
    dims[axis] = count_non_zero(mask, n);
    DBT_TRY(dbt_expect_dims(call, 0, flat ? 1 : x->rank, dims));
    for (int64_t i = size; i < n; i++) {
        DBT_FAIL_IF(!is_zero(mask, i), call->error, DIBIT_OUT_OF_RANGE,
                    "condition %lld is true, there are only %lld elements", (long long)i,
                    (long long)size);
    }
    int64_t to = 0;
    for (int64_t o = 0; o < outer && inner > 0; o++) {
        for (int64_t i = 0; i < n && i < size; i++) {
            if (is_zero(mask, i)) continue;
            memcpy(dbt_element(call->out[0], to), dbt_element(x, (o * size + i) * inner),
                   (size_t)inner * dbt_element_bytes(x));
            to += inner;
        }
    }
    return DIBIT_OK;
}

/* Concat and Split: tensors joined along an axis, and taken apart. */
#include "ops/index/index.h"

void dbt_part_plan(const dibit_tensor *whole, const dibit_tensor *part, int32_t axis, int64_t at,
                   bool into_whole, dbt_strided *copy) {
    int64_t *const inside = into_whole ? copy->dst_stride : copy->src_stride;
    copy->rank = part->rank;
    memcpy(copy->dims, part->dims, (size_t)part->rank * sizeof *part->dims);
    dbt_dense_strides(whole->rank, whole->dims, inside);
    dbt_dense_strides(part->rank, part->dims, into_whole ? copy->src_stride : copy->dst_stride);
    *(into_whole ? &copy->dst_at : &copy->src_at) = at * inside[axis];
}

static void copy_part(const dbt_cpu_call *call, const dibit_tensor *whole, const dibit_tensor *part,
                      int32_t axis, int64_t at, bool into_whole) {
    dbt_strided copy = {.rank = 0};
    dbt_part_plan(whole, part, axis, at, into_whole, &copy);
    dbt_strided_copy(call->pool, &copy, dbt_element_bytes(whole),
                     into_whole ? whole->data : part->data, into_whole ? part->data : whole->data);
}

/* BAD_INPUT unless the dims besides the axis are the same. */
static dibit_status check_others(const dbt_cpu_call *call, const dibit_tensor *a,
                                 const dibit_tensor *b, int32_t axis) {
    bool same = a->rank == b->rank;
    for (int32_t i = 0; same && i < a->rank; i++) same = i == axis || a->dims[i] == b->dims[i];
    DBT_FAIL_IF(!same, call->error, DIBIT_BAD_INPUT, "dims besides axis %d differ", (int)axis);
    return DIBIT_OK;
}

/* ---- Concat ---------------------------------------------------------------------------------- */

dibit_status dbt_concat_infer(dbt_infer *infer) {
    const dbt_axis_attrs *const a = infer->attrs;
    dbt_dims *const dims = infer->dims;
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    dbt_shape y = infer->in[0]->shape;
    int32_t axis;
    DBT_TRY(dbt_infer_axis(infer, a->axis, y.rank, "axis", &axis));
    for (uint32_t i = 0; i < infer->n_inputs; i++) {
        DBT_FAIL_IF(!infer->in[i], infer->error, DIBIT_BAD_FILE, "input %u is missing",
                    (unsigned)i);
        DBT_TRY(dbt_infer_type(infer, i, DBT_TYPES_VALUE));
        DBT_TRY(dbt_infer_same_type(infer, 0, i));
        DBT_TRY(dbt_infer_rank(infer, i, y.rank, y.rank));
        const dbt_shape *const x = &infer->in[i]->shape;
        for (int32_t k = 0; i > 0 && k < y.rank; k++) {
            if (k == axis) {
                y.dims[k] = dbt_dim_apply(dims, DBT_DIM_ADD, y.dims[k], x->dims[k]);
                continue;
            }
            DBT_TRY(dbt_infer_dim(infer, i, k, y.dims[k]));
            if (dbt_dim_is_const(dims, x->dims[k], NULL)) y.dims[k] = x->dims[k];
        }
    }
    DBT_TRY(dbt_infer_sized(infer, 0, infer->in[0]->type, &y));
    return dbt_infer_moved_contents(infer, ~0u, dbt_concat_run);
}

dibit_status dbt_concat_starts(const dbt_cpu_call *call, int32_t *axis, int64_t *at) {
    const dbt_axis_attrs *const a = call->attrs;
    const dibit_tensor *const y = call->out[0];
    *axis = (int32_t)(a->axis < 0 ? a->axis + y->rank : a->axis);
    int64_t n = 0;
    for (uint32_t i = 0; i < call->n_inputs; i++) {
        DBT_TRY(check_others(call, call->in[i], y, *axis));
        at[i] = n;
        n += call->in[i]->dims[*axis];
    }
    DBT_FAIL_IF(n != y->dims[*axis], call->error, DIBIT_BAD_INPUT, "the output has not room");
    return DIBIT_OK;
}

dibit_status dbt_concat_run(const dbt_cpu_call *call) {
    int32_t axis;
    int64_t at[DBT_VARIADIC];
    DBT_TRY(dbt_concat_starts(call, &axis, at));
    for (uint32_t i = 0; i < call->n_inputs; i++) {
        copy_part(call, call->out[0], call->in[i], axis, at[i], true);
    }
    return DIBIT_OK;
}

/* ---- Split ----------------------------------------------------------------------------------- */

/* Sizes that are given: the attribute up to opset 12, then input 1. */
static dibit_status given_sizes(const dbt_infer *infer, dbt_dim *sizes, bool *given, bool *known) {
    const dbt_split_attrs *const a = infer->attrs;
    const bool input = infer->n_inputs > 1 && infer->in[1];
    *given = a->split.v || input;
    *known = a->split.v != NULL;
    int64_t n = a->split.n;
    if (!a->split.v && input) DBT_TRY(dbt_infer_list_length(infer, 1, INT32_MAX, &n));
    DBT_FAIL_IF(*given && n >= 0 && n != infer->n_outputs, infer->error, DIBIT_BAD_FILE,
                "%lld sizes for %u outputs", (long long)n, (unsigned)infer->n_outputs);
    const dbt_dim *const contents = input ? infer->in[1]->contents : NULL;
    if (!*known && contents && n >= 0) *known = true;
    for (uint32_t o = 0; *known && o < infer->n_outputs; o++) {
        sizes[o] = a->split.v ? dbt_dim_const(infer->dims, a->split.v[o]) : contents[o];
    }
    return DIBIT_OK;
}

/* Equal parts; with num_outputs the last one may be smaller. */
static dibit_status equal_sizes(const dbt_infer *infer, dbt_dim size, dbt_dim *sizes) {
    const dbt_split_attrs *const a = infer->attrs;
    dbt_dims *const dims = infer->dims;
    const int64_t n = infer->n_outputs;
    const bool uneven = a->num_outputs != DBT_ATTR_ABSENT;
    DBT_FAIL_IF(uneven && a->num_outputs != n, infer->error, DIBIT_BAD_FILE,
                "attribute 'num_outputs' is %lld, the node has %lld", (long long)a->num_outputs,
                (long long)n);
    int64_t constant;
    const bool is_constant = dbt_dim_is_const(dims, size, &constant);
    DBT_FAIL_IF(!uneven && is_constant && constant % n != 0, infer->error, DIBIT_BAD_FILE,
                "%lld does not split into %lld equal parts", (long long)constant, (long long)n);
    const dbt_dim part = dbt_dim_apply(dims, DBT_DIM_CEIL_DIV, size, dbt_dim_const(dims, n));
    const dbt_dim others = dbt_dim_apply(dims, DBT_DIM_MUL, part, dbt_dim_const(dims, n - 1));
    for (int64_t o = 0; o < n; o++) sizes[o] = part;
    if (uneven) sizes[n - 1] = dbt_dim_apply(dims, DBT_DIM_SUB, size, others);
    return DIBIT_OK;
}

dibit_status dbt_split_infer(dbt_infer *infer) {
    const dbt_split_attrs *const a = infer->attrs;
    dbt_dims *const dims = infer->dims;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    const dbt_value *const x = infer->in[0];
    int32_t axis;
    DBT_TRY(dbt_infer_axis(infer, a->axis, x->shape.rank, "axis", &axis));
    dbt_dim *const sizes = dbt_arena_array(infer->arena, infer->n_outputs, sizeof *sizes);
    if (!sizes) return dbt_fail_memory(infer->error, "sizes", infer->n_outputs * sizeof *sizes);
    bool given, known;
    DBT_TRY(given_sizes(infer, sizes, &given, &known));
    if (!given) DBT_TRY(equal_sizes(infer, x->shape.dims[axis], sizes));
    dbt_dim total = dbt_dim_const(dims, 0);
    for (uint32_t o = 0; o < infer->n_outputs; o++) {
        dbt_shape y = x->shape;
        y.dims[axis] = given && !known ? dbt_infer_fresh(infer) : sizes[o];
        total = dbt_dim_apply(dims, DBT_DIM_ADD, total, y.dims[axis]);
        DBT_TRY(dbt_infer_sized(infer, o, x->type, &y));
    }
    DBT_TRY(dbt_infer_dim(infer, 0, axis, total));
    return dbt_infer_moved_contents(infer, 1, dbt_split_run);
}

/* Output dims come from infer, so only their sum can be wrong. */
dibit_status dbt_split_starts(const dbt_cpu_call *call, int32_t *axis, int64_t *at) {
    const dbt_split_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0];
    *axis = (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    const dibit_tensor *const split = call->n_inputs > 1 ? call->in[1] : NULL;
    const int64_t n = call->n_outputs, size = x->dims[*axis];
    const int64_t part = size / n + (size % n != 0);
    DBT_FAIL_IF(split && dbt_tensor_count(split) != n, call->error, DIBIT_BAD_INPUT,
                "%lld sizes for %lld outputs", (long long)dbt_tensor_count(split), (long long)n);
    int64_t sum = 0;
    for (int64_t o = 0; o < n; o++) {
        int64_t length = o < n - 1 || a->num_outputs == DBT_ATTR_ABSENT ? part : size - sum;
        if (a->split.v) length = a->split.v[o];
        if (split) length = dbt_index_at(split, o);
        DBT_FAIL_IF(length < 0 || length > size - sum, call->error, DIBIT_BAD_INPUT,
                    "the sizes do not add up to the %lld of axis %d", (long long)size, (int)*axis);
        if (call->out[o]) {
            DBT_TRY(check_others(call, x, call->out[o], *axis));
            DBT_FAIL_IF(call->out[o]->dims[*axis] != length, call->error, DIBIT_BAD_INPUT,
                        "the inputs' dims do not fit together");
        }
        at[o] = sum;
        sum += length;
    }
    DBT_FAIL_IF(sum != size, call->error, DIBIT_BAD_INPUT,
                "the sizes add up to %lld, axis %d has %lld", (long long)sum, (int)*axis,
                (long long)size);
    return DIBIT_OK;
}

dibit_status dbt_split_run(const dbt_cpu_call *call) {
    int32_t axis;
    int64_t at[DBT_VARIADIC];
    DBT_TRY(dbt_split_starts(call, &axis, at));
    for (uint32_t o = 0; o < call->n_outputs; o++) {
        if (call->out[o]) copy_part(call, call->in[0], call->out[o], axis, at[o], false);
    }
    return DIBIT_OK;
}

/* Helpers that every op's infer uses: type and shape checks, broadcasting, host values. */
#include <string.h>

#include "ops/op.h"

dibit_status dbt_infer_type(const dbt_infer *infer, uint32_t i, uint32_t types) {
    if (i >= infer->n_inputs || !infer->in[i]) return DIBIT_OK;
    const dibit_type type = infer->in[i]->type;
    DBT_FAIL_IF(!dbt_type_in(type, types), infer->error, DIBIT_BAD_FILE,
                "input %u ('%s') has type %s, which this op does not take there", (unsigned)i,
                infer->in[i]->name, dibit_type_name(type));
    return DIBIT_OK;
}

dibit_status dbt_infer_same_type(const dbt_infer *infer, uint32_t i, uint32_t j) {
    if (i >= infer->n_inputs || j >= infer->n_inputs || !infer->in[i] || !infer->in[j]) {
        return DIBIT_OK;
    }
    DBT_FAIL_IF(infer->in[i]->type != infer->in[j]->type, infer->error, DIBIT_BAD_FILE,
                "inputs %u and %u must have the same type, got %s and %s", (unsigned)i, (unsigned)j,
                dibit_type_name(infer->in[i]->type), dibit_type_name(infer->in[j]->type));
    return DIBIT_OK;
}

dibit_status dbt_infer_rank(const dbt_infer *infer, uint32_t i, int32_t lowest, int32_t highest) {
    if (i >= infer->n_inputs || !infer->in[i]) return DIBIT_OK;
    const int32_t rank = infer->in[i]->shape.rank;
    DBT_FAIL_IF(rank < 0, infer->error, DIBIT_UNSUPPORTED, "the rank of input %u ('%s') is unknown",
                (unsigned)i, infer->in[i]->name);
    if (rank >= lowest && rank <= highest) return DIBIT_OK;
    if (lowest == highest) {
        return dbt_fail(infer->error, DIBIT_BAD_FILE, "input %u ('%s') must have rank %d, got %d",
                        (unsigned)i, infer->in[i]->name, (int)lowest, (int)rank);
    }
    return dbt_fail(infer->error, DIBIT_BAD_FILE, "input %u ('%s') must have rank %d to %d, got %d",
                    (unsigned)i, infer->in[i]->name, (int)lowest, (int)highest, (int)rank);
}

dibit_status dbt_infer_dim(const dbt_infer *infer, uint32_t i, int32_t axis, dbt_dim want) {
    if (i >= infer->n_inputs || !infer->in[i] || infer->in[i]->shape.rank <= axis) return DIBIT_OK;
    int64_t got, expected;
    if (!dbt_dim_is_const(infer->dims, infer->in[i]->shape.dims[axis], &got) ||
        !dbt_dim_is_const(infer->dims, want, &expected) || got == expected) {
        return DIBIT_OK;
    }
    return dbt_fail(infer->error, DIBIT_BAD_FILE,
                    "dim %d of input %u ('%s') must be %lld, got %lld", (int)axis, (unsigned)i,
                    infer->in[i]->name, (long long)expected, (long long)got);
}

void dbt_infer_output(const dbt_infer *infer, uint32_t i, dibit_type type, const dbt_shape *shape) {
    if (i >= infer->n_outputs || !infer->out[i]) return;
    infer->out[i]->type = type;
    if (shape) {
        infer->out[i]->shape = *shape;
    } else {
        infer->out[i]->shape.rank = -1;
    }
}

dibit_status dbt_infer_sized(const dbt_infer *infer, uint32_t i, dibit_type type,
                             const dbt_shape *shape) {
    int64_t n = 1;
    bool empty = false, large = false;
    for (int32_t k = 0; k < shape->rank; k++) {
        int64_t d;
        if (!dbt_dim_is_const(infer->dims, shape->dims[k], &d)) continue;
        DBT_FAIL_IF(d < 0, infer->error, DIBIT_BAD_FILE, "dim %d of output %u would be %lld",
                    (int)k, (unsigned)i, (long long)d);
        empty = empty || d == 0;
        large = large || (d > 0 && n > DBT_MAX_ELEMENTS / d);
        n = large || d == 0 ? n : n * d;
    }
    DBT_FAIL_IF(large && !empty, infer->error, DIBIT_TOO_LARGE,
                "output %u would have more than %lld elements", (unsigned)i,
                (long long)DBT_MAX_ELEMENTS);
    dbt_infer_output(infer, i, type, shape);
    return DIBIT_OK;
}

dibit_status dbt_infer_like_first(dbt_infer *infer) {
    dbt_infer_output(infer, 0, infer->in[0]->type, &infer->in[0]->shape);
    return DIBIT_OK;
}

dibit_status dbt_infer_broadcast(const dbt_infer *infer, const dbt_shape *a, const dbt_shape *b,
                                 dbt_shape *out) {
    DBT_FAIL_IF(a->rank < 0 || b->rank < 0, infer->error, DIBIT_UNSUPPORTED,
                "an input's rank is unknown");
    dbt_shape r = {.rank = a->rank > b->rank ? a->rank : b->rank};
    for (int32_t i = 0; i < r.rank; i++) {
        const int32_t ia = i - (r.rank - a->rank), ib = i - (r.rank - b->rank);
        if (ia < 0 || ib < 0) {
            r.dims[i] = ia < 0 ? b->dims[ib] : a->dims[ia];
            continue;
        }
        int64_t va, vb;
        const bool known = dbt_dim_is_const(infer->dims, a->dims[ia], &va) &&
                           dbt_dim_is_const(infer->dims, b->dims[ib], &vb);
        DBT_FAIL_IF(known && va != vb && va != 1 && vb != 1, infer->error, DIBIT_BAD_FILE,
                    "shapes do not broadcast: %lld against %lld", (long long)va, (long long)vb);
        r.dims[i] = dbt_dim_apply(infer->dims, DBT_DIM_BROADCAST, a->dims[ia], b->dims[ib]);
    }
    *out = r;
    return DIBIT_OK;
}

dibit_status dbt_infer_axis(const dbt_infer *infer, int64_t axis, int32_t rank, const char *what,
                            int32_t *out) {
    DBT_FAIL_IF(axis < -(int64_t)rank || axis >= rank, infer->error, DIBIT_BAD_FILE,
                "%s %lld is out of range for rank %d", what, (long long)axis, (int)rank);
    *out = (int32_t)(axis < 0 ? axis + rank : axis);
    return DIBIT_OK;
}

int64_t dbt_infer_contents_count(const dbt_infer *infer, const dbt_value *value) {
    int64_t n = 1;
    for (int32_t i = 0; i < value->shape.rank; i++) {
        int64_t d = 0;
        dbt_dim_is_const(infer->dims, value->shape.dims[i], &d);
        n *= d;
    }
    return n;
}

dibit_status dbt_infer_constants(const dbt_infer *infer, uint32_t i, uint32_t max, int64_t *v,
                                 uint32_t *n, bool *known) {
    *n = 0;
    *known = true;
    if (i >= infer->n_inputs || !infer->in[i]) return DIBIT_OK;
    const dbt_value *const value = infer->in[i];
    *known = value->contents != NULL;
    if (!*known) return DIBIT_OK;
    const int64_t count = dbt_infer_contents_count(infer, value);
    DBT_FAIL_IF(count > max, infer->error, DIBIT_BAD_FILE,
                "input %u ('%s') has %lld elements, at most %u make sense", (unsigned)i,
                value->name, (long long)count, (unsigned)max);
    for (int64_t k = 0; k < count; k++) {
        if (!dbt_dim_is_const(infer->dims, value->contents[k], &v[k])) *known = false;
    }
    *n = (uint32_t)count;
    return DIBIT_OK;
}

dibit_status dbt_infer_set_contents(const dbt_infer *infer, const dbt_dim *contents, int64_t n) {
    if (infer->n_outputs == 0 || !infer->out[0] || n > DBT_MAX_CONTENTS) return DIBIT_OK;
    if (!dbt_type_in(infer->out[0]->type, DBT_TYPES_INTEGER | DBT_TYPES_BOOL)) return DIBIT_OK;
    for (int64_t i = 0; i < n; i++) {
        if (contents[i] == DBT_DIM_NONE) return DIBIT_OK;
    }
    dbt_dim *const copy = dbt_arena_array(infer->arena, (uint64_t)n, sizeof *copy);
    if (!copy) return dbt_fail_memory(infer->error, "host values", (uint64_t)n * sizeof *copy);
    if (n > 0) memcpy(copy, contents, (size_t)n * sizeof *copy);
    infer->out[0]->contents = copy;
    return DIBIT_OK;
}

dbt_dim dbt_infer_fresh(const dbt_infer *infer) {
    return dbt_dim_fresh(infer->dims, infer->node->name);
}

/* Host values through elementwise ops: shapes are computed from other shapes with them. */
#include "ops/elementwise/elementwise.h"

bool dbt_host_type(dibit_type type) {
    return type == DIBIT_TYPE_INT32 || type == DIBIT_TYPE_INT64 || type == DIBIT_TYPE_BOOL;
}

dbt_dim dbt_binary_dim(dbt_dims *dims, dbt_binary_kind kind, dbt_dim a, dbt_dim b) {
    switch (kind) {
    case DBT_BINARY_ADD: return dbt_dim_apply(dims, DBT_DIM_ADD, a, b);
    case DBT_BINARY_SUB: return dbt_dim_apply(dims, DBT_DIM_SUB, a, b);
    case DBT_BINARY_MUL: return dbt_dim_apply(dims, DBT_DIM_MUL, a, b);
    case DBT_BINARY_DIV: return dbt_dim_apply(dims, DBT_DIM_DIV, a, b);
    case DBT_BINARY_MOD: return dbt_dim_apply(dims, DBT_DIM_MOD, a, b);
    case DBT_BINARY_AND:
    case DBT_BINARY_MIN: return dbt_dim_apply(dims, DBT_DIM_MIN, a, b);
    case DBT_BINARY_OR:
    case DBT_BINARY_MAX: return dbt_dim_apply(dims, DBT_DIM_MAX, a, b);
    case DBT_BINARY_EQUAL: return dbt_dim_apply(dims, DBT_DIM_EQUAL, a, b);
    case DBT_BINARY_LESS: return dbt_dim_apply(dims, DBT_DIM_LESS, a, b);
    case DBT_BINARY_LESS_EQUAL: return dbt_dim_apply(dims, DBT_DIM_LESS_EQUAL, a, b);
    case DBT_BINARY_GREATER: return dbt_dim_apply(dims, DBT_DIM_LESS, b, a);
    case DBT_BINARY_GREATER_EQUAL: return dbt_dim_apply(dims, DBT_DIM_LESS_EQUAL, b, a);
    case DBT_BINARY_XOR:
        return dbt_dim_select(dims, dbt_dim_apply(dims, DBT_DIM_EQUAL, a, b),
                              dbt_dim_const(dims, 0), dbt_dim_const(dims, 1));
    default: return DBT_DIM_NONE;
    }
}

dbt_dim dbt_contents_at(const dbt_infer *infer, const dbt_value *value, const dbt_shape *shape,
                        int64_t at) {
    int64_t index = 0, stride = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        int64_t dim = 1, own_dim = 1;
        dbt_dim_is_const(infer->dims, shape->dims[d], &dim);
        const int32_t own = d - (shape->rank - value->shape.rank);
        if (own >= 0) dbt_dim_is_const(infer->dims, value->shape.dims[own], &own_dim);
        if (own_dim != 1) index += at % dim * stride;
        stride *= own_dim;
        at /= dim;
    }
    return value->contents[index];
}

dibit_status dbt_binary_contents(const dbt_infer *infer, dbt_binary_kind kind) {
    const dbt_value *const out = infer->out[0];
    for (uint32_t i = 0; i < infer->n_inputs; i++) {
        if (!infer->in[i]->contents || !dbt_host_type(infer->in[i]->type)) return DIBIT_OK;
    }
    const int64_t n = dbt_infer_contents_count(infer, out);
    if (n > DBT_MAX_CONTENTS) return DIBIT_OK;
    dbt_dim contents[DBT_MAX_CONTENTS];
    for (int64_t k = 0; k < n; k++) {
        dbt_dim v = dbt_contents_at(infer, infer->in[0], &out->shape, k);
        for (uint32_t i = 1; i < infer->n_inputs; i++) {
            v = dbt_binary_dim(infer->dims, kind, v,
                               dbt_contents_at(infer, infer->in[i], &out->shape, k));
        }
        int64_t value;
        if (out->type == DIBIT_TYPE_INT32 && dbt_dim_is_const(infer->dims, v, &value) &&
            (value < INT32_MIN || value > INT32_MAX)) {
            return DIBIT_OK; /* it wraps */
        }
        contents[k] = v;
    }
    return dbt_infer_set_contents(infer, contents, n);
}

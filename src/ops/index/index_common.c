/* What the moving ops share besides the copy: checks of values and dims before a run, and host
 * values while inferring. */
#include "ops/index/index.h"

dibit_status dbt_expect_dims(const dbt_cpu_call *call, uint32_t o, int32_t rank,
                             const int64_t *dims) {
    const dibit_tensor *const y = call->out[o];
    bool same = y->rank == rank;
    for (int32_t i = 0; same && i < rank; i++) same = y->dims[i] == dims[i];
    DBT_FAIL_IF(!same, call->error, DIBIT_BAD_INPUT, "the inputs' dims do not fit together");
    return DIBIT_OK;
}

dibit_status dbt_read_list(const dbt_cpu_call *call, uint32_t i, int64_t most, int64_t *v,
                           int64_t *n) {
    *n = 0;
    if (i >= call->n_inputs || !call->in[i]) return DIBIT_OK;
    const dibit_tensor *const t = call->in[i];
    const int64_t count = dbt_tensor_count(t);
    DBT_FAIL_IF(!dbt_type_in(t->type, DBT_TYPES_INDEX) || count > most, call->error,
                DIBIT_BAD_INPUT, "input %u must hold at most %lld integers, got %lld", (unsigned)i,
                (long long)most, (long long)count);
    for (int64_t k = 0; k < count; k++) v[k] = dbt_index_at(t, k);
    *n = count;
    return DIBIT_OK;
}

dibit_status dbt_check_indices(const dbt_cpu_call *call, const dibit_tensor *indices, int64_t size,
                               int32_t axis) {
    const int64_t n = dbt_tensor_count(indices);
    for (int64_t i = 0; i < n; i++) {
        const int64_t v = dbt_index_at(indices, i);
        DBT_FAIL_IF(v < -size || v >= size, call->error, DIBIT_OUT_OF_RANGE,
                    "index %lld (element %lld of the indices) is out of range for axis %d of size "
                    "%lld",
                    (long long)v, (long long)i, (int)axis, (long long)size);
    }
    return DIBIT_OK;
}

dibit_status dbt_infer_list_length(const dbt_infer *infer, uint32_t i, int64_t most, int64_t *n) {
    *n = 0;
    if (i >= infer->n_inputs || !infer->in[i]) return DIBIT_OK;
    const dbt_value *const value = infer->in[i];
    DBT_TRY(dbt_infer_type(infer, i, DBT_TYPES_INDEX));
    DBT_TRY(dbt_infer_rank(infer, i, 0, 1));
    *n = 1;
    if (value->shape.rank == 1 && !dbt_dim_is_const(infer->dims, value->shape.dims[0], n)) *n = -1;
    DBT_FAIL_IF(*n > most, infer->error, DIBIT_BAD_FILE,
                "input %u ('%s') has %lld elements, at most %lld make sense", (unsigned)i,
                value->name, (long long)*n, (long long)most);
    return DIBIT_OK;
}

dibit_status dbt_infer_scalar(const dbt_infer *infer, uint32_t i, dbt_scalar *out) {
    const dbt_value *const value = infer->in[i];
    DBT_TRY(dbt_infer_rank(infer, i, 0, 1));
    if (value->shape.rank == 1) DBT_TRY(dbt_infer_dim(infer, i, 0, dbt_dim_const(infer->dims, 1)));
    *out = (dbt_scalar){.dim = DBT_DIM_NONE, .is_float = dbt_type_is_float(value->type)};
    const dibit_tensor *const t = infer->tensors ? infer->tensors[i] : NULL;
    if (value->contents && !out->is_float) {
        if (dbt_infer_contents_count(infer, value) == 1) out->dim = value->contents[0];
        out->known = out->dim != DBT_DIM_NONE;
    } else if (t && out->is_float && dbt_tensor_count(t) == 1) {
        dbt_unpack_elements(t->type, t->data, &out->f, 1);
        out->known = true;
    } else if (value->constant && value->constant->data && out->is_float &&
               value->constant->count == 1) {
        dbt_unpack_elements(value->type, value->constant->data, &out->f, 1);
        out->known = true;
    }
    return DIBIT_OK;
}

dibit_status dbt_infer_unknown_rank(const dbt_infer *infer, dibit_type type) {
    dbt_infer_output(infer, 0, type, NULL);
    return DIBIT_OK;
}

void dbt_infer_fresh_shape(const dbt_infer *infer, int32_t rank, dbt_shape *shape) {
    shape->rank = rank;
    for (int32_t i = 0; i < rank; i++) shape->dims[i] = dbt_infer_fresh(infer);
}

/* A value's constant shape as a tensor's; false when it is not constant or too large. */
static bool constant_dims(const dbt_infer *infer, const dbt_value *value, dibit_tensor *t) {
    t->rank = value->shape.rank;
    if (t->rank < 0) return false;
    for (int32_t i = 0; i < t->rank; i++) {
        if (!dbt_dim_is_const(infer->dims, value->shape.dims[i], &t->dims[i])) return false;
    }
    int64_t count;
    return dbt_count(t->rank, t->dims, &count) && count <= DBT_MAX_CONTENTS;
}

/* An input as a tensor: of dims when it is moved, else of its constant values; no data when they are not
 * known. */
static dibit_status contents_tensor(const dbt_infer *infer, const dbt_value *value, bool moved,
                                    dibit_tensor *t) {
    if (!value->contents || !constant_dims(infer, value, t)) return DIBIT_OK;
    t->type = moved                            ? DIBIT_TYPE_INT32
              : value->type == DIBIT_TYPE_BOOL ? DIBIT_TYPE_BOOL
                                               : DIBIT_TYPE_INT64;
    t->data = dbt_arena_array(infer->arena, DBT_MAX_CONTENTS, sizeof(int64_t));
    if (!t->data) return dbt_fail_memory(infer->error, "host values", 0);
    const int64_t n = dbt_tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        int64_t v;
        if (moved) {
            memcpy(dbt_element(t, i), &value->contents[i], sizeof(dbt_dim));
        } else if (!dbt_dim_is_const(infer->dims, value->contents[i], &v)) {
            t->data = NULL;
            return DIBIT_OK;
        } else if (t->type == DIBIT_TYPE_BOOL) {
            *dbt_element(t, i) = v != 0;
        } else {
            memcpy(dbt_element(t, i), &v, sizeof v);
        }
    }
    return DIBIT_OK;
}

dibit_status dbt_infer_moved_contents(const dbt_infer *infer, uint32_t moved,
                                      dibit_status (*run)(const dbt_cpu_call *call)) {
    const uint32_t n_tensors = infer->n_inputs + infer->n_outputs;
    dibit_tensor *const t = dbt_arena_array(infer->arena, n_tensors, sizeof *t);
    const dibit_tensor **const in = dbt_arena_array(infer->arena, infer->n_inputs + 1u, sizeof *in);
    dibit_tensor **const out = dbt_arena_array(infer->arena, infer->n_outputs + 1u, sizeof *out);
    if (!t || !in || !out)
        return dbt_fail_memory(infer->error, "host values", sizeof *t * n_tensors);
    for (uint32_t i = 0; i < infer->n_inputs; i++) {
        if (!infer->in[i]) continue;
        const bool moves = i < 32 ? moved >> i & 1 : moved >> 31;
        DBT_TRY(contents_tensor(infer, infer->in[i], moves, &t[i]));
        if (!t[i].data) return DIBIT_OK;
        in[i] = &t[i];
    }
    for (uint32_t o = 0; o < infer->n_outputs; o++) {
        dibit_tensor *const y = &t[infer->n_inputs + o];
        if (!infer->out[o]) continue;
        if (!dbt_type_in(infer->out[o]->type, DBT_TYPES_INTEGER | DBT_TYPES_BOOL) ||
            !constant_dims(infer, infer->out[o], y)) {
            return DIBIT_OK;
        }
        y->type = DIBIT_TYPE_INT32;
        y->data = dbt_arena_array(infer->arena, DBT_MAX_CONTENTS, sizeof(dbt_dim));
        if (!y->data) return dbt_fail_memory(infer->error, "host values", 0);
        out[o] = y;
    }
    dibit_error ignored; /* the run will say it again, with the values it has then */
    const dbt_cpu_call call = {.node = infer->node,
                               .attrs = infer->attrs,
                               .n_inputs = infer->n_inputs,
                               .n_outputs = infer->n_outputs,
                               .in = in,
                               .out = out,
                               .error = &ignored};
    if (run(&call) != DIBIT_OK) return DIBIT_OK;
    for (uint32_t o = 0; o < infer->n_outputs; o++) {
        if (!out[o]) continue;
        const dbt_dim *const contents = out[o]->data;
        const int64_t n = dbt_tensor_count(out[o]);
        bool known = true;
        for (int64_t i = 0; i < n; i++) known = known && contents[i] != DBT_DIM_NONE;
        if (known) infer->out[o]->contents = contents;
    }
    return DIBIT_OK;
}

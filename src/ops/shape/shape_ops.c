/* Ops about shapes: what a tensor's dims are (Shape, Size), other dims for the same elements
 * (Reshape, Flatten, Squeeze, Unsqueeze: views), and tensors made from dims (ConstantOfShape,
 * Range). Most carry host values, so that shape arithmetic is done while the graph is built. */
#include <math.h>

#include "ops/index/index.h"

typedef struct shape_attrs {
    int64_t start, end;        /* Shape */
    int64_t allowzero;         /* Reshape */
    int64_t axis;              /* Flatten */
    dbt_attr_ints axes;        /* Squeeze, Unsqueeze up to opset 12 */
    const dbt_constant *value; /* ConstantOfShape */
} shape_attrs;

/* ---- Shape, Size ----------------------------------------------------------------------------- */

/* start and end of Shape moved into [0, rank]. */
static void shape_range(const shape_attrs *a, int32_t rank, int32_t *begin, int32_t *end) {
    const int64_t bounds[2] = {a->start, a->end == DBT_ATTR_ABSENT ? rank : a->end};
    int32_t moved[2];
    for (int i = 0; i < 2; i++) {
        const int64_t v = bounds[i] < 0 && bounds[i] >= -rank ? bounds[i] + rank : bounds[i];
        moved[i] = v < 0 ? 0 : v > rank ? rank : (int32_t)v;
    }
    *begin = moved[0];
    *end = moved[1] > moved[0] ? moved[1] : moved[0];
}

static dibit_status shape_infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape;
    int32_t begin, end;
    shape_range(infer->attrs, x->rank, &begin, &end);
    const dbt_shape y = {.rank = 1, .dims = {dbt_dim_const(infer->dims, end - begin)}};
    dbt_infer_output(infer, 0, DIBIT_TYPE_INT64, &y);
    return dbt_infer_set_contents(infer, x->dims + begin, end - begin);
}

static dibit_status shape_run(const dbt_cpu_call *call) {
    const dibit_tensor *const x = call->in[0];
    int32_t begin, end;
    shape_range(call->attrs, x->rank, &begin, &end);
    const int64_t n = end - begin;
    DBT_TRY(dbt_expect_dims(call, 0, 1, &n));
    if (n > 0) memcpy(call->out[0]->data, x->dims + begin, (size_t)n * sizeof *x->dims);
    return DIBIT_OK;
}

static dbt_dim product(const dbt_infer *infer, const dbt_dim *d, int32_t n) {
    dbt_dim p = dbt_dim_const(infer->dims, 1);
    for (int32_t i = 0; i < n; i++) p = dbt_dim_apply(infer->dims, DBT_DIM_MUL, p, d[i]);
    return p;
}

static dibit_status size_infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape, y = {.rank = 0};
    dbt_infer_output(infer, 0, DIBIT_TYPE_INT64, &y);
    const dbt_dim n = product(infer, x->dims, x->rank);
    return dbt_infer_set_contents(infer, &n, 1);
}

static dibit_status size_run(const dbt_cpu_call *call) {
    const int64_t n = dbt_tensor_count(call->in[0]);
    memcpy(call->out[0]->data, &n, sizeof n);
    return DIBIT_OK;
}

/* ---- Views ----------------------------------------------------------------------------------- */

/* The output: input 0's elements, and so its host values, in another shape. */
static dibit_status view_output(const dbt_infer *infer, const dbt_shape *y) {
    const dbt_value *const x = infer->in[0];
    DBT_TRY(dbt_infer_sized(infer, 0, x->type, y));
    if (!x->contents) return DIBIT_OK;
    for (int32_t i = 0; i < y->rank; i++) {
        if (!dbt_dim_is_const(infer->dims, y->dims[i], NULL)) return DIBIT_OK;
    }
    return dbt_infer_set_contents(infer, x->contents, dbt_infer_contents_count(infer, x));
}

static dibit_status view_run(const dbt_cpu_call *call) {
    const int64_t n = dbt_tensor_count(call->in[0]), m = dbt_tensor_count(call->out[0]);
    DBT_FAIL_IF(n != m, call->error, DIBIT_BAD_INPUT,
                "%lld elements do not fit a shape of %lld elements", (long long)n, (long long)m);
    return dbt_cpu_view(call);
}

/* Whether all dims are constants; their product, INT64_MAX when it is beyond any tensor. */
static bool constant_count(const dbt_infer *infer, const dbt_dim *dims, int32_t n, int64_t *count) {
    int64_t v[DIBIT_MAX_RANK];
    for (int32_t i = 0; i < n; i++) {
        if (!dbt_dim_is_const(infer->dims, dims[i], &v[i])) return false;
    }
    if (!dbt_count(n, v, count)) *count = INT64_MAX;
    return true;
}

static bool is_size(const dbt_infer *infer, dbt_dim d) {
    dbt_dims *const dims = infer->dims;
    return dbt_dim_is(dims, dbt_dim_apply(dims, DBT_DIM_LESS, d, dbt_dim_const(dims, 0)), 0);
}

/* The dim written -1: what is left of the input's elements. */
static dibit_status inferred_dim(const dbt_infer *infer, dbt_shape *y, int32_t at) {
    const dbt_shape *const x = &infer->in[0]->shape;
    dbt_dim others[DIBIT_MAX_RANK];
    int32_t n = 0;
    int64_t have, rest;
    for (int32_t i = 0; i < y->rank; i++) {
        if (i != at) others[n++] = y->dims[i];
    }
    for (int32_t i = 0; i < n; i++) {
        DBT_FAIL_IF(dbt_dim_is(infer->dims, others[i], 0), infer->error, DIBIT_BAD_FILE,
                    "a dim of -1 beside one of 0 could be anything");
    }
    if (constant_count(infer, x->dims, x->rank, &have) && constant_count(infer, others, n, &rest)) {
        DBT_FAIL_IF(have % rest != 0, infer->error, DIBIT_BAD_FILE,
                    "%lld elements do not divide into groups of %lld", (long long)have,
                    (long long)rest);
    }
    y->dims[at] = dbt_dim_quotient(infer->dims, x->dims, x->rank, others, n);
    return DIBIT_OK;
}

/* A dim written 0 is the input's. The name of a size stays as it is, also when its value is 0. */
static dibit_status copied_dim(const dbt_infer *infer, dbt_shape *y, int32_t i) {
    dbt_dims *const dims = infer->dims;
    const dbt_shape *const x = &infer->in[0]->shape;
    const bool zero = dbt_dim_is(dims, y->dims[i], 0);
    DBT_FAIL_IF(zero && i >= x->rank, infer->error, DIBIT_BAD_FILE,
                "dim %d of the shape is 0, the input has rank %d", (int)i, (int)x->rank);
    if (zero) {
        y->dims[i] = x->dims[i];
    } else if (!is_size(infer, y->dims[i]) && i < x->rank) {
        const dbt_dim is_zero =
            dbt_dim_apply(dims, DBT_DIM_EQUAL, y->dims[i], dbt_dim_const(dims, 0));
        y->dims[i] = dbt_dim_select(dims, is_zero, x->dims[i], y->dims[i]);
    }
    return DIBIT_OK;
}

/* Dims that only a run will show to be -1. */
static void possibly_inferred_dims(const dbt_infer *infer, const dbt_dim *wanted, dbt_shape *y) {
    dbt_dims *const dims = infer->dims;
    const dbt_shape *const x = &infer->in[0]->shape, given = *y;
    for (int32_t i = 0; i < y->rank; i++) {
        if (is_size(infer, wanted[i])) continue;
        dbt_dim others[DIBIT_MAX_RANK];
        int32_t n = 0;
        for (int32_t k = 0; k < y->rank; k++) {
            if (k != i) others[n++] = given.dims[k];
        }
        const dbt_dim rest = dbt_dim_quotient(dims, x->dims, x->rank, others, n);
        const dbt_dim open = dbt_dim_apply(dims, DBT_DIM_EQUAL, wanted[i], dbt_dim_const(dims, -1));
        y->dims[i] = dbt_dim_select(dims, open, rest, given.dims[i]);
    }
}

static dibit_status reshape_infer(dbt_infer *infer) {
    const shape_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPE_BIT(DIBIT_TYPE_INT64)));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    int64_t n;
    DBT_TRY(dbt_infer_list_length(infer, 1, DIBIT_MAX_RANK, &n));
    if (n < 0) return dbt_infer_unknown_rank(infer, infer->in[0]->type);
    const dbt_shape *const x = &infer->in[0]->shape;
    const dbt_dim *const wanted = infer->in[1]->contents;
    dbt_shape y = {.rank = (int32_t)n};
    int32_t unknown = -1;
    if (!wanted) {
        dbt_infer_fresh_shape(infer, (int32_t)n, &y);
        return view_output(infer, &y);
    }
    for (int32_t i = 0; i < y.rank; i++) {
        int64_t v;
        y.dims[i] = wanted[i];
        DBT_FAIL_IF(dbt_dim_is_const(infer->dims, wanted[i], &v) && v < -1, infer->error,
                    DIBIT_BAD_FILE, "dim %d of the shape is %lld", (int)i, (long long)v);
        if (dbt_dim_is(infer->dims, wanted[i], -1)) {
            DBT_FAIL_IF(unknown >= 0, infer->error, DIBIT_BAD_FILE, "the shape has two dims of -1");
            unknown = i;
        } else if (!a->allowzero) {
            DBT_TRY(copied_dim(infer, &y, i));
        }
    }
    int64_t have, want;
    if (unknown >= 0) {
        DBT_TRY(inferred_dim(infer, &y, unknown));
    } else if (constant_count(infer, x->dims, x->rank, &have) &&
               constant_count(infer, y.dims, y.rank, &want)) {
        DBT_FAIL_IF(have != want, infer->error, DIBIT_BAD_FILE,
                    "%lld elements do not fit a shape of %lld elements", (long long)have,
                    (long long)want);
    } else {
        possibly_inferred_dims(infer, wanted, &y);
    }
    return view_output(infer, &y);
}

static dibit_status flatten_infer(dbt_infer *infer) {
    const shape_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape;
    DBT_FAIL_IF(a->axis < -x->rank || a->axis > x->rank, infer->error, DIBIT_BAD_FILE,
                "axis %lld is out of range for rank %d", (long long)a->axis, (int)x->rank);
    const int32_t axis = (int32_t)(a->axis < 0 ? a->axis + x->rank : a->axis);
    const dbt_shape y = {
        .rank = 2,
        .dims = {product(infer, x->dims, axis), product(infer, x->dims + axis, x->rank - axis)}};
    return view_output(infer, &y);
}

/* The axes of Squeeze and Unsqueeze as a set over `rank` axes; *known false when they
 * are not. */
static dibit_status read_axes(const dbt_infer *infer, int32_t rank, bool *in_set, bool *known) {
    const shape_attrs *const a = infer->attrs;
    int64_t axes[DIBIT_MAX_RANK];
    uint32_t n = a->axes.n;
    *known = true;
    if (a->axes.v) {
        DBT_FAIL_IF(n > DIBIT_MAX_RANK, infer->error, DIBIT_BAD_FILE,
                    "attribute 'axes' has %u axes", (unsigned)n);
        memcpy(axes, a->axes.v, n * sizeof *axes);
    } else {
        DBT_TRY(dbt_infer_constants(infer, 1, DIBIT_MAX_RANK, axes, &n, known));
    }
    for (uint32_t i = 0; *known && i < n; i++) {
        int32_t axis;
        DBT_TRY(dbt_infer_axis(infer, axes[i], rank, "axis", &axis));
        DBT_FAIL_IF(in_set[axis], infer->error, DIBIT_BAD_FILE, "axis %d is given twice",
                    (int)axis);
        in_set[axis] = true;
    }
    return DIBIT_OK;
}

/* How many axes there are, -1 when not even that is known. */
static dibit_status count_axes(const dbt_infer *infer, int64_t *n) {
    const shape_attrs *const a = infer->attrs;
    *n = a->axes.n;
    return a->axes.v ? DIBIT_OK : dbt_infer_list_length(infer, 1, DIBIT_MAX_RANK, n);
}

static dibit_status squeeze_infer(dbt_infer *infer) {
    const shape_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape;
    bool in_set[DIBIT_MAX_RANK] = {false}, known;
    int64_t n;
    dbt_shape y = {.rank = 0};
    DBT_TRY(count_axes(infer, &n));
    DBT_TRY(read_axes(infer, x->rank, in_set, &known));
    const bool given = a->axes.v || (infer->n_inputs > 1 && infer->in[1]);
    if (!known) {
        if (n < 0 || n > x->rank) return dbt_infer_unknown_rank(infer, infer->in[0]->type);
        dbt_infer_fresh_shape(infer, x->rank - (int32_t)n, &y);
        return view_output(infer, &y);
    }
    for (int32_t i = 0; i < x->rank; i++) {
        const bool one = dbt_dim_is(infer->dims, x->dims[i], 1);
        const bool constant = dbt_dim_is_const(infer->dims, x->dims[i], NULL);
        if (!given && !constant) return dbt_infer_unknown_rank(infer, infer->in[0]->type);
        DBT_FAIL_IF(in_set[i] && constant && !one, infer->error, DIBIT_BAD_FILE, "dim %d is not 1",
                    (int)i);
        if (given ? !in_set[i] : !one) y.dims[y.rank++] = x->dims[i];
    }
    return view_output(infer, &y);
}

static dibit_status unsqueeze_infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape;
    bool in_set[DIBIT_MAX_RANK] = {false}, known;
    int64_t n;
    DBT_TRY(count_axes(infer, &n));
    if (n < 0) return dbt_infer_unknown_rank(infer, infer->in[0]->type);
    dbt_shape y = {.rank = x->rank + (int32_t)n};
    DBT_FAIL_IF(y.rank > DIBIT_MAX_RANK, infer->error, DIBIT_TOO_LARGE,
                "the output would have %d dims, at most %d are supported", (int)y.rank,
                DIBIT_MAX_RANK);
    DBT_TRY(read_axes(infer, y.rank, in_set, &known));
    if (!known) dbt_infer_fresh_shape(infer, y.rank, &y);
    for (int32_t i = 0, from = 0; known && i < y.rank; i++) {
        y.dims[i] = in_set[i] ? dbt_dim_const(infer->dims, 1) : x->dims[from++];
    }
    return view_output(infer, &y);
}

/* ---- ConstantOfShape ------------------------------------------------------------------------- */

static dibit_status constant_of_shape_infer(dbt_infer *infer) {
    const shape_attrs *const a = infer->attrs;
    const dibit_type type = a->value ? a->value->type : DIBIT_TYPE_FLOAT;
    DBT_FAIL_IF(!dbt_type_in(type, DBT_TYPES_VALUE), infer->error, DIBIT_UNSUPPORTED,
                "an output of type %s", dibit_type_name(type));
    DBT_FAIL_IF(a->value && (a->value->count != 1 || !a->value->data), infer->error, DIBIT_BAD_FILE,
                "attribute 'value' must have one element, got %lld", (long long)a->value->count);
    int64_t n;
    DBT_TRY(dbt_infer_list_length(infer, 0, DIBIT_MAX_RANK, &n));
    if (n < 0) return dbt_infer_unknown_rank(infer, type);
    dbt_shape y = {.rank = (int32_t)n};
    if (infer->in[0]->contents) {
        memcpy(y.dims, infer->in[0]->contents, (size_t)n * sizeof *y.dims);
    } else {
        dbt_infer_fresh_shape(infer, (int32_t)n, &y);
    }
    DBT_TRY(dbt_infer_sized(infer, 0, type, &y));
    int64_t count, value = 0;
    if (!dbt_type_in(type, DBT_TYPES_INTEGER | DBT_TYPES_BOOL) ||
        !constant_count(infer, y.dims, y.rank, &count) || count > DBT_MAX_CONTENTS) {
        return DIBIT_OK;
    }
    char bytes[8] = {0};
    dbt_dim contents[DBT_MAX_CONTENTS];
    if (a->value) dbt_unpack_elements(type, a->value->data, bytes, 1);
    switch (type) { /* sign-extend */
    case DIBIT_TYPE_INT8: value = (int8_t)bytes[0]; break;
    case DIBIT_TYPE_INT16: {
        int16_t v;
        memcpy(&v, bytes, sizeof v);
        value = v;
        break;
    }
    case DIBIT_TYPE_INT32: {
        int32_t v;
        memcpy(&v, bytes, sizeof v);
        value = v;
        break;
    }
    default: memcpy(&value, bytes, sizeof value);
    }
    for (int64_t i = 0; i < count; i++) contents[i] = dbt_dim_const(infer->dims, value);
    return dbt_infer_set_contents(infer, contents, count);
}

static dibit_status constant_of_shape_run(const dbt_cpu_call *call) {
    const shape_attrs *const a = call->attrs;
    dibit_tensor *const y = call->out[0];
    int64_t dims[DIBIT_MAX_RANK], n;
    DBT_TRY(dbt_read_list(call, 0, DIBIT_MAX_RANK, dims, &n));
    DBT_TRY(dbt_expect_dims(call, 0, (int32_t)n, dims));
    char value[8] = {0};
    if (a->value) dbt_unpack_elements(a->value->type, a->value->data, value, 1);
    const int64_t count = dbt_tensor_count(y);
    const dbt_strided copy = {.rank = 1, .dims = {count}, .dst_stride = {1}};
    dbt_strided_copy(call->pool, &copy, dbt_element_bytes(y), y->data, value);
    return DIBIT_OK;
}

/* ---- Range ----------------------------------------------------------------------------------- */

/* max(ceil((limit - start) / delta), 0) */
static dibit_status range_length(const dbt_infer *infer, const dbt_scalar *s, dbt_dim *out) {
    dbt_dims *const dims = infer->dims;
    const dbt_scalar *const start = &s[0], *const limit = &s[1], *const delta = &s[2];
    int64_t first, last, step;
    *out = DBT_DIM_NONE;
    if (start->is_float) {
        const double n = ceil(((double)limit->f - (double)start->f) / (double)delta->f);
        DBT_FAIL_IF(!(n <= (double)DBT_MAX_ELEMENTS), infer->error, DIBIT_TOO_LARGE,
                    "a range of %g elements", n);
        *out = dbt_dim_const(dims, n > 0 ? (int64_t)n : 0);
        return DIBIT_OK;
    }
    if (!dbt_dim_is_const(dims, delta->dim, &step)) {
        *out = dbt_infer_fresh(infer);
        return DIBIT_OK;
    }
    DBT_FAIL_IF(step == 0, infer->error, DIBIT_BAD_FILE, "a range with a delta of 0");
    const dbt_dim from = step > 0 ? start->dim : limit->dim,
                  to = step > 0 ? limit->dim : start->dim;
    if (dbt_dim_is_const(dims, from, &first) && dbt_dim_is_const(dims, to, &last)) {
        const uint64_t stride = step > 0 ? (uint64_t)step : 0u - (uint64_t)step;
        const uint64_t n = last <= first ? 0 : ((uint64_t)last - (uint64_t)first - 1) / stride + 1;
        DBT_FAIL_IF(n > (uint64_t)DBT_MAX_ELEMENTS, infer->error, DIBIT_TOO_LARGE,
                    "a range of %llu elements", (unsigned long long)n);
        *out = dbt_dim_const(dims, (int64_t)n);
        return DIBIT_OK;
    }
    const int64_t stride = step > 0 ? step : step == INT64_MIN ? INT64_MAX : -step;
    const dbt_dim span = dbt_dim_apply(dims, DBT_DIM_SUB, to, from);
    const dbt_dim n = dbt_dim_apply(dims, DBT_DIM_CEIL_DIV, span, dbt_dim_const(dims, stride));
    *out = dbt_dim_apply(dims, DBT_DIM_MAX, n, dbt_dim_const(dims, 0));
    return DIBIT_OK;
}

static dibit_status range_infer(dbt_infer *infer) {
    dbt_dims *const dims = infer->dims;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_NUMBER));
    dbt_scalar s[3];
    bool known = true;
    for (uint32_t i = 0; i < 3; i++) {
        DBT_TRY(dbt_infer_same_type(infer, 0, i));
        DBT_TRY(dbt_infer_scalar(infer, i, &s[i]));
        known = known && s[i].known;
    }
    dbt_dim n;
    if (known) {
        DBT_TRY(range_length(infer, s, &n));
    } else {
        n = dbt_infer_fresh(infer);
    }
    const dbt_shape y = {.rank = 1, .dims = {n}};
    DBT_TRY(dbt_infer_sized(infer, 0, infer->in[0]->type, &y));
    int64_t count;
    if (!known || s[0].is_float || !dbt_dim_is_const(dims, n, &count) || count > DBT_MAX_CONTENTS) {
        return DIBIT_OK;
    }
    dbt_dim contents[DBT_MAX_CONTENTS], at = s[0].dim;
    for (int64_t i = 0; i < count; i++) {
        contents[i] = at;
        if (i + 1 < count) at = dbt_dim_apply(dims, DBT_DIM_ADD, at, s[2].dim);
    }
    return dbt_infer_set_contents(infer, contents, count);
}

static dibit_status range_run(const dbt_cpu_call *call) {
    dibit_tensor *const y = call->out[0];
    const int64_t n = dbt_tensor_count(y);
    if (y->type == DIBIT_TYPE_FLOAT) {
        const float *const start = call->in[0]->data, *const delta = call->in[2]->data;
        float *const out = y->data;
        for (int64_t i = 0; i < n; i++) out[i] = *start + (float)i * *delta;
        return DIBIT_OK;
    }
    /* Little-endian integers wrap alike whatever their size. */
    uint64_t at = 0, step = 0;
    const uint32_t bytes = dbt_element_bytes(y);
    memcpy(&at, call->in[0]->data, bytes);
    memcpy(&step, call->in[2]->data, bytes);
    for (int64_t i = 0; i < n; i++, at += step) memcpy(dbt_element(y, i), &at, bytes);
    return DIBIT_OK;
}

/* ---- The table ------------------------------------------------------------------------------- */

#define INT(field, value)                                                                          \
    {.name = #field, .kind = DBT_ATTR_INT, .offset = offsetof(shape_attrs, field), .i = (value)}

static const dbt_attr_def shape_defs[] = {INT(start, 0), INT(end, DBT_ATTR_ABSENT)};
static const dbt_attr_def reshape_defs[] = {INT(allowzero, 0)};
static const dbt_attr_def flatten_defs[] = {INT(axis, 1)};
static const dbt_attr_def squeeze_defs[] = {
    {.name = "axes", .kind = DBT_ATTR_INTS, .offset = offsetof(shape_attrs, axes)}};
static const dbt_attr_def unsqueeze_defs[] = {{.name = "axes",
                                               .kind = DBT_ATTR_INTS,
                                               .required = true,
                                               .offset = offsetof(shape_attrs, axes)}};
static const dbt_attr_def constant_of_shape_defs[] = {
    {.name = "value", .kind = DBT_ATTR_TENSOR, .offset = offsetof(shape_attrs, value)}};

#define OP(name_, since_, until_, min_in, max_in, function)                                        \
    .domain = "", .name = name_, .since = since_, .until = until_, .min_inputs = min_in,           \
    .max_inputs = max_in, .min_outputs = 1, .max_outputs = 1, .infer = function##_infer,           \
    .attrs_bytes = sizeof(shape_attrs)
#define ATTRS(table) .attrs = table, .n_attrs = sizeof(table) / sizeof *(table)
#define VIEW                                                                                       \
    .flags = DBT_OP_VIEW, .cpu_run = view_run, .cpu_bound = dbt_cpu_exact_bound,                   \
    .gpu_encode = dbt_gpu_view

const dbt_op dbt_shape_ops[] = {
    {OP("Shape", 1, 0, 1, 1, shape), ATTRS(shape_defs), .cpu_run = shape_run},
    {OP("Size", 1, 0, 1, 1, size), .cpu_run = size_run},
    {OP("Reshape", 5, 0, 2, 2, reshape), ATTRS(reshape_defs), VIEW, .host_inputs = 2},
    {OP("Flatten", 1, 0, 1, 1, flatten), ATTRS(flatten_defs), VIEW},
    {OP("Squeeze", 1, 12, 1, 1, squeeze), ATTRS(squeeze_defs), VIEW},
    {OP("Squeeze", 13, 0, 1, 2, squeeze), VIEW, .host_inputs = 2},
    {OP("Unsqueeze", 1, 12, 1, 1, unsqueeze), ATTRS(unsqueeze_defs), VIEW},
    {OP("Unsqueeze", 13, 0, 2, 2, unsqueeze), VIEW, .host_inputs = 2},
    {OP("ConstantOfShape", 9, 0, 1, 1, constant_of_shape), ATTRS(constant_of_shape_defs),
     .cpu_run = constant_of_shape_run, .host_inputs = 1},
    {OP("Range", 11, 0, 3, 3, range), .cpu_run = range_run, .host_inputs = 7},
    {.name = NULL},
};

/* The Reduce* ops: table, inference, host values, bounds. The axes are an attribute at first, and an
 * input since opset 13 (Sum) or 18 (the others). */
#include "ops/reduce/reduce.h"

#include <string.h>

#include <math.h>

typedef struct reduce_attrs {
    dbt_attr_ints axes;
    int64_t keepdims, noop_with_empty_axes;
} reduce_attrs;

static const dbt_attr_def attribute_form[] = {
    {.name = "axes", .kind = DBT_ATTR_INTS, .offset = offsetof(reduce_attrs, axes)},
    {.name = "keepdims", .kind = DBT_ATTR_INT, .i = 1, .offset = offsetof(reduce_attrs, keepdims)},
};
static const dbt_attr_def input_form[] = {
    {.name = "keepdims", .kind = DBT_ATTR_INT, .i = 1, .offset = offsetof(reduce_attrs, keepdims)},
    {.name = "noop_with_empty_axes",
     .kind = DBT_ATTR_INT,
     .offset = offsetof(reduce_attrs, noop_with_empty_axes)},
};

static dibit_status mask_of(const reduce_attrs *attrs, const int64_t *axes, int64_t n, int32_t rank,
                            uint32_t *mask, dibit_error *error) {
    *mask = n == 0 && !attrs->noop_with_empty_axes ? (1u << rank) - 1 : 0;
    for (int64_t i = 0; i < n; i++) {
        DBT_FAIL_IF(axes[i] < -(int64_t)rank || axes[i] >= rank, error, DIBIT_BAD_FILE,
                    "axis %lld is out of range for rank %d", (long long)axes[i], (int)rank);
        *mask |= 1u << (axes[i] < 0 ? axes[i] + rank : axes[i]);
    }
    return DIBIT_OK;
}

int32_t dbt_reduce_only_axis(const dbt_node *node) {
    const reduce_attrs *const attrs = node->attrs;
    const dbt_constant *const input =
        node->n_inputs > 1 && node->inputs[1] ? node->inputs[1]->constant : NULL;
    const int32_t rank = node->inputs[0]->shape.rank;
    int64_t axis = rank;
    if (attrs->axes.v && attrs->axes.n == 1) {
        axis = attrs->axes.v[0];
    } else if (!attrs->axes.v && input && input->count == 1 && input->data &&
               input->type == DIBIT_TYPE_INT64) {
        memcpy(&axis, input->data, sizeof axis);
    }
    if (axis < 0) axis += rank;
    return attrs->keepdims && axis >= 0 && axis < rank ? (int32_t)axis : -1;
}

/* The axes as known now; *known false when they come from a computed input. */
static dibit_status infer_mask(const dbt_infer *infer, uint32_t *mask, bool *known) {
    const reduce_attrs *const attrs = infer->attrs;
    int64_t axes[DBT_MAX_CONTENTS];
    uint32_t n = 0;
    const int32_t rank = infer->in[0]->shape.rank;
    *known = true;
    if (attrs->axes.v) {
        return mask_of(attrs, attrs->axes.v, attrs->axes.n, rank, mask, infer->error);
    }
    DBT_TRY(dbt_infer_constants(infer, 1, DBT_MAX_CONTENTS, axes, &n, known));
    if (!*known) return DIBIT_OK;
    return mask_of(attrs, axes, n, rank, mask, infer->error);
}

static dbt_dim combine(dbt_dims *dims, dbt_reduce_kind kind, dbt_dim a, dbt_dim b) {
    switch (kind) {
    case DBT_REDUCE_SUM: return dbt_dim_apply(dims, DBT_DIM_ADD, a, b);
    case DBT_REDUCE_PROD: return dbt_dim_apply(dims, DBT_DIM_MUL, a, b);
    case DBT_REDUCE_MAX: return dbt_dim_apply(dims, DBT_DIM_MAX, a, b);
    case DBT_REDUCE_MIN: return dbt_dim_apply(dims, DBT_DIM_MIN, a, b);
    default: return DBT_DIM_NONE;
    }
}

/* Host values: of an int64 or int32 with at least one element to reduce. */
static dibit_status infer_contents(const dbt_infer *infer, uint32_t mask) {
    const dbt_value *const x = infer->in[0];
    const dbt_reduce_kind kind = (dbt_reduce_kind)infer->node->op->kind;
    if (!x->contents || !dbt_type_in(x->type, DBT_TYPES_INDEX)) return DIBIT_OK;
    dibit_tensor t = {.type = x->type, .rank = x->shape.rank};
    for (int32_t i = 0; i < t.rank; i++) {
        dbt_dim_is_const(infer->dims, x->shape.dims[i], &t.dims[i]);
    }
    const dbt_reduce_plan p = dbt_reduce_make_plan(&t, mask);
    if (p.count == 0 || p.outputs > DBT_MAX_CONTENTS) return DIBIT_OK;
    dbt_dim contents[DBT_MAX_CONTENTS];
    const int64_t width = p.columns ? p.n : 1, n = p.columns ? 1 : p.n;
    for (int64_t o = 0; o < p.outputs; o++) {
        const int64_t base = dbt_reduce_offset(&p.kept, o / width) + o % width;
        dbt_dim a = DBT_DIM_NONE;
        for (int64_t k = 0; k < p.reduced.count * n; k++) {
            const dbt_dim v = x->contents[base + dbt_reduce_offset(&p.reduced, k / n) + k % n];
            a = k == 0 ? v : combine(infer->dims, kind, a, v);
        }
        int64_t value;
        if (x->type == DIBIT_TYPE_INT32 && dbt_dim_is_const(infer->dims, a, &value) &&
            (value < INT32_MIN || value > INT32_MAX)) {
            return DIBIT_OK; /* it wraps */
        }
        contents[o] = combine(infer->dims, kind, a, a) == DBT_DIM_NONE ? DBT_DIM_NONE : a;
    }
    return dbt_infer_set_contents(infer, contents, p.outputs);
}

/* Axes that only a run can tell: with keepdims the rank is known, without it is if their number is. */
static dibit_status infer_unknown_axes(const dbt_infer *infer) {
    const reduce_attrs *const attrs = infer->attrs;
    const dbt_value *const axes = infer->in[1];
    dbt_shape shape = infer->in[0]->shape;
    int64_t n = 0;
    if (!attrs->keepdims) {
        const bool known =
            axes->shape.rank == 1 && dbt_dim_is_const(infer->dims, axes->shape.dims[0], &n);
        DBT_FAIL_IF(!known || n <= 0 || n > shape.rank, infer->error, DIBIT_UNSUPPORTED,
                    "how many axes are reduced must be known");
        shape.rank -= (int32_t)n;
    }
    for (int32_t i = 0; i < shape.rank; i++) shape.dims[i] = dbt_infer_fresh(infer);
    dbt_infer_output(infer, 0, infer->in[0]->type, &shape);
    return DIBIT_OK;
}

static dibit_status infer(dbt_infer *infer) {
    const reduce_attrs *const attrs = infer->attrs;
    const dbt_reduce_kind kind = (dbt_reduce_kind)infer->node->op->kind;
    const bool picks = kind == DBT_REDUCE_MAX || kind == DBT_REDUCE_MIN;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_NUMBER | (picks ? DBT_TYPES_BOOL : 0)));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPE_BIT(DIBIT_TYPE_INT64)));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(infer, 1, 0, 1));
    uint32_t mask;
    bool known;
    DBT_TRY(infer_mask(infer, &mask, &known));
    if (!known) return infer_unknown_axes(infer);
    const dbt_shape *const x = &infer->in[0]->shape;
    dbt_shape shape = {0};
    for (int32_t i = 0; i < x->rank; i++) {
        if (!(mask >> i & 1)) {
            shape.dims[shape.rank++] = x->dims[i];
        } else if (attrs->keepdims) {
            shape.dims[shape.rank++] = dbt_dim_const(infer->dims, 1);
        }
    }
    dbt_infer_output(infer, 0, infer->in[0]->type, &shape);
    return infer_contents(infer, mask);
}

static dibit_status make_plan(const dbt_node *node, const dibit_tensor *const *in,
                              const dibit_tensor *out, dibit_error *error, dbt_reduce_plan *plan) {
    const reduce_attrs *const attrs = node->attrs;
    const dibit_tensor *const axes = node->n_inputs > 1 ? in[1] : NULL;
    uint32_t mask;
    DBT_TRY(mask_of(attrs, axes ? axes->data : attrs->axes.v,
                    axes ? dbt_tensor_count(axes) : attrs->axes.n, in[0]->rank, &mask, error));
    *plan = dbt_reduce_make_plan(in[0], mask);
    DBT_FAIL_IF(plan->outputs != dbt_tensor_count(out), error, DIBIT_BAD_INPUT,
                "the axes do not fit the result's shape");
    return DIBIT_OK;
}

static dibit_status encode(const dbt_gpu_call *call) {
    dbt_reduce_plan plan;
    DBT_TRY(make_plan(call->node, call->in, call->out[0], call->error, &plan));
    return dbt_reduce_record(call, &plan);
}

static dibit_status run(const dbt_cpu_call *call) {
    dbt_reduce_plan plan;
    DBT_TRY(make_plan(call->node, call->in, call->out[0], call->error, &plan));
    const dbt_reduce_kind kind = (dbt_reduce_kind)call->node->op->kind;
    if (call->in[0]->type == DIBIT_TYPE_FLOAT) {
        dbt_reduce_float(kind, &plan, call->in[0]->data, call->out[0]->data, call->pool);
    } else {
        dbt_reduce_integer(kind, &plan, call->in[0], call->out[0]->data, call->pool);
    }
    return DIBIT_OK;
}

/* gamma_n * sum |x| for sums of n; a root halves the relative error, a logarithm makes it absolute.
 * For log-sum-exp the exponents' rounding adds at most d * e^-d <= 0.37 each. */
static dibit_status bound(const dbt_cpu_call *call, float *const *bounds) {
    if (!bounds[0]) return DIBIT_OK;
    dbt_reduce_plan p;
    DBT_TRY(make_plan(call->node, call->in, call->out[0], call->error, &p));
    const float *const y = call->out[0]->data, u = 0x1p-24f, n = (float)p.count;
    float *const b = bounds[0];
    dbt_reduce_float(DBT_REDUCE_L1, &p, call->in[0]->data, b, NULL);
    for (int64_t i = 0; i < p.outputs; i++) {
        const float a = fabsf(y[i]), s = b[i];
        switch ((dbt_reduce_kind)call->node->op->kind) {
        case DBT_REDUCE_MAX:
        case DBT_REDUCE_MIN: b[i] = 0; break;
        case DBT_REDUCE_SUM:
        case DBT_REDUCE_L1: b[i] = n * u * s; break;
        case DBT_REDUCE_MEAN: b[i] = (n + 1) * u * s / n; break;
        case DBT_REDUCE_LOG_SUM: b[i] = n * u * s / expf(y[i]) + 4 * u * a; break;
        case DBT_REDUCE_LOG_SUM_EXP: b[i] = u * (2 * n + 8 + 8 * a); break;
        default: b[i] = (n + 2) * u * a; break;
        }
    }
    return DIBIT_OK;
}

#define REDUCE(name_, since_, until_, kind_, form_, max_inputs_)                                   \
    {.domain = "",                                                                                 \
     .name = (name_),                                                                              \
     .since = (since_),                                                                            \
     .until = (until_),                                                                            \
     .min_inputs = 1,                                                                              \
     .max_inputs = (max_inputs_),                                                                  \
     .min_outputs = 1,                                                                             \
     .max_outputs = 1,                                                                             \
     .kind = (kind_),                                                                              \
     .host_inputs = 2,                                                                             \
     .attrs = (form_),                                                                             \
     .n_attrs = 2,                                                                                 \
     .attrs_bytes = sizeof(reduce_attrs),                                                          \
     .infer = infer,                                                                               \
     .cpu_run = run,                                                                               \
     .cpu_bound = bound,                                                                           \
     .gpu_encode = encode,                                                                         \
     .gpu_refuses = dbt_reduce_refuses}
#define REDUCE_SINCE(name_, input_since_, kind_)                                                   \
    REDUCE(name_, 1, (input_since_) - 1, kind_, attribute_form, 1),                                \
        REDUCE(name_, input_since_, 0, kind_, input_form, 2)

const dbt_op dbt_reduce_ops[] = {
    REDUCE_SINCE("ReduceSum", 13, DBT_REDUCE_SUM),
    REDUCE_SINCE("ReduceMean", 18, DBT_REDUCE_MEAN),
    REDUCE_SINCE("ReduceMax", 18, DBT_REDUCE_MAX),
    REDUCE_SINCE("ReduceMin", 18, DBT_REDUCE_MIN),
    REDUCE_SINCE("ReduceProd", 18, DBT_REDUCE_PROD),
    REDUCE_SINCE("ReduceL1", 18, DBT_REDUCE_L1),
    REDUCE_SINCE("ReduceL2", 18, DBT_REDUCE_L2),
    REDUCE_SINCE("ReduceLogSum", 18, DBT_REDUCE_LOG_SUM),
    REDUCE_SINCE("ReduceLogSumExp", 18, DBT_REDUCE_LOG_SUM_EXP),
    REDUCE_SINCE("ReduceSumSquare", 18, DBT_REDUCE_SUM_SQUARE),
    {0},
};

/* Pow: the exponent may have another type than the base, which the result takes. */
#include "base/math.h"
#include "ops/elementwise/unary.h"

static const uint32_t base_types =
    DBT_TYPES_FLOAT | DBT_TYPE_BIT(DIBIT_TYPE_INT32) | DBT_TYPE_BIT(DIBIT_TYPE_INT64);

static dibit_status infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, base_types));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPES_NUMBER));
    dbt_shape shape;
    DBT_TRY(dbt_infer_broadcast(infer, &infer->in[0]->shape, &infer->in[1]->shape, &shape));
    dbt_infer_output(infer, 0, infer->in[0]->type, &shape);
    return DIBIT_OK;
}

/* An element of any type: as an integer (0 for floats) and as a double. */
typedef struct number {
    int64_t i;
    double f;
} number;

static number load(const dibit_tensor *t, int64_t at) {
    int64_t i = 0;
    switch (t->type) {
    case DIBIT_TYPE_FLOAT: return (number){0, (double)((const float *)t->data)[at]};
    case DIBIT_TYPE_INT8: i = ((const int8_t *)t->data)[at]; break;
    case DIBIT_TYPE_INT16: i = ((const int16_t *)t->data)[at]; break;
    case DIBIT_TYPE_INT32: i = ((const int32_t *)t->data)[at]; break;
    case DIBIT_TYPE_UINT8: i = ((const uint8_t *)t->data)[at]; break;
    case DIBIT_TYPE_UINT16: i = ((const uint16_t *)t->data)[at]; break;
    case DIBIT_TYPE_UINT32: i = ((const uint32_t *)t->data)[at]; break;
    default: i = ((const int64_t *)t->data)[at]; break; /* a uint64 of 2^63 is beyond any use */
    }
    return (number){i, (double)i};
}

/* Wraps; a negative power is 1 / x^n, truncated. */
static int64_t integer_power(int64_t x, int64_t n) {
    if (n < 0) return x == 1 ? 1 : x == -1 ? (n % 2 ? -1 : 1) : 0;
    uint64_t r = 1;
    for (uint64_t b = (uint64_t)x; n > 0; n /= 2, b *= b) {
        if (n % 2) r *= b;
    }
    return (int64_t)r;
}

static int64_t truncated(double v) {
    if (v != v) return 0;
    if (v >= 0x1p63) return INT64_MAX;
    return v < -0x1p63 ? INT64_MIN : (int64_t)v;
}

typedef struct pow_call {
    const dibit_tensor *base, *exponent;
    dibit_tensor *y;
    int64_t base_step, exponent_step;
} pow_call;

static void pow_run(const void *ctx, const int64_t *in, int64_t out, int64_t n) {
    const pow_call *const c = ctx;
    for (int64_t i = 0; i < n; i++) {
        const number x = load(c->base, in[0] + i * c->base_step);
        const number e = load(c->exponent, in[1] + i * c->exponent_step);
        if (c->base->type == DIBIT_TYPE_FLOAT) {
            ((float *)c->y->data)[out + i] = powf((float)x.f, (float)e.f);
            continue;
        }
        const int64_t r = c->exponent->type == DIBIT_TYPE_FLOAT ? truncated(pow(x.f, e.f))
                                                                : integer_power(x.i, e.i);
        if (c->base->type == DIBIT_TYPE_INT32) {
            ((int32_t *)c->y->data)[out + i] = (int32_t)(uint32_t)(uint64_t)r;
        } else {
            ((int64_t *)c->y->data)[out + i] = r;
        }
    }
}

static dibit_status run(const dbt_cpu_call *call) {
    pow_call c = {.base = call->in[0], .exponent = call->in[1], .y = call->out[0]};
    dibit_tensor scalar;
    float exponent;
    /* x ^ 2 with an integer 2 is as common as with a float one. */
    if (c.base->type == DIBIT_TYPE_FLOAT && dbt_tensor_count(c.exponent) == 1) {
        exponent = (float)load(c.exponent, 0).f;
        scalar = *c.exponent;
        scalar.type = DIBIT_TYPE_FLOAT;
        scalar.data = &exponent;
        c.exponent = &scalar;
    }
    if (c.base->type == DIBIT_TYPE_FLOAT && c.exponent->type == DIBIT_TYPE_FLOAT) {
        return dbt_binary_run(DBT_BINARY_POW, c.base, c.exponent, c.y, call);
    }
    dbt_broadcast plan;
    DBT_TRY(dbt_broadcast_plan(c.y, (const dibit_tensor *const[]){c.base, c.exponent}, 2, &plan,
                               call->error));
    c.base_step = plan.step[0];
    c.exponent_step = plan.step[1];
    dbt_broadcast_for(&plan, call->pool, dbt_binary_cost(DBT_BINARY_POW), pow_run, &c);
    return DIBIT_OK;
}

/* On a device a power is as good as its logarithm is exact: only those that need none are there. */
static bool unary_form(const dbt_node *node, dbt_unary_kind *kind) {
    static const struct {
        double exponent;
        dbt_unary_kind kind;
    } forms[] = {{2, DBT_UNARY_SQUARE},
                 {3, DBT_UNARY_CUBE},
                 {0.5, DBT_UNARY_SQRT},
                 {-0.5, DBT_UNARY_INVERSE_SQRT},
                 {-1, DBT_UNARY_RECIPROCAL}};
    const dbt_constant *const given = node->inputs[1]->constant;
    if (!given || given->count != 1 || !given->data || given->rank > node->inputs[0]->shape.rank) {
        return false;
    }
    double stored;
    dbt_unpack_elements(given->type, given->data, &stored, 1);
    const dibit_tensor exponent = {.type = dbt_storage_type(given->type), .data = &stored};
    const double e = load(&exponent, 0).f;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        *kind = forms[i].kind;
        if (e == forms[i].exponent) return true;
    }
    return false;
}

static dibit_status encode(const dbt_gpu_call *call) {
    dbt_unary_kind kind = DBT_UNARY_SQUARE;
    unary_form(call->node, &kind);
    return dbt_unary_encode(call, kind, NULL);
}

static const char *gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    dbt_unary_kind kind;
    if (!dbt_type_in(node->inputs[0]->type, DBT_TYPES_FLOAT)) return "a power of integers";
    return unary_form(node, &kind) ? NULL
                                   : "an exponent that is not a constant 2, 3, 1/2, -1/2, -1";
}

const dbt_op dbt_elementwise_pow_ops[] = {
    {.domain = "",
     .name = "Pow",
     .since = 7,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .flags = DBT_OP_ROWWISE | DBT_OP_IN_PLACE,
     .infer = infer,
     .cpu_run = run,
     .gpu_encode = encode,
     .gpu_refuses = gpu_refuses},
    {0},
};

/* Pow: the exponent may have another type than the base, which the result takes. */
#include "base/math.h"
#include "ops/elementwise/elementwise.h"

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
     .cpu_run = run},
    {0},
};

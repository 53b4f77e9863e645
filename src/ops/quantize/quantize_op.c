/* DequantizeLinear, QuantizeLinear (ai.onnx and com.microsoft) and DynamicQuantizeLinear. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>

#include "base/packed.h"
#include "ops/quantize/quantize.h"

enum { IN_X, IN_SCALE, IN_ZERO_POINT };

typedef dbt_quantize_attrs quantize_attrs;

static const dbt_attr_def attr_defs[] = {
    {.name = "axis", .kind = DBT_ATTR_INT, .offset = offsetof(quantize_attrs, axis), .i = 1},
    {.name = "block_size", .kind = DBT_ATTR_INT, .offset = offsetof(quantize_attrs, block_size)},
    {.name = "output_dtype",
     .kind = DBT_ATTR_INT,
     .offset = offsetof(quantize_attrs, output_dtype)},
    {.name = "saturate", .kind = DBT_ATTR_IGNORED},  /* means something to 8-bit floats only */
    {.name = "precision", .kind = DBT_ATTR_IGNORED}, /* of the division, which is float here */
};

static dibit_status check_common(const dbt_infer *in) {
    const quantize_attrs *const at = in->attrs;
    DBT_TRY(dbt_infer_type(in, IN_SCALE, DBT_QUANTIZE_SCALES));
    DBT_TRY(dbt_infer_rank(in, IN_X, 0, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(in, IN_SCALE, 0, DIBIT_MAX_RANK));
    DBT_FAIL_IF(at->block_size < 0 || at->block_size > INT32_MAX, in->error, DIBIT_BAD_FILE,
                "attribute block_size must be 0 to 2147483647, got %" PRId64, at->block_size);
    DBT_FAIL_IF(at->output_dtype < 0 || at->output_dtype > DIBIT_TYPE_INT2, in->error,
                DIBIT_BAD_FILE, "attribute output_dtype %" PRId64 " is no type", at->output_dtype);
    /* Known shapes are checked now, as cpu_run does. */
    dibit_tensor x = {0}, scale = {0};
    const dbt_shape *const shapes[2] = {&in->in[IN_X]->shape, &in->in[IN_SCALE]->shape};
    dibit_tensor *const tensors[2] = {&x, &scale};
    for (int t = 0; t < 2; t++) {
        tensors[t]->rank = shapes[t]->rank;
        for (int32_t i = 0; i < shapes[t]->rank; i++) {
            if (!dbt_dim_is_const(in->dims, shapes[t]->dims[i], &tensors[t]->dims[i]))
                return DIBIT_OK;
        }
        int64_t count;
        DBT_FAIL_IF(!dbt_count(tensors[t]->rank, tensors[t]->dims, &count), in->error,
                    DIBIT_TOO_LARGE, "input %d has too many elements", t);
    }
    dbt_quantize_layout layout;
    const bool fits = dbt_quantize_layout_of(&x, &scale, at->axis, at->block_size, in->error,
                                             &layout) == DIBIT_OK;
    if (!fits && in->error) in->error->status = DIBIT_BAD_FILE;
    return fits ? DIBIT_OK : DIBIT_BAD_FILE;
}

static dibit_status infer_dequantize(dbt_infer *in) {
    DBT_TRY(dbt_infer_type(in, IN_X, DBT_QUANTIZE_TYPES | DBT_TYPE_BIT(DIBIT_TYPE_INT32)));
    DBT_TRY(dbt_infer_same_type(in, IN_X, IN_ZERO_POINT));
    DBT_TRY(check_common(in));
    const quantize_attrs *const at = in->attrs;
    const dibit_type type =
        at->output_dtype ? (dibit_type)at->output_dtype : in->in[IN_SCALE]->type;
    DBT_FAIL_IF(!dbt_type_in(type, DBT_QUANTIZE_SCALES), in->error, DIBIT_BAD_FILE,
                "attribute output_dtype cannot be %s", dibit_type_name(type));
    dbt_infer_output(in, 0, type, &in->in[IN_X]->shape);
    return DIBIT_OK;
}

static dibit_status infer_quantize(dbt_infer *in) {
    const quantize_attrs *const at = in->attrs;
    DBT_TRY(dbt_infer_type(in, IN_X, DBT_QUANTIZE_SCALES | DBT_TYPE_BIT(DIBIT_TYPE_INT32)));
    DBT_TRY(dbt_infer_type(in, IN_ZERO_POINT, DBT_QUANTIZE_TYPES));
    DBT_TRY(check_common(in));
    const bool zero_point = in->n_inputs > IN_ZERO_POINT && in->in[IN_ZERO_POINT];
    dibit_type type = at->output_dtype ? (dibit_type)at->output_dtype : DIBIT_TYPE_UINT8;
    if (zero_point) {
        DBT_FAIL_IF(at->output_dtype && type != in->in[IN_ZERO_POINT]->type, in->error,
                    DIBIT_BAD_FILE, "attribute output_dtype is %s, but the zero point %s",
                    dibit_type_name(type), dibit_type_name(in->in[IN_ZERO_POINT]->type));
        type = in->in[IN_ZERO_POINT]->type;
    }
    DBT_FAIL_IF(!dbt_type_in(type, DBT_QUANTIZE_TYPES), in->error, DIBIT_UNSUPPORTED,
                "quantizing to %s is not supported", dibit_type_name(type));
    dbt_infer_output(in, 0, type, &in->in[IN_X]->shape);
    return DIBIT_OK;
}

static dibit_status infer_dynamic(dbt_infer *in) {
    DBT_TRY(dbt_infer_type(in, IN_X, DBT_TYPE_BIT(DIBIT_TYPE_FLOAT)));
    const dbt_shape scalar = {.rank = 0};
    dbt_infer_output(in, 0, DIBIT_TYPE_UINT8, &in->in[IN_X]->shape);
    dbt_infer_output(in, 1, DIBIT_TYPE_FLOAT, &scalar);
    dbt_infer_output(in, 2, DIBIT_TYPE_UINT8, &scalar);
    return DIBIT_OK;
}

/* ---- Running: rows of `inner` elements that share (o, d), in runs ---- */

enum { RUN = 256 };

typedef struct quantize_call {
    const dibit_tensor *x, *scale, *zero_point, *y; /* zero_point NULL: 0 */
    dbt_quantize_layout layout;
    dibit_type y_type; /* as declared: its range is the type's */
    bool dequantizes;
    int64_t n_tasks, n_rows, row; /* a row is split where the layout's own rows are long or few */
} quantize_call;

static void dequantize_run(const quantize_call *c, int64_t first, int64_t n, int64_t scale,
                           int64_t step) {
    int32_t codes[RUN], zero_points[RUN] = {0};
    float *const y = (float *)c->y->data + first;
    dbt_quantize_load(c->x->data, c->x->type, first, n, codes);
    if (c->zero_point) {
        dbt_quantize_load(c->zero_point->data, c->zero_point->type, scale, step ? n : 1,
                          zero_points);
    }
    if (step) {
        for (int64_t i = 0; i < n; i++) {
            y[i] = (float)((int64_t)codes[i] - zero_points[i]) *
                   dbt_float_at(c->scale->data, c->scale->type, scale + i);
        }
        return;
    }
    const float s = dbt_float_at(c->scale->data, c->scale->type, scale);
    for (int64_t i = 0; i < n; i++) y[i] = (float)((int64_t)codes[i] - zero_points[0]) * s;
}

static void quantize_run(const quantize_call *c, int64_t first, int64_t n, int64_t scale,
                         int64_t step) {
    int32_t codes[RUN], zero_points[RUN] = {0}, low, high;
    dbt_quantize_range(c->y_type, &low, &high);
    if (c->zero_point) {
        dbt_quantize_load(c->zero_point->data, c->zero_point->type, scale, step ? n : 1,
                          zero_points);
    }
    const bool integers = c->x->type == DIBIT_TYPE_INT32;
    for (int64_t i = 0; i < n; i++) {
        const float v = integers ? (float)((const int32_t *)c->x->data)[first + i]
                                 : ((const float *)c->x->data)[first + i];
        const float s = dbt_float_at(c->scale->data, c->scale->type, scale + (step ? i : 0));
        codes[i] = dbt_quantize(v, s, zero_points[step ? i : 0], low, high);
    }
    dbt_quantize_store(codes, c->y->type, first, n, c->y->data);
}

static void quantize_task(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const quantize_call *const c = ctx;
    const dbt_quantize_layout *const l = &c->layout;
    const int64_t end = dbt_task_begin(c->n_rows, c->n_tasks, task + 1) * c->row;
    const int64_t total = l->outer * l->axis * l->inner;
    int64_t i = dbt_task_begin(c->n_rows, c->n_tasks, task) * c->row;
    while (i < end && i < total) {
        /* The longest run with one scale, or with scales side by side. */
        const int64_t d = i / l->inner % l->axis, o = i / l->inner / l->axis, inner = i % l->inner;
        int64_t n = l->inner - inner;
        if (l->s_inner == 0 || l->inner == 1) {
            const int64_t same = l->s_axis == 0                          ? l->axis - d
                                 : l->block - d % l->block < l->axis - d ? l->block - d % l->block
                                                                         : l->axis - d;
            n += (same - 1) * l->inner;
        }
        if (n > RUN) n = RUN;
        if (n > end - i) n = end - i;
        const int64_t scale = o * l->s_outer + d / l->block * l->s_axis + inner * l->s_inner;
        const int64_t step = l->inner == 1 ? 0 : l->s_inner;
        if (c->dequantizes) {
            dequantize_run(c, i, n, scale, step);
        } else {
            quantize_run(c, i, n, scale, step);
        }
        i += n;
    }
}

static dibit_status cpu_run(const dbt_cpu_call *call) {
    const quantize_attrs *const at = call->attrs;
    quantize_call c = {
        .x = call->in[IN_X],
        .scale = call->in[IN_SCALE],
        .zero_point = call->n_inputs > IN_ZERO_POINT ? call->in[IN_ZERO_POINT] : NULL,
        .y = call->out[0],
        .y_type = call->node->outputs[0]->type,
        .dequantizes = call->node->op->kind == 0,
        .row = RUN,
    };
    DBT_TRY(dbt_quantize_layout_of(c.x, c.scale, at->axis, at->block_size, call->error, &c.layout));
    DBT_FAIL_IF(c.zero_point && dbt_tensor_count(c.zero_point) != dbt_tensor_count(c.scale),
                call->error, DIBIT_BAD_INPUT, "zero points and scales must be equally many");
    c.n_rows = (dbt_tensor_count(c.x) + RUN - 1) / RUN;
    c.n_tasks = dbt_task_count(c.n_rows, 2 * RUN);
    dbt_parallel_for(call->pool, c.n_tasks, quantize_task, &c);
    return DIBIT_OK;
}

/* ---- DequantizeLinear on a device. QuantizeLinear stays on the CPU: codes are exact, and a device's
 * division is not. ---- */

/* struct Uniforms of dequantize.wgsl */
typedef struct dequantize_uniforms {
    uint32_t count, axis, inner, block, s_outer, s_axis, s_inner, bits, zero_bits, sign;
} dequantize_uniforms;

/* Of an element in its buffer: constants lie as in the file, all else in words. */
static uint32_t bits_of(const dbt_gpu_call *call, uint32_t i, dibit_type type) {
    return call->in_constant[i] ? dibit_type_bits(type) : 32;
}

static dibit_status encode_dequantize(const dbt_gpu_call *call) {
    const quantize_attrs *const at = call->attrs;
    const dibit_tensor *const *const in = call->in;
    const dibit_type type = call->node->inputs[IN_X]->type;
    const bool zero = call->n_inputs > IN_ZERO_POINT && in[IN_ZERO_POINT];
    int32_t low, high;
    dbt_quantize_range(type, &low, &high);
    dbt_quantize_layout l;
    DBT_TRY(
        dbt_quantize_layout_of(in[IN_X], in[IN_SCALE], at->axis, at->block_size, call->error, &l));
    DBT_FAIL_IF(zero && dbt_tensor_count(in[IN_ZERO_POINT]) != dbt_tensor_count(in[IN_SCALE]),
                call->error, DIBIT_BAD_INPUT, "zero points and scales must be equally many");
    const dequantize_uniforms uniforms = {.count = (uint32_t)dbt_tensor_count(in[IN_X]),
                                          .axis = (uint32_t)l.axis,
                                          .inner = (uint32_t)l.inner,
                                          .block = (uint32_t)l.block,
                                          .s_outer = (uint32_t)l.s_outer,
                                          .s_axis = (uint32_t)l.s_axis,
                                          .s_inner = (uint32_t)l.s_inner,
                                          .bits = bits_of(call, IN_X, type),
                                          .zero_bits =
                                              zero ? bits_of(call, IN_ZERO_POINT, type) : 0,
                                          .sign = low < 0};
    const dibit_type scale =
        call->in_constant[IN_SCALE] ? call->node->inputs[IN_SCALE]->type : DIBIT_TYPE_FLOAT;
    const dbt_shader_param params[2] = {{"RAW", dbt_gpu_raw(scale)}, {"ZERO", zero}};
    const dbt_hal_binding bindings[4] = {{.buffer = call->in_buffers[IN_X]},
                                         {.buffer = call->in_buffers[IN_SCALE]},
                                         {.buffer = zero ? call->in_buffers[IN_ZERO_POINT] : NULL},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "dequantize.wgsl",
                                 .params = params,
                                 .n_params = 2,
                                 .bindings = bindings,
                                 .n_bindings = 4,
                                 .written = 1 << 3,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, uniforms.count);
}

/* y_scale = (max - min) / 255 over a range that holds 0. */
static dibit_status run_dynamic(const dbt_cpu_call *call) {
    const dibit_tensor *const x = call->in[IN_X];
    const float *const v = x->data;
    const int64_t n = dbt_tensor_count(x);
    float low = 0.0f, high = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        low = v[i] < low ? v[i] : low;
        high = v[i] > high ? v[i] : high;
    }
    const float scale = high == low ? 1.0f : (high - low) / 255.0f;
    const uint8_t zero_point = (uint8_t)dbt_quantize(-low, scale, 0, 0, 255);
    if (call->n_outputs > 1 && call->out[1]) *(float *)call->out[1]->data = scale;
    if (call->n_outputs > 2 && call->out[2]) *(uint8_t *)call->out[2]->data = zero_point;
    uint8_t *const y = call->out[0] ? call->out[0]->data : NULL;
    for (int64_t i = 0; y && i < n; i++)
        y[i] = (uint8_t)dbt_quantize(v[i], scale, zero_point, 0, 255);
    return DIBIT_OK;
}

#define LINEAR(domain_, name_, since_, infer_, kind_, raw_, encode_)                               \
    {                                                                                              \
        .domain = domain_,                                                                         \
        .name = name_,                                                                             \
        .since = since_,                                                                           \
        .min_inputs = 2,                                                                           \
        .max_inputs = 3,                                                                           \
        .min_outputs = 1,                                                                          \
        .max_outputs = 1,                                                                          \
        .kind = kind_,                                                                             \
        .raw_inputs = raw_,                                                                        \
        .attrs = attr_defs,                                                                        \
        .n_attrs = sizeof attr_defs / sizeof attr_defs[0],                                         \
        .attrs_bytes = sizeof(quantize_attrs),                                                     \
        .infer = infer_,                                                                           \
        .cpu_run = cpu_run,                                                                        \
        .gpu_encode = encode_,                                                                     \
    }

const dbt_op dbt_quantize_ops[] = {
    LINEAR("", "DequantizeLinear", 10, infer_dequantize, 0, 7, encode_dequantize),
    LINEAR("com.microsoft", "DequantizeLinear", 1, infer_dequantize, 0, 7, encode_dequantize),
    LINEAR("", "QuantizeLinear", 10, infer_quantize, 1, 6, NULL),
    LINEAR("com.microsoft", "QuantizeLinear", 1, infer_quantize, 1, 6, NULL),
    {.domain = "",
     .name = "DynamicQuantizeLinear",
     .since = 11,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 3,
     .max_outputs = 3,
     .infer = infer_dynamic,
     .cpu_run = run_dynamic},
    {.domain = "",
     .name = "MatMulInteger",
     .since = 10,
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = dbt_matmul_integer_infer,
     .cpu_run = dbt_matmul_integer_run},
    {.domain = "",
     .name = "QLinearMatMul",
     .since = 10,
     .min_inputs = 8,
     .max_inputs = 8,
     .min_outputs = 1,
     .max_outputs = 1,
     .kind = 1,
     .infer = dbt_matmul_integer_infer,
     .cpu_run = dbt_matmul_integer_run},
    {0},
};

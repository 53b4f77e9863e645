/* GatherBlockQuantized: its shapes, and the CPU. */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/packed.h"
#include "ops/gather_block_quantized/gather_block_quantized.h"

typedef struct gbq_attrs {
    int64_t bits, block_size, gather_axis, quantize_axis;
} gbq_attrs;

static const dbt_attr_def attr_defs[] = {
    {.name = "bits",
     .kind = DBT_ATTR_INT,
     .offset = offsetof(gbq_attrs, bits),
     .i = DBT_ATTR_ABSENT},
    {.name = "block_size",
     .kind = DBT_ATTR_INT,
     .offset = offsetof(gbq_attrs, block_size),
     .i = 128},
    {.name = "gather_axis", .kind = DBT_ATTR_INT, .offset = offsetof(gbq_attrs, gather_axis)},
    {.name = "quantize_axis",
     .kind = DBT_ATTR_INT,
     .offset = offsetof(gbq_attrs, quantize_axis),
     .i = 1},
};

#define DATA_TYPES (DBT_TYPES_SUBBYTE | DBT_TYPE_BIT(DIBIT_TYPE_UINT8))
#define SCALE_TYPES                                                                                \
    (DBT_TYPE_BIT(DIBIT_TYPE_FLOAT) | DBT_TYPE_BIT(DIBIT_TYPE_FLOAT16) |                           \
     DBT_TYPE_BIT(DIBIT_TYPE_BFLOAT16))

static int64_t bits_of(const gbq_attrs *at, dibit_type data_type) {
    if (data_type != DIBIT_TYPE_UINT8) return dibit_type_bits(data_type);
    return at->bits == DBT_ATTR_ABSENT ? 4 : at->bits;
}

static dibit_status check_attrs(const gbq_attrs *at, dibit_type data_type, int32_t rank,
                                int32_t gather, int32_t quantize, dibit_error *error) {
    const int64_t bits = bits_of(at, data_type);
    if (data_type == DIBIT_TYPE_UINT8) {
        DBT_FAIL_IF(bits != 2 && bits != 4 && bits != 8, error, DIBIT_BAD_FILE,
                    "attribute bits must be 2, 4 or 8 for uint8 data, got %" PRId64, bits);
        DBT_FAIL_IF(
            bits != 8 && (quantize != rank - 1 || gather == rank - 1), error, DIBIT_BAD_FILE,
            "packed uint8 data must be quantized along its last axis and gathered along another, "
            "got quantize_axis %d and gather_axis %d of rank %d",
            (int)quantize, (int)gather, (int)rank);
    } else {
        DBT_FAIL_IF(at->bits != DBT_ATTR_ABSENT && at->bits != bits, error, DIBIT_BAD_FILE,
                    "attribute bits must be %" PRId64 " for %s data, got %" PRId64, bits,
                    dibit_type_name(data_type), at->bits);
    }
    DBT_FAIL_IF(at->block_size < 16 || at->block_size > INT32_MAX ||
                    (at->block_size & (at->block_size - 1)) != 0,
                error, DIBIT_BAD_FILE,
                "attribute block_size must be a power of two and at least 16, got %" PRId64,
                at->block_size);
    return DIBIT_OK;
}

static dibit_status infer(dbt_infer *in) {
    const gbq_attrs *const at = in->attrs;
    DBT_TRY(dbt_infer_type(in, DBT_GBQ_DATA, DATA_TYPES));
    DBT_TRY(dbt_infer_type(in, DBT_GBQ_INDICES, DBT_TYPES_INDEX));
    DBT_TRY(dbt_infer_type(in, DBT_GBQ_SCALES, SCALE_TYPES));
    DBT_TRY(dbt_infer_same_type(in, DBT_GBQ_DATA, DBT_GBQ_ZERO_POINTS));
    DBT_TRY(dbt_infer_rank(in, DBT_GBQ_DATA, 1, DIBIT_MAX_RANK));
    const dbt_shape *const data = &in->in[DBT_GBQ_DATA]->shape;
    DBT_TRY(dbt_infer_rank(in, DBT_GBQ_INDICES, 0, DIBIT_MAX_RANK + 1 - data->rank));
    DBT_TRY(dbt_infer_rank(in, DBT_GBQ_SCALES, data->rank, data->rank));
    DBT_TRY(dbt_infer_rank(in, DBT_GBQ_ZERO_POINTS, data->rank, data->rank));
    int32_t gather, quantize;
    DBT_TRY(dbt_infer_axis(in, at->gather_axis, data->rank, "gather_axis", &gather));
    DBT_TRY(dbt_infer_axis(in, at->quantize_axis, data->rank, "quantize_axis", &quantize));
    const dibit_type type = in->in[DBT_GBQ_DATA]->type;
    DBT_TRY(check_attrs(at, type, data->rank, gather, quantize, in->error));

    dbt_dims *const dims = in->dims;
    const int64_t per_byte = type == DIBIT_TYPE_UINT8 ? 8 / bits_of(at, type) : 1;
    const dbt_shape *const indices = &in->in[DBT_GBQ_INDICES]->shape;
    dbt_shape out = {.rank = 0};
    for (int32_t i = 0; i < data->rank; i++) {
        dbt_dim d = data->dims[i], blocks = d;
        if (i == data->rank - 1) {
            d = dbt_dim_apply(dims, DBT_DIM_MUL, d, dbt_dim_const(dims, per_byte));
            blocks = d;
        }
        if (i == quantize) {
            blocks = dbt_dim_apply(dims, DBT_DIM_CEIL_DIV, d, dbt_dim_const(dims, at->block_size));
        }
        DBT_TRY(dbt_infer_dim(in, DBT_GBQ_SCALES, i, blocks));
        if (i == data->rank - 1) {
            blocks = dbt_dim_apply(dims, DBT_DIM_CEIL_DIV, blocks, dbt_dim_const(dims, per_byte));
        }
        DBT_TRY(dbt_infer_dim(in, DBT_GBQ_ZERO_POINTS, i, blocks));
        if (i != gather) {
            out.dims[out.rank++] = d;
            continue;
        }
        for (int32_t j = 0; j < indices->rank; j++) out.dims[out.rank++] = indices->dims[j];
    }
    dbt_infer_output(in, 0, in->in[DBT_GBQ_SCALES]->type, &out);
    return DIBIT_OK;
}

/* Shapes that were symbolic when infer saw them. */
static dibit_status check_shapes(const dbt_cpu_call *call) {
    const gbq_attrs *const at = call->attrs;
    const dibit_tensor *const data = call->in[DBT_GBQ_DATA];
    const int32_t quantize =
        (int32_t)(at->quantize_axis < 0 ? at->quantize_axis + data->rank : at->quantize_axis);
    const dibit_type declared = call->node->inputs[DBT_GBQ_DATA]->type;
    const int64_t per_byte = declared == DIBIT_TYPE_UINT8 ? 8 / bits_of(at, declared) : 1;
    for (int32_t i = 0; i < data->rank; i++) {
        const int64_t pack = i == data->rank - 1 ? per_byte : 1;
        int64_t want = data->dims[i] * pack;
        if (i == quantize) want = (want + at->block_size - 1) / at->block_size;
        DBT_FAIL_IF(call->in[DBT_GBQ_SCALES]->dims[i] != want, call->error, DIBIT_BAD_INPUT,
                    "dim %d of scales must be %" PRId64 ", got %" PRId64, (int)i, want,
                    call->in[DBT_GBQ_SCALES]->dims[i]);
        if (call->n_inputs <= DBT_GBQ_ZERO_POINTS || !call->in[DBT_GBQ_ZERO_POINTS]) continue;
        want = (want + pack - 1) / pack;
        DBT_FAIL_IF(call->in[DBT_GBQ_ZERO_POINTS]->dims[i] != want, call->error, DIBIT_BAD_INPUT,
                    "dim %d of zero_points must be %" PRId64 ", got %" PRId64, (int)i, want,
                    call->in[DBT_GBQ_ZERO_POINTS]->dims[i]);
    }
    return DIBIT_OK;
}

dibit_status dbt_gbq_layout_of(const dbt_cpu_call *call, dbt_gbq_layout *out) {
    DBT_TRY(check_shapes(call));
    const gbq_attrs *const at = call->attrs;
    const dibit_tensor *const data = call->in[DBT_GBQ_DATA], *const scales =
                                                                 call->in[DBT_GBQ_SCALES];
    const dibit_type declared = call->node->inputs[DBT_GBQ_DATA]->type;
    const int64_t bits = bits_of(at, declared), last = data->rank - 1;
    const int64_t per_byte = declared == DIBIT_TYPE_UINT8 ? 8 / bits : 1;
    const int32_t gather =
        (int32_t)(at->gather_axis < 0 ? at->gather_axis + data->rank : at->gather_axis);
    const int32_t quantize =
        (int32_t)(at->quantize_axis < 0 ? at->quantize_axis + data->rank : at->quantize_axis);
    dbt_gbq_layout l = {
        .n_indices = dbt_tensor_count(call->in[DBT_GBQ_INDICES]),
        .gather_dim = data->dims[gather],
        .c1 = 1,
        .q = 1,
        .c2 = 1,
        .block_size = at->block_size,
        .q_blocks = scales->dims[quantize],
        .a_inner = 1,
        .where = quantize < gather    ? DBT_GBQ_BEFORE
                 : quantize == gather ? DBT_GBQ_GATHERED
                                      : DBT_GBQ_INSIDE,
        .declared = declared,
        .bits = (uint32_t)bits,
        .default_zero_point = declared == DIBIT_TYPE_UINT8 ? 1 << (bits - 1) : 0,
    };
    if (declared == DIBIT_TYPE_UINT8) {
        l.zero_row = scales->dims[last];
        l.zero_row_stride = (l.zero_row + per_byte - 1) / per_byte * per_byte;
    }
    int64_t a = 1;
    for (int32_t i = 0; i < data->rank; i++) {
        const int64_t d = data->dims[i] * (i == last ? per_byte : 1);
        if (i < gather) a *= d;
        if (i < gather && i > quantize) l.a_inner *= d;
        if (i == quantize) l.q_outer = d;
        if (i <= gather) continue;
        if (l.where != DBT_GBQ_INSIDE || i > quantize) {
            l.c2 *= d;
        } else if (i == quantize) {
            l.q = d;
        } else {
            l.c1 *= d;
        }
    }
    l.n_slices = a * l.n_indices;
    *out = l;
    return DIBIT_OK;
}

/* ---- The CPU ---- */

/* Codes that lie packed, or (signed or not) one to a byte. */
typedef struct code_array {
    const uint8_t *data;
    uint32_t bits; /* of the elements in data: 8 when unpacked */
    int32_t sign;  /* the code's sign bit, or 0: subtracted after it was flipped */
    int64_t row,
        row_bits; /* elements and bits of a row that starts on a byte; row 0: no such rows */
} code_array;

static inline int32_t code_of(const code_array *c, int64_t i) {
    int64_t at = i;
    const uint8_t *data = c->data;
    if (c->row > 0) {
        data += i / c->row * (c->row_bits / 8);
        at = i % c->row;
    }
    return (int32_t)(dbt_code_at(data, c->bits, at) ^ (uint32_t)c->sign) - c->sign;
}

typedef struct gbq_call {
    dbt_gbq_layout layout;
    code_array codes, zero_points; /* zero_points.data NULL: the default */
    const void *scales;
    dibit_type scale_type, index_type;
    const void *indices;
    float *y;
    int64_t n_tasks;
} gbq_call;

static code_array codes_of(const dibit_tensor *t, dibit_type declared, int64_t bits) {
    code_array c = {.data = t->data, .bits = (uint32_t)bits};
    const bool is_signed = declared == DIBIT_TYPE_INT4 || declared == DIBIT_TYPE_INT2;
    const bool unpacked = declared != DIBIT_TYPE_UINT8 && t->type != declared;
    if (unpacked) c.bits = 8;
    if (is_signed) c.sign = unpacked ? 128 : 1 << (bits - 1);
    return c;
}

static gbq_call make_call(const dbt_cpu_call *call, const dbt_gbq_layout *l) {
    const dibit_tensor *const zero_points =
        call->n_inputs > DBT_GBQ_ZERO_POINTS ? call->in[DBT_GBQ_ZERO_POINTS] : NULL;
    gbq_call c = {
        .layout = *l,
        .codes = codes_of(call->in[DBT_GBQ_DATA], l->declared, l->bits),
        .scales = call->in[DBT_GBQ_SCALES]->data,
        .scale_type = call->in[DBT_GBQ_SCALES]->type,
        .indices = call->in[DBT_GBQ_INDICES]->data,
        .index_type = call->in[DBT_GBQ_INDICES]->type,
        .y = call->out[0]->data,
    };
    if (zero_points) {
        c.zero_points = codes_of(zero_points, l->declared, l->bits);
        c.zero_points.row = l->zero_row;
        c.zero_points.row_bits = l->zero_row_stride * l->bits;
    }
    return c;
}

/* The index of the scale of the first element of data[a, index]. */
static int64_t scale_base(const dbt_gbq_layout *l, int64_t a, int64_t index) {
    if (l->where == DBT_GBQ_INSIDE)
        return (a * l->gather_dim + index) * l->c1 * l->q_blocks * l->c2;
    if (l->where == DBT_GBQ_GATHERED) return (a * l->q_blocks + index / l->block_size) * l->c2;
    const int64_t inner = a % l->a_inner, q = a / l->a_inner % l->q_outer,
                  outer = a / l->a_inner / l->q_outer;
    const int64_t block = (outer * l->q_blocks + q / l->block_size) * l->a_inner + inner;
    return (block * l->gather_dim + index) * l->c2;
}

static inline float scale_at(const gbq_call *c, int64_t i) {
    return dbt_float_at(c->scales, c->scale_type, i);
}
static inline int32_t zero_point_at(const gbq_call *c, int64_t i) {
    return c->zero_points.data ? code_of(&c->zero_points, i) : c->layout.default_zero_point;
}

static void dequantize_slice(const gbq_call *c, int64_t first, int64_t scale_first, float *y) {
    const dbt_gbq_layout *const l = &c->layout;
    for (int64_t i = 0; i < l->c1; i++) {
        for (int64_t q = 0; q < l->q; q++) {
            const int64_t block = scale_first + (i * l->q_blocks + q / l->block_size) * l->c2;
            if (l->c2 > 1 || l->where != DBT_GBQ_INSIDE) {
                for (int64_t j = 0; j < l->c2; j++) {
                    *y++ = (float)(code_of(&c->codes, first++) - zero_point_at(c, block + j)) *
                           scale_at(c, block + j);
                }
                continue;
            }
            /* Quantized along the last axis: a run of elements has one scale. */
            const int64_t end = l->q - q < l->block_size ? l->q : q + l->block_size;
            const float scale = scale_at(c, block);
            const int32_t zero_point = zero_point_at(c, block);
            for (; q < end; q++) *y++ = (float)(code_of(&c->codes, first++) - zero_point) * scale;
            q--;
        }
    }
}

static void gather_task(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const gbq_call *const c = ctx;
    const dbt_gbq_layout *const l = &c->layout;
    const int64_t slice = l->c1 * l->q * l->c2;
    const int64_t end = dbt_task_begin(l->n_slices, c->n_tasks, task + 1);
    for (int64_t s = dbt_task_begin(l->n_slices, c->n_tasks, task); s < end; s++) {
        const int64_t a = s / l->n_indices, i = s % l->n_indices;
        int64_t index = c->index_type == DIBIT_TYPE_INT32
                            ? (int64_t)((const int32_t *)c->indices)[i]
                            : ((const int64_t *)c->indices)[i];
        float *const y = c->y + s * slice;
        if (index < -l->gather_dim || index >= l->gather_dim) {
            memset(y, 0, (size_t)slice * sizeof *y);
            continue;
        }
        if (index < 0) index += l->gather_dim;
        dequantize_slice(c, (a * l->gather_dim + index) * slice, scale_base(l, a, index), y);
    }
}

static dibit_status cpu_run(const dbt_cpu_call *call) {
    dbt_gbq_layout layout;
    DBT_TRY(dbt_gbq_layout_of(call, &layout));
    gbq_call c = make_call(call, &layout);
    const int64_t slice = layout.c1 * layout.q * layout.c2;
    if (slice == 0 || layout.n_slices == 0) return DIBIT_OK;
    c.n_tasks = dbt_task_count(layout.n_slices, 4 * slice);
    dbt_parallel_for(call->pool, c.n_tasks, gather_task, &c);
    return DIBIT_OK;
}

const dbt_op dbt_gather_block_quantized_ops[] = {
    {
        .domain = "com.microsoft",
        .name = "GatherBlockQuantized",
        .since = 1,
        .min_inputs = 3,
        .max_inputs = DBT_GBQ_INPUTS,
        .min_outputs = 1,
        .max_outputs = 1,
        .raw_inputs = 1u << DBT_GBQ_DATA | 1u << DBT_GBQ_SCALES | 1u << DBT_GBQ_ZERO_POINTS,
        .attrs = attr_defs,
        .n_attrs = sizeof attr_defs / sizeof attr_defs[0],
        .attrs_bytes = sizeof(gbq_attrs),
        .infer = infer,
        .cpu_run = cpu_run,
        .gpu_encode = dbt_gbq_encode,
    },
    {0},
};

/* The expert matrices: what their shapes say, and QMoE's as MatMulNBits' kernels read them. */
#include <string.h>

#include "base/packed.h"
#include "ops/moe/moe.h"

static const dibit_tensor *at(const dibit_tensor *const *in, uint32_t n_inputs, uint8_t i) {
    return i != DBT_MOE_NONE && i < n_inputs ? in[i] : NULL;
}

uint32_t dbt_moe_bits(const dbt_moe_attrs *a, int which) {
    const int64_t own[3] = {a->fc1_expert_weight_bits, a->fc2_expert_weight_bits,
                            a->fc3_expert_weight_bits};
    return (uint32_t)(own[which] == DBT_ATTR_ABSENT ? a->expert_weight_bits : own[which]);
}

static const char *const fc_names[3] = {"fc1", "fc2", "fc3"};

typedef struct reader {
    const dbt_node *node;
    const dibit_tensor *const *in;
    uint32_t n_inputs;
    dibit_error *error;
} reader;

static dibit_status check_dims(const reader *r, const dibit_tensor *t, int which, const char *what,
                               int32_t rank, int64_t d0, int64_t d1, int64_t d2) {
    if (t->rank == rank && t->dims[0] == d0 && t->dims[1] == d1 &&
        (rank == 2 || t->dims[2] == d2)) {
        return DIBIT_OK;
    }
    if (rank == 2) {
        return dbt_fail(r->error, DIBIT_BAD_INPUT, "%s's %s must have the shape [%lld, %lld]",
                        fc_names[which], what, (long long)d0, (long long)d1);
    }
    return dbt_fail(r->error, DIBIT_BAD_INPUT, "%s's %s must have the shape [%lld, %lld, %lld]",
                    fc_names[which], what, (long long)d0, (long long)d1, (long long)d2);
}

/* Scales and zero points of a block-wise or row-wise quantized projection. */
static dibit_status read_quantization(const reader *r, int which, const dibit_tensor *weight,
                                      int64_t experts, dbt_moe_fc *fc) {
    const dbt_moe_inputs *const i = &dbt_moe_inputs_of(r->node)[which];
    const dbt_moe_attrs *const a = r->node->attrs;
    const dibit_tensor *const scale = at(r->in, r->n_inputs, i->scale);
    const dibit_tensor *const zero = at(r->in, r->n_inputs, i->zero_point);
    const int64_t block = a->block_size > 0 ? a->block_size : fc->k;
    const int64_t blocks = fc->k / block;
    const uint32_t bits = dbt_moe_bits(a, which);
    DBT_FAIL_IF(fc->k % block != 0, r->error, DIBIT_BAD_INPUT,
                "%s has %lld columns, which block_size %lld does not divide", fc_names[which],
                (long long)fc->k, (long long)block);
    const bool by_block = a->block_size > 0;
    DBT_FAIL_IF(!scale, r->error, DIBIT_BAD_FILE, "%s's scales are missing", fc_names[which]);
    DBT_TRY(check_dims(r, scale, which, "scales", by_block ? 3 : 2, experts, fc->n, blocks));
    if (zero && by_block) {
        DBT_TRY(
            check_dims(r, zero, which, "zero points", 3, experts, fc->n, (blocks * bits + 7) / 8));
    } else if (zero) {
        DBT_TRY(check_dims(r, zero, which, "zero points", 2, experts, (fc->n * bits + 7) / 8, 0));
    }
    fc->nbits =
        (dbt_matmul_nbits){.M = 1,
                           .N = fc->n,
                           .K = fc->k,
                           .k_blocks = blocks,
                           .block_size = block,
                           .bits = bits,
                           .scale_type = scale->type,
                           .zero_point_type = zero ? DIBIT_TYPE_UINT8 : DIBIT_TYPE_UNDEFINED,
                           .b = weight->data,
                           .scales = scale->data,
                           .zero_points = zero ? zero->data : NULL};
    fc->b_bytes = (uint64_t)fc->n * (uint64_t)dbt_nbits_row_bytes(&fc->nbits);
    fc->scale_bytes = (uint64_t)(fc->n * blocks) * (dibit_type_bits(scale->type) / 8);
    fc->zero_point_bytes = (uint64_t)fc->n * (uint64_t)dbt_nbits_zero_row_bytes(&fc->nbits);
    return DIBIT_OK;
}

static dibit_status read_fc(const reader *r, int which, int64_t n, int64_t k,
                            dbt_moe_weights *out) {
    const dbt_moe_inputs *const i = &dbt_moe_inputs_of(r->node)[which];
    const dibit_tensor *const weight = at(r->in, r->n_inputs, i->weight);
    const dibit_tensor *const bias = at(r->in, r->n_inputs, i->bias);
    const bool quantized = r->node->op->kind == DBT_MOE_QUANTIZED;
    dbt_moe_fc *const fc = &out->fc[which];
    const uint32_t bits = quantized ? dbt_moe_bits(r->node->attrs, which) : 8;
    *fc = (dbt_moe_fc){.n = n, .k = k};
    DBT_FAIL_IF(k * bits % 8 != 0, r->error, DIBIT_BAD_INPUT,
                "%s's rows of %lld codes do not end on a byte", fc_names[which], (long long)k);
    DBT_TRY(check_dims(r, weight, which, "weight", 3, out->experts, n, k * bits / 8));
    if (bias) {
        DBT_TRY(check_dims(r, bias, which, "bias", 2, out->experts, n, 0));
        fc->bias = bias->data;
    }
    if (quantized) return read_quantization(r, which, weight, out->experts, fc);
    fc->weights = weight->data;
    return DIBIT_OK;
}

dibit_status dbt_moe_read_weights(const dbt_node *node, const dibit_tensor *const *in,
                                  uint32_t n_inputs, dbt_moe_weights *out, dibit_error *error) {
    const dbt_moe_attrs *const a = node->attrs;
    const dbt_moe_inputs *const i = dbt_moe_inputs_of(node);
    const dibit_tensor *const fc1 = at(in, n_inputs, i[0].weight);
    const dibit_tensor *const fc2 = at(in, n_inputs, i[1].weight);
    const reader r = {node, in, n_inputs, error};
    DBT_FAIL_IF(!fc1 || !fc2, error, DIBIT_BAD_FILE, "the weights of fc1 or fc2 are missing");
    dbt_moe_activation activation = DBT_MOE_RELU;
    dbt_moe_activation_of(a->activation_type, &activation);
    const bool quantized = node->op->kind == DBT_MOE_QUANTIZED;
    const uint32_t pack = quantized ? 8 / dbt_moe_bits(a, 1) : 1;
    *out = (dbt_moe_weights){.experts = fc1->dims[0],
                             .hidden = fc2->dims[1],
                             .inter = fc2->dims[2] * pack,
                             .has_fc3 = at(in, n_inputs, i[2].weight) != NULL};
    out->fused = activation == DBT_MOE_SWIGLU && a->swiglu_fusion != 0;
    DBT_FAIL_IF(out->fused && out->has_fc3, error, DIBIT_BAD_FILE,
                "fc3 is given although swiglu_fusion says that fc1 holds it");
    DBT_FAIL_IF(activation == DBT_MOE_SWIGLU && !out->fused && !out->has_fc3, error, DIBIT_BAD_FILE,
                "swiglu without swiglu_fusion needs fc3");
    DBT_FAIL_IF(out->experts < a->k || out->experts > INT32_MAX, error, DIBIT_BAD_FILE,
                "k is %lld, but there are %lld experts", (long long)a->k, (long long)out->experts);
    DBT_FAIL_IF(out->hidden < 1 || out->inter < 1 || out->hidden > INT32_MAX ||
                    out->inter > INT32_MAX / 2,
                error, DIBIT_BAD_FILE, "hidden size %lld and inner size %lld make no sense",
                (long long)out->hidden, (long long)out->inter);
    DBT_TRY(read_fc(&r, 0, out->fused ? 2 * out->inter : out->inter, out->hidden, out));
    DBT_TRY(read_fc(&r, 1, out->hidden, out->inter, out));
    return out->has_fc3 ? read_fc(&r, 2, out->inter, out->hidden, out) : DIBIT_OK;
}

/* ---- Rows with one scale each, as blocks of the kernels -------------------------------------- */

/* Scales and zero points become floats, one of each for every block of a row. Where 16 does not
 * divide the rows, they are copied with padding. */
static dibit_status split_rows(dbt_cpu_prepare *prepare, int64_t experts, dbt_moe_fc *fc) {
    dbt_matmul_nbits *const p = &fc->nbits;
    const dbt_matmul_nbits old = *p;
    const int64_t rows = experts * fc->n;
    p->block_size = 16;
    while (fc->k % (2 * p->block_size) == 0 && p->block_size < 256) p->block_size *= 2;
    p->k_blocks = (fc->k + p->block_size - 1) / p->block_size;
    const uint64_t count = (uint64_t)(rows * p->k_blocks);
    float *const scales = dbt_arena_array(prepare->arena, count, 2 * sizeof *scales);
    if (!scales) return dbt_fail_memory(prepare->error, "scales of experts", count * 8);
    float *const zeros = scales + count;
    const uint64_t zero_bytes = ((uint64_t)fc->n * p->bits + 7) / 8; /* of an expert */
    for (int64_t r = 0; r < rows; r++) {
        float zero = (float)(1u << (p->bits - 1));
        if (old.zero_points) {
            const uint8_t *const stream =
                (const uint8_t *)old.zero_points + (uint64_t)(r / fc->n) * zero_bytes;
            zero = (float)dbt_code_at(stream, p->bits, r % fc->n);
        }
        const float scale = dbt_float_at(old.scales, old.scale_type, r);
        for (int64_t g = 0; g < p->k_blocks; g++) {
            scales[r * p->k_blocks + g] = scale;
            zeros[r * p->k_blocks + g] = zero;
        }
    }
    p->scale_type = p->zero_point_type = DIBIT_TYPE_FLOAT;
    p->scales = scales;
    p->zero_points = zeros;
    fc->scale_bytes = fc->zero_point_bytes = (uint64_t)(fc->n * p->k_blocks) * sizeof *scales;
    prepare->packed_bytes += count * 8;

    const int64_t row = fc->k * p->bits / 8, padded = dbt_nbits_row_bytes(p);
    if (row == padded) return DIBIT_OK;
    uint8_t *const b = dbt_arena_array(prepare->arena, (uint64_t)rows, (uint64_t)padded);
    if (!b) return dbt_fail_memory(prepare->error, "experts", (uint64_t)(rows * padded));
    for (int64_t r = 0; r < rows; r++) {
        memcpy(b + r * padded, (const uint8_t *)old.b + r * row, (size_t)row);
    }
    p->b = b;
    fc->b_bytes = (uint64_t)(fc->n * padded);
    prepare->packed_bytes += (uint64_t)(rows * padded);
    return DIBIT_OK;
}

static bool takes_int8(const dbt_moe_attrs *a, uint32_t bits) {
    return a->block_size > 0 && (bits == 8 || (bits == 4 && a->accuracy_level == 4));
}

dibit_status dbt_moe_cpu_prepare(dbt_cpu_prepare *prepare) {
    const dbt_moe_inputs *const i = dbt_moe_inputs_of(prepare->node);
    const dbt_moe_attrs *const a = prepare->attrs;
    const uint32_t n_inputs = prepare->node->n_inputs;
    for (int f = 0; f < 3; f++) {
        const uint8_t inputs[3] = {i[f].weight, i[f].scale, i[f].zero_point};
        for (int k = 0; k < 3; k++) {
            DBT_FAIL_IF(inputs[k] < n_inputs && prepare->node->inputs[inputs[k]] &&
                            !prepare->in[inputs[k]],
                        prepare->error, DIBIT_UNSUPPORTED, "input %u must be a constant",
                        (unsigned)inputs[k]);
        }
    }
    dbt_moe_weights *const w = dbt_arena_alloc(prepare->arena, sizeof *w);
    if (!w) return dbt_fail_memory(prepare->error, "experts", sizeof *w);
    DBT_TRY(dbt_moe_read_weights(prepare->node, prepare->in, n_inputs, w, prepare->error));
    for (int f = 0; f < (w->has_fc3 ? 3 : 2); f++) {
        dbt_matmul_nbits *const p = &w->fc[f].nbits;
        if (a->block_size <= 0) {
            DBT_TRY(split_rows(prepare, w->experts, &w->fc[f]));
        } else {
            p->int8_activations =
                takes_int8(a, p->bits) && prepare->options->activations != DIBIT_ACTIVATIONS_FLOAT;
        }
        prepare->int8_activations = prepare->int8_activations || p->int8_activations;
    }
    prepare->kernel = dbt_nbits_choose(&w->fc[0].nbits, prepare->options->isa)->name;
    prepare->prepared = w;
    return DIBIT_OK;
}

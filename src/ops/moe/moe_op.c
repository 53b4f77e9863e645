/* Schemas and inference of MoE and QMoE. */
#include "ops/moe/moe.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define INT(field, value)                                                                          \
    {.name = #field, .kind = DBT_ATTR_INT, .offset = offsetof(dbt_moe_attrs, field), .i = (value)}
#define FLOAT(field, value)                                                                        \
    {.name = #field, .kind = DBT_ATTR_FLOAT, .offset = offsetof(dbt_moe_attrs, field), .f = (value)}
#define STRING(field, value)                                                                       \
    {.name = #field,                                                                               \
     .kind = DBT_ATTR_STRING,                                                                      \
     .offset = offsetof(dbt_moe_attrs, field),                                                     \
     .s = (value)}
#define COMMON                                                                                     \
    STRING(activation_type, "relu"), FLOAT(activation_alpha, 1), FLOAT(activation_beta, 0),        \
        FLOAT(swiglu_limit, INFINITY), INT(k, 1), INT(normalize_routing_weights, 0),               \
        INT(swiglu_fusion, 0), INT(use_sparse_mixer, 0)

static const dbt_attr_def moe_attrs[] = {COMMON};
static const dbt_attr_def qmoe_attrs[] = {
    COMMON,
    STRING(quant_type, "int"),
    INT(accuracy_level, 0),
    INT(block_size, 0),
    INT(weights_prepacked, -1),
    INT(expert_weight_bits, 4),
    INT(fc1_expert_weight_bits, DBT_ATTR_ABSENT),
    INT(fc2_expert_weight_bits, DBT_ATTR_ABSENT),
    INT(fc3_expert_weight_bits, DBT_ATTR_ABSENT),
};

const dbt_moe_inputs *dbt_moe_inputs_of(const dbt_node *node) {
    static const dbt_moe_inputs moe[3] = {{2, DBT_MOE_NONE, 3, DBT_MOE_NONE},
                                          {4, DBT_MOE_NONE, 5, DBT_MOE_NONE},
                                          {6, DBT_MOE_NONE, 7, DBT_MOE_NONE}};
    static const dbt_moe_inputs qmoe[3] = {{2, 3, 4, 11}, {5, 6, 7, 12}, {8, 9, 10, 13}};
    return node->op->kind == DBT_MOE_QUANTIZED ? qmoe : moe;
}

bool dbt_moe_activation_of(const char *name, dbt_moe_activation *out) {
    static const char *const names[] = {"relu", "gelu", "silu", "identity", "swiglu"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *out = (dbt_moe_activation)i;
        return true;
    }
    return false;
}

static dibit_status check_bits(const dbt_infer *infer, const char *name, int64_t bits) {
    DBT_FAIL_IF(bits != 2 && bits != 4 && bits != 8 && bits != DBT_ATTR_ABSENT, infer->error,
                DIBIT_BAD_FILE, "attribute '%s' must be 2, 4 or 8, got %lld", name,
                (long long)bits);
    return DIBIT_OK;
}

static dibit_status check_quantization(const dbt_infer *infer) {
    const dbt_moe_attrs *const a = infer->attrs;
    DBT_FAIL_IF(strcmp(a->quant_type, "int") != 0, infer->error, DIBIT_UNSUPPORTED,
                "quant_type '%s' is not supported, only 'int'", a->quant_type);
    DBT_FAIL_IF(a->weights_prepacked == 1, infer->error, DIBIT_UNSUPPORTED,
                "the weights are packed for another engine (weights_prepacked 1)");
    /* DBT_ATTR_ABSENT is a number too, which a file may hold: it has a default, so is never absent. */
    const int64_t bits = a->expert_weight_bits;
    DBT_TRY(check_bits(infer, "expert_weight_bits", bits == DBT_ATTR_ABSENT ? 0 : bits));
    DBT_TRY(check_bits(infer, "fc1_expert_weight_bits", a->fc1_expert_weight_bits));
    DBT_TRY(check_bits(infer, "fc2_expert_weight_bits", a->fc2_expert_weight_bits));
    DBT_TRY(check_bits(infer, "fc3_expert_weight_bits", a->fc3_expert_weight_bits));
    const int64_t b = a->block_size;
    DBT_FAIL_IF(b > 0 && (b < 16 || (b & (b - 1)) != 0 || b > DBT_NBITS_INT8_MAX_BLOCK),
                infer->error, DIBIT_BAD_FILE,
                "attribute 'block_size' must be a power of two from 16 to %d, got %lld",
                (int)DBT_NBITS_INT8_MAX_BLOCK, (long long)b);
    for (uint32_t i = 15; i < infer->n_inputs; i++) {
        DBT_FAIL_IF(infer->in[i] != NULL, infer->error, DIBIT_UNSUPPORTED,
                    "input %u belongs to fp4 and fp8 weights, which are not supported",
                    (unsigned)i);
    }
    return DIBIT_OK;
}

static dibit_status infer_moe(dbt_infer *infer) {
    const dbt_moe_attrs *const a = infer->attrs;
    const bool quantized = infer->node->op->kind == DBT_MOE_QUANTIZED;
    dbt_moe_activation activation;
    DBT_FAIL_IF(
        !dbt_moe_activation_of(a->activation_type, &activation), infer->error, DIBIT_BAD_FILE,
        "attribute 'activation_type' must be relu, gelu, silu, swiglu or identity, got '%s'",
        a->activation_type);
    DBT_FAIL_IF(a->swiglu_fusion < 0 || a->swiglu_fusion > 2, infer->error, DIBIT_BAD_FILE,
                "attribute 'swiglu_fusion' must be 0, 1 or 2, got %lld",
                (long long)a->swiglu_fusion);
    DBT_FAIL_IF(a->k < 1 || a->k > INT32_MAX, infer->error, DIBIT_BAD_FILE,
                "attribute 'k' must be at least 1, got %lld", (long long)a->k);
    DBT_FAIL_IF(a->use_sparse_mixer && a->k != 2, infer->error, DIBIT_UNSUPPORTED,
                "use_sparse_mixer goes with k 2 only, got %lld", (long long)a->k);
    if (quantized) DBT_TRY(check_quantization(infer));
    DBT_TRY(dbt_infer_rank(infer, 0, 2, 3));
    DBT_TRY(dbt_infer_rank(infer, 1, 2, 2));
    DBT_TRY(dbt_infer_rank(infer, 14, 2, 2));
    const dbt_moe_inputs *const fc = dbt_moe_inputs_of(infer->node);
    uint32_t floats = ~0u;
    for (int i = 0; i < 3; i++) {
        DBT_TRY(dbt_infer_rank(infer, fc[i].weight, 3, 3));
        DBT_TRY(dbt_infer_rank(infer, fc[i].bias, 2, 2));
        if (!quantized) continue;
        DBT_TRY(dbt_infer_rank(infer, fc[i].scale, 2, 3));
        DBT_TRY(dbt_infer_rank(infer, fc[i].zero_point, 2, 3));
        DBT_TRY(dbt_infer_type(infer, fc[i].weight, DBT_TYPE_BIT(DIBIT_TYPE_UINT8)));
        DBT_TRY(dbt_infer_type(infer, fc[i].zero_point, DBT_TYPE_BIT(DIBIT_TYPE_UINT8)));
        floats &= ~(1u << fc[i].weight | 1u << fc[i].zero_point);
    }
    for (uint32_t i = 0; i < infer->n_inputs; i++) {
        if (floats >> i & 1) DBT_TRY(dbt_infer_type(infer, i, DBT_TYPES_FLOAT));
    }
    return dbt_infer_like_first(infer);
}

static void describe(const dbt_node *node, char *text, size_t size) {
    const dbt_moe_attrs *const a = node->attrs;
    const dbt_moe_inputs *const fc = dbt_moe_inputs_of(node);
    const dbt_constant *const weight = node->inputs[fc[0].weight]->constant;
    const int64_t experts = weight ? weight->dims[0] : 0;
    const bool zero_points =
        node->n_inputs > fc[0].zero_point && node->inputs[fc[0].zero_point] != NULL;
    char block[40] = "one scale a row";
    if (a->block_size > 0) snprintf(block, sizeof block, "block %" PRId64, a->block_size);
    snprintf(text, size,
             "%u/%u bits, %s, %s zero points, %" PRId64 " of %" PRId64
             " experts, accuracy_level %" PRId64,
             (unsigned)dbt_moe_bits(a, 0), (unsigned)dbt_moe_bits(a, 1), block,
             zero_points ? "packed" : "no", a->k, experts, a->accuracy_level);
}

#define ATTRS(table)                                                                               \
    .attrs = table, .n_attrs = sizeof(table) / sizeof *(table), .attrs_bytes = sizeof(dbt_moe_attrs)

/* Behind the optional bias of fc1 stand inputs that are needed: dbt_moe_read_weights looks. */
const dbt_op dbt_moe_ops[] = {
    {.domain = "com.microsoft",
     .name = "MoE",
     .since = 1,
     .kind = DBT_MOE_FLOAT,
     .min_inputs = 3,
     .max_inputs = 8,
     .min_outputs = 1,
     .max_outputs = 1,
     ATTRS(moe_attrs),
     .infer = infer_moe,
     .cpu_scratch = dbt_moe_cpu_scratch,
     .cpu_run = dbt_moe_cpu_run,
     .cpu_bound = dbt_moe_cpu_bound},
    {.domain = "com.microsoft",
     .name = "QMoE",
     .since = 1,
     .kind = DBT_MOE_QUANTIZED,
     .min_inputs = 3,
     .max_inputs = 21,
     .min_outputs = 1,
     .max_outputs = 1,
     /* weights, scales and zero points */
     .raw_inputs = 1u << 2 | 1u << 3 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 9 | 7u << 11,
     .describe = describe,
     ATTRS(qmoe_attrs),
     .infer = infer_moe,
     .cpu_prepare = dbt_moe_cpu_prepare,
     .cpu_scratch = dbt_moe_cpu_scratch,
     .cpu_run = dbt_moe_cpu_run,
     .cpu_bound = dbt_moe_cpu_bound},
    {.name = NULL},
};

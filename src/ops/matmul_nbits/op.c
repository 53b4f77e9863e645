/* com.microsoft MatMulNBits: schema, checks, shape inference, and the way from a node's tensors to
 * the kernels' problem. */
#include "ops/matmul_nbits/nbits_op.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

typedef dbt_nbits_attrs nbits_attrs;

static const dbt_attr_def attr_defs[] = {
    {.name = "K", .kind = DBT_ATTR_INT, .required = true, .offset = offsetof(nbits_attrs, K)},
    {.name = "N", .kind = DBT_ATTR_INT, .required = true, .offset = offsetof(nbits_attrs, N)},
    {.name = "bits", .kind = DBT_ATTR_INT, .offset = offsetof(nbits_attrs, bits), .i = 4},
    {.name = "block_size",
     .kind = DBT_ATTR_INT,
     .required = true,
     .offset = offsetof(nbits_attrs, block_size)},
    {.name = "accuracy_level",
     .kind = DBT_ATTR_INT,
     .offset = offsetof(nbits_attrs, accuracy_level)},
    {.name = "weight_prepacked",
     .kind = DBT_ATTR_INT,
     .offset = offsetof(nbits_attrs, weight_prepacked)},
};

#define INPUT_TYPES                                                                                \
    (DBT_TYPE_BIT(DIBIT_TYPE_FLOAT) | DBT_TYPE_BIT(DIBIT_TYPE_FLOAT16) |                           \
     DBT_TYPE_BIT(DIBIT_TYPE_BFLOAT16))

/* ---- Checks: the same for known dims while building, and for all dims when running ---- */

static dibit_status check_attrs(const nbits_attrs *at, dibit_error *error) {
    DBT_FAIL_IF(at->K < 1 || at->K > INT32_MAX, error, DIBIT_BAD_FILE,
                "attribute K must be 1 to 2147483647, got %" PRId64, at->K);
    DBT_FAIL_IF(at->N < 1 || at->N > INT32_MAX, error, DIBIT_BAD_FILE,
                "attribute N must be 1 to 2147483647, got %" PRId64, at->N);
    DBT_FAIL_IF(at->bits < 1 || at->bits > 8, error, DIBIT_BAD_FILE,
                "attribute bits must be 1 to 8, got %" PRId64, at->bits);
    DBT_FAIL_IF(at->block_size < 16 || at->block_size > INT32_MAX ||
                    (at->block_size & (at->block_size - 1)) != 0,
                error, DIBIT_BAD_FILE,
                "attribute block_size must be a power of two and at least 16, got %" PRId64,
                at->block_size);
    DBT_FAIL_IF(at->accuracy_level < 0 || at->accuracy_level > 4, error, DIBIT_BAD_FILE,
                "attribute accuracy_level must be 0 to 4, got %" PRId64, at->accuracy_level);
    DBT_FAIL_IF(at->weight_prepacked != 0, error, DIBIT_UNSUPPORTED,
                "weights that were packed for another runtime (weight_prepacked %" PRId64
                ") are not supported",
                at->weight_prepacked);
    return DIBIT_OK;
}

static int64_t k_blocks_of(const nbits_attrs *at) {
    return at->K / at->block_size + (at->K % at->block_size != 0);
}

/* How many elements an input must have; 0: any. g_idx may also cover the padding of the last block:
 * *or_count. */
static int64_t want_count(const nbits_attrs *at, uint32_t input, dibit_type type,
                          int64_t *or_count) {
    const int64_t k_blocks = k_blocks_of(at);
    *or_count = -1;
    switch (input) {
    case DBT_NBITS_B: return at->N * k_blocks * (at->block_size * at->bits / 8);
    case DBT_NBITS_SCALES: return at->N * k_blocks;
    case DBT_NBITS_ZERO_POINTS:
        return at->N * (type == DIBIT_TYPE_UINT8 ? (k_blocks * at->bits + 7) / 8 : k_blocks);
    case DBT_NBITS_G_IDX: *or_count = k_blocks * at->block_size; return at->K;
    case DBT_NBITS_BIAS: return at->N;
    default: return 0;
    }
}

static dibit_status check_count(const nbits_attrs *at, uint32_t input, dibit_type type, int64_t got,
                                dibit_error *error) {
    static const char *const names[DBT_NBITS_INPUTS] = {"A",           "B",     "scales",
                                                        "zero_points", "g_idx", "bias"};
    int64_t or_count;
    const int64_t want = want_count(at, input, type, &or_count);
    if (got == want || got == or_count) return DIBIT_OK;
    return dbt_fail(error, DIBIT_BAD_FILE,
                    "%s must have %" PRId64 " elements for N %" PRId64 ", K %" PRId64
                    ", block_size %" PRId64 " and %" PRId64 " bits, got %" PRId64,
                    names[input], want, at->N, at->K, at->block_size, at->bits, got);
}

dibit_status dbt_nbits_infer_count(const dbt_infer *in, uint32_t i, uint32_t as) {
    if (!in->in[i]) return DIBIT_OK;
    const dbt_shape *const shape = &in->in[i]->shape;
    int64_t dims[DIBIT_MAX_RANK], count;
    for (int32_t d = 0; d < shape->rank; d++) {
        if (!dbt_dim_is_const(in->dims, shape->dims[d], &dims[d])) return DIBIT_OK;
    }
    if (shape->rank < 0) return DIBIT_OK;
    DBT_FAIL_IF(!dbt_count(shape->rank, dims, &count), in->error, DIBIT_TOO_LARGE,
                "input %u has too many elements", (unsigned)i);
    return check_count(in->attrs, as, in->in[i]->type, count, in->error);
}

dibit_status dbt_nbits_infer(dbt_infer *in) {
    const nbits_attrs *const at = in->attrs;
    DBT_TRY(check_attrs(at, in->error));
    DBT_TRY(dbt_infer_type(in, DBT_NBITS_A, INPUT_TYPES));
    DBT_TRY(dbt_infer_type(in, DBT_NBITS_B, DBT_TYPE_BIT(DIBIT_TYPE_UINT8)));
    DBT_TRY(dbt_infer_type(in, DBT_NBITS_SCALES, INPUT_TYPES));
    DBT_TRY(
        dbt_infer_type(in, DBT_NBITS_ZERO_POINTS, INPUT_TYPES | DBT_TYPE_BIT(DIBIT_TYPE_UINT8)));
    DBT_TRY(dbt_infer_type(in, DBT_NBITS_G_IDX, DBT_TYPE_BIT(DIBIT_TYPE_INT32)));
    DBT_TRY(dbt_infer_type(in, DBT_NBITS_BIAS, INPUT_TYPES));
    DBT_TRY(dbt_infer_rank(in, DBT_NBITS_A, 1, DIBIT_MAX_RANK));
    for (uint32_t i = DBT_NBITS_B; i < in->n_inputs && i < DBT_NBITS_INPUTS; i++) {
        DBT_TRY(dbt_nbits_infer_count(in, i, i));
    }
    dbt_shape shape = in->in[DBT_NBITS_A]->shape;
    DBT_TRY(dbt_infer_dim(in, DBT_NBITS_A, shape.rank - 1, dbt_dim_const(in->dims, at->K)));
    shape.dims[shape.rank - 1] = dbt_dim_const(in->dims, at->N);
    dbt_infer_output(in, 0, in->in[DBT_NBITS_A]->type, &shape);
    return DIBIT_OK;
}

/* ---- The node's problem ---- */

/* Whether auto rounds activations as the level allows. ONNX Runtime's CPU does not with float zero
 * points, nor at 2 bits with blocks other than 32, 64 and 128; its users compare answers with it. */
static bool auto_rounds(const nbits_attrs *at, dibit_type zero_point_type) {
    const bool float_zero_points =
        zero_point_type != DIBIT_TYPE_UNDEFINED && zero_point_type != DIBIT_TYPE_UINT8;
    return !float_zero_points && !(at->bits == 2 && (at->block_size < 32 || at->block_size > 128));
}

static const char *why_float(const nbits_attrs *at, dibit_activations activations, bool g_idx,
                             dibit_type zero_point_type) {
    if (activations == DIBIT_ACTIVATIONS_FLOAT) return "float activations were asked for";
    if (at->accuracy_level != 4) return "accuracy_level asks for float activations";
    if (g_idx) return "g_idx needs float activations";
    if (at->block_size > DBT_NBITS_INT8_MAX_BLOCK && at->K > DBT_NBITS_INT8_MAX_BLOCK) {
        return "blocks too large for int8 sums";
    }
    if (activations == DIBIT_ACTIVATIONS_AUTO && !auto_rounds(at, zero_point_type)) {
        return "float activations, as ONNX Runtime for these zero points or blocks";
    }
    return NULL;
}

static dibit_type type_of(const dbt_node *node, uint32_t i) {
    const dbt_value *const value = dbt_nbits_input(node, i);
    return value ? value->type : DIBIT_TYPE_UNDEFINED;
}

dbt_matmul_nbits dbt_nbits_node_problem(const dbt_node *node, dibit_activations activations,
                                        const char **why) {
    const nbits_attrs *const at = node->attrs;
    const dibit_type zero_point_type = type_of(node, DBT_NBITS_ZERO_POINTS);
    const bool g_idx = dbt_nbits_input(node, DBT_NBITS_G_IDX) != NULL;
    const char *const reason = why_float(at, activations, g_idx, zero_point_type);
    *why = reason ? reason : "accuracy_level 4 allows int8 activations";
    return (dbt_matmul_nbits){
        .N = at->N,
        .K = at->K,
        .k_blocks = k_blocks_of(at),
        .block_size = at->block_size,
        .bits = (uint32_t)at->bits,
        .int8_activations = !reason,
        .scale_type = type_of(node, DBT_NBITS_SCALES),
        .zero_point_type = zero_point_type,
    };
}

dibit_status dbt_nbits_check_g_idx(const nbits_attrs *at, const int32_t *g_idx,
                                   dibit_error *error) {
    for (int64_t k = 0; k < at->K; k++) {
        DBT_FAIL_IF(g_idx[k] < 0 || g_idx[k] >= k_blocks_of(at), error, DIBIT_OUT_OF_RANGE,
                    "g_idx[%" PRId64 "] must be 0 to %" PRId64 ", got %d", k, k_blocks_of(at) - 1,
                    (int)g_idx[k]);
    }
    return DIBIT_OK;
}

/* ---- The CPU ---- */

/* Kept for the plan's life. */
typedef struct nbits_plan {
    dbt_matmul_nbits p; /* without memory and without M */
    uint64_t isa;
} nbits_plan;

static dibit_status cpu_prepare(dbt_cpu_prepare *prepare) {
    const dbt_node *const node = prepare->node;
    nbits_plan *const plan = dbt_arena_alloc(prepare->arena, sizeof *plan);
    if (!plan) return dbt_fail_memory(prepare->error, "a plan", sizeof *plan);
    plan->p = dbt_nbits_node_problem(node, prepare->options->activations, &prepare->why);
    plan->isa = prepare->options->isa;
    dbt_matmul_nbits p = plan->p;
    p.M = 1;
    static const int32_t some_g_idx = 0; /* only whether there is one matters to the choice */
    if (dbt_nbits_input(node, DBT_NBITS_G_IDX)) p.g_idx = &some_g_idx;
    prepare->prepared = plan;
    prepare->kernel = dbt_nbits_choose(&p, plan->isa)->name;
    prepare->int8_activations = p.int8_activations;
    return DIBIT_OK;
}

static const dibit_tensor *input(const dbt_cpu_call *call, uint32_t i) {
    return i < call->n_inputs ? call->in[i] : NULL;
}

/* The node's tensors as a problem; their sizes have been checked. */
static dbt_matmul_nbits problem(const dbt_cpu_call *call) {
    const nbits_plan *const plan = call->prepared;
    dbt_matmul_nbits p = plan->p;
    const dibit_tensor *const a = call->in[DBT_NBITS_A];
    p.M = dbt_tensor_count(a) / p.K;
    p.a = a->data;
    p.b = call->in[DBT_NBITS_B]->data;
    p.scales = call->in[DBT_NBITS_SCALES]->data;
    if (input(call, DBT_NBITS_ZERO_POINTS))
        p.zero_points = input(call, DBT_NBITS_ZERO_POINTS)->data;
    if (input(call, DBT_NBITS_G_IDX)) p.g_idx = call->in[DBT_NBITS_G_IDX]->data;
    if (input(call, DBT_NBITS_BIAS)) p.bias = call->in[DBT_NBITS_BIAS]->data;
    p.y = call->out[0]->data;
    return p;
}

static dibit_status check_call(const dbt_cpu_call *call) {
    const nbits_attrs *const at = call->attrs;
    const dibit_tensor *const a = call->in[DBT_NBITS_A];
    DBT_FAIL_IF(a->dims[a->rank - 1] != at->K, call->error, DIBIT_BAD_INPUT,
                "the last dim of A must be K, %" PRId64 ", got %" PRId64, at->K,
                a->dims[a->rank - 1]);
    for (uint32_t i = DBT_NBITS_B; i < call->n_inputs; i++) {
        if (!call->in[i]) continue;
        DBT_TRY(check_count(at, i, call->in[i]->type, dbt_tensor_count(call->in[i]), call->error));
    }
    const dibit_tensor *const g_idx = input(call, DBT_NBITS_G_IDX);
    if (g_idx) DBT_TRY(dbt_nbits_check_g_idx(at, g_idx->data, call->error));
    return DIBIT_OK;
}

static uint64_t cpu_scratch(const dbt_cpu_call *call) {
    const dbt_matmul_nbits p = problem(call);
    const nbits_plan *const plan = call->prepared;
    return dbt_nbits_scratch_bytes(&p, dbt_nbits_choose(&p, plan->isa),
                                   dbt_pool_threads(call->pool));
}

static dibit_status cpu_run(const dbt_cpu_call *call) {
    DBT_TRY(check_call(call));
    const dbt_matmul_nbits p = problem(call);
    const nbits_plan *const plan = call->prepared;
    dbt_nbits_execute(&p, dbt_nbits_choose(&p, plan->isa), call->pool, call->scratch);
    return DIBIT_OK;
}

static void cpu_prefetch(const dbt_cpu_call *call, uint32_t thread, uint32_t n_threads,
                         dbt_prefetch *prefetch) {
    const dbt_matmul_nbits p = problem(call);
    const nbits_plan *const plan = call->prepared;
    dbt_nbits_prefetch(&p, NULL, dbt_nbits_choose(&p, plan->isa), thread, n_threads, prefetch);
}

static dibit_status cpu_bound(const dbt_cpu_call *call, float *const *bound) {
    const dbt_matmul_nbits p = problem(call);
    const float gamma = (float)dbt_nbits_gamma(&p);
    DBT_TRY(dbt_nbits_magnitudes(&p, call->options->isa, call->pool, bound[0], call->error));
    for (int64_t i = 0; i < p.M * p.N; i++) bound[0][i] *= gamma;
    return DIBIT_OK;
}

void dbt_nbits_describe(const dbt_node *node, char *text, size_t size) {
    const nbits_attrs *const at = node->attrs;
    const dbt_value *const zp =
        node->n_inputs > DBT_NBITS_ZERO_POINTS ? node->inputs[DBT_NBITS_ZERO_POINTS] : NULL;
    const bool has_g_idx = node->n_inputs > DBT_NBITS_G_IDX && node->inputs[DBT_NBITS_G_IDX];
    const bool has_bias = node->n_inputs > DBT_NBITS_BIAS && node->inputs[DBT_NBITS_BIAS];
    snprintf(text, size,
             "%" PRId64 " bits, block %" PRId64 ", %s zero points, accuracy_level %" PRId64 "%s%s",
             at->bits, at->block_size,
             !zp                            ? "no"
             : zp->type == DIBIT_TYPE_UINT8 ? "packed"
                                            : dibit_type_name(zp->type),
             at->accuracy_level, has_g_idx ? ", g_idx" : "", has_bias ? ", bias" : "");
}

const dbt_op dbt_matmul_nbits_ops[] = {
    {
        .domain = "com.microsoft",
        .name = "MatMulNBits",
        .since = 1,
        .min_inputs = 3,
        .max_inputs = DBT_NBITS_INPUTS,
        .min_outputs = 1,
        .max_outputs = 1,
        .flags = DBT_OP_ROWWISE,
        .raw_inputs = 1u << DBT_NBITS_B | 1u << DBT_NBITS_SCALES | 1u << DBT_NBITS_ZERO_POINTS,
        .host_inputs = 1u << DBT_NBITS_G_IDX,
        .attrs = attr_defs,
        .n_attrs = sizeof attr_defs / sizeof attr_defs[0],
        .attrs_bytes = sizeof(nbits_attrs),
        .infer = dbt_nbits_infer,
        .cpu_prepare = cpu_prepare,
        .cpu_scratch = cpu_scratch,
        .cpu_run = cpu_run,
        .cpu_prefetch = cpu_prefetch,
        .cpu_bound = cpu_bound,
        .describe = dbt_nbits_describe,
        .gpu_encode = dbt_nbits_gpu_encode,
        .gpu_refuses = dbt_nbits_gpu_refuses,
        .gpu_prepare = dbt_nbits_gpu_prepare,
        .gpu_release = dbt_nbits_gpu_release,
    },
    {0},
};

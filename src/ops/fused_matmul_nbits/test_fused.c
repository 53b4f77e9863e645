/* FusedMatMulNBits against its parts: the norm, the products and the gate in double precision, and the same
 * on a device. */
#include <math.h>

#include "dbt_test.h"

#include "op_device.h"
#include "op_harness.h"
#include "ops/fused_matmul_nbits/fused_matmul_nbits.h"
#include "ops/matmul_nbits/test_nbits_case.h"

typedef enum tail { NOTHING, RESIDUAL, SILU, GELU_TANH } tail;

typedef struct fused_case {
    nbits_case product;
    bool norm;
    tail tail;
    bool apart; /* the second matrix is an input of its own */
} fused_case;

enum { N_ATTRS = 7 };
static const float EPSILON = 1e-4f;

typedef struct fused_node {
    fused_case c;
    nbits_data first, second;
    float *gain, *residual, *want; /* [K], [M, N], [M, N] */
    dibit_tensor inputs[DBT_FUSED_INPUTS], y;
    char *stacked[DBT_NBITS_INPUTS]; /* both products' weights */
    dbt_onnx_attr attrs[N_ATTRS];
    dbt_op_case op;
} fused_node;

static float *random_floats(uint64_t *seed, int64_t n) {
    float *const out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) out[i] = dbt_test_uniform(seed, -2.0f, 2.0f);
    return out;
}

static dibit_tensor weights_tensor(const fused_case *c, const dbt_matmul_nbits *p, uint32_t input) {
    const nbits_case *const n = &c->product;
    const int64_t zero_row = n->zp == ZP_PACKED ? dbt_nbits_zero_row_bytes(p) : p->k_blocks;
    switch (input) {
    case DBT_NBITS_B:
        return (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_UINT8, p->b, n->N, p->k_blocks,
                                        n->block_size * n->bits / 8);
    case DBT_NBITS_SCALES:
        return (dibit_tensor)DBT_TENSOR(n->scale_type, p->scales, n->N * p->k_blocks);
    case DBT_NBITS_ZERO_POINTS:
        return (dibit_tensor)DBT_TENSOR(p->zero_point_type, p->zero_points, n->N * zero_row);
    default:
        return (dibit_tensor)DBT_TENSOR(n->bias ? DIBIT_TYPE_FLOAT : DIBIT_TYPE_UNDEFINED, p->bias,
                                        n->N);
    }
}

/* Rows of the second product behind those of the first, with bytes between them that matter to nobody. */
static void stack(fused_node *node, uint32_t input, const dibit_tensor *second) {
    dibit_tensor *const t = &node->inputs[input];
    if (t->type == DIBIT_TYPE_UNDEFINED) return;
    int64_t count = 1;
    for (int32_t d = 0; d < t->rank; d++) count *= t->dims[d];
    const int64_t n = node->c.product.N, row = count / n, first = dbt_fused_second_row(n);
    const size_t size = dibit_type_bits(t->type) / 8;
    char *const bytes = malloc((size_t)((first + n) * row) * size);
    assert_non_null(bytes);
    memset(bytes, 0xff, (size_t)((first + n) * row) * size);
    memcpy(bytes, t->data, (size_t)count * size);
    memcpy(bytes + (size_t)(first * row) * size, second->data, (size_t)count * size);
    node->stacked[input] = bytes;
    *t = (dibit_tensor)DBT_TENSOR(t->type, bytes, (first + n) * row);
}

static void expect(fused_node *node) {
    const nbits_case *const c = &node->c.product;
    const int64_t n = c->M * c->N;
    double *const h = malloc(3 * (size_t)n * sizeof *h), *const up = h + n, *const s = up + n;
    float *const x = malloc((size_t)(c->M * c->K) * sizeof *x);
    node->want = malloc((size_t)n * sizeof *node->want);
    assert_true(h && x && node->want);
    for (int64_t m = 0; m < c->M; m++) {
        double square = 0;
        for (int64_t k = 0; k < c->K; k++) square += pow((double)node->first.a[m * c->K + k], 2);
        const double inverse = 1 / sqrt(square / (double)c->K + (double)EPSILON);
        for (int64_t k = 0; k < c->K; k++) {
            const float a = node->first.a[m * c->K + k];
            x[m * c->K + k] =
                node->c.norm ? (float)((double)a * inverse * (double)node->gain[k]) : a;
        }
    }
    nbits_data first = node->first, second = node->second;
    first.a = second.a = x;
    first.p.a = second.p.a = x;
    nbits_data_oracle(&first, h, s);
    nbits_data_oracle(&second, up, s);
    for (int64_t i = 0; i < n; i++) {
        const double tanh_of = tanh(0.7978845608028654 * (h[i] + 0.044715 * pow(h[i], 3)));
        double y = h[i];
        if (node->c.tail == RESIDUAL) y += (double)node->residual[i];
        if (node->c.tail == SILU) y = h[i] / (1 + exp(-h[i])) * up[i];
        if (node->c.tail == GELU_TANH) y = 0.5 * h[i] * (1 + tanh_of) * up[i];
        node->want[i] = (float)y;
    }
    free(h);
    free(x);
}

static void node_create(const fused_case *c, fused_node *out) {
    uint64_t seed = 20250131;
    const nbits_case *const n = &c->product;
    const bool gated = c->tail >= SILU;
    *out = (fused_node){.c = *c};
    nbits_data_create(n, &seed, &out->first);
    nbits_data_create(n, &seed, &out->second);
    out->gain = random_floats(&seed, n->K);
    out->residual = random_floats(&seed, n->M * n->N);
    out->inputs[DBT_NBITS_A] =
        (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, out->first.p.a, 1, n->M, n->K);
    for (uint32_t i = DBT_NBITS_B; i <= DBT_NBITS_BIAS; i++) {
        if (i == DBT_NBITS_G_IDX) continue;
        out->inputs[i] = weights_tensor(c, &out->first.p, i);
        const dibit_tensor second = weights_tensor(c, &out->second.p, i);
        if (gated && c->apart) out->inputs[dbt_fused_second(i)] = second;
        if (gated && !c->apart) stack(out, i, &second);
    }
    if (c->norm)
        out->inputs[DBT_FUSED_GAIN] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, out->gain, n->K);
    if (c->tail == RESIDUAL)
        out->inputs[DBT_FUSED_RESIDUAL] =
            (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, out->residual, 1, n->M, n->N);
    const dbt_onnx_attr attrs[N_ATTRS] = {DBT_INT("K", n->K),
                                          DBT_INT("N", n->N),
                                          DBT_INT("bits", n->bits),
                                          DBT_INT("block_size", n->block_size),
                                          DBT_INT("accuracy_level", n->int8_activations ? 4 : 0),
                                          DBT_INT("gate", c->tail == GELU_TANH
                                                              ? DBT_FUSED_GATE_GELU_TANH
                                                          : c->tail == SILU ? DBT_FUSED_GATE_SILU
                                                                            : DBT_FUSED_GATE_NONE),
                                          DBT_FLOAT("epsilon", EPSILON)};
    memcpy(out->attrs, attrs, sizeof attrs);
    expect(out);
    out->y = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, out->want, 1, n->M, n->N);
    out->op = (dbt_op_case){.domain = "dibit",
                            .name = "FusedMatMulNBits",
                            .opset = 1,
                            .attrs = out->attrs,
                            .n_attrs = N_ATTRS,
                            .inputs = out->inputs,
                            .n_inputs = DBT_FUSED_INPUTS,
                            .constants = ~(1u << DBT_NBITS_A | 1u << DBT_FUSED_RESIDUAL),
                            .activations = n->int8_activations ? DIBIT_ACTIVATIONS_INT8
                                                               : DIBIT_ACTIVATIONS_FLOAT};
}

static void node_free(fused_node *node) {
    nbits_data_free(&node->first);
    nbits_data_free(&node->second);
    free(node->gain);
    free(node->residual);
    free(node->want);
    for (int i = 0; i < DBT_NBITS_INPUTS; i++) free(node->stacked[i]);
}

/* A matrix of its own is the CPU's: devices have no such form. */
static void run_all(bool int8_activations, const nbits_case *like) {
    static const int64_t rows[] = {1, 4, 9, 70};
    for (int i = 0; i < 4 * 8 * 2; i++) {
        fused_case c = {
            .product = *like, .norm = i & 1, .tail = (tail)(i / 2 % 4), .apart = i >= 32};
        if (c.apart && (c.tail < SILU || op_device_wanted())) continue;
        c.product.M = rows[i / 8 % 4];
        c.product.int8_activations = int8_activations;
        fused_node node;
        node_create(&c, &node);
        dbt_op_case_expect(&node.op, 0, &node.y);
        node_free(&node);
    }
}

static void run_both(const nbits_case *like) {
    run_all(false, like);
    run_all(true, like);
}

static void test_two_bits(void **state) {
    (void)state;
    run_both(&(nbits_case){.N = 36,
                           .K = 160,
                           .block_size = 32,
                           .bits = 2,
                           .fill = FILL_RANDOM,
                           .scale_type = DIBIT_TYPE_FLOAT});
}

static void test_zero_points_and_a_bias(void **state) {
    (void)state;
    run_both(&(nbits_case){.N = 37,
                           .K = 144,
                           .block_size = 16,
                           .bits = 4,
                           .zp = ZP_PACKED,
                           .fill = FILL_RANDOM,
                           .scale_type = DIBIT_TYPE_FLOAT16,
                           .bias = true});
}

/* K is no multiple of 4, and longer than one pass of a workgroup. */
static void test_odd_and_long_rows(void **state) {
    (void)state;
    run_both(&(nbits_case){.N = 5,
                           .K = 1091,
                           .block_size = 64,
                           .bits = 3,
                           .zp = ZP_FLOAT,
                           .fill = FILL_RANDOM,
                           .scale_type = DIBIT_TYPE_FLOAT});
}

static void refused_apart(tail t, bool apart, uint32_t input, int64_t fewer, bool computed,
                          const char *text) {
    const fused_case c = {.product = {.M = 2,
                                      .N = 8,
                                      .K = 32,
                                      .block_size = 32,
                                      .bits = 2,
                                      .fill = FILL_RANDOM,
                                      .scale_type = DIBIT_TYPE_FLOAT},
                          .norm = true,
                          .tail = t,
                          .apart = apart};
    fused_node node;
    node_create(&c, &node);
    dibit_tensor *const at = &node.inputs[input];
    if (at->type == DIBIT_TYPE_UNDEFINED) *at = node.inputs[DBT_NBITS_SCALES];
    at->dims[at->rank - 1] -= fewer;
    if (computed) node.op.constants &= ~(1u << input);
    dbt_op_case_refused(
        &node.op, input == DBT_FUSED_RESIDUAL && fewer ? DIBIT_BAD_INPUT : DIBIT_BAD_FILE, text);
    node_free(&node);
}

static void refused(tail t, uint32_t input, int64_t fewer, bool computed, const char *text) {
    refused_apart(t, false, input, fewer, computed, text);
}

static void test_refusals(void **state) {
    (void)state;
    const uint32_t second_scales = dbt_fused_second(DBT_NBITS_SCALES);
    refused_apart(SILU, true, second_scales, 1, false, "scales must have 8 elements");
    refused_apart(SILU, true, second_scales, 0, true, "input 9 must be a constant");
    refused_apart(SILU, true, dbt_fused_second(DBT_NBITS_BIAS), 0, false,
                  "inputs 5 and 12 must be of one kind");
    refused(NOTHING, DBT_FUSED_SECOND, 0, false, "a second matrix is for a gate");
    refused(SILU, DBT_NBITS_B, 1, false, "B must have 2112 elements");
    refused(SILU, DBT_NBITS_SCALES, 1, false, "scales must have 264 elements");
    refused(SILU, DBT_NBITS_SCALES, 0, true, "input 2 must be a constant");
    refused(SILU, DBT_FUSED_RESIDUAL, 0, false, "a gate and a residual are not for one node");
    refused(NOTHING, DBT_FUSED_GAIN, 1, false, "32");
    refused(RESIDUAL, DBT_FUSED_RESIDUAL, 1, false, "the residual must have 16 elements");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_bits),
        cmocka_unit_test(test_zero_points_and_a_bias),
        cmocka_unit_test(test_odd_and_long_rows),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

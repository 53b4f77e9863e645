/* MatMulNBits as a node: attributes, optional inputs, the choice of activations, refusals. */
#include "dbt_test.h"

#include "op_harness.h"
#include "ops/matmul_nbits/test_nbits_case.h"

typedef struct nbits_node {
    nbits_data data;
    dibit_tensor inputs[6], y;
    dbt_onnx_attr attrs[5];
    dbt_op_case c;
    float *want;
} nbits_node;

/* The case as a node whose A is [2, M / 2, K] for even M. */
static void node_create(const nbits_case *c, int accuracy_level, nbits_node *out) {
    uint64_t seed = 99;
    nbits_data_create(c, &seed, &out->data);
    const dbt_matmul_nbits *const p = &out->data.p;
    const int64_t zp_row = c->zp == ZP_PACKED ? dbt_nbits_zero_row_bytes(p) : p->k_blocks;
    const dibit_tensor inputs[6] = {
        DBT_TENSOR(DIBIT_TYPE_FLOAT, p->a, c->M % 2 ? 1 : 2, c->M % 2 ? c->M : c->M / 2, c->K),
        DBT_TENSOR(DIBIT_TYPE_UINT8, p->b, c->N, p->k_blocks, c->block_size * c->bits / 8),
        DBT_TENSOR(c->scale_type, p->scales, c->N * p->k_blocks),
        DBT_TENSOR(p->zero_point_type, p->zero_points, c->N * zp_row),
        DBT_TENSOR(c->g_idx ? DIBIT_TYPE_INT32 : DIBIT_TYPE_UNDEFINED, p->g_idx, c->K),
        DBT_TENSOR(c->bias ? DIBIT_TYPE_FLOAT : DIBIT_TYPE_UNDEFINED, p->bias, c->N),
    };
    const dbt_onnx_attr attrs[5] = {DBT_INT("K", c->K), DBT_INT("N", c->N),
                                    DBT_INT("bits", c->bits), DBT_INT("block_size", c->block_size),
                                    DBT_INT("accuracy_level", accuracy_level)};
    memcpy(out->inputs, inputs, sizeof inputs);
    memcpy(out->attrs, attrs, sizeof attrs);
    const size_t n = (size_t)(c->M * c->N);
    double *const y = malloc(2 * n * sizeof *y);
    out->want = malloc(n * sizeof *out->want);
    assert_non_null(y);
    assert_non_null(out->want);
    nbits_data_oracle(&out->data, y, y + n);
    for (size_t i = 0; i < n; i++) out->want[i] = (float)y[i];
    free(y);
    out->y = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, out->want, c->M % 2 ? 1 : 2,
                                      c->M % 2 ? c->M : c->M / 2, c->N);
    out->c = (dbt_op_case){.domain = "com.microsoft",
                           .name = "MatMulNBits",
                           .opset = 1,
                           .attrs = out->attrs,
                           .n_attrs = 5,
                           .inputs = out->inputs,
                           .n_inputs = 6,
                           .constants = 0x3e};
}

static void node_free(nbits_node *node) {
    nbits_data_free(&node->data);
    free(node->want);
}

static void test_every_kind_of_node(void **state) {
    (void)state;
    for (int i = 0; i < 96; i++) {
        const nbits_case c = {.M = 1 + i % 4,
                              .N = 5 + i % 7,
                              .K = 16 + 13 * (i % 9),
                              .block_size = 16 << i % 4,
                              .bits = (uint32_t)(1 + i % 8),
                              .zp = (nbits_zp)(i / 8 % N_ZP),
                              .fill = FILL_RANDOM,
                              .scale_type = i % 2 ? DIBIT_TYPE_FLOAT16 : DIBIT_TYPE_FLOAT,
                              .g_idx = i % 5 == 4,
                              .bias = i % 3 == 2,
                              .int8_activations = i % 5 != 4 && i / 4 % 2};
        nbits_node node;
        node_create(&c, c.int8_activations ? 4 : i % 4, &node);
        node.c.activations = c.int8_activations ? DIBIT_ACTIVATIONS_INT8 : DIBIT_ACTIVATIONS_AUTO;
        dbt_op_case_expect(&node.c, 0, &node.y);
        node_free(&node);
    }
}

/* A 2-bit node with zero points is no special case: it runs, with int8 activations at level 4. */
static void test_two_bits_with_zero_points(void **state) {
    (void)state;
    for (int level = 0; level <= 4; level += 4) {
        const nbits_case c = {.M = 2,
                              .N = 9,
                              .K = 96,
                              .block_size = 32,
                              .bits = 2,
                              .zp = ZP_PACKED,
                              .fill = FILL_RANDOM,
                              .scale_type = DIBIT_TYPE_FLOAT,
                              .int8_activations = level == 4};
        nbits_node node;
        node_create(&c, level, &node);
        dbt_op_case_expect(&node.c, 0, &node.y);
        node_free(&node);
    }
}

/* auto is float where ONNX Runtime's CPU is: float zero points, 2 bits in blocks of 16 or 256. */
static void test_auto_follows_onnx_runtime(void **state) {
    (void)state;
    static const struct {
        uint32_t bits;
        int64_t block_size;
        nbits_zp zp;
    } floats[] = {{2, 16, ZP_PACKED}, {2, 256, ZP_NONE}, {4, 32, ZP_FLOAT}, {2, 64, ZP_FLOAT16}};
    for (int i = 0; i < 4; i++) {
        const nbits_case c = {.M = 1,
                              .N = 4,
                              .K = 64,
                              .block_size = floats[i].block_size,
                              .bits = floats[i].bits,
                              .zp = floats[i].zp,
                              .fill = FILL_RANDOM,
                              .scale_type = DIBIT_TYPE_FLOAT};
        nbits_node node;
        node_create(&c, 4, &node);
        dbt_op_case_expect(&node.c, 0, &node.y);
        node_free(&node);
    }
}

static void refused(int attr, int64_t value, dibit_status status, const char *text) {
    const nbits_case c = {.M = 1,
                          .N = 4,
                          .K = 64,
                          .block_size = 32,
                          .bits = 2,
                          .zp = ZP_PACKED,
                          .g_idx = true,
                          .scale_type = DIBIT_TYPE_FLOAT};
    nbits_node node;
    node_create(&c, 0, &node);
    if (attr >= 0) node.attrs[attr].i = value;
    if (attr < 0) node.inputs[-attr].dims[0] -= value;
    dbt_op_case_refused(&node.c, status, text);
    node_free(&node);
}

static void test_refusals(void **state) {
    (void)state;
    refused(0, 0, DIBIT_BAD_FILE, "attribute K must be 1 to");
    refused(0, INT64_MAX, DIBIT_BAD_FILE, "attribute K must be 1 to");
    refused(1, -5, DIBIT_BAD_FILE, "attribute N must be 1 to");
    refused(2, 9, DIBIT_BAD_FILE, "attribute bits must be 1 to 8, got 9");
    refused(3, 24, DIBIT_BAD_FILE, "attribute block_size must be a power of two");
    refused(3, 8, DIBIT_BAD_FILE, "attribute block_size must be a power of two");
    refused(4, 7, DIBIT_BAD_FILE, "attribute accuracy_level must be 0 to 4");
    refused(-1, 1, DIBIT_BAD_FILE, "B must have 64 elements");
    refused(-2, 1, DIBIT_BAD_FILE, "scales must have 8 elements");
    refused(-3, 1, DIBIT_BAD_FILE, "zero_points must have 4 elements");
    refused(-4, 1, DIBIT_BAD_FILE, "g_idx must have 64 elements");
}

static void test_g_idx_out_of_range_is_refused(void **state) {
    (void)state;
    for (int bad = -1; bad <= 2; bad += 3) {
        const nbits_case c = {.M = 1,
                              .N = 4,
                              .K = 64,
                              .block_size = 32,
                              .bits = 4,
                              .g_idx = true,
                              .scale_type = DIBIT_TYPE_FLOAT};
        nbits_node node;
        node_create(&c, 0, &node);
        node.data.g_idx[63] = bad;
        dbt_op_case_refused(&node.c, DIBIT_OUT_OF_RANGE, "g_idx[63] must be 0 to 1");
        node_free(&node);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_node),
        cmocka_unit_test(test_two_bits_with_zero_points),
        cmocka_unit_test(test_auto_follows_onnx_runtime),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_g_idx_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

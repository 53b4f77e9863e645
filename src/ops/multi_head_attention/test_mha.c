/* MultiHeadAttention and Attention of com.microsoft: forms of the same thing give the same, means of
 * values can be told by hand, and what does not fit is refused. ONNX Runtime's outputs are among the
 * cases in tests/data. */
#include "dbt_test.h"

#include "op_harness.h"

enum {
    BATCH = 2,
    QUERIES = 3,
    HEADS = 2,
    DIM = 4,
    WIDTH = HEADS * DIM,
    COUNT = BATCH * QUERIES * WIDTH
};

static void randomize(float *x, int64_t n, uint64_t seed) {
    for (int64_t i = 0; i < n; i++) x[i] = dbt_test_uniform(&seed, -2, 2);
}

/* Separate inputs; all in one; keys with values; keys and values by head: the same outputs. */
static void test_forms(void **unused) {
    (void)unused;
    float q[COUNT], k[COUNT], v[COUNT], kh[COUNT], vh[COUNT], all[3 * COUNT], pair[2 * COUNT];
    randomize(q, COUNT, 1);
    randomize(k, COUNT, 2);
    randomize(v, COUNT, 3);
    for (int64_t i = 0; i < COUNT; i++) {
        const int64_t d = i % DIM, h = i / DIM % HEADS, s = i / WIDTH % QUERIES;
        const int64_t b = i / WIDTH / QUERIES, head = i / DIM;
        all[(head * 3 + 0) * DIM + d] = q[i];
        all[(head * 3 + 1) * DIM + d] = pair[(head * 2 + 0) * DIM + d] = k[i];
        all[(head * 3 + 2) * DIM + d] = pair[(head * 2 + 1) * DIM + d] = v[i];
        kh[((b * HEADS + h) * QUERIES + s) * DIM + d] = k[i];
        vh[((b * HEADS + h) * QUERIES + s) * DIM + d] = v[i];
    }
    const dibit_tensor flat[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, q, BATCH, QUERIES, WIDTH),
                                 DBT_TENSOR(DIBIT_TYPE_FLOAT, k, BATCH, QUERIES, WIDTH),
                                 DBT_TENSOR(DIBIT_TYPE_FLOAT, v, BATCH, QUERIES, WIDTH)};
    const dibit_tensor one[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, all, BATCH, QUERIES, HEADS, 3, DIM)};
    const dibit_tensor two[] = {flat[0],
                                DBT_TENSOR(DIBIT_TYPE_FLOAT, pair, BATCH, QUERIES, HEADS, 2, DIM)};
    const dibit_tensor by_head[] = {flat[0],
                                    DBT_TENSOR(DIBIT_TYPE_FLOAT, kh, BATCH, HEADS, QUERIES, DIM),
                                    DBT_TENSOR(DIBIT_TYPE_FLOAT, vh, BATCH, HEADS, QUERIES, DIM)};
    const dbt_onnx_attr attrs[] = {DBT_INT("num_heads", HEADS), DBT_INT("unidirectional", 1)};
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "MultiHeadAttention",
                     .opset = 1,
                     .attrs = attrs,
                     .n_attrs = 2,
                     .inputs = flat,
                     .n_inputs = 3};
    dbt_op_result r;
    assert_int_equal(dbt_op_case_run(&c, &r, NULL), DIBIT_OK);
    c.inputs = one;
    c.n_inputs = 1;
    dbt_op_case_expect(&c, 0, &r.out[0]);
    c.inputs = two;
    c.n_inputs = 2;
    dbt_op_case_expect(&c, 0, &r.out[0]);
    c.inputs = by_head;
    c.n_inputs = 3;
    dbt_op_case_expect(&c, 0, &r.out[0]);
    dbt_op_result_free(&r);
}

/* Queries of zeros weigh what they see alike; the bias moves values. */
static void test_masks(void **unused) {
    (void)unused;
    const float q[2] = {0}, k[4] = {1, 2, 3, 4}, v[4] = {1, 2, 4, 8}, bias[3] = {0, 0, 10};
    const int32_t lengths[] = {3}, ends_starts[] = {3, 1}, one_zero[] = {1, 0, 0, 1};
    const int32_t by_query[] = {1, 1, 0, 0, 0, 0, 0, 1};
    const struct {
        dibit_tensor mask;
        float first, second;
    } cases[] = {
        {DBT_TENSOR(DIBIT_TYPE_INT32, lengths, 1), 7.0f / 3, 7.0f / 3},
        {DBT_TENSOR(DIBIT_TYPE_INT32, one_zero, 1, 4), 4.5f, 4.5f},
        {DBT_TENSOR(DIBIT_TYPE_INT32, by_query, 1, 2, 4), 1.5f, 8.0f},
    };
    const dbt_onnx_attr attrs[] = {DBT_INT("num_heads", 1)};
    dibit_tensor inputs[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, q, 1, 2, 1),
                             DBT_TENSOR(DIBIT_TYPE_FLOAT, k, 1, 4, 1),
                             DBT_TENSOR(DIBIT_TYPE_FLOAT, v, 1, 4, 1),
                             DBT_TENSOR(DIBIT_TYPE_FLOAT, bias, 3), DBT_ABSENT};
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "MultiHeadAttention",
                     .opset = 1,
                     .attrs = attrs,
                     .n_attrs = 1,
                     .inputs = inputs,
                     .n_inputs = 5};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        inputs[4] = cases[i].mask;
        const float want[] = {10 + cases[i].first, 10 + cases[i].second};
        const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_FLOAT, want, 1, 2, 1);
        dbt_op_case_expect(&c, 0, &y);
    }
    inputs[4] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_INT32, ends_starts, 2);
    dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "a mask of rank 1 does not fit");
    inputs[3] = inputs[2];
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "must have rank 1");
}

/* Weights [2, 3]: q 0, k 0, v the sum of a token's two elements. */
static void test_attention(void **unused) {
    (void)unused;
    const float x[] = {1, 0, 0, 2, 3, 1, 4, 4}, w[] = {0, 0, 1, 0, 0, 1}, b[] = {0, 0, 1};
    const int32_t ends_starts[] = {3, 1};
    const dbt_onnx_attr attrs[] = {DBT_INT("num_heads", 1), DBT_INT("unidirectional", 1)};
    const dibit_tensor inputs[] = {
        DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 4, 2), DBT_TENSOR(DIBIT_TYPE_FLOAT, w, 2, 3),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, b, 3), DBT_TENSOR(DIBIT_TYPE_INT32, ends_starts, 2)};
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "Attention",
                     .opset = 1,
                     .attrs = attrs,
                     .n_attrs = 2,
                     .inputs = inputs,
                     .n_inputs = 3};
    const float causal[] = {2, 2.5f, 10.0f / 3, 4.75f};
    const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_FLOAT, causal, 1, 4, 1);
    dbt_op_case_expect(&c, 0, &y);
    c.n_attrs = 1;
    c.n_inputs = 4;
    const float masked[] = {4, 4, 4, 4};
    const dibit_tensor mean = DBT_TENSOR(DIBIT_TYPE_FLOAT, masked, 1, 4, 1);
    dbt_op_case_expect(&c, 0, &mean);

    const float past[] = {0, 0, 7, 3}; /* keys, then values, of two tokens */
    const dibit_tensor more[] = {inputs[0], inputs[1], inputs[2], DBT_ABSENT,
                                 DBT_TENSOR(DIBIT_TYPE_FLOAT, past, 2, 1, 1, 2, 1)};
    c = (dbt_op_case){.domain = "com.microsoft",
                      .name = "Attention",
                      .opset = 1,
                      .attrs = attrs,
                      .n_attrs = 2,
                      .inputs = more,
                      .n_inputs = 5,
                      .n_outputs = 2};
    const float longer[] = {4, 3.75f, 4, 29.0f / 6}, kept[] = {0, 0, 0, 0, 0, 0, 7, 3, 2, 3, 5, 9};
    const dibit_tensor with_past = DBT_TENSOR(DIBIT_TYPE_FLOAT, longer, 1, 4, 1);
    const dibit_tensor present = DBT_TENSOR(DIBIT_TYPE_FLOAT, kept, 2, 1, 1, 6, 1);
    dbt_op_case_expect(&c, 0, &with_past);
    dbt_op_case_expect(&c, 1, &present);

    const dbt_onnx_attr rotary[] = {DBT_INT("num_heads", 1), DBT_INT("do_rotary", 1)};
    c.attrs = rotary;
    dbt_op_case_refused(&c, DIBIT_UNSUPPORTED, "do_rotary");
    const dbt_onnx_attr sizes[] = {DBT_INT("num_heads", 1), DBT_INTS("qkv_hidden_sizes", 1, 2, 1)};
    c.attrs = sizes;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "qkv_hidden_sizes");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

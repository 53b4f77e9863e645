/* ai.onnx Attention: cases whose results can be told by hand. ONNX's own node tests cover the rest. */
#include "dbt_test.h"

#include "op_harness.h"

/* Queries of zeros weigh what they see alike, so outputs are means of values. Two query heads share
 * one key head; values are 1, 2, 4, 8 in element 0 and negated in element 1. */
static const float q4[8] = {0}; /* [1, 2, 2, 2] */
static const float k4[] = {1, 2, 3, 4, 5, 6, 7, 8}, v4[] = {1, -1, 2, -2, 4, -4, 8, -8};

static void expect_means(const dbt_onnx_attr *attrs, uint32_t n_attrs, const dibit_tensor *extra,
                         uint32_t at, int32_t opset, float first, float second) {
    dibit_tensor inputs[7] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, q4, 1, 2, 2, 2),
                              DBT_TENSOR(DIBIT_TYPE_FLOAT, k4, 1, 1, 4, 2),
                              DBT_TENSOR(DIBIT_TYPE_FLOAT, v4, 1, 1, 4, 2)};
    if (extra) inputs[at] = *extra;
    const float want[] = {first, -first, second, -second, first, -first, second, -second};
    const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_FLOAT, want, 1, 2, 2, 2);
    const dbt_op_case c = {.name = "Attention",
                           .opset = opset,
                           .attrs = attrs,
                           .n_attrs = n_attrs,
                           .inputs = inputs,
                           .n_inputs = opset == 23 ? 6 : 7};
    dbt_op_case_expect(&c, 0, &y);
}

static void test_masks(void **unused) {
    (void)unused;
    const dbt_onnx_attr causal[] = {DBT_INT("is_causal", 1)};
    expect_means(NULL, 0, NULL, 0, 23, 3.75f, 3.75f);
    expect_means(causal, 1, NULL, 0, 23, 1.0f, 1.5f);
    const uint8_t allow[] = {1, 0, 1, 0, 0, 0, 0, 0};
    const dibit_tensor mask = DBT_TENSOR(DIBIT_TYPE_BOOL, allow, 2, 4);
    expect_means(NULL, 0, &mask, 3, 23, 2.5f, 0.0f); /* all masked: zeros */
    const float forbid[] = {-INFINITY, 0, 0, -INFINITY};
    const dibit_tensor added = DBT_TENSOR(DIBIT_TYPE_FLOAT, forbid, 1, 1, 4);
    expect_means(NULL, 0, &added, 3, 23, 3.0f, 3.0f);
    expect_means(causal, 1, &added, 3, 23, 0.0f, 2.0f);
    const uint8_t two[] = {1, 1};
    const dibit_tensor small = DBT_TENSOR(DIBIT_TYPE_BOOL, two, 2);
    expect_means(NULL, 0, &small, 3, 24, 1.5f, 1.5f); /* keys beyond a mask do not count */
    const int64_t three[] = {3};
    const dibit_tensor nonpad = DBT_TENSOR(DIBIT_TYPE_INT64, three, 1);
    expect_means(NULL, 0, &nonpad, 6, 24, 7.0f / 3, 7.0f / 3);
    expect_means(causal, 1, &nonpad, 6, 24, 1.5f, 7.0f / 3);
    const dbt_onnx_attr windows[] = {DBT_INT("left_window_size", 0),
                                     DBT_INT("right_window_size", 1)};
    expect_means(windows, 2, NULL, 0, 25, 1.5f, 3.0f);
}

/* [B, S, H * D] gives what [B, H, S, D] does; past goes in front and comes out as present. */
static void test_rank_3_and_past(void **unused) {
    (void)unused;
    const dbt_onnx_attr attrs[] = {DBT_INT("q_num_heads", 2), DBT_INT("kv_num_heads", 1),
                                   DBT_INT("is_causal", 1), DBT_INT("qk_matmul_output_mode", 3)};
    const float past_v[] = {16, -16}, past_k[] = {9, 9};
    const dibit_tensor inputs[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, q4, 1, 2, 4),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, k4, 1, 4, 2),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, v4, 1, 4, 2),
                                   DBT_ABSENT,
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, past_k, 1, 1, 1, 2),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, past_v, 1, 1, 1, 2)};
    const dbt_op_case c = {.name = "Attention",
                           .opset = 23,
                           .attrs = attrs,
                           .n_attrs = 4,
                           .inputs = inputs,
                           .n_inputs = 6,
                           .n_outputs = 4};
    const float a = 8.5f, b = 19.0f / 3;
    const float y[] = {a, -a, a, -a, b, -b, b, -b};
    const float present[] = {16, -16, 1, -1, 2, -2, 4, -4, 8, -8};
    const float t = 1.0f / 3;
    const float qk[] = {0.5f, 0.5f, 0, 0, 0, t, t, t, 0, 0, 0.5f, 0.5f, 0, 0, 0, t, t, t, 0, 0};
    const dibit_tensor want[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 1, 2, 4),
                                 DBT_TENSOR(DIBIT_TYPE_FLOAT, present, 1, 1, 5, 2),
                                 DBT_TENSOR(DIBIT_TYPE_FLOAT, qk, 1, 2, 2, 5)};
    dbt_op_case_expect(&c, 0, &want[0]);
    dbt_op_case_expect(&c, 2, &want[1]);
    dbt_op_case_expect(&c, 3, &want[2]);
    /* Without present the past counts all the same. */
    dbt_op_case alone = c;
    alone.n_outputs = 1;
    dbt_op_case_expect(&alone, 0, &want[0]);
}

static void test_refusals(void **unused) {
    (void)unused;
    const dibit_tensor inputs[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, q4, 1, 2, 4),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, k4, 1, 4, 2),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, v4, 1, 4, 2)};
    dbt_op_case c = {.name = "Attention", .opset = 23, .inputs = inputs, .n_inputs = 3};
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "need positive q_num_heads");
    const dbt_onnx_attr odd[] = {DBT_INT("q_num_heads", 3), DBT_INT("kv_num_heads", 1)};
    c.attrs = odd;
    c.n_attrs = 2;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "not a multiple of 3 heads");
    const dbt_onnx_attr window[] = {DBT_INT("q_num_heads", 2), DBT_INT("kv_num_heads", 1),
                                    DBT_INT("left_window_size", 1)};
    c.attrs = window;
    c.n_attrs = 3;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "'left_window_size' does not exist");
    const int64_t five[] = {5};
    const dibit_tensor padded[] = {inputs[0],
                                   inputs[1],
                                   inputs[2],
                                   DBT_ABSENT,
                                   DBT_ABSENT,
                                   DBT_ABSENT,
                                   DBT_TENSOR(DIBIT_TYPE_INT64, five, 1)};
    c = (dbt_op_case){.name = "Attention",
                      .opset = 24,
                      .attrs = window,
                      .n_attrs = 2,
                      .inputs = padded,
                      .n_inputs = 7};
    dbt_op_case_refused(&c, DIBIT_OUT_OF_RANGE, "nonpad_kv_seqlen[0] is 5");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_rank_3_and_past),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

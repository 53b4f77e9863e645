/* Casts between all types against definitions, Identity, Dropout. */
#include "dbt_test.h"
#include "op_harness.h"

#include "base/half.h"

static void check(dibit_type from, const void *x, dibit_type to, const void *want, int64_t n) {
    const dibit_tensor in = DBT_TENSOR(from, x, n);
    const dibit_tensor out = DBT_TENSOR(dbt_storage_type(to), want, n);
    const dbt_onnx_attr attr = DBT_INT("to", to);
    dbt_op_case_expect(&(dbt_op_case){.name = "Cast",
                                      .opset = 19,
                                      .inputs = &in,
                                      .n_inputs = 1,
                                      .attrs = &attr,
                                      .n_attrs = 1},
                       0, &out);
    static const uint8_t like[8];
    const dibit_tensor two[2] = {in, DBT_TENSOR(to, like, 1)};
    dbt_op_case_expect(
        &(dbt_op_case){.name = "CastLike", .opset = 19, .inputs = two, .n_inputs = 2}, 0, &out);
}

static void test_floats_are_truncated_and_saturate(void **state) {
    (void)state;
    const float x[8] = {-1.9f, 1.9f, -300, 300, 3e9f, -3e9f, NAN, 1e30f};
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_INT8, (int8_t[]){-1, 1, -128, 127, 127, -128, 0, 127}, 8);
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_UINT8, (uint8_t[]){0, 1, 0, 255, 255, 0, 0, 255}, 8);
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_INT32,
          (int32_t[]){-1, 1, -300, 300, INT32_MAX, INT32_MIN, 0, INT32_MAX}, 8);
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_UINT32,
          (uint32_t[]){0, 1, 0, 300, 3000000000u, 0, 0, UINT32_MAX}, 8);
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_INT64,
          (int64_t[]){-1, 1, -300, 300, 3000000000, -3000000000, 0, INT64_MAX}, 8);
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_BOOL, (uint8_t[]){1, 1, 1, 1, 1, 1, 1, 1}, 8);
    const float small[5] = {-9, -8, 7, 8, 0.5f};
    check(DIBIT_TYPE_FLOAT, small, DIBIT_TYPE_INT4, (int8_t[]){7, -8, 7, -8, 0}, 5);
    check(DIBIT_TYPE_FLOAT, small, DIBIT_TYPE_UINT4, (uint8_t[]){7, 8, 7, 8, 0}, 5);
    check(DIBIT_TYPE_FLOAT, small, DIBIT_TYPE_INT2, (int8_t[]){-1, 0, -1, 0, 0}, 5);
    check(DIBIT_TYPE_FLOAT, small, DIBIT_TYPE_UINT2, (uint8_t[]){3, 0, 3, 0, 0}, 5);
}

static void test_half_precision_rounds(void **state) {
    (void)state;
    const float x[6] = {1.0004883f, 65519, 65520, 3e-8f, 1.00390625f, NAN};
    float half[6], brain[6];
    for (int i = 0; i < 6; i++) {
        half[i] = dbt_half_to_float(dbt_float_to_half(x[i]));
        brain[i] = dbt_bfloat16_to_float(dbt_float_to_bfloat16(x[i]));
    }
    assert_true(half[1] == 65504 && isinf(half[2]) && brain[4] == 1);
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_FLOAT16, half, 6);
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_BFLOAT16, brain, 6);
    const double d[2] = {0.1, -1e300};
    check(DIBIT_TYPE_DOUBLE, d, DIBIT_TYPE_FLOAT, (float[]){0.1f, -INFINITY}, 2);
    check(DIBIT_TYPE_DOUBLE, d, DIBIT_TYPE_FLOAT16, (float[]){0.0999755859375f, -INFINITY}, 2);
    const int64_t i[2] = {2049, 70000};
    check(DIBIT_TYPE_INT64, i, DIBIT_TYPE_FLOAT16, (float[]){2048, INFINITY}, 2);
}

/* Every half, the floats halfway to the next one, and their neighbours on both sides. */
static void test_halves_and_what_lies_between(void **state) {
    (void)state;
    enum { HALVES = 0x7c00, N = 2 * 4 * HALVES };
    static float x[N], want[N];
    for (uint32_t h = 0; h < HALVES; h++) {
        const float here = dbt_half_to_float((uint16_t)h);
        const float next = h + 1 < HALVES ? dbt_half_to_float((uint16_t)(h + 1)) : 65536.0f;
        const float between = 0.5f * (here + next);
        const float v[4] = {here, nextafterf(between, 0), between, nextafterf(between, next)};
        for (uint32_t k = 0; k < 4; k++) {
            x[8 * h + k] = v[k];
            x[8 * h + 4 + k] = -v[k];
        }
    }
    for (int i = 0; i < N; i++) want[i] = dbt_half_to_float(dbt_float_to_half(x[i]));
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_FLOAT16, want, N);
    for (int i = 0; i < N; i++) want[i] = dbt_bfloat16_to_float(dbt_float_to_bfloat16(x[i]));
    check(DIBIT_TYPE_FLOAT, x, DIBIT_TYPE_BFLOAT16, want, N);
}

static void test_integers_keep_their_low_bits(void **state) {
    (void)state;
    const int64_t x[4] = {-1, 0, 0x123456789, 200};
    check(DIBIT_TYPE_INT64, x, DIBIT_TYPE_INT32, (int32_t[]){-1, 0, 0x23456789, 200}, 4);
    check(DIBIT_TYPE_INT64, x, DIBIT_TYPE_INT8, (int8_t[]){-1, 0, (int8_t)0x89, (int8_t)200}, 4);
    check(DIBIT_TYPE_INT64, x, DIBIT_TYPE_UINT8, (uint8_t[]){255, 0, 0x89, 200}, 4);
    check(DIBIT_TYPE_INT64, x, DIBIT_TYPE_INT64, x, 4);
    check(DIBIT_TYPE_INT64, x, DIBIT_TYPE_BOOL, (uint8_t[]){1, 0, 1, 1}, 4);
    check(DIBIT_TYPE_INT64, x, DIBIT_TYPE_FLOAT, (float[]){-1, 0, 4886718345.0f, 200}, 4);
    check(DIBIT_TYPE_INT64, x, DIBIT_TYPE_INT4, (int8_t[]){-1, 0, -7, -8}, 4);
    const uint8_t b[3] = {0, 1, 1};
    check(DIBIT_TYPE_BOOL, b, DIBIT_TYPE_INT64, (int64_t[]){0, 1, 1}, 3);
    check(DIBIT_TYPE_BOOL, b, DIBIT_TYPE_FLOAT, (float[]){0, 1, 1}, 3);
    const uint8_t packed[2] = {0x8f, 0x73};
    check(DIBIT_TYPE_INT4, packed, DIBIT_TYPE_FLOAT, (float[]){-1, -8, 3, 7}, 4);
    check(DIBIT_TYPE_UINT4, packed, DIBIT_TYPE_INT8, (int8_t[]){15, 8, 3, 7}, 4);
    const uint64_t u[2] = {UINT64_MAX, 5};
    check(DIBIT_TYPE_UINT64, u, DIBIT_TYPE_INT64, (int64_t[]){-1, 5}, 2);
    check(DIBIT_TYPE_UINT64, u, DIBIT_TYPE_FLOAT, (float[]){0x1p64f, 5}, 2);
}

static void test_identity_and_dropout_pass_on(void **state) {
    (void)state;
    const int64_t x[3] = {1, -2, 3};
    const float f[3] = {1, -2, 3}, ratio = 0.5f;
    const uint8_t no = 0, yes = 1, kept[3] = {1, 1, 1};
    const dibit_tensor ints = DBT_TENSOR(DIBIT_TYPE_INT64, x, 3);
    dbt_op_case_expect(
        &(dbt_op_case){.name = "Identity", .opset = 14, .inputs = &ints, .n_inputs = 1}, 0, &ints);
    dibit_tensor in[3] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, f, 3), DBT_SCALAR(DIBIT_TYPE_FLOAT, &ratio),
                          DBT_SCALAR(DIBIT_TYPE_BOOL, &no)};
    const dibit_tensor mask = DBT_TENSOR(DIBIT_TYPE_BOOL, kept, 3);
    dbt_op_case c = {.name = "Dropout",
                     .opset = 13,
                     .inputs = in,
                     .n_inputs = 3,
                     .constants = 6,
                     .n_outputs = 2};
    dbt_op_case_expect(&c, 0, &in[0]);
    dbt_op_case_expect(&c, 1, &mask);
    in[2].data = (void *)(uintptr_t)&yes;
    dbt_op_case_refused(&c, DIBIT_UNSUPPORTED, "training_mode must be a constant false");
}

static void test_bad_casts_are_refused(void **state) {
    (void)state;
    const float x[1] = {0};
    const dibit_tensor in = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1);
    dbt_onnx_attr attr = DBT_INT("to", DIBIT_TYPE_FLOAT8E4M3FN);
    dbt_op_case c = {.name = "Cast", .opset = 19, .inputs = &in, .n_inputs = 1};
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "attribute 'to' is missing");
    c.attrs = &attr;
    c.n_attrs = 1;
    dbt_op_case_refused(&c, DIBIT_UNSUPPORTED, "casting from float to float8e4m3fn");
    attr.i = 257;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "attribute 'to' is 257");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats_are_truncated_and_saturate),
        cmocka_unit_test(test_half_precision_rounds),
        cmocka_unit_test(test_halves_and_what_lies_between),
        cmocka_unit_test(test_integers_keep_their_low_bits),
        cmocka_unit_test(test_identity_and_dropout_pass_on),
        cmocka_unit_test(test_bad_casts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Softmax family against a double reference, over axes, opsets and sizes. */
#include "dbt_test.h"
#include "op_harness.h"

enum { MAX = 4 * 37 * 70 };

/* [outer, n, inner], straight from the definitions. */
static void reference(const char *op, const float *x, float *y, const int64_t *d) {
    for (int64_t o = 0; o < d[0]; o++) {
        for (int64_t c = 0; c < d[2]; c++) {
            const int64_t at = o * d[1] * d[2] + c;
            double max = -INFINITY, sum = 0;
            int64_t first = 0;
            for (int64_t i = 0; i < d[1]; i++) {
                if ((double)x[at + i * d[2]] > max) first = i;
                max = fmax(max, (double)x[at + i * d[2]]);
            }
            for (int64_t i = 0; i < d[1]; i++) sum += exp((double)x[at + i * d[2]] - max);
            for (int64_t i = 0; i < d[1]; i++) {
                const double v = (double)x[at + i * d[2]] - max;
                y[at + i * d[2]] = (float)(op[0] == 'S'   ? exp(v) / sum
                                           : op[0] == 'L' ? v - log(sum)
                                                          : (double)(i == first));
            }
        }
    }
}

static void check(const char *op, int32_t opset, int64_t axis, const int64_t *dims,
                  const int64_t *as) {
    static float x[MAX], want[MAX];
    uint64_t seed = 7;
    for (int64_t i = 0; i < MAX; i++) x[i] = dbt_test_uniform(&seed, -20, 20);
    const dbt_onnx_attr attr = DBT_INT("axis", axis);
    const dibit_tensor in = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, dims[0], dims[1], dims[2]);
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, want, dims[0], dims[1], dims[2]);
    reference(op, x, want, as);
    dbt_op_case_expect(
        &(dbt_op_case){
            .name = op, .opset = opset, .attrs = &attr, .n_attrs = 1, .inputs = &in, .n_inputs = 1},
        0, &out);
}

static void test_every_axis_and_opset(void **state) {
    (void)state;
    static const char *const ops[] = {"Softmax", "LogSoftmax", "Hardmax"};
    static const int64_t shapes[][3] = {{4, 37, 70}, {1, 1, 1}, {2, 3, 129}, {3, 64, 1}, {0, 3, 2}};
    for (size_t o = 0; o < 3; o++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            const int64_t *const d = shapes[s];
            check(ops[o], 13, -1, d, (int64_t[]){d[0] * d[1], d[2], 1});
            check(ops[o], 24, 1, d, d);
            check(ops[o], 13, -3, d, (int64_t[]){1, d[0], d[1] * d[2]});
            check(ops[o], 11, 1, d, (int64_t[]){d[0], d[1] * d[2], 1});
            check(ops[o], 12, -1, d, (int64_t[]){d[0] * d[1], d[2], 1});
        }
    }
}

static void test_a_row_of_infinities(void **state) {
    (void)state;
    const float x[4] = {-INFINITY, 0, -INFINITY, 1000}, want[4] = {0, 0, 0, 1};
    const dibit_tensor in = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 4);
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, want, 4);
    const dbt_op_case c = {.name = "Softmax", .opset = 13, .inputs = &in, .n_inputs = 1};
    dbt_op_case_expect(&c, 0, &out);
    dbt_op_result r;
    assert_int_equal(dbt_op_case_run(&c, &r, NULL), DIBIT_OK);
    for (int i = 0; i < 4; i++) assert_true(r.bound[0][i] < 1e-5f); /* and so is a number */
    dbt_op_result_free(&r);
}

static void test_bad_nodes_are_refused(void **state) {
    (void)state;
    const int64_t x[2] = {1, 2};
    const dibit_tensor ints = DBT_TENSOR(DIBIT_TYPE_INT64, x, 2);
    const dibit_tensor floats = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2);
    const dbt_onnx_attr axis = DBT_INT("axis", 1), kind = DBT_FLOAT("axis", 1);
    const dbt_onnx_attr other = DBT_INT("axes", 1);
    dbt_op_case c = {.name = "Softmax", .opset = 13, .inputs = &ints, .n_inputs = 1};
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "type int64");
    c.inputs = &floats;
    c.n_attrs = 1;
    c.attrs = &axis;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "axis 1 is out of range");
    c.attrs = &kind;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "'axis' must be an int, got a float");
    c.attrs = &other;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "'axes' does not exist");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_axis_and_opset),
        cmocka_unit_test(test_a_row_of_infinities),
        cmocka_unit_test(test_bad_nodes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Reductions, ArgMax/ArgMin and CumSum against definitions in double and int64. */
#include "dbt_test.h"
#include "op_harness.h"

enum { MAX_COUNT = 40000 };

typedef struct reduce_case {
    const char *name;
    int32_t input_since;
} reduce_case;

static const reduce_case ops[] = {
    {"ReduceSum", 13},       {"ReduceMean", 18},      {"ReduceMax", 18}, {"ReduceMin", 18},
    {"ReduceProd", 18},      {"ReduceL1", 18},        {"ReduceL2", 18},  {"ReduceLogSum", 18},
    {"ReduceLogSumExp", 18}, {"ReduceSumSquare", 18},
};

static double first(const char *op) {
    return strcmp(op, "ReduceMax") == 0    ? -INFINITY
           : strcmp(op, "ReduceMin") == 0  ? INFINITY
           : strcmp(op, "ReduceProd") == 0 ? 1
                                           : 0;
}

static double next(const char *op, double a, double v) {
    if (strcmp(op, "ReduceMax") == 0) return fmax(a, v);
    if (strcmp(op, "ReduceMin") == 0) return fmin(a, v);
    if (strcmp(op, "ReduceProd") == 0) return a * v;
    if (strcmp(op, "ReduceL1") == 0) return a + fabs(v);
    if (strcmp(op, "ReduceL2") == 0 || strcmp(op, "ReduceSumSquare") == 0) return a + v * v;
    if (strcmp(op, "ReduceLogSumExp") == 0) return a + exp(v);
    return a + v;
}

static double last(const char *op, double a, double n) {
    if (strcmp(op, "ReduceMean") == 0) return a / n;
    if (strcmp(op, "ReduceL2") == 0) return sqrt(a);
    if (strncmp(op, "ReduceLog", 9) == 0) return log(a);
    return a;
}

typedef struct axes_case {
    int32_t rank, n_axes;
    int64_t dims[5], axes[5];
} axes_case;

static const axes_case axes_cases[] = {
    {3, 1, {3, 4, 70}, {2}},
    {3, 1, {3, 4, 70}, {1}},
    {3, 1, {3, 4, 70}, {-3}},
    {3, 2, {3, 4, 70}, {0, 2}},
    {3, 2, {3, 4, 70}, {1, 2}},
    {3, 3, {3, 4, 70}, {0, 1, -1}},
    {5, 2, {2, 3, 2, 3, 5}, {1, 3}},
    {5, 3, {2, 3, 2, 3, 5}, {0, 2, 4}},
    {4, 2, {2, 1, 1, 5}, {1, 3}},
    {2, 1, {2, 5000}, {1}},
    {2, 1, {300, 100}, {0}},
    {2, 1, {0, 5}, {1}},
    {1, 1, {1}, {0}},
};

/* Where element `at` of x goes: its coordinates without the reduced ones. */
static int64_t target(const axes_case *c, uint32_t mask, int64_t at) {
    int64_t index = 0, stride = 1;
    for (int32_t d = c->rank - 1; d >= 0; d--) {
        if (!(mask >> d & 1)) {
            index += at % c->dims[d] * stride;
            stride *= c->dims[d];
        }
        at /= c->dims[d];
    }
    return index;
}

static void check(const reduce_case *op, const axes_case *c, bool keepdims, bool as_input,
                  bool integers) {
    static float x[MAX_COUNT], want[MAX_COUNT];
    static int32_t xi[MAX_COUNT], wanti[MAX_COUNT];
    static double acc[MAX_COUNT];
    uint64_t seed = 11;
    uint32_t mask = 0;
    int64_t count = 1, outputs = 1, n = 1;
    dibit_tensor in[2] = {{.name = "x", .rank = c->rank},
                          DBT_TENSOR(DIBIT_TYPE_INT64, c->axes, c->n_axes)};
    dibit_tensor out = {.type = DIBIT_TYPE_FLOAT, .data = want};
    for (int32_t i = 0; i < c->n_axes; i++) mask |= 1u << ((c->axes[i] + c->rank) % c->rank);
    for (int32_t d = 0; d < c->rank; d++) {
        in[0].dims[d] = c->dims[d];
        count *= c->dims[d];
        *(mask >> d & 1 ? &n : &outputs) *= c->dims[d];
        if (!(mask >> d & 1)) out.dims[out.rank++] = c->dims[d];
        if (mask >> d & 1 && keepdims) out.dims[out.rank++] = 1;
    }
    for (int64_t i = 0; i < outputs; i++) acc[i] = first(op->name);
    for (int64_t i = 0; i < count; i++) {
        x[i] = dbt_test_uniform(&seed, 0.5f, 1.5f);
        if (!strstr(op->name, "LogSum") && i % 3 == 0) x[i] = -x[i];
        xi[i] = (int32_t)(dbt_test_random(&seed) >> 60) % 4 + (strstr(op->name, "Log") ? 1 : -1);
        if (strcmp(op->name, "ReduceProd") == 0 && i % 16) xi[i] = 1;
        const int64_t to = target(c, mask, i);
        acc[to] = next(op->name, acc[to], integers ? (double)xi[i] : (double)x[i]);
    }
    for (int64_t i = 0; i < outputs; i++) {
        acc[i] = last(op->name, acc[i], (double)n);
        want[i] = (float)acc[i];
        wanti[i] = integers ? (int32_t)acc[i] : 0;
    }
    in[0].type = out.type = integers ? DIBIT_TYPE_INT32 : DIBIT_TYPE_FLOAT;
    in[0].data = integers ? (void *)xi : (void *)x;
    out.data = integers ? (void *)wanti : (void *)want;
    const dbt_onnx_attr attrs[2] = {DBT_INT("keepdims", keepdims),
                                    {.name = "axes",
                                     .kind = DBT_ONNX_ATTR_INTS,
                                     .count = (uint32_t)c->n_axes,
                                     .ints = c->axes}};
    dbt_op_case_expect(&(dbt_op_case){.name = op->name,
                                      .attrs = attrs,
                                      .inputs = in,
                                      .constants = 2,
                                      .opset = as_input ? op->input_since : op->input_since - 1,
                                      .n_attrs = as_input ? 1 : 2,
                                      .n_inputs = as_input ? 2 : 1},
                       0, &out);
}

static void test_every_reduction_over_every_pattern_of_axes(void **state) {
    (void)state;
    for (size_t o = 0; o < sizeof ops / sizeof *ops; o++) {
        for (size_t a = 0; a < sizeof axes_cases / sizeof *axes_cases; a++) {
            for (unsigned way = 0; way < 8; way++) {
                /* A product of 5000 numbers has no place to go. */
                if (strcmp(ops[o].name, "ReduceProd") == 0 && axes_cases[a].dims[1] == 5000)
                    continue;
                check(&ops[o], &axes_cases[a], way & 1, way & 2, way & 4);
            }
        }
    }
}

static void expect_empty(const char *op, float want) {
    const dibit_tensor in = {.type = DIBIT_TYPE_FLOAT, .rank = 2, .dims = {2, 0}};
    const float w[2] = {want, want};
    const int64_t axis = 1;
    const dibit_tensor two[2] = {in, DBT_TENSOR(DIBIT_TYPE_INT64, &axis, 1)};
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, w, 2, 1);
    dbt_op_case_expect(&(dbt_op_case){.name = op, .opset = 20, .inputs = two, .n_inputs = 2}, 0,
                       &out);
}

static void test_nothing_reduces_to_the_neutral_element(void **state) {
    (void)state;
    expect_empty("ReduceSum", 0);
    expect_empty("ReduceProd", 1);
    expect_empty("ReduceMax", -INFINITY);
    expect_empty("ReduceMin", INFINITY);
    expect_empty("ReduceMean", NAN);
    expect_empty("ReduceLogSum", -INFINITY);
    expect_empty("ReduceLogSumExp", -INFINITY);
}

static void test_no_axes_mean_all_or_none(void **state) {
    (void)state;
    const float x[4] = {1, -2, 3, 4};
    const dibit_tensor in = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 2);
    const dibit_tensor all = DBT_TENSOR(DIBIT_TYPE_FLOAT, ((float[]){6}), 1, 1);
    const dbt_onnx_attr noop = DBT_INT("noop_with_empty_axes", 1);
    dbt_op_case c = {.name = "ReduceSum", .opset = 13, .inputs = &in, .n_inputs = 1};
    dbt_op_case_expect(&c, 0, &all);
    c.attrs = &noop;
    c.n_attrs = 1;
    dbt_op_case_expect(&c, 0, &in);
}

static void test_host_values_pass_through(void **state) {
    (void)state;
    /* The harness compares what infer says of int64 inputs with the result. */
    const int64_t x[6] = {2, 3, 4, 5, -6, 7}, axis = 1;
    const dibit_tensor in[2] = {DBT_TENSOR(DIBIT_TYPE_INT64, x, 2, 3),
                                DBT_TENSOR(DIBIT_TYPE_INT64, &axis, 1)};
    const dibit_tensor sum = DBT_TENSOR(DIBIT_TYPE_INT64, ((int64_t[]){9, 6}), 2, 1);
    const dibit_tensor product = DBT_TENSOR(DIBIT_TYPE_INT64, ((int64_t[]){24, -210}), 2, 1);
    const dibit_tensor least = DBT_TENSOR(DIBIT_TYPE_INT64, ((int64_t[]){2, -6}), 2, 1);
    dbt_op_case c = {.name = "ReduceSum", .opset = 18, .inputs = in, .n_inputs = 2, .constants = 2};
    dbt_op_case_expect(&c, 0, &sum);
    c.name = "ReduceProd";
    dbt_op_case_expect(&c, 0, &product);
    c.name = "ReduceMin";
    dbt_op_case_expect(&c, 0, &least);
}

static void test_extremes_of_other_types(void **state) {
    (void)state;
    const uint8_t b[4] = {0, 1, 0, 0}, u[4] = {3, 200, 9, 100};
    const uint64_t w[2] = {UINT64_MAX, 1};
    const float nan[3] = {1, NAN, 2};
    const dibit_tensor bt = DBT_TENSOR(DIBIT_TYPE_BOOL, b, 4),
                       ut = DBT_TENSOR(DIBIT_TYPE_UINT8, u, 4);
    const dibit_tensor wt = DBT_TENSOR(DIBIT_TYPE_UINT64, w, 2),
                       nt = DBT_TENSOR(DIBIT_TYPE_FLOAT, nan, 3);
    const dibit_tensor one = DBT_TENSOR(DIBIT_TYPE_BOOL, ((uint8_t[]){1}), 1);
    const dibit_tensor u200 = DBT_TENSOR(DIBIT_TYPE_UINT8, ((uint8_t[]){200}), 1);
    const dibit_tensor big = DBT_TENSOR(DIBIT_TYPE_UINT64, w, 1);
    const dibit_tensor n = DBT_TENSOR(DIBIT_TYPE_FLOAT, nan + 1, 1);
    dbt_op_case c = {.name = "ReduceMax", .opset = 20, .inputs = &bt, .n_inputs = 1};
    dbt_op_case_expect(&c, 0, &one);
    c.inputs = &ut;
    dbt_op_case_expect(&c, 0, &u200);
    c.inputs = &wt;
    dbt_op_case_expect(&c, 0, &big);
    c.inputs = &nt;
    dbt_op_case_expect(&c, 0, &n);
}

static void test_arg_finds_the_first_or_the_last(void **state) {
    (void)state;
    const float x[6] = {2, 9, 9, 1, 1, 5};
    const int16_t i16[6] = {2, 9, 9, 1, 1, 5};
    dibit_tensor in = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 3);
    const dbt_onnx_attr attrs[3] = {DBT_INT("axis", -1), DBT_INT("keepdims", 0),
                                    DBT_INT("select_last_index", 1)};
    dbt_op_case c = {
        .name = "ArgMax", .opset = 13, .inputs = &in, .n_inputs = 1, .attrs = attrs, .n_attrs = 2};
    const dibit_tensor max = DBT_TENSOR(DIBIT_TYPE_INT64, ((int64_t[]){1, 2}), 2);
    const dibit_tensor last_max = DBT_TENSOR(DIBIT_TYPE_INT64, ((int64_t[]){2, 2}), 2);
    const dibit_tensor min = DBT_TENSOR(DIBIT_TYPE_INT64, ((int64_t[]){0, 0}), 2);
    const dibit_tensor rows = DBT_TENSOR(DIBIT_TYPE_INT64, ((int64_t[]){1, 1, 1}), 1, 3);
    dbt_op_case_expect(&c, 0, &max);
    in = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_INT16, i16, 2, 3);
    dbt_op_case_expect(&c, 0, &max);
    c.n_attrs = 3;
    dbt_op_case_expect(&c, 0, &last_max);
    c.name = "ArgMin";
    c.n_attrs = 2;
    dbt_op_case_expect(&c, 0, &min);
    c.n_attrs = 0;
    dbt_op_case_expect(&c, 0, &rows);
}

/* Long rows: a vocabulary, with the extremes many times over. NaN counts in the first place only. */
static void test_arg_over_long_rows(void **state) {
    (void)state;
    enum { ROWS = 3, N = 5000 };
    static float x[ROWS * N];
    uint64_t seed = 9;
    for (int64_t i = 0; i < ROWS * N; i++) {
        x[i] = truncf(dbt_test_uniform(&seed, -40, 40));
        if (i % 97 == 5) x[i] = NAN;
    }
    x[2 * N] = NAN;
    const dibit_tensor in = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, ROWS, N);
    for (int least = 0; least < 2; least++) {
        for (int last = 0; last < 2; last++) {
            int64_t want[ROWS] = {0};
            for (int64_t r = 0; r < ROWS - 1; r++) {
                for (int64_t i = 1; i < N; i++) {
                    const float v = least ? -x[r * N + i] : x[r * N + i];
                    const float b = least ? -x[r * N + want[r]] : x[r * N + want[r]];
                    if (v > b || (last && v == b)) want[r] = i;
                }
            }
            const dbt_onnx_attr attrs[3] = {DBT_INT("axis", 1), DBT_INT("keepdims", 0),
                                            DBT_INT("select_last_index", last)};
            const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_INT64, want, ROWS);
            dbt_op_case_expect(&(dbt_op_case){.name = least ? "ArgMin" : "ArgMax",
                                              .opset = 13,
                                              .inputs = &in,
                                              .n_inputs = 1,
                                              .attrs = attrs,
                                              .n_attrs = 3},
                               0, &out);
        }
    }
}

static void test_cumsum_in_every_direction(void **state) {
    (void)state;
    const float x[6] = {1, 2, 3, 4, 5, 6};
    const int64_t xi[6] = {1, 2, 3, 4, 5, 6};
    const int32_t axis = 1, rows = -2, beyond = 2;
    dibit_tensor in[2] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 3),
                          DBT_SCALAR(DIBIT_TYPE_INT32, &axis)};
    const dbt_onnx_attr attrs[2] = {DBT_INT("exclusive", 1), DBT_INT("reverse", 1)};
    dbt_op_case c = {.name = "CumSum", .opset = 14, .inputs = in, .n_inputs = 2, .attrs = attrs};
    const dibit_tensor plain = DBT_TENSOR(DIBIT_TYPE_FLOAT, ((float[]){1, 3, 6, 4, 9, 15}), 2, 3);
    const dibit_tensor exclusive =
        DBT_TENSOR(DIBIT_TYPE_FLOAT, ((float[]){0, 1, 3, 0, 4, 9}), 2, 3);
    const dibit_tensor both = DBT_TENSOR(DIBIT_TYPE_FLOAT, ((float[]){5, 3, 0, 11, 6, 0}), 2, 3);
    const dibit_tensor down = DBT_TENSOR(DIBIT_TYPE_INT64, ((int64_t[]){1, 2, 3, 5, 7, 9}), 2, 3);
    dbt_op_case_expect(&c, 0, &plain);
    c.n_attrs = 1;
    dbt_op_case_expect(&c, 0, &exclusive);
    c.n_attrs = 2;
    dbt_op_case_expect(&c, 0, &both);
    c.n_attrs = 0;
    in[0] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_INT64, xi, 2, 3);
    in[1].data = (void *)(uintptr_t)&rows;
    dbt_op_case_expect(&c, 0, &down);
    in[1].data = (void *)(uintptr_t)&beyond;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "axis 2 is out of range");
}

static void test_bad_axes_are_refused(void **state) {
    (void)state;
    const float x[4] = {0};
    const dibit_tensor in = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 2);
    const dbt_onnx_attr axes = DBT_INTS("axes", 0, 2);
    dbt_op_case_refused(&(dbt_op_case){.name = "ReduceMean",
                                       .opset = 13,
                                       .inputs = &in,
                                       .n_inputs = 1,
                                       .attrs = &axes,
                                       .n_attrs = 1},
                        DIBIT_BAD_FILE, "axis 2 is out of range for rank 2");
    const dibit_tensor empty = {.type = DIBIT_TYPE_FLOAT, .rank = 2, .dims = {0, 3}};
    dbt_op_case_refused(
        &(dbt_op_case){.name = "ArgMax", .opset = 13, .inputs = &empty, .n_inputs = 1},
        DIBIT_BAD_FILE, "no elements to choose from");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_reduction_over_every_pattern_of_axes),
        cmocka_unit_test(test_nothing_reduces_to_the_neutral_element),
        cmocka_unit_test(test_no_axes_mean_all_or_none),
        cmocka_unit_test(test_host_values_pass_through),
        cmocka_unit_test(test_extremes_of_other_types),
        cmocka_unit_test(test_arg_finds_the_first_or_the_last),
        cmocka_unit_test(test_arg_over_long_rows),
        cmocka_unit_test(test_cumsum_in_every_direction),
        cmocka_unit_test(test_bad_axes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

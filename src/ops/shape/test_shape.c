/* The shape ops: small cases checked by eye, refusals, and symbolic dims where they have to stay
 * simple for the planner. */
#include "op_rows.h"

#include "graph/dims.h"

#define X6 F32(1, 2, 3, 4, 5, 6)

static void test_shape_and_size(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"Shape", 13, {{0}}, {TF32(X6, 2, 3)}, {TI64(I64(2, 3), 2)}, 0, NULL},
        {"Shape", 15, {DBT_INT("start", 1)}, {TF32(X6, 2, 3)}, {TI64(I64(3), 1)}, 0, NULL},
        {"Shape", 15, {DBT_INT("start", -1)}, {TF32(X6, 2, 3)}, {TI64(I64(3), 1)}, 0, NULL},
        {"Shape", 21, {DBT_INT("end", -1)}, {TI64(I64(1, 2, 3, 4, 5, 6), 1, 2, 3)}, {TI64(I64(1,
         2), 2)}, 0, NULL},
        {"Shape", 23, {DBT_INT("start", 2), DBT_INT("end", 1)}, {TF32(X6, 1, 2, 3)}, {TI64(I64(0),
         0)}, 0, NULL},
        {"Shape", 25, {DBT_INT("start", -9), DBT_INT("end", 9)}, {TF32(X6, 2, 3)}, {TI64(I64(2, 3),
         2)}, 0, NULL},
        {"Shape", 13, {{0}}, {DBT_SCALAR(DIBIT_TYPE_FLOAT, X6)}, {TI64(I64(0), 0)}, 0, NULL},
        {"Size", 13, {{0}}, {TF32(X6, 2, 3)}, {DBT_SCALAR(DIBIT_TYPE_INT64, I64(6))}, 0, NULL},
        {"Size", 13, {{0}}, {TF32(X6, 2, 0)}, {DBT_SCALAR(DIBIT_TYPE_INT64, I64(0))}, 0, NULL},
        {"Size", 13, {{0}}, {DBT_SCALAR(DIBIT_TYPE_FLOAT, X6)}, {DBT_SCALAR(DIBIT_TYPE_INT64,
         I64(1))}, 0, NULL},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_reshape(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"Reshape", 13, {{0}}, {TF32(X6, 2, 3), TI64(I64(3, 2), 2)}, {TF32(X6, 3, 2)}, 0, NULL},
        {"Reshape", 5, {{0}}, {TF32(X6, 2, 3), TI64(I64(-1), 1)}, {TF32(X6, 6)}, 0, NULL},
        {"Reshape", 14, {{0}}, {TF32(X6, 2, 3), TI64(I64(0, -1, 1), 3)}, {TF32(X6, 2, 3, 1)}, 0,
         NULL},
        {"Reshape", 14, {{0}}, {TF32(X6, 2, 3), TI64(I64(1, 0, 2), 3)}, {TF32(X6, 1, 3, 2)}, 0,
         NULL},
        {"Reshape", 14, {{0}}, {TF32(X6, 1), TI64(I64(0), 0)}, {DBT_SCALAR(DIBIT_TYPE_FLOAT, X6)},
         0, NULL},
        {"Reshape", 14, {{0}}, {TF32(X6, 0, 3), TI64(I64(3, 0), 2)}, {{0}}, DIBIT_BAD_FILE, "9 "},
        {"Reshape", 14, {{0}}, {TF32(X6, 0, 3), TI64(I64(0, -1), 2)}, {{0}}, DIBIT_BAD_FILE,
         "could be anything"},
        {"Reshape", 14, {DBT_INT("allowzero", 1)}, {TF32(X6, 0, 3), TI64(I64(3, 0), 2)}, {TF32(X6,
         3, 0)}, 0, NULL},
        {"Reshape", 25, {{0}}, {TI64(I64(1, 2, 3, 4), 4), TI64(I64(2, -1), 2)}, {TI64(I64(1, 2, 3,
         4), 2, 2)}, 0, NULL},
        {"Reshape", 14, {{0}}, {TF32(X6, 2, 3), TI64(I64(4, -1), 2)}, {{0}}, DIBIT_BAD_FILE,
         "do not divide"},
        {"Reshape", 14, {{0}}, {TF32(X6, 2, 3), TI64(I64(-1, -1), 2)}, {{0}}, DIBIT_BAD_FILE,
         "two dims"},
        {"Reshape", 14, {{0}}, {TF32(X6, 2, 3), TI64(I64(4, 2), 2)}, {{0}}, DIBIT_BAD_FILE,
         "do not fit"},
        {"Reshape", 14, {{0}}, {TF32(X6, 2, 3), TI64(I64(-2, -3), 2)}, {{0}}, DIBIT_BAD_FILE,
         "-2"},
        {"Reshape", 14, {{0}}, {TF32(X6, 6), TI64(I64(6, 0), 2)}, {{0}}, DIBIT_BAD_FILE, "rank 1"},
        {"Reshape", 14, {{0}}, {TF32(X6, 6), TI64(I64(INT64_MAX, INT64_MAX), 2)}, {{0}},
         DIBIT_BAD_FILE, "do not fit"},
        {"Reshape", 14, {{0}}, {TF32(X6, 6), TI64(I64(6, 1, 1, 1, 1, 1, 1, 1, 1), 9)}, {{0}},
         DIBIT_BAD_FILE, "9 elements"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_flatten_squeeze_unsqueeze(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"Flatten", 13, {{0}}, {TF32(X6, 1, 2, 3)}, {TF32(X6, 1, 6)}, 0, NULL},
        {"Flatten", 9, {DBT_INT("axis", 0)}, {TF32(X6, 1, 2, 3)}, {TF32(X6, 1, 6)}, 0, NULL},
        {"Flatten", 11, {DBT_INT("axis", -1)}, {TF32(X6, 1, 2, 3)}, {TF32(X6, 2, 3)}, 0, NULL},
        {"Flatten", 11, {DBT_INT("axis", 3)}, {TF32(X6, 1, 2, 3)}, {TF32(X6, 6, 1)}, 0, NULL},
        {"Flatten", 13, {DBT_INT("axis", 4)}, {TF32(X6, 1, 2, 3)}, {{0}}, DIBIT_BAD_FILE,
         "axis 4"},
        {"Squeeze", 11, {DBT_INTS("axes", 0)}, {TF32(X6, 1, 2, 3)}, {TF32(X6, 2, 3)}, 0, NULL},
        {"Squeeze", 7, {{0}}, {TF32(X6, 1, 2, 1, 3)}, {TF32(X6, 2, 3)}, 0, NULL},
        {"Squeeze", 13, {{0}}, {TF32(X6, 1, 2, 1, 3)}, {TF32(X6, 2, 3)}, 0, NULL},
        {"Squeeze", 13, {{0}}, {TF32(X6, 1, 6, 1), TI64(I64(-1), 1)}, {TF32(X6, 1, 6)}, 0, NULL},
        {"Squeeze", 13, {{0}}, {TI64(I64(7), 1), TI64(I64(0), 1)}, {DBT_SCALAR(DIBIT_TYPE_INT64,
         I64(7))}, 0, NULL},
        {"Squeeze", 13, {{0}}, {TF32(X6, 2, 3), TI64(I64(0), 1)}, {{0}}, DIBIT_BAD_FILE, "not 1"},
        {"Squeeze", 13, {{0}}, {TF32(X6, 1, 6), TI64(I64(0, -2), 2)}, {{0}}, DIBIT_BAD_FILE,
         "twice"},
        {"Unsqueeze", 11, {DBT_INTS("axes", 0, 3)}, {TF32(X6, 2, 3)}, {TF32(X6, 1, 2, 3, 1)}, 0,
         NULL},
        {"Unsqueeze", 13, {{0}}, {TF32(X6, 2, 3), TI64(I64(-1, 0), 2)}, {TF32(X6, 1, 2, 3, 1)}, 0,
         NULL},
        {"Unsqueeze", 21, {{0}}, {DBT_SCALAR(DIBIT_TYPE_INT64, I64(7)), TI64(I64(0), 1)},
         {TI64(I64(7), 1)}, 0, NULL},
        {"Unsqueeze", 13, {{0}}, {TF32(X6, 6), TI64(I64(3), 1)}, {{0}}, DIBIT_BAD_FILE, "axis 3"},
        {"Unsqueeze", 13, {{0}}, {TF32(X6, 6), TI64(I64(0, 0), 2)}, {{0}}, DIBIT_BAD_FILE,
         "twice"},
        {"Unsqueeze", 13, {{0}}, {TF32(X6, 6), TI64(I64(0, 1, 2, 3, 4, 5, 6, 7), 8)}, {{0}},
         DIBIT_TOO_LARGE, "9 dims"},
        {"Unsqueeze", 11, {{0}}, {TF32(X6, 6)}, {{0}}, DIBIT_BAD_FILE, "missing"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_constant_of_shape(void **state) {
    (void)state;
    static const int32_t minus = -7;
    static const dbt_constant value = {
        .type = DIBIT_TYPE_INT32, .rank = 1, .dims = {1}, .count = 1, .data = &minus};
    static const dbt_constant two = {
        .type = DIBIT_TYPE_INT32, .rank = 1, .dims = {2}, .count = 2, .data = &minus};
    static const uint16_t half_one = 0x3c00;
    static const dbt_constant half = {
        .type = DIBIT_TYPE_FLOAT16, .rank = 1, .dims = {1}, .count = 1, .data = &half_one};
    /* clang-format off */
    const op_row rows[] = {
        {"ConstantOfShape", 9, {{0}}, {TI64(I64(2, 1), 2)}, {TF32(F32(0, 0), 2, 1)}, 0, NULL},
        {"ConstantOfShape", 20, {{.name = "value", .kind = DBT_ONNX_ATTR_TENSOR, .tensor =
         &value}}, {TI64(I64(3), 1)}, {TI32(I32(-7, -7, -7), 3)}, 0, NULL},
        {"ConstantOfShape", 9, {{.name = "value", .kind = DBT_ONNX_ATTR_TENSOR, .tensor = &half}},
         {TI64(I64(2), 1)}, {TF32(F32(1, 1), 2)}, 0, NULL},
        {"ConstantOfShape", 9, {{0}}, {TI64(I64(0), 0)}, {DBT_SCALAR(DIBIT_TYPE_FLOAT, F32(0))}, 0,
         NULL},
        {"ConstantOfShape", 9, {{0}}, {TI64(I64(2, 0), 2)}, {TF32(F32(0), 2, 0)}, 0, NULL},
        {"ConstantOfShape", 9, {{0}}, {TI64(I64(2, -1), 2)}, {{0}}, DIBIT_BAD_FILE, "-1"},
        {"ConstantOfShape", 9, {{0}}, {TI64(I64(1 << 30, 1 << 30, 1 << 30), 3)}, {{0}},
         DIBIT_TOO_LARGE, "more than"},
        {"ConstantOfShape", 9, {{.name = "value", .kind = DBT_ONNX_ATTR_TENSOR, .tensor = &two}},
         {TI64(I64(3), 1)}, {{0}}, DIBIT_BAD_FILE, "one element"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_range(void **state) {
    (void)state;
#define S64(v) DBT_SCALAR(DIBIT_TYPE_INT64, I64(v))
#define SF(v) DBT_SCALAR(DIBIT_TYPE_FLOAT, F32(v))
    /* clang-format off */
    const op_row rows[] = {
        {"Range", 11, {{0}}, {S64(0), S64(5), S64(2)}, {TI64(I64(0, 2, 4), 3)}, 0, NULL},
        {"Range", 11, {{0}}, {S64(5), S64(0), S64(-2)}, {TI64(I64(5, 3, 1), 3)}, 0, NULL},
        {"Range", 11, {{0}}, {S64(0), S64(-5), S64(2)}, {TI64(I64(0), 0)}, 0, NULL},
        {"Range", 11, {{0}}, {S64(INT64_MIN), S64(INT64_MAX), S64(INT64_MAX)}, {TI64(I64(INT64_MIN,
         -1, INT64_MAX - 1), 3)}, 0, NULL},
        {"Range", 11, {{0}}, {DBT_SCALAR(DIBIT_TYPE_INT32, I32(-1)), DBT_SCALAR(DIBIT_TYPE_INT32,
         I32(2)), TI32(I32(1), 1)}, {TI32(I32(-1, 0, 1), 3)}, 0, NULL},
        {"Range", 11, {{0}}, {SF(1), SF(2.1f), SF(0.5f)}, {TF32(F32(1, 1.5f, 2), 3)}, 0, NULL},
        {"Range", 11, {{0}}, {SF(1), SF(0), SF(0.5f)}, {TF32(F32(0), 0)}, 0, NULL},
        {"Range", 11, {{0}}, {S64(0), S64(5), S64(0)}, {{0}}, DIBIT_BAD_FILE, "delta of 0"},
        {"Range", 11, {{0}}, {SF(0), SF(5), SF(0)}, {{0}}, DIBIT_TOO_LARGE, "inf"},
        {"Range", 11, {{0}}, {SF(NAN), SF(5), SF(1)}, {{0}}, DIBIT_TOO_LARGE, "nan"},
        {"Range", 11, {{0}}, {S64(INT64_MIN), S64(INT64_MAX), S64(1)}, {{0}}, DIBIT_TOO_LARGE,
         "elements"},
        {"Range", 11, {{0}}, {S64(0), S64(5), SF(1)}, {{0}}, DIBIT_BAD_FILE, "same type"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

/* ---- Symbolic dims --------------------------------------------------------------------------- */

typedef struct graphlet {
    dbt_arena arena;
    dbt_dims *dims;
    dbt_dim batch, seq, past;
    dbt_value x, shape, y;
} graphlet;

static void begin(graphlet *g) {
    memset(g, 0, sizeof *g);
    dbt_arena_init(&g->arena, NULL);
    g->dims = dbt_dims_create(&g->arena);
    g->batch = dbt_dim_symbol(g->dims, "batch");
    g->seq = dbt_dim_symbol(g->dims, "seq");
    g->past = dbt_dim_symbol(g->dims, "past");
    g->x = (dbt_value){.name = "x", .type = DIBIT_TYPE_FLOAT};
    g->shape = (dbt_value){.name = "shape", .type = DIBIT_TYPE_INT64, .shape = {.rank = 1}};
}

static void infer(graphlet *g, const char *name, dbt_value *a, dbt_value *b, dbt_value *c) {
    const dbt_op *any, *const op = dbt_op_find("", name, 13, &any);
    static const int64_t zeros[16]; /* attributes that default to 0 */
    dbt_value *in[3] = {a, b, c}, *out = &g->y;
    const dbt_node node = {.name = "node", .op = op, .opset = 13};
    dbt_infer i = {.node = &node,
                   .attrs = zeros,
                   .n_inputs = c   ? 3
                               : b ? 2
                                   : 1,
                   .n_outputs = 1,
                   .in = in,
                   .out = &out,
                   .dims = g->dims,
                   .arena = &g->arena};
    g->y = (dbt_value){.name = "y"};
    assert_int_equal(op->infer(&i), DIBIT_OK);
}

static void test_reshape_keeps_symbols(void **state) {
    (void)state;
    graphlet g;
    begin(&g);
    const dbt_dim k64 = dbt_dim_const(g.dims, 64), any = dbt_dim_const(g.dims, -1);
    g.x.shape = (dbt_shape){.rank = 3, .dims = {g.batch, g.seq, k64}};
    g.shape.shape.dims[0] = dbt_dim_const(g.dims, 4);
    g.shape.contents = (const dbt_dim[]){g.batch, g.seq, dbt_dim_const(g.dims, 16), any};
    infer(&g, "Reshape", &g.x, &g.shape, NULL);
    assert_int_equal(g.y.shape.rank, 4);
    assert_int_equal(g.y.shape.dims[0], g.batch);
    assert_int_equal(g.y.shape.dims[1], g.seq);
    assert_true(dbt_dim_is(g.dims, g.y.shape.dims[3], 4));
    dbt_arena_free(&g.arena);
}

static void test_range_of_a_size_is_that_size(void **state) {
    (void)state;
    graphlet g;
    begin(&g);
    dbt_value start = {.name = "start", .type = DIBIT_TYPE_INT64, .contents = &g.past};
    const dbt_dim total = dbt_dim_apply(g.dims, DBT_DIM_ADD, g.past, g.seq);
    const dbt_dim one = dbt_dim_const(g.dims, 1);
    dbt_value limit = {.name = "limit", .type = DIBIT_TYPE_INT64, .contents = &total};
    dbt_value delta = {.name = "delta", .type = DIBIT_TYPE_INT64, .contents = &one};
    infer(&g, "Range", &start, &limit, &delta);
    assert_int_equal(g.y.shape.dims[0], g.seq);
    dbt_arena_free(&g.arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape_and_size),
        cmocka_unit_test(test_reshape),
        cmocka_unit_test(test_flatten_squeeze_unsqueeze),
        cmocka_unit_test(test_constant_of_shape),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_reshape_keeps_symbols),
        cmocka_unit_test(test_range_of_a_size_is_that_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

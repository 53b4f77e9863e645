/* The moving ops: small cases checked by eye, and what they refuse. */
#include "op_rows.h"

#include "op_device.h"

#include "ops/attrs.h"

#define X6 F32(1, 2, 3, 4, 5, 6)
#define N6 I64(1, 2, 3, 4, 5, 6)

static void test_gather(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"Gather", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(2, -3), 2)}, {TF32(F32(5, 6, 1, 2), 2, 2)},
         0, 0},
        {"Gather", 1, {DBT_INT("axis", -1)}, {TF32(X6, 2, 3), TI32(I32(2, 0), 1, 2)}, {TF32(F32(3,
         1, 6, 4), 2, 1, 2)}, 0, 0},
        {"Gather", 13, {{0}}, {TI64(N6, 6), DBT_SCALAR(DIBIT_TYPE_INT64, I64(-2))},
         {DBT_SCALAR(DIBIT_TYPE_INT64, I64(5))}, 0, 0},
        {"Gather", 13, {DBT_INT("axis", 1)}, {TI8(I8(1, 2, 3, 4, 5, 6), 2, 3), TI64(I64(1), 1)},
         {TI8(I8(2, 5), 2, 1)}, 0, 0},
        {"Gather", 13, {{0}}, {DBT_TENSOR(DIBIT_TYPE_FLOAT16, U16(0x3c00, 0x4000, 0xc200), 3),
         TI64(I64(2, 0), 2)}, {TF32(F32(-3, 1), 2)}, 0, 0},
        {"Gather", 13, {{0}}, {DBT_TENSOR(DIBIT_TYPE_INT4, U8(0x21, 0xf3, 0x87), 2, 3), TI64(I64(1,
         0), 2)}, {TI8(I8(-1, 7, -8, 1, 2, 3), 2, 3)}, 0, 0},
        {"Gather", 13, {{0}}, {DBT_TENSOR(DIBIT_TYPE_FLOAT16, U16(0x0001, 0x83ff, 0x7c00, 0xfc00,
         0x7bff), 5), TI64(I64(4, 3, 2, 1, 0), 5)}, {TF32(F32(65504, -INFINITY, INFINITY,
         -0x3ffp-24f, 0x1p-24f), 5)}, 0, 0},
        {"Gather", 13, {{0}}, {DBT_TENSOR(DIBIT_TYPE_BFLOAT16, U16(0x3f80, 0xc040, 0x0080), 3),
         TI64(I64(2, 1), 2)}, {TF32(F32(0x1p-126f, -3), 2)}, 0, 0},
        {"Gather", 13, {{0}}, {DBT_TENSOR(DIBIT_TYPE_UINT16, U16(1, 65535, 3), 3), TI64(I64(1), 1)},
         {DBT_TENSOR(DIBIT_TYPE_UINT16, U16(65535), 1)}, 0, 0},
        {"Gather", 13, {{0}}, {DBT_TENSOR(DIBIT_TYPE_INT16, U16(1, 65535, 3), 3), TI64(I64(1), 1)},
         {DBT_TENSOR(DIBIT_TYPE_INT16, U16(65535), 1)}, 0, 0},
        {"Gather", 25, {{0}}, {DBT_TENSOR(DIBIT_TYPE_UINT2, U8(0xe4), 4, 1), TI64(I64(3, 1), 2)},
         {TU8(U8(3, 1), 2, 1)}, 0, 0},
        {"Gather", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(0), 0)}, {TF32(X6, 0, 2)}, 0, 0},
        {"Gather", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(3), 1)}, {{0}}, DIBIT_OUT_OF_RANGE,
         "index 3 "},
        {"Gather", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(0, -4), 2)}, {{0}}, DIBIT_OUT_OF_RANGE,
         "-4"},
        {"Gather", 13, {{0}}, {TF32(X6, 0, 2), TI64(I64(0), 1)}, {{0}}, DIBIT_OUT_OF_RANGE,
         "size 0"},
        {"Gather", 13, {DBT_INT("axis", 2)}, {TF32(X6, 3, 2), TI64(I64(0), 1)}, {{0}},
         DIBIT_BAD_FILE, "axis 2"},
        {"Gather", 13, {{0}}, {TF32(X6, 3, 2), TF32(X6, 1)}, {{0}}, DIBIT_BAD_FILE, "type float"},
        {"Gather", 13, {{0}}, {DBT_SCALAR(DIBIT_TYPE_FLOAT, X6), TI64(I64(0), 1)}, {{0}},
         DIBIT_BAD_FILE, "rank"},
        {"Gather", 13, {{0}}, {TF32(X6, 1, 1, 1, 1, 1, 6), TI64(I64(0), 1, 1, 1, 1)}, {{0}},
         DIBIT_TOO_LARGE, "9 dims"},
        {"GatherElements", 11, {DBT_INT("axis", 1)}, {TF32(F32(1, 2, 3, 4), 2, 2), TI64(I64(0, 0,
         -1, 0), 2, 2)}, {TF32(F32(1, 1, 4, 3), 2, 2)}, 0, 0},
        {"GatherElements", 13, {{0}}, {TI64(I64(1, 2, 3, 4, 5, 6, 7, 8, 9), 3, 3), TI32(I32(1, 2,
         0, 2, 0, 0), 2, 3)}, {TI64(I64(4, 8, 3, 7, 2, 3), 2, 3)}, 0, 0},
        {"GatherElements", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(0, 3), 1, 2)}, {{0}},
         DIBIT_OUT_OF_RANGE, "index 3"},
        {"GatherElements", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(0, 1, 2), 1, 3)}, {{0}},
         DIBIT_BAD_INPUT, "dim 1"},
        {"GatherND", 12, {{0}}, {TF32(F32(1, 2, 3, 4), 2, 2), TI64(I64(0, 0, 1, -1), 2, 2)},
         {TF32(F32(1, 4), 2)}, 0, 0},
        {"GatherND", 11, {{0}}, {TI64(I64(1, 2, 3, 4), 2, 2), TI64(I64(1, 0), 2, 1)}, {TI64(I64(3,
         4, 1, 2), 2, 2)}, 0, 0},
        {"GatherND", 13, {DBT_INT("batch_dims", 1)}, {TF32(F32(0, 1, 2, 3, 4, 5, 6, 7), 2, 2, 2),
         TI64(I64(1, 0), 2, 1)}, {TF32(F32(2, 3, 4, 5), 2, 2)}, 0, 0},
        {"GatherND", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(0, 2), 1, 2)}, {{0}}, DIBIT_OUT_OF_RANGE,
         "axis 1"},
        {"GatherND", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(0, 1, 0), 1, 3)}, {{0}}, DIBIT_BAD_FILE,
         "3 coordinates"},
        {"GatherND", 13, {DBT_INT("batch_dims", 2)}, {TF32(X6, 3, 2), TI64(I64(0, 1), 1, 2)},
         {{0}}, DIBIT_BAD_FILE, "batch_dims"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

/* The CPU reports such indices; a device cannot, and must neither read nor write there. */
static void test_a_device_passes_over_indices_out_of_range(void **state) {
    (void)state;
    if (!op_device_wanted()) {
        print_message("no device\n");
        skip();
    }
    const struct {
        const char *name;
        dibit_tensor in[3], want;
    } cases[] = {
        {"Gather", {TF32(X6, 3, 2), TI64(I64(3, -4, -3), 3)}, TF32(F32(0, 0, 0, 0, 1, 2), 3, 2)},
        {"Gather", {TF32(X6, 6), TI64(I64(INT32_MAX, INT32_MIN, 5), 3)}, TF32(F32(0, 0, 6), 3)},
        {"GatherElements", {TF32(X6, 6), TI64(I64(6, -7, 5), 3)}, TF32(F32(0, 0, 6), 3)},
        {"GatherND",
         {TF32(X6, 3, 2), TI64(I64(0, 2, 3, 0, 1, -3, -3, 1), 4, 2)},
         TF32(F32(0, 0, 0, 2), 4)},
        {"ScatterElements",
         {TF32(X6, 6), TI64(I64(6, -7, 5), 3), TF32(F32(7, 8, 9), 3)},
         TF32(F32(1, 2, 3, 4, 5, 9), 6)},
        {"ScatterND",
         {TF32(X6, 3, 2), TI64(I64(0, 2, 1, -3), 2, 2), TF32(F32(7, 8), 2)},
         TF32(X6, 3, 2)},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        print_message("row %zu: %s\n", i, cases[i].name);
        dbt_arena arena;
        dbt_arena_init(&arena, NULL);
        dbt_value values[3] = {{.type = DIBIT_TYPE_FLOAT}, {.type = DIBIT_TYPE_INT64}, {0}};
        dbt_value *inputs[3] = {&values[0], &values[1], &values[2]};
        const dibit_tensor *in[3] = {&cases[i].in[0], &cases[i].in[1], &cases[i].in[2]};
        const uint32_t n_inputs = cases[i].in[2].name ? 3 : 2;
        const dbt_op *any;
        dbt_node node = {
            .op = dbt_op_find("", cases[i].name, 13, &any), .inputs = inputs, .n_inputs = n_inputs};
        const void *attrs;
        assert_int_equal(dbt_attrs_parse(node.op, NULL, 0, &arena, &attrs, NULL), DIBIT_OK);
        node.attrs = attrs;
        dibit_tensor want = cases[i].want;
        want.bytes = (uint64_t)dbt_tensor_count(&want) * sizeof(float);
        op_device_check(&(op_device_case){.node = &node,
                                          .attrs = attrs,
                                          .arena = &arena,
                                          .n_inputs = n_inputs,
                                          .n_outputs = 1,
                                          .in = in,
                                          .out = (const dibit_tensor *[]){&want},
                                          .allowed = (const float *[]){NULL}});
        dbt_arena_free(&arena);
    }
}

static void test_scatter(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"Scatter", 9, {DBT_INT("axis", 1)}, {TF32(F32(1, 2, 3, 4, 5), 1, 5), TI64(I64(1, 3), 1,
         2), TF32(F32(7, 8), 1, 2)}, {TF32(F32(1, 7, 3, 8, 5), 1, 5)}, 0, 0},
        {"ScatterElements", 11, {{0}}, {TI64(N6, 3, 2), TI32(I32(2, -3), 1, 2), TI64(I64(10, 20),
         1, 2)}, {TI64(I64(1, 20, 3, 4, 10, 6), 3, 2)}, 0, 0},
        {"ScatterElements", 16, {DBT_STRING("reduction", "add")}, {TF32(F32(1, 2), 2), TI64(I64(1,
         1, 0), 3), TF32(F32(3, 4, 5), 3)}, {TF32(F32(6, 9), 2)}, 0, 0},
        {"ScatterElements", 18, {DBT_STRING("reduction", "max")}, {TI8(I8(-5, 3), 2), TI64(I64(1,
         0, 1), 3), TI8(I8(2, -6, 9), 3)}, {TI8(I8(-5, 9), 2)}, 0, 0},
        {"ScatterElements", 18, {DBT_STRING("reduction", "min")}, {TF32(F32(1, 2), 2), TI64(I64(0,
         1), 2), TF32(F32(NAN, 1), 2)}, {TF32(F32(NAN, 1), 2)}, 0, 0},
        {"ScatterElements", 18, {DBT_STRING("reduction", "mul")}, {TU8(U8(200, 3), 2), TI64(I64(0,
         1), 2), TU8(U8(2, 3), 2)}, {TU8(U8(144, 9), 2)}, 0, 0},
        {"ScatterElements", 11, {{0}}, {TF32(X6, 6), TI64(I64(6), 1), TF32(X6, 1)}, {{0}},
         DIBIT_OUT_OF_RANGE, "6"},
        {"ScatterElements", 11, {{0}}, {TF32(X6, 6), TI64(I64(0), 1), TF32(X6, 2)}, {{0}},
         DIBIT_BAD_FILE, "must be 1"},
        {"ScatterElements", 16, {DBT_STRING("reduction", "xor")}, {TF32(X6, 6), TI64(I64(0), 1),
         TF32(X6, 1)}, {{0}}, DIBIT_BAD_FILE, "xor"},
        {"ScatterElements", 16, {{0}}, {TF32(X6, 6), TI64(I64(0), 1), TI64(N6, 1)}, {{0}},
         DIBIT_BAD_FILE, "same type"},
        {"ScatterND", 11, {{0}}, {TF32(X6, 3, 2), TI64(I64(2, 0), 2, 1), TF32(F32(7, 8, 9, 10), 2,
         2)}, {TF32(F32(9, 10, 3, 4, 7, 8), 3, 2)}, 0, 0},
        {"ScatterND", 18, {DBT_STRING("reduction", "add")}, {TI64(N6, 3, 2), TI64(I64(2, 0, 2, -2),
         2, 2), TI64(I64(10, 20), 2)}, {TI64(I64(1, 2, 3, 4, 35, 6), 3, 2)}, 0, 0},
        {"ScatterND", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(3), 1, 1), TF32(X6, 1, 2)}, {{0}},
         DIBIT_OUT_OF_RANGE, "index 3"},
        {"ScatterND", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(0, 0, 0), 1, 3), TF32(X6, 1)}, {{0}},
         DIBIT_BAD_FILE, "3 coordinates"},
        {"ScatterND", 13, {{0}}, {TF32(X6, 3, 2), TI64(I64(0), 1, 1), TF32(X6, 1, 3)}, {{0}},
         DIBIT_BAD_FILE, "must be 2"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_slice(void **state) {
    (void)state;
    const int64_t far = INT64_MAX, low = INT64_MIN;
    /* clang-format off */
    const op_row rows[] = {
        {"Slice", 7, {DBT_INTS("starts", 1, 0), DBT_INTS("ends", 2, -1)}, {TF32(X6, 2, 3)},
         {TF32(F32(4, 5), 1, 2)}, 0, 0},
        {"Slice", 9, {DBT_INTS("starts", -2), DBT_INTS("ends", far), DBT_INTS("axes", -1)},
         {TI64(N6, 6)}, {TI64(I64(5, 6), 2)}, 0, 0},
        {"Slice", 10, {{0}}, {TI64(N6, 6), TI64(I64(1), 1), TI64(I64(5), 1), TI64(I64(0), 1),
         TI64(I64(2), 1)}, {TI64(I64(2, 4), 2)}, 0, 0},
        {"Slice", 13, {{0}}, {TI64(N6, 6), TI64(I64(far), 1), TI64(I64(low), 1), TI64(I64(0), 1),
         TI64(I64(-1), 1)}, {TI64(I64(6, 5, 4, 3, 2, 1), 6)}, 0, 0},
        {"Slice", 13, {{0}}, {TF32(X6, 2, 3), TI32(I32(2, 0), 2), TI32(I32(0, 2), 2), TI32(I32(-1,
         0), 2), TI32(I32(-1, 1), 2)}, {TF32(F32(3, 2, 6, 5), 2, 2)}, 0, 0},
        {"Slice", 13, {{0}}, {TF32(X6, 6), TI64(I64(4), 1), TI64(I64(2), 1)}, {TF32(X6, 0)}, 0, 0},
        {"Slice", 13, {{0}}, {TF32(X6, 6), TI64(I64(0), 1), TI64(I64(6), 1), TI64(I64(0), 1),
         TI64(I64(far), 1)}, {TF32(X6, 1)}, 0, 0},
        {"Slice", 13, {{0}}, {TF32(X6, 6), TI64(I64(5), 1), TI64(I64(0), 1), TI64(I64(0), 1),
         TI64(I64(low), 1)}, {TF32(F32(6), 1)}, 0, 0},
        {"Slice", 13, {{0}}, {TF32(X6, 6), TI64(I64(-9), 1), TI64(I64(-4), 1)}, {TF32(X6, 2)}, 0,
         0},
        {"Slice", 13, {{0}}, {TF32(X6, 0), TI64(I64(-1), 1), TI64(I64(-9), 1), TI64(I64(0), 1),
         TI64(I64(-1), 1)}, {TF32(X6, 0)}, 0, 0},
        {"Slice", 13, {{0}}, {TF32(X6, 2, 0), TI64(I64(0), 1), TI64(I64(1), 1)}, {TF32(X6, 1, 0)},
         0, 0},
        {"Slice", 13, {{0}}, {TI64(N6, 6), TI64(I64(2), 1), TI64(I64(4), 1), ROW_ABSENT,
         TI64(I64(1), 1)}, {TI64(I64(3, 4), 2)}, 0, 0},
        {"Slice", 13, {{0}}, {TF32(X6, 6), TI64(I64(0), 1), TI64(I64(6), 1), TI64(I64(0), 1),
         TI64(I64(0), 1)}, {{0}}, DIBIT_BAD_FILE, "step"},
        {"Slice", 13, {{0}}, {TF32(X6, 6), TI64(I64(0), 1), TI64(I64(6), 1), TI64(I64(1), 1)},
         {{0}}, DIBIT_BAD_FILE, "axis 1"},
        {"Slice", 13, {{0}}, {TF32(X6, 2, 3), TI64(I64(0, 0), 2), TI64(I64(1, 1), 2), TI64(I64(1,
         -1), 2)}, {{0}}, DIBIT_BAD_FILE, "twice"},
        {"Slice", 13, {{0}}, {TF32(X6, 2, 3), TI64(I64(0, 0), 2), TI64(I64(1), 1)}, {{0}},
         DIBIT_BAD_FILE, "length"},
        {"Slice", 9, {DBT_INTS("starts", 0)}, {TF32(X6, 6)}, {{0}}, DIBIT_BAD_FILE, "missing"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_split_and_concat(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"Split", 2, {DBT_INTS("split", 1, 3), DBT_INT("axis", 1)}, {TF32(F32(1, 2, 3, 4, 5, 6, 7,
         8), 2, 4)}, {TF32(F32(1, 5), 2, 1), TF32(F32(2, 3, 4, 6, 7, 8), 2, 3)}, 0, 0},
        {"Split", 11, {{0}}, {TI64(N6, 6)}, {TI64(I64(1, 2), 2), TI64(I64(3, 4), 2), TI64(I64(5,
         6), 2)}, 0, 0},
        {"Split", 13, {DBT_INT("axis", -1)}, {TI64(N6, 6), TI64(I64(0, 6), 2)}, {TI64(N6, 0),
         TI64(N6, 6)}, 0, 0},
        {"Split", 18, {DBT_INT("num_outputs", 4)}, {TF32(X6, 6)}, {TF32(F32(1, 2), 2), TF32(F32(3,
         4), 2), TF32(F32(5, 6), 2), TF32(X6, 0)}, 0, 0},
        {"Split", 18, {DBT_INT("num_outputs", 2)}, {TF32(X6, 5)}, {TF32(F32(1, 2, 3), 3),
         TF32(F32(4, 5), 2)}, 0, 0},
        {"Split", 13, {{0}}, {TF32(X6, 5)}, {TF32(X6, 2), TF32(X6, 2)}, DIBIT_BAD_FILE,
         "equal parts"},
        {"Split", 18, {DBT_INT("num_outputs", 3)}, {TF32(X6, 6)}, {TF32(X6, 3), TF32(X6, 3)},
         DIBIT_BAD_FILE, "num_outputs"},
        {"Split", 13, {{0}}, {TF32(X6, 6), TI64(I64(2, 3), 2)}, {TF32(X6, 2), TF32(X6, 3)},
         DIBIT_BAD_FILE, "must be 5"},
        {"Split", 13, {{0}}, {TF32(X6, 6), TI64(I64(-1, 7), 2)}, {TF32(X6, 2), TF32(X6, 3)},
         DIBIT_BAD_FILE, "-1"},
        {"Split", 13, {{0}}, {TF32(X6, 6), TI64(I64(6), 1)}, {TF32(X6, 2), TF32(X6, 3)},
         DIBIT_BAD_FILE, "1 sizes"},
        {"Concat", 13, {DBT_INT("axis", 0)}, {TI64(N6, 2), TI64(I64(9), 1), TI64(N6, 0)},
         {TI64(I64(1, 2, 9), 3)}, 0, 0},
        {"Concat", 4, {DBT_INT("axis", -1)}, {TF32(X6, 2, 2), TF32(F32(8, 9), 2, 1)}, {TF32(F32(1,
         2, 8, 3, 4, 9), 2, 3)}, 0, 0},
        {"Concat", 13, {DBT_INT("axis", 1)}, {TU8(U8(1, 2), 1, 2, 1), TU8(U8(3), 1, 1, 1)},
         {TU8(U8(1, 2, 3), 1, 3, 1)}, 0, 0},
        {"Concat", 13, {{0}}, {TF32(X6, 6)}, {{0}}, DIBIT_BAD_FILE, "'axis' is missing"},
        {"Concat", 13, {DBT_INT("axis", 0)}, {TF32(X6, 2, 3), TF32(X6, 3, 2)}, {{0}},
         DIBIT_BAD_FILE, "dim 1"},
        {"Concat", 13, {DBT_INT("axis", 0)}, {TF32(X6, 6), TI64(N6, 6)}, {{0}}, DIBIT_BAD_FILE,
         "same type"},
        {"Concat", 13, {DBT_INT("axis", 0)}, {TF32(X6, 6), TF32(X6, 1, 6)}, {{0}}, DIBIT_BAD_FILE,
         "rank"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_transpose_tile_expand(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"Transpose", 13, {{0}}, {TF32(X6, 2, 3)}, {TF32(F32(1, 4, 2, 5, 3, 6), 3, 2)}, 0, 0},
        {"Transpose", 1, {DBT_INTS("perm", 1, 0, 2)}, {TI64(N6, 1, 2, 3)}, {TI64(N6, 2, 1, 3)}, 0,
         0},
        {"Transpose", 21, {{0}}, {DBT_TENSOR(DIBIT_TYPE_UINT4, U8(0x21, 0x43), 2, 2)}, {TU8(U8(1,
         3, 2, 4), 2, 2)}, 0, 0},
        {"Transpose", 13, {{0}}, {DBT_SCALAR(DIBIT_TYPE_FLOAT, X6)}, {DBT_SCALAR(DIBIT_TYPE_FLOAT,
         X6)}, 0, 0},
        {"Transpose", 13, {DBT_INTS("perm", 0, 0)}, {TF32(X6, 2, 3)}, {{0}}, DIBIT_BAD_FILE,
         "repeats 0"},
        {"Transpose", 13, {DBT_INTS("perm", 0, 2)}, {TF32(X6, 2, 3)}, {{0}}, DIBIT_BAD_FILE,
         "holds 2"},
        {"Transpose", 13, {DBT_INTS("perm", 0)}, {TF32(X6, 2, 3)}, {{0}}, DIBIT_BAD_FILE,
         "1 elements"},
        {"Tile", 6, {{0}}, {TF32(F32(1, 2, 3, 4), 2, 2), TI64(I64(2, 1), 2)}, {TF32(F32(1, 2, 3, 4,
         1, 2, 3, 4), 4, 2)}, 0, 0},
        {"Tile", 13, {{0}}, {TI64(I64(1, 2), 1, 2), TI64(I64(2, 2), 2)}, {TI64(I64(1, 2, 1, 2, 1,
         2, 1, 2), 2, 4)}, 0, 0},
        {"Tile", 13, {{0}}, {TF32(X6, 6), TI64(I64(0), 1)}, {TF32(X6, 0)}, 0, 0},
        {"Tile", 13, {{0}}, {TF32(X6, 6), TI64(I64(-1), 1)}, {{0}}, DIBIT_BAD_FILE, "-1"},
        {"Tile", 13, {{0}}, {TF32(X6, 6), TI64(I64(INT64_MAX), 1)}, {{0}}, DIBIT_TOO_LARGE,
         "repeats"},
        {"Tile", 13, {{0}}, {TF32(X6, 2, 3), TI64(I64(1 << 30, 1 << 30), 2)}, {{0}},
         DIBIT_TOO_LARGE, "more than"},
        {"Tile", 13, {{0}}, {TF32(X6, 6), TI64(I64(1, 1), 2)}, {{0}}, DIBIT_BAD_FILE, "2 repeats"},
        {"Expand", 8, {{0}}, {TF32(F32(1, 2), 2, 1), TI64(I64(3), 1)}, {TF32(F32(1, 1, 1, 2, 2, 2),
         2, 3)}, 0, 0},
        {"Expand", 13, {{0}}, {TI64(I64(4), 1), TI64(I64(2, 2), 2)}, {TI64(I64(4, 4, 4, 4), 2, 2)},
         0, 0},
        {"Expand", 13, {{0}}, {TF32(X6, 2, 3), TI64(I64(1, 1), 2)}, {TF32(X6, 2, 3)}, 0, 0},
        {"Expand", 13, {{0}}, {TF32(X6, 1), TI64(I64(0), 1)}, {TF32(X6, 0)}, 0, 0},
        {"Expand", 13, {{0}}, {TF32(X6, 6), TI64(I64(5), 1)}, {{0}}, DIBIT_BAD_FILE, "broadcast"},
        {"Expand", 13, {{0}}, {TF32(X6, 1), TI64(I64(-3), 1)}, {{0}}, DIBIT_BAD_FILE, "-3"},
        {"Expand", 13, {{0}}, {TF32(X6, 1), TI64(I64(1 << 30, 1 << 30, 1 << 30), 3)}, {{0}},
         DIBIT_TOO_LARGE, "more than"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_pad(void **state) {
    (void)state;
#define P3 F32(1, 2, 3)
    /* clang-format off */
    const op_row rows[] = {
        {"Pad", 2, {DBT_INTS("pads", 0, 1, 1, 0), DBT_FLOAT("value", 9)}, {TF32(P3, 1, 3)},
         {TF32(F32(9, 1, 2, 3, 9, 9, 9, 9), 2, 4)}, 0, 0},
        {"Pad", 11, {{0}}, {TF32(P3, 3), TI64(I64(1, 2), 2), DBT_SCALAR(DIBIT_TYPE_FLOAT, F32(7))},
         {TF32(F32(7, 1, 2, 3, 7, 7), 6)}, 0, 0},
        {"Pad", 13, {{0}}, {TI64(I64(1, 2), 2), TI64(I64(0, 1), 2)}, {TI64(I64(1, 2, 0), 3)}, 0,
         0},
        {"Pad", 13, {{0}}, {TI64(I64(1, 2), 2), TI64(I64(1, 0), 2), DBT_SCALAR(DIBIT_TYPE_INT64,
         I64(-5))}, {TI64(I64(-5, 1, 2), 3)}, 0, 0},
        {"Pad", 13, {DBT_STRING("mode", "reflect")}, {TF32(P3, 3), TI64(I64(2, 1), 2)},
         {TF32(F32(3, 2, 1, 2, 3, 2), 6)}, 0, 0},
        {"Pad", 13, {DBT_STRING("mode", "edge")}, {TF32(P3, 3), TI64(I64(2, 1), 2)}, {TF32(F32(1,
         1, 1, 2, 3, 3), 6)}, 0, 0},
        {"Pad", 19, {DBT_STRING("mode", "wrap")}, {TF32(P3, 3), TI64(I64(2, 4), 2)}, {TF32(F32(2,
         3, 1, 2, 3, 1, 2, 3, 1), 9)}, 0, 0},
        {"Pad", 18, {{0}}, {TF32(X6, 2, 3), TI64(I64(1, 0), 2), ROW_ABSENT, TI64(I64(-1), 1)},
         {TF32(F32(0, 1, 2, 3, 0, 4, 5, 6), 2, 4)}, 0, 0},
        {"Pad", 13, {{0}}, {TF32(X6, 6), TI64(I64(-2, -1), 2)}, {TF32(F32(3, 4, 5), 3)}, 0, 0},
        {"Pad", 13, {{0}}, {TF32(X6, 6), TI64(I64(-4, 2), 2)}, {TF32(F32(5, 6, 0, 0), 4)}, 0, 0},
        {"Pad", 13, {{0}}, {TF32(X6, 2, 3), TI64(I64(1, -1, 0, 0), 4)}, {TF32(F32(0, 0, 2, 3, 5,
         6), 3, 2)}, 0, 0},
        {"Pad", 13, {{0}}, {TF32(X6, 6), TI64(I64(-4, -4), 2)}, {{0}}, DIBIT_BAD_FILE, "-2"},
        {"Pad", 13, {{0}}, {TF32(X6, 6), TI64(I64(0, INT64_MAX), 2)}, {{0}}, DIBIT_TOO_LARGE,
         "axis 0"},
        {"Pad", 13, {{0}}, {TF32(X6, 2, 3), TI64(I64(0, 0, 1 << 30, 1 << 30), 4)}, {{0}},
         DIBIT_TOO_LARGE, "more than"},
        {"Pad", 13, {DBT_STRING("mode", "edge")}, {TF32(X6, 0), TI64(I64(1, 0), 2)}, {{0}},
         DIBIT_BAD_INPUT, "nothing is left"},
        {"Pad", 13, {DBT_STRING("mode", "mirror")}, {TF32(X6, 6), TI64(I64(1, 0), 2)}, {{0}},
         DIBIT_BAD_FILE, "mirror"},
        {"Pad", 13, {{0}}, {TF32(X6, 6), TI64(I64(1, 0, 0, 0), 4)}, {{0}}, DIBIT_BAD_FILE,
         "4 pads"},
        {"Pad", 18, {{0}}, {TF32(X6, 6), TI64(I64(1, 0), 2), ROW_ABSENT, TI64(I64(1), 1)}, {{0}},
         DIBIT_BAD_FILE, "axis 1"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_blocks_and_reverse(void **state) {
    (void)state;
#define D8 F32(0, 1, 2, 3, 4, 5, 6, 7)
    /* clang-format off */
    const op_row rows[] = {
        {"DepthToSpace", 13, {DBT_INT("blocksize", 2)}, {TF32(D8, 1, 8, 1, 1)}, {TF32(F32(0, 2, 4,
         6, 1, 3, 5, 7), 1, 2, 2, 2)}, 0, 0},
        {"DepthToSpace", 11, {DBT_INT("blocksize", 2), DBT_STRING("mode", "CRD")}, {TF32(D8, 1, 8,
         1, 1)}, {TF32(D8, 1, 2, 2, 2)}, 0, 0},
        {"DepthToSpace", 1, {DBT_INT("blocksize", 2)}, {TF32(D8, 1, 4, 1, 2)}, {TF32(F32(0, 2, 1,
         3, 4, 6, 5, 7), 1, 1, 2, 4)}, 0, 0},
        {"SpaceToDepth", 13, {DBT_INT("blocksize", 2)}, {TF32(F32(0, 2, 4, 6, 1, 3, 5, 7), 1, 2, 2,
         2)}, {TF32(D8, 1, 8, 1, 1)}, 0, 0},
        {"DepthToSpace", 13, {DBT_INT("blocksize", 3)}, {TF32(D8, 1, 8, 1, 1)}, {{0}},
         DIBIT_BAD_FILE, "multiple of 9"},
        {"DepthToSpace", 13, {DBT_INT("blocksize", 0)}, {TF32(D8, 1, 8, 1, 1)}, {{0}},
         DIBIT_BAD_FILE, "blocksize"},
        {"SpaceToDepth", 13, {DBT_INT("blocksize", 2)}, {TF32(D8, 1, 8, 1, 1)}, {{0}},
         DIBIT_BAD_FILE, "multiple"},
        {"ReverseSequence", 10, {DBT_INT("time_axis", 1), DBT_INT("batch_axis", 0)}, {TF32(X6, 2,
         3), TI64(I64(2, 3), 2)}, {TF32(F32(2, 1, 3, 6, 5, 4), 2, 3)}, 0, 0},
        {"ReverseSequence", 10, {{0}}, {TF32(X6, 3, 2), TI64(I64(3, 0), 2)}, {TF32(F32(5, 2, 3, 4,
         1, 6), 3, 2)}, 0, 0},
        {"ReverseSequence", 10, {{0}}, {TF32(X6, 3, 2), TI64(I64(4, 0), 2)}, {{0}},
         DIBIT_OUT_OF_RANGE, "length 4"},
        {"ReverseSequence", 10, {DBT_INT("time_axis", 2)}, {TF32(X6, 3, 2), TI64(I64(1, 0), 2)},
         {{0}}, DIBIT_BAD_FILE, "time_axis 2"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_triangles(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"Trilu", 14, {{0}}, {TF32(X6, 2, 3)}, {TF32(F32(1, 2, 3, 0, 5, 6), 2, 3)}, 0, 0},
        {"Trilu", 14, {DBT_INT("upper", 0)}, {TF32(X6, 2, 3)}, {TF32(F32(1, 0, 0, 4, 5, 0), 2, 3)},
         0, 0},
        {"Trilu", 14, {{0}}, {TI64(N6, 3, 2), DBT_SCALAR(DIBIT_TYPE_INT64, I64(-1))}, {TI64(I64(1,
         2, 3, 4, 0, 6), 3, 2)}, 0, 0},
        {"Trilu", 14, {DBT_INT("upper", 0)}, {TF32(X6, 1, 2, 3), DBT_SCALAR(DIBIT_TYPE_INT64,
         I64(1))}, {TF32(F32(1, 2, 0, 4, 5, 6), 1, 2, 3)}, 0, 0},
        {"Trilu", 14, {{0}}, {TF32(X6, 2, 3), DBT_SCALAR(DIBIT_TYPE_INT64, I64(INT64_MAX))},
         {TF32(F32(0, 0, 0, 0, 0, 0), 2, 3)}, 0, 0},
        {"Trilu", 14, {{0}}, {TF32(X6, 2, 3), DBT_SCALAR(DIBIT_TYPE_INT64, I64(INT64_MIN))},
         {TF32(X6, 2, 3)}, 0, 0},
        {"Trilu", 14, {DBT_INT("upper", 0)}, {TF32(X6, 2, 3), DBT_SCALAR(DIBIT_TYPE_INT64,
         I64(INT64_MIN))}, {TF32(F32(0, 0, 0, 0, 0, 0), 2, 3)}, 0, 0},
        {"Trilu", 14, {{0}}, {TF32(X6, 6)}, {{0}}, DIBIT_BAD_FILE, "rank"},
        {"EyeLike", 9, {{0}}, {TF32(X6, 2, 3)}, {TF32(F32(1, 0, 0, 0, 1, 0), 2, 3)}, 0, 0},
        {"EyeLike", 9, {DBT_INT("k", 1), DBT_INT("dtype", 7)}, {TF32(X6, 2, 3)}, {TI64(I64(0, 1, 0,
         0, 0, 1), 2, 3)}, 0, 0},
        {"EyeLike", 22, {DBT_INT("k", INT64_MIN)}, {TF32(X6, 2, 3)}, {TF32(F32(0, 0, 0, 0, 0, 0),
         2, 3)}, 0, 0},
        {"EyeLike", 9, {DBT_INT("dtype", 8)}, {TF32(X6, 2, 3)}, {{0}}, DIBIT_UNSUPPORTED,
         "string"},
        {"EyeLike", 9, {DBT_INT("dtype", 1 << 20)}, {TF32(X6, 2, 3)}, {{0}}, DIBIT_UNSUPPORTED,
         "undefined"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_topk_and_one_hot(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"TopK", 1, {DBT_INT("k", 2)}, {TF32(F32(1, 4, 3, 4), 4)}, {TF32(F32(4, 4), 2), TI64(I64(1,
         3), 2)}, 0, 0},
        {"TopK", 10, {DBT_INT("axis", 0)}, {TF32(X6, 3, 2), TI64(I64(2), 1)}, {TF32(F32(5, 6, 3,
         4), 2, 2), TI64(I64(2, 2, 1, 1), 2, 2)}, 0, 0},
        {"TopK", 11, {DBT_INT("largest", 0)}, {TI8(I8(3, -128, 3, 127, -128), 5), TI64(I64(3), 1)},
         {TI8(I8(-128, -128, 3), 3), TI64(I64(1, 4, 0), 3)}, 0, 0},
        {"TopK", 11, {{0}}, {TF32(F32(-0.0f, 0.0f, -1, NAN, INFINITY), 5), TI64(I64(4), 1)},
         {TF32(F32(NAN, INFINITY, 0, 0), 4), TI64(I64(3, 4, 0, 1), 4)}, 0, 0},
        {"TopK", 11, {{0}}, {DBT_TENSOR(DIBIT_TYPE_UINT64, I64(1, -1, 2), 3), TI64(I64(2), 1)},
         {DBT_TENSOR(DIBIT_TYPE_UINT64, I64(-1, 2), 2), TI64(I64(1, 2), 2)}, 0, 0},
        {"TopK", 11, {{0}}, {TF32(X6, 6), TI64(I64(0), 1)}, {TF32(X6, 0), TI64(N6, 0)}, 0, 0},
        {"TopK", 11, {{0}}, {TF32(X6, 6), TI64(I64(7), 1)}, {{0}}, DIBIT_BAD_FILE, "k is 7"},
        {"TopK", 11, {{0}}, {TF32(X6, 6), TI64(I64(-1), 1)}, {{0}}, DIBIT_BAD_FILE, "k is -1"},
        {"OneHot", 9, {{0}}, {TI64(I64(1, -1, 5), 3), TI64(I64(3), 1), TF32(F32(0, 9), 2)},
         {TF32(F32(0, 9, 0, 0, 0, 9, 0, 0, 0), 3, 3)}, 0, 0},
        {"OneHot", 11, {DBT_INT("axis", 0)}, {TF32(F32(1, 0), 2), DBT_SCALAR(DIBIT_TYPE_FLOAT,
         F32(2)), TI32(I32(2, 5), 2)}, {TI32(I32(2, 5, 5, 2), 2, 2)}, 0, 0},
        {"OneHot", 11, {{0}}, {TF32(F32(NAN, -2), 2), DBT_SCALAR(DIBIT_TYPE_INT64, I64(2)),
         TI32(I32(0, 1), 2)}, {TI32(I32(0, 0, 1, 0), 2, 2)}, 0, 0},
        {"OneHot", 11, {{0}}, {TI64(N6, 6), TI64(I64(-1), 1), TF32(F32(0, 1), 2)}, {{0}},
         DIBIT_BAD_FILE, "-1"},
        {"OneHot", 11, {{0}}, {TI64(N6, 6), DBT_SCALAR(DIBIT_TYPE_FLOAT, F32(1e30f)), TF32(F32(0,
         1), 2)}, {{0}}, DIBIT_TOO_LARGE, "depth"},
        {"OneHot", 11, {{0}}, {TI64(N6, 6), TI64(I64(2), 1), TF32(F32(0), 1)}, {{0}},
         DIBIT_BAD_FILE, "must be 2"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

static void test_non_zero_and_compress(void **state) {
    (void)state;
    /* clang-format off */
    const op_row rows[] = {
        {"NonZero", 9, {{0}}, {TF32(F32(1, 0, -0.0f, NAN), 2, 2)}, {TI64(I64(0, 1, 0, 1), 2, 2)},
         0, 0},
        {"NonZero", 13, {{0}}, {TB(U8(0, 1, 1), 3)}, {TI64(I64(1, 2), 1, 2)}, 0, 0},
        {"NonZero", 13, {{0}}, {TI64(I64(0, 0), 2)}, {TI64(N6, 1, 0)}, 0, 0},
        {"NonZero", 13, {{0}}, {DBT_SCALAR(DIBIT_TYPE_INT64, I64(3))}, {TI64(I64(0), 1, 1)}, 0, 0},
        {"Compress", 9, {DBT_INT("axis", 1)}, {TF32(X6, 2, 3), TB(U8(0, 1, 1), 3)}, {TF32(F32(2, 3,
         5, 6), 2, 2)}, 0, 0},
        {"Compress", 11, {{0}}, {TF32(X6, 2, 3), TB(U8(0, 1, 0, 0, 1), 5)}, {TF32(F32(2, 5), 2)},
         0, 0},
        {"Compress", 11, {DBT_INT("axis", -2)}, {TF32(X6, 3, 2), TB(U8(0, 1), 2)}, {TF32(F32(3, 4),
         1, 2)}, 0, 0},
        {"Compress", 11, {DBT_INT("axis", 0)}, {TF32(X6, 3, 2), TB(U8(0, 0, 0, 1), 4)}, {{0}},
         DIBIT_OUT_OF_RANGE, "condition 3"},
    };
    /* clang-format on */
    OP_ROWS_CHECK(rows);
}

/* ---- Host values: dims move like elements ---------------------------------------------------- */

typedef struct host {
    dbt_arena arena;
    dbt_dims *dims;
    dbt_dim symbols[4];
    dbt_value in[4], out[2];
} host;

/* Infers with input 0 = [batch, seq, past, heads] and up to three more lists of constants. */
static void infer_moved(host *h, const char *name, const dbt_onnx_attr *attr, uint32_t n_outputs,
                        const dibit_tensor *lists, uint32_t n_lists) {
    static const char *const names[] = {"batch", "seq", "past", "heads"};
    memset(h, 0, sizeof *h);
    dbt_arena_init(&h->arena, NULL);
    h->dims = dbt_dims_create(&h->arena);
    for (int i = 0; i < 4; i++) h->symbols[i] = dbt_dim_symbol(h->dims, names[i]);
    h->in[0] = (dbt_value){.name = "x",
                           .type = DIBIT_TYPE_INT64,
                           .contents = h->symbols,
                           .shape = {.rank = 1, .dims = {dbt_dim_const(h->dims, 4)}}};
    dbt_value *in[4] = {&h->in[0]}, *out[2] = {&h->out[0], &h->out[1]};
    for (uint32_t i = 0; i < n_lists; i++) {
        const int64_t n = dbt_tensor_count(&lists[i]);
        dbt_dim *const contents = dbt_arena_array(&h->arena, (uint64_t)n, sizeof *contents);
        for (int64_t k = 0; k < n; k++) {
            contents[k] = dbt_dim_const(h->dims, ((const int64_t *)lists[i].data)[k]);
        }
        h->in[i + 1] = (dbt_value){.name = "list",
                                   .type = DIBIT_TYPE_INT64,
                                   .contents = contents,
                                   .shape = {.rank = 1, .dims = {dbt_dim_const(h->dims, n)}}};
        in[i + 1] = &h->in[i + 1];
    }
    dibit_error error = {0};
    const dbt_op *any, *const op = dbt_op_find("", name, 13, &any);
    dbt_node node = {.name = "node", .op = op, .opset = 13};
    assert_int_equal(dbt_attrs_parse(op, attr, attr ? 1 : 0, &h->arena, &node.attrs, &error), 0);
    dbt_infer infer = {.node = &node,
                       .attrs = node.attrs,
                       .n_inputs = n_lists + 1,
                       .n_outputs = n_outputs,
                       .in = in,
                       .out = out,
                       .dims = h->dims,
                       .arena = &h->arena,
                       .error = &error};
    assert_int_equal(op->infer(&infer), DIBIT_OK);
}

static void test_symbols_move(void **state) {
    (void)state;
    host h;
    const dibit_tensor gather[] = {TI64(I64(1, -1), 2)};
    infer_moved(&h, "Gather", NULL, 1, gather, 1);
    assert_non_null(h.out[0].contents);
    assert_int_equal(h.out[0].contents[0], h.symbols[1]);
    assert_int_equal(h.out[0].contents[1], h.symbols[3]);
    dbt_arena_free(&h.arena);

    const dibit_tensor slice[] = {TI64(I64(2), 1), TI64(I64(INT64_MAX), 1)};
    infer_moved(&h, "Slice", NULL, 1, slice, 2);
    assert_true(dbt_dim_is(h.dims, h.out[0].shape.dims[0], 2));
    assert_int_equal(h.out[0].contents[0], h.symbols[2]);
    dbt_arena_free(&h.arena);

    const dibit_tensor split[] = {TI64(I64(3, 1), 2)};
    infer_moved(&h, "Split", NULL, 2, split, 1);
    assert_int_equal(h.out[0].contents[2], h.symbols[2]);
    assert_int_equal(h.out[1].contents[0], h.symbols[3]);
    dbt_arena_free(&h.arena);

    const dbt_onnx_attr axis = DBT_INT("axis", 0);
    const dibit_tensor minus[] = {TI64(I64(-1), 1)};
    infer_moved(&h, "Concat", &axis, 1, minus, 1);
    assert_int_equal(h.out[0].contents[0], h.symbols[0]);
    assert_true(dbt_dim_is(h.dims, h.out[0].contents[4], -1));
    dbt_arena_free(&h.arena);

    const dibit_tensor repeats[] = {TI64(I64(2), 1)};
    infer_moved(&h, "Tile", NULL, 1, repeats, 1);
    assert_int_equal(h.out[0].contents[5], h.symbols[1]);
    dbt_arena_free(&h.arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_a_device_passes_over_indices_out_of_range),
        cmocka_unit_test(test_scatter),
        cmocka_unit_test(test_slice),
        cmocka_unit_test(test_split_and_concat),
        cmocka_unit_test(test_transpose_tile_expand),
        cmocka_unit_test(test_pad),
        cmocka_unit_test(test_blocks_and_reverse),
        cmocka_unit_test(test_triangles),
        cmocka_unit_test(test_topk_and_one_hot),
        cmocka_unit_test(test_non_zero_and_compress),
        cmocka_unit_test(test_symbols_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Sessions: binding, errors, running in pieces, last rows, kept values, data-dependent dims, and that a
 * warm run allocates nothing. */
#include "dbt_test.h"

#include "session_test.h"

static const dibit_type F32 = DIBIT_TYPE_FLOAT, F16 = DIBIT_TYPE_FLOAT16, I64 = DIBIT_TYPE_INT64;

/* y[batch, seq, 2] = rms_norm(-x) * 2, where 2 is folded */
static void small_model(pb *g) {
    const float gamma[2] = {1, 2}, minus_two[1] = {-2};
    const int64_t n[1] = {2};
    graph_input(g, "x", F32, "batch seq 2");
    graph_constant(g, "gamma", F32, 1, n, gamma);
    graph_constant(g, "minus_two", F32, 0, NULL, minus_two);
    graph_node(g, "", "Neg", "minus_two", "two", NULL);
    graph_node(g, "", "Neg", "x", "n", NULL);
    graph_node(g, "", "SimplifiedLayerNormalization", "n gamma", "m", NULL);
    graph_node(g, "", "Mul", "m two", "y", NULL);
    graph_output(g, "y", F32, "batch seq 2");
}

static float expected(const float *x, int64_t row, int k) {
    const float a = -x[row * 2], b = -x[row * 2 + 1];
    return (k ? b * 2 : a) / sqrtf((a * a + b * b) / 2 + 1e-5f) * 2;
}

static void test_last_rows_are_the_same_rows(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    small_model(&g);
    open_model(&f, &g, NULL);
    const float x[12] = {1, 2, 3, 4, -5, 6, 7, 8, 9, -10, 11, 12};
    const dibit_tensor in = {"x", F32, 3, {2, 3, 2}, (void *)(uintptr_t)x, 0};
    dibit_tensor out = {.name = "y"};
    assert_int_equal(run(&f, &in, 1, &out), DIBIT_OK);
    assert_int_equal(out.dims[1], 3);
    for (int i = 0; i < 12; i++) {
        assert_float_equal(((float *)out.data)[i], expected(x, i / 2, i % 2), 1e-5f);
    }
    for (uint32_t rows = 1; rows <= 4; rows++) {
        dibit_tensor last = {.name = "y"};
        const dibit_run r = {
            .inputs = &in, .n_inputs = 1, .outputs = &last, .n_outputs = 1, .last_rows = rows};
        assert_int_equal(dibit_session_run(f.session, &r, &f.error), DIBIT_OK);
        const int n = rows < 3 ? (int)rows : 3;
        assert_int_equal(last.dims[1], n);
        for (int i = 0; i < 2 * n * 2; i++) {
            const int row = i / 2, b = row / n, s = 3 - n + row % n;
            assert_float_equal(((float *)last.data)[i], expected(x, b * 3 + s, i % 2), 1e-5f);
        }
    }
    close_model(&f);
}

static void test_wrong_inputs_are_named(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    graph_input(&g, "a", F32, "n 2");
    graph_input(&g, "b", F32, "n 2");
    graph_node(&g, "", "Add", "a b", "y", NULL);
    graph_output(&g, "y", F32, "n 2");
    open_model(&f, &g, NULL);
    float data[16] = {0};
    dibit_tensor in[2] = {{"a", F32, 2, {3, 2}, data, 0}, {"b", F32, 2, {3, 2}, data, 0}};
    dibit_tensor out = {.name = "y"};
    assert_int_equal(run(&f, in, 2, &out), DIBIT_OK);
    assert_int_equal(run(&f, in, 1, &out), DIBIT_BAD_INPUT);
    assert_string_equal(f.error.text, "input 'b' is missing");
    in[1].dims[0] = 4;
    assert_int_equal(run(&f, in, 2, &out), DIBIT_BAD_INPUT);
    assert_string_equal(f.error.text, "input 'b': dim 0 (n) must be 3, got 4");
    in[1].dims[0] = -1;
    assert_int_equal(run(&f, in, 2, &out), DIBIT_BAD_INPUT);
    in[1].dims[0] = 3;
    in[1].type = I64;
    assert_int_equal(run(&f, in, 2, &out), DIBIT_BAD_INPUT);
    assert_string_equal(f.error.text, "input 'b' must have type float, got int64");
    in[1].type = F32;
    in[1].rank = 1;
    assert_int_equal(run(&f, in, 2, &out), DIBIT_BAD_INPUT);
    in[1].rank = 2;
    in[1].bytes = 23;
    assert_int_equal(run(&f, in, 2, &out), DIBIT_BAD_INPUT);
    in[1].bytes = 24;
    in[1].name = "a";
    assert_int_equal(run(&f, in, 2, &out), DIBIT_BAD_INPUT);
    assert_string_equal(f.error.text, "input 'a' is given twice");
    in[1].name = "c";
    assert_int_equal(run(&f, in, 2, &out), DIBIT_BAD_INPUT);
    in[1].name = "b";
    out.name = "z";
    assert_int_equal(run(&f, in, 2, &out), DIBIT_BAD_ARGUMENT);
    float little[5];
    out = (dibit_tensor){.name = "y", .data = little, .bytes = sizeof little};
    assert_int_equal(run(&f, in, 2, &out), DIBIT_TOO_LARGE);
    float enough[6];
    out = (dibit_tensor){.name = "y", .data = enough, .bytes = sizeof enough};
    assert_int_equal(run(&f, in, 2, &out), DIBIT_OK);
    assert_ptr_equal(out.data, enough);
    close_model(&f);
}

static void test_float16_at_the_borders_only(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    graph_input(&g, "x", F16, "n");
    graph_node(&g, "", "Mul", "x x", "big", NULL); /* overflows float16, not what is inside */
    graph_node(&g, "", "Sqrt", "big", "y", NULL);
    graph_output(&g, "y", F16, "n");
    open_model(&f, &g, NULL);
    uint16_t x[3] = {0x3c00, 0x7bff, 0x0001}; /* 1, 65504, 2^-24 */
    const dibit_tensor in = {"x", F16, 1, {3}, x, 0};
    dibit_tensor out = {.name = "y"};
    assert_int_equal(run(&f, &in, 1, &out), DIBIT_OK);
    assert_int_equal(out.type, F16);
    assert_memory_equal(out.data, x, sizeof x);
    close_model(&f);
}

static void test_dims_that_depend_on_data(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "NonZero", "x", "where", NULL);
    graph_node(&g, "", "Shape", "where", "shape", NULL);
    graph_output(&g, "where", I64, "1 m");
    graph_output(&g, "shape", I64, "2");
    open_model(&f, &g, NULL);
    for (int round = 0; round < 4; round++) {
        float x[6] = {0};
        for (int i = 0; i < round; i++) x[i * 2] = 1;
        const dibit_tensor in = {"x", F32, 1, {6}, x, 0};
        dibit_tensor out[2] = {{.name = "where"}, {.name = "shape"}};
        const dibit_run r = {.inputs = &in, .n_inputs = 1, .outputs = out, .n_outputs = 2};
        assert_int_equal(dibit_session_run(f.session, &r, &f.error), DIBIT_OK);
        assert_int_equal(out[0].dims[1], round);
        assert_int_equal(((int64_t *)out[1].data)[1], round);
        for (int i = 0; i < round; i++) assert_int_equal(((int64_t *)out[0].data)[i], i * 2);
    }
    close_model(&f);
}

static void test_if_runs_one_branch(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0}, yes = {0}, no = {0}, attrs = {0};
    const int64_t four[1] = {4}, index[1] = {9};
    graph_input(&g, "x", F32, "n");
    graph_int64s(&g, "four", 1, four);
    graph_node(&g, "", "Shape", "x", "size", NULL);
    graph_node(&g, "", "Greater", "size four", "large1", NULL);
    graph_int64s(&g, "scalar", 0, four);
    graph_node(&g, "", "Squeeze", "large1", "large", NULL);
    graph_node(&yes, "", "Neg", "x", "sum", NULL);
    graph_output(&yes, "sum", F32, "n");
    graph_constant(&no, "index", I64, 1, (const int64_t[1]){1}, index);
    graph_node(&no, "", "Gather", "x index", "one", NULL); /* out of range: must not run */
    graph_node(&no, "", "Add", "one x", "minus", NULL);
    graph_output(&no, "minus", F32, "n");
    attr_graph(&attrs, "then_branch", &yes);
    attr_graph(&attrs, "else_branch", &no);
    graph_node(&g, "", "If", "large", "y", &attrs);
    graph_output(&g, "y", F32, "n");
    open_model(&f, &g, NULL);
    float x[5] = {1, 2, 3, 4, 5};
    dibit_tensor in = {"x", F32, 1, {5}, x, 0}, out = {.name = "y"};
    if (run(&f, &in, 1, &out) != DIBIT_OK) fail_msg("%s", f.error.text);
    assert_float_equal(((float *)out.data)[4], -5.0f, 0);
    in.dims[0] = 4;
    assert_int_equal(run(&f, &in, 1, &out), DIBIT_OUT_OF_RANGE);
    close_model(&f);
}

static void test_a_run_in_pieces_and_cancelled(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    small_model(&g);
    open_model(&f, &g, NULL);
    float x[4] = {1, 2, 3, 4};
    const dibit_tensor in = {"x", F32, 3, {1, 2, 2}, x, 0};
    dibit_tensor out = {.name = "y"};
    const dibit_run r = {.inputs = &in, .n_inputs = 1, .outputs = &out, .n_outputs = 1};
    assert_int_equal(dibit_run_poll(f.session, &f.error), DIBIT_BAD_STATE);
    assert_int_equal(dibit_run_begin(f.session, &r, &f.error), DIBIT_OK);
    assert_int_equal(dibit_run_begin(f.session, &r, &f.error), DIBIT_BAD_STATE);
    dibit_run_cancel(f.session);
    assert_int_equal(dibit_run_poll(f.session, &f.error), DIBIT_BAD_STATE);
    assert_int_equal(dibit_run_begin(f.session, &r, &f.error), DIBIT_OK);
    dibit_status status;
    do status = dibit_run_poll(f.session, &f.error);
    while (status == DIBIT_PENDING);
    assert_int_equal(status, DIBIT_OK);
    assert_float_equal(((float *)out.data)[3], expected(x, 1, 1), 1e-5f);
    close_model(&f);
}

static void test_kept_values_are_found_by_name(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    small_model(&g);
    open_model(&f, &g, &(dibit_session_desc){.keep_values = true});
    float x[2] = {1, 2};
    const dibit_tensor in = {"x", F32, 3, {1, 1, 2}, x, 0};
    dibit_tensor out = {.name = "y"}, n, m;
    assert_int_equal(run(&f, &in, 1, &out), DIBIT_OK);
    assert_int_equal(dibit_session_value(f.session, "n", &n, &f.error), DIBIT_OK);
    assert_int_equal(dibit_session_value(f.session, "m", &m, &f.error), DIBIT_OK);
    assert_float_equal(((float *)n.data)[1], -2, 0);
    assert_float_equal(((float *)m.data)[1] * 2, ((float *)out.data)[1], 0);
    assert_int_equal(dibit_session_value(f.session, "nobody", &m, &f.error), DIBIT_NOT_FOUND);
    close_model(&f);
}

static void test_noise_moves_results_a_little(void **state) {
    (void)state;
    float quiet[4] = {0};
    for (uint64_t seed = 0; seed < 3; seed++) {
        fixture f = {0};
        pb g = {0};
        small_model(&g);
        open_model(&f, &g, &(dibit_session_desc){.noise_seed = seed});
        float x[4] = {1, 2, 3, 4};
        const dibit_tensor in = {"x", F32, 3, {1, 2, 2}, x, 0};
        dibit_tensor out = {.name = "y"};
        assert_int_equal(run(&f, &in, 1, &out), DIBIT_OK);
        if (seed == 0) memcpy(quiet, out.data, sizeof quiet);
        assert_int_equal(memcmp(quiet, out.data, sizeof quiet) == 0, seed == 0);
        for (int i = 0; i < 4; i++) assert_float_equal(quiet[i], ((float *)out.data)[i], 1e-5f);
        close_model(&f);
    }
}

static void test_a_warm_run_allocates_nothing(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    small_model(&g);
    open_model(&f, &g, NULL);
    float x[64] = {0};
    dibit_tensor in = {"x", F32, 3, {1, 20, 2}, x, 0};
    for (int i = 0; i < 5; i++) {
        const uint64_t before = f.counter.calls;
        in.dims[1] = i < 2 ? 20 : 20 + i; /* within what the first run made room for */
        dibit_tensor out = {.name = "y"};
        assert_int_equal(run(&f, &in, 1, &out), DIBIT_OK);
        if (i > 0) assert_int_equal(f.counter.calls, before);
    }
    close_model(&f);
}

static void test_every_allocation_may_fail(void **state) {
    (void)state;
    pb g = {0};
    small_model(&g);
    pb bytes = model_of(&g, NULL);
    uint64_t n = 0;
    for (bool done = false; !done; n++) {
        counter c = {.fail_at = n + 1};
        const dibit_allocator allocator = counter_allocator(&c);
        const dibit_model_desc desc = {
            .data = bytes.data, .data_bytes = bytes.n, .allocator = &allocator};
        dibit_model *model = NULL;
        dibit_session *session = NULL;
        dibit_error error = {0};
        float x[4] = {1, 2, 3, 4};
        const dibit_tensor in = {"x", F32, 3, {1, 2, 2}, x, 0};
        dibit_tensor out = {.name = "y"};
        const dibit_run r = {.inputs = &in, .n_inputs = 1, .outputs = &out, .n_outputs = 1};
        dibit_status status = dibit_model_load(&desc, &model, &error);
        if (status == DIBIT_OK) status = dibit_session_create(model, NULL, &session, &error);
        if (status == DIBIT_OK) status = dibit_session_run(session, &r, &error);
        done = c.calls < c.fail_at;
        assert_int_equal(status, done ? DIBIT_OK : DIBIT_OUT_OF_MEMORY);
        if (done) assert_float_equal(((float *)out.data)[3], expected(x, 1, 1), 1e-5f);
        dibit_session_destroy(&session);
        dibit_model_destroy(&model);
        assert_int_equal(c.live, 0);
    }
    assert_true(n > 8); /* arenas ask for chunks: there are few */
    pb_free(&bytes);
}

/* A table that is used transposed, as in models with tied embeddings: the columns are read where they
 * lie. */
static void test_a_transposed_table_is_not_transposed(void **state) {
    (void)state;
    enum { WIDTH = 130, ROWS = 140 }; /* too large to be folded */
    static float table[WIDTH * ROWS];
    for (int i = 0; i < WIDTH * ROWS; i++) table[i] = (float)i;
    const int64_t dims[2] = {WIDTH, ROWS};
    pb g = {0};
    graph_input(&g, "ids", I64, "batch seq");
    graph_constant(&g, "table", F32, 2, dims, table);
    graph_node(&g, "", "Transpose", "table", "t", NULL);
    graph_node(&g, "", "Abs", "ids", "positive", NULL);
    graph_node(&g, "", "Gather", "t positive", "y", NULL);
    graph_output(&g, "y", F32, "batch seq 130");
    fixture f = {0};
    open_model(&f, &g, NULL);
    int64_t ids[3] = {-7, 0, 139};
    const dibit_tensor in = {.name = "ids", .type = I64, .rank = 2, .dims = {1, 3}, .data = ids};
    dibit_tensor out = {.name = "y"};
    assert_int_equal(run(&f, &in, 1, &out), DIBIT_OK);
    assert_int_equal(out.rank, 3);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < WIDTH; k++) {
            const float want = table[k * ROWS + (i ? ids[i] : 7)];
            assert_true(((const float *)out.data)[i * WIDTH + k] == want);
        }
    }
    dibit_step_info step;
    assert_int_equal(dibit_session_step(f.session, 1, &step), DIBIT_OK);
    assert_string_equal(step.op, "Gather");
    close_model(&f);
}

/* Such a model loads, says which ranks it does not know, and is planned for those it is given. */
static void test_ranks_that_the_model_does_not_tell(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    graph_input(&g, "x", F32, NULL);
    graph_input(&g, "y", F32, "n");
    graph_node(&g, "", "Add", "x y", "z", NULL);
    graph_output(&g, "z", F32, NULL);
    assert_int_equal(try_open(&f, &g, NULL), DIBIT_UNSUPPORTED);
    assert_non_null(strstr(f.error.text, "'x'"));
    dibit_value_info info;
    assert_int_equal(dibit_model_input(f.model, 0, &info), DIBIT_OK);
    assert_int_equal(info.rank, -1);
    assert_int_equal(dibit_model_input(f.model, 1, &info), DIBIT_OK);
    assert_int_equal(info.rank, 1);
    assert_int_equal(dibit_model_output(f.model, 0, &info), DIBIT_OK);
    assert_int_equal(info.rank, -1);
    assert_int_equal(info.type, F32);
    for (int32_t rank = -1; rank <= DIBIT_MAX_RANK + 1; rank++) {
        const int32_t ranks[2] = {rank, -1};
        const dibit_session_desc desc = {.input_ranks = ranks};
        const dibit_status status = dibit_session_create(f.model, &desc, &f.session, &f.error);
        if (rank < 0 || rank > DIBIT_MAX_RANK) {
            assert_int_equal(status, rank < 0 ? DIBIT_UNSUPPORTED : DIBIT_BAD_ARGUMENT);
            continue;
        }
        assert_int_equal(status, DIBIT_OK);
        const float x[4] = {1, 2, 3, 4}, y[2] = {10, 20};
        dibit_tensor in[2] = {{"x", F32, rank, {0}, (void *)(uintptr_t)x, 0},
                              {"y", F32, 1, {2}, (void *)(uintptr_t)y, 0}};
        for (int32_t d = 0; d < rank; d++) in[0].dims[d] = d == rank - 1 ? 2 : 1;
        dibit_tensor out = {.name = "z"};
        if (run(&f, in, 2, &out) != DIBIT_OK) fail_msg("%s", f.error.text);
        assert_int_equal(out.rank, rank > 1 ? rank : 1);
        assert_float_equal(((float *)out.data)[1], rank ? 22 : 21, 0);
        dibit_session_destroy(&f.session);
    }
    close_model(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_transposed_table_is_not_transposed),
        cmocka_unit_test(test_last_rows_are_the_same_rows),
        cmocka_unit_test(test_ranks_that_the_model_does_not_tell),
        cmocka_unit_test(test_wrong_inputs_are_named),
        cmocka_unit_test(test_float16_at_the_borders_only),
        cmocka_unit_test(test_dims_that_depend_on_data),
        cmocka_unit_test(test_if_runs_one_branch),
        cmocka_unit_test(test_a_run_in_pieces_and_cancelled),
        cmocka_unit_test(test_kept_values_are_found_by_name),
        cmocka_unit_test(test_noise_moves_results_a_little),
        cmocka_unit_test(test_a_warm_run_allocates_nothing),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

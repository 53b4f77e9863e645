/* Fusion: which nodes become one step on a device, and which must not. The null device computes nothing;
 * test_fused.c holds the fused op to its parts. */
#include "dbt_test.h"

#include "model_writer.h"

static const dibit_type F32 = DIBIT_TYPE_FLOAT, U8 = DIBIT_TYPE_UINT8;

static void weights(pb *g, const char *name) {
    static const uint8_t b[32 * 8] = {0};
    static const float scales[32] = {0};
    char text[64];
    snprintf(text, sizeof text, "%s_b", name);
    graph_constant(g, text, U8, 3, (const int64_t[]){32, 1, 8}, b);
    snprintf(text, sizeof text, "%s_s", name);
    graph_constant(g, text, F32, 2, (const int64_t[]){32, 1}, scales);
}

/* y = x W: 32 x 32, 2 bits. */
static void product(pb *g, const char *x, const char *name, const char *y) {
    weights(g, name);
    char inputs[128];
    snprintf(inputs, sizeof inputs, "%s %s_b %s_s", x, name, name);
    pb attrs = {0};
    attr_int(&attrs, "K", 32);
    attr_int(&attrs, "N", 32);
    attr_int(&attrs, "bits", 2);
    attr_int(&attrs, "block_size", 32);
    graph_node(g, "com.microsoft", "MatMulNBits", inputs, y, &attrs);
}

static void gain(pb *g) {
    static const float ones[32] = {1};
    graph_constant(g, "gain", F32, 1, (const int64_t[]){32}, ones);
}

/* The ops of the steps on the null device, and their names. */
static void assert_steps(pb *g, bool no_fusion, const char *want) {
    pb bytes = model_of(g, NULL);
    dibit_error error = {0};
    dibit_model *model = NULL;
    dibit_device *device = NULL;
    dibit_session *session = NULL;
    const dibit_model_desc desc = {.data = bytes.data, .data_bytes = bytes.n};
    if (dibit_model_load(&desc, &model, &error)) fail_msg("%s", error.text);
    const dibit_device_desc null = {.kind = DIBIT_DEVICE_NULL, .n_threads = 1};
    assert_int_equal(dibit_device_create(&null, &device, &error), DIBIT_OK);
    const dibit_session_desc options = {.device = device, .no_fusion = no_fusion};
    if (dibit_session_create(model, &options, &session, &error)) fail_msg("%s", error.text);
    char got[1024] = "";
    dibit_step_info step;
    for (uint32_t i = 0; dibit_session_step(session, i, &step) == DIBIT_OK; i++) {
        if (strcmp(step.device, "null") != 0) continue;
        const size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, "%s%s(%s)", n ? " " : "", step.op, step.name);
    }
    assert_string_equal(got, want);
    float x[7 * 32] = {0}, r[7 * 32] = {0};
    const dibit_tensor in[] = {{"x", F32, 3, {1, 7, 32}, x, 0}, {"r", F32, 3, {1, 7, 32}, r, 0}};
    dibit_tensor y = {.name = "y"};
    const dibit_run run = {.inputs = in, .n_inputs = 2, .outputs = &y, .n_outputs = 1};
    if (dibit_session_run(session, &run, &error)) fail_msg("%s", error.text);
    dibit_session_destroy(&session);
    dibit_device_destroy(&device);
    dibit_model_destroy(&model);
    pb_free(&bytes);
}

static pb start(void) {
    pb g = {0};
    graph_input(&g, "x", F32, "b 7 32");
    graph_input(&g, "r", F32, "b 7 32");
    gain(&g);
    return g;
}

static void finish(pb *g) { graph_output(g, "y", F32, "b 7 32"); }

/* What a layer of a Llama has after its attention, down to the next layer's norm. */
static void layer(pb *g) {
    product(g, "x", "o", "attended");
    graph_node(g, "com.microsoft", "SkipSimplifiedLayerNormalization", "r attended gain",
               "normed - - sum", NULL);
    product(g, "normed", "gate", "gated");
    product(g, "normed", "up", "upped");
    graph_node(g, "", "Sigmoid", "gated", "sigmoid", NULL);
    graph_node(g, "", "Mul", "gated sigmoid", "silu", NULL);
    graph_node(g, "", "Mul", "silu upped", "wide", NULL);
    product(g, "wide", "down", "mlp");
    graph_node(g, "com.microsoft", "SkipSimplifiedLayerNormalization", "sum mlp gain", "next",
               NULL);
    product(g, "next", "q", "y");
    finish(g);
}

static void test_a_layer_is_four_steps(void **state) {
    (void)state;
    pb g = start();
    layer(&g);
    assert_steps(&g, false,
                 "dibit.FusedMatMulNBits(attended + normed) "
                 "dibit.FusedMatMulNBits(normed + gated + upped + wide) "
                 "dibit.FusedMatMulNBits(mlp + next) "
                 "dibit.FusedMatMulNBits(next + y)");
}

static void test_without_fusion_all_nodes_are_steps(void **state) {
    (void)state;
    pb g = start();
    layer(&g);
    assert_steps(&g, true,
                 "com.microsoft.MatMulNBits(attended) "
                 "com.microsoft.SkipSimplifiedLayerNormalization(normed) "
                 "com.microsoft.MatMulNBits(gated) com.microsoft.MatMulNBits(upped) "
                 "Sigmoid(sigmoid) Mul(silu) Mul(wide) com.microsoft.MatMulNBits(mlp) "
                 "com.microsoft.SkipSimplifiedLayerNormalization(next) "
                 "com.microsoft.MatMulNBits(y)");
}

static void test_a_product_with_other_readers_stays(void **state) {
    (void)state;
    pb g = start();
    product(&g, "x", "o", "h");
    graph_node(&g, "", "Add", "h r", "sum", NULL);
    graph_node(&g, "", "Add", "sum h", "y", NULL);
    finish(&g);
    assert_steps(&g, false, "com.microsoft.MatMulNBits(h) Add(sum) Add(y)");
}

static void test_a_residual_that_broadcasts_stays_outside(void **state) {
    (void)state;
    static const float row[32] = {1};
    pb g = start();
    graph_constant(&g, "row", F32, 3, (const int64_t[]){1, 1, 32}, row);
    product(&g, "x", "o", "h");
    graph_node(&g, "", "Add", "h row", "sum", NULL);
    graph_node(&g, "", "Add", "sum r", "y", NULL);
    finish(&g);
    assert_steps(&g, false, "com.microsoft.MatMulNBits(h) Add(sum) Add(y)");
}

static void test_a_constant_for_each_column_is_a_bias(void **state) {
    (void)state;
    pb g = start();
    product(&g, "x", "o", "h");
    graph_node(&g, "", "Add", "gain h", "sum", NULL);
    graph_node(&g, "", "Neg", "r", "minus", NULL);
    graph_node(&g, "", "Sub", "sum minus", "y", NULL);
    finish(&g);
    assert_steps(&g, false, "com.microsoft.MatMulNBits(h + sum) Neg(minus) Sub(y)");
}

static void test_an_addition_is_taken_in(void **state) {
    (void)state;
    pb g = start();
    product(&g, "x", "o", "h");
    graph_node(&g, "", "Neg", "r", "minus", NULL);
    graph_node(&g, "", "Add", "minus h", "y", NULL);
    finish(&g);
    assert_steps(&g, false, "Neg(minus) dibit.FusedMatMulNBits(h + y)");
}

static void test_a_norm_with_another_reader_stays(void **state) {
    (void)state;
    pb g = start();
    graph_node(&g, "", "SimplifiedLayerNormalization", "x gain", "normed", NULL);
    product(&g, "normed", "o", "h");
    graph_node(&g, "", "Mul", "h normed", "scaled", NULL);
    graph_node(&g, "", "Add", "scaled r", "y", NULL);
    finish(&g);
    assert_steps(&g, false,
                 "SimplifiedLayerNormalization(normed) com.microsoft.MatMulNBits(h) Mul(scaled) "
                 "Add(y)");
}

/* Sigmoid(g) * u is no SiLU, and the gate's own product goes on to somebody else. */
static void test_gates_of_another_form_stay(void **state) {
    (void)state;
    pb g = start();
    product(&g, "x", "gate", "gated");
    product(&g, "x", "up", "upped");
    graph_node(&g, "", "Sigmoid", "gated", "sigmoid", NULL);
    graph_node(&g, "", "Mul", "sigmoid upped", "wide", NULL);
    graph_node(&g, "", "Sub", "wide r", "y", NULL);
    finish(&g);
    assert_steps(&g, false,
                 "com.microsoft.MatMulNBits(gated) com.microsoft.MatMulNBits(upped) "
                 "Sigmoid(sigmoid) Mul(wide) Sub(y)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_layer_is_four_steps),
        cmocka_unit_test(test_without_fusion_all_nodes_are_steps),
        cmocka_unit_test(test_a_product_with_other_readers_stays),
        cmocka_unit_test(test_a_residual_that_broadcasts_stays_outside),
        cmocka_unit_test(test_a_constant_for_each_column_is_a_bias),
        cmocka_unit_test(test_an_addition_is_taken_in),
        cmocka_unit_test(test_a_norm_with_another_reader_stays),
        cmocka_unit_test(test_gates_of_another_form_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Rewrites for every device: weights of DequantizeLinear as MatMulNBits, RMS norms from their parts. Each model
 * runs as it is written and rewritten, and says the same. */
#include <math.h>

#include "dbt_test.h"

#include "model_writer.h"

static const dibit_type F32 = DIBIT_TYPE_FLOAT, F16 = DIBIT_TYPE_FLOAT16;

enum { ROWS = 3, MOST = 8192, MOST_BYTES = 1 << 17 };

/* The ops of a session's steps, but for conversions. */
static void steps_of(dibit_session *session, char *text, size_t size) {
    dibit_step_info step;
    text[0] = 0;
    for (uint32_t i = 0; dibit_session_step(session, i, &step) == DIBIT_OK; i++) {
        if (strncmp(step.op, "dibit.", 6) == 0) continue;
        const size_t n = strlen(text);
        snprintf(text + n, size - n, "%s%s", n ? " " : "", step.op);
    }
}

/* g has an input x [b, K] and an output y, and is used up. Either way the same, within what roundings of sums of K
 * explain; rewritten its steps are those. */
static void expect(pb *g, int64_t K, const char *want_steps, float tolerance) {
    pb bytes = model_of(g, NULL);
    dibit_error error;
    dibit_model *model = NULL;
    dibit_device *cpu = NULL;
    /* From a file constants of 64 KB and more are read when a session loads them. */
    static const char path[] = "test_rewrites.onnx";
    FILE *const file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes.data, 1, bytes.n, file), bytes.n);
    assert_int_equal(fclose(file), 0);
    const dibit_model_desc desc = {.path = path};
    if (dibit_model_load(&desc, &model, &error)) fail_msg("%s", error.text);
    assert_int_equal(dibit_device_create(&(dibit_device_desc){.n_threads = 1}, &cpu, &error),
                     DIBIT_OK);
    float x[MOST], y[2][MOST];
    int64_t count = 0;
    for (int64_t i = 0; i < ROWS * K; i++) x[i] = (float)(i * 37 % 101) / 50.0f - 1;
    for (int i = 0; i < 2; i++) {
        dibit_session *session = NULL;
        const dibit_session_desc options = {.device = cpu, .no_fusion = i == 0};
        if (dibit_session_create(model, &options, &session, &error)) fail_msg("%s", error.text);
        char steps[512];
        steps_of(session, steps, sizeof steps);
        if (i == 1) assert_string_equal(steps, want_steps);
        const dibit_tensor in = {"x", F32, 2, {ROWS, K}, x, 0};
        dibit_tensor out = {.name = "y"};
        const dibit_run run = {.inputs = &in, .n_inputs = 1, .outputs = &out, .n_outputs = 1};
        if (dibit_session_run(session, &run, &error)) fail_msg("%s", error.text);
        count = 1;
        for (int32_t d = 0; d < out.rank; d++) count *= out.dims[d];
        assert_true(count <= MOST && out.type == F32);
        memcpy(y[i], out.data, (size_t)count * sizeof(float));
        dibit_session_destroy(&session);
    }
    float most = 0;
    for (int64_t i = 0; i < count; i++) most = fmaxf(most, fabsf(y[0][i]));
    assert_true(most > 0.01f);
    for (int64_t i = 0; i < count; i++) {
        if (fabsf(y[1][i] - y[0][i]) <= tolerance * most) continue;
        fail_msg("%s: y[%d] is %g, expected %g", want_steps, (int)i, (double)y[1][i],
                 (double)y[0][i]);
    }
    dibit_device_destroy(&cpu);
    dibit_model_destroy(&model);
    remove(path);
    pb_free(&bytes);
}

/* ---- DequantizeLinear ---- */

typedef enum form { MATMUL, TRANSPOSED, GEMM, GEMM_TRANSPOSED } form;

typedef struct quantized {
    dibit_type type;
    form form;
    bool zero_points;
    int64_t K, N, block;
} quantized;

static void matrix(pb *g, const char *name, const quantized *q, dibit_type type, int64_t k) {
    static uint8_t bytes[MOST_BYTES];
    uint64_t seed = (uint64_t)k + (uint64_t)q->type;
    const bool by_n = q->form == TRANSPOSED || q->form == GEMM_TRANSPOSED;
    for (int i = 0; i < MOST_BYTES; i++) bytes[i] = (uint8_t)dbt_test_random(&seed);
    static float scales[MOST];
    for (int i = 0; i < MOST; i++) scales[i] = dbt_test_uniform(&seed, -0.2f, 0.3f);
    graph_constant(g, name, type, 2, (const int64_t[]){by_n ? q->N : k, by_n ? k : q->N},
                   type == F32 ? (const void *)scales : bytes);
}

static void test_weights(const quantized *q, const char *want) {
    static const float bias[64] = {1, -2, 3};
    const int64_t k_blocks = (q->K + q->block - 1) / q->block;
    const bool by_n = q->form == TRANSPOSED || q->form == GEMM_TRANSPOSED;
    pb g = {0}, attrs = {0};
    char dims[32];
    snprintf(dims, sizeof dims, "b %d", (int)q->K);
    graph_input(&g, "x", F32, dims);
    matrix(&g, "w", q, q->type, q->K);
    matrix(&g, "s", q, F32, k_blocks);
    if (q->zero_points) matrix(&g, "z", q, q->type, k_blocks);
    attr_int(&attrs, "axis", by_n ? -1 : 0);
    attr_int(&attrs, "block_size", q->block);
    graph_node(&g, "", "DequantizeLinear", q->zero_points ? "w s z" : "w s", "d", &attrs);
    if (q->form == TRANSPOSED) graph_node(&g, "", "Transpose", "d", "t", NULL);
    if (q->form <= TRANSPOSED) {
        graph_node(&g, "", "MatMul", q->form == TRANSPOSED ? "x t" : "x d", "y", NULL);
    } else {
        pb gemm = {0};
        if (by_n) attr_int(&gemm, "transB", 1);
        graph_constant(&g, "bias", F32, 1, &q->N, bias);
        graph_node(&g, "", "Gemm", "x d bias", "y", &gemm);
    }
    snprintf(dims, sizeof dims, "b %d", (int)q->N);
    graph_output(&g, "y", F32, dims);
    expect(&g, q->K, want, 1e-5f);
}

static void test_dequantized_weights(void **state) {
    (void)state;
    static const dibit_type types[] = {DIBIT_TYPE_INT2,  DIBIT_TYPE_UINT2, DIBIT_TYPE_INT4,
                                       DIBIT_TYPE_UINT4, DIBIT_TYPE_INT8,  DIBIT_TYPE_UINT8};
    for (int i = 0; i < 6 * 4 * 2; i++) {
        quantized q = {.type = types[i % 6],
                       .form = (form)(i / 6 % 4),
                       .zero_points = i / 24,
                       .K = 96,
                       .N = 20,
                       .block = 32};
        test_weights(&q, "com.microsoft.MatMulNBits");
        q.K =
            76; /* the last block is a part of one; rows of packed zero points end within a byte */
        q.block = 16;
        test_weights(&q, "com.microsoft.MatMulNBits");
    }
}

static void test_large_weights(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const quantized q = {.type = i & 1 ? DIBIT_TYPE_UINT4 : DIBIT_TYPE_INT4,
                             .form = i & 2 ? TRANSPOSED : MATMUL,
                             .zero_points = true,
                             .K = 1024,
                             .N = 256,
                             .block = 32};
        test_weights(&q, "com.microsoft.MatMulNBits");
    }
}

static void test_weights_of_another_kind_stay(void **state) {
    (void)state;
    test_weights(&(quantized){DIBIT_TYPE_INT4, MATMUL, true, 64, 20, 8}, "DequantizeLinear MatMul");
    test_weights(&(quantized){DIBIT_TYPE_INT16, MATMUL, true, 64, 20, 32},
                 "DequantizeLinear MatMul");
    static const uint8_t w[64 * 8] = {1, 2, 3};
    static const float s[4 * 16] = {1, 2, 3};
    pb g = {0}, attrs = {0};
    graph_input(&g, "x", F32, "b 64");
    graph_constant(&g, "w", DIBIT_TYPE_UINT4, 2, (const int64_t[]){64, 16}, w);
    graph_constant(&g, "s", F32, 2, (const int64_t[]){4, 16}, s);
    attr_int(&attrs, "axis", 0);
    attr_int(&attrs, "block_size", 16);
    graph_node(&g, "", "DequantizeLinear", "w s", "d", &attrs);
    graph_node(&g, "", "MatMul", "x d", "h", NULL);
    graph_node(&g, "", "ReduceSum", "d", "sum", NULL);
    graph_node(&g, "", "Add", "h sum", "y", NULL);
    graph_output(&g, "y", F32, "b 16");
    expect(&g, 64, "DequantizeLinear MatMul ReduceSum Add", 1e-5f);
}

/* ---- RMS norms ---- */

enum { WIDTH = 48 };

typedef enum quotient { DIV, RECIPROCAL, ONE_DIV, POW } quotient;

/* y = norm(x) * gain, in its parts. */
static void norm_model(pb *g, quotient how, bool squares, bool halves, const char *axes) {
    static const float two = 2, one = 1, minus_half = -0.5f, epsilon = 1e-3f;
    static const uint16_t half_gain[WIDTH] = {0x3c00, 0x4000, 0xb800, 0x3800};
    static float gain[WIDTH];
    for (int i = 0; i < WIDTH; i++) gain[i] = 0.25f * (float)(i % 9) - 1;
    *g = (pb){0};
    graph_input(g, "x", F32, "b 48");
    graph_constant(g, "two", F32, 0, NULL, &two);
    graph_constant(g, "one", F32, 0, NULL, &one);
    graph_constant(g, "minus_half", F32, 0, NULL, &minus_half);
    graph_constant(g, "epsilon", F32, 0, NULL, &epsilon);
    graph_constant(g, "last", DIBIT_TYPE_INT64, 1, (const int64_t[]){1}, (const int64_t[]){-1});
    graph_constant(g, "first", DIBIT_TYPE_INT64, 1, (const int64_t[]){1}, (const int64_t[]){0});
    graph_constant(g, "gain", halves ? F16 : F32, 1, (const int64_t[]){WIDTH},
                   halves ? (const void *)half_gain : gain);
    const char *x = "x";
    pb cast = {0}, back = {0}, out = {0};
    if (halves) { /* x as a model of 16-bit floats has it, then in float again */
        attr_int(&cast, "to", F16);
        graph_node(g, "", "Cast", "x", "x16", &cast);
        attr_int(&back, "to", F32);
        graph_node(g, "", "Cast", "x16", "x32", &back);
        x = "x32";
    }
    char inputs[64];
    snprintf(inputs, sizeof inputs, "%s %s", x, squares ? x : "two");
    graph_node(g, "", squares ? "Mul" : "Pow", inputs, "square", NULL);
    snprintf(inputs, sizeof inputs, "square %s", axes);
    graph_node(g, "", "ReduceMean", inputs, "mean", NULL);
    graph_node(g, "", "Add", squares ? "epsilon mean" : "mean epsilon", "sum", NULL);
    if (how != POW) graph_node(g, "", "Sqrt", "sum", "root", NULL);
    if (how == RECIPROCAL) graph_node(g, "", "Reciprocal", "root", "inverse", NULL);
    if (how == ONE_DIV) graph_node(g, "", "Div", "one root", "inverse", NULL);
    if (how == POW) graph_node(g, "", "Pow", "sum minus_half", "inverse", NULL);
    snprintf(inputs, sizeof inputs, "%s %s", x, how == DIV ? "root" : "inverse");
    graph_node(g, "", how == DIV ? "Div" : "Mul", inputs, "normed", NULL);
    if (!halves) {
        graph_node(g, "", "Mul", "gain normed", "y", NULL);
    } else {
        attr_int(&out, "to", F16);
        graph_node(g, "", "Cast", "normed", "normed16", &out);
        graph_node(g, "", "Mul", "normed16 gain", "y16", NULL);
        pb last = {0};
        attr_int(&last, "to", F32);
        graph_node(g, "", "Cast", "y16", "y", &last);
    }
    graph_output(g, "y", F32, "b 48");
}

static void test_norms_in_parts(void **state) {
    (void)state;
    for (int i = 0; i < 16; i++) {
        pb g;
        norm_model(&g, (quotient)(i % 4), i & 4, i & 8, "last");
        expect(&g, WIDTH,
               i & 8 ? "Cast SimplifiedLayerNormalization Cast" : "SimplifiedLayerNormalization",
               i & 8 ? 2e-3f : 2e-6f);
    }
}

static void test_means_of_columns_are_no_norm(void **state) {
    (void)state;
    pb g;
    norm_model(&g, DIV, false, false, "first");
    expect(&g, WIDTH, "Pow ReduceMean Add Sqrt Div Mul", 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequantized_weights),          cmocka_unit_test(test_large_weights),
        cmocka_unit_test(test_weights_of_another_kind_stay), cmocka_unit_test(test_norms_in_parts),
        cmocka_unit_test(test_means_of_columns_are_no_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The proof of MatMulNBits' kernels before a session uses them, with shaders that are wrong: what is wrong is dropped,
 * alone or with what is fused into it, and a session's answer stays right.
 *
 * DIBIT_FULL=1 proves every kernel. On the null device, which computes nothing, all is right. */
#include "dbt_test.h"

#include "model.h"
#include "model_writer.h"
#include "ops/matmul_nbits/test_nbits_gpu_case.h"
#include "test_device.h"

#define COUNT(a) (int)(sizeof(a) / sizeof *(a))

static dibit_error error;

static void ok(dibit_status status) { nbits_gpu_ok(status, &error); }

static bool is_full(void) {
    const char *const full = getenv("DIBIT_FULL");
    return full && strcmp(full, "1") == 0;
}

/* ---- Shaders that are wrong ---- */

/* The embedded shaders with one text in a file of them replaced. */
static dbt_shader_library mutant(const char *file, const char *from, const char *to) {
    dbt_shader_file *const files = malloc(dbt_shaders.n * sizeof *files);
    assert_non_null(files);
    memcpy(files, dbt_shaders.files, dbt_shaders.n * sizeof *files);
    for (size_t i = 0; i < dbt_shaders.n; i++) {
        if (strcmp(files[i].name, file) != 0) continue;
        char *const text = calloc(1, files[i].bytes + strlen(to) + 1);
        assert_non_null(text);
        memcpy(text, files[i].text, files[i].bytes);
        char *const at = strstr(text, from);
        if (!at) fail_msg("%s has no '%s'", file, from);
        memmove(at + strlen(to), at + strlen(from), strlen(at + strlen(from)) + 1);
        memcpy(at, to, strlen(to));
        files[i].text = text;
        files[i].bytes = strlen(text);
    }
    return (dbt_shader_library){files, dbt_shaders.n};
}

static void mutant_free(const dbt_shader_library *library) {
    for (size_t i = 0; i < library->n; i++) {
        if (library->files[i].text != dbt_shaders.files[i].text)
            free((void *)(uintptr_t)library->files[i].text);
    }
    free((void *)(uintptr_t)library->files);
}

/* ---- Proofs by themselves ---- */

static uint64_t prove(dbt_gpu *gpu, const dbt_nbits_gpu_problem *problem, uint64_t kernels) {
    dbt_nbits_gpu_proof proof = {0};
    uint64_t proved;
    dibit_status status;
    do status = dbt_nbits_gpu_prove(gpu, problem, 1, kernels, &proof, &proved, &error);
    while (status == DIBIT_PENDING);
    ok(status);
    return proved;
}

/* What is fused into a problem, whose buffers count only as there or not. */
typedef enum fused { PLAIN, NORM, ADD, SILU, GELU, NORM_ADD, GATE, NORM_GATE, N_FUSED } fused;

static dbt_nbits_gpu_problem two_bits(bool int8, fused f) {
    static int something;
    dbt_hal_buffer *const some = (dbt_hal_buffer *)(void *)&something;
    dbt_nbits_gpu_problem problem = nbits_gpu_two_bits(int8);
    static const dbt_nbits_epilogue epilogues[N_FUSED] = {
        [ADD] = DBT_NBITS_EPILOGUE_ADD,   [NORM_ADD] = DBT_NBITS_EPILOGUE_ADD,
        [SILU] = DBT_NBITS_EPILOGUE_SILU, [GELU] = DBT_NBITS_EPILOGUE_GELU_TANH,
        [GATE] = DBT_NBITS_EPILOGUE_SILU, [NORM_GATE] = DBT_NBITS_EPILOGUE_GELU_TANH};
    problem.epilogue = epilogues[f];
    problem.second_row = f == GATE || f == NORM_GATE ? DBT_NBITS_GPU_ROW_STEP : 0;
    if (problem.epilogue != DBT_NBITS_EPILOGUE_NONE && !problem.second_row) problem.other = some;
    if (f == NORM || f == NORM_ADD || f == NORM_GATE) problem.gain = some;
    return problem;
}

/* Kernels of one sort; the first alone unless all is asked for. Those for software adapters are made of parts of
 * these, and sessions use them below. */
static uint64_t fitting(dbt_gpu *gpu, const dbt_nbits_gpu_problem *problem, bool tiles) {
    uint64_t mask = 0;
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[i];
        if (kernel->lanes == 1 || kernel->tile != tiles ||
            !dbt_nbits_gpu_fits(kernel, problem, dbt_gpu_hal(gpu)))
            continue;
        mask |= (uint64_t)1 << i;
        if (!is_full()) break;
    }
    return mask;
}

static const struct {
    const char *file, *from, *to;
    bool int8, tiles; /* which are wrong */
    fused f;
} mutants[] = {
    {"nbits_unpack.inc.wgsl", "(0u, BITS, 2u * BITS", "(0u, 2u * BITS, BITS", false, true, PLAIN},
    {"nbits_unpack.inc.wgsl", "let shift = 2u * (q % 4u)", "let shift = 2u * (q % 3u)", true, false,
     PLAIN},
    {"nbits_zero_point.inc.wgsl", "let shift = byte % 4u * 8u + g * BITS % 8u;",
     "let shift = byte % 4u * 8u;", false, false, PLAIN},
    {"nbits_int8.inc.wgsl", "round(load_a(m, k) * inverse)", "floor(load_a(m, k) * inverse)", true,
     true, PLAIN},
    {"nbits_int8.inc.wgsl", "round(load_a(m, k) * inverse)", "floor(load_a(m, k) * inverse)", true,
     false, NORM},
    {"nbits_norm.inc.wgsl", "return x * inverse_roots[m % M_ROWS / 4u][m % M_ROWS % 4u] *",
     "return x *", false, false, NORM},
    {"nbits_norm.inc.wgsl", "[m % M_ROWS % 4u] * load_gain(k)", "[m % M_ROWS % 4u]", true, false,
     NORM_ADD},
    {"nbits_norm.inc.wgsl", "square.x + square.y + square.z", "square.x + square.y", false, false,
     NORM},
    {"nbits_y.inc.wgsl", "value += other[at]", "value -= other[at]", false, true, ADD},
    {"nbits_y.inc.wgsl", "value += other[at]", "value += other[at + 1u]", true, false, NORM_ADD},
    {"nbits_y.inc.wgsl", "return h * math_sigmoid(h)", "return math_sigmoid(h)", false, false,
     SILU},
    {"nbits_y.inc.wgsl", "math_fast_gelu(h)", "math_gelu(h)", true, true, GELU},
    {"nbits_y.inc.wgsl", "var h = first", "var h = second", false, false, GATE},
    {"nbits_y.inc.wgsl", "return h * math_sigmoid(h)", "return math_sigmoid(h)", true, true, GATE},
    {"nbits_y.inc.wgsl", "value * gate(h)", "gate(h)", true, false, NORM_GATE},
    {"nbits_y.inc.wgsl", "math_fast_gelu(h)", "math_gelu(h)", false, true, NORM_GATE},
};

static void test_what_is_wrong_is_seen(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(mutants); i++) {
        const dbt_nbits_gpu_problem problem = two_bits(mutants[i].int8, mutants[i].f);
        const dbt_shader_library library = mutant(mutants[i].file, mutants[i].from, mutants[i].to);
        dbt_gpu *gpu = nbits_gpu_open(&library);
        const uint64_t kernels = fitting(gpu, &problem, mutants[i].tiles);
        const bool seen = prove(gpu, &problem, kernels) == 0;
        const bool counted = dbt_gpu_dropped_kernels(gpu) > 0;
        const bool again = prove(gpu, &problem, kernels) == 0;
        dbt_gpu_destroy(&gpu);
        mutant_free(&library);
        if (!test_device_computes()) continue;
        if (!seen || !counted || !again) fail_msg("nothing saw '%s'", mutants[i].to);
    }
}

static void test_all_forms_of_good_kernels_are_proved_once(void **state) {
    (void)state;
    dbt_gpu *gpu = nbits_gpu_open(NULL);
    for (int i = 0; i < 4 * N_FUSED; i++) {
        const dbt_nbits_gpu_problem problem = two_bits(i & 1, (fused)(i / 4));
        const uint64_t kernels = fitting(gpu, &problem, i & 2);
        if (prove(gpu, &problem, kernels) != kernels) fail_msg("form %d is wrong", i);
        const uint64_t before = dbt_gpu_hal(gpu)->counters.dispatches;
        assert_int_equal(prove(gpu, &problem, kernels), kernels);
        assert_int_equal(dbt_gpu_hal(gpu)->counters.dispatches, before);
    }
    assert_int_equal(dbt_gpu_dropped_kernels(gpu), 0);
    dbt_gpu_destroy(&gpu);
}

/* Those who ask before anybody asks again share a submission; one of them may leave. */
static void test_what_is_asked_for_together_is_one_submission(void **state) {
    (void)state;
    enum { N = 4 };
    dbt_gpu *gpu = nbits_gpu_open(NULL);
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    dbt_nbits_gpu_proof proofs[N] = {0};
    dbt_nbits_gpu_problem problems[N];
    uint64_t kernels[N], proved;
    for (int i = 0; i < N; i++) {
        problems[i] = two_bits(i & 1, i & 2 ? NORM : PLAIN);
        kernels[i] = fitting(gpu, &problems[i], false);
        assert_int_equal(
            dbt_nbits_gpu_prove(gpu, &problems[i], 1, kernels[i], &proofs[i], &proved, &error),
            DIBIT_PENDING);
        assert_int_equal(hal->counters.dispatches, 0);
    }
    dbt_nbits_gpu_proof_end(&proofs[0], gpu);
    const uint64_t before = hal->counters.submits;
    dibit_status status;
    do status = dbt_nbits_gpu_prove(gpu, &problems[1], 1, kernels[1], &proofs[1], &proved, &error);
    while (status == DIBIT_PENDING);
    ok(status);
    assert_int_equal(hal->counters.submits - before, 1);
    assert_int_equal(hal->counters.reads, 1);
    for (int i = 0; i < N; i++) {
        ok(dbt_nbits_gpu_prove(gpu, &problems[i], 1, kernels[i], &proofs[i], &proved, &error));
        assert_int_equal(proved, kernels[i]);
    }
    assert_int_equal(hal->counters.reads, 1);
    /* The last to leave takes the batch along. */
    problems[0] = two_bits(false, GELU);
    for (int under_way = 0; under_way < 2; under_way++) {
        for (int times = 0; times <= under_way; times++)
            (void)dbt_nbits_gpu_prove(gpu, problems, 1, kernels[0], proofs, &proved, &error);
        dbt_nbits_gpu_proof_end(proofs, gpu);
    }
    dbt_gpu_destroy(&gpu);
}

/* ---- Sessions ---- */

enum { WIDTH = 64, ROWS = 7, MOST_Y = 2 * ROWS * WIDTH };
static const dibit_type F32 = DIBIT_TYPE_FLOAT;

static void constant(pb *g, uint64_t *seed, const char *name, const char *kind, dibit_type type) {
    float floats[WIDTH * 2];
    uint8_t bytes[WIDTH * WIDTH / 4];
    char text[64];
    snprintf(text, sizeof text, "%s_%s", name, kind);
    for (int i = 0; i < COUNT(floats); i++) floats[i] = dbt_test_uniform(seed, -0.1f, 0.1f);
    for (int i = 0; i < COUNT(bytes); i++) bytes[i] = (uint8_t)dbt_test_random(seed);
    if (type == F32) {
        graph_constant(g, text, type, 2, (const int64_t[]){WIDTH, 2}, floats);
    } else {
        graph_constant(g, text, type, 3, (const int64_t[]){WIDTH, 2, 8}, bytes);
    }
}

static void product(pb *g, uint64_t *seed, const char *x, const char *name, const char *y) {
    constant(g, seed, name, "b", DIBIT_TYPE_UINT8);
    constant(g, seed, name, "s", F32);
    char inputs[128];
    snprintf(inputs, sizeof inputs, "%s %s_b %s_s", x, name, name);
    pb attrs = {0};
    attr_int(&attrs, "K", WIDTH);
    attr_int(&attrs, "N", WIDTH);
    attr_int(&attrs, "bits", 2);
    attr_int(&attrs, "block_size", 32);
    graph_node(g, "com.microsoft", "MatMulNBits", inputs, y, &attrs);
}

/* The second half of a layer of a Llama, and what comes next: every form of the fused op. */
static pb layer(void) {
    pb g = {0};
    uint64_t seed = 7;
    float gain[WIDTH];
    for (int i = 0; i < WIDTH; i++) gain[i] = dbt_test_uniform(&seed, 0.5f, 1.5f);
    graph_input(&g, "x", F32, "b 7 64");
    graph_constant(&g, "gain", F32, 1, (const int64_t[]){WIDTH}, gain);
    product(&g, &seed, "x", "o", "attended");
    graph_node(&g, "com.microsoft", "SkipSimplifiedLayerNormalization", "x attended gain",
               "normed - - sum", NULL);
    product(&g, &seed, "normed", "gate", "gated");
    product(&g, &seed, "normed", "up", "upped");
    graph_node(&g, "", "Sigmoid", "gated", "sigmoid", NULL);
    graph_node(&g, "", "Mul", "gated sigmoid", "silu", NULL);
    graph_node(&g, "", "Mul", "silu upped", "wide", NULL);
    product(&g, &seed, "wide", "down", "mlp");
    graph_node(&g, "com.microsoft", "SkipSimplifiedLayerNormalization", "sum mlp gain", "next",
               NULL);
    product(&g, &seed, "next", "q", "y");
    graph_output(&g, "y", F32, "b 7 64");
    return model_of(&g, NULL);
}

typedef struct outcome {
    uint32_t n_fused, dropped;
    float y[2][MOST_Y]; /* of batches of 1 and of 2: [batch, ROWS, WIDTH] */
} outcome;

static void run_batch(dibit_session *session, int64_t batch, float *out) {
    float x[MOST_Y];
    uint64_t seed = 99;
    for (int i = 0; i < MOST_Y; i++) x[i] = dbt_test_uniform(&seed, -1, 1);
    const dibit_tensor in = {"x", F32, 3, {batch, ROWS, WIDTH}, x, 0};
    dibit_tensor y = {.name = "y"};
    const dibit_run run = {.inputs = &in, .n_inputs = 1, .outputs = &y, .n_outputs = 1};
    ok(dibit_session_run(session, &run, &error));
    memcpy(out, y.data, (size_t)(batch * ROWS * WIDTH) * sizeof *out);
}

/* What a session on a device with these shaders says: for 7 rows, by matvecs, and for 14, on a GPU by tiles. */
static void run_layer(const dbt_shader_library *shaders, bool no_fusion, dibit_activations kind,
                      outcome *out) {
    pb bytes = layer();
    dibit_model *model = NULL;
    dibit_device *device = NULL;
    dibit_session *session = NULL;
    const dibit_device_desc desc = {.kind = test_device_computes() ? DIBIT_DEVICE_WEBGPU
                                                                   : DIBIT_DEVICE_NULL,
                                    .webgpu_library = getenv("DIBIT_WEBGPU_LIB"),
                                    .n_threads = 1};
    ok(dibit_model_load(&(dibit_model_desc){.data = bytes.data, .data_bytes = bytes.n}, &model,
                        &error));
    ok(dibit_device_create(&desc, &device, &error));
    if (shaders) dbt_gpu_use_shaders(device->gpu, shaders);
    const dibit_session_desc options = {
        .device = device, .no_fusion = no_fusion, .activations = kind};
    ok(dibit_session_create(model, &options, &session, &error));
    *out = (outcome){.dropped = dbt_gpu_dropped_kernels(device->gpu)};
    dibit_step_info step;
    for (uint32_t i = 0; dibit_session_step(session, i, &step) == DIBIT_OK; i++) {
        if (strcmp(step.op, "dibit.FusedMatMulNBits") == 0) out->n_fused++;
    }
    for (int64_t batch = 1; batch <= 2; batch++) run_batch(session, batch, out->y[batch - 1]);
    dibit_session_destroy(&session);
    dibit_device_destroy(&device);
    dibit_model_destroy(&model);
    pb_free(&bytes);
}

static bool is_software(void) {
    dbt_gpu *gpu = nbits_gpu_open(NULL);
    const bool software = dbt_gpu_hal(gpu)->features & DBT_HAL_SOFTWARE;
    dbt_gpu_destroy(&gpu);
    return software;
}

/* Without what is fused a session computes as one that was told not to fuse, to the bit. */
static void test_a_session_drops_fusion_that_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *file, *from, *to;
    } wrong[] = {
        {"nbits_norm.inc.wgsl", "square.x + square.y + square.z", "square.x + square.y"},
        {"nbits_y.inc.wgsl", "value += other[at]", "value -= other[at]"},
        {"nbits_y.inc.wgsl", "return h * math_sigmoid(h)", "return math_sigmoid(h)"},
        /* Does not compile. */
        {"nbits_y.inc.wgsl", "return h * math_sigmoid(h);", "return h * math_sigmoid(h)"},
    };
    outcome plain[2];
    run_layer(NULL, true, DIBIT_ACTIVATIONS_FLOAT, &plain[0]);
    run_layer(NULL, true, DIBIT_ACTIVATIONS_INT8, &plain[1]);
    for (int i = 0; i < COUNT(wrong); i++) {
        if (i == 0 && is_software()) continue; /* no norm is fused there */
        const dbt_shader_library library = mutant(wrong[i].file, wrong[i].from, wrong[i].to);
        outcome got;
        run_layer(&library, false, i % 2 ? DIBIT_ACTIVATIONS_INT8 : DIBIT_ACTIVATIONS_FLOAT, &got);
        mutant_free(&library);
        assert_int_equal(plain[i % 2].dropped, 0);
        assert_int_equal(plain[i % 2].n_fused, 0);
        if (!test_device_computes()) continue;
        assert_true(got.dropped > 0);
        assert_int_equal(got.n_fused, 0);
        if (memcmp(plain[i % 2].y, got.y, sizeof got.y) != 0)
            fail_msg("wrong with '%s'", wrong[i].to);
    }
}

/* Wrong matvecs give way to tiles, which take what is fused into them: 7 rows are then computed as 14 are. */
static void test_a_session_passes_over_a_wrong_kernel(void **state) {
    (void)state;
    const dbt_shader_library library =
        mutant("nbits_rows.inc.wgsl", "load_unit(n.x, unit), load_unit(n.y, unit)",
               "load_unit(n.y, unit), load_unit(n.x, unit)");
    outcome good, got;
    run_layer(NULL, false, DIBIT_ACTIVATIONS_FLOAT, &good);
    run_layer(&library, false, DIBIT_ACTIVATIONS_FLOAT, &got);
    mutant_free(&library);
    assert_int_equal(good.dropped, 0);
    assert_int_equal(good.n_fused, 4);
    assert_int_equal(got.n_fused, 4);
    if (!test_device_computes()) return;
    assert_true(got.dropped > 0);
    assert_memory_equal(got.y[0], got.y[1], ROWS * WIDTH * sizeof(float));
    if (!is_software()) {
        assert_memory_equal(got.y[1], good.y[1], sizeof got.y[1]);
        return;
    }
    /* There 14 rows are a matvec's too, which adds in another order: four products of 64 terms. */
    float most = 0;
    for (int i = 0; i < MOST_Y; i++) most = fmaxf(most, fabsf(good.y[1][i]));
    for (int i = 0; i < MOST_Y; i++)
        assert_true(fabsf(got.y[1][i] - good.y[1][i]) <= 4 * 64 * 0x1p-23f * most);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_wrong_is_seen),
        cmocka_unit_test(test_all_forms_of_good_kernels_are_proved_once),
        cmocka_unit_test(test_what_is_asked_for_together_is_one_submission),
        cmocka_unit_test(test_a_session_drops_fusion_that_is_wrong),
        cmocka_unit_test(test_a_session_passes_over_a_wrong_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

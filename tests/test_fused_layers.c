/* Whole layers on a device, fused and not, against the CPU, and on the CPU itself: a prompt, then tokens one by
 * one. */
#include "llama_model.h"
#include "test_device.h"

enum { N_LAYERS = 2, N_STEPS = 5 };

typedef struct engine {
    dibit_device *device;
    dibit_session *session;
    dibit_state *state;
} engine;

static void start(dibit_model *model, dibit_device_kind kind, uint32_t n_threads, bool no_fusion,
                  engine *out) {
    dibit_error error;
    const dibit_device_desc desc = {
        .kind = kind, .n_threads = n_threads, .webgpu_library = getenv("DIBIT_WEBGPU_LIB")};
    if (dibit_device_create(&desc, &out->device, &error)) fail_msg("%s", error.text);
    const dibit_session_desc options = {.device = out->device, .no_fusion = no_fusion};
    if (dibit_session_create(model, &options, &out->session, &error) ||
        dibit_state_create(out->session, NULL, &out->state, &error)) {
        fail_msg("%s", error.text);
    }
}

static void stop(engine *e) {
    dibit_state_destroy(&e->state);
    dibit_session_destroy(&e->session);
    dibit_device_destroy(&e->device);
}

/* Codes of int8 activations may fall to their neighbours on another device, and so on from layer to layer. */
static void compare(const char *name, const llama *like, const float *got, const float *want) {
    float most = 0;
    for (int i = 0; i < LLAMA_INNER; i++) most = fmaxf(most, fabsf(want[i]));
    const float allowed = (like->int8 ? 0.03f : 1e-4f) * most;
    assert_true(most > 0.1f);
    for (int i = 0; i < LLAMA_INNER; i++) {
        if (fabsf(got[i] - want[i]) <= allowed) continue;
        fail_msg("%s: y[%d] is %g, expected %g within %g", name, i, (double)got[i], (double)want[i],
                 (double)allowed);
    }
}

static void run_model(const llama *like, int64_t prompt) {
    static const char *const names[] = {"fused", "not fused"};
    pb bytes = llama_model_bytes(like, N_LAYERS);
    dibit_model *model = NULL;
    dibit_error error;
    const dibit_model_desc desc = {.data = bytes.data, .data_bytes = bytes.n};
    if (dibit_model_load(&desc, &model, &error)) fail_msg("%s", error.text);
    const dibit_device_kind kind = test_device_computes() ? DIBIT_DEVICE_WEBGPU : DIBIT_DEVICE_NULL;
    engine cpu, devices[2];
    start(model, DIBIT_DEVICE_CPU, 1, true, &cpu);
    for (int d = 0; d < 2; d++) start(model, kind, 1, d == 1, &devices[d]);
    for (int i = 0; i < N_STEPS; i++) {
        const int64_t n = i == 0 ? prompt : 1;
        float want[LLAMA_INNER];
        memcpy(want, llama_run(cpu.session, cpu.state, n), sizeof want);
        for (int d = 0; d < 2; d++) {
            const float *const got = llama_run(devices[d].session, devices[d].state, n);
            if (test_device_computes()) compare(names[d], like, got, want);
        }
    }
    for (int d = 0; d < 2; d++) stop(&devices[d]);
    stop(&cpu);
    dibit_model_destroy(&model);
    pb_free(&bytes);
}

static uint32_t count_fused(const dibit_session *session) {
    dibit_step_info step;
    uint32_t n = 0;
    for (uint32_t i = 0; dibit_session_step(session, i, &step) == DIBIT_OK; i++) {
        n += strcmp(step.op, "dibit.FusedMatMulNBits") == 0;
    }
    return n;
}

/* The CPU's fused steps give the same bits as their nodes one by one, for any number of threads. */
static void test_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const llama like = {.separate = i & 1, .int8 = i & 2, .kv_type = DIBIT_TYPE_FLOAT16};
        pb bytes = llama_model_bytes(&like, N_LAYERS);
        dibit_model *model = NULL;
        dibit_error error;
        const dibit_model_desc desc = {.data = bytes.data, .data_bytes = bytes.n};
        if (dibit_model_load(&desc, &model, &error)) fail_msg("%s", error.text);
        engine plain, fused[2];
        start(model, DIBIT_DEVICE_CPU, 1, true, &plain);
        assert_int_equal(count_fused(plain.session), 0);
        for (uint32_t e = 0; e < 2; e++) {
            start(model, DIBIT_DEVICE_CPU, 1 + 2 * e, false, &fused[e]);
            assert_int_equal(count_fused(fused[e].session), N_LAYERS);
        }
        for (int s = 0; s < N_STEPS; s++) {
            const int64_t n = s == 0 ? 300 : 1; /* enough for several tasks */
            float want[LLAMA_INNER];
            memcpy(want, llama_run(plain.session, plain.state, n), sizeof want);
            for (int e = 0; e < 2; e++) {
                const float *const got = llama_run(fused[e].session, fused[e].state, n);
                assert_memory_equal(got, want, sizeof want);
            }
        }
        stop(&plain);
        for (int e = 0; e < 2; e++) stop(&fused[e]);
        dibit_model_destroy(&model);
        pb_free(&bytes);
    }
}

static void test_layers(void **state) {
    (void)state;
    for (int i = 0; i < 16; i++) {
        const llama like = {.separate = i & 1,
                            .biased = i & 2,
                            .int8 = i & 4,
                            .kv_type = i & 8 ? DIBIT_TYPE_FLOAT16 : DIBIT_TYPE_FLOAT};
        run_model(&like, i % 3 == 0 ? 20 : 3);
    }
}

static void test_dequantized_weights(void **state) {
    (void)state;
    run_model(&(llama){.separate = true, .dequantized = true, .kv_type = DIBIT_TYPE_FLOAT}, 3);
}

static void test_norms_of_heads(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const llama like = {.head_norms = true,
                            .separate = i & 1,
                            .kv_type = i & 2 ? DIBIT_TYPE_FLOAT16 : DIBIT_TYPE_FLOAT};
        run_model(&like, i == 1 ? 300 : 3);
    }
}

static void test_a_split_cache(void **state) {
    (void)state;
    run_model(&(llama){.separate = true, .kv_type = DIBIT_TYPE_FLOAT16}, 300);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_cpu),        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_norms_of_heads), cmocka_unit_test(test_dequantized_weights),
        cmocka_unit_test(test_a_split_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

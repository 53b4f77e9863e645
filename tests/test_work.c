/* What a GPU was given to do and how long it took: dibit_device_get_work, and the times of a session's steps. */
#include "dbt_test.h"

#include "model.h"
#include "test_device.h"

#define LLAMA DBT_SOURCE_DIR "/tests/data/cases/llama.q2/model.onnx"

typedef struct fixture {
    dibit_model *model;
    dibit_device *device;
    dibit_session *session;
    dibit_error error;
    bool timed; /* the device has timestamps */
} fixture;

static void start_on(fixture *f, dibit_device_kind kind, dibit_timing timing) {
    *f = (fixture){0};
    const dibit_device_desc device = {
        .kind = kind, .webgpu_library = getenv("DIBIT_WEBGPU_LIB"), .timing = timing};
    assert_int_equal(dibit_model_load(&(dibit_model_desc){.path = LLAMA}, &f->model, &f->error), 0);
    assert_int_equal(dibit_device_create(&device, &f->device, &f->error), DIBIT_OK);
    if (f->device->gpu)
        f->timed = (dbt_gpu_hal(f->device->gpu)->features & DBT_HAL_TIMESTAMPS) != 0;
    const dibit_session_desc desc = {.device = f->device, .profile = true};
    assert_int_equal(dibit_session_create(f->model, &desc, &f->session, &f->error), DIBIT_OK);
}

static void start(fixture *f, dibit_timing timing) {
    start_on(f, test_device_computes() ? DIBIT_DEVICE_WEBGPU : DIBIT_DEVICE_NULL, timing);
}

static void stop(fixture *f) {
    dibit_session_destroy(&f->session);
    assert_int_equal(dibit_device_dropped_kernels(f->device), 0);
    dibit_device_destroy(&f->device);
    dibit_model_destroy(&f->model);
}

static void run_rows(fixture *f, int64_t rows) {
    int64_t ids[4] = {1, 2, 3, 4}, mask[4] = {1, 1, 1, 1};
    dibit_state *state = NULL;
    assert_int_equal(dibit_state_create(f->session, NULL, &state, &f->error), DIBIT_OK);
    const dibit_tensor inputs[] = {
        {.name = "input_ids", .type = DIBIT_TYPE_INT64, .rank = 2, .dims = {1, rows}, .data = ids},
        {.name = "attention_mask",
         .type = DIBIT_TYPE_INT64,
         .rank = 2,
         .dims = {1, rows},
         .data = mask}};
    dibit_tensor logits = {.name = "logits"};
    const dibit_run what = {.inputs = inputs,
                            .n_inputs = 2,
                            .outputs = &logits,
                            .n_outputs = 1,
                            .states = &state,
                            .n_states = 1};
    if (dibit_session_run(f->session, &what, &f->error)) fail_msg("%s", f->error.text);
    dibit_state_destroy(&state);
}

static void run(fixture *f) { run_rows(f, 4); }

static dibit_device_work work(fixture *f) {
    dibit_device_work w;
    dibit_status status;
    do status = dibit_device_get_work(f->device, &w, &f->error);
    while (status == DIBIT_PENDING);
    assert_int_equal(status, DIBIT_OK);
    return w;
}

/* Over all steps. */
static dibit_step_info sum(const fixture *f) {
    dibit_step_info total = {0}, step;
    for (uint32_t i = 0; dibit_session_step(f->session, i, &step) == DIBIT_OK; i++) {
        total.runs += step.runs;
        total.dispatches += step.dispatches;
        total.device_seconds += step.device_seconds;
        if (step.dispatches == 0) assert_true(step.device_seconds == 0);
    }
    return total;
}

static void test_steps_share_the_devices_time(void **unused) {
    (void)unused;
    fixture f;
    start(&f, DIBIT_TIMING_DISPATCHES);
    for (int round = 0; round < 2; round++) {
        const dibit_device_work before = work(&f);
        dibit_session_profile_reset(f.session);
        for (int i = 0; i < 3; i++) run(&f);
        const dibit_device_work after = work(&f);
        const dibit_step_info steps = sum(&f);
        assert_int_equal(steps.dispatches, after.dispatches - before.dispatches);
        assert_in_range(steps.dispatches, 3 * 10, 3 * 100);
        assert_true(after.submits > before.submits);
        const double busy = after.busy_seconds - before.busy_seconds;
        assert_float_equal(steps.device_seconds, busy, 1e-8);
        assert_int_equal(busy > 0, f.timed);
    }
    stop(&f);
}

static void test_a_reset_forgets_what_is_under_way(void **unused) {
    (void)unused;
    fixture f;
    start(&f, DIBIT_TIMING_DISPATCHES);
    run(&f);
    dibit_session_profile_reset(f.session);
    const dibit_device_work all = work(&f);
    assert_int_equal(all.busy_seconds > 0, f.timed);
    assert_true(sum(&f).device_seconds == 0);
    run(&f);
    stop(&f); /* with times on their way */
}

static void test_passes_are_timed_as_a_whole(void **unused) {
    (void)unused;
    fixture f;
    start(&f, DIBIT_TIMING_PASSES);
    run(&f);
    const dibit_device_work once = work(&f), again = work(&f);
    assert_int_equal(once.busy_seconds > 0, f.timed);
    assert_int_equal(once.dispatches, again.dispatches); /* nothing was done in between */
    assert_true(once.busy_seconds == again.busy_seconds);
    assert_true(sum(&f).device_seconds == 0);
    stop(&f);
    start(&f, DIBIT_TIMING_NONE);
    run(&f);
    assert_true(work(&f).busy_seconds == 0);
    stop(&f);
}

/* Products and bytes of the steps whose op has `part` in its name, in a run of `rows` tokens. */
static uint64_t products_of(fixture *f, const char *part, int64_t rows, uint64_t *bytes) {
    uint64_t products = 0;
    dibit_step_info step;
    dibit_session_profile_reset(f->session);
    run_rows(f, rows);
    *bytes = 0;
    for (uint32_t i = 0; dibit_session_step(f->session, i, &step) == DIBIT_OK; i++) {
        if (!strstr(step.op, part)) continue;
        assert_int_equal(step.runs, 1);
        assert_true(step.bytes > 0);
        *bytes += step.bytes;
        products += step.int8_products + step.float_products;
    }
    return products;
}

static void test_a_cpus_steps_count_their_work(void **unused) {
    (void)unused;
    fixture f;
    uint64_t bytes, more;
    start_on(&f, DIBIT_DEVICE_CPU, DIBIT_TIMING_NONE);
    const uint64_t one = products_of(&f, "MatMulNBits", 1, &bytes);
    assert_true(one > 4000);
    assert_int_equal(products_of(&f, "MatMulNBits", 4, &more), 4 * one);
    assert_in_range(more, bytes + 1, 4 * bytes - 1); /* the weights are read once */
    const uint64_t attention = products_of(&f, "Attention", 1, &bytes);
    assert_true(attention > 0);
    assert_int_equal(products_of(&f, "Attention", 4, &bytes), (1 + 2 + 3 + 4) * attention);
    assert_int_equal(products_of(&f, "SimplifiedLayerNormalization", 4, &bytes), 0);
    stop(&f);
}

static void test_a_cpu_does_no_work(void **unused) {
    (void)unused;
    dibit_error error;
    dibit_device *device = NULL;
    dibit_device_work w = {.dispatches = 1};
    assert_int_equal(dibit_device_create(NULL, &device, &error), DIBIT_OK);
    assert_int_equal(dibit_device_get_work(device, &w, &error), DIBIT_OK);
    assert_int_equal(w.dispatches, 0);
    assert_int_equal(dibit_device_get_work(device, NULL, &error), DIBIT_BAD_ARGUMENT);
    dibit_device_destroy(&device);
    const dibit_device_desc wrong = {.timing = (dibit_timing)3};
    assert_int_equal(dibit_device_create(&wrong, &device, &error), DIBIT_BAD_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_share_the_devices_time),
        cmocka_unit_test(test_a_reset_forgets_what_is_under_way),
        cmocka_unit_test(test_passes_are_timed_as_a_whole),
        cmocka_unit_test(test_a_cpus_steps_count_their_work),
        cmocka_unit_test(test_a_cpu_does_no_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

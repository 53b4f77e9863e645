/* Placement: which nodes go to a device, what is copied between it and the CPU, and that a run answers
 * PENDING while the device is not done. The null device computes nothing: values are not looked at. */
#include "dbt_test.h"

#include "model_writer.h"

static const dibit_type F32 = DIBIT_TYPE_FLOAT;

typedef struct fixture {
    pb bytes;
    dibit_model *model;
    dibit_device *device;
    dibit_session *session;
    bool keep_values;
    dibit_error error;
} fixture;

static void start_model(fixture *f, pb *g, const char *refuse, uint32_t pending_seed) {
    f->bytes = model_of(g, NULL);
    const dibit_model_desc model = {.data = f->bytes.data, .data_bytes = f->bytes.n};
    const dibit_device_desc device = {.kind = DIBIT_DEVICE_NULL,
                                      .n_threads = 1,
                                      .null_refuse = refuse,
                                      .null_pending_seed = pending_seed};
    assert_int_equal(dibit_model_load(&model, &f->model, &f->error), DIBIT_OK);
    assert_int_equal(dibit_device_create(&device, &f->device, &f->error), DIBIT_OK);
    const dibit_session_desc desc = {.device = f->device, .keep_values = f->keep_values};
    if (dibit_session_create(f->model, &desc, &f->session, &f->error))
        fail_msg("%s", f->error.text);
}

/* x -> Neg -> Exp -> Sqrt -> y, and a second user of Neg's output. */
static void start(fixture *f, const char *refuse, uint32_t pending_seed) {
    *f = (fixture){.keep_values = f->keep_values};
    pb g = {0};
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "Neg", "x", "a", NULL);
    graph_node(&g, "", "Exp", "a", "b", NULL);
    graph_node(&g, "", "Sqrt", "b", "c", NULL);
    graph_node(&g, "", "Add", "a c", "y", NULL);
    graph_output(&g, "y", F32, "n");
    start_model(f, &g, refuse, pending_seed);
}

static void stop(fixture *f) {
    dibit_session_destroy(&f->session);
    dibit_device_destroy(&f->device);
    dibit_model_destroy(&f->model);
    pb_free(&f->bytes);
}

static void assert_plan(const fixture *f, const char *want) {
    char got[512] = "";
    dibit_step_info step;
    for (uint32_t i = 0; dibit_session_step(f->session, i, &step) == DIBIT_OK; i++) {
        const size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, "%s%s@%s", n ? " " : "", step.op, step.device);
    }
    assert_string_equal(got, want);
}

static void test_all_nodes_go_to_the_device(void **state) {
    (void)state;
    fixture f = {0};
    start(&f, NULL, 0);
    assert_plan(&f, "dibit.Upload@cpu Neg@null Exp@null Sqrt@null Add@null dibit.Download@cpu");
    dibit_session_info info;
    dibit_session_get_info(f.session, &info);
    assert_int_equal(info.n_copies, 2);
    stop(&f);
}

static void test_a_refused_node_costs_copies_only_where_needed(void **state) {
    (void)state;
    fixture f = {0};
    start(&f, "Exp", 0);
    assert_plan(&f,
                "dibit.Upload@cpu Neg@null dibit.Download@cpu Exp@cpu dibit.Upload@cpu Sqrt@null "
                "Add@null dibit.Download@cpu");
    dibit_step_info step;
    assert_int_equal(dibit_session_step(f.session, 3, &step), DIBIT_OK);
    assert_string_equal(step.why, "the null device was told to refuse it");
    stop(&f);
    start(&f, "Neg,Exp,Sqrt,Add", 0);
    assert_plan(&f, "Neg@cpu Exp@cpu Sqrt@cpu Add@cpu");
    float x[2] = {1, 2};
    const dibit_tensor in = {"x", F32, 1, {2}, x, 0};
    dibit_tensor y = {.name = "y"};
    const dibit_run run = {.inputs = &in, .n_inputs = 1, .outputs = &y, .n_outputs = 1};
    assert_int_equal(dibit_session_run(f.session, &run, &f.error), DIBIT_OK);
    assert_float_equal(((float *)y.data)[1], -2 + expf(-1), 1e-6f);
    stop(&f);
}

/* Each value is brought to the CPU, after all that the run needs. */
static void test_kept_values_are_downloaded(void **state) {
    (void)state;
    fixture f = {.keep_values = true};
    start(&f, NULL, 0);
    assert_plan(&f, "dibit.Upload@cpu Neg@null Exp@null Sqrt@null Add@null dibit.Download@cpu "
                    "dibit.Download@cpu dibit.Download@cpu dibit.Download@cpu");
    float x[2] = {1, 2};
    const dibit_tensor in = {"x", F32, 1, {2}, x, 0};
    dibit_tensor y = {.name = "y"}, b;
    const dibit_run run = {.inputs = &in, .n_inputs = 1, .outputs = &y, .n_outputs = 1};
    assert_int_equal(dibit_session_run(f.session, &run, &f.error), DIBIT_OK);
    assert_int_equal(dibit_session_value(f.session, "b", &b, &f.error), DIBIT_OK);
    assert_int_equal(b.dims[0], 2);
    assert_non_null(b.data);
    stop(&f);
}

/* Integers that come from the caller's integers stay on the host, whatever computes them; what they
 * select from floats does not. */
static void test_integers_known_on_the_host_stay_there(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    graph_input(&g, "ids", DIBIT_TYPE_INT64, "n");
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "Add", "ids ids", "twice", NULL);
    graph_node(&g, "", "Greater", "twice ids", "some", NULL);
    graph_node(&g, "", "Neg", "x", "minus", NULL);
    graph_node(&g, "", "Where", "some x minus", "y", NULL);
    graph_output(&g, "y", F32, "n");
    start_model(&f, &g, NULL, 0);
    assert_plan(&f, "Add@cpu Greater@cpu dibit.Upload@cpu Neg@null dibit.Upload@cpu Where@null "
                    "dibit.Download@cpu");
    dibit_step_info step;
    assert_int_equal(dibit_session_step(f.session, 0, &step), DIBIT_OK);
    assert_string_equal(step.why, "its integers are known on the host");
    int64_t ids[2] = {INT64_C(1) << 40, -1};
    float x[2] = {1, 2};
    const dibit_tensor in[] = {{"ids", DIBIT_TYPE_INT64, 1, {2}, ids, 0}, {"x", F32, 1, {2}, x, 0}};
    dibit_tensor y = {.name = "y"};
    const dibit_run run = {.inputs = in, .n_inputs = 2, .outputs = &y, .n_outputs = 1};
    assert_int_equal(dibit_session_run(f.session, &run, &f.error), DIBIT_OK);
    stop(&f);
}

/* The null device demands a buffer for every one that a shader declares. */
static void test_constants_are_bound(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    const float gain[2] = {2, 3};
    graph_input(&g, "x", F32, "n 2");
    graph_constant(&g, "gain", F32, 1, (int64_t[]){2}, gain);
    graph_node(&g, "", "SimplifiedLayerNormalization", "x gain", "y", NULL);
    graph_output(&g, "y", F32, "n 2");
    start_model(&f, &g, NULL, 0);
    assert_plan(&f, "dibit.Upload@cpu SimplifiedLayerNormalization@null dibit.Download@cpu");
    float x[2] = {1, 2};
    const dibit_tensor in = {"x", F32, 2, {1, 2}, x, 0};
    dibit_tensor y = {.name = "y"};
    const dibit_run run = {.inputs = &in, .n_inputs = 1, .outputs = &y, .n_outputs = 1};
    if (dibit_session_run(f.session, &run, &f.error)) fail_msg("%s", f.error.text);
    stop(&f);
}

static void test_an_integer_beyond_32_bits_is_a_status(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    graph_input(&g, "ids", DIBIT_TYPE_INT64, "n");
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "Greater", "x x", "some", NULL);
    graph_node(&g, "", "Where", "some ids ids", "y", NULL);
    graph_output(&g, "y", DIBIT_TYPE_INT64, "n");
    start_model(&f, &g, NULL, 0);
    int64_t ids[2] = {1, INT64_C(1) << 40};
    float x[2] = {1, 2};
    const dibit_tensor in[] = {{"ids", DIBIT_TYPE_INT64, 1, {2}, ids, 0}, {"x", F32, 1, {2}, x, 0}};
    dibit_tensor y = {.name = "y"};
    const dibit_run run = {.inputs = in, .n_inputs = 2, .outputs = &y, .n_outputs = 1};
    assert_int_equal(dibit_session_run(f.session, &run, &f.error), DIBIT_OUT_OF_RANGE);
    assert_non_null(strstr(f.error.text, "an element of 'ids' does not fit the device's 32 bits"));
    stop(&f);
}

static void test_a_run_waits_for_the_device_without_blocking(void **state) {
    (void)state;
    fixture f = {0};
    uint32_t pending = 0;
    for (uint32_t seed = 1; seed < 20; seed++) {
        start(&f, "Exp", seed);
        float x[3] = {1, 2, 3};
        const dibit_tensor in = {"x", F32, 1, {3}, x, 0};
        dibit_tensor y = {.name = "y"};
        const dibit_run run = {.inputs = &in, .n_inputs = 1, .outputs = &y, .n_outputs = 1};
        for (int round = 0; round < 10; round++) {
            assert_int_equal(dibit_run_begin(f.session, &run, &f.error), DIBIT_OK);
            dibit_status status;
            int polls = 0;
            do status = dibit_run_poll(f.session, &f.error);
            while (status == DIBIT_PENDING && ++polls < 3 + round);
            pending += (uint32_t)polls;
            if (status == DIBIT_PENDING)
                dibit_run_cancel(f.session); /* also in the middle of a read */
            if (status == DIBIT_OK) assert_int_equal(y.dims[0], 3);
        }
        stop(&f);
    }
    assert_true(pending > 50);
}

static void test_limits_of_the_device_are_statuses(void **state) {
    (void)state;
    fixture f = {0};
    start(&f, NULL, 0);
    const int64_t n = 80 << 20; /* 320 MB: beyond a buffer of 256 */
    const dibit_tensor in = {"x", F32, 1, {n}, calloc((size_t)n, 4), 0};
    dibit_tensor y = {.name = "y"};
    const dibit_run run = {.inputs = &in, .n_inputs = 1, .outputs = &y, .n_outputs = 1};
    assert_int_equal(dibit_session_run(f.session, &run, &f.error), DIBIT_TOO_LARGE);
    free(in.data);
    stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_nodes_go_to_the_device),
        cmocka_unit_test(test_a_refused_node_costs_copies_only_where_needed),
        cmocka_unit_test(test_kept_values_are_downloaded),
        cmocka_unit_test(test_integers_known_on_the_host_stay_there),
        cmocka_unit_test(test_constants_are_bound),
        cmocka_unit_test(test_an_integer_beyond_32_bits_is_a_status),
        cmocka_unit_test(test_a_run_waits_for_the_device_without_blocking),
        cmocka_unit_test(test_limits_of_the_device_are_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

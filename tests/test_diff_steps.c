/* dibit_diff by steps: on the null device, whose answers are all wrong, with a model whose bytes come late and are
 * forgotten; given up anywhere; without memory anywhere. tests/test_diff.c judges what it finds. */
#include "dbt_test.h"

#include "dibit/debug.h"
#include "model_writer.h"
#include "onnx_test.h"

static const dibit_type F32 = DIBIT_TYPE_FLOAT;

/* Answers the range that was asked for last, and no other. */
typedef struct forgetful {
    const pb *file;
    uint64_t offset, bytes;
} forgetful;

static dibit_status read_late(void *user, uint64_t offset, uint64_t bytes, void *dst,
                              dibit_error *error) {
    (void)error;
    forgetful *const f = user;
    const bool asked = f->offset == offset && f->bytes == bytes;
    f->offset = offset;
    f->bytes = bytes;
    if (!asked) return DIBIT_PENDING;
    memcpy(dst, f->file->data + offset, (size_t)bytes);
    f->bytes = 0;
    return DIBIT_OK;
}

typedef struct fixture {
    counter counter;
    pb file;
    forgetful source;
    dibit_model *model;
    dibit_device *cpu, *device;
    dibit_diff *diff;
    dibit_error error;
} fixture;

/* "join" of two constants of 80 KB, which are read when they are needed, and x; "y" is its negative. */
static void open_model(fixture *f) {
    enum { N = 20000 };
    static float large[N];
    pb g = {0}, axis = {0};
    for (int i = 0; i < N; i++) large[i] = (float)(i % 100);
    attr_int(&axis, "axis", 0);
    graph_input(&g, "x", F32, "n");
    graph_constant(&g, "first", F32, 1, (int64_t[]){N}, large);
    graph_constant(&g, "second", F32, 1, (int64_t[]){N}, large);
    graph_node(&g, "", "Concat", "first x second", "join", &axis);
    graph_node(&g, "", "Neg", "join", "y", NULL);
    graph_output(&g, "y", F32, "m");
    f->file = model_of(&g, NULL);
    f->source = (forgetful){.file = &f->file};
    const dibit_allocator allocator = counter_allocator(&f->counter);
    const dibit_source source = {.size = f->file.n, .read = read_late, .user = &f->source};
    const dibit_model_desc model = {.source = &source, .allocator = &allocator};
    const dibit_device_desc cpu = {.n_threads = 1},
                            device = {.kind = DIBIT_DEVICE_NULL, .null_pending_seed = 7};
    assert_int_equal(dibit_model_load(&model, &f->model, &f->error), DIBIT_OK);
    assert_int_equal(dibit_device_create(&cpu, &f->cpu, &f->error), DIBIT_OK);
    assert_int_equal(dibit_device_create(&device, &f->device, &f->error), DIBIT_OK);
}

static void close_model(fixture *f) {
    dibit_diff_destroy(&f->diff);
    dibit_device_destroy(&f->device);
    dibit_device_destroy(&f->cpu);
    dibit_model_destroy(&f->model);
    assert_int_equal(f->counter.live, 0);
    pb_free(&f->file);
}

static dibit_status begin(fixture *f) {
    const dibit_diff_desc desc = {
        .device = f->device, .cpu = f->cpu, .keep_case = true, .tokens = 3, .noise_runs = 2};
    return dibit_diff_begin(f->model, &desc, &f->diff, &f->error);
}

/* At most so many polls. */
static dibit_status poll(fixture *f, int most, int *polls) {
    dibit_status status = DIBIT_PENDING;
    for (*polls = 0; status == DIBIT_PENDING && *polls < most; ++*polls) {
        status = dibit_diff_poll(f->diff, &f->error);
    }
    return status;
}

static void test_late_bytes_are_waited_for(void **state) {
    (void)state;
    fixture f = {0};
    int polls;
    open_model(&f);
    assert_int_equal(begin(&f), DIBIT_OK);
    dibit_diff_case failing;
    assert_int_equal(dibit_diff_get_case(f.diff, &failing), DIBIT_NOT_FOUND);
    assert_int_equal(poll(&f, 10000, &polls), DIBIT_OK);
    assert_true(polls > 10);
    dibit_diff_info info;
    dibit_diff_pass_info pass;
    dibit_diff_get_info(f.diff, &info);
    assert_int_equal(info.n_nodes, 2);
    assert_int_equal(info.n_passes, 1);
    assert_int_equal(info.done, info.total);
    assert_int_equal(dibit_diff_pass(f.diff, 0, &pass), DIBIT_OK);
    assert_string_equal(pass.name, "prompt");
    assert_int_equal(pass.first, 0);
    assert_true(pass.first_alone);
    assert_int_equal(dibit_diff_pass(f.diff, 1, &pass), DIBIT_NOT_FOUND);
    const dibit_diff_node_info *const join = dibit_diff_node(f.diff, 0, 0);
    assert_string_equal(join->node.op, "Concat");
    assert_true(join->on_device && join->alone.wrong);
    assert_string_equal(join->alone.value, "join");
    assert_string_equal(join->alone.index, "[99]"); /* the largest of those that are zero instead */
    assert_string_equal(join->alone.expected, "99");
    assert_null(dibit_diff_node(f.diff, 0, 2));
    assert_null(dibit_diff_node(f.diff, 1, 0));
    assert_int_equal(dibit_diff_get_case(f.diff, &failing), DIBIT_OK);
    assert_int_equal(failing.n_inputs, 1);
    assert_int_equal(failing.n_outputs, 1);
    assert_int_equal(failing.inputs[0].dims[0], 1);
    assert_int_equal(failing.outputs[0].dims[0], 40001);
    assert_float_equal(((const float *)failing.outputs[0].data)[20099 + 1], 99, 0);
    assert_true(failing.model_bytes > 160000); /* with its weights */
    close_model(&f);
}

static void test_it_is_given_up_anywhere(void **state) {
    (void)state;
    fixture f = {0};
    open_model(&f);
    const uint64_t live = f.counter.live;
    dibit_status status = DIBIT_PENDING;
    for (int most = 0, polls; status == DIBIT_PENDING; most++) {
        assert_int_equal(begin(&f), DIBIT_OK);
        assert_true(most < 10000);
        status = poll(&f, most, &polls);
        dibit_diff_destroy(&f.diff);
        assert_int_equal(f.counter.live, live);
    }
    assert_int_equal(status, DIBIT_OK);
    close_model(&f);
}

/* What fails while one node is run by itself is written down there. */
static void test_without_memory_it_says_so(void **state) {
    (void)state;
    fixture f = {0};
    open_model(&f);
    const uint64_t live = f.counter.live;
    uint64_t n_failed = 0, before;
    do {
        before = f.counter.calls = 0;
        f.counter.fail_at = ++n_failed;
        int polls;
        dibit_status status = begin(&f);
        if (status == DIBIT_OK) status = poll(&f, 10000, &polls);
        if (status != DIBIT_OK && status != DIBIT_OUT_OF_MEMORY)
            fail_msg("allocation %d: %s", (int)n_failed, f.error.text);
        before = f.counter.calls;
        f.counter.fail_at = 0;
        dibit_diff_destroy(&f.diff);
        assert_int_equal(f.counter.live, live);
    } while (before >= n_failed);
    assert_true(n_failed > 100);
    close_model(&f);
}

static void test_wrong_use_is_a_status(void **state) {
    (void)state;
    fixture f = {0};
    open_model(&f);
    dibit_diff_desc desc = {.device = f.cpu, .cpu = f.cpu};
    assert_int_equal(dibit_diff_begin(f.model, &desc, &f.diff, &f.error), DIBIT_BAD_ARGUMENT);
    assert_string_equal(f.error.text, "the CPU is the reference itself");
    desc = (dibit_diff_desc){.device = f.device, .cpu = f.device};
    assert_int_equal(dibit_diff_begin(f.model, &desc, &f.diff, &f.error), DIBIT_BAD_ARGUMENT);
    const dibit_tensor x = {.name = "y", .type = F32};
    desc = (dibit_diff_desc){
        .device = f.device, .cpu = f.cpu, .inputs = &x, .n_inputs = 1, .decode = true};
    assert_int_equal(dibit_diff_begin(f.model, &desc, &f.diff, &f.error), DIBIT_BAD_ARGUMENT);
    desc.decode = false; /* the model has no input of that name */
    assert_int_equal(dibit_diff_begin(f.model, &desc, &f.diff, &f.error), DIBIT_OK);
    int polls;
    assert_int_equal(poll(&f, 10000, &polls), DIBIT_BAD_INPUT);
    assert_string_equal(f.error.text, "the model has no input 'y'");
    close_model(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_bytes_are_waited_for),
        cmocka_unit_test(test_it_is_given_up_anywhere),
        cmocka_unit_test(test_without_memory_it_says_so),
        cmocka_unit_test(test_wrong_use_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* dibit_state_read and dibit_state_export: what states hold is what runs without states give, at the end and before it; on the CPU, and on
 * the device that the environment names, from which it comes later. */
#include "dbt_test.h"

#include <stdlib.h>

#include "dibit/dibit.h"

#define LLAMA DBT_SOURCE_DIR "/tests/data/cases/llama.q2/model.onnx"
#define LFM DBT_SOURCE_DIR "/tests/data/cases/lfm2.q2/model.onnx"

enum { TOKENS = 7, MORE = 2, MOST_PAIRS = 16, MOST_INPUTS = 24 };

static const int64_t ids[TOKENS + MORE] = {3, 141, 59, 26, 5, 35, 89, 79, 32};
static const int64_t ones[TOKENS + MORE] = {1, 1, 1, 1, 1, 1, 1, 1, 1};

typedef struct fixture {
    dibit_model *model;
    dibit_device *device;
    dibit_session *session;
    dibit_state *state;
    dibit_error error;
} fixture;

static void ok(fixture *f, dibit_status status) {
    if (status) fail_msg("%s", f->error.text);
}

static void start(fixture *f, const char *path, const dibit_device_desc *device) {
    *f = (fixture){0};
    ok(f, dibit_model_load(&(dibit_model_desc){.path = path}, &f->model, &f->error));
    ok(f, dibit_device_create(device, &f->device, &f->error));
    ok(f, dibit_session_create(f->model, &(dibit_session_desc){.device = f->device}, &f->session,
                               &f->error));
    ok(f, dibit_state_create(f->session, &(dibit_state_desc){.capacity = 4}, &f->state, &f->error));
}

static void stop(fixture *f) {
    dibit_state_destroy(&f->state);
    dibit_session_destroy(&f->session);
    dibit_device_destroy(&f->device);
    dibit_model_destroy(&f->model);
}

/* The CPU, or what the environment names: as test_device.c. */
static dibit_device_desc wanted_device(void) {
    const char *const name = getenv("DIBIT_TEST_DEVICE");
    if (!name || strcmp(name, "webgpu") != 0) return (dibit_device_desc){.n_threads = 1};
    return (dibit_device_desc){
        .kind = DIBIT_DEVICE_WEBGPU, .n_threads = 1, .webgpu_library = getenv("DIBIT_WEBGPU_LIB")};
}

static dibit_tensor ids_tensor(const char *name, const int64_t *from, int64_t n) {
    return (dibit_tensor){name, DIBIT_TYPE_INT64, 2, {1, n}, (void *)(uintptr_t)from, 0};
}

static void feed(fixture *f, int64_t from, int64_t n) {
    const dibit_tensor in[2] = {ids_tensor("input_ids", ids + from, n),
                                ids_tensor("attention_mask", ones, from + n)};
    dibit_tensor out = {.name = "logits"};
    const dibit_run run = {.inputs = in,
                           .n_inputs = 2,
                           .outputs = &out,
                           .n_outputs = 1,
                           .states = &f->state,
                           .n_states = 1};
    ok(f, dibit_session_run(f->session, &run, &f->error));
}

static dibit_tensor describe(fixture *f, uint32_t pair, uint64_t length) {
    dibit_tensor t = {0};
    ok(f, dibit_state_read(f->state, pair, length, &t, &f->error));
    return t;
}

/* Memory is the caller's to free. */
static dibit_tensor read_pair(fixture *f, uint32_t pair, uint64_t length) {
    dibit_tensor t = describe(f, pair, length);
    t.data = malloc(t.bytes + 1);
    dibit_status status;
    do status = dibit_state_read(f->state, pair, length, &t, &f->error);
    while (status == DIBIT_PENDING);
    ok(f, status);
    return t;
}

/* All tokens at once from an empty past, whose tensors the caller passes: `held` tells their dims. Outputs are the session's. */
static uint32_t run_without_states(fixture *f, const dibit_tensor *held, dibit_tensor *presents) {
    static float zeros[4096];
    dibit_tensor in[MOST_INPUTS] = {ids_tensor("input_ids", ids, TOKENS),
                                    ids_tensor("attention_mask", ones, TOKENS)};
    const char *past, *present;
    uint32_t n = 0;
    for (; dibit_session_state_pair(f->session, n, &past, &present) == DIBIT_OK; n++) {
        presents[n] = (dibit_tensor){.name = present};
        dibit_value_info info = {0};
        for (uint32_t i = 0; i < dibit_model_input_count(f->model); i++) {
            assert_int_equal(dibit_model_input(f->model, i, &info), DIBIT_OK);
            if (strcmp(info.name, past) == 0) break;
        }
        dibit_tensor *const t = &in[n + 2];
        *t = (dibit_tensor){.name = past, .type = info.type, .rank = info.rank, .data = zeros};
        for (int32_t d = 0; d < info.rank; d++) {
            const int64_t full = held[n].dims[d]; /* some models name what is a number */
            t->dims[d] = info.dims[d] >= 0 ? info.dims[d] : full == TOKENS ? 0 : full;
        }
        t->dims[0] = 1;
    }
    const dibit_run run = {.inputs = in, .n_inputs = n + 2, .outputs = presents, .n_outputs = n};
    ok(f, dibit_session_run(f->session, &run, &f->error));
    return n;
}

static void assert_same(const dibit_tensor *got, const dibit_tensor *want) {
    assert_int_equal(got->type, want->type);
    assert_int_equal(got->rank, want->rank);
    for (int32_t d = 0; d < want->rank; d++) assert_int_equal(got->dims[d], want->dims[d]);
    assert_memory_equal(got->data, want->data, got->bytes);
}

/* As bytes, and back into another state. */
static void export_and_import(fixture *f) {
    uint64_t bytes = 0;
    ok(f, dibit_state_export(f->state, NULL, &bytes, &f->error));
    char *const data = malloc(bytes);
    dibit_status status;
    do status = dibit_state_export(f->state, data, &bytes, &f->error);
    while (status == DIBIT_PENDING);
    ok(f, status);
    dibit_state_destroy(&f->state);
    ok(f, dibit_state_import(f->session, data, bytes, &f->state, &f->error));
    free(data);
}

static void check_model(const char *path, bool forgets) {
    const dibit_device_desc device = wanted_device();
    fixture f;
    start(&f, path, &device);
    dibit_tensor presents[MOST_PAIRS], before[MOST_PAIRS];
    feed(&f, 0, TOKENS);
    uint32_t n = 0;
    for (const char *a, *b; dibit_session_state_pair(f.session, n, &a, &b) == DIBIT_OK; n++) {
        before[n] = read_pair(&f, n, TOKENS);
    }
    assert_int_equal(run_without_states(&f, before, presents), n);
    for (uint32_t i = 0; i < n; i++) assert_same(&before[i], &presents[i]);
    export_and_import(&f);
    for (uint32_t i = 0; i < n; i++) {
        dibit_tensor t = read_pair(&f, i, TOKENS);
        assert_same(&t, &before[i]);
        free(t.data);
    }
    feed(&f, TOKENS, MORE); /* beyond the capacity: the state has moved */
    for (uint32_t i = 0; i < n; i++) {
        dibit_tensor t = {0};
        const dibit_status status = dibit_state_read(f.state, i, TOKENS, &t, &f.error);
        if (status == DIBIT_UNSUPPORTED && forgets) continue;
        ok(&f, status);
        t = read_pair(&f, i, TOKENS);
        assert_same(&t, &before[i]);
        free(t.data);
        t = read_pair(&f, i, TOKENS + MORE);
        assert_int_equal(t.dims[2], TOKENS + MORE);
        free(t.data);
    }
    for (uint32_t i = 0; i < n; i++) free(before[i].data);
    stop(&f);
}

static void test_states_hold_what_runs_give(void **unused) {
    (void)unused;
    check_model(LLAMA, false);
    check_model(LFM, true);
}

static void test_wrong_calls_are_statuses(void **unused) {
    (void)unused;
    const dibit_device_desc device = wanted_device();
    fixture f;
    start(&f, LLAMA, &device);
    assert_int_equal(describe(&f, 0, 0).dims[2], 0);
    feed(&f, 0, TOKENS);
    dibit_tensor t = {0};
    assert_int_equal(dibit_state_read(f.state, 99, 1, &t, &f.error), DIBIT_NOT_FOUND);
    assert_int_equal(dibit_state_read(f.state, 0, TOKENS + 1, &t, &f.error), DIBIT_BAD_ARGUMENT);
    t = describe(&f, 0, TOKENS);
    char *const data = malloc(t.bytes);
    t.data = data;
    t.bytes--;
    assert_int_equal(dibit_state_read(f.state, 0, TOKENS, &t, &f.error), DIBIT_TOO_LARGE);
    free(data);
    stop(&f);
}

/* A device that lets itself be waited for: one pair at a time, and a read can be given up. */
static void test_reads_wait_without_blocking(void **unused) {
    (void)unused;
    fixture f;
    start(&f, LLAMA,
          &(dibit_device_desc){.kind = DIBIT_DEVICE_NULL, .n_threads = 1, .null_pending_seed = 7});
    feed(&f, 0, TOKENS);
    char data[2][1 << 14];
    dibit_tensor t = describe(&f, 0, TOKENS), other = describe(&f, 1, TOKENS);
    t.data = data[0];
    other.data = data[1];
    assert_true(t.bytes <= sizeof data[0]);
    bool waited = false;
    for (int round = 0; round < 100 && !waited; round++) {
        waited = dibit_state_read(f.state, 0, TOKENS, &t, &f.error) == DIBIT_PENDING;
    }
    assert_true(waited);
    assert_int_equal(dibit_state_read(f.state, 1, TOKENS, &other, &f.error), DIBIT_BAD_STATE);
    dibit_state_destroy(&f.state);
    stop(&f);
}

/* An export too; a run between its calls begins it anew. */
static void test_an_export_waits_without_blocking(void **unused) {
    (void)unused;
    fixture f;
    start(&f, LLAMA,
          &(dibit_device_desc){.kind = DIBIT_DEVICE_NULL, .n_threads = 1, .null_pending_seed = 7});
    static char data[1 << 17];
    int waited = 0;
    feed(&f, 0, TOKENS);
    for (int round = 0; round < 20; round++) {
        uint64_t bytes = sizeof data, want = 0;
        ok(&f, dibit_state_export(f.state, NULL, &want, &f.error));
        dibit_status status;
        while ((status = dibit_state_export(f.state, data, &bytes, &f.error)) == DIBIT_PENDING) {
            assert_int_equal(bytes, sizeof data);
            if (++waited % 8 != 3) continue;
            ok(&f, dibit_state_truncate(f.state, TOKENS, &f.error));
            feed(&f, TOKENS, MORE);
            ok(&f, dibit_state_export(f.state, NULL, &want, &f.error));
        }
        ok(&f, status);
        assert_int_equal(bytes, want);
        dibit_state *copy = NULL;
        ok(&f, dibit_state_import(f.session, data, bytes, &copy, &f.error));
        assert_int_equal(dibit_state_length(copy), dibit_state_length(f.state));
        dibit_state_destroy(&copy);
    }
    assert_true(waited > 10);
    stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states_hold_what_runs_give),
        cmocka_unit_test(test_wrong_calls_are_statuses),
        cmocka_unit_test(test_reads_wait_without_blocking),
        cmocka_unit_test(test_an_export_waits_without_blocking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

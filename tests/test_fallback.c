/* Devices that fail while a model is loaded, read to, and writes: each call of the null device fails once,
 * and with DIBIT_TEST_DEVICE=webgpu a real device is destroyed at some points. Nothing leaks, and the CPU
 * takes over where it may, in the middle of a text and without a seam. */
#include "dbt_test.h"

#include "dibit/lm.h"
#include "failing_hal.h"
#include "model.h"
#include "test_device.h"

#define CASES DBT_SOURCE_DIR "/tests/data/cases/"
static const char *const models[] = {
    CASES "llama.q2/model.onnx",       /* tokens are chosen on the device, runs begin ahead */
    CASES "mistral_swa.q2/model.onnx", /* windows */
    CASES "lfm2.q2/model.onnx",        /* convolutions on the CPU */
    CASES "x_tiedgbq4_asym/model.onnx",
};
enum { N_MODELS = sizeof models / sizeof *models, N_PROMPT = 21, N_TURN = 5, MAX_TOKENS = 12 };

/* ---- Memory that is counted ---- */

static int64_t n_live;
static uint64_t n_allocs, fails_at; /* the number of the one that fails, from 1; 0: none */

static void *counting_alloc(void *user, size_t bytes, size_t alignment) {
    (void)user;
    if (++n_allocs == fails_at) return NULL;
    void *const memory = dbt_alloc(&dbt_default_allocator, bytes, alignment);
    n_live += memory != NULL;
    return memory;
}

static void counting_release(void *user, void *memory, size_t bytes) {
    (void)user;
    n_live -= memory != NULL;
    dbt_release(&dbt_default_allocator, memory, bytes);
}

static const dibit_allocator counting = {counting_alloc, counting_release, NULL};

/* ---- A conversation of two turns ---- */

typedef struct conversation {
    dibit_device *device;
    dibit_model *model;
    dibit_session *session;
    dibit_generator *generator;
    dibit_state *state, *fork;
    dibit_error error;
    int64_t n_live_before;
    int64_t history[2 * (N_PROMPT + MAX_TOKENS)];
    size_t n_history;
    size_t by_device;                   /* of the history, when the CPU took over */
    uint64_t calls[2 * MAX_TOKENS + 1]; /* of the device, up to loading, and up to each token */
    uint32_t n_calls;
} conversation;

typedef struct talk {
    const char *path;
    dibit_device_kind kind;
    bool cpu_fallback;
    dibit_sampling sampling;
    const dbt_hal_limits *limits; /* of the device, where they are not 0 */
} talk;

static void lower(dbt_hal_limits *limits, const dbt_hal_limits *to) {
    if (!to) return;
    if (to->max_buffer_bytes) limits->max_buffer_bytes = to->max_buffer_bytes;
    if (to->max_binding_bytes) limits->max_binding_bytes = to->max_binding_bytes;
    if (to->max_bindings) limits->max_bindings = to->max_bindings;
    if (to->max_workgroups) limits->max_workgroups = to->max_workgroups;
    if (to->max_invocations) limits->max_invocations = to->max_invocations;
    if (to->max_workgroup_bytes) limits->max_workgroup_bytes = to->max_workgroup_bytes;
}

static dibit_status open_all(conversation *c, const talk *t) {
    c->n_live_before = n_live;
    const dibit_model_desc model = {.path = t->path, .allocator = &counting};
    const dibit_device_desc device = {.kind = t->kind,
                                      .n_threads = 1,
                                      .null_pending_seed = 3,
                                      .webgpu_library = getenv("DIBIT_WEBGPU_LIB"),
                                      .allocator = &counting};
    dibit_status status = dibit_device_create(&device, &c->device, &c->error);
    if (status == DIBIT_OK) status = dibit_model_load(&model, &c->model, &c->error);
    if (status != DIBIT_OK) return status;
    if (c->device->gpu) {
        failing_hal_wrap(dbt_gpu_hal(c->device->gpu));
        lower(&dbt_gpu_hal(c->device->gpu)->limits, t->limits);
    }
    const dibit_session_desc session = {.device = c->device,
                                        .activations = DIBIT_ACTIVATIONS_FLOAT,
                                        .cpu_fallback = t->cpu_fallback,
                                        .sample_output = "logits",
                                        .feed_input = "input_ids"};
    status = dibit_session_create(c->model, &session, &c->session, &c->error);
    c->calls[c->n_calls++] = failing.n_calls;
    if (status == DIBIT_OK)
        status = dibit_state_create(c->session, &(dibit_state_desc){.capacity = 16}, &c->state,
                                    &c->error);
    const dibit_generator_desc generator = {
        .model = c->model, .session = c->session, .max_chunk = 16, .allocator = &counting};
    if (status == DIBIT_OK) status = dibit_generator_create(&generator, &c->generator, &c->error);
    return status;
}

static void close_all(conversation *c) {
    dibit_generator_destroy(&c->generator);
    dibit_state_destroy(&c->fork);
    dibit_state_destroy(&c->state);
    dibit_session_destroy(&c->session);
    if (c->device) assert_int_equal(dibit_device_dropped_kernels(c->device), 0);
    dibit_device_destroy(&c->device);
    dibit_model_destroy(&c->model);
    assert_int_equal(n_live, c->n_live_before);
}

static bool note_token(void *user, uint32_t sequence, int64_t token) {
    (void)sequence;
    conversation *const c = user;
    c->history[c->n_history++] = token;
    c->calls[c->n_calls++] = failing.n_calls;
    if (!dibit_session_why(c->session)[0]) c->by_device = c->n_history;
    return true;
}

/* Feeds what the state does not hold yet. */
static dibit_status turn(conversation *c, const talk *t, size_t max_tokens) {
    int64_t tokens[MAX_TOKENS], text[sizeof c->history / sizeof *c->history];
    const size_t held = (size_t)dibit_state_length(c->state);
    memcpy(text, c->history, sizeof text);
    dibit_sequence sequence = {.state = c->state,
                               .past = text,
                               .n_past = held,
                               .prompt = text + held,
                               .n_prompt = c->n_history - held,
                               .sampling = t->sampling,
                               .tokens = tokens,
                               .max_tokens = max_tokens};
    const dibit_generation generation = {
        .sequences = &sequence, .n_sequences = 1, .on_token = note_token, .on_token_user = c};
    const size_t before = c->n_history;
    const dibit_status status = dibit_generator_run(c->generator, &generation, &c->error);
    assert_int_equal(c->n_history - before, sequence.n_tokens);
    assert_memory_equal(c->history + before, tokens, sequence.n_tokens * sizeof *tokens);
    return status;
}

static void say(conversation *c, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++)
        c->history[c->n_history++] = (int64_t)(dbt_test_random(&seed) % 500);
}

/* Both turns, with a fork of the state between them. */
static dibit_status converse(conversation *c, const talk *t) {
    *c = (conversation){.error = {.text = ""}};
    dibit_status status = open_all(c, t);
    say(c, N_PROMPT, 5);
    if (status == DIBIT_OK) status = turn(c, t, MAX_TOKENS);
    if (status == DIBIT_OK && !dibit_state_is_lost(c->state) && !dibit_session_why(c->session)[0]) {
        status = dibit_state_fork(c->state, &c->fork, &c->error);
        /* A loss that nothing but the fork has met: the next turn meets it, too. */
        if (status != DIBIT_OK && t->cpu_fallback) status = DIBIT_OK;
    }
    if (status != DIBIT_OK) return status;
    say(c, N_TURN, 6);
    return turn(c, t, MAX_TOKENS);
}

/* ---- What the CPU says ---- */

/* Its tokens after those that the device has said are the ones that `c` has. */
static void check_rest(const conversation *c, const talk *t) {
    conversation reference = {.error = {.text = ""}};
    talk alone = *t;
    alone.kind = DIBIT_DEVICE_CPU;
    const failing_hal kept = failing;
    failing = (failing_hal){0};
    if (open_all(&reference, &alone)) fail_msg("%s", reference.error.text);
    const size_t first_end = N_PROMPT + MAX_TOKENS, second = first_end + N_TURN;
    size_t at = c->by_device > N_PROMPT ? c->by_device : N_PROMPT;
    if (at >= first_end && at < second) at = second;
    reference.n_history = at;
    memcpy(reference.history, c->history, at * sizeof *c->history);
    const size_t end = at < first_end ? first_end : c->n_history;
    if (at < end && turn(&reference, &alone, end - at)) fail_msg("%s", reference.error.text);
    assert_memory_equal(reference.history, c->history, end * sizeof *c->history);
    close_all(&reference);
    failing = kept;
}

/* Calls further and further apart, of two kinds of models; or with DIBIT_FULL each, of all. */
static bool full(void) { return getenv("DIBIT_FULL") != NULL; }
static uint64_t next_call(uint64_t at) { return full() ? at + 1 : at + 1 + at / 2; }
static bool is_drawn(int model) { return full() || model % 2 == 0; }

/* ---- The null device ---- */

static void test_each_call_fails_once(void **unused) {
    (void)unused;
    static const dibit_status statuses[] = {DIBIT_DEVICE_LOST, DIBIT_OUT_OF_MEMORY};
    for (int k = 0; k < 2 * N_MODELS; k++) {
        if (!is_drawn(k / 2)) continue;
        const dibit_status status = statuses[k % 2];
        const talk t = {.path = models[k / 2], .kind = DIBIT_DEVICE_NULL};
        uint32_t n_failed = 0;
        for (uint64_t at = 1;; at = next_call(at)) {
            failing = (failing_hal){.at = at, .status = status};
            conversation c;
            const dibit_status got = converse(&c, &t);
            if (got != DIBIT_OK) {
                if (got != status)
                    fail_msg("call %llu: %s, not %s: %s", (unsigned long long)at,
                             dibit_status_name(got), dibit_status_name(status), c.error.text);
                assert_non_null(strstr(c.error.text, "was told to fail"));
                n_failed++;
            }
            close_all(&c);
            if (!failing.failed) break;
            /* A run ahead that fails once is begun again. */
            if (got == DIBIT_OK && status == DIBIT_DEVICE_LOST) fail_msg("a loss was not noticed");
        }
        print_message("%s, %s: %u of the calls up to %llu failed\n", t.path + sizeof CASES - 1,
                      dibit_status_name(status), (unsigned)n_failed,
                      (unsigned long long)failing.n_calls);
        assert_true(n_failed > 10);
    }
}

static void test_the_cpu_takes_over_after_each_call(void **unused) {
    (void)unused;
    static const dibit_status statuses[] = {DIBIT_DEVICE_LOST, DIBIT_OUT_OF_MEMORY,
                                            DIBIT_TOO_LARGE};
    for (int k = 0; k < 3 * N_MODELS; k++) {
        if (!is_drawn(k / 3)) continue;
        const talk t = {.path = models[k / 3],
                        .kind = DIBIT_DEVICE_NULL,
                        .cpu_fallback = true,
                        .sampling = {.temperature = k % 2 ? 1 : 0, .top_k = 20, .seed = 3}};
        for (uint64_t at = 1;; at = next_call(at)) {
            failing = (failing_hal){
                .at = at, .status = statuses[k % 3], .buffers = statuses[k % 3] == DIBIT_TOO_LARGE};
            conversation c;
            if (converse(&c, &t)) fail_msg("call %llu: %s", (unsigned long long)at, c.error.text);
            const bool failed = failing.failed;
            if (dibit_session_why(c.session)[0]) {
                assert_non_null(strstr(dibit_session_why(c.session), "was told to fail"));
                const bool drew = t.sampling.temperature > 0 && c.by_device > N_PROMPT;
                if (!drew) check_rest(&c, &t);
                dibit_session_info info;
                dibit_session_get_info(c.session, &info);
                assert_non_null(strstr(info.device, "cpu, 1 thread"));
            } else if (failed) {
                assert_int_not_equal(failing.status, DIBIT_DEVICE_LOST);
            }
            close_all(&c);
            if (!failed) break;
        }
    }
}

static void test_a_device_may_fail_at_once(void **unused) {
    (void)unused;
    dbt_hal *hal;
    dbt_gpu *gpu = NULL;
    dibit_error error;
    assert_int_equal(dbt_hal_null_create(&counting, 0, &hal, &error), DIBIT_OK);
    failing_hal_wrap(hal);
    failing = (failing_hal){.at = 1, .status = DIBIT_OUT_OF_MEMORY};
    assert_int_equal(dbt_gpu_create(&counting, hal, &gpu, &error), DIBIT_OUT_OF_MEMORY);
    assert_null(gpu);
    assert_int_equal(dbt_gpu_create(&counting, hal, &gpu, &error), DIBIT_OK);
    dbt_gpu_destroy(&gpu);
    assert_int_equal(n_live, 0);
}

static void test_each_allocation_fails_once(void **unused) {
    (void)unused;
    for (int k = 0; k < N_MODELS; k++) {
        if (!is_drawn(k)) continue;
        const talk t = {.path = models[k], .kind = DIBIT_DEVICE_NULL};
        failing = (failing_hal){0};
        uint32_t n_failed = 0;
        for (uint64_t at = 1;; at = next_call(at)) {
            n_allocs = 0;
            fails_at = at;
            conversation c;
            const dibit_status got = converse(&c, &t);
            const bool failed = n_allocs >= at;
            fails_at = 0;
            if (got != DIBIT_OK && got != DIBIT_OUT_OF_MEMORY)
                fail_msg("allocation %llu: %s", (unsigned long long)at, c.error.text);
            n_failed += got != DIBIT_OK;
            close_all(&c);
            if (!failed) break;
        }
        assert_true(n_failed > 10);
    }
}

/* A device that can do less than the model asks for is a sentence, or nodes stay on the CPU; with
 * cpu_fallback it is the CPU's text at the latest. */
static void test_small_limits_are_statuses(void **unused) {
    (void)unused;
    static const dbt_hal_limits limits[] = {
        {.max_buffer_bytes = 4096},   {.max_buffer_bytes = 40000}, {.max_binding_bytes = 256},
        {.max_binding_bytes = 20000}, {.max_bindings = 2},         {.max_workgroups = 2},
        {.max_invocations = 32},      {.max_workgroup_bytes = 512}};
    uint32_t n_refused = 0;
    failing = (failing_hal){0};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        for (int k = 0; k < N_MODELS; k++) {
            talk t = {.path = models[k], .kind = DIBIT_DEVICE_NULL, .limits = &limits[i]};
            conversation c;
            const dibit_status got = converse(&c, &t);
            if (got != DIBIT_OK && got != DIBIT_TOO_LARGE && got != DIBIT_UNSUPPORTED)
                fail_msg("limit %zu: %s: %s", i, dibit_status_name(got), c.error.text);
            assert_true(got == DIBIT_OK || c.error.text[0]);
            n_refused += got != DIBIT_OK;
            close_all(&c);
            t.cpu_fallback = true;
            if (converse(&c, &t)) fail_msg("limit %zu: %s", i, c.error.text);
            assert_int_equal(dibit_session_why(c.session)[0] != 0, got != DIBIT_OK);
            if (got != DIBIT_OK) check_rest(&c, &t);
            close_all(&c);
        }
    }
    assert_true(n_refused >= 4);
}

/* ---- A real device ---- */

static const dibit_sampling samplings[] = {{.temperature = 0},
                                           {.temperature = 0.8f, .top_k = 30, .seed = 11},
                                           {.temperature = 1, .top_p = 0.9f, .seed = 12}};

/* Destroyed while weights go up, in the prompt, before the first token, between later ones, at the last,
 * and the same in a second turn that continues the state: the text is an undisturbed CPU's. */
static void test_a_lost_device_does_not_change_the_text(void **unused) {
    (void)unused;
    for (int k = 0; k < (full() ? 3 : 2); k++) {
        talk t = {.path = models[k], .kind = DIBIT_DEVICE_CPU, .sampling = samplings[k]};
        conversation cpu, device;
        failing = (failing_hal){0};
        if (converse(&cpu, &t)) fail_msg("%s", cpu.error.text);
        t.kind = DIBIT_DEVICE_WEBGPU;
        t.cpu_fallback = true;
        if (converse(&device, &t)) fail_msg("%s", device.error.text);
        assert_memory_equal(device.history, cpu.history, cpu.n_history * sizeof *cpu.history);
        assert_int_equal(device.by_device, device.n_history);
        const uint64_t loaded = device.calls[0], first = device.calls[1], second = device.calls[2],
                       turned = device.calls[MAX_TOKENS], last = device.calls[2 * MAX_TOKENS];
        const uint64_t points[] = {1,          loaded / 2,           loaded,
                                   loaded + 1, (loaded + first) / 2, first,
                                   first + 1,  (first + second) / 2, (first + turned) / 2,
                                   turned,     turned + 2,           (turned + last) / 2,
                                   last};
        for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
            failing = (failing_hal){.at = points[i],
                                    .how = (k + i) % 2 ? FAILING_LOSES : FAILING_DESTROYS,
                                    .status = DIBIT_DEVICE_LOST};
            conversation c;
            if (converse(&c, &t)) fail_msg("point %zu: %s", i, c.error.text);
            assert_true(failing.failed);
            assert_true(dibit_session_why(c.session)[0] != 0);
            assert_int_equal(c.n_history, cpu.n_history);
            assert_memory_equal(c.history, cpu.history, cpu.n_history * sizeof *cpu.history);
            if (i == 8) print_message("%s\n", dibit_session_why(c.session));
            close_all(&c);
        }
        failing = (failing_hal){0};
        close_all(&device);
        close_all(&cpu);
    }
}

/* Without cpu_fallback it ends there, with what was said so far. */
static void test_a_lost_device_is_a_status(void **unused) {
    (void)unused;
    talk t = {.path = models[0], .kind = DIBIT_DEVICE_WEBGPU};
    conversation device, c;
    failing = (failing_hal){0};
    if (converse(&device, &t)) fail_msg("%s", device.error.text);
    const uint64_t points[] = {1, device.calls[0] - 1, device.calls[1] - 1, device.calls[5] + 3,
                               device.calls[2 * MAX_TOKENS]};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        failing = (failing_hal){.at = points[i], .how = FAILING_LOSES, .status = DIBIT_DEVICE_LOST};
        assert_int_equal(converse(&c, &t), DIBIT_DEVICE_LOST);
        assert_non_null(strstr(c.error.text, "destroyed"));
        if (c.session) assert_string_equal(dibit_session_why(c.session), "");
        if (i == 3) assert_true(c.n_history > N_PROMPT + 2);
        assert_memory_equal(c.history, device.history, c.n_history * sizeof *c.history);
        close_all(&c);
    }
    failing = (failing_hal){0};
    close_all(&device);
}

int main(void) {
    const struct CMUnitTest null_alone[] = {
        cmocka_unit_test(test_each_call_fails_once),
        cmocka_unit_test(test_the_cpu_takes_over_after_each_call),
        cmocka_unit_test(test_a_device_may_fail_at_once),
        cmocka_unit_test(test_each_allocation_fails_once),
        cmocka_unit_test(test_small_limits_are_statuses),
    };
    const struct CMUnitTest device[] = {
        cmocka_unit_test(test_a_lost_device_does_not_change_the_text),
        cmocka_unit_test(test_a_lost_device_is_a_status),
    };
    return test_device_computes() ? cmocka_run_group_tests_name("native", device, NULL, NULL)
                                  : cmocka_run_group_tests_name("null", null_alone, NULL, NULL);
}

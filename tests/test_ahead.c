/* Tokens that a device chooses, and runs that begin before the tokens of the last are read: on the null
 * device, which computes nothing (all tokens are 0) but counts what it is given. */
#include "dbt_test.h"

#include "dibit/lm.h"
#include "model.h"
#include "model_writer.h"

#define LLAMA DBT_SOURCE_DIR "/tests/data/cases/llama.q2/model.onnx"
#define LFM DBT_SOURCE_DIR "/tests/data/cases/lfm2.q2/model.onnx"

typedef struct counting {
    uint64_t n_allocs;
} counting;

static void *counting_alloc(void *user, size_t bytes, size_t alignment) {
    ((counting *)user)->n_allocs++;
    return aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
}

static void counting_release(void *user, void *memory, size_t bytes) {
    (void)user, (void)bytes;
    free(memory);
}

typedef struct fixture {
    counting memory;
    dibit_allocator allocator;
    dibit_model *model;
    dibit_device *device;
    dibit_session *session;
    dibit_state *state;
    dibit_session_info info;
    dibit_error error;
    int64_t ids[256], mask[256];
    dibit_tensor inputs[2];
    dibit_sample settings;
    dibit_run run;
} fixture;

static void start(fixture *f, const char *path, const char *refuse, uint32_t pending_seed) {
    *f = (fixture){.allocator = {counting_alloc, counting_release, &f->memory}};
    const dibit_model_desc model = {.path = path, .allocator = &f->allocator};
    const dibit_device_desc device = {.kind = DIBIT_DEVICE_NULL,
                                      .n_threads = 1,
                                      .null_refuse = refuse,
                                      .null_pending_seed = pending_seed,
                                      .allocator = &f->allocator};
    assert_int_equal(dibit_model_load(&model, &f->model, &f->error), DIBIT_OK);
    assert_int_equal(dibit_device_create(&device, &f->device, &f->error), DIBIT_OK);
    const dibit_session_desc desc = {
        .device = f->device, .sample_output = "logits", .feed_input = "input_ids"};
    if (dibit_session_create(f->model, &desc, &f->session, &f->error))
        fail_msg("%s", f->error.text);
    dibit_session_get_info(f->session, &f->info);
    assert_int_equal(dibit_state_create(f->session, NULL, &f->state, &f->error), DIBIT_OK);
    for (int i = 0; i < 256; i++) f->mask[i] = 1;
}

static void stop(fixture *f) {
    dibit_state_destroy(&f->state);
    dibit_session_destroy(&f->session);
    dibit_device_destroy(&f->device);
    dibit_model_destroy(&f->model);
}

static const dbt_hal_counters *counters(const fixture *f) {
    return &dbt_gpu_hal(f->device->gpu)->counters;
}

/* A run of n tokens that chooses one; with `feed` it takes what the last one chose. */
static dibit_status begin(fixture *f, int64_t n, bool feed) {
    const int64_t total = (int64_t)dibit_state_length(f->state) + n;
    const dibit_tensor ids = {"input_ids", DIBIT_TYPE_INT64, 2, {1, n}, f->ids, 0};
    const dibit_tensor mask = {"attention_mask", DIBIT_TYPE_INT64, 2, {1, total}, f->mask, 0};
    f->inputs[0] = mask;
    f->inputs[1] = ids;
    f->run = (dibit_run){.inputs = f->inputs,
                         .n_inputs = feed ? 1 : 2,
                         .states = &f->state,
                         .n_states = 1,
                         .last_rows = 1,
                         .sample = &f->settings,
                         .feed = feed};
    return dibit_run_begin(f->session, &f->run, &f->error);
}

static void run(fixture *f, int64_t n, bool feed) {
    if (begin(f, n, feed)) fail_msg("%s", f->error.text);
    dibit_status status;
    do status = dibit_run_poll(f->session, &f->error);
    while (status == DIBIT_PENDING);
    assert_int_equal(status, DIBIT_OK);
}

static dibit_status take(fixture *f, int64_t *token) {
    dibit_status status;
    do status = dibit_run_tokens(f->session, token, 1, &f->error);
    while (status == DIBIT_PENDING);
    return status;
}

static void test_what_a_session_can_do(void **unused) {
    (void)unused;
    static const struct {
        const char *model, *refuse;
        bool samples, runs_ahead;
    } cases[] = {
        {LLAMA, NULL, true, true},
        {LLAMA, "Sample", false, false},
        {LLAMA, "MatMulNBits", false, false},                     /* the logits are on the CPU */
        {LLAMA, "SkipSimplifiedLayerNormalization", true, false}, /* a run waits for the CPU */
        {LFM, NULL, true, false},                                 /* a convolution's state */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        start(&f, cases[i].model, cases[i].refuse, 0);
        assert_int_equal(f.info.samples, cases[i].samples);
        assert_int_equal(f.info.runs_ahead, cases[i].runs_ahead);
        if (!f.info.samples) {
            assert_int_equal(begin(&f, 3, false), DIBIT_UNSUPPORTED);
        } else if (!f.info.runs_ahead) {
            run(&f, 3, false);
            assert_int_equal(begin(&f, 1, true), DIBIT_UNSUPPORTED);
        }
        stop(&f);
    }
}

/* The next run reads the tokens when it has begun already: nothing else may be where they are, not even
 * what is as small and no longer needed, as here -y and its exponential. */
static void test_tokens_are_alone_in_their_slot(void **unused) {
    (void)unused;
    fixture f = {0};
    pb g = {0};
    graph_input(&g, "x", DIBIT_TYPE_FLOAT, "b s 4");
    graph_input(&g, "y", DIBIT_TYPE_FLOAT, "4");
    graph_node(&g, "", "Neg", "y", "a", NULL);
    graph_node(&g, "", "Exp", "a", "c", NULL);
    graph_node(&g, "", "Add", "x c", "logits", NULL);
    graph_output(&g, "logits", DIBIT_TYPE_FLOAT, "b s 4");
    pb bytes = model_of(&g, NULL);
    const dibit_model_desc model = {.data = bytes.data, .data_bytes = bytes.n};
    const dibit_device_desc device = {.kind = DIBIT_DEVICE_NULL, .n_threads = 1};
    assert_int_equal(dibit_model_load(&model, &f.model, &f.error), DIBIT_OK);
    assert_int_equal(dibit_device_create(&device, &f.device, &f.error), DIBIT_OK);
    const dibit_session_desc desc = {.device = f.device, .sample_output = "logits"};
    if (dibit_session_create(f.model, &desc, &f.session, &f.error)) fail_msg("%s", f.error.text);
    const dbt_plan *const plan = f.session->plan;
    uint32_t n = 0;
    for (int32_t i = 0; i < plan->n_tensors; i++) {
        const dbt_plan_tensor *const t = &plan->tensors[i];
        n += t->place == DBT_PLACE_SLOT && t->slot == plan->tensors[plan->token].slot;
    }
    assert_int_equal(n, 1);
    stop(&f);
    pb_free(&bytes);
}

static void test_runs_begin_before_tokens_are_read(void **unused) {
    (void)unused;
    for (uint32_t seed = 0; seed < 5; seed++) {
        fixture f;
        start(&f, LLAMA, NULL, seed);
        run(&f, 7, false);
        const uint64_t copies = counters(&f)->copies, writes = counters(&f)->writes;
        for (uint64_t i = 0; i < 20; i++) {
            const dbt_hal_counters before = *counters(&f);
            run(&f, 1, true); /* while the token before it is not read */
            assert_int_equal(dibit_state_length(f.state), 8 + i);
            assert_int_equal(counters(&f)->reads, before.reads + 1); /* and not the logits */
            assert_int_equal(counters(&f)->copies, before.copies + copies + 1); /* the token */
            assert_true(counters(&f)->writes < before.writes + writes);
            assert_true(counters(&f)->submits > before.submits);
            int64_t token = -1;
            assert_int_equal(take(&f, &token), DIBIT_OK);
            assert_int_equal(token, 0);
        }
        stop(&f);
    }
}

static void test_misuse_is_a_status(void **unused) {
    (void)unused;
    fixture f;
    start(&f, LLAMA, NULL, 0);
    int64_t token;
    assert_int_equal(take(&f, &token), DIBIT_BAD_STATE);
    assert_int_equal(begin(&f, 1, true), DIBIT_BAD_STATE); /* there is nothing to feed */
    f.settings.temperature = 1;                            /* without top_k */
    assert_int_equal(begin(&f, 1, false), DIBIT_BAD_ARGUMENT);
    f.settings.top_k = 5;
    run(&f, 7, false);
    int64_t two[2];
    assert_int_equal(dibit_run_tokens(f.session, two, 2, &f.error), DIBIT_BAD_ARGUMENT);
    for (int i = 1; i < DBT_MAX_UNREAD; i++) run(&f, 1, true);
    assert_int_equal(begin(&f, 1, true), DIBIT_BAD_STATE);
    assert_non_null(strstr(f.error.text, "have not been read"));
    assert_int_equal(dibit_state_length(f.state), 7 + DBT_MAX_UNREAD - 1);
    for (int i = 0; i < DBT_MAX_UNREAD; i++) assert_int_equal(take(&f, &token), DIBIT_OK);
    assert_int_equal(take(&f, &token), DIBIT_BAD_STATE);
    run(&f, 1, true); /* a run too many, and its end */
    dibit_run_cancel(f.session);
    assert_int_equal(take(&f, &token), DIBIT_BAD_STATE);
    assert_int_equal(dibit_state_truncate(f.state, 7, &f.error), DIBIT_OK);
    run(&f, 1, false);
    f.run.n_inputs = 2;
    f.run.feed = true;
    assert_int_equal(dibit_run_begin(f.session, &f.run, &f.error), DIBIT_BAD_INPUT);
    assert_non_null(strstr(f.error.text, "comes from the run before"));
    stop(&f); /* with a token that nobody reads */
}

/* What outputs cost that nobody asks for: nothing. */
static void test_only_wanted_outputs_are_computed(void **unused) {
    (void)unused;
    fixture f;
    start(&f, LLAMA, NULL, 0);
    uint64_t dispatches[2];
    for (int wanted = 1; wanted >= 0; wanted--) {
        assert_int_equal(begin(&f, 3, false), DIBIT_OK);
        dibit_run_cancel(f.session);
        f.run.sample = NULL;
        dibit_tensor logits = {.name = "logits"};
        f.run.outputs = &logits;
        f.run.n_outputs = (uint32_t)wanted;
        const dbt_hal_counters before = *counters(&f);
        assert_int_equal(dibit_session_run(f.session, &f.run, &f.error), DIBIT_OK);
        assert_int_equal(counters(&f)->reads, before.reads + (uint64_t)wanted);
        assert_int_equal(counters(&f)->submits > before.submits, true);
        dispatches[wanted] = counters(&f)->dispatches - before.dispatches;
    }
    assert_true(dispatches[0] + 3 < dispatches[1]); /* at least the last MLP, norm and head */
    assert_int_equal(dibit_state_length(f.state), 6);
    stop(&f);
}

typedef struct warm {
    fixture *f;
    uint32_t n_tokens;
    dbt_hal_counters counters;
    uint64_t n_allocs;
} warm;

static bool count(void *user, uint32_t sequence, int64_t token) {
    (void)sequence, (void)token;
    warm *const w = user;
    if (++w->n_tokens == 2) {
        w->counters = *counters(w->f);
        w->n_allocs = w->f->memory.n_allocs;
    }
    return true;
}

/* From the second token on, nothing is made or allocated, and a word is read a token. */
static void test_a_warm_generation_makes_nothing(void **unused) {
    (void)unused;
    fixture f;
    start(&f, LLAMA, NULL, 3);
    dibit_generator *generator = NULL;
    const dibit_generator_desc desc = {
        .model = f.model, .session = f.session, .allocator = &f.allocator};
    assert_int_equal(dibit_generator_create(&desc, &generator, &f.error), DIBIT_OK);
    int64_t tokens[20];
    dibit_sequence sequence = {
        .state = f.state, .prompt = f.mask, .n_prompt = 100, .tokens = tokens, .max_tokens = 20};
    warm w = {.f = &f};
    const dibit_generation generation = {
        .sequences = &sequence, .n_sequences = 1, .on_token = count, .on_token_user = &w};
    const uint64_t reads = counters(&f)->reads;
    assert_int_equal(dibit_generator_run(generator, &generation, &f.error), DIBIT_OK);
    assert_int_equal(w.n_tokens, 20);
    assert_int_equal(counters(&f)->created, w.counters.created);
    assert_int_equal(f.memory.n_allocs, w.n_allocs);
    assert_int_equal(counters(&f)->reads, reads + 20);
    assert_int_equal(dibit_state_length(f.state), 119);
    dibit_generator_destroy(&generator);
    stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_session_can_do),
        cmocka_unit_test(test_tokens_are_alone_in_their_slot),
        cmocka_unit_test(test_runs_begin_before_tokens_are_read),
        cmocka_unit_test(test_misuse_is_a_status),
        cmocka_unit_test(test_only_wanted_outputs_are_computed),
        cmocka_unit_test(test_a_warm_generation_makes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

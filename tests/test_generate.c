/* The generation loop on a false engine. All tests run on an engine that gives logits, on one whose device
 * chooses tokens, and on one whose runs begin ahead. */
#include "dbt_test.h"

#include "false_engine.h"

/* ---- Helpers ---- */

typedef struct fixture {
    dibit_model model;
    dibit_session session;
    dibit_generator *generator;
} fixture;

static void set_up(fixture *f, const dibit_generator_desc *options) {
    dibit_generator_desc desc = options ? *options : (dibit_generator_desc){0};
    f->model = (dibit_model){0};
    f->session.logits_type = f->session.logits_type ? f->session.logits_type : DIBIT_TYPE_FLOAT;
    desc.model = &f->model;
    desc.session = &f->session;
    dibit_error error = {0};
    if (dibit_generator_create(&desc, &f->generator, &error)) fail_msg("%s", error.text);
}

static void tear_down(fixture *f) {
    dibit_generator_destroy(&f->generator);
    assert_null(f->generator);
    free(f->session.logits);
}

/* The greedy continuation, from the definition. */
static int64_t next_greedy(const int64_t *tokens, uint64_t n) {
    float row[VOCABULARY];
    false_row(tokens, n, row);
    int64_t best = 0;
    for (int64_t i = 1; i < VOCABULARY; i++)
        if (row[i] > row[best]) best = i;
    return best;
}

static void make_prompt(int64_t *prompt, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) prompt[i] = (int64_t)(dbt_test_random(&seed) % VOCABULARY);
}

static void check_greedy(const int64_t *prompt, size_t n_prompt, const int64_t *tokens, size_t n) {
    int64_t history[MAX_TOKENS];
    memcpy(history, prompt, n_prompt * sizeof *prompt);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(tokens[i], next_greedy(history, n_prompt + i));
        history[n_prompt + i] = tokens[i];
    }
}

/* ---- Generation ---- */

static void test_greedy_chunks_and_float16(void **unused) {
    (void)unused;
    for (int kind = 0; kind < 4; kind++) {
        fixture f = {.session = {.random = kind & 1 ? 7 : 0,
                                 .logits_type = kind & 2 ? DIBIT_TYPE_FLOAT16 : DIBIT_TYPE_FLOAT}};
        set_up(&f, NULL);
        int64_t prompt[1100], tokens[40];
        make_prompt(prompt, 1100, 1);
        dibit_state state = {.length = 0};
        dibit_sequence sequence = {.state = &state,
                                   .prompt = prompt,
                                   .n_prompt = 1100,
                                   .tokens = tokens,
                                   .max_tokens = 40};
        dibit_error error = {0};
        assert_int_equal(
            dibit_generator_run(
                f.generator, &(dibit_generation){.sequences = &sequence, .n_sequences = 1}, &error),
            DIBIT_OK);
        assert_int_equal(sequence.n_tokens, 40);
        assert_int_equal(sequence.finish, DIBIT_FINISH_LENGTH);
        check_greedy(prompt, 1100, tokens, 40);
        assert_int_equal(state.length, 1100 + 39);
        assert_int_equal(f.session.largest_chunk, 512);
        assert_int_equal(f.session.n_runs, 3 + 39);
        assert_int_equal(f.session.most_rows, 1);
        assert_int_equal(f.session.most_unread, engine);
        if (engine == GIVES_LOGITS)
            assert_int_equal(dibit_generator_vocabulary(f.generator), VOCABULARY);
        tear_down(&f);
    }
}

/* Sequences of different lengths in a batch say what each says alone, also when the engine refuses to
 * run them together. */
static void test_batch(void **unused) {
    (void)unused;
    for (int kind = 0; kind < 2; kind++) {
        fixture f = {.session = {.equal_lengths = kind, .random = 3}};
        set_up(&f, NULL);
        static dibit_state states[3];
        memset(states, 0, sizeof states);
        int64_t prompts[3][9], tokens[3][30];
        dibit_sequence sequences[3];
        for (int i = 0; i < 3; i++) {
            make_prompt(prompts[i], 9, (uint64_t)i + 5);
            sequences[i] = (dibit_sequence){.state = &states[i],
                                            .prompt = prompts[i],
                                            .n_prompt = (size_t)(3 + 3 * i),
                                            .tokens = tokens[i],
                                            .max_tokens = (size_t)(10 + 10 * i)};
        }
        dibit_error error = {0};
        assert_int_equal(
            dibit_generator_run(
                f.generator, &(dibit_generation){.sequences = sequences, .n_sequences = 3}, &error),
            DIBIT_OK);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(sequences[i].n_tokens, 10 + 10 * i);
            check_greedy(prompts[i], 3 + 3 * i, tokens[i], sequences[i].n_tokens);
        }
        assert_int_equal(f.session.widest_batch, kind ? 1 : 3);
        tear_down(&f);
    }
}

/* A second turn feeds what the state does not hold, and goes on as one long sequence. */
static void test_stop_and_next_turn(void **unused) {
    (void)unused;
    fixture f = {0};
    set_up(&f, NULL);
    int64_t prompt[64], tokens[30];
    make_prompt(prompt, 5, 2);
    int64_t expected[30], history[64];
    memcpy(history, prompt, sizeof history);
    for (size_t i = 0; i < 30; i++) history[5 + i] = expected[i] = next_greedy(history, 5 + i);
    size_t at = 0; /* stop at the first token that did not occur before */
    for (size_t k = 6; at == 0; k++) {
        size_t i = 0;
        while (i < k && expected[i] != expected[k]) i++;
        if (i == k) at = k;
    }
    dibit_state state = {.length = 0};
    const int64_t stop[] = {-1, expected[at]};
    dibit_sequence sequence = {.state = &state,
                               .prompt = prompt,
                               .n_prompt = 5,
                               .stop = stop,
                               .n_stop = 2,
                               .tokens = tokens,
                               .max_tokens = 30};
    const dibit_generation generation = {.sequences = &sequence, .n_sequences = 1};
    dibit_error error = {0};
    assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_OK);
    assert_int_equal(sequence.finish, DIBIT_FINISH_STOP);
    assert_int_equal(sequence.stop_token, expected[at]);
    assert_int_equal(sequence.n_tokens, at);
    assert_int_equal(state.length, 5 + at);
    assert_memory_equal(tokens, expected, at * sizeof *tokens);

    memcpy(prompt + 5, tokens, at * sizeof *tokens);
    prompt[5 + at] = stop[1];
    prompt[6 + at] = 11;
    sequence.prompt = prompt + state.length;
    sequence.n_prompt = 2;
    sequence.n_stop = 0;
    assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_OK);
    assert_int_equal(sequence.n_tokens, 30);
    check_greedy(prompt, 7 + at, tokens, 30);
    tear_down(&f);
}

static bool say_three(void *user, uint32_t sequence, int64_t token) {
    (void)sequence, (void)token;
    return ++*(int *)user < 3;
}

static void test_context_and_cancel(void **unused) {
    (void)unused;
    fixture f = {.session = {.random = 9}};
    set_up(&f, &(dibit_generator_desc){.context_length = 20});
    int64_t prompt[21], tokens[64];
    make_prompt(prompt, 21, 4);
    dibit_state state = {.length = 0};
    dibit_sequence sequence = {
        .state = &state, .prompt = prompt, .n_prompt = 21, .tokens = tokens, .max_tokens = 64};
    dibit_generation generation = {.sequences = &sequence, .n_sequences = 1};
    dibit_error error = {0};
    assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_CAPACITY);
    sequence.n_prompt = 15;
    assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_OK);
    assert_int_equal(sequence.finish, DIBIT_FINISH_CONTEXT);
    assert_int_equal(sequence.n_tokens, 6);
    assert_int_equal(state.length, 20);

    state.length = 0;
    int said = 0;
    generation.on_token = say_three;
    generation.on_token_user = &said;
    assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_CANCELLED);
    assert_int_equal(sequence.finish, DIBIT_FINISH_CANCELLED);
    assert_int_equal(sequence.n_tokens, 3);

    state.length = 0;
    generation.on_token = NULL;
    assert_int_equal(dibit_generator_begin(f.generator, &generation, &error), DIBIT_OK);
    assert_int_equal(dibit_generator_begin(f.generator, &generation, &error), DIBIT_BAD_STATE);
    while (f.session.run == NULL)
        assert_int_equal(dibit_generator_poll(f.generator, &error), DIBIT_PENDING);
    const uint32_t before = f.session.n_cancelled;
    dibit_generator_cancel(f.generator);
    assert_int_equal(f.session.n_cancelled, before + 1);
    assert_int_equal(sequence.finish, DIBIT_FINISH_CANCELLED);
    assert_int_equal(dibit_generator_poll(f.generator, &error), DIBIT_BAD_STATE);
    tear_down(&f);
}

/* Wherever it is cancelled, a state holds what was fed and said, but for the last token. */
static void test_cancel_anywhere(void **unused) {
    (void)unused;
    for (int polls = 0; polls < 60; polls++) {
        fixture f = {.session = {.random = (uint64_t)polls + 1}};
        set_up(&f, &(dibit_generator_desc){.max_chunk = 4});
        int64_t prompt[10], tokens[64];
        make_prompt(prompt, 10, 6);
        dibit_state state = {.length = 0};
        dibit_sequence sequence = {
            .state = &state, .prompt = prompt, .n_prompt = 10, .tokens = tokens, .max_tokens = 64};
        const dibit_generation generation = {.sequences = &sequence, .n_sequences = 1};
        dibit_error error = {0};
        assert_int_equal(dibit_generator_begin(f.generator, &generation, &error), DIBIT_OK);
        for (int i = 0; i < polls; i++)
            assert_int_equal(dibit_generator_poll(f.generator, &error), DIBIT_PENDING);
        dibit_generator_cancel(f.generator);
        check_greedy(prompt, 10, tokens, sequence.n_tokens);
        if (sequence.n_tokens == 0) {
            assert_true(state.length % 4 == 0 && state.length <= 8);
        } else {
            assert_in_range(state.length, 10 + sequence.n_tokens - 1, 10 + sequence.n_tokens);
            if (engine != GIVES_LOGITS) assert_int_equal(state.length, 10 + sequence.n_tokens - 1);
        }
        assert_int_equal(f.session.n_unread, 0);
        tear_down(&f);
    }
}

/* A run ahead that fails is begun again with its token known, and only then counts. */
static void test_a_run_ahead_fails(void **unused) {
    (void)unused;
    for (int kind = 0; kind < 4; kind++) {
        fixture f = {.session = {.fails_fed = 5, .fails_late = kind & 1, .random = kind & 2}};
        set_up(&f, NULL);
        int64_t tokens[2][20];
        for (int i = 0; i < 2; i++) { /* the second fails nowhere */
            int64_t prompt[3] = {1, 2, 3};
            dibit_state state = {.length = 0};
            dibit_sequence sequence = {.state = &state,
                                       .prompt = prompt,
                                       .n_prompt = 3,
                                       .tokens = tokens[i],
                                       .max_tokens = 20,
                                       .sampling = {.temperature = 1, .top_k = 20, .seed = 3}};
            dibit_error error = {0};
            assert_int_equal(
                dibit_generator_run(f.generator,
                                    &(dibit_generation){.sequences = &sequence, .n_sequences = 1},
                                    &error),
                DIBIT_OK);
            assert_int_equal(state.length, 3 + 19);
        }
        assert_memory_equal(tokens[0], tokens[1], sizeof tokens[0]);
        assert_int_equal(f.session.n_fed, engine == RUNS_AHEAD ? 5 + 19 : 0);
        tear_down(&f);
    }
}

/* ---- A device that fails ---- */

typedef struct told {
    int64_t tokens[2][30];
    size_t n[2];
} speech;

static bool note_token(void *user, uint32_t sequence, int64_t token) {
    speech *const t = user;
    t->tokens[sequence][t->n[sequence]++] = token;
    return true;
}

/* Two sequences, the second one with a past, chunks of 4 tokens; the device fails at its call number
 * `at` (0: never). Returns whether it came to that. */
static bool run_with_failure(uint32_t at, dibit_status status, const dibit_sampling *sampling,
                             dibit_sequence sequences[2], speech *said) {
    static dibit_state states[2];
    static int64_t prompts[2][11], tokens[2][30];
    memset(states, 0, sizeof states);
    *said = (speech){0};
    fixture f = {.session = {.random = at,
                             .loses_at = at,
                             .fails_with = status,
                             .may_leave = true,
                             .n_planning = 3,
                             .states = {&states[0], &states[1]}}};
    set_up(&f, &(dibit_generator_desc){.max_chunk = 4});
    for (int i = 0; i < 2; i++) make_prompt(prompts[i], 11, (uint64_t)i + 21);
    memcpy(states[1].tokens, prompts[1], 6 * sizeof(int64_t));
    states[1].length = 6;
    sequences[0] =
        (dibit_sequence){.state = &states[0], .prompt = prompts[0], .n_prompt = 9, .max_tokens = 9};
    sequences[1] = (dibit_sequence){.state = &states[1],
                                    .past = prompts[1],
                                    .n_past = 6,
                                    .prompt = prompts[1] + 6,
                                    .n_prompt = 5,
                                    .max_tokens = 14};
    for (int i = 0; i < 2; i++) {
        sequences[i].tokens = tokens[i];
        sequences[i].sampling = *sampling;
    }
    dibit_error error = {0};
    const dibit_generation generation = {
        .sequences = sequences, .n_sequences = 2, .on_token = note_token, .on_token_user = said};
    const dibit_status got = dibit_generator_run(f.generator, &generation, &error);
    if (got) fail_msg("at call %u: %s: %s", (unsigned)at, dibit_status_name(got), error.text);
    const bool failed = at && f.session.n_calls >= at;
    /* What fails once, in a run ahead, is begun again on the device. */
    assert_true(f.session.left == failed ||
                (engine == RUNS_AHEAD && status == DIBIT_OUT_OF_MEMORY));
    for (int i = 0; i < 2; i++) { /* states hold what they should, whoever computed it */
        const size_t past = sequences[i].n_past, n = sequences[i].n_prompt, held = past + n;
        assert_int_equal(states[i].length, held + sequences[i].n_tokens - 1);
        assert_memory_equal(states[i].tokens, prompts[i], held * sizeof(int64_t));
        assert_memory_equal(states[i].tokens + held, tokens[i],
                            (sequences[i].n_tokens - 1) * sizeof(int64_t));
        assert_int_equal(said->n[i], sequences[i].n_tokens);
        assert_memory_equal(said->tokens[i], tokens[i], said->n[i] * sizeof(int64_t));
    }
    tear_down(&f);
    return failed;
}

/* Wherever the device fails, the CPU goes on with the same tokens, each said once. */
static void test_the_cpu_takes_over(void **unused) {
    (void)unused;
    static const dibit_sampling samplings[] = {{.temperature = 0},
                                               {.temperature = 1, .top_k = 40, .seed = 5},
                                               {.temperature = 0.7f, .repetition_penalty = 1.3f}};
    static const dibit_status statuses[] = {DIBIT_DEVICE_LOST, DIBIT_OUT_OF_MEMORY};
    for (int k = 0; k < 3; k++) {
        dibit_sequence sequences[2];
        speech undisturbed, now;
        run_with_failure(0, DIBIT_DEVICE_LOST, &samplings[k], sequences, &undisturbed);
        for (int s = 0; s < 2; s++) {
            uint32_t at = 1;
            while (run_with_failure(at, statuses[s], &samplings[k], sequences, &now)) {
                assert_memory_equal(&now, &undisturbed, sizeof now);
                at++;
            }
            assert_true(at > 30);
        }
    }
}

/* A past that the caller does not tell cannot be read again; a session may not be allowed to leave. */
static void test_a_failure_without_a_way_out(void **unused) {
    (void)unused;
    for (int kind = 0; kind < 2; kind++) {
        dibit_state state = {.tokens = {5, 6}, .length = kind ? 0 : 2};
        fixture f = {.session = {.loses_at = 9,
                                 .fails_with = DIBIT_DEVICE_LOST,
                                 .may_leave = !kind,
                                 .states = {&state}}};
        set_up(&f, NULL);
        int64_t prompt[4] = {1, 2, 3, 4}, tokens[20];
        dibit_sequence sequence = {
            .state = &state, .prompt = prompt, .n_prompt = 4, .tokens = tokens, .max_tokens = 20};
        const dibit_generation generation = {.sequences = &sequence, .n_sequences = 1};
        dibit_error error = {0};
        assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_DEVICE_LOST);
        assert_string_equal(error.text, "the false device failed");
        assert_true(sequence.n_tokens > 0);
        assert_int_equal(sequence.finish, DIBIT_FINISH_CANCELLED);
        assert_int_equal(state.length, (kind ? 0 : 2) + 4 + sequence.n_tokens - 1);
        if (!kind) { /* lost by something else; the caller knows its text, or does not */
            dibit_session_leave_device(&f.session, &error, &error);
            assert_int_equal(dibit_generator_run(f.generator, &generation, &error),
                             DIBIT_DEVICE_LOST);
            assert_non_null(strstr(error.text, "`past` does not have its"));
            int64_t history[26] = {5, 6, 1, 2, 3, 4};
            memcpy(history + 6, tokens, sizeof tokens);
            sequence.past = history;
            sequence.n_past = (size_t)state.length;
            sequence.prompt = history + state.length;
            sequence.n_prompt = 1;
            int64_t more[20];
            sequence.tokens = more;
            assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_OK);
            check_greedy(history, sequence.n_past + 1, more, 20);
        }
        tear_down(&f);
    }
}

/* The device draws what the sampler would. */
static void test_who_draws_does_not_matter(void **unused) {
    (void)unused;
    static int64_t told[3][4][60]; /* by the engine that gives logits, which comes first */
    static const dibit_sampling options[3] = {
        {.temperature = 1, .top_k = 40},
        {.temperature = 0.8f, .top_k = 64, .top_p = 0.9f},
        {.temperature = 2, .top_k = 10, .min_p = 0.2f},
    };
    for (int o = 0; o < 3; o++) {
        for (uint64_t seed = 0; seed < 4; seed++) {
            fixture f = {0};
            set_up(&f, NULL);
            int64_t prompt[3] = {1, 2, 3}, tokens[60];
            dibit_state state = {.length = 0};
            dibit_sequence sequence = {.state = &state,
                                       .prompt = prompt,
                                       .n_prompt = 3,
                                       .tokens = tokens,
                                       .max_tokens = 60,
                                       .sampling = options[o]};
            sequence.sampling.seed = seed;
            dibit_error error = {0};
            assert_int_equal(
                dibit_generator_run(f.generator,
                                    &(dibit_generation){.sequences = &sequence, .n_sequences = 1},
                                    &error),
                DIBIT_OK);
            if (engine == GIVES_LOGITS) memcpy(told[o][seed], tokens, sizeof tokens);
            assert_memory_equal(told[o][seed], tokens, sizeof tokens);
            assert_int_equal(f.session.most_unread, engine);
            tear_down(&f);
        }
    }
}

static void test_score(void **unused) {
    (void)unused;
    fixture f = {0};
    set_up(&f, NULL);
    int64_t tokens[1000];
    static double nll[999];
    make_prompt(tokens, 1000, 8);
    dibit_error error = {0};
    assert_int_equal(
        dibit_generator_score(
            f.generator, &(dibit_score){.tokens = tokens, .n_tokens = 1000, .nll = nll}, &error),
        DIBIT_OK);
    for (size_t i = 0; i < 999; i++) {
        float row[VOCABULARY];
        false_row(tokens, i + 1, row);
        double sum = 0;
        for (int k = 0; k < VOCABULARY; k++) sum += exp((double)row[k]);
        assert_true(fabs(nll[i] - (log(sum) - (double)row[tokens[i + 1]])) < 1e-9);
    }
    assert_int_equal(f.session.most_rows, 512);
    tokens[999] = VOCABULARY;
    assert_int_equal(
        dibit_generator_score(
            f.generator, &(dibit_score){.tokens = tokens, .n_tokens = 1000, .nll = nll}, &error),
        DIBIT_OUT_OF_RANGE);
    tear_down(&f);
}

static void test_refuses(void **unused) {
    (void)unused;
    dibit_model model = {.extra_input = "use_cache_branch"};
    dibit_session session = {0};
    dibit_generator *generator = NULL;
    dibit_error error = {0};
    const dibit_generator_desc desc = {.model = &model, .session = &session};
    assert_int_equal(dibit_generator_create(&desc, &generator, &error), DIBIT_UNSUPPORTED);
    assert_non_null(strstr(error.text, "use_cache_branch"));
    model = (dibit_model){.no_logits = true};
    assert_int_equal(dibit_generator_create(&desc, &generator, &error), DIBIT_UNSUPPORTED);
    assert_null(generator);

    fixture f = {.session = {.not_numbers = true}};
    set_up(&f, NULL);
    dibit_state state = {.length = 0};
    int64_t prompt[1] = {5}, tokens[4];
    dibit_sequence sequences[2] = {
        {.state = &state, .prompt = prompt, .n_prompt = 1, .tokens = tokens, .max_tokens = 4}};
    dibit_generation generation = {.sequences = sequences, .n_sequences = 1};
    assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_OUT_OF_RANGE);
    prompt[0] = -1;
    assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_OUT_OF_RANGE);
    prompt[0] = 1;
    sequences[0].sampling.temperature = -1;
    assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_BAD_ARGUMENT);
    sequences[0].sampling.temperature = 0;
    sequences[1] = sequences[0];
    generation.n_sequences = 2;
    assert_int_equal(dibit_generator_run(f.generator, &generation, &error), DIBIT_BAD_ARGUMENT);
    tear_down(&f);
}

/* ---- Sampling ---- */

static void test_seed(void **unused) {
    (void)unused;
    fixture f = {0};
    set_up(&f, NULL);
    int64_t prompt[4] = {1, 2, 3, 4}, tokens[3][50];
    for (int i = 0; i < 3; i++) {
        dibit_state state = {.length = 0};
        dibit_sequence sequence = {.state = &state,
                                   .prompt = prompt,
                                   .n_prompt = 4,
                                   .tokens = tokens[i],
                                   .max_tokens = 50,
                                   .sampling = {.temperature = 1, .seed = i == 2 ? 8 : 7}};
        dibit_error error = {0};
        assert_int_equal(
            dibit_generator_run(
                f.generator, &(dibit_generation){.sequences = &sequence, .n_sequences = 1}, &error),
            DIBIT_OK);
    }
    assert_memory_equal(tokens[0], tokens[1], sizeof tokens[0]);
    assert_memory_not_equal(tokens[0], tokens[2], sizeof tokens[0]);
    tear_down(&f);
}

/* With the penalty at its strongest no token comes twice. */
static void test_penalty_sees_prompt_and_answer(void **unused) {
    (void)unused;
    fixture f = {0};
    set_up(&f, NULL);
    int64_t prompt[30], past[4] = {90, 91, 92, 93}, tokens[40];
    for (int i = 0; i < 30; i++) prompt[i] = i;
    dibit_state state = {.tokens = {90, 91, 92, 93}, .length = 4};
    dibit_sequence sequence = {.state = &state,
                               .prompt = prompt,
                               .n_prompt = 30,
                               .past = past,
                               .n_past = 4,
                               .tokens = tokens,
                               .max_tokens = 40,
                               .sampling = {.repetition_penalty = 1e5f}};
    dibit_error error = {0};
    assert_int_equal(
        dibit_generator_run(f.generator,
                            &(dibit_generation){.sequences = &sequence, .n_sequences = 1}, &error),
        DIBIT_OK);
    bool came[VOCABULARY] = {false};
    for (int i = 0; i < 40; i++) {
        assert_false(came[tokens[i]] || tokens[i] < 30 || (tokens[i] >= 90 && tokens[i] <= 93));
        came[tokens[i]] = true;
    }
    tear_down(&f);
}

/* Every allocation fails once; what follows a failure works. */
typedef struct failing {
    int countdown;
    int64_t live;
} failing;

static void *failing_alloc(void *user, size_t bytes, size_t alignment) {
    (void)alignment;
    failing *f = user;
    if (f->countdown-- == 0) return NULL;
    f->live += (int64_t)bytes;
    return malloc(bytes);
}

static void failing_release(void *user, void *memory, size_t bytes) {
    ((failing *)user)->live -= (int64_t)bytes;
    free(memory);
}

static void test_every_allocation_fails(void **unused) {
    (void)unused;
    bool done = false;
    for (int n = 0; !done; n++) {
        failing memory = {.countdown = n};
        const dibit_allocator allocator = {failing_alloc, failing_release, &memory};
        dibit_model model = {0};
        dibit_session session = {.logits_type = DIBIT_TYPE_FLOAT};
        dibit_generator *generator = NULL;
        dibit_error error = {0};
        dibit_status status = dibit_generator_create(
            &(dibit_generator_desc){.model = &model, .session = &session, .allocator = &allocator},
            &generator, &error);
        int64_t prompt[3] = {1, 2, 3}, tokens[20];
        for (int attempt = 0; attempt < 2 && generator; attempt++) {
            dibit_state state = {.length = 0};
            dibit_sequence sequence = {.state = &state,
                                       .prompt = prompt,
                                       .n_prompt = 3,
                                       .tokens = tokens,
                                       .max_tokens = 20,
                                       .sampling = {.temperature = 1, .repetition_penalty = 2}};
            status = dibit_generator_run(
                generator, &(dibit_generation){.sequences = &sequence, .n_sequences = 1}, &error);
            if (attempt == 1) assert_int_equal(status, DIBIT_OK);
            done = attempt == 0 && status == DIBIT_OK;
            if (done) break;
            assert_int_equal(attempt ? DIBIT_OUT_OF_MEMORY : status, DIBIT_OUT_OF_MEMORY);
        }
        if (!generator) assert_int_equal(status, DIBIT_OUT_OF_MEMORY);
        dibit_generator_destroy(&generator);
        assert_int_equal(memory.live, 0);
        free(session.logits);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_chunks_and_float16),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_stop_and_next_turn),
        cmocka_unit_test(test_context_and_cancel),
        cmocka_unit_test(test_cancel_anywhere),
        cmocka_unit_test(test_a_run_ahead_fails),
        cmocka_unit_test(test_the_cpu_takes_over),
        cmocka_unit_test(test_a_failure_without_a_way_out),
        cmocka_unit_test(test_who_draws_does_not_matter),
        cmocka_unit_test(test_score),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_penalty_sees_prompt_and_answer),
        cmocka_unit_test(test_every_allocation_fails),
    };
    int failed = 0;
    for (engine = GIVES_LOGITS; engine <= RUNS_AHEAD; engine++)
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}

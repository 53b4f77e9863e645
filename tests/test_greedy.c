/* Greedy text on a device is the CPU's.
 *
 *     test_greedy                                    models of the tests, made-up prompts
 *     test_greedy MODEL_DIR PROMPTS [--tokens 64] [--first N] [--activations float|int8]
 *     test_greedy MODEL_DIR PROMPTS --answers FILE ...    judges answers that came from elsewhere
 *
 * PROMPTS are texts with a line of %% between them (tests/data/greedy_prompts.txt). The device answers, with
 * float and with int8 activations; then the CPU runs once over prompt and answer, and every token has to be the
 * one with its highest logit. Where they part, the CPU runs six times more with noise within the rounding bounds
 * of every node, as `dibit check` does: four times what that moves a logit of this row is how far two right
 * engines may be apart. The parting is a near tie when the CPU's margin between the two tokens is below
 * twice that, since each of the two logits may be off. What follows is not compared.
 *
 * FILE has a line for each of the first prompts: the ids of its answer, and "stop" where that ended it. */
#include "dbt_test.h"

#include "base/packed.h"
#include "dibit/lm.h"

enum { NOISE_RUNS = 6, SPREAD_FACTOR = 4, ULPS = 2, MOST_TOKENS = 512 };

static dibit_error error;

static void ok(dibit_status status) {
    if (status) fail_msg("%s", error.text);
}

typedef struct options {
    const char *folder, *prompts, *answers;
    size_t tokens, first;
    dibit_activations kind; /* AUTO: both */
} options;

/* In answers that were read: some token that ends a text. */
enum { ANY_STOP = -1 };

static options o = {.tokens = 64, .first = SIZE_MAX};

/* ---- A model on both ---- */

typedef struct engines {
    dibit_model *model;
    dibit_device *device, *cpu;
    dibit_session *on_device, *on_cpu;
    dibit_activations kind;
    const int64_t *stop;
    size_t n_stop;
    FILE *answers; /* of others, if they are judged */
    size_t prompts, same, ties, wrong, tokens;
} engines;

/* Without a device in the environment the CPU stands for one. */
static void open_devices(engines *e) {
    const char *const name = getenv("DIBIT_TEST_DEVICE");
    const bool gpu = name && strcmp(name, "webgpu") == 0;
    const dibit_device_desc desc = {.kind = gpu ? DIBIT_DEVICE_WEBGPU : DIBIT_DEVICE_CPU,
                                    .webgpu_library = getenv("DIBIT_WEBGPU_LIB")};
    ok(dibit_device_create(&desc, &e->device, &error));
    ok(dibit_device_create(NULL, &e->cpu, &error));
}

static void open_engines(engines *e, const char *path, dibit_activations kind) {
    *e = (engines){.kind = kind};
    open_devices(e);
    ok(dibit_model_load(&(dibit_model_desc){.path = path}, &e->model, &error));
    const dibit_session_desc device = {.device = e->device,
                                       .activations = kind,
                                       .sample_output = "logits",
                                       .feed_input = "input_ids"};
    const dibit_session_desc cpu = {.device = e->cpu, .activations = kind};
    ok(dibit_session_create(e->model, &device, &e->on_device, &error));
    ok(dibit_session_create(e->model, &cpu, &e->on_cpu, &error));
}

static void close_engines(engines *e) {
    dibit_session_destroy(&e->on_device);
    dibit_session_destroy(&e->on_cpu);
    dibit_model_destroy(&e->model);
    dibit_device_destroy(&e->device);
    dibit_device_destroy(&e->cpu);
}

/* The next line of the file. */
static size_t read_answer(FILE *file, int64_t *tokens) {
    char line[16 * (MOST_TOKENS + 1)];
    assert_non_null(fgets(line, sizeof line, file));
    size_t n = 0;
    for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
        assert_in_range(n, 0, MOST_TOKENS);
        tokens[n++] = strcmp(word, "stop") == 0 ? ANY_STOP : strtoll(word, NULL, 10);
    }
    return n;
}

/* As many tokens as the device says, with the one that made it stop. */
static size_t answer(engines *e, const int64_t *prompt, size_t n_prompt, int64_t *tokens) {
    if (e->answers) return read_answer(e->answers, tokens);
    dibit_generator *generator = NULL;
    dibit_state *state = NULL;
    ok(dibit_generator_create(&(dibit_generator_desc){.model = e->model, .session = e->on_device},
                              &generator, &error));
    ok(dibit_state_create(e->on_device, NULL, &state, &error));
    dibit_sequence sequence = {.state = state,
                               .prompt = prompt,
                               .n_prompt = n_prompt,
                               .stop = e->stop,
                               .n_stop = e->n_stop,
                               .tokens = tokens,
                               .max_tokens = o.tokens};
    ok(dibit_generator_run(generator, &(dibit_generation){.sequences = &sequence, .n_sequences = 1},
                           &error));
    dibit_state_destroy(&state);
    dibit_generator_destroy(&generator);
    if (sequence.finish != DIBIT_FINISH_STOP) return sequence.n_tokens;
    tokens[sequence.n_tokens] = sequence.stop_token;
    return sequence.n_tokens + 1;
}

/* ---- The CPU's logits ---- */

typedef struct logits {
    float *rows; /* [n, vocabulary] */
    int64_t vocabulary;
    float ulp; /* of their type */
} logits;

static bool has_input(const dibit_model *model, const char *name) {
    dibit_value_info info;
    for (uint32_t i = 0; dibit_model_input(model, i, &info) == DIBIT_OK; i++) {
        if (strcmp(info.name, name) == 0) return true;
    }
    return false;
}

/* The last rows after so many tokens, from an empty past. */
static logits run(const engines *e, dibit_session *session, const int64_t *ids, size_t n_ids,
                  uint32_t rows) {
    const int64_t n = (int64_t)n_ids;
    int64_t *const ones = malloc(2 * n_ids * sizeof *ones), *const positions = ones + n;
    int64_t *const tokens = malloc(n_ids * sizeof *tokens);
    assert_true(ones && tokens);
    for (int64_t i = 0; i < n; i++) {
        ones[i] = 1;
        positions[i] = i;
    }
    memcpy(tokens, ids, n_ids * sizeof *tokens);
    dibit_tensor inputs[3] = {{"input_ids", DIBIT_TYPE_INT64, 2, {1, n}, tokens, 0}};
    uint32_t n_inputs = 1;
    if (has_input(e->model, "attention_mask"))
        inputs[n_inputs++] = (dibit_tensor){"attention_mask", DIBIT_TYPE_INT64, 2, {1, n}, ones, 0};
    if (has_input(e->model, "position_ids"))
        inputs[n_inputs++] =
            (dibit_tensor){"position_ids", DIBIT_TYPE_INT64, 2, {1, n}, positions, 0};
    dibit_state *state = NULL;
    ok(dibit_state_create(session, NULL, &state, &error));
    dibit_tensor y = {.name = "logits"};
    const dibit_run desc = {.inputs = inputs,
                            .n_inputs = n_inputs,
                            .outputs = &y,
                            .n_outputs = 1,
                            .states = &state,
                            .n_states = 1,
                            .last_rows = rows};
    ok(dibit_session_run(session, &desc, &error));
    logits out = {.vocabulary = y.dims[2],
                  .ulp = y.type == DIBIT_TYPE_FLOAT16 ? 0x1p-10f : 0x1p-23f};
    const int64_t first = (y.dims[1] - rows) * out.vocabulary; /* not all models leave rows out */
    out.rows = malloc((size_t)(rows * out.vocabulary) * sizeof *out.rows);
    assert_non_null(out.rows);
    for (int64_t i = 0; i < rows * out.vocabulary; i++)
        out.rows[i] = dbt_float_at(y.data, y.type, first + i);
    dibit_state_destroy(&state);
    free(ones);
    free(tokens);
    return out;
}

static int64_t best_of(const float *row, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) best = row[i] > row[best] ? i : best;
    return best;
}

/* The likeliest of the tokens that end a text. */
static int64_t best_stop(const engines *e, const float *row) {
    int64_t best = e->stop[0];
    for (size_t i = 1; i < e->n_stop; i++) best = row[e->stop[i]] > row[best] ? e->stop[i] : best;
    return best;
}

/* How far two right engines may be apart after these tokens. */
static float allowed(const engines *e, const int64_t *ids, size_t n) {
    const logits still = run(e, e->on_cpu, ids, n, 1);
    float spread = 0, largest = 0;
    for (int64_t i = 0; i < still.vocabulary; i++) largest = fmaxf(largest, fabsf(still.rows[i]));
    for (uint64_t seed = 1; seed <= NOISE_RUNS; seed++) {
        const dibit_session_desc desc = {
            .device = e->cpu, .activations = e->kind, .noise_seed = seed};
        dibit_session *session = NULL;
        ok(dibit_session_create(e->model, &desc, &session, &error));
        const logits moved = run(e, session, ids, n, 1);
        for (int64_t i = 0; i < still.vocabulary; i++)
            spread = fmaxf(spread, fabsf(moved.rows[i] - still.rows[i]));
        free(moved.rows);
        dibit_session_destroy(&session);
    }
    free(still.rows);
    return SPREAD_FACTOR * spread + ULPS * still.ulp * largest;
}

/* ---- Comparing ---- */

static void judge(engines *e, const int64_t *ids, size_t at, const float *row, int64_t vocabulary,
                  int64_t token) {
    const int64_t best = best_of(row, vocabulary);
    const float margin = row[best] - row[token], bound = allowed(e, ids, at);
    const bool near = margin < 2 * bound; /* false for NaNs */
    e->ties += near;
    e->wrong += !near;
    printf(", then %lld for %lld: margin %.3g, bound %.3g, %s", (long long)token, (long long)best,
           (double)margin, (double)bound, near ? "near tie" : "WRONG");
}

static void compare(engines *e, const int64_t *prompt, size_t n_prompt) {
    int64_t *const ids = malloc((n_prompt + MOST_TOKENS + 1) * sizeof *ids);
    assert_non_null(ids);
    memcpy(ids, prompt, n_prompt * sizeof *ids);
    const size_t n = answer(e, prompt, n_prompt, ids + n_prompt);
    if (n == 0) fail_msg("there is no answer to a prompt of %zu tokens", n_prompt);
    const logits l = run(e, e->on_cpu, ids, n_prompt + n - 1, (uint32_t)n);
    size_t i = 0;
    for (; i < n; i++) {
        const float *const row = l.rows + (int64_t)i * l.vocabulary;
        int64_t *const token = &ids[n_prompt + i];
        if (*token == ANY_STOP) *token = best_stop(e, row);
        if (best_of(row, l.vocabulary) != *token) break;
    }
    printf("  prompt of %zu tokens: %zu tokens the same", n_prompt, i);
    if (i < n) {
        judge(e, ids, n_prompt + i, l.rows + (int64_t)i * l.vocabulary, l.vocabulary,
              ids[n_prompt + i]);
    }
    printf("\n");
    fflush(stdout);
    e->prompts++;
    e->tokens += i;
    e->same += i == n;
    free(l.rows);
    free(ids);
}

static void report(engines *e) {
    printf("%s: %zu of %zu prompts the same, %zu near ties, %zu wrong, %zu tokens the same on %s\n",
           e->kind == DIBIT_ACTIVATIONS_INT8 ? "int8" : "float", e->same, e->prompts, e->ties,
           e->wrong, e->tokens, dibit_device_name(e->device));
    const size_t wrong = e->wrong;
    close_engines(e);
    assert_int_equal(wrong, 0);
}

/* ---- Models of the tests ---- */

static void compare_made_up(const char *path, dibit_activations kind) {
    engines e;
    uint64_t seed = 11;
    open_engines(&e, path, kind);
    const size_t lengths[] = {1, 5, 33};
    for (int i = 0; i < 3; i++) {
        int64_t prompt[33];
        for (size_t k = 0; k < lengths[i]; k++)
            prompt[k] = (int64_t)(dbt_test_random(&seed) % 100); /* the smallest vocabulary */
        compare(&e, prompt, lengths[i]);
    }
    report(&e);
}

#define CASES DBT_SOURCE_DIR "/tests/data/cases/"
static void test_made_up_prompts(void **state) {
    (void)state;
    o.tokens = 24;
    compare_made_up(CASES "llama.q2/model.onnx", DIBIT_ACTIVATIONS_FLOAT);
    compare_made_up(CASES "llama.q2/model.onnx", DIBIT_ACTIVATIONS_INT8);
    compare_made_up(CASES "gemma3.q2/model.onnx", DIBIT_ACTIVATIONS_FLOAT);
    compare_made_up(CASES "lfm2.q2/model.onnx", DIBIT_ACTIVATIONS_INT8);
}

/* ---- A model folder ---- */

static char *read_text(const char *path) {
    FILE *const file = fopen(path, "rb");
    if (!file) fail_msg("cannot read %s", path);
    char *const text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static bool at_end(FILE *file) {
    if (!file) return false;
    const int c = getc(file);
    if (c != EOF) ungetc(c, file);
    return c == EOF;
}

static void compare_texts(engines *e, const dibit_lm *lm, const char *text) {
    size_t number = 0;
    for (const char *at = text; at && number < o.first && !at_end(e->answers); number++) {
        const char *const end = strstr(at, "\n%%\n");
        size_t length = end ? (size_t)(end - at) : strlen(at);
        if (!end && length && at[length - 1] == '\n') length--;
        char *const content = malloc(length + 1);
        assert_non_null(content);
        memcpy(content, at, length);
        content[length] = '\0';
        const dibit_message message = {.role = "user", .content = content};
        const dibit_chat chat = {
            .messages = &message, .n_messages = 1, .add_generation_prompt = true};
        dibit_tokens prompt = {0};
        ok(dibit_lm_chat_encode(lm, &chat, &prompt, &error));
        compare(e, prompt.ids, prompt.count);
        dibit_tokens_free(&prompt);
        free(content);
        at = end ? end + 4 : NULL;
    }
}

static void test_texts(void **state) {
    (void)state;
    dibit_lm *lm = NULL;
    dibit_lm_info info;
    ok(dibit_lm_load(&(dibit_lm_desc){.path = o.folder}, &lm, &error));
    dibit_lm_get_info(lm, &info);
    char *const text = read_text(o.prompts);
    for (int i = 0; i < 2; i++) {
        const dibit_activations kind = i ? DIBIT_ACTIVATIONS_INT8 : DIBIT_ACTIVATIONS_FLOAT;
        if (o.kind != DIBIT_ACTIVATIONS_AUTO && o.kind != kind) continue;
        engines e;
        open_engines(&e, info.model_path, kind);
        if (o.answers) assert_non_null(e.answers = fopen(o.answers, "r"));
        e.stop = info.stop_tokens;
        e.n_stop = info.n_stop_tokens;
        compare_texts(&e, lm, text);
        if (e.answers) fclose(e.answers);
        report(&e);
    }
    free(text);
    dibit_lm_destroy(&lm);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tokens") == 0 && i + 1 < argc) {
            o.tokens = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--first") == 0 && i + 1 < argc) {
            o.first = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--answers") == 0 && i + 1 < argc) {
            o.answers = argv[++i];
        } else if (strcmp(argv[i], "--activations") == 0 && i + 1 < argc) {
            o.kind =
                strcmp(argv[++i], "int8") == 0 ? DIBIT_ACTIVATIONS_INT8 : DIBIT_ACTIVATIONS_FLOAT;
        } else if (!o.folder) {
            o.folder = argv[i];
        } else {
            o.prompts = argv[i];
        }
    }
    if ((o.folder && !o.prompts) || o.tokens == 0 || o.tokens > MOST_TOKENS) {
        fprintf(stderr, "usage: test_greedy [MODEL_DIR PROMPTS [--tokens N] [--first N] "
                        "[--activations float|int8] [--answers FILE]]\n");
        return 2;
    }
    const struct CMUnitTest made_up[] = {cmocka_unit_test(test_made_up_prompts)};
    const struct CMUnitTest texts[] = {cmocka_unit_test(test_texts)};
    return o.folder ? cmocka_run_group_tests(texts, NULL, NULL)
                    : cmocka_run_group_tests(made_up, NULL, NULL);
}

/* Measuring a language model: see bench_measure.h. */
#include "bench_measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if !defined(__wasm__)
#include <sys/resource.h>
#endif

/* Linux's VmHWM begins with the program; what getrusage says begins with the process that started it. */
uint64_t bench_peak_rss(void) {
#if defined(__wasm__)
    return (uint64_t)__builtin_wasm_memory_size(0) << 16; /* it never shrinks */
#else
    unsigned long long kilobytes = 0;
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        if (sscanf(line, "VmHWM: %llu", &kilobytes) == 1) break;
    }
    if (status) fclose(status);
    if (kilobytes == 0) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        kilobytes = (unsigned long long)usage.ru_maxrss;
    }
    return (uint64_t)kilobytes * 1024;
#endif
}

static void free_tokens(bench_subject *b) {
    free(b->prompt);
    free(b->ones);
    free(b->positions);
    free(b->tokens);
}

/* Makes room for n tokens. */
static void reserve(bench_subject *b, uint32_t n) {
    if (n <= b->capacity) return;
    free_tokens(b);
    b->capacity = n;
    b->prompt = dibit_cli_alloc(n, sizeof(int64_t));
    b->ones = dibit_cli_alloc(n, sizeof(int64_t));
    b->positions = dibit_cli_alloc(n, sizeof(int64_t));
    b->tokens = dibit_cli_alloc(n, sizeof(int64_t));
    const uint32_t vocabulary = dibit_generator_vocabulary(b->generator);
    for (uint32_t i = 0; i < n; i++) {
        b->prompt[i] = (int64_t)(i * 2654435761u % (vocabulary ? vocabulary : 100));
        b->ones[i] = 1;
        b->positions[i] = i;
    }
}

dibit_status bench_open(bench_subject *b, const char *path, const dibit_cli_common *common,
                        bool profile, uint32_t max_chunk, dibit_error *error) {
    const char *why;
    dibit_status status = dibit_cli_open_device(common, &b->device, &why, error);
    if (!status) status = dibit_model_load(&(dibit_model_desc){.path = path}, &b->model, error);
    if (status) return status;
    const dibit_session_desc desc = {.device = b->device,
                                     .activations = common->activations,
                                     .profile = profile,
                                     .no_fusion = common->no_fusion,
                                     .sample_output = "logits",
                                     .feed_input = "input_ids"};
    status = dibit_session_create(b->model, &desc, &b->session, error);
    if (status) return status;
    const dibit_generator_desc generator = {
        .model = b->model, .session = b->session, .max_chunk = max_chunk};
    return dibit_generator_create(&generator, &b->generator, error);
}

void bench_close(bench_subject *b) {
    dibit_generator_destroy(&b->generator);
    dibit_session_destroy(&b->session);
    dibit_model_destroy(&b->model);
    dibit_device_destroy(&b->device);
    free_tokens(b);
}

typedef struct token_times {
    bench_subject *subject;
    double first, latest; /* seconds */
} token_times;

static bool note_time(void *user, uint32_t sequence, int64_t token) {
    (void)sequence;
    (void)token;
    token_times *const times = user;
    times->latest = dibit_cli_seconds();
    if (times->first == 0) times->first = times->latest;
    if (times->subject->resets_profile) dibit_session_profile_reset(times->subject->session);
    times->subject->resets_profile = false;
    return true;
}

dibit_status bench_generate(bench_subject *b, dibit_state *state, uint32_t n_prompt,
                            uint32_t n_tokens, double *first, double *rest, dibit_error *error) {
    reserve(b, n_prompt > n_tokens ? n_prompt : n_tokens);
    dibit_state *own = NULL;
    dibit_status status = state ? DIBIT_OK : dibit_state_create(b->session, NULL, &own, error);
    if (status) return status;
    dibit_sequence sequence = {.state = state ? state : own,
                               .prompt = b->prompt,
                               .n_prompt = n_prompt,
                               .tokens = b->tokens,
                               .max_tokens = n_tokens};
    token_times times = {.subject = b};
    const dibit_generation generation = {
        .sequences = &sequence, .n_sequences = 1, .on_token = note_time, .on_token_user = &times};
    const double start = dibit_cli_seconds();
    status = dibit_generator_run(b->generator, &generation, error);
    *first = times.first - start;
    *rest = times.latest - times.first;
    dibit_state_destroy(&own);
    return status;
}

static bool has_input(const dibit_model *model, const char *name) {
    dibit_value_info info;
    for (uint32_t i = 0; dibit_model_input(model, i, &info) == DIBIT_OK; i++) {
        if (strcmp(info.name, name) == 0) return true;
    }
    return false;
}

dibit_status bench_prefill(bench_subject *b, uint32_t n, double *seconds, dibit_error *error) {
    reserve(b, n);
    const struct {
        const char *name;
        int64_t *data;
    } known[] = {
        {"input_ids", b->prompt}, {"attention_mask", b->ones}, {"position_ids", b->positions}};
    dibit_tensor inputs[3], logits = {.name = "logits"};
    uint32_t n_inputs = 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!has_input(b->model, known[i].name)) continue;
        inputs[n_inputs++] = (dibit_tensor){.name = known[i].name,
                                            .type = DIBIT_TYPE_INT64,
                                            .rank = 2,
                                            .dims = {1, n},
                                            .data = known[i].data};
    }
    dibit_state *state = NULL;
    dibit_status status = dibit_state_create(b->session, NULL, &state, error);
    if (status) return status;
    const dibit_run run = {.inputs = inputs,
                           .n_inputs = n_inputs,
                           .outputs = &logits,
                           .n_outputs = 1,
                           .states = &state,
                           .n_states = 1};
    const double start = dibit_cli_seconds();
    status = dibit_session_run(b->session, &run, error);
    *seconds = dibit_cli_seconds() - start;
    dibit_state_destroy(&state);
    return status;
}

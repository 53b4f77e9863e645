/* dibit bench: how fast a language model reads and writes.
 *
 * Reading (prefill) is measured twice: with the logits of all rows, which is what ONNX Runtime computes,
 * through a plain run; and with those of the last row, as generation needs it. Writing (decode) is
 * greedy generation. Every repetition starts with an empty state; figures are medians. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <jansson.h>

#include "cli.h"
#include "dibit/lm.h"

typedef struct bench_options {
    dibit_cli_common common;
    uint32_t prompt_tokens, gen_tokens, repetitions;
    bool profile, no_fusion;
} bench_options;

typedef struct bench {
    const bench_options *options;
    dibit_device *device;
    dibit_model *model;
    dibit_session *session;
    dibit_generator *generator;
    int64_t *prompt, *ones, *positions; /* [prompt_tokens] */
    int64_t *tokens;                    /* [gen_tokens] */
    double *prefill, *first, *decode;   /* [repetitions] seconds */
    uint64_t peak_rss_bytes;
} bench;

/* ---- Measuring --------------------------------------------------------------------------------- */

/* Linux's VmHWM begins with the program; what getrusage says begins with the process that started it. */
static uint64_t peak_rss(void) {
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
}

static bool note_time(void *user, uint32_t sequence, int64_t token) {
    (void)sequence;
    (void)token;
    double *const times = user; /* of the first token, and of the latest */
    times[1] = dibit_cli_seconds();
    if (times[0] == 0) times[0] = times[1];
    return true;
}

/* One generation from an empty state; *first and *rest in seconds. */
static dibit_status generate(bench *b, double *first, double *rest, dibit_error *error) {
    dibit_state *state = NULL;
    dibit_status status = dibit_state_create(b->session, NULL, &state, error);
    if (status) return status;
    dibit_sequence sequence = {.state = state,
                               .prompt = b->prompt,
                               .n_prompt = b->options->prompt_tokens,
                               .tokens = b->tokens,
                               .max_tokens = b->options->gen_tokens};
    double times[2] = {0, 0};
    const dibit_generation generation = {
        .sequences = &sequence, .n_sequences = 1, .on_token = note_time, .on_token_user = times};
    const double start = dibit_cli_seconds();
    status = dibit_generator_run(b->generator, &generation, error);
    *first = times[0] - start;
    *rest = times[1] - times[0];
    dibit_state_destroy(&state);
    return status;
}

static bool has_input(const dibit_model *model, const char *name) {
    dibit_value_info info;
    for (uint32_t i = 0; dibit_model_input(model, i, &info) == DIBIT_OK; i++) {
        if (strcmp(info.name, name) == 0) return true;
    }
    return false;
}

/* The prompt in one run, with logits for all of its rows. */
static dibit_status prefill(bench *b, double *seconds, dibit_error *error) {
    const int64_t n = b->options->prompt_tokens;
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

static dibit_status open_model(bench *b, const char *path, dibit_error *error) {
    const bench_options *const o = b->options;
    const char *why;
    dibit_status status = dibit_cli_open_device(&o->common, &b->device, &why, error);
    if (!status) status = dibit_model_load(&(dibit_model_desc){.path = path}, &b->model, error);
    if (status) return status;
    const dibit_session_desc desc = {.device = b->device,
                                     .activations = o->common.activations,
                                     .profile = o->profile,
                                     .no_fusion = o->no_fusion,
                                     .sample_output = "logits",
                                     .feed_input = "input_ids"};
    status = dibit_session_create(b->model, &desc, &b->session, error);
    if (status) return status;
    const dibit_generator_desc generator = {
        .model = b->model, .session = b->session, .max_chunk = o->prompt_tokens};
    return dibit_generator_create(&generator, &b->generator, error);
}

/* A warm-up, then the repetitions. Generation comes first: its peak of memory is the one that users
 * see, all rows of logits take much more. */
static dibit_status measure(bench *b, dibit_error *error) {
    const bench_options *const o = b->options;
    double ignored;
    dibit_status status = generate(b, &ignored, &ignored, error);
    dibit_session_profile_reset(b->session);
    for (uint32_t i = 0; !status && i < o->repetitions; i++) {
        status = generate(b, &b->first[i], &b->decode[i], error);
    }
    b->peak_rss_bytes = peak_rss();
    if (!status) status = prefill(b, &ignored, error);
    for (uint32_t i = 0; !status && i < o->repetitions; i++) {
        status = prefill(b, &b->prefill[i], error);
    }
    return status;
}

/* ---- Reporting ------------------------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, uint32_t n) {
    qsort(values, n, sizeof *values, compare_doubles);
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

typedef struct entry {
    const char *op, *name, *kernel;
    uint64_t runs;
    double seconds;
} entry;

static int compare_entries(const void *a, const void *b) {
    const double x = ((const entry *)a)->seconds, y = ((const entry *)b)->seconds;
    return (x < y) - (x > y);
}

static void print_entries(entry *entries, uint32_t n, uint32_t most) {
    double total = 0;
    for (uint32_t i = 0; i < n; i++) total += entries[i].seconds;
    qsort(entries, n, sizeof *entries, compare_entries);
    for (uint32_t i = 0; i < n && i < most; i++) {
        const entry *const e = &entries[i];
        printf("%6.2f %% %10.3f ms %8" PRIu64 " runs  %-32s %-20s %s\n",
               total > 0 ? 100 * e->seconds / total : 0, 1e3 * e->seconds, e->runs, e->op,
               e->kernel, e->name);
    }
}

/* Where the time of generation and prefill went, by operator and by step. */
static void print_profile(const dibit_session *session) {
    dibit_session_info info;
    dibit_session_get_info(session, &info);
    entry *steps = dibit_cli_alloc(info.n_steps, sizeof *steps);
    entry *ops = dibit_cli_alloc(info.n_steps, sizeof *ops);
    uint32_t n_steps = 0, n_ops = 0;
    dibit_step_info step;
    while (n_steps < info.n_steps && dibit_session_step(session, n_steps, &step) == DIBIT_OK) {
        steps[n_steps++] = (entry){step.op, step.name, step.kernel, step.runs, step.seconds};
        uint32_t i = 0;
        while (i < n_ops && strcmp(ops[i].op, step.op) != 0) i++;
        if (i == n_ops) ops[n_ops++] = (entry){.op = step.op, .name = "", .kernel = ""};
        ops[i].runs += step.runs;
        ops[i].seconds += step.seconds;
    }
    printf("\nby operator\n");
    print_entries(ops, n_ops, n_ops);
    printf("\nby step, the 20 longest\n");
    print_entries(steps, n_steps, 20);
    free(steps);
    free(ops);
}

static void report(bench *b, const char *path) {
    const bench_options *const o = b->options;
    dibit_session_info info;
    dibit_session_get_info(b->session, &info);
    const double first = median(b->first, o->repetitions);
    const double prefill_all = o->prompt_tokens / median(b->prefill, o->repetitions);
    const double decode = (o->gen_tokens - 1) / median(b->decode, o->repetitions);
    if (!o->common.json) {
        printf("model                    %s\n", path);
        printf("device                   %s; activations %s\n", dibit_device_name(b->device),
               info.int8_activations ? "int8 where the model allows it" : "float");
        printf("prompt, generated        %u, %u tokens; medians of %u\n", o->prompt_tokens,
               o->gen_tokens, o->repetitions);
        printf("prefill, all rows        %10.1f tokens/s\n", prefill_all);
        printf("prefill, last row        %10.1f tokens/s\n", o->prompt_tokens / first);
        printf("time to first token      %10.1f ms\n", 1e3 * first);
        printf("decode                   %10.1f tokens/s\n", decode);
        printf("peak resident memory     %10.1f MB\n", (double)b->peak_rss_bytes / 1e6);
        if (o->profile) print_profile(b->session);
        return;
    }
    json_t *root = json_pack("{s:s, s:s, s:b, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:I}", "model",
                             path, "device", dibit_device_name(b->device), "int8_activations",
                             (int)info.int8_activations, "prompt_tokens", (int)o->prompt_tokens,
                             "gen_tokens", (int)o->gen_tokens, "repetitions", (int)o->repetitions,
                             "prefill_tokens_per_s", prefill_all, "prefill_last_row_tokens_per_s",
                             o->prompt_tokens / first, "decode_tokens_per_s", decode, "ttft_ms",
                             1e3 * first, "peak_rss_bytes", (json_int_t)b->peak_rss_bytes);
    json_dumpf(root, stdout, JSON_INDENT(1));
    printf("\n");
    json_decref(root);
}

static int run_bench(const char *verb, const char *path, const bench_options *options) {
    bench b = {.options = options};
    const uint32_t n = options->prompt_tokens, r = options->repetitions;
    b.prompt = dibit_cli_alloc(n, sizeof(int64_t));
    b.ones = dibit_cli_alloc(n, sizeof(int64_t));
    b.positions = dibit_cli_alloc(n, sizeof(int64_t));
    b.tokens = dibit_cli_alloc(options->gen_tokens, sizeof(int64_t));
    b.prefill = dibit_cli_alloc(r, sizeof(double));
    b.first = dibit_cli_alloc(r, sizeof(double));
    b.decode = dibit_cli_alloc(r, sizeof(double));
    dibit_error error;
    dibit_status status = open_model(&b, path, &error);
    if (!status) {
        const uint32_t vocabulary = dibit_generator_vocabulary(b.generator);
        for (uint32_t i = 0; i < n; i++) {
            b.prompt[i] = (int64_t)(i * 2654435761u % (vocabulary ? vocabulary : 100));
            b.ones[i] = 1;
            b.positions[i] = i;
        }
        status = measure(&b, &error);
    }
    if (!status) report(&b, path);
    dibit_generator_destroy(&b.generator);
    dibit_session_destroy(&b.session);
    dibit_model_destroy(&b.model);
    dibit_device_destroy(&b.device);
    free(b.prompt);
    free(b.ones);
    free(b.positions);
    free(b.tokens);
    free(b.prefill);
    free(b.first);
    free(b.decode);
    return status ? dibit_cli_fail(verb, error.text) : 0;
}

int dibit_cli_bench(int argc, char **argv) {
    bench_options options = {.prompt_tokens = 256, .gen_tokens = 64, .repetitions = 5};
    const dibit_cli_option table[] = {
        {"prompt-tokens", 0, "N", "tokens of the prompt (default 256)", DIBIT_CLI_U32,
         &options.prompt_tokens},
        {"gen-tokens", 0, "N", "tokens to generate (default 64)", DIBIT_CLI_U32,
         &options.gen_tokens},
        {"repetitions", 0, "N", "how often each is measured (default 5)", DIBIT_CLI_U32,
         &options.repetitions},
        {"no-fusion", 0, NULL, "run each node on the device as a step of its own", DIBIT_CLI_FLAG,
         &options.no_fusion},
        {"profile", 0, NULL, "also print where the time went", DIBIT_CLI_FLAG, &options.profile},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    const dibit_cli_spec spec = {
        .arguments = "MODEL_DIR",
        .help =
            "Measures a language model: tokens/s of reading a prompt (prefill; with the logits of\n"
            "all rows, and of the last only) and of greedy generation (decode), time to the first\n"
            "token and peak memory. Medians over repetitions, each with an empty state.\n",
        .options = table,
        .common = &options.common,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    const int n = dibit_cli_parse(&spec, argc, argv);
    if (n < 0) return dibit_cli_exit_code(n);
    if (options.prompt_tokens < 1 || options.prompt_tokens > 1u << 20) {
        return dibit_cli_usage(argv[0], "--prompt-tokens must be 1 to 1048576");
    }
    if (options.gen_tokens < 2 || options.gen_tokens > 1u << 20) {
        return dibit_cli_usage(argv[0], "--gen-tokens must be 2 to 1048576");
    }
    if (options.repetitions < 1 || options.repetitions > 1000) {
        return dibit_cli_usage(argv[0], "--repetitions must be 1 to 1000");
    }
    char *path = dibit_cli_find_model(argv[1]);
    if (!path) {
        char *sentence = dibit_cli_format("%s: no ONNX model is there", argv[1]);
        dibit_cli_fail(argv[0], sentence);
        free(sentence);
        return 1;
    }
    const int result = run_bench(argv[0], path, &options);
    free(path);
    return result;
}

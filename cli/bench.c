/* dibit bench: how fast a language model reads and writes.
 *
 * Reading (prefill) is measured twice: with the logits of all rows, which is what ONNX Runtime computes,
 * through a plain run; and with those of the last row, as generation needs it. Writing (decode) is
 * greedy generation. Every repetition starts with an empty state; figures are medians. On a GPU also what
 * it was given to do and how long it was at work, by its timestamps: of decoding, that is the work of a
 * generation less that of one which ends with its first token. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if !defined(__wasm__)
#include <sys/resource.h>
#endif

#include <jansson.h>

#include "bench_profile.h"
#include "cli.h"
#include "dibit/lm.h"

typedef struct bench_options {
    dibit_cli_common common;
    uint32_t prompt_tokens, gen_tokens, repetitions;
    bool profile;
} bench_options;

typedef struct bench {
    const bench_options *options;
    dibit_device *device;
    dibit_model *model;
    dibit_session *session;
    dibit_generator *generator;
    int64_t *prompt, *ones, *positions;              /* [prompt_tokens] */
    int64_t *tokens;                                 /* [gen_tokens] */
    double *prefill, *first, *decode;                /* [repetitions] seconds */
    double *prefill_busy, *first_busy, *decode_busy; /* [repetitions] seconds, of a GPU */
    dibit_device_work first_work, decode_work;       /* of the last repetition */
    uint64_t peak_rss_bytes;
    bench_profile *decode_profile, *prefill_profile;
    bool resets_profile; /* at the next token */
} bench;

/* ---- Measuring --------------------------------------------------------------------------------- */

/* Linux's VmHWM begins with the program; what getrusage says begins with the process that started it. */
static uint64_t peak_rss(void) {
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

/* What the GPU has done since it was opened, once it is done. */
static dibit_status wait_for_work(const bench *b, dibit_device_work *work, dibit_error *error) {
    dibit_status status;
    do status = dibit_device_get_work(b->device, work, error);
    while (status == DIBIT_PENDING);
    return status;
}

/* a - b */
static dibit_device_work difference(const dibit_device_work *a, const dibit_device_work *b) {
    return (dibit_device_work){.dispatches = a->dispatches - b->dispatches,
                               .submits = a->submits - b->submits,
                               .submit_seconds = a->submit_seconds - b->submit_seconds,
                               .busy_seconds = a->busy_seconds - b->busy_seconds};
}

typedef struct token_times {
    bench *bench;
    double first, latest; /* seconds */
} token_times;

static bool note_time(void *user, uint32_t sequence, int64_t token) {
    (void)sequence;
    (void)token;
    token_times *const times = user;
    times->latest = dibit_cli_seconds();
    if (times->first == 0) times->first = times->latest;
    if (times->bench->resets_profile) dibit_session_profile_reset(times->bench->session);
    times->bench->resets_profile = false;
    return true;
}

/* One generation from an empty state; *first and *rest in seconds. */
static dibit_status generate(bench *b, uint32_t n_tokens, double *first, double *rest,
                             dibit_error *error) {
    dibit_state *state = NULL;
    dibit_status status = dibit_state_create(b->session, NULL, &state, error);
    if (status) return status;
    dibit_sequence sequence = {.state = state,
                               .prompt = b->prompt,
                               .n_prompt = b->options->prompt_tokens,
                               .tokens = b->tokens,
                               .max_tokens = n_tokens};
    token_times times = {.bench = b};
    const dibit_generation generation = {
        .sequences = &sequence, .n_sequences = 1, .on_token = note_time, .on_token_user = &times};
    const double start = dibit_cli_seconds();
    status = dibit_generator_run(b->generator, &generation, error);
    *first = times.first - start;
    *rest = times.latest - times.first;
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
                                     .no_fusion = o->common.no_fusion,
                                     .sample_output = "logits",
                                     .feed_input = "input_ids"};
    status = dibit_session_create(b->model, &desc, &b->session, error);
    if (status) return status;
    const dibit_generator_desc generator = {
        .model = b->model, .session = b->session, .max_chunk = o->prompt_tokens};
    return dibit_generator_create(&generator, &b->generator, error);
}

static dibit_status measure_generation(bench *b, uint32_t i, dibit_error *error) {
    const bench_options *const o = b->options;
    dibit_device_work before, first, all;
    double ignored;
    dibit_status status = wait_for_work(b, &before, error);
    if (!status) status = generate(b, 1, &ignored, &ignored, error);
    if (!status) status = wait_for_work(b, &first, error);
    b->resets_profile = true;
    if (!status) status = generate(b, o->gen_tokens, &b->first[i], &b->decode[i], error);
    if (!status) status = wait_for_work(b, &all, error);
    if (status) return status;
    b->first_work = difference(&first, &before);
    b->decode_work = difference(&all, &first);
    b->decode_work = difference(&b->decode_work, &b->first_work);
    b->first_busy[i] = b->first_work.busy_seconds;
    b->decode_busy[i] = b->decode_work.busy_seconds;
    if (o->profile && i + 1 == o->repetitions) {
        b->decode_profile = bench_profile_take(b->session, o->gen_tokens - 1);
    }
    return DIBIT_OK;
}

static dibit_status measure_prefill(bench *b, uint32_t i, dibit_error *error) {
    dibit_device_work before, after;
    dibit_status status = wait_for_work(b, &before, error);
    dibit_session_profile_reset(b->session);
    if (!status) status = prefill(b, &b->prefill[i], error);
    if (!status) status = wait_for_work(b, &after, error);
    if (status) return status;
    b->prefill_busy[i] = after.busy_seconds - before.busy_seconds;
    if (b->options->profile && i + 1 == b->options->repetitions) {
        b->prefill_profile = bench_profile_take(b->session, 1);
    }
    return DIBIT_OK;
}

/* A warm-up, then the repetitions. Generation comes first: its peak of memory is the one that users
 * see, all rows of logits take much more. */
static dibit_status measure(bench *b, dibit_error *error) {
    const bench_options *const o = b->options;
    double ignored;
    dibit_status status = generate(b, o->gen_tokens, &ignored, &ignored, error);
    for (uint32_t i = 0; !status && i < o->repetitions; i++) {
        status = measure_generation(b, i, error);
    }
    b->peak_rss_bytes = peak_rss();
    if (!status) status = prefill(b, &ignored, error);
    for (uint32_t i = 0; !status && i < o->repetitions; i++) {
        status = measure_prefill(b, i, error);
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

typedef struct figures {
    double prefill, first, decode; /* seconds of all rows, to the first token, a token */
    double prefill_busy, first_busy, decode_busy; /* of the GPU */
    double dispatches, submits, submit_seconds;   /* a token */
    dibit_session_info info;
} figures;

static figures take_figures(bench *b) {
    const uint32_t n = b->options->repetitions;
    const double tokens = b->options->gen_tokens - 1;
    figures f = {.prefill = median(b->prefill, n),
                 .first = median(b->first, n),
                 .decode = median(b->decode, n) / tokens,
                 .prefill_busy = median(b->prefill_busy, n),
                 .first_busy = median(b->first_busy, n),
                 .decode_busy = median(b->decode_busy, n) / tokens,
                 .dispatches = (double)b->decode_work.dispatches / tokens,
                 .submits = (double)b->decode_work.submits / tokens,
                 .submit_seconds = b->decode_work.submit_seconds / tokens};
    dibit_session_get_info(b->session, &f.info);
    return f;
}

static void print_work(const bench *b, const figures *f) {
    if (f->dispatches == 0) return;
    printf(
        "a decoded token          %10.1f dispatches in %.2f submits, which take the CPU %.3f ms\n",
        f->dispatches, f->submits, 1e3 * f->submit_seconds);
    if (f->decode_busy > 0) {
        printf("GPU at work              %10.3f of %.3f ms a token: wall over busy %.2f\n",
               1e3 * f->decode_busy, 1e3 * f->decode, f->decode / f->decode_busy);
        printf("GPU at work, prefill     %10.3f ms of %.3f, with all rows %.3f of %.3f\n",
               1e3 * f->first_busy, 1e3 * f->first, 1e3 * f->prefill_busy, 1e3 * f->prefill);
    } else {
        printf("GPU at work              not known: it has no timestamps\n");
    }
    if (b->options->profile) printf("each dispatch was timed by itself, which slows all down\n");
}

static void print_report(const bench *b, const char *path, const figures *f) {
    const bench_options *const o = b->options;
    printf("model                    %s\n", path);
    printf("device                   %s; activations %s\n", dibit_device_name(b->device),
           f->info.int8_activations ? "int8 where the model allows it" : "float");
    printf("prompt, generated        %u, %u tokens; medians of %u\n", o->prompt_tokens,
           o->gen_tokens, o->repetitions);
    printf("prefill, all rows        %10.1f tokens/s\n", o->prompt_tokens / f->prefill);
    printf("prefill, last row        %10.1f tokens/s\n", o->prompt_tokens / f->first);
    printf("time to first token      %10.1f ms\n", 1e3 * f->first);
    printf("decode                   %10.1f tokens/s\n", 1 / f->decode);
    printf("peak resident memory     %10.1f MB\n", (double)b->peak_rss_bytes / 1e6);
    print_work(b, f);
    if (!o->profile) return;
    bench_profile_print(b->decode_profile, "decode");
    bench_profile_print(b->prefill_profile, "prefill, all rows");
}

static void add_work(json_t *root, const figures *f) {
    json_t *const work =
        json_pack("{s:f, s:f, s:f}", "dispatches_per_token", f->dispatches, "submits_per_token",
                  f->submits, "submit_ms_per_token", 1e3 * f->submit_seconds);
    if (f->decode_busy > 0) {
        json_object_set_new(work, "busy_ms_per_token", json_real(1e3 * f->decode_busy));
        json_object_set_new(work, "wall_ms_per_token", json_real(1e3 * f->decode));
        json_object_set_new(work, "wall_over_busy", json_real(f->decode / f->decode_busy));
        json_object_set_new(work, "prefill_last_row_busy_ms", json_real(1e3 * f->first_busy));
        json_object_set_new(work, "prefill_busy_ms", json_real(1e3 * f->prefill_busy));
    }
    json_object_set_new(root, "gpu", work);
}

static void print_json(const bench *b, const char *path, const figures *f) {
    const bench_options *const o = b->options;
    json_t *root = json_pack(
        "{s:s, s:s, s:b, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:I}", "model", path, "device",
        dibit_device_name(b->device), "int8_activations", (int)f->info.int8_activations,
        "prompt_tokens", (int)o->prompt_tokens, "gen_tokens", (int)o->gen_tokens, "repetitions",
        (int)o->repetitions, "prefill_tokens_per_s", o->prompt_tokens / f->prefill,
        "prefill_last_row_tokens_per_s", o->prompt_tokens / f->first, "decode_tokens_per_s",
        1 / f->decode, "ttft_ms", 1e3 * f->first, "peak_rss_bytes", (json_int_t)b->peak_rss_bytes);
    if (f->dispatches > 0) add_work(root, f);
    if (o->profile) {
        json_object_set_new(root, "profile_decode", bench_profile_json(b->decode_profile));
        json_object_set_new(root, "profile_prefill", bench_profile_json(b->prefill_profile));
    }
    json_dumpf(root, stdout, JSON_INDENT(1));
    printf("\n");
    json_decref(root);
}

static void report(bench *b, const char *path) {
    const figures f = take_figures(b);
    if (b->options->common.json)
        print_json(b, path, &f);
    else
        print_report(b, path, &f);
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
    b.prefill_busy = dibit_cli_alloc(r, sizeof(double));
    b.first_busy = dibit_cli_alloc(r, sizeof(double));
    b.decode_busy = dibit_cli_alloc(r, sizeof(double));
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
    free(b.prefill_busy);
    free(b.first_busy);
    free(b.decode_busy);
    bench_profile_free(b.decode_profile);
    bench_profile_free(b.prefill_profile);
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
        {"profile", 0, NULL, "also show where the time went, by operator and step", DIBIT_CLI_FLAG,
         &options.profile},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    const dibit_cli_spec spec = {
        .arguments = "MODEL_DIR",
        .help =
            "Measures a language model: tokens/s of reading a prompt (prefill; with the logits of\n"
            "all rows, and of the last only) and of greedy generation (decode), time to the first\n"
            "token and peak memory. Medians over repetitions, each with an empty state. On a GPU\n"
            "also dispatches and submits a token, and how long the GPU was at work by its "
            "timestamps.\n",
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
    options.common.timing = options.profile ? DIBIT_TIMING_DISPATCHES : DIBIT_TIMING_PASSES;
    const int result = run_bench(argv[0], path, &options);
    free(path);
    return result;
}

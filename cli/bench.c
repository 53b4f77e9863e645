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

#include <jansson.h>

#include "bench_measure.h"
#include "bench_profile.h"
#include "cli.h"

typedef struct bench_options {
    dibit_cli_common common;
    uint32_t prompt_tokens, gen_tokens, repetitions;
    bool profile, serve;
} bench_options;

typedef struct bench {
    const bench_options *options;
    bench_subject subject;
    double *prefill, *first, *decode;                /* [repetitions] seconds */
    double *prefill_busy, *first_busy, *decode_busy; /* [repetitions] seconds, of a GPU */
    dibit_device_work first_work, decode_work;       /* of the last repetition */
    uint64_t peak_rss_bytes;
    bench_profile *decode_profile, *prefill_profile;
} bench;

/* ---- Measuring --------------------------------------------------------------------------------- */

/* What the GPU has done since it was opened, once it is done. */
static dibit_status wait_for_work(const bench *b, dibit_device_work *work, dibit_error *error) {
    dibit_status status;
    do status = dibit_device_get_work(b->subject.device, work, error);
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

/* A GPU's profile has none. */
static dibit_status measure_limits(const bench *b, bench_profile *profile, dibit_error *error) {
    const dibit_cli_common *const common = &b->options->common;
    if (!profile || dibit_device_get_kind(b->subject.device) != DIBIT_DEVICE_CPU) return DIBIT_OK;
    return bench_profile_measure_limits(profile, common->threads, common->isa, error);
}

static dibit_status measure_generation(bench *b, uint32_t i, dibit_error *error) {
    const bench_options *const o = b->options;
    dibit_device_work before, first, all;
    double ignored;
    dibit_status status = wait_for_work(b, &before, error);
    if (!status)
        status = bench_generate(&b->subject, NULL, o->prompt_tokens, 1, &ignored, &ignored, error);
    if (!status) status = wait_for_work(b, &first, error);
    b->subject.resets_profile = true;
    if (!status)
        status = bench_generate(&b->subject, NULL, o->prompt_tokens, o->gen_tokens, &b->first[i],
                                &b->decode[i], error);
    if (!status) status = wait_for_work(b, &all, error);
    if (status) return status;
    b->first_work = difference(&first, &before);
    b->decode_work = difference(&all, &first);
    b->decode_work = difference(&b->decode_work, &b->first_work);
    b->first_busy[i] = b->first_work.busy_seconds;
    b->decode_busy[i] = b->decode_work.busy_seconds;
    if (o->profile && i + 1 == o->repetitions) {
        b->decode_profile = bench_profile_take(b->subject.session, o->gen_tokens - 1);
    }
    return DIBIT_OK;
}

static dibit_status measure_prefill(bench *b, uint32_t i, dibit_error *error) {
    dibit_device_work before, after;
    dibit_status status = wait_for_work(b, &before, error);
    dibit_session_profile_reset(b->subject.session);
    if (!status)
        status = bench_prefill(&b->subject, b->options->prompt_tokens, &b->prefill[i], error);
    if (!status) status = wait_for_work(b, &after, error);
    if (status) return status;
    b->prefill_busy[i] = after.busy_seconds - before.busy_seconds;
    if (b->options->profile && i + 1 == b->options->repetitions) {
        b->prefill_profile = bench_profile_take(b->subject.session, 1);
    }
    return DIBIT_OK;
}

/* A warm-up, then the repetitions. Generation comes first: its peak of memory is the one that users
 * see, all rows of logits take much more, and so does what finds the machine's limits. */
static dibit_status measure(bench *b, dibit_error *error) {
    const bench_options *const o = b->options;
    double ignored;
    dibit_status status = bench_generate(&b->subject, NULL, o->prompt_tokens, o->gen_tokens,
                                         &ignored, &ignored, error);
    for (uint32_t i = 0; !status && i < o->repetitions; i++) {
        status = measure_generation(b, i, error);
    }
    b->peak_rss_bytes = bench_peak_rss();
    if (!status) status = measure_limits(b, b->decode_profile, error);
    if (!status) status = bench_prefill(&b->subject, o->prompt_tokens, &ignored, error);
    for (uint32_t i = 0; !status && i < o->repetitions; i++) {
        status = measure_prefill(b, i, error);
    }
    if (!status) status = measure_limits(b, b->prefill_profile, error);
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
    dibit_session_get_info(b->subject.session, &f.info);
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
    printf("device                   %s; activations %s\n", dibit_device_name(b->subject.device),
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
        dibit_device_name(b->subject.device), "int8_activations", (int)f->info.int8_activations,
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
    const uint32_t r = options->repetitions;
    b.prefill = dibit_cli_alloc(r, sizeof(double));
    b.first = dibit_cli_alloc(r, sizeof(double));
    b.decode = dibit_cli_alloc(r, sizeof(double));
    b.prefill_busy = dibit_cli_alloc(r, sizeof(double));
    b.first_busy = dibit_cli_alloc(r, sizeof(double));
    b.decode_busy = dibit_cli_alloc(r, sizeof(double));
    dibit_error error;
    dibit_status status = bench_open(&b.subject, path, &options->common, options->profile,
                                     options->prompt_tokens, &error);
    if (!status) status = measure(&b, &error);
    if (!status) report(&b, path);
    bench_close(&b.subject);
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
        {"profile", 0, NULL,
         "also show where the time went, and how near that is to the machine's limits",
         DIBIT_CLI_FLAG, &options.profile},
        {"serve", 0, NULL, "measure what lines on standard input ask for (see cli/bench_serve.c)",
         DIBIT_CLI_FLAG, &options.serve},
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
    const int result = options.serve ? bench_serve(argv[0], path, &options.common)
                                     : run_bench(argv[0], path, &options);
    free(path);
    return result;
}

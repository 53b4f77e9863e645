/* dibit run: generates text from a prompt. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "text.h"

enum { DEFAULT_TOKENS = 1024 };

typedef struct options {
    const char *prompt, *file, *system, *model;
    uint32_t tokens;
    bool raw, no_stats;
    dibit_cli_sampling sampling;
    dibit_cli_common common;
} options;

static dibit_status encode_prompt(const options *o, const dibit_cli_text *t, dibit_tokens *out,
                                  dibit_error *error) {
    dibit_text text = {0};
    dibit_status status = o->prompt ? dibit_text_append(&text, o->prompt, strlen(o->prompt), error)
                                    : dibit_cli_read_text(o->file, &text, error);
    if (status == DIBIT_OK && o->raw) {
        status = dibit_tokenizer_encode(dibit_lm_tokenizer(t->lm),
                                        &(dibit_encode){.text = text.data,
                                                        .text_bytes = text.bytes,
                                                        .add_special = true,
                                                        .allow_special = true},
                                        out, error);
    } else if (status == DIBIT_OK) {
        dibit_message messages[2];
        size_t n = 0;
        if (o->system) messages[n++] = (dibit_message){"system", o->system};
        messages[n++] = (dibit_message){"user", text.data};
        status = dibit_lm_chat_encode(
            t->lm,
            &(dibit_chat){.messages = messages, .n_messages = n, .add_generation_prompt = true},
            out, error);
    }
    dibit_text_free(&text);
    if (status == DIBIT_OK && out->count == 0) {
        snprintf(error->text, sizeof error->text, "the prompt has no tokens");
        status = DIBIT_BAD_INPUT;
    }
    return status;
}

static const char *finish_name(dibit_finish finish) {
    static const char *const names[] = {"none", "stop", "length", "context", "cancelled"};
    return names[finish];
}

static double per_second(size_t n, double seconds) { return seconds > 0 ? (double)n / seconds : 0; }

/* Tokens after the first, by the time after the first. */
static double decode_rate(const dibit_cli_stream *s) {
    const size_t n = s->sequence->n_tokens;
    return n > 1 ? per_second(n - 1, s->seconds - s->first_token_seconds) : 0;
}

static void print_stats(const dibit_cli_stream *s) {
    const dibit_sequence *q = s->sequence;
    dibit_session_info info;
    dibit_session_get_info(s->text->session, &info);
    fflush(stdout);
    fprintf(stderr,
            "\n[%zu + %zu tokens: %s; first after %.3f s, then %.1f tokens/s; prompt %.1f "
            "tokens/s; loaded in %.3f s; %s, %s activations",
            q->n_prompt, q->n_tokens, finish_name(q->finish), s->first_token_seconds,
            decode_rate(s), per_second(q->n_prompt, s->first_token_seconds), s->text->load_seconds,
            info.device, info.int8_activations ? "int8" : "float");
    const char *const why = dibit_cli_text_why(s->text);
    if (why[0]) fprintf(stderr, "; %s", why);
    if (q->sampling.temperature > 0)
        fprintf(stderr, "; seed %llu", (unsigned long long)q->sampling.seed);
    fprintf(stderr, "]\n");
}

static int print_json(const dibit_cli_stream *s) {
    const dibit_sequence *q = s->sequence;
    dibit_session_info info;
    dibit_session_get_info(s->text->session, &info);
    json_t *prompt = json_array(), *tokens = json_array();
    for (size_t i = 0; i < q->n_prompt; i++)
        json_array_append_new(prompt, json_integer(q->prompt[i]));
    for (size_t i = 0; i < q->n_tokens; i++)
        json_array_append_new(tokens, json_integer(q->tokens[i]));
    json_t *out =
        json_pack("{s:s%, s:o, s:o, s:s, s:f, s:f, s:f, s:f, s:s, s:s, s:s, s:I}", "text",
                  s->said.data ? s->said.data : "", s->said.bytes, "prompt_ids", prompt, "ids",
                  tokens, "finish", finish_name(q->finish), "ttft_ms", s->first_token_seconds * 1e3,
                  "prompt_tokens_per_s", per_second(q->n_prompt, s->first_token_seconds),
                  "decode_tokens_per_s", decode_rate(s), "load_ms", s->text->load_seconds * 1e3,
                  "device", info.device, "why", dibit_cli_text_why(s->text), "activations",
                  info.int8_activations ? "int8" : "float", "seed", (json_int_t)q->sampling.seed);
    char *text = out ? json_dumps(out, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(out);
    if (!text) return dibit_cli_fail("run", "out of memory");
    puts(text);
    free(text);
    return 0;
}

static int generate(const options *o, dibit_cli_text *t, const dibit_sampling *sampling) {
    dibit_error error = {0};
    dibit_tokens prompt = {0};
    dibit_state *state = NULL;
    const uint32_t max_tokens = o->tokens ? o->tokens : DEFAULT_TOKENS;
    int64_t *tokens = dibit_cli_alloc(max_tokens, sizeof *tokens);
    dibit_sequence sequence = {.stop = t->info.stop_tokens,
                               .n_stop = t->info.n_stop_tokens,
                               .sampling = *sampling,
                               .tokens = tokens,
                               .max_tokens = max_tokens};
    dibit_cli_stream stream = {.text = t, .sequence = &sequence, .quiet = o->common.json};
    dibit_status status = encode_prompt(o, t, &prompt, &error);
    if (status == DIBIT_OK) status = dibit_state_create(t->session, NULL, &state, &error);
    sequence.state = state;
    sequence.prompt = prompt.ids;
    sequence.n_prompt = prompt.count;
    dibit_cli_catch_interrupts();
    if (status == DIBIT_OK) status = dibit_cli_stream_run(&stream, &error);
    int code = stream.interrupted ? 130 : 0;
    /* A terminal's next prompt begins in a line of its own; a file gets the text alone. */
    if (!stream.quiet && stream.said.bytes && isatty(STDOUT_FILENO)) putchar('\n');
    if (status != DIBIT_OK)
        code = dibit_cli_fail("run", error.text);
    else if (o->common.json)
        code = print_json(&stream) ? 1 : code;
    else if (!o->no_stats)
        print_stats(&stream);
    else if (dibit_session_why(t->session)[0])
        fprintf(stderr, "dibit run: %s\n", dibit_session_why(t->session));
    dibit_text_free(&stream.said);
    dibit_state_destroy(&state);
    dibit_tokens_free(&prompt);
    free(tokens);
    return code;
}

int dibit_cli_run(int argc, char **argv) {
    options o = {.sampling = DIBIT_CLI_SAMPLING_DEFAULTS};
    const dibit_cli_option table[] = {
        {"prompt", 'p', "TEXT", "the prompt", DIBIT_CLI_STRING, &o.prompt},
        {"file", 'f', "FILE", "the prompt is FILE's content; - is stdin", DIBIT_CLI_STRING,
         &o.file},
        {"tokens", 'n', "N", "at most N tokens (default: 1024)", DIBIT_CLI_U32, &o.tokens},
        {"raw", 0, NULL, "the prompt as it is, without the model's chat template", DIBIT_CLI_FLAG,
         &o.raw},
        {"system", 0, "TEXT", "the system message (default: the template's own)", DIBIT_CLI_STRING,
         &o.system},
        {"model", 0, "FILE",
         "the model inside the folder (default: model.onnx, onnx/model_q2.onnx ...)",
         DIBIT_CLI_STRING, &o.model},
        DIBIT_CLI_SAMPLING_OPTIONS(o.sampling),
        {"no-stats", 0, NULL, "no line of figures on stderr", DIBIT_CLI_FLAG, &o.no_stats},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL}};
    const dibit_cli_spec spec = {.arguments = "MODEL_DIR",
                                 .help = "Answers a prompt. stdout gets the generated text as it "
                                         "comes and nothing else (a last\n"
                                         "newline only when it is a terminal), stderr a line of "
                                         "figures. Ctrl-C ends the answer.\n",
                                 .options = table,
                                 .common = &o.common,
                                 .min_arguments = 1,
                                 .max_arguments = 1};
    const int n = dibit_cli_parse(&spec, argc, argv);
    if (n < 0) return dibit_cli_exit_code(n);
    if (!o.prompt == !o.file) return dibit_cli_usage("run", "give one of --prompt and --file");
    if (o.raw && o.system) return dibit_cli_usage("run", "--system does not go with --raw");
    dibit_sampling sampling = {0};
    if (dibit_cli_sampling_apply("run", &o.sampling, &sampling)) return 2;
    dibit_cli_text text;
    int code = dibit_cli_text_open("run", argv[1], o.model, &o.common, &text);
    if (code == 0) {
        sampling = text.info.sampling;
        dibit_cli_sampling_apply("run", &o.sampling, &sampling);
        code = generate(&o, &text, &sampling);
    }
    dibit_cli_text_close(&text);
    return code;
}

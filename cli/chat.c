/* dibit chat: a conversation, line by line. The state keeps everything said: a turn feeds only what
 * is new. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <histedit.h>

#include "text.h"

enum { DEFAULT_TOKENS = 1024 };

typedef struct options {
    const char *system, *model;
    uint32_t tokens;
    bool stats;
    dibit_cli_sampling sampling;
    dibit_cli_common common;
} options;

typedef struct conversation {
    const options *options;
    dibit_cli_text *text;
    dibit_sampling sampling;
    dibit_state *state;
    dibit_tokens history; /* all tokens so far; the state holds the first of them */
    int64_t *answer;      /* [max_tokens] */
    uint32_t max_tokens;
    bool begun; /* a turn has been answered: the next one begins with its end */
} conversation;

/* ---- Reading lines ---- */

typedef struct reader {
    EditLine *edit; /* NULL: stdin is no terminal */
    History *history;
    char *line;
    size_t capacity;
} reader;

static char *prompt_text(EditLine *edit) {
    (void)edit;
    static char text[] = "> ";
    return text;
}

static void reader_open(reader *r) {
    *r = (reader){0};
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return;
    setlocale(LC_CTYPE, "");
    r->edit = el_init("dibit", stdin, stdout, stderr);
    r->history = history_init();
    if (!r->edit || !r->history) return;
    HistEvent event;
    history(r->history, &event, H_SETSIZE, 500);
    el_set(r->edit, EL_PROMPT, prompt_text);
    el_set(r->edit, EL_EDITOR, "emacs");
    el_set(r->edit, EL_HIST, history, r->history);
}

static void reader_close(reader *r) {
    if (r->history) history_end(r->history);
    if (r->edit) el_end(r->edit);
    free(r->line);
}

typedef enum interrupt { NOT_INTERRUPTED, INTERRUPTED_EMPTY, INTERRUPTED_TEXT } interrupt;

/* The next line without its newline; NULL at the end of the input, or when Ctrl-C came instead: in an
 * empty line, or in one that had text. */
static char *read_line(reader *r, interrupt *how) {
    *how = NOT_INTERRUPTED;
    if (!r->edit) {
        const ssize_t n = getline(&r->line, &r->capacity, stdin);
        if (n < 0) return NULL;
        if (n > 0 && r->line[n - 1] == '\n') r->line[n - 1] = '\0';
        return r->line;
    }
    int n = 0;
    const char *line = el_gets(r->edit, &n);
    if (dibit_cli_take_interrupts()) {
        const LineInfo *typed = el_line(r->edit);
        *how = typed->lastchar > typed->buffer ? INTERRUPTED_TEXT : INTERRUPTED_EMPTY;
        el_reset(r->edit);
        clearerr(stdin);
        putchar('\n');
        return NULL;
    }
    if (!line || n <= 0) return NULL;
    free(r->line);
    r->line = malloc((size_t)n + 1);
    if (!r->line) return NULL;
    memcpy(r->line, line, (size_t)n);
    r->line[n] = '\0';
    if (r->line[n - 1] == '\n') r->line[n - 1] = '\0';
    HistEvent event;
    if (r->line[0]) history(r->history, &event, H_ENTER, r->line);
    return r->line;
}

/* ---- Turns ---- */

/* Forgets everything. */
static dibit_status reset(conversation *c, dibit_error *error) {
    c->history.count = 0;
    c->begun = false;
    return dibit_state_truncate(c->state, 0, error);
}

/* Appends the tokens of a further turn of the user to the history. */
static dibit_status append_turn(conversation *c, const char *line, dibit_error *error) {
    dibit_message messages[2];
    size_t n = 0;
    /* Of what was said only that it was matters to the template. */
    if (c->begun)
        messages[n++] = (dibit_message){"assistant", ""};
    else if (c->options->system)
        messages[n++] = (dibit_message){"system", c->options->system};
    messages[n++] = (dibit_message){"user", line};
    return dibit_lm_chat_encode(c->text->lm,
                                &(dibit_chat){.messages = messages,
                                              .n_messages = n,
                                              .n_said = c->begun,
                                              .add_generation_prompt = true},
                                &c->history, error);
}

/* A line on stderr about how the answer ended, if it did not end by itself. */
static void print_end(const conversation *c, const dibit_cli_stream *s) {
    const dibit_sequence *q = s->sequence;
    if (s->interrupted) fprintf(stderr, "[interrupted]\n");
    if (q->finish == DIBIT_FINISH_LENGTH)
        fprintf(stderr, "[cut at %u tokens: -n sets the limit]\n", (unsigned)c->max_tokens);
    if (q->finish == DIBIT_FINISH_CONTEXT)
        fprintf(stderr, "[the context of %llu tokens is full: /reset begins anew]\n",
                (unsigned long long)c->text->info.context_length);
    if (c->options->stats)
        fprintf(stderr, "[%zu + %zu tokens; first after %.3f s, then %.1f tokens/s; %zu in all]\n",
                q->n_prompt, q->n_tokens, s->first_token_seconds,
                q->n_tokens > 1 ? (double)(q->n_tokens - 1) / (s->seconds - s->first_token_seconds)
                                : 0.0,
                c->history.count);
}

/* Which device --device led to, and why. */
static void print_device(const dibit_cli_text *t) {
    dibit_session_info info;
    dibit_session_get_info(t->session, &info);
    const char *const why = dibit_cli_text_why(t);
    fprintf(stderr, "[%s%s%s]\n", info.device, *why ? "; " : "", why);
}

/* Answers a line. CAPACITY leaves the conversation as it was. */
static dibit_status answer(conversation *c, const char *line, dibit_error *error) {
    const size_t before = c->history.count;
    dibit_status status = append_turn(c, line, error);
    if (status) return status;
    const size_t held = (size_t)dibit_state_length(c->state);
    dibit_sequence sequence = {.state = c->state,
                               .prompt = c->history.ids + held,
                               .n_prompt = c->history.count - held,
                               .past = c->history.ids,
                               .n_past = held,
                               .stop = c->text->info.stop_tokens,
                               .n_stop = c->text->info.n_stop_tokens,
                               .sampling = c->sampling,
                               .tokens = c->answer,
                               .max_tokens = c->max_tokens};
    dibit_cli_stream stream = {.text = c->text, .sequence = &sequence};
    const bool left = dibit_session_why(c->text->session)[0] != 0;
    status = dibit_cli_stream_run(&stream, error);
    dibit_cli_take_interrupts(); /* one that came too late is not meant for the prompt */
    if (status == DIBIT_OK) {
        printf("\n");
        fflush(stdout);
        c->begun = true;
        c->sampling.seed++; /* or the next answer would repeat this one's draws */
        status = dibit_tokens_append(&c->history, c->answer, sequence.n_tokens, error);
        print_end(c, &stream);
        if (!left && dibit_session_why(c->text->session)[0]) print_device(c->text);
    } else if (status == DIBIT_CAPACITY) {
        c->history.count = before;
    }
    dibit_text_free(&stream.said);
    return status;
}

static void print_commands(void) {
    fprintf(
        stderr,
        "/reset  forget the conversation\n"
        "/help   this\n"
        "/quit   leave, as the end of the input does\n"
        "Ctrl-C ends an answer, clears a line, and leaves when pressed twice in an empty one.\n");
}

/* Handles a line that begins with a slash. True: leave. */
static bool command(conversation *c, const char *line, int *code) {
    dibit_error error = {0};
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) return true;
    if (strcmp(line, "/help") == 0) {
        print_commands();
    } else if (strcmp(line, "/reset") == 0) {
        if (reset(c, &error)) {
            *code = dibit_cli_fail("chat", error.text);
            return true;
        }
    } else {
        fprintf(stderr, "there is no command %s: /help lists them\n", line);
    }
    return false;
}

static int converse(conversation *c) {
    reader r;
    int code = 0, n_interrupts = 0;
    reader_open(&r);
    dibit_cli_catch_interrupts();
    if (c->options->common.device != DIBIT_CLI_CPU) print_device(c->text);
    if (r.edit) fprintf(stderr, "/help lists commands\n");
    for (;;) {
        interrupt how;
        const char *line = read_line(&r, &how);
        if (how == INTERRUPTED_TEXT) n_interrupts = 0;
        if (how != NOT_INTERRUPTED && ++n_interrupts < 2) continue;
        if (!line) break;
        n_interrupts = 0;
        if (line[strspn(line, " \t")] == '\0') continue;
        if (line[0] == '/') {
            if (command(c, line, &code)) break;
            continue;
        }
        dibit_error error = {0};
        const dibit_status status = answer(c, line, &error);
        if (status == DIBIT_CAPACITY) {
            fprintf(stderr, "[%s: /reset begins anew]\n", error.text);
        } else if (status) {
            code = dibit_cli_fail("chat", error.text);
            break;
        }
    }
    reader_close(&r);
    return code;
}

static int begin(const options *o, dibit_cli_text *t) {
    dibit_error error = {0};
    if (strcmp(t->info.chat, "chatml") != 0)
        return dibit_cli_fail("chat", t->info.chat[0] ? "the model's chat template is not of the "
                                                        "ChatML family, use 'dibit run --raw'"
                                                      : "the model's folder has no chat template, "
                                                        "use 'dibit run --raw'");
    conversation c = {.options = o,
                      .text = t,
                      .sampling = t->info.sampling,
                      .max_tokens = o->tokens ? o->tokens : DEFAULT_TOKENS};
    dibit_cli_sampling_apply("chat", &o->sampling, &c.sampling);
    int code = 1;
    c.answer = dibit_cli_alloc(c.max_tokens, sizeof *c.answer);
    if (dibit_state_create(t->session, NULL, &c.state, &error))
        dibit_cli_fail("chat", error.text);
    else
        code = converse(&c);
    dibit_state_destroy(&c.state);
    dibit_tokens_free(&c.history);
    free(c.answer);
    return code;
}

int dibit_cli_chat(int argc, char **argv) {
    options o = {.sampling = DIBIT_CLI_SAMPLING_DEFAULTS};
    const dibit_cli_option table[] = {
        {"system", 0, "TEXT", "the system message (default: the template's own)", DIBIT_CLI_STRING,
         &o.system},
        {"tokens", 'n', "N", "at most N tokens an answer (default: 1024)", DIBIT_CLI_U32,
         &o.tokens},
        {"model", 0, "FILE", "the model inside the folder", DIBIT_CLI_STRING, &o.model},
        DIBIT_CLI_SAMPLING_OPTIONS(o.sampling),
        {"stats", 0, NULL, "a line of figures on stderr after each answer", DIBIT_CLI_FLAG,
         &o.stats},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL}};
    const dibit_cli_spec spec = {.arguments = "MODEL_DIR",
                                 .help =
                                     "A conversation: every line of the input is a message, every "
                                     "answer ends with a newline.\n"
                                     "/help lists commands. The model remembers until /reset.\n",
                                 .options = table,
                                 .common = &o.common,
                                 .min_arguments = 1,
                                 .max_arguments = 1};
    const int n = dibit_cli_parse(&spec, argc, argv);
    if (n < 0) return dibit_cli_exit_code(n);
    if (o.common.json) return dibit_cli_usage("chat", "--json is for 'dibit run'");
    dibit_sampling sampling = {0};
    if (dibit_cli_sampling_apply("chat", &o.sampling, &sampling)) return 2;
    dibit_cli_text text;
    int code = dibit_cli_text_open("chat", argv[1], o.model, &o.common, &text);
    if (code == 0) code = begin(&o, &text);
    dibit_cli_text_close(&text);
    return code;
}

/* Opening a model folder, sampling options, Ctrl-C and streaming, for run, chat and eval. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#if !defined(__wasm__)
#include <signal.h>
#endif

#include "text.h"

/* ---- Open ---- */

/* tokenizer.json as a tree is six times its file, in small blocks. Freed, they stay resident where
 * blocks that live on lie above them, and would count at the peak, beside the model's weights. */
static void return_freed_pages(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

static dibit_status open_all(const char *path, const char *model_file,
                             const dibit_cli_common *common, dibit_cli_text *t,
                             dibit_error *error) {
    dibit_status status =
        dibit_lm_load(&(dibit_lm_desc){.path = path, .model = model_file}, &t->lm, error);
    if (status) return status;
    return_freed_pages();
    dibit_lm_get_info(t->lm, &t->info);
    status = dibit_cli_open_device(common, &t->device, &t->why, error);
    if (status) return status;
    status = dibit_model_load(&(dibit_model_desc){.path = t->info.model_path}, &t->model, error);
    if (status) return status;
    const dibit_session_desc session = {.device = t->device,
                                        .activations = common->activations,
                                        .cpu_fallback = common->device == DIBIT_CLI_AUTO,
                                        .no_fusion = common->no_fusion,
                                        .sample_output = "logits",
                                        .feed_input = "input_ids"};
    status = dibit_session_create(t->model, &session, &t->session, error);
    if (status) return status;
    const dibit_generator_desc generator = {
        .model = t->model, .session = t->session, .context_length = t->info.context_length};
    return dibit_generator_create(&generator, &t->generator, error);
}

int dibit_cli_text_open(const char *verb, const char *path, const char *model_file,
                        const dibit_cli_common *common, dibit_cli_text *out) {
    *out = (dibit_cli_text){.why = ""};
    const double begin = dibit_cli_seconds();
    dibit_error error = {0};
    if (open_all(path, model_file, common, out, &error)) return dibit_cli_fail(verb, error.text);
    out->load_seconds = dibit_cli_seconds() - begin;
    return 0;
}

const char *dibit_cli_text_why(const dibit_cli_text *t) {
    const char *const left = dibit_session_why(t->session);
    return left[0] ? left : t->why;
}

void dibit_cli_text_close(dibit_cli_text *t) {
    dibit_generator_destroy(&t->generator);
    dibit_session_destroy(&t->session);
    dibit_model_destroy(&t->model);
    dibit_device_destroy(&t->device);
    dibit_lm_destroy(&t->lm);
}

dibit_status dibit_cli_read_text(const char *path, dibit_text *out, dibit_error *error) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (!file) {
        snprintf(error->text, sizeof error->text, "%s: cannot be opened", path);
        return DIBIT_IO;
    }
    dibit_status status = dibit_text_append(out, "", 0, error);
    char block[4096];
    for (size_t n; status == DIBIT_OK && (n = fread(block, 1, sizeof block, file)) > 0;)
        status = dibit_text_append(out, block, n, error);
    if (status == DIBIT_OK && ferror(file)) {
        snprintf(error->text, sizeof error->text, "%s: cannot be read", path);
        status = DIBIT_IO;
    }
    if (file != stdin) fclose(file);
    return status;
}

/* ---- Sampling ---- */

int dibit_cli_sampling_apply(const char *verb, const dibit_cli_sampling *o, dibit_sampling *s) {
    if (o->temperature < 0 && o->temperature != -1)
        return dibit_cli_usage(verb, "--temp cannot be negative");
    if (o->top_p > 1 || (o->top_p < 0 && o->top_p != -1))
        return dibit_cli_usage(verb, "--top-p is in 0 to 1");
    if (o->min_p > 1 || (o->min_p < 0 && o->min_p != -1))
        return dibit_cli_usage(verb, "--min-p is in 0 to 1");
    if (o->repetition_penalty != -1 && !(o->repetition_penalty > 0))
        return dibit_cli_usage(verb, "--repeat-penalty is above 0");
    const bool draws =
        o->top_k != UINT32_MAX || o->top_p >= 0 || o->min_p >= 0 || o->seed != UINT64_MAX;
    if (o->greedy && (draws || o->temperature > 0))
        return dibit_cli_usage(verb, "--greedy does not go with options for drawing");
    if (o->repetition_penalty > 0) s->repetition_penalty = (float)o->repetition_penalty;
    if (o->greedy) s->temperature = 0;
    if (draws && s->temperature == 0) s->temperature = 1;
    if (o->temperature >= 0) s->temperature = (float)o->temperature;
    if (o->top_k != UINT32_MAX) s->top_k = o->top_k;
    if (o->top_p >= 0) s->top_p = (float)o->top_p;
    if (o->min_p >= 0) s->min_p = (float)o->min_p;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    s->seed = o->seed != UINT64_MAX ? o->seed
                                    : (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec;
    return 0;
}

/* ---- Ctrl-C ---- */

#if defined(__wasm__) /* no signals */
void dibit_cli_catch_interrupts(void) {}
int dibit_cli_take_interrupts(void) { return 0; }
#else
static volatile sig_atomic_t interrupts;

static void count_interrupt(int number) {
    (void)number;
    interrupts = interrupts + 1;
}

void dibit_cli_catch_interrupts(void) {
    struct sigaction action = {0};
    action.sa_handler = count_interrupt; /* no SA_RESTART: reading a line ends too */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

int dibit_cli_take_interrupts(void) {
    const int n = interrupts;
    interrupts = 0;
    return n;
}
#endif

/* ---- Streaming ---- */

typedef struct printer {
    dibit_cli_stream *stream;
    dibit_text_stream *decoder;
    double begin;
    dibit_status status; /* of decoding or writing */
    dibit_error *error;
} printer;

static void print_new(printer *p, size_t before) {
    const dibit_text *said = &p->stream->said;
    if (p->stream->quiet || said->bytes == before) return;
    if (fwrite(said->data + before, 1, said->bytes - before, stdout) != said->bytes - before ||
        fflush(stdout) != 0) {
        p->status = DIBIT_IO;
        if (p->error) snprintf(p->error->text, sizeof p->error->text, "stdout cannot be written");
    }
}

static bool on_token(void *user, uint32_t index, int64_t token) {
    (void)index;
    printer *p = user;
    dibit_cli_stream *s = p->stream;
    if (s->first_token_seconds == 0) s->first_token_seconds = dibit_cli_seconds() - p->begin;
    const size_t before = s->said.bytes;
    p->status = dibit_text_stream_push(p->decoder, token, &s->said, p->error);
    if (p->status == DIBIT_OK) print_new(p, before);
    return p->status == DIBIT_OK;
}

static dibit_status generate(printer *p, dibit_error *error) {
    dibit_cli_stream *s = p->stream;
    const dibit_generation generation = {
        .sequences = s->sequence, .n_sequences = 1, .on_token = on_token, .on_token_user = p};
    dibit_status status = dibit_generator_begin(s->text->generator, &generation, error);
    if (status) return status;
    do {
        status = dibit_generator_poll(s->text->generator, error);
        if (status == DIBIT_PENDING && dibit_cli_take_interrupts()) {
            dibit_generator_cancel(s->text->generator);
            s->interrupted = true;
            return DIBIT_OK;
        }
    } while (status == DIBIT_PENDING);
    return p->status ? p->status : status;
}

dibit_status dibit_cli_stream_run(dibit_cli_stream *s, dibit_error *error) {
    printer p = {.stream = s, .begin = dibit_cli_seconds(), .error = error};
    dibit_status status =
        dibit_text_stream_create(dibit_lm_tokenizer(s->text->lm), true, &p.decoder, error);
    if (status) return status;
    status = generate(&p, error);
    s->seconds = dibit_cli_seconds() - p.begin;
    /* What tokens said stays, also when something failed. */
    const size_t before = s->said.bytes;
    dibit_error late = {0};
    dibit_status end = dibit_text_stream_flush(p.decoder, &s->said, &late);
    p.error = &late;
    if (end == DIBIT_OK && p.status == DIBIT_OK) {
        print_new(&p, before);
        end = p.status;
    }
    if (status == DIBIT_OK && end != DIBIT_OK) {
        status = end;
        if (error) *error = late;
    }
    dibit_text_stream_destroy(&p.decoder);
    return status;
}

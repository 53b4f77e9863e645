/* dibit eval: perplexity of a text or of token rows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "text.h"

typedef struct options {
    const char *text, *tokens, *model;
    uint32_t window, max_windows;
    dibit_cli_common common;
} options;

/* What one text or one array gives. */
typedef struct result {
    const char *name;
    double nll;                 /* sum */
    size_t n_tokens, n_windows; /* tokens that were predicted */
    double seconds;
} result;

/* Adds the windows of one row. Each is judged by itself; a last one of fewer than 2 tokens is not. */
static dibit_status add_row(const options *o, dibit_cli_text *t, const int64_t *ids, size_t n,
                            size_t window, result *r, dibit_error *error) {
    double *nll = dibit_cli_alloc(window, sizeof *nll);
    dibit_status status = DIBIT_OK;
    for (size_t i = 0; i + 1 < n && status == DIBIT_OK; i += window) {
        if (o->max_windows && r->n_windows == o->max_windows) break;
        const size_t m = n - i < window ? n - i : window;
        if (m < 2) break;
        status = dibit_generator_score(
            t->generator, &(dibit_score){.tokens = ids + i, .n_tokens = m, .nll = nll}, error);
        for (size_t k = 0; k + 1 < m && status == DIBIT_OK; k++) r->nll += nll[k];
        r->n_tokens += m - 1;
        r->n_windows++;
    }
    free(nll);
    return status;
}

static void print_result(const result *r) {
    const double mean = r->n_tokens ? r->nll / (double)r->n_tokens : 0;
    printf("%s: perplexity %.4f (%zu tokens in %zu windows, %.1f tokens/s)\n", r->name, exp(mean),
           r->n_tokens, r->n_windows, r->seconds > 0 ? (double)r->n_tokens / r->seconds : 0);
    fflush(stdout);
}

static json_t *result_json(const result *r) {
    const double mean = r->n_tokens ? r->nll / (double)r->n_tokens : 0;
    return json_pack("{s:s, s:f, s:f, s:I, s:I, s:f}", "name", r->name, "perplexity", exp(mean),
                     "mean_nll", mean, "tokens", (json_int_t)r->n_tokens, "windows",
                     (json_int_t)r->n_windows, "tokens_per_s",
                     r->seconds > 0 ? (double)r->n_tokens / r->seconds : 0);
}

/* ---- Sources ---- */

static dibit_status eval_text(const options *o, dibit_cli_text *t, result *r, dibit_error *error) {
    dibit_text text = {0};
    dibit_tokens tokens = {0};
    r->name = o->text;
    dibit_status status = dibit_cli_read_text(o->text, &text, error);
    if (status == DIBIT_OK)
        status = dibit_tokenizer_encode(
            dibit_lm_tokenizer(t->lm), &(dibit_encode){.text = text.data, .text_bytes = text.bytes},
            &tokens, error);
    if (status == DIBIT_OK && tokens.count < 2) {
        snprintf(error->text, sizeof error->text, "%s: has fewer than 2 tokens", o->text);
        status = DIBIT_BAD_INPUT;
    }
    if (status == DIBIT_OK) status = add_row(o, t, tokens.ids, tokens.count, o->window, r, error);
    dibit_tokens_free(&tokens);
    dibit_text_free(&text);
    return status;
}

/* Element i of an integer tensor; false for other types. */
static bool read_integer(const dibit_tensor *t, size_t i, int64_t *out) {
    switch (t->type) {
    case DIBIT_TYPE_INT64: *out = ((const int64_t *)t->data)[i]; return true;
    case DIBIT_TYPE_INT32: *out = ((const int32_t *)t->data)[i]; return true;
    case DIBIT_TYPE_UINT32: *out = ((const uint32_t *)t->data)[i]; return true;
    case DIBIT_TYPE_INT16: *out = ((const int16_t *)t->data)[i]; return true;
    case DIBIT_TYPE_UINT16: *out = ((const uint16_t *)t->data)[i]; return true;
    default: return false;
    }
}

static dibit_status eval_array(const options *o, dibit_cli_text *t, const dibit_tensor *array,
                               result *r, dibit_error *error) {
    r->name = array->name && array->name[0] ? array->name : o->tokens;
    int64_t probe;
    if (array->rank < 1 || array->rank > 2 || array->dims[array->rank - 1] < 2 ||
        !read_integer(array, 0, &probe)) {
        snprintf(error->text, sizeof error->text,
                 "%s: array '%s' is %s of rank %d, not integers [rows, 2 or more]", o->tokens,
                 r->name, dibit_type_name(array->type), (int)array->rank);
        return DIBIT_BAD_INPUT;
    }
    const size_t n = (size_t)array->dims[array->rank - 1];
    const size_t rows = array->rank == 2 ? (size_t)array->dims[0] : 1;
    int64_t *row = dibit_cli_alloc(n, sizeof *row);
    dibit_status status = DIBIT_OK;
    for (size_t i = 0; i < rows && status == DIBIT_OK; i++) {
        for (size_t k = 0; k < n; k++) read_integer(array, i * n + k, &row[k]);
        /* Rows of a table are windows of their own. */
        status = add_row(o, t, row, n, array->rank == 2 ? n : o->window, r, error);
    }
    free(row);
    return status;
}

static dibit_status eval_tokens(const options *o, dibit_cli_text *t, json_t *list,
                                dibit_error *error) {
    dibit_tensors *tensors = NULL;
    dibit_status status = dibit_tensors_load(o->tokens, &tensors, error);
    for (uint32_t i = 0; status == DIBIT_OK && i < dibit_tensors_count(tensors); i++) {
        const double begin = dibit_cli_seconds();
        result r = {0};
        status = eval_array(o, t, dibit_tensors_get(tensors, i), &r, error);
        r.seconds = dibit_cli_seconds() - begin;
        if (status != DIBIT_OK) break;
        if (o->common.json)
            json_array_append_new(list, result_json(&r));
        else
            print_result(&r);
    }
    dibit_tensors_destroy(&tensors);
    return status;
}

static int evaluate(const options *o, dibit_cli_text *t) {
    dibit_error error = {0};
    json_t *list = json_array();
    dibit_status status = DIBIT_OK;
    if (o->text) {
        const double begin = dibit_cli_seconds();
        result r = {0};
        status = eval_text(o, t, &r, &error);
        r.seconds = dibit_cli_seconds() - begin;
        if (status == DIBIT_OK && o->common.json)
            json_array_append_new(list, result_json(&r));
        else if (status == DIBIT_OK)
            print_result(&r);
    } else {
        status = eval_tokens(o, t, list, &error);
    }
    if (status == DIBIT_OK && o->common.json) {
        dibit_session_info info;
        dibit_session_get_info(t->session, &info);
        json_t *out = json_pack("{s:O, s:s, s:s}", "results", list, "device", info.device,
                                "activations", info.int8_activations ? "int8" : "float");
        json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        putchar('\n');
        json_decref(out);
    }
    json_decref(list);
    if (dibit_session_why(t->session)[0])
        fprintf(stderr, "dibit eval: %s\n", dibit_session_why(t->session));
    return status == DIBIT_OK ? 0 : dibit_cli_fail("eval", error.text);
}

int dibit_cli_eval(int argc, char **argv) {
    options o = {.window = 1024};
    const dibit_cli_option table[] = {
        {"text", 0, "FILE", "a text, cut into windows", DIBIT_CLI_STRING, &o.text},
        {"tokens", 0, "FILE", ".npy or .npz of token ids [rows, length]: each row is a window",
         DIBIT_CLI_STRING, &o.tokens},
        {"window", 0, "N", "tokens a window (default: 1024)", DIBIT_CLI_U32, &o.window},
        {"max-windows", 0, "N", "only the first N windows of the text, or of each array",
         DIBIT_CLI_U32, &o.max_windows},
        {"model", 0, "FILE", "the model inside the folder", DIBIT_CLI_STRING, &o.model},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL}};
    const dibit_cli_spec spec = {
        .arguments = "MODEL_DIR",
        .help = "Perplexity: exp of the mean of -ln p(token | those before it in its window), over "
                "all\n"
                "tokens but each window's first. No special tokens are added.\n",
        .options = table,
        .common = &o.common,
        .min_arguments = 1,
        .max_arguments = 1};
    const int n = dibit_cli_parse(&spec, argc, argv);
    if (n < 0) return dibit_cli_exit_code(n);
    if (!o.text == !o.tokens) return dibit_cli_usage("eval", "give one of --text and --tokens");
    if (o.window < 2) return dibit_cli_usage("eval", "--window is at least 2");
    dibit_cli_text text;
    int code = dibit_cli_text_open("eval", argv[1], o.model, &o.common, &text);
    if (code == 0) code = evaluate(&o, &text);
    dibit_cli_text_close(&text);
    return code;
}

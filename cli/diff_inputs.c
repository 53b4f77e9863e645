/* What `dibit diff` feeds: files, or a prompt made up from the names and dims of the model's inputs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff.h"

/* ---- Lists of tensors ------------------------------------------------------------------------ */

static uint64_t bytes_of(const dibit_tensor *t) {
    return ((uint64_t)check_count(t) * dibit_type_bits(t->type) + 7) / 8;
}

void diff_add_tensor(diff_tensors *tensors, const char *name, const dibit_tensor *tensor) {
    dibit_tensor *const list = dibit_cli_alloc(tensors->n + 1, sizeof *list);
    if (tensors->n) memcpy(list, tensors->list, tensors->n * sizeof *list);
    free(tensors->list);
    tensors->list = list;
    dibit_tensor *const t = &list[tensors->n++];
    *t = *tensor;
    t->name = dibit_cli_format("%s", name);
    t->bytes = bytes_of(t);
    t->data = dibit_cli_alloc((size_t)t->bytes + 1, 1);
    if (t->bytes && tensor->data) memcpy(t->data, tensor->data, (size_t)t->bytes);
}

void diff_free_tensors(diff_tensors *tensors) {
    for (uint32_t i = 0; i < tensors->n; i++) {
        free((char *)(uintptr_t)tensors->list[i].name);
        free(tensors->list[i].data);
    }
    free(tensors->list);
    *tensors = (diff_tensors){0};
}

bool diff_convert(const dibit_tensor *tensor, dibit_type type, dibit_tensor *out,
                  dibit_error *error) {
    *out = *tensor;
    out->type = type;
    out->bytes = bytes_of(out);
    out->data = dibit_cli_alloc((size_t)out->bytes + 1, 1);
    const bool ok = dibit_tensor_convert(tensor, out, error) == DIBIT_OK;
    if (!ok) free(out->data);
    return ok;
}

/* ---- Files --------------------------------------------------------------------------------- */

static bool load_set(diff_context *c, const char *folder, diff_pass *pass, dibit_error *error) {
    char *inner = dibit_cli_format("%s/test_data_set_0", folder);
    uint32_t n = 0;
    char **names = dibit_cli_list_folder(inner, &n);
    check_set set = {0};
    check_set_load(&set, names ? inner : folder, c->model);
    const bool ok = set.result == CHECK_PASSED && set.n_inputs + set.n_expected > 0;
    if (!ok) {
        snprintf(error->text, sizeof error->text, "%.200s: %.290s", folder,
                 set.reason[0] ? set.reason : "there is no test data");
    }
    for (uint32_t i = 0; ok && i < set.n_inputs; i++) {
        diff_add_tensor(&pass->inputs, set.inputs[i].name, &set.inputs[i]);
    }
    for (uint32_t i = 0; ok && c->options.against && i < set.n_expected; i++) {
        diff_add_tensor(&pass->references, set.expected[i].name, &set.expected[i]);
    }
    check_set_free(&set);
    for (uint32_t i = 0; i < n; i++) free(names[i]);
    free(names);
    free(inner);
    return ok;
}

static bool load_file(const char *path, diff_pass *pass, dibit_error *error) {
    dibit_tensors *file = NULL;
    if (dibit_tensors_load(path, &file, error)) return false;
    for (uint32_t i = 0; i < dibit_tensors_count(file); i++) {
        const dibit_tensor *const t = dibit_tensors_get(file, i);
        diff_add_tensor(&pass->inputs, t->name, t);
    }
    dibit_tensors_destroy(&file);
    return true;
}

/* ---- Made up ------------------------------------------------------------------------------- */

typedef struct prompt {
    const diff_context *c;
    int64_t past, tokens, vocabulary;
    uint64_t random;
} prompt;

static uint64_t draw(prompt *p) { /* xorshift64* */
    p->random ^= p->random >> 12;
    p->random ^= p->random << 25;
    p->random ^= p->random >> 27;
    return p->random * 0x2545f4914f6cdd1du >> 11;
}

/* A dim that the model only names: as exporters call them. */
static int64_t size_of(const prompt *p, const char *symbol, int32_t axis) {
    if (strstr(symbol, "batch")) return 1;
    if (strstr(symbol, "total") || strchr(symbol, '+')) return p->past + p->tokens;
    if (strstr(symbol, "past")) return p->past;
    if (strstr(symbol, "seq") || axis > 0) return p->tokens;
    return 1;
}

/* The present output that a past input of the model becomes, or NULL. */
static const char *present_of(const prompt *p, const char *past) {
    const char *a, *b;
    for (uint32_t i = 0; dibit_session_state_pair(p->c->reference, i, &a, &b) == DIBIT_OK; i++) {
        if (strcmp(a, past) == 0) return b;
    }
    return NULL;
}

/* A present output's dim where the past only has a name for it. */
static int64_t known_dim(const prompt *p, const char *output, int32_t axis) {
    dibit_value_info info;
    for (uint32_t i = 0; dibit_model_output(p->c->model, i, &info) == DIBIT_OK; i++) {
        if (strcmp(info.name, output) == 0) return axis < info.rank ? info.dims[axis] : -1;
    }
    return -1;
}

static int64_t integer_for(prompt *p, const char *name, int64_t i) {
    if (strstr(name, "mask")) return 1;
    if (strstr(name, "position")) return p->past + i % p->tokens;
    if (strstr(name, "token_type")) return 0;
    if (strstr(name, "seqlens_k")) return p->past + p->tokens - 1;
    if (strstr(name, "total_seq")) return p->past + p->tokens;
    if (strstr(name, "past_seq")) return p->past;
    return (int64_t)(draw(p) % (uint64_t)p->vocabulary);
}

static bool is_floating(dibit_type type) {
    return type == DIBIT_TYPE_FLOAT || type == DIBIT_TYPE_FLOAT16 || type == DIBIT_TYPE_BFLOAT16 ||
           type == DIBIT_TYPE_DOUBLE;
}

static bool fill(prompt *p, dibit_tensor *t, dibit_error *error) {
    const size_t n = (size_t)check_count(t);
    const bool floats = is_floating(t->type), mask = strstr(t->name, "mask") != NULL;
    float *const f = dibit_cli_alloc(n, sizeof *f);
    int64_t *const v = dibit_cli_alloc(n, sizeof *v);
    for (size_t i = 0; i < n; i++) {
        if (floats) {
            f[i] = mask ? 1.0f : (float)(draw(p) % 4097) / 2048.0f - 1.0f;
        } else {
            v[i] = integer_for(p, t->name, (int64_t)i);
            if (t->type == DIBIT_TYPE_BOOL) v[i] = v[i] == 1;
        }
    }
    dibit_tensor from = *t;
    from.type = floats ? DIBIT_TYPE_FLOAT : DIBIT_TYPE_INT64;
    from.data = floats ? (void *)f : (void *)v;
    const bool ok = dibit_tensor_convert(&from, t, error) == DIBIT_OK;
    free(f);
    free(v);
    return ok;
}

static bool add_input(prompt *p, const dibit_value_info *info, diff_pass *pass,
                      dibit_error *error) {
    if (info->rank < 0 || dibit_type_bits(info->type) == 0) {
        snprintf(error->text, sizeof error->text,
                 "input '%s' has no known rank or type: give it with --input", info->name);
        return false;
    }
    const char *const present = present_of(p, info->name);
    dibit_tensor t = {.name = info->name, .type = info->type, .rank = info->rank};
    for (int32_t i = 0; i < info->rank; i++) {
        t.dims[i] = info->dims[i];
        if (t.dims[i] >= 0) continue;
        t.dims[i] = present ? known_dim(p, present, i) : -1;
        if (t.dims[i] < 0) t.dims[i] = size_of(p, info->dim_names[i], i);
    }
    diff_add_tensor(&pass->inputs, info->name, &t);
    /* A past of fixed shape is a convolution's: zeros, as before the first token. */
    return present || fill(p, &pass->inputs.list[pass->inputs.n - 1], error);
}

static prompt make_prompt(const diff_context *c, int64_t past, int64_t tokens) {
    prompt p = {.c = c, .past = past, .tokens = tokens, .vocabulary = 32};
    p.random = c->options.seed * 0x9e3779b97f4a7c15u + 1;
    dibit_value_info info;
    if (dibit_model_output(c->model, 0, &info) == DIBIT_OK && info.rank > 0 &&
        strstr(info.name, "logits") && info.dims[info.rank - 1] > 0) {
        p.vocabulary = info.dims[info.rank - 1];
    }
    return p;
}

bool diff_make_inputs(diff_context *c, diff_pass *pass, dibit_error *error) {
    const char *const from = c->options.input ? c->options.input : c->options.against;
    if (from) {
        const bool is_file = dibit_cli_is_file(from);
        return is_file ? load_file(from, pass, error) : load_set(c, from, pass, error);
    }
    prompt p = make_prompt(c, 0, c->options.tokens);
    dibit_value_info info;
    for (uint32_t i = 0; dibit_model_input(c->model, i, &info) == DIBIT_OK; i++) {
        if (!add_input(&p, &info, pass, error)) return false;
    }
    return true;
}

/* ---- The step after a prompt ------------------------------------------------------------------- */

/* The likeliest token of the last row, as greedy decoding would take it. */
static int64_t next_token(const dibit_tensor *logits) {
    const int64_t vocabulary = logits->dims[logits->rank - 1];
    const int64_t first = check_count(logits) - vocabulary;
    int64_t best = 0;
    for (int64_t i = 1; i < vocabulary; i++) {
        if (check_element(logits, first + i) > check_element(logits, first + best)) best = i;
    }
    return best;
}

bool diff_make_step(diff_context *c, diff_pass *pass, dibit_error *error) {
    prompt p = make_prompt(c, c->options.tokens, 1);
    dibit_value_info info;
    for (uint32_t i = 0; dibit_model_input(c->model, i, &info) == DIBIT_OK; i++) {
        const char *const present = present_of(&p, info.name);
        dibit_tensor t;
        if (present) {
            if (dibit_session_value(c->reference, present, &t, error)) return false;
            dibit_tensor converted;
            if (!diff_convert(&t, info.type, &converted, error)) return false;
            diff_add_tensor(&pass->inputs, info.name, &converted);
            free(converted.data);
            continue;
        }
        if (!add_input(&p, &info, pass, error)) return false;
        dibit_tensor *const added = &pass->inputs.list[pass->inputs.n - 1];
        if (strcmp(info.name, "input_ids") == 0 &&
            dibit_session_value(c->reference, "logits", &t, error) == DIBIT_OK && t.rank > 0) {
            int64_t token = next_token(&t);
            const dibit_tensor one = {
                .type = DIBIT_TYPE_INT64, .rank = 2, .dims = {1, 1}, .data = &token};
            if (dibit_tensor_convert(&one, added, error)) return false;
        }
    }
    return true;
}

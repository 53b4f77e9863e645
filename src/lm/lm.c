/* A model's folder: which files it has, and what they say about context, stop tokens and sampling. */
#include <stdio.h>
#include <stdlib.h>

#include "lm/chat.h"
#include "lm/json.h"
#include "lm/sampler.h"

#define MAX_CONFIG_BYTES (16u << 20)

struct dibit_lm {
    dibit_text folder, model_path, model_type;
    uint64_t context_length;
    dibit_tokens stop;
    dibit_sampling sampling;
    dibit_tokenizer *tokenizer;
    dbt_chat_template chat;
};

/* The JSON files of a folder; NULL: not there. */
typedef struct configs {
    json_t *config, *generation, *genai, *tokenizer;
} configs;

/* ---- Paths ---- */

static dibit_status join(const dibit_text *folder, const char *name, dibit_text *out,
                         dibit_error *error) {
    out->bytes = 0;
    if (name[0] != '/' && folder->bytes) {
        DBT_TRY(dibit_text_append(out, folder->data, folder->bytes, error));
        DBT_TRY(dibit_text_append(out, "/", 1, error));
    }
    return dibit_text_append(out, name, strlen(name), error);
}

static bool is_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    (void)fgetc(file); /* a folder opens, but does not read */
    const bool readable = !ferror(file);
    fclose(file);
    return readable;
}

static bool ends_with(const dibit_text *text, const char *end) {
    const size_t n = strlen(end);
    return text->bytes >= n && !memcmp(text->data + text->bytes - n, end, n);
}

/* Cuts the last component off; what is left is "." when there was only one. */
static dibit_status to_parent(dibit_text *path, dibit_error *error) {
    size_t n = path->bytes;
    while (n > 0 && path->data[n - 1] != '/') n--;
    if (n > 1) n--;
    path->bytes = 0;
    if (n == 0) return dibit_text_append(path, ".", 1, error);
    path->bytes = n;
    path->data[n] = '\0';
    return DIBIT_OK;
}

/* The folder of desc->path; when that is a .onnx file, also the model. */
static dibit_status find_folder(dibit_lm *lm, const char *path, dibit_error *error) {
    DBT_TRY(dibit_text_append(&lm->folder, path, strlen(path), error));
    while (lm->folder.bytes > 1 && ends_with(&lm->folder, "/"))
        lm->folder.data[--lm->folder.bytes] = '\0';
    if (!ends_with(&lm->folder, ".onnx")) return DIBIT_OK;
    DBT_TRY(dibit_text_append(&lm->model_path, lm->folder.data, lm->folder.bytes, error));
    DBT_TRY(to_parent(&lm->folder, error));
    dibit_text beside = {0};
    dibit_status status = join(&lm->folder, "tokenizer.json", &beside, error);
    const bool inside = status == DIBIT_OK && !is_file(beside.data) &&
                        (ends_with(&lm->folder, "/onnx") || !strcmp(lm->folder.data, "onnx"));
    dibit_text_free(&beside);
    if (inside) status = to_parent(&lm->folder, error);
    return status;
}

static bool stays_inside(const char *name) {
    if (name[0] == '/') return false;
    for (const char *at = name; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL) {
        if (!strncmp(at, "..", 2) && (at[2] == '/' || at[2] == '\0')) return false;
    }
    return true;
}

/* Where the model lies: named by the caller, by genai_config.json, or by one of the usual names, of
 * the fewest bits first. */
static dibit_status find_model(dibit_lm *lm, const char *name, const configs *c,
                               dibit_error *error) {
    static const char *const usual[] = {"model.onnx",
                                        "onnx/model_q2.onnx",
                                        "onnx/model_q2f16.onnx",
                                        "onnx/model_q4f16.onnx",
                                        "onnx/model_q4.onnx",
                                        "onnx/model_q8.onnx",
                                        "onnx/model_int8.onnx",
                                        "onnx/model_quantized.onnx",
                                        "onnx/model_fp16.onnx",
                                        "onnx/model.onnx"};
    if (lm->model_path.bytes) return DIBIT_OK;
    if (!name && c->genai) {
        const json_t *model = json_object_get(c->genai, "model");
        const json_t *file = json_object_get(json_object_get(model, "decoder"), "filename");
        name = json_string_value(file);
        DBT_LM_FAIL_IF(name && !stays_inside(name), error, DIBIT_BAD_FILE,
                       "%s/genai_config.json: model.decoder.filename leaves the folder",
                       lm->folder.data);
    }
    if (name) {
        DBT_TRY(join(&lm->folder, name, &lm->model_path, error));
        DBT_LM_FAIL_IF(!is_file(lm->model_path.data), error, DIBIT_NOT_FOUND,
                       "%s: there is no such file", lm->model_path.data);
        return DIBIT_OK;
    }
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        DBT_TRY(join(&lm->folder, usual[i], &lm->model_path, error));
        if (is_file(lm->model_path.data)) return DIBIT_OK;
    }
    return dbt_lm_fail(error, DIBIT_NOT_FOUND,
                       "%s: no model.onnx, and no onnx/model_*.onnx, is there", lm->folder.data);
}

/* ---- JSON files ---- */

/* *out stays NULL when the file is not there. */
static dibit_status read_optional(const dibit_lm *lm, const char *name, dibit_text *out,
                                  dibit_error *error) {
    dibit_text path = {0};
    dibit_status status = join(&lm->folder, name, &path, error);
    if (status == DIBIT_OK && is_file(path.data))
        status = dbt_lm_read_file(path.data, MAX_CONFIG_BYTES, out, error);
    dibit_text_free(&path);
    return status;
}

static dibit_status read_config(const dibit_lm *lm, const char *name, json_t **out,
                                dibit_error *error) {
    dibit_text text = {0};
    DBT_TRY(read_optional(lm, name, &text, error));
    if (!text.data) return DIBIT_OK;
    dibit_error inner = {0};
    dibit_status status = dbt_json_parse(text.data, text.bytes, out, &inner);
    if (status == DIBIT_OK && !json_is_object(*out))
        status = dbt_lm_fail(&inner, DIBIT_BAD_FILE, "it is no JSON object");
    dibit_text_free(&text);
    if (status != DIBIT_OK)
        dbt_lm_fail(error, status, "%s/%s: %s", lm->folder.data, name, inner.text);
    return status;
}

static bool has_stop(const dibit_lm *lm, int64_t id) {
    for (size_t i = 0; i < lm->stop.count; i++) {
        if (lm->stop.ids[i] == id) return true;
    }
    return false;
}

static dibit_status add_stop(dibit_lm *lm, int64_t id, dibit_error *error) {
    if (id < 0 || has_stop(lm, id)) return DIBIT_OK;
    return dibit_tokens_append(&lm->stop, &id, 1, error);
}

/* "eos_token_id": a number, or a list of them. */
static dibit_status add_stops(dibit_lm *lm, const json_t *object, const char *where,
                              dibit_error *error) {
    const json_t *value = json_object_get(object, "eos_token_id");
    if (!value || json_is_null(value)) return DIBIT_OK;
    const size_t n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
        DBT_LM_FAIL_IF(!json_is_integer(id), error, DIBIT_BAD_FILE,
                       "%s.eos_token_id is no number and no list of numbers", where);
        DBT_TRY(add_stop(lm, json_integer_value(id), error));
    }
    return DIBIT_OK;
}

/* tokenizer_config.json's "eos_token": a piece, or an object with its "content". */
static dibit_status add_stop_piece(dibit_lm *lm, const json_t *config, dibit_error *error) {
    const json_t *token = json_object_get(config, "eos_token");
    if (json_is_object(token)) token = json_object_get(token, "content");
    if (!json_is_string(token)) return DIBIT_OK;
    return add_stop(lm, dibit_tokenizer_id(lm->tokenizer, json_string_value(token)), error);
}

/* Hugging Face's generation_config.json, and `search` of genai_config.json. Values count when the
 * file asks for sampling; top_k's default is Hugging Face's. */
static dibit_status read_sampling(const json_t *object, const char *where, dibit_sampling *out,
                                  dibit_error *error) {
    bool sample = false;
    double temperature = 1, top_p = 0, min_p = 0, penalty = 0;
    uint64_t top_k = 50;
    DBT_TRY(dbt_json_bool(object, "do_sample", where, false, &sample, error));
    DBT_TRY(dbt_json_float(object, "temperature", where, &temperature, error));
    DBT_TRY(dbt_json_float(object, "top_p", where, &top_p, error));
    DBT_TRY(dbt_json_float(object, "min_p", where, &min_p, error));
    DBT_TRY(dbt_json_float(object, "repetition_penalty", where, &penalty, error));
    DBT_TRY(dbt_json_uint(object, "top_k", where, false, UINT32_MAX, &top_k, error));
    *out = (dibit_sampling){.repetition_penalty = (float)penalty};
    if (sample) {
        out->temperature = (float)temperature;
        out->top_k = (uint32_t)top_k;
        out->top_p = (float)top_p;
        out->min_p = (float)min_p;
    }
    dibit_error inner;
    DBT_LM_FAIL_IF(dbt_sampling_check(out, &inner) != DIBIT_OK, error, DIBIT_BAD_FILE, "%s: %s",
                   where, inner.text);
    return DIBIT_OK;
}

static dibit_status read_context(dibit_lm *lm, const configs *c, dibit_error *error) {
    static const char *const keys[] = {"max_position_embeddings", "n_positions", "n_ctx"};
    const json_t *genai = json_object_get(c->genai, "model");
    if (genai)
        DBT_TRY(dbt_json_uint(genai, "context_length", "genai_config.json: model", false, INT32_MAX,
                              &lm->context_length, error));
    for (size_t i = 0; i < sizeof keys / sizeof *keys && c->config && !lm->context_length; i++)
        DBT_TRY(dbt_json_uint(c->config, keys[i], "config.json", false, INT32_MAX,
                              &lm->context_length, error));
    return DIBIT_OK;
}

static dibit_status read_values(dibit_lm *lm, const configs *c, dibit_error *error) {
    const json_t *genai = json_object_get(c->genai, "model");
    const char *type = NULL;
    if (c->config)
        DBT_TRY(dbt_json_string(c->config, "model_type", "config.json", false, &type, NULL, error));
    if (!type && genai)
        DBT_TRY(
            dbt_json_string(genai, "type", "genai_config.json: model", false, &type, NULL, error));
    DBT_TRY(dibit_text_append(&lm->model_type, type ? type : "", type ? strlen(type) : 0, error));
    DBT_TRY(read_context(lm, c, error));
    DBT_TRY(add_stops(lm, c->generation, "generation_config.json", error));
    DBT_TRY(add_stops(lm, genai, "genai_config.json: model", error));
    DBT_TRY(add_stops(lm, c->config, "config.json", error));
    DBT_TRY(add_stop_piece(lm, c->tokenizer, error));
    if (lm->chat.kind == DBT_CHAT_CHATML)
        DBT_TRY(add_stop(lm, dibit_tokenizer_id(lm->tokenizer, "<|im_end|>"), error));
    if (c->generation)
        return read_sampling(c->generation, "generation_config.json", &lm->sampling, error);
    const json_t *search = json_object_get(c->genai, "search");
    return search ? read_sampling(search, "genai_config.json: search", &lm->sampling, error)
                  : DIBIT_OK;
}

/* chat_template.jinja, or tokenizer_config.json's "chat_template": a text, or a list of named ones. */
static dibit_status read_chat(dibit_lm *lm, const json_t *config, dibit_error *error) {
    dibit_text text = {0};
    DBT_TRY(read_optional(lm, "chat_template.jinja", &text, error));
    const char *source = text.data;
    const json_t *inside = json_object_get(config, "chat_template");
    if (!source && json_is_string(inside)) source = json_string_value(inside);
    for (size_t i = 0; !source && i < json_array_size(inside); i++) {
        const json_t *entry = json_array_get(inside, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && !strcmp(name, "default"))
            source = json_string_value(json_object_get(entry, "template"));
    }
    const dibit_status status = dbt_chat_recognise(source, &lm->chat, error);
    dibit_text_free(&text);
    return status;
}

static dibit_status read_folder(dibit_lm *lm, const dibit_lm_desc *desc, configs *c,
                                dibit_error *error) {
    DBT_TRY(find_folder(lm, desc->path, error));
    DBT_TRY(read_config(lm, "genai_config.json", &c->genai, error));
    DBT_TRY(find_model(lm, desc->model, c, error));
    DBT_TRY(read_config(lm, "config.json", &c->config, error));
    DBT_TRY(read_config(lm, "generation_config.json", &c->generation, error));
    DBT_TRY(read_config(lm, "tokenizer_config.json", &c->tokenizer, error));
    dibit_text path = {0};
    dibit_status status = join(&lm->folder, "tokenizer.json", &path, error);
    if (status == DIBIT_OK)
        status =
            dibit_tokenizer_load(&(dibit_tokenizer_desc){.path = path.data}, &lm->tokenizer, error);
    dibit_text_free(&path);
    DBT_TRY(status);
    DBT_TRY(read_chat(lm, c->tokenizer, error));
    dibit_error inner = {0};
    status = read_values(lm, c, &inner);
    if (status != DIBIT_OK) dbt_lm_fail(error, status, "%s: %s", lm->folder.data, inner.text);
    return status;
}

/* ---- Public ---- */

dibit_status dibit_lm_load(const dibit_lm_desc *desc, dibit_lm **out, dibit_error *error) {
    DBT_LM_FAIL_IF(!desc || !desc->path || !desc->path[0] || !out, error, DIBIT_BAD_ARGUMENT,
                   "dibit_lm_load takes a folder");
    dibit_lm *lm = calloc(1, sizeof *lm);
    if (!lm) return dbt_lm_fail_memory(error);
    configs c = {0};
    const dibit_status status = read_folder(lm, desc, &c, error);
    json_decref(c.config);
    json_decref(c.generation);
    json_decref(c.genai);
    json_decref(c.tokenizer);
    if (status == DIBIT_OK)
        *out = lm;
    else
        dibit_lm_destroy(&lm);
    return status;
}

void dibit_lm_destroy(dibit_lm **out) {
    if (!out || !*out) return;
    dibit_lm *lm = *out;
    dibit_text_free(&lm->folder);
    dibit_text_free(&lm->model_path);
    dibit_text_free(&lm->model_type);
    dibit_tokens_free(&lm->stop);
    dibit_tokenizer_destroy(&lm->tokenizer);
    dbt_chat_free(&lm->chat);
    free(lm);
    *out = NULL;
}

void dibit_lm_get_info(const dibit_lm *lm, dibit_lm_info *info) {
    static const char *const kinds[] = {"", "unsupported", "chatml"};
    *info = (dibit_lm_info){.folder = lm->folder.data,
                            .model_path = lm->model_path.data,
                            .model_type = lm->model_type.data,
                            .context_length = lm->context_length,
                            .stop_tokens = lm->stop.ids,
                            .n_stop_tokens = lm->stop.count,
                            .sampling = lm->sampling,
                            .chat = kinds[lm->chat.kind]};
}

const dibit_tokenizer *dibit_lm_tokenizer(const dibit_lm *lm) { return lm->tokenizer; }

dibit_status dibit_lm_chat_format(const dibit_lm *lm, const dibit_chat *chat, dibit_text *text,
                                  dibit_error *error) {
    const size_t before = text->bytes;
    const dibit_status status = dbt_chat_format(&lm->chat, chat, text, NULL, error);
    if (status != DIBIT_OK) text->bytes = before;
    return status;
}

dibit_status dibit_lm_chat_encode(const dibit_lm *lm, const dibit_chat *chat, dibit_tokens *tokens,
                                  dibit_error *error) {
    dbt_words plain = {0};
    dibit_text text = {0};
    dibit_status status = dbt_chat_format(&lm->chat, chat, &text, &plain, error);
    const dbt_special_rule rule = {.allow = true, .plain = plain.spans, .n_plain = plain.n_spans};
    if (status == DIBIT_OK)
        status =
            dbt_tokenizer_encode_with(lm->tokenizer, text.data, text.bytes, &rule, tokens, error);
    dbt_words_free(&plain);
    dibit_text_free(&text);
    return status;
}

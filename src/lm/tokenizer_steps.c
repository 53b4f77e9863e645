/* Normalizers, pre-tokenizers, decoders and post-processors of tokenizer.json. All four may be
 * Sequences of Sequences; jansson bounds how deep a file nests. */
#include <stdlib.h>

#include "lm/tokenizer_load.h"

/* Walks a member and, when it is a Sequence, its list `list_key`, calling add for each leaf. */
typedef dibit_status (*add_step)(dibit_tokenizer *t, const json_t *json, const char *type,
                                 dibit_error *error);

static dibit_status walk(dibit_tokenizer *t, const json_t *json, const char *where,
                         const char *list_key, add_step add, dibit_error *error) {
    if (!json || json_is_null(json)) return DIBIT_OK;
    DBT_LM_FAIL_IF(!json_is_object(json), error, DIBIT_BAD_FILE, "%s is no object", where);
    const char *type = NULL;
    DBT_TRY(dbt_json_string(json, "type", where, true, &type, NULL, error));
    if (strcmp(type, "Sequence") != 0) return add(t, json, type, error);
    const json_t *list = NULL;
    DBT_TRY(dbt_json_array(json, list_key, where, true, &list, error));
    for (size_t i = 0; i < json_array_size(list); i++)
        DBT_TRY(walk(t, json_array_get(list, i), where, list_key, add, error));
    return DIBIT_OK;
}

/* Makes room for one more zeroed step at the end of a list; NULL: out of memory. */
static void *push(void **steps, size_t *n, size_t bytes) {
    void *grown = realloc(*steps, (*n + 1) * bytes);
    if (!grown) return NULL;
    *steps = grown;
    return memset((char *)grown + (*n)++ * bytes, 0, bytes);
}

/* {"Regex": "..."} or {"String": "..."}. */
static dibit_status load_pattern(const json_t *json, const char *where, dbt_regex **out,
                                 dibit_error *error) {
    const json_t *pattern = NULL;
    DBT_TRY(dbt_json_object(json, "pattern", where, true, &pattern, error));
    const char *text = NULL;
    size_t bytes = 0;
    DBT_TRY(dbt_json_string(pattern, "Regex", where, false, &text, &bytes, error));
    if (text) return dbt_regex_compile(text, bytes, false, out, error);
    DBT_TRY(dbt_json_string(pattern, "String", where, true, &text, &bytes, error));
    return dbt_regex_compile(text, bytes, true, out, error);
}

static dibit_status load_text(const json_t *json, const char *key, const char *where,
                              dibit_text *out, dibit_error *error) {
    const char *text = NULL;
    size_t bytes = 0;
    DBT_TRY(dbt_json_string(json, key, where, true, &text, &bytes, error));
    return dibit_text_append(out, text, bytes, error);
}

/* ---- Normalizers ---- */

static dibit_status add_normalizer(dibit_tokenizer *t, const json_t *json, const char *type,
                                   dibit_error *error) {
    static const struct {
        const char *name;
        dbt_normalizer_kind kind;
    } kinds[] = {{"NFC", DBT_NORMALIZER_NFC},
                 {"NFD", DBT_NORMALIZER_NFD},
                 {"NFKC", DBT_NORMALIZER_NFKC},
                 {"NFKD", DBT_NORMALIZER_NFKD},
                 {"Lowercase", DBT_NORMALIZER_LOWERCASE},
                 {"Prepend", DBT_NORMALIZER_PREPEND},
                 {"Replace", DBT_NORMALIZER_REPLACE},
                 {"Strip", DBT_NORMALIZER_STRIP},
                 {"StripAccents", DBT_NORMALIZER_STRIP_ACCENTS},
                 {"ByteLevel", DBT_NORMALIZER_BYTE_LEVEL}};
    size_t k = 0;
    while (k < sizeof kinds / sizeof *kinds && strcmp(type, kinds[k].name) != 0) k++;
    DBT_LM_FAIL_IF(k == sizeof kinds / sizeof *kinds, error, DIBIT_UNSUPPORTED,
                   "the normalizer %.40s is not supported", type);
    void *steps = t->normalizers;
    dbt_normalizer *step = push(&steps, &t->n_normalizers, sizeof *step);
    if (!step) return dbt_lm_fail_memory(error);
    t->normalizers = steps;
    step->kind = kinds[k].kind;
    switch (step->kind) {
    case DBT_NORMALIZER_PREPEND:
        return load_text(json, "prepend", "normalizer", &step->content, error);
    case DBT_NORMALIZER_REPLACE:
        DBT_TRY(load_pattern(json, "normalizer", &step->regex, error));
        return load_text(json, "content", "normalizer", &step->content, error);
    case DBT_NORMALIZER_STRIP:
        DBT_TRY(dbt_json_bool(json, "strip_left", "normalizer", true, &step->left, error));
        return dbt_json_bool(json, "strip_right", "normalizer", true, &step->right, error);
    default: return DIBIT_OK;
    }
}

dibit_status dbt_load_normalizers(dibit_tokenizer *t, const json_t *json, dibit_error *error) {
    return walk(t, json, "normalizer", "normalizers", add_normalizer, error);
}

/* ---- Pre-tokenizers ---- */

static const char gpt2_split[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static dibit_status load_behavior(const json_t *json, bool required, dbt_split_behavior *out,
                                  dibit_error *error) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = NULL;
    DBT_TRY(dbt_json_string(json, "behavior", "pre_tokenizer", required, &name, NULL, error));
    if (!name) return DIBIT_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *out = (dbt_split_behavior)i;
        return DIBIT_OK;
    }
    return dbt_lm_fail(error, DIBIT_BAD_FILE, "pre_tokenizer.behavior %.40s is unknown", name);
}

static dibit_status add_pre_tokenizer(dibit_tokenizer *t, const json_t *json, const char *type,
                                      dibit_error *error) {
    void *steps = t->pre_tokenizers;
    dbt_pre_tokenizer *step = push(&steps, &t->n_pre_tokenizers, sizeof *step);
    if (!step) return dbt_lm_fail_memory(error);
    t->pre_tokenizers = steps;
    step->behavior = DBT_SPLIT_ISOLATED;
    const char *where = "pre_tokenizer", *split = NULL;
    if (!strcmp(type, "ByteLevel")) {
        bool use_regex = true;
        step->byte_level = true;
        DBT_TRY(
            dbt_json_bool(json, "add_prefix_space", where, true, &step->add_prefix_space, error));
        DBT_TRY(dbt_json_bool(json, "use_regex", where, false, &use_regex, error));
        if (!use_regex) return DIBIT_OK;
        split = gpt2_split;
    } else if (!strcmp(type, "Split")) {
        DBT_TRY(load_behavior(json, true, &step->behavior, error));
        DBT_TRY(dbt_json_bool(json, "invert", where, true, &step->invert, error));
        return load_pattern(json, where, &step->regex, error);
    } else if (!strcmp(type, "Digits")) {
        bool individual = false;
        DBT_TRY(dbt_json_bool(json, "individual_digits", where, true, &individual, error));
        if (!individual) step->behavior = DBT_SPLIT_CONTIGUOUS;
        split = "\\p{N}";
    } else if (!strcmp(type, "Punctuation")) {
        DBT_TRY(load_behavior(json, false, &step->behavior, error));
        split = "[\\p{P}$+<=>^`|~]";
    } else if (!strcmp(type, "Whitespace")) {
        step->behavior = DBT_SPLIT_REMOVED;
        step->invert = true;
        split = "[\\w\\x{200c}\\x{200d}]+|[^\\w\\x{200c}\\x{200d}\\s]+";
    } else if (!strcmp(type, "WhitespaceSplit")) {
        step->behavior = DBT_SPLIT_REMOVED;
        split = "\\s";
    } else {
        return dbt_lm_fail(error, DIBIT_UNSUPPORTED, "the pre-tokenizer %.40s is not supported",
                           type);
    }
    return dbt_regex_compile(split, strlen(split), false, &step->regex, error);
}

dibit_status dbt_load_pre_tokenizers(dibit_tokenizer *t, const json_t *json, dibit_error *error) {
    return walk(t, json, "pre_tokenizer", "pretokenizers", add_pre_tokenizer, error);
}

/* ---- Decoders ---- */

static dibit_status add_decoder(dibit_tokenizer *t, const json_t *json, const char *type,
                                dibit_error *error) {
    void *steps = t->decoders;
    dbt_decoder *step = push(&steps, &t->n_decoders, sizeof *step);
    if (!step) return dbt_lm_fail_memory(error);
    t->decoders = steps;
    const char *where = "decoder";
    if (!strcmp(type, "ByteLevel")) {
        step->kind = DBT_DECODER_BYTE_LEVEL;
    } else if (!strcmp(type, "ByteFallback")) {
        step->kind = DBT_DECODER_BYTE_FALLBACK;
    } else if (!strcmp(type, "Fuse")) {
        step->kind = DBT_DECODER_FUSE;
    } else if (!strcmp(type, "Replace")) {
        step->kind = DBT_DECODER_REPLACE;
        DBT_TRY(load_pattern(json, where, &step->regex, error));
        return load_text(json, "content", where, &step->content, error);
    } else if (!strcmp(type, "Strip")) {
        uint64_t start = 0, stop = 0;
        step->kind = DBT_DECODER_STRIP;
        DBT_TRY(dbt_json_uint(json, "start", where, true, INT32_MAX, &start, error));
        DBT_TRY(dbt_json_uint(json, "stop", where, true, INT32_MAX, &stop, error));
        step->start = (size_t)start;
        step->stop = (size_t)stop;
        DBT_TRY(load_text(json, "content", where, &step->content, error));
        size_t bytes = 0;
        if (step->content.bytes) dbt_utf8_next(step->content.data, step->content.bytes, &bytes);
        DBT_LM_FAIL_IF(!bytes || bytes != step->content.bytes, error, DIBIT_BAD_FILE,
                       "decoder.content is not one character");
    } else {
        return dbt_lm_fail(error, DIBIT_UNSUPPORTED, "the decoder %.40s is not supported", type);
    }
    return DIBIT_OK;
}

dibit_status dbt_load_decoders(dibit_tokenizer *t, const json_t *json, dibit_error *error) {
    t->has_decoder = json && !json_is_null(json);
    return walk(t, json, "decoder", "decoders", add_decoder, error);
}

/* ---- Post-processors ---- */

/* Puts ids around what earlier processors made. */
static dibit_status surround(dibit_tokenizer *t, const dibit_tokens *before,
                             const dibit_tokens *after, dibit_error *error) {
    dibit_tokens all = {0};
    dibit_status status = dibit_tokens_append(&all, before->ids, before->count, error);
    if (status == DIBIT_OK)
        status = dibit_tokens_append(&all, t->before.ids, t->before.count, error);
    if (status == DIBIT_OK)
        status = dibit_tokens_append(&t->after, after->ids, after->count, error);
    if (status != DIBIT_OK) {
        dibit_tokens_free(&all);
        return status;
    }
    dibit_tokens_free(&t->before);
    t->before = all;
    return DIBIT_OK;
}

static dibit_status append_id(const json_t *id, dibit_tokens *out, dibit_error *error) {
    DBT_LM_FAIL_IF(
        !json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= DBT_MAX_ID,
        error, DIBIT_BAD_FILE, "post_processor: an id is not in 0 to %u", DBT_MAX_ID - 1);
    return dibit_tokens_append(out, &(int64_t){json_integer_value(id)}, 1, error);
}

/* The ids of {"SpecialToken": {"id": NAME}}, which the member special_tokens lists. */
static dibit_status append_special(const json_t *json, const json_t *special, dibit_tokens *out,
                                   dibit_error *error) {
    const char *name = NULL, *where = "post_processor.special_tokens";
    DBT_TRY(dbt_json_string(special, "id", "post_processor.single", true, &name, NULL, error));
    const json_t *table = NULL, *token = NULL, *ids = NULL;
    DBT_TRY(dbt_json_object(json, "special_tokens", "post_processor", true, &table, error));
    DBT_TRY(dbt_json_object(table, name, where, true, &token, error));
    DBT_TRY(dbt_json_array(token, "ids", where, true, &ids, error));
    for (size_t i = 0; i < json_array_size(ids); i++)
        DBT_TRY(append_id(json_array_get(ids, i), out, error));
    return DIBIT_OK;
}

static dibit_status read_template(const json_t *json, dibit_tokens *before, dibit_tokens *after,
                                  dibit_error *error) {
    const json_t *single = NULL;
    size_t n_sequences = 0;
    DBT_TRY(dbt_json_array(json, "single", "post_processor", true, &single, error));
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        const json_t *special = json_object_get(piece, "SpecialToken");
        if (special)
            DBT_TRY(append_special(json, special, n_sequences ? after : before, error));
        else if (json_object_get(piece, "Sequence"))
            n_sequences++;
        else
            return dbt_lm_fail(error, DIBIT_BAD_FILE, "post_processor.single[%zu] is unknown", i);
    }
    DBT_LM_FAIL_IF(n_sequences != 1, error, DIBIT_UNSUPPORTED,
                   "post_processor.single has the text %zu times, not once", n_sequences);
    return DIBIT_OK;
}

/* "cls" and "sep" are ["<s>", 0]. */
static dibit_status read_roberta(const json_t *json, dibit_tokens *before, dibit_tokens *after,
                                 dibit_error *error) {
    const json_t *cls = NULL, *sep = NULL;
    DBT_TRY(dbt_json_array(json, "cls", "post_processor", true, &cls, error));
    DBT_TRY(dbt_json_array(json, "sep", "post_processor", true, &sep, error));
    DBT_TRY(append_id(json_array_get(cls, 1), before, error));
    return append_id(json_array_get(sep, 1), after, error);
}

static dibit_status add_post_processor(dibit_tokenizer *t, const json_t *json, const char *type,
                                       dibit_error *error) {
    if (!strcmp(type, "ByteLevel")) return DIBIT_OK; /* about offsets alone */
    dibit_tokens before = {0}, after = {0};
    dibit_status status;
    if (!strcmp(type, "TemplateProcessing"))
        status = read_template(json, &before, &after, error);
    else if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing"))
        status = read_roberta(json, &before, &after, error);
    else
        status = dbt_lm_fail(error, DIBIT_UNSUPPORTED, "the post-processor %.40s is not supported",
                             type);
    if (status == DIBIT_OK) status = surround(t, &before, &after, error);
    dibit_tokens_free(&before);
    dibit_tokens_free(&after);
    return status;
}

dibit_status dbt_load_post_processor(dibit_tokenizer *t, const json_t *json, dibit_error *error) {
    return walk(t, json, "post_processor", "processors", add_post_processor, error);
}

/* From tokenizer.json to a tokenizer: the model, added tokens, and what is derived from them. The model's
 * lists are in tokenizer_lists.c, the steps around the model in tokenizer_steps.c. */
#include <stdio.h>
#include <stdlib.h>

#include "lm/tokenizer_load.h"

/* A string that may be missing or empty: both give NULL. */
static dibit_status load_affix(const json_t *model, const char *key, char **out,
                               dibit_error *error) {
    const char *text = NULL;
    DBT_TRY(dbt_json_string(model, key, "model", false, &text, NULL, error));
    if (!text || !*text) return DIBIT_OK;
    *out = malloc(strlen(text) + 1);
    if (!*out) return dbt_lm_fail_memory(error);
    memcpy(*out, text, strlen(text) + 1);
    return DIBIT_OK;
}

static dibit_status load_model(dbt_bpe *bpe, const json_t *model, const dbt_tokenizer_lists *lists,
                               dibit_error *error) {
    const char *type = "BPE", *unk = NULL;
    const json_t *vocab, *merges; /* their contents are in `lists` */
    double dropout = 0;
    bpe->unk = DBT_NO_ID;
    DBT_TRY(dbt_json_string(model, "type", "model", false, &type, NULL, error));
    DBT_LM_FAIL_IF(strcmp(type, "BPE") != 0, error, DIBIT_UNSUPPORTED,
                   "model.type is %.40s, and only BPE is supported", type);
    DBT_TRY(dbt_json_float(model, "dropout", "model", &dropout, error));
    DBT_LM_FAIL_IF(dropout != 0, error, DIBIT_UNSUPPORTED, "model.dropout is not supported");
    DBT_TRY(dbt_json_bool(model, "fuse_unk", "model", false, &bpe->fuse_unk, error));
    DBT_TRY(dbt_json_bool(model, "byte_fallback", "model", false, &bpe->byte_fallback, error));
    DBT_TRY(dbt_json_bool(model, "ignore_merges", "model", false, &bpe->ignore_merges, error));
    DBT_TRY(load_affix(model, "continuing_subword_prefix", &bpe->prefix, error));
    DBT_TRY(load_affix(model, "end_of_word_suffix", &bpe->suffix, error));
    DBT_TRY(dbt_json_object(model, "vocab", "model", true, &vocab, error));
    DBT_TRY(dbt_load_vocab(bpe, lists, error));
    DBT_TRY(dbt_json_array(model, "merges", "model", true, &merges, error));
    DBT_TRY(dbt_load_merges(bpe, lists, error));
    DBT_TRY(dbt_json_string(model, "unk_token", "model", false, &unk, NULL, error));
    if (unk) {
        bpe->unk = dbt_vocab_get(&bpe->vocab, unk, strlen(unk));
        DBT_LM_FAIL_IF(bpe->unk == DBT_NO_ID, error, DIBIT_BAD_FILE,
                       "model.unk_token \"%.40s\" is not in the vocabulary", unk);
    }
    dbt_bpe_finish(bpe);
    return DIBIT_OK;
}

static dibit_status load_added_token(dibit_tokenizer *t, const json_t *json, size_t i,
                                     dibit_error *error) {
    char where[40];
    snprintf(where, sizeof where, "added_tokens[%zu]", i);
    DBT_LM_FAIL_IF(!json_is_object(json), error, DIBIT_BAD_FILE, "%s is no object", where);
    const char *content = NULL;
    size_t bytes = 0;
    uint64_t id = 0;
    dbt_added_token token = {0};
    DBT_TRY(dbt_json_string(json, "content", where, true, &content, &bytes, error));
    DBT_TRY(dbt_json_uint(json, "id", where, true, DBT_MAX_ID - 1, &id, error));
    DBT_TRY(dbt_json_bool(json, "special", where, false, &token.special, error));
    DBT_TRY(dbt_json_bool(json, "normalized", where, false, &token.normalized, error));
    DBT_TRY(dbt_json_bool(json, "lstrip", where, false, &token.lstrip, error));
    DBT_TRY(dbt_json_bool(json, "rstrip", where, false, &token.rstrip, error));
    DBT_TRY(dbt_json_bool(json, "single_word", where, false, &token.single_word, error));
    if (!bytes) return DIBIT_OK;
    /* A token that the vocabulary has keeps its id there, whatever this entry says. */
    const uint32_t known = dbt_vocab_get(&t->bpe.vocab, content, bytes);
    token.id = known != DBT_NO_ID ? known : (uint32_t)id;
    const uint32_t same = dbt_vocab_get(&t->added_vocab, content, bytes);
    if (same != DBT_NO_ID) { /* said twice: the last one counts */
        token.content = t->added[same].content;
        t->added[same] = token;
        return DIBIT_OK;
    }
    DBT_TRY(dibit_text_append(&token.content, content, bytes, error));
    t->added[t->n_added] = token;
    return dbt_vocab_put(&t->added_vocab, content, bytes, (uint32_t)t->n_added++, error);
}

static dibit_status load_added_tokens(dibit_tokenizer *t, const json_t *json, dibit_error *error) {
    const json_t *list = NULL;
    DBT_TRY(dbt_json_array(json, "added_tokens", "the file", false, &list, error));
    const size_t n = json_array_size(list);
    t->added = calloc(n + 1, sizeof *t->added);
    if (!t->added) return dbt_lm_fail_memory(error);
    for (size_t i = 0; i < n; i++) DBT_TRY(load_added_token(t, json_array_get(list, i), i, error));
    dbt_regex_scratch *scratch = dbt_regex_scratch_create();
    dibit_text other = {0};
    dibit_status status = scratch ? DIBIT_OK : dbt_lm_fail_memory(error);
    for (size_t i = 0; i < t->n_added && status == DIBIT_OK; i++) {
        dbt_added_token *token = &t->added[i];
        if (token->normalized)
            status = dbt_normalize(t, token->content.data, token->content.bytes, scratch,
                                   &token->pattern, &other, error);
        else
            status = dibit_text_append(&token->pattern, token->content.data, token->content.bytes,
                                       error);
    }
    dibit_text_free(&other);
    dbt_regex_scratch_free(scratch);
    if (status == DIBIT_OK) status = dbt_matcher_build(t, false, &t->raw, error);
    if (status == DIBIT_OK) status = dbt_matcher_build(t, true, &t->normalized, error);
    return status;
}

/* The table by id. */
static dibit_status index_ids(dibit_tokenizer *t, dibit_error *error) {
    const dbt_vocab *vocab = &t->bpe.vocab;
    for (size_t i = 0; i < vocab->n_entries; i++) {
        if (vocab->entries[i].id >= t->n_ids) t->n_ids = vocab->entries[i].id + 1;
    }
    for (size_t i = 0; i < t->n_added; i++) {
        if (t->added[i].id >= t->n_ids) t->n_ids = t->added[i].id + 1;
    }
    t->pieces = calloc((size_t)t->n_ids + 1, sizeof *t->pieces);
    if (!t->pieces) return dbt_lm_fail_memory(error);
    for (size_t i = 0; i < vocab->n_entries; i++)
        t->pieces[vocab->entries[i].id] = (uint32_t)(1 + t->n_added + i);
    for (size_t i = 0; i < t->n_added; i++) t->pieces[t->added[i].id] = (uint32_t)(1 + i);
    return DIBIT_OK;
}

static dibit_status load_all(dibit_tokenizer *t, const json_t *json,
                             const dbt_tokenizer_lists *lists, dibit_error *error) {
    const json_t *model = NULL;
    DBT_LM_FAIL_IF(!json_is_object(json), error, DIBIT_BAD_FILE, "the file is no JSON object");
    DBT_TRY(dbt_json_object(json, "model", "the file", true, &model, error));
    DBT_TRY(load_model(&t->bpe, model, lists, error));
    DBT_TRY(dbt_load_normalizers(t, json_object_get(json, "normalizer"), error));
    DBT_TRY(dbt_load_pre_tokenizers(t, json_object_get(json, "pre_tokenizer"), error));
    DBT_TRY(dbt_load_post_processor(t, json_object_get(json, "post_processor"), error));
    DBT_TRY(dbt_load_decoders(t, json_object_get(json, "decoder"), error));
    DBT_TRY(load_added_tokens(t, json, error));
    return index_ids(t, error);
}

dibit_status dbt_tokenizer_parse(dibit_tokenizer *tokenizer, const char *text, size_t bytes,
                                 dibit_error *error) {
    dbt_tokenizer_lists lists;
    dibit_text rest = {0};
    json_t *json = NULL;
    dibit_status status = dbt_tokenizer_take_lists(text, bytes, &lists, &rest, error);
    if (status == DIBIT_OK) status = dbt_json_parse(rest.data, rest.bytes, &json, error);
    dibit_text_free(&rest);
    if (status == DIBIT_OK) status = load_all(tokenizer, json, &lists, error);
    json_decref(json);
    return status;
}

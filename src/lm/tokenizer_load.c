/* From tokenizer.json to a tokenizer: the vocabulary, added tokens, and what is derived from them.
 * The steps around the model are in tokenizer_steps.c. */
#include <stdio.h>
#include <stdlib.h>

#include "lm/tokenizer_load.h"

static dibit_status load_vocab(dbt_bpe *bpe, const json_t *model, dibit_error *error) {
    const json_t *vocab = NULL;
    DBT_TRY(dbt_json_object(model, "vocab", "model", true, &vocab, error));
    DBT_TRY(dbt_vocab_reserve(&bpe->vocab, json_object_size(vocab), error));
    const char *piece;
    json_t *id;
    json_object_foreach((json_t *)vocab, piece, id) {
        DBT_LM_FAIL_IF(!json_is_integer(id) || json_integer_value(id) < 0 ||
                           json_integer_value(id) >= DBT_MAX_ID,
                       error, DIBIT_BAD_FILE, "model.vocab: the id of \"%.40s\" is not in 0 to %u",
                       piece, DBT_MAX_ID - 1);
        DBT_TRY(dbt_vocab_put(&bpe->vocab, piece, strlen(piece), (uint32_t)json_integer_value(id),
                              error));
    }
    return DIBIT_OK;
}

/* The two pieces of a merge: ["a", "b"], or "a b" as older files have it. */
static bool merge_pieces(const json_t *merge, const char *part[2], size_t bytes[2]) {
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        for (size_t k = 0; k < 2; k++) {
            const json_t *piece = json_array_get(merge, k);
            if (!json_is_string(piece)) return false;
            part[k] = json_string_value(piece);
            bytes[k] = json_string_length(piece);
        }
        return true;
    }
    if (!json_is_string(merge)) return false;
    part[0] = json_string_value(merge);
    const char *space = memchr(part[0], ' ', json_string_length(merge));
    if (!space) return false;
    bytes[0] = (size_t)(space - part[0]);
    part[1] = space + 1;
    bytes[1] = json_string_length(merge) - bytes[0] - 1;
    return !memchr(part[1], ' ', bytes[1]);
}

static dibit_status load_merges(dbt_bpe *bpe, const json_t *model, dibit_error *error) {
    const json_t *merges = NULL;
    DBT_TRY(dbt_json_array(model, "merges", "model", true, &merges, error));
    DBT_TRY(dbt_bpe_reserve_merges(bpe, json_array_size(merges), error));
    const size_t prefix_bytes = bpe->prefix ? strlen(bpe->prefix) : 0;
    dibit_text joined = {0};
    dibit_status status = DIBIT_OK;
    for (size_t i = 0; i < json_array_size(merges) && status == DIBIT_OK; i++) {
        const json_t *merge = json_array_get(merges, i);
        if (json_is_string(merge) && !strncmp(json_string_value(merge), "#version", 8)) continue;
        const char *part[2];
        size_t bytes[2];
        if (!merge_pieces(merge, part, bytes)) {
            status =
                dbt_lm_fail(error, DIBIT_BAD_FILE, "model.merges[%zu] is no pair of pieces", i);
            break;
        }
        const size_t skip = prefix_bytes < bytes[1] ? prefix_bytes : bytes[1];
        joined.bytes = 0;
        status = dibit_text_append(&joined, part[0], bytes[0], error);
        if (status == DIBIT_OK)
            status = dibit_text_append(&joined, part[1] + skip, bytes[1] - skip, error);
        if (status != DIBIT_OK) break;
        const dbt_merge entry = {dbt_vocab_get(&bpe->vocab, part[0], bytes[0]),
                                 dbt_vocab_get(&bpe->vocab, part[1], bytes[1]),
                                 dbt_vocab_get(&bpe->vocab, joined.data, joined.bytes)};
        if (entry.left == DBT_NO_ID || entry.right == DBT_NO_ID || entry.id == DBT_NO_ID)
            status = dbt_lm_fail(error, DIBIT_BAD_FILE,
                                 "model.merges[%zu] makes \"%.40s\" of pieces that are not all in "
                                 "the vocabulary",
                                 i, joined.data);
        else
            dbt_bpe_put_merge(bpe, entry);
    }
    dibit_text_free(&joined);
    return status;
}

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

static dibit_status load_model(dbt_bpe *bpe, const json_t *model, dibit_error *error) {
    const char *type = "BPE", *unk = NULL;
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
    DBT_TRY(load_vocab(bpe, model, error));
    DBT_TRY(load_merges(bpe, model, error));
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

static dibit_status load_all(dibit_tokenizer *t, const json_t *json, dibit_error *error) {
    const json_t *model = NULL;
    DBT_LM_FAIL_IF(!json_is_object(json), error, DIBIT_BAD_FILE, "the file is no JSON object");
    DBT_TRY(dbt_json_object(json, "model", "the file", true, &model, error));
    DBT_TRY(load_model(&t->bpe, model, error));
    DBT_TRY(dbt_load_normalizers(t, json_object_get(json, "normalizer"), error));
    DBT_TRY(dbt_load_pre_tokenizers(t, json_object_get(json, "pre_tokenizer"), error));
    DBT_TRY(dbt_load_post_processor(t, json_object_get(json, "post_processor"), error));
    DBT_TRY(dbt_load_decoders(t, json_object_get(json, "decoder"), error));
    DBT_TRY(load_added_tokens(t, json, error));
    return index_ids(t, error);
}

dibit_status dbt_tokenizer_parse(dibit_tokenizer *tokenizer, const char *text, size_t bytes,
                                 dibit_error *error) {
    json_t *json = NULL;
    DBT_TRY(dbt_json_parse(text, bytes, &json, error));
    const dibit_status status = load_all(tokenizer, json, error);
    json_decref(json);
    return status;
}

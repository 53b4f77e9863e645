/* The model's lists in tokenizer.json, vocab and merges: read where they lie, straight into tables. As a
 * tree they would take most of the time and memory of starting a model. */
#include "lm/json_reader.h"
#include "lm/tokenizer_load.h"

/* ---- Finding them. What is wrong in the text, the parser of the rest or the lists' readers say. ---- */

static bool next_key(dbt_json_reader *r, const char **key, size_t *bytes) {
    (void)dbt_json_take(r, ',');
    return dbt_json_read_string(r, key, bytes, NULL) == DIBIT_OK && dbt_json_take(r, ':');
}

static bool is(const char *key, size_t bytes, const char *name) {
    return bytes == strlen(name) && !memcmp(key, name, bytes);
}

/* Of members with one name the last counts, as in a tree. */
static bool find_in_model(dbt_json_reader *r, dbt_tokenizer_lists *lists) {
    lists->vocab = lists->merges = (dbt_json_list){0};
    size_t bytes, n_items;
    if (!dbt_json_take(r, '{')) return dbt_json_skip(r, &n_items);
    for (const char *key; next_key(r, &key, &bytes);) {
        dbt_json_list *const list = is(key, bytes, "vocab")    ? &lists->vocab
                                    : is(key, bytes, "merges") ? &lists->merges
                                                               : NULL;
        const bool fits = dbt_json_peek(r) == (list == &lists->vocab ? '{' : '[');
        const char *const begin = r->at;
        if (!dbt_json_skip(r, &n_items)) return false;
        if (list) *list = fits ? (dbt_json_list){begin, r->at, n_items} : (dbt_json_list){0};
    }
    return dbt_json_take(r, '}');
}

static void find_lists(dbt_json_reader *r, dbt_tokenizer_lists *lists) {
    size_t bytes, n_items;
    if (!dbt_json_take(r, '{')) return;
    for (const char *key; next_key(r, &key, &bytes);) {
        if (!(is(key, bytes, "model") ? find_in_model(r, lists) : dbt_json_skip(r, &n_items)))
            return;
    }
}

/* Appends text up to the list's contents, and its line ends. */
static dibit_status append_without(const char **text, const dbt_json_list *list, dibit_text *rest,
                                   dibit_error *error) {
    if (!list->begin) return DIBIT_OK;
    const char *at = list->begin + 1;
    DBT_TRY(dibit_text_append(rest, *text, (size_t)(at - *text), error));
    static const char line_ends[] = "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n";
    enum { AT_ONCE = sizeof line_ends - 1 };
    size_t n = 0;
    for (; (at = memchr(at, '\n', (size_t)(list->end - at))) != NULL; at++) n++;
    for (; n > AT_ONCE; n -= AT_ONCE) DBT_TRY(dibit_text_append(rest, line_ends, AT_ONCE, error));
    DBT_TRY(dibit_text_append(rest, line_ends, n, error));
    *text = list->end - 1;
    return DIBIT_OK;
}

dibit_status dbt_tokenizer_take_lists(const char *text, size_t bytes, dbt_tokenizer_lists *lists,
                                      dibit_text *rest, dibit_error *error) {
    dbt_json_reader reader = {.text = text, .at = text, .end = text + bytes};
    *lists = (dbt_tokenizer_lists){.text = text};
    find_lists(&reader, lists);
    dbt_json_reader_free(&reader);
    const bool swapped = lists->merges.begin < lists->vocab.begin;
    const char *at = text;
    DBT_TRY(append_without(&at, swapped ? &lists->merges : &lists->vocab, rest, error));
    DBT_TRY(append_without(&at, swapped ? &lists->vocab : &lists->merges, rest, error));
    return dibit_text_append(rest, at, (size_t)(text + bytes - at), error);
}

/* ---- Reading them ---- */

static dibit_status read_entry(dbt_bpe *bpe, dbt_json_reader *r, dibit_error *error) {
    const char *piece;
    size_t bytes;
    uint32_t id;
    DBT_TRY(dbt_json_read_string(r, &piece, &bytes, error));
    if (memchr(piece, '\0', bytes)) return dbt_json_malformed(r, "a key with a NUL", error);
    DBT_TRY(dbt_json_expect(r, ':', error));
    DBT_LM_FAIL_IF(!dbt_json_read_uint(r, DBT_MAX_ID, &id), error, DIBIT_BAD_FILE,
                   "model.vocab: the id of \"%.*s\" is not in 0 to %u",
                   bytes < 40 ? (int)bytes : 40, piece, DBT_MAX_ID - 1);
    return dbt_vocab_put(&bpe->vocab, piece, bytes, id, error);
}

typedef struct merge_reader {
    dbt_json_reader json;
    size_t i;          /* of the merge */
    dibit_text joined; /* its pieces */
    size_t skip;       /* of the second piece's bytes: a prefix that joining drops */
} merge_reader;

static dibit_status no_pair(const merge_reader *r, dibit_error *error) {
    return dbt_lm_fail(error, DIBIT_BAD_FILE, "model.merges[%zu] is no pair of pieces", r->i);
}

static dibit_status put_merge(dbt_bpe *bpe, merge_reader *r, uint32_t left, const char *right,
                              size_t bytes, dibit_error *error) {
    const size_t skip = r->skip < bytes ? r->skip : bytes;
    const uint32_t right_id = dbt_vocab_get(&bpe->vocab, right, bytes);
    DBT_TRY(dibit_text_append(&r->joined, right + skip, bytes - skip, error));
    const dbt_merge merge = {left, right_id,
                             dbt_vocab_get(&bpe->vocab, r->joined.data, r->joined.bytes)};
    DBT_LM_FAIL_IF(left == DBT_NO_ID || right_id == DBT_NO_ID || merge.id == DBT_NO_ID, error,
                   DIBIT_BAD_FILE,
                   "model.merges[%zu] makes \"%.40s\" of pieces that are not all in the vocabulary",
                   r->i, r->joined.data);
    dbt_bpe_put_merge(bpe, merge);
    return DIBIT_OK;
}

/* ["a", "b"], or "a b" as older files have it. */
static dibit_status read_merge(dbt_bpe *bpe, merge_reader *r, dibit_error *error) {
    const char *text, *space = NULL;
    size_t bytes;
    r->joined.bytes = 0;
    const bool list = dbt_json_take(&r->json, '[');
    if (dbt_json_peek(&r->json) != '"') return no_pair(r, error);
    DBT_TRY(dbt_json_read_string(&r->json, &text, &bytes, error));
    if (!list) {
        if (bytes >= 8 && !memcmp(text, "#version", 8)) return DIBIT_OK;
        space = memchr(text, ' ', bytes);
        if (!space) return no_pair(r, error);
    }
    const size_t left_bytes = list ? bytes : (size_t)(space - text);
    const uint32_t left = dbt_vocab_get(&bpe->vocab, text, left_bytes);
    DBT_TRY(dibit_text_append(&r->joined, text, left_bytes, error));
    if (list) {
        if (!dbt_json_take(&r->json, ',') || dbt_json_peek(&r->json) != '"')
            return no_pair(r, error);
        DBT_TRY(dbt_json_read_string(&r->json, &text, &bytes, error));
        if (!dbt_json_take(&r->json, ']')) return no_pair(r, error);
        return put_merge(bpe, r, left, text, bytes, error);
    }
    const size_t right_bytes = bytes - left_bytes - 1;
    if (memchr(space + 1, ' ', right_bytes)) return no_pair(r, error);
    return put_merge(bpe, r, left, space + 1, right_bytes, error);
}

/* That the list ended where it was found to end: what lay between has been read. */
static dibit_status at_end(const dbt_json_reader *r, dibit_error *error) {
    return r->at == r->end ? DIBIT_OK : dbt_json_malformed(r, "brackets that do not match", error);
}

dibit_status dbt_load_vocab(dbt_bpe *bpe, const dbt_tokenizer_lists *lists, dibit_error *error) {
    const dbt_json_list *const list = &lists->vocab;
    if (!list->begin) return dbt_lm_fail_memory(error); /* for a key, when it was looked for */
    dbt_json_reader r = {.text = lists->text, .at = list->begin + 1, .end = list->end};
    bool more = !dbt_json_take(&r, '}');
    dibit_status status = dbt_vocab_reserve(&bpe->vocab, list->n_items, error);
    while (status == DIBIT_OK && more) {
        status = read_entry(bpe, &r, error);
        if (status == DIBIT_OK) status = dbt_json_next(&r, '}', &more, error);
    }
    if (status == DIBIT_OK) status = at_end(&r, error);
    dbt_json_reader_free(&r);
    return status;
}

dibit_status dbt_load_merges(dbt_bpe *bpe, const dbt_tokenizer_lists *lists, dibit_error *error) {
    const dbt_json_list *const list = &lists->merges;
    if (!list->begin) return dbt_lm_fail_memory(error); /* for a key, when it was looked for */
    merge_reader r = {.json = {.text = lists->text, .at = list->begin + 1, .end = list->end},
                      .skip = bpe->prefix ? strlen(bpe->prefix) : 0};
    bool more = !dbt_json_take(&r.json, ']');
    dibit_status status = dbt_bpe_reserve_merges(bpe, list->n_items, error);
    for (; status == DIBIT_OK && more; r.i++) {
        status = read_merge(bpe, &r, error);
        if (status == DIBIT_OK) status = dbt_json_next(&r.json, ']', &more, error);
    }
    if (status == DIBIT_OK) status = at_end(&r.json, error);
    dibit_text_free(&r.joined);
    dbt_json_reader_free(&r.json);
    return status;
}

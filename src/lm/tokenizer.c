/* The tokenizer's public functions, and encoding from the top down. */
#include "lm/tokenizer.h"

#include <stdlib.h>

#define MAX_FILE_BYTES (1u << 30)

dibit_status dibit_tokenizer_load(const dibit_tokenizer_desc *desc, dibit_tokenizer **out,
                                  dibit_error *error) {
    DBT_LM_FAIL_IF(!desc || !out || !desc->path == !desc->data, error, DIBIT_BAD_ARGUMENT,
                   "dibit_tokenizer_load takes one of path and data");
    const char *name = desc->name ? desc->name : desc->path ? desc->path : "tokenizer.json";
    dibit_text file = {0};
    if (desc->path) DBT_TRY(dbt_lm_read_file(desc->path, MAX_FILE_BYTES, &file, error));
    dibit_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    dibit_error inner = {0};
    dibit_status status =
        tokenizer ? dbt_tokenizer_parse(tokenizer, desc->path ? file.data : desc->data,
                                        desc->path ? file.bytes : desc->data_bytes, &inner)
                  : dbt_lm_fail_memory(&inner);
    dibit_text_free(&file);
    if (status != DIBIT_OK) {
        dibit_tokenizer_destroy(&tokenizer);
        return dbt_lm_fail(error, status, "%s: %s", name, inner.text);
    }
    *out = tokenizer;
    return DIBIT_OK;
}

static void matcher_free(dbt_matcher *matcher) { free(matcher->order); }

void dibit_tokenizer_destroy(dibit_tokenizer **tokenizer) {
    if (!tokenizer || !*tokenizer) return;
    dibit_tokenizer *t = *tokenizer;
    dbt_bpe_free(&t->bpe);
    for (size_t i = 0; i < t->n_added; i++) {
        dibit_text_free(&t->added[i].content);
        dibit_text_free(&t->added[i].pattern);
    }
    free(t->added);
    dbt_vocab_free(&t->added_vocab);
    matcher_free(&t->raw);
    matcher_free(&t->normalized);
    for (size_t i = 0; i < t->n_normalizers; i++) {
        dbt_regex_free(t->normalizers[i].regex);
        dibit_text_free(&t->normalizers[i].content);
    }
    free(t->normalizers);
    for (size_t i = 0; i < t->n_pre_tokenizers; i++) dbt_regex_free(t->pre_tokenizers[i].regex);
    free(t->pre_tokenizers);
    for (size_t i = 0; i < t->n_decoders; i++) {
        dbt_regex_free(t->decoders[i].regex);
        dibit_text_free(&t->decoders[i].content);
    }
    free(t->decoders);
    dibit_tokens_free(&t->before);
    dibit_tokens_free(&t->after);
    free(t->pieces);
    free(t);
    *tokenizer = NULL;
}

uint32_t dibit_tokenizer_size(const dibit_tokenizer *t) { return t->n_ids; }

const char *dibit_tokenizer_piece(const dibit_tokenizer *t, int64_t id) {
    if (id < 0 || id >= t->n_ids || !t->pieces[id]) return NULL;
    const size_t i = t->pieces[id] - 1;
    const dbt_vocab *vocab = &t->bpe.vocab;
    return i < t->n_added ? t->added[i].content.data
                          : vocab->pool.data + vocab->entries[i - t->n_added].offset;
}

const dbt_added_token *dbt_tokenizer_added(const dibit_tokenizer *t, int64_t id) {
    const size_t i = id >= 0 && id < t->n_ids ? t->pieces[id] : 0;
    return i && i <= t->n_added ? &t->added[i - 1] : NULL;
}

int64_t dibit_tokenizer_id(const dibit_tokenizer *t, const char *piece) {
    const size_t n = strlen(piece);
    const uint32_t added = dbt_vocab_get(&t->added_vocab, piece, n);
    if (added != DBT_NO_ID) return t->added[added].id;
    const uint32_t id = dbt_vocab_get(&t->bpe.vocab, piece, n);
    return id != DBT_NO_ID ? (int64_t)id : -1;
}

bool dibit_tokenizer_is_special(const dibit_tokenizer *t, int64_t id) {
    const dbt_added_token *added = dbt_tokenizer_added(t, id);
    return added && added->special;
}

/* Scratch of one encode. */
typedef struct encoder {
    const dibit_tokenizer *tokenizer;
    const dbt_special_rule *rule;
    dbt_regex_scratch *regex;
    dbt_bpe_scratch bpe;
    dbt_words words, words_scratch;
    dibit_text normalized, normalize_scratch;
    dibit_tokens *out;
} encoder;

/* A stretch without added tokens, already normalized. */
static dibit_status encode_plain(encoder *e, const char *text, size_t n, dibit_error *error) {
    dbt_words_clear(&e->words);
    DBT_TRY(dibit_text_append(&e->words.text, text, n, error));
    DBT_TRY(dbt_pre_tokenize(e->tokenizer, e->regex, &e->words, &e->words_scratch, error));
    for (size_t i = 0; i < e->words.n_spans; i++) {
        const dbt_span span = e->words.spans[i];
        DBT_TRY(dbt_bpe_encode(&e->tokenizer->bpe, e->words.text.data + span.begin,
                               span.end - span.begin, &e->bpe, e->out, error));
    }
    return DIBIT_OK;
}

static dibit_status add_token(encoder *e, uint32_t index, dibit_error *error) {
    return dibit_tokens_append(e->out, &(int64_t){e->tokenizer->added[index].id}, 1, error);
}

/* A stretch of the text as it was given, at offset, without the tokens that are looked for there. */
static dibit_status encode_raw(encoder *e, const char *text, size_t offset, size_t n,
                               dibit_error *error) {
    const dibit_tokenizer *t = e->tokenizer;
    if (t->n_normalizers) {
        DBT_TRY(dbt_normalize(t, text, n, e->regex, &e->normalized, &e->normalize_scratch, error));
        text = e->normalized.data;
        n = e->normalized.bytes;
    }
    /* After a normalizer nobody knows where the plain spans are. */
    dbt_special_rule rule = *e->rule;
    rule.offset = offset;
    if (t->n_normalizers) rule.n_plain = 0;
    dbt_stretches s = {
        .tokenizer = t, .matcher = &t->normalized, .rule = &rule, .text = text, .bytes = n};
    while (dbt_stretches_next(&s)) {
        if (s.token != DBT_NO_ID)
            DBT_TRY(add_token(e, s.token, error));
        else
            DBT_TRY(encode_plain(e, text + s.begin, s.end - s.begin, error));
    }
    return DIBIT_OK;
}

dibit_status dbt_tokenizer_encode_with(const dibit_tokenizer *t, const char *text, size_t n,
                                       const dbt_special_rule *rule, dibit_tokens *out,
                                       dibit_error *error) {
    DBT_LM_FAIL_IF(n > INT32_MAX, error, DIBIT_TOO_LARGE, "a text of %zu bytes is too long", n);
    const size_t before = out->count;
    encoder e = {.tokenizer = t, .rule = rule, .out = out, .regex = dbt_regex_scratch_create()};
    dibit_text valid = {0};
    dibit_status status = e.regex ? DIBIT_OK : dbt_lm_fail_memory(error);
    if (status == DIBIT_OK && !dbt_utf8_valid(text, n)) {
        status = dbt_utf8_append_lossy(text, n, &valid, error);
        text = valid.data;
        n = valid.bytes;
    }
    dbt_stretches s = {.tokenizer = t, .matcher = &t->raw, .rule = rule, .text = text, .bytes = n};
    while (status == DIBIT_OK && dbt_stretches_next(&s)) {
        status = s.token != DBT_NO_ID
                     ? add_token(&e, s.token, error)
                     : encode_raw(&e, text + s.begin, s.begin, s.end - s.begin, error);
    }
    if (status != DIBIT_OK) out->count = before;
    dibit_text_free(&valid);
    dbt_regex_scratch_free(e.regex);
    dbt_bpe_scratch_free(&e.bpe);
    dbt_words_free(&e.words);
    dbt_words_free(&e.words_scratch);
    dibit_text_free(&e.normalized);
    dibit_text_free(&e.normalize_scratch);
    return status;
}

dibit_status dibit_tokenizer_encode(const dibit_tokenizer *t, const dibit_encode *encode,
                                    dibit_tokens *tokens, dibit_error *error) {
    DBT_LM_FAIL_IF(!encode->text && encode->text_bytes, error, DIBIT_BAD_ARGUMENT,
                   "dibit_tokenizer_encode without a text");
    const size_t before = tokens->count;
    const dbt_special_rule rule = {.allow = encode->allow_special};
    dibit_status status = DIBIT_OK;
    if (encode->add_special)
        status = dibit_tokens_append(tokens, t->before.ids, t->before.count, error);
    if (status == DIBIT_OK)
        status = dbt_tokenizer_encode_with(t, encode->text ? encode->text : "", encode->text_bytes,
                                           &rule, tokens, error);
    if (status == DIBIT_OK && encode->add_special)
        status = dibit_tokens_append(tokens, t->after.ids, t->after.count, error);
    if (status != DIBIT_OK) tokens->count = before;
    return status;
}

dibit_status dibit_tokenizer_count(const dibit_tokenizer *t, const dibit_encode *encode,
                                   size_t *count, dibit_error *error) {
    dibit_tokens tokens = {0};
    const dibit_status status = dibit_tokenizer_encode(t, encode, &tokens, error);
    if (status == DIBIT_OK) *count = tokens.count;
    dibit_tokens_free(&tokens);
    return status;
}

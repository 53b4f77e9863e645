/* Added tokens: found in the text before anything else happens to it. */
#include <stdlib.h>

#include "lm/tokenizer.h"
#include "lm/unicode.h"

/* qsort has no context argument, so what is sorted carries its keys. */
typedef struct sort_key {
    unsigned char first;
    size_t bytes;
    uint32_t index;
} sort_key;

static int compare_keys(const void *pa, const void *pb) {
    const sort_key *a = pa, *b = pb;
    if (a->first != b->first) return a->first < b->first ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes > b->bytes ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

dibit_status dbt_matcher_build(dibit_tokenizer *tokenizer, bool normalized, dbt_matcher *out,
                               dibit_error *error) {
    sort_key *keys = malloc((tokenizer->n_added + 1) * sizeof *keys);
    out->order = malloc((tokenizer->n_added + 1) * sizeof *out->order);
    if (!keys || !out->order) {
        free(keys);
        return dbt_lm_fail_memory(error);
    }
    for (size_t i = 0; i < tokenizer->n_added; i++) {
        const dbt_added_token *token = &tokenizer->added[i];
        if (token->normalized != normalized || token->pattern.bytes == 0) continue;
        keys[out->n++] = (sort_key){.first = (unsigned char)token->pattern.data[0],
                                    .bytes = token->pattern.bytes,
                                    .index = (uint32_t)i};
    }
    qsort(keys, out->n, sizeof *keys, compare_keys);
    uint32_t i = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        out->first[byte] = i;
        for (; i < out->n && keys[i].first == byte; i++) out->order[i] = keys[i].index;
    }
    out->first[256] = i;
    free(keys);
    return DIBIT_OK;
}

/* The longest token that the text has at i, or DBT_NO_ID. */
static uint32_t token_at(const dbt_stretches *s, size_t i) {
    const unsigned char byte = (unsigned char)s->text[i];
    for (uint32_t k = s->matcher->first[byte]; k < s->matcher->first[byte + 1]; k++) {
        const dibit_text *p = &s->tokenizer->added[s->matcher->order[k]].pattern;
        if (p->bytes <= s->bytes - i && !memcmp(p->data, s->text + i, p->bytes))
            return s->matcher->order[k];
    }
    return DBT_NO_ID;
}

static int32_t code_before(const char *text, size_t i, size_t *begin) {
    size_t bytes, k = i - 1;
    while (k > 0 && i - k < 4 && ((unsigned char)text[k] & 0xc0) == 0x80) k--;
    *begin = k;
    return dbt_utf8_next(text + k, i - k, &bytes);
}

static bool touches_word(const dbt_stretches *s, size_t begin, size_t end) {
    size_t unused;
    return (begin > 0 && dbt_unicode_word(code_before(s->text, begin, &unused))) ||
           (end < s->bytes &&
            dbt_unicode_word(dbt_utf8_next(s->text + end, s->bytes - end, &unused)));
}

/* Whether the rule lets the token at [begin, end) count. */
static bool allowed(const dbt_stretches *s, const dbt_added_token *token, size_t begin,
                    size_t end) {
    if (!token->special) return true;
    if (!s->rule->allow) return false;
    begin += s->rule->offset;
    end += s->rule->offset;
    for (size_t i = 0; i < s->rule->n_plain; i++) {
        if (begin < s->rule->plain[i].end && s->rule->plain[i].begin < end) return false;
    }
    return true;
}

/* The next token at or after s->search, into pending. A token that does not count still hides those
 * inside it. */
static void find_token(dbt_stretches *s) {
    while (s->search < s->bytes) {
        const size_t at = s->search;
        const uint32_t index = token_at(s, at);
        if (index == DBT_NO_ID) {
            s->search++;
            continue;
        }
        const dbt_added_token *token = &s->tokenizer->added[index];
        size_t begin = at, end = at + token->pattern.bytes, bytes;
        s->search = end;
        if (!allowed(s, token, begin, end)) continue;
        if (token->single_word && touches_word(s, begin, end)) continue;
        if (token->lstrip) {
            for (size_t k; begin > 0 && dbt_unicode_space(code_before(s->text, begin, &k));)
                begin = k;
        }
        if (token->rstrip) {
            while (end < s->bytes &&
                   dbt_unicode_space(dbt_utf8_next(s->text + end, s->bytes - end, &bytes)))
                end += bytes;
        }
        s->pending = true;
        s->pending_begin = begin;
        s->pending_end = end;
        s->pending_token = index;
        return;
    }
}

bool dbt_stretches_next(dbt_stretches *s) {
    if (!s->pending) find_token(s);
    s->begin = s->position;
    s->token = DBT_NO_ID;
    if (s->pending && s->pending_begin <= s->position) {
        s->position = s->pending_end;
        s->token = s->pending_token;
        s->pending = false;
        return true;
    }
    s->end = s->position = s->pending ? s->pending_begin : s->bytes;
    return s->begin < s->end;
}

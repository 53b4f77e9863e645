/* Pre-tokenizers: a text becomes words, each of which is then merged by itself. */
#include <stdlib.h>

#include "lm/tokenizer.h"

dibit_status dbt_words_add(dbt_words *words, size_t begin, size_t end, dibit_error *error) {
    void *data = words->spans;
    if (!dbt_lm_reserve(&data, &words->capacity, words->n_spans + 1, sizeof *words->spans))
        return dbt_lm_fail_memory(error);
    words->spans = data;
    words->spans[words->n_spans++] = (dbt_span){begin, end};
    return DIBIT_OK;
}

void dbt_words_clear(dbt_words *words) {
    words->text.bytes = 0;
    words->n_spans = 0;
}

void dbt_words_free(dbt_words *words) {
    dibit_text_free(&words->text);
    free(words->spans);
    *words = (dbt_words){0};
}

/* GPT-2's alphabet: printable Latin-1 bytes are themselves, the others count up from U+0100. */
static uint32_t byte_level_code(unsigned byte) {
    if ((byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad)) return byte;
    if (byte <= 0x20) return 0x100 + byte;
    return byte == 0xad ? 0x143 : 0x100 + 0x21 + (byte - 0x7f);
}

int32_t dbt_byte_level_byte(uint32_t code) {
    if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xff && code != 0xad))
        return (int32_t)code;
    if (code >= 0x100 && code <= 0x120) return (int32_t)(code - 0x100);
    if (code >= 0x121 && code <= 0x142) return (int32_t)(code - 0x121 + 0x7f);
    return code == 0x143 ? 0xad : -1;
}

dibit_status dbt_byte_level_append(const char *bytes, size_t n, dibit_text *out,
                                   dibit_error *error) {
    for (size_t i = 0; i < n; i++) {
        char c[4];
        const size_t n_c = dbt_utf8_put(byte_level_code((unsigned char)bytes[i]), c);
        DBT_TRY(dibit_text_append(out, c, n_c, error));
    }
    return DIBIT_OK;
}

/* What the last stretch of a split becomes together with a new one, by behavior. Stretches come in
 * reading order, or backwards for MERGED_WITH_NEXT. `joins`: the new one belongs to the last. */
static dibit_status add_stretch(dbt_words *out, size_t base, dbt_span span, bool joins,
                                dibit_error *error) {
    if (!joins || out->n_spans == base) return dbt_words_add(out, span.begin, span.end, error);
    dbt_span *last = &out->spans[out->n_spans - 1];
    if (span.begin < last->begin) last->begin = span.begin;
    if (span.end > last->end) last->end = span.end;
    return DIBIT_OK;
}

/* Takes the spans that were added since base out when they are empty. */
static void drop_empty(dbt_words *words, size_t base) {
    size_t n = base;
    for (size_t i = base; i < words->n_spans; i++) {
        if (words->spans[i].begin < words->spans[i].end) words->spans[n++] = words->spans[i];
    }
    words->n_spans = n;
}

static void reverse(dbt_words *words, size_t base) {
    for (size_t i = base, k = words->n_spans; i + 1 < k; i++) {
        const dbt_span swap = words->spans[i];
        words->spans[i] = words->spans[--k];
        words->spans[k] = swap;
    }
}

/* Cuts text[span] at the step's expression and appends the words to out: first all stretches go to
 * `parts`, then they are dropped or joined as the behavior says. */
static dibit_status split(const dbt_pre_tokenizer *step, dbt_regex_scratch *scratch,
                          const char *text, dbt_span span, dbt_words *parts, dbt_words *out,
                          dibit_error *error) {
    dbt_matches m = {.regex = step->regex,
                     .scratch = scratch,
                     .text = text + span.begin,
                     .bytes = span.end - span.begin};
    parts->n_spans = 0;
    /* Matches are spans with odd index, what lies before them (perhaps nothing) with even index. */
    size_t done = span.begin;
    for (;;) {
        bool found;
        DBT_TRY(dbt_matches_next(&m, &found, error));
        if (!found) break;
        DBT_TRY(dbt_words_add(parts, done, span.begin + m.begin, error));
        DBT_TRY(dbt_words_add(parts, span.begin + m.begin, span.begin + m.end, error));
        done = span.begin + m.end;
    }
    DBT_TRY(dbt_words_add(parts, done, span.end, error));

    const size_t base = out->n_spans;
    const bool backwards = step->behavior == DBT_SPLIT_MERGED_WITH_NEXT;
    bool previous = false;
    for (size_t k = 0; k < parts->n_spans; k++) {
        const size_t i = backwards ? parts->n_spans - 1 - k : k;
        const dbt_span part = parts->spans[i];
        if (i % 2 == 0 && part.begin == part.end) continue;
        const bool match = (i % 2 == 1) != step->invert;
        bool joins = false;
        switch (step->behavior) {
        case DBT_SPLIT_REMOVED:
            if (match) continue;
            break;
        case DBT_SPLIT_ISOLATED: break;
        case DBT_SPLIT_CONTIGUOUS: joins = match == previous; break;
        case DBT_SPLIT_MERGED_WITH_PREVIOUS:
        case DBT_SPLIT_MERGED_WITH_NEXT: joins = match && !previous; break;
        }
        previous = match;
        DBT_TRY(add_stretch(out, base, part, joins, error));
    }
    if (backwards) reverse(out, base);
    drop_empty(out, base);
    return DIBIT_OK;
}

/* Puts a space before every word that does not begin with one. */
static dibit_status add_prefix_spaces(const dbt_words *words, dbt_words *out, dibit_error *error) {
    dbt_words_clear(out);
    for (size_t i = 0; i < words->n_spans; i++) {
        const dbt_span span = words->spans[i];
        const char *text = words->text.data + span.begin;
        const size_t begin = out->text.bytes;
        if (*text != ' ') DBT_TRY(dibit_text_append(&out->text, " ", 1, error));
        DBT_TRY(dibit_text_append(&out->text, text, span.end - span.begin, error));
        DBT_TRY(dbt_words_add(out, begin, out->text.bytes, error));
    }
    return DIBIT_OK;
}

static dibit_status to_byte_level(const dbt_words *words, dbt_words *out, dibit_error *error) {
    dbt_words_clear(out);
    for (size_t i = 0; i < words->n_spans; i++) {
        const dbt_span span = words->spans[i];
        const size_t begin = out->text.bytes;
        DBT_TRY(dbt_byte_level_append(words->text.data + span.begin, span.end - span.begin,
                                      &out->text, error));
        DBT_TRY(dbt_words_add(out, begin, out->text.bytes, error));
    }
    return DIBIT_OK;
}

static void swap_words(dbt_words *a, dbt_words *b) {
    const dbt_words swap = *a;
    *a = *b;
    *b = swap;
}

static dibit_status split_all(const dbt_pre_tokenizer *step, dbt_regex_scratch *regex_scratch,
                              dbt_words *words, dbt_words *scratch, dibit_error *error) {
    dbt_words parts = {0};
    dibit_status status = DIBIT_OK;
    dbt_words_clear(scratch);
    for (size_t i = 0; i < words->n_spans && status == DIBIT_OK; i++)
        status =
            split(step, regex_scratch, words->text.data, words->spans[i], &parts, scratch, error);
    dbt_words_free(&parts);
    /* The text stays, the spans are the new ones. */
    const dibit_text text = words->text;
    words->text = scratch->text;
    scratch->text = text;
    swap_words(words, scratch);
    return status;
}

dibit_status dbt_pre_tokenize(const dibit_tokenizer *tokenizer, dbt_regex_scratch *regex_scratch,
                              dbt_words *words, dbt_words *scratch, dibit_error *error) {
    words->n_spans = 0;
    if (words->text.bytes) DBT_TRY(dbt_words_add(words, 0, words->text.bytes, error));
    for (size_t i = 0; i < tokenizer->n_pre_tokenizers; i++) {
        const dbt_pre_tokenizer *step = &tokenizer->pre_tokenizers[i];
        if (step->add_prefix_space) {
            DBT_TRY(add_prefix_spaces(words, scratch, error));
            swap_words(words, scratch);
        }
        if (step->regex) DBT_TRY(split_all(step, regex_scratch, words, scratch, error));
        if (step->byte_level) {
            DBT_TRY(to_byte_level(words, scratch, error));
            swap_words(words, scratch);
        }
    }
    return DIBIT_OK;
}

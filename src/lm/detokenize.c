/* From ids back to text, for a whole list and for a stream. */
#include <stdlib.h>

#include "lm/tokenizer.h"

/* ---- Steps: each turns a list of pieces into another ---- */

static dibit_status add_piece(dbt_words *out, const char *piece, size_t n, dibit_error *error) {
    const size_t begin = out->text.bytes;
    DBT_TRY(dibit_text_append(&out->text, piece, n, error));
    return dbt_words_add(out, begin, out->text.bytes, error);
}

/* Appends the bytes that a piece of the GPT-2 alphabet stands for; a piece with any other character
 * is text as it is. */
static dibit_status append_byte_level(const char *piece, size_t n, dibit_text *out,
                                      dibit_error *error) {
    const size_t before = out->bytes;
    for (size_t i = 0, bytes; i < n; i += bytes) {
        const int32_t byte = dbt_byte_level_byte((uint32_t)dbt_utf8_next(piece + i, n - i, &bytes));
        if (byte < 0) {
            out->bytes = before;
            return dibit_text_append(out, piece, n, error);
        }
        DBT_TRY(dibit_text_append(out, &(char){(char)byte}, 1, error));
    }
    return DIBIT_OK;
}

static dibit_status byte_level(const dbt_words *in, dbt_words *out, dibit_error *error) {
    dibit_text bytes = {0};
    dibit_status status = dibit_text_append(&bytes, "", 0, error);
    for (size_t i = 0; i < in->n_spans && status == DIBIT_OK; i++)
        status = append_byte_level(in->text.data + in->spans[i].begin,
                                   in->spans[i].end - in->spans[i].begin, &bytes, error);
    if (status == DIBIT_OK)
        status = dbt_utf8_append_lossy(bytes.data, bytes.bytes, &out->text, error);
    dibit_text_free(&bytes);
    return status ? status : dbt_words_add(out, 0, out->text.bytes, error);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* <0x41> gives 0x41; other pieces -1. */
static int fallback_byte(const char *piece, size_t n) {
    if (n != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>') return -1;
    const int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte pieces becomes one piece, or one U+FFFD for each when they are no UTF-8. */
static dibit_status byte_fallback(const dbt_words *in, dbt_words *out, dibit_error *error) {
    for (size_t i = 0; i < in->n_spans;) {
        const size_t begin = out->text.bytes;
        size_t end = i;
        for (; end < in->n_spans; end++) {
            const dbt_span span = in->spans[end];
            const int byte = fallback_byte(in->text.data + span.begin, span.end - span.begin);
            if (byte < 0) break;
            DBT_TRY(dibit_text_append(&out->text, &(char){(char)byte}, 1, error));
        }
        if (end == i) {
            const dbt_span span = in->spans[i++];
            DBT_TRY(add_piece(out, in->text.data + span.begin, span.end - span.begin, error));
            continue;
        }
        if (!dbt_utf8_valid(out->text.data + begin, out->text.bytes - begin)) {
            out->text.bytes = begin;
            for (; i < end; i++) DBT_TRY(dibit_text_append(&out->text, "\xef\xbf\xbd", 3, error));
        }
        DBT_TRY(dbt_words_add(out, begin, out->text.bytes, error));
        i = end;
    }
    return DIBIT_OK;
}

static dibit_status replace(const dbt_decoder *step, const dbt_words *in,
                            dbt_regex_scratch *scratch, dbt_words *out, dibit_error *error) {
    for (size_t i = 0; i < in->n_spans; i++) {
        const char *piece = in->text.data + in->spans[i].begin;
        const size_t n = in->spans[i].end - in->spans[i].begin, begin = out->text.bytes;
        dbt_matches m = {.regex = step->regex, .scratch = scratch, .text = piece, .bytes = n};
        size_t done = 0;
        while (n > 0) {
            bool found;
            DBT_TRY(dbt_matches_next(&m, &found, error));
            if (!found) break;
            DBT_TRY(dibit_text_append(&out->text, piece + done, m.begin - done, error));
            DBT_TRY(dibit_text_append(&out->text, step->content.data, step->content.bytes, error));
            done = m.end;
        }
        DBT_TRY(dibit_text_append(&out->text, piece + done, n - done, error));
        DBT_TRY(dbt_words_add(out, begin, out->text.bytes, error));
    }
    return DIBIT_OK;
}

static dibit_status strip(const dbt_decoder *step, const dbt_words *in, dbt_words *out,
                          dibit_error *error) {
    const char *c = step->content.data;
    const size_t n_c = step->content.bytes;
    for (size_t i = 0; i < in->n_spans; i++) {
        const char *text = in->text.data;
        dbt_span span = in->spans[i];
        for (size_t k = 0;
             k < step->start && span.end - span.begin >= n_c && !memcmp(text + span.begin, c, n_c);
             k++)
            span.begin += n_c;
        for (size_t k = 0; k < step->stop && span.end - span.begin >= n_c &&
                           !memcmp(text + span.end - n_c, c, n_c);
             k++)
            span.end -= n_c;
        DBT_TRY(add_piece(out, text + span.begin, span.end - span.begin, error));
    }
    return DIBIT_OK;
}

/* ---- Whole lists ---- */

static dibit_status collect_pieces(const dibit_tokenizer *t, const dibit_decode *decode,
                                   dbt_words *out, dibit_error *error) {
    for (size_t i = 0; i < decode->n_ids; i++) {
        const int64_t id = decode->ids[i];
        const char *piece = dibit_tokenizer_piece(t, id);
        if (!piece) continue;
        const dbt_added_token *added = dbt_tokenizer_added(t, id);
        if (added && added->special && decode->skip_special) continue;
        if (added)
            DBT_TRY(add_piece(out, added->pattern.data, added->pattern.bytes, error));
        else
            DBT_TRY(add_piece(out, piece, strlen(piece), error));
    }
    return DIBIT_OK;
}

static dibit_status apply(const dbt_decoder *step, const dbt_words *in, dbt_words *out,
                          dibit_error *error) {
    switch (step->kind) {
    case DBT_DECODER_BYTE_LEVEL: return byte_level(in, out, error);
    case DBT_DECODER_BYTE_FALLBACK: return byte_fallback(in, out, error);
    case DBT_DECODER_FUSE: return add_piece(out, in->text.data, in->text.bytes, error);
    case DBT_DECODER_STRIP: return strip(step, in, out, error);
    case DBT_DECODER_REPLACE: {
        dbt_regex_scratch *scratch = dbt_regex_scratch_create();
        if (!scratch) return dbt_lm_fail_memory(error);
        const dibit_status status = replace(step, in, scratch, out, error);
        dbt_regex_scratch_free(scratch);
        return status;
    }
    }
    return DIBIT_OK;
}

dibit_status dibit_tokenizer_decode(const dibit_tokenizer *t, const dibit_decode *decode,
                                    dibit_text *text, dibit_error *error) {
    dbt_words words = {0}, next = {0};
    const size_t before = text->bytes;
    dibit_status status = dibit_text_append(&words.text, "", 0, error);
    if (status == DIBIT_OK) status = collect_pieces(t, decode, &words, error);
    for (size_t i = 0; i < t->n_decoders && status == DIBIT_OK; i++) {
        dbt_words_clear(&next);
        status = dibit_text_append(&next.text, "", 0, error);
        if (status == DIBIT_OK) status = apply(&t->decoders[i], &words, &next, error);
        const dbt_words swap = words;
        words = next;
        next = swap;
    }
    if (status == DIBIT_OK) status = dibit_text_append(text, "", 0, error);
    for (size_t i = 0; i < words.n_spans && status == DIBIT_OK; i++) {
        if (i > 0 && !t->has_decoder) status = dibit_text_append(text, " ", 1, error);
        if (status == DIBIT_OK)
            status = dibit_text_append(text, words.text.data + words.spans[i].begin,
                                       words.spans[i].end - words.spans[i].begin, error);
    }
    if (status != DIBIT_OK) text->bytes = before;
    dbt_words_free(&words);
    dbt_words_free(&next);
    return status;
}

/* ---- Streams ----
 *
 * A window of ids is decoded as a whole at every push, for decoders look at neighbours. Its first
 * n_context ids have been said already, and their text is a prefix of the window's. When text is
 * appended, the ids that were new become the context. */

struct dibit_text_stream {
    const dibit_tokenizer *tokenizer;
    bool skip_special;
    dibit_tokens window;
    size_t n_context;
    size_t context_bytes; /* of the context's text */
    dibit_text text;
};

dibit_status dibit_text_stream_create(const dibit_tokenizer *tokenizer, bool skip_special,
                                      dibit_text_stream **out, dibit_error *error) {
    dibit_text_stream *stream = calloc(1, sizeof *stream);
    if (!stream) return dbt_lm_fail_memory(error);
    stream->tokenizer = tokenizer;
    stream->skip_special = skip_special;
    *out = stream;
    return DIBIT_OK;
}

void dibit_text_stream_destroy(dibit_text_stream **stream) {
    if (!stream || !*stream) return;
    dibit_tokens_free(&(*stream)->window);
    dibit_text_free(&(*stream)->text);
    free(*stream);
    *stream = NULL;
}

static dibit_status decode_window(dibit_text_stream *s, dibit_error *error) {
    s->text.bytes = 0;
    return dibit_tokenizer_decode(s->tokenizer,
                                  &(dibit_decode){.ids = s->window.ids,
                                                  .n_ids = s->window.count,
                                                  .skip_special = s->skip_special},
                                  &s->text, error);
}

/* Where the window's new text begins. When byte pieces that were a character have become part of a run
 * that is none, the context is no prefix any more: then at the next whole character. */
static size_t new_text(const dibit_text_stream *s) {
    size_t i = s->context_bytes;
    while (i < s->text.bytes && ((unsigned char)s->text.data[i] & 0xc0) == 0x80) i++;
    return i < s->text.bytes ? i : s->text.bytes;
}

dibit_status dibit_text_stream_push(dibit_text_stream *s, int64_t id, dibit_text *text,
                                    dibit_error *error) {
    DBT_TRY(dibit_tokens_append(&s->window, &id, 1, error));
    dibit_status status = decode_window(s, error);
    const size_t n = s->text.bytes, begin = new_text(s);
    const bool open = n >= 3 && !memcmp(s->text.data + n - 3, "\xef\xbf\xbd", 3);
    if (status == DIBIT_OK && (open || begin == n)) return dibit_text_append(text, "", 0, error);
    if (status == DIBIT_OK)
        status = dibit_text_append(text, s->text.data + begin, n - begin, error);
    if (status != DIBIT_OK) {
        s->window.count--;
        return status;
    }
    s->window.count -= s->n_context;
    memmove(s->window.ids, s->window.ids + s->n_context, s->window.count * sizeof *s->window.ids);
    s->n_context = s->window.count;
    DBT_TRY(decode_window(s, error));
    s->context_bytes = s->text.bytes;
    return DIBIT_OK;
}

dibit_status dibit_text_stream_flush(dibit_text_stream *s, dibit_text *text, dibit_error *error) {
    DBT_TRY(decode_window(s, error));
    const size_t begin = new_text(s);
    DBT_TRY(dibit_text_append(text, s->text.data + begin, s->text.bytes - begin, error));
    s->window.count = s->n_context = s->context_bytes = 0;
    return DIBIT_OK;
}

/* Normalizers: text in, text out, step by step. */
#include <stdlib.h>

#include <utf8proc.h>

#include "lm/tokenizer.h"
#include "lm/unicode.h"

static dibit_status append_code(dibit_text *out, int32_t code, dibit_error *error) {
    char bytes[4];
    return dibit_text_append(out, bytes, dbt_utf8_put((uint32_t)code, bytes), error);
}

static dibit_status normalization_form(const char *text, size_t n, int options, dibit_text *out,
                                       dibit_error *error) {
    utf8proc_uint8_t *mapped = NULL;
    const utf8proc_ssize_t bytes =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &mapped,
                     (utf8proc_option_t)(UTF8PROC_STABLE | options));
    DBT_LM_FAIL_IF(bytes == UTF8PROC_ERROR_NOMEM || bytes == UTF8PROC_ERROR_OVERFLOW, error,
                   DIBIT_OUT_OF_MEMORY, "out of memory");
    DBT_LM_FAIL_IF(bytes < 0, error, DIBIT_BAD_INPUT, "text cannot be normalized: %s",
                   utf8proc_errmsg(bytes));
    const dibit_status status = dibit_text_append(out, (const char *)mapped, (size_t)bytes, error);
    free(mapped);
    return status;
}

static dibit_status replace(const dbt_normalizer *step, const char *text, size_t n,
                            dbt_regex_scratch *scratch, dibit_text *out, dibit_error *error) {
    dbt_matches m = {.regex = step->regex, .scratch = scratch, .text = text, .bytes = n};
    size_t done = 0;
    for (;;) {
        bool found;
        DBT_TRY(dbt_matches_next(&m, &found, error));
        if (!found) break;
        DBT_TRY(dibit_text_append(out, text + done, m.begin - done, error));
        DBT_TRY(dibit_text_append(out, step->content.data, step->content.bytes, error));
        done = m.end;
    }
    return dibit_text_append(out, text + done, n - done, error);
}

static dibit_status strip(const dbt_normalizer *step, const char *text, size_t n, dibit_text *out,
                          dibit_error *error) {
    size_t begin = n, end = 0; /* of what is no space */
    for (size_t i = 0, bytes; i < n; i += bytes) {
        if (dbt_unicode_space(dbt_utf8_next(text + i, n - i, &bytes))) continue;
        if (begin == n) begin = i;
        end = i + bytes;
    }
    if (!step->left) begin = 0;
    if (!step->right) end = n;
    return dibit_text_append(out, text + begin, end > begin ? end - begin : 0, error);
}

static dibit_status apply(const dbt_normalizer *step, const char *text, size_t n,
                          dbt_regex_scratch *scratch, dibit_text *out, dibit_error *error) {
    switch (step->kind) {
    case DBT_NORMALIZER_NFC: return normalization_form(text, n, UTF8PROC_COMPOSE, out, error);
    case DBT_NORMALIZER_NFD: return normalization_form(text, n, UTF8PROC_DECOMPOSE, out, error);
    case DBT_NORMALIZER_NFKC:
        return normalization_form(text, n, UTF8PROC_COMPOSE | UTF8PROC_COMPAT, out, error);
    case DBT_NORMALIZER_NFKD:
        return normalization_form(text, n, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, out, error);
    case DBT_NORMALIZER_PREPEND:
        if (n) DBT_TRY(dibit_text_append(out, step->content.data, step->content.bytes, error));
        return dibit_text_append(out, text, n, error);
    case DBT_NORMALIZER_REPLACE: return replace(step, text, n, scratch, out, error);
    case DBT_NORMALIZER_STRIP: return strip(step, text, n, out, error);
    case DBT_NORMALIZER_BYTE_LEVEL: return dbt_byte_level_append(text, n, out, error);
    case DBT_NORMALIZER_LOWERCASE:
    case DBT_NORMALIZER_STRIP_ACCENTS:
        for (size_t i = 0, bytes; i < n; i += bytes) {
            int32_t codes[2] = {dbt_utf8_next(text + i, n - i, &bytes)};
            size_t n_codes = 1;
            if (step->kind == DBT_NORMALIZER_LOWERCASE)
                n_codes = dbt_unicode_lower(codes[0], codes);
            else if (dbt_unicode_mark(codes[0]))
                n_codes = 0;
            for (size_t k = 0; k < n_codes; k++) DBT_TRY(append_code(out, codes[k], error));
        }
        return DIBIT_OK;
    }
    return DIBIT_OK;
}

dibit_status dbt_normalize(const dibit_tokenizer *tokenizer, const char *text, size_t n,
                           dbt_regex_scratch *regex_scratch, dibit_text *out, dibit_text *scratch,
                           dibit_error *error) {
    out->bytes = 0;
    DBT_TRY(dibit_text_append(out, text, n, error));
    for (size_t i = 0; i < tokenizer->n_normalizers; i++) {
        scratch->bytes = 0;
        DBT_TRY(dibit_text_append(scratch, "", 0, error));
        DBT_TRY(apply(&tokenizer->normalizers[i], out->data, out->bytes, regex_scratch, scratch,
                      error));
        const dibit_text swap = *out;
        *out = *scratch;
        *scratch = swap;
    }
    return DIBIT_OK;
}

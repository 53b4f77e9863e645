/* PCRE2 behind regex.h, and the translation from Oniguruma's Ruby syntax. */
#include "lm/regex.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

struct dbt_regex {
    pcre2_code *code;
};

struct dbt_regex_scratch {
    pcre2_match_data *match;
    pcre2_match_context *context;
};

/* What an escape means in Oniguruma for UTF-8, where PCRE2 means something else: PCRE2's \s counts
 * U+180E, its \w depends on the version, and its \h is horizontal space. All work inside and outside
 * of classes except \w, which is several properties. */
static const char *translate_escape(char c, bool in_class) {
    switch (c) {
    case 's': return "\\p{White_Space}";
    case 'S': return "\\P{White_Space}";
    case 'd': return "\\p{Nd}";
    case 'D': return "\\P{Nd}";
    case 'h': return in_class ? "0-9a-fA-F" : "[0-9a-fA-F]";
    case 'H': return in_class ? NULL : "[^0-9a-fA-F]";
    case 'w':
        return in_class ? "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
                        : "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
    case 'W': return in_class ? NULL : "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
    default: return "";
    }
}

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static dibit_status translate(const char *p, size_t n, dibit_text *out, dibit_error *error) {
    bool in_class = false;
    size_t class_begin = 0; /* where a ] would be literal */
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\' && i + 1 < n) {
            const char c = p[++i];
            if (c == 'u' && n - i > 4 && is_hex(p[i + 1]) && is_hex(p[i + 2]) && is_hex(p[i + 3]) &&
                is_hex(p[i + 4])) {
                DBT_TRY(dibit_text_append(out, "\\x{", 3, error));
                DBT_TRY(dibit_text_append(out, p + i + 1, 4, error));
                DBT_TRY(dibit_text_append(out, "}", 1, error));
                i += 4;
                continue;
            }
            const char *known = translate_escape(c, in_class);
            DBT_LM_FAIL_IF(!known, error, DIBIT_UNSUPPORTED,
                           "\\%c inside a class of a regular expression is not supported", c);
            if (*known)
                DBT_TRY(dibit_text_append(out, known, strlen(known), error));
            else
                DBT_TRY(dibit_text_append(out, p + i - 1, 2, error));
            continue;
        }
        if (!in_class && p[i] == '[') {
            in_class = true;
            class_begin = i + 1 + (i + 1 < n && p[i + 1] == '^');
        } else if (in_class && p[i] == ']' && i != class_begin) {
            in_class = false;
        } else if (in_class && (p[i] == '[' || (p[i] == '&' && i + 1 < n && p[i + 1] == '&'))) {
            return dbt_lm_fail(error, DIBIT_UNSUPPORTED,
                               "classes inside classes of a regular expression are not supported");
        }
        DBT_TRY(dibit_text_append(out, p + i, 1, error));
    }
    return DIBIT_OK;
}

dibit_status dbt_regex_compile(const char *pattern, size_t bytes, bool literal, dbt_regex **out,
                               dibit_error *error) {
    DBT_LM_FAIL_IF(bytes > 65536, error, DIBIT_TOO_LARGE, "a regular expression of %zu bytes",
                   bytes);
    dibit_text text = {0};
    pcre2_compile_context *context = NULL;
    dbt_regex *regex = NULL;
    dibit_status status = literal ? dibit_text_append(&text, pattern, bytes, error)
                                  : translate(pattern, bytes, &text, error);
    if (status == DIBIT_OK) status = dibit_text_append(&text, "", 0, error);
    if (status != DIBIT_OK) goto done;
    context = pcre2_compile_context_create(NULL);
    regex = calloc(1, sizeof *regex);
    if (!context || !regex) {
        status = dbt_lm_fail_memory(error);
        goto done;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    /* In Ruby ^ and $ always mean lines. */
    const uint32_t options =
        literal ? PCRE2_UTF | PCRE2_LITERAL
                : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int code = 0;
    size_t offset = 0;
    regex->code =
        pcre2_compile((PCRE2_SPTR)text.data, text.bytes, options, &code, &offset, context);
    if (!regex->code) {
        unsigned char message[160] = "";
        pcre2_get_error_message(code, message, sizeof message);
        status = code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED
                     ? dbt_lm_fail_memory(error)
                     : dbt_lm_fail(error, DIBIT_UNSUPPORTED,
                                   "the regular expression %.100s is not understood: %s", pattern,
                                   (const char *)message);
        goto done;
    }
    (void)pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* without JIT it is interpreted */
    *out = regex;
    regex = NULL;
done:
    free(regex);
    pcre2_compile_context_free(context);
    dibit_text_free(&text);
    return status;
}

void dbt_regex_free(dbt_regex *regex) {
    if (!regex) return;
    pcre2_code_free(regex->code);
    free(regex);
}

dbt_regex_scratch *dbt_regex_scratch_create(void) {
    dbt_regex_scratch *scratch = calloc(1, sizeof *scratch);
    if (!scratch) return NULL;
    scratch->match = pcre2_match_data_create(1, NULL);
    scratch->context = pcre2_match_context_create(NULL);
    if (!scratch->match || !scratch->context) {
        dbt_regex_scratch_free(scratch);
        return NULL;
    }
    return scratch;
}

void dbt_regex_scratch_free(dbt_regex_scratch *scratch) {
    if (!scratch) return;
    pcre2_match_data_free(scratch->match);
    pcre2_match_context_free(scratch->context);
    free(scratch);
}

dibit_status dbt_matches_next(dbt_matches *m, bool *found, dibit_error *error) {
    *found = false;
    while (m->next <= m->bytes) {
        int rc = pcre2_match(m->regex->code, (PCRE2_SPTR)m->text, m->bytes, m->next,
                             PCRE2_NO_UTF_CHECK, m->scratch->match, m->scratch->context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
            rc = pcre2_match(m->regex->code, (PCRE2_SPTR)m->text, m->bytes, m->next,
                             PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->scratch->match,
                             m->scratch->context);
        if (rc == PCRE2_ERROR_NOMATCH) {
            m->next = m->bytes + 1;
            return DIBIT_OK;
        }
        const size_t *range = pcre2_get_ovector_pointer(m->scratch->match);
        DBT_LM_FAIL_IF(rc < 0 || range[0] > range[1] || (m->started && range[0] < m->end), error,
                       DIBIT_BAD_FILE,
                       "a regular expression of the tokenizer fails on this text (PCRE2: %d)", rc);
        /* An empty match right after the last one is not taken. */
        if (range[0] == range[1] && m->started && range[1] == m->end) {
            size_t bytes = 1;
            if (m->next < m->bytes) dbt_utf8_next(m->text + m->next, m->bytes - m->next, &bytes);
            m->next += bytes;
            continue;
        }
        m->begin = range[0];
        m->end = m->next = range[1];
        m->started = *found = true;
        return DIBIT_OK;
    }
    return DIBIT_OK;
}

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

/* The length of {n}, {n,} or {n,m} at p, or 0. *exact: it has no comma. */
static size_t interval_bytes(const char *p, size_t n, bool *exact) {
    size_t i = 1, digits = 0;
    *exact = true;
    for (; i < n && p[i] != '}'; i++) {
        if (p[i] == ',' && *exact)
            *exact = false;
        else if (p[i] >= '0' && p[i] <= '9')
            digits++;
        else
            return 0;
    }
    return i < n && digits ? i + 1 : 0;
}

typedef struct translation {
    dibit_text *out;
    bool in_class;
    size_t class_begin; /* where a ] would be literal */
    size_t atom;        /* where in out the last atom begins: what a quantifier applies to */
    size_t groups[64];  /* where the open groups begin */
    size_t depth;
} translation;

static dibit_status translate_backslash(translation *t, const char *p, size_t n, size_t *i,
                                        dibit_error *error) {
    const char c = p[++*i];
    const char *hex = p + *i + 1;
    if (c == 'u' && n - *i > 4 && is_hex(hex[0]) && is_hex(hex[1]) && is_hex(hex[2]) &&
        is_hex(hex[3])) {
        DBT_TRY(dibit_text_append(t->out, "\\x{", 3, error));
        DBT_TRY(dibit_text_append(t->out, hex, 4, error));
        *i += 4;
        return dibit_text_append(t->out, "}", 1, error);
    }
    const char *known = translate_escape(c, t->in_class);
    DBT_LM_FAIL_IF(!known, error, DIBIT_UNSUPPORTED,
                   "\\%c inside a class of a regular expression is not supported", c);
    if (*known) return dibit_text_append(t->out, known, strlen(known), error);
    DBT_TRY(dibit_text_append(t->out, p + *i - 1, 2, error));
    /* \p{...}: its braces are no interval. */
    if ((c == 'p' || c == 'P' || c == 'x') && *i + 1 < n && p[*i + 1] == '{') {
        const char *end = memchr(p + *i, '}', n - *i);
        const size_t bytes = end ? (size_t)(end - hex) + 1 : n - *i - 1;
        DBT_TRY(dibit_text_append(t->out, hex, bytes, error));
        *i += bytes;
    }
    return DIBIT_OK;
}

/* A + after an interval, and a ? after an exact one, are quantifiers of their own in Ruby, where for
 * PCRE2 they make the interval possessive or lazy: X{1,3}+ becomes (?:X{1,3})+. */
static dibit_status translate_interval(translation *t, const char *p, size_t n, size_t *i,
                                       dibit_error *error) {
    bool exact;
    const size_t bytes = interval_bytes(p + *i, n - *i, &exact);
    if (bytes == 0) return dibit_text_append(t->out, p + *i, 1, error);
    const char next = *i + bytes < n ? p[*i + bytes] : 0;
    const bool apart = next == '+' || (next == '?' && exact);
    const size_t end = t->out->bytes;
    if (apart) {
        DBT_TRY(dibit_text_append(t->out, "(?:", 3, error));
        memmove(t->out->data + t->atom + 3, t->out->data + t->atom, end - t->atom);
        memcpy(t->out->data + t->atom, "(?:", 3);
    }
    if (p[*i + 1] == ',') { /* {,m} */
        DBT_TRY(dibit_text_append(t->out, "{0", 2, error));
        DBT_TRY(dibit_text_append(t->out, p + *i + 1, bytes - 1, error));
    } else {
        DBT_TRY(dibit_text_append(t->out, p + *i, bytes, error));
    }
    *i += bytes - 1;
    return apart ? dibit_text_append(t->out, ")", 1, error) : DIBIT_OK;
}

static dibit_status translate_class(translation *t, const char *p, size_t n, size_t i,
                                    dibit_error *error) {
    if (p[i] == ']' && i != t->class_begin)
        t->in_class = false;
    else if (p[i] == '[' || (p[i] == '&' && i + 1 < n && p[i + 1] == '&'))
        return dbt_lm_fail(error, DIBIT_UNSUPPORTED,
                           "classes inside classes of a regular expression are not supported");
    return dibit_text_append(t->out, p + i, 1, error);
}

static dibit_status translate(const char *p, size_t n, dibit_text *out, dibit_error *error) {
    translation t = {.out = out};
    for (size_t i = 0; i < n; i++) {
        const bool quantifier = strchr("*+?", p[i]) && p[i];
        if (!t.in_class && !quantifier && p[i] != '{' && p[i] != ')') t.atom = out->bytes;
        if (p[i] == '\\' && i + 1 < n) {
            DBT_TRY(translate_backslash(&t, p, n, &i, error));
            continue;
        }
        if (t.in_class) {
            DBT_TRY(translate_class(&t, p, n, i, error));
            continue;
        }
        if (p[i] == '{') {
            DBT_TRY(translate_interval(&t, p, n, &i, error));
            continue;
        }
        if (p[i] == '[') {
            t.in_class = true;
            t.class_begin = i + 1 + (i + 1 < n && p[i + 1] == '^');
        } else if (p[i] == '(') {
            DBT_LM_FAIL_IF(t.depth == sizeof t.groups / sizeof *t.groups, error, DIBIT_UNSUPPORTED,
                           "a regular expression with more than %zu groups inside each other",
                           t.depth);
            t.groups[t.depth++] = out->bytes;
        } else if (p[i] == ')' && t.depth) {
            t.atom = t.groups[--t.depth];
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

/* See shader_line.h. */
#include "gpu/shader_line.h"

#include <string.h>

static bool is_blank(char ch) { return ch == ' ' || ch == '\t' || ch == '\r'; }
static bool is_digit(char ch) { return ch >= '0' && ch <= '9'; }
static bool is_letter(char ch) {
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_';
}

static void skip_blanks(dbt_line *line) {
    while (line->at < line->end && is_blank(*line->at)) line->at++;
}

bool dbt_word_is(dbt_word word, const char *name) {
    return strlen(name) == word.n && memcmp(name, word.s, word.n) == 0;
}

bool dbt_line_take(dbt_line *line, const char *sign) {
    skip_blanks(line);
    const size_t n = strlen(sign);
    if ((size_t)(line->end - line->at) < n || memcmp(line->at, sign, n) != 0) return false;
    line->at += n;
    return true;
}

bool dbt_line_take_name(dbt_line *line, dbt_word *name) {
    skip_blanks(line);
    *name = (dbt_word){line->at, 0};
    if (line->at == line->end || !is_letter(*line->at)) return false;
    while (line->at < line->end && (is_letter(*line->at) || is_digit(*line->at))) line->at++;
    name->n = (size_t)(line->at - name->s);
    return true;
}

bool dbt_line_take_number(dbt_line *line, int32_t *value) {
    const bool negative = dbt_line_take(line, "-");
    if (line->at == line->end || !is_digit(*line->at)) return false;
    int64_t v = 0;
    for (; line->at < line->end && is_digit(*line->at); line->at++) {
        v = v * 10 + (*line->at - '0');
        if (v > INT32_MAX) return false;
    }
    *value = (int32_t)(negative ? -v : v);
    return true;
}

bool dbt_line_take_quoted(dbt_line *line, dbt_word *text) {
    if (!dbt_line_take(line, "\"")) return false;
    *text = (dbt_word){line->at, 0};
    while (line->at < line->end && *line->at != '"') line->at++;
    text->n = (size_t)(line->at - text->s);
    return dbt_line_take(line, "\"");
}

bool dbt_line_at_end(dbt_line *line) {
    skip_blanks(line);
    const size_t n = (size_t)(line->end - line->at);
    return n == 0 || (n >= 2 && line->at[0] == '/' && line->at[1] == '/');
}

dibit_status dbt_line_fail(const dbt_line *line, dibit_error *error, const char *what,
                           dbt_word word) {
    return dbt_fail(error, DIBIT_BAD_ARGUMENT, "%s:%u: %s%s%.*s%s", line->file,
                    (unsigned)line->number, what, word.n ? " '" : "", (int)word.n,
                    word.n ? word.s : "", word.n ? "'" : "");
}

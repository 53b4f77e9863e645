/* Tokens of JSON: see json_reader.h. */
#include "lm/json_reader.h"

void dbt_json_reader_free(dbt_json_reader *r) { dibit_text_free(&r->unescaped); }

dibit_status dbt_json_malformed(const dbt_json_reader *r, const char *what, dibit_error *error) {
    unsigned line = 1;
    for (const char *at = r->text; at < r->at; at++) line += *at == '\n';
    return dbt_lm_fail(error, DIBIT_BAD_FILE, "malformed JSON in line %u: %s", line, what);
}

char dbt_json_peek(dbt_json_reader *r) {
    while (r->at < r->end &&
           (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) {
        r->at++;
    }
    return r->at < r->end ? *r->at : '\0';
}

bool dbt_json_take(dbt_json_reader *r, char c) {
    if (dbt_json_peek(r) != c || r->at == r->end) return false;
    r->at++;
    return true;
}

dibit_status dbt_json_expect(dbt_json_reader *r, char c, dibit_error *error) {
    char what[] = "'?' is missing";
    what[1] = c;
    return dbt_json_take(r, c) ? DIBIT_OK : dbt_json_malformed(r, what, error);
}

dibit_status dbt_json_next(dbt_json_reader *r, char close, bool *more, dibit_error *error) {
    *more = !dbt_json_take(r, close);
    return *more ? dbt_json_expect(r, ',', error) : DIBIT_OK;
}

/* ---- Strings ---- */

/* Four digits; -1 where there are none. */
static int32_t read_hex(dbt_json_reader *r) {
    int32_t value = 0;
    if (r->end - r->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const char c = *r->at++;
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* What follows "\u": a character, or the two surrogates that make one. */
static int32_t read_code_point(dbt_json_reader *r) {
    const int32_t high = read_hex(r);
    if (high < 0xd800 || high > 0xdfff) return high;
    if (high > 0xdbff || r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u') return -1;
    r->at += 2;
    const int32_t low = read_hex(r);
    return low < 0xdc00 || low > 0xdfff ? -1 : 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

/* What follows a backslash, appended to unescaped. */
static dibit_status read_escape(dbt_json_reader *r, dibit_error *error) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char c = r->at < r->end ? *r->at++ : '\0';
    if (c == 'u') {
        char utf8[4];
        const int32_t code = read_code_point(r);
        if (code < 0) return dbt_json_malformed(r, "\\u with a wrong number", error);
        return dibit_text_append(&r->unescaped, utf8, dbt_utf8_put((uint32_t)code, utf8), error);
    }
    const char *const letter = c ? strchr(letters, c) : NULL;
    if (!letter) return dbt_json_malformed(r, "an unknown escape", error);
    return dibit_text_append(&r->unescaped, &meanings[letter - letters], 1, error);
}

/* Characters up to the next quote or backslash. */
static dibit_status take_plain(dbt_json_reader *r, dibit_error *error) {
    while (r->at < r->end) {
        const unsigned char c = (unsigned char)*r->at;
        if (c == '"' || c == '\\') return DIBIT_OK;
        if (c < 0x20) return dbt_json_malformed(r, "a control character in a string", error);
        size_t bytes = 1;
        if (c >= 0x80 && dbt_utf8_next(r->at, (size_t)(r->end - r->at), &bytes) < 0)
            return dbt_json_malformed(r, "a string that is no UTF-8", error);
        r->at += bytes;
    }
    return dbt_json_malformed(r, "a string without an end", error);
}

dibit_status dbt_json_read_string(dbt_json_reader *r, const char **string, size_t *bytes,
                                  dibit_error *error) {
    DBT_TRY(dbt_json_expect(r, '"', error));
    const char *begin = r->at;
    DBT_TRY(take_plain(r, error));
    const bool plain = *r->at == '"';
    r->unescaped.bytes = 0;
    while (*r->at == '\\') {
        DBT_TRY(dibit_text_append(&r->unescaped, begin, (size_t)(r->at - begin), error));
        r->at++;
        DBT_TRY(read_escape(r, error));
        begin = r->at;
        DBT_TRY(take_plain(r, error));
    }
    if (!plain) DBT_TRY(dibit_text_append(&r->unescaped, begin, (size_t)(r->at - begin), error));
    *string = plain ? begin : r->unescaped.data;
    *bytes = plain ? (size_t)(r->at - begin) : r->unescaped.bytes;
    r->at++;
    return DIBIT_OK;
}

/* ---- Other values ---- */

bool dbt_json_read_uint(dbt_json_reader *r, uint32_t limit, uint32_t *out) {
    const char first = dbt_json_peek(r);
    const char *const begin = r->at;
    uint64_t value = 0;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9' && value < limit)
        value = value * 10 + (uint64_t)(*r->at++ - '0');
    *out = (uint32_t)value;
    return r->at > begin && (first != '0' || r->at == begin + 1) && value < limit;
}

static bool skip_string(dbt_json_reader *r) {
    for (r->at++; r->at < r->end; r->at++) {
        if (*r->at == '"') return r->at++, true;
        if (*r->at == '\\' && ++r->at == r->end) return false;
    }
    return false;
}

bool dbt_json_skip(dbt_json_reader *r, size_t *n_items) {
    size_t depth = 0, commas = 0;
    bool empty = true; /* nothing stands in the list yet */
    *n_items = 0;
    if (dbt_json_peek(r) == '"') return skip_string(r);
    while (dbt_json_peek(r)) {
        const char c = *r->at;
        if (c == '"') {
            if (!skip_string(r)) return false;
            empty = false;
            continue;
        }
        const bool closes = c == '}' || c == ']';
        if (depth == 0 && (closes || c == ',')) return true; /* behind a number or a word */
        r->at++;
        if (closes && --depth == 0) {
            *n_items = empty ? 0 : commas + 1;
            return true;
        }
        if (!closes && depth > 0) empty = false;
        if (c == ',' && depth == 1) commas++;
        if (c == '{' || c == '[') depth++;
    }
    return depth == 0;
}

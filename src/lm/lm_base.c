/* Errors, growing arrays, files and UTF-8 of the language-model layer. */
#include "lm/lm_base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

dibit_status dbt_lm_fail(dibit_error *error, dibit_status status, const char *format, ...) {
    if (error) {
        va_list args;
        va_start(args, format);
        error->status = status;
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
    }
    return status;
}

dibit_status dbt_lm_fail_memory(dibit_error *error) {
    return dbt_lm_fail(error, DIBIT_OUT_OF_MEMORY, "out of memory");
}

bool dbt_lm_reserve(void **data, size_t *capacity, size_t count, size_t bytes) {
    if (count <= *capacity) return true;
    size_t n = *capacity + *capacity / 2;
    if (n < count) n = count;
    if (n < 16) n = 16;
    if (n > SIZE_MAX / bytes) return false;
    void *grown = realloc(*data, n * bytes);
    if (!grown) return false;
    *data = grown;
    *capacity = n;
    return true;
}

void dibit_tokens_free(dibit_tokens *tokens) {
    if (!tokens) return;
    free(tokens->ids);
    *tokens = (dibit_tokens){0};
}

void dibit_text_free(dibit_text *text) {
    if (!text) return;
    free(text->data);
    *text = (dibit_text){0};
}

dibit_status dibit_tokens_append(dibit_tokens *tokens, const int64_t *ids, size_t count,
                                 dibit_error *error) {
    void *data = tokens->ids;
    if (count > SIZE_MAX / 2 - tokens->count ||
        !dbt_lm_reserve(&data, &tokens->capacity, tokens->count + count, sizeof *ids))
        return dbt_lm_fail_memory(error);
    tokens->ids = data;
    if (count) memcpy(tokens->ids + tokens->count, ids, count * sizeof *ids);
    tokens->count += count;
    return DIBIT_OK;
}

dibit_status dibit_text_append(dibit_text *text, const char *bytes, size_t n_bytes,
                               dibit_error *error) {
    void *data = text->data;
    if (n_bytes > SIZE_MAX / 2 - text->bytes ||
        !dbt_lm_reserve(&data, &text->capacity, text->bytes + n_bytes + 1, 1))
        return dbt_lm_fail_memory(error);
    text->data = data;
    if (n_bytes) memcpy(text->data + text->bytes, bytes, n_bytes);
    text->bytes += n_bytes;
    text->data[text->bytes] = '\0';
    return DIBIT_OK;
}

dibit_status dbt_lm_read_file(const char *path, size_t max_bytes, dibit_text *out,
                              dibit_error *error) {
    FILE *file = fopen(path, "rb");
    DBT_LM_FAIL_IF(!file, error, DIBIT_IO, "%s: cannot be opened", path);
    dibit_text text = {0};
    dibit_status status = dibit_text_append(&text, "", 0, error);
    /* In one piece where the size is known; a pipe's is not. */
    const long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : 0;
    rewind(file);
    size_t want = size > 0 && (unsigned long)size <= max_bytes ? (size_t)size + 1 : 65536;
    for (size_t n = want; status == DIBIT_OK && n == want;) {
        void *data = text.data;
        if (!dbt_lm_reserve(&data, &text.capacity, text.bytes + want + 1, 1)) {
            status = dbt_lm_fail_memory(error);
            break;
        }
        text.data = data;
        n = fread(text.data + text.bytes, 1, want, file);
        text.bytes += n;
        text.data[text.bytes] = '\0';
        if (text.bytes > max_bytes)
            status =
                dbt_lm_fail(error, DIBIT_TOO_LARGE, "%s: has more than %zu bytes", path, max_bytes);
    }
    if (status == DIBIT_OK && ferror(file))
        status = dbt_lm_fail(error, DIBIT_IO, "%s: cannot be read", path);
    fclose(file);
    if (status == DIBIT_OK)
        *out = text;
    else
        dibit_text_free(&text);
    return status;
}

int32_t dbt_utf8_next(const char *s, size_t n, size_t *bytes) {
    const unsigned char *u = (const unsigned char *)s;
    *bytes = 1;
    if (u[0] < 0x80) return u[0];
    /* The second byte's range excludes overlong forms, surrogates and what is above U+10FFFF. */
    size_t need;
    unsigned low = 0x80, high = 0xbf;
    int32_t code;
    if (u[0] >= 0xc2 && u[0] <= 0xdf) {
        need = 2;
        code = u[0] & 0x1f;
    } else if (u[0] >= 0xe0 && u[0] <= 0xef) {
        need = 3;
        code = u[0] & 0x0f;
        if (u[0] == 0xe0) low = 0xa0;
        if (u[0] == 0xed) high = 0x9f;
    } else if (u[0] >= 0xf0 && u[0] <= 0xf4) {
        need = 4;
        code = u[0] & 0x07;
        if (u[0] == 0xf0) low = 0x90;
        if (u[0] == 0xf4) high = 0x8f;
    } else {
        return -1;
    }
    for (size_t i = 1; i < need; i++) {
        if (i == n || u[i] < low || u[i] > high) return -1;
        code = code << 6 | (u[i] & 0x3f);
        *bytes = i + 1;
        low = 0x80;
        high = 0xbf;
    }
    return code;
}

size_t dbt_utf8_put(uint32_t code, char out[4]) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00u >> n & 0xf0u) | code);
    return n;
}

bool dbt_utf8_valid(const char *s, size_t n) {
    for (size_t i = 0, bytes; i < n; i += bytes) {
        if (dbt_utf8_next(s + i, n - i, &bytes) < 0) return false;
    }
    return true;
}

dibit_status dbt_utf8_append_lossy(const char *s, size_t n, dibit_text *out, dibit_error *error) {
    size_t good = 0; /* s[good .. i) is valid and not yet appended */
    for (size_t i = 0, bytes; i < n; i += bytes) {
        if (dbt_utf8_next(s + i, n - i, &bytes) >= 0) continue;
        DBT_TRY(dibit_text_append(out, s + good, i - good, error));
        DBT_TRY(dibit_text_append(out, "\xef\xbf\xbd", 3, error));
        good = i + bytes;
    }
    return dibit_text_append(out, s + good, n - good, error);
}

/* What every file of the language-model layer needs: errors, growing arrays, memory, UTF-8. The
 * layer is a library of its own on the engine's public interface, so it has its own of these. */
#ifndef DBT_LM_LM_BASE_H
#define DBT_LM_LM_BASE_H

#include <string.h>

#include "base/error.h"
#include "dibit/lm.h"

/* As dbt_fail, which the engine keeps to itself. */
dibit_status dbt_lm_fail(dibit_error *error, dibit_status status, const char *format, ...)
    DBT_PRINTF(3, 4);
dibit_status dbt_lm_fail_memory(dibit_error *error);

#define DBT_LM_FAIL_IF(condition, error, status, ...)                                              \
    do {                                                                                           \
        if (condition) return dbt_lm_fail(error, status, __VA_ARGS__);                             \
    } while (0)

/* Makes room for `count` elements of `bytes` bytes at *data, which has room for *capacity, growing
 * by half at least. False when there is no memory; then nothing has changed. */
bool dbt_lm_reserve(void **data, size_t *capacity, size_t count, size_t bytes);

/* The whole content of a regular file of at most max_bytes, NUL-terminated, malloc'ed. */
dibit_status dbt_lm_read_file(const char *path, size_t max_bytes, dibit_text *out,
                              dibit_error *error);

/* Decodes one character of s[0 .. n), n >= 1. Returns the code point and sets *bytes; where there
 * is none, returns -1 and sets *bytes to the length of the maximal part that U+FFFD stands for
 * (Unicode, section 3.9: substitution of maximal subparts). */
int32_t dbt_utf8_next(const char *s, size_t n, size_t *bytes);
/* Writes the code point (a scalar value) and returns how many bytes, 1 to 4. */
size_t dbt_utf8_put(uint32_t code, char out[4]);
bool dbt_utf8_valid(const char *s, size_t n);
/* Appends s, with U+FFFD in place of what is no UTF-8. */
dibit_status dbt_utf8_append_lossy(const char *s, size_t n, dibit_text *out, dibit_error *error);

#endif

/* A line of a shader's file, word by word. For shader.c. */
#ifndef DBT_GPU_SHADER_LINE_H
#define DBT_GPU_SHADER_LINE_H

#include "base/error.h"

typedef struct dbt_word {
    const char *s; /* not ended by a NUL */
    size_t n;
} dbt_word;

bool dbt_word_is(dbt_word word, const char *name);

typedef struct dbt_line {
    const char *file; /* its name */
    uint32_t number;
    const char *at, *end; /* what is left of it */
} dbt_line;

/* Each passes over blanks and takes what it is named for, or answers false. */
bool dbt_line_take(dbt_line *line, const char *sign);
bool dbt_line_take_name(dbt_line *line, dbt_word *name);
bool dbt_line_take_number(dbt_line *line, int32_t *value);
bool dbt_line_take_quoted(dbt_line *line, dbt_word *text);
/* Nothing is left but perhaps a comment. */
bool dbt_line_at_end(dbt_line *line);

/* BAD_ARGUMENT: file and line, what is wrong, and (if it is not empty) the word that is. */
dibit_status dbt_line_fail(const dbt_line *line, dibit_error *error, const char *what,
                           dbt_word word);

#endif

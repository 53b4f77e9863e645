/* JSON from front to back, without a tree: for the two lists of tokenizer.json, whose hundred thousand
 * strings are most of the file. What is accepted is what jansson accepts, which reads everything else. */
#ifndef DBT_LM_JSON_READER_H
#define DBT_LM_JSON_READER_H

#include "lm/lm_base.h"

typedef struct dbt_json_reader {
    const char *text, *at,
        *end;             /* the whole text, from which lines are counted; what is left of it */
    dibit_text unescaped; /* the last string that had escapes */
} dbt_json_reader;

void dbt_json_reader_free(dbt_json_reader *reader);

/* BAD_FILE, with the line. */
dibit_status dbt_json_malformed(const dbt_json_reader *reader, const char *what,
                                dibit_error *error);

/* The next character after white space; 0 at the end. */
char dbt_json_peek(dbt_json_reader *reader);
/* Takes the character c if it comes next. */
bool dbt_json_take(dbt_json_reader *reader, char c);
dibit_status dbt_json_expect(dbt_json_reader *reader, char c, dibit_error *error);
/* Behind an item of a list that `close` ends: takes "," or close, and says which. */
dibit_status dbt_json_next(dbt_json_reader *reader, char close, bool *more, dibit_error *error);

/* A string, valid until the next one is read. */
dibit_status dbt_json_read_string(dbt_json_reader *reader, const char **string, size_t *bytes,
                                  dibit_error *error);
/* A number of digits alone, below `limit`; false: something else, or more. */
bool dbt_json_read_uint(dbt_json_reader *reader, uint32_t limit, uint32_t *out);

/* Takes a value without judging it, and counts the items of a list. False where the text ends inside. */
bool dbt_json_skip(dbt_json_reader *reader, size_t *n_items);

#endif

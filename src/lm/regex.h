/* Regular expressions as tokenizer.json has them, on PCRE2. The tokenizers package compiles them
 * with Oniguruma in its Ruby syntax; what the two understand differently is translated. */
#ifndef DBT_LM_REGEX_H
#define DBT_LM_REGEX_H

#include "lm/lm_base.h"

typedef struct dbt_regex dbt_regex;
typedef struct dbt_regex_scratch dbt_regex_scratch; /* one a thread, for any expression */

/* literal: match the text itself. UNSUPPORTED: PCRE2 does not take it, or it means something else
 * there. */
dibit_status dbt_regex_compile(const char *pattern, size_t bytes, bool literal, dbt_regex **out,
                               dibit_error *error);
void dbt_regex_free(dbt_regex *regex);

dbt_regex_scratch *dbt_regex_scratch_create(void); /* NULL: out of memory */
void dbt_regex_scratch_free(dbt_regex_scratch *scratch);

/* Walks over all matches in text (valid UTF-8), which do not overlap. Start with {.regex, .scratch,
 * .text, .bytes}. After an empty match the search goes on a character further. */
typedef struct dbt_matches {
    const dbt_regex *regex;
    dbt_regex_scratch *scratch;
    const char *text;
    size_t bytes;
    size_t begin, end; /* of the match that was found */
    size_t next;
    bool started;
} dbt_matches;

/* *found: whether there is another. BAD_FILE: the expression exceeds the limits on this text. */
dibit_status dbt_matches_next(dbt_matches *matches, bool *found, dibit_error *error);

#endif

/* Classes of characters that the tokenizers package tests with Rust's char methods and regexes. */
#ifndef DBT_LM_UNICODE_H
#define DBT_LM_UNICODE_H

#include "lm/lm_base.h"

bool dbt_unicode_space(int32_t code); /* White_Space */
bool dbt_unicode_word(int32_t code);  /* \w: Alphabetic, M, Nd, Pc, Join_Control */
bool dbt_unicode_mark(int32_t code);  /* general category M */
/* Lowercase of one character by itself, at most 2 of them into out; returns how many. */
size_t dbt_unicode_lower(int32_t code, int32_t out[2]);

#endif

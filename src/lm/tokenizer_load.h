/* Reading the parts of tokenizer.json. */
#ifndef DBT_LM_TOKENIZER_LOAD_H
#define DBT_LM_TOKENIZER_LOAD_H

#include "lm/json.h"
#include "lm/tokenizer.h"

/* The contents of model.vocab and model.merges, which lie in the file's text and never become a tree. */
typedef struct dbt_json_list {
    const char *begin, *end; /* from bracket to bracket; NULL: the file has none */
    size_t n_items;
} dbt_json_list;

typedef struct dbt_tokenizer_lists {
    const char *text; /* the whole file */
    dbt_json_list vocab, merges;
} dbt_tokenizer_lists;

/* Finds both lists; *rest becomes the text with both empty, on the same lines. */
dibit_status dbt_tokenizer_take_lists(const char *text, size_t bytes, dbt_tokenizer_lists *lists,
                                      dibit_text *rest, dibit_error *error);
dibit_status dbt_load_vocab(dbt_bpe *bpe, const dbt_tokenizer_lists *lists, dibit_error *error);
/* After the vocabulary. */
dibit_status dbt_load_merges(dbt_bpe *bpe, const dbt_tokenizer_lists *lists, dibit_error *error);

/* The parts around the model. Each takes the file's member, which may be NULL or null, and appends steps
 * to the tokenizer. */
dibit_status dbt_load_normalizers(dibit_tokenizer *tokenizer, const json_t *json,
                                  dibit_error *error);
dibit_status dbt_load_pre_tokenizers(dibit_tokenizer *tokenizer, const json_t *json,
                                     dibit_error *error);
dibit_status dbt_load_decoders(dibit_tokenizer *tokenizer, const json_t *json, dibit_error *error);
dibit_status dbt_load_post_processor(dibit_tokenizer *tokenizer, const json_t *json,
                                     dibit_error *error);

#endif

/* Reading the parts of tokenizer.json around the model. Each takes the file's member, which may be
 * NULL or null, and appends steps to the tokenizer. */
#ifndef DBT_LM_TOKENIZER_LOAD_H
#define DBT_LM_TOKENIZER_LOAD_H

#include "lm/json.h"
#include "lm/tokenizer.h"

dibit_status dbt_load_normalizers(dibit_tokenizer *tokenizer, const json_t *json,
                                  dibit_error *error);
dibit_status dbt_load_pre_tokenizers(dibit_tokenizer *tokenizer, const json_t *json,
                                     dibit_error *error);
dibit_status dbt_load_decoders(dibit_tokenizer *tokenizer, const json_t *json, dibit_error *error);
dibit_status dbt_load_post_processor(dibit_tokenizer *tokenizer, const json_t *json,
                                     dibit_error *error);

#endif

/* jansson, with the sentences for members that are missing or of another type. `where` is the path
 * of the object in the file, as in "model.vocab". */
#ifndef DBT_LM_JSON_H
#define DBT_LM_JSON_H

#include <jansson.h>

#include "lm/lm_base.h"

/* Parses a whole text into *out (json_decref it). BAD_FILE, with the line. */
dibit_status dbt_json_parse(const char *text, size_t bytes, json_t **out, dibit_error *error);

/* Each fails with BAD_FILE when the member has another type. Missing or null: `required` fails, else
 * *out stays as it is. */
dibit_status dbt_json_bool(const json_t *object, const char *key, const char *where, bool required,
                           bool *out, dibit_error *error);
dibit_status dbt_json_string(const json_t *object, const char *key, const char *where,
                             bool required, const char **out, size_t *bytes, dibit_error *error);
/* In [0, max]. */
dibit_status dbt_json_uint(const json_t *object, const char *key, const char *where, bool required,
                           uint64_t max, uint64_t *out, dibit_error *error);
dibit_status dbt_json_float(const json_t *object, const char *key, const char *where, double *out,
                            dibit_error *error);
dibit_status dbt_json_array(const json_t *object, const char *key, const char *where, bool required,
                            const json_t **out, dibit_error *error);
dibit_status dbt_json_object(const json_t *object, const char *key, const char *where,
                             bool required, const json_t **out, dibit_error *error);

#endif

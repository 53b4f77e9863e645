/* Typed access to JSON members. */
#include "lm/json.h"

dibit_status dbt_json_parse(const char *text, size_t bytes, json_t **out, dibit_error *error) {
    json_error_t where;
    json_t *json = json_loadb(text, bytes, JSON_ALLOW_NUL, &where);
    if (!json) {
        DBT_LM_FAIL_IF(json_error_code(&where) == json_error_out_of_memory, error,
                       DIBIT_OUT_OF_MEMORY, "out of memory");
        return dbt_lm_fail(error, DIBIT_BAD_FILE, "malformed JSON in line %d: %s", where.line,
                           where.text);
    }
    *out = json;
    return DIBIT_OK;
}

/* The member if it is there and not null. */
static dibit_status member(const json_t *object, const char *key, const char *where, bool required,
                           const json_t **out, dibit_error *error) {
    *out = json_object_get(object, key);
    if (json_is_null(*out)) *out = NULL;
    DBT_LM_FAIL_IF(!*out && required, error, DIBIT_BAD_FILE, "%s has no \"%s\"", where, key);
    return DIBIT_OK;
}

#define MEMBER(json_type, what)                                                                    \
    const json_t *value;                                                                           \
    DBT_TRY(member(object, key, where, required, &value, error));                                  \
    if (!value) return DIBIT_OK;                                                                   \
    DBT_LM_FAIL_IF(!json_is_##json_type(value), error, DIBIT_BAD_FILE, "%s.%s is no %s", where,    \
                   key, what)

dibit_status dbt_json_bool(const json_t *object, const char *key, const char *where, bool required,
                           bool *out, dibit_error *error) {
    MEMBER(boolean, "boolean");
    *out = json_is_true(value);
    return DIBIT_OK;
}

dibit_status dbt_json_string(const json_t *object, const char *key, const char *where,
                             bool required, const char **out, size_t *bytes, dibit_error *error) {
    MEMBER(string, "string");
    *out = json_string_value(value);
    if (bytes) *bytes = json_string_length(value);
    return DIBIT_OK;
}

dibit_status dbt_json_uint(const json_t *object, const char *key, const char *where, bool required,
                           uint64_t max, uint64_t *out, dibit_error *error) {
    MEMBER(integer, "integer");
    const json_int_t n = json_integer_value(value);
    DBT_LM_FAIL_IF(n < 0 || (uint64_t)n > max, error, DIBIT_BAD_FILE,
                   "%s.%s is %lld, outside 0 to %llu", where, key, (long long)n,
                   (unsigned long long)max);
    *out = (uint64_t)n;
    return DIBIT_OK;
}

dibit_status dbt_json_float(const json_t *object, const char *key, const char *where, double *out,
                            dibit_error *error) {
    const bool required = false;
    MEMBER(number, "number");
    *out = json_number_value(value);
    return DIBIT_OK;
}

dibit_status dbt_json_array(const json_t *object, const char *key, const char *where, bool required,
                            const json_t **out, dibit_error *error) {
    MEMBER(array, "array");
    *out = value;
    return DIBIT_OK;
}

dibit_status dbt_json_object(const json_t *object, const char *key, const char *where,
                             bool required, const json_t **out, dibit_error *error) {
    MEMBER(object, "object");
    *out = value;
    return DIBIT_OK;
}

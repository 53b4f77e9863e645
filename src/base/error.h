/* Statuses and the one sentence that goes with them. Every layer reports through these. */
#ifndef DBT_BASE_ERROR_H
#define DBT_BASE_ERROR_H

#include "base/compiler.h"
#include "dibit/dibit.h"

/* Sets *error (unless NULL) and returns status, so that `return dbt_fail(...)` reads well. */
dibit_status dbt_fail(dibit_error *error, dibit_status status, const char *format, ...)
    DBT_PRINTF(3, 4);

/* Puts "prefix: " before the sentence in *error, to add a place that the callee did not know. */
void dbt_error_prefix(dibit_error *error, const char *format, ...) DBT_PRINTF(2, 3);

/* The sentence for an allocation that failed. */
dibit_status dbt_fail_memory(dibit_error *error, const char *what, uint64_t bytes);

#define DBT_TRY(expression)                                                                        \
    do {                                                                                           \
        const dibit_status dbt_try_status_ = (expression);                                         \
        if (dbt_try_status_ != DIBIT_OK) return dbt_try_status_;                                   \
    } while (0)

#define DBT_FAIL_IF(condition, error, status, ...)                                                 \
    do {                                                                                           \
        if (condition) return dbt_fail(error, status, __VA_ARGS__);                                \
    } while (0)

#endif

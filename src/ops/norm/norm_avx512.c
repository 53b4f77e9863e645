/* The rows of a norm for AVX512. */
#define DBT_NORM_ROWS dbt_norm_rows_avx512
#include "ops/norm/norm_tmpl.h"

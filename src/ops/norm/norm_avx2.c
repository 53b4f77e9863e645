/* The rows of a norm for AVX2. */
#define DBT_NORM_ROWS dbt_norm_rows_avx2
#include "ops/norm/norm_tmpl.h"

/* The loops of unary ops for AVX512. */
#define DBT_UNARY_TABLE dbt_unary_floats_avx512
#include "ops/elementwise/unary_tmpl.h"

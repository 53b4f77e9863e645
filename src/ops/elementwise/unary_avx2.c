/* The loops of unary ops for AVX2. */
#define DBT_UNARY_TABLE dbt_unary_floats_avx2
#include "ops/elementwise/unary_tmpl.h"

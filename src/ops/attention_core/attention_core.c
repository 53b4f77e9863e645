/* Chooses how an attention is computed. */
#include "ops/attention_core/attention_core.h"

uint64_t dbt_attention_scratch(const dbt_attention *a) {
    (void)a;
    return 0;
}

void dbt_attention_run(const dbt_attention *a, void *scratch) {
    (void)scratch;
    dbt_attention_ref(a, NULL);
}

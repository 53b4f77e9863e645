/* What a profile counts of attention: the keys and values that any query sees, read once, and the
 * products with those that each query sees. */
#include "ops/attention_core/attention_core.h"

void dbt_attention_count(const dbt_attention *a) {
    const uint64_t k_bytes = dibit_type_bits(a->k_type) / 8,
                   v_bytes = dibit_type_bits(a->v_type) / 8;
    const uint64_t heads = (uint64_t)a->heads, kv_heads = (uint64_t)a->kv_heads;
    const uint64_t k_dim = (uint64_t)a->k_dim, v_dim = (uint64_t)a->v_dim;
    dbt_work work = {.bytes = (uint64_t)(a->batch * a->queries) * heads * (k_dim + v_dim) *
                              sizeof(float)};
    for (int64_t b = 0; b < a->batch; b++) {
        int64_t first = a->rows[b].n_keys, last = 0, begin, end;
        for (int64_t s = 0; s < a->queries; s++) {
            dbt_attention_visible(a, &a->rows[b], s, &begin, &end);
            work.float_products += (uint64_t)(end - begin) * heads * (k_dim + v_dim);
            if (begin < first) first = begin;
            if (end > last) last = end;
        }
        if (last > first)
            work.bytes += (uint64_t)(last - first) * kv_heads * (k_dim * k_bytes + v_dim * v_bytes);
    }
    dbt_pool_count(a->pool, &work);
}

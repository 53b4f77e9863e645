/* The mask forms of MultiHeadAttention and Attention as terms that are added to scores. */
#include "ops/multi_head_attention/mha.h"

static bool by_query(const dibit_tensor *mask) { return mask->rank >= 3; }

uint64_t dbt_mha_mask_floats(const dibit_tensor *mask, const dbt_mha_shape *s) {
    if (!mask) return 0;
    return dbt_scratch_product(s->batch, by_query(mask) ? s->queries : 1, s->total, 1);
}

/* Whether key t of batch row b (and query s) is masked, for dims that fit. */
static bool is_masked(const dibit_tensor *mask, const dbt_mha_shape *shape, int64_t b, int64_t s,
                      int64_t t) {
    const int32_t *const m = mask->data;
    switch (mask->rank) {
    case 1:
        if (t >= m[b]) return true;
        return mask->dims[0] == 2 * shape->batch && t < m[shape->batch + b];
    case 2: return m[b * shape->total + t] <= 0;
    case 3: return m[(b * shape->queries + s) * shape->total + t] <= 0;
    default: return m[(b * mask->dims[2] + shape->past + s) * mask->dims[3] + t] <= 0;
    }
}

static bool fits(const dbt_cpu_call *c, const dibit_tensor *mask, const dbt_mha_shape *s) {
    const int64_t *const d = mask->dims;
    const bool attention = c->node->op->kind == DBT_MHA_ATTENTION;
    switch (mask->rank) {
    case 1:
        return d[0] == s->batch || d[0] == 3 * s->batch + 2 || (attention && d[0] == 2 * s->batch);
    case 2: return d[0] == s->batch && d[1] == s->total;
    case 3: return d[0] == s->batch && d[1] == s->queries && d[2] == s->total;
    default:
        return attention && d[0] == s->batch && d[1] == 1 && d[2] >= s->past + s->queries &&
               d[3] >= s->total;
    }
}

dibit_status dbt_mha_mask(const dbt_cpu_call *c, const dibit_tensor *mask, const dbt_mha_shape *s,
                          float *floats, dbt_attention_term *term) {
    if (!mask) return DIBIT_OK;
    const dbt_mha_attrs *const a = c->attrs;
    DBT_FAIL_IF(!fits(c, mask, s), c->error, DIBIT_BAD_INPUT,
                "a mask of rank %d does not fit batch %lld, %lld queries and a total of %lld",
                (int)mask->rank, (long long)s->batch, (long long)s->queries, (long long)s->total);
    const int64_t rows = by_query(mask) ? s->queries : 1;
    for (int64_t b = 0; b < s->batch; b++) {
        for (int64_t r = 0; r < rows; r++) {
            float *const x = floats + (b * rows + r) * s->total;
            for (int64_t t = 0; t < s->total; t++) {
                x[t] = is_masked(mask, s, b, r, t) ? a->mask_filter_value : 0.0f;
            }
        }
    }
    *term = (dbt_attention_term){floats, {rows * s->total, 0, rows > 1 ? s->total : 0, 1}};
    return DIBIT_OK;
}

dibit_status dbt_mha_bias_term(const dbt_cpu_call *c, const dibit_tensor *bias,
                               const dbt_mha_shape *s, dbt_attention_term *term) {
    if (!bias) return DIBIT_OK;
    const dbt_mha_attrs *const a = c->attrs;
    const int64_t *const d = bias->dims;
    DBT_FAIL_IF((d[0] != 1 && d[0] != s->batch) || (d[1] != 1 && d[1] != a->num_heads) ||
                    d[2] != s->queries || d[3] != s->total,
                c->error, DIBIT_BAD_INPUT,
                "attention_bias [%lld, %lld, %lld, %lld] does not fit batch %lld, %lld heads, "
                "%lld queries and a total of %lld",
                (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3],
                (long long)s->batch, (long long)a->num_heads, (long long)s->queries,
                (long long)s->total);
    *term = (dbt_attention_term){
        bias->data, {d[0] == 1 ? 0 : d[1] * d[2] * d[3], d[1] == 1 ? 0 : d[2] * d[3], d[3], 1}};
    return DIBIT_OK;
}

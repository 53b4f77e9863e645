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

static bool fits(const dbt_node *node, const dibit_tensor *mask, const dbt_mha_shape *s) {
    const int64_t *const d = mask->dims;
    const bool attention = node->op->kind == DBT_MHA_ATTENTION;
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

dibit_status dbt_mha_check_mask(const dbt_node *node, const dibit_tensor *mask,
                                const dbt_mha_shape *s, dibit_error *error) {
    DBT_FAIL_IF(!fits(node, mask, s), error, DIBIT_BAD_INPUT,
                "a mask of rank %d does not fit batch %lld, %lld queries and a total of %lld",
                (int)mask->rank, (long long)s->batch, (long long)s->queries, (long long)s->total);
    return DIBIT_OK;
}

dibit_status dbt_mha_mask(const dbt_cpu_call *c, const dibit_tensor *mask, const dbt_mha_shape *s,
                          float *floats, dbt_attention_term *term) {
    if (!mask) return DIBIT_OK;
    const dbt_mha_attrs *const a = c->attrs;
    DBT_TRY(dbt_mha_check_mask(c->node, mask, s, c->error));
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
    term->data = bias->data;
    return dbt_mha_bias_strides(c->attrs, bias, s, term->stride, c->error);
}

dibit_status dbt_mha_bias_strides(const dbt_mha_attrs *a, const dibit_tensor *bias,
                                  const dbt_mha_shape *s, int64_t stride[4], dibit_error *error) {
    const int64_t *const d = bias->dims;
    DBT_FAIL_IF((d[0] != 1 && d[0] != s->batch) || (d[1] != 1 && d[1] != a->num_heads) ||
                    d[2] != s->queries || d[3] != s->total,
                error, DIBIT_BAD_INPUT,
                "attention_bias [%lld, %lld, %lld, %lld] does not fit batch %lld, %lld heads, "
                "%lld queries and a total of %lld",
                (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3],
                (long long)s->batch, (long long)a->num_heads, (long long)s->queries,
                (long long)s->total);
    stride[0] = d[0] == 1 ? 0 : d[1] * d[2] * d[3];
    stride[1] = d[1] == 1 ? 0 : d[2] * d[3];
    stride[2] = d[3];
    stride[3] = 1;
    return DIBIT_OK;
}

dibit_status dbt_mha_gpu_mask(const dbt_gpu_call *c, uint32_t i, const dbt_mha_shape *s,
                              dbt_gpu_term *term, int64_t *batch_stride) {
    const dbt_mha_attrs *const a = c->attrs;
    const dibit_tensor *const mask = c->in[i];
    const int64_t *const d = mask->dims;
    DBT_TRY(dbt_mha_check_mask(c->node, mask, s, c->error));
    if (s->total == 0 || s->batch == 0) return DIBIT_OK;
    dbt_gpu_mask m = {.buffer = c->in_buffers[i],
                      .batch = s->batch,
                      .rows = by_query(mask) ? s->queries : 1,
                      .total = s->total,
                      .lengths = mask->rank == 1,
                      .starts = mask->rank == 1 && d[0] == 2 * s->batch,
                      .batch_stride = s->total,
                      .filler = a->mask_filter_value};
    if (mask->rank == 3) m.row_stride = s->total;
    if (mask->rank == 3) m.batch_stride = s->queries * s->total;
    if (mask->rank == 4) {
        m.first_row = s->past;
        m.row_stride = d[3];
        m.batch_stride = d[2] * d[3];
    }
    *batch_stride = m.rows * s->total;
    term->query = m.rows > 1 ? (uint64_t)s->total : 0;
    term->column = 1;
    return dbt_gpu_mask_term(c->gpu, &m, &term->buffer, c->error);
}

dibit_status dbt_mha_gpu_bias(const dbt_gpu_call *c, uint32_t i, const dbt_mha_shape *s,
                              dbt_gpu_term *term, int64_t *batch_stride) {
    int64_t stride[4] = {0};
    DBT_TRY(dbt_mha_bias_strides(c->attrs, c->in[i], s, stride, c->error));
    *term = (dbt_gpu_term){.buffer = c->in_buffers[i],
                           .head = (uint64_t)stride[1],
                           .query = (uint64_t)stride[2],
                           .column = (uint64_t)stride[3]};
    *batch_stride = stride[0];
    return DIBIT_OK;
}

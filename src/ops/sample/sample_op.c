/* dibit.Sample: inference, and the plain form of it that the CPU runs. */
#include "ops/sample/sample.h"

#include <math.h>

#include "base/half.h"

static dibit_status infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0,
                           DBT_TYPE_BIT(DIBIT_TYPE_FLOAT) | DBT_TYPE_BIT(DIBIT_TYPE_FLOAT16)));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPE_BIT(DIBIT_TYPE_FLOAT)));
    DBT_TRY(dbt_infer_rank(infer, 0, 3, 3));
    DBT_TRY(dbt_infer_rank(infer, 1, 2, 2));
    const dbt_dim batch = infer->in[0]->shape.dims[0];
    DBT_TRY(dbt_infer_dim(infer, 1, 0, batch));
    DBT_TRY(dbt_infer_dim(infer, 1, 1, dbt_dim_const(infer->dims, DBT_SAMPLE_SETTINGS)));
    const dbt_shape shape = {2, {batch, dbt_dim_const(infer->dims, 1)}};
    dbt_infer_output(infer, 0, DIBIT_TYPE_INT64, &shape);
    return DIBIT_OK;
}

dibit_status dbt_sample_settings(const dibit_tensor *settings, int64_t b, dbt_sample_row *row,
                                 dibit_error *error) {
    const float *const s = (const float *)settings->data + b * DBT_SAMPLE_SETTINGS;
    const float temperature = s[0], top_k = s[1], top_p = s[2], min_p = s[3], random = s[4];
    const bool draws = temperature > 0;
    DBT_FAIL_IF(!(temperature >= 0) || (draws && !(top_k >= 1 && top_k <= DBT_SAMPLE_MAX_K)), error,
                DIBIT_BAD_ARGUMENT, "temperature %g with top_k %g is not supported",
                (double)temperature, (double)top_k);
    DBT_FAIL_IF(
        !(top_p >= 0 && top_p <= 1 && min_p >= 0 && min_p <= 1 && random >= 0 && random <= 1),
        error, DIBIT_BAD_ARGUMENT, "top_p %g, min_p %g or random %g is not in 0 to 1",
        (double)top_p, (double)min_p, (double)random);
    *row = (dbt_sample_row){.temperature = temperature,
                            .top_k = draws ? (uint32_t)top_k : 1,
                            .top_p = top_p > 0 ? top_p : 1,
                            .lowest = min_p > 0 ? logf(min_p) : -DBT_SAMPLE_NO_LIMIT,
                            .random = random};
    return DIBIT_OK;
}

typedef struct candidate {
    float logit;
    int64_t id;
} candidate;

/* The k largest of n logits, the largest first; the lower id first of equal ones. Returns how many there
 * are. */
static uint32_t find_best(const float *logits, int64_t n, bool half, uint32_t k, candidate *best) {
    uint32_t have = 0;
    for (int64_t id = 0; id < n; id++) {
        const float v = half ? dbt_half_to_float(dbt_float_to_half(logits[id])) : logits[id];
        if (!(v > -INFINITY) || (have == k && !(v > best[k - 1].logit))) continue;
        uint32_t at = have < k ? have++ : k - 1;
        for (; at > 0 && v > best[at - 1].logit; at--) best[at] = best[at - 1];
        best[at] = (candidate){v, id};
    }
    return have;
}

static int64_t draw(const candidate *best, uint32_t n, const dbt_sample_row *row) {
    if (n == 0) return -1;
    if (!(row->temperature > 0) || best[0].logit == INFINITY) return best[0].id;
    double weights[DBT_SAMPLE_MAX_K], total = 0, kept = 0;
    const float top = best[0].logit / row->temperature;
    for (uint32_t i = 0; i < n; i++) {
        weights[i] = exp((double)(best[i].logit / row->temperature - top));
        total += weights[i];
    }
    uint32_t count = 0;
    do kept += weights[count++];
    while (count < n && kept < (double)row->top_p * total);
    for (; count > 1 && best[count - 1].logit / row->temperature < top + row->lowest; count--)
        kept -= weights[count - 1];
    double left = (double)row->random * kept;
    uint32_t i = 0;
    while ((left -= weights[i]) >= 0 && i + 1 < count) i++;
    return best[i].id;
}

static dibit_status run(const dbt_cpu_call *call) {
    const dibit_tensor *const x = call->in[0];
    const int64_t rows = x->dims[1], v = x->dims[2];
    const bool half = call->node->inputs[0]->type == DIBIT_TYPE_FLOAT16;
    for (int64_t b = 0; b < x->dims[0]; b++) {
        dbt_sample_row row;
        DBT_TRY(dbt_sample_settings(call->in[1], b, &row, call->error));
        candidate best[DBT_SAMPLE_MAX_K];
        const float *const logits = (const float *)x->data + (b * rows + rows - 1) * v;
        const uint32_t n = rows ? find_best(logits, v, half, row.top_k, best) : 0;
        ((int64_t *)call->out[0]->data)[b] = draw(best, n, &row);
    }
    return DIBIT_OK;
}

const dbt_op dbt_sample_ops[] = {
    {.domain = "dibit",
     .name = "Sample",
     .since = 1,
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .host_inputs = 1 << 1,
     .infer = infer,
     .cpu_run = run,
     .cpu_bound = dbt_cpu_exact_bound,
     .gpu_encode = dbt_sample_encode},
    {0},
};

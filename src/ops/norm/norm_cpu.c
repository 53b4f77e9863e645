/* LayerNormalization, RMSNormalization, SimplifiedLayerNormalization and their Skip forms as jobs
 * for the row kernel. */
#include "ops/norm/norm.h"

#include <string.h>

/* Whether `gain` repeats along x's axes from `axis` on: its dims, leading ones aside, are x's last
 * ones, or it is one element. */
static dibit_status check_gain(const dbt_cpu_call *call, uint32_t i, int32_t axis) {
    const dibit_tensor *const x = call->in[0], *const gain = call->in[i];
    int32_t skip = 0;
    while (skip < gain->rank && gain->dims[skip] == 1) skip++;
    const int32_t rank = gain->rank - skip;
    const bool fits = rank <= x->rank - axis && memcmp(gain->dims + skip, x->dims + x->rank - rank,
                                                       (size_t)rank * sizeof *x->dims) == 0;
    DBT_FAIL_IF(!fits, call->error, DIBIT_BAD_INPUT,
                "the shape of input %u does not fit the normalized dims of input 0", (unsigned)i);
    return DIBIT_OK;
}

static const dibit_tensor *input(const dbt_cpu_call *call, uint32_t i) {
    return i < call->n_inputs ? call->in[i] : NULL;
}

static float *output(const dbt_cpu_call *call, uint32_t i) {
    return i < call->n_outputs && call->out[i] ? call->out[i]->data : NULL;
}

/* skip is like x, or lacks some of its leading dims, or has them as 1. */
static dibit_status set_skip(const dbt_cpu_call *call, dbt_norm_rows *job) {
    const dibit_tensor *const x = call->in[0], *const skip = call->in[1];
    int32_t lead = 0;
    bool fits = skip->rank >= 1 && skip->rank <= x->rank;
    while (fits && lead < skip->rank - 1 && skip->dims[lead] == 1) lead++;
    const int32_t rank = skip->rank - lead;
    fits = fits &&
           memcmp(skip->dims + lead, x->dims + x->rank - rank, (size_t)rank * sizeof *x->dims) == 0;
    DBT_FAIL_IF(!fits, call->error, DIBIT_BAD_INPUT, "skip's shape does not fit the input's");
    job->term[1].data = skip->data;
    job->term[1].rows = job->n > 0 ? dbt_tensor_count(skip) / job->n : 0;
    return DIBIT_OK;
}

static dibit_status make_job(const dbt_cpu_call *call, dbt_norm_rows *job) {
    const dbt_norm_attrs *const attrs = call->attrs;
    const uint16_t kind = call->node->op->kind;
    const bool skips = kind == DBT_NORM_SKIP_LAYER || kind == DBT_NORM_SKIP_RMS;
    const dibit_tensor *const x = call->in[0];
    const int64_t from = skips ? -1 : attrs->axis;
    const int32_t axis = (int32_t)(from < 0 ? from + x->rank : from);
    memset(job, 0, sizeof *job);
    job->n = 1;
    for (int32_t i = axis; i < x->rank; i++) job->n *= x->dims[i];
    job->rows = 1;
    for (int32_t i = 0; i < axis; i++) job->rows *= x->dims[i];
    job->term[0].data = x->data;
    job->term[0].rows = job->rows;
    job->epsilon = attrs->epsilon;
    job->centred = kind == DBT_NORM_LAYER || kind == DBT_NORM_SKIP_LAYER;
    job->y = output(call, 0);
    job->mean = job->centred || skips ? output(call, 1) : NULL;
    job->inv = output(call, job->centred || skips ? 2 : 1);

    const uint32_t first = skips ? 2 : 1; /* gain, then shift where there is one */
    DBT_TRY(check_gain(call, first, axis));
    job->gain = call->in[first]->data;
    job->gain_n = dbt_tensor_count(call->in[first]);
    const dibit_tensor *const shift = job->centred ? input(call, first + 1) : NULL;
    if (shift) {
        DBT_TRY(check_gain(call, first + 1, axis));
        job->shift = shift->data;
        job->shift_n = dbt_tensor_count(shift);
    }
    if (!skips) return DIBIT_OK;
    job->sum = output(call, 3);
    DBT_FAIL_IF(!job->y && !job->sum, call->error, DIBIT_BAD_FILE, "output 0 is missing");
    DBT_TRY(set_skip(call, job));
    const uint32_t at = job->centred ? 4 : 3;
    const dibit_tensor *const bias = input(call, at);
    if (bias) {
        DBT_FAIL_IF(dbt_tensor_count(bias) != job->n, call->error, DIBIT_BAD_INPUT,
                    "bias must have %lld elements", (long long)job->n);
        job->term[2].data = bias->data;
        job->term[2].rows = 1;
    }
    return DIBIT_OK;
}

dibit_status dbt_norm_cpu_run(const dbt_cpu_call *call) {
    dbt_norm_rows job;
    DBT_TRY(make_job(call, &job));
    dbt_norm_run_rows(&job, call->pool);
    return DIBIT_OK;
}

dibit_status dbt_norm_cpu_bound(const dbt_cpu_call *call, float *const *bound) {
    dbt_norm_rows job;
    DBT_TRY(make_job(call, &job));
    const uint32_t n = call->n_outputs;
    /* RMS norms without skip have no mean: their output 1 is inv. */
    const uint32_t inv = call->node->op->kind == DBT_NORM_RMS ? 1 : 2;
    float *const which[4] = {bound[0], inv == 2 && n > 1 ? bound[1] : NULL,
                             n > inv ? bound[inv] : NULL, n > 3 ? bound[3] : NULL};
    dbt_norm_bound_rows(&job, which);
    return DIBIT_OK;
}

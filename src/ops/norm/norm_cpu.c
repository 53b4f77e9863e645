/* LayerNormalization, RMSNormalization, SimplifiedLayerNormalization and their Skip forms as jobs
 * for the row kernel. */
#include "ops/norm/norm.h"

#include <string.h>

/* Whether `gain` repeats along x's axes from `axis` on: its dims, leading ones aside, are x's last
 * ones, or it is one element. */
static dibit_status check_gain(const dibit_tensor *const *in, uint32_t i, int32_t axis,
                               dibit_error *error) {
    const dibit_tensor *const x = in[0], *const gain = in[i];
    int32_t skip = 0;
    while (skip < gain->rank && gain->dims[skip] == 1) skip++;
    const int32_t rank = gain->rank - skip;
    const bool fits = rank <= x->rank - axis && memcmp(gain->dims + skip, x->dims + x->rank - rank,
                                                       (size_t)rank * sizeof *x->dims) == 0;
    DBT_FAIL_IF(!fits, error, DIBIT_BAD_INPUT,
                "the shape of input %u does not fit the normalized dims of input 0", (unsigned)i);
    return DIBIT_OK;
}

static float *output(const dbt_cpu_call *call, uint32_t i) {
    return i < call->n_outputs && call->out[i] ? call->out[i]->data : NULL;
}

/* skip is like x, or lacks some of its leading dims, or has them as 1. */
static dibit_status check_skip(const dibit_tensor *x, const dibit_tensor *skip,
                               dibit_error *error) {
    int32_t lead = 0;
    bool fits = skip->rank >= 1 && skip->rank <= x->rank;
    while (fits && lead < skip->rank - 1 && skip->dims[lead] == 1) lead++;
    const int32_t rank = skip->rank - lead;
    fits = fits &&
           memcmp(skip->dims + lead, x->dims + x->rank - rank, (size_t)rank * sizeof *x->dims) == 0;
    DBT_FAIL_IF(!fits, error, DIBIT_BAD_INPUT, "skip's shape does not fit the input's");
    return DIBIT_OK;
}

dibit_status dbt_norm_layout_of(const dbt_node *node, const dibit_tensor *const *in,
                                dibit_error *error, dbt_norm_layout *out) {
    const dbt_norm_attrs *const attrs = node->attrs;
    const uint16_t kind = node->op->kind;
    const dibit_tensor *const x = in[0];
    dbt_norm_layout l = {.rows = 1,
                         .n = 1,
                         .centred = kind == DBT_NORM_LAYER || kind == DBT_NORM_SKIP_LAYER,
                         .skips = kind == DBT_NORM_SKIP_LAYER || kind == DBT_NORM_SKIP_RMS};
    const int64_t from = l.skips ? -1 : attrs->axis;
    const int32_t axis = (int32_t)(from < 0 ? from + x->rank : from);
    for (int32_t i = 0; i < x->rank; i++) *(i < axis ? &l.rows : &l.n) *= x->dims[i];
    l.gain = l.skips ? 2 : 1;
    DBT_TRY(check_gain(in, l.gain, axis, error));
    const uint32_t shift = l.gain + 1, bias = l.centred ? 4 : 3;
    if (l.centred && shift < node->n_inputs && in[shift]) {
        DBT_TRY(check_gain(in, shift, axis, error));
        l.shift = shift;
    }
    if (l.skips) DBT_TRY(check_skip(x, in[1], error));
    if (l.skips && bias < node->n_inputs && in[bias]) {
        DBT_FAIL_IF(dbt_tensor_count(in[bias]) != l.n, error, DIBIT_BAD_INPUT,
                    "bias must have %lld elements", (long long)l.n);
        l.bias = bias;
    }
    *out = l;
    return DIBIT_OK;
}

static dibit_status make_job(const dbt_cpu_call *call, dbt_norm_rows *job) {
    const dbt_norm_attrs *const attrs = call->attrs;
    const dibit_tensor *const *const in = call->in;
    dbt_norm_layout l;
    DBT_TRY(dbt_norm_layout_of(call->node, in, call->error, &l));
    memset(job, 0, sizeof *job);
    job->isa = call->options->isa;
    job->n = l.n;
    job->rows = l.rows;
    job->term[0].data = in[0]->data;
    job->term[0].rows = job->rows;
    job->epsilon = attrs->epsilon;
    job->centred = l.centred;
    job->y = output(call, 0);
    job->mean = l.centred || l.skips ? output(call, 1) : NULL;
    job->inv = output(call, l.centred || l.skips ? 2 : 1);
    job->gain = in[l.gain]->data;
    job->gain_n = dbt_tensor_count(in[l.gain]);
    if (l.shift) {
        job->shift = in[l.shift]->data;
        job->shift_n = dbt_tensor_count(in[l.shift]);
    }
    if (!l.skips) return DIBIT_OK;
    job->sum = output(call, 3);
    DBT_FAIL_IF(!job->y && !job->sum, call->error, DIBIT_BAD_FILE, "output 0 is missing");
    job->term[1].data = in[1]->data;
    job->term[1].rows = l.n > 0 ? dbt_tensor_count(in[1]) / l.n : 0;
    if (l.bias) job->term[2] = (dbt_norm_term){.data = in[l.bias]->data, .rows = 1};
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

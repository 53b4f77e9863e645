/* How far apart correct engines may be: an op's own bounds, or what op.h says where it has none. */
#include <math.h>

#include "ops/op.h"

static bool is_bounded(const dbt_cpu_call *call, uint32_t o) {
    return call->out[o] && call->out[o]->type == DIBIT_TYPE_FLOAT && call->out[o]->data;
}

dibit_status dbt_op_cpu_bounds(const dbt_cpu_call *call, float *const *bounds) {
    for (uint32_t o = 0; o < call->n_outputs; o++) {
        if (!bounds[o] || !is_bounded(call, o)) continue;
        const float *const y = call->out[o]->data;
        const int64_t n = dbt_tensor_count(call->out[o]);
        for (int64_t i = 0; i < n; i++) bounds[o][i] = 4 * 0x1p-24f * fabsf(y[i]);
    }
    return call->node->op->cpu_bound ? call->node->op->cpu_bound(call, bounds) : DIBIT_OK;
}

dibit_status dbt_op_device_bounds(const dbt_cpu_call *call, float *const *cpu,
                                  float *const *allowed) {
    const dbt_op *const op = call->node->op;
    const bool exact = op->cpu_bound == dbt_cpu_exact_bound;
    for (uint32_t o = 0; o < call->n_outputs; o++) {
        if (!allowed[o] || !is_bounded(call, o)) continue;
        const float *const y = call->out[o]->data;
        const int64_t n = dbt_tensor_count(call->out[o]);
        for (int64_t i = 0; i < n; i++) {
            allowed[o][i] = exact ? 0.0f : 2 * cpu[o][i] + 0x1p-22f * fabsf(y[i]);
        }
    }
    if (op->gpu_bound) DBT_TRY(op->gpu_bound(call, allowed));
    for (uint32_t o = 0; o < call->n_outputs; o++) {
        if (!allowed[o] || !is_bounded(call, o)) continue;
        const int64_t n = dbt_tensor_count(call->out[o]);
        for (int64_t i = 0; i < n; i++) allowed[o][i] += cpu[o][i] + 0x1p-126f;
    }
    return DIBIT_OK;
}

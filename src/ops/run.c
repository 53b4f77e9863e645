/* Helpers that cpu_run functions share. */
#include <string.h>

#include "ops/op.h"

uint64_t dbt_cpu_bytes(const dibit_tensor *t) {
    return (uint64_t)dbt_tensor_count(t) * (dibit_type_bits(t->type) / 8);
}

dibit_status dbt_cpu_view(const dbt_cpu_call *call) {
    const dibit_tensor *const x = call->in[0], *const y = call->out[0];
    const uint64_t bytes = dbt_cpu_bytes(x);
    if (y && y->data != x->data && bytes > 0) memcpy(y->data, x->data, (size_t)bytes);
    return DIBIT_OK;
}

dibit_status dbt_cpu_exact_bound(const dbt_cpu_call *call, float *const *bound) {
    for (uint32_t o = 0; o < call->n_outputs; o++) {
        if (!bound[o]) continue;
        const int64_t n = dbt_tensor_count(call->out[o]);
        for (int64_t i = 0; i < n; i++) bound[o][i] = 0.0f;
    }
    return DIBIT_OK;
}

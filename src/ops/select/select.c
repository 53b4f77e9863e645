/* dibit.Select(condition, a, b): a where the bool scalar is true, else b. Made from an If whose
 * condition is known only when the model runs; the branch that was not taken has not run. */
#include <string.h>

#include "ops/op.h"

static dibit_status infer(dbt_infer *infer) {
    const dbt_value *const condition = infer->in[0], *const a = infer->in[1],
                           *const b = infer->in[2];
    DBT_FAIL_IF(a->type != b->type, infer->error, DIBIT_BAD_FILE,
                "the branches of If give %s and %s", dibit_type_name(a->type),
                dibit_type_name(b->type));
    DBT_FAIL_IF(a->shape.rank < 0 || a->shape.rank != b->shape.rank, infer->error,
                DIBIT_UNSUPPORTED, "the branches of If give tensors of different or unknown rank");
    dbt_shape shape = {.rank = a->shape.rank};
    for (int32_t i = 0; i < shape.rank; i++) {
        const dbt_dim da = a->shape.dims[i], db = b->shape.dims[i];
        shape.dims[i] = da == db ? da
                        : condition->contents
                            ? dbt_dim_select(infer->dims, condition->contents[0], da, db)
                            : dbt_infer_fresh(infer);
    }
    dbt_infer_output(infer, 0, a->type, &shape);
    return DIBIT_OK;
}

static dibit_status run(const dbt_cpu_call *call) {
    const bool condition = *(const uint8_t *)call->in[0]->data != 0;
    const dibit_tensor *const chosen = call->in[condition ? 1 : 2];
    const dibit_tensor *const out = call->out[0];
    const size_t bytes = (size_t)dbt_tensor_count(out) * (dibit_type_bits(out->type) / 8);
    if (bytes > 0 && out->data != chosen->data) memcpy(out->data, chosen->data, bytes);
    return DIBIT_OK;
}

static dibit_status encode(const dbt_gpu_call *call) {
    const uint32_t chosen = *(const uint8_t *)call->in[0]->data != 0 ? 1 : 2;
    return dbt_gpu_copy_tensor(call, call->out[0], call->in_buffers[chosen], call->out_buffers[0]);
}

const dbt_op dbt_select_ops[] = {
    {.domain = "dibit",
     .name = "Select",
     .since = 1,
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .host_inputs = 1,
     .infer = infer,
     .cpu_run = run,
     .gpu_encode = encode},
    {0},
};

/* dibit.LastRows(x [..., S, H]) -> [..., R, H]: the last R rows. The planner puts it in front of the
 * final norm and head, so that a session that wants the logits of the last token computes no others.
 * R is the symbol "last_rows", which a run sets; by default it is S. */
#include <string.h>

#include "ops/op.h"

static dibit_status infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_rank(infer, 0, 2, DIBIT_MAX_RANK));
    dbt_shape shape = infer->in[0]->shape;
    shape.dims[shape.rank - 2] = dbt_dim_own(infer->dims, "last_rows");
    dbt_infer_output(infer, 0, infer->in[0]->type, &shape);
    return DIBIT_OK;
}

static dibit_status run(const dbt_cpu_call *call) {
    const dibit_tensor *const x = call->in[0], *const y = call->out[0];
    const int64_t s = x->dims[x->rank - 2], r = y->dims[y->rank - 2], h = x->dims[x->rank - 1];
    DBT_FAIL_IF(r > s, call->error, DIBIT_BAD_ARGUMENT,
                "last_rows is %lld, but there are %lld rows", (long long)r, (long long)s);
    const size_t row = (size_t)h * (dibit_type_bits(x->type) / 8);
    const int64_t n = r > 0 ? dbt_tensor_count(y) / (r * (h > 0 ? h : 1)) : 0;
    for (int64_t i = 0; i < n; i++) {
        memcpy((char *)y->data + (size_t)(i * r) * row,
               (const char *)x->data + (size_t)(i * s + s - r) * row, (size_t)r * row);
    }
    return DIBIT_OK;
}

static dibit_status encode(const dbt_gpu_call *call) {
    const dibit_tensor *const x = call->in[0], *const y = call->out[0];
    const int64_t s = x->dims[x->rank - 2], r = y->dims[y->rank - 2], h = x->dims[x->rank - 1];
    DBT_FAIL_IF(r > s, call->error, DIBIT_BAD_ARGUMENT,
                "last_rows is %lld, but there are %lld rows", (long long)r, (long long)s);
    const uint64_t row = (uint64_t)h * 4; /* a word an element */
    for (int64_t i = 0, n = dbt_tensor_count(y); i * r * h < n; i++) {
        DBT_TRY(dbt_gpu_copy(call->gpu, call->in_buffers[0], (uint64_t)(i * s + s - r) * row,
                             call->out_buffers[0], (uint64_t)(i * r) * row, (uint64_t)r * row,
                             call->error));
    }
    return DIBIT_OK;
}

const dbt_op dbt_last_rows_ops[] = {
    {.domain = "dibit",
     .name = "LastRows",
     .since = 1,
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .infer = infer,
     .cpu_run = run,
     .gpu_encode = encode},
    {0},
};

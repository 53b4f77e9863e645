/* Trilu, which a device does too, and EyeLike: matrices by their diagonals. */
#include "ops/index/index.h"

dibit_status dbt_trilu_infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPE_BIT(DIBIT_TYPE_INT64)));
    DBT_TRY(dbt_infer_rank(infer, 0, 2, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(infer, 1, 0, 1));
    return dbt_infer_like_first(infer);
}

/* Which diagonal the triangle begins with; beyond the corners it makes no difference. */
static dibit_status read_diagonal(const dbt_cpu_call *call, int64_t *k) {
    const dibit_tensor *const x = call->in[0];
    int64_t n_k;
    *k = 0;
    DBT_TRY(dbt_read_list(call, 1, 1, k, &n_k));
    DBT_TRY(dbt_expect_dims(call, 0, x->rank, x->dims));
    const int64_t n = x->dims[x->rank - 2], m = x->dims[x->rank - 1];
    *k = *k > m ? m : *k < -n ? -n : *k;
    return DIBIT_OK;
}

dibit_status dbt_trilu_run(const dbt_cpu_call *call) {
    const dbt_triangle_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0];
    dibit_tensor *const y = call->out[0];
    int64_t k;
    DBT_TRY(read_diagonal(call, &k));
    DBT_TRY(dbt_cpu_view(call));
    const int64_t n = x->dims[x->rank - 2], m = x->dims[x->rank - 1];
    const int64_t n_rows = dbt_dims_product(x->dims, 0, x->rank - 1);
    if (m == 0) return DIBIT_OK;
    for (int64_t row = 0; row < n_rows; row++) {
        /* Upper keeps columns from the diagonal on, lower up to it. */
        int64_t diagonal = row % n + k + (a->upper ? 0 : 1);
        diagonal = diagonal < 0 ? 0 : diagonal > m ? m : diagonal;
        const int64_t from = a->upper ? 0 : diagonal, to = a->upper ? diagonal : m;
        memset(dbt_element(y, row * m + from), 0, (size_t)(to - from) * dbt_element_bytes(y));
    }
    return DIBIT_OK;
}

/* struct Uniforms of trilu.wgsl */
typedef struct trilu_uniforms {
    uint32_t count, rows, columns;
    int32_t diagonal;
} trilu_uniforms;

dibit_status dbt_trilu_encode(const dbt_gpu_call *call) {
    const dbt_triangle_attrs *const a = call->attrs;
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    const dibit_tensor *const x = call->in[0];
    int64_t k;
    DBT_TRY(read_diagonal(&shapes, &k));
    const int64_t count = dbt_tensor_count(x);
    const trilu_uniforms uniforms = {.count = (uint32_t)count,
                                     .rows = (uint32_t)x->dims[x->rank - 2],
                                     .columns = (uint32_t)x->dims[x->rank - 1],
                                     .diagonal = (int32_t)(a->upper ? k : k + 1)};
    const dbt_shader_param params[1] = {{"UPPER", a->upper != 0}};
    const dbt_hal_binding bindings[2] = {{.buffer = call->in_buffers[0]},
                                         {.buffer = call->out_buffers[0]}};
    dbt_gpu_dispatch dispatch = {.shader = "trilu.wgsl",
                                 .params = params,
                                 .n_params = 1,
                                 .bindings = bindings,
                                 .n_bindings = 2,
                                 .written = 1 << 1,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, count);
}

dibit_status dbt_eye_like_infer(dbt_infer *infer) {
    const dbt_triangle_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_rank(infer, 0, 2, 2));
    const dibit_type type = a->dtype == DBT_ATTR_ABSENT     ? infer->in[0]->type
                            : a->dtype < 0 || a->dtype > 31 ? DIBIT_TYPE_UNDEFINED
                                                            : (dibit_type)a->dtype;
    DBT_FAIL_IF(!dbt_type_in(type, DBT_TYPES_NUMBER | DBT_TYPES_BOOL), infer->error,
                DIBIT_UNSUPPORTED, "an output of type %s", dibit_type_name(type));
    dbt_infer_output(infer, 0, type, &infer->in[0]->shape);
    return DIBIT_OK;
}

dibit_status dbt_eye_like_run(const dbt_cpu_call *call) {
    const dbt_triangle_attrs *const a = call->attrs;
    dibit_tensor *const y = call->out[0];
    DBT_TRY(dbt_expect_dims(call, 0, call->in[0]->rank, call->in[0]->dims));
    const float one = 1.0f;
    const int64_t n = y->dims[0], m = y->dims[1], count = n * m;
    if (count == 0) return DIBIT_OK;
    memset(y->data, 0, (size_t)count * dbt_element_bytes(y));
    const int64_t k = a->k > m ? m : a->k < -n ? -n : a->k;
    for (int64_t i = 0; i < n; i++) {
        if (i + k < 0 || i + k >= m) continue;
        char *const at = dbt_element(y, i * m + i + k);
        if (y->type == DIBIT_TYPE_FLOAT) {
            memcpy(at, &one, sizeof one);
        } else {
            *at = 1; /* little-endian: the lowest byte */
        }
    }
    return DIBIT_OK;
}

/* Matrix products on a device: which shader, and of which tiles. */
#include "ops/matmul/matmul.h"

enum { FEW_ROWS = 4, MANY_TILES = 128 };

/* struct Problem of gemm.inc.wgsl */
typedef struct gemm_uniforms {
    uint32_t M, N, K, n_batches, a_m, a_k, b_k, b_n, c_m, c_n;
    float alpha, beta;
    uint32_t batch_rank, unused[3];
    uint32_t batch_dims[GEMM_MAX_BATCH_RANK];
    uint32_t a_batch[GEMM_MAX_BATCH_RANK], b_batch[GEMM_MAX_BATCH_RANK];
} gemm_uniforms;

static gemm_uniforms uniforms_of(const dbt_gemm *g) {
    gemm_uniforms u = {.M = (uint32_t)g->M,
                       .N = (uint32_t)g->N,
                       .K = (uint32_t)g->K,
                       .n_batches = (uint32_t)g->n_batches,
                       .a_m = (uint32_t)g->a_m,
                       .a_k = (uint32_t)g->a_k,
                       .b_k = (uint32_t)g->b_k,
                       .b_n = (uint32_t)g->b_n,
                       .c_m = (uint32_t)g->c_m,
                       .c_n = (uint32_t)g->c_n,
                       .alpha = g->alpha,
                       .beta = g->beta,
                       .batch_rank = (uint32_t)g->batch_rank};
    for (int32_t d = 0; d < g->batch_rank; d++) {
        const int32_t i = g->batch_rank - 1 - d;
        u.batch_dims[d] = (uint32_t)g->batch_dims[i];
        u.a_batch[d] = (uint32_t)g->a_batch[i];
        u.b_batch[d] = (uint32_t)g->b_batch[i];
    }
    return u;
}

const char *dbt_matmul_refuses(const dbt_node *node, const dbt_hal *hal) {
    (void)hal;
    const dbt_value *const b = node->inputs[1];
    if (dbt_type_is_float(b->type)) return b->constant ? dbt_gpu_refuses_raw(b->type) : NULL;
    const char *const why = dbt_gpu_refuses_type(b->type);
    return why ? why : "a matrix product of integers";
}

static int64_t tiles(const dbt_gemm *g, int64_t m, int64_t n) {
    return g->n_batches * ((g->M + m - 1) / m) * ((g->N + n - 1) / n);
}

dibit_status dbt_gemm_record(const dbt_gpu_call *call, const dbt_gemm *g, dbt_hal_buffer *a,
                             dbt_hal_buffer *b, dbt_hal_buffer *c, dbt_hal_buffer *y) {
    const gemm_uniforms uniforms = uniforms_of(g);
    const bool has_c = g->beta != 0.0f, few = g->M <= FEW_ROWS;
    DBT_TRY(dbt_gpu_bindable(call, &a));
    DBT_TRY(dbt_gpu_bindable(call, &b));
    const dbt_hal_binding bindings[4] = {
        {.buffer = a}, {.buffer = b}, {.buffer = has_c ? c : NULL}, {.buffer = y}};
    const int32_t b_lines = g->b_k == 1 && g->b_n != 1;
    int32_t tile_m = few ? (g->M > 2 ? 4 : (int32_t)g->M) : g->M <= 16 ? 16 : 64;
    int32_t tile_n = !few ? 64 : b_lines ? 8 : 32;
    if (g->M >= 128 && g->N >= 128 && tiles(g, 128, 128) >= MANY_TILES) tile_m = tile_n = 128;
    const dbt_shader_param few_params[4] = {
        {"RAW", dbt_gpu_raw(g->b_type)}, {"C", has_c}, {"B_LINES", b_lines}, {"ROWS", tile_m}};
    const dbt_shader_param tile_params[6] = {
        {"RAW", dbt_gpu_raw(g->b_type)},         {"C", has_c},       {"B_LINES", b_lines},
        {"A_LINES", g->a_m == 1 && g->a_k != 1}, {"TILE_M", tile_m}, {"TILE_N", tile_n}};
    dbt_gpu_dispatch dispatch = {.shader = few ? "gemm_few.wgsl" : "gemm_tile.wgsl",
                                 .params = few ? few_params : tile_params,
                                 .n_params = few ? 4 : 6,
                                 .bindings = bindings,
                                 .n_bindings = 4,
                                 .written = 1 << 3,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    DBT_TRY(dbt_gpu_grid(call->gpu, (uint64_t)tiles(g, tile_m, tile_n), dispatch.workgroups,
                         call->error));
    return dbt_gpu_record(call->gpu, &dispatch, call->error);
}

dibit_status dbt_matmul_encode(const dbt_gpu_call *call) {
    const dbt_cpu_call shapes = dbt_gpu_shapes(call);
    dbt_gemm g;
    DBT_TRY(dbt_matmul_problem(&shapes, &g));
    if (dbt_tensor_count(call->out[0]) == 0) return DIBIT_OK;
    return dbt_gemm_record(call, &g, call->in_buffers[0], call->in_buffers[1],
                           g.beta != 0.0f ? call->in_buffers[2] : NULL, call->out_buffers[0]);
}

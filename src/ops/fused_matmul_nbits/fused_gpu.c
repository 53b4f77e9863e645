/* FusedMatMulNBits on a device: MatMulNBits's dispatches, in which matvecs find the norm themselves and every
 * kernel ends with the residual or the gate. Others read normed rows from scratch. */
#include "ops/fused_matmul_nbits/fused_matmul_nbits.h"
#include "ops/matmul_nbits/nbits_gpu.h"
#include "ops/norm/norm.h"

enum { NORMED = 2 }; /* scratch; MatMulNBits's own is 0, 1 and 3 */

static dbt_hal_buffer *buffer(const dbt_gpu_call *call, uint32_t i) {
    return i < call->n_inputs && call->in[i] ? call->in_buffers[i] : NULL;
}

static bool has(const dbt_node *node, uint32_t i) { return dbt_nbits_input(node, i) != NULL; }

const char *dbt_fused_gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    if (has(node, DBT_FUSED_SECOND)) return "its second matrix is not behind its first";
    return dbt_nbits_gpu_refuses(node, hal);
}

static dbt_nbits_gpu_fusion fusion_of(const dbt_node *node) {
    const dbt_fused_nbits_attrs *const at = node->attrs;
    dbt_nbits_gpu_fusion fusion = {.norm = has(node, DBT_FUSED_GAIN)};
    if (at->gate != DBT_FUSED_GATE_NONE) {
        fusion.second_row = dbt_fused_second_row(at->nbits.N);
        fusion.epilogue = at->gate == DBT_FUSED_GATE_SILU ? DBT_NBITS_EPILOGUE_SILU
                                                          : DBT_NBITS_EPILOGUE_GELU_TANH;
    } else if (has(node, DBT_FUSED_RESIDUAL)) {
        fusion.epilogue = DBT_NBITS_EPILOGUE_ADD;
    }
    return fusion;
}

dibit_status dbt_fused_gpu_prepare(dbt_gpu_prepare *prepare) {
    const dbt_nbits_gpu_fusion fusion = fusion_of(prepare->node);
    return dbt_nbits_gpu_prepare_fused(prepare, &fusion);
}

static dibit_status take_norm(const dbt_gpu_call *call, const dbt_nbits_gpu_kernel *kernel,
                              dbt_nbits_gpu_problem *problem) {
    const dbt_fused_nbits_attrs *const at = call->attrs;
    dbt_hal_buffer *const gain = buffer(call, DBT_FUSED_GAIN);
    if (!gain) return DIBIT_OK;
    if (dbt_nbits_gpu_takes_norm(kernel)) {
        problem->gain = gain;
        problem->epsilon = at->epsilon;
        return DIBIT_OK;
    }
    dbt_norm_gpu_rms rms = {.rows = problem->p.M,
                            .n = problem->p.K,
                            .epsilon = at->epsilon,
                            .x = problem->a,
                            .gain = gain};
    DBT_TRY(dbt_gpu_scratch(call->gpu, NORMED, (uint64_t)rms.rows * (uint64_t)rms.n * 4, &rms.y,
                            call->error));
    problem->a = rms.y;
    return dbt_norm_gpu_record_rms(call, &rms);
}

dibit_status dbt_fused_gpu_encode(const dbt_gpu_call *call) {
    dbt_nbits_gpu_problem problem = dbt_nbits_gpu_node_problem(call);
    DBT_TRY(dbt_fused_check_residual(call->in, call->n_inputs, call->out[0], call->error));
    if (problem.p.M == 0) return DIBIT_OK;
    const dbt_nbits_gpu_kernel *const kernel = dbt_nbits_gpu_node_kernel(call, &problem);
    DBT_TRY(take_norm(call, kernel, &problem));
    const dbt_nbits_gpu_fusion fusion = fusion_of(call->node);
    problem.epilogue = fusion.epilogue;
    problem.second_row = fusion.second_row;
    problem.other = buffer(call, DBT_FUSED_RESIDUAL);
    return dbt_nbits_gpu_record(call->gpu, kernel, &problem, call->error);
}

/* The device side of the MatMulNBits op: which nodes it takes, which kernels it will use and whether they are
 * right on this device, and the way from a node's buffers to nbits_gpu.c. */
#include <inttypes.h>
#include <string.h>

#include "ops/matmul_nbits/nbits_gpu.h"
#include "ops/matmul_nbits/nbits_op.h"

/* Kept for the plan's life. */
typedef struct nbits_gpu_plan {
    dbt_nbits_gpu_problem problem; /* without M, A and Y, and without what is fused into it */
    dbt_nbits_gpu_fusion fusion;
    dbt_hal_buffer *g_idx; /* the plan's own */
    uint64_t allowed;      /* kernels that were not dropped */
    uint64_t proved;
    dbt_nbits_gpu_proof proof;
    const char *why;
    dbt_nbits_gpu_trace *trace;
} nbits_gpu_plan;

/* ---- What it takes ---- */

static bool computed(const dbt_node *node, uint32_t i) {
    const dbt_value *const value = dbt_nbits_input(node, i);
    return value && !value->constant;
}

const char *dbt_nbits_gpu_refuses(const dbt_node *node, const dbt_hal *hal) {
    for (uint32_t i = DBT_NBITS_B; i <= DBT_NBITS_ZERO_POINTS; i++) {
        if (computed(node, i)) return "weights that are computed at run time";
    }
    if (computed(node, DBT_NBITS_G_IDX)) return "g_idx that is computed at run time";
    const char *why = "";
    dbt_nbits_gpu_problem problem = {
        .p = dbt_nbits_node_problem(node, DIBIT_ACTIVATIONS_FLOAT, &why)};
    const dbt_matmul_nbits *const p = &problem.p;
    const uint64_t row_bytes = (uint64_t)dbt_nbits_row_bytes(p);
    const dbt_constant *const b = node->inputs[DBT_NBITS_B]->constant; /* perhaps of two products */
    if ((uint64_t)p->N > hal->limits.max_buffer_bytes / row_bytes ||
        b->bytes.bytes > hal->limits.max_buffer_bytes)
        return "weights larger than a buffer of this device";
    if (row_bytes * hal->limits.binding_alignment > hal->limits.max_binding_bytes)
        return "rows of weights too long for a binding of this device";
    problem.p.M = 1;
    if (dbt_nbits_gpu_choose(&problem, hal, UINT64_MAX)) return NULL;
    for (uint32_t i = dbt_nbits_gpu_kernel_count; i-- > 0;) { /* what the plainest one lacks */
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[i];
        if (!kernel->int8 && !kernel->tile) return dbt_nbits_gpu_lacks(kernel, &problem, hal);
    }
    return NULL;
}

/* ---- Kernels ---- */

/* Where the best kernel may change. */
static const int64_t some_m[] = {1,  2,  3,  4,   5,   6,   7,   8,   9,   16,   32,   64,
                                 65, 96, 97, 128, 129, 192, 256, 512, 768, 1024, 2048, 4096};
enum { N_SOME_M = sizeof some_m / sizeof some_m[0] };

static uint64_t bit_of(const dbt_nbits_gpu_kernel *kernel) {
    return (uint64_t)1 << (kernel - dbt_nbits_gpu_kernels);
}

static const dbt_nbits_gpu_kernel *choose(const nbits_gpu_plan *plan, const dbt_hal *hal, int64_t M,
                                          uint64_t mask) {
    dbt_nbits_gpu_problem problem = plan->problem;
    problem.p.M = M;
    return dbt_nbits_gpu_choose(&problem, hal, mask);
}

/* What will be recorded: the two products of a gate apart as well where they may come so. */
static uint32_t products_of(const nbits_gpu_plan *plan, const dbt_hal *hal,
                            dbt_nbits_gpu_problem out[3]) {
    const dbt_nbits_gpu_fusion *const fusion = &plan->fusion;
    const bool epilogue = fusion->epilogue != DBT_NBITS_EPILOGUE_NONE;
    dbt_hal_buffer *const some = plan->problem.b;
    dbt_nbits_gpu_problem all = plan->problem;
    if (fusion->norm) all.gain = some;
    out[1] = all;
    all.epilogue = fusion->epilogue;
    if (epilogue) all.other = some;
    out[0] = out[2] = all;
    if (!fusion->second_row) return 1;
    out[0].second_row = fusion->second_row;
    out[0].other = NULL;
    return dbt_nbits_gpu_binds_both(&out[0], hal) ? 1 : 3;
}

/* Whether some of these kernels, which are wrong with what is fused into them, are right without. */
static dibit_status blame_fusion(nbits_gpu_plan *plan, dbt_gpu *gpu, uint64_t wrong,
                                 dibit_error *error) {
    uint64_t right = 0;
    DBT_TRY(dbt_nbits_gpu_prove(gpu, &plan->problem, 1, wrong, &plan->proof, &right, error));
    if (right) dbt_gpu_drop_fusion(gpu);
    DBT_FAIL_IF(right, error, DIBIT_UNSUPPORTED,
                "kernels with what is fused into them give wrong answers on %s",
                dbt_gpu_hal(gpu)->name);
    return DIBIT_OK;
}

/* Proves what would be chosen; where that is wrong, what is behind it, and so on. */
static dibit_status prove(nbits_gpu_plan *plan, dbt_gpu *gpu, dibit_error *error) {
    const dbt_hal *const hal = dbt_gpu_hal(gpu);
    dbt_nbits_gpu_problem products[3];
    const uint32_t n_products = products_of(plan, hal, products);
    const bool fused = plan->fusion.norm || plan->fusion.epilogue != DBT_NBITS_EPILOGUE_NONE;
    for (;;) {
        uint64_t wanted = 0;
        for (int i = 0; i < N_SOME_M; i++) {
            const dbt_nbits_gpu_kernel *const kernel = choose(plan, hal, some_m[i], plan->allowed);
            DBT_FAIL_IF(!kernel, error, DIBIT_UNSUPPORTED,
                        "every kernel for these weights gives wrong answers on %s", hal->name);
            wanted |= bit_of(kernel);
        }
        uint64_t proved = 0;
        DBT_TRY(
            dbt_nbits_gpu_prove(gpu, products, n_products, wanted, &plan->proof, &proved, error));
        plan->proved |= proved;
        if (proved == wanted) return DIBIT_OK;
        if (fused) DBT_TRY(blame_fusion(plan, gpu, wanted & ~proved, error));
        plan->allowed &= ~(wanted & ~proved);
    }
}

/* "from M 1 NAME, from M 9 NAME"; and why, with what was dropped. */
static dibit_status describe(const nbits_gpu_plan *plan, dbt_gpu_prepare *prepare) {
    const dbt_hal *const hal = dbt_gpu_hal(prepare->gpu);
    const char *text = "", *why = plan->why;
    const dbt_nbits_gpu_kernel *last = NULL;
    for (int i = 0; text && i < N_SOME_M; i++) {
        const dbt_nbits_gpu_kernel *const kernel = choose(plan, hal, some_m[i], plan->proved);
        if (kernel == last) continue;
        text = dbt_arena_format(prepare->arena, "%s%sfrom M %d %s", text, last ? ", " : "",
                                (int)some_m[i], kernel->name);
        last = kernel;
    }
    for (uint32_t i = 0; why && i < dbt_nbits_gpu_kernel_count; i++) {
        if (plan->allowed >> i & 1) continue;
        why = dbt_arena_format(prepare->arena, "%s; %s is wrong on this device and is not used",
                               why, dbt_nbits_gpu_kernels[i].name);
    }
    if (why && dbt_gpu_fusion_is_dropped(prepare->gpu)) {
        why = dbt_arena_format(prepare->arena,
                               "%s; with what was fused into it, it is wrong on this device", why);
    }
    if (!text || !why) return dbt_fail_memory(prepare->error, "a kernel's name", 100);
    prepare->kernel = text;
    prepare->why = why;
    return DIBIT_OK;
}

/* ---- The op's functions ---- */

static dbt_hal_buffer *buffer(dbt_hal_buffer *const *buffers, const dbt_node *node, uint32_t i) {
    return dbt_nbits_input(node, i) ? buffers[i] : NULL;
}

/* g_idx is read on the host, to be checked, and then copied. */
static dibit_status take_g_idx(nbits_gpu_plan *plan, const dbt_gpu_prepare *prepare) {
    if (!dbt_nbits_input(prepare->node, DBT_NBITS_G_IDX)) return DIBIT_OK;
    const int32_t *const g_idx = prepare->in[DBT_NBITS_G_IDX]->data;
    DBT_TRY(dbt_nbits_check_g_idx(prepare->attrs, g_idx, prepare->error));
    const uint64_t bytes = (uint64_t)plan->problem.p.K * sizeof *g_idx;
    DBT_TRY(dbt_gpu_buffer_create(prepare->gpu, bytes, &plan->g_idx, prepare->error));
    plan->problem.g_idx = plan->g_idx;
    dbt_hal *const hal = dbt_gpu_hal(prepare->gpu);
    return hal->calls->write(hal, plan->g_idx, 0, g_idx, bytes, prepare->error);
}

dibit_status dbt_nbits_gpu_prepare(dbt_gpu_prepare *prepare) {
    return dbt_nbits_gpu_prepare_fused(prepare, &(dbt_nbits_gpu_fusion){0});
}

dibit_status dbt_nbits_gpu_prepare_fused(dbt_gpu_prepare *prepare,
                                         const dbt_nbits_gpu_fusion *fusion) {
    nbits_gpu_plan *plan = prepare->prepared;
    const dbt_node *const node = prepare->node;
    if (!plan) {
        plan = dbt_arena_alloc(prepare->arena, sizeof *plan);
        if (!plan) return dbt_fail_memory(prepare->error, "a plan", sizeof *plan);
        prepare->prepared = plan;
        dbt_nbits_gpu_problem *const problem = &plan->problem;
        problem->p = dbt_nbits_node_problem(node, prepare->activations, &plan->why);
        problem->b = prepare->in_buffers[DBT_NBITS_B];
        problem->scales = prepare->in_buffers[DBT_NBITS_SCALES];
        problem->zero_points = buffer(prepare->in_buffers, node, DBT_NBITS_ZERO_POINTS);
        /* Whether there is a bias shapes the kernel, be it constant or not. */
        if (dbt_nbits_input(node, DBT_NBITS_BIAS)) problem->bias = problem->b;
        plan->fusion = *fusion;
        plan->allowed = UINT64_MAX;
        DBT_TRY(take_g_idx(plan, prepare));
    }
    if (prepare->no_proof) {
        plan->proved = plan->allowed;
    } else {
        DBT_TRY(prove(plan, prepare->gpu, prepare->error));
    }
    prepare->int8_activations = plan->problem.p.int8_activations;
    return describe(plan, prepare);
}

dbt_nbits_gpu_problem dbt_nbits_gpu_node_problem(const dbt_gpu_call *call) {
    const nbits_gpu_plan *const plan = call->prepared;
    dbt_nbits_gpu_problem problem = plan->problem;
    problem.p.M = dbt_tensor_count(call->in[DBT_NBITS_A]) / problem.p.K;
    problem.a = call->in_buffers[DBT_NBITS_A];
    problem.bias = buffer(call->in_buffers, call->node, DBT_NBITS_BIAS);
    problem.y = call->out_buffers[0];
    problem.trace = plan->trace;
    return problem;
}

const dbt_nbits_gpu_kernel *dbt_nbits_gpu_node_kernel(const dbt_gpu_call *call,
                                                      const dbt_nbits_gpu_problem *problem) {
    const nbits_gpu_plan *const plan = call->prepared;
    if (plan->trace && plan->trace->kernel) return plan->trace->kernel;
    return dbt_nbits_gpu_choose(problem, dbt_gpu_hal(call->gpu), plan->proved);
}

dibit_status dbt_nbits_gpu_encode(const dbt_gpu_call *call) {
    const dbt_nbits_gpu_problem problem = dbt_nbits_gpu_node_problem(call);
    if (problem.p.M == 0) return DIBIT_OK;
    return dbt_nbits_gpu_record(call->gpu, dbt_nbits_gpu_node_kernel(call, &problem), &problem,
                                call->error);
}

void dbt_nbits_gpu_trace_node(void *prepared, dbt_nbits_gpu_trace *trace) {
    nbits_gpu_plan *const plan = prepared;
    plan->trace = trace;
}

void dbt_nbits_gpu_release(void *prepared, dbt_gpu *gpu) {
    nbits_gpu_plan *const plan = prepared;
    if (!plan) return;
    dbt_nbits_gpu_proof_end(&plan->proof, gpu);
    dbt_gpu_buffer_destroy(gpu, plan->g_idx);
}

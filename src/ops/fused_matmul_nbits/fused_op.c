/* dibit.FusedMatMulNBits: schema, inference, and the composition of its parts on the CPU, which devices
 * are compared to. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>

#include "ops/elementwise/formulas.h"
#include "ops/elementwise/unary.h"
#include "ops/fused_matmul_nbits/fused_matmul_nbits.h"
#include "ops/norm/norm.h"

#define NBITS(field) offsetof(dbt_fused_nbits_attrs, nbits.field)
static const dbt_attr_def attr_defs[] = {
    {.name = "K", .kind = DBT_ATTR_INT, .required = true, .offset = NBITS(K)},
    {.name = "N", .kind = DBT_ATTR_INT, .required = true, .offset = NBITS(N)},
    {.name = "bits", .kind = DBT_ATTR_INT, .offset = NBITS(bits), .i = 4},
    {.name = "block_size", .kind = DBT_ATTR_INT, .required = true, .offset = NBITS(block_size)},
    {.name = "accuracy_level", .kind = DBT_ATTR_INT, .offset = NBITS(accuracy_level)},
    {.name = "epsilon",
     .kind = DBT_ATTR_FLOAT,
     .offset = offsetof(dbt_fused_nbits_attrs, epsilon),
     .f = 1e-5f},
    {.name = "gate", .kind = DBT_ATTR_INT, .offset = offsetof(dbt_fused_nbits_attrs, gate)},
};

static bool has(const dbt_infer *in, uint32_t i) { return i < in->n_inputs && in->in[i]; }

/* W2's inputs are of W's kinds. */
static dibit_status infer_second(const dbt_infer *in) {
    for (uint32_t i = DBT_NBITS_B; i <= DBT_NBITS_BIAS; i++) {
        const uint32_t j = dbt_fused_second(i);
        DBT_FAIL_IF(has(in, i) != has(in, j) || (has(in, i) && in->in[i]->type != in->in[j]->type),
                    in->error, DIBIT_BAD_FILE, "inputs %u and %u must be of one kind", (unsigned)i,
                    (unsigned)j);
        if (has(in, j)) DBT_TRY(dbt_nbits_infer_count(in, j, i));
    }
    return DIBIT_OK;
}

/* Checks what MatMulNBits checks of a matrix that has both products' rows. */
static dibit_status infer_rows(const dbt_infer *in) {
    dbt_nbits_attrs rows = ((const dbt_fused_nbits_attrs *)in->attrs)->nbits;
    dbt_infer stacked = *in;
    if (rows.N <= INT32_MAX / 2) rows.N += dbt_fused_second_row(rows.N);
    stacked.attrs = &rows;
    return dbt_nbits_infer(&stacked);
}

static dibit_status infer(dbt_infer *in) {
    const dbt_fused_nbits_attrs *const at = in->attrs;
    DBT_FAIL_IF(at->gate < DBT_FUSED_GATE_NONE || at->gate > DBT_FUSED_GATE_GELU_TANH, in->error,
                DIBIT_BAD_FILE, "attribute gate must be 0 to 2, got %" PRId64, at->gate);
    for (uint32_t i = DBT_NBITS_B; i < in->n_inputs; i++) {
        DBT_FAIL_IF(in->in[i] && i != DBT_FUSED_RESIDUAL && !in->in[i]->constant, in->error,
                    DIBIT_BAD_FILE, "input %u must be a constant", (unsigned)i);
    }
    DBT_FAIL_IF(has(in, DBT_NBITS_G_IDX), in->error, DIBIT_BAD_FILE, "g_idx is not for this op");
    const bool second = has(in, DBT_FUSED_SECOND), gate = at->gate != DBT_FUSED_GATE_NONE;
    DBT_FAIL_IF(gate && has(in, DBT_FUSED_RESIDUAL), in->error, DIBIT_BAD_FILE,
                "a gate and a residual are not for one node");
    DBT_FAIL_IF(second && !gate, in->error, DIBIT_BAD_FILE, "a second matrix is for a gate");
    if (second) DBT_TRY(infer_second(in));
    if (second || !gate) {
        DBT_TRY(dbt_nbits_infer(in));
    } else {
        DBT_TRY(infer_rows(in));
        dbt_shape shape = in->in[DBT_NBITS_A]->shape;
        shape.dims[shape.rank - 1] = dbt_dim_const(in->dims, at->nbits.N);
        dbt_infer_output(in, 0, in->in[DBT_NBITS_A]->type, &shape);
    }
    if (has(in, DBT_FUSED_GAIN)) {
        DBT_TRY(dbt_infer_rank(in, DBT_FUSED_GAIN, 1, 1));
        DBT_TRY(dbt_infer_dim(in, DBT_FUSED_GAIN, 0, dbt_dim_const(in->dims, at->nbits.K)));
    }
    return has(in, DBT_FUSED_RESIDUAL) ? dbt_infer_same_type(in, DBT_NBITS_A, DBT_FUSED_RESIDUAL)
                                       : DIBIT_OK;
}

dibit_status dbt_fused_check_residual(const dibit_tensor *const *in, uint32_t n_inputs,
                                      const dibit_tensor *y, dibit_error *error) {
    if (n_inputs <= DBT_FUSED_RESIDUAL || !in[DBT_FUSED_RESIDUAL]) return DIBIT_OK;
    const dibit_tensor *const residual = in[DBT_FUSED_RESIDUAL];
    DBT_FAIL_IF(dbt_tensor_count(residual) != dbt_tensor_count(y), error, DIBIT_BAD_INPUT,
                "the residual must have %" PRId64 " elements, as the product, got %" PRId64,
                dbt_tensor_count(y), dbt_tensor_count(residual));
    return DIBIT_OK;
}

/* ---- The CPU ---- */

typedef struct fused_plan {
    uint64_t isa;
    bool int8_activations;
} fused_plan;

static dibit_status cpu_prepare(dbt_cpu_prepare *prepare) {
    fused_plan *const plan = dbt_arena_alloc(prepare->arena, sizeof *plan);
    if (!plan) return dbt_fail_memory(prepare->error, "a plan", sizeof *plan);
    const dbt_matmul_nbits p =
        dbt_nbits_node_problem(prepare->node, prepare->options->activations, &prepare->why);
    *plan = (fused_plan){prepare->options->isa, p.int8_activations};
    prepare->prepared = plan;
    dbt_matmul_nbits row = p;
    row.M = 1;
    prepare->kernel = dbt_nbits_choose(&row, plan->isa)->name;
    prepare->int8_activations = p.int8_activations;
    return DIBIT_OK;
}

static const void *data_of(const dbt_cpu_call *call, uint32_t i) {
    return i < call->n_inputs && call->in[i] ? call->in[i]->data : NULL;
}

/* What a run needs besides the output, in one block of scratch. */
typedef struct room {
    float *x;  /* [M, K]: the normed rows, with gain */
    float *h2; /* [M, N]: the second product, with a gate */
    void *nbits;
    uint64_t bytes;
} room;

static uint64_t put(uint64_t *at, uint64_t bytes) {
    const uint64_t here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

static bool is_gated(const dbt_cpu_call *call) {
    return ((const dbt_fused_nbits_attrs *)call->attrs)->gate != DBT_FUSED_GATE_NONE;
}

static const void *bytes_on(const void *at, uint64_t n) { return at ? (const char *)at + n : NULL; }

/* The rows of B, and what belongs to them, from `row` on. */
static void skip_rows(dbt_matmul_nbits *p, uint64_t row) {
    p->b = bytes_on(p->b, row * (uint64_t)dbt_nbits_row_bytes(p));
    p->scales = bytes_on(p->scales, row * (uint64_t)dbt_nbits_scale_row_bytes(p));
    p->zero_points = bytes_on(p->zero_points, row * (uint64_t)dbt_nbits_zero_point_row_bytes(p));
    p->bias = bytes_on(p->bias, row * sizeof(float));
}

/* The first product, or with `second` the other one, of x. */
static dbt_matmul_nbits problem(const dbt_cpu_call *call, const float *x, bool second, float *y) {
    const fused_plan *const plan = call->prepared;
    const char *why;
    dbt_matmul_nbits p = dbt_nbits_node_problem(call->node, DIBIT_ACTIVATIONS_FLOAT, &why);
    p.M = dbt_tensor_count(call->in[DBT_NBITS_A]) / p.K;
    p.int8_activations = plan->int8_activations;
    p.a = x;
    const bool alone = second && data_of(call, DBT_FUSED_SECOND);
    const uint32_t shift = alone ? dbt_fused_second(0) : 0;
    p.b = data_of(call, DBT_NBITS_B + shift);
    p.scales = data_of(call, DBT_NBITS_SCALES + shift);
    p.zero_points = data_of(call, DBT_NBITS_ZERO_POINTS + shift);
    p.bias = data_of(call, DBT_NBITS_BIAS + shift);
    if (second && !alone) skip_rows(&p, (uint64_t)dbt_fused_second_row(p.N));
    p.y = y;
    return p;
}

static room room_of(const dbt_cpu_call *call) {
    const fused_plan *const plan = call->prepared;
    const dbt_matmul_nbits p = problem(call, NULL, false, NULL);
    char *const scratch = call->scratch;
    uint64_t at = 0;
    const uint64_t x = put(&at, data_of(call, DBT_FUSED_GAIN) ? (uint64_t)(p.M * p.K) * 4 : 0);
    const uint64_t h2 = put(&at, is_gated(call) ? (uint64_t)(p.M * p.N) * 4 : 0);
    const uint64_t nbits = put(&at, dbt_nbits_scratch_bytes(&p, dbt_nbits_choose(&p, plan->isa),
                                                            dbt_pool_threads(call->pool)));
    room r = {.bytes = at};
    if (scratch) {
        r.x = (float *)(void *)(scratch + x);
        r.h2 = (float *)(void *)(scratch + h2);
        r.nbits = scratch + nbits;
    }
    return r;
}

static uint64_t cpu_scratch(const dbt_cpu_call *call) {
    dbt_cpu_call sizing = *call;
    sizing.scratch = NULL;
    return room_of(&sizing).bytes;
}

static dbt_norm_rows norm_job(const dbt_cpu_call *call, float *y) {
    const dbt_fused_nbits_attrs *const at = call->attrs;
    const int64_t rows = dbt_tensor_count(call->in[DBT_NBITS_A]) / at->nbits.K;
    return (dbt_norm_rows){.term = {{.data = call->in[DBT_NBITS_A]->data, .rows = rows}},
                           .rows = rows,
                           .n = at->nbits.K,
                           .gain = data_of(call, DBT_FUSED_GAIN),
                           .gain_n = at->nbits.K,
                           .epsilon = at->epsilon,
                           .isa = call->options->isa,
                           .y = y};
}

static float gate_of(const dbt_fused_nbits_attrs *at, float h) {
    return at->gate == DBT_FUSED_GATE_SILU ? h * dbt_sigmoidf(h) : dbt_fast_gelu(h);
}

/* The same of whole rows, as the ops would compute it that the step stands for. */
typedef struct gating {
    dbt_unary_fn gate;
    float *y;        /* [M, N]: h, then the answer */
    const float *up; /* [M, N] */
    int64_t N;
} gating;

static void gate_part(void *ctx, int64_t m_begin, int64_t m_end, int64_t n_begin, int64_t n_end) {
    static const dbt_unary_attrs plain = {.alpha = 1.0f};
    const gating *const g = ctx;
    const int64_t n = n_end - n_begin;
    for (int64_t m = m_begin; m < m_end; m++) {
        float *const y = g->y + m * g->N + n_begin;
        const float *const up = g->up + m * g->N + n_begin;
        g->gate(&plain, y, y, n);
        for (int64_t i = 0; i < n; i++) y[i] *= up[i];
    }
}

static void run_gated(const dbt_cpu_call *call, const dbt_matmul_nbits *first,
                      const dbt_nbits_kernel *kernel, const room *r) {
    const dbt_fused_nbits_attrs *const at = call->attrs;
    const dbt_unary_kind kind =
        at->gate == DBT_FUSED_GATE_SILU ? DBT_UNARY_SWISH : DBT_UNARY_FAST_GELU;
    const dbt_matmul_nbits second = problem(call, first->a, true, r->h2);
    gating g = {.gate = dbt_unary_choose(kind, DIBIT_TYPE_FLOAT, call->options->isa),
                .y = first->y,
                .up = r->h2,
                .N = first->N};
    const dbt_nbits_pair pair = {.second = &second, .then = gate_part, .ctx = &g};
    dbt_nbits_execute_pair(first, &pair, kernel, call->pool, r->nbits);
}

static dibit_status cpu_run(const dbt_cpu_call *call) {
    const fused_plan *const plan = call->prepared;
    const room r = room_of(call);
    const float *x = data_of(call, DBT_NBITS_A);
    float *const y = call->out[0]->data;
    DBT_TRY(dbt_fused_check_residual(call->in, call->n_inputs, call->out[0], call->error));
    if (data_of(call, DBT_FUSED_GAIN)) {
        const dbt_norm_rows job = norm_job(call, r.x);
        dbt_norm_run_rows(&job, call->pool);
        x = r.x;
    }
    const dbt_matmul_nbits first = problem(call, x, false, y);
    const dbt_nbits_kernel *const kernel = dbt_nbits_choose(&first, plan->isa);
    if (is_gated(call)) {
        run_gated(call, &first, kernel, &r);
    } else {
        dbt_nbits_execute(&first, kernel, call->pool, r.nbits);
    }
    const int64_t n = first.M * first.N;
    const float *const residual = data_of(call, DBT_FUSED_RESIDUAL);
    for (int64_t i = 0; residual && i < n; i++) y[i] += residual[i];
    return DIBIT_OK;
}

static void cpu_prefetch(const dbt_cpu_call *call, uint32_t thread, uint32_t n_threads,
                         dbt_prefetch *prefetch) {
    const fused_plan *const plan = call->prepared;
    const bool gated = is_gated(call);
    const dbt_matmul_nbits first = problem(call, NULL, false, NULL);
    const dbt_matmul_nbits second = problem(call, NULL, gated, NULL);
    dbt_nbits_prefetch(&first, gated ? &second : NULL, dbt_nbits_choose(&first, plan->isa), thread,
                       n_threads, prefetch);
}

/* ---- The bound ---- */

/* How far a product of x can be off when x is off by as much as dx (NULL: exact): `times` what the sum
 * rounds, and dx |W|. Fills bound [M, N]. */
static dibit_status product_bound(const dbt_cpu_call *call, dbt_matmul_nbits p, float times,
                                  const float *dx, float *bound) {
    const float gamma = times * (float)dbt_nbits_gamma(&p);
    const int64_t n = p.M * p.N;
    DBT_TRY(dbt_nbits_magnitudes(&p, call->options->isa, call->pool, bound, call->error));
    for (int64_t i = 0; i < n; i++) bound[i] *= gamma;
    if (!dx) return DIBIT_OK;
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    float *const moved = dbt_arena_array(&arena, (uint64_t)n, sizeof *moved);
    dibit_status status = moved ? DIBIT_OK : dbt_fail_memory(call->error, "a bound", 1);
    p.a = dx;
    p.bias = NULL;
    p.int8_activations = false;
    if (moved) {
        status = dbt_nbits_magnitudes(&p, call->options->isa, call->pool, moved, call->error);
    }
    for (int64_t i = 0; status == DIBIT_OK && i < n; i++) bound[i] += moved[i];
    dbt_arena_free(&arena);
    return status;
}

/* int8 activations of an x that is off: each a may round to the next code, s = absmax / 127 apart. */
static void widen_by_codes(const dbt_matmul_nbits *p, float *dx) {
    for (int64_t m = 0; m < p->M; m++) {
        for (int64_t k = 0; k < p->K; k += p->block_size) {
            const int64_t n = p->K - k < p->block_size ? p->K - k : p->block_size;
            float scale, *const block = dx + m * p->K + k;
            (void)dbt_nbits_int8_scale(p->a + m * p->K + k, n, &scale);
            for (int64_t i = 0; i < n; i++) block[i] += scale;
        }
    }
}

/* For an engine whose every part is off by as much as `times` what the CPU's is. */
static dibit_status bound_into(const dbt_cpu_call *call, float times, dbt_arena *arena,
                               float *bound) {
    const dbt_fused_nbits_attrs *const at = call->attrs;
    const float u = 0x1p-24f;
    const room r = room_of(call);
    const bool gain = data_of(call, DBT_FUSED_GAIN);
    const float *const x = gain ? r.x : data_of(call, DBT_NBITS_A);
    const dbt_matmul_nbits p = problem(call, x, false, NULL);
    const int64_t n = p.M * p.N;
    float *dx = NULL;
    float *const second = dbt_arena_array(arena, (uint64_t)n, sizeof *second);
    float *const h = dbt_arena_array(arena, (uint64_t)n, sizeof *h);
    if (!second || !h) return dbt_fail_memory(call->error, "a bound", (uint64_t)n * 8);
    if (gain) {
        dx = dbt_arena_array(arena, (uint64_t)(p.M * p.K), sizeof *dx);
        if (!dx) return dbt_fail_memory(call->error, "a bound", (uint64_t)(p.M * p.K) * 4);
        const dbt_norm_rows job = norm_job(call, r.x);
        dbt_norm_bound_rows(&job, (float *const[4]){dx, NULL, NULL, NULL});
        for (int64_t i = 0; i < p.M * p.K; i++) dx[i] *= times;
        if (p.int8_activations) widen_by_codes(&p, dx);
    }
    DBT_TRY(product_bound(call, p, times, dx, bound));
    const float *const y = call->out[0]->data;
    if (is_gated(call)) {
        const fused_plan *const plan = call->prepared;
        dbt_matmul_nbits first = problem(call, x, false, h);
        dbt_nbits_execute(&first, dbt_nbits_choose(&first, plan->isa), call->pool, r.nbits);
        DBT_TRY(product_bound(call, problem(call, x, true, NULL), times, dx, second));
        /* |d gate| <= 1.13 |dh|; the gate's own rounding: exp's and a few operations, and of a negative h an
         * ulp of 1, from which tanh was taken. */
        for (int64_t i = 0; i < n; i++) {
            const float g = gate_of(at, h[i]);
            const float dg = 1.13f * bound[i] + times * u * (16 * fabsf(g) + 4 * fabsf(h[i]));
            bound[i] = dg * (fabsf(r.h2[i]) + second[i]) + fabsf(g) * second[i];
        }
    }
    for (int64_t i = 0; i < n; i++) bound[i] += times * 3 * u * fabsf(y[i]);
    return DIBIT_OK;
}

static dibit_status bound_times(const dbt_cpu_call *call, float times, float *bound) {
    if (!bound) return DIBIT_OK;
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    const dibit_status status = bound_into(call, times, &arena, bound);
    dbt_arena_free(&arena);
    return status;
}

static dibit_status cpu_bound(const dbt_cpu_call *call, float *const *bound) {
    return bound_times(call, 1, bound[0]);
}

/* Twice in every part, as op.h has it for the parts alone. */
static dibit_status gpu_bound(const dbt_cpu_call *call, float *const *bound) {
    return bound_times(call, 2, bound[0]);
}

#define RAW (1u << DBT_NBITS_B | 1u << DBT_NBITS_SCALES | 1u << DBT_NBITS_ZERO_POINTS)
const dbt_op dbt_fused_matmul_nbits_ops[] = {
    {
        .domain = "dibit",
        .name = "FusedMatMulNBits",
        .since = 1,
        .min_inputs = 3,
        .max_inputs = DBT_FUSED_INPUTS,
        .min_outputs = 1,
        .max_outputs = 1,
        .raw_inputs = RAW | RAW << (DBT_FUSED_SECOND - DBT_NBITS_B),
        .attrs = attr_defs,
        .n_attrs = sizeof attr_defs / sizeof attr_defs[0],
        .attrs_bytes = sizeof(dbt_fused_nbits_attrs),
        .infer = infer,
        .cpu_prepare = cpu_prepare,
        .cpu_scratch = cpu_scratch,
        .cpu_run = cpu_run,
        .cpu_prefetch = cpu_prefetch,
        .cpu_bound = cpu_bound,
        .describe = dbt_nbits_describe,
        .gpu_encode = dbt_fused_gpu_encode,
        .gpu_refuses = dbt_fused_gpu_refuses,
        .gpu_prepare = dbt_fused_gpu_prepare,
        .gpu_release = dbt_nbits_gpu_release,
        .gpu_bound = gpu_bound,
    },
    {0},
};

/* MatMulNBits on a device: what fits, which is best, and how a multiplication is split into dispatches. */
#include "ops/matmul_nbits/nbits_gpu.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#define PLAIN false
#define SUBGROUPS true
#define FLOAT false
#define INT8 true
#define MATVEC_SHADER(int8_) ((int8_) ? "nbits_matvec_int8.wgsl" : "nbits_matvec.wgsl")
#define ALONE_SHADER(int8_) ((int8_) ? "nbits_matvec_alone_int8.wgsl" : "nbits_matvec_alone.wgsl")
#define TILE_SHADER(int8_) ((int8_) ? "nbits_tile_int8.wgsl" : "nbits_tile.wgsl")
const dbt_nbits_gpu_kernel dbt_nbits_gpu_kernels[] = {
#define ALONE(name_, int8_, m_rows_, least_m_, most_m_)                                            \
    {.name = #name_,                                                                               \
     .shader = ALONE_SHADER(int8_),                                                                \
     .int8 = int8_,                                                                                \
     .m_rows = m_rows_,                                                                            \
     .n_rows = 4,                                                                                  \
     .lanes = 1,                                                                                   \
     .least_m = least_m_,                                                                          \
     .most_m = most_m_,                                                                            \
     .least_k = 1,                                                                                 \
     .most_workgroups = INT64_MAX,                                                                 \
     .software = true},
#define MATVEC(name_, int8_, subgroups_, m_rows_, n_rows_, lanes_, least_m_, most_m_, least_k_)    \
    {.name = #name_,                                                                               \
     .shader = MATVEC_SHADER(int8_),                                                               \
     .int8 = int8_,                                                                                \
     .subgroups = subgroups_,                                                                      \
     .m_rows = m_rows_,                                                                            \
     .n_rows = n_rows_,                                                                            \
     .lanes = lanes_,                                                                              \
     .least_m = least_m_,                                                                          \
     .most_m = most_m_,                                                                            \
     .least_k = least_k_,                                                                          \
     .most_workgroups = INT64_MAX},
#define TILE(name_, int8_, tile_m_, tile_n_, split_, least_m_, least_workgroups_,                  \
             most_workgroups_)                                                                     \
    {.name = #name_,                                                                               \
     .shader = TILE_SHADER(int8_),                                                                 \
     .tile = true,                                                                                 \
     .int8 = int8_,                                                                                \
     .m_rows = tile_m_,                                                                            \
     .n_rows = tile_n_,                                                                            \
     .split = split_,                                                                              \
     .least_m = least_m_,                                                                          \
     .most_m = INT64_MAX,                                                                          \
     .least_k = 1,                                                                                 \
     .least_workgroups = least_workgroups_,                                                        \
     .most_workgroups = most_workgroups_},
#include "ops/matmul_nbits/gpu_kernels.inc"
#undef ALONE
#undef MATVEC
#undef TILE
};
const uint32_t dbt_nbits_gpu_kernel_count =
    sizeof dbt_nbits_gpu_kernels / sizeof dbt_nbits_gpu_kernels[0];

/* Scratch; 2 is the fused op's. */
enum { QUADS, PARTS, GATED = 3 };

enum { TRACE_BINDING = 9, MAX_PARAMS = 20 };
enum { UNIT = 32, THREADS = 128 /* of a matvec */, ALONE_THREADS = 16, QUANTIZE_THREADS = 64 };

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t units_of(const dbt_matmul_nbits *p) { return (p->K + UNIT - 1) / UNIT; }

/* A row of activations as int8, which nbits_quantize.wgsl makes for tiles. */
static uint64_t quads_row_bytes(const dbt_matmul_nbits *p) { return (uint64_t)units_of(p) * 32; }

/* ---- Variants ---- */

/* What shapes a shader besides the kernel's own numbers; all of it counts in dbt_nbits_gpu_form. */
typedef struct variant {
    int32_t bits, aligned, scale, zero_point, bias, unit_blocks, g_idx, a_vec4, a_whole;
    int32_t norm, epilogue, second_product;
} variant;

static int32_t float_kind(dibit_type type) {
    return type == DIBIT_TYPE_FLOAT ? 0 : type == DIBIT_TYPE_FLOAT16 ? 1 : 2;
}

static variant variant_of(const dbt_nbits_gpu_problem *problem) {
    const dbt_matmul_nbits *const p = &problem->p;
    const bool g_idx = problem->g_idx != NULL;
    variant v = {.bits = (int32_t)p->bits,
                 .aligned = p->k_blocks * p->block_size % UNIT == 0,
                 .scale = float_kind(p->scale_type),
                 .bias = problem->bias != NULL,
                 .unit_blocks = p->block_size < UNIT && !g_idx ? 2 : 1,
                 .g_idx = g_idx,
                 .a_vec4 = p->K % 4 == 0,
                 .a_whole = p->K % UNIT == 0,
                 .norm = problem->gain != NULL,
                 .epilogue = (int32_t)problem->epilogue,
                 .second_product = problem->second_row != 0};
    if (p->zero_point_type == DIBIT_TYPE_UINT8) v.zero_point = 1;
    if (dbt_nbits_float_zero_points(p)) v.zero_point = 2 + float_kind(p->zero_point_type);
    return v;
}

static uint64_t mix(uint64_t hash, uint32_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}

uint64_t dbt_nbits_gpu_form(const dbt_nbits_gpu_problem *problem) {
    const variant v = variant_of(problem);
    int32_t words[sizeof v / sizeof(int32_t)];
    uint64_t hash = problem->p.int8_activations;
    memcpy(words, &v, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        hash = mix(hash, (uint32_t)words[i]);
    return hash;
}

/* ---- The choice ---- */

static bool is_alone(const dbt_nbits_gpu_kernel *k) { return k->lanes == 1; }

bool dbt_nbits_gpu_takes_norm(const dbt_nbits_gpu_kernel *k) { return !k->tile && !is_alone(k); }

/* Whether it reads A from nbits_quantize.wgsl. */
static bool reads_quads(const dbt_nbits_gpu_kernel *k) {
    return k->int8 && !dbt_nbits_gpu_takes_norm(k);
}

static uint64_t threads_of(const dbt_nbits_gpu_kernel *k) {
    if (is_alone(k)) return ALONE_THREADS;
    if (!k->tile) return THREADS;
    return (uint64_t)(least(k->m_rows, 64) * least(k->n_rows, 64) / 16 * k->split);
}

/* Bytes of var<workgroup>, as the shaders' headers say. */
static uint64_t workgroup_bytes(const dbt_nbits_gpu_kernel *k, const variant *v) {
    if (is_alone(k)) return 0;
    if (k->tile) {
        const uint64_t sides = (uint64_t)k->m_rows + k->n_rows;
        const uint64_t parts =
            (uint64_t)v->unit_blocks * (16 * (uint64_t)k->m_rows + 24 * (uint64_t)k->n_rows);
        const uint64_t slice = k->int8 ? 64 * sides + parts : 128 * sides;
        return k->split * slice + (k->split > 1 ? 16 * threads_of(k) : 0);
    }
    const uint64_t staged = (k->int8 ? 3 : 8) * (uint64_t)k->m_rows * k->lanes;
    const uint64_t sums = (uint64_t)k->m_rows * k->n_rows / 4 * THREADS;
    return 16 * (staged > sums ? staged : sums);
}

const char *dbt_nbits_gpu_lacks(const dbt_nbits_gpu_kernel *kernel,
                                const dbt_nbits_gpu_problem *problem, const dbt_hal *hal) {
    const variant v = variant_of(problem);
    const dbt_hal_limits *const limits = &hal->limits;
    if (kernel->int8 != problem->p.int8_activations) return "activations of the other kind";
    if (kernel->subgroups && !(hal->features & DBT_HAL_SUBGROUPS)) return "subgroups";
    if (reads_quads(kernel) &&
        quads_row_bytes(&problem->p) * kernel->m_rows > limits->max_binding_bytes)
        return "larger bindings";
    if (workgroup_bytes(kernel, &v) > limits->max_workgroup_bytes) return "workgroup memory";
    return limits->max_invocations < threads_of(kernel) ? "larger workgroups" : NULL;
}

static uint64_t n_groups(const dbt_nbits_gpu_kernel *k, int64_t n) {
    const int64_t rows = k->tile ? k->n_rows : (int64_t)(threads_of(k) / k->lanes * k->n_rows);
    return (uint64_t)((n + rows - 1) / rows);
}
static uint64_t m_groups(const dbt_nbits_gpu_kernel *k, int64_t m) {
    return ((uint64_t)m + k->m_rows - 1) / k->m_rows;
}

static bool is_worth(const dbt_nbits_gpu_kernel *k, const dbt_matmul_nbits *p, const dbt_hal *hal) {
    if (p->M < k->least_m || p->M > k->most_m || p->K < k->least_k) return false;
    if (k->software != ((hal->features & DBT_HAL_SOFTWARE) != 0)) return false;
    const uint64_t workgroups = n_groups(k, p->N) * m_groups(k, p->M);
    return workgroups >= k->least_workgroups && workgroups <= k->most_workgroups;
}

const dbt_nbits_gpu_kernel *dbt_nbits_gpu_choose(const dbt_nbits_gpu_problem *problem,
                                                 const dbt_hal *hal, uint64_t mask) {
    const dbt_nbits_gpu_kernel *any = NULL;
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[i];
        if (!(mask >> i & 1) || !dbt_nbits_gpu_fits(kernel, problem, hal)) continue;
        if (is_worth(kernel, &problem->p, hal)) return kernel;
        any = kernel;
    }
    return any;
}

/* ---- Dispatches ---- */

/* As struct Problem in nbits_problem.inc.wgsl. */
typedef struct uniforms {
    uint32_t M, N, K, k_blocks;
    uint32_t units, row_units, block_shift, zero_row_bytes;
    uint32_t n_begin, n_count, m_stride;
    float norm_share, norm_epsilon;
    uint32_t second_row;
    uint32_t trace_m, trace_n; /* with TRACE */
} uniforms;

/* Rows [m_begin, m_begin + m_count) of A and Y, and rows [n_begin, n_begin + n_count) of B. */
typedef struct part {
    int64_t m_begin, m_count, n_begin, n_count;
} part;

typedef struct recording {
    dbt_gpu *gpu;
    const dbt_nbits_gpu_kernel *kernel;
    const dbt_nbits_gpu_problem *problem;
    variant variant;
    dbt_hal_buffer *quads, *parts; /* int8 activations of a tile */
    bool gate;                     /* both products at once */
    int64_t first_row;             /* of the product among b's rows */
    dibit_error *error;
} recording;

/* Whether the part has the element to trace; the others are recorded as ever. */
static bool is_traced(const recording *r, const part *at) {
    const dbt_nbits_gpu_trace *const trace = r->problem->trace;
    if (!trace || trace->m < at->m_begin || trace->m >= at->m_begin + at->m_count) return false;
    const int64_t n = trace->row - r->first_row - at->n_begin;
    return n >= 0 && n < (r->gate ? r->problem->second_row + at->n_count : at->n_count);
}

static uint32_t log2_of(int64_t power) {
    uint32_t n = 0;
    while (power >> n > 1) n++;
    return n;
}

/* Rows of quantized activations in scratch: whole tiles. */
static int64_t m_stride_of(const recording *r, const part *at) {
    return round_up(at->m_count, r->kernel->m_rows);
}

static uniforms uniforms_of(const recording *r, const part *at) {
    const dbt_matmul_nbits *const p = &r->problem->p;
    return (uniforms){.M = (uint32_t)at->m_count,
                      .N = (uint32_t)p->N,
                      .K = (uint32_t)p->K,
                      .k_blocks = (uint32_t)p->k_blocks,
                      .units = (uint32_t)units_of(p),
                      .row_units = (uint32_t)(p->k_blocks * p->block_size / UNIT),
                      .block_shift = log2_of(p->block_size),
                      .zero_row_bytes = (uint32_t)dbt_nbits_zero_row_bytes(p),
                      .n_begin = (uint32_t)at->n_begin,
                      .n_count = (uint32_t)at->n_count,
                      .m_stride = (uint32_t)m_stride_of(r, at),
                      .norm_share = 1.0f / (float)p->K,
                      .norm_epsilon = r->problem->epsilon,
                      .second_row = (uint32_t)r->problem->second_row};
}

/* Adds what TRACE needs to a dispatch, which has room for it. */
static void add_trace(const recording *r, const part *at, dbt_gpu_dispatch *d, uniforms *u,
                      dbt_shader_param *params, dbt_hal_binding *bindings) {
    const dbt_nbits_gpu_trace *const trace = r->problem->trace;
    if (!is_traced(r, at) || !trace->words) {
        d->uniform_bytes = offsetof(uniforms, trace_m);
        return;
    }
    u->trace_m = (uint32_t)(trace->m - at->m_begin);
    u->trace_n = (uint32_t)(trace->row - r->first_row - at->n_begin);
    params[d->n_params++] = (dbt_shader_param){"TRACE", 1};
    bindings[TRACE_BINDING] = (dbt_hal_binding){.buffer = trace->words};
    d->n_bindings = TRACE_BINDING + 1;
    d->written |= 1u << TRACE_BINDING;
}

/* Rows [begin, begin + count) of row_bytes each; NULL stays absent. */
static dbt_hal_binding rows_of(dbt_hal_buffer *buffer, uint64_t row_bytes, int64_t begin,
                               int64_t count) {
    const uint64_t bytes = (uint64_t)count * row_bytes;
    return (dbt_hal_binding){
        .buffer = buffer, .offset = (uint64_t)begin * row_bytes, .bytes = (bytes + 3) / 4 * 4};
}

static uint64_t zero_row_bytes(const dbt_matmul_nbits *p) {
    return (uint64_t)dbt_nbits_zero_point_row_bytes(p);
}
static uint64_t scale_row_bytes(const dbt_matmul_nbits *p) {
    return (uint64_t)dbt_nbits_scale_row_bytes(p);
}

static uint64_t parts_row_bytes(const recording *r) {
    return (uint64_t)units_of(&r->problem->p) * (uint64_t)r->variant.unit_blocks * 8;
}

static dibit_status record_quantize(const recording *r, const part *at) {
    const dbt_matmul_nbits *const p = &r->problem->p;
    const int64_t m_stride = m_stride_of(r, at);
    uniforms u = uniforms_of(r, at);
    dbt_shader_param params[4] = {{"BITS", r->variant.bits},
                                  {"UNIT_BLOCKS", r->variant.unit_blocks},
                                  {"A_VEC4", r->variant.a_vec4}};
    dbt_hal_binding bindings[TRACE_BINDING + 1] = {
        rows_of(r->problem->a, (uint64_t)p->K * 4, at->m_begin, at->m_count),
        rows_of(r->quads, quads_row_bytes(p), 0, m_stride),
        rows_of(r->parts, parts_row_bytes(r), 0, m_stride)};
    dbt_gpu_dispatch d = {.shader = "nbits_quantize.wgsl",
                          .params = params,
                          .n_params = 3,
                          .bindings = bindings,
                          .n_bindings = 3,
                          .written = 6,
                          .uniforms = &u,
                          .uniform_bytes = sizeof u};
    add_trace(r, at, &d, &u, params, bindings);
    const int64_t units = units_of(p) * m_stride;
    DBT_TRY(dbt_gpu_grid(r->gpu, (uint64_t)((units + QUANTIZE_THREADS - 1) / QUANTIZE_THREADS),
                         d.workgroups, r->error));
    return dbt_gpu_record(r->gpu, &d, r->error);
}

static uint32_t params_of(const recording *r, dbt_shader_param *out) {
    const dbt_nbits_gpu_kernel *const k = r->kernel;
    const variant *const v = &r->variant;
    uint32_t n = 0;
    out[n++] = (dbt_shader_param){"BITS", v->bits};
    out[n++] = (dbt_shader_param){"ALIGNED", v->aligned};
    out[n++] = (dbt_shader_param){"SCALE", v->scale};
    out[n++] = (dbt_shader_param){"ZERO_POINT", v->zero_point};
    out[n++] = (dbt_shader_param){"UNIT_BLOCKS", v->unit_blocks};
    out[n++] = (dbt_shader_param){"BIAS", v->bias};
    out[n++] = (dbt_shader_param){"EPILOGUE", (int32_t)r->problem->epilogue};
    if (!k->int8) out[n++] = (dbt_shader_param){"G_IDX", v->g_idx};
    if (!k->int8 && is_alone(k)) out[n++] = (dbt_shader_param){"A_WHOLE", v->a_whole};
    if (!reads_quads(k)) out[n++] = (dbt_shader_param){"A_VEC4", v->a_vec4};
    if (k->tile) {
        out[n++] = (dbt_shader_param){"TILE_M", (int32_t)k->m_rows};
        out[n++] = (dbt_shader_param){"TILE_N", (int32_t)k->n_rows};
        out[n++] = (dbt_shader_param){"SPLIT", (int32_t)k->split};
    } else {
        out[n++] = (dbt_shader_param){"M_ROWS", (int32_t)k->m_rows};
        out[n++] = (dbt_shader_param){"LANES", (int32_t)k->lanes};
    }
    if (dbt_nbits_gpu_takes_norm(k)) {
        out[n++] = (dbt_shader_param){"ROWS", r->gate ? 8 : (int32_t)k->n_rows};
        out[n++] = (dbt_shader_param){"REDUCE", k->subgroups};
        out[n++] = (dbt_shader_param){"NORM", v->norm};
        out[n++] = (dbt_shader_param){"GATE", r->gate};
    }
    return n;
}

static uint64_t n_groups_of(const recording *r, int64_t n) {
    dbt_nbits_gpu_kernel kernel = *r->kernel;
    if (r->gate) kernel.n_rows = 4; /* of either product */
    return n_groups(&kernel, n);
}

static void keep_traced(const recording *r, const part *at) {
    const dbt_nbits_gpu_problem *const problem = r->problem;
    problem->trace->traced = (struct dbt_nbits_gpu_traced){.kernel = r->kernel,
                                                           .m_begin = at->m_begin,
                                                           .n_begin = r->first_row + at->n_begin,
                                                           .gate = r->gate,
                                                           .y = problem->y,
                                                           .y_offset = problem->y_offset,
                                                           .other = problem->other,
                                                           .epilogue = problem->epilogue};
}

static dibit_status record_part(const recording *r, const part *at) {
    enum { A, B, SCALES, ZERO_POINTS, BIAS, G_IDX, Y, GAIN, OTHER, N_BINDINGS }; /* binding - 1 */
    const dbt_nbits_gpu_problem *const problem = r->problem;
    const dbt_matmul_nbits *const p = &problem->p;
    const int64_t m_stride = m_stride_of(r, at);
    const bool quantized = reads_quads(r->kernel);
    uniforms u = uniforms_of(r, at);
    const int64_t n_begin = r->first_row + at->n_begin;
    const int64_t n_count = r->gate ? problem->second_row + p->N : at->n_count;
    dbt_shader_param params[MAX_PARAMS];
    dbt_hal_binding bindings[TRACE_BINDING + 1] = {
        [A] = rows_of(problem->a, (uint64_t)p->K * 4, at->m_begin, at->m_count),
        [B] = rows_of(problem->b, (uint64_t)dbt_nbits_row_bytes(p), n_begin, n_count),
        [SCALES] = rows_of(problem->scales, scale_row_bytes(p), n_begin, n_count),
        [ZERO_POINTS] = rows_of(problem->zero_points, zero_row_bytes(p), n_begin, n_count),
        [BIAS] = rows_of(problem->bias, 4, r->first_row, r->gate ? n_count : p->N),
        [G_IDX] = rows_of(problem->g_idx, 4, 0, p->K),
        [Y] = rows_of(problem->y, (uint64_t)p->N * 4, at->m_begin, at->m_count),
        [GAIN] = rows_of(problem->gain, 4, 0, p->K),
        [OTHER] = rows_of(problem->other, (uint64_t)p->N * 4, at->m_begin, at->m_count),
    };
    bindings[Y].offset += problem->y_offset;
    if (quantized) {
        bindings[A] = rows_of(r->quads, quads_row_bytes(p), 0, m_stride);
        bindings[G_IDX] = rows_of(r->parts, parts_row_bytes(r), 0, m_stride);
    }
    dbt_gpu_dispatch d = {.shader = r->kernel->shader,
                          .params = params,
                          .n_params = params_of(r, params),
                          .bindings = bindings,
                          .n_bindings = N_BINDINGS,
                          .written = 1u << Y,
                          .uniforms = &u,
                          .uniform_bytes = sizeof u};
    add_trace(r, at, &d, &u, params, bindings);
    if (is_traced(r, at)) keep_traced(r, at);
    DBT_TRY(dbt_gpu_grid(r->gpu, n_groups_of(r, at->n_count), d.workgroups, r->error));
    d.workgroups[2] = (uint32_t)m_groups(r->kernel, at->m_count);
    return dbt_gpu_record(r->gpu, &d, r->error);
}

/* How many rows of so many bytes a binding holds, as a multiple of `step` unless that is all of them. */
static dibit_status rows_at_once(const recording *r, uint64_t row_bytes, int64_t rows, int64_t step,
                                 int64_t *at_once) {
    const uint64_t most = dbt_gpu_hal(r->gpu)->limits.max_binding_bytes;
    if (row_bytes == 0 || (uint64_t)rows <= most / row_bytes) return DIBIT_OK;
    const int64_t n = (int64_t)(most / row_bytes) / step * step;
    DBT_FAIL_IF(n == 0, r->error, DIBIT_TOO_LARGE,
                "%lld rows of %llu bytes are more than the device binds at once, %llu bytes",
                (long long)step, (unsigned long long)row_bytes, (unsigned long long)most);
    *at_once = least(*at_once, n);
    return DIBIT_OK;
}

/* One product, or both of a gate. */
static dibit_status record(recording *r) {
    dbt_gpu *const gpu = r->gpu;
    const dbt_nbits_gpu_kernel *const kernel = r->kernel;
    const dbt_matmul_nbits *const p = &r->problem->p;
    const dbt_hal_limits *const limits = &dbt_gpu_hal(gpu)->limits;
    /* Parts begin where bindings may, rows of bytes or of words. */
    const int64_t n_step = limits->binding_alignment;
    int64_t m_step = round_up(n_step, 4) / 4;
    const bool quantized = reads_quads(kernel);
    int64_t n_part = p->N, m_part = p->M;
    DBT_TRY(rows_at_once(r, (uint64_t)dbt_nbits_row_bytes(p), p->N, n_step, &n_part));
    DBT_TRY(rows_at_once(r, scale_row_bytes(p), p->N, n_step, &n_part));
    DBT_TRY(rows_at_once(r, zero_row_bytes(p), p->N, n_step, &n_part));
    if (quantized) {
        m_step = round_up(m_step, kernel->m_rows);
        const int64_t rows = round_up(p->M, kernel->m_rows);
        DBT_TRY(rows_at_once(r, quads_row_bytes(p), rows, m_step, &m_part));
    }
    DBT_TRY(rows_at_once(r, (uint64_t)p->K * 4, p->M, m_step, &m_part));
    DBT_TRY(rows_at_once(r, (uint64_t)p->N * 4, p->M, m_step, &m_part));
    if (m_groups(kernel, m_part) > limits->max_workgroups) {
        m_part = (int64_t)limits->max_workgroups * kernel->m_rows / m_step * m_step;
        DBT_FAIL_IF(m_part == 0, r->error, DIBIT_TOO_LARGE,
                    "%u workgroups, the device's limit, are too few for a part of %lld rows",
                    (unsigned)limits->max_workgroups, (long long)m_step);
    }
    for (int64_t m = 0; m < p->M; m += m_part) {
        part at = {.m_begin = m, .m_count = least(m_part, p->M - m), .n_count = p->N};
        const bool is_there = r->first_row && m_part >= p->M; /* of a gate's first product */
        if (quantized && !is_there) {
            const uint64_t m_stride = (uint64_t)m_stride_of(r, &at);
            DBT_TRY(
                dbt_gpu_scratch(gpu, QUADS, m_stride * quads_row_bytes(p), &r->quads, r->error));
            DBT_TRY(
                dbt_gpu_scratch(gpu, PARTS, m_stride * parts_row_bytes(r), &r->parts, r->error));
            DBT_TRY(record_quantize(r, &at));
        }
        for (int64_t n = 0; n < p->N; n += n_part) {
            at.n_begin = n;
            at.n_count = least(n_part, p->N - n);
            DBT_TRY(record_part(r, &at));
        }
    }
    return DIBIT_OK;
}

bool dbt_nbits_gpu_binds_both(const dbt_nbits_gpu_problem *problem, const dbt_hal *hal) {
    const dbt_matmul_nbits *const p = &problem->p;
    uint64_t row_bytes = (uint64_t)dbt_nbits_row_bytes(p);
    if (row_bytes < scale_row_bytes(p)) row_bytes = scale_row_bytes(p);
    if (row_bytes < zero_row_bytes(p)) row_bytes = zero_row_bytes(p);
    const uint64_t rows = (uint64_t)(problem->second_row + p->N);
    return rows * row_bytes <= hal->limits.max_binding_bytes;
}

/* Both products in one dispatch: a matvec has their sums side by side, and binds all rows. */
static bool takes_gate(const dbt_nbits_gpu_kernel *kernel, const dbt_nbits_gpu_problem *problem,
                       const dbt_hal *hal) {
    return problem->second_row && dbt_nbits_gpu_takes_norm(kernel) && kernel->m_rows <= 4 &&
           dbt_nbits_gpu_binds_both(problem, hal);
}

dibit_status dbt_nbits_gpu_record(dbt_gpu *gpu, const dbt_nbits_gpu_kernel *kernel,
                                  const dbt_nbits_gpu_problem *problem, dibit_error *error) {
    assert(!problem->gain || (dbt_nbits_gpu_takes_norm(kernel) && !problem->g_idx));
    recording r = {.gpu = gpu,
                   .kernel = kernel,
                   .problem = problem,
                   .variant = variant_of(problem),
                   .gate = takes_gate(kernel, problem, dbt_gpu_hal(gpu)),
                   .error = error};
    if (!problem->second_row || r.gate) return record(&r);
    /* The first product goes to scratch, where the second one's epilogue finds it. */
    dbt_nbits_gpu_problem one = *problem;
    const uint64_t bytes = (uint64_t)one.p.M * (uint64_t)one.p.N * 4;
    r.problem = &one;
    one.epilogue = DBT_NBITS_EPILOGUE_NONE;
    DBT_TRY(dbt_gpu_scratch(gpu, GATED, bytes, &one.y, error));
    one.y_offset = 0;
    DBT_TRY(record(&r));
    one.other = one.y;
    one.y = problem->y;
    one.y_offset = problem->y_offset;
    one.epilogue = problem->epilogue;
    r.first_row = problem->second_row;
    return record(&r);
}

/* Norms of rows on a device, as dispatches of norm_rows.wgsl. */
#include "ops/norm/norm.h"

enum {
    WORD = 2,
    POSITION = 3,
    SEGMENT = 4,
    MASK = 7,
    POSITION_IDS = 8
}; /* of EmbedLayerNormalization */

/* struct Uniforms of norm_rows.wgsl */
typedef struct rows_uniforms {
    uint32_t term_rows[4];
    uint32_t rows, n, groups, group_gains, per, gain_n, shift_n, inverse;
    float epsilon, share;
    uint32_t unused[2]; /* the struct's size is a multiple of a vec4's */
} rows_uniforms;

typedef struct rows_job {
    rows_uniforms uniforms;
    dbt_hal_buffer *term[3]; /* one after the other */
    int32_t n_terms;
    bool centred;
    dbt_hal_buffer *gain, *shift, *y, *sum, *mean, *inv; /* NULL where there is none */
} rows_job;

enum { OUT_Y, OUT_Y_AND_SUM, OUT_STATISTIC };

static dibit_status record(const dbt_gpu_call *call, const rows_job *job, int32_t out,
                           dbt_hal_buffer *y) {
    const bool scales = out != OUT_STATISTIC;
    const bool software = dbt_gpu_hal(call->gpu)->features & DBT_HAL_SOFTWARE;
    const dbt_shader_param params[] = {{"CENTRED", job->centred},
                                       {"TERMS", job->n_terms},
                                       {"SHIFT", scales && job->shift},
                                       {"OUT", out},
                                       {"LANES", job->uniforms.n <= 256 ? 64
                                                 : software             ? 4
                                                                        : 256}};
    const dbt_hal_binding bindings[] = {
        {.buffer = job->term[0]},
        {.buffer = job->term[1]},
        {.buffer = job->term[2]},
        {.buffer = scales ? job->gain : NULL},
        {.buffer = scales ? job->shift : NULL},
        {.buffer = y},
        {.buffer = out == OUT_Y_AND_SUM ? job->sum : NULL},
    };
    dbt_gpu_dispatch dispatch = {.shader = "norm_rows.wgsl",
                                 .params = params,
                                 .n_params = sizeof params / sizeof *params,
                                 .bindings = bindings,
                                 .n_bindings = sizeof bindings / sizeof *bindings,
                                 .written = out == OUT_Y_AND_SUM ? 1 << 5 | 1 << 6 : 1 << 5,
                                 .uniforms = &job->uniforms,
                                 .uniform_bytes = sizeof job->uniforms};
    DBT_TRY(dbt_gpu_grid(call->gpu, job->uniforms.rows, dispatch.workgroups, call->error));
    return dbt_gpu_record(call->gpu, &dispatch, call->error);
}

static dibit_status record_all(const dbt_gpu_call *call, rows_job *job) {
    rows_uniforms *const u = &job->uniforms;
    if (u->rows == 0 || u->n == 0) return DIBIT_OK;
    u->share = 1.0f / (float)u->n;
    if (job->sum && !job->y) {
        DBT_TRY(dbt_gpu_scratch(call->gpu, 0, (uint64_t)u->rows * u->n * 4, &job->y, call->error));
    }
    if (job->y) DBT_TRY(record(call, job, job->sum ? OUT_Y_AND_SUM : OUT_Y, job->y));
    if (job->mean) DBT_TRY(record(call, job, OUT_STATISTIC, job->mean));
    u->inverse = 1;
    return job->inv ? record(call, job, OUT_STATISTIC, job->inv) : DIBIT_OK;
}

static dbt_hal_buffer *output(const dbt_gpu_call *call, uint32_t i) {
    return i < call->n_outputs ? call->out_buffers[i] : NULL;
}

static bool has(const dbt_gpu_call *call, uint32_t i) { return i < call->n_inputs && call->in[i]; }

static void add_term(const dbt_gpu_call *call, rows_job *job, uint32_t i) {
    const int64_t rows = dbt_tensor_count(call->in[i]) / job->uniforms.n;
    job->uniforms.term_rows[job->n_terms] = (uint32_t)rows;
    job->term[job->n_terms++] = call->in_buffers[i];
}

dibit_status dbt_norm_encode(const dbt_gpu_call *call) {
    const dbt_norm_attrs *const attrs = call->attrs;
    dbt_norm_layout l;
    DBT_TRY(dbt_norm_layout_of(call->node, call->in, call->error, &l));
    rows_job job = {.uniforms = {.rows = (uint32_t)l.rows,
                                 .n = (uint32_t)l.n,
                                 .groups = 1,
                                 .per = 1,
                                 .gain_n = (uint32_t)dbt_tensor_count(call->in[l.gain]),
                                 .epsilon = attrs->epsilon},
                    .centred = l.centred,
                    .gain = call->in_buffers[l.gain],
                    .y = output(call, 0)};
    job.mean = l.centred || l.skips ? output(call, 1) : NULL;
    job.inv = output(call, l.centred || l.skips ? 2 : 1);
    if (l.rows == 0 || l.n == 0) {
        DBT_FAIL_IF(l.rows > 0 && (job.mean || job.inv), call->error, DIBIT_UNSUPPORTED,
                    "statistics of rows without elements");
        return DIBIT_OK;
    }
    if (l.shift) {
        job.shift = call->in_buffers[l.shift];
        job.uniforms.shift_n = (uint32_t)dbt_tensor_count(call->in[l.shift]);
    }
    add_term(call, &job, 0);
    if (l.skips) {
        add_term(call, &job, 1);
        if (l.bias) add_term(call, &job, l.bias);
        job.sum = output(call, 3);
    }
    return record_all(call, &job);
}

dibit_status dbt_norm_gpu_record_rms(const dbt_gpu_call *call, const dbt_norm_gpu_rms *rms) {
    rows_job job = {.uniforms = {.term_rows = {(uint32_t)rms->rows},
                                 .rows = (uint32_t)rms->rows,
                                 .n = (uint32_t)rms->n,
                                 .groups = 1,
                                 .per = 1,
                                 .gain_n = (uint32_t)rms->n,
                                 .epsilon = rms->epsilon},
                    .term = {rms->x},
                    .n_terms = 1,
                    .gain = rms->gain,
                    .y = rms->y};
    return record_all(call, &job);
}

/* struct Uniforms of norm_embed.wgsl */
typedef struct embed_uniforms {
    uint32_t rows, n, words, positions, segments, position_period;
} embed_uniforms;

/* struct Uniforms of norm_mask_index.wgsl */
typedef struct mask_uniforms {
    uint32_t rows, sequence;
} mask_uniforms;

static dibit_status record_mask_index(const dbt_gpu_call *call) {
    const mask_uniforms uniforms = {(uint32_t)call->in[0]->dims[0], (uint32_t)call->in[0]->dims[1]};
    /* A mask without elements has no buffer. */
    dbt_hal_buffer *const mask = has(call, MASK) ? call->in_buffers[MASK] : NULL;
    const dbt_shader_param params[1] = {{"MASK", mask != NULL}};
    const dbt_hal_binding bindings[2] = {{.buffer = mask}, {.buffer = call->out_buffers[1]}};
    dbt_gpu_dispatch dispatch = {.shader = "norm_mask_index.wgsl",
                                 .params = params,
                                 .n_params = 1,
                                 .bindings = bindings,
                                 .n_bindings = 2,
                                 .written = 1 << 1,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    return dbt_gpu_record_over(call, &dispatch, uniforms.rows);
}

/* The embeddings are added into the third output, or into scratch, and normalized from there. */
dibit_status dbt_norm_embed_encode(const dbt_gpu_call *call) {
    const dbt_norm_attrs *const attrs = call->attrs;
    const dibit_tensor *const *const in = call->in;
    dbt_hal_buffer *const *const from = call->in_buffers;
    const bool positions = has(call, POSITION_IDS), segments = has(call, 1);
    DBT_TRY(dbt_norm_embed_check(call->node, in, call->error));
    const embed_uniforms uniforms = {
        .rows = (uint32_t)dbt_tensor_count(in[0]),
        .n = (uint32_t)in[WORD]->dims[1],
        .words = (uint32_t)in[WORD]->dims[0],
        .positions = (uint32_t)in[POSITION]->dims[0],
        .segments = segments ? (uint32_t)in[SEGMENT]->dims[0] : 0,
        .position_period =
            (uint32_t)(positions ? dbt_tensor_count(in[POSITION_IDS]) : in[0]->dims[1])};
    const int64_t count = (int64_t)uniforms.rows * uniforms.n;
    if (output(call, 1)) DBT_TRY(record_mask_index(call));
    if (count == 0) return DIBIT_OK;
    dbt_hal_buffer *sum = output(call, 2);
    if (!sum) DBT_TRY(dbt_gpu_scratch(call->gpu, 1, (uint64_t)count * 4, &sum, call->error));
    const dbt_shader_param params[2] = {{"POSITION_IDS", positions}, {"SEGMENTS", segments}};
    const dbt_hal_binding bindings[7] = {
        {.buffer = from[0]},
        {.buffer = from[WORD]},
        {.buffer = from[POSITION]},
        {.buffer = sum},
        {.buffer = positions ? from[POSITION_IDS] : NULL},
        {.buffer = segments ? from[1] : NULL},
        {.buffer = segments ? from[SEGMENT] : NULL},
    };
    dbt_gpu_dispatch dispatch = {.shader = "norm_embed.wgsl",
                                 .params = params,
                                 .n_params = 2,
                                 .bindings = bindings,
                                 .n_bindings = 7,
                                 .written = 1 << 3,
                                 .uniforms = &uniforms,
                                 .uniform_bytes = sizeof uniforms};
    DBT_TRY(dbt_gpu_record_over(call, &dispatch, count));
    rows_job job = {.uniforms = {.term_rows = {uniforms.rows},
                                 .rows = uniforms.rows,
                                 .n = uniforms.n,
                                 .groups = 1,
                                 .per = 1,
                                 .gain_n = uniforms.n,
                                 .shift_n = uniforms.n,
                                 .epsilon = attrs->epsilon},
                    .term = {sum},
                    .n_terms = 1,
                    .centred = true,
                    .gain = from[5],
                    .shift = from[6],
                    .y = output(call, 0)};
    return job.y ? record_all(call, &job) : DIBIT_OK;
}

dibit_status dbt_norm_group_encode(const dbt_gpu_call *call) {
    const dbt_norm_attrs *const attrs = call->attrs;
    dbt_norm_groups g;
    DBT_TRY(dbt_norm_groups_of(call->node, call->in, call->error, &g));
    if (g.rows == 0) return DIBIT_OK;
    const uint32_t gains = (uint32_t)(g.n / g.per);
    const rows_uniforms uniforms = {.term_rows = {(uint32_t)g.rows},
                                    .rows = (uint32_t)g.rows,
                                    .n = (uint32_t)g.n,
                                    .groups = (uint32_t)g.groups,
                                    .group_gains = gains,
                                    .per = (uint32_t)g.per,
                                    .gain_n = gains,
                                    .shift_n = gains,
                                    .epsilon = attrs->epsilon};
    rows_job job = {.uniforms = uniforms,
                    .term = {call->in_buffers[0]},
                    .n_terms = 1,
                    .centred = true,
                    .gain = call->in_buffers[1],
                    .shift = call->in_buffers[2],
                    .y = call->out_buffers[0]};
    return record_all(call, &job);
}

/* dibit.Sample on a device: passes of sample.wgsl over slices of 1024 until one is left, which draws. */
#include <string.h>

#include "ops/sample/sample.h"

enum { SLICE = 1024, DRAW_ROWS = 8 }; /* as in sample.wgsl */

/* struct Uniforms of sample.wgsl */
typedef struct sample_uniforms {
    uint32_t n, stride, first, row;
    float settings[DRAW_ROWS][4];
    uint32_t top_k[DRAW_ROWS];
} sample_uniforms;

typedef struct pass {
    dbt_hal_buffer *from, *to;
    bool first, half, many, draw;
    uint32_t slices, rows;
    sample_uniforms uniforms;
} pass;

static dibit_status record(const dbt_gpu_call *call, const pass *p) {
    const dbt_shader_param params[4] = {
        {"FIRST", p->first}, {"HALF", p->first && p->half}, {"MANY", p->many}, {"DRAW", p->draw}};
    const dbt_hal_binding bindings[2] = {{.buffer = p->from}, {.buffer = p->to}};
    const dbt_gpu_dispatch dispatch = {.shader = "sample.wgsl",
                                       .params = params,
                                       .n_params = 4,
                                       .bindings = bindings,
                                       .n_bindings = 2,
                                       .written = 1 << 1,
                                       .uniforms = &p->uniforms,
                                       .uniform_bytes = sizeof p->uniforms,
                                       .workgroups = {p->slices, p->rows, 1}};
    return dbt_gpu_record(call->gpu, &dispatch, call->error);
}

/* Draws rows [begin, begin + p->rows). */
static dibit_status draw(const dbt_gpu_call *call, pass *p, int64_t begin) {
    sample_uniforms *const u = &p->uniforms;
    for (uint32_t i = 0; i < p->rows; i++) {
        dbt_sample_row row;
        DBT_TRY(dbt_sample_settings(call->in[1], begin + i, &row, call->error));
        const float settings[4] = {row.temperature, row.top_p, row.lowest, row.random};
        memcpy(u->settings[i], settings, sizeof settings);
        u->top_k[i] = row.top_k;
    }
    u->row = (uint32_t)begin;
    DBT_TRY(record(call, p));
    u->first += p->rows * u->stride;
    return DIBIT_OK;
}

static dibit_status draws_at_random(const dbt_gpu_call *call, bool *random) {
    *random = false;
    for (int64_t b = 0; b < call->in[0]->dims[0]; b++) {
        dbt_sample_row row;
        DBT_TRY(dbt_sample_settings(call->in[1], b, &row, call->error));
        *random = *random || row.temperature > 0;
    }
    return DIBIT_OK;
}

dibit_status dbt_sample_encode(const dbt_gpu_call *call) {
    const dibit_tensor *const x = call->in[0];
    const int64_t batch = x->dims[0], rows = x->dims[1], vocabulary = x->dims[2];
    if (batch == 0) return DIBIT_OK;
    DBT_FAIL_IF(rows == 0 || vocabulary == 0, call->error, DIBIT_BAD_INPUT,
                "there are no logits to choose from");
    pass p = {.from = call->in_buffers[0],
              .first = true,
              .half = call->node->inputs[0]->type == DIBIT_TYPE_FLOAT16,
              .uniforms = {.n = (uint32_t)vocabulary,
                           .stride = (uint32_t)(rows * vocabulary),
                           .first = (uint32_t)((rows - 1) * vocabulary)}};
    DBT_TRY(draws_at_random(call, &p.many));
    sample_uniforms *const u = &p.uniforms;
    const uint32_t keep = p.many ? DBT_SAMPLE_MAX_K : 1;
    p.rows = (uint32_t)batch;
    for (uint32_t scratch = 0; u->n > SLICE; scratch ^= 1) {
        p.slices = (u->n + SLICE - 1) / SLICE;
        DBT_TRY(dbt_gpu_scratch(call->gpu, scratch, (uint64_t)batch * p.slices * keep * 8, &p.to,
                                call->error));
        DBT_TRY(record(call, &p));
        p.from = p.to;
        p.first = false;
        u->n = u->stride = p.slices * keep;
        u->first = 0;
    }
    p.to = call->out_buffers[0];
    p.draw = true;
    p.slices = 1;
    for (int64_t begin = 0; begin < batch; begin += DRAW_ROWS) {
        p.rows = (uint32_t)(batch - begin < DRAW_ROWS ? batch - begin : DRAW_ROWS);
        DBT_TRY(draw(call, &p, begin));
    }
    return DIBIT_OK;
}

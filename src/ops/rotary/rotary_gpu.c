/* The rotary ops on a device. Positions are known on the host: those that follow each other are uniforms. */
#include "ops/rotary/rotary_op.h"

typedef struct uniforms { /* Uniforms of rotary.wgsl */
    uint32_t half, rotary_interleaved, unused[2];
    uint32_t count, dim, heads, tokens, head_stride, token_stride;
    uint32_t position, position_stride, has_positions, n_positions;
    uint32_t interleaved, unused_before_sections;
    uint32_t sections[4]; /* a vec3 */
} uniforms;

enum { POSITIONS, BLOCK = 64, WORKGROUP = 256 };

/* Whether token s of every batch row b stands at *first + b * *stride + s. */
static bool follows(const dbt_rotary *r, int64_t *first, int64_t *stride) {
    *first = dbt_rotary_position(r, 0, 0);
    *stride = r->batch > 1 ? dbt_rotary_position(r, 1, 0) - *first : 0;
    if (r->streams > 1 || *stride < 0) return false;
    for (int64_t i = 0; i < r->batch * r->tokens; i++) {
        const int64_t b = i / r->tokens, s = i % r->tokens;
        if (dbt_rotary_position(r, b, s) != *first + b * *stride + s) return false;
    }
    return true;
}

static dibit_status write_positions(const dbt_gpu_call *c, const dbt_rotary *r,
                                    dbt_hal_buffer **out) {
    int32_t block[BLOCK];
    const int64_t count = r->ids_count;
    DBT_TRY(dbt_gpu_scratch(c->gpu, POSITIONS, (uint64_t)count * sizeof *block, out, c->error));
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t n = count - first < BLOCK ? count - first : BLOCK;
        for (int64_t i = 0; i < n; i++) block[i] = (int32_t)r->ids[first + i];
        DBT_TRY(dbt_gpu_write(c->gpu, *out, (uint64_t)first * sizeof *block, block,
                              (uint64_t)n * sizeof *block, c->error));
    }
    return DIBIT_OK;
}

dibit_status dbt_rotary_gpu_encode(const dbt_gpu_call *c) {
    const uint32_t cos = dbt_rotary_cos_input(c->node);
    dbt_rotary r;
    DBT_TRY(dbt_rotary_read(c->node, c->in, c->n_inputs, &r, c->error));
    const int64_t count = r.batch * r.tokens * r.heads * r.dim;
    if (count == 0) return DIBIT_OK;
    DBT_FAIL_IF(count > INT32_MAX, c->error, DIBIT_TOO_LARGE, "%lld elements", (long long)count);
    uniforms u = {.half = (uint32_t)r.half,
                  .rotary_interleaved = r.a->interleaved == 1,
                  .count = (uint32_t)count,
                  .dim = (uint32_t)r.dim,
                  .heads = (uint32_t)r.heads,
                  .tokens = (uint32_t)r.tokens,
                  .head_stride = (uint32_t)r.head_stride,
                  .token_stride = (uint32_t)r.token_stride,
                  .n_positions = (uint32_t)(r.batch * r.tokens),
                  .interleaved = r.a->mrope_layout == DBT_ROTARY_INTERLEAVED};
    if (r.streams == 1) { /* one stream turns all pairs */
        u.interleaved = 0;
        u.sections[0] = u.half;
    }
    for (int i = 0; i < 3 && r.streams > 1; i++) {
        u.sections[i] = (uint32_t)r.a->mrope_section.v[i];
    }
    dbt_hal_binding bindings[] = {{.buffer = c->in_buffers[0]},
                                  {.buffer = c->out_buffers[0]},
                                  {.buffer = c->in_buffers[cos]},
                                  {.buffer = c->in_buffers[cos + 1]},
                                  {.buffer = c->in_buffers[0]}};
    /* Caches without rows turn nothing. */
    for (int i = 2; i < 4; i++) {
        if (!bindings[i].buffer) bindings[i].buffer = c->in_buffers[0];
    }
    int64_t first, stride;
    if (follows(&r, &first, &stride)) {
        u.position = (uint32_t)first;
        u.position_stride = (uint32_t)stride;
    } else {
        u.has_positions = 1;
        DBT_TRY(write_positions(c, &r, &bindings[4].buffer));
    }
    dbt_gpu_dispatch d = {.shader = "rotary.wgsl",
                          .bindings = bindings,
                          .n_bindings = 5,
                          .written = 1u << 1,
                          .uniforms = &u,
                          .uniform_bytes = sizeof u};
    const uint64_t workgroups = ((uint64_t)count + WORKGROUP - 1) / WORKGROUP;
    DBT_TRY(dbt_gpu_grid(c->gpu, workgroups, d.workgroups, c->error));
    return dbt_gpu_record(c->gpu, &d, c->error);
}

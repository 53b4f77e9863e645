/* The HAL without a GPU: validates every command against limits and computes nothing. What was written
 * or copied can be read back; what a dispatch would have computed reads as it was before. */
#include <string.h>

#include "gpu/hal.h"

enum { MAX_READS = 16 };

/* Alive things form one list, so that destroying the device frees what is left. */
typedef struct thing {
    struct thing *next, **link;
    uint64_t bytes; /* of its allocation */
} thing;

struct dbt_hal_buffer {
    thing base;
    uint64_t bytes;
    unsigned char content[];
};

struct dbt_hal_pipeline {
    thing base;
    uint32_t bindings, written, uniform_bytes;
};

struct dbt_hal_group {
    thing base;
    const dbt_hal_pipeline *pipeline;
    uint64_t uniforms_bytes; /* of its uniform buffer */
};

typedef struct null_read {
    uint64_t ticket; /* 0: free */
    void *to;
    const unsigned char *from;
    uint64_t bytes;
} null_read;

typedef struct null_hal {
    dbt_hal base;
    dibit_allocator allocator;
    thing *things;
    uint32_t random; /* 0: never pending */
    uint32_t waits;  /* polls to answer PENDING before the next OK */
    uint64_t next_ticket;
    null_read reads[MAX_READS];
} null_hal;

static const dbt_hal_limits webgpu_defaults = {.max_buffer_bytes = 256u << 20,
                                               .max_binding_bytes = 128u << 20,
                                               .max_bindings = 8,
                                               .max_workgroups = 65535,
                                               .max_invocations = 256,
                                               .max_workgroup_bytes = 16384,
                                               .binding_alignment = 256,
                                               .uniform_alignment = 256};

static void draw_waits(null_hal *hal) {
    if (!hal->random) return;
    hal->random ^= hal->random << 13;
    hal->random ^= hal->random >> 17;
    hal->random ^= hal->random << 5;
    hal->waits = hal->random % 4;
}

/* ---- Things ---- */

static void *make(null_hal *hal, uint64_t bytes, const char *what, dibit_error *error) {
    thing *const t = dbt_alloc(&hal->allocator, bytes, 16);
    if (!t) {
        dbt_fail_memory(error, what, bytes);
        return NULL;
    }
    memset(t, 0, (size_t)bytes);
    *t = (thing){.next = hal->things, .link = &hal->things, .bytes = bytes};
    if (t->next) t->next->link = &t->next;
    hal->things = t;
    hal->base.counters.created++;
    return t;
}

static void release(null_hal *hal, thing *t) {
    *t->link = t->next;
    if (t->next) t->next->link = t->link;
    dbt_release(&hal->allocator, t, t->bytes);
}

static void null_destroy(dbt_hal *base) {
    null_hal *const hal = (null_hal *)base;
    while (hal->things) release(hal, hal->things);
    const dibit_allocator allocator = hal->allocator;
    dbt_release(&allocator, hal, sizeof *hal);
}

static dibit_status null_buffer_create(dbt_hal *base, uint64_t bytes, dbt_hal_buffer **out,
                                       dibit_error *error) {
    null_hal *const hal = (null_hal *)base;
    DBT_FAIL_IF(bytes == 0 || bytes > base->limits.max_buffer_bytes, error, DIBIT_TOO_LARGE,
                "a buffer of %llu bytes is beyond the device's limit of %llu",
                (unsigned long long)bytes, (unsigned long long)base->limits.max_buffer_bytes);
    bytes = (bytes + DBT_HAL_ALIGNMENT - 1) / DBT_HAL_ALIGNMENT * DBT_HAL_ALIGNMENT;
    dbt_hal_buffer *const buffer = make(hal, sizeof *buffer + bytes, "a buffer", error);
    if (!buffer) return DIBIT_OUT_OF_MEMORY;
    buffer->bytes = bytes;
    base->counters.buffers++;
    base->counters.buffer_bytes += bytes;
    *out = buffer;
    return DIBIT_OK;
}

static void null_buffer_destroy(dbt_hal *base, dbt_hal_buffer *buffer) {
    if (!buffer) return;
    base->counters.buffers--;
    base->counters.buffer_bytes -= buffer->bytes;
    release((null_hal *)base, &buffer->base);
}

static dibit_status null_pipeline_create(dbt_hal *base, const dbt_hal_pipeline_desc *desc,
                                         dbt_hal_pipeline **out, dibit_error *error) {
    uint32_t n = 0;
    for (uint32_t bits = desc->bindings; bits; bits >>= 1) n += bits & 1;
    DBT_FAIL_IF(n > base->limits.max_bindings, error, DIBIT_TOO_LARGE,
                "%s binds %u buffers, the device allows %u", desc->name, (unsigned)n,
                (unsigned)base->limits.max_bindings);
    DBT_FAIL_IF(desc->bindings >> DBT_HAL_MAX_BINDINGS || desc->written & ~desc->bindings ||
                    desc->uniform_bytes > DBT_HAL_MAX_UNIFORM_BYTES,
                error, DIBIT_BAD_ARGUMENT, "%s: its bindings contradict each other", desc->name);
    dbt_hal_pipeline *const pipeline =
        make((null_hal *)base, sizeof *pipeline, "a pipeline", error);
    if (!pipeline) return DIBIT_OUT_OF_MEMORY;
    pipeline->bindings = desc->bindings;
    pipeline->written = desc->written;
    pipeline->uniform_bytes = desc->uniform_bytes;
    base->counters.pipelines++;
    *out = pipeline;
    return DIBIT_OK;
}

static void null_pipeline_destroy(dbt_hal *base, dbt_hal_pipeline *pipeline) {
    if (!pipeline) return;
    base->counters.pipelines--;
    release((null_hal *)base, &pipeline->base);
}

/* WebGPU's rule: what a dispatch writes is bound once in it. */
static bool is_written_twice(const dbt_hal_pipeline *p, const dbt_hal_binding *bindings, uint32_t n,
                             uint32_t i) {
    for (uint32_t k = 0; k < n; k++) {
        if (k != i && p->bindings >> k & 1 && bindings[k].buffer == bindings[i].buffer) return true;
    }
    return false;
}

static dibit_status check_binding(const dbt_hal *hal, const dbt_hal_binding *b, uint32_t i,
                                  dibit_error *error) {
    DBT_FAIL_IF(!b->buffer, error, DIBIT_BAD_ARGUMENT, "binding %u is missing", (unsigned)i);
    DBT_FAIL_IF(b->offset % hal->limits.binding_alignment || b->offset >= b->buffer->bytes ||
                    b->bytes > b->buffer->bytes - b->offset,
                error, DIBIT_BAD_ARGUMENT, "binding %u does not fit its buffer", (unsigned)i);
    const uint64_t bytes = b->bytes ? b->bytes : b->buffer->bytes - b->offset;
    DBT_FAIL_IF(bytes > hal->limits.max_binding_bytes, error, DIBIT_TOO_LARGE,
                "binding %u of %llu bytes is beyond the device's limit of %llu", (unsigned)i,
                (unsigned long long)bytes, (unsigned long long)hal->limits.max_binding_bytes);
    return DIBIT_OK;
}

static dibit_status null_group_create(dbt_hal *base, dbt_hal_pipeline *pipeline,
                                      const dbt_hal_binding *bindings, uint32_t n,
                                      dbt_hal_buffer *uniforms, dbt_hal_group **out,
                                      dibit_error *error) {
    DBT_FAIL_IF(pipeline->bindings >> n, error, DIBIT_BAD_ARGUMENT, "bindings are missing");
    for (uint32_t i = 0; i < n; i++) {
        if (!(pipeline->bindings >> i & 1)) continue;
        DBT_TRY(check_binding(base, &bindings[i], i, error));
        DBT_FAIL_IF(pipeline->written >> i & 1 && is_written_twice(pipeline, bindings, n, i), error,
                    DIBIT_BAD_ARGUMENT, "binding %u is written and bound a second time",
                    (unsigned)i);
    }
    DBT_FAIL_IF(pipeline->uniform_bytes && !uniforms, error, DIBIT_BAD_ARGUMENT,
                "the uniforms are missing");
    dbt_hal_group *const group = make((null_hal *)base, sizeof *group, "a group", error);
    if (!group) return DIBIT_OUT_OF_MEMORY;
    group->pipeline = pipeline;
    group->uniforms_bytes = uniforms ? uniforms->bytes : 0;
    base->counters.groups++;
    *out = group;
    return DIBIT_OK;
}

static void null_group_destroy(dbt_hal *base, dbt_hal_group *group) {
    if (!group) return;
    base->counters.groups--;
    release((null_hal *)base, &group->base);
}

/* ---- Commands ---- */

static dibit_status check_range(const dbt_hal_buffer *buffer, uint64_t offset, uint64_t bytes,
                                dibit_error *error) {
    DBT_FAIL_IF(
        offset % DBT_HAL_ALIGNMENT || offset > buffer->bytes || bytes > buffer->bytes - offset,
        error, DIBIT_BAD_ARGUMENT, "%llu bytes at %llu do not fit a buffer of %llu",
        (unsigned long long)bytes, (unsigned long long)offset, (unsigned long long)buffer->bytes);
    return DIBIT_OK;
}

static dibit_status null_write(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset,
                               const void *data, uint64_t bytes, dibit_error *error) {
    DBT_TRY(check_range(buffer, offset, bytes, error));
    if (bytes) memcpy(buffer->content + offset, data, (size_t)bytes);
    base->counters.writes++;
    return DIBIT_OK;
}

static dibit_status null_copy(dbt_hal *base, dbt_hal_buffer *from, uint64_t from_offset,
                              dbt_hal_buffer *to, uint64_t to_offset, uint64_t bytes,
                              dibit_error *error) {
    DBT_FAIL_IF(from == to, error, DIBIT_BAD_ARGUMENT, "a copy needs two buffers");
    DBT_FAIL_IF(bytes % DBT_HAL_ALIGNMENT, error, DIBIT_BAD_ARGUMENT,
                "a copy of %llu bytes is not a multiple of %d", (unsigned long long)bytes,
                DBT_HAL_ALIGNMENT);
    DBT_TRY(check_range(from, from_offset, bytes, error));
    DBT_TRY(check_range(to, to_offset, bytes, error));
    if (bytes) memcpy(to->content + to_offset, from->content + from_offset, (size_t)bytes);
    base->counters.copies++;
    return DIBIT_OK;
}

static dibit_status null_dispatch(dbt_hal *base, const dbt_hal_dispatch *d, dibit_error *error) {
    DBT_FAIL_IF(d->group->pipeline != d->pipeline, error, DIBIT_BAD_ARGUMENT,
                "%s: the group is another pipeline's", d->name);
    DBT_FAIL_IF(d->uniforms_offset % base->limits.uniform_alignment ||
                    d->uniforms_offset + (uint64_t)d->pipeline->uniform_bytes >
                        d->group->uniforms_bytes,
                error, DIBIT_BAD_ARGUMENT, "%s: the uniforms do not fit their buffer", d->name);
    for (int i = 0; i < 3; i++) {
        DBT_FAIL_IF(d->workgroups[i] == 0 || d->workgroups[i] > base->limits.max_workgroups, error,
                    DIBIT_TOO_LARGE, "%s wants %u workgroups, the device allows %u", d->name,
                    (unsigned)d->workgroups[i], (unsigned)base->limits.max_workgroups);
    }
    base->counters.dispatches++;
    return DIBIT_OK;
}

static dibit_status null_submit(dbt_hal *base, dibit_error *error) {
    (void)error;
    base->counters.submits++;
    draw_waits((null_hal *)base);
    return DIBIT_OK;
}

/* ---- Reads ---- */

static dibit_status null_read_begin(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset,
                                    void *dst, uint64_t bytes, uint64_t *ticket,
                                    dibit_error *error) {
    null_hal *const hal = (null_hal *)base;
    DBT_TRY(check_range(buffer, offset, bytes, error));
    null_read *read = hal->reads;
    while (read < hal->reads + MAX_READS && read->ticket) read++;
    DBT_FAIL_IF(read == hal->reads + MAX_READS, error, DIBIT_BAD_STATE,
                "%d reads are under way already", MAX_READS);
    *read = (null_read){++hal->next_ticket, dst, buffer->content + offset, bytes};
    *ticket = read->ticket;
    base->counters.reads++;
    return null_submit(base, error);
}

static dibit_status null_poll(dbt_hal *base, uint64_t ticket, dibit_error *error) {
    (void)error;
    null_hal *const hal = (null_hal *)base;
    if (hal->waits > 0) {
        hal->waits--;
        return DIBIT_PENDING;
    }
    for (null_read *read = hal->reads; read < hal->reads + MAX_READS; read++) {
        if (!read->ticket || (ticket && read->ticket != ticket)) continue;
        if (read->bytes) memcpy(read->to, read->from, (size_t)read->bytes);
        read->ticket = 0;
    }
    return DIBIT_OK;
}

static void null_cancel(dbt_hal *base, uint64_t ticket) {
    null_hal *const hal = (null_hal *)base;
    for (null_read *read = hal->reads; read < hal->reads + MAX_READS; read++) {
        if (read->ticket == ticket) read->ticket = 0;
    }
}

static void null_profile(dbt_hal *base, bool on) {
    (void)base;
    (void)on;
}

static uint32_t null_timings(dbt_hal *base, uint64_t *ns, uint32_t n) {
    (void)base;
    (void)ns;
    (void)n;
    return 0;
}

dibit_status dbt_hal_null_create(const dibit_allocator *allocator, uint32_t pending_seed,
                                 dbt_hal **out, dibit_error *error) {
    static const dbt_hal_calls calls = {.destroy = null_destroy,
                                        .buffer_create = null_buffer_create,
                                        .buffer_destroy = null_buffer_destroy,
                                        .pipeline_create = null_pipeline_create,
                                        .pipeline_destroy = null_pipeline_destroy,
                                        .group_create = null_group_create,
                                        .group_destroy = null_group_destroy,
                                        .write = null_write,
                                        .write_ahead = null_write, /* dispatches read nothing */
                                        .copy = null_copy,
                                        .dispatch = null_dispatch,
                                        .submit = null_submit,
                                        .read = null_read_begin,
                                        .poll = null_poll,
                                        .cancel = null_cancel,
                                        .profile = null_profile,
                                        .timings = null_timings};
    null_hal *const hal = dbt_alloc(allocator, sizeof *hal, 16);
    if (!hal) return dbt_fail_memory(error, "a device", sizeof *hal);
    *hal = (null_hal){
        .base = {.calls = &calls, .name = "null", .limits = webgpu_defaults},
        .allocator = *allocator,
        .random = pending_seed,
    };
    *out = &hal->base;
    return DIBIT_OK;
}

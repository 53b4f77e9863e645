/* The HAL without a GPU: validates every command against limits, and buffers against what shaders declare,
 * and computes nothing. What was written
 * or copied can be read back; what a dispatch would have computed reads as it was before. */
#include <string.h>

#include "gpu/hal_common.h"

typedef struct null_buffer {
    dbt_hal_buffer base;
    unsigned char content[];
} null_buffer;

typedef struct null_read {
    uint64_t ticket; /* 0: free */
    void *to;
    dbt_block held; /* what the buffer held; kept for the next read */
    uint64_t bytes;
} null_read;

typedef struct null_hal {
    dbt_hal base;
    dbt_hal_objects objects;
    uint32_t random; /* 0: never pending */
    uint32_t waits;  /* polls to answer PENDING before the next OK */
    uint64_t next_ticket;
    null_read reads[DBT_HAL_MAX_READS];
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

/* ---- Objects ---- */

static void null_destroy(dbt_hal *base) {
    null_hal *const hal = (null_hal *)base;
    for (int i = 0; i < DBT_HAL_MAX_READS; i++) {
        dbt_block_free(&hal->reads[i].held, &hal->objects.allocator);
    }
    while (hal->objects.first) dbt_hal_object_free(&hal->objects, hal->objects.first);
    const dibit_allocator allocator = hal->objects.allocator;
    dbt_release(&allocator, hal, sizeof *hal);
}

static dibit_status null_buffer_create(dbt_hal *base, uint64_t bytes, dbt_hal_buffer **out,
                                       dibit_error *error) {
    const uint64_t content = dbt_hal_round(bytes, DBT_HAL_ALIGNMENT);
    return dbt_hal_buffer_make(&((null_hal *)base)->objects, sizeof(null_buffer) + content, bytes,
                               out, error);
}

static void null_buffer_destroy(dbt_hal *base, dbt_hal_buffer *buffer) {
    if (buffer) dbt_hal_object_free(&((null_hal *)base)->objects, &buffer->object);
}

static unsigned char *content_of(dbt_hal_buffer *buffer, uint64_t offset) {
    return ((null_buffer *)buffer)->content + offset;
}

/* Of a line of WGSL that declares a storage buffer: its bit among the bindings, else 0. */
static uint32_t declared_binding(const char *line, size_t n, bool *written) {
    static const char start[] = "@group(0) @binding(", kind[] = "var<storage, ";
    size_t at = sizeof start - 1;
    uint32_t number = 0;
    if (n < at || memcmp(line, start, at) != 0) return 0;
    for (; at < n && line[at] >= '0' && line[at] <= '9'; at++) {
        number = number * 10 + (uint32_t)(line[at] - '0');
    }
    at += 2; /* ") " */
    if (number == 0 || number > 32 || at + sizeof kind + 10 > n) return 0;
    if (memcmp(line + at, kind, sizeof kind - 1) != 0) return 0;
    *written = memcmp(line + at + sizeof kind - 1, "read_write", 10) == 0;
    return 1u << (number - 1);
}

/* A real device wants a buffer for every one that the shader uses, and the same access; the null device
 * wants that of every one that it declares, a line each. */
static dibit_status check_declarations(const dbt_hal_pipeline_desc *desc, dibit_error *error) {
    const char *line = desc->wgsl, *const end = desc->wgsl + desc->wgsl_bytes;
    while (line < end) {
        const char *const newline = memchr(line, '\n', (size_t)(end - line));
        const size_t n = (size_t)((newline ? newline : end) - line);
        bool written = false;
        const uint32_t bit = declared_binding(line, n, &written);
        DBT_FAIL_IF(bit & ~desc->bindings, error, DIBIT_BAD_ARGUMENT,
                    "%s: no buffer for what it declares: %.*s", desc->name, (int)n, line);
        DBT_FAIL_IF(bit && written != ((desc->written & bit) != 0), error, DIBIT_BAD_ARGUMENT,
                    "%s: its other access is asked for: %.*s", desc->name, (int)n, line);
        line += n + 1;
    }
    return DIBIT_OK;
}

static dibit_status null_pipeline_create(dbt_hal *base, const dbt_hal_pipeline_desc *desc,
                                         dbt_hal_pipeline **out, dibit_error *error) {
    DBT_TRY(check_declarations(desc, error));
    return dbt_hal_pipeline_make(&((null_hal *)base)->objects, sizeof **out, desc, out, error);
}

static void null_pipeline_destroy(dbt_hal *base, dbt_hal_pipeline *pipeline) {
    if (pipeline) dbt_hal_object_free(&((null_hal *)base)->objects, &pipeline->object);
}

static dibit_status null_group_create(dbt_hal *base, dbt_hal_pipeline *pipeline,
                                      const dbt_hal_binding *bindings, uint32_t n,
                                      dbt_hal_buffer *uniforms, dbt_hal_group **out,
                                      dibit_error *error) {
    return dbt_hal_group_make(&((null_hal *)base)->objects, sizeof **out, pipeline, bindings, n,
                              uniforms, out, error);
}

static void null_group_destroy(dbt_hal *base, dbt_hal_group *group) {
    if (group) dbt_hal_object_free(&((null_hal *)base)->objects, &group->object);
}

/* ---- Commands ---- */

static dibit_status null_write(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset,
                               const void *data, uint64_t bytes, dibit_error *error) {
    DBT_TRY(dbt_hal_check_range(buffer, offset, bytes, error));
    unsigned char *const to = content_of(buffer, offset);
    if (bytes) memcpy(to, data, (size_t)bytes);
    memset(to + bytes, 0, (size_t)(dbt_hal_round(bytes, DBT_HAL_ALIGNMENT) - bytes));
    base->counters.writes++;
    return DIBIT_OK;
}

static dibit_status null_copy(dbt_hal *base, dbt_hal_buffer *from, uint64_t from_offset,
                              dbt_hal_buffer *to, uint64_t to_offset, uint64_t bytes,
                              dibit_error *error) {
    DBT_TRY(dbt_hal_check_copy(from, from_offset, to, to_offset, bytes, error));
    if (bytes) memcpy(content_of(to, to_offset), content_of(from, from_offset), (size_t)bytes);
    base->counters.copies++;
    return DIBIT_OK;
}

static dibit_status null_dispatch(dbt_hal *base, const dbt_hal_dispatch *d, dibit_error *error) {
    DBT_TRY(dbt_hal_check_dispatch(base, d, error));
    base->counters.dispatches++;
    return DIBIT_OK;
}

static dibit_status null_submit(dbt_hal *base, dibit_error *error) {
    DBT_TRY(dbt_hal_before_submit(base, error));
    base->counters.submits++;
    draw_waits((null_hal *)base);
    return DIBIT_OK;
}

/* ---- Reads ---- */

static dibit_status null_read_begin(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset,
                                    void *dst, uint64_t bytes, uint64_t *ticket,
                                    dibit_error *error) {
    null_hal *const hal = (null_hal *)base;
    DBT_TRY(dbt_hal_check_range(buffer, offset, bytes, error));
    null_read *read = hal->reads;
    while (read < hal->reads + DBT_HAL_MAX_READS && read->ticket) read++;
    DBT_FAIL_IF(read == hal->reads + DBT_HAL_MAX_READS, error, DIBIT_BAD_STATE,
                "%d reads are under way already", DBT_HAL_MAX_READS);
    if (!dbt_block_reserve(&read->held, &hal->objects.allocator, bytes + 1)) {
        return dbt_fail_memory(error, "a read", bytes);
    }
    memcpy(read->held.data, content_of(buffer, offset), (size_t)bytes);
    read->to = dst;
    read->bytes = bytes;
    *ticket = read->ticket = ++hal->next_ticket;
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
    for (null_read *read = hal->reads; read < hal->reads + DBT_HAL_MAX_READS; read++) {
        if (!read->ticket || (ticket && read->ticket != ticket)) continue;
        if (read->bytes) memcpy(read->to, read->held.data, (size_t)read->bytes);
        read->ticket = 0;
    }
    return DIBIT_OK;
}

static void null_cancel(dbt_hal *base, uint64_t ticket) {
    null_hal *const hal = (null_hal *)base;
    for (null_read *read = hal->reads; read < hal->reads + DBT_HAL_MAX_READS; read++) {
        if (ticket && read->ticket == ticket) read->ticket = 0;
    }
}

static dibit_status null_time(dbt_hal *base, dbt_hal_timing timing, dibit_error *error) {
    (void)base;
    (void)timing;
    (void)error;
    return DIBIT_OK;
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
                                        .time = null_time,
                                        .timings = null_timings};
    null_hal *const hal = dbt_alloc(allocator, sizeof *hal, 16);
    if (!hal) return dbt_fail_memory(error, "a device", sizeof *hal);
    *hal = (null_hal){
        .base = {.calls = &calls,
                 .name = "null",
                 .features = DBT_HAL_NULL,
                 .limits = webgpu_defaults},
        .random = pending_seed,
    };
    hal->objects = (dbt_hal_objects){.hal = &hal->base, .allocator = *allocator};
    *out = &hal->base;
    return DIBIT_OK;
}

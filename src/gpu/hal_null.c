/* The HAL without a GPU: validates every command against limits and computes nothing. What was written
 * can be read back; what a dispatch would have computed reads as zeros. */
#include <string.h>

#include "gpu/hal.h"

struct dbt_hal_buffer {
    uint64_t bytes;
    unsigned char *content; /* as written; a dispatch cannot change it */
};

typedef struct null_hal {
    dbt_hal base;
    dibit_allocator allocator;
    uint32_t random; /* 0: never pending */
    uint32_t waits;  /* polls to answer PENDING before the next OK */
    void *read_to;
    const unsigned char *read_from;
    uint64_t read_bytes;
} null_hal;

static const dbt_hal_limits webgpu_defaults = {.max_buffer_bytes = 256u << 20,
                                               .max_binding_bytes = 128u << 20,
                                               .max_bindings = 8,
                                               .max_workgroups = 65535};

static void draw_waits(null_hal *hal) {
    if (!hal->random) return;
    hal->random ^= hal->random << 13;
    hal->random ^= hal->random >> 17;
    hal->random ^= hal->random << 5;
    hal->waits = hal->random % 4;
}

static void null_destroy(dbt_hal *base) {
    null_hal *const hal = (null_hal *)base;
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
    dbt_hal_buffer *const buffer = dbt_alloc(&hal->allocator, sizeof *buffer, 16);
    unsigned char *const content = dbt_alloc(&hal->allocator, bytes, 16);
    if (!buffer || !content) {
        dbt_release(&hal->allocator, buffer, sizeof *buffer);
        dbt_release(&hal->allocator, content, bytes);
        return dbt_fail_memory(error, "a buffer", bytes);
    }
    memset(content, 0, (size_t)bytes);
    *buffer = (dbt_hal_buffer){.bytes = bytes, .content = content};
    base->counters.buffers++;
    base->counters.buffer_bytes += bytes;
    *out = buffer;
    return DIBIT_OK;
}

static void null_buffer_destroy(dbt_hal *base, dbt_hal_buffer *buffer) {
    null_hal *const hal = (null_hal *)base;
    if (!buffer) return;
    base->counters.buffers--;
    base->counters.buffer_bytes -= buffer->bytes;
    dbt_release(&hal->allocator, buffer->content, buffer->bytes);
    dbt_release(&hal->allocator, buffer, sizeof *buffer);
}

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

static dibit_status null_dispatch(dbt_hal *base, const dbt_hal_dispatch *d, dibit_error *error) {
    DBT_FAIL_IF(d->n_buffers > base->limits.max_bindings, error, DIBIT_TOO_LARGE,
                "%s binds %u buffers, the device allows %u", d->name, (unsigned)d->n_buffers,
                (unsigned)base->limits.max_bindings);
    for (uint32_t i = 0; i < d->n_buffers; i++) {
        DBT_FAIL_IF(!d->buffers[i] || d->buffers[i]->bytes > base->limits.max_binding_bytes, error,
                    DIBIT_TOO_LARGE, "binding %u of %s is missing or beyond the device's limit",
                    (unsigned)i, d->name);
    }
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

static dibit_status null_read(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                              uint64_t bytes, dibit_error *error) {
    null_hal *const hal = (null_hal *)base;
    DBT_FAIL_IF(hal->read_to, error, DIBIT_BAD_STATE, "a read is under way already");
    DBT_TRY(check_range(buffer, offset, bytes, error));
    hal->read_to = dst;
    hal->read_from = buffer->content + offset;
    hal->read_bytes = bytes;
    base->counters.reads++;
    draw_waits(hal);
    return DIBIT_OK;
}

static dibit_status null_poll(dbt_hal *base, dibit_error *error) {
    (void)error;
    null_hal *const hal = (null_hal *)base;
    if (hal->waits > 0) {
        hal->waits--;
        return DIBIT_PENDING;
    }
    if (hal->read_to && hal->read_bytes)
        memcpy(hal->read_to, hal->read_from, (size_t)hal->read_bytes);
    hal->read_to = NULL;
    return DIBIT_OK;
}

static void null_cancel(dbt_hal *base) { ((null_hal *)base)->read_to = NULL; }

dibit_status dbt_hal_null_create(const dibit_allocator *allocator, uint32_t pending_seed,
                                 dbt_hal **out, dibit_error *error) {
    static const dbt_hal_calls calls = {.destroy = null_destroy,
                                        .buffer_create = null_buffer_create,
                                        .buffer_destroy = null_buffer_destroy,
                                        .write = null_write,
                                        .dispatch = null_dispatch,
                                        .submit = null_submit,
                                        .read = null_read,
                                        .poll = null_poll,
                                        .cancel = null_cancel};
    null_hal *const hal = dbt_alloc(allocator, sizeof *hal, 16);
    if (!hal) return dbt_fail_memory(error, "a device", sizeof *hal);
    *hal = (null_hal){.base = {.calls = &calls, .name = "null", .limits = webgpu_defaults},
                      .allocator = *allocator,
                      .random = pending_seed};
    *out = &hal->base;
    return DIBIT_OK;
}

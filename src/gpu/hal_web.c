/* The HAL of a wasm build: see hal_web.h. Commands are checked here and encoded by the page as they come.
 * What the GPU finds out later (errors, loss) the page keeps for the next call. */
#include "gpu/hal_web.h"

#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "base/source_web.h"
#include "gpu/hal_common.h"

_Static_assert(sizeof(dbt_web_device_info) == 256, "web/src/gpu.ts writes this layout");
_Static_assert(sizeof(void *) == 4, "the page sees 32-bit addresses");

/* ---- The page's side ---- */

/* A binding as the page reads it. */
typedef struct web_binding {
    uint64_t offset, bytes;
    uint32_t binding, buffer, is_uniform, written;
} web_binding;

#define PAGE(name) __attribute__((import_module("dibit_gpu"), import_name(name)))

PAGE("open") extern int32_t page_open(uint32_t device, dbt_web_device_info *info);
PAGE("close") extern void page_close(uint32_t device);
/* What has gone wrong since the last call: OK, or a status with its sentence in *error. */
PAGE("status") extern dibit_status page_status(uint32_t device, dibit_error *error);
PAGE("buffer") extern uint32_t page_buffer(uint32_t device, uint64_t bytes);
PAGE("pipeline")
extern uint32_t page_pipeline(uint32_t device, const char *name, size_t name_bytes,
                              const char *wgsl, size_t wgsl_bytes, uint32_t bindings,
                              uint32_t written, uint32_t uniform_bytes);
PAGE("group")
extern uint32_t page_group(uint32_t device, uint32_t pipeline, const web_binding *bindings,
                           uint32_t n);
/* Any object; what was submitted with it goes on. */
PAGE("release") extern void page_release(uint32_t device, uint32_t object);
PAGE("write")
extern void page_write(uint32_t device, uint32_t buffer, uint64_t offset, const void *data,
                       size_t bytes);
/* From a source of the page's: nothing passes through this memory. */
PAGE("write_source")
extern dibit_status page_write_source(uint32_t device, uint32_t buffer, uint64_t offset,
                                      uint32_t source, uint64_t from, uint64_t bytes,
                                      dibit_error *error);
PAGE("copy")
extern void page_copy(uint32_t device, uint32_t from, uint64_t from_offset, uint32_t to,
                      uint64_t to_offset, uint64_t bytes);
PAGE("dispatch")
extern void page_dispatch(uint32_t device, uint32_t pipeline, uint32_t group, int32_t offset,
                          uint32_t x, uint32_t y, uint32_t z,
                          int32_t may_fail); /* offset < 0: no uniforms */
PAGE("submit") extern void page_submit(uint32_t device);
/* Submits, copies the bytes and writes them to dst later; the ticket is not 0. */
PAGE("read")
extern uint32_t page_read(uint32_t device, uint32_t buffer, uint64_t offset, void *dst,
                          size_t bytes);
/* Not 0 when the read (0: everything submitted) is done. */
PAGE("done") extern int32_t page_done(uint32_t device, uint32_t ticket);
PAGE("cancel") extern void page_cancel(uint32_t device, uint32_t ticket);
/* A dbt_hal_timing, from now on. Nothing is recorded and not submitted. */
PAGE("time") extern void page_time(uint32_t device, uint32_t timing);
PAGE("timings") extern uint32_t page_timings(uint32_t device, uint64_t *ns, uint32_t n);

/* ---- Objects ---- */

typedef struct web_buffer {
    dbt_hal_buffer base;
    uint32_t number;
} web_buffer;

typedef struct web_pipeline {
    dbt_hal_pipeline base;
    uint32_t number;
} web_pipeline;

typedef struct web_group {
    dbt_hal_group base;
    uint32_t number;
} web_group;

typedef struct web_hal {
    dbt_hal base;
    dbt_hal_objects objects;
    dbt_web_device_info info;
    uint32_t device;
    bool recorded; /* commands since the last submit */
    bool lost;
    dibit_error fault; /* of a lost device */
} web_hal;

static web_hal *web_of(dbt_hal *hal) { return (web_hal *)hal; }

static uint32_t buffer_number(const dbt_hal_buffer *b) { return ((const web_buffer *)b)->number; }

static dibit_status check(web_hal *hal, dibit_error *error) {
    dibit_error now = {DIBIT_OK, ""};
    if (!hal->lost) {
        if (page_status(hal->device, &now) == DIBIT_OK) return DIBIT_OK;
        hal->lost = now.status == DIBIT_DEVICE_LOST;
        hal->fault = now;
    }
    const dibit_error *const fault = &hal->fault;
    return dbt_fail(error, fault->status, "%s: %.300s", hal->base.name, fault->text);
}

static void free_object(web_hal *hal, dbt_hal_object *object) {
    const uint32_t number = object->kind == DBT_HAL_BUFFER     ? ((web_buffer *)object)->number
                            : object->kind == DBT_HAL_PIPELINE ? ((web_pipeline *)object)->number
                                                               : ((web_group *)object)->number;
    page_release(hal->device, number);
    dbt_hal_object_free(&hal->objects, object);
}

static dibit_status web_buffer_create(dbt_hal *base, uint64_t bytes, dbt_hal_buffer **out,
                                      dibit_error *error) {
    web_hal *const hal = web_of(base);
    DBT_TRY(check(hal, error));
    DBT_TRY(dbt_hal_buffer_make(&hal->objects, sizeof(web_buffer), bytes, out, error));
    ((web_buffer *)*out)->number =
        page_buffer(hal->device, dbt_hal_round(bytes, DBT_HAL_BINDING_UNIT));
    return DIBIT_OK;
}

static void web_buffer_destroy(dbt_hal *base, dbt_hal_buffer *buffer) {
    if (buffer) free_object(web_of(base), &buffer->object);
}

static dibit_status web_pipeline_create(dbt_hal *base, const dbt_hal_pipeline_desc *desc,
                                        dbt_hal_pipeline **out, dibit_error *error) {
    web_hal *const hal = web_of(base);
    DBT_TRY(check(hal, error));
    DBT_TRY(dbt_hal_pipeline_make(&hal->objects, sizeof(web_pipeline), desc, out, error));
    ((web_pipeline *)*out)->number =
        page_pipeline(hal->device, desc->name, strlen(desc->name), desc->wgsl, desc->wgsl_bytes,
                      desc->bindings, desc->written, (*out)->uniform_bytes);
    return DIBIT_OK;
}

static void web_pipeline_destroy(dbt_hal *base, dbt_hal_pipeline *pipeline) {
    if (pipeline) free_object(web_of(base), &pipeline->object);
}

static dibit_status web_group_create(dbt_hal *base, dbt_hal_pipeline *pipeline,
                                     const dbt_hal_binding *bindings, uint32_t n,
                                     dbt_hal_buffer *uniforms, dbt_hal_group **out,
                                     dibit_error *error) {
    web_hal *const hal = web_of(base);
    DBT_TRY(check(hal, error));
    DBT_TRY(dbt_hal_group_make(&hal->objects, sizeof(web_group), pipeline, bindings, n, uniforms,
                               out, error));
    web_binding entries[DBT_HAL_MAX_BINDINGS + 1];
    uint32_t count = 0;
    if (pipeline->uniform_bytes) {
        entries[count++] = (web_binding){
            .bytes = pipeline->uniform_bytes, .buffer = buffer_number(uniforms), .is_uniform = 1};
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!(pipeline->bindings >> i & 1)) continue;
        const dbt_hal_binding *const b = &bindings[i];
        const uint64_t bytes = b->bytes ? b->bytes : b->buffer->bytes - b->offset;
        entries[count++] = (web_binding){.offset = b->offset,
                                         .bytes = dbt_hal_round(bytes, DBT_HAL_BINDING_UNIT),
                                         .binding = i + 1,
                                         .buffer = buffer_number(b->buffer),
                                         .written = pipeline->written >> i & 1};
    }
    ((web_group *)*out)->number =
        page_group(hal->device, ((web_pipeline *)pipeline)->number, entries, count);
    return DIBIT_OK;
}

static void web_group_destroy(dbt_hal *base, dbt_hal_group *group) {
    if (group) free_object(web_of(base), &group->object);
}

/* ---- Commands ---- */

static dibit_status web_submit(dbt_hal *base, dibit_error *error) {
    web_hal *const hal = web_of(base);
    DBT_TRY(check(hal, error));
    if (!hal->recorded) return DIBIT_OK;
    base->counters.submits++;
    const uint64_t start = dbt_os_nanoseconds();
    const dibit_status status = dbt_hal_before_submit(base, error);
    if (status == DIBIT_OK) {
        hal->recorded = false;
        page_submit(hal->device);
    }
    base->counters.submit_ns += dbt_os_nanoseconds() - start;
    return status;
}

static dibit_status web_write_ahead(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset,
                                    const void *data, uint64_t bytes, dibit_error *error) {
    web_hal *const hal = web_of(base);
    DBT_TRY(check(hal, error));
    DBT_TRY(dbt_hal_check_range(buffer, offset, bytes, error));
    const uint64_t whole = bytes / DBT_HAL_ALIGNMENT * DBT_HAL_ALIGNMENT;
    if (whole) page_write(hal->device, buffer_number(buffer), offset, data, (size_t)whole);
    if (whole < bytes) {
        unsigned char last[DBT_HAL_ALIGNMENT] = {0};
        memcpy(last, (const char *)data + whole, (size_t)(bytes - whole));
        page_write(hal->device, buffer_number(buffer), offset + whole, last, sizeof last);
    }
    base->counters.writes++;
    return DIBIT_OK;
}

static dibit_status web_write(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset,
                              const void *data, uint64_t bytes, dibit_error *error) {
    if (web_of(base)->recorded) DBT_TRY(web_submit(base, error));
    return web_write_ahead(base, buffer, offset, data, bytes, error);
}

static dibit_status web_write_source(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset,
                                     const dibit_source *source, uint64_t from, uint64_t bytes,
                                     dibit_error *error) {
    web_hal *const hal = web_of(base);
    const int64_t number = dbt_source_web_number(source);
    if (number < 0) return DIBIT_UNSUPPORTED;
    DBT_TRY(check(hal, error));
    DBT_TRY(dbt_hal_check_range(buffer, offset, bytes, error));
    if (hal->recorded) DBT_TRY(web_submit(base, error));
    dibit_error ignored;
    const dibit_status status =
        page_write_source(hal->device, buffer_number(buffer), offset, (uint32_t)number, from, bytes,
                          error ? error : &ignored);
    if (status == DIBIT_OK) base->counters.writes++;
    return status;
}

static dibit_status web_copy(dbt_hal *base, dbt_hal_buffer *from, uint64_t from_offset,
                             dbt_hal_buffer *to, uint64_t to_offset, uint64_t bytes,
                             dibit_error *error) {
    web_hal *const hal = web_of(base);
    DBT_TRY(check(hal, error));
    DBT_TRY(dbt_hal_check_copy(from, from_offset, to, to_offset, bytes, error));
    if (bytes) {
        page_copy(hal->device, buffer_number(from), from_offset, buffer_number(to), to_offset,
                  bytes);
        hal->recorded = true;
    }
    base->counters.copies++;
    return DIBIT_OK;
}

static dibit_status web_dispatch(dbt_hal *base, const dbt_hal_dispatch *d, dibit_error *error) {
    web_hal *const hal = web_of(base);
    if (hal->lost) return check(hal, error);
    DBT_TRY(dbt_hal_check_dispatch(base, d, error));
    page_dispatch(hal->device, ((const web_pipeline *)d->pipeline)->number,
                  ((const web_group *)d->group)->number,
                  d->pipeline->uniform_bytes ? (int32_t)d->uniforms_offset : -1, d->workgroups[0],
                  d->workgroups[1], d->workgroups[2], base->may_fail);
    hal->recorded = true;
    base->counters.dispatches++;
    return DIBIT_OK;
}

static dibit_status web_read(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                             uint64_t bytes, uint64_t *ticket, dibit_error *error) {
    web_hal *const hal = web_of(base);
    DBT_TRY(dbt_hal_check_range(buffer, offset, bytes, error));
    DBT_TRY(web_submit(base, error));
    *ticket = page_read(hal->device, buffer_number(buffer), offset, dst, (size_t)bytes);
    base->counters.reads++;
    return DIBIT_OK;
}

static dibit_status web_poll(dbt_hal *base, uint64_t ticket, dibit_error *error) {
    web_hal *const hal = web_of(base);
    const dibit_status status = check(hal, error);
    if (status != DIBIT_OK) {
        page_cancel(hal->device, (uint32_t)ticket);
        return status;
    }
    return page_done(hal->device, (uint32_t)ticket) ? DIBIT_OK : DIBIT_PENDING;
}

static void web_cancel(dbt_hal *base, uint64_t ticket) {
    page_cancel(web_of(base)->device, (uint32_t)ticket);
}

static dibit_status web_time(dbt_hal *base, dbt_hal_timing timing, dibit_error *error) {
    web_hal *const hal = web_of(base);
    DBT_TRY(check(hal, error));
    if (!(base->features & DBT_HAL_TIMESTAMPS)) return DIBIT_OK;
    if (hal->recorded) DBT_TRY(web_submit(base, error));
    page_time(hal->device, timing);
    return DIBIT_OK;
}

static uint32_t web_timings(dbt_hal *base, uint64_t *ns, uint32_t n) {
    return page_timings(web_of(base)->device, ns, n);
}

/* ---- The device ---- */

static void web_destroy(dbt_hal *base) {
    web_hal *const hal = web_of(base);
    while (hal->objects.first) free_object(hal, hal->objects.first);
    page_close(hal->device);
    const dibit_allocator allocator = hal->objects.allocator;
    dbt_release(&allocator, hal, sizeof *hal);
}

dibit_status dbt_hal_web_create(const dibit_allocator *allocator, uint32_t device, dbt_hal **out,
                                dibit_error *error) {
    static const dbt_hal_calls calls = {.destroy = web_destroy,
                                        .buffer_create = web_buffer_create,
                                        .buffer_destroy = web_buffer_destroy,
                                        .pipeline_create = web_pipeline_create,
                                        .pipeline_destroy = web_pipeline_destroy,
                                        .group_create = web_group_create,
                                        .group_destroy = web_group_destroy,
                                        .write = web_write,
                                        .write_ahead = web_write_ahead,
                                        .write_source = web_write_source,
                                        .copy = web_copy,
                                        .dispatch = web_dispatch,
                                        .submit = web_submit,
                                        .read = web_read,
                                        .poll = web_poll,
                                        .cancel = web_cancel,
                                        .time = web_time,
                                        .timings = web_timings};
    web_hal *const hal = dbt_alloc(allocator, sizeof *hal, 16);
    if (!hal) return dbt_fail_memory(error, "a device", sizeof *hal);
    *hal = (web_hal){.base = {.calls = &calls}, .device = device};
    hal->objects = (dbt_hal_objects){.hal = &hal->base, .allocator = *allocator};
    if (!page_open(device, &hal->info)) {
        dbt_release(allocator, hal, sizeof *hal);
        return dbt_fail(error, DIBIT_DEVICE_UNAVAILABLE, "the page has no GPUDevice %u",
                        (unsigned)device);
    }
    const dbt_web_device_info *const info = &hal->info;
    hal->base.name = info->name;
    hal->base.features = info->features;
    hal->base.limits = (dbt_hal_limits){.max_buffer_bytes = info->max_buffer_bytes,
                                        .max_binding_bytes = info->max_binding_bytes,
                                        .max_bindings = info->max_bindings < DBT_HAL_MAX_BINDINGS
                                                            ? info->max_bindings
                                                            : DBT_HAL_MAX_BINDINGS,
                                        .max_workgroups = info->max_workgroups,
                                        .max_invocations = info->max_invocations,
                                        .max_workgroup_bytes = info->max_workgroup_bytes,
                                        .binding_alignment = info->binding_alignment,
                                        .uniform_alignment = info->uniform_alignment,
                                        .min_subgroup = info->min_subgroup,
                                        .max_subgroup = info->max_subgroup};
    *out = &hal->base;
    return DIBIT_OK;
}

/* The objects of a device and the checks of its commands: see hal_common.h. */
#include "gpu/hal_common.h"

#include <string.h>

/* ---- Objects ---- */

static dibit_status make(dbt_hal_objects *objects, dbt_hal_kind kind, uint64_t bytes, void *out,
                         dibit_error *error) {
    static const char *const names[] = {"a buffer", "a pipeline", "a group"};
    dbt_hal_object *const o = dbt_alloc(&objects->allocator, bytes, 16);
    if (!o) return dbt_fail_memory(error, names[kind], bytes);
    memset(o, 0, (size_t)bytes);
    *o = (dbt_hal_object){objects->first, &objects->first, bytes, kind};
    if (o->next) o->next->link = &o->next;
    objects->first = o;
    objects->hal->counters.created++;
    memcpy(out, &o, sizeof o);
    return DIBIT_OK;
}

void dbt_hal_object_free(dbt_hal_objects *objects, dbt_hal_object *object) {
    dbt_hal_counters *const c = &objects->hal->counters;
    switch (object->kind) {
    case DBT_HAL_BUFFER:
        c->buffers--;
        c->buffer_bytes -= ((dbt_hal_buffer *)object)->bytes;
        break;
    case DBT_HAL_PIPELINE: c->pipelines--; break;
    case DBT_HAL_GROUP: c->groups--; break;
    }
    *object->link = object->next;
    if (object->next) object->next->link = object->link;
    dbt_release(&objects->allocator, object, object->bytes);
}

dibit_status dbt_hal_buffer_make(dbt_hal_objects *objects, uint64_t object_bytes, uint64_t bytes,
                                 dbt_hal_buffer **out, dibit_error *error) {
    dbt_hal *const hal = objects->hal;
    DBT_FAIL_IF(bytes == 0 || bytes > hal->limits.max_buffer_bytes, error, DIBIT_TOO_LARGE,
                "a buffer of %llu bytes is beyond the device's limit of %llu",
                (unsigned long long)bytes, (unsigned long long)hal->limits.max_buffer_bytes);
    DBT_TRY(make(objects, DBT_HAL_BUFFER, object_bytes, out, error));
    (*out)->bytes = dbt_hal_round(bytes, DBT_HAL_ALIGNMENT);
    hal->counters.buffers++;
    hal->counters.buffer_bytes += (*out)->bytes;
    return DIBIT_OK;
}

dibit_status dbt_hal_pipeline_make(dbt_hal_objects *objects, uint64_t object_bytes,
                                   const dbt_hal_pipeline_desc *desc, dbt_hal_pipeline **out,
                                   dibit_error *error) {
    const dbt_hal_limits *const limits = &objects->hal->limits;
    uint32_t n = 0;
    for (uint32_t bits = desc->bindings; bits; bits >>= 1) n += bits & 1;
    DBT_FAIL_IF(n > limits->max_bindings, error, DIBIT_TOO_LARGE,
                "%s binds %u buffers, the device allows %u", desc->name, (unsigned)n,
                (unsigned)limits->max_bindings);
    DBT_FAIL_IF(desc->bindings >> DBT_HAL_MAX_BINDINGS || desc->written & ~desc->bindings ||
                    desc->uniform_bytes > DBT_HAL_MAX_UNIFORM_BYTES,
                error, DIBIT_BAD_ARGUMENT, "%s: its bindings contradict each other", desc->name);
    DBT_TRY(make(objects, DBT_HAL_PIPELINE, object_bytes, out, error));
    (*out)->bindings = desc->bindings;
    (*out)->written = desc->written;
    (*out)->uniform_bytes = (uint32_t)dbt_hal_round(desc->uniform_bytes, DBT_HAL_BINDING_UNIT);
    objects->hal->counters.pipelines++;
    return DIBIT_OK;
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

/* WebGPU's rule: what a dispatch writes is bound once in it. */
static bool is_bound_twice(const dbt_hal_pipeline *p, const dbt_hal_binding *bindings, uint32_t n,
                           const dbt_hal_buffer *uniforms, uint32_t i) {
    for (uint32_t k = 0; k < n; k++) {
        if (k != i && p->bindings >> k & 1 && bindings[k].buffer == bindings[i].buffer) return true;
    }
    return p->uniform_bytes && bindings[i].buffer == uniforms;
}

dibit_status dbt_hal_group_make(dbt_hal_objects *objects, uint64_t object_bytes,
                                const dbt_hal_pipeline *pipeline, const dbt_hal_binding *bindings,
                                uint32_t n, const dbt_hal_buffer *uniforms, dbt_hal_group **out,
                                dibit_error *error) {
    DBT_FAIL_IF(n > DBT_HAL_MAX_BINDINGS || pipeline->bindings >> n, error, DIBIT_BAD_ARGUMENT,
                "bindings are missing");
    for (uint32_t i = 0; i < n; i++) {
        if (!(pipeline->bindings >> i & 1)) continue;
        DBT_TRY(check_binding(objects->hal, &bindings[i], i, error));
        DBT_FAIL_IF(
            pipeline->written >> i & 1 && is_bound_twice(pipeline, bindings, n, uniforms, i), error,
            DIBIT_BAD_ARGUMENT, "binding %u is written and bound a second time", (unsigned)i);
    }
    DBT_FAIL_IF(pipeline->uniform_bytes && !uniforms, error, DIBIT_BAD_ARGUMENT,
                "the uniforms are missing");
    DBT_FAIL_IF(pipeline->uniform_bytes && uniforms->bytes < pipeline->uniform_bytes, error,
                DIBIT_BAD_ARGUMENT, "the uniforms do not fit their buffer");
    DBT_TRY(make(objects, DBT_HAL_GROUP, object_bytes, out, error));
    (*out)->pipeline = pipeline;
    (*out)->uniforms_bytes = uniforms ? uniforms->bytes : 0;
    objects->hal->counters.groups++;
    return DIBIT_OK;
}

/* ---- Commands ---- */

dibit_status dbt_hal_check_range(const dbt_hal_buffer *buffer, uint64_t offset, uint64_t bytes,
                                 dibit_error *error) {
    DBT_FAIL_IF(
        offset % DBT_HAL_ALIGNMENT || offset > buffer->bytes || bytes > buffer->bytes - offset,
        error, DIBIT_BAD_ARGUMENT, "%llu bytes at %llu do not fit a buffer of %llu",
        (unsigned long long)bytes, (unsigned long long)offset, (unsigned long long)buffer->bytes);
    return DIBIT_OK;
}

dibit_status dbt_hal_check_copy(const dbt_hal_buffer *from, uint64_t from_offset,
                                const dbt_hal_buffer *to, uint64_t to_offset, uint64_t bytes,
                                dibit_error *error) {
    DBT_FAIL_IF(from == to, error, DIBIT_BAD_ARGUMENT, "a copy needs two buffers");
    DBT_FAIL_IF(bytes % DBT_HAL_ALIGNMENT, error, DIBIT_BAD_ARGUMENT,
                "a copy of %llu bytes is not a multiple of %d", (unsigned long long)bytes,
                DBT_HAL_ALIGNMENT);
    DBT_TRY(dbt_hal_check_range(from, from_offset, bytes, error));
    return dbt_hal_check_range(to, to_offset, bytes, error);
}

dibit_status dbt_hal_check_dispatch(const dbt_hal *hal, const dbt_hal_dispatch *d,
                                    dibit_error *error) {
    DBT_FAIL_IF(d->group->pipeline != d->pipeline, error, DIBIT_BAD_ARGUMENT,
                "%s: the group is another pipeline's", d->name);
    DBT_FAIL_IF(d->uniforms_offset % hal->limits.uniform_alignment ||
                    d->uniforms_offset + (uint64_t)d->pipeline->uniform_bytes >
                        d->group->uniforms_bytes,
                error, DIBIT_BAD_ARGUMENT, "%s: the uniforms do not fit their buffer", d->name);
    for (int i = 0; i < 3; i++) {
        DBT_FAIL_IF(d->workgroups[i] == 0 || d->workgroups[i] > hal->limits.max_workgroups, error,
                    DIBIT_TOO_LARGE, "%s wants %u workgroups, the device allows %u", d->name,
                    (unsigned)d->workgroups[i], (unsigned)hal->limits.max_workgroups);
    }
    return DIBIT_OK;
}

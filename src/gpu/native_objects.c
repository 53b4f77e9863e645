/* Buffers, pipelines and groups of the native HAL. Each is made inside error scopes, so that what the
 * library finds wrong becomes a status. A handle is released when its object is destroyed; recorded work
 * holds references of its own. */
#include <stdio.h>
#include <string.h>

#include "gpu/hal_native.h"

/* ---- Error scopes ---- */

typedef struct scope_answer {
    dbt_wgpu_enum type;
    char text[400];
} scope_answer;

static void on_scope(dbt_wgpu_enum status, dbt_wgpu_enum type, dbt_wgpu_string message, void *to,
                     void *unused) {
    (void)unused;
    if (status != DBT_WGPU_STATUS_SUCCESS || type == DBT_WGPU_ERROR_NONE) return;
    ((scope_answer *)to)->type = type;
    dbt_native_message(message, ((scope_answer *)to)->text, sizeof((scope_answer *)to)->text);
}

/* wgpu-native has no scopes for internal errors: those are faults. */
static const dbt_wgpu_enum filters[] = {DBT_WGPU_FILTER_OUT_OF_MEMORY, DBT_WGPU_FILTER_VALIDATION};
enum { N_FILTERS = sizeof filters / sizeof *filters };

void dbt_native_scope_begin(native_hal *hal) {
    for (int i = 0; i < N_FILTERS; i++) hal->w.DevicePushErrorScope(hal->device, filters[i]);
}

dibit_status dbt_native_scope_end(native_hal *hal, const char *name, dibit_error *error) {
    scope_answer answer = {.type = DBT_WGPU_ERROR_NONE};
    for (int i = 0; i < N_FILTERS; i++) {
        hal->w.DevicePopErrorScope(hal->device,
                                   (dbt_wgpu_scope_callback){.mode = DBT_WGPU_CALLBACK_SPONTANEOUS,
                                                             .callback = on_scope,
                                                             .userdata1 = &answer});
    }
    DBT_TRY(dbt_native_check(hal, error));
    if (answer.type == DBT_WGPU_ERROR_NONE) return DIBIT_OK;
    const bool memory = answer.type == DBT_WGPU_ERROR_OUT_OF_MEMORY;
    const dibit_status status =
        dbt_native_status(answer.text, memory ? DIBIT_OUT_OF_MEMORY : DIBIT_UNSUPPORTED);
    if (status == DIBIT_DEVICE_LOST) {
        dbt_native_fault(hal, status, (dbt_wgpu_string){answer.text, SIZE_MAX});
        return dbt_native_check(hal, error);
    }
    return dbt_fail(error, status, "%s: %s", name, answer.text);
}

/* ---- Objects ---- */

void dbt_native_object_free(native_hal *hal, dbt_hal_object *object) {
    const dbt_wgpu_functions *const w = &hal->w;
    if (object->kind == DBT_HAL_BUFFER) {
        native_buffer *const b = (native_buffer *)object;
        if (b->handle) w->BufferRelease(b->handle);
    } else if (object->kind == DBT_HAL_PIPELINE) {
        native_pipeline *const p = (native_pipeline *)object;
        if (hal->set_pipeline == &p->base) hal->set_pipeline = NULL;
        if (p->handle) w->ComputePipelineRelease(p->handle);
        if (p->group_layout) w->BindGroupLayoutRelease(p->group_layout);
    } else {
        native_group *const g = (native_group *)object;
        if (hal->set_group == &g->base) hal->set_group = NULL;
        if (g->handle) w->BindGroupRelease(g->handle);
    }
    dbt_hal_object_free(&hal->objects, object);
}

dbt_wgpu_buffer dbt_native_buffer_of(native_hal *hal, uint64_t bytes, dbt_wgpu_flags usage) {
    return hal->w.DeviceCreateBuffer(hal->device,
                                     &(dbt_wgpu_buffer_desc){.usage = usage, .size = bytes});
}

dibit_status dbt_native_buffer_create(dbt_hal *base, uint64_t bytes, dbt_hal_buffer **out,
                                      dibit_error *error) {
    native_hal *const hal = native_of(base);
    dbt_hal_buffer *buffer;
    DBT_TRY(dbt_native_check(hal, error));
    DBT_TRY(dbt_hal_buffer_make(&hal->objects, sizeof(native_buffer), bytes, &buffer, error));
    dbt_native_scope_begin(hal);
    ((native_buffer *)buffer)->handle =
        dbt_native_buffer_of(hal, dbt_hal_round(bytes, DBT_HAL_BINDING_UNIT),
                             DBT_WGPU_USAGE_STORAGE | DBT_WGPU_USAGE_UNIFORM |
                                 DBT_WGPU_USAGE_COPY_SRC | DBT_WGPU_USAGE_COPY_DST);
    char name[60];
    snprintf(name, sizeof name, "a buffer of %llu bytes", (unsigned long long)bytes);
    const dibit_status status = dbt_native_scope_end(hal, name, error);
    if (status != DIBIT_OK) {
        dbt_native_object_free(hal, &buffer->object);
        return status;
    }
    *out = buffer;
    return DIBIT_OK;
}

void dbt_native_buffer_destroy(dbt_hal *hal, dbt_hal_buffer *buffer) {
    if (buffer) dbt_native_object_free(native_of(hal), &buffer->object);
}

/* ---- Pipelines ---- */

/* The sizes given let the library check a shader against its bindings once, here, and not at each
 * dispatch. */
static dbt_wgpu_group_layout make_group_layout(native_hal *hal, const dbt_hal_pipeline *p) {
    dbt_wgpu_layout_entry entries[DBT_HAL_MAX_BINDINGS + 1];
    memset(entries, 0, sizeof entries);
    size_t n = 0;
    if (p->uniform_bytes) {
        entries[n].visibility = DBT_WGPU_STAGE_COMPUTE;
        entries[n].buffer.type = DBT_WGPU_BINDING_UNIFORM;
        entries[n].buffer.hasDynamicOffset = true;
        entries[n++].buffer.minBindingSize = p->uniform_bytes;
    }
    for (uint32_t i = 0; i < DBT_HAL_MAX_BINDINGS; i++) {
        if (!(p->bindings >> i & 1)) continue;
        entries[n].binding = i + 1;
        entries[n].visibility = DBT_WGPU_STAGE_COMPUTE;
        entries[n].buffer.type =
            p->written >> i & 1 ? DBT_WGPU_BINDING_STORAGE : DBT_WGPU_BINDING_READ_ONLY_STORAGE;
        entries[n++].buffer.minBindingSize = DBT_HAL_BINDING_UNIT;
    }
    return hal->w.DeviceCreateBindGroupLayout(
        hal->device, &(dbt_wgpu_group_layout_desc){.entryCount = n, .entries = entries});
}

/* Our own shaders are trusted to stay within their buffers and to end: checks of that cost (docs/BENCHMARKS.md
 * says what). */
static dbt_wgpu_module compile(native_hal *hal, const dbt_hal_pipeline_desc *desc) {
    dbt_wgpu_wgsl source = {.chain = {.sType = DBT_WGPU_CHAIN_WGSL},
                            .code = {desc->wgsl, desc->wgsl_bytes}};
    const dbt_wgpu_label module = {.nextInChain = &source.chain,
                                   .label = {desc->name, strlen(desc->name)}};
    const dbt_wgpu_flags checks =
        hal->checked_shaders ? DBT_WGPU_CHECK_BOUNDS | DBT_WGPU_CHECK_LOOPS : 0;
    return hal->w.DeviceCreateShaderModuleTrusted(hal->device, &module, checks);
}

static void make_pipeline(native_hal *hal, const dbt_hal_pipeline_desc *desc, native_pipeline *p) {
    const dbt_wgpu_functions *const w = &hal->w;
    p->group_layout = make_group_layout(hal, &p->base);
    const dbt_wgpu_layout layout = w->DeviceCreatePipelineLayout(
        hal->device,
        &(dbt_wgpu_layout_desc){.bindGroupLayoutCount = 1, .bindGroupLayouts = &p->group_layout});
    const dbt_wgpu_module module = compile(hal, desc);
    if (layout && module) {
        const dbt_wgpu_pipeline_desc pipeline = {
            .label = {desc->name, strlen(desc->name)},
            .layout = layout,
            .compute = {.module = module, .entryPoint = {"main", 4}}};
        p->handle = w->DeviceCreateComputePipeline(hal->device, &pipeline);
    }
    if (module) w->ShaderModuleRelease(module);
    if (layout) w->PipelineLayoutRelease(layout);
}

dibit_status dbt_native_pipeline_create(dbt_hal *base, const dbt_hal_pipeline_desc *desc,
                                        dbt_hal_pipeline **out, dibit_error *error) {
    native_hal *const hal = native_of(base);
    dbt_hal_pipeline *pipeline;
    DBT_TRY(dbt_native_check(hal, error));
    DBT_TRY(dbt_hal_pipeline_make(&hal->objects, sizeof(native_pipeline), desc, &pipeline, error));
    dbt_native_scope_begin(hal);
    make_pipeline(hal, desc, (native_pipeline *)pipeline);
    const dibit_status status = dbt_native_scope_end(hal, desc->name, error);
    if (status != DIBIT_OK) {
        dbt_native_object_free(hal, &pipeline->object);
        return status;
    }
    *out = pipeline;
    return DIBIT_OK;
}

void dbt_native_pipeline_destroy(dbt_hal *hal, dbt_hal_pipeline *pipeline) {
    if (pipeline) dbt_native_object_free(native_of(hal), &pipeline->object);
}

/* ---- Groups ---- */

static dbt_wgpu_group make_group(native_hal *hal, const native_pipeline *p,
                                 const dbt_hal_binding *bindings, const dbt_hal_buffer *uniforms) {
    dbt_wgpu_group_entry entries[DBT_HAL_MAX_BINDINGS + 1];
    memset(entries, 0, sizeof entries);
    size_t n = 0;
    if (p->base.uniform_bytes) {
        entries[n].buffer = ((const native_buffer *)uniforms)->handle;
        entries[n++].size = p->base.uniform_bytes;
    }
    for (uint32_t i = 0; i < DBT_HAL_MAX_BINDINGS; i++) {
        if (!(p->base.bindings >> i & 1)) continue;
        const dbt_hal_binding *const b = &bindings[i];
        const uint64_t bytes = b->bytes ? b->bytes : b->buffer->bytes - b->offset;
        entries[n].binding = i + 1;
        entries[n].buffer = ((const native_buffer *)b->buffer)->handle;
        entries[n].offset = b->offset;
        entries[n++].size = dbt_hal_round(bytes, DBT_HAL_BINDING_UNIT);
    }
    return hal->w.DeviceCreateBindGroup(
        hal->device,
        &(dbt_wgpu_group_desc){.layout = p->group_layout, .entryCount = n, .entries = entries});
}

dibit_status dbt_native_group_create(dbt_hal *base, dbt_hal_pipeline *pipeline,
                                     const dbt_hal_binding *bindings, uint32_t n,
                                     dbt_hal_buffer *uniforms, dbt_hal_group **out,
                                     dibit_error *error) {
    native_hal *const hal = native_of(base);
    dbt_hal_group *group;
    DBT_TRY(dbt_native_check(hal, error));
    DBT_TRY(dbt_hal_group_make(&hal->objects, sizeof(native_group), pipeline, bindings, n, uniforms,
                               &group, error));
    dbt_native_scope_begin(hal);
    ((native_group *)group)->handle =
        make_group(hal, (const native_pipeline *)pipeline, bindings, uniforms);
    const dibit_status status = dbt_native_scope_end(hal, "a group", error);
    if (status != DIBIT_OK) {
        dbt_native_object_free(hal, &group->object);
        return status;
    }
    *out = group;
    return DIBIT_OK;
}

void dbt_native_group_destroy(dbt_hal *hal, dbt_hal_group *group) {
    if (group) dbt_native_object_free(native_of(hal), &group->object);
}

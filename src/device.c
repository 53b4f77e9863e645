/* dibit_device: the CPU with its threads, and a GPU through WebGPU, or the null device that tests use in
 * place of one. */
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/cpu.h"
#include "model.h"
#if DBT_WASM
#include "gpu/hal_web.h"
#endif

static dibit_status copy_refusals(dibit_device *device, const char *list, dibit_error *error) {
    if (!list) return DIBIT_OK;
    const size_t n = strlen(list);
    device->null_refuse = dbt_alloc(&device->allocator, n + 3, 1);
    if (!device->null_refuse) return dbt_fail_memory(error, "a device", n + 3);
    snprintf(device->null_refuse, n + 3, ",%s,", list);
    return DIBIT_OK;
}

static dibit_status open_gpu(dibit_device *device, dbt_hal_adapter adapter, dibit_error *error) {
    const dibit_device_desc *const desc = &device->desc;
    const dibit_allocator *const allocator = &device->allocator;
    dbt_hal *hal;
    if (desc->kind == DIBIT_DEVICE_NULL) {
        DBT_TRY(dbt_hal_null_create(allocator, desc->null_pending_seed, &hal, error));
    } else {
#if DBT_WASM
        (void)adapter; /* the page has chosen */
        DBT_TRY(dbt_hal_web_create(allocator, desc->webgpu_device, &hal, error));
#else
        const dbt_hal_native_desc native = {.library = desc->webgpu_library,
                                            .adapter = adapter,
                                            .checked_shaders = desc->checked_shaders};
        DBT_TRY(dbt_hal_native_create(allocator, &native, &hal, error));
#endif
    }
    const dibit_status status = dbt_gpu_create(allocator, hal, &device->gpu, error);
    if (status != DIBIT_OK) {
        hal->calls->destroy(hal);
        return status;
    }
    static const dbt_hal_timing timings[] = {[DIBIT_TIMING_NONE] = DBT_HAL_UNTIMED,
                                             [DIBIT_TIMING_PASSES] = DBT_HAL_TIME_PASSES,
                                             [DIBIT_TIMING_DISPATCHES] = DBT_HAL_TIME_DISPATCHES};
    return dbt_gpu_time(device->gpu, timings[desc->timing], error);
}

/* A real GPU, or the CPU and the reason. */
static void choose(dibit_device *device) {
    dibit_error error;
    device->desc.kind = DIBIT_DEVICE_WEBGPU;
    if (open_gpu(device, DBT_HAL_HARDWARE, &error) == DIBIT_OK) {
        snprintf(device->why, sizeof device->why, "auto took the GPU");
    } else {
        device->desc.kind = DIBIT_DEVICE_CPU;
        snprintf(device->why, sizeof device->why, "auto took the CPU: %s", error.text);
    }
}

dibit_status dibit_device_create(const dibit_device_desc *desc, dibit_device **out,
                                 dibit_error *error) {
    static const dibit_device_desc defaults = {0};
    if (!desc) desc = &defaults;
    DBT_FAIL_IF(!out, error, DIBIT_BAD_ARGUMENT, "out must not be NULL");
    DBT_FAIL_IF((unsigned)desc->kind > DIBIT_DEVICE_AUTO, error, DIBIT_BAD_ARGUMENT,
                "device kind %d does not exist", (int)desc->kind);
    DBT_FAIL_IF((unsigned)desc->timing > DIBIT_TIMING_DISPATCHES, error, DIBIT_BAD_ARGUMENT,
                "timing %d does not exist", (int)desc->timing);
    const dibit_allocator allocator = dbt_allocator_or_default(desc->allocator);
    dibit_device *device = dbt_alloc(&allocator, sizeof *device, 16);
    if (!device) return dbt_fail_memory(error, "a device", sizeof *device);
    *device = (dibit_device){.allocator = allocator, .desc = *desc};
    device->isa = dbt_cpu_isa(desc->cpu_isa);
    dibit_status status = copy_refusals(device, desc->null_refuse, error);
    if (status == DIBIT_OK) {
        status = dbt_pool_create(&allocator, desc->n_threads, &device->pool, error);
    }
    if (status == DIBIT_OK && desc->kind == DIBIT_DEVICE_AUTO) {
        choose(device);
    } else if (status == DIBIT_OK && desc->kind != DIBIT_DEVICE_CPU) {
        status = open_gpu(device, DBT_HAL_ANY, error);
    }
    if (status != DIBIT_OK) {
        dibit_device_destroy(&device);
        return status;
    }
    const unsigned n = (unsigned)dbt_pool_threads(device->pool);
    char isa[128];
    dbt_cpu_isa_text(device->isa, isa);
    snprintf(device->cpu_name, sizeof device->cpu_name, "cpu, %u thread%s, %s", n,
             n == 1 ? "" : "s", isa);
    snprintf(device->name, sizeof device->name, "%s%s",
             device->gpu ? dbt_gpu_hal(device->gpu)->name : "cpu", device->cpu_name + 3);
    *out = device;
    return DIBIT_OK;
}

void dibit_device_destroy(dibit_device **device) {
    dibit_device *const d = device ? *device : NULL;
    if (!d) return;
    dbt_gpu_destroy(&d->gpu);
    dbt_pool_destroy(&d->pool);
    if (d->null_refuse) dbt_release(&d->allocator, d->null_refuse, strlen(d->null_refuse) + 1);
    const dibit_allocator allocator = d->allocator;
    dbt_release(&allocator, d, sizeof *d);
    *device = NULL;
}

const char *dibit_device_name(const dibit_device *device) { return device->name; }
const char *dibit_device_why(const dibit_device *device) { return device->why; }

dibit_status dibit_device_get_work(dibit_device *device, dibit_device_work *out,
                                   dibit_error *error) {
    DBT_FAIL_IF(!device || !out, error, DIBIT_BAD_ARGUMENT, "device and out must not be NULL");
    *out = (dibit_device_work){0};
    if (!device->gpu) return DIBIT_OK;
    uint64_t busy_ns;
    DBT_TRY(dbt_gpu_time_all(device->gpu, &busy_ns, error));
    const dbt_hal_counters *const c = &dbt_gpu_hal(device->gpu)->counters;
    *out = (dibit_device_work){.dispatches = c->dispatches,
                               .submits = c->submits,
                               .submit_seconds = (double)c->submit_ns * 1e-9,
                               .busy_seconds = (double)busy_ns * 1e-9};
    return DIBIT_OK;
}

uint32_t dibit_device_dropped_kernels(const dibit_device *device) {
    return device->gpu ? dbt_gpu_dropped_kernels(device->gpu) : 0;
}

dibit_device_kind dibit_device_get_kind(const dibit_device *device) { return device->desc.kind; }

/* The HAL on a GPUDevice of the page around a wasm build. Its commands are imports of the module
 * "dibit_gpu", which web/src/gpu.ts answers; objects are numbers there, and never 0. */
#ifndef DBT_GPU_HAL_WEB_H
#define DBT_GPU_HAL_WEB_H

#include "gpu/hal.h"

/* What the page tells about a device, in this layout (web/src/gpu.ts writes it). */
typedef struct dbt_web_device_info {
    uint64_t max_buffer_bytes, max_binding_bytes;
    uint32_t features; /* DBT_HAL_* */
    uint32_t max_bindings, max_workgroups, max_invocations, max_workgroup_bytes;
    uint32_t binding_alignment, uniform_alignment;
    uint32_t min_subgroup, max_subgroup;
    char name[204]; /* NUL-terminated */
} dbt_web_device_info;

/* `device` is the page's number of a GPUDevice. DEVICE_UNAVAILABLE when it has none of that number. */
dibit_status dbt_hal_web_create(const dibit_allocator *allocator, uint32_t device, dbt_hal **out,
                                dibit_error *error);

#endif

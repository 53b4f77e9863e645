/* A device as ops see it: dispatches of shader variants over buffers. Above the HAL it keeps the pipelines
 * (by shader and parameters), the groups (by pipeline and buffers), the uniforms of the work recorded
 * since the last submit, and scratch; after the first runs a dispatch makes nothing new. */
#ifndef DBT_GPU_GPU_H
#define DBT_GPU_GPU_H

#include "gpu/hal.h"
#include "gpu/shader.h"

typedef struct dbt_gpu dbt_gpu;

/* One dispatch of a shader. */
typedef struct dbt_gpu_dispatch {
    const char *shader;             /* file name; a string that lives as long as the program */
    const dbt_shader_param *params; /* their names too; in any order, but always the same */
    uint32_t n_params;
    const dbt_hal_binding *bindings; /* bindings[i] is @binding(i + 1) */
    uint32_t n_bindings;
    uint32_t written;     /* bit i: binding i is read_write in the shader */
    const void *uniforms; /* @binding(0), a struct of 4-byte scalars and vectors in WGSL's layout */
    uint32_t uniform_bytes;
    uint32_t workgroups[3];
} dbt_gpu_dispatch;

/* The HAL becomes the gpu's own. */
dibit_status dbt_gpu_create(const dibit_allocator *allocator, dbt_hal *hal, dbt_gpu **out,
                            dibit_error *error);
void dbt_gpu_destroy(dbt_gpu **gpu);
dbt_hal *dbt_gpu_hal(const dbt_gpu *gpu);
/* Other shaders than the embedded ones, for tests. */
void dbt_gpu_use_shaders(dbt_gpu *gpu, const dbt_shader_library *shaders);

/* Buffers that dispatches have bound must be destroyed through this, so that groups are forgotten. */
dibit_status dbt_gpu_buffer_create(dbt_gpu *gpu, uint64_t bytes, dbt_hal_buffer **out,
                                   dibit_error *error);
void dbt_gpu_buffer_destroy(dbt_gpu *gpu, dbt_hal_buffer *buffer);

/* Records a dispatch. A dispatch without workgroups is none. BAD_ARGUMENT, TOO_LARGE when it is beyond the
 * device's limits; what pipeline_create answers. */
dibit_status dbt_gpu_record(dbt_gpu *gpu, const dbt_gpu_dispatch *dispatch, dibit_error *error);
/* Makes the pipeline that the dispatch would use (bindings matter only as absent or not). */
dibit_status dbt_gpu_warm(dbt_gpu *gpu, const dbt_gpu_dispatch *dispatch, dibit_error *error);
/* The HAL's. Whatever makes the HAL submit, the uniforms of what is recorded are written before. */
dibit_status dbt_gpu_submit(dbt_gpu *gpu, dibit_error *error);
dibit_status dbt_gpu_read(dbt_gpu *gpu, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                          uint64_t bytes, uint64_t *ticket, dibit_error *error);
/* The HAL's, for those who have nothing else to do than wait: they may ask in a loop, since a read that is asked for
 * again naps first. */
dibit_status dbt_gpu_poll(dbt_gpu *gpu, uint64_t ticket, dibit_error *error);

/* The HAL's, for short. */
static inline dibit_status dbt_gpu_write(dbt_gpu *gpu, dbt_hal_buffer *buffer, uint64_t offset,
                                         const void *data, uint64_t bytes, dibit_error *error) {
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    return hal->calls->write(hal, buffer, offset, data, bytes, error);
}
static inline dibit_status dbt_gpu_copy(dbt_gpu *gpu, dbt_hal_buffer *from, uint64_t from_offset,
                                        dbt_hal_buffer *to, uint64_t to_offset, uint64_t bytes,
                                        dibit_error *error) {
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    return hal->calls->copy(hal, from, from_offset, to, to_offset, bytes, error);
}

/* Scratch buffer `index` (0 to DBT_GPU_SCRATCH - 1) of at least so many bytes. Its content lasts until
 * the op that asked has recorded its dispatches. */
enum { DBT_GPU_SCRATCH = 8 };
dibit_status dbt_gpu_scratch(dbt_gpu *gpu, uint32_t index, uint64_t bytes, dbt_hal_buffer **out,
                             dibit_error *error);

/* What an op keeps about this device, whatever sessions come and go: zeroed memory of so many bytes under a
 * key, an address of the op's own; the same in every call. It is freed with the gpu. */
dibit_status dbt_gpu_memory(dbt_gpu *gpu, const void *key, uint64_t bytes, void **out,
                            dibit_error *error);
/* Kernels that were wrong on this device, and so were dropped for plainer ones. */
void dbt_gpu_drop_kernel(dbt_gpu *gpu);
uint32_t dbt_gpu_dropped_kernels(const dbt_gpu *gpu);
/* Nodes that were fused into one computed wrongly on this device: sessions plan without. */
void dbt_gpu_drop_fusion(dbt_gpu *gpu);
bool dbt_gpu_fusion_is_dropped(const dbt_gpu *gpu);

/* How what is recorded from now on is timed; nothing on a device without timestamps. */
dibit_status dbt_gpu_time(dbt_gpu *gpu, dbt_hal_timing timing, dibit_error *error);
/* With DBT_HAL_TIME_DISPATCHES: where the nanoseconds of dispatches recorded from now on are added when they
 * are known; NULL: nowhere. dbt_gpu_time_forget: those of dispatches so far are added nowhere. */
void dbt_gpu_time_to(dbt_gpu *gpu, uint64_t *ns);
void dbt_gpu_time_forget(dbt_gpu *gpu);
/* Nanoseconds of all that was timed since the device was opened. PENDING: some is under way. */
dibit_status dbt_gpu_time_all(dbt_gpu *gpu, uint64_t *ns, dibit_error *error);

/* Workgroups for n of them in one dimension: x up to the device's limit, then y; the shader finds its index
 * as workgroup_id.x + workgroup_id.y * num_workgroups.x, which may be beyond n. TOO_LARGE above
 * 2^31 - 1. */
dibit_status dbt_gpu_grid(const dbt_gpu *gpu, uint64_t n, uint32_t workgroups[3],
                          dibit_error *error);

#endif

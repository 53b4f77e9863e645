/* The pipelines and groups that dispatches have needed so far. For gpu.c. */
#ifndef DBT_GPU_GPU_CACHE_H
#define DBT_GPU_GPU_CACHE_H

#include "gpu/gpu.h"

typedef struct dbt_gpu_entry dbt_gpu_entry;

typedef struct dbt_gpu_table {
    dbt_gpu_entry **buckets;
    uint32_t n_buckets, n; /* n_buckets: a power of two */
} dbt_gpu_table;

typedef struct dbt_gpu_cache {
    dibit_allocator allocator;
    dbt_hal *hal;
    const dbt_shader_library *shaders;
    dbt_hal_buffer *uniforms; /* of all groups */
    dbt_gpu_table pipelines, groups;
} dbt_gpu_cache;

/* Everything but the tables is set by the caller. */
dibit_status dbt_gpu_cache_init(dbt_gpu_cache *cache, dibit_error *error);
void dbt_gpu_cache_free(dbt_gpu_cache *cache);
/* What the dispatch needs, made if there is none yet. group NULL: its pipeline alone. */
dibit_status dbt_gpu_cache_find(dbt_gpu_cache *cache, const dbt_gpu_dispatch *dispatch,
                                dbt_hal_pipeline **pipeline, dbt_hal_group **group,
                                dibit_error *error);
/* Forgets the groups that bind the buffer; NULL: all. */
void dbt_gpu_cache_forget(dbt_gpu_cache *cache, const dbt_hal_buffer *buffer);

#endif

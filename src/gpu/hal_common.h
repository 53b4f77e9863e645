/* What every HAL shares: the objects that are alive, and the checks that keep invalid commands from a
 * queue. A HAL's own objects begin with the ones here. */
#ifndef DBT_GPU_HAL_COMMON_H
#define DBT_GPU_HAL_COMMON_H

#include "gpu/hal.h"

enum {
    DBT_HAL_MAX_READS = 16, /* under way at a time */
    /* Bindings begin and end on these: the largest alignment and the largest element of the shaders'
     * arrays (a vec4). A binding may be longer than asked for by less than that. */
    DBT_HAL_BINDING_UNIT = 16
};

typedef enum dbt_hal_kind { DBT_HAL_BUFFER, DBT_HAL_PIPELINE, DBT_HAL_GROUP } dbt_hal_kind;

/* Objects form one list, so that destroying the device finds what is left. */
typedef struct dbt_hal_object dbt_hal_object;
struct dbt_hal_object {
    dbt_hal_object *next, **link;
    uint64_t bytes; /* of its allocation */
    dbt_hal_kind kind;
};

struct dbt_hal_buffer {
    dbt_hal_object object;
    uint64_t bytes; /* a multiple of DBT_HAL_ALIGNMENT */
};

struct dbt_hal_pipeline {
    dbt_hal_object object;
    uint32_t bindings, written, uniform_bytes;
};

struct dbt_hal_group {
    dbt_hal_object object;
    const dbt_hal_pipeline *pipeline;
    uint64_t uniforms_bytes; /* of its uniform buffer */
};

typedef struct dbt_hal_objects {
    dbt_hal *hal; /* whose counters are kept */
    dibit_allocator allocator;
    dbt_hal_object *first;
} dbt_hal_objects;

static inline uint64_t dbt_hal_round(uint64_t bytes, uint64_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

/* Check the arguments of buffer_create, pipeline_create and group_create, and make `object_bytes` of
 * zeros with the fields above set. */
dibit_status dbt_hal_buffer_make(dbt_hal_objects *objects, uint64_t object_bytes, uint64_t bytes,
                                 dbt_hal_buffer **out, dibit_error *error);
dibit_status dbt_hal_pipeline_make(dbt_hal_objects *objects, uint64_t object_bytes,
                                   const dbt_hal_pipeline_desc *desc, dbt_hal_pipeline **out,
                                   dibit_error *error);
dibit_status dbt_hal_group_make(dbt_hal_objects *objects, uint64_t object_bytes,
                                const dbt_hal_pipeline *pipeline, const dbt_hal_binding *bindings,
                                uint32_t n, const dbt_hal_buffer *uniforms, dbt_hal_group **out,
                                dibit_error *error);
void dbt_hal_object_free(dbt_hal_objects *objects, dbt_hal_object *object);

/* Of writes and reads, whose last word may be a part. */
dibit_status dbt_hal_check_range(const dbt_hal_buffer *buffer, uint64_t offset, uint64_t bytes,
                                 dibit_error *error);
dibit_status dbt_hal_check_copy(const dbt_hal_buffer *from, uint64_t from_offset,
                                const dbt_hal_buffer *to, uint64_t to_offset, uint64_t bytes,
                                dibit_error *error);
dibit_status dbt_hal_check_dispatch(const dbt_hal *hal, const dbt_hal_dispatch *dispatch,
                                    dibit_error *error);

static inline dibit_status dbt_hal_before_submit(const dbt_hal *hal, dibit_error *error) {
    return hal->before_submit ? hal->before_submit(hal->before_submit_user, error) : DIBIT_OK;
}

#endif

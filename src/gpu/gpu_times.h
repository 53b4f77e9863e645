/* Whose time a timed dispatch is: the HAL answers times in the order of recording, this keeps the order. */
#ifndef DBT_GPU_GPU_TIMES_H
#define DBT_GPU_GPU_TIMES_H

#include "gpu/hal.h"

typedef struct dbt_gpu_times {
    dibit_allocator allocator;
    dbt_hal *hal;
    dbt_hal_timing timing;
    uint64_t busy_ns;  /* all times that are known */
    uint64_t *owner;   /* of what is recorded next; NULL: nobody */
    uint64_t **owners; /* [capacity] a ring: of dispatches whose times are not known yet */
    uint32_t first, n, capacity;
} dbt_gpu_times;

dibit_status dbt_gpu_times_set(dbt_gpu_times *times, dbt_hal_timing timing, dibit_error *error);
/* A dispatch is about to be recorded, or was not after all. */
dibit_status dbt_gpu_times_push(dbt_gpu_times *times, dibit_error *error);
void dbt_gpu_times_pop(dbt_gpu_times *times);
/* Adds the times that are known by now to their owners and to busy_ns. */
void dbt_gpu_times_collect(dbt_gpu_times *times);
/* Nobody owns what was recorded so far. */
void dbt_gpu_times_forget(dbt_gpu_times *times);
void dbt_gpu_times_free(dbt_gpu_times *times);

#endif

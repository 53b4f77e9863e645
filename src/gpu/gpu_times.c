/* See gpu_times.h. */
#include "gpu/gpu_times.h"

#include <string.h>

static bool times_dispatches(const dbt_gpu_times *times) {
    return times->timing == DBT_HAL_TIME_DISPATCHES && times->hal->features & DBT_HAL_TIMESTAMPS;
}

dibit_status dbt_gpu_times_set(dbt_gpu_times *times, dbt_hal_timing timing, dibit_error *error) {
    DBT_TRY(times->hal->calls->time(times->hal, timing, error));
    times->timing = timing;
    return DIBIT_OK;
}

dibit_status dbt_gpu_times_push(dbt_gpu_times *times, dibit_error *error) {
    if (!times_dispatches(times)) return DIBIT_OK;
    if (times->n == times->capacity) {
        const uint32_t capacity = times->capacity ? 2 * times->capacity : 4096;
        const uint64_t bytes = (uint64_t)capacity * sizeof *times->owners;
        uint64_t **const grown = dbt_alloc(&times->allocator, bytes, sizeof *grown);
        if (!grown) return dbt_fail_memory(error, "times of dispatches", bytes);
        for (uint32_t i = 0; i < times->n; i++)
            grown[i] = times->owners[(times->first + i) % times->capacity];
        dbt_gpu_times_free(times);
        times->owners = grown;
        times->first = 0;
        times->capacity = capacity;
    }
    times->owners[(times->first + times->n++) % times->capacity] = times->owner;
    return DIBIT_OK;
}

void dbt_gpu_times_pop(dbt_gpu_times *times) {
    if (times_dispatches(times)) times->n--;
}

void dbt_gpu_times_collect(dbt_gpu_times *times) {
    uint64_t ns[256];
    uint32_t got;
    while ((got = times->hal->calls->timings(times->hal, ns, 256)) > 0) {
        for (uint32_t i = 0; i < got; i++) {
            times->busy_ns += ns[i];
            if (!times_dispatches(times) || times->n == 0) continue;
            uint64_t *const owner = times->owners[times->first];
            times->first = (times->first + 1) % times->capacity;
            times->n--;
            if (owner) *owner += ns[i];
        }
    }
}

void dbt_gpu_times_forget(dbt_gpu_times *times) {
    for (uint32_t i = 0; i < times->n; i++)
        times->owners[(times->first + i) % times->capacity] = NULL;
}

void dbt_gpu_times_free(dbt_gpu_times *times) {
    const uint64_t bytes = (uint64_t)times->capacity * sizeof *times->owners;
    if (times->owners) dbt_release(&times->allocator, times->owners, bytes);
    times->owners = NULL;
}

/* What the engine needs of a GPU, in about a dozen calls, none of which blocks: work is submitted and
 * polled for. Knows nothing of ONNX. hal_null.c validates and never computes; other implementations
 * fill the same table.
 *
 * Commands are recorded in order and run when they are submitted. A call that would be invalid answers
 * a status and records nothing: nothing invalid ever reaches a queue. */
#ifndef DBT_GPU_HAL_H
#define DBT_GPU_HAL_H

#include "base/arena.h"

typedef struct dbt_hal dbt_hal;
typedef struct dbt_hal_buffer dbt_hal_buffer;

typedef struct dbt_hal_limits {
    uint64_t max_buffer_bytes;
    uint64_t max_binding_bytes;
    uint32_t max_bindings;   /* buffers of a dispatch */
    uint32_t max_workgroups; /* per dimension */
} dbt_hal_limits;

/* One dispatch: `name` says what it computes, for logs and errors. */
typedef struct dbt_hal_dispatch {
    const char *name;
    dbt_hal_buffer *const *buffers;
    uint32_t n_buffers;
    uint32_t workgroups[3];
} dbt_hal_dispatch;

/* How often each command was recorded; what tests look at. */
typedef struct dbt_hal_counters {
    uint64_t buffers, buffer_bytes; /* alive */
    uint64_t writes, reads, dispatches, submits;
} dbt_hal_counters;

typedef struct dbt_hal_calls {
    void (*destroy)(dbt_hal *hal);
    dibit_status (*buffer_create)(dbt_hal *hal, uint64_t bytes, dbt_hal_buffer **out,
                                  dibit_error *error);
    void (*buffer_destroy)(dbt_hal *hal, dbt_hal_buffer *buffer);
    dibit_status (*write)(dbt_hal *hal, dbt_hal_buffer *buffer, uint64_t offset, const void *data,
                          uint64_t bytes, dibit_error *error);
    dibit_status (*dispatch)(dbt_hal *hal, const dbt_hal_dispatch *dispatch, dibit_error *error);
    dibit_status (*submit)(dbt_hal *hal, dibit_error *error);
    /* Starts a read of what the buffer holds after all that was submitted; dst is filled when poll
     * answers OK. One read at a time. */
    dibit_status (*read)(dbt_hal *hal, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                         uint64_t bytes, dibit_error *error);
    /* OK when everything submitted, and the read, are done; PENDING; DEVICE_LOST. */
    dibit_status (*poll)(dbt_hal *hal, dibit_error *error);
    /* Forgets the read under way: its dst is not written any more. */
    void (*cancel)(dbt_hal *hal);
} dbt_hal_calls;

struct dbt_hal {
    const dbt_hal_calls *calls;
    const char *name;
    dbt_hal_limits limits;
    dbt_hal_counters counters;
};

/* Sizes are padded to this, as WebGPU wants. */
enum { DBT_HAL_ALIGNMENT = 4 };

/* pending_seed not 0: poll answers PENDING a random number of times. */
dibit_status dbt_hal_null_create(const dibit_allocator *allocator, uint32_t pending_seed,
                                 dbt_hal **out, dibit_error *error);

#endif

/* The state that the files of the native HAL share: hal_native.c opens and closes the device,
 * native_objects.c makes what lives on it, native_commands.c records and submits, native_reads.c brings
 * data back. */
#ifndef DBT_GPU_HAL_NATIVE_H
#define DBT_GPU_HAL_NATIVE_H

#include "base/os.h"
#include "gpu/hal_common.h"
#include "gpu/webgpu_abi.h"

enum {
    NATIVE_READS = DBT_HAL_MAX_READS + 4, /* those of callers, and of timestamps */
    NATIVE_TIMED = 2048                   /* passes that a query set times */
};

typedef struct native_buffer {
    dbt_hal_buffer base;
    dbt_wgpu_buffer handle;
} native_buffer;

typedef struct native_pipeline {
    dbt_hal_pipeline base;
    dbt_wgpu_group_layout group_layout;
    dbt_wgpu_pipeline handle;
} native_pipeline;

typedef struct native_group {
    dbt_hal_group base;
    dbt_wgpu_group handle;
} native_group;

/* A mappable buffer, and the read that uses it. */
typedef enum native_read_state { READ_FREE, READ_UNDER_WAY, READ_MAPPED, READ_FAILED } read_state;
typedef struct native_read {
    read_state state;
    dbt_wgpu_buffer staging;
    uint64_t capacity; /* of staging */
    uint64_t ticket;   /* 0: of timestamps */
    void *dst;         /* NULL: cancelled */
    uint64_t bytes;
} native_read;

/* Timestamps of up to NATIVE_TIMED passes, in order. */
typedef struct native_times native_times;
struct native_times {
    native_times *next;
    uint32_t n, taken;                /* passes; how many of them timings() has answered */
    uint64_t ticks[2 * NATIVE_TIMED]; /* begin and end of each */
};

typedef struct native_hal {
    dbt_hal base;
    dbt_hal_objects objects;
    dbt_wgpu_functions w;
    dbt_wgpu_instance instance;
    dbt_wgpu_adapter adapter;
    dbt_wgpu_device device;
    dbt_wgpu_queue queue;
    char name[200];
    bool checked_shaders;

    /* What is recorded; NULL: nothing. In an open pass, what is set. */
    dbt_wgpu_encoder encoder;
    dbt_wgpu_pass pass;
    const dbt_hal_pipeline *set_pipeline;
    const dbt_hal_group *set_group;
    uint32_t set_offset;
    bool unflushed;         /* writes wait for a submit */
    uint64_t staged;        /* bytes written since the submit `staged_since` */
    uint64_t staged_before; /* the submit of the chunk before; 0: none */

    uint64_t submitted, watched,
        done; /* submits; the last one with a callback; the last one done */

    native_read reads[NATIVE_READS];
    uint64_t next_ticket;

    dbt_hal_timing timing;
    float tick_ns;
    dbt_wgpu_queries queries;
    dbt_wgpu_buffer ticks;
    uint32_t n_timed; /* whose ticks are on the device */
    native_times *times, **times_end;

    /* What the device has found out since the last call that returned a status. */
    dibit_status fault;
    char fault_text[400];
} native_hal;

static inline native_hal *native_of(dbt_hal *hal) { return (native_hal *)hal; }

/* Answers a fault, once; a loss, always. */
dibit_status dbt_native_check(native_hal *hal, dibit_error *error);
/* Notes a fault. A loss is never replaced by another. */
void dbt_native_fault(native_hal *hal, dibit_status status, dbt_wgpu_string message);
/* wgpu-native 29 calls most errors on a lost device, and buffers that do not fit its memory, validation errors;
 * what they say tells. Else `status`. */
dibit_status dbt_native_status(const char *text, dibit_status status);
/* Copies a message of the library as one line, without its frame. */
void dbt_native_message(dbt_wgpu_string message, char *text, size_t bytes);

/* Error scopes around the creation of something. After dbt_native_scope_end: OK, OUT_OF_MEMORY, or
 * UNSUPPORTED with the compiler's or validator's sentence behind `name`. */
void dbt_native_scope_begin(native_hal *hal);
dibit_status dbt_native_scope_end(native_hal *hal, const char *name, dibit_error *error);

dbt_wgpu_buffer dbt_native_buffer_of(native_hal *hal, uint64_t bytes, dbt_wgpu_flags usage);
/* Releases what the object holds, and frees it. */
void dbt_native_object_free(native_hal *hal, dbt_hal_object *object);
dibit_status dbt_native_buffer_create(dbt_hal *hal, uint64_t bytes, dbt_hal_buffer **out,
                                      dibit_error *error);
void dbt_native_buffer_destroy(dbt_hal *hal, dbt_hal_buffer *buffer);
dibit_status dbt_native_pipeline_create(dbt_hal *hal, const dbt_hal_pipeline_desc *desc,
                                        dbt_hal_pipeline **out, dibit_error *error);
void dbt_native_pipeline_destroy(dbt_hal *hal, dbt_hal_pipeline *pipeline);
dibit_status dbt_native_group_create(dbt_hal *hal, dbt_hal_pipeline *pipeline,
                                     const dbt_hal_binding *bindings, uint32_t n,
                                     dbt_hal_buffer *uniforms, dbt_hal_group **out,
                                     dibit_error *error);
void dbt_native_group_destroy(dbt_hal *hal, dbt_hal_group *group);

/* The encoder, outside of a pass. */
dbt_wgpu_encoder dbt_native_encoder(native_hal *hal);
dibit_status dbt_native_write(dbt_hal *hal, dbt_hal_buffer *buffer, uint64_t offset,
                              const void *data, uint64_t bytes, dibit_error *error);
dibit_status dbt_native_write_ahead(dbt_hal *hal, dbt_hal_buffer *buffer, uint64_t offset,
                                    const void *data, uint64_t bytes, dibit_error *error);
dibit_status dbt_native_copy(dbt_hal *hal, dbt_hal_buffer *from, uint64_t from_offset,
                             dbt_hal_buffer *to, uint64_t to_offset, uint64_t bytes,
                             dibit_error *error);
dibit_status dbt_native_dispatch(dbt_hal *hal, const dbt_hal_dispatch *dispatch,
                                 dibit_error *error);
dibit_status dbt_native_submit(dbt_hal *hal, dibit_error *error);
/* Submits what is recorded. */
dibit_status dbt_native_flush(native_hal *hal, dibit_error *error);
/* Drops what is recorded. */
void dbt_native_discard(native_hal *hal);

dibit_status dbt_native_time(dbt_hal *hal, dbt_hal_timing timing, dibit_error *error);
uint32_t dbt_native_timings(dbt_hal *hal, uint64_t *ns, uint32_t n);
/* Submits what is recorded, and starts to read the ticks that are on the device. */
dibit_status dbt_native_times_read(native_hal *hal, dibit_error *error);
/* Where the next pass puts its ticks; NULL when it is not timed. */
const dbt_wgpu_timestamp_writes *dbt_native_times_next(native_hal *hal,
                                                       dbt_wgpu_timestamp_writes *writes);
void dbt_native_times_free(native_hal *hal);

/* Starts to read bytes (a multiple of 4) at offset of `from` into dst, behind what is recorded, and
 * submits. */
dibit_status dbt_native_read_start(native_hal *hal, dbt_wgpu_buffer from, uint64_t offset,
                                   void *dst, uint64_t bytes, uint64_t ticket, dibit_error *error);
dibit_status dbt_native_read(dbt_hal *hal, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                             uint64_t bytes, uint64_t *ticket, dibit_error *error);
dibit_status dbt_native_poll(dbt_hal *hal, uint64_t ticket, dibit_error *error);
void dbt_native_cancel(dbt_hal *hal, uint64_t ticket);
void dbt_native_reads_free(native_hal *hal);

/* For tests: the device is lost, as in a driver's reset. */
void dbt_hal_native_lose(dbt_hal *hal);

#endif

/* What the engine needs of a GPU, in a few calls, none of which blocks: work is recorded, submitted and
 * polled for. Knows nothing of ONNX. hal_native.c speaks webgpu.h, hal_null.c validates and never
 * computes; both fill the same table.
 *
 * ORDER. Writes, copies, dispatches and reads take effect in the order of the calls, but for
 * write_ahead. They are recorded and run when they are submitted: by `submit` and `read`, and by any other
 * call that cannot keep the order without.
 *
 * ERRORS. A call that would be invalid answers a status and records nothing: nothing invalid ever
 * reaches a queue. What a device finds out later (a shader that does not compile, memory that it does
 * not have, its own loss) is answered by the next call that returns a status; after DEVICE_LOST
 * everything answers DEVICE_LOST, and everything can still be destroyed. */
#ifndef DBT_GPU_HAL_H
#define DBT_GPU_HAL_H

#include "base/arena.h"

typedef struct dbt_hal dbt_hal;
typedef struct dbt_hal_buffer dbt_hal_buffer;
typedef struct dbt_hal_pipeline dbt_hal_pipeline;
typedef struct dbt_hal_group dbt_hal_group;

enum {
    DBT_HAL_ALIGNMENT = 4, /* offsets of writes and reads, copies altogether; buffers are padded */
    DBT_HAL_MAX_BINDINGS = 16,      /* storage buffers of a dispatch, whatever the device allows */
    DBT_HAL_MAX_UNIFORM_BYTES = 256 /* of a dispatch */
};

/* What a shader may use. */
enum {
    DBT_HAL_F16 = 1 << 0,       /* `enable f16;` */
    DBT_HAL_SUBGROUPS = 1 << 1, /* subgroupAdd and the like */
    DBT_HAL_DOT4 = 1 << 2,      /* dot4I8Packed and the like */
    DBT_HAL_TIMESTAMPS = 1 << 3,
    DBT_HAL_SOFTWARE = 1 << 4, /* the adapter is a CPU: lavapipe, SwiftShader */
    DBT_HAL_NAGA = 1 << 5,     /* shaders are compiled by naga, whose dialect differs from Tint's */
    DBT_HAL_NULL = 1 << 6      /* computes nothing: what is read back proves nothing */
};

typedef struct dbt_hal_limits {
    uint64_t max_buffer_bytes;
    uint64_t max_binding_bytes;
    uint32_t max_bindings;               /* storage buffers of a dispatch */
    uint32_t max_workgroups;             /* per dimension */
    uint32_t max_invocations;            /* of a workgroup */
    uint32_t max_workgroup_bytes;        /* of var<workgroup> */
    uint32_t binding_alignment;          /* of the offset of a binding */
    uint32_t uniform_alignment;          /* of a dispatch's uniforms_offset */
    uint32_t min_subgroup, max_subgroup; /* lanes; 0 without DBT_HAL_SUBGROUPS */
} dbt_hal_limits;

/* The shader's storage buffers are @group(0) @binding(i + 1) for the bits i of `bindings`; its uniforms,
 * if any, are @binding(0). The entry point is main. */
typedef struct dbt_hal_pipeline_desc {
    const char *name; /* for logs and errors */
    const char *wgsl;
    size_t wgsl_bytes;
    uint32_t bindings;      /* bit i: storage buffer i is there */
    uint32_t written;       /* bit i: it is read_write, else read */
    uint32_t uniform_bytes; /* 0: none; at most DBT_HAL_MAX_UNIFORM_BYTES */
} dbt_hal_pipeline_desc;

typedef struct dbt_hal_binding {
    dbt_hal_buffer *buffer; /* NULL: not bound */
    uint64_t offset;        /* a multiple of binding_alignment */
    uint64_t bytes;         /* 0: up to the buffer's end */
} dbt_hal_binding;

typedef struct dbt_hal_dispatch {
    const char *name; /* what it computes, for logs and errors */
    dbt_hal_pipeline *pipeline;
    dbt_hal_group *group;
    uint32_t uniforms_offset; /* where in the group's uniform buffer they begin */
    uint32_t workgroups[3];
} dbt_hal_dispatch;

/* What is timed, on a device with timestamps. */
typedef enum dbt_hal_timing {
    DBT_HAL_UNTIMED,
    DBT_HAL_TIME_PASSES, /* dispatches with no copy, write or submit between them: costs little */
    DBT_HAL_TIME_DISPATCHES /* each by itself: costs time between them */
} dbt_hal_timing;

/* How often each command was recorded, and what is alive; what tests look at. */
typedef struct dbt_hal_counters {
    uint64_t buffers, buffer_bytes, pipelines, groups; /* alive */
    uint64_t created;                                  /* buffers, pipelines and groups ever made */
    uint64_t writes, reads, copies, dispatches, submits;
    uint64_t submit_ns; /* that the CPU took to hand over what was recorded */
} dbt_hal_counters;

typedef struct dbt_hal_calls {
    /* Frees whatever is still alive, too. */
    void (*destroy)(dbt_hal *hal);
    /* The content is zeros. */
    dibit_status (*buffer_create)(dbt_hal *hal, uint64_t bytes, dbt_hal_buffer **out,
                                  dibit_error *error);
    /* Buffers, pipelines and groups live on as long as recorded work needs them. NULL is allowed. */
    void (*buffer_destroy)(dbt_hal *hal, dbt_hal_buffer *buffer);
    /* UNSUPPORTED, with the compiler's sentence, for a shader that does not compile; or, where pipelines are made
     * beside other work, the same later, of what was dispatched with it. */
    dibit_status (*pipeline_create)(dbt_hal *hal, const dbt_hal_pipeline_desc *desc,
                                    dbt_hal_pipeline **out, dibit_error *error);
    void (*pipeline_destroy)(dbt_hal *hal, dbt_hal_pipeline *pipeline);
    /* Buffers for a pipeline's bindings: bindings[i] for bit i of the pipeline's, n of them at most
     * DBT_HAL_MAX_BINDINGS; uniforms NULL when it has none. */
    dibit_status (*group_create)(dbt_hal *hal, dbt_hal_pipeline *pipeline,
                                 const dbt_hal_binding *bindings, uint32_t n,
                                 dbt_hal_buffer *uniforms, dbt_hal_group **out, dibit_error *error);
    void (*group_destroy)(dbt_hal *hal, dbt_hal_group *group);
    /* Data is copied before the call returns. The rest of a last word that is written in part becomes
     * zeros. A write that is far ahead of the device waits for it: the one wait there is. */
    dibit_status (*write)(dbt_hal *hal, dbt_hal_buffer *buffer, uint64_t offset, const void *data,
                          uint64_t bytes, dibit_error *error);
    /* As write, but takes effect before everything recorded since the last submit. For before_submit:
     * the uniforms of dispatches that are recorded already. */
    dibit_status (*write_ahead)(dbt_hal *hal, dbt_hal_buffer *buffer, uint64_t offset,
                                const void *data, uint64_t bytes, dibit_error *error);
    /* NULL, or as write, with bytes of a source that the device reads by itself, without their passing
     * through memory here. PENDING: they are not there yet, ask again. UNSUPPORTED, without a
     * sentence: not from this source. */
    dibit_status (*write_source)(dbt_hal *hal, dbt_hal_buffer *buffer, uint64_t offset,
                                 const dibit_source *source, uint64_t from, uint64_t bytes,
                                 dibit_error *error);
    dibit_status (*copy)(dbt_hal *hal, dbt_hal_buffer *from, uint64_t from_offset,
                         dbt_hal_buffer *to, uint64_t to_offset, uint64_t bytes,
                         dibit_error *error);
    dibit_status (*dispatch)(dbt_hal *hal, const dbt_hal_dispatch *dispatch, dibit_error *error);
    dibit_status (*submit)(dbt_hal *hal, dibit_error *error);
    /* Submits, and starts to read what the buffer holds then; dst is filled when poll(*ticket) answers
     * OK. Several reads may be under way. */
    dibit_status (*read)(dbt_hal *hal, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                         uint64_t bytes, uint64_t *ticket, dibit_error *error);
    /* OK when that read is done; ticket 0: when everything submitted is. Else PENDING; or what went wrong, and then
     * the read is forgotten. */
    dibit_status (*poll)(dbt_hal *hal, uint64_t ticket, dibit_error *error);
    /* Forgets a read: its dst is not written any more. */
    void (*cancel)(dbt_hal *hal, uint64_t ticket);
    /* How dispatches that are recorded from now on are timed; nothing without timestamps. Times that are
     * on the device still are read, so after poll(0) `timings` has them. */
    dibit_status (*time)(dbt_hal *hal, dbt_hal_timing timing, dibit_error *error);
    /* Nanoseconds of the oldest timed passes or dispatches that are known, in order, and forgets them; at
     * most n. */
    uint32_t (*timings)(dbt_hal *hal, uint64_t *ns, uint32_t n);
} dbt_hal_calls;

struct dbt_hal {
    const dbt_hal_calls *calls;
    const char *name; /* of the adapter */
    uint32_t features;
    dbt_hal_limits limits;
    dbt_hal_counters counters;
    /* What is dispatched now is left out where its shader turns out not to compile, and no error. */
    bool may_fail;
    /* NULL, or called before recorded work is submitted, whatever submits it. */
    dibit_status (*before_submit)(void *user, dibit_error *error);
    void *before_submit_user;
};

/* pending_seed not 0: poll answers PENDING a random number of times. */
dibit_status dbt_hal_null_create(const dibit_allocator *allocator, uint32_t pending_seed,
                                 dbt_hal **out, dibit_error *error);

/* The adapters that dbt_hal_native_create takes. */
typedef enum dbt_hal_adapter {
    DBT_HAL_HARDWARE, /* a GPU; software adapters are no choice */
    DBT_HAL_ANY       /* a GPU if there is one, else software */
} dbt_hal_adapter;

typedef struct dbt_hal_native_desc {
    const char *library; /* NULL: the well-known places */
    dbt_hal_adapter adapter;
    bool checked_shaders; /* with the library's bounds checks and loop limits, which cost */
} dbt_hal_native_desc;

/* Opens a WebGPU library. DEVICE_UNAVAILABLE, with a sentence that says what is missing, when there is
 * none or it has no such adapter. */
dibit_status dbt_hal_native_create(const dibit_allocator *allocator,
                                   const dbt_hal_native_desc *desc, dbt_hal **out,
                                   dibit_error *error);

#endif

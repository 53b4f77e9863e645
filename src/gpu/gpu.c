/* Records dispatches on the HAL: the uniforms of a batch, scratch, and a cache of pipelines and groups
 * (gpu_cache.c). Executors record and submit through it.
 *
 * UNIFORMS. All dispatches of a batch have theirs in one buffer, at aligned offsets in the order of
 * recording; a copy on the CPU is filled meanwhile, and written ahead of the dispatches before the HAL
 * submits them.
 *
 * BATCHES. A submit costs the CPU and the device, whatever is in it. So what follows a read that is still
 * under way - the next token - is submitted as a whole: the device has enough to do. Otherwise it
 * waits, and gets the first dispatches while others are recorded. */
#include "gpu/gpu.h"

#include <string.h>

#include "base/os.h"
#include "gpu/gpu_cache.h"
#include "gpu/gpu_times.h"

enum {
    FIRST_BATCH = 64, /* dispatches, while the device waits */
    BATCH = 1024,
    UNIFORM_BYTES = BATCH * DBT_HAL_MAX_UNIFORM_BYTES /* the largest alignment, too */
};

typedef struct memory {
    struct memory *next;
    const void *key;
    uint64_t bytes; /* of this struct too */
    _Alignas(16) unsigned char data[];
} memory;

struct dbt_gpu {
    dibit_allocator allocator;
    dbt_hal *hal;
    uint32_t n_recorded; /* dispatches since the last submit */
    uint64_t last_read;  /* its ticket; 0: it is done */
    uint64_t last_poll;  /* the ticket that was waited for last */
    dbt_gpu_cache cache;
    dbt_hal_buffer *uniforms;
    unsigned char *uniform_bytes; /* [UNIFORM_BYTES]: what `uniforms` will hold */
    uint32_t uniforms_used;
    dbt_hal_buffer *scratch[DBT_GPU_SCRATCH];
    uint64_t scratch_bytes[DBT_GPU_SCRATCH];
    memory *memories;
    uint32_t dropped_kernels;
    bool fusion_is_dropped;
    dbt_gpu_times times;
};

/* ---- Recording ---- */

/* After the dispatch is recorded: recording it may have submitted those before it. */
static void keep_uniforms(dbt_gpu *gpu, const dbt_gpu_dispatch *d, uint32_t offset) {
    const uint32_t alignment = gpu->hal->limits.uniform_alignment;
    if (d->uniform_bytes == 0) return;
    memcpy(gpu->uniform_bytes + offset, d->uniforms, d->uniform_bytes);
    gpu->uniforms_used = (offset + d->uniform_bytes + alignment - 1) / alignment * alignment;
}

/* The device works on something, as far as reads tell. */
static dibit_status is_busy(dbt_gpu *gpu, bool *busy, dibit_error *error) {
    *busy = false;
    if (gpu->last_read == 0) return DIBIT_OK;
    const dibit_status status = gpu->hal->calls->poll(gpu->hal, gpu->last_read, error);
    *busy = status == DIBIT_PENDING;
    if (!*busy) gpu->last_read = 0;
    return *busy ? DIBIT_OK : status;
}

dibit_status dbt_gpu_record(dbt_gpu *gpu, const dbt_gpu_dispatch *d, dibit_error *error) {
    for (int i = 0; i < 3; i++) {
        if (d->workgroups[i] == 0) return DIBIT_OK;
        DBT_FAIL_IF(d->workgroups[i] > gpu->hal->limits.max_workgroups, error, DIBIT_TOO_LARGE,
                    "%s wants %u workgroups, the device allows %u", d->shader,
                    (unsigned)d->workgroups[i], (unsigned)gpu->hal->limits.max_workgroups);
    }
    dbt_hal_dispatch dispatch = {
        .name = d->shader, .workgroups = {d->workgroups[0], d->workgroups[1], d->workgroups[2]}};
    DBT_TRY(dbt_gpu_cache_find(&gpu->cache, d, &dispatch.pipeline, &dispatch.group, error));
    dispatch.uniforms_offset = d->uniform_bytes ? gpu->uniforms_used : 0;
    DBT_TRY(dbt_gpu_times_push(&gpu->times, error));
    const dibit_status status = gpu->hal->calls->dispatch(gpu->hal, &dispatch, error);
    if (status != DIBIT_OK) {
        dbt_gpu_times_pop(&gpu->times);
        return status;
    }
    keep_uniforms(gpu, d, dispatch.uniforms_offset);
    if (++gpu->n_recorded % FIRST_BATCH != 0) return DIBIT_OK;
    bool busy;
    DBT_TRY(is_busy(gpu, &busy, error));
    return busy && gpu->n_recorded < BATCH ? DIBIT_OK : dbt_gpu_submit(gpu, error);
}

dibit_status dbt_gpu_warm(dbt_gpu *gpu, const dbt_gpu_dispatch *dispatch, dibit_error *error) {
    dbt_hal_pipeline *pipeline;
    return dbt_gpu_cache_find(&gpu->cache, dispatch, &pipeline, NULL, error);
}

static dibit_status write_uniforms(void *user, dibit_error *error) {
    dbt_gpu *const gpu = user;
    gpu->n_recorded = 0;
    if (gpu->uniforms_used == 0) return DIBIT_OK;
    DBT_TRY(gpu->hal->calls->write_ahead(gpu->hal, gpu->uniforms, 0, gpu->uniform_bytes,
                                         gpu->uniforms_used, error));
    gpu->uniforms_used = 0;
    return DIBIT_OK;
}

dibit_status dbt_gpu_submit(dbt_gpu *gpu, dibit_error *error) {
    return gpu->hal->calls->submit(gpu->hal, error);
}

dibit_status dbt_gpu_read(dbt_gpu *gpu, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                          uint64_t bytes, uint64_t *ticket, dibit_error *error) {
    DBT_TRY(gpu->hal->calls->read(gpu->hal, buffer, offset, dst, bytes, ticket, error));
    gpu->last_read = *ticket;
    return DIBIT_OK;
}

dibit_status dbt_gpu_poll(dbt_gpu *gpu, uint64_t ticket, dibit_error *error) {
    if (gpu->last_poll == ticket) dbt_os_nap();
    gpu->last_poll = ticket;
    return gpu->hal->calls->poll(gpu->hal, ticket, error);
}

dibit_status dbt_gpu_grid(const dbt_gpu *gpu, uint64_t n, uint32_t workgroups[3],
                          dibit_error *error) {
    const uint64_t limit = gpu->hal->limits.max_workgroups;
    DBT_FAIL_IF(n > INT32_MAX || n > limit * limit, error, DIBIT_TOO_LARGE,
                "%llu workgroups are beyond the device's limits", (unsigned long long)n);
    const uint64_t y = n == 0 ? 1 : (n + limit - 1) / limit;
    workgroups[0] = (uint32_t)((n + y - 1) / y);
    workgroups[1] = (uint32_t)y;
    workgroups[2] = 1;
    return DIBIT_OK;
}

/* ---- Buffers ---- */

dibit_status dbt_gpu_buffer_create(dbt_gpu *gpu, uint64_t bytes, dbt_hal_buffer **out,
                                   dibit_error *error) {
    return gpu->hal->calls->buffer_create(gpu->hal, bytes, out, error);
}

void dbt_gpu_buffer_destroy(dbt_gpu *gpu, dbt_hal_buffer *buffer) {
    if (!buffer) return;
    dbt_gpu_cache_forget(&gpu->cache, buffer);
    gpu->hal->calls->buffer_destroy(gpu->hal, buffer);
}

dibit_status dbt_gpu_scratch(dbt_gpu *gpu, uint32_t index, uint64_t bytes, dbt_hal_buffer **out,
                             dibit_error *error) {
    if (gpu->scratch_bytes[index] < bytes || !gpu->scratch[index]) {
        uint64_t wanted = 1024;
        while (wanted < bytes && wanted <= gpu->hal->limits.max_buffer_bytes / 2) wanted *= 2;
        if (wanted < bytes) wanted = bytes;
        dbt_hal_buffer *grown = NULL;
        DBT_TRY(dbt_gpu_buffer_create(gpu, wanted, &grown, error));
        dbt_gpu_buffer_destroy(gpu, gpu->scratch[index]);
        gpu->scratch[index] = grown;
        gpu->scratch_bytes[index] = wanted;
    }
    *out = gpu->scratch[index];
    return DIBIT_OK;
}

/* ---- What ops keep ---- */

dibit_status dbt_gpu_memory(dbt_gpu *gpu, const void *key, uint64_t bytes, void **out,
                            dibit_error *error) {
    memory *m = gpu->memories;
    while (m && m->key != key) m = m->next;
    if (!m) {
        const uint64_t all = sizeof *m + bytes;
        m = dbt_alloc(&gpu->allocator, all, 16);
        if (!m) return dbt_fail_memory(error, "an op's memory of a device", all);
        memset(m, 0, (size_t)all);
        *m = (memory){.next = gpu->memories, .key = key, .bytes = all};
        gpu->memories = m;
    }
    *out = m->data;
    return DIBIT_OK;
}

static void free_memories(dbt_gpu *gpu) {
    for (memory *m = gpu->memories, *next; m; m = next) {
        next = m->next;
        dbt_release(&gpu->allocator, m, m->bytes);
    }
}

void dbt_gpu_drop_kernel(dbt_gpu *gpu) { gpu->dropped_kernels++; }
uint32_t dbt_gpu_dropped_kernels(const dbt_gpu *gpu) { return gpu->dropped_kernels; }
void dbt_gpu_drop_fusion(dbt_gpu *gpu) { gpu->fusion_is_dropped = true; }
bool dbt_gpu_fusion_is_dropped(const dbt_gpu *gpu) { return gpu->fusion_is_dropped; }

/* ---- Times ---- */

dibit_status dbt_gpu_time(dbt_gpu *gpu, dbt_hal_timing timing, dibit_error *error) {
    return dbt_gpu_times_set(&gpu->times, timing, error);
}

void dbt_gpu_time_to(dbt_gpu *gpu, uint64_t *ns) { gpu->times.owner = ns; }

void dbt_gpu_time_forget(dbt_gpu *gpu) { dbt_gpu_times_forget(&gpu->times); }

dibit_status dbt_gpu_time_all(dbt_gpu *gpu, uint64_t *ns, dibit_error *error) {
    dbt_hal *const hal = gpu->hal;
    DBT_TRY(dbt_gpu_submit(gpu, error));
    DBT_TRY(dbt_gpu_times_set(&gpu->times, gpu->times.timing, error)); /* reads what is not known */
    DBT_TRY(hal->calls->poll(hal, 0, error));
    dbt_gpu_times_collect(&gpu->times);
    *ns = gpu->times.busy_ns;
    return DIBIT_OK;
}

/* ---- The device ---- */

static dibit_status start(dbt_gpu *gpu, dbt_hal *hal, dibit_error *error) {
    gpu->uniform_bytes = dbt_alloc(&gpu->allocator, UNIFORM_BYTES, 16);
    if (!gpu->uniform_bytes) return dbt_fail_memory(error, "a device", UNIFORM_BYTES);
    memset(gpu->uniform_bytes, 0, UNIFORM_BYTES);
    DBT_TRY(hal->calls->buffer_create(hal, UNIFORM_BYTES, &gpu->uniforms, error));
    gpu->cache = (dbt_gpu_cache){.allocator = gpu->allocator,
                                 .hal = hal,
                                 .shaders = &dbt_shaders,
                                 .uniforms = gpu->uniforms};
    return dbt_gpu_cache_init(&gpu->cache, error);
}

/* All but the HAL, which is the caller's until dbt_gpu_create has succeeded. */
static void release(dbt_gpu *gpu) {
    const dibit_allocator allocator = gpu->allocator;
    dbt_gpu_cache_free(&gpu->cache);
    free_memories(gpu);
    dbt_gpu_times_free(&gpu->times);
    if (gpu->uniform_bytes) dbt_release(&allocator, gpu->uniform_bytes, UNIFORM_BYTES);
    dbt_release(&allocator, gpu, sizeof *gpu);
}

dibit_status dbt_gpu_create(const dibit_allocator *allocator, dbt_hal *hal, dbt_gpu **out,
                            dibit_error *error) {
    dbt_gpu *const gpu = dbt_alloc(allocator, sizeof *gpu, sizeof(uint64_t));
    if (!gpu) return dbt_fail_memory(error, "a device", sizeof *gpu);
    *gpu = (dbt_gpu){.allocator = *allocator, .times = {.allocator = *allocator, .hal = hal}};
    const dibit_status status = start(gpu, hal, error);
    if (status != DIBIT_OK) {
        release(gpu);
        return status;
    }
    gpu->hal = hal;
    hal->before_submit = write_uniforms;
    hal->before_submit_user = gpu;
    *out = gpu;
    return DIBIT_OK;
}

void dbt_gpu_destroy(dbt_gpu **handle) {
    dbt_gpu *const gpu = *handle;
    if (!gpu) return;
    *handle = NULL;
    dbt_hal *const hal = gpu->hal;
    hal->before_submit = NULL;
    release(gpu);
    hal->calls->destroy(hal);
}

dbt_hal *dbt_gpu_hal(const dbt_gpu *gpu) { return gpu->hal; }

void dbt_gpu_use_shaders(dbt_gpu *gpu, const dbt_shader_library *shaders) {
    gpu->cache.shaders = shaders;
}

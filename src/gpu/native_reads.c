/* Reads of the native HAL: a copy into a mappable buffer, which is mapped when the device has come that
 * far; and timestamps, which are read the same way. Mappable buffers are kept for the next read. */
#include <string.h>

#include "gpu/hal_native.h"

enum { KEPT_STAGING = 16 << 20 }; /* larger ones are not kept */

/* ---- Mappable buffers ---- */

static void on_map(dbt_wgpu_enum status, dbt_wgpu_string message, void *to, void *unused) {
    (void)message;
    (void)unused;
    ((native_read *)to)->state = status == DBT_WGPU_STATUS_SUCCESS ? READ_MAPPED : READ_FAILED;
}

static void drop_staging(native_hal *hal, native_read *read) {
    if (read->staging) hal->w.BufferRelease(read->staging);
    *read = (native_read){.state = READ_FREE};
}

/* The read is over: its buffer may serve the next one. */
static void finish(native_hal *hal, native_read *read) {
    if (read->state != READ_FAILED) hal->w.BufferUnmap(read->staging);
    read->state = READ_FREE;
    read->dst = NULL;
    read->ticket = 0;
    if (read->capacity > KEPT_STAGING) drop_staging(hal, read);
}

/* A free place, at best with a buffer that is large enough. */
static native_read *find_free(native_hal *hal, uint64_t bytes) {
    native_read *found = NULL;
    for (native_read *r = hal->reads; r < hal->reads + NATIVE_READS; r++) {
        if (r->state != READ_FREE) continue;
        if (!found || (found->capacity < bytes && r->capacity > found->capacity)) found = r;
    }
    return found;
}

static dibit_status provide_staging(native_hal *hal, native_read *read, uint64_t bytes,
                                    dibit_error *error) {
    if (read->capacity >= bytes) return DIBIT_OK;
    drop_staging(hal, read);
    uint64_t capacity = 4096;
    while (capacity < bytes && capacity < KEPT_STAGING) capacity *= 2;
    if (capacity < bytes) capacity = bytes;
    dbt_native_scope_begin(hal);
    read->staging =
        dbt_native_buffer_of(hal, capacity, DBT_WGPU_USAGE_MAP_READ | DBT_WGPU_USAGE_COPY_DST);
    const dibit_status status = dbt_native_scope_end(hal, "a buffer to read into", error);
    if (status != DIBIT_OK)
        drop_staging(hal, read);
    else
        read->capacity = capacity;
    return status;
}

dibit_status dbt_native_read_start(native_hal *hal, dbt_wgpu_buffer from, uint64_t offset,
                                   void *dst, uint64_t bytes, uint64_t ticket, dibit_error *error) {
    const dbt_wgpu_functions *const w = &hal->w;
    const uint64_t whole = dbt_hal_round(bytes, DBT_HAL_ALIGNMENT);
    native_read *const read = find_free(hal, whole);
    DBT_FAIL_IF(!read, error, DIBIT_BAD_STATE, "%d reads are under way already", NATIVE_READS);
    DBT_TRY(provide_staging(hal, read, whole, error));
    w->CommandEncoderCopyBufferToBuffer(dbt_native_encoder(hal), from, offset, read->staging, 0,
                                        whole);
    DBT_TRY(dbt_native_flush(hal, error));
    read->state = READ_UNDER_WAY;
    read->ticket = ticket;
    read->dst = dst;
    read->bytes = bytes;
    w->BufferMapAsync(read->staging, DBT_WGPU_MAP_READ, 0, (size_t)whole,
                      (dbt_wgpu_map_callback){.mode = DBT_WGPU_CALLBACK_SPONTANEOUS,
                                              .callback = on_map,
                                              .userdata1 = read});
    return dbt_native_check(hal, error);
}

void dbt_native_reads_free(native_hal *hal) {
    for (native_read *r = hal->reads; r < hal->reads + NATIVE_READS; r++) {
        if (r->state != READ_FREE) finish(hal, r);
        drop_staging(hal, r);
    }
}

/* Takes what has arrived. What a lost device has mapped must not be touched: that aborts. */
static dibit_status deliver(native_hal *hal, dibit_error *error) {
    DBT_TRY(dbt_native_check(hal, error));
    for (native_read *r = hal->reads; r < hal->reads + NATIVE_READS; r++) {
        if (r->state == READ_FAILED) finish(hal, r);
        if (r->state != READ_MAPPED) continue;
        const size_t bytes = (size_t)r->bytes;
        const void *const data = hal->w.BufferGetConstMappedRange(
            r->staging, 0, dbt_hal_round(bytes, DBT_HAL_ALIGNMENT));
        if (r->dst) memcpy(r->dst, data, bytes);
        finish(hal, r);
    }
    return DIBIT_OK;
}

/* ---- Reads of callers ---- */

static uint32_t count_reads(const native_hal *hal) {
    uint32_t n = 0;
    for (int i = 0; i < NATIVE_READS; i++) n += hal->reads[i].ticket != 0;
    return n;
}

dibit_status dbt_native_read(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                             uint64_t bytes, uint64_t *ticket, dibit_error *error) {
    native_hal *const hal = native_of(base);
    DBT_TRY(dbt_native_check(hal, error));
    DBT_TRY(dbt_hal_check_range(buffer, offset, bytes, error));
    DBT_FAIL_IF(count_reads(hal) >= DBT_HAL_MAX_READS, error, DIBIT_BAD_STATE,
                "%d reads are under way already", DBT_HAL_MAX_READS);
    const uint64_t mine = ++hal->next_ticket;
    if (bytes) {
        DBT_TRY(dbt_native_read_start(hal, ((const native_buffer *)buffer)->handle, offset, dst,
                                      bytes, mine, error));
    } else {
        DBT_TRY(dbt_native_flush(hal, error));
    }
    base->counters.reads++;
    base->counters.submits++;
    *ticket = mine;
    return DIBIT_OK;
}

static void on_done(dbt_wgpu_enum status, dbt_wgpu_string message, void *hal, void *submit) {
    (void)status;
    (void)message;
    const uint64_t done = (uintptr_t)submit;
    if (done > ((native_hal *)hal)->done) ((native_hal *)hal)->done = done;
}

/* All that is submitted has run. */
static bool is_idle(native_hal *hal) {
    if (hal->watched < hal->submitted) {
        hal->watched = hal->submitted;
        hal->w.QueueOnSubmittedWorkDone(
            hal->queue, (dbt_wgpu_done_callback){.mode = DBT_WGPU_CALLBACK_SPONTANEOUS,
                                                 .callback = on_done,
                                                 .userdata1 = hal,
                                                 .userdata2 = (void *)(uintptr_t)hal->submitted});
        hal->w.DevicePoll(hal->device, false, NULL);
    }
    return hal->done >= hal->submitted;
}

static dibit_status poll(native_hal *hal, uint64_t ticket, dibit_error *error) {
    DBT_TRY(dbt_native_check(hal, error));
    hal->w.DevicePoll(hal->device, false, NULL);
    DBT_TRY(deliver(hal, error));
    bool waiting = ticket == 0 && !is_idle(hal);
    for (int i = 0; i < NATIVE_READS; i++) {
        const native_read *const r = &hal->reads[i];
        if (r->state != READ_FREE && (ticket == 0 || r->ticket == ticket)) waiting = true;
    }
    DBT_TRY(dbt_native_check(hal, error));
    return waiting ? DIBIT_PENDING : DIBIT_OK;
}

void dbt_native_cancel(dbt_hal *base, uint64_t ticket) {
    native_hal *const hal = native_of(base);
    for (native_read *r = hal->reads; r < hal->reads + NATIVE_READS; r++) {
        if (!ticket || r->ticket != ticket) continue;
        r->dst = NULL;
        r->ticket = 0;
        if (r->state == READ_UNDER_WAY) hal->w.BufferUnmap(r->staging); /* answers on_map */
        if (r->state == READ_FAILED) finish(hal, r);
    }
}

dibit_status dbt_native_poll(dbt_hal *base, uint64_t ticket, dibit_error *error) {
    const dibit_status status = poll(native_of(base), ticket, error);
    if (status != DIBIT_OK && status != DIBIT_PENDING) dbt_native_cancel(base, ticket);
    return status;
}

/* ---- Timestamps ---- */

dibit_status dbt_native_time(dbt_hal *base, dbt_hal_timing timing, dibit_error *error) {
    native_hal *const hal = native_of(base);
    DBT_TRY(dbt_native_check(hal, error));
    if (!(base->features & DBT_HAL_TIMESTAMPS)) return DIBIT_OK;
    if (timing && !hal->queries) {
        hal->queries = hal->w.DeviceCreateQuerySet(
            hal->device,
            &(dbt_wgpu_queries_desc){.type = DBT_WGPU_QUERY_TIMESTAMP, .count = 2 * NATIVE_TIMED});
        hal->ticks = dbt_native_buffer_of(hal, sizeof(((native_times *)0)->ticks),
                                          DBT_WGPU_USAGE_QUERY_RESOLVE | DBT_WGPU_USAGE_COPY_SRC);
    }
    if (hal->timing != timing) dbt_native_encoder(hal); /* a pass is timed in one way */
    hal->timing = timing;
    return hal->n_timed ? dbt_native_times_read(hal, error) : DIBIT_OK;
}

const dbt_wgpu_timestamp_writes *dbt_native_times_next(native_hal *hal,
                                                       dbt_wgpu_timestamp_writes *writes) {
    if (!hal->timing) return NULL;
    const uint32_t i = hal->n_timed++;
    *writes = (dbt_wgpu_timestamp_writes){.querySet = hal->queries,
                                          .beginningOfPassWriteIndex = 2 * i,
                                          .endOfPassWriteIndex = 2 * i + 1};
    return writes;
}

dibit_status dbt_native_times_read(native_hal *hal, dibit_error *error) {
    const uint32_t n = hal->n_timed;
    hal->n_timed = 0;
    native_times *const times = dbt_alloc(&hal->objects.allocator, sizeof *times, 16);
    if (!times) return dbt_fail_memory(error, "timestamps", sizeof *times);
    memset(times, 0, sizeof *times);
    times->n = n;
    *hal->times_end = times;
    hal->times_end = &times->next;
    /* Measuring may wait. */
    while (!find_free(hal, 0)) {
        hal->w.DevicePoll(hal->device, true, NULL);
        DBT_TRY(deliver(hal, error));
    }
    hal->w.CommandEncoderResolveQuerySet(dbt_native_encoder(hal), hal->queries, 0, 2 * n,
                                         hal->ticks, 0);
    return dbt_native_read_start(hal, hal->ticks, 0, times->ticks, 16 * (uint64_t)n, 0, error);
}

static void pop_times(native_hal *hal) {
    native_times *const first = hal->times;
    hal->times = first->next;
    if (!hal->times) hal->times_end = &hal->times;
    dbt_release(&hal->objects.allocator, first, sizeof *first);
}

static bool is_under_way(const native_hal *hal, const void *dst) {
    for (int i = 0; i < NATIVE_READS; i++) {
        if (hal->reads[i].dst == dst) return true;
    }
    return false;
}

uint32_t dbt_native_timings(dbt_hal *base, uint64_t *ns, uint32_t n) {
    native_hal *const hal = native_of(base);
    uint32_t got = 0;
    while (got < n && hal->times && !is_under_way(hal, hal->times->ticks)) {
        native_times *const t = hal->times;
        for (; got < n && t->taken < t->n; t->taken++) {
            const uint64_t begin = t->ticks[2 * t->taken], end = t->ticks[2 * t->taken + 1];
            ns[got++] = end > begin ? (uint64_t)((double)(end - begin) * (double)hal->tick_ns) : 0;
        }
        if (t->taken == t->n) pop_times(hal);
    }
    return got;
}

void dbt_native_times_free(native_hal *hal) {
    while (hal->times) pop_times(hal);
    if (hal->queries) hal->w.QuerySetRelease(hal->queries);
    if (hal->ticks) hal->w.BufferRelease(hal->ticks);
}

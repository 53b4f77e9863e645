/* Commands of the native HAL. Consecutive dispatches share a compute pass, and everything up to a submit
 * a command encoder; both are opened by the first command that needs them. A dispatch allocates nothing
 * here. */
#include "gpu/hal_native.h"

/* The library copies what is written into staging memory, which it frees when the write is done. So a
 * long write goes in chunks, and waits for all but the last two of them. */
enum { WRITE_CHUNK = 16 << 20 };

static void end_pass(native_hal *hal) {
    if (!hal->pass) return;
    hal->w.ComputePassEncoderEnd(hal->pass);
    hal->w.ComputePassEncoderRelease(hal->pass);
    hal->pass = NULL;
}

dbt_wgpu_encoder dbt_native_encoder(native_hal *hal) {
    end_pass(hal);
    if (!hal->encoder) hal->encoder = hal->w.DeviceCreateCommandEncoder(hal->device, NULL);
    return hal->encoder;
}

void dbt_native_discard(native_hal *hal) {
    if (hal->pass) {
        hal->w.ComputePassEncoderEnd(hal->pass);
        hal->w.ComputePassEncoderRelease(hal->pass);
    }
    if (hal->encoder) hal->w.CommandEncoderRelease(hal->encoder);
    hal->pass = NULL;
    hal->encoder = NULL;
    hal->n_timed = 0;
}

dibit_status dbt_native_submit(dbt_hal *base, dibit_error *error) {
    native_hal *const hal = native_of(base);
    DBT_TRY(dbt_native_check(hal, error));
    if (hal->encoder || hal->unflushed) base->counters.submits++;
    return dbt_native_flush(hal, error);
}

static dibit_status flush(native_hal *hal, dibit_error *error) {
    const dbt_wgpu_functions *const w = &hal->w;
    end_pass(hal);
    if (hal->encoder) {
        DBT_TRY(dbt_hal_before_submit(&hal->base, error));
        const dbt_wgpu_commands commands = w->CommandEncoderFinish(hal->encoder, NULL);
        w->CommandEncoderRelease(hal->encoder);
        hal->encoder = NULL;
        const dibit_status status = dbt_native_check(hal, error);
        if (status == DIBIT_OK) w->QueueSubmit(hal->queue, 1, &commands);
        hal->submitted++;
        w->CommandBufferRelease(commands);
        DBT_TRY(status);
    } else if (hal->unflushed) {
        w->QueueSubmit(hal->queue, 0, NULL);
        hal->submitted++;
    }
    hal->unflushed = false;
    return dbt_native_check(hal, error);
}

dibit_status dbt_native_flush(native_hal *hal, dibit_error *error) {
    const uint64_t start = dbt_os_nanoseconds();
    const dibit_status status = flush(hal, error);
    hal->base.counters.submit_ns += dbt_os_nanoseconds() - start;
    return status;
}

/* ---- Writes and copies ---- */

static void write_part(native_hal *hal, const native_buffer *buffer, uint64_t offset,
                       const unsigned char *data, size_t bytes) {
    const dbt_wgpu_functions *const w = &hal->w;
    w->QueueWriteBuffer(hal->queue, buffer->handle, offset, data, bytes);
    hal->unflushed = true;
    hal->staged += bytes;
    if (hal->staged < WRITE_CHUNK) return;
    const uint64_t submission = w->QueueSubmitForIndex(hal->queue, 0, NULL);
    if (hal->staged_before) w->DevicePoll(hal->device, true, &hal->staged_before);
    hal->staged_before = submission;
    hal->staged = 0;
    hal->unflushed = false;
    hal->submitted++;
}

dibit_status dbt_native_write(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset,
                              const void *data, uint64_t bytes, dibit_error *error) {
    /* The queue writes before what is submitted later, so what is recorded has to be submitted now. */
    if (native_of(base)->encoder) DBT_TRY(dbt_native_submit(base, error));
    return dbt_native_write_ahead(base, buffer, offset, data, bytes, error);
}

dibit_status dbt_native_write_ahead(dbt_hal *base, dbt_hal_buffer *buffer, uint64_t offset,
                                    const void *data, uint64_t bytes, dibit_error *error) {
    native_hal *const hal = native_of(base);
    const native_buffer *const to = (const native_buffer *)buffer;
    DBT_TRY(dbt_native_check(hal, error));
    DBT_TRY(dbt_hal_check_range(buffer, offset, bytes, error));
    const unsigned char *from = data;
    while (bytes >= DBT_HAL_ALIGNMENT) {
        const uint64_t whole = bytes / DBT_HAL_ALIGNMENT * DBT_HAL_ALIGNMENT;
        const size_t part = whole < WRITE_CHUNK ? (size_t)whole : WRITE_CHUNK;
        write_part(hal, to, offset, from, part);
        from += part;
        offset += part;
        bytes -= part;
    }
    unsigned char last[DBT_HAL_ALIGNMENT] = {0};
    for (uint64_t i = 0; i < bytes; i++) last[i] = from[i];
    if (bytes) write_part(hal, to, offset, last, sizeof last);
    base->counters.writes++;
    return dbt_native_check(hal, error);
}

dibit_status dbt_native_copy(dbt_hal *base, dbt_hal_buffer *from, uint64_t from_offset,
                             dbt_hal_buffer *to, uint64_t to_offset, uint64_t bytes,
                             dibit_error *error) {
    native_hal *const hal = native_of(base);
    DBT_TRY(dbt_native_check(hal, error));
    DBT_TRY(dbt_hal_check_copy(from, from_offset, to, to_offset, bytes, error));
    if (bytes) {
        hal->w.CommandEncoderCopyBufferToBuffer(
            dbt_native_encoder(hal), ((const native_buffer *)from)->handle, from_offset,
            ((const native_buffer *)to)->handle, to_offset, bytes);
    }
    base->counters.copies++;
    return dbt_native_check(hal, error);
}

/* ---- Dispatches ---- */

static void begin_pass(native_hal *hal) {
    dbt_wgpu_timestamp_writes writes;
    const dbt_wgpu_encoder encoder = dbt_native_encoder(hal);
    hal->pass = hal->w.CommandEncoderBeginComputePass(
        encoder, &(dbt_wgpu_pass_desc){.timestampWrites = dbt_native_times_next(hal, &writes)});
    hal->set_pipeline = NULL;
    hal->set_group = NULL;
}

dibit_status dbt_native_dispatch(dbt_hal *base, const dbt_hal_dispatch *d, dibit_error *error) {
    native_hal *const hal = native_of(base);
    const dbt_wgpu_functions *const w = &hal->w;
    DBT_TRY(dbt_native_check(hal, error));
    DBT_TRY(dbt_hal_check_dispatch(base, d, error));
    if (!hal->pass || hal->timing == DBT_HAL_TIME_DISPATCHES) {
        if (hal->n_timed == NATIVE_TIMED) DBT_TRY(dbt_native_times_read(hal, error));
        begin_pass(hal);
    }
    if (hal->set_pipeline != d->pipeline) {
        w->ComputePassEncoderSetPipeline(hal->pass, ((const native_pipeline *)d->pipeline)->handle);
        hal->set_pipeline = d->pipeline;
    }
    if (hal->set_group != d->group || hal->set_offset != d->uniforms_offset) {
        w->ComputePassEncoderSetBindGroup(hal->pass, 0, ((const native_group *)d->group)->handle,
                                          d->pipeline->uniform_bytes ? 1 : 0, &d->uniforms_offset);
        hal->set_group = d->group;
        hal->set_offset = d->uniforms_offset;
    }
    w->ComputePassEncoderDispatchWorkgroups(hal->pass, d->workgroups[0], d->workgroups[1],
                                            d->workgroups[2]);
    base->counters.dispatches++;
    return dbt_native_check(hal, error);
}

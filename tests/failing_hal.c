/* See failing_hal.h. */
#include "failing_hal.h"

#include "gpu/hal_native.h"

failing_hal failing;
static const dbt_hal_calls *real;
static uint64_t last_ticket;

typedef enum kind { COMMAND, BUFFER, POLL } kind;

static dibit_status fail(dbt_hal *hal, kind what, dibit_error *error) {
    failing_hal *const f = &failing;
    if (f->buffers && what != BUFFER) return DIBIT_OK;
    const bool now = ++f->n_calls == f->at;
    f->failed = f->failed || now;
    if (now && f->how == FAILING_DESTROYS && what != POLL)
        native_of(hal)->w.DeviceDestroy(native_of(hal)->device);
    else if (now && f->how != FAILING_ANSWERS)
        dbt_hal_native_lose(hal);
    const bool lost = f->failed && f->status == DIBIT_DEVICE_LOST;
    if (f->how != FAILING_ANSWERS || !(now || lost)) return DIBIT_OK;
    return dbt_fail(error, f->status, "call %llu was told to fail", (unsigned long long)f->at);
}

#define CALL(name, kind, parameters, ...)                                                          \
    static dibit_status name parameters {                                                          \
        const dibit_status status = fail(hal, kind, error);                                        \
        return status ? status : real->name(__VA_ARGS__);                                          \
    }
CALL(pipeline_create, COMMAND,
     (dbt_hal * hal, const dbt_hal_pipeline_desc *desc, dbt_hal_pipeline **out, dibit_error *error),
     hal, desc, out, error)
CALL(group_create, COMMAND,
     (dbt_hal * hal, dbt_hal_pipeline *pipeline, const dbt_hal_binding *bindings, uint32_t n,
      dbt_hal_buffer *uniforms, dbt_hal_group **out, dibit_error *error),
     hal, pipeline, bindings, n, uniforms, out, error)
CALL(write, COMMAND,
     (dbt_hal * hal, dbt_hal_buffer *buffer, uint64_t offset, const void *data, uint64_t bytes,
      dibit_error *error),
     hal, buffer, offset, data, bytes, error)
CALL(write_ahead, COMMAND,
     (dbt_hal * hal, dbt_hal_buffer *buffer, uint64_t offset, const void *data, uint64_t bytes,
      dibit_error *error),
     hal, buffer, offset, data, bytes, error)
CALL(copy, COMMAND,
     (dbt_hal * hal, dbt_hal_buffer *from, uint64_t from_offset, dbt_hal_buffer *to,
      uint64_t to_offset, uint64_t bytes, dibit_error *error),
     hal, from, from_offset, to, to_offset, bytes, error)
CALL(dispatch, COMMAND, (dbt_hal * hal, const dbt_hal_dispatch *dispatch, dibit_error *error), hal,
     dispatch, error)
CALL(time, COMMAND, (dbt_hal * hal, dbt_hal_timing timing, dibit_error *error), hal, timing, error)
CALL(submit, COMMAND, (dbt_hal * hal, dibit_error *error), hal, error)
CALL(read, COMMAND,
     (dbt_hal * hal, dbt_hal_buffer *buffer, uint64_t offset, void *dst, uint64_t bytes,
      uint64_t *ticket, dibit_error *error),
     hal, buffer, offset, dst, bytes, ticket, error)

/* How often a read is polled for is chance: it counts once. */
static dibit_status poll(dbt_hal *hal, uint64_t ticket, dibit_error *error) {
    const bool again = ticket && ticket == last_ticket && !failing.failed;
    last_ticket = ticket;
    const dibit_status status = again ? DIBIT_OK : fail(hal, POLL, error);
    return status ? status : real->poll(hal, ticket, error);
}

static dibit_status buffer_create(dbt_hal *hal, uint64_t bytes, dbt_hal_buffer **out,
                                  dibit_error *error) {
    const dibit_status status = fail(hal, BUFFER, error);
    return status ? status : real->buffer_create(hal, bytes, out, error);
}

void failing_hal_wrap(dbt_hal *hal) {
    static dbt_hal_calls calls;
    real = hal->calls;
    last_ticket = 0;
    calls = *real;
    calls.buffer_create = buffer_create;
    calls.pipeline_create = pipeline_create;
    calls.group_create = group_create;
    calls.write = write;
    calls.write_ahead = write_ahead;
    calls.copy = copy;
    calls.dispatch = dispatch;
    calls.time = time;
    calls.submit = submit;
    calls.read = read;
    calls.poll = poll;
    hal->calls = &calls;
}

/* Runs steps on the session's device: records dispatches, moves values there and back. Only a download
 * waits, and it answers PENDING instead of blocking. */
#include "exec/exec.h"

dibit_status dbt_gpu_reserve(dbt_exec *exec, dbt_plan_tensor *t, dibit_error *error) {
    dbt_hal *const hal = exec->plan->options.hal;
    dbt_slot *const slot = &exec->plan->slots[t->slot];
    if (slot->buffer_bytes < t->bytes || !slot->buffer) {
        const uint64_t wanted = t->bytes > 64 ? t->bytes : 64;
        dbt_hal_buffer *grown = NULL;
        DBT_TRY(hal->calls->buffer_create(hal, wanted, &grown, error));
        hal->calls->buffer_destroy(hal, slot->buffer);
        slot->buffer = grown;
        slot->buffer_bytes = wanted;
    }
    t->buffer = slot->buffer;
    return DIBIT_OK;
}

void dbt_gpu_free(dbt_exec *exec) {
    const dbt_plan *const plan = exec->plan;
    dbt_hal *const hal = plan->options.hal;
    if (!hal) return;
    if (exec->ticket) hal->calls->cancel(hal, exec->ticket);
    for (int32_t i = 0; i < plan->n_slots; i++) {
        hal->calls->buffer_destroy(hal, plan->slots[i].buffer);
    }
    for (int32_t i = 0; i < plan->n_tensors; i++) {
        const dbt_plan_tensor *const t = &plan->tensors[i];
        if (t->place == DBT_PLACE_CONSTANT) hal->calls->buffer_destroy(hal, t->buffer);
    }
}

dibit_status dbt_gpu_exec_step(dbt_exec *exec, dbt_step *step, dibit_error *error) {
    const dbt_plan *const plan = exec->plan;
    dbt_hal *const hal = plan->options.hal;
    if (step->kind == DBT_STEP_OP) return DIBIT_OK;
    const dbt_plan_tensor *const from = &plan->tensors[step->inputs[0]];
    const dbt_plan_tensor *const to = &plan->tensors[step->outputs[0]];
    if (to->bytes == 0) return DIBIT_OK;
    if (step->kind == DBT_STEP_UPLOAD) {
        return hal->calls->write(hal, to->buffer, 0, from->t.data, to->bytes, error);
    }
    if (!exec->ticket) {
        DBT_TRY(
            hal->calls->read(hal, from->buffer, 0, to->t.data, to->bytes, &exec->ticket, error));
    }
    const dibit_status status = hal->calls->poll(hal, exec->ticket, error);
    if (status != DIBIT_PENDING) exec->ticket = 0;
    return status;
}

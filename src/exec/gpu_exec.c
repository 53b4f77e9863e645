/* Runs steps on the session's device: has ops record their dispatches, moves values there and back. Only a
 * download waits, and it answers PENDING instead of blocking. */
#include "exec/exec.h"

/* ---- Memory ---- */

dibit_status dbt_gpu_reserve(dbt_exec *exec, dbt_plan_tensor *t, uint64_t wanted,
                             dibit_error *error) {
    dbt_gpu *const gpu = exec->plan->options.gpu;
    dbt_slot *const slot = &exec->plan->slots[t->slot];
    if (slot->buffer_bytes < t->bytes || !slot->buffer) {
        const uint64_t limit = dbt_gpu_hal(gpu)->limits.max_binding_bytes;
        if (wanted > limit) wanted = t->bytes;
        if (wanted < 64) wanted = 64;
        dbt_hal_buffer *grown = NULL;
        DBT_TRY(dbt_gpu_buffer_create(gpu, wanted, &grown, error));
        dbt_gpu_buffer_destroy(gpu, slot->buffer);
        slot->buffer = grown;
        slot->buffer_bytes = wanted;
    }
    t->buffer = slot->buffer;
    return DIBIT_OK;
}

void dbt_gpu_free(dbt_exec *exec) {
    const dbt_plan *const plan = exec->plan;
    dbt_gpu *const gpu = plan->options.gpu;
    if (!gpu) return;
    dbt_gpu_cancel(exec);
    dbt_gpu_time_forget(gpu); /* whose owners are the plan's steps */
    for (int32_t i = 0; i < plan->n_slots; i++) {
        dbt_gpu_buffer_destroy(gpu, plan->slots[i].buffer);
    }
}

void dbt_gpu_cancel(dbt_exec *exec) {
    dbt_hal *const hal = exec->plan->options.gpu ? dbt_gpu_hal(exec->plan->options.gpu) : NULL;
    if (exec->ticket) hal->calls->cancel(hal, exec->ticket);
    exec->ticket = 0;
}

/* ---- States ---- */

/* Copies past [B, H, P, D] to the front of present [B, H, C, D], both on the device. */
static dibit_status copy_past(dbt_exec *exec, const dbt_step *step, dbt_state_pair pair,
                              dibit_error *error) {
    const dibit_tensor *const past = step->in[pair.past], *const present = step->out[pair.present];
    dbt_gpu *const gpu = exec->plan->options.gpu;
    dbt_hal_buffer *const from = step->in_buffers[pair.past], *const to =
                                                                  step->out_buffers[pair.present];
    const uint64_t row = (uint64_t)present->dims[3] * (dibit_type_bits(present->type) / 8);
    const uint64_t p = (uint64_t)past->dims[2], c = (uint64_t)present->dims[2];
    const uint64_t bytes = (p < c ? p : c) * row;
    if (bytes == 0) return DIBIT_OK;
    for (uint64_t i = 0; i < (uint64_t)(present->dims[0] * present->dims[1]); i++) {
        DBT_TRY(dbt_gpu_copy(gpu, from, i * p * row, to, i * c * row, bytes, error));
    }
    return DIBIT_OK;
}

/* Rows inside the present output, whose past the caller passed. */
static dibit_status rows_in_present(dbt_exec *exec, const dbt_step *step, dbt_state_pair pair,
                                    dbt_gpu_state_row *rows, dibit_error *error) {
    const dibit_tensor *const present = step->out[pair.present];
    const dibit_tensor *const past = pair.past < step->n_inputs ? step->in[pair.past] : NULL;
    int64_t length = 0;
    if (past) {
        DBT_TRY(dbt_exec_check_past(past, present, pair, error));
        DBT_TRY(copy_past(exec, step, pair, error));
        length = past->dims[2] < present->dims[2] ? past->dims[2] : present->dims[2];
    }
    for (int64_t b = 0; b < present->dims[0]; b++) {
        const uint64_t stride = (uint64_t)(present->dims[1] * present->dims[2] * present->dims[3]);
        rows[b] = (dbt_gpu_state_row){step->out_buffers[pair.present], (uint64_t)b * stride, length,
                                      present->dims[2]};
    }
    return DIBIT_OK;
}

/* Fills pairs for the step's states: from the session's, or in the present outputs. */
static dibit_status find_rows(dbt_exec *exec, const dbt_step *step, dbt_gpu_state_row **pairs,
                              dibit_error *error) {
    const dbt_op *const op = step->node->op;
    const bool in_states = exec->state_rows && step->states >= 0;
    int64_t batch = 0;
    DBT_TRY(dbt_exec_state_batch(exec, step, &batch, error));
    uint64_t bytes;
    if (!dbt_mul_u64(op->n_states * sizeof(dbt_gpu_state_row), (uint64_t)batch, &bytes) ||
        !dbt_block_reserve(&exec->present_rows, &exec->allocator, bytes)) {
        return dbt_fail_memory(error, "states", (uint64_t)batch);
    }
    for (uint32_t k = 0; k < op->n_states; k++) {
        dbt_gpu_state_row *const rows =
            (dbt_gpu_state_row *)exec->present_rows.data + (int64_t)k * batch;
        const uint32_t present = op->states[k].present;
        if (in_states) {
            const dbt_state_row *const from =
                exec->state_rows + (step->states + (int32_t)k) * exec->batch;
            for (int64_t b = 0; b < batch; b++) {
                rows[b] = (dbt_gpu_state_row){from[b].data, 0, from[b].length, from[b].capacity};
            }
        } else {
            if (present >= step->n_outputs || !step->out[present]) continue;
            if (step->out[present]->rank != 4 || step->out[present]->dims[0] != batch) continue;
            DBT_TRY(rows_in_present(exec, step, op->states[k], rows, error));
        }
        pairs[k] = rows;
    }
    return DIBIT_OK;
}

/* The session's states take over the lengths that the op set. */
static void return_lengths(const dbt_exec *exec, const dbt_step *step,
                           dbt_gpu_state_row *const *pairs) {
    if (!exec->state_rows || step->states < 0) return;
    for (uint32_t k = 0; k < step->node->op->n_states; k++) {
        dbt_state_row *const rows = exec->state_rows + (step->states + (int32_t)k) * exec->batch;
        for (int64_t b = 0; b < exec->batch; b++) rows[b].length = pairs[k][b].length;
    }
}

/* ---- Steps ---- */

static dibit_status encode(dbt_exec *exec, dbt_step *step, dibit_error *error) {
    const dbt_plan *const plan = exec->plan;
    const dbt_op *const op = step->node->op;
    for (uint32_t i = 0; i < step->n_inputs; i++) {
        const dbt_plan_tensor *const t =
            step->inputs[i] < 0 ? NULL : &plan->tensors[step->inputs[i]];
        step->in_buffers[i] = t && t->t.bytes ? t->buffer : NULL;
    }
    for (uint32_t o = 0; o < step->n_outputs; o++) {
        const dbt_plan_tensor *const t =
            step->outputs[o] < 0 ? NULL : &plan->tensors[step->outputs[o]];
        step->out_buffers[o] = t && t->t.bytes ? t->buffer : NULL;
    }
    enum { MAX_PAIRS = 8 };
    dbt_gpu_state_row *pairs[MAX_PAIRS] = {0};
    const bool rows = dbt_node_has_rows(step->node);
    DBT_FAIL_IF(op->n_states > MAX_PAIRS, error, DIBIT_UNSUPPORTED, "it has too many states");
    if (rows) DBT_TRY(find_rows(exec, step, pairs, error));
    const dbt_gpu_call call = {.node = step->node,
                               .attrs = step->node->attrs,
                               .n_inputs = step->n_inputs,
                               .n_outputs = step->n_outputs,
                               .in = step->in,
                               .out = step->out,
                               .in_buffers = step->in_buffers,
                               .out_buffers = step->out_buffers,
                               .in_constant = step->in_constant,
                               .prepared = step->prepared,
                               .states = rows ? pairs : NULL,
                               .activations = plan->options.cpu.activations,
                               .gpu = plan->options.gpu,
                               .error = error};
    DBT_TRY(op->gpu_encode(&call));
    if (rows) return_lengths(exec, step, pairs);
    return DIBIT_OK;
}

/* The past lies in a state on the device already, and the present stays there. */
static bool stays_in_state(const dbt_exec *exec, const dbt_plan_tensor *cpu) {
    return exec->state_rows && cpu->in_device_state;
}

static dibit_status upload(dbt_exec *exec, const dbt_plan_tensor *from, const dbt_plan_tensor *to,
                           dibit_error *error) {
    const void *data = from->t.data;
    if (!to->native && to->t.type == DIBIT_TYPE_INT32) {
        DBT_TRY(dbt_exec_scratch(exec, to->bytes, error));
        DBT_FAIL_IF(!dbt_integers_to_words(from->t.type, data, exec->scratch.data,
                                           dbt_tensor_count(&to->t)),
                    error, DIBIT_OUT_OF_RANGE,
                    "an element of '%s' does not fit the device's 32 bits", from->value->name);
        data = exec->scratch.data;
    }
    return dbt_gpu_write(exec->plan->options.gpu, to->buffer, 0, data, to->bytes, error);
}

static dibit_status download(dbt_exec *exec, const dbt_plan_tensor *from, const dbt_plan_tensor *to,
                             dibit_error *error) {
    dbt_gpu *const gpu = exec->plan->options.gpu;
    const bool words = !from->native && from->t.type == DIBIT_TYPE_INT32;
    if (!exec->ticket) {
        if (words) DBT_TRY(dbt_exec_scratch(exec, from->bytes, error));
        DBT_TRY(dbt_gpu_read(gpu, from->buffer, 0, words ? exec->scratch.data : to->t.data,
                             from->bytes, &exec->ticket, error));
    }
    const dibit_status status = dbt_gpu_poll(gpu, exec->ticket, error);
    if (status == DIBIT_PENDING) return status;
    exec->ticket = 0;
    DBT_TRY(status);
    if (words) {
        dbt_words_to_integers(to->t.type, exec->scratch.data, to->t.data, dbt_tensor_count(&to->t));
    }
    return DIBIT_OK;
}

dibit_status dbt_gpu_exec_step(dbt_exec *exec, dbt_step *step, dibit_error *error) {
    if (step->kind == DBT_STEP_OP) return encode(exec, step, error);
    const dbt_plan_tensor *const from = &exec->plan->tensors[step->inputs[0]];
    const dbt_plan_tensor *const to = &exec->plan->tensors[step->outputs[0]];
    const bool up = step->kind == DBT_STEP_UPLOAD;
    if (to->bytes == 0 || stays_in_state(exec, up ? from : to)) return DIBIT_OK;
    if (exec->feeds && step->inputs[0] == exec->plan->fed) {
        return dbt_gpu_copy(exec->plan->options.gpu, exec->plan->tensors[exec->plan->token].buffer,
                            0, to->buffer, 0, to->bytes, error);
    }
    return up ? upload(exec, from, to, error) : download(exec, from, to, error);
}

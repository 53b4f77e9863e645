/* The executor: binding, sizing, and stepping through a plan. */
#include "exec/exec.h"

#include <string.h>

#include "base/os.h"

dibit_status dbt_exec_init(dbt_exec *exec, dbt_plan *plan, const dibit_allocator *allocator,
                           dibit_error *error) {
    *exec = (dbt_exec){.plan = plan, .allocator = *allocator};
    exec->n_dims = dbt_dims_count(plan->graph->dims);
    exec->dims = dbt_arena_array(plan->arena, (uint64_t)exec->n_dims, 3 * sizeof *exec->dims);
    if (!exec->dims) return dbt_fail_memory(error, "dims", (uint64_t)exec->n_dims * 24);
    exec->last_dims = exec->dims + exec->n_dims;
    exec->bounds = exec->last_dims + exec->n_dims;
    dbt_dims_reset(plan->graph->dims, exec->bounds);
    dbt_arena_init(&exec->infer_arena, allocator);
    /* A model that asks for more than the machine has must not bring it down. */
    exec->workspace_limit = dbt_os_memory() / 8 * 7;
    return DIBIT_OK;
}

void dbt_exec_free(dbt_exec *exec) {
    if (!exec->plan) return;
    dbt_gpu_free(exec);
    dbt_plan_release(exec->plan);
    for (int32_t i = 0; i < exec->plan->n_slots; i++) {
        dbt_block_free(&exec->plan->slots[i].block, &exec->allocator);
    }
    for (int32_t i = 0; i < exec->plan->n_tensors; i++) {
        dbt_block_free(&exec->plan->tensors[i].bounds, &exec->allocator);
    }
    for (int32_t i = 0; i < exec->plan->n_states; i++) {
        dbt_block_free(&exec->plan->states[i].gathered, &exec->allocator);
    }
    dbt_block_free(&exec->scratch, &exec->allocator);
    dbt_block_free(&exec->noise_block, &exec->allocator);
    dbt_block_free(&exec->state_rows_block, &exec->allocator);
    dbt_block_free(&exec->present_rows, &exec->allocator);
    dbt_arena_free(&exec->infer_arena);
}

/* ---- Binding ---- */

void dbt_exec_reset(dbt_exec *exec) {
    dbt_dims_reset(exec->plan->graph->dims, exec->dims);
    dbt_gpu_cancel(exec);
    exec->next_step = 0;
    exec->state_rows = NULL;
    exec->batch = 0;
    exec->wanted = UINT64_MAX;
    exec->feeds = false;
}

dibit_status dbt_exec_bind_dims(dbt_exec *exec, int32_t tensor, const int64_t *given,
                                dibit_error *error) {
    dbt_plan_tensor *const t = &exec->plan->tensors[tensor];
    const dbt_dims *const dims = exec->plan->graph->dims;
    for (int32_t i = 0; i < t->t.rank; i++) {
        const dbt_dim d = t->value->shape.dims[i];
        if (exec->dims[d] == DBT_DIM_UNRESOLVED) exec->dims[d] = given[i];
        if (exec->dims[d] == given[i]) continue;
        const char *const symbol = dbt_dim_symbol_name(dims, d);
        return dbt_fail(error, DIBIT_BAD_INPUT, "input '%s': dim %d%s%s%s must be %lld, got %lld",
                        t->value->name, (int)i, symbol ? " (" : "", symbol ? symbol : "",
                        symbol ? ")" : "", (long long)exec->dims[d], (long long)given[i]);
    }
    return DIBIT_OK;
}

dibit_status dbt_exec_bind(dbt_exec *exec, int32_t tensor, const dibit_tensor *given,
                           dibit_error *error) {
    dbt_plan_tensor *const t = &exec->plan->tensors[tensor];
    const char *const name = t->value->name;
    DBT_FAIL_IF(given->type != t->t.type, error, DIBIT_BAD_INPUT,
                "input '%s' must have type %s, got %s", name, dibit_type_name(t->t.type),
                dibit_type_name(given->type));
    DBT_FAIL_IF(given->rank != t->t.rank, error, DIBIT_BAD_INPUT,
                "input '%s' must have rank %d, got %d", name, (int)t->t.rank, (int)given->rank);
    int64_t count;
    uint64_t bytes;
    DBT_FAIL_IF(!dbt_count(given->rank, given->dims, &count) ||
                    !dbt_packed_bytes(given->type, (uint64_t)count, &bytes),
                error, DIBIT_BAD_INPUT, "input '%s' has a negative or too large dim", name);
    DBT_FAIL_IF(given->bytes && given->bytes < bytes, error, DIBIT_BAD_INPUT,
                "input '%s' needs %llu bytes, got %llu", name, (unsigned long long)bytes,
                (unsigned long long)given->bytes);
    DBT_FAIL_IF(count > 0 && !given->data, error, DIBIT_BAD_INPUT, "input '%s' has no data", name);
    DBT_TRY(dbt_exec_bind_dims(exec, tensor, given->dims, error));
    t->t.data = given->data;
    return DIBIT_OK;
}

/* ---- Dims and sizes ---- */

int64_t dbt_exec_dim(dbt_exec *exec, dbt_dim d) {
    if (d == DBT_DIM_NONE) return DBT_DIM_UNRESOLVED;
    dbt_dims_evaluate(exec->plan->graph->dims, exec->dims);
    return exec->dims[d];
}

static void fill_host(const dbt_exec *exec, dbt_plan_tensor *t) {
    int64_t n = 1;
    for (int32_t i = 0; i < t->t.rank; i++) n *= t->t.dims[i];
    for (int64_t i = 0; i < n; i++) {
        const int64_t v = exec->dims[t->value->contents[i]];
        if (v == DBT_DIM_UNRESOLVED &&
            !dbt_dim_is_const(exec->plan->graph->dims, t->value->contents[i], NULL)) {
            t->bytes = UINT64_MAX;
        }
        dbt_write_integer(t->t.type, t->t.data, i, v);
    }
}

/* Writes the dims of a tensor and its size; UINT64_MAX bytes while a dim is unresolved or negative. */
static void refresh_tensor(const dbt_exec *exec, dbt_plan_tensor *t) {
    uint64_t count = 1;
    bool known = t->value->shape.rank >= 0;
    for (int32_t i = 0; i < t->t.rank; i++) {
        const int64_t d = exec->dims[t->value->shape.dims[i]];
        t->t.dims[i] = d;
        if (d < 0 || !dbt_mul_u64(count, (uint64_t)d, &count)) known = false;
    }
    if (!known || !dbt_packed_bytes(t->t.type, count, &t->bytes)) t->bytes = UINT64_MAX;
    t->t.bytes = t->bytes;
    if (known && t->place == DBT_PLACE_HOST) fill_host(exec, t);
}

static void refresh(dbt_exec *exec) {
    dbt_dims_evaluate(exec->plan->graph->dims, exec->dims);
    const size_t bytes = (size_t)exec->n_dims * sizeof *exec->dims;
    if (exec->refreshed && memcmp(exec->dims, exec->last_dims, bytes) == 0) return;
    memcpy(exec->last_dims, exec->dims, bytes);
    exec->refreshed = true;
    exec->bounds_valid = false;
    for (int32_t i = 0; i < exec->plan->n_tensors; i++) {
        if (exec->plan->tensors[i].place != DBT_PLACE_CONSTANT) {
            refresh_tensor(exec, &exec->plan->tensors[i]);
        }
    }
}

dibit_status dbt_exec_start(dbt_exec *exec, uint32_t last_rows, dibit_error *error) {
    const dbt_plan *const plan = exec->plan;
    if (plan->last_rows != DBT_DIM_NONE) {
        const int64_t all = dbt_exec_dim(exec, plan->all_rows);
        exec->dims[plan->last_rows] = last_rows && last_rows < all ? (int64_t)last_rows : all;
    }
    DBT_FAIL_IF(plan->last_rows == DBT_DIM_NONE && last_rows, error, DIBIT_UNSUPPORTED,
                "no output of this model has rows to select from");
    refresh(exec);
    return DIBIT_OK;
}

/* ---- Memory ---- */

static dibit_status count_workspace(dbt_exec *exec, uint64_t old, uint64_t wanted, const char *what,
                                    dibit_error *error) {
    uint64_t total;
    DBT_FAIL_IF(
        !dbt_add_u64(exec->workspace_bytes - old, wanted, &total) || total > exec->workspace_limit,
        error, DIBIT_TOO_LARGE, "%llu bytes for '%s' are more than this machine's memory allows",
        (unsigned long long)wanted, what);
    exec->workspace_bytes = total;
    return DIBIT_OK;
}

/* Symbols rounded up, never smaller than before: what a slot that has to grow grows to. */
static void update_bounds(dbt_exec *exec) {
    const dbt_dims *const dims = exec->plan->graph->dims;
    for (int32_t d = 0; d < exec->n_dims; d++) {
        if (!dbt_dim_symbol_name(dims, d)) continue;
        int64_t v = exec->dims[d];
        if (v > 8 && v < INT64_C(1) << 40) {
            int64_t up = 16;
            while (up < v) up *= 2;
            v = up;
        }
        if (v > exec->bounds[d]) exec->bounds[d] = v; /* unresolved is the smallest */
    }
    dbt_dims_evaluate(dims, exec->bounds);
    exec->bounds_valid = true;
}

static uint64_t bound_bytes(dbt_exec *exec, const dbt_plan_tensor *t) {
    if (!exec->bounds_valid) update_bounds(exec);
    uint64_t count = 1, bytes;
    for (int32_t i = 0; i < t->t.rank; i++) {
        const int64_t d = exec->bounds[t->value->shape.dims[i]];
        if (d < 0 || !dbt_mul_u64(count, (uint64_t)d, &count)) return 0;
    }
    return dbt_packed_bytes(t->t.type, count, &bytes) ? bytes : 0;
}

static dibit_status reserve_tensor(dbt_exec *exec, dbt_plan_tensor *t, dibit_error *error) {
    if (t->place == DBT_PLACE_VIEW) {
        t->t.data = exec->plan->tensors[t->root].t.data;
        t->buffer = exec->plan->tensors[t->root].buffer;
        return DIBIT_OK;
    }
    DBT_FAIL_IF(t->bytes == UINT64_MAX, error, DIBIT_BAD_INPUT,
                "output '%s' would have a negative or too large dim", t->value->name);
    if (t->on_device) {
        const dbt_slot *const slot = &exec->plan->slots[t->slot];
        const bool fits = slot->buffer && slot->buffer_bytes >= t->bytes;
        const uint64_t bound = fits ? t->bytes : bound_bytes(exec, t);
        return dbt_gpu_reserve(exec, t, bound > t->bytes ? bound : t->bytes, error);
    }
    dbt_slot *const slot = &exec->plan->slots[t->slot];
    if (slot->block.bytes < t->bytes || !slot->block.data) {
        uint64_t wanted = t->bytes > 64 ? t->bytes : 64;
        const uint64_t bound = bound_bytes(exec, t);
        if (bound > wanted && bound <= exec->workspace_limit / 8) wanted = bound;
        DBT_TRY(count_workspace(exec, slot->block.bytes, wanted, t->value->name, error));
        if (!dbt_block_reserve(&slot->block, &exec->allocator, wanted)) {
            exec->workspace_bytes = exec->workspace_bytes - wanted + slot->block.bytes;
            return dbt_fail_memory(error, t->value->name, wanted);
        }
    }
    t->t.data = slot->block.data;
    return DIBIT_OK;
}

/* In states a present tensor has no memory of its own. */
static bool lives_in_state(const dbt_exec *exec, const dbt_step *step, uint32_t output) {
    if (!exec->state_rows || step->states < 0) return false;
    const dbt_op *const op = step->node->op;
    for (uint32_t k = 0; k < op->n_states; k++) {
        if (op->states[k].present == output) return true;
    }
    return false;
}

dibit_status dbt_exec_reserve(dbt_exec *exec, dbt_step *step, dibit_error *error) {
    for (uint32_t o = 0; o < step->n_outputs; o++) {
        if (step->outputs[o] < 0 || lives_in_state(exec, step, o)) continue;
        DBT_TRY(reserve_tensor(exec, &exec->plan->tensors[step->outputs[o]], error));
    }
    return DIBIT_OK;
}

dibit_status dbt_exec_scratch(dbt_exec *exec, uint64_t bytes, dibit_error *error) {
    if (exec->scratch.bytes >= bytes) return DIBIT_OK;
    uint64_t wanted = 4096;
    while (wanted < bytes && wanted < UINT64_C(1) << 62) wanted *= 2;
    DBT_TRY(count_workspace(exec, exec->scratch.bytes, wanted, "scratch memory", error));
    if (!dbt_block_reserve(&exec->scratch, &exec->allocator, wanted)) {
        exec->workspace_bytes = exec->workspace_bytes - wanted + exec->scratch.bytes;
        return dbt_fail_memory(error, "scratch memory", wanted);
    }
    return DIBIT_OK;
}

/* ---- Nodes whose dims depend on data ---- */

static dibit_status concrete_value(dbt_dims *dims, dbt_arena *arena, const dbt_value *value,
                                   const dibit_tensor *t, dbt_value *out, dibit_error *error) {
    *out = *value;
    out->contents = NULL;
    out->shape.rank = t->rank;
    for (int32_t i = 0; i < t->rank; i++) {
        out->shape.dims[i] = dbt_dim_const(dims, t->dims[i]);
        if (out->shape.dims[i] == DBT_DIM_NONE) return dbt_fail_memory(error, "dims", 1);
    }
    if (t->bytes == UINT64_MAX) return DIBIT_OK; /* of a branch that was not taken */
    const int64_t count = dbt_tensor_count(t);
    if (!t->data && count > 0) return DIBIT_OK;
    /* Contents are read in the declared type; storage differs from it only for 2 and 4 bits. */
    return t->type == value->type ? dbt_set_contents(dims, arena, out, t->data, count, error)
                                  : DIBIT_OK;
}

static dibit_status take_dims(dbt_exec *exec, const dbt_dims *concrete, const dbt_value *inferred,
                              dbt_plan_tensor *t, dibit_error *error) {
    DBT_TRY(dbt_check_inferred(concrete, inferred, error));
    DBT_FAIL_IF(inferred->shape.rank != t->value->shape.rank, error, DIBIT_UNSUPPORTED,
                "the rank of output '%s' depends on data", t->value->name);
    for (int32_t i = 0; i < t->t.rank; i++) {
        int64_t v;
        const dbt_dim d = t->value->shape.dims[i];
        DBT_FAIL_IF(!dbt_dim_is_const(concrete, inferred->shape.dims[i], &v), error,
                    DIBIT_UNSUPPORTED, "dim %d of output '%s' cannot be known before the node runs",
                    (int)i, t->value->name);
        if (dbt_dim_is_fresh(exec->plan->graph->dims, d)) exec->dims[d] = v;
    }
    return DIBIT_OK;
}

/* Infers again, with the dims and data that the inputs have now. */
static dibit_status resolve(dbt_exec *exec, dbt_step *step, dibit_error *error) {
    dbt_arena *const arena = &exec->infer_arena;
    dbt_arena_reset(arena);
    dbt_dims *const dims = dbt_dims_create(arena);
    const uint32_t n = step->n_inputs + step->n_outputs;
    dbt_value *const values = dbt_arena_array(arena, n, sizeof *values);
    dbt_value **const refs = dbt_arena_array(arena, n, sizeof *refs);
    if (!dims || !values || !refs) return dbt_fail_memory(error, "inference", n * sizeof *values);
    const dbt_node *const node = step->node;
    for (uint32_t i = 0; i < step->n_inputs; i++) {
        if (!step->in[i]) continue;
        refs[i] = &values[i];
        DBT_TRY(concrete_value(dims, arena, node->inputs[i], step->in[i], refs[i], error));
    }
    dbt_value **const outs = refs + step->n_inputs;
    for (uint32_t o = 0; o < step->n_outputs; o++) {
        if (!step->out[o]) continue;
        outs[o] = &values[step->n_inputs + o];
        outs[o]->name = node->outputs[o]->name;
        outs[o]->shape.rank = -1;
    }
    dbt_infer infer = {.node = node,
                       .attrs = node->attrs,
                       .n_inputs = step->n_inputs,
                       .n_outputs = step->n_outputs,
                       .in = refs,
                       .out = outs,
                       .dims = dims,
                       .tensors = step->in,
                       .arena = arena,
                       .error = error};
    DBT_TRY(node->op->infer(&infer));
    for (uint32_t o = 0; o < step->n_outputs; o++) {
        if (step->out[o]) {
            DBT_TRY(take_dims(exec, dims, outs[o], &exec->plan->tensors[step->outputs[o]], error));
        }
    }
    refresh(exec);
    return DIBIT_OK;
}

/* ---- Stepping ---- */

/* Host values are computed from dims; one that overflows or divides by zero is none. What a branch
 * that was not taken would have needed does not matter. */
static dibit_status check_host(const dbt_exec *exec, int32_t tensor, bool guarded,
                               dibit_error *error) {
    const dbt_plan_tensor *const t = tensor < 0 ? NULL : &exec->plan->tensors[tensor];
    if (!t || t->place != DBT_PLACE_HOST || t->bytes != UINT64_MAX) return DIBIT_OK;
    if (!guarded && t->value->producer && t->value->producer->guard) return DIBIT_OK;
    return dbt_fail(error, DIBIT_OUT_OF_RANGE,
                    "'%s' cannot be computed (overflow, or a division by zero)", t->value->name);
}

static dibit_status guard_holds(const dbt_exec *exec, const dbt_step *step, bool *holds,
                                dibit_error *error) {
    *holds = true;
    if (step->guard < 0) return DIBIT_OK;
    DBT_TRY(check_host(exec, step->guard, true, error));
    const dibit_tensor *const guard = &exec->plan->tensors[step->guard].t;
    DBT_FAIL_IF(dbt_tensor_count(guard) != 1, error, DIBIT_BAD_INPUT,
                "the condition '%s' of If must be one element", guard->name);
    *holds = (*(const uint8_t *)guard->data != 0) == step->guard_value;
    return DIBIT_OK;
}

static dibit_status run_step(dbt_exec *exec, dbt_step *step, dibit_error *error) {
    bool holds;
    DBT_TRY(guard_holds(exec, step, &holds, error));
    if (!holds) {
        for (uint32_t o = 0; o < step->n_outputs; o++) {
            if (step->outputs[o] >= 0) exec->plan->tensors[step->outputs[o]].t.data = NULL;
        }
        return DIBIT_OK;
    }
    for (uint32_t i = 0; i < step->n_inputs; i++) {
        DBT_TRY(check_host(exec, step->inputs[i], step->guard >= 0, error));
    }
    if (step->dynamic) DBT_TRY(resolve(exec, step, error));
    DBT_TRY(dbt_exec_reserve(exec, step, error));
    if (step->view) return DIBIT_OK;
    switch (step->kind) {
    case DBT_STEP_OP:
        return step->on_device ? dbt_gpu_exec_step(exec, step, error)
                               : dbt_cpu_exec_op(exec, step, error);
    case DBT_STEP_UPLOAD:
    case DBT_STEP_DOWNLOAD: return dbt_gpu_exec_step(exec, step, error);
    case DBT_STEP_UNPACK:
    case DBT_STEP_PACK: dbt_cpu_exec_convert(exec, step); return DIBIT_OK;
    }
    return DIBIT_OK;
}

/* What a step reads and writes that counts none by itself. A constant larger than all that it makes
 * is one that it picks from. */
static uint64_t tensor_bytes(const dbt_step *step) {
    uint64_t out = 0, in = 0;
    if (step->view || step->on_device) return 0;
    for (uint32_t i = 0; i < step->n_outputs; i++) {
        const dibit_tensor *const t = step->out[i];
        if (t && t->data) out += (uint64_t)dbt_tensor_count(t) * dibit_type_bits(t->type) / 8;
    }
    for (uint32_t i = 0; i < step->n_inputs; i++) {
        const dibit_tensor *const t = step->in[i];
        if (!t || !t->data) continue;
        const uint64_t bytes = (uint64_t)dbt_tensor_count(t) * dibit_type_bits(t->type) / 8;
        in += step->in_constant[i] && bytes > out ? out : bytes;
    }
    return in + out;
}

static void add_work(dbt_step *step, const dbt_work *before, const dbt_work *after) {
    const uint64_t bytes = after->bytes - before->bytes;
    step->work.bytes += bytes ? bytes : tensor_bytes(step);
    step->work.int8_products += after->int8_products - before->int8_products;
    step->work.float_products += after->float_products - before->float_products;
}

static dibit_status run_and_profile(dbt_exec *exec, dbt_step *step, dibit_error *error) {
    dbt_gpu *const gpu = exec->plan->options.gpu;
    const dbt_hal_counters *const counters = gpu ? &dbt_gpu_hal(gpu)->counters : NULL;
    const dbt_work before = dbt_pool_counted(exec->plan->options.pool);
    const uint64_t recorded = gpu ? counters->dispatches : 0, start = dbt_os_nanoseconds();
    if (gpu) dbt_gpu_time_to(gpu, &step->device_ns);
    const dibit_status status = run_step(exec, step, error);
    if (gpu) dbt_gpu_time_to(gpu, NULL);
    if (status != DIBIT_OK) return status;
    step->nanoseconds += dbt_os_nanoseconds() - start;
    const dbt_work after = dbt_pool_counted(exec->plan->options.pool);
    add_work(step, &before, &after);
    step->runs++;
    step->dispatches += gpu ? counters->dispatches - recorded : 0;
    return DIBIT_OK;
}

dibit_status dbt_exec_step(dbt_exec *exec, bool *waiting, dibit_error *error) {
    dbt_step *const step = &exec->plan->steps[exec->next_step];
    *waiting = false;
    if (!(step->serves & exec->wanted)) {
        exec->next_step++;
        return exec->next_step < exec->plan->n_steps ? DIBIT_PENDING : DIBIT_OK;
    }
    const dibit_status status =
        exec->profile ? run_and_profile(exec, step, error) : run_step(exec, step, error);
    *waiting = status == DIBIT_PENDING;
    if (*waiting) return DIBIT_PENDING;
    if (status != DIBIT_OK) {
        dbt_error_prefix(error, "node '%s' (%s)", step->name, step->op);
        return status;
    }
    exec->next_step++;
    return exec->next_step < exec->plan->n_steps ? DIBIT_PENDING : DIBIT_OK;
}

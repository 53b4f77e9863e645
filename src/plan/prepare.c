/* The second half of planning, in small portions: constants become resident in the form that their
 * steps read, then each step's kernel is chosen and its weights are packed. */
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"

/* The constant's elements from its bytes in the file, in the form that steps read. */
static void convert(const dbt_plan_tensor *t, const void *bytes) {
    const dbt_constant *const c = t->value->constant;
    if (t->native || t->t.type == c->type) {
        if (t->t.bytes) memcpy(t->t.data, bytes, (size_t)t->t.bytes);
    } else {
        dbt_unpack_elements(c->type, bytes, t->t.data, c->count);
    }
}

/* Bytes that are not resident are read to where they stay, or, to be converted, to a block that goes
 * again. Both are kept while the source answers PENDING. */
static dibit_status fetch(dbt_plan *plan, dbt_plan_tensor *t, bool as_is, dibit_error *error) {
    const dbt_constant *const c = t->value->constant;
    const dibit_allocator *const allocator = &plan->arena->allocator;
    void *to = t->t.data;
    if (!as_is) {
        if (!dbt_block_reserve(&plan->fetched, allocator, c->bytes.bytes)) {
            return dbt_fail_memory(error, c->name, c->bytes.bytes);
        }
        to = plan->fetched.data;
    }
    DBT_TRY(dbt_source_read(c->bytes.source, c->bytes.offset, c->bytes.bytes, to, error));
    if (!as_is) {
        convert(t, to);
        dbt_block_free(&plan->fetched, allocator);
    }
    return DIBIT_OK;
}

const dbt_plan_tensor *dbt_plan_twin(const dbt_plan *plan, const dbt_plan_tensor *t) {
    const dbt_bytes *const mine = &t->value->constant->bytes;
    if (!mine->source || !t->native) return NULL;
    for (int32_t i = 0; i < plan->n_loaded; i++) {
        const dbt_plan_tensor *const other = &plan->tensors[plan->loads[i].tensor];
        if (other->place != DBT_PLACE_CONSTANT || !other->native) continue;
        const dbt_bytes *const theirs = &other->value->constant->bytes;
        if (other->on_device == t->on_device && theirs->source == mine->source &&
            theirs->offset == mine->offset && theirs->bytes == mine->bytes)
            return other;
    }
    return NULL;
}

/* One that is made from another's bytes. */
static dibit_status load_matrix(dbt_plan *plan, dbt_plan_tensor *t, dibit_error *error) {
    const dbt_constant *const c = t->value->constant, *const from = c->matrix->from;
    const dibit_allocator *const allocator = &plan->arena->allocator;
    const void *bytes = from->data;
    memcpy(t->t.dims, c->dims, sizeof t->t.dims);
    t->t.bytes = c->bytes.bytes;
    if (!t->t.data) t->t.data = dbt_arena_alloc_aligned(plan->arena, t->t.bytes, 64);
    if (!t->t.data) return dbt_fail_memory(error, c->name, t->t.bytes);
    if (!bytes) {
        if (!dbt_block_reserve(&plan->fetched, allocator, from->bytes.bytes))
            return dbt_fail_memory(error, c->name, from->bytes.bytes);
        bytes = plan->fetched.data;
        DBT_TRY(dbt_source_read(from->bytes.source, from->bytes.offset, from->bytes.bytes,
                                plan->fetched.data, error));
    }
    dbt_matrix_write(c->matrix, bytes, t->t.data);
    dbt_block_free(&plan->fetched, allocator);
    plan->weight_bytes += from->bytes.bytes;
    plan->packed_bytes += t->t.bytes;
    return DIBIT_OK;
}

static dibit_status load_constant(dbt_plan *plan, dbt_plan_tensor *t, dibit_error *error) {
    const dbt_constant *const c = t->value->constant;
    const uint32_t element = dibit_type_bits(t->t.type) / 8;
    const bool as_is = t->native || t->t.type == c->type;
    const bool resident = c->data || c->count == 0;
    DBT_FAIL_IF(c->parts, error, DIBIT_UNSUPPORTED, "constant '%s' is made for a device", c->name);
    if (c->matrix) return load_matrix(plan, t, error);
    memcpy(t->t.dims, c->dims, sizeof t->t.dims);
    t->t.bytes = t->native ? c->bytes.bytes : (uint64_t)c->count * element;
    const dbt_plan_tensor *const twin = dbt_plan_twin(plan, t);
    if (twin) {
        t->t.data = twin->t.data;
        return DIBIT_OK;
    }
    if (resident && as_is && (t->native || (uintptr_t)c->data % element == 0)) {
        t->t.data = (void *)(uintptr_t)c->data;
    } else {
        if (!t->t.data) t->t.data = dbt_arena_alloc_aligned(plan->arena, t->t.bytes, 64);
        if (!t->t.data) return dbt_fail_memory(error, c->name, t->t.bytes);
        if (resident) {
            convert(t, c->data);
        } else {
            DBT_TRY(fetch(plan, t, as_is, error));
        }
        *(resident || !as_is ? &plan->packed_bytes : &plan->held_bytes) += t->t.bytes;
    }
    plan->weight_bytes += c->bytes.bytes;
    return DIBIT_OK;
}

static dibit_status load_tensor(dbt_plan *plan, const dbt_load *load, dibit_error *error) {
    dbt_plan_tensor *const t = &plan->tensors[load->tensor];
    if (t->place == DBT_PLACE_CONSTANT) {
        return t->on_device ? dbt_plan_upload(plan, t, load->part, error)
                            : load_constant(plan, t, error);
    }
    if (t->place == DBT_PLACE_HOST) {
        t->t.bytes = DBT_MAX_CONTENTS * 8;
        t->t.data = dbt_arena_alloc(plan->arena, t->t.bytes);
        if (!t->t.data) return dbt_fail_memory(error, "host values", t->t.bytes);
    }
    return DIBIT_OK;
}

static int compare_loads(const void *a, const void *b) {
    const dbt_load *const x = a, *const y = b;
    if (x->source != y->source) return x->source < y->source ? -1 : 1;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return x->part < y->part ? -1 : 1;
}

static const dbt_constant *constant_of(const dbt_plan_tensor *t) {
    return t->place == DBT_PLACE_CONSTANT ? t->value->constant : NULL;
}

/* As they lie in their files, so that a download is read once, from one end to the other. */
static dibit_status order_loads(dbt_plan *plan, dibit_error *error) {
    uint64_t n = 0;
    for (int32_t i = 0; i < plan->n_tensors; i++) {
        const dbt_constant *const c = constant_of(&plan->tensors[i]);
        n += c && c->parts ? c->n_parts : 1;
    }
    dbt_load *const loads = dbt_arena_array(plan->arena, n + 1, sizeof *loads);
    if (!loads) return dbt_fail_memory(error, "a plan", n * sizeof *loads);
    for (int32_t i = 0; i < plan->n_tensors; i++) {
        const dbt_constant *const c = constant_of(&plan->tensors[i]);
        uint32_t part = 0;
        do {
            const dbt_constant *const piece = c && c->parts ? c->parts[part].constant : c;
            dbt_load *const load = &loads[plan->n_loads++];
            *load = (dbt_load){.tensor = i, .part = part};
            if (!piece || piece->data) continue;
            load->source = (uintptr_t)piece->bytes.source;
            load->offset = piece->bytes.offset;
        } while (c && c->parts && ++part < c->n_parts);
    }
    qsort(loads, (size_t)plan->n_loads, sizeof *loads, compare_loads);
    plan->loads = loads;
    return DIBIT_OK;
}

/* ---- Steps ---- */

static dibit_status bind_step(dbt_plan *plan, dbt_step *step, dibit_error *error) {
    step->in = dbt_arena_array(plan->arena, step->n_inputs, sizeof *step->in);
    step->out = dbt_arena_array(plan->arena, step->n_outputs, sizeof *step->out);
    step->in_constant = dbt_arena_array(plan->arena, step->n_inputs, sizeof *step->in_constant);
    if (!step->in || !step->out || !step->in_constant) return dbt_fail_memory(error, "a step", 1);
    if (step->on_device) {
        step->in_buffers = dbt_arena_array(plan->arena, step->n_inputs, sizeof *step->in_buffers);
        step->out_buffers =
            dbt_arena_array(plan->arena, step->n_outputs, sizeof *step->out_buffers);
        if (!step->in_buffers || !step->out_buffers) return dbt_fail_memory(error, "a step", 1);
    }
    for (uint32_t i = 0; i < step->n_inputs; i++) {
        if (step->inputs[i] < 0) continue;
        dbt_plan_tensor *const t = &plan->tensors[step->inputs[i]];
        step->in[i] = &t->t;
        step->in_constant[i] = t->place == DBT_PLACE_CONSTANT;
        if (step->on_device && step->in_constant[i]) step->in_buffers[i] = t->buffer;
    }
    for (uint32_t o = 0; o < step->n_outputs; o++) {
        if (step->outputs[o] >= 0) step->out[o] = &plan->tensors[step->outputs[o]].t;
    }
    return DIBIT_OK;
}

static dibit_status prepare_on_cpu(dbt_plan *plan, dbt_step *step,
                                   const dibit_tensor *const *constants, dibit_error *error) {
    dbt_cpu_prepare prepare = {.node = step->node,
                               .attrs = step->node->attrs,
                               .options = &plan->options.cpu,
                               .in = constants,
                               .arena = plan->arena,
                               .pool = plan->options.pool,
                               .kernel = "",
                               .why = "",
                               .error = error};
    DBT_TRY(step->node->op->cpu_prepare(&prepare));
    step->prepared = prepare.prepared;
    step->kernel = prepare.kernel;
    if (prepare.why[0] && step->why[0]) { /* why the CPU, and why so there */
        step->why = dbt_arena_format(plan->arena, "%s; %s", step->why, prepare.why);
        if (!step->why) return dbt_fail_memory(error, "a plan", 100);
    } else if (prepare.why[0]) {
        step->why = prepare.why;
    }
    plan->packed_bytes += prepare.packed_bytes;
    plan->int8_activations = plan->int8_activations || prepare.int8_activations;
    return DIBIT_OK;
}

/* PENDING: the device has not answered yet; what has been prepared is kept. */
static dibit_status prepare_on_device(dbt_plan *plan, dbt_step *step,
                                      const dibit_tensor *const *constants, dibit_error *error) {
    dbt_gpu_prepare prepare = {.node = step->node,
                               .attrs = step->node->attrs,
                               .activations = plan->options.cpu.activations,
                               .in = constants,
                               .in_buffers = step->in_buffers,
                               .arena = plan->arena,
                               .gpu = plan->options.gpu,
                               .no_proof = plan->options.no_proof,
                               .prepared = step->prepared,
                               .kernel = "",
                               .why = "",
                               .error = error};
    const dibit_status status = step->node->op->gpu_prepare(&prepare);
    step->prepared = prepare.prepared;
    DBT_TRY(status);
    step->kernel = prepare.kernel;
    step->why = prepare.why;
    plan->int8_activations = plan->int8_activations || prepare.int8_activations;
    return DIBIT_OK;
}

static dibit_status prepare_step(dbt_plan *plan, dbt_step *step, dibit_error *error) {
    if (!step->in) DBT_TRY(bind_step(plan, step, error));
    if (step->kind != DBT_STEP_OP) return DIBIT_OK;
    const dbt_op *const op = step->node->op;
    if (step->on_device ? !op->gpu_prepare : !op->cpu_prepare) return DIBIT_OK;
    const dibit_tensor *constants[DBT_VARIADIC];
    for (uint32_t i = 0; i < step->n_inputs; i++) {
        constants[i] = step->in_constant[i] ? step->in[i] : NULL;
    }
    const dibit_status status = step->on_device ? prepare_on_device(plan, step, constants, error)
                                                : prepare_on_cpu(plan, step, constants, error);
    if (status != DIBIT_OK && status != DIBIT_PENDING) {
        dbt_error_prefix(error, "node '%s' (%s)", step->name, step->op);
    }
    return status;
}

/* Whether it can be asked for memory before its inputs are there. */
static bool can_prefetch(const dbt_step *step) {
    if (step->kind != DBT_STEP_OP || step->on_device || step->dynamic) return false;
    const dbt_op *const op = step->node->op;
    for (uint32_t i = 0; i < step->n_inputs; i++) {
        if (op->raw_inputs >> i & 1 && step->in[i] && !step->in_constant[i]) return false;
    }
    return op->cpu_prefetch;
}

static void find_prefetched(dbt_plan *plan) {
    const dbt_step *next = NULL;
    for (int32_t i = plan->n_steps - 1; i >= 0; i--) {
        plan->steps[i].prefetched = next;
        if (can_prefetch(&plan->steps[i])) next = &plan->steps[i];
    }
}

dibit_status dbt_plan_prepare(dbt_plan *plan, bool *waiting, dibit_error *error) {
    *waiting = false;
    if (!plan->loads) DBT_TRY(order_loads(plan, error));
    if (plan->n_loaded < plan->n_loads) {
        const dibit_status status = load_tensor(plan, &plan->loads[plan->n_loaded], error);
        *waiting = status == DIBIT_PENDING;
        DBT_TRY(status);
        plan->n_loaded++;
        return DIBIT_PENDING;
    }
    if (plan->n_asked < plan->n_steps) {
        dbt_step *const step = &plan->steps[plan->n_asked];
        const dibit_status status = step->is_prepared ? DIBIT_OK : prepare_step(plan, step, error);
        if (status != DIBIT_PENDING) DBT_TRY(status);
        step->is_prepared = status == DIBIT_OK;
        plan->n_waiting += !step->is_prepared;
        plan->n_asked++;
        return DIBIT_PENDING;
    }
    if (plan->n_waiting) { /* all have asked for what they need of the device: the next round */
        plan->n_asked = plan->n_waiting = 0;
        *waiting = true;
        return DIBIT_PENDING;
    }
    find_prefetched(plan);
    dbt_block_free(&plan->fetched, &plan->arena->allocator);
    return DIBIT_OK;
}

void dbt_plan_release(dbt_plan *plan) {
    dbt_block_free(&plan->fetched, &plan->arena->allocator);
    dbt_gpu *const gpu = plan->options.gpu;
    for (int32_t i = 0; gpu && i < plan->n_steps; i++) {
        const dbt_step *const step = &plan->steps[i];
        if (step->on_device && step->prepared && step->node->op->gpu_release) {
            step->node->op->gpu_release(step->prepared, gpu);
        }
    }
    for (int32_t i = 0; gpu && i < plan->n_tensors; i++) {
        const dbt_plan_tensor *const t = &plan->tensors[i];
        if (t->place == DBT_PLACE_CONSTANT && !t->borrows_buffer) {
            dbt_gpu_buffer_destroy(gpu, t->buffer);
        }
    }
}

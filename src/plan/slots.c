/* Liveness, and which tensors share memory.
 *
 * A slot holds one tensor at a time. A tensor takes the free slot whose size is nearest, judged at
 * guessed dims since the real ones are known only when the model runs; a slot that turns out too small
 * grows then. Views have no slot: they lengthen the life of the tensor whose memory they are. */
#include "plan/plan.h"

#include <string.h>

enum { GUESSED_DIM = 256 };

static void use(dbt_plan *plan, int32_t tensor, int32_t step) {
    dbt_plan_tensor *const t = &plan->tensors[plan->tensors[tensor].root];
    if (step > t->last_step) t->last_step = step;
}

static void find_lives(dbt_plan *plan) {
    for (int32_t s = 0; s < plan->n_steps; s++) {
        const dbt_step *const step = &plan->steps[s];
        for (uint32_t i = 0; i < step->n_inputs; i++) {
            if (step->inputs[i] >= 0) use(plan, step->inputs[i], s);
        }
        if (step->guard >= 0) use(plan, step->guard, s);
        for (uint32_t o = 0; o < step->n_outputs; o++) {
            if (step->outputs[o] >= 0) use(plan, step->outputs[o], s);
        }
    }
    for (int32_t i = 0; i < plan->n_tensors; i++) {
        if (plan->tensors[i].is_output || plan->options.keep_values) use(plan, i, INT32_MAX);
    }
}

static uint64_t estimate(const int64_t *guesses, const dbt_plan_tensor *t) {
    uint64_t bytes = dibit_type_bits(t->t.type) / 8 + 1;
    for (int32_t i = 0; i < t->value->shape.rank; i++) {
        const int64_t d = guesses[t->value->shape.dims[i]];
        if (d > 0 && !dbt_mul_u64(bytes, (uint64_t)d, &bytes)) return UINT64_MAX;
    }
    return bytes;
}

/* The step may write its output over its first input, which nobody needs afterwards. A device does not
 * bind a buffer twice when it is written. */
static bool in_place(const dbt_plan *plan, const dbt_step *step, int32_t s, int32_t out) {
    if (step->kind != DBT_STEP_OP || !(step->node->op->flags & DBT_OP_IN_PLACE) ||
        step->on_device || plan->options.keep_values || plan->options.noise ||
        step->inputs[0] < 0 || out != step->outputs[0] || step->dynamic || step->guard >= 0) {
        return false;
    }
    const dbt_plan_tensor *const x = &plan->tensors[step->inputs[0]], *const y =
                                                                          &plan->tensors[out];
    const dbt_plan_tensor *const root = &plan->tensors[x->root];
    if (root->place != DBT_PLACE_SLOT || root->last_step != s || root->on_device != y->on_device ||
        x->t.type != y->t.type || x->value->shape.rank != y->value->shape.rank) {
        return false;
    }
    for (int32_t i = 0; i < y->value->shape.rank; i++) {
        if (x->value->shape.dims[i] != y->value->shape.dims[i]) return false;
    }
    for (uint32_t i = 1; i < step->n_inputs; i++) {
        if (step->inputs[i] >= 0 && plan->tensors[step->inputs[i]].root == x->root) return false;
    }
    return true;
}

/* Slots that hold nothing, sorted by estimate; one list for each kind of memory. */
typedef struct free_slots {
    int32_t *slots;
    int32_t n;
} free_slots;

static int32_t position(const dbt_plan *plan, const free_slots *list, uint64_t bytes) {
    int32_t low = 0, high = list->n;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (plan->slots[list->slots[middle]].estimate < bytes) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void put_slot(const dbt_plan *plan, free_slots *list, int32_t slot) {
    const int32_t at = position(plan, list, plan->slots[slot].estimate);
    memmove(list->slots + at + 1, list->slots + at, (size_t)(list->n - at) * sizeof *list->slots);
    list->slots[at] = slot;
    list->n++;
}

/* Takes the free slot whose size is nearest; -1 when there is none that would do. */
static int32_t take_slot(const dbt_plan *plan, free_slots *list, uint64_t bytes) {
    int32_t at = position(plan, list, bytes);
    if (at == list->n || (at > 0 && bytes - plan->slots[list->slots[at - 1]].estimate <
                                        plan->slots[list->slots[at]].estimate - bytes)) {
        at--;
    }
    if (at < 0) return -1;
    const int32_t slot = list->slots[at];
    const uint64_t have = plan->slots[slot].estimate;
    const uint64_t distance = have > bytes ? have - bytes : bytes - have;
    if (distance > bytes && distance > 4096) return -1; /* twice as large, or more: waste */
    list->n--;
    memmove(list->slots + at, list->slots + at + 1, (size_t)(list->n - at) * sizeof *list->slots);
    return slot;
}

dibit_status dbt_plan_assign_slots(dbt_plan *plan, dibit_error *error) {
    find_lives(plan);
    const uint64_t n = (uint64_t)plan->n_tensors;
    plan->slots = dbt_arena_array(plan->arena, n, sizeof *plan->slots);
    int64_t *const guesses =
        dbt_arena_array(plan->arena, (uint64_t)dbt_dims_count(plan->graph->dims), sizeof *guesses);
    free_slots free[2] = {{dbt_arena_array(plan->arena, n, sizeof(int32_t)), 0},
                          {dbt_arena_array(plan->arena, n, sizeof(int32_t)), 0}};
    /* The tensors that step s uses last: first_of[s], then next[tensor]; one more than the index. */
    int32_t *const first_of =
        dbt_arena_array(plan->arena, (uint64_t)plan->n_steps, sizeof *first_of);
    int32_t *const next = dbt_arena_array(plan->arena, n, sizeof *next);
    if (!plan->slots || !guesses || !free[0].slots || !free[1].slots || !first_of || !next) {
        return dbt_fail_memory(error, "a plan", n * sizeof *plan->slots);
    }
    dbt_dims_reset(plan->graph->dims, guesses);
    for (int32_t d = 0; d < dbt_dims_count(plan->graph->dims); d++) {
        if (dbt_dim_symbol_name(plan->graph->dims, d)) guesses[d] = GUESSED_DIM;
    }
    dbt_dims_evaluate(plan->graph->dims, guesses);
    for (int32_t s = 0; s < plan->n_steps; s++) {
        const dbt_step *const step = &plan->steps[s];
        for (uint32_t o = 0; o < step->n_outputs; o++) {
            if (step->outputs[o] < 0) continue;
            const int32_t tensor = step->outputs[o];
            dbt_plan_tensor *const t = &plan->tensors[tensor];
            if (t->place != DBT_PLACE_SLOT) continue;
            const uint64_t bytes = estimate(guesses, t);
            if (in_place(plan, step, s, tensor)) {
                dbt_plan_tensor *const root = &plan->tensors[plan->tensors[step->inputs[0]].root];
                t->slot = root->slot;
                root->gives_slot = true;
            } else {
                t->slot = t->own_slot ? -1 : take_slot(plan, &free[t->on_device], bytes);
                if (t->slot < 0) {
                    t->slot = plan->n_slots++;
                    plan->slots[t->slot].on_device = t->on_device;
                }
            }
            if (bytes > plan->slots[t->slot].estimate) plan->slots[t->slot].estimate = bytes;
            if (t->last_step < plan->n_steps) {
                next[tensor] = first_of[t->last_step];
                first_of[t->last_step] = tensor + 1;
            }
        }
        for (int32_t i = first_of[s]; i; i = next[i - 1]) {
            const dbt_plan_tensor *const t = &plan->tensors[i - 1];
            if (!t->gives_slot) put_slot(plan, &free[t->on_device], t->slot);
        }
    }
    return DIBIT_OK;
}

/* Liveness, and which tensors share memory.
 *
 * A slot holds one tensor at a time. A tensor takes the free slot whose size is nearest, judged at
 * guessed dims since the real ones are known only when the model runs; a slot that turns out too small
 * grows then. Views have no slot: they lengthen the life of the tensor whose memory they are. */
#include "plan/plan.h"

enum { GUESSED_DIM = 256 };

static void use(dbt_plan *plan, int32_t tensor, int32_t step) {
    dbt_plan_tensor *const t = &plan->tensors[plan->tensors[tensor].root];
    if (step > t->last_step) t->last_step = step;
}

static void find_lives(dbt_plan *plan) {
    for (int32_t i = 0; i < plan->n_tensors; i++) plan->tensors[i].first_step = -1;
    for (int32_t s = 0; s < plan->n_steps; s++) {
        const dbt_step *const step = &plan->steps[s];
        for (uint32_t i = 0; i < step->n_inputs; i++) {
            if (step->inputs[i] >= 0) use(plan, step->inputs[i], s);
        }
        if (step->guard >= 0) use(plan, step->guard, s);
        for (uint32_t o = 0; o < step->n_outputs; o++) {
            if (step->outputs[o] < 0) continue;
            plan->tensors[step->outputs[o]].first_step = s;
            use(plan, step->outputs[o], s);
        }
    }
    for (int32_t i = 0; i < plan->n_tensors; i++) {
        if (plan->tensors[i].is_output || plan->options.keep_values) use(plan, i, INT32_MAX);
    }
}

static uint64_t estimate(const dbt_plan *plan, const int64_t *guesses, const dbt_plan_tensor *t) {
    uint64_t bytes = dibit_type_bits(t->t.type) / 8 + 1;
    for (int32_t i = 0; i < t->value->shape.rank; i++) {
        const int64_t d = guesses[t->value->shape.dims[i]];
        if (d > 0 && !dbt_mul_u64(bytes, (uint64_t)d, &bytes)) return UINT64_MAX;
    }
    (void)plan;
    return bytes;
}

/* The step may write its output over its first input, which nobody needs afterwards. */
static bool in_place(const dbt_plan *plan, const dbt_step *step, int32_t s, int32_t out) {
    if (step->kind != DBT_STEP_OP || !(step->node->op->flags & DBT_OP_IN_PLACE) ||
        plan->options.keep_values || plan->options.noise || step->inputs[0] < 0 ||
        out != step->outputs[0] || step->dynamic || step->guard >= 0) {
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

static int32_t best_slot(const dbt_plan *plan, const dbt_plan_tensor *t, uint64_t bytes) {
    int32_t best = -1;
    uint64_t best_distance = UINT64_MAX;
    for (int32_t i = 0; i < plan->n_slots; i++) {
        const dbt_slot *const slot = &plan->slots[i];
        if (slot->on_device != t->on_device || slot->last_step >= t->first_step) continue;
        const uint64_t distance =
            slot->estimate > bytes ? slot->estimate - bytes : bytes - slot->estimate;
        if (distance > bytes && distance > 4096) continue; /* twice as large, or more: waste */
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    return best;
}

dibit_status dbt_plan_assign_slots(dbt_plan *plan, dibit_error *error) {
    find_lives(plan);
    plan->slots = dbt_arena_array(plan->arena, (uint64_t)plan->n_tensors, sizeof *plan->slots);
    int64_t *const guesses =
        dbt_arena_array(plan->arena, (uint64_t)dbt_dims_count(plan->graph->dims), sizeof *guesses);
    if (!plan->slots || !guesses) return dbt_fail_memory(error, "a plan", 1);
    dbt_dims_reset(plan->graph->dims, guesses);
    for (int32_t d = 0; d < dbt_dims_count(plan->graph->dims); d++) {
        if (dbt_dim_symbol_name(plan->graph->dims, d)) guesses[d] = GUESSED_DIM;
    }
    dbt_dims_evaluate(plan->graph->dims, guesses);
    for (int32_t s = 0; s < plan->n_steps; s++) {
        const dbt_step *const step = &plan->steps[s];
        for (uint32_t o = 0; o < step->n_outputs; o++) {
            if (step->outputs[o] < 0) continue;
            dbt_plan_tensor *const t = &plan->tensors[step->outputs[o]];
            if (t->place != DBT_PLACE_SLOT) continue;
            const uint64_t bytes = estimate(plan, guesses, t);
            int32_t slot = in_place(plan, step, s, step->outputs[o])
                               ? plan->tensors[plan->tensors[step->inputs[0]].root].slot
                               : best_slot(plan, t, bytes);
            if (slot < 0) {
                slot = plan->n_slots++;
                plan->slots[slot].on_device = t->on_device;
            }
            t->slot = slot;
            plan->slots[slot].last_step = t->last_step;
            if (bytes > plan->slots[slot].estimate) plan->slots[slot].estimate = bytes;
        }
    }
    return DIBIT_OK;
}

/* Which of the graph's outputs each step helps to make, so that a run leaves out what nobody asked for. */
#include "plan/plan.h"

uint64_t dbt_plan_output_bit(uint32_t output) {
    enum { LAST = 61 }; /* which many share */
    return UINT64_C(1) << (output < LAST ? output : LAST);
}

dibit_status dbt_plan_find_serves(dbt_plan *plan, dibit_error *error) {
    uint64_t *const serves =
        dbt_arena_array(plan->arena, (uint64_t)plan->n_tensors, sizeof *serves);
    if (!serves) return dbt_fail_memory(error, "a plan", (uint64_t)plan->n_tensors * 8);
    for (uint32_t o = 0; o < plan->graph->n_outputs; o++) {
        serves[plan->outputs[o]] |= dbt_plan_output_bit(o);
        if (plan->tensors[plan->outputs[o]].in_state) serves[plan->outputs[o]] |= DBT_SERVES_STATES;
    }
    if (plan->token >= 0) serves[plan->token] |= DBT_SERVES_TOKEN;
    for (int32_t s = plan->n_steps; s-- > 0;) {
        dbt_step *const step = &plan->steps[s];
        for (uint32_t o = 0; o < step->n_outputs; o++) {
            if (step->outputs[o] >= 0) step->serves |= serves[step->outputs[o]];
        }
        if (plan->options.keep_values) step->serves = UINT64_MAX;
        for (uint32_t i = 0; i < step->n_inputs; i++) {
            if (step->inputs[i] >= 0) serves[step->inputs[i]] |= step->serves;
        }
        if (step->guard >= 0) serves[step->guard] |= step->serves;
    }
    return DIBIT_OK;
}

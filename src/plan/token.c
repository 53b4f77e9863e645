/* Tokens that the session's device chooses: appends dibit.Sample to the logits, and finds out whether a
 * run can take the token of the one before and be submitted before anything of that was read. */
#include <string.h>

#include "ops/sample/sample.h"
#include "plan/plan.h"

static dbt_value *find_logits(const dbt_graph *g, const char *name) {
    for (uint32_t o = 0; o < g->n_outputs; o++) {
        dbt_value *const value = g->outputs[o];
        const bool fits = (value->type == DIBIT_TYPE_FLOAT || value->type == DIBIT_TYPE_FLOAT16) &&
                          value->shape.rank == 3 && value->producer && !value->producer->guard;
        if (fits && strcmp(g->output_names[o], name) == 0) return value;
    }
    return NULL;
}

dibit_status dbt_rewrite_sample(dbt_graph *graph, const char *output, dbt_node **node,
                                dibit_error *error) {
    *node = NULL;
    dbt_value *const logits = find_logits(graph, output);
    if (!logits) return DIBIT_OK;
    dbt_value *const settings = dbt_graph_add_value(graph, "dibit.settings");
    dbt_value *const token = dbt_graph_add_value(graph, "dibit.token");
    dbt_node *const sample = dbt_graph_add_node(graph, 2, 1);
    if (!settings || !token || !sample) return dbt_fail_memory(error, "a node", sizeof *sample);
    settings->is_input = true;
    settings->type = DIBIT_TYPE_FLOAT;
    settings->shape =
        (dbt_shape){2, {logits->shape.dims[0], dbt_dim_const(graph->dims, DBT_SAMPLE_SETTINGS)}};
    const dbt_op *any;
    sample->name = "dibit.token";
    sample->domain = "dibit";
    sample->op_type = "Sample";
    sample->op = dbt_op_find("dibit", "Sample", 1, &any);
    sample->opset = 1;
    sample->inputs[0] = logits;
    sample->inputs[1] = settings;
    sample->outputs[0] = token;
    token->producer = sample;
    *node = sample;
    return dbt_node_infer(graph, sample, error);
}

/* Only uploads read the input: it can come from the device as well. */
static bool is_uploaded(const dbt_plan *plan, int32_t input) {
    for (int32_t s = 0; s < plan->n_steps; s++) {
        const dbt_step *const step = &plan->steps[s];
        for (uint32_t i = 0; i < step->n_inputs; i++) {
            if (step->inputs[i] == input && step->kind != DBT_STEP_UPLOAD) return false;
        }
    }
    return true;
}

/* In a run with states, nothing on the way to the token waits for the device. */
static bool never_waits(const dbt_plan *plan) {
    for (int32_t s = 0; s < plan->n_steps; s++) {
        const dbt_step *const step = &plan->steps[s];
        if (step->kind != DBT_STEP_DOWNLOAD) continue;
        if (!(step->serves & (DBT_SERVES_TOKEN | DBT_SERVES_STATES))) continue;
        if (!plan->tensors[step->outputs[0]].in_state) return false;
    }
    for (int32_t i = 0; i < plan->n_states; i++) {
        if (plan->states[i].kind != DBT_STATE_APPEND || !plan->states[i].on_device) return false;
    }
    return plan->n_states > 0;
}

void dbt_plan_find_fed(dbt_plan *plan, const char *input) {
    plan->fed = -1;
    if (plan->token < 0 || !input || !never_waits(plan)) return;
    for (uint32_t i = 0; i < plan->graph->n_inputs; i++) {
        const dbt_value *const value = plan->graph->inputs[i];
        const bool fits = strcmp(value->name, input) == 0 && value->shape.rank == 2 &&
                          (value->type == DIBIT_TYPE_INT64 || value->type == DIBIT_TYPE_INT32);
        if (fits && is_uploaded(plan, plan->inputs[i])) plan->fed = plan->inputs[i];
    }
}

/* Comparing values of two devices.
 *
 * What a value may be off by in the chain is what `dibit check` allows an output: the CPU runs again with every
 * node's results moved at random inside their rounding bounds, so it is a bound of the whole tensor, derived from how
 * such moves grow on their way through the graph. By itself, each element has the bound that its op promises. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "diff.h"

static void take_worse(dibit_diff_measure *kept, dibit_diff_measure *other) {
    other->wrong = other->n_wrong > 0 || other->problem[0];
    if (!kept->value || (other->wrong && !kept->wrong) ||
        (other->wrong == kept->wrong && other->used > kept->used)) {
        *kept = *other;
    }
}

static void show_worst(const dibit_tensor *got, const dibit_tensor *want, int64_t i,
                       dibit_diff_measure *m) {
    if (m->n_elements == 0) return;
    dibit_tensor_index_text(want, i, m->index);
    dibit_tensor_element_text(got, i, m->got);
    dibit_tensor_element_text(want, i, m->expected);
}

/* ---- In the chain ------------------------------------------------------------------------------ */

/* The step that runs a node of that name, from step `at` on. A copy has the name of its value, which may be a
 * node's too. */
static const dbt_step *find_step(const dibit_session *session, const char *name, int32_t at) {
    const dbt_plan *const plan = session->plan;
    for (int32_t i = at; i < plan->n_steps; i++) {
        const dbt_step *const step = &plan->steps[i];
        if (step->kind == DBT_STEP_OP && strcmp(step->name, name) == 0) return step;
    }
    return NULL;
}

/* Steps come in the order of the nodes; one that is none's own was fused into another's. */
void dbt_diff_find_places(const dibit_diff *diff, dbt_diff_pass *pass) {
    int32_t at = 0;
    for (uint32_t n = 0; n < diff->n_nodes; n++) {
        dibit_diff_node_info *const node = &pass->nodes[n];
        dibit_model_node(diff->model, n, &node->node);
        const dbt_step *const step = find_step(diff->tested, node->node.name, at);
        node->fused = !step;
        node->why = "";
        if (!step) continue;
        at = (int32_t)(step - diff->tested->plan->steps) + 1;
        node->on_device = step->on_device;
        if (!node->on_device) node->why = step->why;
    }
}

void dbt_diff_free_values(dibit_diff *diff) {
    dbt_release(&diff->allocator, diff->values, diff->values_capacity * sizeof *diff->values);
    diff->values = NULL;
    diff->n_values = diff->values_capacity = 0;
}

dibit_status dbt_diff_list_values(dibit_diff *diff, dibit_error *error) {
    const char *name;
    uint32_t capacity = 0;
    for (uint32_t i = 0; i < diff->n_nodes; i++) {
        for (uint32_t o = 0; dibit_model_node_output(diff->model, i, o, &name) == DIBIT_OK; o++) {
            capacity++;
        }
    }
    dbt_diff_free_values(diff);
    diff->values = dbt_alloc(&diff->allocator, capacity * sizeof *diff->values, 16);
    if (!diff->values) return dbt_fail_memory(error, "a comparison", capacity);
    diff->values_capacity = capacity;
    for (uint32_t i = 0; i < diff->n_nodes; i++) {
        for (uint32_t o = 0; dibit_model_node_output(diff->model, i, o, &name) == DIBIT_OK; o++) {
            dbt_diff_value *const v = &diff->values[diff->n_values];
            *v = (dbt_diff_value){.node = i, .name = name};
            diff->n_values +=
                name[0] && !dibit_session_value(diff->reference, name, &v->want, NULL);
        }
    }
    return DIBIT_OK;
}

void dbt_diff_add_noise(dibit_diff *diff) {
    for (uint32_t i = 0; i < diff->n_values; i++) {
        dbt_diff_value *const v = &diff->values[i];
        dibit_tensor noisy;
        if (dibit_session_value(diff->noisy, v->name, &noisy, NULL) != DIBIT_OK) continue;
        dibit_comparison_add_noise(&v->compared, &v->want, &noisy);
    }
}

void dbt_diff_compare_value(const dibit_diff *diff, dbt_diff_pass *pass, const dbt_diff_value *v) {
    dibit_tensor got;
    if (dibit_session_value(diff->tested, v->name, &got, NULL)) return; /* inside a fused step */
    const dibit_tensor *want = &v->want;
    for (uint32_t i = 0; i < diff->desc.n_references; i++) {
        const dibit_tensor *const reference = &diff->desc.references[i];
        if (strcmp(reference->name, v->name) == 0) want = reference;
    }
    dibit_comparison c = v->compared;
    dibit_tensor_compare(want, &got, -1, -1, &c);
    dibit_diff_measure m = {.value = v->name,
                            .n_elements = c.n_elements,
                            .n_wrong = c.n_wrong,
                            .used = c.used,
                            .off = c.worst,
                            .allowed = c.allowed,
                            .largest = c.worst};
    if (!c.n_wrong) memcpy(m.problem, c.problem, sizeof m.problem);
    show_worst(&got, want, c.worst_index, &m);
    take_worse(&pass->nodes[v->node].chain, &m);
}

/* ---- By itself --------------------------------------------------------------------------------- */

/* Rows of a cache of 16-bit floats have no bounds of the op: they are rounded on both devices, which may
 * fall to neighbours of a value that both have to a few float roundings of the largest. */
static double rounding_of(const dibit_tensor *want) {
    if (want->type != DIBIT_TYPE_FLOAT16 && want->type != DIBIT_TYPE_BFLOAT16) return 0;
    double largest = 0;
    for (int64_t i = 0, n = dbt_tensor_count(want); i < n; i++) {
        largest = fmax(largest, fabs(dibit_tensor_element(want, i)));
    }
    return (want->type == DIBIT_TYPE_FLOAT16 ? 0x1p-10 : 0x1p-7) * largest + 0x1p-24;
}

/* bounds [as want], or NULL: `allowed` for each. */
static void compare_elements(const dibit_tensor *got, const dibit_tensor *want, const float *bounds,
                             double allowed, dibit_diff_measure *m) {
    m->n_elements = dbt_tensor_count(want);
    double worst = -INFINITY;
    int64_t at = 0;
    for (int64_t i = 0; i < m->n_elements; i++) {
        const double g = dibit_tensor_element(got, i), w = dibit_tensor_element(want, i);
        const double bound = bounds ? (double)bounds[i] : allowed;
        double off = fabs(g - w);
        if (g == w || (isnan(g) && isnan(w))) off = 0;
        if (isnan(off)) off = INFINITY;
        if (off > bound) m->n_wrong++;
        if (off > m->largest) m->largest = off;
        if (off > 0) m->used = fmax(m->used, off / bound);
        const double excess = isinf(off) ? off : off - bound;
        if (excess > worst) {
            worst = excess;
            at = i;
            m->off = off;
            m->allowed = bound;
        }
    }
    show_worst(got, want, at, m);
}

static void compare_output(const dbt_diff_part *part, const char *name,
                           dibit_diff_node_info *node) {
    dibit_tensor want, got, bound;
    if (dibit_session_value(part->cpu, name, &want, NULL) ||
        dibit_session_value(part->tested, name, &got, NULL)) {
        return;
    }
    dibit_diff_measure m = {.value = name};
    bool same = got.rank == want.rank;
    for (int32_t i = 0; same && i < want.rank; i++) same = got.dims[i] == want.dims[i];
    if (!same) {
        snprintf(m.problem, sizeof m.problem, "its shape is another");
    } else {
        const bool bounded = dibit_session_bound(part->cpu, name, &bound, NULL) == DIBIT_OK;
        compare_elements(&got, &want, bounded ? bound.data : NULL, rounding_of(&want), &m);
    }
    take_worse(&node->alone, &m);
}

/* Since its inputs now come from the CPU, that may run the node after all. */
static bool ran_on_cpu(const dibit_session *session, dibit_diff_node_info *node) {
    const dbt_step *const step = find_step(session, node->node.name, 0);
    if (!step || step->on_device) return false;
    snprintf(node->not_alone, sizeof node->not_alone, "alone the CPU runs it: %s", step->why);
    return true;
}

void dbt_diff_compare_part(const dibit_diff *diff, dibit_diff_node_info *node, uint32_t index) {
    const char *name;
    if (ran_on_cpu(diff->part.tested, node)) return;
    for (uint32_t o = 0; dibit_model_node_output(diff->model, index, o, &name) == DIBIT_OK; o++) {
        if (name[0]) compare_output(&diff->part, name, node);
    }
}

/* A node that fails by itself explains what fails behind it in the chain. */
void dbt_diff_find_first(const dibit_diff *diff, dbt_diff_pass *pass) {
    for (int alone = 1; alone >= 0 && pass->info.first < 0; alone--) {
        for (uint32_t n = 0; n < diff->n_nodes && pass->info.first < 0; n++) {
            const dibit_diff_node_info *const node = &pass->nodes[n];
            if (!(alone ? &node->alone : &node->chain)->wrong) continue;
            pass->info.first = (int32_t)n;
            pass->info.first_alone = alone;
        }
    }
}

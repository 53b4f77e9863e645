/* The chain of `dibit diff`: the whole model on both devices, each with its own values throughout.
 *
 * What a value may be off by there is what `dibit check` allows an output: the CPU runs again with every
 * node's results moved at random inside their rounding bounds (check_compare.c), so it is a bound of the
 * whole tensor, derived from how such moves grow on their way through the graph. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff.h"

bool diff_is_wrong(const diff_measure *m) { return m->n_wrong > 0 || m->problem[0]; }

void diff_take_worse(diff_measure *kept, const diff_measure *other) {
    if (!other->value) return;
    const bool wrong = diff_is_wrong(other), was = diff_is_wrong(kept);
    if (!kept->value || (wrong && !was) || (wrong == was && other->used > kept->used)) {
        *kept = *other;
    }
}

/* ---- Comparing --------------------------------------------------------------------------------- */

static void index_text(const dibit_tensor *tensor, int64_t flat, char text[160]) {
    int64_t index[DIBIT_MAX_RANK] = {0};
    for (int32_t i = tensor->rank; i-- > 0;) {
        if (tensor->dims[i] <= 0) continue;
        index[i] = flat % tensor->dims[i];
        flat /= tensor->dims[i];
    }
    size_t used = (size_t)snprintf(text, 160, "[");
    for (int32_t i = 0; i < tensor->rank; i++) {
        used +=
            (size_t)snprintf(text + used, 160 - used, "%s%lld", i ? "," : "", (long long)index[i]);
    }
    snprintf(text + used, 160 - used, "]");
}

static void show_worst(const dibit_tensor *got, const dibit_tensor *want, int64_t i,
                       diff_measure *m) {
    if (m->n_elements == 0) return;
    index_text(want, i, m->where);
    check_element_text(got, i, m->got);
    check_element_text(want, i, m->want);
}

void diff_measure_elements(const dibit_tensor *got, const dibit_tensor *want, const float *bounds,
                           double allowed, diff_measure *out) {
    out->n_elements = check_count(want);
    double worst = -INFINITY;
    int64_t at = 0;
    for (int64_t i = 0; i < out->n_elements; i++) {
        const double g = check_element(got, i), w = check_element(want, i);
        const double bound = bounds ? (double)bounds[i] : allowed;
        double off = fabs(g - w);
        if (g == w || (isnan(g) && isnan(w))) off = 0;
        if (isnan(off)) off = INFINITY;
        if (off > bound) out->n_wrong++;
        if (off > out->largest) out->largest = off;
        if (off > 0) out->used = fmax(out->used, off / bound);
        const double excess = isinf(off) ? off : off - bound;
        if (excess > worst) {
            worst = excess;
            at = i;
            out->off = off;
            out->allowed = bound;
        }
    }
    show_worst(got, want, at, out);
}

/* By the rule of `dibit check`; `base` holds the spread that runs with noise had. */
static void measure_in_norm(const dibit_tensor *got, const dibit_tensor *want,
                            const check_output *base, diff_measure *out) {
    static const check_options derived = {.rtol = -1, .atol = -1};
    check_output o = *base;
    o.got = *got;
    check_compare(want, &derived, &o);
    out->n_elements = o.n_elements;
    out->n_wrong = o.n_wrong;
    out->used = o.used;
    out->off = o.worst;
    out->allowed = o.allowed;
    out->largest = o.worst;
    if (!o.n_wrong) memcpy(out->problem, o.problem, sizeof out->problem);
    if (o.n_elements) show_worst(got, want, o.worst_index, out);
}

/* ---- Which device runs a node ---------------------------------------------------------------------- */

/* Steps come in the order of the nodes; one that is none's own was fused into another's. */
static void find_places(const diff_context *c, diff_pass *pass) {
    uint32_t at = 0;
    for (uint32_t n = 0; n < c->n_nodes; n++) {
        diff_node *const node = &pass->nodes[n];
        dibit_model_node(c->model, n, &node->info);
        dibit_step_info step;
        uint32_t i = at;
        while (dibit_session_step(c->tested, i, &step) == DIBIT_OK &&
               strcmp(step.name, node->info.name) != 0) {
            i++;
        }
        node->fused = dibit_session_step(c->tested, i, &step) != DIBIT_OK;
        node->why = "";
        if (node->fused) continue;
        at = i + 1;
        node->on_device = strcmp(step.device, "cpu") != 0;
        if (!node->on_device) node->why = step.why;
    }
}

/* ---- Runs ---------------------------------------------------------------------------------------- */

static bool run(dibit_session *session, const diff_pass *pass, dibit_error *error) {
    const dibit_run r = {.inputs = pass->inputs.list, .n_inputs = pass->inputs.n};
    return dibit_session_run(session, &r, error) == DIBIT_OK;
}

typedef struct compared {
    uint32_t node;
    const char *name;
    dibit_tensor want; /* the reference's */
    check_output base;
} compared;

static compared *list_values(const diff_context *c, uint32_t *n) {
    uint32_t capacity = 0;
    const char *name;
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        for (uint32_t o = 0; dibit_model_node_output(c->model, i, o, &name) == DIBIT_OK; o++) {
            capacity++;
        }
    }
    compared *const list = dibit_cli_alloc(capacity, sizeof *list);
    *n = 0;
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        for (uint32_t o = 0; dibit_model_node_output(c->model, i, o, &name) == DIBIT_OK; o++) {
            dibit_error ignored;
            compared *const v = &list[*n];
            if (!name[0] || dibit_session_value(c->reference, name, &v->want, &ignored)) continue;
            v->node = i;
            v->name = name;
            v->base.got = v->base.still = v->want;
            ++*n;
        }
    }
    return list;
}

static bool add_noise(const diff_context *c, const diff_pass *pass, compared *values, uint32_t n,
                      uint64_t seed, dibit_error *error) {
    const dibit_session_desc desc = {.device = c->cpu,
                                     .activations = c->options.common.activations,
                                     .keep_values = true,
                                     .noise_seed = seed};
    dibit_session *session = NULL;
    bool ok = !dibit_session_create(c->model, &desc, &session, error) && run(session, pass, error);
    for (uint32_t i = 0; ok && i < n; i++) {
        dibit_tensor noisy;
        dibit_error ignored;
        if (dibit_session_value(session, values[i].name, &noisy, &ignored)) continue;
        check_add_noise(&noisy, &values[i].base);
    }
    dibit_session_destroy(&session);
    return ok;
}

static void compare(const diff_context *c, diff_pass *pass, const compared *v) {
    diff_measure m = {.value = v->name};
    dibit_tensor got;
    dibit_error error;
    if (dibit_session_value(c->tested, v->name, &got, &error)) return; /* inside a fused step */
    const dibit_tensor *want = &v->want;
    for (uint32_t i = 0; i < pass->references.n; i++) {
        if (strcmp(pass->references.list[i].name, v->name) == 0) want = &pass->references.list[i];
    }
    measure_in_norm(&got, want, &v->base, &m);
    diff_take_worse(&pass->nodes[v->node].chain, &m);
}

bool diff_run_chain(diff_context *c, diff_pass *pass, dibit_error *error) {
    pass->first = -1;
    pass->nodes = dibit_cli_alloc(c->n_nodes, sizeof *pass->nodes);
    find_places(c, pass);
    if (!run(c->reference, pass, error) || !run(c->tested, pass, error)) return false;
    uint32_t n;
    compared *const values = list_values(c, &n);
    bool ok = true;
    for (uint64_t seed = 1; ok && seed <= c->options.noise_runs; seed++) {
        ok = add_noise(c, pass, values, n, seed, error);
    }
    for (uint32_t i = 0; ok && i < n; i++) compare(c, pass, &values[i]);
    free(values);
    return ok;
}

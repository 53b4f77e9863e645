/* A node of `dibit diff` by itself: taken out of the model with its weights, given what the reference gave
 * it, run on both devices. Each element has the bound that its op promises (dibit_session_bound). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff.h"

/* ---- Taking a node out ----------------------------------------------------------------------- */

static void append(void *user, const char *data, size_t n) {
    diff_part *const part = user;
    if (part->n_bytes + n > part->capacity) {
        part->capacity = (part->n_bytes + n) * 2;
        char *const grown = dibit_cli_alloc(part->capacity, 1);
        if (part->n_bytes) memcpy(grown, part->bytes, part->n_bytes);
        free(part->bytes);
        part->bytes = grown;
    }
    memcpy(part->bytes + part->n_bytes, data, n);
    part->n_bytes += n;
}

/* What the node reads and makes, as the reference's last run had it. */
static dibit_tensor *values_of(const diff_context *c, uint32_t node, uint32_t *n) {
    typedef dibit_status (*name_of)(const dibit_model *, uint32_t, uint32_t, const char **);
    static const name_of sides[] = {dibit_model_node_input, dibit_model_node_output};
    uint32_t capacity = 0;
    const char *name;
    for (int s = 0; s < 2; s++) {
        for (uint32_t i = 0; sides[s](c->model, node, i, &name) == DIBIT_OK; i++) capacity++;
    }
    dibit_tensor *const values = dibit_cli_alloc(capacity, sizeof *values);
    *n = 0;
    for (int s = 0; s < 2; s++) {
        for (uint32_t i = 0; sides[s](c->model, node, i, &name) == DIBIT_OK; i++) {
            dibit_error none;
            if (!name[0] || dibit_session_value(c->reference, name, &values[*n], &none)) continue;
            values[(*n)++].name = name;
        }
    }
    return values;
}

bool diff_take_out(const diff_context *c, uint32_t node, diff_part *out, dibit_error *error) {
    *out = (diff_part){0};
    uint32_t n;
    dibit_tensor *const values = values_of(c, node, &n);
    const dibit_extract what = {&node, 1, values, n};
    bool ok = !dibit_model_extract(c->model, &what, append, out, error) &&
              !dibit_model_load(&(dibit_model_desc){.data = out->bytes, .data_bytes = out->n_bytes},
                                &out->model, error);
    dibit_value_info info;
    for (uint32_t i = 0; ok && dibit_model_input(out->model, i, &info) == DIBIT_OK; i++) {
        dibit_tensor value, converted;
        ok = !dibit_session_value(c->reference, info.name, &value, error) &&
             diff_convert(&value, info.type, &converted, error);
        if (!ok) break;
        diff_add_tensor(&out->inputs, info.name, &converted);
        free(converted.data);
    }
    free(values);
    return ok;
}

void diff_free_part(diff_part *part) {
    dibit_model_destroy(&part->model);
    diff_free_tensors(&part->inputs);
    free(part->bytes);
}

/* ---- Running it ---------------------------------------------------------------------------------- */

static bool start(const diff_context *c, const diff_part *part, bool tested,
                  dibit_session **session, dibit_error *error) {
    const dibit_session_desc desc = {.device = tested ? c->device : c->cpu,
                                     .activations = c->options.common.activations,
                                     .keep_values = true,
                                     .no_fusion = true,
                                     .no_proof = c->options.no_proof,
                                     .keep_bounds = !tested};
    const dibit_run run = {.inputs = part->inputs.list, .n_inputs = part->inputs.n};
    return !dibit_session_create(part->model, &desc, session, error) &&
           !dibit_session_run(*session, &run, error);
}

/* The CPU runs the node after all, since its inputs now come from there. */
static bool ran_on_cpu(dibit_session *session, const char *name, char *why, size_t size) {
    dibit_step_info step;
    for (uint32_t i = 0; dibit_session_step(session, i, &step) == DIBIT_OK; i++) {
        if (strcmp(step.name, name) != 0 || strcmp(step.device, "cpu") != 0) continue;
        snprintf(why, size, "alone the CPU runs it: %s", step.why);
        return true;
    }
    return false;
}

/* Rows of a cache of 16-bit floats have no bounds of the op: they are rounded on both devices, which may
 * fall to neighbours of a value that both have to a few float roundings of the largest. */
static double rounding_of(const dibit_tensor *want) {
    if (want->type != DIBIT_TYPE_FLOAT16 && want->type != DIBIT_TYPE_BFLOAT16) return 0;
    double largest = 0;
    for (int64_t i = 0, n = check_count(want); i < n; i++) {
        largest = fmax(largest, fabs(check_element(want, i)));
    }
    return (want->type == DIBIT_TYPE_FLOAT16 ? 0x1p-10 : 0x1p-7) * largest + 0x1p-24;
}

static void compare(dibit_session *cpu, dibit_session *tested, const char *name, diff_node *node) {
    dibit_tensor want, got, bound;
    dibit_error error;
    if (dibit_session_value(cpu, name, &want, &error) ||
        dibit_session_value(tested, name, &got, &error)) {
        return;
    }
    diff_measure m = {.value = name};
    bool same = got.rank == want.rank;
    for (int32_t i = 0; same && i < want.rank; i++) same = got.dims[i] == want.dims[i];
    if (!same) {
        snprintf(m.problem, sizeof m.problem, "its shape is another");
    } else {
        const bool bounded = dibit_session_bound(cpu, name, &bound, &error) == DIBIT_OK;
        diff_measure_elements(&got, &want, bounded ? bound.data : NULL, rounding_of(&want), &m);
    }
    diff_take_worse(&node->local, &m);
}

void diff_run_local(diff_context *c, diff_pass *pass, uint32_t index) {
    diff_node *const node = &pass->nodes[index];
    if (!node->on_device && !node->fused) {
        snprintf(node->alone, sizeof node->alone, "on the CPU: %s", node->why);
        return;
    }
    diff_part part;
    dibit_session *cpu = NULL, *tested = NULL;
    dibit_error error;
    if (!diff_take_out(c, index, &part, &error) || !start(c, &part, false, &cpu, &error)) {
        snprintf(node->alone, sizeof node->alone, "%.280s", error.text);
    } else if (!start(c, &part, true, &tested, &error)) {
        const char *name;
        dibit_model_node_output(c->model, index, 0, &name);
        node->local.value = name;
        snprintf(node->local.problem, sizeof node->local.problem, "%.190s", error.text);
    } else if (!ran_on_cpu(tested, node->info.name, node->alone, sizeof node->alone)) {
        const char *name;
        for (uint32_t o = 0; dibit_model_node_output(c->model, index, o, &name) == DIBIT_OK; o++) {
            if (name[0]) compare(cpu, tested, name, node);
        }
    }
    dibit_session_destroy(&cpu);
    dibit_session_destroy(&tested);
    diff_free_part(&part);
}

/* Running a case of `dibit check`: once as it is, then with noise for the derived bounds. Each pass
 * runs all sets in a session of its own; with --chain the session's states go from set to set. Bounds
 * are the CPU's, whatever the device: there is one yardstick, and a device cannot widen it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

typedef struct name_list {
    const char **list;
    uint32_t n;
} name_list;

typedef enum pass_kind {
    PASS_DEVICE, /* the answers to be judged */
    PASS_CPU,    /* what noise is measured from, where the device is another */
    PASS_NOISE   /* on the CPU */
} pass_kind;

typedef struct pass {
    check_case *c;
    const check_options *options;
    dibit_session *session;
    name_list pasts, presents; /* of the session's states; empty without --chain */
    dibit_state ***states;     /* [n_sets] lists of batch states, or NULL */
    pass_kind kind;
} pass;

static bool among(const name_list *names, const char *name) {
    for (uint32_t i = 0; i < names->n; i++) {
        if (strcmp(names->list[i], name) == 0) return true;
    }
    return false;
}

static void add_name(name_list *names, const char *name) {
    const char **grown = dibit_cli_alloc(names->n + 1, sizeof *grown);
    if (names->n) memcpy(grown, names->list, names->n * sizeof *grown);
    grown[names->n++] = name;
    free(names->list);
    names->list = grown;
}

static const dibit_tensor *find(const dibit_tensor *tensors, uint32_t n, const char *name) {
    for (uint32_t i = 0; i < n; i++) {
        if (tensors[i].name && strcmp(tensors[i].name, name) == 0) return &tensors[i];
    }
    return NULL;
}

/* ---- Which set continues which ------------------------------------------------------------ */

/* Lengths from input_ids and attention_mask, else from the first past/present pair that grows. */
static void find_lengths(const pass *p, check_set *set) {
    set->past = set->total = -1;
    const dibit_tensor *ids = find(set->inputs, set->n_inputs, "input_ids");
    const dibit_tensor *mask = find(set->inputs, set->n_inputs, "attention_mask");
    if (ids && mask && ids->rank == 2 && mask->rank == 2 && mask->dims[1] >= ids->dims[1]) {
        set->batch = ids->dims[0];
        set->total = mask->dims[1];
        set->past = set->total - ids->dims[1];
        return;
    }
    for (uint32_t i = 0; i < p->pasts.n; i++) {
        const dibit_tensor *past = find(set->inputs, set->n_inputs, p->pasts.list[i]);
        const dibit_tensor *present = find(set->expected, set->n_expected, p->presents.list[i]);
        if (!past || !present || past->rank != 4 || present->rank != 4) continue;
        if (present->dims[2] <= past->dims[2]) continue;
        set->batch = past->dims[0];
        set->past = past->dims[2];
        set->total = present->dims[2];
        return;
    }
}

/* Whether the set's files hold what the earlier set's files say it left behind. */
static bool same_content(const pass *p, const check_set *set, const check_set *earlier) {
    for (uint32_t i = 0; i < p->pasts.n; i++) {
        const dibit_tensor *past = find(set->inputs, set->n_inputs, p->pasts.list[i]);
        const dibit_tensor *present =
            find(earlier->expected, earlier->n_expected, p->presents.list[i]);
        if (!past || !present || !dibit_tensor_equal(past, present)) return false;
    }
    return true;
}

/* A set continues the latest earlier one of its batch whose total is its past; where several fit,
 * the latest whose files have the very same content. */
static void find_parents(const pass *p) {
    check_case *c = p->c;
    for (uint32_t i = 0; i < c->n_sets; i++) {
        check_set *set = &c->sets[i];
        find_lengths(p, set);
        set->uses_states = set->past == 0 && set->batch > 0;
        bool exact = false;
        for (uint32_t j = i; set->past > 0 && !exact && j-- > 0;) {
            const check_set *earlier = &c->sets[j];
            if (!earlier->uses_states || earlier->batch != set->batch ||
                earlier->total != set->past) {
                continue;
            }
            exact = same_content(p, set, earlier);
            if (exact || set->parent < 0) set->parent = (int32_t)j;
        }
        if (set->parent >= 0) {
            set->uses_states = true;
            c->sets[set->parent].n_children++;
        }
    }
}

/* ---- States ---------------------------------------------------------------------------------- */

static void destroy_states(pass *p, uint32_t i) {
    for (int64_t row = 0; p->states[i] && row < p->c->sets[i].batch; row++) {
        dibit_state_destroy(&p->states[i][row]);
    }
    free(p->states[i]);
    p->states[i] = NULL;
}

/* New states, or the parent's: forked when another set continues it too, else taken. */
static dibit_status make_states(pass *p, uint32_t i, uint32_t *children_left, dibit_error *error) {
    const check_set *set = &p->c->sets[i];
    dibit_state ***const states = p->states;
    if (set->parent >= 0) {
        if (!states[set->parent]) {
            const bool skipped = p->c->sets[set->parent].result == CHECK_SKIPPED;
            snprintf(error->text, sizeof error->text, "%s, which it continues, was %s",
                     p->c->sets[set->parent].name, skipped ? "skipped" : "not run");
            return skipped ? DIBIT_UNSUPPORTED : DIBIT_BAD_STATE;
        }
        if (--children_left[set->parent] == 0) {
            states[i] = states[set->parent];
            states[set->parent] = NULL;
            return DIBIT_OK;
        }
    }
    states[i] = dibit_cli_alloc((size_t)set->batch, sizeof *states[i]);
    for (int64_t row = 0; row < set->batch; row++) {
        const dibit_status status =
            set->parent >= 0 ? dibit_state_fork(states[set->parent][row], &states[i][row], error)
                             : dibit_state_create(p->session, NULL, &states[i][row], error);
        if (status) return status;
    }
    return DIBIT_OK;
}

/* ---- Runs ---------------------------------------------------------------------------------- */

static void take_answer(const dibit_tensor *answer, dibit_tensor *out) {
    *out = *answer;
    const size_t bytes = (size_t)answer->bytes;
    out->data = dibit_cli_alloc(bytes, 1);
    if (bytes) memcpy(out->data, answer->data, bytes);
}

static void take_output(const pass *p, const dibit_tensor *answer, check_output *out) {
    switch (p->kind) {
    case PASS_DEVICE:
        take_answer(answer, &out->got);
        out->still = out->got;
        break;
    case PASS_CPU: take_answer(answer, &out->still); break;
    case PASS_NOISE: dibit_comparison_add_noise(&out->compared, &out->still, answer); break;
    }
}

static dibit_status run_set(pass *p, uint32_t i, dibit_error *error) {
    check_set *set = &p->c->sets[i];
    dibit_tensor *inputs = dibit_cli_alloc(set->n_inputs, sizeof *inputs);
    dibit_tensor *outputs = dibit_cli_alloc(set->n_expected, sizeof *outputs);
    uint32_t *indices = dibit_cli_alloc(set->n_expected, sizeof *indices);
    uint32_t n_inputs = 0, n_outputs = 0;
    for (uint32_t j = 0; j < set->n_inputs; j++) {
        if (set->uses_states && among(&p->pasts, set->inputs[j].name)) continue;
        inputs[n_inputs++] = set->inputs[j];
    }
    for (uint32_t j = 0; j < set->n_expected; j++) {
        if (set->uses_states && among(&p->presents, set->expected[j].name)) {
            set->in_states = true;
            continue;
        }
        outputs[n_outputs] = (dibit_tensor){.name = set->expected[j].name};
        indices[n_outputs++] = j;
    }
    const dibit_run run = {
        .inputs = inputs,
        .n_inputs = n_inputs,
        .outputs = outputs,
        .n_outputs = n_outputs,
        .states = set->uses_states ? p->states[i] : NULL,
        .n_states = set->uses_states ? (uint32_t)set->batch : 0,
    };
    const dibit_status status = dibit_session_run(p->session, &run, error);
    for (uint32_t j = 0; status == DIBIT_OK && j < n_outputs; j++) {
        take_output(p, &outputs[j], &set->outputs[indices[j]]);
    }
    free(inputs);
    free(outputs);
    free(indices);
    return status;
}

static void fail_set(check_set *set, dibit_status status, const char *sentence) {
    set->result = status == DIBIT_UNSUPPORTED ? CHECK_SKIPPED : CHECK_FAILED;
    snprintf(set->reason, sizeof set->reason, "%s", sentence);
}

/* The CPU plans the model that the device has refused: the fault is the device's, or its kernels'. */
static bool cpu_can(check_case *c, const check_options *options, pass_kind kind) {
    dibit_session *session = NULL;
    dibit_error ignored;
    if (kind != PASS_DEVICE || options->cpu == options->device) return false;
    const dibit_session_desc desc = {.device = options->cpu,
                                     .activations = options->common.activations};
    const dibit_status status = dibit_session_create(c->model, &desc, &session, &ignored);
    dibit_session_destroy(&session);
    return status == DIBIT_OK;
}

/* One pass over all sets that are still in the race. False when there is no session. */
static bool run_pass(check_case *c, const check_options *options, pass_kind kind,
                     uint64_t noise_seed) {
    pass p = {.c = c, .options = options, .kind = kind};
    const dibit_session_desc desc = {.device = kind == PASS_DEVICE ? options->device : options->cpu,
                                     .activations = options->common.activations,
                                     .no_proof = options->no_proof,
                                     .noise_seed = noise_seed,
                                     .no_fusion = options->common.no_fusion};
    dibit_error error;
    const dibit_status created = dibit_session_create(c->model, &desc, &p.session, &error);
    if (created) {
        const bool skipped = created == DIBIT_UNSUPPORTED && !cpu_can(c, options, kind);
        c->result = skipped ? CHECK_SKIPPED : CHECK_FAILED;
        snprintf(c->reason, sizeof c->reason, "%s", error.text);
        return false;
    }
    const char *past, *present;
    for (uint32_t i = 0; options->chain; i++) {
        if (dibit_session_state_pair(p.session, i, &past, &present)) break;
        add_name(&p.pasts, past);
        add_name(&p.presents, present);
    }
    if (p.pasts.n && kind == PASS_DEVICE) find_parents(&p);
    p.states = dibit_cli_alloc(c->n_sets, sizeof *p.states);
    uint32_t *children_left = dibit_cli_alloc(c->n_sets, sizeof *children_left);
    for (uint32_t i = 0; i < c->n_sets; i++) children_left[i] = c->sets[i].n_children;
    for (uint32_t i = 0; i < c->n_sets; i++) {
        check_set *set = &c->sets[i];
        if (set->result != CHECK_PASSED) continue;
        dibit_status status = DIBIT_OK;
        if (set->uses_states) status = make_states(&p, i, children_left, &error);
        if (status == DIBIT_OK) status = run_set(&p, i, &error);
        if (status) {
            fail_set(set, status, error.text);
            destroy_states(&p, i);
        }
    }
    for (uint32_t i = 0; i < c->n_sets; i++) destroy_states(&p, i);
    dibit_session_destroy(&p.session);
    free(p.states);
    free(children_left);
    free(p.pasts.list);
    free(p.presents.list);
    return true;
}

/* Whether some answer is not the expected one to the bit: then bounds are needed. */
static bool needs_noise(const check_case *c, const check_options *options) {
    if (options->rtol >= 0 || options->atol >= 0) return false;
    for (uint32_t i = 0; i < c->n_sets; i++) {
        const check_set *set = &c->sets[i];
        for (uint32_t j = 0; j < set->n_expected; j++) {
            const dibit_tensor *got = &set->outputs[j].got;
            if (got->data && !dibit_tensor_equal(got, &set->expected[j])) return true;
        }
    }
    return false;
}

void check_case_run(check_case *c, const check_options *options) {
    if (c->result != CHECK_PASSED || !run_pass(c, options, PASS_DEVICE, 0)) return;
    if (needs_noise(c, options)) {
        if (options->cpu != options->device && !run_pass(c, options, PASS_CPU, 0)) return;
        for (uint32_t seed = 1; seed <= options->noise_runs; seed++) {
            if (!run_pass(c, options, PASS_NOISE, seed)) return;
        }
    }
    for (uint32_t i = 0; i < c->n_sets; i++) {
        check_set *set = &c->sets[i];
        if (set->result != CHECK_PASSED) continue;
        for (uint32_t j = 0; j < set->n_expected; j++) {
            check_output *const out = &set->outputs[j];
            if (!out->got.data) continue; /* in a state */
            dibit_tensor_compare(&set->expected[j], &out->got, options->rtol, options->atol,
                                 &out->compared);
            if (out->compared.problem[0]) set->result = CHECK_FAILED;
        }
    }
}

/* dibit_session: binds inputs, states and outputs to a plan and runs it. Public entry points. */
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "model.h"

enum { SLICE_NS = 2000000 }; /* how long a poll works before it answers PENDING */

/* ---- The plan ---- */

static const char *null_device_refuses(void *user, const dbt_node *node) {
    const dibit_device *const device = user;
    if (!device->null_refuse) return NULL;
    char key[128];
    snprintf(key, sizeof key, ",%s,", node->op_type);
    return strstr(device->null_refuse, key) ? "the null device was told to refuse it" : NULL;
}

/* What changes when a session is planned anew. */
typedef struct planned {
    dbt_arena *arena;
    dbt_plan *plan;
    dbt_exec exec;
} planned;

static void free_planned(const dibit_allocator *allocator, planned *p) {
    if (!p->arena) return;
    dbt_exec_free(&p->exec);
    dbt_arena_free(p->arena);
    dbt_release(allocator, p->arena, sizeof *p->arena);
}

static dibit_status fill_planned(const dibit_session *session, dbt_gpu *gpu, planned *p,
                                 dibit_error *error) {
    dbt_graph *graph;
    const dibit_session_desc *const desc = &session->desc;
    DBT_TRY(dbt_graph_build(session->model->onnx, p->arena, desc->input_ranks, &graph, error));
    DBT_FAIL_IF(graph->shapeless, error, DIBIT_UNSUPPORTED,
                "'%s': input '%s' has no shape, and no rank is given for it",
                session->model->source.name, graph->shapeless);
    const dbt_plan_options options = {
        .cpu = {.isa = session->device->isa, .activations = desc->activations},
        .pool = session->device->pool,
        .keep_values = desc->keep_values,
        .noise = desc->noise_seed != 0,
        .no_fusion = desc->no_fusion,
        .no_proof = desc->no_proof,
        .keep_bounds = desc->keep_bounds,
        .gpu = gpu,
        .device_refuses = gpu ? null_device_refuses : NULL,
        .device_user = session->device,
        .sample_output = desc->sample_output,
        .feed_input = desc->feed_input};
    DBT_TRY(dbt_plan_create(graph, p->arena, &options, &p->plan, error));
    DBT_TRY(dbt_exec_init(&p->exec, p->plan, &session->allocator, error));
    p->exec.noise = desc->noise_seed;
    p->exec.profile = desc->profile;
    return DIBIT_OK;
}

/* Plans for the GPU, or with NULL for the CPU; a plan that there was goes, with all that it holds. */
static dibit_status make_plan(dibit_session *session, dbt_gpu *gpu, dibit_error *error) {
    const dibit_allocator *const allocator = &session->allocator;
    planned fresh = {.arena = dbt_alloc(allocator, sizeof *fresh.arena, sizeof(uint64_t))};
    if (!fresh.arena) return dbt_fail_memory(error, "a session", sizeof *fresh.arena);
    dbt_arena_init(fresh.arena, allocator);
    const dibit_status status = fill_planned(session, gpu, &fresh, error);
    if (status != DIBIT_OK) {
        free_planned(allocator, &fresh);
        return status;
    }
    if (session->plan) {
        dbt_tokens_free(session);
        session->tokens = (dbt_tokens){0};
        dbt_states_lose(session);
    }
    planned old = {session->arena, session->plan, session->exec};
    session->arena = fresh.arena;
    session->plan = fresh.plan;
    session->exec = fresh.exec;
    free_planned(allocator, &old);
    return DIBIT_OK;
}

/* ---- Leaving a device ---- */

/* It is wanted, and the CPU may do what the GPU could not. */
static bool may_leave(const dibit_session *session, dibit_status status) {
    return session->desc.cpu_fallback &&
           (status == DIBIT_DEVICE_LOST || status == DIBIT_OUT_OF_MEMORY ||
            status == DIBIT_TOO_LARGE || status == DIBIT_UNSUPPORTED);
}

bool dibit_session_may_leave(const dibit_session *session, dibit_status status) {
    return session->plan->options.gpu && may_leave(session, status);
}

static dibit_status leave(dibit_session *session, const dibit_error *why, dibit_error *error) {
    char text[sizeof session->why]; /* why and error may be the same */
    snprintf(text, sizeof text, "the CPU took over: %s", why->text);
    DBT_TRY(make_plan(session, NULL, error));
    memcpy(session->why, text, sizeof text);
    session->ready = false;
    return DIBIT_OK;
}

dibit_status dibit_session_leave_device(dibit_session *session, const dibit_error *why,
                                        dibit_error *error) {
    DBT_FAIL_IF(!session || !why, error, DIBIT_BAD_ARGUMENT, "session and why must not be NULL");
    DBT_FAIL_IF(!session->plan->options.gpu, error, DIBIT_BAD_STATE,
                "the session runs on the CPU already");
    dibit_run_cancel(session);
    return leave(session, why, error);
}

const char *dibit_session_why(const dibit_session *session) { return session->why; }

/* ---- Create ---- */

/* For the device, or where that fails and may be left, for the CPU. */
static dibit_status plan_somewhere(dibit_session *session, dibit_error *error) {
    dibit_error why = {DIBIT_OK, ""};
    const dibit_status status = make_plan(session, session->device->gpu, &why);
    if (status == DIBIT_OK) return DIBIT_OK;
    if (session->device->gpu && may_leave(session, status)) return leave(session, &why, error);
    return dbt_fail(error, status, "%s", why.text);
}

dibit_status dibit_session_begin(dibit_model *model, const dibit_session_desc *desc,
                                 dibit_session **out, dibit_error *error) {
    static const dibit_session_desc defaults = {0};
    DBT_FAIL_IF(!model || !out, error, DIBIT_BAD_ARGUMENT, "model and out must not be NULL");
    DBT_FAIL_IF(!model->ready, error, DIBIT_BAD_STATE, "the model is not loaded yet");
    if (!desc) desc = &defaults;
    DBT_FAIL_IF((unsigned)desc->activations > DIBIT_ACTIVATIONS_INT8, error, DIBIT_BAD_ARGUMENT,
                "activations %d does not exist", (int)desc->activations);
    const dibit_allocator *const allocator = &model->arena.allocator;
    dibit_session *session = dbt_alloc(allocator, sizeof *session, 16);
    if (!session) return dbt_fail_memory(error, "a session", sizeof *session);
    *session = (dibit_session){
        .allocator = *allocator, .model = model, .desc = *desc, .device = desc->device};
    dibit_status status = DIBIT_OK;
    if (!session->device) {
        const dibit_device_desc cpu = {.allocator = allocator};
        status = dibit_device_create(&cpu, &session->own_device, error);
        session->device = session->own_device;
    }
    if (status == DIBIT_OK) status = plan_somewhere(session, error);
    if (status != DIBIT_OK) {
        dibit_session_destroy(&session);
        return status;
    }
    *out = session;
    return DIBIT_OK;
}

/* Kernels may have turned out to be wrong on this device with what is fused into them: then the plan is made again
 * without. Else the CPU may take over. */
static dibit_status plan_again(dibit_session *session, const dibit_error *why, dibit_error *error) {
    dbt_gpu *const gpu = session->plan->options.gpu;
    if (gpu && session->plan->fused && dbt_gpu_fusion_is_dropped(gpu))
        return make_plan(session, gpu, error);
    if (dibit_session_may_leave(session, why->status)) return leave(session, why, error);
    return dbt_fail(error, why->status, "%s", why->text);
}

dibit_status dibit_session_poll(dibit_session *session, dibit_error *error) {
    DBT_FAIL_IF(!session, error, DIBIT_BAD_ARGUMENT, "session must not be NULL");
    if (session->ready) return DIBIT_OK;
    const uint64_t end = dbt_os_nanoseconds() + SLICE_NS;
    while (!session->ready) {
        bool waiting;
        dibit_error why = {DIBIT_OK, ""};
        const dibit_status status = dbt_plan_prepare(session->plan, &waiting, &why);
        if (status != DIBIT_OK && status != DIBIT_PENDING) {
            why.status = status;
            DBT_TRY(plan_again(session, &why, error));
            return DIBIT_PENDING;
        }
        session->ready = status == DIBIT_OK;
        if (waiting || (!session->ready && dbt_os_nanoseconds() >= end)) return DIBIT_PENDING;
    }
    return DIBIT_OK;
}

dibit_status dibit_session_create(dibit_model *model, const dibit_session_desc *desc,
                                  dibit_session **out, dibit_error *error) {
    dibit_session *session = NULL;
    DBT_TRY(dibit_session_begin(model, desc, &session, error));
    dibit_status status;
    do status = dibit_session_poll(session, error);
    while (status == DIBIT_PENDING);
    if (status != DIBIT_OK) {
        dibit_session_destroy(&session);
        return status;
    }
    *out = session;
    return DIBIT_OK;
}

void dibit_session_destroy(dibit_session **session) {
    dibit_session *const s = session ? *session : NULL;
    if (!s) return;
    dbt_tokens_free(s);
    planned last = {s->arena, s->plan, s->exec};
    free_planned(&s->allocator, &last);
    dibit_device_destroy(&s->own_device);
    const dibit_allocator allocator = s->allocator;
    dbt_release(&allocator, s, sizeof *s);
    *session = NULL;
}

/* ---- Run ---- */

static int32_t find_input(const dbt_graph *graph, const char *name, uint32_t guess) {
    if (guess < graph->n_inputs && strcmp(graph->inputs[guess]->name, name) == 0) {
        return (int32_t)guess;
    }
    for (uint32_t i = 0; i < graph->n_inputs; i++) {
        if (strcmp(graph->inputs[i]->name, name) == 0) return (int32_t)i;
    }
    return -1;
}

static int32_t find_output(const dbt_graph *graph, const char *name) {
    for (uint32_t i = 0; i < graph->n_outputs; i++) {
        if (strcmp(graph->output_names[i], name) == 0) return (int32_t)i;
    }
    return -1;
}

/* It is no input of this run: it comes from the states, or is what the run before has chosen. */
static bool is_bound_by_session(const dbt_plan *plan, const dibit_run *run, int32_t tensor) {
    return (run->n_states && plan->tensors[tensor].in_state) || (run->feed && tensor == plan->fed);
}

static dibit_status bind_inputs(dibit_session *session, const dibit_run *run, dibit_error *error) {
    const dbt_plan *const plan = session->plan;
    const dbt_graph *const graph = plan->graph;
    for (uint32_t i = 0; i < graph->n_inputs; i++) plan->tensors[plan->inputs[i]].bound = false;
    for (uint32_t i = 0; i < run->n_inputs; i++) {
        const dibit_tensor *const given = &run->inputs[i];
        DBT_FAIL_IF(!given->name, error, DIBIT_BAD_ARGUMENT, "input %u has no name", (unsigned)i);
        const int32_t index = find_input(graph, given->name, i);
        DBT_FAIL_IF(index < 0, error, DIBIT_BAD_INPUT, "the model has no input '%s'", given->name);
        const int32_t tensor = plan->inputs[index];
        DBT_FAIL_IF(is_bound_by_session(plan, run, tensor), error, DIBIT_BAD_INPUT,
                    "input '%s' comes from %s, it cannot be given too", given->name,
                    tensor == plan->fed ? "the run before" : "the states");
        DBT_FAIL_IF(plan->tensors[tensor].bound, error, DIBIT_BAD_INPUT,
                    "input '%s' is given twice", given->name);
        DBT_TRY(dbt_exec_bind(&session->exec, tensor, given, error));
        plan->tensors[tensor].bound = true;
    }
    for (uint32_t i = 0; i < graph->n_inputs; i++) {
        const int32_t tensor = plan->inputs[i];
        DBT_FAIL_IF(!plan->tensors[tensor].bound && !is_bound_by_session(plan, run, tensor), error,
                    DIBIT_BAD_INPUT, "input '%s' is missing", graph->inputs[i]->name);
    }
    return DIBIT_OK;
}

static dibit_status check_outputs(const dibit_session *session, const dibit_run *run,
                                  dibit_error *error) {
    const dbt_plan *const plan = session->plan;
    for (uint32_t i = 0; i < run->n_outputs; i++) {
        const char *const name = run->outputs[i].name;
        DBT_FAIL_IF(!name, error, DIBIT_BAD_ARGUMENT, "output %u has no name", (unsigned)i);
        const int32_t index = find_output(plan->graph, name);
        DBT_FAIL_IF(index < 0, error, DIBIT_BAD_ARGUMENT, "the model has no output '%s'", name);
        DBT_FAIL_IF(run->n_states && plan->tensors[plan->outputs[index]].in_state, error,
                    DIBIT_BAD_ARGUMENT, "output '%s' stays in the states, it cannot be asked for",
                    name);
    }
    return DIBIT_OK;
}

/* What of the plan's steps serves this run. */
static uint64_t wanted_of(const dibit_session *session, const dibit_run *run) {
    uint64_t wanted = session->desc.keep_values ? UINT64_MAX : 0;
    if (run->n_states) wanted |= DBT_SERVES_STATES;
    for (uint32_t i = 0; i < run->n_outputs; i++) {
        wanted |=
            dbt_plan_output_bit((uint32_t)find_output(session->plan->graph, run->outputs[i].name));
    }
    return run->sample ? wanted | DBT_SERVES_TOKEN : wanted;
}

dibit_status dibit_run_begin(dibit_session *session, const dibit_run *run, dibit_error *error) {
    DBT_FAIL_IF(!session || !run, error, DIBIT_BAD_ARGUMENT, "session and run must not be NULL");
    DBT_FAIL_IF(!session->ready, error, DIBIT_BAD_STATE, "the session is not ready yet");
    DBT_FAIL_IF(session->running, error, DIBIT_BAD_STATE, "a run is under way already");
    DBT_TRY(check_outputs(session, run, error));
    DBT_TRY(dbt_tokens_check(session, run, error));
    dbt_exec_reset(&session->exec);
    session->exec.wanted = wanted_of(session, run);
    DBT_TRY(bind_inputs(session, run, error));
    DBT_TRY(dbt_tokens_feed(session, run, error));
    if (run->n_states) DBT_TRY(dbt_states_bind(session, run, error));
    DBT_TRY(dbt_exec_start(&session->exec, run->last_rows, error));
    if (run->n_states) DBT_TRY(dbt_states_begin(session, run, error));
    DBT_TRY(dbt_tokens_bind(session, run, error));
    session->run = run;
    session->running = true;
    return DIBIT_OK;
}

static const dbt_plan_tensor *output_of(const dibit_session *session, uint32_t i) {
    const dbt_plan *const plan = session->plan;
    return &plan->tensors[plan->outputs[find_output(plan->graph, session->run->outputs[i].name)]];
}

static dibit_status give_outputs(dibit_session *session, dibit_error *error) {
    const dibit_run *const run = session->run;
    for (uint32_t i = 0; i < run->n_outputs; i++) {
        const dibit_tensor *const t = &output_of(session, i)->t, *const out = &run->outputs[i];
        DBT_FAIL_IF(output_of(session, i)->bytes == UINT64_MAX, error, DIBIT_OUT_OF_RANGE,
                    "output '%s' cannot be computed (overflow, or a division by zero)", out->name);
        DBT_FAIL_IF(out->data && out->bytes < t->bytes, error, DIBIT_TOO_LARGE,
                    "output '%s' needs %llu bytes, got %llu", out->name,
                    (unsigned long long)t->bytes, (unsigned long long)out->bytes);
    }
    for (uint32_t i = 0; i < run->n_outputs; i++) {
        const dibit_tensor *const t = &output_of(session, i)->t;
        dibit_tensor *const out = &run->outputs[i];
        const char *const name = out->name;
        void *const data = out->data;
        if (data && t->bytes) memcpy(data, t->data, (size_t)t->bytes);
        *out = *t;
        out->name = name;
        if (data) out->data = data;
    }
    return DIBIT_OK;
}

dibit_status dibit_run_poll(dibit_session *session, dibit_error *error) {
    DBT_FAIL_IF(!session, error, DIBIT_BAD_ARGUMENT, "session must not be NULL");
    DBT_FAIL_IF(!session->running, error, DIBIT_BAD_STATE, "no run is under way");
    const uint64_t end = dbt_os_nanoseconds() + SLICE_NS;
    dibit_status status = DIBIT_OK;
    const dbt_plan *const plan = session->plan;
    while (session->exec.next_step < plan->n_steps) {
        /* Recording a step takes a microsecond at most, a good part of it would be the clock. */
        const bool recorded = plan->steps[session->exec.next_step].on_device;
        bool waiting;
        status = dbt_exec_step(&session->exec, &waiting, error);
        if (status != DIBIT_PENDING) break;
        const bool look = !recorded || session->exec.next_step % 16 == 0;
        if (waiting || (look && dbt_os_nanoseconds() >= end)) return DIBIT_PENDING;
    }
    session->running = false;
    DBT_TRY(status);
    DBT_TRY(give_outputs(session, error));
    DBT_TRY(dbt_tokens_read(session, error));
    if (session->run->n_states) dbt_states_commit(session, session->run);
    return DIBIT_OK;
}

void dibit_run_cancel(dibit_session *session) {
    if (!session) return;
    session->running = false;
    dbt_tokens_forget(session);
}

dibit_status dibit_session_run(dibit_session *session, const dibit_run *run, dibit_error *error) {
    DBT_TRY(dibit_run_begin(session, run, error));
    dibit_status status;
    do status = dibit_run_poll(session, error);
    while (status == DIBIT_PENDING);
    return status;
}

/* ---- What there is to know ---- */

dibit_status dibit_session_value(const dibit_session *session, const char *name, dibit_tensor *out,
                                 dibit_error *error) {
    DBT_FAIL_IF(!session->desc.keep_values, error, DIBIT_BAD_STATE,
                "the session was not asked to keep its values");
    const dbt_graph *const graph = session->plan->graph;
    for (uint32_t i = 0; i < graph->n_values; i++) {
        if (strcmp(graph->values[i]->name, name) != 0) continue;
        const int32_t *const have = session->plan->by_value[i];
        const int32_t tensor = have[0] >= 0 ? have[0] : have[1];
        if (tensor < 0) continue;
        const dbt_plan_tensor *const t = &session->plan->tensors[tensor];
        const bool empty = t->place == DBT_PLACE_CONSTANT || (session->exec.refreshed && !t->bytes);
        if (!t->t.data && !empty) continue; /* before a run, or in the branch not taken */
        *out = session->plan->tensors[tensor].t;
        return DIBIT_OK;
    }
    return dbt_fail(error, DIBIT_NOT_FOUND, "the session has no value '%s'", name);
}

dibit_status dibit_session_bound(const dibit_session *session, const char *name, dibit_tensor *out,
                                 dibit_error *error) {
    DBT_FAIL_IF(!session->desc.keep_bounds, error, DIBIT_BAD_STATE,
                "the session was not asked to keep bounds");
    const dbt_plan *const plan = session->plan;
    for (int32_t i = 0; i < plan->n_tensors; i++) {
        const dbt_plan_tensor *const t = &plan->tensors[i];
        if (!t->bounds.data || !t->t.data || strcmp(t->value->name, name) != 0) continue;
        *out = t->t;
        out->type = DIBIT_TYPE_FLOAT;
        out->data = t->bounds.data;
        out->bytes = (uint64_t)dbt_tensor_count(out) * sizeof(float);
        return DIBIT_OK;
    }
    return dbt_fail(error, DIBIT_NOT_FOUND, "the session has no bounds of '%s'", name);
}

void dibit_session_get_info(const dibit_session *session, dibit_session_info *out) {
    const dbt_plan *const plan = session->plan;
    const bool left = session->why[0] != 0;
    *out = (dibit_session_info){.device = left ? session->device->cpu_name : session->device->name,
                                .weight_bytes = plan->weight_bytes,
                                .packed_bytes = plan->packed_bytes,
                                .plan_bytes =
                                    session->arena->bytes - plan->held_bytes - plan->packed_bytes,
                                .workspace_bytes = session->exec.workspace_bytes,
                                .n_steps = (uint32_t)plan->n_steps,
                                .int8_activations = plan->int8_activations,
                                .has_states = plan->n_states > 0,
                                .samples = plan->token >= 0,
                                .runs_ahead = plan->fed >= 0};
    for (int32_t i = 0; i < plan->n_steps; i++) {
        const dbt_step_kind kind = plan->steps[i].kind;
        if (!plan->steps[i].on_device) out->n_cpu_steps++;
        if (kind == DBT_STEP_UPLOAD || kind == DBT_STEP_DOWNLOAD) out->n_copies++;
    }
}

dibit_status dibit_session_step(const dibit_session *session, uint32_t index,
                                dibit_step_info *out) {
    const dbt_plan *const plan = session->plan;
    if (index >= (uint32_t)plan->n_steps) return DIBIT_BAD_ARGUMENT;
    const dbt_step *const step = &plan->steps[index];
    const bool is_null = session->device->desc.kind == DIBIT_DEVICE_NULL;
    *out = (dibit_step_info){.name = step->name,
                             .op = step->op,
                             .device = !step->on_device ? "cpu"
                                       : is_null        ? "null"
                                                        : "webgpu",
                             .kernel = step->kernel,
                             .why = step->why,
                             .runs = step->runs,
                             .dispatches = step->dispatches,
                             .seconds = (double)step->nanoseconds * 1e-9,
                             .device_seconds = (double)step->device_ns * 1e-9,
                             .bytes = step->work.bytes,
                             .int8_products = step->work.int8_products,
                             .float_products = step->work.float_products};
    return DIBIT_OK;
}

void dibit_session_profile_reset(dibit_session *session) {
    if (session->device->gpu) dbt_gpu_time_forget(session->device->gpu);
    for (int32_t i = 0; i < session->plan->n_steps; i++) {
        dbt_step *const step = &session->plan->steps[i];
        step->runs = step->nanoseconds = step->dispatches = step->device_ns = 0;
        step->work = (dbt_work){0};
    }
}

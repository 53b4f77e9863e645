/* Makes the plan: which nodes run, where, on which tensors; then their kernels. */
#include "plan/plan.h"

#include <string.h>

enum { NATIVE = 1, ON_DEVICE = 2 };

typedef struct planner {
    dbt_plan *plan;
    dibit_error *error;
    bool *needed; /* [n_nodes] */
} planner;

/* ---- Which nodes run ---- */

/* A value that no step makes: known at load time, or computed from dims. */
static bool is_free(const dbt_value *value) { return value->constant || value->contents; }

static void find_needed(const planner *p) {
    const dbt_graph *const g = p->plan->graph;
    for (uint32_t o = 0; o < g->n_outputs; o++) {
        const dbt_value *const value = g->outputs[o];
        if (!is_free(value) && value->producer) p->needed[value->producer->id] = true;
    }
    for (uint32_t n = g->n_nodes; n-- > 0;) {
        const dbt_node *const node = g->nodes[n];
        if (p->plan->options.keep_values && !dbt_node_is_removed(node)) p->needed[n] = true;
        if (!p->needed[n]) continue;
        for (uint32_t i = 0; i <= node->n_inputs; i++) {
            const dbt_value *const value = i < node->n_inputs ? node->inputs[i] : node->guard;
            if (value && !is_free(value) && value->producer) p->needed[value->producer->id] = true;
        }
    }
}

/* ---- Tensors ---- */

static dibit_status new_tensor(planner *p, const dbt_value *value, int which, dbt_place place,
                               int32_t *out) {
    dbt_plan *const plan = p->plan;
    if (plan->n_tensors == plan->tensors_capacity) {
        const int32_t more = plan->tensors_capacity ? plan->tensors_capacity * 2 : 256;
        dbt_plan_tensor *const grown = dbt_arena_array(plan->arena, (uint64_t)more, sizeof *grown);
        if (!grown) return dbt_fail_memory(p->error, "a plan", (uint64_t)more * sizeof *grown);
        if (plan->n_tensors) {
            memcpy(grown, plan->tensors, (size_t)plan->n_tensors * sizeof *grown);
        }
        plan->tensors = grown;
        plan->tensors_capacity = more;
    }
    dbt_plan_tensor *const t = &plan->tensors[plan->n_tensors];
    *t = (dbt_plan_tensor){.value = value,
                           .native = which & NATIVE,
                           .on_device = which & ON_DEVICE,
                           .place = place,
                           .slot = -1,
                           .root = plan->n_tensors};
    t->t.name = value->name;
    t->t.type = t->native      ? value->type
                : t->on_device ? dbt_device_type(value->type)
                               : dbt_storage_type(value->type);
    t->t.rank = value->shape.rank;
    plan->by_value[value->id][which] = plan->n_tensors;
    *out = plan->n_tensors++;
    return DIBIT_OK;
}

static dibit_status new_step(planner *p, dbt_step_kind kind, const dbt_node *node, uint32_t n_in,
                             uint32_t n_out, dbt_step **out) {
    dbt_plan *const plan = p->plan;
    if (plan->n_steps == plan->steps_capacity) {
        const int32_t more = plan->steps_capacity ? plan->steps_capacity * 2 : 256;
        dbt_step *const grown = dbt_arena_array(plan->arena, (uint64_t)more, sizeof *grown);
        if (!grown) return dbt_fail_memory(p->error, "a plan", (uint64_t)more * sizeof *grown);
        if (plan->n_steps) memcpy(grown, plan->steps, (size_t)plan->n_steps * sizeof *grown);
        plan->steps = grown;
        plan->steps_capacity = more;
    }
    dbt_step *const step = &plan->steps[plan->n_steps];
    *step = (dbt_step){.kind = kind,
                       .node = node,
                       .n_inputs = n_in,
                       .n_outputs = n_out,
                       .guard = -1,
                       .states = -1,
                       .kernel = "",
                       .why = ""};
    step->inputs = dbt_arena_array(plan->arena, n_in, sizeof *step->inputs);
    step->outputs = dbt_arena_array(plan->arena, n_out, sizeof *step->outputs);
    if (!step->inputs || !step->outputs) return dbt_fail_memory(p->error, "a plan", 1);
    for (uint32_t i = 0; i < n_in; i++) step->inputs[i] = -1;
    for (uint32_t i = 0; i < n_out; i++) step->outputs[i] = -1;
    *out = step;
    plan->n_steps++;
    return DIBIT_OK;
}

static dibit_status need(planner *p, const dbt_value *value, int which, int32_t *out);

/* A step that makes one tensor of a value from another. */
static dibit_status convert(planner *p, dbt_step_kind kind, int32_t from, int which, int32_t *out) {
    static const char *const ops[] = {[DBT_STEP_OP] = "",
                                      [DBT_STEP_UNPACK] = "dibit.Unpack",
                                      [DBT_STEP_PACK] = "dibit.Pack",
                                      [DBT_STEP_UPLOAD] = "dibit.Upload",
                                      [DBT_STEP_DOWNLOAD] = "dibit.Download"};
    const dbt_value *const value = p->plan->tensors[from].value;
    const dbt_node *const producer = value->producer;
    int32_t guard = -1; /* what an untaken branch has not made is not there to be converted */
    if (producer && producer->guard) DBT_TRY(need(p, producer->guard, 0, &guard));
    DBT_TRY(new_tensor(p, value, which, DBT_PLACE_SLOT, out));
    dbt_step *step = NULL;
    DBT_TRY(new_step(p, kind, NULL, 1, 1, &step));
    step->guard = guard;
    step->guard_value = producer && producer->guard_value;
    step->name = value->name;
    step->op = ops[kind];
    step->inputs[0] = from;
    step->outputs[0] = *out;
    return DIBIT_OK;
}

/* The tensor of a value in the wanted form, made from what there is. */
static dibit_status need(planner *p, const dbt_value *value, int which, int32_t *out) {
    dbt_plan *const plan = p->plan;
    int32_t *const have = plan->by_value[value->id];
    const dibit_type stored =
        which & ON_DEVICE ? dbt_device_type(value->type) : dbt_storage_type(value->type);
    if (stored == value->type && (stored == DIBIT_TYPE_FLOAT || !(which & ON_DEVICE))) {
        /* Native and storage are the same: whichever exists serves. */
        if (have[which] < 0) have[which] = have[which ^ NATIVE];
    }
    *out = have[which];
    if (*out >= 0) return DIBIT_OK;
    if (which & ON_DEVICE) {
        if (value->constant) return new_tensor(p, value, which, DBT_PLACE_CONSTANT, out);
        int32_t host;
        DBT_TRY(need(p, value, which & ~ON_DEVICE, &host));
        return convert(p, DBT_STEP_UPLOAD, host, which, out);
    }
    if (value->constant) return new_tensor(p, value, which, DBT_PLACE_CONSTANT, out);
    if (value->contents) return new_tensor(p, value, which, DBT_PLACE_HOST, out);
    if (have[which | ON_DEVICE] >= 0) {
        return convert(p, DBT_STEP_DOWNLOAD, have[which | ON_DEVICE], which, out);
    }
    if (have[which ^ NATIVE] >= 0) {
        const dbt_step_kind kind = which & NATIVE ? DBT_STEP_PACK : DBT_STEP_UNPACK;
        return convert(p, kind, have[which ^ NATIVE], which, out);
    }
    const int other = (which ^ NATIVE) | ON_DEVICE;
    if (have[other] >= 0) {
        int32_t host;
        DBT_TRY(convert(p, DBT_STEP_DOWNLOAD, have[other], which ^ NATIVE, &host));
        return need(p, value, which, out);
    }
    return dbt_fail(p->error, DIBIT_BAD_FILE, "value '%s' is never computed", value->name);
}

/* ---- Steps ---- */

static dbt_state_kind kind_of(const dbt_node *node) {
    if (node->op->n_states == 0) return DBT_STATE_NONE;
    return node->op->state_kind ? node->op->state_kind(node) : DBT_STATE_APPEND;
}

bool dbt_node_has_rows(const dbt_node *node) {
    const dbt_state_kind kind = kind_of(node);
    return kind == DBT_STATE_APPEND || kind == DBT_STATE_WINDOW;
}

/* Rows are kept in the type that the model declares. */
static bool is_past(const dbt_node *node, uint32_t input) {
    for (uint32_t s = 0; s < node->op->n_states; s++) {
        if (node->op->states[s].past == input) return dbt_node_has_rows(node);
    }
    return false;
}

static bool is_present(const dbt_node *node, uint32_t output) {
    for (uint32_t s = 0; s < node->op->n_states; s++) {
        if (node->op->states[s].present == output) return dbt_node_has_rows(node);
    }
    return false;
}

static bool has_fresh_dims(const planner *p, const dbt_node *node) {
    for (uint32_t o = 0; o < node->n_outputs; o++) {
        const dbt_value *const v = node->outputs[o];
        if (!v) continue;
        if (v->shape.rank < 0) return true;
        for (int32_t i = 0; i < v->shape.rank; i++) {
            if (dbt_dim_is_fresh(p->plan->graph->dims, v->shape.dims[i])) return true;
        }
    }
    return false;
}

/* Integers that the host knows: positions, lengths, masks computed from the graph's integer inputs. */
static bool is_host_work(const planner *p, const dbt_node *node) {
    for (uint32_t o = 0; o < node->n_outputs; o++) {
        if (node->outputs[o] && dbt_type_is_float(node->outputs[o]->type)) return false;
    }
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const dbt_value *const value = node->inputs[i];
        if (!value || is_free(value)) continue;
        const int32_t *const have = p->plan->by_value[value->id];
        if (dbt_type_is_float(value->type) || (have[0] < 0 && have[NATIVE] < 0)) return false;
    }
    return true;
}

/* NULL when the session's device runs the node; else why the CPU does. */
static const char *refuses_device(const planner *p, const dbt_node *node) {
    const dbt_plan_options *const o = &p->plan->options;
    if (!o->gpu) return "";
    if (is_host_work(p, node)) return "its integers are known on the host";
    if (!node->op->gpu_encode) return "it has no GPU kernel";
    if (node->guard) return "it is in a branch of If";
    /* How long a present gets, the host can tell: its lengths are host inputs. */
    if (has_fresh_dims(p, node) && !dbt_node_has_rows(node)) {
        return "the size of its output depends on data";
    }
    const char *const why =
        node->op->gpu_refuses ? node->op->gpu_refuses(node, dbt_gpu_hal(o->gpu)) : NULL;
    return why || !o->device_refuses ? why : o->device_refuses(o->device_user, node);
}

static dibit_status plan_node(planner *p, const dbt_node *node) {
    dbt_plan *const plan = p->plan;
    const char *const why = refuses_device(p, node);
    const int where = why ? 0 : ON_DEVICE;
    int32_t inputs[DBT_VARIADIC + 1];
    int32_t guard = -1;
    DBT_FAIL_IF(node->n_inputs > DBT_VARIADIC, p->error, DIBIT_UNSUPPORTED,
                "node '%s' (%s): it has %u inputs, more than %d", node->name, node->op_type,
                (unsigned)node->n_inputs, DBT_VARIADIC);
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const dbt_value *const value = node->inputs[i];
        inputs[i] = -1;
        if (!value) continue;
        const bool raw = i < 32 && node->op->raw_inputs >> i & 1 && value->constant;
        const bool host = i < 32 && node->op->host_inputs >> i & 1;
        const int which = (raw || is_past(node, i) ? NATIVE : 0) | (host ? 0 : where);
        DBT_TRY(need(p, value, which, &inputs[i]));
    }
    if (node->guard) DBT_TRY(need(p, node->guard, 0, &guard));
    dbt_step *step = NULL;
    DBT_TRY(new_step(p, DBT_STEP_OP, node, node->n_inputs, node->n_outputs, &step));
    if (node->n_inputs) memcpy(step->inputs, inputs, node->n_inputs * sizeof *inputs);
    step->guard = guard;
    step->guard_value = node->guard_value;
    step->on_device = where != 0;
    step->dynamic = has_fresh_dims(p, node);
    step->why = why ? why : "";
    step->name = node->name;
    step->op = node->domain[0] ? dbt_arena_format(plan->arena, "%s.%s", node->domain, node->op_type)
                               : node->op_type;
    if (!step->op) return dbt_fail_memory(p->error, "a plan", 1);
    for (uint32_t o = 0; o < node->n_outputs; o++) {
        const dbt_value *const value = node->outputs[o];
        if (!value) continue;
        const int which = (is_present(node, o) ? NATIVE : 0) | where;
        DBT_TRY(new_tensor(p, value, which, DBT_PLACE_SLOT, &step->outputs[o]));
    }
    const bool view = node->op->flags & DBT_OP_VIEW && step->inputs[0] >= 0 && !node->guard &&
                      plan->tensors[step->inputs[0]].on_device == step->on_device &&
                      !plan->options.noise && !plan->options.keep_bounds;
    if (view && step->outputs[0] >= 0) {
        dbt_plan_tensor *const y = &plan->tensors[step->outputs[0]];
        step->view = true;
        y->place = DBT_PLACE_VIEW;
        y->root = plan->tensors[step->inputs[0]].root;
    }
    return DIBIT_OK;
}

/* ---- States ---- */

static int64_t constant_or(const dbt_plan *plan, dbt_dim d, int64_t otherwise) {
    int64_t v;
    return dbt_dim_is_const(plan->graph->dims, d, &v) ? v : otherwise;
}

/* The window of an op whose cache evicts, as its attribute says. */
static int64_t window_of(const dbt_node *node) {
    for (uint32_t i = 0; i < node->n_onnx_attrs; i++) {
        if (strcmp(node->onnx_attrs[i].name, "local_window_size") == 0)
            return node->onnx_attrs[i].i;
    }
    return 0;
}

static void add_state(dbt_plan *plan, const dbt_plan_state *state) {
    plan->tensors[state->past].in_state = true;
    plan->tensors[state->present].in_state = true;
    plan->tensors[state->past].in_device_state = state->on_device;
    plan->tensors[state->present].in_device_state = state->on_device;
    plan->states[plan->n_states++] = *state;
}

/* Past tensors are inputs of the graph and present tensors outputs, of one shape but for the axis. */
static bool can_be_state(const dbt_plan *plan, const dbt_value *past, const dbt_value *present) {
    return past && present && past->is_input && present->is_output && past->type == present->type &&
           past->shape.rank == present->shape.rank &&
           !plan->tensors[plan->by_value[past->id][NATIVE]].in_state &&
           !plan->tensors[plan->by_value[present->id][NATIVE]].in_state;
}

/* Nothing but the step itself reads the past, and nobody reads the present: the tensors of the graph's
 * edge (native, CPU) and those that they are copied to and from. */
static bool is_alone(const dbt_plan *plan, const dbt_step *step, uint32_t in, uint32_t out,
                     const uint32_t *n_uses) {
    if (n_uses[step->inputs[in]] != 1) return false;
    if (!step->on_device) return n_uses[step->outputs[out]] == 0;
    return n_uses[step->outputs[out]] == 1 &&
           n_uses[plan->by_value[step->node->inputs[in]->id][NATIVE]] == 1 &&
           n_uses[plan->by_value[step->node->outputs[out]->id][NATIVE]] == 0;
}

/* Pairs that a node's op declares. Rows have no tensor that another node could read. */
static void find_node_states(dbt_plan *plan, int32_t s, const uint32_t *n_uses) {
    dbt_step *const step = &plan->steps[s];
    const dbt_node *const node = step->node;
    const dbt_state_kind kind = kind_of(node);
    if (kind == DBT_STATE_NONE) return;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t k = 0; k < node->op->n_states; k++) {
            const uint32_t in = node->op->states[k].past, out = node->op->states[k].present;
            if (pass == 0) { /* all of them, or none */
                if (in >= node->n_inputs || out >= node->n_outputs ||
                    !can_be_state(plan, node->inputs[in], node->outputs[out])) {
                    return;
                }
                if (kind != DBT_STATE_REPLACE && !is_alone(plan, step, in, out, n_uses)) return;
                continue;
            }
            if (k == 0 && dbt_node_has_rows(node)) step->states = plan->n_states;
            add_state(plan,
                      &(dbt_plan_state){.kind = kind,
                                        .on_device = step->on_device && dbt_node_has_rows(node),
                                        .past = plan->by_value[node->inputs[in]->id][NATIVE],
                                        .present = plan->by_value[node->outputs[out]->id][NATIVE],
                                        .axis = kind == DBT_STATE_REPLACE ? -1 : 2,
                                        .window = window_of(node)});
        }
    }
}

/* "past_key_values.3.key" -> "present.3.key": how exporters without fused attention call the pair. */
static bool is_present_name(const char *past, const char *present) {
    static const char *const prefixes[][2] = {{"past_key_values", "present"},
                                              {"past_key_values", "present_key_values"},
                                              {"past", "present"}};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        const size_t n = strlen(prefixes[i][0]), m = strlen(prefixes[i][1]);
        if (strncmp(past, prefixes[i][0], n) == 0 && strncmp(present, prefixes[i][1], m) == 0 &&
            strcmp(past + n, present + m) == 0) {
            return true;
        }
    }
    return false;
}

/* Pairs by name: the graph itself makes present from past (by Concat), the state takes it over. */
static void find_named_states(dbt_plan *plan) {
    const dbt_graph *const g = plan->graph;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const dbt_value *const past = g->inputs[i];
        for (uint32_t o = 0; o < g->n_outputs; o++) {
            if (!is_present_name(past->name, g->output_names[o])) continue;
            if (!can_be_state(plan, past, g->outputs[o])) continue;
            dbt_plan_state state = {.kind = DBT_STATE_REPLACE,
                                    .past = plan->inputs[i],
                                    .present = plan->outputs[o],
                                    .axis = -1};
            for (int32_t d = 1; d < past->shape.rank; d++) {
                if (constant_or(plan, past->shape.dims[d], -1) < 0) state.axis = d;
            }
            add_state(plan, &state);
            break;
        }
    }
}

static dibit_status find_states(planner *p) {
    dbt_plan *const plan = p->plan;
    uint32_t *const n_uses =
        dbt_arena_array(plan->arena, (uint64_t)plan->n_tensors, sizeof *n_uses);
    if (!n_uses) return dbt_fail_memory(p->error, "a plan", (uint64_t)plan->n_tensors * 4);
    for (int32_t s = 0; s < plan->n_steps; s++) {
        const dbt_step *const step = &plan->steps[s];
        /* With keep_values there are steps whose results are known, such as Shape: they read none. */
        const bool reads = step->n_outputs != 1 || step->outputs[0] < 0 ||
                           !is_free(plan->tensors[step->outputs[0]].value);
        for (uint32_t i = 0; reads && i < step->n_inputs; i++) {
            if (step->inputs[i] >= 0) n_uses[step->inputs[i]]++;
        }
    }
    for (int32_t s = 0; s < plan->n_steps; s++) {
        if (plan->steps[s].kind == DBT_STEP_OP) find_node_states(plan, s, n_uses);
    }
    find_named_states(plan);
    return DIBIT_OK;
}

/* How many tokens a run appends: the rows of the outputs, or else the sequence axis of the first
 * input that is no past. */
static dbt_dim find_sequence(const dbt_plan *plan) {
    if (plan->n_states == 0) return DBT_DIM_NONE;
    for (uint32_t i = 0; i < plan->graph->n_inputs; i++) {
        const dbt_shape *const shape = &plan->graph->inputs[i]->shape;
        if (shape->rank >= 2 && !plan->tensors[plan->inputs[i]].in_state) {
            return plan->all_rows != DBT_DIM_NONE ? plan->all_rows : shape->dims[1];
        }
    }
    return plan->all_rows;
}

/* ---- All of it ---- */

static bool device_takes(void *user, const dbt_node *node) {
    return refuses_device(user, node) == NULL;
}

/* Nodes stay as they are for those who want to see each of them. */
static bool may_join(const dbt_plan_options *o) {
    return !o->no_fusion && !o->noise && (!o->keep_values || o->gpu);
}

static dibit_status fuse(planner *p) {
    const dbt_plan_options *const o = &p->plan->options;
    if (o->no_fusion) return DIBIT_OK;
    if (!o->gpu) {
        if (!may_join(o)) return DIBIT_OK;
        return dbt_rewrite_fuse(p->plan->graph, &(dbt_fuse_options){0}, p->error);
    }
    if (!o->no_proof && dbt_gpu_fusion_is_dropped(o->gpu)) return DIBIT_OK;
    p->plan->fused = true;
    const dbt_fuse_options options = {
        .takes = device_takes,
        .user = p,
        .max_buffer_bytes = dbt_gpu_hal(o->gpu)->limits.max_buffer_bytes,
    };
    DBT_TRY(dbt_rewrite_heads(p->plan->graph, &options, p->error));
    return dbt_rewrite_fuse(p->plan->graph, &options, p->error);
}

static dibit_status plan_inputs(planner *p) {
    dbt_plan *const plan = p->plan;
    for (uint32_t i = 0; i < plan->graph->n_inputs; i++) {
        DBT_TRY(new_tensor(p, plan->graph->inputs[i], NATIVE, DBT_PLACE_INPUT, &plan->inputs[i]));
    }
    return DIBIT_OK;
}

static dibit_status plan_outputs(planner *p) {
    dbt_plan *const plan = p->plan;
    for (uint32_t o = 0; o < plan->graph->n_outputs; o++) {
        DBT_TRY(need(p, plan->graph->outputs[o], NATIVE, &plan->outputs[o]));
        plan->tensors[plan->outputs[o]].is_output = true;
        dbt_plan_tensor *const root = &plan->tensors[plan->tensors[plan->outputs[o]].root];
        root->is_output = root->is_output || root->place == DBT_PLACE_SLOT;
    }
    return DIBIT_OK;
}

/* The token is chosen on the device, if the logits are there. */
static dibit_status plan_sample(planner *p, const dbt_node *sample) {
    dbt_plan *const plan = p->plan;
    plan->settings = plan->token = -1;
    if (!sample || plan->by_value[sample->inputs[0]->id][ON_DEVICE] < 0) return DIBIT_OK;
    if (refuses_device(p, sample)) return DIBIT_OK;
    DBT_TRY(new_tensor(p, sample->inputs[1], NATIVE, DBT_PLACE_INPUT, &plan->settings));
    DBT_TRY(plan_node(p, sample));
    plan->token = plan->by_value[sample->outputs[0]->id][ON_DEVICE];
    plan->tensors[plan->token].is_output = plan->tensors[plan->token].own_slot = true;
    return DIBIT_OK;
}

/* keep_values: what is on the device alone is brought to the CPU, after all that the run needs. */
static dibit_status download_values(planner *p) {
    dbt_plan *const plan = p->plan;
    for (uint32_t v = 0; plan->options.keep_values && v < plan->graph->n_values; v++) {
        const int32_t *const have = plan->by_value[v];
        const dbt_constant *const constant = plan->graph->values[v]->constant;
        if (have[0] >= 0 || have[NATIVE] >= 0 || (constant && constant->parts)) continue;
        int32_t host;
        if (have[ON_DEVICE] >= 0) {
            DBT_TRY(need(p, plan->graph->values[v], 0, &host));
        } else if (have[NATIVE | ON_DEVICE] >= 0) {
            DBT_TRY(need(p, plan->graph->values[v], NATIVE, &host));
        }
    }
    return DIBIT_OK;
}

static dibit_status allocate(planner *p) {
    dbt_plan *const plan = p->plan;
    const dbt_graph *const g = plan->graph;
    p->needed = dbt_arena_array(plan->arena, g->n_nodes, sizeof *p->needed);
    plan->by_value = dbt_arena_array(plan->arena, g->n_values, sizeof *plan->by_value);
    plan->inputs = dbt_arena_array(plan->arena, g->n_inputs, sizeof *plan->inputs);
    plan->outputs = dbt_arena_array(plan->arena, g->n_outputs, sizeof *plan->outputs);
    uint64_t n_states = g->n_inputs;
    for (uint32_t n = 0; n < g->n_nodes; n++) n_states += g->nodes[n]->op->n_states;
    plan->states = dbt_arena_array(plan->arena, n_states, sizeof *plan->states);
    if (!p->needed || !plan->by_value || !plan->inputs || !plan->outputs || !plan->states) {
        return dbt_fail_memory(p->error, "a plan", 1);
    }
    for (uint32_t i = 0; i < g->n_values; i++) {
        for (int k = 0; k < 4; k++) plan->by_value[i][k] = -1;
    }
    return DIBIT_OK;
}

/* What is one step on every device. */
static dibit_status join_nodes(dbt_graph *graph, const dbt_plan_options *options,
                               dibit_error *error) {
    if (!may_join(options)) return DIBIT_OK;
    DBT_TRY(dbt_rewrite_dequantize(graph, error));
    return dbt_rewrite_norms(graph, error);
}

dibit_status dbt_plan_create(dbt_graph *graph, dbt_arena *arena, const dbt_plan_options *options,
                             dbt_plan **out, dibit_error *error) {
    dbt_plan *const plan = dbt_arena_alloc(arena, sizeof *plan);
    if (!plan) return dbt_fail_memory(error, "a plan", sizeof *plan);
    plan->graph = graph;
    plan->arena = arena;
    plan->options = *options;
    if (!options->keep_values) DBT_TRY(dbt_rewrite_transposed_gathers(graph, error));
    DBT_TRY(dbt_fold_views(graph, error));
    DBT_TRY(join_nodes(graph, options, error));
    DBT_TRY(dbt_rewrite_last_rows(graph, &plan->last_rows, &plan->all_rows, error));
    dbt_node *sample = NULL;
    if (options->sample_output && options->gpu && !options->keep_values && !options->noise) {
        DBT_TRY(dbt_rewrite_sample(graph, options->sample_output, &sample, error));
    }
    planner p = {.plan = plan, .error = error};
    DBT_TRY(fuse(&p));
    DBT_TRY(allocate(&p));
    find_needed(&p);
    DBT_TRY(plan_inputs(&p));
    for (uint32_t n = 0; n < graph->n_nodes; n++) {
        if (p.needed[n]) DBT_TRY(plan_node(&p, graph->nodes[n]));
    }
    DBT_TRY(plan_outputs(&p));
    DBT_TRY(plan_sample(&p, sample));
    DBT_TRY(download_values(&p));
    DBT_TRY(find_states(&p));
    plan->sequence = find_sequence(plan);
    DBT_TRY(dbt_plan_find_serves(plan, error));
    dbt_plan_find_fed(plan, options->feed_input);
    DBT_TRY(dbt_plan_assign_slots(plan, error));
    *out = plan;
    return DIBIT_OK;
}

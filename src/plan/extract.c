/* Nodes of a graph as a model of their own: what dibit_model_extract writes.
 *
 * A value that the nodes read and do not make is an initializer when it is a constant, or when the host
 * knows it (a shape, axes, lengths: as an input it would leave the sizes of outputs open); else it is an
 * input. What they make is an output.
 *
 * Bytes that a source has given are kept while others are on their way (`loading`): it may have forgotten them. The
 * walk over the nodes begins anew, and finds the constants that it has read. */
#include "plan/extract.h"

#include <string.h>

#include "onnx/onnx_write.h"
#include "ops/op.h"

typedef enum role { UNSEEN, MADE, READ } role;

typedef struct extraction {
    const dbt_graph *graph;
    const dibit_extract *what;
    dbt_arena arena;
    dibit_error *error;
    uint8_t *roles; /* [n_values] */
    dbt_onnx_node *nodes;
    dbt_constant *initializers;
    dbt_onnx_value_info *inputs, *outputs;
    dbt_onnx_opset *opsets;
    dbt_onnx_graph out;
    uint32_t n_opsets;
} extraction;

static const dibit_tensor *find_given(const extraction *e, const dbt_value *value) {
    for (uint32_t i = 0; i < e->what->n_values; i++) {
        const char *const name = e->what->values[i].name;
        if (name && strcmp(name, value->name) == 0) return &e->what->values[i];
    }
    return NULL;
}

static dbt_onnx_value_info info_of(const extraction *e, const dbt_value *value) {
    const dibit_tensor *const given = find_given(e, value);
    dbt_onnx_value_info info = {.name = value->name,
                                .is_tensor = true,
                                .type = value->type,
                                .rank = given ? given->rank : value->shape.rank};
    for (int32_t i = 0; i < info.rank; i++) {
        info.dims[i] = (dbt_onnx_dim){.value = -1};
        if (given) {
            info.dims[i].value = given->dims[i];
        } else {
            dbt_dim_is_const(e->graph->dims, value->shape.dims[i], &info.dims[i].value);
        }
    }
    return info;
}

static dibit_status add_constant(extraction *e, const dbt_value *value) {
    dbt_constant *const c = &e->initializers[e->out.n_initializers];
    if (!c->name) {
        *c = *value->constant;
        c->name = value->name;
        c->loading = NULL; /* the model's own load is not disturbed */
    }
    DBT_TRY(dbt_constant_load(c, &e->arena, e->error));
    e->out.n_initializers++;
    return DIBIT_OK;
}

/* What the host knows has the declared type, but for 2 and 4 bits, which no op reads there. */
static dibit_status add_host_value(extraction *e, const dbt_value *value) {
    const dibit_tensor *const given = find_given(e, value);
    DBT_FAIL_IF(!given || given->type != value->type, e->error, DIBIT_BAD_ARGUMENT,
                "the value of '%s' is needed as %s", value->name, dibit_type_name(value->type));
    dbt_constant c = {.name = value->name, .type = given->type, .rank = given->rank};
    memcpy(c.dims, given->dims, sizeof c.dims);
    DBT_FAIL_IF(!dbt_count(c.rank, c.dims, &c.count) ||
                    !dbt_packed_bytes(c.type, (uint64_t)c.count, &c.bytes.bytes) ||
                    (c.count > 0 && !given->data),
                e->error, DIBIT_BAD_ARGUMENT, "the value given for '%s' has no elements",
                value->name);
    c.data = given->data;
    e->initializers[e->out.n_initializers++] = c;
    return DIBIT_OK;
}

static dibit_status add_input(extraction *e, const dbt_node *node, uint32_t i) {
    const dbt_value *const value = node->inputs[i];
    if (!value || e->roles[value->id] != UNSEEN) return DIBIT_OK;
    e->roles[value->id] = READ;
    if (value->constant) return add_constant(e, value);
    if (value->contents || (i < 32 && node->op->host_inputs >> i & 1)) {
        return add_host_value(e, value);
    }
    e->inputs[e->out.n_inputs++] = info_of(e, value);
    return DIBIT_OK;
}

static dibit_status add_opset(extraction *e, const dbt_node *node) {
    for (uint32_t i = 0; i < e->n_opsets; i++) {
        if (strcmp(e->opsets[i].domain, node->domain) != 0) continue;
        DBT_FAIL_IF(e->opsets[i].version != node->opset, e->error, DIBIT_UNSUPPORTED,
                    "node '%s' is of another opset than the nodes before it", node->name);
        return DIBIT_OK;
    }
    e->opsets[e->n_opsets++] = (dbt_onnx_opset){node->domain, node->opset};
    return DIBIT_OK;
}

static dibit_status add_node(extraction *e, const dbt_node *node) {
    const char **const names =
        dbt_arena_array(&e->arena, (uint64_t)node->n_inputs + node->n_outputs, sizeof *names);
    if (!names) return dbt_fail_memory(e->error, "a node", sizeof *names);
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        names[i] = node->inputs[i] ? node->inputs[i]->name : "";
        DBT_TRY(add_input(e, node, i));
    }
    for (uint32_t o = 0; o < node->n_outputs; o++) {
        const dbt_value *const value = node->outputs[o];
        names[node->n_inputs + o] = value ? value->name : "";
        if (!value) continue;
        e->roles[value->id] = MADE;
        e->outputs[e->out.n_outputs++] = info_of(e, value);
    }
    e->nodes[e->out.n_nodes++] = (dbt_onnx_node){.name = node->name,
                                                 .op_type = node->op_type,
                                                 .domain = node->domain,
                                                 .overload = "",
                                                 .inputs = names,
                                                 .outputs = names + node->n_inputs,
                                                 .attrs = node->onnx_attrs,
                                                 .n_inputs = node->n_inputs,
                                                 .n_outputs = node->n_outputs,
                                                 .n_attrs = node->n_onnx_attrs};
    return add_opset(e, node);
}

static dibit_status reserve(extraction *e) {
    uint64_t n_in = 0, n_out = 0;
    for (uint32_t i = 0; i < e->what->n_nodes; i++) {
        DBT_FAIL_IF(e->what->nodes[i] >= e->graph->n_nodes, e->error, DIBIT_BAD_ARGUMENT,
                    "the graph has no node %u", (unsigned)e->what->nodes[i]);
        n_in += e->graph->nodes[e->what->nodes[i]]->n_inputs;
        n_out += e->graph->nodes[e->what->nodes[i]]->n_outputs;
    }
    e->roles = dbt_arena_array(&e->arena, e->graph->n_values, sizeof *e->roles);
    e->nodes = dbt_arena_array(&e->arena, e->what->n_nodes, sizeof *e->nodes);
    e->initializers = dbt_arena_array(&e->arena, n_in, sizeof *e->initializers);
    e->inputs = dbt_arena_array(&e->arena, n_in, sizeof *e->inputs);
    e->outputs = dbt_arena_array(&e->arena, n_out, sizeof *e->outputs);
    e->opsets = dbt_arena_array(&e->arena, e->what->n_nodes, sizeof *e->opsets);
    if (!e->roles || !e->nodes || !e->initializers || !e->inputs || !e->outputs || !e->opsets) {
        return dbt_fail_memory(e->error, "a model", 1);
    }
    return DIBIT_OK;
}

static void start_again(extraction *e) {
    memset(e->roles, UNSEEN, e->graph->n_values);
    e->out.n_nodes = e->out.n_initializers = e->out.n_inputs = e->out.n_outputs = 0;
    e->n_opsets = 0;
}

static dibit_status extract(extraction *e, dibit_write write, void *user) {
    DBT_FAIL_IF(e->what->n_nodes == 0, e->error, DIBIT_BAD_ARGUMENT, "no nodes are named");
    if (!e->roles) DBT_TRY(reserve(e));
    start_again(e);
    for (uint32_t i = 0; i < e->what->n_nodes; i++) {
        DBT_TRY(add_node(e, e->graph->nodes[e->what->nodes[i]]));
    }
    e->out.name = e->nodes[0].name;
    e->out.nodes = e->nodes;
    e->out.initializers = e->initializers;
    e->out.inputs = e->inputs;
    e->out.outputs = e->outputs;
    const dbt_onnx_model model = {.ir_version = e->graph->model->ir_version,
                                  .producer_name = "dibit",
                                  .opsets = e->opsets,
                                  .graph = &e->out,
                                  .n_opsets = e->n_opsets};
    dbt_onnx_write_model(&model, write, user);
    return DIBIT_OK;
}

static void forget(const dbt_graph *graph, dibit_extract *what) {
    extraction *const e = what->loading;
    if (!e) return;
    dbt_arena_free(&e->arena);
    dbt_release(&graph->arena->allocator, e, sizeof *e);
    what->loading = NULL;
}

dibit_status dbt_extract(const dbt_graph *graph, dibit_extract *what, dibit_write write, void *user,
                         dibit_error *error) {
    if (!write) {
        forget(graph, what);
        return DIBIT_OK;
    }
    extraction *e = what->loading;
    if (!e) {
        e = dbt_alloc(&graph->arena->allocator, sizeof *e, _Alignof(extraction));
        if (!e) return dbt_fail_memory(error, "a model", sizeof *e);
        *e = (extraction){.graph = graph};
        dbt_arena_init(&e->arena, &graph->arena->allocator);
        what->loading = e;
    }
    e->what = what;
    e->error = error;
    const dibit_status status = extract(e, write, user);
    if (status != DIBIT_PENDING) forget(graph, what);
    return status;
}

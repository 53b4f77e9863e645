/* Inference of one node, constants as values, and constant folding. */
#include <string.h>

#include "plan/build.h"

static int64_t read_integer(dibit_type type, const void *data, int64_t i) {
    switch (type) {
    case DIBIT_TYPE_INT64:
    case DIBIT_TYPE_UINT64: {
        int64_t v;
        memcpy(&v, (const char *)data + i * 8, 8);
        return v;
    }
    case DIBIT_TYPE_INT32: {
        int32_t v;
        memcpy(&v, (const char *)data + i * 4, 4);
        return v;
    }
    case DIBIT_TYPE_UINT32: {
        uint32_t v;
        memcpy(&v, (const char *)data + i * 4, 4);
        return v;
    }
    case DIBIT_TYPE_INT16: {
        int16_t v;
        memcpy(&v, (const char *)data + i * 2, 2);
        return v;
    }
    case DIBIT_TYPE_UINT16: {
        uint16_t v;
        memcpy(&v, (const char *)data + i * 2, 2);
        return v;
    }
    case DIBIT_TYPE_INT8: return ((const int8_t *)data)[i];
    case DIBIT_TYPE_BOOL: return ((const uint8_t *)data)[i] != 0;
    default: return ((const uint8_t *)data)[i];
    }
}

void dbt_write_integer(dibit_type type, void *data, int64_t i, int64_t v) {
    /* Little-endian two's complement: the low bytes are the value in any width. */
    const size_t bytes = dibit_type_bits(type) / 8;
    memcpy((char *)data + (size_t)i * bytes, &v, bytes);
}

dibit_status dbt_set_contents(dbt_dims *dims, dbt_arena *arena, dbt_value *value, const void *data,
                              int64_t count, dibit_error *error) {
    if (!dbt_type_in(value->type, DBT_TYPES_INTEGER | DBT_TYPES_BOOL) || count > DBT_MAX_CONTENTS) {
        return DIBIT_OK;
    }
    dbt_dim *const contents = dbt_arena_array(arena, (uint64_t)count, sizeof *contents);
    if (!contents) return dbt_fail_memory(error, "host values", (uint64_t)count * sizeof *contents);
    for (int64_t i = 0; i < count; i++) {
        contents[i] = dbt_dim_const(dims, read_integer(value->type, data, i));
        if (contents[i] == DBT_DIM_NONE) return dbt_fail_memory(error, "host values", 1);
    }
    value->contents = contents;
    return DIBIT_OK;
}

dibit_status dbt_value_set_constant(dbt_graph *graph, dbt_value *value, dbt_constant *constant,
                                    dibit_error *error) {
    value->constant = constant;
    value->type = constant->type;
    value->shape.rank = constant->rank;
    for (int32_t i = 0; i < constant->rank; i++) {
        value->shape.dims[i] = dbt_dim_const(graph->dims, constant->dims[i]);
        if (value->shape.dims[i] == DBT_DIM_NONE) return dbt_fail_memory(error, "dims", 1);
    }
    if (!constant->data && constant->count > 0) return DIBIT_OK;
    return dbt_set_contents(graph->dims, graph->arena, value, constant->data, constant->count,
                            error);
}

dibit_status dbt_check_inferred(const dbt_dims *dims, const dbt_value *value, dibit_error *error) {
    DBT_FAIL_IF(!dbt_type_in(value->type, DBT_TYPES_VALUE), error, DIBIT_UNSUPPORTED,
                "output '%s' has type %s, which is not supported", value->name,
                dibit_type_name(value->type));
    uint64_t bytes = 8;
    for (int32_t i = 0; i < value->shape.rank; i++) {
        int64_t v;
        DBT_FAIL_IF(value->shape.dims[i] == DBT_DIM_NONE, error, DIBIT_TOO_LARGE,
                    "dim %d of output '%s' cannot be expressed (overflow, or too complex)", (int)i,
                    value->name);
        if (!dbt_dim_is_const(dims, value->shape.dims[i], &v)) continue;
        DBT_FAIL_IF(v < 0, error, DIBIT_BAD_FILE, "dim %d of output '%s' would be %lld", (int)i,
                    value->name, (long long)v);
        DBT_FAIL_IF(v > 0 && !dbt_mul_u64(bytes, (uint64_t)v, &bytes), error, DIBIT_TOO_LARGE,
                    "output '%s' would not fit into 64 bits of memory", value->name);
    }
    return DIBIT_OK;
}

dibit_status dbt_node_infer(dbt_graph *graph, dbt_node *node, dibit_error *error) {
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i]) node->outputs[i]->contents = NULL;
    }
    dbt_infer infer = {.node = node,
                       .attrs = node->attrs,
                       .n_inputs = node->n_inputs,
                       .n_outputs = node->n_outputs,
                       .in = node->inputs,
                       .out = node->outputs,
                       .dims = graph->dims,
                       .arena = graph->arena,
                       .error = error};
    DBT_TRY(node->op->infer(&infer));
    for (uint32_t i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i]) DBT_TRY(dbt_check_inferred(graph->dims, node->outputs[i], error));
    }
    return DIBIT_OK;
}

/* ---- Folding ---- */

static bool constant_shape(const dbt_dims *dims, const dbt_value *value, dibit_tensor *t) {
    if (value->shape.rank < 0) return false;
    t->rank = value->shape.rank;
    for (int32_t i = 0; i < t->rank; i++) {
        if (!dbt_dim_is_const(dims, value->shape.dims[i], &t->dims[i])) return false;
    }
    return true;
}

static dibit_status make_constant(dbt_graph *graph, dbt_value *value, const dibit_tensor *stored,
                                  dibit_error *error) {
    dbt_constant *const c = dbt_arena_alloc(graph->arena, sizeof *c);
    if (!c) return dbt_fail_memory(error, "a constant", sizeof *c);
    c->name = value->name;
    c->type = value->type;
    c->rank = stored->rank;
    memcpy(c->dims, stored->dims, sizeof c->dims);
    c->count = dbt_tensor_count(stored);
    dbt_packed_bytes(c->type, (uint64_t)c->count, &c->bytes.bytes);
    void *const data = dbt_arena_alloc(graph->arena, c->bytes.bytes);
    if (!data) return dbt_fail_memory(error, "a constant", c->bytes.bytes);
    dbt_pack_elements(c->type, stored->data, data, c->count);
    graph->folded_bytes += c->bytes.bytes;
    c->data = data;
    value->producer = NULL;
    return dbt_value_set_constant(graph, value, c, error);
}

/* Shapes and lengths: contents that turned out to be numbers. */
static dibit_status fold_contents(dbt_graph *graph, dbt_node *node, bool *folded,
                                  dibit_error *error) {
    for (uint32_t o = 0; o < node->n_outputs; o++) {
        const dbt_value *const value = node->outputs[o];
        dibit_tensor t = {0};
        if (!value) continue;
        if (!value->contents || !constant_shape(graph->dims, value, &t)) return DIBIT_OK;
        for (int64_t i = 0; i < dbt_tensor_count(&t); i++) {
            if (!dbt_dim_is_const(graph->dims, value->contents[i], NULL)) return DIBIT_OK;
        }
    }
    for (uint32_t o = 0; o < node->n_outputs; o++) {
        dbt_value *const value = node->outputs[o];
        if (!value) continue;
        uint64_t data[DBT_MAX_CONTENTS] = {0};
        dibit_tensor t = {.data = data};
        constant_shape(graph->dims, value, &t);
        for (int64_t i = 0; i < dbt_tensor_count(&t); i++) {
            int64_t v = 0;
            dbt_dim_is_const(graph->dims, value->contents[i], &v);
            dbt_write_integer(value->type, data, i, v);
        }
        DBT_TRY(make_constant(graph, value, &t, error));
    }
    *folded = true;
    return DIBIT_OK;
}

/* A model of many nodes that each blow up a constant must not fill the memory while it loads. */
enum { MAX_FOLD_INPUTS = 16, MAX_FOLD_OUTPUTS = 8, MAX_FOLDED_BYTES = 64 << 20 };

typedef struct fold {
    dbt_arena scratch;
    dibit_tensor in[MAX_FOLD_INPUTS], out[MAX_FOLD_OUTPUTS];
    const dibit_tensor *in_refs[MAX_FOLD_INPUTS];
    dibit_tensor *out_refs[MAX_FOLD_OUTPUTS];
} fold;

/* *foldable false: not a node to fold. Fails for lack of memory only. */
static dibit_status prepare_fold(const dbt_graph *graph, const dbt_node *node, fold *f,
                                 bool *foldable, dibit_error *error) {
    const dbt_op *const op = node->op;
    *foldable = false;
    if (op->n_states || op->flags & DBT_OP_NONDETERMINISTIC || dbt_dequantizes_weights(node) ||
        node->n_inputs > MAX_FOLD_INPUTS || node->n_outputs > MAX_FOLD_OUTPUTS ||
        graph->folded_bytes > MAX_FOLDED_BYTES) {
        return DIBIT_OK;
    }
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        if (!node->inputs[i]) continue;
        const dbt_constant *const c = node->inputs[i]->constant;
        if (!c || (!c->data && c->count > 0) || c->bytes.bytes >= DBT_SMALL_CONSTANT ||
            !dbt_type_in(c->type, DBT_TYPES_VALUE)) {
            return DIBIT_OK;
        }
        dibit_tensor *const t = &f->in[i];
        *t = (dibit_tensor){.name = node->inputs[i]->name, .rank = c->rank};
        memcpy(t->dims, c->dims, sizeof t->dims);
        f->in_refs[i] = t;
        t->type = op->raw_inputs >> i & 1 ? c->type : dbt_storage_type(c->type);
        const bool raw = t->type == c->type;
        const uint64_t bytes =
            raw ? c->bytes.bytes : (uint64_t)c->count * (dibit_type_bits(t->type) / 8);
        t->data = dbt_arena_alloc(&f->scratch, bytes);
        t->bytes = bytes;
        if (!t->data) return dbt_fail_memory(error, "folding", bytes);
        if (c->count == 0) continue;
        if (raw) {
            memcpy(t->data, c->data, (size_t)bytes);
        } else {
            dbt_unpack_elements(c->type, c->data, t->data, c->count);
        }
    }
    for (uint32_t o = 0; o < node->n_outputs; o++) {
        dibit_tensor *const t = &f->out[o];
        if (!node->outputs[o]) continue;
        if (!constant_shape(graph->dims, node->outputs[o], t)) return DIBIT_OK;
        t->type = dbt_storage_type(node->outputs[o]->type);
        int64_t count;
        if (!dbt_count(t->rank, t->dims, &count) || count >= DBT_SMALL_CONSTANT / 4) {
            return DIBIT_OK;
        }
        t->bytes = (uint64_t)count * (dibit_type_bits(t->type) / 8);
        t->data = dbt_arena_alloc_aligned(&f->scratch, t->bytes, 64);
        if (!t->data) return dbt_fail_memory(error, "folding", t->bytes);
        f->out_refs[o] = t;
    }
    *foldable = true;
    return DIBIT_OK;
}

static dibit_status run_fold(const dbt_node *node, fold *f, dibit_error *error) {
    const dbt_cpu_options options = {.activations = DIBIT_ACTIVATIONS_FLOAT};
    dbt_cpu_prepare prepare = {.node = node,
                               .attrs = node->attrs,
                               .options = &options,
                               .in = f->in_refs,
                               .arena = &f->scratch,
                               .error = error};
    if (node->op->cpu_prepare) DBT_TRY(node->op->cpu_prepare(&prepare));
    dbt_cpu_call call = {.node = node,
                         .attrs = node->attrs,
                         .n_inputs = node->n_inputs,
                         .n_outputs = node->n_outputs,
                         .in = f->in_refs,
                         .out = f->out_refs,
                         .prepared = prepare.prepared,
                         .options = &options,
                         .error = error};
    if (node->op->cpu_scratch) {
        const uint64_t bytes = node->op->cpu_scratch(&call);
        call.scratch = dbt_arena_alloc_aligned(&f->scratch, bytes, 64);
        if (!call.scratch) return dbt_fail_memory(error, "folding", bytes);
    }
    return node->op->cpu_run(&call);
}

/* A node that fails on its data is left in the graph: it may never run. */
static dibit_status try_fold(dbt_graph *graph, dbt_node *node, fold *f, bool *folded,
                             dibit_error *error) {
    bool foldable;
    DBT_TRY(prepare_fold(graph, node, f, &foldable, error));
    if (!foldable) return DIBIT_OK;
    const dibit_status status = run_fold(node, f, error);
    if (status != DIBIT_OK) return status == DIBIT_OUT_OF_MEMORY ? status : DIBIT_OK;
    for (uint32_t o = 0; o < node->n_outputs; o++) {
        if (node->outputs[o]) DBT_TRY(make_constant(graph, node->outputs[o], &f->out[o], error));
    }
    *folded = true;
    return DIBIT_OK;
}

dibit_status dbt_fold_node(dbt_graph *graph, dbt_node *node, bool *folded, dibit_error *error) {
    *folded = false;
    if (node->guard) return DIBIT_OK;
    DBT_TRY(fold_contents(graph, node, folded, error));
    if (*folded) return DIBIT_OK;
    fold f = {0};
    dbt_arena_init(&f.scratch, &graph->arena->allocator);
    const dibit_status status = try_fold(graph, node, &f, folded, error);
    dbt_arena_free(&f.scratch);
    return status;
}

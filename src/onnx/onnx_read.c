/* ModelProto -> dbt_onnx_model, and the reader's phases: make the structure resident (callbacks
 * only), parse it, open external files. */
#include <string.h>

#include "onnx/onnx_external.h"
#include "onnx/onnx_fetch.h"
#include "onnx/onnx_fields.h"
#include "onnx/onnx_parse.h"

enum { MIN_IR_VERSION = 3, MAX_IR_VERSION = 13, MIN_NAMED_BYTES = 3 };

static dibit_status read_opset(const dbt_parse *p, const dbt_place *parent, uint32_t index,
                               dbt_wire_message m, dbt_onnx_opset *out) {
    const dbt_place place = {parent, "opset_import", "", index};
    *out = (dbt_onnx_opset){.domain = ""};
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        if (f.number == OPSET_DOMAIN) DBT_TRY(dbt_parse_domain(p, &place, &f, &out->domain));
        if (f.number == OPSET_VERSION) {
            DBT_TRY(dbt_parse_type(p, &place, &f, DBT_WIRE_VARINT, "version"));
            out->version = (int64_t)f.value;
        }
    }
    return dbt_parse_end(p, &place, &m);
}

/* ---- Functions ------------------------------------------------------------------------------ */

static dibit_status count_function(const dbt_parse *p, dbt_place *place, dbt_wire_message m,
                                   dbt_onnx_function *out) {
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        switch (f.number) {
        case FUNCTION_NAME:
            DBT_TRY(dbt_parse_string(p, place, &f, "name", &out->name));
            place->name = out->name;
            break;
        case FUNCTION_DOMAIN: DBT_TRY(dbt_parse_domain(p, place, &f, &out->domain)); break;
        case FUNCTION_OVERLOAD:
            DBT_TRY(dbt_parse_string(p, place, &f, "overload", &out->overload));
            break;
        case FUNCTION_INPUT:
            DBT_TRY(dbt_parse_count(p, place, &f, 0, "input", &out->n_inputs));
            break;
        case FUNCTION_OUTPUT:
            DBT_TRY(dbt_parse_count(p, place, &f, 0, "output", &out->n_outputs));
            break;
        case FUNCTION_ATTRIBUTE:
            DBT_TRY(dbt_parse_count(p, place, &f, 0, "attribute", &out->n_attr_names));
            break;
        case FUNCTION_ATTRIBUTE_PROTO:
            DBT_TRY(dbt_parse_count(p, place, &f, MIN_NAMED_BYTES, "attribute_proto",
                                    &out->n_attr_defaults));
            break;
        case FUNCTION_NODE:
            DBT_TRY(dbt_parse_count(p, place, &f, MIN_NAMED_BYTES, "node", &out->n_nodes));
            break;
        case FUNCTION_OPSET_IMPORT:
            DBT_TRY(dbt_parse_count(p, place, &f, 0, "opset_import", &out->n_opsets));
            break;
        default: break;
        }
    }
    return dbt_parse_end(p, place, &m);
}

static dibit_status read_function(dbt_parse *p, uint32_t index, dbt_wire_message m,
                                  dbt_onnx_function *out) {
    dbt_place place = {NULL, "function", "", index};
    *out = (dbt_onnx_function){.name = "", .domain = "", .overload = ""};
    DBT_TRY(count_function(p, &place, m, out));
    if (!out->name[0]) return dbt_parse_fail(p, &place, DIBIT_BAD_FILE, "has no name");
    const char **inputs, **outputs, **attr_names;
    dbt_onnx_attr *defaults;
    dbt_onnx_node *nodes;
    dbt_onnx_opset *opsets;
    DBT_TRY(dbt_parse_array(p, &place, out->n_inputs, sizeof *inputs, &inputs));
    DBT_TRY(dbt_parse_array(p, &place, out->n_outputs, sizeof *outputs, &outputs));
    DBT_TRY(dbt_parse_array(p, &place, out->n_attr_names, sizeof *attr_names, &attr_names));
    DBT_TRY(dbt_parse_array(p, &place, out->n_attr_defaults, sizeof *defaults, &defaults));
    DBT_TRY(dbt_parse_array(p, &place, out->n_nodes, sizeof *nodes, &nodes));
    DBT_TRY(dbt_parse_array(p, &place, out->n_opsets, sizeof *opsets, &opsets));
    out->inputs = inputs;
    out->outputs = outputs;
    out->attr_names = attr_names;
    out->attr_defaults = defaults;
    out->nodes = nodes;
    out->opsets = opsets;
    uint32_t attr = 0, node = 0, opset = 0;
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        const dbt_wire_message in = dbt_wire_inside(&m, &f);
        switch (f.number) {
        case FUNCTION_INPUT: DBT_TRY(dbt_parse_string(p, &place, &f, "input", inputs++)); break;
        case FUNCTION_OUTPUT: DBT_TRY(dbt_parse_string(p, &place, &f, "output", outputs++)); break;
        case FUNCTION_ATTRIBUTE:
            DBT_TRY(dbt_parse_string(p, &place, &f, "attribute", attr_names++));
            break;
        case FUNCTION_ATTRIBUTE_PROTO:
            DBT_TRY(dbt_parse_attr(p, &place, attr, in, &defaults[attr]));
            attr++;
            break;
        case FUNCTION_NODE:
            DBT_TRY(dbt_parse_node(p, &place, node, in, &nodes[node]));
            node++;
            break;
        case FUNCTION_OPSET_IMPORT:
            DBT_TRY(read_opset(p, &place, opset, in, &opsets[opset]));
            opset++;
            break;
        default: break;
        }
    }
    return DIBIT_OK;
}

/* ---- The model ------------------------------------------------------------------------------ */

static dibit_status count_model(const dbt_parse *p, dbt_wire_message m, dbt_onnx_model *out,
                                dbt_wire_field *graph) {
    bool has_graph = false;
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        switch (f.number) {
        case MODEL_IR_VERSION:
            DBT_TRY(dbt_parse_type(p, NULL, &f, DBT_WIRE_VARINT, "ir_version"));
            out->ir_version = (int64_t)f.value;
            break;
        case MODEL_PRODUCER_NAME:
            DBT_TRY(dbt_parse_string(p, NULL, &f, "producer_name", &out->producer_name));
            break;
        case MODEL_PRODUCER_VERSION:
            DBT_TRY(dbt_parse_string(p, NULL, &f, "producer_version", &out->producer_version));
            break;
        case MODEL_GRAPH:
            DBT_TRY(dbt_parse_type(p, NULL, &f, DBT_WIRE_BYTES, "graph"));
            if (has_graph) return dbt_parse_fail(p, NULL, DIBIT_BAD_FILE, "has two graphs");
            has_graph = true;
            *graph = f;
            break;
        case MODEL_OPSET_IMPORT:
            DBT_TRY(dbt_parse_count(p, NULL, &f, 0, "opset_import", &out->n_opsets));
            break;
        case MODEL_METADATA_PROPS:
            DBT_TRY(dbt_parse_count(p, NULL, &f, 0, "metadata_props", &out->n_metadata));
            break;
        case MODEL_FUNCTIONS:
            DBT_TRY(dbt_parse_count(p, NULL, &f, MIN_NAMED_BYTES, "functions", &out->n_functions));
            break;
        default: break;
        }
    }
    DBT_TRY(dbt_parse_end(p, NULL, &m));
    if (out->ir_version < MIN_IR_VERSION || out->ir_version > MAX_IR_VERSION) {
        return dbt_parse_fail(p, NULL, out->ir_version ? DIBIT_UNSUPPORTED : DIBIT_BAD_FILE,
                              out->ir_version ? "IR version %lld; %d to %d are supported"
                                              : "is no ONNX model: IR version %lld; %d to %d are "
                                                "supported",
                              (long long)out->ir_version, MIN_IR_VERSION, MAX_IR_VERSION);
    }
    if (!has_graph) return dbt_parse_fail(p, NULL, DIBIT_BAD_FILE, "has no graph");
    return DIBIT_OK;
}

static dibit_status parse_model(dbt_parse *p, const dbt_onnx_model **out) {
    dbt_onnx_model *model;
    DBT_TRY(dbt_parse_array(p, NULL, 1, sizeof *model, &model));
    *model = (dbt_onnx_model){.producer_name = "", .producer_version = ""};
    dbt_wire_message m = {p->wire, 0, p->source->size, NULL};
    dbt_wire_field graph_field = {0};
    DBT_TRY(count_model(p, m, model, &graph_field));
    dbt_onnx_opset *opsets;
    dbt_onnx_metadata *metadata;
    dbt_onnx_function *functions;
    dbt_onnx_graph *graph;
    DBT_TRY(dbt_parse_array(p, NULL, model->n_opsets, sizeof *opsets, &opsets));
    DBT_TRY(dbt_parse_array(p, NULL, model->n_metadata, sizeof *metadata, &metadata));
    DBT_TRY(dbt_parse_array(p, NULL, model->n_functions, sizeof *functions, &functions));
    DBT_TRY(dbt_parse_array(p, NULL, 1, sizeof *graph, &graph));
    model->opsets = opsets;
    model->metadata = metadata;
    model->functions = functions;
    model->graph = graph;
    DBT_TRY(dbt_parse_graph(p, NULL, dbt_wire_inside(&m, &graph_field), graph));
    uint32_t opset = 0, entry = 0, function = 0;
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        const dbt_wire_message in = dbt_wire_inside(&m, &f);
        if (f.number == MODEL_OPSET_IMPORT) {
            DBT_TRY(read_opset(p, NULL, opset, in, &opsets[opset]));
            opset++;
        } else if (f.number == MODEL_METADATA_PROPS) {
            const dbt_place place = {NULL, "metadata_props", "", entry};
            DBT_TRY(dbt_parse_entry(p, &place, in, &metadata[entry].key, &metadata[entry].value));
            entry++;
        } else if (f.number == MODEL_FUNCTIONS) {
            DBT_TRY(read_function(p, function, in, &functions[function]));
            function++;
        }
    }
    *out = model;
    return DIBIT_OK;
}

/* ---- The reader ----------------------------------------------------------------------------- */

typedef enum reader_phase { FETCH, PARSE, RESOLVE, DONE } reader_phase;

struct dbt_onnx_reader {
    dbt_onnx_reader_desc desc;
    reader_phase phase;
    dbt_fetch fetch; /* unused when the source is mapped */
    dbt_onnx_external *externals;
    dbt_onnx_file *files;
    const dbt_onnx_model *model;
};

dibit_status dbt_onnx_reader_create(const dbt_onnx_reader_desc *desc, dbt_onnx_reader **out,
                                    dibit_error *error) {
    dbt_onnx_reader *const reader = dbt_arena_alloc(desc->arena, sizeof *reader);
    if (!reader) return dbt_fail_memory(error, "the model reader", sizeof *reader);
    reader->desc = *desc;
    if (desc->source->mapped) {
        reader->phase = PARSE;
    } else {
        dbt_fetch_init(&reader->fetch, desc->source, DBT_FETCH_MODEL, &desc->arena->allocator);
    }
    *out = reader;
    return DIBIT_OK;
}

/* A parser over all that is resident: the whole of a mapped source, or what was fetched. */
static dbt_parse make_parse(const dbt_source *source, dbt_arena *arena, dbt_fetch *fetch,
                            dbt_wire_run *whole, dbt_wire *wire, dibit_error *error) {
    *whole = (dbt_wire_run){0, source->size, source->mapped};
    *wire = source->mapped ? (dbt_wire){whole, 1, 0} : fetch->wire;
    return (dbt_parse){.arena = arena, .source = source, .wire = wire, .error = error};
}

static dibit_status parse_phase(dbt_onnx_reader *reader, dibit_error *error) {
    dbt_wire_run whole;
    dbt_wire wire;
    const dbt_source *const source = reader->desc.source;
    dbt_parse p = make_parse(source, reader->desc.arena, &reader->fetch, &whole, &wire, error);
    DBT_FAIL_IF(source->size == 0, error, DIBIT_BAD_FILE, "'%s' is empty", source->name);
    DBT_TRY(parse_model(&p, &reader->model));
    reader->externals = p.externals;
    return DIBIT_OK;
}

dibit_status dbt_onnx_reader_poll(dbt_onnx_reader *reader, const dbt_onnx_model **out,
                                  dibit_error *error) {
    if (reader->phase == FETCH) {
        DBT_TRY(dbt_fetch_poll(&reader->fetch, error));
        reader->phase = PARSE;
    }
    if (reader->phase == PARSE) {
        DBT_TRY(parse_phase(reader, error));
        if (!reader->desc.source->mapped) dbt_fetch_free(&reader->fetch);
        reader->phase = RESOLVE;
    }
    if (reader->phase == RESOLVE) {
        DBT_TRY(
            dbt_onnx_resolve_externals(&reader->desc, &reader->externals, &reader->files, error));
        reader->phase = DONE;
    }
    *out = reader->model;
    return DIBIT_OK;
}

void dbt_onnx_reader_destroy(dbt_onnx_reader **reader) {
    dbt_onnx_reader *const r = *reader;
    if (!r) return;
    for (dbt_onnx_file *file = r->files; file; file = file->next) dbt_source_close(&file->source);
    if (r->phase <= PARSE && !r->desc.source->mapped) dbt_fetch_free(&r->fetch);
    *reader = NULL;
}

dibit_status dbt_onnx_read_tensor(const dbt_source *source, dbt_arena *arena, dbt_constant *out,
                                  dibit_error *error) {
    dbt_wire_run whole;
    dbt_wire wire;
    DBT_FAIL_IF(!source->mapped, error, DIBIT_BAD_ARGUMENT, "'%s' is not in memory", source->name);
    DBT_FAIL_IF(source->size == 0, error, DIBIT_BAD_FILE, "'%s' is empty", source->name);
    dbt_parse p = make_parse(source, arena, NULL, &whole, &wire, error);
    dbt_place place = {NULL, "tensor", "", 0};
    dbt_constant tensor;
    DBT_TRY(
        dbt_parse_tensor(&p, &place, (dbt_wire_message){&wire, 0, source->size, NULL}, &tensor));
    if (p.externals) {
        return dbt_parse_fail(&p, &place, DIBIT_UNSUPPORTED, "its data lies in another file");
    }
    *out = tensor;
    return DIBIT_OK;
}

dibit_status dbt_constant_load(dbt_constant *constant, dbt_arena *arena, dibit_error *error) {
    if (constant->data || constant->strings) return DIBIT_OK;
    if (!constant->loading) {
        constant->loading = dbt_arena_alloc(arena, constant->bytes.bytes);
        if (!constant->loading) {
            return dbt_fail_memory(error, constant->name, constant->bytes.bytes);
        }
    }
    DBT_TRY(dbt_source_read(constant->bytes.source, constant->bytes.offset, constant->bytes.bytes,
                            constant->loading, error));
    constant->data = constant->loading;
    constant->loading = NULL;
    return DIBIT_OK;
}

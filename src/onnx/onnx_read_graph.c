/* GraphProto, NodeProto and ValueInfoProto -> structs. Each message is read in two passes: the first
 * reads its own fields and counts, the second fills the arrays. */
#include "onnx/onnx_fields.h"
#include "onnx/onnx_parse.h"

/* Bytes that the shortest valid message takes: it has a non-empty string at least. */
enum { MIN_NAMED_BYTES = 3 };

/* ---- Value infos ---------------------------------------------------------------------------- */

static dibit_status read_dim(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                             dbt_onnx_dim *out) {
    *out = (dbt_onnx_dim){.value = -1};
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        if (f.number == DIM_VALUE) {
            DBT_TRY(dbt_parse_type(p, place, &f, DBT_WIRE_VARINT, "dim_value"));
            *out = (dbt_onnx_dim){.value = (int64_t)f.value};
            if (out->value < 0) {
                return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "has a dimension of %lld",
                                      (long long)out->value);
            }
        } else if (f.number == DIM_PARAM) {
            *out = (dbt_onnx_dim){.value = -1};
            DBT_TRY(dbt_parse_string(p, place, &f, "dim_param", &out->param));
            if (!out->param[0]) out->param = NULL;
        }
    }
    return dbt_parse_end(p, place, &m);
}

static dibit_status read_shape(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                               dbt_onnx_value_info *out) {
    out->rank = 0;
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        if (f.number != SHAPE_DIM) continue;
        DBT_TRY(dbt_parse_type(p, place, &f, DBT_WIRE_BYTES, "dim"));
        if (out->rank == DIBIT_MAX_RANK) {
            return dbt_parse_fail(p, place, DIBIT_UNSUPPORTED, "has more than %d dimensions",
                                  DIBIT_MAX_RANK);
        }
        DBT_TRY(read_dim(p, place, dbt_wire_inside(&m, &f), &out->dims[out->rank++]));
    }
    return dbt_parse_end(p, place, &m);
}

static dibit_status read_tensor_type(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                                     dbt_onnx_value_info *out) {
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        if (f.number == TENSOR_TYPE_ELEM) {
            DBT_TRY(dbt_parse_type(p, place, &f, DBT_WIRE_VARINT, "elem_type"));
            if (f.value > DIBIT_TYPE_INT2) {
                return dbt_parse_fail(p, place, DIBIT_UNSUPPORTED, "unknown element type %llu",
                                      (unsigned long long)f.value);
            }
            out->type = (dibit_type)f.value;
        } else if (f.number == TENSOR_TYPE_SHAPE) {
            DBT_TRY(dbt_parse_type(p, place, &f, DBT_WIRE_BYTES, "shape"));
            if (out->rank >= 0) {
                return dbt_parse_fail(p, place, DIBIT_BAD_FILE, "has more than one shape");
            }
            DBT_TRY(read_shape(p, place, dbt_wire_inside(&m, &f), out));
        }
    }
    return dbt_parse_end(p, place, &m);
}

static dibit_status read_type(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                              dbt_onnx_value_info *out) {
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        const char *const kind = f.number == TYPE_TENSOR          ? "tensor"
                                 : f.number == TYPE_SEQUENCE      ? "sequence"
                                 : f.number == TYPE_MAP           ? "map"
                                 : f.number == TYPE_OPAQUE        ? "opaque"
                                 : f.number == TYPE_SPARSE_TENSOR ? "sparse tensor"
                                 : f.number == TYPE_OPTIONAL      ? "optional"
                                                                  : NULL;
        if (!kind) continue;
        DBT_TRY(dbt_parse_type(p, place, &f, DBT_WIRE_BYTES, kind));
        out->kind = kind;
        out->is_tensor = f.number == TYPE_TENSOR;
        if (out->is_tensor) {
            DBT_TRY(read_tensor_type(p, place, dbt_wire_inside(&m, &f), out));
        }
    }
    return dbt_parse_end(p, place, &m);
}

static dibit_status read_value_info(const dbt_parse *p, const dbt_place *parent, const char *what,
                                    uint32_t index, dbt_wire_message m, dbt_onnx_value_info *out) {
    dbt_place place = {parent, what, "", index};
    *out = (dbt_onnx_value_info){.name = "", .kind = "none", .rank = -1};
    bool has_type = false;
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        if (f.number == VALUE_INFO_NAME) {
            DBT_TRY(dbt_parse_string(p, &place, &f, "name", &out->name));
            place.name = out->name;
        } else if (f.number == VALUE_INFO_TYPE) {
            DBT_TRY(dbt_parse_type(p, &place, &f, DBT_WIRE_BYTES, "type"));
            if (has_type) return dbt_parse_fail(p, &place, DIBIT_BAD_FILE, "has two types");
            has_type = true;
            DBT_TRY(read_type(p, &place, dbt_wire_inside(&m, &f), out));
        }
    }
    DBT_TRY(dbt_parse_end(p, &place, &m));
    if (!out->name[0]) return dbt_parse_fail(p, &place, DIBIT_BAD_FILE, "has no name");
    return DIBIT_OK;
}

/* ---- Nodes ---------------------------------------------------------------------------------- */

dibit_status dbt_parse_node(dbt_parse *p, const dbt_place *parent, uint32_t index,
                            dbt_wire_message m, dbt_onnx_node *out) {
    dbt_place place = {parent, "node", "", index};
    *out = (dbt_onnx_node){.name = "", .op_type = "", .domain = "", .overload = ""};
    dbt_wire_message first = m;
    dbt_wire_field f;
    while (dbt_wire_next(&first, &f)) {
        switch (f.number) {
        case NODE_INPUT: DBT_TRY(dbt_parse_count(p, &place, &f, 0, "input", &out->n_inputs)); break;
        case NODE_OUTPUT:
            DBT_TRY(dbt_parse_count(p, &place, &f, 0, "output", &out->n_outputs));
            break;
        case NODE_ATTRIBUTE:
            DBT_TRY(dbt_parse_count(p, &place, &f, MIN_NAMED_BYTES, "attribute", &out->n_attrs));
            break;
        case NODE_NAME:
            DBT_TRY(dbt_parse_string(p, &place, &f, "name", &out->name));
            place.name = out->name;
            break;
        case NODE_OP_TYPE:
            DBT_TRY(dbt_parse_string(p, &place, &f, "op_type", &out->op_type));
            break;
        case NODE_DOMAIN: DBT_TRY(dbt_parse_domain(p, &place, &f, &out->domain)); break;
        case NODE_OVERLOAD:
            DBT_TRY(dbt_parse_string(p, &place, &f, "overload", &out->overload));
            break;
        default: break;
        }
    }
    DBT_TRY(dbt_parse_end(p, &place, &first));
    if (!out->op_type[0]) return dbt_parse_fail(p, &place, DIBIT_BAD_FILE, "has no op_type");

    const char **inputs, **outputs;
    dbt_onnx_attr *attrs;
    DBT_TRY(dbt_parse_array(p, &place, out->n_inputs, sizeof *inputs, &inputs));
    DBT_TRY(dbt_parse_array(p, &place, out->n_outputs, sizeof *outputs, &outputs));
    DBT_TRY(dbt_parse_array(p, &place, out->n_attrs, sizeof *attrs, &attrs));
    out->inputs = inputs;
    out->outputs = outputs;
    out->attrs = attrs;
    uint32_t n_attrs = 0;
    while (dbt_wire_next(&m, &f)) {
        if (f.number == NODE_INPUT) {
            DBT_TRY(dbt_parse_string(p, &place, &f, "input", inputs++));
        } else if (f.number == NODE_OUTPUT) {
            DBT_TRY(dbt_parse_string(p, &place, &f, "output", outputs++));
        } else if (f.number == NODE_ATTRIBUTE) {
            DBT_TRY(dbt_parse_attr(p, &place, n_attrs, dbt_wire_inside(&m, &f), &attrs[n_attrs]));
            n_attrs++;
        }
    }
    return DIBIT_OK;
}

/* ---- Graphs --------------------------------------------------------------------------------- */

static dibit_status count_graph(const dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                                dbt_onnx_graph *out) {
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        const uint64_t min = MIN_NAMED_BYTES;
        switch (f.number) {
        case GRAPH_NAME: DBT_TRY(dbt_parse_string(p, place, &f, "name", &out->name)); break;
        case GRAPH_NODE: DBT_TRY(dbt_parse_count(p, place, &f, min, "node", &out->n_nodes)); break;
        case GRAPH_INITIALIZER:
            DBT_TRY(dbt_parse_count(p, place, &f, min, "initializer", &out->n_initializers));
            break;
        case GRAPH_INPUT:
            DBT_TRY(dbt_parse_count(p, place, &f, min, "input", &out->n_inputs));
            break;
        case GRAPH_OUTPUT:
            DBT_TRY(dbt_parse_count(p, place, &f, min, "output", &out->n_outputs));
            break;
        case GRAPH_VALUE_INFO:
            DBT_TRY(dbt_parse_count(p, place, &f, min, "value_info", &out->n_value_infos));
            break;
        case GRAPH_SPARSE_INITIALIZER:
            return dbt_parse_fail(p, place, DIBIT_UNSUPPORTED, "has a sparse initializer");
        default: break;
        }
    }
    return dbt_parse_end(p, place, &m);
}

static dibit_status read_initializer(dbt_parse *p, const dbt_place *parent, uint32_t index,
                                     dbt_wire_message m, dbt_constant *out) {
    dbt_place place = {parent, "initializer", "", index};
    DBT_TRY(dbt_parse_tensor(p, &place, m, out));
    if (!out->name[0]) return dbt_parse_fail(p, &place, DIBIT_BAD_FILE, "has no name");
    return DIBIT_OK;
}

static dibit_status fill_graph(dbt_parse *p, const dbt_place *place, dbt_wire_message m,
                               dbt_onnx_graph *out) {
    dbt_onnx_node *nodes;
    dbt_constant *initializers;
    dbt_onnx_value_info *inputs, *outputs, *infos;
    DBT_TRY(dbt_parse_array(p, place, out->n_nodes, sizeof *nodes, &nodes));
    DBT_TRY(dbt_parse_array(p, place, out->n_initializers, sizeof *initializers, &initializers));
    DBT_TRY(dbt_parse_array(p, place, out->n_inputs, sizeof *inputs, &inputs));
    DBT_TRY(dbt_parse_array(p, place, out->n_outputs, sizeof *outputs, &outputs));
    DBT_TRY(dbt_parse_array(p, place, out->n_value_infos, sizeof *infos, &infos));
    out->nodes = nodes;
    out->initializers = initializers;
    out->inputs = inputs;
    out->outputs = outputs;
    out->value_infos = infos;
    uint32_t node = 0, initializer = 0, input = 0, output = 0, info = 0;
    dbt_wire_field f;
    while (dbt_wire_next(&m, &f)) {
        const dbt_wire_message in = dbt_wire_inside(&m, &f);
        switch (f.number) {
        case GRAPH_NODE:
            DBT_TRY(dbt_parse_node(p, place, node, in, &nodes[node]));
            node++;
            break;
        case GRAPH_INITIALIZER:
            DBT_TRY(read_initializer(p, place, initializer, in, &initializers[initializer]));
            initializer++;
            break;
        case GRAPH_INPUT:
            DBT_TRY(read_value_info(p, place, "input", input, in, &inputs[input]));
            input++;
            break;
        case GRAPH_OUTPUT:
            DBT_TRY(read_value_info(p, place, "output", output, in, &outputs[output]));
            output++;
            break;
        case GRAPH_VALUE_INFO:
            DBT_TRY(read_value_info(p, place, "value_info", info, in, &infos[info]));
            info++;
            break;
        default: break;
        }
    }
    return DIBIT_OK;
}

dibit_status dbt_parse_graph(dbt_parse *p, const dbt_place *parent, dbt_wire_message m,
                             dbt_onnx_graph *out) {
    *out = (dbt_onnx_graph){.name = ""};
    if (p->graph_depth == DBT_ONNX_MAX_GRAPH_DEPTH) {
        return dbt_parse_fail(p, parent, DIBIT_UNSUPPORTED, "graphs are nested more than %d deep",
                              DBT_ONNX_MAX_GRAPH_DEPTH);
    }
    p->graph_depth++;
    DBT_TRY(count_graph(p, parent, m, out));
    DBT_TRY(fill_graph(p, parent, m, out));
    p->graph_depth--;
    return DIBIT_OK;
}

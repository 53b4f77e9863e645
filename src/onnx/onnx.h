/* What an ONNX file says, as the reader found it: names resolved to C strings, nothing interpreted.
 * This folder is the only code that meets untrusted bytes; src/graph checks the rest.
 *
 * All memory is in the model's arena. Tensor payloads are not copied: a dbt_constant says where they
 * lie (source, offset, bytes) and points to them when they are resident. */
#ifndef DBT_ONNX_ONNX_H
#define DBT_ONNX_ONNX_H

#include "base/dtype.h"
#include "base/source.h"

/* A TensorProto. `bytes` are in ONNX's raw layout (little-endian, sub-byte types packed low bits
 * first) whatever field they came from, and exactly as many as type and dims ask for. */
typedef struct dbt_constant {
    const char *name; /* "" when it has none */
    dibit_type type;
    int32_t rank;
    int64_t dims[DIBIT_MAX_RANK];
    int64_t count;    /* elements */
    dbt_bytes bytes;  /* source NULL: only at data (typed fields that were converted) */
    const void *data; /* resident bytes, with no alignment promised; NULL: read them from source */
    const char *const *strings; /* STRING: count of them */
    void *loading;              /* dbt_constant_load's own, while it answers PENDING */
    /* A stack, which the planner makes for devices: its elements are those of its parts, each from `begin`
     * on; what lies between them is of no interest. It has neither a source nor data. */
    const struct dbt_constant_part *parts; /* NULL: no stack */
    uint32_t n_parts;
    const struct dbt_constant_matrix *matrix; /* NULL, or what it is made from when it is loaded */
} dbt_constant;

/* A matrix of another constant's elements, as plan/matrix.c lays them out. */
typedef struct dbt_constant_matrix {
    const dbt_constant *from;
    int64_t rows, columns; /* of the result */
    int64_t row_stride,
        column_stride; /* elements of `from` from one to the next; one of them is 1 */
    int64_t row_bytes; /* of the result */
    bool codes; /* of 2, 4 or 8 bits, which become unsigned ones, low bits first; else copied */
} dbt_constant_matrix;

typedef struct dbt_constant_part {
    const dbt_constant *constant;
    int64_t begin;
} dbt_constant_part;

typedef struct dbt_onnx_dim {
    int64_t value;     /* -1: not given */
    const char *param; /* symbolic name, or NULL */
} dbt_onnx_dim;

typedef struct dbt_onnx_value_info {
    const char *name;
    bool is_tensor;   /* false: sequence, map, optional, sparse tensor, or no type at all */
    const char *kind; /* "tensor", "sequence", "map", "optional", "sparse tensor" or "none" */
    dibit_type type;
    int32_t rank; /* -1: no shape given */
    dbt_onnx_dim dims[DIBIT_MAX_RANK];
} dbt_onnx_value_info;

typedef struct dbt_onnx_graph dbt_onnx_graph;

/* The values of AttributeProto.AttributeType. */
typedef enum dbt_onnx_attr_kind {
    DBT_ONNX_ATTR_UNDEFINED = 0,
    DBT_ONNX_ATTR_FLOAT = 1,
    DBT_ONNX_ATTR_INT = 2,
    DBT_ONNX_ATTR_STRING = 3,
    DBT_ONNX_ATTR_TENSOR = 4,
    DBT_ONNX_ATTR_GRAPH = 5,
    DBT_ONNX_ATTR_FLOATS = 6,
    DBT_ONNX_ATTR_INTS = 7,
    DBT_ONNX_ATTR_STRINGS = 8,
    DBT_ONNX_ATTR_OTHER =
        9 /* tensors, graphs, sparse tensors, type protos: nothing here uses them */
} dbt_onnx_attr_kind;

typedef struct dbt_onnx_attr {
    const char *name;
    dbt_onnx_attr_kind kind;
    const char *reference; /* in a function body: the function's attribute it stands for, or NULL */
    float f;
    int64_t i;
    const char *s;
    uint32_t count; /* of floats, ints or strings */
    const float *floats;
    const int64_t *ints;
    const char *const *strings;
    const dbt_constant *tensor;
    const dbt_onnx_graph *graph;
} dbt_onnx_attr;

typedef struct dbt_onnx_node {
    const char *name, *op_type, *domain, *overload; /* "" when not given; domain "" is ai.onnx */
    const char *const *inputs;                      /* "" for an absent optional input */
    const char *const *outputs;
    const dbt_onnx_attr *attrs;
    uint32_t n_inputs, n_outputs, n_attrs;
} dbt_onnx_node;

struct dbt_onnx_graph {
    const char *name;
    const dbt_onnx_node *nodes;
    const dbt_constant *initializers;
    const dbt_onnx_value_info *inputs, *outputs, *value_infos;
    uint32_t n_nodes, n_initializers, n_inputs, n_outputs, n_value_infos;
};

typedef struct dbt_onnx_opset {
    const char *domain; /* "ai.onnx" is read as "" */
    int64_t version;
} dbt_onnx_opset;

typedef struct dbt_onnx_function {
    const char *name, *domain, *overload;
    const char *const *inputs, *const *outputs;
    const char *const *attr_names; /* without default */
    const dbt_onnx_attr *attr_defaults;
    const dbt_onnx_node *nodes;
    const dbt_onnx_opset *opsets;
    uint32_t n_inputs, n_outputs, n_attr_names, n_attr_defaults, n_nodes, n_opsets;
} dbt_onnx_function;

typedef struct dbt_onnx_metadata {
    const char *key, *value;
} dbt_onnx_metadata;

typedef struct dbt_onnx_model {
    int64_t ir_version;
    const char *producer_name, *producer_version;
    const dbt_onnx_opset *opsets;
    const dbt_onnx_function *functions;
    const dbt_onnx_metadata *metadata;
    const dbt_onnx_graph *graph;
    uint32_t n_opsets, n_functions, n_metadata;
} dbt_onnx_model;

/* ---- Reading ------------------------------------------------------------------------------ */

/* Opens external files for the reader, keeps them open for the model's life, and closes them. */
typedef struct dbt_onnx_reader dbt_onnx_reader;

typedef struct dbt_onnx_reader_desc {
    const dbt_source *source; /* the model file; lives as long as the reader */
    const char *path;         /* the model's file: external data lies in its folder; or NULL */
    dibit_open_external open_external; /* asked instead of looking beside `path` when set */
    void *open_external_user;
    dbt_arena *arena; /* takes everything that is read */
} dbt_onnx_reader_desc;

dibit_status dbt_onnx_reader_create(const dbt_onnx_reader_desc *desc, dbt_onnx_reader **out,
                                    dibit_error *error);
/* PENDING while the source has not got the bytes yet. On success *out lies in the arena. */
dibit_status dbt_onnx_reader_poll(dbt_onnx_reader *reader, const dbt_onnx_model **out,
                                  dibit_error *error);
/* Closes the external files: constants of the model must not be read afterwards. */
void dbt_onnx_reader_destroy(dbt_onnx_reader **reader);

/* A single TensorProto, as in test_data_set_N/input_0.pb. The source is mapped or a buffer, and
 * outlives *out. */
dibit_status dbt_onnx_read_tensor(const dbt_source *source, dbt_arena *arena, dbt_constant *out,
                                  dibit_error *error);

/* Makes a constant's bytes resident: reads them into the arena when they are only in a source that
 * is not mapped. May answer PENDING. */
dibit_status dbt_constant_load(dbt_constant *constant, dbt_arena *arena, dibit_error *error);

#endif

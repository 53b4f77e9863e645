/* Runs one op without a graph or a session, and proves on the way what every op promises:
 *   - the attributes parse through the op's table;
 *   - infer with symbolic dims (and symbolic host values) evaluates to what infer with constants says;
 *   - contents that infer promises are what cpu_run computes;
 *   - cpu_run writes neither beyond its outputs nor beyond its scratch;
 *   - results do not depend on the number of threads, nor (DBT_OP_IN_PLACE) on sharing memory.
 * A broken promise fails the test; a status that the op returns is returned. */
#ifndef DBT_TESTS_OP_HARNESS_H
#define DBT_TESTS_OP_HARNESS_H

#include "ops/op.h"

enum { DBT_CASE_MAX = 32 }; /* inputs, and outputs */

typedef struct dbt_op_case {
    const char *domain; /* NULL is ai.onnx */
    const char *name;
    int32_t opset;
    const dbt_onnx_attr *attrs;
    uint32_t n_attrs;
    const dibit_tensor *inputs; /* as an ONNX file has them; type UNDEFINED: absent */
    uint32_t n_inputs;
    uint32_t constants;      /* bit i: input i is an initializer */
    uint32_t n_outputs;      /* default 1 */
    uint32_t absent_outputs; /* bit i: output i is not wanted */
    uint64_t isa;            /* mask as in dibit_device_desc */
    dibit_activations activations;
} dbt_op_case;

typedef struct dbt_op_result {
    dbt_arena arena;                /* owns all below */
    dibit_type types[DBT_CASE_MAX]; /* as infer says */
    dibit_tensor out[DBT_CASE_MAX]; /* in storage type; data NULL where not wanted */
    float *bound[DBT_CASE_MAX];     /* rounding bound per element of a float output, else NULL */
    const char *kernel;
} dbt_op_result;

/* On failure nothing is to be freed. */
dibit_status dbt_op_case_run(const dbt_op_case *c, dbt_op_result *result, dibit_error *error);
void dbt_op_result_free(dbt_op_result *result);

/* Fails the test unless the case runs and output i has these dims and elements: of the storage type,
 * compared within the op's bound where they are floats (NaN equals NaN). */
void dbt_op_case_expect(const dbt_op_case *c, uint32_t i, const dibit_tensor *want);
/* Fails the test unless the case ends with `status` and the sentence contains `text`. */
void dbt_op_case_refused(const dbt_op_case *c, dibit_status status, const char *text);

/* A tensor literal: DBT_TENSOR(DIBIT_TYPE_FLOAT, data, 2, 3); DBT_SCALAR has rank 0. */
#define DBT_TENSOR(type_, data_, ...)                                                              \
    {.name = #data_,                                                                               \
     .type = (type_),                                                                              \
     .rank = (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                        \
     .dims = {__VA_ARGS__},                                                                        \
     .data = (void *)(uintptr_t)(data_)}
#define DBT_SCALAR(type_, data_)                                                                   \
    {.name = #data_, .type = (type_), .rank = 0, .data = (void *)(uintptr_t)(data_)}
#define DBT_ABSENT {.type = DIBIT_TYPE_UNDEFINED}

/* Attribute literals. */
#define DBT_INT(name_, v_) {.name = (name_), .kind = DBT_ONNX_ATTR_INT, .i = (v_)}
#define DBT_FLOAT(name_, v_) {.name = (name_), .kind = DBT_ONNX_ATTR_FLOAT, .f = (v_)}
#define DBT_STRING(name_, v_) {.name = (name_), .kind = DBT_ONNX_ATTR_STRING, .s = (v_)}
#define DBT_INTS(name_, ...)                                                                       \
    {                                                                                              \
        .name = (name_), .kind = DBT_ONNX_ATTR_INTS,                                               \
        .count = sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t),                         \
        .ints = (const int64_t[]) {                                                                \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

#endif

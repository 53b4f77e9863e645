/* Tests of ops as tables: a row is an op with attributes and inputs, and its outputs or its
 * refusal. Every row runs with its inputs as graph inputs, and again as initializers. */
#ifndef DBT_TESTS_OP_ROWS_H
#define DBT_TESTS_OP_ROWS_H

#include "dbt_test.h"
#include "op_harness.h"

typedef struct op_row {
    const char *name;
    int32_t opset;
    dbt_onnx_attr attrs[4]; /* ended by one without a name */
    dibit_tensor in[8];     /* ended by one without a name; ROW_ABSENT for one that is absent */
    dibit_tensor out[4];    /* likewise */
    dibit_status status;    /* refused with this, and a sentence that contains text */
    const char *text;
} op_row;

#define ROW_ABSENT {.name = "absent", .type = DIBIT_TYPE_UNDEFINED}
#define I64(...) ((const int64_t[]){__VA_ARGS__})
#define I32(...) ((const int32_t[]){__VA_ARGS__})
#define I8(...) ((const int8_t[]){__VA_ARGS__})
#define U8(...) ((const uint8_t[]){__VA_ARGS__})
#define U16(...) ((const uint16_t[]){__VA_ARGS__})
#define F32(...) ((const float[]){__VA_ARGS__})
#define TI64(data, ...) DBT_TENSOR(DIBIT_TYPE_INT64, data, __VA_ARGS__)
#define TI32(data, ...) DBT_TENSOR(DIBIT_TYPE_INT32, data, __VA_ARGS__)
#define TI8(data, ...) DBT_TENSOR(DIBIT_TYPE_INT8, data, __VA_ARGS__)
#define TU8(data, ...) DBT_TENSOR(DIBIT_TYPE_UINT8, data, __VA_ARGS__)
#define TB(data, ...) DBT_TENSOR(DIBIT_TYPE_BOOL, data, __VA_ARGS__)
#define TF32(data, ...) DBT_TENSOR(DIBIT_TYPE_FLOAT, data, __VA_ARGS__)

static inline void op_row_check(const op_row *row, uint32_t constants) {
    dbt_op_case c = {.name = row->name,
                     .opset = row->opset,
                     .attrs = row->attrs,
                     .inputs = row->in,
                     .constants = constants};
    while (c.n_attrs < 4 && row->attrs[c.n_attrs].name) c.n_attrs++;
    while (c.n_inputs < 8 && row->in[c.n_inputs].name) c.n_inputs++;
    while (c.n_outputs < 4 && row->out[c.n_outputs].name) c.n_outputs++;
    if (row->status) {
        dbt_op_case_refused(&c, row->status, row->text);
        return;
    }
    for (uint32_t i = 0; i < c.n_outputs; i++) dbt_op_case_expect(&c, i, &row->out[i]);
}

static inline void op_rows_check(const op_row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        print_message("row %zu: %s\n", i, rows[i].name);
        op_row_check(&rows[i], 0);
        op_row_check(&rows[i], 0xfe); /* what is computed on, and what says how */
        op_row_check(&rows[i], 0xff);
    }
}
#define OP_ROWS_CHECK(rows) op_rows_check(rows, sizeof(rows) / sizeof *(rows))

#endif

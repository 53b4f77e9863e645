/* Writes ONNX files: the reader's structs back to bytes. */
#ifndef DBT_ONNX_ONNX_WRITE_H
#define DBT_ONNX_ONNX_WRITE_H

#include "onnx/onnx.h"

/* A ModelProto, in one pass from front to back. Functions and metadata are left out, and so are
 * attributes of kind OTHER and values that are no tensors, of which the reader keeps nothing. All
 * constants are resident. */
void dbt_onnx_write_model(const dbt_onnx_model *model, dibit_write write, void *user);
/* A TensorProto, as in test_data_set_N/input_0.pb. The constant is resident. */
void dbt_onnx_write_tensor(const dbt_constant *tensor, dibit_write write, void *user);

#endif

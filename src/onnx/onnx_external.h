/* External data: files beside the model, opened once each. Private to src/onnx. */
#ifndef DBT_ONNX_ONNX_EXTERNAL_H
#define DBT_ONNX_ONNX_EXTERNAL_H

#include "onnx/onnx_parse.h"

typedef struct dbt_onnx_file {
    struct dbt_onnx_file *next;
    const char *location;
    dbt_source source;
} dbt_onnx_file;

/* Relative, of one or more names that are not "..", without backslash, drive or scheme. */
bool dbt_onnx_location_is_safe(const char *location);

/* Opens the files of *externals that are not open yet, and points their constants into them. Takes
 * what is done off the list: after PENDING call again. */
dibit_status dbt_onnx_resolve_externals(const dbt_onnx_reader_desc *desc,
                                        dbt_onnx_external **externals, dbt_onnx_file **files,
                                        dibit_error *error);

#endif

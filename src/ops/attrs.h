/* Attributes of a node, as the reader found them, into the struct that its op declares. Graph build
 * calls this once per node; tests of single ops do too. */
#ifndef DBT_OPS_ATTRS_H
#define DBT_OPS_ATTRS_H

#include "ops/op.h"

/* Makes the op's attribute struct in the arena: defaults first, then what is given. BAD_FILE, naming
 * the attribute, for one that the op does not have, that is given twice, has the wrong kind, or is
 * required and missing. Arrays, strings and tensors are borrowed from `given`. */
dibit_status dbt_attrs_parse(const dbt_op *op, const dbt_onnx_attr *given, uint32_t n_given,
                             dbt_arena *arena, const void **out, dibit_error *error);

#endif

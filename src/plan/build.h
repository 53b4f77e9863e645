/* From what an ONNX file says to a checked, typed graph with inferred shapes. */
#ifndef DBT_PLAN_BUILD_H
#define DBT_PLAN_BUILD_H

#include "ops/op.h"

/* Constants below this size are read while a model loads, and folded when nodes compute them. */
enum { DBT_SMALL_CONSTANT = 65536 };

/* Makes the model's small constants resident. May answer PENDING: call again. */
dibit_status dbt_load_small_constants(const dbt_onnx_model *model, dbt_arena *arena,
                                      dibit_error *error);

/* Resolves operators, inlines functions and If branches, infers, folds constants. The small
 * constants must be resident. Errors name the node, and the attribute, input or output. input_ranks, which may
 * be NULL, has the ranks of inputs that the model gives none; where one is missing (-1), the graph has inputs and
 * outputs alone, and `shapeless` names that input. */
dibit_status dbt_graph_build(const dbt_onnx_model *model, dbt_arena *arena,
                             const int32_t *input_ranks, dbt_graph **out, dibit_error *error);

/* Makes a value constant: its shape, type, and contents when it is a small integer tensor. */
dibit_status dbt_value_set_constant(dbt_graph *graph, dbt_value *value, dbt_constant *constant,
                                    dibit_error *error);

/* Runs the node's infer and checks what it made. Used again by rewrites that change shapes. */
dibit_status dbt_node_infer(dbt_graph *graph, dbt_node *node, dibit_error *error);

/* Sets contents of a small integer value from its elements (storage type, unaligned). */
dibit_status dbt_set_contents(dbt_dims *dims, dbt_arena *arena, dbt_value *value, const void *data,
                              int64_t count, dibit_error *error);
/* Element i of a tensor of an integer type or bool := v. */
void dbt_write_integer(dibit_type type, void *data, int64_t i, int64_t v);
/* What every inferred value must be: a supported type, dims that exist and make sense. */
dibit_status dbt_check_inferred(const dbt_dims *dims, const dbt_value *value, dibit_error *error);

/* Turns the outputs of a node into constants when its inputs are small constants or its outputs'
 * contents are known numbers. *folded says whether it did; a node that fails is left for run time. */
dibit_status dbt_fold_node(dbt_graph *graph, dbt_node *node, bool *folded, dibit_error *error);

/* plan/rewrite_dequantize.c: a DequantizeLinear that is better kept than folded. */
bool dbt_dequantizes_weights(const dbt_node *node);

#endif

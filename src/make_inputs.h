/* Sets of tensors that are made here: inputs of a prompt, of the step after it, or of a node by itself. */
#ifndef DBT_MAKE_INPUTS_H
#define DBT_MAKE_INPUTS_H

#include "dibit/dibit.h"
#include "onnx/tensor_files.h"

/* Room for `capacity` tensors. */
dibit_status dbt_tensors_create(const dibit_allocator *allocator, uint32_t capacity,
                                dibit_tensors **out, dibit_error *error);
/* Adds a tensor of t's type and dims, of zeros; name and dims are copied. */
dibit_status dbt_tensors_add(dibit_tensors *set, const char *name, const dibit_tensor *t,
                             dibit_error *error);
/* Adds the elements of `from` in another type. */
dibit_status dbt_tensors_add_as(dibit_tensors *set, const char *name, const dibit_tensor *from,
                                dibit_type type, dibit_error *error);

/* The step after a prompt of so many tokens that the session, which keeps its values, has just run: its past, and the
 * likeliest token of its logits. */
dibit_status dbt_tensors_make_step(const dibit_session *session, uint32_t tokens, uint64_t seed,
                                   dibit_tensors **out, dibit_error *error);

#endif

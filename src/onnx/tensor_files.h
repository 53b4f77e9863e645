/* Sets of tensors, and the formats of files behind dibit_tensors_load. */
#ifndef DBT_ONNX_TENSOR_FILES_H
#define DBT_ONNX_TENSOR_FILES_H

#include "base/source.h"

/* Tensors so far. Data is aligned to 64 bytes, in the arena. */
struct dibit_tensors {
    dbt_arena arena;
    dibit_tensor *tensors;
    uint32_t count;
};

/* Reads any of the formats from memory: what dibit_tensors_load does with a mapped file. */
dibit_status dbt_tensors_read(const dbt_source *source, struct dibit_tensors *out,
                              dibit_error *error);

/* One .npy file. `name` is for errors; the tensor's name is the caller's to set. */
dibit_status dbt_npy_read(const uint8_t *data, uint64_t bytes, const char *name, dbt_arena *arena,
                          dibit_tensor *out, dibit_error *error);
/* A .npz file: a zip of .npy files, each a tensor with the entry's name without ".npy". */
dibit_status dbt_npz_read(const dbt_source *source, struct dibit_tensors *out, dibit_error *error);

/* A fresh place for a tensor's data. */
dibit_status dbt_tensor_reserve(dbt_arena *arena, uint64_t bytes, dibit_tensor *out,
                                dibit_error *error);

#endif

/* What `dibit diff` and `dibit trace` feed: files (diff_inputs.c). And the failing node as files (diff_save.c). */
#ifndef DIBIT_CLI_DIFF_H
#define DIBIT_CLI_DIFF_H

#include "dibit/debug.h"

#include "cli.h"

/* Tensors that own their data and names. */
typedef struct diff_tensors {
    dibit_tensor *list;
    uint32_t n;
} diff_tensors;

/* The inputs in a test_data_set, or in a folder's first, or in a .npz; with `outputs` not NULL, and no file, what
 * its outputs should be too. False after writing a sentence to error. */
bool diff_load(const dibit_model *model, const char *from, diff_tensors *inputs,
               diff_tensors *outputs, dibit_error *error);
void diff_free_tensors(diff_tensors *tensors);

/* Writes the node as a folder that `dibit check` runs. */
bool diff_save(const dibit_diff_case *what, const char *folder, dibit_error *error);

#endif

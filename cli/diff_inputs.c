/* Inputs of `dibit diff` and `dibit trace` from files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "diff.h"

static void add(diff_tensors *tensors, const dibit_tensor *tensor) {
    dibit_tensor *const list = dibit_cli_alloc(tensors->n + 1, sizeof *list);
    if (tensors->n) memcpy(list, tensors->list, tensors->n * sizeof *list);
    free(tensors->list);
    tensors->list = list;
    dibit_tensor *const t = &list[tensors->n++];
    *t = *tensor;
    t->name = dibit_cli_format("%s", tensor->name);
    t->bytes = ((uint64_t)dibit_tensor_count(t) * dibit_type_bits(t->type) + 7) / 8;
    t->data = dibit_cli_alloc((size_t)t->bytes + 1, 1);
    if (t->bytes && tensor->data) memcpy(t->data, tensor->data, (size_t)t->bytes);
}

void diff_free_tensors(diff_tensors *tensors) {
    for (uint32_t i = 0; i < tensors->n; i++) {
        free((char *)(uintptr_t)tensors->list[i].name);
        free(tensors->list[i].data);
    }
    free(tensors->list);
    *tensors = (diff_tensors){0};
}

static bool load_set(const dibit_model *model, const char *folder, diff_tensors *inputs,
                     diff_tensors *outputs, dibit_error *error) {
    char *inner = dibit_cli_format("%s/test_data_set_0", folder);
    uint32_t n = 0;
    char **names = dibit_cli_list_folder(inner, &n);
    check_set set = {0};
    check_set_load(&set, names ? inner : folder, model);
    const bool ok = set.result == CHECK_PASSED && set.n_inputs + set.n_expected > 0;
    if (!ok) {
        snprintf(error->text, sizeof error->text, "%.200s: %.290s", folder,
                 set.reason[0] ? set.reason : "there is no test data");
    }
    for (uint32_t i = 0; ok && i < set.n_inputs; i++) add(inputs, &set.inputs[i]);
    for (uint32_t i = 0; ok && outputs && i < set.n_expected; i++) add(outputs, &set.expected[i]);
    check_set_free(&set);
    for (uint32_t i = 0; i < n; i++) free(names[i]);
    free(names);
    free(inner);
    return ok;
}

static bool load_file(const char *path, diff_tensors *inputs, dibit_error *error) {
    dibit_tensors *file = NULL;
    if (dibit_tensors_load(path, &file, error)) return false;
    for (uint32_t i = 0; i < dibit_tensors_count(file); i++)
        add(inputs, dibit_tensors_get(file, i));
    dibit_tensors_destroy(&file);
    return true;
}

bool diff_load(const dibit_model *model, const char *from, diff_tensors *inputs,
               diff_tensors *outputs, dibit_error *error) {
    return dibit_cli_is_file(from) ? load_file(from, inputs, error)
                                   : load_set(model, from, inputs, outputs, error);
}

/* Loading a case of `dibit check`: a folder with an ONNX model and test_data_set_N folders, whose
 * input_I.pb and output_I.pb are TensorProtos. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static const char set_prefix[] = "test_data_set_";

/* The number that a name of the form PREFIX number SUFFIX has, or -1. */
static long name_number(const char *name, const char *prefix, const char *suffix) {
    const size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) != 0 || name[n] < '0' || name[n] > '9') return -1;
    char *end;
    const long number = strtol(name + n, &end, 10);
    return strcmp(end, suffix) == 0 ? number : -1;
}

static int compare_numbers(const void *a, const void *b) {
    const long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

/* The numbers of the folder's entries of that form, ascending. */
static uint32_t list_numbers(const char *folder, const char *prefix, const char *suffix,
                             long **out) {
    uint32_t n = 0, capacity = 0;
    *out = NULL;
    DIR *dir = opendir(folder);
    if (!dir) return 0;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        const long number = name_number(entry->d_name, prefix, suffix);
        if (number < 0) continue;
        if (n == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            long *grown = dibit_cli_alloc(capacity, sizeof **out);
            if (n) memcpy(grown, *out, n * sizeof **out);
            free(*out);
            *out = grown;
        }
        (*out)[n++] = number;
    }
    closedir(dir);
    if (n) qsort(*out, n, sizeof **out, compare_numbers);
    return n;
}

/* Loads input_*.pb or output_*.pb into a list of tensors. Tensors without a name get the graph's. */
static bool load_tensors(check_set *set, const dibit_model *model, const char *folder,
                         bool is_input, uint32_t *n_out, dibit_tensor **out) {
    const char *prefix = is_input ? "input_" : "output_";
    long *numbers;
    const uint32_t n = list_numbers(folder, prefix, ".pb", &numbers);
    *out = dibit_cli_alloc(n, sizeof **out);
    bool ok = true;
    for (uint32_t i = 0; ok && i < n; i++) {
        char *path = dibit_cli_format("%s/%s%ld.pb", folder, prefix, numbers[i]);
        dibit_error error;
        dibit_tensors *file = NULL;
        dibit_value_info info = {.name = NULL};
        if (dibit_tensors_load(path, &file, &error)) {
            snprintf(set->reason, sizeof set->reason, "%s", error.text);
            ok = false;
        } else {
            set->files[set->n_files++] = file;
            dibit_tensor *tensor = &(*out)[i];
            *tensor = *dibit_tensors_get(file, 0);
            const uint32_t index = (uint32_t)numbers[i];
            if (tensor->name && tensor->name[0]) {
            } else if ((is_input ? dibit_model_input : dibit_model_output)(model, index, &info)) {
                snprintf(set->reason, sizeof set->reason, "%s: the graph has no %s %u", path,
                         is_input ? "input" : "output", index);
                ok = false;
            } else {
                tensor->name = info.name;
            }
            if (ok) *n_out = i + 1;
        }
        free(path);
    }
    free(numbers);
    return ok;
}

void check_set_load(check_set *set, const char *folder, const dibit_model *model) {
    long *numbers;
    uint32_t n = list_numbers(folder, "input_", ".pb", &numbers);
    free(numbers);
    n += list_numbers(folder, "output_", ".pb", &numbers);
    free(numbers);
    set->files = dibit_cli_alloc(n, sizeof *set->files);
    set->parent = -1;
    if (!load_tensors(set, model, folder, true, &set->n_inputs, &set->inputs) ||
        !load_tensors(set, model, folder, false, &set->n_expected, &set->expected)) {
        set->result = CHECK_FAILED;
    }
    set->outputs = dibit_cli_alloc(set->n_expected, sizeof *set->outputs);
}

void check_set_free(check_set *set) {
    for (uint32_t i = 0; set->outputs && i < set->n_expected; i++) {
        check_output *const out = &set->outputs[i];
        if (out->still.data != out->got.data) free(out->still.data);
        free(out->got.data);
    }
    for (uint32_t i = 0; i < set->n_files; i++) dibit_tensors_destroy(&set->files[i]);
    free(set->name);
    free(set->files);
    free(set->inputs);
    free(set->expected);
    free(set->outputs);
}

static void load_set(const check_case *c, check_set *set) {
    char *folder = dibit_cli_format("%s/%s", c->folder, set->name);
    check_set_load(set, folder, c->model);
    free(folder);
    if (set->result == CHECK_PASSED && set->n_expected == 0) {
        snprintf(set->reason, sizeof set->reason, "there are no expected outputs");
        set->result = CHECK_SKIPPED;
    }
}

void check_case_load(check_case *c, const char *folder, const char *name, const char *model_path) {
    *c = (check_case){.folder = dibit_cli_format("%s", folder),
                      .name = dibit_cli_format("%s", name),
                      .model_path = dibit_cli_format("%s", model_path)};
    long *numbers;
    c->n_sets = list_numbers(folder, set_prefix, "", &numbers);
    c->sets = dibit_cli_alloc(c->n_sets, sizeof *c->sets);
    for (uint32_t i = 0; i < c->n_sets; i++) {
        c->sets[i].name = dibit_cli_format("%s%ld", set_prefix, numbers[i]);
    }
    free(numbers);
    if (c->n_sets == 0) {
        c->result = CHECK_SKIPPED;
        snprintf(c->reason, sizeof c->reason, "there is no %sN", set_prefix);
        return;
    }
    dibit_error error;
    const dibit_status status =
        dibit_model_load(&(dibit_model_desc){.path = model_path}, &c->model, &error);
    if (status) {
        c->result = status == DIBIT_UNSUPPORTED ? CHECK_SKIPPED : CHECK_FAILED;
        snprintf(c->reason, sizeof c->reason, "%s", error.text);
        return;
    }
    for (uint32_t i = 0; i < c->n_sets; i++) load_set(c, &c->sets[i]);
}

void check_case_free(check_case *c) {
    for (uint32_t i = 0; i < c->n_sets; i++) check_set_free(&c->sets[i]);
    dibit_model_destroy(&c->model);
    free(c->sets);
    free(c->folder);
    free(c->name);
    free(c->model_path);
}

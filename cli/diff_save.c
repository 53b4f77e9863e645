/* The failing node of `dibit diff` as an ONNX test folder: model.onnx with its weights,
 * test_data_set_0/input_I.pb, and output_I.pb with the reference's answer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "diff.h"

static void write_file(void *user, const char *data, size_t n) { fwrite(data, 1, n, user); }

static bool fail_io(const char *path, dibit_error *error) {
    snprintf(error->text, sizeof error->text, "%.400s: %s", path, strerror(errno));
    return false;
}

static bool make_folder(const char *path, dibit_error *error) {
    return mkdir(path, 0777) == 0 || errno == EEXIST || fail_io(path, error);
}

/* Closes what was written. */
static bool finish(FILE *file, const char *path, dibit_error *error) {
    const bool failed = ferror(file) != 0;
    return (fclose(file) == 0 && !failed) || fail_io(path, error);
}

static bool save_model(const dibit_diff_case *what, const char *folder, dibit_error *error) {
    char *path = dibit_cli_format("%s/model.onnx", folder);
    FILE *file = fopen(path, "wb");
    bool ok = file || fail_io(path, error);
    if (file) {
        write_file(file, what->model, (size_t)what->model_bytes);
        ok = finish(file, path, error);
    }
    free(path);
    return ok;
}

static bool save_tensor(const char *folder, const char *kind, uint32_t index,
                        const dibit_tensor *tensor, dibit_error *error) {
    char *path = dibit_cli_format("%s/test_data_set_0/%s_%u.pb", folder, kind, (unsigned)index);
    FILE *file = fopen(path, "wb");
    bool ok = file || fail_io(path, error);
    if (file) {
        ok = dibit_tensor_write(tensor, write_file, file, error) == DIBIT_OK;
        ok = finish(file, path, error) && ok;
    }
    free(path);
    return ok;
}

bool diff_save(const dibit_diff_case *what, const char *folder, dibit_error *error) {
    char *set = dibit_cli_format("%s/test_data_set_0", folder);
    bool ok =
        make_folder(folder, error) && make_folder(set, error) && save_model(what, folder, error);
    for (uint32_t i = 0; ok && i < what->n_inputs; i++) {
        ok = save_tensor(folder, "input", i, &what->inputs[i], error);
    }
    for (uint32_t i = 0; ok && i < what->n_outputs; i++) {
        ok = save_tensor(folder, "output", i, &what->outputs[i], error);
    }
    free(set);
    return ok;
}

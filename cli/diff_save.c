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

static bool save_model(const diff_part *part, const char *folder, dibit_error *error) {
    char *path = dibit_cli_format("%s/model.onnx", folder);
    FILE *file = fopen(path, "wb");
    bool ok = file || fail_io(path, error);
    if (file) {
        write_file(file, part->bytes, part->n_bytes);
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

static bool save_outputs(const diff_context *c, const diff_part *part, const char *folder,
                         dibit_error *error) {
    const uint32_t n = dibit_model_output_count(part->model);
    dibit_tensor *const outputs = dibit_cli_alloc(n, sizeof *outputs);
    for (uint32_t i = 0; i < n; i++) {
        dibit_value_info info;
        dibit_model_output(part->model, i, &info);
        outputs[i].name = info.name;
    }
    const dibit_session_desc desc = {.device = c->cpu,
                                     .activations = c->options.common.activations};
    const dibit_run run = {.inputs = part->inputs.list,
                           .n_inputs = part->inputs.n,
                           .outputs = outputs,
                           .n_outputs = n};
    dibit_session *session = NULL;
    bool ok = !dibit_session_create(part->model, &desc, &session, error) &&
              !dibit_session_run(session, &run, error);
    for (uint32_t i = 0; ok && i < n; i++) {
        ok = save_tensor(folder, "output", i, &outputs[i], error);
    }
    dibit_session_destroy(&session);
    free(outputs);
    return ok;
}

bool diff_save(const diff_context *c, uint32_t node, const char *folder, dibit_error *error) {
    diff_part part;
    char *set = dibit_cli_format("%s/test_data_set_0", folder);
    bool ok = diff_take_out(c, node, &part, error) && make_folder(folder, error) &&
              make_folder(set, error) && save_model(&part, folder, error);
    for (uint32_t i = 0; ok && i < part.inputs.n; i++) {
        ok = save_tensor(folder, "input", i, &part.inputs.list[i], error);
    }
    ok = ok && save_outputs(c, &part, folder, error);
    diff_free_part(&part);
    free(set);
    return ok;
}

/* Runs a model with one input x and prints its first output: the smallest program on top of the
 * installed library. usage: linear MODEL.onnx X0 X1 ... */
#include <stdio.h>
#include <stdlib.h>

#include <dibit/dibit.h>

enum { MAX_VALUES = 1024 };

static int fail(const dibit_error *error) {
    fprintf(stderr, "%s: %s\n", dibit_status_name(error->status), error->text);
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc - 2 > MAX_VALUES) {
        fprintf(stderr, "usage: %s MODEL.onnx X0 X1 ...\n", argv[0]);
        return 2;
    }
    float x[MAX_VALUES];
    for (int i = 2; i < argc; i++) x[i - 2] = strtof(argv[i], NULL);

    dibit_error error;
    dibit_model *model = NULL;
    dibit_session *session = NULL;
    dibit_value_info in, out;
    if (dibit_model_load(&(dibit_model_desc){.path = argv[1]}, &model, &error)) return fail(&error);
    if (dibit_session_create(model, NULL, &session, &error)) return fail(&error);
    if (dibit_model_input(model, 0, &in) || dibit_model_output(model, 0, &out)) return 1;

    const dibit_tensor input = {
        .name = in.name, .type = DIBIT_TYPE_FLOAT, .rank = 2, .dims = {1, argc - 2}, .data = x};
    dibit_tensor output = {.name = out.name}; /* data NULL: the session owns the result */
    const dibit_run run = {.inputs = &input, .n_inputs = 1, .outputs = &output, .n_outputs = 1};
    if (dibit_session_run(session, &run, &error)) return fail(&error);

    int64_t count = 1;
    for (int i = 0; i < output.rank; i++) count *= output.dims[i];
    for (int64_t i = 0; i < count; i++) printf("%g\n", ((const float *)output.data)[i]);

    dibit_session_destroy(&session);
    dibit_model_destroy(&model);
    return 0;
}

/* Times runs of any ONNX model with float inputs, so that engines can be compared on one file: every
 * symbolic dim is ROWS, inputs are seeded noise. Prints a JSON list of milliseconds a run.
 * usage: bench_model MODEL.onnx ROWS THREADS auto|float|int8 REPETITIONS */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dibit/dibit.h"

enum { MAX_INPUTS = 16, MAX_OUTPUTS = 16 };

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static int fail(const char *sentence) {
    fprintf(stderr, "bench_model: %s\n", sentence);
    return 1;
}

static bool make_input(const dibit_value_info *info, int64_t rows, dibit_tensor *out) {
    if (info->type != DIBIT_TYPE_FLOAT || info->rank < 0) return false;
    *out = (dibit_tensor){.name = info->name, .type = info->type, .rank = info->rank};
    int64_t count = 1;
    for (int32_t i = 0; i < info->rank; i++) {
        out->dims[i] = info->dims[i] < 0 ? rows : info->dims[i];
        count *= out->dims[i];
    }
    float *data = malloc((size_t)count * sizeof *data);
    uint32_t seed = 1;
    for (int64_t i = 0; data && i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (float)(seed >> 8) * 0x1p-23f - 1;
    }
    out->data = data;
    return data != NULL;
}

int main(int argc, char **argv) {
    if (argc != 6)
        return fail("usage: bench_model MODEL.onnx ROWS THREADS auto|float|int8 REPETITIONS");
    const int64_t rows = strtoll(argv[2], NULL, 10);
    const char *kind = argv[4];
    const int repetitions = (int)strtol(argv[5], NULL, 10);
    dibit_error error;
    dibit_model *model = NULL;
    dibit_device *device = NULL;
    dibit_session *session = NULL;
    const dibit_device_desc device_desc = {.n_threads = (uint32_t)strtoul(argv[3], NULL, 10)};
    if (dibit_device_create(&device_desc, &device, &error)) return fail(error.text);
    if (dibit_model_load(&(dibit_model_desc){.path = argv[1]}, &model, &error))
        return fail(error.text);
    const dibit_session_desc desc = {
        .device = device,
        .activations = strcmp(kind, "float") == 0  ? DIBIT_ACTIVATIONS_FLOAT
                       : strcmp(kind, "int8") == 0 ? DIBIT_ACTIVATIONS_INT8
                                                   : DIBIT_ACTIVATIONS_AUTO,
    };
    if (dibit_session_create(model, &desc, &session, &error)) return fail(error.text);

    dibit_tensor inputs[MAX_INPUTS], outputs[MAX_OUTPUTS];
    dibit_value_info info;
    dibit_run run = {.inputs = inputs, .outputs = outputs};
    for (uint32_t i = 0; i < MAX_INPUTS && dibit_model_input(model, i, &info) == DIBIT_OK; i++) {
        if (!make_input(&info, rows, &inputs[run.n_inputs++])) return fail("inputs must be float");
    }
    for (uint32_t i = 0; i < MAX_OUTPUTS && dibit_model_output(model, i, &info) == DIBIT_OK; i++) {
        outputs[run.n_outputs++] = (dibit_tensor){.name = info.name};
    }
    printf("[");
    for (int i = -2; i < repetitions; i++) { /* two to warm up */
        for (uint32_t j = 0; j < run.n_outputs; j++) outputs[j].data = NULL;
        const double start = milliseconds();
        if (dibit_session_run(session, &run, &error)) return fail(error.text);
        if (i >= 0) printf("%s%.4f", i ? ", " : "", milliseconds() - start);
    }
    printf("]\n");
    for (uint32_t i = 0; i < run.n_inputs; i++) free(inputs[i].data);
    dibit_session_destroy(&session);
    dibit_model_destroy(&model);
    dibit_device_destroy(&device);
    return 0;
}

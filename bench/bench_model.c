/* Times runs of any ONNX model with float inputs, so that engines can be compared on one file: inputs are
 * seeded noise. Prints "ready", then answers each line of standard input, ROWS SECONDS, with the median
 * seconds of a run in which every symbolic dim is ROWS, of runs for so many seconds.
 * usage: bench_model MODEL.onnx THREADS auto|float|int8 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dibit/dibit.h"

enum { MAX_INPUTS = 16, MAX_OUTPUTS = 16, MAX_TIMES = 10000 };

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
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

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of runs for so many seconds, after one to warm up; negative after a failure. */
static double measure(const dibit_model *model, dibit_session *session, int64_t rows,
                      double limit) {
    static double times[MAX_TIMES];
    dibit_error error;
    dibit_tensor inputs[MAX_INPUTS], outputs[MAX_OUTPUTS];
    dibit_value_info info;
    dibit_run run = {.inputs = inputs, .outputs = outputs};
    int n = -1;
    double end = 0;
    for (uint32_t i = 0; i < MAX_INPUTS && dibit_model_input(model, i, &info) == DIBIT_OK; i++) {
        if (!make_input(&info, rows, &inputs[run.n_inputs++])) return -fail("inputs must be float");
    }
    for (uint32_t i = 0; i < MAX_OUTPUTS && dibit_model_output(model, i, &info) == DIBIT_OK; i++)
        outputs[run.n_outputs++] = (dibit_tensor){.name = info.name};
    while (n < 1 || (n < MAX_TIMES && seconds() < end)) {
        for (uint32_t j = 0; j < run.n_outputs; j++) outputs[j].data = NULL;
        const double start = seconds();
        if (dibit_session_run(session, &run, &error)) return -fail(error.text);
        if (n >= 0) times[n] = seconds() - start;
        if (n++ < 0) end = seconds() + limit;
    }
    for (uint32_t i = 0; i < run.n_inputs; i++) free(inputs[i].data);
    qsort(times, (size_t)n, sizeof *times, compare);
    return times[n / 2];
}

int main(int argc, char **argv) {
    if (argc != 4) return fail("usage: bench_model MODEL.onnx THREADS auto|float|int8");
    const char *kind = argv[3];
    dibit_error error;
    dibit_model *model = NULL;
    dibit_device *device = NULL;
    dibit_session *session = NULL;
    const dibit_device_desc device_desc = {.n_threads = (uint32_t)strtoul(argv[2], NULL, 10)};
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

    char line[100];
    double took = 0;
    printf("ready\n");
    fflush(stdout);
    while (took >= 0 && fgets(line, sizeof line, stdin)) {
        char *limit;
        const int64_t rows = strtoll(line, &limit, 10);
        took = rows > 0 ? measure(model, session, rows, strtod(limit, NULL)) : -1;
        if (took >= 0) printf("%.9f\n", took);
        fflush(stdout);
    }
    dibit_session_destroy(&session);
    dibit_model_destroy(&model);
    dibit_device_destroy(&device);
    return took < 0;
}

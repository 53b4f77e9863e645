/* Runs ONNX's own node tests: every case whose operators, opset and types Dibit has must pass, the
 * others are skipped by name. usage: conformance FOLDER KNOWN_FAILURES [WEBGPU_LIBRARY]
 *
 * With a library the cases run on its device, as far as ops have kernels there.
 *
 * FOLDER/<case>/model.onnx, test_data_set_N/{input,output}_M.pb, as tests/conformance/run.sh makes
 * them. KNOWN_FAILURES has a line "case reason" for each case that may fail: one that passes all the
 * same fails the test, and so does it when they are more than 2 % of what ran. */
#define _POSIX_C_SOURCE 200809L /* scandir */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/onnx.h"
#include "ops/op.h"

enum { LOWEST_OPSET = 7, HIGHEST_OPSET = 25, MAX_VALUES = 64, MAX_PATH = 1000, WHY = 500 };
/* What the onnx package itself asks for; but the half types' references round between the nodes of a
 * function too, where Dibit keeps floats: two units in the last place of theirs. */
static const double absolute = 1e-7;
static double relative(dibit_type type) {
    return type == DIBIT_TYPE_BFLOAT16 ? 0x1p-6 : type == DIBIT_TYPE_FLOAT16 ? 0x1p-9 : 1e-3;
}

typedef enum outcome { PASSED, FAILED, SKIPPED } outcome;

/* ---- What Dibit has ------------------------------------------------------------------------- */

static int64_t opset_of(const dbt_onnx_opset *opsets, uint32_t n, const char *domain) {
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(opsets[i].domain, domain) == 0) return opsets[i].version;
    }
    return 0;
}

static bool is_function(const dbt_onnx_model *m, const dbt_onnx_node *node) {
    for (uint32_t i = 0; i < m->n_functions; i++) {
        if (strcmp(m->functions[i].name, node->op_type) == 0 &&
            strcmp(m->functions[i].domain, node->domain) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether all nodes can be had; else `why` says which not. */
static bool has_ops(const dbt_onnx_model *m, const dbt_onnx_node *nodes, uint32_t n,
                    const dbt_onnx_opset *opsets, uint32_t n_opsets, char why[WHY]) {
    for (uint32_t i = 0; i < n; i++) {
        const dbt_onnx_node *const node = &nodes[i];
        const int64_t opset = opset_of(opsets, n_opsets, node->domain);
        const dbt_op *any;
        const bool built_in = !node->domain[0] && (strcmp(node->op_type, "Constant") == 0 ||
                                                   strcmp(node->op_type, "If") == 0);
        if (!built_in && !is_function(m, node) &&
            !dbt_op_find(node->domain, node->op_type, opset, &any)) {
            snprintf(why, WHY, "operator %s%s%s%s", node->domain, node->domain[0] ? "." : "",
                     node->op_type, any ? " of that opset" : "");
            return false;
        }
        for (uint32_t a = 0; a < node->n_attrs; a++) {
            const dbt_onnx_graph *const g = node->attrs[a].graph;
            if (g && !has_ops(m, g->nodes, g->n_nodes, opsets, n_opsets, why)) return false;
        }
    }
    return true;
}

static bool has_types(const dbt_onnx_value_info *infos, uint32_t n, char why[WHY]) {
    for (uint32_t i = 0; i < n; i++) {
        if (!infos[i].is_tensor) {
            snprintf(why, WHY, "values of kind %s", infos[i].kind);
            return false;
        }
        if (!dbt_type_in(infos[i].type, DBT_TYPES_VALUE)) {
            snprintf(why, WHY, "values of type %s", dibit_type_name(infos[i].type));
            return false;
        }
    }
    return true;
}

static bool is_supported(const dbt_onnx_model *m, char why[WHY]) {
    const int64_t opset = opset_of(m->opsets, m->n_opsets, "");
    if (opset != 0 && (opset < LOWEST_OPSET || opset > HIGHEST_OPSET)) {
        snprintf(why, WHY, "opset %lld", (long long)opset);
        return false;
    }
    if (!has_types(m->graph->inputs, m->graph->n_inputs, why) ||
        !has_types(m->graph->outputs, m->graph->n_outputs, why) ||
        !has_ops(m, m->graph->nodes, m->graph->n_nodes, m->opsets, m->n_opsets, why)) {
        return false;
    }
    for (uint32_t i = 0; i < m->n_functions; i++) {
        const dbt_onnx_function *const f = &m->functions[i];
        if (!has_ops(m, f->nodes, f->n_nodes, f->opsets, f->n_opsets, why)) return false;
    }
    return true;
}

/* Reads the model only to see what is in it. */
static outcome classify(const char *path, char why[WHY]) {
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    dbt_source source;
    dbt_onnx_reader *reader = NULL;
    const dbt_onnx_model *model;
    dibit_error error = {0};
    dibit_status status = dbt_source_open_file(path, path, &source, &error);
    if (status == DIBIT_OK) {
        const dbt_onnx_reader_desc desc = {.source = &source, .arena = &arena};
        status = dbt_onnx_reader_create(&desc, &reader, &error);
        if (status == DIBIT_OK) status = dbt_onnx_reader_poll(reader, &model, &error);
        snprintf(why, WHY, "%.490s", error.text);
    }
    outcome result = FAILED;
    if (status == DIBIT_OK) result = is_supported(model, why) ? PASSED : SKIPPED;
    if (status == DIBIT_UNSUPPORTED) result = SKIPPED;
    dbt_onnx_reader_destroy(&reader);
    dbt_source_close(&source);
    dbt_arena_free(&arena);
    return result;
}

/* ---- Running a case ---------------------------------------------------------------------------- */

static double element(const dibit_tensor *t, const void *storage, int64_t i) {
    switch (dbt_storage_type(t->type)) {
    case DIBIT_TYPE_FLOAT: return (double)((const float *)storage)[i];
    case DIBIT_TYPE_INT8: return ((const int8_t *)storage)[i];
    case DIBIT_TYPE_INT16: return ((const int16_t *)storage)[i];
    case DIBIT_TYPE_INT32: return ((const int32_t *)storage)[i];
    case DIBIT_TYPE_INT64: return (double)((const int64_t *)storage)[i];
    case DIBIT_TYPE_UINT16: return ((const uint16_t *)storage)[i];
    case DIBIT_TYPE_UINT32: return ((const uint32_t *)storage)[i];
    case DIBIT_TYPE_UINT64: return (double)((const uint64_t *)storage)[i];
    default: return ((const uint8_t *)storage)[i];
    }
}

static bool compare_elements(const dibit_tensor *want, const dibit_tensor *got, void *w, void *g,
                             char why[WHY]) {
    const int64_t n = dbt_tensor_count(want);
    dbt_unpack_elements(want->type, want->data, w, n);
    dbt_unpack_elements(got->type, got->data, g, n);
    const bool exact = !dbt_type_is_float(want->type);
    for (int64_t i = 0; i < n; i++) {
        const double a = element(want, w, i), b = element(got, g, i);
        if (a == b || (a != a && b != b)) continue;
        if (!exact && fabs(a - b) <= absolute + relative(want->type) * fabs(a)) continue;
        snprintf(why, WHY, "output '%.60s' element %lld: expected %.9g, got %.9g", got->name,
                 (long long)i, a, b);
        return false;
    }
    return true;
}

static bool compare(const dibit_tensor *want, const dibit_tensor *got, char why[WHY]) {
    bool same = want->type == got->type && want->rank == got->rank;
    for (int32_t d = 0; same && d < want->rank; d++) same = want->dims[d] == got->dims[d];
    if (!same) {
        int at = snprintf(why, WHY, "output '%.60s': expected %s [", got->name,
                          dibit_type_name(want->type));
        for (int32_t d = 0; d < want->rank; d++) {
            at += snprintf(why + at, (size_t)(WHY - at), " %lld", (long long)want->dims[d]);
        }
        at += snprintf(why + at, (size_t)(WHY - at), " ], got %s [", dibit_type_name(got->type));
        for (int32_t d = 0; d < got->rank; d++) {
            at += snprintf(why + at, (size_t)(WHY - at), " %lld", (long long)got->dims[d]);
        }
        snprintf(why + at, (size_t)(WHY - at), " ]");
        return false;
    }
    const size_t bytes = (size_t)dbt_tensor_count(want) * 8 + 8;
    void *const w = malloc(bytes), *const g = malloc(bytes);
    same = w && g && compare_elements(want, got, w, g, why);
    free(w);
    free(g);
    return same;
}

static bool exists(const char *path) {
    FILE *const file = fopen(path, "rb");
    if (file) fclose(file);
    return file != NULL;
}

/* One data set: its files into tensors, a run, a comparison. */
static outcome run_set(const dibit_model *model, dibit_session *session, const char *folder,
                       char why[WHY]) {
    dibit_tensors *files[2 * MAX_VALUES] = {0};
    dibit_tensor in[MAX_VALUES], out[MAX_VALUES];
    uint32_t n_files = 0;
    const uint32_t n_in = dibit_model_input_count(model), n_out = dibit_model_output_count(model);
    dibit_error error = {0};
    dibit_status status = n_in <= MAX_VALUES && n_out <= MAX_VALUES ? DIBIT_OK : DIBIT_TOO_LARGE;
    for (uint32_t i = 0; i < n_in + n_out && status == DIBIT_OK; i++) {
        const bool is_input = i < n_in;
        char path[MAX_PATH];
        snprintf(path, sizeof path, "%.900s/%s_%u.pb", folder, is_input ? "input" : "output",
                 (unsigned)(is_input ? i : i - n_in));
        status = dibit_tensors_load(path, &files[n_files], &error);
        if (status == DIBIT_OK) n_files++;
        dibit_value_info info;
        if (status == DIBIT_OK && is_input) {
            in[i] = *dibit_tensors_get(files[i], 0);
            dibit_model_input(model, i, &info);
            in[i].name = info.name;
        } else if (status == DIBIT_OK) {
            dibit_model_output(model, i - n_in, &info);
            out[i - n_in] = (dibit_tensor){.name = info.name};
        }
    }
    const dibit_run run = {.inputs = in, .n_inputs = n_in, .outputs = out, .n_outputs = n_out};
    if (status == DIBIT_OK) status = dibit_session_run(session, &run, &error);
    outcome result = status == DIBIT_OK ? PASSED : FAILED;
    if (result == FAILED) snprintf(why, WHY, "%.490s", error.text);
    for (uint32_t i = 0; i < n_out && result == PASSED; i++) {
        if (!compare(dibit_tensors_get(files[n_in + i], 0), &out[i], why)) result = FAILED;
    }
    for (uint32_t i = 0; i < n_files; i++) dibit_tensors_destroy(&files[i]);
    return result;
}

static uint64_t count_device_steps(const dibit_session *session) {
    uint64_t n = 0;
    dibit_step_info step;
    for (uint32_t i = 0; dibit_session_step(session, i, &step) == DIBIT_OK; i++) {
        n += strcmp(step.device, "webgpu") == 0;
    }
    return n;
}

static outcome run_case(const char *folder, dibit_device *device, uint64_t *device_steps,
                        char why[WHY]) {
    char path[MAX_PATH];
    snprintf(path, sizeof path, "%.900s/model.onnx", folder);
    outcome result = classify(path, why);
    if (result != PASSED) return result;
    dibit_error error = {0};
    dibit_model *model = NULL;
    dibit_session *session = NULL;
    if (dibit_model_load(&(dibit_model_desc){.path = path}, &model, &error) ||
        dibit_session_create(model, &(dibit_session_desc){.device = device}, &session, &error)) {
        snprintf(why, WHY, "%.490s", error.text);
        result = FAILED;
    } else {
        *device_steps += count_device_steps(session);
    }
    for (int set = 0; result == PASSED; set++) {
        snprintf(path, sizeof path, "%.900s/test_data_set_%d/output_0.pb", folder, set);
        if (!exists(path)) break;
        snprintf(path, sizeof path, "%.900s/test_data_set_%d", folder, set);
        result = run_set(model, session, path, why);
    }
    dibit_session_destroy(&session);
    dibit_model_destroy(&model);
    return result;
}

/* ---- All cases ----------------------------------------------------------------------------------- */

/* The line "name reason" of a known failure, or NULL. */
static const char *find_known(const char *known, const char *name) {
    const size_t n = strlen(name);
    for (const char *line = known; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, name, n) == 0 && line[n] == ' ') return line;
    }
    return NULL;
}

static char *read_text(const char *path) {
    FILE *const file = fopen(path, "rb");
    if (!file) return NULL;
    char *const text = calloc(1, 1 << 16);
    if (text && fread(text, 1, (1 << 16) - 1, file) == (1 << 16) - 1) text[0] = 0;
    fclose(file);
    return text;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_case(const struct dirent *entry) { return entry->d_name[0] != '.'; }

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: conformance FOLDER KNOWN_FAILURES [WEBGPU_LIBRARY]\n");
        return 2;
    }
    dibit_device *device = NULL;
    dibit_error error = {0};
    const dibit_device_desc desc = {.kind = DIBIT_DEVICE_WEBGPU,
                                    .webgpu_library = argc == 4 ? argv[3] : NULL};
    if (argc == 4 && dibit_device_create(&desc, &device, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return 2;
    }
    char *const known = read_text(argv[2]);
    struct dirent **cases;
    const int n = scandir(argv[1], &cases, is_case, by_name);
    if (!known || n < 0) {
        fprintf(stderr, "cannot read %s\n", known ? argv[1] : argv[2]);
        return 2;
    }
    int counts[3] = {0}, n_known = 0;
    uint64_t device_steps = 0;
    for (int i = 0; i < n; i++) {
        char folder[MAX_PATH], why[WHY] = "";
        snprintf(folder, sizeof folder, "%.500s/%.200s", argv[1], cases[i]->d_name);
        outcome result = run_case(folder, device, &device_steps, why);
        const bool is_known = find_known(known, cases[i]->d_name) != NULL;
        if (result == SKIPPED) printf("skipped %s: %s\n", cases[i]->d_name, why);
        if (result == FAILED) {
            printf("%s %s: %s\n", is_known ? "known failure" : "FAILED", cases[i]->d_name, why);
        }
        if (is_known && result == PASSED) {
            printf("FAILED %s: passes, but is listed as a known failure\n", cases[i]->d_name);
            result = FAILED;
        } else if (is_known && result == FAILED) {
            n_known++;
            result = SKIPPED;
        }
        counts[result]++;
        free(cases[i]);
    }
    free(cases);
    free(known);
    const int n_run = counts[PASSED] + counts[FAILED] + n_known;
    if (n_known * 50 > n_run) {
        printf("FAILED: %d known failures of %d cases are more than 2 %%\n", n_known, n_run);
        counts[FAILED]++;
    }
    printf("%d cases ran, %d known failures\n", n_run, n_known);
    if (device) {
        printf("%llu nodes ran on the device\n", (unsigned long long)device_steps);
        counts[FAILED] += device_steps == 0;
        const uint32_t dropped = dibit_device_dropped_kernels(device);
        if (dropped) printf("FAILED: %u kernels are wrong on the device\n", (unsigned)dropped);
        counts[FAILED] += dropped > 0;
        dibit_device_destroy(&device);
    }
    printf("%d passed, %d failed, %d skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
    return counts[FAILED] != 0;
}

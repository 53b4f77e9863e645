/* dibit check: runs ONNX test-data folders and says what differs. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "check.h"

typedef struct check_tally {
    uint64_t passed, failed, skipped;
    json_t *cases; /* with --json */
} check_tally;

/* ---- Reporting ------------------------------------------------------------------------------- */

static void print_output(const check_case *c, const check_set *set, uint32_t i, bool verbose) {
    const check_output *out = &set->outputs[i];
    const dibit_comparison *m = &out->compared;
    const dibit_tensor *expected = &set->expected[i];
    if (!out->got.data) {
        if (verbose) {
            printf("       %s/%s: output '%s' stays in the states\n", c->name, set->name,
                   expected->name);
        }
    } else if (m->n_wrong) {
        char where[160], got[40], want[40];
        dibit_tensor_index_text(expected, m->worst_index, where);
        dibit_tensor_element_text(&out->got, m->worst_index, got);
        dibit_tensor_element_text(expected, m->worst_index, want);
        printf("FAILED %s/%s: output '%s' %s: got %s, expected %s, off by %.3g, allowed %.3g; %s\n",
               c->name, set->name, expected->name, where, got, want, m->worst, m->allowed,
               m->problem);
    } else if (m->problem[0]) {
        printf("FAILED %s/%s: output '%s': %s\n", c->name, set->name, expected->name, m->problem);
    } else if (verbose) {
        printf("       %s/%s: output '%s': %" PRId64
               " elements, %.3g %% of the bound used, which is "
               "%.3g at the worst\n",
               c->name, set->name, expected->name, m->n_elements, 100 * m->used, m->allowed);
    }
    if (m->n_lost) {
        printf("       %s/%s: output '%s': %u of %u runs with noise were lost: not finite, or of "
               "another shape\n",
               c->name, set->name, expected->name, (unsigned)m->n_lost, (unsigned)m->n_noisy);
    }
}

static const char *const result_names[] = {"passed", "failed", "skipped"};

static json_t *output_json(const check_set *set, uint32_t i) {
    const check_output *out = &set->outputs[i];
    const dibit_comparison *m = &out->compared;
    json_t *o = json_pack("{s:s}", "name", set->expected[i].name);
    if (!out->got.data) {
        json_object_set_new(o, "in_state", json_true());
        return o;
    }
    json_object_set_new(o, "elements", json_integer(m->n_elements));
    json_object_set_new(o, "wrong", json_integer(m->n_wrong));
    if (m->problem[0]) json_object_set_new(o, "problem", json_string(m->problem));
    if (m->n_elements == 0) return o;
    char where[160], got[40], want[40];
    dibit_tensor_index_text(&set->expected[i], m->worst_index, where);
    dibit_tensor_element_text(&out->got, m->worst_index, got);
    dibit_tensor_element_text(&set->expected[i], m->worst_index, want);
    json_object_set_new(o, "index", json_string(where));
    json_object_set_new(o, "got", json_string(got));
    json_object_set_new(o, "expected", json_string(want));
    json_object_set_new(o, "allowed", json_real(m->allowed));
    if (isfinite(m->used)) json_object_set_new(o, "used", json_real(m->used));
    json_object_set_new(o, "noise_runs", json_integer(m->n_noisy));
    json_object_set_new(o, "noise_runs_lost", json_integer(m->n_lost));
    return o;
}

static void report_set(const check_case *c, const check_set *set, const check_options *options,
                       json_t *sets, check_tally *tally) {
    const check_result result = c->result == CHECK_PASSED ? set->result : c->result;
    const char *reason = c->result == CHECK_PASSED ? set->reason : c->reason;
    uint64_t *const counters[] = {&tally->passed, &tally->failed, &tally->skipped};
    ++*counters[result];
    if (!options->common.json) {
        if (reason[0]) {
            printf("%s %s/%s: %s\n", result == CHECK_SKIPPED ? "SKIPPED" : "FAILED", c->name,
                   set->name, reason);
            return;
        }
        for (uint32_t i = 0; i < set->n_expected; i++) print_output(c, set, i, options->verbose);
        return;
    }
    json_t *s = json_pack("{s:s, s:s}", "name", set->name, "result", result_names[result]);
    if (reason[0]) json_object_set_new(s, "reason", json_string(reason));
    if (set->parent >= 0)
        json_object_set_new(s, "continues", json_string(c->sets[set->parent].name));
    json_t *outputs = json_array();
    for (uint32_t i = 0; !reason[0] && i < set->n_expected; i++) {
        json_array_append_new(outputs, output_json(set, i));
    }
    json_object_set_new(s, "outputs", outputs);
    json_array_append_new(sets, s);
}

static void report(check_case *c, const check_options *options, check_tally *tally) {
    json_t *sets = json_array();
    check_set none = {.name = "-", .parent = -1};
    if (c->n_sets == 0) report_set(c, &none, options, sets, tally);
    for (uint32_t i = 0; i < c->n_sets; i++) report_set(c, &c->sets[i], options, sets, tally);
    if (options->common.json) {
        json_array_append_new(tally->cases, json_pack("{s:s, s:o}", "name", c->name, "sets", sets));
    } else {
        json_decref(sets);
        fflush(stdout);
    }
}

static void refuse(const char *path, const char *why, check_tally *tally) {
    fprintf(stderr, "dibit check: %s: %s\n", path, why);
    tally->failed++;
}

/* A folder with test data and without a model is a mistake; other folders are none of our business. */
static bool has_test_data(const char *folder) {
    uint32_t n;
    bool found = false;
    char **names = dibit_cli_list_folder(folder, &n);
    for (uint32_t i = 0; i < n; i++) {
        found = found || strncmp(names[i], "test_data_set_", 14) == 0;
        free(names[i]);
    }
    free(names);
    return found;
}

/* True when the folder is a case. */
static bool check_folder(const char *folder, const char *name, const check_options *options,
                         check_tally *tally) {
    char *model = dibit_cli_is_file(folder) ? NULL : dibit_cli_find_model(folder);
    const bool is_case = model || has_test_data(folder);
    if (model) {
        check_case c;
        check_case_load(&c, folder, name, model);
        check_case_run(&c, options);
        report(&c, options, tally);
        check_case_free(&c);
    } else if (is_case) {
        refuse(folder, "there is test data, but no model.onnx", tally);
    }
    free(model);
    return is_case;
}

/* A case, or a folder of cases. */
static void check_argument(const char *folder, const check_options *options, check_tally *tally) {
    const char *slash = strrchr(folder, '/');
    if (check_folder(folder, slash && slash[1] ? slash + 1 : folder, options, tally)) return;
    uint32_t n, n_cases = 0;
    char **names = dibit_cli_list_folder(folder, &n);
    for (uint32_t i = 0; i < n; i++) {
        char *path = dibit_cli_format("%s/%s", folder, names[i]);
        n_cases += check_folder(path, names[i], options, tally);
        free(path);
        free(names[i]);
    }
    if (!names)
        refuse(folder, "it is no folder", tally);
    else if (n_cases == 0)
        refuse(folder, "no ONNX model is in it, nor in its folders", tally);
    free(names);
}

/* Answers are right all the same: plainer kernels took over. */
static void report_dropped(const check_options *options, check_tally *tally) {
    const uint32_t n = dibit_device_dropped_kernels(options->device);
    if (n == 0) return;
    fprintf(stderr,
            "dibit check: %u kernels are wrong on %s and were not used; `dibit info MODEL --steps` "
            "names them\n",
            (unsigned)n, dibit_device_name(options->device));
    tally->failed += options->strict;
}

int dibit_cli_check(int argc, char **argv) {
    check_options options = {.rtol = -1, .atol = -1, .noise_runs = 6};
    const dibit_cli_option table[] = {
        {"chain", 0, NULL, "keep states in the session from set to set", DIBIT_CLI_FLAG,
         &options.chain},
        {"rtol", 0, "R", "allow R * |expected| (default: a derived bound)", DIBIT_CLI_DOUBLE,
         &options.rtol},
        {"atol", 0, "A", "allow A besides", DIBIT_CLI_DOUBLE, &options.atol},
        {"noise-runs", 0, "N", "runs with noise for the derived bound (default 6)", DIBIT_CLI_U32,
         &options.noise_runs},
        {"no-proof", 0, NULL, "also use kernels that fail their proof on the device",
         DIBIT_CLI_FLAG, &options.no_proof},
        {"strict", 0, NULL, "fail when a kernel is wrong on the device, though answers are right",
         DIBIT_CLI_FLAG, &options.strict},
        {"verbose", 'v', NULL, "also say how much of its bound each output used", DIBIT_CLI_FLAG,
         &options.verbose},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    const dibit_cli_spec spec = {
        .arguments = "DIR...",
        .help =
            "Runs ONNX test-data folders (model.onnx, test_data_set_N/input_I.pb, output_I.pb), "
            "or\n"
            "folders of them, and compares the outputs. Without --rtol and --atol an output may\n"
            "differ by what rounding can explain: the model is run again with every node's\n"
            "results moved at random inside their rounding bounds, and four times the largest\n"
            "movement of a tensor is allowed. Runs with noise whose answers are not finite are\n"
            "reported; where there are no others, only equal answers pass.\n"
            "With --rtol or --atol NaN equals NaN.\n"
            "With --chain a set with an empty past starts anew, and one that continues an earlier\n"
            "set (same batch, its past as long as that one's total) takes its states from there\n"
            "instead of its files. Exit code 0 when sets passed and none failed.\n",
        .options = table,
        .common = &options.common,
        .min_arguments = 1,
        .max_arguments = 1 << 20,
    };
    const int n = dibit_cli_parse(&spec, argc, argv);
    if (n < 0) return dibit_cli_exit_code(n);
    dibit_error error;
    const char *why = "";
    if (dibit_cli_open_device(&options.common, &options.device, &why, &error)) {
        return dibit_cli_fail(argv[0], error.text);
    }
    options.cpu = options.device;
    const dibit_device_desc cpu = {.n_threads = options.common.threads,
                                   .cpu_isa = options.common.isa};
    if (dibit_device_get_kind(options.device) != DIBIT_DEVICE_CPU &&
        dibit_device_create(&cpu, &options.cpu, &error) != DIBIT_OK) {
        dibit_device_destroy(&options.device);
        return dibit_cli_fail(argv[0], error.text);
    }
    check_tally tally = {.cases = json_array()};
    for (int i = 1; i <= n; i++) check_argument(argv[i], &options, &tally);
    report_dropped(&options, &tally);
    json_t *root =
        json_pack("{s:o, s:s, s:s, s:I, s:I, s:I}", "cases", tally.cases, "device",
                  dibit_device_name(options.device), "why", why, "passed", (json_int_t)tally.passed,
                  "failed", (json_int_t)tally.failed, "skipped", (json_int_t)tally.skipped);
    if (options.common.json) {
        json_dumpf(root, stdout, JSON_INDENT(1));
        printf("\n");
    }
    json_decref(root);
    fprintf(options.common.json ? stderr : stdout,
            "%" PRIu64 " passed, %" PRIu64 " failed, %" PRIu64 " skipped\n", tally.passed,
            tally.failed, tally.skipped);
    if (options.cpu != options.device) dibit_device_destroy(&options.cpu);
    dibit_device_destroy(&options.device);
    return tally.failed || !tally.passed ? 1 : 0; /* only skips prove nothing */
}

/* dibit info: what a model is made of, and how a device would run it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli.h"

/* ---- Operators that this build runs ---------------------------------------------------------- */

static int print_ops(bool as_json) {
    json_t *list = json_array();
    dibit_op_info op;
    for (uint32_t i = 0; dibit_op(i, &op) == DIBIT_OK; i++) {
        const char *domain = op.domain[0] ? op.domain : "ai.onnx";
        if (as_json) {
            json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i}", "domain", domain, "name",
                                                  op.name, "since", op.since, "until", op.until));
        } else if (op.until) {
            printf("%-14s %-36s %d-%d\n", domain, op.name, op.since, op.until);
        } else {
            printf("%-14s %-36s %d-\n", domain, op.name, op.since);
        }
    }
    if (as_json) {
        json_dumpf(list, stdout, JSON_INDENT(1));
        printf("\n");
    }
    json_decref(list);
    return 0;
}

static void write_stdout(void *user, const char *text, size_t bytes) {
    (void)user;
    fwrite(text, 1, bytes, stdout);
}

/* ---- The graph --------------------------------------------------------------------------------- */

static void shape_text(const dibit_value_info *info, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "%s[", dibit_type_name(info->type));
    if (info->rank < 0) used += (size_t)snprintf(text + used, size - used, "...");
    for (int32_t i = 0; i < info->rank && used < size - 1; i++) {
        const char *comma = i ? ", " : "";
        int n;
        if (info->dims[i] >= 0)
            n = snprintf(text + used, size - used, "%s%" PRId64, comma, info->dims[i]);
        else {
            const char *name =
                info->dim_names[i] && info->dim_names[i][0] ? info->dim_names[i] : "?";
            n = snprintf(text + used, size - used, "%s%s", comma, name);
        }
        used += (size_t)n < size - used ? (size_t)n : size - used - 1;
    }
    snprintf(text + used, size - used, "]");
}

/* Inputs or outputs as a JSON list, which the text form prints from too. */
static json_t *values_json(const dibit_model *model, bool inputs) {
    json_t *list = json_array();
    dibit_value_info info;
    const uint32_t n = inputs ? dibit_model_input_count(model) : dibit_model_output_count(model);
    for (uint32_t i = 0; i < n; i++) {
        if ((inputs ? dibit_model_input : dibit_model_output)(model, i, &info)) break;
        char shape[400];
        shape_text(&info, shape, sizeof shape);
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", info.name, "type", shape));
    }
    return list;
}

static int compare_counts(const void *a, const void *b) {
    const json_t *const x = *(json_t *const *)a, *const y = *(json_t *const *)b;
    const json_int_t nx = json_integer_value(json_object_get(x, "count"));
    const json_int_t ny = json_integer_value(json_object_get(y, "count"));
    if (nx != ny) return nx < ny ? 1 : -1;
    return strcmp(json_string_value(json_object_get(x, "op")),
                  json_string_value(json_object_get(y, "op")));
}

/* How often each operator occurs, the most frequent first; quantized ones by their configuration. */
static json_t *histogram_json(const dibit_model *model) {
    json_t *counts = json_object();
    dibit_node_info node;
    for (uint32_t i = 0; dibit_model_node(model, i, &node) == DIBIT_OK; i++) {
        const char *dot = node.domain[0] ? "." : "";
        char *key = dibit_cli_format("%s%s%s %s", node.domain, dot, node.op, node.config);
        json_t *entry = json_object_get(counts, key);
        if (!entry) {
            char *op = dibit_cli_format("%s%s%s", node.domain, dot, node.op);
            entry = json_pack("{s:s, s:s, s:i}", "op", op, "config", node.config, "count", 0);
            json_object_set_new(counts, key, entry);
            free(op);
        }
        json_t *count = json_object_get(entry, "count");
        json_integer_set(count, json_integer_value(count) + 1);
        free(key);
    }
    const size_t n = json_object_size(counts);
    json_t **sorted = dibit_cli_alloc(n, sizeof(json_t *));
    size_t at = 0;
    const char *key;
    json_t *entry;
    json_object_foreach(counts, key, entry) sorted[at++] = entry;
    qsort(sorted, n, sizeof *sorted, compare_counts);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append(list, sorted[i]);
    free(sorted);
    json_decref(counts);
    return list;
}

/* ---- The plan ---------------------------------------------------------------------------------- */

static json_t *steps_json(const dibit_session *session) {
    json_t *list = json_array();
    dibit_step_info step;
    for (uint32_t i = 0; dibit_session_step(session, i, &step) == DIBIT_OK; i++) {
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", step.name, "op",
                                              step.op, "device", step.device, "kernel", step.kernel,
                                              "why", step.why));
    }
    return list;
}

static json_t *plan_json(const dibit_session *session, const dibit_device *device) {
    dibit_session_info info;
    dibit_session_get_info(session, &info);
    json_t *states = json_array();
    const char *past, *present;
    for (uint32_t i = 0; dibit_session_state_pair(session, i, &past, &present) == DIBIT_OK; i++) {
        json_array_append_new(states, json_pack("{s:s, s:s}", "past", past, "present", present));
    }
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:b, s:o}", "device",
                     dibit_device_name(device), "weight_bytes", (json_int_t)info.weight_bytes,
                     "packed_bytes", (json_int_t)info.packed_bytes, "plan_bytes",
                     (json_int_t)info.plan_bytes, "workspace_bytes",
                     (json_int_t)info.workspace_bytes, "n_steps", (int)info.n_steps, "n_cpu_steps",
                     (int)info.n_cpu_steps, "n_copies", (int)info.n_copies, "int8_activations",
                     (int)info.int8_activations, "states", states);
}

/* ---- Text -------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static void print_values(const json_t *root, const char *kind, const char *state_key) {
    const json_t *value, *pair;
    const json_t *states = json_object_get(json_object_get(root, "plan"), "states");
    size_t i, j, n_hidden = 0;
    printf("%s\n", kind);
    json_array_foreach(json_object_get(root, kind), i, value) {
        bool in_state = false;
        json_array_foreach(states, j, pair) {
            in_state = in_state || strcmp(text_of(pair, state_key), text_of(value, "name")) == 0;
        }
        if (in_state)
            n_hidden++;
        else
            printf("  %-24s %s\n", text_of(value, "name"), text_of(value, "type"));
    }
    if (n_hidden) printf("  and %zu that states keep (%s)\n", n_hidden, state_key);
}

static void print_size(const json_t *plan, const char *key, const char *what) {
    const json_int_t bytes = json_integer_value(json_object_get(plan, key));
    printf("  %-24s %.1f MB\n", what, (double)bytes / 1e6);
}

static void print_text(const json_t *root, bool steps) {
    const json_t *entry, *plan = json_object_get(root, "plan");
    size_t i;
    printf("%s\n", text_of(root, "model"));
    print_values(root, "inputs", "past");
    print_values(root, "outputs", "present");
    printf("operators\n");
    json_array_foreach(json_object_get(root, "operators"), i, entry) {
        printf("  %5" JSON_INTEGER_FORMAT " %-34s %s\n",
               json_integer_value(json_object_get(entry, "count")), text_of(entry, "op"),
               text_of(entry, "config"));
    }
    if (!plan) return;
    printf("memory\n");
    print_size(plan, "weight_bytes", "weights");
    print_size(plan, "packed_bytes", "packed copies of weights");
    print_size(plan, "plan_bytes", "plan");
    print_size(plan, "workspace_bytes", "workspace");
    printf("plan: %s\n", text_of(plan, "device"));
    if (text_of(root, "why")[0]) printf("  %s\n", text_of(root, "why"));
    printf("  %d steps, %d of them on the CPU, %d copies between devices; activations %s\n",
           (int)json_integer_value(json_object_get(plan, "n_steps")),
           (int)json_integer_value(json_object_get(plan, "n_cpu_steps")),
           (int)json_integer_value(json_object_get(plan, "n_copies")),
           json_is_true(json_object_get(plan, "int8_activations")) ? "are rounded to int8 in places"
                                                                   : "stay float");
    if (!steps) return;
    json_array_foreach(json_object_get(root, "steps"), i, entry) {
        printf("  %4zu %-6s %-28s %-24s %s%s%s\n", i, text_of(entry, "device"),
               text_of(entry, "op"), text_of(entry, "kernel"), text_of(entry, "name"),
               text_of(entry, "why")[0] ? ": " : "", text_of(entry, "why"));
    }
}

/* ---- The verb -------------------------------------------------------------------------------- */

typedef struct info_options {
    dibit_cli_common common;
    bool ops, dump, steps;
} info_options;

/* Plans the model and adds what that shows to root. */
static dibit_status add_plan(json_t *root, dibit_model *model, const info_options *options,
                             dibit_error *error) {
    dibit_device *device = NULL;
    dibit_session *session = NULL;
    const char *why;
    dibit_status status = dibit_cli_open_device(&options->common, &device, &why, error);
    if (status == DIBIT_OK) {
        const dibit_session_desc desc = {.device = device,
                                         .activations = options->common.activations,
                                         .no_fusion = options->common.no_fusion};
        status = dibit_session_create(model, &desc, &session, error);
    }
    if (status == DIBIT_OK) {
        json_object_set_new(root, "plan", plan_json(session, device));
        json_object_set_new(root, "why", json_string(why));
        if (options->steps) json_object_set_new(root, "steps", steps_json(session));
    }
    dibit_session_destroy(&session);
    dibit_device_destroy(&device);
    return status;
}

static int show_model(const char *verb, const char *path, const info_options *options) {
    dibit_error error;
    dibit_model *model = NULL;
    if (dibit_model_load(&(dibit_model_desc){.path = path}, &model, &error)) {
        return dibit_cli_fail(verb, error.text);
    }
    int result = 0;
    if (options->dump) {
        dibit_model_dump(model, write_stdout, NULL);
    } else {
        json_t *root =
            json_pack("{s:s, s:o, s:o, s:o}", "model", path, "inputs", values_json(model, true),
                      "outputs", values_json(model, false), "operators", histogram_json(model));
        const dibit_status status = add_plan(root, model, options, &error);
        if (options->common.json) {
            json_dumpf(root, stdout, JSON_INDENT(1));
            printf("\n");
        } else {
            print_text(root, options->steps);
        }
        fflush(stdout);
        if (status) result = dibit_cli_fail(verb, error.text);
        json_decref(root);
    }
    dibit_model_destroy(&model);
    return result;
}

int dibit_cli_info(int argc, char **argv) {
    info_options options = {.ops = false};
    const dibit_cli_option table[] = {
        {"steps", 0, NULL, "also list the plan's steps: device, kernel and why", DIBIT_CLI_FLAG,
         &options.steps},
        {"dump", 0, NULL, "print the checked graph as text instead", DIBIT_CLI_FLAG, &options.dump},
        {"ops", 0, NULL, "list the operators that this build runs instead", DIBIT_CLI_FLAG,
         &options.ops},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    const dibit_cli_spec spec = {
        .arguments = "MODEL",
        .help =
            "Shows a model (a .onnx file, or a folder with one): inputs and outputs, operators "
            "with\n"
            "the configurations of quantized weights, memory, and how the device would run it.\n",
        .options = table,
        .common = &options.common,
        .min_arguments = 0,
        .max_arguments = 1,
    };
    const int n = dibit_cli_parse(&spec, argc, argv);
    if (n < 0) return dibit_cli_exit_code(n);
    if (options.ops) return print_ops(options.common.json);
    if (n == 0) return dibit_cli_usage(argv[0], "expected MODEL, or --ops");
    char *path = dibit_cli_find_model(argv[1]);
    if (!path) {
        char *sentence = dibit_cli_format("%s: no ONNX model is there", argv[1]);
        dibit_cli_fail(argv[0], sentence);
        free(sentence);
        return 1;
    }
    const int result = show_model(argv[0], path, &options);
    free(path);
    return result;
}

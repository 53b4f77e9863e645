/* dibit diff: where a device first answers otherwise than the CPU. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "diff.h"

typedef struct diff_options {
    dibit_cli_common common;
    const char *against, *input, *save;
    uint32_t tokens, noise_runs;
    uint64_t seed;
    bool decode, no_proof;
} diff_options;

typedef struct diff_context {
    diff_options options;
    dibit_model *model;
    dibit_device *cpu, *device;
    diff_tensors inputs, references;
    dibit_diff *diff;
    dibit_diff_info info;
} diff_context;

/* ---- Text ---------------------------------------------------------------------------------------- */

static void print_measure(const dibit_diff_measure *m, const char *otherwise) {
    if (!m->value) {
        printf(" %9s %7s", otherwise, "");
    } else if (m->problem[0]) {
        printf(" %9s %7s", "failed", "WRONG");
    } else if (m->n_wrong) {
        printf(" %9.3g %7s", m->largest, "WRONG");
    } else {
        printf(" %9.3g %6.3g%%", m->largest, 100 * m->used);
    }
}

static void print_table(const diff_context *c, uint32_t pass) {
    dibit_diff_pass_info p;
    dibit_diff_pass(c->diff, pass, &p);
    printf("%s\n  %5s %-6s %9s %7s %9s %7s  %s\n", p.name, "node", "device", "alone", "used",
           "in chain", "used", "op, name");
    for (uint32_t n = 0; n < c->info.n_nodes; n++) {
        const dibit_diff_node_info *const node = dibit_diff_node(c->diff, pass, n);
        printf("  %5u %-6s", (unsigned)n,
               node->fused       ? "fused"
               : node->on_device ? "device"
                                 : "cpu");
        print_measure(&node->alone, "-");
        print_measure(&node->chain, node->fused ? "fused" : "-");
        printf("  %s%s%s %s%s%s\n", node->node.domain, node->node.domain[0] ? "." : "",
               node->node.op, node->node.name, node->not_alone[0] ? "; " : "", node->not_alone);
    }
}

static void write_stdout(void *user, const char *text, size_t bytes) {
    (void)user;
    fwrite(text, 1, bytes, stdout);
}

static void print_worst(const char *how, const dibit_diff_measure *m) {
    if (!m->value || !m->wrong) return;
    if (m->problem[0]) {
        printf("%s: '%s': %s\n", how, m->value, m->problem);
        return;
    }
    printf("%s: '%s' %s is %s, on the CPU %s: off by %.3g, allowed %.3g; %" PRId64 " of %" PRId64
           " elements are beyond their bound\n",
           how, m->value, m->index, m->got, m->expected, m->off, m->allowed, m->n_wrong,
           m->n_elements);
}

static void print_first(const diff_context *c, uint32_t pass, const char *saved) {
    dibit_diff_pass_info p;
    dibit_diff_pass(c->diff, pass, &p);
    if (p.first < 0) return;
    const dibit_diff_node_info *const node = dibit_diff_node(c->diff, pass, (uint32_t)p.first);
    printf("FIRST %s: node %d, %s %s%s%s\n", p.name, (int)p.first, node->node.op,
           p.first_alone ? "by itself" : "in the chain, though no node is wrong by itself",
           node->node.config[0] ? ": " : "", node->node.config);
    dibit_model_dump_node(c->model, (uint32_t)p.first, write_stdout, NULL);
    print_worst("  alone", &node->alone);
    print_worst("  in the chain", &node->chain);
    if (saved)
        printf("saved: dibit check %s --device webgpu%s\n", saved,
               c->options.no_proof ? " --no-proof" : "");
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

static json_t *real_or_text(double v) { return isfinite(v) ? json_real(v) : json_string("inf"); }

static json_t *measure_json(const dibit_diff_measure *m) {
    if (!m->value) return json_null();
    json_t *o = json_pack("{s:s, s:I, s:I}", "value", m->value, "elements",
                          (json_int_t)m->n_elements, "wrong", (json_int_t)m->n_wrong);
    if (m->problem[0]) json_object_set_new(o, "problem", json_string(m->problem));
    if (m->n_elements == 0) return o;
    json_object_set_new(o, "largest", real_or_text(m->largest));
    json_object_set_new(o, "used", real_or_text(m->used));
    json_object_set_new(o, "index", json_string(m->index));
    json_object_set_new(o, "got", json_string(m->got));
    json_object_set_new(o, "expected", json_string(m->expected));
    json_object_set_new(o, "off", real_or_text(m->off));
    json_object_set_new(o, "allowed", real_or_text(m->allowed));
    return o;
}

static json_t *pass_json(const diff_context *c, uint32_t pass) {
    dibit_diff_pass_info p;
    dibit_diff_pass(c->diff, pass, &p);
    json_t *nodes = json_array();
    for (uint32_t n = 0; n < c->info.n_nodes; n++) {
        const dibit_diff_node_info *const node = dibit_diff_node(c->diff, pass, n);
        json_t *o =
            json_pack("{s:s, s:s, s:s, s:s, s:b, s:b}", "name", node->node.name, "op",
                      node->node.op, "domain", node->node.domain, "config", node->node.config,
                      "on_device", (int)node->on_device, "fused", (int)node->fused);
        json_object_set_new(o, "alone", measure_json(&node->alone));
        json_object_set_new(o, "chain", measure_json(&node->chain));
        if (node->not_alone[0]) json_object_set_new(o, "why", json_string(node->not_alone));
        json_array_append_new(nodes, o);
    }
    return json_pack("{s:s, s:i, s:b, s:o}", "name", p.name, "first", (int)p.first, "first_alone",
                     (int)p.first_alone, "nodes", nodes);
}

/* ---- The verb -------------------------------------------------------------------------------- */

/* Returns the exit code. */
static int report(const diff_context *c, const char *saved) {
    int n_wrong = 0;
    uint32_t n_alone = 0, n_on_device = 0;
    json_t *passes = json_array();
    for (uint32_t i = 0; i < c->info.n_passes; i++) {
        dibit_diff_pass_info pass;
        dibit_diff_pass(c->diff, i, &pass);
        n_wrong += pass.first >= 0;
        for (uint32_t n = 0; n < c->info.n_nodes; n++) {
            const dibit_diff_node_info *const node = dibit_diff_node(c->diff, i, n);
            n_on_device += node->on_device || node->fused;
            n_alone += node->alone.value != NULL;
        }
        if (c->options.common.json) {
            json_array_append_new(passes, pass_json(c, i));
        } else {
            print_table(c, i);
        }
    }
    if (c->options.common.json) {
        json_t *root = json_pack("{s:s, s:s, s:o}", "device", dibit_device_name(c->device), "cpu",
                                 dibit_device_name(c->cpu), "passes", passes);
        json_dumpf(root, stdout, JSON_INDENT(1));
        printf("\n");
        json_decref(root);
    } else {
        json_decref(passes);
        for (uint32_t i = 0; i < c->info.n_passes; i++) {
            dibit_diff_pass_info pass;
            dibit_diff_pass(c->diff, i, &pass);
            print_first(c, i, saved);
            if (pass.first >= 0) saved = NULL;
        }
        printf("%s: %u of %u nodes on the device, %u of them compared by themselves; %s\n",
               dibit_device_name(c->device), (unsigned)n_on_device,
               (unsigned)(c->info.n_nodes * c->info.n_passes), (unsigned)n_alone,
               n_wrong        ? "they differ"
               : !n_on_device ? "there is nothing to compare"
                              : "all within their bounds");
    }
    return n_wrong || !n_on_device; /* nothing compared proves nothing */
}

static bool load_inputs(diff_context *c, dibit_error *error) {
    const diff_options *const o = &c->options;
    const char *const from = o->input ? o->input : o->against;
    return !from ||
           diff_load(c->model, from, &c->inputs, o->against ? &c->references : NULL, error);
}

static bool compare(diff_context *c, dibit_error *error) {
    const diff_options *const o = &c->options;
    const dibit_diff_desc desc = {.device = c->device,
                                  .cpu = c->cpu,
                                  .activations = o->common.activations,
                                  .no_fusion = o->common.no_fusion,
                                  .no_proof = o->no_proof,
                                  .decode = o->decode,
                                  .keep_case = o->save != NULL,
                                  .inputs = c->inputs.list,
                                  .n_inputs = c->inputs.n,
                                  .tokens = o->tokens,
                                  .seed = o->seed,
                                  .references = c->references.list,
                                  .n_references = c->references.n,
                                  .noise_runs = o->noise_runs};
    dibit_status status = dibit_diff_begin(c->model, &desc, &c->diff, error);
    if (status == DIBIT_OK) status = DIBIT_PENDING;
    while (status == DIBIT_PENDING) status = dibit_diff_poll(c->diff, error);
    dibit_diff_case failing;
    if (status != DIBIT_OK) return false;
    dibit_diff_get_info(c->diff, &c->info);
    return dibit_diff_get_case(c->diff, &failing) != DIBIT_OK ||
           diff_save(&failing, o->save, error);
}

static int diff(const char *verb, const char *path, diff_context *c) {
    dibit_error error;
    const char *why;
    const dibit_device_desc cpu = {.n_threads = c->options.common.threads,
                                   .cpu_isa = c->options.common.isa};
    int result = 1;
    if (dibit_model_load(&(dibit_model_desc){.path = path}, &c->model, &error) ||
        dibit_device_create(&cpu, &c->cpu, &error) ||
        dibit_cli_open_device(&c->options.common, &c->device, &why, &error) ||
        !load_inputs(c, &error) || !compare(c, &error)) {
        dibit_cli_fail(verb, error.text);
    } else {
        result = report(c, c->options.save);
    }
    dibit_diff_destroy(&c->diff);
    diff_free_tensors(&c->inputs);
    diff_free_tensors(&c->references);
    dibit_device_destroy(&c->device);
    dibit_device_destroy(&c->cpu);
    dibit_model_destroy(&c->model);
    return result;
}

int dibit_cli_diff(int argc, char **argv) {
    diff_context c = {.options = {.common.device = DIBIT_CLI_WEBGPU,
                                  .against = "cpu",
                                  .tokens = 5,
                                  .noise_runs = 6,
                                  .seed = 1}};
    diff_options *const o = &c.options;
    const dibit_cli_option table[] = {
        {"against", 0, "WHAT", "cpu (default), or a test_data_set whose outputs are the reference",
         DIBIT_CLI_STRING, &o->against},
        {"input", 0, "PATH", "a test_data_set, or a .npz: the inputs (default: made up)",
         DIBIT_CLI_STRING, &o->input},
        {"tokens", 0, "N", "length of the prompt that is made up (default 5)", DIBIT_CLI_U32,
         &o->tokens},
        {"seed", 0, "N", "for another prompt", DIBIT_CLI_U64, &o->seed},
        {"decode", 0, NULL, "also compare the step after the prompt, with the reference's past",
         DIBIT_CLI_FLAG, &o->decode},
        {"no-proof", 0, NULL, "also use kernels that fail their proof on this device",
         DIBIT_CLI_FLAG, &o->no_proof},
        {"noise-runs", 0, "N", "runs with noise for the chain's bounds (default 6)", DIBIT_CLI_U32,
         &o->noise_runs},
        {"save", 0, "DIR", "write the first node over its bound as an ONNX test folder",
         DIBIT_CLI_STRING, &o->save},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    const dibit_cli_spec spec = {
        .arguments = "MODEL",
        .help =
            "Compares a device (default: webgpu) with the CPU, node by node:\n"
            "  alone     the node by itself, with its weights and what the CPU gave it; each\n"
            "            element has the bound that the operator's rounding explains\n"
            "  in chain  the whole model on either device; a value may be off by what `dibit\n"
            "            check` would allow if it were an output\n"
            "Prints the largest error of each node and the share of its bound, then the first\n"
            "node over its bound. A fused step is compared at its outputs. --save writes that\n"
            "node with its weights, its inputs and the CPU's answer: `dibit check DIR` replays\n"
            "it. Exit code 0 when all are within their bounds.\n",
        .options = table,
        .common = &o->common,
        .min_arguments = 1,
        .max_arguments = 1,
    };
    const int n = dibit_cli_parse(&spec, argc, argv);
    if (n < 0) return dibit_cli_exit_code(n);
    if (strcmp(o->against, "cpu") == 0) o->against = NULL;
    if (o->common.device == DIBIT_CLI_CPU) {
        return dibit_cli_usage(argv[0], "--device cpu is the reference itself");
    }
    if (o->tokens == 0 || o->tokens > 4096) {
        return dibit_cli_usage(argv[0], "--tokens is 1 to 4096");
    }
    if (o->noise_runs == 0) return dibit_cli_usage(argv[0], "--noise-runs is 1 at least");
    if (o->decode && (o->input || o->against)) {
        return dibit_cli_usage(argv[0], "--decode follows a prompt that is made up");
    }
    char *path = dibit_cli_find_model(argv[1]);
    if (!path) {
        char *sentence = dibit_cli_format("%s: no ONNX model is there", argv[1]);
        dibit_cli_fail(argv[0], sentence);
        free(sentence);
        return 1;
    }
    const int result = diff(argv[0], path, &c);
    free(path);
    return result;
}

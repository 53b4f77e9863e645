/* The dibit command: finds the verb and hands over. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

typedef struct verb {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv);
} verb;

static const verb verbs[] = {
#define DIBIT_CLI_VERB(function, name, summary) {name, summary, dibit_cli_##function},
#include "verbs.inc"
#undef DIBIT_CLI_VERB
    {NULL, NULL, NULL},
};

static void print_help(void) {
    printf("usage: dibit VERB [OPTIONS] [ARGUMENTS]\n\nRuns low-bit ONNX transformers.\n\n");
    for (const verb *v = verbs; v->name; v++) printf("  %-10s %s\n", v->name, v->summary);
    printf("\n'dibit VERB --help' says more; 'dibit --version' prints the version.\n");
}

int main(int argc, char **argv) {
    if (argc < 2) return dibit_cli_usage(NULL, "no verb given");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return 0;
    }
    if (strcmp(name, "--version") == 0) {
        printf("dibit %d.%d.%d\n", DIBIT_VERSION_MAJOR, DIBIT_VERSION_MINOR, DIBIT_VERSION_PATCH);
        return 0;
    }
    for (const verb *v = verbs; v->name; v++) {
        if (strcmp(v->name, name) == 0) return v->run(argc - 1, argv + 1);
    }
    return dibit_cli_usage(NULL, "there is no verb '%s'", name);
}

/* Option tables: parsing, --help, and the one-line errors of wrong usage. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { PARSED_HELP = -1, PARSED_WRONG = -2, MAX_COMMON = 9 };

int dibit_cli_usage(const char *verb, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *space = verb ? " " : "", *name = verb ? verb : "";
    fprintf(stderr, "dibit%s%s: %s (try 'dibit%s%s --help')\n", space, name, text, space, name);
    return 2;
}

int dibit_cli_fail(const char *verb, const char *sentence) {
    fprintf(stderr, "dibit %s: %s\n", verb, sentence);
    return 1;
}

int dibit_cli_exit_code(int parse_result) { return parse_result == PARSED_HELP ? 0 : 2; }

static void common_options(dibit_cli_common *common, dibit_cli_option out[MAX_COMMON]) {
    const dibit_cli_option options[MAX_COMMON] = {
        {"device", 0, "NAME", "cpu (default), webgpu or auto", DIBIT_CLI_DEVICE, &common->device},
        {"activations", 0, "KIND", "auto (default), float or int8: how MatMulNBits reads its input",
         DIBIT_CLI_ACTIVATIONS, &common->activations},
        {"webgpu-lib", 0, "FILE", "libwgpu_native to use (default: DIBIT_WEBGPU_LIB, or pip's)",
         DIBIT_CLI_STRING, &common->webgpu_lib},
        {"threads", 0, "N", "CPU threads (default: the cores that it may use)", DIBIT_CLI_U32,
         &common->threads},
        {"isa", 0, "LIST", "CPU features that may be used: avx2,avx512,... or portable",
         DIBIT_CLI_ISA, &common->isa},
        {"tune", 0, "FILE", "kernels for this machine, by 'dibit tune' (default: DIBIT_TUNE)",
         DIBIT_CLI_STRING, &common->tune},
        {"no-fusion", 0, NULL, "run each node as a step of its own", DIBIT_CLI_FLAG,
         &common->no_fusion},
        {"json", 0, NULL, "print JSON", DIBIT_CLI_FLAG, &common->json},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    memcpy(out, options, sizeof options);
}

static void print_options(const dibit_cli_option *options) {
    for (; options && options->name; options++) {
        char left[64];
        snprintf(left, sizeof left, "%c%c%s--%s%s%s", options->letter ? '-' : ' ',
                 options->letter ? options->letter : ' ', options->letter ? ", " : "  ",
                 options->name, options->argument ? " " : "",
                 options->argument ? options->argument : "");
        printf("  %-28s %s\n", left, options->help);
    }
}

static void print_help(const char *verb, const dibit_cli_spec *spec,
                       const dibit_cli_option *common) {
    printf("usage: dibit %s [OPTIONS] %s\n\n%s\n", verb, spec->arguments, spec->help);
    print_options(spec->options);
    print_options(common);
    printf("  %-28s %s\n", "-h, --help", "print this and exit");
}

static const dibit_cli_option *find_option(const dibit_cli_option *options, const char *name,
                                           size_t length) {
    for (; options && options->name; options++) {
        if (strlen(options->name) == length && memcmp(options->name, name, length) == 0) {
            return options;
        }
    }
    return NULL;
}

static const dibit_cli_option *find_letter(const dibit_cli_option *options, char letter) {
    for (; options && options->name; options++) {
        if (options->letter == letter) return options;
    }
    return NULL;
}

/* One of the words, or -1. */
static int find_word(const char *const *words, const char *word) {
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], word) == 0) return i;
    }
    return -1;
}

static bool parse_unsigned(const char *text, uint64_t max, uint64_t *out) {
    if (text[0] < '0' || text[0] > '9') return false;
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != 0 || value > max) return false;
    *out = value;
    return true;
}

static bool parse_isa(const char *text, uint64_t *out) {
    static const struct {
        const char *name;
        uint64_t bits;
    } names[] = {
        {"portable", DIBIT_ISA_PORTABLE},       {"avx2", DIBIT_ISA_AVX2},
        {"avx-vnni", DIBIT_ISA_AVX_VNNI},       {"avx512", DIBIT_ISA_AVX512},
        {"avx512-vnni", DIBIT_ISA_AVX512_VNNI}, {"avx512-vbmi", DIBIT_ISA_AVX512_VBMI},
        {"amx-int8", DIBIT_ISA_AMX_INT8},       {"neon", DIBIT_ISA_NEON},
        {"neon-dot", DIBIT_ISA_NEON_DOT},       {"neon-i8mm", DIBIT_ISA_NEON_I8MM},
        {"wasm-simd", DIBIT_ISA_WASM_SIMD},
    };
    uint64_t mask = 0;
    for (const char *at = text;;) {
        const size_t length = strcspn(at, ",");
        bool found = false;
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            if (strlen(names[i].name) != length || memcmp(names[i].name, at, length) != 0) continue;
            mask |= names[i].bits;
            found = true;
        }
        if (!found) return false;
        if (at[length] == 0) break;
        at += length + 1;
    }
    *out = mask;
    return true;
}

/* Sets the target; false when the text is no value of the option's kind. */
static bool set_option(const dibit_cli_option *option, const char *text) {
    static const char *const devices[] = {"cpu", "auto", "webgpu", "null", NULL};
    static const char *const activations[] = {"auto", "float", "int8", NULL};
    uint64_t number = 0;
    int word;
    switch (option->kind) {
    case DIBIT_CLI_FLAG: *(bool *)option->target = true; return true;
    case DIBIT_CLI_STRING: *(const char **)option->target = text; return true;
    case DIBIT_CLI_U32:
        if (!parse_unsigned(text, UINT32_MAX, &number)) return false;
        *(uint32_t *)option->target = (uint32_t)number;
        return true;
    case DIBIT_CLI_U64: return parse_unsigned(text, UINT64_MAX, option->target);
    case DIBIT_CLI_DOUBLE: {
        char *end;
        const double value = strtod(text, &end);
        if (end == text || *end != 0 || !(value - value == 0)) return false;
        *(double *)option->target = value;
        return true;
    }
    case DIBIT_CLI_DEVICE:
        if ((word = find_word(devices, text)) < 0) return false;
        *(dibit_cli_device *)option->target = (dibit_cli_device)word;
        return true;
    case DIBIT_CLI_ACTIVATIONS:
        if ((word = find_word(activations, text)) < 0) return false;
        *(dibit_activations *)option->target = (dibit_activations)word;
        return true;
    case DIBIT_CLI_ISA: return parse_isa(text, option->target);
    }
    return false;
}

/* Handles the option at argv[*i], and moves *i to the last word it used. */
static int parse_option(const dibit_cli_spec *spec, const dibit_cli_option *common, int argc,
                        char **argv, int *i) {
    const char *verb = argv[0], *word = argv[*i], *value = NULL;
    const dibit_cli_option *option;
    if (word[1] == '-') {
        const size_t length = strcspn(word + 2, "=");
        option = find_option(spec->options, word + 2, length);
        if (!option) option = find_option(common, word + 2, length);
        if (word[2 + length] == '=') value = word + 2 + length + 1;
    } else {
        option = find_letter(spec->options, word[1]);
        if (word[2] != 0) value = word + 2;
    }
    if (!option) {
        dibit_cli_usage(verb, "there is no option '%s'", word);
        return PARSED_WRONG;
    }
    if (option->kind == DIBIT_CLI_FLAG && value) {
        dibit_cli_usage(verb, "--%s takes no value", option->name);
        return PARSED_WRONG;
    }
    if (option->kind != DIBIT_CLI_FLAG && !value) {
        if (*i + 1 >= argc) {
            dibit_cli_usage(verb, "--%s needs %s", option->name, option->argument);
            return PARSED_WRONG;
        }
        value = argv[++*i];
    }
    if (!set_option(option, value)) {
        dibit_cli_usage(verb, "--%s cannot be '%s'", option->name, value);
        return PARSED_WRONG;
    }
    return 0;
}

int dibit_cli_parse(const dibit_cli_spec *spec, int argc, char **argv) {
    dibit_cli_option common_table[MAX_COMMON];
    const dibit_cli_option *common = NULL;
    if (spec->common) {
        common_options(spec->common, common_table);
        common = common_table;
    }
    int n = 0;
    bool options_ended = false;
    for (int i = 1; i < argc; i++) {
        if (options_ended || argv[i][0] != '-' || argv[i][1] == 0) {
            argv[++n] = argv[i];
        } else if (strcmp(argv[i], "--") == 0) {
            options_ended = true;
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(argv[0], spec, common);
            return PARSED_HELP;
        } else {
            const int status = parse_option(spec, common, argc, argv, &i);
            if (status < 0) return status;
        }
    }
    argv[n + 1] = NULL; /* n < argc, and argv[argc] is there */
    if (n < spec->min_arguments) {
        dibit_cli_usage(argv[0], "expected %s", spec->arguments);
        return PARSED_WRONG;
    }
    if (n > spec->max_arguments) {
        dibit_cli_usage(argv[0], "'%s' is one argument too many", argv[spec->max_arguments + 1]);
        return PARSED_WRONG;
    }
    return n;
}

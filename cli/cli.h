/* What the verbs of the command line share: option tables, errors, the exit codes. A verb is a
 * function in a file of its own and a line in verbs.inc.
 *
 * Exit codes: 0 done; 1 a bad model or input, or a check that failed; 2 wrong usage. */
#ifndef DIBIT_CLI_CLI_H
#define DIBIT_CLI_CLI_H

#include "dibit/dibit.h"

#define DIBIT_CLI_VERB(function, name, summary) int dibit_cli_##function(int argc, char **argv);
#include "verbs.inc"
#undef DIBIT_CLI_VERB

/* ---- Options ------------------------------------------------------------------------------ */

typedef enum dibit_cli_kind {
    DIBIT_CLI_FLAG,        /* bool; no argument */
    DIBIT_CLI_STRING,      /* const char * */
    DIBIT_CLI_U32,         /* uint32_t; decimal */
    DIBIT_CLI_U64,         /* uint64_t; decimal */
    DIBIT_CLI_DOUBLE,      /* double */
    DIBIT_CLI_DEVICE,      /* dibit_cli_device: cpu, webgpu, auto, null */
    DIBIT_CLI_ACTIVATIONS, /* dibit_activations: auto, float, int8 */
    DIBIT_CLI_ISA          /* uint64_t, a mask: avx2,avx512 ... or portable */
} dibit_cli_kind;

typedef struct dibit_cli_option {
    const char *name;     /* without the dashes */
    char letter;          /* 'p' for -p, or 0 */
    const char *argument; /* "TEXT"; NULL for a flag */
    const char *help;     /* one line */
    dibit_cli_kind kind;
    void *target; /* of the kind's type; keeps its value when the option is absent */
} dibit_cli_option;

typedef enum dibit_cli_device {
    DIBIT_CLI_CPU,
    DIBIT_CLI_AUTO,
    DIBIT_CLI_WEBGPU,
    DIBIT_CLI_NULL /* computes nothing: for tests */
} dibit_cli_device;

/* Options that most verbs take. */
typedef struct dibit_cli_common {
    dibit_cli_device device;
    dibit_activations activations;
    uint32_t threads;       /* 0: as many as cores */
    uint64_t isa;           /* 0: all */
    const char *tune;       /* NULL: DIBIT_TUNE, or none */
    const char *webgpu_lib; /* NULL: DIBIT_WEBGPU_LIB, or where pip puts it */
    bool checked_shaders;   /* no common option: dibit_device_desc */
    bool no_fusion;         /* each node is a step of its own */
    bool json;
    dibit_timing timing; /* set by the verb */
} dibit_cli_common;

typedef struct dibit_cli_spec {
    const char *arguments;           /* "DIR..." as the usage line shows them */
    const char *help;                /* what the verb does: some lines, each ended by a newline */
    const dibit_cli_option *options; /* ended by an entry without a name; NULL: none */
    dibit_cli_common *common;        /* takes those options too, unless NULL */
    int min_arguments, max_arguments;
} dibit_cli_spec;

/* argv[0] is the verb. Fills the options' targets and moves what is no option to argv[1], argv[2],
 * ... in order, ended by NULL; "--" ends the options. Returns the number of these arguments, or a
 * negative value: then the verb returns dibit_cli_exit_code(that): help was printed (0), or the usage
 * is wrong and one line has said why (2). */
int dibit_cli_parse(const dibit_cli_spec *spec, int argc, char **argv);
int dibit_cli_exit_code(int parse_result);

/* ---- Errors: one line on stderr ------------------------------------------------------------ */

/* "dibit VERB: sentence (try 'dibit VERB --help')"; returns 2. */
int dibit_cli_usage(const char *verb, const char *format, ...);
/* "dibit VERB: sentence"; returns 1. */
int dibit_cli_fail(const char *verb, const char *sentence);

/* Reads the file that --tune or DIBIT_TUNE names, if one does. dibit_cli_open_device calls it. */
dibit_status dibit_cli_tune_cpu(const dibit_cli_common *common, dibit_error *error);
/* Makes the device that --device, --webgpu-lib, --threads, --isa and --tune ask for. *why says in one sentence
 * why that one was chosen, "" unless --device auto; it lives as long as the device. */
dibit_status dibit_cli_open_device(const dibit_cli_common *common, dibit_device **out,
                                   const char **why, dibit_error *error);

/* ---- Files and memory ---------------------------------------------------------------------- */

/* calloc that ends the program with one line when there is no memory. */
void *dibit_cli_alloc(size_t count, size_t bytes);
/* printf into a new string. */
char *dibit_cli_format(const char *format, ...);
bool dibit_cli_is_file(const char *path);
/* The names in the folder except hidden ones, sorted; NULL when it is no folder. */
char **dibit_cli_list_folder(const char *folder, uint32_t *n);
/* The path itself when it is a file; else the folder's model.onnx, onnx/model.onnx or only .onnx file;
 * NULL when there is none. */
char *dibit_cli_find_model(const char *path);
/* Seconds on a clock that only goes forward. */
double dibit_cli_seconds(void);

#endif

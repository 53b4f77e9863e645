/* What run, chat and eval share: opening a model folder for text, sampling options, Ctrl-C. */
#ifndef DIBIT_CLI_TEXT_H
#define DIBIT_CLI_TEXT_H

#include "cli.h"
#include "dibit/lm.h"

/* Everything between a folder and tokens. */
typedef struct dibit_cli_text {
    dibit_lm *lm;
    dibit_lm_info info;
    dibit_device *device;
    const char *why; /* the device was chosen; "" */
    dibit_model *model;
    dibit_session *session;
    dibit_generator *generator;
    double load_seconds;
} dibit_cli_text;

/* Opens all; says what is wrong and returns 1 when it cannot. Close after both. */
int dibit_cli_text_open(const char *verb, const char *path, const char *model_file,
                        const dibit_cli_common *common, dibit_cli_text *out);
void dibit_cli_text_close(dibit_cli_text *text);
/* Why the text comes from the device it comes from: --device auto chose it, or the CPU has taken over; "". */
const char *dibit_cli_text_why(const dibit_cli_text *text);

/* --greedy, --temp, ...: negative or absent values leave what the model's files advise. */
typedef struct dibit_cli_sampling {
    bool greedy;
    double temperature, top_p, min_p, repetition_penalty;
    uint32_t top_k; /* UINT32_MAX: absent */
    uint64_t seed;  /* UINT64_MAX: from the clock */
} dibit_cli_sampling;

#define DIBIT_CLI_SAMPLING_DEFAULTS {false, -1, -1, -1, -1, UINT32_MAX, UINT64_MAX}

/* The lines of an option table that fill `s`. */
#define DIBIT_CLI_SAMPLING_OPTIONS(s)                                                              \
    {"greedy", 0, NULL, "always take the likeliest token", DIBIT_CLI_FLAG, &(s).greedy},           \
        {"temp",                                                                                   \
         0,                                                                                        \
         "T",                                                                                      \
         "temperature; 0 is greedy (default: as the model's files say)",                           \
         DIBIT_CLI_DOUBLE,                                                                         \
         &(s).temperature},                                                                        \
        {"top-k", 0, "K", "only the K likeliest tokens; 0: all", DIBIT_CLI_U32, &(s).top_k},       \
        {"top-p",          0,         "P", "only the likeliest that have probability P together",  \
         DIBIT_CLI_DOUBLE, &(s).top_p},                                                            \
        {"min-p",          0,         "P", "only those with P times the likeliest's probability",  \
         DIBIT_CLI_DOUBLE, &(s).min_p},                                                            \
        {"repeat-penalty",                                                                         \
         0,                                                                                        \
         "X",                                                                                      \
         "makes tokens that occurred less likely; 1: does not",                                    \
         DIBIT_CLI_DOUBLE,                                                                         \
         &(s).repetition_penalty},                                                                 \
    {                                                                                              \
        "seed", 0, "N", "for the same draws again (default: from the clock)", DIBIT_CLI_U64,       \
            &(s).seed                                                                              \
    }

/* The model's advice with the options on top. Options that only mean something when drawing, without
 * --temp, raise a greedy model's temperature to 1. Returns 0, or 2 after saying what is wrong. */
int dibit_cli_sampling_apply(const char *verb, const dibit_cli_sampling *options,
                             dibit_sampling *sampling);

/* Appends all of a file, "-" being stdin. */
dibit_status dibit_cli_read_text(const char *path, dibit_text *out, dibit_error *error);

/* From here on Ctrl-C only counts. */
void dibit_cli_catch_interrupts(void);
/* How often Ctrl-C was pressed since the last call. */
int dibit_cli_take_interrupts(void);

/* Generates with the text going to stdout piece by piece (unless quiet), until the end or Ctrl-C. */
typedef struct dibit_cli_stream {
    dibit_cli_text *text;
    dibit_sequence *sequence;
    bool quiet;
    dibit_text said;                     /* all of the answer; dibit_text_free it */
    double first_token_seconds, seconds; /* from the beginning; 0: there was none */
    bool interrupted;
} dibit_cli_stream;

dibit_status dibit_cli_stream_run(dibit_cli_stream *stream, dibit_error *error);

#endif

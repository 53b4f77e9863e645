/* The parts of `dibit check`: loading a case (check_case.c), running it and comparing (check_run.c), reporting
 * (check.c). */
#ifndef DIBIT_CLI_CHECK_H
#define DIBIT_CLI_CHECK_H

#include "dibit/debug.h"

#include "cli.h"

typedef struct check_options {
    dibit_cli_common common;
    dibit_device *device;
    dibit_device
        *cpu; /* where answers are moved by noise; the same as device when that is the CPU */
    double rtol, atol; /* negative: not given. With neither, the bound is derived (see check_run) */
    uint32_t noise_runs;
    bool chain, verbose, no_proof;
    bool strict; /* a kernel that failed its proof on the device is a failure */
} check_options;

/* A model's answer for one expected output, and how it compares. */
typedef struct check_output {
    dibit_tensor got; /* owns data; data NULL and bytes 0 before it was run */
    dibit_tensor
        still; /* the CPU's answer without noise: got's own memory when that is the CPU's */
    dibit_comparison compared;
} check_output;

typedef enum check_result { CHECK_PASSED, CHECK_FAILED, CHECK_SKIPPED } check_result;

/* One test_data_set_N. */
typedef struct check_set {
    char *name;
    dibit_tensors **files; /* own what inputs and expected point to */
    uint32_t n_files;
    dibit_tensor *inputs, *expected;
    uint32_t n_inputs, n_expected;
    /* With --chain: the lengths, and the earlier set whose states this one takes. */
    int64_t batch, past, total; /* past and total -1: not known */
    int32_t parent;             /* -1: none */
    uint32_t n_children;
    bool uses_states;

    check_output *outputs; /* [n_expected] */
    bool in_states;        /* some expected outputs are not compared: they stay in states */
    check_result result;
    char reason[600]; /* why it was skipped or failed as a whole; "" otherwise */
} check_set;

typedef struct check_case {
    char *folder, *name, *model_path;
    check_set *sets;
    uint32_t n_sets;
    dibit_model *model;
    char reason[600]; /* why nothing could be run; with result */
    check_result result;
} check_case;

/* Finds the sets of the folder and loads model and tensors. What goes wrong is in the case or set. */
void check_case_load(check_case *c, const char *folder, const char *name, const char *model_path);
void check_case_free(check_case *c);

/* One set: its files, for a model that says what those without names are called. */
void check_set_load(check_set *set, const char *folder, const dibit_model *model);
void check_set_free(check_set *set);

/* Runs all sets, first as they are and then noise_runs times with noise, and judges them. */
void check_case_run(check_case *c, const check_options *options);

#endif

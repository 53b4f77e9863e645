/* The parts of `dibit check`: loading a case (check_case.c), running it (check_run.c), comparing
 * (check_compare.c), reporting (check.c). */
#ifndef DIBIT_CLI_CHECK_H
#define DIBIT_CLI_CHECK_H

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
        still;        /* the CPU's answer without noise: got's own memory when that is the CPU's */
    double spread;    /* of the runs with noise: max over runs and elements of |noisy - still| */
    uint32_t n_noisy; /* runs with noise */
    uint32_t n_lost;  /* those of another shape, or with infinities or NaN that got lacks */
    double allowed;   /* absolute bound: at the worst element */
    double worst;     /* |got - expected| - allowed is largest here */
    double used;      /* largest |got - expected| / allowed */
    int64_t n_wrong, n_elements;
    int64_t worst_index; /* flat */
    char problem[200];   /* "" when it passes */
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

/* Sets allowed, worst, n_wrong, problem of *out from out->got, out->spread and the expected tensor. */
void check_compare(const dibit_tensor *expected, const check_options *options, check_output *out);
/* The same elements, bit for bit. */
bool check_equal(const dibit_tensor *a, const dibit_tensor *b);
/* Counts a run with noise, and raises out->spread by the distance of its finite elements. */
void check_add_noise(const dibit_tensor *noisy, check_output *out);
/* Element i as a number: exact for types up to 32 bits, and for doubles. */
double check_element(const dibit_tensor *tensor, int64_t i);
/* An element as text, exact for integers. */
void check_element_text(const dibit_tensor *tensor, int64_t i, char text[40]);
int64_t check_count(const dibit_tensor *tensor);

#endif

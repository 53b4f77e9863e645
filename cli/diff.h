/* The parts of `dibit diff`: what goes in (diff_inputs.c), running and comparing (diff_run.c, diff_local.c),
 * keeping the failing node (diff_save.c), reporting (diff.c). */
#ifndef DIBIT_CLI_DIFF_H
#define DIBIT_CLI_DIFF_H

#include "check.h"

typedef struct diff_options {
    dibit_cli_common common;
    const char *against, *input, *save;
    uint32_t tokens, noise_runs;
    uint64_t seed;
    bool decode, no_proof;
} diff_options;

/* Tensors that own their data and names. */
typedef struct diff_tensors {
    dibit_tensor *list;
    uint32_t n;
} diff_tensors;

/* How one value of a node compares: the worst element is the one farthest beyond its bound. */
typedef struct diff_measure {
    const char *value; /* NULL: nothing was compared */
    char where[160];   /* the worst element's index */
    char got[40], want[40];
    double off, allowed;  /* there */
    double largest, used; /* largest |got - want|, and share of a bound, over all elements */
    int64_t n_wrong, n_elements;
    char problem[200]; /* of another kind: shapes, a missing value */
} diff_measure;

/* A node in one run; of several outputs the worst is kept. */
typedef struct diff_node {
    dibit_node_info info;
    bool on_device, fused;
    const char *why; /* the CPU runs it */
    diff_measure local, chain;
    char alone[300]; /* why there is no local comparison */
} diff_node;

/* A prompt, or a step after it. */
typedef struct diff_pass {
    const char *name;
    diff_tensors inputs;
    diff_tensors references; /* --against DIR: what graph outputs should be */
    diff_node *nodes;        /* [n_nodes] */
    int32_t first; /* node over its bound: by itself if there is one, else in the chain; -1 */
    bool first_is_local;
} diff_pass;

typedef struct diff_context {
    diff_options options;
    dibit_model *model;
    dibit_device *cpu, *device;
    dibit_session *reference, *tested; /* of the whole model */
    uint32_t n_nodes;
    diff_pass passes[2];
    uint32_t n_passes;
} diff_context;

bool diff_is_wrong(const diff_measure *m);

/* ---- diff_inputs.c: all answer false after writing a sentence to error ---- */

/* The files of --input or --against, or tensors made up for a prompt. */
bool diff_make_inputs(diff_context *c, diff_pass *pass, dibit_error *error);
/* The step after the prompt that the reference has just run. */
bool diff_make_step(diff_context *c, diff_pass *pass, dibit_error *error);
void diff_add_tensor(diff_tensors *tensors, const char *name, const dibit_tensor *tensor);
/* The elements in another type, in memory of their own. */
bool diff_convert(const dibit_tensor *tensor, dibit_type type, dibit_tensor *out,
                  dibit_error *error);
void diff_free_tensors(diff_tensors *tensors);

/* ---- diff_run.c ---- */

/* Runs the pass on both devices and compares all values; the chain. */
bool diff_run_chain(diff_context *c, diff_pass *pass, dibit_error *error);
void diff_take_worse(diff_measure *kept, const diff_measure *other);
/* got against want; bounds [as want], or NULL: `allowed` for each. */
void diff_measure_elements(const dibit_tensor *got, const dibit_tensor *want, const float *bounds,
                           double allowed, diff_measure *out);

/* ---- diff_local.c ---- */

/* A node as a model of its own, with what the reference gave it in its last run. */
typedef struct diff_part {
    char *bytes;
    size_t n_bytes, capacity;
    dibit_model *model;
    diff_tensors inputs;
} diff_part;

bool diff_take_out(const diff_context *c, uint32_t node, diff_part *out, dibit_error *error);
void diff_free_part(diff_part *part);
/* Runs the node by itself on both devices and compares. The reference's last run is the pass. */
void diff_run_local(diff_context *c, diff_pass *pass, uint32_t node);

/* ---- diff_save.c ---- */

/* Writes the node as a folder that `dibit check` runs. */
bool diff_save(const diff_context *c, uint32_t node, const char *folder, dibit_error *error);

#endif

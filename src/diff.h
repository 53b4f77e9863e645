/* Inside of dibit_diff: comparing (diff_compare.c), a node by itself (diff_part.c), the order of the work (diff.c). */
#ifndef DBT_DIFF_H
#define DBT_DIFF_H

#include "dibit/debug.h"
#include "make_inputs.h"
#include "model.h"

/* A value of the chain. */
typedef struct dbt_diff_value {
    uint32_t node;
    const char *name;
    dibit_tensor want; /* the reference's */
    dibit_comparison compared;
} dbt_diff_value;

/* A prompt, or a step after it. */
typedef struct dbt_diff_pass {
    dibit_diff_pass_info info;
    dibit_tensors *made; /* up; NULL: the inputs were given */
    const dibit_tensor *inputs;
    uint32_t n_inputs;
    dibit_diff_node_info *nodes; /* [n_nodes] */
} dbt_diff_pass;

/* A node as a model of its own, with what the reference gave it in its last run. */
typedef struct dbt_diff_part {
    dibit_extract what;
    dbt_arena arena; /* of what.values */
    char *bytes;
    uint64_t n_bytes, capacity;
    bool no_memory; /* for bytes */
    dibit_model *model;
    dibit_tensors *inputs;
    dibit_session *cpu, *tested;
} dbt_diff_part;

typedef enum dbt_diff_stage {
    DBT_DIFF_REFERENCE, /* sessions */
    DBT_DIFF_TESTED,
    DBT_DIFF_INPUTS, /* here a pass begins */
    DBT_DIFF_RUN_REFERENCE,
    DBT_DIFF_RUN_TESTED,
    DBT_DIFF_NOISE,
    DBT_DIFF_CHAIN,
    DBT_DIFF_ALONE,
    DBT_DIFF_CASE,
    DBT_DIFF_DONE
} dbt_diff_stage;

struct dibit_diff {
    dibit_allocator allocator;
    dibit_model *model;
    dibit_diff_desc desc;
    dibit_session *reference, *tested, *noisy; /* of the whole model */
    dbt_diff_stage stage;
    uint32_t at;            /* run, value or node of the stage */
    uint32_t done, n_nodes; /* done: parts of the work */
    dbt_diff_pass passes[2];
    uint32_t n_passes;
    dbt_diff_value *values; /* [capacity] of the pass */
    uint32_t n_values, values_capacity;
    dbt_diff_part part;    /* the node that is compared by itself */
    dbt_diff_part kept;    /* keep_case: the failing one */
    dibit_tensor *outputs; /* [n_outputs] of kept */
    uint32_t n_outputs;
    dibit_run run; /* under way, if any */
    bool running;
};

/* All that answer a status may answer PENDING: call again. */

/* Begins and polls a session, a run. */
dibit_status dbt_diff_open(dibit_model *model, const dibit_session_desc *desc,
                           dibit_session **session, dibit_error *error);
dibit_status dbt_diff_run(dibit_diff *diff, dibit_session *session, const dibit_run *run,
                          dibit_error *error);

/* ---- diff_compare.c ---- */

/* Which node runs where in the tested session. */
void dbt_diff_find_places(const dibit_diff *diff, dbt_diff_pass *pass);
/* The values that the reference has made. */
dibit_status dbt_diff_list_values(dibit_diff *diff, dibit_error *error);
void dbt_diff_free_values(dibit_diff *diff);
void dbt_diff_add_noise(dibit_diff *diff);
/* A value of the chain. */
void dbt_diff_compare_value(const dibit_diff *diff, dbt_diff_pass *pass,
                            const dbt_diff_value *value);
/* A node that has run in the part's sessions. */
void dbt_diff_compare_part(const dibit_diff *diff, dibit_diff_node_info *node, uint32_t index);
void dbt_diff_find_first(const dibit_diff *diff, dbt_diff_pass *pass);

/* ---- diff_part.c ---- */

/* Runs a node by itself on both devices and compares. The reference's last run is the pass. */
dibit_status dbt_diff_alone(dibit_diff *diff, dbt_diff_pass *pass, uint32_t node);
/* The same on the CPU: what is kept as a case. */
dibit_status dbt_diff_keep(dibit_diff *diff, uint32_t node, dibit_error *error);
void dbt_diff_free_part(dibit_diff *diff, dbt_diff_part *part);

#endif

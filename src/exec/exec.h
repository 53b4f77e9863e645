/* Runs a plan's steps. One executor a session: it owns what changes from run to run - the values of
 * dims, the slots' memory, scratch - and a step counter, so that a run can pause between any two steps. */
#ifndef DBT_EXEC_EXEC_H
#define DBT_EXEC_EXEC_H

#include "plan/plan.h"

typedef struct dbt_exec {
    dbt_plan *plan;
    dibit_allocator allocator;
    int64_t *dims;      /* [dbt_dims_count]: values in this run */
    int64_t *last_dims; /* of the run before: nothing to refresh when they are equal */
    int64_t *bounds;    /* at the largest symbols so far, rounded up */
    int32_t n_dims;
    bool bounds_valid, refreshed;
    dbt_block scratch;
    dbt_arena infer_arena; /* for nodes whose dims are known only when they run */
    uint64_t workspace_bytes, workspace_limit;
    dbt_block noise_block;
    uint64_t noise; /* state of the noise generator; 0: none */
    bool profile;
    uint64_t ticket; /* of the download under way; 0: none */
    uint64_t wanted; /* of steps' `serves`: the others are left out */
    bool feeds;      /* plan->fed takes the token of the run before */
    /* The run. */
    int32_t next_step;
    int64_t batch; /* rows of states */
    /* [plan->n_states][batch] for pairs in states, or NULL: explicit. Data of rows on the device is the
     * dbt_hal_buffer. */
    dbt_state_row *state_rows;
    dbt_block state_rows_block;
    dbt_block present_rows; /* of a step whose past the caller passes */
} dbt_exec;

dibit_status dbt_exec_init(dbt_exec *exec, dbt_plan *plan, const dibit_allocator *allocator,
                           dibit_error *error);
void dbt_exec_free(dbt_exec *exec);

/* A new run: forgets all dims. Set symbols (dims[...]) after it, by dbt_exec_bind or directly. */
void dbt_exec_reset(dbt_exec *exec);
/* Sets tensor's data and dims from what the caller passes; symbols take their values from it.
 * BAD_INPUT when a dim contradicts the model or another input. */
dibit_status dbt_exec_bind(dbt_exec *exec, int32_t tensor, const dibit_tensor *given,
                           dibit_error *error);
/* Gives a tensor's dims a shape only; its symbols take their values from it. */
dibit_status dbt_exec_bind_dims(dbt_exec *exec, int32_t tensor, const int64_t *dims,
                                dibit_error *error);
/* Evaluates dims, fills host values, sizes tensors. Call when all symbols are set; last_rows 0: all. */
dibit_status dbt_exec_start(dbt_exec *exec, uint32_t last_rows, dibit_error *error);
/* The value of a dim, or DBT_DIM_UNRESOLVED. Valid after the symbols it needs are set. */
int64_t dbt_exec_dim(dbt_exec *exec, dbt_dim d);
/* Runs the next step; PENDING as long as there are more. *waiting: the device has not got there yet,
 * so that calling again at once makes little sense. */
dibit_status dbt_exec_step(dbt_exec *exec, bool *waiting, dibit_error *error);

/* exec/cpu_exec.c */
dibit_status dbt_cpu_exec_op(dbt_exec *exec, dbt_step *step, dibit_error *error);
/* An UNPACK or PACK step. */
void dbt_cpu_exec_convert(const dbt_exec *exec, const dbt_step *step);
/* exec/gpu_exec.c: a step on the device, or to or from it. PENDING: call again. */
dibit_status dbt_gpu_exec_step(dbt_exec *exec, dbt_step *step, dibit_error *error);
/* wanted: bytes for a slot that has to grow. */
dibit_status dbt_gpu_reserve(dbt_exec *exec, dbt_plan_tensor *t, uint64_t wanted,
                             dibit_error *error);
void dbt_gpu_free(dbt_exec *exec);
/* Forgets the download under way. */
void dbt_gpu_cancel(dbt_exec *exec);
/* For steps with rows of states: how many sequences there are, and whether a past that the caller passed
 * fits its present. exec/cpu_exec.c */
dibit_status dbt_exec_state_batch(const dbt_exec *exec, const dbt_step *step, int64_t *batch,
                                  dibit_error *error);
dibit_status dbt_exec_check_past(const dibit_tensor *past, const dibit_tensor *present,
                                 dbt_state_pair pair, dibit_error *error);
/* Makes room for a step's outputs and scratch. exec/exec.c */
dibit_status dbt_exec_reserve(dbt_exec *exec, dbt_step *step, dibit_error *error);
dibit_status dbt_exec_scratch(dbt_exec *exec, uint64_t bytes, dibit_error *error);

#endif

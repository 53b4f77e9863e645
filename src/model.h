/* Inside of the public handles: what model.c, device.c, session.c and states.c share. */
#ifndef DBT_MODEL_H
#define DBT_MODEL_H

#include "exec/exec.h"
#include "gpu/gpu.h"

struct dibit_model {
    dbt_arena arena;
    dbt_source source;
    dbt_onnx_reader *reader;
    const dbt_onnx_model *onnx;
    dbt_graph *graph; /* as in the file; sessions build one of their own to rewrite */
    bool ready;
};

struct dibit_device {
    dibit_allocator allocator;
    dibit_device_desc desc; /* of kind AUTO: what was chosen */
    dbt_pool *pool;
    uint64_t isa;
    dbt_gpu *gpu;      /* NULL for the CPU */
    char *null_refuse; /* ",Softmax,Gather," */
    char name[400], why[600];
};

struct dibit_session {
    dbt_arena arena;
    dibit_model *model;
    dibit_device *device;
    dibit_device *own_device;
    dibit_session_desc desc;
    dbt_plan *plan;
    dbt_exec exec;
    bool ready, running;
    const dibit_run *run;
};

/* One past/present pair of a state.
 *   APPEND, WINDOW   data [heads, capacity, row], `length` rows filled
 *   REPLACE          data is the tensor of dims, without its batch axis (dims[0] is 1) */
typedef struct dbt_state_part {
    dbt_block data;
    dbt_block spare; /* WINDOW: a run that evicts works on this copy; REPLACE: the next tensor */
    dbt_hal_buffer *buffer, *spare_buffer; /* the same of rows on the device */
    int64_t length, capacity;
    int64_t dims[DIBIT_MAX_RANK];
} dbt_state_part;

struct dibit_state {
    dibit_session *session;
    uint64_t length;
    uint64_t max_capacity;
    dbt_state_part *parts; /* [plan->n_states] */
};

/* states.c, for a run: checks the states, binds the dims and data of past tensors, makes room for
 * what the run appends, and gives the executor its rows. */
dibit_status dbt_states_bind(dibit_session *session, const dibit_run *run, dibit_error *error);
dibit_status dbt_states_begin(dibit_session *session, const dibit_run *run, dibit_error *error);
/* After the last step: the states take over what the run made. Cannot fail. */
void dbt_states_commit(dibit_session *session, const dibit_run *run);

#endif

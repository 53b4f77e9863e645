/* Inside of the public handles: what model.c, device.c, session.c, states.c and tokens.c share. */
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
    char name[400], cpu_name[200], why[600];
};

/* Tokens that runs have chosen and nobody has read: a queue of reads from the device. */
enum { DBT_MAX_UNREAD = 4 };
typedef struct dbt_tokens {
    struct {
        uint64_t ticket;
        int64_t batch;
        dbt_block words; /* int32 [batch] */
    } reads[DBT_MAX_UNREAD];
    uint32_t first, n;
    int64_t batch; /* rows that the last run chose tokens for; 0: there are none to feed */
    dbt_block settings;
} dbt_tokens;

struct dibit_session {
    dibit_allocator allocator;
    dbt_arena *arena; /* of the plan */
    dibit_model *model;
    dibit_device *device;
    dibit_device *own_device;
    dibit_session_desc desc;
    dbt_plan *plan;
    dbt_exec exec;
    bool ready, running;
    const dibit_run *run;
    dbt_tokens tokens;
    dibit_state *states; /* all that there are */
    char why[600];       /* it has left its device; "" */
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

/* states_read.c: a part that is on its way from the device. */
typedef struct dbt_state_reading {
    dbt_block block;
    uint64_t ticket, bytes;
    int32_t pair;
    bool active;
} dbt_state_reading;

/* states_file.c: an export that waits for the device. */
typedef struct dbt_state_export {
    const void *data; /* where to; NULL: none is under way */
    uint64_t length;  /* of the state: another one begins anew */
    uint64_t at;      /* bytes that are written */
    int32_t parts;    /* that they are of */
} dbt_state_export;

struct dibit_state {
    dibit_session *session;
    dibit_state *next, **link; /* of the session's */
    uint64_t length;
    uint64_t max_capacity;
    dbt_state_part *parts; /* [plan->n_states]; NULL: lost */
    bool lost;             /* with the device that the session has left */
    dbt_state_reading reading;
    dbt_state_export exporting;
};

/* states.c: before the session's plan goes, all its states lose what they hold. */
void dbt_states_lose(dibit_session *session);

/* states_run.c, for a run: checks the states, binds the dims and data of past tensors, makes room for
 * what the run appends, and gives the executor its rows. */
dibit_status dbt_states_bind(dibit_session *session, const dibit_run *run, dibit_error *error);
dibit_status dbt_states_begin(dibit_session *session, const dibit_run *run, dibit_error *error);
/* After the last step: the states take over what the run made. Cannot fail. */
void dbt_states_commit(dibit_session *session, const dibit_run *run);

/* tokens.c, for a run: checks what it asks for; binds the input that takes the tokens of the run before;
 * hands over its settings when dims are known; after the last step, starts to read what it chose. */
dibit_status dbt_tokens_check(const dibit_session *session, const dibit_run *run,
                              dibit_error *error);
dibit_status dbt_tokens_feed(dibit_session *session, const dibit_run *run, dibit_error *error);
dibit_status dbt_tokens_bind(dibit_session *session, const dibit_run *run, dibit_error *error);
dibit_status dbt_tokens_read(dibit_session *session, dibit_error *error);
/* Forgets what was not read. */
void dbt_tokens_forget(dibit_session *session);
void dbt_tokens_free(dibit_session *session);

#endif

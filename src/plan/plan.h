/* The plan: the graph as ordered steps over tensors that have a place in memory. Made once per
 * session; what changes from run to run is the values of dims and the data pointers.
 *
 * A graph value can have several tensors: in storage type (what kernels compute on) or native (the
 * type and packing that the model declares), on the CPU or on the session's device, whose storage types
 * are float and int32. The planner makes those that steps need, and puts conversion and copy steps
 * between them.
 *
 *     graph input (native, bound by the caller) --UNPACK--> storage --OP--> storage --PACK--> output
 */
#ifndef DBT_PLAN_PLAN_H
#define DBT_PLAN_PLAN_H

#include "plan/build.h"

typedef enum dbt_place {
    DBT_PLACE_CONSTANT, /* data is set for the plan's life */
    DBT_PLACE_INPUT,    /* bound by the caller, or by a state */
    DBT_PLACE_HOST,     /* a small integer tensor, filled from dims at the beginning of a run */
    DBT_PLACE_SLOT,     /* in a slot that it shares with tensors that live at other times */
    DBT_PLACE_VIEW      /* the memory of `root` */
} dbt_place;

typedef struct dbt_plan_tensor {
    const dbt_value *value;
    bool native;    /* else storage type */
    bool on_device; /* else in CPU memory */
    bool bound;     /* INPUT: the caller gave it in this run */
    bool in_state;  /* past or present of a pair: runs with states have no other memory for it */
    bool in_device_state; /* besides, that memory is the device's: nothing is copied */
    bool is_output;       /* of the graph: keeps its slot to the end of the run */
    bool own_slot;        /* which no other tensor gets: it is read in the next run */
    dbt_place place;
    int32_t slot;           /* SLOT */
    bool gives_slot;        /* to the output that is written over it */
    int32_t root;           /* VIEW: the tensor whose memory it is; else its own index */
    int32_t last_step;      /* in which it is used last */
    int64_t n_uploaded;     /* elements of a constant that are on the device already */
    uint64_t bytes;         /* at the present dims; UINT64_MAX while they are unresolved */
    dibit_tensor t;         /* on the device data is NULL */
    dbt_hal_buffer *buffer; /* on the device: its own for constants, else its slot's */
    bool borrows_buffer;    /* a constant whose bytes another one has brought there */
    dbt_block bounds;       /* keep_bounds: float per element of what an op made, at data */
} dbt_plan_tensor;

typedef enum dbt_step_kind {
    DBT_STEP_OP,
    DBT_STEP_UNPACK,  /* native to storage */
    DBT_STEP_PACK,    /* storage to native */
    DBT_STEP_UPLOAD,  /* CPU to device */
    DBT_STEP_DOWNLOAD /* device to CPU */
} dbt_step_kind;

typedef struct dbt_step {
    dbt_step_kind kind;
    const dbt_node *node; /* OP; for the others the node that needs it, or NULL */
    bool on_device;
    bool dynamic; /* its output dims are known only when its inputs are */
    bool view;    /* its output is a view: nothing to run */
    uint32_t n_inputs, n_outputs;
    int32_t *inputs, *outputs; /* tensors, -1 where absent */
    const dibit_tensor **in;   /* the same as a kernel gets them: NULL where absent */
    dibit_tensor **out;
    bool *in_constant;
    dbt_hal_buffer **in_buffers, **out_buffers; /* on the device */
    int32_t guard; /* tensor of the guard, or -1: it runs when that is guard_value */
    bool guard_value;
    int32_t states;  /* index of its first pair in plan->states, or -1 */
    uint64_t serves; /* what it helps to make: dbt_plan_output_bit of outputs, DBT_SERVES_* */
    bool is_prepared;
    void *prepared;
    const struct dbt_step
        *prefetched; /* the next one on the CPU that knows what it reads first, or NULL */
    const char *name, *op, *kernel, *why;
    uint64_t runs, nanoseconds, dispatches, device_ns;
    dbt_work work; /* in all those runs, on the CPU */
} dbt_step;

/* A past input and a present output of the graph that are one state. */
typedef struct dbt_plan_state {
    dbt_state_kind kind;
    bool on_device;        /* its rows are */
    int32_t past, present; /* tensors (native, CPU) */
    int32_t axis;          /* along which it grows; -1: it has a fixed shape */
    int64_t window;        /* WINDOW: local_window_size */
    dbt_block gathered;    /* REPLACE: past tensors of several states, one behind the other */
} dbt_plan_state;

typedef struct dbt_slot {
    bool on_device;
    dbt_block block;        /* CPU */
    dbt_hal_buffer *buffer; /* device */
    uint64_t buffer_bytes;
    uint64_t estimate; /* while planning: bytes at guessed dims */
} dbt_slot;

typedef struct dbt_plan_options {
    dbt_cpu_options cpu;
    dbt_pool *pool;
    bool keep_values, noise, no_fusion;
    bool keep_bounds, no_proof;
    dbt_gpu *gpu; /* NULL: the session's device is the CPU */
    /* NULL when the device takes the node, else why not. */
    const char *(*device_refuses)(void *user, const dbt_node *node);
    void *device_user;
    /* NULL, or the output that the device chooses tokens from, and the input that takes them. */
    const char *sample_output, *feed_input;
} dbt_plan_options;

/* A tensor to be made ready before steps are, or a part of a constant that is a stack. */
typedef struct dbt_load {
    uintptr_t source; /* of its bytes; 0: none are read */
    uint64_t offset;
    int32_t tensor;
    uint32_t part;
} dbt_load;

typedef struct dbt_plan {
    dbt_graph *graph;
    dbt_arena *arena;
    dbt_plan_options options;
    dbt_plan_tensor *tensors;
    dbt_step *steps;
    dbt_plan_state *states;
    dbt_slot *slots;
    int32_t *inputs;  /* tensor of graph input i, -1: nothing uses it */
    int32_t *outputs; /* tensor of graph output i */
    int32_t n_tensors, n_steps, n_states, n_slots;
    int32_t tensors_capacity, steps_capacity;
    int32_t (*by_value)[4];  /* value id -> tensor for [native + 2 * on_device], or -1 */
    dbt_dim last_rows;       /* the symbol, or DBT_DIM_NONE when nothing selects rows */
    dbt_dim all_rows;        /* what it is by default */
    dbt_dim sequence;        /* how many tokens a run appends to its states, or DBT_DIM_NONE */
    int32_t settings, token; /* of dibit.Sample, on the CPU and on the device; -1: there is none */
    int32_t fed;             /* input that can take the token of the run before, or -1 */
    dbt_load *loads;         /* [n_loads] in this order; NULL: not known yet */
    int32_t n_loads, n_loaded;
    int32_t n_asked;   /* steps that were asked to choose their kernels, in this round */
    int32_t n_waiting; /* of them, those that wait for the device */
    bool fused;        /* nodes were */
    dbt_block fetched; /* the bytes of the constant that is being loaded and converted */
    uint64_t weight_bytes, packed_bytes;
    uint64_t held_bytes; /* of the weights: in the arena, since their file is not mapped */
    bool int8_activations;
} dbt_plan;

/* Makes steps, tensors and slots. The graph is the plan's own: rewrites change it. */
dibit_status dbt_plan_create(dbt_graph *graph, dbt_arena *arena, const dbt_plan_options *options,
                             dbt_plan **out, dibit_error *error);
/* plan/prepare.c: loads a constant, or chooses a step's kernel and packs its weights: PENDING until all
 * is done. *waiting: a weight is still on its way, so that calling again at once makes little sense. */
dibit_status dbt_plan_prepare(dbt_plan *plan, bool *waiting, dibit_error *error);

/* plan/prepare.c: a constant that has been loaded from the same bytes of a file (tied weights are there once), or NULL. */
const dbt_plan_tensor *dbt_plan_twin(const dbt_plan *plan, const dbt_plan_tensor *t);
/* plan/upload.c: brings a constant to the device, of a stack one part; PENDING while its bytes are on their
 * way. */
dibit_status dbt_plan_upload(dbt_plan *plan, dbt_plan_tensor *t, uint32_t part, dibit_error *error);
/* Frees what steps and constants hold on the device. */
void dbt_plan_release(dbt_plan *plan);

/* The node's pairs are rows of sequences that it appends to, not plain tensors. */
bool dbt_node_has_rows(const dbt_node *node);

/* plan/serves.c: finds steps' `serves`. */
#define DBT_SERVES_TOKEN (UINT64_C(1) << 62)
#define DBT_SERVES_STATES (UINT64_C(1) << 63)
uint64_t dbt_plan_output_bit(uint32_t output);
dibit_status dbt_plan_find_serves(dbt_plan *plan, dibit_error *error);
/* plan/token.c: *node NULL when there are no such logits. */
dibit_status dbt_rewrite_sample(dbt_graph *graph, const char *output, dbt_node **node,
                                dibit_error *error);
void dbt_plan_find_fed(dbt_plan *plan, const char *input);

/* plan/slots.c: liveness, and which tensors share memory. */
dibit_status dbt_plan_assign_slots(dbt_plan *plan, dibit_error *error);
/* plan/fold_views.c */
dibit_status dbt_fold_views(dbt_graph *graph, dibit_error *error);
/* plan/rewrite_transposed_gather.c */
dibit_status dbt_rewrite_transposed_gathers(dbt_graph *graph, dibit_error *error);

/* plan/matrix.c: writes what a constant's matrix is, given the bytes that it is made from. */
void dbt_matrix_write(const dbt_constant_matrix *m, const void *from, void *to);

/* plan/rewrite_dequantize.c, plan/rewrite_norm.c: on every device. */
dibit_status dbt_rewrite_dequantize(dbt_graph *graph, dibit_error *error);
dibit_status dbt_rewrite_norms(dbt_graph *graph, dibit_error *error);

/* plan/stack.c: part i is `rows` rows, which stand from first_row on, in ascending order. NULL: out of
 * memory. */
typedef struct dbt_stack_part {
    const dbt_value *value; /* a constant */
    int64_t rows, first_row;
} dbt_stack_part;
dbt_value *dbt_stack_constants(dbt_graph *graph, const char *name, const dbt_stack_part *parts,
                               uint32_t n);

/* plan/rewrite_fuse.c: for nodes that the device takes, or of a session on the CPU. */
typedef struct dbt_fuse_options {
    bool (*takes)(void *user, const dbt_node *node); /* NULL: the CPU takes all */
    void *user;
    uint64_t max_buffer_bytes; /* of the device */
} dbt_fuse_options;
bool dbt_node_is(const dbt_node *node, const char *domain, const char *name);
/* Of one type and shape. */
bool dbt_values_alike(const dbt_value *a, const dbt_value *b);
/* plan/rewrite_heads.c; before dbt_rewrite_fuse */
dibit_status dbt_rewrite_heads(dbt_graph *graph, const dbt_fuse_options *options,
                               dibit_error *error);
dibit_status dbt_rewrite_fuse(dbt_graph *graph, const dbt_fuse_options *options,
                              dibit_error *error);

/* plan/rewrite_last_rows.c */
dibit_status dbt_rewrite_last_rows(dbt_graph *graph, dbt_dim *last_rows, dbt_dim *all_rows,
                                   dibit_error *error);

#endif

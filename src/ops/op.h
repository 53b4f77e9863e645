/* What an operator is: one folder, one table entry, these functions.
 *
 * A folder src/ops/NAME/ exports `const dbt_op dbt_NAME_ops[]`, ended by an entry without a name,
 * and has one line in ops.inc. ref.c in the folder defines what is correct; cpu.c chooses a kernel.
 *
 * VALUES. Between steps every floating value is stored as float whatever the model declares
 * (float16, bfloat16, double), 2- and 4-bit integers one to a byte, all else as it is. So kernels see
 * DIBIT_TYPE_FLOAT, and a tensor's `type` is its storage type; what the model declares is in
 * node->inputs[i]->type. Constants are converted the same way by the planner, unless the op's
 * raw_inputs says that it reads an input's constant in the type and packing of the file.
 *
 * MEMORY. cpu_run allocates nothing: cpu_scratch says what it needs for given dims, cpu_prepare may
 * keep tables and packed weights for the plan's life.
 *
 * ERRORS. infer catches what can be known from types, shapes and attributes; cpu_run checks values
 * (indices out of range) and shapes that were unknown. Sentences begin without the node's name: the
 * caller puts it in front. */
#ifndef DBT_OPS_OP_H
#define DBT_OPS_OP_H

#include "base/pool.h"
#include "gpu/gpu.h"
#include "graph/graph.h"

/* ---- Attributes ---------------------------------------------------------------------------- */

typedef enum dbt_attr_kind {
    DBT_ATTR_INT,     /* int64_t */
    DBT_ATTR_FLOAT,   /* float */
    DBT_ATTR_STRING,  /* const char * */
    DBT_ATTR_INTS,    /* dbt_attr_ints */
    DBT_ATTR_FLOATS,  /* dbt_attr_floats */
    DBT_ATTR_STRINGS, /* dbt_attr_strings */
    DBT_ATTR_TENSOR,  /* const dbt_constant *, resident */
    DBT_ATTR_IGNORED  /* accepted, without meaning here; no field */
} dbt_attr_kind;

typedef struct dbt_attr_ints {
    const int64_t *v; /* NULL when the attribute is absent */
    uint32_t n;
} dbt_attr_ints;
typedef struct dbt_attr_floats {
    const float *v;
    uint32_t n;
} dbt_attr_floats;
typedef struct dbt_attr_strings {
    const char *const *v;
    uint32_t n;
} dbt_attr_strings;

/* Where an attribute goes in the op's attribute struct, and what it is when absent. INTS, FLOATS,
 * STRINGS and TENSOR default to NULL. An INT whose absence matters defaults to DBT_ATTR_ABSENT, a
 * FLOAT to NAN. */
#define DBT_ATTR_ABSENT INT64_MIN
typedef struct dbt_attr_def {
    const char *name;
    dbt_attr_kind kind;
    bool required;
    uint16_t offset; /* offsetof(struct, field) */
    int64_t i;
    float f;
    const char *s;
} dbt_attr_def;

/* ---- Inference ----------------------------------------------------------------------------- */

/* Given the inputs, sets type, shape and, where it can, contents of the outputs. Called when the
 * graph is built, with symbolic dims; and, for nodes whose output dims are fresh symbols, before each
 * run of the node, with constants: all dims known, and contents set for every small integer input.
 * Then an output dim must not be fresh. */
typedef struct dbt_infer {
    const dbt_node *node; /* attrs, opset; its inputs and outputs are the arrays below */
    const void *attrs;
    uint32_t n_inputs, n_outputs;
    dbt_value *const *in;  /* NULL where absent */
    dbt_value *const *out; /* NULL where not wanted */
    dbt_dims *dims;
    /* Before a run of the node: what the inputs hold, as in dbt_cpu_call; else NULL. */
    const dibit_tensor *const *tensors;
    dbt_arena *arena; /* for contents */
    dibit_error *error;
} dbt_infer;

/* ---- Running on the CPU ---------------------------------------------------------------------- */

/* Session options that kernels depend on. */
typedef struct dbt_cpu_options {
    uint64_t isa; /* detected & mask */
    dibit_activations activations;
} dbt_cpu_options;

typedef struct dbt_cpu_prepare {
    const dbt_node *node;
    const void *attrs;
    const dbt_cpu_options *options;
    /* Constants among the inputs, in storage type unless raw_inputs has the bit; else NULL. They
     * live as long as the plan. */
    const dibit_tensor *const *in;
    dbt_arena *arena; /* for *prepared: lives as long as the plan */
    dbt_pool *pool;
    void *prepared;        /* out: handed to cpu_scratch and cpu_run */
    const char *kernel;    /* out: for `dibit info`; "" by default */
    const char *why;       /* out: why that kernel; "" by default */
    bool int8_activations; /* out */
    uint64_t packed_bytes; /* out: weights copied to another layout */
    dibit_error *error;
} dbt_cpu_prepare;

/* One batch row's part of a state that lives across runs: [heads, capacity, head_dim] for APPEND and
 * WINDOW. The op appends in place, and sets length to what the state holds afterwards. When the
 * caller passes past tensors itself, the rows lie in the present output, with the past already
 * copied to their front. */
typedef struct dbt_state_row {
    void *data;
    int64_t length; /* rows along the sequence axis that are filled */
    int64_t capacity;
} dbt_state_row;

typedef struct dbt_cpu_call {
    const dbt_node *node;
    const void *attrs;
    uint32_t n_inputs, n_outputs;
    const dibit_tensor *const *in; /* NULL where absent */
    dibit_tensor *const *out;      /* NULL where not wanted; dims are set, data to be filled */
    void *prepared;
    void *scratch;                /* 64-byte aligned, of the size that cpu_scratch asked for */
    dbt_state_row *const *states; /* [n_states of the op][batch], or NULL when it has none here */
    const dbt_cpu_options *options;
    dbt_pool *pool;
    dibit_error *error;
} dbt_cpu_call;

/* ---- Running on a device ---------------------------------------------------------------------
 *
 * On a device every floating value is float and every integer and bool is int32, one word an element;
 * constants of raw_inputs are the file's bytes, and rows of states have the type that the model
 * declares, float16 two to a word. An op records dispatches; it computes nothing itself, and its shaders
 * are *.wgsl files in its folder. Dims are below 2^31 elements in all. An index that only the device
 * knows and that is out of range is not reported there: what it would pick is 0, and what it would
 * write is left out. */

/* As dbt_state_row, in a device buffer: the rows of head h begin at element base + h * capacity * row. */
typedef struct dbt_gpu_state_row {
    dbt_hal_buffer *buffer;
    uint64_t base; /* elements of the state's type */
    int64_t length;
    int64_t capacity;
} dbt_gpu_state_row;

typedef struct dbt_gpu_call {
    const dbt_node *node;
    const void *attrs;
    uint32_t n_inputs, n_outputs;
    const dibit_tensor *const *in; /* dims; data only of host_inputs; NULL where absent */
    dibit_tensor *const *out;
    dbt_hal_buffer *const *in_buffers; /* NULL where absent, empty, or a host input */
    dbt_hal_buffer *const *out_buffers;
    const bool *in_constant;          /* [n_inputs]: an initializer, the same in every run */
    void *prepared;                   /* as gpu_prepare left it, or NULL */
    dbt_gpu_state_row *const *states; /* [n_states of the op][batch], or NULL */
    dibit_activations activations;
    dbt_gpu *gpu;
    dibit_error *error;
} dbt_gpu_call;

typedef struct dbt_gpu_prepare {
    const dbt_node *node;
    const void *attrs;
    dibit_activations activations;
    const dibit_tensor *const
        *in; /* constants: dims and type; data only of host_inputs; else NULL */
    dbt_hal_buffer *const *in_buffers; /* of constants; else NULL */
    dbt_arena *arena;                  /* for *prepared: lives as long as the plan */
    dbt_gpu *gpu;
    bool no_proof;         /* take the kernels as they are */
    void *prepared;        /* out: handed to gpu_encode and gpu_release */
    const char *kernel;    /* out: for `dibit info`; "" by default */
    const char *why;       /* out: why that kernel; "" by default */
    bool int8_activations; /* out */
    dibit_error *error;
} dbt_gpu_prepare;

/* ---- States ---------------------------------------------------------------------------------- */

typedef enum dbt_state_kind {
    DBT_STATE_APPEND,  /* present is past with rows appended along `axis` */
    DBT_STATE_WINDOW,  /* past and present have the same capacity; the op evicts */
    DBT_STATE_REPLACE, /* present takes past's place: plain tensors, in storage type; no rows */
    DBT_STATE_NONE     /* this node's tensors cannot be a dibit_state: plain tensors too */
} dbt_state_kind;

/* Input `past` and output `present` of a node are one state. */
typedef struct dbt_state_pair {
    uint8_t past, present;
} dbt_state_pair;

/* ---- The operator ---------------------------------------------------------------------------- */

enum {
    DBT_OP_VIEW = 1 << 0,    /* output 0 is input 0's memory with another shape */
    DBT_OP_ROWWISE = 1 << 1, /* every row (all axes but the last) of output 0 depends on the same
                                 row of the inputs of full rank only; other inputs have rank <= 1
                                 or are weights */
    DBT_OP_NONDETERMINISTIC = 1 << 2, /* never folded */
    DBT_OP_IN_PLACE =
        1 << 3, /* output 0 may share memory with input 0 of the same shape and type */
};
enum { DBT_VARIADIC = 255 };

struct dbt_op {
    const char *domain; /* "" is ai.onnx */
    const char *name;
    int16_t since, until; /* opsets, inclusive; until 0: no end */
    uint8_t min_inputs, max_inputs, min_outputs, max_outputs; /* max may be DBT_VARIADIC */
    uint16_t kind;        /* which of its family, for shared functions */
    uint16_t flags;       /* DBT_OP_* */
    uint32_t raw_inputs;  /* bit i: a constant at input i is handed over as in the file */
    uint32_t host_inputs; /* bit i: input i is read on the host (shape, axes, lengths) */
    const dbt_attr_def *attrs;
    uint16_t n_attrs, attrs_bytes;
    const dbt_state_pair *states;
    uint8_t n_states;

    dibit_status (*infer)(dbt_infer *infer);
    /* Any of these may be NULL but cpu_run. */
    dibit_status (*cpu_prepare)(dbt_cpu_prepare *prepare);
    uint64_t (*cpu_scratch)(const dbt_cpu_call *call); /* bytes; dims are set, data is not */
    dibit_status (*cpu_run)(const dbt_cpu_call *call);
    /* Adds what thread `thread` of `n_threads` reads first of the constants, before the inputs are there: their
     * dims are set, data is not. */
    void (*cpu_prefetch)(const dbt_cpu_call *call, uint32_t thread, uint32_t n_threads,
                         dbt_prefetch *prefetch);
    /* How far float outputs may be from the exact result, one bound per element and output (NULL
     * outputs excepted), computed from the same inputs: gamma_n * eps * S where the op sums. Run
     * after cpu_run with the same call, scratch untouched since. NULL: 4 * eps * |y|. */
    dibit_status (*cpu_bound)(const dbt_cpu_call *call, float *const *bound);
    /* Which kind of state the node's pairs are; NULL: APPEND along axis 2. */
    dbt_state_kind (*state_kind)(const dbt_node *node);
    /* Narrows DBT_OP_ROWWISE to some nodes; NULL: all of them. */
    bool (*is_rowwise)(const dbt_node *node);
    /* Of quantized ops: what its weights are, "2 bits, block 32, ...", into text of `size` bytes. */
    void (*describe)(const dbt_node *node, char *text, size_t size);

    /* Records the node's dispatches. NULL: the op runs on the CPU only. PENDING is not allowed. */
    dibit_status (*gpu_encode)(const dbt_gpu_call *call);
    /* NULL when that device can run this node, else half a sentence why not ("int64 arithmetic"). */
    const char *(*gpu_refuses)(const dbt_node *node, const dbt_hal *hal);
    /* Once per session, after constants are on the device: chooses, warms and proves kernels. */
    dibit_status (*gpu_prepare)(dbt_gpu_prepare *prepare);
    /* Frees device buffers that gpu_prepare made. */
    void (*gpu_release)(void *prepared, dbt_gpu *gpu);
    /* How far a device's float outputs may be from the exact result, as cpu_bound (which it is called
     * like, on CPU values): for ops that use functions whose accuracy WGSL leaves open. INFINITY where
     * nothing is promised. NULL: exact where cpu_bound is dbt_cpu_exact_bound, else twice what
     * cpu_bound says, and 2^-22 |y|. Besides, a device may take numbers below 2^-126 for zero. */
    dibit_status (*gpu_bound)(const dbt_cpu_call *call, float *const *bound);
};

/* The op for a name in a domain at an opset version. *any says whether the name exists at another
 * version (for the error). */
const dbt_op *dbt_op_find(const char *domain, const char *name, int64_t opset, const dbt_op **any);
/* Every op, folder by folder; NULL past the end. */
const dbt_op *dbt_op_at(size_t index);

/* ---- Helpers for infer (ops/infer.c) --------------------------------------------------------- */

/* BAD_FILE unless input i's type is in the set; absent inputs pass. */
dibit_status dbt_infer_type(const dbt_infer *infer, uint32_t i, uint32_t types);
/* BAD_FILE unless inputs i and j have the same type; absent inputs pass. */
dibit_status dbt_infer_same_type(const dbt_infer *infer, uint32_t i, uint32_t j);
/* BAD_FILE unless input i's rank is known and lies in [lowest, highest]. UNSUPPORTED when the rank is
 * unknown; absent inputs pass. */
dibit_status dbt_infer_rank(const dbt_infer *infer, uint32_t i, int32_t lowest, int32_t highest);
/* BAD_FILE when dim `axis` of input i is known to differ from `want`; *expected* in the sentence. */
dibit_status dbt_infer_dim(const dbt_infer *infer, uint32_t i, int32_t axis, dbt_dim want);
/* Sets output i (if wanted); shape NULL: unknown rank. */
void dbt_infer_output(const dbt_infer *infer, uint32_t i, dibit_type type, const dbt_shape *shape);
/* The same for a shape that was computed: BAD_FILE for a negative dim, TOO_LARGE beyond
 * DBT_MAX_ELEMENTS elements, as far as dims are known. */
#define DBT_MAX_ELEMENTS ((int64_t)1 << 40)
dibit_status dbt_infer_sized(const dbt_infer *infer, uint32_t i, dibit_type type,
                             const dbt_shape *shape);
/* Output 0 (and only it) is like input 0. */
dibit_status dbt_infer_like_first(dbt_infer *infer);
/* numpy broadcasting of two shapes; BAD_FILE when they cannot fit. */
dibit_status dbt_infer_broadcast(const dbt_infer *infer, const dbt_shape *a, const dbt_shape *b,
                                 dbt_shape *out);
/* axis in [-rank, rank) to [0, rank); BAD_FILE naming `what` otherwise. */
dibit_status dbt_infer_axis(const dbt_infer *infer, int64_t axis, int32_t rank, const char *what,
                            int32_t *out);
/* The contents of input i as constants: n of them, BAD_FILE when there are more than max;
 * *known false when they are not known now. Absent: *known true, n 0. */
dibit_status dbt_infer_constants(const dbt_infer *infer, uint32_t i, uint32_t max, int64_t *v,
                                 uint32_t *n, bool *known);
/* The number of elements of a contents-carrying value's shape (which is constant there). */
int64_t dbt_infer_contents_count(const dbt_infer *infer, const dbt_value *value);
/* Sets the contents of output 0: `n` dims, copied. A no-op when n > DBT_MAX_CONTENTS, when the type
 * is not integer or bool, or when any dim is DBT_DIM_NONE. */
dibit_status dbt_infer_set_contents(const dbt_infer *infer, const dbt_dim *contents, int64_t n);
/* A fresh dim for this node: its value is known only when it runs. */
dbt_dim dbt_infer_fresh(const dbt_infer *infer);

/* ---- Helpers for cpu_run (ops/run.c) --------------------------------------------------------- */

/* cpu_run of a view: copies input 0's elements to output 0 unless they are the same memory. */
dibit_status dbt_cpu_view(const dbt_cpu_call *call);
/* cpu_bound of an op that only moves elements: 0. */
dibit_status dbt_cpu_exact_bound(const dbt_cpu_call *call, float *const *bound);
/* Bytes of a tensor's elements as stored between steps. */
uint64_t dbt_cpu_bytes(const dibit_tensor *t);

/* ---- Bounds (ops/bound.c) --------------------------------------------------------------------

 * Called as cpu_bound is; outputs whose bounds are NULL are passed over. */

/* What cpu_bound says, or the default. */
dibit_status dbt_op_cpu_bounds(const dbt_cpu_call *call, float *const *bounds);
/* How far a device may be from what the CPU computed, given dbt_op_cpu_bounds: both are off, and either
 * may take what is below the normal numbers for zero. */
dibit_status dbt_op_device_bounds(const dbt_cpu_call *call, float *const *cpu,
                                  float *const *allowed);

/* ---- Helpers for gpu_encode (ops/run_gpu.c) -------------------------------------------------- */

/* gpu_encode of a view: copies input 0's elements to output 0 unless they are the same memory. */
dibit_status dbt_gpu_view(const dbt_gpu_call *call);
/* The call as functions see it that look at dims and host inputs alone; it lives as long as call. */
dbt_cpu_call dbt_gpu_shapes(const dbt_gpu_call *call);
/* Copies a tensor's elements. */
dibit_status dbt_gpu_copy_tensor(const dbt_gpu_call *call, const dibit_tensor *t,
                                 dbt_hal_buffer *from, dbt_hal_buffer *to);
/* Records the dispatch over n invocations, in workgroups of 256 in one dimension. */
dibit_status dbt_gpu_record_over(const dbt_gpu_call *call, dbt_gpu_dispatch *dispatch, int64_t n);
/* Why a device's words cannot stand for such integers in arithmetic, or NULL. */
const char *dbt_gpu_refuses_type(dibit_type type);
/* A buffer that is NULL, since its tensor is empty, becomes one that can be bound and must not be read. */
dibit_status dbt_gpu_bindable(const dbt_gpu_call *call, dbt_hal_buffer **buffer);
/* RAW of raw.inc.wgsl: how a tensor lies in its buffer, by its type there; constants of raw_inputs have
 * the file's. Not for types that dbt_gpu_refuses_raw names. */
int32_t dbt_gpu_raw(dibit_type type);
/* Why shaders cannot read elements of a file's type, or NULL. */
const char *dbt_gpu_refuses_raw(dibit_type type);
/* How words stay within an integer type of fewer than 32 bits: v is
 * (v & mask) << shift >> shift, an arithmetic shift. */
void dbt_gpu_narrow(dibit_type type, uint32_t *mask, uint32_t *shift);

#endif

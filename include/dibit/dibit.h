/* dibit.h - the public interface of the Dibit engine.
 *
 * Dibit runs low-bit ONNX transformers on the CPU (and, through devices, on GPUs). This header is
 * the engine; language-model helpers (tokenizer, chat, sampling) are in dibit/lm.h, and what tells why an answer
 * is wrong (verify, diff, trace) in dibit/debug.h.
 *
 * WHAT IT DOES NOT DO
 *   It never prints, exits, aborts, or reads the environment. It does not train, and it executes
 *   the ONNX operators that `dibit info --ops` lists, no others.
 *
 * STEP BY STEP
 *     dibit_error error;
 *     dibit_model *model = NULL;
 *     dibit_session *session = NULL;
 *     if (dibit_model_load(&(dibit_model_desc){.path = "model.onnx"}, &model, &error)) ...
 *     if (dibit_session_create(model, NULL, &session, &error)) ...
 *     float x[4] = {1, 2, 3, 4};
 *     dibit_tensor in = {.name = "x", .type = DIBIT_TYPE_FLOAT, .rank = 1, .dims = {4}, .data = x};
 *     dibit_tensor out = {.name = "y"};
 *     if (dibit_session_run(session, &(dibit_run){.inputs = &in, .n_inputs = 1,
 *                                                 .outputs = &out, .n_outputs = 1}, &error)) ...
 *     // out.type, out.rank, out.dims and out.data now describe y
 *     dibit_session_destroy(&session);
 *     dibit_model_destroy(&model);
 *
 * MEMORY
 *   create(desc, &thing, &error) makes a thing, destroy(&thing) frees it and sets the pointer to
 *   NULL; destroying NULL does nothing. A model outlives its sessions, a session its states.
 *   After a failure the out parameter and every existing handle are unchanged.
 *   Option structs: zero means default. A NULL desc means all defaults.
 *
 * ERRORS
 *   Every function that can fail returns a dibit_status, 0 on success, and, where `error` is not
 *   NULL, one sentence that names the place: file, node, attribute, expected, got.
 *
 * THREADS
 *   A model may be shared by sessions on different threads. A session, its states and its device
 *   belong to one thread at a time. Results do not depend on the number of threads.
 */
#ifndef DIBIT_DIBIT_H
#define DIBIT_DIBIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIBIT_VERSION_MAJOR 0
#define DIBIT_VERSION_MINOR 1
#define DIBIT_VERSION_PATCH 0

#if defined(_WIN32)
#define DIBIT_API
#elif defined(__GNUC__)
#define DIBIT_API __attribute__((visibility("default")))
#else
#define DIBIT_API
#endif

/* ---- Errors ------------------------------------------------------------------------------- */

/* X(NAME, value, text). Values are pinned: they never change their meaning. */
#define DIBIT_STATUS_LIST(X)                                                                       \
    X(OK, 0, "success")                                                                            \
    X(PENDING, 1, "not finished yet: poll again")                                                  \
    X(CANCELLED, 2, "cancelled by the caller")                                                     \
    X(BAD_ARGUMENT, 10, "an argument of the call is wrong")                                        \
    X(BAD_STATE, 11, "the call does not fit the handle's state")                                   \
    X(NOT_FOUND, 12, "no such name")                                                               \
    X(IO, 20, "a file cannot be read or written")                                                  \
    X(BAD_FILE, 21, "a file's content is malformed")                                               \
    X(UNSUPPORTED, 22, "valid, but Dibit does not support it")                                     \
    X(TOO_LARGE, 23, "a size is beyond a limit")                                                   \
    X(OUT_OF_MEMORY, 30, "out of memory")                                                          \
    X(BAD_INPUT, 40, "an input tensor does not fit the model")                                     \
    X(OUT_OF_RANGE, 41, "a value inside an input is out of range")                                 \
    X(CAPACITY, 42, "a state is full")                                                             \
    X(DEVICE_UNAVAILABLE, 50, "the device is not available")                                       \
    X(DEVICE_LOST, 51, "the device was lost")

typedef enum dibit_status {
#define DIBIT_STATUS_ENUM(name, value, text) DIBIT_##name = value,
    DIBIT_STATUS_LIST(DIBIT_STATUS_ENUM)
#undef DIBIT_STATUS_ENUM
} dibit_status;

typedef struct dibit_error {
    dibit_status status;
    char text[500]; /* one sentence, no newline, NUL-terminated */
} dibit_error;

/* Returns the status' name ("OUT_OF_MEMORY") or its text; never NULL, also for unknown values. */
DIBIT_API const char *dibit_status_name(dibit_status status);
DIBIT_API const char *dibit_status_text(dibit_status status);

/* ---- Memory ------------------------------------------------------------------------------- */

/* Where all memory comes from. `alloc` returns NULL when there is none; alignment is a power of two
 * of at most 4096. `release` gets the size that was asked for. Both are called from one thread at a
 * time per model or session. NULL functions: malloc's. */
typedef struct dibit_allocator {
    void *(*alloc)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *memory, size_t bytes);
    void *user;
} dibit_allocator;

/* ---- Tensors ------------------------------------------------------------------------------ */

/* Element types, with the values of ONNX's TensorProto.DataType. */
typedef enum dibit_type {
    DIBIT_TYPE_UNDEFINED = 0,
    DIBIT_TYPE_FLOAT = 1,
    DIBIT_TYPE_UINT8 = 2,
    DIBIT_TYPE_INT8 = 3,
    DIBIT_TYPE_UINT16 = 4,
    DIBIT_TYPE_INT16 = 5,
    DIBIT_TYPE_INT32 = 6,
    DIBIT_TYPE_INT64 = 7,
    DIBIT_TYPE_STRING = 8,
    DIBIT_TYPE_BOOL = 9,
    DIBIT_TYPE_FLOAT16 = 10,
    DIBIT_TYPE_DOUBLE = 11,
    DIBIT_TYPE_UINT32 = 12,
    DIBIT_TYPE_UINT64 = 13,
    DIBIT_TYPE_COMPLEX64 = 14,
    DIBIT_TYPE_COMPLEX128 = 15,
    DIBIT_TYPE_BFLOAT16 = 16,
    DIBIT_TYPE_FLOAT8E4M3FN = 17,
    DIBIT_TYPE_FLOAT8E4M3FNUZ = 18,
    DIBIT_TYPE_FLOAT8E5M2 = 19,
    DIBIT_TYPE_FLOAT8E5M2FNUZ = 20,
    DIBIT_TYPE_UINT4 = 21,
    DIBIT_TYPE_INT4 = 22,
    DIBIT_TYPE_FLOAT4E2M1 = 23,
    DIBIT_TYPE_FLOAT8E8M0 = 24,
    DIBIT_TYPE_UINT2 = 25,
    DIBIT_TYPE_INT2 = 26
} dibit_type;

#define DIBIT_MAX_RANK 8

/* A view of a dense row-major tensor. 4- and 2-bit elements are packed, low bits first. */
typedef struct dibit_tensor {
    const char *name;
    dibit_type type;
    int32_t rank; /* 0 to DIBIT_MAX_RANK */
    int64_t dims[DIBIT_MAX_RANK];
    void *data;     /* may be NULL when the tensor has no elements */
    uint64_t bytes; /* size of the memory at data; as an input 0 means "as dims and type say" */
} dibit_tensor;

/* Returns "float16", "int64", ...; "undefined" for values outside the list. */
DIBIT_API const char *dibit_type_name(dibit_type type);
/* Bits an element takes: 32 for float, 4 for int4; 0 for string, undefined and unknown values. */
DIBIT_API uint32_t dibit_type_bits(dibit_type type);
/* Writes the elements of `from` to to->data as to->type; to->bytes says how many there is room for
 * (TOO_LARGE), rank and dims are filled in. Any floating type becomes float and float any floating type,
 * rounded to nearest even; 2- and 4-bit integers become (u)int8 and back; int64 any integer type or bool,
 * whose low bits it keeps. UNSUPPORTED for others. */
DIBIT_API dibit_status dibit_tensor_convert(const dibit_tensor *from, dibit_tensor *to,
                                            dibit_error *error);

/* Receives text, or a file's bytes, in pieces; `bytes` of them, not NUL-terminated. */
typedef void (*dibit_write)(void *user, const char *text, size_t bytes);

/* ---- Models ------------------------------------------------------------------------------- */

typedef struct dibit_model dibit_model;

/* Random access to a file's bytes, for models that do not lie in a local file. `read` copies
 * `bytes` bytes at `offset` to dst and returns DIBIT_OK, or returns DIBIT_PENDING after starting to
 * fetch them (the load then answers PENDING and asks for the same range when polled again), or
 * fails. `close` may be NULL. */
typedef struct dibit_source {
    uint64_t size; /* bytes in all */
    dibit_status (*read)(void *user, uint64_t offset, uint64_t bytes, void *dst,
                         dibit_error *error);
    void (*close)(void *user);
    void *user;
} dibit_source;

/* Opens an external data file of a model that was given as a source. `location` is the name in the
 * model file, already checked to be relative and without "..". The engine closes what it opened. */
typedef dibit_status (*dibit_open_external)(void *user, const char *location, dibit_source *out,
                                            dibit_error *error);

/* Exactly one of path, data and source is set. */
typedef struct dibit_model_desc {
    const char *path; /* model.onnx; external data is looked for in its folder */
    const void *data; /* a whole model file in memory, borrowed until destroy */
    uint64_t data_bytes;
    const dibit_source *source; /* copied; closed by dibit_model_destroy, also after a failure */
    dibit_open_external open_external; /* for data and source; NULL: external data is an error */
    void *open_external_user;
    const char *name;                 /* how errors call the file; default: path, or "model" */
    const dibit_allocator *allocator; /* copied */
} dibit_model_desc;

/* Loads in one call: begin, then poll until it is not PENDING. */
DIBIT_API dibit_status dibit_model_load(const dibit_model_desc *desc, dibit_model **out,
                                        dibit_error *error);
/* Begins a load. Poll it until it answers something else than PENDING; only then may the model be
 * used. To cancel, destroy the model. */
DIBIT_API dibit_status dibit_model_begin(const dibit_model_desc *desc, dibit_model **out,
                                         dibit_error *error);
DIBIT_API dibit_status dibit_model_poll(dibit_model *model, dibit_error *error);
DIBIT_API void dibit_model_destroy(dibit_model **model);

/* What a graph input or output looks like. A dim is >= 0, or -1 where it is symbolic; then
 * dim_names says how the model calls it ("" if it has no name). */
typedef struct dibit_value_info {
    const char *name;
    dibit_type type;
    int32_t rank; /* -1: unknown */
    int64_t dims[DIBIT_MAX_RANK];
    const char *dim_names[DIBIT_MAX_RANK];
} dibit_value_info;

/* Inputs that have a default (an initializer of the same name) are not counted. */
DIBIT_API uint32_t dibit_model_input_count(const dibit_model *model);
DIBIT_API uint32_t dibit_model_output_count(const dibit_model *model);
/* Fills *info; its strings live as long as the model. BAD_ARGUMENT when index is out of range. */
DIBIT_API dibit_status dibit_model_input(const dibit_model *model, uint32_t index,
                                         dibit_value_info *info);
DIBIT_API dibit_status dibit_model_output(const dibit_model *model, uint32_t index,
                                          dibit_value_info *info);

/* A node of the model's graph, in the order in which they run. Strings live as long as the model. */
typedef struct dibit_node_info {
    const char *name;
    const char *domain; /* "" is ai.onnx */
    const char *op;
    char config[160]; /* of quantized ops: "2 bits, block 32, ..."; "" for others */
} dibit_node_info;

/* NOT_FOUND past the last node. */
DIBIT_API dibit_status dibit_model_node(const dibit_model *model, uint32_t index,
                                        dibit_node_info *info);

/* The name of a node's input or output: "" where an optional one is absent, NOT_FOUND past the last. */
DIBIT_API dibit_status dibit_model_node_input(const dibit_model *model, uint32_t node,
                                              uint32_t index, const char **name);
DIBIT_API dibit_status dibit_model_node_output(const dibit_model *model, uint32_t node,
                                               uint32_t index, const char **name);
/* Writes a node as dibit_model_dump does, with its attributes and the types of its outputs. */
DIBIT_API dibit_status dibit_model_dump_node(const dibit_model *model, uint32_t node,
                                             dibit_write write, void *user);

/* Some nodes of a graph, to be taken out of it. */
typedef struct dibit_extract {
    const uint32_t *nodes; /* as dibit_model_node counts, in ascending order */
    uint32_t n_nodes;
    /* What the nodes read and make in some run, by name (dibit_session_value): their dims, and the data of
     * what the host reads: shapes, axes, lengths. Missing ones: only the dims that the model says. */
    const dibit_tensor *values;
    uint32_t n_values;
    void *loading; /* NULL; the call's own while it answers PENDING */
} dibit_extract;

/* Writes the nodes as an .onnx file that runs by itself and has the sizes of that run: a bug report, or a
 * test of one kernel. Weights become initializers, and so does what the host reads; what else the nodes
 * read are inputs, and what they make outputs, under the names that the graph has for them. A node of
 * a branch of If runs whatever the condition. BAD_ARGUMENT when a value that the host reads is not given;
 * PENDING when the bytes of a weight are on their way: call again, or with write NULL to give it up. */
DIBIT_API dibit_status dibit_model_extract(const dibit_model *model, dibit_extract *what,
                                           dibit_write write, void *user, dibit_error *error);

/* An operator that this build runs. */
typedef struct dibit_op_info {
    const char *domain; /* "" is ai.onnx */
    const char *name;
    int32_t since, until; /* opset versions, inclusive; until 0: no end */
} dibit_op_info;

/* NOT_FOUND past the last operator. One whose definition changed comes once for each. */
DIBIT_API dibit_status dibit_op(uint32_t index, dibit_op_info *info);

/* Writes the graph as text, a line a value and a node: stable, meant for people and for tests. */
DIBIT_API void dibit_model_dump(const dibit_model *model, dibit_write write, void *user);

/* ---- Devices ------------------------------------------------------------------------------ */

typedef struct dibit_device dibit_device;

typedef enum dibit_device_kind {
    DIBIT_DEVICE_CPU = 0,
    DIBIT_DEVICE_NULL = 1,   /* accepts and validates GPU work, computes nothing: for tests */
    DIBIT_DEVICE_WEBGPU = 2, /* a GPU through a WebGPU library; software adapters too */
    DIBIT_DEVICE_AUTO = 3    /* WEBGPU where there is a real GPU, else CPU */
} dibit_device_kind;

/* What a GPU with timestamps times (dibit_device_get_work). */
typedef enum dibit_timing {
    DIBIT_TIMING_NONE = 0,
    DIBIT_TIMING_PASSES = 1,    /* its work as a whole; costs little */
    DIBIT_TIMING_DISPATCHES = 2 /* each dispatch, for profiles; slower */
} dibit_timing;

typedef struct dibit_device_desc {
    dibit_device_kind kind;
    uint32_t n_threads; /* CPU: worker threads incl. the caller; default: one for each core that the
                           process may use (not for each hardware thread), at most its cgroup's quota */
    uint64_t cpu_isa;   /* CPU: mask of DIBIT_ISA_* that may be used; default: all that it has */
    uint32_t
        null_pending_seed;   /* NULL device: not 0: poll answers PENDING a random number of times */
    const char *null_refuse; /* NULL device: comma-separated op types that it does not support */
    /* WEBGPU, AUTO: file of wgpu-native's library; default: where the system and pip put it. */
    const char *webgpu_library;
    /* WEBGPU: shaders check bounds and limit loops, as those of a page must; for measuring what that costs. */
    bool checked_shaders;
    uint32_t webgpu_device;           /* WEBGPU in a browser: the page's number of the GPUDevice */
    const dibit_allocator *allocator; /* copied */
    dibit_timing timing;              /* WEBGPU, AUTO */
} dibit_device_desc;

/* CPU features that kernels may need. A mask can only take features away. */
#define DIBIT_ISA_PORTABLE (1ull << 63) /* set alone: only plain C kernels */
#define DIBIT_ISA_AVX2 (1ull << 0)      /* with FMA and F16C */
#define DIBIT_ISA_AVX_VNNI (1ull << 1)
#define DIBIT_ISA_AVX512 (1ull << 2) /* F, BW, VL, DQ */
#define DIBIT_ISA_AVX512_VNNI (1ull << 3)
#define DIBIT_ISA_AVX512_VBMI (1ull << 4)
#define DIBIT_ISA_AMX_INT8 (1ull << 5) /* tiles of int8, where Linux gives the process leave */
#define DIBIT_ISA_NEON (1ull << 16)
#define DIBIT_ISA_NEON_DOT (1ull << 17)
#define DIBIT_ISA_NEON_I8MM (1ull << 18)
#define DIBIT_ISA_WASM_SIMD (1ull << 32)
#define DIBIT_ISA_WASM_RELAXED_SIMD (1ull << 33)

/* Every device has the CPU's threads as well, for what a GPU does not do. WEBGPU needs the library of
 * wgpu-native 29, which is loaded here and comes in Python's package wgpu (`pip install "wgpu==0.32.*"`), and
 * a driver: DEVICE_UNAVAILABLE says which of them is missing. AUTO falls back to the CPU, and
 * dibit_device_why says why. A GPU can fail later too, by DEVICE_LOST or OUT_OF_MEMORY: "Sessions whose GPU
 * fails", below. Then everything made on it can still be destroyed. A device is used by one thread at a time. */
DIBIT_API dibit_status dibit_device_create(const dibit_device_desc *desc, dibit_device **out,
                                           dibit_error *error);
DIBIT_API void dibit_device_destroy(dibit_device **device);
/* What it is: never AUTO, which has decided. */
DIBIT_API dibit_device_kind dibit_device_get_kind(const dibit_device *device);
/* How many kernels failed their proof on this device so far, and were left out for plainer ones: results are
 * right, but something is wrong with the device, its driver or the kernel. */
DIBIT_API uint32_t dibit_device_dropped_kernels(const dibit_device *device);
/* One line for people: "cpu, 2 threads, avx2 avx512 ..."; lives as long as the device. */
DIBIT_API const char *dibit_device_name(const dibit_device *device);
/* AUTO: one sentence that says what was chosen and why; else "". Lives as long as the device. */
DIBIT_API const char *dibit_device_why(const dibit_device *device);
/* What a GPU was given to do since it was opened; zeros for the CPU. */
typedef struct dibit_device_work {
    uint64_t dispatches, submits;
    double submit_seconds; /* that the CPU took to hand over what was recorded */
    double busy_seconds;   /* that the GPU was at work, by its timestamps; 0 without timing */
} dibit_device_work;

/* PENDING: the GPU is not done yet, call again. Else what its last call could have answered. */
DIBIT_API dibit_status dibit_device_get_work(dibit_device *device, dibit_device_work *out,
                                             dibit_error *error);
/* The features this machine has, whatever the mask. Where the CPU has AMX this asks Linux to let the process use its
 * tiles (arch_prctl), as a device does whose mask has AMX_INT8. */
DIBIT_API uint64_t dibit_cpu_isa(void);
/* Which kernels of MatMulNBits the CPU uses, from the text of a file that `dibit tune` wrote for this
 * machine: lines of bits, activations, the first M and the kernel, where that is not the one that would
 * be chosen anyway. It holds for all sessions of the process. BAD_FILE: malformed, or it names a kernel
 * that this build or machine does not have. BAD_STATE: a session, or another call, has chosen a kernel
 * already. Not thread-safe; call it first. */
DIBIT_API dibit_status dibit_cpu_tune(const char *text, dibit_error *error);

/* ---- Sessions ----------------------------------------------------------------------------- */

typedef struct dibit_session dibit_session;
typedef struct dibit_state dibit_state;

typedef enum dibit_activations {
    DIBIT_ACTIVATIONS_AUTO = 0,  /* int8 where the model's accuracy_level allows it and it pays */
    DIBIT_ACTIVATIONS_FLOAT = 1, /* never rounded to int8 */
    DIBIT_ACTIVATIONS_INT8 = 2   /* int8 wherever the model's accuracy_level allows it */
} dibit_activations;

typedef struct dibit_session_desc {
    dibit_device *device; /* borrowed until the session is destroyed; default: a CPU of its own */
    dibit_activations activations;
    bool profile;     /* collect times per step (dibit_session_profile) */
    bool keep_values; /* every value keeps its memory, to be read by name: for `diff` */
    bool no_fusion;   /* each node is a step of its own */
    bool no_proof;    /* a device's kernels are used whether or not they prove right: for `diff` */
    bool keep_bounds; /* nodes on the CPU also say how far a device may be from their results */
    bool
        cpu_fallback; /* the CPU takes over when the GPU fails: "Sessions whose GPU fails", below */
    uint64_t noise_seed; /* not 0: each node's outputs are moved at random within their rounding
                                 bound; how results spread says what they can be compared to */
    /* [dibit_model_input_count], borrowed until the session is destroyed: ranks of inputs whose rank the model
     * does not tell (dibit_value_info.rank is -1). Such a model is UNSUPPORTED without them. */
    const int32_t *input_ranks;
    /* "Tokens that the device chooses", below. Read when the session begins. */
    const char *sample_output; /* logits, float or float16 [batch, rows, vocabulary] */
    const char *feed_input;    /* token ids [batch, rows] */
} dibit_session_desc;

/* Plans the model for a device. Also in the form begin / poll; to cancel, destroy. */
DIBIT_API dibit_status dibit_session_create(dibit_model *model, const dibit_session_desc *desc,
                                            dibit_session **out, dibit_error *error);
DIBIT_API dibit_status dibit_session_begin(dibit_model *model, const dibit_session_desc *desc,
                                           dibit_session **out, dibit_error *error);
DIBIT_API dibit_status dibit_session_poll(dibit_session *session, dibit_error *error);
DIBIT_API void dibit_session_destroy(dibit_session **session);

/* Sessions whose GPU fails: it is lost (unplugged, or reset by its driver), has no memory left, or cannot
 * do what the model asks for. A session with cpu_fallback is then planned for the CPU instead; when it has run
 * before, its user has to feed its states again, since what they held was on the GPU:
 *
 *     if (dibit_session_may_leave(session, status))       what the run answered; error says why
 *         dibit_session_leave_device(session, &error, &error)
 *     dibit_session_poll                                  until it is not PENDING
 *     dibit_state_truncate(state, 0)                      for each state
 *     ...                                                 the tokens again
 *
 * A generation of dibit/lm.h does all that by itself. */

/* Whether the session runs on a GPU, may leave it (cpu_fallback), and the CPU may do what answered
 * `status`. */
DIBIT_API bool dibit_session_may_leave(const dibit_session *session, dibit_status status);
/* Plans a session on a GPU anew for the CPU, with the device's threads; poll goes on. A run under way and
 * tokens that were not read are forgotten, all its states are lost, and strings that the session gave are no
 * longer valid. BAD_STATE: it is on the CPU. After a failure the session is as before. */
DIBIT_API dibit_status dibit_session_leave_device(dibit_session *session, const dibit_error *why,
                                                  dibit_error *error);
/* One sentence about why the session left its device, also while it was planned; "" when it has not. */
DIBIT_API const char *dibit_session_why(const dibit_session *session);

/* How to choose a token from a row of logits. At temperature 0 it is the likeliest, and the rest is not
 * looked at. Else the top_k likeliest are divided by the temperature; the likeliest that together have the
 * share top_p stay (0: all), without those below min_p times the likeliest; `random` draws one. */
#define DIBIT_SAMPLE_MAX_TOP_K 64
typedef struct dibit_sample {
    float temperature;
    uint32_t top_k; /* 1 to DIBIT_SAMPLE_MAX_TOP_K */
    float top_p, min_p;
    float random; /* uniform in [0, 1) */
} dibit_sample;

/* One run. Inputs are read, and outputs written, by name.
 *
 * inputs   every graph input without a default, but with states not the past tensors.
 * outputs  the ones wanted; the others may not even be computed. Set name; data NULL: the session
 *          owns the result, valid until the next run (where the model passes an input through, data
 *          is that input's memory); else it is written to data (bytes must be enough). type, rank
 *          and dims are filled in.
 * states   NULL, or one state per batch row, all different: past tensors come from them and present
 *          tensors stay in them.
 * last_rows  0: all rows of the outputs; n: only the last n along the sequence axis of outputs that
 *          depend row by row on the last layers (the logits of a language model). */
typedef struct dibit_run {
    const dibit_tensor *inputs;
    dibit_tensor *outputs;
    dibit_state *const *states;
    uint32_t n_inputs;
    uint32_t n_outputs;
    uint32_t n_states;
    uint32_t last_rows;
    const dibit_sample *sample; /* NULL, or [batch]: the device chooses a token for each row */
    bool feed; /* feed_input is not among inputs: it takes the tokens that the run before chose */
} dibit_run;

/* Runs to the end. BAD_INPUT: a name, type or shape does not fit; OUT_OF_RANGE: for example a token
 * id beyond the vocabulary; CAPACITY: a state cannot grow. States are unchanged after a failure. */
DIBIT_API dibit_status dibit_session_run(dibit_session *session, const dibit_run *run,
                                         dibit_error *error);
/* The same in pieces. What run points to must stay until poll has answered something else than
 * PENDING. Cancel ends a run that was begun; its states are as before it. It also
 * forgets tokens that were not read; the states of their runs keep what those appended. */
DIBIT_API dibit_status dibit_run_begin(dibit_session *session, const dibit_run *run,
                                       dibit_error *error);
DIBIT_API dibit_status dibit_run_poll(dibit_session *session, dibit_error *error);
DIBIT_API void dibit_run_cancel(dibit_session *session);

/* Tokens that the device chooses. A session whose desc names its logits (sample_output) can have its
 * device choose the next token of each row: a few bytes to read instead of all logits. With
 * dibit_run.sample, poll answers OK when the device has been given all its work, unless `outputs` have
 * to be read too; states have grown then. dibit_run_tokens gives the tokens of such runs, the oldest run
 * first. With `feed` the next run takes them on the device, before anybody has read them:
 *
 *     begin, poll  sample              the prompt
 *     begin, poll  sample, feed        the first token goes in
 *     tokens                           the first token
 *     begin, poll  sample, feed        the second goes in
 *     tokens                           the second ...
 *
 * A run too many, after a token that ends the text, is undone by dibit_state_truncate. dibit_session_info
 * says whether the device does it (samples, runs_ahead): not where it has no logits, or where a run waits
 * for the CPU or states cannot be truncated. At most four runs may have tokens that were not read. */

/* The tokens [n] of the oldest run whose tokens were not read; n is its batch. -1 where no logit was a
 * number. PENDING: the device is not done. BAD_STATE: there is no such run. What the device found out
 * after the run was begun (DEVICE_LOST) is answered here. */
DIBIT_API dibit_status dibit_run_tokens(dibit_session *session, int64_t *tokens, uint32_t n,
                                        dibit_error *error);

/* With keep_values: a value of the last run by its name in the model, on the CPU whatever device made it.
 * NOT_FOUND when there is none: it lies in a branch that was not taken, or inside a fused step. */
DIBIT_API dibit_status dibit_session_value(const dibit_session *session, const char *name,
                                           dibit_tensor *out, dibit_error *error);

/* With keep_bounds: for each element of a floating value that the CPU made in the last run, how far
 * another device's may be from it when both get the same inputs (float, of the value's dims; infinite where
 * nothing is promised). NOT_FOUND for other values. */
DIBIT_API dibit_status dibit_session_bound(const dibit_session *session, const char *name,
                                           dibit_tensor *out, dibit_error *error);

typedef struct dibit_session_info {
    const char *device;       /* its name; the CPU's when the session has left it */
    uint64_t weight_bytes;    /* of the model's initializers that the plan uses */
    uint64_t packed_bytes;    /* copies of weights in another layout or type */
    uint64_t plan_bytes;      /* memory with the session's lifetime besides that */
    uint64_t workspace_bytes; /* memory for values and scratch at the present bounds */
    uint32_t n_steps;
    uint32_t n_cpu_steps;
    uint32_t n_copies;     /* steps that move a value from one device to another */
    bool int8_activations; /* some node rounds its activations to int8 */
    bool has_states;       /* the model has past/present pairs */
    bool samples;          /* dibit_run.sample works */
    bool runs_ahead;       /* and dibit_run.feed */
} dibit_session_info;

DIBIT_API void dibit_session_get_info(const dibit_session *session, dibit_session_info *out);

/* One step of the plan, for `dibit info` and profiles. Strings live as long as the session. */
typedef struct dibit_step_info {
    const char *name; /* node name(s) of the model it came from */
    const char *op;   /* op type, with its domain unless ai.onnx */
    const char *device;
    const char *kernel; /* "" where there is no choice */
    const char *why; /* why it runs there and with that kernel; "" when there is nothing to say */
    /* With profile: how often it ran, and for how long in all; for a step of a GPU that is the time to
     * record it. Then device_seconds is the GPU's, with DIBIT_TIMING_DISPATCHES and after
     * dibit_device_get_work. */
    uint64_t runs, dispatches;
    double seconds, device_seconds;
    /* With profile, on the CPU: what it cannot have done without in these runs: bytes read or written
     * at least once, and products of integers and floats that were added up. */
    uint64_t bytes, int8_products, float_products;
} dibit_step_info;

DIBIT_API dibit_status dibit_session_step(const dibit_session *session, uint32_t index,
                                          dibit_step_info *out);
/* Sets the counters of the profile to zero. */
DIBIT_API void dibit_session_profile_reset(dibit_session *session);

/* ---- States: the past of one sequence ----------------------------------------------------- */

typedef struct dibit_state_desc {
    uint64_t capacity;     /* tokens to make room for at first; default 256; it doubles as needed */
    uint64_t max_capacity; /* default: what 64 bits allow */
} dibit_state_desc;

/* The names of pair `index`: the past input that states replace, and the present output that stays in
 * them. NOT_FOUND past the last one. They live as long as the session. */
DIBIT_API dibit_status dibit_session_state_pair(const dibit_session *session, uint32_t index,
                                                const char **past, const char **present);

/* UNSUPPORTED when the model has no past/present pairs. With cpu_fallback, a state that the GPU cannot hold is
 * made all the same, lost: it is for the CPU. */
DIBIT_API dibit_status dibit_state_create(dibit_session *session, const dibit_state_desc *desc,
                                          dibit_state **out, dibit_error *error);
DIBIT_API void dibit_state_destroy(dibit_state **state);
/* Tokens it holds, and tokens it has room for. */
DIBIT_API uint64_t dibit_state_length(const dibit_state *state);
DIBIT_API uint64_t dibit_state_capacity(const dibit_state *state);
/* The session has left its device, and what the state held is gone. Its length tells still how much that was;
 * everything but destroying it and truncating it to nothing answers DEVICE_LOST. */
DIBIT_API bool dibit_state_is_lost(const dibit_state *state);
/* Makes an independent copy. */
DIBIT_API dibit_status dibit_state_fork(const dibit_state *state, dibit_state **out,
                                        dibit_error *error);
/* Drops all but the first `length` tokens. Windows and convolutions forget: UNSUPPORTED where the
 * shorter past is gone; length 0 always works, and makes a lost state new. */
DIBIT_API dibit_status dibit_state_truncate(dibit_state *state, uint64_t length,
                                            dibit_error *error);
/* What the state holds of pair `index` of dibit_session_state_pair after its first `length` tokens, as the
 * present output of a run of this sequence alone: type, rank and dims are filled in, and out->bytes. With data
 * NULL that is all; else out->bytes says how much there is room for at data (TOO_LARGE). PENDING: the bytes are
 * on their way from a device: call again with the same arguments. One pair is read at a time (BAD_STATE);
 * destroying the state gives it up. UNSUPPORTED where dibit_state_truncate is. */
DIBIT_API dibit_status dibit_state_read(dibit_state *state, uint32_t index, uint64_t length,
                                        dibit_tensor *out, dibit_error *error);
/* The state as bytes, to be imported by a session of the same model. With data NULL only *bytes is
 * set. TOO_LARGE when *bytes is too small. PENDING: the bytes are on their way from a device: call again with the same
 * arguments, and no other call of this state between (a run begins it anew). */
DIBIT_API dibit_status dibit_state_export(dibit_state *state, void *data, uint64_t *bytes,
                                          dibit_error *error);
/* BAD_FILE when the bytes are not a state of this model. What the rows hold is not checked. */
DIBIT_API dibit_status dibit_state_import(dibit_session *session, const void *data, uint64_t bytes,
                                          dibit_state **out, dibit_error *error);

/* ---- Files of tensors --------------------------------------------------------------------- */

/* A set of named tensors, read from a file or made up. Tensors point into memory that the set owns. */
typedef struct dibit_tensors dibit_tensors;

/* Reads a TensorProto (.pb), or a .npy or .npz file, told by its content. */
DIBIT_API dibit_status dibit_tensors_load(const char *path, dibit_tensors **out,
                                          dibit_error *error);
/* Makes up inputs for a run of the session's model, as exporters call and shape them: a prompt of `tokens` tokens
 * (1 to 4096) chosen by `seed`, positions, masks of ones, an empty past; other numbers are small. The same for the
 * same model, tokens and seed. BAD_INPUT when the model does not say an input's rank or type. */
DIBIT_API dibit_status dibit_tensors_make_up(const dibit_session *session, uint32_t tokens,
                                             uint64_t seed, dibit_tensors **out,
                                             dibit_error *error);
DIBIT_API uint32_t dibit_tensors_count(const dibit_tensors *tensors);
DIBIT_API const dibit_tensor *dibit_tensors_get(const dibit_tensors *tensors, uint32_t index);
DIBIT_API void dibit_tensors_destroy(dibit_tensors **tensors);

/* Writes a tensor as the bytes of a TensorProto (.pb). BAD_ARGUMENT for types without a fixed size. */
DIBIT_API dibit_status dibit_tensor_write(const dibit_tensor *tensor, dibit_write write, void *user,
                                          dibit_error *error);

#ifdef __cplusplus
}
#endif

#endif

/* debug.h - why a device's answer is wrong: from "it prints garbage on my GPU" to the bit.
 *
 *   verify   whether the device's kernels read weights rightly: no model is needed
 *   diff     the first node of a model whose answer is another than the CPU's
 *   trace    which bit of which product one element of a MatMulNBits has wrong
 *
 * WHAT IT DOES NOT DO
 *   It does not judge the model, nor the CPU's side of the engine: that is the reference.
 *
 * STEP BY STEP
 *     dibit_error error;
 *     dibit_model *model = NULL;
 *     dibit_device *cpu = NULL, *gpu = NULL;
 *     dibit_diff *diff = NULL;
 *     dibit_diff_pass_info pass;
 *     dibit_status status;
 *     if (dibit_model_load(&(dibit_model_desc){.path = "model.onnx"}, &model, &error)) ...
 *     if (dibit_device_create(NULL, &cpu, &error)) ...
 *     if (dibit_device_create(&(dibit_device_desc){.kind = DIBIT_DEVICE_WEBGPU}, &gpu, &error)) ...
 *     if (dibit_diff_begin(model, &(dibit_diff_desc){.device = gpu, .cpu = cpu}, &diff, &error)) ...
 *     do status = dibit_diff_poll(diff, &error);
 *     while (status == DIBIT_PENDING);
 *     if (status == DIBIT_OK && dibit_diff_pass(diff, 0, &pass) == DIBIT_OK && pass.first >= 0) {
 *         const dibit_diff_node_info *node = dibit_diff_node(diff, 0, (uint32_t)pass.first);
 *         // node->node.name, node->alone.index, node->alone.got, node->alone.expected
 *     }
 *     dibit_diff_destroy(&diff);
 *     dibit_device_destroy(&gpu);
 *     dibit_device_destroy(&cpu);
 *     dibit_model_destroy(&model);
 *
 * MEMORY, ERRORS, THREADS
 *   As in dibit.h. What a thing was begun with outlives it. */
#ifndef DIBIT_DEBUG_H
#define DIBIT_DEBUG_H

#include "dibit/dibit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Verification ------------------------------------------------------------------------- */

/* Proves that the kernels of MatMulNBits read weights rightly on this very device, with its compiler and its
 * driver. Unit vectors times weights whose codes are known give every weight by itself, in numbers that
 * no rounding touches; they must be equal to (code - zero point) * scale. For 1, 2, 4 and 8 bits every byte
 * meets every zero point, for 3 every triple of codes does, for 5 to 7 the ends of the range; over block sizes
 * from 16 to 256, rows of any length, and all forms of scales, zero points, g_idx and bias. */
typedef struct dibit_verify dibit_verify;

typedef enum dibit_verify_scope {
    DIBIT_VERIFY_NORMAL =
        0, /* all, but that on software adapters, which compile slowly, kernels share
                                what is rare */
    DIBIT_VERIFY_QUICK = 1, /* only 2 to 4 bits, and the commonest form of weights */
    DIBIT_VERIFY_FULL = 2   /* all on software adapters too: minutes */
} dibit_verify_scope;

typedef struct dibit_verify_desc {
    dibit_activations activations; /* FLOAT, INT8: only kernels of this kind */
    dibit_verify_scope scope;
} dibit_verify_desc;

/* The device is borrowed until destroy. BAD_ARGUMENT for the null device, which computes nothing. */
DIBIT_API dibit_status dibit_verify_begin(dibit_device *device, const dibit_verify_desc *desc,
                                          dibit_verify **out, dibit_error *error);
/* Does a part of the work. PENDING: poll again; OK: everything is done, whether kernels are right or not. */
DIBIT_API dibit_status dibit_verify_poll(dibit_verify *verify, dibit_error *error);
DIBIT_API void dibit_verify_destroy(dibit_verify **verify);

typedef enum dibit_verdict {
    DIBIT_VERDICT_PASSED = 0,
    DIBIT_VERDICT_FAILED = 1,
    DIBIT_VERDICT_SKIPPED = 2 /* not for this device, or not asked for */
} dibit_verdict;

/* What has come out so far; strings live as long as the verification. */
typedef struct dibit_verify_info {
    const char *kernel;
    dibit_verdict verdict;
    uint32_t cases, failed_cases;
    uint64_t codes;   /* read back */
    const char *text; /* the first wrong code, or why it was skipped; "" */
} dibit_verify_info;

/* NOT_FOUND past the last kernel. */
DIBIT_API dibit_status dibit_verify_kernel(const dibit_verify *verify, uint32_t index,
                                           dibit_verify_info *info);

/* ---- Comparing tensors ---------------------------------------------------------------------- */

/* The number of elements. */
DIBIT_API int64_t dibit_tensor_count(const dibit_tensor *tensor);
/* Element i, counted through all dims: exact for types up to 32 bits, and for doubles. */
DIBIT_API double dibit_tensor_element(const dibit_tensor *tensor, int64_t i);
/* The same as text, exact for integers of 64 bits too. */
DIBIT_API void dibit_tensor_element_text(const dibit_tensor *tensor, int64_t i, char text[40]);
/* Element i's index on each axis: "[0,3,82]". */
DIBIT_API void dibit_tensor_index_text(const dibit_tensor *tensor, int64_t i, char text[160]);
/* Of the same type and dims, and of the same elements, bit for bit. */
DIBIT_API bool dibit_tensor_equal(const dibit_tensor *a, const dibit_tensor *b);

/* How an answer compares with what is expected. Zeroed before its first use. */
typedef struct dibit_comparison {
    double spread;    /* of the runs with noise: max over runs and elements of |noisy - still| */
    uint32_t n_noisy; /* runs with noise */
    uint32_t n_lost;  /* those of another shape, or with infinities or NaN where there were none */
    double allowed;   /* absolute bound: at the worst element */
    double worst;     /* |got - expected| - allowed is largest here */
    double used;      /* largest |got - expected| / allowed */
    int64_t n_wrong, n_elements;
    int64_t worst_index; /* flat */
    char problem[200];   /* "" when it passes */
} dibit_comparison;

/* Counts a run with noise (dibit_session_desc.noise_seed), and raises the spread by the distance of its finite elements
 * from `still`, the answer without noise. */
DIBIT_API void dibit_comparison_add_noise(dibit_comparison *comparison, const dibit_tensor *still,
                                          const dibit_tensor *noisy);
/* Compares. An element may be off by atol + rtol * |expected|; with both negative, by what the noise that was
 * added says:
 *     4 * (largest deviation of any noisy run over the tensor)
 *   + 2 ulps, of the tensor's type, of its largest magnitude
 * which is a bound in norm: a single wrong element of a tensor stands out against it. Integers must be equal. */
DIBIT_API void dibit_tensor_compare(const dibit_tensor *expected, const dibit_tensor *got,
                                    double rtol, double atol, dibit_comparison *comparison);

/* ---- Comparing devices ---------------------------------------------------------------------- */

/* Runs a model on a device and on the CPU, and compares every value of its graph in two ways:
 *   alone     each node by itself, with its weights and what the CPU computed up to there; each element has the
 *             bound that the operator's rounding explains (dibit_session_bound)
 *   in chain  the whole model on either device; a value may be off by what dibit_tensor_compare allows it after
 *             runs on the CPU with noise
 * Nothing blocks: dibit_diff_poll does a part of the work at a time. */
typedef struct dibit_diff dibit_diff;

/* What it points to is borrowed until destroy. */
typedef struct dibit_diff_desc {
    dibit_device *device; /* that is tested */
    dibit_device *cpu;    /* the reference */
    dibit_activations activations;
    bool no_fusion; /* each node is a step of its own */
    bool no_proof;  /* also kernels that fail their proof on the device */
    bool decode; /* and the step after the prompt, with the reference's past; not with `inputs` */
    bool keep_case; /* the first node over its bound is kept: dibit_diff_get_case */
    /* Of one run of the model; NULL: made up (dibit_tensors_make_up, of so many tokens, default 5). */
    const dibit_tensor *inputs;
    uint32_t n_inputs, tokens;
    uint64_t seed;
    /* What outputs of the model should be in the chain, by name, where the CPU is not the reference. */
    const dibit_tensor *references;
    uint32_t n_references;
    uint32_t noise_runs; /* default 6 */
} dibit_diff_desc;

/* BAD_ARGUMENT when the device is a CPU. */
DIBIT_API dibit_status dibit_diff_begin(dibit_model *model, const dibit_diff_desc *desc,
                                        dibit_diff **out, dibit_error *error);
/* PENDING: poll again; OK: everything is compared, whether it is right or not. To cancel, destroy it. */
DIBIT_API dibit_status dibit_diff_poll(dibit_diff *diff, dibit_error *error);
DIBIT_API void dibit_diff_destroy(dibit_diff **diff);

typedef struct dibit_diff_info {
    uint32_t n_nodes;
    uint32_t n_passes;    /* begun so far: the prompt, and the step after it */
    uint32_t done, total; /* parts of the work, of about the same length each */
} dibit_diff_info;

DIBIT_API void dibit_diff_get_info(const dibit_diff *diff, dibit_diff_info *info);

typedef struct dibit_diff_pass_info {
    const char *name; /* "prompt", "step" */
    /* The first node that is wrong by itself, which explains what is wrong behind it; where there is none, the first
     * that is wrong in the chain; -1: none. */
    int32_t first;
    bool first_alone;
} dibit_diff_pass_info;

/* NOT_FOUND past the last pass. */
DIBIT_API dibit_status dibit_diff_pass(const dibit_diff *diff, uint32_t index,
                                       dibit_diff_pass_info *info);

/* How one value that a node makes compares; of several the worst is kept. The worst element is the one farthest
 * beyond its bound. */
typedef struct dibit_diff_measure {
    const char *value; /* its name; NULL: nothing was compared */
    bool wrong;
    char index[160]; /* the worst element's, as dibit_tensor_index_text */
    char got[40], expected[40];
    double off, allowed;  /* there */
    double largest, used; /* largest |got - expected|, and share of a bound, over all elements */
    int64_t n_wrong, n_elements;
    char problem[200]; /* of another kind: shapes, a missing value; "" */
} dibit_diff_measure;

typedef struct dibit_diff_node_info {
    dibit_node_info node;
    bool on_device;
    bool fused;      /* into another's step: in the chain it is compared where that ends */
    const char *why; /* the CPU runs it; "" */
    dibit_diff_measure alone, chain;
    char not_alone[300]; /* why it was not run by itself; "" */
} dibit_diff_node_info;

/* A node in a pass; NULL past the last pass or node. It lives as long as the diff. */
DIBIT_API const dibit_diff_node_info *dibit_diff_node(const dibit_diff *diff, uint32_t pass,
                                                      uint32_t node);

/* The first node over its bound as a model of its own, with what goes in and the CPU's answer. */
typedef struct dibit_diff_case {
    const void *model; /* the bytes of an .onnx file */
    uint64_t model_bytes;
    const dibit_tensor *inputs, *outputs;
    uint32_t n_inputs, n_outputs;
} dibit_diff_case;

/* With keep_case, after poll has answered OK. It lives as long as the diff. NOT_FOUND when there is none. */
DIBIT_API dibit_status dibit_diff_get_case(const dibit_diff *diff, dibit_diff_case *out);

/* ---- Tracing ------------------------------------------------------------------------------ */

/* Shows what one element of a MatMulNBits's output is made of, product by product: which bits of which word
 * became the code, which zero point, scale and element of A it met. Once as the definition of the operator
 * has it, and, on a device, once as the shader itself found it: the dispatch of the session's last run is
 * repeated with the same shader and the same parameters, and TRACE, with which the shader writes down what it
 * loads and unpacks. The first of these that is not as defined is named. */
typedef struct dibit_trace dibit_trace;

typedef struct dibit_trace_desc {
    const char *node; /* of the model; NULL: its only MatMulNBits */
    /* The element of the node's output [..., N]: one number for each axis, or the row of A, counted over all
     * axes but the last, and the column. */
    const int64_t *index;
    uint32_t n_index;
    /* A kernel that `dibit verify` names; NULL: the one that the session's plan has chosen. */
    const char *kernel;
} dibit_trace_desc;

/* What product k is made of. On a device what the shader did not write down is UINT64_MAX, -1 or NaN. */
typedef struct dibit_trace_product {
    int64_t k;
    /* The code: mask of the bits from `shift` on of the little-endian word at byte `address` of the weights,
     * which is a whole number of words from the row's begin. */
    uint64_t address;
    uint32_t word, next_word; /* next_word: that behind it if the code ends there, else 0 */
    uint32_t shift, mask, code;
    int64_t block;         /* of the scale */
    uint64_t zero_address; /* byte of the zero points; UINT64_MAX where there are none */
    uint32_t zero_shift;   /* of packed ones: where in that byte it begins */
    float zero_point;
    uint64_t scale_address; /* byte of the scales */
    float scale;
    int64_t
        a_index; /* of A, or of what is normalized to become A; -1 in a block of A that is all zero */
    float a;
    int32_t a_code; /* int8 activations: a is a_code * a_scale */
    float a_scale;
    double product; /* a * (code - zero_point) * scale */
    double sum;     /* of the products up to here, and the bias */
} dibit_trace_product;

typedef struct dibit_trace_info {
    const char *node;
    const char *kernel; /* "" on the CPU: only the definition is shown */
    uint32_t bits;
    int64_t block_size, M, N, K;
    int64_t m, n; /* row of A; row of the weights, and column of the output */
    bool int8_activations;
    /* The node's own result (its sum) as the definition has it; what the output must be after a fused
     * residual or gate, how far it may be off, what the shader answers with TRACE, and without. */
    double sum, expected, allowed;
    float traced, got;
    bool wrong;
    int64_t first_wrong; /* product; -1: none, the output itself is wrong if `wrong` */
    const char *text;    /* the first that is wrong, in one sentence; "" */
} dibit_trace_info;

/* The session was asked to keep its values and has run; it is borrowed until destroy, and must not run
 * meanwhile. NOT_FOUND: there is no such node or kernel; OUT_OF_RANGE: there is no such element;
 * UNSUPPORTED: the CPU runs the node in a session on a device, or the kernel does not fit. */
DIBIT_API dibit_status dibit_trace_begin(dibit_session *session, const dibit_trace_desc *desc,
                                         dibit_trace **out, dibit_error *error);
/* PENDING: poll again; OK: there are results, right or wrong. */
DIBIT_API dibit_status dibit_trace_poll(dibit_trace *trace, dibit_error *error);
DIBIT_API void dibit_trace_destroy(dibit_trace **trace);

/* After poll has answered OK. Strings live as long as the trace. */
DIBIT_API void dibit_trace_get_info(const dibit_trace *trace, dibit_trace_info *info);
/* Product k as it must be, and as the shader has it (NULL: not wanted; on the CPU both are the same).
 * NOT_FOUND past the last. */
DIBIT_API dibit_status dibit_trace_get_product(const dibit_trace *trace, int64_t k,
                                               dibit_trace_product *expected,
                                               dibit_trace_product *got);

#ifdef __cplusplus
}
#endif

#endif

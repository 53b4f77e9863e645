/* MatMulNBits on a device: the list of kernels, which are shapes of four shaders, the choice among it, and the
 * dispatches of one multiplication. nbits_gpu_op.c, nbits_gpu_proof.c, tests and benchmarks use it. */
#ifndef DBT_OPS_MATMUL_NBITS_NBITS_GPU_H
#define DBT_OPS_MATMUL_NBITS_NBITS_GPU_H

#include "gpu/gpu.h"
#include "ops/matmul_nbits/matmul_nbits.h"
#include "ops/op.h"

typedef struct dbt_nbits_gpu_kernel {
    const char *name;
    const char *shader;
    bool tile;               /* else matvec */
    bool int8;               /* arithmetic */
    bool subgroups;          /* needs them */
    uint32_t m_rows;         /* rows of A of a workgroup */
    uint32_t n_rows;         /* of a matvec: rows of B of a thread; of a tile: of a workgroup */
    uint32_t lanes;          /* of a matvec: threads that share a row; 1: they share nothing */
    uint32_t split;          /* of a tile: slices of threads that share K */
    int64_t least_m, most_m; /* where it is worth choosing; it is right for any M */
    int64_t least_k;
    uint64_t least_workgroups, most_workgroups;
    bool software; /* worth choosing on software adapters, and not on others */
} dbt_nbits_gpu_kernel;

/* Every kernel, best first; at most 64. */
extern const dbt_nbits_gpu_kernel dbt_nbits_gpu_kernels[];
extern const uint32_t dbt_nbits_gpu_kernel_count;

/* EPILOGUE of nbits_y.inc.wgsl: what becomes of a sum (with its bias) last. */
typedef enum dbt_nbits_epilogue {
    DBT_NBITS_EPILOGUE_NONE,
    DBT_NBITS_EPILOGUE_ADD,  /* sum + other */
    DBT_NBITS_EPILOGUE_SILU, /* sum * silu(other) */
    DBT_NBITS_EPILOGUE_GELU_TANH
} dbt_nbits_epilogue;

/* Bindings may begin at such rows of anything, whatever the device's alignment. */
enum { DBT_NBITS_GPU_ROW_STEP = 256 };

/* A request to trace one element of Y (nbits_trace.h): the dispatch that has it is recorded with TRACE. */
typedef struct dbt_nbits_gpu_trace {
    int64_t m, row;                     /* of A and of b */
    const dbt_nbits_gpu_kernel *kernel; /* in place of a node's own; NULL: that */
    dbt_hal_buffer *words;              /* dbt_nbits_trace_bytes of 0xff; NULL: nothing is traced */
    /* out: where the dispatch has the element; y NULL: there was none */
    struct dbt_nbits_gpu_traced {
        const dbt_nbits_gpu_kernel *kernel;
        int64_t m_begin, n_begin; /* first rows of A and b that it binds */
        bool gate;                /* it computes both products of a gate */
        dbt_hal_buffer *y, *other;
        uint64_t y_offset;
        dbt_nbits_epilogue epilogue;
    } traced;
} dbt_nbits_gpu_trace;

/* A multiplication over buffers, which hold what op.h says: p's own memory is not looked at. Absent ones are
 * NULL. */
typedef struct dbt_nbits_gpu_problem {
    dbt_matmul_nbits p;
    dbt_hal_buffer *a, *b, *scales, *zero_points, *g_idx, *bias, *y;
    uint64_t y_offset; /* bytes; a multiple of the binding alignment */
    dbt_hal_buffer
        *gain;     /* [K]: a matvec without g_idx takes the RMS norm of A's rows in A's place */
    float epsilon; /* of the norm */
    dbt_nbits_epilogue epilogue;
    dbt_hal_buffer *other; /* [M, N], of the epilogue; not with second_row */
    /* Not 0, of an epilogue that is a gate: b, scales, zero_points and bias have a second product's N rows
     * from that row on, a multiple of DBT_NBITS_GPU_ROW_STEP, and y is gate(first) * second. */
    int64_t second_row;
    dbt_nbits_gpu_trace *trace; /* or NULL */
} dbt_nbits_gpu_problem;

/* What the device lacks for the kernel to compute p, fast or not; NULL: nothing. */
const char *dbt_nbits_gpu_lacks(const dbt_nbits_gpu_kernel *kernel,
                                const dbt_nbits_gpu_problem *problem, const dbt_hal *hal);
static inline bool dbt_nbits_gpu_fits(const dbt_nbits_gpu_kernel *kernel,
                                      const dbt_nbits_gpu_problem *problem, const dbt_hal *hal) {
    return !dbt_nbits_gpu_lacks(kernel, problem, hal);
}
/* The best of the kernels in the mask (bit i: kernel i) for p, or NULL. */
const dbt_nbits_gpu_kernel *dbt_nbits_gpu_choose(const dbt_nbits_gpu_problem *problem,
                                                 const dbt_hal *hal, uint64_t mask);

/* Whether it takes in the norm before it; others read rows that were normed before. */
bool dbt_nbits_gpu_takes_norm(const dbt_nbits_gpu_kernel *kernel);

/* What shapes the shaders for such a problem besides the kernel, in one number: proofs are kept by it. */
uint64_t dbt_nbits_gpu_form(const dbt_nbits_gpu_problem *problem);

/* Whether a binding holds the rows of both products: some kernels then do them in one dispatch. */
bool dbt_nbits_gpu_binds_both(const dbt_nbits_gpu_problem *problem, const dbt_hal *hal);

/* Records the dispatches. */
dibit_status dbt_nbits_gpu_record(dbt_gpu *gpu, const dbt_nbits_gpu_kernel *kernel,
                                  const dbt_nbits_gpu_problem *problem, dibit_error *error);

/* ---- nbits_gpu_op.c, for ops that are prepared and released as MatMulNBits is ---- */

/* What an op has its dispatches do besides the multiplication, as in dbt_nbits_gpu_problem. */
typedef struct dbt_nbits_gpu_fusion {
    bool norm;
    dbt_nbits_epilogue epilogue;
    int64_t second_row;
} dbt_nbits_gpu_fusion;

dibit_status dbt_nbits_gpu_prepare_fused(dbt_gpu_prepare *prepare,
                                         const dbt_nbits_gpu_fusion *fusion);
/* A node's multiplication, over the call's buffers. */
dbt_nbits_gpu_problem dbt_nbits_gpu_node_problem(const dbt_gpu_call *call);
/* The best of the kernels that were proved for it, or the one that a trace asks for. */
const dbt_nbits_gpu_kernel *dbt_nbits_gpu_node_kernel(const dbt_gpu_call *call,
                                                      const dbt_nbits_gpu_problem *problem);

/* ---- nbits_gpu_trial.c: small problems whose answers are known ---- */

typedef struct dbt_nbits_trial {
    dbt_nbits_gpu_problem problem; /* y is the caller's */
    float *gain, *other;
    float *want, *tolerance; /* [M, N] */
} dbt_nbits_trial;

enum { DBT_NBITS_TRIAL_Y_BYTES = 264 * 64 * 4 }; /* the largest [M, N] */

/* A problem of the same form, whose memory is in the arena. */
dibit_status dbt_nbits_trial_make(const dbt_nbits_gpu_problem *like, dbt_arena *arena,
                                  dbt_nbits_trial *out, dibit_error *error);
dibit_status dbt_nbits_trial_upload(dbt_nbits_trial *trial, dbt_gpu *gpu, dibit_error *error);
bool dbt_nbits_trial_is_right(const dbt_nbits_trial *trial, const float *y);
void dbt_nbits_trial_free(dbt_nbits_trial *trial, dbt_gpu *gpu);
/* From now on dispatches of what was prepared are traced; NULL: no longer. */
void dbt_nbits_gpu_trace_node(void *prepared, dbt_nbits_gpu_trace *trace);

/* ---- nbits_gpu_proof.c ---- */

/* Who waits for proofs. Begins as zeros. */
typedef struct dbt_nbits_gpu_proof {
    uint32_t batch;
} dbt_nbits_gpu_proof;

/* Finds out on the device which of the kernels compute all of these problems rightly, each form once in the
 * device's life, and leaves their bits in *proved. PENDING: to be called again with the same arguments, after
 * all others that want proofs were: what they want until then goes into one submission.
 * dbt_nbits_gpu_proof_end ends it otherwise. */
dibit_status dbt_nbits_gpu_prove(dbt_gpu *gpu, const dbt_nbits_gpu_problem *problems,
                                 uint32_t n_problems, uint64_t kernels, dbt_nbits_gpu_proof *proof,
                                 uint64_t *proved, dibit_error *error);
void dbt_nbits_gpu_proof_end(dbt_nbits_gpu_proof *proof, dbt_gpu *gpu);

#endif

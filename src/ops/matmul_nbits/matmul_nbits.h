/* com.microsoft MatMulNBits: the contract that op.c, ref.c, every kernel and the tests share.
 *
 *     Y[m, n] = sum_k A[m, k] * W[n, k] + bias[n]
 *     W[n, k] = (code[n, k] - zero_point[n, g]) * scale[n, g],   g = k / block_size, or g_idx[k]
 *
 * CODES. B is [N, k_blocks, blob_bytes], k_blocks = ceil(K / block_size), blob_bytes = block_size *
 * bits / 8. The codes of a block are one little-endian bit stream, low bits first; block_size * bits
 * is a multiple of 8, so a row is one stream of k_blocks * block_size codes. Bytes of a row, by bits:
 *
 *     2   byte 0: |3 3|2 2|1 1|0 0|             the digit is k, the most significant bit is at the left
 *     4   byte 0: |1 1 1 1|0 0 0 0|
 *     8   byte 0: |0 0 0 0 0 0 0 0|
 *     3   byte 0: |2 2|1 1 1|0 0 0|  byte 1: |5|4 4 4|3 3 3|2|  byte 2: |7 7 7|6 6 6|5 5|
 *
 * so 3-bit codes 0..7 are the bytes 88 C6 FA. Codes past K are padding that may hold anything, and
 * nothing may be multiplied with them.
 *
 * SCALES are [N, k_blocks], often negative. ZERO POINTS are absent (2^(bits-1) everywhere), packed
 * uint8 [N, ceil(k_blocks * bits / 8)] where each row is such a bit stream that starts on a byte, or
 * unpacked floats [N, k_blocks].
 *
 * INT8 ACTIVATIONS. Per row of A and block, absmax = max |a|, s = absmax / 127, q = the integer next
 * to a * (127 / absmax), ties to even. Then the block adds s * scale * sum_k q * (code - zero_point),
 * whose sum is exact. These are ONNX Runtime's roundings (two divisions, one product), so the q are
 * the same. absmax up to 2^-110 counts as 0, and then all q are 0, so that no device meets numbers
 * which it may take for 0; a NaN or infinity among the a makes s NaN.
 *
 * LIMITS. bits 1 to 8; block_size a power of two >= 16; K, N and block_size below 2^31. With int8
 * activations block_size <= DBT_NBITS_INT8_MAX_BLOCK, so that 32 bits hold a block's sum. g_idx goes
 * with float activations only. */
#ifndef DBT_OPS_MATMUL_NBITS_H
#define DBT_OPS_MATMUL_NBITS_H

#include "base/packed.h"
#include "base/pool.h"

enum { DBT_NBITS_INT8_MAX_BLOCK = 32768 };

/* One multiplication. B, scales and zero_points may lie at any address. */
typedef struct dbt_matmul_nbits {
    int64_t M, N, K;
    int64_t k_blocks, block_size;
    uint32_t bits;
    bool int8_activations;
    dibit_type scale_type;      /* FLOAT, FLOAT16 or BFLOAT16 */
    dibit_type zero_point_type; /* UNDEFINED: none; UINT8: packed; else as scale_type */
    const float *a;             /* [M, K] */
    const uint8_t *b;           /* [N, k_blocks, blob_bytes] */
    const void *scales;         /* [N, k_blocks] */
    const void *zero_points;
    const int32_t *g_idx; /* [K], each in [0, k_blocks), or NULL */
    const float *bias;    /* [N] or NULL */
    float *y;             /* [M, N] */
} dbt_matmul_nbits;

static inline int64_t dbt_nbits_row_bytes(const dbt_matmul_nbits *p) {
    return p->k_blocks * (p->block_size * p->bits / 8);
}
/* Of a scale, or an unpacked zero point. */
static inline int64_t dbt_nbits_float_bytes(dibit_type type) {
    return type == DIBIT_TYPE_FLOAT ? 4 : 2;
}
static inline int64_t dbt_nbits_zero_row_bytes(const dbt_matmul_nbits *p) {
    return (p->k_blocks * p->bits + 7) / 8;
}
/* Of a row of scales, and of zero points of any kind; 0: there are none. */
static inline int64_t dbt_nbits_scale_row_bytes(const dbt_matmul_nbits *p) {
    return p->k_blocks * dbt_nbits_float_bytes(p->scale_type);
}
static inline int64_t dbt_nbits_zero_point_row_bytes(const dbt_matmul_nbits *p) {
    if (p->zero_point_type == DIBIT_TYPE_UNDEFINED) return 0;
    if (p->zero_point_type == DIBIT_TYPE_UINT8) return dbt_nbits_zero_row_bytes(p);
    return p->k_blocks * dbt_nbits_float_bytes(p->zero_point_type);
}

/* The largest |a| of n values and how int8 activations scale them: *scale is s, the result 127 /
 * absmax or 0. */
static inline float dbt_nbits_int8_scale(const float *a, int64_t n, float *scale) {
    uint32_t most = 0; /* as bits: ordered like the values, and NaN above infinity */
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = dbt_float_to_bits(a[i]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    const float absmax = dbt_bits_to_float(most);
    if (most >= 0x7f800000u) {
        *scale = dbt_bits_to_float(0x7fc00000u);
        return 0.0f;
    }
    const float inverse = absmax > 0x1p-110f ? 127.0f / absmax : 0.0f;
    *scale = inverse > 0.0f ? absmax / 127.0f : 0.0f;
    return inverse;
}

/* ---- ref.c ---- */

/* y and s are [M, N]: the result, in double, and sum_k |a w| + |bias|, which bounds its rounding: with
 * u = 2^-24 any order of summation in float is within dbt_nbits_gamma(p) * s of y. s may be NULL. */
void dbt_matmul_nbits_ref(const dbt_matmul_nbits *p, double *y, double *s);
double dbt_nbits_gamma(const dbt_matmul_nbits *p);

/* ---- nbits_bound.c ---- */

/* s [M, N] is what ref.c says, fast and in float: not below it, underflow aside, and above it by the
 * factor (1 + gamma)^2 at most. Fails for lack of memory only. */
dibit_status dbt_nbits_magnitudes(const dbt_matmul_nbits *p, uint64_t isa, dbt_pool *pool, float *s,
                                  dibit_error *error);

/* ---- cpu.c ---- */

/* Rows of A that stay in a core's cache while B goes by: a task has no more. */
enum { DBT_NBITS_M_CHUNK = 128 };

/* The order in which a kernel wants a row of int8 activations: groups of `plane * by` of them, in which byte
 * plane * j + i is element by * i + j, so that plane j meets what shift j leaves of `plane` bytes of B.
 * 1: as they come. */
#define DBT_NBITS_PLANES(plane, by) ((uint32_t)(plane) << 8 | (uint32_t)(by))
/* An order of 16 rows of A, a tile, which lie as AMX multiplies them: q [row_bytes / 4, 16, 4], so that a column has
 * four neighbouring elements of K. Up to 8 rows leave columns idle: then `parts` neighbouring columns share a
 * row, and column c has of row c / parts the blocks g with g % parts == c % parts, and zeros for the others. Scales
 * and sums of a tile are [ceil(k_blocks / parts), 16]. */
#define DBT_NBITS_TILES 2u
enum { DBT_NBITS_TILE_ROWS = 16 };
/* In a tile of so many rows. */
static inline int64_t dbt_nbits_parts(const dbt_matmul_nbits *p, int64_t rows) {
    if (rows > 8 || p->block_size > 128) return 1;
    return rows > 4 || p->block_size > 64 ? 2 : 4;
}

/* A as int8; zeros fill a row. With DBT_NBITS_TILES, M is rounded up to tiles. */
typedef struct dbt_nbits_activations {
    const int8_t *q;       /* [M, row_bytes] */
    const float *scale;    /* [M, blocks_stride]: s */
    const int32_t *sum;    /* [M, blocks_stride]: the sum of the block's q */
    int64_t row_bytes;     /* as row_stride below */
    int64_t blocks_stride; /* as below; zeros fill it */
} dbt_nbits_activations;

/* A part of Y that one task computes. */
typedef struct dbt_nbits_task {
    const dbt_matmul_nbits *p;
    const dbt_nbits_activations *activations; /* NULL with float activations */
    int64_t m_begin, m_end, n_begin, n_end;
    int64_t n_tile; /* rows of B that `rows` has room for */
    /* Scratch of this thread, each part 64-byte aligned. */
    void *rows;         /* [n_tile, row_stride] unpacked rows of B, as float or as a byte a code */
    float *scales;      /* [n_tile, blocks_stride], zeros past k_blocks */
    void *zero_points;  /* [n_tile, blocks_stride] int32 or float, zeros past k_blocks */
    float *y;           /* [8, n_tile] */
    uint8_t *bounce;    /* a packed row of B and room to read 64 bytes past it */
    int64_t row_stride; /* elements: K rounded up to 256 and to groups */
    int64_t blocks_stride; /* k_blocks rounded up to 16 */
} dbt_nbits_task;

typedef void (*dbt_nbits_run)(const dbt_nbits_task *task);

typedef struct dbt_nbits_kernel {
    const char *name;
    dbt_nbits_run run;
    uint64_t isa;
    uint32_t bits;
    bool int8_activations;
    int64_t min_m; /* chosen from so many rows of A on, or with g_idx; right for any */
    int64_t n_tile;
    uint32_t order; /* of int8 activations: DBT_NBITS_PLANES, DBT_NBITS_TILES or 1 */
    bool g_idx;     /* can do g_idx */
} dbt_nbits_kernel;

/* Every kernel, best first. */
extern const dbt_nbits_kernel dbt_nbits_kernels[];
extern const size_t dbt_nbits_kernel_count;

/* Whether the kernel can compute p, fast or not, with these CPU features. */
bool dbt_nbits_kernel_fits(const dbt_nbits_kernel *kernel, const dbt_matmul_nbits *p, uint64_t isa);
/* The best kernel for p: what dibit_cpu_tune says, or the first of the list that fits. */
const dbt_nbits_kernel *dbt_nbits_choose(const dbt_matmul_nbits *p, uint64_t isa);
/* Bytes of scratch for one run, which has to be 64-byte aligned, and the run. The result does not
 * depend on the number of threads. */
uint64_t dbt_nbits_scratch_bytes(const dbt_matmul_nbits *p, const dbt_nbits_kernel *kernel,
                                 uint32_t n_threads);
void dbt_nbits_execute(const dbt_matmul_nbits *p, const dbt_nbits_kernel *kernel, dbt_pool *pool,
                       void *scratch);
/* A second product of the same A, which differs from the first in B, scales, zero_points, bias and y alone, and
 * what is to happen to rows [m_begin, m_end) and columns [n_begin, n_end) once both are there. */
typedef struct dbt_nbits_pair {
    const dbt_matmul_nbits *second;
    void (*then)(void *ctx, int64_t m_begin, int64_t m_end, int64_t n_begin, int64_t n_end);
    void *ctx;
} dbt_nbits_pair;
/* Both products in the time of one start and one end; scratch as for the first. */
void dbt_nbits_execute_pair(const dbt_matmul_nbits *p, const dbt_nbits_pair *pair,
                            const dbt_nbits_kernel *kernel, dbt_pool *pool, void *scratch);
/* A task of few rows reads B in so many streams, as far from each other as they can be: the more there are, the more of
 * memory's answers are under way. */
enum { DBT_NBITS_STREAMS = 4 };
/* What a thread reads first of B, scales and zero points, and of those of a second product (or NULL), with
 * few rows of A; with more memory is not what a product waits for. */
void dbt_nbits_prefetch(const dbt_matmul_nbits *p, const dbt_matmul_nbits *second,
                        const dbt_nbits_kernel *kernel, uint32_t thread, uint32_t n_threads,
                        dbt_prefetch *prefetch);
/* nbits_work.c: bytes of B, scales and zero points. */
uint64_t dbt_nbits_weight_bytes(const dbt_matmul_nbits *p);
/* Counts the work of one run for profiles; dbt_nbits_execute does. */
void dbt_nbits_count(const dbt_matmul_nbits *p, dbt_pool *pool);

/* nbits_tune.c: the kernel that dibit_cpu_tune prefers for p, which need not fit it; NULL: none. */
const dbt_nbits_kernel *dbt_nbits_tuned(const dbt_matmul_nbits *p);

/* For kernels: row n of B's scales and zero points into one row of the task's scratch. With int8
 * activations integer zero points are int32, all else float. Absent ones are 2^(bits-1). */
void dbt_nbits_decode_blocks(const dbt_matmul_nbits *p, int64_t n, float *scales,
                             void *zero_points);
static inline bool dbt_nbits_float_zero_points(const dbt_matmul_nbits *p) {
    return p->zero_point_type != DIBIT_TYPE_UNDEFINED && p->zero_point_type != DIBIT_TYPE_UINT8;
}

#endif

/* com.microsoft GatherBlockQuantized: Gather from a table of low-bit codes, giving floats:
 *
 *     y[a, i, c] = (code - zero_point) * scale,  code = data[a, indices[i], c] as [A, gather, C]
 *
 * scale and zero_point are those of the element's block of block_size along quantize_axis. An index
 * out of range gives zeros.
 *
 * LAYOUTS. uint8 data holds 8 / bits codes a byte along the last axis, low bits first, and so do
 * its zero points, each row of which starts on a byte; the default zero point is 2^(bits-1). Typed
 * data (2 and 4 bits) is packed over the whole tensor; its default zero point is 0. Between steps such
 * types lie unpacked, one code a byte on the CPU and one a word on a device. */
#ifndef DBT_OPS_GATHER_BLOCK_QUANTIZED_H
#define DBT_OPS_GATHER_BLOCK_QUANTIZED_H

#include "ops/op.h"

enum { DBT_GBQ_DATA, DBT_GBQ_INDICES, DBT_GBQ_SCALES, DBT_GBQ_ZERO_POINTS, DBT_GBQ_INPUTS };

/* Where the quantized axis is: before the gathered one, it itself, or inside a slice. */
typedef enum dbt_gbq_where { DBT_GBQ_BEFORE, DBT_GBQ_GATHERED, DBT_GBQ_INSIDE } dbt_gbq_where;

/* data is [A, gather_dim, C]; a slice of C codes is [c1, q, c2] where the quantized axis lies inside
 * it, else [1, 1, C]. The scale of element [i, j, k] of slice data[a, index] is number
 *     base + (i * q_blocks + j / block_size) * c2 + k,  base =
 *     INSIDE    (a * gather_dim + index) * c1 * q_blocks * c2
 *     GATHERED  (a * q_blocks + index / block_size) * c2
 *     BEFORE    ((block * a_inner + a % a_inner) * gather_dim + index) * c2
 *               with block = a / a_inner / q_outer * q_blocks + a / a_inner % q_outer / block_size. */
typedef struct dbt_gbq_layout {
    int64_t n_slices, n_indices, gather_dim;
    int64_t c1, q, c2;
    int64_t block_size, q_blocks, a_inner, q_outer;
    dbt_gbq_where where;
    dibit_type declared; /* of the codes, in the file */
    uint32_t bits;
    int32_t default_zero_point;
    /* Zero points in a row that starts on a byte, and how many would fill it; 0: there are none. */
    int64_t zero_row, zero_row_stride;
} dbt_gbq_layout;

/* BAD_INPUT when the inputs' dims do not fit together; looks at nothing else of them. */
dibit_status dbt_gbq_layout_of(const dbt_cpu_call *call, dbt_gbq_layout *out);

dibit_status dbt_gbq_encode(const dbt_gpu_call *call);

#endif

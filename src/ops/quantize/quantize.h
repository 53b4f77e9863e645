/* What the quantization ops share: integer types and where a tensor's scales lie. */
#ifndef DBT_OPS_QUANTIZE_QUANTIZE_H
#define DBT_OPS_QUANTIZE_QUANTIZE_H

#include "ops/op.h"

#define DBT_QUANTIZE_8_BITS (DBT_TYPE_BIT(DIBIT_TYPE_UINT8) | DBT_TYPE_BIT(DIBIT_TYPE_INT8))
#define DBT_QUANTIZE_TYPES                                                                         \
    (DBT_QUANTIZE_8_BITS | DBT_TYPE_BIT(DIBIT_TYPE_UINT16) | DBT_TYPE_BIT(DIBIT_TYPE_INT16) |      \
     DBT_TYPES_SUBBYTE)
#define DBT_QUANTIZE_SCALES                                                                        \
    (DBT_TYPE_BIT(DIBIT_TYPE_FLOAT) | DBT_TYPE_BIT(DIBIT_TYPE_FLOAT16) |                           \
     DBT_TYPE_BIT(DIBIT_TYPE_BFLOAT16))

typedef struct dbt_quantize_attrs {
    int64_t axis, block_size, output_dtype;
} dbt_quantize_attrs;

/* The least and greatest value of an integer type. */
void dbt_quantize_range(dibit_type type, int32_t *low, int32_t *high);
/* v / scale to the nearest integer, ties to even, plus zero_point, kept in the type; NaN gives low. */
int32_t dbt_quantize(float v, float scale, int32_t zero_point, int32_t low, int32_t high);
/* Elements [first, first + n) of an integer tensor: packed as in a file, or as stored. */
void dbt_quantize_load(const void *data, dibit_type type, int64_t first, int64_t n, int32_t *out);
/* Elements into a tensor of a storage type (8, 16 or 32 bits). */
void dbt_quantize_store(const int32_t *v, dibit_type type, int64_t first, int64_t n, void *data);

/* A tensor as [outer, axis, inner] and its scales: element (o, d, i) has scale
 * o * s_outer + d / block * s_axis + i * s_inner. Zero points lie like the scales. */
typedef struct dbt_quantize_layout {
    int64_t outer, axis, inner;
    int64_t block, s_outer, s_axis, s_inner;
} dbt_quantize_layout;

/* Scales are one for the tensor, one per index of `axis`, or of x's rank with blocks of block_size
 * along the axis (block_size 0: not blocked). BAD_INPUT when their shape does not fit. */
dibit_status dbt_quantize_layout_of(const dibit_tensor *x, const dibit_tensor *scale, int64_t axis,
                                    int64_t block_size, dibit_error *error,
                                    dbt_quantize_layout *out);

/* MatMulInteger, and QLinearMatMul where the op's kind is 1 (matmul_integer.c). */
dibit_status dbt_matmul_integer_infer(dbt_infer *infer);
dibit_status dbt_matmul_integer_run(const dbt_cpu_call *call);

#endif

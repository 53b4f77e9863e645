/* Prototypes of the listed kernels. */
#ifndef DBT_OPS_MATMUL_NBITS_CPU_KERNELS_H
#define DBT_OPS_MATMUL_NBITS_CPU_KERNELS_H

#include "ops/matmul_nbits/matmul_nbits.h"

#define KERNEL(name, isa, bits, int8, min_m, n_tile, order, g_idx)                                 \
    void name(const dbt_nbits_task *task);
#include "ops/matmul_nbits/cpu_kernels.inc"
#undef KERNEL

/* Row `a` of A rounded, in the kernel's order: q [row_bytes], scale and sum [k_blocks]. */
void dbt_nbits_quantize_row_avx512(const dbt_matmul_nbits *p, uint32_t order, int64_t row_bytes,
                                   const float *a, int8_t *q, float *scale, int32_t *sum);
void dbt_nbits_quantize_row_wasm(const dbt_matmul_nbits *p, uint32_t order, int64_t row_bytes,
                                 const float *a, int8_t *q, float *scale, int32_t *sum);
/* Elements [k_begin, k_end) of the rows of a tile (see DBT_NBITS_TILES), k_begin a multiple of whole blocks, of parts
 * of them and of 64; k_end too, or K. q, scale and sum are the tile's. */
void dbt_nbits_quantize_tile_avx512(const dbt_matmul_nbits *p, int64_t tile, int64_t k_begin,
                                    int64_t k_end, int8_t *q, float *scale, int32_t *sum);

#endif

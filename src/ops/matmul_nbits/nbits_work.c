/* What a profile counts of MatMulNBits: B as it lies in the file, A and Y, once each; and its products. */
#include "ops/matmul_nbits/matmul_nbits.h"

uint64_t dbt_nbits_weight_bytes(const dbt_matmul_nbits *p) {
    const uint64_t n_scales = (uint64_t)(p->N * p->k_blocks);
    const uint64_t zero_points = p->zero_point_type == DIBIT_TYPE_UINT8
                                     ? (uint64_t)(p->N * dbt_nbits_zero_row_bytes(p))
                                     : n_scales * dibit_type_bits(p->zero_point_type) / 8;
    return (uint64_t)(p->N * dbt_nbits_row_bytes(p)) +
           n_scales * dibit_type_bits(p->scale_type) / 8 + zero_points;
}

void dbt_nbits_count(const dbt_matmul_nbits *p, dbt_pool *pool) {
    const uint64_t products = (uint64_t)(p->M * p->N * p->K);
    dbt_pool_count(pool,
                   &(dbt_work){
                       .bytes = dbt_nbits_weight_bytes(p) + (uint64_t)(p->M * (p->K + p->N)) * 4,
                       .int8_products = p->int8_activations ? products : 0,
                       .float_products = p->int8_activations ? 0 : products,
                   });
}

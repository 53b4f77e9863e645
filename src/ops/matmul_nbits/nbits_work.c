/* What a profile counts of MatMulNBits: B as it lies in the file, A and Y, once each; and its products. */
#include "ops/matmul_nbits/matmul_nbits.h"

uint64_t dbt_nbits_weight_bytes(const dbt_matmul_nbits *p) {
    return (uint64_t)p->N * (uint64_t)(dbt_nbits_row_bytes(p) + dbt_nbits_scale_row_bytes(p) +
                                       dbt_nbits_zero_point_row_bytes(p));
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

/* One element of a MatMulNBits's Y, product by product: as matmul_nbits.h defines it, and as a shader with TRACE
 * (nbits_trace.inc.wgsl) wrote it down. */
#ifndef DBT_OPS_MATMUL_NBITS_NBITS_TRACE_H
#define DBT_OPS_MATMUL_NBITS_NBITS_TRACE_H

#include "dibit/debug.h"
#include "ops/matmul_nbits/matmul_nbits.h"

typedef struct dbt_nbits_element {
    /* A problem of M 1 and N 1: row m of A, row n of the weights and what belongs to it. */
    dbt_matmul_nbits p;
    int64_t m, n;
    uint64_t b_bytes; /* at p.b: the row, and what follows it in the tensor, if anything */
} dbt_nbits_element;

/* products [K]. The last one's sum is ref.c's Y, bit for bit. */
void dbt_nbits_trace_ref(const dbt_nbits_element *e, dibit_trace_product *products);

/* What a shader writes. */
uint64_t dbt_nbits_trace_bytes(int64_t K);
/* From there to products [K]. The rows that the shader has counted from: of A, and of the weights, which begin
 * weights_row rows after the tensor that addresses are to be of. */
void dbt_nbits_trace_read(const dbt_nbits_element *e, const uint32_t *words, int64_t a_row,
                          int64_t weights_row, dibit_trace_product *products);

/* The first product that is not as it must be, or -1; a sentence says what is wrong with it. `words` is what
 * the shader wrote, or NULL. */
int64_t dbt_nbits_trace_compare(const dbt_nbits_element *e, const dibit_trace_product *want,
                                const dibit_trace_product *got, const uint32_t *words, char *text,
                                size_t text_bytes);

#endif

/* The cases by which every code of MatMulNBits is read back, for verify.c: weights whose codes are known
 * before they are packed, times unit vectors. Sums have one term, numbers are small and scales powers of
 * two, so a right kernel's Y is equal to what it should be. */
#ifndef DBT_OPS_MATMUL_NBITS_NBITS_VERIFY_H
#define DBT_OPS_MATMUL_NBITS_NBITS_VERIFY_H

#include "base/arena.h"
#include "ops/matmul_nbits/matmul_nbits.h"

/* Activations are unit vectors times this: int8 activations then have the scale 1. */
enum { DBT_NBITS_VERIFY_ONE = 127 };

typedef struct dbt_nbits_verify_case {
    dbt_matmul_nbits p;   /* row m of A is 127 at k = dbt_nbits_verify_k(p, m); y is NULL */
    const uint8_t *codes; /* [N, k_blocks * block_size]: what is packed in b */
    const float *scales, *zero_points; /* [N, k_blocks]: what is packed in p's */
} dbt_nbits_verify_case;

/* How many cases there are for all bits together. */
uint32_t dbt_nbits_verify_count(void);
/* Whether `quick` has case `index`. */
bool dbt_nbits_verify_is_quick(uint32_t index);
/* A number that tells the shaders apart which cases need, and whether they are for a rare form of weights. */
uint32_t dbt_nbits_verify_form(uint32_t index);
bool dbt_nbits_verify_is_rare(uint32_t index);
/* Makes case `index`; the arena owns it. Fails for lack of memory only. */
dibit_status dbt_nbits_verify_make(uint32_t index, dbt_arena *arena, dbt_nbits_verify_case *out,
                                   dibit_error *error);

/* The element of K that is not 0 in row m. */
static inline int64_t dbt_nbits_verify_k(const dbt_matmul_nbits *p, int64_t m) {
    return p->M > 1 ? m * (p->K - 1) / (p->M - 1) : 0;
}

/* Whether y [M, N], M at most c->p.M, is right; if not, a sentence names the first wrong code. */
bool dbt_nbits_verify_check(const dbt_nbits_verify_case *c, int64_t M, const float *y, char *text,
                            size_t text_bytes);

#endif

/* One MatMulNBits problem for tests and benchmarks: its parameters, its data at exact sizes and odd
 * addresses, and an oracle that never sees the packed bytes. */
#ifndef DBT_TEST_NBITS_CASE_H
#define DBT_TEST_NBITS_CASE_H

#include "ops/matmul_nbits/matmul_nbits.h"

typedef enum nbits_zp { ZP_NONE, ZP_PACKED, ZP_FLOAT, ZP_FLOAT16, N_ZP } nbits_zp;
typedef enum nbits_fill {
    FILL_EXACT, /* integers and powers of two: every order of summation is exact */
    FILL_RANDOM,
    FILL_EDGES, /* lowest and highest codes and zero points, all-zero blocks, wide ranges */
    N_FILL
} nbits_fill;

typedef struct nbits_case {
    int64_t M, N, K, block_size;
    uint32_t bits;
    nbits_zp zp;
    nbits_fill fill;
    dibit_type scale_type;
    bool g_idx, bias, int8_activations;
} nbits_case;

typedef struct nbits_data {
    dbt_matmul_nbits p;
    float *a, *bias, *y; /* y [M, N], with canaries around it in y_memory */
    float *y_memory;
    uint8_t *b_memory, *scales_memory, *zero_points_memory;
    int32_t *g_idx;
    /* Unpacked, for the oracle. */
    uint8_t *codes;     /* [N, K] */
    float *scales;      /* [N, k_blocks] */
    float *zero_points; /* [N, k_blocks] */
} nbits_data;

enum { NBITS_CANARIES = 16 };

void nbits_data_create(const nbits_case *c, uint64_t *seed, nbits_data *out);
void nbits_data_free(nbits_data *data);
void nbits_data_clear_y(nbits_data *data);
/* Whether the floats around y are untouched. */
bool nbits_data_canaries_live(const nbits_data *data);
/* y and s as dbt_matmul_nbits_ref gives them, from the unpacked data. */
void nbits_data_oracle(const nbits_data *data, double *y, double *s);
/* "1x192x384 block 64, 2 bits, zero points packed, ..." */
void nbits_case_text(const nbits_case *c, char *text, size_t bytes);

#endif

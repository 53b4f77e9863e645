/* The MatMulNBits configurations of a model file, for tests and benchmarks (not in the library). */
#ifndef DBT_OPS_MATMUL_NBITS_NBITS_MODEL_H
#define DBT_OPS_MATMUL_NBITS_NBITS_MODEL_H

#include "ops/matmul_nbits/matmul_nbits.h"

typedef struct nbits_config {
    int64_t N, K, block_size;
    uint32_t bits;
    dibit_type scale_type, zero_point_type; /* UNDEFINED: no zero points */
    bool g_idx, bias;
    int32_t accuracy_level;
    uint32_t n_nodes; /* that have it */
} nbits_config;

/* Distinct configurations in the order of the main graph, `*n` of them, in memory to be freed. */
dibit_status nbits_model_configs(const char *path, nbits_config **out, uint32_t *n,
                                 dibit_error *error);

#endif

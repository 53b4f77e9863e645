/* The parts of `dibit trace`: a made-up model (trace_model.c), running and printing (trace.c). */
#ifndef DIBIT_CLI_TRACE_H
#define DIBIT_CLI_TRACE_H

#include "cli.h"

/* A model of one MatMulNBits "node" of A [M, K]. */
typedef struct trace_sizes {
    uint32_t bits, block, M, N, K;
    const char *zero_points; /* none, packed, float, float16 */
    const char *scales;      /* float, float16, bfloat16 */
    bool g_idx, bias;
    uint64_t seed; /* of its weights */
} trace_sizes;

/* Its bytes, in memory to be freed; NULL after writing a sentence to error. */
char *trace_make_model(const trace_sizes *sizes, size_t *bytes, dibit_error *error);

#endif

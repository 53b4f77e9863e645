/* What this machine can do at most: `dibit bench-op limits`, and what `dibit bench --profile` sets beside
 * the time of steps. */
#ifndef DIBIT_CLI_BENCH_OP_LIMITS_H
#define DIBIT_CLI_BENCH_OP_LIMITS_H

#include "cli.h"

/* Of all threads together, a second. */
typedef struct bench_limits {
    double bytes; /* read from memory or caches, over and over through as many as were asked for */
    double int8_products, float_products; /* added up in registers */
} bench_limits;

/* Takes about 0.3 seconds. threads and isa as in dibit_cli_common. OUT_OF_MEMORY. */
dibit_status bench_limits_measure(uint32_t threads, uint64_t isa, uint64_t bytes, bench_limits *out,
                                  dibit_error *error);

/* The table: reads by size, of up to that many megabytes, products by instruction set, with one thread and with all. */
int bench_op_print_limits(const dibit_cli_common *common, uint32_t megabytes);

#endif

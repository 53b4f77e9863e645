/* Loops that do one thing as fast as this machine can. */
#ifndef DIBIT_CLI_BENCH_OP_LOOPS_H
#define DIBIT_CLI_BENCH_OP_LOOPS_H

#include "cli.h"

/* Reads memory at a 64-byte boundary; bytes is a multiple of 512. */
typedef void (*bench_read)(const uint8_t *data, uint64_t bytes);
/* The fastest for these CPU features. */
bench_read bench_reader(uint64_t isa);

/* Multiplies and adds in registers, n * per_round products. */
typedef struct bench_loop {
    const char *name;
    uint64_t isa; /* which it needs */
    void (*run)(int64_t n);
    int per_round;
    bool int8;
} bench_loop;
extern const bench_loop bench_loops[];
extern const size_t bench_loop_count;

#endif

/* What bench.c, which reports medians, and bench_serve.c, which answers single measurements, share. */
#ifndef DIBIT_CLI_BENCH_MEASURE_H
#define DIBIT_CLI_BENCH_MEASURE_H

#include "cli.h"
#include "dibit/lm.h"

typedef struct bench_subject {
    dibit_device *device;
    dibit_model *model;
    dibit_session *session;
    dibit_generator *generator;
    int64_t *prompt, *ones, *positions, *tokens; /* [capacity]; the prompt is the same for all */
    uint32_t capacity;
    bool resets_profile; /* at the next token */
} bench_subject;

/* Prompts are read in chunks of max_chunk tokens. bench_close frees what there is, also after a failure. */
dibit_status bench_open(bench_subject *b, const char *path, const dibit_cli_common *common,
                        bool profile, uint32_t max_chunk, dibit_error *error);
void bench_close(bench_subject *b);

/* Greedy generation of n_tokens after n_prompt more tokens of the state, or of an empty one where that is
 * NULL: seconds to the first token, and of the rest. The state then has n_prompt + n_tokens - 1 more. */
dibit_status bench_generate(bench_subject *b, dibit_state *state, uint32_t n_prompt,
                            uint32_t n_tokens, double *first, double *rest, dibit_error *error);
/* Seconds of n tokens in one run with logits for all of its rows, from an empty state. */
dibit_status bench_prefill(bench_subject *b, uint32_t n, double *seconds, dibit_error *error);
/* The most memory that this process has had resident. */
uint64_t bench_peak_rss(void);

/* bench_serve.c: measures what it is asked for on standard input until that ends; see there. */
int bench_serve(const char *verb, const char *path, const dibit_cli_common *common);

#endif

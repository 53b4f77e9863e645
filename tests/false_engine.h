/* An engine in the place of the real one, for the tests of what stands on it: it defines functions of dibit.h.
 * Its logits are a hash of all tokens so far, so any mistake in feeding, batching or positions changes every
 * token after it. It checks what it is given, and fails the test. */
#ifndef DBT_TEST_FALSE_ENGINE_H
#define DBT_TEST_FALSE_ENGINE_H

#include "dibit/lm.h"

enum { VOCABULARY = 97, MAX_TOKENS = 3000, MAX_BATCH = 3, MAX_UNREAD = 4 };

/* What it can do: give logits alone, choose tokens on its device, begin runs ahead. */
typedef enum false_engine_kind { GIVES_LOGITS, SAMPLES, RUNS_AHEAD } false_engine_kind;
extern false_engine_kind engine;

struct dibit_state {
    int64_t tokens[MAX_TOKENS];
    uint64_t length;
    bool lost;
};

struct dibit_model {
    dibit_type logits_type;
    const char *extra_input;
    bool no_logits;
};

struct dibit_session {
    const dibit_run *run;
    dibit_type logits_type;
    uint64_t random;    /* not 0: poll answers PENDING at times */
    bool equal_lengths; /* refuses states of different lengths together */
    bool not_numbers;
    uint32_t n_runs, most_rows, widest_batch, n_cancelled;
    int64_t chosen[MAX_UNREAD][MAX_BATCH]; /* by the last runs, the newest first */
    uint32_t n_unread, most_unread, n_fed;
    uint32_t fails_fed; /* the number of the run with `feed` that fails, from 1 */
    bool fails_late;    /* when it is polled, not when it is begun */
    int64_t largest_chunk;
    void *logits;

    /* A device that fails: from its call number `loses_at` on, or at that one alone. */
    uint32_t n_calls, loses_at;
    dibit_status fails_with; /* not DEVICE_LOST: once */
    bool may_leave, left;
    uint32_t n_planning;    /* polls that a session that has left still takes */
    dibit_state *states[4]; /* all that are to be lost */
};

/* The logits after n tokens. */
void false_row(const int64_t *tokens, uint64_t n, float row[VOCABULARY]);

#endif

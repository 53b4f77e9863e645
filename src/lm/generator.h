/* Inside of a generator: generator.c makes it and prepares its runs, generate.c is the loop, score.c judges
 * texts. Public engine interface and libc alone: also built for the browser. */
#ifndef DBT_LM_GENERATOR_H
#define DBT_LM_GENERATOR_H

#include "lm/lm_base.h"
#include "lm/sampler.h"

/* What a sequence needs besides what the caller sees. */
typedef struct dbt_track {
    uint64_t start; /* tokens that its state held before the prompt */
    uint64_t *seen; /* bits, for the repetition penalty; NULL: none */
} dbt_track;

struct dibit_generator {
    dibit_generator_desc desc;
    bool has_mask, has_positions;
    uint32_t vocabulary; /* 0: not known yet */

    bool active, running; /* a generation; one of its runs */
    bool one_by_one;      /* the model cannot take states of different lengths together */
    dibit_generation generation;
    dbt_track *tracks; /* [generation.n_sequences] */

    uint32_t *batch; /* [n_sequences]: those that the run feeds */
    dibit_state **states;
    uint32_t n_batch, next; /* next: where one by one goes on */
    uint32_t batch_capacity;

    int64_t *ids, *positions, *mask; /* of the run: [n_batch, S], the same, [n_batch, past + S] */
    size_t ids_capacity, positions_capacity, mask_capacity;
    size_t n_fed; /* S */
    dibit_tensor inputs[3], output;
    dibit_run run;

    bool samples, ahead;    /* in this generation: the device chooses tokens; runs begin ahead */
    uint32_t n_uncollected; /* runs that are over but for their tokens; all of the same batch */
    size_t uncollected_fed; /* tokens that they fed each sequence */
    dibit_sample *settings; /* [batch_capacity] */
    int64_t *chosen;        /* [batch_capacity] */

    float *logits;       /* [vocabulary], one row */
    dbt_choice *choices; /* [vocabulary] */
};

/* From the generator's allocator; NULL when there is no memory. */
void *dbt_generator_take(dibit_generator *g, size_t count, size_t bytes);
void dbt_generator_give(dibit_generator *g, void *memory, size_t count, size_t bytes);
/* Room for batches of n sequences. */
dibit_status dbt_generator_reserve_batch(dibit_generator *g, uint32_t n, dibit_error *error);

/* OUT_OF_RANGE for ids that are not in the vocabulary, as far as it is known. */
dibit_status dbt_generator_check_ids(const dibit_generator *g, const int64_t *ids, size_t n,
                                     dibit_error *error);
/* Prepares g->run to feed n tokens to each of g->states[0 .. n_batch); the caller fills g->ids, the first
 * input. */
dibit_status dbt_generator_prepare_run(dibit_generator *g, size_t n, uint32_t last_rows,
                                       dibit_error *error);
/* Checks the logits of a run [n_batch, rows, V], and makes the room that depends on V. */
dibit_status dbt_generator_accept_logits(dibit_generator *g, int64_t rows, dibit_error *error);
/* Copies row i of the logits, counted over the batch, to g->logits. */
void dbt_generator_read_row(dibit_generator *g, size_t i);

#endif

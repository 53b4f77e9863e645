/* Choosing the next token from its logits. */
#ifndef DBT_LM_SAMPLER_H
#define DBT_LM_SAMPLER_H

#include "dibit/lm.h"

/* BAD_ARGUMENT when a value is out of its range. */
dibit_status dbt_sampling_check(const dibit_sampling *sampling, dibit_error *error);

/* Number i of a seed, uniform in [0, 1): what token i of a sequence is drawn with. */
double dbt_sampler_random(uint64_t seed, uint64_t i);

/* e^x for x <= 0, how likely a logit that is by x larger than another is beside that: within 2 ulp, and below
 * x = -700 less than 1e-300. The same on every machine. */
double dbt_sampler_weight(float x);

/* A token that may be drawn. */
typedef struct dbt_choice {
    float logit;
    uint32_t id;
} dbt_choice;

typedef struct dbt_sampler {
    const dibit_sampling *sampling;
    double random; /* uniform in [0, 1) */
    const uint64_t
        *seen;           /* [(n + 63) / 64]: bit i is set when token i occurred; NULL: no penalty */
    dbt_choice *choices; /* [n], scratch; not needed at temperature 0 */
} dbt_sampler;

/* logits [n] are changed by the penalty. False when none is a number above -infinity. */
bool dbt_sample(const dbt_sampler *sampler, float *logits, uint32_t n, uint32_t *token);

#endif

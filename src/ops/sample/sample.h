/* dibit.Sample(logits [B, R, V], settings [B, 5]) -> tokens int64 [B, 1]: the next token of each sequence,
 * from the last of its R rows.
 *
 * A row of settings is temperature, top_k, top_p, min_p, random. At temperature 0 the token is the
 * likeliest, the lowest id of equal ones. Else the top_k likeliest logits, 1 to 64 of them, are divided by
 * the temperature; of these stay the likeliest that together have the share top_p (0 or 1: all), without
 * those whose probability is below min_p times the largest; and `random`, uniform in [0, 1), draws one,
 * the likeliest first. So does lm/sampler.c, which has no limits. Logits that are NaN or -infinity are
 * none; without any other the token is -1.
 *
 * Logits that the model declares as float16 are rounded to it before they are compared, as they would
 * be for a caller who reads them. */
#ifndef DBT_OPS_SAMPLE_H
#define DBT_OPS_SAMPLE_H

#include "ops/op.h"

enum {
    DBT_SAMPLE_SETTINGS = 5, /* numbers in a row of settings */
    DBT_SAMPLE_MAX_K = DIBIT_SAMPLE_MAX_TOP_K
};
/* For min_p 0. Not infinity, which shaders need not know. */
#define DBT_SAMPLE_NO_LIMIT 1e30f

typedef struct dbt_sample_row {
    float temperature;
    uint32_t top_k;
    float top_p;  /* in (0, 1] */
    float lowest; /* ln(min_p): how far below the best a logit over the temperature may be */
    float random;
} dbt_sample_row;

/* Row b of the settings. BAD_ARGUMENT when a number is out of its range. */
dibit_status dbt_sample_settings(const dibit_tensor *settings, int64_t b, dbt_sample_row *row,
                                 dibit_error *error);
/* sample_gpu.c */
dibit_status dbt_sample_encode(const dbt_gpu_call *call);

#endif

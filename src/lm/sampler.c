/* Sampling: repetition penalty, temperature, top-k, top-p, min-p, draw. libc alone: also built for
 * the browser. */
#include "lm/sampler.h"

#include <math.h>

#include "lm/lm_base.h"

dibit_status dbt_sampling_check(const dibit_sampling *s, dibit_error *error) {
    DBT_LM_FAIL_IF(!(s->temperature >= 0 && s->temperature <= 1e6f), error, DIBIT_BAD_ARGUMENT,
                   "temperature %g is not in 0 to 1e6", (double)s->temperature);
    DBT_LM_FAIL_IF(!(s->top_p >= 0 && s->top_p <= 1), error, DIBIT_BAD_ARGUMENT,
                   "top_p %g is not in 0 to 1", (double)s->top_p);
    DBT_LM_FAIL_IF(!(s->min_p >= 0 && s->min_p <= 1), error, DIBIT_BAD_ARGUMENT,
                   "min_p %g is not in 0 to 1", (double)s->min_p);
    DBT_LM_FAIL_IF(!(s->repetition_penalty >= 0 && s->repetition_penalty <= 1e6f), error,
                   DIBIT_BAD_ARGUMENT, "repetition_penalty %g is not in 0 to 1e6",
                   (double)s->repetition_penalty);
    return DIBIT_OK;
}

/* splitmix64 (Steele, Lea, Flood 2014), whose state goes on by a constant */
double dbt_sampler_random(uint64_t seed, uint64_t i) {
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static void penalize(const uint64_t *seen, float penalty, float *logits, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        if (seen[i / 64] == 0) {
            i |= 63;
            continue;
        }
        if (seen[i / 64] >> i % 64 & 1)
            logits[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
    }
}

static bool likeliest(const float *logits, uint32_t n, uint32_t *token) {
    float best = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (logits[i] > best) {
            best = logits[i];
            *token = i;
        }
    }
    return best > -INFINITY;
}

static bool better(dbt_choice a, dbt_choice b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/* Moves choices[i] down to its place in a heap of n, best on top. */
static void sift(dbt_choice *choices, uint32_t i, uint32_t n) {
    const dbt_choice moved = choices[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(choices[child + 1], choices[child])) child++;
        if (!better(choices[child], moved)) break;
        choices[i] = choices[child];
    }
    choices[i] = moved;
}

/* What is drawn from: choices[begin .. end), best last, with the sum of their weights. */
typedef struct pool {
    uint32_t begin, end;
    double weight;
} pool;

/* The likeliest that top_k and top_p leave. A heap gives them one after the other; each taken one is
 * put behind the heap's end. */
static pool take_best(const dibit_sampling *s, dbt_choice *choices, uint32_t n, float top) {
    const uint32_t k = s->top_k && s->top_k < n ? s->top_k : n;
    const double p = s->top_p > 0 && s->top_p < 1 ? (double)s->top_p : 1;
    double total = 0; /* of all that top_k leaves */
    if (k == n)
        for (uint32_t i = 0; i < n; i++) total += exp((double)(choices[i].logit - top));
    for (uint32_t i = n / 2; i-- > 0;) sift(choices, i, n);
    pool kept = {n, n, 0};
    for (uint32_t taken = 0; taken < k; taken++) {
        if (k == n && kept.weight >= p * total) break;
        const dbt_choice best = choices[0];
        choices[0] = choices[kept.begin - 1];
        choices[--kept.begin] = best;
        sift(choices, 0, kept.begin);
        kept.weight += exp((double)(best.logit - top));
    }
    if (k == n) return kept;
    const double limit = p * kept.weight;
    kept.weight = 0;
    uint32_t i = n;
    do kept.weight += exp((double)(choices[--i].logit - top));
    while (i > kept.begin && kept.weight < limit);
    kept.begin = i;
    return kept;
}

bool dbt_sample(const dbt_sampler *sampler, float *logits, uint32_t n, uint32_t *token) {
    const dibit_sampling *s = sampler->sampling;
    if (sampler->seen && s->repetition_penalty > 0 && s->repetition_penalty != 1)
        penalize(sampler->seen, s->repetition_penalty, logits, n);
    uint32_t best = 0;
    if (!likeliest(logits, n, &best)) return false;
    if (!(s->temperature > 0) || logits[best] == INFINITY) {
        *token = best;
        return true;
    }
    const float top = logits[best] / s->temperature;
    const float lowest = s->min_p > 0 ? top + logf(s->min_p) : -INFINITY;
    const bool whole = s->top_k == 0 && !(s->top_p > 0 && s->top_p < 1);
    dbt_choice *choices = sampler->choices;
    pool kept = {0, 0, 0};
    for (uint32_t i = 0; i < n; i++) {
        const float logit = logits[i] / s->temperature;
        if (!(logit > -INFINITY) || (whole && logit < lowest)) continue;
        choices[kept.end++] = (dbt_choice){logit, i};
        if (whole) kept.weight += exp((double)(logit - top));
    }
    if (!whole) kept = take_best(s, choices, kept.end, top);
    while (choices[kept.begin].logit < lowest) { /* only when best last: min_p cuts the tail off */
        kept.weight -= exp((double)(choices[kept.begin].logit - top));
        kept.begin++;
    }
    double left = sampler->random * kept.weight;
    uint32_t i = kept.end;
    do left -= exp((double)(choices[--i].logit - top));
    while (i > kept.begin && left >= 0);
    *token = choices[i].id;
    return true;
}

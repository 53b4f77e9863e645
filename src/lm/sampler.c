/* Sampling: repetition penalty, temperature, top-k, top-p, min-p, draw. libc alone: also built for
 * the browser.
 *
 * A vocabulary has 50,000 to 260,000 tokens, of which few matter. So what looks at all of them goes through
 * blocks in loops that compilers turn into SIMD code: the largest logit, what lies near it, and the sum of
 * all weights, where that is asked for. Only what lies near is sorted. */
#include "lm/sampler.h"

#include <math.h>

#include "lm/lm_base.h"

enum { BLOCK = 256, LANES = 16 };

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

/* The largest of them; NaN counts as -infinity. */
static float largest(const float *x, int64_t n) {
    float lanes[LANES];
    for (int k = 0; k < LANES; k++) lanes[k] = -INFINITY;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int k = 0; k < LANES; k++) lanes[k] = lanes[k] < x[i + k] ? x[i + k] : lanes[k];
    }
    for (; i < n; i++) lanes[0] = lanes[0] < x[i] ? x[i] : lanes[0];
    for (int k = 1; k < LANES; k++) lanes[0] = lanes[0] < lanes[k] ? lanes[k] : lanes[0];
    return lanes[0];
}

static uint32_t block_of(uint32_t begin, uint32_t n) {
    return n - begin < BLOCK ? n - begin : BLOCK;
}

static bool likeliest(const float *logits, uint32_t n, uint32_t *token) {
    float best = -INFINITY;
    uint32_t i = 0; /* where the block with the first of them begins */
    for (uint32_t begin = 0; begin < n; begin += BLOCK) {
        const float most = largest(logits + begin, block_of(begin, n));
        if (!(most > best)) continue;
        best = most;
        i = begin;
    }
    if (!(best > -INFINITY)) return false;
    while (logits[i] != best) i++;
    *token = i;
    return true;
}

/* ---- Weights ---- */

/* Weights are e^x, x <= 0. Below -700 and for NaN that is e^-700, which is as good as none. */
#define NO_WEIGHT 1e-300
static inline double exponent_of(float difference) {
    const double x = (double)difference;
    return x > -700.0 ? x : -700.0;
}

/* 2^n e^r with |r| <= ln(2) / 2, e^r by its Taylor series, whose first term left out is below 2^-52; ln(2) in two
 * parts, of which the first has 12 bits. libm's is slower, and another on each machine. */
static inline double exponential(double x) {
    const double magic = 0x1.8p52; /* adding it rounds to an integer, kept in the low bits */
    const double shifted = x * 1.4426950408889634 + magic, n = shifted - magic;
    const double r = (x - n * 0x1.63p-1) - n * -0x1.bd0105c610ca8p-13;
    double p = 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 52) + (UINT64_C(1023) << 52);
    double power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

double dbt_sampler_weight(float difference) { return exponential(exponent_of(difference)); }

/* weights [n], n at most BLOCK; returns their sum. Two loops: in one, compilers would branch around e^-700. */
static double weigh(const float *logits, int64_t n, float temperature, float top, double *weights) {
    for (int64_t i = 0; i < n; i++) weights[i] = exponent_of(logits[i] / temperature - top);
    for (int64_t i = 0; i < n; i++) weights[i] = exponential(weights[i]);
    double lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int k = 0; k < LANES; k++) lanes[k] += weights[i + k];
    }
    for (; i < n; i++) lanes[0] += weights[i];
    for (int k = 1; k < LANES; k++) lanes[0] += lanes[k];
    return lanes[0];
}

static double weigh_all(const float *logits, uint32_t n, float temperature, float top) {
    double weights[BLOCK], sum = 0;
    for (uint32_t begin = 0; begin < n; begin += BLOCK)
        sum += weigh(logits + begin, block_of(begin, n), temperature, top, weights);
    return sum;
}

/* Of all tokens, the last one first. The blocks' sums are kept where choices would be. */
static uint32_t draw_from_all(const dbt_sampler *sampler, const float *logits, uint32_t n,
                              float top, uint32_t best) {
    const float temperature = sampler->sampling->temperature;
    const uint32_t n_blocks = (n + BLOCK - 1) / BLOCK;
    double weights[BLOCK], sum, all = 0;
    _Static_assert(sizeof sum == sizeof *sampler->choices, "a sum fits into a choice");
    for (uint32_t b = 0; b < n_blocks; b++) {
        sum = weigh(logits + b * BLOCK, block_of(b * BLOCK, n), temperature, top, weights);
        memcpy(&sampler->choices[b], &sum, sizeof sum);
        all += sum;
    }
    double left = sampler->random * all;
    uint32_t b = n_blocks - 1;
    for (; b > 0; b--) {
        memcpy(&sum, &sampler->choices[b], sizeof sum);
        if (left < sum) break;
        left -= sum;
    }
    const uint32_t begin = b * BLOCK;
    uint32_t i = begin + block_of(begin, n), token = best;
    (void)weigh(logits + begin, i - begin, temperature, top, weights);
    while (i > begin && left >= 0) {
        const double weight = weights[--i - begin];
        if (weight > NO_WEIGHT) token = i;
        left -= weight;
    }
    return token;
}

/* ---- The likeliest ---- */

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

/* Those of at least `lowest`, which may be -infinity, in the order of their ids; returns how many. */
static uint32_t collect(const float *logits, uint32_t n, float temperature, float lowest,
                        dbt_choice *choices) {
    uint32_t count = 0;
    for (uint32_t begin = 0; begin < n; begin += BLOCK) {
        const uint32_t end = begin + block_of(begin, n);
        if (!(largest(logits + begin, end - begin) / temperature >= lowest)) continue;
        for (uint32_t i = begin; i < end; i++) {
            const float logit = logits[i] / temperature;
            if (logit >= lowest && logit > -INFINITY) choices[count++] = (dbt_choice){logit, i};
        }
    }
    return count;
}

/* What is drawn from: choices[begin .. end), best last, with the sum of their weights. */
typedef struct pool {
    uint32_t begin, end;
    double weight;
} pool;

/* The k best of n, or as many as have the weight `enough` together. A heap gives them one after the other;
 * each taken one is put behind the heap's end. */
static pool take_best(dbt_choice *choices, uint32_t n, uint32_t k, double enough, float top) {
    for (uint32_t i = n / 2; i-- > 0;) sift(choices, i, n);
    pool kept = {n, n, 0};
    while (kept.begin > 0 && n - kept.begin < k && kept.weight < enough) {
        const dbt_choice best = choices[0];
        choices[0] = choices[kept.begin - 1];
        choices[--kept.begin] = best;
        sift(choices, 0, kept.begin);
        kept.weight += dbt_sampler_weight(best.logit - top);
    }
    return kept;
}

/* The likeliest that top_k and top_p leave, looked for in a window below the best logit that grows until it
 * has them all. */
static pool choose(const dibit_sampling *s, const float *logits, uint32_t n, float top,
                   dbt_choice *choices) {
    const double p = s->top_p > 0 && s->top_p < 1 ? (double)s->top_p : 1;
    const uint32_t k = s->top_k ? s->top_k : n;
    const double enough =
        s->top_k ? (double)INFINITY : p * weigh_all(logits, n, s->temperature, top);
    pool kept = {0, 0, 0};
    for (float window = 8;; window = window < 32 ? 2 * window : INFINITY) {
        const uint32_t count = collect(logits, n, s->temperature, top - window, choices);
        double weight = 0;
        if (!s->top_k)
            for (uint32_t i = 0; i < count; i++)
                weight += dbt_sampler_weight(choices[i].logit - top);
        const bool has_all = s->top_k ? count >= k : weight >= enough;
        if (!has_all && window < INFINITY) continue;
        kept = take_best(choices, count, k, enough, top);
        if (window == INFINITY || !(kept.weight < enough) || kept.end - kept.begin == k) break;
    }
    if (!s->top_k) return kept;
    const double limit = p * kept.weight;
    kept.weight = 0;
    uint32_t i = kept.end;
    do kept.weight += dbt_sampler_weight(choices[--i].logit - top);
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
    *token = best;
    if (!(s->temperature > 0)) return true;
    const float top = logits[best] / s->temperature;
    if (!(top > -INFINITY && top < INFINITY)) return true;
    const float lowest = s->min_p > 0 ? top + logf(s->min_p) : -INFINITY;
    const bool whole = s->top_k == 0 && !(s->top_p > 0 && s->top_p < 1);
    dbt_choice *choices = sampler->choices;
    pool kept = {0, 0, 0};
    if (whole && lowest == -INFINITY) {
        *token = draw_from_all(sampler, logits, n, top, best);
        return true;
    }
    if (whole) {
        kept.end = collect(logits, n, s->temperature, lowest, choices);
        for (uint32_t i = 0; i < kept.end; i++)
            kept.weight += dbt_sampler_weight(choices[i].logit - top);
    } else {
        kept = choose(s, logits, n, top, choices);
        while (choices[kept.begin].logit < lowest) /* min_p cuts the tail off */
            kept.weight -= dbt_sampler_weight(choices[kept.begin++].logit - top);
    }
    double left = sampler->random * kept.weight;
    uint32_t i = kept.end;
    do left -= dbt_sampler_weight(choices[--i].logit - top);
    while (i > kept.begin && left >= 0);
    *token = choices[i].id;
    return true;
}

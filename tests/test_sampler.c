/* The sampler by itself: what its options leave is drawn as often as it should be. */
#include "dbt_test.h"

#include "lm/sampler.h"

enum { VOCABULARY = 97 };

/* How often each token is drawn in n draws. */
static void count_draws(const dibit_sampling *sampling, const float *logits, uint32_t vocabulary,
                        const uint64_t *seen, uint32_t n, uint32_t *counts) {
    static dbt_choice choices[VOCABULARY];
    memset(counts, 0, vocabulary * sizeof *counts);
    for (uint32_t i = 0; i < n; i++) {
        float row[VOCABULARY];
        memcpy(row, logits, vocabulary * sizeof *row);
        uint32_t token = UINT32_MAX;
        const dbt_sampler sampler = {sampling, dbt_sampler_random(42, i), seen, choices};
        assert_true(dbt_sample(&sampler, row, vocabulary, &token));
        assert_true(token < vocabulary);
        counts[token]++;
    }
}

/* Draws follow the probabilities that the options leave: five standard deviations. */
static void test_distributions(void **unused) {
    (void)unused;
    enum { N = 20000, V = 8 };
    const float logits[V] = {1, 3, -2, 2.5f, 0, 3, -INFINITY, 0.5f};
    const struct {
        dibit_sampling sampling;
        bool kept[V];
    } cases[] = {
        {{.temperature = 1}, {1, 1, 1, 1, 1, 1, 0, 1}},
        {{.temperature = 0.5f}, {1, 1, 1, 1, 1, 1, 0, 1}},
        {{.temperature = 1, .top_k = 3}, {0, 1, 0, 1, 0, 1, 0, 0}},
        {{.temperature = 2, .top_k = 2}, {0, 1, 0, 0, 0, 1, 0, 0}},
        {{.temperature = 1, .top_k = 100}, {1, 1, 1, 1, 1, 1, 0, 1}},
        /* Probabilities: 0.352 each of 1 and 5, 0.213 of 3, 0.048, 0.029, 0.018, 0.002. */
        {{.temperature = 1, .top_p = 0.3f}, {0, 1, 0, 0, 0, 0, 0, 0}},
        {{.temperature = 1, .top_p = 0.6f}, {0, 1, 0, 0, 0, 1, 0, 0}},
        {{.temperature = 1, .top_p = 0.8f}, {0, 1, 0, 1, 0, 1, 0, 0}},
        {{.temperature = 1, .top_k = 3, .top_p = 0.76f}, {0, 1, 0, 0, 0, 1, 0, 0}},
        {{.temperature = 1, .min_p = 0.5f}, {0, 1, 0, 1, 0, 1, 0, 0}},
        {{.temperature = 1, .top_k = 5, .min_p = 0.5f}, {0, 1, 0, 1, 0, 1, 0, 0}},
        {{.temperature = 1, .top_k = 1}, {0, 1, 0, 0, 0, 0, 0, 0}},
        {{.temperature = 0, .top_k = 5}, {0, 1, 0, 0, 0, 0, 0, 0}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint32_t counts[V];
        count_draws(&cases[c].sampling, logits, V, NULL, N, counts);
        const double t =
            cases[c].sampling.temperature > 0 ? (double)cases[c].sampling.temperature : 1;
        double sum = 0;
        for (int i = 0; i < V; i++) sum += cases[c].kept[i] ? exp((double)logits[i] / t) : 0;
        for (int i = 0; i < V; i++) {
            const double p = cases[c].kept[i] ? exp((double)logits[i] / t) / sum : 0;
            if (fabs(counts[i] - N * p) > 5 * sqrt(N * p * (1 - p)))
                fail_msg("case %zu: token %d came %u times, not about %.0f", c, i, counts[i],
                         N * p);
        }
    }
}

static void test_penalty(void **unused) {
    (void)unused;
    float logits[VOCABULARY];
    for (int i = 0; i < VOCABULARY; i++) logits[i] = -5;
    logits[70] = 4;
    logits[80] = 3;
    const uint64_t seen[2] = {0, 1ull << (70 - 64)};
    uint32_t counts[VOCABULARY];
    count_draws(&(dibit_sampling){.repetition_penalty = 1.3f}, logits, VOCABULARY, seen, 1, counts);
    assert_int_equal(counts[70], 1); /* 4 / 1.3 > 3 */
    count_draws(&(dibit_sampling){.repetition_penalty = 1.4f}, logits, VOCABULARY, seen, 1, counts);
    assert_int_equal(counts[80], 1);
    for (int i = 0; i < VOCABULARY; i++) logits[i] = -2;
    logits[70] = -1;
    count_draws(&(dibit_sampling){.repetition_penalty = 3}, logits, VOCABULARY, seen, 1, counts);
    assert_int_equal(counts[70], 0); /* -1 becomes -3 */
}

/* ---- Large vocabularies, against the definition ---- */

enum { LARGE = 20021 };

static int by_logit(const void *a, const void *b) {
    const dbt_choice *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Everything sorted, libm's exp, one sum: token number `random` of what is left, counted from the best
 * one on, or where nothing is cut off by rank from the last one. */
static uint32_t naive_sample(const dibit_sampling *s, const float *logits, uint32_t n,
                             double random) {
    static dbt_choice all[LARGE];
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        const float logit = s->temperature > 0 ? logits[i] / s->temperature : logits[i];
        if (logit > -INFINITY) all[count++] = (dbt_choice){logit, i};
    }
    const bool ranks = !(s->temperature > 0) || s->top_k || (s->top_p > 0 && s->top_p < 1);
    float top = -INFINITY;
    for (uint32_t i = 0; i < count; i++) top = all[i].logit > top ? all[i].logit : top;
    const float lowest = s->min_p > 0 ? top + logf(s->min_p) : -INFINITY;
    if (ranks) {
        qsort(all, count, sizeof *all, by_logit);
        if (!(s->temperature > 0)) return all[0].id;
        if (s->top_k && s->top_k < count) count = s->top_k;
        double total = 0, kept = 0;
        for (uint32_t i = 0; i < count; i++) total += exp((double)(all[i].logit - top));
        for (uint32_t i = 0; i < count && s->top_p > 0 && s->top_p < 1; i++) {
            kept += exp((double)(all[i].logit - top));
            if (kept >= (double)s->top_p * total) count = i + 1;
        }
    }
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += all[i].logit < lowest ? 0 : exp((double)(all[i].logit - top));
    double left = random * sum;
    uint32_t token = UINT32_MAX;
    for (uint32_t k = 0; k < count && left >= 0; k++) {
        const dbt_choice *c = &all[ranks ? k : count - 1 - k];
        if (c->logit < lowest) continue;
        token = c->id;
        left -= exp((double)(c->logit - top));
    }
    return token;
}

/* Spreads from one hot token to flat, with ties, infinities and what is no number: every window below the
 * best logit in which the sampler looks has to be left once. */
static void test_large_vocabularies(void **unused) {
    (void)unused;
    static float logits[LARGE], row[LARGE];
    static dbt_choice choices[LARGE];
    static const float spreads[] = {0.01f, 1, 6, 40, 300};
    static const dibit_sampling cases[] = {
        {.temperature = 0},
        {.temperature = 1},
        {.temperature = 0.3f},
        {.temperature = 1, .min_p = 0.01f},
        {.temperature = 0.7f, .top_k = 40},
        {.temperature = 1, .top_k = 9000},
        {.temperature = 2, .top_k = LARGE},
        {.temperature = 0.7f, .top_p = 0.9f},
        {.temperature = 1, .top_p = 0.999999f},
        {.temperature = 0.7f, .top_k = 40, .top_p = 0.9f, .min_p = 0.05f},
        {.temperature = 1, .top_p = 0.95f, .min_p = 0.2f},
    };
    uint64_t random = 7;
    for (size_t f = 0; f < 4 * sizeof spreads / sizeof *spreads; f++) {
        const uint32_t n = f % 2 ? LARGE : 1 + (uint32_t)(dbt_test_random(&random) % LARGE);
        for (uint32_t i = 0; i < n; i++) { /* many near the best one, then few */
            const float x = dbt_test_uniform(&random, -1, 1);
            logits[i] = spreads[f / 4] * (f % 4 < 2 ? x : powf(x, 16));
        }
        for (int k = 0; k < 40; k++) {
            logits[dbt_test_random(&random) % n] = -INFINITY;
            logits[dbt_test_random(&random) % n] = NAN;
            logits[dbt_test_random(&random) % n] = spreads[f / 4] * 0.99f;
        }
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            for (int draw = 0; draw < 2; draw++) {
                memcpy(row, logits, n * sizeof *row);
                const double number = dbt_sampler_random(3, f * 100 + (size_t)draw);
                const dbt_sampler sampler = {&cases[c], number, NULL, choices};
                uint32_t token = UINT32_MAX;
                assert_true(dbt_sample(&sampler, row, n, &token));
                const uint32_t expected = naive_sample(&cases[c], logits, n, number);
                if (token != expected)
                    fail_msg("fill %zu of %u, case %zu, draw %d: token %u, not %u", f, n, c, draw,
                             token, expected);
            }
        }
    }
}

static void test_weights(void **unused) {
    (void)unused;
    uint64_t random = 11;
    for (int i = 0; i < 100000; i++) {
        const float x = -700 * powf(dbt_test_uniform(&random, 0, 1), 4);
        const double exact = exp((double)x), got = dbt_sampler_weight(x);
        if (!(fabs(got - exact) <= 0x1p-51 * exact))
            fail_msg("e^%a is %a, not %a", (double)x, got, exact);
    }
    assert_true(dbt_sampler_weight(0) == 1);
    assert_true(dbt_sampler_weight(-INFINITY) < 1e-300 && dbt_sampler_weight(NAN) < 1e-300);
}

/* A temperature so low that quotients overflow is greedy. */
static void test_least_temperature(void **unused) {
    (void)unused;
    const dibit_sampling sampling = {.temperature = 1e-40f, .top_k = 2};
    for (float sign = -1; sign <= 1; sign += 2) {
        float logits[4] = {sign * 8, sign * 5, sign * 6, sign * 7};
        dbt_choice choices[4];
        uint32_t token = UINT32_MAX;
        assert_true(dbt_sample(&(dbt_sampler){&sampling, 0.5, NULL, choices}, logits, 4, &token));
        assert_int_equal(token, sign < 0 ? 1 : 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distributions),      cmocka_unit_test(test_penalty),
        cmocka_unit_test(test_large_vocabularies), cmocka_unit_test(test_weights),
        cmocka_unit_test(test_least_temperature),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

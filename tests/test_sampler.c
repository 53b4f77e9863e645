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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_penalty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

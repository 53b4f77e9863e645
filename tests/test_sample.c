/* dibit.Sample against the sampler of the generation loop: same logits, same seed, same token. Where a
 * device's exp and the sampler's double differ they can part only when `random` lies within some 1e-6 of
 * a candidate's edge; none of the seeds here does. */
#include <math.h>

#include "dbt_test.h"
#include "op_harness.h"

#include "base/half.h"
#include "lm/sampler.h"
#include "ops/sample/sample.h"

enum { MAX_BATCH = 17, MAX_ROWS = 3, MAX_LOGITS = 160000 };

typedef struct sample_case {
    int64_t batch, rows, vocabulary;
    bool half;
    float *logits; /* [batch, rows, vocabulary] */
    dibit_sampling sampling[MAX_BATCH];
} sample_case;

static int64_t reference(const sample_case *c, int64_t b, float *random) {
    const uint32_t n = (uint32_t)c->vocabulary;
    float *const logits = malloc(n * sizeof *logits);
    dbt_choice *const choices = malloc(n * sizeof *choices);
    memcpy(logits, c->logits + (b * c->rows + c->rows - 1) * n, n * sizeof *logits);
    const double drawn = dbt_sampler_random(c->sampling[b].seed, 0);
    const dbt_sampler sampler = {&c->sampling[b], drawn, NULL, choices};
    *random = (float)drawn;
    uint32_t token;
    const bool found = dbt_sample(&sampler, logits, n, &token);
    free(logits);
    free(choices);
    return found ? (int64_t)token : -1;
}

static void check(const sample_case *c) {
    float settings[MAX_BATCH][DBT_SAMPLE_SETTINGS];
    int64_t want[MAX_BATCH];
    for (int64_t b = 0; b < c->batch; b++) {
        const dibit_sampling *const s = &c->sampling[b];
        float random;
        want[b] = reference(c, b, &random);
        const float row[] = {s->temperature, (float)s->top_k, s->top_p, s->min_p, random};
        memcpy(settings[b], row, sizeof row);
    }
    const int64_t n = c->batch * c->rows * c->vocabulary;
    uint16_t *const halves = malloc((size_t)n * sizeof *halves);
    for (int64_t i = 0; i < n; i++) halves[i] = dbt_float_to_half(c->logits[i]);
    const dibit_tensor in[2] = {
        {.name = "logits",
         .type = c->half ? DIBIT_TYPE_FLOAT16 : DIBIT_TYPE_FLOAT,
         .rank = 3,
         .dims = {c->batch, c->rows, c->vocabulary},
         .data = c->half ? (void *)halves : c->logits},
        DBT_TENSOR(DIBIT_TYPE_FLOAT, settings, c->batch, DBT_SAMPLE_SETTINGS)};
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_INT64, want, c->batch, 1);
    dbt_op_case_expect(
        &(dbt_op_case){
            .domain = "dibit", .name = "Sample", .opset = 1, .inputs = in, .n_inputs = 2},
        0, &out);
    free(halves);
}

static sample_case make_case(int64_t batch, int64_t rows, int64_t vocabulary, uint64_t *seed) {
    sample_case c = {.batch = batch, .rows = rows, .vocabulary = vocabulary};
    const int64_t n = batch * rows * vocabulary;
    c.logits = malloc((size_t)n * sizeof(float));
    assert_non_null(c.logits);
    for (int64_t i = 0; i < n; i++) c.logits[i] = dbt_test_uniform(seed, -8, 8);
    for (int64_t b = 0; b < batch; b++) c.sampling[b].seed = dbt_test_random(seed);
    return c;
}

static const int64_t sizes[] = {1, 5, 64, 1023, 1024, 1025, 16385, 70000};

static void test_the_likeliest(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sample_case c = make_case(2, 1 + (int64_t)i % MAX_ROWS, sizes[i], &seed);
        check(&c);
        /* Equal ones, and the largest at the end. */
        for (int64_t k = 0; k < c.rows * c.vocabulary; k++) c.logits[k] = -1;
        c.logits[2 * c.rows * c.vocabulary - 1] = 20;
        check(&c);
        free(c.logits);
    }
}

static void test_draws(void **state) {
    (void)state;
    static const dibit_sampling settings[] = {
        {.temperature = 0.7f, .top_k = 50},
        {.temperature = 1, .top_k = 64, .top_p = 0.9f},
        {.temperature = 2, .top_k = 20, .min_p = 0.3f},
        {.temperature = 0.2f, .top_k = 1},
        {.temperature = 1.5f, .top_k = 40, .top_p = 0.5f, .min_p = 0.05f},
        {.temperature = 0, .top_k = 7},
    };
    uint64_t seed = 2;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sample_case c = make_case(i % 2 ? 1 : 6, 1 + (int64_t)i % MAX_ROWS, sizes[i], &seed);
        for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
            for (int64_t b = 0; b < c.batch; b++) {
                const uint64_t own = c.sampling[b].seed;
                c.sampling[b] = settings[(k + (size_t)b) % (sizeof settings / sizeof *settings)];
                c.sampling[b].seed = own + 1;
            }
            check(&c);
        }
        free(c.logits);
    }
}

/* More rows than one dispatch draws. */
static void test_wide_batches(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int64_t batch = 7; batch <= MAX_BATCH; batch += 5) {
        sample_case c = make_case(batch, 2, 1500, &seed);
        check(&c);
        for (int64_t b = 0; b < batch; b++) {
            c.sampling[b].temperature = b % 3 ? 0.8f : 0;
            c.sampling[b].top_k = 1 + (uint32_t)b * 3;
        }
        check(&c);
        free(c.logits);
    }
}

static void test_odd_logits(void **state) {
    (void)state;
    uint64_t seed = 4;
    sample_case c = make_case(5, 1, 1100, &seed);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < 1100; i++) {
            c.logits[i] = i == 700 ? 0.0f : -0.0f; /* equal: the first */
            c.logits[1100 + i] = NAN;              /* none */
            c.logits[2200 + i] = i == 1050 ? -1e30f : -INFINITY;
            c.logits[3300 + i] = i == 9 || i == 1001 ? INFINITY : i % 2 ? NAN : 3;
            c.logits[4400 + i] = i < 1098 ? -INFINITY : (float)i; /* fewer than top_k */
        }
        check(&c);
        for (int64_t b = 0; b < c.batch; b++) {
            c.sampling[b].temperature = 0.5f;
            c.sampling[b].top_k = b == 0 ? 1 : 30;
        }
    }
    free(c.logits);
}

/* Their rounded values compare, ties and all: float logits between two halves. */
static void test_halves(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sample_case c = make_case(3, 1, sizes[i], &seed);
        c.half = true;
        for (int64_t k = 0; k < 3 * sizes[i]; k++)
            c.logits[k] = dbt_half_to_float(dbt_float_to_half(c.logits[k]));
        check(&c);
        c.sampling[1].temperature = 1;
        c.sampling[1].top_k = 33;
        check(&c);
        for (int64_t k = 0; k < 3 * sizes[i]; k++) c.logits[k] *= k % 2 ? -0x1p-20f : 0x1p-21f;
        for (int64_t k = 0; k < 3 * sizes[i]; k++)
            c.logits[k] = dbt_half_to_float(dbt_float_to_half(c.logits[k])); /* subnormal */
        check(&c);
        free(c.logits);
    }
}

static void test_bad_settings_are_refused(void **state) {
    (void)state;
    const float logits[4] = {0};
    static const float bad[][DBT_SAMPLE_SETTINGS] = {
        {-1, 1, 0, 0, 0}, {1, 0, 0, 0, 0},  {1, 65, 0, 0, 0},   {NAN, 1, 0, 0, 0},
        {1, 1, 2, 0, 0},  {1, 1, 0, -1, 0}, {1, 1, 0, 0, 1.5f},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const dibit_tensor in[2] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, logits, 1, 1, 4),
                                    DBT_TENSOR(DIBIT_TYPE_FLOAT, bad[i], 1, DBT_SAMPLE_SETTINGS)};
        const dbt_op_case c = {
            .domain = "dibit", .name = "Sample", .opset = 1, .inputs = in, .n_inputs = 2};
        dbt_op_case_refused(&c, DIBIT_BAD_ARGUMENT, "is not");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_likeliest), cmocka_unit_test(test_draws),
        cmocka_unit_test(test_wide_batches),  cmocka_unit_test(test_odd_logits),
        cmocka_unit_test(test_halves),        cmocka_unit_test(test_bad_settings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* base/math.h: every function within 2 ulp of double's over the floats' whole range. */
#include "dbt_test.h"

#include "base/math.h"

/* |got - want| in units of want's last place. */
static double ulps(float got, double want) {
    if (got != got || want != want) return got != got && want != want ? 0 : INFINITY;
    const float nearest = (float)want;
    if (got == nearest) return 0;
    if (isinf(nearest) || isinf(got)) return INFINITY;
    const float a = fabsf(nearest);
    const double ulp = a < 0x1p-126f ? 0x1p-149 : (double)(nextafterf(a, INFINITY) - a);
    return fabs((double)got - want) / ulp;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void check(const char *name, float (*f)(float), double (*reference)(double), double limit) {
    double worst = 0;
    float where = 0;
    /* Every 997th float: a prime, so that all exponents and mantissas are met. */
    for (uint64_t bits = 0; bits < 0x100000000u; bits += 997) {
        const float x = dbt_bits_to_float((uint32_t)bits);
        const double e = ulps(f(x), reference((double)x));
        if (e > worst) {
            worst = e;
            where = x;
        }
    }
    if (worst > limit) fail_msg("%s(%.9g) is %.2f ulp off", name, (double)where, worst);
}

static void test_exp(void **state) {
    (void)state;
    check("exp", dbt_expf, exp, 2);
}
static void test_tanh(void **state) {
    (void)state;
    check("tanh", dbt_tanhf, tanh, 2);
}
static void test_erf(void **state) {
    (void)state;
    check("erf", dbt_erff, erf, 2);
}
static void test_sigmoid(void **state) {
    (void)state;
    check("sigmoid", dbt_sigmoidf, sigmoid, 3);
}

static void test_sum_and_max_of_every_length(void **state) {
    (void)state;
    float x[70];
    for (int n = 1; n <= 70; n++) {
        for (int at = 0; at < n; at++) {
            for (int i = 0; i < n; i++) x[i] = (float)(i == at ? 3 : -i % 5);
            float sum = 0;
            for (int i = 0; i < n; i++) sum += x[i];
            assert_true(dbt_sum(x, n) == sum);
            assert_true(dbt_max(x, n) == 3);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_tanh),
        cmocka_unit_test(test_erf),
        cmocka_unit_test(test_sigmoid),
        cmocka_unit_test(test_sum_and_max_of_every_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

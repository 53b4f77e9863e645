/* Includes cmocka as it wants to be included. Every test file starts with this. */
#ifndef DBT_TESTS_DBT_TEST_H
#define DBT_TESTS_DBT_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* xorshift64*: the same numbers everywhere for the same seed. */
static inline uint64_t dbt_test_random(uint64_t *state) {
    uint64_t x = *state ? *state : 0x9e3779b97f4a7c15u;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}
/* Uniform in [lo, hi). */
static inline float dbt_test_uniform(uint64_t *state, float lo, float hi) {
    return lo + (hi - lo) * ((float)(dbt_test_random(state) >> 40) * 0x1p-24f);
}

#endif

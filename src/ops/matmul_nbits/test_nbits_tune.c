/* dibit_cpu_tune: what it refuses, what it makes the choice, and that it comes too late after a choice. */
#include "dbt_test.h"

#include "dibit/dibit.h"
#include "ops/matmul_nbits/matmul_nbits.h"

static void refused(const char *text, dibit_status status, const char *sentence) {
    dibit_error error;
    assert_int_equal(dibit_cpu_tune(text, &error), status);
    assert_string_equal(error.text, sentence);
}

static const char *choice(uint32_t bits, bool int8, int64_t M, uint64_t isa) {
    const dbt_matmul_nbits p = {.M = M,
                                .N = 64,
                                .K = 64,
                                .k_blocks = 2,
                                .block_size = 32,
                                .bits = bits,
                                .int8_activations = int8,
                                .scale_type = DIBIT_TYPE_FLOAT};
    return dbt_nbits_choose(&p, isa)->name;
}

/* The choice is for good, so all of it is one test in a program of its own. */
static void tuning(void **state) {
    (void)state;
    static const char begin[] = "it must begin with the line 'dibit tune 1'";
    refused(NULL, DIBIT_BAD_ARGUMENT, "text must not be NULL");
    refused("", DIBIT_BAD_FILE, begin);
    refused("dibit tune 2\n", DIBIT_BAD_FILE, begin);
    static const char form[] =
        "line 2 must be bits (1 to 8), int8 or float, the first M and a kernel's name";
    refused("dibit tune 1\n9 int8 1 default\n", DIBIT_BAD_FILE, form);
    refused("dibit tune 1\n2 int4 1 default\n", DIBIT_BAD_FILE, form);
    refused("dibit tune 1\n2 int8 0 default\n", DIBIT_BAD_FILE, form);
    refused("dibit tune 1\n2 int8 1\n", DIBIT_BAD_FILE, form);
    refused("dibit tune 1\n2 int8 1 default default\n", DIBIT_BAD_FILE, form);
    refused("dibit tune 1\n\n2 int8 1 none\n", DIBIT_BAD_FILE, "line 3: there is no kernel 'none'");
    refused("dibit tune 1\n2 float 1 dbt_nbits_b2_int8_portable\n", DIBIT_BAD_FILE,
            "line 2: 'dbt_nbits_b2_int8_portable' is for 2 bits and int8 activations");
    refused("dibit tune 1\n3 int8 1 dbt_nbits_b2_int8_portable\n", DIBIT_BAD_FILE,
            "line 2: 'dbt_nbits_b2_int8_portable' is for 2 bits and int8 activations");
    refused("dibit tune 1\n2 int8 1 default\n2 int8 1 default\n", DIBIT_BAD_FILE,
            "line 3 says again what a line before it says");
    char line[300] = "dibit tune 1\n";
    memset(line + strlen(line), 'x', 250);
    refused(line, DIBIT_BAD_FILE, "line 2 is too long");
    char many[6000] = "dibit tune 1\n";
    for (int i = 1; i <= 257; i++) snprintf(many + strlen(many), 32, "2 int8 %d default\n", i);
    refused(many, DIBIT_TOO_LARGE, "there are more than 256 lines");

    dibit_error error;
    assert_int_equal(dibit_cpu_tune("dibit tune 1 # of a test\n"
                                    "2 int8 16 default\n"
                                    "2 int8 4 dbt_nbits_b2_int8_portable\r\n"
                                    "# 4 int8 1 dbt_nbits_b4_int8_portable\n"
                                    "4 float 1 dbt_nbits_b4_float_portable",
                                    &error),
                     DIBIT_BAD_FILE); /* nothing may follow the first line's words */
    assert_int_equal(dibit_cpu_tune("dibit tune 1\n"
                                    "2 int8 16 default\n"
                                    "2 int8 4 dbt_nbits_b2_int8_portable\r\n"
                                    "# 4 int8 1 dbt_nbits_b4_int8_portable\n"
                                    "4 float 1 dbt_nbits_b4_float_portable",
                                    &error),
                     DIBIT_OK);
    const uint64_t isa = dibit_cpu_isa();
    assert_string_equal(choice(2, true, 4, isa), "dbt_nbits_b2_int8_portable");
    assert_string_equal(choice(2, true, 15, isa), "dbt_nbits_b2_int8_portable");
    assert_string_equal(choice(4, false, 1, isa), "dbt_nbits_b4_float_portable");
    assert_string_equal(choice(4, false, 999, isa), "dbt_nbits_b4_float_portable");
    assert_string_equal(choice(2, true, 16, 0), "dbt_nbits_b2_int8_portable");
    if (isa & (DIBIT_ISA_AVX2 | DIBIT_ISA_WASM_SIMD)) { /* where the list has better ones */
        assert_string_not_equal(choice(2, true, 3, isa), "dbt_nbits_b2_int8_portable");
        assert_string_not_equal(choice(2, true, 16, isa), "dbt_nbits_b2_int8_portable");
        assert_string_not_equal(choice(4, true, 1, isa), "dbt_nbits_b4_int8_portable");
        assert_string_not_equal(choice(2, false, 4, isa), "dbt_nbits_b2_float_portable");
    }
    refused("dibit tune 1\n", DIBIT_BAD_STATE,
            "kernels have been chosen already: tune before the first session is made");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tuning)};
    return cmocka_run_group_tests_name("nbits_tune", tests, NULL, NULL);
}

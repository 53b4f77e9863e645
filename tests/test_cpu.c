/* The CPU's features: what a mask leaves of them, and when Linux is asked for AMX's tiles. */
#define _GNU_SOURCE
#include "dbt_test.h"

#include "base/compiler.h"
#include "base/cpu.h"
#include "base/os.h"

#if defined(__linux__) && DBT_X86_64
#include <sys/syscall.h>
#include <unistd.h>

/* Whether the process may use tiles; nobody is asked for them. */
static bool has_leave(void) {
    enum { ARCH_GET_XCOMP_PERM = 0x1022, XFEATURE_XTILEDATA = 18 };
    unsigned long features = 0;
    return syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &features) == 0 &&
           (features >> XFEATURE_XTILEDATA & 1);
}

/* What Linux says of the CPU. */
static bool cpu_has(const char *flag) {
    char line[8192];
    bool has = false;
    FILE *const file = fopen("/proc/cpuinfo", "r");
    while (file && !has && fgets(line, sizeof line, file))
        has = strncmp(line, "flags", 5) == 0 && strstr(line, flag);
    if (file) fclose(file);
    return has;
}
#endif

/* Before all others: the process has asked for nothing yet. */
static void test_tiles_are_asked_for_where_the_mask_has_them(void **state) {
    (void)state;
#if defined(__linux__) && DBT_X86_64
    if (!cpu_has(" amx_int8")) {
        printf("skipped: this CPU has no AMX\n");
        assert_int_equal(dbt_cpu_isa(0) & DIBIT_ISA_AMX_INT8, 0);
        return;
    }
    if (!has_leave()) { /* nor was it inherited */
        assert_int_equal(dbt_cpu_isa(DIBIT_ISA_AVX2 | DIBIT_ISA_AVX512) & DIBIT_ISA_AMX_INT8, 0);
        assert_int_equal(dbt_cpu_isa(DIBIT_ISA_PORTABLE), 0);
        assert_false(has_leave());
    }
    const bool detected = dbt_cpu_isa(DIBIT_ISA_AMX_INT8) == DIBIT_ISA_AMX_INT8;
    assert_int_equal(detected, has_leave());
    assert_int_equal(detected, dbt_os_allow_tiles()); /* again, which is not refused */
#else
    assert_int_equal(dbt_cpu_isa(0) & DIBIT_ISA_AMX_INT8, 0);
#endif
}

static void test_a_mask_takes_features_away(void **state) {
    (void)state;
    const uint64_t all = dibit_cpu_isa();
    assert_true(dbt_cpu_isa(0) == all);
    assert_true(dbt_cpu_isa(DIBIT_ISA_PORTABLE) == 0);
    for (int i = 0; i < 63; i++) {
        const uint64_t bit = 1ull << i;
        assert_true(dbt_cpu_isa(bit) == (all & bit));
        assert_true(dbt_cpu_isa(~bit) == (all & ~bit));
    }
}

static void test_features_have_names(void **state) {
    (void)state;
    char text[128];
    dbt_cpu_isa_text(0, text);
    assert_string_equal(text, "portable");
    dbt_cpu_isa_text(DIBIT_ISA_AVX2 | DIBIT_ISA_AMX_INT8, text);
    assert_string_equal(text, "avx2 amx-int8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiles_are_asked_for_where_the_mask_has_them),
        cmocka_unit_test(test_a_mask_takes_features_away),
        cmocka_unit_test(test_features_have_names),
    };
    return cmocka_run_group_tests_name("cpu", tests, NULL, NULL);
}

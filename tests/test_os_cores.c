/* How many threads a machine is worth: trees of /sys and /proc as Linux shows them on machines of several kinds. */
#define _GNU_SOURCE
#include "dbt_test.h"

#include <sys/stat.h>

#include "base/os.h"

enum { MOST = 256 };

typedef struct file {
    const char *path, *text;
} file;

static char root[64];

static void write_file(const char *path, const char *text) {
    char whole[512];
    snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (char *c = whole + strlen(root) + 1; (c = strchr(c, '/')) != NULL; c++) {
        *c = '\0';
        (void)mkdir(whole, 0700);
        *c = '/';
    }
    FILE *const f = fopen(whole, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void write_cpu(unsigned cpu, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%u/%s", cpu, name);
    write_file(path, text);
}

static int make_root(void **state) {
    (void)state;
    strcpy(root, "/tmp/dibit-cores-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

/* With the CPUs [begin, end) allowed. */
static uint32_t cores(uint32_t begin, uint32_t end) {
    bool allowed[MOST] = {false};
    for (uint32_t i = begin; i < end; i++) allowed[i] = true;
    return dbt_os_cores_under(root, allowed, MOST);
}

static void test_nothing_is_told(void **state) {
    (void)state;
    assert_int_equal(cores(0, 6), 6);
    assert_int_equal(cores(0, 0), 1);
}

/* 8 cores of 2 hardware threads: CPU i and i + 8 are one. */
static void test_hardware_threads(void **state) {
    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        char list[32];
        snprintf(list, sizeof list, "%u,%u\n", i % 8, i % 8 + 8);
        write_cpu(i, "topology/thread_siblings_list", list);
    }
    assert_int_equal(cores(0, 16), 8);
    assert_int_equal(cores(0, 8), 8);
    assert_int_equal(cores(8, 16), 8); /* the second threads alone */
    assert_int_equal(cores(6, 10), 4);
    assert_int_equal(cores(0, 9), 8);
}

/* 4 cores of 2 hardware threads beside each other, then 8 of one, as a hybrid of Intel's has them. */
static void test_ranges_of_siblings(void **state) {
    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        char list[32];
        snprintf(list, sizeof list, i < 8 ? "%u-%u\n" : "%u\n", i < 8 ? i & ~1u : i, i | 1);
        write_cpu(i, "topology/thread_siblings_list", list);
    }
    assert_int_equal(cores(0, 16), 12);
    for (unsigned i = 0; i < 16; i++) write_cpu(i, "cpu_capacity", i < 8 ? "1024\n" : "443\n");
    assert_int_equal(cores(0, 16), 4);
    assert_int_equal(cores(8, 16), 8); /* when there is nothing better */
    for (unsigned i = 8; i < 16; i++) write_cpu(i, "cpu_capacity", "512\n");
    assert_int_equal(cores(0, 16), 12);
}

static void test_quotas(void **state) {
    (void)state;
    write_file("proc/self/cgroup", "0::/user/job\n");
    write_file("sys/fs/cgroup/user/job/cpu.max", "max 100000\n");
    assert_int_equal(cores(0, 16), 16);
    write_file("sys/fs/cgroup/user/job/cpu.max", "350000 100000\n");
    assert_int_equal(cores(0, 16), 3);
    assert_int_equal(cores(0, 2), 2);
    write_file("sys/fs/cgroup/user/cpu.max", "50000 100000\n"); /* around it */
    assert_int_equal(cores(0, 16), 1);
    write_file("proc/self/cgroup", "0::/elsewhere/on/the/host\n"); /* seen from a container */
    assert_int_equal(cores(0, 16), 16);
    write_file("sys/fs/cgroup/cpu.max", "400000 100000\n");
    assert_int_equal(cores(0, 16), 4);
}

static void test_quotas_of_version_1(void **state) {
    (void)state;
    write_file("proc/self/cgroup", "9:name=systemd:/\n3:cpuset:/b\n2:cpu,cpuacct:/a\n0::/\n");
    write_file("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
    write_file("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    write_file("sys/fs/cgroup/cpu/b/cpu.cfs_quota_us", "100000\n");
    write_file("sys/fs/cgroup/cpu/b/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cores(0, 16), 16);
    write_file("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "600000\n");
    assert_int_equal(cores(0, 16), 6);
}

int main(void) {
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_root, remove_root)
    const struct CMUnitTest tests[] = {
        CASE(test_nothing_is_told), CASE(test_hardware_threads),    CASE(test_ranges_of_siblings),
        CASE(test_quotas),          CASE(test_quotas_of_version_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* How many threads are worth starting on Linux: a thread for each core that the process may use, not for each
 * hardware thread, since two of one core share what kernels are limited by; none on a core of less than half the
 * strength of the strongest, which the others would wait for; and not more than a control group's quota lets run
 * at once, because threads that wait for each other must not be stopped one by one. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/os.h"

/* The first line of a file. */
DBT_PRINTF(2, 3) static bool read_line(char line[256], const char *format, ...) {
    char path[1024];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(path, sizeof path, format, args);
    va_end(args);
    FILE *const file = n > 0 && n < (int)sizeof path ? fopen(path, "r") : NULL;
    const bool read = file && fgets(line, 256, file);
    if (file) fclose(file);
    return read;
}

/* ---- Cores ---- */

/* The first CPU of a list like "0,64" or "0-3,8" that is allowed; n_cpus: none. */
static uint32_t first_allowed(const char *list, const bool *allowed, uint32_t n_cpus) {
    while (*list >= '0' && *list <= '9') {
        char *behind;
        const unsigned long first = strtoul(list, &behind, 10);
        const unsigned long last = *behind == '-' ? strtoul(behind + 1, &behind, 10) : first;
        for (unsigned long i = first; i <= last && i < n_cpus; i++) {
            if (allowed[i]) return (uint32_t)i;
        }
        list = behind + (*behind == ',');
    }
    return n_cpus;
}

static long capacity_of(const char *root, uint32_t cpu) {
    char line[256];
    return read_line(line, "%s/sys/devices/system/cpu/cpu%u/cpu_capacity", root, (unsigned)cpu)
               ? atol(line)
               : 0;
}

static uint32_t count_cores(const char *root, const bool *allowed, uint32_t n_cpus) {
    uint32_t n = 0;
    long most = 0;
    for (uint32_t i = 0; i < n_cpus; i++) {
        const long capacity = allowed[i] ? capacity_of(root, i) : 0;
        most = capacity > most ? capacity : most;
        if (i == 0 && allowed[0] && capacity == 0) break; /* a system that does not tell */
    }
    for (uint32_t i = 0; i < n_cpus; i++) {
        char line[256];
        if (!allowed[i] || (most > 0 && 2 * capacity_of(root, i) < most)) continue;
        n += !read_line(line, "%s/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", root,
                        (unsigned)i) ||
             first_allowed(line, allowed, n_cpus) >= i;
    }
    return n;
}

/* ---- Quotas ---- */

#define NO_QUOTA 1e9

/* CPUs' worth of time that a control group has, by version 2 or 1. */
static double quota_of(const char *root, const char *group) {
    char line[256];
    double quota = -1, period = 0;
    if (read_line(line, "%s%s/cpu.max", root, group)) {
        if (sscanf(line, "%lf %lf", &quota, &period) != 2) return NO_QUOTA;
    } else if (read_line(line, "%s%s/cpu.cfs_quota_us", root, group)) {
        quota = atof(line);
        if (read_line(line, "%s%s/cpu.cfs_period_us", root, group)) period = atof(line);
    }
    return quota > 0 && period > 0 ? quota / period : NO_QUOTA;
}

/* The least of a group and those around it. In a container the group's path may be the host's: then the
 * topmost one is its own. */
static double least_quota(const char *root, const char *mount, const char *group) {
    char path[512];
    const int n = snprintf(path, sizeof path, "%s%s", mount, group);
    if (n < 0 || n >= (int)sizeof path) return NO_QUOTA;
    double least = NO_QUOTA;
    for (;;) {
        const double quota = quota_of(root, path);
        least = quota < least ? quota : least;
        char *const slash = strrchr(path, '/');
        if (strlen(path) <= strlen(mount)) return least;
        *slash = '\0';
    }
}

static double process_quota(const char *root) {
    char path[1024], line[512];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *const file = fopen(path, "r");
    double least = NO_QUOTA;
    while (file && fgets(line, sizeof line, file)) { /* "0::/group", "4:cpu,cpuacct:/group" */
        line[strcspn(line, "\n")] = '\0';
        char *const controllers = strchr(line, ':');
        char *const group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *group = '\0';
        const bool version2 = controllers[1] == '\0';
        const char *const behind = controllers + strlen(":cpu");
        if (!version2 && (strncmp(controllers, ":cpu", 4) != 0 || (*behind && *behind != ',')))
            continue;
        const double quota =
            least_quota(root, version2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu", group + 1);
        least = quota < least ? quota : least;
    }
    if (file) fclose(file);
    return least;
}

uint32_t dbt_os_cores_under(const char *root, const bool *allowed, uint32_t n_cpus) {
    const uint32_t cores = count_cores(root, allowed, n_cpus);
    const double quota = process_quota(root);
    const uint32_t n = quota < (double)cores ? (uint32_t)quota : cores;
    return n > 0 ? n : 1;
}

/* POSIX: files, clock, cores and threads. No other file of the engine includes a system header. */
#define _GNU_SOURCE
#include "base/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

dibit_status dbt_os_map(const char *path, const char *name, const uint8_t **data, uint64_t *bytes,
                        dibit_error *error) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    DBT_FAIL_IF(fd < 0, error, DIBIT_IO, "cannot open '%s': %s", name, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return dbt_fail(error, DIBIT_IO, "'%s' is not a regular file", name);
    }
    *bytes = (uint64_t)st.st_size;
    *data = NULL;
    if (st.st_size > 0) {
        void *const map = *bytes > SIZE_MAX
                              ? MAP_FAILED
                              : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            const int reason = errno;
            close(fd);
            return dbt_fail(error, DIBIT_IO, "cannot map '%s': %s", name, strerror(reason));
        }
        *data = map;
    }
    close(fd);
    return DIBIT_OK;
}

/* Bytes of a path up to and including its last '/'; 0 when it has none. */
static size_t folder_bytes(const char *path) {
    const char *const slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* path without links, `suffix` (a '/' or "") appended. */
static bool resolve(const char *path, const char *suffix, char out[PATH_MAX + 1]) {
    if (!realpath(path, out)) return false;
    if (strcmp(out, "/") != 0) strcat(out, suffix);
    return true;
}

dibit_status dbt_os_map_beside(const char *path, const char *location, const uint8_t **data,
                               uint64_t *bytes, dibit_error *error) {
    char joined[PATH_MAX], folder[PATH_MAX + 1], model[PATH_MAX + 1], file[PATH_MAX + 1];
    const size_t n = folder_bytes(path), m = strlen(location);
    DBT_FAIL_IF(n + m + 2 > sizeof joined, error, DIBIT_IO, "the path of '%.80s' is too long",
                location);
    memcpy(joined, n ? path : ".", n ? n : 1);
    joined[n ? n : 1] = 0;
    DBT_FAIL_IF(!resolve(joined, "/", folder) || !resolve(path, "", model), error, DIBIT_IO,
                "cannot open the folder of '%s': %s", path, strerror(errno));
    memcpy(joined + n, location, m + 1);
    DBT_FAIL_IF(!resolve(joined, "", file), error, DIBIT_IO, "cannot open '%.200s': %s", location,
                strerror(errno));
    DBT_FAIL_IF(strncmp(file, folder, strlen(folder)) != 0 &&
                    strncmp(file, model, folder_bytes(model)) != 0,
                error, DIBIT_BAD_FILE, "'%.200s' is a link that leads out of the model's folder",
                location);
    return dbt_os_map(file, location, data, bytes, error);
}

void dbt_os_unmap(const void *data, uint64_t bytes) {
    if (data) munmap((void *)(uintptr_t)data, (size_t)bytes);
}

uint32_t dbt_os_cores(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        bool allowed[CPU_SETSIZE];
        for (int i = 0; i < CPU_SETSIZE; i++) allowed[i] = CPU_ISSET(i, &set);
        return dbt_os_cores_under("", allowed, CPU_SETSIZE);
    }
#endif
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t)n : 1;
}

uint64_t dbt_os_memory(void) {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
}

uint64_t dbt_os_nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t dbt_os_hwcap(int word) {
#if defined(__linux__)
    return getauxval(word == 0 ? AT_HWCAP : AT_HWCAP2);
#elif defined(__APPLE__)
    /* The bits as Linux has them. */
    static const struct {
        const char *name;
        int word, bit;
    } features[] = {{"hw.optional.arm.FEAT_DotProd", 0, 20}, {"hw.optional.arm.FEAT_I8MM", 1, 13}};
    uint64_t bits = 0;
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        int has = 0;
        size_t size = sizeof has;
        if (features[i].word == word && sysctlbyname(features[i].name, &has, &size, NULL, 0) == 0 &&
            has)
            bits |= UINT64_C(1) << features[i].bit;
    }
    return bits;
#else
    return (void)word, 0;
#endif
}

bool dbt_os_allow_tiles(void) {
#if defined(__linux__) && defined(__x86_64__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 }; /* asm/prctl.h, from 5.16 on */
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

uint32_t dbt_os_max_threads(void) { return 256; }

struct dbt_os_thread {
    pthread_t id;
    dbt_os_main main;
    void *ctx;
};

size_t dbt_os_thread_bytes(void) { return sizeof(dbt_os_thread); }

static void *thread_main(void *arg) {
    dbt_os_thread *const thread = arg;
    thread->main(thread->ctx);
    return NULL;
}

bool dbt_os_thread_start(dbt_os_thread *thread, dbt_os_main main, void *ctx) {
    thread->main = main;
    thread->ctx = ctx;
    return pthread_create(&thread->id, NULL, thread_main, thread) == 0;
}

void dbt_os_thread_join(dbt_os_thread *thread) { pthread_join(thread->id, NULL); }
void dbt_os_yield(void) { sched_yield(); }
void dbt_os_nap(void) { nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL); }

struct dbt_os_sleep {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
};

size_t dbt_os_sleep_bytes(void) { return sizeof(dbt_os_sleep); }

bool dbt_os_sleep_init(dbt_os_sleep *sleep) {
    if (pthread_mutex_init(&sleep->mutex, NULL) != 0) return false;
    if (pthread_cond_init(&sleep->changed, NULL) == 0) return true;
    pthread_mutex_destroy(&sleep->mutex);
    return false;
}

void dbt_os_sleep_free(dbt_os_sleep *sleep) {
    pthread_cond_destroy(&sleep->changed);
    pthread_mutex_destroy(&sleep->mutex);
}

void dbt_os_sleep_wait(dbt_os_sleep *sleep, const _Atomic uint32_t *word, uint32_t seen) {
    pthread_mutex_lock(&sleep->mutex);
    while (atomic_load(word) == seen) pthread_cond_wait(&sleep->changed, &sleep->mutex);
    pthread_mutex_unlock(&sleep->mutex);
}

void dbt_os_sleep_wake(dbt_os_sleep *sleep) {
    pthread_mutex_lock(&sleep->mutex);
    pthread_cond_broadcast(&sleep->changed);
    pthread_mutex_unlock(&sleep->mutex);
}

/* ---- Libraries ---- */

dbt_os_library *dbt_os_library_open(const char *path, char *why, size_t n) {
    void *const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *const reason = dlerror();
        snprintf(why, n, "%s", reason ? reason : path);
    }
    return library;
}

dbt_os_function dbt_os_library_symbol(dbt_os_library *library, const char *name) {
    void *const symbol = dlsym(library, name);
    dbt_os_function function;
    memcpy(&function, &symbol, sizeof function); /* ISO C has no cast between the two */
    return function;
}

void dbt_os_library_close(dbt_os_library *library) { dlclose(library); }

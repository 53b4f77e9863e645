/* POSIX: files, clock, cores and threads. No other file of the engine includes a system header. */
#define _GNU_SOURCE
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

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

void dbt_os_unmap(const void *data, uint64_t bytes) {
    if (data) munmap((void *)(uintptr_t)data, (size_t)bytes);
}

void dbt_os_drop(const void *data, uint64_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)data + (uintptr_t)bytes) / page * page;
    if (end > begin) (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}

uint32_t dbt_os_cores(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        const int n = CPU_COUNT(&set);
        if (n > 0) return (uint32_t)n;
    }
#endif
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t)n : 1;
}

uint64_t dbt_os_nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

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

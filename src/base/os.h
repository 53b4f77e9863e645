/* The operating system: os_posix.c alone knows it. */
#ifndef DBT_BASE_OS_H
#define DBT_BASE_OS_H

#include <stdatomic.h>

#include "base/error.h"

/* Maps a whole regular file for reading. *data is NULL for an empty file. */
dibit_status dbt_os_map(const char *path, const char *name, const uint8_t **data, uint64_t *bytes,
                        dibit_error *error);
/* The same for `location`, a path from the folder in which the file `path` lies. Where links lead is
 * looked at: BAD_FILE unless it is in that folder, or in the one of the file that `path` links to. */
dibit_status dbt_os_map_beside(const char *path, const char *location, const uint8_t **data,
                               uint64_t *bytes, dibit_error *error);
void dbt_os_unmap(const void *data, uint64_t bytes);

/* How many threads are worth starting, at least 1: see os_cores.c. */
uint32_t dbt_os_cores(void);
/* The same with the CPUs [n_cpus] that are allowed, by what Linux shows under `root`/sys and `root`/proc. */
uint32_t dbt_os_cores_under(const char *root, const bool *allowed, uint32_t n_cpus);
uint64_t dbt_os_memory(void);      /* bytes of physical memory; UINT64_MAX when unknown */
uint64_t dbt_os_nanoseconds(void); /* monotonic */
/* Linux's capability words of the CPU (AT_HWCAP, AT_HWCAP2), of an Arm also on macOS; 0 elsewhere. */
uint64_t dbt_os_hwcap(int word);
/* Asks for AMX's tile registers, which Linux lends by process: all threads, those that run already and those to
 * come. False: there are none, or no leave. It may be asked again. */
bool dbt_os_allow_tiles(void);

/* A shared library, by path or by a name that the system looks up. NULL when there is none, with the
 * system's reason in why[n]. */
typedef struct dbt_os_library dbt_os_library;
typedef void (*dbt_os_function)(void);
dbt_os_library *dbt_os_library_open(const char *path, char *why, size_t n);
dbt_os_function dbt_os_library_symbol(dbt_os_library *library, const char *name); /* or NULL */
void dbt_os_library_close(dbt_os_library *library);

/* Threads, for the pool alone: the most that it may have, its caller included; 1 where there are none. */
uint32_t dbt_os_max_threads(void);
typedef struct dbt_os_thread dbt_os_thread;
typedef void (*dbt_os_main)(void *ctx);
/* The handle is allocated by the caller: dbt_os_thread_bytes() of it. */
size_t dbt_os_thread_bytes(void);
bool dbt_os_thread_start(dbt_os_thread *thread, dbt_os_main main, void *ctx);
void dbt_os_thread_join(dbt_os_thread *thread);
void dbt_os_yield(void);
/* Leaves the core to others for some 20 microseconds, with Linux's timer slack for 70; nothing in WebAssembly. */
void dbt_os_nap(void);

/* A place to sleep: wait returns when *word no longer has the value `seen` (or for no reason); wake
 * wakes all that wait. Change *word before wake. */
typedef struct dbt_os_sleep dbt_os_sleep;
size_t dbt_os_sleep_bytes(void);
bool dbt_os_sleep_init(dbt_os_sleep *sleep);
void dbt_os_sleep_free(dbt_os_sleep *sleep);
void dbt_os_sleep_wait(dbt_os_sleep *sleep, const _Atomic uint32_t *word, uint32_t seen);
void dbt_os_sleep_wake(dbt_os_sleep *sleep);

#endif

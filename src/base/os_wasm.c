/* WebAssembly: one thread, a clock, and as much memory as an address can name. Files are in
 * os_wasm_files.c, or there are none (os_wasm_no_files.c), and no libraries to open. */
#include "base/os.h"

#include <wasi/api.h>

uint32_t dbt_os_cores(void) { return 1; }
uint64_t dbt_os_memory(void) { return 1ull << 32; }

/* Node's and a page's clock alike: WASI's one function that the engine imports. */
uint64_t dbt_os_nanoseconds(void) {
    __wasi_timestamp_t now = 0;
    (void)__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 1000, &now);
    return now;
}

uint64_t dbt_os_hwcap(int word) { return (void)word, 0; }

/* ---- Threads: pools run on their caller alone ---- */

uint32_t dbt_os_max_threads(void) { return 1; }

struct dbt_os_thread {
    char none;
};
struct dbt_os_sleep {
    char none;
};

size_t dbt_os_thread_bytes(void) { return sizeof(dbt_os_thread); }
bool dbt_os_thread_start(dbt_os_thread *thread, dbt_os_main main, void *ctx) {
    return (void)thread, (void)main, (void)ctx, false;
}
void dbt_os_thread_join(dbt_os_thread *thread) { (void)thread; }
void dbt_os_yield(void) {}
void dbt_os_nap(void) {}

size_t dbt_os_sleep_bytes(void) { return sizeof(dbt_os_sleep); }
bool dbt_os_sleep_init(dbt_os_sleep *sleep) { return (void)sleep, true; }
void dbt_os_sleep_free(dbt_os_sleep *sleep) { (void)sleep; }
void dbt_os_sleep_wait(dbt_os_sleep *sleep, const _Atomic uint32_t *word, uint32_t seen) {
    (void)sleep, (void)word, (void)seen;
}
void dbt_os_sleep_wake(dbt_os_sleep *sleep) { (void)sleep; }

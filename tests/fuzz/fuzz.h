/* What fuzz targets share: an allocator with a cap that is a property under test, and files that
 * exist and are full of zeros. */
#ifndef DBT_TESTS_FUZZ_FUZZ_H
#define DBT_TESTS_FUZZ_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Ends the process with a sentence, so that the fuzzer keeps the input. */
static inline void fuzz_check(bool condition, const char *sentence) {
    if (condition) return;
    fprintf(stderr, "property broken: %s\n", sentence);
    abort();
}

typedef struct fuzz_memory {
    uint64_t live;
    uint64_t cap;          /* going beyond it is a bug; 0: none */
    uint64_t refuse_above; /* beyond it there is no memory; 0: none */
} fuzz_memory;

static inline void *fuzz_alloc(void *user, size_t bytes, size_t alignment) {
    fuzz_memory *const m = user;
    if (m->refuse_above && m->live + bytes > m->refuse_above) return NULL;
    fuzz_check(!m->cap || m->live + bytes <= m->cap, "memory stays in proportion to the input");
    m->live += bytes;
    return dbt_default_allocator.alloc(NULL, bytes, alignment);
}

static inline void fuzz_release(void *user, void *memory, size_t bytes) {
    ((fuzz_memory *)user)->live -= bytes;
    dbt_default_allocator.release(NULL, memory, bytes);
}

static inline dibit_allocator fuzz_allocator(fuzz_memory *m) {
    return (dibit_allocator){fuzz_alloc, fuzz_release, m};
}

static inline dibit_status fuzz_read_zeros(void *user, uint64_t offset, uint64_t bytes, void *dst,
                                           dibit_error *error) {
    (void)user, (void)offset, (void)error;
    memset(dst, 0, (size_t)bytes);
    return DIBIT_OK;
}

static inline dibit_status fuzz_open_zeros(void *user, const char *location, dibit_source *out,
                                           dibit_error *error) {
    (void)user, (void)location, (void)error;
    *out = (dibit_source){.size = 1 << 16, .read = fuzz_read_zeros};
    return DIBIT_OK;
}

#endif

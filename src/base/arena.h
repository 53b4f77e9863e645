/* Memory: the allocator behind everything, arenas for what lives as long as a model or a session,
 * and growable blocks for what is resized. */
#ifndef DBT_BASE_ARENA_H
#define DBT_BASE_ARENA_H

#include "base/error.h"

/* The default allocator (malloc). */
extern const dibit_allocator dbt_default_allocator;
/* desc may be NULL or have NULL functions: then the default. */
dibit_allocator dbt_allocator_or_default(const dibit_allocator *desc);

/* Both return NULL for failures and for sizes that do not fit size_t (wasm32's is 32 bits). */
void *dbt_alloc(const dibit_allocator *allocator, uint64_t bytes, size_t alignment);
void dbt_release(const dibit_allocator *allocator, void *memory, uint64_t bytes);

/* A bump allocator: nothing is freed before the arena is. Memory is zeroed. */
typedef struct dbt_arena_chunk dbt_arena_chunk;
typedef struct dbt_arena {
    dibit_allocator allocator;
    dbt_arena_chunk *chunks; /* newest first */
    uint64_t bytes;          /* reserved in all */
} dbt_arena;

void dbt_arena_init(dbt_arena *arena, const dibit_allocator *allocator);
void dbt_arena_free(dbt_arena *arena);
/* Keeps the largest chunk and empties it: a warm scratch arena allocates nothing. */
void dbt_arena_reset(dbt_arena *arena);
/* Zeroed memory aligned to 16 bytes; NULL when there is none. bytes 0 gives a valid pointer. */
void *dbt_arena_alloc(dbt_arena *arena, uint64_t bytes);
void *dbt_arena_alloc_aligned(dbt_arena *arena, uint64_t bytes, size_t alignment);
/* count elements of `bytes` bytes; NULL also when the product overflows. */
void *dbt_arena_array(dbt_arena *arena, uint64_t count, uint64_t bytes);
/* A NUL-terminated copy of n bytes. */
char *dbt_arena_string(dbt_arena *arena, const char *s, size_t n);
char *dbt_arena_format(dbt_arena *arena, const char *format, ...) DBT_PRINTF(2, 3);

/* A block that is replaced by a larger one when it has to grow; its content is not kept. */
typedef struct dbt_block {
    void *data; /* aligned to 64 bytes */
    uint64_t bytes;
} dbt_block;

bool dbt_block_reserve(dbt_block *block, const dibit_allocator *allocator, uint64_t bytes);
void dbt_block_free(dbt_block *block, const dibit_allocator *allocator);

/* a * b and a + b, or false on overflow of uint64. */
static inline bool dbt_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    if (b != 0 && a > UINT64_MAX / b) return false;
    *out = a * b;
    return true;
}
static inline bool dbt_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    if (a > UINT64_MAX - b) return false;
    *out = a + b;
    return true;
}

#endif

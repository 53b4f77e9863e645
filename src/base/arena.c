/* The one file that calls malloc, and the arenas on top of it. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *default_alloc(void *user, size_t bytes, size_t alignment) {
    (void)user;
    if (alignment <= _Alignof(max_align_t)) return malloc(bytes ? bytes : 1);
    if (bytes > SIZE_MAX - alignment) return NULL;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void default_release(void *user, void *memory, size_t bytes) {
    (void)user;
    (void)bytes;
    free(memory);
}

const dibit_allocator dbt_default_allocator = {default_alloc, default_release, NULL};

dibit_allocator dbt_allocator_or_default(const dibit_allocator *desc) {
    return desc && desc->alloc && desc->release ? *desc : dbt_default_allocator;
}

void *dbt_alloc(const dibit_allocator *allocator, uint64_t bytes, size_t alignment) {
    if (bytes > SIZE_MAX / 2) return NULL;
    return allocator->alloc(allocator->user, (size_t)(bytes ? bytes : 1), alignment);
}

void dbt_release(const dibit_allocator *allocator, void *memory, uint64_t bytes) {
    if (memory) allocator->release(allocator->user, memory, (size_t)(bytes ? bytes : 1));
}

/* ---- Arena: chunks in a list, each a header followed by its bytes ---- */

struct dbt_arena_chunk {
    dbt_arena_chunk *next;
    size_t used, bytes; /* of data[] */
    _Alignas(max_align_t) unsigned char data[];
};

/* 1: every allocation is a chunk of its own, so that a sanitizer sees the smallest overrun. */
#ifndef DBT_ARENA_EXACT
#define DBT_ARENA_EXACT 0
#endif
enum { FIRST_CHUNK = DBT_ARENA_EXACT ? 0 : 4096, LARGEST_CHUNK = DBT_ARENA_EXACT ? 0 : 1 << 20 };

void dbt_arena_init(dbt_arena *arena, const dibit_allocator *allocator) {
    *arena = (dbt_arena){.allocator = dbt_allocator_or_default(allocator)};
}

static void release_chunk(dbt_arena *arena, dbt_arena_chunk *chunk) {
    arena->bytes -= sizeof *chunk + chunk->bytes;
    dbt_release(&arena->allocator, chunk, sizeof *chunk + chunk->bytes);
}

void dbt_arena_free(dbt_arena *arena) {
    while (arena->chunks) {
        dbt_arena_chunk *const next = arena->chunks->next;
        release_chunk(arena, arena->chunks);
        arena->chunks = next;
    }
}

void dbt_arena_reset(dbt_arena *arena) {
    dbt_arena_chunk *largest = NULL;
    for (dbt_arena_chunk *c = arena->chunks; c;) {
        dbt_arena_chunk *const next = c->next;
        if (!largest || c->bytes > largest->bytes) {
            if (largest) release_chunk(arena, largest);
            largest = c;
        } else {
            release_chunk(arena, c);
        }
        c = next;
    }
    arena->chunks = largest;
    if (largest) {
        largest->next = NULL;
        largest->used = 0;
    }
}

void *dbt_arena_alloc_aligned(dbt_arena *arena, uint64_t bytes, size_t alignment) {
    if (bytes > SIZE_MAX / 4) return NULL;
    const size_t need = (size_t)bytes;
    dbt_arena_chunk *c = arena->chunks;
    if (c) {
        const uintptr_t at = (uintptr_t)c->data + c->used;
        const size_t pad = (size_t)(-at & (alignment - 1));
        if (c->bytes - c->used >= pad && c->bytes - c->used - pad >= need) {
            c->used += pad + need;
            return memset((unsigned char *)at + pad, 0, need);
        }
    }
    size_t chunk_bytes = c ? c->bytes * 2 : FIRST_CHUNK;
    if (chunk_bytes > LARGEST_CHUNK) chunk_bytes = LARGEST_CHUNK;
    const size_t slack = alignment > _Alignof(max_align_t) ? alignment : 0;
    if (chunk_bytes < need + slack) chunk_bytes = need + slack;
    dbt_arena_chunk *const fresh =
        dbt_alloc(&arena->allocator, sizeof *fresh + chunk_bytes, _Alignof(max_align_t));
    if (!fresh) return NULL;
    arena->bytes += sizeof *fresh + chunk_bytes;
    fresh->bytes = chunk_bytes;
    fresh->next = c;
    arena->chunks = fresh;
    const size_t pad = (size_t)(-(uintptr_t)fresh->data & (alignment - 1));
    fresh->used = pad + need;
    return memset(fresh->data + pad, 0, need);
}

void *dbt_arena_alloc(dbt_arena *arena, uint64_t bytes) {
    return dbt_arena_alloc_aligned(arena, bytes, 16);
}

void *dbt_arena_array(dbt_arena *arena, uint64_t count, uint64_t bytes) {
    uint64_t total;
    return dbt_mul_u64(count, bytes, &total) ? dbt_arena_alloc(arena, total) : NULL;
}

char *dbt_arena_string(dbt_arena *arena, const char *s, size_t n) {
    char *const copy = dbt_arena_alloc_aligned(arena, (uint64_t)n + 1, 1);
    if (copy && n) memcpy(copy, s, n);
    return copy;
}

char *dbt_arena_format(dbt_arena *arena, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *const text = n < 0 ? NULL : dbt_arena_alloc_aligned(arena, (uint64_t)n + 1, 1);
    if (!text) return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

bool dbt_block_reserve(dbt_block *block, const dibit_allocator *allocator, uint64_t bytes) {
    if (block->bytes >= bytes) return true;
    void *const fresh = dbt_alloc(allocator, bytes, 64);
    if (!fresh) return false;
    dbt_release(allocator, block->data, block->bytes);
    *block = (dbt_block){fresh, bytes};
    return true;
}

void dbt_block_free(dbt_block *block, const dibit_allocator *allocator) {
    dbt_release(allocator, block->data, block->bytes);
    *block = (dbt_block){0};
}

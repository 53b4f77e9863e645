/* See gpu_cache.h. Two hash tables with chains: pipelines by shader, parameters and what is bound, groups by
 * pipeline and buffers. A hit costs a hash and a comparison. */
#include "gpu/gpu_cache.h"

#include <string.h>

enum {
    FIRST_BUCKETS = 256,
    MAX_GROUPS =
        16384 /* more than any session uses: the offsets of its bindings never come again */
};

typedef dbt_gpu_entry entry;
typedef dbt_gpu_table table;

/* What hash tables chain; the key follows in the structs that begin with it. */
struct dbt_gpu_entry {
    entry *next;
    uint64_t hash;
};

typedef struct pipeline {
    entry base;
    dbt_hal_pipeline *hal;
    const char *shader;
    uint32_t bindings, written, uniform_bytes, n_params;
    dbt_shader_param params[];
} pipeline;

typedef struct group {
    entry base;
    dbt_hal_group *hal;
    const pipeline *pipeline;
    uint32_t n_bindings;
    dbt_hal_binding bindings[]; /* absent ones are zero */
} group;

/* ---- Tables ---- */

static uint64_t mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}
static uint64_t mix_pointer(uint64_t hash, const void *p) { return mix(hash, (uintptr_t)p); }

static entry **bucket(const table *t, uint64_t hash) {
    return &t->buckets[hash & (t->n_buckets - 1)];
}

static uint64_t buckets_bytes(const table *t) {
    return (uint64_t)t->n_buckets * sizeof *t->buckets;
}

static bool resize(const dibit_allocator *allocator, table *t, uint32_t n_buckets) {
    table bigger = {.n_buckets = n_buckets, .n = t->n};
    bigger.buckets = dbt_alloc(allocator, buckets_bytes(&bigger), sizeof *bigger.buckets);
    if (!bigger.buckets) return false;
    memset(bigger.buckets, 0, (size_t)buckets_bytes(&bigger));
    for (uint32_t i = 0; i < t->n_buckets; i++) {
        for (entry *e = t->buckets[i], *next; e; e = next) {
            next = e->next;
            entry **const to = bucket(&bigger, e->hash);
            e->next = *to;
            *to = e;
        }
    }
    if (t->buckets) dbt_release(allocator, t->buckets, buckets_bytes(t));
    *t = bigger;
    return true;
}

static void insert(const dibit_allocator *allocator, table *t, entry *e) {
    /* Without memory for more buckets, chains grow longer. */
    if (t->n >= t->n_buckets) (void)resize(allocator, t, t->n_buckets * 2);
    entry **const to = bucket(t, e->hash);
    e->next = *to;
    *to = e;
    t->n++;
}

/* ---- Pipelines ---- */

static uint64_t pipeline_bytes(uint32_t n_params) {
    return sizeof(pipeline) + n_params * sizeof(dbt_shader_param);
}

static uint32_t present_bindings(const dbt_gpu_dispatch *d) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < d->n_bindings; i++)
        bits |= (uint32_t)(d->bindings[i].buffer != NULL) << i;
    return bits;
}

static uint64_t hash_pipeline(const dbt_gpu_dispatch *d, uint32_t bindings) {
    uint64_t hash = mix_pointer(0, d->shader);
    hash = mix(hash, (uint64_t)bindings << 32 | d->written);
    hash = mix(hash, d->uniform_bytes);
    for (uint32_t i = 0; i < d->n_params; i++) {
        hash = mix_pointer(hash, d->params[i].name);
        hash = mix(hash, (uint32_t)d->params[i].value);
    }
    return hash;
}

static bool is_pipeline_of(const pipeline *p, const dbt_gpu_dispatch *d, uint32_t bindings) {
    if (p->shader != d->shader || p->bindings != bindings || p->written != d->written ||
        p->uniform_bytes != d->uniform_bytes || p->n_params != d->n_params) {
        return false;
    }
    for (uint32_t i = 0; i < d->n_params; i++) {
        if (p->params[i].name != d->params[i].name || p->params[i].value != d->params[i].value)
            return false;
    }
    return true;
}

static dibit_status compile(dbt_gpu_cache *cache, pipeline *p, dibit_error *error) {
    const dbt_shader_variant variant = {p->shader, p->params, p->n_params, cache->hal->features};
    dbt_arena arena;
    dbt_arena_init(&arena, &cache->allocator);
    dbt_shader_text text;
    dibit_status status = dbt_shader_expand(cache->shaders, &variant, &arena, &text, error);
    if (status == DIBIT_OK) {
        const dbt_hal_pipeline_desc desc = {.name = p->shader,
                                            .wgsl = text.wgsl,
                                            .wgsl_bytes = text.bytes,
                                            .bindings = p->bindings,
                                            .written = p->written,
                                            .uniform_bytes = p->uniform_bytes};
        status = cache->hal->calls->pipeline_create(cache->hal, &desc, &p->hal, error);
    }
    dbt_arena_free(&arena);
    return status;
}

static dibit_status make_pipeline(dbt_gpu_cache *cache, const dbt_gpu_dispatch *d,
                                  uint32_t bindings, uint64_t hash, const pipeline **out,
                                  dibit_error *error) {
    const uint64_t bytes = pipeline_bytes(d->n_params);
    pipeline *const p = dbt_alloc(&cache->allocator, bytes, sizeof(void *));
    if (!p) return dbt_fail_memory(error, d->shader, bytes);
    *p = (pipeline){.base.hash = hash,
                    .shader = d->shader,
                    .bindings = bindings,
                    .written = d->written,
                    .uniform_bytes = d->uniform_bytes,
                    .n_params = d->n_params};
    if (d->n_params) memcpy(p->params, d->params, d->n_params * sizeof *d->params);
    const dibit_status status = compile(cache, p, error);
    if (status != DIBIT_OK) {
        dbt_release(&cache->allocator, p, bytes);
        return status;
    }
    insert(&cache->allocator, &cache->pipelines, &p->base);
    *out = p;
    return DIBIT_OK;
}

static dibit_status check_bindings(const dbt_gpu_cache *cache, const dbt_gpu_dispatch *d,
                                   uint32_t bindings, dibit_error *error) {
    uint32_t n = 0;
    for (uint32_t bits = bindings; bits; bits >>= 1) n += bits & 1;
    DBT_FAIL_IF(n > cache->hal->limits.max_bindings, error, DIBIT_TOO_LARGE,
                "%s binds %u buffers, the device allows %u", d->shader, (unsigned)n,
                (unsigned)cache->hal->limits.max_bindings);
    DBT_FAIL_IF(d->written & ~bindings, error, DIBIT_BAD_ARGUMENT,
                "%s writes a binding that is not there", d->shader);
    DBT_FAIL_IF(d->uniform_bytes > DBT_HAL_MAX_UNIFORM_BYTES, error, DIBIT_BAD_ARGUMENT,
                "%s has %u bytes of uniforms, %d are allowed", d->shader,
                (unsigned)d->uniform_bytes, DBT_HAL_MAX_UNIFORM_BYTES);
    return DIBIT_OK;
}

static dibit_status find_pipeline(dbt_gpu_cache *cache, const dbt_gpu_dispatch *d,
                                  const pipeline **out, dibit_error *error) {
    DBT_FAIL_IF(d->n_bindings > DBT_HAL_MAX_BINDINGS, error, DIBIT_BAD_ARGUMENT,
                "%s has %u bindings, %d are allowed", d->shader, (unsigned)d->n_bindings,
                DBT_HAL_MAX_BINDINGS);
    const uint32_t bindings = present_bindings(d);
    const uint64_t hash = hash_pipeline(d, bindings);
    for (entry *e = *bucket(&cache->pipelines, hash); e; e = e->next) {
        const pipeline *const p = (const pipeline *)e;
        if (e->hash == hash && is_pipeline_of(p, d, bindings)) {
            *out = p;
            return DIBIT_OK;
        }
    }
    DBT_TRY(check_bindings(cache, d, bindings, error));
    return make_pipeline(cache, d, bindings, hash, out, error);
}

/* ---- Groups ---- */

static uint64_t group_bytes(uint32_t n_bindings) {
    return sizeof(group) + n_bindings * sizeof(dbt_hal_binding);
}

static uint64_t hash_group(const pipeline *p, const dbt_gpu_dispatch *d) {
    uint64_t hash = mix_pointer(0, p);
    for (uint32_t i = 0; i < d->n_bindings; i++) {
        const dbt_hal_binding *const b = &d->bindings[i];
        hash = mix_pointer(hash, b->buffer);
        if (b->buffer) hash = mix(hash, b->offset ^ b->bytes << 32);
    }
    return hash;
}

static bool is_group_of(const group *g, const pipeline *p, const dbt_gpu_dispatch *d) {
    if (g->pipeline != p || g->n_bindings != d->n_bindings) return false;
    for (uint32_t i = 0; i < d->n_bindings; i++) {
        const dbt_hal_binding *const a = &g->bindings[i], *const b = &d->bindings[i];
        if (a->buffer != b->buffer) return false;
        if (b->buffer && (a->offset != b->offset || a->bytes != b->bytes)) return false;
    }
    return true;
}

void dbt_gpu_cache_forget(dbt_gpu_cache *cache, const dbt_hal_buffer *buffer) {
    for (uint32_t i = 0; i < cache->groups.n_buckets; i++) {
        entry **link = &cache->groups.buckets[i];
        while (*link) {
            group *const g = (group *)*link;
            uint32_t k = 0;
            while (buffer && k < g->n_bindings && g->bindings[k].buffer != buffer) k++;
            if (k == g->n_bindings && buffer) {
                link = &(*link)->next;
                continue;
            }
            *link = g->base.next;
            cache->hal->calls->group_destroy(cache->hal, g->hal);
            dbt_release(&cache->allocator, g, group_bytes(g->n_bindings));
            cache->groups.n--;
        }
    }
}

static dibit_status make_group(dbt_gpu_cache *cache, const pipeline *p, const dbt_gpu_dispatch *d,
                               uint64_t hash, const group **out, dibit_error *error) {
    if (cache->groups.n == MAX_GROUPS) dbt_gpu_cache_forget(cache, NULL);
    const uint64_t bytes = group_bytes(d->n_bindings);
    group *const g = dbt_alloc(&cache->allocator, bytes, sizeof(uint64_t));
    if (!g) return dbt_fail_memory(error, d->shader, bytes);
    *g = (group){.base.hash = hash, .pipeline = p, .n_bindings = d->n_bindings};
    for (uint32_t i = 0; i < d->n_bindings; i++) {
        g->bindings[i] = d->bindings[i].buffer ? d->bindings[i] : (dbt_hal_binding){0};
    }
    const dibit_status status =
        cache->hal->calls->group_create(cache->hal, p->hal, g->bindings, d->n_bindings,
                                        p->uniform_bytes ? cache->uniforms : NULL, &g->hal, error);
    if (status != DIBIT_OK) {
        dbt_error_prefix(error, "%s", d->shader);
        dbt_release(&cache->allocator, g, bytes);
        return status;
    }
    insert(&cache->allocator, &cache->groups, &g->base);
    *out = g;
    return DIBIT_OK;
}

static dibit_status find_group(dbt_gpu_cache *cache, const pipeline *p, const dbt_gpu_dispatch *d,
                               const group **out, dibit_error *error) {
    const uint64_t hash = hash_group(p, d);
    for (entry *e = *bucket(&cache->groups, hash); e; e = e->next) {
        const group *const g = (const group *)e;
        if (e->hash == hash && is_group_of(g, p, d)) {
            *out = g;
            return DIBIT_OK;
        }
    }
    return make_group(cache, p, d, hash, out, error);
}

dibit_status dbt_gpu_cache_find(dbt_gpu_cache *cache, const dbt_gpu_dispatch *d,
                                dbt_hal_pipeline **out, dbt_hal_group **group_out,
                                dibit_error *error) {
    const pipeline *p = NULL;
    const group *g = NULL;
    DBT_TRY(find_pipeline(cache, d, &p, error));
    *out = p->hal;
    if (!group_out) return DIBIT_OK;
    DBT_TRY(find_group(cache, p, d, &g, error));
    *group_out = g->hal;
    return DIBIT_OK;
}

/* ---- The cache ---- */

dibit_status dbt_gpu_cache_init(dbt_gpu_cache *cache, dibit_error *error) {
    if (!resize(&cache->allocator, &cache->pipelines, FIRST_BUCKETS) ||
        !resize(&cache->allocator, &cache->groups, FIRST_BUCKETS)) {
        return dbt_fail_memory(error, "a device", FIRST_BUCKETS);
    }
    return DIBIT_OK;
}

static void free_pipelines(dbt_gpu_cache *cache) {
    for (uint32_t i = 0; i < cache->pipelines.n_buckets; i++) {
        for (entry *e = cache->pipelines.buckets[i], *next; e; e = next) {
            next = e->next;
            pipeline *const p = (pipeline *)e;
            cache->hal->calls->pipeline_destroy(cache->hal, p->hal);
            dbt_release(&cache->allocator, p, pipeline_bytes(p->n_params));
        }
    }
}

void dbt_gpu_cache_free(dbt_gpu_cache *cache) {
    dbt_gpu_cache_forget(cache, NULL);
    free_pipelines(cache);
    table *const tables[] = {&cache->pipelines, &cache->groups};
    for (int i = 0; i < 2; i++) {
        if (tables[i]->buckets)
            dbt_release(&cache->allocator, tables[i]->buckets, buckets_bytes(tables[i]));
    }
}

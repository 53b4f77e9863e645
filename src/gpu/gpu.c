/* The caches over the HAL: pipelines by what shapes their text, groups by pipeline and buffers, the
 * uniforms of a batch, scratch. Executors record and submit through it.
 *
 * UNIFORMS. All dispatches of a batch have theirs in one buffer, at aligned offsets in the order of
 * recording; a copy on the CPU is filled meanwhile, and written ahead of the dispatches before the HAL
 * submits them. A full buffer submits. */
#include "gpu/gpu.h"

#include <string.h>

enum {
    UNIFORM_BYTES = 256 << 10,
    FIRST_BUCKETS = 256,
    MAX_GROUPS =
        16384 /* more than any session uses: the offsets of its bindings never come again */
};

/* What hash tables chain; the key follows in the structs that begin with it. */
typedef struct entry {
    struct entry *next;
    uint64_t hash;
} entry;

typedef struct table {
    entry **buckets;
    uint32_t n_buckets, n; /* n_buckets: a power of two */
} table;

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

typedef struct memory {
    struct memory *next;
    const void *key;
    uint64_t bytes; /* of this struct too */
    _Alignas(16) unsigned char data[];
} memory;

struct dbt_gpu {
    dibit_allocator allocator;
    dbt_hal *hal;
    const dbt_shader_library *shaders;
    table pipelines, groups;
    dbt_hal_buffer *uniforms;
    unsigned char *uniform_bytes; /* [UNIFORM_BYTES]: what `uniforms` will hold */
    uint32_t uniforms_used;
    dbt_hal_buffer *scratch[DBT_GPU_SCRATCH];
    uint64_t scratch_bytes[DBT_GPU_SCRATCH];
    memory *memories;
    uint32_t dropped_kernels;
};

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

static dibit_status compile(dbt_gpu *gpu, pipeline *p, dibit_error *error) {
    const dbt_shader_variant variant = {p->shader, p->params, p->n_params, gpu->hal->features};
    dbt_arena arena;
    dbt_arena_init(&arena, &gpu->allocator);
    dbt_shader_text text;
    dibit_status status = dbt_shader_expand(gpu->shaders, &variant, &arena, &text, error);
    if (status == DIBIT_OK) {
        const dbt_hal_pipeline_desc desc = {.name = p->shader,
                                            .wgsl = text.wgsl,
                                            .wgsl_bytes = text.bytes,
                                            .bindings = p->bindings,
                                            .written = p->written,
                                            .uniform_bytes = p->uniform_bytes};
        status = gpu->hal->calls->pipeline_create(gpu->hal, &desc, &p->hal, error);
    }
    dbt_arena_free(&arena);
    return status;
}

static dibit_status make_pipeline(dbt_gpu *gpu, const dbt_gpu_dispatch *d, uint32_t bindings,
                                  uint64_t hash, const pipeline **out, dibit_error *error) {
    const uint64_t bytes = pipeline_bytes(d->n_params);
    pipeline *const p = dbt_alloc(&gpu->allocator, bytes, sizeof(void *));
    if (!p) return dbt_fail_memory(error, d->shader, bytes);
    *p = (pipeline){.base.hash = hash,
                    .shader = d->shader,
                    .bindings = bindings,
                    .written = d->written,
                    .uniform_bytes = d->uniform_bytes,
                    .n_params = d->n_params};
    if (d->n_params) memcpy(p->params, d->params, d->n_params * sizeof *d->params);
    const dibit_status status = compile(gpu, p, error);
    if (status != DIBIT_OK) {
        dbt_release(&gpu->allocator, p, bytes);
        return status;
    }
    insert(&gpu->allocator, &gpu->pipelines, &p->base);
    *out = p;
    return DIBIT_OK;
}

static dibit_status check_bindings(const dbt_gpu *gpu, const dbt_gpu_dispatch *d, uint32_t bindings,
                                   dibit_error *error) {
    uint32_t n = 0;
    for (uint32_t bits = bindings; bits; bits >>= 1) n += bits & 1;
    DBT_FAIL_IF(n > gpu->hal->limits.max_bindings, error, DIBIT_TOO_LARGE,
                "%s binds %u buffers, the device allows %u", d->shader, (unsigned)n,
                (unsigned)gpu->hal->limits.max_bindings);
    DBT_FAIL_IF(d->written & ~bindings, error, DIBIT_BAD_ARGUMENT,
                "%s writes a binding that is not there", d->shader);
    DBT_FAIL_IF(d->uniform_bytes > DBT_HAL_MAX_UNIFORM_BYTES, error, DIBIT_BAD_ARGUMENT,
                "%s has %u bytes of uniforms, %d are allowed", d->shader,
                (unsigned)d->uniform_bytes, DBT_HAL_MAX_UNIFORM_BYTES);
    return DIBIT_OK;
}

static dibit_status find_pipeline(dbt_gpu *gpu, const dbt_gpu_dispatch *d, const pipeline **out,
                                  dibit_error *error) {
    DBT_FAIL_IF(d->n_bindings > DBT_HAL_MAX_BINDINGS, error, DIBIT_BAD_ARGUMENT,
                "%s has %u bindings, %d are allowed", d->shader, (unsigned)d->n_bindings,
                DBT_HAL_MAX_BINDINGS);
    const uint32_t bindings = present_bindings(d);
    const uint64_t hash = hash_pipeline(d, bindings);
    for (entry *e = *bucket(&gpu->pipelines, hash); e; e = e->next) {
        const pipeline *const p = (const pipeline *)e;
        if (e->hash == hash && is_pipeline_of(p, d, bindings)) {
            *out = p;
            return DIBIT_OK;
        }
    }
    DBT_TRY(check_bindings(gpu, d, bindings, error));
    return make_pipeline(gpu, d, bindings, hash, out, error);
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

/* Forgets the groups that bind the buffer; NULL: all. */
static void forget_groups(dbt_gpu *gpu, const dbt_hal_buffer *buffer) {
    for (uint32_t i = 0; i < gpu->groups.n_buckets; i++) {
        entry **link = &gpu->groups.buckets[i];
        while (*link) {
            group *const g = (group *)*link;
            uint32_t k = 0;
            while (buffer && k < g->n_bindings && g->bindings[k].buffer != buffer) k++;
            if (k == g->n_bindings && buffer) {
                link = &(*link)->next;
                continue;
            }
            *link = g->base.next;
            gpu->hal->calls->group_destroy(gpu->hal, g->hal);
            dbt_release(&gpu->allocator, g, group_bytes(g->n_bindings));
            gpu->groups.n--;
        }
    }
}

static dibit_status make_group(dbt_gpu *gpu, const pipeline *p, const dbt_gpu_dispatch *d,
                               uint64_t hash, const group **out, dibit_error *error) {
    if (gpu->groups.n == MAX_GROUPS) forget_groups(gpu, NULL);
    const uint64_t bytes = group_bytes(d->n_bindings);
    group *const g = dbt_alloc(&gpu->allocator, bytes, sizeof(uint64_t));
    if (!g) return dbt_fail_memory(error, d->shader, bytes);
    *g = (group){.base.hash = hash, .pipeline = p, .n_bindings = d->n_bindings};
    for (uint32_t i = 0; i < d->n_bindings; i++) {
        g->bindings[i] = d->bindings[i].buffer ? d->bindings[i] : (dbt_hal_binding){0};
    }
    const dibit_status status =
        gpu->hal->calls->group_create(gpu->hal, p->hal, g->bindings, d->n_bindings,
                                      p->uniform_bytes ? gpu->uniforms : NULL, &g->hal, error);
    if (status != DIBIT_OK) {
        dbt_error_prefix(error, "%s", d->shader);
        dbt_release(&gpu->allocator, g, bytes);
        return status;
    }
    insert(&gpu->allocator, &gpu->groups, &g->base);
    *out = g;
    return DIBIT_OK;
}

static dibit_status find_group(dbt_gpu *gpu, const pipeline *p, const dbt_gpu_dispatch *d,
                               const group **out, dibit_error *error) {
    const uint64_t hash = hash_group(p, d);
    for (entry *e = *bucket(&gpu->groups, hash); e; e = e->next) {
        const group *const g = (const group *)e;
        if (e->hash == hash && is_group_of(g, p, d)) {
            *out = g;
            return DIBIT_OK;
        }
    }
    return make_group(gpu, p, d, hash, out, error);
}

/* ---- Recording ---- */

/* Where the next uniforms go; a full buffer submits. */
static dibit_status place_uniforms(dbt_gpu *gpu, uint32_t bytes, uint32_t *offset,
                                   dibit_error *error) {
    if (gpu->uniforms_used + bytes > UNIFORM_BYTES) DBT_TRY(dbt_gpu_submit(gpu, error));
    *offset = bytes ? gpu->uniforms_used : 0;
    return DIBIT_OK;
}

/* After the dispatch is recorded: recording it may have submitted those before it. */
static void keep_uniforms(dbt_gpu *gpu, const dbt_gpu_dispatch *d, uint32_t offset) {
    const uint32_t alignment = gpu->hal->limits.uniform_alignment;
    if (d->uniform_bytes == 0) return;
    memcpy(gpu->uniform_bytes + offset, d->uniforms, d->uniform_bytes);
    gpu->uniforms_used = (offset + d->uniform_bytes + alignment - 1) / alignment * alignment;
}

dibit_status dbt_gpu_record(dbt_gpu *gpu, const dbt_gpu_dispatch *d, dibit_error *error) {
    for (int i = 0; i < 3; i++) {
        if (d->workgroups[i] == 0) return DIBIT_OK;
        DBT_FAIL_IF(d->workgroups[i] > gpu->hal->limits.max_workgroups, error, DIBIT_TOO_LARGE,
                    "%s wants %u workgroups, the device allows %u", d->shader,
                    (unsigned)d->workgroups[i], (unsigned)gpu->hal->limits.max_workgroups);
    }
    const pipeline *p = NULL;
    const group *g = NULL;
    DBT_TRY(find_pipeline(gpu, d, &p, error));
    DBT_TRY(find_group(gpu, p, d, &g, error));
    dbt_hal_dispatch dispatch = {
        .name = d->shader,
        .pipeline = p->hal,
        .group = g->hal,
        .workgroups = {d->workgroups[0], d->workgroups[1], d->workgroups[2]}};
    DBT_TRY(place_uniforms(gpu, d->uniform_bytes, &dispatch.uniforms_offset, error));
    DBT_TRY(gpu->hal->calls->dispatch(gpu->hal, &dispatch, error));
    keep_uniforms(gpu, d, dispatch.uniforms_offset);
    return DIBIT_OK;
}

dibit_status dbt_gpu_warm(dbt_gpu *gpu, const dbt_gpu_dispatch *dispatch, dibit_error *error) {
    const pipeline *p = NULL;
    return find_pipeline(gpu, dispatch, &p, error);
}

static dibit_status write_uniforms(void *user, dibit_error *error) {
    dbt_gpu *const gpu = user;
    if (gpu->uniforms_used == 0) return DIBIT_OK;
    const uint32_t bytes = gpu->uniforms_used < UNIFORM_BYTES ? gpu->uniforms_used : UNIFORM_BYTES;
    DBT_TRY(
        gpu->hal->calls->write_ahead(gpu->hal, gpu->uniforms, 0, gpu->uniform_bytes, bytes, error));
    gpu->uniforms_used = 0;
    return DIBIT_OK;
}

dibit_status dbt_gpu_submit(dbt_gpu *gpu, dibit_error *error) {
    return gpu->hal->calls->submit(gpu->hal, error);
}

dibit_status dbt_gpu_read(dbt_gpu *gpu, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                          uint64_t bytes, uint64_t *ticket, dibit_error *error) {
    return gpu->hal->calls->read(gpu->hal, buffer, offset, dst, bytes, ticket, error);
}

dibit_status dbt_gpu_grid(const dbt_gpu *gpu, uint64_t n, uint32_t workgroups[3],
                          dibit_error *error) {
    const uint64_t limit = gpu->hal->limits.max_workgroups;
    DBT_FAIL_IF(n > INT32_MAX || n > limit * limit, error, DIBIT_TOO_LARGE,
                "%llu workgroups are beyond the device's limits", (unsigned long long)n);
    const uint64_t y = n == 0 ? 1 : (n + limit - 1) / limit;
    workgroups[0] = (uint32_t)((n + y - 1) / y);
    workgroups[1] = (uint32_t)y;
    workgroups[2] = 1;
    return DIBIT_OK;
}

/* ---- Buffers ---- */

dibit_status dbt_gpu_buffer_create(dbt_gpu *gpu, uint64_t bytes, dbt_hal_buffer **out,
                                   dibit_error *error) {
    return gpu->hal->calls->buffer_create(gpu->hal, bytes, out, error);
}

void dbt_gpu_buffer_destroy(dbt_gpu *gpu, dbt_hal_buffer *buffer) {
    if (!buffer) return;
    forget_groups(gpu, buffer);
    gpu->hal->calls->buffer_destroy(gpu->hal, buffer);
}

dibit_status dbt_gpu_scratch(dbt_gpu *gpu, uint32_t index, uint64_t bytes, dbt_hal_buffer **out,
                             dibit_error *error) {
    if (gpu->scratch_bytes[index] < bytes || !gpu->scratch[index]) {
        uint64_t wanted = 1024;
        while (wanted < bytes && wanted <= gpu->hal->limits.max_buffer_bytes / 2) wanted *= 2;
        if (wanted < bytes) wanted = bytes;
        dbt_hal_buffer *grown = NULL;
        DBT_TRY(dbt_gpu_buffer_create(gpu, wanted, &grown, error));
        dbt_gpu_buffer_destroy(gpu, gpu->scratch[index]);
        gpu->scratch[index] = grown;
        gpu->scratch_bytes[index] = wanted;
    }
    *out = gpu->scratch[index];
    return DIBIT_OK;
}

/* ---- What ops keep ---- */

dibit_status dbt_gpu_memory(dbt_gpu *gpu, const void *key, uint64_t bytes, void **out,
                            dibit_error *error) {
    memory *m = gpu->memories;
    while (m && m->key != key) m = m->next;
    if (!m) {
        const uint64_t all = sizeof *m + bytes;
        m = dbt_alloc(&gpu->allocator, all, 16);
        if (!m) return dbt_fail_memory(error, "an op's memory of a device", all);
        memset(m, 0, (size_t)all);
        *m = (memory){.next = gpu->memories, .key = key, .bytes = all};
        gpu->memories = m;
    }
    *out = m->data;
    return DIBIT_OK;
}

static void free_memories(dbt_gpu *gpu) {
    for (memory *m = gpu->memories, *next; m; m = next) {
        next = m->next;
        dbt_release(&gpu->allocator, m, m->bytes);
    }
}

void dbt_gpu_drop_kernel(dbt_gpu *gpu) { gpu->dropped_kernels++; }
uint32_t dbt_gpu_dropped_kernels(const dbt_gpu *gpu) { return gpu->dropped_kernels; }

/* ---- The device ---- */

dibit_status dbt_gpu_create(const dibit_allocator *allocator, dbt_hal *hal, dbt_gpu **out,
                            dibit_error *error) {
    dbt_gpu *gpu = dbt_alloc(allocator, sizeof *gpu, sizeof(uint64_t));
    if (!gpu) return dbt_fail_memory(error, "a device", sizeof *gpu);
    *gpu = (dbt_gpu){.allocator = *allocator, .shaders = &dbt_shaders};
    dibit_status status = DIBIT_OK;
    gpu->uniform_bytes = dbt_alloc(allocator, UNIFORM_BYTES, 16);
    if (!gpu->uniform_bytes || !resize(allocator, &gpu->pipelines, FIRST_BUCKETS) ||
        !resize(allocator, &gpu->groups, FIRST_BUCKETS)) {
        status = dbt_fail_memory(error, "a device", UNIFORM_BYTES);
    }
    if (status == DIBIT_OK) {
        memset(gpu->uniform_bytes, 0, UNIFORM_BYTES);
        status = hal->calls->buffer_create(hal, UNIFORM_BYTES, &gpu->uniforms, error);
    }
    if (status == DIBIT_OK) {
        gpu->hal = hal;
        hal->before_submit = write_uniforms;
        hal->before_submit_user = gpu;
        *out = gpu;
    } else {
        dbt_gpu_destroy(&gpu);
    }
    return status;
}

static void free_pipelines(dbt_gpu *gpu) {
    for (uint32_t i = 0; i < gpu->pipelines.n_buckets; i++) {
        for (entry *e = gpu->pipelines.buckets[i], *next; e; e = next) {
            next = e->next;
            pipeline *const p = (pipeline *)e;
            gpu->hal->calls->pipeline_destroy(gpu->hal, p->hal);
            dbt_release(&gpu->allocator, p, pipeline_bytes(p->n_params));
        }
    }
}

void dbt_gpu_destroy(dbt_gpu **handle) {
    dbt_gpu *const gpu = *handle;
    if (!gpu) return;
    *handle = NULL;
    const dibit_allocator allocator = gpu->allocator;
    forget_groups(gpu, NULL);
    free_pipelines(gpu);
    free_memories(gpu);
    if (gpu->hal) gpu->hal->calls->destroy(gpu->hal);
    if (gpu->pipelines.buckets)
        dbt_release(&allocator, gpu->pipelines.buckets, buckets_bytes(&gpu->pipelines));
    if (gpu->groups.buckets)
        dbt_release(&allocator, gpu->groups.buckets, buckets_bytes(&gpu->groups));
    if (gpu->uniform_bytes) dbt_release(&allocator, gpu->uniform_bytes, UNIFORM_BYTES);
    dbt_release(&allocator, gpu, sizeof *gpu);
}

dbt_hal *dbt_gpu_hal(const dbt_gpu *gpu) { return gpu->hal; }

void dbt_gpu_use_shaders(dbt_gpu *gpu, const dbt_shader_library *shaders) {
    gpu->shaders = shaders;
}

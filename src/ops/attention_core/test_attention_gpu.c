/* Attention on a device against the reference, over seeded problems: long caches in parts and in one, every
 * width of rows, float and float16, windows, terms and sinks. What lies in a cache past its last key is
 * NaN. On the null device the problems are recorded alone. */
#include "dbt_test.h"

#include "base/half.h"
#include "base/os.h"
#include "ops/attention_core/attention_core.h"
#include "ops/attention_core/attention_gpu.h"
#include "test_device.h"

static dbt_gpu *gpu;
static dibit_error error;

static void ok(dibit_status status) {
    if (status) fail_msg("%s", error.text);
}

static int64_t pick(uint64_t *seed, int64_t lo, int64_t hi) {
    return lo + (int64_t)(dbt_test_random(seed) % (uint64_t)(hi - lo + 1));
}
static int64_t choose(uint64_t *seed, const int64_t *of, int64_t n) {
    return of[pick(seed, 0, n - 1)];
}
#define CHOOSE(seed, ...)                                                                          \
    choose(seed, (const int64_t[]){__VA_ARGS__},                                                   \
           sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static void *need(void *memory) {
    if (!memory) fail_msg("out of memory");
    return memory;
}

static dbt_hal_buffer *upload(const void *data, uint64_t bytes) {
    dbt_hal_buffer *buffer;
    const uint64_t padded = (bytes + 3) / 4 * 4 + 4;
    unsigned char *const copy = need(calloc(1, (size_t)padded));
    memcpy(copy, data, (size_t)bytes);
    ok(dbt_gpu_buffer_create(gpu, padded, &buffer, &error));
    ok(dbt_gpu_write(gpu, buffer, 0, copy, padded, &error));
    free(copy);
    return buffer;
}

/* A problem for the CPU and for the device: one batch row. */
typedef struct problem {
    dbt_arena arena;
    dbt_attention cpu;
    dbt_attention_row row;
    dbt_gpu_attention device;
    dbt_hal_buffer *buffers[8];
    uint32_t n_buffers;
    int64_t y_count;
} problem;

static dbt_hal_buffer *add(problem *p, const void *data, uint64_t bytes) {
    return p->buffers[p->n_buffers++] = upload(data, bytes);
}

static float *randoms(problem *p, uint64_t *seed, int64_t n) {
    float *const x = need(dbt_arena_array(&p->arena, (uint64_t)n + 1, sizeof *x));
    for (int64_t i = 0; i < n; i++) x[i] = dbt_test_uniform(seed, -1.5f, 1.5f);
    return x;
}

/* [heads, keys + spare, dim], spare rows NaN. */
static void make_rows(problem *p, uint64_t *seed, int64_t dim, dbt_attention_span *span,
                      dbt_gpu_rows *rows) {
    const dbt_attention *const a = &p->cpu;
    const int64_t capacity = p->row.n_keys + pick(seed, 0, 3), n = a->kv_heads * capacity * dim;
    float *const x = randoms(p, seed, n);
    for (int64_t i = 0; i < n; i++) {
        if (i / dim % capacity >= p->row.n_keys) x[i] = NAN;
    }
    void *const packed = need(dbt_arena_array(&p->arena, (uint64_t)n + 1, 4));
    dbt_pack_elements(a->k_type, x, packed, n);
    *span = (dbt_attention_span){packed, capacity * dim, dim};
    *rows = (dbt_gpu_rows){.buffer = add(p, packed, (uint64_t)n * dibit_type_bits(a->k_type) / 8),
                           .head = (uint64_t)(capacity * dim),
                           .token = (uint64_t)dim};
}

static void make_term(problem *p, uint64_t *seed, int i) {
    dbt_attention *const a = &p->cpu;
    const int64_t columns = p->row.n_keys, n = a->heads * a->queries * columns;
    dbt_attention_term *const t = &a->terms[i];
    const bool by_head = pick(seed, 0, 1), by_query = pick(seed, 0, 1);
    t->stride[3] = 1;
    t->stride[2] = by_query ? columns : 0;
    t->stride[1] = by_head ? a->queries * columns : 0;
    float *const x = randoms(p, seed, n);
    const int64_t forbid = i == 1 ? pick(seed, 0, 2) : 0;
    for (int64_t k = 0; k < n; k++) {
        if (forbid == 1 && pick(seed, 0, 2) == 0) x[k] = -INFINITY;
        if (forbid == 2) x[k] = -INFINITY;
    }
    t->data = x;
    p->device.terms[i] = (dbt_gpu_term){.buffer = add(p, x, (uint64_t)n * sizeof *x),
                                        .head = (uint64_t)t->stride[1],
                                        .query = (uint64_t)t->stride[2],
                                        .column = 1};
}

static void make_shape(problem *p, uint64_t *seed) {
    dbt_attention *const a = &p->cpu;
    a->batch = 1;
    a->kv_heads = pick(seed, 1, 3);
    a->heads = a->kv_heads * CHOOSE(seed, 1, 2, 3, 4, 5, 8);
    a->queries = CHOOSE(seed, 1, 1, 1, 2, 4, 7, 33, 70);
    a->k_dim = CHOOSE(seed, 1, 3, 16, 64, 64, 80, 96, 128, 256);
    a->v_dim = CHOOSE(seed, a->k_dim, a->k_dim, 5, a->queries < 5 ? 600 : 130);
    a->k_type = a->v_type = pick(seed, 0, 1) ? DIBIT_TYPE_FLOAT16 : DIBIT_TYPE_FLOAT;
    if (a->k_type == DIBIT_TYPE_FLOAT16) {
        a->k_dim += a->k_dim % 2;
        a->v_dim += a->v_dim % 2;
    }
    a->scale = 0.15f;
    a->softcap = pick(seed, 0, 2) ? 0.0f : 1.5f;
    a->left = CHOOSE(seed, -1, -1, 0, 3, 200);
    a->right = CHOOSE(seed, -1, 0, 0, 2);
    a->clamp_queries = pick(seed, 0, 1);
    a->has_sink = pick(seed, 0, 1);
    p->row.n_keys = pick(seed, 0, 1) ? pick(seed, 1, 600) : pick(seed, 0, 130);
    p->row.first_query = p->row.n_keys - a->queries + CHOOSE(seed, 0, 0, -5, 3);
    a->rows = &p->row;
}

static void make_problem(problem *p, uint64_t seed) {
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    memset(p, 0, sizeof *p);
    dbt_arena_init(&p->arena, NULL);
    dbt_attention *const a = &p->cpu;
    make_shape(p, &state);
    p->device = (dbt_gpu_attention){.heads = a->heads,
                                    .kv_heads = a->kv_heads,
                                    .queries = a->queries,
                                    .k_dim = a->k_dim,
                                    .v_dim = a->v_dim,
                                    .kv_type = a->k_type,
                                    .n_keys = p->row.n_keys,
                                    .first_query = p->row.first_query,
                                    .scale = a->scale,
                                    .softcap = a->softcap,
                                    .left = a->left,
                                    .right = a->right,
                                    .clamp_queries = a->clamp_queries,
                                    .has_sink = a->has_sink};
    const int64_t q_count = a->heads * a->queries * a->k_dim;
    p->y_count = a->heads * a->queries * a->v_dim;
    a->q = randoms(p, &state, q_count);
    a->q_stride[1] = a->k_dim;
    a->q_stride[2] = a->heads * a->k_dim;
    a->y_stride[1] = a->v_dim;
    a->y_stride[2] = a->heads * a->v_dim;
    p->device.q = (dbt_gpu_rows){.buffer = add(p, a->q, (uint64_t)q_count * sizeof *a->q),
                                 .head = (uint64_t)a->q_stride[1],
                                 .token = (uint64_t)a->q_stride[2]};
    make_rows(p, &state, a->k_dim, &p->row.k, &p->device.k);
    make_rows(p, &state, a->v_dim, &p->row.v, &p->device.v);
    for (int i = 0; i < 2 && p->row.n_keys > 0; i++) {
        if (pick(&state, 0, 1)) make_term(p, &state, i);
    }
    if (a->has_sink && pick(&state, 0, 1)) {
        a->sink = randoms(p, &state, a->heads);
        p->device.sink = add(p, a->sink, (uint64_t)a->heads * sizeof *a->sink);
    }
}

/* As much as a device may be off where the CPU may be off by `bound`: op.h, gpu_bound. */
static float allowed(float bound, float y) { return 2 * bound + 0x1p-22f * fabsf(y); }

static void read_back(dbt_hal_buffer *buffer, void *data, uint64_t bytes) {
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    uint64_t ticket;
    ok(dbt_gpu_read(gpu, buffer, 0, data, bytes, &ticket, &error));
    dibit_status status;
    while ((status = hal->calls->poll(hal, ticket, &error)) == DIBIT_PENDING) dbt_os_yield();
    ok(status);
}

static void check(uint64_t seed) {
    problem p;
    make_problem(&p, seed);
    enum { GUARDS = 8 };
    const uint64_t bytes = ((uint64_t)p.y_count + GUARDS) * sizeof(float);
    float *const want = need(dbt_arena_alloc(&p.arena, bytes));
    float *const bound = need(dbt_arena_alloc(&p.arena, bytes));
    float *const got = need(dbt_arena_alloc(&p.arena, bytes));
    memset(got, 0xff, (size_t)bytes);
    p.device.y = (dbt_gpu_rows){.buffer = add(&p, got, bytes),
                                .head = (uint64_t)p.cpu.y_stride[1],
                                .token = (uint64_t)p.cpu.y_stride[2]};
    ok(dbt_gpu_attend(gpu, &p.device, &error));
    read_back(p.device.y.buffer, got, bytes);
    p.cpu.y = want;
    dbt_attention_ref(&p.cpu, bound);
    for (int64_t i = 0; i < p.y_count && test_device_computes(); i++) {
        if (fabsf(got[i] - want[i]) <= allowed(bound[i], want[i])) continue;
        fail_msg("seed %llu: %lld queries of %lld elements, %lld keys: element %lld is %.9g, "
                 "expected %.9g (allowed %.3g)",
                 (unsigned long long)seed, (long long)p.cpu.queries, (long long)p.cpu.k_dim,
                 (long long)p.row.n_keys, (long long)i, (double)got[i], (double)want[i],
                 (double)allowed(bound[i], want[i]));
    }
    for (int64_t i = 0; i < GUARDS && test_device_computes(); i++) {
        assert_true(isnan(got[p.y_count + i]));
    }
    for (uint32_t i = 0; i < p.n_buffers; i++) dbt_gpu_buffer_destroy(gpu, p.buffers[i]);
    dbt_arena_free(&p.arena);
}

static void test_problems(void **unused) {
    (void)unused;
    for (uint64_t seed = 1; seed <= 120; seed++) check(seed);
}

/* What the other sort of adapter would run. */
static void test_as_the_other_sort(void **unused) {
    (void)unused;
    dbt_gpu_hal(gpu)->features ^= DBT_HAL_SOFTWARE;
    for (uint64_t seed = 1; seed <= 120; seed++) check(seed);
    dbt_gpu_hal(gpu)->features ^= DBT_HAL_SOFTWARE;
}

/* Rows of float16 are rounded to even as on the CPU, whatever the size. */
static void test_halves(void **unused) {
    (void)unused;
    enum { COUNT = 4096 };
    static float x[COUNT];
    static uint16_t want[COUNT], got[COUNT];
    uint64_t seed = 3;
    for (int i = 0; i < COUNT; i++) {
        const int exponent = (int)pick(&seed, -28, 18);
        x[i] = ldexpf(dbt_test_uniform(&seed, -1, 1), exponent);
        if (i % 3 == 0) { /* in the middle between two halves */
            x[i] = ldexpf((float)(2 * pick(&seed, 1024, 2047) + 1), exponent - 12);
        }
    }
    static const float special[] = {0.0f,     -0.0f,    65504.0f,   65519.0f, 65520.0f,  -65520.0f,
                                    0x1p-24f, 0x1p-25f, 0x1.8p-25f, INFINITY, -INFINITY, 1e30f};
    memcpy(x, special, sizeof special);
    dbt_pack_elements(DIBIT_TYPE_FLOAT16, x, want, COUNT);
    dbt_hal_buffer *const from = upload(x, sizeof x), *const k = upload(got, sizeof got);
    dbt_hal_buffer *const v = upload(got, sizeof got);
    const dbt_gpu_rows rows = {.buffer = from, .token = 64};
    const dbt_gpu_append a = {.tokens = COUNT / 64,
                              .kv_heads = 1,
                              .k_dim = 64,
                              .v_dim = 64,
                              .k = rows,
                              .v = rows,
                              .k_out = {.buffer = k, .token = 64},
                              .v_out = {.buffer = v, .token = 64},
                              .kv_type = DIBIT_TYPE_FLOAT16,
                              .stored = COUNT / 64,
                              .rows = COUNT / 64};
    ok(dbt_gpu_append_tokens(gpu, &a, &error));
    dbt_hal_buffer *const buffers[] = {k, v, from};
    for (int i = 0; i < 2; i++) {
        read_back(buffers[i], got, sizeof got);
        for (int e = 0; e < COUNT && test_device_computes(); e++) {
            if (got[e] == want[e]) continue;
            fail_msg("%.9g becomes %04x, not %04x", (double)x[e], got[e], want[e]);
        }
    }
    for (int i = 0; i < 3; i++) dbt_gpu_buffer_destroy(gpu, buffers[i]);
}

static int start(void **state) {
    (void)state;
    return dbt_gpu_create(&dbt_default_allocator, test_device_open(), &gpu, &error) != DIBIT_OK;
}
static int stop(void **state) {
    (void)state;
    dbt_gpu_destroy(&gpu);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_problems),
        cmocka_unit_test(test_as_the_other_sort),
        cmocka_unit_test(test_halves),
    };
    return cmocka_run_group_tests(tests, start, stop);
}

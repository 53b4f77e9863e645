/* Every kernel of attention, and the fast bound, against the reference, over seeded problems: within
 * the reference's bound, the same bits for 1 to 4 threads, reading only keys that exist, writing only
 * its memory. */
#include "dbt_test.h"

#include "base/cpu.h"
#include "ops/attention_core/attention_core.h"
#include "ops/attention_core/attention_kernels.h"

static int64_t pick(uint64_t *seed, int64_t lo, int64_t hi) {
    return lo + (int64_t)(dbt_test_random(seed) % (uint64_t)(hi - lo + 1));
}

static void *need(void *memory) {
    if (!memory) fail_msg("out of memory");
    return memory;
}

static float *randoms(dbt_arena *arena, uint64_t *seed, int64_t n) {
    float *const x = need(dbt_arena_array(arena, (uint64_t)n + 1, sizeof *x));
    for (int64_t i = 0; i < n; i++) x[i] = dbt_test_uniform(seed, -1.5f, 1.5f);
    return x;
}

/* [heads, rows + spare, dim] in `type`, spare rows NaN, or (seldom) with rows further apart. */
static dbt_attention_span keys(dbt_arena *arena, uint64_t *seed, dibit_type type, int64_t heads,
                               int64_t rows, int64_t dim) {
    const int64_t row_stride = pick(seed, 0, 3) ? dim : dim + 3, capacity = rows + pick(seed, 0, 2);
    const int64_t n = heads * capacity * row_stride;
    float *const x = need(dbt_arena_array(arena, (uint64_t)n + 1, sizeof *x));
    for (int64_t i = 0; i < n; i++) {
        const int64_t t = i / row_stride % capacity, d = i % row_stride;
        const float value = dbt_test_uniform(seed, -1.5f, 1.5f);
        x[i] = t < rows && d < dim ? value : NAN;
    }
    void *const packed = need(dbt_arena_array(arena, (uint64_t)n + 1, 8));
    dbt_pack_elements(type, x, packed, n);
    return (dbt_attention_span){packed, capacity * row_stride, row_stride};
}

static void add_term(dbt_attention *a, int i, dbt_arena *arena, uint64_t *seed, int64_t columns,
                     bool forbids) {
    const bool b = pick(seed, 0, 1), h = pick(seed, 0, 1), s = pick(seed, 0, 3);
    dbt_attention_term *const m = &a->terms[i];
    m->stride[3] = pick(seed, 0, 5) ? 1 : 0;
    m->stride[2] = s ? columns : 0;
    m->stride[1] = h ? a->queries * columns : 0;
    m->stride[0] = b ? a->heads * a->queries * columns : 0;
    const int64_t n = a->batch * a->heads * a->queries * columns;
    float *const data = randoms(arena, seed, n);
    for (int64_t k = 0; k < n && forbids; k++) {
        if (pick(seed, 0, 2) == 0) data[k] = -INFINITY;
    }
    m->data = data;
}

static void make_problem(dbt_attention *a, dbt_arena *arena, uint64_t *seed) {
    static const dibit_type types[] = {DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT16, DIBIT_TYPE_BFLOAT16,
                                       DIBIT_TYPE_DOUBLE};
    *a = (dbt_attention){.batch = pick(seed, 1, 2),
                         .kv_heads = pick(seed, 1, 2),
                         .queries = pick(seed, 0, 2) ? pick(seed, 1, 3) : pick(seed, 1, 30),
                         .k_dim = pick(seed, 0, 3) ? pick(seed, 1, 40) : pick(seed, 60, 140),
                         .v_dim = pick(seed, 0, 3) ? pick(seed, 1, 40) : pick(seed, 60, 140),
                         .k_type = types[pick(seed, 0, 3)],
                         .v_type = types[pick(seed, 0, 3)],
                         .scale = 0.3f,
                         .left = -1,
                         .right = pick(seed, 0, 3) - 1};
    a->heads = a->kv_heads * pick(seed, 1, 5);
    if (pick(seed, 0, 2) == 0) a->softcap = 1.5f;
    if (pick(seed, 0, 2) == 0) a->left = pick(seed, 0, 150);
    const int64_t longest = pick(seed, 0, 2) == 0 ? 700 : 150;
    dbt_attention_row *const rows = need(dbt_arena_array(arena, (uint64_t)a->batch, sizeof *rows));
    int64_t columns = 1;
    for (int64_t b = 0; b < a->batch; b++) {
        dbt_attention_row *const r = &rows[b];
        r->n_keys = pick(seed, 0, longest);
        r->first_query = pick(seed, -3, 3) + r->n_keys - a->queries;
        r->term_offset = pick(seed, 0, 4);
        r->k = keys(arena, seed, a->k_type, a->kv_heads, r->n_keys, a->k_dim);
        r->v = keys(arena, seed, a->v_type, a->kv_heads, r->n_keys, a->v_dim);
        if (r->n_keys + r->term_offset > columns) columns = r->n_keys + r->term_offset;
    }
    a->rows = rows;
    if (pick(seed, 0, 1)) add_term(a, 0, arena, seed, columns, false);
    if (pick(seed, 0, 2) == 0) add_term(a, 1, arena, seed, columns, true);
    a->has_sink = pick(seed, 0, 1);
    if (a->has_sink && pick(seed, 0, 1)) a->sink = randoms(arena, seed, a->heads);
    /* Queries as tokens hold them, or head by head. */
    const bool by_head = pick(seed, 0, 1);
    const int64_t q = a->queries, h = a->heads;
    a->q = randoms(arena, seed, a->batch * q * h * a->k_dim);
    a->q_stride[0] = q * h * a->k_dim;
    a->q_stride[1] = by_head ? q * a->k_dim : a->k_dim;
    a->q_stride[2] = by_head ? a->k_dim : h * a->k_dim;
    a->y_stride[0] = q * h * a->v_dim;
    a->y_stride[1] = by_head ? a->v_dim : q * a->v_dim;
    a->y_stride[2] = by_head ? h * a->v_dim : a->v_dim;
}

static float *run(dbt_attention *a, dbt_arena *arena, uint64_t isa, uint32_t threads) {
    dbt_pool *pool = NULL;
    if (threads > 0) assert_int_equal(dbt_pool_create(NULL, threads, &pool, NULL), DIBIT_OK);
    a->isa = isa;
    a->pool = pool;
    const int64_t n = a->batch * a->heads * a->queries * a->v_dim;
    a->y = need(dbt_arena_array(arena, (uint64_t)n, sizeof(float)));
    memset(a->y, 0xff, (size_t)n * sizeof(float));
    const uint64_t bytes = dbt_attention_scratch(a);
    unsigned char *const scratch = need(dbt_arena_alloc_aligned(arena, bytes + 64, 64));
    memset(scratch, 0xff, bytes + 64);
    dbt_attention_run(a, scratch);
    for (int i = 0; i < 64; i++) assert_int_equal(scratch[bytes + (uint64_t)i], 0xff);
    dbt_pool_destroy(&pool);
    return a->y;
}

/* The fast bound is the reference's, summed in another order: both are double until the end. */
static void check_bound(const dbt_attention *problem, dbt_arena *arena, const float *want,
                        uint64_t seed) {
    const int64_t n = problem->batch * problem->heads * problem->queries * problem->v_dim;
    float *const got = need(dbt_arena_array(arena, (uint64_t)n, sizeof *got));
    for (uint32_t threads = 1; threads <= 3; threads += 2) {
        dbt_attention a = *problem;
        assert_int_equal(dbt_pool_create(NULL, threads, &a.pool, NULL), DIBIT_OK);
        memset(got, 0xff, (size_t)n * sizeof *got);
        assert_int_equal(dbt_attention_bound(&a, got, NULL), DIBIT_OK);
        for (int64_t i = 0; i < n; i++) {
            if (fabsf(got[i] - want[i]) <= 0x1p-22f * want[i]) continue;
            fail_msg("seed %llu: bound of element %lld: expected %.9g, got %.9g",
                     (unsigned long long)seed, (long long)i, (double)want[i], (double)got[i]);
        }
        dbt_pool_destroy(&a.pool);
    }
}

static void check_kernel(dbt_attention *a, dbt_arena *arena, uint64_t isa, const float *want,
                         const float *bound, uint64_t seed) {
    const int64_t n = a->batch * a->heads * a->queries * a->v_dim;
    const float *const got = run(a, arena, isa, 0);
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(got[i] - want[i]) <= bound[i]) continue;
        fail_msg("%s, seed %llu: element %lld: expected %.9g, got %.9g (bound %.3g)",
                 dbt_attention_choose(isa)->name, (unsigned long long)seed, (long long)i,
                 (double)want[i], (double)got[i], (double)bound[i]);
    }
    for (uint32_t threads = 2; threads <= 4; threads++) {
        assert_memory_equal(got, run(a, arena, isa, threads), (size_t)n * sizeof(float));
    }
}

static void test_kernels(void **unused) {
    (void)unused;
    static const dbt_attention_kernel *const kernels[] = {
#define KERNEL(name, isa_) &name,
#include "ops/attention_core/attention_kernels.inc"
#undef KERNEL
    };
    for (uint64_t seed = 1; seed <= 90; seed++) {
        uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
        dbt_arena arena;
        dbt_arena_init(&arena, NULL);
        dbt_attention a;
        make_problem(&a, &arena, &state);
        const uint64_t n = (uint64_t)(a.batch * a.heads * a.queries * a.v_dim);
        float *const want = need(dbt_arena_array(&arena, n, sizeof *want));
        float *const bound = need(dbt_arena_array(&arena, n, sizeof *bound));
        a.y = want;
        dbt_attention_ref(&a, bound);
        check_bound(&a, &arena, bound, seed);
        for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
            if ((dbt_cpu_isa(0) & kernels[i]->isa) != kernels[i]->isa) {
                if (seed == 1)
                    print_message("skipped %s: the CPU has not got it\n", kernels[i]->name);
                continue;
            }
            assert_ptr_equal(dbt_attention_choose(kernels[i]->isa), kernels[i]);
            check_kernel(&a, &arena, kernels[i]->isa, want, bound, seed);
        }
        dbt_arena_free(&arena);
    }
}

/* A case that can be computed by hand: equal scores average the values. */
static void test_by_hand(void **unused) {
    (void)unused;
    const float q[] = {0, 0, 0, 0}, k[] = {1, 2, 3, 4, 5, 6}, v[] = {1, 2, 6};
    float y[4], scratch[4096];
    const dbt_attention_row row = {{k, 6, 2}, {v, 3, 1}, 3, 1, 0};
    dbt_attention a = {.batch = 1,
                       .heads = 1,
                       .kv_heads = 1,
                       .queries = 2,
                       .k_dim = 2,
                       .v_dim = 1,
                       .q = q,
                       .q_stride = {4, 4, 2},
                       .y = y,
                       .y_stride = {2, 2, 1},
                       .k_type = DIBIT_TYPE_FLOAT,
                       .v_type = DIBIT_TYPE_FLOAT,
                       .rows = &row,
                       .scale = 1,
                       .left = -1};
    assert_true(dbt_attention_scratch(&a) <= sizeof scratch);
    dbt_attention_run(&a, scratch);
    assert_float_equal(y[0], 1.5f, 1e-6f);
    assert_float_equal(y[1], 3.0f, 1e-6f);
    a.left = 0;
    dbt_attention_run(&a, scratch);
    assert_float_equal(y[0], 2.0f, 1e-6f);
    assert_float_equal(y[1], 6.0f, 1e-6f);
    a.left = -1;
    a.has_sink = true; /* one more score of 0 without a value */
    dbt_attention_run(&a, scratch);
    assert_float_equal(y[0], 1.0f, 1e-6f);
    assert_float_equal(y[1], 2.25f, 1e-6f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* base: half floats over all their values, packing, arenas, the pool. */
#include "dbt_test.h"

#include "base/arena.h"
#include "base/compiler.h"
#include "base/cpu.h"
#include "base/dtype.h"
#include "base/half.h"
#include "base/os.h"
#include "base/pool.h"

static void test_every_half_survives_a_round_trip(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float f = dbt_half_to_float((uint16_t)h);
        const uint16_t back = dbt_float_to_half(f);
        if ((h & 0x7fff) > 0x7c00) {
            assert_true(f != f);
            assert_true((back & 0x7fff) > 0x7c00);
        } else {
            assert_int_equal(back, h);
        }
    }
}

/* Floats of all kinds, of any count and at any address: the same bits as in plain C. */
static void test_packing_with_f16c(void **state) {
    (void)state;
#if DBT_X86_64
    enum { MOST = 1 << 18 };
    if (!(dbt_cpu_isa(0) & DIBIT_ISA_AVX2)) skip();
    static uint16_t want[MOST], got[MOST];
    static float floats[MOST];
    uint64_t seed = 1;
    for (int64_t i = 0; i < MOST; i++) {
        const float half = dbt_half_to_float((uint16_t)i); /* every other: a half, or near one */
        floats[i] = i & 0x10000 ? dbt_bits_to_float((uint32_t)dbt_test_random(&seed))
                                : half * (1 + 0x1p-11f * (float)(i >> 17));
    }
    for (int64_t n = MOST - 1; n > MOST - 10; n--) {
        memset(got, 0xaa, sizeof got);
        memset(want, 0xaa, sizeof want);
        dbt_pack_elements(DIBIT_TYPE_FLOAT16, floats + 1, want + 1, n);
        dbt_pack_halves_avx2(floats + 1, got + 1, n);
        assert_memory_equal(got, want, sizeof got);
    }
#else
    skip();
#endif
}

/* Between every two neighbours: below, at and above the middle; the middle goes to the even one. */
static void test_float_to_half_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        const float lo = dbt_half_to_float((uint16_t)h), hi = dbt_half_to_float((uint16_t)(h + 1));
        const float middle = lo + (hi - lo) / 2;
        assert_int_equal(dbt_float_to_half(nextafterf(middle, lo)), h);
        assert_int_equal(dbt_float_to_half(middle), h % 2 ? h + 1 : h);
        assert_int_equal(dbt_float_to_half(nextafterf(middle, hi)), h + 1);
    }
    assert_int_equal(dbt_float_to_half(65519.996f), 0x7bff);
    assert_int_equal(dbt_float_to_half(65520.0f), 0x7c00);
    assert_int_equal(dbt_float_to_half(-1e30f), 0xfc00);
}

static void test_subbyte_types_unpack_low_bits_first(void **state) {
    (void)state;
    const uint8_t packed[2] = {0x8f, 0x73};
    uint8_t u[8];
    int8_t s[8];
    dbt_unpack_elements(DIBIT_TYPE_UINT4, packed, u, 3);
    assert_int_equal(u[0], 15);
    assert_int_equal(u[1], 8);
    assert_int_equal(u[2], 3);
    dbt_unpack_elements(DIBIT_TYPE_INT4, packed, s, 4);
    assert_int_equal(s[0], -1);
    assert_int_equal(s[1], -8);
    assert_int_equal(s[2], 3);
    assert_int_equal(s[3], 7);
    dbt_unpack_elements(DIBIT_TYPE_INT2, packed, s, 8);
    const int8_t want[8] = {-1, -1, 0, -2, -1, 0, -1, 1};
    assert_memory_equal(s, want, 8);
    uint8_t again[2];
    dbt_pack_elements(DIBIT_TYPE_INT2, s, again, 8);
    assert_memory_equal(again, packed, 2);
}

static void test_arena_is_zeroed_and_a_reset_keeps_its_largest_chunk(void **state) {
    (void)state;
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    for (size_t n = 1; n < 100000; n *= 3) {
        const unsigned char *const p = dbt_arena_alloc(&arena, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
        memset((void *)(uintptr_t)p, 0xff, n);
    }
    dbt_arena_reset(&arena);
    const uint64_t bytes = arena.bytes;
    const unsigned char *const p = dbt_arena_alloc(&arena, 50000);
    for (size_t i = 0; i < 50000; i++) assert_int_equal(p[i], 0);
    assert_int_equal(arena.bytes, bytes);
    assert_null(dbt_arena_array(&arena, UINT64_MAX / 2, 4));
    dbt_arena_free(&arena);
}

typedef struct counters {
    _Atomic int hits[1000];
    _Atomic int running[8];
} counters;

static void count_task(void *ctx, int64_t i, uint32_t thread) {
    counters *const c = ctx;
    if (c->running[thread]++ != 0) c->hits[i] += 100; /* two tasks with one thread number */
    c->hits[i]++;
    c->running[thread]--;
}

static void test_pool_runs_every_task_once(void **state) {
    (void)state;
    for (uint32_t threads = 1; threads <= 5 && threads <= dbt_os_max_threads(); threads++) {
        dbt_pool *pool = NULL;
        assert_int_equal(dbt_pool_create(NULL, threads, &pool, NULL), DIBIT_OK);
        assert_int_equal(dbt_pool_threads(pool), threads);
        for (int round = 0; round < 200; round++) {
            counters c = {0};
            const int64_t n = round * 5;
            dbt_parallel_for(pool, n, count_task, &c);
            for (int64_t i = 0; i < 1000; i++) assert_int_equal(c.hits[i], i < n ? 1 : 0);
        }
        for (int round = 0; round < 5000; round++) { /* so short that workers come late to most */
            counters c = {0};
            const int64_t n = 2 + round % 3;
            dbt_parallel_for(pool, n, count_task, &c);
            for (int64_t i = 0; i < 6; i++) assert_int_equal(c.hits[i], i < n ? 1 : 0);
        }
        dbt_pool_destroy(&pool);
        assert_null(pool);
    }
}

typedef struct prefetch_calls {
    uint32_t n_threads;
    char data[4096];
    _Atomic bool job; /* one is under way */
    _Atomic int calls, wrong;
    _Atomic int tasks;
} prefetch_calls;

static void prefetch_of(const void *ctx, uint32_t thread, uint32_t n_threads,
                        dbt_prefetch *prefetch) {
    prefetch_calls *const c = (prefetch_calls *)(uintptr_t)ctx;
    c->calls++;
    c->wrong += !c->job || thread >= n_threads || n_threads != c->n_threads;
    c->wrong += prefetch->n_spans != 0;
    dbt_prefetch_add(prefetch, c->data, sizeof c->data);
    dbt_prefetch_add(prefetch, c->data, 65);
}

static void short_task(void *ctx, int64_t i, uint32_t thread) {
    (void)i, (void)thread;
    ((prefetch_calls *)ctx)->tasks++;
}

static void test_pool_asks_what_to_prefetch_while_a_job_lasts(void **state) {
    (void)state;
    for (uint32_t threads = 2; threads <= 4 && threads <= dbt_os_max_threads(); threads++) {
        dbt_pool *pool = NULL;
        assert_int_equal(dbt_pool_create(NULL, threads, &pool, NULL), DIBIT_OK);
        prefetch_calls c = {.n_threads = threads};
        for (int round = 0; round < 3000; round++) {
            dbt_pool_prefetch(pool, prefetch_of, &c);
            c.job = true;
            dbt_parallel_for(pool, 6, short_task, &c);
            c.job = false;
            dbt_pool_prefetch(pool, NULL, NULL);
            if (round % 2) dbt_parallel_for(pool, 3, short_task, &c); /* asks for nothing */
        }
        assert_int_equal(c.tasks, 3000 * 6 + 1500 * 3);
        assert_int_equal(c.wrong, 0);
        if (threads == 2) {
            assert_in_range(c.calls, 3000, 3000 * threads);
        } else { /* who takes which task is chance */
            assert_int_equal(c.calls, 0);
        }
        dbt_pool_destroy(&pool);
    }
}

static void test_prefetch_has_room_for_some_spans(void **state) {
    (void)state;
    dbt_prefetch prefetch = {0};
    const char data[200] = {0};
    dbt_prefetch_add(&prefetch, data, 0);
    dbt_prefetch_add(&prefetch, data, -5);
    assert_int_equal(prefetch.n_spans, 0);
    for (int i = 1; i <= DBT_PREFETCH_SPANS + 5; i++) dbt_prefetch_add(&prefetch, data, i * 64 - 1);
    assert_int_equal(prefetch.n_spans, DBT_PREFETCH_SPANS);
    for (int i = 0; i < DBT_PREFETCH_SPANS; i++) {
        assert_int_equal(prefetch.spans[i].at, (uintptr_t)data);
        assert_int_equal(prefetch.spans[i].lines, i + 1);
    }
}

static void test_task_ranges_cover_everything_once(void **state) {
    (void)state;
    for (int64_t n = 1; n < 40; n++) {
        for (int64_t tasks = 1; tasks <= n; tasks++) {
            assert_int_equal(dbt_task_begin(n, tasks, 0), 0);
            assert_int_equal(dbt_task_begin(n, tasks, tasks), n);
            for (int64_t i = 0; i < tasks; i++) {
                assert_true(dbt_task_begin(n, tasks, i + 1) > dbt_task_begin(n, tasks, i));
            }
        }
    }
}

static void test_integers_become_words_and_come_back(void **state) {
    (void)state;
    const int64_t v[5] = {0, -1, INT32_MAX, INT32_MIN, 7};
    int32_t words[5];
    int64_t back[5];
    assert_true(dbt_integers_to_words(DIBIT_TYPE_INT64, v, words, 5));
    dbt_words_to_integers(DIBIT_TYPE_INT64, words, back, 5);
    assert_memory_equal(v, back, sizeof v);
    const int64_t beyond[2] = {INT64_C(1) << 31, INT64_C(1) << 32};
    assert_false(dbt_integers_to_words(DIBIT_TYPE_INT64, beyond, words, 1));
    assert_false(dbt_integers_to_words(DIBIT_TYPE_INT64, beyond + 1, words, 1));
    const uint32_t large = UINT32_MAX;
    assert_false(dbt_integers_to_words(DIBIT_TYPE_UINT32, &large, words, 1));
    const uint8_t bytes[2] = {200, 1};
    assert_true(dbt_integers_to_words(DIBIT_TYPE_UINT8, bytes, words, 2));
    assert_int_equal(words[0], 200);
    assert_true(dbt_integers_to_words(DIBIT_TYPE_INT8, bytes, words, 2));
    assert_int_equal(words[0], -56);
    int8_t small[2];
    dbt_words_to_integers(DIBIT_TYPE_INT8, words, small, 2);
    assert_memory_equal(small, bytes, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_half_survives_a_round_trip),
        cmocka_unit_test(test_float_to_half_rounds_to_nearest_even),
        cmocka_unit_test(test_packing_with_f16c),
        cmocka_unit_test(test_integers_become_words_and_come_back),
        cmocka_unit_test(test_subbyte_types_unpack_low_bits_first),
        cmocka_unit_test(test_arena_is_zeroed_and_a_reset_keeps_its_largest_chunk),
        cmocka_unit_test(test_pool_runs_every_task_once),
        cmocka_unit_test(test_pool_asks_what_to_prefetch_while_a_job_lasts),
        cmocka_unit_test(test_prefetch_has_room_for_some_spans),
        cmocka_unit_test(test_task_ranges_cover_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

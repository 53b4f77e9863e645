/* dbt_nbits_prefetch: what it asks for is what the threads' first tasks read first, and nothing else. */
#include <stdatomic.h>
#include <stdlib.h>

#include "dbt_test.h"

#include "ops/matmul_nbits/matmul_nbits.h"

enum { MAX_CHUNKS = 512 };
static struct {
    int64_t n_begin, n_end;
} chunks[MAX_CHUNKS];
static atomic_int n_chunks;

static void record(const dbt_nbits_task *task) {
    const int i = atomic_fetch_add(&n_chunks, 1);
    if (i >= MAX_CHUNKS) return; /* check() says so */
    chunks[i].n_begin = task->n_begin;
    chunks[i].n_end = task->n_end;
}

static void nothing(void *ctx, int64_t m_begin, int64_t m_end, int64_t n_begin, int64_t n_end) {
    (void)ctx, (void)m_begin, (void)m_end, (void)n_begin, (void)n_end;
}

static int by_begin(const void *a, const void *b) {
    const int64_t *const x = a, *const y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Of a matrix, what lies in rows of so many bytes. */
typedef struct part {
    const char *data;
    int64_t row_bytes;
} part;

static int parts_of(const dbt_matmul_nbits *p, part out[3]) {
    out[0] = (part){(const char *)p->b, dbt_nbits_row_bytes(p)};
    out[1] = (part){p->scales, dbt_nbits_scale_row_bytes(p)};
    out[2] = (part){p->zero_points, dbt_nbits_zero_point_row_bytes(p)};
    return p->zero_points ? 3 : 2;
}

/* How many spans begin where a stream of rows [begin, end) does; *wanted: how many such places there are. None goes
 * beyond its stream. */
static uint32_t count_streams(const dbt_matmul_nbits *p, int64_t begin, int64_t end,
                              const dbt_prefetch *prefetch, uint32_t *wanted) {
    part parts[3];
    const int n_parts = parts_of(p, parts);
    const int64_t step = (end - begin + DBT_NBITS_STREAMS - 1) / DBT_NBITS_STREAMS;
    uint32_t found = 0;
    *wanted = 0;
    for (int64_t n = begin; n < end; n += step) {
        const int64_t rows = end - n < step ? end - n : step;
        for (int i = 0; i < n_parts; i++, ++*wanted) {
            const uintptr_t first = (uintptr_t)(parts[i].data + n * parts[i].row_bytes);
            for (uint32_t s = 0; s < prefetch->n_spans; s++) {
                if (prefetch->spans[s].at != first) continue;
                assert_in_range(prefetch->spans[s].lines, 1, (rows * parts[i].row_bytes + 63) / 64);
                found++;
            }
        }
    }
    return found;
}

static void check(const dbt_matmul_nbits *p, const dbt_matmul_nbits *second, uint32_t n_threads) {
    const dbt_nbits_kernel kernel = {
        .name = "record", .run = record, .bits = p->bits, .n_tile = 16};
    dbt_pool *pool = NULL;
    assert_int_equal(dbt_pool_create(NULL, n_threads, &pool, NULL), DIBIT_OK);
    const uint32_t threads = dbt_pool_threads(pool); /* a build without threads has one */
    void *const memory = malloc(dbt_nbits_scratch_bytes(p, &kernel, threads) + 64);
    void *const scratch = (char *)memory + (64 - (uintptr_t)memory % 64) % 64;
    atomic_store(&n_chunks, 0);
    const dbt_nbits_pair pair = {.second = second, .then = nothing};
    dbt_nbits_execute_pair(p, NULL, &kernel, pool, scratch);
    if (second) { /* the split of a pair is another */
        atomic_store(&n_chunks, 0);
        dbt_nbits_execute_pair(p, &pair, &kernel, pool, scratch);
    }
    int n = atomic_load(&n_chunks);
    assert_in_range(n, 1, MAX_CHUNKS);
    qsort(chunks, (size_t)n, sizeof chunks[0], by_begin);
    for (int i = 0; second && i < n / 2; i++) chunks[i] = chunks[2 * i];
    if (second) n /= 2;
    for (uint32_t t = 0; t < threads; t++) {
        dbt_prefetch prefetch = {0};
        dbt_nbits_prefetch(p, second, &kernel, t, threads, &prefetch);
        int64_t lines = 0;
        for (uint32_t s = 0; s < prefetch.n_spans; s++) lines += prefetch.spans[s].lines;
        assert_true(lines * 64 <= (128 << 10) + 64 * DBT_PREFETCH_SPANS);
        if ((int)t >= n) {
            assert_int_equal(prefetch.n_spans, 0);
            continue;
        }
        uint32_t wanted, more = 0;
        const uint32_t found =
            count_streams(p, chunks[t].n_begin, chunks[t].n_end, &prefetch, &wanted);
        assert_int_equal(found, wanted);
        if (second)
            more = count_streams(second, chunks[t].n_begin, chunks[t].n_end, &prefetch, &wanted);
        assert_int_equal(found + more, prefetch.n_spans);
    }
    dbt_pool_destroy(&pool);
    free(memory);
}

static dbt_matmul_nbits problem(int64_t N, int64_t K, uint32_t bits, dibit_type zero_point_type) {
    return (dbt_matmul_nbits){.M = 1,
                              .N = N,
                              .K = K,
                              .k_blocks = (K + 31) / 32,
                              .block_size = 32,
                              .bits = bits,
                              .scale_type = DIBIT_TYPE_FLOAT,
                              .zero_point_type = zero_point_type};
}

static void test_first_bytes_of_first_tasks(void **state) {
    (void)state;
    static const dibit_type zero_points[] = {DIBIT_TYPE_UNDEFINED, DIBIT_TYPE_UINT8,
                                             DIBIT_TYPE_FLOAT};
    static const int64_t sizes[][2] = {{1, 32}, {17, 40}, {576, 576}, {1537, 600}, {5000, 4096}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (uint32_t bits = 1; bits <= 8; bits++) {
            for (size_t z = 0; z < 3; z++) {
                dbt_matmul_nbits p = problem(sizes[i][0], sizes[i][1], bits, zero_points[z]);
                /* Only addresses matter; nothing is read. */
                const int64_t b_bytes = p.N * dbt_nbits_row_bytes(&p);
                const int64_t s_bytes = p.N * dbt_nbits_scale_row_bytes(&p);
                const int64_t z_bytes = p.N * dbt_nbits_zero_point_row_bytes(&p);
                char *const memory = malloc((size_t)(2 * (b_bytes + s_bytes + z_bytes) + 1));
                p.b = (const uint8_t *)memory;
                p.scales = memory + b_bytes;
                if (z_bytes > 0) p.zero_points = memory + b_bytes + s_bytes;
                dbt_matmul_nbits second = p;
                second.b += b_bytes + s_bytes + z_bytes;
                second.scales = (const char *)second.b + b_bytes;
                if (z_bytes > 0) second.zero_points = (const char *)second.b + b_bytes + s_bytes;
                for (uint32_t threads = 1; threads <= 5; threads += 2) {
                    check(&p, NULL, threads);
                    check(&p, &second, threads);
                }
                free(memory);
            }
        }
    }
}

static void test_many_rows_ask_for_nothing(void **state) {
    (void)state;
    dbt_matmul_nbits p = problem(4096, 4096, 2, DIBIT_TYPE_UNDEFINED);
    static const uint8_t b, scale;
    p.b = &b;
    p.scales = &scale;
    const dbt_nbits_kernel kernel = {.run = record, .bits = 2, .n_tile = 16};
    for (p.M = 0; p.M < 300; p.M++) {
        dbt_prefetch prefetch = {0};
        dbt_nbits_prefetch(&p, NULL, &kernel, 0, 2, &prefetch);
        assert_int_equal(prefetch.n_spans > 0, p.M >= 1 && p.M <= 4);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_bytes_of_first_tasks),
        cmocka_unit_test(test_many_rows_ask_for_nothing),
    };
    return cmocka_run_group_tests_name("nbits_prefetch", tests, NULL, NULL);
}

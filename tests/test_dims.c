/* graph/dims: the normal form (equal expressions are the same handle) and evaluation. */
#include "dbt_test.h"

#include "graph/dims.h"

typedef struct fixture {
    dbt_arena arena;
    dbt_dims *dims;
    dbt_dim batch, seq, past;
} fixture;

static fixture setup(void) {
    fixture f = {0};
    dbt_arena_init(&f.arena, NULL);
    return f;
}

static void start(fixture *f) {
    f->dims = dbt_dims_create(&f->arena);
    f->batch = dbt_dim_symbol(f->dims, "batch");
    f->seq = dbt_dim_symbol(f->dims, "seq");
    f->past = dbt_dim_symbol(f->dims, "past");
}

static void assert_text(const fixture *f, dbt_dim d, const char *want) {
    char text[128];
    dbt_dim_text(f->dims, d, text, sizeof text);
    assert_string_equal(text, want);
}

static void test_equal_expressions_are_one_handle(void **state) {
    (void)state;
    fixture f = setup();
    start(&f);
    dbt_dims *const d = f.dims;
    assert_int_equal(dbt_dim_symbol(d, "seq"), f.seq);
    const dbt_dim total = dbt_dim_apply(d, DBT_DIM_ADD, f.past, f.seq);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_ADD, f.seq, f.past), total);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_SUB, total, f.past), f.seq);
    assert_true(dbt_dim_is(d, dbt_dim_apply(d, DBT_DIM_SUB, total, total), 0));
    const dbt_dim k64 = dbt_dim_const(d, 64);
    const dbt_dim bs = dbt_dim_apply(d, DBT_DIM_MUL, f.batch, f.seq);
    const dbt_dim bs64 = dbt_dim_apply(d, DBT_DIM_MUL, k64, bs);
    assert_int_equal(
        dbt_dim_apply(d, DBT_DIM_MUL, dbt_dim_apply(d, DBT_DIM_MUL, f.seq, k64), f.batch), bs64);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_DIV, bs64, k64), bs);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_DIV, bs64, bs), k64);
    assert_int_equal(
        dbt_dim_apply(d, DBT_DIM_DIV, dbt_dim_apply(d, DBT_DIM_MUL, f.batch, total), f.batch),
        total);
    assert_text(&f, total, "seq + past");
    assert_text(&f, dbt_dim_apply(d, DBT_DIM_SUB, dbt_dim_const(d, -1), bs64), "-64*batch*seq - 1");
    assert_text(&f, dbt_dim_apply(d, DBT_DIM_MAX, f.past, f.seq), "max(seq, past)");
    dbt_arena_free(&f.arena);
}

static void test_reshape_quotient_cancels(void **state) {
    (void)state;
    fixture f = setup();
    start(&f);
    dbt_dims *const d = f.dims;
    const dbt_dim total = dbt_dim_apply(d, DBT_DIM_ADD, f.past, f.seq);
    const dbt_dim from[] = {f.batch, total, dbt_dim_const(d, 128)};
    const dbt_dim to[] = {f.batch, total, dbt_dim_const(d, 4)};
    assert_true(dbt_dim_is(d, dbt_dim_quotient(d, from, 3, to, 3), 32));
    assert_int_equal(dbt_dim_quotient(d, from, 3, &to[2], 1),
                     dbt_dim_apply(d, DBT_DIM_MUL, dbt_dim_const(d, 32),
                                   dbt_dim_apply(d, DBT_DIM_MUL, f.batch, total)));
    dbt_arena_free(&f.arena);
}

static void test_broadcast_and_select(void **state) {
    (void)state;
    fixture f = setup();
    start(&f);
    dbt_dims *const d = f.dims;
    const dbt_dim one = dbt_dim_const(d, 1), five = dbt_dim_const(d, 5);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_BROADCAST, one, f.seq), f.seq);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_BROADCAST, f.seq, one), f.seq);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_BROADCAST, f.seq, five), five);
    const dbt_dim either = dbt_dim_apply(d, DBT_DIM_BROADCAST, f.past, f.seq);
    assert_int_equal(either, dbt_dim_apply(d, DBT_DIM_BROADCAST, f.seq, f.past));
    const dbt_dim chosen =
        dbt_dim_select(d, dbt_dim_apply(d, DBT_DIM_LESS, f.seq, five), f.seq, f.past);
    int64_t values[64];
    assert_true(dbt_dims_count(d) <= 64);
    dbt_dims_reset(d, values);
    values[f.seq] = 1;
    dbt_dims_evaluate(d, values);
    assert_true(values[either] == DBT_DIM_UNRESOLVED);
    assert_int_equal(values[chosen], 1);
    values[f.past] = 7;
    dbt_dims_evaluate(d, values);
    assert_int_equal(values[either], 7);
    values[f.seq] = 9;
    dbt_dims_evaluate(d, values);
    assert_int_equal(values[chosen], 7);
    dbt_arena_free(&f.arena);
}

static void test_overflow_is_unknown_not_wrong(void **state) {
    (void)state;
    fixture f = setup();
    start(&f);
    dbt_dims *const d = f.dims;
    const dbt_dim huge = dbt_dim_const(d, INT64_MAX / 2);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_MUL, huge, dbt_dim_const(d, 3)), DBT_DIM_NONE);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_DIV, huge, dbt_dim_const(d, 0)), DBT_DIM_NONE);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_ADD, DBT_DIM_NONE, huge), DBT_DIM_NONE);
    const dbt_dim product = dbt_dim_apply(d, DBT_DIM_MUL, huge, f.seq);
    int64_t values[64];
    dbt_dims_reset(d, values);
    values[f.seq] = 3;
    dbt_dims_evaluate(d, values);
    assert_true(values[product] == DBT_DIM_UNRESOLVED);
    dbt_arena_free(&f.arena);
}

/* Random expressions: the normal form evaluates to what direct arithmetic gives. */
static void test_random_expressions_evaluate_like_arithmetic(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 300; round++) {
        fixture f = setup();
        start(&f);
        const int64_t env[3] = {2, 5, (int64_t)(dbt_test_random(&seed) % 9)};
        dbt_dim handles[40] = {f.batch, f.seq, f.past};
        int64_t expected[40] = {env[0], env[1], env[2]};
        int n = 3;
        while (n < 40) {
            const int a = (int)(dbt_test_random(&seed) % (uint64_t)n);
            const int b = (int)(dbt_test_random(&seed) % (uint64_t)n);
            const int op = (int)(dbt_test_random(&seed) % 7);
            const int64_t x = expected[a], y = expected[b];
            if (x > 10000 || x < -10000 || y > 10000 || y < -10000) {
                handles[n] = dbt_dim_const(f.dims, n);
                expected[n] = n;
                n++;
                continue;
            }
            static const dbt_dim_op ops[] = {DBT_DIM_ADD, DBT_DIM_SUB,   DBT_DIM_MUL, DBT_DIM_MIN,
                                             DBT_DIM_MAX, DBT_DIM_EQUAL, DBT_DIM_LESS};
            const int64_t values[] = {x + y,         x - y,  x * y, x < y ? x : y,
                                      x > y ? x : y, x == y, x < y};
            handles[n] = dbt_dim_apply(f.dims, ops[op], handles[a], handles[b]);
            expected[n++] = values[op];
        }
        int64_t *const values = calloc((size_t)dbt_dims_count(f.dims), sizeof *values);
        dbt_dims_reset(f.dims, values);
        for (int i = 0; i < 3; i++) values[handles[i]] = env[i];
        dbt_dims_evaluate(f.dims, values);
        for (int i = 0; i < n; i++) assert_int_equal(values[handles[i]], expected[i]);
        free(values);
        dbt_arena_free(&f.arena);
    }
}

static void test_sizes_decide_comparisons(void **state) {
    (void)state;
    fixture f = setup();
    start(&f);
    dbt_dims *const d = f.dims;
    const dbt_dim zero = dbt_dim_const(d, 0), any = dbt_dim_number(d, "any");
    const dbt_dim total = dbt_dim_apply(d, DBT_DIM_ADD, f.past, f.seq);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_MAX, zero, f.seq), f.seq);
    assert_int_equal(dbt_dim_apply(d, DBT_DIM_MIN, total, f.seq), f.seq);
    assert_true(dbt_dim_is(d, dbt_dim_apply(d, DBT_DIM_LESS, total, f.past), 0));
    assert_true(dbt_dim_is(d, dbt_dim_apply(d, DBT_DIM_LESS_EQUAL, f.past, total), 1));
    assert_true(dbt_dim_is(d, dbt_dim_apply(d, DBT_DIM_EQUAL, f.seq, dbt_dim_const(d, -1)), 0));
    assert_false(dbt_dim_is_const(d, dbt_dim_apply(d, DBT_DIM_LESS, zero, f.seq), NULL));
    assert_false(dbt_dim_is_const(d, dbt_dim_apply(d, DBT_DIM_EQUAL, f.seq, zero), NULL));
    assert_false(dbt_dim_is_const(d, dbt_dim_apply(d, DBT_DIM_LESS, any, zero), NULL));
    assert_true(dbt_dim_apply(d, DBT_DIM_MAX, any, zero) != any);
    dbt_arena_free(&f.arena);
}

/* Terms that are shared would be written again and again: 32^15 of them here. */
static void test_text_of_a_huge_expression_is_cut(void **state) {
    (void)state;
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    dbt_dims *const dims = dbt_dims_create(&arena);
    dbt_dim level[32];
    for (int i = 0; i < 32; i++) {
        char name[2] = {(char)('A' + i), 0};
        level[i] = dbt_dim_number(dims, name);
    }
    dbt_dim sum = DBT_DIM_NONE;
    for (int depth = 0; depth < 15; depth++) {
        sum = dbt_dim_const(dims, 1);
        for (int i = 0; i < 32; i++) sum = dbt_dim_apply(dims, DBT_DIM_ADD, sum, level[i]);
        for (int i = 0; i < 32; i++) {
            level[i] = dbt_dim_apply(dims, DBT_DIM_MOD, sum, dbt_dim_const(dims, i + 2));
        }
    }
    char text[64];
    dbt_dim_text(dims, sum, text, sizeof text);
    assert_int_equal(strlen(text), sizeof text - 1);
    dbt_arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_expressions_are_one_handle),
        cmocka_unit_test(test_reshape_quotient_cancels),
        cmocka_unit_test(test_broadcast_and_select),
        cmocka_unit_test(test_sizes_decide_comparisons),
        cmocka_unit_test(test_overflow_is_unknown_not_wrong),
        cmocka_unit_test(test_random_expressions_evaluate_like_arithmetic),
        cmocka_unit_test(test_text_of_a_huge_expression_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* MatMul, Gemm and FusedMatMul against sums written out here, on every kernel family. */
#include "dbt_test.h"

#include "base/cpu.h"
#include "op_harness.h"
#include "ops/matmul/gemm.h"

enum { MAX = 40000 };
static float a_data[MAX], b_data[MAX], c_data[MAX], want_data[MAX];
static uint8_t b_bytes[MAX * 8 + 1];
static uint64_t seed = 11;

static void fill(float *x, int64_t n, bool integers) {
    for (int64_t i = 0; i < n; i++) {
        x[i] = integers ? (float)((int)(dbt_test_random(&seed) % 9) - 4)
                        : dbt_test_uniform(&seed, -1, 1);
    }
}

/* Runs the case with each family and compares with want_data. */
static void expect(dbt_op_case *c, const dibit_tensor *y) {
    for (int portable = 0; portable < 2; portable++) {
        for (int constant = 0; constant < 2; constant++) {
            c->isa = portable ? DIBIT_ISA_PORTABLE : 0;
            c->constants = constant ? 2 : 0;
            dbt_op_case_expect(c, 0, y);
        }
    }
}

/* y = alpha * A B + beta * C of plain matrices, stored transposed where asked. */
static void run_gemm(int64_t M, int64_t N, int64_t K, bool trans_a, bool trans_b, int c_rank,
                     bool integers) {
    fill(a_data, M * K, integers);
    fill(b_data, K * N, integers);
    const int64_t rows = c_rank == 2 ? M : 1, columns = c_rank >= 1 ? N : 1;
    fill(c_data, rows * columns, integers);
    const float alpha = c_rank >= 0 ? 0.5f : 1.0f, beta = 2.0f;
    for (int64_t m = 0; m < M; m++) {
        for (int64_t n = 0; n < N; n++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++) {
                sum += (double)a_data[trans_a ? k * M + m : m * K + k] *
                       (double)b_data[trans_b ? n * K + k : k * N + n];
            }
            const double c =
                c_rank < 0 ? 0 : (double)c_data[(rows == 1 ? 0 : m * N) + (columns == 1 ? 0 : n)];
            want_data[m * N + n] = (float)((double)alpha * sum + (double)beta * c);
        }
    }
    const dibit_tensor inputs[3] = {
        DBT_TENSOR(DIBIT_TYPE_FLOAT, a_data, trans_a ? K : M, trans_a ? M : K),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, b_data, trans_b ? N : K, trans_b ? K : N),
        {.name = "c",
         .type = DIBIT_TYPE_FLOAT,
         .rank = c_rank < 0 ? 0 : c_rank,
         .dims = {c_rank == 2 ? M : N, N},
         .data = c_data},
    };
    const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_FLOAT, want_data, M, N);
    const dbt_onnx_attr attrs[] = {DBT_INT("transA", trans_a), DBT_INT("transB", trans_b),
                                   DBT_FLOAT("alpha", alpha), DBT_FLOAT("beta", beta)};
    dbt_op_case c = {.name = "Gemm",
                     .opset = 13,
                     .attrs = attrs,
                     .n_attrs = 4,
                     .inputs = inputs,
                     .n_inputs = c_rank < 0 ? 2 : 3};
    expect(&c, &y);
    dbt_op_case fused = {.domain = "com.microsoft",
                         .name = "FusedMatMul",
                         .opset = 1,
                         .attrs = attrs,
                         .n_attrs = 3,
                         .inputs = inputs,
                         .n_inputs = 2};
    if (c_rank < 0) expect(&fused, &y);
}

static void test_gemm_shapes(void **state) {
    (void)state;
    static const int64_t ms[] = {1, 2, 4, 5, 6, 7, 13, 121}, ns[] = {1, 7, 16, 17, 63, 64, 65, 130};
    static const int64_t ks[] = {1, 3, 8, 15, 127, 128, 129, 260};
    for (int i = 0; i < 150; i++) {
        const int64_t M = ms[dbt_test_random(&seed) % 8], N = ns[dbt_test_random(&seed) % 8];
        const int64_t K = ks[dbt_test_random(&seed) % 8];
        if (M * K > MAX || K * N > MAX || M * N > MAX) continue;
        run_gemm(M, N, K, i & 1, i & 2, i % 5 == 4 ? 2 : i % 5 - 1 > 2 ? 2 : i % 5 - 1, i & 4);
    }
}

static void test_gemm_without_columns_is_c(void **state) {
    (void)state;
    run_gemm(3, 5, 0, false, false, 1, false);
    run_gemm(7, 5, 0, false, true, 2, false);
}

/* numpy.matmul over ranks 1 to 4 with broadcast batches. */
static void test_matmul_ranks_and_batches(void **state) {
    (void)state;
    static const struct {
        int32_t ra, rb, ry;
        int64_t a[4], b[4], y[4];
    } shapes[] = {
        {1, 1, 0, {9}, {9}, {0}},
        {1, 2, 1, {9}, {9, 5}, {5}},
        {2, 1, 1, {4, 9}, {9}, {4}},
        {3, 2, 3, {2, 3, 9}, {9, 5}, {2, 3, 5}},
        {3, 2, 3, {2, 30, 9}, {9, 70}, {2, 30, 70}},
        {2, 3, 3, {3, 9}, {2, 9, 5}, {2, 3, 5}},
        {4, 4, 4, {2, 1, 7, 9}, {1, 3, 9, 5}, {2, 3, 7, 5}},
        {4, 3, 4, {2, 3, 7, 9}, {3, 9, 5}, {2, 3, 7, 5}},
        {1, 3, 2, {9}, {2, 9, 5}, {2, 5}},
        {3, 1, 2, {2, 6, 9}, {9}, {2, 6}},
        {2, 2, 2, {0, 9}, {9, 5}, {0, 5}},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        dibit_tensor in[2] = {
            {.name = "a", .type = DIBIT_TYPE_FLOAT, .rank = shapes[s].ra, .data = a_data},
            {.name = "b", .type = DIBIT_TYPE_FLOAT, .rank = shapes[s].rb, .data = b_data}};
        dibit_tensor y = {
            .name = "y", .type = DIBIT_TYPE_FLOAT, .rank = shapes[s].ry, .data = want_data};
        memcpy(in[0].dims, shapes[s].a, sizeof shapes[s].a);
        memcpy(in[1].dims, shapes[s].b, sizeof shapes[s].b);
        memcpy(y.dims, shapes[s].y, sizeof shapes[s].y);
        fill(a_data, dbt_tensor_count(&in[0]), false);
        fill(b_data, dbt_tensor_count(&in[1]), false);
        /* Both as [2][3][rows][columns] with strides. */
        const int32_t ra = shapes[s].ra, rb = shapes[s].rb;
        const int64_t M = ra > 1 ? shapes[s].a[ra - 2] : 1, K = 9,
                      N = rb > 1 ? shapes[s].b[rb - 1] : 1;
        int64_t da[2] = {ra > 3 ? in[0].dims[ra - 4] : 1, ra > 2 ? in[0].dims[ra - 3] : 1};
        int64_t db[2] = {rb > 3 ? in[1].dims[rb - 4] : 1, rb > 2 ? in[1].dims[rb - 3] : 1};
        int64_t n_y = 0;
        for (int64_t i = 0; i < (da[0] > db[0] ? da[0] : db[0]); i++) {
            for (int64_t j = 0; j < (da[1] > db[1] ? da[1] : db[1]); j++) {
                const float *const a =
                    a_data + ((da[0] == 1 ? 0 : i) * da[1] + (da[1] == 1 ? 0 : j)) * M * K;
                const float *const b =
                    b_data + ((db[0] == 1 ? 0 : i) * db[1] + (db[1] == 1 ? 0 : j)) * K * N;
                for (int64_t mn = 0; mn < M * N; mn++) {
                    double sum = 0;
                    for (int64_t k = 0; k < K; k++)
                        sum += (double)a[mn / N * K + k] * (double)b[k * N + mn % N];
                    want_data[n_y++] = (float)sum;
                }
            }
        }
        dbt_op_case c = {.name = "MatMul", .opset = 13, .inputs = in, .n_inputs = 2};
        expect(&c, &y);
    }
}

/* A of [M, b1, b2, K] with transBatchA is [b1, b2, M, K]. */
/* So many products of so many rows that a device takes its largest tiles. */
static void test_many_large_products(void **state) {
    (void)state;
    enum { B = 32, M = 130, N = 131, K = 9 };
    static float y_data[B * M * N];
    fill(a_data, B * M * K, true);
    fill(b_data, B * K * N, true);
    for (int64_t i = 0; i < B * M * N; i++) {
        const int64_t batch = i / (M * N), m = i / N % M, n = i % N;
        float sum = 0;
        for (int64_t k = 0; k < K; k++) {
            sum += a_data[(batch * M + m) * K + k] * b_data[(batch * K + k) * N + n];
        }
        y_data[i] = sum;
    }
    const dibit_tensor in[2] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, a_data, B, M, K),
                                DBT_TENSOR(DIBIT_TYPE_FLOAT, b_data, B, K, N)};
    const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_FLOAT, y_data, B, M, N);
    const dbt_op_case c = {.name = "MatMul", .opset = 13, .inputs = in, .n_inputs = 2};
    dbt_op_case_expect(&c, 0, &y);
}

static void test_fused_matmul_batch_transposes(void **state) {
    (void)state;
    enum { M = 5, B = 3, K = 9, N = 6 };
    for (int mode = 0; mode < 16; mode++) {
        const bool ta = mode & 1, tb = mode & 2, ba = mode & 4, bb = mode & 8;
        fill(a_data, M * B * K, false);
        fill(b_data, N * B * K, false);
        int64_t da[3], db[3], sa[3], sb[3]; /* dims and strides of [batch, row, column] */
        const int64_t row_a = ta ? K : M, column_a = ta ? M : K, row_b = tb ? N : K,
                      column_b = tb ? K : N;
        da[0] = ba ? row_a : B, da[1] = ba ? B : row_a, da[2] = column_a;
        db[0] = bb ? row_b : B, db[1] = bb ? B : row_b, db[2] = column_b;
        sa[0] = ba ? column_a : row_a * column_a, sa[1] = ba ? B * column_a : column_a, sa[2] = 1;
        sb[0] = bb ? column_b : row_b * column_b, sb[1] = bb ? B * column_b : column_b, sb[2] = 1;
        for (int64_t i = 0; i < B * M * N; i++) {
            const int64_t b = i / (M * N), m = i / N % M, n = i % N;
            double sum = 0;
            for (int64_t k = 0; k < K; k++) {
                sum += (double)a_data[b * sa[0] + (ta ? k : m) * sa[1] + (ta ? m : k) * sa[2]] *
                       (double)b_data[b * sb[0] + (tb ? n : k) * sb[1] + (tb ? k : n) * sb[2]];
            }
            want_data[i] = (float)(0.25 * sum);
        }
        const dibit_tensor in[2] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, a_data, da[0], da[1], da[2]),
                                    DBT_TENSOR(DIBIT_TYPE_FLOAT, b_data, db[0], db[1], db[2])};
        const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_FLOAT, want_data, B, M, N);
        const dbt_onnx_attr attrs[] = {DBT_INT("transA", ta), DBT_INT("transB", tb),
                                       DBT_INT("transBatchA", ba), DBT_INT("transBatchB", bb),
                                       DBT_FLOAT("alpha", 0.25f)};
        dbt_op_case c = {.domain = "com.microsoft",
                         .name = "FusedMatMul",
                         .opset = 1,
                         .attrs = attrs,
                         .n_attrs = 5,
                         .inputs = in,
                         .n_inputs = 2};
        expect(&c, &y);
    }
}

/* Weights are read in the file's type, at any address. */
static void test_raw_weight_types(void **state) {
    (void)state;
    static const dibit_type types[] = {DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT16, DIBIT_TYPE_BFLOAT16,
                                       DIBIT_TYPE_DOUBLE};
    for (int t = 0; t < 4; t++) {
        for (int mode = 0; mode < 4; mode++) {
            const int64_t M = mode & 1 ? 3 : 20, K = 70, N = 75;
            const bool transposed = mode & 2;
            fill(a_data, M * K, true);
            fill(b_data, K * N, true);
            static uint8_t a_bytes[MAX];
            dbt_pack_elements(types[t], a_data, a_bytes, M * K);
            dbt_pack_elements(types[t], b_data, b_bytes + 1, K * N); /* an odd address */
            for (int64_t i = 0; i < M * N; i++) {
                double sum = 0;
                for (int64_t k = 0; k < K; k++) {
                    sum += (double)a_data[i / N * K + k] *
                           (double)b_data[transposed ? i % N * K + k : k * N + i % N];
                }
                want_data[i] = (float)sum;
            }
            const dibit_tensor in[2] = {
                DBT_TENSOR(types[t], a_bytes, M, K),
                DBT_TENSOR(types[t], b_bytes + 1, transposed ? N : K, transposed ? K : N)};
            const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_FLOAT, want_data, M, N);
            const dbt_onnx_attr attrs[] = {DBT_INT("transB", transposed)};
            dbt_op_case c = {.name = "Gemm",
                             .opset = 13,
                             .attrs = attrs,
                             .n_attrs = 1,
                             .inputs = in,
                             .n_inputs = 2};
            expect(&c, &y);
        }
    }
}

static void test_integers_wrap_around(void **state) {
    (void)state;
    static const int32_t a[6] = {1, 2, 3, INT32_MAX, -1, 0}, b[6] = {1, -1, 2, -2, 3, -3};
    static const int32_t want[4] = {14, -14, INT32_MAX - 2,
                                    (int32_t)(0u - (uint32_t)INT32_MAX + 2u)};
    const dibit_tensor in[2] = {DBT_TENSOR(DIBIT_TYPE_INT32, a, 2, 3),
                                DBT_TENSOR(DIBIT_TYPE_INT32, b, 3, 2)};
    const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_INT32, want, 2, 2);
    dbt_op_case c = {.name = "MatMul", .opset = 13, .inputs = in, .n_inputs = 2};
    expect(&c, &y);
    static const int64_t a64[2] = {1ll << 40, 3}, b64[2] = {5, -7},
                         want64[1] = {5 * (1ll << 40) - 21};
    const dibit_tensor in64[2] = {DBT_TENSOR(DIBIT_TYPE_INT64, a64, 2),
                                  DBT_TENSOR(DIBIT_TYPE_INT64, b64, 2)};
    const dibit_tensor y64 = DBT_SCALAR(DIBIT_TYPE_INT64, want64);
    c.inputs = in64;
    expect(&c, &y64);
}

static void test_infinity_and_nan_pass(void **state) {
    (void)state;
    static const float a[5] = {1, 1, 1, 1, 1}, b[5] = {1, 2, 3, 4, INFINITY};
    for (int portable = 0; portable < 2; portable++) {
        const dibit_tensor in[2] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, a, 1, 5),
                                    DBT_TENSOR(DIBIT_TYPE_FLOAT, b, 5, 1)};
        const dbt_op_case c = {.name = "MatMul",
                               .opset = 13,
                               .inputs = in,
                               .n_inputs = 2,
                               .isa = portable ? DIBIT_ISA_PORTABLE : 0};
        dbt_op_result result;
        assert_int_equal(dbt_op_case_run(&c, &result, NULL), DIBIT_OK);
        assert_true(isinf(((const float *)result.out[0].data)[0]));
        dbt_op_result_free(&result);
    }
}

static void test_refusals(void **state) {
    (void)state;
    dibit_tensor in[3] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, a_data, 2, 3),
                          DBT_TENSOR(DIBIT_TYPE_FLOAT, b_data, 4, 2),
                          DBT_TENSOR(DIBIT_TYPE_FLOAT, c_data, 5)};
    dbt_op_case c = {.name = "MatMul", .opset = 13, .inputs = in, .n_inputs = 2};
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "dim 0 of input 1");
    in[1].dims[0] = 3;
    c.name = "Gemm";
    c.n_inputs = 3;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "dim 0 of input 2");
    in[1].type = DIBIT_TYPE_INT32;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "same type");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm_shapes),
        cmocka_unit_test(test_gemm_without_columns_is_c),
        cmocka_unit_test(test_matmul_ranks_and_batches),
        cmocka_unit_test(test_many_large_products),
        cmocka_unit_test(test_fused_matmul_batch_transposes),
        cmocka_unit_test(test_raw_weight_types),
        cmocka_unit_test(test_integers_wrap_around),
        cmocka_unit_test(test_infinity_and_nan_pass),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

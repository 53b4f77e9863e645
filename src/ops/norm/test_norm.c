/* Normalization ops against double references; shapes around the kernel's 16 lanes. */
#include "dbt_test.h"
#include "op_harness.h"

enum { MAX = 4096 };

static float *fill(float *x, int64_t n, uint64_t seed, float lo, float hi) {
    for (int64_t i = 0; i < n; i++) x[i] = dbt_test_uniform(&seed, lo, hi);
    return x;
}

/* gain and shift of m elements, repeated; either may be NULL. */
static void reference(const float *x, int64_t rows, int64_t n, bool centred, double epsilon,
                      const float *gain, const float *shift, int64_t m, float *y, float *mean,
                      float *inv) {
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0, square = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)x[r * n + i];
        const double mu = centred ? sum / (double)n : 0;
        for (int64_t i = 0; i < n; i++) square += pow((double)x[r * n + i] - mu, 2);
        const double s = 1 / sqrt(square / (double)n + epsilon);
        if (mean) mean[r] = (float)mu;
        if (inv) inv[r] = (float)s;
        for (int64_t i = 0; i < n; i++) {
            const double g = gain ? (double)gain[i % m] : 1, b = shift ? (double)shift[i % m] : 0;
            y[r * n + i] = (float)(((double)x[r * n + i] - mu) * s * g + b);
        }
    }
}

static void test_layer_norm_over_the_last_axis(void **state) {
    (void)state;
    static float x[MAX], gain[MAX], shift[MAX], y[MAX], mean[MAX], inv[MAX];
    static const int64_t sizes[] = {1, 2, 15, 16, 17, 33, 64, 300};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const int64_t n = sizes[k];
        fill(x, 6 * n, 1, 2, 4); /* a mean well away from 0 */
        fill(gain, n, 2, -2, 2);
        fill(shift, n, 3, -1, 1);
        reference(x, 6, n, true, 1e-5, gain, shift, n, y, mean, inv);
        const dibit_tensor in[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 3, n),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, gain, n),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, shift, n)};
        const dibit_tensor out[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 2, 3, n),
                                    DBT_TENSOR(DIBIT_TYPE_FLOAT, mean, 2, 3, 1),
                                    DBT_TENSOR(DIBIT_TYPE_FLOAT, inv, 2, 3, 1)};
        dbt_op_case c = {
            .name = "LayerNormalization", .opset = 17, .inputs = in, .n_inputs = 3, .n_outputs = 3};
        for (uint32_t i = 0; i < 3; i++) dbt_op_case_expect(&c, i, &out[i]);
        c.absent_outputs = 1;
        dbt_op_case_expect(&c, 2, &out[2]);
    }
}

/* More rows than a device has workgroups in one dimension. */
static void test_norm_of_many_rows(void **state) {
    (void)state;
    enum { ROWS = 70000, N = 2 };
    static float x[ROWS * N], y[ROWS * N];
    const float gain[N] = {0.5f, -3};
    fill(x, ROWS * N, 4, -1, 1);
    reference(x, ROWS, N, false, 1e-5, gain, NULL, N, y, NULL, NULL);
    const dibit_tensor in[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, ROWS, N),
                               DBT_TENSOR(DIBIT_TYPE_FLOAT, gain, N)};
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, y, ROWS, N);
    dbt_op_case_expect(
        &(dbt_op_case){.name = "RMSNormalization", .opset = 23, .inputs = in, .n_inputs = 2}, 0,
        &out);
}

static void test_layer_norm_over_several_axes(void **state) {
    (void)state;
    static float x[MAX], gain[MAX], y[MAX];
    fill(x, 2 * 60, 1, -1, 3);
    fill(gain, 60, 2, -2, 2);
    const dbt_onnx_attr attrs[] = {DBT_INT("axis", 1), DBT_FLOAT("epsilon", 0.5f)};
    /* The whole normalized shape, its last dim, and a scalar. */
    const int64_t dims[3][3] = {{3, 4, 5}, {1, 1, 5}, {1, 1, 1}};
    for (int k = 0; k < 3; k++) {
        const int64_t m = dims[k][0] * dims[k][1] * dims[k][2];
        reference(x, 2, 60, false, 0.5, gain, NULL, m, y, NULL, NULL);
        const dibit_tensor in[] = {
            DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 3, 4, 5),
            DBT_TENSOR(DIBIT_TYPE_FLOAT, gain, dims[k][0], dims[k][1], dims[k][2])};
        const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 2, 3, 4, 5);
        dbt_op_case_expect(&(dbt_op_case){.name = "RMSNormalization",
                                          .opset = 23,
                                          .inputs = in,
                                          .n_inputs = 2,
                                          .attrs = attrs,
                                          .n_attrs = 2},
                           0, &out);
    }
}

static void test_simplified_norm_in_both_domains(void **state) {
    (void)state;
    static float x[MAX], gain[MAX], y[MAX], inv[MAX];
    fill(x, 5 * 70, 1, -1, 1);
    fill(gain, 70, 2, 0, 2);
    reference(x, 5, 70, false, 1e-6, gain, NULL, 70, y, NULL, inv);
    const dbt_onnx_attr attrs[] = {DBT_FLOAT("epsilon", 1e-6f), DBT_INT("stash_type", 1)};
    const dibit_tensor in[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 5, 70),
                               DBT_TENSOR(DIBIT_TYPE_FLOAT, gain, 70)};
    const dibit_tensor out[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 5, 70),
                                DBT_TENSOR(DIBIT_TYPE_FLOAT, inv, 5, 1)};
    static const char *const domains[] = {"", "com.microsoft"};
    for (int d = 0; d < 2; d++) {
        const dbt_op_case c = {.domain = domains[d],
                               .name = "SimplifiedLayerNormalization",
                               .opset = 1,
                               .inputs = in,
                               .n_inputs = 2,
                               .attrs = attrs,
                               .n_attrs = 2,
                               .n_outputs = 2};
        for (uint32_t i = 0; i < 2; i++) dbt_op_case_expect(&c, i, &out[i]);
    }
}

/* x[2,3,20] with skips of every broadcastable shape, with and without bias and beta. */
static void test_skip_norms(void **state) {
    (void)state;
    static float x[MAX], skip[MAX], gain[MAX], beta[MAX], bias[MAX], sum[MAX], y[MAX], inv[MAX],
        mean[MAX];
    enum { N = 20, ROWS = 6 };
    fill(x, ROWS * N, 1, -1, 1);
    fill(skip, ROWS * N, 2, -3, 3);
    fill(gain, N, 3, -1, 2);
    fill(beta, N, 4, -1, 1);
    fill(bias, N, 5, -1, 1);
    for (int mask = 0; mask < 24; mask++) {
        const bool layer = mask & 1, has_bias = mask & 2, has_beta = mask & 4;
        const int shape = mask / 8; /* of skip: like x, [1,3,N], [3,N] */
        for (int i = 0; i < ROWS * N; i++) {
            sum[i] = x[i] + skip[shape ? i % (3 * N) : i];
            if (has_bias) sum[i] += bias[i % N];
        }
        reference(sum, ROWS, N, layer, 1e-12, gain, layer && has_beta ? beta : NULL, N, y, mean,
                  inv);
        dibit_tensor in[5] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 3, N),
                              DBT_TENSOR(DIBIT_TYPE_FLOAT, skip, shape ? 1 : 2, 3, N),
                              DBT_TENSOR(DIBIT_TYPE_FLOAT, gain, N)};
        const dibit_tensor vector = DBT_TENSOR(DIBIT_TYPE_FLOAT, bias, N);
        if (shape == 2) in[1] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, skip, 3, N);
        if (has_bias) in[layer ? 4 : 3] = vector;
        if (layer && has_beta) in[3] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, beta, N);
        const dibit_tensor out[] = {
            DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 2, 3, N), DBT_TENSOR(DIBIT_TYPE_FLOAT, mean, 2, 3, 1),
            DBT_TENSOR(DIBIT_TYPE_FLOAT, inv, 2, 3, 1), DBT_TENSOR(DIBIT_TYPE_FLOAT, sum, 2, 3, N)};
        dbt_op_case c = {.domain = "com.microsoft",
                         .opset = 1,
                         .inputs = in,
                         .name =
                             layer ? "SkipLayerNormalization" : "SkipSimplifiedLayerNormalization",
                         .n_inputs = layer ? 5 : 4,
                         .n_outputs = 4};
        for (uint32_t i = 0; i < 4; i++) dbt_op_case_expect(&c, i, &out[i]);
        c.absent_outputs = 6;
        dbt_op_case_expect(&c, 0, &out[0]);
        dbt_op_case_expect(&c, 3, &out[3]);
        c.absent_outputs = 1; /* the norm is not wanted, the sum is */
        dbt_op_case_expect(&c, 3, &out[3]);
    }
}

static void test_embedding_norm(void **state) {
    (void)state;
    enum { V = 11, P = 6, S = 4, N = 24 };
    static float word[V * N], position[P * N], segment[2 * N], gain[N], beta[N], sum[2 * S * N],
        y[2 * S * N];
    fill(word, V * N, 1, -1, 1);
    fill(position, P * N, 2, -1, 1);
    fill(segment, 2 * N, 3, -1, 1);
    fill(gain, N, 4, 0, 2);
    fill(beta, N, 5, -1, 1);
    int32_t ids[2 * S] = {3, 10, 0, 7, 7, 1, 2, 9};
    const int32_t types[2 * S] = {0, 0, 1, 1, 0, 1, 1, 1}, positions[S] = {5, 0, 2, 2};
    const int32_t mask[2 * S] = {1, 1, 1, 0, 1, 0, 1, 0}, index[2] = {3, 2}, zeros[2] = {0, 0};
    for (int k = 0; k < 8; k++) {
        const bool has_segment = k & 1, has_positions = k & 2, has_mask = k & 4;
        for (int r = 0; r < 2 * S; r++) {
            const int p = has_positions ? positions[r % S] : r % S;
            for (int i = 0; i < N; i++) {
                sum[r * N + i] = word[ids[r] * N + i] + position[p * N + i];
                if (has_segment) sum[r * N + i] += segment[types[r] * N + i];
            }
        }
        reference(sum, 2 * S, N, true, 1e-3, gain, beta, N, y, NULL, NULL);
        dibit_tensor in[9] = {DBT_TENSOR(DIBIT_TYPE_INT32, ids, 2, S),
                              DBT_ABSENT,
                              DBT_TENSOR(DIBIT_TYPE_FLOAT, word, V, N),
                              DBT_TENSOR(DIBIT_TYPE_FLOAT, position, P, N),
                              DBT_ABSENT,
                              DBT_TENSOR(DIBIT_TYPE_FLOAT, gain, N),
                              DBT_TENSOR(DIBIT_TYPE_FLOAT, beta, N),
                              DBT_ABSENT,
                              DBT_ABSENT};
        if (has_segment) {
            in[1] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_INT32, types, 2, S);
            in[4] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, segment, 2, N);
        }
        if (has_mask) in[7] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_INT32, mask, 2, S);
        if (has_positions) in[8] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_INT32, positions, 1, S);
        dibit_tensor out[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 2, S, N),
                              DBT_TENSOR(DIBIT_TYPE_INT32, zeros, 2),
                              DBT_TENSOR(DIBIT_TYPE_FLOAT, sum, 2, S, N)};
        if (has_mask) out[1] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_INT32, index, 2);
        const dbt_onnx_attr attr = DBT_FLOAT("epsilon", 1e-3f);
        const dbt_op_case c = {.domain = "com.microsoft",
                               .name = "EmbedLayerNormalization",
                               .opset = 1,
                               .inputs = in,
                               .n_inputs = 9,
                               .attrs = &attr,
                               .n_attrs = 1,
                               .n_outputs = 3};
        for (uint32_t i = 0; i < 3; i++) dbt_op_case_expect(&c, i, &out[i]);
        ids[5] = V;
        dbt_op_case_refused(&c, DIBIT_OUT_OF_RANGE, "input_ids[5] is 11, outside [0, 11)");
        ids[5] = 1;
        in[5].type = DIBIT_TYPE_UNDEFINED;
        dbt_op_case_refused(&c, DIBIT_BAD_FILE, "input 5 is required");
    }
}

/* [2, 6, 5]: instances, 3 groups (scales per channel and per group), and running statistics. */
static void test_channel_norms(void **state) {
    (void)state;
    enum { C = 6, INNER = 5, ALL = 2 * C * INNER };
    static float x[ALL], scale[C], bias[C], mean[C], var[C], y[ALL];
    fill(x, ALL, 1, -2, 3);
    fill(scale, C, 2, -2, 2);
    fill(bias, C, 3, -1, 1);
    fill(mean, C, 4, -1, 1);
    fill(var, C, 5, 0.1f, 2);
    const dibit_tensor in[] = {
        DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, C, INNER), DBT_TENSOR(DIBIT_TYPE_FLOAT, scale, C),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, bias, C), DBT_TENSOR(DIBIT_TYPE_FLOAT, mean, C),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, var, C)};
    const dibit_tensor per_group[] = {in[0], DBT_TENSOR(DIBIT_TYPE_FLOAT, scale, 3),
                                      DBT_TENSOR(DIBIT_TYPE_FLOAT, bias, 3)};
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 2, C, INNER);
    const dbt_onnx_attr groups = DBT_INT("num_groups", 3), four = DBT_INT("num_groups", 4);
    for (int kind = 0; kind < 4; kind++) {
        const int64_t n = kind == 0 ? INNER : 2 * INNER;
        reference(x, ALL / n, n, true, 1e-5, NULL, NULL, 1, y, NULL, NULL);
        for (int64_t i = 0; i < ALL; i++) {
            const int64_t c = i / INNER % C, s = kind == 2 ? c / 2 : c;
            const double v = ((double)x[i] - (double)mean[c]) / sqrt((double)var[c] + 1e-5);
            y[i] = (float)((kind == 3 ? v : (double)y[i]) * (double)scale[s] + (double)bias[s]);
        }
        static const char *const names[] = {"InstanceNormalization", "GroupNormalization",
                                            "GroupNormalization", "BatchNormalization"};
        const bool grouped = kind == 1 || kind == 2;
        dbt_op_case c = {.name = names[kind],
                         .opset = kind == 2 ? 18 : 22,
                         .attrs = &groups,
                         .inputs = kind == 2 ? per_group : in,
                         .n_attrs = grouped,
                         .n_inputs = kind == 3 ? 5 : 3};
        dbt_op_case_expect(&c, 0, &out);
        c.attrs = &four;
        if (kind == 1) dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "6 channels");
    }
}

static void test_lp_norm(void **state) {
    (void)state;
    static float x[2 * 7 * 3], y[2 * 7 * 3];
    fill(x, 42, 1, -2, 2);
    for (int i = 0; i < 7; i++) x[i * 3] = 0; /* a line of norm 0 */
    for (int p = 1; p <= 2; p++) {
        for (int o = 0; o < 2; o++) {
            for (int c = 0; c < 3; c++) {
                double norm = 0;
                for (int i = 0; i < 7; i++) norm += pow(fabs((double)x[o * 21 + i * 3 + c]), p);
                for (int i = 0; i < 7; i++) {
                    const int at = o * 21 + i * 3 + c;
                    y[at] = norm > 0 ? (float)((double)x[at] / pow(norm, 1.0 / p)) : 0;
                }
            }
        }
        const dibit_tensor in = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 7, 3);
        const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 2, 7, 3);
        const dbt_onnx_attr attrs[] = {DBT_INT("axis", -2), DBT_INT("p", p)};
        dbt_op_case_expect(&(dbt_op_case){.name = "LpNormalization",
                                          .opset = 1,
                                          .attrs = attrs,
                                          .n_attrs = 2,
                                          .inputs = &in,
                                          .n_inputs = 1},
                           0, &out);
    }
}

static void test_bad_nodes_are_refused(void **state) {
    (void)state;
    static const float x[24], gain[4];
    dibit_tensor in[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 3, 4),
                         DBT_TENSOR(DIBIT_TYPE_FLOAT, gain, 3),
                         DBT_TENSOR(DIBIT_TYPE_FLOAT, gain, 4)};
    dbt_op_case c = {.name = "LayerNormalization", .opset = 17, .inputs = in, .n_inputs = 2};
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "dim 0 of input 1 ('gain') must be 4, got 3");
    const dbt_onnx_attr axis = DBT_INT("axis", 3);
    in[1] = in[2];
    c.attrs = &axis;
    c.n_attrs = 1;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "axis 3 is out of range for rank 3");
    in[1] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, gain, 3, 1); /* along a row's outside */
    c.n_attrs = 0;
    dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "does not fit the normalized dims");
    const dibit_tensor skips[] = {in[0], DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 1, 4), in[2]};
    c = (dbt_op_case){.domain = "com.microsoft",
                      .name = "SkipSimplifiedLayerNormalization",
                      .opset = 1,
                      .inputs = skips,
                      .n_inputs = 3};
    dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "skip's shape");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_norm_over_the_last_axis),
        cmocka_unit_test(test_norm_of_many_rows),
        cmocka_unit_test(test_layer_norm_over_several_axes),
        cmocka_unit_test(test_simplified_norm_in_both_domains),
        cmocka_unit_test(test_skip_norms),
        cmocka_unit_test(test_embedding_norm),
        cmocka_unit_test(test_channel_norms),
        cmocka_unit_test(test_lp_norm),
        cmocka_unit_test(test_bad_nodes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

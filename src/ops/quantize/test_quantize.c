/* Quantization ops: hand-made rounding and saturation, and every layout of scales against a formula. */
#include "dbt_test.h"

#include "base/half.h"
#include "op_harness.h"

static void test_quantize_rounds_to_even_and_saturates(void **state) {
    (void)state;
    static const float x[8] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 1000.0f, -1000.0f, 3.0f},
                       scale[1] = {1.0f};
    static const int8_t zero8[1] = {1};
    static const int8_t want8[8] = {1, 3, 3, 1, -1, 127, -128, 4};
    static const uint8_t want_u8[8] = {0, 2, 2, 0, 0, 255, 0, 3};
    static const int8_t want4[8] = {1, 3, 3, 1, -1, 7, -8, 4};
    static const uint8_t zero4[1] = {1}; /* an int4 of 1 */
    static const uint16_t zero16[1] = {2};
    static const uint16_t want16[8] = {2, 4, 4, 2, 0, 1002, 0, 5};
    dibit_tensor in[3] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 8), DBT_SCALAR(DIBIT_TYPE_FLOAT, scale),
                          DBT_SCALAR(DIBIT_TYPE_INT8, zero8)};
    dbt_op_case c = {.name = "QuantizeLinear", .opset = 21, .inputs = in, .n_inputs = 3};
    const dibit_tensor y8 = DBT_TENSOR(DIBIT_TYPE_INT8, want8, 8);
    dbt_op_case_expect(&c, 0, &y8);
    c.n_inputs = 2;
    const dibit_tensor y_u8 = DBT_TENSOR(DIBIT_TYPE_UINT8, want_u8, 8);
    dbt_op_case_expect(&c, 0, &y_u8);
    c.n_inputs = 3;
    in[2] = (dibit_tensor)DBT_SCALAR(DIBIT_TYPE_INT4, zero4);
    const dibit_tensor y4 = DBT_TENSOR(DIBIT_TYPE_INT8, want4, 8);
    for (c.constants = 0; c.constants <= 6; c.constants += 6) dbt_op_case_expect(&c, 0, &y4);
    c.constants = 0;
    in[2] = (dibit_tensor)DBT_SCALAR(DIBIT_TYPE_UINT16, zero16);
    const dibit_tensor y16 = DBT_TENSOR(DIBIT_TYPE_UINT16, want16, 8);
    dbt_op_case_expect(&c, 0, &y16);
    const dbt_onnx_attr attrs[] = {DBT_INT("output_dtype", DIBIT_TYPE_INT8)};
    static const int8_t no_zero[8] = {0, 2, 2, 0, -2, 127, -128, 3};
    const dibit_tensor y_typed = DBT_TENSOR(DIBIT_TYPE_INT8, no_zero, 8);
    c.attrs = attrs;
    c.n_attrs = 1;
    c.n_inputs = 2;
    dbt_op_case_expect(&c, 0, &y_typed);
    c.n_inputs = 3;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "output_dtype is int8, but the zero point uint16");
}

enum { D0 = 3, D1 = 10, D2 = 7, N_X = D0 * D1 * D2 };

/* x of [D0, D1, D2] codes; scales as `layout` says: 0 tensor, 1 axis, 2 blocks of 4. */
static void run_layout(dibit_type type, int layout, int axis, bool constant, bool half) {
    static uint8_t packed[4 * N_X], zeros[4 * N_X];
    static float want[N_X], scales[N_X];
    static uint16_t half_scales[N_X];
    static const int64_t dims[3] = {D0, D1, D2};
    uint64_t seed = 3 + (uint64_t)type;
    const uint32_t bits = dibit_type_bits(type);
    const bool is_signed = type == DIBIT_TYPE_INT8 || type == DIBIT_TYPE_INT16 ||
                           type == DIBIT_TYPE_INT4 || type == DIBIT_TYPE_INT2 ||
                           type == DIBIT_TYPE_INT32;
    const int64_t low = is_signed ? -(1ll << (bits - 1)) : 0;
    memset(packed, 0, sizeof packed);
    memset(zeros, 0, sizeof zeros);
    static int64_t values[2 * N_X]; /* codes, then zero points */
    for (int64_t i = 0; i < 2 * N_X; i++) {
        const uint64_t r = dbt_test_random(&seed) % (1ull << (bits < 20 ? bits : 20));
        values[i] = low / (bits > 20 ? 1024 : 1) + (int64_t)r;
        uint8_t *const at = i < N_X ? packed : zeros;
        for (uint32_t j = 0; j < bits; j++) {
            const int64_t bit = i % N_X * bits + j;
            if ((uint64_t)values[i] >> j & 1) at[bit / 8] = (uint8_t)(at[bit / 8] | 1u << bit % 8);
        }
    }
    for (int64_t i = 0; i < N_X; i++) {
        half_scales[i] = dbt_float_to_half(dbt_test_uniform(&seed, -1, 1));
        scales[i] = dbt_half_to_float(half_scales[i]);
    }
    int64_t s_dims[3] = {D0, D1, D2};
    if (layout == 2) s_dims[axis] = (dims[axis] + 3) / 4;
    for (int64_t i = 0; i < N_X; i++) {
        int64_t at[3] = {i / (D1 * D2), i / D2 % D1, i % D2}, s = 0;
        if (layout == 1) s = at[axis];
        if (layout == 2) {
            at[axis] /= 4;
            s = (at[0] * s_dims[1] + at[1]) * s_dims[2] + at[2];
        }
        want[i] = (float)(values[i] - values[N_X + s]) * scales[s];
    }
    dibit_tensor in[3] = {DBT_TENSOR(type, packed, D0, D1, D2)};
    for (int i = 1; i < 3; i++) {
        in[i] = (dibit_tensor){.name = "p",
                               .type = i == 2 ? type
                                       : half ? DIBIT_TYPE_FLOAT16
                                              : DIBIT_TYPE_FLOAT,
                               .rank = layout == 0   ? 0
                                       : layout == 1 ? 1
                                                     : 3,
                               .data = i == 2 ? (void *)zeros
                                       : half ? (void *)half_scales
                                              : (void *)scales};
        memcpy(in[i].dims, s_dims, sizeof s_dims);
        if (layout == 1) in[i].dims[0] = dims[axis];
    }
    const dbt_onnx_attr attrs[] = {DBT_INT("axis", axis - 3),
                                   DBT_INT("block_size", layout == 2 ? 4 : 0)};
    const dbt_op_case c = {.name = "DequantizeLinear",
                           .opset = 21,
                           .attrs = attrs,
                           .n_attrs = 2,
                           .inputs = in,
                           .n_inputs = 3,
                           .constants = constant ? 7 : 0};
    const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_FLOAT, want, D0, D1, D2);
    dbt_op_case_expect(&c, 0, &y);
}

static void test_dequantize_every_type_and_layout(void **state) {
    (void)state;
    static const dibit_type types[] = {DIBIT_TYPE_INT8,   DIBIT_TYPE_UINT8, DIBIT_TYPE_INT16,
                                       DIBIT_TYPE_UINT16, DIBIT_TYPE_INT4,  DIBIT_TYPE_UINT4,
                                       DIBIT_TYPE_INT2,   DIBIT_TYPE_UINT2, DIBIT_TYPE_INT32};
    for (int t = 0; t < 9; t++) {
        for (int mode = 0; mode < 4; mode++) {
            run_layout(types[t], 0, 0, mode & 1, mode & 2);
            for (int axis = 0; axis < 3; axis++) {
                run_layout(types[t], 1, axis, mode & 1, mode & 2);
                run_layout(types[t], 2, axis, mode & 1, mode & 2);
            }
        }
    }
}

static void test_quantize_blocks(void **state) {
    (void)state;
    static const float x[2 * 5] = {1, 2, 3, 4, 5, -1, -2, -3, -4, -5},
                             scales[2 * 2] = {1, 2, 0.5f, 0.25f};
    static const uint8_t zeros[4] = {10, 20, 30, 40},
                         want[10] = {11, 12, 13, 14, 22, 28, 26, 24, 22, 20};
    const dibit_tensor in[3] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 5),
                                DBT_TENSOR(DIBIT_TYPE_FLOAT, scales, 2, 2),
                                DBT_TENSOR(DIBIT_TYPE_UINT8, zeros, 2, 2)};
    const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_UINT8, want, 2, 5);
    const dbt_onnx_attr attrs[] = {DBT_INT("axis", 1), DBT_INT("block_size", 4)};
    const dbt_op_case c = {.name = "QuantizeLinear",
                           .opset = 21,
                           .attrs = attrs,
                           .n_attrs = 2,
                           .inputs = in,
                           .n_inputs = 3};
    dbt_op_case_expect(&c, 0, &y);
}

/* The example of the ONNX documentation. */
static void test_dynamic_quantize(void **state) {
    (void)state;
    static const float x[6] = {0, 2, -3, -2.5f, 1.34f, 0.5f}, scale[1] = {0.0196078438f}, zeros[4];
    static const uint8_t y[6] = {153, 255, 0, 26, 221, 179}, zero[1] = {153}, zero_y[4],
                         zero_zero[1];
    static const float one[1] = {1};
    dibit_tensor in[1] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 6)};
    const dbt_op_case c = {
        .name = "DynamicQuantizeLinear", .opset = 11, .inputs = in, .n_inputs = 1, .n_outputs = 3};
    const dibit_tensor want[3] = {DBT_TENSOR(DIBIT_TYPE_UINT8, y, 6),
                                  DBT_SCALAR(DIBIT_TYPE_FLOAT, scale),
                                  DBT_SCALAR(DIBIT_TYPE_UINT8, zero)};
    const dibit_tensor want_zero[3] = {DBT_TENSOR(DIBIT_TYPE_UINT8, zero_y, 4),
                                       DBT_SCALAR(DIBIT_TYPE_FLOAT, one),
                                       DBT_SCALAR(DIBIT_TYPE_UINT8, zero_zero)};
    for (uint32_t i = 0; i < 3; i++) dbt_op_case_expect(&c, i, &want[i]);
    in[0] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, zeros, 4);
    for (uint32_t i = 0; i < 3; i++) dbt_op_case_expect(&c, i, &want_zero[i]);
}

/* Both matrix ops over signs, batches and per-row and per-column parameters. */
static void test_integer_matrix_products(void **state) {
    (void)state;
    enum { BATCH = 2, M = 3, K = 11, N = 140 };
    static uint8_t a[BATCH * M * K], b[BATCH * K * N], az[BATCH * M], bz[BATCH * N],
        yz[1] = {100}, want_y[BATCH * M * N];
    static float as[BATCH * M], bs[BATCH * N], ys[1] = {37.0f};
    static int32_t want[BATCH * M * N];
    uint64_t seed = 5;
    for (int mode = 0; mode < 32; mode++) {
        const bool a_signed = mode & 1, b_signed = mode & 2, b_batches = mode & 4;
        const int per =
            mode >> 3; /* 0 one value, 1 per row and column, 2 in each matrix, 3 no zero points */
        for (size_t i = 0; i < sizeof a; i++) a[i] = (uint8_t)dbt_test_random(&seed);
        for (size_t i = 0; i < sizeof b; i++) b[i] = (uint8_t)dbt_test_random(&seed);
        for (size_t i = 0; i < sizeof az; i++)
            az[i] = (uint8_t)dbt_test_random(&seed), as[i] = dbt_test_uniform(&seed, 0, 0.5f);
        for (size_t i = 0; i < sizeof bz; i++)
            bz[i] = (uint8_t)dbt_test_random(&seed), bs[i] = dbt_test_uniform(&seed, 0, 0.5f);
        for (int i = 0; i < BATCH * M * N; i++) {
            const int batch = i / (M * N), m = i / N % M, n = i % N, bb = b_batches ? batch : 0;
            const int ia = per == 1   ? m
                           : per == 2 ? batch * M + m
                                      : 0,
                      ib = per == 1   ? n
                           : per == 2 ? bb * N + n
                                      : 0;
            const int za = per == 3 ? 0 : a_signed ? (int8_t)az[ia] : az[ia];
            const int zb = per == 3 ? 0 : b_signed ? (int8_t)bz[ib] : bz[ib];
            want[i] = 0;
            for (int k = 0; k < K; k++) {
                const int va = a[(batch * M + m) * K + k], vb = b[(bb * K + k) * N + n];
                want[i] +=
                    ((a_signed ? (int8_t)va : va) - za) * ((b_signed ? (int8_t)vb : vb) - zb);
            }
            const float y = nearbyintf((float)want[i] * (as[ia] * bs[ib] / ys[0])) + 100.0f;
            want_y[i] = (uint8_t)(y < 0 ? 0 : y > 255 ? 255 : y);
        }
        const dibit_type ta = a_signed ? DIBIT_TYPE_INT8 : DIBIT_TYPE_UINT8,
                         tb = b_signed ? DIBIT_TYPE_INT8 : DIBIT_TYPE_UINT8;
        const int32_t rank = per == 0 ? 0 : per == 1 ? 1 : 3;
        const int64_t nb = b_batches ? BATCH : 1;
        const dibit_tensor in_a = DBT_TENSOR(ta, a, BATCH, M, K),
                           in_b = DBT_TENSOR(tb, b, nb, K, N);
        const dibit_tensor za = {.name = "az",
                                 .type = ta,
                                 .rank = rank,
                                 .dims = {per == 1 ? M : BATCH, M, 1},
                                 .data = az};
        const dibit_tensor zb = {
            .name = "bz", .type = tb, .rank = rank, .dims = {per == 1 ? N : nb, 1, N}, .data = bz};
        dibit_tensor sa = za, sb = zb;
        sa.type = sb.type = DIBIT_TYPE_FLOAT;
        sa.data = as;
        sb.data = bs;
        const dibit_tensor integer_in[4] = {in_a, in_b, za, zb};
        const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_INT32, want, BATCH, M, N);
        const dbt_op_case c = {.name = "MatMulInteger",
                               .opset = 10,
                               .inputs = integer_in,
                               .n_inputs = per == 3 ? 2 : 4};
        dbt_op_case_expect(&c, 0, &y);
        if (per == 3) continue;
        const dibit_tensor q_in[8] = {in_a,
                                      sa,
                                      za,
                                      in_b,
                                      sb,
                                      zb,
                                      DBT_SCALAR(DIBIT_TYPE_FLOAT, ys),
                                      DBT_SCALAR(DIBIT_TYPE_UINT8, yz)};
        const dibit_tensor q_y = DBT_TENSOR(DIBIT_TYPE_UINT8, want_y, BATCH, M, N);
        const dbt_op_case q = {.name = "QLinearMatMul", .opset = 21, .inputs = q_in, .n_inputs = 8};
        dbt_op_case_expect(&q, 0, &q_y);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const uint8_t x[8];
    static const float scales[4];
    dibit_tensor in[2] = {DBT_TENSOR(DIBIT_TYPE_UINT8, x, 2, 4),
                          DBT_TENSOR(DIBIT_TYPE_FLOAT, scales, 3)};
    dbt_onnx_attr attrs[] = {DBT_INT("axis", 1), DBT_INT("block_size", 0)};
    dbt_op_case c = {.name = "DequantizeLinear",
                     .opset = 21,
                     .attrs = attrs,
                     .n_attrs = 2,
                     .inputs = in,
                     .n_inputs = 2};
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "scales must be one value or 4");
    attrs[0].i = 2;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "axis 2 is out of range");
    attrs[0].i = 1;
    attrs[1].i = -1;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "block_size");
    attrs[1].i = 2;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "must have rank 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantize_rounds_to_even_and_saturates),
        cmocka_unit_test(test_dequantize_every_type_and_layout),
        cmocka_unit_test(test_quantize_blocks),
        cmocka_unit_test(test_dynamic_quantize),
        cmocka_unit_test(test_integer_matrix_products),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* GatherBlockQuantized: every type and axis against the formula on unpacked codes. */
#include "dbt_test.h"

#include "base/half.h"
#include "op_harness.h"

enum { D0 = 3, D1 = 40, D2 = 36, MAX = D0 * D1 * D2 };

typedef struct table {
    int32_t codes[MAX], zero_points[MAX];
    float scales[MAX];
    int64_t scale_dims[3];
    uint8_t data[MAX], packed_zero_points[MAX];
    uint16_t half_scales[MAX];
} table;

static void put_code(uint8_t *stream, uint32_t bits, int64_t i, int32_t code) {
    for (uint32_t j = 0; j < bits; j++) {
        const int64_t bit = i * bits + j;
        if ((uint32_t)code >> j & 1) stream[bit / 8] = (uint8_t)(stream[bit / 8] | 1u << bit % 8);
    }
}

/* Where the scale of element (i, j, k) is. */
static int64_t scale_index(const table *t, int quantize_axis, int64_t i, int64_t j, int64_t k) {
    int64_t at[3] = {i, j, k};
    at[quantize_axis] /= 16;
    return (at[0] * t->scale_dims[1] + at[1]) * t->scale_dims[2] + at[2];
}

static void run(dibit_type type, uint32_t bits, int gather_axis, int quantize_axis,
                bool zero_points, bool half, bool as_constant) {
    static table t;
    memset(&t, 0, sizeof t);
    uint64_t seed = 7 + bits;
    static const int64_t dims[3] = {D0, D1, D2};
    const bool typed = type != DIBIT_TYPE_UINT8;
    const int32_t low = type == DIBIT_TYPE_INT4 ? -8 : type == DIBIT_TYPE_INT2 ? -2 : 0;
    memcpy(t.scale_dims, dims, sizeof dims);
    t.scale_dims[quantize_axis] = (dims[quantize_axis] + 15) / 16;
    for (int64_t i = 0; i < MAX; i++) {
        t.codes[i] = low + (int32_t)(dbt_test_random(&seed) % (1u << bits));
        put_code(t.data, bits, i, t.codes[i]);
    }
    const int64_t last = t.scale_dims[2], n_scales = t.scale_dims[0] * t.scale_dims[1] * last;
    const int64_t zero_row = typed ? 0 : (last * bits + 7) / 8;
    for (int64_t i = 0; i < n_scales; i++) {
        t.half_scales[i] = dbt_float_to_half(dbt_test_uniform(&seed, -2, 2));
        t.scales[i] = dbt_half_to_float(t.half_scales[i]);
        t.zero_points[i] = typed ? 0 : 1 << (bits - 1);
        if (!zero_points) continue;
        t.zero_points[i] = low + (int32_t)(dbt_test_random(&seed) % (1u << bits));
        if (typed) {
            put_code(t.packed_zero_points, bits, i, t.zero_points[i]);
        } else {
            put_code(t.packed_zero_points + i / last * zero_row, bits, i % last, t.zero_points[i]);
        }
    }
    const int64_t packed_last = typed ? D2 : D2 * bits / 8;
    static const int64_t indices[4] = {2, -1, 0, 1000}; /* the last is out of range */
    const dibit_tensor inputs[4] = {
        DBT_TENSOR(type, t.data, D0, D1, packed_last),
        DBT_TENSOR(DIBIT_TYPE_INT64, indices, 2, 2),
        {.name = "scales",
         .type = half ? DIBIT_TYPE_FLOAT16 : DIBIT_TYPE_FLOAT,
         .rank = 3,
         .dims = {t.scale_dims[0], t.scale_dims[1], last},
         .data = half ? (void *)t.half_scales : (void *)t.scales},
        {.name = "zero_points",
         .type = zero_points ? type : DIBIT_TYPE_UNDEFINED,
         .rank = 3,
         .dims = {t.scale_dims[0], t.scale_dims[1], typed ? last : zero_row},
         .data = t.packed_zero_points},
    };
    const dbt_onnx_attr attrs[] = {DBT_INT("gather_axis", gather_axis),
                                   DBT_INT("quantize_axis", quantize_axis),
                                   DBT_INT("block_size", 16), DBT_INT("bits", bits)};
    static float want[4 * MAX];
    dibit_tensor y = {.name = "y", .type = DIBIT_TYPE_FLOAT, .data = want};
    for (int a = 0; a < 3; a++) {
        if (a == gather_axis) y.dims[y.rank++] = 2;
        y.dims[y.rank++] = a == gather_axis ? 2 : dims[a];
    }
    int64_t outer = 1, inner = 1, n = 0;
    for (int a = 0; a < 3; a++)
        *(a < gather_axis ? &outer : &inner) *= a == gather_axis ? 1 : dims[a];
    for (int64_t o = 0; o < outer; o++) {
        for (int i = 0; i < 4; i++) {
            const int64_t index = indices[i] < 0 ? indices[i] + dims[gather_axis] : indices[i];
            for (int64_t c = 0; c < inner; c++) {
                const int64_t at = (o * dims[gather_axis] + index) * inner + c;
                const int64_t s =
                    i == 3 ? 0
                           : scale_index(&t, quantize_axis, at / (D1 * D2), at / D2 % D1, at % D2);
                want[n++] = i == 3 ? 0.0f : (float)(t.codes[at] - t.zero_points[s]) * t.scales[s];
            }
        }
    }
    const dbt_op_case c = {.domain = "com.microsoft",
                           .name = "GatherBlockQuantized",
                           .opset = 1,
                           .attrs = attrs,
                           .n_attrs = 4,
                           .inputs = inputs,
                           .n_inputs = zero_points ? 4 : 3,
                           .constants = as_constant ? 0xd : 0};
    dbt_op_case_expect(&c, 0, &y);
}

static void test_uint8_of_2_4_and_8_bits(void **state) {
    (void)state;
    for (uint32_t bits = 2; bits <= 8; bits *= 2) {
        for (int i = 0; i < 8; i++) run(DIBIT_TYPE_UINT8, bits, 0, 2, i & 1, i & 2, i & 4);
    }
}

static void test_typed_codes_on_every_pair_of_axes(void **state) {
    (void)state;
    static const struct {
        dibit_type type;
        uint32_t bits;
    } types[] = {{DIBIT_TYPE_INT4, 4},
                 {DIBIT_TYPE_UINT4, 4},
                 {DIBIT_TYPE_INT2, 2},
                 {DIBIT_TYPE_UINT2, 2},
                 {DIBIT_TYPE_UINT8, 8}};
    for (int i = 0; i < 5; i++) {
        for (int axes = 0; axes < 9; axes++) {
            for (int j = 0; j < 4; j++) {
                run(types[i].type, types[i].bits, axes / 3, axes % 3, j & 1, false, j & 2);
            }
        }
    }
}

static void test_an_empty_table_gives_zeros(void **state) {
    (void)state;
    static const int64_t index[2] = {0, -1};
    static const float want[32];
    const dibit_tensor inputs[] = {DBT_TENSOR(DIBIT_TYPE_UINT8, want, 0, 8),
                                   DBT_TENSOR(DIBIT_TYPE_INT64, index, 2),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, want, 0, 1)};
    const dbt_onnx_attr attrs[] = {DBT_INT("block_size", 16)};
    const dbt_op_case c = {.domain = "com.microsoft",
                           .name = "GatherBlockQuantized",
                           .opset = 1,
                           .attrs = attrs,
                           .n_attrs = 1,
                           .inputs = inputs,
                           .n_inputs = 3};
    const dibit_tensor y = DBT_TENSOR(DIBIT_TYPE_FLOAT, want, 2, 16);
    dbt_op_case_expect(&c, 0, &y);
}

static void test_refusals(void **state) {
    (void)state;
    static const uint8_t data[64];
    static const float scales[64];
    static const int64_t index[1];
    dibit_tensor inputs[] = {DBT_TENSOR(DIBIT_TYPE_UINT8, data, 2, 16),
                             DBT_TENSOR(DIBIT_TYPE_INT64, index, 1),
                             DBT_TENSOR(DIBIT_TYPE_FLOAT, scales, 2, 2)};
    dbt_onnx_attr attrs[] = {DBT_INT("bits", 3), DBT_INT("block_size", 16),
                             DBT_INT("quantize_axis", 1)};
    const dbt_op_case c = {.domain = "com.microsoft",
                           .name = "GatherBlockQuantized",
                           .opset = 1,
                           .attrs = attrs,
                           .n_attrs = 3,
                           .inputs = inputs,
                           .n_inputs = 3};
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "bits must be 2, 4 or 8");
    attrs[0].i = 4;
    attrs[1].i = 24;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "block_size must be a power of two");
    attrs[1].i = 16;
    attrs[2].i = 0;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "along its last axis");
    attrs[2].i = 2;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "quantize_axis 2 is out of range");
    attrs[2].i = 1;
    inputs[2].dims[1] = 3;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "dim 1 of input 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uint8_of_2_4_and_8_bits),
        cmocka_unit_test(test_typed_codes_on_every_pair_of_axes),
        cmocka_unit_test(test_an_empty_table_gives_zeros),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

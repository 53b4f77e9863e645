/* TensorProto: every type from raw and typed data, packed or not, and what is refused. */
#include "onnx_rich_model.h"

typedef struct one {
    dbt_source source;
    dbt_arena arena;
    dbt_constant tensor;
    dibit_error error;
} one;

static dibit_status read_one(one *o, const pb *p) {
    *o = (one){0};
    dbt_source_from_buffer(p->data, p->n, "t.pb", &o->source);
    dbt_arena_init(&o->arena, NULL);
    return dbt_onnx_read_tensor(&o->source, &o->arena, &o->tensor, &o->error);
}

/* Reads p, which is freed; expects these bytes. */
static void expect_bytes(pb *p, const void *bytes, size_t n) {
    one o;
    if (read_one(&o, p) != DIBIT_OK) fail_msg("%s", o.error.text);
    assert_int_equal(o.tensor.bytes.bytes, n);
    assert_memory_equal(o.tensor.data, bytes, n);
    dbt_arena_free(&o.arena);
    pb_free(p);
}

static void expect_failure(pb *p, dibit_status status, const char *sentence) {
    one o;
    const dibit_status got = read_one(&o, p);
    if (got != status || !strstr(o.error.text, sentence) || !strstr(o.error.text, "'t.pb'")) {
        fail_msg("%d '%s' instead of %d '%s'", (int)got, o.error.text, (int)status, sentence);
    }
    dbt_arena_free(&o.arena);
    pb_free(p);
}

/* ---- Data of every type --------------------------------------------------------------------- */

static void test_raw_data_of_every_type(void **state) {
    (void)state;
    uint8_t bytes[200];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 3);
    for (int type = DIBIT_TYPE_FLOAT; type <= DIBIT_TYPE_INT2; type++) {
        if (type == DIBIT_TYPE_STRING) continue;
        for (int64_t count = 0; count <= 11; count++) {
            const size_t n = ((size_t)count * dibit_type_bits((dibit_type)type) + 7) / 8;
            pb p = tensor_begin("t", (uint64_t)type, (int64_t[]){count, 1}, 2);
            pb_bytes(&p, TENSOR_RAW_DATA, bytes, n);
            expect_bytes(&p, bytes, n);
        }
    }
}

/* Appends entries of a typed field: packed, one by one, or half and half. */
static void put_entries(pb *p, uint32_t field, unsigned wire_type, const uint64_t *entries,
                        size_t n, int packing) {
    const size_t n_packed = packing == 0 ? n : packing == 1 ? 0 : n / 2;
    pb packed = {0};
    for (size_t i = 0; i < n_packed; i++) {
        if (wire_type == 0) pb_bare_varint(&packed, entries[i]);
        if (wire_type == 1) pb_fixed(&packed, entries[i], 8);
        if (wire_type == 5) pb_fixed(&packed, entries[i], 4);
    }
    if (n_packed) pb_message(p, field, &packed);
    for (size_t i = n_packed; i < n; i++) {
        pb_tag(p, field, wire_type);
        if (wire_type == 0) pb_bare_varint(p, entries[i]);
        if (wire_type == 1) pb_fixed(p, entries[i], 8);
        if (wire_type == 5) pb_fixed(p, entries[i], 4);
    }
}

static void test_typed_data_of_every_type(void **state) {
    (void)state;
    static const struct {
        dibit_type type;
        uint32_t field;
        unsigned wire_type;
        int64_t count; /* elements */
        size_t n_entries;
        uint64_t entries[4];
        size_t n_bytes;
        uint8_t bytes[32];
    } cases[] = {
        {DIBIT_TYPE_FLOAT,
         TENSOR_FLOAT_DATA,
         5,
         2,
         2,
         {0x3f800000, 0xff800001},
         8,
         {0, 0, 0x80, 0x3f, 1, 0, 0x80, 0xff}},
        {DIBIT_TYPE_COMPLEX64,
         TENSOR_FLOAT_DATA,
         5,
         1,
         2,
         {0x01020304, 0x05060708},
         8,
         {4, 3, 2, 1, 8, 7, 6, 5}},
        {DIBIT_TYPE_DOUBLE,
         TENSOR_DOUBLE_DATA,
         1,
         1,
         1,
         {0x0102030405060708},
         8,
         {8, 7, 6, 5, 4, 3, 2, 1}},
        {DIBIT_TYPE_COMPLEX128,
         TENSOR_DOUBLE_DATA,
         1,
         1,
         2,
         {1, 2},
         16,
         {1, 0, 0, 0, 0, 0, 0, 0, 2}},
        {DIBIT_TYPE_INT64,
         TENSOR_INT64_DATA,
         0,
         2,
         2,
         {(uint64_t)-2, 300},
         16,
         {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x2c, 1}},
        {DIBIT_TYPE_UINT64,
         TENSOR_UINT64_DATA,
         0,
         1,
         1,
         {UINT64_MAX - 1},
         8,
         {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
        {DIBIT_TYPE_UINT32,
         TENSOR_UINT64_DATA,
         0,
         2,
         2,
         {UINT32_MAX, 1},
         8,
         {0xff, 0xff, 0xff, 0xff, 1}},
        {DIBIT_TYPE_INT32,
         TENSOR_INT32_DATA,
         0,
         2,
         2,
         {(uint64_t)INT64_C(-2147483648), 5},
         8,
         {0, 0, 0, 0x80, 5}},
        {DIBIT_TYPE_INT16,
         TENSOR_INT32_DATA,
         0,
         3,
         3,
         {(uint64_t)-2, 0x7fff, 0xffff},
         6,
         {0xfe, 0xff, 0xff, 0x7f, 0xff, 0xff}},
        {DIBIT_TYPE_INT8, TENSOR_INT32_DATA, 0, 2, 2, {(uint64_t)-128, 127}, 2, {0x80, 0x7f}},
        {DIBIT_TYPE_UINT16, TENSOR_INT32_DATA, 0, 1, 1, {0xffff}, 2, {0xff, 0xff}},
        {DIBIT_TYPE_UINT8, TENSOR_INT32_DATA, 0, 3, 3, {0, 128, 255}, 3, {0, 128, 255}},
        {DIBIT_TYPE_BOOL, TENSOR_INT32_DATA, 0, 2, 2, {1, 0}, 2, {1, 0}},
        {DIBIT_TYPE_FLOAT16,
         TENSOR_INT32_DATA,
         0,
         2,
         2,
         {0x3c00, 0xfbff},
         4,
         {0, 0x3c, 0xff, 0xfb}},
        {DIBIT_TYPE_BFLOAT16, TENSOR_INT32_DATA, 0, 1, 1, {0xbf80}, 2, {0x80, 0xbf}},
        {DIBIT_TYPE_FLOAT8E4M3FN, TENSOR_INT32_DATA, 0, 1, 1, {0xfe}, 1, {0xfe}},
        {DIBIT_TYPE_FLOAT8E4M3FNUZ, TENSOR_INT32_DATA, 0, 1, 1, {0x80}, 1, {0x80}},
        {DIBIT_TYPE_FLOAT8E5M2, TENSOR_INT32_DATA, 0, 1, 1, {0x7b}, 1, {0x7b}},
        {DIBIT_TYPE_FLOAT8E5M2FNUZ, TENSOR_INT32_DATA, 0, 1, 1, {1}, 1, {1}},
        {DIBIT_TYPE_FLOAT8E8M0, TENSOR_INT32_DATA, 0, 1, 1, {0x7f}, 1, {0x7f}},
        /* an entry is a byte: two elements, the last one half used */
        {DIBIT_TYPE_UINT4, TENSOR_INT32_DATA, 0, 3, 2, {0xf1, 0x03}, 2, {0xf1, 3}},
        {DIBIT_TYPE_INT4, TENSOR_INT32_DATA, 0, 4, 2, {0x8f, (uint64_t)-1}, 2, {0x8f, 0xff}},
        {DIBIT_TYPE_FLOAT4E2M1, TENSOR_INT32_DATA, 0, 2, 1, {0x7a}, 1, {0x7a}},
        {DIBIT_TYPE_UINT2, TENSOR_INT32_DATA, 0, 5, 2, {0xe4, 0x02}, 2, {0xe4, 2}},
        {DIBIT_TYPE_INT2, TENSOR_INT32_DATA, 0, 4, 1, {0xe4}, 1, {0xe4}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int packing = 0; packing < 3; packing++) {
            pb p = tensor_begin("t", cases[i].type, (int64_t[]){cases[i].count}, 1);
            put_entries(&p, cases[i].field, cases[i].wire_type, cases[i].entries,
                        cases[i].n_entries, packing);
            expect_bytes(&p, cases[i].bytes, cases[i].n_bytes);
        }
    }
}

static void test_strings(void **state) {
    (void)state;
    pb p = tensor_begin(NULL, DIBIT_TYPE_STRING, (int64_t[]){2}, 1);
    pb_bytes(&p, TENSOR_STRING_DATA, "\xff bytes", 7); /* bytes, not necessarily UTF-8 */
    pb_text(&p, TENSOR_STRING_DATA, "");
    one o;
    assert_int_equal(read_one(&o, &p), DIBIT_OK);
    assert_string_equal(o.tensor.name, "");
    assert_string_equal(o.tensor.strings[0], "\xff bytes");
    assert_string_equal(o.tensor.strings[1], "");
    dbt_arena_free(&o.arena);
    pb_free(&p);
}

static void test_scalars_and_shapes(void **state) {
    (void)state;
    pb p = {0};
    pb_varint(&p, TENSOR_DATA_TYPE, DIBIT_TYPE_INT8);
    pb_bytes(&p, TENSOR_RAW_DATA, "a", 1);
    expect_bytes(&p, "a", 1); /* rank 0 */
    p = tensor_begin("t", DIBIT_TYPE_INT8, (int64_t[]){1, 1, 1, 1, 1, 1, 1, 2}, 8);
    pb_bytes(&p, TENSOR_RAW_DATA, "ab", 2);
    expect_bytes(&p, "ab", 2);
    p = tensor_begin("t", DIBIT_TYPE_INT8, NULL, 0);
    pb_varint(&p, TENSOR_DIMS, 2); /* unpacked dims */
    pb_varint(&p, TENSOR_DIMS, 1);
    pb_bytes(&p, TENSOR_RAW_DATA, "ab", 2);
    expect_bytes(&p, "ab", 2);
    p = tensor_begin("t", DIBIT_TYPE_FLOAT, (int64_t[]){0, INT64_MAX}, 2);
    expect_bytes(&p, "", 0); /* no elements need no data */
}

/* ---- What is refused ------------------------------------------------------------------------ */

static void test_sizes_that_do_not_fit(void **state) {
    (void)state;
    static const struct {
        int64_t dims[3];
        size_t rank, n;
        dibit_status status;
        const char *sentence;
    } cases[] = {
        {{2}, 1, 7, DIBIT_BAD_FILE, "raw_data has 7 bytes, but type and dims need 8"},
        {{2}, 1, 9, DIBIT_BAD_FILE, "raw_data has 9 bytes, but type and dims need 8"},
        {{2}, 1, 0, DIBIT_BAD_FILE, "has no data"},
        {{0}, 1, 4, DIBIT_BAD_FILE, "need 0"},
        {{2, -1}, 2, 8, DIBIT_BAD_FILE, "dimension 1 is -1"},
        {{-4, -4}, 2, 64, DIBIT_BAD_FILE, "dimension 0 is -4"},
        {{0, -4}, 2, 0, DIBIT_BAD_FILE, "dimension 1 is -4"},
        {{INT64_MAX, 2}, 2, 8, DIBIT_TOO_LARGE, "overflow"},
        {{1ll << 32, 1ll << 32}, 2, 8, DIBIT_TOO_LARGE, "overflow"},
        {{1ll << 31, 1ll << 31, 2}, 3, 8, DIBIT_TOO_LARGE, "overflow"},
        {{1ll << 62}, 1, 8, DIBIT_TOO_LARGE, "overflow"},
        {{1ll << 50}, 1, 8, DIBIT_BAD_FILE, "raw_data has 8 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pb p = tensor_begin("w", DIBIT_TYPE_FLOAT, cases[i].dims, cases[i].rank);
        pb_bytes(&p, TENSOR_RAW_DATA,
                 "1234567890123456789012345678901234567890123456789012345678901234", cases[i].n);
        expect_failure(&p, cases[i].status, cases[i].sentence);
    }
    pb p = tensor_begin("w", DIBIT_TYPE_FLOAT, (int64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1}, 9);
    expect_failure(&p, DIBIT_UNSUPPORTED, "tensor 0: more than 8 dimensions");
    p = tensor_begin("w", DIBIT_TYPE_INT4, (int64_t[]){3}, 1);
    pb_bytes(&p, TENSOR_RAW_DATA, "abc", 3); /* one to a byte */
    expect_failure(&p, DIBIT_BAD_FILE, "raw_data has 3 bytes, but type and dims need 2");
    p = tensor_begin("w", DIBIT_TYPE_INT32, (int64_t[]){3}, 1);
    pb_varint(&p, TENSOR_INT32_DATA, 1);
    expect_failure(&p, DIBIT_BAD_FILE, "int32_data has 1 entries, but type and dims need 3");
    p = tensor_begin("w", DIBIT_TYPE_STRING, (int64_t[]){2}, 1);
    pb_text(&p, TENSOR_STRING_DATA, "one");
    expect_failure(&p, DIBIT_BAD_FILE, "string_data has 1 entries, but type and dims need 2");
    p = tensor_begin("w", DIBIT_TYPE_COMPLEX64, (int64_t[]){INT64_MAX / 8}, 1);
    pb_float(&p, TENSOR_FLOAT_DATA, 1);
    expect_failure(&p, DIBIT_TOO_LARGE, "overflow");
}

static void test_wrong_types_and_fields(void **state) {
    (void)state;
    pb p = tensor_begin("w", DIBIT_TYPE_FLOAT, (int64_t[]){1}, 1);
    pb_varint(&p, TENSOR_INT64_DATA, 1);
    expect_failure(&p, DIBIT_BAD_FILE, "tensor 'w': is of type float, but has int64_data");
    p = tensor_begin("w", DIBIT_TYPE_FLOAT, (int64_t[]){1}, 1);
    pb_float(&p, TENSOR_FLOAT_DATA, 1);
    pb_bytes(&p, TENSOR_RAW_DATA, "abcd", 4);
    expect_failure(&p, DIBIT_BAD_FILE, "has its data in more than one field");
    p = tensor_begin("w", DIBIT_TYPE_FLOAT, (int64_t[]){1}, 1);
    pb_float(&p, TENSOR_FLOAT_DATA, 1);
    pb_varint(&p, TENSOR_INT32_DATA, 1);
    expect_failure(&p, DIBIT_BAD_FILE, "has its data in more than one field");
    p = tensor_begin("w", DIBIT_TYPE_FLOAT, (int64_t[]){1}, 1);
    pb_varint(&p, TENSOR_FLOAT_DATA, 1);
    expect_failure(&p, DIBIT_BAD_FILE, "field 'float_data' has wire type 0 instead of 5");
    p = tensor_begin("w", DIBIT_TYPE_FLOAT, (int64_t[]){1}, 1);
    pb_bytes(&p, TENSOR_FLOAT_DATA, "abc", 3);
    expect_failure(&p, DIBIT_BAD_FILE, "the message ends inside a number");
    p = tensor_begin("w", DIBIT_TYPE_STRING, (int64_t[]){1}, 1);
    pb_bytes(&p, TENSOR_RAW_DATA, "a", 1);
    expect_failure(&p, DIBIT_BAD_FILE, "strings cannot be in raw_data");
    p = tensor_begin("w", DIBIT_TYPE_STRING, (int64_t[]){1}, 1);
    pb_bytes(&p, TENSOR_STRING_DATA, "a\0b", 3);
    expect_failure(&p, DIBIT_BAD_FILE, "field 'string_data' has a NUL in its text");
    p = tensor_begin("w", 0, (int64_t[]){1}, 1);
    expect_failure(&p, DIBIT_BAD_FILE, "tensor 'w': has no data type");
    p = tensor_begin("w", 27, (int64_t[]){1}, 1);
    expect_failure(&p, DIBIT_UNSUPPORTED, "unknown data type 27");
    p = tensor_begin("w", (uint64_t)-1, (int64_t[]){1}, 1);
    expect_failure(&p, DIBIT_UNSUPPORTED, "unknown data type");
    p = tensor_begin("w", DIBIT_TYPE_INT8, (int64_t[]){1}, 1);
    pb_bytes(&p, TENSOR_SEGMENT, "", 0);
    expect_failure(&p, DIBIT_UNSUPPORTED, "is only a segment of a tensor");
    p = tensor_begin("w", DIBIT_TYPE_INT8, (int64_t[]){1}, 1);
    pb_varint(&p, TENSOR_DATA_LOCATION, 2);
    expect_failure(&p, DIBIT_BAD_FILE, "unknown data_location 2");
    p = tensor_begin("\xff", DIBIT_TYPE_INT8, (int64_t[]){1}, 1);
    expect_failure(&p, DIBIT_BAD_FILE, "field 'name' is not UTF-8");
}

static void test_entries_that_do_not_fit(void **state) {
    (void)state;
    static const struct {
        dibit_type type;
        uint32_t field;
        uint64_t entry;
    } cases[] = {
        {DIBIT_TYPE_UINT8, TENSOR_INT32_DATA, 256},
        {DIBIT_TYPE_INT8, TENSOR_INT32_DATA, (uint64_t)-129},
        {DIBIT_TYPE_FLOAT16, TENSOR_INT32_DATA, 65536},
        {DIBIT_TYPE_INT16, TENSOR_INT32_DATA, (uint64_t)-32769},
        {DIBIT_TYPE_BOOL, TENSOR_INT32_DATA, 2},
        {DIBIT_TYPE_UINT4, TENSOR_INT32_DATA, 256},
        {DIBIT_TYPE_UINT32, TENSOR_UINT64_DATA, 1ull << 32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pb p = tensor_begin("w", cases[i].type, (int64_t[]){1}, 1);
        pb_varint(&p, cases[i].field, cases[i].entry);
        expect_failure(&p, DIBIT_BAD_FILE, "entry 0 of ");
    }
}

/* A few bytes that promise a lot must not cost memory. */
static void test_promises_cost_nothing(void **state) {
    (void)state;
    counter c = {.cap = 64 * 1024};
    const dibit_allocator allocator = counter_allocator(&c);
    for (uint64_t length = 1; length < 1ull << 40; length <<= 3) {
        pb p = tensor_begin("w", DIBIT_TYPE_INT8, (int64_t[]){(int64_t)length}, 1);
        pb_tag(&p, TENSOR_RAW_DATA, 2);
        pb_bare_varint(&p, length);
        one o = {0};
        dbt_source_from_buffer(p.data, p.n, "t.pb", &o.source);
        dbt_arena_init(&o.arena, &allocator);
        const dibit_status status = dbt_onnx_read_tensor(&o.source, &o.arena, &o.tensor, &o.error);
        assert_int_equal(status, DIBIT_BAD_FILE);
        assert_non_null(strstr(o.error.text, "goes beyond the end of its message"));
        dbt_arena_free(&o.arena);
        pb_free(&p);
    }
    assert_int_equal(c.live, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw_data_of_every_type),
        cmocka_unit_test(test_typed_data_of_every_type),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_scalars_and_shapes),
        cmocka_unit_test(test_sizes_that_do_not_fit),
        cmocka_unit_test(test_wrong_types_and_fields),
        cmocka_unit_test(test_entries_that_do_not_fit),
        cmocka_unit_test(test_promises_cost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

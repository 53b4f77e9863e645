/* Files of tensors: .pb, .npy of every version, type and order, .npz; and malformed ones. */
#include "dibit/dibit.h"
#include "onnx/tensor_files.h"
#include "onnx_rich_model.h"

typedef struct set {
    struct dibit_tensors tensors;
    counter counter;
    dibit_error error;
} set;

static dibit_status read_bytes(set *s, const void *data, size_t n) {
    dbt_source source;
    const dibit_allocator allocator = counter_allocator(&s->counter);
    dbt_source_from_buffer(data, n, "dir/x.npy", &source);
    dbt_arena_init(&s->tensors.arena, &allocator);
    return dbt_tensors_read(&source, &s->tensors, &s->error);
}

static void release(set *s) {
    dbt_arena_free(&s->tensors.arena);
    assert_int_equal(s->counter.live, 0);
    *s = (set){0};
}

/* ---- .npy ----------------------------------------------------------------------------------- */

static pb npy(unsigned version, const char *header, const void *data, size_t n) {
    pb p = {0};
    const uint8_t head[8] = {0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)version, 0};
    pb_raw(&p, head, 8);
    pb_fixed(&p, strlen(header), version == 1 ? 2 : 4);
    pb_raw(&p, header, strlen(header));
    pb_raw(&p, data, n);
    return p;
}

static pb npy_of(const char *descr, const char *order, const char *shape, const void *data,
                 size_t n) {
    char header[200];
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }   \n",
             descr, order, shape);
    return npy(1, header, data, n);
}

static void test_npy_of_every_type(void **state) {
    (void)state;
    static const struct {
        const char *descr;
        dibit_type type;
        size_t bytes, number_bytes;
    } types[] = {
        {"<f4", DIBIT_TYPE_FLOAT, 4, 4},        {"<f8", DIBIT_TYPE_DOUBLE, 8, 8},
        {"<f2", DIBIT_TYPE_FLOAT16, 2, 2},      {"|i1", DIBIT_TYPE_INT8, 1, 1},
        {"<i2", DIBIT_TYPE_INT16, 2, 2},        {"<i4", DIBIT_TYPE_INT32, 4, 4},
        {"<i8", DIBIT_TYPE_INT64, 8, 8},        {"|u1", DIBIT_TYPE_UINT8, 1, 1},
        {"<u2", DIBIT_TYPE_UINT16, 2, 2},       {"<u4", DIBIT_TYPE_UINT32, 4, 4},
        {"<u8", DIBIT_TYPE_UINT64, 8, 8},       {"|b1", DIBIT_TYPE_BOOL, 1, 1},
        {"<c8", DIBIT_TYPE_COMPLEX64, 8, 4},    {"<c16", DIBIT_TYPE_COMPLEX128, 16, 8},
        {"=f4", DIBIT_TYPE_FLOAT, 4, 4},        {">f4", DIBIT_TYPE_FLOAT, 4, 4},
        {">i8", DIBIT_TYPE_INT64, 8, 8},        {">f2", DIBIT_TYPE_FLOAT16, 2, 2},
        {">c16", DIBIT_TYPE_COMPLEX128, 16, 8},
    };
    uint8_t data[48];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 5 + 1);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        pb p = npy_of(types[i].descr, "False", "(3,)", data, types[i].bytes * 3);
        set s = {0};
        assert_int_equal(read_bytes(&s, p.data, p.n), DIBIT_OK);
        assert_int_equal(s.tensors.count, 1);
        const dibit_tensor *const t = s.tensors.tensors;
        assert_string_equal(t->name, "x");
        assert_int_equal(t->type, types[i].type);
        assert_int_equal(t->rank, 1);
        assert_int_equal(t->dims[0], 3);
        assert_int_equal(t->bytes, types[i].bytes * 3);
        assert_int_equal((uintptr_t)t->data % 64, 0);
        for (size_t b = 0; b < t->bytes; b++) {
            const size_t in = b % types[i].number_bytes, number = b - in;
            const size_t from =
                types[i].descr[0] == '>' ? number + types[i].number_bytes - 1 - in : b;
            assert_int_equal(((uint8_t *)t->data)[b], data[from]);
        }
        release(&s);
        pb_free(&p);
    }
}

static void test_npy_versions_orders_and_shapes(void **state) {
    (void)state;
    const uint8_t data[6] = {1, 2, 3, 4, 5, 6};
    const uint8_t from_fortran[6] = {1, 3, 5, 2, 4, 6}; /* (2, 3): columns come first */
    for (unsigned version = 1; version <= 3; version++) {
        pb p = npy(version, "{'shape': (2, 3), \"descr\": \"|u1\",'fortran_order':True}", data, 6);
        set s = {0};
        assert_int_equal(read_bytes(&s, p.data, p.n), DIBIT_OK);
        assert_int_equal(s.tensors.tensors->rank, 2);
        assert_int_equal(s.tensors.tensors->dims[1], 3);
        assert_memory_equal(s.tensors.tensors->data, from_fortran, 6);
        release(&s);
        pb_free(&p);
    }
    static const struct {
        const char *shape;
        int32_t rank;
        size_t n;
    } shapes[] = {{"()", 0, 1}, {"(6,)", 1, 6}, {"(2, 0)", 2, 0}, {"(1,1,1,1,1,1,1,6)", 8, 6}};
    for (size_t i = 0; i < 4; i++) {
        for (int order = 0; order < 2; order++) {
            pb p = npy_of("|u1", order ? "True" : "False", shapes[i].shape, data, shapes[i].n);
            set s = {0};
            assert_int_equal(read_bytes(&s, p.data, p.n), DIBIT_OK);
            assert_int_equal(s.tensors.tensors->rank, shapes[i].rank);
            assert_int_equal(s.tensors.tensors->bytes, shapes[i].n);
            assert_memory_equal(s.tensors.tensors->data, data, shapes[i].n);
            release(&s);
            pb_free(&p);
        }
    }
}

static void expect_failure(const pb *p, dibit_status status, const char *sentence) {
    set s = {0};
    const dibit_status got = read_bytes(&s, p->data, p->n);
    if (got != status || !strstr(s.error.text, sentence)) {
        fail_msg("%d '%s' instead of %d '%s'", (int)got, s.error.text, (int)status, sentence);
    }
    release(&s);
}

static void test_malformed_npy(void **state) {
    (void)state;
    static const struct {
        const char *descr, *shape;
        dibit_status status;
        const char *sentence;
    } cases[] = {
        {"<f4", "(3,)", DIBIT_BAD_FILE, "has 4 bytes of data, but its shape and type need 12"},
        {"|i1", "(3,)", DIBIT_BAD_FILE, "has 4 bytes of data"},
        {"<f4", "(-1,)", DIBIT_BAD_FILE, "malformed header"},
        {"<f4", "(1)", DIBIT_BAD_FILE, "malformed header"},
        {"<f4", "1", DIBIT_BAD_FILE, "malformed header"},
        {"<f4", "(1,", DIBIT_BAD_FILE, "malformed header"},
        {"<f4", "(99999999999999999999,)", DIBIT_BAD_FILE, "malformed header"},
        {"<f4", "(9223372036854775807,2)", DIBIT_TOO_LARGE, "overflows 64 bits"},
        {"<f4", "(4611686018427387904,)", DIBIT_TOO_LARGE, "overflows 64 bits"},
        {"<f4", "(1,1,1,1,1,1,1,1,1)", DIBIT_UNSUPPORTED, "more than 8 dimensions"},
        {"<U1", "(1,)", DIBIT_UNSUPPORTED, "type '<U1'"},
        {"|O", "(1,)", DIBIT_UNSUPPORTED, "type '|O'"},
        {"f4", "(1,)", DIBIT_UNSUPPORTED, "type 'f4'"},
        {"<f4444444444", "(1,)", DIBIT_BAD_FILE, "malformed header"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pb p = npy_of(cases[i].descr, "False", cases[i].shape, "abcd", 4);
        expect_failure(&p, cases[i].status, cases[i].sentence);
        pb_free(&p);
    }
    pb p = npy(4, "{}", "", 0);
    expect_failure(&p, DIBIT_UNSUPPORTED, ".npy version 4.0");
    pb_free(&p);
    p = npy(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "abcd", 4);
    expect_failure(&p, DIBIT_BAD_FILE, "malformed header");
    pb_free(&p);
    p = npy_of("<f4", "False", "(1,)", "abcd", 4);
    for (size_t n = 6; n < p.n; n++) { /* every truncation */
        pb cut = {.data = p.data, .n = n};
        expect_failure(&cut, DIBIT_BAD_FILE, "dir/x.npy");
    }
    pb_free(&p);
}

/* ---- .npz ----------------------------------------------------------------------------------- */

static uint32_t plain_crc(const uint8_t *data, size_t n) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

enum { LOCAL_DATA_BYTE = 30 + 5 + 4 + 20 }; /* inside the data of an entry named "a.npy" */

typedef struct zip {
    pb all, directory;
    unsigned count;
} zip;

/* Adds `n` bytes of which the file holds `packed`. */
static void zip_add(zip *z, const char *name, unsigned method, const pb *packed, const void *data,
                    size_t n) {
    const size_t at = z->all.n, name_bytes = strlen(name);
    const uint32_t crc = plain_crc(data, n);
    pb_raw(&z->all, "PK\x03\x04\x14\0\0\0", 8);
    pb_fixed(&z->all, method, 2);
    pb_fixed(&z->all, 0, 4);
    pb_fixed(&z->all, crc, 4);
    pb_fixed(&z->all, packed->n, 4);
    pb_fixed(&z->all, n, 4);
    pb_fixed(&z->all, name_bytes, 2);
    pb_fixed(&z->all, 4, 2);
    pb_raw(&z->all, name, name_bytes);
    pb_raw(&z->all, "more", 4); /* local extra fields, which the directory does not have */
    pb_raw(&z->all, packed->data, packed->n);

    pb_raw(&z->directory, "PK\x01\x02\x14\0\x14\0\0\0", 10);
    pb_fixed(&z->directory, method, 2);
    pb_fixed(&z->directory, 0, 4);
    pb_fixed(&z->directory, crc, 4);
    pb_fixed(&z->directory, packed->n, 4);
    pb_fixed(&z->directory, n, 4);
    pb_fixed(&z->directory, name_bytes, 2);
    pb_fixed(&z->directory, 0, 8);
    pb_fixed(&z->directory, 0, 4);
    pb_fixed(&z->directory, at, 4);
    pb_raw(&z->directory, name, name_bytes);
    z->count++;
}

static pb zip_end(zip *z, const char *comment) {
    const size_t at = z->all.n;
    pb_raw(&z->all, z->directory.data, z->directory.n);
    pb_raw(&z->all, "PK\x05\x06\0\0\0\0", 8);
    pb_fixed(&z->all, z->count, 2);
    pb_fixed(&z->all, z->count, 2);
    pb_fixed(&z->all, z->directory.n, 4);
    pb_fixed(&z->all, at, 4);
    pb_fixed(&z->all, strlen(comment), 2);
    pb_raw(&z->all, comment, strlen(comment));
    pb_free(&z->directory);
    return z->all;
}

/* One stored block of deflate's format. */
static pb deflate_block(const pb *data) {
    pb out = {0};
    pb_fixed(&out, 1, 1);
    pb_fixed(&out, data->n, 2);
    pb_fixed(&out, ~data->n & 0xffff, 2);
    pb_raw(&out, data->data, data->n);
    return out;
}

static void test_npz(void **state) {
    (void)state;
    pb a = npy_of("|u1", "False", "(2,)", "xy", 2), b = npy_of("<i4", "False", "()", "\7\0\0\0", 4);
    pb packed = deflate_block(&b);
    for (int deflated = 0; deflated < 2; deflated++) {
        zip z = {0};
        zip_add(&z, "a.npy", 0, &a, a.data, a.n);
        zip_add(&z, "folder/b.npy", deflated ? 8 : 0, deflated ? &packed : &b, b.data, b.n);
        pb p = zip_end(&z, "a comment");
        set s = {0};
        const dibit_status status = read_bytes(&s, p.data, p.n);
#if DBT_HAVE_ZLIB
        const bool can_read = true;
#else
        const bool can_read = !deflated;
        if (deflated) assert_non_null(strstr(s.error.text, "this build has no zlib"));
#endif
        assert_int_equal(status, can_read ? DIBIT_OK : DIBIT_UNSUPPORTED);
        if (can_read) {
            assert_int_equal(s.tensors.count, 2);
            assert_string_equal(s.tensors.tensors[0].name, "a");
            assert_memory_equal(s.tensors.tensors[0].data, "xy", 2);
            assert_string_equal(s.tensors.tensors[1].name, "folder/b");
            assert_int_equal(*(int32_t *)s.tensors.tensors[1].data, 7);
        }
        release(&s);
        for (size_t n = 4; n < p.n; n++) { /* every truncation */
            const dibit_status cut = read_bytes(&s, p.data, n);
            assert_true(cut == DIBIT_BAD_FILE || cut == DIBIT_UNSUPPORTED);
            release(&s);
        }
        uint64_t seed = 9;
        for (int i = 0; i < 20000; i++) { /* flipped bytes: any status, no crash, little memory */
            const uint64_t r = dbt_test_random(&seed);
            uint8_t *const byte = &p.data[r % p.n], old = *byte;
            *byte ^= (uint8_t)(1 + (r >> 40) % 255);
            s.counter.cap = 2000000;
            (void)read_bytes(&s, p.data, p.n);
            *byte = old;
            release(&s);
        }
        pb_free(&p);
    }
    pb_free(&a);
    pb_free(&b);
    pb_free(&packed);
}

static void test_malformed_npz(void **state) {
    (void)state;
    pb a = npy_of("|u1", "False", "(2,)", "xy", 2);
    zip z = {0};
    zip_add(&z, "a.npy", 0, &a, a.data, a.n - 1); /* stored size and size differ */
    pb p = zip_end(&z, "");
    expect_failure(&p, DIBIT_BAD_FILE, "entry 'a': is stored, but in another size");
    pb_free(&p);
    z = (zip){0};
    zip_add(&z, "a.npy", 0, &a, a.data, a.n);
    p = zip_end(&z, "");
    p.data[LOCAL_DATA_BYTE] ^= 1;
    expect_failure(&p, DIBIT_BAD_FILE, "entry 'a': its checksum is wrong");
    pb_free(&p);
    z = (zip){0};
    zip_add(&z, "a.npy", 12, &a, a.data, a.n);
    p = zip_end(&z, "");
    expect_failure(&p, DIBIT_UNSUPPORTED, "entry 'a': compression method 12");
    pb_free(&p);
    z = (zip){0};
    for (int i = 0; i < 50; i++) { /* all entries share the bytes of the first */
        zip_add(&z, "a.npy", 0, &a, a.data, a.n);
        if (i == 0) continue;
        z.all.n -= a.n + 30 + 5 + 4;
        memset(z.directory.data + z.directory.n - 5 - 4, 0, 4);
    }
    p = zip_end(&z, "");
    expect_failure(&p, DIBIT_BAD_FILE, "its entries overlap");
    pb_free(&p);
#if DBT_HAVE_ZLIB
    z = (zip){0};
    uint8_t *const zeros = calloc(1, 1000000);
    zip_add(&z, "a.npy", 8, &a, zeros, 1000000); /* a bomb that is not even deflate data */
    free(zeros);
    p = zip_end(&z, "");
    expect_failure(&p, DIBIT_BAD_FILE, "cannot become 1000000");
    pb_free(&p);
#endif
    pb_free(&a);
}

/* ---- .pb and files -------------------------------------------------------------------------- */

static void test_pb(void **state) {
    (void)state;
    pb t = tensor_begin("logits", DIBIT_TYPE_FLOAT16, (int64_t[]){1, 2}, 2);
    pb_bytes(&t, TENSOR_RAW_DATA, "\1\2\3\4", 4);
    set s = {0};
    assert_int_equal(read_bytes(&s, t.data, t.n), DIBIT_OK);
    assert_string_equal(s.tensors.tensors->name, "logits");
    assert_int_equal(s.tensors.tensors->type, DIBIT_TYPE_FLOAT16);
    assert_int_equal(s.tensors.tensors->dims[1], 2);
    assert_memory_equal(s.tensors.tensors->data, "\1\2\3\4", 4);
    release(&s);
    pb_free(&t);
    t = tensor_begin("w", DIBIT_TYPE_FLOAT, (int64_t[]){1}, 1);
    pb_varint(&t, TENSOR_DATA_LOCATION, 1);
    pb_entry(&t, TENSOR_EXTERNAL_DATA, "location", "w.bin");
    expect_failure(&t, DIBIT_UNSUPPORTED, "tensor 'w': its data lies in another file");
    pb_free(&t);
    t = tensor_begin("s", DIBIT_TYPE_STRING, (int64_t[]){0}, 1);
    expect_failure(&t, DIBIT_UNSUPPORTED, "tensors of strings");
    pb_free(&t);
    expect_failure(&t, DIBIT_BAD_FILE, "is empty");
}

static void test_files(void **state) {
    (void)state;
    static const char path[] = "test_tensor_files.tmp.npy";
    pb p = npy_of("<i4", "False", "(2,)", "\1\0\0\0\2\0\0\0", 8);
    FILE *const f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p.data, 1, p.n, f), p.n);
    fclose(f);
    pb_free(&p);
    dibit_tensors *tensors = NULL;
    dibit_error error;
    assert_int_equal(dibit_tensors_load(path, &tensors, &error), DIBIT_OK);
    assert_int_equal(dibit_tensors_count(tensors), 1);
    assert_string_equal(dibit_tensors_get(tensors, 0)->name, "test_tensor_files.tmp");
    assert_int_equal(((int32_t *)dibit_tensors_get(tensors, 0)->data)[1], 2);
    assert_null(dibit_tensors_get(tensors, 1));
    dibit_tensors_destroy(&tensors);
    assert_null(tensors);
    dibit_tensors_destroy(&tensors);
    remove(path);
    assert_int_equal(dibit_tensors_load(path, &tensors, &error), DIBIT_IO);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(dibit_tensors_load(NULL, &tensors, &error), DIBIT_BAD_ARGUMENT);
    assert_null(tensors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_npy_of_every_type),
        cmocka_unit_test(test_npy_versions_orders_and_shapes),
        cmocka_unit_test(test_malformed_npy),
        cmocka_unit_test(test_npz),
        cmocka_unit_test(test_malformed_npz),
        cmocka_unit_test(test_pb),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

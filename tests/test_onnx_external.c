/* External data: files beside the model, in callbacks, and locations that are refused. */
#define _POSIX_C_SOURCE 200809L
#include <sys/stat.h>
#include <unistd.h>

#include "onnx_rich_model.h"

static const char folder[] = "test_onnx_external.tmp";

static void write_file(const char *path, const void *data, size_t n) {
    FILE *const f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

/* folder/m.onnx, folder/w.bin (10 bytes), folder/sub/v.bin, outside.bin */
static int make_files(void **state) {
    (void)state;
    mkdir(folder, 0777);
    if (chdir(folder) != 0) return 1;
    mkdir("models", 0777);
    mkdir("models/sub", 0777);
    write_file("models/w.bin", "0123456789", 10);
    write_file("models/sub/v.bin", "abc", 3);
    write_file("models/empty.bin", "", 0);
    write_file("outside.bin", "secret", 6);
    write_file("models/m.onnx", "x", 1);
    return symlink("../outside.bin", "models/link.bin") != 0 ||
           symlink("w.bin", "models/inner_link.bin") != 0 || symlink("..", "models/up") != 0 ||
           mkdir("cache", 0777) != 0 || symlink("../models/m.onnx", "cache/m.onnx") != 0 ||
           symlink("../models/w.bin", "cache/w.bin") != 0;
}

static int remove_files(void **state) {
    (void)state;
    static const char *const paths[] = {"cache/w.bin",
                                        "cache/m.onnx",
                                        "cache",
                                        "models/up",
                                        "models/inner_link.bin",
                                        "models/link.bin",
                                        "models/m.onnx",
                                        "outside.bin",
                                        "models/empty.bin",
                                        "models/sub/v.bin",
                                        "models/w.bin",
                                        "models/sub",
                                        "models"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) remove(paths[i]);
    if (chdir("..") != 0) return 1;
    remove(folder);
    return 0;
}

/* Adds an int8 initializer of n elements in another file; NULL: no such key. */
static void add_external(pb *graph, const char *name, int64_t n, const char *location,
                         const char *offset, const char *length) {
    pb t = tensor_begin(name, DIBIT_TYPE_INT8, (int64_t[]){n}, 1);
    if (location) pb_entry(&t, TENSOR_EXTERNAL_DATA, "location", location);
    if (offset) pb_entry(&t, TENSOR_EXTERNAL_DATA, "offset", offset);
    if (length) pb_entry(&t, TENSOR_EXTERNAL_DATA, "length", length);
    pb_entry(&t, TENSOR_EXTERNAL_DATA, "checksum", "whatever");
    pb_varint(&t, TENSOR_DATA_LOCATION, 1);
    pb_message(graph, GRAPH_INITIALIZER, &t);
}

static pb model_of(pb *graph) {
    pb m = {0};
    pb_varint(&m, MODEL_IR_VERSION, 8);
    pb_message(&m, MODEL_GRAPH, graph);
    return m;
}

static void expect_data(const loaded *l, uint32_t i, const char *bytes) {
    const dbt_constant *const c = &l->model->graph->initializers[i];
    assert_int_equal(c->bytes.bytes, strlen(bytes));
    assert_non_null(c->data);
    assert_memory_equal(c->data, bytes, strlen(bytes));
}

static void test_several_files_with_offsets(void **state) {
    (void)state;
    static const char *const paths[] = {"models/m.onnx", "./models/m.onnx",
                                        "cache/../models/m.onnx"};
    for (size_t i = 0; i < 3; i++) {
        pb g = {0};
        add_external(&g, "a", 3, "w.bin", NULL, "3");
        add_external(&g, "b", 4, "w.bin", "6", NULL);
        add_external(&g, "c", 3, "sub/v.bin", "0", "3");
        add_external(&g, "d", 10, "./inner_link.bin", NULL, NULL);
        add_external(&g, "e", 0, "w.bin", "10", "0");
        add_external(&g, "f", 0, "empty.bin", NULL, NULL);
        pb m = model_of(&g);
        loaded l = {0};
        dbt_source_from_buffer(m.data, m.n, "m.onnx", &l.source);
        const dibit_status status = load_source(&l, (dbt_onnx_reader_desc){.path = paths[i]});
        if (status != DIBIT_OK) fail_msg("%s", l.error.text);
        expect_data(&l, 0, "012");
        expect_data(&l, 1, "6789");
        expect_data(&l, 2, "abc");
        expect_data(&l, 3, "0123456789");
        expect_data(&l, 4, "");
        expect_data(&l, 5, "");
        unload(&l);
        pb_free(&m);
    }
}

/* Download caches link model and data to a place of their own. */
static void test_data_where_the_model_is_linked_to(void **state) {
    (void)state;
    pb g = {0};
    add_external(&g, "a", 10, "w.bin", NULL, NULL);
    pb m = model_of(&g);
    loaded l = {0};
    dbt_source_from_buffer(m.data, m.n, "m.onnx", &l.source);
    assert_int_equal(load_source(&l, (dbt_onnx_reader_desc){.path = "cache/m.onnx"}), DIBIT_OK);
    expect_data(&l, 0, "0123456789");
    unload(&l);
    pb_free(&m);
}

static void expect_failure(pb *graph, const char *path, dibit_status status, const char *sentence) {
    pb m = model_of(graph);
    loaded l = {0};
    dbt_source_from_buffer(m.data, m.n, "m.onnx", &l.source);
    const dibit_status got = load_source(&l, (dbt_onnx_reader_desc){.path = path});
    if (got != status || !strstr(l.error.text, sentence) ||
        strncmp(l.error.text, "'m.onnx': initializer 'w': ", 27) != 0) {
        fail_msg("%d '%s' instead of %d '%s'", (int)got, l.error.text, (int)status, sentence);
    }
    unload(&l);
    pb_free(&m);
}

static void test_locations_outside_of_the_folder(void **state) {
    (void)state;
    static const struct {
        const char *location;
        dibit_status status;
        const char *sentence;
    } cases[] = {
        {"", DIBIT_BAD_FILE, "only in the model's folder"},
        {"/etc/passwd", DIBIT_BAD_FILE, "'/etc/passwd': only in the model's folder"},
        {"../outside.bin", DIBIT_BAD_FILE, "only in the model's folder"},
        {"..", DIBIT_BAD_FILE, "only in the model's folder"},
        {"sub/../../outside.bin", DIBIT_BAD_FILE, "only in the model's folder"},
        {"sub/..", DIBIT_BAD_FILE, "only in the model's folder"},
        {"sub//..//w.bin", DIBIT_BAD_FILE, "only in the model's folder"},
        {"..\\outside.bin", DIBIT_BAD_FILE, "only in the model's folder"},
        {"C:\\w.bin", DIBIT_BAD_FILE, "only in the model's folder"},
        {"file:///etc/passwd", DIBIT_BAD_FILE, "only in the model's folder"},
        {"link.bin", DIBIT_BAD_FILE, "is a link that leads out of the model's folder"},
        {"up/outside.bin", DIBIT_BAD_FILE, "is a link that leads out of the model's folder"},
        {"absent.bin", DIBIT_IO, "cannot open 'absent.bin'"},
        {"sub", DIBIT_IO, "is not a regular file"},
        {"...", DIBIT_IO, "cannot open '...'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pb g = {0};
        add_external(&g, "w", 3, cases[i].location, NULL, NULL);
        expect_failure(&g, "models/m.onnx", cases[i].status, cases[i].sentence);
    }
}

static void test_ranges_and_numbers(void **state) {
    (void)state;
    static const struct {
        int64_t n;
        const char *offset, *length, *sentence;
    } cases[] = {
        {11, NULL, NULL, "has 11 bytes from byte 0 of 'w.bin' on, which has 10"},
        {3, "8", "3", "has 3 bytes from byte 8 of 'w.bin' on, which has 10"},
        {0, "11", NULL, "has 0 bytes from byte 11"},
        {3, "18446744073709551615", NULL, "from byte 18446744073709551615"},
        {3, "18446744073709551616", NULL, "'offset' is '18446744073709551616', no number"},
        {3, "-1", NULL, "'offset' is '-1', no number"},
        {3, "", NULL, "'offset' is '', no number"},
        {3, "0x1", NULL, "'offset' is '0x1', no number"},
        {3, NULL, "4", "external data has length 4, but type and dims need 3 bytes"},
        {3, NULL, "0", "external data has length 0"},
        {3, NULL, "3 ", "'length' is '3 ', no number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pb g = {0};
        add_external(&g, "w", cases[i].n, "w.bin", cases[i].offset, cases[i].length);
        expect_failure(&g, "models/m.onnx", DIBIT_BAD_FILE, cases[i].sentence);
    }
    pb g = {0};
    add_external(&g, "w", 3, NULL, NULL, NULL);
    expect_failure(&g, "models/m.onnx", DIBIT_BAD_FILE, "external data has no 'location'");
    add_external(&g, "w", 3, "w.bin", NULL, NULL);
    expect_failure(&g, NULL, DIBIT_UNSUPPORTED, "lies in 'w.bin', and the model has no folder");
    pb t = tensor_begin("w", DIBIT_TYPE_INT8, (int64_t[]){3}, 1);
    pb_entry(&t, TENSOR_EXTERNAL_DATA, "location", "w.bin");
    pb_bytes(&t, TENSOR_RAW_DATA, "abc", 3);
    pb_varint(&t, TENSOR_DATA_LOCATION, 1);
    pb_message(&g, GRAPH_INITIALIZER, &t);
    expect_failure(&g, "models/m.onnx", DIBIT_BAD_FILE, "data in more than one field");
    t = tensor_begin("w", DIBIT_TYPE_STRING, (int64_t[]){3}, 1);
    pb_entry(&t, TENSOR_EXTERNAL_DATA, "location", "w.bin");
    pb_varint(&t, TENSOR_DATA_LOCATION, 1);
    pb_message(&g, GRAPH_INITIALIZER, &t);
    expect_failure(&g, "models/m.onnx", DIBIT_BAD_FILE, "strings cannot be in external data");
}

/* ---- Callbacks ------------------------------------------------------------------------------ */

typedef struct opener {
    uint64_t seed;
    int opened, closed, refuse;
} opener;

static dibit_status read_digits(void *user, uint64_t offset, uint64_t bytes, void *dst,
                                dibit_error *error) {
    (void)error;
    opener *const o = user;
    if (dbt_test_random(&o->seed) % 2) return DIBIT_PENDING;
    for (uint64_t i = 0; i < bytes; i++) ((char *)dst)[i] = (char)('0' + (offset + i) % 10);
    return DIBIT_OK;
}

static void count_close(void *user) { ((opener *)user)->closed++; }

static dibit_status open_digits(void *user, const char *location, dibit_source *out,
                                dibit_error *error) {
    opener *const o = user;
    if (o->refuse) return dbt_fail(error, DIBIT_IO, "no '%s' here", location);
    if (dbt_test_random(&o->seed) % 2) return DIBIT_PENDING;
    o->opened++;
    *out = (dibit_source){100000, read_digits, count_close, o};
    return DIBIT_OK;
}

static void test_files_that_a_callback_opens(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        opener o = {.seed = seed};
        pb g = {0};
        add_external(&g, "a", 3, "one", "7", NULL);
        add_external(&g, "b", 70000, "two", NULL, NULL);
        add_external(&g, "c", 2, "one", NULL, NULL);
        pb m = model_of(&g);
        loaded l = {0};
        dbt_source_from_buffer(m.data, m.n, "m.onnx", &l.source);
        assert_int_equal(load_source(&l, (dbt_onnx_reader_desc){.open_external = open_digits,
                                                                .open_external_user = &o}),
                         DIBIT_OK);
        assert_int_equal(o.opened, 2);
        dbt_constant c = l.model->graph->initializers[0];
        assert_null(c.data);
        dibit_status status;
        const uint64_t before = l.arena.bytes;
        while ((status = dbt_constant_load(&c, &l.arena, &l.error)) == DIBIT_PENDING) {
        }
        assert_int_equal(status, DIBIT_OK);
        assert_memory_equal(c.data, "789", 3);
        c = l.model->graph->initializers[1];
        while ((status = dbt_constant_load(&c, &l.arena, &l.error)) == DIBIT_PENDING) {
        }
        assert_memory_equal(c.data, "0123", 4);
        assert_true(l.arena.bytes - before < 2 * 70000);
        unload(&l);
        assert_int_equal(o.closed, 2);
        pb_free(&m);
    }
    opener o = {.refuse = 1};
    pb g = {0};
    add_external(&g, "w", 3, "one", NULL, NULL);
    pb m = model_of(&g);
    loaded l = {0};
    dbt_source_from_buffer(m.data, m.n, "m.onnx", &l.source);
    assert_int_equal(load_source(&l, (dbt_onnx_reader_desc){.open_external = open_digits,
                                                            .open_external_user = &o}),
                     DIBIT_IO);
    assert_string_equal(l.error.text, "'m.onnx': initializer 'w': no 'one' here");
    unload(&l);
    pb_free(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several_files_with_offsets),
        cmocka_unit_test(test_data_where_the_model_is_linked_to),
        cmocka_unit_test(test_locations_outside_of_the_folder),
        cmocka_unit_test(test_ranges_and_numbers),
        cmocka_unit_test(test_files_that_a_callback_opens),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}

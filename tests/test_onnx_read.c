/* The reader on a hand-built model with every field: as text, from memory and through a callback that
 * answers PENDING at random. */
#include "onnx_rich_model.h"

static const char rich_text[] =
    "ir 10 producer 'hand' '1.0'\n"
    "opset '' 22\n"
    "opset 'com.example' 1\n"
    "metadata 'key' 'value'\n"
    "function 'Everything' domain 'com.example' overload 'fast' in('a') out('b') attrs('beta')\n"
    "opset '' 17\n"
    "  alpha kind 1 0.5\n"
    "node '' Mul domain '' overload '' in('a') out('b')\n"
    "  beta kind 1 ref beta 0\n"
    "graph 'main'\n"
    "input 'x' tensor float16['n',4,-1]\n"
    "output 'z' tensor bool[]\n"
    "info 'list' sequence\n"
    "info 'untyped' none\n"
    "init 'w' uint8[1,3] 3:d2570e1868998fc1\n"
    "init 'big' int8[4] 4:107c427f7b704445\n"
    "init 'texts' string[2] \"a\" \"bc\"\n"
    "node 'attrs' Everything domain 'com.example' overload 'fast' in('x','','w') out('y','z')\n"
    "  f kind 1 1.5\n"
    "  i kind 2 -7\n"
    "  s kind 3 \"text \xc3\xa9\"\n"
    "  t kind 4 'inner' int64[2] 16:7c3cb8580ccbac3d\n"
    "  floats kind 6 0.25 -2\n"
    "  floats_packed kind 6 0 1 2\n"
    "  ints kind 7 0 300 -9223372036854775808\n"
    "  strings kind 8 \"one\" \"\"\n"
    "  type_protos kind 9\n"
    "  untyped kind 2 3\n"
    "  absent_zero kind 2 0\n"
    "node '' If domain '' overload '' in('c') out('r')\n"
    "  then_branch kind 5\n"
    "graph 'then'\n"
    "output 'k' tensor float[]\n"
    "init 'k' float[] 4:4cb8767f9d714215\n"
    "end\n"
    "end\n";

static void test_every_field_is_read(void **state) {
    (void)state;
    pb m = rich_model(4);
    loaded l = {0};
    assert_int_equal(load_bytes(&l, m.data, m.n), DIBIT_OK);
    text t = {0};
    put_model(&t, l.model);
    assert_string_equal(t.data, rich_text);
    /* raw_data is not copied */
    const uint8_t *const w = l.model->graph->initializers[0].data;
    assert_true(w > m.data && w < m.data + m.n);
    assert_int_equal(l.model->graph->initializers[0].bytes.offset, w - m.data);
    unload(&l);
    free(t.data);
    pb_free(&m);
}

/* ---- Callbacks ------------------------------------------------------------------------------ */

typedef struct slow_file {
    const uint8_t *data;
    uint64_t size;
    uint64_t seed;           /* 0: never PENDING */
    uint64_t pending_offset; /* of the range that was answered PENDING, or UINT64_MAX */
    uint64_t pending_bytes;
    uint64_t bytes_read, reads, fail_read; /* the fail_read-th read fails */
    int closed;
} slow_file;

static dibit_status slow_read(void *user, uint64_t offset, uint64_t bytes, void *dst,
                              dibit_error *error) {
    slow_file *const f = user;
    assert_true(offset <= f->size && bytes <= f->size - offset);
    if (f->pending_offset != UINT64_MAX) { /* the same range again */
        assert_int_equal(f->pending_offset, offset);
        assert_int_equal(f->pending_bytes, bytes);
    }
    if (f->seed && dbt_test_random(&f->seed) % 3 != 0) {
        f->pending_offset = offset;
        f->pending_bytes = bytes;
        return DIBIT_PENDING;
    }
    f->pending_offset = UINT64_MAX;
    if (++f->reads == f->fail_read) return dbt_fail(error, DIBIT_IO, "the network is gone");
    memcpy(dst, f->data + offset, (size_t)bytes);
    f->bytes_read += bytes;
    return DIBIT_OK;
}

static void slow_close(void *user) { ((slow_file *)user)->closed++; }

static dibit_source slow_source(slow_file *f) {
    return (dibit_source){f->size, slow_read, slow_close, f};
}

static slow_file slow(const pb *data, uint64_t seed) {
    return (slow_file){
        .data = data->data, .size = data->n, .seed = seed, .pending_offset = UINT64_MAX};
}

static void test_a_callback_that_is_often_pending_gives_the_same_model(void **state) {
    (void)state;
    static const size_t sizes[] = {4, 65535, 65536, 300000};
    uint64_t polls = 0;
    for (size_t i = 0; i < 4; i++) {
        pb m = rich_model(sizes[i]);
        loaded l = {0};
        assert_int_equal(load_bytes(&l, m.data, m.n), DIBIT_OK);
        text want = {0};
        put_model(&want, l.model);
        unload(&l);
        for (uint64_t seed = 0; seed < 20; seed++) {
            slow_file file = slow(&m, seed);
            const dibit_source source = slow_source(&file);
            dbt_source_from_callback(&source, "m.onnx", &l.source);
            assert_int_equal(load_source(&l, (dbt_onnx_reader_desc){0}), DIBIT_OK);
            polls += l.polls;
            const dbt_constant *const big = &l.model->graph->initializers[1];
            assert_int_equal(big->data != NULL, sizes[i] < 65536);
            if (sizes[i] >= 65536) assert_true(file.bytes_read < 10000);
            text got = {0};
            put_model(&got, l.model);
            assert_string_equal(got.data, want.data);
            free(got.data);
            unload(&l);
            assert_int_equal(file.closed, 1);
        }
        free(want.data);
        pb_free(&m);
    }
    assert_true(polls > 4 * 20 * 2);
}

/* A model of 40 weights of 100 KB: what is read and kept is little. */
static void test_weights_stay_out_of_memory(void **state) {
    (void)state;
    pb m = {0}, g = {0};
    uint8_t *const zeros = calloc(1, 100000);
    for (int i = 0; i < 40; i++) {
        char name[8];
        snprintf(name, sizeof name, "w%d", i);
        pb t = tensor_begin(name, DIBIT_TYPE_INT8, (int64_t[]){100000}, 1);
        pb_bytes(&t, TENSOR_RAW_DATA, zeros, 100000);
        pb_message(&g, GRAPH_INITIALIZER, &t);
    }
    free(zeros);
    pb_varint(&m, MODEL_IR_VERSION, 8);
    pb_message(&m, MODEL_GRAPH, &g);
    slow_file file = slow(&m, 5);
    const dibit_source source = slow_source(&file);
    loaded l = {0};
    dbt_source_from_callback(&source, "m.onnx", &l.source);
    assert_int_equal(load_source(&l, (dbt_onnx_reader_desc){0}), DIBIT_OK);
    assert_int_equal(l.model->graph->n_initializers, 40);
    assert_true(file.bytes_read <= 41 * 4096);
    assert_true(l.counter.peak <= 300000);
    unload(&l);
    pb_free(&m);
}

static void test_a_failing_callback_ends_the_load(void **state) {
    (void)state;
    pb m = rich_model(70000);
    for (uint64_t n = 1; n <= 2; n++) {
        slow_file file = slow(&m, 3);
        file.fail_read = n;
        const dibit_source source = slow_source(&file);
        loaded l = {0};
        dbt_source_from_callback(&source, "m.onnx", &l.source);
        assert_int_equal(load_source(&l, (dbt_onnx_reader_desc){0}), DIBIT_IO);
        assert_string_equal(l.error.text, "the network is gone");
        unload(&l);
        assert_int_equal(file.closed, 1);
    }
    pb_free(&m);
}

static void test_every_allocation_may_fail(void **state) {
    (void)state;
    pb m = rich_model(70000);
    for (int through_callback = 0; through_callback < 2; through_callback++) {
        dibit_status status = DIBIT_OUT_OF_MEMORY;
        uint64_t n = 0;
        while (status != DIBIT_OK) {
            loaded l = {.counter.fail_at = ++n};
            slow_file file = slow(&m, 0);
            const dibit_source source = slow_source(&file);
            if (through_callback) {
                dbt_source_from_callback(&source, "m.onnx", &l.source);
                status = load_source(&l, (dbt_onnx_reader_desc){0});
            } else {
                status = load_bytes(&l, m.data, m.n);
            }
            assert_true(status == DIBIT_OK || status == DIBIT_OUT_OF_MEMORY);
            unload(&l);
        }
        assert_true(n > 1);
    }
    pb_free(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_field_is_read),
        cmocka_unit_test(test_a_callback_that_is_often_pending_gives_the_same_model),
        cmocka_unit_test(test_weights_stay_out_of_memory),
        cmocka_unit_test(test_a_failing_callback_ends_the_load),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Hostile model files: each is refused with one sentence that names the place, in little memory. */
#include "onnx_rich_model.h"

/* Far more than any of the small files here may cost. */
enum { MEMORY_CAP = 64 * 1024 };

static void expect_failure(pb *p, dibit_status status, const char *sentence) {
    loaded l = {.counter.cap = MEMORY_CAP + p->n * 64};
    const dibit_status got = load_bytes(&l, p->data, p->n);
    if (got != status || !strstr(l.error.text, sentence) ||
        strncmp(l.error.text, "'m.onnx'", 8) != 0 || l.error.status != got) {
        fail_msg("%d '%s' instead of %d '%s'", (int)got, l.error.text, (int)status, sentence);
    }
    unload(&l);
    pb_free(p);
}

/* A model around a graph, which is freed. */
static pb model_of(pb *graph) {
    pb m = {0};
    pb_varint(&m, MODEL_IR_VERSION, 8);
    pb_message(&m, MODEL_GRAPH, graph);
    return m;
}

static pb model_with(uint32_t field, pb *part) {
    pb g = {0};
    pb_message(&g, field, part);
    return model_of(&g);
}

/* A model of one node "n" with one attribute, which is freed. */
static pb model_with_attr(pb *attr) {
    pb node = node_begin("Op", "x", "y");
    pb_text(&node, NODE_NAME, "n");
    pb_message(&node, NODE_ATTRIBUTE, attr);
    return model_with(GRAPH_NODE, &node);
}

/* ---- Wire format ---------------------------------------------------------------------------- */

static void test_malformed_wire(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *sentence;
    } cases[] = {
        {"", 0, "is empty"},
        {"\x08", 1, "at byte 0: the message ends inside a varint"},
        {"\x08\x08\x08\xff", 4, "at byte 2: the message ends inside a varint"},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x3a", 12, "at byte 11"},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, "a varint has more than 64 bits"},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, "a varint has more than 64 bits"},
        {"\x0b\x0c", 2, "a field is a group"},
        {"\x0c", 1, "a field is a group"},
        {"\x0e", 1, "unknown wire type"},
        {"\x0f", 1, "unknown wire type"},
        {"\x00\x00", 2, "a field's number is out of range"},
        {"\x80\x80\x80\x80\x80\x01\x00", 7, "a field's number is out of range"},
        {"\x09\x01\x02\x03\x04\x05\x06\x07", 8, "the message ends inside a number"},
        {"\x0d\x01\x02\x03", 4, "the message ends inside a number"},
        {"\x3a\x05\x01", 3, "a field's length goes beyond the end of its message"},
        {"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "goes beyond the end"},
        {"\x12\x01\x00", 3, "field 'producer_name' has a NUL in its text"},
        {"\x0d\x01\x02\x03\x04", 5, "field 'ir_version' has wire type 5 instead of 0"},
        {"\x38\x01", 2, "field 'graph' has wire type 0 instead of 2"},
        {"\x08\x08\x3a\x00\x3a\x00", 6, "has two graphs"},
        {"hello, I am a text file", 23, "malformed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pb p = {0};
        pb_raw(&p, cases[i].bytes, cases[i].n);
        expect_failure(&p, DIBIT_BAD_FILE, cases[i].sentence);
    }
}

static void test_versions(void **state) {
    (void)state;
    for (uint64_t version = 0; version <= 15; version++) {
        pb g = {0}, m = {0};
        if (version) pb_varint(&m, MODEL_IR_VERSION, version);
        pb_message(&m, MODEL_GRAPH, &g);
        if (version >= 3 && version <= 13) {
            loaded l = {0};
            assert_int_equal(load_bytes(&l, m.data, m.n), DIBIT_OK);
            unload(&l);
            pb_free(&m);
        } else {
            expect_failure(&m, version ? DIBIT_UNSUPPORTED : DIBIT_BAD_FILE,
                           "3 to 13 are supported");
        }
    }
    pb m = {0};
    pb_varint(&m, MODEL_IR_VERSION, 8);
    expect_failure(&m, DIBIT_BAD_FILE, "has no graph");
    pb_varint(&m, MODEL_IR_VERSION, (uint64_t)-1);
    expect_failure(&m, DIBIT_UNSUPPORTED, "IR version -1");
}

/* ---- Messages ------------------------------------------------------------------------------- */

static void test_nodes(void **state) {
    (void)state;
    pb node = {0};
    pb_text(&node, NODE_NAME, "n");
    pb m = model_with(GRAPH_NODE, &node);
    expect_failure(&m, DIBIT_BAD_FILE, "node 'n': has no op_type");
    node = node_begin("Op", "x\x01\xc0", "y");
    m = model_with(GRAPH_NODE, &node);
    expect_failure(&m, DIBIT_BAD_FILE, "node 0: field 'input' is not UTF-8");
    node = node_begin("Op", "x", "y");
    pb_varint(&node, NODE_INPUT, 1);
    m = model_with(GRAPH_NODE, &node);
    expect_failure(&m, DIBIT_BAD_FILE, "node 0: field 'input' has wire type 0 instead of 2");
    node = (pb){0};
    m = model_with(GRAPH_NODE, &node);
    expect_failure(&m, DIBIT_BAD_FILE, "node 0 is empty");
}

static void test_attributes(void **state) {
    (void)state;
    pb a = attr_begin("", DBT_ONNX_ATTR_INT);
    pb m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "node 'n': attribute 0: has no name");
    a = attr_begin("a", 15);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "attribute 'a': unknown attribute type 15");
    a = attr_begin("a", DBT_ONNX_ATTR_FLOAT);
    pb_varint(&a, ATTR_I, 1);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "is of type float, but has a value of int");
    a = attr_begin("a", 0);
    pb_varint(&a, ATTR_I, 1);
    pb_varint(&a, ATTR_INTS, 1);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "is of type int, but has a value of ints");
    a = attr_begin("a", 12); /* SPARSE_TENSORS */
    pb_bytes(&a, ATTR_T, "malformed", 9);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "is of type another type, but has a value of tensor");
    a = attr_begin("a", DBT_ONNX_ATTR_INT);
    pb_text(&a, ATTR_REF_ATTR_NAME, "b");
    pb_varint(&a, ATTR_I, 1);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "has both a reference and a value");
    a = attr_begin("a", DBT_ONNX_ATTR_INT);
    pb_float(&a, ATTR_I, 1);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "field 'i' has wire type 5 instead of 0");
    a = attr_begin("a", DBT_ONNX_ATTR_INTS);
    pb_float(&a, ATTR_INTS, 1);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "field 'ints' has wire type 5 instead of 0");
    a = attr_begin("a", DBT_ONNX_ATTR_FLOATS);
    pb_bytes(&a, ATTR_FLOATS, "12345", 5);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "the message ends inside a number");
    a = attr_begin("a", DBT_ONNX_ATTR_STRING);
    pb_bytes(&a, ATTR_S, "a\0b", 3);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "field 's' has a NUL in its text");
    a = attr_begin("a", DBT_ONNX_ATTR_TENSOR);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "is of type tensor, but has no value");
    a = attr_begin("a", DBT_ONNX_ATTR_GRAPH);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "is of type graph, but has no value");
    a = attr_begin("a", DBT_ONNX_ATTR_TENSOR);
    for (int i = 0; i < 2; i++) {
        pb t = tensor_begin("t", DIBIT_TYPE_INT8, (int64_t[]){0}, 1);
        pb_message(&a, ATTR_T, &t);
    }
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE, "has more than one tensor");
    a = attr_begin("a", DBT_ONNX_ATTR_TENSOR);
    pb t = tensor_begin("t", DIBIT_TYPE_INT8, (int64_t[]){-3}, 1);
    pb_message(&a, ATTR_T, &t);
    m = model_with_attr(&a);
    expect_failure(&m, DIBIT_BAD_FILE,
                   "'m.onnx': node 'n': attribute 'a': tensor 't': dimension 0 is -3");
}

static void test_value_infos_and_initializers(void **state) {
    (void)state;
    pb v = value_info("x", DIBIT_TYPE_FLOAT, (int64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1}, 9);
    pb m = model_with(GRAPH_INPUT, &v);
    expect_failure(&m, DIBIT_UNSUPPORTED, "input 'x': has more than 8 dimensions");
    v = value_info("x", 99, NULL, 0);
    m = model_with(GRAPH_OUTPUT, &v);
    expect_failure(&m, DIBIT_UNSUPPORTED, "output 'x': unknown element type 99");
    v = value_info("", DIBIT_TYPE_FLOAT, NULL, 0);
    m = model_with(GRAPH_VALUE_INFO, &v);
    expect_failure(&m, DIBIT_BAD_FILE, "value_info 0: has no name");
    pb dim = {0}, shape = {0}, tensor = {0}, type = {0};
    pb_varint(&dim, DIM_VALUE, (uint64_t)-4);
    pb_message(&shape, SHAPE_DIM, &dim);
    pb_message(&tensor, TENSOR_TYPE_SHAPE, &shape);
    pb_message(&type, TYPE_TENSOR, &tensor);
    v = (pb){0};
    pb_text(&v, VALUE_INFO_NAME, "x");
    pb_message(&v, VALUE_INFO_TYPE, &type);
    m = model_with(GRAPH_INPUT, &v);
    expect_failure(&m, DIBIT_BAD_FILE, "input 'x': has a dimension of -4");
    pb t = tensor_begin(NULL, DIBIT_TYPE_INT8, (int64_t[]){0}, 1);
    m = model_with(GRAPH_INITIALIZER, &t);
    expect_failure(&m, DIBIT_BAD_FILE, "initializer 0: has no name");
    t = (pb){0};
    pb_text(&t, 3, "x");
    m = model_with(GRAPH_SPARSE_INITIALIZER, &t);
    expect_failure(&m, DIBIT_UNSUPPORTED, "has a sparse initializer");
}

static void test_functions(void **state) {
    (void)state;
    pb f = {0}, g = {0};
    pb_text(&f, FUNCTION_DOMAIN, "d");
    pb m = model_of(&g);
    pb_message(&m, MODEL_FUNCTIONS, &f);
    expect_failure(&m, DIBIT_BAD_FILE, "function 0: has no name");
    pb node = node_begin("", "x", "y");
    pb_text(&f, FUNCTION_NAME, "f");
    pb_message(&f, FUNCTION_NODE, &node);
    m = model_of(&g);
    pb_message(&m, MODEL_FUNCTIONS, &f);
    expect_failure(&m, DIBIT_BAD_FILE, "function 'f': node 0: has no op_type");
}

/* ---- Nesting and counts --------------------------------------------------------------------- */

/* `depth` graphs, each in an attribute of the one before. */
static pb nested(size_t depth) {
    /* Built from the inside: each level wraps what is there by prepending its headers. */
    pb inner = {0};
    for (size_t i = 1; i < depth; i++) {
        pb a = attr_begin("g", DBT_ONNX_ATTR_GRAPH), node = {0}, g = {0};
        pb_message(&a, ATTR_G, &inner);
        pb_text(&node, NODE_OP_TYPE, "If");
        pb_message(&node, NODE_ATTRIBUTE, &a);
        pb_message(&g, GRAPH_NODE, &node);
        inner = g;
    }
    return model_of(&inner);
}

static void test_deep_nesting(void **state) {
    (void)state;
    pb m = nested(16);
    loaded l = {0};
    assert_int_equal(load_bytes(&l, m.data, m.n), DIBIT_OK);
    unload(&l);
    pb_free(&m);
    m = nested(17);
    expect_failure(&m, DIBIT_UNSUPPORTED, "graphs are nested more than 16 deep");
    m = nested(5000);
    expect_failure(&m, DIBIT_UNSUPPORTED, "graphs are nested more than 16 deep");
}

/* Thousands of the smallest messages of each kind: refused, or a small multiple of the file. */
static void test_counts_cost_in_proportion(void **state) {
    (void)state;
    static const uint32_t fields[] = {GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT,
                                      GRAPH_VALUE_INFO};
    for (size_t i = 0; i < 5; i++) {
        for (size_t n_bytes = 0; n_bytes < 6; n_bytes++) {
            pb g = {0};
            for (int k = 0; k < 20000; k++) {
                pb part = {0};
                if (n_bytes >= 2) pb_bytes(&part, 1, "aaaaaa", n_bytes - 2);
                pb_message(&g, fields[i], &part);
            }
            pb m = model_of(&g);
            loaded l = {0};
            (void)load_bytes(&l, m.data, m.n);
            if (l.counter.peak > MEMORY_CAP + m.n * 48) {
                fail_msg("field %u, %zu bytes: %llu bytes for a file of %zu", fields[i], n_bytes,
                         (unsigned long long)l.counter.peak, m.n);
            }
            unload(&l);
            pb_free(&m);
        }
    }
}

/* ---- Truncation and mutation ---------------------------------------------------------------- */

static void test_every_truncation(void **state) {
    (void)state;
    pb m = rich_model(4);
    for (size_t n = 0; n < m.n; n++) {
        loaded l = {.counter.cap = MEMORY_CAP};
        uint8_t *const cut = malloc(n + 1); /* so that a sanitizer sees reads beyond the end */
        memcpy(cut, m.data, n);
        const dibit_status status = load_bytes(&l, cut, n);
        /* cut between two fields of the model itself it is still a model */
        if (status != DIBIT_OK) {
            assert_int_equal(status, DIBIT_BAD_FILE);
            assert_int_equal(strncmp(l.error.text, "'m.onnx'", 8), 0);
        }
        unload(&l);
        free(cut);
    }
    pb_free(&m);
}

static void mutate(uint8_t *data, size_t n, uint64_t *seed) {
    const uint64_t times = 1 + dbt_test_random(seed) % 4;
    for (uint64_t i = 0; i < times; i++) {
        const uint64_t r = dbt_test_random(seed);
        uint8_t *const at = &data[(r >> 16) % n];
        switch (r & 3) {
        case 0: *at ^= (uint8_t)(1u << (r >> 8 & 7)); break;
        case 1: *at = (uint8_t)(r >> 8); break;
        case 2: *at = 0xff; break;
        default: *at = (uint8_t)(*at + (r >> 8 & 1 ? 1 : -1)); break;
        }
    }
}

static dibit_status read_zeros(void *user, uint64_t offset, uint64_t bytes, void *dst,
                               dibit_error *error) {
    (void)user, (void)offset, (void)error;
    memset(dst, 0, (size_t)bytes);
    return DIBIT_OK;
}

/* Every external file exists, and is full of zeros. */
static dibit_status open_zeros(void *user, const char *location, dibit_source *out,
                               dibit_error *error) {
    (void)user, (void)location, (void)error;
    *out = (dibit_source){.size = 1 << 20, .read = read_zeros};
    return DIBIT_OK;
}

/* Whatever happens, it happens in little memory, and reading what was accepted is safe. */
static bool run_mutant(const uint8_t *data, size_t n, uint64_t cap) {
    loaded l = {.counter.cap = cap};
    dbt_source_from_buffer(data, n, "m.onnx", &l.source);
    if (load_source(&l, (dbt_onnx_reader_desc){.open_external = open_zeros}) == DIBIT_OK) {
        text t = {0};
        put_model(&t, l.model);
        free(t.data);
        unload(&l);
        return true;
    }
    assert_int_equal(strncmp(l.error.text, "'m.onnx'", 8), 0);
    unload(&l);
    return false;
}

static void test_mutants_of_the_rich_model(void **state) {
    (void)state;
    pb m = rich_model(100);
    uint8_t *const copy = malloc(m.n);
    uint64_t seed = 1;
    int n_read = 0;
    for (int i = 0; i < 30000; i++) {
        memcpy(copy, m.data, m.n);
        mutate(copy, m.n, &seed);
        n_read += run_mutant(copy, m.n, MEMORY_CAP);
    }
    assert_true(n_read > 1000 && n_read < 29000); /* mutants of both kinds */
    free(copy);
    pb_free(&m);
}

static void test_mutants_of_real_models(void **state) {
    (void)state;
    static const char *const names[] = {"llama.q2.onnx", "lfm2.int4asym.onnx"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[1000];
        snprintf(path, sizeof path, "%s/tests/data/%s", DBT_SOURCE_DIR, names[i]);
        dbt_source file;
        assert_int_equal(dbt_source_open_file(path, path, &file, NULL), DIBIT_OK);
        uint8_t *const copy = malloc(file.size);
        uint64_t seed = 77 + i;
        memcpy(copy, file.mapped, file.size);
        assert_true(run_mutant(copy, file.size, file.size * 8));
        int n_read = 0;
        for (int k = 0; k < 3000; k++) {
            memcpy(copy, file.mapped, file.size);
            mutate(copy, file.size, &seed);
            n_read += run_mutant(copy, file.size, file.size * 8);
        }
        assert_true(n_read > 100 && n_read < 2900);
        free(copy);
        dbt_source_close(&file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed_wire),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_value_infos_and_initializers),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_counts_cost_in_proportion),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_mutants_of_the_rich_model),
        cmocka_unit_test(test_mutants_of_real_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

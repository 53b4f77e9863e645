/* Writing ONNX, and taking nodes out of a graph: what is written is read back, and runs to the bits that the
 * whole model had. */
#include "dbt_test.h"

#include "onnx/onnx_write.h"
#include "onnx_rich_model.h"
#include "session_test.h"

static const dibit_type F32 = DIBIT_TYPE_FLOAT;

static void collect(void *user, const char *data, size_t n) { pb_raw(user, data, n); }

/* ---- The writer ---- */

static void drop(char *all, const char *what, const char *instead) {
    char *const at = strstr(all, what);
    assert_non_null(at);
    const size_t n = strlen(instead);
    memcpy(at, instead, n);
    memmove(at + n, at + strlen(what), strlen(at + strlen(what)) + 1);
}

static void test_what_is_written_reads_the_same(void **state) {
    (void)state;
    pb m = rich_model(300), first = {0}, second = {0};
    loaded a = {0}, b = {0};
    assert_int_equal(load_bytes(&a, m.data, m.n), DIBIT_OK);
    dbt_onnx_write_model(a.model, collect, &first);
    assert_int_equal(load_bytes(&b, first.data, first.n), DIBIT_OK);
    dbt_onnx_write_model(b.model, collect, &second);
    assert_int_equal(first.n, second.n);
    assert_memory_equal(first.data, second.data, first.n);
    text want = {0}, got = {0};
    put_graph(&want, a.model->graph);
    put_opsets(&want, a.model->opsets, a.model->n_opsets);
    put_graph(&got, b.model->graph);
    put_opsets(&got, b.model->opsets, b.model->n_opsets);
    /* What the reader keeps nothing of. */
    drop(want.data, "  type_protos kind 9\n", "");
    drop(want.data, "'list' sequence", "'list' none");
    assert_string_equal(got.data, want.data);
    assert_int_equal(b.model->ir_version, 10);
    assert_string_equal(b.model->producer_name, "hand");
    unload(&a);
    unload(&b);
    free(want.data);
    free(got.data);
    pb_free(&m);
    pb_free(&first);
    pb_free(&second);
}

static void test_tensors_are_written(void **state) {
    (void)state;
    float f[3] = {1, -2.5f, 0x1p-149f};
    uint8_t packed[2] = {0x21, 0x03};
    int64_t i = INT64_MIN;
    dibit_error error;
    const dibit_tensor tensors[] = {{"f", F32, 2, {1, 3}, f, 0},
                                    {"u4", DIBIT_TYPE_UINT4, 1, {3}, packed, 0},
                                    {"scalar", DIBIT_TYPE_INT64, 0, {0}, &i, 0},
                                    {"empty", DIBIT_TYPE_BOOL, 2, {0, 4}, NULL, 0}};
    for (size_t k = 0; k < sizeof tensors / sizeof tensors[0]; k++) {
        pb bytes = {0};
        assert_int_equal(dibit_tensor_write(&tensors[k], collect, &bytes, &error), DIBIT_OK);
        dbt_source source;
        dbt_constant c;
        dbt_arena arena;
        dbt_arena_init(&arena, NULL);
        dbt_source_from_buffer(bytes.data, bytes.n, "t.pb", &source);
        assert_int_equal(dbt_onnx_read_tensor(&source, &arena, &c, &error), DIBIT_OK);
        assert_string_equal(c.name, tensors[k].name);
        assert_int_equal(c.type, tensors[k].type);
        assert_int_equal(c.rank, tensors[k].rank);
        for (int32_t d = 0; d < c.rank; d++) assert_int_equal(c.dims[d], tensors[k].dims[d]);
        if (c.count) assert_memory_equal(c.data, tensors[k].data, c.bytes.bytes);
        dbt_arena_free(&arena);
        pb_free(&bytes);
    }
    dibit_tensor bad = tensors[0];
    pb none = {0};
    bad.data = NULL;
    assert_int_equal(dibit_tensor_write(&bad, collect, &none, &error), DIBIT_BAD_ARGUMENT);
    bad = tensors[0];
    bad.type = DIBIT_TYPE_STRING;
    assert_int_equal(dibit_tensor_write(&bad, collect, &none, &error), DIBIT_BAD_ARGUMENT);
    bad = tensors[0];
    bad.dims[0] = -1;
    assert_int_equal(dibit_tensor_write(&bad, collect, &none, &error), DIBIT_BAD_ARGUMENT);
    assert_int_equal(none.n, 0);
}

static void test_tensors_change_their_type(void **state) {
    (void)state;
    dibit_error error;
    float f[3] = {1, -2.5f, 0x1.001p0f}, back[3];
    uint16_t half[3];
    dibit_tensor from = {"f", F32, 1, {3}, f, 0};
    dibit_tensor to = {.type = DIBIT_TYPE_FLOAT16, .data = half, .bytes = sizeof half};
    assert_int_equal(dibit_tensor_convert(&from, &to, &error), DIBIT_OK);
    assert_int_equal(half[1], 0xc100);
    assert_int_equal(to.dims[0], 3);
    dibit_tensor float_again = {.type = F32, .data = back, .bytes = sizeof back};
    assert_int_equal(dibit_tensor_convert(&to, &float_again, &error), DIBIT_OK);
    assert_float_equal(back[1], -2.5f, 0);
    assert_float_equal(back[2], 1, 0); /* to even */
    int64_t v[2] = {-1, 300};
    uint8_t bytes[2];
    from = (dibit_tensor){"v", DIBIT_TYPE_INT64, 1, {2}, v, 0};
    to = (dibit_tensor){.type = DIBIT_TYPE_UINT8, .data = bytes, .bytes = 2};
    assert_int_equal(dibit_tensor_convert(&from, &to, &error), DIBIT_OK);
    assert_int_equal(bytes[0], 255);
    assert_int_equal(bytes[1], 44);
    to.bytes = 1;
    assert_int_equal(dibit_tensor_convert(&from, &to, &error), DIBIT_TOO_LARGE);
    to = (dibit_tensor){.type = F32, .data = back, .bytes = sizeof back};
    assert_int_equal(dibit_tensor_convert(&from, &to, &error), DIBIT_UNSUPPORTED);
    uint8_t codes[3] = {1, 2, 3}, packed[2];
    from = (dibit_tensor){"q", DIBIT_TYPE_UINT8, 1, {3}, codes, 0};
    to = (dibit_tensor){.type = DIBIT_TYPE_UINT4, .data = packed, .bytes = 2};
    assert_int_equal(dibit_tensor_convert(&from, &to, &error), DIBIT_OK);
    assert_int_equal(packed[0], 0x21);
}

/* ---- Extraction ---- */

/* s = Shape(x); h = MatMul(x, w); r = Reshape(h, s * 1); y = Clip(r, , top) */
static void chain_model(pb *g) {
    static const float w[6] = {1, 2, 3, -4, 5, -6};
    static const float top = 2;
    graph_input(g, "x", F32, "n 2");
    graph_constant(g, "w", F32, 2, (int64_t[]){2, 3}, w);
    graph_constant(g, "top", F32, 0, NULL, &top);
    graph_node(g, "", "MatMul", "x w", "h", NULL);
    graph_node(g, "", "Shape", "h", "s", NULL);
    graph_node(g, "", "Reshape", "h s", "r", NULL);
    graph_node(g, "", "Clip", "r - top", "y", NULL);
    graph_output(g, "y", F32, "n 3");
}

static uint32_t node_of(const dibit_model *model, const char *op) {
    dibit_node_info info;
    for (uint32_t i = 0; dibit_model_node(model, i, &info) == DIBIT_OK; i++) {
        if (strcmp(info.op, op) == 0) return i;
    }
    fail_msg("no %s", op);
    return 0;
}

typedef struct part {
    pb bytes;
    dibit_model *model;
    dibit_session *session;
} part;

/* Takes nodes out of f's model with the values of its last run, and opens them. */
static void take_out(fixture *f, const uint32_t *nodes, uint32_t n, part *out) {
    static const char *const names[] = {"x", "h", "s", "r", "y"};
    dibit_tensor values[5];
    uint32_t n_values = 0;
    for (size_t i = 0; i < 5; i++) {
        if (dibit_session_value(f->session, names[i], &values[n_values], &f->error)) continue;
        values[n_values++].name = names[i];
    }
    dibit_extract what = {nodes, n, values, n_values, NULL};
    *out = (part){0};
    if (dibit_model_extract(f->model, &what, collect, &out->bytes, &f->error) ||
        dibit_model_load(&(dibit_model_desc){.data = out->bytes.data, .data_bytes = out->bytes.n},
                         &out->model, &f->error) ||
        dibit_session_create(out->model, NULL, &out->session, &f->error)) {
        fail_msg("%s", f->error.text);
    }
}

static void put_away(part *p) {
    dibit_session_destroy(&p->session);
    dibit_model_destroy(&p->model);
    pb_free(&p->bytes);
}

static void assert_inputs(const dibit_model *model, const char *want) {
    char got[200] = "";
    dibit_value_info info;
    for (uint32_t i = 0; dibit_model_input(model, i, &info) == DIBIT_OK; i++) {
        const size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, "%s%s[%lld,%lld]", n ? " " : "", info.name,
                 (long long)info.dims[0], (long long)info.dims[1]);
    }
    assert_string_equal(got, want);
}

static void assert_runs(const fixture *f, part *p, const char *input, const char *output) {
    dibit_tensor in, want, out = {.name = output};
    dibit_error error;
    assert_int_equal(dibit_session_value(f->session, input, &in, &error), DIBIT_OK);
    assert_int_equal(dibit_session_value(f->session, output, &want, &error), DIBIT_OK);
    in.name = input;
    const dibit_run run = {.inputs = &in, .n_inputs = 1, .outputs = &out, .n_outputs = 1};
    if (dibit_session_run(p->session, &run, &error)) fail_msg("%s", error.text);
    assert_int_equal(out.bytes, want.bytes);
    assert_memory_equal(out.data, want.data, want.bytes);
}

static void test_nodes_run_by_themselves(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    chain_model(&g);
    open_model(&f, &g, &(dibit_session_desc){.keep_values = true});
    float x[4] = {1, 0.5f, -3, 2};
    const dibit_tensor in = {"x", F32, 2, {2, 2}, x, 0};
    dibit_tensor out = {.name = "y"};
    assert_int_equal(run(&f, &in, 1, &out), DIBIT_OK);
    part p;
    take_out(&f, (uint32_t[]){node_of(f.model, "MatMul")}, 1, &p);
    assert_inputs(p.model, "x[2,2]"); /* w is an initializer */
    assert_runs(&f, &p, "x", "h");
    put_away(&p);
    take_out(&f, (uint32_t[]){node_of(f.model, "Reshape")}, 1, &p);
    assert_inputs(p.model, "h[2,3]"); /* and so is the shape, which the host knows */
    assert_runs(&f, &p, "h", "r");
    put_away(&p);
    take_out(&f, (uint32_t[]){node_of(f.model, "Clip")}, 1, &p); /* an absent input stays absent */
    assert_runs(&f, &p, "r", "y");
    put_away(&p);
    const uint32_t two[] = {node_of(f.model, "MatMul"), node_of(f.model, "Reshape")};
    take_out(&f, two, 2, &p);
    assert_inputs(p.model, "x[2,2]");
    assert_int_equal(dibit_model_output_count(p.model), 2);
    assert_runs(&f, &p, "x", "r");
    put_away(&p);
    close_model(&f);
}

static void test_extraction_says_what_is_missing(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0}, bytes = {0};
    chain_model(&g);
    open_model(&f, &g, NULL);
    const uint32_t reshape = node_of(f.model, "Reshape"), beyond = 99;
    dibit_extract no_shape = {.nodes = &reshape, .n_nodes = 1};
    assert_int_equal(dibit_model_extract(f.model, &no_shape, collect, &bytes, &f.error),
                     DIBIT_BAD_ARGUMENT);
    assert_string_equal(f.error.text, "the value of 's' is needed as int64");
    dibit_extract no_node = {.nodes = &beyond, .n_nodes = 1};
    assert_int_equal(dibit_model_extract(f.model, &no_node, collect, &bytes, &f.error),
                     DIBIT_BAD_ARGUMENT);
    assert_int_equal(bytes.n, 0);
    /* Without values the sizes stay open. */
    const uint32_t matmul = node_of(f.model, "MatMul");
    dibit_extract open = {.nodes = &matmul, .n_nodes = 1};
    assert_int_equal(dibit_model_extract(f.model, &open, collect, &bytes, &f.error), DIBIT_OK);
    dibit_model *model = NULL;
    assert_int_equal(
        dibit_model_load(&(dibit_model_desc){.data = bytes.data, .data_bytes = bytes.n}, &model,
                         &f.error),
        DIBIT_OK);
    assert_inputs(model, "x[-1,2]");
    dibit_model_destroy(&model);
    pb_free(&bytes);
    close_model(&f);
}

static void test_nodes_tell_what_they_read_and_make(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    chain_model(&g);
    open_model(&f, &g, NULL);
    const uint32_t clip = node_of(f.model, "Clip");
    const char *name;
    assert_int_equal(dibit_model_node_input(f.model, clip, 0, &name), DIBIT_OK);
    assert_string_equal(name, "r");
    assert_int_equal(dibit_model_node_input(f.model, clip, 1, &name), DIBIT_OK);
    assert_string_equal(name, "");
    assert_int_equal(dibit_model_node_input(f.model, clip, 3, &name), DIBIT_NOT_FOUND);
    assert_int_equal(dibit_model_node_output(f.model, clip, 0, &name), DIBIT_OK);
    assert_string_equal(name, "y");
    assert_int_equal(dibit_model_node_output(f.model, clip, 1, &name), DIBIT_NOT_FOUND);
    assert_int_equal(dibit_model_node_output(f.model, 99, 0, &name), DIBIT_NOT_FOUND);
    pb line = {0};
    assert_int_equal(dibit_model_dump_node(f.model, clip, collect, &line), DIBIT_OK);
    pb_raw(&line, "", 1);
    assert_string_equal((char *)line.data, "node 'y' Clip(r, -, top)\n  -> y float[n, 3]\n");
    pb_free(&line);
    close_model(&f);
}

/* ---- Bounds ---- */

static void test_bounds_are_kept(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    chain_model(&g);
    open_model(&f, &g, &(dibit_session_desc){.keep_values = true, .keep_bounds = true});
    float x[4] = {1, 0.5f, -3, 2};
    const dibit_tensor in = {"x", F32, 2, {2, 2}, x, 0};
    dibit_tensor out = {.name = "y"}, h, bound;
    assert_int_equal(run(&f, &in, 1, &out), DIBIT_OK);
    assert_int_equal(dibit_session_value(f.session, "h", &h, &f.error), DIBIT_OK);
    assert_int_equal(dibit_session_bound(f.session, "h", &bound, &f.error), DIBIT_OK);
    assert_int_equal(bound.type, F32);
    assert_int_equal(bound.dims[1], 3);
    for (int i = 0; i < 6; i++) {
        const float b = ((float *)bound.data)[i], y = ((float *)h.data)[i];
        assert_true(b > 0x1p-22f * fabsf(y) && b < 1e-4f);
    }
    /* Moves are exact but for what a device takes for zero. */
    assert_int_equal(dibit_session_bound(f.session, "r", &bound, &f.error), DIBIT_OK);
    assert_float_equal(((float *)bound.data)[5], 0x1p-126f, 0);
    assert_int_equal(dibit_session_bound(f.session, "s", &bound, &f.error), DIBIT_NOT_FOUND);
    assert_int_equal(dibit_session_bound(f.session, "x", &bound, &f.error), DIBIT_NOT_FOUND);
    close_model(&f);
    g = (pb){0};
    f = (fixture){0};
    chain_model(&g);
    open_model(&f, &g, NULL);
    assert_int_equal(dibit_session_bound(f.session, "h", &bound, &f.error), DIBIT_BAD_STATE);
    close_model(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_reads_the_same),
        cmocka_unit_test(test_tensors_are_written),
        cmocka_unit_test(test_tensors_change_their_type),
        cmocka_unit_test(test_nodes_run_by_themselves),
        cmocka_unit_test(test_extraction_says_what_is_missing),
        cmocka_unit_test(test_nodes_tell_what_they_read_and_make),
        cmocka_unit_test(test_bounds_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* plan/build: operators, functions, If, folding, inference; and what a bad graph says. */
#include "dbt_test.h"

#include "model_writer.h"

static const dibit_type F32 = DIBIT_TYPE_FLOAT, I64 = DIBIT_TYPE_INT64, BOOL = DIBIT_TYPE_BOOL;

typedef struct text {
    char *s;
    size_t n;
} text;

static void append(void *user, const char *s, size_t n) {
    text *const t = user;
    t->s = realloc(t->s, t->n + n + 1);
    assert_non_null(t->s);
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = 0;
}

static dibit_status load(pb *model, dibit_model **out, dibit_error *error) {
    const dibit_model_desc desc = {.data = model->data, .data_bytes = model->n, .name = "t.onnx"};
    return dibit_model_load(&desc, out, error);
}

static void assert_dump(pb *graph, pb *functions, const char *want) {
    pb model = model_of(graph, functions);
    dibit_model *m = NULL;
    dibit_error error = {0};
    if (load(&model, &m, &error) != DIBIT_OK) fail_msg("%s", error.text);
    text t = {0};
    dibit_model_dump(m, append, &t);
    assert_string_equal(t.s, want);
    free(t.s);
    dibit_model_destroy(&m);
    pb_free(&model);
}

static void assert_refused(pb *graph, pb *functions, dibit_status status, const char *sentence) {
    pb model = model_of(graph, functions);
    dibit_model *m = NULL;
    dibit_error error = {0};
    assert_int_equal(load(&model, &m, &error), status);
    assert_null(m);
    assert_string_equal(error.text, sentence);
    pb_free(&model);
}

#define OPSETS "ir 10\nopset ai.onnx 22\nopset com.microsoft 1\nopset local 1\n"

/* The shape subgraph that exporters write for x.reshape(batch, seq, 4, -1): no node of it is left. */
static void test_shape_subgraphs_become_dims(void **state) {
    (void)state;
    pb g = {0};
    const int64_t zero[1] = {0}, one[1] = {1}, tail[2] = {4, -1};
    graph_input(&g, "x", F32, "batch seq 32");
    graph_int64s(&g, "i0", 1, zero);
    graph_int64s(&g, "i1", 1, one);
    graph_int64s(&g, "tail", 2, tail);
    graph_node(&g, "", "Shape", "x", "s", NULL);
    graph_node(&g, "", "Gather", "s i0", "b", NULL);
    graph_node(&g, "", "Gather", "s i1", "q", NULL);
    pb concat = {0};
    attr_int(&concat, "axis", 0);
    graph_node(&g, "", "Concat", "b q tail", "shape", &concat);
    graph_node(&g, "", "Reshape", "x shape", "y", NULL);
    graph_output(&g, "y", F32, "batch seq 4 8");
    assert_dump(&g, NULL,
                OPSETS "input x float[batch, seq, 32]\n"
                       "constant i0 int64[1] = {0}\n"
                       "constant i1 int64[1] = {1}\n"
                       "constant tail int64[2] = {4, -1}\n"
                       "node 's' Shape(x)\n"
                       "  -> s int64[3] = {batch, seq, 32}\n"
                       "node 'b' Gather(s, i0)\n"
                       "  -> b int64[1] = {batch}\n"
                       "node 'q' Gather(s, i1)\n"
                       "  -> q int64[1] = {seq}\n"
                       "node 'shape' Concat(b, q, tail) axis=0\n"
                       "  -> shape int64[4] = {batch, seq, 4, -1}\n"
                       "node 'y' Reshape(x, shape)\n"
                       "  -> y float[batch, seq, 4, 8]\n"
                       "output y float[batch, seq, 4, 8]\n");
}

static void test_constants_fold(void **state) {
    (void)state;
    pb g = {0};
    const float two[1] = {2.0f};
    const int64_t dims[1] = {1};
    graph_input(&g, "x", F32, "n");
    graph_constant(&g, "two", DIBIT_TYPE_FLOAT, 1, dims, two);
    graph_node(&g, "", "Sqrt", "two", "root", NULL);
    graph_node(&g, "", "Mul", "x root", "y", NULL);
    graph_output(&g, "y", F32, "n");
    assert_dump(&g, NULL,
                OPSETS "input x float[n]\n"
                       "constant two float[1]\n"
                       "constant root float[1]\n"
                       "node 'y' Mul(x, root)\n"
                       "  -> y float[n]\n"
                       "output y float[n]\n");
}

/* local.Twice(a) = Twist(a) + Twist(a), local.Twist(a) = -a. */
static pb two_functions(bool recursive) {
    pb functions = {0};
    for (int i = 0; i < 2; i++) {
        pb f = {0};
        pb_text(&f, 1, i ? "Twist" : "Twice");
        pb_text(&f, 4, "a");
        pb_text(&f, 5, "r");
        pb body = {0};
        if (i == 0) {
            graph_node(&body, "local", "Twist", "a", "t", NULL);
            graph_node(&body, "", "Add", "t t", "r", NULL);
        } else {
            graph_node(&body, recursive ? "local" : "", recursive ? "Twice" : "Neg", "a", "r",
                       NULL);
        }
        /* GRAPH_NODE is field 1; a FunctionProto has its nodes in field 7. */
        for (size_t at = 0; at < body.n;) {
            uint64_t length = 0;
            unsigned shift = 0;
            at++;
            do length |= (uint64_t)(body.data[at] & 0x7f) << shift;
            while (shift += 7, body.data[at++] & 0x80);
            pb_bytes(&f, 7, body.data + at, (size_t)length);
            at += (size_t)length;
        }
        pb_free(&body);
        write_opset(&f, 9, "", 22);
        write_opset(&f, 9, "local", 1);
        pb_text(&f, 10, "local");
        pb_message(&functions, 25, &f);
    }
    return functions;
}

static void test_functions_are_inlined(void **state) {
    (void)state;
    pb g = {0}, functions = two_functions(false);
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "local", "Twice", "x", "y", NULL);
    graph_output(&g, "y", F32, "n");
    assert_dump(&g, &functions,
                OPSETS "input x float[n]\n"
                       "node 'y/t/r' Neg(x)\n"
                       "  -> y/t/r float[n]\n"
                       "node 'y/r' Add(y/t/r, y/t/r)\n"
                       "  -> y/r float[n]\n"
                       "output y float[n]\n");
    functions = two_functions(true);
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "local", "Twice", "x", "y", NULL);
    graph_output(&g, "y", F32, "n");
    pb model = model_of(&g, &functions);
    dibit_model *m = NULL;
    dibit_error error = {0};
    assert_int_equal(load(&model, &m, &error), DIBIT_UNSUPPORTED);
    assert_non_null(strstr(error.text, "nested more than 32 deep (or call themselves)"));
    pb_free(&model);
}

/* y = c ? x + 1 : -x */
static void add_if(pb *g, const char *condition) {
    const float one[1] = {1};
    pb yes = {0}, no = {0}, attrs = {0};
    graph_constant(&yes, "one", DIBIT_TYPE_FLOAT, 0, NULL, one);
    graph_node(&yes, "", "Add", "x one", "sum", NULL);
    graph_output(&yes, "sum", F32, "n");
    graph_node(&no, "", "Neg", "x", "minus", NULL);
    graph_output(&no, "minus", F32, "n");
    attr_graph(&attrs, "then_branch", &yes);
    attr_graph(&attrs, "else_branch", &no);
    graph_node(g, "", "If", condition, "y", &attrs);
    graph_output(g, "y", F32, "n");
}

static void test_if_is_a_choice_or_a_select(void **state) {
    (void)state;
    const uint8_t yes[1] = {1};
    pb g = {0};
    graph_input(&g, "x", F32, "n");
    graph_constant(&g, "c", DIBIT_TYPE_BOOL, 0, NULL, yes);
    add_if(&g, "c");
    assert_dump(&g, NULL,
                OPSETS "input x float[n]\n"
                       "constant c bool[] = {1}\n"
                       "constant y/then_branch/one float[]\n"
                       "node 'y/then_branch/sum' Add(x, y/then_branch/one)\n"
                       "  -> y/then_branch/sum float[n]\n"
                       "output y float[n]\n");
    graph_input(&g, "x", F32, "n");
    graph_input(&g, "c", BOOL, "");
    add_if(&g, "c");
    assert_dump(&g, NULL,
                OPSETS "input x float[n]\n"
                       "input c bool[]\n"
                       "constant y/then_branch/one float[]\n"
                       "node 'y/then_branch/sum' Add(x, y/then_branch/one) if c\n"
                       "  -> y/then_branch/sum float[n]\n"
                       "node 'y/else_branch/minus' Neg(x) if not c\n"
                       "  -> y/else_branch/minus float[n]\n"
                       "node 'y' dibit.Select(c, y/then_branch/sum, y/else_branch/minus)\n"
                       "  -> y float[n]\n"
                       "output y float[n]\n");
}

static void test_bad_graphs_say_what_is_wrong(void **state) {
    (void)state;
    pb g = {0};
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "Frobnicate", "x", "y", NULL);
    graph_output(&g, "y", F32, "n");
    assert_refused(&g, NULL, DIBIT_UNSUPPORTED,
                   "'t.onnx': node 'y' (Frobnicate): operator Frobnicate is not supported");
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "Neg", "z", "y", NULL);
    graph_node(&g, "", "Neg", "y", "z", NULL);
    graph_output(&g, "y", F32, "n");
    assert_refused(&g, NULL, DIBIT_BAD_FILE,
                   "'t.onnx': node 'y' (Neg): value 'z' is not defined before it is used (missing, "
                   "cyclic or out of order)");
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "Neg", "x", "y", NULL);
    graph_node(&g, "", "Abs", "x", "y", NULL);
    graph_output(&g, "y", F32, "n");
    assert_refused(&g, NULL, DIBIT_BAD_FILE,
                   "'t.onnx': node 'y' (Abs): value 'y' is defined twice");
    graph_input(&g, "x", F32, "2 3");
    graph_input(&g, "z", F32, "4");
    graph_node(&g, "", "Add", "x z", "y", NULL);
    graph_output(&g, "y", F32, "2 3");
    assert_refused(&g, NULL, DIBIT_BAD_FILE,
                   "'t.onnx': node 'y' (Add): shapes do not broadcast: 3 against 4");
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "Neg", "x x", "y", NULL);
    graph_output(&g, "y", F32, "n");
    assert_refused(&g, NULL, DIBIT_BAD_FILE,
                   "'t.onnx': node 'y' (Neg): it has 2 inputs, but takes at most 1");
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "Neg", "x", "y", NULL);
    graph_output(&g, "y", I64, "n");
    assert_refused(&g, NULL, DIBIT_BAD_FILE,
                   "'t.onnx': output 'y' is declared as int64, but is float");
    graph_input(&g, "x", F32, "n");
    graph_node(&g, "", "Loop", "x", "y", NULL);
    graph_output(&g, "y", F32, "n");
    assert_refused(&g, NULL, DIBIT_UNSUPPORTED,
                   "'t.onnx': node 'y' (Loop): control flow by Loop is not supported");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape_subgraphs_become_dims),
        cmocka_unit_test(test_constants_fold),
        cmocka_unit_test(test_functions_are_inlined),
        cmocka_unit_test(test_if_is_a_choice_or_a_select),
        cmocka_unit_test(test_bad_graphs_say_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The shader expander, on small libraries of its own; and the embedded files. */
#include "dbt_test.h"

#include "gpu/hal.h"
#include "gpu/shader.h"

enum { MAX_FILES = 12 };

/* "name", "text", ..., NULL: by ascending name. */
typedef struct fixture {
    dbt_shader_file files[MAX_FILES];
    dbt_shader_library library;
    dbt_arena arena;
    dibit_error error;
} fixture;

static void start(fixture *f, const char *const *texts) {
    memset(f, 0, sizeof *f);
    for (size_t n = 0; texts[2 * n]; n++) {
        f->files[n] = (dbt_shader_file){texts[2 * n], texts[2 * n + 1], strlen(texts[2 * n + 1])};
        f->library.n = n + 1;
    }
    f->library.files = f->files;
    dbt_arena_init(&f->arena, NULL);
}
static void stop(fixture *f) { dbt_arena_free(&f->arena); }

#define TEXTS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define PARAMS(...) ((const dbt_shader_param[]){__VA_ARGS__})

static void expect(const char *const *texts, const dbt_shader_variant *variant, const char *want) {
    fixture f;
    start(&f, texts);
    dbt_shader_text got;
    if (dbt_shader_expand(&f.library, variant, &f.arena, &got, &f.error))
        fail_msg("%s", f.error.text);
    assert_string_equal(got.wgsl, want);
    assert_int_equal(got.bytes, strlen(want));
    stop(&f);
}

static void expect_failure(const char *const *texts, const dbt_shader_variant *variant,
                           dibit_status status, const char *want) {
    fixture f;
    start(&f, texts);
    dbt_shader_text got;
    const dibit_status answer = dbt_shader_expand(&f.library, variant, &f.arena, &got, &f.error);
    assert_string_equal(f.error.text, want);
    assert_int_equal(answer, status);
    stop(&f);
}

static void test_plain_text_passes(void **state) {
    (void)state;
    const dbt_shader_variant v = {.file = "a.wgsl"};
    expect(TEXTS("a.wgsl", "fn f() {\n}\n"), &v, "// a.wgsl:1\nfn f() {\n}\n");
    expect(TEXTS("a.wgsl", "no newline"), &v, "// a.wgsl:1\nno newline\n");
    expect(TEXTS("a.wgsl", ""), &v, "// a.wgsl:1\n");
}

static void test_parameters_become_constants(void **state) {
    (void)state;
    const char *const *texts =
        TEXTS("a.wgsl", "#param BITS 1..8 // of a code\n  #param D -1 32 64\n");
    const dbt_shader_param given[] = {{"D", -1}, {"BITS", 8}};
    const dbt_shader_variant v = {"a.wgsl", given, 2, 0};
    expect(texts, &v, "// a.wgsl:1\nconst BITS = 8;\nconst D = -1;\n");
    fixture f;
    start(&f, texts);
    dbt_shader_declarations d;
    assert_int_equal(dbt_shader_declare(&f.library, "a.wgsl", &f.arena, &d, &f.error), DIBIT_OK);
    assert_int_equal(d.n, 2);
    assert_string_equal(d.params[0].name, "BITS");
    assert_int_equal(d.params[0].n_values, 8);
    assert_int_equal(d.params[0].values[7], 8);
    assert_int_equal(d.params[1].n_values, 3);
    assert_int_equal(d.params[1].values[0], -1);
    stop(&f);
}

/* Each row: a condition on A = 3, and whether it holds. */
static void test_conditions(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool holds;
    } rows[] = {
        {"A == 3", true},
        {"A == 4", false},
        {"A != 3", false},
        {"A != -3", true},
        {"A < 4", true},
        {"A<3", false},
        {"A <= 3", true},
        {"A > 2", true},
        {"A > 3", false},
        {"A >= 3", true},
        {"A >= 4", false},
        {"defined A", true},
        {"defined B", false},
        {"defined NAGA", true},
        {"TRACE == 0", true},
        {"A == 3 && A < 2", false},
        {"A == 1 || A == 3", true},
        {"A == 3 || A == 1 && A == 2", true},
        {"A == 1 && A == 2 || A == 3", true},
        {"A == 1 && A == 3 || A == 2", false},
        {"defined B && B == 1", false},
        {"A == 3 || B == 1", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[200];
        snprintf(text, sizeof text, "#param A 3\n#if %s // why\nyes\n#else\nno\n#endif\n",
                 rows[i].text);
        const dbt_shader_variant v = {"a.wgsl", PARAMS({"A", 3}), 1, 0};
        print_message("%s\n", rows[i].text);
        expect(TEXTS("a.wgsl", text), &v,
               rows[i].holds ? "// a.wgsl:1\nconst A = 3;\n\nyes\n\n\n\n"
                             : "// a.wgsl:1\nconst A = 3;\n\n\n\nno\n\n");
    }
}

static void test_branches(void **state) {
    (void)state;
    const char *const text = "#param A 0..9\n"
                             "#if A == 1\none\n"
                             "#elif A < 5\nfew\n#if A == 2\ntwo\n#else\nothers\n#endif\n"
                             "#elif A == 5\nfive\n"
                             "#else\nmany\n#endif\n";
    static const char *const want[] = {"fewothers", "one",  "fewtwo", "fewothers",
                                       "fewothers", "five", "many"};
    for (int32_t a = 0; a < 7; a++) {
        fixture f;
        start(&f, TEXTS("a.wgsl", text));
        const dbt_shader_variant v = {"a.wgsl", PARAMS({"A", a}), 1, 0};
        dbt_shader_text got;
        assert_int_equal(dbt_shader_expand(&f.library, &v, &f.arena, &got, &f.error), DIBIT_OK);
        char words[64] = "";
        for (const char *s = strchr(strchr(got.wgsl, '\n') + 1, '\n'); *s; s++) {
            if (*s != '\n') strncat(words, s, 1);
        }
        assert_string_equal(words, want[a]);
        stop(&f);
    }
}

static void test_includes_come_once(void **state) {
    (void)state;
    const dbt_shader_variant v = {.file = "a.wgsl"};
    expect(TEXTS("a.wgsl", "#include \"b.inc.wgsl\"\nend\n#include \"c.inc.wgsl\"\n", "b.inc.wgsl",
                 "#include \"c.inc.wgsl\"\nb\n", "c.inc.wgsl", "c\n#include \"a.wgsl\"\n"),
           &v,
           "// a.wgsl:1\n// b.inc.wgsl:1\n// c.inc.wgsl:1\nc\n\n// b.inc.wgsl:2\nb\n"
           "// a.wgsl:2\nend\n\n");
    expect(TEXTS("a.wgsl", "#if NAGA == 1\n#include \"b.inc.wgsl\"\n#endif\n", "b.inc.wgsl", "b\n"),
           &v, "// a.wgsl:1\n\n\n\n");
}

/* Lines that WGSL wants first leave the others at their line numbers. */
static void test_enable_comes_first(void **state) {
    (void)state;
    const dbt_shader_variant v = {"a.wgsl", PARAMS({"A", 1}), 1, DBT_HAL_F16};
    expect(TEXTS("a.wgsl", "#param A 1\n#if F16 == 1\nenable f16;\n#endif\nenabled\n"), &v,
           "enable f16;\n// a.wgsl:1\nconst A = 1;\n\n\n\nenabled\n");
}

static void test_features_and_trace(void **state) {
    (void)state;
    const char *const *texts =
        TEXTS("a.wgsl", "#if NAGA == 1\nn\n#endif\n#if F16 == 1\nf\n#endif\n"
                        "#if SUBGROUPS == 1\ns\n#endif\n#if DOT4 == 1\nd\n#endif\n"
                        "#if TRACE == 1\nt\n#endif\n");
    const dbt_shader_variant all = {"a.wgsl", PARAMS({"TRACE", 1}), 1,
                                    DBT_HAL_NAGA | DBT_HAL_F16 | DBT_HAL_SUBGROUPS | DBT_HAL_DOT4};
    expect(texts, &all, "// a.wgsl:1\n\nn\n\n\nf\n\n\ns\n\n\nd\n\n\nt\n\n");
    const dbt_shader_variant none = {.file = "a.wgsl"};
    expect(texts, &none, "// a.wgsl:1\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n");
}

static void test_wrong_parameters(void **state) {
    (void)state;
    const char *const *texts = TEXTS("a.wgsl", "\n#include \"b.inc.wgsl\"\n", "b.inc.wgsl",
                                     "#if TRACE == 1\n#param A 1 4..6\n#endif\n");
    const dbt_shader_param given[] = {{"A", 1}, {"B", 1}, {"A", 4}};
    const dbt_shader_variant none = {.file = "a.wgsl"}, more = {"a.wgsl", given, 2, 0},
                             twice = {"a.wgsl", given, 3, 0},
                             unlisted = {"a.wgsl", PARAMS({"A", 3}), 1, 0},
                             feature = {"a.wgsl", PARAMS({"A", 1}, {"NAGA", 1}), 2, 0},
                             missing = {.file = "x.wgsl"};
    expect_failure(texts, &none, DIBIT_BAD_ARGUMENT, "b.inc.wgsl:2: there is no value for 'A'");
    expect_failure(texts, &more, DIBIT_BAD_ARGUMENT, "a.wgsl has no parameter 'B'");
    expect_failure(texts, &unlisted, DIBIT_BAD_ARGUMENT, "b.inc.wgsl:2: A cannot be 3");
    expect_failure(texts, &feature, DIBIT_BAD_ARGUMENT, "a.wgsl has no parameter 'NAGA'");
    expect_failure(texts, &missing, DIBIT_BAD_ARGUMENT, "there is no shader 'x.wgsl'");
    const char *const *both = TEXTS("a.wgsl", "#param A 1..4\n#param B 1\n");
    expect_failure(both, &twice, DIBIT_BAD_ARGUMENT, "a.wgsl: 'A' is given twice");
}

static void test_malformed_lines(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"#", "a.wgsl:2: '#' is followed by a word"},
        {"#define A", "a.wgsl:2: unknown directive 'define'"},
        {"#error", "a.wgsl:2: #error sentence"},
        {"#param", "a.wgsl:2: #param NAME values..."},
        {"#param A", "a.wgsl:2: a parameter has values"},
        {"#param A x", "a.wgsl:2: values are numbers, or LOW..HIGH"},
        {"#param A 1..", "a.wgsl:2: values are numbers, or LOW..HIGH"},
        {"#param A 3..1", "a.wgsl:2: a range goes from LOW to HIGH"},
        {"#param A 99999999999", "a.wgsl:2: values are numbers, or LOW..HIGH"},
        {"#param A 1..1000", "a.wgsl:2: too many values"},
        {"#param F16 0 1", "a.wgsl:2: this name is taken: 'F16'"},
        {"#param A 1\n#param A 1", "a.wgsl:3: declared twice: 'A'"},
        {"#include b.wgsl", "a.wgsl:2: #include \"file\""},
        {"#include \"b.wgsl", "a.wgsl:2: #include \"file\""},
        {"#include \"b.wgsl\"", "a.wgsl:2: there is no file 'b.wgsl'"},
        {"#include \"a.wgs\"", "a.wgsl:2: there is no file 'a.wgs'"},
        {"#if", "a.wgsl:2: a condition begins with a name"},
        {"#if 1 == A", "a.wgsl:2: a condition begins with a name"},
        {"#if A", "a.wgsl:2: a condition is NAME == number, with == != < <= > or >="},
        {"#if A = 1", "a.wgsl:2: a condition is NAME == number, with == != < <= > or >="},
        {"#if A == 1\n#endif", "a.wgsl:2: unknown name 'A'"},
        {"#if NAGA == 0 && A == 1\n#endif", "a.wgsl:2: unknown name 'A'"},
        {"#if defined", "a.wgsl:2: what is to be defined?"},
        {"#if NAGA == 0 NAGA", "a.wgsl:2: this does not belong to the condition 'NAGA'"},
        {"#if NAGA == 0", "a.wgsl:2: this #if has no #endif"},
        {"#if NAGA == 1\n#if F16 == \n#endif\n#endif",
         "a.wgsl:3: a condition is NAME == number, with == != < <= > or >="},
        {"#endif", "a.wgsl:2: there is no #if for 'endif'"},
        {"#else", "a.wgsl:2: there is no #if for 'else'"},
        {"#if NAGA == 0\n#else\n#elif NAGA == 0\n#endif",
         "a.wgsl:4: after #else comes #endif, not 'elif'"},
        {"#if NAGA == 0\n#endif NAGA", "a.wgsl:3: nothing comes after 'endif'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[200];
        snprintf(text, sizeof text, "\n%s\n", rows[i][0]);
        const dbt_shader_variant v = {.file = "a.wgsl"};
        expect_failure(TEXTS("a.wgsl", text), &v, DIBIT_BAD_ARGUMENT, rows[i][1]);
    }
}

static void test_depths_are_limited(void **state) {
    (void)state;
    char text[1024] = "";
    for (int i = 0; i < 17; i++) strcat(text, "#if NAGA == 0\n");
    const dbt_shader_variant v = {.file = "a.wgsl"};
    expect_failure(TEXTS("a.wgsl", text), &v, DIBIT_BAD_ARGUMENT,
                   "a.wgsl:17: #if is nested too deeply");
    expect_failure(TEXTS("a.wgsl", "#include \"b\"", "b", "#include \"c\"", "c", "#include \"d\"",
                         "d", "#include \"e\"", "e", "#include \"f\"", "f", "#include \"g\"", "g",
                         "#include \"h\"", "h", "#include \"i\"", "i", "#include \"j\"", "j", ""),
                   &v, DIBIT_BAD_ARGUMENT, "i:1: includes are nested too deeply");
}

static void test_a_variant_that_there_is_not(void **state) {
    (void)state;
    const char *const *texts =
        TEXTS("a.wgsl", "#param A 1 2\n#if A == 2\n#error two is too many\n#endif\n");
    const dbt_shader_variant one = {"a.wgsl", PARAMS({"A", 1}), 1, 0},
                             two = {"a.wgsl", PARAMS({"A", 2}), 1, 0};
    expect(texts, &one, "// a.wgsl:1\nconst A = 1;\n\n\n\n");
    expect_failure(texts, &two, DIBIT_UNSUPPORTED, "a.wgsl:3: two is too many");
}

static void test_embedded_files_are_whole(void **state) {
    (void)state;
    assert_true(dbt_shaders.n > 0);
    for (size_t i = 0; i < dbt_shaders.n; i++) {
        const dbt_shader_file *const file = &dbt_shaders.files[i];
        if (i > 0) assert_true(strcmp(dbt_shaders.files[i - 1].name, file->name) < 0);
        assert_int_equal(strlen(file->text), file->bytes);
        dbt_arena arena;
        dbt_arena_init(&arena, NULL);
        dbt_shader_declarations d;
        dibit_error error = {0};
        if (dbt_shader_declare(&dbt_shaders, file->name, &arena, &d, &error))
            fail_msg("%s", error.text);
        dbt_arena_free(&arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_text_passes),
        cmocka_unit_test(test_parameters_become_constants),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_includes_come_once),
        cmocka_unit_test(test_enable_comes_first),
        cmocka_unit_test(test_features_and_trace),
        cmocka_unit_test(test_wrong_parameters),
        cmocka_unit_test(test_malformed_lines),
        cmocka_unit_test(test_depths_are_limited),
        cmocka_unit_test(test_a_variant_that_there_is_not),
        cmocka_unit_test(test_embedded_files_are_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

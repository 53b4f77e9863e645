/* The verbs for debugging on a device whose shaders have a mistake: diff names the node and saves it, what it saved
 * fails on that device and passes on the CPU, and the commands of docs/DEBUGGING.md end at the bit. Without a WebGPU device: on the null device, which computes
 * nothing, so that every node is wrong. */
#include "dbt_test.h"

#include <unistd.h>

#include "cli/cli.h"
#include "model.h"
#include "test_device.h"

/* ---- A device with a mistake --------------------------------------------------------------------- */

typedef struct mistake {
    const char *file, *right, *wrong;
} mistake;

static const mistake *injected; /* NULL: none */
static char *wrong_text;
static dbt_shader_file *wrong_files;
static dbt_shader_library wrong_library;

static void forget(void) {
    free(wrong_text);
    free(wrong_files);
    wrong_text = NULL;
    wrong_files = NULL;
}

static const dbt_shader_library *library_with(const mistake *m) {
    forget();
    wrong_files = calloc(dbt_shaders.n, sizeof *wrong_files);
    assert_non_null(wrong_files);
    memcpy(wrong_files, dbt_shaders.files, dbt_shaders.n * sizeof *wrong_files);
    for (size_t i = 0; i < dbt_shaders.n; i++) {
        if (strcmp(wrong_files[i].name, m->file) != 0) continue;
        const size_t n = wrong_files[i].bytes, right = strlen(m->right), wrong = strlen(m->wrong);
        char *const text = calloc(n + wrong + 1, 1);
        assert_non_null(text);
        memcpy(text, wrong_files[i].text, n);
        char *const at = strstr(text, m->right);
        if (!at) fail_msg("%s has no '%s' any more", m->file, m->right);
        memmove(at + wrong, at + right, strlen(at + right) + 1);
        memcpy(at, m->wrong, wrong);
        wrong_text = text;
        wrong_files[i] = (dbt_shader_file){m->file, text, strlen(text)};
    }
    assert_non_null(wrong_text);
    wrong_library = (dbt_shader_library){wrong_files, dbt_shaders.n};
    return &wrong_library;
}

/* In the place of cli/device.c. */
dibit_status dibit_cli_open_device(const dibit_cli_common *common, dibit_device **out,
                                   const char **why, dibit_error *error) {
    *why = "";
    const dibit_device_desc desc = {.kind = common->device == DIBIT_CLI_CPU ? DIBIT_DEVICE_CPU
                                            : test_device_computes()        ? DIBIT_DEVICE_WEBGPU
                                                                            : DIBIT_DEVICE_NULL,
                                    .webgpu_library = getenv("DIBIT_WEBGPU_LIB")};
    const dibit_status status = dibit_device_create(&desc, out, error);
    if (status == DIBIT_OK && injected && (*out)->gpu) {
        dbt_gpu_use_shaders((*out)->gpu, library_with(injected));
    }
    return status;
}

/* ---- Calling verbs ------------------------------------------------------------------------------- */

static char printed[1 << 18];

/* Runs a verb; what it writes to stdout is in printed. */
static int call(int (*verb)(int, char **), const char *name, const char *const *words) {
    char copies[16][600];
    char *argv[18] = {copies[0]};
    int argc = 1;
    snprintf(copies[0], sizeof copies[0], "%s", name);
    for (; words[argc - 1]; argc++) {
        snprintf(copies[argc], sizeof copies[argc], "%s", words[argc - 1]);
        argv[argc] = copies[argc];
    }
    fflush(stdout);
    FILE *const file = tmpfile();
    assert_non_null(file);
    const int kept = dup(1);
    dup2(fileno(file), 1);
    const int result = verb(argc, argv);
    fflush(stdout);
    dup2(kept, 1);
    close(kept);
    rewind(file);
    const size_t n = fread(printed, 1, sizeof printed - 1, file);
    printed[n] = 0;
    fclose(file);
    return result;
}

#define DIFF(...) call(dibit_cli_diff, "diff", (const char *const[]){__VA_ARGS__, NULL})
#define CHECK(...) call(dibit_cli_check, "check", (const char *const[]){__VA_ARGS__, NULL})

static const char llama[] = DBT_SOURCE_DIR "/tests/data/cases/llama.q2";
static const char halves[] = DBT_SOURCE_DIR "/tests/data/cases/llama.int4webgpu";

static void assert_printed(const char *want) {
    if (!strstr(printed, want)) fail_msg("'%s' is not in:\n%s", want, printed);
}

static void make_folder(char folder[64]) {
    strcpy(folder, "/tmp/dibit_diff_XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void remove_folder(const char *folder) {
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* ---- Tests --------------------------------------------------------------------------------------- */

static void test_right_shaders_pass(void **state) {
    (void)state;
    injected = NULL;
    assert_int_equal(DIFF(llama, "--decode"), 0);
    assert_printed("all within their bounds");
    assert_int_equal(DIFF(halves), 0);
    assert_int_equal(
        DIFF(llama, "--against", DBT_SOURCE_DIR "/tests/data/cases/llama.q2/test_data_set_1"), 0);
}

static void check_mistake(const mistake *m, const char *model, const char *first) {
    char folder[64], set[128];
    make_folder(folder);
    injected = m;
    assert_int_equal(DIFF(model, "--no-proof", "--save", folder), 1);
    assert_printed(first);
    assert_printed("  alone: '");
    snprintf(set, sizeof set, "saved: dibit check %s", folder);
    assert_printed(set);
    assert_int_equal(CHECK(folder), 0);
    assert_printed("1 passed");
    assert_int_equal(CHECK(folder, "--device", "webgpu", "--no-proof"), 1);
    assert_printed("elements are wrong");
    injected = NULL; /* what was saved is right for a device without the mistake */
    if (test_device_computes()) assert_int_equal(CHECK(folder, "--device", "webgpu"), 0);
    forget();
    remove_folder(folder);
}

static void test_the_node_of_a_mistake_is_named(void **state) {
    (void)state;
    static const mistake norm = {"norm_rows.wgsl", "squares += d * d;", "squares += abs(d);"};
    static const mistake zero_point = {"nbits_zero_point.inc.wgsl",
                                       "let shift = byte % 4u * 8u + g * BITS % 8u;",
                                       "let shift = byte % 4u * 8u;"};
    static const mistake sigmoid = {"math.inc.wgsl", "fn math_sigmoid(x: f32) -> f32 {",
                                    "fn math_sigmoid(x: f32) -> f32 { if x > 1.0 { return 1.0; }"};
    check_mistake(&norm, llama, "FIRST prompt: node 4, SimplifiedLayerNormalization by itself");
    check_mistake(&norm, halves, "SimplifiedLayerNormalization by itself");
    check_mistake(&sigmoid, llama, "FIRST prompt: node 14, Sigmoid by itself");
    check_mistake(&zero_point, llama,
                  "FIRST prompt: node 7, MatMulNBits by itself: 2 bits, block 32");
}

/* A device on which no kernel is right has failed the check: it is no skip. */
static void test_a_device_without_a_right_kernel_fails(void **state) {
    (void)state;
    static const mistake zero_point = {"nbits_zero_point.inc.wgsl",
                                       "let shift = byte % 4u * 8u + g * BITS % 8u;",
                                       "let shift = byte % 4u * 8u;"};
    injected = &zero_point;
    assert_int_equal(CHECK(llama, "--device", "webgpu"), 1);
    assert_printed("every kernel for these weights gives wrong answers on");
    assert_printed("\n0 passed, ");
    assert_printed(" 0 skipped");
    injected = NULL;
    forget();
}

/* A mistake that the prompt does not show: only a step has a single row. */
static void test_the_step_is_compared_by_itself(void **state) {
    (void)state;
    static const mistake norm = {"norm_rows.wgsl", "squares += d * d;",
                                 "squares += select(d * d, 0.0, u.rows == 1u);"};
    injected = &norm;
    assert_int_equal(DIFF(llama), 0);
    assert_int_equal(DIFF(llama, "--decode"), 1);
    assert_printed("FIRST step: node 4, SimplifiedLayerNormalization by itself");
    forget();
}

static void test_a_device_that_computes_nothing_is_wrong_at_once(void **state) {
    (void)state;
    static const mistake none = {"norm_rows.wgsl", "squares", "squares"};
    check_mistake(&none, llama, "FIRST prompt: node 1, Gather by itself");
}

static void test_json_says_the_same(void **state) {
    (void)state;
    injected = NULL;
    assert_int_equal(DIFF(llama, "--json"), 1);
    assert_printed("\"first\": 1");
    assert_printed("\"index\": \"[0,");
    assert_printed("\"why\": \"on the CPU: its integers are known on the host\"");
}

/* ---- docs/DEBUGGING.md ------------------------------------------------------------------------------ */

typedef struct command {
    const char *verb;
    int (*run)(int argc, char **argv);
    int code;
    const char *says;
} command;

/* The index that diff has printed: "alone: 'value' [0,3,82] is". */
static void find_index(char index[64]) {
    const char *const alone = strstr(printed, "  alone: '");
    const char *const begin = alone ? strchr(alone, '[') : NULL;
    if (begin) snprintf(index, 64, "%.*s", (int)strcspn(begin + 1, "]"), begin + 1);
}

/* One line of the page, its words in capitals filled in. */
static void run_command(const command *c, char *line, const char *node, char index[64]) {
    const char *words[16] = {0};
    uint32_t n = 0;
    for (char *word = strtok(line, " "); word && n < 15; word = strtok(NULL, " ")) {
        words[n++] = strcmp(word, "MODEL") == 0   ? llama
                     : strcmp(word, "NODE") == 0  ? node
                     : strcmp(word, "INDEX") == 0 ? index
                                                  : word;
    }
    assert_true(n > 1 && strcmp(words[0], "dibit") == 0);
    assert_string_equal(words[1], c->verb);
    if (call(c->run, c->verb, words + 2) != c->code)
        fail_msg("'%s' does not end with %d:\n%s", c->verb, c->code, printed);
    assert_printed(c->says);
    if (strcmp(c->verb, "diff") == 0) find_index(index);
}

static void test_the_page_about_debugging(void **state) {
    (void)state;
    static const mistake in_matvecs = {"nbits_zero_point.inc.wgsl",
                                       "    let shift = byte % 4u * 8u + g * BITS % 8u;\n",
                                       "#if defined LANES\n    let shift = byte % 4u * 8u;\n#else\n"
                                       "    let shift = byte % 4u * 8u + g * BITS % 8u;\n#endif\n"};
    static const command commands[] = {
        {"info", dibit_cli_info, 0, "is wrong on this device and is not used"},
        {"verify", dibit_cli_verify, 1, "FAILED matvec_"},
        {"diff", dibit_cli_diff, 1, "FIRST prompt: node 7, MatMulNBits by itself"},
        {"diff", dibit_cli_diff, 1, "saved: dibit check "},
        {"check", dibit_cli_check, 1, "0 passed, 1 failed"},
        {"check", dibit_cli_check, 0, "1 passed, 0 failed"},
        {"trace", dibit_cli_trace, 1, "the zero point's first bit in its byte is 0, expected"},
    };
    char folder[64], line[500], index[64] = "";
    size_t n = 0;
    make_folder(folder);
    injected = &in_matvecs;
    FILE *const page = fopen(DBT_SOURCE_DIR "/docs/DEBUGGING.md", "r");
    assert_non_null(page);
    while (fgets(line, sizeof line, page)) {
        if (strncmp(line, "    dibit ", 10) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        assert_true(n < sizeof commands / sizeof commands[0]);
        run_command(&commands[n++], line, folder, index);
    }
    assert_int_equal(n, sizeof commands / sizeof commands[0]);
    fclose(page);
    /* Answers are right all the same, and --strict tells. */
    assert_int_equal(CHECK(llama, "--device", "webgpu"), 0);
    assert_int_equal(CHECK(llama, "--device", "webgpu", "--strict"), 1);
    injected = NULL;
    assert_int_equal(CHECK(llama, "--device", "webgpu", "--strict"), 0);
    forget();
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest on_null[] = {
        cmocka_unit_test(test_a_device_that_computes_nothing_is_wrong_at_once),
        cmocka_unit_test(test_json_says_the_same),
    };
    const struct CMUnitTest on_webgpu[] = {
        cmocka_unit_test(test_right_shaders_pass),
        cmocka_unit_test(test_the_node_of_a_mistake_is_named),
        cmocka_unit_test(test_the_step_is_compared_by_itself),
        cmocka_unit_test(test_a_device_without_a_right_kernel_fails),
        cmocka_unit_test(test_the_page_about_debugging),
    };
    return test_device_computes() ? cmocka_run_group_tests(on_webgpu, NULL, NULL)
                                  : cmocka_run_group_tests(on_null, NULL, NULL);
}

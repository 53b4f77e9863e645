/* The verbs `run`, `chat` and `eval` with the shipped model on a device that fails: the null device, whose
 * calls fail before it has said a token. With --device auto the CPU takes over and the text is its own; with
 * --device webgpu it ends with one sentence. */
#include "dbt_test.h"

#include <unistd.h>

#include "cli/cli.h"
#include "failing_hal.h"
#include "model.h"

static const char folder[] = DBT_SOURCE_DIR "/models/smollm2-135m-instruct-2bit";

/* In the place of cli/device.c: webgpu and auto are the device that fails. */
dibit_status dibit_cli_open_device(const dibit_cli_common *common, dibit_device **out,
                                   const char **why, dibit_error *error) {
    const bool cpu = common->device == DIBIT_CLI_CPU;
    *why = common->device == DIBIT_CLI_AUTO ? "auto took the GPU" : "";
    const dibit_device_desc desc = {.kind = cpu ? DIBIT_DEVICE_CPU : DIBIT_DEVICE_NULL};
    const dibit_status status = dibit_device_create(&desc, out, error);
    if (status == DIBIT_OK && !cpu) failing_hal_wrap(dbt_gpu_hal((*out)->gpu));
    return status;
}

/* ---- Calling verbs ---- */

typedef struct said {
    int code;
    char out[1 << 14], err[1 << 14];
} said;

static void read_back(FILE *file, char *text, size_t bytes) {
    rewind(file);
    text[fread(text, 1, bytes - 1, file)] = 0;
    fclose(file);
}

static void call(said *s, int (*verb)(int, char **), const char *input, const char *const *words) {
    char copies[16][300], *argv[18];
    int argc = 0;
    for (; words[argc]; argc++) {
        snprintf(copies[argc], sizeof copies[argc], "%s", words[argc]);
        argv[argc] = copies[argc];
    }
    argv[argc] = NULL;
    FILE *const files[3] = {tmpfile(), tmpfile(), tmpfile()};
    int kept[3];
    fputs(input, files[0]);
    rewind(files[0]);
    fflush(stdout);
    for (int i = 0; i < 3; i++) {
        assert_non_null(files[i]);
        kept[i] = dup(i);
        dup2(fileno(files[i]), i);
    }
    clearerr(stdin);
    s->code = verb(argc, argv);
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 3; i++) {
        dup2(kept[i], i);
        close(kept[i]);
    }
    fclose(files[0]);
    read_back(files[1], s->out, sizeof s->out);
    read_back(files[2], s->err, sizeof s->err);
}

#define RUN(s, ...)                                                                                \
    call(s, dibit_cli_run, "",                                                                     \
         (const char *const[]){"run", folder, "-p", "Why is the sky blue?", "-n", "6", "--greedy", \
                               __VA_ARGS__, NULL})
#define CHAT(s, ...)                                                                               \
    call(s, dibit_cli_chat, "Say a word.\nSay another.\n",                                         \
         (const char *const[]){"chat", folder, "-n", "4", "--greedy", __VA_ARGS__, NULL})
#define EVAL(s, text, ...)                                                                         \
    call(s, dibit_cli_eval, text,                                                                  \
         (const char *const[]){"eval", folder, "--text", "-", __VA_ARGS__, NULL})

static void assert_in(const char *text, const char *want) {
    if (!strstr(text, want)) fail_msg("'%s' is not in:\n%s", want, text);
}

static void lose_at(uint64_t call) {
    failing = (failing_hal){.at = call, .status = DIBIT_DEVICE_LOST};
}

/* ---- Tests ---- */

static said cpu, now;

/* How many calls there are up to the end of loading: then nothing has been said. */
static uint64_t count_loading(void) {
    failing = (failing_hal){.at = 1u << 30, .status = DIBIT_DEVICE_LOST};
    call(&now, dibit_cli_run, "",
         (const char *const[]){"run", folder, "-p", "x", "-n", "1", "--device", "webgpu", NULL});
    assert_int_equal(now.code, 0);
    const uint64_t all = failing.n_calls;
    assert_true(all > 1000);
    return all - 20; /* in the prompt's run */
}

static void test_auto_goes_on_on_the_cpu(void **state) {
    (void)state;
    const uint64_t points[] = {1, 300, count_loading()};
    failing = (failing_hal){0};
    RUN(&cpu, "--device", "cpu");
    assert_int_equal(cpu.code, 0);
    assert_true(strlen(cpu.out) > 10);
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        lose_at(points[i]);
        if (i == 1) {
            RUN(&now, "--device", "auto", "--no-stats");
        } else {
            RUN(&now, "--device", "auto");
        }
        assert_true(failing.failed);
        assert_int_equal(now.code, 0);
        assert_string_equal(now.out, cpu.out);
        assert_in(now.err, "the CPU took over: ");
        assert_in(now.err, "was told to fail");
        if (i != 1) assert_in(now.err, "; cpu, ");
    }
    lose_at(points[2]);
    RUN(&now, "--device", "auto", "--json");
    assert_int_equal(now.code, 0);
    assert_in(now.out, "\"why\": \"the CPU took over: ");
    assert_in(now.out, "\"device\": \"cpu, ");
}

static void test_webgpu_ends_with_a_sentence(void **state) {
    (void)state;
    lose_at(300);
    RUN(&now, "--device", "webgpu");
    assert_int_equal(now.code, 1);
    assert_string_equal(now.out, "");
    assert_in(now.err, "dibit run: ");
    assert_in(now.err, "call 300 was told to fail\n");
    assert_null(strstr(strchr(now.err, '\n') + 1, "\n")); /* one line */
}

static void test_a_conversation_goes_on(void **state) {
    (void)state;
    const uint64_t loaded = count_loading();
    failing = (failing_hal){0};
    CHAT(&cpu, "--device", "cpu");
    assert_int_equal(cpu.code, 0);
    lose_at(loaded);
    CHAT(&now, "--device", "auto");
    assert_true(failing.failed);
    assert_int_equal(now.code, 0);
    assert_string_equal(now.out, cpu.out);
    assert_in(now.err, "auto took the GPU]\n");
    assert_in(now.err, "[cpu, ");
    assert_in(now.err, "was told to fail]\n");
}

static void test_a_score_is_begun_again(void **state) {
    (void)state;
    static const char text[] =
        "The sky is blue because air scatters short waves more than long ones.";
    const uint64_t loaded = count_loading();
    failing = (failing_hal){0};
    EVAL(&cpu, text, "--device", "cpu");
    assert_int_equal(cpu.code, 0);
    lose_at(loaded);
    EVAL(&now, text, "--device", "auto");
    assert_true(failing.failed);
    assert_int_equal(now.code, 0);
    *strchr(cpu.out, ',') = *strchr(now.out, ',') = 0; /* before the tokens a second */
    assert_string_equal(now.out, cpu.out);
    assert_in(now.err, "dibit eval: the CPU took over: ");
    lose_at(loaded);
    EVAL(&now, text, "--device", "webgpu");
    assert_int_equal(now.code, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto_goes_on_on_the_cpu),
        cmocka_unit_test(test_webgpu_ends_with_a_sentence),
        cmocka_unit_test(test_a_conversation_goes_on),
        cmocka_unit_test(test_a_score_is_begun_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

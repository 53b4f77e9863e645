/* What of real models a device leaves to the CPU: integers that the host knows, and the ops that
 * tests/data/cpu_ops.txt lists. The models are tests/data/cases, and those of DIBIT_ORACLE
 * where it is set. The null device decides as any other does that has WebGPU's default limits. */
#include "dbt_test.h"

#include <dirent.h>

#include "dibit/dibit.h"

enum { MAX_OPS = 64 };

typedef struct op_list {
    char entry[MAX_OPS][128]; /* "OP: why" */
    bool used[MAX_OPS];
    int n;
} op_list;

/* A line each; '#' begins a comment. */
static void read_list(op_list *list) {
    FILE *const file = fopen(DBT_SOURCE_DIR "/tests/data/cpu_ops.txt", "r");
    assert_non_null(file);
    char line[128];
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#' || line[0] == '\n') continue;
        assert_in_range(list->n, 0, MAX_OPS - 1);
        line[strcspn(line, "\n")] = 0;
        strcpy(list->entry[list->n++], line);
    }
    fclose(file);
}

static int find(const op_list *list, const dibit_step_info *step) {
    char entry[128];
    snprintf(entry, sizeof entry, "%s: %s", step->op, step->why);
    for (int i = 0; i < list->n; i++) {
        if (strcmp(list->entry[i], entry) == 0) return i;
    }
    return -1;
}

/* The ops of the model that the CPU runs, and that it need not. Returns how many are not listed. */
static int check_model(const char *path, dibit_device *device, op_list *list) {
    dibit_error error = {0};
    dibit_model *model = NULL;
    dibit_session *session = NULL;
    const dibit_model_desc desc = {.path = path};
    if (dibit_model_load(&desc, &model, &error)) fail_msg("%s: %s", path, error.text);
    const dibit_session_desc options = {.device = device};
    if (dibit_session_create(model, &options, &session, &error)) {
        fail_msg("%s: %s", path, error.text);
    }
    int n_unlisted = 0;
    dibit_step_info step;
    for (uint32_t i = 0; dibit_session_step(session, i, &step) == DIBIT_OK; i++) {
        if (strcmp(step.device, "cpu") != 0 || strncmp(step.op, "dibit.", 6) == 0 ||
            strcmp(step.why, "its integers are known on the host") == 0) {
            continue;
        }
        const int at = find(list, &step);
        if (at >= 0) {
            list->used[at] = true;
            continue;
        }
        print_message("%s: node '%s' (%s) runs on the CPU: %s\n", path, step.name, step.op,
                      step.why);
        n_unlisted++;
    }
    dibit_session_destroy(&session);
    dibit_model_destroy(&model);
    return n_unlisted;
}

/* All folders in `root` that hold a decoder: a model whose sessions have states. */
static int check_folder(const char *root, dibit_device *device, op_list *list, int *n_models) {
    DIR *const directory = opendir(root);
    if (!directory) fail_msg("no folder %s", root);
    int n_unlisted = 0;
    const struct dirent *entry;
    while ((entry = readdir(directory))) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s/model.onnx", root, entry->d_name);
        FILE *const file = entry->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!file) continue;
        fclose(file);
        n_unlisted += check_model(path, device, list);
        ++*n_models;
    }
    closedir(directory);
    return n_unlisted;
}

static void test_the_cpu_runs_only_what_is_listed(void **state) {
    (void)state;
    op_list list = {0};
    read_list(&list);
    dibit_error error = {0};
    dibit_device *device = NULL;
    const dibit_device_desc null = {.kind = DIBIT_DEVICE_NULL, .n_threads = 1};
    assert_int_equal(dibit_device_create(&null, &device, &error), DIBIT_OK);
    int n_models = 0;
    int n_unlisted = check_folder(DBT_SOURCE_DIR "/tests/data/cases", device, &list, &n_models);
    const char *const oracle = getenv("DIBIT_ORACLE");
    if (oracle) {
        char root[1024];
        snprintf(root, sizeof root, "%s/cases", oracle);
        n_unlisted += check_folder(root, device, &list, &n_models);
    }
    dibit_device_destroy(&device);
    print_message("%d models\n", n_models);
    assert_in_range(n_models, 20, 10000);
    assert_int_equal(n_unlisted, 0);
    for (int i = 0; oracle && i < list.n; i++) {
        if (!list.used[i]) print_message("'%s' is listed, and no model needs it\n", list.entry[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_cpu_runs_only_what_is_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

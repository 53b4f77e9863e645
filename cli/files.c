/* Paths of models, and other small helpers of the verbs. */
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli.h"

void *dibit_cli_alloc(size_t count, size_t bytes) {
    void *memory = calloc(count ? count : 1, bytes ? bytes : 1);
    if (!memory) {
        fprintf(stderr, "dibit: out of memory\n");
        exit(1);
    }
    return memory;
}

char *dibit_cli_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = dibit_cli_alloc((size_t)n + 1, 1);
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

bool dibit_cli_is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **dibit_cli_list_folder(const char *folder, uint32_t *n) {
    *n = 0;
    DIR *dir = opendir(folder);
    if (!dir) return NULL;
    uint32_t capacity = 64;
    char **names = dibit_cli_alloc(capacity, sizeof *names);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        if (*n == capacity) {
            char **grown = dibit_cli_alloc(2 * (size_t)capacity, sizeof *grown);
            memcpy(grown, names, capacity * sizeof *grown);
            free(names);
            names = grown;
            capacity *= 2;
        }
        names[(*n)++] = dibit_cli_format("%s", entry->d_name);
    }
    closedir(dir);
    qsort(names, *n, sizeof *names, compare_strings);
    return names;
}

static bool has_suffix(const char *name, const char *suffix) {
    const size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

char *dibit_cli_find_model(const char *path) {
    if (dibit_cli_is_file(path)) return dibit_cli_format("%s", path);
    static const char *const places[] = {"model.onnx", "onnx/model.onnx"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char *model = dibit_cli_format("%s/%s", path, places[i]);
        if (dibit_cli_is_file(model)) return model;
        free(model);
    }
    char *model = NULL;
    uint32_t n, found = 0;
    char **names = dibit_cli_list_folder(path, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (has_suffix(names[i], ".onnx") && found++ == 0) {
            model = dibit_cli_format("%s/%s", path, names[i]);
        }
        free(names[i]);
    }
    free(names);
    if (found > 1) {
        free(model);
        model = NULL;
    }
    return model;
}

double dibit_cli_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Feeds every file that is named, and every file in folders that are named, to a fuzz target: the
 * corpus as a plain test, without libFuzzer. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>

#include "fuzz.h"

static unsigned n_files;

static void replay_file(const char *path) {
    FILE *const f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    const long n = ftell(f);
    rewind(f);
    uint8_t *const data = malloc(n > 0 ? (size_t)n : 1);
    if (!data || fread(data, 1, (size_t)n, f) != (size_t)n) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    fprintf(stderr, "%s\n", path); /* the last line tells where a crash was */
    (void)LLVMFuzzerTestOneInput(data, (size_t)n);
    free(data);
    n_files++;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        DIR *const folder = opendir(argv[i]);
        if (!folder) {
            replay_file(argv[i]);
            continue;
        }
        for (const struct dirent *e; (e = readdir(folder)) != NULL;) {
            char path[2000];
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            replay_file(path);
        }
        closedir(folder);
    }
    printf("%u passed, 0 failed, 0 skipped\n", n_files);
    return n_files == 0;
}

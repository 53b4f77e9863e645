/* Writes the expanded variants of every shader to a folder, for compilers other than the device's:
 * write_shader_variants DIR. Each file begins with a comment that says what it is. */
#include <stdio.h>
#include <stdlib.h>

#include "shader_variants.h"

typedef struct writer {
    const char *folder;
    uint32_t n;
    bool failed;
} writer;

static void each(void *user, const dbt_shader_variant *variant, const dbt_shader_text *text) {
    writer *const w = user;
    char path[1024], name[512];
    snprintf(path, sizeof path, "%s/%06u.wgsl", w->folder, (unsigned)w->n++);
    shader_variant_text(variant, name, sizeof name);
    FILE *const file = fopen(path, "wb");
    w->failed = w->failed || !file || fprintf(file, "// %s\n%s", name, text->wgsl) < 0;
    if (file && fclose(file) != 0) w->failed = true;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: write_shader_variants DIR\n");
        return 2;
    }
    writer w = {.folder = argv[1]};
    const shader_variants v = {.more = getenv("DIBIT_FULL") != NULL,
                               .features = DBT_HAL_F16 | DBT_HAL_SUBGROUPS | DBT_HAL_DOT4,
                               .each = each,
                               .user = &w};
    for (size_t i = 0; i < dbt_shaders.n; i++) {
        dibit_error error = {0};
        if (shader_is_fragment(dbt_shaders.files[i].name)) continue;
        if (shader_variants_make(&v, dbt_shaders.files[i].name, &error) || w.failed) {
            fprintf(stderr, "%s\n", w.failed ? "a file cannot be written" : error.text);
            return 1;
        }
    }
    printf("%u variants\n", (unsigned)w.n);
    return 0;
}

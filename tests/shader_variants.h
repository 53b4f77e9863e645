/* The variants of a shader, for tests that compile them: the whole product of its parameters' values when
 * that is small, else a seeded choice that has every pair of values of two parameters. With TRACE, where a shader
 * has that, a choice that has every value. */
#ifndef DBT_TESTS_SHADER_VARIANTS_H
#define DBT_TESTS_SHADER_VARIANTS_H

#include "gpu/hal.h"
#include "gpu/shader.h"

typedef struct shader_variants {
    bool more;         /* whole products up to thousands, and as many beside the pairs above */
    uint32_t features; /* of the device: variants are made with them and without */
    void (*each)(void *user, const dbt_shader_variant *variant, const dbt_shader_text *text);
    void *user;
} shader_variants;

/* Calls `each` for the variants of a file that it does not refuse by #error. */
dibit_status shader_variants_make(const shader_variants *v, const char *file, dibit_error *error);
/* Fragments, *.inc.wgsl, are parts of shaders. */
bool shader_is_fragment(const char *file);
/* "BITS=2 F16=1": the parameters, and the features that are on. */
void shader_variant_text(const dbt_shader_variant *variant, char *text, size_t size);
/* What an expanded shader binds, as pipeline descriptions have it. */
void shader_scan_bindings(const char *wgsl, dbt_hal_pipeline_desc *desc);

#endif

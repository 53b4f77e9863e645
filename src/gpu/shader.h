/* Shaders: .wgsl files beside their ops, embedded as bytes by cmake/embed.cmake, expanded at run time.
 *
 * A file is plain WGSL with lines that begin with '#', which may end with a // comment:
 *
 *     #param NAME values...   a parameter and the values it may take: numbers, and LOW..HIGH. The line
 *                             becomes `const NAME = value;`, so that WGSL sees it too
 *     #include "file"         a fragment, once; file names are unique in the tree
 *     #if NAME == n           also !=, <, <=, >, >=, and #if defined NAME; && binds closer than ||
 *     #elif ... #else #endif  nested as usual
 *     #error sentence         there is no such variant: UNSUPPORTED
 *
 * A name is defined when the file or what it includes has a `#param` line for it, wherever it stands;
 * a fragment can so ask which shader it is in. NAGA, F16, SUBGROUPS and DOT4 (0 or 1: the device's
 * features) and TRACE (0 unless given) are always defined, for #if alone. Lines that begin with enable,
 * requires or diagnostic come first in the expanded text, as WGSL wants. */
#ifndef DBT_GPU_SHADER_H
#define DBT_GPU_SHADER_H

#include "base/arena.h"

typedef struct dbt_shader_file {
    const char *name; /* "nbits_matvec.wgsl" */
    const char *text;
    size_t bytes;
} dbt_shader_file;

/* Files by ascending name (strcmp). */
typedef struct dbt_shader_library {
    const dbt_shader_file *files;
    size_t n;
} dbt_shader_library;

/* Generated: every .wgsl file that src/CMakeLists.txt lists. */
extern const dbt_shader_library dbt_shaders;

/* What shapes a variant of a shader. */
typedef struct dbt_shader_param {
    const char *name;
    int32_t value;
} dbt_shader_param;

typedef struct dbt_shader_variant {
    const char *file;
    const dbt_shader_param
        *params; /* one for each `#param` line, and perhaps TRACE; in any order */
    uint32_t n_params;
    uint32_t features; /* DBT_HAL_* */
} dbt_shader_variant;

typedef struct dbt_shader_text {
    const char *wgsl; /* ends with a NUL */
    size_t bytes;     /* without it */
} dbt_shader_text;

/* The expanded text, in the arena. Where an included text begins and ends, a comment says file and line.
 * BAD_ARGUMENT with file and line for a malformed line, and for parameters that are not what the file
 * declares. */
dibit_status dbt_shader_expand(const dbt_shader_library *library, const dbt_shader_variant *variant,
                               dbt_arena *arena, dbt_shader_text *out, dibit_error *error);

typedef struct dbt_shader_declared {
    const char *name;
    const int32_t *values;
    uint32_t n_values;
} dbt_shader_declared;

/* The parameters that a file and what it includes declare, in order: what tests compile every variant
 * from. */
typedef struct dbt_shader_declarations {
    const dbt_shader_declared *params;
    uint32_t n;
} dbt_shader_declarations;
dibit_status dbt_shader_declare(const dbt_shader_library *library, const char *file,
                                dbt_arena *arena, dbt_shader_declarations *out, dibit_error *error);

#endif

/* Shaders: .wgsl files beside their ops, embedded as bytes by cmake/embed, expanded at run time.
 *
 * A file is plain WGSL with lines that begin with '#':
 *
 *     #param NAME values...   a parameter and the values it may take: numbers, and LOW..HIGH. The line
 *                             becomes `const NAME = value;`, so that WGSL sees it too
 *     #include "file"         a fragment, once; file names are unique in the tree
 *     #if NAME == n           also !=, <, <=, >, >=, and #if defined NAME; conditions joined by && or ||
 *     #elif ... #else #endif  nested as usual
 *
 * Parameters without a `#param` line are unknown and an error; NAGA, F16, SUBGROUPS and DOT4 (0 or 1: the
 * device's features) and TRACE (0 unless given) are always defined. */
#ifndef DBT_GPU_SHADER_H
#define DBT_GPU_SHADER_H

#include "base/arena.h"

typedef struct dbt_shader_file {
    const char *name; /* "nbits_matvec.wgsl" */
    const char *text;
    size_t bytes;
} dbt_shader_file;

/* Generated: every .wgsl file of the tree, sorted by name. */
extern const dbt_shader_file dbt_shader_files[];
extern const size_t dbt_shader_file_count;

/* What shapes a variant of a shader. */
typedef struct dbt_shader_param {
    const char *name;
    int32_t value;
} dbt_shader_param;

/* The expanded text, in the arena. BAD_ARGUMENT with file and line for a parameter that the file does
 * not declare, a value that it does not list, or a malformed line. `features`: DBT_HAL_*. */
dibit_status dbt_shader_expand(const char *file, const dbt_shader_param *params, uint32_t n_params,
                               uint32_t features, dbt_arena *arena, const char **wgsl,
                               size_t *bytes, dibit_error *error);

/* The parameters that a file and what it includes declare, with the values listed, in order: what tests
 * compile every variant from. NULL past the last. Values are in the arena. */
typedef struct dbt_shader_declared {
    const char *name;
    const int32_t *values;
    uint32_t n_values;
} dbt_shader_declared;
dibit_status dbt_shader_declarations(const char *file, dbt_arena *arena, dbt_shader_declared **out,
                                     uint32_t *n, dibit_error *error);

#endif

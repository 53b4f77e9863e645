/* Byte sources: where a file's bytes come from. A mapped file or a buffer gives pointers; a callback
 * gives copies, perhaps later. */
#ifndef DBT_BASE_SOURCE_H
#define DBT_BASE_SOURCE_H

#include "base/arena.h"

typedef struct dbt_source {
    const char *name;      /* for errors */
    uint64_t size;         /* bytes */
    const uint8_t *mapped; /* the whole content, or NULL: then only read() */
    dibit_source callback; /* when not mapped */
    void *os_mapping;      /* what dbt_source_close unmaps; NULL: borrowed */
} dbt_source;

/* Some bytes of a source. */
typedef struct dbt_bytes {
    const dbt_source *source;
    uint64_t offset, bytes;
} dbt_bytes;

/* Maps a regular file. `name` is borrowed. IO when it cannot be opened or is no regular file. */
dibit_status dbt_source_open_file(const char *path, const char *name, dbt_source *out,
                                  dibit_error *error);
/* Maps a file that lies in the folder of the file `path` (or below it), `location` being its path
 * from there; it becomes the name and is borrowed. Symbolic links are followed only to files in
 * that folder, or in the folder that `path` itself is linked from: BAD_FILE otherwise. */
dibit_status dbt_source_open_beside(const char *path, const char *location, dbt_source *out,
                                    dibit_error *error);
void dbt_source_from_buffer(const void *data, uint64_t bytes, const char *name, dbt_source *out);
void dbt_source_from_callback(const dibit_source *callback, const char *name, dbt_source *out);
void dbt_source_close(dbt_source *source);

/* Copies; PENDING from a callback passes through. The range must lie inside the source, or
 * BAD_FILE. */
dibit_status dbt_source_read(const dbt_source *source, uint64_t offset, uint64_t bytes, void *dst,
                             dibit_error *error);
/* A pointer to the bytes when they are resident, else NULL. */
const void *dbt_bytes_pointer(dbt_bytes bytes);

#endif

/* Byte sources: mapped files, buffers, callbacks. */
#include "base/source.h"

#include <string.h>

#include "base/os.h"

static const uint8_t empty[1];

static void from_mapping(const uint8_t *data, uint64_t bytes, const char *name, dbt_source *out) {
    *out = (dbt_source){.name = name, .size = bytes, .mapped = data ? data : empty};
    out->os_mapping = (void *)(uintptr_t)data;
}

dibit_status dbt_source_open_file(const char *path, const char *name, dbt_source *out,
                                  dibit_error *error) {
    const uint8_t *data;
    uint64_t bytes;
    DBT_TRY(dbt_os_map(path, name, &data, &bytes, error));
    from_mapping(data, bytes, name, out);
    return DIBIT_OK;
}

dibit_status dbt_source_open_beside(const char *path, const char *location, dbt_source *out,
                                    dibit_error *error) {
    const uint8_t *data;
    uint64_t bytes;
    DBT_TRY(dbt_os_map_beside(path, location, &data, &bytes, error));
    from_mapping(data, bytes, location, out);
    return DIBIT_OK;
}

void dbt_source_from_buffer(const void *data, uint64_t bytes, const char *name, dbt_source *out) {
    *out = (dbt_source){.name = name, .size = bytes, .mapped = data ? data : empty};
}

void dbt_source_from_callback(const dibit_source *callback, const char *name, dbt_source *out) {
    *out = (dbt_source){.name = name, .size = callback->size, .callback = *callback};
}

void dbt_source_close(dbt_source *source) {
    if (source->os_mapping) dbt_os_unmap(source->os_mapping, source->size);
    if (source->callback.close) source->callback.close(source->callback.user);
    *source = (dbt_source){0};
}

dibit_status dbt_source_read(const dbt_source *source, uint64_t offset, uint64_t bytes, void *dst,
                             dibit_error *error) {
    DBT_FAIL_IF(offset > source->size || bytes > source->size - offset, error, DIBIT_BAD_FILE,
                "'%s' ends at byte %llu, but bytes %llu to %llu are needed", source->name,
                (unsigned long long)source->size, (unsigned long long)offset,
                (unsigned long long)offset + (unsigned long long)bytes);
    if (source->mapped) {
        if (bytes) memcpy(dst, source->mapped + offset, (size_t)bytes);
        return DIBIT_OK;
    }
    return source->callback.read(source->callback.user, offset, bytes, dst, error);
}

const void *dbt_bytes_pointer(dbt_bytes bytes) {
    return bytes.source && bytes.source->mapped ? bytes.source->mapped + bytes.offset : NULL;
}

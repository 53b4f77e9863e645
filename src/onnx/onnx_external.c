/* External data: checks where a model wants its data to lie, opens each file once, and checks that
 * every tensor lies inside of its file. */
#include "onnx/onnx_external.h"

#include <string.h>

bool dbt_onnx_location_is_safe(const char *location) {
    if (!location[0] || location[0] == '/' || strpbrk(location, "\\:")) return false;
    for (const char *at = location; *at;) {
        const size_t n = strcspn(at, "/");
        if (n == 2 && at[0] == '.' && at[1] == '.') return false;
        at += n;
        while (*at == '/') at++;
    }
    return true;
}

static dibit_status open_file(const dbt_onnx_reader_desc *desc, const dbt_onnx_external *e,
                              dbt_onnx_file **files, dbt_onnx_file **out, dibit_error *error) {
    for (dbt_onnx_file *file = *files; file; file = file->next) {
        if (strcmp(file->location, e->location) == 0) {
            *out = file;
            return DIBIT_OK;
        }
    }
    DBT_FAIL_IF(!dbt_onnx_location_is_safe(e->location), error, DIBIT_BAD_FILE,
                "'%.80s': %s: external data may not lie in '%.80s': only in the model's folder",
                desc->source->name, e->where, e->location);
    DBT_FAIL_IF(!desc->path && !desc->open_external, error, DIBIT_UNSUPPORTED,
                "'%.80s': %s: its data lies in '%.80s', and the model has no folder",
                desc->source->name, e->where, e->location);
    dbt_onnx_file *const file = dbt_arena_alloc(desc->arena, sizeof *file);
    if (!file) return dbt_fail_memory(error, "an external file", sizeof *file);
    dibit_status status;
    if (desc->open_external) {
        dibit_source callback = {0};
        status = desc->open_external(desc->open_external_user, e->location, &callback, error);
        if (status == DIBIT_OK) dbt_source_from_callback(&callback, e->location, &file->source);
    } else {
        status = dbt_source_open_beside(desc->path, e->location, &file->source, error);
    }
    if (status == DIBIT_PENDING) return status;
    if (status != DIBIT_OK) {
        dbt_error_prefix(error, "'%.80s': %s", desc->source->name, e->where);
        return status;
    }
    file->location = e->location;
    file->next = *files;
    *files = *out = file;
    return DIBIT_OK;
}

dibit_status dbt_onnx_resolve_externals(const dbt_onnx_reader_desc *desc,
                                        dbt_onnx_external **externals, dbt_onnx_file **files,
                                        dibit_error *error) {
    for (; *externals; *externals = (*externals)->next) {
        const dbt_onnx_external *const e = *externals;
        dbt_onnx_file *file = NULL;
        DBT_TRY(open_file(desc, e, files, &file, error));
        dbt_constant *const c = e->constant;
        uint64_t end;
        DBT_FAIL_IF(!dbt_add_u64(e->offset, c->bytes.bytes, &end) || end > file->source.size, error,
                    DIBIT_BAD_FILE,
                    "'%.80s': %s: external data has %llu bytes from byte %llu of '%.80s' on, which "
                    "has %llu",
                    desc->source->name, e->where, (unsigned long long)c->bytes.bytes,
                    (unsigned long long)e->offset, e->location,
                    (unsigned long long)file->source.size);
        c->bytes.source = &file->source;
        c->bytes.offset = e->offset;
        c->data = dbt_bytes_pointer(c->bytes);
    }
    return DIBIT_OK;
}

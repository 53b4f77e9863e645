/* dibit_tensors: files of tensors, told apart by their first bytes. */
#include "onnx/tensor_files.h"

#include <string.h>

#include "onnx/onnx_write.h"

dibit_status dbt_tensor_reserve(dbt_arena *arena, uint64_t bytes, dibit_tensor *out,
                                dibit_error *error) {
    out->data = dbt_arena_alloc_aligned(arena, bytes, 64);
    out->bytes = bytes;
    return out->data ? DIBIT_OK : dbt_fail_memory(error, "a tensor", bytes);
}

static dibit_status add_one(dibit_tensors *set, dibit_error *error) {
    set->tensors = dbt_arena_alloc(&set->arena, sizeof *set->tensors);
    if (!set->tensors) return dbt_fail_memory(error, "a tensor", sizeof *set->tensors);
    set->count = 1;
    return DIBIT_OK;
}

static dibit_status read_pb(const dbt_source *source, dibit_tensors *out, dibit_error *error) {
    dbt_constant c;
    DBT_TRY(dbt_onnx_read_tensor(source, &out->arena, &c, error));
    DBT_FAIL_IF(c.type == DIBIT_TYPE_STRING, error, DIBIT_UNSUPPORTED,
                "'%s': tensors of strings are not supported", source->name);
    DBT_TRY(add_one(out, error));
    dibit_tensor *const t = out->tensors;
    *t = (dibit_tensor){.name = c.name, .type = c.type, .rank = c.rank};
    memcpy(t->dims, c.dims, sizeof t->dims);
    DBT_TRY(dbt_tensor_reserve(&out->arena, c.bytes.bytes, t, error));
    memcpy(t->data, c.data, (size_t)c.bytes.bytes);
    return DIBIT_OK;
}

/* The file's name without folders and ".npy". */
static dibit_status read_npy(const dbt_source *source, dibit_tensors *out, dibit_error *error) {
    DBT_TRY(add_one(out, error));
    DBT_TRY(
        dbt_npy_read(source->mapped, source->size, source->name, &out->arena, out->tensors, error));
    const char *const slash = strrchr(source->name, '/');
    const char *const base = slash ? slash + 1 : source->name;
    size_t n = strlen(base);
    if (n > 4 && strcmp(base + n - 4, ".npy") == 0) n -= 4;
    out->tensors->name = dbt_arena_string(&out->arena, base, n);
    return out->tensors->name ? DIBIT_OK : dbt_fail_memory(error, "a name", n);
}

dibit_status dbt_tensors_read(const dbt_source *source, dibit_tensors *out, dibit_error *error) {
    const uint8_t *const data = source->mapped;
    if (source->size >= 6 && memcmp(data, "\x93NUMPY", 6) == 0) {
        return read_npy(source, out, error);
    }
    if (source->size >= 4 &&
        (memcmp(data, "PK\x03\x04", 4) == 0 || memcmp(data, "PK\x05\x06", 4) == 0)) {
        return dbt_npz_read(source, out, error);
    }
    return read_pb(source, out, error);
}

dibit_status dibit_tensors_load(const char *path, dibit_tensors **out, dibit_error *error) {
    DBT_FAIL_IF(!path || !out, error, DIBIT_BAD_ARGUMENT, "dibit_tensors_load: %s is NULL",
                path ? "out" : "path");
    dbt_source source;
    DBT_TRY(dbt_source_open_file(path, path, &source, error));
    dibit_tensors *set =
        dbt_alloc(&dbt_default_allocator, sizeof *set, _Alignof(struct dibit_tensors));
    if (!set) {
        dbt_source_close(&source);
        return dbt_fail_memory(error, "a set of tensors", sizeof *set);
    }
    *set = (dibit_tensors){0};
    dbt_arena_init(&set->arena, NULL);
    const dibit_status status = dbt_tensors_read(&source, set, error);
    dbt_source_close(&source);
    if (status != DIBIT_OK) {
        dibit_tensors_destroy(&set);
        return status;
    }
    *out = set;
    return DIBIT_OK;
}

uint32_t dibit_tensors_count(const dibit_tensors *tensors) { return tensors->count; }

const dibit_tensor *dibit_tensors_get(const dibit_tensors *tensors, uint32_t index) {
    return index < tensors->count ? &tensors->tensors[index] : NULL;
}

void dibit_tensors_destroy(dibit_tensors **tensors) {
    if (!tensors || !*tensors) return;
    const dibit_allocator allocator = (*tensors)->arena.allocator;
    dbt_arena_free(&(*tensors)->arena);
    dbt_release(&allocator, *tensors, sizeof **tensors);
    *tensors = NULL;
}

dibit_status dibit_tensor_write(const dibit_tensor *tensor, dibit_write write, void *user,
                                dibit_error *error) {
    DBT_FAIL_IF(!tensor || !write, error, DIBIT_BAD_ARGUMENT, "tensor and write must not be NULL");
    dbt_constant c = {.name = tensor->name ? tensor->name : "",
                      .type = tensor->type,
                      .rank = tensor->rank,
                      .data = tensor->data};
    const bool has_bits = dibit_type_bits(c.type) > 0 && c.rank >= 0 && c.rank <= DIBIT_MAX_RANK;
    if (has_bits) memcpy(c.dims, tensor->dims, sizeof c.dims);
    DBT_FAIL_IF(!has_bits || !dbt_count(c.rank, c.dims, &c.count) ||
                    !dbt_packed_bytes(c.type, (uint64_t)c.count, &c.bytes.bytes),
                error, DIBIT_BAD_ARGUMENT, "tensor '%s' has no type or dims that can be written",
                c.name);
    DBT_FAIL_IF(c.count > 0 && !c.data, error, DIBIT_BAD_ARGUMENT, "tensor '%s' has no data",
                c.name);
    dbt_onnx_write_tensor(&c, write, user);
    return DIBIT_OK;
}

/* Attribute lists into attribute structs, by the op's table. */
#include "ops/attrs.h"

#include <string.h>

static const char *kind_name(dbt_onnx_attr_kind kind) {
    static const char *const names[] = {"nothing", "a float", "an int", "a string", "a tensor",
                                        "a graph", "floats",  "ints",   "strings"};
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "something else";
}

static dbt_onnx_attr_kind onnx_kind(dbt_attr_kind kind) {
    switch (kind) {
    case DBT_ATTR_INT: return DBT_ONNX_ATTR_INT;
    case DBT_ATTR_FLOAT: return DBT_ONNX_ATTR_FLOAT;
    case DBT_ATTR_STRING: return DBT_ONNX_ATTR_STRING;
    case DBT_ATTR_INTS: return DBT_ONNX_ATTR_INTS;
    case DBT_ATTR_FLOATS: return DBT_ONNX_ATTR_FLOATS;
    case DBT_ATTR_STRINGS: return DBT_ONNX_ATTR_STRINGS;
    case DBT_ATTR_TENSOR: return DBT_ONNX_ATTR_TENSOR;
    case DBT_ATTR_IGNORED: break;
    }
    return DBT_ONNX_ATTR_UNDEFINED;
}

static void store_default(const dbt_attr_def *def, void *field) {
    switch (def->kind) {
    case DBT_ATTR_INT: memcpy(field, &def->i, sizeof def->i); break;
    case DBT_ATTR_FLOAT: memcpy(field, &def->f, sizeof def->f); break;
    case DBT_ATTR_STRING: memcpy(field, &def->s, sizeof def->s); break;
    default: break; /* the struct is zeroed */
    }
}

static void store_given(const dbt_attr_def *def, const dbt_onnx_attr *given, void *field) {
    switch (def->kind) {
    case DBT_ATTR_INT: memcpy(field, &given->i, sizeof given->i); break;
    case DBT_ATTR_FLOAT: memcpy(field, &given->f, sizeof given->f); break;
    case DBT_ATTR_STRING: memcpy(field, &given->s, sizeof given->s); break;
    case DBT_ATTR_TENSOR: memcpy(field, &given->tensor, sizeof given->tensor); break;
    /* An empty list is present, so its pointer is not NULL. */
    case DBT_ATTR_INTS: {
        static const int64_t none;
        const dbt_attr_ints v = {given->count ? given->ints : &none, given->count};
        memcpy(field, &v, sizeof v);
        break;
    }
    case DBT_ATTR_FLOATS: {
        static const float none;
        const dbt_attr_floats v = {given->count ? given->floats : &none, given->count};
        memcpy(field, &v, sizeof v);
        break;
    }
    case DBT_ATTR_STRINGS: {
        static const char *const none;
        const dbt_attr_strings v = {given->count ? given->strings : &none, given->count};
        memcpy(field, &v, sizeof v);
        break;
    }
    case DBT_ATTR_IGNORED: break;
    }
}

static const dbt_onnx_attr *find_given(const dbt_onnx_attr *given, uint32_t n, const char *name) {
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(given[i].name, name) == 0) return &given[i];
    }
    return NULL;
}

static bool op_has(const dbt_op *op, const char *name) {
    for (uint32_t i = 0; i < op->n_attrs; i++) {
        if (strcmp(op->attrs[i].name, name) == 0) return true;
    }
    return false;
}

dibit_status dbt_attrs_parse(const dbt_op *op, const dbt_onnx_attr *given, uint32_t n_given,
                             dbt_arena *arena, const void **out, dibit_error *error) {
    for (uint32_t i = 0; i < n_given; i++) {
        DBT_FAIL_IF(!op_has(op, given[i].name), error, DIBIT_BAD_FILE,
                    "attribute '%s' does not exist for %s", given[i].name, op->name);
        DBT_FAIL_IF(find_given(given, i, given[i].name) != NULL, error, DIBIT_BAD_FILE,
                    "attribute '%s' is given twice", given[i].name);
    }
    char *const attrs = dbt_arena_alloc(arena, op->attrs_bytes);
    if (!attrs) return dbt_fail_memory(error, "attributes", op->attrs_bytes);
    for (uint32_t i = 0; i < op->n_attrs; i++) {
        const dbt_attr_def *const def = &op->attrs[i];
        if (def->kind == DBT_ATTR_IGNORED) continue;
        const dbt_onnx_attr *const attr = find_given(given, n_given, def->name);
        if (!attr) {
            DBT_FAIL_IF(def->required, error, DIBIT_BAD_FILE, "attribute '%s' is missing",
                        def->name);
            store_default(def, attrs + def->offset);
            continue;
        }
        const dbt_onnx_attr_kind want = onnx_kind(def->kind);
        DBT_FAIL_IF(attr->kind != want, error, DIBIT_BAD_FILE, "attribute '%s' must be %s, got %s",
                    def->name, kind_name(want), kind_name(attr->kind));
        store_given(def, attr, attrs + def->offset);
    }
    *out = attrs;
    return DIBIT_OK;
}

/* Names, scopes, opsets and attribute references of a graph that is being built. */
#include "plan/scope.h"

#include <string.h>

enum { LOWEST_OPSET = 7, HIGHEST_OPSET = 25 };

/* ---- Names ---- */

static uint32_t hash_name(uint32_t scope_id, const char *name) {
    uint32_t h = 2166136261u ^ scope_id * 2654435761u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

static dbt_name_entry *find_entry(const dbt_builder *b, uint32_t scope_id, const char *name) {
    if (b->names_size == 0) return NULL;
    uint32_t at = hash_name(scope_id, name) & (b->names_size - 1);
    for (; b->names[at].scope; at = (at + 1) & (b->names_size - 1)) {
        if (b->names[at].scope == scope_id && strcmp(b->names[at].name, name) == 0) {
            return &b->names[at];
        }
    }
    return &b->names[at];
}

static bool grow_names(dbt_builder *b) {
    const uint32_t size = b->names_size ? b->names_size * 2 : 256;
    dbt_name_entry *const old = b->names;
    const uint32_t old_size = b->names_size;
    b->names = dbt_arena_array(b->arena, size, sizeof *b->names);
    if (!b->names) return false;
    b->names_size = size;
    for (uint32_t i = 0; i < old_size; i++) {
        if (old[i].scope) *find_entry(b, old[i].scope, old[i].name) = old[i];
    }
    return true;
}

dibit_status dbt_scope_define(dbt_builder *b, const dbt_scope *s, const char *name,
                              dbt_value *value) {
    if (b->n_names * 2 >= b->names_size && !grow_names(b)) {
        return dbt_fail_memory(b->error, "names", b->names_size * sizeof *b->names);
    }
    dbt_name_entry *const entry = find_entry(b, s->id, name);
    DBT_FAIL_IF(entry->scope, b->error, DIBIT_BAD_FILE, "value '%s' is defined twice", name);
    *entry = (dbt_name_entry){s->id, name, value};
    b->n_names++;
    return DIBIT_OK;
}

dibit_status dbt_scope_look_up(const dbt_builder *b, const dbt_scope *s, const char *name,
                               dbt_value **out) {
    *out = NULL;
    if (!name[0]) return DIBIT_OK;
    for (const dbt_scope *in = s; in; in = in->parent) {
        const dbt_name_entry *const entry = find_entry(b, in->id, name);
        if (entry && entry->scope) {
            *out = entry->value;
            return DIBIT_OK;
        }
    }
    return dbt_fail(b->error, DIBIT_BAD_FILE,
                    "value '%s' is not defined before it is used (missing, cyclic or out of order)",
                    name);
}

const char *dbt_scope_prefixed(const dbt_builder *b, const dbt_scope *s, const char *name) {
    return s->prefix[0] ? dbt_arena_format(b->arena, "%s%s", s->prefix, name) : name;
}

dibit_status dbt_scope_new_value(dbt_builder *b, const dbt_scope *s, const char *name,
                                 dbt_value **out) {
    const char *const full = dbt_scope_prefixed(b, s, name);
    *out = full ? dbt_graph_add_value(b->graph, full) : NULL;
    return *out ? DIBIT_OK : dbt_fail_memory(b->error, "a value", sizeof(dbt_value));
}

/* ---- Opsets and attributes ---- */

bool dbt_opset_of(const dbt_scope *s, const char *domain, int64_t *version) {
    for (uint32_t i = 0; i < s->n_opsets; i++) {
        if (strcmp(s->opsets[i].domain, domain) == 0) {
            *version = s->opsets[i].version;
            return true;
        }
    }
    return false;
}

dibit_status dbt_check_opsets(const dbt_builder *b, const dbt_onnx_opset *opsets, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const int64_t version = opsets[i].version;
        const bool onnx = opsets[i].domain[0] == 0;
        DBT_FAIL_IF(version < 1 || version > INT16_MAX, b->error, DIBIT_BAD_FILE,
                    "opset version %lld of domain '%s' makes no sense", (long long)version,
                    onnx ? "ai.onnx" : opsets[i].domain);
        DBT_FAIL_IF(onnx && (version < LOWEST_OPSET || version > HIGHEST_OPSET), b->error,
                    DIBIT_UNSUPPORTED, "opset %lld of ai.onnx is not supported (%d to %d are)",
                    (long long)version, LOWEST_OPSET, HIGHEST_OPSET);
    }
    return DIBIT_OK;
}

const dbt_onnx_attr *dbt_find_attr(const dbt_onnx_attr *attrs, uint32_t n, const char *name) {
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(attrs[i].name, name) == 0) return &attrs[i];
    }
    return NULL;
}

/* The node's attributes with references of a function body replaced by what the call gave. */
dibit_status dbt_resolve_attrs(const dbt_builder *b, const dbt_scope *s, const dbt_onnx_node *node,
                               const dbt_onnx_attr **out, uint32_t *n_out) {
    *out = node->attrs;
    *n_out = node->n_attrs;
    bool any = false;
    for (uint32_t i = 0; i < node->n_attrs; i++) any = any || node->attrs[i].reference;
    if (!any) return DIBIT_OK;
    dbt_onnx_attr *const attrs = dbt_arena_array(b->arena, node->n_attrs, sizeof *attrs);
    if (!attrs) return dbt_fail_memory(b->error, "attributes", node->n_attrs * sizeof *attrs);
    uint32_t n = 0;
    for (uint32_t i = 0; i < node->n_attrs; i++) {
        const dbt_onnx_attr *a = &node->attrs[i];
        if (a->reference) {
            DBT_FAIL_IF(!s->function, b->error, DIBIT_BAD_FILE,
                        "attribute '%s' refers to '%s' outside of a function", a->name,
                        a->reference);
            const char *const name = a->name;
            const char *const reference = a->reference;
            a = dbt_find_attr(s->call_attrs, s->n_call_attrs, reference);
            if (!a) {
                a = dbt_find_attr(s->function->attr_defaults, s->function->n_attr_defaults,
                                  reference);
            }
            if (!a) continue; /* not given: absent in the body too */
            attrs[n] = *a;
            attrs[n].name = name;
            attrs[n++].reference = NULL;
        } else {
            attrs[n++] = *a;
        }
    }
    *out = attrs;
    *n_out = n;
    return DIBIT_OK;
}

/* The node's name, or one made from its first output: never empty. */
const char *dbt_scope_node_name(const dbt_builder *b, const dbt_scope *s,
                                const dbt_onnx_node *node) {
    const char *own = node->name;
    for (uint32_t i = 0; !own[0] && i < node->n_outputs; i++) own = node->outputs[i];
    return dbt_scope_prefixed(b, s, own[0] ? own : node->op_type);
}

bool dbt_scope_is_constant(const dbt_builder *b, const dbt_scope *s, const char *name) {
    const dbt_name_entry *const entry = find_entry(b, s->id, name);
    return entry && entry->scope && entry->value->constant;
}

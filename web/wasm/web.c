/* What a page needs besides dibit.h, debug.h and lm.h, whose functions a wasm build exports as they are: a table of
 * the structs' layouts, so that web/src/wasm.ts fills them in by name, and models from the page's
 * sources. Imports: the modules dibit_source (src/base/source_web.c), dibit_gpu (src/gpu/hal_web.c) and what
 * libc takes of WASI. */
#include <stddef.h>
#include <string.h>

#include "base/source_web.h"
#include "dibit/debug.h"
#include "dibit/lm.h"

#define WEB_EXPORT(name) __attribute__((export_name(name)))

/* ---- Layouts ---- */

/* One field: "struct.field", or "struct" alone with the struct's size at offset 0. */
typedef struct web_field {
    const char *name;
    uint32_t offset, bytes;
    uint32_t is_float;
} web_field;

#define IS_FLOAT(x) _Generic((x), float: 1, double: 1, default: 0)
#define STRUCT(type) {#type, 0, sizeof(type), 0},
#define FIELD(type, field)                                                                         \
    {#type "." #field, offsetof(type, field), sizeof(((type *)0)->field),                          \
     IS_FLOAT(((type *)0)->field)},

static const web_field fields[] = {
#include "web_layout.inc"
};

/* The table of *n entries of four 32-bit words. */
WEB_EXPORT("dibit_web_layout") const void *dibit_web_layout(uint32_t *n);
const void *dibit_web_layout(uint32_t *n) {
    *n = sizeof fields / sizeof *fields;
    return fields;
}

/* ---- Models ---- */

#define SOURCE(name) __attribute__((import_module("dibit_source"), import_name(name)))

/* Finds `location` beside source `number`: its own number and size, or NOT_FOUND and a sentence. PENDING
 * while the page looks. */
SOURCE("open")
extern dibit_status host_open(uint32_t number, const char *location, size_t location_bytes,
                              uint32_t *opened, uint64_t *size, dibit_error *error);

static dibit_status open_beside(void *user, const char *location, dibit_source *out,
                                dibit_error *error) {
    uint32_t number;
    uint64_t size;
    dibit_error ignored;
    const dibit_status status = host_open((uint32_t)(uintptr_t)user, location, strlen(location),
                                          &number, &size, error ? error : &ignored);
    if (status == DIBIT_OK) *out = dbt_source_web(number, size);
    return status;
}

/* dibit_model_begin for source `number` of the page's, of so many bytes. */
WEB_EXPORT("dibit_web_model_begin")
dibit_status dibit_web_model_begin(uint32_t number, uint64_t size, const char *name,
                                   dibit_model **out, dibit_error *error);
dibit_status dibit_web_model_begin(uint32_t number, uint64_t size, const char *name,
                                   dibit_model **out, dibit_error *error) {
    const dibit_source source = dbt_source_web(number, size);
    return dibit_model_begin(&(dibit_model_desc){.source = &source,
                                                 .open_external = open_beside,
                                                 .open_external_user = (void *)(uintptr_t)number,
                                                 .name = name},
                             out, error);
}

/* ---- Nodes ---- */

typedef struct room {
    char *to;
    size_t n, bytes;
} room;

static void put(void *user, const char *text, size_t bytes) {
    room *const r = user;
    const size_t left = r->bytes - r->n, n = bytes < left ? bytes : left;
    memcpy(r->to + r->n, text, n);
    r->n += n;
}

/* dibit_model_dump_node into so many bytes; what does not fit is left out. Returns how many there are. */
WEB_EXPORT("dibit_web_dump_node")
uint32_t dibit_web_dump_node(const dibit_model *model, uint32_t node, char *to, uint32_t bytes);
uint32_t dibit_web_dump_node(const dibit_model *model, uint32_t node, char *to, uint32_t bytes) {
    room r = {to, 0, bytes};
    dibit_model_dump_node(model, node, put, &r);
    return (uint32_t)r.n;
}

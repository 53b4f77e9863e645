/* See shader_variants.h. */
#include "shader_variants.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_PRODUCT = 48, LARGE_PRODUCT = 4096, MAX_PARAMS = 32, CANDIDATES = 8, ATTEMPTS = 64 };

typedef struct choice {
    const shader_variants *v;
    const char *file;
    uint32_t features;
    bool trace; /* with TRACE, where that makes another text */
    dbt_shader_declarations declared;
    dbt_arena *arena;
    uint64_t seed;
    unsigned char *covered; /* of pairs */
    size_t offset[MAX_PARAMS][MAX_PARAMS];
    dibit_error *error;
} choice;

/* Which of its values each parameter has. */
typedef struct row {
    uint32_t at[MAX_PARAMS];
} row;

static uint32_t random_below(choice *c, uint32_t n) {
    c->seed ^= c->seed << 13;
    c->seed ^= c->seed >> 7;
    c->seed ^= c->seed << 17;
    return (uint32_t)((c->seed >> 32) % n);
}

/* Whether the variant is one that the device's own features have made already. */
static bool is_known(const choice *c, dbt_shader_variant variant, const dbt_shader_text *text,
                     dbt_arena *arena) {
    dbt_shader_text other;
    if (c->features == c->v->features) return false;
    variant.features = c->v->features;
    return dbt_shader_expand(&dbt_shaders, &variant, arena, &other, NULL) == DIBIT_OK &&
           strcmp(other.wgsl, text->wgsl) == 0;
}

/* The trace is one buffer more: some variants then have more than every device binds. */
static bool is_bindable(const dbt_shader_text *text) {
    enum { EVERY_DEVICE = 8 };
    dbt_hal_pipeline_desc desc = {0};
    uint32_t n = 0;
    shader_scan_bindings(text->wgsl, &desc);
    for (uint32_t bits = desc.bindings; bits; bits &= bits - 1) n++;
    return n <= EVERY_DEVICE;
}

/* UNSUPPORTED: the shader has no such variant. */
static dibit_status make(const choice *c, const row *r) {
    dbt_shader_param params[MAX_PARAMS + 1];
    for (uint32_t p = 0; p < c->declared.n; p++) {
        params[p] =
            (dbt_shader_param){c->declared.params[p].name, c->declared.params[p].values[r->at[p]]};
    }
    dbt_shader_variant variant = {c->file, params, c->declared.n, c->features};
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    dbt_shader_text text, traced;
    dibit_status status = dbt_shader_expand(&dbt_shaders, &variant, &arena, &text, c->error);
    if (status == DIBIT_OK && c->trace) {
        params[variant.n_params++] = (dbt_shader_param){"TRACE", 1};
        status = dbt_shader_expand(&dbt_shaders, &variant, &arena, &traced, c->error);
        if (status == DIBIT_OK && !is_bindable(&traced)) status = DIBIT_UNSUPPORTED;
        if (status == DIBIT_OK && strcmp(traced.wgsl, text.wgsl) != 0)
            c->v->each(c->v->user, &variant, &traced);
    } else if (status == DIBIT_OK && !is_known(c, variant, &text, &arena)) {
        c->v->each(c->v->user, &variant, &text);
    }
    dbt_arena_free(&arena);
    return status;
}

static dibit_status make_product(const choice *c) {
    row r = {{0}};
    for (;;) {
        const dibit_status status = make(c, &r);
        if (status != DIBIT_OK && status != DIBIT_UNSUPPORTED) return status;
        uint32_t p = 0;
        while (p < c->declared.n && ++r.at[p] == c->declared.params[p].n_values) r.at[p++] = 0;
        if (p == c->declared.n) return DIBIT_OK;
    }
}

/* ---- Pairs ---- */

static unsigned char *pair(const choice *c, uint32_t p, uint32_t i, uint32_t q, uint32_t j) {
    return &c->covered[c->offset[p][q] + i * c->declared.params[q].n_values + j];
}

static uint32_t count_new(const choice *c, const row *r) {
    uint32_t n = 0;
    for (uint32_t p = 0; p < c->declared.n; p++) {
        for (uint32_t q = p + 1; q < c->declared.n; q++) n += !*pair(c, p, r->at[p], q, r->at[q]);
    }
    return n;
}

static void cover(const choice *c, const row *r) {
    for (uint32_t p = 0; p < c->declared.n; p++) {
        for (uint32_t q = p + 1; q < c->declared.n; q++) *pair(c, p, r->at[p], q, r->at[q]) = 1;
    }
}

/* Of a few random rows with that pair, the one with the most new pairs. */
static row choose(choice *c, uint32_t p, uint32_t i, uint32_t q, uint32_t j) {
    row best = {{0}};
    uint32_t most = 0;
    for (int k = 0; k < CANDIDATES; k++) {
        row r;
        for (uint32_t x = 0; x < c->declared.n; x++) {
            r.at[x] = random_below(c, c->declared.params[x].n_values);
        }
        r.at[p] = i;
        r.at[q] = j;
        const uint32_t n = count_new(c, &r);
        if (k > 0 && n <= most) continue;
        most = n;
        best = r;
    }
    return best;
}

/* A pair that no attempt finds a variant for is one that the shader refuses. */
static dibit_status make_pair(choice *c, uint32_t p, uint32_t i, uint32_t q, uint32_t j) {
    for (int k = 0; k < ATTEMPTS && !*pair(c, p, i, q, j); k++) {
        const row r = choose(c, p, i, q, j);
        const dibit_status status = make(c, &r);
        if (status == DIBIT_OK)
            cover(c, &r);
        else if (status != DIBIT_UNSUPPORTED)
            return status;
    }
    return DIBIT_OK;
}

static dibit_status make_pairs(choice *c) {
    size_t n = 0;
    for (uint32_t p = 0; p < c->declared.n; p++) {
        for (uint32_t q = p + 1; q < c->declared.n; q++) {
            c->offset[p][q] = n;
            n += (size_t)c->declared.params[p].n_values * c->declared.params[q].n_values;
        }
    }
    c->covered = dbt_arena_alloc(c->arena, n);
    if (!c->covered) return dbt_fail_memory(c->error, "pairs", n);
    for (uint32_t p = 0; p < c->declared.n; p++) {
        for (uint32_t q = p + 1; q < c->declared.n; q++) {
            for (uint32_t i = 0; i < c->declared.params[p].n_values; i++) {
                for (uint32_t j = 0; j < c->declared.params[q].n_values; j++)
                    DBT_TRY(make_pair(c, p, i, q, j));
            }
        }
    }
    return DIBIT_OK;
}

/* Rows that have every value. */
static dibit_status make_values(choice *c) {
    enum { MAX_VALUES = 64 };
    bool seen[MAX_PARAMS][MAX_VALUES] = {{false}};
    for (uint32_t p = 0; p < c->declared.n; p++) {
        for (uint32_t i = 0; i < c->declared.params[p].n_values; i++) {
            for (int k = 0; k < ATTEMPTS && !seen[p][i]; k++) {
                row r;
                for (uint32_t q = 0; q < c->declared.n; q++)
                    r.at[q] = random_below(c, c->declared.params[q].n_values);
                r.at[p] = i;
                const dibit_status status = make(c, &r);
                if (status != DIBIT_OK && status != DIBIT_UNSUPPORTED) return status;
                for (uint32_t q = 0; status == DIBIT_OK && q < c->declared.n; q++)
                    seen[q][r.at[q]] = true;
            }
        }
    }
    return DIBIT_OK;
}

/* Rows at random, the same ones twice perhaps. */
static dibit_status make_some(choice *c, uint32_t n) {
    for (uint32_t k = 0; k < n; k++) {
        row r;
        for (uint32_t p = 0; p < c->declared.n; p++)
            r.at[p] = random_below(c, c->declared.params[p].n_values);
        const dibit_status status = make(c, &r);
        if (status != DIBIT_OK && status != DIBIT_UNSUPPORTED) return status;
    }
    return DIBIT_OK;
}

/* ---- Files ---- */

static dibit_status make_file(const shader_variants *v, const char *file, uint32_t features,
                              dbt_arena *arena, dibit_error *error) {
    choice c = {.v = v,
                .file = file,
                .features = features,
                .arena = arena,
                .seed = 0x9e3779b97f4a7c15u,
                .error = error};
    DBT_TRY(dbt_shader_declare(&dbt_shaders, file, arena, &c.declared, error));
    c.trace = features == v->features;
    if (c.trace) DBT_TRY(make_values(&c));
    c.trace = false;
    uint64_t product = 1;
    for (uint32_t p = 0; p < c.declared.n && product < UINT32_MAX; p++)
        product *= c.declared.params[p].n_values;
    if (product <= (v->more ? LARGE_PRODUCT : SMALL_PRODUCT)) return make_product(&c);
    DBT_TRY(make_pairs(&c));
    return v->more ? make_some(&c, LARGE_PRODUCT) : DIBIT_OK;
}

dibit_status shader_variants_make(const shader_variants *v, const char *file, dibit_error *error) {
    const uint32_t optional = v->features & (DBT_HAL_F16 | DBT_HAL_SUBGROUPS | DBT_HAL_DOT4);
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    dibit_status status = make_file(v, file, v->features, &arena, error);
    if (status == DIBIT_OK && optional)
        status = make_file(v, file, v->features & ~optional, &arena, error);
    dbt_arena_free(&arena);
    return status;
}

bool shader_is_fragment(const char *file) {
    const char *const dot = strchr(file, '.');
    return dot && strcmp(dot, ".inc.wgsl") == 0;
}

void shader_variant_text(const dbt_shader_variant *variant, char *text, size_t size) {
    size_t n = (size_t)snprintf(text, size, "%s", variant->file);
    for (uint32_t i = 0; i < variant->n_params && n < size; i++) {
        n += (size_t)snprintf(text + n, size - n, " %s=%ld", variant->params[i].name,
                              (long)variant->params[i].value);
    }
    static const struct {
        uint32_t feature;
        const char *name;
    } features[] = {{DBT_HAL_F16, "F16"}, {DBT_HAL_SUBGROUPS, "SUBGROUPS"}, {DBT_HAL_DOT4, "DOT4"}};
    for (size_t i = 0; i < 3 && n < size; i++) {
        if (variant->features & features[i].feature)
            n += (size_t)snprintf(text + n, size - n, " %s", features[i].name);
    }
}

/* Behind a comment that begins here. */
static const char *skip_comment(const char *s) {
    const bool line = s[1] == '/';
    const char *const end = strstr(s + 2, line ? "\n" : "*/");
    return end ? end + (line ? 1 : 2) : s + strlen(s);
}

void shader_scan_bindings(const char *wgsl, dbt_hal_pipeline_desc *desc) {
    for (const char *s = wgsl; *s;) {
        if (s[0] == '/' && (s[1] == '/' || s[1] == '*')) {
            s = skip_comment(s);
            continue;
        }
        char kind[64] = "";
        unsigned binding;
        if (sscanf(s++, "@binding(%u) var<%63[^>]>", &binding, kind) != 2) continue;
        if (strcmp(kind, "uniform") == 0) {
            desc->uniform_bytes = DBT_HAL_MAX_UNIFORM_BYTES;
        } else if (binding > 0 && binding <= DBT_HAL_MAX_BINDINGS) {
            desc->bindings |= 1u << (binding - 1);
            if (strstr(kind, "read_write")) desc->written |= 1u << (binding - 1);
        }
    }
}

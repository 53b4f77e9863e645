/* Expands shaders. Two walks over a file and what it includes: the first gathers the parameters that
 * they declare, whatever the conditions around them; the second evaluates conditions and writes text.
 * gpu.c calls it for every pipeline, tests for every variant. */
#include "gpu/shader.h"

#include <string.h>

#include "gpu/hal.h"

enum { MAX_DEPTH = 8, MAX_NESTING = 16, MAX_PARAMS = 32, MAX_VALUES = 64, MAX_FILES = 64 };

typedef struct text {
    char *data;
    size_t n, capacity;
} text;

/* An open #if. */
typedef struct branch {
    bool outer;  /* what is around it is active */
    bool active; /* this branch is */
    bool taken;  /* one of its branches was */
    bool in_else;
    uint32_t line;
} branch;

/* A parameter, and where it is declared. */
typedef struct declared {
    dbt_shader_declared base;
    const dbt_shader_file *file;
    uint32_t line;
} declared;

typedef struct expander {
    const dbt_shader_library *library;
    const dbt_shader_variant *variant; /* NULL: parameters are gathered, and nothing is written */
    dbt_arena *arena;
    dibit_error *error;
    declared declared[MAX_PARAMS];
    uint32_t n_declared;
    const dbt_shader_file *seen[MAX_FILES]; /* in this walk */
    uint32_t n_seen;
    text head, body;
} expander;

/* A place in a file: a line, and what is left of it. */
typedef struct cursor {
    const dbt_shader_file *file;
    uint32_t line;
    const char *at, *end;
} cursor;

static dibit_status fail_at(const expander *x, const cursor *c, const char *what, const char *name,
                            size_t name_bytes) {
    return dbt_fail(x->error, DIBIT_BAD_ARGUMENT, "%s:%u: %s%s%.*s%s", c->file->name,
                    (unsigned)c->line, what, name_bytes ? " '" : "", (int)name_bytes, name,
                    name_bytes ? "'" : "");
}

/* ---- Words of a line ---- */

static bool is_space(char ch) { return ch == ' ' || ch == '\t' || ch == '\r'; }
static bool is_digit(char ch) { return ch >= '0' && ch <= '9'; }
static bool is_letter(char ch) {
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_';
}

static void skip_spaces(cursor *c) {
    while (c->at < c->end && is_space(*c->at)) c->at++;
}

/* Nothing is left but perhaps a comment. */
static bool at_end(cursor *c) {
    skip_spaces(c);
    return c->at == c->end || (c->end - c->at >= 2 && c->at[0] == '/' && c->at[1] == '/');
}

static bool take(cursor *c, const char *sign) {
    skip_spaces(c);
    const size_t n = strlen(sign);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, sign, n) != 0) return false;
    c->at += n;
    return true;
}

static bool take_name(cursor *c, const char **name, size_t *n) {
    skip_spaces(c);
    *name = c->at;
    if (c->at == c->end || !is_letter(*c->at)) return false;
    while (c->at < c->end && (is_letter(*c->at) || is_digit(*c->at))) c->at++;
    *n = (size_t)(c->at - *name);
    return true;
}

static bool take_number(cursor *c, int32_t *value) {
    skip_spaces(c);
    const bool negative = take(c, "-");
    if (c->at == c->end || !is_digit(*c->at)) return false;
    int64_t v = 0;
    for (; c->at < c->end && is_digit(*c->at); c->at++) {
        v = v * 10 + (*c->at - '0');
        if (v > INT32_MAX) return false;
    }
    *value = (int32_t)(negative ? -v : v);
    return true;
}

static bool is_name(const char *name, const char *s, size_t n) {
    return strlen(name) == n && memcmp(name, s, n) == 0;
}

/* ---- Files and parameters ---- */

static const dbt_shader_file *find_file(const dbt_shader_library *library, const char *name,
                                        size_t n) {
    size_t begin = 0, end = library->n;
    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;
        const dbt_shader_file *const file = &library->files[middle];
        int order = strncmp(file->name, name, n);
        if (order == 0 && file->name[n] != '\0') order = 1;
        if (order == 0) return file;
        if (order < 0)
            begin = middle + 1;
        else
            end = middle;
    }
    return NULL;
}

static bool is_declared(const expander *x, const char *name, size_t n) {
    for (uint32_t i = 0; i < x->n_declared; i++) {
        if (is_name(x->declared[i].base.name, name, n)) return true;
    }
    return false;
}

static const dbt_shader_param *find_given(const expander *x, const char *name, size_t n) {
    for (uint32_t i = 0; i < x->variant->n_params; i++) {
        if (is_name(x->variant->params[i].name, name, n)) return &x->variant->params[i];
    }
    return NULL;
}

static const struct {
    const char *name;
    uint32_t feature;
} features[] = {{"NAGA", DBT_HAL_NAGA},
                {"F16", DBT_HAL_F16},
                {"SUBGROUPS", DBT_HAL_SUBGROUPS},
                {"DOT4", DBT_HAL_DOT4}};
enum { N_FEATURES = sizeof features / sizeof *features };
static const char trace[] = "TRACE";

/* The value of a name in a condition; false when there is no such name. */
static bool find_value(const expander *x, const char *name, size_t n, int32_t *value) {
    for (int i = 0; i < N_FEATURES; i++) {
        if (!is_name(features[i].name, name, n)) continue;
        *value = (x->variant->features & features[i].feature) != 0;
        return true;
    }
    const bool is_trace = is_name(trace, name, n);
    if (!is_trace && !is_declared(x, name, n)) return false;
    const dbt_shader_param *const given = find_given(x, name, n);
    *value = given ? given->value : 0;
    return is_trace || given;
}

static bool is_reserved(const char *name, size_t n) {
    for (int i = 0; i < N_FEATURES; i++) {
        if (is_name(features[i].name, name, n)) return true;
    }
    return is_name(trace, name, n);
}

/* ---- Writing ---- */

static dibit_status append(expander *x, text *t, const char *s, size_t n) {
    if (t->capacity - t->n < n + 1) {
        const size_t capacity = (t->capacity + n + 1) * 2;
        char *const data = dbt_arena_alloc(x->arena, capacity);
        if (!data) return dbt_fail_memory(x->error, "a shader", capacity);
        if (t->n) memcpy(data, t->data, t->n);
        t->data = data;
        t->capacity = capacity;
    }
    memcpy(t->data + t->n, s, n);
    t->n += n;
    t->data[t->n] = '\0';
    return DIBIT_OK;
}

static dibit_status append_format(expander *x, const char *format, const char *name, long value) {
    char *const line = dbt_arena_format(x->arena, format, name, value);
    if (!line) return dbt_fail_memory(x->error, "a shader", 0);
    return append(x, &x->body, line, strlen(line));
}

static dibit_status write_place(expander *x, const char *file, uint32_t line) {
    return append_format(x, "// %s:%ld\n", file, (long)line);
}

/* WGSL wants these before all declarations, and a #param line is one. */
static bool is_global_directive(cursor c) {
    const char *name;
    size_t n;
    return take_name(&c, &name, &n) &&
           (is_name("enable", name, n) || is_name("requires", name, n) ||
            is_name("diagnostic", name, n));
}

static dibit_status write_line(expander *x, const cursor *c) {
    text *const to = is_global_directive(*c) ? &x->head : &x->body;
    DBT_TRY(append(x, to, c->at, (size_t)(c->end - c->at)));
    DBT_TRY(append(x, to, "\n", 1));
    return to == &x->head ? append(x, &x->body, "\n", 1) : DIBIT_OK;
}

/* ---- Conditions ---- */

/* NAME op n, or defined NAME. Names are looked up only where `needed`: what a fragment asks about
 * another shader's parameters is then never reached. */
static dibit_status term(const expander *x, cursor *c, bool needed, bool *truth) {
    const char *name;
    size_t n;
    if (!take_name(c, &name, &n)) return fail_at(x, c, "a condition begins with a name", "", 0);
    *truth = false;
    if (is_name("defined", name, n)) {
        if (!take_name(c, &name, &n)) return fail_at(x, c, "what is to be defined?", "", 0);
        *truth = is_reserved(name, n) || is_declared(x, name, n);
        return DIBIT_OK;
    }
    static const char *const signs[] = {"==", "!=", "<=", ">=", "<", ">"};
    int sign = 0;
    while (sign < 6 && !take(c, signs[sign])) sign++;
    int32_t left, right;
    if (sign == 6 || !take_number(c, &right))
        return fail_at(x, c, "a condition is NAME == number, with == != < <= > or >=", "", 0);
    if (!needed) return DIBIT_OK;
    if (!find_value(x, name, n, &left)) return fail_at(x, c, "unknown name", name, n);
    const bool truths[] = {left == right, left != right, left <= right, left >= right,
                           left<right, left> right};
    *truth = truths[sign];
    return DIBIT_OK;
}

static dibit_status condition(const expander *x, cursor *c, bool needed, bool *truth) {
    bool any = false, all = true;
    for (;;) {
        bool one = false;
        DBT_TRY(term(x, c, needed && !any && all, &one));
        all = all && one;
        if (take(c, "&&")) continue;
        any = any || all;
        all = true;
        if (!take(c, "||")) break;
    }
    *truth = any;
    return at_end(c) ? DIBIT_OK
                     : fail_at(x, c, "this does not belong to the condition", c->at,
                               (size_t)(c->end - c->at));
}

/* ---- Directives ---- */

static dibit_status param_values(expander *x, cursor *c, dbt_shader_declared *p) {
    int32_t values[MAX_VALUES];
    while (!at_end(c)) {
        int32_t low, high;
        if (!take_number(c, &low)) return fail_at(x, c, "values are numbers, or LOW..HIGH", "", 0);
        high = low;
        if (take(c, "..") && !take_number(c, &high))
            return fail_at(x, c, "values are numbers, or LOW..HIGH", "", 0);
        if (high < low) return fail_at(x, c, "a range goes from LOW to HIGH", "", 0);
        for (int64_t v = low; v <= high; v++) {
            if (p->n_values == MAX_VALUES) return fail_at(x, c, "too many values", "", 0);
            values[p->n_values++] = (int32_t)v;
        }
    }
    if (p->n_values == 0) return fail_at(x, c, "a parameter has values", "", 0);
    int32_t *const kept = dbt_arena_array(x->arena, p->n_values, sizeof *kept);
    if (!kept) return dbt_fail_memory(x->error, "a shader", p->n_values);
    memcpy(kept, values, p->n_values * sizeof *kept);
    p->values = kept;
    return DIBIT_OK;
}

static dibit_status declare(expander *x, cursor *c, const char *name, size_t n) {
    if (is_reserved(name, n)) return fail_at(x, c, "this name is taken:", name, n);
    if (is_declared(x, name, n)) return fail_at(x, c, "declared twice:", name, n);
    if (x->n_declared == MAX_PARAMS) return fail_at(x, c, "too many parameters", "", 0);
    declared d = {.file = c->file, .line = c->line};
    d.base.name = dbt_arena_string(x->arena, name, n);
    if (!d.base.name) return dbt_fail_memory(x->error, "a shader", n);
    DBT_TRY(param_values(x, c, &d.base));
    x->declared[x->n_declared++] = d;
    return DIBIT_OK;
}

static dibit_status on_param(expander *x, cursor *c, bool active) {
    const char *name;
    size_t n;
    if (!take_name(c, &name, &n)) return fail_at(x, c, "#param NAME values...", "", 0);
    if (!x->variant) return declare(x, c, name, n);
    if (!active) return append(x, &x->body, "\n", 1);
    const dbt_shader_param *const given = find_given(x, name, n);
    return append_format(x, "const %s = %ld;\n", given->name, (long)given->value);
}

static dibit_status walk(expander *x, const dbt_shader_file *file, uint32_t depth);

static dibit_status on_include(expander *x, cursor *c, uint32_t depth) {
    if (!take(c, "\"")) return fail_at(x, c, "#include \"file\"", "", 0);
    const char *const name = c->at;
    while (c->at < c->end && *c->at != '"') c->at++;
    const size_t n = (size_t)(c->at - name);
    if (!take(c, "\"") || !at_end(c)) return fail_at(x, c, "#include \"file\"", "", 0);
    const dbt_shader_file *const file = find_file(x->library, name, n);
    if (!file) return fail_at(x, c, "there is no file", name, n);
    for (uint32_t i = 0; i < x->n_seen; i++) {
        if (x->seen[i] == file) return x->variant ? append(x, &x->body, "\n", 1) : DIBIT_OK;
    }
    if (depth == MAX_DEPTH) return fail_at(x, c, "includes are nested too deeply", "", 0);
    if (x->variant) DBT_TRY(write_place(x, file->name, 1));
    DBT_TRY(walk(x, file, depth + 1));
    return x->variant ? write_place(x, c->file->name, c->line + 1) : DIBIT_OK;
}

static dibit_status on_branch(expander *x, cursor *c, const char *word, size_t n, branch *stack,
                              uint32_t *depth) {
    branch *const top = *depth ? &stack[*depth - 1] : NULL;
    const bool outer = top ? top->active : true;
    if (is_name("if", word, n)) {
        if (*depth == MAX_NESTING) return fail_at(x, c, "#if is nested too deeply", "", 0);
        branch b = {.outer = outer, .line = c->line};
        DBT_TRY(condition(x, c, x->variant && outer, &b.active));
        b.taken = b.active = b.active && outer;
        stack[(*depth)++] = b;
        return DIBIT_OK;
    }
    if (!top) return fail_at(x, c, "there is no #if for", word, n);
    if (is_name("endif", word, n)) {
        --*depth;
    } else if (top->in_else) {
        return fail_at(x, c, "after #else comes #endif, not", word, n);
    } else if (is_name("else", word, n)) {
        top->in_else = true;
        top->active = top->outer && !top->taken;
    } else {
        bool truth;
        DBT_TRY(condition(x, c, x->variant && top->outer && !top->taken, &truth));
        top->active = top->outer && !top->taken && truth;
        top->taken = top->taken || top->active;
        return DIBIT_OK;
    }
    return at_end(c) ? DIBIT_OK : fail_at(x, c, "nothing comes after", word, n);
}

static bool is_branch_word(const char *word, size_t n) {
    return is_name("if", word, n) || is_name("elif", word, n) || is_name("else", word, n) ||
           is_name("endif", word, n);
}

/* A line that begins with '#', which the cursor is behind. While gathering, everything is active. */
static dibit_status on_directive(expander *x, cursor *c, uint32_t file_depth, branch *stack,
                                 uint32_t *nesting) {
    const char *word;
    size_t n;
    if (!take_name(c, &word, &n)) return fail_at(x, c, "'#' is followed by a word", "", 0);
    const bool active = !x->variant || *nesting == 0 || stack[*nesting - 1].active;
    if (is_name("param", word, n)) return on_param(x, c, active);
    if (is_name("include", word, n) && active) return on_include(x, c, file_depth);
    if (is_branch_word(word, n)) {
        DBT_TRY(on_branch(x, c, word, n, stack, nesting));
    } else if (is_name("error", word, n)) {
        skip_spaces(c);
        DBT_FAIL_IF(x->variant && active, x->error, DIBIT_UNSUPPORTED, "%s:%u: %.*s", c->file->name,
                    (unsigned)c->line, (int)(c->end - c->at), c->at);
    } else if (!is_name("include", word, n)) {
        return fail_at(x, c, "unknown directive", word, n);
    }
    return x->variant ? append(x, &x->body, "\n", 1) : DIBIT_OK;
}

static dibit_status walk(expander *x, const dbt_shader_file *file, uint32_t depth) {
    cursor c = {.file = file};
    if (x->n_seen == MAX_FILES) return fail_at(x, &c, "too many includes", "", 0);
    x->seen[x->n_seen++] = file;
    branch stack[MAX_NESTING];
    uint32_t nesting = 0;
    const char *const end = file->text + file->bytes;
    for (const char *next = file->text; next < end;) {
        const char *const newline = memchr(next, '\n', (size_t)(end - next));
        c.at = next;
        c.end = newline ? newline : end;
        c.line++;
        next = newline ? newline + 1 : end;
        cursor directive = c;
        if (take(&directive, "#")) {
            DBT_TRY(on_directive(x, &directive, depth, stack, &nesting));
        } else if (x->variant) {
            const bool active = nesting == 0 || stack[nesting - 1].active;
            DBT_TRY(active ? write_line(x, &c) : append(x, &x->body, "\n", 1));
        }
    }
    if (nesting > 0) {
        c.line = stack[nesting - 1].line;
        return fail_at(x, &c, "this #if has no #endif", "", 0);
    }
    return DIBIT_OK;
}

/* ---- The two walks ---- */

static dibit_status gather(expander *x, const char *name, const dbt_shader_file **file) {
    *file = find_file(x->library, name, strlen(name));
    DBT_FAIL_IF(!*file, x->error, DIBIT_BAD_ARGUMENT, "there is no shader '%s'", name);
    return walk(x, *file, 0);
}

dibit_status dbt_shader_declare(const dbt_shader_library *library, const char *file,
                                dbt_arena *arena, dbt_shader_declarations *out,
                                dibit_error *error) {
    expander x = {.library = library, .arena = arena, .error = error};
    const dbt_shader_file *root;
    DBT_TRY(gather(&x, file, &root));
    dbt_shader_declared *const params = dbt_arena_array(arena, x.n_declared, sizeof *params);
    if (!params) return dbt_fail_memory(error, "a shader", x.n_declared);
    for (uint32_t i = 0; i < x.n_declared; i++) params[i] = x.declared[i].base;
    *out = (dbt_shader_declarations){params, x.n_declared};
    return DIBIT_OK;
}

/* Every declared parameter has one value, which is listed. */
static dibit_status check_values(const expander *x) {
    for (uint32_t i = 0; i < x->n_declared; i++) {
        const declared *const d = &x->declared[i];
        const cursor place = {.file = d->file, .line = d->line};
        const size_t n = strlen(d->base.name);
        const dbt_shader_param *const given = find_given(x, d->base.name, n);
        if (!given) return fail_at(x, &place, "there is no value for", d->base.name, n);
        uint32_t k = 0;
        while (k < d->base.n_values && d->base.values[k] != given->value) k++;
        DBT_FAIL_IF(k == d->base.n_values, x->error, DIBIT_BAD_ARGUMENT, "%s:%u: %s cannot be %ld",
                    d->file->name, (unsigned)d->line, d->base.name, (long)given->value);
    }
    return DIBIT_OK;
}

static dibit_status check_names(const expander *x) {
    const dbt_shader_variant *const v = x->variant;
    for (uint32_t i = 0; i < v->n_params; i++) {
        const char *const name = v->params[i].name;
        const size_t n = strlen(name);
        DBT_FAIL_IF(!is_name(trace, name, n) && !is_declared(x, name, n), x->error,
                    DIBIT_BAD_ARGUMENT, "%s has no parameter '%s'", v->file, name);
        DBT_FAIL_IF(find_given(x, name, n) != &v->params[i], x->error, DIBIT_BAD_ARGUMENT,
                    "%s: '%s' is given twice", v->file, name);
    }
    return DIBIT_OK;
}

dibit_status dbt_shader_expand(const dbt_shader_library *library, const dbt_shader_variant *variant,
                               dbt_arena *arena, dbt_shader_text *out, dibit_error *error) {
    expander x = {.library = library, .arena = arena, .error = error};
    const dbt_shader_file *root;
    DBT_TRY(gather(&x, variant->file, &root));
    x.variant = variant;
    x.n_seen = 0;
    DBT_TRY(check_names(&x));
    DBT_TRY(check_values(&x));
    DBT_TRY(write_place(&x, root->name, 1));
    DBT_TRY(walk(&x, root, 0));
    DBT_TRY(append(&x, &x.head, x.body.data, x.body.n));
    *out = (dbt_shader_text){x.head.data, x.head.n};
    return DIBIT_OK;
}

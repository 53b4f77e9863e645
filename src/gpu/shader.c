/* Expands shaders. Two walks over a file and what it includes: the first gathers the parameters that
 * they declare, whatever the conditions around them; the second evaluates conditions and writes text.
 * gpu.c calls it for every pipeline, tests for every variant. */
#include "gpu/shader.h"

#include <string.h>

#include "gpu/hal.h"
#include "gpu/shader_line.h"

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
    dbt_line line;
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

static dibit_status fail_at(const expander *x, const dbt_line *line, const char *what) {
    return dbt_line_fail(line, x->error, what, (dbt_word){0});
}
static dibit_status fail_word(const expander *x, const dbt_line *line, const char *what,
                              dbt_word word) {
    return dbt_line_fail(line, x->error, what, word);
}

static dbt_word word_of(const char *name) { return (dbt_word){name, strlen(name)}; }

/* ---- Files and parameters ---- */

static const dbt_shader_file *find_file(const dbt_shader_library *library, dbt_word name) {
    size_t begin = 0, end = library->n;
    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;
        const dbt_shader_file *const file = &library->files[middle];
        int order = strncmp(file->name, name.s, name.n);
        if (order == 0 && file->name[name.n] != '\0') order = 1;
        if (order == 0) return file;
        if (order < 0)
            begin = middle + 1;
        else
            end = middle;
    }
    return NULL;
}

static bool is_declared(const expander *x, dbt_word name) {
    for (uint32_t i = 0; i < x->n_declared; i++) {
        if (dbt_word_is(name, x->declared[i].base.name)) return true;
    }
    return false;
}

static const dbt_shader_param *find_given(const expander *x, dbt_word name) {
    for (uint32_t i = 0; i < x->variant->n_params; i++) {
        if (dbt_word_is(name, x->variant->params[i].name)) return &x->variant->params[i];
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
static bool find_value(const expander *x, dbt_word name, int32_t *value) {
    for (int i = 0; i < N_FEATURES; i++) {
        if (!dbt_word_is(name, features[i].name)) continue;
        *value = (x->variant->features & features[i].feature) != 0;
        return true;
    }
    const bool is_trace = dbt_word_is(name, trace);
    if (!is_trace && !is_declared(x, name)) return false;
    const dbt_shader_param *const given = find_given(x, name);
    *value = given ? given->value : 0;
    return is_trace || given;
}

static bool is_reserved(dbt_word name) {
    for (int i = 0; i < N_FEATURES; i++) {
        if (dbt_word_is(name, features[i].name)) return true;
    }
    return dbt_word_is(name, trace);
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
static bool is_global_directive(dbt_line line) {
    dbt_word name;
    return dbt_line_take_name(&line, &name) &&
           (dbt_word_is(name, "enable") || dbt_word_is(name, "requires") ||
            dbt_word_is(name, "diagnostic"));
}

static dibit_status write_line(expander *x, const dbt_line *line) {
    text *const to = is_global_directive(*line) ? &x->head : &x->body;
    DBT_TRY(append(x, to, line->at, (size_t)(line->end - line->at)));
    DBT_TRY(append(x, to, "\n", 1));
    return to == &x->head ? append(x, &x->body, "\n", 1) : DIBIT_OK;
}

/* ---- Conditions ---- */

/* NAME op n, or defined NAME. Names are looked up only where `needed`: what a fragment asks about
 * another shader's parameters is then never reached. */
static dibit_status term(const expander *x, dbt_line *line, bool needed, bool *truth) {
    dbt_word name;
    if (!dbt_line_take_name(line, &name)) return fail_at(x, line, "a condition begins with a name");
    *truth = false;
    if (dbt_word_is(name, "defined")) {
        if (!dbt_line_take_name(line, &name)) return fail_at(x, line, "what is to be defined?");
        *truth = is_reserved(name) || is_declared(x, name);
        return DIBIT_OK;
    }
    static const char *const signs[] = {"==", "!=", "<=", ">=", "<", ">"};
    int sign = 0;
    while (sign < 6 && !dbt_line_take(line, signs[sign])) sign++;
    int32_t left, right;
    if (sign == 6 || !dbt_line_take_number(line, &right))
        return fail_at(x, line, "a condition is NAME == number, with == != < <= > or >=");
    if (!needed) return DIBIT_OK;
    if (!find_value(x, name, &left)) return fail_word(x, line, "unknown name", name);
    const bool truths[] = {left == right, left != right, left <= right, left >= right,
                           left<right, left> right};
    *truth = truths[sign];
    return DIBIT_OK;
}

static dibit_status condition(const expander *x, dbt_line *line, bool needed, bool *truth) {
    bool any = false, all = true;
    for (;;) {
        bool one = false;
        DBT_TRY(term(x, line, needed && !any && all, &one));
        all = all && one;
        if (dbt_line_take(line, "&&")) continue;
        any = any || all;
        all = true;
        if (!dbt_line_take(line, "||")) break;
    }
    *truth = any;
    return dbt_line_at_end(line) ? DIBIT_OK
                                 : fail_word(x, line, "this does not belong to the condition",
                                             (dbt_word){line->at, (size_t)(line->end - line->at)});
}

/* ---- Directives ---- */

static dibit_status param_values(expander *x, dbt_line *line, dbt_shader_declared *p) {
    int32_t values[MAX_VALUES];
    while (!dbt_line_at_end(line)) {
        int32_t low, high;
        if (!dbt_line_take_number(line, &low))
            return fail_at(x, line, "values are numbers, or LOW..HIGH");
        high = low;
        if (dbt_line_take(line, "..") && !dbt_line_take_number(line, &high))
            return fail_at(x, line, "values are numbers, or LOW..HIGH");
        if (high < low) return fail_at(x, line, "a range goes from LOW to HIGH");
        for (int64_t v = low; v <= high; v++) {
            if (p->n_values == MAX_VALUES) return fail_at(x, line, "too many values");
            values[p->n_values++] = (int32_t)v;
        }
    }
    if (p->n_values == 0) return fail_at(x, line, "a parameter has values");
    int32_t *const kept = dbt_arena_array(x->arena, p->n_values, sizeof *kept);
    if (!kept) return dbt_fail_memory(x->error, "a shader", p->n_values);
    memcpy(kept, values, p->n_values * sizeof *kept);
    p->values = kept;
    return DIBIT_OK;
}

static dibit_status declare(expander *x, dbt_line *line, dbt_word name) {
    if (is_reserved(name)) return fail_word(x, line, "this name is taken:", name);
    if (is_declared(x, name)) return fail_word(x, line, "declared twice:", name);
    if (x->n_declared == MAX_PARAMS) return fail_at(x, line, "too many parameters");
    declared d = {.line = *line};
    d.base.name = dbt_arena_string(x->arena, name.s, name.n);
    if (!d.base.name) return dbt_fail_memory(x->error, "a shader", name.n);
    DBT_TRY(param_values(x, line, &d.base));
    x->declared[x->n_declared++] = d;
    return DIBIT_OK;
}

static dibit_status on_param(expander *x, dbt_line *line, bool active) {
    dbt_word name;
    if (!dbt_line_take_name(line, &name)) return fail_at(x, line, "#param NAME values...");
    if (!x->variant) return declare(x, line, name);
    if (!active) return append(x, &x->body, "\n", 1);
    const dbt_shader_param *const given = find_given(x, name);
    return append_format(x, "const %s = %ld;\n", given->name, (long)given->value);
}

static dibit_status walk(expander *x, const dbt_shader_file *file, uint32_t depth);

static dibit_status on_include(expander *x, dbt_line *line, uint32_t depth) {
    dbt_word name;
    if (!dbt_line_take_quoted(line, &name) || !dbt_line_at_end(line))
        return fail_at(x, line, "#include \"file\"");
    const dbt_shader_file *const file = find_file(x->library, name);
    if (!file) return fail_word(x, line, "there is no file", name);
    for (uint32_t i = 0; i < x->n_seen; i++) {
        if (x->seen[i] == file) return x->variant ? append(x, &x->body, "\n", 1) : DIBIT_OK;
    }
    if (depth == MAX_DEPTH) return fail_at(x, line, "includes are nested too deeply");
    if (x->variant) DBT_TRY(write_place(x, file->name, 1));
    DBT_TRY(walk(x, file, depth + 1));
    return x->variant ? write_place(x, line->file, line->number + 1) : DIBIT_OK;
}

static dibit_status on_branch(expander *x, dbt_line *line, dbt_word word, branch *stack,
                              uint32_t *depth) {
    branch *const top = *depth ? &stack[*depth - 1] : NULL;
    const bool outer = top ? top->active : true;
    if (dbt_word_is(word, "if")) {
        if (*depth == MAX_NESTING) return fail_at(x, line, "#if is nested too deeply");
        branch b = {.outer = outer, .line = line->number};
        DBT_TRY(condition(x, line, x->variant && outer, &b.active));
        b.taken = b.active = b.active && outer;
        stack[(*depth)++] = b;
        return DIBIT_OK;
    }
    if (!top) return fail_word(x, line, "there is no #if for", word);
    if (dbt_word_is(word, "endif")) {
        --*depth;
    } else if (top->in_else) {
        return fail_word(x, line, "after #else comes #endif, not", word);
    } else if (dbt_word_is(word, "else")) {
        top->in_else = true;
        top->active = top->outer && !top->taken;
    } else {
        bool truth;
        DBT_TRY(condition(x, line, x->variant && top->outer && !top->taken, &truth));
        top->active = top->outer && !top->taken && truth;
        top->taken = top->taken || top->active;
        return DIBIT_OK;
    }
    return dbt_line_at_end(line) ? DIBIT_OK : fail_word(x, line, "nothing comes after", word);
}

static bool is_branch_word(dbt_word word) {
    return dbt_word_is(word, "if") || dbt_word_is(word, "elif") || dbt_word_is(word, "else") ||
           dbt_word_is(word, "endif");
}

/* A line that begins with '#', which the dbt_line is behind. While gathering, everything is active. */
static dibit_status on_directive(expander *x, dbt_line *line, uint32_t file_depth, branch *stack,
                                 uint32_t *nesting) {
    dbt_word word;
    if (!dbt_line_take_name(line, &word)) return fail_at(x, line, "'#' is followed by a word");
    const bool active = !x->variant || *nesting == 0 || stack[*nesting - 1].active;
    if (dbt_word_is(word, "param")) return on_param(x, line, active);
    if (dbt_word_is(word, "include") && active) return on_include(x, line, file_depth);
    if (is_branch_word(word)) {
        DBT_TRY(on_branch(x, line, word, stack, nesting));
    } else if (dbt_word_is(word, "error")) {
        if (dbt_line_at_end(line)) return fail_at(x, line, "#error sentence");
        DBT_FAIL_IF(x->variant && active, x->error, DIBIT_UNSUPPORTED, "%s:%u: %.*s", line->file,
                    (unsigned)line->number, (int)(line->end - line->at), line->at);
    } else if (!dbt_word_is(word, "include")) {
        return fail_word(x, line, "unknown directive", word);
    }
    return x->variant ? append(x, &x->body, "\n", 1) : DIBIT_OK;
}

static dibit_status walk(expander *x, const dbt_shader_file *file, uint32_t depth) {
    dbt_line line = {.file = file->name};
    if (x->n_seen == MAX_FILES) return fail_at(x, &line, "too many includes");
    x->seen[x->n_seen++] = file;
    branch stack[MAX_NESTING];
    uint32_t nesting = 0;
    const char *const end = file->text + file->bytes;
    for (const char *next = file->text; next < end;) {
        const char *const newline = memchr(next, '\n', (size_t)(end - next));
        line.at = next;
        line.end = newline ? newline : end;
        line.number++;
        next = newline ? newline + 1 : end;
        dbt_line directive = line;
        if (dbt_line_take(&directive, "#")) {
            DBT_TRY(on_directive(x, &directive, depth, stack, &nesting));
        } else if (x->variant) {
            const bool active = nesting == 0 || stack[nesting - 1].active;
            DBT_TRY(active ? write_line(x, &line) : append(x, &x->body, "\n", 1));
        }
    }
    if (nesting > 0) {
        line.number = stack[nesting - 1].line;
        return fail_at(x, &line, "this #if has no #endif");
    }
    return DIBIT_OK;
}

/* ---- The two walks ---- */

static dibit_status gather(expander *x, const char *name, const dbt_shader_file **file) {
    *file = find_file(x->library, word_of(name));
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
        const dbt_word name = word_of(d->base.name);
        const dbt_shader_param *const given = find_given(x, name);
        if (!given) return fail_word(x, &d->line, "there is no value for", name);
        uint32_t k = 0;
        while (k < d->base.n_values && d->base.values[k] != given->value) k++;
        DBT_FAIL_IF(k == d->base.n_values, x->error, DIBIT_BAD_ARGUMENT, "%s:%u: %s cannot be %ld",
                    d->line.file, (unsigned)d->line.number, d->base.name, (long)given->value);
    }
    return DIBIT_OK;
}

static dibit_status check_names(const expander *x) {
    const dbt_shader_variant *const v = x->variant;
    for (uint32_t i = 0; i < v->n_params; i++) {
        const dbt_word name = word_of(v->params[i].name);
        DBT_FAIL_IF(!dbt_word_is(name, trace) && !is_declared(x, name), x->error,
                    DIBIT_BAD_ARGUMENT, "%s has no parameter '%s'", v->file, name.s);
        DBT_FAIL_IF(find_given(x, name) != &v->params[i], x->error, DIBIT_BAD_ARGUMENT,
                    "%s: '%s' is given twice", v->file, name.s);
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

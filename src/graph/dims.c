/* Symbolic dims: the interned expressions, their normal form and their evaluation.
 *
 * A node of the table is a constant, a symbol, a function of other dims, a product of two or more
 * atoms, or a sum c0 + c1*t1 + ... of atoms with coefficients. Atoms are symbols, functions and
 * products. A sum never holds another sum, a product never another product; terms are sorted by
 * handle and a sum of one term with coefficient 1 and c0 = 0 is that term itself. So two equal
 * polynomials over the same atoms are the same node. Operands always have smaller handles than what
 * is made of them: evaluation is one pass. */
#include "graph/dims.h"

#include <stdio.h>
#include <string.h>

enum {
    MAX_DIMS = 1 << 20, /* a graph that needs more is hostile */
    MAX_TERMS = 32,     /* longer sums and products become opaque functions */
    MAX_TEXT_DEPTH = 16,
};

typedef enum dim_kind {
    KIND_CONST,
    KIND_SYMBOL,
    KIND_FUNCTION,
    KIND_SELECT,
    KIND_PRODUCT,
    KIND_SUM
} dim_kind;

typedef struct dim_node {
    uint8_t kind;
    uint8_t op;        /* FUNCTION: dbt_dim_op; SYMBOL: 1 when it is not one of the model's */
    bool fresh;        /* SYMBOL */
    bool non_negative; /* whatever the symbols are; follows from the rest */
    int32_t n;         /* PRODUCT, SUM: number of terms; FUNCTION 2, SELECT 3 */
    uint32_t hash;
    int64_t c0; /* CONST, SUM */
    const char *name;
    const dbt_dim *terms;
    const int64_t *coefficients; /* SUM */
} dim_node;

struct dbt_dims {
    dbt_arena *arena;
    dim_node *nodes;
    int32_t n_nodes, capacity;
    int32_t *table; /* open addressing: handle + 1, or 0 */
    uint32_t table_size;
    uint32_t n_fresh;
};

/* ---- Interning ---- */

static uint32_t hash_bytes(uint32_t hash, const void *data, size_t bytes) {
    const unsigned char *const p = data;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ p[i]) * 16777619u; /* FNV-1a */
    return hash;
}

static uint32_t hash_node(const dim_node *node) {
    uint32_t h = 2166136261u;
    const int32_t head[3] = {node->kind, node->op, node->n};
    h = hash_bytes(h, head, sizeof head);
    h = hash_bytes(h, &node->c0, sizeof node->c0);
    if (node->name) h = hash_bytes(h, node->name, strlen(node->name));
    if (node->n) h = hash_bytes(h, node->terms, (size_t)node->n * sizeof *node->terms);
    if (node->coefficients) {
        h = hash_bytes(h, node->coefficients, (size_t)node->n * sizeof *node->coefficients);
    }
    return h;
}

static bool same_node(const dim_node *a, const dim_node *b) {
    if (a->hash != b->hash || a->kind != b->kind || a->op != b->op || a->n != b->n ||
        a->c0 != b->c0 || !a->name != !b->name || (a->name && strcmp(a->name, b->name) != 0)) {
        return false;
    }
    const size_t n = (size_t)a->n;
    return (n == 0 || memcmp(a->terms, b->terms, n * sizeof *a->terms) == 0) &&
           (a->kind != KIND_SUM || n == 0 ||
            memcmp(a->coefficients, b->coefficients, n * sizeof *a->coefficients) == 0);
}

static bool grow(dbt_dims *dims) {
    const int32_t capacity = dims->capacity ? dims->capacity * 2 : 64;
    const uint32_t table_size = (uint32_t)capacity * 2;
    dim_node *const nodes = dbt_arena_array(dims->arena, (uint64_t)capacity, sizeof *nodes);
    int32_t *const table = dbt_arena_array(dims->arena, table_size, sizeof *table);
    if (!nodes || !table) return false;
    if (dims->n_nodes) memcpy(nodes, dims->nodes, (size_t)dims->n_nodes * sizeof *nodes);
    for (int32_t i = 0; i < dims->n_nodes; i++) {
        uint32_t at = nodes[i].hash & (table_size - 1);
        while (table[at]) at = (at + 1) & (table_size - 1);
        table[at] = i + 1;
    }
    dims->nodes = nodes;
    dims->capacity = capacity;
    dims->table = table;
    dims->table_size = table_size;
    return true;
}

/* Whether a node over operands that are known cannot be negative. */
static bool is_non_negative(const dbt_dims *dims, const dim_node *node) {
    bool all = true, any = false;
    for (int32_t i = 0; i < node->n; i++) {
        const bool term = dims->nodes[node->terms[i]].non_negative;
        all = all && term && (node->kind != KIND_SUM || node->coefficients[i] >= 0);
        any = any || term;
    }
    switch ((dim_kind)node->kind) {
    case KIND_CONST: return node->c0 >= 0;
    case KIND_SYMBOL: return node->non_negative;
    case KIND_SUM: return node->c0 >= 0 && all;
    case KIND_PRODUCT: return all;
    case KIND_SELECT:
        return dims->nodes[node->terms[1]].non_negative && dims->nodes[node->terms[2]].non_negative;
    case KIND_FUNCTION: break;
    }
    switch ((dbt_dim_op)node->op) {
    case DBT_DIM_SUB: return false;
    case DBT_DIM_MOD: return dims->nodes[node->terms[1]].non_negative;
    case DBT_DIM_MAX: return any;
    case DBT_DIM_EQUAL:
    case DBT_DIM_LESS:
    case DBT_DIM_LESS_EQUAL: return true;
    default: return all;
    }
}

/* The handle of an equal node, made when there is none; terms, coefficients and name are copied. */
static dbt_dim intern(dbt_dims *dims, dim_node node) {
    node.hash = hash_node(&node);
    uint32_t at = node.hash & (dims->table_size - 1);
    for (; dims->table[at]; at = (at + 1) & (dims->table_size - 1)) {
        if (same_node(&dims->nodes[dims->table[at] - 1], &node)) return dims->table[at] - 1;
    }
    if (dims->n_nodes >= MAX_DIMS) return DBT_DIM_NONE;
    if (dims->n_nodes == dims->capacity) {
        if (!grow(dims)) return DBT_DIM_NONE;
        at = node.hash & (dims->table_size - 1);
        while (dims->table[at]) at = (at + 1) & (dims->table_size - 1);
    }
    if (node.n > 0) {
        const size_t n = (size_t)node.n;
        dbt_dim *const terms = dbt_arena_array(dims->arena, n, sizeof *terms);
        if (!terms) return DBT_DIM_NONE;
        memcpy(terms, node.terms, n * sizeof *terms);
        node.terms = terms;
        if (node.coefficients) {
            int64_t *const c = dbt_arena_array(dims->arena, n, sizeof *c);
            if (!c) return DBT_DIM_NONE;
            memcpy(c, node.coefficients, n * sizeof *c);
            node.coefficients = c;
        }
    }
    if (node.name) {
        node.name = dbt_arena_string(dims->arena, node.name, strlen(node.name));
        if (!node.name) return DBT_DIM_NONE;
    }
    node.non_negative = is_non_negative(dims, &node);
    dims->nodes[dims->n_nodes] = node;
    dims->table[at] = ++dims->n_nodes;
    return dims->n_nodes - 1;
}

dbt_dims *dbt_dims_create(dbt_arena *arena) {
    dbt_dims *const dims = dbt_arena_alloc(arena, sizeof *dims);
    if (!dims) return NULL;
    dims->arena = arena;
    return grow(dims) ? dims : NULL;
}

dbt_dim dbt_dim_const(dbt_dims *dims, int64_t value) {
    return intern(dims, (dim_node){.kind = KIND_CONST, .c0 = value});
}

dbt_dim dbt_dim_symbol(dbt_dims *dims, const char *name) {
    return intern(dims, (dim_node){.kind = KIND_SYMBOL, .name = name, .non_negative = true});
}

dbt_dim dbt_dim_number(dbt_dims *dims, const char *name) {
    return intern(dims, (dim_node){.kind = KIND_SYMBOL, .name = name});
}

dbt_dim dbt_dim_own(dbt_dims *dims, const char *name) {
    return intern(dims,
                  (dim_node){.kind = KIND_SYMBOL, .op = 1, .name = name, .non_negative = true});
}

dbt_dim dbt_dim_fresh(dbt_dims *dims, const char *node_name) {
    char name[256];
    snprintf(name, sizeof name, "%.200s#%u", node_name, (unsigned)dims->n_fresh++);
    const dbt_dim d = dbt_dim_own(dims, name);
    if (d != DBT_DIM_NONE) dims->nodes[d].fresh = true;
    return d;
}

bool dbt_dim_is_const(const dbt_dims *dims, dbt_dim d, int64_t *value) {
    if (d < 0 || dims->nodes[d].kind != KIND_CONST) return false;
    if (value) *value = dims->nodes[d].c0;
    return true;
}

bool dbt_dim_is(const dbt_dims *dims, dbt_dim d, int64_t value) {
    int64_t v;
    return dbt_dim_is_const(dims, d, &v) && v == value;
}

bool dbt_dim_is_fresh(const dbt_dims *dims, dbt_dim d) {
    return d >= 0 && dims->nodes[d].kind == KIND_SYMBOL && dims->nodes[d].fresh;
}

/* ---- Checked arithmetic ---- */

static bool add_checked(int64_t a, int64_t b, int64_t *out) {
    if (b > 0 ? a > INT64_MAX - b : a < INT64_MIN - b) return false;
    *out = a + b;
    return true;
}

static bool mul_checked(int64_t a, int64_t b, int64_t *out) {
    if (a == 0 || b == 0) {
        *out = 0;
        return true;
    }
    if (a == INT64_MIN || b == INT64_MIN) return false;
    const uint64_t ua = a < 0 ? (uint64_t)-a : (uint64_t)a, ub = b < 0 ? (uint64_t)-b : (uint64_t)b;
    if (ua > (uint64_t)INT64_MAX / ub) return false;
    *out = a * b;
    return true;
}

/* The function's value on constants; false for overflow and division by zero. */
static bool apply_const(dbt_dim_op op, int64_t a, int64_t b, int64_t *out) {
    switch (op) {
    case DBT_DIM_ADD: return add_checked(a, b, out);
    case DBT_DIM_SUB: return b != INT64_MIN && add_checked(a, -b, out);
    case DBT_DIM_MUL: return mul_checked(a, b, out);
    case DBT_DIM_DIV:
    case DBT_DIM_CEIL_DIV:
    case DBT_DIM_MOD:
        if (b == 0 || (a == INT64_MIN && b == -1)) return false;
        if (op == DBT_DIM_DIV) {
            *out = a / b;
        } else if (op == DBT_DIM_CEIL_DIV) {
            *out = a / b + (a % b != 0 && (a < 0) == (b < 0));
        } else {
            *out = a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0);
        }
        return true;
    case DBT_DIM_MIN: *out = a < b ? a : b; return true;
    case DBT_DIM_MAX: *out = a > b ? a : b; return true;
    case DBT_DIM_BROADCAST: *out = a == 1 ? b : a; return true;
    case DBT_DIM_EQUAL: *out = a == b; return true;
    case DBT_DIM_LESS: *out = a < b; return true;
    case DBT_DIM_LESS_EQUAL: *out = a <= b; return true;
    }
    return false;
}

/* ---- Sums and products ---- */

typedef struct sum {
    int64_t c0;
    int32_t n;
    dbt_dim terms[MAX_TERMS];
    int64_t coefficients[MAX_TERMS];
} sum;

static sum as_sum(const dbt_dims *dims, dbt_dim d) {
    const dim_node *const node = &dims->nodes[d];
    sum s = {0};
    if (node->kind == KIND_CONST) {
        s.c0 = node->c0;
    } else if (node->kind == KIND_SUM) {
        s.c0 = node->c0;
        s.n = node->n;
        memcpy(s.terms, node->terms, (size_t)node->n * sizeof *node->terms);
        memcpy(s.coefficients, node->coefficients, (size_t)node->n * sizeof *node->coefficients);
    } else {
        s.n = 1;
        s.terms[0] = d;
        s.coefficients[0] = 1;
    }
    return s;
}

static dbt_dim from_sum(dbt_dims *dims, const sum *s) {
    if (s->n == 0) return dbt_dim_const(dims, s->c0);
    if (s->n == 1 && s->c0 == 0 && s->coefficients[0] == 1) return s->terms[0];
    return intern(dims, (dim_node){.kind = KIND_SUM,
                                   .n = s->n,
                                   .c0 = s->c0,
                                   .terms = s->terms,
                                   .coefficients = s->coefficients});
}

/* Adds c * atom, keeping terms sorted; false when it does not fit or overflows. */
static bool add_term(sum *s, dbt_dim atom, int64_t c) {
    int32_t i = 0;
    while (i < s->n && s->terms[i] < atom) i++;
    if (i < s->n && s->terms[i] == atom) {
        if (!add_checked(s->coefficients[i], c, &s->coefficients[i])) return false;
        if (s->coefficients[i] != 0) return true;
        s->n--;
        for (; i < s->n; i++) {
            s->terms[i] = s->terms[i + 1];
            s->coefficients[i] = s->coefficients[i + 1];
        }
        return true;
    }
    if (s->n == MAX_TERMS) return false;
    for (int32_t j = s->n; j > i; j--) {
        s->terms[j] = s->terms[j - 1];
        s->coefficients[j] = s->coefficients[j - 1];
    }
    s->terms[i] = atom;
    s->coefficients[i] = c;
    s->n++;
    return true;
}

/* The factors of an atom: itself, or a product's. */
static int32_t factors_of(const dbt_dims *dims, const dbt_dim *atom, const dbt_dim **factors) {
    const dim_node *const node = &dims->nodes[*atom];
    if (node->kind != KIND_PRODUCT) {
        *factors = atom;
        return 1;
    }
    *factors = node->terms;
    return node->n;
}

static dbt_dim product_of_atoms(dbt_dims *dims, dbt_dim a, dbt_dim b) {
    const dbt_dim *fa, *fb;
    const int32_t na = factors_of(dims, &a, &fa), nb = factors_of(dims, &b, &fb);
    if (na + nb > MAX_TERMS) return DBT_DIM_NONE;
    dbt_dim merged[MAX_TERMS];
    int32_t n = 0;
    for (int32_t i = 0, j = 0; i < na || j < nb;) {
        merged[n++] = j == nb || (i < na && fa[i] <= fb[j]) ? fa[i++] : fb[j++];
    }
    return intern(dims, (dim_node){.kind = KIND_PRODUCT, .n = n, .terms = merged});
}

static dbt_dim add(dbt_dims *dims, dbt_dim a, dbt_dim b, int64_t sign) {
    sum s = as_sum(dims, a);
    const sum t = as_sum(dims, b);
    int64_t c;
    if (!mul_checked(t.c0, sign, &c) || !add_checked(s.c0, c, &s.c0)) return DBT_DIM_NONE;
    for (int32_t i = 0; i < t.n; i++) {
        if (!mul_checked(t.coefficients[i], sign, &c) || !add_term(&s, t.terms[i], c)) {
            return DBT_DIM_NONE;
        }
    }
    return from_sum(dims, &s);
}

static dbt_dim multiply(dbt_dims *dims, dbt_dim a, dbt_dim b) {
    const sum s = as_sum(dims, a), t = as_sum(dims, b);
    sum r = {0};
    if (!mul_checked(s.c0, t.c0, &r.c0)) return DBT_DIM_NONE;
    for (int32_t i = -1; i < s.n; i++) {
        for (int32_t j = -1; j < t.n; j++) {
            if (i < 0 && j < 0) continue;
            int64_t c;
            if (!mul_checked(i < 0 ? s.c0 : s.coefficients[i], j < 0 ? t.c0 : t.coefficients[j],
                             &c)) {
                return DBT_DIM_NONE;
            }
            if (c == 0) continue;
            const dbt_dim atom = i < 0   ? t.terms[j]
                                 : j < 0 ? s.terms[i]
                                         : product_of_atoms(dims, s.terms[i], t.terms[j]);
            if (atom == DBT_DIM_NONE || !add_term(&r, atom, c)) return DBT_DIM_NONE;
        }
    }
    return from_sum(dims, &r);
}

/* atom / divisor when the divisor's factors are among the atom's; *one when nothing is left. */
static dbt_dim cancel(dbt_dims *dims, dbt_dim atom, dbt_dim divisor, bool *one) {
    const dbt_dim *fa, *fb;
    const int32_t na = factors_of(dims, &atom, &fa), nb = factors_of(dims, &divisor, &fb);
    dbt_dim left[MAX_TERMS];
    int32_t n = 0, j = 0;
    for (int32_t i = 0; i < na; i++) {
        if (j < nb && fa[i] == fb[j]) {
            j++;
        } else {
            left[n++] = fa[i];
        }
    }
    *one = n == 0;
    if (j < nb) return DBT_DIM_NONE;
    if (n <= 1) return n == 1 ? left[0] : atom;
    return intern(dims, (dim_node){.kind = KIND_PRODUCT, .n = n, .terms = left});
}

/* a / b where it comes out even whatever the symbols are (but 0); else DBT_DIM_NONE. */
static dbt_dim divide_exactly(dbt_dims *dims, dbt_dim a, dbt_dim b) {
    const sum s = as_sum(dims, a), t = as_sum(dims, b);
    if (t.n > 1 || (t.n == 1 && t.c0 != 0)) return DBT_DIM_NONE;
    const int64_t c = t.n ? t.coefficients[0] : t.c0;
    if (c == 0 || c == -1 || s.c0 % c != 0 || (t.n && s.c0 != 0)) return DBT_DIM_NONE;
    sum r = {.c0 = s.c0 / c};
    for (int32_t i = 0; i < s.n; i++) {
        if (s.coefficients[i] % c != 0) return DBT_DIM_NONE;
        bool one = false;
        const dbt_dim atom = t.n ? cancel(dims, s.terms[i], t.terms[0], &one) : s.terms[i];
        if (atom == DBT_DIM_NONE) return DBT_DIM_NONE;
        const int64_t q = s.coefficients[i] / c;
        if (one ? !add_checked(r.c0, q, &r.c0) : !add_term(&r, atom, q)) return DBT_DIM_NONE;
    }
    return from_sum(dims, &r);
}

/* ---- Functions ---- */

static dbt_dim opaque(dbt_dims *dims, dbt_dim_op op, dbt_dim a, dbt_dim b) {
    const dbt_dim operands[2] = {a, b};
    return intern(dims,
                  (dim_node){.kind = KIND_FUNCTION, .op = (uint8_t)op, .n = 2, .terms = operands});
}

static dbt_dim broadcast(dbt_dims *dims, dbt_dim a, dbt_dim b) {
    int64_t v;
    if (a == b || dbt_dim_is(dims, b, 1)) return a;
    if (dbt_dim_is(dims, a, 1)) return b;
    if (dbt_dim_is_const(dims, a, &v)) return a;
    if (dbt_dim_is_const(dims, b, &v)) return b;
    return a < b ? opaque(dims, DBT_DIM_BROADCAST, a, b) : opaque(dims, DBT_DIM_BROADCAST, b, a);
}

/* a >= b + more, whatever the symbols are. */
static bool at_least(dbt_dims *dims, dbt_dim a, dbt_dim b, int64_t more) {
    dbt_dim d = dbt_dim_apply(dims, DBT_DIM_SUB, a, b);
    if (more) d = dbt_dim_apply(dims, DBT_DIM_SUB, d, dbt_dim_const(dims, more));
    return d != DBT_DIM_NONE && dims->nodes[d].non_negative;
}

dbt_dim dbt_dim_apply(dbt_dims *dims, dbt_dim_op op, dbt_dim a, dbt_dim b) {
    if (a == DBT_DIM_NONE || b == DBT_DIM_NONE) return DBT_DIM_NONE;
    int64_t va, vb, v;
    if (dbt_dim_is_const(dims, a, &va) && dbt_dim_is_const(dims, b, &vb)) {
        return apply_const(op, va, vb, &v) ? dbt_dim_const(dims, v) : DBT_DIM_NONE;
    }
    dbt_dim d;
    switch (op) {
    case DBT_DIM_ADD:
    case DBT_DIM_SUB:
        d = add(dims, a, b, op == DBT_DIM_ADD ? 1 : -1);
        return d != DBT_DIM_NONE ? d : opaque(dims, op, a, b);
    case DBT_DIM_MUL:
        d = multiply(dims, a, b);
        return d != DBT_DIM_NONE ? d : opaque(dims, op, a, b);
    case DBT_DIM_DIV:
    case DBT_DIM_CEIL_DIV:
        d = divide_exactly(dims, a, b);
        return d != DBT_DIM_NONE ? d : opaque(dims, op, a, b);
    case DBT_DIM_MOD:
        return dbt_dim_is(dims, b, 1) ? dbt_dim_const(dims, 0) : opaque(dims, op, a, b);
    case DBT_DIM_MIN:
    case DBT_DIM_MAX:
        if (at_least(dims, a, b, 0)) return op == DBT_DIM_MAX ? a : b;
        if (at_least(dims, b, a, 0)) return op == DBT_DIM_MAX ? b : a;
        return a < b ? opaque(dims, op, a, b) : opaque(dims, op, b, a);
    case DBT_DIM_BROADCAST: return broadcast(dims, a, b);
    case DBT_DIM_EQUAL:
        if (a == b) return dbt_dim_const(dims, 1);
        if (at_least(dims, a, b, 1) || at_least(dims, b, a, 1)) return dbt_dim_const(dims, 0);
        return opaque(dims, op, a, b);
    case DBT_DIM_LESS_EQUAL:
        if (at_least(dims, b, a, 0)) return dbt_dim_const(dims, 1);
        if (at_least(dims, a, b, 1)) return dbt_dim_const(dims, 0);
        return opaque(dims, op, a, b);
    case DBT_DIM_LESS:
        if (at_least(dims, a, b, 0)) return dbt_dim_const(dims, 0);
        if (at_least(dims, b, a, 1)) return dbt_dim_const(dims, 1);
        return opaque(dims, op, a, b);
    }
    return DBT_DIM_NONE;
}

dbt_dim dbt_dim_select(dbt_dims *dims, dbt_dim condition, dbt_dim a, dbt_dim b) {
    if (condition == DBT_DIM_NONE || a == DBT_DIM_NONE || b == DBT_DIM_NONE) return DBT_DIM_NONE;
    int64_t v;
    if (dbt_dim_is_const(dims, condition, &v)) return v ? a : b;
    if (a == b) return a;
    const dbt_dim operands[3] = {condition, a, b};
    return intern(dims, (dim_node){.kind = KIND_SELECT, .n = 3, .terms = operands});
}

dbt_dim dbt_dim_quotient(dbt_dims *dims, const dbt_dim *a, int32_t n, const dbt_dim *b, int32_t m) {
    bool used[DIBIT_MAX_RANK] = {false};
    dbt_dim above = dbt_dim_const(dims, 1), below = dbt_dim_const(dims, 1);
    for (int32_t j = 0; j < m; j++) {
        int32_t i = 0;
        while (i < n && (used[i] || a[i] != b[j] || dbt_dim_is(dims, a[i], 0))) i++;
        if (i < n) {
            used[i] = true;
        } else {
            below = dbt_dim_apply(dims, DBT_DIM_MUL, below, b[j]);
        }
    }
    for (int32_t i = 0; i < n; i++) {
        if (!used[i]) above = dbt_dim_apply(dims, DBT_DIM_MUL, above, a[i]);
    }
    return dbt_dim_apply(dims, DBT_DIM_DIV, above, below);
}

/* ---- Text ---- */

typedef struct writer {
    char *text;
    size_t size, used;
} writer;

static void put(writer *w, const char *s) {
    while (*s && w->used + 1 < w->size) w->text[w->used++] = *s++;
    if (w->size) w->text[w->used] = 0;
}

static void put_dim(writer *w, const dbt_dims *dims, dbt_dim d, int depth) {
    static const char *const names[] = {"add",       "sub",   "mul",  "div",
                                        "ceil_div",  "mod",   "min",  "max",
                                        "broadcast", "equal", "less", "less_equal"};
    char number[32];
    if (w->used + 1 >= w->size) return; /* full: what is shared may be long to write */
    if (d == DBT_DIM_NONE || depth > MAX_TEXT_DEPTH) {
        put(w, d == DBT_DIM_NONE ? "?" : "...");
        return;
    }
    const dim_node *const node = &dims->nodes[d];
    switch ((dim_kind)node->kind) {
    case KIND_CONST:
        snprintf(number, sizeof number, "%lld", (long long)node->c0);
        put(w, number);
        return;
    case KIND_SYMBOL: put(w, node->name); return;
    case KIND_FUNCTION:
    case KIND_SELECT:
        put(w, node->kind == KIND_SELECT ? "select" : names[node->op]);
        for (int32_t i = 0; i < node->n; i++) {
            put(w, i ? ", " : "(");
            put_dim(w, dims, node->terms[i], depth + 1);
        }
        put(w, ")");
        return;
    case KIND_PRODUCT:
        for (int32_t i = 0; i < node->n; i++) {
            if (i) put(w, "*");
            put_dim(w, dims, node->terms[i], depth + 1);
        }
        return;
    case KIND_SUM:
        for (int32_t i = 0; i < node->n; i++) {
            const int64_t c = node->coefficients[i];
            if (i) put(w, c < 0 ? " - " : " + ");
            if (c != 1 && (i == 0 || c != -1)) {
                snprintf(number, sizeof number, "%lld*", (long long)(i && c < 0 ? -c : c));
                put(w, number);
            }
            put_dim(w, dims, node->terms[i], depth + 1);
        }
        if (node->c0) {
            snprintf(number, sizeof number, " %c %llu", node->c0 < 0 ? '-' : '+',
                     node->c0 < 0 ? (unsigned long long)-(node->c0 + 1) + 1
                                  : (unsigned long long)node->c0);
            put(w, number);
        }
        return;
    }
}

void dbt_dim_text(const dbt_dims *dims, dbt_dim d, char *text, size_t size) {
    writer w = {text, size, 0};
    put(&w, "");
    put_dim(&w, dims, d, 0);
}

/* ---- Evaluation ---- */

int32_t dbt_dims_count(const dbt_dims *dims) { return dims->n_nodes; }

const char *dbt_dim_symbol_name(const dbt_dims *dims, dbt_dim d) {
    return d >= 0 && dims->nodes[d].kind == KIND_SYMBOL ? dims->nodes[d].name : NULL;
}

void dbt_dims_reset(const dbt_dims *dims, int64_t *values) {
    for (int32_t i = 0; i < dims->n_nodes; i++) {
        values[i] = dims->nodes[i].kind == KIND_CONST ? dims->nodes[i].c0 : DBT_DIM_UNRESOLVED;
    }
}

static int64_t evaluate_sum(const dim_node *node, const int64_t *values) {
    int64_t total = node->c0;
    for (int32_t i = 0; i < node->n; i++) {
        int64_t term;
        if (values[node->terms[i]] == DBT_DIM_UNRESOLVED ||
            !mul_checked(node->coefficients[i], values[node->terms[i]], &term) ||
            !add_checked(total, term, &total)) {
            return DBT_DIM_UNRESOLVED;
        }
    }
    return total;
}

static int64_t evaluate_product(const dim_node *node, const int64_t *values) {
    int64_t total = 1;
    for (int32_t i = 0; i < node->n; i++) {
        const int64_t v = values[node->terms[i]];
        if (v == DBT_DIM_UNRESOLVED || !mul_checked(total, v, &total)) return DBT_DIM_UNRESOLVED;
    }
    return total;
}

void dbt_dims_evaluate(const dbt_dims *dims, int64_t *values) {
    for (int32_t i = 0; i < dims->n_nodes; i++) {
        const dim_node *const node = &dims->nodes[i];
        switch ((dim_kind)node->kind) {
        case KIND_CONST:
        case KIND_SYMBOL: break;
        case KIND_FUNCTION: {
            const int64_t a = values[node->terms[0]], b = values[node->terms[1]];
            if (a == DBT_DIM_UNRESOLVED || b == DBT_DIM_UNRESOLVED ||
                !apply_const((dbt_dim_op)node->op, a, b, &values[i])) {
                values[i] = DBT_DIM_UNRESOLVED;
            }
            break;
        }
        case KIND_SELECT: {
            const int64_t c = values[node->terms[0]];
            values[i] = c == DBT_DIM_UNRESOLVED ? c : values[node->terms[c ? 1 : 2]];
            break;
        }
        case KIND_PRODUCT: values[i] = evaluate_product(node, values); break;
        case KIND_SUM: values[i] = evaluate_sum(node, values); break;
        }
    }
}

/* The moving ops on random shapes and element types, each output element against its definition:
 * the coordinates of the input element that it must show. */
#include "op_rows.h"

enum { MAX_ELEMENTS = 1 << 19 };

static uint64_t seed;
static int64_t below(int64_t n) { return (int64_t)(dbt_test_random(&seed) % (uint64_t)n); }

/* A tensor whose element i holds i, cut to the type. */
typedef struct tensor {
    dibit_tensor t;
    uint64_t data[MAX_ELEMENTS];
} tensor;

static void put(dibit_tensor *t, int64_t i, int64_t v) {
    memcpy((char *)t->data + i * (int64_t)(dibit_type_bits(t->type) / 8), &v,
           dibit_type_bits(t->type) / 8);
}

static void make(tensor *x, dibit_type type, int32_t rank, const int64_t *dims) {
    x->t = (dibit_tensor){.name = "x", .type = type, .rank = rank, .data = x->data};
    memcpy(x->t.dims, dims, (size_t)rank * sizeof *dims);
    const int64_t n = dbt_tensor_count(&x->t);
    assert_true(n <= MAX_ELEMENTS);
    for (int64_t i = 0; i < n; i++) put(&x->t, i, i);
}

static void make_random(tensor *x, int32_t rank, bool large) {
    static const dibit_type types[] = {DIBIT_TYPE_INT8, DIBIT_TYPE_UINT16, DIBIT_TYPE_INT32,
                                       DIBIT_TYPE_UINT64};
    int64_t dims[DIBIT_MAX_RANK];
    for (int32_t i = 0; i < rank; i++)
        dims[i] = large && i < 3 ? 17 + below(30) : below(6) + (i > 0);
    make(x, types[below(4)], rank, dims);
}

static void coordinates(const dibit_tensor *t, int64_t i, int64_t *at) {
    for (int32_t k = t->rank; k-- > 0; i /= t->dims[k]) at[k] = i % t->dims[k];
}
static int64_t linear(const dibit_tensor *t, const int64_t *at) {
    int64_t i = 0;
    for (int32_t k = 0; k < t->rank; k++) i = i * t->dims[k] + at[k];
    return i;
}

/* Where output coordinates come from: input coordinates in place; false: a zero. */
typedef bool (*origin)(void *ctx, int64_t *at);

static tensor x, y;

static void check(op_row *row, int32_t rank, const int64_t *dims, origin from, void *ctx) {
    y.t = (dibit_tensor){.name = "y", .type = x.t.type, .rank = rank, .data = y.data};
    memcpy(y.t.dims, dims, (size_t)rank * sizeof *dims);
    const int64_t n = dbt_tensor_count(&y.t);
    if (n > MAX_ELEMENTS) return;
    for (int64_t i = 0; i < n; i++) {
        int64_t at[DIBIT_MAX_RANK];
        coordinates(&y.t, i, at);
        put(&y.t, i, from(ctx, at) ? linear(&x.t, at) : 0);
    }
    row->in[0] = x.t;
    row->out[0] = y.t;
    op_row_check(row, 0xfe);
}

/* ---- Transpose ------------------------------------------------------------------------------- */

static bool from_transposed(void *ctx, int64_t *at) {
    const int64_t *const perm = ctx;
    int64_t moved[DIBIT_MAX_RANK];
    for (int32_t i = 0; i < x.t.rank; i++) moved[perm[i]] = at[i];
    memcpy(at, moved, sizeof moved);
    return true;
}

static void transpose(bool large) {
    int64_t perm[DIBIT_MAX_RANK], dims[DIBIT_MAX_RANK];
    make_random(&x, (int32_t)below(5) + 1, large);
    for (int32_t i = 0; i < x.t.rank; i++) {
        const int64_t k = below(i + 1);
        perm[i] = perm[k];
        perm[k] = i;
    }
    for (int32_t i = 0; i < x.t.rank; i++) dims[i] = x.t.dims[perm[i]];
    op_row row = {.name = "Transpose",
                  .opset = 13,
                  .attrs = {{.name = "perm",
                             .kind = DBT_ONNX_ATTR_INTS,
                             .count = (uint32_t)x.t.rank,
                             .ints = perm}}};
    check(&row, x.t.rank, dims, from_transposed, perm);
}

/* ---- Slice ----------------------------------------------------------------------------------- */

typedef struct slice {
    int64_t first[DIBIT_MAX_RANK], step[DIBIT_MAX_RANK];
} slice;

static bool from_sliced(void *ctx, int64_t *at) {
    const slice *const s = ctx;
    for (int32_t i = 0; i < x.t.rank; i++) at[i] = s->first[i] + at[i] * s->step[i];
    return true;
}

static void slices(bool large) {
    make_random(&x, (int32_t)below(4) + 1, large);
    slice s;
    int64_t starts[DIBIT_MAX_RANK], ends[DIBIT_MAX_RANK], axes[DIBIT_MAX_RANK];
    int64_t dims[DIBIT_MAX_RANK];
    for (int32_t i = 0; i < x.t.rank; i++) {
        const int64_t n = x.t.dims[i];
        s.step[i] = below(3) + 1;
        if (below(2)) s.step[i] = -s.step[i];
        starts[i] = below(2 * n + 5) - n - 2;
        ends[i] = below(2 * n + 5) - n - 2;
        axes[i] = below(2) ? i : i - x.t.rank;
        /* the rule, walked */
        int64_t at = starts[i] < 0 ? starts[i] + n : starts[i],
                end = ends[i] < 0 ? ends[i] + n : ends[i];
        if (s.step[i] > 0) {
            at = at < 0 ? 0 : at > n ? n : at;
            end = end < 0 ? 0 : end > n ? n : end;
        } else {
            at = at < 0 ? 0 : at; /* ONNX; numpy has nothing before the first element */
            at = at > n - 1 ? n - 1 : at;
            end = end < -1 ? -1 : end > n - 1 ? n - 1 : end;
        }
        s.first[i] = at;
        for (dims[i] = 0; s.step[i] > 0 ? at < end : at > end; at += s.step[i]) dims[i]++;
    }
    const int64_t n = x.t.rank;
    op_row row = {.name = "Slice",
                  .opset = 13,
                  .in = {{0}, TI64(starts, n), TI64(ends, n), TI64(axes, n), TI64(s.step, n)}};
    check(&row, x.t.rank, dims, from_sliced, &s);
}

/* ---- Tile, Expand ---------------------------------------------------------------------------- */

static bool from_repeated(void *ctx, int64_t *at) {
    const int32_t extra = *(const int32_t *)ctx; /* axes that the output has in front */
    int64_t moved[DIBIT_MAX_RANK];
    for (int32_t i = 0; i < x.t.rank; i++) moved[i] = at[i + extra] % x.t.dims[i];
    memcpy(at, moved, sizeof moved);
    return true;
}

static void tile(bool large) {
    int64_t repeats[DIBIT_MAX_RANK], dims[DIBIT_MAX_RANK];
    int32_t extra = 0;
    make_random(&x, (int32_t)below(large ? 3 : 5) + 1, large);
    for (int32_t i = 0; i < x.t.rank; i++) {
        repeats[i] = below(3) + (large ? 1 : 0);
        dims[i] = x.t.dims[i] * repeats[i];
    }
    op_row row = {.name = "Tile", .opset = 13, .in = {{0}, TI64(repeats, x.t.rank)}};
    check(&row, x.t.rank, dims, from_repeated, &extra);
}

static void expand(bool large) {
    int64_t in_dims[DIBIT_MAX_RANK], shape[DIBIT_MAX_RANK], dims[DIBIT_MAX_RANK];
    const int32_t rank = (int32_t)below(3) + 1;
    int32_t extra = (int32_t)below(3);
    for (int32_t i = 0; i < extra; i++) dims[i] = shape[i] = below(3) + 1;
    for (int32_t i = 0; i < rank; i++) {
        dims[extra + i] = large ? 20 + below(20) : below(5) + 1;
        in_dims[i] = below(2) ? 1 : dims[extra + i];
        shape[extra + i] = in_dims[i] != 1 && below(2) ? 1 : dims[extra + i];
    }
    make(&x, DIBIT_TYPE_INT32, rank, in_dims);
    op_row row = {.name = "Expand", .opset = 13, .in = {{0}, TI64(shape, rank + extra)}};
    check(&row, rank + extra, dims, from_repeated, &extra);
}

/* ---- Pad ------------------------------------------------------------------------------------- */

typedef struct frame {
    int64_t before[DIBIT_MAX_RANK];
    int mode;
} frame;

static bool from_padded(void *ctx, int64_t *at) {
    const frame *const f = ctx;
    bool inside = true;
    for (int32_t i = 0; i < x.t.rank; i++) {
        const int64_t n = x.t.dims[i];
        int64_t v = at[i] - f->before[i];
        while (f->mode == 3 && v < 0) v += n;
        while (f->mode == 3 && v >= n) v -= n;
        while (f->mode == 1 && n > 1 && (v < 0 || v >= n)) v = v < 0 ? -v : 2 * (n - 1) - v;
        if (f->mode == 2 || (f->mode == 1 && n == 1)) v = v < 0 ? 0 : v >= n ? n - 1 : v;
        inside = inside && v >= 0 && v < n;
        at[i] = v;
    }
    return inside;
}

static void pad(bool large) {
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    int64_t pads[2 * DIBIT_MAX_RANK], dims[DIBIT_MAX_RANK];
    make_random(&x, (int32_t)below(4) + 1, large);
    frame f = {.mode = (int)below(4)};
    if (x.t.dims[0] == 0 && f.mode != 0) return;
    for (int32_t i = 0; i < x.t.rank; i++) {
        f.before[i] = pads[i] = below(9);
        pads[x.t.rank + i] = below(9);
        dims[i] = x.t.dims[i] + pads[i] + pads[x.t.rank + i];
    }
    op_row row = {.name = "Pad",
                  .opset = 19,
                  .attrs = {DBT_STRING("mode", modes[f.mode])},
                  .in = {{0}, TI64(pads, 2 * x.t.rank)}};
    check(&row, x.t.rank, dims, from_padded, &f);
}

/* ---- Gather ---------------------------------------------------------------------------------- */

typedef struct gathered {
    const int64_t *indices;
    int64_t n; /* [n / 2, 2] */
    int32_t axis;
} gathered;

static bool from_gathered(void *ctx, int64_t *at) {
    const gathered *const g = ctx;
    const int64_t index = g->indices[at[g->axis] * 2 + at[g->axis + 1]];
    at[g->axis] = index < 0 ? index + x.t.dims[g->axis] : index;
    for (int32_t i = g->axis + 1; i < x.t.rank; i++) at[i] = at[i + 1];
    return true;
}

static void gather(bool large) {
    int64_t indices[256], dims[DIBIT_MAX_RANK];
    make_random(&x, (int32_t)below(4) + 1, large);
    gathered g = {indices, (below(large ? 100 : 4) + 1) * 2, (int32_t)below(x.t.rank)};
    const int64_t size = x.t.dims[g.axis];
    if (size == 0) return;
    for (int64_t i = 0; i < g.n; i++) indices[i] = below(2 * size) - size;
    for (int32_t i = 0; i <= x.t.rank; i++) {
        dims[i] = i < g.axis        ? x.t.dims[i]
                  : i == g.axis     ? g.n / 2
                  : i == g.axis + 1 ? 2
                                    : x.t.dims[i - 1];
    }
    op_row row = {.name = "Gather",
                  .opset = 13,
                  .attrs = {DBT_INT("axis", g.axis)},
                  .in = {{0}, TI64(indices, g.n / 2, 2)}};
    check(&row, x.t.rank + 1, dims, from_gathered, &g);
}

/* ---- Split and Concat: one undoes the other -------------------------------------------------- */

static bool from_same(void *ctx, int64_t *at) {
    const int64_t *const c = ctx; /* axis, offset */
    at[c[0]] += c[1];
    return true;
}

static tensor parts[2];

static void split_and_concat(bool large) {
    make_random(&x, (int32_t)below(4) + 1, large);
    const int64_t axis = below(x.t.rank), size = x.t.dims[axis], cut = below(size + 1);
    op_row row = {.name = "Concat", .opset = 13, .attrs = {DBT_INT("axis", axis)}};
    for (int i = 0; i < 2; i++) {
        int64_t dims[DIBIT_MAX_RANK], where[2] = {axis, i ? cut : 0};
        memcpy(dims, x.t.dims, sizeof dims);
        dims[axis] = i ? size - cut : cut;
        make(&parts[i], x.t.type, x.t.rank, dims);
        for (int64_t k = 0; k < dbt_tensor_count(&parts[i].t); k++) {
            int64_t at[DIBIT_MAX_RANK];
            coordinates(&parts[i].t, k, at);
            from_same(where, at);
            put(&parts[i].t, k, linear(&x.t, at));
        }
        row.in[i] = parts[i].t;
    }
    row.out[0] = x.t;
    op_row_check(&row, 0);
    const int64_t sizes[2] = {cut, size - cut};
    op_row undo = {.name = "Split",
                   .opset = 13,
                   .attrs = {DBT_INT("axis", axis)},
                   .in = {x.t, TI64(sizes, 2)},
                   .out = {parts[0].t, parts[1].t}};
    op_row_check(&undo, 2);
}

static void test_random(void **state) {
    (void)state;
    static void (*const ops[])(bool) = {transpose, slices,          tile, expand, pad,
                                        gather,    split_and_concat};
    for (size_t op = 0; op < sizeof ops / sizeof *ops; op++) {
        for (uint64_t i = 1; i <= 60; i++) {
            seed = op * 1000 + i;
            print_message("op %zu, seed %llu\n", op, (unsigned long long)seed);
            ops[op](i % 8 == 0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

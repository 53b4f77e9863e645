/* See attention_gpu.h. Few rows of queries (decoding) go to attention_few.wgsl, which splits many keys into
 * parts that attention_merge.wgsl puts together; many (prompts) to attention_many.wgsl, and on software adapters to
 * attention_alone.wgsl. */
#include "ops/attention_core/attention_gpu.h"

enum {
    FEW_ROWS = 16,     /* of a head: query heads that share keys, times queries */
    FEW_BLOCK = 4,     /* of a workgroup of attention_few */
    TILE = 64,         /* keys that it takes at a time */
    WHOLE = 2 * TILE,  /* so many keys are not worth a second dispatch */
    MAX_PARTS = 64,    /* that attention_merge can put together */
    FEW_COLUMNS = 512, /* of values, of a workgroup */
    MANY_ROWS = 32,    /* the same of attention_many */
    SLICE = 64,
    MAX_SLICES = 4,
    ALONE_THREADS = 16,
    ALONE_SCORES = 1 << 22 /* of attention_alone at once, unless a row of a head has more */
};

typedef struct place { /* Place of attention.inc.wgsl */
    uint32_t base, head, token, column;
} place;

typedef struct uniforms { /* Attention of attention.inc.wgsl */
    uint32_t heads, group, rows, k_dim, v_dim, keys;
    int32_t first_query, left, right;
    uint32_t clamps, n_terms, sinks;
    float scale, softcap;
    uint32_t first_key, part_keys, parts, first_row, part_rows, unused;
    place q, k, v, y, terms[2];
    place new_k, new_v;
    uint32_t half, interleaved, angles;
    float epsilon;
} uniforms;

static const char few[] = "attention_few.wgsl", many[] = "attention_many.wgsl",
                  alone[] = "attention_alone.wgsl", merge[] = "attention_merge.wgsl",
                  append[] = "attention_append.wgsl", mask_shader[] = "attention_mask.wgsl";
static const char p_slices[] = "SLICES", p_half[] = "HALF", p_vec[] = "VEC", p_form[] = "FORM",
                  p_append[] = "APPEND";

enum { Y = 3, N_BINDINGS = 11 }; /* of attention: binding i + 1 */

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- Attention ---- */

static place place_of(const dbt_gpu_rows *r) {
    return (place){(uint32_t)r->base, (uint32_t)r->head, (uint32_t)r->token, 0};
}

/* Offsets are 32 bits wide in shaders. */
static bool fits(const dbt_gpu_rows *r, int64_t heads, int64_t tokens, int64_t dim) {
    const uint64_t last_head = r->head * (uint64_t)(heads > 0 ? heads - 1 : 0);
    const uint64_t last_token = r->token * (uint64_t)(tokens > 0 ? tokens - 1 : 0);
    return !r->buffer || r->base + last_head + last_token + (uint64_t)dim <= INT32_MAX;
}

static bool is_aligned(const dbt_gpu_rows *r) {
    return r->base % 4 == 0 && r->head % 4 == 0 && r->token % 4 == 0;
}

/* The keys that all queries together see. */
static void seen(const dbt_gpu_attention *a, int64_t *begin, int64_t *end) {
    int64_t first = a->first_query, last = a->first_query + a->queries - 1;
    if (a->clamp_queries && first >= a->n_keys) first = a->n_keys - 1;
    if (a->clamp_queries && last >= a->n_keys) last = a->n_keys - 1;
    *begin = a->left >= 0 && first > a->left ? first - a->left : 0;
    *end = a->right >= 0 && last + a->right < a->n_keys ? last + a->right + 1 : a->n_keys;
    if (*end < 0) *end = 0;
    if (*begin > *end) *begin = *end;
}

static void describe(const dbt_gpu_attention *a, uniforms *u) {
    const int64_t group = a->heads / a->kv_heads;
    *u = (uniforms){.heads = (uint32_t)a->kv_heads,
                    .group = (uint32_t)group,
                    .rows = (uint32_t)(group * a->queries),
                    .k_dim = (uint32_t)a->k_dim,
                    .v_dim = (uint32_t)a->v_dim,
                    .keys = (uint32_t)a->n_keys,
                    .first_query = (int32_t)a->first_query,
                    .left = a->left > INT32_MAX / 2 ? -1 : (int32_t)a->left,
                    .right = a->right > INT32_MAX / 2 ? -1 : (int32_t)a->right,
                    .clamps = a->clamp_queries,
                    .sinks = a->has_sink ? (a->sink ? 2 : 1) : 0,
                    .scale = a->scale,
                    .softcap = a->softcap,
                    .parts = 1,
                    .q = place_of(&a->q),
                    .k = place_of(&a->k),
                    .v = place_of(&a->v),
                    .y = place_of(&a->y)};
    for (int i = 0; i < 2; i++) {
        const dbt_gpu_term *const t = &a->terms[i];
        if (!t->buffer) continue;
        u->terms[u->n_terms++] =
            (place){(uint32_t)t->base, (uint32_t)t->head, (uint32_t)t->query, (uint32_t)t->column};
    }
}

/* Splits the keys into parts, so that a workgroup has little to do and few results are merged. */
static void split(const dbt_gpu_attention *a, uniforms *u) {
    int64_t begin, end;
    seen(a, &begin, &end);
    const int64_t n = end - begin;
    int64_t keys = n <= WHOLE ? WHOLE : TILE;
    if (divide_up(n, keys) > MAX_PARTS) keys = divide_up(divide_up(n, MAX_PARTS), TILE) * TILE;
    u->first_key = (uint32_t)begin;
    u->part_keys = (uint32_t)keys;
    u->parts = n > keys ? (uint32_t)divide_up(n, keys) : 1;
}

/* workgroups: y and z 0 where x is a number for dbt_gpu_grid. */
static dibit_status record(dbt_gpu *gpu, const char *shader, const dbt_shader_param *params,
                           uint32_t n_params, const dbt_hal_binding bindings[N_BINDINGS],
                           uint32_t written, const uniforms *u, const uint64_t workgroups[3],
                           dibit_error *error) {
    dbt_gpu_dispatch d = {.shader = shader,
                          .params = params,
                          .n_params = n_params,
                          .bindings = bindings,
                          .n_bindings = N_BINDINGS,
                          .written = written,
                          .uniforms = u,
                          .uniform_bytes = sizeof *u};
    if (workgroups[1] == 0) {
        DBT_TRY(dbt_gpu_grid(gpu, workgroups[0], d.workgroups, error));
    } else {
        for (int i = 0; i < 3; i++) {
            DBT_FAIL_IF(workgroups[i] > UINT32_MAX, error, DIBIT_TOO_LARGE, "%llu workgroups of %s",
                        (unsigned long long)workgroups[i], shader);
            d.workgroups[i] = (uint32_t)workgroups[i];
        }
    }
    return dbt_gpu_record(gpu, &d, error);
}

/* append: APPEND of the shader, which then writes to keys and values too. */
static dibit_status attend_few(dbt_gpu *gpu, const dbt_gpu_attention *a, uniforms *u,
                               dbt_hal_binding *bindings, int32_t vec, int32_t append_form,
                               dibit_error *error) {
    split(a, u);
    dbt_hal_buffer *parts = NULL;
    if (u->parts > 1) {
        const uint64_t n = (uint64_t)u->heads * u->rows * u->parts * ((uint64_t)u->v_dim + 2);
        DBT_FAIL_IF(n > INT32_MAX, error, DIBIT_TOO_LARGE, "attention of %llu partial results",
                    (unsigned long long)n);
        DBT_TRY(
            dbt_gpu_scratch(gpu, DBT_ATTENTION_SCRATCH_PARTS, n * sizeof(float), &parts, error));
        bindings[Y].buffer = parts;
    }
    const dbt_shader_param params[] = {
        {p_half, a->kv_type == DIBIT_TYPE_FLOAT16}, {p_vec, vec}, {p_append, append_form}};
    const uint64_t slices = (uint64_t)divide_up(a->v_dim, FEW_COLUMNS);
    const uint64_t units[] = {u->parts, (uint64_t)divide_up(u->rows, FEW_BLOCK), u->heads * slices};
    DBT_TRY(
        record(gpu, few, params, 3, bindings, 1u << Y | (append_form ? 6 : 0), u, units, error));
    if (!parts) return DIBIT_OK;
    const dbt_hal_binding merged[N_BINDINGS] = {
        [0].buffer = parts, [Y].buffer = a->y.buffer, [6].buffer = a->sink ? a->sink : parts};
    const uint64_t rows[3] = {(uint64_t)u->heads * u->rows};
    return record(gpu, merge, NULL, 0, merged, 1u << Y, u, rows, error);
}

/* Scores, weights and sums of some rows after the other, as many as scratch has scores for. */
static dibit_status attend_alone(dbt_gpu *gpu, const dbt_gpu_attention *a, uniforms *u,
                                 dbt_hal_binding *bindings, int32_t vec, dibit_error *error) {
    enum { SCORES = 7 };
    int64_t begin, end;
    seen(a, &begin, &end);
    const int64_t keys = end > begin ? end - begin : 1;
    const int64_t most = ALONE_SCORES / (keys * u->heads);
    const uint32_t rows = most < 1 ? 1 : most < u->rows ? (uint32_t)most : u->rows;
    const uint64_t columns = (uint64_t)divide_up(u->v_dim, 4);
    const uint64_t of_row[] = {(uint64_t)keys, 1, columns};
    u->first_key = (uint32_t)begin;
    u->part_keys = (uint32_t)keys;
    const uint64_t n = (uint64_t)u->heads * rows * (uint64_t)keys;
    DBT_FAIL_IF(n > INT32_MAX, error, DIBIT_TOO_LARGE, "attention to %lld keys", (long long)keys);
    DBT_TRY(dbt_gpu_scratch(gpu, DBT_ATTENTION_SCRATCH_PARTS, n * sizeof(float),
                            &bindings[SCORES].buffer, error));
    for (u->first_row = 0; u->first_row < u->rows; u->first_row += rows) {
        u->part_rows = rows < u->rows - u->first_row ? rows : u->rows - u->first_row;
        for (int32_t form = 0; form < 3; form++) {
            const dbt_shader_param params[] = {
                {p_form, form}, {p_half, a->kv_type == DIBIT_TYPE_FLOAT16}, {p_vec, vec}};
            const uint64_t threads = (uint64_t)u->heads * u->part_rows * of_row[form];
            const uint64_t units[3] = {(threads + ALONE_THREADS - 1) / ALONE_THREADS};
            DBT_TRY(
                record(gpu, alone, params, 3, bindings, 1u << Y | 1u << SCORES, u, units, error));
        }
    }
    return DIBIT_OK;
}

dibit_status dbt_gpu_attend(dbt_gpu *gpu, const dbt_gpu_attention *a, dibit_error *error) {
    if (a->queries == 0 || a->heads == 0 || a->v_dim == 0) return DIBIT_OK;
    DBT_FAIL_IF(!fits(&a->q, a->heads, a->queries, a->k_dim) ||
                    !fits(&a->k, a->kv_heads, a->n_keys, a->k_dim) ||
                    !fits(&a->v, a->kv_heads, a->n_keys, a->v_dim) ||
                    !fits(&a->y, a->heads, a->queries, a->v_dim),
                error, DIBIT_TOO_LARGE, "more than 2^31 elements of queries, keys or values");
    uniforms u;
    describe(a, &u);
    const dbt_gpu_term *const second = a->terms[0].buffer ? &a->terms[1] : &a->terms[0];
    const dbt_gpu_term *const first = a->terms[0].buffer ? &a->terms[0] : &a->terms[1];
    dbt_hal_buffer *const buffers[] = {a->q.buffer,   a->k.buffer,    a->v.buffer, a->y.buffer,
                                       first->buffer, second->buffer, a->sink};
    dbt_hal_binding bindings[N_BINDINGS] = {{0}};
    for (int i = 0; i < 7; i++) bindings[i].buffer = buffers[i] ? buffers[i] : a->q.buffer;
    const int32_t vec = a->k_dim % 4 == 0 && a->v_dim % 4 == 0 && is_aligned(&a->q) &&
                        is_aligned(&a->k) && is_aligned(&a->v);
    if (u.rows <= FEW_ROWS) return attend_few(gpu, a, &u, bindings, vec, 0, error);
    if (dbt_gpu_hal(gpu)->features & DBT_HAL_SOFTWARE)
        return attend_alone(gpu, a, &u, bindings, vec, error);
    int32_t slices = 1;
    while (slices < MAX_SLICES && slices * SLICE < a->v_dim) slices *= 2;
    const dbt_shader_param params[] = {
        {p_slices, slices}, {p_half, a->kv_type == DIBIT_TYPE_FLOAT16}, {p_vec, vec}};
    const uint64_t blocks = (uint64_t)divide_up(u.rows, MANY_ROWS);
    const uint64_t columns = (uint64_t)divide_up(a->v_dim, (int64_t)slices * SLICE);
    const uint64_t units[3] = {u.heads * blocks * columns};
    return record(gpu, many, params, 3, bindings, 1u << Y, &u, units, error);
}

/* ---- Appending ---- */

typedef struct append_uniforms { /* Append of attention_append.wgsl */
    uint32_t tokens, heads, kv_heads, k_dim, v_dim, stored, rows, position;
    uint32_t has_positions, has_norm;
    float epsilon;
    uint32_t biases;
    uint32_t half, interleaved, unused[2];
    place q, k, v, q_out, k_out, v_out;
} append_uniforms;

enum { TURN, QUERIES, KEYS_VALUES, BIAS }; /* FORM */

static dibit_status record_append(dbt_gpu *gpu, const dbt_gpu_append *a, int32_t form,
                                  append_uniforms u, dibit_error *error) {
    dbt_hal_buffer *const filler = a->q.buffer ? a->q.buffer : a->k.buffer;
    dbt_hal_buffer *const norm = form == QUERIES ? a->q_norm : a->k_norm;
    dbt_hal_binding bindings[10] = {{0}};
    const bool queries = form != KEYS_VALUES, keys = form != QUERIES;
    if (queries) bindings[0].buffer = a->q.buffer;
    if (queries) bindings[7].buffer = a->q_out.buffer;
    if (keys) bindings[1].buffer = a->k.buffer ? a->k.buffer : filler;
    if (keys) bindings[2].buffer = a->v.buffer ? a->v.buffer : filler;
    if (keys) bindings[8].buffer = a->k_out.buffer;
    if (keys) bindings[9].buffer = a->v_out.buffer;
    if (form != BIAS) bindings[3].buffer = a->cos ? a->cos : filler;
    if (form != BIAS) bindings[4].buffer = a->sin ? a->sin : filler;
    if (form == BIAS) bindings[5].buffer = a->bias;
    if (form == QUERIES || form == KEYS_VALUES) {
        bindings[5].buffer = norm ? norm : filler;
        bindings[6].buffer = a->positions ? a->positions : filler;
        u.has_norm = norm != NULL;
    }
    const dbt_shader_param params[] = {{p_form, form},
                                       {p_half, keys && a->kv_type == DIBIT_TYPE_FLOAT16}};
    const uint64_t heads = (queries ? u.heads : 0) + (keys ? 2 * (uint64_t)u.kv_heads : 0);
    const uint64_t tokens = keys && u.rows > u.tokens ? u.rows : u.tokens;
    dbt_gpu_dispatch d = {.shader = append,
                          .params = params,
                          .n_params = 2,
                          .bindings = bindings,
                          .n_bindings = 10,
                          .written = (queries ? 1u << 7 : 0) | (keys ? 3u << 8 : 0),
                          .uniforms = &u,
                          .uniform_bytes = sizeof u};
    DBT_TRY(dbt_gpu_grid(gpu, tokens * heads, d.workgroups, error));
    return dbt_gpu_record(gpu, &d, error);
}

dibit_status dbt_gpu_append_tokens(dbt_gpu *gpu, const dbt_gpu_append *a, dibit_error *error) {
    const bool queries = a->q_out.buffer && a->tokens > 0 && a->heads > 0;
    const bool keys = a->k_out.buffer && a->v_out.buffer && a->rows > 0 && a->kv_heads > 0;
    DBT_FAIL_IF(!fits(&a->q, a->heads, a->tokens, a->k_dim) ||
                    !fits(&a->k, a->kv_heads, a->tokens, a->k_dim) ||
                    !fits(&a->v, a->kv_heads, a->tokens, a->v_dim) ||
                    !fits(&a->k_out, a->kv_heads, a->rows, a->k_dim) ||
                    !fits(&a->v_out, a->kv_heads, a->rows, a->v_dim),
                error, DIBIT_TOO_LARGE, "more than 2^31 elements of queries, keys or values");
    const append_uniforms u = {.tokens = (uint32_t)a->tokens,
                               .heads = (uint32_t)a->heads,
                               .kv_heads = (uint32_t)a->kv_heads,
                               .k_dim = (uint32_t)a->k_dim,
                               .v_dim = (uint32_t)a->v_dim,
                               .stored = (uint32_t)a->stored,
                               .rows = (uint32_t)a->rows,
                               .position = (uint32_t)a->position,
                               .has_positions = a->positions != NULL,
                               .epsilon = a->epsilon,
                               .biases = a->kv_bias,
                               .half = (uint32_t)a->half,
                               .interleaved = a->interleaved,
                               .q = place_of(&a->q),
                               .k = place_of(&a->k),
                               .v = place_of(&a->v),
                               .q_out = place_of(&a->q_out),
                               .k_out = place_of(&a->k_out),
                               .v_out = place_of(&a->v_out)};
    if (a->bias) return record_append(gpu, a, BIAS, u, error);
    if (queries && keys && !a->q_norm && !a->k_norm && !a->positions) {
        return record_append(gpu, a, TURN, u, error);
    }
    if (queries) DBT_TRY(record_append(gpu, a, QUERIES, u, error));
    return keys ? record_append(gpu, a, KEYS_VALUES, u, error) : DIBIT_OK;
}

/* ---- Both at once ---- */

/* A decoded token whose row and head fit attention_new.inc.wgsl. */
static bool can_join(const dbt_gpu_append *a, const dbt_gpu_attention *t, const dbt_hal_limits *l) {
    enum { MAX_DIM = 256 };
    const uint32_t bindings = a->q_norm ? 8 : 7;
    const dbt_gpu_rows *const rows[] = {&a->k_out, &a->v_out, &t->k, &t->v};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!is_aligned(rows[i])) return false;
    }
    return a->tokens == 1 && a->stored == 1 && a->rows == 1 && t->queries == 1 && !a->bias &&
           !a->positions && a->q.buffer && a->q.buffer == a->k.buffer &&
           a->q.buffer == a->v.buffer && a->k_out.buffer && a->v_out.buffer &&
           a->k_out.buffer != a->v_out.buffer && !a->q_norm == !a->k_norm &&
           !(a->q_norm && t->sink) && !t->terms[0].buffer && !t->terms[1].buffer &&
           t->k_dim % 4 == 0 && t->v_dim % 4 == 0 && t->k_dim <= MAX_DIM && t->v_dim <= MAX_DIM &&
           t->heads / t->kv_heads <= FEW_ROWS && t->first_query == t->n_keys - 1 &&
           l->max_bindings >= bindings;
}

static dibit_status append_and_attend(dbt_gpu *gpu, const dbt_gpu_append *a,
                                      const dbt_gpu_attention *t, dibit_error *error) {
    uniforms u;
    describe(t, &u);
    u.q = place_of(&a->q);
    u.new_k = place_of(&a->k);
    u.new_v = place_of(&a->v);
    u.half = (uint32_t)a->half;
    u.interleaved = a->interleaved;
    u.angles = (uint32_t)(a->position * a->half);
    u.epsilon = a->epsilon;
    dbt_hal_buffer *const any = a->q.buffer;
    dbt_hal_binding bindings[N_BINDINGS] = {[0].buffer = any,
                                            [1].buffer = t->k.buffer,
                                            [2].buffer = t->v.buffer,
                                            [Y].buffer = t->y.buffer,
                                            [6].buffer = a->q_norm ? NULL
                                                         : t->sink ? t->sink
                                                                   : any,
                                            [7].buffer = a->cos ? a->cos : any,
                                            [8].buffer = a->sin ? a->sin : any,
                                            [9].buffer = a->q_norm,
                                            [10].buffer = a->k_norm};
    return attend_few(gpu, t, &u, bindings, 1, a->q_norm ? 2 : 1, error);
}

dibit_status dbt_gpu_append_and_attend(dbt_gpu *gpu, const dbt_gpu_append *append_to,
                                       const dbt_gpu_attention *attention, dibit_error *error) {
    dbt_gpu_append a = *append_to;
    dbt_gpu_attention t = *attention;
    const dbt_hal_limits *const limits = &dbt_gpu_hal(gpu)->limits;
    const bool fit = fits(&a.q, a.heads, 1, a.k_dim) && fits(&a.k, a.kv_heads, 1, a.k_dim) &&
                     fits(&a.v, a.kv_heads, 1, a.v_dim) &&
                     fits(&t.k, t.kv_heads, t.n_keys, t.k_dim) &&
                     fits(&t.v, t.kv_heads, t.n_keys, t.v_dim) && t.heads > 0 && t.v_dim > 0;
    if (fit && can_join(&a, &t, limits)) return append_and_attend(gpu, &a, &t, error);
    t.q = a.q;
    if (a.half > 0 || a.q_norm) {
        const uint64_t dim = (uint64_t)a.k_dim, n = (uint64_t)(a.tokens * a.heads) * dim;
        t.q = (dbt_gpu_rows){.head = dim, .token = (uint64_t)a.heads * dim};
        DBT_TRY(
            dbt_gpu_scratch(gpu, DBT_ATTENTION_SCRATCH_Q, n * sizeof(float), &t.q.buffer, error));
        a.q_out = t.q;
    }
    DBT_TRY(dbt_gpu_append_tokens(gpu, &a, error));
    return dbt_gpu_attend(gpu, &t, error);
}

/* ---- Masks ---- */

typedef struct mask_uniforms { /* Uniforms of attention_mask.wgsl */
    uint32_t count, rows, total, batch, starts, batch_stride, row_stride, first_row;
    float filler;
} mask_uniforms;

dibit_status dbt_gpu_mask_term(dbt_gpu *gpu, const dbt_gpu_mask *m, dbt_hal_buffer **out,
                               dibit_error *error) {
    enum { WORKGROUP = 256 };
    uint64_t n;
    DBT_FAIL_IF(!dbt_mul_u64((uint64_t)m->batch * (uint64_t)m->rows, (uint64_t)m->total, &n) ||
                    n > INT32_MAX,
                error, DIBIT_TOO_LARGE, "a mask of more than 2^31 elements");
    const mask_uniforms u = {.count = (uint32_t)n,
                             .rows = (uint32_t)m->rows,
                             .total = (uint32_t)m->total,
                             .batch = (uint32_t)m->batch,
                             .starts = m->starts,
                             .batch_stride = (uint32_t)m->batch_stride,
                             .row_stride = (uint32_t)m->row_stride,
                             .first_row = (uint32_t)m->first_row,
                             .filler = m->filler};
    DBT_TRY(dbt_gpu_scratch(gpu, DBT_ATTENTION_SCRATCH_MASK, n * sizeof(float), out, error));
    const dbt_hal_binding bindings[] = {{.buffer = m->buffer}, {.buffer = *out}};
    const dbt_shader_param params[] = {{p_form, m->lengths ? 0 : 1}};
    dbt_gpu_dispatch d = {.shader = mask_shader,
                          .params = params,
                          .n_params = 1,
                          .bindings = bindings,
                          .n_bindings = 2,
                          .written = 1u << 1,
                          .uniforms = &u,
                          .uniform_bytes = sizeof u};
    DBT_TRY(dbt_gpu_grid(gpu, (n + WORKGROUP - 1) / WORKGROUP, d.workgroups, error));
    return dbt_gpu_record(gpu, &d, error);
}

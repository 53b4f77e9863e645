/* RotaryEmbedding of com.microsoft and of ai.onnx (opset 23), and MRotaryEmbedding: [batch, heads,
 * tokens, dim] or [batch, tokens, heads * dim], every head's row turned by its token's position.
 * A token of MRotaryEmbedding has three positions (time, height, width): mrope_section says how many
 * pairs turn by which, mrope_layout which ones. */
#include <math.h>
#include <stddef.h>

#include "ops/op.h"
#include "ops/rotary/rotary.h"

typedef struct rotary_attrs {
    int64_t interleaved, num_heads, rotary_embedding_dim, is_packed_batching;
    float scale;
    dbt_attr_ints mrope_section;
    int64_t mrope_layout;
} rotary_attrs;

typedef enum rotary_kind { CONTRIB, ONNX, MULTIMODAL } rotary_kind;
enum { SECTIONED, INTERLEAVED }; /* mrope_layout */

#define ATTR_INT(field)                                                                            \
    {.name = #field, .kind = DBT_ATTR_INT, .offset = offsetof(rotary_attrs, field)}

/* ai.onnx has the first three, RotaryEmbedding of com.microsoft the first five. */
static const dbt_attr_def attrs[] = {
    ATTR_INT(interleaved),
    ATTR_INT(num_heads),
    ATTR_INT(rotary_embedding_dim),
    ATTR_INT(is_packed_batching),
    {.name = "scale", .kind = DBT_ATTR_FLOAT, .offset = offsetof(rotary_attrs, scale), .f = 1.0f},
    {.name = "mrope_section",
     .kind = DBT_ATTR_INTS,
     .required = true,
     .offset = offsetof(rotary_attrs, mrope_section)},
    ATTR_INT(mrope_layout),
};

/* Which inputs: the contrib ops have position_ids second, ai.onnx last and optional. */
static uint32_t ids_input(const dbt_node *node) { return node->op->kind == ONNX ? 3 : 1; }
static uint32_t cos_input(const dbt_node *node) { return node->op->kind == ONNX ? 1 : 2; }

static bool has(const dbt_infer *f, uint32_t i) { return i < f->n_inputs && f->in[i]; }

static dibit_status check_sections(const dbt_infer *f, const rotary_attrs *a) {
    const int64_t *const n = a->mrope_section.v;
    DBT_FAIL_IF(a->mrope_section.n != 3 || n[0] < 0 || n[1] < 0 || n[2] < 0 || n[0] > INT32_MAX ||
                    n[1] > INT32_MAX || n[2] > INT32_MAX,
                f->error, DIBIT_BAD_FILE, "mrope_section must be three numbers, none negative");
    DBT_FAIL_IF(a->mrope_layout != SECTIONED && a->mrope_layout != INTERLEAVED, f->error,
                DIBIT_UNSUPPORTED, "mrope_layout %lld is not supported (0 and 1 are)",
                (long long)a->mrope_layout);
    return DIBIT_OK;
}

static dibit_status infer_rotary(dbt_infer *f) {
    const rotary_attrs *const a = f->attrs;
    const uint32_t ids = ids_input(f->node), cos = cos_input(f->node);
    const bool is_multimodal = f->node->op->kind == MULTIMODAL;
    if (is_multimodal) DBT_TRY(check_sections(f, a));
    DBT_FAIL_IF(a->is_packed_batching != 0, f->error, DIBIT_UNSUPPORTED,
                "is_packed_batching is not supported");
    DBT_FAIL_IF(
        a->num_heads < 0 || a->num_heads > INT32_MAX || a->rotary_embedding_dim < 0 ||
            a->rotary_embedding_dim % 2 != 0,
        f->error, DIBIT_BAD_FILE,
        "num_heads %lld must not be negative, rotary_embedding_dim %lld even and not negative",
        (long long)a->num_heads, (long long)a->rotary_embedding_dim);
    DBT_TRY(dbt_infer_type(f, 0, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_rank(f, 0, 3, 4));
    DBT_FAIL_IF(f->node->op->kind == ONNX && f->in[0]->shape.rank == 3 && a->num_heads == 0,
                f->error, DIBIT_BAD_FILE, "an input of rank 3 needs num_heads");
    DBT_TRY(dbt_infer_type(f, ids, DBT_TYPE_BIT(DIBIT_TYPE_INT64)));
    const int32_t lowest[] = {[CONTRIB] = 0, [ONNX] = 2, [MULTIMODAL] = 3};
    DBT_TRY(dbt_infer_rank(f, ids, lowest[f->node->op->kind], is_multimodal ? 3 : 2));
    const int32_t cache_rank = has(f, ids) ? 2 : 3;
    for (uint32_t i = cos; i < cos + 2; i++) {
        DBT_FAIL_IF(!has(f, i), f->error, DIBIT_BAD_FILE, "input %u is missing", (unsigned)i);
        DBT_TRY(dbt_infer_same_type(f, i, 0));
        DBT_TRY(dbt_infer_rank(f, i, cache_rank, cache_rank));
    }
    return dbt_infer_like_first(f);
}

typedef struct rotary {
    const float *x, *cos, *sin;
    float *y;
    const int64_t *ids;
    int64_t ids_count, batch, tokens, heads, dim, half, tasks;
    int64_t head_stride, token_stride;
    bool interleaved;
} rotary;

/* Which of the three positions turns pair p. */
static int64_t stream_of(const rotary_attrs *a, int64_t p) {
    const int64_t *const n = a->mrope_section.v;
    if (a->mrope_layout == SECTIONED) return p < n[0] ? 0 : p < n[0] + n[1] ? 1 : 2;
    const int64_t stream = p % 3;
    return p < 3 * n[stream] ? stream : 0;
}

/* Gathers every token's angles from the three rows of the caches: tables of their own, in scratch. */
static void mix_streams(const dbt_cpu_call *c, rotary *r) {
    const int64_t n = r->batch * r->tokens;
    float *const cos = c->scratch, *const sin = cos + n * r->half;
    for (int64_t p = 0; p < r->half; p++) {
        const int64_t *const ids = r->ids + stream_of(c->attrs, p) * n;
        for (int64_t t = 0; t < n; t++) {
            cos[t * r->half + p] = r->cos[ids[t] * r->half + p];
            sin[t * r->half + p] = r->sin[ids[t] * r->half + p];
        }
    }
    r->cos = cos;
    r->sin = sin;
    r->ids = NULL;
}

/* The row of the caches for token s of batch row b. */
static int64_t cache_row(const rotary *r, int64_t b, int64_t s) {
    if (!r->ids) return b * r->tokens + s;
    return r->ids_count == 1 ? r->ids[0] + s : r->ids[b * r->tokens + s];
}

static void one_token(const rotary *r, int64_t token) {
    const int64_t b = token / r->tokens, s = token % r->tokens, at = cache_row(r, b, s) * r->half;
    const int64_t first = b * r->tokens * r->heads * r->dim + s * r->token_stride;
    for (int64_t h = 0; h < r->heads; h++) {
        const int64_t i = first + h * r->head_stride;
        dbt_rotary_row(r->x + i, r->cos + at, r->sin + at, r->half, r->dim, r->interleaved,
                       r->y + i);
    }
}

static void rotary_task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const rotary *const r = ctx;
    const int64_t n = r->batch * r->tokens, end = dbt_task_begin(n, r->tasks, i + 1);
    for (int64_t t = dbt_task_begin(n, r->tasks, i); t < end; t++) one_token(r, t);
}

static dibit_status read_shapes(const dbt_cpu_call *c, rotary *r) {
    const rotary_attrs *const a = c->attrs;
    const dibit_tensor *const x = c->in[0], *const cos = c->in[cos_input(c->node)];
    const dibit_tensor *const sin = c->in[cos_input(c->node) + 1];
    r->half = cos->dims[cos->rank - 1];
    r->batch = x->dims[0];
    if (x->rank == 4) {
        r->heads = x->dims[1];
        r->tokens = x->dims[2];
        r->dim = x->dims[3];
    } else {
        r->tokens = x->dims[1];
        /* The contrib op may leave the heads to the caches' width: a whole head turns. */
        r->heads = a->num_heads > 0 ? a->num_heads : r->half > 0 ? x->dims[2] / (2 * r->half) : 0;
        r->dim = r->heads > 0 ? x->dims[2] / r->heads : 0;
        DBT_FAIL_IF(r->heads * r->dim != x->dims[2], c->error, DIBIT_BAD_INPUT,
                    "the last dim %lld is not a multiple of %lld heads", (long long)x->dims[2],
                    (long long)r->heads);
    }
    const int64_t turned = a->rotary_embedding_dim > 0 ? a->rotary_embedding_dim : r->dim;
    const int64_t *const n = a->mrope_section.v;
    DBT_FAIL_IF(n && n[0] + n[1] + n[2] != r->half, c->error, DIBIT_BAD_INPUT,
                "mrope_section's sum must be the caches' width %lld", (long long)r->half);
    DBT_FAIL_IF(2 * r->half != turned || turned > r->dim, c->error, DIBIT_BAD_INPUT,
                "caches of width %lld do not fit %lld turning elements of %lld", (long long)r->half,
                (long long)turned, (long long)r->dim);
    bool same = cos->rank == sin->rank;
    for (int32_t i = 0; same && i < cos->rank; i++) same = cos->dims[i] == sin->dims[i];
    DBT_FAIL_IF(!same, c->error, DIBIT_BAD_INPUT, "cos_cache and sin_cache differ in shape");
    r->head_stride = x->rank == 4 ? r->tokens * r->dim : r->dim;
    r->token_stride = x->rank == 4 ? r->dim : r->heads * r->dim;
    return DIBIT_OK;
}

static dibit_status check_streams(const dbt_cpu_call *c, rotary *r, const dibit_tensor *ids) {
    const int64_t n = r->batch * r->tokens, rows = c->in[cos_input(c->node)]->dims[0];
    DBT_FAIL_IF(ids->dims[0] != 3 || ids->dims[1] != r->batch || ids->dims[2] != r->tokens,
                c->error, DIBIT_BAD_INPUT, "position_ids must be [3, %lld, %lld]",
                (long long)r->batch, (long long)r->tokens);
    for (int64_t k = 0; k < 3 * n; k++) {
        DBT_FAIL_IF(r->ids[k] < 0 || r->ids[k] >= rows, c->error, DIBIT_OUT_OF_RANGE,
                    "position %lld of token %lld is beyond cos_cache's %lld rows",
                    (long long)r->ids[k], (long long)(k % n), (long long)rows);
    }
    mix_streams(c, r);
    return DIBIT_OK;
}

static dibit_status check_ids(const dbt_cpu_call *c, rotary *r) {
    const uint32_t i = ids_input(c->node);
    const dibit_tensor *const ids = i < c->n_inputs ? c->in[i] : NULL;
    const dibit_tensor *const cos = c->in[cos_input(c->node)];
    if (!ids) {
        DBT_FAIL_IF(
            cos->dims[0] != r->batch || cos->dims[1] != r->tokens, c->error, DIBIT_BAD_INPUT,
            "without position_ids the caches must have a row for each of %lld x %lld tokens",
            (long long)r->batch, (long long)r->tokens);
        return DIBIT_OK;
    }
    r->ids = ids->data;
    r->ids_count = dbt_tensor_count(ids);
    if (c->node->op->kind == MULTIMODAL) return check_streams(c, r, ids);
    const bool is_offset = c->node->op->kind == CONTRIB && ids->rank < 2 && r->ids_count == 1;
    DBT_FAIL_IF(!is_offset &&
                    (ids->rank != 2 || ids->dims[0] != r->batch || ids->dims[1] != r->tokens),
                c->error, DIBIT_BAD_INPUT, "position_ids must be [%lld, %lld]", (long long)r->batch,
                (long long)r->tokens);
    for (int64_t k = 0; k < r->batch * r->tokens; k++) {
        const int64_t p = cache_row(r, k / r->tokens, k % r->tokens);
        DBT_FAIL_IF(p < 0 || p >= cos->dims[0], c->error, DIBIT_OUT_OF_RANGE,
                    "position %lld of token %lld is beyond cos_cache's %lld rows", (long long)p,
                    (long long)k, (long long)cos->dims[0]);
    }
    return DIBIT_OK;
}

static uint64_t scratch_rotary(const dbt_cpu_call *c) {
    if (c->node->op->kind != MULTIMODAL) return 0;
    const dibit_tensor *const x = c->in[0], *const cos = c->in[cos_input(c->node)];
    /* A table that is wider than the input is refused before it is used. */
    const int64_t dim = x->dims[x->rank - 1], width = cos->dims[1] < dim ? cos->dims[1] : dim;
    return (uint64_t)(x->dims[0] * x->dims[x->rank - 2] * width) * 2 * sizeof(float);
}

static dibit_status run_rotary(const dbt_cpu_call *c) {
    const rotary_attrs *const a = c->attrs;
    rotary r = {.x = c->in[0]->data,
                .cos = c->in[cos_input(c->node)]->data,
                .sin = c->in[cos_input(c->node) + 1]->data,
                .y = c->out[0]->data,
                .interleaved = a->interleaved == 1};
    DBT_TRY(read_shapes(c, &r));
    DBT_TRY(check_ids(c, &r));
    r.tasks = dbt_task_count(r.batch * r.tokens, r.heads * r.dim);
    dbt_parallel_for(c->pool, r.tasks, rotary_task, &r);
    return DIBIT_OK;
}

/* Two products and a sum: 3 roundings of what the pair has in size. */
static dibit_status bound_rotary(const dbt_cpu_call *c, float *const *bound) {
    const rotary_attrs *const a = c->attrs;
    rotary r = {.x = c->in[0]->data,
                .cos = c->in[cos_input(c->node)]->data,
                .sin = c->in[cos_input(c->node) + 1]->data,
                .interleaved = a->interleaved == 1};
    DBT_TRY(read_shapes(c, &r));
    DBT_TRY(check_ids(c, &r));
    for (int64_t row = 0; row < r.batch * r.tokens * r.heads; row++) {
        const int64_t h = row % r.heads, token = row / r.heads, b = token / r.tokens;
        const int64_t i =
            b * r.tokens * r.heads * r.dim + token % r.tokens * r.token_stride + h * r.head_stride;
        const int64_t at = cache_row(&r, b, token % r.tokens) * r.half;
        for (int64_t d = 0; d < r.dim; d++) bound[0][i + d] = 0;
        for (int64_t p = 0; p < r.half; p++) {
            const int64_t u = r.interleaved ? 2 * p : p, v = r.interleaved ? 2 * p + 1 : p + r.half;
            const float size = (fabsf(r.x[i + u]) + fabsf(r.x[i + v])) *
                               (fabsf(r.cos[at + p]) + fabsf(r.sin[at + p]));
            bound[0][i + u] = bound[0][i + v] = 3 * 0x1p-24f * size;
        }
    }
    return DIBIT_OK;
}

#define ROTARY(domain_, name_, since_, kind_, min_inputs_, n_attrs_)                               \
    {.domain = domain_,                                                                            \
     .name = name_,                                                                                \
     .since = since_,                                                                              \
     .min_inputs = min_inputs_,                                                                    \
     .max_inputs = 4,                                                                              \
     .min_outputs = 1,                                                                             \
     .max_outputs = 1,                                                                             \
     .kind = kind_,                                                                                \
     .attrs = attrs,                                                                               \
     .n_attrs = n_attrs_,                                                                          \
     .attrs_bytes = sizeof(rotary_attrs),                                                          \
     .infer = infer_rotary,                                                                        \
     .cpu_scratch = scratch_rotary,                                                                \
     .cpu_run = run_rotary,                                                                        \
     .cpu_bound = bound_rotary}

const dbt_op dbt_rotary_ops[] = {
    ROTARY("com.microsoft", "MRotaryEmbedding", 1, MULTIMODAL, 4, 7),
    ROTARY("com.microsoft", "RotaryEmbedding", 1, CONTRIB, 4, 5),
    ROTARY("", "RotaryEmbedding", 23, ONNX, 3, 3),
    {0},
};

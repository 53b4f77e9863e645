/* RotaryEmbedding of com.microsoft and of ai.onnx (opset 23), and MRotaryEmbedding: [batch, heads,
 * tokens, dim] or [batch, tokens, heads * dim], every head's row turned by its token's position.
 * A token of MRotaryEmbedding has three positions (time, height, width): mrope_section says how many
 * pairs turn by which, mrope_layout which ones. */
#include <math.h>
#include <stddef.h>

#include "ops/rotary/rotary.h"
#include "ops/rotary/rotary_op.h"

#define ATTR_INT(field)                                                                            \
    {.name = #field, .kind = DBT_ATTR_INT, .offset = offsetof(dbt_rotary_attrs, field)}

/* ai.onnx has the first three, RotaryEmbedding of com.microsoft the first five. */
static const dbt_attr_def attrs[] = {
    ATTR_INT(interleaved),
    ATTR_INT(num_heads),
    ATTR_INT(rotary_embedding_dim),
    ATTR_INT(is_packed_batching),
    {.name = "scale",
     .kind = DBT_ATTR_FLOAT,
     .offset = offsetof(dbt_rotary_attrs, scale),
     .f = 1.0f},
    {.name = "mrope_section",
     .kind = DBT_ATTR_INTS,
     .required = true,
     .offset = offsetof(dbt_rotary_attrs, mrope_section)},
    ATTR_INT(mrope_layout),
};

static bool has(const dbt_infer *f, uint32_t i) { return i < f->n_inputs && f->in[i]; }

static dibit_status check_sections(const dbt_infer *f, const dbt_rotary_attrs *a) {
    const int64_t *const n = a->mrope_section.v;
    DBT_FAIL_IF(a->mrope_section.n != 3 || n[0] < 0 || n[1] < 0 || n[2] < 0 || n[0] > INT32_MAX ||
                    n[1] > INT32_MAX || n[2] > INT32_MAX,
                f->error, DIBIT_BAD_FILE, "mrope_section must be three numbers, none negative");
    DBT_FAIL_IF(a->mrope_layout != DBT_ROTARY_SECTIONED &&
                    a->mrope_layout != DBT_ROTARY_INTERLEAVED,
                f->error, DIBIT_UNSUPPORTED, "mrope_layout %lld is not supported (0 and 1 are)",
                (long long)a->mrope_layout);
    return DIBIT_OK;
}

static dibit_status infer_rotary(dbt_infer *f) {
    const dbt_rotary_attrs *const a = f->attrs;
    const uint32_t ids = dbt_rotary_ids_input(f->node), cos = dbt_rotary_cos_input(f->node);
    const bool is_multimodal = f->node->op->kind == DBT_ROTARY_MULTIMODAL;
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
    DBT_FAIL_IF(f->node->op->kind == DBT_ROTARY_ONNX && f->in[0]->shape.rank == 3 &&
                    a->num_heads == 0,
                f->error, DIBIT_BAD_FILE, "an input of rank 3 needs num_heads");
    DBT_TRY(dbt_infer_type(f, ids, DBT_TYPE_BIT(DIBIT_TYPE_INT64)));
    const int32_t lowest[] = {
        [DBT_ROTARY_CONTRIB] = 0, [DBT_ROTARY_ONNX] = 2, [DBT_ROTARY_MULTIMODAL] = 3};
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
    dbt_rotary shape;
    const float *x;
    const float *cos, *sin; /* in scratch when several streams are mixed */
    float *y;
    int64_t tasks;
} rotary;

/* Which of the three positions turns pair p. */
static int64_t stream_of(const dbt_rotary_attrs *a, int64_t p) {
    const int64_t *const n = a->mrope_section.v;
    if (a->mrope_layout == DBT_ROTARY_SECTIONED) return p < n[0] ? 0 : p < n[0] + n[1] ? 1 : 2;
    const int64_t stream = p % 3;
    return p < 3 * n[stream] ? stream : 0;
}

/* Gathers every token's angles from the three rows of the caches: tables of their own, in scratch. */
static void mix_streams(const dbt_cpu_call *c, rotary *r) {
    const int64_t n = r->shape.batch * r->shape.tokens, half = r->shape.half;
    float *const cos = c->scratch, *const sin = cos + n * half;
    for (int64_t p = 0; p < half; p++) {
        const int64_t *const ids = r->shape.ids + stream_of(c->attrs, p) * n;
        for (int64_t t = 0; t < n; t++) {
            cos[t * half + p] = r->cos[ids[t] * half + p];
            sin[t * half + p] = r->sin[ids[t] * half + p];
        }
    }
    r->cos = cos;
    r->sin = sin;
    r->shape.ids = NULL;
}

static void one_token(const rotary *r, int64_t token) {
    const dbt_rotary *const t = &r->shape;
    const int64_t b = token / t->tokens, s = token % t->tokens;
    const int64_t at = dbt_rotary_position(t, b, s) * t->half;
    const int64_t first = b * t->tokens * t->heads * t->dim + s * t->token_stride;
    for (int64_t h = 0; h < t->heads; h++) {
        const int64_t i = first + h * t->head_stride;
        dbt_rotary_row(r->x + i, r->cos + at, r->sin + at, t->half, t->dim, t->a->interleaved == 1,
                       r->y + i);
    }
}

static void rotary_task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const rotary *const r = ctx;
    const int64_t n = r->shape.batch * r->shape.tokens, end = dbt_task_begin(n, r->tasks, i + 1);
    for (int64_t t = dbt_task_begin(n, r->tasks, i); t < end; t++) one_token(r, t);
}

static uint64_t scratch_rotary(const dbt_cpu_call *c) {
    if (c->node->op->kind != DBT_ROTARY_MULTIMODAL) return 0;
    const dibit_tensor *const x = c->in[0], *const cos = c->in[dbt_rotary_cos_input(c->node)];
    /* A table that is wider than the input is refused before it is used. */
    const int64_t dim = x->dims[x->rank - 1], width = cos->dims[1] < dim ? cos->dims[1] : dim;
    return (uint64_t)(x->dims[0] * x->dims[x->rank - 2] * width) * 2 * sizeof(float);
}

static dibit_status read_rotary(const dbt_cpu_call *c, rotary *r) {
    const uint32_t cos = dbt_rotary_cos_input(c->node);
    *r = (rotary){.x = c->in[0]->data, .cos = c->in[cos]->data, .sin = c->in[cos + 1]->data};
    DBT_TRY(dbt_rotary_read(c->node, c->in, c->n_inputs, &r->shape, c->error));
    if (r->shape.streams > 1) mix_streams(c, r);
    return DIBIT_OK;
}

static dibit_status run_rotary(const dbt_cpu_call *c) {
    rotary r;
    DBT_TRY(read_rotary(c, &r));
    r.y = c->out[0]->data;
    const int64_t tokens = r.shape.batch * r.shape.tokens;
    r.tasks = dbt_task_count(tokens, r.shape.heads * r.shape.dim);
    dbt_parallel_for(c->pool, r.tasks, rotary_task, &r);
    return DIBIT_OK;
}

/* Two products and a sum: 3 roundings of what the pair has in size. */
static void bound_row(const rotary *r, int64_t b, int64_t s, int64_t h, float *bound) {
    const dbt_rotary *const t = &r->shape;
    const int64_t i = b * t->tokens * t->heads * t->dim + s * t->token_stride + h * t->head_stride;
    const int64_t at = dbt_rotary_position(t, b, s) * t->half;
    for (int64_t d = 0; d < t->dim; d++) bound[i + d] = 0;
    for (int64_t p = 0; p < t->half; p++) {
        const bool neighbours = t->a->interleaved == 1;
        const int64_t u = i + (neighbours ? 2 * p : p), v = neighbours ? u + 1 : u + t->half;
        const float size =
            (fabsf(r->x[u]) + fabsf(r->x[v])) * (fabsf(r->cos[at + p]) + fabsf(r->sin[at + p]));
        bound[u] = bound[v] = 3 * 0x1p-24f * size;
    }
}

static dibit_status bound_rotary(const dbt_cpu_call *c, float *const *bound) {
    rotary r;
    DBT_TRY(read_rotary(c, &r));
    for (int64_t token = 0; token < r.shape.batch * r.shape.tokens; token++) {
        for (int64_t h = 0; h < r.shape.heads; h++) {
            bound_row(&r, token / r.shape.tokens, token % r.shape.tokens, h, bound[0]);
        }
    }
    return DIBIT_OK;
}

/* Positions are read on the host. */
#define ROTARY(domain_, name_, since_, kind_, min_inputs_, n_attrs_)                               \
    {.domain = domain_,                                                                            \
     .name = name_,                                                                                \
     .since = since_,                                                                              \
     .min_inputs = min_inputs_,                                                                    \
     .max_inputs = 4,                                                                              \
     .min_outputs = 1,                                                                             \
     .max_outputs = 1,                                                                             \
     .kind = kind_,                                                                                \
     .host_inputs = 1u << ((kind_) == DBT_ROTARY_ONNX ? 3 : 1),                                    \
     .attrs = attrs,                                                                               \
     .n_attrs = n_attrs_,                                                                          \
     .attrs_bytes = sizeof(dbt_rotary_attrs),                                                      \
     .infer = infer_rotary,                                                                        \
     .cpu_scratch = scratch_rotary,                                                                \
     .cpu_run = run_rotary,                                                                        \
     .cpu_bound = bound_rotary,                                                                    \
     .gpu_encode = dbt_rotary_gpu_encode}

const dbt_op dbt_rotary_ops[] = {
    ROTARY("com.microsoft", "MRotaryEmbedding", 1, DBT_ROTARY_MULTIMODAL, 4, 7),
    ROTARY("com.microsoft", "RotaryEmbedding", 1, DBT_ROTARY_CONTRIB, 4, 5),
    ROTARY("", "RotaryEmbedding", 23, DBT_ROTARY_ONNX, 3, 3),
    {0},
};

/* GroupQueryAttention against a naive computation of its definition, over seeded choices of every
 * input and attribute; and what its states promise. Outputs of ONNX Runtime are among the recorded
 * cases in tests/data. */
#include "dbt_test.h"

#include "base/cpu.h"
#include "base/half.h"
#include "op_harness.h"
#include "ops/group_query_attention/group_query_attention.h"

enum { MAX_POSITIONS = 64 };

typedef struct problem {
    int64_t batch, queries, capacity, heads, kv_heads, dim, half, total;
    bool packed, has_past, first;
    int32_t seqlens[4], total32;
    float *query, *key, *value, *past[2], *cos, *sin, *bias, *sink, *norm[2];
    int64_t *ids, bias_batch, bias_heads;
    dbt_onnx_attr attrs[16];
    uint32_t n_attrs;
    dbt_gqa_attrs a;
    dibit_tensor inputs[DBT_GQA_INPUTS];
} problem;

static int64_t pick(uint64_t *seed, int64_t lo, int64_t hi) {
    return lo + (int64_t)(dbt_test_random(seed) % (uint64_t)(hi - lo + 1));
}

static float *randoms(dbt_arena *arena, uint64_t *seed, int64_t n) {
    float *const x = dbt_arena_array(arena, (uint64_t)n, sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = dbt_test_uniform(seed, -1.5f, 1.5f);
    return x;
}

static void attr_int(problem *p, const char *name, int64_t value) {
    p->attrs[p->n_attrs++] = (dbt_onnx_attr)DBT_INT(name, value);
}
static void attr_float(problem *p, const char *name, float value) {
    p->attrs[p->n_attrs++] = (dbt_onnx_attr)DBT_FLOAT(name, value);
}

static void set_input(problem *p, uint32_t i, dibit_type type, void *data, int32_t rank, int64_t a,
                      int64_t b, int64_t c, int64_t d) {
    p->inputs[i] = (dibit_tensor){
        .name = "input", .type = type, .rank = rank, .dims = {a, b, c, d}, .data = data};
}

static void choose_lengths(problem *p, uint64_t *seed) {
    p->batch = pick(seed, 1, 3);
    p->queries = pick(seed, 1, 9);
    const bool window = p->a.sliding_window_cache == 1;
    p->first = pick(seed, 0, 1) == 0;
    p->has_past = window || !p->first || pick(seed, 0, 1) == 0;
    const int64_t past = p->first ? 0 : pick(seed, 1, 30);
    p->total = past + p->queries;
    p->capacity = window ? p->a.local_window_size + pick(seed, 0, 5)
                         : past + (pick(seed, 0, 1) ? p->queries + 3 : 0);
    for (int64_t b = 0; b < p->batch; b++) {
        const int64_t least = p->first ? 1 : p->queries;
        p->seqlens[b] = (int32_t)(b == 0 ? p->total : pick(seed, least, p->total)) - 1;
    }
    p->total32 = (int32_t)p->total;
}

static void choose_attrs(problem *p, uint64_t *seed) {
    dbt_gqa_attrs *const a = &p->a;
    *a = (dbt_gqa_attrs){.local_window_size = -1, .causal = 1, .qk_norm_epsilon = 1e-6f};
    a->kv_num_heads = p->kv_heads = pick(seed, 1, 3);
    a->num_heads = p->heads = p->kv_heads * pick(seed, 1, 3);
    p->dim = 4 * pick(seed, 1, 6);
    attr_int(p, "num_heads", a->num_heads);
    attr_int(p, "kv_num_heads", a->kv_num_heads);
    if (pick(seed, 0, 1)) attr_float(p, "scale", a->scale = 0.3f);
    if (pick(seed, 0, 2) == 0) attr_float(p, "softcap", a->softcap = 1.25f);
    if (pick(seed, 0, 2) == 0) attr_int(p, "smooth_softmax", a->smooth_softmax = 1);
    if (pick(seed, 0, 4) == 0) {
        attr_int(p, "causal", a->causal = 0);
    } else if (pick(seed, 0, 1)) {
        attr_int(p, "local_window_size", a->local_window_size = pick(seed, 1, 7));
        if (pick(seed, 0, 1)) attr_int(p, "sliding_window_cache", a->sliding_window_cache = 1);
    }
    if (pick(seed, 0, 2)) {
        attr_int(p, "do_rotary", a->do_rotary = 1);
        attr_int(p, "rotary_interleaved", a->rotary_interleaved = pick(seed, 0, 1));
        p->half = pick(seed, 1, p->dim / 2);
    }
}

static void choose_inputs(problem *p, dbt_arena *arena, uint64_t *seed) {
    const int64_t width = p->heads * p->dim, kv_width = p->kv_heads * p->dim;
    const int64_t tokens = p->batch * p->queries;
    p->packed = pick(seed, 0, 2) == 0;
    const int64_t q_width = p->packed ? width + 2 * kv_width : width;
    p->query = randoms(arena, seed, tokens * q_width);
    set_input(p, 0, DIBIT_TYPE_FLOAT, p->query, 3, p->batch, p->queries, q_width, 0);
    if (!p->packed) {
        p->key = randoms(arena, seed, tokens * kv_width);
        p->value = randoms(arena, seed, tokens * kv_width);
        set_input(p, 1, DIBIT_TYPE_FLOAT, p->key, 3, p->batch, p->queries, kv_width, 0);
        set_input(p, 2, DIBIT_TYPE_FLOAT, p->value, 3, p->batch, p->queries, kv_width, 0);
    }
    for (uint32_t i = 0; i < 2 && p->has_past; i++) {
        p->past[i] = randoms(arena, seed, p->batch * kv_width * p->capacity);
        set_input(p, 3 + i, DIBIT_TYPE_FLOAT, p->past[i], 4, p->batch, p->kv_heads, p->capacity,
                  p->dim);
    }
    set_input(p, 5, DIBIT_TYPE_INT32, p->seqlens, 1, p->batch, 0, 0, 0);
    set_input(p, 6, DIBIT_TYPE_INT32, &p->total32, 1, 1, 0, 0, 0);
    if (p->half > 0) {
        p->cos = randoms(arena, seed, MAX_POSITIONS * p->half);
        p->sin = randoms(arena, seed, MAX_POSITIONS * p->half);
        set_input(p, 7, DIBIT_TYPE_FLOAT, p->cos, 2, MAX_POSITIONS, p->half, 0, 0);
        set_input(p, 8, DIBIT_TYPE_FLOAT, p->sin, 2, MAX_POSITIONS, p->half, 0, 0);
    }
    if (p->half > 0 && pick(seed, 0, 1)) {
        p->ids = dbt_arena_array(arena, (uint64_t)tokens, sizeof *p->ids);
        for (int64_t i = 0; i < tokens; i++) p->ids[i] = pick(seed, 0, MAX_POSITIONS - 10);
        set_input(p, 9, DIBIT_TYPE_INT64, p->ids, 2, p->batch, p->queries, 0, 0);
    }
    if (pick(seed, 0, 1)) {
        p->bias_batch = pick(seed, 0, 1) ? p->batch : 1;
        p->bias_heads = pick(seed, 0, 1) ? p->heads : 1;
        p->bias = randoms(arena, seed, p->bias_batch * p->bias_heads * p->queries * p->total);
        set_input(p, 10, DIBIT_TYPE_FLOAT, p->bias, 4, p->bias_batch, p->bias_heads, p->queries,
                  p->total);
    }
    if (pick(seed, 0, 1)) {
        p->sink = randoms(arena, seed, p->heads);
        set_input(p, 11, DIBIT_TYPE_FLOAT, p->sink, 1, p->heads, 0, 0, 0);
    }
    for (uint32_t i = 0; i < 2 && p->heads % 2; i++) {
        p->norm[i] = randoms(arena, seed, p->dim);
        set_input(p, 14 + i, DIBIT_TYPE_FLOAT, p->norm[i], 1, p->dim, 0, 0, 0);
    }
}

/* ---- The definition --------------------------------------------------------------------------- */

/* Element d of new token s; part 0 query, 1 key, 2 value. */
static const float *new_row(const problem *p, int64_t b, int64_t s, int part, int64_t h) {
    const int64_t token = b * p->queries + s, width = p->heads * p->dim;
    const int64_t kv_width = p->kv_heads * p->dim;
    if (p->packed) {
        return p->query + token * (width + 2 * kv_width) + h * p->dim +
               (part == 0   ? 0
                : part == 1 ? width
                            : width + kv_width);
    }
    return part == 0   ? p->query + token * width + h * p->dim
           : part == 1 ? p->key + token * kv_width + h * p->dim
                       : p->value + token * kv_width + h * p->dim;
}

static void turned(const problem *p, int64_t b, int64_t s, int64_t past, int part, int64_t h,
                   double *y) {
    const float *const x = new_row(p, b, s, part, h);
    double mean = 0;
    for (int64_t d = 0; d < p->dim; d++) mean += (double)x[d] * (double)x[d] / (double)p->dim;
    for (int64_t d = 0; d < p->dim; d++) {
        y[d] = (double)x[d];
        if (p->norm[part]) y[d] *= (double)p->norm[part][d] / sqrt(mean + 1e-6);
    }
    const int64_t at = !p->ids ? past + s : p->first ? p->ids[0] + s : p->ids[b * p->queries + s];
    for (int64_t i = 0; i < p->half; i++) {
        const bool inter = p->a.rotary_interleaved == 1;
        double *const u = &y[inter ? 2 * i : i], *const v = &y[inter ? 2 * i + 1 : i + p->half];
        const double c = (double)p->cos[at * p->half + i], n = (double)p->sin[at * p->half + i];
        const double a = *u, e = *v;
        *u = a * c - e * n;
        *v = e * c + a * n;
    }
}

/* Key (part 1) or value (2) of absolute position t. */
static void cached(const problem *p, int64_t b, int64_t t, int64_t past, int part, int64_t kv,
                   double *y) {
    if (t >= past) {
        if (part == 1) {
            turned(p, b, t - past, past, 1, kv, y);
        } else {
            for (int64_t d = 0; d < p->dim; d++) y[d] = (double)new_row(p, b, t - past, 2, kv)[d];
        }
        return;
    }
    if (p->a.sliding_window_cache == 1) {
        t -= past - dbt_gqa_resident(past, p->capacity, p->a.local_window_size);
    }
    const float *const x = p->past[part - 1] + ((b * p->kv_heads + kv) * p->capacity + t) * p->dim;
    for (int64_t d = 0; d < p->dim; d++) y[d] = (double)x[d];
}

/* y[dim] of one query, and the bound of a float computation: absolute errors of scores become
 * relative errors of the weights. */
static void naive_query(const problem *p, int64_t b, int64_t h, int64_t s, double *y,
                        double *bound) {
    const int64_t total = p->seqlens[b] + 1, past = p->first ? 0 : total - p->queries;
    const int64_t at = past + s, kv = h / (p->heads / p->kv_heads);
    const double scale = p->a.scale != 0.0f ? (double)p->a.scale : 1 / sqrt((double)p->dim);
    double q[64], k[64], v[64], x[64], worst = 0;
    double top = p->sink ? (double)p->sink[h] : p->a.smooth_softmax ? 0 : (double)-INFINITY;
    const double sink = top;
    turned(p, b, s, past, 0, h, q);
    for (int64_t t = 0; t < total; t++) {
        x[t] = (double)-INFINITY;
        if (p->a.causal && t > at) continue;
        if (p->a.local_window_size > 0 && t <= at - p->a.local_window_size) continue;
        cached(p, b, t, past, 1, kv, k);
        double sum = 0, size = 0;
        for (int64_t d = 0; d < p->dim; d++) sum += q[d] * k[d], size += fabs(q[d] * k[d]);
        x[t] = sum * scale;
        if (p->a.softcap > 0) x[t] = (double)p->a.softcap * tanh(x[t] / (double)p->a.softcap);
        if (p->bias) {
            const int64_t i = p->bias_batch == 1 ? 0 : b, j = p->bias_heads == 1 ? 0 : h;
            x[t] += (double)p->bias[((i * p->bias_heads + j) * p->queries + s) * p->total + t];
        }
        /* Scores: gamma of the sum, of the norms' sums, and a few roundings each. */
        worst = fmax(worst, (3 * (double)p->dim + 32) * size * scale + 8 * fabs(x[t]));
        top = fmax(top, x[t]);
    }
    double sum = exp(sink - top);
    for (int64_t t = 0; t < total; t++) sum += exp(x[t] - top);
    memset(y, 0, (size_t)p->dim * sizeof *y);
    memset(bound, 0, (size_t)p->dim * sizeof *bound);
    const double relative = (2 * worst + (double)total + 16) * 0x1p-24;
    for (int64_t t = 0; t < total; t++) {
        if (!(x[t] > (double)-INFINITY)) continue;
        cached(p, b, t, past, 2, kv, v);
        for (int64_t d = 0; d < p->dim; d++) {
            y[d] += exp(x[t] - top) / sum * v[d];
            bound[d] += relative * 1.01 * fabs(exp(x[t] - top) / sum * v[d]);
        }
    }
}

static void check_output(const problem *p, const dibit_tensor *out, uint64_t seed) {
    for (int64_t b = 0; b < p->batch; b++) {
        for (int64_t h = 0; h < p->heads; h++) {
            for (int64_t s = 0; s < p->queries; s++) {
                double y[64], bound[64];
                naive_query(p, b, h, s, y, bound);
                const float *const got =
                    (const float *)out->data + ((b * p->queries + s) * p->heads + h) * p->dim;
                for (int64_t d = 0; d < p->dim; d++) {
                    if (fabs((double)got[d] - y[d]) <= bound[d] + 1e-37) continue;
                    fail_msg("seed %llu: batch %lld head %lld query %lld dim %lld: expected %.9g, "
                             "got %.9g (bound %.3g)",
                             (unsigned long long)seed, (long long)b, (long long)h, (long long)s,
                             (long long)d, y[d], (double)got[d], bound[d]);
                }
            }
        }
    }
}

/* Present holds what the definition says, then (but for a prompt's padding) zeros. */
static void check_present(const problem *p, const dibit_tensor *out, int part, uint64_t seed) {
    const int64_t capacity = out->dims[2];
    for (int64_t b = 0; b < p->batch; b++) {
        const int64_t total = p->seqlens[b] + 1, past = p->first ? 0 : total - p->queries;
        const int64_t held = p->a.sliding_window_cache == 1
                                 ? dbt_gqa_resident(total, capacity, p->a.local_window_size)
                                 : total;
        const bool padded = p->a.sliding_window_cache != 1;
        for (int64_t h = 0; h < p->kv_heads; h++) {
            for (int64_t i = 0; i < capacity; i++) {
                double y[64] = {0};
                if (i < held || (padded && i < past + p->queries)) {
                    cached(p, b, total - held + i, past, part, h, y);
                }
                const float *const got =
                    (const float *)out->data + ((b * p->kv_heads + h) * capacity + i) * p->dim;
                for (int64_t d = 0; d < p->dim; d++) {
                    /* A norm sums dim squares; a turn adds two products. */
                    const double bound = ((double)p->dim + 16) * 0x1p-24 * 16;
                    if (fabs((double)got[d] - y[d]) <= bound) continue;
                    fail_msg("seed %llu: present %d of batch %lld head %lld row %lld: expected "
                             "%.9g, got %.9g",
                             (unsigned long long)seed, part, (long long)b, (long long)h,
                             (long long)i, y[d], (double)got[d]);
                }
            }
        }
    }
}

static void check_seed(uint64_t seed, uint64_t isa) {
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    dbt_arena arena;
    dbt_arena_init(&arena, NULL);
    problem p = {0};
    choose_attrs(&p, &state);
    choose_lengths(&p, &state);
    choose_inputs(&p, &arena, &state);
    const dbt_op_case c = {.domain = "com.microsoft",
                           .name = "GroupQueryAttention",
                           .opset = 1,
                           .attrs = p.attrs,
                           .n_attrs = p.n_attrs,
                           .inputs = p.inputs,
                           .n_inputs = DBT_GQA_INPUTS,
                           .n_outputs = 3,
                           .isa = isa};
    dbt_op_result r;
    dibit_error error = {0};
    if (dbt_op_case_run(&c, &r, &error)) {
        fail_msg("seed %llu: %s", (unsigned long long)seed, error.text);
    }
    check_output(&p, &r.out[0], seed);
    check_present(&p, &r.out[1], 1, seed);
    check_present(&p, &r.out[2], 2, seed);
    dbt_op_result_free(&r);
    dbt_arena_free(&arena);
}

static void test_random_cases(void **unused) {
    (void)unused;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        check_seed(seed, 0);
        check_seed(seed, DIBIT_ISA_PORTABLE);
    }
}

/* ---- States ------------------------------------------------------------------------------------ */

/* A node with one sequence's state, as a session runs it. */
typedef struct sequence {
    dbt_value cache_value, query_value;
    dbt_value *in[5], *out[3];
    dbt_node node;
    dbt_gqa_attrs attrs;
    uint16_t k[2 * 64 * 8], v[2 * 64 * 8];
    dbt_state_row rows[2];
} sequence;

static void sequence_init(sequence *q, int64_t capacity, int64_t window, bool windowed) {
    memset(q, 0, sizeof *q);
    memset(q->k, 0xff, sizeof q->k); /* NaN: reading what was not written shows */
    memset(q->v, 0xff, sizeof q->v);
    q->attrs = (dbt_gqa_attrs){.num_heads = 4,
                               .kv_num_heads = 2,
                               .causal = 1,
                               .local_window_size = window,
                               .sliding_window_cache = windowed};
    q->cache_value.type = DIBIT_TYPE_FLOAT16;
    q->query_value.type = DIBIT_TYPE_FLOAT16;
    q->in[0] = &q->query_value;
    q->in[3] = q->in[4] = q->out[1] = q->out[2] = &q->cache_value;
    q->node = (dbt_node){
        .attrs = &q->attrs, .n_inputs = 5, .n_outputs = 3, .inputs = q->in, .outputs = q->out};
    q->rows[0] = (dbt_state_row){q->k, 0, capacity};
    q->rows[1] = (dbt_state_row){q->v, 0, capacity};
}

/* Appends tokens [past, past + n) of qkv [tokens, 64] and writes their outputs [n, 32]. */
static dibit_status sequence_step(sequence *q, const float *qkv, int64_t past, int64_t n, float *y,
                                  dibit_error *error) {
    int32_t seqlen = (int32_t)(past + n - 1), total = (int32_t)(past + n);
    const dibit_tensor query = DBT_TENSOR(DIBIT_TYPE_FLOAT, qkv + past * 64, 1, n, 64);
    const dibit_tensor seqlens = DBT_TENSOR(DIBIT_TYPE_INT32, &seqlen, 1);
    const dibit_tensor totals = DBT_SCALAR(DIBIT_TYPE_INT32, &total);
    dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 1, n, 32);
    const dibit_tensor *const in[] = {&query, NULL, NULL, NULL, NULL, &seqlens, &totals};
    dibit_tensor *const outs[] = {&out, NULL, NULL};
    dbt_state_row *const states[] = {&q->rows[0], &q->rows[1]};
    const dbt_cpu_options options = {dbt_cpu_isa(0), DIBIT_ACTIVATIONS_FLOAT};
    dbt_cpu_call call = {.node = &q->node,
                         .attrs = &q->attrs,
                         .n_inputs = 7,
                         .n_outputs = 3,
                         .in = in,
                         .out = outs,
                         .states = states,
                         .options = &options,
                         .error = error};
    const uint64_t bytes = dbt_gqa_cpu_scratch(&call);
    call.scratch = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    const dibit_status status = dbt_gqa_cpu_run(&call);
    free(call.scratch);
    return status;
}

/* However tokens are split into steps, the cache is the same bit for bit, and outputs are within
 * rounding of each other. */
static void check_split(int64_t capacity, int64_t window, bool windowed) {
    enum { TOKENS = 40 };
    float qkv[TOKENS * 64], once[TOKENS * 32], split[TOKENS * 32];
    uint64_t seed = 5;
    for (int i = 0; i < TOKENS * 64; i++) qkv[i] = dbt_test_uniform(&seed, -1, 1);
    static sequence a, b;
    sequence_init(&a, capacity, window, windowed);
    assert_int_equal(sequence_step(&a, qkv, 0, TOKENS, once, NULL), DIBIT_OK);
    for (int64_t step = 1; step <= 17; step += 4) {
        sequence_init(&b, capacity, window, windowed);
        for (int64_t t = 0; t < TOKENS; t += step) {
            const int64_t n = t + step < TOKENS ? step : TOKENS - t;
            assert_int_equal(sequence_step(&b, qkv, t, n, split + t * 32, NULL), DIBIT_OK);
        }
        assert_int_equal(a.rows[0].length, b.rows[0].length);
        for (int64_t h = 0; h < 2; h++) {
            const size_t at = (size_t)(h * capacity * 8), bytes = (size_t)a.rows[0].length * 16;
            assert_memory_equal(a.k + at, b.k + at, bytes);
            assert_memory_equal(a.v + at, b.v + at, bytes);
        }
        /* Scores below 8/sqrt(8) = 2.9 in size are off by 2 gamma_8 of that; weights by twice that;
         * values are below 1. */
        const float bound = (2 * 2 * 8 * 3.0f + TOKENS + 16) * 0x1p-24f;
        for (int i = 0; i < TOKENS * 32; i++) {
            assert_true(fabsf(once[i] - split[i]) <= 2 * bound);
        }
    }
}

static void test_split_into_steps(void **unused) {
    (void)unused;
    check_split(64, -1, false);
    check_split(40, 5, false);
    check_split(5, 5, true);
    check_split(9, 5, true);
    check_split(64, 5, true);
}

static void test_state_refusals(void **unused) {
    (void)unused;
    static sequence q;
    float qkv[8 * 64] = {0}, y[8 * 32];
    dibit_error error = {0};
    sequence_init(&q, 4, -1, false);
    assert_int_equal(sequence_step(&q, qkv, 0, 5, y, &error), DIBIT_CAPACITY);
    assert_non_null(strstr(error.text, "the cache holds 4 tokens, 5 are needed"));
    assert_int_equal(q.rows[0].length, 0);
    sequence_init(&q, 8, -1, false);
    assert_int_equal(sequence_step(&q, qkv, 4, 1, y, &error), DIBIT_OUT_OF_RANGE);
    assert_non_null(strstr(error.text, "asks for 4 tokens of past, the cache holds 0"));
}

/* ---- Refusals ----------------------------------------------------------------------------------- */

static void test_refusals(void **unused) {
    (void)unused;
    const float x[64] = {0};
    int32_t seqlens[] = {0}, total[] = {1};
    const dibit_tensor inputs[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 1, 32),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 1, 16),
                                   DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 1, 16),
                                   DBT_ABSENT,
                                   DBT_ABSENT,
                                   DBT_TENSOR(DIBIT_TYPE_INT32, seqlens, 1),
                                   DBT_TENSOR(DIBIT_TYPE_INT32, total, 1)};
    const struct {
        dbt_onnx_attr attr;
        dibit_status status;
        const char *text;
    } cases[] = {
        {DBT_STRING("k_quant_type", "PER_TENSOR"), DIBIT_UNSUPPORTED, "quantized keys and values"},
        {DBT_INT("local_window_size", 0), DIBIT_BAD_FILE, "local_window_size must be"},
        {DBT_INT("causal", 2), DIBIT_BAD_FILE, "causal must be 0 or 1"},
        {DBT_INT("do_rotary", 1), DIBIT_BAD_FILE, "cos_cache"},
        {DBT_INT("sliding_window_cache", 1), DIBIT_BAD_FILE, "local_window_size"},
        {DBT_FLOAT("softcap", -1.0f), DIBIT_BAD_FILE, "softcap"},
        {DBT_INT("qk_output", 3), DIBIT_BAD_FILE, "qk_output"},
    };
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "GroupQueryAttention",
                     .opset = 1,
                     .inputs = inputs,
                     .n_inputs = 7};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const dbt_onnx_attr attrs[] = {DBT_INT("num_heads", 4), DBT_INT("kv_num_heads", 2),
                                       cases[i].attr};
        c.attrs = attrs;
        c.n_attrs = 3;
        dbt_op_case_refused(&c, cases[i].status, cases[i].text);
    }
    const dbt_onnx_attr heads[] = {DBT_INT("num_heads", 4), DBT_INT("kv_num_heads", 3)};
    c.attrs = heads;
    c.n_attrs = 2;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "multiple of kv_num_heads");
    const dbt_onnx_attr good[] = {DBT_INT("num_heads", 4), DBT_INT("kv_num_heads", 2)};
    c.attrs = good;
    for (int32_t bad = -2; bad <= 1; bad += 3) {
        seqlens[0] = bad;
        dbt_op_case_refused(&c, DIBIT_OUT_OF_RANGE, "seqlens_k[0]");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_cases),
        cmocka_unit_test(test_split_into_steps),
        cmocka_unit_test(test_state_refusals),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

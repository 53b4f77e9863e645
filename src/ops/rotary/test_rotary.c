/* RotaryEmbedding of both domains against its formula, over seeded shapes and every attribute. */
#include "dbt_test.h"

#include "op_harness.h"

enum { POSITIONS = 12 };

typedef struct rotary_case {
    int64_t batch, tokens, heads, dim, half;
    bool contrib, flat, interleaved, offset, per_token;
    float x[2 * 4 * 3 * 16], cos[2 * 4 * 3 * 8], sin[2 * 4 * 3 * 8], want[2 * 4 * 3 * 16];
    int64_t ids[8];
} rotary_case;

static int64_t pick(uint64_t *seed, int64_t lo, int64_t hi) {
    return lo + (int64_t)(dbt_test_random(seed) % (uint64_t)(hi - lo + 1));
}

static void compute(rotary_case *c) {
    for (int64_t b = 0; b < c->batch; b++) {
        for (int64_t s = 0; s < c->tokens; s++) {
            const int64_t token = b * c->tokens + s;
            const int64_t at = c->per_token ? token : c->offset ? c->ids[0] + s : c->ids[token];
            for (int64_t h = 0; h < c->heads; h++) {
                const int64_t row =
                    c->flat ? token * c->heads + h : (b * c->heads + h) * c->tokens + s;
                const float *const x = c->x + row * c->dim;
                float *const y = c->want + row * c->dim;
                for (int64_t d = 0; d < c->dim; d++) y[d] = x[d];
                for (int64_t p = 0; p < c->half; p++) {
                    const int64_t i = c->interleaved ? 2 * p : p;
                    const int64_t j = c->interleaved ? 2 * p + 1 : p + c->half;
                    const double co = (double)c->cos[at * c->half + p];
                    const double si = (double)c->sin[at * c->half + p];
                    y[i] = (float)((double)x[i] * co - (double)x[j] * si);
                    y[j] = (float)((double)x[j] * co + (double)x[i] * si);
                }
            }
        }
    }
}

static void check(uint64_t seed) {
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    rotary_case c = {.batch = pick(&state, 1, 2),
                     .tokens = pick(&state, 1, 4),
                     .heads = pick(&state, 1, 3),
                     .dim = 2 * pick(&state, 1, 8),
                     .contrib = pick(&state, 0, 1),
                     .flat = pick(&state, 0, 1),
                     .interleaved = pick(&state, 0, 1)};
    c.half = pick(&state, 0, 1) ? c.dim / 2 : pick(&state, 1, c.dim / 2);
    c.offset = c.contrib && pick(&state, 0, 1);
    c.per_token = !c.contrib && pick(&state, 0, 1);
    for (size_t i = 0; i < sizeof c.x / 4; i++) c.x[i] = dbt_test_uniform(&state, -2, 2);
    for (size_t i = 0; i < sizeof c.cos / 4; i++) {
        c.cos[i] = dbt_test_uniform(&state, -1, 1);
        c.sin[i] = dbt_test_uniform(&state, -1, 1);
    }
    for (int i = 0; i < 8; i++) c.ids[i] = pick(&state, 0, POSITIONS - 5);
    compute(&c);

    const dibit_tensor flat = DBT_TENSOR(DIBIT_TYPE_FLOAT, c.x, c.batch, c.tokens, c.heads * c.dim);
    const dibit_tensor split = DBT_TENSOR(DIBIT_TYPE_FLOAT, c.x, c.batch, c.heads, c.tokens, c.dim);
    const dibit_tensor grid = DBT_TENSOR(DIBIT_TYPE_INT64, c.ids, c.batch, c.tokens);
    const dibit_tensor one = DBT_TENSOR(DIBIT_TYPE_INT64, c.ids, 1);
    dibit_tensor cos = DBT_TENSOR(DIBIT_TYPE_FLOAT, c.cos, POSITIONS, c.half);
    if (c.per_token)
        cos = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, c.cos, c.batch, c.tokens, c.half);
    dibit_tensor sin = cos;
    sin.data = c.sin;
    const dibit_tensor x = c.flat ? flat : split, ids = c.offset ? one : grid;
    const dibit_tensor contrib[] = {x, ids, cos, sin};
    const dibit_tensor onnx[] = {x, cos, sin, ids};
    const dbt_onnx_attr attrs[] = {DBT_INT("interleaved", c.interleaved),
                                   DBT_INT("num_heads", c.heads),
                                   DBT_INT("rotary_embedding_dim", 2 * c.half)};
    const dbt_op_case op = {.domain = c.contrib ? "com.microsoft" : "",
                            .name = "RotaryEmbedding",
                            .opset = c.contrib ? 1 : 23,
                            .attrs = attrs,
                            .n_attrs = 3,
                            .inputs = c.contrib ? contrib : onnx,
                            .n_inputs = c.per_token ? 3 : 4};
    dibit_tensor want = x;
    want.data = c.want;
    dbt_op_case_expect(&op, 0, &want);
}

static void test_formula(void **unused) {
    (void)unused;
    for (uint64_t seed = 1; seed <= 200; seed++) check(seed);
}

static void test_refusals(void **unused) {
    (void)unused;
    const float x[32] = {0}, cache[16] = {0};
    const int64_t ids[] = {3};
    const dibit_tensor inputs[] = {
        DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 2, 16), DBT_TENSOR(DIBIT_TYPE_INT64, ids, 1),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, cache, 4, 4), DBT_TENSOR(DIBIT_TYPE_FLOAT, cache, 4, 4)};
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "RotaryEmbedding",
                     .opset = 1,
                     .inputs = inputs,
                     .n_inputs = 4};
    dbt_op_case_refused(&c, DIBIT_OUT_OF_RANGE, "position 4 of token 1");
    const dbt_onnx_attr heads[] = {DBT_INT("num_heads", 4)};
    c.attrs = heads;
    c.n_attrs = 1;
    dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "caches of width 4");
    const dbt_onnx_attr packed[] = {DBT_INT("is_packed_batching", 1)};
    c.attrs = packed;
    dbt_op_case_refused(&c, DIBIT_UNSUPPORTED, "is_packed_batching");
}

/* The layouts pick the stream of every pair; tables whose rows hold the row's number show which. */
static void test_streams(void **state) {
    (void)state;
    /* With sin 0 a row is multiplied by its cosines: y[p] = y[p + half] = the position of pair p. */
    const float x[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    float cos[4 * 8] = {0}, sin[4 * 8] = {0};
    for (int i = 0; i < 4 * 8; i++) cos[i] = (float)(i / 8);
    const int64_t ids[] = {1, 2, 3};
    const dibit_tensor inputs[] = {
        DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 1, 16), DBT_TENSOR(DIBIT_TYPE_INT64, ids, 3, 1, 1),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, cos, 4, 8), DBT_TENSOR(DIBIT_TYPE_FLOAT, sin, 4, 8)};
    const float want[2][16] = {{1, 1, 1, 1, 2, 2, 2, 3, 1, 1, 1, 1, 2, 2, 2, 3},
                               {1, 2, 3, 1, 2, 1, 1, 2, 1, 2, 3, 1, 2, 1, 1, 2}};
    for (int64_t layout = 0; layout < 2; layout++) {
        const dbt_onnx_attr attrs[] = {DBT_INTS("mrope_section", 4, 3, 1),
                                       DBT_INT("mrope_layout", layout), DBT_INT("num_heads", 1)};
        const dibit_tensor output = DBT_TENSOR(DIBIT_TYPE_FLOAT, want[layout], 1, 1, 16);
        dbt_op_case c = {.domain = "com.microsoft",
                         .name = "MRotaryEmbedding",
                         .opset = 1,
                         .attrs = attrs,
                         .n_attrs = 3,
                         .inputs = inputs,
                         .n_inputs = 4};
        dbt_op_case_expect(&c, 0, &output);
    }
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "MRotaryEmbedding",
                     .opset = 1,
                     .inputs = inputs,
                     .n_inputs = 4,
                     .n_attrs = 1};
    const dbt_onnx_attr sum[] = {DBT_INTS("mrope_section", 4, 3, 2)};
    c.attrs = sum;
    dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "mrope_section's sum");
    const dbt_onnx_attr less[] = {DBT_INTS("mrope_section", 9, -2, 1)};
    c.attrs = less;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "mrope_section must be three numbers");
    const dbt_onnx_attr layout[] = {DBT_INTS("mrope_section", 4, 3, 1), DBT_INT("mrope_layout", 2)};
    c.attrs = layout;
    c.n_attrs = 2;
    dbt_op_case_refused(&c, DIBIT_UNSUPPORTED, "mrope_layout 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

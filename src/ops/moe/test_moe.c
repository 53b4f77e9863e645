/* MoE and QMoE against a double reference that dequantizes everything first. */
#include "dbt_test.h"
#include "op_harness.h"

enum { EXPERTS = 5, TOKENS = 4, MAX_K = 64, MAX_N = 128 };

typedef struct problem {
    int64_t k, hidden, inter, bits[3], block; /* bits 0: float weights; block 0: scales per row */
    int fusion;                               /* -1: no swiglu */
    const char *activation;
    bool fc3, bias, zero_points, normalize, router_weights, sparse_mixer, int8;
} problem;

/* One projection: what the op gets, and the same as numbers. */
typedef struct projection {
    int64_t n, k, blocks;
    float w[EXPERTS * MAX_N * MAX_K], scales[EXPERTS * MAX_N * 4], bias[EXPERTS * MAX_N];
    uint8_t packed[EXPERTS * MAX_N * MAX_K], zero_points[EXPERTS * MAX_N * 4];
} projection;

static projection fc[3];
static float x[TOKENS * MAX_K], router[TOKENS * EXPERTS], router_weights[TOKENS * EXPERTS],
    want[TOKENS * MAX_K];

static void put_code(uint8_t *stream, int64_t bits, int64_t i, uint32_t code) {
    stream[i * bits / 8] |= (uint8_t)(code << (i * bits % 8)); /* bits divide 8 */
}

static void fill(float *v, int64_t n, uint64_t *seed) {
    for (int64_t i = 0; i < n; i++) v[i] = dbt_test_uniform(seed, -1, 1);
}

static void make_projection(const problem *p, int which, int64_t n, int64_t k, uint64_t *seed) {
    projection *const f = &fc[which];
    const int64_t bits = p->bits[which];
    memset(f, 0, sizeof *f);
    f->n = n;
    f->k = k;
    f->blocks = p->block ? k / p->block : 1;
    fill(f->w, EXPERTS * n * k, seed);
    fill(f->bias, EXPERTS * n, seed);
    if (bits == 0) return;
    fill(f->scales, EXPERTS * n * f->blocks, seed);
    const int64_t zero_row = (f->blocks * bits + 7) / 8, zero_expert = (n * bits + 7) / 8;
    for (int64_t row = 0; row < EXPERTS * n; row++) {
        for (int64_t g = 0; g < f->blocks; g++) {
            uint32_t zero = 1u << (bits - 1);
            if (p->zero_points) {
                zero = (uint32_t)(dbt_test_random(seed) >> (64 - bits));
                if (p->block) {
                    put_code(f->zero_points + row * zero_row, bits, g, zero);
                } else {
                    put_code(f->zero_points + row / n * zero_expert, bits, row % n, zero);
                }
            }
            for (int64_t i = g * k / f->blocks; i < (g + 1) * k / f->blocks; i++) {
                const uint32_t code = (uint32_t)(dbt_test_random(seed) >> (64 - bits));
                put_code(f->packed + row * (k * bits / 8), bits, i, code);
                f->w[row * k + i] = ((float)code - (float)zero) * f->scales[row * f->blocks + g];
            }
        }
    }
}

/* ---- Reference ------------------------------------------------------------------------------- */

static void apply(const problem *p, int which, int64_t e, const double *a, double *y) {
    const projection *const f = &fc[which];
    double rounded[MAX_N];
    memcpy(rounded, a, (size_t)f->k * sizeof *a);
    for (int64_t g = 0; p->int8 && g < f->k; g += p->block) {
        float most = 0;
        for (int64_t i = g; i < g + p->block; i++) most = fmaxf(most, fabsf((float)a[i]));
        for (int64_t i = g; i < g + p->block; i++) {
            rounded[i] = (double)(nearbyintf((float)a[i] * (127 / most)) * (most / 127));
        }
    }
    for (int64_t n = 0; n < f->n; n++) {
        y[n] = p->bias ? (double)f->bias[e * f->n + n] : 0;
        for (int64_t k = 0; k < f->k; k++)
            y[n] += rounded[k] * (double)f->w[(e * f->n + n) * f->k + k];
    }
}

static double activate(const char *name, double v) {
    if (strcmp(name, "relu") == 0) return v > 0 ? v : 0;
    if (strcmp(name, "silu") == 0) return v / (1 + exp(-v));
    if (strcmp(name, "gelu") == 0) {
        return 0.5 * v * (1 + tanh(0.7978845608 * (v + 0.044715 * v * v * v)));
    }
    return v;
}

static void expert(const problem *p, int64_t e, const float *token, double *out) {
    double a[MAX_N], y1[MAX_N], y3[MAX_N], h[MAX_N];
    for (int64_t i = 0; i < p->hidden; i++) a[i] = (double)token[i];
    apply(p, 0, e, a, y1);
    if (p->fc3) apply(p, 2, e, a, y3);
    for (int64_t i = 0; i < p->inter; i++) {
        if (p->fusion < 0) {
            h[i] = activate(p->activation, y1[i]) * (p->fc3 ? y3[i] : 1);
            continue;
        }
        double g = p->fusion == 1 ? y1[2 * i] : y1[i];
        double l = p->fusion == 1 ? y1[2 * i + 1] : p->fusion == 2 ? y1[p->inter + i] : y3[i];
        g = fmin(g, 2);
        l = fmax(fmin(l, 2), -2);
        h[i] = g / (1 + exp(-1.5 * g)) * (l + 0.5);
    }
    apply(p, 1, e, h, out);
}

/* How the k experts of a token weigh. */
static void weigh(const problem *p, const float *logits, const float *given, int64_t *chosen,
                  double *weight) {
    bool taken[EXPERTS] = {false};
    double all = 0, sum = 0;
    for (int64_t e = 0; e < EXPERTS; e++) all += exp((double)logits[e]);
    for (int64_t r = 0; r < p->k; r++) {
        int64_t best = -1;
        for (int64_t e = 0; e < EXPERTS; e++) {
            if (!taken[e] && (best < 0 || logits[e] >= logits[best])) best = e;
        }
        chosen[r] = best;
        weight[r] = p->router_weights ? (double)given[best] : exp((double)logits[best]) / all;
        if (p->sparse_mixer) {
            const double max = (double)logits[best];
            double near = 0;
            for (int64_t e = 0; e < EXPERTS; e++) {
                const double l = (double)logits[e];
                if (!taken[e] && (max - l) / fmax(fabs(l), max) <= 0.02) near += exp(l);
            }
            weight[r] = exp(max) / near;
        }
        taken[best] = true;
        sum += weight[r];
    }
    const bool normalized = p->normalize || (p->bits[0] != 0 && !p->router_weights);
    for (int64_t r = 0; r < p->k && normalized && !p->sparse_mixer; r++) weight[r] /= sum;
}

static void reference(const problem *p) {
    for (int64_t t = 0; t < TOKENS; t++) {
        int64_t chosen[EXPERTS];
        double weight[EXPERTS], y[MAX_N], sum[MAX_N] = {0};
        weigh(p, router + t * EXPERTS, router_weights + t * EXPERTS, chosen, weight);
        for (int64_t r = 0; r < p->k; r++) {
            if (weight[r] <= 1e-8) continue;
            expert(p, chosen[r], x + t * p->hidden, y);
            for (int64_t i = 0; i < p->hidden; i++) sum[i] += weight[r] * y[i];
        }
        for (int64_t i = 0; i < p->hidden; i++) want[t * p->hidden + i] = (float)sum[i];
    }
}

/* ---- The case -------------------------------------------------------------------------------- */

static void add_projection(const problem *p, int which, dibit_tensor *in, uint32_t *constants) {
    static const uint8_t quantized[3][4] = {{2, 3, 4, 11}, {5, 6, 7, 12}, {8, 9, 10, 13}};
    static const uint8_t floats[3][2] = {{2, 3}, {4, 5}, {6, 7}};
    projection *const f = &fc[which];
    const int64_t bits = p->bits[which];
    if (bits == 0) {
        in[floats[which][0]] =
            (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, f->w, EXPERTS, f->n, f->k);
        if (p->bias) {
            in[floats[which][1]] =
                (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, f->bias, EXPERTS, f->n);
        }
        *constants |= 1u << floats[which][0];
        return;
    }
    const uint8_t *const i = quantized[which];
    in[i[0]] =
        (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_UINT8, f->packed, EXPERTS, f->n, f->k * bits / 8);
    in[i[1]] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, f->scales, EXPERTS, f->n, f->blocks);
    if (!p->block) in[i[1]].rank = 2;
    if (p->bias) in[i[2]] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, f->bias, EXPERTS, f->n);
    if (p->zero_points && p->block) {
        in[i[3]] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_UINT8, f->zero_points, EXPERTS, f->n,
                                            (f->blocks * bits + 7) / 8);
    } else if (p->zero_points) {
        in[i[3]] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_UINT8, f->zero_points, EXPERTS,
                                            (f->n * bits + 7) / 8);
    }
    *constants |= 1u << i[0] | 1u << i[1] | (p->zero_points ? 1u << i[3] : 0);
}

static void check(const problem *p) {
    uint64_t seed = 11;
    make_projection(p, 0, p->fusion > 0 ? 2 * p->inter : p->inter, p->hidden, &seed);
    make_projection(p, 1, p->hidden, p->inter, &seed);
    make_projection(p, 2, p->inter, p->hidden, &seed);
    fill(x, TOKENS * p->hidden, &seed);
    fill(router, TOKENS * EXPERTS, &seed);
    fill(router_weights, TOKENS * EXPERTS, &seed); /* negative ones do not run */
    router[1] = router[3] = 2;                     /* a tie */
    router[EXPERTS + 2] = 1.0f;                    /* close to each other */
    router[EXPERTS + 4] = 0.99f;
    for (int64_t e = 0; e < EXPERTS; e++)
        router[2 * EXPERTS + e] -= 3; /* all negative, two close */
    router[2 * EXPERTS + 1] = -1.0f;
    router[2 * EXPERTS + 4] = -1.01f;
    reference(p);
    dibit_tensor in[15] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, TOKENS / 2, p->hidden),
                           DBT_TENSOR(DIBIT_TYPE_FLOAT, router, TOKENS, EXPERTS)};
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, want, 2, TOKENS / 2, p->hidden);
    uint32_t constants = 0;
    for (int f = 0; f < (p->fc3 ? 3 : 2); f++) add_projection(p, f, in, &constants);
    if (p->router_weights) {
        in[14] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, router_weights, TOKENS, EXPERTS);
    }
    const bool quantized = p->bits[0] != 0;
    const dbt_onnx_attr attrs[] = {
        DBT_INT("k", p->k),
        DBT_INT("normalize_routing_weights", p->normalize),
        DBT_STRING("activation_type", p->activation),
        DBT_INT("swiglu_fusion", p->fusion < 0 ? 0 : p->fusion),
        DBT_INT("use_sparse_mixer", p->sparse_mixer),
        DBT_FLOAT("activation_alpha", 1.5f),
        DBT_FLOAT("activation_beta", 0.5f),
        DBT_FLOAT("swiglu_limit", 2),
        DBT_INT("expert_weight_bits", p->bits[0]), /* QMoE's from here on */
        DBT_INT("fc2_expert_weight_bits", p->bits[1]),
        DBT_INT("block_size", p->block),
        DBT_INT("accuracy_level", 4)};
    dbt_op_case_expect(
        &(dbt_op_case){.domain = "com.microsoft",
                       .name = quantized ? "QMoE" : "MoE",
                       .opset = 1,
                       .attrs = attrs,
                       .n_attrs = quantized ? 12 : 8,
                       .inputs = in,
                       .n_inputs = quantized ? 15 : 8,
                       .constants = constants,
                       .activations = p->int8 ? DIBIT_ACTIVATIONS_INT8 : DIBIT_ACTIVATIONS_FLOAT},
        0, &out);
}

static const char *const activations[] = {"relu", "gelu", "silu", "identity"};

static void test_float_experts(void **state) {
    (void)state;
    for (int i = 0; i < 32; i++) {
        problem p = {.k = 1 + i % 3,
                     .hidden = 24,
                     .inter = 40,
                     .activation = activations[i % 4],
                     .fusion = -1,
                     .fc3 = i / 4 % 2,
                     .bias = i / 8 % 2,
                     .normalize = i / 16 % 2};
        check(&p);
        p.activation = "swiglu";
        p.fusion = p.fc3 ? 0 : 1 + i % 2;
        check(&p);
    }
}

static void test_block_wise_experts(void **state) {
    (void)state;
    static const int64_t bits[] = {2, 4, 8}, blocks[] = {16, 32, 64};
    for (int i = 0; i < 72; i++) {
        const int64_t b = bits[i % 3];
        problem p = {.k = 2,
                     .hidden = 64,
                     .inter = 64,
                     .block = blocks[i / 3 % 3],
                     .fusion = -1,
                     .bits = {b, i % 5 ? b : 8, b},
                     .activation = activations[i % 4],
                     .zero_points = i / 9 % 2,
                     .bias = i / 18 % 2,
                     .fc3 = i / 36 % 2};
        check(&p);
        p.activation = "swiglu";
        p.fusion = p.fc3 ? 0 : 1 + i % 2;
        check(&p);
        p.bits[1] = b;
        p.int8 = b >= 4;
        check(&p);
    }
}

/* Rows whose length 16 divides and does not. */
static void test_row_wise_experts(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++) {
        const int64_t b = (int64_t)2 << i % 3;
        check(&(problem){.k = 2,
                         .hidden = i / 6 ? 24 : 48,
                         .inter = i / 6 ? 40 : 32,
                         .bits = {b, b, b},
                         .fusion = 1,
                         .activation = "swiglu",
                         .bias = true,
                         .zero_points = i / 3 % 2});
    }
}

static void test_routing(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        const int64_t b = i / 2 % 2 ? 4 : 0;
        check(&(problem){.k = 2,
                         .hidden = 16,
                         .inter = 16,
                         .bits = {b, b, b},
                         .fusion = -1,
                         .activation = "silu",
                         .normalize = i % 2,
                         .sparse_mixer = i / 4,
                         .block = b ? 16 : 0});
        if (b && i < 4) {
            check(&(problem){.k = 3,
                             .hidden = 16,
                             .inter = 16,
                             .bits = {b, b, b},
                             .fusion = -1,
                             .activation = "silu",
                             .block = 16,
                             .router_weights = true});
        }
    }
}

static void test_bad_nodes_are_refused(void **state) {
    (void)state;
    static const float floats[4096];
    static const uint8_t bytes[4096];
    dibit_tensor in[16] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, floats, 3, 32),
                           DBT_TENSOR(DIBIT_TYPE_FLOAT, floats, 3, 2),
                           DBT_TENSOR(DIBIT_TYPE_UINT8, bytes, 2, 64, 16),
                           DBT_TENSOR(DIBIT_TYPE_FLOAT, floats, 2, 64, 2),
                           DBT_ABSENT,
                           DBT_TENSOR(DIBIT_TYPE_UINT8, bytes, 2, 32, 32),
                           DBT_TENSOR(DIBIT_TYPE_FLOAT, floats, 2, 32, 4)};
    dbt_onnx_attr attrs[] = {DBT_INT("block_size", 16), DBT_INT("k", 1)};
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "QMoE",
                     .opset = 1,
                     .attrs = attrs,
                     .n_attrs = 2,
                     .inputs = in,
                     .n_inputs = 7,
                     .constants = 0x7c};
    dbt_op_result result;
    assert_int_equal(dbt_op_case_run(&c, &result, NULL), DIBIT_OK);
    dbt_op_result_free(&result);
    const struct {
        dbt_onnx_attr attr;
        dibit_status status;
        const char *text;
    } bad[] = {
        {DBT_INT("k", 0), DIBIT_BAD_FILE, "'k'"},
        {DBT_INT("k", 3), DIBIT_BAD_FILE, "there are 2 experts"},
        {DBT_STRING("activation_type", "tanh"), DIBIT_BAD_FILE, "'tanh'"},
        {DBT_STRING("activation_type", "swiglu"), DIBIT_BAD_FILE, "needs fc3"},
        {DBT_STRING("quant_type", "fp4"), DIBIT_UNSUPPORTED, "'fp4'"},
        {DBT_INT("swiglu_fusion", 3), DIBIT_BAD_FILE, "swiglu_fusion"},
        {DBT_INT("weights_prepacked", 1), DIBIT_UNSUPPORTED, "another engine"},
        {DBT_INT("expert_weight_bits", 3), DIBIT_BAD_FILE, "expert_weight_bits"},
        {DBT_INT("expert_weight_bits", INT64_MIN), DIBIT_BAD_FILE, "expert_weight_bits"},
        {DBT_INT("fc2_expert_weight_bits", 8), DIBIT_BAD_INPUT, "fc1's weight"},
        {DBT_INT("use_sparse_mixer", 1), DIBIT_UNSUPPORTED, "k 2 only"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        attrs[1] = bad[i].attr;
        dbt_op_case_refused(&c, bad[i].status, bad[i].text);
    }
    c.n_attrs = 1;
    attrs[0].i = 24;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "power of two");
    attrs[0].i = 32;
    dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "fc1's scales must have the shape [2, 64, 1]");
    attrs[0].i = 16;
    c.constants = 0x3c;
    dbt_op_case_refused(&c, DIBIT_UNSUPPORTED, "input 6 must be a constant");
    c.constants = 0x7c;
    in[1].dims[0] = 2;
    dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "input 1 must have the shape [3, 2]");
    in[5].type = DIBIT_TYPE_UNDEFINED;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "missing");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float_experts),         cmocka_unit_test(test_block_wise_experts),
        cmocka_unit_test(test_row_wise_experts),      cmocka_unit_test(test_routing),
        cmocka_unit_test(test_bad_nodes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

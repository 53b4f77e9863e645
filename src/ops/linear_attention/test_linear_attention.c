/* LinearAttention against the recurrence in double, written for one head at a time. */
#include "dbt_test.h"
#include "op_harness.h"

enum { MAX = 4096, DK = 6, DV = 20, BATCH = 2 };

typedef struct shape {
    int64_t q_heads, k_heads, kv_heads, length, windows;
    const char *rule;
    bool past, decay_per_row, one_beta;
    float scale;
} shape;

static float q[MAX], k[MAX], v[MAX], past[MAX * 4], decay[MAX], beta[MAX], y[MAX], present[MAX * 4];

static void fill(float *x, int64_t n, uint64_t seed, float lo, float hi) {
    for (int64_t i = 0; i < n; i++) x[i] = dbt_test_uniform(&seed, lo, hi);
}

static void reference_head(const shape *p, int64_t b, int64_t h) {
    const bool decays = p->rule[0] == 'g', deltas = strstr(p->rule, "delta") != NULL;
    const int64_t slots = p->windows ? p->windows : 1, slot = BATCH * p->kv_heads * DK * DV;
    const int64_t first = (b * p->kv_heads + h) * DK * DV;
    const int64_t outputs = p->q_heads > p->kv_heads ? p->q_heads : p->kv_heads;
    double s[DK][DV] = {{0}};
    for (int i = 0; p->past && i < DK * DV; i++) {
        s[i / DV][i % DV] = (double)past[(slots - 1) * slot + first + i];
    }
    for (int64_t t = 0; t < p->length; t++) {
        const int64_t token = b * p->length + t;
        const float *const kt = k + (token * p->k_heads + h * p->k_heads / p->kv_heads) * DK;
        for (int j = 0; j < DV; j++) {
            double e = (double)v[(token * p->kv_heads + h) * DV + j], seen = 0;
            for (int i = 0; i < DK; i++) {
                const int64_t g = token * p->kv_heads + h;
                if (decays) s[i][j] *= exp((double)decay[p->decay_per_row ? g * DK + i : g]);
                seen += (double)kt[i] * s[i][j];
            }
            if (deltas)
                e = (double)beta[p->one_beta ? token : token * p->kv_heads + h] * (e - seen);
            for (int i = 0; i < DK; i++) s[i][j] += (double)kt[i] * e;
        }
        for (int64_t o = 0; o < outputs; o++) {
            if (o * p->kv_heads / outputs != h) continue;
            const float *const qt = q + (token * p->q_heads + o * p->q_heads / outputs) * DK;
            for (int j = 0; j < DV; j++) {
                double sum = 0;
                for (int i = 0; i < DK; i++) sum += (double)qt[i] * s[i][j];
                y[(token * outputs + o) * DV + j] =
                    (float)(sum * (p->scale != 0 ? (double)p->scale : 1 / sqrt(DK)));
            }
        }
        const int64_t at = slots - p->length + t;
        for (int i = 0; at >= 0 && i < DK * DV; i++) {
            present[at * slot + first + i] = (float)s[i / DV][i % DV];
        }
    }
}

static void check(const shape *p) {
    const int64_t tokens = BATCH * p->length;
    fill(q, tokens * p->q_heads * DK, 1, -1, 1);
    fill(k, tokens * p->k_heads * DK, 2, -0.5f, 0.5f);
    fill(v, tokens * p->kv_heads * DV, 3, -1, 1);
    fill(past, MAX * 4, 4, -1, 1);
    fill(decay, tokens * p->kv_heads * DK, 5, -1, 0);
    fill(beta, tokens * p->kv_heads, 6, 0, 1);
    memset(present, 0, sizeof present);
    for (int64_t i = 0; i < BATCH * p->kv_heads; i++) {
        reference_head(p, i / p->kv_heads, i % p->kv_heads);
    }
    const int64_t outputs = p->q_heads > p->kv_heads ? p->q_heads : p->kv_heads;
    dibit_tensor in[] = {
        DBT_TENSOR(DIBIT_TYPE_FLOAT, q, BATCH, p->length, p->q_heads * DK),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, k, BATCH, p->length, p->k_heads * DK),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, v, BATCH, p->length, p->kv_heads * DV),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, past, BATCH, p->kv_heads, DK, DV),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, decay, BATCH, p->length,
                   p->kv_heads * (p->decay_per_row ? DK : 1)),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, beta, BATCH, p->length, p->one_beta ? 1 : p->kv_heads)};
    if (p->windows) {
        in[3] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, past, p->windows, BATCH, p->kv_heads, DK,
                                         DV);
    }
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, y, BATCH, p->length, outputs * DV);
    dibit_tensor state = in[3];
    state.data = present;
    if (!p->past) in[3].type = DIBIT_TYPE_UNDEFINED;
    const dbt_onnx_attr attrs[] = {
        DBT_INT("q_num_heads", p->q_heads),  DBT_INT("kv_num_heads", p->kv_heads),
        DBT_STRING("update_rule", p->rule),  DBT_FLOAT("scale", p->scale),
        DBT_INT("state_window", p->windows), DBT_INT("chunk_size", 64)};
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "LinearAttention",
                     .opset = 1,
                     .attrs = attrs,
                     .n_attrs = 6,
                     .inputs = in,
                     .n_inputs = 6,
                     .n_outputs = 2};
    dbt_op_case_expect(&c, 0, &out);
    dbt_op_case_expect(&c, 1, &state);
    c.absent_outputs = 2;
    dbt_op_case_expect(&c, 0, &out);
}

static const char *const rules[] = {"linear", "gated", "delta", "gated_delta"};

static void test_every_rule_and_head_layout(void **state) {
    (void)state;
    static const int64_t heads[][3] = {{2, 2, 2}, {4, 2, 2}, {2, 2, 4}, {2, 1, 2}, {1, 1, 3}};
    for (int i = 0; i < 5 * 4 * 8; i++) {
        const int64_t *const h = heads[i % 5];
        const int bits = i / 20;
        check(&(shape){h[0], h[1], h[2], .length = bits & 1 ? 1 : 7, .rule = rules[i / 5 % 4],
                       .past = bits & 2, .decay_per_row = bits & 4, .one_beta = i % 3 == 0,
                       .scale = i % 7 ? 0 : 0.3f});
    }
}

static void test_a_window_of_states(void **state) {
    (void)state;
    for (int64_t windows = 1; windows <= 8; windows++) {
        check(&(shape){2, 2, 2, .length = 5, .windows = windows, .rule = "gated_delta",
                       .past = windows % 2});
    }
}

static void test_bad_nodes_are_refused(void **state) {
    (void)state;
    dibit_tensor in[] = {
        DBT_TENSOR(DIBIT_TYPE_FLOAT, q, 1, 2, 8), DBT_TENSOR(DIBIT_TYPE_FLOAT, k, 1, 2, 8),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, v, 1, 2, 8), DBT_TENSOR(DIBIT_TYPE_FLOAT, past, 1, 2, 4, 4),
        DBT_TENSOR(DIBIT_TYPE_FLOAT, decay, 1, 2, 2)};
    dbt_onnx_attr attrs[] = {DBT_INT("q_num_heads", 2), DBT_INT("kv_num_heads", 2),
                             DBT_STRING("update_rule", "gated_delta")};
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "LinearAttention",
                     .opset = 1,
                     .attrs = attrs,
                     .n_attrs = 3,
                     .inputs = in,
                     .n_inputs = 5,
                     .n_outputs = 2};
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "needs beta");
    attrs[2].s = "gate";
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "'gate'");
    attrs[2].s = "gated";
    attrs[0].i = 3;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "3 query heads do not go with 2");
    attrs[0].i = 2;
    in[1].dims[2] = 6;
    dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "do not fit the heads");
    in[1].dims[2] = 8;
    in[3].dims[3] = 2;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "dim 3 of input 3 ('past') must be 4, got 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rule_and_head_layout),
        cmocka_unit_test(test_a_window_of_states),
        cmocka_unit_test(test_bad_nodes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

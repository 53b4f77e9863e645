/* A small Llama of 2-bit weights, made up: two or more layers with their own keys and values. For tests of
 * what a device makes of whole layers. */
#ifndef DBT_TESTS_LLAMA_MODEL_H
#define DBT_TESTS_LLAMA_MODEL_H

#include <math.h>

#include "dbt_test.h"
#include "model_writer.h"

enum {
    LLAMA_WIDTH = 32,
    LLAMA_INNER = 64,
    LLAMA_HEADS = 4,
    LLAMA_KV_HEADS = 2,
    LLAMA_DIM = 8,
    LLAMA_POSITIONS = 512
};

typedef struct llama {
    bool separate;   /* projections of queries, keys and values */
    bool biased;     /* their biases are Adds */
    bool head_norms; /* of queries and keys */
    bool int8;
    bool dequantized; /* weights of 4 bits by DequantizeLinear, else MatMulNBits's of 2 bits */
    dibit_type kv_type;
} llama;

static const dibit_type llama_f32 = DIBIT_TYPE_FLOAT;

/* y = x W^T: 2 bits, block 32. */
static inline void llama_product(const llama *like, pb *g, const char *x, const char *y, int64_t K,
                                 int64_t N) {
    static uint8_t bytes[LLAMA_INNER * LLAMA_INNER];
    static float scales[LLAMA_INNER * LLAMA_INNER];
    uint64_t seed = 1;
    for (const char *c = y; *c; c++) seed = seed * 31 + (unsigned char)*c;
    for (int i = 0; i < LLAMA_INNER * LLAMA_INNER; i++) {
        bytes[i] = (uint8_t)dbt_test_random(&seed);
        scales[i] = dbt_test_uniform(&seed, 0.05f, 0.2f);
    }
    char b[64], s[64], z[64], w[64], inputs[256];
    snprintf(b, sizeof b, "%s_b", y);
    snprintf(s, sizeof s, "%s_s", y);
    snprintf(z, sizeof z, "%s_z", y);
    snprintf(inputs, sizeof inputs, "%s %s %s %s", x, b, s, z);
    if (like->dequantized) {
        const int64_t codes[] = {K, N}, blocks[] = {K / 32, N};
        pb attrs = {0};
        snprintf(w, sizeof w, "%s_w", y);
        graph_constant(g, b, DIBIT_TYPE_UINT4, 2, codes, bytes);
        graph_constant(g, s, llama_f32, 2, blocks, scales);
        graph_constant(g, z, DIBIT_TYPE_UINT4, 2, blocks, bytes);
        attr_int(&attrs, "axis", 0);
        attr_int(&attrs, "block_size", 32);
        snprintf(inputs, sizeof inputs, "%s %s %s", b, s, z);
        graph_node(g, "", "DequantizeLinear", inputs, w, &attrs);
        snprintf(inputs, sizeof inputs, "%s %s", x, w);
        graph_node(g, "", "MatMul", inputs, y, NULL);
        return;
    }
    graph_constant(g, b, DIBIT_TYPE_UINT8, 3, (const int64_t[]){N, K / 32, 8}, bytes);
    graph_constant(g, s, llama_f32, 2, (const int64_t[]){N, K / 32}, scales);
    graph_constant(g, z, DIBIT_TYPE_UINT8, 2, (const int64_t[]){N, 1}, bytes);
    pb attrs = {0};
    attr_int(&attrs, "K", K);
    attr_int(&attrs, "N", N);
    attr_int(&attrs, "bits", 2);
    attr_int(&attrs, "block_size", 32);
    attr_int(&attrs, "accuracy_level", like->int8 ? 4 : 0);
    graph_node(g, "com.microsoft", "MatMulNBits", inputs, y, &attrs);
}

/* The same with a name of its layer; and a bias. */
static inline const char *llama_projection(const llama *like, pb *g, uint32_t layer, const char *x,
                                           const char *name, int64_t K, int64_t N, bool biased) {
    static char y[64];
    float values[LLAMA_INNER];
    for (int i = 0; i < LLAMA_INNER; i++) values[i] = 0.125f * (float)(i % 7) - 0.25f;
    snprintf(y, sizeof y, "%s%u", name, (unsigned)layer);
    llama_product(like, g, x, y, K, N);
    if (biased) {
        char bias[80], inputs[160];
        snprintf(bias, sizeof bias, "%s_bias", y);
        snprintf(inputs, sizeof inputs, "%s %s", y, bias);
        graph_constant(g, bias, llama_f32, 1, &N, values);
        strncat(y, "_biased", sizeof y - strlen(y) - 1);
        graph_node(g, "", "Add", inputs, y, NULL);
    }
    return y;
}

/* The RMS norm of each head of x, between Reshapes. */
static inline void llama_norm_heads(pb *g, const char *x, char *y, size_t size, int heads) {
    const int64_t apart[] = {0, -1, heads, LLAMA_DIM}, together[] = {0, -1, heads * LLAMA_DIM};
    float gain[LLAMA_DIM];
    char names[4][80], inputs[200];
    for (int i = 0; i < LLAMA_DIM; i++) gain[i] = 0.75f + 0.125f * (float)i;
    for (int i = 0; i < 4; i++) snprintf(names[i], sizeof names[i], "%s_%d", x, i);
    graph_int64s(g, names[0], 4, apart);
    graph_int64s(g, names[1], 3, together);
    graph_constant(g, names[2], llama_f32, 1, (const int64_t[]){LLAMA_DIM}, gain);
    snprintf(inputs, sizeof inputs, "%s %s", x, names[0]);
    graph_node(g, "", "Reshape", inputs, names[3], NULL);
    snprintf(inputs, sizeof inputs, "%s %s", names[3], names[2]);
    snprintf(y, size, "%.40s_n", x);
    graph_node(g, "", "SimplifiedLayerNormalization", inputs, y, NULL);
    snprintf(inputs, sizeof inputs, "%s %s", y, names[1]);
    snprintf(y, size, "%.40s_normed", x);
    graph_node(g, "", "Reshape", inputs, y, NULL);
}

static inline void llama_attention(const llama *like, pb *g, uint32_t layer) {
    char x[32], inputs[256], outputs[128], dims[64], name[64], q[64] = "", k[64] = "-", v[64] = "-";
    snprintf(x, sizeof x, "normed%u", (unsigned)layer);
    if (like->separate) {
        const int64_t kv = LLAMA_KV_HEADS * LLAMA_DIM;
        strcpy(q, llama_projection(like, g, layer, x, "q", LLAMA_WIDTH, LLAMA_WIDTH, like->biased));
        strcpy(k, llama_projection(like, g, layer, x, "k", LLAMA_WIDTH, kv, like->biased));
        strcpy(v, llama_projection(like, g, layer, x, "v", LLAMA_WIDTH, kv, like->biased));
    } else {
        const int64_t N = (LLAMA_HEADS + 2 * LLAMA_KV_HEADS) * LLAMA_DIM;
        strcpy(q, llama_projection(like, g, layer, x, "qkv", LLAMA_WIDTH, N, like->biased));
    }
    if (like->head_norms) {
        char from[3][64];
        if (like->separate) {
            strcpy(from[0], q);
            strcpy(from[1], k);
        } else {
            const int64_t widths[] = {LLAMA_HEADS * LLAMA_DIM, LLAMA_KV_HEADS * LLAMA_DIM,
                                      LLAMA_KV_HEADS * LLAMA_DIM};
            pb split = {0};
            for (int i = 0; i < 3; i++) snprintf(from[i], sizeof from[i], "%s_%c", q, "qkv"[i]);
            snprintf(name, sizeof name, "%s_widths", q);
            graph_int64s(g, name, 3, widths);
            attr_int(&split, "axis", -1);
            snprintf(inputs, sizeof inputs, "%s %s", q, name);
            snprintf(outputs, sizeof outputs, "%.40s %.40s %.40s", from[0], from[1], from[2]);
            graph_node(g, "", "Split", inputs, outputs, &split);
            strcpy(v, from[2]);
        }
        llama_norm_heads(g, from[0], q, sizeof q, LLAMA_HEADS);
        llama_norm_heads(g, from[1], k, sizeof k, LLAMA_KV_HEADS);
    }
    snprintf(dims, sizeof dims, "b %d past %d", LLAMA_KV_HEADS, LLAMA_DIM);
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "past_key_values.%u.%s", (unsigned)layer, i ? "value" : "key");
        graph_input(g, name, like->kv_type, dims);
    }
    snprintf(inputs, sizeof inputs,
             "%s %s %s past_key_values.%u.key past_key_values.%u.value lengths total cos sin", q, k,
             v, (unsigned)layer, (unsigned)layer);
    snprintf(outputs, sizeof outputs, "attended%u present.%u.key present.%u.value", (unsigned)layer,
             (unsigned)layer, (unsigned)layer);
    pb attrs = {0};
    attr_int(&attrs, "num_heads", LLAMA_HEADS);
    attr_int(&attrs, "kv_num_heads", LLAMA_KV_HEADS);
    attr_int(&attrs, "do_rotary", 1);
    graph_node(g, "com.microsoft", "GroupQueryAttention", inputs, outputs, &attrs);
    snprintf(dims, sizeof dims, "b %d total %d", LLAMA_KV_HEADS, LLAMA_DIM);
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "present.%u.%s", (unsigned)layer, i ? "value" : "key");
        graph_output(g, name, like->kv_type, dims);
    }
}

/* normed = norm(sum), sum = r + x */
static inline void llama_skip_norm(pb *g, const char *r, const char *x, const char *normed,
                                   const char *sum) {
    char inputs[128], outputs[128];
    snprintf(inputs, sizeof inputs, "%s %s gain", r, x);
    snprintf(outputs, sizeof outputs, "%s - - %s", normed, sum);
    graph_node(g, "com.microsoft", "SkipSimplifiedLayerNormalization", inputs, outputs, NULL);
}

static inline void llama_layer(const llama *like, pb *g, uint32_t i) {
    char in[32], sum[32], middle[32], next[32], next_sum[32], attended[32], inputs[128], y[6][40];
    snprintf(in, sizeof in, "attended%u", (unsigned)i);
    snprintf(sum, sizeof sum, i ? "sum%u" : "x", (unsigned)i);
    snprintf(middle, sizeof middle, "middle%u", (unsigned)i);
    snprintf(next, sizeof next, "normed%u", (unsigned)i + 1);
    snprintf(next_sum, sizeof next_sum, "sum%u", (unsigned)i + 1);
    snprintf(attended, sizeof attended, "middle_sum%u", (unsigned)i);
    static const char *const names[] = {"o", "gate", "up", "sigmoid", "silu", "wide"};
    for (int k = 0; k < 6; k++) snprintf(y[k], sizeof y[k], "%s%u", names[k], (unsigned)i);
    llama_attention(like, g, i);
    llama_product(like, g, in, y[0], LLAMA_WIDTH, LLAMA_WIDTH);
    llama_skip_norm(g, sum, y[0], middle, attended);
    llama_product(like, g, middle, y[1], LLAMA_WIDTH, LLAMA_INNER);
    llama_product(like, g, middle, y[2], LLAMA_WIDTH, LLAMA_INNER);
    graph_node(g, "", "Sigmoid", y[1], y[3], NULL);
    snprintf(inputs, sizeof inputs, "%s %s", y[1], y[3]);
    graph_node(g, "", "Mul", inputs, y[4], NULL);
    snprintf(inputs, sizeof inputs, "%s %s", y[4], y[2]);
    graph_node(g, "", "Mul", inputs, y[5], NULL);
    snprintf(in, sizeof in, "down%u", (unsigned)i);
    llama_product(like, g, y[5], in, LLAMA_INNER, LLAMA_WIDTH);
    llama_skip_norm(g, attended, in, next, next_sum);
}

static inline pb llama_model_bytes(const llama *like, uint32_t n_layers) {
    static float cosines[LLAMA_POSITIONS * LLAMA_DIM / 2], sines[LLAMA_POSITIONS * LLAMA_DIM / 2];
    float gain[LLAMA_WIDTH];
    for (int i = 0; i < LLAMA_WIDTH; i++) gain[i] = 0.5f + 0.03f * (float)i;
    for (int i = 0; i < LLAMA_POSITIONS * LLAMA_DIM / 2; i++) {
        cosines[i] = (float)cos(i / (LLAMA_DIM / 2) * pow(0.1, i % (LLAMA_DIM / 2)));
        sines[i] = (float)sin(i / (LLAMA_DIM / 2) * pow(0.1, i % (LLAMA_DIM / 2)));
    }
    pb g = {0};
    graph_input(&g, "x", llama_f32, "b seq 32");
    graph_input(&g, "lengths", DIBIT_TYPE_INT32, "b");
    graph_input(&g, "total", DIBIT_TYPE_INT32, "1");
    graph_constant(&g, "gain", llama_f32, 1, (const int64_t[]){LLAMA_WIDTH}, gain);
    graph_constant(&g, "cos", llama_f32, 2, (const int64_t[]){LLAMA_POSITIONS, LLAMA_DIM / 2},
                   cosines);
    graph_constant(&g, "sin", llama_f32, 2, (const int64_t[]){LLAMA_POSITIONS, LLAMA_DIM / 2},
                   sines);
    graph_node(&g, "", "SimplifiedLayerNormalization", "x gain", "normed0", NULL);
    for (uint32_t i = 0; i < n_layers; i++) llama_layer(like, &g, i);
    char last[32];
    snprintf(last, sizeof last, "normed%u", (unsigned)n_layers);
    llama_product(like, &g, last, "y", LLAMA_WIDTH, LLAMA_INNER);
    graph_output(&g, "y", llama_f32, "b seq 64");
    return model_of(&g, NULL);
}

/* The model over n tokens of a state; y [LLAMA_INNER], of the last one, stays the session's. */
static inline const float *llama_run(dibit_session *session, dibit_state *state, int64_t n) {
    static float x[LLAMA_POSITIONS * LLAMA_WIDTH];
    for (int i = 0; i < LLAMA_POSITIONS * LLAMA_WIDTH; i++) x[i] = 0.1f * (float)(i * 37 % 41) - 2;
    const int64_t total = (int64_t)dibit_state_length(state) + n;
    int32_t lengths = (int32_t)total - 1, all = (int32_t)total;
    const dibit_tensor in[] = {{"x", llama_f32, 3, {1, n, LLAMA_WIDTH}, x, 0},
                               {"lengths", DIBIT_TYPE_INT32, 1, {1}, &lengths, 0},
                               {"total", DIBIT_TYPE_INT32, 1, {1}, &all, 0}};
    dibit_tensor y = {.name = "y"};
    const dibit_run one = {.inputs = in,
                           .n_inputs = 3,
                           .outputs = &y,
                           .n_outputs = 1,
                           .states = &state,
                           .n_states = 1,
                           .last_rows = 1};
    dibit_error error;
    if (dibit_session_run(session, &one, &error)) fail_msg("%s", error.text);
    return y.data;
}

#endif

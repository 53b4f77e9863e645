/* How many dispatches a decoded token takes for a layer of a Llama: on the null device, which computes
 * nothing and counts what it is given. */
#include "dbt_test.h"

#include "model.h"
#include "model_writer.h"

enum { WIDTH = 32, INNER = 64, HEADS = 4, KV_HEADS = 2, DIM = 8, POSITIONS = 512 };

typedef struct llama {
    const char *name;
    bool separate; /* projections of queries, keys and values */
    bool biased;   /* their biases are Adds */
    bool int8;
    dibit_type kv_type;
    int64_t past; /* tokens before the one that is counted */
    uint64_t most;
} llama;

static const dibit_type F32 = DIBIT_TYPE_FLOAT;

/* y = x W^T: 2 bits, block 32. */
static void product(const llama *like, pb *g, const char *x, const char *y, int64_t K, int64_t N) {
    static const uint8_t bytes[INNER * INNER] = {0};
    static const float scales[INNER * INNER] = {0};
    char b[64], s[64], z[64], inputs[256];
    snprintf(b, sizeof b, "%s_b", y);
    snprintf(s, sizeof s, "%s_s", y);
    snprintf(z, sizeof z, "%s_z", y);
    snprintf(inputs, sizeof inputs, "%s %s %s %s", x, b, s, z);
    graph_constant(g, b, DIBIT_TYPE_UINT8, 3, (const int64_t[]){N, K / 32, 8}, bytes);
    graph_constant(g, s, F32, 2, (const int64_t[]){N, K / 32}, scales);
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
static const char *projection(const llama *like, pb *g, uint32_t layer, const char *x,
                              const char *name, int64_t K, int64_t N, bool biased) {
    static char y[64];
    static const float zeros[INNER] = {0};
    snprintf(y, sizeof y, "%s%u", name, (unsigned)layer);
    product(like, g, x, y, K, N);
    if (biased) {
        char bias[80], inputs[160];
        snprintf(bias, sizeof bias, "%s_bias", y);
        snprintf(inputs, sizeof inputs, "%s %s", y, bias);
        graph_constant(g, bias, F32, 1, &N, zeros);
        strncat(y, "_biased", sizeof y - strlen(y) - 1);
        graph_node(g, "", "Add", inputs, y, NULL);
    }
    return y;
}

static void attention(const llama *like, pb *g, uint32_t layer) {
    char x[32], inputs[256], outputs[128], dims[64], name[64], q[64] = "", k[64] = "-", v[64] = "-";
    snprintf(x, sizeof x, "normed%u", (unsigned)layer);
    if (like->separate) {
        const int64_t kv = KV_HEADS * DIM;
        strcpy(q, projection(like, g, layer, x, "q", WIDTH, WIDTH, like->biased));
        strcpy(k, projection(like, g, layer, x, "k", WIDTH, kv, like->biased));
        strcpy(v, projection(like, g, layer, x, "v", WIDTH, kv, like->biased));
    } else {
        const int64_t N = (HEADS + 2 * KV_HEADS) * DIM;
        strcpy(q, projection(like, g, layer, x, "qkv", WIDTH, N, like->biased));
    }
    snprintf(dims, sizeof dims, "b %d past %d", KV_HEADS, DIM);
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
    attr_int(&attrs, "num_heads", HEADS);
    attr_int(&attrs, "kv_num_heads", KV_HEADS);
    attr_int(&attrs, "do_rotary", 1);
    graph_node(g, "com.microsoft", "GroupQueryAttention", inputs, outputs, &attrs);
    snprintf(dims, sizeof dims, "b %d total %d", KV_HEADS, DIM);
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "present.%u.%s", (unsigned)layer, i ? "value" : "key");
        graph_output(g, name, like->kv_type, dims);
    }
}

/* normed = norm(sum), sum = r + x */
static void skip_norm(pb *g, const char *r, const char *x, const char *normed, const char *sum) {
    char inputs[128], outputs[128];
    snprintf(inputs, sizeof inputs, "%s %s gain", r, x);
    snprintf(outputs, sizeof outputs, "%s - - %s", normed, sum);
    graph_node(g, "com.microsoft", "SkipSimplifiedLayerNormalization", inputs, outputs, NULL);
}

static void layer(const llama *like, pb *g, uint32_t i) {
    char in[32], sum[32], middle[32], next[32], next_sum[32], attended[32], inputs[128], y[6][40];
    snprintf(in, sizeof in, "attended%u", (unsigned)i);
    snprintf(sum, sizeof sum, i ? "sum%u" : "x", (unsigned)i);
    snprintf(middle, sizeof middle, "middle%u", (unsigned)i);
    snprintf(next, sizeof next, "normed%u", (unsigned)i + 1);
    snprintf(next_sum, sizeof next_sum, "sum%u", (unsigned)i + 1);
    snprintf(attended, sizeof attended, "middle_sum%u", (unsigned)i);
    static const char *const names[] = {"o", "gate", "up", "sigmoid", "silu", "wide"};
    for (int k = 0; k < 6; k++) snprintf(y[k], sizeof y[k], "%s%u", names[k], (unsigned)i);
    attention(like, g, i);
    product(like, g, in, y[0], WIDTH, WIDTH);
    skip_norm(g, sum, y[0], middle, attended);
    product(like, g, middle, y[1], WIDTH, INNER);
    product(like, g, middle, y[2], WIDTH, INNER);
    graph_node(g, "", "Sigmoid", y[1], y[3], NULL);
    snprintf(inputs, sizeof inputs, "%s %s", y[1], y[3]);
    graph_node(g, "", "Mul", inputs, y[4], NULL);
    snprintf(inputs, sizeof inputs, "%s %s", y[4], y[2]);
    graph_node(g, "", "Mul", inputs, y[5], NULL);
    snprintf(in, sizeof in, "down%u", (unsigned)i);
    product(like, g, y[5], in, INNER, WIDTH);
    skip_norm(g, attended, in, next, next_sum);
}

static pb model_bytes(const llama *like, uint32_t n_layers) {
    static const float values[POSITIONS * DIM / 2] = {0};
    pb g = {0};
    graph_input(&g, "x", F32, "b seq 32");
    graph_input(&g, "lengths", DIBIT_TYPE_INT32, "b");
    graph_input(&g, "total", DIBIT_TYPE_INT32, "1");
    graph_constant(&g, "gain", F32, 1, (const int64_t[]){WIDTH}, values);
    graph_constant(&g, "cos", F32, 2, (const int64_t[]){POSITIONS, DIM / 2}, values);
    graph_constant(&g, "sin", F32, 2, (const int64_t[]){POSITIONS, DIM / 2}, values);
    graph_node(&g, "", "SimplifiedLayerNormalization", "x gain", "normed0", NULL);
    for (uint32_t i = 0; i < n_layers; i++) layer(like, &g, i);
    char last[32];
    snprintf(last, sizeof last, "normed%u", (unsigned)n_layers);
    product(like, &g, last, "y", WIDTH, INNER);
    graph_output(&g, "y", F32, "b seq 64");
    return model_of(&g, NULL);
}

static void run(dibit_session *session, dibit_state *state, int64_t n) {
    static float x[POSITIONS * WIDTH];
    const int64_t total = (int64_t)dibit_state_length(state) + n;
    const int32_t lengths = (int32_t)total - 1, all = (int32_t)total;
    const dibit_tensor in[] = {
        {"x", F32, 3, {1, n, WIDTH}, x, 0},
        {"lengths", DIBIT_TYPE_INT32, 1, {1}, (void *)(uintptr_t)&lengths, 0},
        {"total", DIBIT_TYPE_INT32, 1, {1}, (void *)(uintptr_t)&all, 0}};
    dibit_tensor y = {.name = "y"};
    const dibit_run run = {.inputs = in,
                           .n_inputs = 3,
                           .outputs = &y,
                           .n_outputs = 1,
                           .states = &state,
                           .n_states = 1,
                           .last_rows = 1};
    dibit_error error;
    if (dibit_session_run(session, &run, &error)) fail_msg("%s", error.text);
}

/* Of one more token. */
static uint64_t count(const llama *like, uint32_t n_layers) {
    pb bytes = model_bytes(like, n_layers);
    dibit_error error;
    dibit_model *model = NULL;
    dibit_device *device = NULL;
    dibit_session *session = NULL;
    dibit_state *state = NULL;
    const dibit_model_desc desc = {.data = bytes.data, .data_bytes = bytes.n};
    const dibit_device_desc null = {.kind = DIBIT_DEVICE_NULL, .n_threads = 1};
    if (dibit_model_load(&desc, &model, &error)) fail_msg("%s", error.text);
    assert_int_equal(dibit_device_create(&null, &device, &error), DIBIT_OK);
    const dibit_session_desc options = {.device = device};
    if (dibit_session_create(model, &options, &session, &error) ||
        dibit_state_create(session, NULL, &state, &error)) {
        fail_msg("%s", error.text);
    }
    run(session, state, like->past);
    const dbt_hal_counters *const counters = &dbt_gpu_hal(device->gpu)->counters;
    const uint64_t before = counters->dispatches;
    run(session, state, 1);
    const uint64_t dispatches = counters->dispatches - before;
    dibit_state_destroy(&state);
    dibit_session_destroy(&session);
    dibit_device_destroy(&device);
    dibit_model_destroy(&model);
    pb_free(&bytes);
    return dispatches;
}

static const llama models[] = {
    {.name = "packed", .kv_type = DIBIT_TYPE_FLOAT16, .past = 5, .most = 5},
    {.name = "int8", .int8 = true, .kv_type = DIBIT_TYPE_FLOAT16, .past = 5, .most = 5},
    {.name = "float cache", .kv_type = DIBIT_TYPE_FLOAT, .past = 5, .most = 5},
    {.name = "separate", .separate = true, .kv_type = DIBIT_TYPE_FLOAT16, .past = 5, .most = 5},
    {.name = "biased", .biased = true, .kv_type = DIBIT_TYPE_FLOAT16, .past = 5, .most = 5},
    {.name = "separate, biased, int8",
     .separate = true,
     .biased = true,
     .int8 = true,
     .kv_type = DIBIT_TYPE_FLOAT16,
     .past = 5,
     .most = 5},
    {.name = "split cache", .kv_type = DIBIT_TYPE_FLOAT16, .past = 400, .most = 6},
};

static void test_dispatches_of_a_decoded_layer(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const llama *const like = &models[i];
        const uint64_t two = count(like, 2), five = count(like, 5), layers = 3;
        printf("%s: %llu dispatches a layer\n", like->name, (unsigned long long)((five - two) / 3));
        if (five - two != layers * like->most) {
            fail_msg("%s: %llu dispatches for 3 layers, not %llu for each", like->name,
                     (unsigned long long)(five - two), (unsigned long long)like->most);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dispatches_of_a_decoded_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* How many dispatches a decoded token takes for a layer of a Llama: on the null device, which computes
 * nothing and counts what it is given. */
#include "llama_model.h"
#include "model.h"

typedef struct counted {
    const char *name;
    llama like;
    int64_t past; /* tokens before the one that is counted */
    uint64_t most;
} counted;

/* Of one more token. */
static uint64_t count(const counted *c, uint32_t n_layers) {
    pb bytes = llama_model_bytes(&c->like, n_layers);
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
    (void)llama_run(session, state, c->past);
    const dbt_hal_counters *const counters = &dbt_gpu_hal(device->gpu)->counters;
    const uint64_t before = counters->dispatches;
    (void)llama_run(session, state, 1);
    const uint64_t dispatches = counters->dispatches - before;
    dibit_state_destroy(&state);
    dibit_session_destroy(&session);
    dibit_device_destroy(&device);
    dibit_model_destroy(&model);
    pb_free(&bytes);
    return dispatches;
}

#define HALF .kv_type = DIBIT_TYPE_FLOAT16
static const counted models[] = {
    {"packed", {HALF}, 5, 5},
    {"int8", {.int8 = true, HALF}, 5, 5},
    {"a float cache", {.kv_type = DIBIT_TYPE_FLOAT}, 5, 5},
    {"separate projections", {.separate = true, HALF}, 5, 5},
    {"weights by DequantizeLinear", {.separate = true, .dequantized = true, HALF}, 5, 5},
    {"norms of heads", {.head_norms = true, HALF}, 5, 5},
    {"norms of heads of separate projections", {.head_norms = true, .separate = true, HALF}, 5, 5},
    {"norms of heads and a split cache", {.head_norms = true, HALF}, 400, 6},
    {"biases", {.biased = true, HALF}, 5, 5},
    {"all of it", {.separate = true, .biased = true, .int8 = true, HALF}, 5, 5},
    {"a split cache", {HALF}, 400, 6},
};

static void test_dispatches_of_a_decoded_layer(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const counted *const c = &models[i];
        const uint64_t two = count(c, 2), five = count(c, 5), layers = 3;
        printf("%s: %llu dispatches a layer\n", c->name, (unsigned long long)((five - two) / 3));
        if (five - two != layers * c->most) {
            fail_msg("%s: %llu dispatches for 3 layers, not %llu for each", c->name,
                     (unsigned long long)(five - two), (unsigned long long)c->most);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dispatches_of_a_decoded_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* States: appended, windowed and replaced pasts; several a run; fork, truncate, export and import; and
 * that they give what a caller gets who passes past tensors itself. */
#include "dbt_test.h"

#include "model.h"
#include "session_test.h"

static const dibit_type F32 = DIBIT_TYPE_FLOAT, I32 = DIBIT_TYPE_INT32, I64 = DIBIT_TYPE_INT64;

enum { HEADS = 2, SIZE = 8, HIDDEN = HEADS * SIZE };

/* Attention over x itself, lengths told by the mask as exporters do it; and a past that the graph
 * makes with Concat. window 0: none. */
static void write_model(pb *g, int64_t window) {
    const int64_t one[1] = {1};
    graph_input(g, "x", F32, "batch seq 16");
    graph_input(g, "mask", I64, "batch total");
    graph_input(g, "past.0.key", F32, window ? "batch 2 room 8" : "batch 2 past 8");
    graph_input(g, "past.0.value", F32, window ? "batch 2 room 8" : "batch 2 past 8");
    graph_input(g, "past.1.key", F32, "batch 1 past1 16");
    graph_int64s(g, "one", 1, one);
    graph_constant(g, "scalar", I64, 0, NULL, one);
    graph_node(g, "", "ReduceSum", "mask one", "sums", NULL);
    graph_node(g, "", "Sub", "sums scalar", "less", NULL);
    pb cast = {0}, cast2 = {0}, attention = {0}, concat = {0};
    attr_int(&cast, "to", I32);
    graph_node(g, "", "Cast", "less", "lengths2", &cast);
    graph_node(g, "", "Squeeze", "lengths2 one", "lengths", NULL);
    graph_node(g, "", "Shape", "mask", "shape", NULL);
    graph_node(g, "", "Gather", "shape scalar", "total64", NULL);
    attr_int(&cast2, "to", I32);
    graph_node(g, "", "Cast", "total64", "total", &cast2);
    attr_int(&attention, "num_heads", HEADS);
    attr_int(&attention, "kv_num_heads", HEADS);
    if (window) {
        attr_int(&attention, "local_window_size", window);
        attr_int(&attention, "sliding_window_cache", 1);
    }
    graph_node(g, "com.microsoft", "GroupQueryAttention",
               "x x x past.0.key past.0.value lengths total", "a present.0.key present.0.value",
               &attention);
    graph_node(g, "", "Unsqueeze", "x one", "x4", NULL);
    attr_int(&concat, "axis", 2);
    graph_node(g, "", "Concat", "past.1.key x4", "present.1.key", &concat);
    pb mean = {0};
    attr_int(&mean, "keepdims", 0);
    const int64_t two[2] = {1, 2};
    graph_int64s(g, "axes", 2, two);
    graph_node(g, "", "ReduceMean", "present.1.key axes", "mean", &mean);
    graph_node(g, "", "Unsqueeze", "mean one", "mean3", NULL);
    graph_node(g, "", "Add", "a mean3", "y", NULL);
    graph_output(g, "y", F32, "batch seq 16");
    graph_output(g, "present.0.key", F32, window ? "batch 2 room 8" : "batch 2 total 8");
    graph_output(g, "present.0.value", F32, window ? "batch 2 room 8" : "batch 2 total 8");
    graph_output(g, "present.1.key", F32, "batch 1 total1 16");
    graph_node(g, "", "Shape", "past.0.key", "past_shape", NULL);
    graph_output(g, "past_shape", I64, "4");
}

static void start(fixture *f, int64_t window) {
    pb g = {0};
    *f = (fixture){0};
    write_model(&g, window);
    open_model(f, &g, NULL);
}

/* Token t of sequence `which`, the same wherever it is asked for. */
static void token(int which, int64_t t, float *x) {
    uint64_t seed = (uint64_t)(which * 1000003 + t * 7919 + 1);
    for (int i = 0; i < HIDDEN; i++) x[i] = dbt_test_uniform(&seed, -1, 1);
}

enum { MOST = 2 * 700 };
static int64_t ones[MOST];

/* Runs tokens [from, from + n) of the sequences through states; y is the session's. */
static dibit_status step(fixture *f, dibit_state *const *states, const int *which, uint32_t batch,
                         int64_t from, int64_t n, dibit_tensor *y) {
    static float x[MOST * HIDDEN];
    for (uint32_t b = 0; b < batch; b++) {
        for (int64_t s = 0; s < n; s++) token(which[b], from + s, &x[(b * n + s) * HIDDEN]);
    }
    for (int i = 0; i < MOST; i++) ones[i] = 1;
    const dibit_tensor in[2] = {{"x", F32, 3, {batch, n, HIDDEN}, x, 0},
                                {"mask", I64, 2, {batch, from + n}, ones, 0}};
    *y = (dibit_tensor){.name = "y"};
    const dibit_run run = {.inputs = in,
                           .n_inputs = 2,
                           .outputs = y,
                           .n_outputs = 1,
                           .states = states,
                           .n_states = batch};
    return dibit_session_run(f->session, &run, &f->error);
}

static dibit_state *new_state(fixture *f) {
    dibit_state *state = NULL;
    const dibit_state_desc desc = {.capacity = 4};
    assert_int_equal(dibit_state_create(f->session, &desc, &state, &f->error), DIBIT_OK);
    return state;
}

static void advance(fixture *f, dibit_state *state, int which, int64_t from, int64_t n,
                    float *last) {
    dibit_tensor y;
    if (step(f, &state, &which, 1, from, n, &y) != DIBIT_OK) fail_msg("%s", f->error.text);
    assert_int_equal(dibit_state_length(state), from + n);
    if (last) memcpy(last, (float *)y.data + (n - 1) * HIDDEN, HIDDEN * sizeof *last);
}

static void assert_same(const float *a, const float *b) {
    for (int i = 0; i < HIDDEN; i++) assert_float_equal(a[i], b[i], 1e-5f);
}

/* All tokens at once, one by one, and by a caller who keeps the past itself. */
static void test_states_equal_passed_tensors(void **unused) {
    (void)unused;
    for (int64_t window = 0; window <= 5; window += 5) {
        fixture f;
        start(&f, window);
        float last[HIDDEN], again[HIDDEN];
        dibit_state *state = new_state(&f);
        for (int64_t t = 0; t < 9; t++) advance(&f, state, 1, t, 1, last);
        if (!window) {
            dibit_state *other = new_state(&f);
            advance(&f, other, 1, 0, 4, NULL);
            advance(&f, other, 1, 4, 5, again);
            assert_same(last, again);
            dibit_state_destroy(&other);
        }
        dibit_state_destroy(&state);
        const int64_t room = window ? window : 0;
        float keys[9 * HIDDEN] = {0}, values[9 * HIDDEN] = {0}, past1[9 * HIDDEN] = {0};
        for (int64_t t = 0; t < 9; t++) {
            float x[HIDDEN];
            token(1, t, x);
            const int64_t have = window ? room : t;
            const dibit_tensor in[5] = {{"x", F32, 3, {1, 1, HIDDEN}, x, 0},
                                        {"mask", I64, 2, {1, t + 1}, ones, 0},
                                        {"past.0.key", F32, 4, {1, HEADS, have, SIZE}, keys, 0},
                                        {"past.0.value", F32, 4, {1, HEADS, have, SIZE}, values, 0},
                                        {"past.1.key", F32, 4, {1, 1, t, HIDDEN}, past1, 0}};
            dibit_tensor out[4] = {{.name = "y"},
                                   {.name = "present.0.key"},
                                   {.name = "present.0.value"},
                                   {.name = "present.1.key"}};
            const dibit_run run = {.inputs = in, .n_inputs = 5, .outputs = out, .n_outputs = 4};
            if (dibit_session_run(f.session, &run, &f.error) != DIBIT_OK)
                fail_msg("%s", f.error.text);
            assert_int_equal(out[1].dims[2], window ? room : t + 1);
            memcpy(keys, out[1].data, (size_t)out[1].bytes);
            memcpy(values, out[2].data, (size_t)out[2].bytes);
            memcpy(past1, out[3].data, (size_t)out[3].bytes);
            memcpy(again, out[0].data, sizeof again);
        }
        assert_same(last, again);
        close_model(&f);
    }
}

static void test_a_window_forgets_and_never_fills(void **unused) {
    (void)unused;
    fixture f;
    start(&f, 5);
    dibit_state *state = new_state(&f);
    for (int64_t t = 0; t < 600; t += 20) advance(&f, state, 1, t, 20, NULL);
    assert_int_equal(dibit_state_truncate(state, 3, &f.error), DIBIT_UNSUPPORTED);
    assert_int_equal(dibit_state_length(state), 600);
    assert_int_equal(dibit_state_truncate(state, 0, &f.error), DIBIT_OK);
    float last[HIDDEN], fresh[HIDDEN];
    advance(&f, state, 1, 0, 3, last);
    dibit_state *other = new_state(&f);
    advance(&f, other, 1, 0, 3, fresh);
    assert_same(last, fresh);
    dibit_state_destroy(&state);
    dibit_state_destroy(&other);
    close_model(&f);
}

static void test_fork_and_truncate(void **unused) {
    (void)unused;
    fixture f;
    start(&f, 0);
    float want[HIDDEN], got[HIDDEN];
    dibit_state *state = new_state(&f), *copy = NULL;
    advance(&f, state, 1, 0, 6, NULL);
    assert_int_equal(dibit_state_fork(state, &copy, &f.error), DIBIT_OK);
    advance(&f, state, 1, 6, 3, want);
    advance(&f, copy, 1, 6, 3, got);
    assert_same(want, got);
    assert_int_equal(dibit_state_truncate(copy, 10, &f.error), DIBIT_BAD_ARGUMENT);
    assert_int_equal(dibit_state_truncate(copy, 4, &f.error), DIBIT_OK);
    advance(&f, copy, 1, 4, 5, got);
    assert_same(want, got);
    dibit_state_destroy(&copy);
    dibit_state_destroy(&state);
    close_model(&f);
}

static void test_export_and_import(void **unused) {
    (void)unused;
    for (int64_t window = 0; window <= 5; window += 5) {
        fixture f;
        start(&f, window);
        float want[HIDDEN], got[HIDDEN];
        dibit_state *state = new_state(&f), *copy = NULL;
        advance(&f, state, 1, 0, 7, NULL);
        uint64_t bytes = 0;
        assert_int_equal(dibit_state_export(state, NULL, &bytes, &f.error), DIBIT_OK);
        unsigned char *const data = malloc(bytes);
        uint64_t less = bytes - 1;
        assert_int_equal(dibit_state_export(state, data, &less, &f.error), DIBIT_TOO_LARGE);
        assert_int_equal(dibit_state_export(state, data, &bytes, &f.error), DIBIT_OK);
        assert_int_equal(dibit_state_import(f.session, data, bytes, &copy, &f.error), DIBIT_OK);
        assert_int_equal(dibit_state_length(copy), 7);
        advance(&f, state, 1, 7, 2, want);
        advance(&f, copy, 1, 7, 2, got);
        assert_same(want, got);
        dibit_state_destroy(&copy);
        for (uint64_t n = 0; n < bytes; n++) {
            assert_int_equal(dibit_state_import(f.session, data, n, &copy, &f.error),
                             DIBIT_BAD_FILE);
        }
        uint64_t seed = 5;
        for (int round = 0; round < 2000; round++) { /* whatever the header says, no crash */
            unsigned char *const at = &data[dbt_test_random(&seed) % (bytes < 300 ? bytes : 300)];
            const unsigned char old = *at;
            *at = (unsigned char)dbt_test_random(&seed);
            if (dibit_state_import(f.session, data, bytes, &copy, &f.error) == DIBIT_OK) {
                dibit_state_destroy(&copy);
            }
            *at = old;
        }
        free(data);
        dibit_state_destroy(&state);
        close_model(&f);
    }
}

/* Nodes may read the dims of a past that lies in states. */
static void test_past_is_as_long_as_the_states_are(void **unused) {
    (void)unused;
    fixture f;
    start(&f, 0);
    dibit_state *states[2] = {new_state(&f), new_state(&f)};
    for (int64_t t = 0; t < 8; t++) {
        float x[2 * HIDDEN] = {0};
        const dibit_tensor in[2] = {{"x", F32, 3, {2, 1, HIDDEN}, x, 0},
                                    {"mask", I64, 2, {2, t + 1}, ones, 0}};
        dibit_tensor shape = {.name = "past_shape"};
        if (run_with(&f, in, 2, &shape, states, 2)) fail_msg("%s", f.error.text);
        const int64_t want[4] = {2, HEADS, t, SIZE};
        assert_memory_equal(shape.data, want, sizeof want);
    }
    dibit_state_destroy(&states[0]);
    dibit_state_destroy(&states[1]);
    close_model(&f);
}

static void test_two_sequences_run_together(void **unused) {
    (void)unused;
    for (int64_t window = 0; window <= 5; window += 5) {
        fixture f;
        start(&f, window);
        float alone[2][HIDDEN];
        for (int b = 0; b < 2; b++) {
            dibit_state *state = new_state(&f);
            for (int64_t t = 0; t < 6; t++) advance(&f, state, b + 1, t, 1, alone[b]);
            dibit_state_destroy(&state);
        }
        dibit_state *states[2] = {new_state(&f), new_state(&f)};
        dibit_tensor y;
        for (int64_t t = 0; t < 6; t++) {
            if (step(&f, states, (const int[2]){1, 2}, 2, t, 1, &y)) fail_msg("%s", f.error.text);
        }
        assert_same(y.data, alone[0]);
        assert_same((float *)y.data + HIDDEN, alone[1]);
        dibit_state *const twice[2] = {states[0], states[0]};
        assert_int_equal(step(&f, twice, (const int[2]){1, 2}, 2, 6, 1, &y), DIBIT_BAD_ARGUMENT);
        dibit_state_destroy(&states[0]);
        dibit_state_destroy(&states[1]);
        close_model(&f);
    }
}

static void test_a_full_state_says_so_and_stays(void **unused) {
    (void)unused;
    fixture f;
    start(&f, 0);
    dibit_state *state = NULL;
    const dibit_state_desc desc = {.capacity = 2, .max_capacity = 6};
    assert_int_equal(dibit_state_create(f.session, &desc, &state, &f.error), DIBIT_OK);
    float want[HIDDEN], got[HIDDEN];
    advance(&f, state, 1, 0, 5, NULL);
    dibit_tensor y;
    assert_int_equal(step(&f, &state, (const int[1]){1}, 1, 5, 2, &y), DIBIT_CAPACITY);
    assert_int_equal(dibit_state_length(state), 5);
    advance(&f, state, 1, 5, 1, got);
    dibit_state *other = new_state(&f);
    advance(&f, other, 1, 0, 6, want);
    assert_same(want, got);
    dibit_state_destroy(&state);
    dibit_state_destroy(&other);
    close_model(&f);
}

static void test_a_cancelled_run_leaves_the_state(void **unused) {
    (void)unused;
    fixture f;
    start(&f, 5);
    dibit_state *state = new_state(&f);
    for (int64_t t = 0; t < 260; t += 20) advance(&f, state, 1, t, 20, NULL);
    dibit_state *copy = NULL;
    assert_int_equal(dibit_state_fork(state, &copy, &f.error), DIBIT_OK);
    float x[10 * HIDDEN], want[HIDDEN], got[HIDDEN];
    for (int i = 0; i < 10; i++) token(9, i, &x[i * HIDDEN]);
    const dibit_tensor in[2] = {{"x", F32, 3, {1, 10, HIDDEN}, x, 0},
                                {"mask", I64, 2, {1, 270}, ones, 0}};
    dibit_tensor y = {.name = "y"};
    const dibit_run run = {.inputs = in,
                           .n_inputs = 2,
                           .outputs = &y,
                           .n_outputs = 1,
                           .states = &state,
                           .n_states = 1};
    for (int round = 0; round < 3; round++) {
        assert_int_equal(dibit_run_begin(f.session, &run, &f.error), DIBIT_OK);
        dibit_run_cancel(f.session);
    }
    float little[1]; /* fails after the last step */
    dibit_tensor small = {.name = "y", .data = little, .bytes = sizeof little};
    const dibit_run bad = {.inputs = in,
                           .n_inputs = 2,
                           .outputs = &small,
                           .n_outputs = 1,
                           .states = &state,
                           .n_states = 1};
    assert_int_equal(dibit_session_run(f.session, &bad, &f.error), DIBIT_TOO_LARGE);
    assert_int_equal(dibit_state_length(state), 260);
    advance(&f, state, 1, 260, 1, got);
    advance(&f, copy, 1, 260, 1, want);
    assert_memory_equal(got, want, sizeof got);
    dibit_state_destroy(&state);
    dibit_state_destroy(&copy);
    close_model(&f);
}

/* Evicting works on a copy that the state takes over: steps of any size come to the same. */
static void test_what_was_evicted_stays_evicted(void **unused) {
    (void)unused;
    fixture f;
    start(&f, 5);
    float want[HIDDEN], got[HIDDEN];
    dibit_state *single = new_state(&f), *chunks = new_state(&f);
    for (int64_t t = 0; t < 300; t++) advance(&f, single, 1, t, 1, want);
    for (int64_t t = 0; t < 300; t += 50) advance(&f, chunks, 1, t, 50, got);
    assert_same(want, got);
    advance(&f, single, 1, 300, 1, want);
    advance(&f, chunks, 1, 300, 1, got);
    assert_same(want, got);
    dibit_state_destroy(&single);
    dibit_state_destroy(&chunks);
    close_model(&f);
}

static void *poisoned_alloc(void *user, size_t bytes, size_t alignment) {
    (void)user;
    void *const memory = dbt_alloc(&dbt_default_allocator, bytes, alignment);
    if (memory) memset(memory, 0xa5, bytes);
    return memory;
}

static void plain_release(void *user, void *memory, size_t bytes) {
    (void)user;
    dbt_release(&dbt_default_allocator, memory, bytes);
}

/* A state that is brought to a device has zeros where its next rows will be. */
static void test_what_an_import_leaves_empty_is_zeros(void **unused) {
    (void)unused;
    const dibit_allocator allocator = {poisoned_alloc, plain_release, NULL};
    const dibit_model_desc model_desc = {
        .path = DBT_SOURCE_DIR "/tests/data/cases/llama.q2/model.onnx", .allocator = &allocator};
    const dibit_device_desc device_desc = {.kind = DIBIT_DEVICE_NULL, .n_threads = 1};
    dibit_error error = {.text = ""};
    dibit_model *model = NULL;
    dibit_device *device = NULL;
    dibit_session *session = NULL;
    dibit_state *state = NULL, *copy = NULL;
    if (dibit_model_load(&model_desc, &model, &error) ||
        dibit_device_create(&device_desc, &device, &error) ||
        dibit_session_create(model, &(dibit_session_desc){.device = device}, &session, &error) ||
        dibit_state_create(session, NULL, &state, &error))
        fail_msg("%s", error.text);
    int64_t ids[5] = {1, 2, 3, 4, 5};
    const dibit_tensor inputs[] = {{"input_ids", I64, 2, {1, 5}, ids, 0},
                                   {"attention_mask", I64, 2, {1, 5}, ones, 0}};
    const dibit_run run = {.inputs = inputs, .n_inputs = 2, .states = &state, .n_states = 1};
    assert_int_equal(dibit_session_run(session, &run, &error), DIBIT_OK);
    uint64_t bytes;
    assert_int_equal(dibit_state_export(state, NULL, &bytes, &error), DIBIT_OK);
    char *const data = malloc(bytes);
    assert_int_equal(dibit_state_export(state, data, &bytes, &error), DIBIT_OK);
    assert_int_equal(dibit_state_import(session, data, bytes, &copy, &error), DIBIT_OK);
    const dbt_state_part *const part = &copy->parts[0];
    const size_t n = (size_t)(part->dims[1] * part->capacity * part->dims[3]);
    float *const rows = malloc(n * sizeof *rows);
    dbt_hal *const hal = dbt_gpu_hal(device->gpu);
    uint64_t ticket;
    assert_int_equal(
        hal->calls->read(hal, part->buffer, 0, rows, n * sizeof *rows, &ticket, &error), DIBIT_OK);
    assert_int_equal(hal->calls->poll(hal, ticket, &error), DIBIT_OK);
    for (size_t i = 0; i < n; i++) assert_true(rows[i] >= 0 && rows[i] <= 0);
    free(rows);
    free(data);
    dibit_state_destroy(&copy);
    dibit_state_destroy(&state);
    dibit_session_destroy(&session);
    dibit_device_destroy(&device);
    dibit_model_destroy(&model);
}

int main(void) {
    for (int i = 0; i < MOST; i++) ones[i] = 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states_equal_passed_tensors),
        cmocka_unit_test(test_a_window_forgets_and_never_fills),
        cmocka_unit_test(test_fork_and_truncate),
        cmocka_unit_test(test_export_and_import),
        cmocka_unit_test(test_past_is_as_long_as_the_states_are),
        cmocka_unit_test(test_two_sequences_run_together),
        cmocka_unit_test(test_a_full_state_says_so_and_stays),
        cmocka_unit_test(test_a_cancelled_run_leaves_the_state),
        cmocka_unit_test(test_what_was_evicted_stays_evicted),
        cmocka_unit_test(test_what_an_import_leaves_empty_is_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

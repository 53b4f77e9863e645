/* The edges of planning and running: weights that arrive late, branches that were not taken, names that
 * collide, tensors that states cannot hold, hostile sizes, graphs of many nodes. */
#include "dbt_test.h"

#include <time.h>

#include "session_test.h"

static const dibit_type F32 = DIBIT_TYPE_FLOAT, F16 = DIBIT_TYPE_FLOAT16, I64 = DIBIT_TYPE_INT64,
                        BOOL = DIBIT_TYPE_BOOL;

/* ---- Weights that arrive late ---- */

enum { LARGE = 50000 };

typedef struct slow {
    pb bytes;
    int polls;   /* how often a range answers PENDING before it is there */
    int waiting; /* polls so far */
} slow;

static dibit_status slow_read(void *user, uint64_t offset, uint64_t bytes, void *dst,
                              dibit_error *error) {
    slow *const s = user;
    (void)error;
    if (s->waiting++ < s->polls) return DIBIT_PENDING;
    s->waiting = 0;
    memcpy(dst, s->bytes.data + offset, (size_t)bytes);
    return DIBIT_OK;
}

static void test_late_weights_are_held_once(void **state) {
    (void)state;
    static float w[LARGE];
    static uint16_t h[LARGE];
    for (int i = 0; i < LARGE; i++) {
        w[i] = (float)i;
        h[i] = 0x4000; /* 2 */
    }
    const int64_t n[1] = {LARGE};
    pb g = {0};
    graph_input(&g, "x", F32, "1");
    graph_input(&g, "y", F16, "1");
    graph_constant(&g, "w", F32, 1, n, w);
    graph_constant(&g, "h", F16, 1, n, h);
    graph_node(&g, "", "Add", "x w", "a", NULL);
    graph_node(&g, "", "Mul", "y h", "b", NULL);
    graph_output(&g, "a", F32, "50000");
    graph_output(&g, "b", F16, "50000");
    slow s = {.bytes = model_of(&g, NULL)};
    counter c = {0};
    const dibit_allocator allocator = counter_allocator(&c);
    const dibit_source source = {.size = s.bytes.n, .read = slow_read, .user = &s};
    const dibit_model_desc desc = {.source = &source, .allocator = &allocator};
    dibit_model *model = NULL;
    dibit_session *session = NULL;
    dibit_error error;
    if (dibit_model_load(&desc, &model, &error)) fail_msg("%s", error.text);
    s.polls = 100;
    const uint64_t before = c.live;
    assert_int_equal(dibit_session_begin(model, NULL, &session, &error), DIBIT_OK);
    int polls = 0;
    dibit_status status;
    while ((status = dibit_session_poll(session, &error)) == DIBIT_PENDING) polls++;
    if (status) fail_msg("%s", error.text);
    assert_true(polls >= 200); /* a poll comes back when there is nothing to do but wait */
    /* The float weight, the float16 one as floats and, for a while, as it came. */
    assert_true(c.peak - before < 10 * LARGE + (1 << 20)); /* arenas grow in chunks */
    assert_true(c.peak - c.live >= 2 * LARGE);
    float x[1] = {1};
    uint16_t y[1] = {0x4200}; /* 3 */
    const dibit_tensor in[2] = {{"x", F32, 1, {1}, x, 0}, {"y", F16, 1, {1}, y, 0}};
    dibit_tensor out[2] = {{.name = "a"}, {.name = "b"}};
    const dibit_run r = {.inputs = in, .n_inputs = 2, .outputs = out, .n_outputs = 2};
    assert_int_equal(dibit_session_run(session, &r, &error), DIBIT_OK);
    assert_float_equal(((float *)out[0].data)[LARGE - 1], (float)LARGE, 0);
    assert_int_equal(((uint16_t *)out[1].data)[LARGE - 1], 0x4600);
    dibit_session_destroy(&session);
    assert_int_equal(dibit_session_begin(model, NULL, &session, &error), DIBIT_OK);
    assert_int_equal(dibit_session_poll(session, &error), DIBIT_PENDING);
    dibit_session_destroy(&session); /* while a weight is on its way */
    dibit_model_destroy(&model);
    assert_int_equal(c.live, 0);
    pb_free(&s.bytes);
    const dibit_source none = {.size = 1};
    assert_int_equal(dibit_model_load(&(dibit_model_desc){.source = &none}, &model, &error),
                     DIBIT_BAD_ARGUMENT);
}

/* ---- Branches ---- */

/* y = c ? the places where x is not 0 : where x is 0 */
static void test_branches_of_unknown_size(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0}, yes = {0}, no = {0}, attrs = {0};
    graph_input(&g, "x", F32, "n");
    graph_input(&g, "c", BOOL, "k");
    graph_node(&yes, "", "NonZero", "x", "full", NULL);
    graph_output(&yes, "full", I64, "1 m");
    graph_node(&no, "", "Not", "b", "nb", NULL);
    graph_node(&no, "", "NonZero", "nb", "gaps", NULL);
    graph_output(&no, "gaps", I64, "1 m");
    pb cast = {0};
    attr_int(&cast, "to", BOOL);
    graph_node(&g, "", "Cast", "x", "b", &cast);
    attr_graph(&attrs, "then_branch", &yes);
    attr_graph(&attrs, "else_branch", &no);
    graph_node(&g, "", "If", "c", "y", &attrs);
    graph_output(&g, "y", I64, "1 m");
    open_model(&f, &g, &(dibit_session_desc){.keep_values = true});
    float x[5] = {1, 0, 0, 2, 0};
    for (int round = 0; round < 6; round++) {
        uint8_t c[1] = {round & 1};
        const dibit_tensor in[2] = {{"x", F32, 1, {5}, x, 0}, {"c", BOOL, 1, {1}, c, 0}};
        dibit_tensor out = {.name = "y"}, other;
        if (run(&f, in, 2, &out)) fail_msg("%s", f.error.text);
        assert_int_equal(out.dims[1], c[0] ? 2 : 3);
        assert_int_equal(((int64_t *)out.data)[1], c[0] ? 3 : 2);
        const char *const names[2] = {"y/then_branch/full", "y/else_branch/gaps"};
        assert_int_equal(dibit_session_value(f.session, names[c[0]], &other, &f.error),
                         DIBIT_NOT_FOUND);
        assert_int_equal(dibit_session_value(f.session, names[!c[0]], &other, &f.error), DIBIT_OK);
    }
    const dibit_tensor none[2] = {{"x", F32, 1, {5}, x, 0}, {"c", BOOL, 1, {0}, NULL, 0}};
    dibit_tensor out = {.name = "y"};
    assert_int_equal(run(&f, none, 2, &out), DIBIT_BAD_INPUT);
    assert_non_null(strstr(f.error.text, "the condition 'c' of If must be one element"));
    close_model(&f);
}

static void test_an_empty_condition_is_refused(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0}, yes = {0}, no = {0}, attrs = {0};
    graph_input(&g, "x", F32, "n");
    graph_constant(&g, "c", BOOL, 1, (const int64_t[1]){0}, "");
    graph_output(&yes, "x", F32, "n");
    graph_output(&no, "x", F32, "n");
    attr_graph(&attrs, "then_branch", &yes);
    attr_graph(&attrs, "else_branch", &no);
    graph_node(&g, "", "If", "c", "y", &attrs);
    graph_output(&g, "y", F32, "n");
    assert_int_equal(try_open(&f, &g, NULL), DIBIT_BAD_FILE);
    assert_non_null(strstr(f.error.text, "the condition of If must be one element"));
    close_model(&f);
}

/* ---- Host values and names ---- */

static void test_host_values_that_do_not_exist(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    graph_input(&g, "x", F32, "n");
    graph_input(&g, "z", F32, "m");
    graph_node(&g, "", "Shape", "x", "a", NULL);
    graph_node(&g, "", "Shape", "z", "b", NULL);
    graph_node(&g, "", "Div", "a b", "q", NULL);
    graph_output(&g, "q", I64, "1");
    open_model(&f, &g, NULL);
    float data[8] = {0};
    dibit_tensor in[2] = {{"x", F32, 1, {8}, data, 0}, {"z", F32, 1, {2}, data, 0}};
    dibit_tensor out = {.name = "q"};
    assert_int_equal(run(&f, in, 2, &out), DIBIT_OK);
    assert_int_equal(*(int64_t *)out.data, 4);
    in[1].dims[0] = 0;
    assert_int_equal(run(&f, in, 2, &out), DIBIT_OUT_OF_RANGE);
    in[1].dims[0] = 4;
    assert_int_equal(run(&f, in, 2, &out), DIBIT_OK);
    assert_int_equal(*(int64_t *)out.data, 2);
    close_model(&f);
}

/* The model calls its dims as the planner calls its own. */
static void test_symbols_do_not_collide(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    graph_input(&g, "x", F32, "y#0");
    graph_node(&g, "", "NonZero", "x", "y", NULL);
    graph_node(&g, "", "Neg", "x", "z", NULL);
    graph_output(&g, "y", I64, "1 m");
    graph_output(&g, "z", F32, "y#0");
    open_model(&f, &g, NULL);
    float x[6] = {0, 0, 5, 0, 0, 0};
    const dibit_tensor in = {"x", F32, 1, {6}, x, 0};
    dibit_tensor out[2] = {{.name = "y"}, {.name = "z"}};
    const dibit_run r = {.inputs = &in, .n_inputs = 1, .outputs = out, .n_outputs = 2};
    if (dibit_session_run(f.session, &r, &f.error)) fail_msg("%s", f.error.text);
    assert_int_equal(out[0].dims[1], 1);
    assert_int_equal(out[1].dims[0], 6);
    close_model(&f);

    f = (fixture){0};
    graph_input(&g, "x", F32, "1 seq 2");
    graph_input(&g, "w", F32, "last_rows");
    graph_node(&g, "", "Neg", "x", "n", NULL);
    graph_node(&g, "", "Abs", "w", "v", NULL);
    graph_output(&g, "n", F32, "1 seq 2");
    graph_output(&g, "v", F32, "last_rows");
    open_model(&f, &g, NULL);
    const dibit_tensor two[2] = {{"x", F32, 3, {1, 3, 2}, x, 0}, {"w", F32, 1, {1}, x + 2, 0}};
    dibit_tensor outs[2] = {{.name = "n"}, {.name = "v"}};
    const dibit_run last = {
        .inputs = two, .n_inputs = 2, .outputs = outs, .n_outputs = 2, .last_rows = 2};
    if (dibit_session_run(f.session, &last, &f.error)) fail_msg("%s", f.error.text);
    assert_int_equal(outs[0].dims[1], 2);
    assert_float_equal(((float *)outs[0].data)[0], -5, 0);
    assert_int_equal(outs[1].dims[0], 1);
    assert_float_equal(((float *)outs[1].data)[0], 5, 0);
    close_model(&f);
}

/* A step writes over its first input only when no other of its inputs is the same memory. */
static void test_an_input_is_not_overwritten_while_it_is_read(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    const int64_t reversed[4] = {3, 2, 1, 0}, dims[2] = {4, 1};
    graph_input(&g, "x", F32, "4");
    graph_constant(&g, "at", I64, 2, dims, reversed);
    graph_node(&g, "", "Neg", "x", "n", NULL);
    graph_node(&g, "", "ScatterND", "n at n", "y", NULL);
    graph_output(&g, "y", F32, "4");
    open_model(&f, &g, NULL);
    float x[4] = {1, 2, 3, 4};
    const dibit_tensor in = {"x", F32, 1, {4}, x, 0};
    dibit_tensor out = {.name = "y"};
    if (run(&f, &in, 1, &out)) fail_msg("%s", f.error.text);
    for (int i = 0; i < 4; i++) assert_float_equal(((float *)out.data)[i], -x[3 - i], 0);
    close_model(&f);
}

/* ---- States ---- */

static void attention(pb *g, const char *inputs, const char *outputs) {
    pb a = {0};
    attr_int(&a, "num_heads", 1);
    attr_int(&a, "kv_num_heads", 1);
    graph_node(g, "com.microsoft", "GroupQueryAttention", inputs, outputs, &a);
}

/* Attention over a past, one without any whose present is an output, and a reader of past and present.
 * seq is 1. */
static void write_states(pb *g, const char *batch, bool read) {
    const int32_t lengths[2] = {2, 2}, zero[2] = {0, 0}, one[1] = {1}, three[1] = {3};
    const int64_t n[1] = {2};
    char past[64];
    snprintf(past, sizeof past, "%s 1 past 8", batch);
    graph_input(g, "x", F32, "batch 1 8");
    graph_input(g, "past.0.key", F32, past);
    graph_input(g, "past.0.value", F32, past);
    graph_constant(g, "lengths", DIBIT_TYPE_INT32, 1, n, lengths);
    graph_constant(g, "zero", DIBIT_TYPE_INT32, 1, n, zero);
    graph_constant(g, "one", DIBIT_TYPE_INT32, 0, NULL, one);
    graph_constant(g, "three", DIBIT_TYPE_INT32, 0, NULL, three);
    attention(g, "x x x - - zero one", "a k v");
    attention(g, "a a a past.0.key past.0.value lengths three", "b present.0.key present.0.value");
    if (read) {
        const int64_t axes[2] = {1, 2};
        pb keep = {0}, keep2 = {0};
        graph_int64s(g, "axes", 2, axes);
        attr_int(&keep, "keepdims", 0);
        attr_int(&keep2, "keepdims", 0);
        graph_node(g, "", "ReduceSum", "past.0.key axes", "s", &keep);
        graph_node(g, "", "ReduceSum", "present.0.key axes", "t", &keep2);
        graph_int64s(g, "middle", 1, (const int64_t[1]){1});
        graph_node(g, "", "Add", "s t", "u", NULL);
        graph_node(g, "", "Unsqueeze", "u middle", "u3", NULL);
        graph_node(g, "", "Add", "b u3", "y", NULL);
    } else {
        graph_node(g, "", "Neg", "b", "y", NULL);
    }
    graph_output(g, "y", F32, "batch 1 8");
    graph_output(g, "k", F32, "batch 1 1 8");
    graph_output(g, "v", F32, "batch 1 1 8");
    graph_output(g, "present.0.key", F32, "batch 1 total 8");
    graph_output(g, "present.0.value", F32, "batch 1 total 8");
}

static void test_states_beside_attention_without_past(void **state) {
    (void)state;
    for (int read = 0; read < 2; read++) {
        fixture f = {0};
        pb g = {0};
        write_states(&g, "batch", read);
        open_model(&f, &g, NULL);
        float x[32], past[2][32] = {{0}}, want[16];
        for (int i = 0; i < 32; i++) x[i] = (float)i * 0.25f - 3;
        /* two tokens come first, so that the lengths, which say 3 in all, are true */
        for (int i = 0; i < 32; i++) {
            past[0][i] = (float)(i % 5) * 0.5f;
            past[1][i] = (float)(i % 7) * 0.25f;
        }
        const dibit_tensor in[3] = {{"x", F32, 3, {2, 1, 8}, x, 0},
                                    {"past.0.key", F32, 4, {2, 1, 2, 8}, past[0], 0},
                                    {"past.0.value", F32, 4, {2, 1, 2, 8}, past[1], 0}};
        dibit_tensor y = {.name = "y"};
        if (run(&f, in, 3, &y)) fail_msg("%s", f.error.text);
        memcpy(want, y.data, sizeof want);
        /* the same through states that hold that past: imported, for they have no other way in */
        dibit_state *states[2] = {0};
        const dibit_state_desc desc = {.capacity = 2};
        for (int b = 0; b < 2; b++) {
            assert_int_equal(dibit_state_create(f.session, &desc, &states[b], &f.error), DIBIT_OK);
            uint64_t bytes = 0;
            assert_int_equal(dibit_state_export(states[b], NULL, &bytes, &f.error), DIBIT_OK);
            assert_int_equal(bytes, 24 + 2 * 80);
            unsigned char file[24 + 2 * (80 + 64)];
            assert_int_equal(dibit_state_export(states[b], file, &bytes, &f.error), DIBIT_OK);
            const int64_t length = 2;
            memmove(file + 24 + 80 + 64, file + 24 + 80, 80);
            memcpy(file + 16, &length, 8);
            for (int p = 0; p < 2; p++) {
                unsigned char *const part = file + 24 + p * (80 + 64);
                memcpy(part + (read ? 16 + 2 * 8 : 8), &length, 8); /* dims[2], or rows */
                memcpy(part + 80, past[p] + b * 16, 64);
            }
            dibit_state_destroy(&states[b]);
            if (dibit_state_import(f.session, file, sizeof file, &states[b], &f.error)) {
                fail_msg("%s", f.error.text);
            }
        }
        if (run_with(&f, in, 1, &y, states, 2)) fail_msg("%s", f.error.text);
        for (int i = 0; i < 16; i++) assert_float_equal(((float *)y.data)[i], want[i], 1e-5f);
        assert_int_equal(dibit_state_length(states[0]), 3);
        for (int b = 0; b < 2; b++) dibit_state_destroy(&states[b]);
        close_model(&f);
    }
}

static void test_as_many_states_as_the_batch_has_rows(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    write_states(&g, "sequences", false);
    open_model(&f, &g, NULL);
    float x[16] = {0};
    const dibit_tensor in = {"x", F32, 3, {2, 1, 8}, x, 0};
    dibit_tensor y = {.name = "y"};
    dibit_state *one = NULL;
    assert_int_equal(dibit_state_create(f.session, NULL, &one, &f.error), DIBIT_OK);
    assert_int_equal(run_with(&f, &in, 1, &y, &one, 1), DIBIT_BAD_INPUT);
    assert_int_equal(dibit_state_length(one), 0);
    dibit_state_destroy(&one);
    close_model(&f);
}

static void test_hostile_states(void **state) {
    (void)state;
    fixture f = {0};
    pb g = {0};
    write_states(&g, "batch", false);
    open_model(&f, &g, NULL);
    dibit_state *s = NULL;
    assert_int_equal(dibit_state_create(f.session, NULL, &s, &f.error), DIBIT_OK);
    unsigned char file[24 + 2 * 80];
    uint64_t bytes = sizeof file;
    assert_int_equal(dibit_state_export(s, file, &bytes, &f.error), DIBIT_OK);
    dibit_state_destroy(&s);
    const uint64_t lengths[3] = {1000000, UINT64_C(1) << 62, INT64_MAX};
    for (int i = 0; i < 3; i++) { /* more tokens than there are rows */
        memcpy(file + 16, &lengths[i], 8);
        const dibit_status status = dibit_state_import(f.session, file, bytes, &s, &f.error);
        assert_int_equal(status, i < 2 ? DIBIT_OK : DIBIT_BAD_FILE);
        if (status) break;
        assert_int_equal(dibit_state_truncate(s, 100000, &f.error), DIBIT_UNSUPPORTED);
        assert_int_equal(dibit_state_truncate(s, 0, &f.error), DIBIT_OK);
        dibit_state_destroy(&s);
    }
    uint64_t seed = 7;
    for (int i = 0; i < 3000; i++) {
        unsigned char broken[sizeof file];
        memcpy(broken, file, sizeof file);
        for (int k = 0; k < 3; k++) {
            broken[dbt_test_random(&seed) % sizeof file] = (unsigned char)dbt_test_random(&seed);
        }
        if (dibit_state_import(f.session, broken, bytes, &s, &f.error)) continue;
        dibit_state_truncate(s, 1, &f.error);
        dibit_state_destroy(&s);
    }
    close_model(&f);

    /* more than there is memory: the pair's size is the model's to say */
    f = (fixture){0};
    graph_input(&g, "past.0.key", F32, "batch 65536 65536 1024");
    graph_node(&g, "", "Identity", "past.0.key", "present.0.key", NULL);
    graph_output(&g, "present.0.key", F32, "batch 65536 65536 1024");
    open_model(&f, &g, NULL);
    assert_int_equal(dibit_state_create(f.session, NULL, &s, &f.error), DIBIT_TOO_LARGE);
    close_model(&f);

    /* a present tensor with another number of sequences */
    f = (fixture){0};
    graph_input(&g, "past.0.key", F32, "batch 4");
    graph_input(&g, "x", F32, "batch 1");
    graph_int64s(&g, "axis", 1, (const int64_t[1]){0});
    graph_node(&g, "", "ReduceSum", "past.0.key axis", "present.0.key", NULL);
    graph_node(&g, "", "Neg", "x", "y", NULL);
    graph_output(&g, "present.0.key", F32, "1 4");
    graph_output(&g, "y", F32, "batch 1");
    open_model(&f, &g, NULL);
    dibit_state *two[2] = {0};
    for (int b = 0; b < 2; b++) {
        assert_int_equal(dibit_state_create(f.session, NULL, &two[b], &f.error), DIBIT_OK);
    }
    float x[2] = {0};
    const dibit_tensor in = {"x", F32, 2, {2, 1}, x, 0};
    dibit_tensor y = {.name = "y"};
    assert_int_equal(run_with(&f, &in, 1, &y, two, 2), DIBIT_UNSUPPORTED);
    for (int b = 0; b < 2; b++) dibit_state_destroy(&two[b]);
    close_model(&f);
}

/* ---- Many nodes ---- */

/* Of processor time; in WebAssembly the clock goes on while others run. */
static bool within(clock_t begin, double seconds) {
#if defined(__wasm__)
    (void)begin, (void)seconds;
    return true;
#else
    return (double)(clock() - begin) / CLOCKS_PER_SEC < seconds;
#endif
}

static void test_many_nodes_are_planned_in_linear_time(void **state) {
    (void)state;
    enum { NODES = 60000 };
    const clock_t begin = clock();
    for (int wide = 0; wide < 2; wide++) {
        fixture f = {0};
        pb g = {0};
        graph_input(&g, "x", F32, "1 seq 4");
        for (int i = 0; i < NODES; i++) {
            char in[32], out[32];
            snprintf(in, sizeof in, wide || i == 0 ? "x" : "v%d", i - 1);
            snprintf(out, sizeof out, "v%d", i);
            graph_node(&g, "", "Neg", in, out, NULL);
            if (wide || i == NODES - 1) graph_output(&g, out, F32, "1 seq 4");
        }
        open_model(&f, &g, &(dibit_session_desc){.keep_values = !wide});
        close_model(&f);
    }
    assert_true(within(begin, 12.0));
}

static void test_folding_has_a_budget(void **state) {
    (void)state;
    enum { NODES = 3000, COUNT = 15000 }; /* 180 MB if all were folded */
    static float w[COUNT];
    fixture f = {0};
    pb g = {0};
    graph_constant(&g, "v", F32, 1, (const int64_t[1]){COUNT}, w);
    for (int i = 0; i < NODES; i++) {
        char in[32], out[32];
        snprintf(in, sizeof in, i ? "v%d" : "v", i - 1);
        snprintf(out, sizeof out, "v%d", i);
        graph_node(&g, "", "Neg", in, out, NULL);
    }
    graph_output(&g, "v2999", F32, "15000");
    f.bytes = model_of(&g, NULL);
    const dibit_allocator allocator = counter_allocator(&f.counter);
    const dibit_model_desc model = {
        .data = f.bytes.data, .data_bytes = f.bytes.n, .allocator = &allocator};
    if (dibit_model_load(&model, &f.model, &f.error)) fail_msg("%s", f.error.text);
    assert_true(f.counter.peak < 80 << 20);
    close_model(&f);
}

/* ---- Threads ---- */

enum { PROMPT = 70 };

/* The logits of a prompt through a state; the model has token ids and perhaps a mask. */
static void run_model(const char *path, uint32_t n_threads, counter *c, void *logits,
                      uint64_t *bytes) {
    const dibit_allocator allocator = counter_allocator(c);
    const dibit_device_desc desc = {.n_threads = n_threads, .allocator = &allocator};
    dibit_device *device = NULL;
    dibit_model *model = NULL;
    dibit_session *session = NULL;
    dibit_state *past = NULL;
    dibit_error error;
    assert_int_equal(dibit_device_create(&desc, &device, &error), DIBIT_OK);
    if (dibit_model_load(&(dibit_model_desc){.path = path}, &model, &error)) {
        fail_msg("%s", error.text);
    }
    const dibit_session_desc on = {.device = device};
    assert_int_equal(dibit_session_create(model, &on, &session, &error), DIBIT_OK);
    assert_int_equal(dibit_state_create(session, NULL, &past, &error), DIBIT_OK);
    int64_t ids[PROMPT], ones[PROMPT];
    for (int i = 0; i < PROMPT; i++) {
        ids[i] = i * 7919 % 200;
        ones[i] = 1;
    }
    dibit_tensor in[4];
    uint32_t n = 0;
    for (uint32_t i = 0; i < dibit_model_input_count(model) && n < 4; i++) {
        dibit_value_info info;
        assert_int_equal(dibit_model_input(model, i, &info), DIBIT_OK);
        if (strstr(info.name, "past")) continue;
        void *const data = strstr(info.name, "mask") ? ones : ids;
        in[n++] = (dibit_tensor){info.name, I64, 2, {1, PROMPT}, data, 0};
    }
    dibit_tensor out = {.name = "logits", .data = logits, .bytes = *bytes};
    const dibit_run r = {.inputs = in,
                         .n_inputs = n,
                         .outputs = &out,
                         .n_outputs = 1,
                         .states = &past,
                         .n_states = 1};
    if (dibit_session_run(session, &r, &error)) fail_msg("%s", error.text);
    *bytes = out.bytes;
    dibit_state_destroy(&past);
    dibit_session_destroy(&session);
    dibit_model_destroy(&model);
    dibit_device_destroy(&device);
    assert_int_equal(c->live, 0);
}

static void test_results_do_not_depend_on_threads(void **state) {
    (void)state;
    static const char *const models[] = {"llama.q2", "lfm2.q2", "gemma3.q2", "mistral_swa.q2"};
    static char first[1 << 18], other[1 << 18];
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        char path[512];
        snprintf(path, sizeof path, "%s/tests/data/cases/%s/model.onnx", DBT_SOURCE_DIR, models[m]);
        counter c = {0};
        uint64_t want = sizeof first;
        run_model(path, 1, &c, first, &want);
        assert_true(want > 0);
        for (uint32_t n_threads = 2; n_threads <= 3; n_threads++) {
            uint64_t got = sizeof other;
            run_model(path, n_threads, &c, other, &got);
            assert_int_equal(got, want);
            assert_memory_equal(first, other, want);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_weights_are_held_once),
        cmocka_unit_test(test_branches_of_unknown_size),
        cmocka_unit_test(test_an_empty_condition_is_refused),
        cmocka_unit_test(test_host_values_that_do_not_exist),
        cmocka_unit_test(test_symbols_do_not_collide),
        cmocka_unit_test(test_an_input_is_not_overwritten_while_it_is_read),
        cmocka_unit_test(test_states_beside_attention_without_past),
        cmocka_unit_test(test_as_many_states_as_the_batch_has_rows),
        cmocka_unit_test(test_hostile_states),
        cmocka_unit_test(test_many_nodes_are_planned_in_linear_time),
        cmocka_unit_test(test_folding_has_a_budget),
        cmocka_unit_test(test_results_do_not_depend_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

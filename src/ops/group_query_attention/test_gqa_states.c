/* GroupQueryAttention's states on a device, beside the CPU's: sequences that grow by steps of every size,
 * in caches that append and in windows that evict, float and float16, are the same after each step. On
 * the null device the steps are recorded alone. */
#include "dbt_test.h"

#include "base/cpu.h"
#include "base/half.h"
#include "base/os.h"
#include "ops/group_query_attention/group_query_attention.h"
#include "test_device.h"

enum { HEADS = 4, KV_HEADS = 2, DIM = 8, WIDTH = (HEADS + 2 * KV_HEADS) * DIM, OUT = HEADS * DIM };
enum { TOKENS = 150, MAX_CAPACITY = 160, POSITIONS = 512, HALF = 3 };
enum { COUNT = KV_HEADS * MAX_CAPACITY * DIM, N_INPUTS = DBT_GQA_POSITION_IDS + 1 };

static dbt_gpu *gpu;
static dibit_error error;

static void ok(dibit_status status) {
    if (status) fail_msg("%s", error.text);
}

typedef struct sequence {
    dbt_value cache_value, query_value;
    dbt_value *in[N_INPUTS], *out[3];
    dbt_op op; /* for what a node says about its states */
    dbt_node node;
    dbt_gqa_attrs attrs;
    float rows[2][COUNT]; /* the CPU's, in either type */
    dbt_state_row cpu[2];
    dbt_gpu_state_row device[2];
    dbt_hal_buffer *query, *y, *cos, *sin;
    float cos_table[POSITIONS * HALF], sin_table[POSITIONS * HALF];
} sequence;

static dbt_hal_buffer *make(uint64_t bytes, const void *data) {
    dbt_hal_buffer *buffer;
    ok(dbt_gpu_buffer_create(gpu, bytes, &buffer, &error));
    ok(dbt_gpu_write(gpu, buffer, 0, data, bytes, &error));
    return buffer;
}

static void read_back(dbt_hal_buffer *buffer, void *data, uint64_t bytes) {
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    uint64_t ticket;
    ok(dbt_gpu_read(gpu, buffer, 0, data, bytes, &ticket, &error));
    dibit_status status;
    while ((status = hal->calls->poll(hal, ticket, &error)) == DIBIT_PENDING) dbt_os_yield();
    ok(status);
}

static void start(sequence *q, dibit_type type, int64_t capacity, int64_t window, bool evicts) {
    static float nothing[TOKENS * WIDTH];
    memset(q, 0, sizeof *q);
    q->attrs = (dbt_gqa_attrs){.num_heads = HEADS,
                               .kv_num_heads = KV_HEADS,
                               .causal = 1,
                               .do_rotary = 1,
                               .local_window_size = window,
                               .sliding_window_cache = evicts};
    q->cache_value.type = type;
    q->query_value.type = DIBIT_TYPE_FLOAT;
    q->in[0] = &q->query_value;
    q->in[3] = q->in[4] = q->out[1] = q->out[2] = &q->cache_value;
    q->node = (dbt_node){
        .attrs = &q->attrs, .n_inputs = 5, .n_outputs = 3, .inputs = q->in, .outputs = q->out};
    uint64_t seed = 11;
    for (int i = 0; i < POSITIONS * HALF; i++) {
        const float angle = dbt_test_uniform(&seed, -3, 3);
        q->cos_table[i] = cosf(angle);
        q->sin_table[i] = sinf(angle);
    }
    memset(q->rows, 0xff, sizeof q->rows); /* NaN: reading what was not written shows */
    for (int i = 0; i < 2; i++) {
        q->cpu[i] = (dbt_state_row){q->rows[i], 0, capacity};
        /* Rows begin somewhere inside a buffer. */
        q->device[i] = (dbt_gpu_state_row){
            .buffer = make(sizeof q->rows[i], q->rows[i]), .base = 24, .capacity = capacity};
    }
    q->query = make(sizeof nothing, nothing);
    q->y = make(TOKENS * OUT * sizeof(float), nothing);
    q->cos = make(sizeof q->cos_table, q->cos_table);
    q->sin = make(sizeof q->sin_table, q->sin_table);
}

static void finish(sequence *q) {
    dbt_hal_buffer *const buffers[] = {
        q->query, q->y, q->cos, q->sin, q->device[0].buffer, q->device[1].buffer};
    for (int i = 0; i < 6; i++) dbt_gpu_buffer_destroy(gpu, buffers[i]);
}

/* The tensors of a step of n tokens behind `past`, with the CPU's data. */
typedef struct step {
    int32_t seqlen, total;
    int64_t ids[TOKENS];
    dibit_tensor query, seqlens, totals, positions, cos, sin, y;
    const dibit_tensor *in[N_INPUTS];
    dibit_tensor *out[3];
} step;

static void make_step(step *s, sequence *q, const float *qkv, int64_t past, int64_t n, float *y,
                      bool scattered) {
    s->seqlen = (int32_t)(past + n - 1);
    s->total = (int32_t)(past + n);
    s->query = (dibit_tensor){
        .type = DIBIT_TYPE_FLOAT, .rank = 3, .dims = {1, n, WIDTH}, .data = (void *)(uintptr_t)qkv};
    s->seqlens =
        (dibit_tensor){.type = DIBIT_TYPE_INT32, .rank = 1, .dims = {1}, .data = &s->seqlen};
    s->totals = (dibit_tensor){.type = DIBIT_TYPE_INT32, .rank = 0, .data = &s->total};
    s->cos = (dibit_tensor){
        .type = DIBIT_TYPE_FLOAT, .rank = 2, .dims = {POSITIONS, HALF}, .data = q->cos_table};
    s->sin = s->cos;
    s->sin.data = q->sin_table;
    s->positions =
        (dibit_tensor){.type = DIBIT_TYPE_INT64, .rank = 2, .dims = {1, n}, .data = s->ids};
    for (int64_t i = 0; i < n; i++) s->ids[i] = (past + i) * 7 % POSITIONS;
    s->y = (dibit_tensor){.type = DIBIT_TYPE_FLOAT, .rank = 3, .dims = {1, n, OUT}, .data = y};
    memset(s->in, 0, sizeof s->in);
    s->in[DBT_GQA_QUERY] = &s->query;
    s->in[DBT_GQA_SEQLENS_K] = &s->seqlens;
    s->in[DBT_GQA_TOTAL] = &s->totals;
    s->in[DBT_GQA_COS] = &s->cos;
    s->in[DBT_GQA_SIN] = &s->sin;
    if (scattered) s->in[DBT_GQA_POSITION_IDS] = &s->positions;
    s->out[0] = &s->y;
    s->out[1] = s->out[2] = NULL;
}

/* Runs on the CPU; bound: of the outputs. */
static void run_cpu(sequence *q, const step *s, float *bound) {
    dbt_state_row *const states[] = {&q->cpu[0], &q->cpu[1]};
    const dbt_cpu_options options = {dbt_cpu_isa(0), DIBIT_ACTIVATIONS_FLOAT};
    dbt_cpu_call call = {.node = &q->node,
                         .attrs = &q->attrs,
                         .n_inputs = N_INPUTS,
                         .n_outputs = 3,
                         .in = s->in,
                         .out = s->out,
                         .states = states,
                         .options = &options,
                         .error = &error};
    const uint64_t bytes = dbt_gqa_cpu_scratch(&call);
    call.scratch = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    ok(dbt_gqa_cpu_run(&call));
    float *const bounds[3] = {bound};
    ok(dbt_gqa_cpu_bound(&call, bounds));
    free(call.scratch);
}

static void run_device(sequence *q, const step *s) {
    dbt_gpu_state_row *const states[] = {&q->device[0], &q->device[1]};
    dbt_hal_buffer *in[N_INPUTS] = {
        [DBT_GQA_QUERY] = q->query, [DBT_GQA_COS] = q->cos, [DBT_GQA_SIN] = q->sin};
    dbt_hal_buffer *const out[3] = {q->y};
    const dbt_gpu_call call = {.node = &q->node,
                               .attrs = &q->attrs,
                               .n_inputs = N_INPUTS,
                               .n_outputs = 3,
                               .in = s->in,
                               .out = s->out,
                               .in_buffers = in,
                               .out_buffers = out,
                               .states = states,
                               .gpu = gpu,
                               .error = &error};
    ok(dbt_gpu_write(gpu, q->query, 0, s->query.data,
                     (uint64_t)dbt_tensor_count(&s->query) * sizeof(float), &error));
    ok(dbt_gqa_gpu_encode(&call));
}

static void check_rows(const sequence *q, int i) {
    static float words[COUNT], want[COUNT], got[COUNT];
    const int64_t capacity = q->cpu[i].capacity, n = KV_HEADS * capacity * DIM;
    const uint64_t element = dibit_type_bits(q->cache_value.type) / 8;
    assert_int_equal(q->device[i].length, q->cpu[i].length);
    read_back(q->device[i].buffer, words, sizeof words);
    dbt_unpack_elements(q->cache_value.type, q->rows[i], want, n);
    dbt_unpack_elements(q->cache_value.type, (const char *)words + q->device[i].base * element, got,
                        n);
    for (int64_t k = 0; k < n && test_device_computes(); k++) {
        if (k / DIM % capacity >= q->cpu[i].length) continue;
        /* A turn is three roundings; two halves of almost the same may differ by one step. */
        const float unit = q->cache_value.type == DIBIT_TYPE_FLOAT ? 0x1p-21f : 0x1p-10f;
        if (fabsf(got[k] - want[k]) <= unit * fabsf(want[k]) + unit * 0x1p-3f) continue;
        fail_msg("row %lld of head %lld is %.9g, expected %.9g", (long long)(k / DIM % capacity),
                 (long long)(k / DIM / capacity), (double)got[k], (double)want[k]);
    }
}

static void check_sequence(dibit_type type, int64_t capacity, int64_t window, bool evicts,
                           int64_t size, bool scattered) {
    static sequence q;
    static float qkv[TOKENS * WIDTH], y[TOKENS * OUT], bound[TOKENS * OUT], got[TOKENS * OUT];
    static step s;
    uint64_t seed = 5;
    for (int i = 0; i < TOKENS * WIDTH; i++) qkv[i] = dbt_test_uniform(&seed, -1, 1);
    start(&q, type, capacity, window, evicts);
    for (int64_t t = 0; t < TOKENS; t += size) {
        const int64_t n = t + size < TOKENS ? size : TOKENS - t;
        make_step(&s, &q, qkv + t * WIDTH, t, n, y, scattered);
        run_cpu(&q, &s, bound);
        run_device(&q, &s);
        read_back(q.y, got, (uint64_t)(n * OUT) * sizeof *got);
        /* A key or value that rounds to the other half moves scores and outputs by as much. */
        const float half = type == DIBIT_TYPE_FLOAT ? 0 : 3 * 0x1p-10f;
        for (int64_t i = 0; i < n * OUT && test_device_computes(); i++) {
            if (fabsf(got[i] - y[i]) <= 2 * bound[i] + 0x1p-22f * fabsf(y[i]) + half) continue;
            fail_msg("steps of %lld, capacity %lld, window %lld: token %lld, element %lld is %.9g, "
                     "expected %.9g",
                     (long long)size, (long long)capacity, (long long)window,
                     (long long)(t + i / OUT), (long long)(i % OUT), (double)got[i], (double)y[i]);
        }
        for (int i = 0; i < 2; i++) check_rows(&q, i);
    }
    finish(&q);
}

static void check_steps(int64_t capacity, int64_t window, bool evicts) {
    const int64_t sizes[] = {1, 5, 17, 64, TOKENS};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_sequence(DIBIT_TYPE_FLOAT, capacity, window, evicts, sizes[i], i % 2 == 1);
        check_sequence(DIBIT_TYPE_FLOAT16, capacity, window, evicts, sizes[i], i % 2 == 0);
    }
}

static void test_appending(void **unused) {
    (void)unused;
    check_steps(MAX_CAPACITY - 2, -1, false);
    check_steps(TOKENS, 20, false);
}

static void test_evicting(void **unused) {
    (void)unused;
    check_steps(20, 20, true);
    check_steps(31, 20, true);
    check_steps(MAX_CAPACITY - 2, 140, true);
}

static int open_device(void **state) {
    (void)state;
    return dbt_gpu_create(&dbt_default_allocator, test_device_open(), &gpu, &error) != DIBIT_OK;
}
static int close_device(void **state) {
    (void)state;
    dbt_gpu_destroy(&gpu);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appending),
        cmocka_unit_test(test_evicting),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

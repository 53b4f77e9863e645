/* See op_device.h. Tensors lie in buffers that are larger than they are: what is read beyond their end are
 * NaNs, and what is written there is seen. */
#include "op_device.h"

#include "dbt_test.h"

#include "base/half.h"
#include "base/os.h"
#include "gpu/gpu.h"
#include "plan/plan.h"
#include "test_device.h"

enum { GUARD_BYTES = 256 };
/* Bytes beyond inputs, and in outputs that nothing is written to: four are a NaN, and -1. */
static const unsigned char EMPTY = 0xff;
static const unsigned char GUARD =
    0xfe; /* beyond outputs: not what a copy from there would write */

static dbt_gpu *device;
static struct {
    uint32_t ran, refused, too_wide;
} count;

static void close_device(void) {
    const char *const name = dbt_gpu_hal(device)->name;
    print_message("%s: %u cases ran, %u refused, %u beyond 32 bits\n", name, (unsigned)count.ran,
                  (unsigned)count.refused, (unsigned)count.too_wide);
    if (count.ran == 0)
        printf("skipped: its ops run on the CPU alone\n0 passed, 0 failed, 1 skipped\n");
    dbt_gpu_destroy(&device);
}

bool op_device_wanted(void) {
    if (!test_device_wanted()) return false;
    if (device) return true;
    dibit_error error = {0};
    if (dbt_gpu_create(&dbt_default_allocator, test_device_open(), &device, &error))
        fail_msg("%s", error.text);
    atexit(close_device);
    return true;
}

/* ---- Tensors in buffers ---- */

/* A tensor as the device has it, and its bytes. */
typedef struct device_tensor {
    dibit_tensor t;
    dbt_hal_buffer *buffer;
    uint64_t bytes; /* rounded up to words */
} device_tensor;

typedef struct run {
    const op_device_case *c;
    const dbt_op *op;
    bool has_rows;
    device_tensor in[DBT_CASE_MAX], out[DBT_CASE_MAX];
    const dibit_tensor *in_tensors[DBT_CASE_MAX];
    dibit_tensor *out_tensors[DBT_CASE_MAX];
    dbt_hal_buffer *in_buffers[DBT_CASE_MAX], *out_buffers[DBT_CASE_MAX];
    bool in_constant[DBT_CASE_MAX];
    dbt_gpu_state_row *states[DBT_CASE_MAX];
    void *prepared;
    dibit_error error;
} run;

static void *need(void *memory) {
    if (!memory) fail_msg("out of memory");
    return memory;
}

static void ok(const run *r, dibit_status status) {
    if (status) fail_msg("%s on %s: %s", r->op->name, dbt_gpu_hal(device)->name, r->error.text);
}

static bool is_native(const run *r, bool present, uint32_t i) {
    for (uint32_t s = 0; r->has_rows && s < r->op->n_states; s++) {
        if ((present ? r->op->states[s].present : r->op->states[s].past) == i) return true;
    }
    return !present && i < 32 && (r->c->constants & r->op->raw_inputs) >> i & 1;
}

static bool is_host(const run *r, uint32_t i) { return i < 32 && r->op->host_inputs >> i & 1; }

/* Words for elements in storage type, or as they are. NULL when an integer does not fit. */
static void *to_device(const run *r, const dibit_tensor *t, bool native, device_tensor *d) {
    const int64_t n = dbt_tensor_count(t);
    d->t = *t;
    d->t.data = NULL;
    if (!native) {
        d->t.type = dbt_device_type(t->type);
        d->t.bytes = (uint64_t)n * 4;
    }
    d->bytes = (d->t.bytes + 3) / 4 * 4;
    void *const words = need(dbt_arena_alloc(r->c->arena, d->bytes));
    if (native) {
        if (d->t.bytes) memcpy(words, t->data, (size_t)d->t.bytes);
    } else if (dbt_type_is_float(t->type)) {
        dbt_unpack_elements(t->type, t->data, words, n);
    } else if (!dbt_integers_to_words(t->type, t->data, words, n)) {
        return NULL;
    }
    return words;
}

/* A buffer that ends with guards. words NULL: it is empty. */
static void make_buffer(run *r, device_tensor *d, const void *words, unsigned char guard) {
    if (d->bytes == 0) return;
    const uint64_t all = d->bytes + GUARD_BYTES;
    ok(r, dbt_gpu_buffer_create(device, all, &d->buffer, &r->error));
    unsigned char *const content = need(dbt_arena_alloc(r->c->arena, all));
    memset(content, EMPTY, (size_t)d->bytes);
    memset(content + d->bytes, guard, GUARD_BYTES);
    if (words) memcpy(content, words, (size_t)d->bytes);
    dbt_hal *const hal = dbt_gpu_hal(device);
    ok(r, hal->calls->write(hal, d->buffer, 0, content, all, &r->error));
}

static bool make_inputs(run *r) {
    const op_device_case *const c = r->c;
    for (uint32_t i = 0; i < c->n_inputs; i++) {
        if (!c->in[i]) continue;
        r->in_constant[i] = c->constants >> i & 1;
        if (is_host(r, i)) {
            r->in_tensors[i] = c->in[i];
            continue;
        }
        device_tensor *const d = &r->in[i];
        const void *const words = to_device(r, c->in[i], is_native(r, false, i), d);
        if (!words) return false;
        make_buffer(r, d, words, EMPTY);
        r->in_tensors[i] = &d->t;
        r->in_buffers[i] = d->buffer;
    }
    return true;
}

/* The rows of a pair, in the words of its present output: the past is copied to their front. */
static void make_rows(run *r, uint32_t s, unsigned char *words) {
    const op_device_case *const c = r->c;
    const dbt_state_pair pair = r->op->states[s];
    const dibit_tensor *const present = c->out[pair.present];
    const dibit_tensor *const past = pair.past < c->n_inputs ? c->in[pair.past] : NULL;
    const int64_t batch = present->dims[0], heads = present->dims[1], capacity = present->dims[2];
    const uint64_t element = dibit_type_bits(present->type) / 8;
    const uint64_t row = (uint64_t)present->dims[3] * element;
    const int64_t length = past ? past->dims[2] : 0;
    const int64_t copied = length < capacity ? length : capacity;
    r->states[s] = need(dbt_arena_array(c->arena, (uint64_t)batch, sizeof *r->states[s]));
    for (int64_t b = 0; b < batch; b++) {
        r->states[s][b] = (dbt_gpu_state_row){
            .buffer = r->out[pair.present].buffer,
            .base = (uint64_t)(b * heads * capacity * present->dims[3]),
            .length = length,
            .capacity = capacity,
        };
        for (int64_t h = b * heads; past && h < (b + 1) * heads; h++) {
            if (copied * present->dims[3] == 0) continue;
            memcpy(words + (uint64_t)(h * capacity) * row,
                   (const char *)past->data + (uint64_t)(h * length) * row,
                   (size_t)((uint64_t)copied * row));
        }
    }
}

static void make_outputs(run *r) {
    const op_device_case *const c = r->c;
    for (uint32_t i = 0; i < c->n_outputs; i++) {
        if (!c->out[i]) continue;
        device_tensor *const d = &r->out[i];
        d->t = *c->out[i];
        d->t.data = NULL;
        if (!is_native(r, true, i)) {
            d->t.type = dbt_device_type(d->t.type);
            d->t.bytes = (uint64_t)dbt_tensor_count(&d->t) * 4;
        }
        d->bytes = (d->t.bytes + 3) / 4 * 4;
        make_buffer(r, d, NULL, GUARD);
        r->out_tensors[i] = &d->t;
        r->out_buffers[i] = d->buffer;
    }
    for (uint32_t s = 0; r->has_rows && s < r->op->n_states; s++) {
        const uint32_t i = r->op->states[s].present;
        if (i >= c->n_outputs || !c->out[i] || c->out[i]->rank != 4) continue;
        device_tensor *const d = &r->out[i];
        unsigned char *const words = need(dbt_arena_alloc(c->arena, d->bytes));
        memset(words, EMPTY, (size_t)d->bytes);
        make_rows(r, s, words);
        dbt_hal *const hal = dbt_gpu_hal(device);
        if (d->bytes > 0) ok(r, hal->calls->write(hal, d->buffer, 0, words, d->bytes, &r->error));
    }
}

/* ---- Comparing ---- */

static float half_at(const void *data, int64_t i) {
    float y;
    dbt_unpack_elements(DIBIT_TYPE_FLOAT16, (const uint16_t *)data + i, &y, 1);
    return y;
}

static void expect_float(const run *r, uint32_t i, int64_t k, float got, float want,
                         float allowed) {
    if (got == want || (isnan(got) && isnan(want))) return;
    if (fabsf(got - want) <= allowed || (isinf(allowed) && allowed > 0)) return;
    fail_msg("%s on %s: element %lld of output %u is %.9g, on the CPU %.9g (allowed %.3g)",
             r->op->name, dbt_gpu_hal(device)->name, (long long)k, (unsigned)i, (double)got,
             (double)want, (double)allowed);
}

static void compare(const run *r, uint32_t i, const void *words) {
    const dibit_tensor *const want = r->c->out[i];
    const int64_t n = dbt_tensor_count(want);
    if (want->type == DIBIT_TYPE_FLOAT) {
        for (int64_t k = 0; k < n; k++) {
            expect_float(r, i, k, ((const float *)words)[k], ((const float *)want->data)[k],
                         r->c->allowed[i] ? r->c->allowed[i][k] : 0.0f);
        }
    } else if (want->type == DIBIT_TYPE_FLOAT16) {
        /* Two roundings to half, of values that differ by far less. */
        for (int64_t k = 0; k < n; k++) {
            const float y = half_at(want->data, k);
            expect_float(r, i, k, half_at(words, k), y, 0x1p-10f * fabsf(y) + 0x1p-24f);
        }
    } else {
        void *const storage = need(dbt_arena_alloc(r->c->arena, want->bytes));
        dbt_words_to_integers(want->type, words, storage, n);
        const uint64_t element = dibit_type_bits(want->type) / 8;
        for (int64_t k = 0; k < n; k++) {
            const uint64_t at = (uint64_t)k * element;
            if (memcmp((char *)storage + at, (const char *)want->data + at, element) == 0) continue;
            fail_msg("%s on %s: element %lld of output %u is %d, which the CPU says otherwise",
                     r->op->name, dbt_gpu_hal(device)->name, (long long)k, (unsigned)i,
                     ((const int32_t *)words)[k]);
        }
    }
}

static void read_all(run *r, unsigned char *const *content) {
    dbt_hal *const hal = dbt_gpu_hal(device);
    for (uint32_t i = 0; i < r->c->n_outputs; i++) {
        if (!content[i]) continue;
        uint64_t ticket;
        ok(r, dbt_gpu_read(device, r->out[i].buffer, 0, content[i], r->out[i].bytes + GUARD_BYTES,
                           &ticket, &r->error));
        dibit_status status;
        while ((status = hal->calls->poll(hal, ticket, &r->error)) == DIBIT_PENDING) dbt_os_yield();
        ok(r, status);
    }
}

static void check_outputs(run *r) {
    unsigned char *content[DBT_CASE_MAX] = {0};
    for (uint32_t i = 0; i < r->c->n_outputs; i++) {
        const uint64_t bytes = r->out[i].bytes;
        if (bytes > 0) content[i] = need(dbt_arena_alloc(r->c->arena, bytes + GUARD_BYTES));
    }
    read_all(r, content);
    for (uint32_t i = 0; i < r->c->n_outputs; i++) {
        const uint64_t bytes = r->out[i].bytes;
        for (uint64_t k = bytes; content[i] && k < bytes + GUARD_BYTES; k++) {
            if (content[i][k] != GUARD)
                fail_msg("%s writes past output %u on the device", r->op->name, (unsigned)i);
        }
        if (content[i] && test_device_computes()) compare(r, i, content[i]);
    }
    for (uint32_t s = 0; r->c->rows && s < r->op->n_states; s++) {
        const dbt_state_row *const rows = r->c->rows[s];
        for (int64_t b = 0; r->states[s] && b < r->c->out[r->op->states[s].present]->dims[0]; b++)
            assert_int_equal(r->states[s][b].length, rows[b].length);
    }
}

/* ---- The case ---- */

static void prepare(run *r) {
    if (!r->op->gpu_prepare) return;
    const dibit_tensor *tensors[DBT_CASE_MAX] = {0};
    dbt_hal_buffer *buffers[DBT_CASE_MAX] = {0};
    for (uint32_t i = 0; i < r->c->n_inputs; i++) {
        if (!r->in_constant[i]) continue;
        tensors[i] = r->in_tensors[i];
        buffers[i] = r->in_buffers[i];
    }
    dbt_gpu_prepare p = {.node = r->c->node,
                         .attrs = r->c->attrs,
                         .activations = r->c->activations,
                         .in = tensors,
                         .in_buffers = buffers,
                         .arena = r->c->arena,
                         .gpu = device,
                         .kernel = "",
                         .why = "",
                         .error = &r->error};
    dibit_status status;
    while ((status = r->op->gpu_prepare(&p)) == DIBIT_PENDING) dbt_os_yield();
    if (dbt_gpu_dropped_kernels(device)) fail_msg("%s: a kernel is wrong", r->op->name);
    r->prepared = p.prepared;
    ok(r, status);
    if (dbt_gpu_dropped_kernels(device) > 0)
        fail_msg("%s: a kernel is wrong on this device: %s", r->op->name, p.why);
}

static void encode(run *r) {
    const dbt_gpu_call call = {.node = r->c->node,
                               .attrs = r->c->attrs,
                               .n_inputs = r->c->n_inputs,
                               .n_outputs = r->c->n_outputs,
                               .in = r->in_tensors,
                               .out = r->out_tensors,
                               .in_buffers = r->in_buffers,
                               .out_buffers = r->out_buffers,
                               .in_constant = r->in_constant,
                               .prepared = r->prepared,
                               .states = r->has_rows ? r->states : NULL,
                               .activations = r->c->activations,
                               .gpu = device,
                               .error = &r->error};
    ok(r, r->op->gpu_encode(&call));
}

/* The same once more makes nothing new on the device. */
static void encode_again(run *r) {
    const uint64_t created = dbt_gpu_hal(device)->counters.created;
    encode(r);
    if (dbt_gpu_hal(device)->counters.created != created)
        fail_msg("%s makes something new on the device in its second run", r->op->name);
}

static void destroy(run *r) {
    if (r->op->gpu_release) r->op->gpu_release(r->prepared, device);
    for (uint32_t i = 0; i < DBT_CASE_MAX; i++) {
        dbt_gpu_buffer_destroy(device, r->in[i].buffer);
        dbt_gpu_buffer_destroy(device, r->out[i].buffer);
    }
}

static bool refuses(const op_device_case *c) {
    static const struct {
        const char *op, *why;
    } expected[] = {
#define DEVICE_REFUSAL(op, why) {op, why},
#include "device_refusals.inc"
#undef DEVICE_REFUSAL
        {NULL, NULL}};
    const dbt_op *const op = c->node->op;
    const char *const why = op->gpu_refuses ? op->gpu_refuses(c->node, dbt_gpu_hal(device)) : NULL;
    if (!why) return false;
    for (size_t i = 0; expected[i].op; i++) {
        const bool any = strcmp(expected[i].op, "*") == 0;
        if ((any || strcmp(expected[i].op, op->name) == 0) && strcmp(expected[i].why, why) == 0)
            return true;
    }
    fail_msg("%s refuses the device: '%s', which tests/device_refusals.inc does not list", op->name,
             why);
    return true;
}

void op_device_check(const op_device_case *c) {
    if (refuses(c)) {
        count.refused++;
        return;
    }
    run *const r = need(dbt_arena_alloc(c->arena, sizeof *r));
    r->c = c;
    r->op = c->node->op;
    r->has_rows = dbt_node_has_rows(c->node);
    if (make_inputs(r)) {
        make_outputs(r);
        prepare(r);
        encode(r);
        if (!test_device_computes() && !r->has_rows) encode_again(r);
        check_outputs(r);
        count.ran++;
    } else {
        count.too_wide++;
    }
    destroy(r);
}

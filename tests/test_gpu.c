/* What gpu.c keeps above the HAL, with the null HAL's counters: the second round of the same work makes
 * nothing new. */
#include "dbt_test.h"

#include <time.h>

#include "base/os.h"
#include "gpu/gpu.h"

static const char fill_text[] = "#param VALUE 0..3\n"
                                "@group(0) @binding(1) var<storage, read_write> y: array<u32>;\n"
                                "@compute @workgroup_size(64) fn main() { y[0] = VALUE; }\n";
static const dbt_shader_file files[] = {{"fill.wgsl", fill_text, sizeof fill_text - 1}};
static const dbt_shader_library library = {files, 1};

static uint64_t n_allocations;

static void *counting_allocate(void *user, size_t bytes, size_t alignment) {
    (void)user;
    n_allocations++;
    return dbt_alloc(&dbt_default_allocator, bytes, alignment);
}
static void counting_release(void *user, void *memory, size_t bytes) {
    (void)user;
    dbt_release(&dbt_default_allocator, memory, bytes);
}

typedef struct fixture {
    dbt_hal *hal;
    dbt_gpu *gpu;
    dibit_error error;
} fixture;

static void start(fixture *f) {
    *f = (fixture){0};
    const dibit_allocator allocator = {.alloc = counting_allocate, .release = counting_release};
    assert_int_equal(dbt_hal_null_create(&dbt_default_allocator, 0, &f->hal, &f->error), DIBIT_OK);
    assert_int_equal(dbt_gpu_create(&allocator, f->hal, &f->gpu, &f->error), DIBIT_OK);
    assert_ptr_equal(dbt_gpu_hal(f->gpu), f->hal);
    dbt_gpu_use_shaders(f->gpu, &library);
}
static void stop(fixture *f) { dbt_gpu_destroy(&f->gpu); }

static dbt_hal_buffer *buffer(fixture *f, uint64_t bytes) {
    dbt_hal_buffer *b = NULL;
    assert_int_equal(dbt_gpu_buffer_create(f->gpu, bytes, &b, &f->error), DIBIT_OK);
    return b;
}

static dibit_status record(fixture *f, int32_t value, dbt_hal_buffer *y, uint64_t offset) {
    const dbt_shader_param param = {"VALUE", value};
    const dbt_hal_binding binding = {.buffer = y, .offset = offset};
    const uint32_t uniforms[4] = {1, 2, 3, (uint32_t)value};
    const dbt_gpu_dispatch d = {.shader = files[0].name,
                                .params = &param,
                                .n_params = 1,
                                .bindings = &binding,
                                .n_bindings = 1,
                                .written = 1,
                                .uniforms = uniforms,
                                .uniform_bytes = sizeof uniforms,
                                .workgroups = {1, 1, 1}};
    return dbt_gpu_record(f->gpu, &d, &f->error);
}

static void test_a_second_round_makes_nothing(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dbt_hal_buffer *const y[2] = {buffer(&f, 1024), buffer(&f, 1024)};
    dbt_hal_counters first = {0};
    uint64_t allocations = 0;
    for (int round = 0; round < 2; round++) {
        for (int32_t value = 0; value < 4; value++) {
            for (int b = 0; b < 2; b++) {
                for (uint64_t offset = 0; offset < 1024; offset += 256) {
                    assert_int_equal(record(&f, value, y[b], offset), DIBIT_OK);
                }
            }
        }
        assert_int_equal(dbt_gpu_submit(f.gpu, &f.error), DIBIT_OK);
        if (round == 0) {
            first = f.hal->counters;
            allocations = n_allocations;
        }
    }
    assert_int_equal(first.pipelines, 4);
    assert_int_equal(first.groups, 4 * 2 * 4);
    assert_int_equal(first.dispatches, 32);
    assert_int_equal(f.hal->counters.created, first.created);
    assert_int_equal(f.hal->counters.dispatches, 64);
    assert_int_equal(f.hal->counters.submits, 2);
    assert_int_equal(f.hal->counters.writes, 2);
    assert_int_equal(n_allocations, allocations);
    stop(&f);
}

static void test_what_shapes_a_pipeline(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dbt_hal_buffer *const y = buffer(&f, 1024), *const x = buffer(&f, 1024);
    const dbt_shader_param param = {"VALUE", 1};
    dbt_hal_binding bindings[2] = {{.buffer = y}, {.buffer = x}};
    const uint32_t uniforms[8] = {0};
    dbt_gpu_dispatch d = {.shader = files[0].name,
                          .params = &param,
                          .n_params = 1,
                          .bindings = bindings,
                          .n_bindings = 2,
                          .written = 1,
                          .uniforms = uniforms,
                          .uniform_bytes = 16};
    assert_int_equal(dbt_gpu_warm(f.gpu, &d, &f.error), DIBIT_OK);
    assert_int_equal(f.hal->counters.pipelines, 1);
    assert_int_equal(f.hal->counters.groups, 0);
    d.written = 3;
    assert_int_equal(dbt_gpu_warm(f.gpu, &d, &f.error), DIBIT_OK);
    d.uniform_bytes = 32;
    assert_int_equal(dbt_gpu_warm(f.gpu, &d, &f.error), DIBIT_OK);
    d.written = 1;
    bindings[1].buffer = NULL;
    assert_int_equal(dbt_gpu_warm(f.gpu, &d, &f.error), DIBIT_OK);
    assert_int_equal(f.hal->counters.pipelines, 4);
    bindings[1].offset = 256; /* of what is absent */
    d.workgroups[0] = d.workgroups[1] = d.workgroups[2] = 1;
    assert_int_equal(dbt_gpu_record(f.gpu, &d, &f.error), DIBIT_OK);
    bindings[1].offset = 0;
    assert_int_equal(dbt_gpu_record(f.gpu, &d, &f.error), DIBIT_OK);
    assert_int_equal(f.hal->counters.pipelines, 4);
    assert_int_equal(f.hal->counters.groups, 1);
    d.workgroups[1] = 0;
    assert_int_equal(dbt_gpu_record(f.gpu, &d, &f.error), DIBIT_OK);
    assert_int_equal(f.hal->counters.dispatches, 2);
    stop(&f);
}

static void test_groups_go_with_their_buffers(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dbt_hal_buffer *y[300];
    for (int i = 0; i < 300; i++) {
        y[i] = buffer(&f, 64);
        assert_int_equal(record(&f, 0, y[i], 0), DIBIT_OK);
    }
    assert_int_equal(f.hal->counters.groups, 300);
    for (int i = 0; i < 300; i += 2) dbt_gpu_buffer_destroy(f.gpu, y[i]);
    assert_int_equal(f.hal->counters.groups, 150);
    const uint64_t created = f.hal->counters.created;
    for (int i = 1; i < 300; i += 2) assert_int_equal(record(&f, 0, y[i], 0), DIBIT_OK);
    assert_int_equal(f.hal->counters.created, created);
    dbt_gpu_buffer_destroy(f.gpu, NULL);
    stop(&f);
}

/* Bindings whose offsets never come again do not fill memory. */
static void test_groups_are_bounded(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dbt_hal_buffer *const y = buffer(&f, 20000 * 256);
    for (uint64_t i = 0; i < 20000; i++) assert_int_equal(record(&f, 0, y, i * 256), DIBIT_OK);
    assert_in_range(f.hal->counters.groups, 1, 16384);
    stop(&f);
}

/* So that a device that waits works on some while others are recorded. */
static void test_every_64_dispatches_are_submitted(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dbt_hal_buffer *const y = buffer(&f, 64);
    for (int i = 0; i < 63; i++) assert_int_equal(record(&f, 0, y, 0), DIBIT_OK);
    assert_int_equal(f.hal->counters.submits, 0);
    for (int i = 63; i < 100; i++) assert_int_equal(record(&f, 0, y, 0), DIBIT_OK);
    assert_int_equal(f.hal->counters.submits, 1);
    assert_int_equal(f.hal->counters.writes, 1);
    uint64_t ticket;
    uint32_t word;
    assert_int_equal(dbt_gpu_read(f.gpu, y, 0, &word, 4, &ticket, &f.error), DIBIT_OK);
    assert_int_equal(f.hal->counters.submits, 2);
    assert_int_equal(f.hal->counters.writes, 2);
    assert_int_equal(dbt_gpu_submit(f.gpu, &f.error), DIBIT_OK);
    assert_int_equal(f.hal->counters.writes, 2);
    stop(&f);
}

static dibit_status never_done(dbt_hal *hal, uint64_t ticket, dibit_error *error) {
    (void)hal, (void)ticket, (void)error;
    return DIBIT_PENDING;
}

/* The device has something to do: what follows a read under way is one submit, as long as its uniforms fit. */
static void test_a_busy_device_gets_all_at_once(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dbt_hal_buffer *const y = buffer(&f, 64);
    dbt_hal_calls calls = *f.hal->calls;
    const dbt_hal_calls *const null_calls = f.hal->calls;
    calls.poll = never_done;
    f.hal->calls = &calls;
    uint64_t ticket;
    uint32_t word;
    assert_int_equal(dbt_gpu_read(f.gpu, y, 0, &word, 4, &ticket, &f.error), DIBIT_OK);
    for (int i = 0; i < 1023; i++) assert_int_equal(record(&f, 0, y, 0), DIBIT_OK);
    assert_int_equal(f.hal->counters.submits, 1);
    assert_int_equal(record(&f, 0, y, 0), DIBIT_OK);
    assert_int_equal(f.hal->counters.submits, 2);
    for (int i = 0; i < 63; i++) assert_int_equal(record(&f, 0, y, 0), DIBIT_OK);
    assert_int_equal(f.hal->counters.submits, 2);
    calls.poll = null_calls->poll; /* now the read is done */
    assert_int_equal(record(&f, 0, y, 0), DIBIT_OK);
    assert_int_equal(f.hal->counters.submits, 3);
    f.hal->calls = null_calls;
    stop(&f);
}

/* Whoever waits in a loop leaves the core to others. */
static void test_waiting_naps(void **state) {
    (void)state;
#if !defined(__wasm__)
    enum { POLLS = 100, LEAST_NS = 20000 };
    fixture f;
    start(&f);
    dbt_hal_calls calls = *f.hal->calls;
    const dbt_hal_calls *const null_calls = f.hal->calls;
    calls.poll = never_done;
    f.hal->calls = &calls;
    const clock_t worked = clock();
    const uint64_t began = dbt_os_nanoseconds();
    for (int i = 0; i <= POLLS; i++)
        assert_int_equal(dbt_gpu_poll(f.gpu, 7, &f.error), DIBIT_PENDING);
    const double ns = (double)(dbt_os_nanoseconds() - began);
    assert_true(ns >= POLLS * LEAST_NS);
    assert_true((double)(clock() - worked) / CLOCKS_PER_SEC * 1e9 < ns / 2);
    f.hal->calls = null_calls;
    stop(&f);
#endif
}

/* The HAL may submit by itself: the uniforms go first. */
static void test_uniforms_go_before_any_submit(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dbt_hal_buffer *const y = buffer(&f, 64);
    assert_int_equal(f.hal->calls->submit(f.hal, &f.error), DIBIT_OK);
    assert_int_equal(f.hal->counters.writes, 0);
    assert_int_equal(record(&f, 0, y, 0), DIBIT_OK);
    assert_int_equal(f.hal->calls->submit(f.hal, &f.error), DIBIT_OK);
    assert_int_equal(f.hal->counters.writes, 1);
    stop(&f);
}

static void expect_failure(fixture *f, const dbt_gpu_dispatch *d, dibit_status status,
                           const char *want) {
    assert_int_equal(dbt_gpu_record(f->gpu, d, &f->error), status);
    assert_string_equal(f->error.text, want);
}

static void test_limits_are_statuses(void **state) {
    (void)state;
    fixture f;
    start(&f);
    const dbt_shader_param param = {"VALUE", 1}, wrong = {"VALUE", 4};
    dbt_hal_binding bindings[17];
    for (int i = 0; i < 17; i++) bindings[i] = (dbt_hal_binding){.buffer = buffer(&f, 64)};
    const uint32_t uniforms[128] = {0};
    const dbt_gpu_dispatch good = {.shader = files[0].name,
                                   .params = &param,
                                   .n_params = 1,
                                   .bindings = bindings,
                                   .n_bindings = 1,
                                   .written = 1,
                                   .uniforms = uniforms,
                                   .workgroups = {1, 1, 1}};
    dbt_gpu_dispatch d = good;
    d.workgroups[2] = 65536;
    expect_failure(&f, &d, DIBIT_TOO_LARGE,
                   "fill.wgsl wants 65536 workgroups, the device allows 65535");
    d = good;
    d.n_bindings = 9;
    expect_failure(&f, &d, DIBIT_TOO_LARGE, "fill.wgsl binds 9 buffers, the device allows 8");
    d.n_bindings = 17;
    expect_failure(&f, &d, DIBIT_BAD_ARGUMENT, "fill.wgsl has 17 bindings, 16 are allowed");
    d = good;
    d.written = 2;
    expect_failure(&f, &d, DIBIT_BAD_ARGUMENT, "fill.wgsl writes a binding that is not there");
    d = good;
    d.uniform_bytes = 512;
    expect_failure(&f, &d, DIBIT_BAD_ARGUMENT,
                   "fill.wgsl has 512 bytes of uniforms, 256 are allowed");
    d = good;
    d.params = &wrong;
    expect_failure(&f, &d, DIBIT_BAD_ARGUMENT, "fill.wgsl:1: VALUE cannot be 4");
    d = good;
    d.shader = "none.wgsl";
    expect_failure(&f, &d, DIBIT_BAD_ARGUMENT, "there is no shader 'none.wgsl'");
    const dbt_hal_binding large = {.buffer = buffer(&f, 200 << 20)};
    d = good;
    d.bindings = &large;
    expect_failure(
        &f, &d, DIBIT_TOO_LARGE,
        "fill.wgsl: binding 0 of 209715200 bytes is beyond the device's limit of 134217728");
    assert_int_equal(f.hal->counters.dispatches, 0);
    assert_int_equal(dbt_gpu_record(f.gpu, &good, &f.error), DIBIT_OK);
    stop(&f);
}

static void test_scratch_grows(void **state) {
    (void)state;
    fixture f;
    start(&f);
    dbt_hal_buffer *a, *b, *again;
    assert_int_equal(dbt_gpu_scratch(f.gpu, 0, 5000, &a, &f.error), DIBIT_OK);
    assert_int_equal(dbt_gpu_scratch(f.gpu, 7, 0, &b, &f.error), DIBIT_OK);
    assert_ptr_not_equal(a, b);
    assert_int_equal(record(&f, 0, a, 0), DIBIT_OK);
    const uint64_t created = f.hal->counters.created;
    assert_int_equal(dbt_gpu_scratch(f.gpu, 0, 8192, &again, &f.error), DIBIT_OK);
    assert_ptr_equal(again, a);
    assert_int_equal(f.hal->counters.created, created);
    assert_int_equal(dbt_gpu_scratch(f.gpu, 0, 8193, &again, &f.error), DIBIT_OK);
    assert_int_equal(f.hal->counters.created, created + 1);
    assert_int_equal(f.hal->counters.groups, 0); /* the old buffer's is forgotten */
    assert_int_equal(dbt_gpu_scratch(f.gpu, 0, (uint64_t)1 << 40, &again, &f.error),
                     DIBIT_TOO_LARGE);
    assert_int_equal(dbt_gpu_scratch(f.gpu, 0, 16384, &again, &f.error), DIBIT_OK);
    stop(&f);
}

static void test_grid(void **state) {
    (void)state;
    fixture f;
    start(&f);
    static const uint64_t sizes[] = {1, 2, 65535, 65536, 65537, 131071, 1 << 20, INT32_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t w[3];
        assert_int_equal(dbt_gpu_grid(f.gpu, sizes[i], w, &f.error), DIBIT_OK);
        assert_in_range(w[0], 1, 65535);
        assert_in_range(w[1], 1, 65535);
        assert_int_equal(w[2], 1);
        const uint64_t all = (uint64_t)w[0] * w[1];
        assert_in_range(all, sizes[i], sizes[i] + w[1] - 1);
    }
    uint32_t w[3];
    assert_int_equal(dbt_gpu_grid(f.gpu, 0, w, &f.error), DIBIT_OK);
    assert_int_equal(w[0], 0);
    assert_int_equal(dbt_gpu_grid(f.gpu, (uint64_t)1 << 31, w, &f.error), DIBIT_TOO_LARGE);
    stop(&f);
}

/* Every allocation fails once: a status, and a device that still works or can be destroyed. */
typedef struct failing {
    int countdown;
} failing;
static void *failing_allocate(void *user, size_t bytes, size_t alignment) {
    failing *const f = user;
    return f->countdown-- == 0 ? NULL : dbt_alloc(&dbt_default_allocator, bytes, alignment);
}

static void test_failing_allocations(void **state) {
    (void)state;
    int failures = 0;
    for (int at = 0;; at++) {
        failing user = {at};
        const dibit_allocator allocator = {
            .user = &user, .alloc = failing_allocate, .release = counting_release};
        fixture f = {0};
        assert_int_equal(dbt_hal_null_create(&dbt_default_allocator, 0, &f.hal, &f.error),
                         DIBIT_OK);
        if (dbt_gpu_create(&allocator, f.hal, &f.gpu, &f.error)) {
            failures++;
            f.hal->calls->destroy(f.hal);
            continue;
        }
        dbt_gpu_use_shaders(f.gpu, &library);
        dbt_hal_buffer *const y = buffer(&f, 64);
        const dibit_status status = record(&f, 0, y, 0);
        if (status) assert_int_equal(status, DIBIT_OUT_OF_MEMORY);
        failures += status != DIBIT_OK;
        assert_int_equal(record(&f, 0, y, 0), DIBIT_OK);
        stop(&f);
        if (user.countdown > 0) break;
    }
    assert_in_range(failures, 6, 20);
}

static void test_memory_of_ops_is_kept(void **state) {
    (void)state;
    fixture f;
    start(&f);
    static const char keys[2];
    void *first = NULL, *again = NULL, *other = NULL;
    assert_int_equal(dbt_gpu_memory(f.gpu, &keys[0], 100, &first, &f.error), DIBIT_OK);
    for (int i = 0; i < 100; i++) assert_int_equal(((char *)first)[i], 0);
    memset(first, 7, 100);
    assert_int_equal(dbt_gpu_memory(f.gpu, &keys[1], 100, &other, &f.error), DIBIT_OK);
    assert_int_equal(*(char *)other, 0);
    assert_int_equal(dbt_gpu_memory(f.gpu, &keys[0], 100, &again, &f.error), DIBIT_OK);
    assert_ptr_equal(again, first);
    assert_int_equal(((char *)again)[99], 7);
    assert_int_equal(dbt_gpu_dropped_kernels(f.gpu), 0);
    dbt_gpu_drop_kernel(f.gpu);
    assert_int_equal(dbt_gpu_dropped_kernels(f.gpu), 1);
    stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_second_round_makes_nothing),
        cmocka_unit_test(test_memory_of_ops_is_kept),
        cmocka_unit_test(test_what_shapes_a_pipeline),
        cmocka_unit_test(test_groups_go_with_their_buffers),
        cmocka_unit_test(test_groups_are_bounded),
        cmocka_unit_test(test_every_64_dispatches_are_submitted),
        cmocka_unit_test(test_a_busy_device_gets_all_at_once),
        cmocka_unit_test(test_waiting_naps),
        cmocka_unit_test(test_uniforms_go_before_any_submit),
        cmocka_unit_test(test_limits_are_statuses),
        cmocka_unit_test(test_scratch_grows),
        cmocka_unit_test(test_grid),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

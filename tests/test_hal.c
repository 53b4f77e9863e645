/* The HAL's contract, on the null device, or with DIBIT_TEST_DEVICE=webgpu on a native one, and then also
 * what only such a device can show. */
#include "dbt_test.h"

#include <stdio.h>
#include <sys/resource.h>

#include "base/os.h"
#include "gpu/hal_native.h"
#include "test_device.h"

typedef struct fixture {
    dbt_hal *hal;
    const dbt_hal_calls *calls;
    dibit_error error;
} fixture;

static bool native;

static int start(void **state) {
    fixture *const f = calloc(1, sizeof *f);
    f->hal = test_device_open();
    f->calls = f->hal->calls;
    *state = f;
    return 0;
}

static int stop(void **state) {
    fixture *const f = *state;
    f->calls->destroy(f->hal);
    free(f);
    return 0;
}

/* ---- Helpers ---- */

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != DIBIT_OK) fail_msg("%s", f->error.text);                                     \
    } while (0)

static dbt_hal_buffer *buffer_of(fixture *f, uint64_t bytes) {
    dbt_hal_buffer *b = NULL;
    OK(f->calls->buffer_create(f->hal, bytes, &b, &f->error));
    return b;
}

static void put(fixture *f, dbt_hal_buffer *b, uint64_t offset, const void *data, uint64_t bytes) {
    OK(f->calls->write(f->hal, b, offset, data, bytes, &f->error));
}

static dibit_status wait_for(fixture *f, uint64_t ticket) {
    const uint64_t begin = dbt_os_nanoseconds();
    for (;;) {
        const dibit_status status = f->calls->poll(f->hal, ticket, &f->error);
        if (status != DIBIT_PENDING) return status;
        if (dbt_os_nanoseconds() - begin > 20000000000u) fail_msg("no answer in 20 seconds");
        dbt_os_yield();
    }
}

static void get(fixture *f, dbt_hal_buffer *b, uint64_t offset, void *to, uint64_t bytes) {
    uint64_t ticket;
    OK(f->calls->read(f->hal, b, offset, to, bytes, &ticket, &f->error));
    OK(wait_for(f, ticket));
}

/* y[i] = x[i] * factor + add, over 64 elements. */
static const char affine[] = "struct U { factor: f32, add: f32 }\n"
                             "@group(0) @binding(0) var<uniform> u: U;\n"
                             "@group(0) @binding(1) var<storage, read> x: array<f32>;\n"
                             "@group(0) @binding(2) var<storage, read_write> y: array<f32>;\n"
                             "@compute @workgroup_size(64)\n"
                             "fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n"
                             "    y[id.x] = x[id.x] * u.factor + u.add;\n"
                             "}\n";

static const dbt_hal_pipeline_desc affine_desc = {.name = "affine",
                                                  .wgsl = affine,
                                                  .wgsl_bytes = sizeof affine - 1,
                                                  .bindings = 3,
                                                  .written = 2,
                                                  .uniform_bytes = 8};

typedef struct rig {
    dbt_hal_pipeline *pipeline;
    dbt_hal_buffer *x, *y, *uniforms;
    dbt_hal_group *group;
} rig;

static rig rig_of(fixture *f) {
    rig r;
    OK(f->calls->pipeline_create(f->hal, &affine_desc, &r.pipeline, &f->error));
    r.x = buffer_of(f, 256);
    r.y = buffer_of(f, 256);
    r.uniforms = buffer_of(f, 4096);
    const dbt_hal_binding bindings[] = {{r.x, 0, 0}, {r.y, 0, 0}};
    OK(f->calls->group_create(f->hal, r.pipeline, bindings, 2, r.uniforms, &r.group, &f->error));
    return r;
}

static dibit_status run_at(fixture *f, const rig *r, uint32_t uniforms_offset) {
    const dbt_hal_dispatch d = {.name = "affine",
                                .pipeline = r->pipeline,
                                .group = r->group,
                                .uniforms_offset = uniforms_offset,
                                .workgroups = {1, 1, 1}};
    return f->calls->dispatch(f->hal, &d, &f->error);
}

static void put_params(fixture *f, const rig *r, uint32_t offset, float factor, float add) {
    const float u[2] = {factor, add};
    put(f, r->uniforms, offset, u, sizeof u);
}

/* ---- Buffers ---- */

static void test_a_buffer_is_zeros_and_keeps_what_is_written(void **state) {
    fixture *const f = *state;
    dbt_hal_buffer *const b = buffer_of(f, 10);
    unsigned char got[12];
    memset(got, 1, sizeof got);
    get(f, b, 0, got, 12);
    for (int i = 0; i < 12; i++) assert_int_equal(got[i], 0);
    put(f, b, 4, "abcdef", 6);
    memset(got, 1, sizeof got);
    get(f, b, 0, got, 10);
    assert_memory_equal(got, "\0\0\0\0abcdef\1\1", 12);
    put(f, b, 4, "ghijk", 5); /* the rest of the last word becomes zeros */
    get(f, b, 0, got, 12);
    assert_memory_equal(got, "\0\0\0\0ghijk\0\0\0", 12);
    get(f, b, 12, got, 0);
    f->calls->buffer_destroy(f->hal, b);
    f->calls->buffer_destroy(f->hal, NULL);
    assert_int_equal(f->hal->counters.buffers, 0);
    assert_int_equal(f->hal->counters.buffer_bytes, 0);
}

static void test_large_writes_and_reads_arrive_whole(void **state) {
    fixture *const f = *state;
    const size_t n = (50u << 20) / 4 + 3;
    uint32_t *const data = malloc(4 * n), *const got = calloc(n, 4);
    uint64_t seed = 1;
    for (size_t i = 0; i < n; i++) data[i] = (uint32_t)dbt_test_random(&seed);
    dbt_hal_buffer *const b = buffer_of(f, 4 * n);
    put(f, b, 0, data, 4 * n);
    get(f, b, 0, got, 4 * n);
    assert_memory_equal(data, got, 4 * n);
    free(data);
    free(got);
}

static void test_ranges_are_checked(void **state) {
    fixture *const f = *state;
    dbt_hal_buffer *const a = buffer_of(f, 16), *const b = buffer_of(f, 16);
    uint32_t data[8] = {0};
    uint64_t ticket;
    const dbt_hal_calls *const c = f->calls;
    assert_int_equal(c->write(f->hal, a, 2, data, 4, &f->error), DIBIT_BAD_ARGUMENT);
    assert_int_equal(c->write(f->hal, a, 12, data, 8, &f->error), DIBIT_BAD_ARGUMENT);
    assert_int_equal(c->read(f->hal, a, 20, data, 0, &ticket, &f->error), DIBIT_BAD_ARGUMENT);
    assert_int_equal(c->read(f->hal, a, 0, data, UINT64_MAX, &ticket, &f->error),
                     DIBIT_BAD_ARGUMENT);
    assert_int_equal(c->copy(f->hal, a, 0, a, 8, 4, &f->error), DIBIT_BAD_ARGUMENT);
    assert_int_equal(c->copy(f->hal, a, 0, b, 8, 12, &f->error), DIBIT_BAD_ARGUMENT);
    assert_int_equal(c->copy(f->hal, a, 0, b, 8, 3, &f->error), DIBIT_BAD_ARGUMENT);
    OK(c->copy(f->hal, a, 16, b, 16, 0, &f->error));
    dbt_hal_buffer *none = NULL;
    assert_int_equal(c->buffer_create(f->hal, 0, &none, &f->error), DIBIT_TOO_LARGE);
    assert_int_equal(
        c->buffer_create(f->hal, f->hal->limits.max_buffer_bytes + 1, &none, &f->error),
        DIBIT_TOO_LARGE);
    assert_null(none);
    OK(wait_for(f, 0));
}

/* ---- Order ---- */

static void test_commands_take_effect_in_order(void **state) {
    fixture *const f = *state;
    const rig r = rig_of(f);
    dbt_hal_buffer *const kept = buffer_of(f, 256);
    float x[64], first[64], second[64], third[64];
    for (int i = 0; i < 64; i++) x[i] = (float)i;
    put(f, r.x, 0, x, sizeof x);
    put_params(f, &r, 0, 2, 1);
    OK(run_at(f, &r, 0)); /* y = 2x + 1 */
    OK(f->calls->copy(f->hal, r.y, 0, kept, 0, 256, &f->error));
    OK(f->calls->copy(f->hal, r.y, 0, r.x, 0, 256, &f->error));
    put_params(f, &r, 0, 3, 0);
    OK(run_at(f, &r, 0)); /* y = 3 (2x + 1) */
    uint64_t tickets[3];
    OK(f->calls->read(f->hal, r.y, 0, first, 256, &tickets[0], &f->error));
    for (int i = 0; i < 64; i++) x[i] = -1;
    put(f, r.y, 0, x, sizeof x); /* after the read */
    OK(f->calls->read(f->hal, kept, 0, second, 256, &tickets[1], &f->error));
    OK(f->calls->read(f->hal, r.y, 0, third, 256, &tickets[2], &f->error));
    for (int i = 2; i >= 0; i--) OK(wait_for(f, tickets[i]));
    for (int i = 0; native && i < 64; i++) {
        assert_float_equal(first[i], 3 * (2 * (float)i + 1), 0);
        assert_float_equal(second[i], 2 * (float)i + 1, 0);
    }
    for (int i = 0; i < 64; i++) assert_float_equal(third[i], -1, 0);
}

static void test_each_dispatch_has_its_uniforms(void **state) {
    fixture *const f = *state;
    const rig r = rig_of(f);
    const uint32_t step = f->hal->limits.uniform_alignment;
    float x[64] = {0}, y[64];
    put(f, r.x, 0, x, sizeof x);
    for (uint32_t i = 0; i < 4; i++) put_params(f, &r, i * step, 0, (float)i + 1);
    /* One pass, in which the pipeline and the group stay and the offset changes. */
    for (uint32_t i = 0; i < 4; i++) {
        OK(run_at(f, &r, i * step));
        OK(run_at(f, &r, i * step));
    }
    OK(run_at(f, &r, 2 * step));
    get(f, r.y, 0, y, sizeof y);
    assert_float_equal(y[63], native ? 3 : 0, 0);
    assert_int_equal(f->hal->counters.dispatches, 9);
}

static void test_what_was_destroyed_serves_recorded_work(void **state) {
    fixture *const f = *state;
    rig r = rig_of(f);
    float y[64], x[64];
    for (int i = 0; i < 64; i++) x[i] = 5;
    put(f, r.x, 0, x, sizeof x);
    put_params(f, &r, 0, 2, 0);
    OK(run_at(f, &r, 0));
    f->calls->group_destroy(f->hal, r.group);
    f->calls->pipeline_destroy(f->hal, r.pipeline);
    f->calls->buffer_destroy(f->hal, r.x);
    f->calls->buffer_destroy(f->hal, r.uniforms);
    get(f, r.y, 0, y, sizeof y);
    assert_float_equal(y[63], native ? 10 : 0, 0);
    assert_int_equal(f->hal->counters.buffers, 1);
    assert_int_equal(f->hal->counters.pipelines + f->hal->counters.groups, 0);
}

/* ---- Reads ---- */

static void test_reads_are_limited_and_can_be_cancelled(void **state) {
    fixture *const f = *state;
    dbt_hal_buffer *const b = buffer_of(f, 64);
    uint32_t got[DBT_HAL_MAX_READS + 1];
    uint64_t tickets[DBT_HAL_MAX_READS + 1];
    for (int round = 0; round < 3; round++) {
        memset(got, 0xff, sizeof got);
        for (uint32_t i = 0; i < DBT_HAL_MAX_READS; i++) {
            put(f, b, 0, &i, 4);
            OK(f->calls->read(f->hal, b, 0, &got[i], 4, &tickets[i], &f->error));
        }
        assert_int_equal(
            f->calls->read(f->hal, b, 0, got, 4, &tickets[DBT_HAL_MAX_READS], &f->error),
            DIBIT_BAD_STATE);
        f->calls->cancel(f->hal, tickets[3]);
        f->calls->cancel(f->hal, tickets[DBT_HAL_MAX_READS - 1]);
        OK(f->calls->read(f->hal, b, 0, &got[DBT_HAL_MAX_READS], 4, &tickets[3], &f->error));
        OK(wait_for(f, 0));
        for (uint32_t i = 0; i < DBT_HAL_MAX_READS - 1; i++) {
            assert_int_equal(got[i], i == 3 ? UINT32_MAX : i);
        }
        assert_int_equal(got[DBT_HAL_MAX_READS - 1], UINT32_MAX);
        assert_int_equal(got[DBT_HAL_MAX_READS], DBT_HAL_MAX_READS - 1);
    }
}

static void test_destroy_in_the_middle_of_everything(void **state) {
    fixture *const f = *state;
    const rig r = rig_of(f);
    static float y[64];
    uint64_t ticket;
    put_params(f, &r, 0, 1, 1);
    OK(run_at(f, &r, 0));
    OK(f->calls->read(f->hal, r.y, 0, y, sizeof y, &ticket, &f->error));
    OK(run_at(f, &r, 0)); /* recorded, never submitted */
}

/* ---- Pipelines, groups, dispatches ---- */

static void test_pipelines_and_groups_are_checked(void **state) {
    fixture *const f = *state;
    const rig r = rig_of(f);
    const dbt_hal_calls *const c = f->calls;
    const uint64_t created = f->hal->counters.pipelines + f->hal->counters.groups;
    dbt_hal_pipeline_desc desc = affine_desc;
    dbt_hal_pipeline *p = NULL;
    desc.written = 4;
    assert_int_equal(c->pipeline_create(f->hal, &desc, &p, &f->error), DIBIT_BAD_ARGUMENT);
    desc.written = 2;
    desc.uniform_bytes = DBT_HAL_MAX_UNIFORM_BYTES + 1;
    assert_int_equal(c->pipeline_create(f->hal, &desc, &p, &f->error), DIBIT_BAD_ARGUMENT);
    assert_null(p);

    dbt_hal_group *g = NULL;
    dbt_hal_binding b[2] = {{r.x, 0, 0}, {r.x, 0, 0}};
    assert_int_equal(c->group_create(f->hal, r.pipeline, b, 2, r.uniforms, &g, &f->error),
                     DIBIT_BAD_ARGUMENT); /* written and read */
    b[1].buffer = r.uniforms;
    assert_int_equal(c->group_create(f->hal, r.pipeline, b, 2, r.uniforms, &g, &f->error),
                     DIBIT_BAD_ARGUMENT); /* written and uniform */
    b[1].buffer = NULL;
    assert_int_equal(c->group_create(f->hal, r.pipeline, b, 2, r.uniforms, &g, &f->error),
                     DIBIT_BAD_ARGUMENT);
    b[1].buffer = r.y;
    assert_int_equal(c->group_create(f->hal, r.pipeline, b, 1, r.uniforms, &g, &f->error),
                     DIBIT_BAD_ARGUMENT);
    assert_int_equal(c->group_create(f->hal, r.pipeline, b, 2, NULL, &g, &f->error),
                     DIBIT_BAD_ARGUMENT);
    b[1].offset = 4;
    assert_int_equal(c->group_create(f->hal, r.pipeline, b, 2, r.uniforms, &g, &f->error),
                     DIBIT_BAD_ARGUMENT);
    b[1] = (dbt_hal_binding){r.y, 0, 257};
    assert_int_equal(c->group_create(f->hal, r.pipeline, b, 2, r.uniforms, &g, &f->error),
                     DIBIT_BAD_ARGUMENT);
    assert_int_equal(f->hal->counters.pipelines + f->hal->counters.groups, created);
    f->hal->limits.max_binding_bytes = 128;
    b[1] = (dbt_hal_binding){r.y, 0, 0};
    assert_int_equal(c->group_create(f->hal, r.pipeline, b, 2, r.uniforms, &g, &f->error),
                     DIBIT_TOO_LARGE);
    assert_non_null(strstr(f->error.text, "of 256 bytes is beyond the device's limit of 128"));
    f->hal->limits.max_bindings = 1;
    assert_int_equal(c->pipeline_create(f->hal, &affine_desc, &p, &f->error), DIBIT_TOO_LARGE);
    assert_null(p);
    assert_null(g);
}

static void test_dispatches_are_checked(void **state) {
    fixture *const f = *state;
    const rig r = rig_of(f), other = rig_of(f);
    dbt_hal_dispatch d = {
        .name = "affine", .pipeline = r.pipeline, .group = other.group, .workgroups = {1, 1, 1}};
    assert_int_equal(f->calls->dispatch(f->hal, &d, &f->error), DIBIT_BAD_ARGUMENT);
    d.group = r.group;
    d.workgroups[1] = f->hal->limits.max_workgroups + 1;
    assert_int_equal(f->calls->dispatch(f->hal, &d, &f->error), DIBIT_TOO_LARGE);
    d.workgroups[1] = 0;
    assert_int_equal(f->calls->dispatch(f->hal, &d, &f->error), DIBIT_TOO_LARGE);
    d.workgroups[1] = 1;
    d.uniforms_offset = 4;
    assert_int_equal(f->calls->dispatch(f->hal, &d, &f->error), DIBIT_BAD_ARGUMENT);
    d.uniforms_offset = 4096;
    assert_int_equal(f->calls->dispatch(f->hal, &d, &f->error), DIBIT_BAD_ARGUMENT);
    assert_int_equal(f->hal->counters.dispatches, 0);
    OK(f->calls->submit(f->hal, &f->error));
    OK(wait_for(f, 0));
}

/* A binding of one word is as good as a whole buffer: it is made longer for the shader's arrays. */
static void test_a_small_buffer_can_be_bound(void **state) {
    fixture *const f = *state;
    static const char wgsl[] =
        "@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;\n"
        "@group(0) @binding(6) var<storage, read_write> y: array<f32>;\n"
        "@compute @workgroup_size(1) fn main() { y[0] = x[0].x + x[0].w + 1; }\n";
    const dbt_hal_pipeline_desc desc = {.name = "small",
                                        .wgsl = wgsl,
                                        .wgsl_bytes = sizeof wgsl - 1,
                                        .bindings = 0x24,
                                        .written = 0x20};
    dbt_hal_pipeline *p;
    OK(f->calls->pipeline_create(f->hal, &desc, &p, &f->error));
    dbt_hal_buffer *const x = buffer_of(f, 4), *const y = buffer_of(f, 1);
    dbt_hal_binding b[6] = {{0}};
    b[2] = (dbt_hal_binding){x, 0, 0};
    b[5] = (dbt_hal_binding){y, 0, 4};
    dbt_hal_group *g;
    OK(f->calls->group_create(f->hal, p, b, 6, NULL, &g, &f->error));
    const dbt_hal_dispatch d = {"small", p, g, 0, {1, 1, 1}};
    put(f, x, 0, &(float){2}, 4);
    OK(f->calls->dispatch(f->hal, &d, &f->error));
    float got;
    get(f, y, 0, &got, 4);
    assert_float_equal(got, native ? 3 : 0, 0);
}

/* ---- What only a device does ---- */

static void expect_compile_error(fixture *f, const char *wgsl, uint32_t uniform_bytes,
                                 const char *sentence) {
    const dbt_hal_pipeline_desc desc = {.name = "wrong.wgsl",
                                        .wgsl = wgsl,
                                        .wgsl_bytes = strlen(wgsl),
                                        .bindings = 1,
                                        .written = 1,
                                        .uniform_bytes = uniform_bytes};
    dbt_hal_pipeline *p = NULL;
    assert_int_equal(f->calls->pipeline_create(f->hal, &desc, &p, &f->error), DIBIT_UNSUPPORTED);
    assert_null(p);
    if (strncmp(f->error.text, "wrong.wgsl: ", 12) || !strstr(f->error.text, sentence) ||
        strchr(f->error.text, '\n'))
        fail_msg("%s", f->error.text);
    assert_int_equal(f->hal->counters.pipelines, 0);
}

static void test_a_shader_that_does_not_compile_is_a_sentence(void **state) {
    fixture *const f = *state;
#define BUFFER "@group(0) @binding(1) var<storage, read_write> y: array<f32>;\n"
    expect_compile_error(
        f, BUFFER "@compute @workgroup_size(1) fn main() {\n  y[0] = nothing;\n}\n", 0, "nothing");
    expect_compile_error(f, BUFFER "@compute @workgroup_size(1) fn other() { y[0] = 1; }\n", 0,
                         "main");
    expect_compile_error(f, BUFFER "@compute @workgroup_size(1) fn main() { y[0] = 1 }\n", 0, ";");
    expect_compile_error(f,
                         BUFFER "struct U { a: array<vec4<u32>, 3> }\n"
                                "@group(0) @binding(0) var<uniform> u: U;\n"
                                "@compute @workgroup_size(1) fn main() { y[0] = f32(u.a[2].x); }\n",
                         32, "48");
    expect_compile_error(f, BUFFER "@compute @workgroup_size(4096) fn main() { y[0] = 1; }\n", 0,
                         "4096");
    /* The device is as good as before. */
    const rig r = rig_of(f);
    OK(run_at(f, &r, 0));
    OK(f->calls->submit(f->hal, &f->error));
    OK(wait_for(f, 0));
}

static float run_one(fixture *f, const char *name, const char *wgsl) {
    const dbt_hal_pipeline_desc desc = {
        .name = name, .wgsl = wgsl, .wgsl_bytes = strlen(wgsl), .bindings = 1, .written = 1};
    dbt_hal_pipeline *p;
    OK(f->calls->pipeline_create(f->hal, &desc, &p, &f->error));
    dbt_hal_buffer *const y = buffer_of(f, 16);
    const dbt_hal_binding b = {y, 0, 0};
    dbt_hal_group *g;
    OK(f->calls->group_create(f->hal, p, &b, 1, NULL, &g, &f->error));
    const dbt_hal_dispatch d = {name, p, g, 0, {1, 1, 1}};
    OK(f->calls->dispatch(f->hal, &d, &f->error));
    float got;
    get(f, y, 0, &got, 4);
    return got;
}

static void test_the_features_that_it_names_work(void **state) {
    fixture *const f = *state;
    const uint32_t features = f->hal->features;
    assert_true(features & DBT_HAL_DOT4);
    const float dot = run_one(f, "dot4",
                              BUFFER "@compute @workgroup_size(1) fn main() {\n"
                                     "  y[0] = f32(dot4I8Packed(0x01ff0203u, 0x02030405u)); }\n");
    assert_float_equal(dot, 1 * 2 - 1 * 3 + 2 * 4 + 3 * 5, 0);
    if (features & DBT_HAL_F16) {
        const float half =
            run_one(f, "f16",
                    "enable f16;\n" BUFFER "@compute @workgroup_size(1) fn main() {\n"
                    "  y[0] = f32(f16(1.0) / f16(3.0)); }\n");
        assert_float_equal(half, 1.0f / 3, 0x1p-12f);
    }
    if (features & DBT_HAL_SUBGROUPS) {
        const float sum = run_one(f, "subgroups",
                                  BUFFER "@compute @workgroup_size(64)\n"
                                         "fn main(@builtin(local_invocation_id) id: vec3<u32>) {\n"
                                         "  let s = subgroupAdd(1.0);\n"
                                         "  if (id.x == 0) { y[0] = s; } }\n");
        assert_in_range((uint32_t)sum, f->hal->limits.min_subgroup, f->hal->limits.max_subgroup);
    }
    print_message("%s: f16 %d, subgroups %d (%u to %u), timestamps %d, buffers of %llu MiB\n",
                  f->hal->name, !!(features & DBT_HAL_F16), !!(features & DBT_HAL_SUBGROUPS),
                  (unsigned)f->hal->limits.min_subgroup, (unsigned)f->hal->limits.max_subgroup,
                  !!(features & DBT_HAL_TIMESTAMPS),
                  (unsigned long long)(f->hal->limits.max_buffer_bytes >> 20));
}

/* Some 50 ms or more on any device: steps that depend on one another. */
static void test_polls_tell_that_work_is_under_way(void **state) {
    fixture *const f = *state;
    static const char slow[] =
        BUFFER "@compute @workgroup_size(1) fn main() {\n"
               "  var a = y[0];\n"
               "  for (var i = 0u; i < 30000000u; i++) { a = a * 0.5 + 1; }\n"
               "  y[0] = a; }\n";
    const dbt_hal_pipeline_desc desc = {
        .name = "slow", .wgsl = slow, .wgsl_bytes = sizeof slow - 1, .bindings = 1, .written = 1};
    dbt_hal_pipeline *p;
    OK(f->calls->pipeline_create(f->hal, &desc, &p, &f->error));
    const dbt_hal_binding b = {buffer_of(f, 4), 0, 0};
    dbt_hal_group *g;
    OK(f->calls->group_create(f->hal, p, &b, 1, NULL, &g, &f->error));
    const dbt_hal_dispatch d = {"slow", p, g, 0, {1, 1, 1}};
    int pending = 0;
    for (int round = 0; round < 3;
         round++) { /* this thread itself may sleep that long, but not thrice */
        OK(f->calls->dispatch(f->hal, &d, &f->error));
        OK(f->calls->submit(f->hal, &f->error));
        pending += f->calls->poll(f->hal, 0, &f->error) == DIBIT_PENDING;
        OK(wait_for(f, 0));
        OK(f->calls->poll(f->hal, 0, &f->error));
    }
    assert_in_range(pending, 1, 3);
    float y;
    get(f, b.buffer, 0, &y, 4);
    assert_float_equal(y, 2, 0x1p-20f);
}

static void test_dispatches_are_timed_one_by_one(void **state) {
    fixture *const f = *state;
    if (!(f->hal->features & DBT_HAL_TIMESTAMPS)) skip();
    const rig r = rig_of(f);
    static uint64_t ns[3 * NATIVE_TIMED];
    OK(run_at(f, &r, 0));
    OK(f->calls->time(f->hal, DBT_HAL_TIME_DISPATCHES, &f->error));
    for (int i = 0; i < NATIVE_TIMED + 5; i++)
        OK(run_at(f, &r, 0)); /* more than a query set holds */
    float y[64];
    get(f, r.y, 0, y, sizeof y);
    OK(run_at(f, &r, 0));
    OK(f->calls->time(f->hal, DBT_HAL_UNTIMED, &f->error));
    OK(run_at(f, &r, 0));
    OK(f->calls->submit(f->hal, &f->error));
    OK(wait_for(f, 0));
    assert_int_equal(f->calls->timings(f->hal, ns, 7), 7);
    assert_int_equal(f->calls->timings(f->hal, ns, 3 * NATIVE_TIMED), NATIVE_TIMED + 6 - 7);
    assert_int_equal(f->calls->timings(f->hal, ns, 3 * NATIVE_TIMED), 0);
    uint64_t sum = 0;
    for (int i = 0; i < NATIVE_TIMED - 1; i++) sum += ns[i];
    assert_in_range(sum, 1, 60000000000u);
}

static void test_a_lost_device_answers_so_for_ever(void **state) {
    fixture *const f = *state;
    const rig r = rig_of(f);
    float y[64];
    uint64_t ticket;
    OK(run_at(f, &r, 0));
    OK(f->calls->read(f->hal, r.y, 0, y, sizeof y, &ticket, &f->error));
    OK(run_at(f, &r, 0));
    dbt_hal_native_lose(f->hal);
    assert_int_equal(wait_for(f, ticket), DIBIT_DEVICE_LOST);
    const dbt_hal_calls *const c = f->calls;
    dbt_hal_buffer *b = NULL;
    dbt_hal_pipeline *p = NULL;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(run_at(f, &r, 0), DIBIT_DEVICE_LOST);
        assert_int_equal(c->submit(f->hal, &f->error), DIBIT_DEVICE_LOST);
        assert_int_equal(c->poll(f->hal, 0, &f->error), DIBIT_DEVICE_LOST);
        assert_int_equal(c->write(f->hal, r.x, 0, y, 4, &f->error), DIBIT_DEVICE_LOST);
        assert_int_equal(c->copy(f->hal, r.x, 0, r.y, 0, 4, &f->error), DIBIT_DEVICE_LOST);
        assert_int_equal(c->read(f->hal, r.x, 0, y, 4, &ticket, &f->error), DIBIT_DEVICE_LOST);
        assert_int_equal(c->buffer_create(f->hal, 4, &b, &f->error), DIBIT_DEVICE_LOST);
        assert_int_equal(c->pipeline_create(f->hal, &affine_desc, &p, &f->error),
                         DIBIT_DEVICE_LOST);
    }
    c->cancel(f->hal, ticket);
    assert_int_equal(c->time(f->hal, DBT_HAL_TIME_PASSES, &f->error), DIBIT_DEVICE_LOST);
    c->group_destroy(f->hal, r.group);
    c->pipeline_destroy(f->hal, r.pipeline);
    c->buffer_destroy(f->hal, r.x);
}

static void test_a_loss_is_seen_without_being_told(void **state) {
    fixture *const f = *state;
    const rig r = rig_of(f);
    OK(run_at(f, &r, 0));
    native_of(f->hal)->w.DeviceDestroy(native_of(f->hal)->device);
    assert_int_equal(f->calls->submit(f->hal, &f->error), DIBIT_DEVICE_LOST);
    assert_int_equal(f->calls->submit(f->hal, &f->error), DIBIT_DEVICE_LOST);
}

static void test_a_creation_sees_a_loss(void **state) {
    fixture *const f = *state;
    dbt_hal_buffer *b = NULL;
    native_of(f->hal)->w.DeviceDestroy(native_of(f->hal)->device);
    assert_int_equal(f->calls->buffer_create(f->hal, 4, &b, &f->error), DIBIT_DEVICE_LOST);
    assert_int_equal(f->calls->submit(f->hal, &f->error), DIBIT_DEVICE_LOST);
}

/* Bytes that are mapped. */
static uint64_t address_space(void) {
    unsigned long long kilobytes = 0;
    char line[256];
    FILE *const file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) && sscanf(line, "VmSize: %llu", &kilobytes) != 1)
        continue;
    fclose(file);
    return (uint64_t)kilobytes << 10;
}

/* lavapipe's memory is the program's: a limit on its address space makes it a device without memory. */
static void test_a_device_without_memory_says_so(void **state) {
    enum { READ = 256 << 20 };
    fixture *const f = *state;
    if (!(f->hal->features & DBT_HAL_SOFTWARE)) return;
    const rig r = rig_of(f);
    dbt_hal_buffer *const source = buffer_of(f, READ), *large = NULL;
    void *const to = malloc(READ);
    uint64_t ticket;
    OK(run_at(f, &r, 0));
    OK(f->calls->submit(f->hal, &f->error));
    OK(wait_for(f, 0));
    struct rlimit before, tight;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    tight = before;
    tight.rlim_cur = address_space() + READ / 4;
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    const dibit_status created = f->calls->buffer_create(f->hal, 1u << 30, &large, &f->error);
    const dibit_status read =
        f->calls->read(f->hal, source, 0, to, READ, &ticket, created ? NULL : &f->error);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    print_message("%s\n", f->error.text);
    assert_int_equal(created, DIBIT_OUT_OF_MEMORY);
    assert_int_equal(read, DIBIT_OUT_OF_MEMORY);
    assert_null(large);
    get(f, source, 0, to, READ); /* it goes on */
    OK(run_at(f, &r, 0));
    large = buffer_of(f, 1 << 20);
    f->calls->buffer_destroy(f->hal, large);
    free(to);
}

static void test_a_library_that_is_none_is_a_sentence(void **state) {
    (void)state;
    dbt_hal *hal = NULL;
    dibit_error error;
    static const struct {
        const char *library, *says;
    } cases[] = {{"/nowhere/libwgpu_native.so", "/nowhere/libwgpu_native.so"},
                 {"libm.so.6", "has no wgpuCreateInstance, so it is not wgpu-native"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const dbt_hal_native_desc desc = {.library = cases[i].library, .adapter = DBT_HAL_ANY};
        assert_int_equal(dbt_hal_native_create(&dbt_default_allocator, &desc, &hal, &error),
                         DIBIT_DEVICE_UNAVAILABLE);
        assert_non_null(strstr(error.text, cases[i].says));
        assert_non_null(strstr(error.text, "pip install"));
    }
    assert_null(hal);
}

#define BOTH(test) cmocka_unit_test_setup_teardown(test, start, stop)

/* ---- What only the null device does ---- */

static void test_the_null_device_compares_buffers_with_the_shader(void **state) {
    fixture *const f = *state;
    dbt_hal_pipeline *p = NULL;
    dbt_hal_pipeline_desc desc = affine_desc;
    desc.bindings = 2;
    assert_int_equal(f->calls->pipeline_create(f->hal, &desc, &p, &f->error), DIBIT_BAD_ARGUMENT);
    assert_non_null(strstr(f->error.text, "no buffer for what it declares: @group(0) @binding(1)"));
    desc.bindings = desc.written = 3;
    assert_int_equal(f->calls->pipeline_create(f->hal, &desc, &p, &f->error), DIBIT_BAD_ARGUMENT);
    assert_non_null(strstr(f->error.text, "its other access is asked for: @group(0) @binding(1)"));
}

int main(void) {
    const struct CMUnitTest both[] = {
        BOTH(test_a_buffer_is_zeros_and_keeps_what_is_written),
        BOTH(test_large_writes_and_reads_arrive_whole),
        BOTH(test_ranges_are_checked),
        BOTH(test_commands_take_effect_in_order),
        BOTH(test_each_dispatch_has_its_uniforms),
        BOTH(test_what_was_destroyed_serves_recorded_work),
        BOTH(test_reads_are_limited_and_can_be_cancelled),
        BOTH(test_destroy_in_the_middle_of_everything),
        BOTH(test_pipelines_and_groups_are_checked),
        BOTH(test_dispatches_are_checked),
        BOTH(test_a_small_buffer_can_be_bound),
        cmocka_unit_test(test_a_library_that_is_none_is_a_sentence),
    };
    const struct CMUnitTest null_alone[] = {
        BOTH(test_the_null_device_compares_buffers_with_the_shader),
    };
    const struct CMUnitTest device[] = {
        BOTH(test_a_shader_that_does_not_compile_is_a_sentence),
        BOTH(test_the_features_that_it_names_work),
        BOTH(test_polls_tell_that_work_is_under_way),
        BOTH(test_dispatches_are_timed_one_by_one),
        BOTH(test_a_lost_device_answers_so_for_ever),
        BOTH(test_a_loss_is_seen_without_being_told),
        BOTH(test_a_creation_sees_a_loss),
        BOTH(test_a_device_without_memory_says_so),
    };
    native = test_device_computes();
    const int failed = cmocka_run_group_tests_name("any device", both, NULL, NULL);
    return failed + (native ? cmocka_run_group_tests_name("native", device, NULL, NULL)
                            : cmocka_run_group_tests_name("null", null_alone, NULL, NULL));
}

/* Every shader compiles on the device, in the variants that shader_variants.h makes of it. Without a
 * device, everything but the compiler sees them. */
#include "dbt_test.h"

#include "base/os.h"
#include "shader_variants.h"
#include "test_device.h"

typedef struct compiler {
    dbt_hal *hal;
    uint32_t n, failed;
} compiler;

/* What a device finds out later is answered by a later call. */
static dibit_status settle(dbt_hal *hal, dibit_error *error) {
    DBT_TRY(hal->calls->submit(hal, error));
    dibit_status status;
    while ((status = hal->calls->poll(hal, 0, error)) == DIBIT_PENDING) dbt_os_yield();
    return status;
}

static dibit_status compile(dbt_hal *hal, const char *name, const dbt_shader_text *text,
                            dibit_error *error) {
    dbt_hal_pipeline_desc desc = {.name = name, .wgsl = text->wgsl, .wgsl_bytes = text->bytes};
    shader_scan_bindings(text->wgsl, &desc);
    dbt_hal_pipeline *pipeline = NULL;
    DBT_TRY(hal->calls->pipeline_create(hal, &desc, &pipeline, error));
    const dibit_status status = settle(hal, error);
    hal->calls->pipeline_destroy(hal, pipeline);
    return status;
}

static void each(void *user, const dbt_shader_variant *variant, const dbt_shader_text *text) {
    compiler *const c = user;
    char name[512];
    dibit_error error = {0};
    shader_variant_text(variant, name, sizeof name);
    c->n++;
    if (compile(c->hal, name, text, &error) == DIBIT_OK) return;
    c->failed++;
    print_error("%s: %s\n", name, error.text);
}

static void test_every_variant_compiles(void **state) {
    (void)state;
    compiler c = {.hal = test_device_open()};
    uint32_t n = 0;
    for (size_t i = 0; i < dbt_shaders.n; i++) {
        const char *const file = dbt_shaders.files[i].name;
        if (shader_is_fragment(file)) continue;
        const shader_variants v = {.more = getenv("DIBIT_FULL") != NULL,
                                   .features = c.hal->features,
                                   .each = each,
                                   .user = &c};
        dibit_error error = {0};
        if (shader_variants_make(&v, file, &error)) fail_msg("%s", error.text);
        print_message("%s: %u variants\n", file, (unsigned)(c.n - n));
        assert_true(c.n > n);
        n = c.n;
    }
    c.hal->calls->destroy(c.hal);
    print_message("%u variants, %u failed\n", (unsigned)c.n, (unsigned)c.failed);
    assert_int_equal(c.failed, 0);
}

static void test_a_broken_shader_is_seen(void **state) {
    (void)state;
    dbt_hal *hal = test_device_open();
    if (test_device_computes()) {
        static const char wgsl[] = "@compute @workgroup_size(1) fn main() { let x: u32 = 1.5; }";
        const dbt_shader_text text = {wgsl, sizeof wgsl - 1};
        dibit_error error = {0};
        assert_int_not_equal(compile(hal, "broken", &text, &error), DIBIT_OK);
    }
    hal->calls->destroy(hal);
}

static void test_bindings_are_found(void **state) {
    (void)state;
    dbt_hal_pipeline_desc desc = {0};
    shader_scan_bindings("// @binding(9) var<storage>\n/* @binding(8) var<storage> */\n"
                         "@group(0) @binding(0) var<uniform> u: U;\n"
                         "@group(0) @binding(1) var<storage, read> a: array<u32>;\n"
                         "@group(0) @binding(3) var<storage, read_write> y: array<u32>;\n",
                         &desc);
    assert_int_equal(desc.bindings, 5);
    assert_int_equal(desc.written, 4);
    assert_int_equal(desc.uniform_bytes, DBT_HAL_MAX_UNIFORM_BYTES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_variant_compiles),
        cmocka_unit_test(test_a_broken_shader_is_seen),
        cmocka_unit_test(test_bindings_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* See test_device.h. */
#include "test_device.h"

#include "dbt_test.h"

static const char *kind(void) {
    const char *const name = getenv("DIBIT_TEST_DEVICE");
    return name ? name : "null";
}

bool test_device_wanted(void) { return getenv("DIBIT_TEST_DEVICE") != NULL; }
bool test_device_computes(void) { return strcmp(kind(), "null") != 0; }

dbt_hal *test_device_open(void) {
    dbt_hal *hal = NULL;
    dibit_error error = {.text = "there is no such device"};
    dibit_status status = DIBIT_BAD_ARGUMENT;
    if (strcmp(kind(), "webgpu") == 0) {
        status = dbt_hal_native_create(
            &dbt_default_allocator,
            &(dbt_hal_native_desc){.library = getenv("DIBIT_WEBGPU_LIB"), .adapter = DBT_HAL_ANY},
            &hal, &error);
    } else if (strcmp(kind(), "null") == 0) {
        status = dbt_hal_null_create(&dbt_default_allocator, 0, &hal, &error);
    }
    if (status) fail_msg("DIBIT_TEST_DEVICE=%s: %s", kind(), error.text);
    return hal;
}

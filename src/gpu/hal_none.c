/* In the place of the HALs where there is none: test programs in WebAssembly. */
#include "gpu/hal_web.h"

dibit_status dbt_hal_native_create(const dibit_allocator *allocator, const char *library,
                                   dbt_hal_adapter adapter, dbt_hal **out, dibit_error *error) {
    (void)allocator, (void)library, (void)adapter, (void)out;
    return dbt_fail(error, DIBIT_DEVICE_UNAVAILABLE, "this build has no GPU");
}

dibit_status dbt_hal_web_create(const dibit_allocator *allocator, uint32_t device, dbt_hal **out,
                                dibit_error *error) {
    (void)device;
    return dbt_hal_native_create(allocator, NULL, DBT_HAL_ANY, out, error);
}

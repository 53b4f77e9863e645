/* Where no WebGPU library can be opened: test programs in WebAssembly, which no page surrounds. */
#include "gpu/hal.h"
#include "gpu/hal_web.h"

dibit_status dbt_hal_native_create(const dibit_allocator *allocator,
                                   const dbt_hal_native_desc *desc, dbt_hal **out,
                                   dibit_error *error) {
    (void)allocator;
    (void)desc;
    (void)out;
    return dbt_fail(error, DIBIT_DEVICE_UNAVAILABLE, "this build has no WebGPU");
}

dibit_status dbt_hal_web_create(const dibit_allocator *allocator, uint32_t device, dbt_hal **out,
                                dibit_error *error) {
    (void)device;
    return dbt_hal_native_create(allocator, NULL, out, error);
}

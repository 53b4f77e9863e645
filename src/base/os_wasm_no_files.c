/* Files in a page: there are none, bytes come from buffers and callbacks. */
#include "base/os.h"

dibit_status dbt_os_map(const char *path, const char *name, const uint8_t **data, uint64_t *bytes,
                        dibit_error *error) {
    (void)path, (void)data, (void)bytes;
    return dbt_fail(error, DIBIT_UNSUPPORTED, "cannot open '%s': this build reads no files", name);
}

dibit_status dbt_os_map_beside(const char *path, const char *location, const uint8_t **data,
                               uint64_t *bytes, dibit_error *error) {
    (void)path;
    return dbt_os_map(location, location, data, bytes, error);
}

void dbt_os_unmap(const void *data, uint64_t bytes) { (void)data, (void)bytes; }

/* For tests with the leak sanitizer: libraries stay loaded, so that it can name the GPU's driver when that leaks
 * (tests/webgpu/lsan.supp). The Vulkan loader would unload it before the report. */
#include <dlfcn.h>

__attribute__((visibility("default"))) int dlclose(void *library) {
    (void)library;
    return 0;
}

/* The device that --device, --webgpu-lib, --threads, --isa and --tune ask for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "text.h"

/* The library where pip puts it for a virtual environment or for one user, or NULL. */
static char *find_library(const char *root, const char *under) {
    if (!root) return NULL;
    for (int minor = 20; minor >= 9; minor--) {
        char *const path = dibit_cli_format(
            "%s%s/lib/python3.%d/site-packages/wgpu/resources/libwgpu_native-release.so", root,
            under, minor);
        if (dibit_cli_is_file(path)) return path;
        free(path);
    }
    return NULL;
}

/* Mesa's layer that puts GPUs in order asks the Wayland compositor for the one it draws with, and complains on
 * stderr where there is no session to ask in. Then nothing is lost by doing without. */
static void quiet_mesa(void) {
    static const char *const wishes[] = {"XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY",
                                         "DRI_PRIME", "MESA_VK_DEVICE_SELECT"};
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++) {
        if (getenv(wishes[i])) return;
    }
    setenv("NODEVICE_SELECT", "1", 0);
}

dibit_status dibit_cli_tune_cpu(const dibit_cli_common *common, dibit_error *error) {
    static bool done; /* for a verb that opens several devices */
    const char *const path = common->tune ? common->tune : getenv("DIBIT_TUNE");
    if (done || !path || path[0] == 0) return DIBIT_OK;
    done = true;
    dibit_text text = {0};
    dibit_status status = dibit_cli_read_text(path, &text, error);
    if (status == DIBIT_OK && (status = dibit_cpu_tune(text.data, error)) != DIBIT_OK) {
        char sentence[sizeof error->text];
        snprintf(sentence, sizeof sentence, "%s: %.400s", path, error->text);
        memcpy(error->text, sentence, sizeof sentence);
    }
    dibit_text_free(&text);
    return status;
}

dibit_status dibit_cli_open_device(const dibit_cli_common *common, dibit_device **out,
                                   const char **why, dibit_error *error) {
    static const dibit_device_kind kinds[] = {[DIBIT_CLI_CPU] = DIBIT_DEVICE_CPU,
                                              [DIBIT_CLI_AUTO] = DIBIT_DEVICE_AUTO,
                                              [DIBIT_CLI_WEBGPU] = DIBIT_DEVICE_WEBGPU,
                                              [DIBIT_CLI_NULL] = DIBIT_DEVICE_NULL};
    const char *library = common->webgpu_lib;
    if (!library) library = getenv("DIBIT_WEBGPU_LIB");
    char *found = NULL;
    if (!library) library = found = find_library(getenv("VIRTUAL_ENV"), "");
    if (!library) library = found = find_library(getenv("HOME"), "/.local");
    const dibit_device_desc desc = {.kind = kinds[common->device],
                                    .n_threads = common->threads,
                                    .cpu_isa = common->isa,
                                    .webgpu_library = library,
                                    .timing = common->timing,
                                    .checked_shaders = common->checked_shaders};
    if (common->device == DIBIT_CLI_WEBGPU || common->device == DIBIT_CLI_AUTO) quiet_mesa();
    *why = "";
    dibit_status status = dibit_cli_tune_cpu(common, error);
    if (status == DIBIT_OK) status = dibit_device_create(&desc, out, error);
    if (status == DIBIT_OK) *why = dibit_device_why(*out);
    free(found);
    return status;
}

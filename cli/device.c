/* The device that --device, --threads and --isa ask for. */
#include <stdio.h>

#include "cli.h"

dibit_status dibit_cli_open_device(const dibit_cli_common *common, dibit_device **out,
                                   const char **why, dibit_error *error) {
    *why = "";
    if (common->device == DIBIT_CLI_WEBGPU) {
        error->status = DIBIT_DEVICE_UNAVAILABLE;
        snprintf(error->text, sizeof error->text,
                 "this build has no WebGPU device: use --device cpu");
        return DIBIT_DEVICE_UNAVAILABLE;
    }
    if (common->device == DIBIT_CLI_AUTO) *why = "the CPU is the only device of this build";
    const dibit_device_desc desc = {
        .kind = common->device == DIBIT_CLI_NULL ? DIBIT_DEVICE_NULL : DIBIT_DEVICE_CPU,
        .n_threads = common->threads,
        .cpu_isa = common->isa,
    };
    return dibit_device_create(&desc, out, error);
}

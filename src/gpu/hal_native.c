/* The HAL over a native WebGPU library (wgpu-native), which is found at run time: this file opens the
 * library, the adapter and the device, and closes them. Nothing here blocks but opening, closing, and a
 * write that is far ahead of the device (native_commands.c).
 *
 * The library stays loaded when a device is destroyed: drivers leave threads and thread-local
 * destructors behind. Its callbacks come from inside the calls here, so nothing is locked. */
#include "gpu/hal_native.h"

#include <stdio.h>
#include <string.h>

#define GET_IT "install it with `pip install \"wgpu==0.32.*\"`, or name the file of libwgpu_native"

/* ---- Faults ---- */

void dbt_native_message(dbt_wgpu_string message, char *text, size_t bytes) {
    size_t n = 0;
    bool gap = false;
    const size_t length = !message.data                ? 0
                          : message.length == SIZE_MAX ? strlen(message.data)
                                                       : message.length;
    for (size_t i = 0; i < length && n + 2 < bytes; i++) {
        const unsigned char c = (unsigned char)message.data[i];
        if (c <= ' ') {
            gap = n > 0;
        } else if (c < 0x7f) { /* frames around source lines are drawn with other characters */
            if (gap) text[n++] = ' ';
            gap = false;
            text[n++] = (char)c;
        }
    }
    text[n] = 0;
}

dibit_status dbt_native_status(const char *text, dibit_status status) {
    return strstr(text, "device is lost")      ? DIBIT_DEVICE_LOST
           : strstr(text, "Not enough memory") ? DIBIT_OUT_OF_MEMORY
                                               : status;
}

void dbt_native_fault(native_hal *hal, dibit_status status, dbt_wgpu_string message) {
    if (hal->fault == DIBIT_DEVICE_LOST) return;
    dbt_native_message(message, hal->fault_text, sizeof hal->fault_text);
    hal->fault = dbt_native_status(hal->fault_text, status);
}

dibit_status dbt_native_check(native_hal *hal, dibit_error *error) {
    const dibit_status status = hal->fault;
    if (status == DIBIT_OK) return DIBIT_OK;
    if (status != DIBIT_DEVICE_LOST) hal->fault = DIBIT_OK;
    return dbt_fail(error, status, "%s: %s", hal->name, hal->fault_text);
}

static void on_lost(const dbt_wgpu_device *device, dbt_wgpu_enum reason, dbt_wgpu_string message,
                    void *hal, void *unused) {
    (void)device;
    (void)reason;
    (void)unused;
    dbt_native_fault(hal, DIBIT_DEVICE_LOST, message);
}

static void on_error(const dbt_wgpu_device *device, dbt_wgpu_enum type, dbt_wgpu_string message,
                     void *hal, void *unused) {
    (void)device;
    (void)unused;
    const bool memory = type == DBT_WGPU_ERROR_OUT_OF_MEMORY;
    dbt_native_fault(hal, memory ? DIBIT_OUT_OF_MEMORY : DIBIT_UNSUPPORTED, message);
}

/* ---- The library ---- */

static dibit_status fill_functions(dbt_os_library *library, const char *path, dbt_wgpu_functions *w,
                                   dibit_error *error) {
    static const char *const names[] = {
#define NAME(result, name, arguments) "wgpu" #name,
        DBT_WGPU_FUNCTIONS(NAME)
#undef NAME
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const dbt_os_function f = dbt_os_library_symbol(library, names[i]);
        DBT_FAIL_IF(!f, error, DIBIT_DEVICE_UNAVAILABLE,
                    "'%.150s' has no %s, so it is not wgpu-native %d", path, names[i],
                    DBT_WGPU_MAJOR);
        memcpy((char *)w + i * sizeof f, &f, sizeof f);
    }
    const uint32_t version = w->GetVersion() >> 24;
    DBT_FAIL_IF(version != DBT_WGPU_MAJOR, error, DIBIT_DEVICE_UNAVAILABLE,
                "'%.150s' is wgpu-native %u, but %d is needed", path, (unsigned)version,
                DBT_WGPU_MAJOR);
    return DIBIT_OK;
}

static dibit_status load(const char *path, dbt_wgpu_functions *w, char *why, size_t n,
                         dibit_error *error) {
    dbt_os_library *const library = dbt_os_library_open(path, why, n);
    if (!library) return DIBIT_DEVICE_UNAVAILABLE;
    const dibit_status status = fill_functions(library, path, w, error);
    if (status != DIBIT_OK) {
        snprintf(why, n, "%.*s", (int)n - 1, error->text);
        dbt_os_library_close(library);
    }
    return status;
}

/* Where pip puts the library for the whole system. */
static bool load_from_python(dbt_wgpu_functions *w, char *why, size_t n) {
    static const char *const folders[] = {"/usr/local/lib/python3.%d/site-packages",
                                          "/usr/local/lib/python3.%d/dist-packages",
                                          "/usr/lib/python3.%d/site-packages"};
    for (int minor = 20; minor >= 9; minor--) {
        for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
            char folder[100], path[200];
            dibit_error ignored;
            snprintf(folder, sizeof folder, folders[i], minor);
            snprintf(path, sizeof path, "%s/wgpu/resources/libwgpu_native-release.so", folder);
            if (load(path, w, why, n, &ignored) == DIBIT_OK) return true;
        }
    }
    return false;
}

static dibit_status find_library(const char *given, dbt_wgpu_functions *w, dibit_error *error) {
    static const char *const names[] = {"libwgpu_native.so", "libwgpu_native-release.so",
                                        "libwgpu_native.dylib"};
    char why[400];
    dibit_error inner = {DIBIT_OK, ""};
    if (given) {
        if (load(given, w, why, sizeof why, &inner) == DIBIT_OK) return DIBIT_OK;
        return dbt_fail(error, DIBIT_DEVICE_UNAVAILABLE,
                        "cannot use the WebGPU library: %.250s; " GET_IT, why);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (load(names[i], w, why, sizeof why, &inner) == DIBIT_OK) return DIBIT_OK;
    }
    if (load_from_python(w, why, sizeof why)) return DIBIT_OK;
    return dbt_fail(error, DIBIT_DEVICE_UNAVAILABLE,
                    "there is no WebGPU library (wgpu-native %d): " GET_IT, DBT_WGPU_MAJOR);
}

/* ---- Adapter and device ---- */

typedef struct answer {
    void *handle;
    char why[200];
} answer;

static void on_adapter(dbt_wgpu_enum status, dbt_wgpu_adapter adapter, dbt_wgpu_string message,
                       void *to, void *unused) {
    (void)status;
    (void)unused;
    ((answer *)to)->handle = adapter;
    dbt_native_message(message, ((answer *)to)->why, sizeof((answer *)to)->why);
}

static void on_device(dbt_wgpu_enum status, dbt_wgpu_device device, dbt_wgpu_string message,
                      void *to, void *unused) {
    (void)status;
    (void)unused;
    ((answer *)to)->handle = device;
    dbt_native_message(message, ((answer *)to)->why, sizeof((answer *)to)->why);
}

static dibit_status open_adapter(native_hal *hal, dbt_hal_adapter wanted, dibit_error *error) {
    const dbt_wgpu_functions *const w = &hal->w;
    dbt_wgpu_instance_extras extras = {
        .chain = {.sType = DBT_WGPU_CHAIN_INSTANCE_EXTRAS},
        .backends = DBT_WGPU_INSTANCE_VULKAN | DBT_WGPU_INSTANCE_METAL | DBT_WGPU_INSTANCE_D3D12};
    hal->instance = w->CreateInstance(&(dbt_wgpu_instance_desc){.nextInChain = &extras.chain});
    DBT_FAIL_IF(!hal->instance, error, DIBIT_DEVICE_UNAVAILABLE, "WebGPU does not start");
    answer got = {0};
    const dbt_wgpu_adapter_options options = {.featureLevel = DBT_WGPU_LEVEL_CORE,
                                              .powerPreference = DBT_WGPU_POWER_HIGH_PERFORMANCE};
    w->InstanceRequestAdapter(hal->instance, &options,
                              (dbt_wgpu_adapter_callback){.mode = DBT_WGPU_CALLBACK_SPONTANEOUS,
                                                          .callback = on_adapter,
                                                          .userdata1 = &got});
    hal->adapter = got.handle;
    DBT_FAIL_IF(!hal->adapter, error, DIBIT_DEVICE_UNAVAILABLE,
                "WebGPU finds no GPU: a Vulkan driver is missing or sees none (%s)", got.why);

    dbt_wgpu_adapter_info info = {0};
    w->AdapterGetInfo(hal->adapter, &info);
    char device[100], driver[60];
    dbt_native_message(info.device, device, sizeof device);
    dbt_native_message(info.description, driver, sizeof driver);
    const dbt_wgpu_enum backend = info.backendType;
    snprintf(hal->name, sizeof hal->name, "%s (%s%s%s)", device,
             backend == DBT_WGPU_BACKEND_VULKAN  ? "Vulkan"
             : backend == DBT_WGPU_BACKEND_METAL ? "Metal"
                                                 : "Direct3D 12",
             *driver ? ", " : "", driver);
    hal->base.name = hal->name;
    hal->base.features = DBT_HAL_NAGA | DBT_HAL_DOT4; /* naga knows the packed dot products */
    if (info.adapterType == DBT_WGPU_ADAPTER_CPU) hal->base.features |= DBT_HAL_SOFTWARE;
    /* wgpu-native 29 fills in neither: then WebGPU's bounds. */
    hal->base.limits.min_subgroup = info.subgroupMinSize ? info.subgroupMinSize : 4;
    hal->base.limits.max_subgroup = info.subgroupMaxSize ? info.subgroupMaxSize : 128;
    w->AdapterInfoFreeMembers(info);
    DBT_FAIL_IF(wanted == DBT_HAL_HARDWARE && hal->base.features & DBT_HAL_SOFTWARE, error,
                DIBIT_DEVICE_UNAVAILABLE, "WebGPU has a software adapter alone, %s", hal->name);
    return DIBIT_OK;
}

static void take_limits(dbt_hal_limits *to, const dbt_wgpu_limits *from) {
    const uint32_t bindings = from->maxStorageBuffersPerShaderStage;
    to->max_buffer_bytes = from->maxBufferSize / DBT_HAL_BINDING_UNIT * DBT_HAL_BINDING_UNIT;
    to->max_binding_bytes =
        from->maxStorageBufferBindingSize / DBT_HAL_BINDING_UNIT * DBT_HAL_BINDING_UNIT;
    to->max_bindings = bindings < DBT_HAL_MAX_BINDINGS ? bindings : DBT_HAL_MAX_BINDINGS;
    to->max_workgroups = from->maxComputeWorkgroupsPerDimension;
    to->max_invocations = from->maxComputeInvocationsPerWorkgroup;
    to->max_workgroup_bytes = from->maxComputeWorkgroupStorageSize;
    to->binding_alignment = from->minStorageBufferOffsetAlignment;
    to->uniform_alignment = from->minUniformBufferOffsetAlignment;
}

static dibit_status open_device(native_hal *hal, dibit_error *error) {
    static const struct {
        dbt_wgpu_enum feature;
        uint32_t ours;
    } optional[] = {{DBT_WGPU_FEATURE_F16, DBT_HAL_F16},
                    {DBT_WGPU_FEATURE_SUBGROUPS, DBT_HAL_SUBGROUPS},
                    {DBT_WGPU_FEATURE_TIMESTAMPS, DBT_HAL_TIMESTAMPS}};
    const dbt_wgpu_functions *const w = &hal->w;
    dbt_wgpu_enum features[3];
    size_t n = 0;
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
        if (!w->AdapterHasFeature(hal->adapter, optional[i].feature)) continue;
        features[n++] = optional[i].feature;
        hal->base.features |= optional[i].ours;
    }
    if (!(hal->base.features & DBT_HAL_SUBGROUPS)) {
        hal->base.limits.min_subgroup = hal->base.limits.max_subgroup = 0;
    }
    dbt_wgpu_limits limits = {0};
    w->AdapterGetLimits(hal->adapter, &limits);
    take_limits(&hal->base.limits, &limits);
    const dbt_wgpu_device_desc desc = {
        .requiredFeatureCount = n,
        .requiredFeatures = features,
        .requiredLimits = &limits,
        .deviceLostCallbackInfo = {.mode = DBT_WGPU_CALLBACK_SPONTANEOUS,
                                   .callback = on_lost,
                                   .userdata1 = hal},
        .uncapturedErrorCallbackInfo = {.callback = on_error, .userdata1 = hal}};
    answer got = {0};
    w->AdapterRequestDevice(hal->adapter, &desc,
                            (dbt_wgpu_device_callback){.mode = DBT_WGPU_CALLBACK_SPONTANEOUS,
                                                       .callback = on_device,
                                                       .userdata1 = &got});
    hal->device = got.handle;
    DBT_FAIL_IF(!hal->device, error, DIBIT_DEVICE_UNAVAILABLE, "%s gives no device: %s", hal->name,
                got.why);
    hal->queue = w->DeviceGetQueue(hal->device);
    hal->tick_ns = w->QueueGetTimestampPeriod(hal->queue);
    return DIBIT_OK;
}

static void native_destroy(dbt_hal *base) {
    native_hal *const hal = native_of(base);
    const dbt_wgpu_functions *const w = &hal->w;
    if (hal->device) {
        dbt_native_discard(hal);
        if (hal->fault != DIBIT_DEVICE_LOST) w->DevicePoll(hal->device, true, NULL);
        dbt_native_reads_free(hal);
        dbt_native_times_free(hal);
        while (hal->objects.first) dbt_native_object_free(hal, hal->objects.first);
        w->QueueRelease(hal->queue);
        w->DeviceRelease(hal->device);
    }
    if (hal->adapter) w->AdapterRelease(hal->adapter);
    if (hal->instance) w->InstanceRelease(hal->instance);
    const dibit_allocator allocator = hal->objects.allocator;
    dbt_release(&allocator, hal, sizeof *hal);
}

void dbt_hal_native_lose(dbt_hal *base) {
    native_hal *const hal = native_of(base);
    hal->w.DeviceDestroy(hal->device); /* which does not call on_lost */
    dbt_native_fault(hal, DIBIT_DEVICE_LOST, (dbt_wgpu_string){"it was destroyed", SIZE_MAX});
}

dibit_status dbt_hal_native_create(const dibit_allocator *allocator,
                                   const dbt_hal_native_desc *desc, dbt_hal **out,
                                   dibit_error *error) {
    static const dbt_hal_calls calls = {.destroy = native_destroy,
                                        .buffer_create = dbt_native_buffer_create,
                                        .buffer_destroy = dbt_native_buffer_destroy,
                                        .pipeline_create = dbt_native_pipeline_create,
                                        .pipeline_destroy = dbt_native_pipeline_destroy,
                                        .group_create = dbt_native_group_create,
                                        .group_destroy = dbt_native_group_destroy,
                                        .write = dbt_native_write,
                                        .write_ahead = dbt_native_write_ahead,
                                        .copy = dbt_native_copy,
                                        .dispatch = dbt_native_dispatch,
                                        .submit = dbt_native_submit,
                                        .read = dbt_native_read,
                                        .poll = dbt_native_poll,
                                        .cancel = dbt_native_cancel,
                                        .time = dbt_native_time,
                                        .timings = dbt_native_timings};
    native_hal *const hal = dbt_alloc(allocator, sizeof *hal, 16);
    if (!hal) return dbt_fail_memory(error, "a device", sizeof *hal);
    *hal = (native_hal){.base = {.calls = &calls}, .checked_shaders = desc->checked_shaders};
    hal->objects = (dbt_hal_objects){.hal = &hal->base, .allocator = *allocator};
    hal->times_end = &hal->times;
    dibit_status status = find_library(desc->library, &hal->w, error);
    if (status == DIBIT_OK) status = open_adapter(hal, desc->adapter, error);
    if (status == DIBIT_OK) status = open_device(hal, error);
    if (status != DIBIT_OK) {
        native_destroy(&hal->base);
        return status;
    }
    *out = &hal->base;
    return DIBIT_OK;
}

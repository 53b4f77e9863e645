/* The part of webgpu.h's binary interface that hal_native*.c uses, and of wgpu-native's additions to it,
 * as of wgpu-native 29: so the engine builds without the library and its headers. Names and values are
 * theirs, with a prefix of ours; tests/test_webgpu_abi.c compares every one with the real headers.
 * All handles are counted references that Release gives back. */
#ifndef DBT_GPU_WEBGPU_ABI_H
#define DBT_GPU_WEBGPU_ABI_H

#include <stddef.h>
#include <stdint.h>

enum { DBT_WGPU_MAJOR = 29 }; /* wgpuGetVersion() >> 24 */

typedef struct dbt_wgpu_instance_ *dbt_wgpu_instance;
typedef struct dbt_wgpu_adapter_ *dbt_wgpu_adapter;
typedef struct dbt_wgpu_device_ *dbt_wgpu_device;
typedef struct dbt_wgpu_queue_ *dbt_wgpu_queue;
typedef struct dbt_wgpu_buffer_ *dbt_wgpu_buffer;
typedef struct dbt_wgpu_module_ *dbt_wgpu_module;
typedef struct dbt_wgpu_group_layout_ *dbt_wgpu_group_layout;
typedef struct dbt_wgpu_layout_ *dbt_wgpu_layout;
typedef struct dbt_wgpu_pipeline_ *dbt_wgpu_pipeline;
typedef struct dbt_wgpu_group_ *dbt_wgpu_group;
typedef struct dbt_wgpu_encoder_ *dbt_wgpu_encoder;
typedef struct dbt_wgpu_pass_ *dbt_wgpu_pass;
typedef struct dbt_wgpu_commands_ *dbt_wgpu_commands;
typedef struct dbt_wgpu_queries_ *dbt_wgpu_queries;

/* Enumerations are 32 bits wide, flags 64. */
typedef uint32_t dbt_wgpu_enum;
typedef uint64_t dbt_wgpu_flags;
typedef uint32_t dbt_wgpu_bool;

enum {
    DBT_WGPU_STATUS_SUCCESS = 1, /* of every status: of requests, maps, scopes */
    DBT_WGPU_CALLBACK_SPONTANEOUS = 3,
    DBT_WGPU_POWER_HIGH_PERFORMANCE = 2,
    DBT_WGPU_LEVEL_CORE = 2,
    DBT_WGPU_ADAPTER_CPU = 3,
    DBT_WGPU_BACKEND_D3D12 = 4,
    DBT_WGPU_BACKEND_METAL = 5,
    DBT_WGPU_BACKEND_VULKAN = 6,
    DBT_WGPU_FEATURE_TIMESTAMPS = 0x9,
    DBT_WGPU_FEATURE_F16 = 0xb,
    DBT_WGPU_FEATURE_SUBGROUPS = 0x30021, /* its own: version 29 does not know the standard one */
    DBT_WGPU_FILTER_VALIDATION = 1,
    DBT_WGPU_FILTER_OUT_OF_MEMORY = 2,
    DBT_WGPU_ERROR_NONE = 1,
    DBT_WGPU_ERROR_OUT_OF_MEMORY = 3,
    DBT_WGPU_BINDING_UNIFORM = 2,
    DBT_WGPU_BINDING_STORAGE = 3,
    DBT_WGPU_BINDING_READ_ONLY_STORAGE = 4,
    DBT_WGPU_QUERY_TIMESTAMP = 2,
    DBT_WGPU_CHAIN_WGSL = 2,
    DBT_WGPU_CHAIN_INSTANCE_EXTRAS = 0x30004,
    DBT_WGPU_USAGE_MAP_READ = 1,
    DBT_WGPU_USAGE_COPY_SRC = 4,
    DBT_WGPU_USAGE_COPY_DST = 8,
    DBT_WGPU_USAGE_UNIFORM = 0x40,
    DBT_WGPU_USAGE_STORAGE = 0x80,
    DBT_WGPU_USAGE_QUERY_RESOLVE = 0x200,
    DBT_WGPU_MAP_READ = 1,
    DBT_WGPU_STAGE_COMPUTE = 4,
    DBT_WGPU_CHECK_BOUNDS = 1,
    DBT_WGPU_CHECK_LOOPS = 2,
    DBT_WGPU_INSTANCE_VULKAN = 1,
    DBT_WGPU_INSTANCE_METAL = 4,
    DBT_WGPU_INSTANCE_D3D12 = 8
};

typedef struct dbt_wgpu_string {
    const char *data;
    size_t length;
} dbt_wgpu_string;

typedef struct dbt_wgpu_chain {
    struct dbt_wgpu_chain *next;
    dbt_wgpu_enum sType;
} dbt_wgpu_chain;

/* What calls that answer later return; of no use here, where everything is polled for. */
typedef struct dbt_wgpu_future {
    uint64_t id;
} dbt_wgpu_future;

typedef struct dbt_wgpu_instance_desc {
    dbt_wgpu_chain *nextInChain;
    size_t requiredFeatureCount;
    const dbt_wgpu_enum *requiredFeatures;
    const void *requiredLimits;
} dbt_wgpu_instance_desc;

typedef struct dbt_wgpu_instance_extras {
    dbt_wgpu_chain chain;
    dbt_wgpu_flags backends;
    dbt_wgpu_flags flags;
    dbt_wgpu_enum dx12ShaderCompiler;
    dbt_wgpu_enum gles3MinorVersion;
    dbt_wgpu_enum glFenceBehaviour;
    dbt_wgpu_string dxcPath;
    dbt_wgpu_enum dxcMaxShaderModel;
    dbt_wgpu_enum dx12PresentationSystem;
    const uint8_t *budgetForDeviceCreation;
    const uint8_t *budgetForDeviceLoss;
    uint64_t displayHandle[3];
} dbt_wgpu_instance_extras;

typedef struct dbt_wgpu_adapter_options {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_enum featureLevel;
    dbt_wgpu_enum powerPreference;
    dbt_wgpu_bool forceFallbackAdapter;
    dbt_wgpu_enum backendType;
    void *compatibleSurface;
} dbt_wgpu_adapter_options;

typedef struct dbt_wgpu_adapter_info {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string vendor, architecture, device, description;
    dbt_wgpu_enum backendType;
    dbt_wgpu_enum adapterType;
    uint32_t vendorID, deviceID;
    uint32_t subgroupMinSize, subgroupMaxSize;
} dbt_wgpu_adapter_info;

typedef struct dbt_wgpu_limits {
    dbt_wgpu_chain *nextInChain;
    uint32_t maxTextureDimension1D;
    uint32_t maxTextureDimension2D;
    uint32_t maxTextureDimension3D;
    uint32_t maxTextureArrayLayers;
    uint32_t maxBindGroups;
    uint32_t maxBindGroupsPlusVertexBuffers;
    uint32_t maxBindingsPerBindGroup;
    uint32_t maxDynamicUniformBuffersPerPipelineLayout;
    uint32_t maxDynamicStorageBuffersPerPipelineLayout;
    uint32_t maxSampledTexturesPerShaderStage;
    uint32_t maxSamplersPerShaderStage;
    uint32_t maxStorageBuffersPerShaderStage;
    uint32_t maxStorageTexturesPerShaderStage;
    uint32_t maxUniformBuffersPerShaderStage;
    uint64_t maxUniformBufferBindingSize;
    uint64_t maxStorageBufferBindingSize;
    uint32_t minUniformBufferOffsetAlignment;
    uint32_t minStorageBufferOffsetAlignment;
    uint32_t maxVertexBuffers;
    uint64_t maxBufferSize;
    uint32_t maxVertexAttributes;
    uint32_t maxVertexBufferArrayStride;
    uint32_t maxInterStageShaderVariables;
    uint32_t maxColorAttachments;
    uint32_t maxColorAttachmentBytesPerSample;
    uint32_t maxComputeWorkgroupStorageSize;
    uint32_t maxComputeInvocationsPerWorkgroup;
    uint32_t maxComputeWorkgroupSizeX;
    uint32_t maxComputeWorkgroupSizeY;
    uint32_t maxComputeWorkgroupSizeZ;
    uint32_t maxComputeWorkgroupsPerDimension;
    uint32_t maxImmediateSize;
} dbt_wgpu_limits;

/* Callbacks: status or reason, result or error type, message, two pointers of the caller. */
typedef void (*dbt_wgpu_on_adapter)(dbt_wgpu_enum status, dbt_wgpu_adapter adapter,
                                    dbt_wgpu_string message, void *userdata1, void *userdata2);
typedef void (*dbt_wgpu_on_device)(dbt_wgpu_enum status, dbt_wgpu_device device,
                                   dbt_wgpu_string message, void *userdata1, void *userdata2);
typedef void (*dbt_wgpu_on_lost)(const dbt_wgpu_device *device, dbt_wgpu_enum reason,
                                 dbt_wgpu_string message, void *userdata1, void *userdata2);
typedef void (*dbt_wgpu_on_error)(const dbt_wgpu_device *device, dbt_wgpu_enum type,
                                  dbt_wgpu_string message, void *userdata1, void *userdata2);
typedef void (*dbt_wgpu_on_scope)(dbt_wgpu_enum status, dbt_wgpu_enum type, dbt_wgpu_string message,
                                  void *userdata1, void *userdata2);
typedef void (*dbt_wgpu_on_map)(dbt_wgpu_enum status, dbt_wgpu_string message, void *userdata1,
                                void *userdata2);
typedef void (*dbt_wgpu_on_done)(dbt_wgpu_enum status, dbt_wgpu_string message, void *userdata1,
                                 void *userdata2);

typedef struct dbt_wgpu_adapter_callback {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_enum mode;
    dbt_wgpu_on_adapter callback;
    void *userdata1, *userdata2;
} dbt_wgpu_adapter_callback;

typedef struct dbt_wgpu_device_callback {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_enum mode;
    dbt_wgpu_on_device callback;
    void *userdata1, *userdata2;
} dbt_wgpu_device_callback;

typedef struct dbt_wgpu_lost_callback {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_enum mode;
    dbt_wgpu_on_lost callback;
    void *userdata1, *userdata2;
} dbt_wgpu_lost_callback;

typedef struct dbt_wgpu_error_callback {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_on_error callback;
    void *userdata1, *userdata2;
} dbt_wgpu_error_callback;

typedef struct dbt_wgpu_scope_callback {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_enum mode;
    dbt_wgpu_on_scope callback;
    void *userdata1, *userdata2;
} dbt_wgpu_scope_callback;

typedef struct dbt_wgpu_map_callback {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_enum mode;
    dbt_wgpu_on_map callback;
    void *userdata1, *userdata2;
} dbt_wgpu_map_callback;

typedef struct dbt_wgpu_done_callback {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_enum mode;
    dbt_wgpu_on_done callback;
    void *userdata1, *userdata2;
} dbt_wgpu_done_callback;

/* Descriptors of a label alone. */
typedef struct dbt_wgpu_label {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string label;
} dbt_wgpu_label;
typedef dbt_wgpu_label dbt_wgpu_queue_desc;
typedef dbt_wgpu_label dbt_wgpu_module_desc;
typedef dbt_wgpu_label dbt_wgpu_encoder_desc;
typedef dbt_wgpu_label dbt_wgpu_commands_desc;

typedef struct dbt_wgpu_device_desc {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string label;
    size_t requiredFeatureCount;
    const dbt_wgpu_enum *requiredFeatures;
    const dbt_wgpu_limits *requiredLimits;
    dbt_wgpu_queue_desc defaultQueue;
    dbt_wgpu_lost_callback deviceLostCallbackInfo;
    dbt_wgpu_error_callback uncapturedErrorCallbackInfo;
} dbt_wgpu_device_desc;

typedef struct dbt_wgpu_buffer_desc {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string label;
    dbt_wgpu_flags usage;
    uint64_t size;
    dbt_wgpu_bool mappedAtCreation;
} dbt_wgpu_buffer_desc;

typedef struct dbt_wgpu_wgsl {
    dbt_wgpu_chain chain;
    dbt_wgpu_string code;
} dbt_wgpu_wgsl;

/* Zero in sampler, texture and storageTexture: the binding is none of them. */
typedef struct dbt_wgpu_layout_entry {
    dbt_wgpu_chain *nextInChain;
    uint32_t binding;
    dbt_wgpu_flags visibility;
    uint32_t bindingArraySize;
    struct {
        dbt_wgpu_chain *nextInChain;
        dbt_wgpu_enum type;
        dbt_wgpu_bool hasDynamicOffset;
        uint64_t minBindingSize;
    } buffer;
    struct {
        dbt_wgpu_chain *nextInChain;
        dbt_wgpu_enum type;
    } sampler;
    struct {
        dbt_wgpu_chain *nextInChain;
        dbt_wgpu_enum sampleType, viewDimension;
        dbt_wgpu_bool multisampled;
    } texture;
    struct {
        dbt_wgpu_chain *nextInChain;
        dbt_wgpu_enum access, format, viewDimension;
    } storageTexture;
} dbt_wgpu_layout_entry;

typedef struct dbt_wgpu_group_layout_desc {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string label;
    size_t entryCount;
    const dbt_wgpu_layout_entry *entries;
} dbt_wgpu_group_layout_desc;

typedef struct dbt_wgpu_layout_desc {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string label;
    size_t bindGroupLayoutCount;
    const dbt_wgpu_group_layout *bindGroupLayouts;
    uint32_t immediateSize;
} dbt_wgpu_layout_desc;

typedef struct dbt_wgpu_pipeline_desc {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string label;
    dbt_wgpu_layout layout;
    struct {
        dbt_wgpu_chain *nextInChain;
        dbt_wgpu_module module;
        dbt_wgpu_string entryPoint;
        size_t constantCount;
        const void *constants;
    } compute;
} dbt_wgpu_pipeline_desc;

typedef struct dbt_wgpu_group_entry {
    dbt_wgpu_chain *nextInChain;
    uint32_t binding;
    dbt_wgpu_buffer buffer;
    uint64_t offset;
    uint64_t size;
    void *sampler;
    void *textureView;
} dbt_wgpu_group_entry;

typedef struct dbt_wgpu_group_desc {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string label;
    dbt_wgpu_group_layout layout;
    size_t entryCount;
    const dbt_wgpu_group_entry *entries;
} dbt_wgpu_group_desc;

typedef struct dbt_wgpu_timestamp_writes {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_queries querySet;
    uint32_t beginningOfPassWriteIndex, endOfPassWriteIndex;
} dbt_wgpu_timestamp_writes;

typedef struct dbt_wgpu_pass_desc {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string label;
    const dbt_wgpu_timestamp_writes *timestampWrites;
} dbt_wgpu_pass_desc;

typedef struct dbt_wgpu_queries_desc {
    dbt_wgpu_chain *nextInChain;
    dbt_wgpu_string label;
    dbt_wgpu_enum type;
    uint32_t count;
} dbt_wgpu_queries_desc;

/* X(result, name, arguments): the function wgpu<name>. DevicePoll runs the callbacks that are due, and
 * with `wait` first waits for a submission, or for all; what it returns means nothing in version 29. */
#define DBT_WGPU_FUNCTIONS(X)                                                                      \
    X(dbt_wgpu_instance, CreateInstance, (const dbt_wgpu_instance_desc *))                         \
    X(dbt_wgpu_future, InstanceRequestAdapter,                                                     \
      (dbt_wgpu_instance, const dbt_wgpu_adapter_options *, dbt_wgpu_adapter_callback))            \
    X(void, InstanceRelease, (dbt_wgpu_instance))                                                  \
    X(dbt_wgpu_enum, AdapterGetInfo, (dbt_wgpu_adapter, dbt_wgpu_adapter_info *))                  \
    X(void, AdapterInfoFreeMembers, (dbt_wgpu_adapter_info))                                       \
    X(dbt_wgpu_enum, AdapterGetLimits, (dbt_wgpu_adapter, dbt_wgpu_limits *))                      \
    X(dbt_wgpu_bool, AdapterHasFeature, (dbt_wgpu_adapter, dbt_wgpu_enum))                         \
    X(dbt_wgpu_future, AdapterRequestDevice,                                                       \
      (dbt_wgpu_adapter, const dbt_wgpu_device_desc *, dbt_wgpu_device_callback))                  \
    X(void, AdapterRelease, (dbt_wgpu_adapter))                                                    \
    X(dbt_wgpu_queue, DeviceGetQueue, (dbt_wgpu_device))                                           \
    X(void, DevicePushErrorScope, (dbt_wgpu_device, dbt_wgpu_enum))                                \
    X(dbt_wgpu_future, DevicePopErrorScope, (dbt_wgpu_device, dbt_wgpu_scope_callback))            \
    X(dbt_wgpu_buffer, DeviceCreateBuffer, (dbt_wgpu_device, const dbt_wgpu_buffer_desc *))        \
    X(dbt_wgpu_module, DeviceCreateShaderModuleTrusted,                                            \
      (dbt_wgpu_device, const dbt_wgpu_module_desc *, dbt_wgpu_flags))                             \
    X(dbt_wgpu_group_layout, DeviceCreateBindGroupLayout,                                          \
      (dbt_wgpu_device, const dbt_wgpu_group_layout_desc *))                                       \
    X(dbt_wgpu_layout, DeviceCreatePipelineLayout,                                                 \
      (dbt_wgpu_device, const dbt_wgpu_layout_desc *))                                             \
    X(dbt_wgpu_pipeline, DeviceCreateComputePipeline,                                              \
      (dbt_wgpu_device, const dbt_wgpu_pipeline_desc *))                                           \
    X(dbt_wgpu_group, DeviceCreateBindGroup, (dbt_wgpu_device, const dbt_wgpu_group_desc *))       \
    X(dbt_wgpu_encoder, DeviceCreateCommandEncoder,                                                \
      (dbt_wgpu_device, const dbt_wgpu_encoder_desc *))                                            \
    X(dbt_wgpu_queries, DeviceCreateQuerySet, (dbt_wgpu_device, const dbt_wgpu_queries_desc *))    \
    X(void, DeviceDestroy, (dbt_wgpu_device))                                                      \
    X(void, DeviceRelease, (dbt_wgpu_device))                                                      \
    X(dbt_wgpu_pass, CommandEncoderBeginComputePass,                                               \
      (dbt_wgpu_encoder, const dbt_wgpu_pass_desc *))                                              \
    X(void, CommandEncoderCopyBufferToBuffer,                                                      \
      (dbt_wgpu_encoder, dbt_wgpu_buffer, uint64_t, dbt_wgpu_buffer, uint64_t, uint64_t))          \
    X(void, CommandEncoderResolveQuerySet,                                                         \
      (dbt_wgpu_encoder, dbt_wgpu_queries, uint32_t, uint32_t, dbt_wgpu_buffer, uint64_t))         \
    X(dbt_wgpu_commands, CommandEncoderFinish, (dbt_wgpu_encoder, const dbt_wgpu_commands_desc *)) \
    X(void, CommandEncoderRelease, (dbt_wgpu_encoder))                                             \
    X(void, CommandBufferRelease, (dbt_wgpu_commands))                                             \
    X(void, ComputePassEncoderSetPipeline, (dbt_wgpu_pass, dbt_wgpu_pipeline))                     \
    X(void, ComputePassEncoderSetBindGroup,                                                        \
      (dbt_wgpu_pass, uint32_t, dbt_wgpu_group, size_t, const uint32_t *))                         \
    X(void, ComputePassEncoderDispatchWorkgroups, (dbt_wgpu_pass, uint32_t, uint32_t, uint32_t))   \
    X(void, ComputePassEncoderEnd, (dbt_wgpu_pass))                                                \
    X(void, ComputePassEncoderRelease, (dbt_wgpu_pass))                                            \
    X(void, QueueSubmit, (dbt_wgpu_queue, size_t, const dbt_wgpu_commands *))                      \
    X(void, QueueWriteBuffer, (dbt_wgpu_queue, dbt_wgpu_buffer, uint64_t, const void *, size_t))   \
    X(dbt_wgpu_future, QueueOnSubmittedWorkDone, (dbt_wgpu_queue, dbt_wgpu_done_callback))         \
    X(void, QueueRelease, (dbt_wgpu_queue))                                                        \
    X(dbt_wgpu_future, BufferMapAsync,                                                             \
      (dbt_wgpu_buffer, dbt_wgpu_flags, size_t, size_t, dbt_wgpu_map_callback))                    \
    X(const void *, BufferGetConstMappedRange, (dbt_wgpu_buffer, size_t, size_t))                  \
    X(void, BufferUnmap, (dbt_wgpu_buffer))                                                        \
    X(void, BufferRelease, (dbt_wgpu_buffer))                                                      \
    X(void, ShaderModuleRelease, (dbt_wgpu_module))                                                \
    X(void, BindGroupLayoutRelease, (dbt_wgpu_group_layout))                                       \
    X(void, PipelineLayoutRelease, (dbt_wgpu_layout))                                              \
    X(void, ComputePipelineRelease, (dbt_wgpu_pipeline))                                           \
    X(void, BindGroupRelease, (dbt_wgpu_group))                                                    \
    X(void, QuerySetRelease, (dbt_wgpu_queries))                                                   \
    X(float, QueueGetTimestampPeriod, (dbt_wgpu_queue))                                            \
    X(dbt_wgpu_bool, DevicePoll,                                                                   \
      (dbt_wgpu_device, dbt_wgpu_bool wait, const uint64_t *submission))                           \
    X(uint64_t, QueueSubmitForIndex, (dbt_wgpu_queue, size_t, const dbt_wgpu_commands *))          \
    X(uint32_t, GetVersion, (void))

typedef struct dbt_wgpu_functions {
#define DBT_WGPU_FUNCTION(result, name, arguments) result(*name) arguments;
    DBT_WGPU_FUNCTIONS(DBT_WGPU_FUNCTION)
#undef DBT_WGPU_FUNCTION
} dbt_wgpu_functions;

#endif

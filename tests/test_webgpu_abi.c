/* Every structure, offset and value of gpu/webgpu_abi.h against the real headers. All is checked while
 * compiling; the program only counts as a test. */
#include "gpu/webgpu_abi.h"

#include <wgpu.h>

#define SAME_SIZE(ours, theirs)                                                                    \
    _Static_assert(sizeof(ours) == sizeof(theirs), #ours);                                         \
    _Static_assert(_Alignof(ours) == _Alignof(theirs), #ours)
#define SAME_FIELD(ours, theirs, field)                                                            \
    _Static_assert(offsetof(ours, field) == offsetof(theirs, field), #field " of " #ours);         \
    _Static_assert(sizeof(((ours *)0)->field) == sizeof(((theirs *)0)->field), #field " of"        \
                                                                                      " " #ours)
#define SAME_VALUE(ours, theirs) _Static_assert((int64_t)(ours) == (int64_t)(theirs), #ours)

/* ---- Structures: X(ours, theirs, field) for every field ---- */

#define CALLBACK_FIELDS(X, ours, theirs)                                                           \
    X(ours, theirs, nextInChain)                                                                   \
    X(ours, theirs, callback)                                                                      \
    X(ours, theirs, userdata1)                                                                     \
    X(ours, theirs, userdata2)

#define FIELDS(X)                                                                                  \
    X(dbt_wgpu_string, WGPUStringView, data)                                                       \
    X(dbt_wgpu_string, WGPUStringView, length)                                                     \
    X(dbt_wgpu_chain, WGPUChainedStruct, next)                                                     \
    X(dbt_wgpu_chain, WGPUChainedStruct, sType)                                                    \
    X(dbt_wgpu_future, WGPUFuture, id)                                                             \
    X(dbt_wgpu_instance_desc, WGPUInstanceDescriptor, nextInChain)                                 \
    X(dbt_wgpu_instance_desc, WGPUInstanceDescriptor, requiredFeatureCount)                        \
    X(dbt_wgpu_instance_desc, WGPUInstanceDescriptor, requiredFeatures)                            \
    X(dbt_wgpu_instance_desc, WGPUInstanceDescriptor, requiredLimits)                              \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, chain)                                         \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, backends)                                      \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, flags)                                         \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, dx12ShaderCompiler)                            \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, gles3MinorVersion)                             \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, glFenceBehaviour)                              \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, dxcPath)                                       \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, dxcMaxShaderModel)                             \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, dx12PresentationSystem)                        \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, budgetForDeviceCreation)                       \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, budgetForDeviceLoss)                           \
    X(dbt_wgpu_instance_extras, WGPUInstanceExtras, displayHandle)                                 \
    X(dbt_wgpu_adapter_options, WGPURequestAdapterOptions, nextInChain)                            \
    X(dbt_wgpu_adapter_options, WGPURequestAdapterOptions, featureLevel)                           \
    X(dbt_wgpu_adapter_options, WGPURequestAdapterOptions, powerPreference)                        \
    X(dbt_wgpu_adapter_options, WGPURequestAdapterOptions, forceFallbackAdapter)                   \
    X(dbt_wgpu_adapter_options, WGPURequestAdapterOptions, backendType)                            \
    X(dbt_wgpu_adapter_options, WGPURequestAdapterOptions, compatibleSurface)                      \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, nextInChain)                                         \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, vendor)                                              \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, architecture)                                        \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, device)                                              \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, description)                                         \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, backendType)                                         \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, adapterType)                                         \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, vendorID)                                            \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, deviceID)                                            \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, subgroupMinSize)                                     \
    X(dbt_wgpu_adapter_info, WGPUAdapterInfo, subgroupMaxSize)                                     \
    X(dbt_wgpu_limits, WGPULimits, nextInChain)                                                    \
    X(dbt_wgpu_limits, WGPULimits, maxTextureDimension1D)                                          \
    X(dbt_wgpu_limits, WGPULimits, maxTextureDimension2D)                                          \
    X(dbt_wgpu_limits, WGPULimits, maxTextureDimension3D)                                          \
    X(dbt_wgpu_limits, WGPULimits, maxTextureArrayLayers)                                          \
    X(dbt_wgpu_limits, WGPULimits, maxBindGroups)                                                  \
    X(dbt_wgpu_limits, WGPULimits, maxBindGroupsPlusVertexBuffers)                                 \
    X(dbt_wgpu_limits, WGPULimits, maxBindingsPerBindGroup)                                        \
    X(dbt_wgpu_limits, WGPULimits, maxDynamicUniformBuffersPerPipelineLayout)                      \
    X(dbt_wgpu_limits, WGPULimits, maxDynamicStorageBuffersPerPipelineLayout)                      \
    X(dbt_wgpu_limits, WGPULimits, maxSampledTexturesPerShaderStage)                               \
    X(dbt_wgpu_limits, WGPULimits, maxSamplersPerShaderStage)                                      \
    X(dbt_wgpu_limits, WGPULimits, maxStorageBuffersPerShaderStage)                                \
    X(dbt_wgpu_limits, WGPULimits, maxStorageTexturesPerShaderStage)                               \
    X(dbt_wgpu_limits, WGPULimits, maxUniformBuffersPerShaderStage)                                \
    X(dbt_wgpu_limits, WGPULimits, maxUniformBufferBindingSize)                                    \
    X(dbt_wgpu_limits, WGPULimits, maxStorageBufferBindingSize)                                    \
    X(dbt_wgpu_limits, WGPULimits, minUniformBufferOffsetAlignment)                                \
    X(dbt_wgpu_limits, WGPULimits, minStorageBufferOffsetAlignment)                                \
    X(dbt_wgpu_limits, WGPULimits, maxVertexBuffers)                                               \
    X(dbt_wgpu_limits, WGPULimits, maxBufferSize)                                                  \
    X(dbt_wgpu_limits, WGPULimits, maxVertexAttributes)                                            \
    X(dbt_wgpu_limits, WGPULimits, maxVertexBufferArrayStride)                                     \
    X(dbt_wgpu_limits, WGPULimits, maxInterStageShaderVariables)                                   \
    X(dbt_wgpu_limits, WGPULimits, maxColorAttachments)                                            \
    X(dbt_wgpu_limits, WGPULimits, maxColorAttachmentBytesPerSample)                               \
    X(dbt_wgpu_limits, WGPULimits, maxComputeWorkgroupStorageSize)                                 \
    X(dbt_wgpu_limits, WGPULimits, maxComputeInvocationsPerWorkgroup)                              \
    X(dbt_wgpu_limits, WGPULimits, maxComputeWorkgroupSizeX)                                       \
    X(dbt_wgpu_limits, WGPULimits, maxComputeWorkgroupSizeY)                                       \
    X(dbt_wgpu_limits, WGPULimits, maxComputeWorkgroupSizeZ)                                       \
    X(dbt_wgpu_limits, WGPULimits, maxComputeWorkgroupsPerDimension)                               \
    X(dbt_wgpu_limits, WGPULimits, maxImmediateSize)                                               \
    CALLBACK_FIELDS(X, dbt_wgpu_adapter_callback, WGPURequestAdapterCallbackInfo)                  \
    X(dbt_wgpu_adapter_callback, WGPURequestAdapterCallbackInfo, mode)                             \
    CALLBACK_FIELDS(X, dbt_wgpu_device_callback, WGPURequestDeviceCallbackInfo)                    \
    X(dbt_wgpu_device_callback, WGPURequestDeviceCallbackInfo, mode)                               \
    CALLBACK_FIELDS(X, dbt_wgpu_lost_callback, WGPUDeviceLostCallbackInfo)                         \
    X(dbt_wgpu_lost_callback, WGPUDeviceLostCallbackInfo, mode)                                    \
    CALLBACK_FIELDS(X, dbt_wgpu_error_callback, WGPUUncapturedErrorCallbackInfo)                   \
    CALLBACK_FIELDS(X, dbt_wgpu_scope_callback, WGPUPopErrorScopeCallbackInfo)                     \
    X(dbt_wgpu_scope_callback, WGPUPopErrorScopeCallbackInfo, mode)                                \
    CALLBACK_FIELDS(X, dbt_wgpu_map_callback, WGPUBufferMapCallbackInfo)                           \
    X(dbt_wgpu_map_callback, WGPUBufferMapCallbackInfo, mode)                                      \
    CALLBACK_FIELDS(X, dbt_wgpu_done_callback, WGPUQueueWorkDoneCallbackInfo)                      \
    X(dbt_wgpu_done_callback, WGPUQueueWorkDoneCallbackInfo, mode)                                 \
    X(dbt_wgpu_label, WGPUQueueDescriptor, nextInChain)                                            \
    X(dbt_wgpu_label, WGPUQueueDescriptor, label)                                                  \
    X(dbt_wgpu_label, WGPUShaderModuleDescriptor, label)                                           \
    X(dbt_wgpu_label, WGPUCommandEncoderDescriptor, label)                                         \
    X(dbt_wgpu_label, WGPUCommandBufferDescriptor, label)                                          \
    X(dbt_wgpu_device_desc, WGPUDeviceDescriptor, nextInChain)                                     \
    X(dbt_wgpu_device_desc, WGPUDeviceDescriptor, label)                                           \
    X(dbt_wgpu_device_desc, WGPUDeviceDescriptor, requiredFeatureCount)                            \
    X(dbt_wgpu_device_desc, WGPUDeviceDescriptor, requiredFeatures)                                \
    X(dbt_wgpu_device_desc, WGPUDeviceDescriptor, requiredLimits)                                  \
    X(dbt_wgpu_device_desc, WGPUDeviceDescriptor, defaultQueue)                                    \
    X(dbt_wgpu_device_desc, WGPUDeviceDescriptor, deviceLostCallbackInfo)                          \
    X(dbt_wgpu_device_desc, WGPUDeviceDescriptor, uncapturedErrorCallbackInfo)                     \
    X(dbt_wgpu_buffer_desc, WGPUBufferDescriptor, nextInChain)                                     \
    X(dbt_wgpu_buffer_desc, WGPUBufferDescriptor, label)                                           \
    X(dbt_wgpu_buffer_desc, WGPUBufferDescriptor, usage)                                           \
    X(dbt_wgpu_buffer_desc, WGPUBufferDescriptor, size)                                            \
    X(dbt_wgpu_buffer_desc, WGPUBufferDescriptor, mappedAtCreation)                                \
    X(dbt_wgpu_wgsl, WGPUShaderSourceWGSL, chain)                                                  \
    X(dbt_wgpu_wgsl, WGPUShaderSourceWGSL, code)                                                   \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, nextInChain)                                \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, binding)                                    \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, visibility)                                 \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, bindingArraySize)                           \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, buffer)                                     \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, buffer.nextInChain)                         \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, buffer.type)                                \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, buffer.hasDynamicOffset)                    \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, buffer.minBindingSize)                      \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, sampler)                                    \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, texture)                                    \
    X(dbt_wgpu_layout_entry, WGPUBindGroupLayoutEntry, storageTexture)                             \
    X(dbt_wgpu_group_layout_desc, WGPUBindGroupLayoutDescriptor, nextInChain)                      \
    X(dbt_wgpu_group_layout_desc, WGPUBindGroupLayoutDescriptor, label)                            \
    X(dbt_wgpu_group_layout_desc, WGPUBindGroupLayoutDescriptor, entryCount)                       \
    X(dbt_wgpu_group_layout_desc, WGPUBindGroupLayoutDescriptor, entries)                          \
    X(dbt_wgpu_layout_desc, WGPUPipelineLayoutDescriptor, nextInChain)                             \
    X(dbt_wgpu_layout_desc, WGPUPipelineLayoutDescriptor, label)                                   \
    X(dbt_wgpu_layout_desc, WGPUPipelineLayoutDescriptor, bindGroupLayoutCount)                    \
    X(dbt_wgpu_layout_desc, WGPUPipelineLayoutDescriptor, bindGroupLayouts)                        \
    X(dbt_wgpu_layout_desc, WGPUPipelineLayoutDescriptor, immediateSize)                           \
    X(dbt_wgpu_pipeline_desc, WGPUComputePipelineDescriptor, nextInChain)                          \
    X(dbt_wgpu_pipeline_desc, WGPUComputePipelineDescriptor, label)                                \
    X(dbt_wgpu_pipeline_desc, WGPUComputePipelineDescriptor, layout)                               \
    X(dbt_wgpu_pipeline_desc, WGPUComputePipelineDescriptor, compute)                              \
    X(dbt_wgpu_pipeline_desc, WGPUComputePipelineDescriptor, compute.nextInChain)                  \
    X(dbt_wgpu_pipeline_desc, WGPUComputePipelineDescriptor, compute.module)                       \
    X(dbt_wgpu_pipeline_desc, WGPUComputePipelineDescriptor, compute.entryPoint)                   \
    X(dbt_wgpu_pipeline_desc, WGPUComputePipelineDescriptor, compute.constantCount)                \
    X(dbt_wgpu_pipeline_desc, WGPUComputePipelineDescriptor, compute.constants)                    \
    X(dbt_wgpu_group_entry, WGPUBindGroupEntry, nextInChain)                                       \
    X(dbt_wgpu_group_entry, WGPUBindGroupEntry, binding)                                           \
    X(dbt_wgpu_group_entry, WGPUBindGroupEntry, buffer)                                            \
    X(dbt_wgpu_group_entry, WGPUBindGroupEntry, offset)                                            \
    X(dbt_wgpu_group_entry, WGPUBindGroupEntry, size)                                              \
    X(dbt_wgpu_group_entry, WGPUBindGroupEntry, sampler)                                           \
    X(dbt_wgpu_group_entry, WGPUBindGroupEntry, textureView)                                       \
    X(dbt_wgpu_group_desc, WGPUBindGroupDescriptor, nextInChain)                                   \
    X(dbt_wgpu_group_desc, WGPUBindGroupDescriptor, label)                                         \
    X(dbt_wgpu_group_desc, WGPUBindGroupDescriptor, layout)                                        \
    X(dbt_wgpu_group_desc, WGPUBindGroupDescriptor, entryCount)                                    \
    X(dbt_wgpu_group_desc, WGPUBindGroupDescriptor, entries)                                       \
    X(dbt_wgpu_timestamp_writes, WGPUPassTimestampWrites, nextInChain)                             \
    X(dbt_wgpu_timestamp_writes, WGPUPassTimestampWrites, querySet)                                \
    X(dbt_wgpu_timestamp_writes, WGPUPassTimestampWrites, beginningOfPassWriteIndex)               \
    X(dbt_wgpu_timestamp_writes, WGPUPassTimestampWrites, endOfPassWriteIndex)                     \
    X(dbt_wgpu_pass_desc, WGPUComputePassDescriptor, nextInChain)                                  \
    X(dbt_wgpu_pass_desc, WGPUComputePassDescriptor, label)                                        \
    X(dbt_wgpu_pass_desc, WGPUComputePassDescriptor, timestampWrites)                              \
    X(dbt_wgpu_queries_desc, WGPUQuerySetDescriptor, nextInChain)                                  \
    X(dbt_wgpu_queries_desc, WGPUQuerySetDescriptor, label)                                        \
    X(dbt_wgpu_queries_desc, WGPUQuerySetDescriptor, type)                                         \
    X(dbt_wgpu_queries_desc, WGPUQuerySetDescriptor, count)

#define CHECK(ours, theirs, field)                                                                 \
    SAME_SIZE(ours, theirs);                                                                       \
    SAME_FIELD(ours, theirs, field);
FIELDS(CHECK)

/* ---- Values ---- */

SAME_VALUE(DBT_WGPU_STATUS_SUCCESS, WGPUStatus_Success);
SAME_VALUE(DBT_WGPU_STATUS_SUCCESS, WGPUMapAsyncStatus_Success);
SAME_VALUE(DBT_WGPU_STATUS_SUCCESS, WGPUPopErrorScopeStatus_Success);
SAME_VALUE(DBT_WGPU_STATUS_SUCCESS, WGPURequestAdapterStatus_Success);
SAME_VALUE(DBT_WGPU_STATUS_SUCCESS, WGPURequestDeviceStatus_Success);
SAME_VALUE(DBT_WGPU_CALLBACK_SPONTANEOUS, WGPUCallbackMode_AllowSpontaneous);
SAME_VALUE(DBT_WGPU_POWER_HIGH_PERFORMANCE, WGPUPowerPreference_HighPerformance);
SAME_VALUE(DBT_WGPU_LEVEL_CORE, WGPUFeatureLevel_Core);
SAME_VALUE(DBT_WGPU_ADAPTER_CPU, WGPUAdapterType_CPU);
SAME_VALUE(DBT_WGPU_BACKEND_D3D12, WGPUBackendType_D3D12);
SAME_VALUE(DBT_WGPU_BACKEND_METAL, WGPUBackendType_Metal);
SAME_VALUE(DBT_WGPU_BACKEND_VULKAN, WGPUBackendType_Vulkan);
SAME_VALUE(DBT_WGPU_FEATURE_TIMESTAMPS, WGPUFeatureName_TimestampQuery);
SAME_VALUE(DBT_WGPU_FEATURE_F16, WGPUFeatureName_ShaderF16);
SAME_VALUE(DBT_WGPU_FEATURE_SUBGROUPS, WGPUNativeFeature_Subgroup);
SAME_VALUE(DBT_WGPU_FILTER_VALIDATION, WGPUErrorFilter_Validation);
SAME_VALUE(DBT_WGPU_FILTER_OUT_OF_MEMORY, WGPUErrorFilter_OutOfMemory);
SAME_VALUE(DBT_WGPU_ERROR_NONE, WGPUErrorType_NoError);
SAME_VALUE(DBT_WGPU_ERROR_OUT_OF_MEMORY, WGPUErrorType_OutOfMemory);
SAME_VALUE(DBT_WGPU_BINDING_UNIFORM, WGPUBufferBindingType_Uniform);
SAME_VALUE(DBT_WGPU_BINDING_STORAGE, WGPUBufferBindingType_Storage);
SAME_VALUE(DBT_WGPU_BINDING_READ_ONLY_STORAGE, WGPUBufferBindingType_ReadOnlyStorage);
SAME_VALUE(DBT_WGPU_QUERY_TIMESTAMP, WGPUQueryType_Timestamp);
SAME_VALUE(DBT_WGPU_CHAIN_WGSL, WGPUSType_ShaderSourceWGSL);
SAME_VALUE(DBT_WGPU_CHAIN_INSTANCE_EXTRAS, WGPUSType_InstanceExtras);
SAME_VALUE(0, WGPUBufferBindingType_BindingNotUsed);
SAME_VALUE(0, WGPUSamplerBindingType_BindingNotUsed);
SAME_VALUE(0, WGPUTextureSampleType_BindingNotUsed);
SAME_VALUE(0, WGPUStorageTextureAccess_BindingNotUsed);

/* ---- Functions: declared a second time with our arguments, under the types' real names ---- */

#define dbt_wgpu_instance WGPUInstance
#define dbt_wgpu_adapter WGPUAdapter
#define dbt_wgpu_device WGPUDevice
#define dbt_wgpu_queue WGPUQueue
#define dbt_wgpu_buffer WGPUBuffer
#define dbt_wgpu_module WGPUShaderModule
#define dbt_wgpu_group_layout WGPUBindGroupLayout
#define dbt_wgpu_layout WGPUPipelineLayout
#define dbt_wgpu_pipeline WGPUComputePipeline
#define dbt_wgpu_group WGPUBindGroup
#define dbt_wgpu_encoder WGPUCommandEncoder
#define dbt_wgpu_pass WGPUComputePassEncoder
#define dbt_wgpu_commands WGPUCommandBuffer
#define dbt_wgpu_queries WGPUQuerySet
#define dbt_wgpu_future WGPUFuture
#define dbt_wgpu_limits WGPULimits
#define dbt_wgpu_instance_desc WGPUInstanceDescriptor
#define dbt_wgpu_adapter_options WGPURequestAdapterOptions
#define dbt_wgpu_adapter_info WGPUAdapterInfo
#define dbt_wgpu_adapter_callback WGPURequestAdapterCallbackInfo
#define dbt_wgpu_device_callback WGPURequestDeviceCallbackInfo
#define dbt_wgpu_scope_callback WGPUPopErrorScopeCallbackInfo
#define dbt_wgpu_map_callback WGPUBufferMapCallbackInfo
#define dbt_wgpu_done_callback WGPUQueueWorkDoneCallbackInfo
#define dbt_wgpu_device_desc WGPUDeviceDescriptor
#define dbt_wgpu_buffer_desc WGPUBufferDescriptor
#define dbt_wgpu_module_desc WGPUShaderModuleDescriptor
#define dbt_wgpu_encoder_desc WGPUCommandEncoderDescriptor
#define dbt_wgpu_commands_desc WGPUCommandBufferDescriptor
#define dbt_wgpu_group_layout_desc WGPUBindGroupLayoutDescriptor
#define dbt_wgpu_layout_desc WGPUPipelineLayoutDescriptor
#define dbt_wgpu_pipeline_desc WGPUComputePipelineDescriptor
#define dbt_wgpu_group_desc WGPUBindGroupDescriptor
#define dbt_wgpu_pass_desc WGPUComputePassDescriptor
#define dbt_wgpu_queries_desc WGPUQuerySetDescriptor
#define DECLARE(result, name, arguments) result wgpu##name arguments;
DBT_WGPU_FUNCTIONS(DECLARE)

/* Flags are constants of C, and so no constant expressions: compared at run time. */
int main(void) {
    const struct {
        dbt_wgpu_flags ours, theirs;
    } flags[] = {{DBT_WGPU_USAGE_MAP_READ, WGPUBufferUsage_MapRead},
                 {DBT_WGPU_USAGE_COPY_SRC, WGPUBufferUsage_CopySrc},
                 {DBT_WGPU_USAGE_COPY_DST, WGPUBufferUsage_CopyDst},
                 {DBT_WGPU_USAGE_UNIFORM, WGPUBufferUsage_Uniform},
                 {DBT_WGPU_USAGE_STORAGE, WGPUBufferUsage_Storage},
                 {DBT_WGPU_USAGE_QUERY_RESOLVE, WGPUBufferUsage_QueryResolve},
                 {DBT_WGPU_MAP_READ, WGPUMapMode_Read},
                 {DBT_WGPU_STAGE_COMPUTE, WGPUShaderStage_Compute},
                 {DBT_WGPU_CHECK_BOUNDS, WGPUShaderRuntimeChecks_BoundsChecks},
                 {DBT_WGPU_CHECK_LOOPS, WGPUShaderRuntimeChecks_ForceLoopBounding},
                 {DBT_WGPU_INSTANCE_VULKAN, WGPUInstanceBackend_Vulkan},
                 {DBT_WGPU_INSTANCE_METAL, WGPUInstanceBackend_Metal},
                 {DBT_WGPU_INSTANCE_D3D12, WGPUInstanceBackend_DX12},
                 {0, WGPUShaderRuntimeChecks_None}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (flags[i].ours != flags[i].theirs) return 1;
    }
    return 0;
}

/* Convolutions: ai.onnx Conv (conv.c) and com.microsoft CausalConvWithState (causal_conv.c). */
#ifndef DBT_OPS_CONV_CONV_H
#define DBT_OPS_CONV_CONV_H

#include "ops/op.h"

typedef struct dbt_causal_conv_attrs {
    const char *activation;
    int64_t channels_last, dilation, ndim, state_window;
} dbt_causal_conv_attrs;

dibit_status dbt_causal_conv_infer(dbt_infer *infer);
dibit_status dbt_causal_conv_run(const dbt_cpu_call *call);
dibit_status dbt_causal_conv_bound(const dbt_cpu_call *call, float *const *bound);
dbt_state_kind dbt_causal_conv_state_kind(const dbt_node *node);
dibit_status dbt_causal_conv_encode(const dbt_gpu_call *call);

typedef struct dbt_conv_attrs {
    const char *auto_pad;
    dbt_attr_ints dilations, kernel_shape, pads, strides;
    int64_t group;
} dbt_conv_attrs;

dibit_status dbt_conv_infer(dbt_infer *infer);
dibit_status dbt_conv_run(const dbt_cpu_call *call);
dibit_status dbt_conv_bound(const dbt_cpu_call *call, float *const *bound);
dibit_status dbt_conv_encode(const dbt_gpu_call *call);
const char *dbt_conv_refuses(const dbt_node *node, const dbt_hal *hal);

#endif

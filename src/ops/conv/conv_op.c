/* Schemas of the convolutions. */
#include "ops/conv/conv.h"

#define CAUSAL(field) .name = #field, .offset = offsetof(dbt_causal_conv_attrs, field)
#define CONV(field) .name = #field, .offset = offsetof(dbt_conv_attrs, field)

static const dbt_attr_def causal_attrs[] = {
    {CAUSAL(activation), .kind = DBT_ATTR_STRING, .s = "none"},
    {CAUSAL(channels_last), .kind = DBT_ATTR_INT},
    {CAUSAL(dilation), .kind = DBT_ATTR_INT, .i = 1},
    {CAUSAL(ndim), .kind = DBT_ATTR_INT, .i = 1},
    {CAUSAL(state_window), .kind = DBT_ATTR_INT},
};

static const dbt_attr_def conv_attrs[] = {
    {CONV(auto_pad), .kind = DBT_ATTR_STRING, .s = "NOTSET"},
    {CONV(dilations), .kind = DBT_ATTR_INTS},
    {CONV(kernel_shape), .kind = DBT_ATTR_INTS},
    {CONV(pads), .kind = DBT_ATTR_INTS},
    {CONV(strides), .kind = DBT_ATTR_INTS},
    {CONV(group), .kind = DBT_ATTR_INT, .i = 1},
};

static const dbt_state_pair causal_states[] = {{.past = 3, .present = 1}};

#define COUNT(table) (sizeof(table) / sizeof *(table))

const dbt_op dbt_conv_ops[] = {
    {.domain = "",
     .name = "Conv",
     .since = 1,
     .min_inputs = 2,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .attrs = conv_attrs,
     .n_attrs = COUNT(conv_attrs),
     .attrs_bytes = sizeof(dbt_conv_attrs),
     .infer = dbt_conv_infer,
     .cpu_run = dbt_conv_run,
     .cpu_bound = dbt_conv_bound,
     .gpu_encode = dbt_conv_encode,
     .gpu_refuses = dbt_conv_refuses},
    {.domain = "com.microsoft",
     .name = "CausalConvWithState",
     .since = 1,
     .min_inputs = 2,
     .max_inputs = 4,
     .min_outputs = 1,
     .max_outputs = 2,
     .attrs = causal_attrs,
     .n_attrs = COUNT(causal_attrs),
     .attrs_bytes = sizeof(dbt_causal_conv_attrs),
     .states = causal_states,
     .n_states = 1,
     .infer = dbt_causal_conv_infer,
     .cpu_run = dbt_causal_conv_run,
     .cpu_bound = dbt_causal_conv_bound,
     .state_kind = dbt_causal_conv_state_kind,
     .gpu_encode = dbt_causal_conv_encode},
    {.name = NULL},
};

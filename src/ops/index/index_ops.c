/* The table of the moving ops. An attribute that came with a later opset is accepted at any:
 * without it the op does what the older versions say. */
#include "ops/index/index.h"

/* clang-format off */
#define INT(type, field, value)                                                                    \
    {.name = #field, .kind = DBT_ATTR_INT, .offset = offsetof(type, field), .i = (value)}
#define REQUIRED_INT(type, field)                                                                  \
    {.name = #field, .kind = DBT_ATTR_INT, .required = true, .offset = offsetof(type, field)}
#define INTS(type, field)                                                                          \
    {.name = #field, .kind = DBT_ATTR_INTS, .offset = offsetof(type, field)}
#define TEXT(type, field, value)                                                                   \
    {.name = #field, .kind = DBT_ATTR_STRING, .offset = offsetof(type, field), .s = (value)}
#define ATTRS(type, table)                                                                         \
    .attrs = table, .n_attrs = sizeof(table) / sizeof *(table), .attrs_bytes = sizeof(type)
/* Moves elements, or combines them too. */
#define SUM(name) .infer = dbt_##name##_infer, .cpu_run = dbt_##name##_run
#define RUN(name) SUM(name), .cpu_bound = dbt_cpu_exact_bound
#define MOVE(name) RUN(name), .gpu_encode = dbt_##name##_encode

static const dbt_attr_def axis_0[] = {INT(dbt_axis_attrs, axis, 0)};
static const dbt_attr_def axis_last[] = {INT(dbt_axis_attrs, axis, -1)};
static const dbt_attr_def axis_required[] = {REQUIRED_INT(dbt_axis_attrs, axis)};
static const dbt_attr_def axis_optional[] = {INT(dbt_axis_attrs, axis, DBT_ATTR_ABSENT)};
static const dbt_attr_def scatter[] = {INT(dbt_axis_attrs, axis, 0),
                                       TEXT(dbt_axis_attrs, reduction, "none")};
static const dbt_attr_def scatter_nd[] = {TEXT(dbt_axis_attrs, reduction, "none")};
static const dbt_attr_def gather_nd[] = {INT(dbt_gather_nd_attrs, batch_dims, 0)};
static const dbt_attr_def slice[] = {INTS(dbt_slice_attrs, starts), INTS(dbt_slice_attrs, ends),
                                     INTS(dbt_slice_attrs, axes)};
static const dbt_attr_def split_attr[] = {INT(dbt_split_attrs, axis, 0),
                                          INT(dbt_split_attrs, num_outputs, DBT_ATTR_ABSENT),
                                          INTS(dbt_split_attrs, split)};
static const dbt_attr_def split_input[] = {INT(dbt_split_attrs, axis, 0),
                                           INT(dbt_split_attrs, num_outputs, DBT_ATTR_ABSENT)};
static const dbt_attr_def transpose[] = {INTS(dbt_transpose_attrs, perm)};
static const dbt_attr_def pad_attr[] = {
    TEXT(dbt_pad_attrs, mode, "constant"),
    {.name = "pads", .kind = DBT_ATTR_INTS, .required = true,
     .offset = offsetof(dbt_pad_attrs, pads)},
    {.name = "value", .kind = DBT_ATTR_FLOAT, .offset = offsetof(dbt_pad_attrs, value)},
};
static const dbt_attr_def pad_input[] = {TEXT(dbt_pad_attrs, mode, "constant")};
static const dbt_attr_def blocks[] = {REQUIRED_INT(dbt_block_attrs, blocksize),
                                      TEXT(dbt_block_attrs, mode, "DCR")};
static const dbt_attr_def reverse[] = {INT(dbt_reverse_attrs, time_axis, 0),
                                       INT(dbt_reverse_attrs, batch_axis, 1)};
static const dbt_attr_def trilu[] = {INT(dbt_triangle_attrs, upper, 1)};
static const dbt_attr_def eye_like[] = {INT(dbt_triangle_attrs, k, 0),
                                        INT(dbt_triangle_attrs, dtype, DBT_ATTR_ABSENT)};
static const dbt_attr_def topk_attr[] = {INT(dbt_topk_attrs, axis, -1),
                                         REQUIRED_INT(dbt_topk_attrs, k),
                                         INT(dbt_topk_attrs, largest, 1)};
static const dbt_attr_def topk_input[] = {INT(dbt_topk_attrs, axis, -1),
                                          INT(dbt_topk_attrs, largest, 1),
                                          INT(dbt_topk_attrs, sorted, 1)};

#define SHAPE(min_in, max_in, min_out, max_out)                                                    \
    .min_inputs = (min_in), .max_inputs = (max_in), .min_outputs = (min_out),                      \
    .max_outputs = (max_out)

const dbt_op dbt_index_ops[] = {
    {.domain = "", .name = "Gather", .since = 1, SHAPE(2, 2, 1, 1), .raw_inputs = 1,
     ATTRS(dbt_axis_attrs, axis_0), MOVE(gather),
     .gpu_refuses = dbt_gather_refuses},
    {.domain = "", .name = "GatherElements", .since = 11, SHAPE(2, 2, 1, 1),
     ATTRS(dbt_axis_attrs, axis_0), MOVE(gather_elements)},
    {.domain = "", .name = "GatherND", .since = 11, SHAPE(2, 2, 1, 1),
     ATTRS(dbt_gather_nd_attrs, gather_nd), MOVE(gather_nd)},
    {.domain = "", .name = "Scatter", .since = 9, .until = 10, SHAPE(3, 3, 1, 1),
     .flags = DBT_OP_IN_PLACE, ATTRS(dbt_axis_attrs, scatter), SUM(scatter_elements),
     .gpu_encode = dbt_scatter_elements_encode, .gpu_refuses = dbt_scatter_refuses},
    {.domain = "", .name = "ScatterElements", .since = 11, SHAPE(3, 3, 1, 1),
     .flags = DBT_OP_IN_PLACE, ATTRS(dbt_axis_attrs, scatter), SUM(scatter_elements),
     .gpu_encode = dbt_scatter_elements_encode, .gpu_refuses = dbt_scatter_refuses},
    {.domain = "", .name = "ScatterND", .since = 11, SHAPE(3, 3, 1, 1), .flags = DBT_OP_IN_PLACE,
     ATTRS(dbt_axis_attrs, scatter_nd), SUM(scatter_nd),
     .gpu_encode = dbt_scatter_nd_encode, .gpu_refuses = dbt_scatter_refuses},
    {.domain = "", .name = "Slice", .since = 1, .until = 9, SHAPE(1, 1, 1, 1),
     ATTRS(dbt_slice_attrs, slice), MOVE(slice)},
    {.domain = "", .name = "Slice", .since = 10, SHAPE(3, 5, 1, 1), .host_inputs = 0x1e,
     .attrs_bytes = sizeof(dbt_slice_attrs), MOVE(slice)},
    {.domain = "", .name = "Split", .since = 2, .until = 12, SHAPE(1, 1, 1, DBT_VARIADIC),
     ATTRS(dbt_split_attrs, split_attr), MOVE(split)},
    {.domain = "", .name = "Split", .since = 13, SHAPE(1, 2, 1, DBT_VARIADIC), .host_inputs = 2,
     ATTRS(dbt_split_attrs, split_input), MOVE(split)},
    {.domain = "", .name = "Concat", .since = 4, SHAPE(1, DBT_VARIADIC, 1, 1),
     ATTRS(dbt_axis_attrs, axis_required), MOVE(concat)},
    {.domain = "", .name = "Transpose", .since = 1, SHAPE(1, 1, 1, 1),
     ATTRS(dbt_transpose_attrs, transpose), MOVE(transpose)},
    {.domain = "", .name = "Tile", .since = 6, SHAPE(2, 2, 1, 1), .host_inputs = 2, MOVE(tile)},
    {.domain = "", .name = "Expand", .since = 8, SHAPE(2, 2, 1, 1), .host_inputs = 2, MOVE(expand)},
    {.domain = "", .name = "Pad", .since = 2, .until = 10, SHAPE(1, 1, 1, 1),
     ATTRS(dbt_pad_attrs, pad_attr), MOVE(pad)},
    {.domain = "", .name = "Pad", .since = 11, SHAPE(2, 4, 1, 1), .host_inputs = 0xa,
     ATTRS(dbt_pad_attrs, pad_input), MOVE(pad)},
    {.domain = "", .name = "DepthToSpace", .since = 1, SHAPE(1, 1, 1, 1),
     .kind = DBT_BLOCK_DEPTH_TO_SPACE, ATTRS(dbt_block_attrs, blocks), MOVE(blocks)},
    {.domain = "", .name = "SpaceToDepth", .since = 1, SHAPE(1, 1, 1, 1),
     .kind = DBT_BLOCK_SPACE_TO_DEPTH, ATTRS(dbt_block_attrs, blocks), MOVE(blocks)},
    {.domain = "", .name = "ReverseSequence", .since = 10, SHAPE(2, 2, 1, 1), .host_inputs = 2,
     ATTRS(dbt_reverse_attrs, reverse), RUN(reverse_sequence)},
    {.domain = "", .name = "Trilu", .since = 14, SHAPE(1, 2, 1, 1), .host_inputs = 2,
     .flags = DBT_OP_IN_PLACE, ATTRS(dbt_triangle_attrs, trilu), MOVE(trilu)},
    {.domain = "", .name = "EyeLike", .since = 9, SHAPE(1, 1, 1, 1),
     ATTRS(dbt_triangle_attrs, eye_like), RUN(eye_like)},
    {.domain = "", .name = "TopK", .since = 1, .until = 9, SHAPE(1, 1, 1, 2),
     ATTRS(dbt_topk_attrs, topk_attr), RUN(topk), .cpu_scratch = dbt_topk_scratch},
    {.domain = "", .name = "TopK", .since = 10, SHAPE(2, 2, 1, 2), .host_inputs = 2,
     ATTRS(dbt_topk_attrs, topk_input), RUN(topk), .cpu_scratch = dbt_topk_scratch},
    {.domain = "", .name = "OneHot", .since = 9, SHAPE(3, 3, 1, 1), .host_inputs = 2,
     ATTRS(dbt_axis_attrs, axis_last), RUN(one_hot)},
    {.domain = "", .name = "NonZero", .since = 9, SHAPE(1, 1, 1, 1), RUN(non_zero)},
    {.domain = "", .name = "Compress", .since = 9, SHAPE(2, 2, 1, 1), .host_inputs = 2,
     ATTRS(dbt_axis_attrs, axis_optional), RUN(compress)},
    {.name = NULL},
};

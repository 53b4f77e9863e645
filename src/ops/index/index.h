/* Ops that move elements: gathering, scattering, slicing, joining, permuting, padding, selecting.
 * Most work on bytes and know an element only by its size (1, 2, 4 or 8). What they share is here:
 * a copy between strided arrays, and host values of ops that do nothing but move. */
#ifndef DBT_OPS_INDEX_H
#define DBT_OPS_INDEX_H

#include <string.h>

#include "ops/op.h"

/* ---- Moving ---------------------------------------------------------------------------------- */

/* Two arrays walked in step, each from an element of its own; strides in elements, zero and negative
 * ones allowed. A rank of twice the tensors' lets Tile and DepthToSpace split each dim in two. */
enum { DBT_STRIDED_MAX_RANK = 2 * DIBIT_MAX_RANK };
typedef struct dbt_strided {
    int32_t rank;
    int64_t dst_at, src_at;
    int64_t dims[DBT_STRIDED_MAX_RANK];
    int64_t dst_stride[DBT_STRIDED_MAX_RANK];
    int64_t src_stride[DBT_STRIDED_MAX_RANK];
} dbt_strided;

void dbt_strided_copy(dbt_pool *pool, const dbt_strided *copy, uint32_t element_bytes, void *dst,
                      const void *src);
/* The same copy with as few dims as it can have, but one at least. Dims are positive. */
void dbt_strided_simplify(const dbt_strided *in, dbt_strided *out);
/* What an op that is one copy from input 0 to output 0 copies. Looks at dims and host inputs alone;
 * BAD_INPUT when they do not fit together. */
typedef dibit_status (*dbt_move_plan)(const dbt_cpu_call *call, dbt_strided *copy);
/* cpu_run and gpu_encode of such an op. */
dibit_status dbt_move_run(const dbt_cpu_call *call, dbt_move_plan plan);
dibit_status dbt_move_encode(const dbt_gpu_call *call, dbt_move_plan plan);
/* strides[i]: elements between neighbours along axis i of a dense row-major tensor. */
void dbt_dense_strides(int32_t rank, const int64_t *dims, int64_t *strides);
/* Product of dims[from..to). */
int64_t dbt_dims_product(const int64_t *dims, int32_t from, int32_t to);

static inline uint32_t dbt_element_bytes(const dibit_tensor *t) {
    return dibit_type_bits(t->type) / 8;
}
static inline char *dbt_element(const dibit_tensor *t, int64_t i) {
    return (char *)t->data + i * (int64_t)dbt_element_bytes(t);
}
/* Element i of an int32 or int64 tensor. */
static inline int64_t dbt_index_at(const dibit_tensor *t, int64_t i) {
    if (t->type == DIBIT_TYPE_INT32) {
        int32_t v;
        memcpy(&v, dbt_element(t, i), sizeof v);
        return v;
    }
    int64_t v;
    memcpy(&v, dbt_element(t, i), sizeof v);
    return v;
}

/* BAD_INPUT unless output o has these dims: what infer could not know from symbols. */
dibit_status dbt_expect_dims(const dbt_cpu_call *call, uint32_t o, int32_t rank,
                             const int64_t *dims);
/* BAD_INPUT unless input i (if present) is a list of at most `most` int32 or int64; reads it. */
dibit_status dbt_read_list(const dbt_cpu_call *call, uint32_t i, int64_t most, int64_t *v,
                           int64_t *n);
/* OUT_OF_RANGE unless every index lies in [-size, size). */
dibit_status dbt_check_indices(const dbt_cpu_call *call, const dibit_tensor *indices, int64_t size,
                               int32_t axis);

/* ---- Inferring ------------------------------------------------------------------------------- */

/* Host values of the outputs of an op that only moves elements: runs it on the dims themselves.
 * Bit i of moved: input i is moved; all other inputs must be constants. Does nothing when it cannot
 * be done; call it after the outputs' shapes are set. */
dibit_status dbt_infer_moved_contents(const dbt_infer *infer, uint32_t moved,
                                      dibit_status (*run)(const dbt_cpu_call *call));
/* The length of input i, a list: *n -1 when it is not known; BAD_FILE unless at most `most`. */
dibit_status dbt_infer_list_length(const dbt_infer *infer, uint32_t i, int64_t most, int64_t *n);
/* A number from a scalar input: an integer's host value, or a float's from its data. */
typedef struct dbt_scalar {
    dbt_dim dim; /* integers; DBT_DIM_NONE when not known */
    float f;     /* floats */
    bool is_float, known;
} dbt_scalar;
dibit_status dbt_infer_scalar(const dbt_infer *infer, uint32_t i, dbt_scalar *out);
/* Output 0 has this type, and a rank that only a run will tell. */
dibit_status dbt_infer_unknown_rank(const dbt_infer *infer, dibit_type type);
/* A shape of `rank` fresh dims. */
void dbt_infer_fresh_shape(const dbt_infer *infer, int32_t rank, dbt_shape *shape);

/* ---- The family ------------------------------------------------------------------------------ */

typedef struct dbt_axis_attrs { /* Gather, GatherElements, Scatter*, Concat, OneHot, Compress */
    int64_t axis;
    const char *reduction;
} dbt_axis_attrs;
typedef struct dbt_gather_nd_attrs {
    int64_t batch_dims;
} dbt_gather_nd_attrs;
typedef struct dbt_slice_attrs {
    dbt_attr_ints starts, ends, axes; /* up to opset 9 */
} dbt_slice_attrs;
typedef struct dbt_split_attrs {
    int64_t axis, num_outputs;
    dbt_attr_ints split;
} dbt_split_attrs;
typedef struct dbt_transpose_attrs {
    dbt_attr_ints perm;
} dbt_transpose_attrs;
typedef struct dbt_pad_attrs {
    const char *mode;
    dbt_attr_ints pads; /* up to opset 10 */
    float value;
} dbt_pad_attrs;
typedef struct dbt_block_attrs { /* DepthToSpace, SpaceToDepth */
    int64_t blocksize;
    const char *mode;
} dbt_block_attrs;
typedef struct dbt_reverse_attrs {
    int64_t time_axis, batch_axis;
} dbt_reverse_attrs;
typedef struct dbt_topk_attrs {
    int64_t axis, k, largest, sorted;
} dbt_topk_attrs;
typedef struct dbt_triangle_attrs { /* Trilu, EyeLike */
    int64_t upper, k, dtype;
} dbt_triangle_attrs;

enum { DBT_BLOCK_DEPTH_TO_SPACE, DBT_BLOCK_SPACE_TO_DEPTH }; /* kinds */

#define DBT_INDEX_OP(name)                                                                         \
    dibit_status dbt_##name##_infer(dbt_infer *infer);                                             \
    dibit_status dbt_##name##_run(const dbt_cpu_call *call)
#define DBT_DEVICE_OP(name) dibit_status dbt_##name##_encode(const dbt_gpu_call *call)
DBT_INDEX_OP(gather);
DBT_INDEX_OP(gather_elements);
DBT_INDEX_OP(gather_nd);
DBT_INDEX_OP(scatter_elements);
DBT_INDEX_OP(scatter_nd);
DBT_INDEX_OP(slice);
DBT_INDEX_OP(split);
DBT_INDEX_OP(concat);
DBT_INDEX_OP(transpose);
DBT_INDEX_OP(tile);
DBT_INDEX_OP(expand);
DBT_INDEX_OP(pad);
DBT_INDEX_OP(blocks);
DBT_INDEX_OP(reverse_sequence);
DBT_INDEX_OP(trilu);
DBT_INDEX_OP(eye_like);
DBT_INDEX_OP(topk);
DBT_INDEX_OP(one_hot);
DBT_INDEX_OP(non_zero);
DBT_INDEX_OP(compress);
DBT_DEVICE_OP(gather);
DBT_DEVICE_OP(gather_elements);
DBT_DEVICE_OP(gather_nd);
DBT_DEVICE_OP(scatter_elements);
DBT_DEVICE_OP(scatter_nd);
DBT_DEVICE_OP(slice);
DBT_DEVICE_OP(split);
DBT_DEVICE_OP(concat);
DBT_DEVICE_OP(transpose);
DBT_DEVICE_OP(tile);
DBT_DEVICE_OP(expand);
DBT_DEVICE_OP(pad);
DBT_DEVICE_OP(blocks);
DBT_DEVICE_OP(trilu);
#undef DBT_INDEX_OP
#undef DBT_DEVICE_OP
const char *dbt_gather_refuses(const dbt_node *node, const dbt_hal *hal);
const char *dbt_scatter_refuses(const dbt_node *node, const dbt_hal *hal);
dibit_status dbt_slice_plan(const dbt_cpu_call *call, dbt_strided *copy);
dibit_status dbt_transpose_plan(const dbt_cpu_call *call, dbt_strided *copy);
dibit_status dbt_tile_plan(const dbt_cpu_call *call, dbt_strided *copy);
dibit_status dbt_expand_plan(const dbt_cpu_call *call, dbt_strided *copy);
dibit_status dbt_blocks_plan(const dbt_cpu_call *call, dbt_strided *copy);
/* Gather and GatherND: y [batches, rows, inner] has rows of x whose axes [axis, axis + depth) are given by
 * indices. BAD_INPUT when the dims do not fit together. */
typedef struct dbt_gather_layout {
    int64_t batches, rows, inner;
    int32_t axis, depth;
} dbt_gather_layout;
dibit_status dbt_gather_layout_of(const dbt_cpu_call *call, dbt_gather_layout *out);
dibit_status dbt_gather_nd_layout_of(const dbt_cpu_call *call, dbt_gather_layout *out);
dibit_status dbt_gather_elements_check(const dbt_cpu_call *call, int32_t *axis);
/* Where the inputs of Concat, and the outputs of Split, begin along the axis: at has room for
 * DBT_VARIADIC. */
dibit_status dbt_concat_starts(const dbt_cpu_call *call, int32_t *axis, int64_t *at);
dibit_status dbt_split_starts(const dbt_cpu_call *call, int32_t *axis, int64_t *at);
/* The copy of a part to or from where it lies along the axis of the whole. */
void dbt_part_plan(const dibit_tensor *whole, const dibit_tensor *part, int32_t axis, int64_t at,
                   bool into_whole, dbt_strided *copy);
uint64_t dbt_topk_scratch(const dbt_cpu_call *call);

#endif

/* Transpose, Tile, Expand, DepthToSpace, SpaceToDepth, ReverseSequence: strided copies. */
#include "ops/index/index.h"

/* ---- Transpose ------------------------------------------------------------------------------- */

static int32_t perm_at(const dbt_transpose_attrs *a, int32_t rank, int32_t i) {
    return a->perm.v ? (int32_t)a->perm.v[i] : rank - 1 - i;
}

dibit_status dbt_transpose_infer(dbt_infer *infer) {
    const dbt_transpose_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape;
    DBT_FAIL_IF(a->perm.v && (int32_t)a->perm.n != x->rank, infer->error, DIBIT_BAD_FILE,
                "attribute 'perm' has %u elements, the rank is %d", (unsigned)a->perm.n,
                (int)x->rank);
    bool seen[DIBIT_MAX_RANK] = {false};
    dbt_shape y = {.rank = x->rank};
    for (int32_t i = 0; i < x->rank; i++) {
        DBT_FAIL_IF(a->perm.v && (a->perm.v[i] < 0 || a->perm.v[i] >= x->rank), infer->error,
                    DIBIT_BAD_FILE, "attribute 'perm' holds %lld, the rank is %d",
                    (long long)a->perm.v[i], (int)x->rank);
        const int32_t from = perm_at(a, x->rank, i);
        DBT_FAIL_IF(seen[from], infer->error, DIBIT_BAD_FILE, "attribute 'perm' repeats %d",
                    (int)from);
        seen[from] = true;
        y.dims[i] = x->dims[from];
    }
    dbt_infer_output(infer, 0, infer->in[0]->type, &y);
    return dbt_infer_moved_contents(infer, 1, dbt_transpose_run);
}

dibit_status dbt_transpose_plan(const dbt_cpu_call *call, dbt_strided *copy) {
    const dibit_tensor *const x = call->in[0];
    copy->rank = x->rank;
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(x->rank, x->dims, stride);
    for (int32_t i = 0; i < x->rank; i++) {
        const int32_t from = perm_at(call->attrs, x->rank, i);
        copy->dims[i] = x->dims[from];
        copy->src_stride[i] = stride[from];
    }
    DBT_TRY(dbt_expect_dims(call, 0, x->rank, copy->dims));
    dbt_dense_strides(x->rank, copy->dims, copy->dst_stride);
    return DIBIT_OK;
}

dibit_status dbt_transpose_run(const dbt_cpu_call *call) {
    return dbt_move_run(call, dbt_transpose_plan);
}

/* ---- Tile ------------------------------------------------------------------------------------ */

dibit_status dbt_tile_infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    const dbt_shape *const x = &infer->in[0]->shape;
    int64_t n;
    DBT_TRY(dbt_infer_list_length(infer, 1, DIBIT_MAX_RANK, &n));
    DBT_FAIL_IF(n >= 0 && n != x->rank, infer->error, DIBIT_BAD_FILE,
                "%lld repeats for an input of rank %d", (long long)n, (int)x->rank);
    const dbt_dim *const repeats = infer->in[1]->contents;
    dbt_shape y = {.rank = x->rank};
    for (int32_t i = 0; i < x->rank; i++) {
        int64_t r, d;
        if (!repeats) {
            y.dims[i] = dbt_infer_fresh(infer);
            continue;
        }
        const bool constant = dbt_dim_is_const(infer->dims, repeats[i], &r) &&
                              dbt_dim_is_const(infer->dims, x->dims[i], &d);
        DBT_FAIL_IF(dbt_dim_is_const(infer->dims, repeats[i], &r) && r < 0, infer->error,
                    DIBIT_BAD_FILE, "repeat %lld of axis %d is negative", (long long)r, (int)i);
        DBT_FAIL_IF(constant && d > 0 && r > DBT_MAX_ELEMENTS / d, infer->error, DIBIT_TOO_LARGE,
                    "%lld repeats of axis %d", (long long)r, (int)i);
        y.dims[i] = dbt_dim_apply(infer->dims, DBT_DIM_MUL, x->dims[i], repeats[i]);
    }
    DBT_TRY(dbt_infer_sized(infer, 0, infer->in[0]->type, &y));
    return dbt_infer_moved_contents(infer, 1, dbt_tile_run);
}

dibit_status dbt_tile_plan(const dbt_cpu_call *call, dbt_strided *copy) {
    const dibit_tensor *const x = call->in[0], *const y = call->out[0];
    int64_t repeats[DIBIT_MAX_RANK], n, src[DIBIT_MAX_RANK], dst[DIBIT_MAX_RANK];
    DBT_TRY(dbt_read_list(call, 1, DIBIT_MAX_RANK, repeats, &n));
    DBT_FAIL_IF(n != x->rank, call->error, DIBIT_BAD_INPUT, "%lld repeats for an input of rank %d",
                (long long)n, (int)x->rank);
    for (int32_t i = 0; i < x->rank; i++) {
        const bool fits =
            x->dims[i] == 0 ? y->dims[i] == 0
                            : y->dims[i] % x->dims[i] == 0 && y->dims[i] / x->dims[i] == repeats[i];
        DBT_FAIL_IF(!fits, call->error, DIBIT_BAD_INPUT, "the inputs' dims do not fit together");
    }
    dbt_dense_strides(x->rank, x->dims, src);
    dbt_dense_strides(x->rank, y->dims, dst);
    copy->rank = 2 * x->rank; /* axis 2i: the repeats of axis i */
    for (int32_t i = 0; i < x->rank; i++) {
        copy->dims[2 * i] = repeats[i];
        copy->dst_stride[2 * i] = x->dims[i] * dst[i];
        copy->src_stride[2 * i] = 0;
        copy->dims[2 * i + 1] = x->dims[i];
        copy->dst_stride[2 * i + 1] = dst[i];
        copy->src_stride[2 * i + 1] = src[i];
    }
    return DIBIT_OK;
}

dibit_status dbt_tile_run(const dbt_cpu_call *call) { return dbt_move_run(call, dbt_tile_plan); }

/* ---- Expand ---------------------------------------------------------------------------------- */

dibit_status dbt_expand_infer(dbt_infer *infer) {
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 0, DIBIT_MAX_RANK));
    int64_t n;
    DBT_TRY(dbt_infer_list_length(infer, 1, DIBIT_MAX_RANK, &n));
    if (n < 0) return dbt_infer_unknown_rank(infer, infer->in[0]->type);
    dbt_shape shape = {.rank = (int32_t)n}, y;
    const dbt_dim *const contents = infer->in[1]->contents;
    if (contents) {
        memcpy(shape.dims, contents, (size_t)n * sizeof *contents);
        DBT_TRY(dbt_infer_broadcast(infer, &infer->in[0]->shape, &shape, &y));
    } else {
        const int32_t rank = infer->in[0]->shape.rank;
        dbt_infer_fresh_shape(infer, n > rank ? (int32_t)n : rank, &y);
    }
    DBT_TRY(dbt_infer_sized(infer, 0, infer->in[0]->type, &y));
    return dbt_infer_moved_contents(infer, 1, dbt_expand_run);
}

dibit_status dbt_expand_plan(const dbt_cpu_call *call, dbt_strided *copy) {
    const dibit_tensor *const x = call->in[0], *const y = call->out[0];
    copy->rank = y->rank;
    int64_t stride[DIBIT_MAX_RANK];
    dbt_dense_strides(x->rank, x->dims, stride);
    dbt_dense_strides(y->rank, y->dims, copy->dst_stride);
    for (int32_t i = 0; i < y->rank; i++) {
        const int32_t from = i - (y->rank - x->rank);
        const int64_t d = from < 0 ? 1 : x->dims[from];
        DBT_FAIL_IF(d != 1 && d != y->dims[i], call->error, DIBIT_BAD_INPUT,
                    "dim %d of %lld does not expand to %lld", (int)i, (long long)d,
                    (long long)y->dims[i]);
        copy->dims[i] = y->dims[i];
        copy->src_stride[i] = d == 1 ? 0 : stride[from];
    }
    return DIBIT_OK;
}

dibit_status dbt_expand_run(const dbt_cpu_call *call) {
    return dbt_move_run(call, dbt_expand_plan);
}

/* ---- DepthToSpace, SpaceToDepth -------------------------------------------------------------- */

static dibit_status parse_mode(const dbt_infer *infer, bool *columns) {
    const dbt_block_attrs *const a = infer->attrs;
    *columns = strcmp(a->mode, "CRD") == 0;
    DBT_FAIL_IF(!*columns && strcmp(a->mode, "DCR") != 0, infer->error, DIBIT_BAD_FILE,
                "attribute 'mode' must be DCR or CRD, got '%s'", a->mode);
    return DIBIT_OK;
}

dibit_status dbt_blocks_infer(dbt_infer *infer) {
    const dbt_block_attrs *const a = infer->attrs;
    dbt_dims *const dims = infer->dims;
    bool columns;
    DBT_TRY(parse_mode(infer, &columns));
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_rank(infer, 0, 4, 4));
    DBT_FAIL_IF(a->blocksize < 1 || a->blocksize > INT16_MAX, infer->error, DIBIT_BAD_FILE,
                "attribute 'blocksize' is %lld", (long long)a->blocksize);
    const bool deep = infer->node->op->kind == DBT_BLOCK_SPACE_TO_DEPTH;
    const int64_t divisor[4] = {1, deep ? 1 : a->blocksize * a->blocksize, deep ? a->blocksize : 1,
                                deep ? a->blocksize : 1};
    const int64_t factor[4] = {1, deep ? a->blocksize * a->blocksize : 1, deep ? 1 : a->blocksize,
                               deep ? 1 : a->blocksize};
    dbt_shape y = infer->in[0]->shape;
    for (int32_t i = 1; i < 4; i++) {
        int64_t d;
        DBT_FAIL_IF(dbt_dim_is_const(dims, y.dims[i], &d) && d % divisor[i] != 0, infer->error,
                    DIBIT_BAD_FILE, "dim %d is %lld, not a multiple of %lld", (int)i, (long long)d,
                    (long long)divisor[i]);
        y.dims[i] = dbt_dim_apply(dims, DBT_DIM_DIV, y.dims[i], dbt_dim_const(dims, divisor[i]));
        y.dims[i] = dbt_dim_apply(dims, DBT_DIM_MUL, y.dims[i], dbt_dim_const(dims, factor[i]));
    }
    return dbt_infer_sized(infer, 0, infer->in[0]->type, &y);
}

/* deep [N, c*b*b, H, W] with its channels split as (bh, bw, c), or (c, bh, bw) with mode CRD;
 * wide [N, c, H*b, W*b] with rows split as (H, bh) and columns as (W, bw). */
dibit_status dbt_blocks_plan(const dbt_cpu_call *call, dbt_strided *copy) {
    const dbt_block_attrs *const a = call->attrs;
    const bool to_deep = call->node->op->kind == DBT_BLOCK_SPACE_TO_DEPTH;
    const dibit_tensor *const x = call->in[0], *const y = call->out[0];
    const dibit_tensor *const deep = to_deep ? y : x, *const wide = to_deep ? x : y;
    const int64_t b = a->blocksize, n = wide->dims[0], c = wide->dims[1], h = deep->dims[2];
    const int64_t w = deep->dims[3], hw = h * w;
    DBT_FAIL_IF(deep->dims[0] != n || deep->dims[1] != c * b * b || wide->dims[2] != h * b ||
                    wide->dims[3] != w * b,
                call->error, DIBIT_BAD_INPUT, "dims are not multiples of blocksize %lld",
                (long long)b);
    const bool columns = strcmp(a->mode, "CRD") == 0;
    const int64_t dims[6] = {n, c, h, b, w, b};
    const int64_t in_wide[6] = {c * hw * b * b, hw * b * b, w * b * b, w * b, b, 1};
    const int64_t in_deep[6] = {
        c * hw * b * b,       columns ? b * b * hw : hw, w, columns ? b * hw : b * c * hw, 1,
        columns ? hw : c * hw};
    copy->rank = 6;
    memcpy(copy->dims, dims, sizeof dims);
    memcpy(copy->dst_stride, to_deep ? in_deep : in_wide, sizeof in_deep);
    memcpy(copy->src_stride, to_deep ? in_wide : in_deep, sizeof in_deep);
    return DIBIT_OK;
}

dibit_status dbt_blocks_run(const dbt_cpu_call *call) {
    return dbt_move_run(call, dbt_blocks_plan);
}

/* ---- ReverseSequence ------------------------------------------------------------------------- */

dibit_status dbt_reverse_sequence_infer(dbt_infer *infer) {
    const dbt_reverse_attrs *const a = infer->attrs;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_VALUE));
    DBT_TRY(dbt_infer_type(infer, 1, DBT_TYPE_BIT(DIBIT_TYPE_INT64)));
    DBT_TRY(dbt_infer_rank(infer, 0, 2, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_rank(infer, 1, 1, 1));
    DBT_FAIL_IF(a->time_axis < 0 || a->time_axis > 1 || a->batch_axis != 1 - a->time_axis,
                infer->error, DIBIT_BAD_FILE,
                "time_axis %lld and batch_axis %lld must be 0 and 1, or 1 and 0",
                (long long)a->time_axis, (long long)a->batch_axis);
    DBT_TRY(dbt_infer_dim(infer, 1, 0, infer->in[0]->shape.dims[a->batch_axis]));
    return dbt_infer_like_first(infer);
}

dibit_status dbt_reverse_sequence_run(const dbt_cpu_call *call) {
    const dbt_reverse_attrs *const a = call->attrs;
    const dibit_tensor *const x = call->in[0], *const lengths = call->in[1];
    dibit_tensor *const y = call->out[0];
    const int64_t n_batch = x->dims[a->batch_axis], n_time = x->dims[a->time_axis];
    DBT_TRY(dbt_expect_dims(call, 0, x->rank, x->dims));
    DBT_FAIL_IF(lengths->dims[0] != n_batch, call->error, DIBIT_BAD_INPUT,
                "%lld lengths for a batch of %lld", (long long)lengths->dims[0],
                (long long)n_batch);
    for (int64_t i = 0; i < n_batch; i++) {
        const int64_t length = dbt_index_at(lengths, i);
        DBT_FAIL_IF(length < 0 || length > n_time, call->error, DIBIT_OUT_OF_RANGE,
                    "length %lld of sequence %lld is out of range for %lld steps",
                    (long long)length, (long long)i, (long long)n_time);
    }
    const int64_t inner = dbt_dims_product(x->dims, 2, x->rank);
    if (inner == 0) return DIBIT_OK;
    const int64_t batch_stride = a->batch_axis == 0 ? n_time * inner : inner;
    const int64_t time_stride = a->time_axis == 0 ? n_batch * inner : inner;
    for (int64_t i = 0; i < n_batch; i++) {
        const int64_t length = dbt_index_at(lengths, i);
        for (int64_t t = 0; t < n_time; t++) {
            const int64_t from = t < length ? length - 1 - t : t;
            memcpy(dbt_element(y, i * batch_stride + t * time_stride),
                   dbt_element(x, i * batch_stride + from * time_stride),
                   (size_t)inner * dbt_element_bytes(x));
        }
    }
    return DIBIT_OK;
}

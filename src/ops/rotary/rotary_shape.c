/* What the rotary ops' inputs mean: shapes, and the positions of tokens. */
#include "ops/rotary/rotary_op.h"

static dibit_status read_shapes(const dibit_tensor *x, const dibit_tensor *cos,
                                const dibit_tensor *sin, dbt_rotary *r, dibit_error *error) {
    const dbt_rotary_attrs *const a = r->a;
    r->half = cos->dims[cos->rank - 1];
    r->batch = x->dims[0];
    if (x->rank == 4) {
        r->heads = x->dims[1];
        r->tokens = x->dims[2];
        r->dim = x->dims[3];
    } else {
        r->tokens = x->dims[1];
        /* The contrib op may leave the heads to the caches' width: a whole head turns. */
        r->heads = a->num_heads > 0 ? a->num_heads : r->half > 0 ? x->dims[2] / (2 * r->half) : 0;
        r->dim = r->heads > 0 ? x->dims[2] / r->heads : 0;
        DBT_FAIL_IF(r->heads * r->dim != x->dims[2], error, DIBIT_BAD_INPUT,
                    "the last dim %lld is not a multiple of %lld heads", (long long)x->dims[2],
                    (long long)r->heads);
    }
    const int64_t turned = a->rotary_embedding_dim > 0 ? a->rotary_embedding_dim : r->dim;
    const int64_t *const n = a->mrope_section.v;
    DBT_FAIL_IF(n && n[0] + n[1] + n[2] != r->half, error, DIBIT_BAD_INPUT,
                "mrope_section's sum must be the caches' width %lld", (long long)r->half);
    DBT_FAIL_IF(2 * r->half != turned || turned > r->dim, error, DIBIT_BAD_INPUT,
                "caches of width %lld do not fit %lld turning elements of %lld", (long long)r->half,
                (long long)turned, (long long)r->dim);
    bool same = cos->rank == sin->rank;
    for (int32_t i = 0; same && i < cos->rank; i++) same = cos->dims[i] == sin->dims[i];
    DBT_FAIL_IF(!same, error, DIBIT_BAD_INPUT, "cos_cache and sin_cache differ in shape");
    r->head_stride = x->rank == 4 ? r->tokens * r->dim : r->dim;
    r->token_stride = x->rank == 4 ? r->dim : r->heads * r->dim;
    return DIBIT_OK;
}

static dibit_status check_position(int64_t position, int64_t token, int64_t rows,
                                   dibit_error *error) {
    DBT_FAIL_IF(position < 0 || position >= rows, error, DIBIT_OUT_OF_RANGE,
                "position %lld of token %lld is beyond cos_cache's %lld rows", (long long)position,
                (long long)token, (long long)rows);
    return DIBIT_OK;
}

static dibit_status read_streams(const dibit_tensor *ids, int64_t rows, dbt_rotary *r,
                                 dibit_error *error) {
    const int64_t n = r->batch * r->tokens;
    DBT_FAIL_IF(ids->dims[0] != 3 || ids->dims[1] != r->batch || ids->dims[2] != r->tokens, error,
                DIBIT_BAD_INPUT, "position_ids must be [3, %lld, %lld]", (long long)r->batch,
                (long long)r->tokens);
    r->streams = 3;
    for (int64_t k = 0; k < 3 * n; k++) {
        DBT_TRY(check_position(r->ids[k], k % n, rows, error));
    }
    return DIBIT_OK;
}

dibit_status dbt_rotary_read(const dbt_node *node, const dibit_tensor *const *in, uint32_t n_inputs,
                             dbt_rotary *r, dibit_error *error) {
    const uint32_t i = dbt_rotary_ids_input(node);
    const dibit_tensor *const ids = i < n_inputs ? in[i] : NULL;
    const dibit_tensor *const cos = in[dbt_rotary_cos_input(node)];
    *r = (dbt_rotary){.a = node->attrs, .streams = 1};
    DBT_TRY(read_shapes(in[0], cos, in[dbt_rotary_cos_input(node) + 1], r, error));
    if (!ids) {
        DBT_FAIL_IF(
            cos->dims[0] != r->batch || cos->dims[1] != r->tokens, error, DIBIT_BAD_INPUT,
            "without position_ids the caches must have a row for each of %lld x %lld tokens",
            (long long)r->batch, (long long)r->tokens);
        return DIBIT_OK;
    }
    r->ids = ids->data;
    r->ids_count = dbt_tensor_count(ids);
    if (node->op->kind == DBT_ROTARY_MULTIMODAL) return read_streams(ids, cos->dims[0], r, error);
    const bool is_offset =
        node->op->kind == DBT_ROTARY_CONTRIB && ids->rank < 2 && r->ids_count == 1;
    DBT_FAIL_IF(!is_offset &&
                    (ids->rank != 2 || ids->dims[0] != r->batch || ids->dims[1] != r->tokens),
                error, DIBIT_BAD_INPUT, "position_ids must be [%lld, %lld]", (long long)r->batch,
                (long long)r->tokens);
    for (int64_t k = 0; k < r->batch * r->tokens; k++) {
        const int64_t p = dbt_rotary_position(r, k / r->tokens, k % r->tokens);
        DBT_TRY(check_position(p, k, cos->dims[0], error));
    }
    return DIBIT_OK;
}

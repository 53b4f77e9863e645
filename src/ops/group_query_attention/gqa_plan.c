/* What a run of GroupQueryAttention is to do, from dims, lengths and positions: the same for every device. */
#include <math.h>
#include <string.h>

#include "ops/group_query_attention/group_query_attention.h"

void dbt_gqa_read(const dbt_gqa_attrs *a, const dibit_tensor *const *in, uint32_t n_inputs,
                  dbt_gqa_step *step) {
    *step = (dbt_gqa_step){.a = a, .in = in, .n_inputs = n_inputs};
    const dibit_tensor *const query = in[DBT_GQA_QUERY];
    step->batch = query->dims[0];
    step->queries = query->dims[1];
    step->heads = a->num_heads;
    step->kv_heads = a->kv_num_heads;
    step->packed = !dbt_gqa_in(step, DBT_GQA_KEY);
    step->q_parts = step->packed ? step->heads + 2 * step->kv_heads : step->heads;
    step->dim = query->dims[2] / step->q_parts;
    step->rotary_half = a->do_rotary == 1 ? in[DBT_GQA_COS]->dims[1] : 0;
    step->window = a->sliding_window_cache == 1;
    if (step->window && step->queries > 1) {
        step->stage_capacity = a->local_window_size - 1 + step->queries;
    }
}

dbt_kv_desc dbt_gqa_kv_desc(const dbt_gqa_step *s, uint32_t state) {
    return (dbt_kv_desc){.state = state,
                         .past = DBT_GQA_PAST_KEY + state,
                         .present = 1 + state,
                         .batch = s->batch,
                         .heads = s->kv_heads,
                         .dim = s->dim,
                         .appended = s->queries};
}

float dbt_gqa_scale(const dbt_gqa_step *step) {
    return step->a->scale == 0.0f ? 1.0f / sqrtf((float)step->dim) : step->a->scale;
}

static dibit_status check_dims(const dbt_gqa_step *step, uint32_t input, int32_t rank,
                               const int64_t *want, dibit_error *error) {
    const dibit_tensor *const t = dbt_gqa_in(step, input);
    if (!t) return DIBIT_OK;
    for (int32_t i = 0; i < rank; i++) {
        DBT_FAIL_IF(t->rank != rank || (want[i] >= 0 && t->dims[i] != want[i]), error,
                    DIBIT_BAD_INPUT, "dim %d of input %u must be %lld, got %lld", (int)i,
                    (unsigned)input, (long long)want[i], (long long)t->dims[i]);
    }
    return DIBIT_OK;
}

dibit_status dbt_gqa_check(dbt_gqa_step *step, bool has_state, dibit_error *error) {
    DBT_FAIL_IF(step->dim < 1 ||
                    step->dim * step->q_parts != dbt_gqa_in(step, DBT_GQA_QUERY)->dims[2],
                error, DIBIT_BAD_INPUT, "the query's last dim is not a multiple of %lld heads",
                (long long)step->q_parts);
    const int64_t kv[] = {step->batch, step->queries, step->kv_heads * step->dim};
    const int64_t past[] = {step->batch, step->kv_heads, -1, step->dim};
    for (uint32_t i = 0; i < 2; i++) {
        DBT_TRY(check_dims(step, DBT_GQA_KEY + i, 3, kv, error));
        if (!has_state) DBT_TRY(check_dims(step, DBT_GQA_PAST_KEY + i, 4, past, error));
        DBT_TRY(check_dims(step, DBT_GQA_Q_NORM + i, 1, &step->dim, error));
    }
    DBT_FAIL_IF(dbt_tensor_count(dbt_gqa_in(step, DBT_GQA_SEQLENS_K)) != step->batch, error,
                DIBIT_BAD_INPUT, "seqlens_k must have %lld elements", (long long)step->batch);
    DBT_FAIL_IF(dbt_tensor_count(dbt_gqa_in(step, DBT_GQA_TOTAL)) != 1, error, DIBIT_BAD_INPUT,
                "total_sequence_length must have one element");
    step->total = *(const int32_t *)dbt_gqa_in(step, DBT_GQA_TOTAL)->data;
    DBT_TRY(check_dims(step, DBT_GQA_SINK, 1, &step->heads, error));
    const dibit_tensor *const bias = dbt_gqa_in(step, DBT_GQA_BIAS);
    if (!bias) return DIBIT_OK;
    DBT_FAIL_IF((bias->dims[0] != 1 && bias->dims[0] != step->batch) ||
                    (bias->dims[1] != 1 && bias->dims[1] != step->heads) ||
                    bias->dims[2] != step->queries || bias->dims[3] < step->total,
                error, DIBIT_BAD_INPUT,
                "attention_bias [%lld, %lld, %lld, %lld] does not fit batch %lld, %lld heads, "
                "%lld queries and a total of %lld",
                (long long)bias->dims[0], (long long)bias->dims[1], (long long)bias->dims[2],
                (long long)bias->dims[3], (long long)step->batch, (long long)step->heads,
                (long long)step->queries, (long long)step->total);
    return DIBIT_OK;
}

int64_t dbt_gqa_position(const dbt_gqa_step *step, const dbt_gqa_plan *plan, int64_t b, int64_t s) {
    const dibit_tensor *const ids = dbt_gqa_in(step, DBT_GQA_POSITION_IDS);
    if (!ids) return plan->past + s;
    const int64_t *const p = ids->data;
    /* ONNX Runtime counts a first prompt's positions from the first id on. */
    return step->queries == step->total ? p[0] + s : p[b * step->queries + s];
}

dibit_status dbt_gqa_check_positions(const dbt_gqa_step *step, const dbt_gqa_plan *plan, int64_t b,
                                     dibit_error *error) {
    if (step->a->do_rotary != 1) return DIBIT_OK;
    const dibit_tensor *const cos = dbt_gqa_in(step, DBT_GQA_COS);
    const dibit_tensor *const sin = dbt_gqa_in(step, DBT_GQA_SIN);
    DBT_FAIL_IF(cos->dims[0] != sin->dims[0] || cos->dims[1] != sin->dims[1] ||
                    2 * cos->dims[1] > step->dim,
                error, DIBIT_BAD_INPUT,
                "cos_cache [%lld, %lld] and sin_cache [%lld, %lld] do not fit a head of %lld",
                (long long)cos->dims[0], (long long)cos->dims[1], (long long)sin->dims[0],
                (long long)sin->dims[1], (long long)step->dim);
    const int64_t ids[] = {step->batch, step->queries};
    DBT_TRY(check_dims(step, DBT_GQA_POSITION_IDS, 2, ids, error));
    for (int64_t s = 0; s < step->queries; s++) {
        const int64_t p = dbt_gqa_position(step, plan, b, s);
        DBT_FAIL_IF(p < 0 || p >= cos->dims[0], error, DIBIT_OUT_OF_RANGE,
                    "position %lld of token %lld is beyond cos_cache's %lld rows", (long long)p,
                    (long long)s, (long long)cos->dims[0]);
    }
    return DIBIT_OK;
}

/* Tokens in the cache before the step. A session knows how long its states are, so there a chunk of
 * a ragged batch may be padded too; with a caller's own tensors only T - S can be meant. */
static int64_t past_of(const dbt_gqa_step *step, const dbt_gqa_cache *cache, int64_t total) {
    if (step->queries == step->total) return 0;
    const int64_t new = total - cache->k_length;
    if (cache->is_state && !step->window && new > 0 && new <= step->queries) return cache->k_length;
    return total - step->queries;
}

dibit_status dbt_gqa_plan_row(const dbt_gqa_step *step, int64_t b, const dbt_gqa_cache *cache,
                              dbt_gqa_plan *p, dibit_error *error) {
    *p = (dbt_gqa_plan){.staged = -1};
    const int64_t total =
        (int64_t)((const int32_t *)dbt_gqa_in(step, DBT_GQA_SEQLENS_K)->data)[b] + 1;
    DBT_FAIL_IF(total < 1 || total > step->total, error, DIBIT_OUT_OF_RANGE,
                "seqlens_k[%lld] is %lld, outside of [0, %lld)", (long long)b,
                (long long)(total - 1), (long long)step->total);
    p->past = past_of(step, cache, total);
    DBT_FAIL_IF(p->past < 0, error, DIBIT_OUT_OF_RANGE,
                "seqlens_k[%lld] is %lld, too small for %lld new tokens", (long long)b,
                (long long)(total - 1), (long long)step->queries);
    p->valid = total - p->past;
    p->held = p->past;
    if (step->window) {
        const int64_t w = step->a->local_window_size;
        DBT_FAIL_IF(cache->capacity < w, error, DIBIT_BAD_INPUT,
                    "the windowed cache holds %lld tokens, local_window_size is %lld",
                    (long long)cache->capacity, (long long)w);
        p->held = dbt_gqa_resident(p->past, cache->capacity, w);
        p->length = dbt_gqa_resident(total, cache->capacity, w);
        p->writable = p->valid;
        if (p->length >= p->valid - 1 + w || p->held + p->valid <= cache->capacity) {
            p->drop = p->held + p->valid - p->length;
            p->append_at = p->held - p->drop;
        } else {
            p->append_at = p->staged = p->held < w - 1 ? p->held : w - 1;
        }
    } else {
        DBT_FAIL_IF(total > cache->capacity, error, DIBIT_CAPACITY,
                    "the cache holds %lld tokens, %lld are needed", (long long)cache->capacity,
                    (long long)total);
        const int64_t room = cache->capacity - p->past;
        p->append_at = p->past;
        p->length = total;
        p->writable = step->queries < room ? step->queries : room;
    }
    DBT_FAIL_IF(p->held > cache->k_length || p->held > cache->v_length, error, DIBIT_OUT_OF_RANGE,
                "seqlens_k[%lld] asks for %lld tokens of past, the cache holds %lld", (long long)b,
                (long long)p->held, (long long)cache->k_length);
    return DIBIT_OK;
}

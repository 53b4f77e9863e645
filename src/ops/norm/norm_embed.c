/* EmbedLayerNormalization: word, position and segment embeddings, added and normalized. */
#include "ops/norm/norm.h"

#include <string.h>

enum { IDS, SEGMENT_IDS, WORD, POSITION, SEGMENT, GAMMA, BETA, MASK, POSITION_IDS };

static bool has(const dbt_infer *infer, uint32_t i) { return i < infer->n_inputs && infer->in[i]; }

dibit_status dbt_norm_embed_infer(dbt_infer *infer) {
    static const uint8_t integers[] = {IDS, SEGMENT_IDS, MASK, POSITION_IDS};
    static const uint8_t tables[] = {WORD, POSITION, SEGMENT};
    static const uint8_t required[] = {WORD, POSITION, GAMMA, BETA};
    for (size_t k = 0; k < sizeof required; k++) {
        DBT_FAIL_IF(!has(infer, required[k]), infer->error, DIBIT_BAD_FILE, "input %u is required",
                    (unsigned)required[k]);
    }
    for (size_t k = 0; k < sizeof integers; k++) {
        DBT_TRY(dbt_infer_type(infer, integers[k], DBT_TYPE_BIT(DIBIT_TYPE_INT32)));
        DBT_TRY(dbt_infer_rank(infer, integers[k], 2, 2));
    }
    DBT_FAIL_IF(has(infer, SEGMENT_IDS) != has(infer, SEGMENT), infer->error, DIBIT_BAD_FILE,
                "segment_ids and segment_embedding must be given together");
    DBT_TRY(dbt_infer_rank(infer, WORD, 2, 2));
    const dbt_dim hidden = infer->in[WORD]->shape.dims[1];
    for (size_t k = 0; k < sizeof tables; k++) {
        DBT_TRY(dbt_infer_type(infer, tables[k], DBT_TYPES_FLOAT));
        DBT_TRY(dbt_infer_rank(infer, tables[k], 2, 2));
        DBT_TRY(dbt_infer_dim(infer, tables[k], 1, hidden));
    }
    for (uint32_t i = GAMMA; i <= BETA; i++) {
        DBT_TRY(dbt_infer_type(infer, i, DBT_TYPES_FLOAT));
        DBT_TRY(dbt_infer_rank(infer, i, 1, 1));
        DBT_TRY(dbt_infer_dim(infer, i, 0, hidden));
    }
    const dbt_shape *const ids = &infer->in[IDS]->shape;
    for (int32_t axis = 0; axis < 2; axis++) {
        DBT_TRY(dbt_infer_dim(infer, SEGMENT_IDS, axis, ids->dims[axis]));
        DBT_TRY(dbt_infer_dim(infer, MASK, axis, ids->dims[axis]));
    }
    DBT_TRY(dbt_infer_dim(infer, POSITION_IDS, 1, ids->dims[1]));
    const dbt_shape out = {.rank = 3, .dims = {ids->dims[0], ids->dims[1], hidden}};
    const dbt_shape index = {.rank = 1, .dims = {ids->dims[0]}};
    dbt_infer_output(infer, 0, infer->in[WORD]->type, &out);
    dbt_infer_output(infer, 1, DIBIT_TYPE_INT32, &index);
    dbt_infer_output(infer, 2, infer->in[WORD]->type, &out);
    return DIBIT_OK;
}

static const dibit_tensor *input(const dbt_cpu_call *call, uint32_t i) {
    return i < call->n_inputs ? call->in[i] : NULL;
}

static float *output(const dbt_cpu_call *call, uint32_t i) {
    return i < call->n_outputs && call->out[i] ? call->out[i]->data : NULL;
}

static dibit_status check_indices(const dbt_cpu_call *call, const dibit_tensor *ids, int64_t limit,
                                  const char *what) {
    const int32_t *const v = ids->data;
    const int64_t n = dbt_tensor_count(ids);
    for (int64_t i = 0; i < n; i++) {
        DBT_FAIL_IF(v[i] < 0 || v[i] >= limit, call->error, DIBIT_OUT_OF_RANGE,
                    "%s[%lld] is %d, outside [0, %lld)", what, (long long)i, (int)v[i],
                    (long long)limit);
    }
    return DIBIT_OK;
}

static dibit_status set_indexed(const dbt_cpu_call *call, uint32_t table, uint32_t ids,
                                const char *what, dbt_norm_term *term) {
    const dibit_tensor *const t = call->in[table], *const i = call->in[ids];
    DBT_TRY(check_indices(call, i, t->dims[0], what));
    *term = (dbt_norm_term){t->data, i->data, t->dims[0], dbt_tensor_count(i)};
    return DIBIT_OK;
}

dibit_status dbt_norm_embed_check(const dbt_node *node, const dibit_tensor *const *in,
                                  dibit_error *error) {
    const dibit_tensor *const ids = in[IDS], *const position = in[POSITION];
    const dibit_tensor *const segments = SEGMENT < node->n_inputs ? in[SEGMENT_IDS] : NULL;
    const dibit_tensor *const mask = MASK < node->n_inputs ? in[MASK] : NULL;
    const dibit_tensor *const positions = POSITION_IDS < node->n_inputs ? in[POSITION_IDS] : NULL;
    const int64_t sequence = ids->dims[1], hidden = in[WORD]->dims[1];
    const bool fits =
        position->dims[1] == hidden && dbt_tensor_count(in[GAMMA]) == hidden &&
        dbt_tensor_count(in[BETA]) == hidden &&
        (!segments ||
         (dbt_tensor_count(segments) == dbt_tensor_count(ids) && in[SEGMENT]->dims[1] == hidden)) &&
        (!mask || (mask->dims[0] == ids->dims[0] && mask->dims[1] == sequence)) &&
        (!positions || (positions->dims[1] == sequence &&
                        (positions->dims[0] == 1 || positions->dims[0] == ids->dims[0])));
    DBT_FAIL_IF(!fits, error, DIBIT_BAD_INPUT, "the inputs' shapes do not fit each other");
    DBT_FAIL_IF(!positions && sequence > position->dims[0], error, DIBIT_OUT_OF_RANGE,
                "there are position embeddings for %lld positions, not for %lld",
                (long long)position->dims[0], (long long)sequence);
    return DIBIT_OK;
}

static dibit_status make_job(const dbt_cpu_call *call, dbt_norm_rows *job) {
    const dbt_norm_attrs *const attrs = call->attrs;
    const dibit_tensor *const ids = call->in[IDS], *const position = call->in[POSITION];
    const dibit_tensor *const segments = input(call, SEGMENT_IDS);
    const dibit_tensor *const positions = input(call, POSITION_IDS);
    const int64_t sequence = ids->dims[1], hidden = call->in[WORD]->dims[1];
    DBT_TRY(dbt_norm_embed_check(call->node, call->in, call->error));
    memset(job, 0, sizeof *job);
    job->rows = dbt_tensor_count(ids);
    job->n = hidden;
    DBT_TRY(set_indexed(call, WORD, IDS, "input_ids", &job->term[0]));
    if (positions) {
        DBT_TRY(set_indexed(call, POSITION, POSITION_IDS, "position_ids", &job->term[1]));
    } else {
        job->term[1] = (dbt_norm_term){position->data, NULL, sequence, 0};
    }
    if (segments) DBT_TRY(set_indexed(call, SEGMENT, SEGMENT_IDS, "segment_ids", &job->term[2]));
    job->gain = call->in[GAMMA]->data;
    job->shift = call->in[BETA]->data;
    job->gain_n = job->shift_n = hidden;
    job->epsilon = attrs->epsilon;
    job->centred = true;
    job->y = output(call, 0);
    job->sum = output(call, 2);
    DBT_FAIL_IF(!job->y && !job->sum, call->error, DIBIT_BAD_FILE, "output 0 is missing");
    return DIBIT_OK;
}

dibit_status dbt_norm_embed_run(const dbt_cpu_call *call) {
    dbt_norm_rows job;
    DBT_TRY(make_job(call, &job));
    dbt_norm_run_rows(&job, call->pool);
    if (call->n_outputs < 2 || !call->out[1]) return DIBIT_OK;
    /* The number of ones in each row of the mask; 0 without a mask. */
    const dibit_tensor *const mask = input(call, MASK);
    int32_t *const index = call->out[1]->data;
    for (int64_t b = 0; b < call->in[IDS]->dims[0]; b++) {
        index[b] = 0;
        if (!mask) continue;
        const int32_t *const row = (const int32_t *)mask->data + b * mask->dims[1];
        for (int64_t i = 0; i < mask->dims[1]; i++) index[b] += row[i] == 1;
    }
    return DIBIT_OK;
}

dibit_status dbt_norm_embed_bound(const dbt_cpu_call *call, float *const *bound) {
    dbt_norm_rows job;
    DBT_TRY(make_job(call, &job));
    float *const which[4] = {bound[0], NULL, NULL, call->n_outputs > 2 ? bound[2] : NULL};
    dbt_norm_bound_rows(&job, which);
    return DIBIT_OK;
}

/* See attention_kv.h. */
#include "ops/attention_core/attention_kv.h"

#include <string.h>

static const dibit_tensor *past_of(const dbt_cpu_call *call, const dbt_kv_desc *d) {
    const dibit_tensor *const t = d->past < call->n_inputs ? call->in[d->past] : NULL;
    return t && t->rank == 4 ? t : NULL;
}
static const dibit_tensor *present_of(const dbt_cpu_call *call, const dbt_kv_desc *d) {
    const dibit_tensor *const t = d->present < call->n_outputs ? call->out[d->present] : NULL;
    return t && t->rank == 4 ? t : NULL;
}
static const dbt_state_row *state_of(const dbt_cpu_call *call, const dbt_kv_desc *d) {
    return call->states ? call->states[d->state] : NULL;
}

dibit_type dbt_kv_type(const dbt_cpu_call *call, const dbt_kv_desc *d) {
    const dibit_tensor *const present = present_of(call, d);
    const dbt_state_row *const state = state_of(call, d);
    if (!state) return present ? present->type : DIBIT_TYPE_FLOAT;
    if (present && d->batch > 0 && present->data == state[0].data) return present->type;
    const dbt_node *const node = call->node;
    return d->past < node->n_inputs && node->inputs[d->past] ? node->inputs[d->past]->type
                                                             : node->outputs[d->present]->type;
}

uint64_t dbt_kv_scratch(const dbt_cpu_call *call, const dbt_kv_desc *d) {
    if (state_of(call, d)) return 0;
    uint64_t offset = 0;
    dbt_scratch_add(&offset, (uint64_t)d->batch, sizeof(dbt_state_row));
    if (present_of(call, d)) return offset;
    const dibit_tensor *const past = past_of(call, d);
    const int64_t capacity = (past ? past->dims[2] : 0) + d->appended;
    dbt_scratch_add(&offset, dbt_scratch_product(d->batch, d->heads, capacity, d->dim),
                    sizeof(float));
    return offset;
}

/* The past input's rows, in its own type, to the front of rows of type kv->type. */
static void copy_past(const dbt_kv *kv, const dbt_kv_desc *d, const dibit_tensor *past) {
    const int64_t length = past->dims[2];
    const uint64_t from = dibit_type_bits(past->type) / 8, to = dibit_type_bits(kv->type) / 8;
    for (int64_t b = 0; b < d->batch; b++) {
        for (int64_t h = 0; h < d->heads; h++) {
            const int64_t rows = length < kv->rows[b].capacity ? length : kv->rows[b].capacity;
            const char *const src =
                (const char *)past->data + (uint64_t)((b * d->heads + h) * length * d->dim) * from;
            char *const dst =
                (char *)kv->rows[b].data + (uint64_t)(h * kv->rows[b].capacity * d->dim) * to;
            if (rows * d->dim == 0) continue;
            if (past->type == kv->type) {
                memcpy(dst, src, (size_t)((uint64_t)(rows * d->dim) * to));
            } else if (kv->type == DIBIT_TYPE_FLOAT) {
                dbt_unpack_elements(past->type, src, dst, rows * d->dim);
            } else {
                dbt_pack_elements(kv->type, src, dst, rows * d->dim);
            }
        }
    }
}

dibit_status dbt_kv_open(const dbt_cpu_call *call, const dbt_kv_desc *d, void *scratch,
                         dbt_kv *kv) {
    const dibit_tensor *const past = past_of(call, d), *const present = present_of(call, d);
    const dbt_state_row *const state = state_of(call, d);
    kv->dim = d->dim;
    kv->type = dbt_kv_type(call, d);
    if (state) {
        kv->rows = call->states[d->state];
        kv->is_output = present && d->batch > 0 && present->data == state[0].data;
        return DIBIT_OK;
    }
    uint64_t offset = 0;
    dbt_scratch_add(&offset, (uint64_t)d->batch, sizeof(dbt_state_row));
    kv->rows = scratch;
    kv->is_output = present != NULL;
    const int64_t length = past ? past->dims[2] : 0;
    const int64_t capacity = present ? present->dims[2] : length + d->appended;
    char *const data = present ? present->data : (char *)scratch + offset;
    const uint64_t row_bytes =
        (uint64_t)(d->heads * capacity * d->dim) * (dibit_type_bits(kv->type) / 8);
    for (int64_t b = 0; b < d->batch; b++) {
        kv->rows[b] =
            (dbt_state_row){data ? data + (uint64_t)b * row_bytes : NULL, length, capacity};
    }
    DBT_FAIL_IF(past && !dbt_type_in(past->type, DBT_TYPES_FLOAT), call->error, DIBIT_UNSUPPORTED,
                "quantized past keys and values are not supported");
    if (past && past->data) copy_past(kv, d, past);
    return DIBIT_OK;
}

void dbt_kv_store(const dbt_kv *kv, const dbt_attention_span *span, int64_t head, int64_t index,
                  const float *x) {
    const uint64_t bytes = dibit_type_bits(kv->type) / 8;
    char *const dst = (char *)(uintptr_t)span->data +
                      (uint64_t)(head * span->head_stride + index * span->row_stride) * bytes;
    dbt_pack_elements(kv->type, x, dst, kv->dim);
}

dibit_status dbt_kv_append(const dbt_kv *kv, int64_t b, int64_t heads, const dbt_kv_tokens *tokens,
                           float *row, dibit_error *error) {
    dbt_state_row *const state = &kv->rows[b];
    const dbt_attention_span span = dbt_kv_span(kv, b);
    DBT_FAIL_IF(tokens->n > state->capacity - state->length, error, DIBIT_CAPACITY,
                "the cache holds %lld tokens, %lld are needed", (long long)state->capacity,
                (long long)(state->length + tokens->n));
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t s = 0; s < tokens->n; s++) {
            const float *x =
                tokens->x + b * tokens->stride[0] + h * tokens->stride[1] + s * tokens->stride[2];
            if (tokens->bias) {
                for (int64_t d = 0; d < kv->dim; d++) row[d] = x[d] + tokens->bias[h * kv->dim + d];
                x = row;
            }
            dbt_kv_store(kv, &span, h, state->length + s, x);
        }
    }
    state->length += tokens->n;
    return DIBIT_OK;
}

dbt_attention_span dbt_kv_span(const dbt_kv *kv, int64_t b) {
    return (dbt_attention_span){kv->rows[b].data, kv->rows[b].capacity * kv->dim, kv->dim};
}

void dbt_kv_clear(const dbt_kv *kv, int64_t b, int64_t heads, int64_t begin) {
    const dbt_state_row *const row = &kv->rows[b];
    const uint64_t row_bytes = (uint64_t)kv->dim * (dibit_type_bits(kv->type) / 8);
    if (begin >= row->capacity) return;
    for (int64_t h = 0; h < heads; h++) {
        memset((char *)row->data + (uint64_t)(h * row->capacity + begin) * row_bytes, 0,
               (size_t)((uint64_t)(row->capacity - begin) * row_bytes));
    }
}

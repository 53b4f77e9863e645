/* See attention_kv_gpu.h. */
#include "ops/attention_core/attention_kv_gpu.h"

static const dibit_tensor *past_of(const dbt_gpu_kv *kv) {
    const uint32_t i = kv->desc.past;
    const dibit_tensor *const t = i < kv->call->n_inputs ? kv->call->in[i] : NULL;
    return t && t->rank == 4 ? t : NULL;
}

static dbt_gpu_state_row *state_of(const dbt_gpu_kv *kv) {
    dbt_gpu_state_row *const *const states = kv->call->states;
    return states && states[kv->desc.state] ? &states[kv->desc.state][kv->b] : NULL;
}

/* As the model declares it; rows that nobody keeps are as the past is, or float. */
static dibit_type type_of(const dbt_gpu_kv *kv) {
    const dbt_node *const node = kv->call->node;
    const uint32_t past = kv->desc.past, present = kv->desc.present;
    if (past < node->n_inputs && node->inputs[past]) return node->inputs[past]->type;
    return state_of(kv) ? node->outputs[present]->type : DIBIT_TYPE_FLOAT;
}

static uint64_t element_bytes(const dbt_gpu_kv *kv) { return dibit_type_bits(kv->type) / 8; }
static uint64_t row_bytes(const dbt_gpu_kv *kv) {
    return (uint64_t)kv->desc.dim * element_bytes(kv);
}

dibit_status dbt_gpu_kv_open(const dbt_gpu_call *c, const dbt_kv_desc *desc, int64_t b,
                             dbt_gpu_kv *kv) {
    *kv = (dbt_gpu_kv){.call = c, .desc = *desc, .b = b};
    kv->type = type_of(kv);
    DBT_FAIL_IF(kv->type == DIBIT_TYPE_FLOAT16 && desc->dim % 2 != 0, c->error, DIBIT_UNSUPPORTED,
                "float16 keys or values of %lld elements, an odd number", (long long)desc->dim);
    const dbt_gpu_state_row *const state = state_of(kv);
    if (state) {
        kv->row = *state;
        kv->is_output = desc->present < c->n_outputs && c->out_buffers[desc->present] &&
                        c->out_buffers[desc->present] == state->buffer;
        return DIBIT_OK;
    }
    kv->in_scratch = true;
    kv->row.length = past_of(kv) ? past_of(kv)->dims[2] : 0;
    kv->row.capacity = kv->row.length + desc->appended;
    const uint64_t bytes = (uint64_t)(desc->heads * kv->row.capacity) * row_bytes(kv);
    return dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_K + desc->state, bytes, &kv->row.buffer,
                           c->error);
}

dibit_status dbt_gpu_kv_fill(const dbt_gpu_kv *kv) {
    if (!kv->in_scratch || !past_of(kv) || !kv->call->in_buffers[kv->desc.past]) return DIBIT_OK;
    const uint64_t head = (uint64_t)(kv->row.length * kv->desc.dim);
    const dbt_gpu_rows past = {.buffer = kv->call->in_buffers[kv->desc.past],
                               .base = (uint64_t)(kv->b * kv->desc.heads) * head,
                               .head = head};
    const dbt_gpu_rows front = dbt_gpu_kv_rows(kv, 0);
    return dbt_gpu_kv_copy(kv, &past, &front, kv->row.length);
}

dbt_gpu_rows dbt_gpu_kv_rows(const dbt_gpu_kv *kv, int64_t first) {
    const uint64_t dim = (uint64_t)kv->desc.dim;
    return (dbt_gpu_rows){.buffer = kv->row.buffer,
                          .base = kv->row.base + (uint64_t)first * dim,
                          .head = (uint64_t)kv->row.capacity * dim,
                          .token = dim};
}

dibit_status dbt_gpu_kv_copy(const dbt_gpu_kv *kv, const dbt_gpu_rows *from, const dbt_gpu_rows *to,
                             int64_t n) {
    const uint64_t size = element_bytes(kv), bytes = (uint64_t)n * row_bytes(kv);
    for (uint64_t h = 0; h < (uint64_t)kv->desc.heads && bytes > 0; h++) {
        DBT_TRY(dbt_gpu_copy(kv->call->gpu, from->buffer, (from->base + h * from->head) * size,
                             to->buffer, (to->base + h * to->head) * size, bytes, kv->call->error));
    }
    return DIBIT_OK;
}

dibit_status dbt_gpu_kv_drop(const dbt_gpu_kv *kv, int64_t drop, int64_t keep) {
    const dbt_gpu_call *const c = kv->call;
    if (drop == 0 || keep == 0) return DIBIT_OK;
    /* All rows move up, the last ones of a head to the end of the head before, where nothing counts. */
    const uint64_t rows = (uint64_t)(kv->desc.heads * kv->row.capacity - drop);
    const uint64_t bytes = rows * row_bytes(kv), at = kv->row.base * element_bytes(kv);
    dbt_hal_buffer *moved;
    DBT_TRY(dbt_gpu_scratch(c->gpu, DBT_ATTENTION_SCRATCH_MOVE, bytes, &moved, c->error));
    DBT_TRY(dbt_gpu_copy(c->gpu, kv->row.buffer, at + (uint64_t)drop * row_bytes(kv), moved, 0,
                         bytes, c->error));
    return dbt_gpu_copy(c->gpu, moved, 0, kv->row.buffer, at, bytes, c->error);
}

void dbt_gpu_kv_set_length(const dbt_gpu_kv *kv, int64_t length) {
    dbt_gpu_state_row *const state = state_of(kv);
    if (state) state->length = length;
}

const char *dbt_gpu_kv_refuses(const dbt_node *node, const dbt_hal *hal) {
    dibit_type rows = DIBIT_TYPE_UNDEFINED;
    for (uint32_t s = 0; s < node->op->n_states; s++) {
        const uint32_t in = node->op->states[s].past, out = node->op->states[s].present;
        const dbt_value *const past = in < node->n_inputs ? node->inputs[in] : NULL;
        const dbt_value *const present = out < node->n_outputs ? node->outputs[out] : NULL;
        const dibit_type type = past ? past->type : present ? present->type : DIBIT_TYPE_FLOAT;
        if (type != DIBIT_TYPE_FLOAT && type != DIBIT_TYPE_FLOAT16) {
            return "keys and values that are neither float nor float16";
        }
        if (rows != DIBIT_TYPE_UNDEFINED && type != rows) return "keys unlike values";
        rows = type;
    }
    return hal->limits.max_bindings < 8 ? "fewer than 8 buffers in a dispatch" : NULL;
}

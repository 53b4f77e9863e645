/* Runs one op on the CPU: states, scratch, the kernel, and the noise that tests ask for. */
#include <math.h>
#include <string.h>

#include "exec/exec.h"

/* ---- States that the caller passes as tensors ---- */

/* Copies past [B, H, P, D] to the front of present [B, H, C, D]. */
static void copy_past(const dibit_tensor *past, const dibit_tensor *present) {
    const size_t row = (size_t)present->dims[3] * (dibit_type_bits(present->type) / 8);
    const int64_t p = past->dims[2], c = present->dims[2], n = p < c ? p : c;
    if (past->data == present->data || n == 0) return;
    for (int64_t i = 0; i < present->dims[0] * present->dims[1]; i++) {
        memcpy((char *)present->data + (size_t)(i * c) * row,
               (const char *)past->data + (size_t)(i * p) * row, (size_t)n * row);
    }
}

dibit_status dbt_exec_check_past(const dibit_tensor *past, const dibit_tensor *present,
                                 dbt_state_pair pair, dibit_error *error) {
    const bool fits = past->rank == 4 && past->type == present->type &&
                      past->dims[0] == present->dims[0] && past->dims[1] == present->dims[1] &&
                      past->dims[3] == present->dims[3];
    DBT_FAIL_IF(!fits, error, DIBIT_BAD_INPUT, "input %u ('%s') does not fit output %u ('%s')",
                (unsigned)pair.past, past->name, (unsigned)pair.present, present->name);
    return DIBIT_OK;
}

/* Rows inside the present output. */
static dibit_status rows_in_present(const dbt_step *step, dbt_state_pair pair, dbt_state_row *rows,
                                    dibit_error *error) {
    const dibit_tensor *const present = step->out[pair.present];
    const dibit_tensor *const past = pair.past < step->n_inputs ? step->in[pair.past] : NULL;
    int64_t length = 0;
    if (past) {
        DBT_TRY(dbt_exec_check_past(past, present, pair, error));
        copy_past(past, present);
        length = past->dims[2] < present->dims[2] ? past->dims[2] : present->dims[2];
    }
    const size_t stride = (size_t)(present->dims[1] * present->dims[2] * present->dims[3]) *
                          (dibit_type_bits(present->type) / 8);
    for (int64_t b = 0; b < present->dims[0]; b++) {
        rows[b] =
            (dbt_state_row){(char *)present->data + (size_t)b * stride, length, present->dims[2]};
    }
    return DIBIT_OK;
}

dibit_status dbt_exec_state_batch(const dbt_exec *exec, const dbt_step *step, int64_t *batch,
                                  dibit_error *error) {
    const dbt_op *const op = step->node->op;
    *batch = 0;
    if (exec->state_rows && step->states >= 0) {
        *batch = step->in[0] && step->in[0]->rank > 0 ? step->in[0]->dims[0] : 0;
        DBT_FAIL_IF(*batch != exec->batch, error, DIBIT_BAD_INPUT,
                    "there are %lld states for a batch of %lld", (long long)exec->batch,
                    (long long)*batch);
        return DIBIT_OK;
    }
    for (uint32_t k = 0; k < op->n_states; k++) {
        const uint32_t present = op->states[k].present;
        if (present < step->n_outputs && step->out[present] && step->out[present]->rank == 4) {
            *batch = step->out[present]->dims[0];
        }
    }
    return DIBIT_OK;
}

/* Fills call->states for the step's pairs: from the session's states, or in the present outputs. */
static dibit_status find_rows(dbt_exec *exec, dbt_step *step, dbt_state_row **pairs,
                              dibit_error *error) {
    const dbt_op *const op = step->node->op;
    int64_t batch;
    DBT_TRY(dbt_exec_state_batch(exec, step, &batch, error));
    if (exec->state_rows && step->states >= 0) {
        for (uint32_t k = 0; k < op->n_states; k++) {
            pairs[k] = exec->state_rows + (step->states + (int32_t)k) * exec->batch;
        }
        return DIBIT_OK;
    }
    uint64_t bytes;
    if (!dbt_mul_u64(op->n_states * sizeof(dbt_state_row), (uint64_t)batch, &bytes) ||
        !dbt_block_reserve(&exec->present_rows, &exec->allocator, bytes)) {
        return dbt_fail_memory(error, "states", (uint64_t)batch);
    }
    for (uint32_t k = 0; k < op->n_states; k++) {
        const uint32_t present = op->states[k].present;
        if (present >= step->n_outputs || !step->out[present]) continue;
        if (step->out[present]->rank != 4 || step->out[present]->dims[0] != batch) continue;
        pairs[k] = (dbt_state_row *)exec->present_rows.data + (int64_t)k * batch;
        DBT_TRY(rows_in_present(step, op->states[k], pairs[k], error));
    }
    return DIBIT_OK;
}

/* ---- Noise: every float output moved at random within its rounding bound ---- */

static float random_sign_unit(uint64_t *state) { /* uniform in [-1, 1) */
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (float)(x * 0x2545f4914f6cdd1du >> 40) * 0x1p-23f - 1.0f;
}

/* Half a unit in the last place of what the model declares: the reference rounded there. */
static float declared_rounding(dibit_type type, float y) {
    if (type == DIBIT_TYPE_FLOAT16) return fabsf(y) * 0x1p-11f + 0x1p-25f;
    if (type == DIBIT_TYPE_BFLOAT16) return fabsf(y) * 0x1p-8f;
    return 0.0f;
}

enum { MAX_OUTPUTS = 256 };

/* Room for a float per element of each float output, behind one another in a block of the executor. */
static dibit_status reserve_bounds(dbt_exec *exec, const dbt_step *step, float **bounds,
                                   dibit_error *error) {
    uint64_t total = 0;
    for (int pass = 0; pass < 2; pass++) {
        float *at = exec->noise_block.data;
        for (uint32_t o = 0; o < step->n_outputs && o < MAX_OUTPUTS; o++) {
            const dibit_tensor *const y = step->out[o];
            if (!y || y->type != DIBIT_TYPE_FLOAT || !y->data) continue;
            const int64_t n = dbt_tensor_count(y);
            if (pass) bounds[o] = at;
            at += pass ? n : 0;
            total += (uint64_t)n + 16;
        }
        if (!pass && !dbt_block_reserve(&exec->noise_block, &exec->allocator, total * sizeof *at)) {
            return dbt_fail_memory(error, "bounds", total * sizeof *at);
        }
    }
    return DIBIT_OK;
}

static dibit_status add_noise(dbt_exec *exec, const dbt_step *step, const dbt_cpu_call *call,
                              dibit_error *error) {
    float *bounds[MAX_OUTPUTS] = {0};
    DBT_TRY(reserve_bounds(exec, step, bounds, error));
    DBT_TRY(dbt_op_cpu_bounds(call, bounds));
    for (uint32_t o = 0; o < step->n_outputs && o < MAX_OUTPUTS; o++) {
        if (!bounds[o]) continue;
        float *const y = step->out[o]->data;
        const int64_t n = dbt_tensor_count(step->out[o]);
        const dibit_type declared = step->node->outputs[o]->type;
        for (int64_t i = 0; i < n; i++) {
            if (!isfinite(y[i])) continue;
            const float moved = y[i] + (bounds[o][i] + declared_rounding(declared, y[i])) *
                                           random_sign_unit(&exec->noise);
            if (!isinf(moved)) y[i] = moved; /* a mask's -FLT_MAX stays finite */
        }
    }
    return DIBIT_OK;
}

/* ---- Bounds that are kept: how far a device may be from what the CPU made ---- */

static dibit_status keep_bounds(dbt_exec *exec, const dbt_step *step, const dbt_cpu_call *call,
                                dibit_error *error) {
    float *bounds[MAX_OUTPUTS] = {0}, *allowed[MAX_OUTPUTS] = {0};
    DBT_TRY(reserve_bounds(exec, step, bounds, error));
    for (uint32_t o = 0; o < step->n_outputs && o < MAX_OUTPUTS; o++) {
        if (!bounds[o]) continue;
        dbt_block *const block = &exec->plan->tensors[step->outputs[o]].bounds;
        const uint64_t bytes = ((uint64_t)dbt_tensor_count(step->out[o]) + 1) * sizeof(float);
        if (!dbt_block_reserve(block, &exec->allocator, bytes)) {
            return dbt_fail_memory(error, "bounds", bytes);
        }
        allowed[o] = block->data;
    }
    DBT_TRY(dbt_op_cpu_bounds(call, bounds));
    return dbt_op_device_bounds(call, bounds, allowed);
}

/* ---- Conversions ---- */

typedef struct conversion {
    const dibit_tensor *from;
    dibit_tensor *to;
    bool packs;
    bool halves_avx2;       /* to float16, by the CPU's own instruction */
    int64_t units, n_tasks; /* of UNIT elements, which are whole bytes whatever the type */
} conversion;

enum { UNIT = 64 };

static void convert_task(void *ctx, int64_t i, uint32_t thread) {
    (void)thread;
    const conversion *const c = ctx;
    const int64_t count = dbt_tensor_count(c->to);
    const int64_t begin = dbt_task_begin(c->units, c->n_tasks, i) * UNIT;
    const int64_t behind = dbt_task_begin(c->units, c->n_tasks, i + 1) * UNIT;
    const int64_t n = (behind < count ? behind : count) - begin;
    const char *const from =
        (const char *)c->from->data + begin / 8 * dibit_type_bits(c->from->type);
    char *const to = (char *)c->to->data + begin / 8 * dibit_type_bits(c->to->type);
#if DBT_X86_64
    if (c->halves_avx2) {
        dbt_pack_halves_avx2((const float *)(const void *)from, to, n);
        return;
    }
#endif
    if (c->packs) {
        dbt_pack_elements(c->to->type, from, to, n);
    } else {
        dbt_unpack_elements(c->from->type, from, to, n);
    }
}

void dbt_cpu_exec_convert(const dbt_exec *exec, const dbt_step *step) {
    conversion c = {.from = step->in[0], .to = step->out[0], .packs = step->kind == DBT_STEP_PACK};
    c.halves_avx2 =
        c.packs && c.to->type == DIBIT_TYPE_FLOAT16 && exec->plan->options.cpu.isa & DIBIT_ISA_AVX2;
    c.units = (dbt_tensor_count(c.to) + UNIT - 1) / UNIT;
    c.n_tasks = dbt_task_count(c.units, UNIT);
    dbt_parallel_for(exec->plan->options.pool, c.n_tasks, convert_task, &c);
}

/* ---- The op ---- */

static dbt_cpu_call call_of(const dbt_exec *exec, const dbt_step *step) {
    return (dbt_cpu_call){.node = step->node,
                          .attrs = step->node->attrs,
                          .n_inputs = step->n_inputs,
                          .n_outputs = step->n_outputs,
                          .in = step->in,
                          .out = step->out,
                          .prepared = step->prepared,
                          .options = &exec->plan->options.cpu,
                          .pool = exec->plan->options.pool};
}

static void prefetch_of(const void *ctx, uint32_t thread, uint32_t n_threads,
                        dbt_prefetch *prefetch) {
    const dbt_cpu_call *const call = ctx;
    call->node->op->cpu_prefetch(call, thread, n_threads, prefetch);
}

dibit_status dbt_cpu_exec_op(dbt_exec *exec, dbt_step *step, dibit_error *error) {
    const dbt_op *const op = step->node->op;
    enum { MAX_PAIRS = 8 };
    dbt_state_row *pairs[MAX_PAIRS] = {0};
    const bool has_rows = dbt_node_has_rows(step->node);
    if (has_rows) DBT_TRY(find_rows(exec, step, pairs, error));
    dbt_cpu_call call = call_of(exec, step), next;
    call.states = has_rows ? pairs : NULL;
    call.error = error;
    if (op->cpu_scratch) {
        DBT_TRY(dbt_exec_scratch(exec, op->cpu_scratch(&call), error));
        call.scratch = exec->scratch.data;
    }
    if (step->prefetched) {
        next = call_of(exec, step->prefetched);
        dbt_pool_prefetch(call.pool, prefetch_of, &next);
    }
    const dibit_status status = op->cpu_run(&call);
    dbt_pool_prefetch(call.pool, NULL, NULL);
    DBT_TRY(status);
    if (exec->plan->options.keep_bounds) DBT_TRY(keep_bounds(exec, step, &call, error));
    return exec->noise ? add_noise(exec, step, &call, error) : DIBIT_OK;
}

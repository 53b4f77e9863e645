/* See op_harness.h. One case: declared tensors -> values and a node -> infer in three ways ->
 * prepare -> run in three ways -> results. With a device (op_device.h): infer once -> prepare -> run
 * once -> run there. */
#include "op_harness.h"

#include "dbt_test.h"

#include "base/cpu.h"
#include "base/half.h"
#include "op_device.h"
#include "ops/attrs.h"

enum { CANARY_BYTES = 64 };

typedef struct harness {
    const dbt_op_case *c;
    const dbt_op *op;
    dbt_arena *arena;
    dibit_error *error;
    const void *attrs;
    uint32_t n_outputs;
    dibit_tensor stored[DBT_CASE_MAX];    /* inputs as cpu_run gets them */
    const dibit_tensor *in[DBT_CASE_MAX]; /* NULL where absent */
    const dibit_tensor *consts[DBT_CASE_MAX];
    dbt_cpu_options options;
    void *prepared;
    bool on_device;               /* the case runs on a device too */
    float *allowed[DBT_CASE_MAX]; /* how far float outputs may be from the CPU's there */
    dbt_state_row *const *rows;   /* as the first run left them */
} harness;

/* One call of infer: a node of its own, with its own dims table. */
typedef struct inference {
    dbt_dims *dims;
    dbt_value in_values[DBT_CASE_MAX], out_values[DBT_CASE_MAX];
    dbt_value *in[DBT_CASE_MAX], *out[DBT_CASE_MAX];
    dbt_node node;
} inference;

/* CONTENTS: the shapes of small integer inputs are constant, their elements are symbols. */
typedef enum inference_mode { INFER_CONSTANT, INFER_SYMBOLIC, INFER_CONTENTS } inference_mode;

static void *need(void *memory) {
    if (!memory) fail_msg("out of memory");
    return memory;
}

static bool is_wanted(const harness *h, uint32_t i) { return !(h->c->absent_outputs >> i & 1); }
static bool is_constant(const harness *h, uint32_t i) { return h->c->constants >> i & 1; }

static int64_t integer_at(const dibit_tensor *t, int64_t i) {
    switch (t->type) {
    case DIBIT_TYPE_INT8: return ((const int8_t *)t->data)[i];
    case DIBIT_TYPE_INT16: return ((const int16_t *)t->data)[i];
    case DIBIT_TYPE_INT32: return ((const int32_t *)t->data)[i];
    case DIBIT_TYPE_INT64: return ((const int64_t *)t->data)[i];
    case DIBIT_TYPE_BOOL:
    case DIBIT_TYPE_UINT8: return ((const uint8_t *)t->data)[i];
    case DIBIT_TYPE_UINT16: return ((const uint16_t *)t->data)[i];
    case DIBIT_TYPE_UINT32: return ((const uint32_t *)t->data)[i];
    case DIBIT_TYPE_UINT64: return (int64_t)((const uint64_t *)t->data)[i];
    default: fail_msg("%s is not an integer type", dibit_type_name(t->type)); return 0;
    }
}

static bool can_have_contents(const dibit_tensor *t) {
    return dbt_type_in(t->type, DBT_TYPES_INTEGER | DBT_TYPES_BOOL) &&
           dbt_tensor_count(t) <= DBT_MAX_CONTENTS;
}

/* Keys and values stay in the type that the model declares. */
static bool is_cache(const harness *h, bool present, uint32_t i) {
    for (uint32_t s = 0; s < h->op->n_states; s++) {
        if ((present ? h->op->states[s].present : h->op->states[s].past) == i) return true;
    }
    return false;
}

static dibit_tensor to_storage(const harness *h, const dibit_tensor *t, bool raw) {
    dibit_tensor s = *t;
    const int64_t n = dbt_tensor_count(t);
    if (raw) {
        assert_true(dbt_packed_bytes(t->type, (uint64_t)n, &s.bytes));
    } else {
        s.type = dbt_storage_type(t->type);
        s.bytes = (uint64_t)n * (dibit_type_bits(s.type) / 8);
    }
    s.data = need(dbt_arena_alloc_aligned(h->arena, s.bytes, 64));
    if (raw) {
        memcpy(s.data, t->data, s.bytes);
    } else if (n > 0) {
        dbt_unpack_elements(t->type, t->data, s.data, n);
    }
    return s;
}

/* ---- Inference ----------------------------------------------------------------------------- */

static void set_contents(const harness *h, inference *f, uint32_t i, bool symbols) {
    const dibit_tensor *const t = h->in[i];
    const int64_t n = dbt_tensor_count(t);
    dbt_dim *const contents = need(dbt_arena_array(h->arena, (uint64_t)n, sizeof *contents));
    for (int64_t k = 0; k < n; k++) {
        char name[64];
        snprintf(name, sizeof name, "content_%u_%lld", (unsigned)i, (long long)k);
        contents[k] =
            symbols ? dbt_dim_number(f->dims, name) : dbt_dim_const(f->dims, integer_at(t, k));
    }
    f->in_values[i].contents = contents;
}

static void make_input(const harness *h, inference *f, uint32_t i, inference_mode mode) {
    const dibit_tensor *const t = &h->c->inputs[i];
    dbt_value *const v = &f->in_values[i];
    f->in[i] = v;
    v->name = t->name ? t->name : "input";
    v->id = i;
    v->type = t->type;
    v->shape.rank = t->rank;
    const bool constant = is_constant(h, i) || mode == INFER_CONSTANT;
    const bool contents = can_have_contents(h->in[i]) && (constant || mode == INFER_CONTENTS);
    for (int32_t d = 0; d < t->rank; d++) {
        char name[64];
        snprintf(name, sizeof name, "dim_%u_%d", (unsigned)i, (int)d);
        v->shape.dims[d] = constant || contents ? dbt_dim_const(f->dims, t->dims[d])
                                                : dbt_dim_symbol(f->dims, name);
    }
    if (contents) set_contents(h, f, i, !constant);
    if (!is_constant(h, i)) {
        v->is_input = true;
        return;
    }
    dbt_constant *const k = need(dbt_arena_alloc(h->arena, sizeof *k));
    *k = (dbt_constant){.name = v->name,
                        .type = t->type,
                        .rank = t->rank,
                        .data = t->data,
                        .count = dbt_tensor_count(t)};
    memcpy(k->dims, t->dims, sizeof k->dims);
    assert_true(dbt_packed_bytes(t->type, (uint64_t)k->count, &k->bytes.bytes));
    v->constant = k;
}

/* tensors: what the inputs hold, or NULL when infer is not to know. */
static dibit_status infer_once(const harness *h, inference *f, inference_mode mode,
                               const dibit_tensor *const *tensors) {
    memset(f, 0, sizeof *f);
    f->dims = need(dbt_dims_create(h->arena));
    for (uint32_t i = 0; i < h->c->n_inputs; i++) {
        if (h->in[i]) make_input(h, f, i, mode);
    }
    f->node = (dbt_node){.name = "case",
                         .op = h->op,
                         .attrs = h->attrs,
                         .opset = h->c->opset,
                         .n_inputs = h->c->n_inputs,
                         .n_outputs = h->n_outputs,
                         .inputs = f->in,
                         .outputs = f->out};
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (!is_wanted(h, i)) continue;
        dbt_value *const v = f->out[i] = &f->out_values[i];
        *v = (dbt_value){.name = "output", .shape = {.rank = -1}, .producer = &f->node};
    }
    dbt_infer infer = {.node = &f->node,
                       .attrs = h->attrs,
                       .n_inputs = h->c->n_inputs,
                       .n_outputs = h->n_outputs,
                       .in = f->in,
                       .out = f->out,
                       .dims = f->dims,
                       .tensors = tensors,
                       .arena = h->arena,
                       .error = h->error};
    return h->op->infer(&infer);
}

/* Sets the value of every symbol that make_input made, and evaluates. */
static int64_t *evaluate(const harness *h, const inference *f) {
    int64_t *const values =
        need(dbt_arena_array(h->arena, (uint64_t)dbt_dims_count(f->dims), sizeof *values));
    dbt_dims_reset(f->dims, values);
    for (int32_t d = 0; d < dbt_dims_count(f->dims); d++) {
        const char *const name = dbt_dim_symbol_name(f->dims, d);
        unsigned i;
        long long k;
        if (name && sscanf(name, "dim_%u_%lld", &i, &k) == 2) values[d] = h->in[i]->dims[k];
        if (name && sscanf(name, "content_%u_%lld", &i, &k) == 2) {
            values[d] = integer_at(h->in[i], k);
        }
    }
    dbt_dims_evaluate(f->dims, values);
    return values;
}

static bool is_resolved(const int64_t *values, dbt_dim d) {
    return d != DBT_DIM_NONE && values[d] != DBT_DIM_UNRESOLVED;
}

/* Host values do not wrap: what is beyond an int32 cannot be compared. */
static bool is_wrapped(dibit_type type, int64_t v) {
    return type == DIBIT_TYPE_INT32 && (v < INT32_MIN || v > INT32_MAX);
}

/* What is known with symbols must agree with the outputs of the run. */
static void check_symbolic(const harness *h, inference_mode mode, const dbt_op_result *r) {
    inference *const f = need(dbt_arena_alloc(h->arena, sizeof *f));
    if (infer_once(h, f, mode, NULL)) {
        fail_msg("%s: infer with symbols fails: %s", h->op->name,
                 h->error ? h->error->text : "no sentence");
    }
    const int64_t *const values = evaluate(h, f);
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (!is_wanted(h, i)) continue;
        const dbt_value *const v = f->out[i];
        assert_int_equal(v->type, r->types[i]);
        if (v->shape.rank < 0) continue;
        assert_int_equal(v->shape.rank, r->out[i].rank);
        for (int32_t d = 0; d < v->shape.rank; d++) {
            if (is_resolved(values, v->shape.dims[d]) &&
                values[v->shape.dims[d]] != r->out[i].dims[d]) {
                fail_msg("%s: dim %d of output %u is inferred as %lld with symbols, is %lld",
                         h->op->name, (int)d, (unsigned)i, (long long)values[v->shape.dims[d]],
                         (long long)r->out[i].dims[d]);
            }
        }
        for (int64_t k = 0; v->contents && k < dbt_tensor_count(&r->out[i]); k++) {
            if (is_resolved(values, v->contents[k]) &&
                !is_wrapped(v->type, values[v->contents[k]]) &&
                values[v->contents[k]] != integer_at(&r->out[i], k)) {
                fail_msg("%s: element %lld of output %u is inferred as %lld, is %lld", h->op->name,
                         (long long)k, (unsigned)i, (long long)values[v->contents[k]],
                         (long long)integer_at(&r->out[i], k));
            }
        }
    }
}

static dibit_status infer_outputs(harness *h, inference *f, dbt_op_result *r) {
    DBT_TRY(infer_once(h, f, INFER_CONSTANT, h->in));
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (!is_wanted(h, i)) continue;
        const dbt_value *const v = f->out[i];
        if (v->shape.rank < 0) fail_msg("%s: output %u has no rank", h->op->name, (unsigned)i);
        r->types[i] = v->type;
        r->out[i] =
            (dibit_tensor){.type = is_cache(h, true, i) ? v->type : dbt_storage_type(v->type),
                           .rank = v->shape.rank};
        for (int32_t d = 0; d < v->shape.rank; d++) {
            if (!dbt_dim_is_const(f->dims, v->shape.dims[d], &r->out[i].dims[d])) {
                char text[200];
                dbt_dim_text(f->dims, v->shape.dims[d], text, sizeof text);
                fail_msg("%s: dim %d of output %u is '%s' though all inputs are known", h->op->name,
                         (int)d, (unsigned)i, text);
            }
            assert_true(r->out[i].dims[d] >= 0);
        }
        r->out[i].bytes = dbt_cpu_bytes(&r->out[i]);
    }
    return DIBIT_OK;
}

/* ---- Running ------------------------------------------------------------------------------- */

/* Memory between canaries, filled with a pattern that is a NaN and an implausible integer. */
static void *guarded(const harness *h, uint64_t bytes) {
    char *const p = need(dbt_arena_alloc_aligned(h->arena, bytes + 2 * CANARY_BYTES, 64));
    memset(p, 0xc5, CANARY_BYTES);
    memset(p + CANARY_BYTES, 0xff, bytes);
    memset(p + CANARY_BYTES + bytes, 0xc5, CANARY_BYTES);
    return p + CANARY_BYTES;
}

static void check_guards(const harness *h, const void *data, uint64_t bytes, const char *what) {
    const unsigned char *const p = data;
    for (int i = 0; i < CANARY_BYTES; i++) {
        if (p[i - CANARY_BYTES] != 0xc5) fail_msg("%s writes before its %s", h->op->name, what);
        if (p[bytes + (uint64_t)i] != 0xc5) fail_msg("%s writes past its %s", h->op->name, what);
    }
}

/* The rows of the op's states: the past copied to the front of present, as the executor does when
 * the caller passes past tensors. Outputs' data must be set. */
static dbt_state_row *const *make_states(const harness *h, const dbt_node *node,
                                         dibit_tensor *const *out) {
    if (h->op->n_states == 0) return NULL;
    if (h->op->state_kind && h->op->state_kind(node) == DBT_STATE_NONE) return NULL;
    dbt_state_row **const rows = need(dbt_arena_array(h->arena, h->op->n_states, sizeof *rows));
    for (uint32_t s = 0; s < h->op->n_states; s++) {
        const dbt_state_pair pair = h->op->states[s];
        if (pair.present >= h->n_outputs || !out[pair.present]) return NULL;
        const dibit_tensor *const present = out[pair.present];
        const dibit_tensor *const past = pair.past < h->c->n_inputs ? h->in[pair.past] : NULL;
        if (present->rank < 3) return NULL;
        const int64_t batch = present->dims[0], heads = present->dims[1];
        const int64_t capacity = present->dims[2];
        const int64_t length = past ? past->dims[2] : 0;
        const uint64_t head_bytes =
            batch * heads > 0 ? present->bytes / (uint64_t)(batch * heads) : 0;
        const uint64_t past_bytes =
            past && batch * heads > 0 ? past->bytes / (uint64_t)(batch * heads) : 0;
        rows[s] = need(dbt_arena_array(h->arena, (uint64_t)batch, sizeof **rows));
        for (int64_t b = 0; b < batch; b++) {
            char *const data = (char *)present->data + (uint64_t)(b * heads) * head_bytes;
            rows[s][b] = (dbt_state_row){data, length, capacity};
            for (int64_t k = 0; k < heads && past_bytes > 0; k++) {
                memcpy(data + (uint64_t)k * head_bytes,
                       (const char *)past->data + (uint64_t)(b * heads + k) * past_bytes,
                       past_bytes < head_bytes ? past_bytes : head_bytes);
            }
        }
    }
    return rows;
}

static dibit_status device_bounds(harness *h, const dbt_cpu_call *call) {
    float *cpu[DBT_CASE_MAX] = {0};
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (!call->out[i] || call->out[i]->type != DIBIT_TYPE_FLOAT) continue;
        const uint64_t n = (uint64_t)dbt_tensor_count(call->out[i]);
        cpu[i] = need(dbt_arena_array(h->arena, n, sizeof(float)));
        h->allowed[i] = need(dbt_arena_array(h->arena, n, sizeof(float)));
    }
    DBT_TRY(dbt_op_cpu_bounds(call, cpu));
    return dbt_op_device_bounds(call, cpu, h->allowed);
}

/* Runs into fresh outputs; in_place: output 0 begins as a copy of input 0, and is input 0. */
static dibit_status run_once(harness *h, const inference *f, dbt_pool *pool, bool in_place,
                             dbt_op_result *r) {
    dibit_tensor *out[DBT_CASE_MAX] = {0};
    const dibit_tensor *in[DBT_CASE_MAX];
    memcpy(in, h->in, sizeof in);
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (!is_wanted(h, i)) continue;
        out[i] = &r->out[i];
        out[i]->data = guarded(h, out[i]->bytes);
    }
    dibit_tensor shared;
    if (in_place) {
        shared = *h->in[0];
        memcpy(out[0]->data, shared.data, shared.bytes);
        shared.data = out[0]->data;
        in[0] = &shared;
    }
    dbt_cpu_call call = {.node = &f->node,
                         .attrs = h->attrs,
                         .n_inputs = h->c->n_inputs,
                         .n_outputs = h->n_outputs,
                         .in = in,
                         .out = out,
                         .prepared = h->prepared,
                         .options = &h->options,
                         .pool = pool,
                         .error = h->error,
                         .states = make_states(h, &f->node, out)};
    const uint64_t scratch_bytes = h->op->cpu_scratch ? h->op->cpu_scratch(&call) : 0;
    call.scratch = guarded(h, scratch_bytes);
    DBT_TRY(h->op->cpu_run(&call));
    check_guards(h, call.scratch, scratch_bytes, "scratch");
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (out[i]) check_guards(h, out[i]->data, out[i]->bytes, "output");
    }
    float *bounds[DBT_CASE_MAX] = {0};
    for (uint32_t i = 0; i < h->n_outputs && h->op->cpu_bound; i++) {
        if (out[i] && out[i]->type == DIBIT_TYPE_FLOAT) bounds[i] = guarded(h, out[i]->bytes);
    }
    if (!in_place && h->op->cpu_bound) DBT_TRY(h->op->cpu_bound(&call, bounds));
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (bounds[i]) check_guards(h, bounds[i], out[i]->bytes, "bound");
        r->bound[i] = bounds[i];
    }
    h->rows = call.states;
    return h->on_device ? device_bounds(h, &call) : DIBIT_OK;
}

static void default_bounds(const harness *h, dbt_op_result *r) {
    if (h->op->cpu_bound) return;
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (!is_wanted(h, i) || r->out[i].type != DIBIT_TYPE_FLOAT) continue;
        const int64_t n = dbt_tensor_count(&r->out[i]);
        const float *const y = r->out[i].data;
        r->bound[i] = need(dbt_arena_array(h->arena, (uint64_t)n, sizeof(float)));
        for (int64_t k = 0; k < n; k++) r->bound[i][k] = 4 * 0x1p-24f * fabsf(y[k]);
    }
}

static void check_same(const harness *h, const dbt_op_result *a, const dbt_op_result *b,
                       const char *how) {
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (!is_wanted(h, i) || a->out[i].bytes == 0) continue;
        if (memcmp(a->out[i].data, b->out[i].data, a->out[i].bytes) != 0) {
            fail_msg("%s: output %u changes %s", h->op->name, (unsigned)i, how);
        }
    }
}

static bool shares_first(const harness *h, const dbt_op_result *r) {
    if (!(h->op->flags & DBT_OP_IN_PLACE) || !is_wanted(h, 0) || h->c->n_inputs == 0 || !h->in[0]) {
        return false;
    }
    const dibit_tensor *const x = h->in[0], *const y = &r->out[0];
    return x->type == y->type && x->rank == y->rank &&
           memcmp(x->dims, y->dims, (size_t)x->rank * sizeof *x->dims) == 0;
}

static void run_on_device(const harness *h, const inference *f, const dbt_op_result *r) {
    const dibit_tensor *out[DBT_CASE_MAX] = {0};
    for (uint32_t i = 0; i < h->n_outputs; i++) {
        if (is_wanted(h, i)) out[i] = &r->out[i];
    }
    op_device_check(&(op_device_case){.node = &f->node,
                                      .attrs = h->attrs,
                                      .arena = h->arena,
                                      .n_inputs = h->c->n_inputs,
                                      .n_outputs = h->n_outputs,
                                      .in = h->in,
                                      .constants = h->c->constants,
                                      .out = out,
                                      .allowed = (const float *const *)h->allowed,
                                      .rows = (const dbt_state_row *const *)h->rows,
                                      .activations = h->c->activations});
}

static dibit_status run_all_ways(harness *h, const inference *f, dbt_op_result *r) {
    DBT_TRY(run_once(h, f, NULL, false, r));
    default_bounds(h, r);
    if (h->on_device) run_on_device(h, f, r);
    if (op_device_wanted() || h->op->flags & DBT_OP_NONDETERMINISTIC) return DIBIT_OK;
    dbt_op_result *const other = need(dbt_arena_alloc(h->arena, sizeof *other));
    *other = *r;
    dbt_pool *pool = NULL;
    assert_int_equal(dbt_pool_create(NULL, 3, &pool, h->error), DIBIT_OK);
    const dibit_status status = run_once(h, f, pool, false, other);
    dbt_pool_destroy(&pool);
    if (status) fail_msg("%s: fails with threads alone", h->op->name);
    check_same(h, r, other, "with threads");
    if (shares_first(h, r)) {
        if (run_once(h, f, NULL, true, other)) fail_msg("%s: fails in place", h->op->name);
        check_same(h, r, other, "in place");
    }
    return DIBIT_OK;
}

/* ---- The case ------------------------------------------------------------------------------ */

static dibit_status prepare(harness *h, const inference *f, dbt_op_result *r) {
    r->kernel = "";
    if (!h->op->cpu_prepare) return DIBIT_OK;
    dbt_cpu_prepare p = {.node = &f->node,
                         .attrs = h->attrs,
                         .options = &h->options,
                         .in = h->consts,
                         .arena = h->arena,
                         .kernel = "",
                         .why = "",
                         .error = h->error};
    DBT_TRY(h->op->cpu_prepare(&p));
    h->prepared = p.prepared;
    r->kernel = p.kernel;
    return DIBIT_OK;
}

static dibit_status run_case(harness *h, dbt_op_result *r) {
    const dbt_op_case *const c = h->c;
    const dbt_op *any;
    h->op = dbt_op_find(c->domain ? c->domain : "", c->name, c->opset, &any);
    if (!h->op) fail_msg("there is no op %s at opset %d", c->name, (int)c->opset);
    assert_true(c->n_inputs <= DBT_CASE_MAX && h->n_outputs <= DBT_CASE_MAX);
    DBT_TRY(dbt_attrs_parse(h->op, c->attrs, c->n_attrs, h->arena, &h->attrs, h->error));
    for (uint32_t i = 0; i < c->n_inputs; i++) {
        if (c->inputs[i].type == DIBIT_TYPE_UNDEFINED) continue;
        const bool raw =
            (is_constant(h, i) && i < 32 && (h->op->raw_inputs >> i & 1)) || is_cache(h, false, i);
        h->stored[i] = to_storage(h, &c->inputs[i], raw);
        h->in[i] = &h->stored[i];
        if (is_constant(h, i)) h->consts[i] = h->in[i];
    }
    inference *const f = need(dbt_arena_alloc(h->arena, sizeof *f));
    DBT_TRY(infer_outputs(h, f, r));
    DBT_TRY(prepare(h, f, r));
    h->on_device = op_device_wanted() && h->op->gpu_encode;
    DBT_TRY(run_all_ways(h, f, r));
    if (op_device_wanted()) return DIBIT_OK;
    check_symbolic(h, INFER_CONSTANT, r);
    check_symbolic(h, INFER_SYMBOLIC, r);
    check_symbolic(h, INFER_CONTENTS, r);
    return DIBIT_OK;
}

dibit_status dbt_op_case_run(const dbt_op_case *c, dbt_op_result *result, dibit_error *error) {
    memset(result, 0, sizeof *result);
    dbt_arena_init(&result->arena, NULL);
    harness h = {.c = c,
                 .arena = &result->arena,
                 .error = error,
                 .n_outputs = c->n_outputs ? c->n_outputs : 1,
                 .options = {dbt_cpu_isa(c->isa), c->activations}};
    const dibit_status status = run_case(&h, result);
    if (status) dbt_op_result_free(result);
    return status;
}

void dbt_op_result_free(dbt_op_result *result) { dbt_arena_free(&result->arena); }

static void expect_floats(const dbt_op_result *r, uint32_t i, const char *op, const float *want) {
    const float *const got = r->out[i].data;
    for (int64_t k = 0; k < dbt_tensor_count(&r->out[i]); k++) {
        if (got[k] == want[k] || (isnan(got[k]) && isnan(want[k]))) continue;
        if (fabsf(got[k] - want[k]) <= r->bound[i][k]) continue;
        fail_msg("%s: element %lld of output %u: expected %.9g, got %.9g (bound %.3g)", op,
                 (long long)k, (unsigned)i, (double)want[k], (double)got[k],
                 (double)r->bound[i][k]);
    }
}

void dbt_op_case_expect(const dbt_op_case *c, uint32_t i, const dibit_tensor *want) {
    dbt_op_result r;
    dibit_error error = {0};
    if (dbt_op_case_run(c, &r, &error)) fail_msg("%s: %s", c->name, error.text);
    const dibit_tensor *const got = &r.out[i];
    assert_int_equal(got->type, want->type);
    assert_int_equal(got->rank, want->rank);
    for (int32_t d = 0; d < got->rank; d++) assert_int_equal(got->dims[d], want->dims[d]);
    if (got->type == DIBIT_TYPE_FLOAT) {
        expect_floats(&r, i, c->name, want->data);
    } else if (memcmp(got->data, want->data, got->bytes) != 0) {
        for (int64_t k = 0; k < dbt_tensor_count(got); k++) {
            if (integer_at(got, k) == integer_at(want, k)) continue;
            fail_msg("%s: element %lld of output %u: expected %lld, got %lld", c->name,
                     (long long)k, (unsigned)i, (long long)integer_at(want, k),
                     (long long)integer_at(got, k));
        }
    }
    dbt_op_result_free(&r);
}

void dbt_op_case_refused(const dbt_op_case *c, dibit_status status, const char *text) {
    dbt_op_result r;
    dibit_error error = {0};
    const dibit_status got = dbt_op_case_run(c, &r, &error);
    if (got == DIBIT_OK) fail_msg("%s: accepted, expected '%s'", c->name, text);
    if (got != status || !strstr(error.text, text)) {
        fail_msg("%s: expected %s '%s', got %s '%s'", c->name, dibit_status_name(status), text,
                 dibit_status_name(got), error.text);
    }
}

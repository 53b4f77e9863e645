/* dibit_trace: finds the step that runs a node, reads what the element needs of the weights from the model and of A
 * from where the last run left it, has a device repeat the step with TRACE, and compares. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dibit/debug.h"
#include "model.h"
#include "ops/elementwise/formulas.h"
#include "ops/fused_matmul_nbits/fused_matmul_nbits.h"
#include "ops/matmul_nbits/nbits_gpu.h"
#include "ops/matmul_nbits/nbits_trace.h"
#include "ops/norm/norm.h"

struct dibit_trace {
    dibit_allocator allocator;
    dibit_session *session;
    dbt_arena arena;
    const dbt_node *node; /* of the model */
    dbt_step *step;       /* that runs it, and perhaps others */
    dbt_nbits_element e;
    uint32_t n_read;   /* inputs of the node whose bytes are here */
    float *x;          /* [K]: the row of A, before the norm that a fused step takes in */
    const float *gain; /* [K], or NULL */
    float epsilon;
    int64_t first_row; /* of the node's weights in the step's */
    dbt_nbits_gpu_trace request;
    uint32_t *words;
    uint64_t tickets[5];
    uint32_t n_tickets;
    bool recorded, done;
    float other;              /* of the epilogue */
    dbt_matmul_nbits partner; /* the row of a gate's other product; K 0: none */
    const void *partner_data[DBT_NBITS_INPUTS];
    uint32_t n_partner_read;
    dibit_trace_product *expected, *got; /* [K] */
    dibit_trace_info info;
    char text[600];
};

/* ---- The node and its step ---- */

static bool is_nbits(const dbt_node *node) {
    return strcmp(node->op->name, "MatMulNBits") == 0 ||
           strcmp(node->op->name, "FusedMatMulNBits") == 0;
}

static dibit_status find_node(dibit_trace *t, const char *name, dibit_error *error) {
    const dbt_graph *const graph = t->session->model->graph;
    uint32_t n = 0;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const dbt_node *const node = graph->nodes[i];
        if (name ? strcmp(node->name, name) != 0 : !is_nbits(node)) continue;
        DBT_FAIL_IF(!is_nbits(node), error, DIBIT_UNSUPPORTED,
                    "node '%s' is a %s, and only MatMulNBits can be traced", name, node->op->name);
        t->node = node;
        n++;
    }
    DBT_FAIL_IF(n == 0 && name, error, DIBIT_NOT_FOUND, "the model has no node '%s'", name);
    DBT_FAIL_IF(n == 0, error, DIBIT_NOT_FOUND, "the model has no MatMulNBits");
    DBT_FAIL_IF(n > 1, error, DIBIT_BAD_ARGUMENT,
                "the model has %u such nodes: name one of them, '%s' for example", (unsigned)n,
                t->node->name);
    return DIBIT_OK;
}

/* "A + B" has A and B. */
static bool has_name(const char *names, const char *name) {
    const size_t length = strlen(name);
    for (const char *at = names; (at = strstr(at, name)); at++) {
        const bool begins = at == names || (at - names >= 3 && memcmp(at - 3, " + ", 3) == 0);
        if (begins && (at[length] == '\0' || strncmp(at + length, " + ", 3) == 0)) return true;
    }
    return false;
}

static bool same_bytes(const dbt_constant *a, const dbt_constant *b) {
    if (a->bytes.source || b->bytes.source)
        return a->bytes.source == b->bytes.source && a->bytes.offset == b->bytes.offset;
    return a->data == b->data;
}

/* Where the node's weights begin among the step's, which may be a stack of several nodes'; in elements, or
 * -1. */
static int64_t find_weights(const dibit_trace *t, const dbt_step *step) {
    const dbt_constant *const mine = t->node->inputs[DBT_NBITS_B]->constant;
    const dbt_constant *const all = step->node->inputs[DBT_NBITS_B]->constant;
    if (!mine || !all) return -1;
    for (uint32_t i = 0; i < all->n_parts; i++) {
        if (same_bytes(all->parts[i].constant, mine)) return all->parts[i].begin;
    }
    return !all->parts && same_bytes(all, mine) ? 0 : -1;
}

static dibit_status find_step(dibit_trace *t, dibit_error *error) {
    const dbt_plan *const plan = t->session->plan;
    for (int32_t i = 0; i < plan->n_steps && !t->step; i++) {
        dbt_step *const step = &plan->steps[i];
        if (step->kind != DBT_STEP_OP || !is_nbits(step->node)) continue;
        if (find_weights(t, step) >= 0 && has_name(step->name, t->node->name)) t->step = step;
    }
    DBT_FAIL_IF(!t->step, error, DIBIT_NOT_FOUND, "no step of the session runs node '%s'",
                t->node->name);
    DBT_FAIL_IF(t->session->device->gpu && !t->step->on_device, error, DIBIT_UNSUPPORTED,
                "the CPU runs node '%s': %s", t->node->name, t->step->why);
    return DIBIT_OK;
}

static dbt_fused_gate gate_of(const dbt_node *node) {
    if (strcmp(node->op->name, "FusedMatMulNBits") != 0) return DBT_FUSED_GATE_NONE;
    return (dbt_fused_gate)((const dbt_fused_nbits_attrs *)node->attrs)->gate;
}

/* Of the step's output. */
static int64_t width_of(const dibit_trace *t) {
    return ((const dbt_nbits_attrs *)t->step->node->attrs)->N;
}

static const dbt_plan_tensor *tensor_of(const dibit_trace *t, uint32_t input) {
    return &t->session->plan->tensors[t->step->inputs[input]];
}

/* ---- The element ---- */

static dibit_status take_index(dibit_trace *t, const dibit_trace_desc *desc, dibit_error *error) {
    const dibit_tensor *const a = &tensor_of(t, DBT_NBITS_A)->t;
    dbt_matmul_nbits *const p = &t->e.p;
    const int64_t rows = dbt_tensor_count(a) / p->K;
    int64_t m = 0;
    DBT_FAIL_IF(desc->n_index != 2 && (int32_t)desc->n_index != a->rank, error, DIBIT_BAD_ARGUMENT,
                "an index of node '%s' is row and column, or has %d numbers, got %u", t->node->name,
                (int)a->rank, (unsigned)desc->n_index);
    const int64_t n = desc->index[desc->n_index - 1];
    if (desc->n_index == 2 && a->rank != 2) {
        m = desc->index[0];
    } else {
        for (uint32_t i = 0; i + 1 < desc->n_index; i++) {
            DBT_FAIL_IF(desc->index[i] < 0 || desc->index[i] >= a->dims[i], error,
                        DIBIT_OUT_OF_RANGE, "index %u must be 0 to %" PRId64 ", got %" PRId64,
                        (unsigned)i, a->dims[i] - 1, desc->index[i]);
            m = m * a->dims[i] + desc->index[i];
        }
    }
    DBT_FAIL_IF(m < 0 || m >= rows, error, DIBIT_OUT_OF_RANGE,
                "the row must be 0 to %" PRId64 ", got %" PRId64, rows - 1, m);
    DBT_FAIL_IF(n < 0 || n >= p->N, error, DIBIT_OUT_OF_RANGE,
                "the column must be 0 to %" PRId64 ", got %" PRId64, p->N - 1, n);
    t->e.m = t->info.m = m;
    t->e.n = t->info.n = n;
    t->info.M = rows;
    return DIBIT_OK;
}

static dibit_status take_kernel(dibit_trace *t, const char *name, dibit_error *error) {
    if (!name) return DIBIT_OK;
    DBT_FAIL_IF(!t->step->on_device, error, DIBIT_BAD_ARGUMENT,
                "kernel '%s' is a device's: on the CPU the definition is traced", name);
    dbt_nbits_gpu_problem problem = {.p = t->e.p};
    problem.p.M = t->info.M;
    problem.p.N = width_of(t);
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[i];
        if (strcmp(kernel->name, name) != 0) continue;
        const char *const lacks =
            dbt_nbits_gpu_lacks(kernel, &problem, dbt_gpu_hal(t->session->device->gpu));
        DBT_FAIL_IF(lacks, error, DIBIT_UNSUPPORTED,
                    "kernel %s does not take node '%s': it lacks %s", name, t->node->name, lacks);
        t->request.kernel = kernel;
        return DIBIT_OK;
    }
    return dbt_fail(error, DIBIT_NOT_FOUND, "there is no kernel '%s'; `dibit verify` lists them",
                    name);
}

static dibit_status begin(dibit_trace *t, const dibit_trace_desc *desc, dibit_error *error) {
    const dibit_session *const session = t->session;
    DBT_FAIL_IF(!session->desc.keep_values, error, DIBIT_BAD_STATE,
                "the session was not asked to keep its values");
    DBT_FAIL_IF(session->device->desc.kind == DIBIT_DEVICE_NULL, error, DIBIT_BAD_ARGUMENT,
                "the null device computes nothing that could be traced");
    DBT_TRY(find_node(t, desc->node, error));
    DBT_TRY(find_step(t, error));
    const dbt_plan_tensor *const a = tensor_of(t, DBT_NBITS_A);
    DBT_FAIL_IF(session->running || !session->exec.refreshed || a->bytes == UINT64_MAX ||
                    !(a->on_device ? (const void *)a->buffer : a->t.data),
                error, DIBIT_BAD_STATE, "the session has not run");
    for (uint32_t i = DBT_NBITS_B; i < t->node->n_inputs && i < DBT_NBITS_INPUTS; i++) {
        DBT_FAIL_IF(t->node->inputs[i] && !t->node->inputs[i]->constant, error, DIBIT_UNSUPPORTED,
                    "input %u of node '%s' is computed at run time", (unsigned)i, t->node->name);
    }
    const char *why;
    dbt_matmul_nbits *const p = &t->e.p;
    *p = dbt_nbits_node_problem(t->node, session->plan->options.cpu.activations, &why);
    t->info = (dibit_trace_info){.node = t->node->name,
                                 .kernel = "",
                                 .bits = p->bits,
                                 .block_size = p->block_size,
                                 .K = p->K,
                                 .N = p->N,
                                 .int8_activations = p->int8_activations,
                                 .first_wrong = -1,
                                 .text = t->text};
    t->first_row = find_weights(t, t->step) / dbt_nbits_row_bytes(p);
    DBT_TRY(take_index(t, desc, error));
    DBT_TRY(take_kernel(t, desc->kernel, error));
    p->M = p->N = 1;
    t->expected = dbt_arena_array(&t->arena, (uint64_t)p->K, sizeof *t->expected);
    t->got = dbt_arena_array(&t->arena, (uint64_t)p->K, sizeof *t->got);
    t->x = dbt_arena_array(&t->arena, (uint64_t)p->K, sizeof *t->x);
    t->words = dbt_arena_alloc(&t->arena, dbt_nbits_trace_bytes(p->K));
    if (!t->expected || !t->got || !t->x || !t->words)
        return dbt_fail_memory(error, "a trace", dbt_nbits_trace_bytes(p->K));
    return DIBIT_OK;
}

/* ---- What the model has for it ---- */

/* Elements [first, first + n) of a constant in the arena, as they are in the file or as floats, with so many
 * bytes behind them if the constant has them. */
static dibit_status read_constant(dibit_trace *t, const dbt_constant *c, int64_t first, int64_t n,
                                  const void **out, dibit_error *error) {
    const uint64_t element = dibit_type_bits(c->type) / 8;
    const uint64_t bytes = (uint64_t)n * element, at = (uint64_t)first * element;
    void *const data = dbt_arena_alloc(&t->arena, bytes + 1);
    if (!data) return dbt_fail_memory(error, c->name, bytes);
    if (c->data) {
        memcpy(data, (const char *)c->data + at, (size_t)bytes);
    } else {
        DBT_TRY(dbt_source_read(c->bytes.source, c->bytes.offset + at, bytes, data, error));
    }
    *out = data;
    return DIBIT_OK;
}

static dibit_status read_floats(dibit_trace *t, const dbt_constant *c, int64_t first, int64_t n,
                                const float **out, dibit_error *error) {
    const void *data = NULL;
    DBT_TRY(read_constant(t, c, first, n, &data, error));
    float *const floats = dbt_arena_array(&t->arena, (uint64_t)n, sizeof *floats);
    if (!floats) return dbt_fail_memory(error, c->name, (uint64_t)n * 4);
    dbt_unpack_elements(c->type, data, floats, n);
    *out = floats;
    return DIBIT_OK;
}

static dibit_status read_input(dibit_trace *t, uint32_t i, dibit_error *error) {
    dbt_matmul_nbits *const p = &t->e.p;
    const dbt_constant *const c = t->node->inputs[i]->constant;
    const int64_t n = t->e.n, row = dbt_nbits_row_bytes(p);
    const void *data = NULL;
    switch (i) {
    case DBT_NBITS_B: {
        const int64_t rest = c->count - n * row;
        t->e.b_bytes = (uint64_t)(rest < row + 8 ? rest : row + 8);
        DBT_TRY(read_constant(t, c, n * row, (int64_t)t->e.b_bytes, &data, error));
        p->b = data;
        return DIBIT_OK;
    }
    case DBT_NBITS_SCALES:
        return read_constant(t, c, n * p->k_blocks, p->k_blocks, &p->scales, error);
    case DBT_NBITS_ZERO_POINTS: {
        const int64_t zero_row =
            p->zero_point_type == DIBIT_TYPE_UINT8 ? dbt_nbits_zero_row_bytes(p) : p->k_blocks;
        return read_constant(t, c, n * zero_row, zero_row, &p->zero_points, error);
    }
    case DBT_NBITS_G_IDX:
        DBT_TRY(read_constant(t, c, 0, p->K, &data, error));
        p->g_idx = data;
        return dbt_nbits_check_g_idx(t->node->attrs, data, error);
    case DBT_NBITS_BIAS: return read_floats(t, c, n, 1, &p->bias, error);
    default: return DIBIT_OK;
    }
}

/* The gain of a norm that the step takes in. */
static dibit_status read_gain(dibit_trace *t, dibit_error *error) {
    const dbt_node *const node = t->step->node;
    if (strcmp(node->op->name, "FusedMatMulNBits") != 0 || t->gain) return DIBIT_OK;
    const dbt_value *const gain = node->inputs[DBT_FUSED_GAIN];
    if (!gain) return DIBIT_OK;
    t->epsilon = ((const dbt_fused_nbits_attrs *)node->attrs)->epsilon;
    return read_floats(t, gain->constant, 0, t->e.p.K, &t->gain, error);
}

/* The part of a step's stacked input that has the row, which becomes the row of that part. */
static const dbt_constant *find_part(const dibit_trace *t, uint32_t input, int64_t row_elements,
                                     int64_t *row) {
    const dbt_value *const value = t->step->node->inputs[input];
    const dbt_constant *const all = value ? value->constant : NULL;
    for (uint32_t i = 0; all && i < all->n_parts; i++) {
        const int64_t begin = all->parts[i].begin / row_elements;
        if (*row < begin || *row >= begin + all->parts[i].constant->count / row_elements) continue;
        *row -= begin;
        return all->parts[i].constant;
    }
    return all;
}

/* The same row of the other product of a gate that the step computes with this one. */
static dibit_status read_partner(dibit_trace *t, dibit_error *error) {
    if (t->partner.K || !gate_of(t->step->node)) return DIBIT_OK;
    dbt_matmul_nbits p = t->e.p;
    const void **const data = t->partner_data;
    const int64_t zero_row =
        dbt_nbits_float_zero_points(&p) ? p.k_blocks : dbt_nbits_zero_row_bytes(&p);
    const int64_t row_elements[] = {0, dbt_nbits_row_bytes(&p), p.k_blocks, zero_row, 0, 1};
    for (; t->n_partner_read <= DBT_NBITS_BIAS; t->n_partner_read++) {
        const uint32_t i = t->n_partner_read;
        int64_t row = t->info.n + (t->first_row ? 0 : dbt_fused_second_row(width_of(t)));
        const int64_t n = row_elements[i];
        const dbt_constant *const part = n ? find_part(t, i, n, &row) : NULL;
        if (!part) continue;
        if (i == DBT_NBITS_BIAS) {
            const float *bias = NULL;
            DBT_TRY(read_floats(t, part, row, 1, &bias, error));
            data[i] = bias;
        } else {
            DBT_TRY(read_constant(t, part, row * n, n, &data[i], error));
        }
    }
    p.b = data[DBT_NBITS_B];
    p.scales = data[DBT_NBITS_SCALES];
    p.zero_points = data[DBT_NBITS_ZERO_POINTS];
    if (data[DBT_NBITS_BIAS]) p.bias = data[DBT_NBITS_BIAS];
    t->partner = p;
    return DIBIT_OK;
}

/* PENDING while bytes are on their way. */
static dibit_status read_model(dibit_trace *t, dibit_error *error) {
    for (; t->n_read < t->node->n_inputs; t->n_read++) {
        if (t->n_read == DBT_NBITS_A || !t->node->inputs[t->n_read]) continue;
        DBT_TRY(read_input(t, t->n_read, error));
    }
    DBT_TRY(read_gain(t, error));
    return read_partner(t, error);
}

/* ---- The device ---- */

static dibit_status read_back(dibit_trace *t, dbt_hal_buffer *buffer, uint64_t offset, void *dst,
                              uint64_t bytes, dibit_error *error) {
    uint64_t *const ticket = &t->tickets[t->n_tickets];
    DBT_TRY(dbt_gpu_read(t->session->device->gpu, buffer, offset, dst, bytes, ticket, error));
    t->n_tickets++;
    return DIBIT_OK;
}

static dibit_status repeat_step(dibit_trace *t, dibit_error *error) {
    dbt_nbits_gpu_trace_node(t->step->prepared, &t->request);
    const dibit_status status = dbt_gpu_exec_step(&t->session->exec, t->step, error);
    dbt_nbits_gpu_trace_node(t->step->prepared, NULL);
    DBT_TRY(status);
    DBT_FAIL_IF(!t->request.traced.y, error, DIBIT_UNSUPPORTED,
                "no dispatch of node '%s' has that element", t->node->name);
    return DIBIT_OK;
}

/* The element with the shader as it is, then with TRACE. */
static dibit_status record(dibit_trace *t, dibit_error *error) {
    dbt_gpu *const gpu = t->session->device->gpu;
    const int64_t K = t->e.p.K;
    const uint64_t bytes = dbt_nbits_trace_bytes(K);
    const struct dbt_nbits_gpu_traced *const traced = &t->request.traced;
    const int64_t row = t->first_row + t->info.n;
    const int64_t column = gate_of(t->step->node) ? t->info.n : row;
    const uint64_t y = (uint64_t)(t->info.m * width_of(t) + column) * 4;
    t->request.m = t->info.m;
    t->request.row = row;
    DBT_TRY(read_back(t, tensor_of(t, DBT_NBITS_A)->buffer, (uint64_t)(t->info.m * K) * 4, t->x,
                      (uint64_t)K * 4, error));
    DBT_TRY(repeat_step(t, error));
    DBT_TRY(read_back(t, traced->y, traced->y_offset + y, &t->info.got, 4, error));
    DBT_TRY(dbt_gpu_buffer_create(gpu, bytes, &t->request.words, error));
    memset(t->words, 0xff, (size_t)bytes);
    DBT_TRY(dbt_gpu_write(gpu, t->request.words, 0, t->words, bytes, error));
    DBT_TRY(repeat_step(t, error));
    DBT_TRY(read_back(t, traced->y, traced->y_offset + y, &t->info.traced, 4, error));
    if (traced->other) DBT_TRY(read_back(t, traced->other, y, &t->other, 4, error));
    t->info.kernel = traced->kernel->name;
    return DIBIT_OK;
}

static dibit_status wait(dibit_trace *t, dibit_error *error) {
    dbt_gpu *const gpu = t->session->device->gpu;
    while (t->n_tickets > 0) {
        const dibit_status status = dbt_gpu_poll(gpu, t->tickets[t->n_tickets - 1], error);
        if (status == DIBIT_PENDING) return status;
        t->n_tickets--;
        DBT_TRY(status);
    }
    return DIBIT_OK;
}

/* ---- Comparing ---- */

static double apply_gate(const dibit_trace *t, double h) {
    const float x = (float)h;
    return (double)(gate_of(t->step->node) == DBT_FUSED_GATE_SILU ? x * dbt_sigmoidf(x)
                                                                  : dbt_fast_gelu(x));
}

/* A product, and how far two devices may be apart in it. */
typedef struct bounded {
    double value, off;
} bounded;

static bounded multiply(const dbt_matmul_nbits *p) {
    double y, magnitude;
    dbt_matmul_nbits_ref(p, &y, &magnitude);
    return (bounded){y, 2 * dbt_nbits_gamma(p) * magnitude};
}

/* What the step makes of the element. */
static bounded finish(const dibit_trace *t, bounded sum) {
    bounded first = {(double)t->other, 0}, second = sum;
    switch (t->request.traced.epilogue) {
    case DBT_NBITS_EPILOGUE_NONE: return sum;
    case DBT_NBITS_EPILOGUE_ADD: return (bounded){sum.value + (double)t->other, sum.off};
    case DBT_NBITS_EPILOGUE_SILU:
    case DBT_NBITS_EPILOGUE_GELU_TANH: break;
    }
    if (t->request.traced.gate) { /* of both at once */
        const bounded other = multiply(&t->partner);
        first = t->first_row == 0 ? sum : other;
        second = t->first_row == 0 ? other : sum;
    }
    const double g = apply_gate(t, first.value);
    const double dg = 1.13 * first.off + 0x1p-18 * fabs(g); /* no gate is steeper */
    return (bounded){g * second.value,
                     dg * (fabs(second.value) + second.off) + fabs(g) * second.off};
}

/* The row of A that a step with a norm multiplies: the device's own elements, as far as they are as near to the
 * norm's as its rounding explains. */
static dibit_status take_norm(dibit_trace *t, dibit_error *error) {
    const int64_t K = t->e.p.K;
    float *const y = dbt_arena_array(&t->arena, (uint64_t)K, sizeof *y);
    float *const bound = dbt_arena_array(&t->arena, (uint64_t)K, sizeof *bound);
    if (!y || !bound) return dbt_fail_memory(error, "a norm", (uint64_t)K * 8);
    const dbt_norm_rows job = {.term = {{.data = t->x, .rows = 1}},
                               .rows = 1,
                               .n = K,
                               .gain = t->gain,
                               .gain_n = K,
                               .epsilon = t->epsilon,
                               .y = y};
    dbt_norm_run_rows(&job, t->session->device->pool);
    dbt_norm_bound_rows(&job, (float *const[4]){bound, NULL, NULL, NULL});
    for (int64_t k = 0; k < K; k++) {
        const float allowed = 3 * bound[k] + 0x1p-21f * fabsf(y[k]); /* of both devices */
        if (fabsf(t->got[k].a - y[k]) <= allowed) y[k] = t->got[k].a;
    }
    t->e.p.a = y;
    return DIBIT_OK;
}

/* When every product is right. */
static void judge_output(dibit_trace *t) {
    dibit_trace_info *const info = &t->info;
    const double off = fabs((double)info->got - info->expected);
    const bool both_nan = isnan(info->got) && isnan(info->expected);
    if (!(off <= info->allowed) && !both_nan && (double)info->got != info->expected) {
        info->wrong = true;
        snprintf(t->text, sizeof t->text,
                 "every product is right, and the output is %.9g, expected %.9g within %.3g: what "
                 "is wrong lies behind the unpacking, in a dot, a sum of lanes, the bias or the "
                 "store",
                 (double)info->got, info->expected, info->allowed);
    } else if (dbt_float_to_bits(info->got) != dbt_float_to_bits(info->traced) && !both_nan) {
        info->wrong = true;
        snprintf(t->text, sizeof t->text,
                 "the shader answers %.9g, and %.9g with TRACE: its compiler makes two things of "
                 "the same code",
                 (double)info->got, (double)info->traced);
    }
}

/* Adds where that is to a product's sentence. */
static void name_place(dibit_trace *t) {
    const dibit_trace_product *const want = &t->expected[t->info.first_wrong % t->e.p.K];
    const size_t n = strlen(t->text);
    snprintf(t->text + n, sizeof t->text - n,
             "; row %" PRId64 " of the weights, byte %" PRIu64 ", block %" PRId64 "; row %" PRId64
             " of A, in %s",
             t->info.n, want->address + want->shift / 8, want->block, t->info.m, t->info.kernel);
}

static dibit_status compare(dibit_trace *t, dibit_error *error) {
    const dbt_nbits_element *const e = &t->e;
    const bool gpu = t->step->on_device;
    t->e.p.a = t->x;
    const struct dbt_nbits_gpu_traced *const traced = &t->request.traced;
    if (gpu) {
        dbt_nbits_trace_read(e, t->words, traced->m_begin, traced->n_begin - t->first_row, t->got);
        if (t->gain) DBT_TRY(take_norm(t, error));
    }
    dbt_nbits_trace_ref(e, t->expected);
    t->partner.a = e->p.a;
    const bounded sum = multiply(&e->p), output = finish(t, sum);
    t->info.sum = sum.value;
    t->info.expected = output.value;
    t->info.allowed = output.off + 0x1p-22 * fabs(output.value) + 0x1p-120;
    if (!gpu) {
        memcpy(t->got, t->expected, (size_t)e->p.K * sizeof *t->got);
        t->info.traced = t->info.got;
    } else {
        t->info.first_wrong =
            dbt_nbits_trace_compare(e, t->expected, t->got, t->words, t->text, sizeof t->text);
    }
    t->info.wrong = t->info.first_wrong >= 0;
    if (t->info.wrong) {
        name_place(t);
    } else {
        judge_output(t);
    }
    return DIBIT_OK;
}

/* ---- The public calls ---- */

dibit_status dibit_trace_begin(dibit_session *session, const dibit_trace_desc *desc,
                               dibit_trace **out, dibit_error *error) {
    DBT_FAIL_IF(!session || !desc || !desc->index || !out, error, DIBIT_BAD_ARGUMENT,
                "session, desc, its index and out must not be NULL");
    const dibit_allocator allocator = session->arena->allocator;
    dibit_trace *t = dbt_alloc(&allocator, sizeof *t, 16);
    if (!t) return dbt_fail_memory(error, "a trace", sizeof *t);
    *t = (dibit_trace){.allocator = allocator, .session = session};
    dbt_arena_init(&t->arena, &t->allocator);
    const dibit_status status = begin(t, desc, error);
    if (status != DIBIT_OK) {
        dibit_trace_destroy(&t);
        return status;
    }
    *out = t;
    return DIBIT_OK;
}

dibit_status dibit_trace_poll(dibit_trace *t, dibit_error *error) {
    DBT_FAIL_IF(!t, error, DIBIT_BAD_ARGUMENT, "trace must not be NULL");
    if (t->done) return DIBIT_OK;
    if (!t->recorded) {
        DBT_TRY(read_model(t, error));
        if (t->step->on_device) {
            DBT_TRY(record(t, error));
            DBT_TRY(read_back(t, t->request.words, 0, t->words, dbt_nbits_trace_bytes(t->e.p.K),
                              error));
        } else {
            const float *const a = tensor_of(t, DBT_NBITS_A)->t.data;
            const float *const y = t->step->out[0]->data;
            memcpy(t->x, a + t->info.m * t->e.p.K, (size_t)t->e.p.K * sizeof *t->x);
            t->info.got = y[t->info.m * t->info.N + t->info.n];
        }
        t->recorded = true;
    }
    if (t->step->on_device) DBT_TRY(wait(t, error));
    DBT_TRY(compare(t, error));
    t->done = true;
    return DIBIT_OK;
}

void dibit_trace_destroy(dibit_trace **trace) {
    dibit_trace *const t = trace ? *trace : NULL;
    if (!t) return;
    dbt_gpu *const gpu = t->session->device->gpu;
    for (; gpu && t->n_tickets > 0; t->n_tickets--) {
        dbt_hal *const hal = dbt_gpu_hal(gpu);
        hal->calls->cancel(hal, t->tickets[t->n_tickets - 1]);
    }
    if (gpu) dbt_gpu_buffer_destroy(gpu, t->request.words);
    dbt_arena_free(&t->arena);
    const dibit_allocator allocator = t->allocator;
    dbt_release(&allocator, t, sizeof *t);
    *trace = NULL;
}

void dibit_trace_get_info(const dibit_trace *trace, dibit_trace_info *info) { *info = trace->info; }

dibit_status dibit_trace_get_product(const dibit_trace *trace, int64_t k,
                                     dibit_trace_product *expected, dibit_trace_product *got) {
    if (!trace->done || k < 0 || k >= trace->info.K) return DIBIT_NOT_FOUND;
    if (expected) *expected = trace->expected[k];
    if (got) *got = trace->got[k];
    return DIBIT_OK;
}

/* Small problems that prove kernels of MatMulNBits (nbits_gpu_proof.c): the activations are unit vectors, so that
 * Y is every weight by itself, and a few rows of numbers. Codes and zero points are random; up to 4 bits
 * each pair of them occurs. What Y must be comes from ref.c, and the norm and the epilogue by themselves. */
#include <assert.h>
#include <math.h>

#include "ops/matmul_nbits/nbits_gpu.h"

enum {
    N = 64,
    NUMBER_ROWS = 8, /* of A, after the unit vectors */
    SECOND_ROW = DBT_NBITS_GPU_ROW_STEP
};
static const float EPSILON = 1e-3f; /* of norms */

static uint32_t next_random(uint32_t *state) { /* xorshift32 */
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state >> 8;
}

/* Sizes that lead to the same form. Packed zero points of 8 blocks end with a byte, so that a row too long by
 * one shows, whatever their bits. */
static dbt_matmul_nbits small_problem(const dbt_nbits_gpu_problem *like) {
    dbt_matmul_nbits p = like->p;
    const bool aligned = p.k_blocks * p.block_size % 32 == 0;
    p.block_size = aligned && p.block_size >= 32 ? 32 : 16;
    const int64_t blocks = p.zero_point_type == DIBIT_TYPE_UINT8 ? 8 : 64 / p.block_size;
    const int64_t past = p.K % 4 != 0 ? 3 : aligned && p.K % 32 != 0 ? 4 : 0;
    p.K = (aligned ? blocks * p.block_size : 48) - past;
    p.k_blocks = (p.K + p.block_size - 1) / p.block_size;
    p.N = N;
    p.M = p.K + NUMBER_ROWS;
    return p;
}

static void fill_bytes(uint8_t *bytes, uint64_t n, uint32_t *state) {
    for (uint64_t i = 0; i < n; i++) bytes[i] = (uint8_t)next_random(state);
}

static void store_float(void *at, dibit_type type, int64_t i, float v) {
    const uint16_t half =
        type == DIBIT_TYPE_FLOAT16 ? dbt_float_to_half(v) : dbt_float_to_bfloat16(v);
    if (type == DIBIT_TYPE_FLOAT) {
        memcpy((float *)at + i, &v, sizeof v);
    } else {
        memcpy((uint16_t *)at + i, &half, sizeof half);
    }
}

/* Element k of a row of numbers. In float a small integer, whose products are exact. With int8 activations any
 * number in one block of the row, whose rounding is what is looked at; but what a norm makes of it may be
 * off in its last bits, so there it is at least a quarter of a code away from where codes change. */
static float number(const dbt_matmul_nbits *p, const float *gain, int64_t m, int64_t k,
                    uint32_t random) {
    if (!p->int8_activations) return (float)(random % 9) - 4.0f;
    if (!gain) {
        const bool here = k / p->block_size == m % p->k_blocks;
        return here ? (float)(random & 0xfff) * 0x1p-11f - 1.0f : 0.0f;
    }
    if (k % p->block_size == m % 8) return 127.0f / gain[k];
    return ((float)(random % 253) - 126.0f + ((float)(random >> 12 & 1) - 0.5f) * 0.5f) / gain[k];
}

/* Unit vectors, with int8 activations of 127 / 128: then the scale is a power of two and q is 127. Then rows of
 * numbers. */
static void fill_a(const dbt_matmul_nbits *p, const float *gain, float *a, uint32_t *state) {
    for (int64_t k = 0; k < p->K; k++)
        a[k * p->K + k] = p->int8_activations ? 127.0f / 128.0f : 1.0f;
    for (int64_t m = p->K; m < p->M; m++) {
        for (int64_t k = 0; k < p->K; k++)
            a[m * p->K + k] = number(p, gain, m, k, next_random(state));
    }
}

/* Powers of two, so that scaling by them is exact. */
static float some_scale(uint32_t *state) {
    static const float some[4] = {1.0f, -2.0f, 0.5f, -0.25f};
    return some[next_random(state) % 4];
}

/* Rows of B and what belongs to them: of both products, if there are two. */
static int64_t rows_of(const dbt_nbits_gpu_problem *problem) {
    return problem->second_row ? SECOND_ROW + N : N;
}

static bool fill_weights(const dbt_nbits_gpu_problem *like, dbt_arena *arena, uint32_t *state,
                         dbt_matmul_nbits *p) {
    const int64_t rows = rows_of(like), n_scales = rows * p->k_blocks;
    const uint64_t b_bytes = (uint64_t)(rows * dbt_nbits_row_bytes(p));
    const uint64_t zero_bytes = (uint64_t)(rows * dbt_nbits_zero_row_bytes(p));
    uint8_t *const b = dbt_arena_alloc(arena, b_bytes + 4);
    void *const scales = dbt_arena_array(arena, (uint64_t)n_scales + 1, sizeof(float));
    void *const zero_points =
        dbt_arena_alloc(arena, zero_bytes + (uint64_t)(n_scales + 1) * sizeof(float));
    float *const bias = dbt_arena_array(arena, (uint64_t)rows, sizeof *bias);
    int32_t *const g_idx = dbt_arena_array(arena, (uint64_t)p->K, sizeof *g_idx);
    if (!b || !scales || !zero_points || !bias || !g_idx) return false;
    /* A gate shows what is in it where it is about 1. */
    const float size = like->second_row ? 1.0f / (float)(1u << p->bits) : 1.0f;
    fill_bytes(b, b_bytes, state);
    fill_bytes(zero_points, zero_bytes, state);
    for (int64_t i = 0; i < n_scales; i++) {
        store_float(scales, p->scale_type, i, size * some_scale(state));
        if (!dbt_nbits_float_zero_points(p)) continue;
        const float zero_point = 0.5f * (float)(next_random(state) & ((1u << p->bits) - 1));
        store_float(zero_points, p->zero_point_type, i, zero_point);
    }
    for (int64_t n = 0; n < rows; n++)
        bias[n] = ((float)(next_random(state) % 19) - 9.0f) * (like->second_row ? 0.125f : 1.0f);
    for (int64_t k = 0; k < p->K; k++) g_idx[k] = (int32_t)(next_random(state) % p->k_blocks);
    p->b = b;
    p->scales = scales;
    p->zero_points = p->zero_point_type != DIBIT_TYPE_UNDEFINED ? zero_points : NULL;
    p->bias = like->bias ? bias : NULL;
    p->g_idx = like->g_idx ? g_idx : NULL;
    return true;
}

static bool fill(const dbt_nbits_gpu_problem *like, dbt_arena *arena, dbt_nbits_trial *t) {
    dbt_matmul_nbits *const p = &t->problem.p;
    uint32_t state = 20240229;
    float *const a = dbt_arena_array(arena, (uint64_t)(p->M * p->K), sizeof *a);
    float *const gain = dbt_arena_array(arena, (uint64_t)p->K, sizeof *gain);
    float *const other = dbt_arena_array(arena, (uint64_t)(p->M * N), sizeof *other);
    if (!a || !gain || !other) return false;
    for (int64_t k = 0; k < p->K; k++) gain[k] = some_scale(&state);
    for (int64_t i = 0; i < p->M * N; i++) other[i] = (float)(next_random(&state) % 9) - 4.0f;
    t->gain = like->gain ? gain : NULL;
    t->other = like->other ? other : NULL;
    fill_a(p, t->gain, a, &state);
    p->a = a;
    return fill_weights(like, arena, &state, p);
}

/* ---- What Y must be ---- */

static void norm_rows(const dbt_matmul_nbits *p, const float *gain, float *x) {
    for (int64_t m = 0; m < p->M; m++) {
        const float *const a = p->a + m * p->K;
        double square = 0;
        for (int64_t k = 0; k < p->K; k++) square += (double)a[k] * (double)a[k];
        const double inverse = 1 / sqrt(square / (double)p->K + (double)EPSILON);
        for (int64_t k = 0; k < p->K; k++)
            x[m * p->K + k] = (float)((double)a[k] * inverse * (double)gain[k]);
    }
}

static double gate_of(dbt_nbits_epilogue epilogue, double h) {
    if (epilogue == DBT_NBITS_EPILOGUE_SILU) return h / (1 + exp(-h));
    return 0.5 * h * (1 + tanh(0.7978845608028654 * (h + 0.044715 * h * h * h)));
}

/* How far a product y may be off, whose terms' magnitudes add up to s. Unit vectors and integers are exact; with
 * int8 activations a row of numbers is the product of a scale and an integer, then with the bias, each rounded
 * once; normed rows are off in their last bits. */
static double product_tolerance(const dbt_nbits_trial *t, const dbt_matmul_nbits *p, int64_t i,
                                double y, double s) {
    if (t->gain) return (2 * dbt_nbits_gamma(p) + 0x1p-18) * s;
    if (!p->int8_activations || i / N < p->K) return 0;
    return 0x1p-22 * (fabs(y) + (p->bias ? fabs((double)p->bias[i % N]) : 0));
}

/* A value and how far it may be off. */
typedef struct result {
    double y, off;
} result;

/* gate(h) * v. Where h is negative, what is left of 1 + tanh is off by an ulp of 1; no gate is steeper than 1.13. */
static result gated(dbt_nbits_epilogue epilogue, result h, result v) {
    const double gate = gate_of(epilogue, h.y);
    const double gate_off = 0x1p-17 * fabs(gate) + 0x1p-21 * fabs(h.y) + 1.13 * h.off;
    return (result){gate * v.y, gate_off * (fabs(v.y) + v.off) + fabs(gate) * v.off};
}

static result end_product(const dbt_nbits_trial *t, int64_t i, result v) {
    if (!t->other) return v;
    const double other = (double)t->other[i];
    if (t->problem.epilogue != DBT_NBITS_EPILOGUE_ADD)
        return gated(t->problem.epilogue, (result){other, 0}, v);
    if (v.off > 0) v.off += 0x1p-22 * (fabs(v.y) + fabs(other));
    return (result){v.y + other, v.off};
}

/* The product of x with B from that row on. */
static void multiply(const dbt_nbits_trial *t, const float *x, int64_t row, result *out,
                     double *scratch) {
    dbt_matmul_nbits p = t->problem.p;
    const int64_t count = p.M * N;
    p.a = x;
    p.b += row * dbt_nbits_row_bytes(&p);
    p.scales = (const uint8_t *)p.scales + row * dbt_nbits_scale_row_bytes(&p);
    if (p.zero_points)
        p.zero_points = (const uint8_t *)p.zero_points + row * dbt_nbits_zero_point_row_bytes(&p);
    if (p.bias) p.bias += row;
    dbt_matmul_nbits_ref(&p, scratch, scratch + count);
    for (int64_t i = 0; i < count; i++)
        out[i] = (result){scratch[i], product_tolerance(t, &p, i, scratch[i], scratch[count + i])};
}

static bool expect(dbt_nbits_trial *t, dbt_arena *arena) {
    const dbt_matmul_nbits *const p = &t->problem.p;
    const uint64_t count = (uint64_t)(p->M * N);
    double *const scratch = dbt_arena_array(arena, 2 * count, sizeof *scratch);
    result *const first = dbt_arena_array(arena, 2 * count, sizeof *first);
    result *const second = first + count;
    float *const x = dbt_arena_array(arena, (uint64_t)(p->M * p->K), sizeof *x);
    t->want = dbt_arena_array(arena, count, sizeof *t->want);
    t->tolerance = dbt_arena_array(arena, count, sizeof *t->tolerance);
    if (!scratch || !first || !x || !t->want || !t->tolerance) return false;
    if (t->gain) norm_rows(p, t->gain, x);
    multiply(t, t->gain ? x : p->a, 0, first, scratch);
    if (t->problem.second_row) multiply(t, t->gain ? x : p->a, SECOND_ROW, second, scratch);
    for (uint64_t i = 0; i < count; i++) {
        const result y = t->problem.second_row ? gated(t->problem.epilogue, first[i], second[i])
                                               : end_product(t, (int64_t)i, first[i]);
        t->want[i] = (float)y.y;
        t->tolerance[i] = (float)y.off;
    }
    return true;
}

dibit_status dbt_nbits_trial_make(const dbt_nbits_gpu_problem *like, dbt_arena *arena,
                                  dbt_nbits_trial *out, dibit_error *error) {
    *out = (dbt_nbits_trial){.problem = {.p = small_problem(like),
                                         .epsilon = EPSILON,
                                         .epilogue = like->epilogue,
                                         .second_row = like->second_row ? SECOND_ROW : 0}};
    assert((uint64_t)(out->problem.p.M * N) * 4 <= DBT_NBITS_TRIAL_Y_BYTES);
    if (!fill(like, arena, out) || !expect(out, arena))
        return dbt_fail_memory(error, "a proof of kernels", DBT_NBITS_TRIAL_Y_BYTES);
    return DIBIT_OK;
}

bool dbt_nbits_trial_is_right(const dbt_nbits_trial *trial, const float *y) {
    const int64_t count = trial->problem.p.M * N;
    for (int64_t i = 0; i < count; i++) {
        if (!(fabsf(y[i] - trial->want[i]) <= trial->tolerance[i])) return false;
    }
    return true;
}

/* ---- On the device ---- */

static dibit_status upload(dbt_gpu *gpu, const void *data, int64_t bytes, dbt_hal_buffer **out,
                           dibit_error *error) {
    if (!data) return DIBIT_OK;
    const uint64_t padded = ((uint64_t)bytes + 3) / 4 * 4;
    DBT_TRY(dbt_gpu_buffer_create(gpu, padded, out, error));
    return dbt_gpu_write(gpu, *out, 0, data, padded, error);
}

dibit_status dbt_nbits_trial_upload(dbt_nbits_trial *trial, dbt_gpu *gpu, dibit_error *error) {
    dbt_nbits_gpu_problem *const problem = &trial->problem;
    const dbt_matmul_nbits *const p = &problem->p;
    const int64_t rows = rows_of(problem);
    DBT_TRY(upload(gpu, p->a, p->M * p->K * 4, &problem->a, error));
    DBT_TRY(upload(gpu, p->b, rows * dbt_nbits_row_bytes(p), &problem->b, error));
    DBT_TRY(upload(gpu, p->scales, rows * dbt_nbits_scale_row_bytes(p), &problem->scales, error));
    DBT_TRY(upload(gpu, p->zero_points, rows * dbt_nbits_zero_point_row_bytes(p),
                   &problem->zero_points, error));
    DBT_TRY(upload(gpu, p->bias, rows * 4, &problem->bias, error));
    DBT_TRY(upload(gpu, p->g_idx, p->K * 4, &problem->g_idx, error));
    DBT_TRY(upload(gpu, trial->gain, p->K * 4, &problem->gain, error));
    return upload(gpu, trial->other, p->M * N * 4, &problem->other, error);
}

void dbt_nbits_trial_free(dbt_nbits_trial *trial, dbt_gpu *gpu) {
    const dbt_nbits_gpu_problem *const problem = &trial->problem;
    dbt_hal_buffer *const buffers[] = {problem->a,           problem->b,    problem->scales,
                                       problem->zero_points, problem->bias, problem->g_idx,
                                       problem->gain,        problem->other};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        dbt_gpu_buffer_destroy(gpu, buffers[i]);
}

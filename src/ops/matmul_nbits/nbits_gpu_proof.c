/* Proves kernels of MatMulNBits on the device before they are used: a small problem of the same variant, whose
 * activations are unit vectors, so that Y is every weight by itself, and a few rows of numbers. Codes
 * and zero points are random; up to 4 bits each pair of them occurs. What the device answers is
 * compared with ref.c. */
#include <assert.h>
#include <math.h>

#include "ops/matmul_nbits/nbits_gpu.h"

/* ---- What is known about a device ---- */

enum { MOST_VARIANTS = 1024 };
typedef struct verdicts {
    uint32_t n;
    struct {
        uint32_t variant;
        bool right;
    } of[MOST_VARIANTS];
} verdicts;

static dibit_status verdicts_of(dbt_gpu *gpu, verdicts **out, dibit_error *error) {
    static const char key;
    void *memory = NULL;
    DBT_TRY(dbt_gpu_memory(gpu, &key, sizeof **out, &memory, error));
    *out = memory;
    return DIBIT_OK;
}

/* Whether there is a verdict on the variant, and which. */
static bool find_verdict(const verdicts *v, uint32_t variant, bool *right) {
    uint32_t i = 0;
    while (i < v->n && v->of[i].variant != variant) i++;
    if (i == v->n) return false;
    *right = v->of[i].right;
    return true;
}

static void add_verdict(verdicts *v, uint32_t variant, bool right) {
    const uint32_t i = v->n < MOST_VARIANTS ? v->n++ : variant % MOST_VARIANTS;
    v->of[i].variant = variant;
    v->of[i].right = right;
}

/* ---- The problem ---- */

enum { N = 64, NUMBER_ROWS = 8 /* of A, after the unit vectors */ };

static uint32_t next_random(uint32_t *state) { /* xorshift32 */
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state >> 8;
}

/* Sizes that lead to the same variant. */
static dbt_matmul_nbits small_problem(const dbt_nbits_gpu_problem *like) {
    dbt_matmul_nbits p = like->p;
    const bool aligned = p.k_blocks * p.block_size % 32 == 0;
    p.block_size = aligned && p.block_size >= 32 ? 32 : 16;
    p.K = (aligned ? 64 : 48) - (p.K % 4 == 0 ? 0 : 3);
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

/* Unit vectors, of 127 with int8 activations: then the scale is 1 and q is 127. Then rows of numbers: small
 * integers, whose products are exact; with int8 activations one block of any numbers in each, and its
 * rounding is what is looked at. */
static void fill_a(const dbt_matmul_nbits *p, float *a, uint32_t *state) {
    for (int64_t k = 0; k < p->K; k++) a[k * p->K + k] = p->int8_activations ? 127.0f : 1.0f;
    for (int64_t m = p->K; m < p->M; m++) {
        for (int64_t k = 0; k < p->K; k++) {
            const uint32_t random = next_random(state);
            float *const at = &a[m * p->K + k];
            if (!p->int8_activations) {
                *at = (float)(random % 9) - 4.0f;
            } else if (k / p->block_size == m % p->k_blocks) {
                *at = (float)(random & 0xfff) * 0x1p-11f - 1.0f;
            }
        }
    }
}

/* Weights, whose memory is in the arena; a, b, ... of p are set. */
static bool fill(const dbt_nbits_gpu_problem *like, dbt_matmul_nbits *p, dbt_arena *arena) {
    uint32_t state = 20240229;
    const int64_t n_scales = N * p->k_blocks;
    const uint64_t b_bytes = (uint64_t)(N * dbt_nbits_row_bytes(p));
    const uint64_t zero_bytes = (uint64_t)(N * dbt_nbits_zero_row_bytes(p));
    float *const a = dbt_arena_array(arena, (uint64_t)(p->M * p->K), sizeof *a);
    uint8_t *const b = dbt_arena_alloc(arena, b_bytes + 4);
    void *const scales = dbt_arena_array(arena, (uint64_t)n_scales + 1, sizeof(float));
    void *const zero_points =
        dbt_arena_alloc(arena, zero_bytes + (uint64_t)(n_scales + 1) * sizeof(float));
    float *const bias = dbt_arena_array(arena, N, sizeof *bias);
    int32_t *const g_idx = dbt_arena_array(arena, (uint64_t)p->K, sizeof *g_idx);
    if (!a || !b || !scales || !zero_points || !bias || !g_idx) return false;
    fill_a(p, a, &state);
    fill_bytes(b, b_bytes, &state);
    fill_bytes(zero_points, zero_bytes, &state);
    for (int64_t i = 0; i < n_scales; i++) {
        static const float some[4] = {1.0f, -2.0f, 0.5f, -0.25f};
        store_float(scales, p->scale_type, i, some[next_random(&state) % 4]);
        if (!dbt_nbits_float_zero_points(p)) continue;
        const float zero_point = 0.5f * (float)(next_random(&state) & ((1u << p->bits) - 1));
        store_float(zero_points, p->zero_point_type, i, zero_point);
    }
    for (int64_t n = 0; n < N; n++) bias[n] = (float)(next_random(&state) % 19) - 9.0f;
    for (int64_t k = 0; k < p->K; k++) g_idx[k] = (int32_t)(next_random(&state) % p->k_blocks);
    p->a = a;
    p->b = b;
    p->scales = scales;
    p->zero_points = p->zero_point_type != DIBIT_TYPE_UNDEFINED ? zero_points : NULL;
    p->bias = like->bias ? bias : NULL;
    p->g_idx = like->g_idx ? g_idx : NULL;
    return true;
}

/* ---- The proof ---- */

static dibit_status upload(dbt_gpu *gpu, const void *data, int64_t bytes, dbt_hal_buffer **out,
                           dibit_error *error) {
    if (!data) return DIBIT_OK;
    const uint64_t padded = ((uint64_t)bytes + 3) / 4 * 4;
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    DBT_TRY(dbt_gpu_buffer_create(gpu, padded, out, error));
    return hal->calls->write(hal, *out, 0, data, padded, error);
}

static dibit_status upload_problem(dbt_gpu *gpu, dbt_nbits_gpu_problem *problem, const float *y,
                                   uint64_t y_bytes, dibit_error *error) {
    const dbt_matmul_nbits *const p = &problem->p;
    const int64_t n_scales = N * p->k_blocks;
    const int64_t scale = p->scale_type == DIBIT_TYPE_FLOAT ? 4 : 2;
    int64_t zero_bytes = N * dbt_nbits_zero_row_bytes(p);
    if (dbt_nbits_float_zero_points(p))
        zero_bytes = n_scales * (p->zero_point_type == DIBIT_TYPE_FLOAT ? 4 : 2);
    DBT_TRY(upload(gpu, p->a, p->M * p->K * 4, &problem->a, error));
    DBT_TRY(upload(gpu, p->b, N * dbt_nbits_row_bytes(p), &problem->b, error));
    DBT_TRY(upload(gpu, p->scales, n_scales * scale, &problem->scales, error));
    DBT_TRY(upload(gpu, p->zero_points, zero_bytes, &problem->zero_points, error));
    DBT_TRY(upload(gpu, p->bias, N * 4, &problem->bias, error));
    DBT_TRY(upload(gpu, p->g_idx, p->K * 4, &problem->g_idx, error));
    return upload(gpu, y, (int64_t)y_bytes, &problem->y, error);
}

static uint32_t count_bits(uint64_t bits) {
    uint32_t n = 0;
    for (; bits; bits &= bits - 1) n++;
    return n;
}

/* What Y must be. Unit vectors and integers are exact; with int8 activations a row of numbers is the product of a
 * scale and an integer, then with the bias, each rounded once. */
static bool expect(dbt_nbits_gpu_proof *proof) {
    const dbt_matmul_nbits *const p = &proof->problem.p;
    const uint64_t count = (uint64_t)(p->M * N);
    double *const y = dbt_arena_array(&proof->arena, count, sizeof *y);
    proof->want = dbt_arena_array(&proof->arena, count, sizeof *proof->want);
    proof->tolerance = dbt_arena_array(&proof->arena, count, sizeof *proof->tolerance);
    if (!y || !proof->want || !proof->tolerance) return false;
    dbt_matmul_nbits_ref(p, y, NULL);
    for (uint64_t i = 0; i < count; i++) {
        const double bias = p->bias ? (double)p->bias[i % N] : 0.0;
        const bool exact = !p->int8_activations || (int64_t)(i / N) < p->K;
        proof->want[i] = (float)y[i];
        proof->tolerance[i] = exact ? 0.0f : (float)(0x1p-22 * (fabs(y[i]) + fabs(bias)));
    }
    return true;
}

static dibit_status begin(dbt_gpu *gpu, const dbt_nbits_gpu_problem *like,
                          dbt_nbits_gpu_proof *proof, dibit_error *error) {
    const uint64_t alignment = dbt_gpu_hal(gpu)->limits.binding_alignment;
    proof->problem = (dbt_nbits_gpu_problem){.p = small_problem(like)};
    dbt_matmul_nbits *const p = &proof->problem.p;
    proof->y_bytes = ((uint64_t)(p->M * N) * 4 + alignment - 1) / alignment * alignment;
    const uint64_t all_bytes = proof->y_bytes * count_bits(proof->kernels);
    proof->y = dbt_arena_alloc(&proof->arena, all_bytes);
    if (!proof->y || !fill(like, p, &proof->arena) || !expect(proof))
        return dbt_fail_memory(error, "a proof of kernels", all_bytes);
    memset(proof->y, 0xff, (size_t)all_bytes); /* NaNs: what is not written is wrong */
    DBT_TRY(upload_problem(gpu, &proof->problem, proof->y, all_bytes, error));
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        if (!(proof->kernels >> i & 1)) continue;
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[i];
        assert(dbt_nbits_gpu_variant(kernel, &proof->problem) ==
               dbt_nbits_gpu_variant(kernel, like));
        DBT_TRY(dbt_nbits_gpu_record(gpu, kernel, &proof->problem, error));
        proof->problem.y_offset += proof->y_bytes;
    }
    return dbt_gpu_read(gpu, proof->problem.y, 0, proof->y, all_bytes, &proof->ticket, error);
}

static bool is_right(const dbt_nbits_gpu_proof *proof, const float *y) {
    const uint64_t count = (uint64_t)(proof->problem.p.M * N);
    for (uint64_t i = 0; i < count; i++) {
        if (!(fabsf(y[i] - proof->want[i]) <= proof->tolerance[i])) return false;
    }
    return true;
}

static void judge(dbt_gpu *gpu, const dbt_nbits_gpu_proof *proof, verdicts *v) {
    const bool computes = !(dbt_gpu_hal(gpu)->features & DBT_HAL_NULL);
    const float *y = proof->y;
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        if (!(proof->kernels >> i & 1)) continue;
        const bool right = !computes || is_right(proof, y);
        if (!right) dbt_gpu_drop_kernel(gpu);
        add_verdict(v, dbt_nbits_gpu_variant(&dbt_nbits_gpu_kernels[i], &proof->problem), right);
        y += proof->y_bytes / sizeof *y;
    }
}

void dbt_nbits_gpu_proof_end(dbt_nbits_gpu_proof *proof, dbt_gpu *gpu) {
    if (!proof->under_way) return;
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    if (proof->ticket) hal->calls->cancel(hal, proof->ticket);
    dbt_hal_buffer *const buffers[] = {proof->problem.a,      proof->problem.b,
                                       proof->problem.scales, proof->problem.zero_points,
                                       proof->problem.bias,   proof->problem.g_idx,
                                       proof->problem.y};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        dbt_gpu_buffer_destroy(gpu, buffers[i]);
    }
    dbt_arena_free(&proof->arena);
    *proof = (dbt_nbits_gpu_proof){0};
}

dibit_status dbt_nbits_gpu_prove(dbt_gpu *gpu, const dbt_nbits_gpu_problem *problem,
                                 uint64_t kernels, dbt_nbits_gpu_proof *proof, uint64_t *proved,
                                 dibit_error *error) {
    verdicts *v = NULL;
    DBT_TRY(verdicts_of(gpu, &v, error));
    dibit_status status = DIBIT_OK;
    if (proof->under_way) {
        dbt_hal *const hal = dbt_gpu_hal(gpu);
        status = hal->calls->poll(hal, proof->ticket, error);
        if (status == DIBIT_PENDING) return status;
        proof->ticket = 0;
        if (status == DIBIT_OK) judge(gpu, proof, v);
        dbt_nbits_gpu_proof_end(proof, gpu);
        DBT_TRY(status);
    }
    uint64_t open = 0;
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        bool right = false;
        if (!(kernels >> i & 1)) continue;
        if (!find_verdict(v, dbt_nbits_gpu_variant(&dbt_nbits_gpu_kernels[i], problem), &right)) {
            open |= (uint64_t)1 << i;
        } else if (right) {
            *proved |= (uint64_t)1 << i;
        }
    }
    if (!open) return DIBIT_OK;
    proof->under_way = true;
    proof->kernels = open;
    dbt_arena_init(&proof->arena, NULL);
    status = begin(gpu, problem, proof, error);
    if (status == DIBIT_OK) return DIBIT_PENDING;
    dbt_nbits_gpu_proof_end(proof, gpu);
    return status;
}

/* MatMulNBits on a device: norms and epilogues, the int8 roundings bit for bit, splitting by what a binding
 * holds, and the choice. test_nbits_gpu_matrix.c goes through sizes and kinds of weights.
 *
 *     test_nbits_gpu [--seed S]
 *
 * Without a device in the environment the null device sees all dispatches and computes none. */
#include "dbt_test.h"

#include "ops/matmul_nbits/test_nbits_gpu_case.h"
#include "test_device.h"

static uint64_t seed = 20240229;
static dbt_gpu *gpu;
static dbt_hal *hal;
static dibit_error error;

static void ok(dibit_status status) { nbits_gpu_ok(status, &error); }

/* ---- Norms and epilogues ---- */

static const float EPSILON = 1e-3f;

/* The normed rows in A's place, and in `steps` how far apart the int8 codes of each element's block are: an
 * element that is off may round to the next one. */
static void norm_rows(nbits_data *data, const float *gain, float *steps) {
    const dbt_matmul_nbits *const p = &data->p;
    for (int64_t m = 0; m < p->M; m++) {
        float *const a = data->a + m * p->K;
        double square = 0;
        for (int64_t k = 0; k < p->K; k++) square += (double)a[k] * (double)a[k];
        const double inverse = 1 / sqrt(square / (double)p->K + (double)EPSILON);
        for (int64_t k = 0; k < p->K; k++) a[k] = (float)((double)a[k] * inverse * (double)gain[k]);
        for (int64_t k = 0; k < p->K; k++) {
            float most = 0;
            const int64_t begin = k / p->block_size * p->block_size;
            for (int64_t i = begin; i < p->K && i < begin + p->block_size; i++)
                most = fmaxf(most, fabsf(a[i]));
            steps[m * p->K + k] = p->int8_activations ? most / 127 : 0;
        }
    }
}

/* y = norm(A) W^T + bias + other: within twice what the sums may be off, and what the norm may: fewer than
 * 32 roundings of an element, and a step. */
static void check_normed(const char *name, nbits_data *data, const float *gain, const float *other,
                         const float *y) {
    const dbt_matmul_nbits *const p = &data->p;
    const size_t count = (size_t)(p->M * p->N);
    float *const steps = malloc((size_t)(p->M * p->K) * sizeof *steps);
    double *const want = malloc(4 * count * sizeof *want), *const s = want + count;
    assert_true(steps && want);
    norm_rows(data, gain, steps);
    dbt_matmul_nbits_ref(p, want, s);
    dbt_matmul_nbits moved = *p;
    moved.int8_activations = false;
    moved.bias = NULL;
    moved.a = steps;
    dbt_matmul_nbits_ref(&moved, s + count, s + 2 * count);
    for (size_t i = 0; i < count; i++) {
        const double sum = want[i] + (double)other[i];
        const double bound = (2 * dbt_nbits_gamma(p) + 0x1p-19) * s[i] + s[2 * count + i] +
                             0x1p-22 * fabs(sum) + 0x1p-22 * fabs((double)other[i]);
        if (!(fabs((double)y[i] - sum) <= bound))
            fail_msg("%s: y[%zu] is %.9g, expected %.9g within %.3g", name, i, (double)y[i], sum,
                     bound);
    }
    free(steps);
    free(want);
}

static void run_normed(const dbt_nbits_gpu_kernel *kernel, int64_t K) {
    const nbits_case c = {.M = kernel->m_rows + 3,
                          .N = 21,
                          .K = K,
                          .block_size = 32,
                          .bits = 2,
                          .zp = ZP_PACKED,
                          .fill = FILL_RANDOM,
                          .scale_type = DIBIT_TYPE_FLOAT,
                          .bias = true,
                          .int8_activations = kernel->int8};
    nbits_data data;
    nbits_data_create(&c, &seed, &data);
    const size_t count = (size_t)(c.M * c.N);
    float *const gain = malloc((size_t)K * sizeof *gain);
    float *const y = malloc(count * sizeof *y), *const other = malloc(count * sizeof *other);
    assert_true(gain && y && other);
    for (int64_t k = 0; k < K; k++) gain[k] = dbt_test_uniform(&seed, -2, 2);
    for (size_t i = 0; i < count; i++) other[i] = dbt_test_uniform(&seed, -9, 9);
    dbt_nbits_gpu_problem problem = nbits_gpu_problem_create(gpu, &data, data.p.M * data.p.N * 4);
    problem.gain = nbits_gpu_upload(gpu, gain, K * 4);
    problem.epsilon = EPSILON;
    problem.epilogue = DBT_NBITS_EPILOGUE_ADD;
    problem.other = nbits_gpu_upload(gpu, other, (int64_t)count * 4);
    ok(dbt_nbits_gpu_record(gpu, kernel, &problem, &error));
    nbits_gpu_download(gpu, problem.y, y, count * 4);
    if (test_device_computes()) check_normed(kernel->name, &data, gain, other, y);
    dbt_gpu_buffer_destroy(gpu, problem.gain);
    dbt_gpu_buffer_destroy(gpu, problem.other);
    nbits_gpu_problem_free(gpu, &problem);
    nbits_data_free(&data);
    free(gain);
    free(y);
    free(other);
}

static void test_every_matvec_with_a_norm_and_an_addend(void **state) {
    (void)state;
    uint32_t ran = 0;
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[i];
        const dbt_nbits_gpu_problem like = {.p = {.M = 1,
                                                  .N = 21,
                                                  .K = 160,
                                                  .k_blocks = 5,
                                                  .block_size = 32,
                                                  .bits = 2,
                                                  .int8_activations = kernel->int8}};
        if (!dbt_nbits_gpu_takes_norm(kernel) || !dbt_nbits_gpu_fits(kernel, &like, hal)) continue;
        run_normed(kernel, 160);
        run_normed(kernel, 1091);
        ran++;
    }
    printf("norms on %s: %u kernels\n", hal->name, (unsigned)ran);
    assert_true(ran > 0);
}

/* ---- Splitting ---- */

static uint64_t tiles(void) {
    uint64_t mask = 0;
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++)
        mask |= (uint64_t)dbt_nbits_gpu_kernels[i].tile << i;
    return mask;
}

/* How many dispatches a tile takes for the case when a binding holds so many bytes; it has to be right. */
static uint64_t dispatches_within(const nbits_case *c, uint64_t binding_bytes) {
    const dbt_nbits_gpu_problem problem = {.p = {.M = c->M,
                                                 .N = c->N,
                                                 .K = c->K,
                                                 .k_blocks = c->K / c->block_size,
                                                 .block_size = c->block_size,
                                                 .bits = c->bits,
                                                 .int8_activations = c->int8_activations}};
    const uint64_t before = hal->counters.dispatches, limit = hal->limits.max_binding_bytes;
    const dbt_nbits_gpu_kernel *const kernel = dbt_nbits_gpu_choose(&problem, hal, tiles());
    hal->limits.max_binding_bytes = binding_bytes;
    const bool right = nbits_gpu_run_case(gpu, c, kernel, &seed);
    hal->limits.max_binding_bytes = limit;
    assert_true(right);
    return hal->counters.dispatches - before;
}

static void test_bindings_are_split_by_rows(void **state) {
    (void)state;
    for (int int8 = 0; int8 < 2; int8++) {
        nbits_case c = {.M = 300,
                        .N = 1100,
                        .K = 96,
                        .block_size = 32,
                        .bits = 3,
                        .zp = ZP_PACKED,
                        .fill = FILL_EXACT,
                        .scale_type = DIBIT_TYPE_FLOAT16,
                        .bias = true,
                        .int8_activations = int8 != 0};
        /* Of Y: 300 rows of 4400 bytes. A part of M is quantized first. */
        assert_int_equal(dispatches_within(&c, 150 * 4400), int8 ? 6 : 3);
        /* Of B: 600 rows of 384 bytes. */
        c.M = 10;
        c.N = 600;
        c.K = 1024;
        assert_int_equal(dispatches_within(&c, 300 * 384), int8 ? 4 : 3);
    }
}

/* ---- int8 roundings ---- */

/* Blocks of every size of number, halves that go to even, and what no number is. */
static void fill_activations(float *a, int64_t n_blocks, int64_t block) {
    for (int64_t g = 0; g < n_blocks; g++) {
        float *const at = a + g * block;
        const float size = ldexpf(dbt_test_uniform(&seed, 1, 2), (int)(g % 250) - 124);
        for (int64_t i = 0; i < block; i++) at[i] = size * dbt_test_uniform(&seed, -1, 1);
        if (g % 7 == 0) { /* absmax 127 * 2^k: multiples of half a step */
            const float step = ldexpf(1.0f, (int)(g % 60) - 30);
            for (int64_t i = 0; i < block; i++)
                at[i] = step * 0.5f * (float)((int)(dbt_test_random(&seed) % 509) - 254);
            at[0] = step * 127;
        }
        if (g % 101 == 3) memset(at, 0, (size_t)block * sizeof *at);
        if (g % 101 == 5) at[2] = INFINITY;
        if (g % 101 == 6) at[3] = NAN;
    }
}

static void test_int8_roundings_are_the_cpus(void **state) {
    (void)state;
    enum { M = 128, K = 1024, BLOCK = 32, BLOCKS = K / BLOCK };
    const nbits_case c = {.M = M,
                          .N = 1,
                          .K = K,
                          .block_size = BLOCK,
                          .bits = 8,
                          .scale_type = DIBIT_TYPE_FLOAT,
                          .int8_activations = true};
    nbits_data data;
    nbits_data_create(&c, &seed, &data);
    fill_activations(data.a, M * BLOCKS, BLOCK);
    const dbt_nbits_gpu_problem problem =
        nbits_gpu_problem_create(gpu, &data, data.p.M * data.p.N * 4);
    const dbt_nbits_gpu_kernel *const kernel = dbt_nbits_gpu_choose(&problem, hal, tiles());
    assert_false(dbt_nbits_gpu_takes_norm(kernel));
    ok(dbt_nbits_gpu_record(gpu, kernel, &problem, &error));
    /* What nbits_quantize.wgsl has left: quads [K / 4, M] and parts [BLOCKS, M]. */
    dbt_hal_buffer *buffers[2] = {0};
    uint32_t *const quads = malloc(M * K), *const parts = malloc(M * BLOCKS * 8);
    assert_non_null(quads);
    assert_non_null(parts);
    ok(dbt_gpu_scratch(gpu, 0, M * K, &buffers[0], &error));
    ok(dbt_gpu_scratch(gpu, 1, M * BLOCKS * 8, &buffers[1], &error));
    nbits_gpu_download(gpu, buffers[0], quads, M * K);
    nbits_gpu_download(gpu, buffers[1], parts, M * BLOCKS * 8);
    for (int64_t i = 0; i < M * BLOCKS && test_device_computes(); i++) {
        const int64_t m = i / BLOCKS, g = i % BLOCKS;
        const float *const a = data.a + m * K + g * BLOCK;
        float scale;
        const float inverse = dbt_nbits_int8_scale(a, BLOCK, &scale);
        const float got = dbt_bits_to_float(parts[2 * (g * M + m)]);
        const bool same = dbt_float_to_bits(got) == dbt_float_to_bits(scale);
        if (!same && !(isnan(got) && isnan(scale)))
            fail_msg("scale of block %d is %.9g, not %.9g", (int)i, (double)got, (double)scale);
        for (int64_t k = 0; k < BLOCK; k++) {
            const int want = inverse > 0.0f ? (int)nearbyintf(a[k] * inverse) : 0;
            const uint32_t quad = quads[(g * BLOCK + k) / 4 * M + m];
            assert_int_equal((int8_t)(uint8_t)(quad >> 8 * (k % 4)), want);
        }
    }
    free(quads);
    free(parts);
    nbits_gpu_problem_free(gpu, &problem);
    nbits_data_free(&data);
}

/* ---- The choice ---- */

static void test_every_problem_has_a_kernel(void **state) {
    (void)state;
    for (uint32_t bits = 1; bits <= 8; bits++) {
        for (int mode = 0; mode < 8; mode++) {
            dbt_nbits_gpu_problem problem = nbits_gpu_two_bits(mode & 1);
            problem.p.bits = bits;
            if (mode & 2) problem.p.block_size = 16;
            if (mode & 4) problem.p.K = 4096;
            for (int64_t M = 1; M < 5000; M = 2 * M + 1) {
                problem.p.M = M;
                const dbt_nbits_gpu_kernel *const kernel =
                    dbt_nbits_gpu_choose(&problem, hal, UINT64_MAX);
                assert_non_null(kernel);
                assert_true(dbt_nbits_gpu_fits(kernel, &problem, hal));
                const bool software = (hal->features & DBT_HAL_SOFTWARE) != 0;
                assert_int_equal(kernel->software, software);
                assert_int_equal(kernel->tile, M > 64 && !software);
            }
        }
    }
}

int main(int argc, char **argv) {
    const char *const from_environment = getenv("DBT_SEED");
    if (from_environment) seed = strtoull(from_environment, NULL, 10);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) seed = strtoull(argv[++i], NULL, 10);
    }
    printf("seed %llu\n", (unsigned long long)seed);
    gpu = nbits_gpu_open(NULL);
    hal = dbt_gpu_hal(gpu);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_problem_has_a_kernel),
        cmocka_unit_test(test_int8_roundings_are_the_cpus),
        cmocka_unit_test(test_every_matvec_with_a_norm_and_an_addend),
        cmocka_unit_test(test_bindings_are_split_by_rows),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dbt_gpu_destroy(&gpu);
    return failed;
}

/* Gates on a device: y = gate(x W^T + bias) * (x W2^T + bias2), of every kernel, against ref.c. W2's rows follow
 * W's in one buffer. */
#include <math.h>

#include "dbt_test.h"

#include "ops/matmul_nbits/test_nbits_gpu_case.h"
#include "test_device.h"

enum { N = 21, SECOND = DBT_NBITS_GPU_ROW_STEP, ROWS = SECOND + N };

static dbt_gpu *gpu;
static uint64_t seed = 7;

static double gate_of(dbt_nbits_epilogue epilogue, double h) {
    if (epilogue == DBT_NBITS_EPILOGUE_SILU) return h / (1 + exp(-h));
    return 0.5 * h * (1 + tanh(0.7978845608028654 * (h + 0.044715 * h * h * h)));
}

/* Sums are within twice what one order of summation may be off; |d gate| <= 1.13 |dh|. */
static void check(const char *name, const dbt_matmul_nbits *p, dbt_nbits_epilogue epilogue,
                  const float *y) {
    const size_t count = (size_t)(p->M * ROWS);
    double *const want = malloc(2 * count * sizeof *want), *const s = want + count;
    assert_non_null(want);
    dbt_matmul_nbits_ref(p, want, s);
    const double gamma = 2 * dbt_nbits_gamma(p);
    for (int64_t i = 0; i < p->M * N; i++) {
        const int64_t first = i / N * ROWS + i % N, second = first + SECOND;
        const double g = gate_of(epilogue, want[first]), up = want[second];
        const double off = 1.13 * gamma * s[first] + 0x1p-19 * fabs(g);
        const double bound = off * (fabs(up) + gamma * s[second]) + fabs(g) * gamma * s[second] +
                             0x1p-20 * fabs(g * up);
        if (fabs((double)y[i] - g * up) <= bound) continue;
        fail_msg("%s: y[%d, %d] is %.9g, expected %.9g within %.3g", name, (int)(i / N),
                 (int)(i % N), (double)y[i], g * up, bound);
    }
    free(want);
}

static void run(const dbt_nbits_gpu_kernel *kernel, dbt_nbits_epilogue epilogue, bool bias) {
    const nbits_case c = {.M = kernel->m_rows + 3,
                          .N = ROWS,
                          .K = 160,
                          .block_size = 32,
                          .bits = 2,
                          .zp = ZP_PACKED,
                          .fill = FILL_RANDOM,
                          .scale_type = DIBIT_TYPE_FLOAT16,
                          .bias = bias,
                          .int8_activations = kernel->int8};
    nbits_data data;
    nbits_data_create(&c, &seed, &data);
    const uint64_t bytes = (uint64_t)(c.M * N) * sizeof(float);
    dbt_nbits_gpu_problem problem = nbits_gpu_problem_create(gpu, &data, (int64_t)bytes);
    problem.p.N = N;
    problem.second_row = SECOND;
    problem.epilogue = epilogue;
    float *const y = malloc((size_t)bytes);
    assert_non_null(y);
    dibit_error error;
    if (dbt_nbits_gpu_record(gpu, kernel, &problem, &error)) fail_msg("%s", error.text);
    nbits_gpu_download(gpu, problem.y, y, bytes);
    if (test_device_computes()) check(kernel->name, &data.p, epilogue, y);
    free(y);
    nbits_gpu_problem_free(gpu, &problem);
    nbits_data_free(&data);
}

static void test_every_kernel_with_a_gate(void **state) {
    (void)state;
    gpu = nbits_gpu_open(NULL);
    const dbt_hal *const hal = dbt_gpu_hal(gpu);
    uint32_t ran = 0;
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[i];
        const dbt_nbits_gpu_problem like = {.p = {.M = 1,
                                                  .N = N,
                                                  .K = 160,
                                                  .k_blocks = 5,
                                                  .block_size = 32,
                                                  .bits = 2,
                                                  .int8_activations = kernel->int8}};
        if (!dbt_nbits_gpu_fits(kernel, &like, hal)) continue;
        run(kernel, i % 2 ? DBT_NBITS_EPILOGUE_GELU_TANH : DBT_NBITS_EPILOGUE_SILU, i % 3 != 0);
        ran++;
    }
    assert_true(ran > 0);
    print_message("%u kernels\n", (unsigned)ran);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kernel_with_a_gate),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dbt_gpu_destroy(&gpu);
    return failed;
}

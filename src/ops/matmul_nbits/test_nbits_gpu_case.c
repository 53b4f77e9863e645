/* See test_nbits_gpu_case.h. */
#include "dbt_test.h"

#include <threads.h>

#include "ops/matmul_nbits/test_nbits_gpu_case.h"
#include "test_device.h"

void nbits_gpu_ok(dibit_status status, const dibit_error *error) {
    if (status) fail_msg("%s", error->text);
}

dbt_gpu *nbits_gpu_open(const dbt_shader_library *library) {
    dbt_hal *const hal = test_device_open();
    dbt_gpu *gpu = NULL;
    dibit_error error;
    nbits_gpu_ok(dbt_gpu_create(&dbt_default_allocator, hal, &gpu, &error), &error);
    if (library) dbt_gpu_use_shaders(gpu, library);
    return gpu;
}

dbt_hal_buffer *nbits_gpu_upload(dbt_gpu *gpu, const void *data, int64_t bytes) {
    const uint64_t all = ((uint64_t)bytes + 3) / 4 * 4 + NBITS_GUARD_BYTES;
    unsigned char *const padded = malloc((size_t)all);
    assert_non_null(padded);
    memset(padded, 0xff, (size_t)all);
    if (data) memcpy(padded, data, (size_t)bytes);
    dbt_hal_buffer *buffer = NULL;
    dibit_error error;
    nbits_gpu_ok(dbt_gpu_buffer_create(gpu, all, &buffer, &error), &error);
    nbits_gpu_ok(dbt_gpu_write(gpu, buffer, 0, padded, all, &error), &error);
    free(padded);
    return buffer;
}

void nbits_gpu_download(dbt_gpu *gpu, dbt_hal_buffer *buffer, void *out, uint64_t bytes) {
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    uint64_t ticket;
    dibit_error error;
    nbits_gpu_ok(dbt_gpu_read(gpu, buffer, 0, out, bytes, &ticket, &error), &error);
    dibit_status status;
    while ((status = hal->calls->poll(hal, ticket, &error)) == DIBIT_PENDING) {
        thrd_sleep(&(struct timespec){.tv_nsec = 100000},
                   NULL); /* the device is this CPU, perhaps */
    }
    nbits_gpu_ok(status, &error);
}

dbt_nbits_gpu_problem nbits_gpu_two_bits(bool int8) {
    return (dbt_nbits_gpu_problem){.p = {.M = 1,
                                         .N = 64,
                                         .K = 64,
                                         .k_blocks = 2,
                                         .block_size = 32,
                                         .bits = 2,
                                         .int8_activations = int8,
                                         .scale_type = DIBIT_TYPE_FLOAT16,
                                         .zero_point_type = DIBIT_TYPE_UINT8}};
}

dbt_nbits_gpu_problem nbits_gpu_problem_create(dbt_gpu *gpu, const nbits_data *data,
                                               int64_t y_bytes) {
    const dbt_matmul_nbits *const p = &data->p;
    dbt_nbits_gpu_problem out = {.p = *p};
    out.a = nbits_gpu_upload(gpu, p->a, p->M * p->K * 4);
    out.b = nbits_gpu_upload(gpu, p->b, p->N * dbt_nbits_row_bytes(p));
    out.scales = nbits_gpu_upload(gpu, p->scales, p->N * dbt_nbits_scale_row_bytes(p));
    if (p->zero_points)
        out.zero_points =
            nbits_gpu_upload(gpu, p->zero_points, p->N * dbt_nbits_zero_point_row_bytes(p));
    if (p->g_idx) out.g_idx = nbits_gpu_upload(gpu, p->g_idx, p->K * 4);
    if (p->bias) out.bias = nbits_gpu_upload(gpu, p->bias, p->N * 4);
    out.y = nbits_gpu_upload(gpu, NULL, y_bytes);
    return out;
}

void nbits_gpu_problem_free(dbt_gpu *gpu, const dbt_nbits_gpu_problem *problem) {
    dbt_hal_buffer *const buffers[] = {
        problem->a,     problem->b,    problem->scales, problem->zero_points,
        problem->g_idx, problem->bias, problem->y};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        dbt_gpu_buffer_destroy(gpu, buffers[i]);
    }
}

const char *nbits_gpu_wrong(const nbits_case *c, double gamma, const double *want, const double *s,
                            const float *y) {
    static char text[200];
    const int64_t count = c->M * c->N;
    for (int64_t i = 0; i < count; i++) {
        const bool exact = c->fill == FILL_EXACT && s[i] < 0x1p22;
        const double bound = exact ? 0.0 : 2 * gamma * s[i] + 0x1p-100;
        if (fabs((double)y[i] - want[i]) <= bound) continue;
        snprintf(text, sizeof text, "y[%lld, %lld] is %.9g, expected %.9g within %.3g",
                 (long long)(i / c->N), (long long)(i % c->N), (double)y[i], want[i], bound);
        return text;
    }
    for (int i = 0; i < NBITS_GUARD_BYTES / 4; i++) {
        uint32_t guard;
        memcpy(&guard, y + count + i, sizeof guard);
        if (guard != 0xffffffffu) return "wrote past y";
    }
    return NULL;
}

bool nbits_gpu_run_case(dbt_gpu *gpu, const nbits_case *c, const dbt_nbits_gpu_kernel *kernel,
                        uint64_t *seed) {
    const uint64_t case_seed = *seed;
    const size_t count = (size_t)(c->M * c->N);
    nbits_data data;
    dibit_error error;
    nbits_data_create(c, seed, &data);
    const int64_t y_bytes = (int64_t)count * 4;
    const dbt_nbits_gpu_problem problem = nbits_gpu_problem_create(gpu, &data, y_bytes);
    float *const y = malloc((size_t)y_bytes + NBITS_GUARD_BYTES);
    double *const want = malloc(2 * count * sizeof *want);
    assert_true(y && want);
    nbits_gpu_ok(dbt_nbits_gpu_record(gpu, kernel, &problem, &error), &error);
    nbits_gpu_download(gpu, problem.y, y, (uint64_t)y_bytes + NBITS_GUARD_BYTES);
    dbt_matmul_nbits_ref(&data.p, want, want + count);
    const char *const what =
        test_device_computes() ? nbits_gpu_wrong(c, dbt_nbits_gamma(&data.p), want, want + count, y)
                               : NULL;
    if (what) {
        char text[300];
        nbits_case_text(c, text, sizeof text);
        printf("FAIL %s, %s: %s (--seed %llu)\n", kernel->name, text, what,
               (unsigned long long)case_seed);
    }
    free(y);
    free(want);
    nbits_gpu_problem_free(gpu, &problem);
    nbits_data_free(&data);
    return !what;
}

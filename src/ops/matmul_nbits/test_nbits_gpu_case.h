/* A case of test_nbits_case.h on a device: its buffers, and whether an answer is right. */
#ifndef DBT_TEST_NBITS_GPU_CASE_H
#define DBT_TEST_NBITS_GPU_CASE_H

#include "ops/matmul_nbits/nbits_gpu.h"
#include "ops/matmul_nbits/test_nbits_case.h"

/* NaNs that follow every buffer, which a kernel that reads or writes too far meets. */
enum { NBITS_GUARD_BYTES = 64 };

/* A device of its own, so that nothing is proved there; library NULL: the embedded shaders. */
dbt_gpu *nbits_gpu_open(const dbt_shader_library *library);
/* Fails the test with the error's text. */
void nbits_gpu_ok(dibit_status status, const dibit_error *error);

/* data NULL: all of it is NaNs. */
dbt_hal_buffer *nbits_gpu_upload(dbt_gpu *gpu, const void *data, int64_t bytes);
void nbits_gpu_download(dbt_gpu *gpu, dbt_hal_buffer *buffer, void *out, uint64_t bytes);

/* 64 x 64, 2 bits, block 32, packed zero points, float16 scales, one row of A; without buffers. */
dbt_nbits_gpu_problem nbits_gpu_two_bits(bool int8);

/* The case's data on the device, and y of y_bytes, full of NaNs. */
dbt_nbits_gpu_problem nbits_gpu_problem_create(dbt_gpu *gpu, const nbits_data *data,
                                               int64_t y_bytes);
void nbits_gpu_problem_free(dbt_gpu *gpu, const dbt_nbits_gpu_problem *problem);

/* NULL, or what is wrong with y [c->M, c->N] and the guard behind it, where ref.c has want and s for as many rows
 * or more: exact fills are equal, others within twice what one order of summation may be off, as
 * gpu_bound has it. */
const char *nbits_gpu_wrong(const nbits_case *c, double gamma, const double *want, const double *s,
                            const float *y);
/* Whether the kernel computes such a case rightly; if not, says so. *seed goes on. */
bool nbits_gpu_run_case(dbt_gpu *gpu, const nbits_case *c, const dbt_nbits_gpu_kernel *kernel,
                        uint64_t *seed);

#endif

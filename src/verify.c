/* dibit_verify: goes through the cases of nbits_verify.h with every kernel of MatMulNBits that a device has. One
 * poll runs one case on one kernel, for the numbers of rows that decoding and prompts have. */
#include <stdio.h>

#include "base/cpu.h"
#include "dibit/debug.h"
#include "model.h"
#include "ops/matmul_nbits/nbits_gpu.h"
#include "ops/matmul_nbits/nbits_verify.h"

enum { N_RUNS = 4, MOST_ROWS_OF_FEW = 9 };
static const int64_t some_m[N_RUNS - 1] = {1, 4, MOST_ROWS_OF_FEW}; /* and all rows of the case */

typedef struct tested {
    const dbt_nbits_kernel *cpu;
    const dbt_nbits_gpu_kernel *gpu;
    uint32_t cases, failed;
    uint64_t codes;
    char text[600]; /* the first failure, or why there is no case */
} tested;

struct dibit_verify {
    dibit_allocator allocator;
    dibit_device *device;
    dibit_verify_desc desc;
    dbt_arena arena; /* of the kernels */
    tested *kernels;
    uint32_t n_kernels;
    uint32_t index, kernel; /* of the case that comes next, or is under way, and of its kernel */
    bool made;
    dbt_arena case_arena;
    dbt_nbits_verify_case at;
    uint64_t y_offsets[N_RUNS]; /* bytes */
    uint64_t y_bytes;
    uint8_t *y;                    /* every run's */
    dbt_nbits_gpu_problem problem; /* the case on the device */
    uint64_t ticket;
    dbt_block scratch;
};

/* ---- Kernels ---- */

static bool is_int8(const tested *t) { return t->gpu ? t->gpu->int8 : t->cpu->int8_activations; }

static bool is_asked_for(const dibit_verify *v, const tested *t) {
    const dibit_activations other = is_int8(t) ? DIBIT_ACTIVATIONS_FLOAT : DIBIT_ACTIVATIONS_INT8;
    return v->desc.activations != other;
}

static dibit_status list_kernels(dibit_verify *v, dibit_error *error) {
    const bool gpu = v->device->gpu != NULL;
    v->n_kernels = gpu ? dbt_nbits_gpu_kernel_count : (uint32_t)dbt_nbits_kernel_count;
    v->kernels = dbt_arena_array(&v->arena, v->n_kernels, sizeof *v->kernels);
    if (!v->kernels) return dbt_fail_memory(error, "a verification", sizeof *v->kernels);
    for (uint32_t i = 0; i < v->n_kernels; i++) {
        tested *const t = &v->kernels[i];
        if (gpu) t->gpu = &dbt_nbits_gpu_kernels[i];
        if (!gpu) t->cpu = &dbt_nbits_kernels[i];
        snprintf(t->text, sizeof t->text, "%s",
                 is_asked_for(v, t) ? "no case of this scope is for it"
                                    : "activations of the other kind");
    }
    return DIBIT_OK;
}

static void add_failure(tested *t, const char *text) {
    if (t->failed++ == 0) snprintf(t->text, sizeof t->text, "%s", text);
}

/* Software adapters need a minute for the shaders that a GPU compiles in seconds. There the kernels that are
 * never chosen share the forms of weights, and all kernels share the rare forms. */
static bool is_left_to_others(const dibit_verify *v, const tested *t) {
    const dbt_hal *const hal = dbt_gpu_hal(v->device->gpu);
    if (!(hal->features & DBT_HAL_SOFTWARE) || v->desc.scope == DIBIT_VERIFY_FULL) return false;
    const uint32_t share = dbt_nbits_verify_is_rare(v->index) ? 32 : t->gpu->software ? 1 : 16;
    return (dbt_nbits_verify_form(v->index) + v->kernel) % share != 0;
}

/* Whether the case is for the kernel. If it is and the kernel is gated off from it, that is a failure: what a kernel
 * needs of a device does not depend on bits or zero points. */
static bool takes(const dibit_verify *v, tested *t) {
    const dbt_matmul_nbits *const p = &v->at.p;
    if (!is_asked_for(v, t) || (p->g_idx && is_int8(t))) return false;
    dbt_nbits_gpu_problem problem = v->problem;
    problem.p.int8_activations = is_int8(t);
    bool fits;
    if (t->cpu) {
        if ((t->cpu->isa & v->device->isa) != t->cpu->isa) {
            char isa[128];
            dbt_cpu_isa_text(t->cpu->isa, isa);
            snprintf(t->text, sizeof t->text, "the CPU lacks %s", isa);
            return false;
        }
        if (t->cpu->bits != p->bits || (p->g_idx && !t->cpu->g_idx)) return false;
        fits = dbt_nbits_kernel_fits(t->cpu, &problem.p, v->device->isa);
    } else {
        const dbt_hal *const hal = dbt_gpu_hal(v->device->gpu);
        dbt_nbits_gpu_problem plain = problem;
        plain.p.bits = 8;
        plain.p.zero_point_type = DIBIT_TYPE_UNDEFINED;
        const char *const lacks = dbt_nbits_gpu_lacks(t->gpu, &plain, hal);
        if (lacks || is_left_to_others(v, t)) {
            if (t->cases > 0) return false;
            snprintf(t->text, sizeof t->text, "%s%s", lacks ? "the device lacks " : "",
                     lacks ? lacks : "left to others on a software adapter");
            return false;
        }
        fits = dbt_nbits_gpu_fits(t->gpu, &problem, hal);
    }
    if (t->cases++ == 0) t->text[0] = '\0';
    if (fits) return true;
    char text[200];
    snprintf(text, sizeof text, "%u bits, block size %lld, %s zero points are refused",
             (unsigned)p->bits, (long long)p->block_size,
             p->zero_point_type == DIBIT_TYPE_UNDEFINED ? "no"
                                                        : dibit_type_name(p->zero_point_type));
    add_failure(t, text);
    return false;
}

/* ---- A case ---- */

static int64_t m_of(const dibit_verify *v, int run) {
    return run < N_RUNS - 1 ? some_m[run] : v->at.p.M;
}

static dibit_status upload(dibit_verify *v, const void *data, int64_t bytes, dbt_hal_buffer **out,
                           dibit_error *error) {
    if (!data) return DIBIT_OK;
    const uint64_t padded = ((uint64_t)bytes + 3) / 4 * 4;
    DBT_TRY(dbt_gpu_buffer_create(v->device->gpu, padded, out, error));
    return dbt_gpu_write(v->device->gpu, *out, 0, data, padded, error);
}

static dibit_status upload_case(dibit_verify *v, dibit_error *error) {
    const dbt_matmul_nbits *const p = &v->at.p;
    dbt_nbits_gpu_problem *const problem = &v->problem;
    DBT_TRY(upload(v, p->a, p->M * p->K * 4, &problem->a, error));
    DBT_TRY(upload(v, p->b, p->N * dbt_nbits_row_bytes(p), &problem->b, error));
    DBT_TRY(upload(v, p->scales, p->N * dbt_nbits_scale_row_bytes(p), &problem->scales, error));
    DBT_TRY(upload(v, p->zero_points, p->N * dbt_nbits_zero_point_row_bytes(p),
                   &problem->zero_points, error));
    DBT_TRY(upload(v, p->bias, p->N * 4, &problem->bias, error));
    DBT_TRY(upload(v, p->g_idx, p->K * 4, &problem->g_idx, error));
    return dbt_gpu_buffer_create(v->device->gpu, v->y_bytes, &problem->y, error);
}

static dibit_status begin_case(dibit_verify *v, dibit_error *error) {
    DBT_TRY(dbt_nbits_verify_make(v->index, &v->case_arena, &v->at, error));
    v->made = true;
    dbt_gpu *const gpu = v->device->gpu;
    const uint64_t alignment = gpu ? dbt_gpu_hal(gpu)->limits.binding_alignment : sizeof(float);
    v->y_bytes = 0;
    for (int run = 0; run < N_RUNS; run++) {
        v->y_offsets[run] = v->y_bytes;
        v->y_bytes += (uint64_t)(m_of(v, run) * v->at.p.N) * sizeof(float);
        v->y_bytes = (v->y_bytes + alignment - 1) / alignment * alignment;
    }
    v->y = dbt_arena_alloc(&v->case_arena, v->y_bytes);
    if (!v->y) return dbt_fail_memory(error, "a verification", v->y_bytes);
    v->problem = (dbt_nbits_gpu_problem){.p = v->at.p};
    return gpu ? upload_case(v, error) : DIBIT_OK;
}

static void end_case(dibit_verify *v) {
    dbt_gpu *const gpu = v->device->gpu;
    dbt_hal_buffer *const buffers[] = {v->problem.a,    v->problem.b,     v->problem.scales,
                                       v->problem.bias, v->problem.g_idx, v->problem.zero_points,
                                       v->problem.y};
    for (size_t i = 0; gpu && i < sizeof buffers / sizeof buffers[0]; i++) {
        dbt_gpu_buffer_destroy(gpu, buffers[i]);
    }
    v->problem = (dbt_nbits_gpu_problem){0};
    dbt_arena_reset(&v->case_arena);
    v->made = false;
}

/* ---- A case on a kernel ---- */

static dibit_status run_cpu(dibit_verify *v, const tested *t, dibit_error *error) {
    dbt_matmul_nbits p = v->at.p;
    p.int8_activations = is_int8(t);
    const uint32_t n_threads = dbt_pool_threads(v->device->pool);
    const uint64_t bytes = dbt_nbits_scratch_bytes(&p, t->cpu, n_threads);
    if (!dbt_block_reserve(&v->scratch, &v->allocator, bytes))
        return dbt_fail_memory(error, "a verification", bytes);
    for (int run = 0; run < N_RUNS; run++) {
        p.M = m_of(v, run);
        p.y = (float *)(void *)(v->y + v->y_offsets[run]);
        dbt_nbits_execute(&p, t->cpu, v->device->pool, v->scratch.data);
    }
    return DIBIT_OK;
}

static dibit_status run_gpu(dibit_verify *v, const tested *t, dibit_error *error) {
    dbt_gpu *const gpu = v->device->gpu;
    dbt_nbits_gpu_problem problem = v->problem;
    problem.p.int8_activations = is_int8(t);
    DBT_TRY(dbt_gpu_write(gpu, problem.y, 0, v->y, v->y_bytes, error));
    for (int run = 0; run < N_RUNS; run++) {
        problem.p.M = m_of(v, run);
        problem.y_offset = v->y_offsets[run];
        DBT_TRY(dbt_nbits_gpu_record(gpu, t->gpu, &problem, error));
    }
    return dbt_gpu_read(gpu, problem.y, 0, v->y, v->y_bytes, &v->ticket, error);
}

static void judge(dibit_verify *v, tested *t) {
    char text[sizeof t->text];
    bool right = true;
    for (int run = 0; run < N_RUNS && right; run++) {
        const float *const y = (const float *)(const void *)(v->y + v->y_offsets[run]);
        right = dbt_nbits_verify_check(&v->at, m_of(v, run), y, text, sizeof text);
        if (right) t->codes += (uint64_t)(m_of(v, run) * v->at.p.N);
    }
    if (!right) add_failure(t, text);
}

/* Begins, or goes on with, the present kernel's run; then it has been judged unless PENDING. */
static dibit_status run_kernel(dibit_verify *v, dibit_error *error) {
    tested *const t = &v->kernels[v->kernel];
    dbt_gpu *const gpu = v->device->gpu;
    dibit_error why;
    dibit_status status = DIBIT_OK;
    if (v->ticket == 0) {
        if (!takes(v, t)) return DIBIT_OK;
        memset(v->y, 0xff, (size_t)v->y_bytes); /* NaNs: what is not written is wrong */
        status = gpu ? run_gpu(v, t, &why) : run_cpu(v, t, &why);
    }
    if (status == DIBIT_OK && v->ticket != 0) {
        status = dbt_gpu_poll(gpu, v->ticket, &why);
        if (status == DIBIT_PENDING) return status;
        v->ticket = 0;
    }
    if (status == DIBIT_OK) {
        judge(v, t);
    } else if (status == DIBIT_UNSUPPORTED) { /* its shader does not compile */
        add_failure(t, why.text);
    } else {
        if (error) *error = why;
        return status;
    }
    return DIBIT_OK;
}

/* ---- The public calls ---- */

dibit_status dibit_verify_begin(dibit_device *device, const dibit_verify_desc *desc,
                                dibit_verify **out, dibit_error *error) {
    DBT_FAIL_IF(!device || !out, error, DIBIT_BAD_ARGUMENT, "device and out must not be NULL");
    DBT_FAIL_IF(device->desc.kind == DIBIT_DEVICE_NULL, error, DIBIT_BAD_ARGUMENT,
                "the null device computes nothing that could be verified");
    dibit_verify *v = dbt_alloc(&device->allocator, sizeof *v, 16);
    if (!v) return dbt_fail_memory(error, "a verification", sizeof *v);
    *v = (dibit_verify){.allocator = device->allocator, .device = device};
    if (desc) v->desc = *desc;
    dbt_arena_init(&v->arena, &v->allocator);
    dbt_arena_init(&v->case_arena, &v->allocator);
    const dibit_status status = list_kernels(v, error);
    if (status != DIBIT_OK) {
        dibit_verify_destroy(&v);
        return status;
    }
    *out = v;
    return DIBIT_OK;
}

dibit_status dibit_verify_poll(dibit_verify *verify, dibit_error *error) {
    dibit_verify *const v = verify;
    while (v->desc.scope == DIBIT_VERIFY_QUICK && v->index < dbt_nbits_verify_count() &&
           !dbt_nbits_verify_is_quick(v->index)) {
        v->index++;
    }
    if (v->index == dbt_nbits_verify_count()) return DIBIT_OK;
    if (!v->made) DBT_TRY(begin_case(v, error));
    DBT_TRY(run_kernel(v, error));
    if (++v->kernel == v->n_kernels) {
        v->kernel = 0;
        v->index++;
        end_case(v);
    }
    return DIBIT_PENDING;
}

void dibit_verify_destroy(dibit_verify **verify) {
    dibit_verify *const v = verify ? *verify : NULL;
    if (!v) return;
    if (v->ticket) {
        dbt_hal *const hal = dbt_gpu_hal(v->device->gpu);
        hal->calls->cancel(hal, v->ticket);
    }
    end_case(v);
    dbt_arena_free(&v->case_arena);
    dbt_arena_free(&v->arena);
    dbt_block_free(&v->scratch, &v->allocator);
    const dibit_allocator allocator = v->allocator;
    dbt_release(&allocator, v, sizeof *v);
    *verify = NULL;
}

dibit_status dibit_verify_kernel(const dibit_verify *verify, uint32_t index,
                                 dibit_verify_info *info) {
    if (index >= verify->n_kernels) return DIBIT_NOT_FOUND;
    const tested *const t = &verify->kernels[index];
    *info = (dibit_verify_info){.kernel = t->gpu ? t->gpu->name : t->cpu->name,
                                .verdict = t->failed       ? DIBIT_VERDICT_FAILED
                                           : t->cases == 0 ? DIBIT_VERDICT_SKIPPED
                                                           : DIBIT_VERDICT_PASSED,
                                .cases = t->cases,
                                .failed_cases = t->failed,
                                .codes = t->codes,
                                .text = t->text};
    return DIBIT_OK;
}

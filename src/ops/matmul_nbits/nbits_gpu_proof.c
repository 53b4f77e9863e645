/* Proves kernels of MatMulNBits on the device before they are used, each in every form that a session will use: with
 * its types of scales and zero points, a norm or none, an epilogue or none. What the device answers to
 * small problems (nbits_gpu_trial.c) is compared with ref.c, and the verdict is kept with the device.
 *
 * All steps of a plan ask first, and get PENDING; what they asked for is a batch, which the first of them that
 * asks again sends off, in one submission. */
#include <assert.h>
#include <string.h>

#include "ops/matmul_nbits/nbits_gpu.h"

enum { MOST_VERDICTS = 1024, MOST_OF_BATCH = 64 /* others wait for the next batch */ };

typedef struct asked {
    const dbt_nbits_gpu_kernel *kernel;
    dbt_nbits_gpu_problem like; /* of its buffers only whether they are there */
    uint64_t form;
    dbt_nbits_trial *trial;
} asked;

/* What is known about a device, and being found out. */
typedef struct proofs {
    uint32_t n_verdicts;
    struct {
        uint64_t form;
        const dbt_nbits_gpu_kernel *kernel;
        bool right;
    } verdicts[MOST_VERDICTS];
    /* The batch. */
    uint32_t batch, holders; /* its number, and how many wait for it */
    bool under_way;
    uint32_t n_asked;
    asked asked[MOST_OF_BATCH];
    dbt_arena arena;
    float *answers; /* [n_asked][DBT_NBITS_TRIAL_Y_BYTES] */
    dbt_hal_buffer *y;
    uint64_t ticket;
} proofs;

static dibit_status proofs_of(dbt_gpu *gpu, proofs **out, dibit_error *error) {
    static const char key;
    void *memory = NULL;
    DBT_TRY(dbt_gpu_memory(gpu, &key, sizeof **out, &memory, error));
    *out = memory;
    if ((*out)->batch == 0) (*out)->batch = 1; /* 0: a proof that waits for none */
    return DIBIT_OK;
}

/* Whether there is a verdict on the kernel in that form, and which. */
static bool find_verdict(const proofs *v, const dbt_nbits_gpu_kernel *kernel, uint64_t form,
                         bool *right) {
    uint32_t i = 0;
    while (i < v->n_verdicts && (v->verdicts[i].form != form || v->verdicts[i].kernel != kernel))
        i++;
    if (i == v->n_verdicts) return false;
    *right = v->verdicts[i].right;
    return true;
}

static void add_verdict(proofs *v, dbt_gpu *gpu, const asked *a, bool right) {
    const uint32_t i =
        v->n_verdicts < MOST_VERDICTS ? v->n_verdicts++ : (uint32_t)(a->form % MOST_VERDICTS);
    v->verdicts[i].form = a->form;
    v->verdicts[i].kernel = a->kernel;
    v->verdicts[i].right = right;
    if (!right) dbt_gpu_drop_kernel(gpu);
}

/* ---- A batch ---- */

static void ask(proofs *v, const dbt_nbits_gpu_kernel *kernel, const dbt_nbits_gpu_problem *like,
                uint64_t form) {
    for (uint32_t i = 0; i < v->n_asked; i++) {
        if (v->asked[i].form == form && v->asked[i].kernel == kernel) return;
    }
    if (v->n_asked == MOST_OF_BATCH) return;
    v->asked[v->n_asked++] = (asked){.kernel = kernel, .like = *like, .form = form};
}

/* Kernels of the same form share a trial. */
static dibit_status make_trials(proofs *v, dbt_gpu *gpu, dibit_error *error) {
    for (uint32_t i = 0; i < v->n_asked; i++) {
        asked *const a = &v->asked[i];
        for (uint32_t j = 0; j < i && !a->trial; j++) {
            if (v->asked[j].form == a->form) a->trial = v->asked[j].trial;
        }
        if (a->trial) continue;
        dbt_nbits_trial *const trial = dbt_arena_alloc(&v->arena, sizeof *trial);
        if (!trial) return dbt_fail_memory(error, "a proof of kernels", sizeof *trial);
        a->trial = trial;
        DBT_TRY(dbt_nbits_trial_make(&a->like, &v->arena, trial, error));
        assert(dbt_nbits_gpu_form(&a->like) == a->form);
        DBT_TRY(dbt_nbits_trial_upload(trial, gpu, error));
        assert(dbt_nbits_gpu_form(&trial->problem) == a->form);
    }
    return DIBIT_OK;
}

/* A shader that the device does not compile leaves its NaNs. */
static dibit_status record(proofs *v, dbt_gpu *gpu, dibit_error *error) {
    for (uint32_t i = 0; i < v->n_asked; i++) {
        dbt_nbits_gpu_problem problem = v->asked[i].trial->problem;
        problem.y = v->y;
        problem.y_offset = i * (uint64_t)DBT_NBITS_TRIAL_Y_BYTES;
        const dibit_status status = dbt_nbits_gpu_record(gpu, v->asked[i].kernel, &problem, error);
        if (status != DIBIT_OK && status != DIBIT_UNSUPPORTED) return status;
    }
    return DIBIT_OK;
}

static dibit_status begin(proofs *v, dbt_gpu *gpu, dibit_error *error) {
    const uint64_t bytes = (uint64_t)v->n_asked * DBT_NBITS_TRIAL_Y_BYTES;
    v->under_way = true;
    dbt_arena_init(&v->arena, NULL);
    v->answers = dbt_arena_alloc(&v->arena, bytes);
    if (!v->answers) return dbt_fail_memory(error, "a proof of kernels", bytes);
    memset(v->answers, 0xff, (size_t)bytes); /* NaNs: what is not written is wrong */
    DBT_TRY(dbt_gpu_buffer_create(gpu, bytes, &v->y, error));
    DBT_TRY(dbt_gpu_write(gpu, v->y, 0, v->answers, bytes, error));
    DBT_TRY(make_trials(v, gpu, error));
    dbt_gpu_hal(gpu)->may_fail = true;
    const dibit_status status = record(v, gpu, error);
    dbt_gpu_hal(gpu)->may_fail = false;
    DBT_TRY(status);
    return dbt_gpu_read(gpu, v->y, 0, v->answers, bytes, &v->ticket, error);
}

static void judge(proofs *v, dbt_gpu *gpu) {
    const bool computes = !(dbt_gpu_hal(gpu)->features & DBT_HAL_NULL);
    for (uint32_t i = 0; i < v->n_asked; i++) {
        const float *const y = v->answers + i * (DBT_NBITS_TRIAL_Y_BYTES / sizeof *v->answers);
        const bool right = !computes || dbt_nbits_trial_is_right(v->asked[i].trial, y);
        add_verdict(v, gpu, &v->asked[i], right);
    }
}

/* The next batch is empty. */
static void end(proofs *v, dbt_gpu *gpu) {
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    if (v->ticket) hal->calls->cancel(hal, v->ticket);
    for (uint32_t i = 0; i < v->n_asked; i++) {
        bool seen = !v->asked[i].trial;
        for (uint32_t j = 0; j < i && !seen; j++) seen = v->asked[j].trial == v->asked[i].trial;
        if (!seen) dbt_nbits_trial_free(v->asked[i].trial, gpu);
    }
    dbt_gpu_buffer_destroy(gpu, v->y);
    if (v->under_way) dbt_arena_free(&v->arena);
    v->y = NULL;
    v->ticket = 0;
    v->under_way = false;
    v->n_asked = v->holders = 0;
    v->batch++;
}

static dibit_status finish(proofs *v, dbt_gpu *gpu, dibit_error *error) {
    const dibit_status status = dbt_gpu_poll(gpu, v->ticket, error);
    if (status == DIBIT_PENDING) return status;
    v->ticket = 0;
    if (status == DIBIT_OK) judge(v, gpu);
    end(v, gpu);
    return status;
}

/* ---- Those who wait ---- */

void dbt_nbits_gpu_proof_end(dbt_nbits_gpu_proof *proof, dbt_gpu *gpu) {
    proofs *v = NULL;
    dibit_error error;
    if (proof->batch == 0 || proofs_of(gpu, &v, &error) != DIBIT_OK) return;
    if (proof->batch == v->batch && --v->holders == 0) end(v, gpu);
    proof->batch = 0;
}

static void wait_for(proofs *v, dbt_nbits_gpu_proof *proof) {
    if (proof->batch != v->batch) v->holders++;
    proof->batch = v->batch;
}

/* What of the problem is the kernel's own: some read rows that were normed before. */
static dbt_nbits_gpu_problem own_part(const dbt_nbits_gpu_kernel *kernel,
                                      const dbt_nbits_gpu_problem *problem) {
    dbt_nbits_gpu_problem own = *problem;
    if (!dbt_nbits_gpu_takes_norm(kernel)) own.gain = NULL;
    return own;
}

dibit_status dbt_nbits_gpu_prove(dbt_gpu *gpu, const dbt_nbits_gpu_problem *problems,
                                 uint32_t n_problems, uint64_t kernels, dbt_nbits_gpu_proof *proof,
                                 uint64_t *proved, dibit_error *error) {
    proofs *v = NULL;
    DBT_TRY(proofs_of(gpu, &v, error));
    if (v->under_way) {
        DBT_TRY(finish(v, gpu, error));
    } else if (proof->batch == v->batch) {
        const dibit_status status = begin(v, gpu, error);
        if (status == DIBIT_OK) return DIBIT_PENDING;
        end(v, gpu);
        return status;
    }
    bool open = false;
    *proved = kernels;
    for (uint32_t i = 0; i < n_problems * dbt_nbits_gpu_kernel_count; i++) {
        const uint32_t k = i % dbt_nbits_gpu_kernel_count;
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[k];
        if (!(kernels >> k & 1)) continue;
        const dbt_nbits_gpu_problem own =
            own_part(kernel, &problems[i / dbt_nbits_gpu_kernel_count]);
        const uint64_t form = dbt_nbits_gpu_form(&own);
        bool right = true;
        if (!find_verdict(v, kernel, form, &right)) {
            ask(v, kernel, &own, form);
            open = true;
        } else if (!right) {
            *proved &= ~((uint64_t)1 << k);
        }
    }
    if (!open) {
        dbt_nbits_gpu_proof_end(proof, gpu);
        return DIBIT_OK;
    }
    wait_for(v, proof);
    return DIBIT_PENDING;
}

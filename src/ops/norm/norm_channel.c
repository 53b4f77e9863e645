/* Normalization of images and other [N, C, ...] tensors: InstanceNormalization, GroupNormalization
 * and BatchNormalization; and LpNormalization. */
#include "ops/norm/norm.h"

#include <float.h>
#include <math.h>

#define HALF_EPS (FLT_EPSILON / 2)

static int64_t inner_count(const dibit_tensor *t, int32_t from) {
    int64_t n = 1;
    for (int32_t i = from; i < t->rank; i++) n *= t->dims[i];
    return n;
}

/* Inputs 1 and on are vectors of `n` elements. */
static dibit_status infer_channels(const dbt_infer *infer, dbt_dim n) {
    for (uint32_t i = 1; i < infer->n_inputs; i++) {
        DBT_TRY(dbt_infer_type(infer, i, DBT_TYPES_FLOAT));
        DBT_TRY(dbt_infer_rank(infer, i, 1, 1));
        DBT_TRY(dbt_infer_dim(infer, i, 0, n));
    }
    dbt_infer_output(infer, 0, infer->in[0]->type, &infer->in[0]->shape);
    return DIBIT_OK;
}

static dibit_status check_channels(const dbt_node *node, const dibit_tensor *const *in, int64_t n,
                                   dibit_error *error) {
    for (uint32_t i = 1; i < node->n_inputs; i++) {
        DBT_FAIL_IF(in[i]->dims[0] != n, error, DIBIT_BAD_INPUT,
                    "input %u must have %lld elements, got %lld", (unsigned)i, (long long)n,
                    (long long)in[i]->dims[0]);
    }
    return DIBIT_OK;
}

/* ---- InstanceNormalization is GroupNormalization with as many groups as channels ------------- */

dibit_status dbt_norm_group_infer(dbt_infer *infer) {
    const dbt_norm_attrs *const attrs = infer->attrs;
    const uint16_t kind = infer->node->op->kind;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_rank(infer, 0, kind == DBT_NORM_INSTANCE ? 3 : 2, DIBIT_MAX_RANK));
    DBT_FAIL_IF(kind != DBT_NORM_INSTANCE && attrs->num_groups < 1, infer->error, DIBIT_BAD_FILE,
                "attribute 'num_groups' must be at least 1, got %lld",
                (long long)attrs->num_groups);
    return infer_channels(infer, kind == DBT_NORM_GROUP_18
                                     ? dbt_dim_const(infer->dims, attrs->num_groups)
                                     : infer->in[0]->shape.dims[1]);
}

dibit_status dbt_norm_groups_of(const dbt_node *node, const dibit_tensor *const *in,
                                dibit_error *error, dbt_norm_groups *out) {
    const dbt_norm_attrs *const attrs = node->attrs;
    const uint16_t kind = node->op->kind;
    const int64_t channels = in[0]->dims[1], inner = inner_count(in[0], 2);
    dbt_norm_groups g = {.groups = kind == DBT_NORM_INSTANCE ? channels : attrs->num_groups};
    DBT_FAIL_IF(g.groups > 0 && channels % g.groups != 0, error, DIBIT_BAD_INPUT,
                "%lld channels cannot be split into %lld groups", (long long)channels,
                (long long)g.groups);
    DBT_TRY(check_channels(node, in, kind == DBT_NORM_GROUP_18 ? g.groups : channels, error));
    g.n = g.groups > 0 ? channels / g.groups * inner : 0;
    g.rows = g.n > 0 ? in[0]->dims[0] * g.groups : 0;
    g.per = kind == DBT_NORM_GROUP_18 ? g.n : inner;
    *out = g;
    return DIBIT_OK;
}

typedef struct group_job {
    dbt_norm_groups g;
    const float *x, *scale, *bias;
    float *y, *bound; /* one of them */
    int64_t n_tasks;
    float epsilon;
} group_job;

static dibit_status make_group_job(const dbt_cpu_call *call, group_job *job) {
    const dbt_norm_attrs *const attrs = call->attrs;
    DBT_TRY(dbt_norm_groups_of(call->node, call->in, call->error, &job->g));
    job->x = call->in[0]->data;
    job->scale = call->in[1]->data;
    job->bias = call->in[2]->data;
    job->epsilon = attrs->epsilon;
    job->n_tasks = dbt_task_count(job->g.rows, job->g.n * 4);
    return DIBIT_OK;
}

static void run_group(const group_job *job, int64_t r) {
    const int64_t n = job->g.n, per = job->g.per;
    const float *const x = job->x + r * n;
    const int64_t scales = n / per, first = r % job->g.groups * scales;
    float mean, inv, mean_error = 0, inv_error = 0;
    dbt_norm_statistics(x, n, true, job->epsilon, &mean, &inv);
    if (job->bound) {
        dbt_norm_statistics_bound(x, n, true, job->epsilon, &mean_error, &inv_error);
    }
    for (int64_t i = 0; i < n; i++) {
        const float g = job->scale[first + i / per], b = job->bias[first + i / per];
        const int64_t at = r * n + i;
        const float y = (x[i] - mean) * inv * g;
        if (job->y) {
            job->y[at] = y + b;
        } else {
            const float shifted = mean_error + HALF_EPS * (fabsf(x[i]) + fabsf(mean));
            job->bound[at] = fabsf(y) * (inv_error + 4 * HALF_EPS) + shifted * inv * fabsf(g) +
                             HALF_EPS * fabsf(b);
        }
    }
}

static void group_task(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const group_job *const job = ctx;
    const int64_t end = dbt_task_begin(job->g.rows, job->n_tasks, task + 1);
    for (int64_t r = dbt_task_begin(job->g.rows, job->n_tasks, task); r < end; r++)
        run_group(job, r);
}

dibit_status dbt_norm_group_run(const dbt_cpu_call *call) {
    group_job job = {0};
    DBT_TRY(make_group_job(call, &job));
    if (job.g.rows == 0) return DIBIT_OK;
    job.y = call->out[0]->data;
    dbt_parallel_for(call->pool, job.n_tasks, group_task, &job);
    return DIBIT_OK;
}

dibit_status dbt_norm_group_bound(const dbt_cpu_call *call, float *const *bound) {
    group_job job = {0};
    DBT_TRY(make_group_job(call, &job));
    job.bound = bound[0];
    for (int64_t r = 0; r < job.g.rows; r++) run_group(&job, r);
    return DIBIT_OK;
}

/* ---- BatchNormalization, inference only ------------------------------------------------------ */

dibit_status dbt_norm_batch_infer(dbt_infer *infer) {
    const dbt_norm_attrs *const attrs = infer->attrs;
    DBT_FAIL_IF(attrs->training_mode != 0, infer->error, DIBIT_UNSUPPORTED,
                "training_mode is not supported");
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_rank(infer, 0, 2, DIBIT_MAX_RANK));
    return infer_channels(infer, infer->in[0]->shape.dims[1]);
}

static dibit_status batch(const dbt_cpu_call *call, float *bound) {
    const dbt_norm_attrs *const attrs = call->attrs;
    const dibit_tensor *const x = call->in[0];
    const int64_t channels = x->dims[1], inner = inner_count(x, 2);
    DBT_TRY(check_channels(call->node, call->in, channels, call->error));
    const float *const scale = call->in[1]->data, *const bias = call->in[2]->data;
    const float *const mean = call->in[3]->data, *const variance = call->in[4]->data;
    const float *const in = x->data;
    float *const y = call->out[0]->data;
    for (int64_t r = 0; r < x->dims[0] * channels; r++) {
        const int64_t c = r % channels;
        const float factor = scale[c] / sqrtf(variance[c] + attrs->epsilon);
        for (int64_t i = r * inner; i < (r + 1) * inner; i++) {
            if (bound) {
                bound[i] = HALF_EPS * (6 * fabsf(factor) * (fabsf(in[i]) + fabsf(mean[c])) +
                                       2 * fabsf(bias[c]));
            } else {
                y[i] = (in[i] - mean[c]) * factor + bias[c];
            }
        }
    }
    return DIBIT_OK;
}

dibit_status dbt_norm_batch_run(const dbt_cpu_call *call) { return batch(call, NULL); }

dibit_status dbt_norm_batch_bound(const dbt_cpu_call *call, float *const *bound) {
    return batch(call, bound[0]);
}

/* ---- LpNormalization: y = x / |x|_p along an axis; 0 where the norm is 0 --------------------- */

dibit_status dbt_norm_lp_infer(dbt_infer *infer) {
    const dbt_norm_attrs *const attrs = infer->attrs;
    int32_t axis;
    DBT_TRY(dbt_infer_type(infer, 0, DBT_TYPES_FLOAT));
    DBT_TRY(dbt_infer_rank(infer, 0, 1, DIBIT_MAX_RANK));
    DBT_TRY(dbt_infer_axis(infer, attrs->axis, infer->in[0]->shape.rank, "axis", &axis));
    DBT_FAIL_IF(attrs->p != 1 && attrs->p != 2, infer->error, DIBIT_BAD_FILE,
                "attribute 'p' must be 1 or 2, got %lld", (long long)attrs->p);
    return dbt_infer_like_first(infer);
}

static dibit_status lp(const dbt_cpu_call *call, float *bound) {
    const dbt_norm_attrs *const attrs = call->attrs;
    const dibit_tensor *const x = call->in[0];
    const int32_t axis = (int32_t)(attrs->axis < 0 ? attrs->axis + x->rank : attrs->axis);
    const int64_t n = x->dims[axis], inner = inner_count(x, axis + 1);
    const int64_t lines = n > 0 ? dbt_tensor_count(x) / n : 0;
    for (int64_t line = 0; line < lines; line++) {
        const int64_t start = line / inner * inner * n + line % inner;
        const float *const in = (const float *)x->data + start;
        float *const y = bound ? bound + start : (float *)call->out[0]->data + start;
        float norm = 0;
        for (int64_t i = 0; i < n; i++) {
            const float v = in[i * inner];
            norm += attrs->p == 1 ? fabsf(v) : v * v;
        }
        if (attrs->p == 2) norm = sqrtf(norm);
        const float error = bound ? HALF_EPS * (float)(n + 4) : 1;
        for (int64_t i = 0; i < n; i++) {
            const float v = bound ? fabsf(in[i * inner]) : in[i * inner];
            y[i * inner] = norm > 0 ? v / norm * error : 0;
        }
    }
    return DIBIT_OK;
}

dibit_status dbt_norm_lp_run(const dbt_cpu_call *call) { return lp(call, NULL); }

dibit_status dbt_norm_lp_bound(const dbt_cpu_call *call, float *const *bound) {
    return lp(call, bound[0]);
}

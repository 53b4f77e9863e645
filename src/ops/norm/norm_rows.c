/* The row kernel of the normalization ops, and how far it can be off. */
#include "ops/norm/norm.h"

#include <float.h>
#include <string.h>

#include "base/math.h"

#define HALF_EPS (FLT_EPSILON / 2) /* one rounding */

static float sum_squares(const float *x, int64_t n, float mean) {
    float lanes[DBT_LANES] = {0};
    int64_t i = 0;
    for (; i + DBT_LANES <= n; i += DBT_LANES) {
        for (int k = 0; k < DBT_LANES; k++) {
            const float d = x[i + k] - mean;
            lanes[k] += d * d;
        }
    }
    for (int k = 0; i < n; i++, k++) lanes[k] += (x[i] - mean) * (x[i] - mean);
    return dbt_sum(lanes, DBT_LANES);
}

void dbt_norm_statistics(const float *x, int64_t n, bool centred, float epsilon, float *mean,
                         float *inv) {
    *mean = centred ? dbt_sum(x, n) / (float)n : 0;
    *inv = 1 / sqrtf(sum_squares(x, n, *mean) / (float)n + epsilon);
}

static const float *term_row(const dbt_norm_rows *job, int t, int64_t r) {
    const dbt_norm_term *const term = &job->term[t];
    const int64_t i = term->index ? term->index[r % term->n_index] : r;
    return i < term->rows ? term->data + i * job->n : term->data + i % term->rows * job->n;
}

static const float *add_terms(const dbt_norm_rows *job, int64_t r, float *out) {
    const int64_t n = job->n;
    const float *a = term_row(job, 0, r);
    for (int t = 1; t < 3; t++) {
        if (!job->term[t].data) continue;
        const float *const b = term_row(job, t, r);
        for (int64_t i = 0; i < n; i++) out[i] = a[i] + b[i];
        a = out;
    }
    return a;
}

static void scale_row(const dbt_norm_rows *job, const float *x, float mean, float inv, float *y) {
    const int64_t n = job->n;
    const float *const gain = job->gain, *const shift = job->shift;
    if (gain && job->gain_n == n && !shift) {
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * inv * gain[i];
    } else if (gain && job->gain_n == n && job->shift_n == n) {
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * inv * gain[i] + shift[i];
    } else {
        for (int64_t i = 0; i < n; i++) {
            const float g = gain ? gain[i % job->gain_n] : 1;
            const float b = shift ? shift[i % job->shift_n] : 0;
            y[i] = (x[i] - mean) * inv * g + b;
        }
    }
}

typedef struct rows_task {
    const dbt_norm_rows *job;
    int64_t n_tasks;
} rows_task;

static void run_rows(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const rows_task *const t = ctx;
    const dbt_norm_rows *const job = t->job;
    const int64_t end = dbt_task_begin(job->rows, t->n_tasks, task + 1);
    for (int64_t r = dbt_task_begin(job->rows, t->n_tasks, task); r < end; r++) {
        float *const y = job->y ? job->y + r * job->n : NULL;
        float *const s = job->sum ? job->sum + r * job->n : NULL;
        const float *const x = add_terms(job, r, s ? s : y);
        float mean, inv;
        dbt_norm_statistics(x, job->n, job->centred, job->epsilon, &mean, &inv);
        if (job->mean) job->mean[r] = mean;
        if (job->inv) job->inv[r] = inv;
        if (y) scale_row(job, x, mean, inv, y);
    }
}

void dbt_norm_run_rows(const dbt_norm_rows *job, dbt_pool *pool) {
    if (job->n == 0) { /* nothing to normalize, but no garbage either */
        if (job->mean) memset(job->mean, 0, (size_t)job->rows * sizeof *job->mean);
        if (job->inv) memset(job->inv, 0, (size_t)job->rows * sizeof *job->inv);
        return;
    }
    if (job->rows == 0) return;
    rows_task task = {job, dbt_task_count(job->rows, job->n * 4)};
    dbt_parallel_for(pool, task.n_tasks, run_rows, &task);
}

/* ---- Bounds ------------------------------------------------------------------------------------
 * With u one rounding and gamma = n * u: the mean is off by gamma * mean|x|. Either way to compute
 * the variance (about the mean as here, or as mean(x^2) - mean^2 as others do) is off by at most
 * gamma * mean(x^2). */

static void errors_of(double mean_abs, double mean_square, double inv, int64_t n, bool centred,
                      float *mean, float *relative_inv) {
    const double gamma = ((double)n + 4) * (double)HALF_EPS;
    *mean = centred ? (float)(gamma * mean_abs) : 0;
    *relative_inv = (float)(gamma * mean_square * inv * inv + 4 * (double)HALF_EPS);
}

void dbt_norm_statistics_bound(const float *x, int64_t n, bool centred, float epsilon, float *mean,
                               float *inv) {
    float m, i;
    dbt_norm_statistics(x, n, centred, epsilon, &m, &i);
    double absolute = 0, square = 0;
    for (int64_t k = 0; k < n; k++) {
        absolute += fabs((double)x[k]);
        square += (double)x[k] * (double)x[k];
    }
    errors_of(absolute / (double)n, square / (double)n, (double)i, n, centred, mean, inv);
}

/* Element i of row r: the sum of its terms and of their magnitudes. */
static double element(const dbt_norm_rows *job, int64_t r, int64_t i, double *magnitude) {
    double s = 0;
    *magnitude = 0;
    for (int t = 0; t < 3; t++) {
        if (!job->term[t].data) continue;
        const double v = (double)term_row(job, t, r)[i];
        s += v;
        *magnitude += fabs(v);
    }
    return s;
}

static void bound_row(const dbt_norm_rows *job, int64_t r, float *const bound[4]) {
    const int64_t n = job->n;
    const double u = (double)HALF_EPS;
    /* Adding terms moves an element by at most twice a rounding of its magnitude. */
    const double adding = job->term[1].data || job->term[2].data ? 2 * u : 0;
    double sum_x = 0, absolute = 0, square = 0, off = 0, variance = 0, m;
    for (int64_t i = 0; i < n; i++) {
        const double x = element(job, r, i, &m);
        sum_x += x;
        absolute += m;
        square += m * m;
        off = fmax(off, adding * m);
    }
    const double mean = job->centred ? sum_x / (double)n : 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = element(job, r, i, &m) - mean;
        variance += d * d;
    }
    const double inv = 1 / sqrt(variance / (double)n + (double)job->epsilon);
    float mean_error, inv_error;
    errors_of(absolute / (double)n, square / (double)n, inv, n, job->centred, &mean_error,
              &inv_error);
    if (bound[1]) bound[1][r] = mean_error + (float)off;
    if (bound[2]) bound[2][r] = (float)(inv * ((double)inv_error + 2 * off * inv));
    for (int64_t i = 0; i < n; i++) {
        const double x = element(job, r, i, &m);
        if (bound[3]) bound[3][r * n + i] = (float)(adding * m);
        if (!bound[0]) continue;
        const double g = job->gain ? fabs((double)job->gain[i % job->gain_n]) : 1;
        const double b = job->shift ? fabs((double)job->shift[i % job->shift_n]) : 0;
        const double y = fabs(x - mean) * inv * g;
        const double shifted = (double)mean_error + 2 * off + u * (fabs(x) + fabs(mean));
        bound[0][r * n + i] =
            (float)(y * ((double)inv_error + 2 * off * inv + 4 * u) + shifted * inv * g + u * b);
    }
}

void dbt_norm_bound_rows(const dbt_norm_rows *job, float *const bound[4]) {
    if (job->n == 0) return;
    for (int64_t r = 0; r < job->rows; r++) bound_row(job, r, bound);
}

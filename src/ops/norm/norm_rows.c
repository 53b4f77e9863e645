/* The row kernel of the normalization ops, and how far it can be off. */
#include "ops/norm/norm.h"

#include <float.h>
#include <string.h>

#include "dibit/dibit.h"
#define DBT_NORM_ROWS dbt_norm_rows_plain
#include "ops/norm/norm_tmpl.h"

#define HALF_EPS (FLT_EPSILON / 2) /* one rounding */

void dbt_norm_statistics(const float *x, int64_t n, bool centred, float epsilon, float *mean,
                         float *inv) {
    statistics(x, n, centred, epsilon, mean, inv);
}

typedef void (*rows_fn)(const dbt_norm_rows *job, int64_t begin, int64_t end);

static rows_fn choose(uint64_t isa) {
#if DBT_X86_64
    if (isa & DIBIT_ISA_AVX2) {
        return isa & DIBIT_ISA_AVX512 ? dbt_norm_rows_avx512 : dbt_norm_rows_avx2;
    }
#endif
    (void)isa;
    return dbt_norm_rows_plain;
}

typedef struct rows_task {
    const dbt_norm_rows *job;
    rows_fn run;
    int64_t n_tasks;
} rows_task;

static void run_rows(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const rows_task *const t = ctx;
    const int64_t rows = t->job->rows;
    t->run(t->job, dbt_task_begin(rows, t->n_tasks, task),
           dbt_task_begin(rows, t->n_tasks, task + 1));
}

void dbt_norm_run_rows(const dbt_norm_rows *job, dbt_pool *pool) {
    if (job->n == 0) { /* nothing to normalize, but no garbage either */
        if (job->mean) memset(job->mean, 0, (size_t)job->rows * sizeof *job->mean);
        if (job->inv) memset(job->inv, 0, (size_t)job->rows * sizeof *job->inv);
        return;
    }
    if (job->rows == 0) return;
    rows_task task = {job, choose(job->isa), dbt_task_count(job->rows, job->n * 2)};
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

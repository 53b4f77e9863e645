/* The rows of a norm, in plain C that compilers turn into SIMD code. Included once for each instruction set,
 * with the name of the function as DBT_NORM_ROWS. Sums run in the lanes of base/math.h and nothing is
 * contracted to fused products, so that all of them give the same bits. */
#include "base/math.h"
#include "ops/norm/norm.h"

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

static void statistics(const float *x, int64_t n, bool centred, float epsilon, float *mean,
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

void DBT_NORM_ROWS(const dbt_norm_rows *job, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
        float *const y = job->y ? job->y + r * job->n : NULL;
        float *const s = job->sum ? job->sum + r * job->n : NULL;
        const float *const x = add_terms(job, r, s ? s : y);
        float mean, inv;
        statistics(x, job->n, job->centred, job->epsilon, &mean, &inv);
        if (job->mean) job->mean[r] = mean;
        if (job->inv) job->inv[r] = inv;
        if (y) scale_row(job, x, mean, inv, y);
    }
}

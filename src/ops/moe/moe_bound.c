/* How far the experts' float results can be off: the rounding of each multiplication (gamma * sum
 * of magnitudes), carried through activation, second multiplication and weighing. Runs on the
 * reference of MatMulNBits, token by token. */
#include <float.h>
#include <math.h>

#include "ops/moe/moe.h"

#define EPS ((double)FLT_EPSILON)

/* y = a W' + bias in double, s = |a| |W|' + |bias|; returns gamma. */
static double product(const dbt_moe_job *job, const dbt_moe_fc *fc, int64_t e, const float *a,
                      bool with_bias, double *y, double *s) {
    const float *const bias = fc->bias && with_bias ? fc->bias + e * fc->n : NULL;
    if (job->quantized) {
        dbt_matmul_nbits p = dbt_moe_expert(fc, e);
        p.a = a;
        p.bias = bias;
        p.int8_activations = p.int8_activations && with_bias;
        dbt_matmul_nbits_ref(&p, y, s);
        return dbt_nbits_gamma(&p);
    }
    for (int64_t n = 0; n < fc->n; n++) {
        const float *const w = fc->weights + (e * fc->n + n) * fc->k;
        y[n] = bias ? (double)bias[n] : 0;
        s[n] = fabs(y[n]);
        for (int64_t k = 0; k < fc->k; k++) {
            const double term = (double)a[k] * (double)w[k];
            y[n] += term;
            s[n] += fabs(term);
        }
    }
    return ((double)fc->k + 1) * EPS / 2;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* f(x); *slope bounds |f'|. */
static double activation(dbt_moe_activation kind, double x, double *slope) {
    *slope = kind == DBT_MOE_GELU || kind == DBT_MOE_SILU ? 1.13 : 1;
    switch (kind) {
    case DBT_MOE_RELU: return x > 0 ? x : 0;
    case DBT_MOE_GELU: return 0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x * x * x)));
    case DBT_MOE_SILU: return x * sigmoid(x);
    case DBT_MOE_IDENTITY:
    case DBT_MOE_SWIGLU: break;
    }
    return x;
}

/* h and its error from g (error dg) and, where there is a gate, l (error dl). */
static double hidden(const dbt_moe_job *job, double g, double dg, double l, double dl,
                     double *error) {
    const dbt_moe_attrs *const a = job->attrs;
    double slope, f, argument = g;
    if (job->activation == DBT_MOE_SWIGLU) {
        const double limit = (double)a->swiglu_limit;
        g = fmin(g, limit);
        l = fmax(fmin(l, limit), -limit) + (double)a->activation_beta;
        dl += EPS * (fabs(l) + fabs((double)a->activation_beta));
        argument = (double)a->activation_alpha * g;
        f = g * sigmoid(argument);
        slope = 1.1;
    } else {
        f = activation(job->activation, g, &slope);
        if (!job->weights.has_fc3) {
            l = 1;
            dl = 0;
        }
    }
    const double df = slope * dg + EPS * ((8 + fabs(argument)) * fabs(f) + 4 * fabs(g));
    *error = df * (fabs(l) + dl) + fabs(f) * dl + EPS * fabs(f * l);
    return f * l;
}

/* What int8 rounding makes of the errors: a value near the middle of two steps may go either way,
 * and all move with the scale. */
static void round_to_int8(const dbt_matmul_nbits *p, const float *h, float *error) {
    for (int64_t begin = 0; begin < p->K; begin += p->block_size) {
        const int64_t n = p->K - begin < p->block_size ? p->K - begin : p->block_size;
        float scale;
        const double inverse = (double)dbt_nbits_int8_scale(h + begin, n, &scale);
        float moved = 0; /* no fmax: gcc 12 for Arm cannot compile that loop */
        for (int64_t i = begin; i < begin + n; i++) moved = error[i] > moved ? error[i] : moved;
        const double relative = (double)moved * inverse / 127 + 2 * EPS;
        for (int64_t i = begin; i < begin + n; i++) {
            const double q = fabs((double)h[i] * inverse), to_middle = fabs(q - floor(q) - 0.5);
            const bool may_flip = to_middle <= (double)error[i] * inverse + q * relative;
            error[i] = (float)((double)scale * (q * relative + (may_flip ? 1 : 0)));
        }
    }
}

static void bound_route(const dbt_moe_job *job, int64_t token, const dbt_moe_route *route,
                        float *bound) {
    const dbt_moe_weights *const w = &job->weights;
    const int64_t stride = w->fc[0].n > w->hidden ? w->fc[0].n : w->hidden, n = w->inter;
    double *const y1 = job->exact, *const s1 = y1 + stride, *const y3 = s1 + stride,
                  *const s3 = y3 + stride, *const y2 = s3 + stride, *const s2 = y2 + stride,
                  *const unused = s2 + stride, *const moved = unused + stride;
    float *const h = job->h, *const error = job->c1;
    const float *const x = job->x + token * w->hidden;
    const int64_t e = route->expert;
    const double gamma1 = product(job, &w->fc[0], e, x, true, y1, s1);
    const double gamma3 = w->has_fc3 ? product(job, &w->fc[2], e, x, true, y3, s3) : 0;
    const bool pairs = w->fused && job->attrs->swiglu_fusion == 1;
    for (int64_t i = 0; i < n; i++) {
        const int64_t g = pairs ? 2 * i : i, l = pairs ? 2 * i + 1 : n + i;
        double dh, up = 1, dup = 0;
        if (w->fused) {
            up = y1[l];
            dup = gamma1 * s1[l];
        } else if (w->has_fc3) {
            up = y3[i];
            dup = gamma3 * s3[i];
        }
        h[i] = (float)hidden(job, y1[g], gamma1 * s1[g], up, dup, &dh);
        error[i] = (float)dh;
    }
    const double gamma2 = product(job, &w->fc[1], e, h, true, y2, s2);
    if (job->quantized && w->fc[1].nbits.int8_activations) {
        round_to_int8(&w->fc[1].nbits, h, error);
    }
    product(job, &w->fc[1], e, error, false, unused, moved);
    const double weight = fabs((double)route->weight);
    for (int64_t i = 0; i < w->hidden; i++) {
        const double c2 = fabs(y2[i]), dc2 = gamma2 * s2[i] + moved[i];
        bound[i] += (float)(weight * dc2 + (c2 + dc2) * ((double)route->error +
                                                         weight * EPS * (double)job->attrs->k));
    }
}

dibit_status dbt_moe_cpu_bound(const dbt_cpu_call *call, float *const *bound) {
    dbt_moe_job job;
    DBT_TRY(dbt_moe_make_job(call, &job));
    const int64_t experts = job.weights.experts, n = job.weights.hidden;
    for (int64_t t = 0; t < job.tokens; t++) {
        float *const to = bound[0] + t * n;
        for (int64_t i = 0; i < n; i++) to[i] = 0;
        dbt_moe_route_token(job.attrs, job.quantized, job.router + t * experts,
                            job.router_weights ? job.router_weights + t * experts : NULL, experts,
                            job.taken, job.routes);
        for (int64_t r = 0; r < job.attrs->k; r++) {
            if (job.routes[r].weight != 0) bound_route(&job, t, &job.routes[r], to);
        }
    }
    return DIBIT_OK;
}

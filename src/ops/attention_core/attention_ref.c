/* Attention as its formula says, in double: the definition of correct, and what computes the rare
 * outputs of scores. */
#include <float.h>
#include <math.h>

#include "base/half.h"
#include "ops/attention_core/attention_core.h"

static double load(dibit_type type, const void *data, int64_t i) {
    switch (type) {
    case DIBIT_TYPE_FLOAT16: return (double)dbt_half_to_float(((const uint16_t *)data)[i]);
    case DIBIT_TYPE_BFLOAT16: return (double)dbt_bfloat16_to_float(((const uint16_t *)data)[i]);
    case DIBIT_TYPE_DOUBLE: return ((const double *)data)[i];
    default: return (double)((const float *)data)[i];
    }
}

/* One query of one head. */
typedef struct place {
    const dbt_attention *a;
    const dbt_attention_row *row;
    int64_t b, h, kv, s;
} place;

static double capped(const dbt_attention *a, double x) {
    return a->softcap > 0 ? (double)a->softcap * tanh(x / (double)a->softcap) : x;
}

static double with_terms(const place *p, int64_t t, double x) {
    for (int i = 0; i < 2; i++) {
        const dbt_attention_term *const m = &p->a->terms[i];
        if (!m->data) continue;
        x += (double)m->data[p->b * m->stride[0] + p->h * m->stride[1] + p->s * m->stride[2] +
                             (p->row->term_offset + t) * m->stride[3]];
    }
    return x;
}

/* The score of key t as it stands after the step `kind`; *size gets sum |q k| * |scale|. */
static double score(const place *p, int64_t t, dbt_attention_qk kind, double *size) {
    const dbt_attention *const a = p->a;
    const float *const q =
        a->q + p->b * a->q_stride[0] + p->h * a->q_stride[1] + p->s * a->q_stride[2];
    const int64_t k = p->kv * p->row->k.head_stride + t * p->row->k.row_stride;
    double x = 0, sum = 0;
    for (int64_t d = 0; d < a->k_dim; d++) {
        const double product = (double)q[d] * load(a->k_type, p->row->k.data, k + d);
        x += product;
        sum += fabs(product);
    }
    x *= (double)a->scale;
    if (size) *size = sum * fabs((double)a->scale);
    if (kind == DBT_ATTENTION_QK_SCALED) return x;
    x = capped(a, x);
    return kind == DBT_ATTENTION_QK_CAPPED ? x : with_terms(p, t, x);
}

static void write_qk(const place *p, int64_t begin, int64_t end, double top, double sum) {
    const dbt_attention *const a = p->a;
    float *const qk = a->qk + ((p->b * a->heads + p->h) * a->queries + p->s) * a->qk_columns;
    for (int64_t c = 0; c < a->qk_columns; c++) {
        const int64_t t = c - p->row->term_offset;
        const bool seen = t >= begin && t < end;
        const bool all = a->qk_all && a->qk_kind <= DBT_ATTENTION_QK_CAPPED;
        if (!seen && !all) {
            qk[c] = a->qk_unseen;
        } else if (a->qk_kind == DBT_ATTENTION_QK_SOFTMAX) {
            const double x = score(p, t, DBT_ATTENTION_QK_SCORE, NULL);
            qk[c] = sum > 0 ? (float)(exp(x - top) / sum) : 0.0f;
        } else {
            qk[c] = (float)score(p, t, a->qk_kind, NULL);
        }
    }
}

enum { CHUNK = 64 }; /* elements of an output row at a time: each needs every key's exp */

/* acc[i]: element d + i of the output; size[i]: the sum of its terms' magnitudes. */
static void weighted_values(const place *p, int64_t begin, int64_t end, double top, double sum,
                            int64_t d, int64_t count, double *acc, double *size) {
    const dbt_attention *const a = p->a;
    for (int64_t i = 0; i < count; i++) acc[i] = size[i] = 0;
    for (int64_t t = begin; t < end; t++) {
        const double e = exp(score(p, t, DBT_ATTENTION_QK_SCORE, NULL) - top) / sum;
        const int64_t v = p->kv * p->row->v.head_stride + t * p->row->v.row_stride + d;
        for (int64_t i = 0; i < count; i++) {
            const double term = e * load(a->v_type, p->row->v.data, v + i);
            acc[i] += term;
            size[i] += fabs(term);
        }
    }
}

static void one_query(const place *p, float *bound) {
    const dbt_attention *const a = p->a;
    int64_t begin, end;
    dbt_attention_visible(a, p->row, p->s, &begin, &end);
    const double sink = !a->has_sink ? (double)-INFINITY : a->sink ? (double)a->sink[p->h] : 0.0;
    double top = sink, error = 0;
    for (int64_t t = begin; t < end; t++) {
        double size;
        const double x = score(p, t, DBT_ATTENTION_QK_SCORE, &size);
        if (x > top) top = x;
        /* A float score is off by gamma of its sum, and by a few roundings of what follows. */
        const double off = ((double)a->k_dim + 8) * size + (isfinite(x) ? 8 * fabs(x) : 0);
        if (off > error) error = off;
    }
    const bool nothing = !(top > (double)-INFINITY); /* no key, or only forbidden ones */
    double sum = nothing ? 0 : exp(sink - top);
    for (int64_t t = begin; t < end && !nothing; t++) {
        sum += exp(score(p, t, DBT_ATTENTION_QK_SCORE, NULL) - top);
    }
    const int64_t y = p->b * a->y_stride[0] + p->h * a->y_stride[1] + p->s * a->y_stride[2];
    /* exp turns absolute error of scores (numerator and denominator) into relative error. */
    const double relative = expm1(2 * error * (double)FLT_EPSILON / 2) +
                            ((double)(end - begin) + 16) * (double)FLT_EPSILON;
    for (int64_t d = 0; d < a->v_dim; d += CHUNK) {
        const int64_t count = a->v_dim - d < CHUNK ? a->v_dim - d : CHUNK;
        double acc[CHUNK], size[CHUNK];
        weighted_values(p, begin, nothing ? begin : end, top, sum, d, count, acc, size);
        for (int64_t i = 0; i < count; i++) {
            a->y[y + d + i] = (float)acc[i];
            if (bound) bound[y + d + i] = (float)(relative * size[i] + (double)FLT_MIN);
        }
    }
    if (a->qk_kind != DBT_ATTENTION_QK_NONE) write_qk(p, begin, end, top, sum);
}

void dbt_attention_ref(const dbt_attention *a, float *bound) {
    const int64_t group = a->kv_heads > 0 ? a->heads / a->kv_heads : 1;
    for (int64_t b = 0; b < a->batch; b++) {
        for (int64_t h = 0; h < a->heads; h++) {
            for (int64_t s = 0; s < a->queries; s++) {
                const place p = {a, &a->rows[b], b, h, h / group, s};
                one_query(&p, bound);
            }
        }
    }
}

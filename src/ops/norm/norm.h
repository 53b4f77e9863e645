/* Normalization ops: shared attributes and the kernel behind all that work on rows.
 *
 *   s = term 0 + term 1 + term 2       (a plain norm has one term; Skip* and Embed* add more)
 *   mean = sum(s) / n                  (0 when not centred: RMS norms)
 *   y = (s - mean) / sqrt(sum((s - mean)^2) / n + epsilon) * gain + shift
 *
 * Sums run in the lanes of base/math.h: results depend on n alone, not on threads or the ISA. */
#ifndef DBT_OPS_NORM_NORM_H
#define DBT_OPS_NORM_NORM_H

#include "ops/op.h"

enum {
    DBT_NORM_LAYER,
    DBT_NORM_RMS,
    DBT_NORM_SKIP_LAYER,
    DBT_NORM_SKIP_RMS,
    DBT_NORM_INSTANCE,
    DBT_NORM_GROUP,
    DBT_NORM_GROUP_18 /* scale and bias per group, not per channel */
};

typedef struct dbt_norm_attrs {
    int64_t axis, num_groups, training_mode, p;
    float epsilon;
} dbt_norm_attrs;

/* Row r of a term is row (index ? index[r % n_index] : r) % rows of data. */
typedef struct dbt_norm_term {
    const float *data; /* NULL: no such term */
    const int32_t *index;
    int64_t rows, n_index;
} dbt_norm_term;

typedef struct dbt_norm_rows {
    dbt_norm_term term[3];
    int64_t rows, n;
    const float *gain, *shift; /* repeated along a row every gain_n, shift_n elements; NULL: 1, 0 */
    int64_t gain_n, shift_n;
    float epsilon;
    bool centred;
    uint64_t isa;                /* what may be used; results do not depend on it */
    float *y, *mean, *inv, *sum; /* NULL where not wanted; y or sum when there are several terms */
} dbt_norm_rows;

void dbt_norm_run_rows(const dbt_norm_rows *job, dbt_pool *pool);
/* Rows [begin, end) of it: plain, and compiled for an instruction set. */
void dbt_norm_rows_plain(const dbt_norm_rows *job, int64_t begin, int64_t end);
void dbt_norm_rows_avx2(const dbt_norm_rows *job, int64_t begin, int64_t end);
void dbt_norm_rows_avx512(const dbt_norm_rows *job, int64_t begin, int64_t end);
/* Bounds of y, mean, inv and sum, NULL where not wanted. */
void dbt_norm_bound_rows(const dbt_norm_rows *job, float *const bound[4]);

/* Mean (0 when not centred) and 1 / sqrt(variance + epsilon) of n values. */
void dbt_norm_statistics(const float *x, int64_t n, bool centred, float epsilon, float *mean,
                         float *inv);
/* How far these two can be off: |mean - exact|, and |inv - exact| / inv. */
void dbt_norm_statistics_bound(const float *x, int64_t n, bool centred, float epsilon, float *mean,
                               float *inv);

/* Where the inputs of LayerNormalization, RMS and the Skip forms are; BAD_INPUT when their shapes do
 * not fit. */
typedef struct dbt_norm_layout {
    int64_t rows, n;
    bool centred, skips;
    uint32_t gain, shift, bias; /* inputs; shift and bias 0 where there is none */
} dbt_norm_layout;
dibit_status dbt_norm_layout_of(const dbt_node *node, const dibit_tensor *const *in,
                                dibit_error *error, dbt_norm_layout *out);

/* The groups of InstanceNormalization and GroupNormalization: `rows` groups of `n` elements, `groups` of
 * them in a batch row; `per` elements share a gain. */
typedef struct dbt_norm_groups {
    int64_t rows, groups, n, per;
} dbt_norm_groups;
dibit_status dbt_norm_groups_of(const dbt_node *node, const dibit_tensor *const *in,
                                dibit_error *error, dbt_norm_groups *out);

/* norm_op.c, norm_cpu.c: LayerNormalization, RMS and the Skip forms. */
dibit_status dbt_norm_infer_gain(const dbt_infer *infer, uint32_t i);
dibit_status dbt_norm_cpu_run(const dbt_cpu_call *call);
dibit_status dbt_norm_cpu_bound(const dbt_cpu_call *call, float *const *bound);
/* On a device (norm_gpu.c). */
dibit_status dbt_norm_encode(const dbt_gpu_call *call);
dibit_status dbt_norm_embed_encode(const dbt_gpu_call *call);
/* y = x / sqrt(mean(x^2) + epsilon) * gain, row by row. */
typedef struct dbt_norm_gpu_rms {
    int64_t rows, n;
    float epsilon;
    dbt_hal_buffer *x, *gain, *y; /* [rows, n], [n], [rows, n] */
} dbt_norm_gpu_rms;
dibit_status dbt_norm_gpu_record_rms(const dbt_gpu_call *call, const dbt_norm_gpu_rms *rms);
dibit_status dbt_norm_group_encode(const dbt_gpu_call *call);
/* norm_embed.c */
dibit_status dbt_norm_embed_infer(dbt_infer *infer);
dibit_status dbt_norm_embed_check(const dbt_node *node, const dibit_tensor *const *in,
                                  dibit_error *error);
dibit_status dbt_norm_embed_run(const dbt_cpu_call *call);
dibit_status dbt_norm_embed_bound(const dbt_cpu_call *call, float *const *bound);
/* norm_channel.c: norms with a scale and a bias per channel (axis 1), and LpNormalization. */
dibit_status dbt_norm_group_infer(dbt_infer *infer);
dibit_status dbt_norm_group_run(const dbt_cpu_call *call);
dibit_status dbt_norm_group_bound(const dbt_cpu_call *call, float *const *bound);
dibit_status dbt_norm_batch_infer(dbt_infer *infer);
dibit_status dbt_norm_batch_run(const dbt_cpu_call *call);
dibit_status dbt_norm_batch_bound(const dbt_cpu_call *call, float *const *bound);
dibit_status dbt_norm_lp_infer(dbt_infer *infer);
dibit_status dbt_norm_lp_run(const dbt_cpu_call *call);
dibit_status dbt_norm_lp_bound(const dbt_cpu_call *call, float *const *bound);

#endif

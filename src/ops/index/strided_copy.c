/* The copy between strided arrays that most moving ops come down to. Dims of 1 are dropped and
 * neighbours that are contiguous in both arrays are merged: common cases are a few memcpy. A
 * transposition, contiguous in the source along another axis than the last, goes tile by tile so
 * that a cache line that was read is used up. */
#include "ops/index/index.h"

void dbt_dense_strides(int32_t rank, const int64_t *dims, int64_t *strides) {
    int64_t n = 1;
    for (int32_t i = rank; i-- > 0;) {
        strides[i] = n;
        n *= dims[i];
    }
}

int64_t dbt_dims_product(const int64_t *dims, int32_t from, int32_t to) {
    int64_t n = 1;
    for (int32_t i = from; i < to; i++) n *= dims[i];
    return n;
}

void dbt_strided_simplify(const dbt_strided *in, dbt_strided *out) {
    int32_t r = 0;
    out->dst_at = in->dst_at;
    out->src_at = in->src_at;
    for (int32_t i = 0; i < in->rank; i++) {
        if (in->dims[i] == 1) continue;
        if (r > 0 && out->dst_stride[r - 1] == in->dims[i] * in->dst_stride[i] &&
            out->src_stride[r - 1] == in->dims[i] * in->src_stride[i]) {
            out->dims[r - 1] *= in->dims[i];
            out->dst_stride[r - 1] = in->dst_stride[i];
            out->src_stride[r - 1] = in->src_stride[i];
            continue;
        }
        out->dims[r] = in->dims[i];
        out->dst_stride[r] = in->dst_stride[i];
        out->src_stride[r] = in->src_stride[i];
        r++;
    }
    if (r == 0) {
        out->dims[0] = 1;
        out->dst_stride[0] = out->src_stride[0] = 1;
        r = 1;
    }
    out->rank = r;
}

#define COPY_ROW(bytes)                                                                            \
    for (int64_t i = 0; i < n; i++) {                                                              \
        memcpy(dst + i * dst_stride * (bytes), src + i * src_stride * (bytes), bytes);             \
    }

static void copy_row(uint32_t element_bytes, char *dst, int64_t dst_stride, const char *src,
                     int64_t src_stride, int64_t n) {
    if (dst_stride == 1 && src_stride == 1) {
        memcpy(dst, src, (size_t)n * element_bytes);
        return;
    }
    switch (element_bytes) {
    case 1: COPY_ROW(1) break;
    case 2: COPY_ROW(2) break;
    case 4: COPY_ROW(4) break;
    default: COPY_ROW(8) break;
    }
}

typedef struct copy_job {
    dbt_strided s;
    uint32_t element_bytes;
    char *dst;
    const char *src;
    int64_t n_rows, n_tasks;
} copy_job;

/* A task copies some of the rows along the last axis, counted through the outer axes. */
static void copy_rows(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const copy_job *const job = ctx;
    const dbt_strided *const s = &job->s;
    const int32_t last = s->rank - 1;
    const int64_t begin = dbt_task_begin(job->n_rows, job->n_tasks, task);
    const int64_t end = dbt_task_begin(job->n_rows, job->n_tasks, task + 1);
    int64_t at[DBT_STRIDED_MAX_RANK] = {0}, dst = 0, src = 0, rest = begin;
    for (int32_t i = last; i-- > 0;) {
        at[i] = rest % s->dims[i];
        rest /= s->dims[i];
        dst += at[i] * s->dst_stride[i];
        src += at[i] * s->src_stride[i];
    }
    for (int64_t row = begin; row < end; row++) {
        copy_row(job->element_bytes, job->dst + dst * job->element_bytes, s->dst_stride[last],
                 job->src + src * job->element_bytes, s->src_stride[last], s->dims[last]);
        for (int32_t i = last; i-- > 0;) {
            dst += s->dst_stride[i];
            src += s->src_stride[i];
            if (++at[i] < s->dims[i]) break;
            dst -= s->dims[i] * s->dst_stride[i];
            src -= s->dims[i] * s->src_stride[i];
            at[i] = 0;
        }
    }
}

enum { TILE_ROWS = 16, TILE_COLUMNS = 64 };

/* Moves the axis along which the source is contiguous before the last one; false when there is none,
 * or it is the last. The order of the axes does not matter to what is copied. */
static bool find_tiles(dbt_strided *s) {
    const int32_t last = s->rank - 1;
    if (s->src_stride[last] == 1 || s->dst_stride[last] != 1) return false;
    int32_t at = 0;
    while (at < last && s->src_stride[at] != 1) at++;
    if (at == last) return false;
    for (; at + 1 < last; at++) {
        const int64_t dim = s->dims[at], dst = s->dst_stride[at], src = s->src_stride[at];
        s->dims[at] = s->dims[at + 1];
        s->dst_stride[at] = s->dst_stride[at + 1];
        s->src_stride[at] = s->src_stride[at + 1];
        s->dims[at + 1] = dim;
        s->dst_stride[at + 1] = dst;
        s->src_stride[at + 1] = src;
    }
    return true;
}

/* A task copies some of the bands of TILE_ROWS rows. */
static void copy_bands(void *ctx, int64_t task, uint32_t thread) {
    (void)thread;
    const copy_job *const job = ctx;
    const dbt_strided *const s = &job->s;
    const int32_t last = s->rank - 1;
    const int64_t rows = s->dims[last - 1], n = s->dims[last];
    const int64_t bands = (rows + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t end = dbt_task_begin(job->n_rows, job->n_tasks, task + 1);
    for (int64_t band = dbt_task_begin(job->n_rows, job->n_tasks, task); band < end; band++) {
        const int64_t first = band % bands * TILE_ROWS;
        const int64_t height = rows - first < TILE_ROWS ? rows - first : TILE_ROWS;
        int64_t dst = first * s->dst_stride[last - 1], src = first, rest = band / bands;
        for (int32_t i = last - 1; i-- > 0;) {
            dst += rest % s->dims[i] * s->dst_stride[i];
            src += rest % s->dims[i] * s->src_stride[i];
            rest /= s->dims[i];
        }
        for (int64_t column = 0; column < n; column += TILE_COLUMNS) {
            const int64_t width = n - column < TILE_COLUMNS ? n - column : TILE_COLUMNS;
            for (int64_t row = 0; row < height; row++) {
                const int64_t to = dst + row * s->dst_stride[last - 1] + column;
                const int64_t from = src + row + column * s->src_stride[last];
                copy_row(job->element_bytes, job->dst + to * job->element_bytes, 1,
                         job->src + from * job->element_bytes, s->src_stride[last], width);
            }
        }
    }
}

void dbt_strided_copy(dbt_pool *pool, const dbt_strided *copy, uint32_t element_bytes, void *dst,
                      const void *src) {
    for (int32_t i = 0; i < copy->rank; i++) {
        if (copy->dims[i] <= 0) return;
    }
    copy_job job = {.element_bytes = element_bytes,
                    .dst = (char *)dst + copy->dst_at * element_bytes,
                    .src = (const char *)src + copy->src_at * element_bytes};
    dbt_strided_simplify(copy, &job.s);
    const int32_t last = job.s.rank - 1;
    const int64_t row = job.s.dims[last];
    const bool dense = job.s.dst_stride[last] == 1 && job.s.src_stride[last] == 1;
    if (find_tiles(&job.s)) {
        const int64_t bands = (job.s.dims[last - 1] + TILE_ROWS - 1) / TILE_ROWS;
        job.n_rows = dbt_dims_product(job.s.dims, 0, last - 1) * bands;
        job.n_tasks = dbt_task_count(job.n_rows, TILE_ROWS * row);
        dbt_parallel_for(pool, job.n_tasks, copy_bands, &job);
        return;
    }
    job.n_rows = dbt_dims_product(job.s.dims, 0, last);
    job.n_tasks = dbt_task_count(job.n_rows, dense ? row * element_bytes / 32 + 8 : row);
    dbt_parallel_for(pool, job.n_tasks, copy_rows, &job);
}

dibit_status dbt_move_run(const dbt_cpu_call *call, dbt_move_plan plan) {
    dbt_strided copy = {.rank = 0};
    DBT_TRY(plan(call, &copy));
    dbt_strided_copy(call->pool, &copy, dbt_element_bytes(call->out[0]), call->out[0]->data,
                     call->in[0]->data);
    return DIBIT_OK;
}

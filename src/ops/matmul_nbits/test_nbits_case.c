/* Makes MatMulNBits problems. The packer sets one bit after the other, so that it shares no shift
 * with the code under test. */
#include "dbt_test.h"

#include "ops/matmul_nbits/test_nbits_case.h"

static void *memory(size_t bytes) {
    void *const p = malloc(bytes ? bytes : 1);
    assert_non_null(p);
    return p;
}

static int64_t pick(uint64_t *seed, int64_t lo, int64_t hi) {
    return lo + (int64_t)(dbt_test_random(seed) % (uint64_t)(hi - lo + 1));
}

static void put_bits(uint8_t *stream, uint32_t bits, int64_t i, uint32_t code) {
    for (uint32_t j = 0; j < bits; j++) {
        const int64_t bit = i * (int64_t)bits + j;
        const uint8_t mask = (uint8_t)(1u << bit % 8);
        stream[bit / 8] =
            (uint8_t)(code >> j & 1 ? stream[bit / 8] | mask : stream[bit / 8] & ~mask);
    }
}

static void fill_garbage(uint64_t *seed, uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)dbt_test_random(seed);
}

/* Stores v at element i in the type, and gives back what was stored. */
static float store(void *at, dibit_type type, int64_t i, float v) {
    uint8_t *const bytes = at;
    if (type == DIBIT_TYPE_FLOAT) {
        memcpy(bytes + i * 4, &v, 4);
        return v;
    }
    const uint16_t h = type == DIBIT_TYPE_FLOAT16 ? dbt_float_to_half(v) : dbt_float_to_bfloat16(v);
    memcpy(bytes + i * 2, &h, 2);
    return type == DIBIT_TYPE_FLOAT16 ? dbt_half_to_float(h) : dbt_bfloat16_to_float(h);
}

static uint32_t make_code(const nbits_case *c, uint64_t *seed) {
    const uint32_t top = (1u << c->bits) - 1;
    if (c->fill == FILL_EDGES) return pick(seed, 0, 3) ? (pick(seed, 0, 1) ? top : 0) : top / 2;
    return (uint32_t)pick(seed, 0, top);
}

static void make_b(const nbits_case *c, uint64_t *seed, nbits_data *d) {
    const int64_t row_bytes = dbt_nbits_row_bytes(&d->p);
    d->b_memory = memory((size_t)(c->N * row_bytes) + 1);
    d->codes = memory((size_t)(c->N * c->K));
    uint8_t *const b = d->b_memory + 1; /* odd on purpose */
    fill_garbage(seed, b, (size_t)(c->N * row_bytes));
    for (int64_t i = 0; i < c->N * c->K; i++) {
        d->codes[i] = (uint8_t)make_code(c, seed);
        put_bits(b + i / c->K * row_bytes, c->bits, i % c->K, d->codes[i]);
    }
    d->p.b = b;
}

static void make_scales(const nbits_case *c, uint64_t *seed, nbits_data *d) {
    const int64_t n = c->N * d->p.k_blocks;
    d->scales_memory = memory((size_t)n * (size_t)dbt_nbits_float_bytes(c->scale_type) + 1);
    d->scales = memory((size_t)n * sizeof(float));
    void *const at = d->scales_memory + 1;
    for (int64_t i = 0; i < n; i++) {
        float v = dbt_test_uniform(seed, -0.5f, 0.5f);
        if (c->fill == FILL_EXACT)
            v = (pick(seed, 0, 1) ? 1.0f : 0.5f) * (pick(seed, 0, 1) ? 1.0f : -1.0f);
        if (c->fill == FILL_EDGES) v = ldexpf(v, (int)pick(seed, -10, 10));
        d->scales[i] = store(at, c->scale_type, i, v);
    }
    d->p.scales = at;
    d->p.scale_type = c->scale_type;
}

static void make_zero_points(const nbits_case *c, uint64_t *seed, nbits_data *d) {
    const int64_t k_blocks = d->p.k_blocks, n = c->N * k_blocks,
                  row = dbt_nbits_zero_row_bytes(&d->p);
    const float top = (float)((1u << c->bits) - 1);
    d->zero_points = memory((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) d->zero_points[i] = (float)(1u << (c->bits - 1));
    if (c->zp == ZP_NONE) return;
    const dibit_type type = c->zp == ZP_PACKED  ? DIBIT_TYPE_UINT8
                            : c->zp == ZP_FLOAT ? DIBIT_TYPE_FLOAT
                                                : DIBIT_TYPE_FLOAT16;
    const size_t bytes = type == DIBIT_TYPE_UINT8 ? (size_t)(c->N * row)
                                                  : (size_t)n * (size_t)dbt_nbits_float_bytes(type);
    d->zero_points_memory = memory(bytes + 1);
    uint8_t *const at = d->zero_points_memory + 1;
    fill_garbage(seed, at, bytes);
    for (int64_t i = 0; i < n; i++) {
        const uint32_t code = make_code(c, seed);
        d->zero_points[i] = (float)code;
        if (type == DIBIT_TYPE_UINT8) {
            put_bits(at + i / k_blocks * row, c->bits, i % k_blocks, code);
            continue;
        }
        float v = dbt_test_uniform(seed, 0.0f, top);
        if (c->fill == FILL_EXACT) v = 0.5f * (float)pick(seed, 0, 2 * (int64_t)top);
        if (c->fill == FILL_EDGES) v = pick(seed, 0, 1) ? top : 0.0f;
        d->zero_points[i] = store(at, type, i, v);
    }
    d->p.zero_points = at;
    d->p.zero_point_type = type;
}

/* One run of block_size activations. */
static void make_block(const nbits_case *c, uint64_t *seed, float *a, int64_t n) {
    const int64_t kind = pick(seed, 0, 3);
    const float size = ldexpf(1.0f, (int)pick(seed, -20, 20));
    for (int64_t i = 0; i < n; i++) {
        a[i] = dbt_test_uniform(seed, -1.0f, 1.0f);
        if (c->fill == FILL_EXACT)
            a[i] = (float)pick(seed, c->int8_activations ? -2 : -4, c->int8_activations ? 2 : 4);
        if (c->fill == FILL_EDGES) {
            if (kind == 0) a[i] = 0.0f;
            if (kind == 1) a[i] = pick(seed, 0, 1) ? 1.0f : -1.0f;
            if (kind == 2) a[i] *= size;
        }
    }
    /* With an absmax of 127 the int8 activations are the integers themselves. */
    if (c->fill == FILL_EXACT && c->int8_activations)
        a[pick(seed, 0, n - 1)] = pick(seed, 0, 1) ? 127.0f : -127.0f;
}

static void make_a(const nbits_case *c, uint64_t *seed, nbits_data *d) {
    d->a = memory((size_t)(c->M * c->K) * sizeof(float));
    for (int64_t m = 0; m < c->M; m++) {
        for (int64_t k = 0; k < c->K; k += c->block_size) {
            make_block(c, seed, d->a + m * c->K + k,
                       c->K - k < c->block_size ? c->K - k : c->block_size);
        }
    }
    d->p.a = d->a;
    if (c->bias) {
        d->bias = memory((size_t)c->N * sizeof(float));
        for (int64_t n = 0; n < c->N; n++) {
            d->bias[n] =
                c->fill == FILL_EXACT ? (float)pick(seed, -9, 9) : dbt_test_uniform(seed, -9, 9);
        }
        d->p.bias = d->bias;
    }
    if (c->g_idx) {
        d->g_idx = memory((size_t)c->K * sizeof(int32_t));
        for (int64_t k = 0; k < c->K; k++) d->g_idx[k] = (int32_t)pick(seed, 0, d->p.k_blocks - 1);
        d->p.g_idx = d->g_idx;
    }
}

void nbits_data_create(const nbits_case *c, uint64_t *seed, nbits_data *out) {
    *out = (nbits_data){.p = {.M = c->M,
                              .N = c->N,
                              .K = c->K,
                              .block_size = c->block_size,
                              .k_blocks = (c->K + c->block_size - 1) / c->block_size,
                              .bits = c->bits,
                              .int8_activations = c->int8_activations}};
    make_b(c, seed, out);
    make_scales(c, seed, out);
    make_zero_points(c, seed, out);
    make_a(c, seed, out);
    out->y_memory = memory((size_t)(c->M * c->N + 2 * NBITS_CANARIES) * sizeof(float));
    out->y = out->y_memory + NBITS_CANARIES;
    out->p.y = out->y;
    nbits_data_clear_y(out);
}

void nbits_data_free(nbits_data *data) {
    free(data->a);
    free(data->bias);
    free(data->y_memory);
    free(data->b_memory);
    free(data->scales_memory);
    free(data->zero_points_memory);
    free(data->g_idx);
    free(data->codes);
    free(data->scales);
    free(data->zero_points);
}

static const float canary = -12345.678f;

void nbits_data_clear_y(nbits_data *data) {
    const int64_t n = data->p.M * data->p.N;
    for (int64_t i = -NBITS_CANARIES; i < n + NBITS_CANARIES; i++) {
        data->y[i] = i >= 0 && i < n ? NAN : canary;
    }
}

bool nbits_data_canaries_live(const nbits_data *data) {
    const int64_t n = data->p.M * data->p.N;
    bool live = true;
    for (int64_t i = 0; i < NBITS_CANARIES; i++) {
        live = live && data->y[-1 - i] == canary && data->y[n + i] == canary;
    }
    return live;
}

void nbits_data_oracle(const nbits_data *data, double *y, double *s) {
    const dbt_matmul_nbits *const p = &data->p;
    double *const a = memory((size_t)p->K * sizeof *a);
    for (int64_t m = 0; m < p->M; m++) {
        for (int64_t begin = 0; begin < p->K; begin += p->block_size) {
            const int64_t end = begin + p->block_size < p->K ? begin + p->block_size : p->K;
            float absmax = 0.0f;
            for (int64_t k = begin; k < end; k++)
                absmax = fmaxf(absmax, fabsf(data->a[m * p->K + k]));
            for (int64_t k = begin; k < end; k++) {
                const float v = data->a[m * p->K + k];
                a[k] = (double)v;
                if (p->int8_activations) {
                    a[k] = absmax > 0
                               ? (double)(absmax / 127.0f) * rint((double)(v * (127.0f / absmax)))
                               : 0.0;
                }
            }
        }
        for (int64_t n = 0; n < p->N; n++) {
            double sum = data->bias ? (double)data->bias[n] : 0.0, size = fabs(sum);
            for (int64_t k = 0; k < p->K; k++) {
                const int64_t i =
                    n * p->k_blocks + (data->g_idx ? data->g_idx[k] : k / p->block_size);
                const double w =
                    ((double)data->codes[n * p->K + k] - (double)data->zero_points[i]) *
                    (double)data->scales[i];
                sum += a[k] * w;
                size += fabs(a[k] * w);
            }
            y[m * p->N + n] = sum;
            s[m * p->N + n] = size;
        }
    }
    free(a);
}

void nbits_case_text(const nbits_case *c, char *text, size_t bytes) {
    static const char *const zps[N_ZP] = {"none", "packed", "float", "float16"};
    static const char *const fills[N_FILL] = {"exact", "random", "edges"};
    snprintf(text, bytes,
             "%lldx%lldx%lld (M x N x K), block %lld, %u bits, zero points %s, %s fill, scales "
             "%s%s%s, %s activations",
             (long long)c->M, (long long)c->N, (long long)c->K, (long long)c->block_size,
             (unsigned)c->bits, zps[c->zp], fills[c->fill], dibit_type_name(c->scale_type),
             c->g_idx ? ", g_idx" : "", c->bias ? ", bias" : "",
             c->int8_activations ? "int8" : "float");
}

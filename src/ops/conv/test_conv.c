/* Convolutions against double references that index the padded input element by element. */
#include "dbt_test.h"
#include "op_harness.h"

enum { MAX = 4096 };

static float *fill(float *x, int64_t n, uint64_t seed) {
    for (int64_t i = 0; i < n; i++) x[i] = dbt_test_uniform(&seed, -1, 1);
    return x;
}

/* ---- CausalConvWithState --------------------------------------------------------------------- */

typedef struct causal {
    int64_t batch, channels, length, taps, dilation, windows;
    bool last, past, bias, silu;
} causal;

/* Where element t of channel c of row b lies, when there are n positions. */
static int64_t at(const causal *k, int64_t n, int64_t b, int64_t c, int64_t t) {
    return k->last ? (b * n + t) * k->channels + c : (b * k->channels + c) * n + t;
}

static void check_causal(const causal *k) {
    static float x[MAX], w[MAX], bias[MAX], past[MAX], y[MAX], present[MAX];
    const int64_t s = (k->taps - 1) * k->dilation, slots = k->windows ? k->windows : 1;
    const int64_t slot = k->batch * k->channels * s;
    fill(x, k->batch * k->channels * k->length, 1);
    fill(w, k->channels * k->taps, 2);
    fill(bias, k->channels, 3);
    fill(past, slots * slot, 4);
    for (int64_t b = 0; b < k->batch; b++) {
        for (int64_t c = 0; c < k->channels; c++) {
            double v[256];
            for (int64_t i = 0; i < s; i++) {
                v[i] = k->past ? (double)past[(slots - 1) * slot + at(k, s, b, c, i)] : 0;
            }
            for (int64_t i = 0; i < k->length; i++) v[s + i] = (double)x[at(k, k->length, b, c, i)];
            for (int64_t t = 0; t < k->length; t++) {
                double sum = k->bias ? (double)bias[c] : 0;
                for (int64_t j = 0; j < k->taps; j++) {
                    sum += (double)w[c * k->taps + j] * v[t + j * k->dilation];
                }
                y[at(k, k->length, b, c, t)] = (float)(k->silu ? sum / (1 + exp(-sum)) : sum);
            }
            for (int64_t j = 0; j < slots; j++) {
                const int64_t end = k->length - (slots - 1 - j);
                for (int64_t i = 0; i < s; i++) {
                    present[j * slot + at(k, s, b, c, i)] = end > 0 ? (float)v[end + i] : 0;
                }
            }
        }
    }
    const int64_t c0 = k->last ? 2 : k->channels, c1 = k->channels / 2;
    dibit_tensor in[4] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, k->batch, k->channels, k->length),
                          DBT_TENSOR(DIBIT_TYPE_FLOAT, w, k->channels, 1, k->taps), DBT_ABSENT,
                          DBT_ABSENT};
    dibit_tensor out[2] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, y, k->batch, k->channels, k->length),
                           DBT_TENSOR(DIBIT_TYPE_FLOAT, present, k->batch, k->channels, s)};
    if (k->last) { /* two trailing channel axes */
        in[0] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, x, k->batch, k->length, c0, c1);
        out[0] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, y, k->batch, k->length, c0, c1);
        out[1] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, present, k->batch, s, c0, c1);
    }
    if (k->windows) {
        memmove(out[1].dims + 1, out[1].dims, (size_t)out[1].rank++ * sizeof *out[1].dims);
        out[1].dims[0] = k->windows;
    }
    if (k->bias) in[2] = (dibit_tensor)DBT_TENSOR(DIBIT_TYPE_FLOAT, bias, k->channels);
    if (k->past) {
        in[3] = out[1];
        in[3].data = past;
    }
    const dbt_onnx_attr attrs[] = {
        DBT_INT("dilation", k->dilation), DBT_INT("channels_last", k->last),
        DBT_INT("state_window", k->windows), DBT_STRING("activation", k->silu ? "silu" : "none")};
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "CausalConvWithState",
                     .opset = 1,
                     .attrs = attrs,
                     .n_attrs = 4,
                     .inputs = in,
                     .n_inputs = 4,
                     .n_outputs = 2};
    dbt_op_case_expect(&c, 0, &out[0]);
    if (s > 0) dbt_op_case_expect(&c, 1, &out[1]);
    c.absent_outputs = 2;
    dbt_op_case_expect(&c, 0, &out[0]);
}

static void test_causal_conv(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 2, 5, 19}, taps[] = {1, 2, 3, 4};
    for (int i = 0; i < 256; i++) {
        check_causal(&(causal){.batch = 2,
                               .channels = 6,
                               .length = lengths[i % 4],
                               .taps = taps[i / 4 % 4],
                               .dilation = 1 + i / 16 % 2,
                               .last = i / 32 % 2,
                               .past = i / 64 % 2,
                               .bias = i / 128 % 2,
                               .silu = i % 3 == 0});
    }
}

static void test_causal_conv_keeps_a_window_of_states(void **state) {
    (void)state;
    for (int64_t windows = 1; windows <= 8; windows++) {
        for (int i = 0; i < 8; i++) {
            check_causal(&(causal){.batch = 2,
                                   .channels = 4,
                                   .length = i % 2 ? 3 : 9,
                                   .taps = 3,
                                   .dilation = 2,
                                   .windows = windows,
                                   .last = i / 2 % 2,
                                   .past = i / 4 % 2});
        }
    }
}

static void test_bad_causal_convs_are_refused(void **state) {
    (void)state;
    static const float x[64];
    dibit_tensor in[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 4, 5),
                         DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 4, 1, 3), DBT_ABSENT,
                         DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 4, 2)};
    const struct {
        dbt_onnx_attr attr;
        dibit_status status;
        const char *text;
    } bad[] = {
        {DBT_INT("ndim", 2), DIBIT_UNSUPPORTED, "ndim 2"},
        {DBT_INT("dilation", 0), DIBIT_BAD_FILE, "dilation"},
        {DBT_INT("dilation", 2), DIBIT_BAD_FILE, "dim 2 of input 3"},
        {DBT_INT("state_window", 9), DIBIT_BAD_FILE, "state_window"},
        {DBT_INT("state_window", 1), DIBIT_BAD_FILE, "must have rank 4"},
        {DBT_INT("channels_last", 2), DIBIT_BAD_FILE, "channels_last"},
        {DBT_STRING("activation", "gelu"), DIBIT_BAD_FILE, "'gelu'"},
    };
    dbt_op_case c = {.domain = "com.microsoft",
                     .name = "CausalConvWithState",
                     .opset = 1,
                     .inputs = in,
                     .n_inputs = 4,
                     .n_attrs = 1,
                     .n_outputs = 2};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        c.attrs = &bad[i].attr;
        dbt_op_case_refused(&c, bad[i].status, bad[i].text);
    }
    c.n_attrs = 0;
    in[1].dims[0] = 3;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "dim 0 of input 1 ('x') must be 4, got 3");
}

/* ---- Conv, in two spatial axes; one axis has height 1 ---------------------------------------- */

typedef struct conv2d {
    int64_t n, channels, in[2], filters, kernel[2], group, stride[2], dilation[2], pads[4];
    const char *auto_pad;
    int64_t out[2], begin[2]; /* what the padding comes to */
} conv2d;

static void reference(const conv2d *k, const float *x, const float *w, const float *bias,
                      float *y) {
    const int64_t per = k->channels / k->group, filters = k->filters / k->group;
    for (int64_t i = 0; i < k->n * k->filters * k->out[0] * k->out[1]; i++) {
        const int64_t ox = i % k->out[1], oy = i / k->out[1] % k->out[0];
        const int64_t m = i / k->out[1] / k->out[0] % k->filters;
        const int64_t n = i / k->out[1] / k->out[0] / k->filters;
        double sum = (double)bias[m];
        for (int64_t c = 0; c < per; c++) {
            for (int64_t ky = 0; ky < k->kernel[0]; ky++) {
                for (int64_t kx = 0; kx < k->kernel[1]; kx++) {
                    const int64_t iy = oy * k->stride[0] + ky * k->dilation[0] - k->begin[0];
                    const int64_t ix = ox * k->stride[1] + kx * k->dilation[1] - k->begin[1];
                    if (iy < 0 || iy >= k->in[0] || ix < 0 || ix >= k->in[1]) continue;
                    const int64_t channel = n * k->channels + m / filters * per + c;
                    sum += (double)x[(channel * k->in[0] + iy) * k->in[1] + ix] *
                           (double)w[((m * per + c) * k->kernel[0] + ky) * k->kernel[1] + kx];
                }
            }
        }
        y[i] = (float)sum;
    }
}

static void test_conv(void **state) {
    (void)state;
    static float x[MAX], w[MAX], bias[MAX], y[MAX];
    static const conv2d cases[] = {
        {1, 3, {1, 9}, 4, {1, 3}, 1, {1, 1}, {1, 1}, {0}, "NOTSET", {1, 7}, {0, 0}},
        {2, 4, {1, 20}, 6, {1, 4}, 2, {1, 2}, {1, 3}, {0, 5, 0, 1}, "NOTSET", {1, 9}, {0, 5}},
        {1, 8, {1, 11}, 8, {1, 3}, 8, {1, 1}, {1, 1}, {0, 2, 0, 0}, "NOTSET", {1, 11}, {0, 2}},
        {2, 3, {7, 8}, 5, {3, 2}, 1, {2, 1}, {1, 2}, {1, 0, 2, 3}, "NOTSET", {4, 9}, {1, 0}},
        {1, 2, {7, 9}, 2, {3, 4}, 1, {1, 2}, {1, 1}, {0}, "SAME_UPPER", {7, 5}, {1, 1}},
        {1, 2, {7, 9}, 2, {3, 4}, 1, {1, 2}, {1, 1}, {0}, "SAME_LOWER", {7, 5}, {1, 2}},
        {1, 2, {7, 9}, 4, {3, 4}, 2, {3, 2}, {1, 1}, {0}, "VALID", {2, 3}, {0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const conv2d *const k = &cases[i];
        const int64_t per = k->channels / k->group;
        fill(x, k->n * k->channels * k->in[0] * k->in[1], 1);
        fill(w, k->filters * per * k->kernel[0] * k->kernel[1], 2);
        fill(bias, k->filters, 3);
        reference(k, x, w, bias, y);
        const bool line = k->in[0] == 1; /* also as a 1-D convolution */
        for (int flat = 0; flat <= line; flat++) {
            dibit_tensor in[] = {
                DBT_TENSOR(DIBIT_TYPE_FLOAT, x, k->n, k->channels, k->in[0], k->in[1]),
                DBT_TENSOR(DIBIT_TYPE_FLOAT, w, k->filters, per, k->kernel[0], k->kernel[1]),
                DBT_TENSOR(DIBIT_TYPE_FLOAT, bias, k->filters)};
            dibit_tensor out =
                DBT_TENSOR(DIBIT_TYPE_FLOAT, y, k->n, k->filters, k->out[0], k->out[1]);
            dibit_tensor *const all[] = {&in[0], &in[1], &out};
            for (int t = 0; flat && t < 3; t++) {
                all[t]->rank = 3;
                all[t]->dims[2] = all[t]->dims[3];
            }
            dbt_onnx_attr attrs[] = {
                DBT_INTS("strides", k->stride[0], k->stride[1]),
                DBT_INTS("dilations", k->dilation[0], k->dilation[1]), DBT_INT("group", k->group),
                DBT_STRING("auto_pad", k->auto_pad),
                DBT_INTS("pads", k->pads[0], k->pads[1], k->pads[2], k->pads[3])};
            const int64_t pads[] = {k->pads[1], k->pads[3]};
            for (int a = 0; flat && a < 2; a++) {
                attrs[a].count = 1;
                attrs[a].ints++;
            }
            if (flat) {
                attrs[4].count = 2;
                attrs[4].ints = pads;
            }
            dbt_op_case_expect(&(dbt_op_case){.name = "Conv",
                                              .opset = 22,
                                              .inputs = in,
                                              .n_inputs = 3,
                                              .attrs = attrs,
                                              .n_attrs = strcmp(k->auto_pad, "NOTSET") ? 4 : 5},
                               0, &out);
        }
    }
}

/* y[d, h, w] = x[2d, h, w] + 10 x[2d + 3, h, w + 1], in three axes, and in four of which the last is 1. */
static void test_conv_of_many_axes(void **state) {
    (void)state;
    enum { D = 6, H = 3, W = 4 };
    static float x[D * H * W], y[2 * H * (W - 1)];
    static const float w[4] = {1, 0, 0, 10};
    fill(x, D * H * W, 4);
    for (int64_t i = 0; i < 2 * H * (W - 1); i++) {
        const int64_t d = i / (H * (W - 1)), h = i / (W - 1) % H, at = (2 * d * H + h) * W;
        y[i] = x[at + i % (W - 1)] + 10 * x[at + 3 * H * W + i % (W - 1) + 1];
    }
    for (int32_t axes = 3; axes <= 4; axes++) {
        dibit_tensor in[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 1, D, H, W, 1),
                             DBT_TENSOR(DIBIT_TYPE_FLOAT, w, 1, 1, 2, 1, 2, 1)};
        dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, y, 1, 1, 2, H, W - 1, 1);
        in[0].rank = in[1].rank = out.rank = 2 + axes;
        dbt_onnx_attr attrs[] = {DBT_INTS("strides", 2, 1, 1, 1),
                                 DBT_INTS("dilations", 3, 1, 1, 1)};
        attrs[0].count = attrs[1].count = (size_t)axes;
        const dbt_op_case c = {
            .name = "Conv", .opset = 11, .attrs = attrs, .n_attrs = 2, .inputs = in, .n_inputs = 2};
        dbt_op_case_expect(&c, 0, &out);
    }
}

static void test_bad_convs_are_refused(void **state) {
    (void)state;
    static const float x[64];
    dibit_tensor in[] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 1, 4, 5),
                         DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 4, 2, 3)};
    dbt_op_case c = {.name = "Conv", .opset = 11, .inputs = in, .n_inputs = 2};
    dbt_op_case_refused(&c, DIBIT_BAD_INPUT, "do not fit 1 groups");
    in[1].dims[1] = 4;
    const struct {
        dbt_onnx_attr attr;
        const char *text;
    } bad[] = {
        {DBT_INTS("strides", 0), "strides"},
        {DBT_INTS("strides", 1, 1), "must have 1 elements, got 2"},
        {DBT_INTS("pads", 1), "must have 2 elements, got 1"},
        {DBT_INTS("pads", -1, 0), "pads"},
        {DBT_INTS("dilations", 3), "larger than the padded input"},
        {DBT_INTS("kernel_shape", 2), "dim 2 of input 1"},
        {DBT_INT("group", 0), "group"},
        {DBT_STRING("auto_pad", "SAME"), "auto_pad"},
    };
    c.n_attrs = 1;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        c.attrs = &bad[i].attr;
        dbt_op_case_refused(&c, DIBIT_BAD_FILE, bad[i].text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_causal_conv),
        cmocka_unit_test(test_causal_conv_keeps_a_window_of_states),
        cmocka_unit_test(test_bad_causal_convs_are_refused),
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_conv_of_many_axes),
        cmocka_unit_test(test_bad_convs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

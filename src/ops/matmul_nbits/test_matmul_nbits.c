/* MatMulNBits: ref.c against numbers worked out by hand and against an oracle on unpacked data, then
 * every listed kernel against ref.c.
 *
 *     test_matmul_nbits [--seed S] [--full] [--isa portable] [--from-model M.onnx]
 *
 * A normal run covers every pair of parameter values, --full (or DIBIT_FULL=1) their product, and
 * --from-model adds a model's own configurations. DBT_SEED is --seed. */
#include "dbt_test.h"

#include "base/cpu.h"
#include "ops/matmul_nbits/nbits_model.h"
#include "ops/matmul_nbits/test_nbits_case.h"
#include "ops/matmul_nbits/test_nbits_matrix.h"
#include "ops/op.h"

static uint64_t seed = 20240229;
static bool full_product;
static const char *from_model;
static uint64_t isa;
static dbt_pool *pool; /* of three threads: splits that two cores would not show */

/* ---- One case on one kernel ---- */

typedef struct expectation {
    double *y, *s; /* [M, N] */
} expectation;

static void *aligned(uint64_t bytes) {
    void *const memory = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64 + 64);
    assert_non_null(memory);
    return memory;
}

/* NULL, or what is wrong with data->y. */
static const char *wrong(const nbits_case *c, const nbits_data *data, const expectation *want) {
    static char text[200];
    const double gamma = dbt_nbits_gamma(&data->p);
    for (int64_t i = 0; i < c->M * c->N; i++) {
        const double got = (double)data->y[i];
        /* Sums of up to 2^24 quarters are exact: scales and zero points are halves. */
        const bool exact = c->fill == FILL_EXACT && want->s[i] < 0x1p22;
        const double bound = exact ? 0.0 : gamma * want->s[i] + 0x1p-120;
        if (fabs(got - want->y[i]) <= bound) continue;
        snprintf(text, sizeof text, "y[%lld, %lld] is %.9g, expected %.9g within %.3g",
                 (long long)(i / c->N), (long long)(i % c->N), got, want->y[i], bound);
        return text;
    }
    return nbits_data_canaries_live(data) ? NULL : "wrote outside y";
}

static const char *run_kernel(const dbt_nbits_kernel *kernel, const nbits_case *c, nbits_data *data,
                              const expectation *want) {
    const size_t bytes = (size_t)(c->M * c->N) * sizeof(float);
    void *const scratch = aligned(dbt_nbits_scratch_bytes(&data->p, kernel, 3));
    nbits_data_clear_y(data);
    dbt_nbits_execute(&data->p, kernel, NULL, scratch);
    const char *problem = wrong(c, data, want);
    if (!problem) {
        float *const one_thread = aligned(bytes);
        memcpy(one_thread, data->y, bytes);
        nbits_data_clear_y(data);
        dbt_nbits_execute(&data->p, kernel, pool, scratch);
        if (memcmp(one_thread, data->y, bytes) != 0) problem = "the result depends on the threads";
        if (!nbits_data_canaries_live(data)) problem = "wrote outside y with threads";
        free(one_thread);
    }
    free(scratch);
    return problem;
}

/* ref.c against the oracle: both in double, so they agree far below float. */
static const char *run_ref(const nbits_case *c, const nbits_data *data, const expectation *oracle,
                           expectation *out) {
    static char text[200];
    dbt_matmul_nbits_ref(&data->p, out->y, out->s);
    for (int64_t i = 0; i < c->M * c->N; i++) {
        const double bound = (double)(c->K + 8) * 0x1p-50 * oracle->s[i];
        if (fabs(out->y[i] - oracle->y[i]) <= bound && fabs(out->s[i] - oracle->s[i]) <= bound)
            continue;
        snprintf(text, sizeof text, "ref's y[%lld] is %.17g, expected %.17g", (long long)i,
                 out->y[i], oracle->y[i]);
        return text;
    }
    return NULL;
}

/* The fast S against ref.c's. */
static const char *run_magnitudes(const nbits_case *c, nbits_data *data, const expectation *want) {
    static char text[200];
    nbits_data_clear_y(data);
    if (dbt_nbits_magnitudes(&data->p, isa, pool, data->y, NULL) != DIBIT_OK) return "no memory";
    const double most = 1 + dbt_nbits_gamma(&data->p), ref_error = (double)(c->K + 8) * 0x1p-53;
    for (int64_t i = 0; i < c->M * c->N; i++) {
        const double got = (double)data->y[i], s = want->s[i];
        if (got >= s * (1 - ref_error) && got <= s * most * most * (1 + ref_error)) continue;
        snprintf(text, sizeof text, "S[%lld, %lld] is %.9g, expected %.9g", (long long)(i / c->N),
                 (long long)(i % c->N), got, s);
        return text;
    }
    return nbits_data_canaries_live(data) ? NULL : "wrote outside S";
}

typedef void (*case_result)(void *ctx, const char *what, bool failed);

typedef struct case_run {
    const nbits_case *c;
    uint64_t case_seed;
    case_result on_result;
    void *ctx;
    int failures;
} case_run;

static void report(case_run *r, const char *what, const char *problem) {
    char text[300];
    nbits_case_text(r->c, text, sizeof text);
    if (problem) {
        printf("FAIL %s, %s: %s (--seed %llu)\n", what, text, problem,
               (unsigned long long)r->case_seed);
    }
    r->failures += problem != NULL;
    if (r->on_result) r->on_result(r->ctx, what, problem != NULL);
}

/* Runs ref.c, the fast S and every kernel that fits; failures are printed, counted and given to
 * `on_result`. */
static int run_case(const nbits_case *c, case_result on_result, void *ctx) {
    case_run r = {.c = c, .case_seed = seed, .on_result = on_result, .ctx = ctx};
    nbits_data data;
    nbits_data_create(c, &seed, &data);
    const size_t count = (size_t)(c->M * c->N);
    double *const memory = aligned(4 * count * sizeof(double));
    const expectation oracle = {memory, memory + count};
    expectation want = {memory + 2 * count, memory + 3 * count};
    nbits_data_oracle(&data, oracle.y, oracle.s);
    report(&r, "ref", run_ref(c, &data, &oracle, &want));
    if (r.failures == 0) { /* else there is nothing to compare with */
        report(&r, "S", run_magnitudes(c, &data, &want));
        int kernels = 0;
        for (size_t i = 0; i < dbt_nbits_kernel_count; i++) {
            const dbt_nbits_kernel *const kernel = &dbt_nbits_kernels[i];
            if (!dbt_nbits_kernel_fits(kernel, &data.p, isa)) continue;
            report(&r, kernel->name, run_kernel(kernel, c, &data, &want));
            kernels++;
        }
        if (kernels == 0) report(&r, "choice", "no kernel");
    }
    free(memory);
    nbits_data_free(&data);
    return r.failures;
}

/* ---- By hand ---- */

/* Multiplying with unit vectors reads single weights back. */
static void assert_weights(const dbt_matmul_nbits *problem, const double *want) {
    float a[64] = {0};
    double y[8], s[8];
    dbt_matmul_nbits p = *problem;
    p.M = 1;
    p.a = a;
    for (int64_t k = 0; k < p.K; k++) {
        a[k] = 1.0f;
        dbt_matmul_nbits_ref(&p, y, s);
        for (int64_t n = 0; n < p.N; n++) {
            if (y[n] != want[n * p.K + k]) {
                fail_msg("ref: w[%d, %d] is %g, by hand %g", (int)n, (int)k, y[n],
                         want[n * p.K + k]);
            }
            assert_true(s[n] == fabs(y[n]));
        }
        a[k] = 0.0f;
    }
}

static void test_ref_2_bit_weights_by_hand(void **state) {
    (void)state;
    /* K 40, block 16: three blocks a row, the last with 8 codes of padding; zero points take
     * 3 * 2 bits, so a byte a row. */
    const uint8_t b[2][12] = {
        {0xe4, 0xe4, 0xe4, 0xe4, 0x1b, 0x1b, 0x1b, 0x1b, 0x4e, 0x39, 0xff, 0xff},
        {0x00, 0xff, 0x55, 0xaa, 0xe4, 0x00, 0x00, 0x1b, 0x93, 0xe1, 0x12, 0x34},
    };
    const float scales[6] = {1.0f, -2.0f, 0.5f, 4.0f, 0.25f, -1.0f};
    const uint8_t zero_points[2] = {0xd9, 0x27}; /* 1, 2, 1 and padding 3; 3, 1, 2 and padding 0 */
    static const double want[80] = {
        -1,    0,     1,     2,     -1,    0,     1,     2,
        -1,    0,     1,     2,     -1,    0,     1,     2, /* 0 1 2 3 four times */
        -2,    0,     2,     4,     -2,    0,     2,     4,
        -2,    0,     2,     4,     -2,    0,     2,     4,    /* 3 2 1 0 four times */
        0.5,   1,     -0.5,  0,     0,     0.5,   1,     -0.5, /* 2 3 0 1, 1 2 3 0 */
        -12,   -12,   -12,   -12,   0,     0,     0,     0,
        -8,    -8,    -8,    -8,    -4,    -4,    -4,    -4,    /* 0, 3, 1, 2 */
        -0.25, 0,     0.25,  0.5,   -0.25, -0.25, -0.25, -0.25, /* 0 1 2 3, 0 */
        -0.25, -0.25, -0.25, -0.25, 0.5,   0.25,  0,     -0.25, /* 0, 3 2 1 0 */
        -1,    2,     1,     0,     1,     2,     0,     -1,    /* 3 0 1 2, 1 0 2 3 */
    };
    const dbt_matmul_nbits p = {
        .N = 2,
        .K = 40,
        .k_blocks = 3,
        .block_size = 16,
        .bits = 2,
        .b = b[0],
        .scales = scales,
        .scale_type = DIBIT_TYPE_FLOAT,
        .zero_points = zero_points,
        .zero_point_type = DIBIT_TYPE_UINT8,
    };
    assert_weights(&p, want);
    /* Without zero points every code loses 2. */
    dbt_matmul_nbits symmetric = p;
    symmetric.zero_points = NULL;
    symmetric.zero_point_type = DIBIT_TYPE_UNDEFINED;
    static const double first[4] = {-2, -1, 0, 1};
    double symmetric_want[80];
    for (int i = 0; i < 80; i++) {
        const double zero_point[6] = {1, 2, 1, 3, 1, 2};
        const int g = i / 40 * 3 + i % 40 / 16;
        symmetric_want[i] = want[i] + (zero_point[g] - 2) * (double)scales[g];
    }
    for (int i = 0; i < 4; i++) assert_true(symmetric_want[i] == first[i]);
    assert_weights(&symmetric, symmetric_want);
}

static void test_ref_3_bit_codes_by_hand(void **state) {
    (void)state;
    const uint8_t b[6] = {0x88, 0xc6, 0xfa, 0x88, 0xc6, 0xfa};
    const float scale = 1.0f, zero_point = 0.0f;
    static const double want[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};
    const dbt_matmul_nbits p = {
        .N = 1,
        .K = 16,
        .k_blocks = 1,
        .block_size = 16,
        .bits = 3,
        .b = b,
        .scales = &scale,
        .scale_type = DIBIT_TYPE_FLOAT,
        .zero_points = &zero_point,
        .zero_point_type = DIBIT_TYPE_FLOAT,
    };
    assert_weights(&p, want);
}

static void test_ref_4_and_8_bit_codes_by_hand(void **state) {
    (void)state;
    const uint8_t b[16] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe,
                           0x80, 0x7f, 0xff, 0x01, 0x00, 0x81, 0x40, 0xc0};
    const uint16_t half = 0xb800; /* -0.5 */
    static const double want4[16] = {4, 3.5,  3,  2.5,  2,  1.5,  1,  0.5,
                                     0, -0.5, -1, -1.5, -2, -2.5, -3, -3.5};
    const dbt_matmul_nbits p4 = {.N = 1,
                                 .K = 16,
                                 .k_blocks = 1,
                                 .block_size = 16,
                                 .bits = 4,
                                 .b = b,
                                 .scales = &half,
                                 .scale_type = DIBIT_TYPE_FLOAT16};
    assert_weights(&p4, want4);
    static const double want8[16] = {56, 39,  22,    5,    -12, -29,  -46, -63,
                                     0,  0.5, -63.5, 63.5, 64,  -0.5, 32,  -32};
    const dbt_matmul_nbits p8 = {.N = 1,
                                 .K = 16,
                                 .k_blocks = 1,
                                 .block_size = 16,
                                 .bits = 8,
                                 .b = b,
                                 .scales = &half,
                                 .scale_type = DIBIT_TYPE_FLOAT16};
    assert_weights(&p8, want8);
}

static void test_ref_g_idx_and_bias_by_hand(void **state) {
    (void)state;
    uint8_t b[8];
    memset(b, 0x55, sizeof b); /* every code is 1 */
    const float scales[2] = {1.0f, 8.0f}, bias = 100.0f;
    const uint8_t zero_points = 0x0c; /* 0, 3 */
    int32_t g_idx[32];
    double want[32];
    for (int k = 0; k < 32; k++) {
        g_idx[k] = k % 3 == 0;
        want[k] = (k % 3 == 0 ? -16.0 : 1.0);
    }
    dbt_matmul_nbits p = {
        .N = 1,
        .K = 32,
        .k_blocks = 2,
        .block_size = 16,
        .bits = 2,
        .b = b,
        .scales = scales,
        .scale_type = DIBIT_TYPE_FLOAT,
        .zero_points = &zero_points,
        .zero_point_type = DIBIT_TYPE_UINT8,
        .g_idx = g_idx,
    };
    assert_weights(&p, want);
    float a[32];
    for (int k = 0; k < 32; k++) a[k] = 1.0f;
    double y, s;
    p.M = 1;
    p.a = a;
    p.bias = &bias;
    dbt_matmul_nbits_ref(&p, &y, &s);
    assert_true(y == 100.0 - 11 * 16 + 21);
    assert_true(s == 100.0 + 11 * 16 + 21);
}

/* absmax 2.54 gives s 0.02: 1.27 is 63.5 steps and goes to even, 1.29 is 64.5 steps; a tail of one. */
static void test_ref_int8_activations_by_hand(void **state) {
    (void)state;
    uint8_t b[8];
    memset(b, 0xff, sizeof b); /* every code is 3, minus 2 is 1 */
    const float scales[2] = {1.0f, 1.0f};
    float a[17] = {254.0f, 127.0f, 129.0f, -127.0f, 1.0f, 0.9f, -3.0f};
    a[16] = -0.3f;
    dbt_matmul_nbits p = {.M = 1,
                          .N = 1,
                          .K = 17,
                          .k_blocks = 2,
                          .block_size = 16,
                          .bits = 2,
                          .b = b,
                          .int8_activations = true,
                          .scales = scales,
                          .scale_type = DIBIT_TYPE_FLOAT,
                          .a = a};
    double y, s;
    dbt_matmul_nbits_ref(&p, &y, &s);
    const double step = (double)(0.3f / 127.0f);
    /* 2 * (127 + 64 (63.5) + 64 (64.5) - 64 + 0 (0.5) + 0 - 2 (-1.5)) - 127 steps of the tail */
    assert_true(fabs(y - (2.0 * (127 + 64 + 64 - 64 + 0 + 0 - 2) - 127 * step)) < 1e-12);
    memset(a, 0, sizeof a);
    dbt_matmul_nbits_ref(&p, &y, &s);
    assert_true(y == 0.0 && s == 0.0);
    a[3] = INFINITY;
    dbt_matmul_nbits_ref(&p, &y, &s);
    assert_true(isnan(y));
}

/* ---- Named cases ---- */

/* Both kinds of activations with every fill; a large problem with one that is drawn, unless
 * full_product. */
static int run_both_modes(int64_t M, int64_t N, int64_t K, int64_t block_size, uint32_t bits,
                          nbits_zp zp) {
    const bool draw = M * N * K > INT64_C(1) << 24 && !full_product;
    int failures = 0;
    for (int int8 = 0; int8 < 2; int8++) {
        const int drawn = (int)(dbt_test_random(&seed) % N_FILL);
        for (int fill = 0; fill < N_FILL; fill++) {
            if (draw && fill != drawn) continue;
            const nbits_case c = {.M = M,
                                  .N = N,
                                  .K = K,
                                  .block_size = block_size,
                                  .bits = bits,
                                  .zp = zp,
                                  .fill = (nbits_fill)fill,
                                  .scale_type = DIBIT_TYPE_FLOAT,
                                  .int8_activations = int8 != 0};
            failures += run_case(&c, NULL, NULL);
        }
    }
    return failures;
}

/* The nine configurations that 2-bit support began with. */
#define NINE(X)                                                                                    \
    X(two_bits_symmetric_block_16, 1, 16, 16, 16, ZP_NONE)                                         \
    X(two_bits_symmetric_block_32, 1, 1, 64, 32, ZP_NONE)                                          \
    X(two_bits_symmetric_block_64, 1, 192, 384, 64, ZP_NONE)                                       \
    X(two_bits_symmetric_block_128, 4, 384, 128, 128, ZP_NONE)                                     \
    X(two_bits_symmetric_many_rows, 100, 288, 1024, 32, ZP_NONE)                                   \
    X(two_bits_zero_points_block_16, 4, 32, 48, 16, ZP_PACKED)                                     \
    X(two_bits_zero_points_block_32, 1, 32, 256, 32, ZP_PACKED)                                    \
    X(two_bits_zero_points_block_64, 1, 384, 1024, 64, ZP_PACKED)                                  \
    X(two_bits_zero_points_block_128, 100, 32, 256, 128, ZP_PACKED)
#define NINE_TEST(name, M, N, K, block, zp)                                                        \
    static void test_##name(void **state) {                                                        \
        (void)state;                                                                               \
        assert_int_equal(run_both_modes(M, N, K, block, 2, zp), 0);                                \
    }
NINE(NINE_TEST)

/* ---- The matrix ---- */

static const int64_t all_m[] = {1, 2, 3, 4, 5, 9, 33};
static const int64_t all_n[] = {1, 2, 3, 7, 8, 9, 33};
static const int64_t all_k[] = {1, 16, 31, 32, 33, 63, 96, 255, 257, 384, 576, 1030};
static const int64_t all_blocks[] = {16, 32, 64, 128, 256, 1024};
static const dibit_type all_scales[] = {DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT16, DIBIT_TYPE_BFLOAT16};

enum {
    P_M,
    P_N,
    P_K,
    P_BLOCK,
    P_BITS,
    P_ZP,
    P_FILL,
    P_SCALES,
    P_G_IDX,
    P_BIAS,
    P_ACTIVATIONS,
    P_FAMILY,
    N_P
};
static const char *const m_names[] = {"1", "2", "3", "4", "5", "9", "33"};
static const char *const n_names[] = {"1", "2", "3", "7", "8", "9", "33"};
static const char *const k_names[] = {"1",  "16",  "31",  "32",  "33",  "63",
                                      "96", "255", "257", "384", "576", "1030"};
static const char *const block_names[] = {"16", "32", "64", "128", "256", "1024"};
static const char *const bit_names[] = {"1", "2", "3", "4", "5", "6", "7", "8"};
static const char *const zp_names[] = {"none", "packed", "float", "float16"};
static const char *const fill_names[] = {"exact", "random", "edges"};
static const char *const scale_names[] = {"float", "float16", "bfloat16"};
static const char *const yes_no[] = {"no", "yes"};
static const char *const activation_names[] = {"float", "int8"};
static const char *const family_names[] = {
    "ref",        "S",         "portable", "avx2",    "avxvnni",  "avx512", "avx512vnni",
    "avx512vbmi", "avx512amx", "neon",     "neondot", "neoni8mm", "wasm"};
#define COUNT(a) (int)(sizeof(a) / sizeof *(a))
static const matrix_parameter parameters[N_P] = {
    [P_M] = {"M", COUNT(m_names), m_names},
    [P_N] = {"N", COUNT(n_names), n_names},
    [P_K] = {"K", COUNT(k_names), k_names},
    [P_BLOCK] = {"block", COUNT(block_names), block_names},
    [P_BITS] = {"bits", COUNT(bit_names), bit_names},
    [P_ZP] = {"zero points", COUNT(zp_names), zp_names},
    [P_FILL] = {"fill", COUNT(fill_names), fill_names},
    [P_SCALES] = {"scales", COUNT(scale_names), scale_names},
    [P_G_IDX] = {"g_idx", COUNT(yes_no), yes_no},
    [P_BIAS] = {"bias", COUNT(yes_no), yes_no},
    [P_ACTIVATIONS] = {"activations", COUNT(activation_names), activation_names},
    [P_FAMILY] = {"kernels", COUNT(family_names), family_names},
};

typedef struct matrix_run {
    matrix_results results;
    int row[N_P];
    int n_cases, n_runs;
} matrix_run;

static void record(void *ctx, const char *kernel, bool failed) {
    matrix_run *const run = ctx;
    run->row[P_FAMILY] = 0;
    for (int i = 0; i < COUNT(family_names); i++) {
        const char *const at = strstr(kernel, family_names[i]);
        if (at && strcmp(at, family_names[i]) == 0) run->row[P_FAMILY] = i;
    }
    run->n_runs++;
    matrix_record(&run->results, run->row, failed);
}

static int run_row(matrix_run *run) {
    const int *const row = run->row;
    const nbits_case c = {
        .M = all_m[row[P_M]],
        .N = all_n[row[P_N]],
        .K = all_k[row[P_K]],
        .block_size = all_blocks[row[P_BLOCK]],
        .bits = (uint32_t)row[P_BITS] + 1,
        .zp = (nbits_zp)row[P_ZP],
        .fill = (nbits_fill)row[P_FILL],
        .scale_type = all_scales[row[P_SCALES]],
        .g_idx = row[P_G_IDX] != 0,
        .bias = row[P_BIAS] != 0,
        .int8_activations = row[P_ACTIVATIONS] != 0,
    };
    if (c.g_idx && c.int8_activations) return 0; /* not a combination that exists */
    run->n_cases++;
    return run_case(&c, record, run);
}

static int run_pairs(matrix_run *run) {
    int n_rows, failures = 0;
    int *const rows = matrix_pairwise(parameters, P_FAMILY, &seed, &n_rows);
    for (int i = 0; i < n_rows; i++) {
        memcpy(run->row, rows + i * P_FAMILY, P_FAMILY * sizeof *rows);
        failures += run_row(run);
        if (run->row[P_G_IDX] && run->row[P_ACTIVATIONS]) { /* both of its halves then */
            run->row[P_G_IDX] = 0;
            failures += run_row(run);
            run->row[P_G_IDX] = 1;
            run->row[P_ACTIVATIONS] = 0;
            failures += run_row(run);
        }
    }
    free(rows);
    return failures;
}

/* The product of all but M, N and the scales' type, which are drawn. */
static int run_product(matrix_run *run) {
    int failures = 0;
    for (int i = 0; i < P_FAMILY; i++) run->row[i] = 0;
    for (;;) {
        static const int drawn[] = {P_M, P_N, P_SCALES};
        for (int i = 0; i < COUNT(drawn); i++) {
            run->row[drawn[i]] =
                (int)(dbt_test_random(&seed) % (uint64_t)parameters[drawn[i]].n_values);
        }
        failures += run_row(run);
        int i = P_FAMILY - 1;
        for (; i >= 0; i--) {
            if (i == P_M || i == P_N || i == P_SCALES) continue;
            if (++run->row[i] < parameters[i].n_values) break;
            run->row[i] = 0;
        }
        if (i < 0) return failures;
    }
}

static void test_every_kernel_over_the_matrix(void **state) {
    (void)state;
    matrix_run run = {.results = {.parameters = parameters, .n_parameters = N_P}};
    const int failures = full_product ? run_product(&run) : run_pairs(&run);
    printf("matrix: %d cases, %d runs of kernels\n", run.n_cases, run.n_runs);
    if (failures) {
        char text[2000];
        matrix_summary(&run.results, text, sizeof text);
        printf("matrix: %s\n", text);
    }
    matrix_free(&run.results);
    assert_int_equal(failures, 0);
}

/* ONNX Runtime's published shapes; the slow ones only with --full. */
static void test_published_shapes(void **state) {
    (void)state;
    static const struct {
        uint32_t bits;
        int64_t n, k, block_size;
        bool slow;
    } shapes[] = {
        {2, 16, 16, 16, false},    {2, 32, 16, 16, false},    {2, 32, 32, 16, false},
        {2, 32, 16, 128, false},   {2, 288, 16, 16, false},   {2, 32, 64, 64, false},
        {2, 32, 128, 64, false},   {2, 192, 384, 64, false},  {2, 384, 1024, 64, true},
        {2, 32, 64, 32, false},    {2, 32, 128, 32, false},   {2, 32, 256, 32, false},
        {2, 32, 48, 32, false},    {4, 288, 1024, 16, true},  {4, 288, 1024, 128, true},
        {4, 288, 93, 32, false},   {4, 288, 93, 128, false},  {4, 288, 1234, 16, true},
        {4, 288, 192, 64, false},  {8, 256, 32, 16, false},   {8, 40, 576, 32, false},
        {8, 5120, 3072, 32, true}, {4, 4096, 4096, 32, true}, {4, 4096, 11008, 128, true},
    };
    static const int64_t ms[] = {1, 2, 4, 100};
    int failures = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (shapes[i].slow && !full_product) continue;
        const bool huge = shapes[i].n * shapes[i].k > 4000000;
        for (int m = 0; m < (huge ? 1 : full_product ? 4 : 3); m++) {
            for (int zp = 0; zp < (huge ? 2 : N_ZP); zp++) {
                if (huge) {
                    const nbits_case c = {.M = ms[m],
                                          .N = shapes[i].n,
                                          .K = shapes[i].k,
                                          .block_size = shapes[i].block_size,
                                          .bits = shapes[i].bits,
                                          .zp = (nbits_zp)zp,
                                          .fill = FILL_RANDOM,
                                          .scale_type = DIBIT_TYPE_FLOAT,
                                          .int8_activations = zp == 1};
                    failures += run_case(&c, NULL, NULL);
                } else {
                    failures += run_both_modes(ms[m], shapes[i].n, shapes[i].k,
                                               shapes[i].block_size, shapes[i].bits, (nbits_zp)zp);
                }
            }
        }
    }
    assert_int_equal(failures, 0);
}

static void test_more_rows_than_a_chunk(void **state) {
    (void)state;
    assert_int_equal(run_both_modes(1030, 3, 16, 16, 2, ZP_PACKED), 0);
}

/* A few blocks behind vectors of them, or alone, which kernels take in another way; the last of some rows is cut. */
static void test_last_blocks_of_a_row(void **state) {
    (void)state;
    static const int64_t blocks[] = {1, 2, 4, 17, 18, 19, 20, 35};
    static const uint32_t widths[] = {2, 4, 8};
    static const dibit_type scales[] = {DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT16, DIBIT_TYPE_BFLOAT16};
    int failures = 0;
    for (int i = 0; i < 8 * 3 * 3 * 3; i++) {
        const int64_t block_size = INT64_C(16) << i % 3;
        const nbits_case c = {.M = 1 + i % 2,
                              .N = 6,
                              .K = blocks[i / 27] * block_size - i % 5,
                              .block_size = block_size,
                              .bits = widths[i / 3 % 3],
                              .zp = i % 4 ? ZP_PACKED : ZP_NONE,
                              .fill = (nbits_fill)(i % N_FILL),
                              .scale_type = scales[i / 9 % 3],
                              .bias = i % 7 == 0,
                              .int8_activations = true};
        failures += run_case(&c, NULL, NULL);
    }
    assert_int_equal(failures, 0);
}

static nbits_zp zp_of(dibit_type type) {
    if (type == DIBIT_TYPE_UNDEFINED) return ZP_NONE;
    return type == DIBIT_TYPE_UINT8     ? ZP_PACKED
           : type == DIBIT_TYPE_FLOAT16 ? ZP_FLOAT16
                                        : ZP_FLOAT;
}

static void test_configurations_of_a_model(void **state) {
    (void)state;
    if (!from_model) skip();
    nbits_config *configs = NULL;
    uint32_t n = 0;
    dibit_error error;
    if (nbits_model_configs(from_model, &configs, &n, &error) != DIBIT_OK)
        fail_msg("%s", error.text);
    int failures = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (int mode = 0; mode < 4; mode++) {
            const nbits_case c = {.M = mode & 1 ? 3 : 1,
                                  /* Rows are alike: some hundred tell as much as a vocabulary. */
                                  .N = configs[i].N < 300 ? configs[i].N : 300,
                                  .K = configs[i].K,
                                  .block_size = configs[i].block_size,
                                  .bits = configs[i].bits,
                                  .zp = zp_of(configs[i].zero_point_type),
                                  .fill = FILL_RANDOM,
                                  .scale_type = configs[i].scale_type,
                                  .g_idx = configs[i].g_idx,
                                  .bias = configs[i].bias,
                                  .int8_activations = mode & 2 && !configs[i].g_idx};
            failures += run_case(&c, NULL, NULL);
        }
    }
    printf("%s: %u configurations\n", from_model, (unsigned)n);
    free(configs);
    assert_int_equal(failures, 0);
}

/* ---- The choice ---- */

static void test_every_problem_has_a_kernel(void **state) {
    (void)state;
    static const int32_t g_idx = 0;
    static const uint8_t zero_points = 0;
    const uint64_t isas[] = {0, dibit_cpu_isa()};
    const uint64_t simd = DIBIT_ISA_AVX2 | DIBIT_ISA_NEON | DIBIT_ISA_WASM_SIMD;
    for (uint32_t bits = 1; bits <= 8; bits++) {
        for (int mode = 0; mode < 16; mode++) {
            const dbt_matmul_nbits p = {
                .M = mode & 1 ? 1 : 100,
                .N = 1,
                .K = 64,
                .k_blocks = 2,
                .block_size = 32,
                .bits = bits,
                .int8_activations = (mode & 2) != 0,
                .g_idx = (mode & 6) == 4 ? &g_idx : NULL,
                .zero_points = mode & 8 ? &zero_points : NULL,
                .zero_point_type = mode & 8 ? DIBIT_TYPE_UINT8 : DIBIT_TYPE_UNDEFINED,
            };
            for (int i = 0; i < 2; i++) {
                const dbt_nbits_kernel *const kernel = dbt_nbits_choose(&p, isas[i]);
                assert_true(dbt_nbits_kernel_fits(kernel, &p, isas[i]));
                assert_true(kernel->min_m <= p.M || p.g_idx);
                /* No width, mode or kind of zero points falls back to plain C. */
                assert_true((kernel->isa != 0) == ((isas[i] & simd) != 0));
            }
        }
    }
}

/* ---- main ---- */

static int usage(const char *argument) {
    fprintf(stderr, "test_matmul_nbits: unknown argument '%s'\n", argument);
    return 2;
}

int main(int argc, char **argv) {
    const char *const from_environment = getenv("DBT_SEED");
    if (from_environment) seed = strtoull(from_environment, NULL, 10);
    const char *const full = getenv("DIBIT_FULL");
    full_product = full && strcmp(full, "1") == 0;
    isa = dibit_cpu_isa();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--full") == 0) {
            full_product = true;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--from-model") == 0 && i + 1 < argc) {
            from_model = argv[++i];
        } else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc &&
                   strcmp(argv[i + 1], "portable") == 0) {
            isa = 0;
            i++;
        } else {
            return usage(argv[i]);
        }
    }
    char isa_text[128];
    dbt_cpu_isa_text(isa, isa_text);
    printf("seed %llu, %s\n", (unsigned long long)seed, isa_text);
    for (size_t i = 0; i < dbt_nbits_kernel_count; i++) {
        if ((dbt_nbits_kernels[i].isa & isa) != dbt_nbits_kernels[i].isa) {
            printf("skipped %s: this machine lacks its instructions\n", dbt_nbits_kernels[i].name);
        }
    }
    if (dbt_pool_create(NULL, 3, &pool, NULL) != DIBIT_OK) return 1;
#define NINE_ENTRY(name, M, N, K, block, zp) cmocka_unit_test(test_##name),
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ref_2_bit_weights_by_hand),
        cmocka_unit_test(test_ref_3_bit_codes_by_hand),
        cmocka_unit_test(test_ref_4_and_8_bit_codes_by_hand),
        cmocka_unit_test(test_ref_g_idx_and_bias_by_hand),
        cmocka_unit_test(test_ref_int8_activations_by_hand),
        NINE(NINE_ENTRY) cmocka_unit_test(test_every_problem_has_a_kernel),
        cmocka_unit_test(test_every_kernel_over_the_matrix),
        cmocka_unit_test(test_published_shapes),
        cmocka_unit_test(test_more_rows_than_a_chunk),
        cmocka_unit_test(test_last_blocks_of_a_row),
        cmocka_unit_test(test_configurations_of_a_model),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dbt_pool_destroy(&pool);
    return failed;
}

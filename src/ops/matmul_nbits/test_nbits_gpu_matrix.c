/* Every kernel of MatMulNBits on a device over sizes and kinds of weights, against ref.c.
 *
 *     test_nbits_gpu_matrix [--seed S] [--full] [--share I/N]
 *
 * A normal run covers every pair of parameter values, with the kernels in turn. --full (or DIBIT_FULL=1) is the
 * product of every kernel, bits, block size, kind of zero points, bias, M, and N x K of a list, and
 * ONNX Runtime's largest published shapes besides. --share does the I-th of N parts, for several
 * processes. Without a device in the environment the null device sees all dispatches and computes none. */
#include "dbt_test.h"

#include <time.h>

#include "ops/matmul_nbits/test_nbits_gpu_case.h"
#include "ops/matmul_nbits/test_nbits_matrix.h"
#include "test_device.h"

#define COUNT(a) (int)(sizeof(a) / sizeof *(a))

static uint64_t seed = 20240229;
static bool full_product;
static int share = 1, shares = 1;
static dbt_gpu *gpu;
static dibit_error error;

static void ok(dibit_status status) { nbits_gpu_ok(status, &error); }

static bool is_ours(int part) { return part % shares == share - 1; }

static bool fits(const dbt_nbits_gpu_kernel *kernel, const nbits_case *c) {
    const dbt_nbits_gpu_problem problem = {
        .p = {.M = c->M,
              .N = c->N,
              .K = c->K,
              .k_blocks = (c->K + c->block_size - 1) / c->block_size,
              .block_size = c->block_size,
              .bits = c->bits,
              .int8_activations = c->int8_activations}};
    return dbt_nbits_gpu_fits(kernel, &problem, dbt_gpu_hal(gpu));
}

/* ---- Pairs ---- */

static const int64_t all_m[] = {1, 4, 9, 100};
static const int64_t all_n[] = {1, 3, 17, 40, 129};
static const int64_t all_k[] = {16, 31, 48, 257, 1030};
static const int64_t all_blocks[] = {16, 32, 64, 128, 1024};
static const dibit_type all_scales[] = {DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT16, DIBIT_TYPE_BFLOAT16};

enum { P_M, P_N, P_K, P_BLOCK, P_BITS, P_ZP, P_FILL, P_SCALES, P_G_IDX, P_BIAS, N_P };
static const char *const m_names[] = {"1", "4", "9", "100"};
static const char *const n_names[] = {"1", "3", "17", "40", "129"};
static const char *const k_names[] = {"16", "31", "48", "257", "1030"};
static const char *const block_names[] = {"16", "32", "64", "128", "1024"};
static const char *const bit_names[] = {"1", "2", "3", "4", "5", "6", "7", "8"};
static const char *const zp_names[] = {"none", "packed", "float", "float16"};
static const char *const fill_names[] = {"exact", "random", "edges"};
static const char *const scale_names[] = {"float", "float16", "bfloat16"};
static const char *const yes_no[] = {"no", "yes"};
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
};

typedef struct tally {
    uint64_t runs, failed, exact;
} tally;

static bool run_row(const int *row, const dbt_nbits_gpu_kernel *kernel, tally *t) {
    const nbits_case c = {
        .M = all_m[row[P_M]],
        .N = all_n[row[P_N]],
        .K = all_k[row[P_K]],
        .block_size = all_blocks[row[P_BLOCK]],
        .bits = (uint32_t)row[P_BITS] + 1,
        .zp = (nbits_zp)row[P_ZP],
        .fill = (nbits_fill)row[P_FILL],
        .scale_type = all_scales[row[P_SCALES]],
        .g_idx = row[P_G_IDX] != 0 && !kernel->int8, /* which goes with float activations */
        .bias = row[P_BIAS] != 0,
        .int8_activations = kernel->int8,
    };
    if (!fits(kernel, &c)) return false;
    t->runs++;
    t->exact += c.fill == FILL_EXACT;
    t->failed += !nbits_gpu_run_case(gpu, &c, kernel, &seed);
    return true;
}

static void run_pairs(tally *t) {
    int n_rows;
    int *const rows = matrix_pairwise(parameters, N_P, &seed, &n_rows);
    gpu = nbits_gpu_open(NULL);
    for (int i = 0; i < n_rows; i++) {
        /* In turn; a kernel that this device cannot run gives way to the next. */
        uint32_t k = (uint32_t)i;
        while (is_ours(i) && !run_row(rows + i * N_P,
                                      &dbt_nbits_gpu_kernels[k % dbt_nbits_gpu_kernel_count], t)) {
            k++;
        }
    }
    dbt_gpu_destroy(&gpu);
    free(rows);
}

/* ---- A case of the product ---- */

static const int64_t product_m[] = {1, 4, 100};
enum { N_M = COUNT(product_m), MOST_M = 100, MOST_KERNELS = 64, MOST_M_OF_HUGE = 1 };

/* One run of a kernel: its rows of Y lie at an offset of its own, with a guard behind them. */
typedef struct product_run {
    const dbt_nbits_gpu_kernel *kernel;
    int64_t M;
    uint64_t y_offset; /* bytes */
} product_run;

/* About how many workgroups' steps through 32 columns of A, for a thread of a matvec, the run takes. */
static int64_t work_of(const dbt_nbits_gpu_kernel *kernel, const nbits_case *c, int64_t M) {
    const int64_t threads = kernel->lanes == 1 ? 16 : 128, units = (c->K + 31) / 32;
    const int64_t m_groups = (M + kernel->m_rows - 1) / kernel->m_rows;
    const int64_t n = kernel->tile ? kernel->n_rows : threads / kernel->lanes * kernel->n_rows;
    const int64_t steps = kernel->tile ? units : (units + kernel->lanes - 1) / kernel->lanes;
    return m_groups * ((c->N + n - 1) / n) * steps * kernel->m_rows;
}

/* Runs of so much work are always made, of more expensive ones a share, which is drawn: software adapters
 * are slow. */
enum { CHEAP = 128, ALL_RUNS = INT32_MAX };

/* All kernels for the case's activations, each for all M up to c->M; in one submission. */
static uint32_t list_runs(const nbits_case *c, int64_t cheap, product_run *runs,
                          uint64_t *y_bytes) {
    const uint64_t alignment = dbt_gpu_hal(gpu)->limits.binding_alignment;
    uint32_t n = 0;
    *y_bytes = 0;
    for (uint32_t k = 0; k < dbt_nbits_gpu_kernel_count; k++) {
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[k];
        if (kernel->int8 != c->int8_activations) continue;
        /* What a kernel lacks of a device does not depend on the case: none is skipped here. */
        if (!fits(kernel, c)) fail_msg("%s does not fit on this device", kernel->name);
        for (int m = 0; m < N_M && product_m[m] <= c->M; m++) {
            const uint64_t times = 1 + (uint64_t)(work_of(kernel, c, product_m[m]) / cheap);
            if (dbt_test_random(&seed) % times != 0) continue;
            runs[n++] = (product_run){kernel, product_m[m], *y_bytes};
            *y_bytes += (uint64_t)(product_m[m] * c->N) * 4 + NBITS_GUARD_BYTES;
            *y_bytes = (*y_bytes + alignment - 1) / alignment * alignment;
        }
    }
    return n;
}

static void judge(const nbits_case *c, const product_run *run, const nbits_data *data,
                  const double *want, const double *s, const unsigned char *y, tally *t) {
    nbits_case part = *c;
    part.M = run->M;
    const char *const what = nbits_gpu_wrong(&part, dbt_nbits_gamma(&data->p), want, s,
                                             (const float *)(const void *)(y + run->y_offset));
    if (!what) return;
    char text[300];
    nbits_case_text(&part, text, sizeof text);
    if (t->failed++ < 20) printf("FAIL %s, %s: %s\n", run->kernel->name, text, what);
}

/* Rows of Y do not depend on each other: those of a smaller M are the first ones of what ref.c says. */
static void run_case(const nbits_case *any_m, int64_t cheap, tally *t) {
    product_run runs[MOST_KERNELS * N_M];
    uint64_t y_bytes;
    nbits_case case_ = *any_m, *const c = &case_;
    const uint32_t n_runs = list_runs(c, cheap, runs, &y_bytes);
    if (n_runs == 0) return;
    c->M = 1;
    for (uint32_t i = 0; i < n_runs; i++) c->M = runs[i].M > c->M ? runs[i].M : c->M;
    const size_t count = (size_t)(c->M * c->N);
    nbits_data data;
    nbits_data_create(c, &seed, &data);
    double *const want = malloc(2 * count * sizeof *want), *const s = want + count;
    unsigned char *const y = malloc((size_t)y_bytes);
    assert_true(want && y);
    dbt_nbits_gpu_problem problem = nbits_gpu_problem_create(gpu, &data, (int64_t)y_bytes);
    for (uint32_t i = 0; i < n_runs; i++) {
        problem.p.M = runs[i].M;
        problem.y_offset = runs[i].y_offset;
        ok(dbt_nbits_gpu_record(gpu, runs[i].kernel, &problem, &error));
    }
    ok(dbt_gpu_submit(gpu, &error));
    dbt_matmul_nbits_ref(&data.p, want, s);
    nbits_gpu_download(gpu, problem.y, y, y_bytes);
    t->runs += n_runs;
    t->exact += c->fill == FILL_EXACT ? n_runs : 0;
    for (uint32_t i = 0; i < n_runs && test_device_computes(); i++)
        judge(c, &runs[i], &data, want, s, y, t);
    nbits_gpu_problem_free(gpu, &problem);
    nbits_data_free(&data);
    free(want);
    free(y);
}

/* ---- The product ---- */

/* N and K, for every block size: ONNX Runtime's of up to a thousand columns, and sizes that are no multiple of
 * a block, of a word of codes, of what kernels take at once. */
static const int64_t product_nk[][2] = {
    {1, 16},    {2, 16},   {16, 16},  {32, 16},    {288, 16},   {17, 31},    {32, 32},   {256, 32},
    {1, 48},    {32, 48},  {32, 64},  {288, 93},   {32, 128},   {288, 192},  {32, 256},  {40, 257},
    {192, 384}, {40, 576}, {3, 1023}, {288, 1024}, {384, 1024}, {129, 1030}, {288, 1234}};
static const int64_t product_blocks[] = {16, 32, 64, 128};

/* Cases whose kernels share the most shaders: one set of bits, zero points and bias, and the scales' type that
 * falls to it. */
static void run_form(uint32_t bits, nbits_zp zp, bool bias, tally *t) {
    for (int b = 0; b < COUNT(product_blocks); b++) {
        for (int i = 0; i < 2 * COUNT(product_nk); i++) {
            const int64_t *const nk = product_nk[i / 2];
            const nbits_case c = {.M = MOST_M,
                                  .N = nk[0],
                                  .K = nk[1],
                                  .block_size = product_blocks[b],
                                  .bits = bits,
                                  .zp = zp == ZP_FLOAT && bits % 2 ? ZP_FLOAT16 : zp,
                                  .fill = (i / 2 + b + bias) % 2 ? FILL_EXACT : FILL_RANDOM,
                                  .scale_type = all_scales[(bits + (uint32_t)zp + bias) % 3],
                                  .bias = bias,
                                  .int8_activations = i % 2 != 0};
            run_case(&c, CHEAP, t);
        }
    }
}

/* ONNX Runtime's largest, for one row of A. */
static void run_huge(int64_t N, int64_t K, uint32_t bits, tally *t) {
    for (int i = 0; i < 2 * COUNT(product_blocks); i++) {
        run_case(&(nbits_case){.M = MOST_M_OF_HUGE,
                               .N = N,
                               .K = K,
                               .block_size = product_blocks[i / 2],
                               .bits = bits,
                               .zp = i & 1 ? ZP_PACKED : ZP_NONE,
                               .fill = FILL_RANDOM,
                               .scale_type = DIBIT_TYPE_FLOAT,
                               .int8_activations = (i & 1) != 0},
                 ALL_RUNS, t);
    }
}

/* Rows that no binding of 128 MiB holds at once. */
static void run_split(tally *t) {
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    const nbits_case c = {.M = 1,
                          .N = 8388612,
                          .K = 32,
                          .block_size = 32,
                          .bits = 4,
                          .fill = FILL_EXACT,
                          .scale_type = DIBIT_TYPE_FLOAT};
    const dbt_nbits_gpu_problem problem = {
        .p = {.M = 1, .N = c.N, .K = 32, .k_blocks = 1, .block_size = 32, .bits = 4}};
    if (hal->limits.max_binding_bytes > 128 << 20) hal->limits.max_binding_bytes = 128 << 20;
    t->runs++;
    t->exact++;
    t->failed +=
        !nbits_gpu_run_case(gpu, &c, dbt_nbits_gpu_choose(&problem, hal, UINT64_MAX), &seed);
}

static void say(const char *what, const tally *before, const tally *t, time_t start) {
    printf("%s: %llu runs, %llu failed, %d s\n", what, (unsigned long long)(t->runs - before->runs),
           (unsigned long long)(t->failed - before->failed), (int)(time(NULL) - start));
    fflush(stdout);
}

static void run_part(int part, tally *t) {
    enum { FORMS = 8 * 3 * 2 };
    static const int64_t huge[][3] = {
        {4096, 4096, 4}, {4096, 11008, 4}, {11008, 4096, 4}, {11008, 11008, 4}, {5120, 3072, 8}};
    const tally before = *t;
    const time_t start = time(NULL);
    char text[100];
    gpu = nbits_gpu_open(NULL); /* with no pipelines: many thousands are too many to keep */
    if (part < FORMS) {
        const uint32_t bits = (uint32_t)part / 6 + 1;
        const nbits_zp zp = (nbits_zp)(part / 2 % 3);
        run_form(bits, zp, part % 2 != 0, t);
        snprintf(text, sizeof text, "%u bits, zero points %s%s", (unsigned)bits, zp_names[zp],
                 part % 2 ? ", bias" : "");
    } else if (part < FORMS + COUNT(huge)) {
        const int64_t *const h = huge[part - FORMS];
        run_huge(h[0], h[1], (uint32_t)h[2], t);
        snprintf(text, sizeof text, "N %d, K %d, %d bits", (int)h[0], (int)h[1], (int)h[2]);
    } else {
        run_split(t);
        snprintf(text, sizeof text, "split weights");
    }
    say(text, &before, t, start);
    dbt_gpu_destroy(&gpu);
}

static void run_product(tally *t) {
    enum { PARTS = 48 + 5 + 1 };
    for (int part = 0; part < PARTS; part++) {
        if (is_ours(part)) run_part(part, t);
    }
}

static void test_every_kernel_over_the_matrix(void **state) {
    (void)state;
    tally t = {0};
    const time_t start = time(NULL);
    if (full_product && test_device_computes()) {
        run_product(&t);
    } else {
        run_pairs(&t);
    }
    printf("matrix, part %d of %d: %llu runs, %llu of them exact, %llu failed, %d s\n", share,
           shares, (unsigned long long)t.runs, (unsigned long long)t.exact,
           (unsigned long long)t.failed, (int)(time(NULL) - start));
    assert_int_equal(t.failed, 0);
}

int main(int argc, char **argv) {
    const char *const from_environment = getenv("DBT_SEED"), *const full = getenv("DIBIT_FULL");
    if (from_environment) seed = strtoull(from_environment, NULL, 10);
    full_product = full && strcmp(full, "1") == 0;
    for (int i = 1; i < argc; i++) {
        const char *const value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--full") == 0) full_product = true;
        if (strcmp(argv[i], "--seed") == 0) seed = strtoull(value, NULL, 10);
        if (strcmp(argv[i], "--share") == 0 &&
            (sscanf(value, "%d/%d", &share, &shares) != 2 || share < 1 || share > shares)) {
            fprintf(stderr, "--share wants I/N\n");
            return 2;
        }
    }
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_kernel_over_the_matrix)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

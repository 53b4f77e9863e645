/* Tracing of MatMulNBits: the listing of the definition adds up to ref.c's Y, bit for bit; every kernel built with
 * TRACE answers what it answers without, and writes what the definition says; a wrong bit is named.
 *
 *     test_nbits_trace [--seed S] [--full]
 *
 * A normal run traces the kernels of software adapters with two of the eight widths and a quarter of the others,
 * --full (or DIBIT_FULL=1) each with all. Without a device in the environment the null device sees the dispatches. */
#include "dbt_test.h"

#include "ops/matmul_nbits/nbits_trace.h"
#include "ops/matmul_nbits/test_nbits_gpu_case.h"
#include "test_device.h"

static uint64_t seed = 20240229;
static bool full_product;
static dbt_gpu *gpu;
static dibit_error error;

static void ok(dibit_status status) { nbits_gpu_ok(status, &error); }

static int64_t below(int64_t n) { return (int64_t)(dbt_test_random(&seed) % (uint64_t)n); }

static const void *bytes_on(const void *at, int64_t n) { return at ? (const char *)at + n : NULL; }

/* ---- Cases ---- */

/* All but the bits and the kind of activations by chance. */
static nbits_case some_case(uint32_t bits, bool int8) {
    static const int64_t some_m[] = {1, 3, 8, 9, 70}, some_k[] = {16, 31, 48, 75, 160, 257},
                         some_n[] = {1, 5, 13, 66};
    static const dibit_type types[] = {DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT16, DIBIT_TYPE_BFLOAT16};
    return (nbits_case){.M = some_m[below(5)],
                        .N = some_n[below(4)],
                        .K = some_k[below(6)],
                        .block_size = INT64_C(16) << below(5),
                        .bits = bits,
                        .zp = (nbits_zp)below(N_ZP),
                        .fill = (nbits_fill)below(N_FILL),
                        .scale_type = types[below(3)],
                        .g_idx = !int8 && below(4) == 0,
                        .bias = below(2) == 0,
                        .int8_activations = int8};
}

static dbt_nbits_element element_of(const dbt_matmul_nbits *p, int64_t m, int64_t n) {
    dbt_nbits_element e = {.p = *p, .m = m, .n = n};
    e.p.M = e.p.N = 1;
    e.p.a = p->a + m * p->K;
    e.p.b = p->b + n * dbt_nbits_row_bytes(p);
    e.p.scales = bytes_on(p->scales, n * dbt_nbits_scale_row_bytes(p));
    e.p.zero_points = bytes_on(p->zero_points, n * dbt_nbits_zero_point_row_bytes(p));
    if (p->bias) e.p.bias = p->bias + n;
    e.b_bytes = (uint64_t)((p->N - n) * dbt_nbits_row_bytes(p));
    return e;
}

/* ---- The definition ---- */

static void test_the_sum_is_the_definitions(void **state) {
    (void)state;
    for (int i = 0; i < 400; i++) {
        const nbits_case c = some_case((uint32_t)(1 + i % 8), i / 8 % 2);
        nbits_data data;
        nbits_data_create(&c, &seed, &data);
        const size_t count = (size_t)(c.M * c.N);
        double *const y = malloc(count * sizeof *y);
        dibit_trace_product *const products = malloc((size_t)c.K * sizeof *products);
        assert_true(y && products);
        dbt_matmul_nbits_ref(&data.p, y, NULL);
        for (int j = 0; j < 3; j++) {
            const int64_t m = below(c.M), n = below(c.N);
            const dbt_nbits_element e = element_of(&data.p, m, n);
            dbt_nbits_trace_ref(&e, products);
            const double want = y[m * c.N + n], got = products[c.K - 1].sum;
            if (memcmp(&want, &got, sizeof want) != 0 && !(isnan(want) && isnan(got))) {
                char text[300];
                nbits_case_text(&c, text, sizeof text);
                fail_msg("%s: the sum of y[%d, %d] is %.17g, ref.c's %.17g", text, (int)m, (int)n,
                         got, want);
            }
        }
        free(y);
        free(products);
        nbits_data_free(&data);
    }
}

/* The file's own bytes: 3-bit codes 0 to 7 are 88 C6 FA, and code 2 begins at bit 6 of byte 0. */
static void test_a_code_that_straddles_bytes(void **state) {
    (void)state;
    static const uint8_t b[] = {0x88, 0xc6, 0xfa, 0x88, 0xc6, 0xfa, 0, 0xff};
    const float a[16] = {1, 1, 1, 1}, scale = 2;
    const dbt_nbits_element e = {.p = {.M = 1,
                                       .N = 1,
                                       .K = 16,
                                       .k_blocks = 1,
                                       .block_size = 16,
                                       .bits = 3,
                                       .scale_type = DIBIT_TYPE_FLOAT,
                                       .a = a,
                                       .b = b,
                                       .scales = &scale},
                                 .m = 2,
                                 .n = 5,
                                 .b_bytes = sizeof b};
    dibit_trace_product p[16];
    dbt_nbits_trace_ref(&e, p);
    for (uint32_t k = 0; k < 16; k++) assert_int_equal(p[k].code, k % 8);
    assert_int_equal(p[2].address, 5 * 6);
    assert_int_equal(p[2].word, 0x88fac688);
    assert_int_equal(p[2].shift, 6);
    assert_int_equal(p[2].mask, 7);
    assert_int_equal(p[10].shift, 30); /* its last bit is the next word's first */
    assert_int_equal(p[10].next_word, 0xff00fac6);
    assert_int_equal(p[9].next_word, 0);
    assert_int_equal(p[3].a_index, 2 * 16 + 3);
    assert_true(p[3].zero_point == 4.0f && p[3].product == -2.0);
    assert_true(p[3].sum == 2 * (0 + 1 + 2 + 3 - 16));
}

/* ---- What shaders write ---- */

/* As nbits_trace.inc.wgsl has it, in words: of a unit, where parts of it begin, and of a quad. */
enum { UNIT = 4 * 106, SCALES = 4 * 32, QUADS = 4 * 64, A_SCALES = 4 * 104, QUAD = 20 };

static void set(uint32_t *at, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    const uint32_t four[4] = {a, b, c, d};
    memcpy(at, four, sizeof four);
}

/* The words of a shader that is right: 2 bits in the order of int8 dots, blocks of 32. */
static uint32_t *words_of(const dbt_nbits_element *e, const dibit_trace_product *p) {
    const uint64_t bytes = dbt_nbits_trace_bytes(e->p.K);
    uint32_t *const words = malloc((size_t)bytes);
    assert_non_null(words);
    memset(words, 0xff, (size_t)bytes);
    for (int64_t k = 0; k < e->p.K; k++) {
        uint32_t *const unit = words + k / 32 * UNIT;
        if (k % 32 == 0) {
            const uint32_t zero_shift = p[k].zero_shift + (uint32_t)(p[k].zero_address % 4 * 8);
            set(unit, 32 | zero_shift << 16, (uint32_t)p[k].block,
                (uint32_t)(p[k].zero_address & ~UINT64_C(3)), dbt_float_to_bits(p[k].zero_point));
            set(unit + SCALES, 32, (uint32_t)p[k].block, (uint32_t)p[k].scale_address,
                dbt_float_to_bits(p[k].scale));
            set(unit + A_SCALES, dbt_float_to_bits(p[k].a_scale), 0, 0, 0);
            set(unit + A_SCALES + 4, dbt_float_to_bits(p[k].a_scale), 0, 0, 0);
        }
        uint32_t *const own = unit + QUADS + k % 32 / 4 * QUAD;
        own[8 + k % 4] = (uint32_t)p[k].a_index;
        own[12 + k % 4] = dbt_float_to_bits(p[k].a);
        /* Byte i of quad q of a half is element 4i + q. */
        const int64_t element = k % 16, q = k % 32 / 16 * 4 + element % 4, byte = element / 4 * 8;
        uint32_t *const quad = unit + QUADS + q * QUAD;
        if (element < 4) {
            set(quad, (uint32_t)p[k].address, p[k].word, 0, p[k].mask);
            const uint32_t elements = 0x0c080400u + 0x01010101u * (uint32_t)element;
            set(quad + 4, 0, 0, elements, 0);
            set(quad + 16, 0, elements, 0, 0);
        }
        quad[4] |= p[k].shift << byte;
        quad[5] |= p[k].code << byte;
        quad[16] |= ((uint32_t)p[k].a_code & 0xff) << byte;
    }
    return words;
}

static int64_t judge(const dbt_nbits_element *e, const dibit_trace_product *want,
                     const uint32_t *words, char text[300]) {
    dibit_trace_product *const got = malloc((size_t)e->p.K * sizeof *got);
    assert_non_null(got);
    dbt_nbits_trace_read(e, words, 0, 0, got);
    const int64_t k = dbt_nbits_trace_compare(e, want, got, words, text, 300);
    free(got);
    return k;
}

static void test_each_wrong_word_is_named(void **state) {
    (void)state;
    enum { SECOND = QUADS + QUAD }; /* quad 1: element 1 is its byte 0 */
    static const struct {
        int word, k;
        uint32_t flip;
        const char *named;
    } wrong[] = {{SECOND, 1, 4, "the byte address"},
                 {SECOND + 1, 1, 1, "the word is"},
                 {SECOND + 3, 1, 1, "the mask"},
                 {SECOND + 4, 1, 4, "the shift is 6, expected 2 (its bit 2 is wrong)"},
                 {SECOND + 4, 5, 1 << 8, "the shift"},
                 {SECOND + 5, 9, 2 << 16, "the code"},
                 {SECOND + 6, 1, 1, "was never found"},
                 {0, 0, 1 << 19, "the zero point's byte"},
                 {0, 0, 1 << 16, "the zero point's first bit"},
                 {2, 0, 4, "the zero point's byte"},
                 {3, 0, 1 << 23, "the zero point is"},
                 {SCALES + 1, 0, 1, "the block"},
                 {SCALES + 2, 0, 2, "the scale's byte"},
                 {SCALES + 3, 0, 1, "the scale is"},
                 {SCALES, 16, 48, "the block was never found"}, /* for 16 products alone */
                 {SECOND + 9, 5, 32, "the index in A"},
                 {SECOND + 13, 5, 1, "the value of A"},
                 {SECOND + 16, 5, 1 << 8, "A as int8"},
                 {A_SCALES + 4, 16, 1, "the scale of A's block"}};
    const nbits_case c = {.M = 2,
                          .N = 5,
                          .K = 75,
                          .block_size = 32,
                          .bits = 2,
                          .zp = ZP_PACKED,
                          .fill = FILL_RANDOM,
                          .scale_type = DIBIT_TYPE_FLOAT16,
                          .int8_activations = true};
    nbits_data data;
    nbits_data_create(&c, &seed, &data);
    const dbt_nbits_element e = element_of(&data.p, 1, 3);
    dibit_trace_product want[75];
    dbt_nbits_trace_ref(&e, want);
    uint32_t *const words = words_of(&e, want);
    char text[300];
    assert_int_equal(judge(&e, want, words, text), -1);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint32_t *const w = words + UNIT + wrong[i].word; /* of the second unit */
        *w ^= wrong[i].flip;
        if (judge(&e, want, words, text) != 32 + wrong[i].k || !strstr(text, wrong[i].named))
            fail_msg("'%s' is not what is wrong, '%s'", text, wrong[i].named);
        *w ^= wrong[i].flip;
    }
    words[2 * UNIT + QUADS + 3 * QUAD + 12] = dbt_float_to_bits(0.5f); /* element 76 */
    assert_int_equal(judge(&e, want, words, text), 76);
    assert_non_null(strstr(text, "past the end"));
    free(words);
    nbits_data_free(&data);
}

/* ---- Kernels ---- */

static void say(const nbits_case *c, const char *kernel, const char *what) {
    char text[300];
    nbits_case_text(c, text, sizeof text);
    fail_msg("%s, %s: %s", kernel, text, what);
}

/* Whether Y with TRACE is what it is without, and the words of one element are as they must be. */
static void trace_element(const nbits_case *c, const nbits_data *data,
                          const dbt_nbits_gpu_kernel *kernel, dbt_nbits_gpu_problem *problem,
                          const float *y, int64_t m, int64_t n) {
    const uint64_t bytes = dbt_nbits_trace_bytes(c->K);
    const size_t y_bytes = (size_t)(c->M * c->N) * sizeof(float);
    uint32_t *const words = malloc((size_t)bytes + NBITS_GUARD_BYTES);
    float *const traced = malloc(y_bytes);
    dibit_trace_product *const want = malloc((size_t)c->K * 2 * sizeof *want), *got = want + c->K;
    assert_true(words && traced && want);
    dbt_nbits_gpu_trace trace = {
        .m = m, .row = n, .words = nbits_gpu_upload(gpu, NULL, (int64_t)bytes)};
    problem->trace = &trace;
    ok(dbt_nbits_gpu_record(gpu, kernel, problem, &error));
    problem->trace = NULL;
    nbits_gpu_download(gpu, problem->y, traced, y_bytes);
    nbits_gpu_download(gpu, trace.words, words, bytes + NBITS_GUARD_BYTES);
    dbt_gpu_buffer_destroy(gpu, trace.words);
    assert_true(trace.traced.y == problem->y);
    if (test_device_computes()) {
        char text[300] = "";
        const dbt_nbits_element e = element_of(&data->p, m, n);
        if (memcmp(traced, y, y_bytes) != 0) say(c, kernel->name, "another Y with TRACE");
        dbt_nbits_trace_ref(&e, want);
        dbt_nbits_trace_read(&e, words, trace.traced.m_begin, trace.traced.n_begin, got);
        if (dbt_nbits_trace_compare(&e, want, got, words, text, sizeof text) >= 0) {
            printf("y[%d, %d]: %s\n", (int)m, (int)n, text);
            say(c, kernel->name, text);
        }
        for (size_t i = 0; i < NBITS_GUARD_BYTES / 4; i++) {
            if (words[bytes / 4 + i] != UINT32_MAX) say(c, kernel->name, "wrote past the trace");
        }
    }
    free(words);
    free(traced);
    free(want);
}

static void trace_case(const nbits_case *c, const dbt_nbits_gpu_kernel *kernel) {
    nbits_data data;
    nbits_data_create(c, &seed, &data);
    const size_t bytes = (size_t)(c->M * c->N) * sizeof(float);
    float *const y = malloc(bytes);
    assert_non_null(y);
    dbt_nbits_gpu_problem problem = nbits_gpu_problem_create(gpu, &data, (int64_t)bytes);
    ok(dbt_nbits_gpu_record(gpu, kernel, &problem, &error));
    nbits_gpu_download(gpu, problem.y, y, bytes);
    trace_element(c, &data, kernel, &problem, y, 0, 0);
    trace_element(c, &data, kernel, &problem, y, c->M - 1, c->N - 1);
    trace_element(c, &data, kernel, &problem, y, below(c->M), below(c->N));
    nbits_gpu_problem_free(gpu, &problem);
    free(y);
    nbits_data_free(&data);
}

/* Software adapters, which take seconds to compile a shader, choose few kernels: two widths of each of those,
 * and one of a quarter of the others. */
static bool is_drawn(const dbt_nbits_gpu_kernel *kernel, uint32_t i, uint32_t bits) {
    if (kernel->software) return (i + bits) % 4 == 0;
    return (i + seed) % 4 == 0 && (i / 4 + seed) % 8 + 1 == bits;
}

static void test_every_kernel(void **state) {
    (void)state;
    uint32_t n = 0, refused = 0;
    for (uint32_t i = 0; i < dbt_nbits_gpu_kernel_count; i++) {
        const dbt_nbits_gpu_kernel *const kernel = &dbt_nbits_gpu_kernels[i];
        for (uint32_t bits = 1; bits <= 8; bits++) {
            const nbits_case c = some_case(bits, kernel->int8);
            if (!full_product && !is_drawn(kernel, i, bits)) continue;
            const dbt_nbits_gpu_problem like = {.p = {.M = c.M,
                                                      .N = c.N,
                                                      .K = c.K,
                                                      .k_blocks = 1,
                                                      .block_size = c.block_size,
                                                      .bits = bits,
                                                      .int8_activations = kernel->int8}};
            if (!dbt_nbits_gpu_fits(kernel, &like, dbt_gpu_hal(gpu))) {
                refused++;
                continue;
            }
            trace_case(&c, kernel);
            n++;
        }
    }
    print_message("%u cases traced, %u need another device\n", (unsigned)n, (unsigned)refused);
    assert_true(n > 0);
}

/* Addresses are of the whole tensor, whatever part of it is bound. */
static void test_split_bindings(void **state) {
    (void)state;
    dbt_hal *const hal = dbt_gpu_hal(gpu);
    const uint64_t limit = hal->limits.max_binding_bytes;
    for (int int8 = 0; int8 < 2; int8++) {
        const nbits_case c = {.M = 150,
                              .N = 600,
                              .K = 256,
                              .block_size = 32,
                              .bits = 2,
                              .zp = ZP_PACKED,
                              .fill = FILL_RANDOM,
                              .scale_type = DIBIT_TYPE_FLOAT16,
                              .int8_activations = int8};
        const dbt_nbits_gpu_problem like = {
            .p = {.M = c.M, .N = c.N, .K = c.K, .bits = 2, .int8_activations = int8}};
        hal->limits.max_binding_bytes = 256 * 1024; /* rows of A, and 256 x k of B */
        const dbt_nbits_gpu_kernel *const kernel = dbt_nbits_gpu_choose(&like, hal, UINT64_MAX);
        trace_case(&c, kernel);
        hal->limits.max_binding_bytes = limit;
    }
}

int main(int argc, char **argv) {
    const char *const from_environment = getenv("DBT_SEED"), *const full = getenv("DIBIT_FULL");
    if (from_environment) seed = strtoull(from_environment, NULL, 10);
    full_product = full && strcmp(full, "1") == 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--full") == 0) full_product = true;
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) seed = strtoull(argv[++i], NULL, 10);
    }
    printf("seed %llu\n", (unsigned long long)seed);
    gpu = nbits_gpu_open(NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_sum_is_the_definitions),
        cmocka_unit_test(test_a_code_that_straddles_bytes),
        cmocka_unit_test(test_each_wrong_word_is_named),
        cmocka_unit_test(test_every_kernel),
        cmocka_unit_test(test_split_bindings),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dbt_gpu_destroy(&gpu);
    return failed;
}

/* dibit_verify: every kernel of the device in the environment is right (the CPU without one), quick on a device;
 * and what the cases promise to hold they hold. */
#include "dbt_test.h"

#include "dibit/debug.h"
#include "ops/matmul_nbits/nbits_verify.h"

/* ---- What the cases hold ---- */

/* Marks the bytes of whole blocks of a case by zero point. */
static void mark_bytes(const dbt_nbits_verify_case *c, bool *seen) {
    const dbt_matmul_nbits *const p = &c->p;
    const int64_t block_bytes = p->block_size * p->bits / 8;
    for (int64_t n = 0; n < p->N; n++) {
        for (int64_t g = 0; g < p->K / p->block_size; g++) {
            const uint32_t zero_point = (uint32_t)c->zero_points[n * p->k_blocks + g];
            const uint8_t *const b = p->b + n * dbt_nbits_row_bytes(p) + g * block_bytes;
            for (int64_t i = 0; i < block_bytes; i++) seen[zero_point * 256 + b[i]] = true;
        }
    }
}

/* Marks the triples of codes in whole blocks by the place where they begin in 3 bytes. */
static void mark_triples(const dbt_nbits_verify_case *c, bool *seen) {
    const dbt_matmul_nbits *const p = &c->p;
    for (int64_t n = 0; n < p->N; n++) {
        const uint8_t *const row = p->b + n * dbt_nbits_row_bytes(p);
        for (int64_t k = 0; k + 2 < p->K / p->block_size * p->block_size; k++) {
            const uint32_t triple = dbt_code_at(row, 3, k) | dbt_code_at(row, 3, k + 1) << 3 |
                                    dbt_code_at(row, 3, k + 2) << 6;
            seen[k % 8 * 512 + triple] = true;
        }
    }
}

static uint32_t count(const bool *seen, uint32_t n) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += seen[i];
    return sum;
}

static void test_cases_hold_every_code(void **state) {
    (void)state;
    enum { MOST = 256 * 256 };
    uint32_t complete[9][2] = {{0}}; /* cases by bits and by block size above 16 */
    bool *const seen = malloc(MOST);
    assert_non_null(seen);
    for (uint32_t i = 0; i < dbt_nbits_verify_count(); i++) {
        dbt_arena arena;
        dbt_nbits_verify_case c;
        dibit_error error;
        dbt_arena_init(&arena, NULL);
        assert_int_equal(dbt_nbits_verify_make(i, &arena, &c, &error), DIBIT_OK);
        const uint32_t bits = c.p.bits;
        memset(seen, 0, MOST);
        if (8 % bits == 0 && c.p.zero_point_type == DIBIT_TYPE_UINT8) {
            mark_bytes(&c, seen);
            complete[bits][c.p.block_size > 16] += count(seen, MOST) == 256u << bits;
        } else if (bits == 3) {
            mark_triples(&c, seen);
            complete[bits][c.p.block_size > 16] += count(seen, 8 * 512) == 8 * 512;
        }
        dbt_arena_free(&arena);
    }
    free(seen);
    static const uint32_t whole[] = {1, 2, 3, 4, 8};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        assert_true(complete[whole[i]][0] > 0);
        assert_true(complete[whole[i]][1] > 0);
    }
}

/* ---- The first wrong code ---- */

static void test_a_wrong_code_is_named(void **state) {
    (void)state;
    dbt_arena arena;
    dbt_nbits_verify_case c;
    dibit_error error;
    char text[600];
    dbt_arena_init(&arena, NULL);
    assert_int_equal(dbt_nbits_verify_make(0, &arena, &c, &error), DIBIT_OK);
    const uint64_t n = (uint64_t)(c.p.M * c.p.N);
    double *const want = dbt_arena_array(&arena, n, sizeof *want);
    float *const y = dbt_arena_array(&arena, n, sizeof *y);
    assert_true(want && y);
    dbt_matmul_nbits_ref(&c.p, want, NULL);
    for (uint64_t i = 0; i < n; i++) y[i] = (float)want[i];
    assert_true(dbt_nbits_verify_check(&c, c.p.M, y, text, sizeof text));
    const int64_t m = 37, row = 5; /* its code is 0 and should be 1, or the other way round */
    const int64_t at = row * c.p.k_blocks * c.p.block_size + m;
    const float scale = c.scales[row * c.p.k_blocks + m / c.p.block_size];
    y[m * c.p.N + row] += (c.codes[at] ? -127.0f : 127.0f) * scale;
    assert_false(dbt_nbits_verify_check(&c, c.p.M, y, text, sizeof text));
    char expected[64];
    snprintf(expected, sizeof expected, "code %u is expected, got %u", (unsigned)c.codes[at],
             1u - c.codes[at]);
    if (!strstr(text, "1 bits, block size 32") || !strstr(text, "row 5, k 37") ||
        !strstr(text, expected)) {
        fail_msg("'%s' lacks the place or '%s'", text, expected);
    }
    y[m * c.p.N + row] = NAN;
    assert_false(dbt_nbits_verify_check(&c, c.p.M, y, text, sizeof text));
    dbt_arena_free(&arena);
}

/* ---- Devices ---- */

static void test_every_kernel_is_right(void **state) {
    (void)state;
    const char *const name = getenv("DIBIT_TEST_DEVICE");
    const bool webgpu = name && strcmp(name, "webgpu") == 0;
    const dibit_device_desc desc = {.kind = webgpu ? DIBIT_DEVICE_WEBGPU : DIBIT_DEVICE_CPU,
                                    .webgpu_library = getenv("DIBIT_WEBGPU_LIB")};
    dibit_device *device = NULL;
    dibit_verify *verify = NULL;
    dibit_verify_info k;
    dibit_error error;
    if (dibit_device_create(&desc, &device, &error)) fail_msg("%s", error.text);
    const dibit_verify_desc what = {.scope = webgpu ? DIBIT_VERIFY_QUICK : DIBIT_VERIFY_NORMAL};
    dibit_status status = dibit_verify_begin(device, &what, &verify, &error);
    if (status) fail_msg("%s", error.text);
    while ((status = dibit_verify_poll(verify, &error)) == DIBIT_PENDING) continue;
    if (status) fail_msg("%s", error.text);
    uint32_t verdicts[3] = {0};
    for (uint32_t i = 0; dibit_verify_kernel(verify, i, &k) == DIBIT_OK; i++) {
        verdicts[k.verdict]++;
        if (k.verdict == DIBIT_VERDICT_FAILED) printf("FAILED %s: %s\n", k.kernel, k.text);
    }
    printf("%u kernels right, %u wrong, %u not for this device\n", (unsigned)verdicts[0],
           (unsigned)verdicts[1], (unsigned)verdicts[2]);
    assert_int_equal(verdicts[DIBIT_VERDICT_FAILED], 0);
    assert_true(verdicts[DIBIT_VERDICT_PASSED] > 0);
    dibit_verify_destroy(&verify);
    dibit_device_destroy(&device);
}

static void test_calls(void **state) {
    (void)state;
    dibit_device *device = NULL;
    dibit_verify *verify = NULL;
    dibit_verify_info k;
    dibit_error error;
    const dibit_device_desc null = {.kind = DIBIT_DEVICE_NULL};
    assert_int_equal(dibit_device_create(&null, &device, &error), DIBIT_OK);
    assert_int_equal(dibit_verify_begin(device, NULL, &verify, &error), DIBIT_BAD_ARGUMENT);
    assert_null(verify);
    dibit_device_destroy(&device);
    assert_int_equal(dibit_verify_begin(NULL, NULL, &verify, &error), DIBIT_BAD_ARGUMENT);

    assert_int_equal(dibit_device_create(NULL, &device, &error), DIBIT_OK);
    const dibit_verify_desc desc = {.activations = DIBIT_ACTIVATIONS_FLOAT};
    assert_int_equal(dibit_verify_begin(device, &desc, &verify, &error), DIBIT_OK);
    for (int i = 0; i < 100; i++)
        assert_int_equal(dibit_verify_poll(verify, &error), DIBIT_PENDING);
    for (uint32_t i = 0; dibit_verify_kernel(verify, i, &k) == DIBIT_OK; i++) {
        const bool int8 = strstr(k.kernel, "int8") != NULL;
        if (int8) assert_int_equal(k.verdict, DIBIT_VERDICT_SKIPPED);
        if (int8) assert_string_equal(k.text, "activations of the other kind");
    }
    dibit_verify_destroy(&verify); /* in the middle */
    assert_null(verify);
    dibit_verify_destroy(&verify);
    dibit_device_destroy(&device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases_hold_every_code),
        cmocka_unit_test(test_a_wrong_code_is_named),
        cmocka_unit_test(test_every_kernel_is_right),
        cmocka_unit_test(test_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* dibit verify: reads every code of weights back through each kernel of a device. */
#include <stdio.h>

#include <jansson.h>

#include "cli.h"
#include "dibit/debug.h"

static const char *const verb = "verify";
static const char *const verdicts[] = {"passed", "failed", "skipped"};

typedef struct tally {
    uint32_t of[3]; /* by verdict */
    uint64_t codes;
} tally;

static void print_kernel(const dibit_verify_info *k) {
    if (k->verdict == DIBIT_VERDICT_SKIPPED) {
        printf("skipped %-38s %s\n", k->kernel, k->text);
        return;
    }
    printf("%-7s %-38s %4u cases, %9llu codes\n", verdicts[k->verdict], k->kernel,
           (unsigned)k->cases, (unsigned long long)k->codes);
    if (k->verdict == DIBIT_VERDICT_FAILED)
        printf("FAILED %s: %u cases, first %s\n", k->kernel, (unsigned)k->failed_cases, k->text);
}

static json_t *kernel_json(const dibit_verify_info *k) {
    return json_pack("{s:s, s:s, s:i, s:i, s:I, s:s}", "kernel", k->kernel, "verdict",
                     verdicts[k->verdict], "cases", (int)k->cases, "failed_cases",
                     (int)k->failed_cases, "codes", (json_int_t)k->codes, "text", k->text);
}

static int report(const dibit_verify *verify, const dibit_device *device, bool json,
                  double seconds) {
    tally t = {0};
    json_t *const rows = json_array();
    dibit_verify_info k;
    if (!json) printf("matmul_nbits on %s\n", dibit_device_name(device));
    for (uint32_t i = 0; dibit_verify_kernel(verify, i, &k) == DIBIT_OK; i++) {
        t.of[k.verdict]++;
        t.codes += k.codes;
        json_array_append_new(rows, kernel_json(&k));
        if (!json) print_kernel(&k);
    }
    const unsigned passed = t.of[DIBIT_VERDICT_PASSED], failed = t.of[DIBIT_VERDICT_FAILED],
                   skipped = t.of[DIBIT_VERDICT_SKIPPED];
    json_t *const all =
        json_pack("{s:s, s:f, s:I, s:i, s:i, s:i, s:o}", "device", dibit_device_name(device),
                  "seconds", seconds, "codes", (json_int_t)t.codes, "passed", (int)passed, "failed",
                  (int)failed, "skipped", (int)skipped, "kernels", rows);
    if (json) {
        json_dumpf(all, stdout, JSON_INDENT(1));
        printf("\n");
    } else {
        printf("%llu codes read in %.1f s\n", (unsigned long long)t.codes, seconds);
        printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    }
    json_decref(all);
    return failed > 0;
}

static int verify_device(dibit_device *device, const dibit_verify_desc *desc, bool json) {
    dibit_verify *verify = NULL;
    dibit_error error;
    const double start = dibit_cli_seconds();
    dibit_status status = dibit_verify_begin(device, desc, &verify, &error);
    if (status == DIBIT_OK) status = DIBIT_PENDING;
    while (status == DIBIT_PENDING) status = dibit_verify_poll(verify, &error);
    const int code = status == DIBIT_OK ? report(verify, device, json, dibit_cli_seconds() - start)
                                        : dibit_cli_fail(verb, error.text);
    dibit_verify_destroy(&verify);
    return code;
}

int dibit_cli_verify(int argc, char **argv) {
    dibit_cli_common common = {0};
    bool quick = false, full = false;
    const dibit_cli_option options[] = {
        {"quick", 0, NULL, "only 2 to 4 bits and the commonest form of weights", DIBIT_CLI_FLAG,
         &quick},
        {"full", 0, NULL, "every kernel does everything on software adapters too: minutes there",
         DIBIT_CLI_FLAG, &full},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    const dibit_cli_spec spec = {
        .arguments = "",
        .help = "Proves that the kernels of MatMulNBits read weights rightly on this very device: "
                "unit vectors\n"
                "times weights whose codes are known read every code back, which must be equal. "
                "For 1, 2, 4 and 8\n"
                "bits every byte meets every zero point, for 3 every triple of codes does, for 5 "
                "to 7 the ends of\n"
                "the range. Names the first wrong code of a kernel, and ends with exit code 1 if "
                "there is one.\n",
        .options = options,
        .common = &common,
    };
    const int n_arguments = dibit_cli_parse(&spec, argc, argv);
    if (n_arguments < 0) return dibit_cli_exit_code(n_arguments);
    if (quick && full) return dibit_cli_usage(verb, "--quick does not go with --full");
    dibit_device *device = NULL;
    const char *why;
    dibit_error error;
    if (dibit_cli_open_device(&common, &device, &why, &error) != DIBIT_OK)
        return dibit_cli_fail(verb, error.text);
    const dibit_verify_desc desc = {.activations = common.activations,
                                    .scope = quick  ? DIBIT_VERIFY_QUICK
                                             : full ? DIBIT_VERIFY_FULL
                                                    : DIBIT_VERIFY_NORMAL};
    const int code = verify_device(device, &desc, common.json);
    dibit_device_destroy(&device);
    return code;
}

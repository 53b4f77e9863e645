/* Which kernel of MatMulNBits this machine is to use, where `dibit tune` found another one faster than the
 * list's choice: the reader of its file, and the look-up. One table for the process, since it says
 * something about the machine; it can be set until a kernel has been chosen by it or without it. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "ops/matmul_nbits/matmul_nbits.h"

enum { MAX_RULES = 256, MAX_LINE = 200 };

typedef struct rule {
    uint32_t bits;
    bool int8_activations;
    int64_t from_m;                 /* to that of the next rule of these bits and activations */
    const dbt_nbits_kernel *kernel; /* NULL: the list's choice */
} rule;

typedef struct table {
    rule rules[MAX_RULES];
    size_t n;
} table;

static table tuned;
static atomic_bool chosen;

const dbt_nbits_kernel *dbt_nbits_tuned(const dbt_matmul_nbits *p) {
    if (!atomic_load_explicit(&chosen, memory_order_relaxed)) atomic_store(&chosen, true);
    const rule *best = NULL;
    for (size_t i = 0; i < tuned.n; i++) {
        const rule *const r = &tuned.rules[i];
        if (r->bits != p->bits || r->int8_activations != p->int8_activations) continue;
        if (r->from_m <= p->M && (!best || r->from_m > best->from_m)) best = r;
    }
    return best ? best->kernel : NULL;
}

/* ---- Reading ---- */

static const dbt_nbits_kernel *find_kernel(const char *name) {
    for (size_t i = 0; i < dbt_nbits_kernel_count; i++) {
        if (strcmp(dbt_nbits_kernels[i].name, name) == 0) return &dbt_nbits_kernels[i];
    }
    return NULL;
}

static dibit_status read_rule(const char *line, unsigned number, rule *out, dibit_error *error) {
    unsigned bits;
    char activations[8], kernel[64], rest[2];
    int64_t from_m;
    const int n =
        sscanf(line, "%u %7s %" SCNd64 " %63s %1s", &bits, activations, &from_m, kernel, rest);
    const bool int8 = n == 4 && strcmp(activations, "int8") == 0;
    DBT_FAIL_IF(n != 4 || bits < 1 || bits > 8 || from_m < 1 ||
                    (!int8 && strcmp(activations, "float") != 0),
                error, DIBIT_BAD_FILE,
                "line %u must be bits (1 to 8), int8 or float, the first M and a kernel's name",
                number);
    *out = (rule){.bits = bits, .int8_activations = int8, .from_m = from_m};
    if (strcmp(kernel, "default") == 0) return DIBIT_OK;
    const dbt_nbits_kernel *const k = out->kernel = find_kernel(kernel);
    DBT_FAIL_IF(!k, error, DIBIT_BAD_FILE, "line %u: there is no kernel '%s'", number, kernel);
    DBT_FAIL_IF(k->bits != bits || k->int8_activations != int8, error, DIBIT_BAD_FILE,
                "line %u: '%s' is for %u bits and %s activations", number, kernel,
                (unsigned)k->bits, k->int8_activations ? "int8" : "float");
    DBT_FAIL_IF((k->isa & dibit_cpu_isa()) != k->isa, error, DIBIT_BAD_FILE,
                "line %u: this machine cannot run '%s'; tune it anew", number, kernel);
    return DIBIT_OK;
}

static dibit_status add_rule(table *t, const rule *r, unsigned number, dibit_error *error) {
    for (size_t i = 0; i < t->n; i++) {
        const rule *const other = &t->rules[i];
        DBT_FAIL_IF(other->bits == r->bits && other->int8_activations == r->int8_activations &&
                        other->from_m == r->from_m,
                    error, DIBIT_BAD_FILE, "line %u says again what a line before it says", number);
    }
    DBT_FAIL_IF(t->n == MAX_RULES, error, DIBIT_TOO_LARGE, "there are more than %d lines",
                MAX_RULES);
    t->rules[t->n++] = *r;
    return DIBIT_OK;
}

static dibit_status read_table(const char *text, table *out, dibit_error *error) {
    static const char first[] = "dibit tune 1";
    bool begun = false;
    for (unsigned number = 1; *text; number++) {
        char line[MAX_LINE];
        const size_t length = strcspn(text, "\n");
        DBT_FAIL_IF(length >= sizeof line, error, DIBIT_BAD_FILE, "line %u is too long", number);
        memcpy(line, text, length);
        line[length] = 0;
        text += length + (text[length] == '\n');
        line[strcspn(line, begun ? "#\r" : "\r")] = 0;
        if (!begun) {
            DBT_FAIL_IF(strcmp(line, first) != 0, error, DIBIT_BAD_FILE,
                        "it must begin with the line '%s'", first);
            begun = true;
            continue;
        }
        if (line[strspn(line, " \t")] == 0) continue;
        rule r;
        DBT_TRY(read_rule(line, number, &r, error));
        DBT_TRY(add_rule(out, &r, number, error));
    }
    DBT_FAIL_IF(!begun, error, DIBIT_BAD_FILE, "it must begin with the line '%s'", first);
    return DIBIT_OK;
}

dibit_status dibit_cpu_tune(const char *text, dibit_error *error) {
    DBT_FAIL_IF(!text, error, DIBIT_BAD_ARGUMENT, "text must not be NULL");
    DBT_FAIL_IF(atomic_load(&chosen), error, DIBIT_BAD_STATE,
                "kernels have been chosen already: tune before the first session is made");
    table read = {.n = 0};
    DBT_TRY(read_table(text, &read, error));
    tuned = read;
    return DIBIT_OK;
}

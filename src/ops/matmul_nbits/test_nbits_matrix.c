/* Pairwise choice of cases, and the search for what failures share. */
#include "dbt_test.h"

#include "ops/matmul_nbits/test_nbits_matrix.h"

typedef struct pair_set {
    int offset[MATRIX_MAX_PARAMETERS]; /* of a parameter's first value among all values */
    int n_values;
    bool *seen; /* [n_values][n_values] */
} pair_set;

static int new_pairs(const pair_set *set, const int *row, int n) {
    int count = 0;
    for (int i = 0; i < n; i++) {
        for (int j = i + 1; j < n; j++) {
            count +=
                !set->seen[(set->offset[i] + row[i]) * set->n_values + set->offset[j] + row[j]];
        }
    }
    return count;
}

static void mark_pairs(const pair_set *set, const int *row, int n) {
    for (int i = 0; i < n; i++) {
        for (int j = i + 1; j < n; j++) {
            set->seen[(set->offset[i] + row[i]) * set->n_values + set->offset[j] + row[j]] = true;
        }
    }
}

/* A row through the first pair that is not covered yet; false when none is left. */
static bool start_row(const pair_set *set, const matrix_parameter *parameters, int n, int *row) {
    for (int i = 0; i < n; i++) {
        for (int j = i + 1; j < n; j++) {
            for (int v = 0; v < parameters[i].n_values; v++) {
                for (int w = 0; w < parameters[j].n_values; w++) {
                    if (set->seen[(set->offset[i] + v) * set->n_values + set->offset[j] + w])
                        continue;
                    row[i] = v;
                    row[j] = w;
                    return true;
                }
            }
        }
    }
    return false;
}

int *matrix_pairwise(const matrix_parameter *parameters, int n_parameters, uint64_t *seed,
                     int *n_rows) {
    enum { CANDIDATES = 30, MAX_ROWS = 4096 };
    pair_set set = {0};
    for (int i = 0; i < n_parameters; i++) {
        set.offset[i] = set.n_values;
        set.n_values += parameters[i].n_values;
    }
    set.seen = calloc((size_t)set.n_values * (size_t)set.n_values, sizeof *set.seen);
    int *const rows = calloc((size_t)MAX_ROWS * (size_t)n_parameters, sizeof *rows);
    assert_non_null(set.seen);
    assert_non_null(rows);
    int n = 0;
    int fixed[MATRIX_MAX_PARAMETERS];
    for (; n < MAX_ROWS; n++) {
        for (int i = 0; i < n_parameters; i++) fixed[i] = -1;
        if (!start_row(&set, parameters, n_parameters, fixed)) break;
        int *const best = rows + n * n_parameters;
        int most = -1;
        for (int candidate = 0; candidate < CANDIDATES; candidate++) {
            int row[MATRIX_MAX_PARAMETERS];
            for (int i = 0; i < n_parameters; i++) {
                const int any = (int)(dbt_test_random(seed) % (uint64_t)parameters[i].n_values);
                row[i] = fixed[i] >= 0 ? fixed[i] : any;
            }
            const int count = new_pairs(&set, row, n_parameters);
            if (count <= most) continue;
            most = count;
            memcpy(best, row, (size_t)n_parameters * sizeof *row);
        }
        mark_pairs(&set, best, n_parameters);
    }
    free(set.seen);
    *n_rows = n;
    return rows;
}

void matrix_record(matrix_results *results, const int *row, bool failed) {
    const size_t width = (size_t)results->n_parameters * sizeof *row;
    if (results->n == results->capacity) {
        results->capacity = results->capacity ? 2 * results->capacity : 256;
        results->rows = realloc(results->rows, (size_t)results->capacity * width);
        results->failed = realloc(results->failed, (size_t)results->capacity * sizeof(bool));
        assert_non_null(results->rows);
        assert_non_null(results->failed);
    }
    memcpy(results->rows + (size_t)results->n * (size_t)results->n_parameters, row, width);
    results->failed[results->n++] = failed;
}

/* Failures and passes among the rows that have value v of parameter i and w of j (j < 0: any). */
static void count_with(const matrix_results *r, int i, int v, int j, int w, int *fails,
                       int *passes) {
    *fails = *passes = 0;
    for (int k = 0; k < r->n; k++) {
        const int *const row = r->rows + (size_t)k * (size_t)r->n_parameters;
        if (row[i] != v || (j >= 0 && row[j] != w)) continue;
        ++*(r->failed[k] ? fails : passes);
    }
}

/* The value that all failures have for parameter i, or -1. */
static int shared_value(const matrix_results *r, int i) {
    int value = -1;
    for (int k = 0; k < r->n; k++) {
        if (!r->failed[k]) continue;
        const int v = r->rows[(size_t)k * (size_t)r->n_parameters + (size_t)i];
        if (value >= 0 && v != value) return -1;
        value = v;
    }
    return r->parameters[i].n_values > 1 ? value : -1;
}

void matrix_summary(const matrix_results *r, char *text, int bytes) {
    int n_failed = 0;
    for (int k = 0; k < r->n; k++) n_failed += r->failed[k];
    int used = snprintf(text, (size_t)bytes, "%d of %d failed: ", n_failed, r->n);
    if (n_failed == r->n) {
        snprintf(text + used, (size_t)(bytes - used), "all fail");
        return;
    }
    /* An exact answer: one or two values that every failure has and no passed case. */
    for (int i = 0; i < r->n_parameters; i++) {
        const int v = shared_value(r, i);
        if (v < 0) continue;
        for (int j = -1; j < r->n_parameters; j++) {
            const int w = j < 0 ? 0 : shared_value(r, j);
            if (w < 0 || j == i) continue;
            int fails, passes;
            count_with(r, i, v, j, w, &fails, &passes);
            if (passes > 0) continue;
            used += snprintf(text + used, (size_t)(bytes - used), "all fail with %s %s",
                             r->parameters[i].name, r->parameters[i].values[v]);
            if (j >= 0) {
                used += snprintf(text + used, (size_t)(bytes - used), " and %s %s",
                                 r->parameters[j].name, r->parameters[j].values[w]);
            }
            snprintf(text + used, (size_t)(bytes - used), "; pass otherwise");
            return;
        }
    }
    /* Else what every failure has, and where many of them are. */
    const char *separator = "every failure has ";
    for (int i = 0; i < r->n_parameters && used < bytes; i++) {
        const int v = shared_value(r, i);
        if (v < 0) continue;
        used += snprintf(text + used, (size_t)(bytes - used), "%s%s %s", separator,
                         r->parameters[i].name, r->parameters[i].values[v]);
        separator = ", ";
    }
    separator = "; all with these fail: ";
    for (int i = 0; i < r->n_parameters && used < bytes; i++) {
        for (int v = 0; v < r->parameters[i].n_values && used < bytes; v++) {
            int fails, passes;
            count_with(r, i, v, -1, 0, &fails, &passes);
            if (fails == 0 || passes > 0) continue;
            used += snprintf(text + used, (size_t)(bytes - used), "%s%s %s", separator,
                             r->parameters[i].name, r->parameters[i].values[v]);
            separator = ", ";
        }
    }
}

void matrix_free(matrix_results *results) {
    free(results->rows);
    free(results->failed);
}

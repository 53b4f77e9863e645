/* What a matrix of test cases needs besides the cases: a seeded choice that covers every pair of
 * parameter values, and a sentence for what the failures have in common. */
#ifndef DBT_TEST_NBITS_MATRIX_H
#define DBT_TEST_NBITS_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

enum { MATRIX_MAX_PARAMETERS = 16, MATRIX_MAX_VALUES = 64 };

typedef struct matrix_parameter {
    const char *name;
    int n_values;
    const char *const *values; /* names */
} matrix_parameter;

/* Rows of value indices, [n_rows][n_parameters], that contain every pair of values of any two
 * parameters. The caller frees it. */
int *matrix_pairwise(const matrix_parameter *parameters, int n_parameters, uint64_t *seed,
                     int *n_rows);

/* Results of rows of value indices. */
typedef struct matrix_results {
    const matrix_parameter *parameters;
    int n_parameters;
    int *rows; /* [n][n_parameters] */
    bool *failed;
    int n, capacity;
} matrix_results;

void matrix_record(matrix_results *results, const int *row, bool failed);
/* Writes a sentence: "all fail with zero points packed and block 64; pass otherwise". */
void matrix_summary(const matrix_results *results, char *text, int bytes);
void matrix_free(matrix_results *results);

#endif

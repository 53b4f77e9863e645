/* Rotary position embedding of one head's row: pairs of elements turn by the position's angles.
 *
 *     (x[i], x[j]) -> (x[i] cos - x[j] sin, x[j] cos + x[i] sin)
 *     halves:      i = p, j = p + half;   interleaved: i = 2p, j = 2p + 1;   p in [0, half)
 *
 * Elements from 2 * half on pass. */
#ifndef DBT_OPS_ROTARY_H
#define DBT_OPS_ROTARY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* cos, sin: [half] of the position; y may be x. */
static inline void dbt_rotary_row(const float *x, const float *cos, const float *sin, int64_t half,
                                  int64_t dim, bool interleaved, float *y) {
    for (int64_t p = 0; p < half; p++) {
        const int64_t i = interleaved ? 2 * p : p, j = interleaved ? 2 * p + 1 : p + half;
        const float a = x[i], b = x[j];
        y[i] = a * cos[p] - b * sin[p];
        y[j] = b * cos[p] + a * sin[p];
    }
    if (y != x && dim > 2 * half) {
        memcpy(y + 2 * half, x + 2 * half, (size_t)(dim - 2 * half) * sizeof *y);
    }
}

#endif

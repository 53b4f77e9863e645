/* Constants that are made from others when they are loaded: codes and scales of a DequantizeLinear in the layout
 * of MatMulNBits (rewrite_dequantize.c). */
#include <string.h>

#include "ops/quantize/quantize.h"
#include "plan/plan.h"

enum { RUN = 64 };

static void copy_elements(const dbt_constant_matrix *m, const char *from, char *to) {
    const int64_t size = dibit_type_bits(m->from->type) / 8;
    for (int64_t r = 0; r < m->rows; r++) {
        for (int64_t c = 0; c < m->columns; c++) {
            const int64_t at = r * m->row_stride + c * m->column_stride;
            memcpy(to + r * m->row_bytes + c * size, from + at * size, (size_t)size);
        }
    }
}

static void write_codes(const dbt_constant_matrix *m, const void *from, uint8_t *to) {
    const int64_t bits = dibit_type_bits(m->from->type);
    const bool by_row = m->column_stride == 1;
    const int64_t n_outer = by_row ? m->rows : m->columns, n = by_row ? m->columns : m->rows;
    const int64_t stride = by_row ? m->row_stride : m->column_stride;
    int32_t low, high, q[RUN];
    dbt_quantize_range(m->from->type, &low, &high);
    memset(to, 0, (size_t)(m->rows * m->row_bytes));
    for (int64_t first = 0; first < n; first += RUN) { /* neighbours in `from` */
        const int64_t run = n - first < RUN ? n - first : RUN;
        for (int64_t o = 0; o < n_outer; o++) {
            dbt_quantize_load(from, m->from->type, o * stride + first, run, q);
            for (int64_t i = 0; i < run; i++) {
                const int64_t row = by_row ? o : first + i, bit = (by_row ? first + i : o) * bits;
                to[row * m->row_bytes + bit / 8] |= (uint8_t)((uint32_t)(q[i] - low) << bit % 8);
            }
        }
    }
}

void dbt_matrix_write(const dbt_constant_matrix *m, const void *from, void *to) {
    if (m->codes) {
        write_codes(m, from, to);
    } else {
        copy_elements(m, from, to);
    }
}

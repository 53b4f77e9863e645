/* See nbits_trace.h. The code of element k is found here by its word, shift and mask, not as ref.c finds it:
 * tests hold the sums of both to each other. */
#include "ops/matmul_nbits/nbits_trace.h"

#include <math.h>
#include <stdio.h>

/* As nbits_trace.inc.wgsl lays out a unit, in words. */
enum {
    UNIT = 32,
    ZERO_POINTS = 0,
    SCALES = 4 * 32,
    QUADS = 4 * 64, /* 20 words each */
    QUAD_WORDS = 20,
    A_SCALES = 4 * 104,
    UNIT_WORDS = 4 * 106
};
#define NONE UINT32_MAX

static int64_t units_of(int64_t K) { return (K + UNIT - 1) / UNIT; }

uint64_t dbt_nbits_trace_bytes(int64_t K) { return (uint64_t)units_of(K) * UNIT_WORDS * 4; }

/* ---- As it must be ---- */

/* The little-endian word at a byte of the row; *known: the bits that are in the tensor. */
static uint32_t word_at(const dbt_nbits_element *e, uint64_t at, uint32_t *known) {
    uint32_t word = 0;
    *known = 0;
    for (uint32_t i = 0; i < 4 && at + i < e->b_bytes; i++) {
        word |= (uint32_t)e->p.b[at + i] << (8 * i);
        *known |= UINT32_C(0xff) << (8 * i);
    }
    return word;
}

static bool crosses(const dbt_nbits_element *e, const dibit_trace_product *p) {
    return p->shift + e->p.bits > 32;
}

static void find_code(const dbt_nbits_element *e, dibit_trace_product *out) {
    const uint64_t bit = (uint64_t)out->k * e->p.bits, in_row = bit / 32 * 4;
    uint32_t known;
    out->address = (uint64_t)e->n * (uint64_t)dbt_nbits_row_bytes(&e->p) + in_row;
    out->shift = (uint32_t)(bit % 32);
    out->mask = (1u << e->p.bits) - 1;
    out->word = word_at(e, in_row, &known);
    if (crosses(e, out)) out->next_word = word_at(e, in_row + 4, &known);
    const uint64_t words = (uint64_t)out->next_word << 32 | out->word;
    out->code = (uint32_t)(words >> out->shift) & out->mask;
}

static void find_zero_point(const dbt_nbits_element *e, dibit_trace_product *out) {
    const dbt_matmul_nbits *const p = &e->p;
    const uint64_t g = (uint64_t)out->block;
    out->zero_address = UINT64_MAX;
    if (p->zero_point_type == DIBIT_TYPE_UNDEFINED) {
        out->zero_point = (float)(1u << (p->bits - 1));
    } else if (p->zero_point_type == DIBIT_TYPE_UINT8) {
        const uint64_t bit = g * p->bits;
        const uint8_t *const row = p->zero_points;
        out->zero_address = (uint64_t)e->n * (uint64_t)dbt_nbits_zero_row_bytes(p) + bit / 8;
        out->zero_shift = (uint32_t)(bit % 8);
        uint32_t bytes = row[bit / 8];
        if (out->zero_shift + p->bits > 8) bytes |= (uint32_t)row[bit / 8 + 1] << 8;
        out->zero_point = (float)(bytes >> out->zero_shift & ((1u << p->bits) - 1));
    } else {
        out->zero_address = ((uint64_t)(e->n * p->k_blocks) + g) *
                            (uint64_t)dbt_nbits_float_bytes(p->zero_point_type);
        out->zero_point = dbt_float_at(p->zero_points, p->zero_point_type, out->block);
    }
}

/* Product and sum of what was found. */
static void multiply(const dbt_nbits_element *e, double sum, dibit_trace_product *out) {
    const double a =
        e->p.int8_activations ? (double)out->a_scale * (double)out->a_code : (double)out->a;
    const double weight = ((double)out->code - (double)out->zero_point) * (double)out->scale;
    out->product = a * weight;
    out->sum = sum + out->product;
}

void dbt_nbits_trace_ref(const dbt_nbits_element *e, dibit_trace_product *products) {
    const dbt_matmul_nbits *const p = &e->p;
    double sum = p->bias ? (double)p->bias[0] : 0.0;
    float scale = 0, inverse = 0;
    for (int64_t k = 0; k < p->K; k++) {
        dibit_trace_product *const out = &products[k];
        *out = (dibit_trace_product){.k = k};
        out->block = p->g_idx ? p->g_idx[k] : k / p->block_size;
        find_code(e, out);
        find_zero_point(e, out);
        out->scale_address = (uint64_t)(e->n * p->k_blocks + out->block) *
                             (uint64_t)dbt_nbits_float_bytes(p->scale_type);
        out->scale = dbt_float_at(p->scales, p->scale_type, out->block);
        out->a_index = e->m * p->K + k;
        out->a = p->a[k];
        if (p->int8_activations) {
            const int64_t rest = p->K - k;
            if (k % p->block_size == 0)
                inverse = dbt_nbits_int8_scale(p->a + k,
                                               rest < p->block_size ? rest : p->block_size, &scale);
            out->a_scale = scale;
            out->a_code = inverse > 0.0f ? (int32_t)nearbyintf(p->a[k] * inverse) : 0;
        }
        multiply(e, sum, out);
        sum = out->sum;
    }
}

/* ---- As the shader has it ---- */

/* What a shader wrote about one product; NULL: nothing. */
typedef struct written {
    const uint32_t *zero_point, *scale; /* number and shift, block, address, value */
    const uint32_t *words;              /* address, word, next word, mask */
    uint32_t shift, code;
    const uint32_t *a_index, *a, *a_scale;
    const uint32_t *a_codes; /* of a quad */
    uint32_t a_code;
} written;

/* The last of the ranges [32][4] that begin at or before an element has it, or none does. */
static const uint32_t *find_range(const uint32_t *ranges, int64_t element) {
    for (int64_t i = element; i >= 0; i--) {
        const uint32_t *const range = ranges + 4 * i;
        if (range[0] == NONE) continue;
        return i + (range[0] & 0xffff) > element ? range : NULL;
    }
    return NULL;
}

/* Of the four quads of a half of the unit, the byte whose number is the element's. */
static bool find_byte(const uint32_t *quads, uint32_t numbers_at, int64_t element,
                      const uint32_t **quad, uint32_t *byte) {
    for (int64_t i = 0; i < 16; i++) {
        const uint32_t *const at = quads + (element / 16 * 4 + i / 4) * QUAD_WORDS;
        const uint32_t numbers = at[numbers_at];
        if (numbers == NONE || (numbers >> i % 4 * 8 & 0xff) != element % 16) continue;
        *quad = at;
        *byte = (uint32_t)(i % 4);
        return true;
    }
    return false;
}

static written find_written(const uint32_t *words, int64_t k) {
    const uint32_t *const unit = words + k / UNIT * UNIT_WORDS, *const quads = unit + QUADS;
    const int64_t element = k % UNIT;
    const uint32_t *const own = quads + element / 4 * QUAD_WORDS, *quad = NULL;
    uint32_t byte = 0;
    written w = {.zero_point = find_range(unit + ZERO_POINTS, element),
                 .scale = find_range(unit + SCALES, element)};
    if (find_byte(quads, 6, element, &quad, &byte)) {
        w.words = quad;
        w.shift = quad[4] >> 8 * byte & 0xff;
        w.code = quad[5] >> 8 * byte & 0xff;
    }
    if (own[8 + element % 4] != NONE) w.a_index = &own[8 + element % 4];
    if (own[12 + element % 4] != NONE) w.a = &own[12 + element % 4];
    if (find_byte(quads, 17, element, &quad, &byte)) {
        w.a_codes = quad;
        w.a_code = quad[16] >> 8 * byte & 0xff;
    }
    if (unit[A_SCALES + element / 16 * 4 + 1] != NONE)
        w.a_scale = &unit[A_SCALES + element / 16 * 4];
    return w;
}

static void read_code(const dbt_nbits_element *e, const written *w, uint64_t begin,
                      dibit_trace_product *out) {
    out->address = UINT64_MAX;
    if (!w->words) return;
    out->address = begin + w->words[0];
    out->word = w->words[1];
    out->next_word = w->words[2];
    out->mask = w->words[3];
    out->shift = w->shift;
    out->code = w->code;
    if (out->shift >= 32 && out->shift < 64) { /* it lies in the second word alone */
        out->address += 4;
        out->shift -= 32;
        out->word = out->next_word;
        out->next_word = 0;
    }
    if (!crosses(e, out)) out->next_word = 0;
}

static float float_or_nan(const uint32_t *word) {
    return word ? dbt_bits_to_float(*word) : dbt_bits_to_float(0x7fc00000);
}

static void read_product(const dbt_nbits_element *e, const written *w, int64_t a_row,
                         int64_t weights_row, dibit_trace_product *out) {
    const dbt_matmul_nbits *const p = &e->p;
    const uint64_t row = (uint64_t)weights_row, blocks = row * (uint64_t)p->k_blocks;
    read_code(e, w, row * (uint64_t)dbt_nbits_row_bytes(p), out);
    out->zero_address = UINT64_MAX;
    if (w->zero_point && w->zero_point[2] != NONE) {
        const bool packed = p->zero_point_type == DIBIT_TYPE_UINT8;
        const uint32_t shift = w->zero_point[0] >> 16;
        out->zero_address = w->zero_point[2] + shift / 8;
        out->zero_address += packed ? row * (uint64_t)dbt_nbits_zero_row_bytes(p)
                                    : blocks * (uint64_t)dbt_nbits_float_bytes(p->zero_point_type);
        out->zero_shift = shift % 8;
    }
    out->zero_point = float_or_nan(w->zero_point ? &w->zero_point[3] : NULL);
    out->block = w->scale ? (int64_t)w->scale[1] : -1;
    out->scale_address = w->scale
                             ? blocks * (uint64_t)dbt_nbits_float_bytes(p->scale_type) + w->scale[2]
                             : UINT64_MAX;
    out->scale = float_or_nan(w->scale ? &w->scale[3] : NULL);
    out->a_index = w->a_index ? a_row * p->K + (int64_t)*w->a_index : -1;
    out->a = float_or_nan(w->a);
    if (!p->int8_activations) return;
    out->a_code = w->a_codes ? (int8_t)(uint8_t)w->a_code : INT32_MIN;
    out->a_scale = float_or_nan(w->a_scale);
}

void dbt_nbits_trace_read(const dbt_nbits_element *e, const uint32_t *words, int64_t a_row,
                          int64_t weights_row, dibit_trace_product *products) {
    double sum = e->p.bias ? (double)e->p.bias[0] : 0.0;
    for (int64_t k = 0; k < e->p.K; k++) {
        const written w = find_written(words, k);
        products[k] = (dibit_trace_product){.k = k};
        read_product(e, &w, a_row, weights_row, &products[k]);
        multiply(e, sum, &products[k]);
        sum = products[k].sum;
    }
}

/* ---- The first difference ---- */

typedef struct difference {
    char *text;
    size_t bytes;
} difference;

static bool differ(difference *d, const char *what, uint64_t want, uint64_t got) {
    if (want == got) return false;
    uint32_t bit = 0;
    while (((want ^ got) >> bit & 1) == 0) bit++;
    if (got == UINT64_MAX) {
        snprintf(d->text, d->bytes, "%s was never found, expected %llu", what,
                 (unsigned long long)want);
    } else {
        snprintf(d->text, d->bytes, "%s is %llu, expected %llu (its bit %u is wrong)", what,
                 (unsigned long long)got, (unsigned long long)want, (unsigned)bit);
    }
    return true;
}

static bool differ_word(difference *d, const char *what, uint32_t want, uint32_t got) {
    if (want == got) return false;
    snprintf(d->text, d->bytes, "%s is 0x%08x, expected 0x%08x", what, (unsigned)got,
             (unsigned)want);
    return true;
}

static bool differ_float(difference *d, const char *what, float want, float got) {
    if (want == got || (isnan(want) && isnan(got))) return false;
    snprintf(d->text, d->bytes, "%s is %.9g, expected %.9g", what, (double)got, (double)want);
    return true;
}

static uint64_t index_of(int64_t i) { return i < 0 ? UINT64_MAX : (uint64_t)i; }

static bool code_differs(const dbt_nbits_element *e, const dibit_trace_product *want,
                         const dibit_trace_product *got, difference *d) {
    uint32_t known, next_known;
    const uint64_t in_row = (uint64_t)want->k * e->p.bits / 32 * 4;
    (void)word_at(e, in_row, &known);
    (void)word_at(e, in_row + 4, &next_known);
    return differ(d, "the byte address of the code's word", want->address, got->address) ||
           differ(d, "the shift", want->shift, got->shift) ||
           differ_word(d, "the word", want->word, got->word & known) ||
           differ_word(d, "the next word", want->next_word, got->next_word & next_known) ||
           differ_word(d, "the mask", want->mask, got->mask) ||
           differ(d, "the code", want->code, got->code);
}

static bool a_differs(const dbt_nbits_element *e, const dibit_trace_product *want,
                      const dibit_trace_product *got, difference *d) {
    /* Of a block whose codes are all 0 for its scale's sake, elements are not loaded again. */
    const bool loaded =
        !e->p.int8_activations || got->a_index >= 0 || (want->a_scale > 0 && isfinite(want->a));
    if (loaded && (differ(d, "the index in A", index_of(want->a_index), index_of(got->a_index)) ||
                   differ_float(d, "the value of A", want->a, got->a)))
        return true;
    if (!e->p.int8_activations) return false;
    if (differ_float(d, "the scale of A's block", want->a_scale, got->a_scale)) return true;
    if (want->a_code == got->a_code) return false;
    snprintf(d->text, d->bytes, "A as int8 is %d, expected %d", (int)got->a_code,
             (int)want->a_code);
    return true;
}

static bool product_differs(const dbt_nbits_element *e, const dibit_trace_product *want,
                            const dibit_trace_product *got, difference *d) {
    return code_differs(e, want, got, d) ||
           differ(d, "the block", index_of(want->block), index_of(got->block)) ||
           differ(d, "the zero point's byte", want->zero_address, got->zero_address) ||
           differ(d, "the zero point's first bit in its byte", want->zero_shift, got->zero_shift) ||
           differ_float(d, "the zero point", want->zero_point, got->zero_point) ||
           differ(d, "the scale's byte", want->scale_address, got->scale_address) ||
           differ_float(d, "the scale", want->scale, got->scale) || a_differs(e, want, got, d);
}

/* Codes past K are padding, which A must meet with zeros. */
static int64_t find_padding(const dbt_nbits_element *e, const uint32_t *words, difference *d) {
    for (int64_t k = e->p.K; k < units_of(e->p.K) * UNIT; k++) {
        const written w = find_written(words, k);
        if (w.a && differ_float(d, "A past the end of its row", 0.0f, float_or_nan(w.a))) return k;
        if (!e->p.int8_activations || !w.a_codes || w.a_code == 0) continue;
        snprintf(d->text, d->bytes, "A as int8 past the end of its row is %d, expected 0",
                 (int)(int8_t)(uint8_t)w.a_code);
        return k;
    }
    return -1;
}

int64_t dbt_nbits_trace_compare(const dbt_nbits_element *e, const dibit_trace_product *want,
                                const dibit_trace_product *got, const uint32_t *words, char *text,
                                size_t text_bytes) {
    char what[200] = "";
    difference d = {what, sizeof what};
    int64_t k = 0;
    while (k < e->p.K && !product_differs(e, &want[k], &got[k], &d)) k++;
    if (k == e->p.K) k = words ? find_padding(e, words, &d) : -1;
    if (k < 0) {
        text[0] = '\0';
    } else {
        snprintf(text, text_bytes, "k %lld: %s", (long long)k, what);
    }
    return k;
}

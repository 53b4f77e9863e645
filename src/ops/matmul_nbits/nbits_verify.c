/* See nbits_verify.h. The codes of a case come from one endless pattern per bit width that holds all there is
 * to see: every byte for 1, 2, 4 and 8 bits; for 3 every triple of codes at each of the 8 places where a
 * triple begins in 3 bytes; for 5 to 7 every pair of codes at the ends of the range, at all 8 places. Where
 * codes fill bytes, the pattern comes with each of the zero points. */
#include "ops/matmul_nbits/nbits_verify.h"

#include <stdio.h>

#include "base/dtype.h"

/* ---- The cases ---- */

typedef struct shape {
    uint16_t block_size, whole_blocks, tail; /* of a row: K is whole_blocks * block_size + tail */
    uint16_t m;                              /* 0: a unit vector for every k */
    dibit_type scale_type, zero_point_type;
    bool bias, g_idx;
    bool whole; /* all of the pattern; else some rows of it */
    bool quick;
    uint8_t form; /* cases of the same bits and form share their shaders */
} shape;

#define NONE DIBIT_TYPE_UNDEFINED
#define PACKED DIBIT_TYPE_UINT8
#define F32 DIBIT_TYPE_FLOAT
#define F16 DIBIT_TYPE_FLOAT16
#define BF16 DIBIT_TYPE_BFLOAT16

enum { SOME_ROWS = 19 /* of B: no multiple of what kernels take at once */ };

/* Neighbours share their shaders where they can: a device compiles one for each combination of whether rows of
 * B are whole words, types, bias, g_idx, block size 16 or more, and K % 4. */
static const shape shapes[] = {
    {32, 2, 8, 0, F16, PACKED, false, false, true, true, 0},
    {32, 8, 0, 0, F16, PACKED, false, false, false, true, 0},
    {64, 2, 40, 0, F16, PACKED, false, false, false, false, 0},
    {128, 1, 4, 0, F16, PACKED, false, false, false, false, 0},
    {256, 1, 20, 0, F16, PACKED, false, false, false, true, 0},
    {32, 129, 8, 64, F16, PACKED, false, false, false, false, 0}, /* past 128 lanes of 32 */
    {16, 2, 13, 0, F32, PACKED, true, false, true, false, 1},
    {16, 3, 5, 0, BF16, NONE, true, false, true, false, 2},
    {32, 1, 31, 0, F32, F32, false, false, false, false, 3},
    {16, 4, 0, 0, F16, F16, false, false, false, false, 4},
    {64, 1, 3, 0, BF16, BF16, true, false, false, false, 5},
    {32, 2, 8, 0, F32, PACKED, false, true, false, false, 6},
    {16, 2, 7, 0, F16, NONE, false, true, false, false, 7},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], MOST_BITS = 8 };

static const shape *shape_of(uint32_t index) { return &shapes[index % N_SHAPES]; }
static uint32_t bits_of(uint32_t index) { return index / N_SHAPES + 1; }

uint32_t dbt_nbits_verify_count(void) { return N_SHAPES * MOST_BITS; }

bool dbt_nbits_verify_is_quick(uint32_t index) {
    const uint32_t bits = bits_of(index);
    return shape_of(index)->quick && bits >= 2 && bits <= 4;
}

uint32_t dbt_nbits_verify_form(uint32_t index) {
    enum { N_FORMS = 9 /* room for 8; odd, so that other kernels share a form with other bits */ };
    return bits_of(index) * N_FORMS + shape_of(index)->form;
}
bool dbt_nbits_verify_is_rare(uint32_t index) { return shape_of(index)->form >= 2; }

/* ---- Codes ---- */

static uint32_t hash(uint64_t i) {
    i = (i + 1) * 0x9e3779b97f4a7c15u;
    i = (i ^ i >> 29) * 0xbf58476d1ce4e5b9u;
    return (uint32_t)(i >> 32);
}

enum { TRIPLES = 3 * 512 + 1, PAIRS = 2 * 36 + 1 }; /* odd: each round begins at another place */

/* Codes of the pattern. Triples and pairs come twice, the second time 8 codes further on in a row, so that what
 * the end of a row cuts off is somewhere else whole. */
static int64_t pattern_length(uint32_t bits) {
    if (8 % bits == 0) return 256 * 8 / bits;
    return bits == 3 ? 2 * 8 * TRIPLES : 2 * 8 * PAIRS;
}

static uint8_t pattern_code(uint32_t bits, uint64_t i) {
    const uint32_t top = (1u << bits) - 1;
    if (8 % bits == 0) return (uint8_t)((uint32_t)(i * bits / 8 % 256) >> i * bits % 8 & top);
    if (bits == 3) {
        const uint32_t at = (uint32_t)(i % TRIPLES);
        return (uint8_t)(at == TRIPLES - 1 ? top : at / 3 >> 3 * (at % 3) & top);
    }
    const uint32_t ends[6] = {0, 1, top / 2, top / 2 + 1, top - 1, top};
    const uint32_t at = (uint32_t)(i % PAIRS), pair = at / 2;
    return (uint8_t)(at == PAIRS - 1 ? top : ends[at % 2 ? pair / 6 : pair % 6]);
}

static int64_t blocks_of_pattern(uint32_t bits, int64_t block_size) {
    return (pattern_length(bits) + block_size - 1) / block_size;
}

/* How many contents a block can have: parts of the pattern, with every zero point where codes fill bytes, else
 * at least as many as there are zero points. */
static int64_t n_contents_of(const dbt_matmul_nbits *p) {
    const int64_t n_blocks = blocks_of_pattern(p->bits, p->block_size);
    const int64_t n_zero_points = p->zero_point_type == PACKED ? 1 << p->bits : 1;
    if (8 % p->bits == 0) return n_zero_points * n_blocks;
    return n_blocks > n_zero_points ? n_blocks : n_zero_points;
}

typedef struct block_content {
    uint32_t zero_point;
    uint64_t part; /* of the pattern */
} block_content;

/* Zero points come round in an order that changes, so that no two rows are alike. */
static block_content content_of(const dbt_matmul_nbits *p, uint64_t i) {
    const uint64_t n_zero_points = p->zero_point_type == PACKED ? 1u << p->bits : 1;
    const uint64_t round = i / n_zero_points;
    return (block_content){(uint32_t)((i ^ hash(round)) % n_zero_points),
                           8 % p->bits == 0 ? round : i};
}

static void put_code(uint8_t *stream, uint32_t bits, int64_t i, uint32_t code) {
    const int64_t bit = i * bits;
    const uint32_t shifted = code << (bit & 7);
    stream[bit >> 3] |= (uint8_t)shifted;
    if (shifted > 0xff) stream[(bit >> 3) + 1] |= (uint8_t)(shifted >> 8);
}

/* ---- Making a case ---- */

typedef struct memory {
    float *a, *scales, *zero_points, *bias;
    uint8_t *codes, *b, *packed_zero_points;
    void *packed_scales;
    int32_t *g_idx;
} memory;

/* What is packed ends on whole words, as uploads do. */
static bool allocate(const dbt_matmul_nbits *p, dbt_arena *arena, memory *m) {
    const uint64_t n_blocks = (uint64_t)(p->N * p->k_blocks), word = 4;
    m->a = dbt_arena_array(arena, (uint64_t)(p->M * p->K), sizeof *m->a);
    m->scales = dbt_arena_array(arena, n_blocks, sizeof *m->scales);
    m->zero_points = dbt_arena_array(arena, n_blocks, sizeof *m->zero_points);
    m->bias = dbt_arena_array(arena, (uint64_t)p->N, sizeof *m->bias);
    m->codes = dbt_arena_alloc(arena, n_blocks * (uint64_t)p->block_size);
    m->b = dbt_arena_alloc(arena, (uint64_t)(p->N * dbt_nbits_row_bytes(p)) + word);
    m->packed_scales = dbt_arena_alloc(arena, n_blocks * sizeof(float));
    m->packed_zero_points = dbt_arena_alloc(arena, n_blocks * sizeof(float) + word);
    m->g_idx = dbt_arena_array(arena, (uint64_t)p->K, sizeof *m->g_idx);
    return m->a && m->scales && m->zero_points && m->bias && m->codes && m->b && m->packed_scales &&
           m->packed_zero_points && m->g_idx;
}

/* Block g of row n, the last one with its padding too. */
static void fill_block(const dbt_matmul_nbits *p, const shape *s, int64_t n, int64_t g,
                       const memory *m) {
    static const float some_scales[8] = {1.0f, -0.5f, 2.0f, -4.0f, 0.25f, -1.0f, 8.0f, -0.125f};
    const int64_t block = n * p->k_blocks + g;
    const int64_t index = g < s->whole_blocks ? n * s->whole_blocks + g : hash((uint64_t)n) >> 1;
    const block_content content = content_of(p, (uint64_t)(index % n_contents_of(p)));
    const int64_t first = block * p->block_size;
    for (int64_t i = 0; i < p->block_size; i++) {
        const uint64_t at = content.part * (uint64_t)p->block_size + (uint64_t)i;
        m->codes[first + i] = pattern_code(p->bits, at);
        put_code(m->b + n * dbt_nbits_row_bytes(p), p->bits, g * p->block_size + i,
                 m->codes[first + i]);
    }
    const uint32_t random = hash((uint64_t)block);
    m->scales[block] = some_scales[random % 8];
    if (p->zero_point_type == NONE) {
        m->zero_points[block] = (float)(1u << (p->bits - 1));
    } else if (p->zero_point_type == PACKED) {
        m->zero_points[block] = (float)content.zero_point;
        put_code(m->packed_zero_points + n * dbt_nbits_zero_row_bytes(p), p->bits, g,
                 content.zero_point);
    } else { /* halves, so that they are no code */
        m->zero_points[block] = 0.5f * (float)(random >> 8 & ((1u << p->bits) - 1));
    }
}

dibit_status dbt_nbits_verify_make(uint32_t index, dbt_arena *arena, dbt_nbits_verify_case *out,
                                   dibit_error *error) {
    const shape *const s = shape_of(index);
    const uint32_t bits = bits_of(index);
    dbt_matmul_nbits p = {.N = SOME_ROWS,
                          .K = s->whole_blocks * s->block_size + s->tail,
                          .k_blocks = s->whole_blocks + (s->tail > 0),
                          .block_size = s->block_size,
                          .bits = bits,
                          .scale_type = s->scale_type,
                          .zero_point_type = s->zero_point_type};
    p.M = s->m ? s->m : p.K;
    if (s->whole) p.N += n_contents_of(&p) / s->whole_blocks;
    memory m;
    if (!allocate(&p, arena, &m))
        return dbt_fail_memory(error, "a case of verify", (uint64_t)(p.N * p.K));
    for (int64_t i = 0; i < p.M; i++)
        m.a[i * p.K + dbt_nbits_verify_k(&p, i)] = DBT_NBITS_VERIFY_ONE;
    for (int64_t n = 0; n < p.N; n++) {
        for (int64_t g = 0; g < p.k_blocks; g++) fill_block(&p, s, n, g, &m);
        m.bias[n] = (float)(hash((uint64_t)n) % 19) - 9.0f;
    }
    for (int64_t k = 0; k < p.K; k++) m.g_idx[k] = (int32_t)(hash((uint64_t)k) % p.k_blocks);
    dbt_pack_elements(p.scale_type, m.scales, m.packed_scales, p.N * p.k_blocks);
    if (dbt_nbits_float_zero_points(&p))
        dbt_pack_elements(p.zero_point_type, m.zero_points, m.packed_zero_points, p.N * p.k_blocks);
    p.a = m.a;
    p.b = m.b;
    p.scales = m.packed_scales;
    p.zero_points = p.zero_point_type == NONE ? NULL : m.packed_zero_points;
    p.bias = s->bias ? m.bias : NULL;
    p.g_idx = s->g_idx ? m.g_idx : NULL;
    *out = (dbt_nbits_verify_case){p, m.codes, m.scales, m.zero_points};
    return DIBIT_OK;
}

/* ---- What Y must be ---- */

static void name_wrong_code(const dbt_nbits_verify_case *c, int64_t M, int64_t m, int64_t n,
                            float got, char *text, size_t text_bytes) {
    const dbt_matmul_nbits *const p = &c->p;
    const int64_t k = dbt_nbits_verify_k(p, m), g = p->g_idx ? p->g_idx[k] : k / p->block_size;
    const int64_t block = n * p->k_blocks + g;
    const int64_t byte = n * dbt_nbits_row_bytes(p) + k * p->bits / 8;
    const float bias = p->bias ? p->bias[n] : 0.0f;
    const float weight = (got - bias) / (DBT_NBITS_VERIFY_ONE * c->scales[block]);
    snprintf(text, text_bytes,
             "%u bits, block size %lld, %s zero points (here %g), %s scales%s%s, M %lld, N %lld, "
             "K %lld: row %lld, k %lld, byte %lld (0x%02x): code %u is expected, got %g",
             (unsigned)p->bits, (long long)p->block_size,
             p->zero_point_type == NONE     ? "no"
             : p->zero_point_type == PACKED ? "packed"
                                            : dibit_type_name(p->zero_point_type),
             (double)c->zero_points[block], dibit_type_name(p->scale_type), p->bias ? ", bias" : "",
             p->g_idx ? ", g_idx" : "", (long long)M, (long long)p->N, (long long)p->K,
             (long long)n, (long long)k, (long long)byte, (unsigned)p->b[byte],
             (unsigned)c->codes[n * p->k_blocks * p->block_size + k],
             (double)(weight + c->zero_points[block]));
}

bool dbt_nbits_verify_check(const dbt_nbits_verify_case *c, int64_t M, const float *y, char *text,
                            size_t text_bytes) {
    const dbt_matmul_nbits *const p = &c->p;
    for (int64_t m = 0; m < M; m++) {
        const int64_t k = dbt_nbits_verify_k(p, m), g = p->g_idx ? p->g_idx[k] : k / p->block_size;
        for (int64_t n = 0; n < p->N; n++) {
            const float code = (float)c->codes[n * p->k_blocks * p->block_size + k];
            const int64_t block = n * p->k_blocks + g;
            const float weight = (code - c->zero_points[block]) * c->scales[block];
            const float want = DBT_NBITS_VERIFY_ONE * weight + (p->bias ? p->bias[n] : 0.0f);
            if (y[m * p->N + n] == want) continue;
            name_wrong_code(c, M, m, n, y[m * p->N + n], text, text_bytes);
            return false;
        }
    }
    return true;
}

/* Strips of MatMulNBits's weights, for kernels of every instruction set: included by a file that defines its
 * vectors (below), mostly through cpu_float_tmpl.h.
 *
 * A STRIP is LANES rows of B, a lane each. Rows are bit streams: their 32-bit words are transposed, so
 * that vector w holds word w of every row; then one shift and one mask give code k of LANES rows at
 * once, whatever the width, the block size and the place of a block's end:
 *
 *     row 0  |w0|w1|w2|..      words   w0: |r0|r1|r2|..|      code k = word[k * bits / 32] >> shift
 *     row 1  |w0|w1|w2|..  ->          w1: |r0|r1|r2|..|
 *
 * Scales, packed and float zero points are rows of bits, too, and become [blocks_stride][LANES] floats in
 * the same way, so that a block's are one load, and with g_idx those of any k are.
 *
 * The file defines LANES; vf and vu, vectors of floats and of uint32_t that may alias; floats_of_halves,
 * of the low 16 bits of lanes; floats_of_codes(v, bits), of the low `bits` bits of lanes; and
 * transpose_words(at, stride, out): words 0 to 3 of LANES rows that are `stride` bytes apart. */

enum {
    CHUNK = 256, /* codes of a row that are transposed at a time */
    STAGE_STRIDE = CHUNK + 64,
    UNIT = 32, /* codes that fill whole words */
    HALF = 16  /* codes that are in one block */
};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static DBT_ALWAYS_INLINE vf splat(float v) { return v - (vf){0}; }
static DBT_ALWAYS_INLINE vf load(const float *at) { return *(const vf *)(const void *)at; }
static DBT_ALWAYS_INLINE void store(float *at, vf v) { *(vf *)(void *)at = v; }

/* ---- Rows to words ---- */

/* LANES rows of a tensor that lie behind each other, of which the first `count` exist. */
typedef struct strip {
    const uint8_t *rows, *end; /* end: of the tensor, up to which may be read */
    int64_t row_bytes, count;
} strip;

static inline strip strip_of(const void *data, int64_t row_bytes, int64_t n, int64_t n_rows) {
    const uint8_t *const rows = (const uint8_t *)data + n * row_bytes;
    return (strip){rows, rows + (n_rows - n) * row_bytes, row_bytes, least(LANES, n_rows - n)};
}

/* `bytes` (a multiple of 32, up to CHUNK) bytes of each row from byte `first` on, as words. What is past
 * a row's end may be anything. Rows are copied first: reading them a few bytes at a time would lose
 * their lines to each other where they are a multiple of 4 KB apart. */
static DBT_NOINLINE void load_words(const strip *s, int64_t first, int64_t bytes, vu *words) {
    typedef uint8_t line __attribute__((vector_size(64), aligned(1), may_alias));
    _Alignas(64) uint8_t stage[LANES * STAGE_STRIDE];
    const uint8_t *from = s->rows + first;
    const int64_t row_bytes = s->row_bytes, lines = (bytes + 63) / 64 * 64;
    if (lines <= s->end - from - (LANES - 1) * row_bytes) {
        for (uint8_t *to = stage; to < stage + sizeof stage;
             to += STAGE_STRIDE, from += row_bytes) {
            for (int64_t i = 0; i < lines; i += 64) {
                DBT_PREFETCH(from + LANES * row_bytes + i);
                *(line *)(to + i) = *(const line *)(from + i);
            }
        }
    } else {
        const int64_t n = least(row_bytes - first, bytes);
        memset(stage, 0, sizeof stage);
        for (int r = 0; r < s->count && n > 0; r++)
            memcpy(stage + r * STAGE_STRIDE, from + r * row_bytes, (size_t)n);
    }
    for (int64_t i = 0; i < bytes; i += 16) transpose_words(stage + i, STAGE_STRIDE, words + i / 4);
}

/* Code i of a unit; bits above it are anything. */
static DBT_ALWAYS_INLINE vu code_of(const vu *words, const int i, const uint32_t bits) {
    const uint32_t at = (uint32_t)i * bits, shift = at % 32;
    if (shift == 0) return words[at / 32];
    if (shift + bits <= 32) return words[at / 32] >> shift;
    return words[at / 32] >> shift | words[at / 32 + 1] << (32 - shift);
}

/* ---- Codes to floats ---- */

/* Codes of a strip and what they are multiplied with: rows of LANES floats, one a block. */
typedef struct unpacking {
    strip codes;
    const float *scales, *zero_points;
    const int32_t *g_idx;
    int64_t block_size;
} unpacking;

/* Codes [k, k + n_k), n_k at most CHUNK, as floats: out is [n_k rounded up to 8][LANES]. */
static DBT_ALWAYS_INLINE void unpack(const unpacking *u, int64_t k, int64_t n_k, float *out,
                                     const bool g_idx, const uint32_t bits) {
    vu words[CHUNK / 32 * 8];
    load_words(&u->codes, k / 8 * bits, (n_k * bits + 255) / 256 * 32, words);
    for (int64_t unit = 0; unit < n_k; unit += UNIT) {
        int32_t groups[UNIT] = {0};
        if (g_idx) memcpy(groups, u->g_idx + k + unit, (size_t)least(UNIT, n_k - unit) * 4);
        DBT_UNROLL
        for (int i = 0; i < UNIT; i += 8) {
            if (unit + i >= n_k) break;
            int64_t g = (k + unit + i) / u->block_size;
            DBT_UNROLL
            for (int j = 0; j < 8; j++) {
                if (g_idx) g = groups[i + j];
                const vf code =
                    floats_of_codes(code_of(words + unit / 32 * bits, i + j, bits), bits);
                store(out + (unit + i + j) * LANES,
                      (code - load(u->zero_points + g * LANES)) * load(u->scales + g * LANES));
            }
        }
    }
}

#define UNPACK(bits)                                                                               \
    static DBT_NOINLINE void unpack_##bits(const unpacking *u, int64_t k, int64_t n_k,             \
                                           float *out) {                                           \
        if (u->g_idx) {                                                                            \
            unpack(u, k, n_k, out, true, bits);                                                    \
        } else {                                                                                   \
            unpack(u, k, n_k, out, false, bits);                                                   \
        }                                                                                          \
    }
UNPACK(1)
UNPACK(2)
UNPACK(3)
UNPACK(4)
UNPACK(5)
UNPACK(6)
UNPACK(7)
UNPACK(8)
#undef UNPACK
static void (*const unpack_bits[])(const unpacking *, int64_t, int64_t, float *) = {
    NULL, unpack_1, unpack_2, unpack_3, unpack_4, unpack_5, unpack_6, unpack_7, unpack_8};

/* ---- Scales and zero points: [blocks_stride][LANES] ---- */

static void floats_of_rows(const dbt_nbits_task *t, const void *data, dibit_type type, int64_t n,
                           float *out) {
    enum { BYTES = CHUNK };
    const int size = (int)dbt_nbits_float_bytes(type);
    const int64_t k_blocks = t->p->k_blocks;
    const strip s = strip_of(data, k_blocks * size, n, t->p->N);
    for (int64_t g = 0; g < k_blocks;) {
        vu words[BYTES / 4];
        load_words(&s, g * size, BYTES, words);
        for (int w = 0; w < BYTES / 4 && g < k_blocks; w++) {
            if (type == DIBIT_TYPE_FLOAT) {
                store(out + g++ * LANES, (vf)words[w]);
                continue;
            }
            const bool half = type == DIBIT_TYPE_FLOAT16; /* there is room for an even number */
            store(out + g++ * LANES, half ? floats_of_halves(words[w]) : (vf)(words[w] << 16));
            store(out + g++ * LANES,
                  half ? floats_of_halves(words[w] >> 16) : (vf)(words[w] >> 16 << 16));
        }
    }
    for (int64_t g = k_blocks; g < t->blocks_stride; g++) store(out + g * LANES, (vf){0});
}

/* Of the rows of B from n on. Zeros fill scales; what fills zero points is finite. */
static DBT_NOINLINE void decode_strip(const dbt_nbits_task *t, int64_t n, float *scales,
                                      float *zero_points) {
    const dbt_matmul_nbits *const p = t->p;
    floats_of_rows(t, p->scales, p->scale_type, n, scales);
    if (dbt_nbits_float_zero_points(p)) {
        floats_of_rows(t, p->zero_points, p->zero_point_type, n, zero_points);
    } else if (p->zero_points) {
        const vf zero = {0}, one = splat(1.0f);
        const unpacking u = {.codes =
                                 strip_of(p->zero_points, dbt_nbits_zero_row_bytes(p), n, p->N),
                             .scales = (const float *)&one,
                             .zero_points = (const float *)&zero,
                             .block_size = INT64_MAX};
        for (int64_t g = 0; g < t->blocks_stride; g += CHUNK)
            unpack_bits[p->bits](&u, g, least(CHUNK, t->blocks_stride - g),
                                 zero_points + g * LANES);
    } else {
        for (int64_t g = 0; g < t->blocks_stride; g++)
            store(zero_points + g * LANES, splat((float)(1u << (p->bits - 1))));
    }
}

/* The last blocks of a row, for cpu_int8_matvec_tmpl.h with vectors of 64 bytes. Up to TAIL_BLOCKS blocks that do
 * not fill a vector of block sums would take as long as 16 do; here four rows of B share one, a quarter each:
 *
 *     K 576, block 32, 2 bits: blocks 16 and 17 of four rows    |row 0: b16 b16 b17 b17|row 1|row 2|row 3|
 *                                -> sums                        |b16 b17  0   0        |row 1|row 2|row 3|
 *
 * Codes of 2, 4 and 8 bits, all rows of A the same. (Twice that for 5 to 8 blocks is no faster than the vector.) */
enum { TAIL_BLOCKS = VL / 4, QUARTER = VB / 4 };

/* Whether blocks [g, k_blocks) can be taken so. */
static DBT_ALWAYS_INLINE bool is_tail(const operands *o, int64_t g, const uint32_t bits) {
    const int64_t n = o->p->k_blocks - g;
    return (bits == 2 || bits == 4 || bits == 8) && n > 0 && n <= TAIL_BLOCKS && o->per_vector == 1;
}

static DBT_ALWAYS_INLINE vi quarters(__m128i a, __m128i b, __m128i c, __m128i d) {
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(c), d, 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* Lanes' products with QUARTER bytes of each row, from byte `at` on. */
static DBT_ALWAYS_INLINE vi tail_dots(const operands *o, int64_t at, vi sums, const uint32_t bits) {
    const __mmask16 some = first16(o->bytes - at);
    __m128i b[PRODUCTS];
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++) b[r] = _mm_maskz_loadu_epi8(some, o->b[r] + at);
    const vi x = quarters(b[0], b[1], b[2], b[3]);
    const int8_t *const a = o->a[0] + at / VB * group_codes(planes_of(bits)) + at % VB;
    DBT_UNROLL
    for (int j = 0; j < planes_of(bits); j++) {
        const __m128i plane = _mm_loadu_si128((const __m128i *)(const void *)(a + j * VB));
        sums = v_dot(sums, plane_of(x, j, bits), _mm512_broadcast_i32x4(plane));
    }
    return sums;
}

/* Sums of neighbouring lanes, within quarters: those of a, then those of b. */
static inline vi tail_pairs(vi a, vi b) {
    const __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    return v_add32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                   _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}

/* Sums of the blocks from g on, a lane each; zeros past the last. */
static DBT_ALWAYS_INLINE vi tail_sums(const operands *o, int64_t g, const uint32_t bits) {
    const int64_t lanes = o->lanes < 4 ? 4 : o->lanes; /* of one vector in v */
    int64_t at = g * o->p->block_size * (int64_t)bits / 8;
    vi v[TAIL_BLOCKS];
    DBT_UNROLL
    for (int i = 0; i < TAIL_BLOCKS; i++) {
        v[i] = v_zero();
        for (int64_t l = 0; l < lanes && at < o->bytes; l += 4, at += QUARTER) {
            v[i] = tail_dots(o, at, v[i], bits);
        }
    }
    if (o->lanes == 1) return v[0];
    const vi first = tail_pairs(v[0], v[1]);
    return o->lanes == 2 ? first : tail_pairs(first, tail_pairs(v[2], v[3]));
}

/* Four of each row's scales or, from VL on, zero points. */
static DBT_ALWAYS_INLINE vf tail_floats(const float *blocks) {
    __m128i v[PRODUCTS];
    DBT_UNROLL
    for (int r = 0; r < PRODUCTS; r++)
        v[r] = _mm_loadu_si128((const __m128i *)(const void *)(blocks + 2 * VL * r));
    return vf_of_bits(quarters(v[0], v[1], v[2], v[3]));
}

/* What the blocks from g on add to y of each row. */
static DBT_ALWAYS_INLINE __m128 dot_tail(const operands *o, int64_t g, const uint32_t bits) {
    const vi a_sum =
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(o->a_sum[0] + g)));
    const vf a_scale = _mm512_broadcast_f32x4(_mm_loadu_ps(o->a_scale[0] + g));
    const vf term = apply_float(
        tail_sums(o, g, bits), tail_floats(zero_points_at(o->blocks, g, 0, PRODUCTS)), a_sum, true);
    const vf y = vf_mul(vf_mul(a_scale, tail_floats(scales_at(o->blocks, g, 0, PRODUCTS))), term);
    const vf pairs = vf_add(y, _mm512_permute_ps(y, 0x4e));
    const vf rows = vf_add(pairs, _mm512_permute_ps(pairs, 0xb1));
    const vi firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, rows));
}

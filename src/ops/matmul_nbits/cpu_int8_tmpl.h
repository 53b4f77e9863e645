/* What the templates of int8 kernels share: a file includes vectors (cpu_vec512_tmpl.h or cpu_vec256_tmpl.h),
 * this, and the loops that it wants.
 *
 * A group is what one load of B gives: VB bytes of 2- or 4-bit codes, in which shifts by 0, 2, 4, 6 or 0, 4
 * leave `planes` vectors of codes, and VB codes of any other width. */

static DBT_ALWAYS_INLINE int planes_of(uint32_t bits) { return bits == 2 ? 4 : bits == 4 ? 2 : 1; }
static DBT_ALWAYS_INLINE int64_t group_codes(int planes) { return (int64_t)VB * planes; }
static DBT_ALWAYS_INLINE int64_t group_bytes(int planes, uint32_t bits) {
    return group_codes(planes) / 8 * (int64_t)bits;
}

/* Keeps a vector in a register, where a compiler would rather load it once for each use. */
#define v_keep(v) __asm__("" : "+v"(v))

/* The group at b, of which `left` bytes belong to the row. */
static DBT_ALWAYS_INLINE vi load_group(const uint8_t *b, int64_t left, uint32_t bits) {
    if (planes_of(bits) == 1) return v_codes(b, left, bits);
    return left >= VB ? v_load(b) : v_load_some(b, left);
}
/* Plane j of a group. */
static DBT_ALWAYS_INLINE vi plane_of(vi group, int j, uint32_t bits) {
    if (planes_of(bits) == 1) return group;
    return v_and(v_shift_right16(group, j * (int)bits), v_set8((1 << bits) - 1));
}

/* Zero points of VL blocks of row n from block g on, integers or the bits of floats; zeros past the last, of
 * which there are `left`. */
static DBT_ALWAYS_INLINE vi zero_points_of(const dbt_matmul_nbits *p, int64_t n, int64_t g,
                                           int64_t left, uint32_t bits) {
    if (!p->zero_points) return v_set32(1 << (bits - 1));
    if (dbt_nbits_float_zero_points(p)) {
        return vf_bits(v_floats(p->zero_points, p->zero_point_type, n * p->k_blocks + g, left));
    }
    const int64_t row_bytes = dbt_nbits_zero_row_bytes(p), at = g / 8 * (int64_t)bits;
    return v_codes32((const uint8_t *)p->zero_points + n * row_bytes + at,
                     (p->N - n) * row_bytes - at, bits);
}
/* A block's sum of activations fits 16 bits, its dot product 24. */
static inline bool narrow_sums(const dbt_matmul_nbits *p) { return p->block_size <= 256; }
/* dots - zero_points * sums, whose parts may cancel: narrow ones are floats without rounding, so that one
 * instruction rounds the whole. */
static DBT_ALWAYS_INLINE vf apply_float(vi dots, vf zero_points, vi sums, bool narrow) {
    if (narrow) return vf_fnma(zero_points, vf_of_int(sums), vf_of_int(dots));
    return v_apply_float(dots, zero_points, sums);
}

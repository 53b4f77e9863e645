// Zero points beside integer dots: an integer, which is exact, and with float zero points what is left of
// them. Past INTEGER_LIMIT none is, so that sums of 32 products keep to 22 bits.
#include "nbits_unpack.inc.wgsl"
#include "nbits_zero_point.inc.wgsl"

const INTEGER_LIMIT = 512.0;

struct ZeroPoint {
    whole: i32, // of codes that have lost CODE_OFFSET
    rest: f32,
}

fn split_zero_point(n: u32, g: u32) -> ZeroPoint {
#if ZERO_POINT <= 1
    return ZeroPoint(i32(zero_point_code(n, g)) - CODE_OFFSET, 0.0);
#else
    let value = zero_point_at(n, g);
    let whole = select(0.0, round(value), abs(value) <= INTEGER_LIMIT);
    return ZeroPoint(i32(whole) - CODE_OFFSET, value - whole);
#endif
}

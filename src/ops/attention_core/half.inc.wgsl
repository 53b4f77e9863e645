// Rounds to float16, ties to even, as base/half.h does: WGSL leaves it open how pack2x16float rounds, and
// what becomes of numbers that are too large (here infinity).
fn half_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    var h = (size + 0xfffu + ((size >> 13u) & 1u) - 0x38000000u) >> 13u;
    if size < 0x38800000u { // subnormal: half a unit's last bit is worth 2^-24
        h = bitcast<u32>(bitcast<f32>(size) + 0.5) - 0x3f000000u;
    } else if size > 0x7f800000u {
        h = 0x7e00u;
    } else if size >= 0x47800000u {
        h = 0x7c00u;
    }
    return h | ((bits >> 16u) & 0x8000u);
}

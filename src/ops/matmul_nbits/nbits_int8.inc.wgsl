// Activations as int8, with the roundings of matmul_nbits.h bit for bit.
// A block of A has its scale s = absmax / 127 and its q = round(a * (127 / absmax)).
#include "nbits_a.inc.wgsl"
#include "nbits_block.inc.wgsl"
#include "nbits_problem.inc.wgsl"
#include "nbits_unpack.inc.wgsl"

// x / y rounded to nearest, for normal numbers with a normal quotient: WGSL's own division may be wrong in
// the last bits, and 127 / absmax decides which way halves of q go. The quotient of the significands is
// corrected by its remainder, which is small, so that 32 bits hold it whatever the products overflow.
fn divide(x: f32, y: f32) -> f32 {
    let x_bits = bitcast<u32>(x);
    let y_bits = bitcast<u32>(y);
    let x_significand = (x_bits & 0x7fffffu) | 0x800000u;
    let y_significand = (y_bits & 0x7fffffu) | 0x800000u;
    let shift = select(24u, 23u, x_significand >= y_significand);
    var quotient = u32(f32(x_significand) / f32(y_significand) * f32(1u << shift));
    var remainder = i32((x_significand << shift) - quotient * y_significand);
    let divisor = i32(y_significand);
    for (var i = 0; i < 4; i++) {
        let step = i32(2 * remainder > divisor) - i32(2 * remainder < -divisor);
        quotient += u32(step);
        remainder -= step * divisor;
    }
    return bitcast<f32>((((x_bits >> 23u) + 149u - (y_bits >> 23u) - shift) << 23u) + quotient);
}

struct Int8Scale {
    scale: f32,
    inverse: f32, // 0: all q are 0
}

// Of elements [k_begin, k_begin + count) of row m, as far as the row goes; count is a multiple of 4.
fn int8_scale(m: u32, k_begin: u32, count: u32) -> Int8Scale {
    var most = vec4<u32>(); // as bits: ordered like the values, and NaN above infinity
    for (var k = k_begin; k < min(k_begin + count, problem.K); k += 4u) {
        most = max(most, bitcast<vec4<u32>>(load_a(m, k)) & vec4<u32>(0x7fffffffu));
    }
    let absmax = max(max(most.x, most.y), max(most.z, most.w));
    if (absmax >= 0x7f800000u) {
        return Int8Scale(bitcast<f32>(absmax | 0x7fc00000u), 0.0);
    }
    if (absmax <= 0x08800000u) { // 2^-110
        return Int8Scale(0.0, 0.0);
    }
    return Int8Scale(divide(bitcast<f32>(absmax), 127.0), divide(127.0, bitcast<f32>(absmax)));
}

struct Sixteen {
    quads: vec4<u32>, // as pack_quad has codes
    sum: i32,
}

fn quantize_four(m: u32, k: u32, inverse: f32) -> vec4<i32> {
#if TRACE == 1
    trace_a_next(k);
#endif
    return vec4<i32>(round(load_a(m, k) * inverse));
}

// Elements [k, k + 16) of row m.
fn quantize_sixteen(m: u32, k: u32, inverse: f32) -> Sixteen {
    if (inverse == 0.0) {
        return Sixteen(vec4<u32>(), 0);
    }
    let q0 = quantize_four(m, k, inverse);
    let q1 = quantize_four(m, k + 4u, inverse);
    let q2 = quantize_four(m, k + 8u, inverse);
    let q3 = quantize_four(m, k + 12u, inverse);
    let total = q0 + q1 + q2 + q3;
    return Sixteen(pack_sixteen(q0, q1, q2, q3), total.x + total.y + total.z + total.w);
}

// A unit of row m, its two halves by themselves: with UNIT_BLOCKS 2 each has a scale of its own.
struct QuantizedUnit {
    low: Sixteen,
    high: Sixteen,
    scale: f32,
    second_scale: f32,
}

fn quantize_unit(m: u32, unit: u32) -> QuantizedUnit {
    let k = 32u * unit;
#if UNIT_BLOCKS == 2
    let first = int8_scale(m, k, 16u);
    let second = int8_scale(m, k + 16u, 16u);
#else
    let block_size = 1u << problem.block_shift;
    let first = int8_scale(m, block_of(unit, 0u) * block_size, block_size);
    let second = first;
#endif
    let low = quantize_sixteen(m, k, first.inverse);
    let high = quantize_sixteen(m, k + 16u, second.inverse);
#if TRACE == 1
    for (var i = 0u; i < 4u; i++) {
        trace_a_codes(i, low.quads[i], packed_elements(i));
        trace_a_codes(4u + i, high.quads[i], packed_elements(i));
    }
    trace_a_scale(0u, first.scale);
    trace_a_scale(1u, second.scale);
#endif
    return QuantizedUnit(low, high, first.scale, second.scale);
}

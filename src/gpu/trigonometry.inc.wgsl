// Sine and cosine of every float, right to 6 * 2^-24 of the result. x = m 2^e is multiplied by 96 bits
// of 2 / pi in integers, so that no rounding of the product is lost however large x is (positions
// times frequencies are large): its two top bits are the quadrant, the others the angle in it.

// 2 / pi in binary; the first bit is that of 2^31, the 33rd that of 2^-1.
const two_over_pi = array<u32, 8>(0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u,
                                  0x3c439041u, 0xfe5163abu);

// The upper 32 bits of a * b, for a < 2^24.
fn multiply_high(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}

fn shift_left(high: u32, low: u32, n: u32) -> u32 {
    return select((high << n) | (low >> ((32u - n) & 31u)), high, n == 0u);
}

struct Angle {
    rest: f32, // in [-pi/4, pi/4]
    quadrant: u32,
}

fn reduce_angle(x: f32) -> Angle {
    let bits = bitcast<u32>(x);
    let exponent = (bits >> 23u) & 0xffu;
    if exponent < 126u { // below 1/2
        return Angle(x, 0u);
    }
    let m = (bits & 0x007fffffu) | 0x00800000u;
    // Bits from 2^(2 - e) on count, those before it are multiples of 4 quadrants. e = exponent - 150.
    let first = exponent - 120u;
    var table = two_over_pi;
    let word = min(first >> 5u, 4u);
    let n = first & 31u;
    let w0 = shift_left(table[word], table[word + 1u], n);
    let w1 = shift_left(table[word + 1u], table[word + 2u], n);
    let w2 = shift_left(table[word + 2u], table[word + 3u], n);
    let middle = m * w1;
    let r1 = middle + multiply_high(m, w2);
    let r0 = m * w0 + multiply_high(m, w1) + select(0u, 1u, r1 < middle);
    var quadrant = r0 >> 30u;
    var high = (r0 << 2u) | (r1 >> 30u); // the fraction of a quadrant, 62 bits of it
    var low = r1 << 2u;
    let negative = high >= 0x80000000u; // the next quadrant is nearer
    if negative {
        quadrant += 1u;
        high = ~high + select(0u, 1u, low == 0u);
        low = ~low + 1u;
    }
    let zeros = min(countLeadingZeros(high), 31u);
    let fraction = f32(shift_left(high, low, zeros)) * bitcast<f32>((127u - 32u - zeros) << 23u);
    let rest = fraction * 1.57079632679489662;
    if bits >= 0x80000000u { // sin(-x) = -sin(x): turn back
        return Angle(select(-rest, rest, negative), (4u - (quadrant & 3u)) & 3u);
    }
    return Angle(select(rest, -rest, negative), quadrant & 3u);
}

fn sine_of(angle: Angle) -> f32 {
    let r = angle.rest;
    let z = r * r;
    var s = -1.9515295891e-4;
    s = fma(s, z, 8.3321608736e-3);
    s = fma(s, z, -1.6666654611e-1);
    s = fma(s * z, r, r);
    var c = 2.443315711809948e-5;
    c = fma(c, z, -1.388731625493765e-3);
    c = fma(c, z, 4.166664568298827e-2);
    c = fma(c * z, z, fma(z, -0.5, 1.0));
    let y = select(s, c, (angle.quadrant & 1u) == 1u);
    return select(y, -y, (angle.quadrant & 2u) == 2u);
}

fn is_beyond(x: f32) -> bool { // infinite, or NaN
    return (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u;
}

fn math_sin(x: f32) -> f32 {
    return select(sine_of(reduce_angle(x)), float_of_bits(0x7fc00000u), is_beyond(x));
}

fn math_cos(x: f32) -> f32 {
    let angle = reduce_angle(x);
    return select(sine_of(Angle(angle.rest, angle.quadrant + 1u)), float_of_bits(0x7fc00000u),
                  is_beyond(x));
}

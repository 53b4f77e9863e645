// Elementary functions in f32, as base/math.h has them: what WGSL asks of its own exp, log, tanh, sin
// and cos is too loose for a model's results, and left to drivers. Compilers may reassociate sums, so
// no result rests on the order of one, and may assume that there is no NaN and no infinity, so both
// are told by their bits.
// Largest errors, in units of 2^-24 of the result, with WGSL's division of 2.5 ulp: exp 4, expm1 6,
// log 4, log1p 8, tanh 8, erf 6, sigmoid 10, sin and cos 6.

// A call is no constant expression, so that infinity and NaN may be made.
fn float_of_bits(bits: u32) -> f32 {
    return bitcast<f32>(bits);
}

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn power_of_two(k: i32) -> f32 {
    return bitcast<f32>(u32(k + 127) << 23u);
}

// r = x - n ln(2), n the integer nearest to x / ln(2), for |x| < 128. The difference is taken in
// integers, in units of 2^-24: nothing there can be reassociated.
fn exp_rest(x: f32, n: f32) -> f32 {
    let difference = i32(round(x * 16777216.0)) - i32(n) * 11629080;
    return select(fma(n, 1.9046543e-9, f32(difference) * 5.9604644775390625e-8), x, n == 0.0);
}

// e^r - 1 for such an r.
fn exp_reduced(r: f32) -> f32 {
    var p = 1.9875691500e-4;
    p = fma(p, r, 1.3981999507e-3);
    p = fma(p, r, 8.3334519073e-3);
    p = fma(p, r, 4.1665795894e-2);
    p = fma(p, r, 1.6666665459e-1);
    p = fma(p, r, 5.0000001201e-1);
    return fma(p, r * r, r);
}

fn math_exp(x: f32) -> f32 {
    let c = clamp(x, -104.0, 89.0);
    let n = round(c * 1.44269504088896341);
    // 2^n in two factors, so that neither over- nor underflows: n is -150 to 128.
    let k = i32(n);
    let half = k >> 1u;
    let y = (exp_reduced(exp_rest(c, n)) + 1.0) * power_of_two(half) * power_of_two(k - half);
    return select(y, x, is_nan(x));
}

// e^x - 1 for x <= 0.
fn math_expm1(x: f32) -> f32 {
    let c = max(x, -104.0);
    let n = round(c * 1.44269504088896341);
    let p = exp_reduced(exp_rest(c, n));
    let scale = power_of_two(max(i32(n), -126));
    let y = select(fma(p, scale, scale - 1.0), p, n == 0.0);
    return select(y, x, is_nan(x));
}

// x = 2^k (1 + f) with f in [sqrt(1/2) - 1, sqrt(2) - 1]; log(1 + f) is f - f^2 / 2 and what the series
// of atanh(f / (2 + f)) adds to it.
fn math_log(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    if (bits & 0x7fffffffu) == 0u {
        return float_of_bits(0xff800000u);
    }
    if bits > 0x80000000u && bits <= 0xff800000u {
        return float_of_bits(0x7fc00000u);
    }
    if bits >= 0x7f800000u {
        return x;
    }
    let shift = max(countLeadingZeros(bits), 8u) - 8u; // of a subnormal, to have its first bit in place
    let mantissa = (bits << shift) & 0x007fffffu;
    let high = mantissa > 0x003504f3u;
    let k = f32(max(i32(bits >> 23u), 1) - 127 - i32(shift) + select(0, 1, high));
    let f = bitcast<f32>(mantissa | select(0x3f800000u, 0x3f000000u, high)) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let r = z * fma(z, fma(z, fma(z, 0.2222222222, 0.2857142857), 0.4), 0.6666666667);
    let square = 0.5 * f * f;
    let low = fma(k, -2.12194440e-4, s * (square + r)) - square;
    return fma(k, 0.693359375, low + f);
}

// log(1 + x) for x in [0, 1].
fn math_log1p(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let z = s * s;
    var p = 0.06666666667;
    p = fma(p, z, 0.07692307692);
    p = fma(p, z, 0.09090909091);
    p = fma(p, z, 0.1111111111);
    p = fma(p, z, 0.1428571429);
    p = fma(p, z, 0.2);
    p = fma(p, z, 0.3333333333);
    return 2.0 * fma(p * z, s, s);
}

fn math_sigmoid(x: f32) -> f32 {
    let e = math_exp(-abs(x));
    return select(1.0, e, x < 0.0) / (1.0 + e);
}

fn math_tanh(x: f32) -> f32 {
    let z = x * x;
    let a = abs(x);
    var p = -5.70498872745e-3;
    p = fma(p, z, 2.06390887954e-2);
    p = fma(p, z, -5.37397155531e-2);
    p = fma(p, z, 1.33314422036e-1);
    p = fma(p, z, -3.33332819422e-1);
    let near = fma(p * z, x, x);
    let far = 1.0 - 2.0 / (math_exp(2.0 * min(a, 10.0)) + 1.0);
    let y = select(select(far, -far, x < 0.0), near, a < 0.625);
    return select(y, x, is_nan(x));
}

fn math_erf(x: f32) -> f32 {
    let z = x * x;
    let a = min(abs(x), 4.0);
    var p = -6.03445922024548e-4;
    p = fma(p, z, 5.001490470021963e-3);
    p = fma(p, z, -2.6772094890475273e-2);
    p = fma(p, z, 1.128196120262146e-1);
    p = fma(p, z, -3.761250674724579e-1);
    p = fma(p, z, 1.2837915122509003e-1);
    var q = -2.0045031851623207e-4;
    q = fma(q, a, 3.0870551709085703e-3);
    q = fma(q, a, -2.2399812936782837e-2);
    q = fma(q, a, 1.0428616404533386e-1);
    q = fma(q, a, 6.367831826210022e-1);
    q = fma(q, a, 1.127909541130066);
    q = fma(q, a, 1.3983412645757198e-4);
    let far = 1.0 - math_exp(-q);
    let y = select(select(far, -far, x < 0.0), fma(x, p, x), a < 0.9);
    return select(y, x, is_nan(x));
}

// x Phi(x), Phi the normal distribution.
fn math_gelu(x: f32) -> f32 {
    return 0.5 * x * (1.0 + math_erf(x * 0.70710678118654752));
}

// Gelu with tanh in erf's place.
fn math_fast_gelu(x: f32) -> f32 {
    return 0.5 * x * (1.0 + math_tanh(x * fma(0.035677408136300125 * x, x, 0.79788456080286536)));
}

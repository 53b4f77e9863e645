// Casts between what a device stores: floats and 32-bit words. cast.h says what they do.
// @binding(1) x [count], @binding(2) y [count], in elements of VEC words. A workgroup of 256 takes 256 of
// them; ceil(count / 256) workgroups. No features.

// FROM 0: floats, 1: integers and bools. TO 0: floats, 1: floats rounded to float16, 2: to bfloat16,
// 3: integers, 4: bools.
#param FROM 0 1
#param TO 0..4
#param VEC 1 4

#include "map.inc.wgsl"
#include "narrow.inc.wgsl"

struct Uniforms {
    count: u32,
    low: i32, // what floats saturate to
    high: i32,
    low_float: f32, // as floats; the upper one is high + 1
    beyond: f32,
    mask: u32,  // of an integer type of fewer than 32 bits, and the shift
    shift: u32, // that spreads its sign
}
@group(0) @binding(0) var<uniform> u: Uniforms;

#if FROM == 0
alias X = f32;
#else
alias X = i32;
#endif
#if TO < 3
alias Y = f32;
#else
alias Y = i32;
#endif

// By bits, since quantizeToF16 leaves rounding, overflow and subnormals open.
fn round_to_half(v: f32) -> f32 {
    let bits = bitcast<u32>(v);
    let size = bits & 0x7fffffffu;
    if size >= 0x7f800000u { // infinity, NaN
        return v;
    }
    if size < 0x38800000u { // subnormal there: a multiple of 2^-24
        return round(v * 16777216.0) * 5.9604644775390625e-8;
    }
    let rounded = (size + 0xfffu + ((size >> 13u) & 1u)) & 0xffffe000u;
    return bitcast<f32>(select(rounded, 0x7f800000u, rounded >= 0x47800000u) | (bits & 0x80000000u));
}

fn round_to_bfloat16(v: f32) -> f32 {
    let bits = bitcast<u32>(v);
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return v;
    }
    return bitcast<f32>((bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u);
}

fn saturated(v: f32) -> i32 {
    if (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u {
        return 0;
    }
    if v >= u.beyond {
        return u.high;
    }
    if v <= u.low_float {
        return u.low;
    }
    return i32(v);
}

fn f(x: X) -> Y {
#if TO == 0
    return f32(x);
#elif TO == 1
    return round_to_half(f32(x));
#elif TO == 2
    return round_to_bfloat16(f32(x));
#elif TO == 3 && FROM == 0
    return narrow(saturated(x));
#elif TO == 3
    return narrow(x);
#elif FROM == 0
    return select(0, 1, (bitcast<u32>(x) & 0x7fffffffu) != 0u);
#else
    return select(0, 1, x != 0);
#endif
}

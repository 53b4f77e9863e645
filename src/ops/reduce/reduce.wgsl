// The Reduce* ops. x's dims are kept or reduced, in groups as reduce.h says; result o begins at element
//     offset(kept, o / width) + o % width,       and element k of its `count` lies
//     offset(reduced, k / run) + k % run         beyond that.
// @binding(1) x, @binding(2) y [outputs]. WIDE 1: a workgroup of 256 takes a result; WIDE 0: an invocation
// does, ceil(outputs / 256) workgroups. No features.

// Of floats: 0 sum, 1 mean, 2 max, 3 min, 4 product, 5 L1, 6 L2, 7 log of sum, 8 log of sum of exp, 9 sum
// of squares; the same of integers from 20 on.
#param KIND 0..9 20 22..25 29
#param WIDE 0 1

#include "grid.inc.wgsl"
#include "math.inc.wgsl"
#if KIND >= 20
#include "narrow.inc.wgsl"
#endif
#include "wide.inc.wgsl"

struct Uniforms {
    outputs: u32,
    count: u32,
    width: u32,
    run: u32,
    kept_rank: u32,
    reduced_rank: u32,
    mask: u32,  // of an integer type of fewer than 32 bits, and the shift
    shift: u32, // that spreads its sign
    kept_dims: array<vec4<u32>, 2>, // innermost first
    kept_strides: array<vec4<u32>, 2>,
    reduced_dims: array<vec4<u32>, 2>,
    reduced_strides: array<vec4<u32>, 2>,
    first: i32, // of a maximum or minimum of integers
}
@group(0) @binding(0) var<uniform> u: Uniforms;

#if KIND < 20
alias T = f32;
#else
alias T = i32;
#endif
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

fn kept_offset(index: u32) -> u32 {
    var rest = index;
    var offset = 0u;
    for (var d = 0u; d < u.kept_rank; d++) {
        offset += rest % u.kept_dims[d >> 2u][d & 3u] * u.kept_strides[d >> 2u][d & 3u];
        rest /= u.kept_dims[d >> 2u][d & 3u];
    }
    return offset;
}

fn reduced_offset(index: u32) -> u32 {
    var rest = index;
    var offset = 0u;
    for (var d = 0u; d < u.reduced_rank; d++) {
        offset += rest % u.reduced_dims[d >> 2u][d & 3u] * u.reduced_strides[d >> 2u][d & 3u];
        rest /= u.reduced_dims[d >> 2u][d & 3u];
    }
    return offset;
}

// What is reduced with `combine`: the element, or what it contributes.
fn term(v: T, shift: T) -> T {
#if KIND == 5 || KIND == 25
    return abs(v);
#elif KIND == 6 || KIND == 9 || KIND == 29
    return v * v;
#elif KIND == 8
    return math_exp(v - shift);
#else
    return v;
#endif
}

fn largest(a: T, v: T) -> T { // NaN wins
#if KIND < 20
    return select(select(a, v, v > a), v, is_nan(v));
#else
    return max(a, v);
#endif
}

fn combine(a: T, v: T) -> T {
#if KIND == 2 || KIND == 22
    return largest(a, v);
#elif KIND == 3
    return select(select(a, v, v < a), v, is_nan(v));
#elif KIND == 23
    return min(a, v);
#elif KIND == 4 || KIND == 24
    return a * v;
#else
    return a + v;
#endif
}

fn initial() -> T {
#if KIND == 2
    return float_of_bits(0xff800000u);
#elif KIND == 3
    return float_of_bits(0x7f800000u);
#elif KIND == 4
    return 1.0;
#elif KIND == 22 || KIND == 23
    return u.first;
#elif KIND == 24
    return 1;
#else
    return T(0);
#endif
}

fn finish(a: T, shift: T) -> T {
#if KIND == 1
    return a / f32(u.count);
#elif KIND == 6
    return sqrt(a);
#elif KIND == 7
    return math_log(a);
#elif KIND == 8
    return math_log(a) + shift;
#elif KIND < 20
    return a;
#else
    return narrow(a);
#endif
}

#if WIDE == 1
var<workgroup> lanes: array<T, 256>;

fn over_lanes(lane: u32, v: T, of_largest: bool) -> T {
    workgroupBarrier();
    lanes[lane] = v;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            if of_largest {
                lanes[lane] = largest(lanes[lane], lanes[lane + half]);
            } else {
                lanes[lane] = combine(lanes[lane], lanes[lane + half]);
            }
        }
    }
    workgroupBarrier();
    return lanes[0];
}
#else
fn over_lanes(lane: u32, v: T, of_largest: bool) -> T {
    return v;
}
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let o = result_of(grid_index(group, groups), lane);
    let first = first_of(lane);
    if o >= u.outputs {
        return;
    }
    let base = kept_offset(o / u.width) + o % u.width;
    var shift = T(0);
#if KIND == 8
    shift = float_of_bits(0xff800000u);
    for (var k = first; k < u.count; k += step) {
        shift = largest(shift, x[base + reduced_offset(k / u.run) + k % u.run]);
    }
    shift = over_lanes(lane, shift, true);
    if (bitcast<u32>(shift) & 0x7f800000u) == 0x7f800000u { // infinite, or NaN
        shift = 0.0;
    }
#endif
    var a = initial();
    for (var k = first; k < u.count; k += step) {
        a = combine(a, term(x[base + reduced_offset(k / u.run) + k % u.run], shift));
    }
    a = over_lanes(lane, a, false);
#if WIDE == 1
    if lane == 0u {
        y[o] = finish(a, shift);
    }
#else
    y[o] = finish(a, shift);
#endif
}

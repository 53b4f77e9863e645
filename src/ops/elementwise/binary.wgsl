// y = f(a, b), broadcast: the binary elementwise ops; binary_gpu.c has the table of what OP means.
// @binding(1) a, @binding(2) b, @binding(3) y [count]. VEC 4: a and b have y's shape and all are read as
// vec4, count of them. A workgroup of 256 takes 256 elements (or vectors); ceil(count / 256)
// workgroups. No features.

// 1 to 10: floats; 20 to 24: floats to bool; 30 to 43: words; 50 to 57: words to bool.
#param OP 1..10 20..24 30..43 50..57
#param VEC 1 4

#include "grid.inc.wgsl"
#include "math.inc.wgsl"
#include "broadcast.inc.wgsl"
#include "narrow.inc.wgsl"

struct Uniforms {
    shape: Broadcast,
    n: f32,     // inputs of a Mean
    mask: u32,  // of an integer type of fewer than 32 bits, and the shift
    shift: u32, // that spreads its sign
    bits: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;

#if OP < 30
alias X = f32;
#else
alias X = i32;
#endif
#if OP < 20
alias Y = f32;
#else
alias Y = i32;
#endif

fn truth(v: bool) -> i32 {
    return select(0, 1, v);
}

// By zero it is zero; the lowest number by -1 is itself.
fn quotient(a: i32, b: i32) -> i32 {
    let by_one = b == 0 || b == -1;
    return select(a / select(b, 1, by_one), select(-a, 0, b == 0), by_one);
}

fn remainder(a: i32, b: i32) -> i32 {
    return select(a % select(b, 1, b == 0 || b == -1), 0, b == 0 || b == -1);
}

fn f(a: X, b: X) -> Y {
#if OP == 1
    return a + b;
#elif OP == 2
    return a - b;
#elif OP == 3
    return a * b;
#elif OP == 4
    return a / b;
#elif OP == 5
    return select(a, a * b, a < 0.0);
#elif OP == 6 // NaN wins
    return select(select(select(b, a, a > b), b, is_nan(b)), a, is_nan(a));
#elif OP == 7
    return select(select(select(b, a, a < b), b, is_nan(b)), a, is_nan(a));
#elif OP == 8
    return math_gelu(a + b);
#elif OP == 9
    return math_fast_gelu(a + b);
#elif OP == 10 // the last step of Mean
    return (a + b) / u.n;
#elif OP == 20 || OP == 50
    return truth(a == b);
#elif OP == 21 || OP == 51
    return truth(a < b);
#elif OP == 22 || OP == 52
    return truth(a <= b);
#elif OP == 23 || OP == 53
    return truth(a > b);
#elif OP == 24 || OP == 54
    return truth(a >= b);
#elif OP == 30
    return narrow(a + b);
#elif OP == 31
    return narrow(a - b);
#elif OP == 32
    return narrow(a * b);
#elif OP == 33
    return narrow(quotient(a, b));
#elif OP == 34
    return narrow(select(a, a * b, a < 0));
#elif OP == 35
    return max(a, b);
#elif OP == 36
    return min(a, b);
#elif OP == 37 // the sign of the divisor
    let r = remainder(a, b);
    return select(r, r + b, r != 0 && (r ^ b) < 0);
#elif OP == 38
    return remainder(a, b);
#elif OP == 39
    return a & b;
#elif OP == 40
    return a | b;
#elif OP == 41
    return a ^ b;
#elif OP == 42
    return select(0, narrow(a << (u32(b) & 31u)), u32(b) < u.bits);
#elif OP == 43
    return select(0, a >> (u32(b) & 31u), u32(b) < u.bits);
#elif OP == 55
    return truth(a != 0 && b != 0);
#elif OP == 56
    return truth(a != 0 || b != 0);
#elif OP == 57
    return truth((a != 0) != (b != 0));
#endif
}

#if VEC == 4
@group(0) @binding(1) var<storage, read> a: array<vec4<X>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<X>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<Y>>;
#else
@group(0) @binding(1) var<storage, read> a: array<X>;
@group(0) @binding(2) var<storage, read> b: array<X>;
@group(0) @binding(3) var<storage, read_write> y: array<Y>;
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.shape.count {
        return;
    }
#if VEC == 4
    let v = a[i];
    let w = b[i];
    y[i] = vec4<Y>(f(v.x, w.x), f(v.y, w.y), f(v.z, w.z), f(v.w, w.w));
#else
    let at = sources_of(i);
    y[i] = f(a[at.x], b[at.y]);
#endif
}
